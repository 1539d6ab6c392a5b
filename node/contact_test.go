package node

import (
	"math"
	"path/filepath"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"openline/bootstrap"
	"openline/node/api"
	"openline/node/history"
	"openline/protocol"
)

// comparedAll is a comparison of everything with one peer, window by window, in the order in which answers may come.
func comparedAll(c *contact, from int64, outside time.Time) {
	edge := time.Now().Add(-30 * time.Minute).Unix()
	for shard := range protocol.Shards {
		for _, w := range [][2]int64{{edge, math.MaxInt64}, {from, edge}} {
			c.compare(history.Comparison{Peer: "p", Shard: shard, From: w[0], To: w[1], At: time.Now()}, outside)
		}
	}
}

func TestGapLastsUntilSomebodyWasComparedWith(t *testing.T) {
	path := filepath.Join(t.TempDir(), "contact.json")
	now := time.Now()
	c, err := openContact(path, now)
	if err != nil {
		t.Fatal(err)
	}
	past := now.Add(-3 * time.Hour)
	c.look(past, false, time.Time{})
	c.look(past.Add(2*time.Hour), true, time.Time{})
	if g := c.read().Gaps; len(g) != 1 || g[0].Kind != api.GapAlone || !g[0].From.Equal(past) {
		t.Fatalf("after two hours in which it did not look, gaps = %+v", g)
	}
	if err := c.save(); err != nil {
		t.Fatal(err)
	}
	if c, err = openContact(path, now); err != nil || len(c.read().Gaps) != 1 {
		t.Fatalf("after a restart %d gaps, %v", len(c.read().Gaps), err)
	}
	comparedAll(c, now.Add(-time.Hour).Unix(), time.Time{})
	if len(c.read().Gaps) != 1 {
		t.Error("a comparison of the last hour closes a gap before it")
	}
	comparedAll(c, 0, time.Time{})
	if g := c.read().Gaps; len(g) != 0 {
		t.Errorf("after a comparison of everything gaps = %+v", g)
	}
}

func TestIslandIsAGapOnlyAfterContactToOutside(t *testing.T) {
	now := time.Now()
	c, err := openContact(filepath.Join(t.TempDir(), "contact.json"), now)
	if err != nil {
		t.Fatal(err)
	}
	c.look(now.Add(-5*time.Hour), true, time.Time{})
	c.look(now.Add(-5*time.Hour+30*time.Second), true, time.Time{})
	if len(c.read().Gaps) != 0 {
		t.Fatal("a node that never heard from outside misses it")
	}
	outside := now.Add(-5*time.Hour + time.Minute)
	for at := outside; at.Before(now); at = at.Add(30 * time.Second) {
		c.look(at, true, outside)
	}
	if g := c.read().Gaps; len(g) != 1 || g[0].Kind != api.GapIsland || !g[0].From.Equal(outside) {
		t.Fatalf("gaps = %+v, want one since the last word from outside", g)
	}
	comparedAll(c, 0, outside)
	if len(c.read().Gaps) != 1 {
		t.Error("a peer of the same island closes the gap")
	}
	comparedAll(c, 0, time.Now())
	if len(c.read().Gaps) != 0 {
		t.Error("a peer with contact to outside does not close the gap")
	}
}

func TestDamagedContactFileDoesNotStopANode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "contact.json")
	if err := bootstrap.WriteFile(path, []byte("{")); err != nil {
		t.Fatal(err)
	}
	if c, err := openContact(path, time.Now()); err != nil || len(c.read().Gaps) != 0 {
		t.Errorf("openContact() = %v", err)
	}
}

func TestReceiptsCountDistinctPeers(t *testing.T) {
	r := newReceipts()
	key, err := protocol.NewSecretKey(zeroReader{})
	if err != nil {
		t.Fatal(err)
	}
	e, err := key.Sign(protocol.Draft{CreatedAt: time.Now().Unix(), Kind: protocol.KindNote, Content: "who has it?"})
	if err != nil {
		t.Fatal(err)
	}
	posted := time.Now()
	r.track(e, posted)
	r.flooded(e.ID(), "message")
	r.holds("message", "a")
	r.holds("message", "a")
	r.holds("another message", "b")
	compare := func(p peer.ID, at time.Time, lacks bool) {
		r.compared(history.Comparison{Peer: p, Shard: e.Shard(), From: 0, To: math.MaxInt64, At: at, Lacks: func(protocol.ID, int64) bool { return lacks }})
	}
	compare("a", posted.Add(time.Second), false)
	compare("c", posted.Add(-time.Second), false) // before it was posted
	compare("d", posted.Add(time.Second), true)
	if n, _, ok := r.held(e.ID()); n != 1 || !ok {
		t.Errorf("held by %d, want a alone", n)
	}
	_, changed, _ := r.held(e.ID())
	compare("d", posted.Add(2*time.Second), false)
	select {
	case <-changed:
	default:
		t.Error("whoever waits is not told")
	}
	if n, _, _ := r.held(e.ID()); n != 2 {
		t.Errorf("held by %d, want a and d", n)
	}
	if _, _, ok := r.held(protocol.ID{1}); ok {
		t.Error("an unknown event is tracked")
	}
}

// zeroReader is a source of randomness that is none.
type zeroReader struct{}

func (zeroReader) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 7
	}
	return len(b), nil
}

func TestCarrierNATIsNotLocal(t *testing.T) {
	n := open(t)
	for addr, want := range map[string]bool{
		"/ip4/127.0.0.1/tcp/1": true, "/ip4/192.168.1.5/tcp/1": true, "/ip4/10.1.2.3/udp/1/quic-v1": true, "/ip6/fe80::1/tcp/1": true,
		"/ip4/100.64.3.4/tcp/1": false, "/ip4/8.8.8.8/tcp/1": false, "/ip6/2001:4860::1/tcp/1": false,
	} {
		a, err := ma.NewMultiaddr(addr)
		if err != nil {
			t.Fatal(err)
		}
		if got := n.isLocal(a); got != want {
			t.Errorf("isLocal(%s) = %v, want %v", addr, got, want)
		}
	}
}
