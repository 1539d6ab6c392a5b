package carrier

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// A rung carries a stream of bytes so that who watches sees something else.
type rung interface {
	name() string
	protocols() []int // that end an address on which it listens
	// dial returns a connection through which the other side has let us in, or will silently: then what is written
	// first is the token. An error after the first bytes is a *Broken.
	dial(ctx context.Context, p place) (net.Conn, error)
	// listen opens a; d takes in whoever has shown a token.
	listen(a ma.Multiaddr, d *door) (net.Listener, error)
}

// Broken is the error of a connection that came about and was then cut or starved: what a censor does who looks at
// the first bytes, and what no closed port does.
type Broken struct{ Err error }

func (b *Broken) Error() string { return "cut after the first bytes: " + b.Err.Error() }
func (b *Broken) Unwrap() error { return b.Err }

// skeleton makes a libp2p transport of a rung.
type skeleton struct {
	rung
	set      *Set
	upgrader transport.Upgrader
	limits   network.ResourceManager
}

func (s *skeleton) CanDial(a ma.Multiaddr) bool {
	p := read(a)
	return s.serves(p) && (p.carrier != Reality || p.key != nil)
}

func (s *skeleton) serves(p place) bool {
	return p.carrier == s.name() || p.carrier == TCP && s.name() == Tor && s.set.cfg.Mode == OnlyTor
}

func (s *skeleton) Protocols() []int { return s.protocols() }
func (s *skeleton) Proxy() bool      { return false }

// SkipResolve keeps names out of libp2p's hands: a rung looks them up in its own way, or leaves that to Tor.
func (s *skeleton) SkipResolve(context.Context, ma.Multiaddr) bool { return true }

// Dial implements transport.Transport.
func (s *skeleton) Dial(ctx context.Context, a ma.Multiaddr, p peer.ID) (transport.CapableConn, error) {
	scope, err := s.limits.OpenConnection(network.DirOutbound, true, endpoint(a))
	if err != nil {
		return nil, err
	}
	if err := scope.SetPeer(p); err != nil {
		scope.Done()
		return nil, err
	}
	conn, err := s.dial(ctx, read(a))
	if err != nil {
		scope.Done()
		return nil, err
	}
	return s.upgrader.Upgrade(ctx, s, &carried{Conn: conn, remote: WithoutToken(a)}, network.DirOutbound, p, scope)
}

// endpoint is what the resource manager can count by: the address when it is one, else nothing in particular.
func endpoint(a ma.Multiaddr) ma.Multiaddr {
	if _, err := manet.ToIP(a); err != nil {
		return ma.StringCast("/ip4/127.0.0.1")
	}
	return a
}

// Listen implements transport.Transport.
func (s *skeleton) Listen(a ma.Multiaddr) (transport.Listener, error) {
	if !s.serves(read(a)) {
		return nil, fmt.Errorf("%s cannot listen on %s", s.name(), a)
	}
	d := &door{set: s.set, addr: a, rung: suffix(a), in: make(chan *carried), closed: make(chan struct{})}
	l, err := s.listen(a, d)
	if err != nil {
		return nil, err
	}
	d.listener = l
	return s.upgrader.UpgradeGatedMaListener(s, s.upgrader.GateMaListener(d)), nil
}

// suffix is what an address has behind its port: the rung.
func suffix(a ma.Multiaddr) ma.Multiaddr {
	_, rest := ma.SplitFunc(a, func(c ma.Component) bool { return c.Code() == ma.P_TCP })
	_, rest = ma.SplitFirst(rest)
	return rest
}

// carried is a connection inside a rung's tunnel. For libp2p its address is the one dialled, which names the carrier
// and holds no token.
type carried struct {
	net.Conn
	remote ma.Multiaddr
	leave  func() // nil when dialled
}

func (c *carried) Close() error {
	if c.leave != nil {
		c.leave()
	}
	return c.Conn.Close()
}

func (c *carried) RemoteMultiaddr() ma.Multiaddr { return c.remote }

func (c *carried) LocalMultiaddr() ma.Multiaddr {
	a, err := manet.FromNetAddr(c.Conn.LocalAddr())
	if err != nil {
		return ma.StringCast("/ip4/127.0.0.1/tcp/0")
	}
	return a
}

const (
	greeters     = 2048             // handshakes at once, strangers who talk to a cover site among them; who comes then waits in the system's queue
	greetingTime = 60 * time.Second // of a handshake; a stranger is kept busy that long where silence is the answer
)

// door is a listening rung: it gives libp2p the connections of those who showed a token.
type door struct {
	set      *Set
	addr     ma.Multiaddr
	rung     ma.Multiaddr // what addr has behind the port
	listener net.Listener
	in       chan *carried
	closed   chan struct{}
	once     sync.Once
}

// greet accepts from l and shakes hands with each in a goroutine of its own: some rungs keep strangers waiting on
// purpose. It returns when l is closed.
func (d *door) greet(l net.Listener, shake func(context.Context, net.Conn) (net.Conn, Token, error)) {
	slots := make(chan struct{}, greeters)
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(50 * time.Millisecond) // out of file descriptors
			continue
		}
		slots <- struct{}{}
		go func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(context.Background(), greetingTime)
			defer cancel()
			in, token, err := shake(ctx, conn)
			if err != nil {
				conn.Close()
				return
			}
			d.admit(in, token)
		}()
	}
}

// admit hands a connection on whose token was found good, and closes it when nobody takes it.
func (d *door) admit(conn net.Conn, t Token) {
	c, err := d.set.guard.enter(conn, t, d.rung)
	if err != nil {
		conn.Close()
		return
	}
	select {
	case d.in <- c:
	case <-d.closed:
		c.Close()
	}
}

// Accept implements manet.Listener.
func (d *door) Accept() (manet.Conn, error) {
	select {
	case c := <-d.in:
		return c, nil
	case <-d.closed:
		return nil, transport.ErrListenerClosed
	}
}

func (d *door) Close() error {
	err := net.ErrClosed
	d.once.Do(func() {
		close(d.closed)
		err = d.listener.Close()
	})
	return err
}

func (d *door) Addr() net.Addr          { return d.listener.Addr() }
func (d *door) Multiaddr() ma.Multiaddr { return d.addr }

// places are where others may reach the door, which listens on a port of ip.
func (d *door) places(ip net.IP, port int) (all []ma.Multiaddr) {
	rung := ma.StringCast(fmt.Sprintf("/tcp/%d", port)).Encapsulate(d.rung)
	for _, host := range hosts(ip) {
		all = append(all, host.Encapsulate(rung))
	}
	return all
}

// hosts are the addresses under which others may reach a listener on ip: itself, or all of this machine's.
func hosts(ip net.IP) []ma.Multiaddr {
	if !ip.IsUnspecified() {
		a, err := manet.FromIP(ip)
		if err != nil {
			return nil
		}
		return []ma.Multiaddr{a}
	}
	all, err := manet.InterfaceMultiaddrs()
	if err != nil {
		return nil
	}
	return ma.FilterAddrs(all, func(a ma.Multiaddr) bool {
		got, err := manet.ToIP(a)
		return err == nil && !got.IsLoopback() && !got.IsLinkLocalUnicast() && (got.To4() == nil) == (ip.To4() == nil)
	})
}
