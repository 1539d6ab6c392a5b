package store

import (
	"encoding/binary"
	"math"
	"slices"

	"openline/protocol"
)

// maxScans bounds authors times kinds, each of which is a place of its own in the index.
const maxScans = 1024

// plan returns the scans that together see every event that f can match, through one index: the one that promises the
// fewest events that do not match. None: f matches nothing.
func (q *query) plan(f protocol.Filter) ([]*scan, error) {
	from, to, ok := span(f)
	if !ok {
		return nil, nil
	}
	if f.IDs != nil {
		return q.planIDs(f.IDs)
	}
	prefixes, keep := choose(f)
	scans := make([]*scan, len(prefixes))
	for i, p := range prefixes {
		scans[i] = &scan{prefix: p, from: from, to: to, keep: keep, page: max(minPage, maxPage/len(prefixes))}
	}
	return scans, nil
}

// span returns the first and the last position that f's times allow; false when f matches nothing.
func span(f protocol.Filter) (from, to position, ok bool) {
	since, until := int64(0), int64(math.MaxInt64)
	if f.Since != nil {
		since = max(0, *f.Since)
	}
	if f.Until != nil {
		until = *f.Until
	}
	none := f.IDs != nil && len(f.IDs) == 0 || f.Authors != nil && len(f.Authors) == 0 || f.Kinds != nil && len(f.Kinds) == 0 ||
		slices.ContainsFunc(f.Tags, func(t protocol.TagFilter) bool { return len(t.Values) == 0 })
	return newest(until), oldest(since), !none && since <= until
}

// choose returns the index prefixes to scan for a filter without ids, and what to ask the rows' values, nil for nothing.
func choose(f protocol.Filter) (prefixes [][]byte, keep func(value []byte) bool) {
	if t := shortest(f.Tags, func(letter byte) bool { return letter == 'e' }); t != nil {
		return tagPrefixes(*t), nil
	}
	if f.Kinds != nil && f.Authors != nil && len(f.Authors)*len(f.Kinds) <= maxScans {
		for _, a := range f.Authors {
			for _, k := range f.Kinds {
				prefixes = append(prefixes, authorKindKey(a, k))
			}
		}
		return prefixes, nil
	}
	if t := shortest(f.Tags, func(byte) bool { return true }); t != nil {
		return tagPrefixes(*t), nil
	}
	if f.Authors != nil {
		for _, a := range f.Authors {
			prefixes = append(prefixes, authorKey(a))
		}
		if f.Kinds != nil { // too many of them: the rows tell the kind
			keep = func(value []byte) bool {
				return len(value) == 2 && slices.Contains(f.Kinds, binary.BigEndian.Uint16(value))
			}
		}
		return prefixes, keep
	}
	if f.Kinds != nil {
		for _, k := range f.Kinds {
			prefixes = append(prefixes, key(rowKind, kindBytes(k)))
		}
		return prefixes, nil
	}
	return [][]byte{key(rowEvent)}, nil
}

// shortest returns the tag filter with the fewest values among those whose letter will do, nil when none does.
func shortest(tags []protocol.TagFilter, will func(letter byte) bool) *protocol.TagFilter {
	var best *protocol.TagFilter
	for i, t := range tags {
		if will(t.Letter) && (best == nil || len(t.Values) < len(best.Values)) {
			best = &tags[i]
		}
	}
	return best
}

func tagPrefixes(t protocol.TagFilter) [][]byte {
	prefixes := make([][]byte, len(t.Values))
	for i, v := range t.Values {
		prefixes[i] = tagKey(t.Letter, v)
	}
	return prefixes
}

// planIDs looks up where the events with these ids stand.
func (q *query) planIDs(ids []protocol.ID) ([]*scan, error) {
	s := &scan{done: true}
	for _, id := range ids {
		p, _, ok, err := find(q.snap, id)
		if err != nil {
			return nil, err
		}
		if ok {
			s.ahead = append(s.ahead, p)
		}
	}
	slices.SortFunc(s.ahead, position.compare)
	return []*scan{s}, nil
}
