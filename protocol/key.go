package protocol

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strings"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/schnorr"
	"github.com/btcsuite/btcd/btcutil/bech32"
)

// SecretKey signs events. It never prints itself; use Nsec to export it.
type SecretKey struct {
	key *btcec.PrivateKey
	pub PubKey
}

// NewSecretKey makes a key from 32 bytes of random.
func NewSecretKey(random io.Reader) (SecretKey, error) {
	var b [32]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return SecretKey{}, fmt.Errorf("make a key: %w", err)
	}
	return secretKey(b[:])
}

func secretKey(b []byte) (SecretKey, error) {
	var s btcec.ModNScalar
	if overflow := s.SetByteSlice(b); overflow || s.IsZero() || len(b) != 32 {
		return SecretKey{}, fmt.Errorf("the number is not a secp256k1 key")
	}
	key := btcec.PrivKeyFromScalar(&s)
	return SecretKey{key, PubKey(schnorr.SerializePubKey(key.PubKey()))}, nil
}

// ParseSecretKey reads nsec1… (NIP-19) or 64 hex digits. Errors never quote the input.
func ParseSecretKey(s string) (SecretKey, error) {
	if b, err := hex.DecodeString(s); err == nil && len(b) == 32 {
		return secretKey(b)
	}
	b, err := decodeBech32("nsec", s)
	if err != nil {
		return SecretKey{}, fmt.Errorf("a secret key is nsec1… or 64 hex digits: %w", err)
	}
	return secretKey(b)
}

// Nsec returns the key as text (NIP-19). Whoever has it can post as this author for ever.
func (k SecretKey) Nsec() string { return encodeBech32("nsec", k.key.Serialize()) }

// String hides the key from logs.
func (k SecretKey) String() string { return "secret key" }

// PubKey returns the author that this key signs for.
func (k SecretKey) PubKey() PubKey { return k.pub }

// Npub returns the author as text (NIP-19).
func (k PubKey) Npub() string { return encodeBech32("npub", k[:]) }

// ParsePubKey reads npub1… (NIP-19) or 64 hex digits and checks that it is a point on the curve.
func ParsePubKey(s string) (k PubKey, err error) {
	if !unhex(k[:], strings.ToLower(s)) {
		b, err := decodeBech32("npub", s)
		if err != nil {
			return PubKey{}, fmt.Errorf("an author is npub1… or 64 hex digits: %w", err)
		}
		k = PubKey(b)
	}
	if _, err := schnorr.ParsePubKey(k[:]); err != nil {
		return PubKey{}, fmt.Errorf("this is no author's key: %w", err)
	}
	return k, nil
}

// Draft is what an author decides of an event.
type Draft struct {
	CreatedAt int64 // Unix seconds
	Kind      uint16
	Tags      []Tag
	Content   string
}

// Sign makes the event. It applies no rules, those are the door's, but that a tag has a name.
func (k SecretKey) Sign(d Draft) (Event, error) {
	for _, t := range d.Tags {
		if len(t) == 0 {
			return Event{}, fmt.Errorf("sign: a tag is empty")
		}
	}
	e := Event{pubkey: k.PubKey(), createdAt: d.CreatedAt, kind: d.Kind, tags: d.Tags, content: d.Content}
	e.id = sha256.Sum256(e.appendSerial(nil))
	// FastSign leaves out a verification of the result; the door verifies every event anyway.
	sig, err := schnorr.Sign(k.key, e.id[:], schnorr.FastSign())
	if err != nil {
		return Event{}, fmt.Errorf("sign: %w", err)
	}
	copy(e.sig[:], sig.Serialize())
	return e, nil
}

func encodeBech32(prefix string, b []byte) string {
	five, err := bech32.ConvertBits(b, 8, 5, true)
	if err != nil {
		panic(err) // cannot happen from 8 to 5 bits with padding
	}
	s, err := bech32.Encode(prefix, five)
	if err != nil {
		panic(err) // only for values over 31
	}
	return s
}

// decodeBech32 reads a NIP-19 code of 32 bytes. Errors never quote the input: it may be a secret.
func decodeBech32(prefix, s string) ([]byte, error) {
	got, five, err := bech32.Decode(strings.TrimSpace(s))
	if err != nil {
		return nil, fmt.Errorf("it is mistyped or cut off")
	}
	b, err := bech32.ConvertBits(five, 5, 8, false)
	if err != nil || len(b) != 32 || got != prefix {
		return nil, fmt.Errorf("it is not a %s1… code", prefix)
	}
	return b, nil
}
