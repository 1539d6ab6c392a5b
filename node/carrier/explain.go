package carrier

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net"
	"syscall"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	utls "github.com/refraction-networking/utls"
)

// Cause says in a word what keeps an address from being reached, as far as that can be seen from here.
type Cause string

const (
	NoRoute     Cause = "no-route"       // this machine has no way there
	NoName      Cause = "no-name"        // nobody says what address the host has
	Silent      Cause = "address-silent" // nothing of the whole host comes back
	PortSilent  Cause = "port-silent"    // the host answers, and not on this port
	Closed      Cause = "closed"         // the host says that nobody listens there
	UDPSilent   Cause = "udp-silent"     // the host answers on TCP, and not on UDP
	Recognised  Cause = "recognised"     // cut or starved after the first bytes, which show libp2p
	LooksRandom Cause = "looks-random"   // cut or starved after the first bytes, which look like nothing that is known
	NameBlocked Cause = "name-blocked"   // cut or starved after a TLS hello to this name; a hello without it is answered
	HelloCut    Cause = "hello-cut"      // cut or starved after a TLS hello, whatever the name
	NotLetIn    Cause = "not-let-in"     // the way is free, and the other side does not accept our invite
	NoProgram   Cause = "no-program"     // a pluggable transport's program is missing on this machine
	NoTor       Cause = "no-tor"         // Tor does not run on this machine, or not where it was looked for
	TorFails    Cause = "tor-fails"      // Tor runs, and does not get there
)

const (
	explainWait    = 5 * time.Second // for what should take a second
	versionsWait   = 2 * time.Second // for an answer by UDP
	versionsTries  = 3
	initialLength  = 1200       // bytes, RFC 9000 section 14.1
	unknownVersion = 0x1a2a3a4a // which makes a server name those that it knows, RFC 9000 section 15
)

// errNotLetIn is the reason where a rung's other side answers as it does to strangers.
var errNotLetIn = errors.New("the other side answers as to a stranger: the invite may be used up, expired or revoked, or somebody stands in between")

// Explain has a dialled, and says what kept dial from working; "" when nothing did. Before and after it makes further
// connections to the same host, and none that the mode forbids.
func (s *Set) Explain(ctx context.Context, a ma.Multiaddr, dial func() error) Cause {
	p := read(a)
	plain := s.cfg.Mode != OnlyTor && p.carrier != Tor
	if plain && p.carrier != QUIC {
		// First of all, for after a cut hello some censors drop everything to that port for a while.
		conn, err := s.tcp(ctx, p.host, p.port)
		if err != nil {
			return s.explainConnect(ctx, p, err)
		}
		conn.Close()
	}
	err := dial()
	switch {
	case err == nil:
		return ""
	case errors.Is(err, errNotLetIn):
		return NotLetIn
	case somebodyElse(err):
		return Closed // who was looked for is not there any more
	case errors.Is(err, errNoProgram):
		return NoProgram
	case !plain:
		return s.explainTor(ctx)
	case p.carrier == QUIC:
		return s.explainQUIC(ctx, p)
	case p.carrier == TCP:
		return Recognised
	case p.carrier == PT:
		return LooksRandom
	case p.tls && (p.named || p.sni != "") && s.answersHello(ctx, p):
		return NameBlocked
	}
	return HelloCut
}

func (s *Set) explainTor(ctx context.Context) Cause {
	ctx, cancel := context.WithTimeout(ctx, explainWait)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", s.cfg.TorSOCKS)
	if err != nil {
		return NoTor
	}
	conn.Close()
	return TorFails
}

// tcp opens a connection, which says nothing.
func (s *Set) tcp(ctx context.Context, host, port string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, explainWait)
	defer cancel()
	return s.dialTo(ctx, net.JoinHostPort(host, port), "doctor")
}

// explainConnect is about a TCP connection that did not come about.
func (s *Set) explainConnect(ctx context.Context, p place, err error) Cause {
	var name *net.DNSError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return Closed
	case errors.Is(err, syscall.ENETUNREACH):
		return NoRoute
	case errors.As(err, &name), errors.Is(err, errNoName):
		return NoName
	case s.hostAnswers(ctx, p):
		return PortSilent
	}
	return Silent
}

// hostAnswers reports whether anything comes back from another port of a host than p's, be it a refusal.
func (s *Set) hostAnswers(ctx context.Context, p place) bool {
	for _, port := range []string{"443", "80"} {
		if port == p.port && p.carrier != QUIC {
			continue
		}
		conn, err := s.tcp(ctx, p.host, port)
		if err == nil {
			conn.Close()
		}
		if err == nil || errors.Is(err, syscall.ECONNREFUSED) {
			return true
		}
	}
	return false
}

// explainQUIC asks a server for its versions, which shows nothing of libp2p: whoever answers would have answered the
// rest, too, had it come through.
func (s *Set) explainQUIC(ctx context.Context, p place) Cause {
	switch err := askVersions(ctx, p); {
	case err == nil:
		return Recognised
	case errors.Is(err, syscall.ECONNREFUSED):
		return Closed
	}
	if conn, err := s.tcp(ctx, p.host, p.port); err == nil || errors.Is(err, syscall.ECONNREFUSED) {
		if err == nil {
			conn.Close()
		}
		return UDPSilent
	} else if errors.Is(err, syscall.ENETUNREACH) {
		return NoRoute
	}
	if s.hostAnswers(ctx, p) {
		return UDPSilent
	}
	return Silent
}

// askVersions sends a server a QUIC packet of a version that does not exist, and returns nil when it answers as it must
// (RFC 9000 section 6).
func askVersions(ctx context.Context, p place) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "udp", p.address())
	if err != nil {
		return err
	}
	defer conn.Close()
	ask := make([]byte, initialLength)
	rand.Read(ask[:32])
	ask[0] |= 0xc0
	binary.BigEndian.PutUint32(ask[1:], unknownVersion)
	ask[5], ask[14] = 8, 8 // lengths of the two connection ids
	err = ctx.Err()
	for try := 0; try < versionsTries && ctx.Err() == nil; try++ {
		if _, err = conn.Write(ask); err != nil {
			return err
		}
		conn.SetReadDeadline(time.Now().Add(versionsWait))
		var reply [initialLength]byte
		var n int
		n, err = conn.Read(reply[:])
		if errors.Is(err, syscall.ECONNREFUSED) || err == nil && n >= 7 && reply[0]&0x80 != 0 && binary.BigEndian.Uint32(reply[1:]) == 0 {
			return err
		}
	}
	return errors.Join(err, errors.New("no answer that is one"))
}

// answersHello reports whether a server answers a browser's hello that names nobody.
func (s *Set) answersHello(ctx context.Context, p place) bool {
	conn, err := s.tcp(ctx, p.host, p.port)
	if err != nil {
		return false
	}
	heard := &hearing{Conn: conn}
	tls := utls.UClient(heard, &utls.Config{InsecureSkipVerify: true}, utls.HelloChrome_Auto)
	defer conn.Close()
	if err := tls.RemoveSNIExtension(); err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, explainWait)
	defer cancel()
	return tls.HandshakeContext(ctx) == nil || heard.any
}

// hearing notes whether anything was read.
type hearing struct {
	net.Conn
	any bool
}

func (h *hearing) Read(b []byte) (int, error) {
	n, err := h.Conn.Read(b)
	h.any = h.any || n > 0
	return n, err
}
