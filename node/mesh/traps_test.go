package mesh

import (
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"openline/protocol"
)

// The traps of shared/notes/gossip.md section 2. In each, an attacker (host 3) gives the first node of a line a
// spoiled copy half a second before the honest one comes from the publisher (node 0): 0 - 1 - 2.
func TestSpoiledCopyDoesNotShutOutTheHonestOne(t *testing.T) {
	junk := protowire.AppendBytes(protowire.AppendTag(nil, 99, protowire.BytesType), make([]byte, 10_000))
	for _, c := range []struct {
		name  string
		spoil func(e protocol.Event) (topic string, data, junk []byte)
	}{
		{"wrong signature first", func(e protocol.Event) (string, []byte, []byte) {
			data := e.AppendEnvelope(nil)
			data[34+2+10] ^= 1 // inside the signature
			return TopicName("main", e.Shard()), data, nil
		}},
		{"other topic first", func(e protocol.Event) (string, []byte, []byte) {
			return TopicName("main", (e.Shard()+1)%protocol.Shards), e.AppendEnvelope(nil), nil
		}},
		{"junk fields first", func(e protocol.Event) (string, []byte, []byte) {
			return TopicName("main", e.Shard()), e.AppendEnvelope(nil), junk
		}},
		{"junk in the envelope first", func(e protocol.Event) (string, []byte, []byte) {
			return TopicName("main", e.Shard()), append(e.AppendEnvelope(nil), junk[:100]...), nil
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, 4, 3, func(w *world) {
				w.connect(0, 1)
				w.connect(1, 2)
				w.connect(3, 1)
				time.Sleep(3 * time.Second)
				e := w.note("the honest copy")
				topic, data, junk := c.spoil(e)
				w.attack(3, 1, topic, junk, data)
				time.Sleep(500 * time.Millisecond)
				if w.nodes[1].has(e.ID()) {
					t.Fatal("the spoiled copy was accepted")
				}
				if got := w.nodes[1].Count().Rejected.Load(); got != 1 {
					t.Errorf("node 1 rejected %d messages, want 1", got)
				}
				w.publish(0, e)
				time.Sleep(2 * time.Second)
				for i := 1; i <= 2; i++ {
					if !w.nodes[i].has(e.ID()) {
						t.Errorf("node %d lost the honest copy", i)
					}
				}
				if got := w.nodes[2].Count().SentBytes.Load(); got > 10_000 {
					t.Errorf("junk went on: node 2 sent %d bytes", got)
				}
			})
		})
	}
}

func TestOwnPublicationLeavesTheNode(t *testing.T) {
	inWorld(t, 2, 2, func(w *world) {
		w.connect(0, 1)
		time.Sleep(3 * time.Second)
		e := w.note("known to its own door")
		w.publish(0, e) // marks it as known at node 0, so its door would answer Duplicate
		time.Sleep(time.Second)
		if !w.nodes[1].has(e.ID()) {
			t.Error("the validator stopped the node's own publication")
		}
	})
}

func TestFloodingPeerIsThrottled(t *testing.T) {
	inWorld(t, 2, 1, func(w *world) {
		n := w.nodes[0]
		n.cfg.LinkRate, n.cfg.LinkBurst = 1, 10
		w.connect(1, 0)
		stale := w.note("over and over")
		n.keep(stale)
		var copies [][]byte
		for i := range 50 {
			copies = append(copies, stale.WithNonce(uint64(i+1)).AppendEnvelope(nil))
		}
		w.attack(1, 0, TopicName("main", stale.Shard()), nil, copies...)
		time.Sleep(time.Second)
		if got := n.Count().Throttled.Load(); got != 40 {
			t.Errorf("%d messages were throttled, want 40 of 50", got)
		}
	})
}

func TestVerdictRejectsOnlyWhatEveryNodeRefuses(t *testing.T) {
	for code, want := range map[protocol.Code]string{
		protocol.Malformed: "reject", protocol.BadSignature: "reject", protocol.WrongShard: "reject",
		protocol.BadID: "reject", protocol.BadKind: "reject", protocol.Protected: "reject",
		protocol.Stale: "ignore", protocol.Ahead: "ignore", protocol.Expired: "ignore", protocol.Duplicate: "ignore",
		protocol.Deleted: "ignore", protocol.OverQuota: "ignore", protocol.Busy: "ignore",
	} {
		got := map[int]string{0: "accept", 1: "reject", 2: "ignore"}[int(verdict(protocol.Reject(code, "x")))]
		if got != want {
			t.Errorf("verdict(%s) = %s, want %s", code, got, want)
		}
	}
}
