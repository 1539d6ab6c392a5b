package store

import (
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"testing"

	"openline/protocol"
	"openline/protocol/reconcile"
)

// BenchmarkPut stores own events, each answered when it is durable, for as many clients as there are.
func BenchmarkPut(b *testing.B) {
	for _, clients := range []int{2, 16, 128} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			s := openStore(b, config(b.TempDir()))
			var n atomic.Int64
			b.SetParallelism(clients / 2) // times GOMAXPROCS, which is 2 where these figures come from
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					i := n.Add(1)
					e := note(i/20, start.Unix()-i%1000, "a note of usual length", protocol.Tag{"t", fmt.Sprint(i % 100)})
					if _, err := s.Put(b.Context(), e, Own); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// benchEvents is how many events the queries find; OPENLINE_BENCH_EVENTS=1000000 for a large relay.
func benchEvents(b *testing.B) int64 {
	n, err := strconv.ParseInt(os.Getenv("OPENLINE_BENCH_EVENTS"), 10, 64)
	if err != nil {
		return 100_000
	}
	return n
}

func BenchmarkQuery(b *testing.B) {
	s := openStore(b, config(b.TempDir()))
	events := benchEvents(b)
	const batch = 512
	for i := int64(0); i < events; i += batch {
		done := make(chan error, 1)
		j := &job{done: done, do: func(g *group) error {
			for n := i; n < min(i+batch, events); n++ {
				if _, err := g.put(note(n/20, start.Unix()-n, "a note of usual length", protocol.Tag{"t", fmt.Sprint(n % 100)}), Remote); err != nil {
					return err
				}
			}
			return nil
		}}
		if err := s.enqueue(b.Context(), false, j); err != nil {
			b.Fatal(err)
		}
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
	authors := protocol.Filter{Kinds: []uint16{1, 6, 7}}
	for i := range int64(300) {
		authors.Authors = append(authors.Authors, note(i*10, 0, "").PubKey())
	}
	for _, c := range []struct {
		name   string
		filter func(n int) protocol.Filter
	}{
		{"Topic100", func(n int) protocol.Filter {
			return protocol.Filter{Tags: []protocol.TagFilter{{Letter: 't', Values: []string{fmt.Sprint(n % 100)}}}}
		}},
		{"Newest100", func(int) protocol.Filter { return protocol.Filter{} }},
		{"Of300Authors100", func(int) protocol.Filter { return authors }},
	} {
		b.Run(c.name, func(b *testing.B) {
			n := 0
			for b.Loop() {
				if got := len(stored(b, s, 100, c.filter(n))); got != 100 {
					b.Fatalf("%d events", got)
				}
				n++
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "queries/s")
		})
	}
	b.Run("Topics", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.Topics(b.Context(), start.AddDate(-1, 0, 0), 10); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("KnownMiss", func(b *testing.B) {
		c := protocol.Claim{Kind: 1}
		for b.Loop() {
			c.ID[0], c.ID[1] = c.ID[0]+1, c.ID[1]+3
			if err := s.Known(c); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkReconcile compares two stores that differ in 100 events, scattered over 90 days, shard by shard, both sides'
// work together: what history does when two nodes meet, without the network.
func BenchmarkReconcile(b *testing.B) {
	events := benchEvents(b)
	var stores [2]*Store
	for side := range stores {
		s := openStore(b, config(b.TempDir()))
		stores[side] = s
		const batch = 512
		for i := int64(0); i < events; i += batch {
			done := make(chan error, 1)
			j := &job{done: done, do: func(g *group) error {
				for n := i; n < min(i+batch, events); n++ {
					if n%(events/100) == 50 && n/(events/100)%2 == int64(side) {
						continue
					}
					created := start.Unix() - n*(90*24*hour)/events
					if _, err := g.put(note(n/20, created, "a note of usual length", protocol.Tag{"t", fmt.Sprint(n % 100)}), Remote); err != nil {
						return err
					}
				}
				return nil
			}}
			if err := s.enqueue(b.Context(), false, j); err != nil {
				b.Fatal(err)
			}
			if err := <-done; err != nil {
				b.Fatal(err)
			}
		}
	}
	bytes, found := 0, 0
	for b.Loop() {
		bytes, found = 0, 0
		for shard := range protocol.Shards {
			n, f := reconcileShard(b, stores, shard)
			bytes, found = bytes+n, found+f
		}
	}
	b.ReportMetric(float64(bytes), "wire-bytes")
	b.ReportMetric(float64(found), "differences")
}

// reconcileShard returns how many bytes went over the wire and how many differences were found.
func reconcileShard(b *testing.B, stores [2]*Store, shard int) (bytes, found int) {
	b.Helper()
	var msg []byte
	step := func(side int, do func(reconcile.Set) error) {
		if err := stores[side].View(shard, 0, reconcile.Infinity, do); err != nil {
			b.Fatal(err)
		}
		bytes += len(msg)
	}
	step(0, func(set reconcile.Set) (err error) { msg, err = reconcile.Open(set); return err })
	for msg != nil {
		step(1, func(set reconcile.Set) (err error) {
			msg, err = reconcile.Answer(set, msg, reconcile.Limits{})
			return err
		})
		var d reconcile.Difference
		step(0, func(set reconcile.Set) (err error) {
			msg, d, err = reconcile.Resolve(set, msg, false, reconcile.Limits{})
			return err
		})
		found += len(d.Have) + len(d.Need)
	}
	return bytes, found
}
