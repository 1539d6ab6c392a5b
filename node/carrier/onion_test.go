package carrier

import (
	"bytes"
	"log/slog"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/libp2p/go-libp2p"
	ma "github.com/multiformats/go-multiaddr"
)

const testOnion = "vww6ybal4bd7szmgncyruucpgfkqahzddi37ktceo3ah7ngmcopnpyyd"

// tor stands in for the control port of one that can be ended and started again, at the same address.
type tor struct {
	t    *testing.T
	addr string
	l    net.Listener

	accepting, serving sync.WaitGroup

	mu    sync.Mutex // guards the fields below
	conns []*textproto.Conn
	adds  []string // the keys that services were asked for with
}

func startTor(t *testing.T) *tor {
	f := &tor{t: t, addr: "127.0.0.1:0"}
	f.start()
	t.Cleanup(f.stop)
	return f
}

func (f *tor) start() {
	f.t.Helper()
	l, err := net.Listen("tcp", f.addr)
	if err != nil {
		f.t.Fatal(err)
	}
	f.l, f.addr = l, l.Addr().String()
	f.accepting.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c := textproto.NewConn(conn)
			f.mu.Lock()
			f.conns = append(f.conns, c)
			f.mu.Unlock()
			f.serving.Go(func() { f.serve(c) })
		}
	})
}

// stop returns when nobody is connected any more.
func (f *tor) stop() {
	f.l.Close()
	f.accepting.Wait()
	f.mu.Lock()
	for _, c := range f.conns {
		c.Close()
	}
	f.mu.Unlock()
	f.serving.Wait()
}

func (f *tor) serve(c *textproto.Conn) {
	for {
		line, err := c.ReadLine()
		if err != nil {
			return
		}
		word, rest, _ := strings.Cut(line, " ")
		switch word {
		case "PROTOCOLINFO":
			c.PrintfLine("250-PROTOCOLINFO 1\r\n250-AUTH METHODS=NULL\r\n250 OK")
		case "ADD_ONION":
			key, _, _ := strings.Cut(rest, " ")
			f.mu.Lock()
			f.adds = append(f.adds, key)
			f.mu.Unlock()
			c.PrintfLine("250-ServiceID=%s", testOnion)
			if key == "NEW:ED25519-V3" {
				c.PrintfLine("250-PrivateKey=ED25519-V3:c2VjcmV0")
			}
			c.PrintfLine("250 OK")
		default:
			c.PrintfLine("250 OK")
		}
	}
}

func (f *tor) added() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.adds)
}

func TestAnOnionServiceComesBackWhenTorDoes(t *testing.T) {
	f := startTor(t)
	var said bytes.Buffer // read when nothing runs any more
	dir := t.TempDir()
	s, err := New(Config{Mode: Open, Dir: dir, TorControl: f.addr, Log: slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	h, err := libp2p.New(append(s.Options(), libp2p.NoListenAddrs, libp2p.DisableMetrics())...)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Network().Listen(ma.StringCast("/ip4/127.0.0.1/tcp/0/tor")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "carrier-onion.key")
	if raw, err := os.ReadFile(file); err != nil || string(raw) != "ED25519-V3:c2VjcmV0\n" {
		t.Errorf("the key's file holds %q, %v", raw, err)
	}
	if err := os.Remove(file); err != nil { // the name must not hang on it any more
		t.Fatal(err)
	}
	f.stop()
	f.start()
	await(t, "the service to be asked for again", func() bool { return len(f.added()) == 2 })
	if got := f.added(); got[0] != "NEW:ED25519-V3" || got[1] != "ED25519-V3:c2VjcmV0" {
		t.Errorf("asked for with the keys %q", got)
	}
	if got := s.Addresses(); len(got) != 1 || got[0].String() != "/onion3/"+testOnion+":4870" {
		t.Errorf("Addresses() = %v", got)
	}
	f.stop()
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil { // while Tor is away
		t.Error(err)
	}
	if n := strings.Count(said.String(), "the onion service is gone"); n == 0 || n > 2 || strings.Contains(said.String(), "127.0.0.1") {
		t.Errorf("said %d times that the service is gone:\n%s", n, &said)
	}
}

func TestAnOnionServiceNeedsTorAtTheStart(t *testing.T) {
	f := startTor(t)
	f.stop()
	_, h := open(t, Config{TorControl: f.addr})
	err := h.Network().Listen(ma.StringCast("/ip4/127.0.0.1/tcp/0/tor"))
	if err == nil || !strings.Contains(err.Error(), "Tor's control port") {
		t.Errorf("without Tor, listening says %v", err)
	}
}
