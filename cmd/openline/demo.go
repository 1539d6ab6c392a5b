package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"openline/node"
	"openline/node/api"
	"openline/protocol"
)

const (
	demoNodes = 6                // one of them the central service
	demoTime  = 18 * time.Second // the demo gives up after this
)

func (p *program) demoCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "See a small mesh survive the loss of its central service, on this machine alone",
		Long: `Runs six nodes in this process on loopback, in a directory of its own that is removed afterwards. Five of them use one
"central service" and know one neighbour each. A note is posted, the central service is taken away, another note is
posted, and you see who got what. It ends by itself in under 20 seconds and touches nothing of yours.`,
		Example: "  openline demo",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), demoTime)
			defer cancel()
			err := p.demo(ctx)
			if ctx.Err() == context.DeadlineExceeded {
				return fmt.Errorf("the demo did not finish in %v; this machine may be very busy", demoTime)
			}
			return err
		},
	}
}

// demoWorld is the mesh of one demo. Node 0 is the central service.
type demoWorld struct {
	nodes []*node.Node
	stop  []func() error
	start time.Time
}

func (p *program) demo(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "openline-demo-")
	if err != nil {
		return fmt.Errorf("make a directory for the demo: %w", err)
	}
	defer os.RemoveAll(dir)
	w := &demoWorld{start: time.Now()}
	defer func() { err = errors.Join(err, w.close()) }()
	for i := range demoNodes {
		if err := w.add(ctx, filepath.Join(dir, fmt.Sprint(i))); err != nil {
			return err
		}
	}
	p.say(w, "%d nodes are up on loopback; node 0 is the central service that all others use, and each of", demoNodes)
	p.say(w, "the others knows one neighbour besides: 1-2-3-4-5-1")
	if err := w.settled(ctx); err != nil {
		return err
	}
	if err := p.round(ctx, w, 1, "All are connected. #demo"); err != nil {
		return err
	}
	p.say(w, "the central service is taken away")
	if err := w.stop[0](); err != nil {
		return err
	}
	w.nodes[0], w.stop[0] = nil, nil
	if err := p.round(ctx, w, 3, "The central service is gone and this still arrives. #demo"); err != nil {
		return err
	}
	p.say(w, "shown: with the one service gone, every follower still got every note through the mesh")
	return nil
}

func (p *program) say(w *demoWorld, format string, args ...any) {
	fmt.Fprintf(p.out, "%5.1fs  "+format+"\n", append([]any{time.Since(w.start).Seconds()}, args...)...)
}

// add opens and runs one more node, connected to the central service and to the node before it; the last one closes
// the ring.
func (w *demoWorld) add(ctx context.Context, dir string) error {
	i := len(w.nodes)
	cfg := node.DefaultConfig()
	cfg.Dir, cfg.Network, cfg.LAN, cfg.API = dir, "demo", false, ""
	cfg.Listen = []string{"/ip4/127.0.0.1/tcp/0"}
	for _, j := range []int{0, i - 1} {
		if j >= 0 && j < i {
			cfg.Peers = append(cfg.Peers, w.nodes[j].Addresses()[0])
		}
	}
	if i == demoNodes-1 {
		cfg.Peers = append(cfg.Peers, w.nodes[1].Addresses()[0])
	}
	n, err := node.Open(cfg)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	w.nodes = append(w.nodes, n)
	w.stop = append(w.stop, func() error {
		cancel()
		return errors.Join(<-done, n.Close())
	})
	return nil
}

func (w *demoWorld) close() error {
	var errs []error
	for _, stop := range w.stop {
		if stop != nil {
			errs = append(errs, stop())
		}
	}
	return errors.Join(errs...)
}

// settled waits until every node has two links in the mesh.
func (w *demoWorld) settled(ctx context.Context) error {
	for _, n := range w.nodes {
		for n.Linked() < 2 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	return nil
}

// round posts a note at one node and waits until each of the others has it.
func (p *program) round(ctx context.Context, w *demoWorld, from int, text string) error {
	posted := time.Now()
	r, err := w.nodes[from].Post(ctx, api.Draft{Text: text})
	if err != nil {
		return err
	}
	p.say(w, "node %d posts %q: %s", from, text, r.Message)
	id, err := protocol.ParseID(r.ID)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	var mu sync.Mutex // guards p.out
	for i, n := range w.nodes {
		if n == nil || i == from {
			continue
		}
		g.Go(func() error {
			if err := n.Await(ctx, id); err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			p.say(w, "  node %d has it after %d ms", i, time.Since(posted).Milliseconds())
			return nil
		})
	}
	return g.Wait()
}
