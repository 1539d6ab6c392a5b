package protocol

import (
	"encoding/binary"
	"runtime"
)

// zstd frames written by hand (RFC 8878), so that the vectors do not depend on an encoder.

// plainZstdHeader announces so many bytes: a single segment with a content size of four bytes.
func plainZstdHeader(size int) []byte {
	return binary.LittleEndian.AppendUint32([]byte{0x28, 0xb5, 0x2f, 0xfd, 0xa0}, uint32(size))
}

func plainBlock(last bool, kind, size int, body []byte) []byte {
	n := size<<3 | kind<<1
	if last {
		n |= 1
	}
	return append([]byte{byte(n), byte(n >> 8), byte(n >> 16)}, body...)
}

// plainZstd holds raw in one block as it is.
func plainZstd(raw []byte) []byte {
	return append(plainZstdHeader(len(raw)), plainBlock(true, 0, len(raw), raw)...)
}

// plainRLE announces claimed bytes and holds so many blocks of so many zeros.
func plainRLE(claimed, size, blocks int) []byte {
	b := plainZstdHeader(claimed)
	for i := range blocks {
		b = append(b, plainBlock(i == blocks-1, 1, size, []byte{0})...)
	}
	return b
}

// memory returns the bytes allocated so far.
func memory() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}
