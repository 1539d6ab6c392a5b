package e2e

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// torPatience is how long a test waits for what Tor does.
const torPatience = 2 * time.Minute

const (
	torAuthorities = 3
	torRelays      = torAuthorities + 2 // a service's way to where it meets a client takes four
)

// torNet is a Tor network on loopback that knows nothing of the public one: authorities, which are relays and exits
// also, and more relays.
type torNet struct {
	rows    string // of every node's torrc: who the authorities are
	dirPort string // of the first authority

	mu   sync.Mutex // guards port
	port int        // the last that was given out
}

// torNode is one process of Tor. It ends with the test, or with the test's process.
type torNode struct {
	t              *testing.T
	dir            string
	cmd            *exec.Cmd
	said           bytes.Buffer // before it has a log
	socks, control string       // host:port, of clients
}

// startTorNet returns when the network has agreed on its relays.
func startTorNet(t *testing.T) *torNet {
	t.Helper()
	for _, tool := range []string{"tor", "tor-gencert"} {
		_, err := exec.LookPath(tool)
		need(t, err == nil, tool+" (Debian's package tor)")
	}
	n := &torNet{port: 10_000 + rand.IntN(22_000)}
	var nodes [torAuthorities]authority
	var wg sync.WaitGroup
	for i := range nodes {
		nodes[i] = authority{name: fmt.Sprintf("authority%d", i), dir: t.TempDir(), or: n.freePort(t), http: n.freePort(t)}
		wg.Go(func() { nodes[i].err = nodes[i].makeKeys() })
	}
	wg.Wait()
	n.dirPort = nodes[0].http
	for _, a := range nodes {
		if a.err != nil {
			t.Fatal(a.err)
		}
		n.rows += a.row
	}
	// The first vote is a few seconds from now, when all have heard of all relays; who is late is in the next.
	const interval, untilConsensus = 10, 9
	offset := (time.Now().Unix() + untilConsensus) % interval
	for _, a := range nodes {
		n.start(t, a.dir, relayRows(a.name, a.or)+fmt.Sprintf(authorityRows, portOf(a.http), interval, offset))
	}
	for i := range torRelays - torAuthorities {
		n.start(t, t.TempDir(), relayRows(fmt.Sprintf("relay%d", i), n.freePort(t)))
	}
	took, ok := within(t, torPatience, func() bool { return n.agreed() >= torRelays })
	if !ok {
		t.Fatalf("after %v the Tor network has %d relays, want %d", took, n.agreed(), torRelays)
	}
	t.Logf("a Tor network of %d relays in %v", torRelays, took.Round(100*time.Millisecond))
	return n
}

// authority is who says what relays there are.
type authority struct {
	name, dir string
	or, http  string // host:port
	row       string // that names it in every torrc
	err       error
}

// authorityRows has TestingTorNetwork's least delays, and all relays good for all purposes.
const authorityRows = `
AuthoritativeDirectory 1
V3AuthoritativeDirectory 1
ContactInfo nobody@localhost
DirPort 127.0.0.1:%s
TestingV3AuthInitialVotingInterval %d
TestingV3AuthInitialVoteDelay 2
TestingV3AuthInitialDistDelay 2
TestingV3AuthVotingStartOffset %d
V3AuthVotingInterval 20
V3AuthVoteDelay 2
V3AuthDistDelay 2
TestingDirAuthVoteExit *
TestingDirAuthVoteGuard *
TestingDirAuthVoteHSDir *
AuthDirMaxServersPerAddr 0
`

// makeKeys makes the long-lived keys, which every other node has to know.
func (a *authority) makeKeys() error {
	keys := filepath.Join(a.dir, "keys")
	if err := os.Mkdir(keys, 0o700); err != nil {
		return err
	}
	cert := exec.Command("tor-gencert", "--create-identity-key", "-m", "12", "-a", a.http, "--passphrase-fd", "0")
	cert.Dir, cert.Stdin = keys, strings.NewReader("passphrase\n")
	if out, err := cert.CombinedOutput(); err != nil {
		return fmt.Errorf("tor-gencert: %w\n%s", err, out)
	}
	raw, err := os.ReadFile(filepath.Join(keys, "authority_certificate"))
	if err != nil {
		return err
	}
	out, err := exec.Command("tor", "--ignore-missing-torrc", "-f", os.DevNull, "--defaults-torrc", os.DevNull, "--quiet",
		"--list-fingerprint", "--DataDirectory", a.dir, "--Nickname", a.name, "--ORPort", "1", "--DirAuthority", "nobody 127.0.0.1:1 "+strings.Repeat("F", 40)).CombinedOutput()
	identity := regexp.MustCompile(`(?m)^fingerprint ([0-9A-F]{40})$`).FindSubmatch(raw)
	relay := regexp.MustCompile(`(?m)^` + a.name + ` ([0-9A-F ]{49})$`).FindSubmatch(out)
	if err != nil || identity == nil || relay == nil {
		return fmt.Errorf("the authority's fingerprints: %v\n%s", err, out)
	}
	a.row = fmt.Sprintf("DirAuthority %s orport=%s v3ident=%s %s %s\n", a.name, portOf(a.or), identity[1], a.http,
		strings.ReplaceAll(string(relay[1]), " ", ""))
	return nil
}

// relayRows is the part of a relay's torrc that makes it one, and an exit to this machine.
func relayRows(name, or string) string {
	return fmt.Sprintf("SocksPort 0\nNickname %s\nAddress 127.0.0.1\nORPort %s\nAssumeReachable 1\nExitRelay 1\n"+
		"ExitPolicyRejectPrivate 0\nExitPolicy accept *:*\n", name, or)
}

// agreed counts the relays in the authorities' latest consensus.
func (n *torNet) agreed() int {
	r, err := http.NewRequest("GET", "http://"+n.dirPort+"/tor/status-vote/current/consensus", nil)
	if err != nil {
		return 0
	}
	r.Header.Set("Accept-Encoding", "identity") // asked for gzip it sends zlib
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return 0
	}
	return bytes.Count(body, []byte("\nr "))
}

// clientRows lets a client go to this machine, and do without vanguards: among so few relays they make ways that go
// back to where they came from, which relays refuse. What stalls is given up early, for the daemon to try again.
const clientRows = `
SocksPort %s
ControlPort %s
CookieAuthentication 1
ClientRejectInternalAddresses 0
ClientDNSRejectInternalAddresses 0
VanguardsLiteEnabled 0
SocksTimeout 15
LearnCircuitBuildTimeout 0
CircuitBuildTimeout 5
`

// client returns a client when it is ready.
func (n *torNet) client(t *testing.T) *torNode {
	t.Helper()
	socks, control := n.freePort(t), n.freePort(t)
	c := n.start(t, t.TempDir(), fmt.Sprintf(clientRows, socks, control))
	c.socks, c.control = socks, control
	c.awaitReady()
	return c
}

// start writes a node's torrc and runs it.
func (n *torNet) start(t *testing.T, dir, rows string) *torNode {
	t.Helper()
	rows = fmt.Sprintf("TestingTorNetwork 1\nDataDirectory %s\nShutdownWaitLength 0\n__OwningControllerProcess %d\nLog notice file %s\n%s%s",
		dir, os.Getpid(), filepath.Join(dir, "log"), n.rows, rows)
	if err := os.WriteFile(filepath.Join(dir, "torrc"), []byte(rows), 0o600); err != nil {
		t.Fatal(err)
	}
	c := &torNode{t: t, dir: dir}
	c.start()
	t.Cleanup(func() {
		c.kill()
		if t.Failed() {
			raw, _ := os.ReadFile(filepath.Join(dir, "log")) // may be missing
			t.Logf("%s\n%s%s", dir, &c.said, raw[max(0, len(raw)-2000):])
		}
	})
	return c
}

func (c *torNode) start() {
	c.t.Helper()
	c.cmd = exec.Command("tor", "-f", filepath.Join(c.dir, "torrc"), "--defaults-torrc", os.DevNull, "--hush")
	c.cmd.Stdout = &c.said
	if err := c.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
}

// kill ends it as a crash does.
func (c *torNode) kill() {
	if c.cmd.Process != nil {
		c.cmd.Process.Kill()
		c.cmd.Wait()
	}
}

func (c *torNode) awaitReady() {
	c.t.Helper()
	took, ok := within(c.t, torPatience, func() bool {
		phase, err := c.ask("GETINFO status/bootstrap-phase")
		return err == nil && strings.Contains(phase, "TAG=done")
	})
	if !ok {
		c.t.Fatalf("Tor is not ready after %v", took)
	}
	c.t.Logf("a Tor client in %v", took.Round(100*time.Millisecond))
}

// ask asks a client over its control port.
func (c *torNode) ask(command string) (string, error) {
	cookie, err := os.ReadFile(filepath.Join(c.dir, "control_auth_cookie"))
	if err != nil {
		return "", err
	}
	conn, err := textproto.Dial("tcp", c.control)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	var answer string
	for _, line := range []string{"AUTHENTICATE " + hex.EncodeToString(cookie), command} {
		if err := conn.PrintfLine("%s", line); err != nil {
			return "", err
		}
		if answer, err = readReply(conn); err != nil {
			return "", err
		}
	}
	return answer, nil
}

// readReply reads up to the line that says OK. An answer of several lines has a form of its own (control-spec, 2.3),
// which textproto does not know.
func readReply(conn *textproto.Conn) (string, error) {
	var lines []string
	for {
		line, err := conn.ReadLine()
		switch {
		case err != nil:
			return "", err
		case line == "250 OK":
			return strings.Join(lines, "\n"), nil
		case len(lines) == 0 && !strings.HasPrefix(line, "250"):
			return "", errors.New(line)
		}
		lines = append(lines, line)
	}
}

// freePort returns a host:port which nothing listens on and which was not returned before, below those that the system
// gives to others meanwhile.
func (n *torNet) freePort(t *testing.T) string {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	for range 100 {
		n.port++
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", n.port))
		if err == nil {
			l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no free port")
	return ""
}

func portOf(address string) string {
	_, port, _ := net.SplitHostPort(address) // one of ours
	return port
}
