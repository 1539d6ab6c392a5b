package carrier

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	mh "github.com/multiformats/go-multihash"
	utls "github.com/refraction-networking/utls"
	"golang.org/x/net/proxy"
)

// connectTimeout is for a TCP handshake; Tor builds a circuit first.
const (
	connectTimeout = 10 * time.Second
	torTimeout     = 90 * time.Second
	webTimeout     = 30 * time.Second // for a web site's TLS handshake
)

// dialTo opens a TCP connection, through Tor where the mode says so. Host names are looked up by nobody but Names, or by
// Tor. Connections with different circuits share no way through Tor.
func (s *Set) dialTo(ctx context.Context, address, circuit string) (net.Conn, error) {
	if s.cfg.Mode == OnlyTor {
		return s.dialTor(ctx, address, circuit)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	ips, err := s.lookup(ctx, host)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	var d net.Dialer
	var errs []error
	for _, ip := range ips {
		conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(ip.String(), port))
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// lookup returns the addresses of a host, which may be one itself.
func (s *Set) lookup(ctx context.Context, host string) ([]net.IPAddr, error) {
	if ip := net.ParseIP(host); ip != nil {
		return []net.IPAddr{{IP: ip}}, nil
	}
	if s.cfg.Names == nil {
		return nil, errNoName
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	ips, err := s.cfg.Names.LookupIPAddr(ctx, host)
	if err == nil && len(ips) == 0 {
		err = errNoName
	}
	if err != nil {
		return nil, fmt.Errorf("look up a host: %w", err)
	}
	return ips, nil
}

func (s *Set) dialTor(ctx context.Context, address, circuit string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, torTimeout)
	defer cancel()
	// Tor keeps apart what comes with different user names (IsolateSOCKSAuth).
	d, err := proxy.SOCKS5("tcp", s.cfg.TorSOCKS, &proxy.Auth{User: circuit, Password: "0"}, nil)
	if err != nil {
		return nil, fmt.Errorf("reach Tor: %w", err)
	}
	conn, err := d.(proxy.ContextDialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("through Tor: %w", err)
	}
	return conn, nil
}

// browserHello shakes hands as a browser does that opens a web socket: with HTTP/1.1 alone, for no proxy may choose
// HTTP/2 for it. The certificate has to have p's pin, or else be valid for its name.
func browserHello(ctx context.Context, conn net.Conn, p place) (net.Conn, error) {
	spec, err := utls.UTLSIdToSpec(utls.HelloChrome_Auto)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	spec.Extensions = slices.DeleteFunc(spec.Extensions, func(e utls.TLSExtension) bool {
		switch e := e.(type) {
		case *utls.ALPNExtension:
			e.AlpnProtocols = []string{"http/1.1"}
		case *utls.ApplicationSettingsExtension, *utls.ApplicationSettingsExtensionNew:
			return true // about HTTP/2
		}
		return false
	})
	cfg := &utls.Config{ServerName: p.serverName()}
	if p.pin != nil {
		cfg.InsecureSkipVerify = true // the pin says more
		cfg.VerifyPeerCertificate = func(raw [][]byte, _ [][]*x509.Certificate) error {
			if len(raw) == 0 {
				return errors.New("no certificate")
			}
			if sum := sha256.Sum256(raw[0]); subtle.ConstantTimeCompare(sum[:], p.pin) != 1 {
				return errors.New("the certificate is not the one that the address names: somebody stands in between")
			}
			return nil
		}
	}
	tls := utls.UClient(conn, cfg, utls.HelloCustom)
	if err := tls.ApplyPreset(&spec); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if err := tls.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(&Broken{err}, conn.Close())
	}
	return tls, nil
}

// quiet is a resolver that asks nobody: libp2p would ask the system about names in addresses that no rung takes.
type quiet struct{}

var errNoName = errors.New("nobody here may be asked for names, or nobody knows this one")

func (quiet) LookupIPAddr(context.Context, string) ([]net.IPAddr, error) { return nil, errNoName }
func (quiet) LookupTXT(context.Context, string) ([]string, error)        { return nil, errNoName }

// component makes a multiaddr's component from bytes that its protocol allows.
func component(name string, value []byte) *ma.Component {
	text, err := ma.ProtocolWithName(name).Transcoder.BytesToString(value)
	if err != nil {
		panic(err)
	}
	c, err := ma.NewComponent(name, text)
	if err != nil {
		panic(err)
	}
	return c
}

// pinned puts a certificate's hash into the address of a WSS rung, where it belongs: before /ws.
func pinned(a ma.Multiaddr, pin []byte) ma.Multiaddr {
	hash, err := mh.Encode(pin, mh.SHA2_256)
	if err != nil {
		panic(err) // a sum has the right length
	}
	var out ma.Multiaddr
	ma.ForEach(a, func(c ma.Component) bool {
		if c.Code() == ma.P_WS {
			out = out.AppendComponent(component("certhash", hash))
		}
		out = append(out, c)
		return true
	})
	return out
}
