package carrier

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// service is an onion service. Tor keeps it up as long as the control connection that asked for it.
type service struct {
	net.Listener // to which Tor passes on
	cfg          Config
	log          *slog.Logger

	key string // as ADD_ONION takes it; "" before the first publishing
	id  string // without .onion

	cancel context.CancelFunc
	ended  chan struct{} // closed when keep has returned
}

// start publishes the service, and from then on sees to it that it stays.
func (s *service) start() error {
	ctx, cancel := context.WithCancel(context.Background())
	c, err := s.publish(ctx)
	if err != nil {
		cancel()
		return err
	}
	s.cancel = cancel
	go s.keep(ctx, c)
	return nil
}

// Close has Tor forget the service, and waits until nothing of it runs.
func (s *service) Close() error {
	err := s.Listener.Close()
	return errors.Join(err, s.end())
}

func (s *service) end() error {
	s.cancel()
	<-s.ended
	return nil
}

// Tor may be away for a moment, when it is restarted, or for a night.
const (
	firstAgain   = time.Second // doubled with each attempt
	longestAgain = time.Minute
)

// keep has Tor hold the service until ctx ends: whenever the control connection ends, it asks again.
func (s *service) keep(ctx context.Context, c *controller) {
	defer close(s.ended)
	for c != nil {
		c.await(ctx)
		if ctx.Err() != nil {
			return
		}
		s.log.Warn("the onion service is gone; it is asked for again", "carrier", Tor)
		c = s.again(ctx)
	}
}

// again publishes once more, however long that takes; it returns nil when ctx ends.
func (s *service) again(ctx context.Context) *controller {
	for wait := firstAgain; ; wait = min(2*wait, longestAgain) {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		c, err := s.publish(ctx)
		if err == nil {
			s.log.Info("the onion service is back", "carrier", Tor)
			return c
		}
		if op := (*net.OpError)(nil); errors.As(err, &op) {
			err = op.Err // without the address
		}
		s.log.Debug("no onion service yet", "carrier", Tor, "error", err)
	}
}

// publish asks Tor for the service (control-spec, ADD_ONION), with the key of last time if there is one.
func (s *service) publish(ctx context.Context) (*controller, error) {
	d := net.Dialer{Timeout: 5 * time.Second}
	conn, err := d.DialContext(ctx, "tcp", s.cfg.TorControl)
	if err != nil {
		return nil, fmt.Errorf("reach Tor's control port, which an onion service needs: %w", err)
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	c := &controller{Conn: textproto.NewConn(conn)}
	err = conn.SetDeadline(time.Now().Add(30 * time.Second))
	if err == nil {
		err = c.authenticate(s.cfg.TorPassword)
	}
	if err == nil {
		err = s.add(c)
	}
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("ask Tor for an onion service: %w", err), c.Close())
	}
	return c, nil
}

// add has the same key, and so the same name, for as long as the listener is open, whatever becomes of the file.
func (s *service) add(c *controller) error {
	file := filepath.Join(s.cfg.Dir, "carrier-onion.key")
	if s.key == "" {
		raw, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		s.key = strings.TrimSpace(string(raw))
	}
	key := s.key
	if key == "" {
		key = "NEW:ED25519-V3"
	}
	reply, err := c.ask(fmt.Sprintf("ADD_ONION %s Port=%s,%s", key, onionPort, s.Addr()))
	if err != nil {
		return err
	}
	for line := range strings.Lines(reply) {
		line = strings.TrimSpace(line)
		if m := onionID.FindStringSubmatch(line); m != nil {
			s.id = m[1]
		}
		if m := onionKey.FindStringSubmatch(line); m != nil {
			s.key = m[1]
			if err := writeFile(file, []byte(s.key+"\n")); err != nil {
				return err
			}
		}
	}
	if s.id == "" {
		return errors.New("it names no service")
	}
	return nil
}

var (
	cookieFile = regexp.MustCompile(`COOKIEFILE="((?:[^"\\]|\\.)*)"`)
	onionID    = regexp.MustCompile(`^ServiceID=([a-z2-7]{56})$`)
	onionKey   = regexp.MustCompile(`^PrivateKey=(ED25519-V3:[A-Za-z0-9+/=]+)$`)
)

// controller is a connection to Tor's control port.
type controller struct{ *textproto.Conn }

// await returns when Tor ends the connection, or when ctx ends, and closes it.
func (c *controller) await(ctx context.Context) {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	for {
		if _, err := c.ReadLine(); err != nil { // it has nothing to say: no events are asked for
			return
		}
	}
}

func (c *controller) authenticate(password string) error {
	if password != "" {
		_, err := c.ask(`AUTHENTICATE "` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(password) + `"`)
		return err
	}
	info, err := c.ask("PROTOCOLINFO 1")
	if err != nil {
		return err
	}
	m := cookieFile.FindStringSubmatch(info)
	if m == nil {
		_, err := c.ask("AUTHENTICATE")
		return err
	}
	cookie, err := os.ReadFile(strings.NewReplacer(`\\`, `\`, `\"`, `"`).Replace(m[1]))
	if err != nil {
		return fmt.Errorf("its cookie cannot be read; is this user in Tor's group? %w", err)
	}
	_, err = c.ask("AUTHENTICATE " + hex.EncodeToString(cookie))
	return err
}

// ask sends a command and returns the answer's lines; any other than 250 is an error.
func (c *controller) ask(command string) (string, error) {
	if err := c.PrintfLine("%s", command); err != nil {
		return "", err
	}
	_, text, err := c.ReadResponse(250)
	return text, err
}
