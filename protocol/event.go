// Package protocol is what two nodes must agree on: the event and the checks that make one, its forms on the wire,
// work, shards and filters. SPEC.md says the same in prose, testdata/vectors in bytes.
//
// It refuses whatever two implementations could read differently, because on a flooded network a disagreement
// about one byte cuts honest nodes off from each other. It is pure: no network, files, clock or goroutine.
// A censor who reads its output learns what any participant learns: a public key and a text.
package protocol

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"
)

// Kinds that travel on the mesh (NIP-01, NIP-09, NIP-18, NIP-25).
const (
	KindProfile  uint16 = 0
	KindNote     uint16 = 1
	KindDeletion uint16 = 5
	KindRepost   uint16 = 6
	KindReaction uint16 = 7
)

// ID is an event's id: the SHA-256 of its NIP-01 serialisation.
type ID [32]byte

// PubKey is an author: the x coordinate of a secp256k1 point (BIP-340).
type PubKey [32]byte

// Sig is a BIP-340 signature over an ID.
type Sig [64]byte

// String returns 64 lower-case hex digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// String returns 64 lower-case hex digits.
func (k PubKey) String() string { return hex.EncodeToString(k[:]) }

// ParseID reads 64 lower-case hex digits.
func ParseID(s string) (id ID, err error) {
	if !unhex(id[:], s) {
		return ID{}, fmt.Errorf("an event id is 64 lower-case hex digits")
	}
	return id, nil
}

// Tag is one tag of an event: a name, then values (NIP-01). It is never empty.
type Tag []string

// Event is a Nostr event (NIP-01) whose id and signature hold: it comes only from ParseJSON, ParseEnvelope, Sign,
// and from Load for what the store once verified. The zero Event is no event. Events are immutable and may be shared.
type Event struct {
	id        ID
	pubkey    PubKey
	sig       Sig
	createdAt int64
	kind      uint16
	tags      []Tag
	content   string
	nonce     uint64
}

func (e Event) ID() ID         { return e.id }
func (e Event) PubKey() PubKey { return e.pubkey }
func (e Event) Sig() Sig       { return e.sig }
func (e Event) Kind() uint16   { return e.kind }

// CreatedAt returns the author's clock at signing, in Unix seconds.
func (e Event) CreatedAt() int64 { return e.createdAt }

// Tags returns the tags; the caller must not change them.
func (e Event) Tags() []Tag { return e.tags }

func (e Event) Content() string { return e.content }

// Nonce returns the stamp that came with the event, 0 for none. It is not part of the event and not signed.
func (e Event) Nonce() uint64 { return e.nonce }

// WithNonce returns the same event stamped with nonce.
func (e Event) WithNonce(nonce uint64) Event {
	e.nonce = nonce
	return e
}

// Live reports whether e may be flooded at the time now: the live window of SPEC.md section 4.
func (e Event) Live(now time.Time) bool {
	return e.createdAt >= now.Add(-LivePast).Unix() && e.createdAt <= now.Add(LiveAhead).Unix()
}

// Expired reports whether e asked to be forgotten at or before now (NIP-40).
func (e Event) Expired(now time.Time) bool {
	at, ok, _ := expiration(e.tags)
	return ok && at <= now.Unix()
}

// Address names the slot that a replaceable or addressable event fills (NIP-01), "" for any other event.
// Of the events with one address only the newest is kept, of equally old ones that with the lowest id.
func (e Event) Address() string {
	switch {
	case Replaceable(e.kind):
		return fmt.Sprintf("%d:%s:", e.kind, e.pubkey)
	case Addressable(e.kind):
		return fmt.Sprintf("%d:%s:%s", e.kind, e.pubkey, e.TagValue("d"))
	}
	return ""
}

// Newer reports whether e comes before o in a feed: by created_at descending, then by id ascending (NIP-01).
// Of two versions of a replaceable event the newer one stays.
func (e Event) Newer(o Event) bool {
	if e.createdAt != o.createdAt {
		return e.createdAt > o.createdAt
	}
	return string(e.id[:]) < string(o.id[:])
}

// Compare orders by created_at, then by id, both ascending: the order of bundles and of reconciliation. It is negative
// when e comes before o, 0 when they are the same event.
func (e Event) Compare(o Event) int {
	return cmp.Or(cmp.Compare(e.createdAt, o.createdAt), bytes.Compare(e.id[:], o.id[:]))
}

// TagValue returns the first value of the first tag called name, "" when there is none.
func (e Event) TagValue(name string) string {
	for _, t := range e.tags {
		if t[0] == name && len(t) > 1 {
			return t[1]
		}
	}
	return ""
}

// Topics returns the values of the t tags, in order.
func (e Event) Topics() []string { return values(e.tags, "t") }

func values(tags []Tag, name string) []string {
	var vs []string
	for _, t := range tags {
		if t[0] == name && len(t) > 1 {
			vs = append(vs, t[1])
		}
	}
	return vs
}

// Travels reports whether events of this kind are flooded; of any other kind a node keeps what its own clients post.
func Travels(kind uint16) bool {
	switch kind {
	case KindProfile, KindNote, KindDeletion, KindRepost, KindReaction:
		return true
	}
	return false
}

// Replaceable reports whether only the newest event of this kind and author is kept (NIP-01).
func Replaceable(kind uint16) bool {
	return kind == KindProfile || kind == 3 || kind >= 10000 && kind < 20000
}

// Ephemeral reports whether events of this kind are passed on live and never stored (NIP-01).
func Ephemeral(kind uint16) bool { return kind >= 20000 && kind < 30000 }

// Addressable reports whether only the newest event of this kind, author and d tag is kept (NIP-01).
func Addressable(kind uint16) bool { return kind >= 30000 && kind < 40000 }

// Shards is the number of mesh topics into which events are divided.
const Shards = 8

// Shard returns the one shard of e, 0 to Shards-1: by its first topic, else by its author.
func (e Event) Shard() int {
	if topic := e.TagValue("t"); topic != "" {
		return shardOf([]byte(topic))
	}
	return shardOf(e.pubkey[:])
}

// TopicShard returns the shard that carries the events whose first topic is topic.
func TopicShard(topic string) int { return shardOf([]byte(topic)) }

func shardOf(b []byte) int {
	h := sha256.Sum256(b)
	return int(h[0] % Shards)
}

// unhex decodes exactly 2*len(dst) lower-case hex digits.
func unhex(dst []byte, s string) bool {
	if len(s) != 2*len(dst) {
		return false
	}
	for i := range dst {
		hi, lo := nibble(s[2*i]), nibble(s[2*i+1])
		if hi|lo > 15 {
			return false
		}
		dst[i] = hi<<4 | lo
	}
	return true
}

func nibble(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	}
	return 0xff
}
