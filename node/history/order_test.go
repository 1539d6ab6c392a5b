package history

import (
	"slices"
	"testing"
	"time"

	mocknet "github.com/libp2p/go-libp2p/p2p/net/mock"

	"openline/protocol"
)

func TestOrderOnAThinLine(t *testing.T) {
	at := func(id byte, created int64, author byte, topics ...byte) described {
		d := described{protocol.ID{id}, description{created: created, author: [4]byte{author}}}
		for _, x := range topics {
			d.topics = append(d.topics, [2]byte{x})
		}
		return d
	}
	follows := &Follows{}
	follows.Authors[7], follows.Topics[9] = true, true
	got := order([]described{
		at(1, 100, 1), at(2, 90, 1), at(3, 80, 1), // one who writes much
		at(4, 50, 2), at(5, 60, 3, 9), at(6, 10, 7), at(7, -1, 7), at(8, 20, 2),
	}, follows)
	want := []protocol.ID{{5}, {6}, {1}, {4}, {2}, {8}, {3}}
	if !slices.Equal(got, want) {
		t.Errorf("order() = %v, want %v", got, want)
	}
}

// TestFollowedComesFirstWithinABudget: 2 kB a second, and 2,000 events to fetch.
func TestFollowedComesFirstWithinABudget(t *testing.T) {
	inWorld(t, func(w *world) {
		events := notes(t, 2000, hour, "") // one window; the next ones come after it
		wanted := map[protocol.ID]bool{}
		follows := &Follows{}
		group := TopicGroup("topic3")[0]
		follows.Topics[group] = true
		for _, e := range events {
			if TopicGroup(e.Topics()[0])[0] == group {
				wanted[e.ID()] = true
			}
		}
		m := newMemory()
		y := w.node(Config{Budget: 2048, Follows: func() *Follows { return follows }}, m)
		w.connect(y.host, w.node(Config{}, newMemory(events...)).host)
		begun := time.Now()
		for len(m.ids()) < 2*len(wanted) {
			time.Sleep(time.Second)
			if time.Since(begun) > 15*time.Minute {
				t.Fatalf("%d events in %v", len(m.ids()), time.Since(begun))
			}
		}
		came := 0
		for _, id := range m.order[:len(wanted)] {
			if wanted[id] {
				came++
			}
		}
		if came < len(wanted)*9/10 {
			t.Errorf("of the first %d events %d are followed", len(wanted), came)
		}
		n, took := y.Count.Sent.Load()+y.Count.Received.Load(), time.Since(begun).Seconds()
		if float64(n) > 2048*took+2*maxFrame {
			t.Errorf("%d bytes in %.0f s, want 2,048 a second", n, took)
		}
		t.Logf("%d of %d followed events among the first, after %.0f s", came, len(wanted), took)
	})
}

// TestThinLineIsNoStall: 600 bytes a second, as through a hole in a border. An answer takes long and is no lie, the node
// finds out that the line is thin, and what it fetches next comes in small pieces.
func TestThinLineIsNoStall(t *testing.T) {
	inWorld(t, func(w *world) {
		w.net.SetLinkDefaults(mocknet.LinkOptions{Latency: 300 * time.Millisecond, Bandwidth: 600})
		events, m := notes(t, 400, 24*hour, ""), newMemory()
		y := w.node(Config{}, m)
		x := w.node(Config{}, newMemory(events...))
		w.connect(y.host, x.host)
		time.Sleep(15 * time.Minute)
		w.same()
		if n := x.Count.Dropped.Load() + y.Count.Dropped.Load(); n > 0 {
			t.Errorf("%d peers were dropped for a thin line", n)
		}
		if l := y.links[x.host.ID()]; l == nil || !l.thin || l.chunk > 8<<10 {
			t.Errorf("the line is not found to be thin: %+v", l)
		}
	})
}
