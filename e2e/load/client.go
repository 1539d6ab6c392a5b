package main

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/sync/errgroup"
)

// publish sends every frame and waits for every OK.
func publish(ctx context.Context, o options, frames [][]byte) error {
	results := make([]result, o.conns)
	g, ctx := errgroup.WithContext(ctx)
	start := time.Now()
	for c := range o.conns {
		lo, hi := c*len(frames)/o.conns, (c+1)*len(frames)/o.conns
		g.Go(func() error { return results[c].publish(ctx, o, frames[lo:hi]) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	took := time.Since(start)
	var times []time.Duration
	refused, reason := 0, ""
	for _, r := range results {
		times = append(times, r.times...)
		if refused += r.refused; r.reason != "" {
			reason = r.reason
		}
	}
	if refused > 0 {
		fmt.Printf("%d events were refused, for example: %s\n", refused, reason)
	}
	if len(times) > 0 {
		summary(fmt.Sprintf("published over %d connections, window %d", o.conns, o.window), len(times), took, times)
	}
	return nil
}

// result is what one connection saw.
type result struct {
	times   []time.Duration // from sending to OK true
	refused int
	reason  string
}

func (r *result) publish(ctx context.Context, o options, frames [][]byte) error {
	conn, stop, err := dial(ctx, o.url)
	if err != nil {
		return err
	}
	defer stop()
	window := make(chan struct{}, o.window)
	var mu sync.Mutex // guards sent
	sent := map[string]time.Time{}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		for _, f := range frames {
			select {
			case window <- struct{}{}:
			case <-ctx.Done():
				return ctx.Err()
			}
			mu.Lock()
			sent[string(f[16:80])] = time.Now() // the id stands at the same place in every frame
			mu.Unlock()
			if err := conn.WriteMessage(websocket.TextMessage, f); err != nil {
				return fmt.Errorf("publish: %w", err)
			}
		}
		return nil
	})
	g.Go(func() error {
		for range frames {
			id, ok, reason, err := readOK(conn)
			if err != nil {
				return err
			}
			mu.Lock()
			at := sent[id]
			mu.Unlock()
			if ok {
				r.times = append(r.times, time.Since(at))
			} else {
				r.refused, r.reason = r.refused+1, reason
			}
			<-window
		}
		return nil
	})
	return g.Wait()
}

// readOK skips to the next OK message.
func readOK(conn *websocket.Conn) (id string, ok bool, reason string, err error) {
	for {
		_, raw, err := conn.ReadMessage()
		if err != nil {
			return "", false, "", fmt.Errorf("wait for OK: %w", err)
		}
		var m []json.RawMessage
		if err := json.Unmarshal(raw, &m); err != nil || len(m) < 3 || string(m[0]) != `"OK"` {
			continue
		}
		if err := json.Unmarshal(m[1], &id); err != nil {
			return "", false, "", fmt.Errorf("OK without an id: %w", err)
		}
		if len(m) > 3 {
			reason = string(m[3])
		}
		return id, string(m[2]) == "true", reason, nil
	}
}

// query asks for the newest notes of the topic again and again on one connection.
func query(ctx context.Context, o options) error {
	conn, stop, err := dial(ctx, o.url)
	if err != nil {
		return err
	}
	defer stop()
	req := fmt.Appendf(nil, `["REQ","q",{"#t":[%q],"limit":%d}]`, o.topic, o.limit)
	var times []time.Duration
	notes, start := 0, time.Now()
	for range o.queries {
		begun := time.Now()
		if err := conn.WriteMessage(websocket.TextMessage, req); err != nil {
			return fmt.Errorf("query: %w", err)
		}
		for done := false; !done; {
			_, raw, err := conn.ReadMessage()
			if err != nil {
				return fmt.Errorf("wait for EOSE: %w", err)
			}
			switch {
			case len(raw) > 7 && string(raw[:7]) == `["EOSE"`:
				done = true
			case len(raw) > 8 && string(raw[:8]) == `["EVENT"`:
				notes++
			}
		}
		times = append(times, time.Since(begun))
		if err := conn.WriteMessage(websocket.TextMessage, []byte(`["CLOSE","q"]`)); err != nil {
			return fmt.Errorf("close a subscription: %w", err)
		}
	}
	summary(fmt.Sprintf("queries for the newest %d of a topic (%d notes each)", o.limit, notes/o.queries), o.queries, time.Since(start), times)
	return nil
}

// dial connects; stop closes the connection, and so does the end of ctx.
func dial(ctx context.Context, url string) (conn *websocket.Conn, stop func(), err error) {
	conn, _, err = websocket.DefaultDialer.DialContext(ctx, url, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("connect to %s: %w", url, err)
	}
	release := context.AfterFunc(ctx, func() { conn.Close() })
	return conn, func() { release(); conn.Close() }, nil
}
