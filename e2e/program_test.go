package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"openline/e2e/lab"
	"openline/node/api"
)

// openline is the path of the program under test, built once.
var openline = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "openline-e2e-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "openline")
	if runtime.GOOS == "windows" {
		path += ".exe"
	}
	out, err := exec.Command("go", "build", "-o", path, "openline/cmd/openline").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	lab.Main(map[string]func([]string){"cover": coverSite, "site": runSite, "ordinary": ordinary, "probe": probe})
	code := m.Run()
	matrix.print()
	if path, err := openline(); err == nil { // built by any test, or in vain
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// matrix is what came of it under each censor: a line each. It is printed when all tests have ended, and written to the
// file that OPENLINE_MATRIX names.
var matrix table

type table struct {
	mu    sync.Mutex // guards lines
	lines []string
}

func (m *table) add(censor, format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lines = append(m.lines, fmt.Sprintf("%-52s  %s\n", censor, fmt.Sprintf(format, args...)))
}

func (m *table) print() {
	if len(m.lines) == 0 {
		return
	}
	slices.Sort(m.lines)
	text := fmt.Sprintf("%-52s  what came of it\n", "censor") + strings.Join(m.lines, "")
	fmt.Print(text)
	if file := os.Getenv("OPENLINE_MATRIX"); file != "" {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			fmt.Println(err)
		}
	}
}

// newCover returns a web site that knows nothing of us, not yet started.
func newCover() *httptest.Server {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "the cover site") }))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes by which the bridge learns how the site looks
	return s
}

// coverSite is such a site on port 443 of a host in the lab.
func coverSite([]string) {
	s := newCover()
	l, err := net.Listen("tcp", ":443")
	if err != nil {
		panic(err)
	}
	s.Listener = l
	s.StartTLS()
	select {}
}

// ordinary is a host with a web server on port 443, which shows a directory with a certificate, and one that says
// nothing on port 9443.
func ordinary(args []string) {
	go func() {
		s := &http.Server{Addr: ":443", Handler: http.FileServer(http.Dir(args[0])), ErrorLog: log.New(io.Discard, "", 0)}
		panic(s.ListenAndServeTLS(args[1], args[1]))
	}()
	l, err := net.Listen("tcp", ":9443")
	if err != nil {
		panic(err)
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			panic(err)
		}
		go io.Copy(io.Discard, conn)
	}
}

// patience is how long a test waits for what should take a second or two.
const patience = 30 * time.Second

// daemon is a running "openline daemon" with a data directory of its own.
type daemon struct {
	t      *testing.T
	dir    string
	args   []string
	host   func(ctx context.Context, name string, args ...string) *exec.Cmd // makes a command of the machine that it is on
	cmd    *exec.Cmd
	api    string // host:port
	addr   string // for --peer
	stderr *bytes.Buffer
}

// startDaemon starts one on loopback, joined to the given peers. It is stopped when the test ends.
func startDaemon(t *testing.T, peers ...*daemon) *daemon {
	t.Helper()
	args := []string{"--listen", "/ip4/127.0.0.1/tcp/0"}
	for _, p := range peers {
		args = append(args, "--peer", p.addr)
	}
	return startNode(t, "daemon", args...)
}

// startNode starts a daemon or relay with further flags, alone on loopback.
func startNode(t *testing.T, role string, args ...string) *daemon {
	t.Helper()
	d := &daemon{t: t, dir: t.TempDir(), host: exec.CommandContext}
	d.args = append([]string{role, "--json", "--lan=false", "--nat=false", "--network", "e2e", "--data", d.dir, "--api", "127.0.0.1:0"}, args...)
	t.Cleanup(func() { d.stop() })
	d.start()
	return d
}

func (d *daemon) start() {
	d.t.Helper()
	path, err := openline()
	if err != nil {
		d.t.Fatal(err)
	}
	d.cmd = d.host(context.Background(), path, d.args...)
	d.stderr = &bytes.Buffer{}
	d.cmd.Stderr = d.stderr
	stdout, err := d.cmd.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	var s api.Status
	if err != nil || json.Unmarshal(line, &s) != nil || s.API == "" {
		d.kill()
		d.t.Fatalf("the daemon did not come up: %v\n%s%s", err, line, d.stderr)
	}
	d.api, d.addr = s.API, ""
	if len(s.Addresses) > 0 {
		d.addr = s.Addresses[0]
	}
}

// kill ends it as a crash does.
func (d *daemon) kill() {
	d.cmd.Process.Kill()
	d.cmd.Wait()
	d.cmd = nil
}

// stop ends it as Ctrl-C does.
func (d *daemon) stop() {
	if d.cmd == nil {
		return
	}
	d.cmd.Process.Signal(syscall.SIGTERM)
	if err := d.cmd.Wait(); err != nil {
		d.t.Errorf("the daemon ended with %v\n%s", err, d.stderr)
	}
	d.cmd = nil
}

// run runs one verb against this daemon and returns its standard output.
func (d *daemon) run(args ...string) string {
	d.t.Helper()
	out, err := d.try(args...)
	if err != nil {
		d.t.Fatalf("openline %v: %v", args, err)
	}
	return out
}

func (d *daemon) try(args ...string) (string, error) { return d.tryFor(patience, args...) }

func (d *daemon) tryFor(most time.Duration, args ...string) (string, error) {
	path, err := openline()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), most)
	defer cancel()
	var out, errOut bytes.Buffer
	cmd := d.host(ctx, path, append(args, "--data", d.dir)...)
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%w: %s", err, &errOut)
	}
	return strings.TrimSpace(out.String()), nil
}

func (d *daemon) status() api.Status {
	d.t.Helper()
	var s api.Status
	if err := json.Unmarshal([]byte(d.run("status", "--json")), &s); err != nil {
		d.t.Fatal(err)
	}
	return s
}

// awaitLinks waits until the daemon has n peers with mesh links.
func (d *daemon) awaitLinks(n int) {
	d.t.Helper()
	await(d.t, fmt.Sprintf("%d mesh links", n), func() bool { return d.links() >= n })
}

func (d *daemon) links() (n int) {
	d.t.Helper()
	for _, p := range d.status().PeerList {
		if p.Mesh {
			n++
		}
	}
	return n
}

// await polls until ok.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s within %v", what, patience)
		}
	}
}

// within polls until ok, and says how long that took.
func within(t *testing.T, most time.Duration, ok func() bool) (time.Duration, bool) {
	t.Helper()
	begin := time.Now()
	for !ok() {
		if time.Since(begin) > most {
			return time.Since(begin), false
		}
		time.Sleep(50 * time.Millisecond)
	}
	return time.Since(begin), true
}

// need skips the test for want of a tool, visibly; where OPENLINE_E2E is set, all tools must be there.
func need(t *testing.T, ok bool, what string) {
	t.Helper()
	switch {
	case ok:
	case os.Getenv("OPENLINE_E2E") != "":
		t.Fatalf("OPENLINE_E2E is set and this is missing: %s", what)
	default:
		t.Skipf("SKIPPED, missing here: %s", what)
	}
}
