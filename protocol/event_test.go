package protocol

import (
	"context"
	"crypto/rand"
	"strings"
	"testing"
	"time"
)

func TestEventSurvivesBothForms(t *testing.T) {
	key, err := NewSecretKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1_790_000_000, 0)
	d := Draft{CreatedAt: now.Unix(), Kind: KindNote, Content: "سلام \"دنیا\"\n<&>\u2028", Tags: []Tag{{"t", "iran"}, {"p", key.PubKey().String(), ""}}}
	e, err := key.Sign(d)
	if err != nil {
		t.Fatal(err)
	}
	nonce, err := Stamp(context.Background(), e.ID(), 12)
	if err != nil {
		t.Fatal(err)
	}
	e = e.WithNonce(nonce)
	if e.Work() < 12 {
		t.Errorf("Work() = %d, want at least 12", e.Work())
	}
	c := Check{Scope: Live, Now: now, Shard: e.Shard()}
	got, err := ParseEnvelope(e.AppendEnvelope(nil), c)
	if err != nil {
		t.Fatal(err)
	}
	if string(got.AppendEnvelope(nil)) != string(e.AppendEnvelope(nil)) || got.ID() != e.ID() {
		t.Errorf("ParseEnvelope changed the event")
	}
	got, err = ParseJSON(e.AppendJSON(nil), c)
	if err != nil {
		t.Fatal(err)
	}
	if string(got.AppendJSON(nil)) != string(e.AppendJSON(nil)) {
		t.Errorf("ParseJSON changed the event")
	}
	if size := len(e.AppendJSON(nil)); size != len(e.appendSerial(nil))+jsonOverhead {
		t.Errorf("jsonOverhead is wrong: %d bytes of JSON, %d of serialisation", size, len(e.appendSerial(nil)))
	}
}

func BenchmarkVerify(b *testing.B) {
	key, _ := NewSecretKey(rand.Reader)
	e, _ := key.Sign(Draft{CreatedAt: 1_790_000_000, Kind: KindNote, Content: "a note"})
	b.ReportAllocs()
	for b.Loop() {
		if !verifySignature(&e) {
			b.Fatal("bad signature")
		}
	}
}

func BenchmarkParseEnvelope(b *testing.B) {
	key, _ := NewSecretKey(rand.Reader)
	e, _ := key.Sign(Draft{CreatedAt: 1_790_000_000, Kind: KindNote, Content: "a note", Tags: []Tag{{"t", "iran"}}})
	raw := e.AppendEnvelope(nil)
	c := Check{Scope: Live, Now: time.Unix(1_790_000_000, 0), Shard: e.Shard()}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseEnvelope(raw, c); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkStamp20(b *testing.B) {
	var id ID
	for b.Loop() {
		id[0]++
		if _, err := Stamp(context.Background(), id, 20); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseJSON(b *testing.B) {
	key, _ := NewSecretKey(rand.Reader)
	e, _ := key.Sign(Draft{CreatedAt: 1_790_000_000, Kind: KindNote, Content: "سلام \"دنیا\"\n", Tags: []Tag{{"t", "iran"}, {"p", key.PubKey().String()}}})
	raw := e.AppendJSON(nil)
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decodeJSON(raw); err != nil { // without the signature, which would hide the rest
			b.Fatal(err)
		}
	}
}

func BenchmarkNoteLength(b *testing.B) {
	text := strings.Repeat("سلام nostr:", 8) + "nostr:npub1" + strings.Repeat("q", 58)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if NoteLength(text) != 8*11+10 {
			b.Fatal("wrong length")
		}
	}
}
