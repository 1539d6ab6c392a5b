package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	golog "github.com/ipfs/go-log/v2"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/gologshim"
	"github.com/libp2p/go-libp2p/p2p/host/autorelay"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	ma "github.com/multiformats/go-multiaddr"

	"openline/bootstrap"
	"openline/node/api"
	"openline/node/carrier"
)

// Connections above high are trimmed to low. Under 16 a node that loses half of them can fall out of the mesh.
const (
	connsLow, connsHigh           = 24, 64
	relayConnsLow, relayConnsHigh = 400, 600
)

// Idle connections are asked for a sign of life this often, and given up after this long without one: a censor who
// freezes a connection says nothing.
const (
	aliveEvery   = 4 * time.Second
	aliveTimeout = 6 * time.Second
)

// newHost opens the sockets on the carriers that the mode allows. Inside all of them is Noise. The agent string is the
// same for all versions: a peer learns that this is openline, not which bugs it has.
func newHost(cfg Config, carriers *carrier.Set, key crypto.PrivKey, circuits func() []peer.AddrInfo) (host.Host, error) {
	gologshim.SetDefaultHandler(slog.DiscardHandler) // libp2p writes peers' ids and addresses into its logs
	golog.SetupLogging(golog.Config{Level: golog.LevelFatal})
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
	muxer := *yamux.DefaultTransport
	muxer.KeepAliveInterval, muxer.ConnectionWriteTimeout = aliveEvery, aliveTimeout
	dial := dialTimeout(cfg)
	options := append(carriers.Options(swarm.WithDialTimeout(dial), swarm.WithDialTimeoutLocal(min(dial, 10*time.Second))),
		libp2p.Identity(key),
		libp2p.NoListenAddrs, // see listen: New leaves goroutines behind when a socket cannot be opened
		libp2p.Security(noise.ID, noise.New),
		libp2p.Muxer(yamux.ID, &muxer),
		libp2p.ConnectionManager(conns),
		libp2p.ResourceManager(limits),
		libp2p.UserAgent("openline"),
		libp2p.DisableMetrics(),
		libp2p.AddrsFactory(func(addrs []ma.Multiaddr) []ma.Multiaddr {
			if cfg.Bridge {
				return nil // identify would tell every peer
			}
			return carrier.Public(addrs)
		}),
	)
	h, err := libp2p.New(append(options, reachability(cfg, circuits)...)...)
	if err != nil {
		return nil, fmt.Errorf("start libp2p: %w", err)
	}
	if err := listen(h, cfg); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

// dialTimeout is for one address: Tor takes its time.
func dialTimeout(cfg Config) time.Duration {
	if cfg.Carriers.Mode == carrier.OnlyTor {
		return 90 * time.Second
	}
	return 20 * time.Second
}

// reachability lets nodes behind a router be reached: by a port of the router's, by a hole in it, or by a relay, which
// passes on without limits because gossip does not run over limited connections. All of it shows libp2p. circuits are
// peers that could pass on.
func reachability(cfg Config, circuits func() []peer.AddrInfo) []libp2p.Option {
	if !cfg.NAT {
		return []libp2p.Option{libp2p.DisableRelay()}
	}
	options := []libp2p.Option{libp2p.NATPortMap(), libp2p.EnableAutoNATv2(), libp2p.EnableRelay(), libp2p.EnableHolePunching()}
	if cfg.Relay {
		return append(options, libp2p.EnableRelayService(relay.WithInfiniteLimits()), libp2p.EnableNATService())
	}
	source := func(_ context.Context, most int) <-chan peer.AddrInfo {
		found := make(chan peer.AddrInfo, most) // it has room for all that are wanted
		defer close(found)
		for i, p := range circuits() {
			if i < most {
				found <- p
			}
		}
		return found
	}
	return append(options, libp2p.EnableAutoRelayWithPeerSource(source, autorelay.WithMinInterval(circuitsAgain), autorelay.WithBootDelay(circuitsBoot),
		autorelay.WithMinCandidates(1), autorelay.WithNumRelays(2)))
}

// A node that cannot be reached asks relays to pass on once it has known some for a while, and looks for others.
const (
	circuitsBoot  = 20 * time.Second
	circuitsAgain = 30 * time.Second
)

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

// peerKey returns the key of the peer id: a lasting one of a relay, for addresses with it are handed around, and of a
// daemon whose invites name it; anybody else's is fresh at every start, so that nobody is recognised by it.
func peerKey(cfg Config, lasting bool) (crypto.PrivKey, error) {
	if lasting {
		raw, err := os.ReadFile(peerKeyPath(cfg))
		if err == nil {
			key, err := crypto.UnmarshalPrivateKey(raw)
			if err != nil {
				return nil, &api.Hint{Err: fmt.Errorf("read %s: %w", peerKeyPath(cfg), err),
					Hint: "restore it from a backup, or move it aside and get a new peer id"}
			}
			return key, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read the peer key: %w", err)
		}
	}
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil || !lasting {
		return key, err
	}
	return key, keepPeerKey(cfg, key)
}

func peerKeyPath(cfg Config) string { return filepath.Join(cfg.Dir, "peer.key") }

// keepPeerKey writes the key down for the next start.
func keepPeerKey(cfg Config, key crypto.PrivKey) error {
	raw, err := crypto.MarshalPrivateKey(key)
	if err != nil {
		return err
	}
	return bootstrap.WriteFile(peerKeyPath(cfg), raw)
}
