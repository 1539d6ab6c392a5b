package store

import (
	"bytes"
	"container/heap"
	"context"
	"errors"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"openline/protocol"
)

// A scan reads minPage to maxPage rows at a time: a filter with hundreds of authors must not read far ahead for each of
// them, and one with a single topic should not seek for each row.
const minPage, maxPage = 4, 128

// query reads one snapshot for one caller. Its two iterators are shared by all scans, however many a filter needs.
type query struct {
	ctx   context.Context
	now   time.Time
	snap  *pebble.Snapshot
	index *pebble.Iterator
	rows  *pebble.Iterator
	looks int // at rows, to know when to look at ctx
}

func (s *Store) newQuery(ctx context.Context) (*query, error) {
	q := &query{ctx: ctx, now: s.now(), snap: s.db.NewSnapshot()}
	var err error
	if q.index, err = q.snap.NewIter(nil); err != nil {
		return nil, errors.Join(wrap(err), q.snap.Close())
	}
	if q.rows, err = q.snap.NewIter(nil); err != nil {
		return nil, errors.Join(wrap(err), q.index.Close(), q.snap.Close())
	}
	return q, nil
}

// close gives the snapshot back. What went wrong was said where it did.
func (q *query) close() {
	_ = q.rows.Close()
	_ = q.index.Close()
	_ = q.snap.Close()
}

// tick is called for every row read.
func (q *query) tick() error {
	if q.looks++; q.looks%checkEvery == 0 {
		return q.ctx.Err()
	}
	return nil
}

// union emits what the filters match, newest first and each event once, until emit returns false.
func (q *query) union(filters []protocol.Filter, most int, emit func(protocol.Event) bool) (more bool, err error) {
	var streams []*stream
	for _, f := range filters {
		st, err := q.stream(f, most)
		if err != nil {
			return false, err
		}
		streams = append(streams, st)
	}
	for {
		best := (*stream)(nil)
		for _, st := range streams {
			if st.ok && (best == nil || st.at.compare(best.at) < 0) {
				best = st
			}
		}
		if best == nil {
			return true, nil
		}
		if !emit(best.event) {
			return false, nil
		}
		at := best.at
		for _, st := range streams {
			if st.ok && st.at == at {
				if err := st.advance(); err != nil {
					return false, err
				}
			}
		}
	}
}

// stream is what one filter matches, newest first, cut to its limit.
type stream struct {
	*query
	filter protocol.Filter
	scans  scanHeap
	left   int // events that the limit still allows

	ok    bool // there is a current event
	at    position
	event protocol.Event
}

func (q *query) stream(f protocol.Filter, most int) (*stream, error) {
	st := &stream{query: q, filter: f, left: most}
	if f.Limit != nil {
		st.left = min(most, *f.Limit)
	}
	if st.left <= 0 {
		return st, nil
	}
	scans, err := q.plan(f)
	if err != nil {
		return nil, err
	}
	for _, s := range scans {
		if err := q.fill(s); err != nil {
			return nil, err
		}
		if len(s.ahead) > 0 {
			st.scans = append(st.scans, s)
		}
	}
	heap.Init(&st.scans)
	return st, st.advance()
}

// advance goes on to the next event that matches.
func (st *stream) advance() error {
	st.ok = false
	last := st.at
	for st.left > 0 && len(st.scans) > 0 {
		at, err := st.pop()
		if err != nil {
			return err
		}
		if at == last { // two scans found it
			continue
		}
		last = at
		event, err := st.load(at)
		if err != nil {
			return err
		}
		if st.filter.Matches(event) && !event.Expired(st.now) {
			st.ok, st.at, st.event = true, at, event
			st.left--
			return nil
		}
	}
	return nil
}

// pop takes the newest position out of the scans.
func (st *stream) pop() (position, error) {
	s := st.scans[0]
	at := s.ahead[0]
	s.ahead = s.ahead[1:]
	if len(s.ahead) == 0 {
		if err := st.fill(s); err != nil {
			return position{}, err
		}
	}
	if len(s.ahead) == 0 {
		heap.Pop(&st.scans)
	} else {
		heap.Fix(&st.scans, 0)
	}
	return at, nil
}

// load reads the event at p, which an index names. The positions of a stream ascend, so that the iterator is near.
func (q *query) load(p position) (protocol.Event, error) {
	if err := q.tick(); err != nil {
		return protocol.Event{}, err
	}
	k := eventKey(p)
	if !q.rows.SeekGE(k) || !bytes.Equal(q.rows.Key(), k) {
		if err := q.rows.Error(); err != nil {
			return protocol.Event{}, wrap(err)
		}
		return protocol.Event{}, damaged("an index names an event that is not here")
	}
	value, err := q.rows.ValueAndErr()
	if err != nil {
		return protocol.Event{}, wrap(err)
	}
	r, err := decodeRecord(p, value)
	return r.event, err
}

// scan reads the positions under one prefix of an index, a page at a time.
type scan struct {
	prefix   []byte
	from, to position                // what is not read yet, both inclusive
	keep     func(value []byte) bool // nil keeps all
	page     int
	done     bool

	ahead []position // read and not yet taken
}

// fill reads the next page.
func (q *query) fill(s *scan) error {
	if s.done {
		return nil
	}
	s.ahead = make([]position, 0, s.page)
	ok := q.index.SeekGE(key(s.prefix[0], s.prefix[1:], s.from[:]))
	for ; ok && len(s.ahead) < s.page; ok = q.index.Next() {
		rest, mine := bytes.CutPrefix(q.index.Key(), s.prefix)
		if !mine || bytes.Compare(rest, s.to[:]) > 0 {
			ok = false
			break
		}
		if len(rest) != len(position{}) {
			return damaged("an index row has %d bytes behind its prefix", len(rest))
		}
		if err := q.tick(); err != nil {
			return err
		}
		if s.keep != nil {
			value, err := q.index.ValueAndErr()
			if err != nil {
				return wrap(err)
			}
			if !s.keep(value) {
				continue
			}
		}
		s.ahead = append(s.ahead, position(rest))
	}
	if !ok {
		s.done = true
		return wrap(q.index.Error())
	}
	s.from = s.ahead[len(s.ahead)-1].successor()
	s.page = min(2*s.page, maxPage)
	return nil
}

// scanHeap has the scan with the newest position on top.
type scanHeap []*scan

func (h scanHeap) Len() int           { return len(h) }
func (h scanHeap) Less(i, j int) bool { return h[i].ahead[0].compare(h[j].ahead[0]) < 0 }
func (h scanHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *scanHeap) Push(x any)        { *h = append(*h, x.(*scan)) }

func (h *scanHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}
