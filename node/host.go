package node

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/gologshim"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"

	"openline/node/api"
)

// Connections above high are trimmed to low. Under 16 a node that loses half of them can fall out of the mesh.
const (
	connsLow, connsHigh           = 24, 64
	relayConnsLow, relayConnsHigh = 400, 600
)

// newHost opens the sockets of the plain carriers: TCP and QUIC, with Noise. The agent string is the same for all
// versions: a peer learns that this is openline, not which bugs it has.
func newHost(cfg Config) (host.Host, error) {
	gologshim.SetDefaultHandler(slog.DiscardHandler) // libp2p writes peers' ids and addresses into its logs
	key, err := peerKey(cfg)
	if err != nil {
		return nil, err
	}
	low, high := connsLow, connsHigh
	if cfg.Relay {
		low, high = relayConnsLow, relayConnsHigh
	}
	conns, err := connmgr.NewConnManager(low, high)
	if err != nil {
		return nil, fmt.Errorf("connection manager: %w", err)
	}
	limits, err := resources()
	if err != nil {
		return nil, err
	}
	h, err := libp2p.New(
		libp2p.Identity(key),
		libp2p.NoListenAddrs, // see listen: New leaves goroutines behind when a socket cannot be opened
		libp2p.Transport(tcp.NewTCPTransport, tcp.DisableReuseport()), // else two nodes share a port, each hearing half
		libp2p.Transport(quic.NewTransport),
		libp2p.Security(noise.ID, noise.New),
		libp2p.ConnectionManager(conns),
		libp2p.ResourceManager(limits),
		libp2p.UserAgent("openline"),
		libp2p.DisableRelay(),
		libp2p.DisableMetrics(),
	)
	if err != nil {
		return nil, fmt.Errorf("start libp2p: %w", err)
	}
	if err := listen(h, cfg); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

// listen opens the sockets one by one. Only IPv6 may be missing, as it is on many machines.
func listen(h host.Host, cfg Config) error {
	for _, s := range cfg.Listen {
		addr, err := ma.NewMultiaddr(s)
		if err == nil {
			err = h.Network().Listen(addr)
		}
		if err != nil && strings.HasPrefix(s, "/ip6/") {
			cfg.Log.Info("no listening on IPv6", "error", err)
			continue
		}
		if err != nil {
			return &api.Hint{Err: fmt.Errorf("listen on %s: %w", s, err),
				Hint: "is the port taken? name another with --listen, for example --listen /ip4/0.0.0.0/tcp/0"}
		}
	}
	return nil
}

// resources raises the default of 8 connections from one address: behind one carrier-grade NAT, VPN or Tor exit
// stand many honest people.
func resources() (network.ResourceManager, error) {
	limits := rcmgr.DefaultLimits
	libp2p.SetDefaultServiceLimits(&limits)
	perAddress := func(bits, n int) []rcmgr.ConnLimitPerSubnet {
		return []rcmgr.ConnLimitPerSubnet{{PrefixLength: bits, ConnCount: n}}
	}
	m, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(limits.AutoScale()),
		rcmgr.WithLimitPerSubnet(perAddress(32, 64), perAddress(56, 64)),
		rcmgr.WithNetworkPrefixLimit([]rcmgr.NetworkPrefixLimit{loopback("127.0.0.0/8")}, []rcmgr.NetworkPrefixLimit{loopback("::1/128")}))
	if err != nil {
		return nil, fmt.Errorf("resource limits: %w", err)
	}
	return m, nil
}

func loopback(prefix string) rcmgr.NetworkPrefixLimit {
	return rcmgr.NetworkPrefixLimit{Network: netip.MustParsePrefix(prefix), ConnCount: relayConnsHigh}
}

// peerKey returns the key of the peer id: a relay's lasts, for addresses with it are handed around; anybody else's is
// fresh at every start, so that nobody is recognised by it.
func peerKey(cfg Config) (crypto.PrivKey, error) {
	if !cfg.Relay {
		key, _, err := crypto.GenerateEd25519Key(rand.Reader)
		return key, err
	}
	path := filepath.Join(cfg.Dir, "peer.key")
	raw, err := os.ReadFile(path)
	if err == nil {
		key, err := crypto.UnmarshalPrivateKey(raw)
		if err != nil {
			return nil, &api.Hint{Err: fmt.Errorf("read %s: %w", path, err),
				Hint: "restore it from a backup, or move it aside and get a new peer id"}
		}
		return key, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the relay's peer key: %w", err)
	}
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, err
	}
	if raw, err = crypto.MarshalPrivateKey(key); err != nil {
		return nil, err
	}
	return key, writeFile(path, string(raw))
}
