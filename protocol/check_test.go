package protocol

import (
	"os"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

// The columns are those of BIP-340's own list; comments are left out.
func TestOfficialSignatureVectors(t *testing.T) {
	raw, err := os.ReadFile("testdata/bip340.csv")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")[1:]
	for _, line := range lines {
		col := strings.Split(strings.ToLower(line), ",")
		var e Event
		if !unhex(e.pubkey[:], col[1]) || !unhex(e.id[:], col[2]) || !unhex(e.sig[:], col[3]) {
			t.Fatalf("bad line %q", line)
		}
		if got, want := verifySignature(&e), strings.HasPrefix(col[4], "true"); got != want {
			t.Errorf("vector %s: %v, want %v", col[0], got, want)
		}
	}
	if len(lines) != 15 {
		t.Errorf("%d vectors, want the 15 with a message of 32 bytes", len(lines))
	}
}

// Topics are judged by Unicode 15.0 (SPEC.md section 4.4). A later version knows more upper-case letters, and nodes
// that refuse them would cut off those that do not: when this fails, the table of 15.0 must move into this package.
func TestUnicodeVersionIsPinned(t *testing.T) {
	if unicode.Version != "15.0.0" {
		t.Errorf("package unicode has version %s, SPEC.md section 4.4 says 15.0.0", unicode.Version)
	}
	for r := rune(0); r <= unicode.MaxRune; r++ {
		space := r >= 0x09 && r <= 0x0d || r == 0x20 || r == 0x85 || r == 0xa0 || r == 0x1680 || r >= 0x2000 && r <= 0x200a ||
			r == 0x2028 || r == 0x2029 || r == 0x202f || r == 0x205f || r == 0x3000
		control := r < 0x20 || r >= 0x7f && r < 0xa0
		refused := space || control || r == '#' || unicode.ToLower(r) != r
		if !utf8.ValidRune(r) {
			continue
		}
		if got := CheckTopic(string(r)) != nil; got != refused {
			t.Errorf("CheckTopic(%U) refuses: %v, want %v", r, got, refused)
		}
		if got := cleanText(string(r)); got != (!control || r == '\n' || r == '\t') {
			t.Errorf("cleanText(%U) = %v", r, got)
		}
	}
}

func TestSizesOfWhatClientsKeep(t *testing.T) {
	e := signed(kindOf(30023, "a"))
	now := time.Unix(vectorNow, 0)
	for _, c := range []struct {
		size int
		want string
	}{{MaxKeptSize, "ok"}, {MaxKeptSize + 1, "too-large"}} {
		raw := plainJSON(e) + strings.Repeat(" ", c.size-len(plainJSON(e)))
		if _, err := ParseJSON([]byte(raw), Check{Scope: Client, Now: now}); verdict(err) != c.want {
			t.Errorf("%d bytes: %v, want %s", c.size, err, c.want)
		}
	}
	for _, c := range []struct {
		n    int
		want string
	}{{maxKeptTags, "ok"}, {maxKeptTags + 1, "tag"}} {
		e := signed(kindOf(3, "", tags(c.n, "p")...))
		if _, err := ParseJSON([]byte(plainJSON(e)), Check{Scope: Client, Now: now}); verdict(err) != c.want {
			t.Errorf("%d tags: %v, want %s", c.n, err, c.want)
		}
	}
}

// Live is what decides about flooding, the check what decides about accepting: they must agree.
func TestLiveAgreesWithTheChecks(t *testing.T) {
	for offset := int64(-2000); offset < 1000; offset++ {
		now := time.Unix(vectorNow, (offset&1)*999_999_999)
		e := Event{kind: KindNote, createdAt: vectorNow + offset}
		if got, want := e.Live(now), (Check{Scope: Live, Now: now}).clock(&e) == nil; got != want {
			t.Fatalf("Live() = %v for an offset of %d s, the check says %v", got, e.createdAt-vectorNow, want)
		}
	}
}

func TestBeforeComesLastButTheSignature(t *testing.T) {
	e := signed(note("a"))
	refusal := Reject(Duplicate, "known")
	calls := 0
	c := Check{Scope: Live, Now: time.Unix(vectorNow, 0), Shard: plainShard(e), Before: func(claim Claim) error {
		calls++
		if claim.ID.String() != e.ID || claim.Author.String() != e.PubKey || claim.Kind != 1 || claim.CreatedAt != vectorNow || claim.Work != plainWork(e.ID, 9) {
			t.Errorf("Before got %+v", claim)
		}
		return refusal
	}}
	forged := e
	forged.Sig = strings.Repeat("0", 128)
	if _, err := ParseEnvelope(wire(forged, 9), c); err != refusal || calls != 1 {
		t.Errorf("ParseEnvelope gives %v after %d calls, want Before's refusal", err, calls)
	}
	if _, err := ParseEnvelope(wire(signed(note("")), 9), c); verdict(err) != "text" || calls != 1 {
		t.Errorf("Before was asked about a note out of form")
	}
}
