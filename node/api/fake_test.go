package api

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math/rand"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"openline/protocol"
	"openline/protocol/reconcile"
)

// fake is a node in memory.
type fake struct {
	mu       sync.Mutex // guards the fields below
	events   []protocol.Event
	changed  chan struct{} // closed when events grow
	refuse   error         // of the next Publish
	lag      bool          // Follow ends with ErrLagged after EOSE
	key      Key
	followed []Follow
	secret   protocol.SecretKey

	slow    chan struct{} // unless nil, Publish waits for its end
	waiting atomic.Int32
}

func newFake() *fake {
	key, err := protocol.NewSecretKey(rand.New(rand.NewSource(1)))
	if err != nil {
		panic(err)
	}
	return &fake{changed: make(chan struct{}), secret: key, key: Key{Exists: true, Npub: key.PubKey().Npub(), Hex: key.PubKey().String()}}
}

func (f *fake) Publish(ctx context.Context, raw []byte) (Receipt, error) {
	if f.slow != nil {
		f.waiting.Add(1)
		select {
		case <-f.slow:
		case <-ctx.Done():
			return Receipt{}, ctx.Err()
		}
	}
	e, err := protocol.ParseJSON(raw, protocol.Check{Scope: protocol.Client, Now: time.Now()})
	if err != nil {
		return Receipt{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refuse != nil {
		return Receipt{}, f.refuse
	}
	if slices.ContainsFunc(f.events, func(o protocol.Event) bool { return o.ID() == e.ID() }) {
		return Receipt{}, protocol.Reject(protocol.Duplicate, "the event is already here")
	}
	f.events = append(f.events, e)
	close(f.changed)
	f.changed = make(chan struct{})
	if !protocol.Travels(e.Kind()) {
		return Receipt{ID: e.ID().String(), Message: "kept here: this kind does not travel"}, nil
	}
	return Receipt{ID: e.ID().String(), Peers: 3, Message: "posted, on its way to 3 peers"}, nil
}

func (f *fake) Post(ctx context.Context, d Draft) (Receipt, error) {
	return f.Publish(ctx, f.note(d.Text, d.Topics...).AppendJSON(nil))
}

func (f *fake) note(text string, topics ...string) protocol.Event {
	d := protocol.Draft{CreatedAt: time.Now().Unix(), Kind: protocol.KindNote, Content: text}
	for _, t := range topics {
		d.Tags = append(d.Tags, protocol.Tag{"t", t})
	}
	e, err := f.secret.Sign(d)
	if err != nil {
		panic(err)
	}
	return e
}

func (f *fake) event(kind uint16, content string) protocol.Event {
	e, err := f.secret.Sign(protocol.Draft{CreatedAt: time.Now().Unix(), Kind: kind, Content: content})
	if err != nil {
		panic(err)
	}
	return e
}

func (f *fake) Follow(ctx context.Context, filters []protocol.Filter, most int, emit func(protocol.Event) bool, caughtUp func() bool) error {
	match := func(e protocol.Event) bool {
		return slices.ContainsFunc(filters, func(f protocol.Filter) bool { return f.Matches(e) })
	}
	f.mu.Lock()
	seen := len(f.events)
	stored := slices.Clone(f.events)
	lag := f.lag
	f.mu.Unlock()
	slices.SortStableFunc(stored, func(a, b protocol.Event) int {
		if a.Newer(b) {
			return -1
		}
		return 1
	})
	if l := filters[0].Limit; l != nil {
		most = min(most, *l)
	}
	for _, e := range stored {
		if match(e) && most > 0 {
			if most--; !emit(e) {
				return nil
			}
		}
	}
	if !caughtUp() {
		return nil
	}
	for !lag {
		f.mu.Lock()
		fresh, changed := slices.Clone(f.events[seen:]), f.changed
		seen = len(f.events)
		f.mu.Unlock()
		for _, e := range fresh {
			if match(e) && !emit(e) {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
	return ErrLagged
}

func (f *fake) Status(context.Context) (Status, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := Peer{ID: "12D3", Address: "/ip4/127.0.0.1/tcp/1", Direction: "in", Since: time.Now()}
	return Status{Version: "v", Network: "main", Role: "daemon", PeerID: "12D3", Addresses: []string{"/ip4/127.0.0.1/tcp/1/p2p/12D3"},
		Peers: 1, PeerList: []Peer{p}, Events: uint64(len(f.events)), API: "127.0.0.1:1", Websocket: "ws://127.0.0.1:1", Started: time.Now()}, nil
}

func (f *fake) Topics(context.Context, time.Time, int) ([]Topic, error) {
	return []Topic{{Topic: "tehran", Events: 2, Authors: 1, Newest: time.Now()}}, nil
}

func (f *fake) Items(_ context.Context, filter protocol.Filter, most int) (reconcile.Set, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var items []reconcile.Item
	for _, e := range f.events {
		if filter.Matches(e) {
			items = append(items, reconcile.Item{Time: e.CreatedAt(), ID: reconcile.ID(e.ID())})
		}
	}
	if len(items) > most {
		return nil, ErrTooMany
	}
	slices.SortFunc(items, reconcile.Item.Compare)
	return reconcile.NewVector(items)
}

func (f *fake) Import(ctx context.Context, envelope []byte) error {
	e, err := protocol.ParseEnvelope(envelope, protocol.Check{Scope: protocol.Late, Now: time.Now()})
	if err == nil {
		_, err = f.Publish(ctx, e.AppendJSON(nil))
	}
	return err
}

func (f *fake) Export(_ context.Context, filters []protocol.Filter, emit func(protocol.Event) bool) error {
	f.mu.Lock()
	events := slices.Clone(f.events)
	f.mu.Unlock()
	slices.SortFunc(events, protocol.Event.Compare)
	for _, e := range events {
		if slices.ContainsFunc(filters, func(f protocol.Filter) bool { return f.Matches(e) }) && !emit(e) {
			return nil
		}
	}
	return nil
}

func (f *fake) Held(ctx context.Context, id protocol.ID, want int) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.ContainsFunc(f.events, func(e protocol.Event) bool { return e.ID() == id }) {
		return 0, ErrUnknown
	}
	return min(want, 2), nil
}

func (f *fake) Key() (Key, error) { return f.key, nil }

func (f *fake) SetKey(_ context.Context, c KeyChange) (Key, error) {
	switch c.Action {
	case "new":
		return Key{}, &Hint{errors.New("there is a key already"), "add --replace"}
	case "unlock":
		return Key{}, protocol.ErrPassphrase
	}
	return f.key, nil
}

func (f *fake) ExportKey(context.Context) (string, error) { return "ncryptsec1…", nil }

func (f *fake) Follows(context.Context) ([]Follow, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.followed), nil
}

func (f *fake) SetFollow(_ context.Context, w Follow, on bool) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.IndexFunc(f.followed, func(o Follow) bool { return o.Topic == w.Topic && o.Author == w.Author })
	if on == (i >= 0) {
		return false, nil
	}
	if on {
		f.followed = append(f.followed, w)
	} else {
		f.followed = slices.Delete(f.followed, i, i+1)
	}
	return true, nil
}

// door is a running Server.
type door struct {
	t    testing.TB
	addr string
	log  *bytes.Buffer
	stop func()
}

const testToken = "secret-token"

// serve runs a Server before f until the test ends; change adapts its Config.
func serve(t testing.TB, f *fake, change func(*Config)) *door {
	t.Helper()
	d := &door{t: t, log: &bytes.Buffer{}}
	cfg := Config{Backend: f, Archive: f, Inviter: f, Doctor: f, Network: "main", Owner: f, Token: testToken, Limits: DefaultLimits(), Registry: prometheus.NewRegistry(),
		Log: slog.New(slog.NewTextHandler(d.log, nil)), Now: time.Now, Version: "test"}
	if change != nil {
		change(&cfg)
	}
	s, err := NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d.addr = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	d.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve() = %v", err)
		}
	})
	t.Cleanup(d.stop)
	return d
}

// client is a Nostr client that reads what it expects.
type client struct {
	t  testing.TB
	ws *websocket.Conn
}

func (d *door) dial() *client {
	d.t.Helper()
	ws, _, err := websocket.DefaultDialer.Dial("ws://"+d.addr, nil)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { ws.Close() })
	return &client{d.t, ws}
}

func (c *client) send(text string) {
	c.t.Helper()
	if err := c.ws.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) event(e protocol.Event) { c.send(`["EVENT",` + string(e.AppendJSON(nil)) + `]`) }

// receive returns the next message; it waits at most ten seconds.
func (c *client) receive() string {
	c.t.Helper()
	c.ws.SetReadDeadline(time.Now().Add(10 * time.Second))
	_, raw, err := c.ws.ReadMessage()
	if err != nil {
		c.t.Fatal(err)
	}
	return string(raw)
}

func (c *client) expect(want string) {
	c.t.Helper()
	if got := c.receive(); got != want {
		c.t.Errorf("received %s, want %s", got, want)
	}
}

// request makes one HTTP call as given; the caller closes the body.
func (d *door) request(method, path string, header http.Header, body string) (*http.Response, error) {
	r, err := http.NewRequest(method, "http://"+d.addr+path, bytes.NewReader([]byte(body)))
	if err != nil {
		d.t.Fatal(err)
	}
	if header != nil {
		r.Header = header
	}
	if h := r.Header.Get("Host"); h != "" {
		r.Host = h
		r.Header.Del("Host")
	}
	return http.DefaultClient.Do(r)
}

func (f *fake) Invite(_ context.Context, d InviteDraft) (Invite, error) {
	if d.Lifetime < time.Minute {
		return Invite{}, &Hint{errors.New("too short"), "longer"}
	}
	return Invite{Issued: Issued{ID: "1", Uses: d.Uses, Expires: time.Unix(1_800_000_000, 0).Add(d.Lifetime)}, Link: "openline:join?x", Peers: 1}, nil
}

func (f *fake) Invites(context.Context) ([]Issued, error) { return []Issued{{ID: "1"}}, nil }

func (f *fake) Revoke(_ context.Context, id string) (Issued, error) {
	if id != "1" {
		return Issued{}, &Hint{errors.New("no such invite"), ""}
	}
	return Issued{ID: "1", Revoked: true, Over: true}, nil
}

func (f *fake) Join(_ context.Context, link string) (Joined, error) {
	if link == "" {
		return Joined{}, &Hint{errors.New("no invite"), ""}
	}
	return Joined{Network: "main", Peers: 1, Carriers: []string{"wss"}}, nil
}

func (f *fake) Diagnose(context.Context) (Diagnosis, error) {
	return Diagnosis{Mode: "open", Known: 1, Causes: []Cause{{"udp-off", "UDP is off."}}, Next: []string{"nothing"},
		Carriers: []CarrierCheck{{Carrier: "quic", Allowed: true, Tried: 1, Cause: "udp-off"}}, Sources: []SourceCheck{{Source: "book", Found: 1}},
		Resolvers: []ResolverCheck{{"https://192.0.2.1/", true}}, Names: []NameCheck{{"example.org", NameFalse}}}, nil
}
