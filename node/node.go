// Package node joins the parts: it opens, runs and stops the store, the mesh and the local door, and it holds the one
// door through which every event comes in (door.go) and the one way out (outbox.go).
//
// What it refuses and what it shows to a censor is what its parts refuse and show.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"openline/bootstrap"
	"openline/node/api"
	"openline/node/carrier"
	"openline/node/history"
	"openline/node/mesh"
	"openline/node/store"
)

// Node is one participant. Open it, Run it, Close it.
type Node struct {
	cfg      Config
	log      *slog.Logger
	now      func() time.Time
	started  time.Time
	store    *store.Store
	host     host.Host
	mesh     *mesh.Mesh
	history  *history.History
	receipts *receipts
	contact  *contact
	finder   *bootstrap.Finder
	carriers *carrier.Set
	names    *bootstrap.Resolver
	web      *http.Client // by the carriers
	book     *bootstrap.Book
	ledger   *bootstrap.Ledger
	owner    *owner // nil on a relay
	server   *api.Server
	listener net.Listener // nil without an API
	budget   *budget
	doctor   sync.Mutex    // held while it works
	kick     chan struct{} // wakes the outbox; one waiting wake-up stands for any number
	closers  []func() error
}

// Open makes everything ready: directory, store, sockets. Nothing goes out before Run. An error that a user can mend
// is an *api.Hint that says how.
func Open(cfg Config) (*Node, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.settle()
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	n := &Node{cfg: cfg, log: cfg.Log, now: cfg.Now, kick: make(chan struct{}, 1), receipts: newReceipts()}
	n.started = n.now()
	n.budget = newBudget(n.now)
	for _, open := range []func() error{n.openStore, n.openHost, n.openHistory, n.openMesh, n.openDoor, n.trackStored} {
		if err := open(); err != nil {
			return nil, errors.Join(err, n.Close())
		}
	}
	return n, nil
}

func (n *Node) openStore() error {
	if err := os.MkdirAll(n.cfg.Dir, 0o700); err != nil {
		return &api.Hint{Err: fmt.Errorf("make the data directory: %w", err), Hint: "name another one with --data"}
	}
	cfg := store.DefaultConfig()
	cfg.Dir, cfg.Now, cfg.Log, cfg.InMemory = filepath.Join(n.cfg.Dir, "events"), n.now, n.log, n.cfg.inMemory
	cfg.Retention = store.Retention{Age: n.cfg.KeepFor, Bytes: n.cfg.MaxBytes, Keep: n.wants, KeepOwn: !n.cfg.Relay}
	s, err := store.Open(cfg)
	switch {
	case errors.Is(err, store.ErrLocked):
		return &api.Hint{Err: err, Hint: "another openline runs with this directory: use that one, stop it, or name another with --data"}
	case errors.Is(err, store.ErrDamaged):
		return &api.Hint{Err: err, Hint: fmt.Sprintf("nothing was changed; move %s aside and start again: "+
			"what peers still have comes back, and the moved files may be repaired", cfg.Dir)}
	case err != nil:
		return err
	}
	n.store = s
	n.closers = append(n.closers, s.Close)
	return nil
}

func (n *Node) openHost() error {
	if n.cfg.host != nil {
		n.host = n.cfg.host
		return nil
	}
	if err := n.openCarriers(); err != nil {
		return err
	}
	key, err := peerKey(n.cfg, n.cfg.Relay || n.ledger.Pending())
	if err != nil {
		return err
	}
	h, err := newHost(n.cfg, n.carriers, key, func() []peer.AddrInfo { return circuits(n.host) })
	if err != nil {
		return err
	}
	n.host = h
	n.closers = append(n.closers, h.Close)
	return nil
}

// openCarriers opens what invites and carriers keep in files.
func (n *Node) openCarriers() error {
	var err error
	if n.ledger, err = bootstrap.OpenLedger(filepath.Join(n.cfg.Dir, "invites.json"), n.now, func() { n.carriers.Cut() }); err != nil {
		return err
	}
	if n.book, err = openBook(n.cfg.Dir, n.now); err != nil {
		return err
	}
	c := n.cfg.Carriers
	c.Dir, c.Log = n.cfg.Dir, n.log
	c.Admit, c.Tokens = n.ledger.Admit, n.ledger.Tokens
	n.openNames()
	c.Names = n.names
	if n.carriers, err = carrier.New(c); err != nil {
		return err
	}
	n.web = n.carriers.HTTPClient()
	n.closers = append(n.closers, n.carriers.Close)
	return nil
}

func (n *Node) openMesh() error {
	cfg := mesh.DefaultConfig()
	cfg.Network, cfg.Relay, cfg.Grafted, cfg.Holds = n.cfg.Network, n.cfg.Relay, n.wake, n.receipts.holds
	m, err := mesh.New(n.host, cfg, n.fromMesh)
	if err != nil {
		return err
	}
	n.mesh = m
	n.closers = append(n.closers, func() error { m.Close(); return nil })
	sources, err := n.sources()
	if err != nil {
		return err
	}
	find := bootstrap.FinderConfig{Host: n.host, Log: n.log, Book: n.book, Carrier: carrier.Name, Secret: carrier.Secret,
		DialTimeout: dialTimeout(n.cfg) + 10*time.Second}
	if n.carriers != nil {
		find.Worked, find.Failed = n.carriers.Ladder().Worked, n.carriers.Ladder().Failed
	}
	if !n.cfg.Relay {
		find.Want = wantedConns
	}
	n.finder = bootstrap.NewFinder(find, sources...)
	n.serveInvites()
	return nil
}

func (n *Node) openHistory() error {
	c, err := openContact(filepath.Join(n.cfg.Dir, "contact.json"), time.Now())
	if err != nil {
		return err
	}
	n.contact = c
	n.history = history.New(n.host, source{n.store, n}, history.Config{Network: n.cfg.Network, Now: n.now, Log: n.log,
		Budget: n.cfg.Budget, Follows: n.groups, Compared: n.compared,
		Stitch: func(p peer.ID, d time.Duration) bool { return n.mesh.Bind(p, d) }}) // the mesh, which needs history, is not there yet
	if at := c.read().Outside; !at.IsZero() {
		n.history.HeardOutside(at) // neighbours may ask
	}
	return nil
}

// compared takes history's word about what a peer holds.
func (n *Node) compared(c history.Comparison) {
	n.receipts.compared(c)
	n.contact.compare(c, n.history.Outside())
}

// openDoor opens the local door: its socket, its token, and the file that tells the CLI where it is.
func (n *Node) openDoor() error {
	if !n.cfg.Relay {
		o, err := openOwner(n.cfg.Dir, n.profileName)
		if err != nil {
			return err
		}
		n.owner = o
	}
	if n.cfg.API == "" {
		return nil
	}
	l, err := net.Listen("tcp", n.cfg.API)
	if err != nil {
		return &api.Hint{Err: fmt.Errorf("open the local door: %w", err),
			Hint: "another program, perhaps another openline, has this port: name a free one with --api 127.0.0.1:0"}
	}
	n.listener = l
	n.closers = append(n.closers, func() error { l.Close(); return nil }) // closed a second time after Run
	token, err := loadToken(n.cfg.Dir)
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	n.registerMetrics(registry)
	cfg := api.Config{Backend: n, Archive: n, Inviter: n, Doctor: n, Network: n.cfg.Network, Token: token, AllowOrigins: n.cfg.AllowOrigins, AllowHosts: n.cfg.AllowHosts,
		Public: n.cfg.Relay, Limits: api.DefaultLimits(), Registry: registry, Log: n.log, Now: n.now, Version: n.cfg.Version}
	if n.owner != nil {
		cfg.Owner = n.owner
	}
	if n.cfg.Relay {
		cfg.Limits = api.RelayLimits()
	}
	if n.server, err = api.NewServer(cfg); err != nil {
		return err
	}
	return n.announceDoor(n.APIAddress())
}

// announceDoor writes the file from which the CLI learns the daemon's port.
func (n *Node) announceDoor(addr string) error {
	path := filepath.Join(n.cfg.Dir, "api")
	err := bootstrap.WriteFile(path, []byte(addr+"\n"))
	if err != nil && n.store.Stats().ReadOnly {
		n.log.Warn("verbs find this daemon only with --api "+addr, "error", err)
		return nil
	}
	if err != nil {
		return err
	}
	n.closers = append(n.closers, func() error { return os.Remove(path) })
	return nil
}

// Run works until ctx ends and returns nil then, or an error when a part cannot go on. All its goroutines have ended
// when it returns.
func (n *Node) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	if n.server != nil {
		g.Go(func() error { return n.server.Serve(ctx, n.listener) })
	}
	g.Go(func() error { return n.finder.Run(ctx) })
	g.Go(func() error { return n.runInvited(ctx) })
	g.Go(func() error { return n.runOutbox(ctx) })
	g.Go(func() error { return n.history.Run(ctx) })
	g.Go(func() error { return n.runTrim(ctx) })
	g.Go(func() error { return n.runContact(ctx) })
	return g.Wait()
}

// Close closes the parts in the opposite order. Call it once, after Run has returned.
func (n *Node) Close() error {
	var errs []error
	for i := len(n.closers) - 1; i >= 0; i-- {
		errs = append(errs, n.closers[i]())
	}
	n.closers = nil
	return errors.Join(errs...)
}
