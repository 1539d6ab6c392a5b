package protocol

import (
	"math/rand"
	"testing"
	"time"

	"github.com/btcsuite/btcd/btcec/v2/schnorr"
)

// btcecVerify is the oracle.
func btcecVerify(e *Event) bool {
	key, err := schnorr.ParsePubKey(e.pubkey[:])
	if err != nil {
		return false
	}
	sig, err := schnorr.ParseSignature(e.sig[:])
	return err == nil && sig.Verify(e.id[:], key)
}

func TestVerificationAgreesWithBtcec(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewSource(seed))
	key, err := NewSecretKey(rng)
	if err != nil {
		t.Fatal(err)
	}
	good := 0
	for i := range 400 {
		e, err := key.Sign(Draft{CreatedAt: int64(i), Kind: KindNote, Content: "x"})
		if err != nil {
			t.Fatal(err)
		}
		switch i % 5 {
		case 1:
			e.sig[rng.Intn(64)] ^= 1 << rng.Intn(8)
		case 2:
			e.pubkey[rng.Intn(32)] ^= 1 << rng.Intn(8)
		case 3:
			e.id[rng.Intn(32)] ^= 1 << rng.Intn(8)
		case 4:
			for j := range 32 { // r or s at the edges of their ranges
				e.sig[j+32*(i/5%2)] = 0xff
			}
		}
		got, want := verifySignature(&e), btcecVerify(&e)
		if got != want {
			t.Fatalf("case %d: %v, btcec says %v", i, got, want)
		}
		if got {
			good++
		}
	}
	if good != 80 {
		t.Errorf("%d signatures were good, want the 80 untouched ones", good)
	}
}

func BenchmarkVerifyBtcec(b *testing.B) {
	key, _ := NewSecretKey(rand.New(rand.NewSource(1)))
	e, _ := key.Sign(Draft{CreatedAt: 1_790_000_000, Kind: KindNote, Content: "a note"})
	b.ReportAllocs()
	for b.Loop() {
		if !btcecVerify(&e) {
			b.Fatal("bad signature")
		}
	}
}
