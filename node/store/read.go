package store

import (
	"context"
	"encoding/binary"

	"github.com/cockroachdb/pebble/v2"

	"openline/protocol"
)

// Known returns a *protocol.Rejection when the event that c claims to be is here (Duplicate) or was withdrawn by the
// author that it claims to have (Deleted), nil when it is neither: for before the signature is checked. An own event
// that is not yet durable is not known, so that no second post of it is confirmed too soon.
func (s *Store) Known(c protocol.Claim) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	_, seq, ok, err := find(s.db, c.ID)
	switch {
	case err != nil:
		return err
	case ok && seq < s.syncing.Load():
		return protocol.Reject(protocol.Duplicate, reasonHere)
	case ok:
		return nil
	}
	return withdrawn(s.db, c.ID, c.Author, c.Kind)
}

// Get returns the event with this id; false when it is not here or has expired.
func (s *Store) Get(id protocol.ID) (protocol.Event, bool, error) {
	if err := s.enter(); err != nil {
		return protocol.Event{}, false, err
	}
	defer s.leave()
	// Two reads: without a snapshot the event could be replaced between them, and would seem to have been damaged.
	snap := s.db.NewSnapshot()
	defer snap.Close()
	p, _, ok, err := find(snap, id)
	if !ok || err != nil {
		return protocol.Event{}, false, err
	}
	r, ok, err := load(snap, p)
	if err != nil {
		return protocol.Event{}, false, err
	}
	if !ok {
		return protocol.Event{}, false, damaged("an id has no event")
	}
	if r.event.Expired(s.now()) {
		return protocol.Event{}, false, nil
	}
	return r.event, true, nil
}

// Outbox returns up to most own events that were not yet handed to any peer, in the order in which they were posted.
func (s *Store) Outbox(most int) ([]protocol.Event, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.leave()
	snap := s.db.NewSnapshot()
	defer snap.Close()
	var events []protocol.Event
	err := eachRow(context.Background(), snap, key(rowOutbox), key(rowOutbox+1), func(_, value []byte) (bool, error) {
		if len(events) >= most {
			return false, nil
		}
		if len(value) != len(position{}) {
			return false, damaged("a row of the outbox has %d bytes", len(value))
		}
		r, ok, err := load(snap, position(value))
		if err != nil {
			return false, err
		}
		if !ok {
			return false, damaged("the outbox names an event that is not here")
		}
		events = append(events, r.event)
		return true, nil
	})
	return events, err
}

// find returns where the event with this id stands.
func find(r pebble.Reader, id protocol.ID) (p position, seq uint64, ok bool, err error) {
	v, err := lookup(r, idKey(id))
	if v == nil || err != nil {
		return position{}, 0, false, err
	}
	if len(v) != 16 {
		return position{}, 0, false, damaged("the row of an id has %d bytes, not 16", len(v))
	}
	return positionOf(int64(binary.BigEndian.Uint64(v)), id), binary.BigEndian.Uint64(v[8:]), true, nil
}

// withdrawn returns a Rejection when author deleted id (NIP-09). Deletions themselves cannot be withdrawn.
func withdrawn(r pebble.Reader, id protocol.ID, author protocol.PubKey, kind uint16) error {
	if kind == protocol.KindDeletion {
		return nil
	}
	v, err := lookup(r, deletedKey(id, author))
	if err != nil {
		return err
	}
	if v != nil {
		return protocol.Reject(protocol.Deleted, reasonDeleted)
	}
	return nil
}

const (
	reasonHere    = "the event is already here"
	reasonNewer   = "a newer version is here"
	reasonDeleted = "its author withdrew this event"
	reasonExpired = "the event has expired (NIP-40)"
)

// eachRow calls visit with the rows from low to before high, in their order, until it returns false.
func eachRow(ctx context.Context, r pebble.Reader, low, high []byte, visit func(key, value []byte) (bool, error)) error {
	it, err := r.NewIterWithContext(ctx, &pebble.IterOptions{LowerBound: low, UpperBound: high})
	if err != nil {
		return wrap(err)
	}
	defer it.Close()
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		if n++; n%checkEvery == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		value, err := it.ValueAndErr()
		if err != nil {
			return wrap(err)
		}
		if more, err := visit(it.Key(), value); !more || err != nil {
			return err
		}
	}
	return wrap(it.Error())
}

// checkEvery is after how many rows a reader looks whether its context has ended.
const checkEvery = 256
