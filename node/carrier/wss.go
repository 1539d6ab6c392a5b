package carrier

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/gorilla/websocket"
	ma "github.com/multiformats/go-multiaddr"
)

// wss is a web socket inside TLS on a path that only the invited know. Every other request is answered by an ordinary
// site. It listens with TLS of its own, or without behind a web server that has it.
type wss struct{ set *Set }

func (w *wss) name() string     { return WSS }
func (w *wss) protocols() []int { return []int{ma.P_WS, ma.P_WSS} }

// userAgent is what most browsers on Windows send; the hello is theirs, too.
const userAgent = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/133.0.0.0 Safari/537.36"

func (w *wss) dial(ctx context.Context, p place) (net.Conn, error) {
	conn, err := w.set.dialTo(ctx, p.address(), base64.RawURLEncoding.EncodeToString(p.token[:]))
	if err != nil {
		return nil, err
	}
	scheme, origin := "ws", "http://"+p.serverName()
	if p.tls {
		scheme, origin = "wss", "https://"+p.serverName()
		if conn, err = browserHello(ctx, conn, p); err != nil {
			return nil, err
		}
	}
	host := p.serverName()
	if p.port != "443" && p.tls || p.port != "80" && !p.tls {
		host = net.JoinHostPort(host, p.port)
	}
	d := websocket.Dialer{
		NetDialContext:    func(context.Context, string, string) (net.Conn, error) { return conn, nil },
		NetDialTLSContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil },
	}
	header := http.Header{"User-Agent": {userAgent}, "Origin": {origin}, "Accept-Language": {"en-US,en;q=0.9"},
		"Cache-Control": {"no-cache"}, "Pragma": {"no-cache"}}
	ws, resp, err := d.DialContext(ctx, (&url.URL{Scheme: scheme, Host: host, Path: path(p.token)}).String(), header)
	if resp != nil && resp.Body != nil {
		resp.Body.Close()
	}
	if errors.Is(err, websocket.ErrBadHandshake) {
		return nil, errors.Join(fmt.Errorf("the site says %q: %w", resp.Status, errNotLetIn), conn.Close())
	}
	if err != nil {
		return nil, errors.Join(&Broken{err}, conn.Close())
	}
	return newStream(ws), nil
}

func (w *wss) listen(a ma.Multiaddr, d *door) (net.Listener, error) {
	p := read(a)
	ip := net.ParseIP(p.host)
	if ip == nil {
		return nil, fmt.Errorf("listen on %s: an IP address is needed; --announce takes names", a)
	}
	site, err := w.set.decoy()
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", p.address())
	if err != nil {
		return nil, err
	}
	var pin []byte
	inner := l
	if p.tls {
		var cfg *tls.Config
		if cfg, pin, err = w.set.certificate(p.sni); err != nil {
			return nil, errors.Join(err, l.Close())
		}
		inner = tls.NewListener(l, cfg)
	}
	upgrader := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }} // the path is the secret
	server := &http.Server{
		ReadHeaderTimeout: 20 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          log.New(io.Discard, "", 0), // it names addresses
		Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			t, ok := tokenIn(r)
			if ok {
				ok, _ = d.set.cfg.Admit(t)
			}
			if !ok {
				site.ServeHTTP(rw, r)
				return
			}
			ws, err := upgrader.Upgrade(rw, r, nil)
			if err != nil {
				return
			}
			d.admit(newStream(ws), t)
		}),
	}
	go server.Serve(inner)
	for _, at := range d.places(ip, l.Addr().(*net.TCPAddr).Port) {
		if pin != nil {
			at = pinned(at, pin)
		}
		w.set.listening(at)
	}
	return &served{l, server}, nil
}

// served closes the server with its listener; connections that were taken over live on.
type served struct {
	net.Listener
	server *http.Server
}

func (s *served) Close() error { return s.server.Close() }

// tokenIn reads the token from a request that asks for a web socket.
func tokenIn(r *http.Request) (t Token, ok bool) {
	if !websocket.IsWebSocketUpgrade(r) || len(r.URL.Path) != len(path(t)) {
		return t, false
	}
	n, err := base64.RawURLEncoding.Strict().Decode(t[:], []byte(r.URL.Path[1:]))
	return t, err == nil && n == len(t)
}

// decoy is what strangers see.
func (s *Set) decoy() (http.Handler, error) {
	if s.cfg.Decoy == "" {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/" {
				http.NotFound(w, r)
				return
			}
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			io.WriteString(w, "<!doctype html>\n<title>Welcome</title>\n<h1>It works!</h1>\n")
		}), nil
	}
	if u, err := url.Parse(s.cfg.Decoy); err == nil && (u.Scheme == "http" || u.Scheme == "https") {
		proxy := &httputil.ReverseProxy{ErrorLog: log.New(io.Discard, "", 0),
			Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(u) }} // without the stranger's address
		proxy.Transport = s.HTTPClient().Transport
		return proxy, nil
	}
	if info, err := os.Stat(s.cfg.Decoy); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("decoy: %q is neither a directory nor the URL of a site", s.cfg.Decoy)
	}
	return http.FileServer(http.Dir(s.cfg.Decoy)), nil
}

// certificate returns the TLS settings of a server: with the given files, read anew for each start, or with a
// certificate of its own, which is kept, and whose SHA-256 is the pin.
func (s *Set) certificate(name string) (*tls.Config, []byte, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	if s.cfg.TLSCert != "" {
		if _, err := tls.LoadX509KeyPair(s.cfg.TLSCert, s.cfg.TLSKey); err != nil {
			return nil, nil, fmt.Errorf("tls-cert: %w", err)
		}
		cfg.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { // renewed under our feet
			c, err := tls.LoadX509KeyPair(s.cfg.TLSCert, s.cfg.TLSKey)
			return &c, err
		}
		return cfg, nil, nil
	}
	file := filepath.Join(s.cfg.Dir, "carrier-tls.pem")
	c, err := tls.LoadX509KeyPair(file, file)
	if errors.Is(err, os.ErrNotExist) {
		if err = selfSign(file, name); err == nil {
			c, err = tls.LoadX509KeyPair(file, file)
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("certificate in %s: %w", file, err)
	}
	cfg.Certificates = []tls.Certificate{c}
	pin := sha256.Sum256(c.Certificate[0])
	return cfg, pin[:], nil
}

// selfSign writes a key and a certificate for name that says as little as possible and holds for ten years: the pin
// in invites is of this one.
func selfSign(file, name string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return err
	}
	if name == "" {
		name = "localhost"
	}
	now := time.Now()
	c := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: now.AddDate(0, -1, 0), NotAfter: now.AddDate(10, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		return err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	out := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})...)
	return writeFile(file, out)
}
