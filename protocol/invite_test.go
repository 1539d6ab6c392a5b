package protocol

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"reflect"
	"strings"
	"testing"
	"time"
)

// inviteKey is the key of the vectors.
func inviteKey() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32)) }

func sampleInvite() Invite {
	token := InviteToken{1, 2, 3}
	return Invite{Network: "main", Expires: 1_800_000_000, Peers: []InvitePeer{
		{Key: [32]byte{1}, Addrs: [][]byte{{4, 192, 0, 2, 1, 6, 1, 187}, {4, 192, 0, 2, 2, 6, 1, 187}}, Token: &token},
		{Key: [32]byte{2}, Addrs: [][]byte{{4, 192, 0, 2, 3, 6, 1, 187}}},
	}}
}

func TestInvitesComeBackFromTheirLink(t *testing.T) {
	want := sampleInvite()
	link, err := want.Sign(inviteKey())
	if err != nil {
		t.Fatal(err)
	}
	copy(want.From[:], inviteKey().Public().(ed25519.PublicKey))
	broken := link[:40] + "\n  " + link[40:] + "\n" // as messengers break lines
	for _, l := range []string{link, broken} {
		got, err := ParseInvite(l)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("ParseInvite() = %+v, want %+v", got, want)
		}
	}
	if !want.Expired(time.Unix(1_800_000_000, 0)) || want.Expired(time.Unix(1_799_999_999, 0)) {
		t.Error("Expired is off")
	}
	t.Logf("%d characters with two peers and three addresses", len(link))
}

func TestNoByteOfAnInviteCanChange(t *testing.T) {
	link, err := sampleInvite().Sign(inviteKey())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(link, InviteScheme))
	if err != nil {
		t.Fatal(err)
	}
	for i := range raw {
		changed := bytes.Clone(raw)
		changed[i] ^= 1
		if _, err := ParseInvite(InviteScheme + base64.RawURLEncoding.EncodeToString(changed)); err == nil {
			t.Errorf("byte %d changed and nobody noticed", i)
		}
		if _, err := ParseInvite(InviteScheme + base64.RawURLEncoding.EncodeToString(raw[:i])); err == nil {
			t.Errorf("cut after %d bytes and nobody noticed", i)
		}
	}
}

func TestInvitesThatNobodyMayMake(t *testing.T) {
	for name, spoil := range map[string]func(*Invite){
		"no network":    func(i *Invite) { i.Network = "" },
		"no expiry":     func(i *Invite) { i.Expires = 0 },
		"no peers":      func(i *Invite) { i.Peers = nil },
		"six peers":     func(i *Invite) { i.Peers = make([]InvitePeer, 6) },
		"no address":    func(i *Invite) { i.Peers[0].Addrs = nil },
		"empty address": func(i *Invite) { i.Peers[0].Addrs = [][]byte{{}} },
		"long address":  func(i *Invite) { i.Peers[0].Addrs = [][]byte{make([]byte, MaxInviteAddr+1)} },
		"long link": func(i *Invite) {
			i.Peers[0].Addrs = [][]byte{make([]byte, 500), make([]byte, 500), make([]byte, 500), make([]byte, 500), make([]byte, 500)}
		},
	} {
		i := sampleInvite()
		spoil(&i)
		if _, err := i.Sign(inviteKey()); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
}

// FuzzInvite: whatever is read is written the same way again.
func FuzzInvite(f *testing.F) {
	link, err := sampleInvite().Sign(inviteKey())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(link)
	f.Add(InviteScheme)
	f.Add("openline:join?AAAA")
	f.Fuzz(func(t *testing.T, link string) {
		i, err := ParseInvite(link)
		if err != nil {
			return
		}
		if err := i.check(); err != nil {
			t.Errorf("read, but not to be written: %v", err)
		}
	})
}

// FuzzInviteFields reads what stands behind the text form, which a mutated link seldom gets past.
func FuzzInviteFields(f *testing.F) {
	link, err := sampleInvite().Sign(inviteKey())
	if err != nil {
		f.Fatal(err)
	}
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(link, InviteScheme))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		i, sig, err := readInvite(raw)
		if err == nil && (len(sig) != ed25519.SignatureSize || i.check() != nil) {
			t.Errorf("%x is read as %+v", raw, i)
		}
	})
}
