package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	ma "github.com/multiformats/go-multiaddr"
	madns "github.com/multiformats/go-multiaddr-dns"
	"github.com/multiformats/go-multistream"

	"openline/bootstrap"
	"openline/node/carrier"
)

const (
	visitTime    = 10 * time.Second        // for a connection, and for what comes over it to go on
	fetchTime    = 40 * time.Second        // for all that is fetched
	visitTimeTor = 90 * time.Second        // through Tor
	visitPause   = 1500 * time.Millisecond // between the first packets of two attempts at one peer
	visitBytes   = 24 << 10                // that are fetched: more than the 12 to 20 kB after which Russia's censor freezes
	visitedPeers = 8
	visitedSame  = 2 // addresses of one carrier of a peer
)

// visit is how one address of a known peer was reached, or not.
type visit struct {
	carrier string
	local   bool // on this machine or its local network
	worked  bool
	cause   carrier.Cause // of one that did not work
	took    time.Duration // until the connection stood
	rate    int64         // bytes a second that came
	frozen  bool          // what came stopped coming
}

// visitor tries addresses as a stranger: with carriers and a peer id of its own, so that what it does disturbs none of
// the node's connections.
type visitor struct {
	cfg     carrier.Config
	set     *carrier.Set
	host    host.Host
	ladder  *carrier.Ladder // the node's: what it shuns is not tried, and it learns what was cut
	isLocal func(ma.Multiaddr) bool
	names   madns.BasicResolver
}

func (n *Node) newVisitor() (*visitor, error) {
	v := &visitor{cfg: n.cfg.Carriers, ladder: n.carriers.Ladder(), isLocal: n.isLocal, names: n.names}
	v.cfg.Dir, v.cfg.Names = n.cfg.Dir, n.names
	var err error
	if v.set, err = carrier.New(v.cfg); err != nil {
		return nil, err
	}
	v.host, err = libp2p.New(append(v.set.Options(), libp2p.NoListenAddrs, libp2p.Security(noise.ID, noise.New),
		libp2p.UserAgent("openline"), libp2p.DisableMetrics(), libp2p.DisableRelay())...)
	if err != nil {
		return nil, errors.Join(err, v.set.Close())
	}
	return v, nil
}

func (v *visitor) close() error { return errors.Join(v.host.Close(), v.set.Close()) }

// visitAll visits peers side by side, the addresses of each one after the other.
func (v *visitor) visitAll(ctx context.Context, peers []peer.AddrInfo) [][]visit {
	all := make([][]visit, min(len(peers), visitedPeers))
	var running sync.WaitGroup
	for i := range all {
		addrs := v.choose(peers[i].Addrs)
		all[i] = make([]visit, len(addrs))
		for j, a := range addrs {
			running.Go(func() {
				select {
				case <-ctx.Done():
				case <-time.After(time.Duration(j) * visitPause):
					all[i][j] = v.visit(ctx, peers[i].ID, a)
				}
			})
		}
	}
	running.Wait()
	return all
}

// choose takes some addresses of each carrier that the mode allows.
func (v *visitor) choose(addrs []ma.Multiaddr) []ma.Multiaddr {
	taken := map[string]int{}
	return ma.FilterAddrs(bootstrap.Farthest(addrs), func(a ma.Multiaddr) bool {
		name := carrier.Name(a)
		if name == carrier.Relay || !v.cfg.Allows(name) || taken[name] >= visitedSame {
			return false
		}
		taken[name]++
		return true
	})
}

// visit tries one address.
func (v *visitor) visit(ctx context.Context, id peer.ID, a ma.Multiaddr) visit {
	got := visit{carrier: carrier.Name(a), local: v.isLocal(a)}
	if v.ladder.Shunned(a) { // it was cut a moment ago, and another try would only lengthen that
		switch got.carrier {
		case carrier.QUIC, carrier.TCP:
			got.cause = carrier.Recognised
			return got
		case carrier.PT:
			got.cause = carrier.LooksRandom
			return got
		}
	}
	wait := visitTime
	if v.cfg.Mode == carrier.OnlyTor || got.carrier == carrier.Tor {
		wait = visitTimeTor
	}
	var conn transport.CapableConn
	got.cause = v.set.Explain(ctx, a, func() (err error) {
		ctx, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		begin := time.Now()
		conn, err = v.dial(ctx, id, a)
		got.took = time.Since(begin)
		return err
	})
	if conn == nil {
		return got
	}
	defer conn.Close()
	got.worked = true
	got.rate, got.frozen = fetch(ctx, conn)
	return got
}

func (v *visitor) dial(ctx context.Context, id peer.ID, a ma.Multiaddr) (transport.CapableConn, error) {
	if name := carrier.Name(a); name == carrier.QUIC || name == carrier.TCP {
		resolver, err := madns.NewResolver(madns.WithDefaultResolver(v.names))
		if err != nil {
			return nil, err
		}
		found, err := resolver.Resolve(ctx, a)
		if err != nil {
			return nil, fmt.Errorf("look up a peer's host: %w", err)
		}
		if len(found) == 0 {
			return nil, errors.New("a peer's host has no address")
		}
		a = found[0]
	}
	t := v.host.Network().(*swarm.Swarm).TransportForDialing(a)
	if t == nil {
		return nil, errors.New("no carrier for the address")
	}
	conn, err := t.Dial(ctx, a, id)
	if err != nil {
		v.ladder.Failed(&swarm.DialError{Peer: id, DialErrors: []swarm.TransportError{{Address: a, Cause: err}}})
	}
	return conn, err
}

// fetch has the peer send back so many bytes (libp2p's ping), and reports how fast they came and whether they ceased.
func fetch(ctx context.Context, conn transport.CapableConn) (rate int64, frozen bool) {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	s, err := conn.OpenStream(ctx)
	if err != nil {
		return 0, true
	}
	defer s.Reset()
	defer context.AfterFunc(ctx, func() { s.Reset() })() // whoever trickles holds nobody
	s.SetDeadline(time.Now().Add(visitTime))
	if err := multistream.SelectProtoOrFail(ping.ID, s); err != nil {
		return 0, true
	}
	go func() { // ends with the stream
		var block [ping.PingSize]byte
		for range visitBytes / len(block) {
			if _, err := s.Write(block[:]); err != nil {
				return
			}
		}
	}()
	begin, got := time.Now(), 0
	buf := make([]byte, 4096)
	for got < visitBytes {
		n, err := s.Read(buf)
		if got += n; err != nil && got < visitBytes {
			return perSecond(got, time.Since(begin)), ctx.Err() == nil
		}
		s.SetDeadline(time.Now().Add(visitTime)) // slow is not frozen
	}
	return perSecond(got, time.Since(begin)), false
}

func perSecond(bytes int, took time.Duration) int64 {
	return int64(float64(bytes) / max(took, time.Millisecond).Seconds())
}
