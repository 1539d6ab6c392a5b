package node

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"openline/bootstrap"
	"openline/node/carrier"
	"openline/node/mesh"
)

// Config says what a node is and where it keeps its things. Start from DefaultConfig or RelayConfig.
type Config struct {
	Dir     string   // everything the node keeps; made when missing, readable by its owner only
	Network string   // nodes of different networks do not hear each other
	Relay   bool     // public, with a lasting peer id and without an identity
	API     string   // host:port of the local door; port 0 takes a free one; "" opens none
	Listen  []string // multiaddrs
	Peers   []string // multiaddrs that end in /p2p/ and a peer id; never given up
	LAN     bool     // look for neighbours by multicast and answer them
	NAT     bool     // ask the router for a port, and other nodes whether and how one can be reached; in mode open only
	DHT     bool     // look for relays in this network's hash table, and as a relay keep it; in mode open only
	Bridge  bool     // a relay in no list, which speaks to those alone who hold an invite

	DNSAddrs  []string // domains under which peers' addresses stand
	Lists     []string // mirrors of signed lists: https://HOST/PATH#KEY
	Resolvers []string // DNS over HTTPS (RFC 8484), their hosts IP addresses; the first that answers is asked again

	Carriers carrier.Config // Dir, Admit, Tokens, Names and Log are the node's to fill in

	KeepFor  time.Duration // how long strangers' events stay; 0: for ever
	MaxBytes uint64        // of all events before compression, beyond which the oldest of strangers go; 0: any
	Budget   int           // bytes a second for history; 0: what goes through

	AllowOrigins []string // web pages that may use the local door
	AllowHosts   []string // names beside localhost under which it may be addressed

	Version string
	Now     func() time.Time // nil: time.Now
	Log     *slog.Logger     // nil discards

	// Of tests with simulated networks.
	host      host.Host // instead of one with sockets
	inMemory  bool      // no files but the owner's
	unstamped bool      // a tenth of a second of a core for each post
}

// DefaultAPI is where Nostr clients look for a local relay.
const DefaultAPI = "127.0.0.1:4869"

// DefaultConfig returns a daemon's settings.
func DefaultConfig() Config {
	return Config{
		Dir:     defaultDir(),
		Network: "main",
		API:     DefaultAPI,
		Listen: []string{"/ip4/0.0.0.0/tcp/0", "/ip4/0.0.0.0/udp/0/quic-v1",
			"/ip6/::/tcp/0", "/ip6/::/udp/0/quic-v1"},
		LAN: true,
		NAT: true,
		DHT: true,
		// Three operators; two of them are hard to block whole.
		Resolvers: []string{"https://1.1.1.1/dns-query", "https://8.8.8.8/dns-query", "https://94.140.14.140/dns-query"},
		Carriers:  carrier.Config{Mode: carrier.Open, TorSOCKS: "127.0.0.1:9050", TorControl: "127.0.0.1:9051"},
		KeepFor:   90 * 24 * time.Hour, // the longest cut so far, of 2026, took 88 days
		MaxBytes:  4 << 30,
	}
}

// RelayConfig returns a relay's settings: ports that stay the same, and a door for strangers.
func RelayConfig() Config {
	c := DefaultConfig()
	c.Relay = true
	c.API = "0.0.0.0:4869"
	c.MaxBytes = 40 << 30
	c.Listen = []string{"/ip4/0.0.0.0/tcp/4870", "/ip4/0.0.0.0/udp/4870/quic-v1",
		"/ip6/::/tcp/4870", "/ip6/::/udp/4870/quic-v1"}
	return c
}

// BridgeConfig returns the settings of a relay that only the invited find: an ordinary web server for everybody else.
func BridgeConfig() Config {
	c := RelayConfig()
	c.Bridge = true
	c.API = DefaultAPI
	c.Listen = []string{"/ip4/0.0.0.0/tcp/443/tls/ws"}
	return c
}

// settle makes the settings agree with the mode: what it forbids is off, whoever asked for it.
func (c Config) settle() Config {
	if c.Bridge {
		c.Relay = true
	}
	if c.Carriers.Mode != carrier.Open || c.Bridge {
		c.LAN, c.NAT = false, false
	}
	c.Listen = slices.DeleteFunc(slices.Clone(c.Listen), func(s string) bool {
		a, err := ma.NewMultiaddr(s)
		return err == nil && !c.mayListen(a)
	})
	if !slices.ContainsFunc(c.Listen, func(s string) bool { return !strings.Contains(s, "/127.0.0.1/") && !strings.Contains(s, "/ip6/::1/") }) {
		c.NAT = false // nobody could come
	}
	return c
}

// mayListen reports whether a socket may show what listens there. In modes careful and tor, and on a bridge, plain
// carriers show libp2p to whoever asks.
func (c Config) mayListen(a ma.Multiaddr) bool {
	switch carrier.Name(a) {
	case carrier.QUIC, carrier.TCP:
		return c.Carriers.Mode == carrier.Open && !c.Bridge && c.Carriers.Allows(carrier.Name(a))
	case carrier.Tor:
		return c.Carriers.Allows(carrier.Tor)
	}
	return c.Carriers.Mode != carrier.OnlyTor
}

// defaultDir is where the system has programs keep a user's data: by the XDG base directory specification, Apple's
// file system guide, or %LocalAppData%.
func defaultDir() string {
	home, err := os.UserHomeDir()
	if err != nil {
		return "openline-data"
	}
	data := filepath.Join(home, ".local", "share")
	switch runtime.GOOS {
	case "darwin", "ios":
		data = filepath.Join(home, "Library", "Application Support")
	case "windows":
		data = filepath.Join(home, "AppData", "Local")
		if d := os.Getenv("LocalAppData"); d != "" {
			data = d
		}
	default:
		if d := os.Getenv("XDG_DATA_HOME"); d != "" {
			data = d
		}
	}
	return filepath.Join(data, "openline")
}

// Validate says what is wrong with c; the errors are for people and name the setting.
func (c Config) Validate() error {
	if c.Dir == "" {
		return errors.New("data: a directory is needed")
	}
	if err := mesh.CheckNetwork(c.Network); err != nil {
		return err
	}
	for _, s := range c.Listen {
		if _, err := ma.NewMultiaddr(s); err != nil {
			return fmt.Errorf("listen: %q is not a multiaddr like /ip4/0.0.0.0/tcp/4870: %w", s, err)
		}
	}
	if c.KeepFor != 0 && c.KeepFor < time.Hour {
		return fmt.Errorf("keep: %v is less than an hour", c.KeepFor)
	}
	if c.MaxBytes != 0 && c.MaxBytes < 1<<20 {
		return fmt.Errorf("keep-size: %d bytes are less than a megabyte", c.MaxBytes)
	}
	if c.Budget < 0 || c.Budget > 0 && c.Budget < 256 {
		return fmt.Errorf("budget: %d bytes a second are less than 256", c.Budget)
	}
	if err := errors.Join(c.Carriers.Validate(), c.checkSources()); err != nil {
		return err
	}
	if c.Bridge && len(c.settle().Listen) == 0 {
		return errors.New("listen: a bridge needs an address that is disguised, such as /ip4/0.0.0.0/tcp/443/tls/ws")
	}
	_, err := c.peers()
	return err
}

// checkSources says what is wrong with where peers are to be looked for.
func (c Config) checkSources() error {
	for _, u := range c.Lists {
		if _, _, err := bootstrap.ParseListURL(u); err != nil {
			return fmt.Errorf("list: %w", err)
		}
	}
	for _, u := range c.Resolvers {
		if err := bootstrap.CheckResolver(u); err != nil {
			return err
		}
	}
	for _, d := range c.DNSAddrs {
		if _, err := ma.NewComponent("dnsaddr", d); err != nil || strings.Contains(d, "/") {
			return fmt.Errorf("dnsaddr: %q is not a domain like relays.example.org", d)
		}
	}
	return nil
}

func (c Config) peers() ([]peer.AddrInfo, error) {
	var infos []peer.AddrInfo
	for _, s := range c.Peers {
		p, err := bootstrap.ParsePeer(s)
		if err != nil {
			return nil, err
		}
		infos = append(infos, p)
	}
	return infos, nil
}
