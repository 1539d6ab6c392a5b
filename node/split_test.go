package node

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	mocknet "github.com/libp2p/go-libp2p/p2p/net/mock"
	"golang.org/x/sync/errgroup"

	"openline/protocol"
	"openline/protocol/reconcile"
)

// world is a simulated network of whole nodes, but for their local doors: store, mesh, history, in virtual time.
type world struct {
	*testing.T
	rng   *rand.Rand
	net   mocknet.Mocknet
	ctx   context.Context
	hosts []host.Host
	nodes []*Node
	wg    sync.WaitGroup
	links [][2]int
	keys  []protocol.SecretKey
	sent  []protocol.ID
}

// inWorld runs f with so many nodes that are not connected yet.
func inWorld(t *testing.T, nodes int, f func(w *world)) {
	t.Helper()
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	prev := runtime.GOMAXPROCS(0)
	if raceDetector {
		runtime.GOMAXPROCS(1) // the race detector and bubbles: golang/go#78156
	}
	defer runtime.GOMAXPROCS(prev)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		w := &world{T: t, rng: rand.New(rand.NewSource(seed)), net: mocknet.New(), ctx: ctx}
		w.net.SetLinkDefaults(mocknet.LinkOptions{Latency: 50 * time.Millisecond})
		for range 400 { // so many that nobody comes to the quota
			k, err := protocol.NewSecretKey(w.rng)
			if err != nil {
				t.Fatal(err)
			}
			w.keys = append(w.keys, k)
		}
		for range nodes {
			w.add()
		}
		defer func() { // also after Fatal, or the bubble would show all its goroutines
			cancel()
			w.wg.Wait()
			for _, n := range w.nodes {
				if err := n.Close(); err != nil {
					t.Error(err)
				}
			}
			if err := w.net.Close(); err != nil {
				t.Error(err)
			}
			time.Sleep(2 * time.Minute) // for what the library closes later
		}()
		f(w)
	})
}

// add opens a node; it runs only after run.
func (w *world) add() *Node {
	w.Helper()
	h, err := w.net.GenPeer()
	if err != nil {
		w.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.Dir, cfg.Network, cfg.LAN, cfg.API, cfg.Relay = w.TempDir(), "test", false, "", true
	cfg.host, cfg.inMemory, cfg.unstamped = h, true, true
	n, err := Open(cfg)
	if err != nil {
		w.Fatal(err)
	}
	w.hosts, w.nodes = append(w.hosts, h), append(w.nodes, n)
	return n
}

func (w *world) run() {
	for _, n := range w.nodes {
		w.wg.Go(func() {
			if err := n.Run(w.ctx); err != nil && !errors.Is(err, context.Canceled) {
				w.Errorf("a node ended with %v", err)
			}
		})
	}
	synctest.Wait()
}

// link makes a random network in which each node knows about so many others.
func (w *world) link(each int) {
	w.Helper()
	known := map[[2]int]bool{}
	for i := range w.hosts {
		for range each / 2 {
			j := w.rng.Intn(len(w.hosts))
			pair := [2]int{min(i, j), max(i, j)}
			if i != j && !known[pair] {
				known[pair] = true
				w.links = append(w.links, pair)
			}
		}
	}
}

func (w *world) left(i int) bool { return i < len(w.hosts)/2 }

// connect makes the connections that pick chooses.
func (w *world) connect(pick func(a, b int) bool) {
	w.Helper()
	var g errgroup.Group
	g.SetLimit(64)
	for _, l := range w.links {
		if pick(l[0], l[1]) {
			a, b := w.hosts[l[0]].ID(), w.hosts[l[1]].ID()
			if len(w.net.LinksBetweenPeers(a, b)) == 0 {
				if _, err := w.net.LinkPeers(a, b); err != nil {
					w.Fatal(err)
				}
			}
			g.Go(func() error {
				_, err := w.net.ConnectPeers(a, b)
				return err
			})
		}
	}
	if err := g.Wait(); err != nil {
		w.Fatal(err)
	}
}

// split cuts all connections between the halves.
func (w *world) split() {
	w.Helper()
	for _, l := range w.links {
		if w.left(l[0]) != w.left(l[1]) {
			a, b := w.hosts[l[0]].ID(), w.hosts[l[1]].ID()
			// Without a link too: the simulated network dials when somebody wants a stream.
			if err := errors.Join(w.net.UnlinkPeers(a, b), w.net.DisconnectPeers(a, b)); err != nil {
				w.Fatal(err)
			}
		}
	}
}

// apart fails unless no node is connected with one of the other half.
func (w *world) apart() {
	w.Helper()
	for _, l := range w.links {
		if w.across(l[0], l[1]) && w.hosts[l[0]].Network().Connectedness(w.hosts[l[1]].ID()) == network.Connected {
			w.Fatalf("nodes %d and %d are connected: the cut is none", l[0], l[1])
		}
	}
}

func (w *world) across(a, b int) bool { return w.left(a) != w.left(b) }

// note signs a note of now by a random author on a random topic.
func (w *world) note() protocol.Event {
	w.Helper()
	e, err := w.keys[w.rng.Intn(len(w.keys))].Sign(protocol.Draft{CreatedAt: time.Now().Unix(), Kind: protocol.KindNote,
		Tags: []protocol.Tag{{"t", fmt.Sprint("topic", w.rng.Intn(30))}}, Content: fmt.Sprintf("message %d of a cut, with a text of ordinary length", len(w.sent))})
	if err != nil {
		w.Fatal(err)
	}
	w.sent = append(w.sent, e.ID())
	return e
}

// post posts a note at a random node.
func (w *world) post() {
	w.Helper()
	if _, err := w.nodes[w.rng.Intn(len(w.nodes))].Publish(w.ctx, w.note().AppendJSON(nil)); err != nil {
		w.Fatal(err)
	}
}

// talk posts so many notes a second for so long.
func (w *world) talk(rate int, d time.Duration) {
	for range int(d.Seconds()) * rate {
		w.post()
		time.Sleep(time.Second / time.Duration(rate))
	}
}

// missing counts what nodes do not have of all that was sent.
func (w *world) missing() (events, nodes int) {
	for _, n := range w.nodes {
		lacks := 0
		for _, id := range w.sent {
			if has, err := n.store.Has(id); err != nil || !has {
				lacks++
			}
		}
		if lacks > 0 {
			nodes++
		}
		events += lacks
	}
	return events, nodes
}

// everywhere fails unless every node gets everything within that time, and says what it took.
func (w *world) everywhere(within time.Duration) {
	w.Helper()
	before, _ := w.missing()
	begun := time.Now()
	var sent, recovered, dropped, rejected, quota uint64
	for {
		events, nodes := w.missing()
		if events == 0 {
			break
		}
		if time.Since(begun) > within {
			w.Errorf("after %v %d nodes lack %d events together", within, nodes, events)
			break
		}
		time.Sleep(500 * time.Millisecond)
	}
	for _, n := range w.nodes {
		sent += n.history.Count.Sent.Load()
		recovered += n.history.Count.Recovered.Load()
		dropped += n.history.Count.Dropped.Load()
		rejected += n.mesh.Count().Rejected.Load()
		quota += n.history.Count.Refused.Load()
	}
	w.Logf("%d lacking when the border opened; all there after %v; %d came through history, %d bytes of history for each",
		before, time.Since(begun), recovered, sent/max(1, recovered))
	if dropped+rejected+quota > 0 {
		w.Errorf("%d peers were dropped, %d messages rejected, %d events refused; all are honest", dropped, rejected, quota)
	}
	// An envelope has 260 bytes; the rest is comparing, with some twenty neighbours.
	if per := sent / max(1, recovered); per > 3000 {
		w.Errorf("%d bytes of history for each recovered event", per)
	}
	var want []reconcile.Item
	for i, n := range w.nodes {
		got := n.holds(w.T)
		if i > 0 && !slices.Equal(got, want) {
			w.Errorf("node %d holds %d events, the one before it %d", i, len(got), len(want))
		}
		want = got
	}
}

// holds returns all that a node would tell a peer of.
func (n *Node) holds(t *testing.T) (items []reconcile.Item) {
	for shard := range protocol.Shards {
		err := n.store.View(shard, 0, reconcile.Infinity, func(set reconcile.Set) error {
			part, err := set.Items(0, set.Len())
			items = append(items, part...)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return items
}

// TestSplitIsHealed: the network talks, is cut in halves that go on talking, and grows together again.
func TestSplitIsHealed(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("200 nodes take a minute; with the race detector ten")
	}
	for _, cut := range []time.Duration{30 * time.Second, 120 * time.Second} {
		t.Run(cut.String(), func(t *testing.T) { splitAndHeal(t, 200, cut) })
	}
}

// TestSmallSplitIsHealed also looks whether the halves are stitched together. Under the race detector's schedule streams of
// the simulated network outlive their connections: the cut is none.
func TestSmallSplitIsHealed(t *testing.T) {
	if raceDetector {
		t.Skip("the simulated network cannot be cut with the race detector")
	}
	splitAndHeal(t, 20, 30*time.Second)
}

// stitched fails unless nodes have made others direct peers.
func (w *world) stitched() {
	w.Helper()
	bound := 0
	for _, n := range w.nodes {
		bound += n.mesh.Bound()
	}
	if bound < len(w.nodes)/4 {
		w.Errorf("%d direct peers in all %d nodes", bound, len(w.nodes))
	}
	w.Logf("%d direct peers in all", bound)
}

func splitAndHeal(t *testing.T, nodes int, cut time.Duration) {
	inWorld(t, nodes, func(w *world) {
		w.link(19)
		w.run()
		w.connect(func(a, b int) bool { return true })
		time.Sleep(10 * time.Second)
		w.talk(10, 5*time.Second)
		w.split()
		w.apart()
		w.talk(10, cut)
		w.apart()
		w.connect(w.across)
		w.everywhere(10 * time.Second)
		if nodes > 50 {
			return // with many nodes the rest takes minutes
		}
		w.talk(10, 25*time.Second) // meanwhile the halves are stitched together
		w.stitched()
		w.everywhere(2 * time.Minute) // what the flood loses here and there, the next comparison finds
	})
}

// TestLongCutIsHealed: cuts of hours, days and three months. What the halves say meanwhile each of their nodes has stored
// when it starts again at the end of the cut: heartbeats of 90 days would take a day to simulate.
func TestLongCutIsHealed(t *testing.T) {
	nodes, messages := 200, 100
	if testing.Short() || raceDetector {
		nodes, messages = 10, 50
	}
	for _, cut := range []time.Duration{3 * time.Hour, 7 * 24 * time.Hour, 90 * 24 * time.Hour} {
		t.Run(cut.String(), func(t *testing.T) {
			inWorld(t, 0, func(w *world) {
				var said []protocol.Event
				for range messages {
					time.Sleep((cut - time.Hour) / time.Duration(messages)) // the first is within what 90 days keep
					said = append(said, w.note())
				}
				for range nodes {
					w.add()
				}
				for i, e := range said {
					for j, n := range w.nodes {
						if half := i%2 == 0; half == (j < nodes/2) {
							if _, err := (source{n.store, n}).Accept(w.ctx, e.AppendEnvelope(nil)); err != nil {
								t.Fatal(err)
							}
						}
					}
				}
				w.link(19)
				w.run()
				w.connect(func(a, b int) bool { return !w.across(a, b) })
				time.Sleep(5 * time.Second)
				w.connect(w.across)
				w.everywhere(30 * time.Second)
			})
		})
	}
}
