package e2e

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// visit is what a prober does to a server: it says something in clear, or offers TLS and says something inside.
type visit struct {
	Name   string
	At     string   // host:port
	Say    [][]byte // each is one segment
	Hello  *offer   // nil: no TLS
	Inside []byte
}

type offer struct {
	Name string // SNI
	ALPN []string
	Max  uint16 // version
}

// finding is what a prober notes of the answer.
type finding struct {
	Heard   int      // bytes
	Clear   string   // what is no TLS, without its date
	Records []record // of an answer in TLS, when nothing was said inside
	TLS     string
	Inside  string // what was said back inside, without its date
	End     string
	Libp2p  bool // a greeting of libp2p's was in it
}

type record struct {
	Kind, Len int
	Alert     string
}

const (
	// visitTime is how long a prober waits for the end of a connection, and atOnce how long it takes to be one that came
	// without waiting, on a busy machine.
	visitTime = 5 * time.Second
	atOnce    = 2500 * time.Millisecond
)

// probe makes the visits in a file and prints what it found.
func probe(args []string) {
	raw, err := os.ReadFile(args[0])
	if err != nil {
		panic(err)
	}
	var visits []visit
	if err := json.Unmarshal(raw, &visits); err != nil {
		panic(err)
	}
	found := make([]finding, len(visits))
	var all sync.WaitGroup
	slots := make(chan struct{}, 128)
	for i, v := range visits {
		slots <- struct{}{}
		all.Go(func() {
			found[i] = v.pay()
			<-slots
		})
	}
	all.Wait()
	json.NewEncoder(os.Stdout).Encode(found)
}

// ear keeps all that is heard on a connection.
type ear struct {
	net.Conn
	heard bytes.Buffer
}

func (e *ear) Read(b []byte) (int, error) {
	n, err := e.Conn.Read(b)
	e.heard.Write(b[:n])
	return n, err
}

func (v visit) pay() (f finding) {
	conn, err := net.DialTimeout("tcp", v.At, visitTime)
	if err != nil {
		return finding{End: "no connection: " + err.Error()}
	}
	defer conn.Close()
	e := &ear{Conn: conn}
	for _, s := range v.Say {
		conn.Write(s) // it may have been enough for the server already
	}
	said := time.Now()
	conn.SetDeadline(said.Add(visitTime))
	var inside []byte
	if v.Hello != nil {
		f.TLS, inside = v.talk(e)
	}
	_, err = io.Copy(io.Discard, e)
	f.End = end(err, time.Since(said))
	if err == nil && deaf(conn) {
		f.End += ", deaf"
	}
	f.Heard = e.heard.Len()
	f.Libp2p = bytes.Contains(append(inside, e.heard.Bytes()...), []byte("/multistream/"))
	switch {
	case v.Inside != nil && strings.HasSuffix(f.TLS, "h2"):
		f.Inside = frames(inside)
	case v.Inside != nil:
		f.Inside = undated(inside)
	default:
		f.Records, f.Clear = records(e.heard.Bytes())
	}
	return f
}

// talk offers TLS, says what is to be said inside, and listens to the end.
func (v visit) talk(e *ear) (outcome string, inside []byte) {
	t := tls.Client(e, &tls.Config{InsecureSkipVerify: true, ServerName: v.Hello.Name, NextProtos: v.Hello.ALPN,
		MinVersion: tls.VersionTLS10, MaxVersion: v.Hello.Max})
	if err := t.Handshake(); err != nil {
		var op *net.OpError // with addresses
		if errors.As(err, &op) {
			err = op.Err
		}
		return err.Error(), nil
	}
	t.Write(v.Inside)
	inside, err := io.ReadAll(t)
	s := t.ConnectionState()
	outcome = fmt.Sprintf("%s %s", tls.VersionName(s.Version), tls.CipherSuiteName(s.CipherSuite))
	if err == nil {
		outcome += ", ended well" // by close_notify
	}
	return outcome + ", " + s.NegotiatedProtocol, inside
}

// deaf reports whether a server that has ended the connection refuses to hear more. Web servers hear for half a second.
func deaf(conn net.Conn) bool {
	conn.SetDeadline(time.Time{})
	time.Sleep(time.Second)
	conn.Write([]byte{0})
	time.Sleep(time.Second)
	_, err := conn.Write([]byte{0})
	return err != nil
}

func end(err error, after time.Duration) string {
	how := "closed"
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "open"
	case errors.Is(err, syscall.ECONNRESET):
		how = "reset"
	case err != nil:
		return err.Error()
	}
	if after > atOnce {
		return how + " later"
	}
	return how + " at once"
}

// records reads an answer as TLS, if it is that.
func records(b []byte) (all []record, clear string) {
	for rest := b; len(rest) > 0; {
		if len(rest) < 5 || rest[0] < 20 || rest[0] > 23 || rest[1] != 3 {
			return nil, undated(b)
		}
		r := record{Kind: int(rest[0]), Len: int(binary.BigEndian.Uint16(rest[3:]))}
		rest = rest[5:]
		if r.Kind == 21 && r.Len == 2 && len(rest) >= 2 {
			r.Alert = fmt.Sprintf("alert %d/%d", rest[0], rest[1])
		}
		rest = rest[min(r.Len, len(rest)):]
		all = append(all, r)
	}
	return all, ""
}

var date = regexp.MustCompile(`(?m)^Date: .*\r\n`)

func undated(b []byte) string { return date.ReplaceAllString(string(b), "") }

// frames lists HTTP/2's (RFC 9113), sorted; of headers, whose length changes with the date, only that they came.
func frames(b []byte) string {
	var all []string
	for len(b) >= 9 {
		n := int(b[0])<<16 | int(binary.BigEndian.Uint16(b[1:]))
		what := fmt.Sprintf("frame %d flags %d", b[3], b[4])
		body := b[9:min(9+n, len(b))]
		if b[3] != 1 {
			what += fmt.Sprintf(" %q", body)
		}
		all = append(all, what)
		b = b[9+len(body):]
	}
	slices.Sort(all)
	return strings.Join(append(all, fmt.Sprintf("%d more", len(b))), "; ")
}

// upgrade asks for a web socket.
func upgrade(path string) []byte {
	return []byte("GET " + path + " HTTP/1.1\r\nHost: news.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
}

func ask(method, path, rest string) []byte {
	return []byte(method + " " + path + " HTTP/1.1\r\nHost: news.example\r\n" + rest + "\r\n")
}

// visits are all that a prober tries which has seen nothing; name is the server's. Their random bytes are the seed's.
func visits(name string, seed uint64) []visit {
	r := rand.New(rand.NewPCG(seed, 0))
	noise := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	token := "/" + base64.RawURLEncoding.EncodeToString(noise(16))
	all := []visit{{Name: "wait"}}
	for _, n := range []int{1, 16, 64, 500, 4096} {
		all = append(all, visit{Name: fmt.Sprintf("garbage, %d bytes", n), Say: [][]byte{noise(n)}})
	}
	record := append([]byte{22, 3, 1, 2, 0}, noise(512)...)
	all = append(all, visit{Name: "garbage in a record", Say: [][]byte{record}},
		visit{Name: "record too long", Say: [][]byte{append([]byte{22, 3, 1, 0xff, 0xff}, noise(100)...)}},
		visit{Name: "alert", Say: [][]byte{{21, 3, 1, 0, 2, 2, 40}}})
	requests := []visit{
		{Name: "GET /", Inside: ask("GET", "/", "")},
		{Name: "GET a token", Inside: ask("GET", token, "")},
		{Name: "web socket on /", Inside: upgrade("/")},
		{Name: "web socket on a token", Inside: upgrade(token)},
		{Name: "web socket on a token, no key", Inside: ask("GET", token, "Connection: Upgrade\r\nUpgrade: websocket\r\n")},
		{Name: "web socket by POST", Inside: bytes.Replace(upgrade(token), []byte("GET"), []byte("POST"), 1)},
		{Name: "POST", Inside: ask("POST", "/", "Content-Length: 3\r\n") /* and no body */},
		{Name: "HEAD", Inside: ask("HEAD", "/", "Connection: close\r\n")},
		{Name: "OPTIONS *", Inside: ask("OPTIONS", "*", "")},
		{Name: "long path", Inside: ask("GET", "/"+strings.Repeat("a", 9000), "")},
		{Name: "malformed", Inside: []byte("GET / FTP/9\r\n\r\n")},
		{Name: "half a request", Inside: []byte("GET / HTTP/1.1\r\nHost: ")},
		{Name: "libp2p's greeting", Inside: []byte("\x13/multistream/1.0.0\n")},
	}
	for _, v := range requests {
		all = append(all, visit{Name: "in clear: " + v.Name, Say: [][]byte{v.Inside}})
		v.Name, v.Hello = "in TLS: "+v.Name, &offer{Name: name, ALPN: []string{"http/1.1"}}
		all = append(all, v)
	}
	return append(all, hellos(name)...)
}

// hellos are offers of TLS, and HTTP/2 inside.
func hellos(name string) []visit {
	h2 := &offer{Name: name, ALPN: []string{"h2", "http/1.1"}}
	get := []byte{0, 0, 3, 1, 5, 0, 0, 0, 1, 0x82, 0x84, 0x87} // its headers, in RFC 7541's static table
	return []visit{
		{Name: "hello without a name", Hello: &offer{ALPN: []string{"h2", "http/1.1"}}},
		{Name: "hello with the name", Hello: h2},
		{Name: "hello with another name", Hello: &offer{Name: "other.example", ALPN: []string{"h2", "http/1.1"}}},
		{Name: "hello without ALPN", Hello: &offer{Name: name}},
		{Name: "hello with libp2p", Hello: &offer{Name: name, ALPN: []string{"/yamux/1.0.0", "libp2p"}}},
		{Name: "hello of TLS 1.2", Hello: &offer{Name: name, ALPN: []string{"h2"}, Max: tls.VersionTLS12}},
		{Name: "hello of TLS 1.0", Hello: &offer{Name: name, Max: tls.VersionTLS10}},
		{Name: "HTTP/2", Hello: h2, Inside: append([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"), get...)},
	}
}
