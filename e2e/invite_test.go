package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"openline/node/api"
)

// startBridge starts one with a web socket and REALITY, before a cover site that knows nothing of it.
func startBridge(t *testing.T, args ...string) *daemon {
	t.Helper()
	site := newCover()
	site.StartTLS()
	t.Cleanup(site.Close)
	return startNode(t, "relay", append([]string{"--bridge", "--verbose", "--cover", site.Listener.Addr().String(),
		"--listen", "/ip4/127.0.0.1/tcp/0/tls/sni/news.example/ws", "--listen", "/ip4/127.0.0.1/tcp/0/tls/sni/example.com/reality"}, args...)...)
}

func (d *daemon) invite(args ...string) api.Invite {
	d.t.Helper()
	var i api.Invite
	if err := json.Unmarshal([]byte(d.run(append([]string{"invite", "--json"}, args...)...)), &i); err != nil {
		d.t.Fatal(err)
	}
	return i
}

func (d *daemon) awaitPeers(n int) {
	d.t.Helper()
	await(d.t, "peers", func() bool { return d.status().Peers == n })
}

func TestOneInviteIsAllThatANewcomerNeeds(t *testing.T) {
	t.Parallel()
	bridge := startBridge(t)
	link := bridge.invite("--uses", "2").Link
	a := startNode(t, "daemon", "--mode", "careful")
	a.run("join", link)
	a.awaitLinks(1)
	b := startNode(t, "daemon", "--mode", "careful", "--carriers", "reality")
	b.run("join", link)
	b.awaitLinks(1)
	for d, want := range map[*daemon]string{a: "wss", b: "reality"} {
		if got := d.status().PeerList[0]; got.Carrier != want || got.Address != "" {
			t.Errorf("connected by %q to %q, want %q and no address", got.Carrier, got.Address, want)
		}
	}
	a.run("post", "salam az in taraf")
	await(t, "the note on the other side", func() bool { return strings.Contains(b.run("feed"), "salam az in taraf") })

	c := startNode(t, "daemon", "--mode", "careful")
	c.run("join", link)
	await(t, "the invite to be used up", func() bool { return bridge.invites()[0].Over })
	if n := c.status().Peers; n != 0 {
		t.Errorf("a third came by an invite for two: %d peers", n)
	}

	bridge.stop()
	if kept := filepath.Join(bridge.dir, "invites.json"); len(read(t, kept)) == 0 {
		t.Error("no record of invites is left behind")
	}
}

func TestRevokingCutsThoseWhoCameByThatInvite(t *testing.T) {
	t.Parallel()
	bridge := startBridge(t)
	first, second := bridge.invite(), bridge.invite()
	a, b := startNode(t, "daemon", "--mode", "careful"), startNode(t, "daemon", "--mode", "careful")
	a.run("join", first.Link)
	b.run("join", second.Link)
	a.awaitLinks(1)
	b.awaitLinks(1)
	await(t, "both to be members", func() bool {
		joined := 0
		for _, i := range bridge.invites() {
			joined += i.Joined
		}
		return joined == 2
	})
	child := a.invite()
	grandchild := startNode(t, "daemon", "--mode", "careful")
	grandchild.run("join", child.Link)
	grandchild.awaitLinks(1)
	bridge.run("invites", "revoke", first.ID)
	a.awaitPeers(0)
	grandchild.awaitPeers(0)
	if n := b.status().Peers; n != 1 {
		t.Errorf("who came by another invite has %d peers, want 1", n)
	}
}

func (d *daemon) invites() (list []api.Issued) {
	d.t.Helper()
	if err := json.Unmarshal([]byte(d.run("invites", "--json")), &list); err != nil {
		d.t.Fatal(err)
	}
	return list
}

func TestADaemonKeepsItsPeerIDWhileItsInvitesHold(t *testing.T) {
	t.Parallel()
	relay := startDaemon(t)
	d := startDaemon(t, relay)
	d.awaitPeers(1)
	before := d.status().PeerID
	d.stop()
	d.start()
	fresh := d.status().PeerID
	if fresh == before {
		t.Error("without invites the peer id stays the same")
	}
	d.awaitPeers(1)
	d.invite()
	d.stop()
	d.start()
	if got := d.status().PeerID; got != fresh {
		t.Errorf("an invite names %s, and after a restart the peer id is %s", fresh, got)
	}
}

// TestNothingTellsOfABridge looks at all that a relay and a daemon without an invite get to see and to say while a
// bridge and its member are in the same mesh.
func TestNothingTellsOfABridge(t *testing.T) {
	t.Parallel()
	relay := startNode(t, "relay", "--verbose", "--listen", "/ip4/127.0.0.1/tcp/0")
	bridge := startBridge(t, "--peer", relay.addr)
	member := startNode(t, "daemon", "--verbose", "--mode", "careful")
	member.run("join", bridge.invite().Link)
	member.awaitLinks(1)
	stranger := startNode(t, "daemon", "--verbose", "--listen", "/ip4/127.0.0.1/tcp/0", "--peer", relay.addr)
	stranger.awaitLinks(1)
	relay.awaitPeers(2)
	member.run("post", "from behind the bridge")
	await(t, "the note at the stranger's", func() bool { return strings.Contains(stranger.run("feed"), "from behind the bridge") })

	var book []struct{ Addrs []string }
	if err := json.Unmarshal(read(t, filepath.Join(member.dir, "peers.json")), &book); err != nil {
		t.Fatal(err)
	}
	var secrets []*regexp.Regexp
	for _, peer := range book {
		for _, a := range peer.Addrs {
			if _, rung, _ := strings.Cut(a, "/tcp/"); strings.Contains(rung, "/tls/") {
				port := strings.Split(rung, "/")[0]
				secrets = append(secrets, regexp.MustCompile(`(^|[^0-9a-z])`+port+`($|[^0-9a-z])`))
			}
		}
	}
	if len(secrets) != 2 {
		t.Fatalf("the member's book has %d places of the bridge, want 2", len(secrets))
	}
	secrets = append(secrets, regexp.MustCompile(`news\.example|example\.com|/token/`))
	id := bridge.status().PeerID

	said := func(d *daemon) string {
		out := d.run("status", "--json") + d.run("peers") + d.run("feed", "--json") + d.run("status")
		d.stop()
		for _, f := range []string{"peers.json", "contact.json", "carriers.json"} {
			raw, _ := os.ReadFile(filepath.Join(d.dir, f)) // may be missing
			out += string(raw)
		}
		return out + d.stderr.String()
	}
	for name, d := range map[string]*daemon{"stranger": stranger, "relay": relay} {
		text := said(d)
		for _, s := range secrets {
			if s.MatchString(text) {
				t.Errorf("the %s knows %q of the bridge", name, s)
			}
		}
		if name == "stranger" && strings.Contains(text, id) {
			t.Errorf("the stranger knows the bridge's peer id")
		}
	}
	if text := member.run("status", "--json") + member.run("peers"); strings.Contains(text, "news.example") {
		t.Error("status shows a member where the bridge is")
	}
	for _, d := range []*daemon{member, bridge} {
		d.stop()
		for _, s := range []string{"news.example", "/token/", "tcp/"} {
			if strings.Contains(d.stderr.String(), s) {
				t.Errorf("a log has %q:\n%s", s, d.stderr)
			}
		}
	}
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
