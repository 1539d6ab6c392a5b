package history

import (
	"cmp"
	"math"
	"slices"
	"sync"
	"time"
)

// nodeLife is how long a node that nobody heard of still counts.
const nodeLife = 15 * time.Minute

// node is one of the island: a random number that it drew at its start, and for how many seconds nobody heard of it.
type node struct {
	tag uint64
	age uint64
}

// island knows how many nodes reach each other, directly or over others: of the random numbers of all, neighbours pass on
// the 64 smallest. Up to 64 nodes are counted; of more the 64th smallest number tells how many there are, give or take
// an eighth (a bottom-k sketch: Beyer et al., SIGMOD 2007). Nobody learns from it who they are.
type island struct {
	self uint64

	mu      sync.Mutex // guards the fields below
	alive   map[uint64]time.Time
	outside time.Time // when anything from outside was last heard, here or by a neighbour; zero: never
}

// merge takes what a neighbour says, at the time now.
func (i *island) merge(h hello, now time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, n := range h.nodes {
		at := now.Add(-time.Duration(min(n.age, 1<<30)) * time.Second)
		if n.tag != i.self && now.Sub(at) < nodeLife && at.After(i.alive[n.tag]) {
			i.alive[n.tag] = at
		}
	}
	i.prune(now)
	if h.outside > 0 {
		i.hear(now.Add(-time.Duration(min(h.outside-1, 1<<30)) * time.Second))
	}
}

// hear notes that something came from outside. i.mu is held.
func (i *island) hear(at time.Time) {
	if at.After(i.outside) {
		i.outside = at
	}
}

// prune forgets the dead, and all but the 64 smallest. i.mu is held.
func (i *island) prune(now time.Time) []node {
	list := make([]node, 0, len(i.alive)+1)
	for tag, at := range i.alive {
		if now.Sub(at) >= nodeLife {
			delete(i.alive, tag)
			continue
		}
		// Rounded up: else two nodes would tell each other a dead one alive for ever.
		list = append(list, node{tag, uint64((max(0, now.Sub(at)) + time.Second - 1) / time.Second)})
	}
	list = append(list, node{tag: i.self})
	slices.SortFunc(list, func(a, b node) int { return cmp.Compare(a.tag, b.tag) })
	for _, n := range list[min(len(list), maxNodes):] {
		delete(i.alive, n.tag)
	}
	return list[:min(len(list), maxNodes)]
}

// known returns what a neighbour is told.
func (i *island) known(now time.Time) (nodes []node, outside uint64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.outside.IsZero() {
		outside = uint64(max(0, now.Sub(i.outside))/time.Second) + 1
	}
	return i.prune(now), outside
}

// size estimates the number of nodes, this one included.
func (i *island) size(now time.Time) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	list := i.prune(now)
	if len(list) < maxNodes {
		return len(list)
	}
	return int(float64(maxNodes-1) / (float64(list[maxNodes-1].tag) / math.MaxUint64))
}

func (i *island) lastOutside() time.Time {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.outside
}
