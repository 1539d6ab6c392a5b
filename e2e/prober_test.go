//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"openline/e2e/lab"
)

// target is a rung of the bridge, and the server that knows nothing of us with which a prober is to confuse it.
type target struct {
	carrier   string // and the host of a member that came by it
	name      string // in TLS
	bridge    netip.AddrPort
	reference netip.AddrPort
	slack     int  // by how much the lengths of records differ between two connections to the same server
	silent    bool // nothing is said, and the end is the pluggable transport's own
}

// TestProbersLearnNothing compares each rung of a bridge with a server that knows nothing of us, visit by visit.
func TestProbersLearnNothing(t *testing.T) {
	t.Parallel()
	_, err := exec.LookPath("obfs4proxy")
	need(t, err == nil, "obfs4proxy")
	n := lab.Start(t, lab.World{
		Links: []lab.Link{{Name: "home", Country: "x", Latency: 10 * time.Millisecond, Firewalled: true}, {Name: "world", Latency: 20 * time.Millisecond}},
		Hosts: []lab.Host{{Name: "wss", Link: "home"}, {Name: "reality", Link: "home"}, {Name: "pt", Link: "home"},
			{Name: "bridge", Link: "world"}, {Name: "cover", Link: "world"}, {Name: "decoy", Link: "world"}, {Name: "prober", Link: "world"}}})
	at := func(host string, port uint16) netip.AddrPort { return netip.AddrPortFrom(n.Host(host).Addr(), port) }
	targets := []target{
		{carrier: "wss", name: "news.example", bridge: at("bridge", 443), reference: at("decoy", 443), slack: 4}, // of an ECDSA signature
		{carrier: "reality", name: "cover.example", bridge: at("bridge", 8443), reference: at("cover", 443)},
		{carrier: "pt", bridge: at("bridge", 9443), reference: at("decoy", 9443), silent: true},
	}
	serveCover(t, n)
	site := decoySite(t)
	bridge := settle(t, n, "bridge", append(bridgeArgs(n), "--decoy", site)...)
	serveOn(t, n, "decoy", "ordinary", site, filepath.Join(bridge.dir, "carrier-tls.pem"))
	for _, g := range targets {
		member := settle(t, n, g.carrier, "daemon", "--lan=false", "--carriers", g.carrier)
		member.run("join", bridge.invite().Link)
		await(t, "a member by "+g.carrier, func() bool { return member.status().Peers > 0 })
	}
	seen := segments(t, n.Capture())
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	var plan []errand
	for _, g := range targets {
		for _, v := range append(visits(g.name, seed), replays(flights(t, seen, g.bridge))...) {
			plan = append(plan, errand{g, v})
		}
	}
	compare(t, n, plan)
	if !t.Failed() {
		matrix.add("a prober: replays, garbage, HTTP, TLS hellos, silence", "%d visits to %d rungs, nothing that differs from the decoy", len(plan), len(targets))
	}
}

// errand is one visit to a target and its reference.
type errand struct {
	target
	visit visit
}

// rounds is how often a difference has to be seen: how a server ends a connection on which more comes than it reads is a
// matter of microseconds.
const rounds = 3

// compare runs errands and fails the test for all that tells a target from its reference each time.
func compare(t *testing.T, n *lab.Net, plan []errand) {
	t.Helper()
	table := ""
	for round := range rounds {
		if len(plan) == 0 {
			break
		}
		var both []visit
		for _, e := range plan {
			here, there := e.visit, e.visit
			here.At, there.At = e.bridge.String(), e.reference.String()
			both = append(both, here, there)
		}
		found := sendProber(t, n, both)
		var differ []errand
		for i, e := range plan {
			bridge, reference := found[2*i], found[2*i+1]
			if round == 0 {
				table += fmt.Sprintf("%-8s %-42s %s\n", e.carrier, e.visit.Name, bridge)
			}
			if bridge.Libp2p {
				t.Errorf("%s, %s: it greets as libp2p does", e.carrier, e.visit.Name)
			}
			if e.same(bridge, reference) {
				continue
			}
			differ = append(differ, e)
			what := fmt.Sprintf("%s, %s:\n  bridge    %s\n  reference %s", e.carrier, e.visit.Name, bridge, reference)
			if round < rounds-1 {
				t.Logf("round %d: %s", round+1, what)
			} else {
				t.Errorf("each time: %s", what)
			}
		}
		plan = differ
	}
	t.Logf("what a prober gets from the bridge:\n%s", table)
}

// same reports whether nothing tells a target from its reference.
func (g target) same(bridge, reference finding) bool {
	if g.silent {
		return bridge.Heard == 0 && reference.Heard == 0
	}
	records := slices.EqualFunc(bridge.Records, reference.Records, func(a, b record) bool {
		return a.Kind == b.Kind && a.Alert == b.Alert && max(a.Len-b.Len, b.Len-a.Len) <= g.slack
	})
	return records && bridge.Clear == reference.Clear && bridge.TLS == reference.TLS && bridge.Inside == reference.Inside && bridge.End == reference.End
}

// String is one line.
func (f finding) String() string {
	var parts []string
	for _, r := range f.Records {
		if r.Alert == "" {
			r.Alert = fmt.Sprintf("%d:%d", r.Kind, r.Len)
		}
		parts = append(parts, r.Alert)
	}
	records := strings.Join(parts, " ")
	parts = nil
	for _, s := range []string{f.TLS, records, short(f.Clear), short(f.Inside), f.End} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	return strings.Join(parts, " | ")
}

func short(s string) string {
	if s == "" {
		return s
	}
	return fmt.Sprintf("%.90q (%d)", s, len(s))
}

// sendProber has the visits made from the host prober.
func sendProber(t *testing.T, n *lab.Net, plan []visit) (found []finding) {
	t.Helper()
	raw, err := json.Marshal(plan)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "plan.json")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := n.Host("prober").Func(t.Context(), "probe", file)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("prober: %v", err)
	}
	if err := json.Unmarshal(out, &found); err != nil || len(found) != len(plan) {
		t.Fatalf("the prober made %d of %d visits: %v", len(found), len(plan), err)
	}
	return found
}

// decoySite writes a small site and returns its directory.
func decoySite(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"index.html": "<!doctype html><title>News</title><p>Nothing new.\n", "style.css": "p { color: black }\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
