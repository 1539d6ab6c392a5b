package history

import (
	"slices"
	"sync/atomic"
	"time"
)

// Count counts what history did since New.
type Count struct {
	Sessions  atomic.Uint64 // comparisons that came to their end
	Recovered atomic.Uint64 // events that came through history and were new
	Refused   atomic.Uint64 // events that the door did not take
	Sent      atomic.Uint64 // bytes
	Received  atomic.Uint64 // bytes
	Dropped   atomic.Uint64 // peers that lied or stalled
}

// Links returns the number of peers with whom history is exchanged.
func (y *History) Links() int { return len(y.ready()) }

// Island estimates how many nodes reach each other, this one included.
func (y *History) Island() int { return y.island.size(time.Now()) }

// Outside returns when this node or a neighbour last heard from outside the local networks; zero: never.
func (y *History) Outside() time.Time { return y.island.lastOutside() }

// HeardOutside notes that something came from outside the local networks.
func (y *History) HeardOutside(at time.Time) {
	y.island.mu.Lock()
	defer y.island.mu.Unlock()
	y.island.hear(at)
}

// ClockOffset returns by how much the clocks of the peers are ahead of this node's, in the middle, and of how many.
func (y *History) ClockOffset() (offset time.Duration, peers int) {
	y.mu.Lock()
	defer y.mu.Unlock()
	var all []time.Duration
	for _, o := range y.offsets {
		all = append(all, o)
	}
	if len(all) == 0 {
		return 0, 0
	}
	slices.Sort(all)
	return all[len(all)/2], len(all)
}
