package protocol

// This file and its siblings vectors_*_test.go make testdata/vectors. Verdicts are stated in the tables; ids and
// signatures come from go-nostr; canonical JSON, envelopes, shards and work from the few lines below, which share
// nothing with the code under test. Run "go test ./protocol -run Reproducible -update" after changing a table.

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/nbd-wtf/go-nostr"
)

var update = flag.Bool("update", false, "write testdata/vectors instead of comparing with it")

// vectorNow is the clock of the vectors: 2026-09-21 13:33:20 UTC.
const vectorNow = 1_790_000_000

func TestVectorsAreReproducible(t *testing.T) {
	g := &generator{t: t, names: map[string]bool{}}
	for _, add := range []func(*generator){
		noteCases, referenceCases, textCases, tagCases, topicCases, expirationCases, kindCases, clockCases,
		sizeCases, shardCases, jsonFormCases, jsonNumberCases, jsonStringCases, signatureCases, orderCases,
	} {
		add(g)
	}
	g.write("events.json", g.take())
	for _, add := range []func(*generator){
		envelopeCases, envelopeFieldCases, envelopeVarintCases, envelopeTagCases, envelopeTextCases, envelopeRuleCases,
	} {
		add(g)
	}
	g.write("envelopes.json", g.take())
	g.write("work.json", workCases(t))
	g.write("shards.json", shardVectors())
	g.write("filters.json", filterCases(t))
	g.write("bundles.json", bundleCases())
	g.write("invites.json", inviteCases(t))
	g.write("lists.json", listCases())
}

type generator struct {
	t     *testing.T
	cases []vector
	names map[string]bool
}

func (g *generator) take() []vector {
	cases := g.cases
	g.cases = nil
	return cases
}

// write writes the file with -update and compares with it otherwise.
func (g *generator) write(file string, cases any) {
	g.t.Helper()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	if err := enc.Encode(map[string]any{"about": "openline vectors, see protocol/SPEC.md section 12", "cases": cases}); err != nil {
		g.t.Fatal(err)
	}
	path := filepath.Join("testdata", "vectors", file)
	if *update {
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			g.t.Fatal(err)
		}
		return
	}
	old, err := os.ReadFile(path)
	if err != nil {
		g.t.Fatal(err)
	}
	if !bytes.Equal(old, b.Bytes()) {
		g.t.Errorf("%s is not what the tables say: run this test with -update and look at the difference", path)
	}
}

// Two authors, whose keys are the hashes of their names.
func keyOf(name string) string {
	h := sha256.Sum256([]byte("openline vectors " + name))
	return hex.EncodeToString(h[:])
}

func signed(e nostr.Event) nostr.Event { return signedBy("alice", e) }

func signedBy(name string, e nostr.Event) nostr.Event {
	if e.CreatedAt == 0 {
		e.CreatedAt = vectorNow
	}
	if err := e.Sign(keyOf(name)); err != nil {
		panic(err)
	}
	return e
}

func note(text string, tags ...nostr.Tag) nostr.Event {
	return nostr.Event{Kind: 1, Content: text, Tags: tags}
}

func kindOf(kind int, text string, tags ...nostr.Tag) nostr.Event {
	return nostr.Event{Kind: kind, Content: text, Tags: tags}
}

func at(seconds int64, e nostr.Event) nostr.Event {
	e.CreatedAt = nostr.Timestamp(seconds)
	return e
}

type option func(*vector)

func scope(s string) option       { return func(v *vector) { v.Scope = s } }
func characters(n int) option     { return func(v *vector) { v.Characters = n } }
func under(shard int) option      { return func(v *vector) { v.Shard = shard } }
func input(raw string) option     { return func(v *vector) { v.Input = raw } }
func stamped(nonce uint64) option { return func(v *vector) { v.Nonce = strconv.FormatUint(nonce, 10) } }

func (v *vector) apply(options []option) {
	for _, o := range options {
		o(v)
	}
}

// event adds a case whose input is e's JSON, or what the option input says.
func (g *generator) event(name, verdict string, e nostr.Event, options ...option) {
	g.t.Helper()
	if e.Sig == "" {
		e = signed(e)
	}
	v := g.vector(name, verdict, e)
	v.Input = plainJSON(e)
	v.apply(options)
	if !utf8.ValidString(v.Input) {
		v.InputHex, v.Input = hex.EncodeToString([]byte(v.Input)), ""
	}
	if verdict == "ok" {
		g.describe(&v, e)
		if Travels(uint16(e.Kind)) {
			v.Envelope = hex.EncodeToString(wire(e, 0))
		}
	}
	g.cases = append(g.cases, v)
}

// envelope adds a case whose input is raw; e is the event that it carries when all is well.
func (g *generator) envelope(name, verdict string, raw []byte, e nostr.Event, options ...option) {
	g.t.Helper()
	v := g.vector(name, verdict, e)
	v.InputHex = hex.EncodeToString(raw)
	v.apply(options)
	if verdict == "ok" {
		if v.Nonce == "" {
			v.Nonce = "0"
		}
		nonce, _ := strconv.ParseUint(v.Nonce, 10, 64)
		g.describe(&v, e)
		v.Envelope = hex.EncodeToString(wire(e, nonce))
		work := plainWork(e.ID, nonce)
		v.Work = &work
	}
	g.cases = append(g.cases, v)
}

func (g *generator) vector(name, verdict string, e nostr.Event) vector {
	g.t.Helper()
	if g.names[name] {
		g.t.Fatalf("two cases are called %q", name)
	}
	g.names[name] = true
	good, _ := e.CheckSignature()
	if good != (verdict != string(BadSignature)) && !strings.Contains(name, "order:") {
		g.t.Fatalf("%s: go-nostr says %v of the signature, and the verdict is %q", name, good, verdict)
	}
	return vector{Name: name, Scope: "live", Now: vectorNow, Shard: plainShard(e), Verdict: verdict}
}

// describe adds what must be known of a good event.
func (g *generator) describe(v *vector, e nostr.Event) {
	g.t.Helper()
	if !e.CheckID() {
		g.t.Fatalf("%s: go-nostr does not confirm the id", v.Name)
	}
	v.ID, v.JSON = e.ID, plainJSON(e)
}

var plainEscapes = strings.NewReplacer("\\", `\\`, "\"", `\"`, "\n", `\n`, "\t", `\t`, "\r", `\r`, "\b", `\b`, "\f", `\f`)

// plainString escapes the characters that no good text has as \u00XX, so that bad texts can be written down.
func plainString(s string) string {
	s = plainEscapes.Replace(s)
	for c := range 0x20 {
		s = strings.ReplaceAll(s, string(rune(c)), fmt.Sprintf(`\u%04x`, c))
	}
	return `"` + s + `"`
}

// plainJSON is the canonical JSON of a good event.
func plainJSON(e nostr.Event) string {
	tags := make([]string, len(e.Tags))
	for i, tag := range e.Tags {
		values := make([]string, len(tag))
		for j, v := range tag {
			values[j] = plainString(v)
		}
		tags[i] = "[" + strings.Join(values, ",") + "]"
	}
	return fmt.Sprintf(`{"id":"%s","pubkey":"%s","created_at":%d,"kind":%d,"tags":[%s],"content":%s,"sig":"%s"}`,
		e.ID, e.PubKey, e.CreatedAt, e.Kind, strings.Join(tags, ","), plainString(e.Content), e.Sig)
}

func plainShard(e nostr.Event) int {
	for _, tag := range e.Tags {
		if len(tag) > 1 && tag[0] == "t" {
			h := sha256.Sum256([]byte(tag[1]))
			return int(h[0]) % 8
		}
	}
	raw, _ := hex.DecodeString(e.PubKey)
	h := sha256.Sum256(raw)
	return int(h[0]) % 8
}

func plainWork(id string, nonce uint64) int {
	raw, _ := hex.DecodeString(id)
	work := 256 - new(big.Int).SetBytes(raw).BitLen()
	if nonce != 0 {
		h := sha256.Sum256(binary.BigEndian.AppendUint64(raw, nonce))
		work = max(work, 256-new(big.Int).SetBytes(h[:]).BitLen())
	}
	return work
}
