package bootstrap

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-datastore"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"
	ma "github.com/multiformats/go-multiaddr"
)

// all leaves out addresses with a secret in them, which in these tests are those with a name.
func all(addrs []ma.Multiaddr) []ma.Multiaddr {
	return ma.FilterAddrs(addrs, func(a ma.Multiaddr) bool { return !strings.Contains(a.String(), "/dns") })
}

// finding collects what a source finds.
type finding struct {
	mu    sync.Mutex
	peers map[peer.ID][]ma.Multiaddr
}

func (f *finding) found(p peer.AddrInfo) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.peers == nil {
		f.peers = map[peer.ID][]ma.Multiaddr{}
	}
	f.peers[p.ID] = p.Addrs
}

func (f *finding) has(p peer.ID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.peers[p]) > 0
}

func join(t *testing.T, from, to host.Host) {
	t.Helper()
	if err := from.Connect(context.Background(), info(to)); err != nil {
		t.Fatal(err)
	}
}

func TestPeersAreToldOfThoseWhoLetThem(t *testing.T) {
	for _, c := range []struct {
		name                    string
		answers, tells, reached bool
		want                    bool
	}{
		{"a relay that came by itself", true, true, false, true},
		{"a daemon that came by itself", true, false, false, false},
		{"a daemon that was dialled", true, false, true, true},
		{"who takes no part and was dialled", false, false, true, false},
	} {
		inNetwork(t, func(ctx context.Context, hosts []host.Host) {
			asker, middle, other := hosts[0], hosts[1], hosts[2]
			go NewExchange(middle, false, all).Find(ctx, func(peer.AddrInfo) {})
			if c.answers {
				go NewExchange(other, c.tells, all).Find(ctx, func(peer.AddrInfo) {})
			}
			time.Sleep(time.Second)
			if c.reached {
				join(t, middle, other)
			} else {
				join(t, other, middle)
			}
			time.Sleep(time.Second)
			join(t, asker, middle)
			var got finding
			go NewExchange(asker, false, all).Find(ctx, got.found)
			time.Sleep(5 * time.Second)
			if got.has(other.ID()) != c.want {
				t.Errorf("%s: told of %v, want %v", c.name, got.has(other.ID()), c.want)
			}
			if got.has(asker.ID()) {
				t.Error("the asker was told of itself")
			}
		})
	}
}

// sealed is a record of a new key about id, or about itself.
func sealed(t testing.TB, id peer.ID, addrs ...string) ([]byte, peer.ID) {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	own, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if id == "" {
		id = own
	}
	r := peer.AddrInfo{ID: id}
	for _, a := range addrs {
		r.Addrs = append(r.Addrs, ma.StringCast(a))
	}
	e, err := record.Seal(peer.PeerRecordFromAddrInfo(r), key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := e.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return raw, own
}

func TestRecordsOfOthersAndSecretsAreRefused(t *testing.T) {
	x := &Exchange{public: all}
	far := ma.StringCast("/ip4/198.51.100.1/tcp/1")
	_, other := sealed(t, "", "/ip4/1.2.3.4/tcp/1")
	for name, c := range map[string]struct {
		about peer.ID
		addrs []string
		via   ma.Multiaddr
		want  int
	}{
		"good":            {"", []string{"/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.4/udp/1/quic-v1"}, ma.StringCast("/ip4/9.9.9.9/tcp/1"), 2},
		"of somebody":     {other, []string{"/ip4/1.2.3.4/tcp/1"}, far, 0},
		"secret":          {"", []string{"/dns4/bridge.example/tcp/443"}, far, 0},
		"of my own LAN":   {"", []string{"/ip4/192.168.1.7/tcp/1", "/ip4/127.0.0.1/tcp/1"}, ma.StringCast("/ip4/192.168.1.3/tcp/1"), 1},
		"of another's":    {"", []string{"/ip4/192.168.1.7/tcp/1", "/ip4/127.0.0.1/tcp/1"}, ma.StringCast("/ip4/9.9.9.9/tcp/1"), 0},
		"without address": {"", nil, far, 0},
	} {
		raw, _ := sealed(t, c.about, c.addrs...)
		info, err := x.open(raw, c.via)
		if len(info.Addrs) != c.want || (err == nil) != (c.want > 0) {
			t.Errorf("%s: open() = %v, %v, want %d addresses", name, info, err, c.want)
		}
	}
}

func FuzzRecord(f *testing.F) {
	raw, _ := sealed(f, "", "/ip4/1.2.3.4/tcp/1")
	var framed bytes.Buffer
	if err := writeRecord(&framed, nil, raw); err != nil {
		f.Fatal(err)
	}
	f.Add(framed.Bytes())
	f.Add([]byte("\x00"))
	f.Add([]byte("\xff\xff\xff\xff\x0f"))
	x := &Exchange{public: all}
	f.Fuzz(func(t *testing.T, b []byte) {
		raw, err := readRecord(bufio.NewReader(bytes.NewReader(b)))
		if err != nil {
			return
		}
		if len(raw) > maxRecord {
			t.Fatalf("a record of %d bytes", len(raw))
		}
		if info, err := x.open(raw, ma.StringCast("/ip4/127.0.0.1")); err == nil && (len(info.Addrs) == 0 || info.ID.Validate() != nil) {
			t.Errorf("%v", info)
		}
	})
}

func TestRelaysStandInTheTable(t *testing.T) {
	inNetwork(t, func(ctx context.Context, hosts []host.Host) {
		asker, middle, other := hosts[0], hosts[1], hosts[2]
		tables := make([]*DHT, len(hosts))
		for i, h := range hosts {
			d, err := NewDHT(h, "test", h != asker, all)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			tables[i] = d
		}
		join(t, other, middle)
		join(t, asker, middle)
		var got finding
		go tables[1].Find(ctx, func(peer.AddrInfo) {})
		go tables[2].Find(ctx, func(peer.AddrInfo) {})
		go tables[0].Find(ctx, got.found)
		time.Sleep(2 * dhtAgain)
		if !got.has(other.ID()) || !got.has(middle.ID()) {
			t.Error("relays are not found in the table")
		}
		if got.has(asker.ID()) {
			t.Error("who only asks is in the table")
		}
	})
}

func TestTheShelfTakesRelaysAlone(t *testing.T) {
	s := newShelf()
	ctx := t.Context()
	takes := relaysKey()
	put := func(key string) bool {
		k := datastore.RawKey(key)
		if err := s.Put(ctx, k, []byte{1}); err != nil {
			t.Fatal(err)
		}
		has, err := s.Has(ctx, k)
		if err != nil {
			t.Fatal(err)
		}
		return has
	}
	if !put(takes+"/A") || put("/providers/MFRGG/A") {
		t.Error("what is no relay is kept, or what is one is not")
	}
	for i := range dhtEntries {
		put(takes + "/" + string(rune('A'+i%26)) + strings.Repeat("B", i/26))
	}
	if put(takes + "/TOOMANY") {
		t.Error("it takes more than it may")
	}
	if err := s.Delete(ctx, datastore.RawKey(takes+"/A")); err != nil || !put(takes+"/TOOMANY") {
		t.Errorf("no room after one has gone: %v", err)
	}
}

func TestFarthestAddressesAreThoseOfAPeerForTheWorld(t *testing.T) {
	here, near, far := ma.StringCast("/ip4/127.0.0.1/tcp/1"), ma.StringCast("/ip4/192.168.1.2/tcp/1"), ma.StringCast("/ip4/8.1.0.1/tcp/1")
	for _, c := range []struct{ addrs, want []ma.Multiaddr }{
		{[]ma.Multiaddr{here, near, far}, []ma.Multiaddr{far}}, {[]ma.Multiaddr{here, near}, []ma.Multiaddr{near}},
		{[]ma.Multiaddr{here}, []ma.Multiaddr{here}}, {nil, nil},
	} {
		if got := Farthest(c.addrs); len(got) != len(c.want) || len(got) > 0 && !got[0].Equal(c.want[0]) {
			t.Errorf("Farthest(%v) = %v, want %v", c.addrs, got, c.want)
		}
	}
}

// TestTheTableTellsNoSecretAddress asks a relay about a peer that it is just dialling at a secret address.
func TestTheTableTellsNoSecretAddress(t *testing.T) {
	inNetwork(t, func(ctx context.Context, hosts []host.Host) {
		asker, relay := hosts[0], hosts[1]
		var tables []*DHT
		for _, h := range hosts[:2] {
			public := all
			if h == asker {
				public = func(addrs []ma.Multiaddr) []ma.Multiaddr { return addrs } // it takes whatever it is told
			}
			d, err := NewDHT(h, "test", h == relay, public)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			tables = append(tables, d)
		}
		_, bridge := sealed(t, "", "/ip4/1.2.3.4/tcp/1")
		_, plain := sealed(t, "", "/ip4/1.2.3.4/tcp/1")
		relay.Peerstore().AddAddr(bridge, ma.StringCast("/dns4/bridge.example/tcp/443"), time.Hour)
		relay.Peerstore().AddAddr(plain, ma.StringCast("/ip4/1.2.3.4/tcp/1"), time.Hour)
		join(t, asker, relay)
		time.Sleep(2 * time.Second)
		for p, want := range map[peer.ID]int{bridge: 0, plain: 1} {
			fctx, cancel := context.WithTimeout(ctx, 30*time.Second)
			_, _ = tables[0].table.FindPeer(fctx, p) // what was heard is in the peer store, reachable or not
			cancel()
			if got := asker.Peerstore().Addrs(p); len(got) != want {
				t.Errorf("the relay told %v, want %d addresses", got, want)
			}
		}
	})
}
