package carrier

import (
	"encoding/binary"
	"net"
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

// maxHead is more than precedes the end of a hello's random in any stream that the library takes: it drops a few alerts
// and puts a hello together from records of one byte.
const maxHead = 4096

// suspect is a connection that may repeat another's hello.
type suspect struct {
	*net.TCPConn
	hellos   *hellos
	stranger func() // is called, within Read, when it does

	head    []byte // what came so far; nil once the random was seen
	seen    bool
	claimed bool
	random  random
	in      bool // the hello was taken for a member's
}

// Read decides about the connection before it returns the last byte of a hello.
func (s *suspect) Read(b []byte) (int, error) {
	n, err := s.TCPConn.Read(b)
	if s.seen {
		return n, err
	}
	s.head = append(s.head, b[:n]...)
	var ok bool
	if s.random, ok = randomIn(s.head); !ok && len(s.head) < maxHead {
		return n, err
	}
	s.head, s.seen, s.claimed = nil, true, ok && s.hellos.claim(s.random)
	if !s.claimed {
		s.stranger()
	}
	return n, err
}

// settle is called when all is known about the hello.
func (s *suspect) settle() {
	if s.claimed {
		s.hellos.settle(s.random, s.in)
	}
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
