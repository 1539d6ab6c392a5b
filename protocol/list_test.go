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

func sampleList() List {
	i := sampleInvite()
	return List{Network: i.Network, Version: 7, Expires: i.Expires, Peers: i.Peers}
}

func signedList(t testing.TB, l List) string {
	t.Helper()
	text, err := l.Sign(inviteKey())
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func describeList(name, text string, l List) listVector {
	i := describeInvite("", "", Invite{Peers: l.Peers})
	return listVector{Name: name, Text: text, From: hex.EncodeToString(l.From[:]), Network: l.Network, Version: l.Version, Expires: l.Expires, Peers: i.Peers}
}

func TestListVectors(t *testing.T) {
	for _, want := range readVectors[listVector](t, "lists.json") {
		l, err := ParseList(want.Text)
		if (err != nil) != (want.Network == "") {
			t.Errorf("%s: %v", want.Name, err)
		}
		if err != nil {
			continue
		}
		if got := describeList(want.Name, want.Text, l); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: read as %+v, want %+v", want.Name, got, want)
		}
		bare := unpack(t, want.Text)
		if again := unpack(t, signedList(t, l)); !bytes.Equal(again, bare) {
			t.Errorf("%s: written as %x, want %x", want.Name, again, bare)
		}
	}
}

// unpack is the message in a good text.
func unpack(t testing.TB, text string) []byte {
	t.Helper()
	code := strings.TrimPrefix(strings.Join(strings.Fields(uncommented(text)), ""), ListScheme)
	raw, err := base64.RawURLEncoding.DecodeString(code)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestListsComeBackFromTheirText(t *testing.T) {
	want := sampleList()
	text := signedList(t, want)
	copy(want.From[:], inviteKey().Public().(ed25519.PublicKey))
	got, err := ParseList(text)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("ParseList() = %+v, %v, want %+v", got, err, want)
	}
	if !want.Expired(time.Unix(want.Expires, 0)) || want.Expired(time.Unix(want.Expires-1, 0)) {
		t.Error("Expired is off")
	}
}

func TestNoByteOfAListCanChange(t *testing.T) {
	raw := unpack(t, signedList(t, sampleList()))
	for i := range raw {
		changed := bytes.Clone(raw)
		changed[i] ^= 1
		if _, err := ParseList(listText(changed)); err == nil {
			t.Errorf("byte %d changed and nobody noticed", i)
		}
		if _, err := ParseList(listText(raw[:i])); err == nil {
			t.Errorf("cut after %d bytes and nobody noticed", i)
		}
	}
}

func TestAListIsLimited(t *testing.T) {
	full := sampleList()
	full.Peers = nil
	for range MaxListPeers {
		full.Peers = append(full.Peers, InvitePeer{Addrs: [][]byte{make([]byte, 300)}})
	}
	text := signedList(t, full)
	room := MaxListText - len(text)
	if _, err := ParseList("#" + strings.Repeat("x", room-2) + "\n" + text); err != nil {
		t.Errorf("the longest text: %v", err)
	}
	if _, err := ParseList("#" + strings.Repeat("x", room-1) + "\n" + text); err == nil {
		t.Error("a text that is longer by one was read")
	}
	for i := range full.Peers {
		full.Peers[i].Addrs = [][]byte{make([]byte, 400)}
	}
	if _, err := full.Sign(inviteKey()); err == nil {
		t.Error("a text that nobody may read was written")
	}
	full.Peers = append(full.Peers, full.Peers[0])
	if _, err := full.Sign(inviteKey()); err == nil {
		t.Error("257 peers were signed")
	}
	old := sampleList()
	old.Version = 0
	if _, err := old.Sign(inviteKey()); err == nil {
		t.Error("version 0 was signed")
	}
}

func TestAListIsNoInviteAndNoInviteAList(t *testing.T) {
	link, err := sampleInvite().Sign(inviteKey())
	if err != nil {
		t.Fatal(err)
	}
	text := signedList(t, sampleList())
	if _, err := ParseList(ListScheme + strings.TrimPrefix(link, InviteScheme)); err == nil {
		t.Error("an invite was read as a list")
	}
	if _, err := ParseInvite(InviteScheme + strings.TrimPrefix(text, ListScheme)); err == nil {
		t.Error("a list was read as an invite")
	}
}

// FuzzParseList: a signature stops a fuzzer at once, so each input is also taken for a message, whose signature is made
// good if the rest of it is. What is read is written the same way again.
func FuzzParseList(f *testing.F) {
	for _, c := range listCases() {
		if len(c.Text) < 4096 {
			f.Add([]byte(c.Text))
		}
	}
	whole, _ := plainList()
	f.Add(whole.signedAs("openline list 1"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if l, err := ParseList(string(raw)); err == nil && listForm.check(statement(l)) != nil {
			t.Errorf("%q is read, but not to be written: %+v", raw, l)
		}
		s, _, err := listForm.read(raw)
		if err != nil {
			return
		}
		text, err := List(s).Sign(inviteKey())
		if err != nil {
			if len(raw) < MaxListText/2 {
				t.Errorf("%x is read, but cannot be signed: %v", raw, err)
			}
			return
		}
		copy(s.From[:], inviteKey().Public().(ed25519.PublicKey))
		if l, err := ParseList(text); err != nil || !reflect.DeepEqual(l, List(s)) {
			t.Errorf("%x is signed as %q and read as %+v (%v)", raw, text, l, err)
		}
	})
}
