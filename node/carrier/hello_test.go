package carrier

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

// tap passes connections on to a place and keeps what came back on each.
type tap struct {
	net.Listener
	to string

	mu   sync.Mutex
	down [][]byte
}

func newTap(t *testing.T, to string) *tap {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &tap{Listener: l, to: to}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go p.pass(conn)
		}
	}()
	t.Cleanup(func() { l.Close() })
	return p
}

func (p *tap) pass(conn net.Conn) {
	defer conn.Close()
	out, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer out.Close()
	go func() {
		io.Copy(out, conn)
		out.Close()
	}()
	p.mu.Lock()
	i := len(p.down)
	p.down = append(p.down, nil)
	p.mu.Unlock()
	buf := make([]byte, 16<<10)
	for {
		n, err := out.Read(buf)
		p.mu.Lock()
		p.down[i] = append(p.down[i], buf[:n]...)
		p.mu.Unlock()
		conn.Write(buf[:n])
		if err != nil {
			return
		}
	}
}

// said reports whether the place answered so on any connection.
func (p *tap) said(what []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.down, func(b []byte) bool { return bytes.Equal(b, what) })
}

// realityBridge returns where a bridge before a tapped cover site listens, with a token that is good there.
func realityBridge(t *testing.T) (place, *tap) {
	t.Helper()
	site := newTap(t, cover(t))
	l := &ledger{guest: map[Token]bool{}}
	bridge, _ := open(t, Config{Cover: site.Addr().String(), Admit: l.admit, Tokens: l.tokens}, "/ip4/127.0.0.1/tcp/0/tls/sni/example.com/reality")
	return read(WithToken(bridge.Addresses()[0], l.issue(false))), site
}

// memberHello is the first flight of a member, who is never answered.
func memberHello(t *testing.T, p place) []byte {
	t.Helper()
	mine, theirs := net.Pipe()
	go func() {
		realityHello(t.Context(), mine, p)
	}()
	defer mine.Close()
	head := make([]byte, 5)
	if _, err := io.ReadFull(theirs, head); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, binary.BigEndian.Uint16(head[3:]))
	if _, err := io.ReadFull(theirs, body); err != nil {
		t.Fatal(err)
	}
	return append(head, body...)
}

// answer sends segments and returns what comes back until nothing more does.
func answer(t *testing.T, p place, segments ...[]byte) (heard []byte) {
	t.Helper()
	conn, err := net.Dial("tcp", p.address())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, s := range segments {
		if _, err := conn.Write(s); err != nil {
			t.Fatal(err)
		}
	}
	wait, buf := 20*time.Second, make([]byte, 16<<10)
	for {
		conn.SetReadDeadline(time.Now().Add(wait))
		n, err := conn.Read(buf)
		heard = append(heard, buf[:n]...)
		if err != nil {
			return heard
		}
		wait = time.Second
	}
}

func TestAReplayedHelloIsAStrangers(t *testing.T) {
	p, site := realityBridge(t)
	hello := memberHello(t, p)
	if heard := answer(t, p, hello); len(heard) < 1000 || site.said(heard) {
		t.Fatalf("a member's hello gets %d bytes, which the cover site sent: %v", len(heard), site.said(heard))
	}
	half := len(hello) / 2
	record := func(kind byte, body []byte) []byte {
		return append(binary.BigEndian.AppendUint16([]byte{kind, 3, 1}, uint16(len(body))), body...)
	}
	for name, segments := range map[string][][]byte{
		"as it was":            {hello},
		"byte by byte":         slices.Collect(slices.Chunk(hello, 1)),
		"in two records":       {record(22, hello[5:half]), record(22, hello[half:])},
		"the random in two":    {record(22, hello[5:25]), record(22, hello[25:])},
		"behind a weak alert":  {record(21, []byte{1, 90}), hello},
		"and with more behind": {hello, record(20, []byte{1}), record(23, make([]byte, 53))},
		"in records of one byte": slices.Collect(func(yield func([]byte) bool) {
			for _, b := range hello[5:] {
				if !yield(record(22, []byte{b})) {
					return
				}
			}
		}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if heard := answer(t, p, segments...); len(heard) < 1000 || !site.said(heard) {
				t.Errorf("%d bytes came that are not the cover site's", len(heard))
			}
		})
	}
}

func TestAHelloInPiecesLetsIn(t *testing.T) {
	p, site := realityBridge(t)
	for _, size := range []int{1, 7, 500} {
		if heard := answer(t, p, slices.Collect(slices.Chunk(memberHello(t, p), size))...); len(heard) < 1000 || site.said(heard) {
			t.Errorf("a member's hello in pieces of %d gets %d bytes, which the cover site sent: %v", size, len(heard), site.said(heard))
		}
	}
}

func TestHellosAreForgotten(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	h := newHellos(func() time.Time { return now })
	nth := func(i int) (r random) {
		binary.BigEndian.PutUint32(r[:], uint32(i))
		return r
	}
	if !h.claim(nth(0)) || h.claim(nth(0)) {
		t.Error("two claimed one hello at the same time, or none could")
	}
	h.settle(nth(0), false)
	if !h.claim(nth(0)) {
		t.Error("a hello that let nobody in is remembered")
	}
	h.settle(nth(0), true)
	for i := range maxHellos {
		if !h.claim(nth(i + 1)) {
			t.Fatalf("the %dth hello is not new", i+1)
		}
		h.settle(nth(i+1), true)
	}
	if len(h.known) != maxHellos || len(h.order) != maxHellos || h.claim(nth(1)) || h.claim(nth(maxHellos)) {
		t.Errorf("%d are known, %d in order; the newest %d should be", len(h.known), len(h.order), maxHellos)
	}
	now = now.Add(2*clockSkew + time.Second)
	if !h.claim(nth(1)) || len(h.known) != 1 || len(h.order) != 0 {
		t.Errorf("%d hellos are remembered beyond their time", len(h.known))
	}
}

// TestStrangersMeetTheSitesEnd has a cover site break off, end and hear more, and end and hear nothing.
func TestStrangersMeetTheSitesEnd(t *testing.T) {
	for how, end := range map[string]func(*net.TCPConn){
		"reset": func(c *net.TCPConn) { c.SetLinger(0); c.Close() },
		"deaf":  func(c *net.TCPConn) { c.Close() },
		"open":  func(c *net.TCPConn) { c.CloseWrite(); io.Copy(io.Discard, c) },
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			site, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer site.Close()
			go func() {
				for {
					conn, err := site.Accept()
					if err != nil {
						return
					}
					conn.SetReadDeadline(time.Now().Add(time.Second)) // the bridge learns nothing of how it looks
					conn.Read(make([]byte, 1<<10))
					conn.SetReadDeadline(time.Time{})
					conn.Write([]byte("no"))
					time.Sleep(50 * time.Millisecond) // so that it is heard before a reset
					go end(conn.(*net.TCPConn))
				}
			}()
			bridge, _ := open(t, Config{Cover: site.Addr().String()}, "/ip4/127.0.0.1/tcp/0/tls/sni/example.com/reality")
			conn, err := net.Dial("tcp", read(bridge.Addresses()[0]).address())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(20 * time.Second))
			conn.Write([]byte("hello"))
			heard, err := io.ReadAll(conn)
			got := "open"
			if errors.Is(err, syscall.ECONNRESET) {
				got = "reset"
			}
			for end := time.Now().Add(time.Second); got == "open" && time.Now().Before(end); time.Sleep(300 * time.Millisecond) {
				if _, err := conn.Write([]byte("more")); err != nil {
					got = "deaf"
				}
			}
			if got != how || string(heard) != "no" {
				t.Errorf("a stranger hears %q and finds it %s, want %s", heard, got, how)
			}
		})
	}
}
