package carrier

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	utls "github.com/refraction-networking/utls"
	xtls "github.com/xtls/reality"
)

// reality is TLS 1.3 that a stranger cannot tell from a connection to another, well-known site (XTLS/REALITY): who
// shows no token is passed on to that site, byte by byte.
type reality struct {
	set    *Set
	hellos *hellos
}

func (r *reality) name() string     { return Reality }
func (r *reality) protocols() []int { return []int{codeReality} }

// clockSkew is how far two clocks may be apart: they go wrong in a long cut. A hello that is sent again within that time
// is known by its random.
const clockSkew = 48 * time.Hour

func (r *reality) dial(ctx context.Context, p place) (net.Conn, error) {
	conn, err := r.set.dialTo(ctx, p.address(), base64.RawURLEncoding.EncodeToString(p.token[:]))
	if err != nil {
		return nil, err
	}
	tls, err := realityHello(ctx, conn, p)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return tls, nil
}

// realityHello is a browser's hello whose session id holds, encrypted for the server alone, the short id of our token.
// The server answers with a certificate signed by the secret that both share now; any other is the cover site's.
func realityHello(ctx context.Context, conn net.Conn, p place) (net.Conn, error) {
	var secret []byte
	known := false
	cfg := &utls.Config{ServerName: p.sni, InsecureSkipVerify: true, SessionTicketsDisabled: true,
		VerifyPeerCertificate: func(raw [][]byte, _ [][]*x509.Certificate) error {
			known = len(raw) > 0 && signedBySecret(raw[0], secret)
			if !known {
				return fmt.Errorf("the cover site answers: %w", errNotLetIn)
			}
			return nil
		}}
	tls := utls.UClient(conn, cfg, utls.HelloChrome_Auto)
	if err := tls.BuildHandshakeState(); err != nil {
		return nil, err
	}
	var err error
	if secret, err = seal(tls, p); err != nil {
		return nil, err
	}
	if err := tls.HandshakeContext(ctx); err != nil {
		if known {
			return nil, &Broken{err}
		}
		var cert *utls.CertificateVerificationError
		if errors.As(err, &cert) || errors.Is(err, errNotLetIn) {
			return nil, err
		}
		return nil, &Broken{err}
	}
	return tls, nil
}

// seal puts version, time and short id into the hello's session id and returns the secret that they are sealed with.
func seal(tls *utls.UConn, p place) ([]byte, error) {
	hello := tls.HandshakeState.Hello
	keys := tls.HandshakeState.State13.KeyShareKeys
	if keys == nil || keys.Ecdhe == nil && keys.MlkemEcdhe == nil {
		return nil, errors.New("REALITY: the hello has no X25519 key")
	}
	own := keys.Ecdhe
	if own == nil {
		own = keys.MlkemEcdhe
	}
	server, err := ecdh.X25519().NewPublicKey(p.key)
	if err != nil {
		return nil, fmt.Errorf("REALITY: the address's key: %w", err)
	}
	shared, err := own.ECDH(server)
	if err != nil {
		return nil, fmt.Errorf("REALITY: %w", err)
	}
	secret, err := hkdf.Key(sha256.New, shared, hello.Random[:20], "REALITY", 32)
	if err != nil {
		return nil, fmt.Errorf("REALITY: %w", err)
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	hello.SessionId = make([]byte, 32)
	copy(hello.Raw[39:], hello.SessionId) // what is authenticated has zeros there
	plain := make([]byte, 16)
	copy(plain, []byte{26, 3, 27}) // a version of Xray, which others use this with
	binary.BigEndian.PutUint32(plain[4:], uint32(time.Now().Unix()))
	id := shortID(p.token)
	copy(plain[8:], id[:])
	aead.Seal(hello.SessionId[:0], hello.Random[20:], plain, hello.Raw)
	copy(hello.Raw[39:], hello.SessionId)
	return secret, nil
}

// signedBySecret reports whether a certificate is the one that a REALITY server makes for this connection alone.
func signedBySecret(raw, secret []byte) bool {
	c, err := x509.ParseCertificate(raw)
	if err != nil {
		return false
	}
	key, ok := c.PublicKey.(ed25519.PublicKey)
	if !ok {
		return false
	}
	mac := hmac.New(sha512.New, secret)
	mac.Write(key)
	return subtle.ConstantTimeCompare(mac.Sum(nil), c.Signature) == 1
}

func (r *reality) listen(a ma.Multiaddr, d *door) (net.Listener, error) {
	p := read(a)
	ip := net.ParseIP(p.host)
	if ip == nil || p.sni == "" {
		return nil, fmt.Errorf("listen on %s: it takes the form /ip4/0.0.0.0/tcp/443/tls/sni/COVER/reality", a)
	}
	key, err := r.key()
	if err != nil {
		return nil, err
	}
	cover := r.set.cfg.Cover
	if cover == "" {
		cover = net.JoinHostPort(p.sni, "443")
	}
	l, err := net.Listen("tcp", p.address())
	if err != nil {
		return nil, err
	}
	base := xtls.Config{Type: "tcp", Dest: cover, ServerNames: map[string]bool{p.sni: true}, PrivateKey: key.Bytes(),
		MaxTimeDiff: clockSkew, SessionTicketsDisabled: true}
	go func() {
		learnCover(&base)
		d.greet(l, func(ctx context.Context, conn net.Conn) (net.Conn, Token, error) {
			return r.shake(ctx, conn, base.Clone())
		})
	}()
	for _, at := range d.places(ip, l.Addr().(*net.TCPAddr).Port) {
		r.set.listening(at.AppendComponent(component("key", key.PublicKey().Bytes())))
	}
	return l, nil
}

// coverTime is for the cover site to show how its first records look; without knowing that, the library lets everybody
// wait for 5 s. Until then nobody is answered.
const coverTime = 8 * time.Second

func learnCover(cfg *xtls.Config) {
	xtls.DetectPostHandshakeRecordsLens(cfg)
	for end := time.Now().Add(coverTime); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		unknown := 0
		xtls.GlobalPostHandshakeRecordsLens.Range(func(key, lens any) bool {
			if _, known := lens.([]int); !known && strings.HasPrefix(key.(string), cfg.Dest+" ") {
				unknown++
			}
			return true
		})
		if unknown == 0 {
			return
		}
	}
}

// shake lets in whose session id holds the short id of a token, in a hello that let in nobody before; everybody else
// talks to the cover site until they leave. The library decides when it has read a hello, and has told the site every
// byte of it by then: so this, too, decides while it reads.
func (r *reality) shake(ctx context.Context, conn net.Conn, cfg *xtls.Config) (net.Conn, Token, error) {
	tokens := map[[8]byte]Token{}
	cfg.ShortIds = map[[8]byte]bool{}
	for _, t := range r.set.cfg.Tokens() {
		tokens[shortID(t)] = t
		cfg.ShortIds[shortID(t)] = true
	}
	s := &suspect{TCPConn: conn.(*net.TCPConn), hellos: r.hellos, stranger: func() { clear(cfg.ShortIds) }}
	cfg.KeyLogWriter = notice(func() { s.in = true }) // there are keys only with one who showed a token
	cfg.DialContext = func(ctx context.Context, _, addr string) (net.Conn, error) {
		conn, err := r.set.dialTo(ctx, addr, "cover")
		if c, ok := conn.(xtls.CloseWriteConn); ok { // through Tor there is no such thing
			return &site{CloseWriteConn: c, reset: s.breakOff}, err
		}
		return conn, err
	}
	defer s.settle()
	in, err := xtls.Server(ctx, s, cfg)
	if err != nil {
		return nil, Token{}, err
	}
	return in, tokens[in.ClientShortId], nil
}

// notice is called when something is written, whatever that is.
type notice func()

func (n notice) Write(b []byte) (int, error) {
	n()
	return len(b), nil
}

// key returns the server's long-lived key.
func (r *reality) key() (*ecdh.PrivateKey, error) {
	file := filepath.Join(r.set.cfg.Dir, "carrier-reality.key")
	raw, err := os.ReadFile(file)
	if err == nil {
		key, err := ecdh.X25519().NewPrivateKey(raw)
		if err != nil {
			return nil, fmt.Errorf("REALITY's key in %s: %w", file, err)
		}
		return key, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("REALITY's key: %w", err)
	}
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return key, writeFile(file, key.Bytes())
}
