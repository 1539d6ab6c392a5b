package protocol

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
)

// StampBits is the work that a daemon puts into its user's posts: about a million hashes, a tenth of a second.
const StampBits = 20

// Work returns the bits of work in e: the leading zero bits of its id (NIP-13), or of SHA-256(id ‖ nonce) with the
// nonce as eight bytes, most significant first, when there is a nonce and that is more. Work never refuses an event,
// it orders them when there are too many. The id stands in the hash's first block, so that no state can be reused.
func (e Event) Work() int {
	w := leadingZeros(e.id)
	if e.nonce != 0 {
		w = max(w, leadingZeros(stampHash(e.id, e.nonce)))
	}
	return w
}

// Stamp looks for a nonce that gives id at least the wanted bits of work. It takes 2^want hashes on average and
// returns ctx's error when ctx ends first.
func Stamp(ctx context.Context, id ID, want int) (nonce uint64, err error) {
	for nonce = 1; ; nonce++ {
		if leadingZeros(stampHash(id, nonce)) >= want {
			return nonce, nil
		}
		if nonce%4096 == 0 && ctx.Err() != nil {
			return 0, ctx.Err()
		}
	}
}

func stampHash(id ID, nonce uint64) [32]byte {
	var b [40]byte
	copy(b[:], id[:])
	binary.BigEndian.PutUint64(b[32:], nonce)
	return sha256.Sum256(b[:])
}

func leadingZeros(h [32]byte) int {
	n := 0
	for i := 0; i < 32; i += 8 {
		z := bits.LeadingZeros64(binary.BigEndian.Uint64(h[i:]))
		n += z
		if z < 64 {
			break
		}
	}
	return n
}
