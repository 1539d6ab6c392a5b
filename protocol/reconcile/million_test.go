package reconcile

import (
	"math/rand"
	"slices"
	"testing"
)

// millions returns two sets of a million items over 90 days that differ in 100 scattered ones, half on each side.
func millions(t testing.TB, rng *rand.Rand) (a, b []Item) {
	items := randomItems(rng, 1_000_100, 90*24*3600)
	differ := map[int]bool{}
	for len(differ) < 100 {
		differ[rng.Intn(len(items))] = len(differ)%2 == 0
	}
	for i, item := range items {
		inA, only := differ[i]
		if !only || inA {
			a = append(a, item)
		}
		if !only || !inA {
			b = append(b, item)
		}
	}
	return a, b
}

// TestMillionDifferingInAHundred is the promise of DESIGN.md section 10, but for the time, which BenchmarkMillion measures.
func TestMillionDifferingInAHundred(t *testing.T) {
	a, b := millions(t, rand.New(rand.NewSource(7)))
	var loads int
	for name, sets := range map[string][2]Set{
		"vectors": {vector(t, slices.Clone(a)), vector(t, slices.Clone(b))},
		"hours":   {buckets(t, a, 3600, &loads), buckets(t, b, 3600, &loads)},
	} {
		d, c := reconcileAll(t, sets[0], sets[1], false, Limits{})
		t.Logf("%s: %d rounds, %d bytes up, %d down, %d hours read by both", name, c.rounds, c.up, c.down, loads)
		if len(d.Have) != 50 || len(d.Need) != 50 {
			t.Errorf("%s: %d to give and %d to get, want 50 and 50", name, len(d.Have), len(d.Need))
		}
		if c.rounds > 5 || c.up+c.down > 200_000 {
			t.Errorf("%s: %d rounds and %d bytes; 5 and 200,000 are the most", name, c.rounds, c.up+c.down)
		}
	}
}

// BenchmarkMillion is the work of both sides together.
func BenchmarkMillion(b *testing.B) {
	left, right := millions(b, rand.New(rand.NewSource(7)))
	var loads int
	for name, sets := range map[string][2]Set{
		"vectors": {vector(b, slices.Clone(left)), vector(b, slices.Clone(right))},
		"hours":   {buckets(b, left, 3600, &loads), buckets(b, right, 3600, &loads)},
	} {
		reconcileAll(b, sets[0], sets[1], false, Limits{}) // the hours that differ are read once
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				reconcileAll(b, sets[0], sets[1], false, Limits{})
			}
		})
	}
}
