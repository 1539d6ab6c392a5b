package mesh

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/x/simlibp2p"
	"github.com/marcopolo/simnet"
	"google.golang.org/protobuf/encoding/protowire"

	"openline/protocol"
)

// world is a simulated network of mesh nodes in virtual time. Every link has 20 Mbit/s and 50 ms of latency.
type world struct {
	t     *testing.T
	hosts []host.Host
	nodes []*node
	ctx   context.Context
}

// node is a mesh with the smallest honest door: it keeps what the protocol accepts.
type node struct {
	*Mesh
	mu  sync.Mutex
	got map[protocol.ID]bool
}

// accept is the door of a node without a store.
func (n *node) accept(_ context.Context, envelope []byte, shard int) error {
	known := func(c protocol.Claim) error {
		if n.has(c.ID) {
			return protocol.Reject(protocol.Duplicate, "known")
		}
		return nil
	}
	e, err := protocol.ParseEnvelope(envelope, protocol.Check{Scope: protocol.Live, Now: time.Now(), Shard: shard, Before: known})
	if err != nil {
		return err
	}
	n.keep(e)
	return nil
}

func (n *node) keep(e protocol.Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.got[e.ID()] = true
}

func (n *node) has(id protocol.ID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.got[id]
}

// inWorld runs f in virtual time with the given number of hosts, the first `nodes` of which run a mesh.
func inWorld(t *testing.T, hosts, nodes int, f func(w *world)) {
	t.Helper()
	prev := runtime.GOMAXPROCS(1) // the race detector and bubbles: golang/go#78156
	defer runtime.GOMAXPROCS(prev)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		link := simnet.LinkSettings{BitsPerSecond: 20 * simlibp2p.OneMbps}
		sim, meta, err := simlibp2p.SimpleLibp2pNetwork([]simlibp2p.NodeLinkSettingsAndCount{{
			LinkSettings: simnet.NodeBiDiLinkSettings{Downlink: link, Uplink: link}, Count: hosts}},
			simnet.StaticLatency(50*time.Millisecond), simlibp2p.NetworkSettings{})
		if err != nil {
			t.Fatal(err)
		}
		sim.Start()
		defer sim.Close()
		w := &world{t: t, hosts: meta.Nodes, ctx: ctx}
		for _, h := range meta.Nodes {
			defer h.Close()
		}
		for _, h := range meta.Nodes[:nodes] {
			n := &node{got: map[protocol.ID]bool{}}
			n.Mesh, err = New(h, DefaultConfig(), n.accept)
			if err != nil {
				t.Fatal(err)
			}
			defer n.Close()
			w.nodes = append(w.nodes, n)
		}
		f(w)
	})
}

func (w *world) connect(a, b int) {
	w.t.Helper()
	h := w.hosts[b]
	if err := w.hosts[a].Connect(w.ctx, peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()}); err != nil {
		w.t.Fatal(err)
	}
}

// attack writes RPCs with one message each to the victim, as a peer does that runs no gossipsub of ours.
func (w *world) attack(from, victim int, topic string, junk []byte, datas ...[]byte) {
	w.t.Helper()
	s, err := w.hosts[from].NewStream(w.ctx, w.hosts[victim].ID(), "/meshsub/1.1.0")
	if err != nil {
		w.t.Fatal(err)
	}
	for _, data := range datas {
		msg := protowire.AppendTag(nil, 2, protowire.BytesType)
		msg = protowire.AppendBytes(msg, data)
		msg = protowire.AppendTag(msg, 4, protowire.BytesType)
		msg = protowire.AppendString(msg, topic)
		msg = append(msg, junk...)
		rpc := protowire.AppendTag(nil, 2, protowire.BytesType)
		rpc = protowire.AppendBytes(rpc, msg)
		if _, err := s.Write(append(binary.AppendUvarint(nil, uint64(len(rpc))), rpc...)); err != nil {
			w.t.Fatal(err)
		}
	}
}

// note signs a note of now.
func (w *world) note(text string) protocol.Event {
	w.t.Helper()
	key, err := protocol.NewSecretKey(rand.New(rand.NewSource(int64(len(text)) + 1)))
	if err != nil {
		w.t.Fatal(err)
	}
	e, err := key.Sign(protocol.Draft{CreatedAt: time.Now().Unix(), Kind: protocol.KindNote, Content: text})
	if err != nil {
		w.t.Fatal(err)
	}
	return e
}

// publish publishes at node i and fails when it has no link to send over.
func (w *world) publish(i int, e protocol.Event) {
	w.t.Helper()
	w.nodes[i].keep(e)
	if err := w.nodes[i].Publish(w.ctx, e); err != nil || w.nodes[i].Links(e.Shard()) == 0 {
		w.t.Fatalf("Publish() = %v over %d links", err, w.nodes[i].Links(e.Shard()))
	}
}

func TestEveryNodeGetsEveryMessage(t *testing.T) {
	const nodes, messages = 50, 100
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	inWorld(t, nodes, nodes, func(w *world) {
		rng := rand.New(rand.NewSource(seed))
		for i := range nodes {
			for range 5 {
				if j := rng.Intn(nodes); j != i {
					w.connect(i, j)
				}
			}
		}
		time.Sleep(5 * time.Second)
		var sent []protocol.Event
		for i := range messages {
			e := w.note(fmt.Sprintf("message %d", i))
			w.publish(rng.Intn(nodes), e)
			sent = append(sent, e)
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(5 * time.Second)
		w.report(sent)
	})
}

// TestOneNodeServesAllWhoKnowNobodyElse: a star has no other way from leaf to leaf than its middle.
func TestOneNodeServesAllWhoKnowNobodyElse(t *testing.T) {
	const leaves = 15
	inWorld(t, leaves+1, leaves+1, func(w *world) {
		for i := range leaves {
			w.connect(i+1, 0)
		}
		time.Sleep(5 * time.Second)
		var sent []protocol.Event
		for i := range leaves {
			e := w.note(fmt.Sprintf("message %d", i))
			w.publish(i+1, e)
			sent = append(sent, e)
		}
		time.Sleep(3 * time.Second)
		w.report(sent)
	})
}

// TestPublicationOfOneTurnedAwayIsFetched: a peer without a link tells others what it published.
func TestPublicationOfOneTurnedAwayIsFetched(t *testing.T) {
	dhi := params(false).Dhi
	inWorld(t, dhi+2, dhi+2, func(w *world) {
		for i := range dhi + 1 {
			w.connect(i+1, 0)
		}
		time.Sleep(5 * time.Second)
		var sent []protocol.Event
		for i, n := range w.nodes[1:] {
			for shard := range protocol.Shards {
				if n.Links(shard) > 0 {
					continue
				}
				e := w.noteIn(shard, fmt.Sprintf("node %d, shard %d", i, shard))
				n.keep(e)
				if err := n.Publish(w.ctx, e); err != nil {
					t.Fatal(err)
				}
				sent = append(sent, e)
			}
		}
		if len(sent) == 0 {
			t.Fatal("nobody was turned away")
		}
		time.Sleep(4 * time.Second)
		for _, e := range sent {
			if !w.nodes[0].has(e.ID()) {
				t.Errorf("the middle lacks %q", e.Content())
			}
		}
	})
}

// noteIn signs a note of now with a topic of that shard.
func (w *world) noteIn(shard int, text string) protocol.Event {
	w.t.Helper()
	key, err := protocol.NewSecretKey(rand.New(rand.NewSource(1)))
	if err != nil {
		w.t.Fatal(err)
	}
	topic := 0
	for protocol.TopicShard(fmt.Sprint(topic)) != shard {
		topic++
	}
	e, err := key.Sign(protocol.Draft{CreatedAt: time.Now().Unix(), Kind: protocol.KindNote, Content: text, Tags: []protocol.Tag{{"t", fmt.Sprint(topic)}}})
	if err != nil {
		w.t.Fatal(err)
	}
	return e
}

// report fails for every missing message and logs what the flood cost.
func (w *world) report(sent []protocol.Event) {
	w.t.Helper()
	var bytes, payload, dropped uint64
	for _, e := range sent {
		payload += uint64(len(e.AppendEnvelope(nil)))
	}
	for i, n := range w.nodes {
		for _, e := range sent {
			if !n.has(e.ID()) {
				w.t.Errorf("node %d lacks %q", i, e.Content())
			}
		}
		bytes += n.Count().SentBytes.Load()
		dropped += n.Count().Dropped.Load()
		if r := n.Count().Rejected.Load(); r > 0 {
			w.t.Errorf("node %d rejected %d messages of honest peers", i, r)
		}
	}
	w.t.Logf("%.2f bytes on the wire per node and unique payload byte; %d RPCs dropped",
		float64(bytes)/float64(len(w.nodes))/float64(payload), dropped)
}
