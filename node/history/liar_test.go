package history

import (
	"bufio"
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"openline/protocol"
	"openline/protocol/reconcile"
)

// liar is a peer that greets as an honest one and then answers as the test has it. A reply of kind 0 is silence.
func (w *world) liar(answer func(kind byte, body []byte) (byte, []byte)) network.Network {
	h := w.host()
	h.SetStreamHandler(ID, func(s network.Stream) {
		defer s.Reset()
		for r := bufio.NewReader(s); ; {
			kind, body, err := readFrame(r)
			if err != nil {
				return
			}
			reply, b := byte(kindHello), hello{network: "test", clock: time.Now().Unix()}.encode()
			if kind != kindHello {
				reply, b = answer(kind, body)
			}
			if reply == kindTrickle {
				_, _ = s.Write(binary.AppendUvarint(nil, 50_000))
				for range 100 {
					time.Sleep(5 * time.Second)
					if _, err := s.Write([]byte{0}); err != nil {
						return
					}
				}
			}
			if reply != 0 && writeFrame(s, reply, b) != nil {
				return
			}
		}
	})
	return h.Network()
}

// kindTrickle stands for an answer that comes a byte every five seconds.
const kindTrickle = 200

// offer answers a question about some hours with the ids of these events, whatever they are.
func offer(events []protocol.Event) func(kind byte, body []byte) (byte, []byte) {
	return func(kind byte, body []byte) (byte, []byte) {
		a, err := parseAsk(body)
		if kind != kindAsk || err != nil {
			return 0, nil
		}
		msg, err := reconcile.Answer(mustView(newMemory(events...), a), a.message, reconcile.Limits{})
		if err != nil {
			return 0, nil
		}
		return kindAnswer, msg
	}
}

// wanted returns how many ids a question has.
func wanted(body []byte) int {
	w, _ := parseWant(body) // this node's own
	return len(w.ids)
}

func mustView(m *memory, a ask) (v reconcile.Set) {
	_ = m.View(a.shard, a.from, a.to, func(s reconcile.Set) error { v = s; return nil }) // a map's never fails
	return v
}

// TestLiarsAreDroppedAndOthersFinish: whatever a peer does, the honest one beside it is heard to the end.
func TestLiarsAreDroppedAndOthersFinish(t *testing.T) {
	lies := map[string]func(t *testing.T, w *world) func(kind byte, body []byte) (byte, []byte){
		"stalls": func(t *testing.T, w *world) func(byte, []byte) (byte, []byte) {
			return func(byte, []byte) (byte, []byte) { return 0, nil }
		},
		"trickles": func(t *testing.T, w *world) func(byte, []byte) (byte, []byte) {
			return func(kind byte, body []byte) (byte, []byte) { return kindTrickle, nil }
		},
		"offers what it does not have": func(t *testing.T, w *world) func(byte, []byte) (byte, []byte) {
			ghosts := notes(t, 500, 24*hour, "ghost")
			return func(kind byte, body []byte) (byte, []byte) {
				switch kind {
				case kindWant:
					return kindEnvelopes, batch{looked: wanted(body)}.encode()
				case kindRange:
					return kindPart, part{done: true}.encode()
				}
				return offer(ghosts)(kind, body)
			}
		},
		"sends what no node accepts": func(t *testing.T, w *world) func(byte, []byte) (byte, []byte) {
			ghosts := notes(t, 500, 24*hour, "ghost")
			junk := [][]byte{{1, 2, 3}, {4, 5, 6}}
			return func(kind byte, body []byte) (byte, []byte) {
				switch kind {
				case kindWant:
					return kindEnvelopes, batch{looked: wanted(body), envelopes: junk[:min(2, wanted(body))]}.encode()
				case kindRange:
					return kindPart, part{done: true, envelopes: junk}.encode()
				}
				return offer(ghosts)(kind, body)
			}
		},
		"sends what was not asked for": func(t *testing.T, w *world) func(byte, []byte) (byte, []byte) {
			ghosts, other := notes(t, 500, 24*hour, "ghost"), notes(t, 1, 24*hour, "other")[0].AppendEnvelope(nil)
			return func(kind byte, body []byte) (byte, []byte) {
				switch kind {
				case kindWant:
					return kindEnvelopes, batch{looked: 1, envelopes: [][]byte{other}}.encode()
				case kindRange:
					return kindPart, part{done: true, envelopes: [][]byte{other}}.encode()
				}
				return offer(ghosts)(kind, body)
			}
		},
		"finds differences without end": func(t *testing.T, w *world) func(byte, []byte) (byte, []byte) {
			n := uint64(0)
			return func(kind byte, body []byte) (byte, []byte) {
				if kind != kindAsk {
					return 0, nil
				}
				n++ // one fingerprint for everything, another one each time
				return kindAnswer, binary.BigEndian.AppendUint64(append([]byte{0x61, 0, 0, 1}, make([]byte, 8)...), n)
			}
		},
		"never ends a range": func(t *testing.T, w *world) func(byte, []byte) (byte, []byte) {
			ghosts := notes(t, 500, 24*hour, "ghost")
			return func(kind byte, body []byte) (byte, []byte) {
				if kind == kindRange {
					r, _ := parseRange(body)
					return kindPart, part{next: r.high, envelopes: [][]byte{ghosts[0].AppendEnvelope(nil)}}.encode()
				}
				return offer(ghosts)(kind, body)
			}
		},
		"answers out of form": func(t *testing.T, w *world) func(byte, []byte) (byte, []byte) {
			return func(byte, []byte) (byte, []byte) { return kindAnswer, []byte{0x61, 0xff} }
		},
		"answers more than was asked": func(t *testing.T, w *world) func(byte, []byte) (byte, []byte) {
			return func(byte, []byte) (byte, []byte) { return kindPart, part{done: true}.encode() }
		},
	}
	for name, lie := range lies {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				events := notes(t, 1000, 24*hour, "honest")
				y := w.node(Config{}, newMemory(events[:100]...))
				bad := w.liar(lie(t, w))
				if _, err := w.net.LinkPeers(y.host.ID(), bad.LocalPeer()); err != nil {
					t.Fatal(err)
				}
				if _, err := w.net.ConnectPeers(y.host.ID(), bad.LocalPeer()); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * time.Second)
				good := newMemory(events...)
				w.connect(y.host, w.node(Config{}, good).host)
				time.Sleep(4 * time.Minute)
				for _, id := range good.ids() {
					if !slices.Contains(w.mems[0].ids(), id) {
						t.Fatal("an event of the honest peer is missing")
					}
				}
				if n := y.Count.Dropped.Load(); n != 1 {
					t.Errorf("%d peers were dropped, want the liar", n)
				}
				if extra := len(w.mems[0].ids()) - len(good.ids()); extra > 1 {
					t.Errorf("%d events of the liar were kept", extra)
				}
				if n := y.Count.Received.Load(); n > 5<<20 {
					t.Errorf("%d bytes were received", n)
				}
			})
		})
	}
}

// TestQuestionsOutOfFormEndTheStream: the other half, a liar that asks.
func TestQuestionsOutOfFormEndTheStream(t *testing.T) {
	for name, frame := range map[string][]byte{
		"no hello":      {2, kindWant, 0},
		"endless frame": {0xff, 0xff, 0xff, 0xff, 0x7f},
		"empty frame":   {0},
		"half an id":    append([]byte{3, kindHello, 9}, 9),
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				y := w.node(Config{}, newMemory())
				bad := w.host()
				w.connect(bad, y.host)
				s, err := bad.NewStream(w.ctx, y.host.ID(), ID)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := s.Write(frame); err != nil {
					t.Fatal(err)
				}
				if _, err := s.Read(make([]byte, 1)); err == nil {
					t.Error("the stream goes on")
				}
				if y.Count.Dropped.Load() != 1 {
					t.Error("the peer was not dropped")
				}
			})
		})
	}
}

// TestAskingTooMuchMakesThePeerWait: a peer that asks for everything again and again gets only its share.
func TestAskingTooMuchMakesThePeerWait(t *testing.T) {
	inWorld(t, func(w *world) {
		events := notes(t, 3000, 24*hour, "")
		y, bad := w.node(Config{}, newMemory(events...)), w.host()
		w.connect(bad, y.host)
		s, err := bad.NewStream(w.ctx, y.host.ID(), ID)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Reset()
		if err := writeFrame(s, kindHello, hello{network: "test"}.encode()); err != nil {
			t.Fatal(err)
		}
		w.wg.Go(func() {
			for shard := 0; writeFrame(s, kindRange, rangeOf{most: maxFrame, shard: shard % protocol.Shards, high: reconcile.Bound{Time: reconcile.Infinity}}.encode()) == nil; shard++ {
			}
		})
		w.wg.Go(func() {
			for r := bufio.NewReader(s); ; {
				if _, _, err := readFrame(r); err != nil {
					return
				}
			}
		})
		time.Sleep(20 * time.Second)
		if n := y.Count.Sent.Load(); n > (20+serveBurst)*serveBytes {
			t.Errorf("%d bytes in 20 s, want at most %d a second", n, serveBytes)
		}
		_ = s.Reset()
	})
}

func FuzzFrames(f *testing.F) {
	note := notes(f, 1, hour, "note")[0]
	env := note.AppendEnvelope(nil)
	f.Add(byte(kindHello), hello{network: "main", clock: 5, horizon: 6, outside: 1, nodes: []node{{1, 2}, {3, 4}}}.encode())
	f.Add(byte(kindAsk), ask{60_000, 3, 3600, reconcile.Infinity, []byte{0x61}}.encode())
	f.Add(byte(kindWant), want{5000, []protocol.ID{note.ID()}}.encode())
	f.Add(byte(kindEnvelopes), batch{1, [][]byte{env}}.encode())
	f.Add(byte(kindRange), rangeOf{9000, 1, reconcile.Bound{}, reconcile.Bound{Time: 9, Prefix: []byte{1, 2}}}.encode())
	f.Add(byte(kindPart), part{false, reconcile.Bound{Time: 9}, [][]byte{env, env}}.encode())
	f.Add(byte(kindDescribed), encodeDescriptions([]description{describe(note), {created: -1}}))
	f.Add(byte(kindNews), encodeNews([]news{{1, 0, 3600, reconcile.Fingerprint{1}}}))
	f.Fuzz(func(t *testing.T, kind byte, body []byte) {
		var again []byte
		var err error
		switch kind {
		case kindHello:
			var v hello
			v, err = parseHello(body)
			again = v.encode()
		case kindAsk:
			var v ask
			v, err = parseAsk(body)
			again = v.encode()
		case kindWant:
			var v want
			v, err = parseWant(body)
			again = v.encode()
		case kindEnvelopes:
			var v batch
			v, err = parseBatch(body)
			again = v.encode()
		case kindRange:
			var v rangeOf
			v, err = parseRange(body)
			again = v.encode()
		case kindPart:
			var v part
			v, err = parsePart(body)
			again = v.encode()
		case kindDescribed:
			var v []description
			v, err = parseDescriptions(body)
			again = encodeDescriptions(v)
		case kindNews:
			var v []news
			v, err = parseNews(body)
			again = encodeNews(v)
		}
		if err == nil && again != nil && len(again) > len(body) {
			t.Errorf("kind %d: %d bytes read become %d", kind, len(body), len(again))
		}
	})
}
