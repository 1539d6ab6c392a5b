package bootstrap

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"openline/protocol"
)

// listClock is the time at which the lists of these tests are taken.
const listClock = 1_800_000_000

func operator(seed byte) (ed25519.PrivateKey, ListKey) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, 32))
	return key, ListKey(key.Public().(ed25519.PublicKey))
}

// listOf is a signed list that holds for an hour and names one peer.
func listOf(t *testing.T, seed byte, network string, version uint64, host byte) string {
	t.Helper()
	key, _ := operator(seed)
	l := protocol.List{Network: network, Version: version, Expires: listClock + 3600,
		Peers: []protocol.InvitePeer{{Key: [32]byte{1}, Addrs: [][]byte{{4, 192, 0, 2, host, 6, 1, 187}}}}}
	text, err := l.Sign(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func testLists(t *testing.T, file string, now *time.Time) *Lists {
	t.Helper()
	l, err := OpenLists(file, func() time.Time { return *now }, "main")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestAMirrorCannotBringBackAnOldList(t *testing.T) {
	now := time.Unix(listClock, 0)
	file := filepath.Join(t.TempDir(), "lists.json")
	_, key := operator(1)
	_, other := operator(2)
	l := testLists(t, file, &now)
	if _, ok := l.Kept(key); ok {
		t.Error("a list is kept before any was taken")
	}
	for _, step := range []struct {
		what string
		key  ListKey
		text string
		ok   bool
	}{
		{"the first", key, listOf(t, 1, "main", 5, 1), true},
		{"the same again", key, listOf(t, 1, "main", 5, 1), true},
		{"the same under a heading", key, "# relays\n" + listOf(t, 1, "main", 5, 1) + "\n", true},
		{"another with the same version", key, listOf(t, 1, "main", 5, 2), false},
		{"an older one", key, listOf(t, 1, "main", 4, 1), false},
		{"somebody else's", key, listOf(t, 2, "main", 9, 1), false},
		{"another network's", key, listOf(t, 1, "test", 9, 1), false},
		{"a newer one", key, listOf(t, 1, "main", 6, 3), true},
		{"the one before", key, listOf(t, 1, "main", 5, 1), false},
		{"another operator's, whose versions are its own", other, listOf(t, 2, "main", 1, 1), true},
		{"no list", key, "<html>", false},
	} {
		if _, err := l.Take(step.key, step.text); (err == nil) != step.ok {
			t.Errorf("%s: %v", step.what, err)
		}
		l = testLists(t, file, &now) // nothing of this is forgotten over a restart
	}
	for k, version := range map[ListKey]uint64{key: 6, other: 1} {
		if got, ok := l.Kept(k); !ok || got.Version != version || got.From != k {
			t.Errorf("Kept() = %+v, %v, want version %d", got, ok, version)
		}
	}
}

func TestAnExpiredListIsNotShownAndItsVersionStays(t *testing.T) {
	now := time.Unix(listClock, 0)
	file := filepath.Join(t.TempDir(), "lists.json")
	_, key := operator(1)
	l := testLists(t, file, &now)
	text := listOf(t, 1, "main", 5, 1)
	if _, err := l.Take(key, text); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Hour)
	l = testLists(t, file, &now)
	if got, ok := l.Kept(key); ok {
		t.Errorf("Kept() = %+v, which has expired", got)
	}
	if _, err := l.Take(key, text); err == nil {
		t.Error("an expired list was taken")
	}
	now = now.Add(-time.Minute)
	if _, err := l.Take(key, listOf(t, 1, "main", 4, 1)); err == nil {
		t.Error("an older list was taken after one that had expired")
	}
}

func TestListsOfAnotherNetworkStayInTheFile(t *testing.T) {
	now := time.Unix(listClock, 0)
	file := filepath.Join(t.TempDir(), "lists.json")
	_, key := operator(1)
	l := testLists(t, file, &now)
	if _, err := l.Take(key, listOf(t, 1, "main", 5, 1)); err != nil {
		t.Fatal(err)
	}
	elsewhere, err := OpenLists(file, func() time.Time { return now }, "test")
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := elsewhere.Kept(key); ok {
		t.Error("a list of main is kept in test")
	}
	if _, err := elsewhere.Take(key, listOf(t, 1, "test", 2, 1)); err != nil {
		t.Error(err)
	}
	if got, ok := testLists(t, file, &now).Kept(key); !ok || got.Version != 5 {
		t.Errorf("back in main, Kept() = %+v, %v", got, ok)
	}
}

func TestADamagedFileOfListsIsPutAside(t *testing.T) {
	now := time.Unix(listClock, 0)
	_, key := operator(1)
	good := listOf(t, 1, "main", 5, 1)
	for what, content := range map[string]string{
		"no JSON":        `["` + good,
		"a changed list": `["` + strings.Replace(good, "A", "B", 1) + `"]`,
	} {
		file := filepath.Join(t.TempDir(), "lists.json")
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		l := testLists(t, file, &now)
		if _, ok := l.Kept(key); ok {
			t.Errorf("%s: a list is kept", what)
		}
		if raw, err := os.ReadFile(file + ".damaged"); err != nil || string(raw) != content {
			t.Errorf("%s: put aside is %q, %v", what, raw, err)
		}
		if _, err := l.Take(key, good); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if _, ok := testLists(t, file, &now).Kept(key); !ok {
			t.Errorf("%s: nothing was written afterwards", what)
		}
	}
}

func TestAListThatCannotBeWrittenDownIsTaken(t *testing.T) {
	now := time.Unix(listClock, 0)
	_, key := operator(1)
	l := testLists(t, filepath.Join(t.TempDir(), "gone", "lists.json"), &now)
	got, err := l.Take(key, listOf(t, 1, "main", 5, 1))
	if !errors.Is(err, ErrNotSaved) || got.Version != 5 {
		t.Errorf("Take() = %+v, %v", got, err)
	}
	if kept, ok := l.Kept(key); !ok || !reflect.DeepEqual(kept, got) {
		t.Errorf("Kept() = %+v, %v", kept, ok)
	}
	unwritten := testLists(t, "", &now)
	if _, err := unwritten.Take(key, listOf(t, 1, "main", 5, 1)); err != nil {
		t.Errorf("without a file: %v", err)
	}
}

func TestAListURLSaysWhereAndWho(t *testing.T) {
	_, want := operator(1)
	text := ListKeyText(want)
	if len(text) != 43 {
		t.Fatalf("a key has %d characters", len(text))
	}
	for in, mirror := range map[string]string{
		"https://example.org/relays.txt#" + text:            "https://example.org/relays.txt",
		"https://example.org:8443/a/b%20c?d=1#" + text:      "https://example.org:8443/a/b%20c?d=1",
		"https://192.0.2.1/#" + text:                        "https://192.0.2.1/",
		"HTTPS://example.org#" + text:                       "HTTPS://example.org",
		"http://example.org/relays.txt#" + text:             "",
		"file:///relays.txt#" + text:                        "",
		"example.org/relays.txt#" + text:                    "",
		"https:///relays.txt#" + text:                       "",
		"https://:443/relays.txt#" + text:                   "",
		"https://example.org/relays.txt":                    "",
		"https://example.org/relays.txt#":                   "",
		"https://example.org/relays.txt#" + text[1:]:        "",
		"https://example.org/relays.txt#" + text + "A":      "",
		"https://example.org/relays.txt#" + text[:42] + "%": "",
		"https://exa mple.org/#" + text:                     "",
		"":                                                  "",
	} {
		got, key, err := ParseListURL(in)
		if got != mirror || (err == nil) != (mirror != "") || err == nil && key != want {
			t.Errorf("ParseListURL(%q) = %q, %x, %v, want %q", in, got, key, err, mirror)
		}
	}
}
