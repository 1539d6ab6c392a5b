package reconcile

import (
	"errors"
	"math/rand"
	"slices"
	"testing"
	"time"
)

// randomItems returns n items over span seconds, in order. Few seconds make many items of the same time.
func randomItems(rng *rand.Rand, n int, span int64) []Item {
	items := make([]Item, n)
	for i := range items {
		items[i].Time = 1_790_000_000 + rng.Int63n(span)
		rng.Read(items[i].ID[:])
		if rng.Intn(3) == 0 { // long common prefixes
			copy(items[i].ID[:], make([]byte, rng.Intn(25))) // and still no id twice
		}
	}
	slices.SortFunc(items, Item.Compare)
	return slices.Compact(items)
}

// vector makes a Vector of items in any order.
func vector(t testing.TB, items []Item) *Vector {
	t.Helper()
	slices.SortFunc(items, Item.Compare)
	v, err := NewVector(items)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// buckets makes a set of hours out of items in order; it counts in loads how many were looked into.
func buckets(t testing.TB, items []Item, width int64, loads *int) *Buckets {
	t.Helper()
	var list []Bucket
	inside := map[int64][]Item{}
	for _, i := range items {
		start := i.Time - i.Time%width
		if len(list) == 0 || list[len(list)-1].Start != start {
			list = append(list, Bucket{Start: start})
		}
		b := &list[len(list)-1]
		b.Count++
		b.Sum.Add(&i.ID)
		inside[start] = append(inside[start], i)
	}
	kept := map[int64]*Vector{}
	return NewBuckets(list, func(b Bucket) (*Vector, error) {
		if kept[b.Start] == nil {
			*loads++
			kept[b.Start] = vector(t, inside[b.Start])
		}
		return kept[b.Start], nil
	})
}

// cost is what a reconciliation took.
type cost struct{ rounds, up, down int }

// reconcileAll runs both sides to the end.
func reconcileAll(t testing.TB, client, server Set, lone bool, l Limits) (d Difference, c cost) {
	t.Helper()
	msg, err := Open(client)
	if err != nil {
		t.Fatal(err)
	}
	for msg != nil {
		if c.rounds++; c.rounds > 10_000 {
			t.Fatal("it does not end")
		}
		c.up += len(msg)
		answer, err := Answer(server, msg, l)
		if err != nil {
			t.Fatal(err)
		}
		c.down += len(answer)
		if limit := max(l.Bytes, 4096); l.Bytes > 0 && (len(answer) > limit || len(msg) > limit) {
			t.Fatalf("messages of %d and %d bytes, limit %d", len(msg), len(answer), limit)
		}
		var step Difference
		if msg, step, err = Resolve(client, answer, lone, l); err != nil {
			t.Fatal(err)
		}
		d.Have, d.Need = append(d.Have, step.Have...), append(d.Need, step.Need...)
		d.HaveAll, d.NeedAll = append(d.HaveAll, step.HaveAll...), append(d.NeedAll, step.NeedAll...)
	}
	return d, c
}

// difference is the oracle: the ids of a that are not in b.
func difference(a, b []Item) []ID {
	in := map[ID]bool{}
	for _, i := range b {
		in[i.ID] = true
	}
	var only []ID
	for _, i := range a {
		if !in[i.ID] {
			only = append(only, i.ID)
		}
	}
	return only
}

func sortedIDs(ids []ID) []ID {
	slices.SortFunc(ids, func(a, b ID) int { return slices.Compare(a[:], b[:]) })
	return slices.Compact(ids) // what was cut off by a limit may come twice
}

func ids(items []Item) []ID {
	var list []ID
	for _, i := range items {
		list = append(list, i.ID)
	}
	return list
}

// within returns the ids of items in any of the ranges.
func within(items []Item, ranges []Range) []ID {
	var list []ID
	for _, i := range items {
		for _, r := range ranges {
			if r.Contains(i) {
				list = append(list, i.ID)
			}
		}
	}
	return list
}

func TestDifferenceIsThatOfBruteForce(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewSource(seed))
	for range 300 {
		all := randomItems(rng, rng.Intn(3000), 1+rng.Int63n(100_000))
		var a, b []Item
		only := rng.Float64() * rng.Float64()
		for _, i := range all {
			x := rng.Float64()
			if x >= only/2 {
				a = append(a, i)
			}
			if x < only/2 || x >= only {
				b = append(b, i)
			}
		}
		if rng.Intn(10) == 0 {
			a = nil
		}
		if rng.Intn(10) == 0 {
			b = nil
		}
		var loads int
		sets := func(items []Item) Set {
			if rng.Intn(2) == 0 {
				return vector(t, slices.Clone(items))
			}
			return buckets(t, items, 3600, &loads)
		}
		lone := rng.Intn(2) == 0
		l := Limits{Bytes: []int{0, 4096, 20_000}[rng.Intn(3)]}
		if rng.Intn(4) == 0 {
			l.Stop = func() bool { return rng.Intn(5) == 0 }
		}
		d, _ := reconcileAll(t, sets(a), sets(b), lone, l)
		have := append(ids(d.Have), within(a, d.HaveAll)...)
		need := append(slices.Clone(d.Need), within(b, d.NeedAll)...)
		if !lone && len(d.HaveAll)+len(d.NeedAll) > 0 {
			t.Fatal("ranges were told that nobody asked for")
		}
		if !slices.Equal(sortedIDs(have), sortedIDs(difference(a, b))) {
			t.Fatalf("of %d and %d: %d to give, want %d", len(a), len(b), len(have), len(difference(a, b)))
		}
		if !slices.Equal(sortedIDs(need), sortedIDs(difference(b, a))) {
			t.Fatalf("of %d and %d: %d to get, want %d", len(a), len(b), len(need), len(difference(b, a)))
		}
	}
}

// TestSetsAnswerAlike compares the two kinds of sets question by question.
func TestSetsAnswerAlike(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewSource(seed))
	for range 100 {
		items := randomItems(rng, 1+rng.Intn(500), 1+rng.Int63n(50_000))
		var loads int
		b, v := buckets(t, items, 3600, &loads), vector(t, slices.Clone(items))
		for range 50 {
			bound := between(items[0], items[rng.Intn(len(items))])
			bound.Time += rng.Int63n(3) - 1
			rb, _ := b.Rank(bound)
			if rv, _ := v.Rank(bound); rb != rv {
				t.Fatalf("Rank(%v) = %d and %d", bound, rb, rv)
			}
			lo := rng.Intn(len(items))
			hi := lo + rng.Intn(len(items)-lo+1)
			sb, _ := b.Sum(lo, hi)
			if sv, _ := v.Sum(lo, hi); sb != sv {
				t.Fatalf("Sum(%d, %d) differs", lo, hi)
			}
			got, _ := b.Items(lo, hi)
			if !slices.Equal(got, items[lo:hi]) {
				t.Fatalf("Items(%d, %d) differs", lo, hi)
			}
			if hi-lo < 2 {
				continue
			}
			for _, s := range []Set{b, v} {
				checkCuts(t, s, lo, hi)
			}
		}
	}
}

func checkCuts(t *testing.T, s Set, lo, hi int) {
	t.Helper()
	cuts, err := s.Cut(lo, hi, parts)
	if err != nil || len(cuts) < 1 || len(cuts) >= 2*parts {
		t.Fatalf("Cut(%d, %d) makes %d cuts (%v)", lo, hi, len(cuts), err)
	}
	last := lo
	for _, c := range cuts {
		if r, _ := s.Rank(c.Bound); c.Rank <= last || c.Rank >= hi || r != c.Rank {
			t.Fatalf("Cut(%d, %d) cuts at %d behind %d, the bound's rank is %d", lo, hi, c.Rank, last, r)
		}
		last = c.Rank
	}
}

func TestItemsOutOfOrderAreRefused(t *testing.T) {
	a, b := Item{Time: 1, ID: ID{2}}, Item{Time: 1, ID: ID{1}}
	for _, items := range [][]Item{{a, b}, {a, a}} {
		if _, err := NewVector(items); err == nil {
			t.Errorf("NewVector(%v) refuses nothing", items)
		}
	}
}

func TestEqualSetsAgreeInOneRound(t *testing.T) {
	items := randomItems(rand.New(rand.NewSource(1)), 10_000, 1_000_000)
	var loads int
	d, c := reconcileAll(t, buckets(t, items, 3600, &loads), vector(t, slices.Clone(items)), true, Limits{})
	if c.rounds != 1 || c.up+c.down > 25 || loads != 0 || len(d.Have)+len(d.Need) > 0 {
		t.Errorf("%d rounds, %d bytes up, %d down, %d buckets read", c.rounds, c.up, c.down, loads)
	}
}

func TestMessagesOutOfFormAreRefused(t *testing.T) {
	set := vector(t, randomItems(rand.New(rand.NewSource(1)), 100, 1000))
	for name, msg := range map[string][]byte{
		"empty":             {},
		"cut in a bound":    {version, 0x81},
		"long prefix":       append([]byte{version, 5, 33}, make([]byte, 40)...),
		"unknown mode":      {version, 0, 0, 3},
		"cut fingerprint":   {version, 0, 0, modeFingerprint, 1, 2, 3},
		"more ids than are": {version, 0, 0, modeIDs, 0x8f, 0xff, 0xff, 0x7f, 1},
		"descending":        {version, 5, 1, 9, modeSkip, 1, 1, 8, modeSkip},
		"great number":      {version, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0, 0},
	} {
		if _, err := Answer(set, msg, Limits{}); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: Answer() = %v, want ErrMalformed", name, err)
		}
	}
	if answer, err := Answer(set, []byte{0x62, 1, 2}, Limits{}); err != nil || !slices.Equal(answer, []byte{version}) {
		t.Errorf("to version 2 Answer() = %x, %v; want its own version", answer, err)
	}
	if _, _, err := Resolve(set, []byte{0x60}, false, Limits{}); !errors.Is(err, ErrVersion) {
		t.Errorf("of version 0 Resolve() says %v, want ErrVersion", err)
	}
}

// TestFailureOfTheSetIsToldAndNotHidden: an hour that cannot be read must not look like an empty one.
func TestFailureOfTheSetIsToldAndNotHidden(t *testing.T) {
	items := randomItems(rand.New(rand.NewSource(1)), 1000, 1000)
	broken := errors.New("the disk is gone")
	set := NewBuckets([]Bucket{{Start: items[0].Time, Count: 1000}}, func(Bucket) (*Vector, error) { return nil, broken })
	msg, _ := Open(vector(t, items[:500]))
	if _, err := Answer(set, msg, Limits{}); !errors.Is(err, broken) {
		t.Errorf("Answer() = %v, want %v", err, broken)
	}
	short := NewBuckets([]Bucket{{Start: items[0].Time, Count: 1000}}, func(Bucket) (*Vector, error) { return vector(t, items[:10]), nil })
	if _, err := Answer(short, msg, Limits{}); err == nil {
		t.Error("a bucket with too few items is taken as it is")
	}
}
