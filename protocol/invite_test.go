package protocol

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
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

// inviteVector is one case of invites.json, as SPEC.md section 15 describes it. Without a network it is to be refused.
type inviteVector struct {
	Name    string             `json:"name"`
	Link    string             `json:"link"`
	From    string             `json:"from_hex,omitempty"`
	Network string             `json:"network,omitempty"`
	Expires int64              `json:"expires,omitempty"`
	Peers   []inviteVectorPeer `json:"peers,omitempty"`
}

type inviteVectorPeer struct {
	Key   string   `json:"key_hex"`
	Addrs []string `json:"addrs_hex"`
	Token string   `json:"token_hex,omitempty"`
}

func inviteCases(t *testing.T) []inviteVector {
	sign := func(i Invite) string {
		link, err := i.Sign(inviteKey())
		if err != nil {
			t.Fatal(err)
		}
		return link
	}
	whole := sampleInvite()
	link := sign(whole)
	copy(whole.From[:], inviteKey().Public().(ed25519.PublicKey))
	described := describeInvite("two peers, one of them a bridge", link, whole)
	broken := describeInvite("broken over lines", " "+link[:30]+"\n"+link[30:]+"\r\n", whole)
	twice := base64.RawURLEncoding.EncodeToString(append(inviteForm.append(nil, whole.statement()), inviteForm.append(nil, whole.statement())...))
	return []inviteVector{described, broken,
		{Name: "another scheme", Link: "openlime" + link[8:]},
		{Name: "cut off", Link: link[:len(link)-4]},
		{Name: "one letter changed", Link: link[:60] + map[bool]string{true: "B", false: "A"}[link[60] == 'A'] + link[61:]},
		{Name: "no signature", Link: InviteScheme + base64.RawURLEncoding.EncodeToString(inviteForm.append(nil, whole.statement()))},
		{Name: "fields twice", Link: InviteScheme + twice},
		{Name: "nothing in it", Link: InviteScheme},
	}
}

func describeInvite(name, link string, i Invite) inviteVector {
	v := inviteVector{Name: name, Link: link, From: hex.EncodeToString(i.From[:]), Network: i.Network, Expires: i.Expires}
	for _, p := range i.Peers {
		vp := inviteVectorPeer{Key: hex.EncodeToString(p.Key[:])}
		for _, a := range p.Addrs {
			vp.Addrs = append(vp.Addrs, hex.EncodeToString(a))
		}
		if p.Token != nil {
			vp.Token = hex.EncodeToString(p.Token[:])
		}
		v.Peers = append(v.Peers, vp)
	}
	return v
}

func TestInviteVectors(t *testing.T) {
	for _, want := range readVectors[inviteVector](t, "invites.json") {
		i, err := ParseInvite(want.Link)
		if (err != nil) != (want.Network == "") {
			t.Errorf("%s: %v", want.Name, err)
		}
		if got := describeInvite(want.Name, want.Link, i); err == nil && !reflect.DeepEqual(got, want) {
			t.Errorf("%s: read as %+v, want %+v", want.Name, got, want)
		}
	}
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
		if err := inviteForm.check(i.statement()); err != nil {
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
		s, sig, err := inviteForm.read(raw)
		if err == nil && (len(sig) != ed25519.SignatureSize || inviteForm.check(s) != nil) {
			t.Errorf("%x is read as %+v", raw, s)
		}
	})
}
