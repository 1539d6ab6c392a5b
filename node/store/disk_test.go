package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"openline/protocol"
)

// small is a file system in memory that can be full.
type small struct {
	vfs.FS
	free atomic.Int64
}

func (s *small) GetDiskUsage(string) (vfs.DiskUsage, error) {
	return vfs.DiskUsage{AvailBytes: uint64(s.free.Load())}, nil
}

func writes(k errorfs.OpKind) bool {
	switch k {
	case errorfs.OpCreate, errorfs.OpFileWrite, errorfs.OpFileWriteAt, errorfs.OpReuseForWrite, errorfs.OpLink, errorfs.OpRename:
		return true
	}
	return false
}

// TestFullDiskRefusesAndRecovers: nothing that was confirmed is lost, readers are served, and when there is space again
// the store goes on by itself. Once the system says so before, once a write fails in the middle.
func TestFullDiskRefusesAndRecovers(t *testing.T) {
	for name, suddenly := range map[string]bool{"seen before": false, "in the middle of a write": true} {
		t.Run(name, func(t *testing.T) {
			var full atomic.Bool
			files := &small{FS: errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
				if full.Load() && writes(op.Kind) {
					return syscall.ENOSPC
				}
				return nil
			}))}
			files.free.Store(1 << 30)
			cfg := config("full")
			cfg.InMemory = true
			s, err := open(cfg, files)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			before := note(1, start.Unix(), "before")
			mustPut(t, s, Own, before)
			if suddenly {
				full.Store(true)
			} else {
				files.free.Store(reserve - 1)
				time.Sleep(spaceEvery) // the last look was before
			}
			during := note(2, start.Unix(), "during")
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if _, err := s.Put(ctx, during, Own); !errors.Is(err, ErrFull) {
				t.Fatalf("Put() = %v, want ErrFull", err)
			}
			if _, ok, err := s.Get(before.ID()); !ok || err != nil {
				t.Errorf("on a full disk Get() = %v, %v", ok, err)
			}
			if !s.Stats().Full {
				t.Error("Stats() does not say that the disk is full")
			}
			full.Store(false)
			files.free.Store(1 << 30)
			after := note(3, start.Unix(), "after")
			for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
				if _, err = s.Put(t.Context(), after, Own); err == nil || code(err) == protocol.Duplicate {
					break
				}
				if !errors.Is(err, ErrFull) || time.Now().After(end) {
					t.Fatalf("with space again Put() = %v", err)
				}
			}
			for _, e := range []protocol.Event{before, after} {
				if _, ok, err := s.Get(e.ID()); !ok || err != nil {
					t.Errorf("with space again Get() = %v, %v", ok, err)
				}
			}
			if s.Stats().Full {
				t.Error("Stats() still says that the disk is full")
			}
		})
	}
}

// TestFullDiskCanBeTrimmed: what frees space must not wait for space.
func TestFullDiskCanBeTrimmed(t *testing.T) {
	files := &small{FS: vfs.NewMem()}
	files.free.Store(1 << 30)
	cfg := config("full")
	cfg.InMemory, cfg.Retention.Age = true, 90*24*time.Hour
	s, err := open(cfg, files)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	mustPut(t, s, Remote, note(1, start.Unix()-91*24*hour, "old"), note(2, start.Unix(), "new"))
	files.free.Store(0)
	time.Sleep(spaceEvery)
	if n, err := s.Trim(t.Context()); n != 1 || err != nil {
		t.Errorf("Trim() = %d, %v on a full disk, want 1", n, err)
	}
}

// TestReadOnlyDirectoryIsServedForReading: a stick with its lock on, or a disk that the system has locked.
func TestReadOnlyDirectoryIsServedForReading(t *testing.T) {
	var locked atomic.Bool
	files := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if locked.Load() && (writes(op.Kind) || op.Kind == errorfs.OpLock || op.Kind == errorfs.OpRemove) {
			return syscall.EROFS
		}
		return nil
	}))
	cfg := config("locked")
	cfg.InMemory = true
	s, err := open(cfg, files)
	if err != nil {
		t.Fatal(err)
	}
	e := note(1, start.Unix(), "kept")
	mustPut(t, s, Own, e)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	locked.Store(true)
	if s, err = open(cfg, files); err != nil {
		t.Fatalf("a directory that can only be read does not open: %v", err)
	}
	if _, ok, err := s.Get(e.ID()); !ok || err != nil {
		t.Errorf("Get() = %v, %v", ok, err)
	}
	if _, err := s.Put(t.Context(), note(2, start.Unix(), "new"), Own); !errors.Is(err, ErrReadOnly) {
		t.Errorf("Put() = %v, want ErrReadOnly", err)
	}
	if !s.Stats().ReadOnly {
		t.Error("Stats() does not say that the directory can only be read")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestCrashAtEverySync takes the disk as a power cut would leave it at each sync, with none, some or all of what was not
// synced, and looks whether all that was confirmed until then is there.
func TestCrashAtEverySync(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for _, percent := range []int{0, 50, 100} {
		t.Run(fmt.Sprintf("%d percent of the rest", percent), func(t *testing.T) { crashAtEverySync(t, seed, percent) })
	}
}

func crashAtEverySync(t *testing.T, seed uint64, percent int) {
	mem := vfs.NewCrashableMem()
	if err := mem.MkdirAll("crash", 0o700); err != nil {
		t.Fatal(err)
	}
	root, err := mem.OpenDir("")
	if err != nil {
		t.Fatal(err)
	}
	if err := root.Sync(); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex // guards the fields below
	var confirmed []protocol.ID
	type crash struct {
		disk      *vfs.MemFS
		confirmed int
		at        string
	}
	var crashes []crash
	files := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSyncTo {
			mu.Lock()
			defer mu.Unlock()
			if len(crashes) < 200 {
				cfg := vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(seed, uint64(len(crashes))))}
				crashes = append(crashes, crash{mem.CrashClone(cfg), len(confirmed), op.Path})
			}
		}
		return nil
	}))
	cfg := config("crash")
	cfg.InMemory = true
	s, err := open(cfg, files)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 120 {
		e := note(int64(i), start.Unix()+int64(i), "confirmed")
		if _, err := s.Put(t.Context(), e, Own); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		confirmed = append(confirmed, e.ID())
		mu.Unlock()
		if i%40 == 39 {
			if err := s.db.Flush(); err != nil { // tables and the manifest are synced too
				t.Fatal(err)
			}
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	places := map[string]bool{}
	for i, c := range crashes {
		places[c.at[strings.LastIndex(c.at, ".")+1:]] = true
		after, err := open(cfg, c.disk)
		if errors.Is(err, ErrDamaged) && c.confirmed == 0 {
			continue // it was being made and held nothing
		}
		if err != nil {
			t.Fatalf("after crash %d at %s: %v", i, c.at, err)
		}
		for j, id := range confirmed[:c.confirmed] {
			if _, ok, err := after.Get(id); !ok || err != nil {
				t.Errorf("after crash %d at %s event %d of %d is gone (%v)", i, c.at, j, c.confirmed, err)
			}
		}
		if err := after.Close(); err != nil {
			t.Error(err)
		}
	}
	if len(crashes) < 60 || !places["log"] || !places["sst"] {
		t.Errorf("%d crashes at %v", len(crashes), places)
	}
	t.Logf("%d crashes", len(crashes))
}

// TestClockSetBackLosesNothing: nothing is judged by the clock that was already taken.
func TestClockSetBackLosesNothing(t *testing.T) {
	c, cfg := &clock{start}, config(t.TempDir())
	cfg.Now, cfg.Retention.Age = c.now, 90*24*time.Hour
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	e := note(1, start.Unix(), "before the clock went back")
	mustPut(t, s, Own, e)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	c.at = start.AddDate(-20, 0, 0)
	s = openStore(t, cfg)
	if _, err := s.Trim(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := stored(t, s, 10, protocol.Filter{}); len(got) != 1 || got[0].ID() != e.ID() {
		t.Errorf("%d events are left", len(got))
	}
	mustPut(t, s, Own, note(1, c.at.Unix(), "after"))
}
