package api

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/nbd-wtf/go-nostr"
	"github.com/nbd-wtf/go-nostr/nip77/negentropy"
	"github.com/nbd-wtf/go-nostr/nip77/negentropy/storage/vector"
)

// TestAnotherProgramReconciles: go-nostr finds out over the websocket what it lacks and what this node lacks (NIP-77).
func TestAnotherProgramReconciles(t *testing.T) {
	f := newFake()
	have := vector.New()
	var lack []string
	for i := range 500 {
		e := f.note(fmt.Sprint("note ", i), "x")
		if _, err := f.Publish(t.Context(), e.AppendJSON(nil)); err != nil {
			t.Fatal(err)
		}
		if i%50 == 0 {
			lack = append(lack, e.ID().String())
		} else {
			have.Insert(nostr.Timestamp(e.CreatedAt()), e.ID().String())
		}
	}
	const ours = "00000000000000000000000000000000000000000000000000000000000000aa"
	have.Insert(1_790_000_000, ours)
	have.Seal()
	c := serve(t, f, nil).dial()
	client := negentropy.New(have, 0)
	haves, needs := drain(client.Haves), drain(client.HaveNots)
	c.send(fmt.Sprintf(`["NEG-OPEN","n",{"#t":["x"]},"%s"]`, client.Start()))
	for {
		var m []string
		if err := json.Unmarshal([]byte(c.receive()), &m); err != nil || len(m) != 3 || m[0] != "NEG-MSG" || m[1] != "n" {
			t.Fatalf("received %v, %v", m, err)
		}
		next, err := client.Reconcile(m[2])
		if err != nil {
			t.Fatal(err)
		}
		if next == "" {
			break
		}
		c.send(fmt.Sprintf(`["NEG-MSG","n","%s"]`, next))
	}
	c.send(`["NEG-CLOSE","n"]`)
	if got := <-haves; !slices.Equal(got, []string{ours}) {
		t.Errorf("the client shall give %v", got)
	}
	got := <-needs
	slices.Sort(got)
	slices.Sort(lack)
	if !slices.Equal(got, lack) {
		t.Errorf("the client lacks %d events, want %d", len(got), len(lack))
	}
	c.send(`["NEG-MSG","n","61"]`)
	if m := c.receive(); !strings.HasPrefix(m, `["NEG-ERR","n","closed: `) {
		t.Errorf("after NEG-CLOSE: %s", m)
	}
}

// drain collects what comes out of ch until it is closed.
func drain(ch chan string) chan []string {
	all := make(chan []string, 1)
	go func() {
		var list []string
		for s := range ch {
			if raw, err := hex.DecodeString(s); err == nil && len(raw) == 32 {
				list = append(list, s)
			}
		}
		all <- list
	}()
	return all
}

func TestReconciliationsAreRefusedInWords(t *testing.T) {
	f := newFake()
	for i := range 3 {
		if _, err := f.Publish(t.Context(), f.note(fmt.Sprint(i)).AppendJSON(nil)); err != nil {
			t.Fatal(err)
		}
	}
	c := serve(t, f, func(cfg *Config) { cfg.Limits.Reconciled = 2 }).dial()
	for message, want := range map[string]string{
		`["NEG-OPEN","a",{},"61"]`:                    `["NEG-ERR","a","blocked: this query is too big`,
		`["NEG-OPEN","a",{"kinds":[7]},"xyz"]`:        `["NEG-ERR","a","invalid: the message is not hex"`,
		`["NEG-OPEN","a",{"kinds":[7]},"61ff"]`:       `["NEG-ERR","a","invalid: `,
		`["NEG-OPEN","a",{"bogus":1},"61"]`:           `["NEG-ERR","a","invalid: `,
		`["NEG-OPEN","a",{"kinds":[7]},"62"]`:         `["NEG-MSG","a","61"]`,
		`["NEG-OPEN","a"]`:                            `["NOTICE","usage: `,
		`["NEG-OPEN","",{},"61"]`:                     `["NOTICE","a subscription id`,
		`["NEG-MSG","never opened","61"]`:             `["NEG-ERR","never opened","closed: `,
		`["NEG-OPEN","a",{"kinds":[7]},"6100000200"]`: `["NEG-MSG","a","61`,
	} {
		c.send(message)
		if got := c.receive(); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s…", message, got, want)
		}
	}
	c.send(`["NEG-CLOSE","a"]`)
	for i := range maxNegentropy + 1 {
		c.send(fmt.Sprintf(`["NEG-OPEN","s%d",{"kinds":[7]},"61"]`, i))
		want := fmt.Sprintf(`["NEG-MSG","s%d"`, i)
		if i == maxNegentropy {
			want = `["NEG-ERR","s8","blocked: `
		}
		if got := c.receive(); !strings.HasPrefix(got, want) {
			t.Errorf("reconciliation %d: %s, want %s…", i, got, want)
		}
	}
}
