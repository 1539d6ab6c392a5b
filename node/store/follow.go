package store

import (
	"context"
	"fmt"

	"openline/protocol"
)

// Follow emits the stored events that match any of the filters, newest first and each once, of each filter no more than
// its Limit, which most bounds and replaces when there is none; calls caughtUp; then emits every new event that
// matches, as it is stored or passed. Nothing is missed and nothing comes twice at the hand-over. Callbacks are called
// one after the other; the engine keeps files of the past for as long as those before caughtUp take.
//
// Follow returns nil when a callback returns false, ctx's error when ctx ends, ErrLagged when the callbacks are more
// than 8,192 new events behind, ErrClosed when the store closes.
func (s *Store) Follow(ctx context.Context, filters []protocol.Filter, most int, emit func(protocol.Event) bool, caughtUp func() bool) error {
	at := s.feed.join() // before the snapshot: what comes in between is in both, and its seq says so
	defer s.feed.leave()
	seq, more, err := s.emitStored(ctx, filters, most, emit)
	if err != nil || !more || !caughtUp() {
		return err
	}
	return s.emitLive(ctx, at, seq, filters, emit)
}

// emitStored emits what a snapshot holds and returns its seq; more is false when emit wants no more.
func (s *Store) emitStored(ctx context.Context, filters []protocol.Filter, most int, emit func(protocol.Event) bool) (seq uint64, more bool, err error) {
	if err := s.enter(); err != nil {
		return 0, false, err
	}
	defer s.leave()
	q, err := s.newQuery(ctx)
	if err != nil {
		return 0, false, err
	}
	defer q.close()
	count, err := readCounters(q.snap)
	if err != nil {
		return 0, false, err
	}
	more, err = q.union(filters, most, func(e protocol.Event) bool { return emit(e) && !s.isClosing() })
	if err == nil && !more && s.isClosing() {
		err = ErrClosed
	}
	return count.seq, more, err
}

func (s *Store) isClosing() bool {
	select {
	case <-s.closing:
		return true
	default:
		return false
	}
}

// emitLive emits what comes after the link at, except what the snapshot with that seq held.
func (s *Store) emitLive(ctx context.Context, at *link, seq uint64, filters []protocol.Filter, emit func(protocol.Event) bool) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.closing:
			return ErrClosed
		case <-at.ready:
		}
		next := at.next.Load()
		if next == nil {
			return fmt.Errorf("%w: more than %d are waiting", ErrLagged, maxLag)
		}
		at = next
		for _, n := range at.entries {
			held := n.seq != 0 && n.seq <= seq
			if held || n.event.Expired(s.now()) || !matchesAny(filters, n.event) {
				continue
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if !emit(n.event) {
				return nil
			}
		}
	}
}

func matchesAny(filters []protocol.Filter, e protocol.Event) bool {
	for _, f := range filters {
		if f.Matches(e) {
			return true
		}
	}
	return false
}

// Pass hands an event of an ephemeral kind to everybody who follows now and stores nothing (NIP-01).
func (s *Store) Pass(ctx context.Context, e protocol.Event) error {
	switch {
	case !protocol.Ephemeral(e.Kind()):
		return fmt.Errorf("events of kind %d are to be stored", e.Kind())
	case e.Expired(s.now()):
		return protocol.Reject(protocol.Expired, reasonExpired)
	case s.isClosing():
		return ErrClosed
	case ctx.Err() != nil:
		return ctx.Err()
	}
	s.feed.publish([]entry{{event: e}})
	return nil
}
