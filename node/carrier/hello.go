package carrier

import (
	"encoding/binary"
	"sync"
	"time"
)

// maxHellos is how many hellos are remembered: more than the users of a bridge send while their clocks let them.
const maxHellos = 1 << 16

// hellos remembers by which hellos somebody came in: who sends one of them again has recorded it on the way. A full
// memory forgets the oldest.
type hellos struct {
	now func() time.Time

	mu    sync.Mutex // guards the fields below
	known map[random]struct{}
	order []taken // oldest first; what is known and not here is being looked at
}

// random is a ClientHello's, which no two share.
type random [32]byte

type taken struct {
	random
	at time.Time
}

func newHellos(now func() time.Time) *hellos {
	return &hellos{now: now, known: map[random]struct{}{}}
}

// claim reports whether a hello is new. If so nobody else can claim it before settle says what came of it.
func (h *hellos) claim(r random) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	// Its time may be ahead of our clock, and then behind it.
	for len(h.order) > 0 && h.now().Sub(h.order[0].at) > 2*clockSkew {
		h.forget()
	}
	if _, ok := h.known[r]; ok {
		return false
	}
	h.known[r] = struct{}{}
	return true
}

// settle ends a claim: a hello that let nobody in is nothing to remember.
func (h *hellos) settle(r random, in bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !in {
		delete(h.known, r)
		return
	}
	if len(h.order) == maxHellos {
		h.forget()
	}
	h.order = append(h.order, taken{r, h.now()})
}

func (h *hellos) forget() {
	delete(h.known, h.order[0].random)
	h.order = h.order[1:]
}

// randomIn reads the random of the ClientHello with which a TLS stream begins (RFC 8446, sections 4.1.2 and 5.1).
// ok is false while it is not whole.
func randomIn(stream []byte) (r random, ok bool) {
	var message []byte
	for len(stream) > 5 {
		end := min(5+int(binary.BigEndian.Uint16(stream[3:])), len(stream))
		if stream[0] == 22 {
			message = append(message, stream[5:end]...)
		}
		stream = stream[end:]
	}
	const before = 1 + 3 + 2 // type, length, version
	return r, copy(r[:], message[min(before, len(message)):]) == len(r)
}
