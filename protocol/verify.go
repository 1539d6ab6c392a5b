package protocol

import (
	"crypto/sha256"

	secp "github.com/decred/dcrd/dcrec/secp256k1/v4"
)

// verifySignature follows the verification of BIP-340 over decred's curve arithmetic. btcec's own Verify takes the
// square root of the key twice; every event on every node pays for that.
func verifySignature(e *Event) bool {
	var p, sG, eP, r secp.JacobianPoint
	if p.X.SetByteSlice(e.pubkey[:]) || !secp.DecompressY(&p.X, false, &p.Y) {
		return false // not the x coordinate of a point
	}
	p.Z.SetInt(1)
	var rx secp.FieldVal
	var s, c secp.ModNScalar
	if rx.SetByteSlice(e.sig[:32]) || s.SetByteSlice(e.sig[32:]) {
		return false // r is not a field element, or s not below the group's order
	}
	ch := challengeHash(e)
	c.SetBytes(&ch)
	c.Negate()
	secp.ScalarBaseMultNonConst(&s, &sG)
	secp.ScalarMultNonConst(&c, &p, &eP)
	secp.AddNonConst(&sG, &eP, &r)
	if r.Z.IsZero() || r.X.IsZero() && r.Y.IsZero() {
		return false // infinity
	}
	r.ToAffine()
	return !r.Y.IsOdd() && rx.Equals(&r.X)
}

// challengeHash is BIP-340's tagged hash of R, the key and the message.
func challengeHash(e *Event) [32]byte {
	tag := sha256.Sum256([]byte("BIP0340/challenge"))
	var b [5 * 32]byte
	copy(b[:], tag[:])
	copy(b[32:], tag[:])
	copy(b[64:], e.sig[:32])
	copy(b[96:], e.pubkey[:])
	copy(b[128:], e.id[:])
	return sha256.Sum256(b[:])
}
