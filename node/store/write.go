package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"openline/protocol"
)

const (
	// inboxSize is how many jobs wait for the writer. When it is full, Own and maintenance wait and Remote is refused
	// with Busy: a client has posted once and for all, but what the network sends comes again with history.
	inboxSize = 1024

	// groupJobs is how many jobs share one commit. More gains nothing (see the package comment) and delays the first.
	groupJobs = 256

	// syncAfter is how long events from the network stay unsynced. A sync for each would wear out phones' storage,
	// and what a crash takes, history brings back.
	syncAfter = time.Second
)

// Origin says who vouches for an event, and so what Put's return means.
type Origin int

const (
	Own     Origin = iota // posted by a client of this node: Put returns when it is durable, and it enters the outbox if it travels
	Remote                // from the network: Put returns as soon as the verdict stands and readers see it, before the sync
	Carried               // from a bundle that the user brought: durable and into the outbox as Own, judged as Remote
)

// waits reports whether Put returns only when the event is durable.
func (o Origin) waits() bool { return o != Remote }

// leaves reports whether events are to be flooded by this node.
func (o Origin) leaves() bool { return o != Remote }

// Stored says what became of an event.
type Stored struct {
	Seq      uint64    // ascending in the order of storing
	Replaced time.Time // when the new version that this one replaced had arrived; zero if it replaced none, or a first version
}

// Put stores e. The error is a *protocol.Rejection (Duplicate, Deleted, OverQuota, Expired; Busy for Remote alone; Stale
// for what is not Own and below the horizon, see Trim), ErrFull, ctx's error, after which e may yet be stored, ErrClosed, or what the engine says. After a failed write the store only
// answers that failure until it is opened anew. Ephemeral events are for Pass.
func (s *Store) Put(ctx context.Context, e protocol.Event, o Origin) (Stored, error) {
	if protocol.Ephemeral(e.Kind()) {
		return Stored{}, fmt.Errorf("events of kind %d are not stored", e.Kind())
	}
	var stored Stored
	if err := s.tooOld(e, o); err != nil {
		return Stored{}, err
	}
	err := s.submit(ctx, o == Remote, &job{durable: o.waits(), do: func(g *group) (err error) {
		stored, err = g.put(e, o)
		return err
	}})
	if err != nil {
		return Stored{}, err // and do not look at stored: after ctx's end the writer may be at it
	}
	return stored, nil
}

// Sent takes events out of the outbox; those that are not in it are passed over. It returns before the sync: what a
// crash puts back into the outbox is flooded once more.
func (s *Store) Sent(ctx context.Context, ids ...protocol.ID) error {
	return s.submit(ctx, false, &job{do: func(g *group) error { return g.sent(ids) }})
}

// Stamp gives the stored event this nonce, if it is here and has none. It returns before the sync.
func (s *Store) Stamp(ctx context.Context, id protocol.ID, nonce uint64) error {
	return s.submit(ctx, false, &job{do: func(g *group) error { return g.stamp(id, nonce) }})
}

// job is something for the writer to do.
type job struct {
	do      func(*group) error // decides and writes; a Rejection leaves no rows, any other error fails the whole group
	durable bool               // answered after the sync
	frees   bool               // done on a full disk too
	err     error
	done    chan error // gets one answer
}

// submit hands j to the writer and waits for the answer. Busy: refuse rather than wait for room in the inbox.
func (s *Store) submit(ctx context.Context, busy bool, j *job) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	j.done = make(chan error, 1)
	if err := s.enqueue(ctx, busy, j); err != nil {
		return err
	}
	select {
	case err := <-j.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-s.whenFull(j):
		return fmt.Errorf("%w; what waits is kept when there is space", ErrFull)
	case <-s.stopped:
	}
	select {
	case err := <-j.done:
		return err
	default:
		return ErrClosed // j came into the inbox after the writer had looked for the last time
	}
}

// whenFull returns what ends the waiting for j when the disk is full; for what frees space, nothing does.
func (s *Store) whenFull(j *job) <-chan struct{} {
	if j.frees {
		return nil
	}
	return s.disk.whenFull()
}

func (s *Store) enqueue(ctx context.Context, busy bool, j *job) error {
	select {
	case <-s.closing:
		return ErrClosed
	default:
	}
	if busy {
		select {
		case s.inbox <- j:
			return nil
		default:
			return protocol.Reject(protocol.Busy, "the store has more to write than it can")
		}
	}
	select {
	case s.inbox <- j:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-s.closing:
		return ErrClosed
	}
}

// writer is the one goroutine that writes. Its fields are its own.
type writer struct {
	*Store
	space    error            // ErrFull when there was none at the last look
	unsynced <-chan time.Time // fires when what was committed must be synced; nil when everything is
}

func (s *Store) write() {
	defer close(s.stopped)
	w := writer{Store: s}
	for {
		select {
		case j := <-s.inbox:
			w.serve(w.gather(j))
		case <-w.unsynced:
			w.sync()
		case <-s.closing:
			w.finish()
			return
		}
	}
}

// finish answers everybody who is in the inbox. It leaves the engine's log empty: of its last entries the engine cannot
// tell rot from a crash and would drop them without a word.
func (w *writer) finish() {
	for len(w.inbox) > 0 {
		j := <-w.inbox
		j.done <- ErrClosed
	}
	w.sync()
	if w.broken != nil {
		return
	}
	if err := w.db.Flush(); err != nil {
		w.log.Error("the engine's log stays for the next start", "error", err)
	}
}

// gather adds to first whatever waits already.
func (w *writer) gather(first *job) []*job {
	jobs := []*job{first}
	for len(jobs) < groupJobs {
		select {
		case j := <-w.inbox:
			jobs = append(jobs, j)
		default:
			return jobs
		}
	}
	return jobs
}

// serve decides about all jobs of a group, commits once and answers: whoever need not wait for the sync, then the
// others. Followers come last, so that they never see an event that is not durable and never hold up an answer.
func (w *writer) serve(jobs []*job) {
	g := newGroup(w.db, w.now(), *w.count.Load())
	durable := false
	w.space = w.disk.look()
	for _, j := range jobs {
		switch {
		case w.broken == nil && w.space != nil && !j.frees:
			j.err = w.space
			continue
		case w.broken == nil:
			j.err = j.do(g)
		}
		if err := failure(w.broken, j.err); err != nil {
			_ = g.batch.Close() // with all that the group had decided
			answerAll(jobs, err)
			return
		}
		durable = durable || j.durable
	}
	if g.batch.Empty() && (!durable || w.unsynced == nil) {
		_ = g.batch.Close()
		answer(jobs, true)
		answer(jobs, false)
		return
	}
	if err := w.commit(g, durable, func() { answer(jobs, false) }); err != nil {
		answerAll(jobs, err)
		return
	}
	answer(jobs, true)
	w.feed.publish(g.fresh)
}

// failure returns the first error that is no verdict.
func failure(errs ...error) error {
	for _, err := range errs {
		if _, verdict := errors.AsType[*protocol.Rejection](err); err != nil && !verdict {
			return err
		}
	}
	return nil
}

// answer tells the jobs that wait for the sync, or those that do not.
func answer(jobs []*job, durable bool) {
	for _, j := range jobs {
		if j.durable == durable {
			j.done <- j.err
		}
	}
}

// answerAll tells err to whoever had no answer yet.
func answerAll(jobs []*job, err error) {
	for _, j := range jobs {
		select {
		case j.done <- err:
		default: // its one place is taken by the answer
		}
	}
}

// commit makes g visible, calls visible, and when asked to makes everything so far durable. An error is final.
func (w *writer) commit(g *group, durable bool, visible func()) error {
	if !g.batch.Empty() {
		g.count.commits++
		g.setHours()
		g.set(metaKey(metaCounters), g.count.encode())
	}
	if durable {
		w.syncing.Store(w.count.Load().seq + 1)
	}
	if err := w.apply(g.batch, durable); err != nil {
		return w.fail(err)
	}
	w.count.Store(&g.count)
	visible()
	if !durable {
		if w.unsynced == nil {
			w.unsynced = time.After(syncAfter)
		}
		return wrap(g.batch.Close())
	}
	if err := g.batch.SyncWait(); err != nil {
		return w.fail(err)
	}
	w.syncing.Store(math.MaxUint64)
	w.unsynced = nil
	return wrap(g.batch.Close())
}

// sync makes everything so far durable: the sync of an entry in the engine's log covers what stands before it.
func (w *writer) sync() {
	if w.unsynced == nil || w.broken != nil {
		return
	}
	g := newGroup(w.db, w.now(), *w.count.Load())
	if err := w.commit(g, true, func() {}); err != nil {
		w.log.Error("events from the network are not on disk", "error", err)
	}
}

// apply hands the batch to the engine, which knows no answer but a panic when its log could not be written. Recovering
// is safe for readers alone: the engine may hold the lock of its writers for ever, and fail sees to it that there are none.
func (w *writer) apply(b *pebble.Batch, durable bool) (err error) {
	defer func() {
		r := recover()
		failed, isError := r.(error)
		_, bug := r.(runtime.Error)
		switch {
		case r == nil:
		case isError && !bug:
			err = failed
		default:
			panic(r)
		}
	}()
	if !durable {
		return w.db.Apply(b, pebble.NoSync)
	}
	if b.Empty() {
		if err := b.LogData(nil, nil); err != nil {
			return err
		}
	}
	return w.db.ApplyNoSyncWait(b, pebble.Sync)
}

// fail makes err the answer to everything from now on.
func (w *writer) fail(err error) error {
	w.broken = fmt.Errorf("write events: %w", wrap(err))
	w.log.Error("the store cannot write any more", "error", err)
	return w.broken
}
