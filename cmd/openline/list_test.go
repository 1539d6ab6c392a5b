package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"openline/protocol"
)

// No list that holds less than an hour can be signed by the program, so the expired one is signed here.
func TestAnExpiredListIsShownAndRefused(t *testing.T) {
	l := protocol.List{Network: "main", Version: 3, Expires: time.Now().Unix() - 1, Peers: []protocol.InvitePeer{
		{Key: [32]byte{1}, Addrs: [][]byte{{4, 192, 0, 2, 1, 6, 1, 187}}},
		{Key: [32]byte{1}, Addrs: [][]byte{{255}}}, // of a later version
	}}
	text, err := l.Sign(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "list")
	writeTestFile(t, file, []byte(text))
	code, out, errOut := verbs("list", "verify", file)
	if code != exitFailed || !strings.Contains(out, "2 nodes by tcp; 1 of them this version cannot reach") || !strings.Contains(errOut, "has expired") {
		t.Errorf("exit %d, %q, %q", code, out, errOut)
	}
	code, out, _ = verbs("list", "verify", "--json", file)
	var r listReport
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	if code != exitFailed || !r.Expired || r.Version != 3 || r.Peers != 2 || r.Unreachable != 1 {
		t.Errorf("exit %d, %+v", code, r)
	}
}
