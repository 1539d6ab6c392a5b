package history

import (
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"openline/protocol"
	"openline/protocol/reconcile"
)

const (
	hour = 3600 // seconds

	// After many peers came at once, as when a border opens, both sides' meshes are full and would stay apart: each side
	// makes one random new neighbour a direct one for a while, and another one after that.
	stitchEvery  = 20 * time.Second
	stitchFor    = time.Minute
	healingTime  = 4 * time.Minute
	manyArrivals = 3
	young        = 45 * time.Second // of a link
)

// hours rounds times to whole hours.
func hours(first, last int64) (from, to int64) { return first / hour * hour, last/hour*hour + hour }

// gain notes that an event came.
func (y *History) gain(e protocol.Event) {
	y.Count.Recovered.Add(1)
	y.mu.Lock()
	defer y.mu.Unlock()
	y.gained[e.Shard()].cover(hours(e.CreatedAt(), e.CreatedAt()))
}

// Flooded notes that an event came or went by the mesh, which may have lost another one beside it: when a shard has been
// quiet for a moment after that, the neighbours are told what is here.
func (y *History) Flooded(e protocol.Event) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.flooded[e.Shard()].cover(hours(e.CreatedAt(), e.CreatedAt()))
	y.busy[e.Shard()] = time.Now()
}

// cover widens a span, an empty one to just this.
func (s *span) cover(from, to int64) {
	if s.to != 0 {
		from, to = min(s.from, from), max(s.to, to)
	}
	*s = span{from, to}
}

// tell tells all neighbours what this node gained, also whoever brought it: so it learns that it is held here. Of what
// was flooded a few hear: those who miss something tell, too.
func (y *History) tell() {
	y.mu.Lock()
	gained, quiet := y.gained, [protocol.Shards]span{}
	y.gained = [protocol.Shards]span{}
	for shard, f := range y.flooded {
		if f.to != 0 && time.Since(y.busy[shard]) >= quietAfter {
			quiet[shard], y.flooded[shard] = f, span{}
		}
	}
	y.mu.Unlock()
	y.spread(gained, math.MaxInt)
	y.spread(quiet, toldOfFloods)
}

// spread tells up to most neighbours, at random, what this node has in some hours.
func (y *History) spread(hours [protocol.Shards]span, most int) {
	var all []news
	for shard, h := range hours {
		if h.to == 0 {
			continue
		}
		n, err := y.summary(shard, h.from, h.to)
		if err != nil {
			y.cfg.Log.Error("the events of some hours cannot be read", "error", err)
			continue
		}
		all = append(all, n)
	}
	if len(all) == 0 {
		return
	}
	y.mu.Lock()
	servers := slices.Collect(maps.Values(y.served))
	y.mu.Unlock()
	rand.Shuffle(len(servers), func(i, j int) { servers[i], servers[j] = servers[j], servers[i] })
	for _, s := range servers[:min(most, len(servers))] {
		s.push(encodeNews(all))
	}
}

func (y *History) summary(shard int, from, to int64) (n news, err error) {
	n = news{shard: shard, from: from, to: to}
	err = y.src.View(shard, from, to, func(set reconcile.Set) error {
		sum, err := set.Sum(0, set.Len())
		n.fingerprint = sum.Fingerprint(set.Len())
		return err
	})
	return n, err
}

// hear looks whether what a peer has is news here.
func (y *History) hear(from peer.ID, body []byte) error {
	list, err := parseNews(body)
	if err != nil {
		return err
	}
	y.mu.Lock()
	l := y.links[from]
	y.mu.Unlock()
	for _, n := range list {
		if n.to <= y.src.Horizon() {
			continue // the peer keeps more than this node
		}
		at := time.Now()
		ours, err := y.summary(n.shard, n.from, n.to)
		if err != nil {
			return err
		}
		if ours.fingerprint == n.fingerprint {
			y.compared(from, n.shard, n.from, n.to, at, nil, nil)
		} else if l != nil {
			l.look(spans{n.shard: {n.from, n.to}})
		}
	}
	return nil
}

// compared tells the node what the peer holds: all of a shard's hours but for what it lacks.
func (y *History) compared(p peer.ID, shard int, from, to int64, at time.Time, lacks map[protocol.ID]bool, all []reconcile.Range) {
	if y.cfg.Compared == nil {
		return
	}
	y.cfg.Compared(Comparison{Peer: p, Shard: shard, From: max(from, y.src.Horizon()), To: to, At: at,
		Lacks: func(id protocol.ID, created int64) bool {
			if lacks[id] {
				return true
			}
			for _, r := range all {
				if r.Contains(reconcile.Item{Time: created, ID: reconcile.ID(id)}) {
					return true
				}
			}
			return false
		}})
}

// healed is called when a session with a new neighbour brought or gave something: perhaps a border opened.
func (y *History) healed() {
	if y.cfg.Stitch == nil || len(y.newcomers()) < manyArrivals {
		return
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.healing.Before(time.Now()) {
		y.healing = time.Now().Add(healingTime)
	}
}

// newcomers returns the links that came up lately, or since the mesh is being stitched together.
func (y *History) newcomers() []*link {
	y.mu.Lock()
	since := time.Now().Add(-young)
	if time.Now().Before(y.healing) {
		since = y.healing.Add(-healingTime - young)
	}
	y.mu.Unlock()
	var list []*link
	for _, l := range y.ready() {
		if l.since.After(since) && l.connected() {
			list = append(list, l)
		}
	}
	return list
}

// stitchSome makes one more newcomer a direct neighbour while the mesh heals.
func (y *History) stitchSome() {
	y.mu.Lock()
	healing := time.Now().Before(y.healing)
	y.mu.Unlock()
	if !healing {
		return
	}
	if list := y.newcomers(); len(list) > 0 {
		list[rand.IntN(len(list))].ask(errand{stitch: true})
	}
}
