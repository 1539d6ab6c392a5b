package protocol

import (
	"crypto/rand"
	"errors"
	"testing"

	"github.com/nbd-wtf/go-nostr/nip49"
)

// The example of NIP-49.
const (
	nip49Code = "ncryptsec1qgg9947rlpvqu76pj5ecreduf9jxhselq2nae2kghhvd5g7dgjtcxfqtd67p9m0w57lspw8gsq6yphnm8623nsl8xn9j4jdzz84zm3frztj3z7s35vpzmqf6ksu8r89qk5z2zxfmu5gv8th8wclt0h4p"
	nip49Key  = "3501454135014541350145413501453fefb02227e449e57cf4d3a3ce05378683"
)

func TestEncryptedKeyOpensWithItsPassphraseOnly(t *testing.T) {
	want, err := ParseSecretKey(nip49Key)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := DecryptSecretKey(nip49Code, "nostr"); err != nil || got.Nsec() != want.Nsec() {
		t.Errorf("NIP-49's example does not open: %v", err)
	}
	code, err := want.Encrypt("Åß کلید", rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := nip49.Decrypt(code, "Åß کلید"); err != nil || plain != nip49Key {
		t.Errorf("go-nostr opens our code with %v", err)
	}
	if _, err := DecryptSecretKey(code, "wrong"); !errors.Is(err, ErrPassphrase) {
		t.Errorf("a wrong passphrase gives %v, want ErrPassphrase", err)
	}
	for _, bad := range []string{"", "ncryptsec1", nip49Code[:len(nip49Code)-1], want.Nsec()} {
		if _, err := DecryptSecretKey(bad, "nostr"); err == nil || errors.Is(err, ErrPassphrase) {
			t.Errorf("DecryptSecretKey(%.12q…) = %v, want an error about the code", bad, err)
		}
	}
}
