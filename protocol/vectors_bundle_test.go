package protocol

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"
)

// bundleVector is one case of bundles.json, as SPEC.md section 13 describes it.
type bundleVector struct {
	Name    string        `json:"name"`
	Bundle  string        `json:"bundle_hex"`
	Verdict string        `json:"verdict"` // whole, damaged, or no bundle
	Network string        `json:"network,omitempty"`
	From    int64         `json:"from"`
	To      int64         `json:"to"`
	Frames  []vectorFrame `json:"frames"`
	Lost    int64         `json:"lost"` // events, -1 when it cannot be known
}

type vectorFrame struct {
	Number int      `json:"number"`
	First  int64    `json:"first"`
	Last   int64    `json:"last"`
	IDs    []string `json:"ids"`
}

func TestBundleVectors(t *testing.T) {
	for _, v := range readVectors[bundleVector](t, "bundles.json") {
		t.Run(v.Name, func(t *testing.T) {
			b, err := NewBundleReader(bytes.NewReader(unhexed(v.Bundle)))
			if (err != nil) != (v.Verdict == "no bundle") {
				t.Fatalf("%v, want the verdict %q", err, v.Verdict)
			}
			if err != nil {
				return
			}
			if want := (BundleHeader{v.Network, v.From, v.To}); b.Header() != want {
				t.Errorf("Header() = %+v, want %+v", b.Header(), want)
			}
			frames, err := allFrames(b)
			if err != io.EOF {
				t.Fatal(err)
			}
			got := []vectorFrame{}
			for _, f := range frames {
				got = append(got, vectorFrame{f.Number, f.First, f.Last, idsOf(t, f)})
			}
			same := func(a, b vectorFrame) bool {
				return a.Number == b.Number && a.First == b.First && a.Last == b.Last && slices.Equal(a.IDs, b.IDs)
			}
			if !slices.EqualFunc(got, v.Frames, same) {
				t.Errorf("frames %+v, want %+v", got, v.Frames)
			}
			if damaged := len(b.Damage()) > 0; damaged != (v.Verdict == "damaged") || lostEvents(b.Damage()) != v.Lost {
				t.Errorf("damage %+v, want %q with %d lost", b.Damage(), v.Verdict, v.Lost)
			}
		})
	}
}

func idsOf(t *testing.T, f BundleFrame) (ids []string) {
	t.Helper()
	for _, envelope := range f.Envelopes {
		e, err := ParseEnvelope(envelope, Check{Scope: Late, Now: time.Unix(vectorNow, 0)})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, e.ID().String())
	}
	return ids
}

func lostEvents(damage []BundleDamage) (n int64) {
	for _, d := range damage {
		if d.Events < 0 {
			return -1
		}
		n += d.Events
	}
	return n
}

// plainFrame is a frame of a bundle written by hand.
type plainFrame struct {
	events []nostr.Event
	pack   func(raw []byte) []byte // nil: plainZstd
	claim  int                     // raw bytes, 0: the truth
}

func (f plainFrame) raw() (raw []byte) {
	for _, e := range f.events {
		raw = append(raw, pbBytes(0, wire(e, 0))[1:]...) // protobuf writes lengths as bundles do
	}
	return raw
}

func (f plainFrame) vector(number int) vectorFrame {
	v := vectorFrame{Number: number, First: int64(f.events[0].CreatedAt), Last: int64(f.events[len(f.events)-1].CreatedAt)}
	for _, e := range f.events {
		v.IDs = append(v.IDs, e.ID)
	}
	return v
}

// plainBundle writes the frames and returns where they and the index begin.
func plainBundle(version byte, frames []plainFrame) (b []byte, starts []int) {
	be := binary.BigEndian
	b = append([]byte("\x8folb\r\n\x1a\n"), version)
	b = append(b, "main"+strings.Repeat("\x00", 28)...)
	b = be.AppendUint64(be.AppendUint64(b, vectorNow-1000), 1<<53-1)
	b = append(b, sum8(b)...)
	index, total := []byte{}, 0
	for i, f := range frames {
		v, raw := f.vector(i+1), f.raw()
		packed := plainZstd(raw)
		if f.pack != nil {
			packed = f.pack(raw)
		}
		if f.claim == 0 {
			f.claim = len(raw)
		}
		starts = append(starts, len(b))
		index = be.AppendUint32(be.AppendUint64(index, uint64(len(b))), uint32(len(f.events)))
		index = be.AppendUint64(be.AppendUint64(index, uint64(v.First)), uint64(v.Last))
		head := be.AppendUint32([]byte("\xf1OLF"), uint32(i+1))
		head = be.AppendUint32(be.AppendUint64(head, uint64(total)), uint32(len(f.events)))
		head = be.AppendUint64(be.AppendUint64(head, uint64(v.First)), uint64(v.Last))
		head = be.AppendUint32(be.AppendUint32(head, uint32(f.claim)), uint32(len(packed)))
		sum := sha256.Sum256(slices.Concat(head, packed))
		b = slices.Concat(b, head, sum[:16], packed)
		total += len(f.events)
	}
	at := len(b)
	index = append(be.AppendUint64(be.AppendUint32([]byte("\xf1OLI"), uint32(len(frames))), uint64(total)), index...)
	sum := sha256.Sum256(index)
	b = slices.Concat(b, index, sum[:16], []byte("\xf1OLBend\n"))
	return be.AppendUint64(b, uint64(at)), append(starts, at)
}

// referencePacked is what packedEvents makes as zstd 1.5 by its authors packs it with "zstd -19", checksum included.
const referencePacked = "28b52ffd64d8015d0b006415b4010a2025a2bf6f2a8e0e8a5f4e9ea1a2fc1416788f9c3fe559c1fbcb34873e18299a6b1240704fbde4ea72808eaa59f0ba9a035efb8d30047b388f723b73f730687e5403e98f3f112048969d2e384bbdb992a737039faf3932d61a73d9eda863969c58d1a618fcefc4d50620012a0b0a01740a0674656872616e323974686520627269646765206973206f70656e20f953c204a39bdfdd778e865b86772c13311a7b236ae81ef457ece3ec48c8e97aa5dd135525aa1183f00b3e6633623e07b467fa4c493f9e349f266c41aa8cd34118fd712c8aead35fca559c38809d1c7171a3677a8fca2f562e2daa15bce47f83f3fd826e79660d3a8106c3b853f9dc0a3bc293b011f5d4137cacceb41d81e555510918fe75e8f6d489b62d6e17efc4e6f643717c30fc1e5a6769de4f0d7eed21a4bf3c1069c6e6d0a95bcbc6d918d088b0a77c929df32e7d61e19d6c01dfd2e07e7cbd2118ff0500c202348408d223444863ce3c01d29e290522ca0484"

// packedEvents have enough in common for zstd to compress them.
func packedEvents() (events []nostr.Event) {
	for i := range 4 {
		events = append(events, signed(at(vectorNow-900+int64(i), note(strings.Repeat("the bridge is open ", 3), nostr.Tag{"t", "tehran"}))))
	}
	return events
}

func bundleCases() []bundleVector {
	a, b := at(vectorNow-900, signed(note("a"))), at(vectorNow-800, signedBy("bob", note("b", nostr.Tag{"t", "iran"})))
	first := plainFrame{events: []nostr.Event{signed(a), signedBy("bob", b)}}
	second := plainFrame{events: []nostr.Event{signed(at(vectorNow-800, note("ج", nostr.Tag{"e", a64})))}}
	var cases []bundleVector
	add := func(name, verdict string, lost int64, raw []byte, frames ...vectorFrame) {
		v := bundleVector{Name: name, Bundle: hex.EncodeToString(raw), Verdict: verdict, Lost: lost, Frames: append([]vectorFrame{}, frames...)}
		if verdict != "no bundle" && !strings.Contains(name, "header") {
			v.Network, v.From, v.To = "main", vectorNow-1000, 1<<53-1
		}
		cases = append(cases, v)
	}
	one, two := first.vector(1), second.vector(2)
	whole, starts := plainBundle(1, []plainFrame{first, second})
	flip := func(at int) []byte {
		raw := slices.Clone(whole)
		raw[at] ^= 1
		return raw
	}
	empty, _ := plainBundle(1, nil)
	add("no events", "whole", 0, empty)
	add("two frames", "whole", 0, whole, one, two)
	packed := func([]byte) []byte { return unhexed(referencePacked) }
	reference := plainFrame{events: packedEvents(), pack: packed}
	other, _ := plainBundle(1, []plainFrame{reference, second})
	add("a frame that the authors of zstd packed", "whole", 0, other, reference.vector(1), two)
	add("cut off in the header", "damaged", -1, whole[:40])
	add("cut off in the first frame", "damaged", -1, whole[:starts[1]-1])
	add("cut off in the second frame", "damaged", -1, whole[:starts[2]-1], one)
	add("cut off after the last frame", "damaged", -1, whole[:starts[2]], one, two)
	add("cut off in the index", "damaged", 0, whole[:starts[2]+50], one, two)
	add("cut off in the trailer", "damaged", 0, whole[:len(whole)-1], one, two)
	add("a bit flipped in the header", "damaged", 0, flip(12), one, two)
	add("a bit flipped in the magic of the header", "damaged", 0, flip(3), one, two)
	add("a bit flipped in the first frame's marker", "damaged", 2, flip(starts[0]), two)
	add("a bit flipped in the first frame's length", "damaged", 2, flip(starts[0]+43), two)
	add("a bit flipped in the first frame's payload", "damaged", 2, flip(starts[1]-1), two)
	add("a bit flipped in the second frame", "damaged", 1, flip(starts[1]+30), one)
	add("a bit flipped in the index", "damaged", 0, flip(starts[2]+20), one, two)
	add("a bit flipped in the trailer", "damaged", 0, flip(len(whole)-1), one, two)
	add("bytes between two frames", "damaged", 0, slices.Concat(whole[:starts[1]], []byte("\xf1OLF and so on"), whole[starts[1]:]), one, two)
	add("the first frame is gone", "damaged", 2, slices.Concat(whole[:starts[0]], whole[starts[1]:]), two)
	add("bytes after the end", "damaged", 0, append(slices.Clone(whole), "more"...), one, two)
	later, _ := plainBundle(2, []plainFrame{first})
	add("a later version", "no bundle", 0, later)
	add("something else", "no bundle", 0, []byte("\x28\xb5\x2f\xfd, which is no bundle"))
	for _, r := range refusedFrames(first) {
		raw, _ := plainBundle(1, []plainFrame{r.plainFrame, second})
		add(r.name, "damaged", 2, raw, two)
	}
	return cases
}

type refusedFrame struct {
	name string
	plainFrame
}

// refusedFrames have a checksum that holds and must not be unpacked, or hold no events.
func refusedFrames(f plainFrame) (cases []refusedFrame) {
	n := len(f.raw())
	add := func(name string, claim int, pack func(raw []byte) []byte) {
		cases = append(cases, refusedFrame{name, plainFrame{events: f.events, claim: claim, pack: pack}})
	}
	add("bomb: blocks of 13 million bytes beyond the content size", n, func([]byte) []byte { return plainRLE(n, 1<<17, 100) })
	add("bomb: a content size of 1 GiB", n, func([]byte) []byte { return plainRLE(1<<30, 1<<17, 8) })
	add("bomb: a raw length of 1 GiB", 1<<30, func([]byte) []byte { return plainRLE(1<<30, 1<<17, 8) })
	add("bomb: a second zstd frame", n, func(raw []byte) []byte { return append(plainZstd(raw), plainRLE(1<<20, 1<<17, 8)...) })
	add("bomb: a window of 128 MiB", n, func(raw []byte) []byte {
		head := binary.LittleEndian.AppendUint32([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x80, 17 << 3}, uint32(n))
		return append(head, plainBlock(true, 0, n, raw)...)
	})
	add("refused: no content size", n, func(raw []byte) []byte {
		return append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x00}, plainBlock(true, 0, n, raw)...)
	})
	add("refused: bytes behind the zstd frame", n, func(raw []byte) []byte { return append(plainZstd(raw), 0) })
	add("refused: an event of length 0", n+1, func(raw []byte) []byte { return plainZstd(append(raw, 0)) })
	add("refused: a length in more bytes than need be", n+1, func(raw []byte) []byte {
		return plainZstd(slices.Concat([]byte{raw[0] | 0x80, 0}, raw[1:]))
	})
	add("refused: more events than are claimed", n+n, func(raw []byte) []byte { return plainZstd(append(raw, raw...)) })
	add("refused: the last event is cut off", n-1, func(raw []byte) []byte { return plainZstd(raw[:n-1]) })
	return cases
}

// bundleSeeds are the vectors, for the fuzzer.
func bundleSeeds(f *testing.F) {
	f.Helper()
	raw, err := os.ReadFile("testdata/vectors/bundles.json")
	if err != nil {
		f.Fatal(err)
	}
	var v struct{ Cases []bundleVector }
	if err := json.Unmarshal(raw, &v); err != nil {
		f.Fatal(err)
	}
	for _, c := range v.Cases {
		if b, err := hex.DecodeString(c.Bundle); err == nil {
			f.Add(b)
		}
	}
}
