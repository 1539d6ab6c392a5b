package node

import (
	"net"
	"net/http"
	"path/filepath"
	"slices"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"

	"openline/bootstrap"
	"openline/node/carrier"
)

// openNames makes the resolver that everything here asks. Only mode open ever asks in clear, when nobody else answers.
func (n *Node) openNames() {
	var clear bootstrap.Lookups
	if n.cfg.Carriers.Mode == carrier.Open {
		clear = net.DefaultResolver
	}
	// The way to the resolvers is the carriers', which themselves ask the resolver about other hosts.
	client := &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) { return n.web.Transport.RoundTrip(r) }),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }} // a question goes to nobody else
	n.names = bootstrap.NewResolver(client, n.cfg.Resolvers, clear)
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// sources are all ways of finding peers that the mode allows, the nearest first.
func (n *Node) sources() ([]bootstrap.Source, error) {
	peers, err := n.cfg.peers()
	if err != nil {
		return nil, err
	}
	sources := []bootstrap.Source{bootstrap.Configured(peers)}
	if n.cfg.LAN {
		sources = append(sources, bootstrap.LAN{Host: n.host, Network: n.cfg.Network})
	}
	if n.carriers == nil {
		return sources, nil // a simulated network has no more
	}
	if len(n.cfg.DNSAddrs) > 0 {
		sources = append(sources, bootstrap.DNSAddr{Domains: n.cfg.DNSAddrs, Names: n.names})
	}
	if len(n.cfg.Lists) > 0 {
		lists, err := bootstrap.OpenLists(filepath.Join(n.cfg.Dir, "lists.json"), n.now, n.cfg.Network)
		if err != nil {
			return nil, err
		}
		sources = append(sources, bootstrap.Mirrors{URLs: n.cfg.Lists, Lists: lists, Client: n.web, Info: listedPeer})
	}
	if !n.cfg.public() {
		return sources, nil
	}
	exchange := bootstrap.NewExchange(n.host, n.cfg.Relay, carrier.Public)
	n.closers = append(n.closers, exchange.Close)
	sources = append(sources, exchange)
	if n.cfg.DHT {
		table, err := bootstrap.NewDHT(n.host, n.cfg.Network, n.cfg.Relay, carrier.Public)
		if err != nil {
			return nil, err
		}
		n.closers = append(n.closers, table.Close)
		sources = append(sources, table)
	}
	return sources, nil
}

// public reports whether this node may tell and ask strangers where nodes are.
func (c Config) public() bool { return c.Carriers.Mode == carrier.Open && !c.Bridge }

// circuits finds peers that pass on to nodes that cannot be reached themselves.
func circuits(h host.Host) []peer.AddrInfo {
	var relays []peer.AddrInfo
	for _, p := range h.Network().Peers() {
		if slices.ContainsFunc(h.Network().ConnsToPeer(p), func(c network.Conn) bool { return carrier.Secret(c.RemoteMultiaddr()) }) {
			continue // whoever came over it would be told where it is
		}
		known, err := h.Peerstore().SupportsProtocols(p, circuit.ProtoIDv2Hop)
		if err != nil || len(known) == 0 {
			continue
		}
		if addrs := carrier.Public(h.Peerstore().Addrs(p)); len(addrs) > 0 {
			relays = append(relays, peer.AddrInfo{ID: p, Addrs: addrs})
		}
	}
	return relays
}
