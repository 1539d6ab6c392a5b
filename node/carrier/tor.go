package carrier

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"

	ma "github.com/multiformats/go-multiaddr"
)

// onion goes through Tor: to onion services, and in mode tor to TCP addresses also. It listens as an onion service,
// which the Tor of this machine is asked for over its control port.
type onion struct{ set *Set }

func (o *onion) name() string     { return Tor }
func (o *onion) protocols() []int { return []int{codeTor, ma.P_ONION3} }

func (o *onion) dial(ctx context.Context, p place) (net.Conn, error) {
	conn, err := o.set.dialTor(ctx, p.address(), hex.EncodeToString(p.token[:])+p.host)
	if err != nil || p.carrier != Tor {
		return conn, err
	}
	if !p.hasToken {
		return nil, errors.Join(errors.New("an onion service's address without a token"), conn.Close())
	}
	return knock(conn, p)
}

// onionPort is the port of our onion services.
const onionPort = "4870"

func (o *onion) listen(a ma.Multiaddr, d *door) (net.Listener, error) {
	p := read(a)
	ip := net.ParseIP(p.host)
	if ip == nil || !ip.IsLoopback() {
		return nil, fmt.Errorf("listen on %s: it takes the form /ip4/127.0.0.1/tcp/0/tor", a)
	}
	inner, err := net.Listen("tcp", p.address())
	if err != nil {
		return nil, err
	}
	s := &service{Listener: inner, cfg: o.set.cfg, log: o.set.log, ended: make(chan struct{})}
	if err := s.start(); err != nil {
		return nil, errors.Join(err, inner.Close())
	}
	o.set.onClose(s.end)
	at, err := ma.NewMultiaddr("/onion3/" + s.id + ":" + onionPort)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	o.set.listening(at)
	go d.greet(inner, o.set.guard.answer)
	return s, nil
}
