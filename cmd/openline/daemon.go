package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"openline/node"
)

func (p *program) daemonCmd() *cobra.Command {
	return p.nodeCmd(node.DefaultConfig(), &cobra.Command{
		Use:   "daemon",
		Short: "Run your own node: flood, keep, and open a door for your programs on this machine",
		Long: `Runs your own node until it is interrupted. Programs on this machine, Nostr clients among them, use it at
ws://127.0.0.1:4869; other machines cannot. Its peer id is fresh at every start. On the local network it tells neighbours by
multicast that it runs, unless --lan=false.`,
		Example: `  openline daemon
  openline daemon --peer /ip4/192.0.2.7/tcp/4870/p2p/12D3Koo… --lan=false
  openline daemon --data ~/second --api 127.0.0.1:0`,
		Args: cobra.NoArgs,
	})
}

func (p *program) relayCmd() *cobra.Command {
	return p.nodeCmd(node.RelayConfig(), &cobra.Command{
		Use:   "relay",
		Short: "Run a public node: lasting address, larger mesh, a websocket for strangers' phones, no identity",
		Long: `Runs a public node until it is interrupted. It listens on port 4870 (TCP and UDP) for nodes and on port 4869 for
Nostr clients of anybody, within limits for each address. It keeps its peer id in the data directory and has no key to
post with. Its address becomes known to everybody who asks: do not run one where that is dangerous.

With --bridge it is in no list and speaks to those alone who hold an invite of its keeper's (openline invite). Everybody
else finds a web site on port 443: an empty one, or what --decoy names. With REALITY it needs no certificate and looks
like a well-known site of others. Other nodes that a bridge connects to by itself see its IP address, as anybody's.`,
		Example: `  openline relay
  openline relay --listen /ip4/0.0.0.0/tcp/443 --api 0.0.0.0:80
  openline relay --bridge --decoy ~/site --peer /ip4/192.0.2.7/tcp/4870/p2p/12D3Koo…
  openline relay --bridge --listen /ip4/0.0.0.0/tcp/443/tls/sni/www.example.com/reality
  openline relay --bridge --listen /ip4/127.0.0.1/tcp/8080/ws --announce /ip4/192.0.2.7/tcp/443/tls/sni/example.org/ws
  openline relay --bridge --listen /ip4/0.0.0.0/tcp/8443/pt/obfs4 --listen /ip4/127.0.0.1/tcp/0/tor`,
		Args: cobra.NoArgs,
	})
}

func (p *program) nodeCmd(cfg node.Config, cmd *cobra.Command) *cobra.Command {
	var verbose bool
	size, budget := humanize.IBytes(cfg.MaxBytes), ""
	f := cmd.Flags()
	f.StringVar(&cfg.Network, "network", cfg.Network, "`NAME` of the network; nodes of others are not heard")
	f.StringArrayVar(&cfg.Listen, "listen", cfg.Listen, "`MULTIADDR` on which nodes may connect; repeatable")
	f.StringArrayVar(&cfg.Peers, "peer", nil, "`MULTIADDR` of a node to stay connected to, with /p2p/ and its id; repeatable")
	f.BoolVar(&cfg.LAN, "lan", cfg.LAN, "find neighbours on the local network by multicast, which tells them that you run this")
	carrierFlags(f, &cfg)
	f.StringArrayVar(&cfg.AllowOrigins, "allow-origin", nil, "`ORIGIN` of a web page that may use the local door, such as https://example.org; repeatable")
	f.StringArrayVar(&cfg.AllowHosts, "allow-host", nil, "`NAME` under which the local door may be addressed besides localhost; repeatable")
	f.DurationVar(&cfg.KeepFor, "keep", cfg.KeepFor, "how long strangers' notes stay, such as 720h; yours and what you follow stay; 0: for ever")
	f.StringVar(&size, "keep-size", size, "`SIZE` of all notes (before compression) beyond which the oldest of strangers go; 0: any")
	f.StringVar(&budget, "budget", budget, "`SIZE` a second that catching up with peers may take, such as 4kB; with under 16kB what you follow comes first (default: as much as goes through)")
	f.BoolVarP(&verbose, "verbose", "v", false, "log more on stderr")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg.Dir, cfg.Version = p.data, version()
		if cfg.Bridge {
			asBridge(&cfg, cmd.Flags().Changed("listen"))
		}
		if err := sizes(&cfg, size, budget); err != nil {
			return err
		}
		if p.api != "" {
			cfg.API = p.api
		}
		if !cfg.Relay {
			cfg.API = loopbackHost(cfg.API)
		}
		level := slog.LevelInfo
		if verbose {
			level = slog.LevelDebug
		}
		cfg.Log = slog.New(slog.NewTextHandler(p.err, &slog.HandlerOptions{Level: level}))
		return p.runNode(cmd.Context(), cfg)
	}
	return cmd
}

// carrierFlags are about how a node reaches others and is reached, and what of it shows.
func carrierFlags(f *pflag.FlagSet, cfg *node.Config) {
	if cfg.Relay {
		f.BoolVar(&cfg.Bridge, "bridge", false, "be in no list and speak to the invited alone; a web site for everybody else")
	}
	f.BoolVar(&cfg.NAT, "nat", cfg.NAT, "ask the router for a port and other nodes how this one can be reached; in mode open only")
	f.BoolVar(&cfg.DHT, "dht", cfg.DHT, "look for relays in this network's hash table; in mode open only")
	f.StringArrayVar(&cfg.Lists, "list", nil, "`URL#KEY` of a signed list of relays on an HTTPS mirror (openline list --help); repeatable")
	f.StringArrayVar(&cfg.DNSAddrs, "dnsaddr", nil, "`DOMAIN` under which addresses of nodes stand in the DNS, as _dnsaddr.DOMAIN; repeatable")
	f.StringArrayVar(&cfg.Resolvers, "resolver", cfg.Resolvers, "`URL` of a DNS resolver over HTTPS, its host an IP address; repeatable")
	f.StringVar((*string)(&cfg.Carriers.Mode), "mode", string(cfg.Carriers.Mode), "how much to show: open: everything; careful: nothing that tells a censor what this is; tor: through Tor or not at all")
	f.StringSliceVar(&cfg.Carriers.Only, "carriers", nil, "`NAMES` of the carriers to use, of quic,tcp,wss,reality,pt,tor,relay (default: all that the mode allows)")
	f.StringVar(&cfg.Carriers.TorSOCKS, "tor", cfg.Carriers.TorSOCKS, "`HOST:PORT` of Tor's SOCKS port")
	f.StringToStringVar(&cfg.Carriers.PTs, "pt", nil, "`NAME=PROGRAM` of a pluggable transport, such as obfs4=/usr/bin/lyrebird; repeatable")
	f.StringArrayVar(&cfg.Carriers.Announce, "announce", nil, "`MULTIADDR` under which --listen is reached from outside, such as /ip4/192.0.2.7/tcp/443/tls/sni/example.org/ws; repeatable")
	f.StringVar(&cfg.Carriers.TLSCert, "tls-cert", "", "`FILE` with the certificate of this server's name (default: one of its own, which invites name)")
	f.StringVar(&cfg.Carriers.TLSKey, "tls-key", "", "`FILE` with the key of --tls-cert")
	f.StringVar(&cfg.Carriers.Decoy, "decoy", "", "`SITE` that strangers see: a directory with a web site, or the URL of one")
	f.StringVar(&cfg.Carriers.Cover, "cover", "", "`HOST:PORT` of the site that REALITY stands before (default: the name in --listen, port 443)")
	f.StringVar(&cfg.Carriers.TorControl, "tor-control", cfg.Carriers.TorControl, "`HOST:PORT` of Tor's control port, for an onion service")
}

// asBridge gives the settings that were not named a bridge's defaults.
func asBridge(cfg *node.Config, listens bool) {
	b := node.BridgeConfig()
	cfg.API = b.API
	if !listens {
		cfg.Listen = b.Listen
	}
}

// sizes reads the sizes that people write with units.
func sizes(cfg *node.Config, size, budget string) error {
	var err error
	if cfg.MaxBytes, err = parseSize("keep-size", size, "2GB", 0, math.MaxUint64); err != nil || budget == "" {
		return err
	}
	n, err := parseSize("budget", budget, "4kB", 0, math.MaxInt32)
	cfg.Budget = int(n)
	return err
}

func (p *program) runNode(ctx context.Context, cfg node.Config) error {
	if err := cfg.Validate(); err != nil {
		return usagef("openline daemon --help shows examples", "%w", err)
	}
	n, err := node.Open(cfg)
	if err != nil {
		return err
	}
	err = p.welcome(ctx, n)
	if err == nil {
		err = n.Run(ctx)
	}
	return errors.Join(err, n.Close())
}

// welcome tells the user, or with --json a script, where the node is to be found.
func (p *program) welcome(ctx context.Context, n *node.Node) error {
	s, err := n.Status(ctx)
	if err != nil {
		return err
	}
	if p.json {
		return json.NewEncoder(p.out).Encode(s)
	}
	fmt.Fprintf(p.out, "openline %s, network %s\n", s.Role, s.Network)
	fmt.Fprintf(p.out, "programs on this machine use it at %s (HTTP API: http://%s)\n", s.Websocket, s.API)
	if len(s.Addresses) == 0 {
		fmt.Fprintln(p.out, `other nodes reach it by an invite, if at all: "openline invite" makes one`)
	} else {
		fmt.Fprintln(p.out, "other nodes reach it with --peer and one of:")
	}
	for _, a := range s.Addresses {
		fmt.Fprintf(p.out, "  %s\n", a)
	}
	fmt.Fprintln(p.out, "stop it with Ctrl-C")
	return nil
}
