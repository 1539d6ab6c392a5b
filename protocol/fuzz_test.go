package protocol

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"reflect"
	"testing"
	"testing/iotest"
	"time"

	"github.com/nbd-wtf/go-nostr"
)

// The seeds are testdata/fuzz and all vectors. Signatures stop a fuzzer at once, so the targets look at what is
// decoded before them, and sign it again to go on.

func vectorSeeds(f *testing.F, file string, add func(input, inputHex, filter string)) {
	f.Helper()
	raw, err := os.ReadFile("testdata/vectors/" + file)
	if err != nil {
		f.Fatal(err)
	}
	var v struct {
		Cases []struct {
			Input, Filter string
			InputHex      string `json:"input_hex"`
		}
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		f.Fatal(err)
	}
	for _, c := range v.Cases {
		add(c.Input, c.InputHex, c.Filter)
	}
}

// sameInBothForms demands that e survives the envelope, and JSON if its texts are such that all write them alike.
func sameInBothForms(t *testing.T, e Event) {
	t.Helper()
	id, size := e.hash(nil)
	e.id = id
	env := e.AppendEnvelope(nil)
	back, err := Load(env)
	if err != nil || back.ID() != id || !bytes.Equal(back.AppendEnvelope(nil), env) {
		t.Fatalf("Load(%x): id %s, want %s (%v)", env, back.ID(), id, err)
	}
	if checkKept(&Event{content: e.content, tags: e.tags}) != nil {
		return
	}
	raw := e.AppendJSON(nil)
	if len(raw) != size+jsonOverhead {
		t.Fatalf("canonical JSON has %d bytes, counted were %d", len(raw), size+jsonOverhead)
	}
	f, err := decodeJSON(raw)
	if err != nil || !f.idGiven || f.id != id {
		t.Fatalf("decodeJSON(%s): id %s, want %s (%v)", raw, f.id, id, err)
	}
	if got, _ := f.hash(nil); got != id || !bytes.Equal(f.AppendJSON(nil), raw) {
		t.Fatalf("%s becomes %s", raw, f.AppendJSON(nil))
	}
}

// passesSigned signs what e says and demands that the door agrees with the rules.
func passesSigned(t *testing.T, e Event) {
	t.Helper()
	key, err := ParseSecretKey(keyOf("fuzz"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := key.Sign(Draft{CreatedAt: e.createdAt, Kind: e.kind, Tags: e.tags, Content: e.content})
	if err != nil {
		t.Fatal(err)
	}
	want := verdict(checkForm(&s, Live))
	if _, size := s.hash(nil); want == "ok" && size+jsonOverhead > MaxEventSize {
		want = string(TooLarge)
	}
	now := time.Unix(e.createdAt, 0)
	if want == "ok" && s.Expired(now) {
		want = string(Expired)
	}
	env := s.AppendEnvelope(nil)
	got, err := ParseEnvelope(env, Check{Scope: Live, Now: now, Shard: s.Shard()})
	if v := verdict(err); v != want && len(env) <= MaxEventSize {
		t.Fatalf("signed, %x has the verdict %q (%v), want %q", env, v, err, want)
	}
	if err == nil && got.ID() != s.ID() {
		t.Fatalf("the id of %x changed", env)
	}
}

func FuzzParseEnvelope(f *testing.F) {
	vectorSeeds(f, "envelopes.json", func(_, inputHex, _ string) {
		raw, err := hex.DecodeString(inputHex)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	})
	f.Fuzz(func(t *testing.T, raw []byte) {
		_, err := ParseEnvelope(raw, Check{Scope: Client, Now: time.Unix(vectorNow, 0)})
		d, decodeErr := decodeEnvelope(raw)
		if decodeErr != nil {
			if err == nil {
				t.Fatalf("%x was accepted and cannot be decoded: %v", raw, decodeErr)
			}
			return
		}
		if again := d.AppendEnvelope(nil); !bytes.Equal(again, raw) {
			t.Fatalf("%x has a second form %x", raw, again)
		}
		sameInBothForms(t, d.Event)
		passesSigned(t, d.Event)
	})
}

func FuzzParseJSON(f *testing.F) {
	vectorSeeds(f, "events.json", func(input, inputHex, _ string) {
		raw, err := hex.DecodeString(inputHex)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(append(raw, input...))
	})
	f.Fuzz(func(t *testing.T, raw []byte) {
		_, err := ParseJSON(raw, Check{Scope: Client, Now: time.Unix(vectorNow, 0)})
		d, decodeErr := decodeJSON(raw)
		if decodeErr != nil {
			if err == nil {
				t.Fatalf("%q was accepted and cannot be decoded: %v", raw, decodeErr)
			}
			return
		}
		if !json.Valid(raw) {
			t.Fatalf("%q is no JSON for encoding/json", raw)
		}
		sameInBothForms(t, d.Event)
		passesSigned(t, d.Event)
		var o nostr.Event
		if json.Unmarshal(raw, &o) != nil || checkKept(&Event{content: d.content, tags: d.tags}) != nil {
			return
		}
		if id, _ := d.hash(nil); o.GetID() != id.String() {
			t.Fatalf("%q has the id %s, for go-nostr %s", raw, id, o.GetID())
		}
	})
}

func FuzzParseFilter(f *testing.F) {
	vectorSeeds(f, "filters.json", func(_, _, filter string) { f.Add([]byte(filter)) })
	f.Fuzz(func(t *testing.T, raw []byte) {
		filter, err := ParseFilter(raw)
		if err != nil {
			return
		}
		if !json.Valid(raw) {
			t.Fatalf("%q is no JSON for encoding/json", raw)
		}
		form, err := filter.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseFilter(form)
		if err != nil || !reflect.DeepEqual(filter, again) {
			t.Fatalf("%q becomes %q (%v)", raw, form, err)
		}
	})
}

// A bundle comes from anywhere. Checksums stop a fuzzer too, so each input is also taken for what a frame with a good
// one holds: three bytes for the claims, then the payload.
func FuzzReadBundle(f *testing.F) {
	bundleSeeds(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		readsInPeace(t, raw)
		if len(raw) < 4 {
			return
		}
		h := frameHead{number: 1, events: uint32(raw[0]), raw: uint32(raw[1]) | uint32(raw[2])<<8, packed: uint32(len(raw) - 3)}
		readsInPeace(t, sealFrame(BundleHeader{Network: "fuzz", To: MaxBundleTime}.append(nil), h, raw[3:]))
	})
}

// readsInPeace demands that reading ends, stays within the limits, and gives the same when the bytes come one by one.
func readsInPeace(t *testing.T, raw []byte) {
	t.Helper()
	b, err := NewBundleReader(bytes.NewReader(raw))
	if err != nil {
		return
	}
	frames, err := allFrames(b)
	if err != io.EOF {
		t.Fatalf("reading from memory fails: %v", err)
	}
	slow, err := NewBundleReader(iotest.OneByteReader(bytes.NewReader(raw)))
	if err != nil {
		t.Fatal(err)
	}
	again, err := allFrames(slow)
	if err != io.EOF || !reflect.DeepEqual(again, frames) || !reflect.DeepEqual(slow.Damage(), b.Damage()) {
		t.Fatalf("byte by byte it reads %d frames, at once %d; %+v and %+v", len(again), len(frames), slow.Damage(), b.Damage())
	}
	if len(b.Damage()) > maxDamage || b.offset != int64(len(raw)) {
		t.Fatalf("%d damages, ended at byte %d of %d", len(b.Damage()), b.offset, len(raw))
	}
	for _, frame := range frames {
		size := 0
		for _, envelope := range frame.Envelopes {
			size += len(envelope)
		}
		if frame.Number < 1 || frame.Events != len(frame.Envelopes) || size > maxFrameRaw || frame.First > frame.Last {
			t.Fatalf("frame %d: %d events, %d envelopes with %d bytes", frame.Number, frame.Events, len(frame.Envelopes), size)
		}
	}
	for _, d := range b.Damage() {
		if d.Text == "" || d.Offset < 0 || d.Length < 0 || d.Offset+d.Length > int64(len(raw)) || d.Events < -1 {
			t.Fatalf("damage %+v", d)
		}
	}
}
