package protocol

import (
	"crypto/sha256"
	"time"
)

// Scope says through which door bytes come, and so which rules hold for them.
type Scope int

const (
	Client Scope = iota // a program of this node's user: kinds that do not travel are allowed, within MaxKeptSize
	Live                // the mesh: only what travels, only inside the live window
	Late                // history and bundles: only what travels, however old
)

// Claim is what bytes say of themselves before the signature is checked.
type Claim struct {
	ID        ID
	Author    PubKey
	Kind      uint16
	CreatedAt int64 // Unix seconds
	Work      int   // bits, as Event.Work
}

// Check says under which rules bytes become an Event.
type Check struct {
	Scope Scope
	Now   time.Time // the receiver's clock
	Shard int       // the shard under which they came; looked at in scope Live only

	// Before, unless nil, is called when everything but the signature holds: the place to refuse what is known
	// or over budget before the 130 µs that a signature costs.
	Before func(Claim) error
}

// ParseJSON makes an Event of a NIP-01 JSON object. Every refusal is a *Rejection or an error of c.Before.
func ParseJSON(raw []byte, c Check) (Event, error) {
	if len(raw) > MaxKeptSize {
		return Event{}, Reject(TooLarge, "the event has %d bytes; %d are the most", len(raw), MaxKeptSize)
	}
	f, err := decodeJSON(raw)
	if err != nil {
		return Event{}, err
	}
	return c.verify(f)
}

// ParseEnvelope makes an Event of the wire form. Every refusal is a *Rejection or an error of c.Before.
func ParseEnvelope(raw []byte, c Check) (Event, error) {
	if len(raw) > MaxEventSize {
		return Event{}, Reject(TooLarge, "the envelope has %d bytes; %d are the most", len(raw), MaxEventSize)
	}
	f, err := decodeEnvelope(raw)
	if err != nil {
		return Event{}, err
	}
	return c.verify(f)
}

// Load makes an Event of an envelope that AppendEnvelope wrote for an Event. It checks no more than that it can be
// read, so only the store may call it, which compares the id with that of its row.
func Load(raw []byte) (Event, error) {
	f, err := readEnvelope(raw)
	if err != nil {
		return Event{}, err
	}
	var buf [MaxEventSize]byte
	f.id, _ = f.hash(buf[:0])
	return f.Event, nil
}

// verify goes through the checks in the order of their cost.
func (c Check) verify(f fields) (Event, error) {
	e := f.Event
	if err := checkForm(&e, c.Scope); err != nil {
		return Event{}, err
	}
	if c.Scope == Live && e.Shard() != c.Shard {
		return Event{}, Reject(WrongShard, "the event belongs to shard %d and came under %d", e.Shard(), c.Shard)
	}
	var buf [MaxEventSize]byte
	id, size := e.hash(buf[:0])
	if size += jsonOverhead; Travels(e.kind) && size > MaxEventSize {
		return Event{}, Reject(TooLarge, "the event has %d bytes; %d are the most that travel", size, MaxEventSize)
	}
	if f.idGiven && id != e.id {
		return Event{}, Reject(BadID, "the id is not the hash of the event")
	}
	e.id = id
	if err := c.clock(&e); err != nil {
		return Event{}, err
	}
	if c.Before != nil {
		claim := Claim{ID: e.id, Author: e.pubkey, Kind: e.kind, CreatedAt: e.createdAt, Work: e.Work()}
		if err := c.Before(claim); err != nil {
			return Event{}, err
		}
	}
	if !verifySignature(&e) {
		return Event{}, Reject(BadSignature, "the signature does not fit the event")
	}
	return e, nil
}

func (c Check) clock(e *Event) error {
	switch now := c.Now.Unix(); {
	case e.createdAt > now+int64(LiveAhead/time.Second):
		return Reject(Ahead, "created_at is %d seconds ahead of this node's clock; %d are the most",
			e.createdAt-now, int64(LiveAhead/time.Second))
	case c.Scope == Live && e.createdAt < now-int64(LivePast/time.Second):
		return Reject(Stale, "the event is older than %v", LivePast)
	case e.Expired(c.Now):
		return Reject(Expired, "the event has expired (NIP-40)")
	}
	return nil
}

// hash returns the event's id and the length of its serialisation; buf is scratch space.
func (e *Event) hash(buf []byte) (ID, int) {
	serial := e.appendSerial(buf)
	return sha256.Sum256(serial), len(serial)
}
