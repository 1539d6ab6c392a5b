package protocol

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// bundleEvents returns n signed events in the order of a bundle.
func bundleEvents(t testing.TB, r *rand.Rand, n int) []Event {
	t.Helper()
	var keys []SecretKey
	for i := range 5 {
		key, err := ParseSecretKey(keyOf(fmt.Sprint("bundle ", i)))
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
	}
	words := strings.Fields("the bridge is open nobody at gate bread water market tonight road blocked دیشب خیابان باز است")
	events := make([]Event, n)
	for i := range events {
		text := make([]string, 1+r.IntN(18))
		for j := range text {
			text[j] = words[r.IntN(len(words))]
		}
		d := Draft{CreatedAt: vectorNow - 1e6 + int64(r.IntN(n)), Kind: KindNote, Content: fmt.Sprint(i, " ", strings.Join(text, " "))}
		if r.IntN(3) == 0 {
			d.Tags = []Tag{{"t", words[r.IntN(8)]}}
		}
		e, err := keys[r.IntN(len(keys))].Sign(d)
		if err != nil {
			t.Fatal(err)
		}
		events[i] = e.WithNonce(r.Uint64() >> r.IntN(64))
	}
	slices.SortFunc(events, Event.Compare)
	return events
}

// writeBundle writes events with so many raw bytes to a frame.
func writeBundle(t testing.TB, fill int, events []Event) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := NewBundleWriter(&out, BundleHeader{Network: "test-1", From: 5, To: MaxBundleTime})
	if err != nil {
		t.Fatal(err)
	}
	w.fill = fill
	for i, e := range events {
		bound := w.SizeWith(e)
		if err := w.Add(e); err != nil {
			t.Fatal(err)
		}
		if size := w.Size(); size > bound || w.Count() != i+1 {
			t.Fatalf("Size() = %d after SizeWith() = %d; Count() = %d, want %d", size, bound, w.Count(), i+1)
		}
	}
	bound := w.Size()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if int64(out.Len()) > bound {
		t.Fatalf("the file has %d bytes, Size() said %d", out.Len(), bound)
	}
	return out.Bytes()
}

// readBundle reads all frames and the damage.
func readBundle(t testing.TB, r io.Reader) ([]BundleFrame, []BundleDamage) {
	t.Helper()
	b, err := NewBundleReader(r)
	if err != nil {
		t.Fatal(err)
	}
	frames, err := allFrames(b)
	if err != io.EOF {
		t.Fatal(err)
	}
	return frames, b.Damage()
}

func allFrames(b *BundleReader) (frames []BundleFrame, err error) {
	for {
		f, err := b.Next()
		if err != nil {
			return frames, err
		}
		frames = append(frames, f)
	}
}

func TestBundleRoundTrip(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(uint64(seed), 1))
	for _, n := range []int{0, 1, 2, 30, 800} {
		events := bundleEvents(t, r, n)
		for _, fill := range []int{1, 700, frameFill} {
			raw := writeBundle(t, fill, events)
			b, err := NewBundleReader(iotest.OneByteReader(bytes.NewReader(raw)))
			if err != nil {
				t.Fatal(err)
			}
			if want := (BundleHeader{"test-1", 5, MaxBundleTime}); b.Header() != want {
				t.Errorf("Header() = %+v, want %+v", b.Header(), want)
			}
			frames, err := allFrames(b)
			if err != io.EOF || len(b.Damage()) > 0 {
				t.Fatalf("%d events: %v, damage %+v", n, err, b.Damage())
			}
			sameEvents(t, frames, events)
		}
	}
}

// sameEvents demands that the frames hold the events and say the truth about them.
func sameEvents(t *testing.T, frames []BundleFrame, events []Event) {
	t.Helper()
	for i, f := range frames {
		if f.Number != i+1 || f.Events != len(f.Envelopes) || f.Events == 0 || f.Events > len(events) {
			t.Fatalf("frame %d: number %d, %d events, %d envelopes", i+1, f.Number, f.Events, len(f.Envelopes))
		}
		if f.First != events[0].CreatedAt() || f.Last != events[f.Events-1].CreatedAt() {
			t.Errorf("frame %d spans %d to %d", f.Number, f.First, f.Last)
		}
		for j, envelope := range f.Envelopes {
			e, err := ParseEnvelope(envelope, Check{Scope: Late, Now: time.Unix(vectorNow, 0)})
			if err != nil || e.ID() != events[j].ID() || e.Nonce() != events[j].Nonce() {
				t.Fatalf("frame %d, event %d: %v", f.Number, j, err)
			}
		}
		events = events[f.Events:]
	}
	if len(events) > 0 {
		t.Errorf("%d events did not come back", len(events))
	}
}

func TestBundleWriterRefusesDisorder(t *testing.T) {
	events := bundleEvents(t, rand.New(rand.NewPCG(1, 1)), 3)
	w, err := NewBundleWriter(io.Discard, BundleHeader{Network: "a", To: MaxBundleTime})
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		e    Event
		good bool
	}{{events[1], true}, {events[1], false}, {events[1].WithNonce(7), false}, {events[0], false}, {events[2], true}} {
		if err := w.Add(c.e); (err == nil) != c.good {
			t.Errorf("Add no. %d: %v", i, err)
		}
	}
	if w.Count() != 2 {
		t.Errorf("Count() = %d, want 2", w.Count())
	}
	key, err := ParseSecretKey(keyOf("alice"))
	if err != nil {
		t.Fatal(err)
	}
	kept, err := key.Sign(Draft{CreatedAt: vectorNow, Kind: 3})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Add(kept); verdict(err) != string(BadKind) {
		t.Errorf("an event that does not travel: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if w.Add(events[2]) == nil || w.Close() == nil {
		t.Error("a closed writer goes on")
	}
}

func TestBundleHeaderIsChecked(t *testing.T) {
	for _, h := range []BundleHeader{
		{}, {Network: "A"}, {Network: "a b"}, {Network: strings.Repeat("a", 33)}, {Network: "a", From: 2, To: 1},
		{Network: "a", From: -1}, {Network: "a", To: MaxBundleTime + 1}, {Network: "a\x00"},
	} {
		if _, err := NewBundleWriter(io.Discard, h); err == nil {
			t.Errorf("%+v was accepted", h)
		}
	}
	events := bundleEvents(t, rand.New(rand.NewPCG(1, 1)), 1)
	w, err := NewBundleWriter(io.Discard, BundleHeader{Network: "a", To: 1})
	if err != nil {
		t.Fatal(err)
	}
	if w.Add(events[0]) == nil {
		t.Error("an event outside the range was accepted")
	}
	for _, raw := range []string{"", "short", bundleMagic[:7], "\x28\xb5\x2f\xfdsomething of another kind"} {
		if _, err := NewBundleReader(strings.NewReader(raw)); err == nil {
			t.Errorf("%q was taken for a bundle", raw)
		}
	}
	newer := writeBundle(t, frameFill, nil)
	newer[8] = 2
	if b, err := NewBundleReader(bytes.NewReader(newer)); err != nil || len(b.Damage()) != 1 {
		t.Errorf("a changed version without its checksum is damage, not %v", err)
	}
	copy(newer[bundleHeaderSize-8:], sum8(newer[:bundleHeaderSize-8]))
	if _, err := NewBundleReader(bytes.NewReader(newer)); err == nil || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("a later version: %v", err)
	}
}

func TestBundleReportsFailingFiles(t *testing.T) {
	raw := writeBundle(t, 700, bundleEvents(t, rand.New(rand.NewPCG(1, 1)), 20))
	broken := errors.New("the stick is broken")
	for n := 0; n < len(raw); n += 50 {
		b, err := NewBundleReader(io.MultiReader(bytes.NewReader(raw[:n]), iotest.ErrReader(broken)))
		if err == nil {
			_, err = allFrames(b)
		}
		if !errors.Is(err, broken) {
			t.Fatalf("at byte %d: %v, want the reader's error", n, err)
		}
	}
	w, err := NewBundleWriter(&shortWriter{left: 200}, BundleHeader{Network: "a", To: MaxBundleTime})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Add(bundleEvents(t, rand.New(rand.NewPCG(1, 1)), 1)[0]); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); !errors.Is(err, io.ErrShortWrite) || w.Close() == nil {
		t.Errorf("a full disk: %v", err)
	}
}

type shortWriter struct{ left int }

func (w *shortWriter) Write(p []byte) (int, error) {
	if len(p) > w.left {
		return w.left, io.ErrShortWrite
	}
	w.left -= len(p)
	return len(p), nil
}

func BenchmarkWriteBundle(b *testing.B) {
	events := bundleEvents(b, rand.New(rand.NewPCG(1, 1)), 10_000)
	raw := 0
	for _, e := range events {
		raw += len(e.AppendEnvelope(nil))
	}
	b.SetBytes(int64(raw))
	for b.Loop() {
		w, err := NewBundleWriter(io.Discard, BundleHeader{Network: "a", To: MaxBundleTime})
		if err != nil {
			b.Fatal(err)
		}
		for _, e := range events {
			if err := w.Add(e); err != nil {
				b.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(raw)/float64(w.written), "ratio")
	}
	b.ReportMetric(float64(len(events)*b.N)/b.Elapsed().Seconds(), "events/s")
}

func BenchmarkReadBundle(b *testing.B) {
	events := bundleEvents(b, rand.New(rand.NewPCG(1, 1)), 10_000)
	file := writeBundle(b, frameFill, events)
	raw := 0
	for _, e := range events {
		raw += len(e.AppendEnvelope(nil))
	}
	b.SetBytes(int64(raw))
	for b.Loop() {
		frames, damage := readBundle(b, bytes.NewReader(file))
		if len(frames) == 0 || len(damage) > 0 {
			b.Fatal(damage)
		}
	}
	b.ReportMetric(float64(len(events)*b.N)/b.Elapsed().Seconds(), "events/s")
}
