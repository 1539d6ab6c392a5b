package reconcile

import (
	"errors"
	"fmt"
)

// The form of a message is that of negentropy version 1, which NIP-77 describes: a version byte, then ranges that follow
// upon each other. Each has an upper bound, a mode and what the mode says.
const (
	version = 0x61

	modeSkip        = 0
	modeFingerprint = 1
	modeIDs         = 2
)

// ErrMalformed is the error of a message that is not in the form.
var ErrMalformed = errors.New("the message is no negentropy message")

// ErrVersion is the error of a message in another version.
var ErrVersion = errors.New("the message has another version than 1")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// appendVarint appends v in groups of seven bits, the most significant first, all but the last with the high bit set.
func appendVarint(b []byte, v uint64) []byte {
	var buf [10]byte
	i := len(buf) - 1
	buf[i] = byte(v & 0x7f)
	for v >>= 7; v > 0; v >>= 7 {
		i--
		buf[i] = byte(v&0x7f) | 0x80
	}
	return append(b, buf[i:]...)
}

// reader takes a message apart.
type reader struct {
	rest []byte
	time int64 // of the bound before
}

func (r *reader) varint() (uint64, error) {
	var v uint64
	for i, c := range r.rest {
		if v > 1<<56 {
			return 0, malformed("a number is too great")
		}
		v = v<<7 | uint64(c&0x7f)
		if c&0x80 == 0 {
			r.rest = r.rest[i+1:]
			return v, nil
		}
	}
	return 0, malformed("a number is cut off")
}

// take returns the next n bytes, which are part of the message.
func (r *reader) take(n uint64) ([]byte, error) {
	if n > uint64(len(r.rest)) {
		return nil, malformed("it is cut off")
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b, nil
}

// bound reads a bound. Its time is the difference to the time before plus one; 0 stands for infinity.
func (r *reader) bound() (Bound, error) {
	delta, err := r.varint()
	if err != nil {
		return Bound{}, err
	}
	b := Bound{Time: Infinity}
	if delta > 0 && r.time < Infinity {
		b.Time = r.time + int64(delta-1) // 2^57 at the most for each; the sum is checked
	}
	if b.Time < r.time {
		return Bound{}, malformed("times go beyond all bounds")
	}
	r.time = b.Time
	n, err := r.varint()
	if err != nil {
		return Bound{}, err
	}
	if n > 32 {
		return Bound{}, malformed("the id of a bound has %d bytes", n)
	}
	b.Prefix, err = r.take(n)
	return b, err
}

// ids reads a list of ids without copying them.
func (r *reader) ids() ([]byte, error) {
	n, err := r.varint()
	if err != nil {
		return nil, err
	}
	if n > uint64(len(r.rest))/32 {
		return nil, malformed("a list of ids is cut off")
	}
	return r.take(32 * n)
}

// writer puts a message together. Neighbouring ranges to skip become one.
type writer struct {
	b       []byte
	time    int64
	skipped *Bound // the end of what is to be skipped and was not written yet
}

func newWriter() *writer { return &writer{b: []byte{version}} }

func (w *writer) skip(b Bound) { w.skipped = &b }

// head writes what stands before the content of any range but a skipped one.
func (w *writer) head(b Bound, mode uint64) {
	if s := w.skipped; s != nil {
		w.skipped = nil
		w.bound(*s)
		w.b = appendVarint(w.b, modeSkip)
	}
	w.bound(b)
	w.b = appendVarint(w.b, mode)
}

func (w *writer) bound(b Bound) {
	if b.Time == Infinity {
		w.b = appendVarint(w.b, 0)
	} else {
		w.b = appendVarint(w.b, uint64(b.Time-w.time)+1)
	}
	w.time = b.Time
	w.b = appendVarint(w.b, uint64(len(b.Prefix)))
	w.b = append(w.b, b.Prefix...)
}

func (w *writer) fingerprint(b Bound, f Fingerprint) {
	w.head(b, modeFingerprint)
	w.b = append(w.b, f[:]...)
}

func (w *writer) ids(b Bound, items []Item) {
	w.head(b, modeIDs)
	w.b = appendVarint(w.b, uint64(len(items)))
	for _, i := range items {
		w.b = append(w.b, i.ID[:]...)
	}
}
