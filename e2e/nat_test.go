//go:build linux

package e2e

import (
	"strings"
	"testing"
	"time"

	"openline/e2e/lab"
)

// TestTwoWhomNobodyReachesMeet has two daemons behind firewalls that let in only answers, as a carrier's NAT does: a relay
// of ours passes on between them, without limits, until a hole in the firewalls does.
func TestTwoWhomNobodyReachesMeet(t *testing.T) {
	t.Parallel()
	n := lab.Start(t, lab.World{
		Links: []lab.Link{{Name: "home", Latency: 5 * time.Millisecond, Firewalled: true}, {Name: "other home", Latency: 5 * time.Millisecond, Firewalled: true},
			{Name: "world", Latency: 10 * time.Millisecond}},
		// Nobody is asked whether addresses of private networks are reached; none of these leaves the lab.
		Hosts: []lab.Host{{Name: "a", Link: "home", Addr: "81.1.0.1"}, {Name: "b", Link: "other home", Addr: "82.1.0.1"},
			{Name: "relay", Link: "world", Addr: "8.1.0.1"}, {Name: "second relay", Link: "world", Addr: "8.2.0.1"}},
	})
	relay := settle(t, n, "relay", "relay", "--nat")
	second := settle(t, n, "second relay", "relay", "--nat", "--peer", relay.addr)
	a := settle(t, n, "a", "daemon", "--lan=false", "--nat", "--peer", relay.addr, "--peer", second.addr)
	through := ""
	took, ok := within(t, 2*time.Minute, func() bool {
		for _, at := range a.status().Addresses {
			if strings.Contains(at, "/p2p-circuit") && strings.Contains(at, "/ip4/8.") {
				through = at
			}
		}
		return through != ""
	})
	if !ok {
		t.Fatalf("nobody passes on to a after %v: %q", took, a.status().Addresses)
	}
	t.Logf("a relay passed on after %.1f s", took.Seconds())
	b := settle(t, n, "b", "daemon", "--lan=false", "--nat", "--dht=false", "--peer", through)
	carriers := func() (names []string) {
		for _, p := range b.status().PeerList {
			if p.ID == a.status().PeerID {
				names = append(names, p.Carrier)
			}
		}
		return names
	}
	if took, ok = within(t, time.Minute, func() bool { return len(carriers()) > 0 }); !ok {
		t.Fatalf("b has not reached a after %v", took)
	}
	t.Logf("b reached a by %s after %.1f s", carriers(), took.Seconds())
	b.awaitLinks(1)
	a.follows(t, "hole", b, 20*time.Second)
	if took, ok = within(t, time.Minute, func() bool {
		names := carriers()
		return len(names) == 1 && names[0] == "quic"
	}); !ok {
		t.Errorf("no hole was made: b has a by %s", carriers())
	}
	t.Logf("by %s after %.1f s more", carriers(), took.Seconds())
}
