// Package api is the local door: a Nostr relay on a websocket, an HTTP API for the CLI and scripts, and metrics, all on
// one port; and the client of the HTTP API.
//
// It refuses every web page that was not allowed to use it, without a byte by which the page could learn that it runs,
// and every HTTP call without the token that only the owner can read. It shows a censor nothing: it is meant for this
// machine, and a relay's websocket for strangers is plain until something in front of it encrypts.
package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Config says whom the door serves and how much of it.
type Config struct {
	Backend Backend
	Archive Archive
	Inviter Inviter
	Doctor  Doctor
	Owner   Owner  // nil on a relay
	Network string // bundles of others are refused
	Token   string // what callers of /api/v1 must show

	AllowOrigins []string // web pages that may use the door, "*" for all
	AllowHosts   []string // names beside localhost under which it may be addressed

	// Public is for relays: any Host, any page, on the websocket and in NIP-11; /api/v1 and /metrics from loopback only.
	Public bool

	Limits   Limits
	Registry *prometheus.Registry // where the metrics go and what /metrics shows
	Log      *slog.Logger
	Now      func() time.Time
	Version  string
}

// Limits bound what clients may ask for. What is above is refused with a reason.
type Limits struct {
	Connections           int // websockets
	ConnectionsPerAddress int
	Subscriptions         int     // of a connection
	Filters               int     // of a REQ
	MessageBytes          int64   // of a websocket message or an HTTP body
	MessagesPerSecond     float64 // of EVENT and REQ on one connection
	MessagesBurst         int
	InFlight              int           // events of one connection that wait for their OK; when full, reading pauses
	StoredPerFilter       int           // events before EOSE
	Reconciled            int           // events of one NIP-77 reconciliation, 42 bytes of memory each
	BundleBytes           int64         // of a bundle that is imported in one call
	ReadTimeout           time.Duration // for the rest of a request; feeds and websockets last longer
	WriteTimeout          time.Duration // after which a client that does not read is cut off
}

// DefaultLimits are for a daemon, whose clients are its owner's.
func DefaultLimits() Limits {
	return Limits{Connections: 128, ConnectionsPerAddress: 128, Subscriptions: 64, Filters: 16, MessageBytes: 128 << 10,
		MessagesPerSecond: 20_000, MessagesBurst: 40_000, InFlight: 64, StoredPerFilter: 5000,
		Reconciled: 1_000_000, BundleBytes: 4 << 30, ReadTimeout: time.Minute, WriteTimeout: 10 * time.Second}
}

// RelayLimits are for strangers.
func RelayLimits() Limits {
	l := DefaultLimits()
	l.Connections, l.ConnectionsPerAddress, l.Subscriptions, l.Filters = 1000, 16, 32, 10
	l.MessagesPerSecond, l.MessagesBurst, l.InFlight, l.StoredPerFilter, l.Reconciled = 10, 100, 16, 1000, 100_000
	return l
}

func (l Limits) validate() error {
	for _, n := range []int{l.Connections, l.ConnectionsPerAddress, l.Subscriptions, l.Filters, int(l.MessageBytes),
		int(l.MessagesPerSecond), l.MessagesBurst, l.InFlight, l.StoredPerFilter, l.Reconciled, int(l.BundleBytes), int(l.ReadTimeout), int(l.WriteTimeout)} {
		if n <= 0 {
			return errors.New("api: every limit must be positive")
		}
	}
	return nil
}

// Server answers on one port.
type Server struct {
	cfg      Config
	guard    guard
	metrics  metrics
	mux      *http.ServeMux
	upgrader websocket.Upgrader

	conns sync.WaitGroup // hijacked ones, which http.Server does not wait for
	mu    sync.Mutex     // guards the fields below
	open  int
	from  map[string]int // connections of each address
}

// NewServer checks cfg and registers the metrics.
func NewServer(cfg Config) (*Server, error) {
	switch {
	case cfg.Backend == nil || cfg.Archive == nil || cfg.Inviter == nil || cfg.Doctor == nil || cfg.Registry == nil || cfg.Log == nil || cfg.Now == nil:
		return nil, errors.New("api: Backend, Archive, Inviter, Doctor, Registry, Log and Now are needed")
	case cfg.Token == "":
		return nil, errors.New("api: without a token anybody could use the HTTP API")
	}
	if err := cfg.Limits.validate(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, metrics: newMetrics(cfg.Registry), mux: http.NewServeMux(), from: map[string]int{}}
	s.guard = guard{cfg: cfg, refused: s.metrics.refused}
	s.upgrader = websocket.Upgrader{ReadBufferSize: 4096, WriteBufferSize: 4096, WriteBufferPool: &sync.Pool{},
		CheckOrigin: func(*http.Request) bool { return true }} // guard has looked
	s.mux.HandleFunc("GET /{$}", s.root)
	s.mux.HandleFunc("GET /healthz", s.health)
	s.mux.Handle("GET /metrics", s.guard.local(promhttp.HandlerFor(cfg.Registry, promhttp.HandlerOpts{})))
	api := http.NewServeMux()
	for _, r := range s.routes() {
		api.HandleFunc(r.method+" "+prefix+r.path, s.answer(r.handle, cmp.Or(r.body, cfg.Limits.MessageBytes)))
	}
	api.HandleFunc("/", s.answer(func(http.ResponseWriter, *http.Request) error {
		return &failure{http.StatusNotFound, errors.New("there is no such call"), "GET " + prefix + "/openapi.json lists them"}
	}, cfg.Limits.MessageBytes))
	s.mux.Handle(prefix+"/", s.guard.local(s.guard.token(api)))
	return s, nil
}

// Serve answers on l until ctx ends; it closes l. When it returns, every connection and goroutine has ended.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	h := &http.Server{
		Handler:           s.guard.page(s.mux),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       s.cfg.Limits.ReadTimeout, // else a stranger holds a connection with the rest of a body
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
	}
	done := make(chan error, 1)
	go func() { done <- h.Serve(listener{l, s.guard.user}) }()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		err = s.shutdown(h)
		<-done
	}
	s.conns.Wait()
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("the local door: %w", err)
	}
	return nil
}

// shutdown lets calls under way finish for a moment; those that follow end with ctx anyway.
func (s *Server) shutdown(h *http.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	if err := h.Shutdown(ctx); err != nil {
		return h.Close()
	}
	return nil
}

// admit counts a new websocket; release must follow. The error says which limit is reached.
func (s *Server) admit(address string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.open >= s.cfg.Limits.Connections:
		return errors.New("this node has as many connections as it takes")
	case s.from[address] >= s.cfg.Limits.ConnectionsPerAddress:
		return errors.New("this node has as many connections from your address as it takes")
	}
	s.open++
	s.from[address]++
	s.metrics.connections.Inc()
	return nil
}

func (s *Server) release(address string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open--
	if s.from[address]--; s.from[address] == 0 {
		delete(s.from, address)
	}
	s.metrics.connections.Dec()
}

func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	if _, err := s.cfg.Backend.Status(r.Context()); err != nil {
		http.Error(w, "not well", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}
