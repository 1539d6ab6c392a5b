package history

import (
	"context"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"openline/protocol"
	"openline/protocol/reconcile"
)

const (
	maxRounds    = 200    // negentropy messages about some hours of a shard; the rest is for the next session
	maxBarren    = 40     // of them one after the other that show nothing: sets of any size are at their ids after eight
	maxQueued    = 20_000 // ids to fetch or to give; beyond, the rest of the comparison waits for the next session
	wantIDs      = 256    // in one question
	thinIDs      = 16     // the same on a thin line, so that what is more urgent soon comes first
	atOnce       = 4      // questions for envelopes on their way
	settle       = 500 * time.Millisecond
	fewNeeded    = 64 // so few may be on their way with the flood: what has come after settle is not fetched
	maxSession   = 5 * time.Minute
	maxMissing   = 64 // ids or ranges that a peer offers and does not have, if they are more than half
	measureTime  = 3 * time.Second
	questionTime = time.Minute // to write one

	slow, thinnest = 1000, 125 // bytes a second that a line carries at least, if it is not known to be thin, or if it is
)

// asker sends questions and gets their answers, in order.
type asker struct {
	*link
	stream  network.Stream
	answers <-chan frame
	horizon int64 // of the peer
	pending []question
}

// question waits for its answer.
type question struct {
	answer byte
	handle func(body []byte) error
	fetch  bool
}

func (a *asker) send(ctx context.Context, kind byte, body []byte, q question) error {
	if err := a.y.pay(ctx, len(body)); err != nil {
		return err
	}
	a.y.Count.Sent.Add(uint64(len(body) + 3))
	if q.answer != 0 {
		a.awaited.Add(1)
		a.pending = append(a.pending, q)
	}
	// Not a deadline, which not every transport has. A peer that does not even read stalls too.
	watch := time.AfterFunc(questionTime, func() { _ = a.stream.Reset() })
	err := writeFrame(a.stream, kind, body)
	if !watch.Stop() {
		return errStall
	}
	return err
}

// next waits for the next answer and handles it. A peer stalls when not a byte comes, or only one now and then so as to hold
// a session for ever; however thin the line is, an honest one has time.
func (a *asker) next(ctx context.Context) (q question, err error) {
	q = a.pending[0]
	a.pending = a.pending[1:]
	begun, bytes := time.Now(), a.bytes.Load()
	tick := time.NewTicker(answerTime / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return q, ctx.Err()
		case f := <-a.answers:
			if f.kind != q.answer {
				return q, fmt.Errorf("%w: kind %d answers no question", errFrame, f.kind)
			}
			if q.fetch {
				a.adapt(len(f.body), time.Since(begun))
			}
			return q, q.handle(f.body)
		case <-tick.C:
			took, p := time.Since(begun), a.patience(q)
			trickles := float64(a.bytes.Load()-bytes) < thinnest/2*took.Seconds()
			if took > p && (time.Since(a.heard()) > p || trickles) {
				return q, errStall
			}
		}
	}
}

// patience is how long nothing may come: longer when long answers are on their way over a line that may keep them back.
func (a *asker) patience(q question) time.Duration {
	waiting := 0
	for _, p := range append(a.pending, q) {
		if p.fetch {
			waiting += a.chunk
		}
	}
	if a.thin {
		return answerTime + time.Duration(waiting)*time.Second/thinnest
	}
	return answerTime + time.Duration(waiting)*time.Second/slow
}

// adapt makes the answers as long as the line carries in about a second.
func (a *asker) adapt(n int, took time.Duration) {
	switch {
	case took > 2*time.Second:
		a.chunk = max(firstChunk, a.chunk/2)
	case took < time.Second && n > a.chunk/2 && !a.short:
		a.chunk = min(batchBytes, 2*a.chunk)
	}
}

// run does an errand.
func (a *asker) run(ctx context.Context, e errand) error {
	if e.hello {
		if err := a.greet(ctx); err != nil {
			return err
		}
	}
	if e.stitch {
		return a.stitch(ctx)
	}
	return nil
}

// greet exchanges hellos.
func (a *asker) greet(ctx context.Context) error {
	err := a.send(ctx, kindHello, a.y.hello().encode(), question{answer: kindHello, handle: func(body []byte) error {
		h, err := parseHello(body)
		if err != nil {
			return err
		}
		if h.network != a.y.cfg.Network {
			return fmt.Errorf("%w: it answers for another network", errLie)
		}
		a.horizon = h.horizon
		a.y.met(a.peer, h)
		return nil
	}})
	if err != nil {
		return err
	}
	_, err = a.next(ctx)
	return err
}

// stitch asks the peer to flood everything to this node for a while, and does the same.
func (a *asker) stitch(ctx context.Context) error {
	err := a.send(ctx, kindStitch, nil, question{answer: kindStitched, handle: func(body []byte) error {
		if len(body) != 1 || body[0] > 1 {
			return errFrame
		}
		if body[0] == 1 {
			a.y.cfg.Stitch(a.peer, stitchFor)
		}
		return nil
	}})
	if err != nil {
		return err
	}
	_, err = a.next(ctx)
	return err
}

// session is one comparison of some hours with a peer, and the fetching of what it shows to be lacking.
type session struct {
	*asker
	due     spans
	fresh   bool // the first one with this peer
	thinly  bool
	begun   time.Time
	settled bool

	fetches  []*fetch // the most urgent last
	fetching int
	unknown  []protocol.ID // on a thin line: what must be described before it is fetched
	known    []described
	queued   int // ids that wait to be fetched or that the peer lacks
	held     map[protocol.ID]struct{}
	bulk     map[int]bool
	retry    spans // what others are fetching, or what was too much for one session

	differs bool
	gained  int
	given   int
	wanted  int
	missing int

	received   int // bytes of envelopes
	fetchBegun time.Time
}

// fetch is something to get: ids, or a range when there are none.
type fetch struct {
	window int
	shard  int
	span   span
	ids    []protocol.ID
	all    *reconcile.Range
	begun  bool // the newest of the range has come
}

func newSession(a *asker, due spans, fresh bool) *session {
	return &session{asker: a, due: due, fresh: fresh, begun: time.Now(), held: map[protocol.ID]struct{}{}, bulk: map[int]bool{},
		retry: spans{}, thinly: a.thin || a.y.cfg.Budget > 0 && a.y.cfg.Budget < thinLine}
}

// release gives back all that was reserved.
func (s *session) release() {
	ids := make([]protocol.ID, 0, len(s.held))
	for id := range s.held {
		ids = append(ids, id)
	}
	s.y.release(ids)
	for shard := range s.bulk {
		s.y.releaseBulk(shard)
	}
}

// run goes through the windows, on a thin line one after the other.
func (s *session) run(ctx context.Context) error {
	if !s.fresh && s.checks() {
		if err := s.greet(ctx); err != nil {
			return err
		}
	}
	stages, err := s.plan(ctx)
	if err != nil {
		return err
	}
	for _, stage := range stages {
		for _, c := range stage {
			if err := s.open(ctx, c); err != nil {
				return err
			}
		}
		if err := s.drain(ctx); err != nil {
			return err
		}
	}
	s.measure()
	return nil
}

// checks reports whether everything is compared, and not only what news was about.
func (s *session) checks() bool {
	return len(s.due) == protocol.Shards && s.due[0].to == reconcile.Infinity
}

// plan divides what is due into windows, the newest first. Unless it is the first time, shards that agree as a whole are
// found out before, at 20 bytes each.
func (s *session) plan(ctx context.Context) (stages [][]*comparison, err error) {
	low := max(s.horizon, s.y.src.Horizon())
	this := s.y.cfg.Now().Unix() / hour * hour
	edges := []int64{reconcile.Infinity, this - hour, this - 24*hour, this - 8*24*hour, 0}
	var probes []*comparison
	for shard, d := range s.due {
		d.from = max(d.from, low/hour*hour)
		if s.fresh || d.to-d.from <= 2*hour {
			continue
		}
		c := &comparison{shard: shard, span: d, probe: true, lacks: map[protocol.ID]bool{}}
		probes = append(probes, c)
		if err := s.open(ctx, c); err != nil {
			return nil, err
		}
	}
	if err := s.drain(ctx); err != nil {
		return nil, err
	}
	agree := map[int]bool{}
	for _, c := range probes {
		agree[c.shard] = !c.differs
	}
	stages = make([][]*comparison, len(edges)-1)
	for w := range stages {
		for shard, d := range s.due {
			d.from = max(d.from, low/hour*hour)
			part := span{max(d.from, edges[w+1]), min(d.to, edges[w])}
			if part.from < part.to && !agree[shard] {
				stages[w] = append(stages[w], &comparison{shard: shard, span: part, window: w, lacks: map[protocol.ID]bool{}})
			}
		}
	}
	if s.thinly {
		return stages, nil
	}
	var all []*comparison
	for _, stage := range stages {
		all = append(all, stage...)
	}
	return [][]*comparison{all}, nil
}

// comparison is the conversation about some hours of a shard.
type comparison struct {
	shard  int
	window int
	span   span
	probe  bool
	at     time.Time
	rounds int
	barren int // rounds since one has shown something

	differs bool
	lacks   map[protocol.ID]bool // the peer does
	all     []reconcile.Range    // of these the peer lacks everything
}

func (s *session) open(ctx context.Context, c *comparison) error {
	c.at = time.Now()
	var message []byte
	err := s.y.src.View(c.shard, c.span.from, c.span.to, func(set reconcile.Set) (err error) {
		message, err = reconcile.Open(set)
		return err
	})
	if err != nil {
		return err
	}
	return s.advance(ctx, c, message)
}

// advance sends the next message of a comparison.
func (s *session) advance(ctx context.Context, c *comparison, message []byte) error {
	c.rounds++
	if c.barren++; c.barren > maxBarren {
		return fmt.Errorf("%w: it finds differences without end", errLie)
	}
	a := ask{s.chunk, c.shard, c.span.from, c.span.to, message}
	return s.asker.send(ctx, kindAsk, a.encode(), question{answer: kindAnswer, handle: func(body []byte) error {
		return s.resolve(ctx, c, body)
	}})
}

// resolve looks at an answer and goes on, or is done with the comparison.
func (s *session) resolve(ctx context.Context, c *comparison, body []byte) error {
	var next []byte
	var d reconcile.Difference
	err := s.y.src.View(c.shard, c.span.from, c.span.to, func(set reconcile.Set) (err error) {
		next, d, err = reconcile.Resolve(set, body, !s.thinly && !s.y.namesIDs(c.shard),
			reconcile.Limits{Bytes: min(reconcile.DefaultLimit, max(minAnswer, s.chunk))})
		return err
	})
	if err != nil {
		return err
	}
	c.differs = c.differs || next != nil || len(d.Have)+len(d.Need)+len(d.HaveAll)+len(d.NeedAll) > 0
	if c.probe && c.differs {
		return nil // the windows follow
	}
	s.differs = s.differs || len(d.Need)+len(d.NeedAll) > 0
	s.queue(c, d)
	if len(d.Have)+len(d.Need)+len(d.HaveAll)+len(d.NeedAll) > 0 {
		c.barren = 0
	}
	if next == nil {
		return s.finish(ctx, c)
	}
	if c.rounds >= maxRounds || s.queued > maxQueued || time.Since(s.begun) > maxSession {
		s.again(c.shard, c.span)
		return s.tell(ctx, c)
	}
	return s.advance(ctx, c, next)
}

// queue notes what an answer has shown.
func (s *session) queue(c *comparison, d reconcile.Difference) {
	for _, i := range d.Have {
		c.lacks[protocol.ID(i.ID)] = true
	}
	for _, r := range d.HaveAll {
		c.all = append(c.all, c.span.clip(r))
	}
	s.queued += len(d.Have) + len(d.Need)
	ids := make([]protocol.ID, len(d.Need))
	for i, id := range d.Need {
		ids[i] = protocol.ID(id)
	}
	if s.thinly {
		s.unknown = append(s.unknown, ids...)
		return
	}
	for len(ids) > 0 {
		n := min(len(ids), wantIDs)
		s.push(&fetch{window: c.window, shard: c.shard, span: c.span, ids: ids[:n]})
		ids = ids[n:]
	}
	for _, r := range d.NeedAll {
		r = c.span.clip(r)
		s.push(&fetch{window: c.window, shard: c.shard, span: c.span, all: &r})
	}
}

// push puts f where it belongs: windows in their order; within one, what was found last, which is the newest, first.
func (s *session) push(f *fetch) {
	at := len(s.fetches)
	for at > 0 && s.fetches[at-1].window < f.window {
		at--
	}
	s.fetches = append(s.fetches, nil)
	copy(s.fetches[at+1:], s.fetches[at:])
	s.fetches[at] = f
}

// again has some hours compared once more after this session.
func (s *session) again(shard int, d span) {
	if o, ok := s.retry[shard]; ok {
		d = span{min(d.from, o.from), max(d.to, o.to)}
	}
	s.retry[shard] = d
}

// finish is called when all differences of some hours are known.
func (s *session) finish(ctx context.Context, c *comparison) error {
	s.y.compared(s.peer, c.shard, c.span.from, c.span.to, c.at, c.lacks, c.all)
	return s.tell(ctx, c)
}

// tell lets the peer know that it lacks something: it will fetch it.
func (s *session) tell(ctx context.Context, c *comparison) error {
	if len(c.lacks)+len(c.all) == 0 {
		return nil
	}
	s.given += len(c.lacks) + manyEvents*len(c.all)
	n, err := s.y.summary(c.shard, c.span.from, c.span.to)
	if err != nil {
		return err
	}
	return s.asker.send(ctx, kindNews, encodeNews([]news{n}), question{})
}

// measure says whether the line has turned out to be thin.
func (s *session) measure() {
	if took := time.Since(s.fetchBegun); !s.fetchBegun.IsZero() && took > measureTime {
		s.thin = float64(s.received)/took.Seconds() < thinLine
	}
}
