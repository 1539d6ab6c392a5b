// Package bootstrap finds the first peers and keeps connections to them.
//
// Sources run side by side; each says whom it found, the Finder dials and dials again. A censor who watches the line
// sees the dials, and on the LAN the multicast of the source LAN, which tells every neighbour that this runs here.
package bootstrap

import (
	"context"
	"fmt"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/discovery/mdns"
	ma "github.com/multiformats/go-multiaddr"
)

// Source is one way of finding peers. Find calls found, which may block, with whomever it learns of until ctx ends
// or there is nothing more to learn. An error means that the source could not work; a cancelled ctx is none.
type Source interface {
	Name() string
	Find(ctx context.Context, found func(peer.AddrInfo)) error
}

// ParsePeer reads the address of a peer as status prints it: a multiaddr that ends in /p2p/ and the peer's id.
func ParsePeer(s string) (peer.AddrInfo, error) {
	addr, err := ma.NewMultiaddr(s)
	if err != nil {
		return peer.AddrInfo{}, fmt.Errorf("peer address %q: %w", s, err)
	}
	info, err := peer.AddrInfoFromP2pAddr(addr)
	if err != nil {
		return peer.AddrInfo{}, fmt.Errorf("peer address %q does not end in /p2p/ and a peer id", s)
	}
	if len(info.Addrs) == 0 {
		return peer.AddrInfo{}, fmt.Errorf("peer address %q says who, but not where", s)
	}
	return *info, nil
}

// Configured is the source of the peers that the user named. It is never given up.
type Configured []peer.AddrInfo

func (c Configured) Name() string { return "configured" }

func (c Configured) Find(_ context.Context, found func(peer.AddrInfo)) error {
	for _, p := range c {
		found(p)
	}
	return nil
}

// LAN is the source of neighbours on the local network, by multicast DNS (RFC 6762). It answers others, too.
type LAN struct {
	Host    host.Host
	Network string // neighbours of other networks are not found
}

func (l LAN) Name() string { return "lan" }

func (l LAN) Find(ctx context.Context, found func(peer.AddrInfo)) error {
	s := mdns.NewMdnsService(l.Host, "_openline-"+l.Network+"._udp", notifee(func(p peer.AddrInfo) {
		if p.ID != l.Host.ID() {
			found(p)
		}
	}))
	if err := s.Start(); err != nil {
		return fmt.Errorf("multicast on the local network: %w", err)
	}
	<-ctx.Done()
	return s.Close()
}

type notifee func(peer.AddrInfo)

func (f notifee) HandlePeerFound(p peer.AddrInfo) { f(p) }

// Unique leaves out what stands earlier in the list already. The order says what is tried first, and stays.
func Unique(addrs []ma.Multiaddr) []ma.Multiaddr {
	var list []ma.Multiaddr
	for _, a := range addrs {
		if !ma.Contains(list, a) {
			list = append(list, a)
		}
	}
	return list
}
