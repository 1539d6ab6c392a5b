package protocol

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// vector is one case of events.json and envelopes.json, as SPEC.md section 12 describes it.
type vector struct {
	Name       string `json:"name"`
	Scope      string `json:"scope"`
	Now        int64  `json:"now"`
	Shard      int    `json:"shard"`
	Input      string `json:"input,omitempty"`
	InputHex   string `json:"input_hex,omitempty"`
	Verdict    string `json:"verdict"`
	ID         string `json:"id,omitempty"`
	Characters int    `json:"characters,omitempty"`
	JSON       string `json:"json,omitempty"`
	Envelope   string `json:"envelope,omitempty"`
	Nonce      string `json:"nonce,omitempty"`
	Work       *int   `json:"work,omitempty"`
}

type workVector struct {
	Name  string `json:"name"`
	ID    string `json:"id"`
	Nonce string `json:"nonce"`
	Work  int    `json:"work"`
}

type shardVector struct {
	Name   string     `json:"name"`
	Author string     `json:"author"`
	Tags   [][]string `json:"tags"`
	Shard  int        `json:"shard"`
}

type filterVector struct {
	Name    string `json:"name"`
	Filter  string `json:"filter"`
	Event   string `json:"event,omitempty"`
	Verdict string `json:"verdict"`
}

func readVectors[V any](t *testing.T, file string) []V {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", "vectors", file))
	if err != nil {
		t.Fatal(err)
	}
	var f struct{ Cases []V }
	if err := json.Unmarshal(raw, &f); err != nil {
		t.Fatal(err)
	}
	return f.Cases
}

func (v vector) input(t *testing.T) []byte {
	t.Helper()
	if v.InputHex == "" {
		return []byte(v.Input)
	}
	raw, err := hex.DecodeString(v.InputHex)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func (v vector) check(t *testing.T) Check {
	t.Helper()
	scope, ok := map[string]Scope{"client": Client, "live": Live, "late": Late}[v.Scope]
	if !ok {
		t.Fatalf("unknown scope %q", v.Scope)
	}
	return Check{Scope: scope, Now: time.Unix(v.Now, 0), Shard: v.Shard}
}

// verdict is the text of the code in err, "ok" for none.
func verdict(err error) string {
	var r *Rejection
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &r):
		return string(r.Code)
	}
	return "not a rejection: " + err.Error()
}

func TestEventVectors(t *testing.T) {
	for _, v := range readVectors[vector](t, "events.json") {
		t.Run(v.Name, func(t *testing.T) {
			raw := v.input(t)
			e, err := ParseJSON(raw, v.check(t))
			if got := verdict(err); got != v.Verdict {
				t.Fatalf("verdict %q (%v), want %q", got, err, v.Verdict)
			}
			if f, err := decodeJSON(raw); err == nil && v.Characters != 0 && NoteLength(f.content) != v.Characters {
				t.Errorf("NoteLength() = %d, want %d", NoteLength(f.content), v.Characters)
			}
			if err == nil {
				v.compare(t, e)
			}
		})
	}
}

func TestEnvelopeVectors(t *testing.T) {
	for _, v := range readVectors[vector](t, "envelopes.json") {
		t.Run(v.Name, func(t *testing.T) {
			e, err := ParseEnvelope(v.input(t), v.check(t))
			if got := verdict(err); got != v.Verdict {
				t.Fatalf("verdict %q (%v), want %q", got, err, v.Verdict)
			}
			if err == nil {
				v.compare(t, e)
			}
		})
	}
}

// compare compares e with all that the vector says of it.
func (v vector) compare(t *testing.T, e Event) {
	t.Helper()
	if e.ID().String() != v.ID {
		t.Errorf("id %s, want %s", e.ID(), v.ID)
	}
	if got := string(e.AppendJSON(nil)); v.JSON != "" && got != v.JSON {
		t.Errorf("canonical JSON\n got %s\nwant %s", got, v.JSON)
	}
	if got := hex.EncodeToString(e.AppendEnvelope(nil)); v.Envelope != "" && got != v.Envelope {
		t.Errorf("envelope\n got %s\nwant %s", got, v.Envelope)
	}
	if v.Nonce != "" && strconv.FormatUint(e.Nonce(), 10) != v.Nonce {
		t.Errorf("Nonce() = %d, want %s", e.Nonce(), v.Nonce)
	}
	if v.Work != nil && e.Work() != *v.Work {
		t.Errorf("Work() = %d, want %d", e.Work(), *v.Work)
	}
}

func TestWorkVectors(t *testing.T) {
	for _, v := range readVectors[workVector](t, "work.json") {
		id, err := ParseID(v.ID)
		if err != nil {
			t.Fatal(err)
		}
		nonce, err := strconv.ParseUint(v.Nonce, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if got := (Event{id: id, nonce: nonce}).Work(); got != v.Work {
			t.Errorf("%s: Work() = %d, want %d", v.Name, got, v.Work)
		}
	}
}

func TestShardVectors(t *testing.T) {
	for _, v := range readVectors[shardVector](t, "shards.json") {
		var e Event
		if !unhex(e.pubkey[:], v.Author) {
			t.Fatalf("%s: bad author", v.Name)
		}
		for _, tag := range v.Tags {
			e.tags = append(e.tags, Tag(tag))
		}
		if got := e.Shard(); got != v.Shard {
			t.Errorf("%s: Shard() = %d, want %d", v.Name, got, v.Shard)
		}
		if topics := e.Topics(); len(topics) > 0 && TopicShard(topics[0]) != v.Shard {
			t.Errorf("%s: TopicShard(%q) = %d, want %d", v.Name, topics[0], TopicShard(topics[0]), v.Shard)
		}
	}
}

func TestFilterVectors(t *testing.T) {
	for _, v := range readVectors[filterVector](t, "filters.json") {
		t.Run(v.Name, func(t *testing.T) {
			f, err := ParseFilter([]byte(v.Filter))
			if err != nil || v.Event == "" {
				if got := verdict(err); got != v.Verdict {
					t.Errorf("verdict %q (%v), want %q", got, err, v.Verdict)
				}
				return
			}
			e, err := ParseJSON([]byte(v.Event), Check{Scope: Late, Now: time.Unix(vectorNow, 0)})
			if err != nil {
				t.Fatal(err)
			}
			if got, want := f.Matches(e), v.Verdict == "match"; got != want {
				t.Errorf("Matches() = %v, want %v", got, want)
			}
		})
	}
}

// Every code that the parser can utter must be reached by the event vectors and those of the wire by the envelopes.
func TestVectorsReachEveryCode(t *testing.T) {
	for file, codes := range map[string][]Code{
		"events.json": {Malformed, TooLarge, BadKind, BadText, BadTag, Protected, WrongShard, BadID, BadSignature, Stale, Ahead, Expired},
		// TooLarge's other form and BadID need JSON.
		"envelopes.json": {Malformed, TooLarge, BadKind, BadText, BadTag, Protected, WrongShard, BadSignature, Stale, Ahead, Expired},
	} {
		reached := map[string]int{}
		for _, v := range readVectors[vector](t, file) {
			reached[v.Verdict]++
		}
		for _, c := range append(codes, "ok") {
			if reached[string(c)] == 0 {
				t.Errorf("%s has no case with the verdict %q", file, c)
			}
		}
	}
}

// The example of SPEC.md section 11 is a vector too, so it cannot be wrong.
func TestSpecExampleIsAVector(t *testing.T) {
	spec, err := os.ReadFile("SPEC.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range readVectors[vector](t, "envelopes.json") {
		if v.Name != "envelope: the example of SPEC.md" {
			continue
		}
		if !strings.Contains(string(spec), "\n"+v.JSON+"\n") || !strings.Contains(string(spec), "nonce "+v.Nonce+"\n") {
			t.Errorf("SPEC.md does not have the event %s with nonce %s", v.JSON, v.Nonce)
		}
		_, block, _ := strings.Cut(string(spec), "```hex\n")
		block, _, _ = strings.Cut(block, "```")
		block = regexp.MustCompile(`#.*|\s`).ReplaceAllString(block, "")
		if block != v.Envelope {
			t.Errorf("the envelope in SPEC.md is\n%s, want\n%s", block, v.Envelope)
		}
		return
	}
	t.Error("envelopes.json has no example")
}
