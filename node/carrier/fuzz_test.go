package carrier

import (
	"bufio"
	"bytes"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
)

func dialError(a ma.Multiaddr, cause error) error {
	return &swarm.DialError{DialErrors: []swarm.TransportError{{Address: a, Cause: cause}}}
}

// FuzzAddress reads addresses as invites and lists bring them.
func FuzzAddress(f *testing.F) {
	for _, s := range []string{"/ip4/192.0.2.1/tcp/1", "/dns4/a.example/tcp/443/tls/ws/token/AAAAAAAAAAAAAAAAAAAAAA",
		"/ip4/192.0.2.1/tcp/443/tls/sni/example.com/reality", "/ip4/192.0.2.1/tcp/443/pt/obfs4;cert=x"} {
		f.Add(ma.StringCast(s).Bytes())
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, err := ma.NewMultiaddrBytes(raw)
		if err != nil {
			return
		}
		name := Name(a)
		if bare := WithoutToken(a); Name(bare) != name {
			t.Errorf("%s is %q with its token and %q without", a, name, Name(bare))
		}
		if again, err := ma.NewMultiaddr(a.String()); err == nil && !bytes.Equal(again.Bytes(), a.Bytes()) {
			t.Logf("%s is not read as it is written", a) // a fault of some protocol that is not ours
		}
	})
}

// FuzzProgram reads what a pluggable transport's program prints.
func FuzzProgram(f *testing.F) {
	f.Add("VERSION 1\nCMETHOD obfs4 socks5 127.0.0.1:1\nCMETHODS DONE\n")
	f.Add("VERSION 1\nSMETHOD obfs4 0.0.0.0:1 ARGS:cert=x,iat-mode=0\nSMETHODS DONE\n")
	f.Add("ENV-ERROR no\n")
	f.Fuzz(func(t *testing.T, out string) {
		words := 0
		err := handshake(bufio.NewScanner(strings.NewReader(out)), func(word string, rest []string) (bool, error) {
			words++
			return word == "CMETHODS", nil
		})
		if err == nil && words == 0 {
			t.Errorf("%q says where to go without a word", out)
		}
	})
}

// FuzzRandomIn reads the beginning of a stream, whole and as it grows.
func FuzzRandomIn(f *testing.F) {
	hello := append([]byte{1, 0, 0, 38, 3, 3}, bytes.Repeat([]byte{7}, 32)...)
	f.Add(append([]byte{22, 3, 1, 0, 38}, hello...), 20)
	f.Add(append([]byte{21, 3, 3, 0, 2, 1, 0, 22, 3, 1, 0, 38}, hello...), 9)
	f.Add([]byte{22, 3, 1, 0, 1, 1, 22, 3, 1, 0, 1, 0}, 6)
	f.Fuzz(func(t *testing.T, stream []byte, cut int) {
		whole, ok := randomIn(stream)
		if cut < 0 || cut > len(stream) {
			return
		}
		part, early := randomIn(stream[:cut])
		if early && (!ok || part != whole) {
			t.Errorf("%x has the random %x, and its beginning %x", stream, whole, part)
		}
		if ok && len(stream) < 5+6+len(whole) {
			t.Errorf("%x is too short for a hello", stream)
		}
	})
}
