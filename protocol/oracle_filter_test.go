package protocol

import (
	"bytes"
	"encoding/json"
	"slices"
	"testing"

	"github.com/nbd-wtf/go-nostr"
)

func (r source) filter(events []Event) Filter {
	var f Filter
	e := events[r.IntN(len(events))]
	maybe := func(set func()) {
		if r.IntN(3) == 0 {
			set()
		}
	}
	maybe(func() {
		f.IDs = []ID{}
		for range r.IntN(4) {
			f.IDs = append(f.IDs, events[r.IntN(len(events))].ID())
		}
	})
	maybe(func() {
		f.Authors = []PubKey{}
		for range r.IntN(4) {
			f.Authors = append(f.Authors, events[r.IntN(len(events))].PubKey())
		}
	})
	maybe(func() {
		f.Kinds = []uint16{}
		for range r.IntN(4) {
			f.Kinds = append(f.Kinds, events[r.IntN(len(events))].Kind())
		}
	})
	for _, letter := range []byte("teE") {
		maybe(func() {
			t := TagFilter{Letter: letter, Values: []string{}}
			for range r.IntN(4) {
				t.Values = append(t.Values, r.pick("iran", "x", "", a64, r.text(2)))
			}
			f.Tags = append(f.Tags, t)
		})
	}
	maybe(func() { v := max(0, e.CreatedAt()-1+r.Int64N(3)); f.Since = &v })
	maybe(func() { v := max(0, e.CreatedAt()-1+r.Int64N(3)); f.Until = &v })
	maybe(func() { v := r.IntN(100); f.Limit = &v })
	maybe(func() { f.Search = r.text(3) + r.pick("", "\x01<&>") })
	return f
}

// dumbMatch reads the filter's JSON by NIP-01's words alone.
func dumbMatch(t *testing.T, filter []byte, e nostr.Event) bool {
	t.Helper()
	var members map[string]any
	d := json.NewDecoder(bytes.NewReader(filter))
	d.UseNumber()
	if err := d.Decode(&members); err != nil {
		t.Fatal(err)
	}
	number := func(v any) int64 { n, _ := v.(json.Number).Int64(); return n }
	for name, value := range members {
		var have []string
		switch {
		case name == "since" && int64(e.CreatedAt) < number(value), name == "until" && int64(e.CreatedAt) > number(value):
			return false
		case name == "ids":
			have = []string{e.ID}
		case name == "authors":
			have = []string{e.PubKey}
		case name == "kinds":
			if !slices.ContainsFunc(value.([]any), func(v any) bool { return number(v) == int64(e.Kind) }) {
				return false
			}
			continue
		case name[0] == '#':
			for _, tag := range e.Tags {
				if tag[0] == name[1:] && len(tag) > 1 {
					have = append(have, tag[1])
				}
			}
		default:
			continue
		}
		if !slices.ContainsFunc(value.([]any), func(v any) bool { return slices.Contains(have, v.(string)) }) {
			return false
		}
	}
	return true
}

func TestFilterMatchesWhatOraclesMatch(t *testing.T) {
	r := newSource(t)
	keys := r.keys(t, 3)
	var events []Event
	for range 60 {
		events = append(events, r.event(t, keys))
	}
	matched := 0
	for range 1500 {
		f := r.filter(events)
		raw, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseFilter(raw)
		if err != nil {
			t.Fatalf("ParseFilter(%s): %v", raw, err)
		}
		var theirs nostr.Filter
		if err := json.Unmarshal(raw, &theirs); err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			got, o := f.Matches(e), oracleEvent(e)
			if want := dumbMatch(t, raw, o); got != want || again.Matches(e) != want {
				t.Fatalf("%s: Matches() = %v, after parsing %v, want %v for %s", raw, got, again.Matches(e), want, e.AppendJSON(nil))
			}
			if want := theirs.Matches(&o); got != want {
				t.Fatalf("%s: Matches() = %v, go-nostr says %v of %s", raw, got, want, e.AppendJSON(nil))
			}
			if got {
				matched++
			}
		}
	}
	if matched < 1000 {
		t.Errorf("only %d matches: the oracle saw too few", matched)
	}
}
