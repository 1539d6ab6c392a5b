package bootstrap

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// stranger is the id of the n-th peer of a test.
func stranger(t *testing.T, n int) peer.ID {
	t.Helper()
	_, id := sealed(t, "", fmt.Sprintf("/ip4/192.0.2.1/tcp/%d", n))
	return id
}

func at(n int) ma.Multiaddr { return ma.StringCast(fmt.Sprintf("/ip4/8.%d.0.1/tcp/4870", n)) }

// testBook is a book in a file, with a clock that the test moves, which writes tokens as names.
func testBook(t *testing.T) (again func() *Book, pass func(time.Duration)) {
	t.Helper()
	now := time.Unix(1_800_000_000, 0)
	file := filepath.Join(t.TempDir(), "peers.json")
	with := func(a ma.Multiaddr, token Token) ma.Multiaddr {
		return a.Encapsulate(ma.StringCast(fmt.Sprintf("/dns4/t%x.example", token[:2])))
	}
	return func() *Book {
		b, err := OpenBook(file, func() time.Time { return now }, with)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}, func(d time.Duration) { now = now.Add(d) }
}

func ids(b *Book) (list []peer.ID) {
	for _, p := range b.all() {
		list = append(list, p.ID)
	}
	return list
}

func TestBookTellsAnchorsThenInvitesThenWhoWorkedLast(t *testing.T) {
	again, pass := testBook(t)
	b := again()
	old, newer, anchor, invited := stranger(t, 1), stranger(t, 2), stranger(t, 3), stranger(t, 4)
	for i, p := range []peer.ID{old, anchor, newer} {
		b.Worked(p, "exchange", at(i+1))
		pass(time.Minute)
	}
	if err := b.Invite(peer.AddrInfo{ID: invited, Addrs: []ma.Multiaddr{at(9)}}, &Token{7}); err != nil {
		t.Fatal(err)
	}
	b.Anchor([]peer.ID{anchor})
	if err := b.Save(); err != nil {
		t.Fatal(err)
	}
	b = again()
	if got, want := fmt.Sprint(ids(b)), fmt.Sprint([]peer.ID{anchor, invited, newer, old}); got != want {
		t.Errorf("after a restart the order is %v, want %v", got, want)
	}
	if got := b.all()[1].Addrs[0].String(); !strings.Contains(got, "t0700") {
		t.Errorf("an invited peer is told as %s, without the token", got)
	}
	own, owed := b.Owed(invited)
	if !owed {
		t.Fatal("the guest owes nothing")
	}
	if err := b.Joined(invited); err != nil {
		t.Fatal(err)
	}
	if got, ok := again().Member(invited); !ok || got != own {
		t.Error("a member is none after a restart")
	}
}

func TestBookForgetsTheUnreachableButNoInviteAndNoAnchor(t *testing.T) {
	again, _ := testBook(t)
	b := again()
	plain, anchor, invited := stranger(t, 1), stranger(t, 2), stranger(t, 3)
	b.Worked(plain, "dht", at(1))
	b.Worked(anchor, "dht", at(2))
	b.Anchor([]peer.ID{anchor})
	if err := b.Invite(peer.AddrInfo{ID: invited, Addrs: []ma.Multiaddr{at(3)}}, nil); err != nil {
		t.Fatal(err)
	}
	for range bookFailures {
		for _, p := range []peer.ID{plain, anchor, invited} {
			b.Failed(p)
		}
	}
	if got, want := fmt.Sprint(ids(b)), fmt.Sprint([]peer.ID{anchor, invited}); got != want {
		t.Errorf("the book has %v, want %v", got, want)
	}
	for i := range 2 * maxBook {
		b.Worked(peer.ID(fmt.Sprint("peer ", i)), "dht", at(i%200))
	}
	if n := len(ids(b)); n > maxBook {
		t.Errorf("the book has %d peers", n)
	}
	if !b.Invited(invited) {
		t.Error("a full book forgot an invite")
	}
}

func TestWhatWorkedLastIsFirst(t *testing.T) {
	again, _ := testBook(t)
	b := again()
	p := stranger(t, 1)
	for i := range 2 * maxBookAddrs {
		b.Worked(p, "dht", at(40-i)) // ever lower ones
		b.Worked(p, "dht", at(100))
	}
	if got := b.Addrs(p); len(got) != maxBookAddrs || !got[0].Equal(at(100)) {
		t.Errorf("%d addresses, the first %v", len(got), got[0])
	}
}

func TestADamagedBookIsPutAside(t *testing.T) {
	again, _ := testBook(t)
	b := again()
	b.Worked(stranger(t, 1), "dht", at(1))
	if err := b.Save(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.file, []byte(`[{"id":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := again().all(); len(got) != 0 {
		t.Errorf("a damaged book tells %v", got)
	}
	if _, err := os.Stat(b.file + ".damaged"); err != nil {
		t.Error(err)
	}
}

// TestNobodyWhoOwnsOneNetworkSurroundsANode has very many peers of one /16 be found before a few of others.
func TestNobodyWhoOwnsOneNetworkSurroundsANode(t *testing.T) {
	inNetwork(t, func(_ context.Context, hosts []host.Host) {
		f := NewFinder(FinderConfig{Host: hosts[0], Log: slog.New(slog.DiscardHandler), Want: 16, Carrier: func(a ma.Multiaddr) string {
			if strings.Contains(a.String(), "/udp/") {
				return "quic"
			}
			return "tcp"
		}})
		known := map[peer.ID]*candidate{}
		find := func(n int, addr string) peer.ID {
			id := peer.ID(fmt.Sprint("peer ", n))
			f.take(known, candidate{AddrInfo: peer.AddrInfo{ID: id, Addrs: []ma.Multiaddr{ma.StringCast(addr)}}, source: "dht"})
			return id
		}
		for i := range 500 {
			find(i, fmt.Sprintf("/ip4/66.6.%d.%d/tcp/4870", i/250, i%250))
		}
		for i := range 4 {
			find(1000+i, fmt.Sprintf("/ip4/8.%d.0.1/tcp/4870", i))
		}
		first := f.next(known)
		groups := map[string]int{}
		for _, c := range first {
			groups[group(c.Addrs[0])]++
			c.dialing = true
		}
		if len(groups) < 5 || groups["66.6.0.0/16"] > maxGroup {
			t.Errorf("the first dials lead into %v", groups)
		}
		for range 5 { // all of them under way still
			for _, c := range f.next(known) {
				if c.dialing = true; group(c.Addrs[0]) == "66.6.0.0/16" {
					groups["66.6.0.0/16"]++
				}
			}
		}
		if n := groups["66.6.0.0/16"]; n > maxGroup {
			t.Errorf("%d connections lead into one network", n)
		}
	})
}

func TestTheUnreachableMakeRoomForOthers(t *testing.T) {
	inNetwork(t, func(_ context.Context, hosts []host.Host) {
		f := NewFinder(FinderConfig{Host: hosts[0], Log: slog.New(slog.DiscardHandler)})
		known := map[peer.ID]*candidate{}
		find := func(name string, addrs ...ma.Multiaddr) {
			f.take(known, candidate{AddrInfo: peer.AddrInfo{ID: peer.ID(name), Addrs: addrs}, source: name[:1]})
		}
		for i := range maxFound {
			find(fmt.Sprint("x", i), at(i%200))
		}
		find("late", at(1))
		if known["late"] != nil || len(known) != maxFound {
			t.Errorf("%d peers are remembered", len(known))
		}
		known["x7"].failures, known["x8"].failures = 3, 2
		find("late", at(1))
		if known["late"] == nil || known["x7"] != nil || known["x8"] == nil || f.Source("x7") != "" || f.Source("late") != "l" {
			t.Error("a new peer does not take the place of the one that failed most")
		}
		for i := range 200 { // each time by another source
			f.take(known, candidate{AddrInfo: peer.AddrInfo{ID: "late", Addrs: []ma.Multiaddr{at(i)}}, source: fmt.Sprint(i)})
		}
		if n := len(known["late"].Addrs); n > maxAddrs || !known["late"].Addrs[0].Equal(at(1)) {
			t.Errorf("a peer has %d addresses, the first %s", n, known["late"].Addrs[0])
		}
	})
}

func TestCarriersAreSpreadToo(t *testing.T) {
	s := spread{groups: map[string]int{}, carriers: map[string]int{}}
	for i := range 3 {
		s.add(at(i), func(ma.Multiaddr) string { return "tcp" })
	}
	if s.total != 3 || s.carriers["tcp"] != 3 || len(s.groups) != 3 {
		t.Errorf("%+v", s)
	}
	for addr, want := range map[string]string{"/ip4/8.1.0.1/tcp/1": "8.1.0.0/16", "/ip4/10.0.0.1/tcp/1": "", "/ip4/127.0.0.1/tcp/1": "",
		"/ip6/2001:470:1:2::3/tcp/1": "2001:470::/32", "/dns4/a.example/tcp/443": "/dns4/a.example"} {
		if got := group(ma.StringCast(addr)); got != want {
			t.Errorf("group(%s) = %q, want %q", addr, got, want)
		}
	}
}
