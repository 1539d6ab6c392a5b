package mesh

import (
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/peer"

	"openline/protocol"
)

// maxBound is how many peers are direct ones at a time: each costs another copy of everything.
const maxBound = 2

// Bind makes p a direct peer for so long: everything is flooded to it, whether it has a link or not. The other side must
// do the same. It reports whether there was room. Two halves of a network that were apart both have full meshes when they
// meet, and would exchange everything over a few links; bound peers stitch them together (shared/notes/gossip.md).
func (m *Mesh) Bind(p peer.ID, d time.Duration) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.bound == nil {
		return false // closed
	}
	if t := m.bound[p]; t != nil {
		t.Reset(d)
		return true
	}
	if len(m.bound) >= maxBound || m.ps.AddDirectPeer(peer.AddrInfo{ID: p}) != nil { // without addresses: nobody is dialled
		return false
	}
	m.bound[p] = time.AfterFunc(d, func() { m.unbind(p) })
	return true
}

func (m *Mesh) unbind(p peer.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.bound != nil {
		delete(m.bound, p)
		_ = m.ps.RemoveDirectPeer(p) // fails only when the mesh is closed
	}
}

// Bound returns the number of direct peers.
func (m *Mesh) Bound() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.bound)
}

// unbindAll ends all timers.
func (m *Mesh) unbindAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range m.bound {
		t.Stop()
	}
	m.bound = nil
}

// MessageIDOf returns the id under which e is flooded with its present nonce.
func (m *Mesh) MessageIDOf(e protocol.Event) string {
	topic := TopicName(m.cfg.Network, e.Shard())
	return MessageID(&pb.Message{Topic: &topic, Data: e.AppendEnvelope(nil)})
}

// DuplicateMessage: whoever sends what is known here holds it.
func (l *links) DuplicateMessage(msg *pubsub.Message) {
	l.count.Duplicates.Add(1)
	if l.holds != nil {
		l.holds(msg.ID, msg.ReceivedFrom)
	}
}

// inspect hears what peers offer: whoever offers a message holds it. It refuses nothing.
func (l *links) inspect(from peer.ID, rpc *pubsub.RPC) error {
	if l.holds == nil {
		return nil
	}
	for _, h := range rpc.GetControl().GetIhave() {
		for _, id := range h.GetMessageIDs() {
			l.holds(id, from)
		}
	}
	return nil
}
