package lab

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/quic-go/quic-go"
)

func TestMain(m *testing.M) {
	Main(map[string]func([]string){"serve": serve, "call": call})
	os.Exit(m.Run())
}

func certificate() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	must(err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// serve is a server of everything that the tests call: echo on TCP 443 and 9000, libp2p's greeting on 4001, TLS on 444,
// QUIC on 443, DNS on 53, UDP echo on 9000.
func serve([]string) {
	echo := func(l net.Listener, err error, first string) {
		must(err)
		for {
			conn, err := l.Accept()
			must(err)
			go func() { io.WriteString(conn, first); io.Copy(conn, conn); conn.Close() }()
		}
	}
	listen := func(port string) (net.Listener, error) { return net.Listen("tcp", ":"+port) }
	cfg := &tls.Config{Certificates: []tls.Certificate{certificate()}, NextProtos: []string{"http/1.1", "libp2p", "h3"}}
	for _, port := range []string{"443", "9000"} {
		l, err := listen(port)
		go echo(l, err, "")
	}
	l, err := listen("4001")
	go echo(l, err, "\x13/multistream/1.0.0\n")
	l, err = tls.Listen("tcp", ":444", cfg)
	go echo(l, err, "")
	q, err := quic.ListenAddr(":443", cfg, nil)
	must(err)
	go func() {
		for {
			_, err := q.Accept(context.Background())
			must(err)
		}
	}()
	u, err := net.ListenPacket("udp", ":9000")
	must(err)
	go func() {
		b := make([]byte, 2000)
		for {
			n, from, err := u.ReadFrom(b)
			must(err)
			u.WriteTo(b[:n], from)
		}
	}()
	d := &dns.Server{Addr: ":53", Net: "udp", NotifyStartedFunc: func() { fmt.Println("up") }, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		a := new(dns.Msg).SetReply(q)
		rr, err := dns.NewRR(q.Question[0].Name + " 60 IN A 192.0.2.7")
		must(err)
		a.Answer = append(a.Answer, rr)
		w.WriteMsg(a)
	})}
	must(d.ListenAndServe())
}

// call tries one thing and prints "ok", or why not. args: what, host:port, detail.
func call(args []string) {
	if err := try(args[0], args[1], args[2]); err != nil {
		fmt.Println("no:", err)
		return
	}
	fmt.Println("ok")
}

func try(what, to, detail string) error {
	const patience = 1500 * time.Millisecond
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tlsConfig := &tls.Config{InsecureSkipVerify: true}
	if name, ok := strings.CutPrefix(detail, "name="); ok {
		tlsConfig.ServerName, tlsConfig.NextProtos = name, []string{"h3", "http/1.1"}
	} else {
		tlsConfig.NextProtos = []string{detail}
	}
	switch what {
	case "quic":
		conn, err := quic.DialAddr(ctx, to, tlsConfig, nil)
		if err == nil {
			conn.CloseWithError(0, "")
		}
		return err
	case "dns":
		a, _, err := new(dns.Client).ExchangeContext(ctx, new(dns.Msg).SetQuestion(detail, dns.TypeA), to)
		if err == nil && !strings.Contains(a.String(), "192.0.2.7") {
			err = fmt.Errorf("a false answer: %v", a.Answer)
		}
		return err
	}
	network := "tcp"
	if what == "udp" {
		network = "udp"
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, to)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	if what == "tls" {
		return tls.Client(conn, tlsConfig).HandshakeContext(ctx)
	}
	if n, err := strconv.Atoi(detail); err == nil && what == "bytes" {
		detail = strings.Repeat("a", n)
	}
	if digits, ok := strings.CutPrefix(detail, "hex="); ok {
		b, err := hex.DecodeString(digits)
		must(err)
		detail = string(b)
	}
	if detail == "random" {
		b := make([]byte, 200)
		rand.Read(b)
		for i := range b { // half of the bits are set, whatever chance says
			b[i] = []byte{0xaa, 0x55, 0xcc, 0x99}[i%4] ^ 0x80*byte(i&1)
		}
		detail = string(b)
	}
	go io.WriteString(conn, detail)
	_, err = io.ReadFull(bufio.NewReader(conn), make([]byte, len(detail)))
	return err
}

func world(rules ...Rule) World {
	return World{
		Links: []Link{{Name: "home", Country: "x"}, {Name: "office", Country: "x"}, {Name: "abroad"}},
		Hosts: []Host{{Name: "user", Link: "home"}, {Name: "neighbour", Link: "home"}, {Name: "colleague", Link: "office"},
			{Name: "server", Link: "abroad"}},
		Censor: rules,
	}
}

// start brings up a world with servers everywhere but at the user's.
func start(t *testing.T, w World) *Net {
	t.Helper()
	n := Start(t, w)
	for _, h := range w.Hosts {
		if h.Name == "user" {
			continue
		}
		cmd := n.Host(h.Name).Func(t.Context(), "serve")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		if line, err := bufio.NewReader(out).ReadString('\n'); line != "up\n" {
			t.Fatalf("a server did not come up: %q, %v", line, err)
		}
	}
	return n
}

// got is what the user gets.
func got(t *testing.T, n *Net, what, host, port, detail string) string {
	t.Helper()
	out, err := n.Host("user").Func(t.Context(), "call", what, net.JoinHostPort(n.Host(host).Addr().String(), port), detail).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestRulesBlockWhatTheySayAndNothingElse(t *testing.T) {
	type flow struct{ what, port, detail string }
	hello, other := flow{"echo", "9000", "hello"}, flow{"udp", "9000", "hello"}
	for _, c := range []struct {
		name     string
		rules    []Rule
		passes   []flow
		blocked  []flow
		anywhere bool
	}{
		{"nothing", nil, []flow{hello, other, {"tls", "444", "libp2p"}, {"quic", "443", "libp2p"}, {"dns", "53", "a.example."}, {"echo", "443", "random"}}, nil, false},
		{"strings", []Rule{DropStrings("/multistream/")}, []flow{hello}, []flow{{"echo", "9000", "x/multistream/1.0.0"}, {"echo", "4001", "hi"}}, false},
		{"strings reset", []Rule{ResetStrings("secret")}, []flow{hello}, []flow{{"echo", "9000", "a secret"}}, false},
		{"libp2p in TLS", []Rule{BlockLibp2pTLS()}, []flow{hello, {"tls", "444", "http/1.1"}}, []flow{{"tls", "444", "libp2p"}}, false},
		{"libp2p in QUIC", []Rule{BlockLibp2pQUIC()}, []flow{other, {"quic", "443", "name=a.example"}}, []flow{{"quic", "443", "libp2p"}, {"quic", "443", "h3"}}, false},
		{"STUN", []Rule{BlockSTUN()}, []flow{other}, []flow{{"udp", "9000", "hex=000100102112a442" + hex.EncodeToString([]byte("012345678901libp2p+webrtc+v1/x"))}}, false},
		{"SNI", []Rule{BlockSNI("bad.example")}, []flow{{"tls", "444", "name=good.example"}, {"quic", "443", "name=good.example"}},
			[]flow{{"tls", "444", "name=www.bad.example"}, {"quic", "443", "name=bad.example"}}, false},
		{"DNS", []Rule{PoisonDNS("10.10.10.10", "bad.example")}, []flow{{"dns", "53", "good.example."}}, []flow{{"dns", "53", "www.bad.example."}}, false},
		{"address", []Rule{BlockIP("10.3.0.1:9000")}, []flow{{"echo", "443", "x"}}, []flow{hello, other}, false},
		{"fully encrypted", []Rule{FullyEncrypted()}, []flow{hello, {"tls", "444", "http/1.1"}}, []flow{{"echo", "443", "random"}, {"echo", "443", "hello again"}}, false},
		{"allowlist", []Rule{Allowlist()}, []flow{{"dns", "53", "a.example."}, {"echo", "443", "\x16\x03\x01 looks like TLS"}},
			[]flow{hello, other, {"echo", "443", "hello"}, {"quic", "443", "name=a.example"}, {"tls", "444", "http/1.1"}}, false},
		{"UDP off", []Rule{NoUDP()}, []flow{hello, {"dns", "53", "a.example."}}, []flow{other, {"quic", "443", "h3"}}, false},
		{"freeze", []Rule{Freeze(16 << 10)}, []flow{{"bytes", "9000", "8000"}}, []flow{{"bytes", "9000", "60000"}}, false},
		{"throttle", []Rule{Throttle(20_000)}, []flow{hello}, []flow{{"bytes", "9000", "200000"}}, false},
		{"border cut", []Rule{CutBorder()}, nil, []flow{hello, other}, false},
		{"all cut", []Rule{CutAll()}, nil, []flow{hello, other}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n := start(t, world(c.rules...))
			for _, f := range c.passes {
				if out := got(t, n, f.what, "server", f.port, f.detail); out != "ok" {
					t.Errorf("%v: %s, want it to pass", f, out)
				}
			}
			for _, f := range c.blocked {
				if out := got(t, n, f.what, "server", f.port, f.detail); out == "ok" {
					t.Errorf("%v passes", f)
				}
			}
			inland := got(t, n, "echo", "colleague", "9000", "hello") == "ok"
			if inland == c.anywhere {
				t.Errorf("inside the country: %v", inland)
			}
			if out := got(t, n, "echo", "neighbour", "9000", "hello"); out != "ok" {
				t.Errorf("on the local network: %s", out)
			}
			verdicts := 0
			for _, f := range n.Flows() {
				if f.Verdict != "" {
					verdicts++
				}
			}
			if len(c.blocked) > 0 && !c.anywhere && verdicts == 0 {
				t.Error("the log tells of no verdict")
			}
		})
	}
}

func TestTheProberFindsLibp2p(t *testing.T) {
	t.Parallel()
	n := start(t, world(Probe()))
	if out := got(t, n, "echo", "server", "4001", "hi"); out != "ok" && !strings.Contains(out, "timeout") {
		t.Fatal(out)
	}
	got(t, n, "echo", "server", "9000", "hi")
	end := time.Now().Add(20 * time.Second)
	for got(t, n, "bytes", "server", "4001", "20") == "ok" {
		if time.Now().After(end) {
			t.Fatal("a libp2p server is not blocked after 20 s")
		}
	}
	if out := got(t, n, "echo", "server", "9000", "hi"); out != "ok" {
		t.Errorf("a server that says nothing of libp2p: %s", out)
	}
}

func TestRulesCanChange(t *testing.T) {
	t.Parallel()
	n := start(t, world())
	for range 2 {
		n.SetCensor(CutBorder())
		if out := got(t, n, "echo", "server", "9000", "hi"); out == "ok" {
			t.Error("the cut is none")
		}
		n.SetCensor()
		if out := got(t, n, "echo", "server", "9000", "hi"); out != "ok" {
			t.Errorf("after the cut: %s", out)
		}
	}
}

func TestLinksHaveTheirProperties(t *testing.T) {
	t.Parallel()
	w := world()
	w.Links[0].Latency, w.Links[2].Latency, w.Links[1].Firewalled = 50*time.Millisecond, 50*time.Millisecond, true
	n := start(t, w)
	begin := time.Now()
	if out := got(t, n, "echo", "server", "9000", "hi"); out != "ok" {
		t.Error(out)
	}
	if d := time.Since(begin); d < 400*time.Millisecond {
		t.Errorf("two round trips of 200 ms took %v", d)
	}
	if out := got(t, n, "echo", "colleague", "9000", "hi"); out == "ok" {
		t.Error("the firewall lets in")
	}
}

func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		Start(b, world())
	}
}
