// Package history brings the stores of connected nodes to the same set. Gossip forgets a message within seconds; what a
// node missed in a cut, of 30 seconds or 90 days, comes through here.
//
// Each node opens a stream to each neighbour and asks on it; the other answers. Questions are negentropy messages about
// the hours of a shard, then ids or ranges to fetch. What a node gained it does not flood again: it tells its neighbours
// that it has news, they look whether it is news to them, and fetch it. So it spreads from hop to hop.
//
// It refuses peers of other networks, drops those that lie or stall, and serves each only so fast; memory and time that
// a peer can cost are bounded. What a censor who runs a neighbour learns: which events this node lacks and holds, which
// is what everybody holds; on a thin line also groups of 256 in which there is something that the user follows.
package history

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	libp2p "github.com/libp2p/go-libp2p/core/protocol"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"openline/protocol"
	"openline/protocol/reconcile"
)

// ID is the name of the protocol.
const ID libp2p.ID = "/openline/history/1"

// Source is what history reads and fills.
type Source interface {
	// View shows what is held of a shard, created in the hours from `from` to before `to`; nothing below the horizon.
	View(shard int, from, to int64, view func(reconcile.Set) error) error
	Has(id protocol.ID) (bool, error)
	Get(id protocol.ID) (e protocol.Event, ok bool, err error)
	Horizon() int64 // Unix seconds

	// Accept takes one envelope through the one door. The error is a *protocol.Rejection or this node's own trouble.
	Accept(ctx context.Context, envelope []byte) (protocol.Event, error)
}

// Config holds what differs between nodes, and who is told what.
type Config struct {
	Network string
	Now     func() time.Time // the clock that is stated to peers; nil: time.Now
	Log     *slog.Logger     // nil discards

	// Budget is how many bytes a second history may send and receive, 0: as many as go through. Under 16 kB, or when the
	// line turns out to carry no more than that, it is a thin line.
	Budget int

	Follows func() *Follows // what comes first on a thin line; nil: nothing

	// Compared, unless nil, is told what was compared with a peer: of everything that this node held of a shard at the
	// time `at`, created in the hours from `from` to before `to`, the peer holds all for which lacks is false.
	Compared func(c Comparison)

	// Stitch, unless nil, makes the peer one to which everything is flooded for so long; false: no room.
	Stitch func(p peer.ID, d time.Duration) bool
}

// Comparison is what Config.Compared is told.
type Comparison struct {
	Peer     peer.ID
	Shard    int
	From, To int64
	At       time.Time
	Lacks    func(id protocol.ID, created int64) bool
}

const (
	sessionsAtOnce = 3                // more would fetch the same from several
	newsEvery      = time.Second / 4  // what was gained meanwhile is one piece of news
	quietAfter     = 2 * time.Second  // nothing more is flooded after the last that was; more than a flood takes
	toldOfFloods   = 3                // neighbours
	greetEvery     = 20 * time.Second // between hellos with a random peer
	checkEvery     = 3                // hellos go together with a comparison
	answerTime     = 20 * time.Second // a peer of whom not a byte comes for so long stalls
	writeTime      = 5 * time.Minute  // for a frame: thin lines take long, and dead ones end with their connection
	banTime        = 30 * time.Minute
	refusedKept    = 1 << 16 // ids
	refusedTime    = 30 * time.Minute
	thinLine       = 16 << 10 // bytes a second
)

// History is one node's part.
type History struct {
	host      host.Host
	src       Source
	cfg       Config
	island    island
	slots     chan struct{} // one for each session
	thinSlots chan struct{} // the same over thin lines
	budget    *rate.Limiter // nil without a budget
	wake      chan struct{}
	Count     Count

	mu      sync.Mutex // guards the fields below
	closed  bool
	waiting []peer.ID // connected and not yet looked at
	links   map[peer.ID]*link
	served  map[peer.ID]*server
	costs   map[peer.ID]*cost
	cuts    map[peer.ID]time.Time // until when answers of those stay short whose connection was cut
	banned  map[peer.ID]time.Time
	claimed map[protocol.ID]struct{} // being fetched
	bulk    [protocol.Shards]bool    // a range of this shard is being fetched
	refused map[protocol.ID]time.Time
	naming  [protocol.Shards]time.Time // until when nothing of a shard is fetched without knowing its id
	gained  [protocol.Shards]span      // since the last news; an empty one for nothing
	flooded [protocol.Shards]span      // since the shard was quiet
	busy    [protocol.Shards]time.Time // when something was flooded last
	offsets map[peer.ID]time.Duration
	healing time.Time // until when the mesh is stitched together
	serving sync.WaitGroup
}

// New prepares a node's history. Nothing happens before Run.
func New(h host.Host, src Source, cfg Config) *History {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	y := &History{host: h, src: src, cfg: cfg, slots: make(chan struct{}, sessionsAtOnce),
		thinSlots: make(chan struct{}, sessionsAtOnce), wake: make(chan struct{}, 1),
		links: map[peer.ID]*link{}, served: map[peer.ID]*server{}, costs: map[peer.ID]*cost{}, cuts: map[peer.ID]time.Time{}, banned: map[peer.ID]time.Time{},
		claimed: map[protocol.ID]struct{}{}, refused: map[protocol.ID]time.Time{}, offsets: map[peer.ID]time.Duration{}}
	y.island = island{self: rand.Uint64(), alive: map[uint64]time.Time{}}
	if cfg.Budget > 0 {
		y.budget = rate.NewLimiter(rate.Limit(cfg.Budget), max(cfg.Budget, maxFrame))
	}
	return y
}

// Run serves and asks until ctx ends, and returns nil then. Its goroutines have ended when it returns.
func (y *History) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	y.host.SetStreamHandler(ID, func(s network.Stream) { y.serve(ctx, s) })
	notify := &network.NotifyBundle{ConnectedF: func(_ network.Network, c network.Conn) { y.arrive(c.RemotePeer()) }}
	y.host.Network().Notify(notify)
	for _, p := range y.host.Network().Peers() {
		y.arrive(p)
	}
	y.manage(ctx, g)
	y.host.Network().StopNotify(notify)
	y.host.RemoveStreamHandler(ID)
	y.mu.Lock()
	y.closed = true
	y.mu.Unlock()
	y.serving.Wait()
	return g.Wait()
}

// arrive notes a connected peer. It never blocks.
func (y *History) arrive(p peer.ID) {
	y.mu.Lock()
	if len(y.waiting) < 4096 {
		y.waiting = append(y.waiting, p)
	}
	y.mu.Unlock()
	select {
	case y.wake <- struct{}{}:
	default: // a look is due already
	}
}

// manage starts a link for each new peer, spreads news, and now and then has a random peer compared with.
func (y *History) manage(ctx context.Context, g *errgroup.Group) {
	tell, check, stitch := time.NewTicker(newsEvery), time.NewTicker(greetEvery), time.NewTicker(stitchEvery)
	defer tell.Stop()
	defer check.Stop()
	defer stitch.Stop()
	for n := 1; ; {
		select {
		case <-ctx.Done():
			return
		case <-y.wake:
			y.greet(ctx, g)
		case <-tell.C:
			y.tell()
		case <-check.C:
			y.checkSome(n%checkEvery == 0)
			n++
		case <-stitch.C:
			y.stitchSome()
		}
	}
}

// greet starts links to the peers that have arrived.
func (y *History) greet(ctx context.Context, g *errgroup.Group) {
	y.mu.Lock()
	defer y.mu.Unlock()
	for _, p := range y.waiting {
		if l := y.links[p]; l != nil {
			l.again.Store(true) // it may be about to end with the connection before
			continue
		}
		if time.Now().Before(y.banned[p]) {
			continue
		}
		l := newLink(y, p)
		l.short = time.Now().Before(y.cuts[p])
		y.links[p] = l
		g.Go(func() error {
			l.run(ctx)
			return nil
		})
	}
	y.waiting = nil
}

// ended forgets a link. It returns false when the peer has come again and the link must go on.
func (y *History) ended(l *link) bool {
	y.mu.Lock()
	defer y.mu.Unlock()
	if l.again.Swap(false) && !time.Now().Before(y.banned[l.peer]) {
		return false
	}
	delete(y.links, l.peer)
	delete(y.offsets, l.peer)
	return true
}

// cutShort notes that a connection ended while an answer was on its way. There are censors who let so many bytes through
// on each: short answers arrive even so.
func (y *History) cutShort(p peer.ID) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.cuts[p] = time.Now().Add(shortFor)
}

// checkSome greets a random peer, or compares everything with it, and forgets what is over.
func (y *History) checkSome(all bool) {
	if links := y.ready(); len(links) > 0 {
		l := links[rand.IntN(len(links))]
		if all {
			l.look(everything())
		} else {
			l.ask(errand{hello: true})
		}
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	now := time.Now()
	for p, until := range y.banned {
		if now.After(until) {
			delete(y.banned, p)
		}
	}
	for p, c := range y.costs {
		if y.served[p] == nil && c.paid() {
			delete(y.costs, p)
		}
	}
	for p, until := range y.cuts {
		if now.After(until) {
			delete(y.cuts, p)
		}
	}
	for p := range y.offsets {
		if y.links[p] == nil {
			delete(y.offsets, p)
		}
	}
	for id, until := range y.refused {
		if now.After(until) {
			delete(y.refused, id)
		}
	}
}

// Check has up to n random peers compared with now: a user waits for what it shows.
func (y *History) Check(n int) {
	links := y.ready()
	rand.Shuffle(len(links), func(i, j int) { links[i], links[j] = links[j], links[i] })
	for _, l := range links[:min(n, len(links))] {
		l.look(everything())
	}
}

// ready returns the links whose peers answer.
func (y *History) ready() []*link {
	y.mu.Lock()
	defer y.mu.Unlock()
	var list []*link
	for _, l := range y.links {
		if l.open.Load() {
			list = append(list, l)
		}
	}
	return list
}

// ban drops a peer that lies or stalls.
func (y *History) ban(p peer.ID, why error) {
	y.Count.Dropped.Add(1)
	y.cfg.Log.Warn("a peer's history is not to be trusted", "error", why)
	y.mu.Lock()
	y.banned[p] = time.Now().Add(banTime)
	s := y.served[p]
	y.mu.Unlock()
	if s != nil {
		_ = s.stream.Reset() // it may be gone
	}
}

// claim returns those of the ids that are lacking and that nobody else fetches, and reserves them.
func (y *History) claim(ids []protocol.ID) (mine, others []protocol.ID, err error) {
	for _, id := range ids {
		has, err := y.src.Has(id)
		if err != nil {
			return nil, nil, err
		}
		if has {
			continue
		}
		y.mu.Lock()
		_, taken := y.claimed[id]
		_, refused := y.refused[id]
		switch {
		case refused:
		case taken:
			others = append(others, id)
		default:
			y.claimed[id] = struct{}{}
			mine = append(mine, id)
		}
		y.mu.Unlock()
	}
	return mine, others, nil
}

func (y *History) release(ids []protocol.ID) {
	y.mu.Lock()
	defer y.mu.Unlock()
	for _, id := range ids {
		delete(y.claimed, id)
	}
}

// refuse remembers not to fetch ids again soon. When there are too many, some are forgotten.
func (y *History) refuse(ids []protocol.ID) {
	y.mu.Lock()
	defer y.mu.Unlock()
	for _, id := range ids {
		y.refused[id] = time.Now().Add(refusedTime)
	}
	for id := range y.refused {
		if len(y.refused) <= refusedKept {
			break
		}
		delete(y.refused, id)
	}
}

// nameIDs ends the fetching of ranges in a shard for a while: something in them was refused, and would be fetched again
// and again. Of ids it is remembered.
func (y *History) nameIDs(shard int) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.naming[shard] = time.Now().Add(refusedTime)
}

func (y *History) namesIDs(shard int) bool {
	y.mu.Lock()
	defer y.mu.Unlock()
	return time.Now().Before(y.naming[shard])
}

// claimBulk reserves the ranges of a shard.
func (y *History) claimBulk(shard int) bool {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.bulk[shard] {
		return false
	}
	y.bulk[shard] = true
	return true
}

func (y *History) releaseBulk(shard int) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.bulk[shard] = false
}

// pay waits until the budget allows n bytes.
func (y *History) pay(ctx context.Context, n int) error {
	if y.budget == nil {
		return nil
	}
	return y.budget.WaitN(ctx, min(n, y.budget.Burst()))
}
