package carrier

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	xtls "github.com/xtls/reality"
)

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

	broken atomic.Bool // the cover site broke off
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

// breakOff has a stranger's connection end as the cover site ended it, by a reset.
func (s *suspect) breakOff() {
	if !s.in {
		s.broken.Store(true)
		s.SetLinger(0)
	}
}

// CloseWrite is what the library does when the cover site ended or broke off.
func (s *suspect) CloseWrite() error {
	if s.broken.Load() {
		return s.Close()
	}
	return s.TCPConn.CloseWrite()
}

// site is a connection to the cover site. The library takes a reset for an end, and after an end it does not hear of one.
type site struct {
	xtls.CloseWriteConn
	reset func()
	ended atomic.Bool // it says no more
}

func (s *site) Read(b []byte) (int, error) {
	n, err := s.CloseWriteConn.Read(b)
	if errors.Is(err, io.EOF) {
		s.ended.Store(true)
	}
	s.note(err)
	return n, err
}

// afterthought is how long a site has to refuse what is said to it after its end.
const afterthought = 500 * time.Millisecond

// Write waits, once the site has ended, for what that makes of it: if it has closed the connection there will be a
// reset, which writing nothing shows.
func (s *site) Write(b []byte) (int, error) {
	n, err := s.CloseWriteConn.Write(b)
	if s.ended.Load() {
		for end := time.Now().Add(afterthought); err == nil && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			_, err = s.CloseWriteConn.Write(nil)
		}
	}
	s.note(err)
	return n, err
}

func (s *site) note(err error) {
	if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		s.reset()
	}
}
