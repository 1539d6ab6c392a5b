package store

import (
	"context"
	"encoding/binary"
	"time"

	"openline/protocol"
)

// Retention says what may be kept. What Keep wants, and what clients of this node posted, stays for ever.
type Retention struct {
	Age   time.Duration // of strangers' events; 0: any
	Bytes uint64        // of all events before compression, which the disk stays under; 0: any

	// Keep, unless nil, says of an event of somebody else whether the user wants it for ever. It is called by the
	// writer and must be quick.
	Keep func(protocol.Event) bool

	// KeepOwn says that what clients of this node posted stays: on a daemon they are its user, on a relay anybody.
	KeepOwn bool
}

const (
	// deletionMargin is how much longer deletions stay than what they withdraw: their targets were created before them,
	// give or take clocks that are wrong.
	deletionMargin = 24 * hour

	// trimTo is the share of the cap, in percent, to which Trim clears: not each new event shall cost a look for room.
	trimTo = 95

	// trimLook is how many rows one job looks at, and so the most that it removes, so that Puts come in between.
	trimLook = 1024
)

// Trim removes strangers' events that are too old or, the oldest first, more than there is room for. Within an author
// too the oldest go first. It moves the horizon: what is older is not taken from other nodes any more and not offered to
// them (View). The horizon never goes back, unless there is more room than when it came. Trim returns what it removed.
func (s *Store) Trim(ctx context.Context) (removed int, err error) {
	r := s.retention
	if r.Age > 0 {
		now, err := s.present()
		if err != nil {
			return 0, err
		}
		n, err := s.trimBefore(ctx, now.Add(-r.Age).Unix()/hour*hour)
		if removed += n; err != nil {
			return removed, err
		}
	}
	if r.Bytes == 0 || s.count.Load().bytes <= r.Bytes {
		return removed, s.compact(ctx, removed)
	}
	for s.count.Load().bytes > r.Bytes/100*trimTo {
		next, ok, err := s.hourAfter(s.horizon.Load())
		if err != nil {
			return removed, err
		}
		if !ok || next >= s.now().Unix()/hour*hour {
			break // the rest is the user's, or of this hour
		}
		n, err := s.trimBefore(ctx, next)
		if removed += n; err != nil {
			return removed, err
		}
	}
	return removed, s.compact(ctx, removed)
}

// Horizon returns since when (Unix seconds) everything is kept that came; 0: nothing was ever removed for its age.
func (s *Store) Horizon() int64 { return s.horizon.Load() }

// present returns the time from which ages count: now, but no more than a day after the newest event. A clock that jumped
// ahead, or ninety days without any peer, must not cost everything.
func (s *Store) present() (time.Time, error) {
	now := s.now()
	if err := s.enter(); err != nil {
		return now, err
	}
	defer s.leave()
	snap := s.db.NewSnapshot()
	defer snap.Close()
	newest := int64(0)
	for shard := range protocol.Shards {
		hours, err := s.hours(snap, shard)
		if err != nil {
			return now, err
		}
		if n := len(hours); n > 0 {
			newest = max(newest, hours[n-1].Start+hour)
		}
	}
	if last := time.Unix(newest, 0).Add(24 * time.Hour); last.Before(now) {
		return last, nil
	}
	return now, nil
}

// hourAfter returns the end of the first hour at or after from in which there is anything.
func (s *Store) hourAfter(from int64) (end int64, ok bool, err error) {
	if err := s.enter(); err != nil {
		return 0, false, err
	}
	defer s.leave()
	snap := s.db.NewSnapshot()
	defer snap.Close()
	for shard := range protocol.Shards {
		hours, err := s.hours(snap, shard)
		if err != nil {
			return 0, false, err
		}
		for _, b := range hours {
			if b.Start >= from {
				if !ok || b.Start+hour < end {
					end, ok = b.Start+hour, true
				}
				break
			}
		}
	}
	return end, ok, nil
}

// trimBefore moves the horizon to since and removes what is older and nobody here wants.
func (s *Store) trimBefore(ctx context.Context, since int64) (removed int, err error) {
	last := s.horizon.Load()
	if since <= last {
		return 0, nil
	}
	// The horizon first: what is about to go must not be taken again meanwhile.
	err = s.submit(ctx, false, &job{durable: true, frees: true, do: func(g *group) error {
		g.set(metaKey(metaHorizon), append(uint64Bytes(uint64(since)), uint64Bytes(s.retention.Bytes)...))
		return nil
	}})
	if err != nil {
		return 0, err
	}
	s.horizon.Store(since)
	from := max(0, last-deletionMargin)
	if !s.swept.Swap(true) {
		from = 0 // what the user does not follow any more
	}
	for shard := range protocol.Shards {
		n, err := s.trimShard(ctx, shard, from, since)
		if removed += n; err != nil {
			return removed, err
		}
	}
	return removed, nil
}

// trimShard looks at all events of a shard created from `from` to before since.
func (s *Store) trimShard(ctx context.Context, shard int, from, since int64) (removed int, err error) {
	at, end := shardKey(shard, from, protocol.ID{}), shardKey(shard, since, protocol.ID{})
	for at != nil {
		var next []byte
		n := 0
		err := s.submit(ctx, false, &job{frees: true, do: func(g *group) (err error) {
			n, next, err = s.trim(g, at, end, since)
			return err
		}})
		if err != nil {
			return removed, err // n may be in use: see Put
		}
		removed, at = removed+n, next
	}
	return removed, nil
}

// trim removes what it may among the next rows and returns where to go on, nil at the end.
func (s *Store) trim(g *group, at, end []byte, since int64) (removed int, next []byte, err error) {
	var gone []record
	looked := 0
	err = eachRow(context.Background(), g.batch, at, end, func(k, _ []byte) (bool, error) {
		if looked++; looked > trimLook {
			next = append([]byte{}, k...)
			return false, nil
		}
		if len(k) != 2+8+32 {
			return false, damaged("a row of a shard has %d bytes", len(k))
		}
		r, err := g.mustLoad(positionOf(int64(binary.BigEndian.Uint64(k[2:])), protocol.ID(k[10:])))
		if err != nil {
			return false, err
		}
		margin := r.event.Kind() == protocol.KindDeletion && r.event.CreatedAt() >= since-deletionMargin
		if !margin && !s.wanted(*r) {
			gone = append(gone, *r)
		}
		return true, nil
	})
	for _, r := range gone {
		if err == nil {
			err = g.forget(r)
		}
	}
	g.count.evicted += uint64(len(gone))
	return len(gone), next, err
}

// wanted reports whether r stays however old it is.
func (s *Store) wanted(r record) bool {
	return r.own && s.retention.KeepOwn || s.retention.Keep != nil && s.retention.Keep(r.event)
}

// tooOld refuses what is below the horizon and nobody here wants.
func (s *Store) tooOld(e protocol.Event, o Origin) error {
	since := s.horizon.Load()
	if e.CreatedAt() >= since || o == Own || !protocol.Travels(e.Kind()) || s.retention.Keep != nil && s.retention.Keep(e) {
		return nil
	}
	return protocol.Reject(protocol.Stale, "this node keeps only what was written since %s", time.Unix(since, 0).UTC().Format(time.DateTime))
}

// forget removes an event that is older than its author's deletions need be known: with a deletion its tombstones go.
func (g *group) forget(r record) error {
	if err := g.remove(r); err != nil {
		return err
	}
	if r.event.Kind() == protocol.KindDeletion {
		return g.undo(r.event)
	}
	return nil
}

// compact gives disk back after much was removed; the engine would do so by itself, but late.
func (s *Store) compact(ctx context.Context, removed int) error {
	if removed < trimLook {
		return nil
	}
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	if err := s.db.Flush(); err != nil {
		return wrap(err)
	}
	return wrap(s.db.Compact(ctx, []byte{0}, []byte{0xff}, false))
}

// readHorizon reads where the horizon is. A cap that was raised since lifts it: there is room for what was refused.
func (s *Store) readHorizon() error {
	v, err := lookup(s.db, metaKey(metaHorizon))
	if v == nil || err != nil {
		return err
	}
	if len(v) != 16 {
		return damaged("the row of the horizon has %d bytes, not 16", len(v))
	}
	since, limit := int64(binary.BigEndian.Uint64(v)), binary.BigEndian.Uint64(v[8:])
	if limit != 0 && (s.retention.Bytes == 0 || s.retention.Bytes > limit) {
		since = 0
		if s.retention.Age > 0 {
			since = max(0, s.now().Add(-s.retention.Age).Unix()/hour*hour)
		}
	}
	s.horizon.Store(since)
	return nil
}
