package api

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

func TestForeignPagesGetNotAByte(t *testing.T) {
	const page = "https://evil.example"
	daemon := serve(t, newFake(), func(c *Config) { c.AllowOrigins, c.AllowHosts = []string{"https://good.example"}, []string{"box.lan"} })
	relay := serve(t, newFake(), func(c *Config) { c.Public, c.Owner = true, nil })
	for _, x := range []struct {
		name    string
		d       *door
		path    string
		header  string // lines after the request line, without Host
		host    string
		allowed bool
	}{
		{"a program", daemon, "/healthz", "", "127.0.0.1:4869", true},
		{"localhost", daemon, "/healthz", "", "localhost:4869", true},
		{"IPv6", daemon, "/healthz", "", "[::1]:4869", true},
		{"DNS rebinding", daemon, "/healthz", "", "evil.example:4869", false},
		{"another address", daemon, "/healthz", "", "192.168.1.7:4869", false},
		{"a name like ours", daemon, "/healthz", "", "localhost.evil.example", false},
		{"an allowed name", daemon, "/healthz", "", "box.lan:4869", true},
		{"a foreign page", daemon, "/healthz", "Origin: " + page, "127.0.0.1:4869", false},
		{"a sandboxed page", daemon, "/healthz", "Origin: null", "127.0.0.1:4869", false},
		{"a page of another port here", daemon, "/healthz", "Origin: http://127.0.0.1:8080", "127.0.0.1:4869", false},
		{"our own page", daemon, "/healthz", "Origin: http://127.0.0.1:4869", "127.0.0.1:4869", true},
		{"an allowed page", daemon, "/healthz", "Origin: https://good.example", "127.0.0.1:4869", true},
		{"an image in a foreign page", daemon, "/healthz", "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors", "127.0.0.1:4869", false},
		{"a page on another port of this name", daemon, "/", "Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: no-cors", "127.0.0.1:4869", false},
		{"a link that the user clicked", daemon, "/", "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document", "127.0.0.1:4869", true},
		{"a frame in a foreign page", daemon, "/", "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: iframe", "127.0.0.1:4869", false},
		{"an address that the user typed", daemon, "/", "Sec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document", "127.0.0.1:4869", true},
		{"DNS rebinding to a relay's metrics", relay, "/metrics", "", "evil.example", false},
		{"any page at a relay", relay, "/", "Origin: " + page, "relay.example", true},
		{"a page at a relay's metrics", relay, "/metrics", "Origin: " + page, "relay.example", false},
		{"a page at a relay's API", relay, "/api/v1/status", "Origin: " + page, "relay.example", false},
	} {
		got := x.d.raw("GET " + x.path + " HTTP/1.1\r\nHost: " + x.host + "\r\nConnection: close\r\n" + x.header + strings.Repeat("\r\n", 1+min(1, len(x.header))))
		if allowed := strings.HasPrefix(got, "HTTP/1.1 200"); allowed != x.allowed || !allowed && got != "" {
			t.Errorf("%s: %d bytes came back, allowed %v, want %v:\n%s", x.name, len(got), allowed, x.allowed, got)
		}
	}
	daemon.stop()
	if text := daemon.log.String(); strings.Contains(text, "evil") || strings.Count(text, "--allow-origin") != 1 {
		t.Errorf("the log names the page, or not the way out once: %s", text)
	}
}

// raw writes text to the port and returns all that comes back.
func (d *door) raw(text string) string {
	d.t.Helper()
	c, err := net.Dial("tcp", d.addr)
	if err != nil {
		d.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, text); err != nil {
		d.t.Fatal(err)
	}
	b, _ := io.ReadAll(c)
	return string(b)
}

func TestAllowedPageMayReadTheAnswer(t *testing.T) {
	d := serve(t, newFake(), func(c *Config) { c.AllowOrigins = []string{"https://good.example"} })
	page := http.Header{"Origin": {"https://good.example"}, "Access-Control-Request-Method": {"POST"}}
	resp, err := d.request("OPTIONS", "/api/v1/posts", page, "")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if h := resp.Header; resp.StatusCode != 204 || h.Get("Access-Control-Allow-Origin") != "https://good.example" ||
		!strings.Contains(h.Get("Access-Control-Allow-Headers"), "Authorization") {
		t.Errorf("the preflight was answered with %s %v", resp.Status, h)
	}
}

func TestForeignPageCannotUpgrade(t *testing.T) {
	d := serve(t, newFake(), nil)
	_, resp, err := websocket.DefaultDialer.Dial("ws://"+d.addr, http.Header{"Origin": {"https://evil.example"}})
	if err == nil || resp != nil {
		t.Errorf("a foreign page's websocket: %v, %v; want a connection closed without an answer", resp, err)
	}
}

func TestTokenGuardsTheHTTPAPI(t *testing.T) {
	d := serve(t, newFake(), nil)
	for _, token := range []string{"", "wrong", testToken + "x"} {
		_, err := NewClient(d.addr, token).Status(t.Context())
		h, ok := errors.AsType[*Hint](err)
		if !ok || !strings.Contains(h.Hint, "--data") {
			t.Errorf("token %q: %v, want a hint", token, err)
		}
	}
	if _, err := NewClient(d.addr, testToken).Status(t.Context()); err != nil {
		t.Error(err)
	}
	resp, err := d.request("GET", "/api/v1/nonsense", http.Header{}, "")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a token an unknown call gives %s, want 401: it says nothing about what there is", resp.Status)
	}
}

func TestRelayShowsItsAPIToItsOwnMachineOnly(t *testing.T) {
	g := guard{cfg: Config{Public: true}, refused: newMetrics(registry()).refused}
	for addr, want := range map[string]int{"127.0.0.1:9": 200, "[::1]:9": 200, "192.0.2.1:9": 404} {
		w := &statusWriter{}
		r, _ := http.NewRequest("GET", "/metrics", nil)
		r.RemoteAddr = addr
		g.local(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(200) })).ServeHTTP(w, r)
		if w.status != want {
			t.Errorf("from %s: %d, want %d", addr, w.status, want)
		}
	}
}

type statusWriter struct{ status int }

func (w *statusWriter) Header() http.Header         { return http.Header{} }
func (w *statusWriter) Write(b []byte) (int, error) { return len(b), nil }
func (w *statusWriter) WriteHeader(status int)      { w.status = status }
