package carrier

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	ma "github.com/multiformats/go-multiaddr"
)

// listener runs serve for every connection to a port of this machine, and returns the port.
func listener(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn)
			}()
		}
	}()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// cutsNames is a censor's box in front of a site: what names somebody is cut, and the rest is answered with an alert.
func cutsNames(conn net.Conn) {
	hello := make([]byte, 4096)
	n, err := conn.Read(hello)
	if err != nil {
		return
	}
	for i := range n - 4 {
		if string(hello[i:i+4]) == "news" {
			return
		}
	}
	conn.Write([]byte{21, 3, 3, 0, 2, 2, 40}) // handshake_failure
}

func TestExplainTellsCausesApart(t *testing.T) {
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, closed, _ := net.SplitHostPort(nobody.Addr().String())
	nobody.Close()
	silent := listener(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	censored := listener(t, cutsNames)
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/udp/0/quic-v1"), libp2p.DisableMetrics())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	failed := errors.New("it failed")
	s, err := New(Config{Mode: Open, Dir: t.TempDir(), TorSOCKS: "127.0.0.1:" + closed})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, addr string
		err        error
		want       Cause
	}{
		{"a closed port", "/ip4/127.0.0.1/tcp/" + closed, failed, Closed},
		{"libp2p that is answered by nothing", "/ip4/127.0.0.1/tcp/" + silent, failed, Recognised},
		{"random bytes that are answered by nothing", "/ip4/127.0.0.1/tcp/" + silent + "/pt/obfs4", failed, LooksRandom},
		{"a hello that is answered by nothing", "/ip4/127.0.0.1/tcp/" + silent + "/tls/sni/news.example/ws", failed, HelloCut},
		{"a hello whose name is cut", "/ip4/127.0.0.1/tcp/" + censored + "/tls/sni/news.example/ws", failed, NameBlocked},
		{"a site that does not let us in", "/ip4/127.0.0.1/tcp/" + censored + "/tls/sni/news.example/ws", errors.Join(failed, errNotLetIn), NotLetIn},
		{"QUIC that is known by its hello", h.Addrs()[0].String(), failed, Recognised},
		{"QUIC where nobody listens", "/ip4/127.0.0.1/udp/" + closed + "/quic-v1", failed, Closed},
		{"a name that nobody may be asked for", "/dns4/bridge.example/tcp/443/tls/ws", failed, NoName},
		{"no Tor", "/onion3/" + "vww6ybal4bd7szmgncyruucpgfkqahzddi37ktceo3ah7ngmcopnpyyd" + ":4870", failed, NoTor},
		{"what works", "/ip4/127.0.0.1/tcp/" + silent, nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			if got := s.Explain(ctx, ma.StringCast(c.addr), func() error { return c.err }); got != c.want {
				t.Errorf("Explain() = %q, want %q", got, c.want)
			}
		})
	}
}
