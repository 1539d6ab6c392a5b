package protocol

import (
	"encoding/hex"
	"encoding/json"
	"slices"
	"strconv"
)

// Filter selects events (NIP-01). A nil list or pointer is no condition; an empty list matches nothing.
type Filter struct {
	IDs     []ID
	Authors []PubKey
	Kinds   []uint16
	Tags    []TagFilter // in the order they were given
	Since   *int64      // Unix seconds, inclusive
	Until   *int64      // Unix seconds, inclusive
	Limit   *int        // of stored events; not looked at by Matches
	Search  string      // NIP-50; not looked at by Matches
}

// TagFilter selects events that have a tag with this one-letter name and one of these values.
type TagFilter struct {
	Letter byte
	Values []string
}

// maxFilterValues bounds the members of all lists of one filter.
const maxFilterValues = 4096

// ParseFilter reads a NIP-01 filter object. A *Rejection says what is wrong with it; members that are not NIP-01's
// or NIP-50's are refused, because to pass over a condition would answer more than was asked for.
func ParseFilter(raw []byte) (Filter, error) {
	var f Filter
	s := scanner{in: raw}
	seen := map[string]bool{}
	values := 0
	s.object(func(key string) {
		if seen[key] {
			s.fail("filter member %q stands twice", key)
			return
		}
		seen[key] = true
		f.member(&s, key, &values)
	})
	s.end()
	if s.err != nil {
		return Filter{}, s.err
	}
	return f, nil
}

func (f *Filter) member(s *scanner, key string, values *int) {
	list := func(element func()) {
		s.array(func() {
			if *values++; *values > maxFilterValues {
				s.fail("the filter has more than %d values", maxFilterValues)
				return
			}
			element()
		})
	}
	switch key {
	case "ids":
		f.IDs = []ID{}
		list(func() { f.IDs = append(f.IDs, ID{}); s.hex(f.IDs[len(f.IDs)-1][:], "an id in a filter") })
	case "authors":
		f.Authors = []PubKey{}
		list(func() {
			f.Authors = append(f.Authors, PubKey{})
			s.hex(f.Authors[len(f.Authors)-1][:], "an author in a filter")
		})
	case "kinds":
		f.Kinds = []uint16{}
		list(func() { f.Kinds = append(f.Kinds, uint16(s.integer(65535, "a kind in a filter"))) })
	case "since":
		v := s.integer(maxTime, "since")
		f.Since = &v
	case "until":
		v := s.integer(maxTime, "until")
		f.Until = &v
	case "limit":
		v := int(s.integer(1<<31-1, "limit"))
		f.Limit = &v
	case "search":
		f.Search = s.string()
	default:
		if len(key) != 2 || key[0] != '#' || !isLetter(key[1]) {
			s.fail("%.20q is not a member of a filter", key)
			return
		}
		t := TagFilter{Letter: key[1], Values: []string{}}
		list(func() { t.Values = append(t.Values, s.string()) })
		f.Tags = append(f.Tags, t)
	}
}

func isLetter(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }

// Matches reports whether e fulfils every condition of f but Limit and Search.
func (f Filter) Matches(e Event) bool {
	if f.Since != nil && e.createdAt < *f.Since || f.Until != nil && e.createdAt > *f.Until {
		return false
	}
	if f.Kinds != nil && !slices.Contains(f.Kinds, e.kind) ||
		f.Authors != nil && !slices.Contains(f.Authors, e.pubkey) ||
		f.IDs != nil && !slices.Contains(f.IDs, e.id) {
		return false
	}
	for _, t := range f.Tags {
		if !t.matches(e.tags) {
			return false
		}
	}
	return true
}

func (t TagFilter) matches(tags []Tag) bool {
	for _, tag := range tags {
		if len(tag) > 1 && len(tag[0]) == 1 && tag[0][0] == t.Letter && slices.Contains(t.Values, tag[1]) {
			return true
		}
	}
	return false
}

// MarshalJSON returns f as ParseFilter reads it.
func (f Filter) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	name := func(name string) {
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = append(b, name...)
		b = append(b, '"', ':')
	}
	if f.IDs != nil {
		name("ids")
		b = appendList(b, f.IDs, func(b []byte, id ID) []byte { return appendHex(b, id[:]) })
	}
	if f.Authors != nil {
		name("authors")
		b = appendList(b, f.Authors, func(b []byte, k PubKey) []byte { return appendHex(b, k[:]) })
	}
	if f.Kinds != nil {
		name("kinds")
		b = appendList(b, f.Kinds, func(b []byte, k uint16) []byte { return strconv.AppendUint(b, uint64(k), 10) })
	}
	for _, t := range f.Tags {
		name("#" + string(t.Letter))
		b = appendList(b, t.Values, appendText)
	}
	for _, m := range []struct {
		name  string
		value *int64
	}{{"since", f.Since}, {"until", f.Until}} {
		if m.value != nil {
			name(m.name)
			b = strconv.AppendInt(b, *m.value, 10)
		}
	}
	if f.Limit != nil {
		name("limit")
		b = strconv.AppendInt(b, int64(*f.Limit), 10)
	}
	if f.Search != "" {
		name("search")
		b = appendText(b, f.Search)
	}
	return append(b, '}'), nil
}

// appendText is for texts that nobody signed: unlike AppendString it escapes every control character.
func appendText(b []byte, s string) []byte {
	quoted, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string always has a JSON form
	}
	return append(b, quoted...)
}

func appendHex(b, v []byte) []byte {
	b = append(b, '"')
	b = hex.AppendEncode(b, v)
	return append(b, '"')
}

func appendList[T any](b []byte, list []T, value func([]byte, T) []byte) []byte {
	b = append(b, '[')
	for i, v := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = value(b, v)
	}
	return append(b, ']')
}
