package e2e

import (
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestTorCarries has its scenarios share one Tor network, for it takes ten seconds to come up.
func TestTorCarries(t *testing.T) {
	t.Parallel()
	n := startTorNet(t)
	user := n.client(t)
	t.Run("the invited to an onion service, which comes back with its Tor", func(t *testing.T) {
		t.Parallel()
		inviteToAnOnionService(t, n, user)
	})
	t.Run("mode tor to a plain address", func(t *testing.T) {
		t.Parallel()
		plainThroughTor(t, user)
	})
}

// inviteToAnOnionService gives the bridge a Tor of its own, so that the end of it is not that of the user's.
func inviteToAnOnionService(t *testing.T, n *torNet, user *torNode) {
	theirs := n.client(t)
	bridge := startNode(t, "relay", "--bridge", "--verbose", "--listen", "/ip4/127.0.0.1/tcp/0/tor", "--tor-control", theirs.control)
	d := startNode(t, "daemon", "--verbose", "--mode", "tor", "--tor", user.socks)
	d.run("join", bridge.invite().Link)
	awaitTor(t, "link through the onion service", func() bool { return d.links() > 0 })
	if p := d.status().PeerList[0]; p.Carrier != "tor" || p.Address != "" {
		t.Errorf("connected by %q to %q, want tor and no address", p.Carrier, p.Address)
	}
	d.run("post", "from behind Tor")
	await(t, "the note at the bridge", func() bool { return strings.Contains(bridge.run("feed", "--all"), "from behind Tor") })

	theirs.kill()
	d.awaitPeers(0)
	theirs.start()
	theirs.awaitReady()
	awaitTor(t, "link after Tor came back", func() bool { return d.links() > 0 })
	d.run("post", "still behind Tor")
	await(t, "the second note at the bridge", func() bool { return strings.Contains(bridge.run("feed", "--all"), "still behind Tor") })
	bridge.stop()
	d.stop()
	if got := strings.Count(bridge.stderr.String(), "the onion service is gone; it is asked for again"); got != 1 {
		t.Errorf("the bridge said %d times that its onion service is gone:\n%s", got, bridge.stderr)
	}
	for name, log := range map[string]string{"bridge": bridge.stderr.String(), "daemon": d.stderr.String()} {
		for _, secret := range []string{"onion3", ".onion", "tcp/", "/token/", "127.0.0.1:"} {
			if strings.Contains(log, secret) {
				t.Errorf("the log of the %s has %q:\n%s", name, secret, log)
			}
		}
	}
}

func plainThroughTor(t *testing.T, user *torNode) {
	relay := startNode(t, "relay", "--listen", "/ip4/127.0.0.1/tcp/0")
	d := startNode(t, "daemon", "--mode", "tor", "--tor", user.socks, "--peer", relay.addr)
	awaitTor(t, "link through Tor", func() bool { return d.links() > 0 })
	port := strings.Split(relay.addr, "/")[4]
	streams, err := user.ask("GETINFO stream-status")
	if err != nil || !strings.Contains(streams, " 127.0.0.1:"+port) {
		t.Errorf("Tor has no stream to the relay: %q, %v", streams, err)
	}
}

// TestModeTorWithoutTorReachesNobody names a peer at an address where the test itself would hear of an attempt.
func TestModeTorWithoutTorReachesNobody(t *testing.T) {
	t.Parallel()
	relay := startNode(t, "relay", "--listen", "/ip4/127.0.0.1/tcp/0")
	trap, came := countComers(t)
	socks, asked := countComers(t)
	_, id, _ := strings.Cut(relay.addr, "/p2p/")
	d := startNode(t, "daemon", "--mode", "tor", "--tor", socks, "--peer", "/ip4/127.0.0.1/tcp/"+portOf(trap)+"/p2p/"+id, "--peer", relay.addr)
	await(t, "third question to what should be Tor", func() bool { return asked.Load() >= 3 })
	if n := d.status().Peers; n != 0 || came.Load() != 0 {
		t.Errorf("without Tor there are %d peers, and %d direct connections", n, came.Load())
	}
	if n := relay.status().Peers; n != 0 {
		t.Errorf("without Tor %d reached a relay", n)
	}
}

// countComers listens, counts who connects, and hangs up on each.
func countComers(t *testing.T) (address string, count *atomic.Int32) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	count = &atomic.Int32{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			count.Add(1)
			conn.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String(), count
}

// awaitTor polls until ok, for as long as Tor may take.
func awaitTor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	took, ready := within(t, torPatience, ok)
	if !ready {
		t.Fatalf("no %s within %v", what, took)
	}
	t.Logf("%s: %v", what, took.Round(100*time.Millisecond))
}
