// Package store keeps events. It has one writer; whoever follows new events follows the store. What may stay beside what
// (duplicates, deletions, replacements, the quota) is decided by the writer and nowhere else, in the order of arrival,
// so that no two goroutines can let in what excludes each other.
//
// It refuses what was already verified to be an event but is known, withdrawn, outdated, expired or beyond its author's
// quota, and it never repairs or resets a damaged database: it says ErrDamaged. A censor who takes the disk finds every
// event in the clear, and in the outbox which of them were posted here and have not left yet.
//
// The engine is Pebble v2, pure Go. BenchmarkEngine, two shared cores, 16 MB of cache, signatures checked, seven keys
// an event, every group synced; events/s by events in a group, then queries/s for the newest 100 of a topic in 50,000:
//
//	                1      16     128   topic
//	Pebble v2   2,440   4,610   5,030   3,650
//	bbolt       1,300   3,390   4,570   5,370
//	SQLite      1,820   3,830   4,440   1,080   (modernc.org/sqlite, WAL, synchronous=FULL)
//
// The signature alone bounds all of them to about 6,000 on that machine. bbolt reads faster, from the page cache, but
// pays for every small group and rewrites pages all over the file, which wears out phones; a reader's long transaction
// makes its file grow.
package store

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"openline/protocol"
)

var (
	ErrLocked  = errors.New("another process has the events open")
	ErrDamaged = errors.New("the stored events are damaged")
	ErrLagged  = errors.New("too slow for the flow of new events")
	ErrClosed  = errors.New("the store is closed")
)

// Config says where events are kept and with how much memory.
type Config struct {
	Dir        string           // the directory of the database, made when missing (0700)
	Now        func() time.Time // nil: time.Now
	Log        *slog.Logger     // nil: discards
	CacheBytes int64            // of blocks read from disk
	InMemory   bool             // keeps nothing: for trials. Dir is only a name then
	Retention  Retention
}

// DefaultConfig returns a Config for a daemon that shall stay under 64 MB; only Dir is missing.
func DefaultConfig() Config {
	return Config{Now: time.Now, Log: slog.New(slog.DiscardHandler), CacheBytes: 16 << 20}
}

// Store keeps events. Its methods may be called by any number of goroutines.
type Store struct {
	db   *pebble.DB
	disk *disk
	now  func() time.Time
	log  *slog.Logger
	feed *feed

	inbox   chan *job
	closing chan struct{} // closed when Close begins
	stopped chan struct{} // closed when the writer has answered everybody it will
	broken  error         // of the engine, nothing is written after it; the writer's until stopped is closed

	retention Retention
	horizon   atomic.Int64 // see Trim
	swept     atomic.Bool  // Trim has looked at everything below the horizon since the store was opened
	kept      [protocol.Shards]keptHours
	vectors   vectors

	count   atomic.Pointer[counters] // of what was committed last
	syncing atomic.Uint64            // the first seq of the own events that are on their way to the disk; MaxUint64: none are

	mu      sync.Mutex // guards the fields below
	closed  bool
	readers sync.WaitGroup // those within the engine; nobody joins once closed is set
}

// Open opens the events in cfg.Dir and starts the writer. The error is ErrLocked when another Store has them,
// ErrDamaged when the engine finds them corrupt; then nothing was repaired, reset or removed.
func Open(cfg Config) (*Store, error) {
	if cfg.InMemory {
		return open(cfg, vfs.NewMem())
	}
	return open(cfg, vfs.Default)
}

// open is Open on any file system, so that tests can have one that fails.
func open(cfg Config, files vfs.FS) (*Store, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	db, disk, err := openEngine(cfg, files)
	if err != nil {
		return nil, fmt.Errorf("open the events in %s: %w", cfg.Dir, err)
	}
	s := &Store{
		db: db, disk: disk, now: cfg.Now, log: cfg.Log, feed: newFeed(), retention: cfg.Retention,
		inbox:   make(chan *job, inboxSize),
		closing: make(chan struct{}), stopped: make(chan struct{}),
	}
	s.syncing.Store(math.MaxUint64)
	c, err := readCounters(db)
	if err == nil {
		err = s.readHorizon()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the events in %s: %w", cfg.Dir, err), db.Close())
	}
	s.count.Store(&c)
	if disk.readOnly {
		s.broken = ErrReadOnly
		s.log.Warn("the events can only be read", "error", s.broken)
	}
	go s.write()
	return s, nil
}

func readCounters(r pebble.Reader) (counters, error) {
	b, err := lookup(r, metaKey(metaCounters))
	if err != nil {
		return counters{}, err
	}
	return decodeCounters(b)
}

// Close ends every Follow with ErrClosed, waits for the writer and for readers, and closes the engine. A Put that waits
// is either committed or answered ErrClosed. A second Close does nothing.
func (s *Store) Close() error {
	s.mu.Lock()
	again := s.closed
	s.closed = true
	s.mu.Unlock()
	if again {
		return nil
	}
	close(s.closing)
	close(s.disk.stop)
	<-s.stopped
	s.readers.Wait()
	if s.broken != nil && !s.disk.readOnly {
		return s.broken // the engine cannot be closed: see apply. Its log is replayed at the next start
	}
	return wrap(s.db.Close())
}

// enter keeps the engine open until leave, because the engine panics when it is used after its end.
func (s *Store) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	s.readers.Add(1)
	return nil
}

func (s *Store) leave() { s.readers.Done() }

// Stats says how much there is.
type Stats struct {
	Events uint64 // with those that expired and were not yet purged
	Bytes  int64  // on disk
	Seq    uint64 // of the last event stored
	Outbox int

	Logical  uint64 // bytes of the events' rows before compression, which Retention.Bytes bounds
	Evicted  uint64 // events that Trim removed, ever
	Full     bool   // the disk is, and nothing new is taken until it has space again
	ReadOnly bool   // the directory cannot be written to
	Horizon  int64  // Unix seconds: since when everything is kept that came; 0: nothing was removed
}

// Stats is cheap. Bytes is 0 after Close.
func (s *Store) Stats() Stats {
	_ = s.disk.look() // isFull says what it found
	c := s.count.Load()
	stats := Stats{Events: c.events, Seq: c.seq, Outbox: int(c.outbox),
		Logical: c.bytes, Evicted: c.evicted, Horizon: s.horizon.Load(), Full: s.disk.isFull(), ReadOnly: s.disk.readOnly}
	if s.enter() == nil {
		defer s.leave()
		stats.Bytes = int64(s.db.Metrics().DiskSpaceUsage())
	}
	return stats
}
