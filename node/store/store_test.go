package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"openline/protocol"
)

func TestSecondStoreIsLockedOut(t *testing.T) {
	cfg := config(filepath.Join(t.TempDir(), "new", "events"))
	s := openStore(t, cfg)
	if _, err := Open(cfg); !errors.Is(err, ErrLocked) {
		t.Errorf("Open() = %v, want ErrLocked", err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(cfg.Dir, link); err == nil {
		if _, err := Open(config(link)); !errors.Is(err, ErrLocked) {
			t.Errorf("Open() by another name = %v, want ErrLocked", err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	openStore(t, cfg)
}

func TestUnknownFormatIsRefused(t *testing.T) {
	cfg := config(t.TempDir())
	s := openStore(t, cfg)
	if err := s.db.Set(metaKey(metaFormat), []byte{formatVersion + 1}, pebble.Sync); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(cfg); err == nil || !strings.Contains(err.Error(), "older than the data") {
		t.Errorf("Open() = %v", err)
	}
}

// filled makes a database with tables in it and returns its configuration and the ids of its events.
func filled(t *testing.T) (Config, []protocol.ID) {
	t.Helper()
	cfg := config(t.TempDir())
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var ids []protocol.ID
	for i := range int64(500) {
		e := note(i, start.Unix()-i, fmt.Sprint("note ", i), protocol.Tag{"t", "x"})
		mustPut(t, s, Remote, e)
		ids = append(ids, e.ID())
		if i == 400 {
			if err := s.db.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return cfg, ids
}

func files(t *testing.T, dir, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(names) == 0 {
		t.Fatalf("no %s: %v", pattern, err)
	}
	return names
}

// sums returns the checksum of every file that holds events. Logs whose events are all in tables do not count.
func sums(t *testing.T, dir string, patterns ...string) map[string][32]byte {
	t.Helper()
	m := map[string][32]byte{}
	for _, pattern := range patterns {
		names, _ := filepath.Glob(filepath.Join(dir, pattern))
		for _, name := range names {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			m[name] = sha256.Sum256(b)
		}
	}
	return m
}

// flip damages the byte of a file at this fraction of what is written of it.
func flip(fraction float64) func(*testing.T, string) {
	return func(t *testing.T, name string) {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		written := bytes.TrimRight(b, "\x00")
		b[int(fraction*float64(len(written)-1))] ^= 0x40
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDamageIsReportedAndNothingIsReset(t *testing.T) {
	remove := func(t *testing.T, name string) {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name, file string
		damage     func(*testing.T, string)
	}{
		{"a table, early", "*.sst", flip(0.1)},
		{"a table, at its end", "*.sst", flip(1)},
		{"a table, in the middle", "*.sst", flip(0.5)},
		{"the manifest", "MANIFEST-*", flip(0.5)},
		{"the manifest, at its end", "MANIFEST-*", flip(1)},
		{"a table is missing", "*.sst", remove},
		{"the manifest is missing", "MANIFEST-*", remove},
		{"no manifest is current", "marker.manifest.*", remove},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, ids := filled(t)
			for _, name := range files(t, cfg.Dir, c.file) {
				c.damage(t, name)
			}
			before := sums(t, cfg.Dir, "*.sst", "MANIFEST-*")
			if err := readAll(cfg, ids); !errors.Is(err, ErrDamaged) {
				t.Errorf("%v, want ErrDamaged", err)
			}
			after := sums(t, cfg.Dir, "*.sst", "MANIFEST-*")
			for name, sum := range before {
				if after[name] != sum {
					t.Errorf("%s was changed or removed", filepath.Base(name))
				}
			}
		})
	}
}

// TestDamagedLogOfACrashIsReported damages what was synced early. Of the last 32 KB the engine cannot tell rot from the
// crash itself.
func TestDamagedLogOfACrashIsReported(t *testing.T) {
	cfg, crashed := config(t.TempDir()), t.TempDir()
	s := openStore(t, cfg)
	var ids []protocol.ID
	for i := range int64(200) {
		e := note(i, start.Unix(), "own")
		mustPut(t, s, Own, e)
		ids = append(ids, e.ID())
	}
	if err := os.CopyFS(crashed, os.DirFS(cfg.Dir)); err != nil {
		t.Fatal(err)
	}
	for _, name := range files(t, crashed, "*.log") {
		flip(0.01)(t, name)
	}
	before := sums(t, crashed, "*.sst", "*.log", "MANIFEST-*")
	if err := readAll(config(crashed), ids); !errors.Is(err, ErrDamaged) {
		t.Errorf("%v, want ErrDamaged", err)
	}
	after := sums(t, crashed, "*.sst", "*.log", "MANIFEST-*")
	for name, sum := range before {
		if after[name] != sum {
			t.Errorf("%s was changed or removed", filepath.Base(name))
		}
	}
}

// readAll returns the first error that whoever reads everything meets.
func readAll(cfg Config, ids []protocol.ID) error {
	s, err := Open(cfg)
	if err != nil {
		return err
	}
	defer s.Close()
	for _, id := range ids {
		if _, ok, err := s.Get(id); err != nil {
			return err
		} else if !ok {
			return errors.New("an event is silently gone")
		}
	}
	author := protocol.Filter{Authors: []protocol.PubKey{}}
	for i := range int64(len(ids)) {
		author.Authors = append(author.Authors, note(i, 0, "").PubKey())
	}
	filters := []protocol.Filter{author, {Kinds: []uint16{1}}, {Tags: []protocol.TagFilter{{Letter: 't', Values: []string{"x"}}}}}
	return s.Follow(context.Background(), filters, 1<<20,
		func(protocol.Event) bool { return true }, func() bool { return false })
}

func TestFailedWriteIsAnsweredAndNothingIsWrittenAfterIt(t *testing.T) {
	for _, origin := range []Origin{Own, Remote} {
		t.Run(fmt.Sprint(origin), func(t *testing.T) { failWrite(t, origin) })
	}
}

func failWrite(t *testing.T, origin Origin) {
	full := errorfs.Toggle{Injector: errorfs.ErrInjected.If(errorfs.Writes)}
	cfg := config(t.TempDir())
	s, err := open(cfg, errorfs.Wrap(vfs.Default, &full))
	if err != nil {
		t.Fatal(err)
	}
	kept := note(1, start.Unix(), "kept")
	mustPut(t, s, Own, kept)
	full.On()
	failed := func(err error) bool { return err != nil && strings.Contains(err.Error(), "injected error") }
	// From the network: the engine notices with one of the next writes.
	for i := int64(0); ; i++ {
		_, err := s.Put(t.Context(), note(2+i, start.Unix(), ""), origin)
		if failed(err) {
			break
		}
		if err != nil || origin == Own {
			t.Fatalf("Put() = %v, want the engine's error", err)
		}
	}
	full.Off()
	for _, o := range []Origin{Own, Remote} {
		if _, err := s.Put(t.Context(), note(1, start.Unix(), "later"), o); !failed(err) {
			t.Errorf("Put() after a failed write = %v, want the same error", err)
		}
	}
	if _, ok, err := s.Get(kept.ID()); !ok || err != nil {
		t.Errorf("Get() after a failed write = %v, %v", ok, err)
	}
	if err := s.Close(); !failed(err) {
		t.Errorf("Close() after a failed write = %v, want the same error", err)
	}
	crashed := t.TempDir() // the engine may still have its lock
	if err := os.CopyFS(crashed, os.DirFS(cfg.Dir)); err != nil {
		t.Fatal(err)
	}
	again := openStore(t, config(crashed))
	if n := len(stored(t, again, 10, protocol.Filter{})); n < 1 || again.Stats().Events != uint64(n) {
		t.Errorf("%d events after it, Stats() = %+v", n, again.Stats())
	}
}

func TestOwnEventsStayWithinTheQuotaInWords(t *testing.T) {
	s := openStore(t, config(t.TempDir()))
	for i := range int64(protocol.Quota) {
		mustPut(t, s, Own, note(1, start.Unix()+i, fmt.Sprint(i)))
	}
	for i := range int64(50) { // whatever its id
		_, err := s.Put(t.Context(), note(1, start.Unix(), fmt.Sprint("more", i)), Own)
		next := start.Add(time.Hour).UTC().Format("15:04")
		if want := "30 notes an hour are the most that travel; the next hour begins at " + next + " UTC"; err == nil || err.Error() != want {
			t.Fatalf("Put() = %v, want %s", err, want)
		}
	}
	mustPut(t, s, Own, note(1, start.Unix()+3600, "next hour"), fake(1, start.Unix(), 3, ""), fake(1, start.Unix(), 0, ""))
}

func TestQuotaKeepsTheSameEventsInAnyOrder(t *testing.T) {
	r := seeded(t)
	var events []protocol.Event
	for i := range int64(80) {
		events = append(events, note(1, start.Unix()+i, fmt.Sprint(i)))
	}
	var first []protocol.Event
	for range 3 {
		r.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
		s := openStore(t, config(t.TempDir()))
		for _, e := range events {
			if _, err := s.Put(t.Context(), e, Remote); err != nil && code(err) != protocol.OverQuota {
				t.Fatal(err)
			}
		}
		got := stored(t, s, 100, protocol.Filter{})
		if first == nil {
			first = got
		}
		if len(got) != protocol.Quota || fmt.Sprint(got) != fmt.Sprint(first) {
			t.Errorf("%d events were kept, or others than in another order", len(got))
		}
	}
}

func TestReplacedTellsWhenTheReplacedNewVersionCame(t *testing.T) {
	c := &clock{start}
	cfg := config(t.TempDir())
	cfg.Now = c.now
	s := openStore(t, cfg)
	for i, want := range []time.Time{{}, {}, start.Add(time.Minute)} { // the first version was no replacement
		c.at = start.Add(time.Duration(i) * time.Minute)
		got, err := s.Put(t.Context(), fake(1, start.Unix()+int64(i), 0, "{}"), Remote)
		if err != nil || !got.Replaced.Equal(want) || got.Seq != uint64(i+1) {
			t.Errorf("version %d: %+v, %v, want %v", i, got, err, want)
		}
	}
	_, err := s.Put(t.Context(), fake(1, start.Unix(), 0, "{ }"), Remote)
	if code(err) != protocol.Duplicate || err.Error() != "a newer version is here" {
		t.Errorf("an older version: %v", err)
	}
}

func TestKnownTellsBeforeTheSignatureIsChecked(t *testing.T) {
	s := openStore(t, config(t.TempDir()))
	claim := func(e protocol.Event) protocol.Claim {
		return protocol.Claim{ID: e.ID(), Author: e.PubKey(), Kind: e.Kind()}
	}
	here, gone, other := note(1, start.Unix(), "here"), note(1, start.Unix(), "gone"), note(2, start.Unix(), "other")
	deletion := fake(1, start.Unix(), 5, "", protocol.Tag{"e", gone.ID().String()}, protocol.Tag{"e", other.ID().String()})
	mustPut(t, s, Remote, here, deletion)
	for _, c := range []struct {
		e    protocol.Event
		want protocol.Code
	}{{here, protocol.Duplicate}, {gone, protocol.Deleted}, {other, ""}, {deletion, protocol.Duplicate}} {
		if err := s.Known(claim(c.e)); code(err) != c.want {
			t.Errorf("Known(%s) = %v, want %q", c.e.Content(), err, c.want)
		}
	}
}

func TestTopicsCountAuthorsFirst(t *testing.T) {
	s := openStore(t, config(t.TempDir()))
	now, tag := start.Unix(), func(v string) protocol.Tag { return protocol.Tag{"t", v} }
	mustPut(t, s, Remote, note(1, now, "a", tag("loud"), tag("loud")), note(1, now, "b", tag("loud")), note(1, now, "c", tag("loud")),
		note(1, now-5, "d", tag("heard")), note(2, now-4, "e", tag("heard")), note(3, now-100, "f", tag("old")),
		fake(4, now, 7, "+", tag("loud")))
	got, err := s.Topics(t.Context(), start.Add(-time.Minute), 10)
	want := []TopicCount{{"heard", 2, 2, now - 4}, {"loud", 3, 1, now}}
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("Topics() = %v, %v, want %v", got, err, want)
	}
}

func TestContextEndsALongQuery(t *testing.T) {
	s := openStore(t, config(t.TempDir()))
	for i := range int64(2 * checkEvery) {
		mustPut(t, s, Remote, note(i, start.Unix(), ""))
	}
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	err := s.Follow(ctx, []protocol.Filter{{}}, 1<<20, func(protocol.Event) bool {
		cancel()
		n++
		return true
	}, func() bool { return false })
	if !errors.Is(err, context.Canceled) || n > checkEvery {
		t.Errorf("Follow() = %v after %d events", err, n)
	}
}
