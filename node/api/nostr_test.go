package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"openline/protocol"
)

func TestStoredThenEOSEThenLive(t *testing.T) {
	f := newFake()
	old := f.note("old", "x")
	if _, err := f.Publish(t.Context(), old.AppendJSON(nil)); err != nil {
		t.Fatal(err)
	}
	d := serve(t, f, nil)
	reader, writer := d.dial(), d.dial()
	reader.send(`["REQ","s\"1",{"#t":["x"]},{"kinds":[7]}]`)
	reader.expect(`["EVENT","s\"1",` + string(old.AppendJSON(nil)) + `]`)
	reader.expect(`["EOSE","s\"1"]`)
	fresh := f.note("fresh", "x")
	writer.event(fresh)
	writer.expect(fmt.Sprintf(`["OK","%s",true,""]`, fresh.ID()))
	reader.expect(`["EVENT","s\"1",` + string(fresh.AppendJSON(nil)) + `]`)
}

func TestRequestReplacesAndCloseEnds(t *testing.T) {
	f := newFake()
	d := serve(t, f, nil)
	c := d.dial()
	c.send(`["REQ","s",{"#t":["a"]}]`)
	c.expect(`["EOSE","s"]`)
	c.send(`["REQ","s",{"#t":["b"]}]`)
	c.expect(`["EOSE","s"]`)
	c.send(`["REQ","gone",{}]`)
	c.expect(`["EOSE","gone"]`)
	c.send(`["CLOSE","gone"]`)
	a, b := f.note("1", "a"), f.note("2", "b")
	c.event(a)
	c.expect(fmt.Sprintf(`["OK","%s",true,""]`, a.ID()))
	c.event(b)
	got := c.receive() + c.receive() // the OK and the one event, in any order
	if !strings.Contains(got, `["EVENT","s",`+string(b.AppendJSON(nil))) || !strings.Contains(got, `["OK"`) {
		t.Errorf("received %s", got)
	}
}

func TestOKPrefixes(t *testing.T) {
	f := newFake()
	d := serve(t, f, nil)
	c := d.dial()
	for _, x := range []struct {
		err  error
		ok   bool
		want string
	}{
		{protocol.Reject(protocol.Duplicate, "r"), true, "duplicate: r"},
		{protocol.Reject(protocol.Deleted, "r"), false, "blocked: r"},
		{protocol.Reject(protocol.Protected, "r"), false, "restricted: r"},
		{protocol.Reject(protocol.OverQuota, "r"), false, "rate-limited: r"},
		{protocol.Reject(protocol.Busy, "r"), false, "rate-limited: r"},
		{protocol.Reject(protocol.Expired, "r"), false, "invalid: r"},
		{protocol.Reject(protocol.Ahead, "r"), false, "invalid: r"},
		{protocol.Reject(protocol.BadText, "r"), false, "invalid: r"},
		{errors.New("/home/someone/disk"), false, "error: the event could not be kept; try again"},
	} {
		f.mu.Lock()
		f.refuse = x.err
		f.mu.Unlock()
		e := f.note("note")
		c.event(e)
		c.expect(fmt.Sprintf(`["OK","%s",%v,"%s"]`, e.ID(), x.ok, x.want))
	}
	f.mu.Lock()
	f.refuse = nil
	f.mu.Unlock()
	follows := f.event(3, "")
	c.event(follows)
	c.expect(fmt.Sprintf(`["OK","%s",true,"kept here: this kind does not travel"]`, follows.ID()))
	long := f.note(strings.Repeat("x", 141))
	c.event(long)
	c.expect(fmt.Sprintf(`["OK","%s",false,"invalid: the note has 141 characters; 140 are the most"]`, long.ID()))
}

func TestBadMessagesGetOneClearAnswer(t *testing.T) {
	f := newFake()
	d := serve(t, f, func(c *Config) { c.Limits.Filters, c.Limits.Subscriptions = 2, 1 })
	c := d.dial()
	for _, x := range []struct{ in, want string }{
		{`nonsense`, `["NOTICE","a message is a JSON array`},
		{`{}`, `["NOTICE","a message is a JSON array`},
		{`[]`, `["NOTICE","a message is a JSON array`},
		{`[1]`, `["NOTICE","a message is a JSON array`},
		{`["AUTH",{}]`, `["NOTICE","\"AUTH\" is not understood here`},
		{`["EVENT"]`, `["NOTICE","usage: [\"EVENT\", event]"]`},
		{`[ "EVENT" , {"id":"x"}]`, `["OK","x",false,"invalid: id is not 64`},
		{`["EVENT",{},{}]`, `["NOTICE","invalid: there is something after`},
		{`["REQ","\ud800",{}]`, `["NOTICE","a subscription id has 1 to 64`},
		{`["EVENT",{}]`, `["NOTICE","invalid: an event needs the member`},
		{`["EVENT",{"id":"` + strings.Repeat("a", 64) + `"}]`, `["OK","` + strings.Repeat("a", 64) + `",false,"invalid: an event needs`},
		{`["REQ"]`, `["NOTICE","usage: [\"REQ\"`},
		{`["REQ",7,{}]`, `["NOTICE","usage: [\"REQ\"`},
		{`["REQ","",{}]`, `["NOTICE","a subscription id has 1 to 64`},
		{`["REQ","` + strings.Repeat("x", 65) + `",{}]`, `["NOTICE","a subscription id has 1 to 64`},
		{`["REQ","s"]`, `["CLOSED","s","invalid: usage`},
		{`["REQ","s",7]`, `["CLOSED","s","invalid: `},
		{`["REQ","s",{"ids":["x"]}]`, `["CLOSED","s","invalid: an id in a filter is not 64`},
		{`["REQ","s",{"colour":1}]`, `["CLOSED","s","invalid: \"colour\" is not a member of a filter"]`},
		{`["REQ","s",{"search":"x"}]`, `["CLOSED","s","unsupported: search`},
		{`["REQ","s",{},{},{}]`, `["CLOSED","s","error: 3 filters; 2 are the most"]`},
		{`["REQ","s",{},{}]`, `["EOSE","s"]`},
		{`["REQ","t",{}]`, `["CLOSED","t","rate-limited: too many subscriptions`},
		{`["REQ","s",{}]`, `["EOSE","s"]`},
		{`["CLOSE"]`, `["NOTICE","usage: [\"CLOSE\"`},
	} {
		c.send(x.in)
		if got := c.receive(); !strings.HasPrefix(got, x.want) {
			t.Errorf("%.60s was answered with %s, want %s", x.in, got, x.want)
		}
	}
	if err := c.ws.WriteMessage(websocket.BinaryMessage, []byte{1}); err != nil {
		t.Fatal(err)
	}
	c.expect(`["NOTICE","this relay speaks text, not binary messages"]`)
}

func TestLimitsOfAConnection(t *testing.T) {
	f := newFake()
	d := serve(t, f, func(c *Config) {
		c.Limits.Connections, c.Limits.MessageBytes, c.Limits.MessagesPerSecond, c.Limits.MessagesBurst = 2, 1000, 1, 2
	})
	c := d.dial()
	for i := range 3 {
		e := f.note(fmt.Sprint(i))
		c.event(e)
		want := fmt.Sprintf(`["OK","%s",true,""]`, e.ID())
		if i == 2 {
			want = fmt.Sprintf(`["OK","%s",false,"rate-limited: too many messages; 1 a second are the most"]`, e.ID())
		}
		c.expect(want)
	}
	d.dial()
	_, resp, err := websocket.DefaultDialer.Dial("ws://"+d.addr, nil)
	if err == nil || resp == nil || resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a third connection: %v", err)
	}
	c.send(strings.Repeat("x", 1001))
	_, _, err = c.ws.ReadMessage()
	if !websocket.IsCloseError(err, websocket.CloseMessageTooBig) {
		t.Errorf("after too long a message: %v, want close code 1009", err)
	}
}

func TestLaggingReaderIsCutOffWithAReason(t *testing.T) {
	f := newFake()
	f.lag = true
	d := serve(t, f, nil)
	c := d.dial()
	c.send(`["REQ","s",{}]`)
	c.expect(`["EOSE","s"]`)
	c.expect(`["CLOSED","s","error: reading too slowly"]`)
	_, _, err := c.ws.ReadMessage()
	if !websocket.IsCloseError(err, websocket.ClosePolicyViolation) {
		t.Errorf("the connection ended with %v, want close code 1008", err)
	}
}

func TestReaderThatStopsReadingIsCutOff(t *testing.T) {
	f := newFake()
	for i := range 600 {
		e, err := f.secret.Sign(protocol.Draft{CreatedAt: time.Now().Unix(), Kind: 30023, Content: strings.Repeat("x", 30_000),
			Tags: []protocol.Tag{{"d", fmt.Sprint(i)}}})
		if err != nil {
			t.Fatal(err)
		}
		f.events = append(f.events, e)
	}
	d := serve(t, f, func(c *Config) { c.Limits.WriteTimeout = 200 * time.Millisecond })
	c := d.dial()
	c.send(`["REQ","s",{}]`)
	await(t, "a cut-off in the metrics", func() bool { return strings.Contains(d.metrics(), "openline_api_cut_off_total 1\n") })
	await(t, "the end of the connection", func() bool { return strings.Contains(d.metrics(), "openline_api_connections 0\n") })
}

func (d *door) metrics() string {
	resp, err := d.request("GET", "/metrics", nil, "")
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return string(b)
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s within 10 s", what)
		}
	}
}

func TestServerLeavesNothingBehind(t *testing.T) {
	before := runtime.NumGoroutine()
	f := newFake()
	d := serve(t, f, nil)
	c := d.dial()
	for i := range 10 {
		c.send(fmt.Sprintf(`["REQ","%d",{}]`, i))
		c.expect(fmt.Sprintf(`["EOSE","%d"]`, i))
	}
	watching := make(chan error, 1)
	go func() {
		watching <- NewClient(d.addr, testToken).Feed(context.Background(), FeedQuery{Watch: true, All: true, Limit: 1}, func(FeedItem) error { return nil })
	}()
	f.Publish(t.Context(), f.note("x").AppendJSON(nil))
	d.stop()
	if err := <-watching; err == nil {
		t.Log("the feed ended in order")
	}
	for {
		if _, _, err := c.ws.ReadMessage(); err != nil {
			if !websocket.IsCloseError(err, websocket.CloseGoingAway) {
				t.Errorf("the websocket ended with %v, want close code 1001", err)
			}
			break
		}
	}
	http.DefaultClient.CloseIdleConnections()
	await(t, "end of all goroutines", func() bool { return runtime.NumGoroutine() <= before+1 })
}

func TestInformationDocumentIsTrue(t *testing.T) {
	d := serve(t, newFake(), nil)
	resp, err := d.request("GET", "/", http.Header{"Accept": {"application/nostr+json"}}, "")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var doc struct {
		SupportedNIPs []int `json:"supported_nips"`
		Limitation    map[string]any
	}
	if err := json.NewDecoder(resp.Body).Decode(&doc); err != nil {
		t.Fatal(err)
	}
	if doc.Limitation["max_content_length"] != 140.0 || doc.Limitation["max_message_length"] != float64(128<<10) || len(doc.SupportedNIPs) != 7 {
		t.Errorf("the document says %v", doc)
	}
}

func FuzzParseMessage(f *testing.F) {
	for _, s := range []string{`["EVENT",{}]`, `["REQ","s",{"kinds":[1]},{"#t":["x"]}]`, `["CLOSE","s"]`, `[]`, `["REQ","\ud800",{}]`, `[["EVENT"]]`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := parseMessage(raw)
		if err != nil {
			return
		}
		if m.verb != "EVENT" && m.verb != "REQ" && m.verb != "CLOSE" {
			t.Errorf("verb %q", m.verb)
		}
		if !json.Valid(frame("CLOSED", m.sub, "x")) {
			t.Errorf("the subscription id %q does not come back as JSON", m.sub)
		}
		if filters, err := parseFilters(m.filters, 16); err == nil && len(filters) != len(m.filters) {
			t.Errorf("%d filters of %d", len(filters), len(m.filters))
		}
		claimedID(m.event)
	})
}

// TestEventsOfAClientThatLeavesAreKept: what was read is posted, whoever waits for the OK.
func TestEventsOfAClientThatLeavesAreKept(t *testing.T) {
	f := newFake()
	f.slow = make(chan struct{})
	d := serve(t, f, nil)
	c := d.dial()
	for i := range 10 {
		c.event(f.note(fmt.Sprint(i)))
	}
	await(t, "10 events at the backend", func() bool { return f.waiting.Load() == 10 })
	c.ws.Close()
	time.AfterFunc(50*time.Millisecond, func() { close(f.slow) }) // some while after the server saw it leave
	await(t, "10 events kept", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.events) == 10
	})
}

// TestPingsDoNotDisturbTheFlow: the reader's goroutine answers pings while the writer's holds frames back.
func TestPingsDoNotDisturbTheFlow(t *testing.T) {
	f := newFake()
	d := serve(t, f, nil)
	c := d.dial()
	c.send(`["REQ","s",{}]`)
	c.expect(`["EOSE","s"]`)
	const notes = 300
	go func() {
		for i := range notes {
			f.Publish(context.Background(), f.note(fmt.Sprint(i)).AppendJSON(nil))
			c.ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(time.Second))
		}
	}()
	for range notes {
		if got := c.receive(); !strings.HasPrefix(got, `["EVENT","s",{`) {
			t.Fatalf("received %s", got)
		}
	}
}

func TestBodyThatNeverEndsIsCutOff(t *testing.T) {
	d := serve(t, newFake(), func(c *Config) { c.Limits.ReadTimeout = 200 * time.Millisecond })
	d.raw("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\nabc") // returns when the server closes
}
