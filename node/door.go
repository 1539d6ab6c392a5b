package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"openline/node/api"
	"openline/node/store"
	"openline/protocol"
)

// door is where bytes come in and which rules hold there.
type door struct {
	decode func([]byte, protocol.Check) (protocol.Event, error)
	scope  protocol.Scope
	origin store.Origin
	shard  int // of the topic, scope Live only

	patient bool // it has waited for its turn: the budget does not refuse it
}

// accept is the one door: every event, whoever brings it, is parsed, verified and stored here and nowhere else.
// A *protocol.Rejection says why not; store.Stored is the verdict of the writer.
func (n *Node) accept(ctx context.Context, raw []byte, d door) (protocol.Event, store.Stored, error) {
	before := n.store.Known
	if d.origin == store.Remote && !d.patient {
		before = n.admit
	}
	e, err := d.decode(raw, protocol.Check{Scope: d.scope, Now: n.now(), Shard: d.shard, Before: before})
	if err != nil {
		return protocol.Event{}, store.Stored{}, err
	}
	if protocol.Ephemeral(e.Kind()) {
		return e, store.Stored{}, n.store.Pass(ctx, e)
	}
	stored, err := n.store.Put(ctx, e, d.origin)
	return e, stored, diskHint(err)
}

// diskHint says how to go on when the store takes nothing.
func diskHint(err error) error {
	switch {
	case errors.Is(err, store.ErrFull):
		return &api.Hint{Err: err, Hint: "free some space: notes are taken again by themselves then; what is here can be read meanwhile"}
	case errors.Is(err, store.ErrReadOnly):
		return &api.Hint{Err: err, Hint: "what is here can be read; to post, make the directory writable or start with another --data, and start the daemon again"}
	}
	return err
}

// admit refuses what is known and, when strangers send more than this node can verify, what has the least work.
func (n *Node) admit(c protocol.Claim) error {
	if err := n.store.Known(c); err != nil {
		return err
	}
	if !n.budget.take(c.Work) {
		return protocol.Reject(protocol.Busy, "this node is asked to verify more than it can")
	}
	return nil
}

// fromMesh is the door of the mesh. nil: fresh, pass it on.
func (n *Node) fromMesh(ctx context.Context, envelope []byte, shard int) error {
	e, stored, err := n.accept(ctx, envelope, door{decode: protocol.ParseEnvelope, scope: protocol.Live, origin: store.Remote, shard: shard})
	if err != nil {
		return err
	}
	n.history.Flooded(e)
	if n.tooSoon(stored) {
		return protocol.Reject(protocol.Busy, "a version of this event was passed on less than %v ago", protocol.ReplaceInterval)
	}
	return nil
}

// tooSoon reports whether an event replaces a version that is too young for both to be flooded.
func (n *Node) tooSoon(s store.Stored) bool {
	return !s.Replaced.IsZero() && n.now().Sub(s.Replaced) < protocol.ReplaceInterval
}

// Publish is the door of local clients. When it returns nil the event is durable here; the flood follows by itself.
func (n *Node) Publish(ctx context.Context, raw []byte) (api.Receipt, error) {
	e, stored, err := n.accept(ctx, raw, door{decode: protocol.ParseJSON, scope: protocol.Client, origin: store.Own})
	if err != nil {
		return api.Receipt{}, err
	}
	r := api.Receipt{ID: e.ID().String()}
	if protocol.Travels(e.Kind()) {
		n.receipts.track(e, time.Now())
	}
	switch {
	case protocol.Ephemeral(e.Kind()):
		r.Message = fmt.Sprintf("passed on here: kind %d does not travel", e.Kind())
	case !protocol.Travels(e.Kind()):
		r.Message = fmt.Sprintf("kept here: kind %d does not travel", e.Kind())
	case !e.Live(n.now()):
		r.Message = fmt.Sprintf("kept here: it is older than %v and is not flooded; peers get it with history", protocol.LivePast)
	case n.tooSoon(stored):
		r.Message = fmt.Sprintf("kept here: it changed less than %v ago; it travels when that time is over", protocol.ReplaceInterval)
	default:
		r.Peers, r.Message = n.outlook(e.Shard())
		n.wake()
	}
	return r, nil
}

// outlook says in words what happens next to an event of the user.
func (n *Node) outlook(shard int) (peers int, message string) {
	if peers = n.mesh.Links(shard); peers == 0 {
		peers = min(1, n.mesh.Listeners(shard)) // a link is about to come, or it is fetched: see outbox.ready
	}
	switch peers {
	case 0:
		return 0, "kept here: no peers yet; it will travel as soon as there is one"
	case 1:
		return 1, "posted, on its way to 1 peer"
	default:
		return peers, fmt.Sprintf("posted, on its way to %d peers", peers)
	}
}

// budget is how many signatures of strangers this node verifies. The emptier it is, the more work an event must show
// to be taken at once; while it is over half full nobody is asked for any.
type budget struct {
	mu     sync.Mutex // guards the fields below
	now    func() time.Time
	tokens float64
	last   time.Time
}

// A signature costs 130-190 µs of one core: the rate is about a third of two cores, the burst a few seconds of it.
const (
	budgetRate  = 4000 // a second
	budgetBurst = 16000
)

func newBudget(now func() time.Time) *budget {
	return &budget{now: now, tokens: budgetBurst, last: now()}
}

// take admits an event with so many bits of work, or refuses it.
func (b *budget) take(work int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fill()
	missing := 1 - float64(min(work, protocol.StampBits))/protocol.StampBits
	if b.tokens < 1+missing*budgetBurst/2 {
		return false
	}
	b.tokens--
	return true
}

// fill adds what has grown since the last time. mu is held.
func (b *budget) fill() {
	now := b.now()
	b.tokens = min(budgetBurst, b.tokens+budgetRate*max(0, now.Sub(b.last).Seconds()))
	b.last = now
}
