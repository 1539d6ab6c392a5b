package node

import (
	"context"
	"time"

	"golang.org/x/time/rate"

	"openline/node/mesh"
	"openline/protocol"
)

const (
	outboxPage  = 1024            // events looked at in one round
	outboxEvery = 5 * time.Second // a round even if nothing happened: what had to wait may go now
	linkTime    = 5 * time.Second // within which a peer that has room makes a link: heartbeats come every second
	stampTime   = time.Second     // the most that a stamp may hold up the flood
	stampQueue  = 8               // with more waiting, events go unstamped: they are an import, not a person

	// Pace of own publications: well under the 1,024 RPCs that pubsub keeps for a peer before it drops.
	floodRate  = 800 // a second
	floodBurst = 128
)

// wake starts a round of the outbox soon. It never blocks.
func (n *Node) wake() {
	select {
	case n.kick <- struct{}{}:
	default: // a round is due already
	}
}

// runOutbox is the one way out: it floods what local clients posted. The waiting events are on disk, so that a post
// made without peers, or just before a crash, travels as soon as there is a peer.
func (n *Node) runOutbox(ctx context.Context) error {
	tick := time.NewTicker(outboxEvery)
	defer tick.Stop()
	o := outbox{pace: rate.NewLimiter(floodRate, floodBurst), slots: map[string]time.Time{}}
	for {
		begun := time.Now()
		left, err := n.flood(ctx, &o)
		if err == nil && left > 0 {
			continue // there may be more
		}
		if err != nil && ctx.Err() == nil {
			n.log.Warn("events wait in the outbox", "error", err)
		}
		rest := min(4*time.Since(begun), time.Second) // a long queue that cannot go must not take a core
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(rest):
		}
		select {
		case <-ctx.Done():
			return nil
		case <-n.kick:
		case <-tick.C:
		}
	}
}

// outbox is what runOutbox remembers between rounds.
type outbox struct {
	pace  *rate.Limiter
	alone [protocol.Shards]time.Time // since when there are peers in a shard but no link to any; zero when it is not so
	slots map[string]time.Time       // when the last new version of a replaceable event left, zero after the first version
}

// ready reports whether what is published in a shard now gets anywhere: over a link, or, when the peers have turned us
// away for a while, by their fetching it.
func (o *outbox) ready(m *mesh.Mesh, shard int, now time.Time) bool {
	since := &o.alone[shard]
	switch {
	case m.Links(shard) > 0:
		*since = time.Time{}
		return true
	case m.Listeners(shard) == 0:
		*since = time.Time{}
		return false
	case since.IsZero():
		*since = now
	}
	return now.Sub(*since) >= linkTime
}

// early reports whether a new version of e left so lately that other nodes would not pass this one on.
func (o *outbox) early(e protocol.Event, now time.Time) bool {
	return now.Sub(o.slots[e.Address()]) < protocol.ReplaceInterval
}

// left notes that e was flooded.
func (o *outbox) left(e protocol.Event, now time.Time) {
	slot := e.Address()
	if slot == "" {
		return
	}
	if _, again := o.slots[slot]; !again {
		now = time.Time{}
	}
	o.slots[slot] = now
}

// flood publishes every waiting event whose shard has peers. What has left the live window leaves the outbox too:
// no node would take it, and history carries it. It returns how many events left.
func (n *Node) flood(ctx context.Context, o *outbox) (left int, err error) {
	if len(n.host.Network().Peers()) == 0 {
		return 0, nil // without looking at the disk for each of a thousand posts
	}
	waiting, err := n.store.Outbox(outboxPage)
	if err != nil {
		return 0, err
	}
	var gone []protocol.ID
	for i, e := range waiting {
		if !e.Live(n.now()) {
			gone = append(gone, e.ID())
			continue
		}
		if !o.ready(n.mesh, e.Shard(), n.now()) || o.early(e, n.now()) {
			continue
		}
		if err := o.pace.Wait(ctx); err != nil {
			break
		}
		if len(waiting)-i <= stampQueue && !n.cfg.unstamped {
			e = n.stamp(ctx, e, stampTime)
		}
		n.receipts.flooded(e.ID(), n.mesh.MessageIDOf(e))
		if err := n.mesh.Publish(ctx, e); err != nil {
			return 0, err
		}
		n.history.Flooded(e)
		o.left(e, n.now())
		gone = append(gone, e.ID())
	}
	if len(gone) == 0 {
		return 0, nil
	}
	return len(gone), n.store.Sent(ctx, gone...)
}

// stamp puts work into an event; without success within that time the event goes as it is.
func (n *Node) stamp(ctx context.Context, e protocol.Event, within time.Duration) protocol.Event {
	if e.Work() >= protocol.StampBits {
		return e
	}
	sctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	nonce, err := protocol.Stamp(sctx, e.ID(), protocol.StampBits)
	if err != nil {
		return e
	}
	if err := n.store.Stamp(ctx, e.ID(), nonce); err != nil && ctx.Err() == nil {
		n.log.Warn("a stamp was not kept", "error", err)
	}
	return e.WithNonce(nonce)
}
