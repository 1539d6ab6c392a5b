package reconcile

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
)

// Sum is the sum of ids as little-endian numbers modulo 2^256, its least part first. The zero Sum is that of no ids.
// Adding and taking away in any order gives the same, so that a set can keep it up to date item by item.
type Sum [4]uint64

// Add adds id.
func (s *Sum) Add(id *ID) { s.AddSum(sumOf(id)) }

// Sub takes id away.
func (s *Sum) Sub(id *ID) { s.Take(sumOf(id)) }

// AddSum adds all that o holds.
func (s *Sum) AddSum(o Sum) {
	var carry uint64
	for i := range s {
		s[i], carry = bits.Add64(s[i], o[i], carry)
	}
}

// Take takes away all that o holds.
func (s *Sum) Take(o Sum) {
	var borrow uint64
	for i := range s {
		s[i], borrow = bits.Sub64(s[i], o[i], borrow)
	}
}

func sumOf(id *ID) (s Sum) {
	for i := range s {
		s[i] = binary.LittleEndian.Uint64(id[8*i:])
	}
	return s
}

// AppendBinary appends the 32 bytes of the number, least first.
func (s Sum) AppendBinary(b []byte) []byte {
	for _, part := range s {
		b = binary.LittleEndian.AppendUint64(b, part)
	}
	return b
}

// SumFrom reads what AppendBinary wrote.
func SumFrom(b [32]byte) Sum { return sumOf(&b) }

// Fingerprint is what two sides compare: the first half of SHA-256(sum ‖ count as a varint).
type Fingerprint [16]byte

// Fingerprint returns that of a set with this sum and so many items.
func (s Sum) Fingerprint(count int) Fingerprint {
	var buf [42]byte
	b := appendVarint(s.AppendBinary(buf[:0]), uint64(count))
	h := sha256.Sum256(b)
	return Fingerprint(h[:16])
}
