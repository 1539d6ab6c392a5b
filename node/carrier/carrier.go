// Package carrier moves libp2p's connections in disguise. A rung is one such way: its file says how it is dialled and
// how it listens; the skeleton around it (skeleton.go) makes a libp2p transport of it, and the ladder (ladder.go)
// decides which is tried first and which is left alone for a while. An address says which rung it needs.
//
// What a censor sees: of QUIC and TCP that this is libp2p; of WSS a browser at some web site; of REALITY a browser at
// the web site that the bridge's keeper chose; of a pluggable transport what that one shows; of Tor, Tor. Who probes a
// listening rung without one of its tokens gets a web site, or silence. It refuses what the mode forbids: in mode
// careful the rungs that show libp2p, in mode tor all that is not Tor.
package carrier

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
	madns "github.com/multiformats/go-multiaddr-dns"
)

// Mode says how much a node may show of itself to who watches its line.
type Mode string

const (
	Open    Mode = "open"    // everything
	Careful Mode = "careful" // nothing that shows libp2p, nothing to all neighbours, no name in clear
	OnlyTor Mode = "tor"     // Tor, or nothing
)

// ParseMode reads a mode.
func ParseMode(s string) (Mode, error) {
	switch m := Mode(s); m {
	case Open, Careful, OnlyTor:
		return m, nil
	}
	return "", fmt.Errorf("mode: %q is none of open, careful, tor", s)
}

// Config is what the rungs need of their node.
type Config struct {
	Mode Mode
	Only []string // names of carriers; empty: all that the mode allows
	Dir  string   // for keys, certificates and the memory; readable by its owner only

	// Admit says who may come in by a token. A guest is cut off after GuestTime unless Promote was called.
	Admit  func(Token) (ok, guest bool)
	Tokens func() []Token // all that Admit lets in; REALITY has to go through them

	Announce []string // multiaddrs under which listening rungs are reached from outside; empty: those of this machine
	TLSCert  string   // files with a certificate that browsers trust, and its key; "": one of its own, by its hash
	TLSKey   string
	Decoy    string // what a stranger sees of WSS: a directory or the URL of a site; "": an empty page
	Cover    string // host:port of the site behind REALITY's name; "": that name, port 443

	TorSOCKS    string            // host:port
	TorControl  string            // host:port; needed for an onion service only
	TorPassword string            // of the control port; "": by its cookie
	PTs         map[string]string // program of each pluggable transport; those missing are looked for by their usual names

	Names madns.BasicResolver // looks up names without showing them on the line; nil: none is looked up, but in mode open by libp2p
	Log   *slog.Logger        // nil discards
}

// Validate says what is wrong with c.
func (c Config) Validate() error {
	if _, err := ParseMode(string(c.Mode)); err != nil {
		return err
	}
	for _, name := range c.Only {
		if !slices.Contains(Names(), name) {
			return fmt.Errorf("carriers: %q is none of %s", name, strings.Join(Names(), ", "))
		}
		if !modeAllows(c.Mode, name) {
			return fmt.Errorf("carriers: mode %s forbids %s", c.Mode, name)
		}
	}
	for _, s := range c.Announce {
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			return fmt.Errorf("announce: %q is not a multiaddr: %w", s, err)
		}
		if Name(a) == "" {
			return fmt.Errorf("announce: no carrier leads to %q", s)
		}
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return errors.New("tls-cert and tls-key go together")
	}
	return nil
}

// Allows reports whether a node with this configuration may use a carrier.
func (c Config) Allows(name string) bool {
	return modeAllows(c.Mode, name) && (len(c.Only) == 0 || slices.Contains(c.Only, name))
}

func modeAllows(m Mode, name string) bool {
	switch name {
	case WSS, Reality:
		return true // in mode tor through Tor
	case PT:
		return m != OnlyTor
	case Tor:
		return true
	case TCP:
		return m != Careful
	case QUIC, Relay:
		return m == Open
	}
	return false
}

// Set is the rungs of one node.
type Set struct {
	cfg    Config
	log    *slog.Logger
	ladder *Ladder
	guard  guard
	pts    programs

	mu      sync.Mutex // guards the fields below
	places  []ma.Multiaddr
	closers []func() error
}

// New returns the rungs that cfg allows. Nothing is opened before libp2p listens or dials.
func New(cfg Config) (*Set, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Admit == nil {
		cfg.Admit = func(Token) (bool, bool) { return false, false }
	}
	if cfg.Tokens == nil {
		cfg.Tokens = func() []Token { return nil }
	}
	s := &Set{cfg: cfg, log: cfg.Log, guard: guard{admit: cfg.Admit, in: map[string]*admitted{}}}
	s.ladder = newLadder(cfg)
	s.pts = programs{cfg: cfg, running: map[string]*client{}}
	return s, nil
}

// Options are the transports for libp2p.New, and the ladder that orders them, with whatever else is for the swarm:
// libp2p takes that once.
func (s *Set) Options(more ...swarm.Option) []libp2p.Option {
	options := []libp2p.Option{libp2p.SwarmOpts(append(more, swarm.WithDialRanker(s.ladder.Rank))...), libp2p.ConnectionGater(s.ladder)}
	names := s.cfg.Names
	if names == nil && s.cfg.Mode != Open {
		names = quiet{}
	}
	if names != nil {
		resolver, err := madns.NewResolver(madns.WithDefaultResolver(names))
		if err != nil {
			panic(err) // its one option cannot fail
		}
		options = append(options, libp2p.MultiaddrResolver(swarm.ResolverFromMaDNS{Resolver: resolver}))
	}
	plain := s.cfg.Mode != OnlyTor
	if plain && s.cfg.Allows(TCP) {
		// Without reuse of the port: else two nodes share one, each hearing half.
		options = append(options, libp2p.Transport(tcp.NewTCPTransport, tcp.DisableReuseport()))
	}
	if plain && s.cfg.Allows(QUIC) {
		options = append(options, libp2p.Transport(quic.NewTransport))
	}
	for _, r := range []rung{&wss{s}, &reality{set: s, hellos: newHellos(time.Now)}, &pluggable{s}, &onion{s}} {
		if !s.cfg.Allows(r.name()) {
			continue
		}
		options = append(options, libp2p.Transport(func(u transport.Upgrader, m network.ResourceManager) transport.Transport {
			return &skeleton{rung: r, set: s, upgrader: u, limits: m}
		}))
	}
	return options
}

// Ladder returns the memory of what worked.
func (s *Set) Ladder() *Ladder { return s.ladder }

// Addresses returns where listening rungs are reached, without tokens: for invites, never for strangers.
func (s *Set) Addresses() []ma.Multiaddr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.cfg.Announce) == 0 {
		return slices.Clone(s.places)
	}
	var addrs []ma.Multiaddr
	for _, a := range s.cfg.Announce {
		addrs = append(addrs, s.completed(ma.StringCast(a))) // validated
	}
	return addrs
}

// completed adds to an announced address what only the running rung knows: REALITY's key, an own certificate's hash,
// a pluggable transport's arguments.
func (s *Set) completed(a ma.Multiaddr) ma.Multiaddr {
	want := read(a)
	for _, known := range s.places {
		have := read(known)
		if have.carrier != want.carrier || want.carrier == "" {
			continue
		}
		switch {
		case want.carrier == Reality && want.key == nil:
			return a.AppendComponent(component("key", have.key))
		case want.carrier == WSS && want.tls && want.pin == nil && have.pin != nil:
			return pinned(a, have.pin)
		case want.carrier == PT && !strings.Contains(want.pt, ";") && strings.HasPrefix(have.pt, want.pt+";"):
			return withPT(a, have.pt)
		}
	}
	return a
}

// HTTPClient returns a client for web pages that shows a browser's hello and asks nobody for names but Names; in mode
// tor it goes through Tor.
func (s *Set) HTTPClient() *http.Client {
	t := &http.Transport{
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) { return s.dialTo(ctx, addr, "web") },
		DialTLSContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			conn, err := s.dialTo(ctx, addr, "web")
			if err != nil {
				return nil, err
			}
			host, _, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, errors.Join(err, conn.Close())
			}
			ctx, cancel := context.WithTimeout(ctx, webTimeout) // net/http has taken away the request's
			defer cancel()
			return browserHello(ctx, conn, place{host: host})
		},
		DisableCompression: true,
		MaxIdleConns:       8,
		IdleConnTimeout:    30 * time.Second,
	}
	return &http.Client{Transport: t, CheckRedirect: func(r *http.Request, before []*http.Request) error {
		if r.URL.Scheme != "https" || len(before) > 5 {
			return errors.New("a site leads elsewhere")
		}
		return nil
	}}
}

// listening notes a place at which a rung can be reached.
func (s *Set) listening(places ...ma.Multiaddr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.places = append(s.places, places...)
}

func (s *Set) onClose(f func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closers = append(s.closers, f)
}

// Close ends the programs and services that rungs have started. The host is to be closed before.
func (s *Set) Close() error {
	s.mu.Lock()
	closers := s.closers
	s.closers = nil
	s.mu.Unlock()
	var errs []error
	for _, f := range closers {
		errs = append(errs, f())
	}
	if err := s.ladder.save(); err != nil {
		s.log.Warn("what carrier works here cannot be written down", "error", err) // the disk may be locked
	}
	s.pts.close()
	return errors.Join(errs...)
}
