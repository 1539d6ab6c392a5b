package history

import (
	"context"
	"fmt"
	"math/rand"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	mocknet "github.com/libp2p/go-libp2p/p2p/net/mock"

	"openline/protocol"
	"openline/protocol/reconcile"
)

// memory is the simplest honest Source: a map. Its door verifies nothing, which the tests of the node do.
type memory struct {
	mu      sync.Mutex
	events  map[protocol.ID]protocol.Event
	horizon int64
	refuse  func(protocol.Event) error
	took    int // calls of Accept
	order   []protocol.ID
}

func newMemory(events ...protocol.Event) *memory {
	m := &memory{events: map[protocol.ID]protocol.Event{}}
	for _, e := range events {
		m.events[e.ID()] = e
	}
	return m
}

func (m *memory) View(shard int, from, to int64, view func(reconcile.Set) error) error {
	m.mu.Lock()
	var items []reconcile.Item
	for id, e := range m.events {
		at := e.CreatedAt() / hour * hour
		if e.Shard() == shard && e.CreatedAt() >= m.horizon && at >= from && at < to {
			items = append(items, reconcile.Item{Time: e.CreatedAt(), ID: reconcile.ID(id)})
		}
	}
	m.mu.Unlock()
	slices.SortFunc(items, reconcile.Item.Compare)
	v, err := reconcile.NewVector(items)
	if err != nil {
		return err
	}
	return view(v)
}

func (m *memory) Has(id protocol.ID) (bool, error) {
	_, ok, _ := m.Get(id)
	return ok, nil
}

func (m *memory) Get(id protocol.ID) (protocol.Event, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.events[id]
	return e, ok, nil
}

func (m *memory) Horizon() int64 { return m.horizon }

func (m *memory) Accept(_ context.Context, envelope []byte) (protocol.Event, error) {
	e, err := protocol.Load(envelope)
	if err != nil {
		return protocol.Event{}, protocol.Reject(protocol.Malformed, "no event")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.took++
	if _, ok := m.events[e.ID()]; ok {
		return protocol.Event{}, protocol.Reject(protocol.Duplicate, "known")
	}
	if m.refuse != nil {
		if err := m.refuse(e); err != nil {
			return protocol.Event{}, err
		}
	}
	m.events[e.ID()] = e
	m.order = append(m.order, e.ID())
	return e, nil
}

func (m *memory) ids() []protocol.ID {
	m.mu.Lock()
	defer m.mu.Unlock()
	ids := make([]protocol.ID, 0, len(m.events))
	for id := range m.events {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b protocol.ID) int { return slices.Compare(a[:], b[:]) })
	return ids
}

// world is a simulated network in virtual time whose links take 50 ms.
type world struct {
	*testing.T
	net   mocknet.Mocknet
	ctx   context.Context
	wg    sync.WaitGroup
	nodes []*History
	mems  []*memory
}

// inWorld runs f in virtual time.
func inWorld(t *testing.T, f func(w *world)) {
	t.Helper()
	prev := runtime.GOMAXPROCS(1) // the race detector and bubbles: golang/go#78156
	defer runtime.GOMAXPROCS(prev)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		w := &world{T: t, net: mocknet.New(), ctx: ctx}
		w.net.SetLinkDefaults(mocknet.LinkOptions{Latency: 50 * time.Millisecond})
		defer func() { // also after Fatal, or the bubble would show all its goroutines
			cancel()
			w.wg.Wait()
			if err := w.net.Close(); err != nil {
				t.Error(err)
			}
			time.Sleep(2 * time.Minute) // for what the library closes later
		}()
		f(w)
	})
}

// host adds a host without history.
func (w *world) host() host.Host {
	w.Helper()
	h, err := w.net.GenPeer()
	if err != nil {
		w.Fatal(err)
	}
	return h
}

// node adds a node with these events.
func (w *world) node(cfg Config, m *memory) *History {
	w.Helper()
	cfg.Network = "test"
	y := New(w.host(), m, cfg)
	w.nodes, w.mems = append(w.nodes, y), append(w.mems, m)
	w.wg.Go(func() { _ = y.Run(w.ctx) })
	synctest.Wait()
	return y
}

func (w *world) connect(a, b host.Host) {
	w.Helper()
	if _, err := w.net.LinkPeers(a.ID(), b.ID()); err != nil {
		w.Fatal(err)
	}
	if _, err := w.net.ConnectPeers(a.ID(), b.ID()); err != nil {
		w.Fatal(err)
	}
}

func (w *world) disconnect(a, b peer.ID) {
	w.Helper()
	if err := w.net.DisconnectPeers(a, b); err != nil {
		w.Fatal(err)
	}
}

// same fails unless all nodes hold the same.
func (w *world) same() {
	w.Helper()
	want := w.mems[0].ids()
	for i, m := range w.mems {
		if got := m.ids(); !slices.Equal(got, want) {
			w.Errorf("node %d holds %d events, node 0 holds %d", i, len(got), len(want))
		}
	}
}

// notes signs n notes of several authors and topics over span seconds before now.
func notes(t testing.TB, n int, span int64, label string) []protocol.Event {
	t.Helper()
	rng := rand.New(rand.NewSource(int64(n) + span))
	var keys []protocol.SecretKey
	for range 4 {
		k, err := protocol.NewSecretKey(rng)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	events := make([]protocol.Event, n)
	for i := range events {
		e, err := keys[i%len(keys)].Sign(protocol.Draft{CreatedAt: time.Now().Unix() - rng.Int63n(span), Kind: protocol.KindNote,
			Tags: []protocol.Tag{{"t", fmt.Sprint("topic", rng.Intn(30))}}, Content: fmt.Sprint(label, " ", i)})
		if err != nil {
			t.Fatal(err)
		}
		events[i] = e
	}
	return events
}
