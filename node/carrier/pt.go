package carrier

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	"golang.org/x/net/proxy"
)

// pluggable is any pluggable transport that runs as a program of its own (Tor's pluggable transport specification,
// version 1): obfs4proxy, lyrebird, snowflake-client, webtunnel-client and others. None of their code is linked in.
type pluggable struct{ set *Set }

func (t *pluggable) name() string     { return PT }
func (t *pluggable) protocols() []int { return []int{codePT} }

func (t *pluggable) dial(ctx context.Context, p place) (net.Conn, error) {
	name, args, _ := strings.Cut(p.pt, ";")
	c, err := t.set.pts.client(ctx, name)
	if err != nil {
		return nil, err
	}
	d, err := proxy.SOCKS5("tcp", c.socks, socksArgs(args), nil)
	if err != nil {
		return nil, err
	}
	conn, err := d.(proxy.ContextDialer).DialContext(ctx, "tcp", p.address())
	if err != nil {
		if ctx.Err() != nil || strings.Contains(err.Error(), "general SOCKS server failure") || strings.Contains(err.Error(), "TTL") {
			err = &Broken{err} // the program tells no cause; a port that is closed says "refused" or "unreachable"
		}
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return knock(conn, p)
}

// socksArgs puts arguments where the specification wants them: k=v;k=v in the name, what does not fit in the
// password, of which there has to be one.
func socksArgs(args string) *proxy.Auth {
	const most = 255
	args = strings.ReplaceAll(args, `\`, `\\`)
	if len(args) > most {
		return &proxy.Auth{User: args[:most], Password: args[most:]}
	}
	return &proxy.Auth{User: args, Password: "\x00"}
}

func (t *pluggable) listen(a ma.Multiaddr, d *door) (net.Listener, error) {
	p := read(a)
	ip := net.ParseIP(p.host)
	if ip == nil || strings.Contains(p.pt, ";") {
		return nil, fmt.Errorf("listen on %s: it takes the form /ip4/0.0.0.0/tcp/PORT/pt/NAME", a)
	}
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &server{Listener: inner}
	if err := t.start(s, p); err != nil {
		return nil, errors.Join(err, inner.Close())
	}
	go d.greet(inner, t.set.guard.answer)
	bound, err := netip.ParseAddrPort(s.bound)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", p.pt, err), s.Close())
	}
	for _, at := range d.places(ip, int(bound.Port())) {
		t.set.listening(withPT(at, p.pt+";"+strings.ReplaceAll(s.args, ",", ";")))
	}
	return s, nil
}

// withPT replaces the pluggable transport's part of an address.
func withPT(a ma.Multiaddr, pt string) ma.Multiaddr {
	var out ma.Multiaddr
	ma.ForEach(a, func(c ma.Component) bool {
		if c.Code() == codePT {
			c = *component("pt", []byte(pt))
		}
		out = append(out, c)
		return true
	})
	return out
}

// server is the running server side of a pluggable transport, which passes on to our listener.
type server struct {
	net.Listener
	program *program
	bound   string // host:port
	args    string // k=v,k=v
}

func (t *pluggable) start(s *server, p place) error {
	cmd, err := t.set.pts.command(p.pt)
	if err != nil {
		return err
	}
	cmd.Env = append(cmd.Env, "TOR_PT_SERVER_TRANSPORTS="+p.pt, "TOR_PT_SERVER_BINDADDR="+p.pt+"-"+p.address(),
		"TOR_PT_ORPORT="+s.Addr().String())
	ended := func() { t.set.log.Warn("a pluggable transport's program ended", "transport", p.pt) }
	s.program, err = launch(cmd, ended, func(word string, rest []string) (bool, error) {
		if word == "SMETHOD" && len(rest) >= 2 && rest[0] == p.pt {
			s.bound = rest[1]
			for _, o := range rest[2:] {
				if args, ok := strings.CutPrefix(o, "ARGS:"); ok {
					s.args = args
				}
			}
		}
		return word == "SMETHODS" && s.bound != "", nil
	})
	if err != nil {
		return fmt.Errorf("start the pluggable transport %s: %w", p.pt, err)
	}
	return nil
}

func (s *server) Close() error {
	err := s.Listener.Close()
	s.program.stop()
	return err
}

// programs runs the client sides, one program for each transport, from the first dial on.
type programs struct {
	cfg Config

	mu      sync.Mutex // guards running; held while a program starts, so that it starts once
	running map[string]*client
}

type client struct {
	*program
	socks string // host:port
}

// usual are the programs that are known to speak a transport, where the user names none.
func usual(transport string) []string {
	switch transport {
	case "obfs4":
		return []string{"obfs4proxy", "lyrebird"}
	case "snowflake":
		return []string{"snowflake-client"}
	case "webtunnel":
		return []string{"webtunnel-client", "lyrebird"}
	}
	return []string{transport}
}

var errNoProgram = errors.New("its program is not installed here")

// command prepares a program as the specification says, up to what tells client and server apart.
func (p *programs) command(transport string) (*exec.Cmd, error) {
	names := usual(transport)
	if named := p.cfg.PTs[transport]; named != "" {
		names = []string{named}
	}
	for _, name := range names {
		fields := strings.Fields(name)
		path, err := exec.LookPath(fields[0])
		if err != nil {
			continue
		}
		state := filepath.Join(p.cfg.Dir, "pt", transport)
		if err := os.MkdirAll(state, 0o700); err != nil {
			return nil, err
		}
		cmd := exec.Command(path, fields[1:]...)
		cmd.Env = append(os.Environ(), "TOR_PT_MANAGED_TRANSPORT_VER=1", "TOR_PT_STATE_LOCATION="+state, "TOR_PT_EXIT_ON_STDIN_CLOSE=1")
		return cmd, nil
	}
	return nil, fmt.Errorf("the pluggable transport %s: %w: %s", transport, errNoProgram, strings.Join(names, " or "))
}

func (p *programs) client(ctx context.Context, transport string) (*client, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.running[transport]; c != nil {
		select {
		case <-c.ended:
		default:
			return c, nil
		}
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	cmd, err := p.command(transport)
	if err != nil {
		return nil, err
	}
	cmd.Env = append(cmd.Env, "TOR_PT_CLIENT_TRANSPORTS="+transport)
	c := &client{}
	c.program, err = launch(cmd, func() {}, func(word string, rest []string) (bool, error) {
		if word == "CMETHOD" && len(rest) >= 3 && rest[0] == transport {
			if rest[1] != "socks5" {
				return false, fmt.Errorf("it speaks %q, not socks5", rest[1])
			}
			c.socks = rest[2]
		}
		return word == "CMETHODS" && c.socks != "", nil
	})
	if err != nil {
		return nil, fmt.Errorf("start the pluggable transport %s: %w", transport, err)
	}
	p.running[transport] = c
	return c, nil
}

func (p *programs) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.running {
		c.stop()
	}
	clear(p.running)
}

// program is one that runs, and ends with us: its standard input says so.
type program struct {
	cmd   *exec.Cmd
	stdin io.Closer
	ended chan struct{}
}

// launch starts a program and reads its lines until take says that all is said. ended is called when it ends.
func launch(cmd *exec.Cmd, ended func(), take func(word string, rest []string) (done bool, err error)) (*program, error) {
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	lines := bufio.NewScanner(stdout)
	if err := handshake(lines, take); err != nil {
		stdin.Close()
		cmd.Process.Kill()
		cmd.Wait()
		return nil, err
	}
	p := &program{cmd, stdin, make(chan struct{})}
	go func() {
		for lines.Scan() { // it must never wait for a reader
		}
		cmd.Wait()
		close(p.ended)
		ended()
	}()
	return p, nil
}

// stop asks the program to end, and sees to it.
func (p *program) stop() {
	p.stdin.Close()
	select {
	case <-p.ended:
	case <-time.After(2 * time.Second):
		p.cmd.Process.Kill()
		<-p.ended
	}
}

// startTime is for a program to say where it listens.
const startTime = 10 * time.Second

// handshake reads a program's lines until take says that all is said. A line is a word and its values, of which take
// gets those that are no errors.
func handshake(lines *bufio.Scanner, take func(word string, rest []string) (done bool, err error)) error {
	result := make(chan error, 1)
	go func() {
		for lines.Scan() {
			word, rest, _ := strings.Cut(lines.Text(), " ")
			switch word {
			case "ENV-ERROR", "VERSION-ERROR", "PROXY-ERROR", "CMETHOD-ERROR", "SMETHOD-ERROR":
				result <- fmt.Errorf("it says %s %s", word, rest)
				return
			}
			done, err := take(strings.TrimSuffix(word, " DONE"), strings.Fields(rest))
			if done || err != nil {
				result <- err
				return
			}
		}
		result <- errors.New("it ended at once")
	}()
	select {
	case err := <-result:
		return err
	case <-time.After(startTime):
		return errors.New("it says nothing")
	}
}
