package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"time"

	"openline/protocol"
)

const hour = 3600 // seconds; the quota counts by clock hour of created_at

// counted reports whether events of this kind use up their author's quota: what travels and is not replaced.
func counted(kind uint16) bool { return protocol.Travels(kind) && !protocol.Replaceable(kind) }

// together reports whether events of the two kinds share a quota. Deletions have one of their own: whoever has posted
// all that is allowed can still withdraw it, and which deletions hold depends on no other events.
func together(a, b uint16) bool {
	return counted(a) && counted(b) && (a == protocol.KindDeletion) == (b == protocol.KindDeletion)
}

// quota keeps the protocol.Quota smallest ids of an author and hour, the same verdict on every node in any order. It
// returns the event that must make room for e, nil when there is room. An own event never makes others go and is
// refused in words that tell when there is room again, so that what a client was told is kept stays.
func (g *group) quota(e protocol.Event, o Origin) (evicted *record, err error) {
	if !counted(e.Kind()) {
		return nil, nil
	}
	h := e.CreatedAt() / hour
	n, last, err := g.countHour(e.PubKey(), e.Kind(), h)
	if err != nil || n < protocol.Quota {
		return nil, err
	}
	if o == Own && e.Kind() == protocol.KindDeletion {
		return nil, protocol.Reject(protocol.OverQuota, "%d deletions an hour are the most; the next hour begins at %s UTC",
			protocol.Quota, time.Unix((h+1)*hour, 0).UTC().Format("15:04"))
	}
	if o == Own {
		return nil, protocol.Reject(protocol.OverQuota, "%d notes an hour are the most that travel; the next hour begins at %s UTC",
			protocol.Quota, time.Unix((h+1)*hour, 0).UTC().Format("15:04"))
	}
	id, largest := e.ID(), last.id()
	if bytes.Compare(id[:], largest[:]) > 0 {
		return nil, protocol.Reject(protocol.OverQuota, "its author has %d events with smaller ids in that hour", n)
	}
	return g.mustLoad(last)
}

// countHour counts the events of an author in the hour h since 1970 that share the quota of kind, and finds the one with
// the largest id.
func (g *group) countHour(author protocol.PubKey, kind uint16, h int64) (n int, last position, err error) {
	from, to := newest((h+1)*hour-1), oldest(h*hour)
	prefix := authorKey(author)
	low, high := append(bytes.Clone(prefix), from[:]...), append(bytes.Clone(prefix), to[:]...)
	err = eachRow(context.Background(), g.batch, low, append(high, 0), func(k, value []byte) (bool, error) {
		p, err := suffix(prefix, k)
		if err != nil || len(value) != 2 {
			return false, damaged("a row of the author index is out of form")
		}
		if !together(kind, binary.BigEndian.Uint16(value)) {
			return true, nil
		}
		if n++; n == 1 || bytes.Compare(p[8:], last[8:]) > 0 {
			last = p
		}
		return true, nil
	})
	return n, last, err
}

// suffix returns the position behind the prefix of an index row.
func suffix(prefix, key []byte) (position, error) {
	rest, ok := bytes.CutPrefix(key, prefix)
	if !ok || len(rest) != len(position{}) {
		return position{}, damaged("an index row has %d bytes", len(key))
	}
	return position(rest), nil
}
