package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// roleEnv tells a process that runs the test's binary again what it is.
const roleEnv = "OPENLINE_LAB_ROLE"

// Main is to be called first in TestMain. In a process that the lab has started it does that process's work, or runs
// the function that Node.Func named, and exits; else it returns at once.
func Main(funcs map[string]func(args []string)) {
	role := os.Getenv(roleEnv)
	if role == "" {
		return
	}
	runtime.LockOSThread() // children die with the thread that started them
	var err error
	switch role {
	case "middle":
		err = runMiddle()
	case "host":
		err = runHost()
	default:
		f := funcs[role]
		if f == nil {
			err = fmt.Errorf("lab: no function is called %q", role)
			break
		}
		os.Unsetenv(roleEnv)
		f(os.Args[1:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Net is a running world.
type Net struct {
	t     testing.TB
	nodes map[string]*Node
	pcap  string

	mu  sync.Mutex // one order at a time
	in  io.Writer
	out *bufio.Reader
}

// Node is a running host.
type Node struct {
	net  *Net
	name string
	addr netip.Addr
	pid  int
}

// Available says why there can be no lab here; nil when there can.
func Available() error {
	if _, err := exec.LookPath("nsenter"); err != nil {
		return err
	}
	cmd := exec.Command("/bin/true")
	cmd.SysProcAttr = spaces()
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("network namespaces for an ordinary user: %w", err)
	}
	return nil
}

func spaces() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
}

// Start brings a world up; it ends with the test. Where namespaces are denied the test is skipped, or fails when
// OPENLINE_E2E is set.
func Start(t testing.TB, w World) *Net {
	t.Helper()
	if err := Available(); err != nil {
		if os.Getenv("OPENLINE_E2E") != "" {
			t.Fatalf("OPENLINE_E2E is set and this is missing: %v", err)
		}
		t.Skipf("SKIPPED, missing here: %v", err)
	}
	dir, err := os.MkdirTemp("", "lab-")
	if err != nil {
		t.Fatal(err)
	}
	n := &Net{t: t, nodes: map[string]*Node{}, pcap: filepath.Join(dir, "border.pcap")}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleEnv+"=middle")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = spaces()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	n.in, n.out = in, bufio.NewReaderSize(out, 1<<20)
	t.Cleanup(func() {
		n.keep(dir)
		in.Close()
		cmd.Process.Kill() // and with it everything in its process namespace
		cmd.Wait()
	})
	w = w.addressed()
	var pids []int
	if err := n.ask(setup{World: w, Pcap: n.pcap}, &pids); err != nil {
		t.Fatalf("lab: %v", err)
	}
	if err := n.find(w, cmd.Process.Pid, pids); err != nil {
		t.Fatalf("lab: %v", err)
	}
	return n
}

// find learns the hosts' processes as this process sees them.
func (n *Net) find(w World, middle int, pids []int) error {
	outer, err := outside(middle)
	if err != nil {
		return err
	}
	for i, h := range w.Hosts {
		addr, err := netip.ParseAddr(h.Addr)
		if err != nil {
			return err
		}
		if n.nodes[h.Name] = (&Node{n, h.Name, addr, outer[pids[i]]}); outer[pids[i]] == 0 {
			return fmt.Errorf("the process of host %s is not to be seen", h.Name)
		}
	}
	return nil
}

// outside maps process numbers inside of the middle's namespace to those outside.
func outside(middle int) (map[int]int, error) {
	files, err := filepath.Glob("/proc/[0-9]*/status")
	if err != nil {
		return nil, err
	}
	pids := map[int]int{}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil || !strings.Contains(string(raw), fmt.Sprintf("\nPPid:\t%d\n", middle)) {
			continue
		}
		for line := range strings.Lines(string(raw)) {
			if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "NSpid:" {
				out, err1 := strconv.Atoi(fields[1])
				in, err2 := strconv.Atoi(fields[2])
				if errors.Join(err1, err2) == nil {
					pids[in] = out
				}
			}
		}
	}
	return pids, nil
}

// ask sends the middle one line and reads one.
func (n *Net) ask(question, answer any) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	raw, err := json.Marshal(question)
	if err != nil {
		return err
	}
	if _, err := n.in.Write(append(raw, '\n')); err != nil {
		return err
	}
	return readLine(n.out, answer)
}

// keep leaves the capture and the flow log of a failed test where they are, and says so.
func (n *Net) keep(dir string) {
	if !n.t.Failed() {
		os.RemoveAll(dir)
		return
	}
	var log strings.Builder
	for _, f := range n.Flows() {
		fmt.Fprintf(&log, "%s %-4s %s > %s  %d up, %d down, %d packets  %s\n", f.Start.Format("15:04:05.000"), f.Proto, f.Client, f.Server, f.Up, f.Down, f.Packets, f.Verdict)
	}
	os.WriteFile(filepath.Join(dir, "flows.txt"), []byte(log.String()), 0o600)
	n.t.Logf("what crossed the border: %s", dir)
}

// Host returns a host by its name.
func (n *Net) Host(name string) *Node {
	h := n.nodes[name]
	if h == nil {
		panic("lab: no host is called " + name)
	}
	return h
}

// SetCensor replaces the rules; they are in force when it returns. What a rule that stays has found out stays.
func (n *Net) SetCensor(rules ...Rule) {
	n.t.Helper()
	var done bool
	if err := n.ask(order{Censor: rules}, &done); err != nil {
		n.t.Fatalf("lab: set the censor's rules: %v", err)
	}
}

// Flows returns what has crossed a border, and what was said to all of a link or to a group.
func (n *Net) Flows() (flows []Flow) {
	if err := n.ask(order{Flows: true}, &flows); err != nil {
		n.t.Logf("lab: read the flows: %v", err)
	}
	return flows
}

// Capture returns the file with the packets that crossed a border, as they came to it.
func (n *Net) Capture() string {
	n.Flows() // flushes it
	return n.pcap
}

// Addr returns the host's address.
func (h *Node) Addr() netip.Addr { return h.addr }

// Command returns a program that will run on this host. It is killed when the context ends.
func (h *Node) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"-t", strconv.Itoa(h.pid), "-U", "-n", "-m", "--preserve-credentials", name}, args...)...)
	cmd.WaitDelay = time.Second
	return cmd
}

// Func returns the test's own binary, which will run a function that Main knows on this host.
func (h *Node) Func(ctx context.Context, name string, args ...string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		panic(err) // the system does not say what runs
	}
	cmd := h.Command(ctx, self, args...)
	cmd.Env = append(os.Environ(), roleEnv+"="+name)
	return cmd
}
