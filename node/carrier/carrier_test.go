package carrier

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	ma "github.com/multiformats/go-multiaddr"
)

// ledger lets in whom a test says.
type ledger struct {
	mu    sync.Mutex
	guest map[Token]bool
}

func (l *ledger) admit(t Token) (ok, guest bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	guest, ok = l.guest[t]
	return ok, guest
}

func (l *ledger) tokens() (all []Token) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for t := range l.guest {
		all = append(all, t)
	}
	return all
}

func (l *ledger) issue(guest bool) (t Token) {
	rand.Read(t[:])
	l.mu.Lock()
	defer l.mu.Unlock()
	l.guest[t] = guest
	return t
}

func (l *ledger) revoke(t Token) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.guest, t)
}

// open returns a libp2p host on the rungs of cfg.
func open(t *testing.T, cfg Config, listen ...string) (*Set, host.Host) {
	t.Helper()
	if cfg.Mode == "" {
		cfg.Mode = Open
	}
	cfg.Dir = t.TempDir()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	h, err := libp2p.New(append(s.Options(), libp2p.Security(noise.ID, noise.New), libp2p.NoListenAddrs, libp2p.DisableRelay(), libp2p.DisableMetrics(),
		libp2p.AddrsFactory(Public))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, a := range listen {
		if err := h.Network().Listen(ma.StringCast(a)); err != nil {
			t.Fatal(err)
		}
	}
	return s, h
}

// reach connects from h to a peer at one address and lets the bytes of a ping go both ways.
func reach(h host.Host, p peer.ID, a ma.Multiaddr) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := h.Connect(ctx, peer.AddrInfo{ID: p, Addrs: []ma.Multiaddr{a}}); err != nil {
		return err
	}
	r := <-ping.Ping(ctx, h, p)
	return r.Error
}

// cover is a site that knows nothing of us; it returns its host:port.
func cover(t *testing.T) string {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "the cover site") }))
	s.EnableHTTP2 = true
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes by which REALITY learns how the site looks
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// rungs are the listening rungs that need nothing but this machine.
func rungs(t *testing.T) map[string]struct {
	cfg    Config
	listen string
} {
	type row = struct {
		cfg    Config
		listen string
	}
	rows := map[string]row{
		"wss":          {Config{}, "/ip4/127.0.0.1/tcp/0/tls/sni/news.example/ws"},
		"ws by itself": {Config{}, "/ip4/127.0.0.1/tcp/0/ws"},
		"reality":      {Config{Cover: cover(t)}, "/ip4/127.0.0.1/tcp/0/tls/sni/example.com/reality"},
	}
	if _, err := exec.LookPath("obfs4proxy"); err == nil {
		rows["obfs4"] = row{Config{}, "/ip4/127.0.0.1/tcp/0/pt/obfs4"}
	} else if os.Getenv("OPENLINE_E2E") != "" {
		t.Fatal("OPENLINE_E2E is set and this is missing: obfs4proxy")
	}
	return rows
}

func TestRungsCarryTheInvitedAndNobodyElse(t *testing.T) {
	for name, row := range rungs(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := &ledger{guest: map[Token]bool{}}
			row.cfg.Admit, row.cfg.Tokens = l.admit, l.tokens
			bridge, server := open(t, row.cfg, row.listen)
			token := l.issue(false)
			addrs := bridge.Addresses()
			if len(addrs) != 1 || !Secret(addrs[0]) {
				t.Fatalf("Addresses() = %v, want one that is secret", addrs)
			}
			_, guest := open(t, Config{})
			if err := reach(guest, server.ID(), WithToken(addrs[0], token)); err != nil {
				t.Fatalf("with a token: %v", err)
			}
			c := guest.Network().ConnsToPeer(server.ID())[0]
			if strings.Contains(c.RemoteMultiaddr().String(), "token") {
				t.Errorf("the connection's address has the token: %s", c.RemoteMultiaddr())
			}
			if known := guest.Peerstore().Addrs(server.ID()); len(Public(known)) != 0 {
				t.Errorf("identify spread %v", known)
			}
			in := server.Network().ConnsToPeer(guest.ID())[0]
			if got, ok := bridge.TokenOf(in); !ok || got != token {
				t.Errorf("TokenOf() = %x, %v, want %x", got, ok, token)
			}
			other := l.issue(false)
			_, second := open(t, Config{})
			if err := reach(second, server.ID(), WithToken(addrs[0], other)); err != nil {
				t.Fatalf("with another token: %v", err)
			}
			l.revoke(token)
			bridge.Cut()
			await(t, "the revoked to be cut off", func() bool { return guest.Network().Connectedness(server.ID()) != network.Connected })
			if second.Network().Connectedness(server.ID()) != network.Connected {
				t.Error("revoking one token cut another's user")
			}
			_, stranger := open(t, Config{})
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			defer cancel()
			if err := stranger.Connect(ctx, peer.AddrInfo{ID: server.ID(), Addrs: []ma.Multiaddr{WithToken(addrs[0], token)}}); err == nil {
				t.Error("a revoked token lets in")
			}
		})
	}
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestPromotedGuestsStay(t *testing.T) {
	l := &ledger{guest: map[Token]bool{}}
	bridge, server := open(t, Config{Admit: l.admit, Tokens: l.tokens}, "/ip4/127.0.0.1/tcp/0/ws")
	_, client := open(t, Config{})
	if err := reach(client, server.ID(), WithToken(bridge.Addresses()[0], l.issue(true))); err != nil {
		t.Fatal(err)
	}
	own := l.issue(false)
	bridge.Promote(server.Network().ConnsToPeer(client.ID())[0], own)
	if got, ok := bridge.TokenOf(server.Network().ConnsToPeer(client.ID())[0]); !ok || got != own {
		t.Errorf("TokenOf() = %x, %v after Promote, want %x", got, ok, own)
	}
}

// TestProbersSeeTheDecoy compares what a stranger gets from a rung with what the site behind it says.
func TestProbersSeeTheDecoy(t *testing.T) {
	site := cover(t)
	l := &ledger{guest: map[Token]bool{}}
	bridge, _ := open(t, Config{Admit: l.admit, Tokens: l.tokens, Cover: site, Decoy: "../../e2e/testdata"},
		"/ip4/127.0.0.1/tcp/0/tls/sni/example.com/reality", "/ip4/127.0.0.1/tcp/0/tls/sni/news.example/ws")
	for _, a := range bridge.Addresses() {
		p := read(a)
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: p.sni}}}
		defer client.CloseIdleConnections()
		var token Token
		rand.Read(token[:])
		r, err := http.NewRequest("GET", "https://"+p.address()+path(token), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}}
		resp, err := client.Do(r)
		if err != nil {
			t.Errorf("%s: %v", p.carrier, err)
			continue
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Error(err)
		}
		want := "404 page not found\n"
		if p.carrier == Reality {
			want = "the cover site"
		}
		if string(body) != want {
			t.Errorf("%s answers a stranger's web socket with %q, want %q", p.carrier, body, want)
		}
	}
}

func TestModesForbid(t *testing.T) {
	_, server := open(t, Config{}, "/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1")
	_, careful := open(t, Config{Mode: Careful})
	for _, a := range server.Addrs() {
		if err := reach(careful, server.ID(), a); err == nil {
			t.Errorf("careful dialled %s", a)
		}
	}
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	_, onlyTor := open(t, Config{Mode: OnlyTor, TorSOCKS: dead.Addr().String()})
	for _, a := range server.Addrs() {
		if err := reach(onlyTor, server.ID(), a); err == nil {
			t.Errorf("without Tor, mode tor dialled %s", a)
		}
	}
	if len(server.Network().Peers()) != 0 {
		t.Error("somebody came")
	}
	for mode, h := range map[Mode]host.Host{Careful: careful, OnlyTor: onlyTor} {
		// libp2p itself looks up the names in addresses that no rung takes.
		err := reach(h, server.ID(), ma.StringCast("/dns4/localhost/udp/1/quic-v1"))
		if err == nil || strings.Contains(err.Error(), "/ip4/127.0.0.1/udp/1/") {
			t.Errorf("mode %s looked up a name in clear: %v", mode, err)
		}
	}
	if _, err := New(Config{Mode: Careful, Only: []string{TCP}}); err == nil {
		t.Error("careful lets one ask for tcp")
	}
}

func TestAddressesSayWhichCarrier(t *testing.T) {
	key := strings.Repeat("A", 43)
	for s, want := range map[string]string{
		"/ip4/192.0.2.1/tcp/4870":                                                                   TCP,
		"/ip6/2001:db8::1/udp/4870/quic-v1":                                                         QUIC,
		"/dns4/news.example/tcp/443/tls/ws/token/AAAAAAAAAAAAAAAAAAAAAA":                            WSS,
		"/ip4/192.0.2.1/tcp/443/tls/sni/news.example/ws":                                            WSS,
		"/ip4/192.0.2.1/tcp/443/tls/sni/example.com/reality/key/" + key:                             Reality,
		"/ip4/192.0.2.1/tcp/443/pt/obfs4;cert=a%2Fb+c;iat-mode=0":                                   PT,
		"/onion3/vww6ybal4bd7szmgncyruucpgfkqahzddi37ktceo3ah7ngmcopnpyyd:4870":                     Tor,
		"/ip4/192.0.2.1/tcp/1/p2p/12D3KooWLbUqQnBR2DiFMd1kWFkTsJSrbbJyBhPZzHSWSFgBkJ6y/p2p-circuit": Relay,
		"/ip4/192.0.2.1/udp/1/quic-v1/webtransport":                                                 "",
		"/ip4/192.0.2.1/udp/1/webrtc-direct":                                                        "",
	} {
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			t.Errorf("%s: %v", s, err)
			continue
		}
		if got := Name(a); got != want {
			t.Errorf("Name(%s) = %q, want %q", s, got, want)
		}
		if b, err := ma.NewMultiaddrBytes(a.Bytes()); err != nil || !b.Equal(a) || b.String() != a.String() {
			t.Errorf("%s becomes %v over bytes, %v", s, b, err)
		}
		token := Token{1}
		if got := read(WithToken(a, token)); got.token != token {
			t.Errorf("WithToken(%s) has the token %x", s, got.token)
		}
	}
}

func TestLadderPutsFirstWhatWorked(t *testing.T) {
	l := newLadder(Config{Mode: Open, Dir: t.TempDir()})
	here := "home"
	l.network = func() string { return here }
	tcp, wss := ma.StringCast("/ip4/192.0.2.1/tcp/1"), ma.StringCast("/ip4/192.0.2.1/tcp/443/tls/ws")
	first := func() string { return Name(l.Rank([]ma.Multiaddr{wss, tcp})[0].Addr) }
	if got := first(); got != TCP {
		t.Errorf("a new network starts with %s", got)
	}
	l.Worked(wss)
	if got := first(); got != WSS {
		t.Errorf("after WSS worked, %s comes first", got)
	}
	if err := l.save(); err != nil {
		t.Fatal(err)
	}
	again := newLadder(Config{Mode: Open, Dir: strings.TrimSuffix(l.file, "/carriers.json")})
	again.network = l.network
	if name, _ := again.Best(); name != WSS {
		t.Errorf("after a restart %q is known to work", name)
	}
	here = "café"
	if got := first(); got != TCP {
		t.Errorf("another network starts with %s", got)
	}
}

func TestLadderKeepsOffWhatIsCut(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	l := newLadder(Config{Mode: Open})
	l.now, l.network = func() time.Time { return now }, func() string { return "home" }
	a := ma.StringCast("/ip4/192.0.2.1/tcp/443/tls/ws")
	fail := func(err error) { l.Failed(dialError(a, err)) }
	fail(context.Canceled)
	fail(errors.New("connection refused"))
	if l.Shunned(a) {
		t.Error("a closed port and a cancelled attempt are no censor")
	}
	l.Worked(a)
	if fail(&Broken{io.EOF}); l.Shunned(a) {
		t.Error("a place that worked has no second chance")
	}
	fail(&Broken{io.EOF})
	for _, c := range []struct {
		after time.Duration
		want  bool
	}{{0, true}, {184 * time.Second, true}, {250 * time.Second, false}} {
		if now = time.Unix(1_800_000_000, 0).Add(c.after); l.Shunned(a) != c.want {
			t.Errorf("after %v Shunned() = %v", c.after, !c.want)
		}
	}
}

func TestACircuitIsAsSecretAsItsRelay(t *testing.T) {
	const id = "/p2p/12D3KooWLbUqQnBR2DiFMd1kWFkTsJSrbbJyBhPZzHSWSFgBkJ6y/p2p-circuit"
	for a, secret := range map[string]bool{"/ip4/8.1.0.1/tcp/1" + id: false, "/ip4/8.1.0.1/udp/1/quic-v1" + id: false,
		"/ip4/8.1.0.1/tcp/443/tls/sni/news.example/ws" + id: true, "/ip4/8.1.0.1/tcp/1": false, "/ip4/8.1.0.1/tcp/443/tls/ws": true} {
		if got := Secret(ma.StringCast(a)); got != secret {
			t.Errorf("Secret(%s) = %v", a, got)
		}
	}
}
