package store

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"openline/protocol"
)

// group is what the writer decides between two commits. It reads through its own batch, so that the rules hold within
// a group too. All rules about what may stay beside what are here, in quota.go and in deletion.go.
type group struct {
	batch *pebble.Batch // indexed
	now   time.Time
	count counters
	hours map[hourKey]*hourSum // those that change
	fresh []entry              // for the followers
}

func newGroup(db *pebble.DB, now time.Time, c counters) *group {
	return &group{batch: db.NewIndexedBatch(), now: now, count: c, hours: map[hourKey]*hourSum{}}
}

// put decides about e and stores it. All decisions come before the first row.
func (g *group) put(e protocol.Event, o Origin) (Stored, error) {
	if e.Expired(g.now) {
		return Stored{}, protocol.Reject(protocol.Expired, reasonExpired)
	}
	if err := g.admit(e); err != nil {
		return Stored{}, err
	}
	replaced, err := g.replaced(e)
	if err != nil {
		return Stored{}, err
	}
	evicted, err := g.quota(e, o)
	if err != nil {
		return Stored{}, err
	}
	for _, old := range []*record{replaced, evicted} {
		if old == nil {
			continue
		}
		if err := g.forget(*old); err != nil {
			return Stored{}, err
		}
	}
	seq, err := g.add(e, o, replaced != nil)
	if err != nil {
		return Stored{}, err
	}
	stored := Stored{Seq: seq}
	if replaced != nil && replaced.again {
		stored.Replaced = replaced.received
	}
	if e.Kind() == protocol.KindDeletion {
		return stored, g.withdraw(e)
	}
	return stored, nil
}

// admit refuses what is here or was withdrawn.
func (g *group) admit(e protocol.Event) error {
	_, _, here, err := find(g.batch, e.ID())
	if err != nil {
		return err
	}
	if here {
		return protocol.Reject(protocol.Duplicate, reasonHere)
	}
	if err := withdrawn(g.batch, e.ID(), e.PubKey(), e.Kind()); err != nil {
		return err
	}
	if address := e.Address(); address != "" {
		until, ok, err := g.slotDeleted(address)
		if err != nil {
			return err
		}
		if ok && e.CreatedAt() <= until {
			return protocol.Reject(protocol.Deleted, reasonDeleted)
		}
	}
	return nil
}

// replaced returns the version that e takes the place of, nil when there is none (NIP-01).
func (g *group) replaced(e protocol.Event) (*record, error) {
	address := e.Address()
	if address == "" {
		return nil, nil
	}
	old, err := g.slot(address)
	if err != nil || old == nil {
		return nil, err
	}
	if !e.Newer(old.event) {
		return nil, protocol.Reject(protocol.Duplicate, reasonNewer)
	}
	return old, nil
}

// slot returns the event that fills address, nil when none does.
func (g *group) slot(address string) (*record, error) {
	v, err := lookup(g.batch, slotKey(address))
	if v == nil || err != nil {
		return nil, err
	}
	if len(v) != 40 {
		return nil, damaged("the row of a slot has %d bytes, not 40", len(v))
	}
	return g.mustLoad(positionOf(int64(binary.BigEndian.Uint64(v)), protocol.ID(v[8:])))
}

// mustLoad returns the event at p, which another row names.
func (g *group) mustLoad(p position) (*record, error) {
	r, ok, err := load(g.batch, p)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, damaged("a row names an event that is not here")
	}
	return &r, nil
}

// add writes the rows of e and returns its seq.
func (g *group) add(e protocol.Event, o Origin, again bool) (seq uint64, err error) {
	g.count.seq++
	g.count.events++
	r := record{seq: g.count.seq, received: g.now, again: again, own: o == Own, event: e}
	p, id := r.position(), e.ID()
	created := uint64Bytes(uint64(e.CreatedAt()))
	g.setCounted(eventKey(p), r.encode())
	g.setCounted(idKey(id), append(created, uint64Bytes(r.seq)...))
	indexRows(e, g.setCounted)
	if address := e.Address(); address != "" {
		g.set(slotKey(address), append(created, id[:]...))
	}
	if o.leaves() && protocol.Travels(e.Kind()) {
		g.set(outboxKey(r.seq), p[:])
		g.count.outbox++
	}
	g.fresh = append(g.fresh, entry{r.seq, e})
	return r.seq, g.tally(e, true)
}

// remove deletes all rows of r.
func (g *group) remove(r record) error {
	g.count.events--
	uncount := func(key, value []byte) {
		g.count.bytes -= uint64(len(key) + len(value))
		g.delete(key)
	}
	uncount(eventKey(r.position()), r.encode())
	uncount(idKey(r.event.ID()), make([]byte, 16))
	indexRows(r.event, uncount)
	if address := r.event.Address(); address != "" {
		g.delete(slotKey(address))
	}
	if err := g.tally(r.event, false); err != nil {
		return err
	}
	return g.leaveOutbox(r.seq)
}

// setCounted writes a row of an event.
func (g *group) setCounted(key, value []byte) {
	g.count.bytes += uint64(len(key) + len(value))
	g.set(key, value)
}

func (g *group) leaveOutbox(seq uint64) error {
	v, err := lookup(g.batch, outboxKey(seq))
	if v == nil || err != nil {
		return err
	}
	g.delete(outboxKey(seq))
	g.count.outbox--
	return nil
}

func (g *group) sent(ids []protocol.ID) error {
	for _, id := range ids {
		_, seq, ok, err := find(g.batch, id)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if err := g.leaveOutbox(seq); err != nil {
			return err
		}
	}
	return nil
}

func (g *group) stamp(id protocol.ID, nonce uint64) error {
	p, _, ok, err := find(g.batch, id)
	if !ok || err != nil {
		return err
	}
	r, err := g.mustLoad(p)
	if err != nil {
		return err
	}
	if r.event.Nonce() == 0 {
		g.count.bytes -= uint64(len(r.encode()))
		r.event = r.event.WithNonce(nonce)
		g.count.bytes += uint64(len(r.encode()))
		g.set(eventKey(p), r.encode())
	}
	return nil
}

// set and delete write into memory: of a batch that was not committed they cannot fail.
func (g *group) set(key, value []byte) {
	if err := g.batch.Set(key, value, nil); err != nil {
		panic(err)
	}
}

func (g *group) delete(key []byte) {
	if err := g.batch.Delete(key, nil); err != nil {
		panic(err)
	}
}

// purgeGroup is how many expired events one job removes, so that Puts come in between.
const purgeGroup = 256

// Purge removes what has expired (NIP-40) and returns how many events that were.
func (s *Store) Purge(ctx context.Context) (int, error) {
	total := 0
	for {
		n := 0
		err := s.submit(ctx, false, &job{frees: true, do: func(g *group) (err error) {
			n, err = g.purge()
			return err
		}})
		if err != nil {
			return total, err // n may be in use: see Put
		}
		if total += n; n < purgeGroup {
			return total, nil
		}
	}
}

func (g *group) purge() (int, error) {
	var expired []position
	end := key(rowExpiry, uint64Bytes(uint64(g.now.Unix())+1))
	err := eachRow(context.Background(), g.batch, key(rowExpiry), end, func(k, _ []byte) (bool, error) {
		if len(k) != 1+8+len(position{}) {
			return false, damaged("a row of the expiry index has %d bytes", len(k))
		}
		expired = append(expired, position(k[9:]))
		return len(expired) < purgeGroup, nil
	})
	if err != nil {
		return 0, err
	}
	for _, p := range expired {
		r, err := g.mustLoad(p)
		if err != nil {
			return 0, err
		}
		if err := g.remove(*r); err != nil {
			return 0, err
		}
	}
	return len(expired), nil
}
