package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers/legacy"
	"github.com/prometheus/client_golang/prometheus"

	"openline/protocol"
)

func registry() *prometheus.Registry { return prometheus.NewRegistry() }

// TestOpenAPIDescribesTheHandlers calls every operation, well and badly, and checks both sides against the document.
func TestOpenAPIDescribesTheHandlers(t *testing.T) {
	f := newFake()
	d := serve(t, f, nil)
	doc, err := openapi3.NewLoader().LoadFromData(openAPI)
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Fatal(err)
	}
	doc.Servers = openapi3.Servers{{URL: "http://" + d.addr + prefix}}
	router, err := legacy.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	openapi3filter.RegisterBodyDecoder("application/x-ndjson", func(body io.Reader, _ http.Header, _ *openapi3.SchemaRef, _ openapi3filter.EncodingFn) (any, error) {
		b, err := io.ReadAll(body)
		return string(b), err
	})
	signed := string(f.note("signed").AppendJSON(nil))
	openapi3filter.RegisterBodyDecoder("application/vnd.openline.bundle", func(body io.Reader, _ http.Header, _ *openapi3.SchemaRef, _ openapi3filter.EncodingFn) (any, error) {
		b, err := io.ReadAll(body)
		return string(b), err
	})
	bundle := bundleOf(t, "main", f.note("carried"))
	foreign := bundleOf(t, "other", f.note("of others"))
	id := f.note("signed").ID().String()
	called := map[string]bool{}
	for _, x := range []struct {
		method, path, body string
		want               int
	}{
		{"GET", "/status", "", 200}, {"GET", "/peers", "", 200}, {"GET", "/topics", "", 200}, {"GET", "/topics?n=x", "", 400},
		{"GET", "/topics?since=-1", "", 400}, {"GET", "/openapi.json", "", 200},
		{"POST", "/posts", `{"text":"salam #x","topics":["y"]}`, 201}, {"POST", "/posts", `{"text":""}`, 400}, {"POST", "/posts", `{`, 400},
		{"POST", "/posts", `{"text":"x","colour":1}`, 400}, {"POST", "/posts", `{"text":"x"} {}`, 400},
		{"POST", "/posts", `{"text":"` + strings.Repeat("x", 200_000) + `"}`, 413},
		{"POST", "/events", signed, 201}, {"POST", "/events", signed, 409}, {"POST", "/events", `{}`, 400},
		{"GET", "/feed?all=true", "", 200}, {"GET", "/feed?topic=x&author=" + f.key.Npub + "&since=1&until=9999999999&limit=3", "", 200},
		{"GET", "/feed?watch=perhaps", "", 400}, {"GET", "/feed?limit=5001", "", 400}, {"GET", "/feed?author=nobody", "", 400}, {"GET", "/feed?topic=a%20b", "", 400},
		{"GET", "/events/" + id + "/holders?want=2&wait=1", "", 200}, {"GET", "/events/" + id[1:] + "0/holders", "", 404},
		{"GET", "/events/xyz/holders", "", 400}, {"GET", "/events/" + id + "/holders?want=-1", "", 400},
		{"GET", "/bundle?topic=x&since=5&max=100000", "", 200}, {"GET", "/bundle?max=0", "", 400},
		{"POST", "/bundle", bundle, 200}, {"POST", "/bundle", foreign, 409}, {"POST", "/bundle", "no bundle", 400},
		{"GET", "/follows", "", 200}, {"POST", "/follows", `{"who":"#x"}`, 201}, {"POST", "/follows", `{"who":"#x"}`, 200},
		{"POST", "/follows", `{"who":"npub1x"}`, 400}, {"DELETE", "/follows?who=%23x", "", 200}, {"DELETE", "/follows?who=%23x", "", 404},
		{"POST", "/invites", `{"uses":5,"seconds":3600}`, 201}, {"POST", "/invites", `{"seconds":1}`, 409}, {"POST", "/invites", `{"seconds":-1}`, 400},
		{"GET", "/invites", "", 200}, {"DELETE", "/invites/1", "", 200}, {"DELETE", "/invites/2", "", 409},
		{"POST", "/join", `{"link":"openline:join?x"}`, 200}, {"POST", "/join", `{"link":""}`, 409}, {"POST", "/join", `{`, 400},
		{"POST", "/doctor", "", 200},
		{"GET", "/key", "", 200}, {"POST", "/key", `{"action":"protect","passphrase":"x"}`, 200}, {"POST", "/key", `{"action":"new"}`, 409},
		{"POST", "/key", `{"action":"unlock"}`, 403}, {"POST", "/key", `[]`, 400}, {"POST", "/key/export", "", 200},
	} {
		name := x.method + " " + x.path
		r, err := http.NewRequest(x.method, "http://"+d.addr+prefix+x.path, strings.NewReader(x.body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+testToken)
		r.Header.Set("Content-Type", "application/json")
		if x.path == "/bundle" {
			r.Header.Set("Content-Type", "application/vnd.openline.bundle")
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != x.want {
			t.Errorf("%s = %s, want %d: %s", name, resp.Status, x.want, body)
		}
		r.Body = io.NopCloser(strings.NewReader(x.body))
		route, params, err := router.FindRoute(r)
		if err != nil {
			t.Errorf("%s is not in the document: %v", name, err)
			continue
		}
		called[x.method+" "+route.Path] = true
		in := &openapi3filter.RequestValidationInput{Request: r, Route: route, PathParams: params,
			Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc}}
		if err := openapi3filter.ValidateRequest(t.Context(), in); x.want < 300 && err != nil {
			t.Errorf("%s works and is against the document: %v", name, err)
		}
		out := &openapi3filter.ResponseValidationInput{RequestValidationInput: in, Status: resp.StatusCode, Header: resp.Header,
			Body: io.NopCloser(bytes.NewReader(body)), Options: &openapi3filter.Options{IncludeResponseStatus: true}}
		if err := openapi3filter.ValidateResponse(t.Context(), out); err != nil {
			t.Errorf("%s answers against the document: %v", name, err)
		}
	}
	checkAllDescribed(t, doc, called)
}

func bundleOf(t *testing.T, network string, events ...protocol.Event) string {
	t.Helper()
	var b bytes.Buffer
	w, err := protocol.NewBundleWriter(&b, protocol.BundleHeader{Network: network, To: protocol.MaxBundleTime})
	for _, e := range events {
		err = errors.Join(err, w.Add(e))
	}
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func checkAllDescribed(t *testing.T, doc *openapi3.T, called map[string]bool) {
	t.Helper()
	var described, routed []string
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			described = append(described, method+" "+path)
			if !called[method+" "+path] {
				t.Errorf("%s %s is described and this test does not call it", method, path)
			}
		}
	}
	for _, r := range new(Server).routes() {
		routed = append(routed, r.method+" "+r.path)
	}
	slices.Sort(described)
	slices.Sort(routed)
	if !slices.Equal(described, routed) {
		t.Errorf("described are %v, there are %v", described, routed)
	}
}

func TestFeedReadsDownwardsAndGoesOn(t *testing.T) {
	f := newFake()
	d := serve(t, f, nil)
	c := NewClient(d.addr, testToken)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	profile := f.event(protocol.KindProfile, `{"name":"ali"}`)
	old, newer := f.at(-20, "old"), f.at(-10, "newer")
	for _, e := range []protocol.Event{profile, newer, old, f.event(protocol.KindReaction, "+")} {
		if _, err := f.Publish(ctx, e.AppendJSON(nil)); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	err := c.Feed(ctx, FeedQuery{Limit: 10, Watch: true}, func(i FeedItem) error {
		got = append(got, i.Name+": "+i.Event.Content())
		switch len(got) {
		case 2:
			_, err := c.Post(ctx, Draft{Text: "live"})
			return err
		case 3:
			return errors.New("enough")
		}
		return nil
	})
	if want := []string{"ali: old", "ali: newer", "ali: live"}; !slices.Equal(got, want) || err == nil || err.Error() != "enough" {
		t.Errorf("the feed has %q, %v, want %q", got, err, want)
	}
}

func (f *fake) at(seconds int64, text string) protocol.Event {
	e, err := f.secret.Sign(protocol.Draft{CreatedAt: time.Now().Unix() + seconds, Kind: protocol.KindNote, Content: text})
	if err != nil {
		panic(err)
	}
	return e
}

func TestFeedIsWhatTheOwnerFollows(t *testing.T) {
	f := newFake()
	d := serve(t, f, nil)
	c := NewClient(d.addr, testToken)
	for _, e := range []protocol.Event{f.note("on x", "x"), f.note("on y", "y")} {
		if _, err := f.Publish(t.Context(), e.AppendJSON(nil)); err != nil {
			t.Fatal(err)
		}
	}
	texts := func(q FeedQuery) (all []string) {
		q.Limit = 10
		if err := c.Feed(t.Context(), q, func(i FeedItem) error { all = append(all, i.Event.Content()); return nil }); err != nil {
			t.Error(err)
		}
		slices.Sort(all)
		return all
	}
	if got := texts(FeedQuery{}); len(got) != 2 {
		t.Errorf("who follows nothing sees %q, want everything", got)
	}
	if _, err := c.Follow(t.Context(), "#X"); err != nil {
		t.Fatal(err)
	}
	if got := texts(FeedQuery{}); !slices.Equal(got, []string{"on x"}) {
		t.Errorf("who follows #x sees %q", got)
	}
	if got := texts(FeedQuery{All: true}); len(got) != 2 {
		t.Errorf("all: %q", got)
	}
	if got := texts(FeedQuery{Authors: []string{f.key.Npub}, Topics: []string{"#z"}}); len(got) != 2 {
		t.Errorf("topic or author: %q", got)
	}
	f.followed = []Follow{{Author: f.key.Hex, Npub: f.key.Npub, Name: "Ali"}, {Author: f.key.Hex, Npub: f.key.Npub, Name: "sara"}, {Author: f.key.Hex, Name: "Sara"}}
	if got := texts(FeedQuery{Authors: []string{"ali"}}); len(got) != 2 {
		t.Errorf("by name: %q", got)
	}
	err := c.Feed(t.Context(), FeedQuery{Authors: []string{"SARA"}}, nil)
	if h, ok := errors.AsType[*Hint](err); !ok || !strings.Contains(h.Hint, "npub1") {
		t.Errorf("an ambiguous name: %v", err)
	}
}

func TestClientTellsWhatIsWrong(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	if _, err := NewClient(addr, "").Status(t.Context()); !errors.Is(err, ErrNoDaemon) {
		t.Errorf("nothing listens: %v, want ErrNoDaemon", err)
	}
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	_, err = NewClient(other.Listener.Addr().String(), "").Status(t.Context())
	if h, ok := errors.AsType[*Hint](err); !ok || h.Hint == "" || errors.Is(err, ErrNoDaemon) {
		t.Errorf("another server: %v, want a hint", err)
	}
	if _, err := NewClient("no address", "").Status(t.Context()); err == nil {
		t.Error("an address that is none works")
	}
	f := newFake()
	d := serve(t, f, nil)
	_, err = NewClient(d.addr, testToken).Post(t.Context(), Draft{Text: strings.Repeat("x", 141)})
	if r, ok := errors.AsType[*protocol.Rejection](err); !ok || r.Code != protocol.BadText {
		t.Errorf("a refused note: %v, want its Rejection", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := NewClient(d.addr, testToken).Status(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled call: %v", err)
	}
}

func TestRelayHasNoOwner(t *testing.T) {
	d := serve(t, newFake(), func(c *Config) { c.Owner = nil })
	_, err := NewClient(d.addr, testToken).Key(t.Context())
	if h, ok := errors.AsType[*Hint](err); !ok || !strings.Contains(h.Hint, "openline daemon") {
		t.Errorf("a relay's key: %v", err)
	}
}

// TestExportWithinASizeTakesTheNewest: also when all are of one second.
func TestExportWithinASizeTakesTheNewest(t *testing.T) {
	for name, step := range map[string]int64{"one second": 0, "many seconds": 1} {
		t.Run(name, func(t *testing.T) {
			f := newFake()
			for i := range 40 {
				if _, err := f.Publish(t.Context(), f.at(-step*int64(40-i), "a note of some length, number "+strings.Repeat("x", i)).AppendJSON(nil)); err != nil {
					t.Fatal(err)
				}
			}
			d := serve(t, f, nil)
			var b bytes.Buffer
			const most = 3000
			if err := NewClient(d.addr, testToken).Export(t.Context(), BundleQuery{Max: most}, &b); err != nil {
				t.Fatal(err)
			}
			size := b.Len()
			r, err := protocol.NewBundleReader(&b)
			if err != nil {
				t.Fatal(err)
			}
			n, oldest := 0, int64(0)
			for {
				frame, err := r.Next()
				if err != nil {
					break
				}
				if n += frame.Events; oldest == 0 {
					oldest = frame.First
				}
			}
			if n < 8 || size > most {
				t.Errorf("%d events in %d bytes of %d", n, size, most)
			}
			if want := time.Now().Unix() - int64(n) - 3; step > 0 && oldest < want {
				t.Errorf("the oldest of %d is of %d, want %d or later", n, oldest, want)
			}
		})
	}
}
