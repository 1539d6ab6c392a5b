package store

import (
	"cmp"
	"context"
	"encoding/binary"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"openline/protocol"
	"openline/protocol/reconcile"
)

// hourKey names the events of one shard and clock hour of created_at.
type hourKey struct {
	shard int
	start int64 // the hour's first second
}

func hourOf(e protocol.Event) hourKey {
	return hourKey{e.Shard(), e.CreatedAt() / hour * hour}
}

func (k hourKey) row() []byte {
	return key(rowHour, []byte{byte(k.shard)}, uint64Bytes(uint64(k.start)))
}

// hourSum is the value of a row of hours.
type hourSum struct {
	count int
	sum   reconcile.Sum
}

func (s hourSum) encode() []byte {
	return s.sum.AppendBinary(uint64Bytes(uint64(s.count)))
}

func decodeHour(b []byte) (hourSum, error) {
	if len(b) != 40 {
		return hourSum{}, damaged("the row of an hour has %d bytes, not 40", len(b))
	}
	return hourSum{int(binary.BigEndian.Uint64(b)), reconcile.SumFrom([32]byte(b[8:]))}, nil
}

// shardKey is the row of an event in the order of reconciliation: created_at, then id, both ascending.
func shardKey(shard int, created int64, id protocol.ID) []byte {
	return key(rowShard, []byte{byte(shard)}, uint64Bytes(uint64(created)), id[:])
}

// tally adds e to the sums of its hour, or takes it away.
func (g *group) tally(e protocol.Event, here bool) error {
	if !protocol.Travels(e.Kind()) {
		return nil
	}
	k, id := hourOf(e), reconcile.ID(e.ID())
	h := g.hours[k]
	if h == nil {
		v, err := lookup(g.batch, k.row())
		if err != nil {
			return err
		}
		h = &hourSum{}
		if v != nil {
			if *h, err = decodeHour(v); err != nil {
				return err
			}
		}
		g.hours[k] = h
	}
	if here {
		h.count++
		h.sum.Add(&id)
	} else {
		h.count--
		h.sum.Sub(&id)
	}
	return nil
}

// setHours writes the hours that changed: once in a commit, however many events they got.
func (g *group) setHours() {
	for k, h := range g.hours {
		if h.count == 0 {
			g.delete(k.row())
		} else {
			g.set(k.row(), h.encode())
		}
	}
}

// View shows what is here of a shard and travels, created in the hours that begin from `from` to before `to` (Unix
// seconds). The set is that of one moment and may be used until view returns. What is below the horizon is not in it.
func (s *Store) View(shard int, from, to int64, view func(reconcile.Set) error) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	snap := s.db.NewSnapshot()
	defer snap.Close()
	hours, err := s.hours(snap, shard)
	if err != nil {
		return err
	}
	from = max(from, s.horizon.Load())
	byStart := func(b reconcile.Bucket, t int64) int { return cmp.Compare(b.Start, t) }
	low, _ := slices.BinarySearchFunc(hours, from, byStart)
	high, _ := slices.BinarySearchFunc(hours, to, byStart)
	return view(reconcile.NewBuckets(hours[low:max(low, high)], func(b reconcile.Bucket) (*reconcile.Vector, error) {
		return s.vectors.get(shard, b, func() (*reconcile.Vector, error) { return readHour(snap, shard, b) })
	}))
}

// hours returns the hours of a shard as they are in snap. They are read once for each commit that somebody looks at.
func (s *Store) hours(snap *pebble.Snapshot, shard int) ([]reconcile.Bucket, error) {
	c, err := readCounters(snap)
	if err != nil {
		return nil, err
	}
	kept := &s.kept[shard]
	kept.mu.Lock()
	defer kept.mu.Unlock()
	if kept.commits == c.commits && kept.hours != nil {
		return kept.hours, nil
	}
	hours := make([]reconcile.Bucket, 0, len(kept.hours)+8)
	prefix := key(rowHour, []byte{byte(shard)})
	err = eachRow(context.Background(), snap, prefix, key(rowHour, []byte{byte(shard + 1)}), func(k, v []byte) (bool, error) {
		h, err := decodeHour(v)
		if err != nil || len(k) != len(prefix)+8 {
			return false, damaged("a row of the hours is out of form")
		}
		hours = append(hours, reconcile.Bucket{Start: int64(binary.BigEndian.Uint64(k[len(prefix):])), Count: h.count, Sum: h.sum})
		return true, nil
	})
	if err != nil {
		return nil, err
	}
	kept.commits, kept.hours = c.commits, hours
	return hours, nil
}

// keptHours are the hours of a shard as of a commit.
type keptHours struct {
	mu      sync.Mutex // guards the fields below
	commits uint64
	hours   []reconcile.Bucket // not changed any more
}

// readHour reads the ids of one hour, a microsecond each.
func readHour(snap *pebble.Snapshot, shard int, b reconcile.Bucket) (*reconcile.Vector, error) {
	items := make([]reconcile.Item, 0, b.Count)
	low, high := shardKey(shard, b.Start, protocol.ID{}), shardKey(shard, b.Start+hour, protocol.ID{})
	err := eachRow(context.Background(), snap, low, high, func(k, _ []byte) (bool, error) {
		if len(k) != len(low) {
			return false, damaged("a row of a shard has %d bytes", len(k))
		}
		items = append(items, reconcile.Item{Time: int64(binary.BigEndian.Uint64(k[2:])), ID: reconcile.ID(k[10:])})
		return true, nil
	})
	if err != nil {
		return nil, err
	}
	v, err := reconcile.NewVector(items)
	if err != nil || v.Len() != b.Count {
		return nil, damaged("the rows of an hour do not fit its sum")
	}
	return v, nil
}

// maxVectorItems bounds what is kept of hours that were read: 42 bytes each.
const maxVectorItems = 100_000

// vectors keeps the hours that were read last. An hour that changed has another sum, and so another name.
type vectors struct {
	mu    sync.Mutex // guards the fields below
	kept  map[vectorKey]*reconcile.Vector
	order []vectorKey // the oldest first
	items int
}

type vectorKey struct {
	shard int
	hour  reconcile.Bucket
}

func (c *vectors) get(shard int, b reconcile.Bucket, read func() (*reconcile.Vector, error)) (*reconcile.Vector, error) {
	k := vectorKey{shard, b}
	c.mu.Lock()
	v := c.kept[k]
	c.mu.Unlock()
	if v != nil {
		return v, nil
	}
	v, err := read()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kept[k] != nil {
		return v, nil
	}
	if c.kept == nil {
		c.kept = map[vectorKey]*reconcile.Vector{}
	}
	c.kept[k], c.order, c.items = v, append(c.order, k), c.items+v.Len()
	for c.items > maxVectorItems && len(c.order) > 1 {
		c.items -= c.kept[c.order[0]].Len()
		delete(c.kept, c.order[0])
		c.order = c.order[1:]
	}
	return v, nil
}

// Has reports whether the event with this id is here, expired or not.
func (s *Store) Has(id protocol.ID) (bool, error) {
	if err := s.enter(); err != nil {
		return false, err
	}
	defer s.leave()
	_, _, here, err := find(s.db, id)
	return here, err
}
