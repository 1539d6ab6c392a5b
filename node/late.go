package node

import (
	"context"
	"time"

	"openline/node/history"
	"openline/node/store"
	"openline/protocol"
)

// source is the store as history sees it, with the one door before it.
type source struct {
	*store.Store
	node *Node
}

var _ history.Source = source{}

// Accept is the door of history. It waits for its turn rather than refuse: what comes late has time.
func (s source) Accept(ctx context.Context, envelope []byte) (protocol.Event, error) {
	if err := s.node.budget.wait(ctx); err != nil {
		return protocol.Event{}, err
	}
	e, _, err := s.node.accept(ctx, envelope, door{decode: protocol.ParseEnvelope, scope: protocol.Late, origin: store.Remote, patient: true})
	return e, err
}

// wait takes a token once the budget is more than half full, so that the late leaves room for the live.
func (b *budget) wait(ctx context.Context) error {
	for {
		b.mu.Lock()
		b.fill()
		ok := b.tokens > budgetBurst/2
		if ok {
			b.tokens--
		}
		b.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// wants says of a stranger's event whether the user keeps it for ever: it is by an author or on a topic they follow.
func (n *Node) wants(e protocol.Event) bool {
	return n.owner != nil && n.owner.wants(e)
}

// groups are the user's follows as history may show them on a thin line.
func (n *Node) groups() *history.Follows {
	f := &history.Follows{}
	if n.owner == nil {
		return f
	}
	authors, topics := n.owner.interests()
	for a := range authors {
		f.Authors[history.AuthorGroup(a)] = true
	}
	for t := range topics {
		f.Topics[history.TopicGroup(t)[0]] = true
	}
	return f
}

// runTrim evicts what is too old or too much, and what has expired.
func (n *Node) runTrim(ctx context.Context) error {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		_, err := n.store.Purge(ctx)
		if err == nil {
			_, err = n.store.Trim(ctx)
		}
		if err != nil && ctx.Err() == nil {
			n.log.Warn("old events could not be removed", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
