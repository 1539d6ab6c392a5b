package reconcile

import (
	"encoding/hex"
	"math/rand"
	"slices"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"
	"github.com/nbd-wtf/go-nostr/nip77/negentropy"
	nvector "github.com/nbd-wtf/go-nostr/nip77/negentropy/storage/vector"
)

// theirs is the set of an independent implementation.
func theirs(items []Item) negentropy.Storage {
	v := nvector.New()
	for _, i := range items {
		v.Insert(nostr.Timestamp(i.Time), hex.EncodeToString(i.ID[:]))
	}
	v.Seal()
	return v
}

// TestInteroperates reconciles with go-nostr, once asking and once answering.
func TestInteroperates(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewSource(seed))
	for range 30 {
		all := randomItems(rng, 200+rng.Intn(3000), 1+rng.Int63n(100_000))
		var a, b []Item
		for _, i := range all {
			switch rng.Intn(20) {
			case 0:
				a = append(a, i)
			case 1:
				b = append(b, i)
			default:
				a, b = append(a, i), append(b, i)
			}
		}
		t.Run("we ask", func(t *testing.T) { weAsk(t, a, b) })
		t.Run("they ask", func(t *testing.T) { theyAsk(t, b, a) })
	}
}

func weAsk(t *testing.T, ours, other []Item) {
	server := negentropy.New(theirs(other), 0)
	set := vector(t, slices.Clone(ours))
	msg, err := Open(set)
	var d Difference
	for rounds := 0; msg != nil; rounds++ {
		if err != nil || rounds > 100 {
			t.Fatalf("after %d rounds: %v", rounds, err)
		}
		answer, err := server.Reconcile(hex.EncodeToString(msg))
		if err != nil {
			t.Fatal(err)
		}
		raw, err := hex.DecodeString(answer)
		if err != nil {
			t.Fatal(err)
		}
		next, step, err := Resolve(set, raw, false, Limits{})
		if err != nil {
			t.Fatal(err)
		}
		msg = next
		d.Have, d.Need = append(d.Have, step.Have...), append(d.Need, step.Need...)
	}
	if !slices.Equal(sortedIDs(ids(d.Have)), sortedIDs(difference(ours, other))) || !slices.Equal(sortedIDs(d.Need), sortedIDs(difference(other, ours))) {
		t.Errorf("%d to give and %d to get; want %d and %d", len(d.Have), len(d.Need),
			len(difference(ours, other)), len(difference(other, ours)))
	}
}

func theyAsk(t *testing.T, asking, ours []Item) {
	client := negentropy.New(theirs(asking), 0)
	set := vector(t, slices.Clone(ours))
	haves, lacks := make(chan []ID), make(chan []ID)
	go func() { haves <- collect(client.Haves) }() // side by side: the channels are small, and the client blocks on each
	go func() { lacks <- collect(client.HaveNots) }()
	for msg := client.Start(); msg != ""; {
		raw, err := hex.DecodeString(msg)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := Answer(set, raw, Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if msg, err = client.Reconcile(hex.EncodeToString(answer)); err != nil {
			t.Fatal(err)
		}
	}
	have, lack := <-haves, <-lacks
	if !slices.Equal(sortedIDs(have), sortedIDs(difference(asking, ours))) || !slices.Equal(sortedIDs(lack), sortedIDs(difference(ours, asking))) {
		t.Errorf("they have %d and lack %d; want %d and %d", len(have), len(lack),
			len(difference(asking, ours)), len(difference(ours, asking)))
	}
}

func collect(ch chan string) []ID {
	var list []ID
	for s := range ch {
		raw, err := hex.DecodeString(s)
		if err == nil && len(raw) == 32 {
			list = append(list, ID(raw))
		}
	}
	return list
}
