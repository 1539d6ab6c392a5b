//go:build linux

package e2e

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"openline/e2e/lab"
)

// TestCarefulShowsNothing gives a daemon in mode careful everything that it must not use, and looks at all that leaves it,
// to all of its link too, while it joins, posts and has the doctor look.
func TestCarefulShowsNothing(t *testing.T) {
	t.Parallel()
	n := lab.Start(t, nation())
	serveCover(t, n)
	relay := settleRelay(t, n, "relay 1")
	names, resolvers := worldNames(t, n, "_dnsaddr.relays.example. 60 IN TXT \"dnsaddr="+relay.addr+"\"")
	bridge := settle(t, n, "bridge", append(bridgeArgs(n), "--peer", relay.addr)...)
	bridge.awaitPeers(1)
	told := append([]string{"daemon", "--nat", "--lan", "--dht", "--peer", relay.addr, "--dnsaddr", "relays.example"}, resolvers...)
	careful := settleTrusting(t, n, "user", names, append(told, "--mode", "careful")...)
	open := settleTrusting(t, n, "compatriot", names, told...)
	careful.run("join", bridge.invite().Link)
	careful.awaitLinks(1)
	open.awaitLinks(1)
	open.follows(t, "seen", careful, patience)
	careful.mustFind()
	if said := shown(t, n, "user"); len(said) > 0 {
		t.Errorf("mode careful showed %q", said)
	}
	var got []string
	within(t, 10*time.Second, func() bool { got = shown(t, n, "compatriot"); return len(got) >= 3 })
	if len(got) < 3 {
		t.Errorf("mode open showed no more than %q: this test sees nothing", got)
	}
}

// shown is what a host has sent that tells a watcher something.
func shown(t *testing.T, n *lab.Net, host string) (said []string) {
	t.Helper()
	addr := n.Host(host).Addr()
	for _, f := range n.Flows() {
		client, err1 := netip.ParseAddrPort(f.Client)
		server, err2 := netip.ParseAddrPort(f.Server)
		if err1 != nil || err2 != nil || client.Addr() != addr {
			continue
		}
		switch {
		case f.Proto == "udp" && server.Addr().IsMulticast():
			said = append(said, "multicast to "+f.Server)
		case f.Proto == "udp":
			said = append(said, "UDP to "+f.Server)
		case f.Proto == "tcp" && server.Addr() == n.Host("relay 1").Addr():
			said = append(said, "TCP to the relay")
		}
	}
	for _, strings := range []string{"/multistream/1.0.0", "/noise", "libp2p", "openline"} {
		if bytes.Contains(packetsOf(t, n, host), []byte(strings)) {
			said = append(said, "the string "+strings)
		}
	}
	return said
}
