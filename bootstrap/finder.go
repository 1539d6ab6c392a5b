package bootstrap

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"golang.org/x/sync/errgroup"
)

const (
	dials       = 8                // at once
	dialTimeout = 15 * time.Second // of one attempt with all addresses of a peer
	firstWait   = time.Second      // after the first failure; doubled with each
	longestWait = time.Minute
	maxFailures = 10   // after which a found peer is forgotten; a configured one never is
	maxFound    = 1024 // peers remembered; more are not taken up until some are forgotten
)

// Finder dials whomever its sources find and dials again when a connection is lost.
type Finder struct {
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
	keep     bool // for ever
	failures int
	next     time.Time // no attempt before
	dialing  bool
}

type outcome struct {
	id  peer.ID
	err error
}

// NewFinder returns a Finder that works while Run does.
func NewFinder(h host.Host, log *slog.Logger, sources ...Source) *Finder {
	return &Finder{host: h, sources: sources, log: log,
		// When found is full the source waits; done has room for every attempt under way.
		found: make(chan candidate, 16), done: make(chan outcome, dials), names: map[peer.ID]string{}}
}

// Source returns the name of the source that found p, "" when p came by itself.
func (f *Finder) Source(p peer.ID) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.names[p]
}

// Run finds and dials until ctx ends. A source that fails is started again after a while.
func (f *Finder) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, s := range f.sources {
		g.Go(func() error { return f.search(ctx, s) })
	}
	g.Go(func() error { return f.keepConnected(ctx, g) })
	return g.Wait()
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
	tick := time.NewTicker(firstWait)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case c := <-f.found:
			f.take(known, c)
		case o := <-f.done:
			f.settle(ctx, known, o)
		case <-tick.C:
		}
		under := 0
		for _, c := range known {
			if c.dialing {
				under++
			}
		}
		for _, c := range known {
			if under < dials && f.due(c) {
				c.dialing = true
				under++
				info := c.AddrInfo
				g.Go(func() error { f.dial(ctx, info); return nil })
			}
		}
	}
}

func (f *Finder) due(c *candidate) bool {
	return !c.dialing && !time.Now().Before(c.next) && f.host.Network().Connectedness(c.ID) != network.Connected
}

func (f *Finder) take(known map[peer.ID]*candidate, c candidate) {
	if c.ID == f.host.ID() {
		return
	}
	old := known[c.ID]
	if old == nil {
		if len(known) >= maxFound && !c.keep {
			return
		}
		known[c.ID] = &c
		f.mu.Lock()
		f.names[c.ID] = c.source
		f.mu.Unlock()
		return
	}
	old.keep = old.keep || c.keep
	if c.source == old.source && !c.keep {
		old.Addrs = c.Addrs // the newest word of the same source
	} else {
		old.Addrs = ma.Unique(append(old.Addrs, c.Addrs...))
	}
}

func (f *Finder) dial(ctx context.Context, p peer.AddrInfo) {
	dctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
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
		return
	}
	c.failures++
	f.log.Debug("peer unreachable", "source", c.source, "failures", c.failures)
	if c.failures >= maxFailures && !c.keep {
		delete(known, o.id)
		f.mu.Lock()
		delete(f.names, o.id)
		f.mu.Unlock()
		return
	}
	wait := min(firstWait<<min(c.failures-1, 10), longestWait)
	c.next = time.Now().Add(wait/2 + rand.N(wait))
}
