package history

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"

	"openline/protocol"
	"openline/protocol/reconcile"
)

// What one peer may cost: bytes, and the share of a core, with some seconds of both at once. Beyond that its questions
// wait, and with them the peer.
const (
	serveBytes = 8 << 20                // a second
	serveTime  = 500 * time.Millisecond // a second
	serveBurst = 4                      // seconds
	answerWork = 50 * time.Millisecond  // on one negentropy message; the rest is for the next one
	minAnswer  = 4096                   // bytes of a negentropy message that are never too many
	outQueue   = 8                      // frames; when full, answers wait and news is left out: the next comparison finds it
)

// server answers one peer.
type server struct {
	y      *History
	peer   peer.ID
	stream network.Stream
	out    chan outFrame
	cost   *cost
	asked  chan struct{} // closed at the first question after hello
}

// cost is what a peer may still have. It outlives its streams, or a new stream would be a new beginning.
type cost struct {
	bytes *rate.Limiter
	work  *rate.Limiter // microseconds
}

func newCost() *cost {
	return &cost{bytes: rate.NewLimiter(serveBytes, serveBurst*serveBytes),
		work: rate.NewLimiter(rate.Limit(serveTime/time.Microsecond), serveBurst*int(serveTime/time.Microsecond))}
}

// paid reports whether a peer has had nothing for so long that it may be forgotten.
func (c *cost) paid() bool {
	return c.bytes.Tokens() >= float64(c.bytes.Burst()) && c.work.Tokens() >= float64(c.work.Burst())
}

type outFrame struct {
	kind byte
	body []byte
}

// serve answers a peer until it leaves, lies, or ctx ends.
func (y *History) serve(ctx context.Context, stream network.Stream) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = stream.Reset() }) // it ends whoever reads or writes
	defer stop()
	s := &server{y: y, peer: stream.Conn().RemotePeer(), stream: stream, out: make(chan outFrame, outQueue), asked: make(chan struct{})}
	if !y.admit(s) {
		_ = stream.Reset()
		return
	}
	defer y.leave(s)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.write(ctx)
		_ = stream.Reset()
	}()
	err := s.answerAll(ctx)
	if ctx.Err() == nil && isLie(err) {
		y.ban(s.peer, err)
	}
	cancel()
	<-done
}

// admit counts the stream in. A peer's second stream takes the place of its first, whose connection may be dead.
func (y *History) admit(s *server) bool {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.closed || time.Now().Before(y.banned[s.peer]) {
		return false
	}
	if old := y.served[s.peer]; old != nil {
		_ = old.stream.Reset()
	}
	if y.costs[s.peer] == nil {
		y.costs[s.peer] = newCost()
	}
	s.cost = y.costs[s.peer]
	y.served[s.peer] = s
	y.serving.Add(1)
	return true
}

func (y *History) leave(s *server) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.served[s.peer] == s {
		delete(y.served, s.peer)
	}
	y.serving.Done()
}

// write is the one goroutine that writes.
func (s *server) write(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case f := <-s.out:
			_ = s.stream.SetWriteDeadline(time.Now().Add(writeTime)) // not every transport has deadlines
			if s.y.pay(ctx, len(f.body)) != nil || writeFrame(s.stream, f.kind, f.body) != nil {
				return
			}
			s.y.Count.Sent.Add(uint64(len(f.body) + 3))
		}
	}
}

// push sends news unless the peer reads too slowly.
func (s *server) push(body []byte) {
	select {
	case s.out <- outFrame{kindNews, body}:
	default:
	}
}

func (s *server) answerAll(ctx context.Context) error {
	r := bufio.NewReader(s.stream)
	for first := true; ; first = false {
		kind, body, err := readFrame(r)
		if err != nil {
			return err
		}
		s.y.Count.Received.Add(uint64(len(body) + 3))
		if first && kind != kindHello {
			return fmt.Errorf("%w: a stream begins with a hello", errFrame)
		}
		begun := time.Now()
		reply, answer, err := s.handle(kind, body)
		if err != nil {
			return err
		}
		if reply != 0 {
			select {
			case s.out <- outFrame{reply, answer}:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := s.rest(ctx, time.Since(begun), len(body)+len(answer)); err != nil {
			return err
		}
	}
}

// rest makes the peer wait when it has cost more than its share.
func (s *server) rest(ctx context.Context, work time.Duration, n int) error {
	if err := s.cost.bytes.WaitN(ctx, n); err != nil {
		return err
	}
	return s.cost.work.WaitN(ctx, min(int(work/time.Microsecond), s.cost.work.Burst()))
}

func (s *server) handle(kind byte, body []byte) (reply byte, answer []byte, err error) {
	if kind != kindHello && kind != kindNews && kind != kindStitch {
		select {
		case <-s.asked:
		default:
			close(s.asked)
		}
	}
	switch kind {
	case kindHello:
		h, err := parseHello(body)
		if err != nil {
			return 0, nil, err
		}
		if h.network != s.y.cfg.Network {
			return 0, nil, io.EOF // not ours, no lie
		}
		s.y.met(s.peer, h)
		return kindHello, s.y.hello().encode(), nil
	case kindAsk:
		answer, err = s.compare(body)
		return kindAnswer, answer, err
	case kindWant:
		answer, err = s.give(body)
		return kindEnvelopes, answer, err
	case kindRange:
		answer, err = s.giveRange(body)
		return kindPart, answer, err
	case kindDescribe:
		answer, err = s.describeAll(body)
		return kindDescribed, answer, err
	case kindNews:
		return 0, nil, s.y.hear(s.peer, body)
	case kindStitch:
		answer = []byte{0}
		if s.y.cfg.Stitch != nil && s.y.cfg.Stitch(s.peer, stitchFor) {
			answer[0] = 1
		}
		return kindStitched, answer, nil
	}
	return 0, nil, fmt.Errorf("%w: kind %d is no question", errFrame, kind)
}

// hello says what this node is now.
func (y *History) hello() hello {
	h := hello{network: y.cfg.Network, clock: y.cfg.Now().Unix(), horizon: y.src.Horizon()}
	h.nodes, h.outside = y.island.known(time.Now())
	return h
}

// met takes what a peer says of itself.
func (y *History) met(p peer.ID, h hello) {
	y.island.merge(h, time.Now())
	y.mu.Lock()
	defer y.mu.Unlock()
	if len(y.offsets) < 4096 {
		y.offsets[p] = time.Unix(h.clock, 0).Sub(y.cfg.Now().Truncate(time.Second))
	}
}

func (s *server) compare(body []byte) (answer []byte, err error) {
	a, err := parseAsk(body)
	if err != nil {
		return nil, err
	}
	end := time.Now().Add(answerWork)
	limits := reconcile.Limits{Bytes: min(reconcile.DefaultLimit, max(minAnswer, a.most)), Stop: func() bool { return time.Now().After(end) }}
	err = s.y.src.View(a.shard, a.from, a.to, func(set reconcile.Set) error {
		answer, err = reconcile.Answer(set, a.message, limits)
		return err
	})
	return answer, err
}

func (s *server) give(body []byte) ([]byte, error) {
	w, err := parseWant(body)
	if err != nil {
		return nil, err
	}
	t, size := batch{looked: len(w.ids)}, 0
	for i, id := range w.ids {
		e, ok, err := s.y.src.Get(id)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		envelope := e.AppendEnvelope(nil)
		if size += len(envelope) + 2; size > min(w.most, s.y.batchBytes()) && len(t.envelopes) > 0 {
			t.looked = i
			break
		}
		t.envelopes = append(t.envelopes, envelope)
	}
	return t.encode(), nil
}

// batchBytes is how long a frame of envelopes may be: on a thin line short, so that what is more urgent comes between.
func (y *History) batchBytes() int {
	if y.cfg.Budget > 0 {
		return min(batchBytes, max(protocol.MaxEventSize, y.cfg.Budget))
	}
	return batchBytes
}

// giveRange answers with the newest of a range.
func (s *server) giveRange(body []byte) ([]byte, error) {
	r, err := parseRange(body)
	if err != nil {
		return nil, err
	}
	var items []reconcile.Item
	left := 0
	from, to := hours(r.low.Time, min(r.high.Time, reconcile.Infinity-hour))
	err = s.y.src.View(r.shard, from, to, func(set reconcile.Set) error {
		lo, err := set.Rank(r.low)
		if err != nil {
			return err
		}
		hi, err := set.Rank(r.high)
		if err != nil || hi <= lo {
			return err
		}
		left = max(0, hi-lo-maxRangeIDs)
		items, err = set.Items(lo+left, hi)
		return err
	})
	if err != nil {
		return nil, err
	}
	p, size := part{done: true, next: r.low}, 0
	for i := len(items) - 1; i >= 0; i-- {
		e, ok, err := s.y.src.Get(protocol.ID(items[i].ID))
		if err != nil {
			return nil, err
		}
		if !ok {
			continue // it expired, or went since
		}
		envelope := e.AppendEnvelope(nil)
		if size += len(envelope) + 2; size > min(r.most, s.y.batchBytes()) && len(p.envelopes) > 0 {
			p.done, p.next = false, reconcile.At(items[i+1])
			return p.encode(), nil
		}
		p.envelopes = append(p.envelopes, envelope)
	}
	if left > 0 {
		p.done, p.next = false, reconcile.At(items[0])
	}
	return p.encode(), nil
}

func (s *server) describeAll(body []byte) ([]byte, error) {
	ids, err := parseIDs(body)
	if err != nil {
		return nil, err
	}
	list := make([]description, len(ids))
	for i, id := range ids {
		e, ok, err := s.y.src.Get(id)
		if err != nil {
			return nil, err
		}
		list[i] = description{created: -1}
		if ok {
			list[i] = describe(e)
		}
	}
	return encodeDescriptions(list), nil
}
