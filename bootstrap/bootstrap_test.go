package bootstrap

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/x/simlibp2p"
	"github.com/marcopolo/simnet"
)

func TestParsePeerSaysWhatIsMissing(t *testing.T) {
	const id = "12D3KooWLbUqQnBR2DiFMd1kWFkTsJSrbbJyBhPZzHSWSFgBkJ6y"
	for _, c := range []struct{ in, want string }{
		{"/ip4/10.0.0.1/tcp/4870/p2p/" + id, ""},
		{"/ip4/10.0.0.1/udp/4870/quic-v1/p2p/" + id, ""},
		{"/ip4/10.0.0.1/tcp/4870", "does not end in /p2p/"},
		{"/p2p/" + id, "not where"},
		{"10.0.0.1:4870", "peer address"},
		{"", "peer address"},
	} {
		_, err := ParsePeer(c.in)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("ParsePeer(%q) = %v, want an error with %q", c.in, err, c.want)
		}
	}
}

// inNetwork runs f in virtual time with three connected hosts of a simulated network.
func inNetwork(t *testing.T, f func(ctx context.Context, hosts []host.Host)) {
	t.Helper()
	prev := runtime.GOMAXPROCS(1) // the race detector and bubbles: golang/go#78156
	defer runtime.GOMAXPROCS(prev)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		link := simnet.LinkSettings{BitsPerSecond: 20 * simlibp2p.OneMbps}
		sim, meta, err := simlibp2p.SimpleLibp2pNetwork([]simlibp2p.NodeLinkSettingsAndCount{{
			LinkSettings: simnet.NodeBiDiLinkSettings{Downlink: link, Uplink: link}, Count: 3}},
			simnet.StaticLatency(20*time.Millisecond), simlibp2p.NetworkSettings{})
		if err != nil {
			t.Fatal(err)
		}
		sim.Start()
		defer sim.Close()
		for _, h := range meta.Nodes {
			defer h.Close()
		}
		defer synctest.Wait()
		defer cancel()
		f(ctx, meta.Nodes)
	})
}

func connected(a, b host.Host) bool { return a.Network().Connectedness(b.ID()) == network.Connected }

func info(h host.Host) peer.AddrInfo { return peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()} }

func TestFinderConnectsAgainAfterALoss(t *testing.T) {
	inNetwork(t, func(ctx context.Context, hosts []host.Host) {
		a, b := hosts[0], hosts[1]
		f := NewFinder(FinderConfig{Host: a, Log: slog.New(slog.DiscardHandler)}, Configured{info(b), info(a)})
		go f.Run(ctx)
		time.Sleep(3 * time.Second)
		if !connected(a, b) {
			t.Fatal("not connected to the configured peer")
		}
		if got := f.Source(b.ID()); got != "configured" {
			t.Errorf("Source() = %q, want configured", got)
		}
		a.Network().ClosePeer(b.ID())
		time.Sleep(5 * time.Second)
		if !connected(a, b) {
			t.Error("not connected again 5 s after the loss")
		}
	})
}

// flaky fails once, then finds a peer.
type flaky struct {
	calls atomic.Int32
	peer  peer.AddrInfo
}

func (f *flaky) Name() string { return "flaky" }

func (f *flaky) Find(_ context.Context, found func(peer.AddrInfo)) error {
	if f.calls.Add(1) == 1 {
		return errors.New("not yet")
	}
	found(f.peer)
	return nil
}

func TestFinderTriesAFailedSourceAgainAndGivesUpOnTheUnreachable(t *testing.T) {
	inNetwork(t, func(ctx context.Context, hosts []host.Host) {
		gone := info(hosts[2])
		hosts[2].Close()
		s := &flaky{peer: gone}
		f := NewFinder(FinderConfig{Host: hosts[0], Log: slog.New(slog.DiscardHandler)}, s, Configured{info(hosts[1])})
		go f.Run(ctx)
		time.Sleep(65 * time.Second)
		if n := s.calls.Load(); n != 2 {
			t.Errorf("the source was asked %d times in 65 s, want 2", n)
		}
		if f.Source(gone.ID) != "flaky" {
			t.Error("the found peer was not taken up")
		}
		time.Sleep(30 * time.Minute)
		if f.Source(gone.ID) != "" {
			t.Error("an unreachable peer is kept for ever")
		}
		if !connected(hosts[0], hosts[1]) {
			t.Error("the reachable one was lost meanwhile")
		}
	})
}
