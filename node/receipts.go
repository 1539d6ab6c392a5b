package node

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"openline/node/api"
	"openline/node/history"
	"openline/protocol"
)

// maxTracked is how many own events are watched; of more, the oldest are forgotten.
const maxTracked = 1000

// receipts knows which peers have shown that they hold an own event: they sent it back, offered it, or their history
// was compared with this node's. Nobody is asked about single events: that would name their author.
type receipts struct {
	mu       sync.Mutex // guards the fields below
	posts    map[protocol.ID]*tracked
	order    []protocol.ID // as they came
	messages map[string]protocol.ID
	changed  chan struct{} // closed and made anew when anybody holds more
}

type tracked struct {
	shard   int
	created int64
	since   time.Time // when it was stored here
	holders map[peer.ID]struct{}
}

func newReceipts() *receipts {
	return &receipts{posts: map[protocol.ID]*tracked{}, messages: map[string]protocol.ID{}, changed: make(chan struct{})}
}

// track watches e from now on.
func (r *receipts) track(e protocol.Event, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.posts[e.ID()] != nil {
		return
	}
	r.posts[e.ID()] = &tracked{e.Shard(), e.CreatedAt(), now, map[peer.ID]struct{}{}}
	if r.order = append(r.order, e.ID()); len(r.order) > maxTracked {
		delete(r.posts, r.order[0])
		r.order = r.order[1:]
	}
}

// flooded notes under which name the mesh carries an event.
func (r *receipts) flooded(id protocol.ID, messageID string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.posts[id] == nil {
		return
	}
	r.messages[messageID] = id
	for m, id := range r.messages {
		if r.posts[id] == nil {
			delete(r.messages, m)
		}
	}
}

// holds is the mesh's word that a peer has a message.
func (r *receipts) holds(messageID string, by peer.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if id, ok := r.messages[messageID]; ok {
		r.add(r.posts[id], by)
	}
}

// compared is history's word: all that this node held then, the peer holds but for what it lacks.
func (r *receipts) compared(c history.Comparison) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, t := range r.posts {
		if t.shard == c.Shard && t.created >= c.From && t.created < c.To && t.since.Before(c.At) && !c.Lacks(id, t.created) {
			r.add(t, c.Peer)
		}
	}
}

// add is called with r.mu held; t may be nil.
func (r *receipts) add(t *tracked, by peer.ID) {
	if t == nil {
		return
	}
	if _, known := t.holders[by]; known {
		return
	}
	t.holders[by] = struct{}{}
	close(r.changed)
	r.changed = make(chan struct{})
}

// held returns how many peers hold an event, and what is closed when that may have changed; false: it is not tracked.
func (r *receipts) held(id protocol.ID) (n int, changed <-chan struct{}, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.posts[id]
	if t == nil {
		return 0, r.changed, false
	}
	return len(t.holders), r.changed, true
}

// last returns the ids of the newest tracked events, the newest first.
func (r *receipts) last(n int) []protocol.ID {
	r.mu.Lock()
	defer r.mu.Unlock()
	ids := slices.Clone(r.order[max(0, len(r.order)-n):])
	slices.Reverse(ids)
	return ids
}

// trackStored watches what the user's key signed before this start.
func (n *Node) trackStored() error {
	if n.owner == nil {
		return nil
	}
	k, err := n.owner.Key()
	if err != nil || !k.Exists || k.Hex == "" {
		return err
	}
	author, err := protocol.ParsePubKey(k.Hex)
	if err != nil {
		return err
	}
	var events []protocol.Event
	f := protocol.Filter{Authors: []protocol.PubKey{author}}
	err = n.store.Follow(context.Background(), []protocol.Filter{f}, maxTracked, func(e protocol.Event) bool {
		events = append(events, e)
		return true
	}, func() bool { return false })
	for _, e := range slices.Backward(events) {
		if protocol.Travels(e.Kind()) {
			n.receipts.track(e, time.Now())
		}
	}
	return err
}

// checkEvery is how often peers are compared with while somebody waits for receipts, beginning when the flood of a post
// has had time to arrive.
const (
	firstCheck = 300 * time.Millisecond
	checkEvery = 3 * time.Second
)

// Held returns how many other nodes are known to hold an own event, once they are at least want; when ctx ends before
// that its error comes with the number.
func (n *Node) Held(ctx context.Context, id protocol.ID, want int) (int, error) {
	tick := time.NewTimer(firstCheck)
	defer tick.Stop()
	for {
		k, changed, ok := n.receipts.held(id)
		if !ok {
			return 0, api.ErrUnknown
		}
		if k >= want {
			return k, nil
		}
		select {
		case <-ctx.Done():
			return k, ctx.Err()
		case <-changed:
		case <-tick.C:
			n.history.Check(want)
			tick.Reset(checkEvery)
		}
	}
}
