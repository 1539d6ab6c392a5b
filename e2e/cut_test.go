//go:build linux

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"openline/e2e/lab"
)

// nation is a world with two homes and a relay inside a country, and relays, a friend, resolvers and a mirror outside.
// Its hosts have addresses as in the Internet; none of it leaves the lab.
func nation(rules ...lab.Rule) lab.World {
	const asked = "9.9.3.3" // the resolver in clear, abroad
	return lab.World{
		Links: []lab.Link{{Name: "home", Country: "x", Latency: 5 * time.Millisecond, Firewalled: true},
			{Name: "other home", Country: "x", Latency: 5 * time.Millisecond, Firewalled: true},
			{Name: "domestic", Country: "x", Latency: 5 * time.Millisecond},
			{Name: "world", Latency: 30 * time.Millisecond}},
		Hosts: []lab.Host{{Name: "user", Link: "home", Addr: "192.168.7.1", DNS: asked}, {Name: "neighbour", Link: "home", Addr: "192.168.7.2", DNS: asked},
			{Name: "compatriot", Link: "other home", Addr: "192.168.9.1", DNS: asked}, {Name: "domestic relay", Link: "domestic", Addr: "5.5.5.1"},
			{Name: "relay 1", Link: "world", Addr: "8.1.0.1"}, {Name: "relay 2", Link: "world", Addr: "8.2.0.1"}, {Name: "relay 3", Link: "world", Addr: "8.3.0.1"},
			{Name: "relay 4", Link: "world", Addr: "8.4.0.1"}, {Name: "relay 5", Link: "world", Addr: "8.5.0.1"},
			{Name: "friend", Link: "world", Addr: "8.6.0.1"}, {Name: "bridge", Link: "world", Addr: "8.7.0.1"}, {Name: "cover", Link: "world", Addr: "8.8.0.1"},
			{Name: "resolver 1", Link: "world", Addr: "9.9.1.1"}, {Name: "resolver 2", Link: "world", Addr: "9.9.2.2"}, {Name: "resolver", Link: "world", Addr: asked}},
		Censor: rules,
	}
}

// worldNames serves what the nation's resolvers and the mirror know, and returns a user's flags for them.
func worldNames(t *testing.T, n *lab.Net, records ...string) (site, []string) {
	t.Helper()
	s := newSite(t, []string{"9.9.1.1", "9.9.2.2", "lists.example"}, append(records, "lists.example. 60 IN A 9.9.2.2"))
	s.serve(t, n, "resolver 1", "resolver 2", "resolver")
	return s, []string{"--resolver", "https://9.9.1.1/dns-query", "--resolver", "https://9.9.2.2/dns-query"}
}

// settleRelay starts a relay of the lab's.
func settleRelay(t *testing.T, n *lab.Net, host string, peers ...*daemon) *daemon {
	t.Helper()
	args := []string{"relay"}
	for _, p := range peers {
		args = append(args, "--peer", p.addr)
	}
	return settle(t, n, host, args...)
}

func (d *daemon) follows(t *testing.T, topic string, from *daemon, most time.Duration) {
	t.Helper()
	text := fmt.Sprintf("%s %d #%s", t.Name(), time.Now().UnixNano(), topic)
	from.run("post", text[max(0, len(text)-140):])
	if took, ok := within(t, most, func() bool {
		out, err := d.try("feed", "--topic", topic)
		return err == nil && strings.Contains(out, text[max(0, len(text)-140):])
	}); !ok {
		t.Errorf("a note about %s did not arrive within %v", topic, took)
	}
}

// TestFoundThoughNamesArePoisoned has somebody be found by the second resolver, by a list, by an invite and by the book,
// while the censor answers for the names of the first and in clear.
func TestFoundThoughNamesArePoisoned(t *testing.T) {
	t.Parallel()
	n := lab.Start(t, nation())
	serveCover(t, n)
	relay := settleRelay(t, n, "relay 1")
	names, resolvers := worldNames(t, n, "_dnsaddr.relays.example. 60 IN TXT \"dnsaddr="+relay.addr+"\"")
	key := filepath.Join(names.dir, "operator.pem")
	pub := relay.run("list", "key", key)
	names.put(t, "www/relays.txt", []byte(relay.run("list", "sign", "--key", key, "--network", "lab", relay.addr)))
	list := "https://lists.example/relays.txt#" + pub
	bridge := settle(t, n, "bridge", append(bridgeArgs(n), "--peer", relay.addr)...)
	bridge.awaitPeers(1)
	flags := append([]string{"daemon", "--lan=false"}, resolvers...)

	book := settleTrusting(t, n, "neighbour", names, append(flags, "--list", list)...) // the list comes last
	book.awaitLinks(1)
	book.stop()
	n.SetCensor(lab.PoisonDNS("5.66.6.6", "example"), lab.BlockIP("9.9.1.1"))
	book.args = book.args[:len(book.args)-2]
	book.start()
	byName := settleTrusting(t, n, "user", names, append(flags, "--dnsaddr", "relays.example")...)
	byList := settleTrusting(t, n, "compatriot", names, append(flags, "--list", list)...)
	byInvite := settleTrusting(t, n, "user", names, append(flags, "--api", "127.0.0.1:0", "--mode", "careful")...)
	byInvite.run("join", bridge.invite().Link)
	var found []string
	for source, d := range map[string]*daemon{"dnsaddr": byName, "list": byList, "book": book, "book ": byInvite} {
		took, ok := within(t, 30*time.Second, func() bool { return d.status().Peers > 0 })
		if !ok {
			t.Errorf("nobody was found by %s", source)
			continue
		}
		if got := d.status().PeerList[0].Source; got != strings.TrimSpace(source) {
			t.Errorf("found by %s, want %s", got, source)
		}
		found = append(found, fmt.Sprintf("%s %.1f s", strings.TrimSpace(source), took.Seconds()))
	}
	causes := byName.mustFind("dns-poisoned", "resolver-blocked")
	matrix.add("DNS poisoned, first DoH resolver blocked", "found by %s; the doctor: %s", strings.Join(found, ", "), strings.Join(causes, ", "))
	byList.mustFind("dns-poisoned", "resolver-blocked")
	byInvite.mustFind("resolver-blocked")
}

// TestNobodyIsAloneWhileRelaysAreBlockedOneByOne knows one relay at first, which is the first to go.
func TestNobodyIsAloneWhileRelaysAreBlockedOneByOne(t *testing.T) {
	t.Parallel()
	n := lab.Start(t, nation())
	names, resolvers := worldNames(t, n)
	hosts := []string{"relay 1", "relay 2", "relay 3", "relay 4", "relay 5"}
	first := settleRelay(t, n, hosts[0])
	last := first
	for _, h := range hosts[1:] {
		last = settleRelay(t, n, h, first)
	}
	friend := settle(t, n, "friend", "daemon", "--lan=false", "--peer", last.addr)
	user := settleTrusting(t, n, "user", names, append([]string{"daemon", "--lan=false", "--peer", first.addr}, resolvers...)...)
	if took, ok := within(t, time.Minute, func() bool { return user.status().Peers >= len(hosts) }); !ok {
		t.Fatalf("after %v only %d of %d relays are known", took, user.status().Peers, len(hosts))
	}
	every := 6 * time.Second
	if os.Getenv("OPENLINE_E2E") != "" {
		every = 20 * time.Second
	}
	var blocked []string
	alone, longest := time.Time{}, time.Duration(0)
	for _, h := range hosts[:len(hosts)-1] {
		blocked = append(blocked, n.Host(h).Addr().String())
		n.SetCensor(lab.BlockIP(blocked...))
		for end := time.Now().Add(every); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
			if user.status().Peers > 0 {
				alone = time.Time{}
			} else if alone.IsZero() {
				alone = time.Now()
			} else {
				longest = max(longest, time.Since(alone))
			}
		}
		user.follows(t, "still"+fmt.Sprint(len(blocked)), friend, 30*time.Second)
	}
	if longest > 30*time.Second {
		t.Errorf("alone for %v", longest)
	}
	causes := user.mustFind("address-blocked")
	matrix.add("relays' addresses blocked one after the other", "%d of %d blocked, alone for %v at most; the doctor: %s",
		len(blocked), len(hosts), longest, strings.Join(causes, ", "))
}

// TestBothSidesOfABorderGoOnAndMeetAgain cuts a country off and heals that.
func TestBothSidesOfABorderGoOnAndMeetAgain(t *testing.T) {
	t.Parallel()
	n := lab.Start(t, nation())
	names, resolvers := worldNames(t, n)
	outside := settleRelay(t, n, "relay 1")
	inside := settleRelay(t, n, "domestic relay", outside)
	flags := append([]string{"daemon", "--lan=false", "--peer", inside.addr, "--peer", outside.addr}, resolvers...)
	user, compatriot := settleTrusting(t, n, "user", names, flags...), settleTrusting(t, n, "compatriot", names, flags...)
	friend := settle(t, n, "friend", "daemon", "--lan=false", "--peer", outside.addr)
	for _, d := range []*daemon{user, compatriot, friend} {
		d.awaitLinks(1)
	}
	n.SetCensor(lab.CutBorder())
	user.post("inside", 40)
	friend.post("outside", 40)
	if took, ok := within(t, 30*time.Second, func() bool { return compatriot.has("inside") == 40 }); !ok {
		t.Errorf("inside, %d of 40 notes arrived after %v", compatriot.has("inside"), took)
	}
	if friend.has("inside") != 0 || user.has("outside") != 0 {
		t.Error("the border is not cut")
	}
	causes := user.mustFind("cut-abroad")
	n.SetCensor()
	took, ok := within(t, time.Minute, func() bool {
		return user.has("outside") == 40 && compatriot.has("outside") == 40 && friend.has("inside") == 40
	})
	if !ok {
		t.Errorf("after %v: %d and %d of 40 came in, %d went out", took, user.has("outside"), compatriot.has("outside"), friend.has("inside"))
	}
	matrix.add("international cut", "both sides went on, everything everywhere %.1f s after it; the doctor: %s", took.Seconds(), strings.Join(causes, ", "))
}

// TestATotalCutLeavesTheLANAndSticks has neighbours join by multicast while nothing else goes, and a stick carry on.
func TestATotalCutLeavesTheLANAndSticks(t *testing.T) {
	t.Parallel()
	n := lab.Start(t, nation())
	names, resolvers := worldNames(t, n)
	relay := settleRelay(t, n, "relay 1")
	flags := append([]string{"daemon", "--peer", relay.addr}, resolvers...)
	user := settleTrusting(t, n, "user", names, flags...)
	compatriot := settleTrusting(t, n, "compatriot", names, flags...)
	user.awaitLinks(1)
	n.SetCensor(lab.CutAll())
	neighbour := settleTrusting(t, n, "neighbour", names, flags...)
	took, ok := within(t, 30*time.Second, func() bool {
		for _, p := range neighbour.status().PeerList {
			if p.Source == "lan" || p.Direction == "in" {
				return p.Mesh
			}
		}
		return false
	})
	if !ok {
		t.Fatalf("neighbours have not found each other after %v", took)
	}
	neighbour.follows(t, "here", user, 20*time.Second)
	causes := user.mustFind("cut-all")

	stick := filepath.Join(t.TempDir(), "all.openline")
	neighbour.run("bundle", "export", stick)
	compatriot.run("bundle", "import", stick)
	if compatriot.has("here") != 1 {
		t.Error("the stick did not carry the note")
	}
	matrix.add("total cut", "neighbours joined after %.1f s, a stick carried on; the doctor: %s", took.Seconds(), strings.Join(causes, ", "))
}
