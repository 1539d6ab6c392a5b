package history

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multistream"
	"golang.org/x/time/rate"

	"openline/protocol"
	"openline/protocol/reconcile"
)

// span is some hours, from to before to.
type span struct{ from, to int64 }

// clip returns what of r lies in the span: the ends of a comparison mean all that there is, which is no more than that.
func (n span) clip(r reconcile.Range) reconcile.Range {
	if low := (reconcile.Bound{Time: n.from}); r.Low.Compare(low) < 0 {
		r.Low = low
	}
	if high := (reconcile.Bound{Time: n.to}); r.High.Compare(high) > 0 {
		r.High = high
	}
	return r
}

// spans says what to compare: hours by shard.
type spans map[int]span

// everything is all shards and all times.
func everything() spans {
	all := spans{}
	for shard := range protocol.Shards {
		all[shard] = span{0, reconcile.Infinity}
	}
	return all
}

const (
	maxPending    = 64              // questions: one for each window and shard, and those for envelopes
	listenerWaits = 3 * time.Second // who was dialled leaves the first comparison to who dialled
	sessionPause  = time.Second     // between sessions with one peer
	futilePause   = 5 * time.Minute // the most after sessions that found differences and brought nothing
	reopenPause   = 5 * time.Second
	shortFor      = 10 * time.Minute // that answers stay short after a connection was cut
	firstChunk    = 2 << 10          // little, for there are lines that let 16 kB through on each connection
)

// errLie is the error of a peer that says what cannot be.
var errLie = errors.New("a peer contradicts itself")

// errStall is the error of a peer that does not answer. Once or twice the line may be full.
var errStall = errors.New("a peer does not answer")

const maxStalls = 3 // one after the other

// isLie reports whether err is the peer's fault.
func isLie(err error) bool {
	return errors.Is(err, errLie) || errors.Is(err, errFrame) || errors.Is(err, reconcile.ErrMalformed) || errors.Is(err, reconcile.ErrVersion)
}

// link asks one peer.
type link struct {
	y     *History
	peer  peer.ID
	since time.Time
	again atomic.Bool // the peer was connected once more meanwhile
	open  atomic.Bool // it answers
	kick  chan struct{}

	awaited atomic.Int32  // answers that are still to come
	news    *rate.Limiter // frames a second that are looked at

	mu       sync.Mutex // guards the fields below
	due      spans
	asked    errand // besides comparing
	notUntil time.Time

	// of run's goroutine
	pause  time.Duration // after a futile session
	thin   bool
	fresh  bool // nothing was compared yet
	chunk  int  // bytes that an answer may have on this line
	short  bool // the last connection was cut while an answer was on its way: answers stay short
	stalls int  // since a session came to its end

	last  atomic.Int64 // when a byte came, in nanoseconds since since
	bytes atomic.Int64 // that came
}

// heard returns when a byte came from the peer.
func (l *link) heard() time.Time { return l.since.Add(time.Duration(l.last.Load())) }

// progress notes when bytes come.
type progress struct {
	io.Reader
	link *link
}

func (p progress) Read(b []byte) (int, error) {
	n, err := p.Reader.Read(b)
	if n > 0 {
		p.link.last.Store(int64(time.Since(p.link.since)))
		p.link.bytes.Add(int64(n))
	}
	return n, err
}

func newLink(y *History, p peer.ID) *link {
	return &link{y: y, peer: p, since: time.Now(), kick: make(chan struct{}, 1), due: spans{}, fresh: true, chunk: firstChunk,
		news: rate.NewLimiter(rate.Every(newsEvery), 40)}
}

// look has some hours compared soon. It never blocks.
func (l *link) look(s spans) {
	l.mu.Lock()
	for shard, n := range s {
		if o, ok := l.due[shard]; ok {
			n = span{min(n.from, o.from), max(n.to, o.to)}
		}
		l.due[shard] = n
	}
	l.mu.Unlock()
	l.wake()
}

// errand is something small to ask.
type errand struct{ hello, stitch bool }

// ask has an errand done soon. It never blocks.
func (l *link) ask(e errand) {
	l.mu.Lock()
	l.asked.hello, l.asked.stitch = l.asked.hello || e.hello, l.asked.stitch || e.stitch
	l.mu.Unlock()
	l.wake()
}

func (l *link) wake() {
	select {
	case l.kick <- struct{}{}:
	default: // a look is due already
	}
}

// take returns what is due now, or how long to wait for it.
func (l *link) take() (due spans, e errand, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, l.asked = l.asked, errand{}
	if len(l.due) == 0 {
		return nil, e, time.Hour
	}
	if wait = time.Until(l.notUntil); wait > 0 {
		return nil, e, wait
	}
	due = maps.Clone(l.due)
	clear(l.due)
	return due, e, 0
}

// run opens a stream, and another one when it breaks, as long as the peer is connected.
func (l *link) run(ctx context.Context) {
	for {
		err := network.ErrNoConn
		if l.connected() {
			err = l.converse(ctx)
		}
		l.open.Store(false)
		if errors.Is(err, errStall) {
			l.stalls++
		}
		lie := isLie(err) || l.stalls >= maxStalls
		if ctx.Err() == nil && lie {
			l.y.ban(l.peer, err)
		}
		gone := ctx.Err() != nil || lie || errors.As(err, new(multistream.ErrNotSupported[string])) || !l.connected()
		if gone && l.y.ended(l) {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(reopenPause):
		}
	}
}

func (l *link) connected() bool { return l.y.host.Network().Connectedness(l.peer) == network.Connected }

// frame is what came from the peer.
type frame struct {
	kind byte
	body []byte
}

// converse works on one stream until it breaks.
func (l *link) converse(ctx context.Context) error {
	octx, cancelOpen := context.WithTimeout(ctx, answerTime)
	defer cancelOpen()
	stream, err := l.y.host.NewStream(network.WithNoDial(octx, "history only uses connections"), l.peer, ID)
	if err != nil {
		return err
	}
	defer stream.Reset()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() { _ = stream.Reset() }) // it ends whoever reads or writes
	defer stop()
	// The reader must not wait for a session that is writing, or both sides might wait for each other: there is room for
	// the answers to all questions that are ever on their way.
	answers := make(chan frame, maxPending)
	l.awaited.Store(0)
	var reader sync.WaitGroup
	reader.Go(func() { cancel(l.read(ctx, stream, answers)) })
	defer reader.Wait()
	defer cancel(nil)
	err = l.work(ctx, &asker{link: l, stream: stream, answers: answers})
	if l.awaited.Load() > 0 && ctx.Err() != nil {
		l.y.cutShort(l.peer)
	}
	if cause := context.Cause(ctx); cause != nil && !isLie(err) && !errors.Is(err, errStall) {
		return cause
	}
	return err
}

// read hands answers to whoever waits for them, and hears news.
func (l *link) read(ctx context.Context, stream network.Stream, answers chan<- frame) error {
	r := bufio.NewReader(progress{stream, l})
	for {
		kind, body, err := readFrame(r)
		if err != nil {
			return err
		}
		l.y.Count.Received.Add(uint64(len(body) + 3))
		if err := l.y.pay(ctx, len(body)); err != nil {
			return err
		}
		if kind == kindNews && !l.news.Allow() {
			continue // the next comparison finds it
		}
		if kind == kindNews {
			if err := l.y.hear(l.peer, body); err != nil {
				return err
			}
			continue
		}
		if l.awaited.Add(-1) < 0 {
			return fmt.Errorf("%w: it answers what was not asked", errLie)
		}
		select {
		case answers <- frame{kind, body}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// work greets the peer, compares everything, and then whatever becomes due.
func (l *link) work(ctx context.Context, a *asker) error {
	if err := a.greet(ctx); err != nil {
		return err
	}
	l.open.Store(true)
	if l.dialled() {
		l.look(everything())
	} else {
		defer time.AfterFunc(listenerWaits, func() {
			if !l.y.asks(l.peer) {
				l.look(everything())
			}
		}).Stop()
	}
	for {
		due, e, wait := l.take()
		if err := a.run(ctx, e); err != nil {
			return err
		}
		if due == nil {
			timer := time.NewTimer(wait)
			select {
			case <-ctx.Done():
				timer.Stop()
				return ctx.Err()
			case <-l.kick:
			case <-timer.C:
			}
			timer.Stop()
			continue
		}
		if err := l.session(ctx, a, due); err != nil {
			return err
		}
	}
}

// dialled reports whether this side opened the connection.
func (l *link) dialled() bool {
	return slices.ContainsFunc(l.y.host.Network().ConnsToPeer(l.peer), func(c network.Conn) bool {
		return c.Stat().Direction == network.DirOutbound
	})
}

// asks reports whether the peer has compared its store with this one.
func (y *History) asks(p peer.ID) bool {
	y.mu.Lock()
	s := y.served[p]
	y.mu.Unlock()
	if s == nil {
		return false
	}
	select {
	case <-s.asked:
		return true
	default:
		return false
	}
}

// session compares and fetches, one of a few at a time, and decides when the next one may be.
func (l *link) session(ctx context.Context, a *asker, due spans) error {
	slots := l.y.slots
	if l.thin {
		slots = l.y.thinSlots // those on thin lines must not keep the others waiting
	}
	select {
	case slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-slots }()
	s := newSession(a, due, l.fresh)
	defer s.release()
	err := s.run(ctx)
	l.fresh = false
	pause := sessionPause
	if s.differs && s.gained == 0 {
		l.pause = min(max(2*l.pause, 2*sessionPause), futilePause)
		pause = l.pause
	} else {
		l.pause = 0
	}
	if len(s.retry) > 0 {
		pause = max(pause, 2*sessionPause) // others are at it
	}
	l.mu.Lock()
	l.notUntil = time.Now().Add(pause)
	l.mu.Unlock()
	if len(s.retry) > 0 {
		l.look(s.retry)
	}
	if err != nil {
		return err
	}
	l.y.Count.Sessions.Add(1)
	l.stalls = 0
	if time.Since(l.since) < young && s.gained+s.given >= manyEvents {
		l.y.healed()
	}
	return nil
}

// manyEvents are those that make a new neighbour one from across a border.
const manyEvents = 8
