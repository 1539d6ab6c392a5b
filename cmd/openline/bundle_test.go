package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"openline/protocol"
)

func crc(b []byte) []byte { return binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(b)) }

// verbs runs the program without daemon, settings or home.
func verbs(verb string, args ...string) (code int, out, errOut string) {
	var o, e bytes.Buffer
	none := func(string) (string, bool) { return "", false }
	code = run(context.Background(), append([]string{verb}, args...), strings.NewReader(""), &o, &e, none)
	return code, o.String(), e.String()
}

// testEvents returns n notes, one a second from the given one on, the same for the same arguments.
func testEvents(t testing.TB, n, from int) []protocol.Event {
	t.Helper()
	secret := sha256.Sum256([]byte("openline bundle tests"))
	key, err := protocol.NewSecretKey(bytes.NewReader(secret[:]))
	if err != nil {
		t.Fatal(err)
	}
	var events []protocol.Event
	for i := from; i < from+n; i++ {
		e, err := key.Sign(protocol.Draft{CreatedAt: 1_700_000_000 + int64(i), Kind: protocol.KindNote,
			Content: fmt.Sprintf("note %d: the bridge is open", i), Tags: []protocol.Tag{{"t", "tehran"}}})
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
	}
	return events
}

func testBundle(t testing.TB, n int, network string, from int) []byte {
	t.Helper()
	return bundleOf(t, network, testEvents(t, n, from))
}

func bundleOf(t testing.TB, network string, events []protocol.Event) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := protocol.NewBundleWriter(&b, protocol.BundleHeader{Network: network, To: protocol.MaxBundleTime})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if err := w.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// eventsIn reads a bundle that must be whole.
func eventsIn(t testing.TB, raw []byte) (events []protocol.Event) {
	t.Helper()
	s, err := newBundleSource("test", io.NopCloser(bytes.NewReader(raw)))
	if err != nil {
		t.Fatal(err)
	}
	s.ahead = true
	for {
		e, err := s.next(context.Background())
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
	}
	if len(s.reader.Damage()) > 0 || len(s.refused) > 0 {
		t.Fatalf("damage %+v, refused %v", s.reader.Damage(), s.refused)
	}
	return events
}

// bundleCommand is a command of the scripts: bundle FILE N FROM [NETWORK] writes a bundle of N notes.
func bundleCommand(t testing.TB) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) < 3 {
			ts.Fatalf("usage: bundle FILE N FROM [NETWORK]")
		}
		n, err := strconv.Atoi(args[1])
		ts.Check(err)
		from, err := strconv.Atoi(args[2])
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs(args[0]), testBundle(t, n, append(args, "main")[3], from), 0o600))
	}
}

// damageCommand is a command of the scripts: damage flip FILE AT, or damage cut FILE AT; AT counts from the end when negative.
func damageCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: damage flip|cut FILE AT")
	}
	raw, err := os.ReadFile(ts.MkAbs(args[1]))
	ts.Check(err)
	at, err := strconv.Atoi(args[2])
	ts.Check(err)
	if at < 0 {
		at += len(raw)
	}
	if args[0] == "cut" {
		raw = raw[:at]
	} else {
		raw[at] ^= 1
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), raw, 0o600))
}

// The oracle is a sort of everything.
func TestMergeIsASortedUnion(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(uint64(seed), 1))
	all := testEvents(t, 120, 0)
	for range 10 {
		var want []protocol.Event
		var sources []*bundleSource
		for i := range 1 + r.IntN(5) {
			var some []protocol.Event
			for _, e := range all {
				if r.IntN(3) == 0 {
					some = append(some, e)
				}
			}
			want = append(want, some...)
			s, err := newBundleSource(fmt.Sprint(i), io.NopCloser(bytes.NewReader(bundleOf(t, "main", some))))
			if err != nil {
				t.Fatal(err)
			}
			sources = append(sources, s)
		}
		slices.SortFunc(want, protocol.Event.Compare)
		want = slices.CompactFunc(want, func(a, b protocol.Event) bool { return a.ID() == b.ID() })
		var out bytes.Buffer
		if err := merge(context.Background(), &out, sources, ""); err != nil {
			t.Fatal(err)
		}
		got := eventsIn(t, out.Bytes())
		if !slices.EqualFunc(got, want, func(a, b protocol.Event) bool { return a.ID() == b.ID() }) {
			t.Fatalf("merge of %d gives %d events, want %d", len(sources), len(got), len(want))
		}
	}
}

func TestMergeKeepsTheBestStamp(t *testing.T) {
	e := testEvents(t, 1, 0)[0]
	best := e
	for nonce := uint64(1); best.Work() < 8; nonce++ {
		best = e.WithNonce(nonce)
	}
	var sources []*bundleSource
	for _, e := range []protocol.Event{e, best, e.WithNonce(1)} {
		s, err := newBundleSource("", io.NopCloser(bytes.NewReader(bundleOf(t, "main", []protocol.Event{e}))))
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, s)
	}
	var out bytes.Buffer
	if err := merge(context.Background(), &out, sources, ""); err != nil {
		t.Fatal(err)
	}
	if got := eventsIn(t, out.Bytes()); len(got) != 1 || got[0].Work() != best.Work() {
		t.Errorf("%d events, the first with %d bits of work; want %d", len(got), got[0].Work(), best.Work())
	}
}

func TestSplitStaysBelowTheSizeAndLosesNothing(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "all.openline")
	raw := testBundle(t, 700, "main", 0)
	writeTestFile(t, file, raw)
	for _, size := range []string{"700", "5000", "40kB", "10MB"} {
		out := filepath.Join(dir, size)
		if err := os.Mkdir(out, 0o700); err != nil {
			t.Fatal(err)
		}
		code, names, errOut := verbs("bundle", "split", file, "--max-size", size, "--out", out)
		if code != 0 {
			t.Fatalf("%s: exit %d, %s", size, code, errOut)
		}
		var got []protocol.Event
		limit := map[string]int{"700": 700, "5000": 5000, "40kB": 40_000, "10MB": 10_000_000}[size]
		for _, name := range strings.Fields(names) {
			part, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if len(part) > limit {
				t.Errorf("%s has %d bytes", name, len(part))
			}
			got = append(got, eventsIn(t, part)...)
		}
		t.Logf("%s: %d parts", size, len(strings.Fields(names)))
		if !slices.EqualFunc(got, eventsIn(t, raw), func(a, b protocol.Event) bool { return a.ID() == b.ID() }) {
			t.Errorf("%s: %d of 700 events", size, len(got))
		}
	}
}

// A machine whose clock is far behind must not throw away what it carries.
func TestAWrongClockLosesNothing(t *testing.T) {
	s, err := newBundleSource("a", io.NopCloser(bytes.NewReader(testBundle(t, 5, "main", 0))))
	if err != nil {
		t.Fatal(err)
	}
	s.check.Now = time.Unix(1000, 0)
	var out bytes.Buffer
	if err := merge(context.Background(), &out, []*bundleSource{s}, ""); err != nil {
		t.Fatal(err)
	}
	if got := eventsIn(t, out.Bytes()); len(got) != 5 {
		t.Errorf("%d of 5 events", len(got))
	}
}

func TestVerifyCountsForgeries(t *testing.T) {
	dir := t.TempDir()
	events := testEvents(t, 3, 0)
	raw := bundleOf(t, "main", events)
	// The signature of an event, changed and sealed again, as a forger would.
	sig := events[1].Sig()
	forged, err := forge(raw, sig[:])
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "forged.openline")
	writeTestFile(t, file, forged)
	code, out, _ := verbs("bundle", "verify", "--json", file)
	var r bundleReport
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	if code != 1 || r.Whole || r.Events != 2 || r.Refused[protocol.BadSignature] != 1 || len(r.Damage) != 0 {
		t.Errorf("exit %d, %+v", code, r)
	}
}

// forge changes a byte of sig in the only frame of a bundle and mends the frame's checksum. The payload must hold
// sig as it is, as zstd leaves what it cannot compress.
func forge(raw, sig []byte) ([]byte, error) {
	at := bytes.Index(raw, sig[:32])
	if at < 0 {
		return nil, errors.New("the signature is compressed")
	}
	raw = slices.Clone(raw)
	raw[at+8] ^= 1
	frame := raw[65:]
	payload := frame[60 : 60+binary.BigEndian.Uint32(frame[40:])]
	sum := sha256.Sum256(slices.Concat(frame[:44], payload))
	copy(frame[44:60], sum[:16])
	return raw, nil
}
