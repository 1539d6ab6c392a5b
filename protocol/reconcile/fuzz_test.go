package reconcile

import (
	"errors"
	"math/rand"
	"testing"
)

// FuzzMessage reads any bytes as question and as answer: no panic, bounded output, and errors only for what is out of form.
func FuzzMessage(f *testing.F) {
	items := randomItems(rand.New(rand.NewSource(1)), 2000, 50_000)
	var loads int
	other, set := vector(f, items[:1000:1000]), buckets(f, items, 3600, &loads)
	for i := range set.buckets { // now: f must not be used inside the target
		if _, err := set.inside(i); err != nil {
			f.Fatal(err)
		}
	}
	for _, s := range []Set{other, set} {
		msg, err := Open(s)
		for range 4 {
			f.Add(msg)
			if err == nil && msg != nil {
				msg, err = Answer(set, msg, Limits{Bytes: 4096})
			}
			if err != nil {
				f.Fatal(err)
			}
			f.Add(msg)
			if msg, _, err = Resolve(other, msg, false, Limits{Bytes: 4096}); msg == nil {
				break
			}
		}
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		answer, err := Answer(set, msg, Limits{Bytes: 4096})
		if err != nil && !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrVersion) {
			t.Errorf("Answer() = %v", err)
		}
		if len(answer) > 4096 {
			t.Errorf("an answer of %d bytes, limit 4096", len(answer))
		}
		next, d, err := Resolve(set, msg, true, Limits{Bytes: 4096})
		if err == nil && (len(next) > 4096 || len(d.Need) > len(msg)/32 || len(d.Have) > set.Len()) {
			t.Errorf("%d bytes lead to %d, and to %d and %d differences", len(msg), len(next), len(d.Have), len(d.Need))
		}
	})
}
