package protocol

import (
	"crypto/cipher"
	"errors"
	"fmt"
	"io"

	"github.com/btcsuite/btcd/btcutil/bech32"
	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/crypto/scrypt"
	"golang.org/x/text/unicode/norm"
)

// NIP-49's layout: version ‖ log2 of scrypt's N ‖ salt ‖ nonce ‖ how the key was handled before ‖ ciphertext.
const (
	ncryptVersion = 2
	ncryptLogN    = 16 // 64 MiB and about 100 ms
	ncryptMaxLogN = 20 // 1 GiB: what a file from outside may make us spend
	ncryptSalt    = 16
	ncryptUnknown = 2 // "the client does not track" whether the key was ever handled insecurely
	ncryptSize    = 2 + ncryptSalt + chacha20poly1305.NonceSizeX + 1 + 32 + chacha20poly1305.Overhead
)

// ErrPassphrase is the error for a passphrase that does not open a key.
var ErrPassphrase = errors.New("the passphrase is wrong")

// Encrypt returns the key as ncryptsec1… (NIP-49), which opens with the passphrase only.
func (k SecretKey) Encrypt(passphrase string, random io.Reader) (string, error) {
	b := make([]byte, 2+ncryptSalt+chacha20poly1305.NonceSizeX, ncryptSize)
	b[0], b[1] = ncryptVersion, ncryptLogN
	if _, err := io.ReadFull(random, b[2:]); err != nil {
		return "", fmt.Errorf("encrypt the key: %w", err)
	}
	aead, err := ncryptCipher(passphrase, b[2:2+ncryptSalt], ncryptLogN)
	if err != nil {
		return "", err
	}
	nonce, handled := b[2+ncryptSalt:], []byte{ncryptUnknown}
	b = append(b, handled...)
	return encodeBech32("ncryptsec", aead.Seal(b, nonce, k.key.Serialize(), handled)), nil
}

// DecryptSecretKey opens an ncryptsec1… code (NIP-49). ErrPassphrase means that the passphrase is wrong.
func DecryptSecretKey(code, passphrase string) (SecretKey, error) {
	if len(code) > 2*ncryptSize {
		return SecretKey{}, errors.New("the encrypted key is not an ncryptsec1… code")
	}
	prefix, five, err := bech32.DecodeNoLimit(code)
	if err != nil || prefix != "ncryptsec" {
		return SecretKey{}, errors.New("the encrypted key is not an ncryptsec1… code")
	}
	b, err := bech32.ConvertBits(five, 5, 8, false)
	if err != nil || len(b) != ncryptSize || b[0] != ncryptVersion {
		return SecretKey{}, errors.New("the encrypted key is cut off or of an unknown version (NIP-49)")
	}
	if b[1] > ncryptMaxLogN {
		return SecretKey{}, fmt.Errorf("the encrypted key asks for 2^%d rounds of scrypt; 2^%d are the most", b[1], ncryptMaxLogN)
	}
	salt, rest := b[2:2+ncryptSalt], b[2+ncryptSalt:]
	aead, err := ncryptCipher(passphrase, salt, b[1])
	if err != nil {
		return SecretKey{}, err
	}
	nonce, rest := rest[:chacha20poly1305.NonceSizeX], rest[chacha20poly1305.NonceSizeX:]
	plain, err := aead.Open(nil, nonce, rest[1:], rest[:1])
	if err != nil {
		return SecretKey{}, ErrPassphrase
	}
	return secretKey(plain)
}

// ncryptCipher derives NIP-49's symmetric key: scrypt over the passphrase in NFKC form.
func ncryptCipher(passphrase string, salt []byte, logN byte) (cipher.AEAD, error) {
	key, err := scrypt.Key(norm.NFKC.Bytes([]byte(passphrase)), salt, 1<<logN, 8, 1, chacha20poly1305.KeySize)
	if err != nil {
		return nil, fmt.Errorf("derive a key from the passphrase: %w", err)
	}
	return chacha20poly1305.NewX(key)
}
