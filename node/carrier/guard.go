package carrier

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// GuestTime is how long one may stay who showed only an invite's token: long enough to ask for one of one's own.
const GuestTime = 30 * time.Second

// guard knows by which token each connection came in.
type guard struct {
	admit func(Token) (ok, guest bool)

	mu sync.Mutex // guards the field below and the tokens in it
	in map[string]*admitted
}

type admitted struct {
	*carried
	token Token
	timer *time.Timer // of a guest
}

// errStranger is the reason for which nobody says anything.
var errStranger = errors.New("no token that is good here")

// enter lets a connection in, if its token is still good. rung ends the address under which libp2p knows it.
func (g *guard) enter(conn net.Conn, t Token, rung ma.Multiaddr) (*carried, error) {
	remote, err := manet.FromNetAddr(conn.RemoteAddr())
	if err != nil {
		return nil, err
	}
	remote = remote.Encapsulate(rung)
	ok, guest := g.admit(t)
	if !ok {
		return nil, errStranger
	}
	key := remote.String()
	c := &carried{Conn: conn, remote: remote}
	a := &admitted{carried: c, token: t}
	c.leave = func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.in[key] == a {
			delete(g.in, key)
		}
	}
	if guest {
		a.timer = time.AfterFunc(GuestTime, func() { c.Close() })
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.in[key] = a
	return c, nil
}

// TokenOf returns the token by which a connection came in.
func (s *Set) TokenOf(c network.ConnMultiaddrs) (Token, bool) {
	s.guard.mu.Lock()
	defer s.guard.mu.Unlock()
	if a := s.guard.in[c.RemoteMultiaddr().String()]; a != nil {
		return a.token, true
	}
	return Token{}, false
}

// Promote makes a guest one who may stay, by a token of its own.
func (s *Set) Promote(c network.ConnMultiaddrs, t Token) {
	s.guard.mu.Lock()
	defer s.guard.mu.Unlock()
	a := s.guard.in[c.RemoteMultiaddr().String()]
	if a == nil {
		return
	}
	a.token = t
	if a.timer != nil {
		a.timer.Stop()
	}
}

// Cut closes every connection whose token is no longer good.
func (s *Set) Cut() {
	s.guard.mu.Lock()
	var out []*admitted
	for _, a := range s.guard.in {
		if ok, _ := s.guard.admit(a.token); !ok {
			out = append(out, a)
		}
	}
	s.guard.mu.Unlock()
	for _, a := range out {
		a.Close()
	}
}

// knock writes the token first into a tunnel that has no place for it.
func knock(conn net.Conn, p place) (net.Conn, error) {
	if _, err := conn.Write(p.token[:]); err != nil {
		return nil, errors.Join(&Broken{err}, conn.Close())
	}
	return conn, nil
}

// answer reads what knock writes. Who knows no token hears nothing, for as long as a handshake may take, whatever is
// sent: so there is nothing to tell an end from a beginning by.
func (g *guard) answer(ctx context.Context, conn net.Conn) (net.Conn, Token, error) {
	var t Token
	end, _ := ctx.Deadline()
	conn.SetDeadline(end)
	if _, err := io.ReadFull(conn, t[:]); err != nil {
		return nil, t, err
	}
	if ok, _ := g.admit(t); !ok {
		io.Copy(io.Discard, conn)
		return nil, t, errStranger
	}
	return conn, t, conn.SetDeadline(time.Time{})
}
