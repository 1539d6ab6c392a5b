// Package mesh floods events over gossipsub: it joins, publishes and judges.
//
// Messages carry neither a signature nor an author of the pubsub layer, so no peer id travels with an event. What a
// connected peer learns all the same: this node's address, and that an event came from it at some moment. A censor
// who only watches the line learns from this package nothing beyond what the carrier shows.
//
// The validator is the door: there is no subscription, because those drop silently when their reader is slow.
package mesh

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"

	"openline/protocol"
)

// Accept stores one envelope that came under a shard's topic. nil means fresh: pass it on. A *protocol.Rejection is
// translated by verdict; any other error is this node's own trouble and costs the peer nothing.
type Accept func(ctx context.Context, envelope []byte, shard int) error

// Config holds what differs between nodes. All nodes of one network must agree on Network.
type Config struct {
	Network string // part of every topic name: nodes of other networks hear nothing
	Relay   bool   // more links, more gossip

	// LinkRate is how many messages a second one peer may make this node judge, LinkBurst how many at once.
	// What is above is ignored before any signature is checked.
	LinkRate  float64
	LinkBurst int

	// Grafted, unless nil, is called when a mesh link comes up. It must not block.
	Grafted func()

	// Holds, unless nil, is called when a peer shows that it holds a message: it sent one that is known here, or offers
	// one. It must be quick.
	Holds func(messageID string, by peer.ID)
}

// DefaultConfig returns a home node's settings. The rate is ten times the load of June 2009 (61.6 messages/s) with
// room for a burst after a link was down.
func DefaultConfig() Config {
	return Config{Network: "main", LinkRate: 1000, LinkBurst: 4000}
}

// Mesh is one node's part in the flood, in all shards.
type Mesh struct {
	self   peer.ID
	cfg    Config
	accept Accept
	ps     *pubsub.PubSub
	topics [protocol.Shards]*pubsub.Topic
	shards map[string]int // topic name to shard; not changed after New
	links  *links
	stop   func()

	mu     sync.Mutex // guards the fields below
	budget map[peer.ID]*rate.Limiter
	bound  map[peer.ID]*time.Timer // nil once closed
}

// New joins all shards. The mesh lives until Close.
func New(h host.Host, cfg Config, accept Accept) (*Mesh, error) {
	if err := CheckNetwork(cfg.Network); err != nil {
		return nil, err
	}
	// The context of a pubsub is its lifetime, not one call's: Close ends it.
	ctx, stop := context.WithCancel(context.Background())
	m := &Mesh{self: h.ID(), cfg: cfg, accept: accept, stop: stop,
		shards: map[string]int{}, budget: map[peer.ID]*rate.Limiter{}, bound: map[peer.ID]*time.Timer{}}
	for i := range m.topics {
		m.shards[TopicName(cfg.Network, i)] = i
	}
	m.links = newLinks(m.shards, cfg, m.forget)
	ps, err := pubsub.NewGossipSub(ctx, h, m.options()...)
	if err != nil {
		stop()
		return nil, fmt.Errorf("start gossipsub: %w", err)
	}
	m.ps = ps
	if err := m.join(); err != nil {
		stop()
		return nil, err
	}
	return m, nil
}

// Close leaves the mesh. Goroutines of the library end soon after the host is closed too.
func (m *Mesh) Close() {
	m.unbindAll()
	m.stop()
}

// CheckNetwork says whether name may name a network: 1 to 32 of a-z, 0-9 and "-".
func CheckNetwork(name string) error {
	ok := len(name) >= 1 && len(name) <= 32
	for _, c := range name {
		ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-')
	}
	if !ok {
		return fmt.Errorf("network %.40q: a network's name has 1 to 32 of the characters a-z, 0-9 and -", name)
	}
	return nil
}

// TopicName returns the pubsub topic of one shard (SPEC.md section 7).
func TopicName(network string, shard int) string {
	return fmt.Sprintf("/openline/1/%s/%d", network, shard)
}

// MessageID names a pubsub message by all that a relay could change: topic, data and unknown fields. The seen-cache
// marks an id before the validator has judged it; an id over less would let a spoiled copy shut out the honest one.
func MessageID(m *pb.Message) string {
	h := sha256.New()
	h.Write([]byte(m.GetTopic()))
	h.Write([]byte{0})
	h.Write(m.GetData())
	h.Write(m.ProtoReflect().GetUnknown())
	return string(h.Sum(nil)[:20])
}

func (m *Mesh) join() error {
	for name, shard := range m.shards {
		if err := m.ps.RegisterTopicValidator(name, m.validate, pubsub.WithValidatorInline(true)); err != nil {
			return fmt.Errorf("judge %s: %w", name, err)
		}
		topic, err := m.ps.Join(name)
		if err != nil {
			return fmt.Errorf("join %s: %w", name, err)
		}
		if err := topic.SetScoreParams(topicScore()); err != nil {
			return fmt.Errorf("score %s: %w", name, err)
		}
		if _, err := topic.Relay(); err != nil {
			return fmt.Errorf("relay %s: %w", name, err)
		}
		m.topics[shard] = topic
	}
	return nil
}

// Publish floods e over the mesh links of its shard. Without any link it goes nowhere at once: the peers that listen
// are told of it with the next three heartbeats and fetch it, but for those that are linked meanwhile, who are not told.
// Where a link is likely to come soon, wait for Config.Grafted.
func (m *Mesh) Publish(ctx context.Context, e protocol.Event) error {
	if err := m.topics[e.Shard()].Publish(ctx, e.AppendEnvelope(nil)); err != nil {
		return fmt.Errorf("publish in shard %d: %w", e.Shard(), err)
	}
	return nil
}

// validate judges every message, this node's own included: msg.Local does not mark those.
func (m *Mesh) validate(ctx context.Context, from peer.ID, msg *pubsub.Message) pubsub.ValidationResult {
	if from == m.self {
		return pubsub.ValidationAccept
	}
	if len(msg.ProtoReflect().GetUnknown()) > 0 {
		return pubsub.ValidationReject
	}
	if !m.allow(from) {
		m.links.count.Throttled.Add(1)
		return pubsub.ValidationIgnore
	}
	shard, ok := m.shards[msg.GetTopic()]
	if !ok {
		return pubsub.ValidationIgnore
	}
	return verdict(m.accept(ctx, msg.GetData(), shard))
}

// verdict is the table of SPEC.md section 8. Ignore is sticky: an ignored message is not offered again for the
// seen-cache's life, so only history brings it back.
func verdict(err error) pubsub.ValidationResult {
	if err == nil {
		return pubsub.ValidationAccept
	}
	if r, ok := errors.AsType[*protocol.Rejection](err); ok && r.Code.Static() {
		return pubsub.ValidationReject
	}
	return pubsub.ValidationIgnore
}

// allow takes one message from the peer's budget.
func (m *Mesh) allow(p peer.ID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.budget[p]
	if b == nil {
		b = rate.NewLimiter(rate.Limit(m.cfg.LinkRate), m.cfg.LinkBurst)
		m.budget[p] = b
	}
	return b.AllowN(time.Now(), 1)
}

func (m *Mesh) forget(p peer.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.budget, p)
}

// Links returns the number of mesh links in a shard: the peers that a publication goes to at once.
func (m *Mesh) Links(shard int) int { return m.links.in(shard) }

// Listeners returns the number of connected peers in a shard, linked or not.
func (m *Mesh) Listeners(shard int) int { return len(m.topics[shard].ListPeers()) }

// Linked returns the peers with a mesh link in any shard.
func (m *Mesh) Linked() map[peer.ID]bool { return m.links.peers() }

// Count returns the counters since New.
func (m *Mesh) Count() *Count { return &m.links.count }
