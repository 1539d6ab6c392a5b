package node

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"openline/node/api"
	"openline/node/store"
	"openline/protocol"
	"openline/protocol/reconcile"
)

var _ api.Archive = (*Node)(nil)

// Items returns what matches f for reconciliation.
func (n *Node) Items(ctx context.Context, f protocol.Filter, most int) (reconcile.Set, error) {
	set, err := n.store.Items(ctx, f, most)
	if errors.Is(err, store.ErrTooMany) {
		return nil, fmt.Errorf("%w: %w", api.ErrTooMany, err)
	}
	return set, err
}

// Import is the door of bundles. When it returns nil the event is durable; if it is still live it is flooded.
func (n *Node) Import(ctx context.Context, envelope []byte) error {
	e, _, err := n.accept(ctx, envelope, door{decode: protocol.ParseEnvelope, scope: protocol.Late, origin: store.Carried, patient: true})
	if err == nil && e.Live(n.now()) {
		n.wake()
	}
	return err
}

// exportHour is the span of one look into the store, in seconds; it bounds the memory that an export takes.
const exportHour = 3600

// Export goes through the hours in which there is anything.
func (n *Node) Export(ctx context.Context, filters []protocol.Filter, emit func(protocol.Event) bool) error {
	hours, err := n.store.Hours()
	if err != nil {
		return err
	}
	for _, start := range hours {
		part := within(filters, start, start+exportHour-1)
		if len(part) == 0 {
			continue
		}
		var events []protocol.Event
		err := n.store.Follow(ctx, part, math.MaxInt32, func(e protocol.Event) bool {
			if protocol.Travels(e.Kind()) {
				events = append(events, e)
			}
			return true
		}, func() bool { return false })
		if err != nil {
			return err
		}
		slices.SortFunc(events, protocol.Event.Compare)
		for _, e := range events {
			if !emit(e) {
				return ctx.Err()
			}
		}
	}
	return nil
}

// within narrows filters to a span, and leaves out those that match nothing in it.
func within(filters []protocol.Filter, from, to int64) []protocol.Filter {
	var list []protocol.Filter
	for _, f := range filters {
		since, until := from, to
		if f.Since != nil {
			since = max(since, *f.Since)
		}
		if f.Until != nil {
			until = min(until, *f.Until)
		}
		if since <= until {
			f.Since, f.Until = &since, &until
			list = append(list, f)
		}
	}
	return list
}
