package node

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"openline/node/api"
	"openline/node/store"
	"openline/protocol"
)

// signMany signs n notes spread over the time before until, on all cores, and hands them to keep.
func signMany(t *testing.T, n int, until time.Time, span time.Duration, tag func(i int) string, keep func(protocol.Event) error) {
	t.Helper()
	var g errgroup.Group
	cores := 32 * runtime.GOMAXPROCS(0) // workers: the store commits what comes together
	for c := range cores {
		key, err := protocol.NewSecretKey(rand.New(rand.NewSource(int64(c) + 1)))
		if err != nil {
			t.Fatal(err)
		}
		g.Go(func() error {
			for i := c; i < n; i += cores {
				if i/cores%20 == 0 { // the quota allows 30 an hour
					if key, err = protocol.NewSecretKey(rand.New(rand.NewSource(int64(i) + 10))); err != nil {
						return err
					}
				}
				e, err := key.Sign(protocol.Draft{CreatedAt: until.Unix() - int64(span.Seconds())*int64(i)/int64(n), Kind: protocol.KindNote,
					Tags: []protocol.Tag{{"t", tag(i)}}, Content: fmt.Sprint("an older note, number ", i)})
				if err == nil {
					err = keep(e)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

// TestLateJoinerGetsTheNewestFirst: a node that starts with nothing has the newest hour of a topic at once, while the
// older events still come in behind: 1,000,000 of them in CI, 30,000 elsewhere, because making a million takes minutes.
func TestLateJoinerGetsTheNewestFirst(t *testing.T) {
	older, newest := 30_000, 200
	if os.Getenv("OPENLINE_E2E") != "" && !raceDetector {
		older = 1_000_000
	}
	if testing.Short() || raceDetector {
		older = 3000
	}
	relay := open(t)
	put := func(e protocol.Event) error {
		_, err := relay.store.Put(t.Context(), e, store.Remote)
		if r, ok := errors.AsType[*protocol.Rejection](err); ok && r.Code == protocol.Busy {
			time.Sleep(time.Millisecond)
			_, err = relay.store.Put(t.Context(), e, store.Remote)
		}
		return err
	}
	now := time.Now()
	begun := time.Now()
	signMany(t, older, now.Add(-3*time.Hour), 85*24*time.Hour, func(i int) string { return fmt.Sprint("topic", i%50) }, put)
	t.Logf("%d events made in %v", older, time.Since(begun))
	var last atomic.Value
	signMany(t, newest, now, 30*time.Minute, func(int) string { return "tehran" }, func(e protocol.Event) error {
		last.Store(e)
		return put(e)
	})
	joiner := open(t)
	if _, err := joiner.owner.SetFollow(t.Context(), api.Follow{Topic: "tehran"}, true); err != nil {
		t.Fatal(err)
	}
	begun = time.Now()
	if err := joiner.host.Connect(t.Context(), relay.host.Peerstore().PeerInfo(relay.host.ID())); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	got := map[protocol.ID]bool{}
	err := joiner.store.Follow(ctx, []protocol.Filter{{Tags: []protocol.TagFilter{{Letter: 't', Values: []string{"tehran"}}}}}, 5000,
		func(e protocol.Event) bool { got[e.ID()] = true; return len(got) < newest }, func() bool { return true })
	took, behind := time.Since(begun), joiner.store.Stats().Events
	if err != nil || len(got) < newest {
		t.Fatalf("%d of %d notes of the topic after %v (%v); %d events in all", len(got), newest, took, err, behind)
	}
	t.Logf("the newest %d notes of the topic were there after %v, when %d of %d events had come", newest, took, behind, older+newest)
	if older > 100_000 {
		return // the rest takes minutes
	}
	for end := time.Now().Add(2 * time.Minute); joiner.store.Stats().Events < uint64(older+newest); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d of %d events came", joiner.store.Stats().Events, older+newest)
		}
	}
	t.Logf("all of them after %v", time.Since(begun))
}
