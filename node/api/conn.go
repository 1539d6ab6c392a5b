package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/time/rate"

	"openline/protocol"
	"openline/protocol/reconcile"
)

const (
	outQueue     = 256              // frames to a client; when full, whoever has more to send waits
	pingEvery    = 30 * time.Second // a client that answers none of two is gone
	farewellTime = time.Second      // for the last words to a client that may not listen any more
)

// errSlow is why a connection ends whose client does not read.
var errSlow = errors.New("reading too slowly")

// conn is one Nostr client. The goroutine of its HTTP request reads, one more writes, and each subscription and each
// event under way has one; all of them end with ctx, and serve waits for them.
type conn struct {
	*Server
	ws     *websocket.Conn
	out    chan []byte
	rate   *rate.Limiter // of EVENT and REQ
	slots  chan struct{} // one for each event under way
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup

	sets map[string]reconcile.Set // of NIP-77; the reading goroutine's own

	mu   sync.Mutex // guards subs
	subs map[string]*subscription
}

// subscription is a REQ that was not closed yet.
type subscription struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// websocket serves one client until it leaves, or the server stops.
func (s *Server) websocket(w http.ResponseWriter, r *http.Request) {
	address := hostName(r.RemoteAddr)
	if err := s.admit(address); err != nil {
		s.metrics.refused.WithLabelValues("limit").Inc()
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	s.conns.Add(1)
	defer s.conns.Done()
	defer s.release(address)
	ws, err := s.upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // Upgrade has answered
	}
	defer ws.Close()
	l := s.cfg.Limits
	c := &conn{Server: s, ws: ws, out: make(chan []byte, outQueue), subs: map[string]*subscription{}, sets: map[string]reconcile.Set{},
		rate: rate.NewLimiter(rate.Limit(l.MessagesPerSecond), l.MessagesBurst), slots: make(chan struct{}, l.InFlight)}
	c.serve(r.Context())
}

func (c *conn) serve(ctx context.Context) {
	ctx, c.cancel = context.WithCancelCause(ctx)
	c.wg.Go(func() { c.write(ctx) })
	err := c.read(ctx)
	c.cancel(err)
	c.wg.Wait()
}

// read takes messages until the client leaves. ctx's end closes the connection (see write), and with it ends this.
func (c *conn) read(ctx context.Context) error {
	c.ws.SetReadLimit(c.cfg.Limits.MessageBytes)
	alive := func(string) error {
		return c.ws.SetReadDeadline(time.Now().Add(2*pingEvery + c.cfg.Limits.WriteTimeout))
	}
	c.ws.SetPongHandler(alive)
	_ = alive("") // fails only when the connection is gone, as ReadMessage says then
	for {
		kind, raw, err := c.ws.ReadMessage()
		if err != nil {
			return err
		}
		_ = alive("")
		if kind != websocket.TextMessage {
			c.notice(ctx, "this relay speaks text, not binary messages")
			continue
		}
		c.handle(ctx, raw)
	}
}

func (c *conn) handle(ctx context.Context, raw []byte) {
	m, err := parseMessage(raw)
	if err != nil {
		c.notice(ctx, err.Error())
		return
	}
	switch m.verb {
	case "EVENT":
		c.event(ctx, m.event)
	case "REQ":
		c.request(ctx, m)
	case "CLOSE":
		c.end(m.sub)
	default:
		c.negentropy(ctx, m)
	}
}

// event publishes in a goroutine of its own, so that the store commits many events of one client at once. OKs come in
// any order.
func (c *conn) event(ctx context.Context, raw []byte) {
	if err := c.overRate(); err != nil {
		c.metrics.events.WithLabelValues("rate").Inc()
		c.answer(ctx, raw, Receipt{}, err)
		return
	}
	select {
	case c.slots <- struct{}{}:
	case <-ctx.Done():
		return
	}
	c.wg.Go(func() {
		defer func() { <-c.slots }()
		// a client that leaves before its OK has posted all the same
		r, err := c.cfg.Backend.Publish(context.WithoutCancel(ctx), raw)
		c.metrics.events.WithLabelValues(verdict(err)).Inc()
		c.answer(ctx, raw, r, err)
	})
}

// overRate takes a message from the client's share; the *protocol.Rejection says that there is none left.
func (c *conn) overRate() error {
	if c.rate.Allow() {
		return nil
	}
	return protocol.Reject(protocol.Busy, "too many messages; %.0f a second are the most", c.cfg.Limits.MessagesPerSecond)
}

// allow is overRate for messages that are refused in words of NIP-01.
func (c *conn) allow() error {
	if err := c.overRate(); err != nil {
		return fmt.Errorf("%s: %w", okPrefix(protocol.Busy), err)
	}
	return nil
}

// answer sends OK, or a NOTICE when the event does not even say its id.
func (c *conn) answer(ctx context.Context, raw []byte, r Receipt, err error) {
	ok, reason := okReason(r, err)
	id, known := r.ID, r.ID != ""
	if !known {
		id, known = claimedID(raw)
	}
	if !known {
		c.notice(ctx, reason)
		return
	}
	c.send(ctx, frame("OK", id, ok, reason))
}

func (c *conn) notice(ctx context.Context, text string) { c.send(ctx, frame("NOTICE", text)) }

// request starts a subscription; one with the same id is replaced, as NIP-01 asks.
func (c *conn) request(ctx context.Context, m message) {
	c.end(m.sub)
	filters, err := parseFilters(m.filters, c.cfg.Limits.Filters)
	if err == nil {
		err = c.allow()
	}
	if err != nil {
		c.send(ctx, frame("CLOSED", m.sub, err.Error()))
		return
	}
	c.mu.Lock()
	full := len(c.subs) >= c.cfg.Limits.Subscriptions
	sctx, cancel := context.WithCancel(ctx)
	sub := &subscription{cancel: cancel, done: make(chan struct{})}
	if !full {
		c.subs[m.sub] = sub
	}
	c.mu.Unlock()
	if full {
		cancel()
		c.send(ctx, frame("CLOSED", m.sub, "rate-limited: too many subscriptions; close one first"))
		return
	}
	c.metrics.subscriptions.Inc()
	c.wg.Go(func() {
		defer close(sub.done)
		defer c.metrics.subscriptions.Dec()
		c.follow(sctx, m.sub, filters)
		if ctx.Err() == nil { // else farewell says CLOSED to those that were open
			c.forget(m.sub, sub)
		}
		cancel()
	})
}

// end closes a subscription and waits for its last event, so that none follows its successor's first.
func (c *conn) end(id string) {
	c.mu.Lock()
	sub := c.subs[id]
	delete(c.subs, id)
	c.mu.Unlock()
	if sub != nil {
		sub.cancel()
		<-sub.done
	}
}

func (c *conn) forget(id string, sub *subscription) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.subs[id] == sub {
		delete(c.subs, id)
	}
}

// follow sends what is stored, EOSE, and what comes.
func (c *conn) follow(ctx context.Context, id string, filters []protocol.Filter) {
	head := frame("EVENT", id)
	head[len(head)-1] = ',' // the event follows instead of the end of the array
	emit := func(e protocol.Event) bool {
		b := e.AppendJSON(append(make([]byte, 0, len(head)+512), head...))
		c.metrics.sent.Inc()
		return c.send(ctx, append(b, ']'))
	}
	err := c.cfg.Backend.Follow(ctx, filters, c.cfg.Limits.StoredPerFilter, emit,
		func() bool { return c.send(ctx, frame("EOSE", id)) })
	switch {
	case ctx.Err() != nil || err == nil:
	case errors.Is(err, ErrLagged):
		c.cancel(errSlow)
	default:
		c.send(ctx, frame("CLOSED", id, "error: the subscription ended; ask again"))
	}
}

// send queues a frame; while the queue is full it waits. It returns false when ctx has ended.
func (c *conn) send(ctx context.Context, frame []byte) bool {
	select {
	case c.out <- frame:
		return true
	case <-ctx.Done():
		return false
	}
}

// write is the one goroutine that writes. At the end it says why, if anybody listens, and closes the connection.
func (c *conn) write(ctx context.Context) {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	defer c.ws.Close()
	for {
		var err error
		select {
		case f := <-c.out:
			err = c.flush(f)
		case <-tick.C:
			err = c.ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(c.cfg.Limits.WriteTimeout))
		case <-ctx.Done():
			c.farewell(context.Cause(ctx))
			return
		}
		if err != nil {
			if t, ok := errors.AsType[interface {
				error
				Timeout() bool
			}](err); ok && t.Timeout() {
				c.metrics.cutOff.Inc()
			}
			c.cancel(err)
			return
		}
	}
}

// flush writes f and whatever else waits, in as few system calls as it fits into.
func (c *conn) flush(f []byte) error {
	if err := c.ws.SetWriteDeadline(time.Now().Add(c.cfg.Limits.WriteTimeout)); err != nil {
		return err
	}
	cork, ok := c.ws.NetConn().(*corkConn)
	if !ok || len(c.out) == 0 {
		return c.ws.WriteMessage(websocket.TextMessage, f)
	}
	cork.cork()
	for {
		if err := c.ws.WriteMessage(websocket.TextMessage, f); err != nil {
			return err
		}
		select {
		case f = <-c.out:
		default:
			return cork.uncork()
		}
	}
}

// farewell sends what is queued and tells the client why the connection ends.
func (c *conn) farewell(why error) {
	end := time.Now().Add(farewellTime)
	_ = c.ws.SetWriteDeadline(end)
	code, text := websocket.CloseGoingAway, "the node stops"
	var last [][]byte
	switch {
	case errors.Is(why, errSlow):
		c.metrics.cutOff.Inc()
		code, text = websocket.ClosePolicyViolation, errSlow.Error()
		for _, id := range c.subscribed() {
			last = append(last, frame("CLOSED", id, "error: "+errSlow.Error()))
		}
	case errors.Is(why, websocket.ErrReadLimit):
		code, text = websocket.CloseMessageTooBig, "the message is too long"
	}
	for range len(c.out) {
		if c.ws.WriteMessage(websocket.TextMessage, <-c.out) != nil {
			return // nobody listens
		}
	}
	for _, f := range last {
		if c.ws.WriteMessage(websocket.TextMessage, f) != nil {
			return
		}
	}
	_ = c.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, text), end)
}

func (c *conn) subscribed() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var ids []string
	for id := range c.subs {
		ids = append(ids, id)
	}
	return ids
}
