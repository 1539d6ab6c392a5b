package protocol

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

func sum8(b []byte) []byte {
	sum := sha256.Sum256(b)
	return sum[:8]
}

// laidOut is a bundle and where its frames are.
type laidOut struct {
	raw    []byte
	frames []BundleFrame
	starts []int // of the frames, and of the index
}

func layOut(t testing.TB, fill int, events []Event) laidOut {
	t.Helper()
	l := laidOut{raw: writeBundle(t, fill, events)}
	l.frames, _ = readBundle(t, bytes.NewReader(l.raw))
	at := bundleHeaderSize
	for range l.frames {
		l.starts = append(l.starts, at)
		at += frameHeaderSize + int(binary.BigEndian.Uint32(l.raw[at+40:]))
	}
	l.starts = append(l.starts, at)
	return l
}

// wholeBut demands that every frame but those for which lost is true comes back, in order and unchanged.
func (l laidOut) wholeBut(t *testing.T, got []BundleFrame, lost func(start, end int) bool) {
	t.Helper()
	for i, want := range l.frames {
		if lost(l.starts[i], l.starts[i+1]) {
			continue
		}
		for len(got) > 0 && got[0].Number < want.Number {
			t.Fatalf("frame %d was damaged and came out", got[0].Number)
		}
		if len(got) == 0 || got[0].Number != want.Number || !slices.EqualFunc(got[0].Envelopes, want.Envelopes, bytes.Equal) {
			t.Fatalf("frame %d is whole and did not come out", want.Number)
		}
		got = got[1:]
	}
	if len(got) > 0 {
		t.Fatalf("frame %d came out", got[0].Number)
	}
}

func TestBundleFlippedByteCostsOneFrame(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(uint64(seed), 1))
	l := layOut(t, 2000, bundleEvents(t, r, 120))
	for range 4000 {
		at := r.IntN(len(l.raw))
		raw := slices.Clone(l.raw)
		raw[at] ^= byte(1 + r.IntN(255))
		got, damage := readBundle(t, bytes.NewReader(raw))
		hit := func(start, end int) bool { return start <= at && at < end }
		l.wholeBut(t, got, hit)
		if len(damage) != 1 {
			t.Fatalf("byte %d: damage %+v, want one", at, damage)
		}
		want := BundleDamage{Offset: damage[0].Offset, Length: damage[0].Length, Text: damage[0].Text}
		for i, f := range l.frames {
			if hit(l.starts[i], l.starts[i+1]) {
				want = BundleDamage{Offset: int64(l.starts[i]), Length: int64(l.starts[i+1] - l.starts[i]), Frame: f.Number,
					Frames: 1, Events: int64(f.Events), First: f.First, Last: f.Last, Text: damage[0].Text}
			}
		}
		if damage[0] != want {
			t.Fatalf("byte %d: damage %+v, want %+v", at, damage[0], want)
		}
	}
}

func TestBundleCutAnywhereGivesWhatIsWhole(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(uint64(seed), 1))
	l := layOut(t, 2000, bundleEvents(t, r, 120))
	for n := len(bundleMagic); n < len(l.raw); n += 1 + r.IntN(10) {
		got, damage := readBundle(t, bytes.NewReader(l.raw[:n]))
		l.wholeBut(t, got, func(_, end int) bool { return end > n })
		if len(damage) != 1 || !strings.Contains(damage[0].Text, "cut off at byte") {
			t.Fatalf("cut at %d: damage %+v", n, damage)
		}
		if sure := n >= l.starts[len(l.starts)-1]+indexHeaderSize; (damage[0].Events == 0) != sure {
			t.Fatalf("cut at %d: damage %+v", n, damage[0])
		}
	}
}

// Bytes are lost from the middle, or garbage with markers in it comes between.
func TestBundleSurvivesHolesAndGarbage(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(uint64(seed), 1))
	l := layOut(t, 2000, bundleEvents(t, r, 120))
	for range 1000 {
		from := bundleHeaderSize + r.IntN(l.starts[len(l.starts)-1]-bundleHeaderSize)
		to := min(from+r.IntN(3000), l.starts[len(l.starts)-1])
		garbage := make([]byte, r.IntN(300))
		for i := range garbage {
			garbage[i] = byte(r.Uint32())
		}
		if r.IntN(2) == 0 {
			garbage = append(garbage, []string{frameMarker, indexMarker, trailerMagic[:5], string(l.raw[l.starts[2]:][:frameHeaderSize])}[r.IntN(4)]...)
		}
		raw := slices.Concat(l.raw[:from], garbage, l.raw[to:])
		got, damage := readBundle(t, bytes.NewReader(raw))
		known := 0
		l.wholeBut(t, got, func(start, end int) bool { return !bytes.Contains(raw, l.raw[start:end]) })
		for _, f := range got {
			known += f.Events
		}
		for _, d := range damage {
			known += int(d.Events)
		}
		if known != 120 {
			t.Fatalf("bytes %d to %d became %d others: %d of 120 events are accounted for: %+v", from, to, len(garbage), known, damage)
		}
	}
}

func TestBundlesOneAfterTheOtherComeOut(t *testing.T) {
	l := layOut(t, 2000, bundleEvents(t, rand.New(rand.NewPCG(1, 1)), 60))
	got, damage := readBundle(t, bytes.NewReader(slices.Concat(l.raw, l.raw)))
	if len(got) != 2*len(l.frames) || len(damage) == 0 {
		t.Errorf("%d frames, want %d; damage %+v", len(got), 2*len(l.frames), damage)
	}
}

// A file of headers, each of which claims a great frame that holds all the others, must not be hashed for hours.
func TestBundleReaderHasABudgetForGarbage(t *testing.T) {
	h := frameHead{number: 1, events: 1, raw: maxFrameRaw, packed: maxFramePacked}
	one := sealFrame(nil, h, nil)
	raw := append(writeBundle(t, frameFill, nil)[:bundleHeaderSize], bytes.Repeat(one, 4<<20/len(one))...)
	b, err := NewBundleReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	if frames, err := allFrames(b); err != io.EOF || len(frames) > 0 {
		t.Fatalf("%d frames, %v", len(frames), err)
	}
	if limit := int64(6 * len(raw)); b.futile > limit {
		t.Errorf("%d bytes were hashed for a file of %d", b.futile, len(raw))
	}
	if len(b.Damage()) > maxDamage {
		t.Errorf("%d damages", len(b.Damage()))
	}
}

func TestBundleBombsAreRefused(t *testing.T) {
	zeros := make([]byte, 64<<20)
	pack := func(raw []byte, o ...zstd.EOption) []byte {
		w, err := zstd.NewWriter(nil, append(o, zstd.WithEncoderConcurrency(1))...)
		if err != nil {
			t.Fatal(err)
		}
		return w.EncodeAll(raw, nil)
	}
	huge := pack(zeros)
	small := pack(zeros[:2000], zstd.WithSingleSegment(true))
	lying := plainRLE(2000, 1<<17, 100) // says 2,000 bytes and holds 13 million
	wide := append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x40, 0x88, 0xd0, 0x07 - 1}, small[6:]...)
	for _, c := range []struct {
		name string
		raw  uint32
		pack []byte
	}{
		{"a frame of 64 MiB", maxFrameRaw, huge},
		{"more than is announced", 2000, pack(zeros[:4000])},
		{"blocks beyond the content size", 2000, lying},
		{"a window of 128 MiB", 2000, wide},
		{"no content size", 2000, append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x00}, small[6:]...)},
		{"a second zstd frame", 2000, append(slices.Clone(small), huge...)},
		{"bytes behind", 2000, append(slices.Clone(small), 0)},
		{"a skippable frame", 2000, []byte{0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 0}},
		{"zeros for events", 2000, small},
		{"no zstd", 2000, zeros[:100]},
	} {
		h := frameHead{number: 1, events: 1, first: 7, last: 8, raw: c.raw, packed: uint32(len(c.pack))}
		file := sealFrame(writeBundle(t, frameFill, nil)[:bundleHeaderSize], h, c.pack)
		before := memory()
		frames, damage := readBundle(t, bytes.NewReader(file))
		if grown := memory() - before; grown > 4<<20 {
			t.Errorf("%s: %d bytes were allocated", c.name, grown)
		}
		if len(frames) > 0 || len(damage) != 2 || !strings.Contains(damage[0].Text, "refused") || damage[0].Frame != 1 {
			t.Errorf("%s: %d frames, damage %+v", c.name, len(frames), damage)
		}
		t.Logf("%s: %s", c.name, damage[0].Text)
	}
	claim := frameHead{number: 1, events: 1, raw: 1 << 31, packed: uint32(len(huge))}
	file := sealFrame(writeBundle(t, frameFill, nil)[:bundleHeaderSize], claim, huge)
	if frames, damage := readBundle(t, bytes.NewReader(file)); len(frames) > 0 || len(damage) != 1 {
		t.Errorf("a frame of 2 GiB: %d frames, damage %+v", len(frames), damage)
	}
}
