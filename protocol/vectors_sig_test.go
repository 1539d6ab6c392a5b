package protocol

import (
	"crypto/sha256"
	"encoding/hex"
	"math/big"
	"slices"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/nbd-wtf/go-nostr"
)

// The field prime and the group order of secp256k1.
var (
	prime, _ = new(big.Int).SetString("fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc2f", 16)
	order, _ = new(big.Int).SetString("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141", 16)
)

// challenge is BIP-340's e for the event and the first half of a signature.
func challenge(r []byte, e nostr.Event) *big.Int {
	tag := sha256.Sum256([]byte("BIP0340/challenge"))
	pubkey, _ := hex.DecodeString(e.PubKey)
	id, _ := hex.DecodeString(e.ID)
	h := sha256.Sum256(slices.Concat(tag[:], tag[:], r, pubkey, id))
	return new(big.Int).Mod(new(big.Int).SetBytes(h[:]), order)
}

// secretOf returns d of BIP-340: the key, negated when its point has an odd y.
func secretOf(name string) *big.Int {
	raw, _ := hex.DecodeString(keyOf(name))
	d := new(big.Int).SetBytes(raw)
	if _, pub := btcec.PrivKeyFromBytes(raw); pub.SerializeCompressed()[0] == 3 {
		d.Sub(order, d)
	}
	return d
}

// nonceWithY returns a k for whose point k·G has an even (2) or odd (3) y, and the point's x.
func nonceWithY(parity byte) (k *big.Int, r []byte) {
	for i := byte(1); ; i++ {
		h := sha256.Sum256([]byte{i})
		_, pub := btcec.PrivKeyFromBytes(h[:])
		if c := pub.SerializeCompressed(); c[0] == parity {
			return new(big.Int).SetBytes(h[:]), c[1:]
		}
	}
}

func withSig(e nostr.Event, r []byte, s *big.Int) nostr.Event {
	e.Sig = hex.EncodeToString(r) + hex.EncodeToString(s.FillBytes(make([]byte, 32)))
	return e
}

func withSigOf(e, other nostr.Event) nostr.Event {
	e.Sig = other.Sig
	return e
}

func withPubKey(e nostr.Event, pubkey string) nostr.Event {
	e.PubKey = pubkey
	e.ID = e.GetID()
	return e
}

// The cases follow BIP-340's official vectors 0 to 14; the numbers name them.
func signatureCases(g *generator) {
	e := signed(note("signed"))
	raw, _ := hex.DecodeString(e.Sig)
	r, s := raw[:32], new(big.Int).SetBytes(raw[32:])
	d := secretOf("alice")
	times := func(e *big.Int) *big.Int { return new(big.Int).Mul(e, d) }
	mod := func(v *big.Int) *big.Int { return v.Mod(v, order) }

	even, evenR := nonceWithY(2)
	g.event("signature: another nonce, the same id", "ok", withSig(e, evenR, mod(new(big.Int).Add(even, times(challenge(evenR, e))))))
	odd, oddR := nonceWithY(3)
	g.event("signature: R has an odd y (6)", "bad-signature", withSig(e, oddR, mod(new(big.Int).Add(odd, times(challenge(oddR, e))))))
	g.event("signature: negated message (7)", "bad-signature", withSig(e, evenR, mod(new(big.Int).Sub(even, times(challenge(evenR, e))))))
	g.event("signature: negated s (8)", "bad-signature", withSig(e, r, new(big.Int).Sub(order, s)))
	zero, one := make([]byte, 32), append(make([]byte, 31), 1)
	g.event("signature: R infinite, r = 0 (9)", "bad-signature", withSig(e, zero, mod(times(challenge(zero, e)))))
	g.event("signature: R infinite, r = 1 (10)", "bad-signature", withSig(e, one, mod(times(challenge(one, e)))))
	off, _ := hex.DecodeString("4a298dacae57395a15d0795ddbfd1dcb564da82b0f269bc70a74f8220429ba1d")
	g.event("signature: r is no x of a point (11)", "bad-signature", withSig(e, off, s))
	g.event("signature: r = p (12)", "bad-signature", withSig(e, prime.Bytes(), s))
	g.event("signature: r = 2^256 - 1", "bad-signature", withSig(e, ones(), s))
	g.event("signature: s = n (13)", "bad-signature", withSig(e, r, order))
	g.event("signature: s = 2^256 - 1", "bad-signature", withSig(e, r, new(big.Int).SetBytes(ones())))
	g.event("signature: s = 0", "bad-signature", withSig(e, r, new(big.Int)))
	g.event("signature: all zero", "bad-signature", withSig(e, zero, new(big.Int)))
	g.event("signature: halves swapped", "bad-signature", withSig(e, raw[32:], new(big.Int).SetBytes(r)))
	g.event("signature: s + 1", "bad-signature", withSig(e, r, new(big.Int).Add(s, big.NewInt(1))))
	g.event("signature: of another event", "bad-signature", withSigOf(e, signed(note("another"))))
	g.event("signature: of the same event by somebody else", "bad-signature", withSigOf(e, signedBy("bob", note("signed"))))
	for _, c := range []struct{ name, pubkey string }{
		{"is no x of a point (5)", "eefdea4cdb677750a420fee807eacf21eb9898ae79b9768766e4faa04a2d4a34"},
		{"= p + 1 (14)", "fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc30"},
		{"= p", "fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc2f"},
		{"= 0", "0000000000000000000000000000000000000000000000000000000000000000"},
		{"= 2^256 - 1", "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"},
	} {
		g.event("signature: pubkey "+c.name, "bad-signature", withPubKey(e, c.pubkey))
	}
	bob, _ := nostr.GetPublicKey(keyOf("bob"))
	g.event("signature: pubkey of somebody else", "bad-signature", withPubKey(e, bob))
	kept := signed(kindOf(30023, "a"))
	kept.Sig = e.Sig
	g.event("signature: of a kept kind", "bad-signature", kept, scope("client"))
	g.event("signature: late", "bad-signature", withSig(e, r, order), scope("late"))
}

func ones() []byte {
	b := make([]byte, 32)
	for i := range b {
		b[i] = 0xff
	}
	return b
}
