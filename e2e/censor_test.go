//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"openline/e2e/lab"
	"openline/node/api"
)

// load is the path of the load generator, built once.
var load = sync.OnceValues(func() (string, error) {
	path, err := openline()
	if err != nil {
		return "", err
	}
	path = filepath.Join(filepath.Dir(path), "load")
	out, err := exec.Command("go", "build", "-o", path, "openline/e2e/load").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return path, nil
})

// settle starts a node on a host of the lab.
func settle(t *testing.T, n *lab.Net, host string, args ...string) *daemon {
	t.Helper()
	return settleBy(t, host, n.Host(host).Command, args...)
}

// settleTrusting starts one that trusts a site's authority.
func settleTrusting(t *testing.T, n *lab.Net, host string, s site, args ...string) *daemon {
	t.Helper()
	return settleBy(t, host, s.trusting(n.Host(host).Command), args...)
}

func settleBy(t *testing.T, host string, command func(context.Context, string, ...string) *exec.Cmd, args ...string) *daemon {
	t.Helper()
	d := &daemon{t: t, dir: t.TempDir(), host: command}
	d.args = append([]string{args[0], "--json", "--network", "lab", "--nat=false", "--data", d.dir, "--verbose"}, args[1:]...)
	t.Cleanup(func() {
		if d.cmd != nil {
			d.kill()
		}
		if t.Failed() {
			t.Logf("%s:\n%s", host, tail(d.stderr.String(), 40))
		}
	})
	d.start()
	return d
}

func tail(s string, lines int) string {
	all := strings.Split(s, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// post publishes notes of as many authors as that takes, and returns when each is answered.
func (d *daemon) post(topic string, notes int) {
	path, err := load()
	if err != nil {
		d.t.Error(err)
		return
	}
	out, err := d.host(d.t.Context(), path, "-url", "ws://"+d.api, "-events", fmt.Sprint(notes), "-queries", "0", "-conns", "2", "-window", "8", "-topic", topic).CombinedOutput()
	if err != nil {
		d.t.Errorf("post: %v\n%s", err, out)
	}
}

// has counts the notes of a topic.
func (d *daemon) has(topic string) int {
	out, err := d.try("feed", "--topic", topic, "-n", "5000", "--json")
	if err != nil || out == "" {
		return 0
	}
	return strings.Count(out, "\n") + 1
}

// abroad is a world with a user behind a censor, and a bridge, a relay, a resolver and another user outside of it.
func abroad(rules ...lab.Rule) lab.World {
	return lab.World{
		Links: []lab.Link{{Name: "home", Country: "x", Latency: 10 * time.Millisecond, Firewalled: true},
			{Name: "world", Latency: 20 * time.Millisecond}},
		Hosts: []lab.Host{{Name: "user", Link: "home"}, {Name: "bridge", Link: "world"}, {Name: "friend", Link: "world"},
			{Name: "cover", Link: "world"}, {Name: "relay", Link: "world"}, {Name: "resolver", Link: "world"}},
		Censor: rules,
	}
}

// bridgeArgs are a bridge's with every rung that this machine has.
func bridgeArgs(n *lab.Net) []string {
	args := []string{"relay", "--bridge", "--cover", n.Host("cover").Addr().String() + ":443",
		"--listen", "/ip4/0.0.0.0/tcp/443/tls/sni/news.example/ws", "--listen", "/ip4/0.0.0.0/tcp/8443/tls/sni/cover.example/reality"}
	if _, err := exec.LookPath("obfs4proxy"); err == nil {
		args = append(args, "--listen", "/ip4/0.0.0.0/tcp/9443/pt/obfs4")
	}
	return args
}

// row is one line of the matrix.
type row struct {
	name   string
	lossy  bool
	rules  []lab.Rule
	notes  int           // each way
	most   time.Duration // for all of them
	causes []string      // that the doctor has to name, and no others
}

// result is what came of it.
type result struct {
	join, all time.Duration
	up, down  int
	carrier   string
	causes    []string
}

func blockers() []lab.Rule {
	return []lab.Rule{lab.DropStrings("/multistream/1.0.0", "/noise", "/tls/1.0.0"), lab.BlockLibp2pTLS(), lab.BlockLibp2pQUIC(), lab.BlockSTUN(), lab.Probe()}
}

func rows() []row {
	more := append(blockers(), lab.FullyEncrypted(), lab.BlockSNI("libp2p.direct", "openline.example"), lab.NoUDP())
	moreCauses := []string{"udp-off", "libp2p-recognised", "random-recognised", "name-blocked"}
	if _, err := exec.LookPath("obfs4proxy"); err != nil {
		moreCauses = slices.DeleteFunc(moreCauses, func(c string) bool { return c == "random-recognised" })
	}
	// The freeze lets some 15 notes through on each connection, and 10 s pass until one is known to be dead.
	frozen := 40
	if os.Getenv("OPENLINE_E2E") != "" {
		frozen = 300
	}
	return []row{
		{"none", false, nil, 300, time.Minute, nil},
		{"strings, QUIC ALPN, STUN, probing; 60 ms, 2 % loss", true, blockers(), 300, time.Minute, []string{"libp2p-recognised"}},
		{"and fully encrypted, SNI list, UDP off", true, more, 300, time.Minute, moreCauses},
		{"allowlist of 53, 80, 443", false, []lab.Rule{lab.Allowlist()}, 300, time.Minute, []string{"ports", "udp-off"}},
		{"freeze after 16 kB", false, []lab.Rule{lab.Freeze(16 << 10), lab.NoUDP()}, frozen, 8 * time.Minute, []string{"udp-off", "frozen"}},
	}
}

// TestOneInviteGetsThroughEveryCensor fills the first lines of the matrix of censors.
func TestOneInviteGetsThroughEveryCensor(t *testing.T) {
	t.Parallel()
	if err := lab.Available(); err != nil {
		need(t, false, err.Error())
	}
	for _, r := range rows() {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			got := r.play(t)
			matrix.add(r.name, "joined after %.1f s, %d notes in and %d out after %.1f s, by %s; the doctor: %s",
				got.join.Seconds(), got.down, got.up, got.all.Seconds(), got.carrier, strings.Join(got.causes, ", "))
		})
	}
}

// play joins by an invite under a censor and has notes go both ways.
func (r row) play(t *testing.T) (got result) {
	w := abroad(r.rules...)
	if r.lossy {
		w.Links[0].Latency, w.Links[1].Latency, w.Links[1].Loss = 30*time.Millisecond, 30*time.Millisecond, 0.02
	}
	n := lab.Start(t, w)
	serveCover(t, n)
	resolver := n.Host("resolver").Addr().String()
	names := newSite(t, []string{resolver}, nil)
	names.serve(t, n, "resolver")
	relay := settle(t, n, "relay", "relay")
	bridge := settle(t, n, "bridge", append(bridgeArgs(n), "--listen", "/ip4/0.0.0.0/tcp/8444/tls/sni/www.openline.example/ws", "--peer", relay.addr)...)
	bridge.awaitPeers(1)
	friend := settle(t, n, "friend", "daemon", "--lan=false", "--mode", "careful")
	friend.run("join", bridge.invite().Link)
	user := settleTrusting(t, n, "user", names, "daemon", "--lan=false", "--resolver", "https://"+resolver+"/dns-query")
	user.run("join", bridge.invite().Link)
	limit := 30 * time.Second
	if len(r.rules) == 0 {
		limit = 5 * time.Second
	}
	ok := false
	if got.join, ok = within(t, limit, func() bool { return user.status().Peers > 0 }); !ok {
		t.Errorf("no peer %v after joining", got.join)
		return got
	}
	for _, p := range user.status().PeerList {
		got.carrier = p.Carrier
	}
	var posts sync.WaitGroup
	posts.Go(func() { user.post("up", r.notes) })
	posts.Go(func() { friend.post("down", r.notes) })
	posts.Wait()
	got.all, _ = within(t, r.most, func() bool {
		got.up, got.down = friend.has("up"), user.has("down")
		return got.up >= r.notes && got.down >= r.notes
	})
	if got.up != r.notes || got.down != r.notes {
		t.Errorf("of %d notes each way %d came out and %d in", r.notes, got.up, got.down)
	}
	got.causes = user.mustFind(r.causes...)
	return got
}

// mustFind has the doctor look, and insists on what it finds to be in the way.
func (d *daemon) mustFind(want ...string) (causes []string) {
	d.t.Helper()
	var got api.Diagnosis
	raw, err := d.tryFor(3*time.Minute, "doctor", "--json")
	if err != nil || json.Unmarshal([]byte(raw), &got) != nil {
		d.t.Fatalf("doctor: %v\n%s", err, raw)
	}
	for _, c := range got.Causes {
		causes = append(causes, c.Code)
	}
	slices.Sort(want)
	if !slices.Equal(slices.Sorted(slices.Values(causes)), want) {
		d.t.Errorf("the doctor names %q, want %q\n%s", causes, want, raw)
	}
	return causes
}

// serveCover runs a site that knows nothing of us, on the host cover.
func serveCover(t *testing.T, n *lab.Net) {
	t.Helper()
	serveOn(t, n, "cover", "cover")
}

// serveOn runs a function of Main's on a host until the test ends.
func serveOn(t *testing.T, n *lab.Net, host, function string, args ...string) {
	t.Helper()
	cmd := n.Host(host).Func(context.Background(), function, args...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
}
