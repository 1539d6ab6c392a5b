package mesh

import (
	"sync"
	"sync/atomic"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"google.golang.org/protobuf/proto"

	ours "openline/protocol"
)

// Count counts what pubsub tells nobody else: all its losses are silent.
type Count struct {
	Delivered  atomic.Uint64 // messages accepted
	Duplicates atomic.Uint64
	Rejected   atomic.Uint64 // messages whose sender was penalised
	Ignored    atomic.Uint64
	Throttled  atomic.Uint64 // messages over a link's budget; counted in Ignored too
	Dropped    atomic.Uint64 // RPCs and messages lost to a full queue
	SentBytes  atomic.Uint64 // of RPCs
}

// links follows which peers are in the mesh, and counts. The library calls it from several goroutines.
type links struct {
	count   Count
	shards  map[string]int
	grafted func()
	gone    func(peer.ID)
	holds   func(messageID string, by peer.ID)

	mu   sync.Mutex // guards mesh
	mesh [ours.Shards]map[peer.ID]struct{}
}

var _ pubsub.RawTracer = (*links)(nil)

func newLinks(shards map[string]int, cfg Config, gone func(peer.ID)) *links {
	l := &links{shards: shards, grafted: cfg.Grafted, holds: cfg.Holds, gone: gone}
	for i := range l.mesh {
		l.mesh[i] = map[peer.ID]struct{}{}
	}
	return l
}

func (l *links) in(shard int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.mesh[shard])
}

func (l *links) peers() map[peer.ID]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := map[peer.ID]bool{}
	for _, m := range l.mesh {
		for p := range m {
			all[p] = true
		}
	}
	return all
}

func (l *links) Graft(p peer.ID, topic string) {
	shard, ok := l.shards[topic]
	if !ok {
		return
	}
	l.mu.Lock()
	l.mesh[shard][p] = struct{}{}
	l.mu.Unlock()
	if l.grafted != nil {
		l.grafted()
	}
}

func (l *links) Prune(p peer.ID, topic string) {
	if shard, ok := l.shards[topic]; ok {
		l.mu.Lock()
		delete(l.mesh[shard], p)
		l.mu.Unlock()
	}
}

// OnClosedOutboundStream: the library does not prune a peer that is gone.
func (l *links) OnClosedOutboundStream(p peer.ID) {
	l.mu.Lock()
	for _, m := range l.mesh {
		delete(m, p)
	}
	l.mu.Unlock()
	l.gone(p)
}

func (l *links) RejectMessage(_ *pubsub.Message, reason string) {
	switch reason {
	case pubsub.RejectValidationFailed:
		l.count.Rejected.Add(1)
	case pubsub.RejectValidationIgnored:
		l.count.Ignored.Add(1)
	case pubsub.RejectValidationQueueFull, pubsub.RejectValidationThrottled:
		l.count.Dropped.Add(1)
	}
}

func (l *links) DeliverMessage(*pubsub.Message) { l.count.Delivered.Add(1) }
func (l *links) DropRPC(*pubsub.RPC, peer.ID)   { l.count.Dropped.Add(1) }
func (l *links) SendRPC(rpc *pubsub.RPC, _ peer.ID) {
	l.count.SentBytes.Add(uint64(proto.Size(&rpc.RPC)))
}
func (l *links) UndeliverableMessage(*pubsub.Message)                 { l.count.Dropped.Add(1) }
func (l *links) OnNewOutboundStream(peer.ID, protocol.ID)             {}
func (l *links) Join(string)                                          {}
func (l *links) Leave(string)                                         {}
func (l *links) ValidateMessage(*pubsub.Message)                      {}
func (l *links) ThrottlePeer(peer.ID)                                 {}
func (l *links) RecvRPC(*pubsub.RPC)                                  {}
func (l *links) SendRPCCompleted(*pubsub.RPC, peer.ID, time.Duration) {}
