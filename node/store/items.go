package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"

	"openline/protocol"
	"openline/protocol/reconcile"
)

// ErrTooMany is the error of Items.
var ErrTooMany = errors.New("too many events match")

// Items returns times and ids of what matches f, which has no limit; ErrTooMany when they are more than most. A filter of
// nothing but times is answered without reading an event.
func (s *Store) Items(ctx context.Context, f protocol.Filter, most int) (*reconcile.Vector, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.leave()
	var items []reconcile.Item
	add := func(created int64, id protocol.ID) bool {
		items = append(items, reconcile.Item{Time: created, ID: reconcile.ID(id)})
		return len(items) <= most
	}
	var err error
	if f.IDs == nil && f.Authors == nil && f.Kinds == nil && f.Tags == nil {
		err = s.allItems(ctx, f, add)
	} else {
		err = s.matchingItems(ctx, f, most, add)
	}
	if err != nil {
		return nil, err
	}
	if len(items) > most {
		return nil, ErrTooMany
	}
	slices.SortFunc(items, reconcile.Item.Compare)
	return reconcile.NewVector(items)
}

func (s *Store) allItems(ctx context.Context, f protocol.Filter, add func(int64, protocol.ID) bool) error {
	from, to, ok := span(f)
	if !ok {
		return nil
	}
	snap := s.db.NewSnapshot()
	defer snap.Close()
	return eachRow(ctx, snap, eventKey(from), append(eventKey(to), 0), func(k, _ []byte) (bool, error) {
		if len(k) != 1+len(position{}) {
			return false, damaged("a row of an event has a key of %d bytes", len(k))
		}
		p := position(bytes.Clone(k[1:]))
		return add(int64(^binary.BigEndian.Uint64(p[:8])), p.id()), nil
	})
}

func (s *Store) matchingItems(ctx context.Context, f protocol.Filter, most int, add func(int64, protocol.ID) bool) error {
	q, err := s.newQuery(ctx)
	if err != nil {
		return err
	}
	defer q.close()
	_, err = q.union([]protocol.Filter{f}, most+1, func(e protocol.Event) bool { return add(e.CreatedAt(), e.ID()) })
	return err
}

// Hours returns the first seconds of the clock hours in which there is anything that travels, in order.
func (s *Store) Hours() ([]int64, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.leave()
	snap := s.db.NewSnapshot()
	defer snap.Close()
	var starts []int64
	for shard := range protocol.Shards {
		list, err := s.hours(snap, shard)
		if err != nil {
			return nil, err
		}
		for _, b := range list {
			starts = append(starts, b.Start)
		}
	}
	slices.Sort(starts)
	return slices.Compact(starts), nil
}
