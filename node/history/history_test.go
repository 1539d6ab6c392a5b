package history

import (
	"slices"
	"testing"
	"time"

	"openline/protocol"
)

func TestBothSidesGetWhatTheyLack(t *testing.T) {
	inWorld(t, func(w *world) {
		common, a, b := notes(t, 300, 90*24*hour, "common"), notes(t, 50, 90*24*hour, "a"), notes(t, 60, 3*hour, "b")
		x := w.node(Config{}, newMemory(append(slices.Clone(common), a...)...))
		y := w.node(Config{}, newMemory(append(slices.Clone(common), b...)...))
		w.connect(x.host, y.host)
		time.Sleep(10 * time.Second)
		w.same()
		if n := len(w.mems[0].ids()); n != 410 {
			t.Errorf("%d events, want 410", n)
		}
		for i, m := range w.mems {
			if want := []int{60, 50}[i]; m.took != want {
				t.Errorf("node %d was given %d events, lacked %d", i, m.took, want)
			}
		}
		t.Logf("%d and %d bytes sent", x.Count.Sent.Load(), y.Count.Sent.Load())
	})
}

func TestNewsTravelsFromHopToHop(t *testing.T) {
	inWorld(t, func(w *world) {
		const nodes = 6
		for i := range nodes {
			w.node(Config{}, newMemory())
			if i > 0 {
				w.connect(w.nodes[i-1].host, w.nodes[i].host)
			}
		}
		time.Sleep(10 * time.Second)
		last := w.node(Config{}, newMemory(notes(t, 200, 24*hour, "beyond the border")...))
		w.connect(last.host, w.nodes[0].host)
		time.Sleep(20 * time.Second)
		w.same()
	})
}

// TestNothingIsFetchedTwice: six neighbours that all hold what one lacks.
func TestNothingIsFetchedTwice(t *testing.T) {
	inWorld(t, func(w *world) {
		events := notes(t, 2000, 24*hour, "")
		y := w.node(Config{}, newMemory())
		for range 6 {
			w.connect(y.host, w.node(Config{}, newMemory(events...)).host)
		}
		time.Sleep(30 * time.Second)
		w.same()
		if took := w.mems[0].took; took > 2100 {
			t.Errorf("%d events were sent to a node that lacked 2,000", took)
		}
	})
}

func TestNewestComesFirst(t *testing.T) {
	inWorld(t, func(w *world) {
		events := notes(t, 3000, 30*24*hour, "")
		y := w.node(Config{}, newMemory())
		w.connect(y.host, w.node(Config{}, newMemory(events...)).host)
		time.Sleep(30 * time.Second)
		w.same()
		m := w.mems[0]
		place := map[int64]int{} // by day, the last place
		now := time.Now().Unix()
		for i, id := range m.order {
			place[min(3, (now-m.events[id].CreatedAt())/(24*hour))] = i
		}
		if place[0] > 600 {
			t.Errorf("the last event of the newest day came as number %d of 3,000", place[0])
		}
	})
}

func TestEqualStoresSayLittle(t *testing.T) {
	inWorld(t, func(w *world) {
		events := notes(t, 2000, 24*hour, "")
		x, y := w.node(Config{}, newMemory(events...)), w.node(Config{}, newMemory(events...))
		w.connect(x.host, y.host)
		time.Sleep(time.Second)
		before := x.Count.Sent.Load() + y.Count.Sent.Load()
		x.Check(1)
		time.Sleep(5 * time.Second)
		if n := x.Count.Sent.Load() + y.Count.Sent.Load() - before; n < 100 || n > 700 {
			t.Errorf("a comparison of equal stores takes %d bytes in both directions, want at most 700", n)
		}
	})
}

// TestEvictedIsNotOfferedAgain: below the horizon of either nothing moves, however often they compare.
func TestEvictedIsNotOfferedAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		events := notes(t, 500, 90*24*hour, "")
		now := time.Now().Unix()
		short := newMemory()
		short.horizon = (now - 10*24*hour) / hour * hour
		x, y := w.node(Config{}, newMemory(events...)), w.node(Config{}, short)
		w.connect(x.host, y.host)
		time.Sleep(30 * time.Minute)
		want := 0
		for _, e := range events {
			if e.CreatedAt() >= short.horizon {
				want++
			}
		}
		if len(short.ids()) != want || short.took != want {
			t.Errorf("%d events were offered and %d taken, want %d", short.took, len(short.ids()), want)
		}
		if x.Count.Dropped.Load()+y.Count.Dropped.Load() > 0 {
			t.Error("an honest peer was dropped")
		}
	})
}

// TestRefusedIsNotFetchedForEver: what this node does not want costs little, although the peer goes on holding it.
func TestRefusedIsNotFetchedForEver(t *testing.T) {
	inWorld(t, func(w *world) {
		events := notes(t, 200, 24*hour, "")
		m := newMemory(events[:100]...)
		m.refuse = func(protocol.Event) error { return protocol.Reject(protocol.OverQuota, "over quota") }
		x, y := w.node(Config{}, newMemory(events...)), w.node(Config{}, m)
		w.connect(x.host, y.host)
		time.Sleep(2 * time.Hour)
		if m.took > 10*100 {
			t.Errorf("100 events that are refused were sent %d times in two hours", m.took)
		}
		t.Logf("sent %d times; %d bytes", m.took, x.Count.Sent.Load())
	})
}

func TestOtherNetworksAreLeftAlone(t *testing.T) {
	inWorld(t, func(w *world) {
		x, y := w.node(Config{}, newMemory(notes(t, 10, hour, "")...)), New(w.host(), newMemory(), Config{Network: "other"})
		w.wg.Go(func() { _ = y.Run(w.ctx) })
		w.connect(x.host, y.host)
		time.Sleep(time.Minute)
		if n := len(y.src.(*memory).ids()); n > 0 || x.Count.Dropped.Load()+y.Count.Dropped.Load() > 0 {
			t.Errorf("%d events crossed to another network; dropped %d and %d", n, x.Count.Dropped.Load(), y.Count.Dropped.Load())
		}
	})
}

func TestIslandCountsItsNodes(t *testing.T) {
	for _, nodes := range []int{3, 14} {
		inWorld(t, func(w *world) {
			for i := range nodes {
				w.node(Config{}, newMemory())
				if i > 0 {
					w.connect(w.nodes[i-1].host, w.nodes[i].host)
				}
			}
			w.nodes[0].HeardOutside(time.Now())
			time.Sleep(15 * time.Minute)
			for i, y := range w.nodes {
				if got := y.Island(); got != nodes {
					t.Errorf("node %d counts %d nodes, want %d", i, got, nodes)
				}
				if y.Outside().IsZero() {
					t.Errorf("node %d does not know when anything came from outside", i)
				}
			}
			half := nodes / 2
			w.disconnect(w.nodes[half-1].host.ID(), w.nodes[half].host.ID())
			time.Sleep(40 * time.Minute)
			if got := w.nodes[0].Island(); got != half {
				t.Errorf("after the cut it counts %d nodes, want %d", got, half)
			}
		})
	}
}

func TestClocksThatDifferAreSeen(t *testing.T) {
	inWorld(t, func(w *world) {
		y := w.node(Config{}, newMemory())
		ahead := func() time.Time { return time.Now().Add(2 * time.Hour) }
		for range 3 {
			w.connect(y.host, w.node(Config{Now: ahead}, newMemory()).host)
		}
		time.Sleep(10 * time.Second)
		if offset, n := y.ClockOffset(); n != 3 || offset < 2*time.Hour-2*time.Second || offset > 2*time.Hour+2*time.Second {
			t.Errorf("ClockOffset() = %v of %d peers, want 2 h of 3", offset, n)
		}
	})
}

// TestFetchingGoesOnWhereItBrokeOff: connections that last two seconds each, and nothing comes twice.
func TestFetchingGoesOnWhereItBrokeOff(t *testing.T) {
	inWorld(t, func(w *world) {
		events := notes(t, 8000, 24*hour, "")
		x, m := w.node(Config{Budget: 200_000}, newMemory(events...)), newMemory()
		y := w.node(Config{}, m)
		for i := 0; len(m.ids()) < len(events); i++ {
			if i > 30 {
				t.Fatalf("%d of %d events after %d connections", len(m.ids()), len(events), i)
			}
			w.connect(y.host, x.host)
			time.Sleep(2 * time.Second)
			w.disconnect(x.host.ID(), y.host.ID())
			time.Sleep(10 * time.Second)
		}
		if m.took > len(events)*11/10 {
			t.Errorf("%d events were sent to a node that lacked %d", m.took, len(events))
		}
		t.Logf("%d sent", m.took)
	})
}

// TestWhatAFloodLostIsFoundWhenItIsQuiet has one of two notes get lost on the way.
func TestWhatAFloodLostIsFoundWhenItIsQuiet(t *testing.T) {
	inWorld(t, func(w *world) {
		x, y := w.node(Config{}, newMemory()), w.node(Config{}, newMemory())
		w.connect(x.host, y.host)
		time.Sleep(65 * time.Second) // after a comparison, and 55 s before the next
		both := notes(t, 60, hour, "flooded")
		for i, e := range both {
			if i%10 == 0 {
				time.Sleep(time.Second)
			}
			for n, m := range w.mems {
				if n == 0 || i != 40 {
					if _, err := m.Accept(w.ctx, e.AppendEnvelope(nil)); err != nil {
						t.Fatal(err)
					}
					w.nodes[n].Flooded(e)
				}
			}
		}
		time.Sleep(quietAfter + 2*time.Second)
		w.same()
	})
}
