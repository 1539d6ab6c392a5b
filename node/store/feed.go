package store

import (
	"sync"
	"sync/atomic"

	"openline/protocol"
)

// maxLag is how many new events a follower may be behind. Whoever is further behind is cut off with ErrLagged: that is
// the most that the slowest of them makes the node remember.
const maxLag = 8192

// entry is a new event on its way to the followers. Seq is 0 for events that are passed on and not stored.
type entry struct {
	seq   uint64
	event protocol.Event
}

// feed hands new events to followers: a chain of links to which the writer appends, in constant time however many
// followers walk along it.
type feed struct {
	mu        sync.Mutex // guards the fields below
	last      *link
	first     *link // links before this one are cut off: they are too far behind, or nobody stands there
	followers int
}

// link is immutable but for next, which is set once and is taken away again when the link is too far behind, so that
// a follower who sticks in a callback holds one link in memory and not all that follow.
type link struct {
	entries []entry
	end     uint64 // entries up to and with this link
	ready   chan struct{}
	next    atomic.Pointer[link] // set before ready is closed
}

func newFeed() *feed {
	l := &link{ready: make(chan struct{})}
	return &feed{first: l, last: l}
}

// publish gives entries to everybody who joined before.
func (f *feed) publish(entries []entry) {
	if len(entries) == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	l := &link{entries: entries, end: f.last.end + uint64(len(entries)), ready: make(chan struct{})}
	f.last.next.Store(l)
	close(f.last.ready)
	f.last = l
	if f.followers == 0 {
		f.first = l
	}
	for l.end-f.first.end > maxLag && f.first != l {
		next := f.first.next.Load()
		f.first.next.Store(nil)
		f.first = next
	}
}

// join returns the link behind which everything is new.
func (f *feed) join() *link {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.followers++
	return f.last
}

// leave must follow every join.
func (f *feed) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.followers--; f.followers == 0 {
		f.first = f.last
	}
}
