package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"openline/protocol"
)

// TestHandOverHasNoGapAndNoDuplicate starts followers while events are stored: each must see every event exactly once.
func TestHandOverHasNoGapAndNoDuplicate(t *testing.T) {
	s := openStore(t, config(t.TempDir()))
	const writers, each, followers = 4, 300, 40
	var w sync.WaitGroup
	for a := range int64(writers) {
		w.Go(func() {
			for i := range int64(each) {
				// The next author after 20 notes: these shall not meet the quota.
				e := note(a*1000+i/20, start.Unix()-i, fmt.Sprint(i))
				if _, err := s.Put(t.Context(), e, Origin(i%5/4)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for n := range followers {
		w.Go(func() {
			for s.Stats().Seq < uint64(n*writers*each/followers) {
				if err := s.Stamp(t.Context(), protocol.ID{}, 1); err != nil { // waits for a commit
					t.Error(err)
				}
			}
			seen := map[protocol.ID]bool{}
			emit := func(e protocol.Event) bool {
				if seen[e.ID()] {
					t.Errorf("follower %d got an event twice", n)
				}
				seen[e.ID()] = true
				return len(seen) < writers*each
			}
			caught := func() bool { return true }
			if err := s.Follow(t.Context(), []protocol.Filter{{}}, 1<<20, emit, caught); err != nil {
				t.Errorf("follower %d: %v", n, err)
			}
		})
	}
	w.Wait()
}

func TestFollowersOfFewSeeTheirOwn(t *testing.T) {
	s := openStore(t, config(t.TempDir()))
	mustPut(t, s, Own, note(1, start.Unix(), "old"), note(2, start.Unix(), "other"))
	ctx, cancel := context.WithCancel(t.Context())
	var got []string
	f := protocol.Filter{Authors: []protocol.PubKey{note(1, 0, "").PubKey()}, Limit: pointer(0)}
	err := s.Follow(ctx, []protocol.Filter{f}, 100, func(e protocol.Event) bool {
		got = append(got, e.Content())
		if e.Content() == "last" {
			cancel()
		}
		return true
	}, func() bool {
		got = append(got, "|")
		mustPut(t, s, Own, note(1, start.Unix(), "new"), note(2, start.Unix(), "not mine"))
		passed := fake(1, start.Unix(), 20001, "passed")
		if err := s.Pass(t.Context(), passed); err != nil {
			t.Error(err)
		}
		if _, ok, err := s.Get(passed.ID()); ok || err != nil {
			t.Errorf("an ephemeral event was stored: %v", err)
		}
		mustPut(t, s, Remote, note(1, start.Unix(), "last"))
		return true
	})
	if want := "[| new passed last]"; fmt.Sprint(got) != want || !errors.Is(err, context.Canceled) {
		t.Errorf("Follow() emitted %v and returned %v, want %s", got, err, want)
	}
	if n := s.Stats().Seq; n != 5 {
		t.Errorf("Stats().Seq = %d, want 5: what is passed has none", n)
	}
}

func TestExpiredEventsAreHiddenFromFollowers(t *testing.T) {
	c := &clock{start}
	cfg := config(t.TempDir())
	cfg.Now = c.now
	s := openStore(t, cfg)
	soon := protocol.Tag{"expiration", fmt.Sprint(start.Unix() + 10)}
	e := note(1, start.Unix(), "short", soon)
	mustPut(t, s, Own, e)
	if n := len(stored(t, s, 10, protocol.Filter{})); n != 1 {
		t.Errorf("%d events before the expiry, want 1", n)
	}
	c.at = start.Add(10 * 1e9)
	if n := len(stored(t, s, 10, protocol.Filter{})); n != 0 {
		t.Errorf("%d events after the expiry, want none", n)
	}
	if _, err := s.Put(t.Context(), note(1, start.Unix(), "late", soon), Remote); code(err) != protocol.Expired {
		t.Errorf("Put() = %v, want Expired", err)
	}
	if err := s.Pass(t.Context(), fake(1, start.Unix(), 20001, "late", soon)); code(err) != protocol.Expired {
		t.Errorf("Pass() = %v, want Expired", err)
	}
}

// TestWhoLagsIsCutOff also holds that the node does not remember for a stuck follower more than it says.
func TestWhoLagsIsCutOff(t *testing.T) {
	s := openStore(t, config(t.TempDir()))
	pass := func(n int) {
		for range n {
			if err := s.Pass(t.Context(), fake(1, start.Unix(), 20001, "")); err != nil {
				t.Error(err)
			}
		}
	}
	for _, c := range []struct {
		behind int
		want   error
	}{{maxLag, nil}, {maxLag + 2, ErrLagged}} {
		got := 0
		err := s.Follow(t.Context(), []protocol.Filter{{}}, 10, func(protocol.Event) bool {
			if got++; got == 1 {
				pass(c.behind)
			}
			return got <= c.behind
		}, func() bool { pass(1); return true })
		if !errors.Is(err, c.want) {
			t.Errorf("%d behind: Follow() = %v, want %v", c.behind, err, c.want)
		}
	}
}

func TestCloseEndsFollowersAndWaitingPuts(t *testing.T) {
	cfg := config(t.TempDir())
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var w sync.WaitGroup
	live := make(chan struct{})
	w.Go(func() {
		err := s.Follow(t.Context(), []protocol.Filter{{}}, 10, func(protocol.Event) bool { return true }, func() bool { close(live); return true })
		if !errors.Is(err, ErrClosed) {
			t.Errorf("Follow() = %v, want ErrClosed", err)
		}
	})
	<-live
	var mu sync.Mutex
	var kept []protocol.ID
	for a := range int64(8) {
		w.Go(func() {
			for i := int64(0); ; i++ {
				e := note(a*1000+i/20, start.Unix(), fmt.Sprint(i))
				_, err := s.Put(t.Context(), e, Own)
				if errors.Is(err, ErrClosed) {
					return
				}
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				kept = append(kept, e.ID())
				mu.Unlock()
			}
		})
	}
	for s.Stats().Seq < 50 {
		if err := s.Sent(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	w.Wait()
	if err := s.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
	if _, _, err := s.Get(protocol.ID{}); !errors.Is(err, ErrClosed) {
		t.Errorf("Get() after Close = %v, want ErrClosed", err)
	}
	again := openStore(t, cfg)
	for _, id := range kept {
		if _, ok, err := again.Get(id); !ok || err != nil {
			t.Errorf("an acknowledged event is gone: %v", err)
		}
	}
}
