package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"strconv"
	"time"

	"openline/protocol"
)

// The rows of the database. Numbers are big-endian; position is ^created_at(8) ‖ id(32), so that ascending keys are
// events newest first and, of one second, by ascending id: the order of Event.Newer.
//
//	e position                       -> seq(8) received_at(8, Unix ms) flags(1) envelope
//	i id                             -> created_at(8) seq(8)
//	a author(32) position            -> kind(2)                             by author; the quota counts here
//	p author(32) kind(2) position    ->                                     by author and kind
//	k kind(2) position               ->                                     by kind
//	t letter(1) hash(value) position ->                                     by single-letter tag
//	r hash(address)                  -> created_at(8) id(32)                who fills a replaceable slot
//	d id author(32)                  -> created_at(8) of the deletion       withdrawn by this author (NIP-09)
//	D hash(address)                  -> created_at(8) of the last deletion  versions up to then are withdrawn
//	x expires_at(8) position         ->                                     what Purge removes
//	s shard(1) created_at(8) id(32)  ->                                     of kinds that travel, in the order of reconciliation
//	h shard(1) hour(8)               -> count(8) sum(32)                    what the s rows of an hour add up to; hour is its first second
//	o seq(8)                         -> position                            outbox, in the order of posting
//	m "format"                       -> version(1)
//	m "counters"                     -> seq(8) events(8) outbox(8) bytes(8) evicted(8) commits(8)   in every batch, so that a snapshot knows its seq
//	m "horizon"                      -> since(8) cap(8)                     see Trim
//
// hash is the first 16 bytes of SHA-256: short keys, and whoever reads through them compares the whole value afterwards.
const (
	rowEvent       = 'e'
	rowID          = 'i'
	rowAuthor      = 'a'
	rowAuthorKind  = 'p'
	rowKind        = 'k'
	rowTag         = 't'
	rowSlot        = 'r'
	rowDeleted     = 'd'
	rowSlotDeleted = 'D'
	rowExpiry      = 'x'
	rowShard       = 's'
	rowHour        = 'h'
	rowOutbox      = 'o'
	rowMeta        = 'm'
)

// formatVersion is raised when older programs would misread the rows. Format 1 had no s and h rows and shorter counters.
const formatVersion = 2

const metaFormat, metaCounters, metaHorizon = "format", "counters", "horizon"

// position is where an event stands in every order of time.
type position [40]byte

func positionOf(created int64, id protocol.ID) (p position) {
	binary.BigEndian.PutUint64(p[:], ^uint64(created))
	copy(p[8:], id[:])
	return p
}

func (p position) id() protocol.ID { return protocol.ID(p[8:]) }

// compare is negative when p's event comes before o's in a feed.
func (p position) compare(o position) int { return bytes.Compare(p[:], o[:]) }

// newest is the first position of events created at or before until; oldest is the last one of those since.
func newest(until int64) position { return positionOf(until, protocol.ID{}) }

func oldest(since int64) position {
	p := positionOf(since, protocol.ID{})
	for i := 8; i < len(p); i++ {
		p[i] = 0xff
	}
	return p
}

// successor returns the position that follows p.
func (p position) successor() position {
	for i := len(p) - 1; i >= 0; i-- {
		if p[i]++; p[i] != 0 {
			break
		}
	}
	return p
}

// key joins the parts of a key.
func key(row byte, parts ...[]byte) []byte {
	n := 1
	for _, p := range parts {
		n += len(p)
	}
	k := append(make([]byte, 0, n), row)
	for _, p := range parts {
		k = append(k, p...)
	}
	return k
}

func uint64Bytes(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }

func kindBytes(kind uint16) []byte { return binary.BigEndian.AppendUint16(nil, kind) }

func hash(s string) []byte {
	h := sha256.Sum256([]byte(s))
	return h[:16]
}

func eventKey(p position) []byte         { return key(rowEvent, p[:]) }
func idKey(id protocol.ID) []byte        { return key(rowID, id[:]) }
func slotKey(address string) []byte      { return key(rowSlot, hash(address)) }
func outboxKey(seq uint64) []byte        { return key(rowOutbox, uint64Bytes(seq)) }
func metaKey(name string) []byte         { return key(rowMeta, []byte(name)) }
func authorKey(a protocol.PubKey) []byte { return key(rowAuthor, a[:]) }

func tagKey(letter byte, value string) []byte { return key(rowTag, []byte{letter}, hash(value)) }

func authorKindKey(a protocol.PubKey, kind uint16) []byte {
	return key(rowAuthorKind, a[:], kindBytes(kind))
}

func deletedKey(id protocol.ID, author protocol.PubKey) []byte {
	return key(rowDeleted, id[:], author[:])
}

func slotDeletedKey(address string) []byte { return key(rowSlotDeleted, hash(address)) }

// indexRows calls row for every index row of e. They say nothing that the event does not, so that removing an event
// needs the event alone.
func indexRows(e protocol.Event, row func(key, value []byte)) {
	p, author, kind := positionOf(e.CreatedAt(), e.ID()), e.PubKey(), kindBytes(e.Kind())
	row(key(rowAuthor, author[:], p[:]), kind)
	row(key(rowAuthorKind, author[:], kind, p[:]), nil)
	row(key(rowKind, kind, p[:]), nil)
	for _, t := range e.Tags() {
		if len(t) > 1 && len(t[0]) == 1 && isLetter(t[0][0]) {
			row(append(tagKey(t[0][0], t[1]), p[:]...), nil)
		}
	}
	if at, ok := expiry(e); ok {
		row(key(rowExpiry, uint64Bytes(at), p[:]), nil)
	}
	if protocol.Travels(e.Kind()) {
		row(shardKey(e.Shard(), e.CreatedAt(), e.ID()), nil)
	}
}

func isLetter(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }

// expiry returns when e is to be forgotten (NIP-40), in Unix seconds.
func expiry(e protocol.Event) (at uint64, ok bool) {
	at, err := strconv.ParseUint(e.TagValue("expiration"), 10, 63)
	return at, err == nil
}

// record is an event as it stands in the store.
type record struct {
	seq      uint64
	received time.Time
	again    bool // it took the place of an older version
	own      bool // a client of this node posted it
	event    protocol.Event
}

const flagAgain, flagOwn = 1, 2 // of a record

// recordHead is the length of a record before its envelope.
const recordHead = 8 + 8 + 1

func (r record) position() position { return positionOf(r.event.CreatedAt(), r.event.ID()) }

func (r record) encode() []byte {
	b := make([]byte, 0, 512)
	b = binary.BigEndian.AppendUint64(b, r.seq)
	b = binary.BigEndian.AppendUint64(b, uint64(r.received.UnixMilli()))
	flags := byte(0)
	if r.again {
		flags |= flagAgain
	}
	if r.own {
		flags |= flagOwn
	}
	b = append(b, flags)
	return r.event.AppendEnvelope(b)
}

// decodeRecord reads the value of the event row at p. Its id is computed anew, so that a row that rotted is seen.
func decodeRecord(p position, b []byte) (record, error) {
	if len(b) < recordHead {
		return record{}, damaged("an event row has %d bytes", len(b))
	}
	e, err := protocol.Load(b[recordHead:])
	if err != nil {
		return record{}, damaged("an event row does not decode: %v", err)
	}
	r := record{
		seq:      binary.BigEndian.Uint64(b),
		received: time.UnixMilli(int64(binary.BigEndian.Uint64(b[8:]))),
		again:    b[16]&flagAgain != 0,
		own:      b[16]&flagOwn != 0,
		event:    e,
	}
	if r.position() != p {
		return record{}, damaged("an event row holds another event than its key says")
	}
	return r, nil
}

// counters are kept exact in every batch.
type counters struct {
	seq     uint64 // of the last event stored
	events  uint64
	outbox  uint64
	bytes   uint64 // of the events' rows, before the engine compresses them
	evicted uint64 // events that Trim removed
	commits uint64
}

func (c counters) encode() []byte {
	b := make([]byte, 0, 48)
	for _, v := range []uint64{c.seq, c.events, c.outbox, c.bytes, c.evicted, c.commits} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return b
}

func decodeCounters(b []byte) (c counters, err error) {
	if len(b) != 48 {
		return counters{}, damaged("the row of counters has %d bytes, not 48", len(b))
	}
	for i, v := range []*uint64{&c.seq, &c.events, &c.outbox, &c.bytes, &c.evicted, &c.commits} {
		*v = binary.BigEndian.Uint64(b[8*i:])
	}
	return c, nil
}
