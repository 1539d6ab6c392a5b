package reconcile

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"slices"
	"sort"
)

// ID is the id of an item; two items are the same when their ids are.
type ID = [32]byte

// Item is one element of a set. Sets are ordered by time, then by id, both ascending.
type Item struct {
	Time int64 // not negative, less than Infinity
	ID   ID
}

// Compare is negative when i comes before o.
func (i Item) Compare(o Item) int {
	return cmp.Or(cmp.Compare(i.Time, o.Time), bytes.Compare(i.ID[:], o.ID[:]))
}

// Infinity is the time of the bound that no item reaches.
const Infinity = math.MaxInt64

// Bound divides a set: the items before it are those before (Time, Prefix and then zeros).
type Bound struct {
	Time   int64
	Prefix []byte // at most 32 bytes
}

// item returns the least item that is not before b.
func (b Bound) item() Item {
	i := Item{Time: b.Time}
	copy(i.ID[:], b.Prefix)
	return i
}

// Compare is negative when b comes before o.
func (b Bound) Compare(o Bound) int { return b.item().Compare(o.item()) }

// At returns the bound that i is the first item not before.
func At(i Item) Bound { return Bound{Time: i.Time, Prefix: i.ID[:]} }

// between returns the shortest bound with a before and b not before it.
func between(a, b Item) Bound {
	if a.Time != b.Time {
		return Bound{Time: b.Time}
	}
	n := 0
	for n < len(a.ID)-1 && a.ID[n] == b.ID[n] {
		n++
	}
	return Bound{Time: b.Time, Prefix: b.ID[:n+1]}
}

// Set is a sorted set, seen through ranks: the item of rank 0 is the first. Ranks are from 0 to Len. The errors are
// those of whatever the items are read from.
type Set interface {
	Len() int
	Rank(b Bound) (int, error)            // how many items are before b
	Sum(lo, hi int) (Sum, error)          // of the items with ranks lo to hi-1
	Items(lo, hi int) ([]Item, error)     // the caller must not change them
	Cut(lo, hi, parts int) ([]Cut, error) // where to cut that range into 2 to parts parts; lo+1 < hi
}

// Cut is a place between two items: Rank items are before Bound.
type Cut struct {
	Rank  int
	Bound Bound
}

// sumEvery is the distance between two prefix sums of a Vector: at most so many ids are added to answer for a range.
const sumEvery = 16

// Vector is a set in memory, 42 bytes an item. Sums take constant time: of every 16th item the sum of all before it is kept.
type Vector struct {
	items []Item
	sums  []Sum // sums[i] is that of items[:i*sumEvery]
}

// NewVector takes items in ascending order, each once, and keeps the slice.
func NewVector(items []Item) (*Vector, error) {
	v := &Vector{items: items, sums: make([]Sum, 0, len(items)/sumEvery+1)}
	var sum Sum
	for i := range items {
		if i%sumEvery == 0 {
			v.sums = append(v.sums, sum)
		}
		if i > 0 && items[i-1].Compare(items[i]) >= 0 {
			return nil, fmt.Errorf("the items of a set do not ascend at %d of %d", i, len(items))
		}
		sum.Add(&items[i].ID)
	}
	return v, nil
}

func (v *Vector) Len() int { return len(v.items) }

// Rank never fails.
func (v *Vector) Rank(b Bound) (int, error) {
	if b.Time == Infinity {
		return len(v.items), nil
	}
	at, _ := slices.BinarySearchFunc(v.items, b.item(), Item.Compare)
	return at, nil
}

// Sum never fails.
func (v *Vector) Sum(lo, hi int) (Sum, error) {
	s := v.before(hi)
	s.Take(v.before(lo))
	return s, nil
}

// before returns the sum of the first n items.
func (v *Vector) before(n int) Sum {
	at := n / sumEvery
	if at == len(v.sums) { // behind the last item
		at--
	}
	if at < 0 {
		return Sum{}
	}
	s := v.sums[at]
	for i := at * sumEvery; i < n; i++ {
		s.Add(&v.items[i].ID)
	}
	return s
}

// Items never fails.
func (v *Vector) Items(lo, hi int) ([]Item, error) { return v.items[lo:hi:hi], nil }

// Cut cuts into parts of equal length and never fails.
func (v *Vector) Cut(lo, hi, parts int) ([]Cut, error) {
	n := hi - lo
	parts = min(parts, n)
	cuts := make([]Cut, 0, parts-1)
	for i := 1; i < parts; i++ {
		at := lo + n/parts*i + min(i, n%parts)
		cuts = append(cuts, Cut{at, between(v.items[at-1], v.items[at])})
	}
	return cuts, nil
}

// Bucket says of the items whose times lie in one span how many they are and what their ids add up to.
type Bucket struct {
	Start int64 // the first time of the span; spans do not overlap
	Count int
	Sum   Sum
}

// Buckets is a set whose items are read only where two sets differ: everything else is answered from the buckets' sums.
// With hours of 90 days that is 2,160 buckets, whatever the number of items.
type Buckets struct {
	buckets []Bucket
	counts  []int // counts[i] items are before bucket i
	sums    []Sum
	load    func(Bucket) (*Vector, error)
}

// NewBuckets takes buckets that are not empty in ascending order. load returns the items of one; it is called again for
// every question about the inside of a bucket, so that keeping some of them is up to load.
func NewBuckets(buckets []Bucket, load func(Bucket) (*Vector, error)) *Buckets {
	s := &Buckets{buckets: buckets, load: load, counts: make([]int, len(buckets)+1), sums: make([]Sum, len(buckets)+1)}
	for i, b := range buckets {
		s.counts[i+1] = s.counts[i] + b.Count
		s.sums[i+1] = s.sums[i]
		s.sums[i+1].AddSum(b.Sum)
	}
	return s
}

func (s *Buckets) Len() int { return s.counts[len(s.buckets)] }

// inside returns the items of bucket i.
func (s *Buckets) inside(i int) (*Vector, error) {
	v, err := s.load(s.buckets[i])
	if err == nil && v.Len() != s.buckets[i].Count {
		err = fmt.Errorf("a bucket has %d items and not %d as it says", v.Len(), s.buckets[i].Count)
	}
	return v, err
}

func (s *Buckets) Rank(b Bound) (int, error) {
	if b.Time == Infinity {
		return s.Len(), nil
	}
	i := sort.Search(len(s.buckets), func(i int) bool { return s.buckets[i].Start > b.Time }) - 1
	switch {
	case i < 0:
		return 0, nil
	case b.Time == s.buckets[i].Start && len(b.Prefix) == 0:
		return s.counts[i], nil
	}
	v, err := s.inside(i)
	if err != nil {
		return 0, err
	}
	r, err := v.Rank(b)
	return s.counts[i] + r, err
}

// bucketOf returns the bucket in which the item with this rank is.
func (s *Buckets) bucketOf(rank int) int {
	return sort.SearchInts(s.counts, rank+1) - 1
}

func (s *Buckets) Sum(lo, hi int) (Sum, error) {
	sum, err := s.before(hi)
	if err != nil {
		return Sum{}, err
	}
	low, err := s.before(lo)
	sum.Take(low)
	return sum, err
}

func (s *Buckets) before(rank int) (Sum, error) {
	i := s.bucketOf(rank)
	sum, left := s.sums[i], rank-s.counts[i]
	if left == 0 {
		return sum, nil
	}
	v, err := s.inside(i)
	if err != nil {
		return Sum{}, err
	}
	sum.AddSum(v.before(left))
	return sum, nil
}

func (s *Buckets) Items(lo, hi int) ([]Item, error) {
	var items []Item
	for i := s.bucketOf(lo); lo < hi; i++ {
		v, err := s.inside(i)
		if err != nil {
			return nil, err
		}
		end := min(hi, s.counts[i+1])
		part, _ := v.Items(lo-s.counts[i], end-s.counts[i]) // a Vector's never fails
		if items == nil && end == hi {
			return part, nil
		}
		items = append(items, part...)
		lo = end
	}
	return items, nil
}

// Cut cuts between buckets, which costs nothing, until only one is left.
func (s *Buckets) Cut(lo, hi, parts int) ([]Cut, error) {
	first, last := s.bucketOf(lo), s.bucketOf(hi-1)
	if first == last {
		v, err := s.inside(first)
		if err != nil {
			return nil, err
		}
		base := s.counts[first]
		cuts, _ := v.Cut(lo-base, hi-base, parts) // a Vector's never fails
		for i := range cuts {
			cuts[i].Rank += base
		}
		return cuts, nil
	}
	var cuts []Cut
	if last-first < 2*parts { // all of them: two hours in one part would cost a round more
		for b := first + 1; b <= last; b++ {
			cuts = append(cuts, Cut{s.counts[b], Bound{Time: s.buckets[b].Start}})
		}
		return cuts, nil
	}
	for i := 1; i < parts; i++ {
		want := lo + (hi-lo)/parts*i
		b := max(first+1, sort.SearchInts(s.counts, want)) // the first bucket that begins there or later
		if b > last {
			break
		}
		if len(cuts) == 0 || s.counts[b] > cuts[len(cuts)-1].Rank {
			cuts = append(cuts, Cut{s.counts[b], Bound{Time: s.buckets[b].Start}})
		}
	}
	if cuts == nil { // nearly all is in the last bucket
		cuts = append(cuts, Cut{s.counts[last], Bound{Time: s.buckets[last].Start}})
	}
	return cuts, nil
}
