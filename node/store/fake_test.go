package store

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"openline/protocol"
)

// start is the first moment of an hour, when the tests' clocks begin.
var start = time.Unix(1_790_002_800, 0)

// fake makes an event that nobody signed: what the store keeps it does not verify.
func fake(author, created int64, kind uint16, content string, tags ...protocol.Tag) protocol.Event {
	var key [32]byte
	binary.BigEndian.PutUint64(key[:], uint64(author)+1)
	var sig [64]byte
	b := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), key[:])
	b = protowire.AppendBytes(protowire.AppendTag(b, 2, protowire.BytesType), sig[:])
	if created != 0 {
		b = protowire.AppendVarint(protowire.AppendTag(b, 3, protowire.VarintType), uint64(created))
	}
	if kind != 0 {
		b = protowire.AppendVarint(protowire.AppendTag(b, 4, protowire.VarintType), uint64(kind))
	}
	for _, t := range tags {
		var values []byte
		for _, v := range t {
			if raw, err := hex.DecodeString(v); err == nil && len(raw) == 32 {
				values = protowire.AppendBytes(protowire.AppendTag(values, 2, protowire.BytesType), raw)
			} else {
				values = protowire.AppendString(protowire.AppendTag(values, 1, protowire.BytesType), v)
			}
		}
		b = protowire.AppendBytes(protowire.AppendTag(b, 5, protowire.BytesType), values)
	}
	if content != "" {
		b = protowire.AppendString(protowire.AppendTag(b, 6, protowire.BytesType), content)
	}
	e, err := protocol.Load(b)
	if err != nil {
		panic(err)
	}
	return e
}

func note(author, created int64, content string, tags ...protocol.Tag) protocol.Event {
	return fake(author, created, protocol.KindNote, content, tags...)
}

// clock is a clock that stands unless it is moved.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func config(dir string) Config {
	cfg := DefaultConfig()
	cfg.Dir = dir
	cfg.Now = (&clock{start}).now
	return cfg
}

func openStore(t testing.TB, cfg Config) *Store {
	t.Helper()
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func mustPut(t testing.TB, s *Store, o Origin, events ...protocol.Event) {
	t.Helper()
	for _, e := range events {
		if _, err := s.Put(t.Context(), e, o); err != nil {
			t.Fatalf("Put: %v", err)
		}
	}
}

// stored returns what Follow emits before it has caught up.
func stored(t testing.TB, s *Store, most int, filters ...protocol.Filter) []protocol.Event {
	t.Helper()
	var events []protocol.Event
	err := s.Follow(t.Context(), filters, most, func(e protocol.Event) bool {
		events = append(events, e)
		return true
	}, func() bool { return false })
	if err != nil {
		t.Fatalf("Follow: %v", err)
	}
	return events
}

// seeded returns a source of random whose seed stands in the test's output.
func seeded(t testing.TB) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// putTogether puts all events in one group, in their order, and returns the verdicts.
func putTogether(t *testing.T, s *Store, events []protocol.Event, origins []Origin) []error {
	t.Helper()
	begin, release := make(chan struct{}), make(chan struct{})
	stop := &job{do: func(*group) error { close(begin); <-release; return nil }, done: make(chan error, 1)}
	if err := s.enqueue(t.Context(), false, stop); err != nil {
		t.Fatal(err)
	}
	<-begin
	jobs := make([]*job, len(events))
	for i, e := range events {
		jobs[i] = &job{durable: origins[i].waits(), done: make(chan error, 1), do: func(g *group) error {
			_, err := g.put(e, origins[i])
			return err
		}}
		if err := s.enqueue(t.Context(), false, jobs[i]); err != nil {
			t.Fatal(err)
		}
	}
	close(release)
	verdicts := make([]error, len(jobs))
	for i, j := range jobs {
		verdicts[i] = <-j.done
	}
	return verdicts
}

func pointer[T any](v T) *T { return &v }

func address(e protocol.Event, kind uint16, d string) string {
	return fmt.Sprintf("%d:%s:%s", kind, e.PubKey(), d)
}
