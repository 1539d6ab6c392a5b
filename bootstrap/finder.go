package bootstrap

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"golang.org/x/sync/errgroup"
)

const (
	dials       = 8           // at once
	firstWait   = time.Second // after the first failure; doubled with each
	longestWait = time.Minute
	sourceWait  = 2 * time.Second  // between the starts of two sources
	maxFailures = 10               // after which a found peer is forgotten; a kept one never is
	maxFound    = 1024             // peers remembered; more are taken up in the place of those that failed
	maxAddrs    = 24               // of a peer; those found first stay
	housekeep   = time.Minute      // between two writings of the book
	keptWait    = 10 * time.Second // at most, for peers that are never given up
)

// FinderConfig is what a Finder works with. Funcs may be nil.
type FinderConfig struct {
	Host        host.Host
	Log         *slog.Logger
	Book        *Book         // nil: nothing is remembered
	Want        int           // connections of our making beyond which only kept peers are dialled; 0: any number
	DialTimeout time.Duration // of one attempt with all addresses of a peer; 0: 30 s

	Carrier func(ma.Multiaddr) string // names what carries a connection
	Secret  func(ma.Multiaddr) bool   // says that an address needs a token, which the book has of invites alone
	Worked  func(ma.Multiaddr)        // told where a connection came about
	Failed  func(error)               // told how an attempt failed
}

// Finder dials whomever its sources find and dials again when a connection is lost. It spreads its connections over
// networks and carriers, so that nobody who owns one network surrounds it.
type Finder struct {
	cfg     FinderConfig
	host    host.Host
	sources []Source
	log     *slog.Logger
	found   chan candidate
	done    chan outcome

	mu    sync.Mutex // guards names
	names map[peer.ID]string
}

type candidate struct {
	peer.AddrInfo
	source   string
	keep     bool // for ever, and beyond Want
	order    int  // of finding
	failures int
	next     time.Time // no attempt before
	dialing  bool
}

type outcome struct {
	id  peer.ID
	err error
}

// NewFinder returns a Finder that works while Run does.
func NewFinder(cfg FinderConfig, sources ...Source) *Finder {
	if cfg.DialTimeout == 0 {
		cfg.DialTimeout = 30 * time.Second
	}
	if cfg.Carrier == nil {
		cfg.Carrier = func(ma.Multiaddr) string { return "" }
	}
	if cfg.Secret == nil {
		cfg.Secret = func(ma.Multiaddr) bool { return false }
	}
	if cfg.Worked == nil {
		cfg.Worked = func(ma.Multiaddr) {}
	}
	if cfg.Failed == nil {
		cfg.Failed = func(error) {}
	}
	if cfg.Book != nil {
		sources = append([]Source{cfg.Book}, sources...)
	}
	return &Finder{cfg: cfg, host: cfg.Host, sources: sources, log: cfg.Log,
		// When found is full the source waits; done has room for every attempt under way.
		found: make(chan candidate, 16), done: make(chan outcome, dials), names: map[peer.ID]string{}}
}

// Source returns the name of the source that found p, "" when p came by itself.
func (f *Finder) Source(p peer.ID) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.names[p]
}

// Run finds and dials until ctx ends. Sources start one after the other, the nearest first, and go on side by side; one
// that fails is started again after a while.
func (f *Finder) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for i, s := range f.sources {
		g.Go(func() error {
			f.awaitTurn(ctx, i)
			return f.search(ctx, s)
		})
	}
	g.Go(func() error { return f.keepConnected(ctx, g) })
	return g.Wait()
}

// awaitTurn waits for the i-th source's turn. The first three are on this machine or on its own network.
func (f *Finder) awaitTurn(ctx context.Context, i int) {
	select {
	case <-ctx.Done():
	case <-time.After(time.Duration(max(0, i-2)) * sourceWait):
	}
}

func (f *Finder) search(ctx context.Context, s Source) error {
	_, keep := s.(Configured)
	level := slog.LevelWarn // the first time
	for {
		err := s.Find(ctx, func(p peer.AddrInfo) {
			select {
			case f.found <- candidate{AddrInfo: p, source: s.Name(), keep: keep}:
			case <-ctx.Done():
			}
		})
		if ctx.Err() != nil || err == nil {
			return nil
		}
		f.log.Log(ctx, level, "a source of peers does not work; it is tried again every minute", "source", s.Name(), "error", err)
		level = slog.LevelDebug
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Minute):
		}
	}
}

// keepConnected owns the candidates: it takes up what is found and starts attempts that are due.
func (f *Finder) keepConnected(ctx context.Context, g *errgroup.Group) error {
	known := map[peer.ID]*candidate{}
	tick, keep := time.NewTicker(firstWait), time.NewTicker(housekeep)
	defer tick.Stop()
	defer keep.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case c := <-f.found:
			f.take(known, c)
		case o := <-f.done:
			f.settle(ctx, known, o)
		case <-tick.C:
		case <-keep.C:
			f.remember()
		}
		for _, c := range f.next(known) {
			c.dialing = true
			info := c.AddrInfo
			g.Go(func() error { f.dial(ctx, info); return nil })
		}
	}
}

func (f *Finder) due(c *candidate) bool {
	return !c.dialing && !time.Now().Before(c.next) && f.host.Network().Connectedness(c.ID) != network.Connected
}

func (f *Finder) take(known map[peer.ID]*candidate, c candidate) {
	if c.ID == f.host.ID() || len(c.Addrs) == 0 {
		return
	}
	c.keep = c.keep || f.cfg.Book != nil && f.cfg.Book.Invited(c.ID)
	c.order = len(known)
	old := known[c.ID]
	if old == nil {
		if len(known) >= maxFound && !c.keep && !f.spare(known) {
			return
		}
		known[c.ID] = &c
		f.mu.Lock()
		f.names[c.ID] = c.source
		f.mu.Unlock()
		return
	}
	old.keep = old.keep || c.keep
	if slices.ContainsFunc(c.Addrs, func(a ma.Multiaddr) bool { return !ma.Contains(old.Addrs, a) }) {
		old.failures, old.next = 0, time.Time{} // what failed were others
	}
	if c.source == old.source {
		old.Addrs = c.Addrs // the newest word of the same source
	} else {
		old.Addrs = Unique(append(old.Addrs, c.Addrs...))
	}
	old.Addrs = old.Addrs[:min(len(old.Addrs), maxAddrs)]
}

// spare forgets the peer that has failed most, so that nobody fills the memory with whom nobody reaches.
func (f *Finder) spare(known map[peer.ID]*candidate) bool {
	var worst *candidate
	for _, c := range known {
		if !c.keep && !c.dialing && c.failures > 0 && (worst == nil || c.failures > worst.failures) {
			worst = c
		}
	}
	if worst != nil {
		f.forget(known, worst.ID)
	}
	return worst != nil
}

func (f *Finder) forget(known map[peer.ID]*candidate, p peer.ID) {
	delete(known, p)
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.names, p)
}

func (f *Finder) dial(ctx context.Context, p peer.AddrInfo) {
	dctx, cancel := context.WithTimeout(ctx, f.cfg.DialTimeout)
	defer cancel()
	// What is in the peer store from an earlier attempt may be out of date, a used up token above all.
	f.host.Peerstore().ClearAddrs(p.ID)
	f.done <- outcome{p.ID, f.host.Connect(dctx, p)}
}

// settle notes how an attempt ended. A cancelled attempt is not a failed one.
func (f *Finder) settle(ctx context.Context, known map[peer.ID]*candidate, o outcome) {
	c := known[o.id]
	if c == nil || ctx.Err() != nil {
		return
	}
	c.dialing = false
	if o.err == nil {
		c.failures, c.next = 0, time.Now().Add(firstWait)
		f.succeeded(c)
		return
	}
	c.failures++
	f.cfg.Failed(o.err)
	online := f.online()
	if f.cfg.Book != nil && online {
		f.cfg.Book.Failed(o.id)
	}
	f.log.Debug("peer unreachable", "source", c.source, "failures", c.failures)
	if c.failures >= maxFailures && !c.keep && online {
		f.forget(known, o.id)
		return
	}
	wait := min(firstWait<<min(c.failures-1, 10), longestWait)
	if c.keep {
		wait = min(wait, keptWait)
	}
	c.next = time.Now().Add(wait/2 + rand.N(wait))
}

// online reports whether anybody beyond the local network is connected. While nobody is, that a peer does not answer says
// nothing about the peer.
func (f *Finder) online() bool {
	return slices.ContainsFunc(f.host.Network().Peers(), func(p peer.ID) bool { return f.Source(p) != "lan" })
}

func (f *Finder) succeeded(c *candidate) {
	for _, conn := range f.host.Network().ConnsToPeer(c.ID) {
		if conn.Stat().Direction != network.DirOutbound {
			continue
		}
		at := conn.RemoteMultiaddr()
		f.cfg.Worked(at)
		if f.cfg.Book != nil && c.source != "lan" && (!f.cfg.Secret(at) || f.cfg.Book.Invited(c.ID)) {
			f.cfg.Book.Worked(c.ID, c.source, at)
		}
		return
	}
}
