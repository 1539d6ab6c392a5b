package store

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"openline/protocol"
	"openline/protocol/reconcile"
)

// model says the rules dumbly: it looks at everything for every question.
type model struct {
	events    map[protocol.ID]protocol.Event
	seqs      map[protocol.ID]uint64
	outbox    []protocol.ID
	deletions []protocol.Event // all that were ever stored, without those that the quota drove out
	seq       uint64
}

func newModel() *model {
	return &model{events: map[protocol.ID]protocol.Event{}, seqs: map[protocol.ID]uint64{}}
}

func (m *model) put(e protocol.Event, o Origin, now time.Time) protocol.Code {
	if e.Expired(now) {
		return protocol.Expired
	}
	if _, ok := m.events[e.ID()]; ok {
		return protocol.Duplicate
	}
	for _, d := range m.deletions {
		if deletes(d, e) {
			return protocol.Deleted
		}
	}
	var gone, hour []protocol.Event
	for _, x := range m.events {
		if x.Address() != "" && x.Address() == e.Address() {
			if !e.Newer(x) {
				return protocol.Duplicate
			}
			gone = append(gone, x)
		}
		if inQuota(e.Kind()) && inQuota(x.Kind()) && (e.Kind() == 5) == (x.Kind() == 5) && x.PubKey() == e.PubKey() && x.CreatedAt()/3600 == e.CreatedAt()/3600 {
			hour = append(hour, x)
		}
	}
	if len(hour) >= 30 {
		slices.SortFunc(hour, func(a, b protocol.Event) int { return bytes.Compare(id(a), id(b)) })
		largest := hour[len(hour)-1]
		if o == Own || bytes.Compare(id(e), id(largest)) > 0 {
			return protocol.OverQuota
		}
		gone = append(gone, largest)
		m.deletions = slices.DeleteFunc(m.deletions, func(d protocol.Event) bool { return d.ID() == largest.ID() })
	}
	if e.Kind() == 5 {
		m.deletions = append(m.deletions, e)
		for _, x := range m.events {
			if deletes(e, x) {
				gone = append(gone, x)
			}
		}
	}
	for _, x := range gone {
		m.remove(x.ID())
	}
	m.seq++
	m.events[e.ID()], m.seqs[e.ID()] = e, m.seq
	if o != Remote && protocol.Travels(e.Kind()) {
		m.outbox = append(m.outbox, e.ID())
	}
	return ""
}

func id(e protocol.Event) []byte { x := e.ID(); return x[:] }

func inQuota(kind uint16) bool { return kind == 1 || kind == 5 || kind == 6 || kind == 7 }

// deletes is NIP-09.
func deletes(d, e protocol.Event) bool {
	if d.PubKey() != e.PubKey() || e.Kind() == 5 {
		return false
	}
	for _, t := range d.Tags() {
		if t[0] == "e" && t[1] == e.ID().String() {
			return true
		}
		if t[0] == "a" && t[1] == e.Address() && e.CreatedAt() <= d.CreatedAt() {
			return true
		}
	}
	return false
}

func (m *model) remove(id protocol.ID) {
	delete(m.events, id)
	m.sent(id)
}

func (m *model) sent(id protocol.ID) {
	m.outbox = slices.DeleteFunc(m.outbox, func(x protocol.ID) bool { return x == id })
}

func (m *model) purge(now time.Time) int {
	n := 0
	for id, e := range m.events {
		if e.Expired(now) {
			m.remove(id)
			n++
		}
	}
	return n
}

func (m *model) query(filters []protocol.Filter, most int, now time.Time) []protocol.ID {
	order := slices.SortedFunc(maps.Values(m.events), func(a, b protocol.Event) int {
		if a.Newer(b) {
			return -1
		}
		return 1
	})
	chosen := map[protocol.ID]bool{}
	for _, f := range filters {
		left := most
		if f.Limit != nil {
			left = min(left, *f.Limit)
		}
		for _, e := range order {
			if left > 0 && f.Matches(e) && !e.Expired(now) {
				chosen[e.ID()] = true
				left--
			}
		}
	}
	var ids []protocol.ID
	for _, e := range order {
		if chosen[e.ID()] {
			ids = append(ids, e.ID())
		}
	}
	return ids
}

// world is a store and its model, and what happened to them.
type world struct {
	*testing.T
	r     *rand.Rand
	clock *clock
	cfg   Config
	s     *Store
	m     *model
	past  []protocol.Event // stored or not
}

func TestStoreDoesWhatTheModelSays(t *testing.T) {
	w := &world{T: t, r: seeded(t), clock: &clock{start}, cfg: config(t.TempDir()), m: newModel()}
	w.cfg.Now = w.clock.now
	w.open()
	defer func() { w.s.Close() }()
	for range 300 {
		switch n := w.r.IntN(100); {
		case n < 60:
			w.put(1)
		case n < 75:
			w.put(2 + w.r.IntN(40))
		case n < 85:
			w.query()
		case n < 88:
			w.send()
		case n < 90:
			w.stamp()
		case n < 94:
			w.clock.at = w.clock.at.Add(time.Duration(w.r.IntN(600)) * time.Second)
		case n < 96:
			w.purge()
		default:
			if err := w.s.Close(); err != nil {
				t.Fatal(err)
			}
			w.open()
		}
	}
	w.compare()
}

func (w *world) open() {
	s, err := Open(w.cfg)
	if err != nil {
		w.Fatal(err)
	}
	w.s = s
	w.compare()
}

func (w *world) put(n int) {
	events, origins := make([]protocol.Event, n), make([]Origin, n)
	for i := range events {
		events[i], origins[i] = w.event(), Origin(w.r.IntN(3))
	}
	w.past = append(w.past, events...)
	var verdicts []error
	if n == 1 {
		_, err := w.s.Put(w.Context(), events[0], origins[0])
		verdicts = []error{err}
	} else {
		verdicts = putTogether(w.T, w.s, events, origins)
	}
	for i, e := range events {
		want := w.m.put(e, origins[i], w.clock.at)
		r, _ := errors.AsType[*protocol.Rejection](verdicts[i])
		if verdicts[i] != nil && r == nil {
			w.Fatalf("Put: %v", verdicts[i])
		}
		if got := code(verdicts[i]); got != want {
			w.Fatalf("Put(kind %d) = %q, want %q", e.Kind(), got, want)
		}
	}
}

func code(err error) protocol.Code {
	if r, ok := errors.AsType[*protocol.Rejection](err); ok {
		return r.Code
	}
	return ""
}

// event makes an event, often one that has to do with an earlier one. Author 0 talks too much.
func (w *world) event() protocol.Event {
	r := w.r
	if len(w.past) > 0 && r.IntN(10) == 0 {
		return w.some()
	}
	author := int64(r.IntN(4) * r.IntN(2))
	created := w.clock.at.Unix() - int64(r.IntN(1800))
	kinds := []uint16{1, 1, 1, 1, 1, 1, 1, 1, 6, 7, 7, 0, 3, 10002, 30023, 30023, 5, 5}
	if author == 1 { // withdraws too much
		kinds = append(kinds, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5)
	}
	kind := kinds[r.IntN(len(kinds))]
	var tags []protocol.Tag
	for range r.IntN(4) {
		tags = append(tags, w.tag(kind, author))
	}
	if kind == 30023 {
		tags = append(tags, protocol.Tag{"d", fmt.Sprint("slot:", r.IntN(3))})
	}
	return fake(author, created, kind, fmt.Sprint(r.IntN(1000)), tags...)
}

func (w *world) tag(kind uint16, author int64) protocol.Tag {
	r := w.r
	switch n := r.IntN(10); {
	case kind == 5 && n < 5 && len(w.past) > 0:
		return protocol.Tag{"e", w.some().ID().String()}
	case kind == 5 && n < 6: // of an event that comes only later, perhaps
		return protocol.Tag{"e", note(author, w.clock.at.Unix(), fmt.Sprint(r.IntN(1000))).ID().String()}
	case kind == 5:
		target := fake(author, 0, 30023, "")
		return protocol.Tag{"a", []string{address(target, 30023, fmt.Sprint("slot:", r.IntN(3))), address(target, 0, "")}[r.IntN(2)]}
	case n < 3 && len(w.past) > 0:
		return protocol.Tag{"e", w.some().ID().String(), ""}
	case n < 4:
		return protocol.Tag{"expiration", fmt.Sprint(w.clock.at.Unix() + int64(r.IntN(900)))}
	case n < 5:
		return protocol.Tag{[]string{"T", "t", "long", "d"}[r.IntN(4)], fmt.Sprint("topic", r.IntN(3))}
	default:
		return protocol.Tag{"t", fmt.Sprint("topic", r.IntN(3))}
	}
}

func (w *world) some() protocol.Event { return w.past[w.r.IntN(len(w.past))] }

func (w *world) filter() (f protocol.Filter) {
	r := w.r
	few := func(p int) int { // how many, or -1 for no condition
		if r.IntN(100) >= p {
			return -1
		}
		return r.IntN(4)
	}
	for i, n := 0, few(10); i <= n; i++ {
		f.IDs = append(make([]protocol.ID, 0), f.IDs...)
		if i < n && len(w.past) > 0 {
			f.IDs = append(f.IDs, w.some().ID())
		}
	}
	for i, n := 0, few(40); i <= n; i++ {
		f.Authors = append(make([]protocol.PubKey, 0), f.Authors...)
		if i < n {
			f.Authors = append(f.Authors, fake(int64(r.IntN(5)), 0, 0, "").PubKey())
		}
	}
	for i, n := 0, few(40); i <= n; i++ {
		f.Kinds = append(make([]uint16, 0), f.Kinds...)
		if i < n {
			f.Kinds = append(f.Kinds, []uint16{0, 1, 5, 7, 30023}[r.IntN(5)])
		}
	}
	for range r.IntN(6) / 4 {
		t := protocol.TagFilter{Letter: "teTd"[r.IntN(4)]}
		for range r.IntN(4) {
			t.Values = append(t.Values, fmt.Sprint("topic", r.IntN(3)))
		}
		if t.Letter == 'e' && len(w.past) > 0 {
			t.Values = append(t.Values, w.some().ID().String())
		}
		f.Tags = append(f.Tags, t)
	}
	if r.IntN(3) == 0 {
		f.Since = pointer(w.clock.at.Unix() - int64(r.IntN(3000)))
	}
	if r.IntN(3) == 0 {
		f.Until = pointer(w.clock.at.Unix() - int64(r.IntN(3000)))
	}
	if r.IntN(2) == 0 {
		f.Limit = pointer(r.IntN(20))
	}
	return f
}

func (w *world) query() {
	filters := make([]protocol.Filter, 1+w.r.IntN(3))
	for i := range filters {
		filters[i] = w.filter()
	}
	most := 1 + w.r.IntN(100)
	var got []protocol.ID
	for _, e := range stored(w, w.s, most, filters...) {
		got = append(got, e.ID())
	}
	if want := w.m.query(filters, most, w.clock.at); !slices.Equal(got, want) {
		text, _ := filters[0].MarshalJSON()
		w.Fatalf("%d filters, the first %s: %d events, want %d: %v, want %v", len(filters), text, len(got), len(want), got, want)
	}
}

func (w *world) send() {
	var ids []protocol.ID
	for range w.r.IntN(5) {
		if len(w.past) > 0 {
			ids = append(ids, w.some().ID())
		}
	}
	if err := w.s.Sent(w.Context(), ids...); err != nil {
		w.Fatal(err)
	}
	for _, id := range ids {
		w.m.sent(id)
	}
}

func (w *world) stamp() {
	if len(w.past) == 0 {
		return
	}
	id, nonce := w.some().ID(), w.r.Uint64()
	if err := w.s.Stamp(w.Context(), id, nonce); err != nil {
		w.Fatal(err)
	}
	if e, ok := w.m.events[id]; ok && e.Nonce() == 0 {
		w.m.events[id] = e.WithNonce(nonce)
	}
}

func (w *world) purge() {
	n, err := w.s.Purge(w.Context())
	if want := w.m.purge(w.clock.at); err != nil || n != want {
		w.Fatalf("Purge() = %d, %v, want %d", n, err, want)
	}
}

// compare looks at everything.
func (w *world) compare() {
	w.Helper()
	stats := w.s.Stats()
	if stats.Events != uint64(len(w.m.events)) || stats.Outbox != len(w.m.outbox) || stats.Seq != w.m.seq {
		w.Fatalf("Stats() = %+v, want %d events, %d in the outbox, seq %d", stats, len(w.m.events), len(w.m.outbox), w.m.seq)
	}
	for _, e := range w.past {
		want, ok := w.m.events[e.ID()]
		ok = ok && !want.Expired(w.clock.at)
		got, here, err := w.s.Get(e.ID())
		if err != nil || here != ok || here && !bytes.Equal(got.AppendEnvelope(nil), want.AppendEnvelope(nil)) {
			w.Fatalf("Get: %v, %v, want %v", here, err, ok)
		}
	}
	waiting, err := w.s.Outbox(1 << 20)
	if err != nil || !slices.EqualFunc(waiting, w.m.outbox, func(e protocol.Event, id protocol.ID) bool { return e.ID() == id }) {
		w.Fatalf("Outbox() = %d events, %v, want %d", len(waiting), err, len(w.m.outbox))
	}
	w.compareRows()
}

// hours adds up what should stand in the h rows.
func (w *world) hours() map[string]*hourSum {
	sums := map[string]*hourSum{}
	for _, e := range w.m.events {
		if !protocol.Travels(e.Kind()) {
			continue
		}
		k, id := string(hourOf(e).row()), reconcile.ID(e.ID())
		if sums[k] == nil {
			sums[k] = &hourSum{}
		}
		sums[k].count++
		sums[k].sum.Add(&id)
	}
	return sums
}

// compareRows finds rows that nothing needs and rows that are missing.
func (w *world) compareRows() {
	w.Helper()
	want := map[string]bool{}
	for id, e := range w.m.events {
		p := positionOf(e.CreatedAt(), id)
		want[string(eventKey(p))], want[string(idKey(id))] = true, true
		indexRows(e, func(key, _ []byte) { want[string(key)] = true })
		if e.Address() != "" {
			want[string(slotKey(e.Address()))] = true
		}
	}
	for _, id := range w.m.outbox {
		want[string(outboxKey(w.m.seqs[id]))] = true
	}
	for k, h := range w.hours() {
		want[k] = true
		if v, err := lookup(w.s.db, []byte(k)); err != nil || !bytes.Equal(v, h.encode()) {
			w.Errorf("the sum of an hour is wrong (%v)", err)
		}
	}
	err := eachRow(w.Context(), w.s.db, []byte{0}, []byte{0xff}, func(k, _ []byte) (bool, error) {
		if k[0] != rowMeta && k[0] != rowDeleted && k[0] != rowSlotDeleted && !want[string(k)] {
			w.Errorf("a row of type %q is left over", k[0])
		}
		delete(want, string(k))
		return true, nil
	})
	if err != nil {
		w.Fatal(err)
	}
	for k := range want {
		w.Errorf("a row of type %q is missing", k[0])
	}
	size := uint64(0)
	count := func(k, v []byte) { size += uint64(len(k) + len(v)) }
	for id, e := range w.m.events {
		p := positionOf(e.CreatedAt(), id)
		count(eventKey(p), record{event: e}.encode())
		count(idKey(id), make([]byte, 16))
		indexRows(e, count)
	}
	if got := w.s.Stats().Logical; got != size {
		w.Errorf("Stats().Logical = %d, want %d", got, size)
	}
}
