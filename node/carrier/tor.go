package carrier

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	ma "github.com/multiformats/go-multiaddr"
)

// onion goes through Tor: to onion services, and in mode tor to TCP addresses also. It listens as an onion service,
// which the Tor of this machine is asked for over its control port.
type onion struct{ set *Set }

func (o *onion) name() string     { return Tor }
func (o *onion) protocols() []int { return []int{codeTor, ma.P_ONION3} }

func (o *onion) dial(ctx context.Context, p place) (net.Conn, error) {
	conn, err := o.set.dialTor(ctx, p.address(), hex.EncodeToString(p.token[:])+p.host)
	if err != nil || p.carrier != Tor {
		return conn, err
	}
	if !p.hasToken {
		return nil, errors.Join(errors.New("an onion service's address without a token"), conn.Close())
	}
	return knock(conn, p)
}

// onionPort is the port of our onion services.
const onionPort = "4870"

func (o *onion) listen(a ma.Multiaddr, d *door) (net.Listener, error) {
	p := read(a)
	ip := net.ParseIP(p.host)
	if ip == nil || !ip.IsLoopback() {
		return nil, fmt.Errorf("listen on %s: it takes the form /ip4/127.0.0.1/tcp/0/tor", a)
	}
	inner, err := net.Listen("tcp", p.address())
	if err != nil {
		return nil, err
	}
	s := &service{file: filepath.Join(o.set.cfg.Dir, "carrier-onion.key"), target: inner.Addr().String()}
	if err := s.publish(o.set.cfg); err != nil {
		return nil, errors.Join(err, inner.Close())
	}
	o.set.onClose(s.control.Close)
	at, err := ma.NewMultiaddr("/onion3/" + s.id + ":" + onionPort)
	if err != nil {
		return nil, errors.Join(err, inner.Close())
	}
	o.set.listening(at)
	go d.greet(inner, o.set.guard.answer)
	return inner, nil
}

// service is an onion service: it lasts as long as the control connection that asked for it.
type service struct {
	file    string // its key
	target  string // host:port
	id      string // without .onion
	control *textproto.Conn
}

var (
	cookieFile = regexp.MustCompile(`COOKIEFILE="((?:[^"\\]|\\.)*)"`)
	onionID    = regexp.MustCompile(`^ServiceID=([a-z2-7]{56})$`)
	onionKey   = regexp.MustCompile(`^PrivateKey=(ED25519-V3:[A-Za-z0-9+/=]+)$`)
)

// publish asks Tor for the service (control-spec, ADD_ONION), with the key of last time if there is one.
func (s *service) publish(cfg Config) error {
	conn, err := net.DialTimeout("tcp", cfg.TorControl, 5*time.Second)
	if err != nil {
		return fmt.Errorf("reach Tor's control port, which an onion service needs: %w", err)
	}
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	s.control = textproto.NewConn(conn)
	if err = s.authenticate(cfg.TorPassword); err == nil {
		err = s.add()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("ask Tor for an onion service: %w", err), s.control.Close())
	}
	return conn.SetDeadline(time.Time{})
}

func (s *service) authenticate(password string) error {
	if password != "" {
		_, err := s.ask(`AUTHENTICATE "` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(password) + `"`)
		return err
	}
	info, err := s.ask("PROTOCOLINFO 1")
	if err != nil {
		return err
	}
	m := cookieFile.FindStringSubmatch(info)
	if m == nil {
		_, err := s.ask("AUTHENTICATE")
		return err
	}
	cookie, err := os.ReadFile(strings.NewReplacer(`\\`, `\`, `\"`, `"`).Replace(m[1]))
	if err != nil {
		return fmt.Errorf("its cookie cannot be read; is this user in Tor's group? %w", err)
	}
	_, err = s.ask("AUTHENTICATE " + hex.EncodeToString(cookie))
	return err
}

func (s *service) add() error {
	key := "NEW:ED25519-V3"
	raw, err := os.ReadFile(s.file)
	if err == nil {
		key = strings.TrimSpace(string(raw))
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	reply, err := s.ask(fmt.Sprintf("ADD_ONION %s Port=%s,%s", key, onionPort, s.target))
	if err != nil {
		return err
	}
	for line := range strings.Lines(reply) {
		line = strings.TrimSpace(line)
		if m := onionID.FindStringSubmatch(line); m != nil {
			s.id = m[1]
		}
		if m := onionKey.FindStringSubmatch(line); m != nil {
			if err := writeFile(s.file, []byte(m[1]+"\n")); err != nil {
				return err
			}
		}
	}
	if s.id == "" {
		return errors.New("it names no service")
	}
	return nil
}

// ask sends a command and returns the answer's lines; any other than 250 is an error.
func (s *service) ask(command string) (string, error) {
	if err := s.control.PrintfLine("%s", command); err != nil {
		return "", err
	}
	_, text, err := s.control.ReadResponse(250)
	return text, err
}
