package store

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"openline/protocol"
	"openline/protocol/reconcile"
)

// inShards returns what View shows from since on, in all shards.
func inShards(t testing.TB, s *Store, from, to int64) (items []reconcile.Item) {
	t.Helper()
	for shard := range protocol.Shards {
		err := s.View(shard, from, to, func(set reconcile.Set) error {
			part, err := set.Items(0, set.Len())
			items = append(items, part...)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	slices.SortFunc(items, reconcile.Item.Compare)
	return items
}

func itemsOf(events []protocol.Event) (items []reconcile.Item) {
	for _, e := range events {
		items = append(items, reconcile.Item{Time: e.CreatedAt(), ID: reconcile.ID(e.ID())})
	}
	slices.SortFunc(items, reconcile.Item.Compare)
	return items
}

func TestViewShowsWhatTravelsWithinTheHours(t *testing.T) {
	r, s := seeded(t), openStore(t, config(t.TempDir()))
	var all []protocol.Event
	for i := range 300 {
		created := start.Unix() - r.Int64N(5*hour)
		e := note(int64(i), created, fmt.Sprint(i), protocol.Tag{"t", fmt.Sprint("topic", i%20)})
		mustPut(t, s, Remote, e)
		mustPut(t, s, Own, fake(int64(i), created, 10002, fmt.Sprint(i))) // stays
		all = append(all, e)
	}
	from, to := start.Unix()-3*hour, start.Unix()-hour
	want := itemsOf(slices.DeleteFunc(slices.Clone(all), func(e protocol.Event) bool { return e.CreatedAt() < from || e.CreatedAt() >= to }))
	if got := inShards(t, s, from, to); !slices.Equal(got, want) {
		t.Errorf("View shows %d items, want %d", len(got), len(want))
	}
	for id, want := range map[protocol.ID]bool{all[0].ID(): true, {1}: false} {
		if got, err := s.Has(id); got != want || err != nil {
			t.Errorf("Has() = %v, %v, want %v", got, err, want)
		}
	}
}

func TestFormatOneIsUpgraded(t *testing.T) {
	cfg := config(t.TempDir())
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var all []protocol.Event
	for i := range 50 {
		all = append(all, note(int64(i), start.Unix()-int64(i)*1000, fmt.Sprint(i)))
	}
	mustPut(t, s, Own, all...)
	want := *s.count.Load()
	b := s.db.NewBatch()
	for _, row := range []byte{rowShard, rowHour} {
		if err := b.DeleteRange([]byte{row}, []byte{row + 1}, nil); err != nil {
			t.Fatal(err)
		}
	}
	_ = b.Set(metaKey(metaFormat), []byte{1}, nil)
	_ = b.Set(metaKey(metaCounters), want.encode()[:24], nil)
	if err := b.Commit(pebble.Sync); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, cfg)
	if got := inShards(t, s, 0, math.MaxInt64); !slices.Equal(got, itemsOf(all)) {
		t.Errorf("%d items after the upgrade, want %d", len(got), len(all))
	}
	got := *s.count.Load()
	if want.commits = got.commits; got != want {
		t.Errorf("counters %+v, want %+v", got, want)
	}
}

// TestEveryOrderEndsInTheSameSet lets stores get the same events in different orders and groups, some live, some late,
// and then exchange what they hold until nothing changes, as history does.
func TestEveryOrderEndsInTheSameSet(t *testing.T) {
	r := seeded(t)
	const nodes = 4
	stores := make([]*Store, nodes)
	for i := range stores {
		cfg := config(t.TempDir())
		cfg.InMemory = true
		stores[i] = openStore(t, cfg)
	}
	var events []protocol.Event
	for i := range 250 {
		author, created := r.Int64N(3), start.Unix()-r.Int64N(2*hour)
		kind := []uint16{1, 1, 1, 1, 6, 7, 0, 5}[r.IntN(8)]
		var tags []protocol.Tag
		for range r.IntN(3) {
			if kind == 5 && len(events) > 0 {
				tags = append(tags, protocol.Tag{"e", events[r.IntN(len(events))].ID().String()})
			}
		}
		events = append(events, fake(author, created, kind, fmt.Sprint(i), tags...))
	}
	for _, s := range stores {
		for _, i := range r.Perm(len(events)) {
			if r.IntN(3) > 0 { // nobody hears everything
				put(t, s, events[i], Remote+Origin(r.IntN(2)))
			}
		}
	}
	for rounds := 0; exchange(t, r, stores); rounds++ {
		if rounds > 50 {
			t.Fatal("it does not come to rest: something is offered and refused for ever")
		}
	}
	want := inShards(t, stores[0], 0, math.MaxInt64)
	for i, s := range stores[1:] {
		if got := inShards(t, s, 0, math.MaxInt64); !slices.Equal(got, want) {
			t.Errorf("node %d holds %d events, node 0 %d", i+1, len(got), len(want))
		}
	}
	t.Logf("%d of %d events stay", len(want), len(events))
}

// put stores e or not; only a verdict may refuse it.
func put(t *testing.T, s *Store, e protocol.Event, o Origin) bool {
	t.Helper()
	_, err := s.Put(t.Context(), e, o)
	if err != nil && code(err) == "" {
		t.Fatal(err)
	}
	return err == nil
}

// exchange brings each pair together once and reports whether anything changed.
func exchange(t *testing.T, r *rand.Rand, stores []*Store) (changed bool) {
	for _, i := range r.Perm(len(stores)) {
		for _, j := range r.Perm(len(stores)) {
			if i == j {
				continue
			}
			for _, e := range stored(t, stores[i], math.MaxInt32, protocol.Filter{}) {
				changed = put(t, stores[j], e, Remote) || changed
			}
		}
	}
	return changed
}

// TestWithdrawingIsPossibleWhenTheQuotaIsUsedUp: whoever is in danger for a note must not wait for the next hour.
func TestWithdrawingIsPossibleWhenTheQuotaIsUsedUp(t *testing.T) {
	s := openStore(t, config(t.TempDir()))
	var last protocol.Event
	for i := range protocol.Quota {
		last = note(1, start.Unix(), fmt.Sprint(i))
		mustPut(t, s, Own, last)
	}
	mustPut(t, s, Own, fake(1, start.Unix()+1, protocol.KindDeletion, "", protocol.Tag{"e", last.ID().String()}))
	if _, ok, err := s.Get(last.ID()); ok || err != nil {
		t.Errorf("the note is still here (%v)", err)
	}
}

func retained(t *testing.T, r Retention) (*Store, *clock) {
	cfg, c := config(t.TempDir()), &clock{start}
	cfg.Now, cfg.Retention = c.now, r
	return openStore(t, cfg), c
}

func TestStrangersAgeAndTheRestStays(t *testing.T) {
	followed := note(7, 0, "").PubKey()
	s, c := retained(t, Retention{Age: 90 * 24 * time.Hour, KeepOwn: true,
		Keep: func(e protocol.Event) bool { return e.PubKey() == followed }})
	old, young := start.Unix()-91*24*hour, start.Unix()-89*24*hour
	own, wanted, stranger, fresh := note(1, old, "own"), note(7, old, "followed"), note(2, old, "stranger"), note(2, young, "young")
	gone := note(3, young, "withdrawn")
	deletion := fake(3, old-2*hour, protocol.KindDeletion, "", protocol.Tag{"e", gone.ID().String()})
	mustPut(t, s, Own, own)
	mustPut(t, s, Remote, wanted, stranger, fresh, deletion)
	mustPut(t, s, Remote, note(4, start.Unix(), "now"))
	if n, err := s.Trim(t.Context()); n != 2 || err != nil {
		t.Fatalf("Trim() = %d, %v, want 2: the stranger's and a deletion", n, err)
	}
	for name, want := range map[string]struct {
		protocol.Event
		here bool
	}{"own": {own, true}, "followed": {wanted, true}, "stranger": {stranger, false}, "young": {fresh, true}} {
		if _, ok, err := s.Get(want.ID()); ok != want.here || err != nil {
			t.Errorf("%s: here = %v, %v, want %v", name, ok, err, want.here)
		}
	}
	horizon := start.Add(-90 * 24 * time.Hour).Unix()
	if got := s.Stats(); got.Horizon != horizon || got.Evicted != 2 {
		t.Errorf("Stats() = %+v, want horizon %d and 2 evicted", got, horizon)
	}
	if _, err := s.Put(t.Context(), stranger, Remote); code(err) != protocol.Stale {
		t.Errorf("what was evicted is taken again: %v", err)
	}
	if items := inShards(t, s, 0, math.MaxInt64); len(items) != 2 {
		t.Errorf("%d items are shown to peers, want the 2 above the horizon", len(items))
	}
	c.at = c.at.AddDate(10, 0, 0)
	if n, err := s.Trim(t.Context()); n > 1 || err != nil {
		t.Errorf("a clock that jumped ahead costs %d events (%v)", n, err)
	}
	c.at = start.AddDate(-1, 0, 0)
	if _, err := s.Trim(t.Context()); err != nil || s.Horizon() < horizon {
		t.Errorf("a clock set back moves the horizon from %d to %d (%v)", horizon, s.Horizon(), err)
	}
}

func TestDeletionsStayLongerThanWhatTheyWithdraw(t *testing.T) {
	s, _ := retained(t, Retention{Age: 90 * 24 * time.Hour})
	target := note(3, start.Unix()-90*24*hour-600, "withdrawn")
	mustPut(t, s, Remote, fake(3, target.CreatedAt()+30, protocol.KindDeletion, "", protocol.Tag{"e", target.ID().String()}))
	mustPut(t, s, Remote, note(4, start.Unix(), "now"))
	if n, err := s.Trim(t.Context()); n != 0 || err != nil {
		t.Fatalf("Trim() = %d, %v", n, err)
	}
	if err := s.Known(protocol.Claim{ID: target.ID(), Author: target.PubKey(), Kind: 1}); code(err) != protocol.Deleted {
		t.Errorf("the withdrawn note may come back: %v", err)
	}
}

func TestCapEvictsTheOldestStrangers(t *testing.T) {
	s, _ := retained(t, Retention{Bytes: 300_000, KeepOwn: true})
	var strangers []protocol.Event
	for i := range 2000 {
		e := note(int64(i), start.Unix()-int64(i)*60, "a stranger's note of some length")
		mustPut(t, s, Remote, e)
		strangers = append(strangers, e)
	}
	own := note(99_999, start.Unix()-1_000_000, "own")
	mustPut(t, s, Own, own)
	before := s.Stats()
	n, err := s.Trim(t.Context())
	after := s.Stats()
	if err != nil || n == 0 || after.Logical > 300_000 || after.Logical < 250_000 {
		t.Fatalf("Trim() = %d, %v: %d bytes of %d stay", n, err, after.Logical, before.Logical)
	}
	for i, e := range strangers {
		if _, ok, _ := s.Get(e.ID()); ok != (e.CreatedAt() >= after.Horizon) {
			t.Fatalf("stranger %d: here = %v, horizon %d, created %d", i, ok, after.Horizon, e.CreatedAt())
		}
	}
	if _, ok, _ := s.Get(own.ID()); !ok {
		t.Error("an own event was evicted")
	}
	t.Logf("%d bytes logical and %d on disk became %d and %d", before.Logical, before.Bytes, after.Logical, after.Bytes)
}

func TestRaisedCapLiftsTheHorizon(t *testing.T) {
	cfg := config(t.TempDir())
	cfg.Retention.Bytes = 50_000
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 500 {
		mustPut(t, s, Remote, note(int64(i), start.Unix()-int64(i)*600, "note"))
	}
	if n, err := s.Trim(t.Context()); n == 0 || err != nil {
		t.Fatalf("Trim() = %d, %v", n, err)
	}
	horizon := s.Horizon()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(cfg); err != nil || s.Horizon() != horizon {
		t.Fatalf("opened anew the horizon is %d (%v), want %d", s.Horizon(), err, horizon)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	cfg.Retention.Bytes = 500_000
	if s := openStore(t, cfg); s.Horizon() != 0 {
		t.Errorf("with a greater cap the horizon is %d, want 0", s.Horizon())
	}
}

// TestTrimGivesDiskBack: removing rows makes files longer until the engine is told to compact them.
func TestTrimGivesDiskBack(t *testing.T) {
	s, _ := retained(t, Retention{Bytes: 1 << 20})
	events, origins := make([]protocol.Event, 500), make([]Origin, 500)
	for n := range 30 {
		for i := range events {
			k := n*len(events) + i
			events[i], origins[i] = note(int64(k), start.Unix()-int64(k)*60, fmt.Sprint("a stranger's note that does not compress well ", k*7919, k*104729)), Remote
		}
		for _, err := range putTogether(t, s, events, origins) {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.db.Flush(); err != nil {
		t.Fatal(err)
	}
	tables := func() uint64 { // without the engine's log, which keeps some megabytes in any case
		m := s.db.Metrics().Table.Local
		return m.LiveSize + m.ObsoleteSize + m.ZombieSize
	}
	before := tables()
	if n, err := s.Trim(t.Context()); n < 10_000 || err != nil {
		t.Fatalf("Trim() = %d, %v", n, err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) { // files in use go a little later
		after := tables()
		if after < before/4 {
			t.Logf("%d bytes of tables became %d", before, after)
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d bytes of tables became %d", before, after)
		}
	}
}
