package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"openline/protocol"
)

// childDir names the environment variable that makes the test binary a program that posts until it is killed.
const childDir = "OPENLINE_STORE_TEST_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if err := postForEver(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// postForEver prints the id of each own event when its Put has returned. Events of the network come in between.
func postForEver(dir string) error {
	cfg := DefaultConfig()
	cfg.Dir = dir
	s, err := Open(cfg)
	if err != nil {
		return err
	}
	first := int64(s.Stats().Seq)
	failed := make(chan error)
	var mu sync.Mutex // guards standard output
	for poster := range int64(3) {
		go func() {
			for i := int64(0); ; i++ {
				e := note(first+i, time.Now().Unix(), fmt.Sprint(poster, first, i))
				origin := Origin(i % 2)
				if _, err := s.Put(context.Background(), e, origin); err != nil {
					failed <- err
				}
				if origin == Own {
					mu.Lock()
					fmt.Println(e.ID())
					mu.Unlock()
				}
			}
		}()
	}
	return <-failed
}

func TestNothingAcknowledgedIsLostInACrash(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there is no SIGKILL")
	}
	r, dir := seeded(t), t.TempDir()
	var acknowledged []protocol.ID
	for range 4 {
		before := len(acknowledged)
		acknowledged = append(acknowledged, killChild(t, dir, 1+r.IntN(200))...)
		s, err := Open(config(dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range acknowledged {
			if _, ok, err := s.Get(id); !ok || err != nil {
				t.Errorf("an acknowledged event is gone: %v", err)
			}
		}
		if waiting, err := s.Outbox(1 << 20); err != nil || len(waiting) < len(acknowledged) {
			t.Errorf("Outbox() = %d events, %v, want at least %d", len(waiting), err, len(acknowledged))
		}
		n := uint64(len(stored(t, s, 1<<20, protocol.Filter{})))
		if got := s.Stats().Events; got != n {
			t.Errorf("Stats().Events = %d, want %d", got, n)
		}
		t.Logf("%d acknowledged, %d stored", len(acknowledged)-before, n)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPowerCutTakesOnlyWhatWasNotSynced stands for what SIGKILL cannot do: the system keeps what a killed process wrote.
func TestPowerCutTakesOnlyWhatWasNotSynced(t *testing.T) {
	disk, cfg := vfs.NewCrashableMem(), config(t.TempDir())
	if err := disk.MkdirAll(cfg.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for dir := cfg.Dir; dir != filepath.Dir(dir); {
		dir = filepath.Dir(dir)
		d, err := disk.OpenDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(d.Sync(), d.Close()); err != nil {
			t.Fatal(err)
		}
	}
	s, err := open(cfg, disk)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	own, remote := note(1, start.Unix(), "own"), note(2, start.Unix(), "remote")
	has := func(e protocol.Event) bool {
		after, err := open(cfg, disk.CrashClone(vfs.CrashCloneCfg{}))
		if err != nil {
			t.Fatal(err)
		}
		defer after.Close()
		_, ok, err := after.Get(e.ID())
		if err != nil {
			t.Error(err)
		}
		return ok
	}
	mustPut(t, s, Own, own)
	if !has(own) {
		t.Error("an own event was not on disk when Put returned")
	}
	mustPut(t, s, Remote, remote)
	for deadline := time.Now().Add(10 * syncAfter); !has(remote); time.Sleep(syncAfter / 10) {
		if time.Now().After(deadline) {
			t.Fatal("an event from the network never came to the disk")
		}
	}
}

// killChild kills a posting child after it has printed n ids or more and returns all that it printed.
func killChild(t *testing.T, dir string, n int) []protocol.ID {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childDir+"="+dir)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var ids []protocol.ID
	for in := bufio.NewReader(out); ; {
		line, err := in.ReadString('\n')
		if err != nil {
			break // also of a line that was cut off
		}
		id, err := protocol.ParseID(strings.TrimSpace(line))
		if err != nil {
			t.Fatalf("the child says %q", line)
		}
		if ids = append(ids, id); len(ids) == n {
			if err := child.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = child.Wait() // "signal: killed"
	if len(ids) < n {
		t.Fatalf("the child printed %d ids, want %d", len(ids), n)
	}
	return ids
}
