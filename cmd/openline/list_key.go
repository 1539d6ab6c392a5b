package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"openline/bootstrap"
	"openline/node/api"
)

// listKeyType is what "openssl genpkey -algorithm ed25519" writes, too: PKCS #8 (RFC 8410) in PEM.
const listKeyType = "PRIVATE KEY"

func publicListKey(key ed25519.PrivateKey) bootstrap.ListKey {
	return bootstrap.ListKey(key.Public().(ed25519.PublicKey))
}

// readListKey reads the key that signs lists.
func readListKey(file string) (ed25519.PrivateKey, error) {
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &api.Hint{Err: err, Hint: "openline list key " + file + " makes a new key"}
	}
	if err != nil {
		return nil, err
	}
	if block, _ := pem.Decode(raw); block != nil && block.Type == listKeyType {
		parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if key, ok := parsed.(ed25519.PrivateKey); ok && err == nil {
			return key, nil
		}
	}
	return nil, fmt.Errorf("%s holds no Ed25519 key in PEM", file)
}

// openListKey reads the key, or makes one if there is no such file.
func openListKey(file string) (key ed25519.PrivateKey, made bool, err error) {
	key, err = readListKey(file)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, false, err
	}
	if _, key, err = ed25519.GenerateKey(rand.Reader); err != nil {
		return nil, false, err
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, false, err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, false, fmt.Errorf("write the key: %w", err)
	}
	err = errors.Join(pem.Encode(f, &pem.Block{Type: listKeyType, Bytes: raw}), f.Sync(), f.Close())
	if err != nil {
		return nil, false, errors.Join(fmt.Errorf("write the key: %w", err), os.Remove(file))
	}
	return key, true, nil
}
