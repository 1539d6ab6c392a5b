// Command load measures a Nostr relay, ours or anybody's, as a client on the same machine sees it.
//
// It signs notes by many authors (25 each, within Openline's quota), publishes them over several connections with a
// window of unanswered events each, waits for every OK, then asks for the newest notes of one topic. It refuses to
// run for ever: counts bound everything. Point it at loopback only: it is a load generator.
//
//	go run ./e2e/load -url ws://127.0.0.1:4869 -events 30000 -conns 16
package main

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"openline/protocol"
)

// options are what the flags say.
type options struct {
	url     string
	events  int
	conns   int
	window  int
	queries int
	limit   int
	topic   string
	timeout time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.url, "url", "ws://127.0.0.1:4869", "the relay")
	flag.IntVar(&o.events, "events", 30000, "notes to publish")
	flag.IntVar(&o.conns, "conns", 4, "connections")
	flag.IntVar(&o.window, "window", 64, "unanswered events on each connection")
	flag.IntVar(&o.queries, "queries", 1000, "queries for the newest notes of the topic, one after the other")
	flag.IntVar(&o.limit, "limit", 100, "notes that a query asks for")
	flag.StringVar(&o.topic, "topic", "load", "the topic")
	flag.DurationVar(&o.timeout, "timeout", 10*time.Minute, "give up after this")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	err := run(ctx, o)
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	if o.events > 0 {
		start := time.Now()
		frames, err := sign(ctx, o)
		if err != nil {
			return err
		}
		fmt.Printf("signed %d notes in %v\n", len(frames), time.Since(start).Round(time.Millisecond))
		if err := publish(ctx, o, frames); err != nil {
			return err
		}
	}
	if o.queries > 0 {
		return query(ctx, o)
	}
	return nil
}

const perAuthor = 25

// sign makes the EVENT frames, on all cores.
func sign(ctx context.Context, o options) ([][]byte, error) {
	frames := make([][]byte, o.events)
	now := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for first := 0; first < o.events; first += perAuthor {
		g.Go(func() error {
			key, err := protocol.NewSecretKey(rand.Reader)
			if err != nil {
				return err
			}
			for i := first; i < min(first+perAuthor, o.events); i++ {
				e, err := key.Sign(protocol.Draft{
					CreatedAt: now.Add(-time.Duration(i%900) * time.Second).Unix(),
					Kind:      protocol.KindNote,
					Tags:      []protocol.Tag{{"t", o.topic}, {"p", key.PubKey().String()}},
					Content:   fmt.Sprintf("note %d of a load test, with as much text as people write when there is much to say", i),
				})
				if err != nil {
					return err
				}
				frames[i] = append(e.AppendJSON([]byte(`["EVENT",`)), ']')
			}
			return ctx.Err()
		})
	}
	return frames, g.Wait()
}

// summary prints a rate and the spread of single times.
func summary(what string, n int, took time.Duration, times []time.Duration) {
	slices.Sort(times)
	at := func(q float64) time.Duration { return times[int(q*float64(len(times)-1))].Round(time.Microsecond) }
	fmt.Printf("%s: %d in %v, %.0f/s, each p50 %v p99 %v max %v\n", what, n, took.Round(time.Millisecond),
		float64(n)/took.Seconds(), at(.5), at(.99), at(1))
}
