package bootstrap

import (
	"cmp"
	"net"
	"net/netip"
	"slices"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// maxGroup is how many connections of our making may lead into one network. Addresses are cheap inside of one.
const maxGroup = 4

// group is the network that an address is in: /16 of IPv4, /32 of IPv6, else the name; "" for private ones, where
// everybody is a neighbour.
func group(a ma.Multiaddr) string {
	if manet.IsPrivateAddr(a) || manet.IsIPLoopback(a) {
		return ""
	}
	ip, err := manet.ToIP(a)
	if err == nil {
		return Network(ip)
	}
	first, _ := ma.SplitFirst(a)
	return first.String()
}

// Network is the network that an address is in as far as its owner goes, /16 of IPv4 and /32 of IPv6; "" for what is no
// address.
func Network(ip net.IP) string {
	addr, ok := netip.AddrFromSlice(ip)
	if !ok {
		return ""
	}
	addr = addr.Unmap()
	bits := 32
	if addr.Is4() {
		bits = 16
	}
	prefix, err := addr.Prefix(bits)
	if err != nil {
		panic(err) // the address has more bits than that
	}
	return prefix.String()
}

// spread counts the connections of our making by network and by carrier.
type spread struct {
	total    int
	groups   map[string]int
	carriers map[string]int
}

func (f *Finder) spread() spread {
	s := spread{groups: map[string]int{}, carriers: map[string]int{}}
	for _, c := range f.host.Network().Conns() {
		if c.Stat().Direction == network.DirOutbound {
			s.add(c.RemoteMultiaddr(), f.cfg.Carrier)
		}
	}
	return s
}

func (s *spread) add(a ma.Multiaddr, carrier func(ma.Multiaddr) string) {
	g := group(a)
	if s.groups[g]++; g == "" || s.groups[g] <= maxGroup {
		s.total++ // others do not depend on how many one network brings in
	}
	s.carriers[carrier(a)]++
}

// next chooses who is dialled now: kept peers, then those that failed least, then those that bring in a network and a
// carrier that there are fewest connections over, then those found first.
func (f *Finder) next(known map[peer.ID]*candidate) []*candidate {
	now := f.spread()
	var due []*candidate
	under := 0
	for _, c := range known {
		if c.dialing {
			under++
			now.add(c.Addrs[0], f.cfg.Carrier)
		} else if f.due(c) {
			due = append(due, c)
		}
	}
	rank := func(c *candidate) (int, int, int) {
		kept := 1
		if c.keep {
			kept = 0
		}
		return kept, now.groups[group(c.Addrs[0])], now.carriers[f.cfg.Carrier(c.Addrs[0])]
	}
	slices.SortFunc(due, func(a, b *candidate) int {
		ak, ag, ac := rank(a)
		bk, bg, bc := rank(b)
		return cmp.Or(ak-bk, a.failures-b.failures, ag-bg, ac-bc, a.order-b.order)
	})
	var chosen []*candidate
	for _, c := range due {
		if under+len(chosen) >= dials {
			break
		}
		g := group(c.Addrs[0])
		full := f.cfg.Want > 0 && now.total >= f.cfg.Want || g != "" && now.groups[g] >= maxGroup
		if full && !c.keep {
			continue
		}
		now.add(c.Addrs[0], f.cfg.Carrier)
		chosen = append(chosen, c)
	}
	return chosen
}

// remember chooses the anchors, the two connections of our making that have lasted longest and lead into different
// networks, and writes the book.
func (f *Finder) remember() {
	if f.cfg.Book == nil {
		return
	}
	conns := slices.DeleteFunc(f.host.Network().Conns(), func(c network.Conn) bool {
		return c.Stat().Direction != network.DirOutbound || f.Source(c.RemotePeer()) == "lan" || len(f.cfg.Book.Addrs(c.RemotePeer())) == 0
	})
	slices.SortFunc(conns, func(a, b network.Conn) int { return a.Stat().Opened.Compare(b.Stat().Opened) })
	var chosen []peer.ID
	taken := map[string]bool{}
	for _, c := range conns {
		if g := group(c.RemoteMultiaddr()); len(chosen) < anchors && !taken[g] {
			chosen = append(chosen, c.RemotePeer())
			taken[g] = g != ""
		}
	}
	f.cfg.Book.Anchor(chosen)
	if err := f.cfg.Book.Save(); err != nil {
		f.log.Warn("the peer book cannot be written", "error", err)
	}
}
