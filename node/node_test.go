package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"openline/node/api"
	"openline/protocol"
)

// open opens and runs a node on loopback; it is closed when the test ends.
func open(t *testing.T, peers ...*Node) *Node {
	t.Helper()
	cfg := loopbackConfig(t, peers...)
	n, _ := openWith(t, cfg)
	return n
}

func loopbackConfig(t *testing.T, peers ...*Node) Config {
	cfg := DefaultConfig()
	cfg.Dir, cfg.Network, cfg.LAN, cfg.API = t.TempDir(), "test", false, "127.0.0.1:0"
	cfg.Listen = []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"}
	for _, p := range peers {
		cfg.Peers = append(cfg.Peers, p.Addresses()...)
	}
	return cfg
}

// openWith returns also what stops the node before the test ends.
func openWith(t *testing.T, cfg Config) (*Node, func()) {
	t.Helper()
	n, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := errors.Join(<-done, n.Close()); err != nil {
			t.Errorf("the node ended with %v", err)
		}
	}
	t.Cleanup(stop)
	return n, stop
}

// linked waits until n has so many mesh links.
func linked(t *testing.T, n *Node, links int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); n.Linked() < links; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d mesh links, want %d", n.Linked(), links)
		}
	}
}

func awaitEvent(t *testing.T, n *Node, id string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	want, err := protocol.ParseID(id)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Await(ctx, want); err != nil {
		t.Fatalf("the event did not come: %v", err)
	}
}

func TestPostReachesANodeThatIsNotAPeer(t *testing.T) {
	noLeaks(t)
	b := open(t)
	a, c := open(t, b), open(t, b)
	linked(t, a, 1)
	linked(t, c, 1)
	r, err := a.Post(t.Context(), api.Draft{Text: "over b #test"})
	if err != nil {
		t.Fatal(err)
	}
	if r.Peers != 1 || r.Message != "posted, on its way to 1 peer" {
		t.Errorf("Post() = %+v, want one peer", r)
	}
	awaitEvent(t, c, r.ID)
	if n := len(c.host.Network().Peers()); n != 1 {
		t.Errorf("c has %d peers, want b alone", n)
	}
}

func TestStampIsKeptOrLeftOut(t *testing.T) {
	noLeaks(t)
	n := open(t)
	r, err := n.Post(t.Context(), api.Draft{Text: "worth some work"})
	if err != nil {
		t.Fatal(err)
	}
	id, _ := protocol.ParseID(r.ID)
	e, _, err := n.store.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	if got := n.stamp(t.Context(), e, time.Nanosecond); got.Nonce() != 0 && got.Work() < protocol.StampBits {
		t.Errorf("a stamp of %d bits went out", got.Work())
	}
	stamped := n.stamp(t.Context(), e, time.Minute)
	if stamped.Work() < protocol.StampBits {
		t.Errorf("%d bits of work, want %d", stamped.Work(), protocol.StampBits)
	}
	if e, _, err := n.store.Get(id); err != nil || e.Nonce() != stamped.Nonce() {
		t.Errorf("the store has nonce %d, %v, want %d", e.Nonce(), err, stamped.Nonce())
	}
}

func TestPeerIDIsFreshUnlessARelay(t *testing.T) {
	noLeaks(t)
	for _, relay := range []bool{false, true} {
		cfg := loopbackConfig(t)
		cfg.Relay = relay
		n, stop := openWith(t, cfg)
		first := n.host.ID()
		stop()
		n, stop = openWith(t, cfg)
		if again := n.host.ID() == first; again != relay {
			t.Errorf("relay %v: the peer id stayed the same: %v", relay, again)
		}
		if _, err := n.Post(t.Context(), api.Draft{Text: "x"}); relay && err == nil {
			t.Error("a relay posted")
		}
		stop()
	}
}

func TestOpenSaysWhatIsWrongAndHowToGoOn(t *testing.T) {
	noLeaks(t)
	n := open(t)
	locked := loopbackConfig(t)
	locked.Dir = n.cfg.Dir
	taken := loopbackConfig(t)
	taken.API = n.APIAddress()
	listening := loopbackConfig(t)
	listening.Listen = []string{n.host.Addrs()[0].String()}
	unwritable := loopbackConfig(t)
	unwritable.Dir = filepath.Join(n.cfg.Dir, "token", "below-a-file")
	badKey := loopbackConfig(t)
	if err := os.WriteFile(filepath.Join(badKey.Dir, "key"), []byte("nsec1nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	badFollows := loopbackConfig(t)
	if err := os.WriteFile(filepath.Join(badFollows.Dir, "follows.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	damaged := loopbackConfig(t)
	damage(t, damaged)
	for name, cfg := range map[string]Config{"locked": locked, "damaged store": damaged, "port taken": taken, "listening port taken": listening,
		"unwritable": unwritable, "damaged key": badKey, "damaged follows": badFollows} {
		n, err := Open(cfg)
		if err == nil {
			n.Close()
			t.Errorf("%s: opened", name)
			continue
		}
		h, ok := errors.AsType[*api.Hint](err)
		if !ok || h.Hint == "" || strings.Contains(err.Error(), "nonsense") {
			t.Errorf("%s: Open() = %v, want an error with a hint and without secrets", name, err)
		}
	}
}

// damage makes a node's store and spoils its manifest.
func damage(t *testing.T, cfg Config) {
	t.Helper()
	_, stop := openWith(t, cfg)
	stop()
	files, err := filepath.Glob(filepath.Join(cfg.Dir, "events", "MANIFEST-*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no manifest to spoil: %v", err)
	}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for i := range raw {
			raw[i] ^= 0x55
		}
		if err := os.WriteFile(f, raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestQuotaHoldsAtTheDoor(t *testing.T) {
	noLeaks(t)
	cfg := loopbackConfig(t)
	now := time.Unix(1_790_000_000, 0).Truncate(time.Hour).Add(10 * time.Minute)
	cfg.Now = func() time.Time { return now }
	n, _ := openWith(t, cfg)
	for i := range protocol.Quota {
		if _, err := n.Post(t.Context(), api.Draft{Text: fmt.Sprint("note ", i)}); err != nil {
			t.Fatal(err)
		}
	}
	_, err := n.Post(t.Context(), api.Draft{Text: "one more"})
	if r, ok := errors.AsType[*protocol.Rejection](err); !ok || r.Code != protocol.OverQuota {
		t.Errorf("the 31st note of an hour: %v, want OverQuota", err)
	}
	now = now.Add(time.Hour)
	if _, err := n.Post(t.Context(), api.Draft{Text: "an hour later"}); err != nil {
		t.Errorf("an hour later: %v", err)
	}
}

func TestWhatDoesNotTravelIsKeptHereAndSaysSo(t *testing.T) {
	noLeaks(t)
	b := open(t)
	a := open(t, b)
	linked(t, a, 1)
	key, _ := protocol.NewSecretKey(rand.Reader)
	sign := func(kind uint16, age time.Duration) []byte {
		e, err := key.Sign(protocol.Draft{CreatedAt: time.Now().Add(-age).Unix(), Kind: kind, Content: "text"})
		if err != nil {
			t.Fatal(err)
		}
		return e.AppendJSON(nil)
	}
	for _, c := range []struct {
		raw  []byte
		want string
	}{
		{sign(3, 0), "kept here: kind 3 does not travel"},
		{sign(20001, 0), "passed on here: kind 20001 does not travel"},
		{sign(1, time.Hour), "kept here: it is older than 30m0s and is not flooded; peers get it with history"},
		{sign(1, 0), "posted, on its way to 1 peer"},
	} {
		r, err := a.Publish(t.Context(), c.raw)
		if err != nil || r.Message != c.want {
			t.Errorf("Publish() = %q, %v, want %q", r.Message, err, c.want)
		}
	}
	if got := b.store.Stats().Events; got > 1 {
		t.Errorf("b has %d events, want at most the one that travels", got)
	}
}

func TestOnlyAFirstReplacementIsPassedOnAtOnce(t *testing.T) {
	noLeaks(t)
	n := open(t)
	key, _ := protocol.NewSecretKey(rand.Reader)
	now := time.Now()
	profile := func(second int) protocol.Event {
		e, err := key.Sign(protocol.Draft{CreatedAt: now.Unix() + int64(second), Kind: protocol.KindProfile, Content: "{}"})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	for i, want := range []protocol.Code{"", "", protocol.Busy, protocol.Busy} {
		e := profile(i)
		err := n.fromMesh(t.Context(), e.AppendEnvelope(nil), e.Shard())
		r, _ := errors.AsType[*protocol.Rejection](err)
		if got := code(r); got != want {
			t.Errorf("version %d: %q, want %q", i, got, want)
		}
		if _, ok, _ := n.store.Get(e.ID()); !ok {
			t.Errorf("version %d was not kept", i)
		}
	}
	e := profile(0)
	err := n.fromMesh(t.Context(), e.AppendEnvelope(nil), e.Shard())
	if r, _ := errors.AsType[*protocol.Rejection](err); code(r) != protocol.Duplicate {
		t.Errorf("an older version: %v, want Duplicate", err)
	}
}

func code(r *protocol.Rejection) protocol.Code {
	if r == nil {
		return ""
	}
	return r.Code
}

func TestBudgetAsksForWorkOnlyWhenItRunsLow(t *testing.T) {
	now := time.Unix(0, 0)
	b := newBudget(func() time.Time { return now })
	free := 0
	for b.take(0) {
		free++
	}
	stamped := 0
	for b.take(protocol.StampBits) {
		stamped++
	}
	if free < budgetBurst/2-1 || stamped < budgetBurst/2-1 || free+stamped > budgetBurst {
		t.Errorf("%d events without work and %d with it were taken, want half of %d each", free, stamped, budgetBurst)
	}
	now = now.Add(10 * time.Second)
	if !b.take(0) {
		t.Error("the budget does not fill again")
	}
}

func TestHashtags(t *testing.T) {
	for text, want := range map[string][]string{
		"the bridge #Tehran, #می\u200cخواهیم! #a_1": {"tehran", "می\u200cخواهیم", "a_1"},
		"https://x.org/#no a#no ## # #yes#no":       {"yes"},
		"none":                                      nil,
	} {
		if got := hashtags(text); !slices.Equal(got, want) {
			t.Errorf("hashtags(%q) = %q, want %q", text, got, want)
		}
	}
}

// BenchmarkAccept measures the whole door of the mesh but the pubsub library, on all cores: envelopes of many authors,
// all new, all kept. "parse" is the same without node and store, nearly all of it the signature: the ratio of the two
// is the share of the signature-check rate that the accept path reaches.
func BenchmarkAccept(b *testing.B) {
	envelopes, shards := signedEnvelopes(b, 20_000)
	for _, c := range []struct {
		name   string
		accept func(b *testing.B) func(i int) error
	}{
		{"parse", func(*testing.B) func(int) error {
			return func(i int) error {
				_, err := protocol.ParseEnvelope(envelopes[i], protocol.Check{Scope: protocol.Live, Now: time.Now(), Shard: shards[i]})
				return err
			}
		}},
		{"accept", func(b *testing.B) func(int) error {
			n := benchNode(b)
			return func(i int) error { return n.fromMesh(b.Context(), envelopes[i], shards[i]) }
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			events := 0
			for b.Loop() { // all envelopes into a node of its own
				b.StopTimer()
				accept := c.accept(b)
				var next atomic.Int64
				b.StartTimer()
				var wg sync.WaitGroup
				for range 4 * runtime.GOMAXPROCS(0) { // as many as mesh has validators
					wg.Go(func() {
						for i := int(next.Add(1)) - 1; i < len(envelopes); i = int(next.Add(1)) - 1 {
							if err := accept(i); err != nil {
								b.Error(err)
							}
						}
					})
				}
				wg.Wait()
				events += len(envelopes)
			}
			b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

func benchNode(b *testing.B) *Node {
	cfg := DefaultConfig()
	cfg.Dir, cfg.LAN, cfg.API, cfg.Listen = b.TempDir(), false, "", nil
	n, err := Open(cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { n.Close() })
	var tick atomic.Int64
	n.budget = newBudget(func() time.Time { return time.Unix(tick.Add(1), 0) }) // full again at every look
	return n
}

func signedEnvelopes(b *testing.B, count int) (envelopes [][]byte, shards []int) {
	var key protocol.SecretKey
	for i := range count {
		if i%protocol.Quota == 0 {
			key, _ = protocol.NewSecretKey(rand.Reader)
		}
		e, err := key.Sign(protocol.Draft{CreatedAt: time.Now().Unix(), Kind: protocol.KindNote,
			Tags:    []protocol.Tag{{"t", "load"}, {"p", key.PubKey().String()}},
			Content: fmt.Sprintf("note %d with a text of a common length, neither long nor short", i)})
		if err != nil {
			b.Fatal(err)
		}
		envelopes, shards = append(envelopes, e.AppendEnvelope(nil)), append(shards, e.Shard())
	}
	return envelopes, shards
}
