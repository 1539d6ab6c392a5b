package carrier

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	ma "github.com/multiformats/go-multiaddr"
	mh "github.com/multiformats/go-multihash"
)

// Names of the carriers, in the order in which a network that nothing is known of is tried.
const (
	QUIC    = "quic"
	TCP     = "tcp"
	WSS     = "wss"
	Reality = "reality"
	PT      = "pt"
	Tor     = "tor"
	Relay   = "relay" // through another peer, by whatever leads to that
)

// Names lists all carriers, the order of trying.
func Names() []string { return []string{QUIC, TCP, WSS, Reality, PT, Tor, Relay} }

// Token is the secret of one invite, or of one who joined by it.
type Token = [16]byte

// Protocols of our own in multiaddrs, in the range for private use. SPEC.md section 16.
const (
	codeReality = 0x300001 // no value: REALITY, under the name in /sni/
	codeKey     = 0x300002 // X25519 public key of a REALITY server, base64url
	codeToken   = 0x300003 // a Token, base64url: the last component of what is handed out
	codePT      = 0x300004 // name of a pluggable transport and its arguments as in a bridge line: obfs4;cert=…;iat-mode=0
	codeTor     = 0x300005 // no value: on which to listen for an onion service
)

const maxValue = 512 // bytes of a component's value

// The table of protocols is one of the whole process, and reading it is not locked: so it is written before main.
var _ = register()

func register() error {
	bytesOf := func(size int) ma.Transcoder {
		check := func(b []byte) error {
			if len(b) != size {
				return fmt.Errorf("%d bytes instead of %d", len(b), size)
			}
			return nil
		}
		return ma.NewTranscoderFromFunctions(
			func(s string) ([]byte, error) {
				b, err := base64.RawURLEncoding.Strict().DecodeString(s)
				if err != nil {
					return nil, err
				}
				return b, check(b)
			},
			func(b []byte) (string, error) { return base64.RawURLEncoding.EncodeToString(b), nil },
			check)
	}
	check := func(b []byte) error {
		if len(b) == 0 || len(b) > maxValue {
			return fmt.Errorf("%d bytes, not 1 to %d", len(b), maxValue)
		}
		return nil
	}
	escaped := ma.NewTranscoderFromFunctions(
		func(s string) ([]byte, error) {
			s, err := url.PathUnescape(s)
			return []byte(s), errors.Join(err, check([]byte(s)))
		},
		func(b []byte) (string, error) { return url.PathEscape(string(b)), nil },
		check)
	for _, p := range []ma.Protocol{
		{Name: "reality", Code: codeReality},
		{Name: "key", Code: codeKey, Size: ma.LengthPrefixedVarSize, Transcoder: bytesOf(32)},
		{Name: "token", Code: codeToken, Size: ma.LengthPrefixedVarSize, Transcoder: bytesOf(len(Token{}))},
		{Name: "pt", Code: codePT, Size: ma.LengthPrefixedVarSize, Transcoder: escaped},
		{Name: "tor", Code: codeTor},
	} {
		p.VCode = ma.CodeToVarint(p.Code)
		if err := ma.AddProtocol(p); err != nil {
			panic(err) // two protocols of one name or number
		}
	}
	return nil
}

// place is what a multiaddr says, as far as carriers care.
type place struct {
	carrier  string // "" when it is none of ours
	host     string // an IP, a name, or an onion service's name
	named    bool   // host has to be looked up
	port     string
	tls      bool
	sni      string
	pin      []byte // SHA-256 of the certificate; nil: any that the system trusts
	key      []byte // of REALITY; nil where one listens
	pt       string // name;arguments
	token    Token
	hasToken bool
}

// address is host:port.
func (p place) address() string { return net.JoinHostPort(p.host, p.port) }

// serverName is the name for the TLS hello.
func (p place) serverName() string {
	if p.sni != "" {
		return p.sni
	}
	return p.host
}

// read takes a multiaddr apart. What comes in an order that none of our carriers has gives no carrier.
func read(a ma.Multiaddr) place {
	var p place
	var form []string
	ma.ForEach(a, func(c ma.Component) bool {
		switch c.Code() {
		case ma.P_IP4, ma.P_IP6:
			p.host = c.Value()
		case ma.P_DNS, ma.P_DNS4, ma.P_DNS6:
			p.host, p.named = c.Value(), true
		case ma.P_ONION3:
			host, port, _ := strings.Cut(c.Value(), ":")
			p.host, p.port = host+".onion", port
		case ma.P_TCP, ma.P_UDP:
			p.port = c.Value()
		case ma.P_TLS:
			p.tls = true
		case ma.P_SNI:
			p.sni = c.Value()
			return true
		case ma.P_CERTHASH:
			if h, err := mh.Decode(c.RawValue()); err == nil && h.Code == mh.SHA2_256 {
				p.pin = h.Digest
			}
			return true
		case codeKey:
			p.key = c.RawValue()
			return true
		case codePT:
			p.pt = string(c.RawValue())
		case codeToken:
			copy(p.token[:], c.RawValue())
			p.hasToken = true
			return true
		case ma.P_P2P:
			return true
		}
		form = append(form, c.Protocol().Name)
		return true
	})
	p.carrier = carrierOf(form)
	return p
}

// carrierOf names the carrier of an address by the protocols in it, those left out that only add to one.
func carrierOf(form []string) string {
	if len(form) == 0 {
		return ""
	}
	for _, name := range form {
		if name == "p2p-circuit" {
			return Relay
		}
	}
	rest := strings.Join(form[1:], "/")
	switch form[0] {
	case "onion3":
		if rest == "" {
			return Tor
		}
	case "ip4", "ip6", "dns", "dns4", "dns6":
		switch rest {
		case "udp/quic-v1":
			return QUIC
		case "tcp":
			return TCP
		case "tcp/ws", "tcp/tls/ws":
			return WSS
		case "tcp/tls/reality":
			return Reality
		case "tcp/pt":
			return PT
		case "tcp/tor":
			return Tor
		}
	}
	return ""
}

// Name names the carrier that reaches an address, "" when none of ours does.
func Name(a ma.Multiaddr) string { return read(a).carrier }

// Secret reports whether an address may be known only to those to whom it was given.
func Secret(a ma.Multiaddr) bool {
	relay, _ := ma.SplitFunc(a, func(c ma.Component) bool { return c.Code() == ma.P_CIRCUIT })
	switch Name(relay) {
	case QUIC, TCP, "":
		return false
	}
	return true
}

// Public returns the addresses that are no secrets.
func Public(addrs []ma.Multiaddr) []ma.Multiaddr {
	return ma.FilterAddrs(addrs, func(a ma.Multiaddr) bool { return !Secret(a) })
}

// WithToken returns an address with the secret by which its owner lets one in; instead of another if it has one.
func WithToken(a ma.Multiaddr, t Token) ma.Multiaddr {
	return WithoutToken(a).AppendComponent(component("token", t[:]))
}

// TokenIn returns the secret in an address, ok = false when it has none.
func TokenIn(a ma.Multiaddr) (t Token, ok bool) {
	p := read(a)
	return p.token, p.hasToken
}

// WithoutToken returns an address that says where, and lets nobody in.
func WithoutToken(a ma.Multiaddr) ma.Multiaddr {
	var kept ma.Multiaddr
	ma.ForEach(a, func(c ma.Component) bool {
		if c.Code() != codeToken {
			kept = append(kept, c)
		}
		return true
	})
	return kept
}

// shortID is what REALITY has room for of a token: 8 bytes from which it does not follow.
func shortID(t Token) (id [8]byte) {
	sum := sha256.Sum256(append([]byte("openline reality "), t[:]...))
	copy(id[:], sum[:])
	return id
}

// path is where a token's web socket is.
func path(t Token) string { return "/" + base64.RawURLEncoding.EncodeToString(t[:]) }
