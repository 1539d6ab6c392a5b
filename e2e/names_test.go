package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/miekg/dns"

	"openline/e2e/lab"
)

// site is what one host of the lab serves: names in clear (port 53) and over HTTPS (/dns-query), and files over HTTPS.
// It is a directory, so that the host's process can read it.
type site struct {
	dir       string
	Authority string // file with the certificate of the authority that signed for it
}

// newSite writes a site down. It has a certificate for names and addresses. Each record is as in a zone file.
func newSite(t *testing.T, hosts []string, records []string) site {
	t.Helper()
	s := site{dir: t.TempDir()}
	s.Authority = filepath.Join(s.dir, "authority.pem")
	raw, err := json.Marshal(records)
	if err != nil {
		t.Fatal(err)
	}
	s.put(t, "zone.json", raw)
	if err := os.Mkdir(filepath.Join(s.dir, "www"), 0o700); err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "lab"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "lab site"}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			leaf.IPAddresses = append(leaf.IPAddresses, ip)
		} else {
			leaf.DNSNames = append(leaf.DNSNames, h)
		}
	}
	for file, c := range map[string]*x509.Certificate{"authority.pem": ca, "cert.pem": leaf} {
		der, err := x509.CreateCertificate(rand.Reader, c, ca, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		s.put(t, file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	s.put(t, "key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	return s
}

func (s site) put(t *testing.T, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// serve runs the site on hosts of the lab, until the test ends.
func (s site) serve(t *testing.T, n *lab.Net, hosts ...string) {
	t.Helper()
	for _, h := range hosts {
		cmd := n.Host(h).Func(context.Background(), "site", s.dir)
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	}
}

// trusting has a host's programs trust the site's authority.
func (s site) trusting(host func(context.Context, string, ...string) *exec.Cmd) func(context.Context, string, ...string) *exec.Cmd {
	return func(ctx context.Context, name string, args ...string) *exec.Cmd {
		cmd := host(ctx, name, args...)
		cmd.Env = append(os.Environ(), "SSL_CERT_FILE="+s.Authority)
		return cmd
	}
}

// runSite is the process of a host that serves a site.
func runSite(args []string) {
	dir := args[0]
	var records []string
	raw, err := os.ReadFile(filepath.Join(dir, "zone.json"))
	if err != nil || json.Unmarshal(raw, &records) != nil {
		log.Fatal("site: no zone: ", err)
	}
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		log.Fatal("site: ", err)
	}
	inClear := &dns.Server{Addr: ":53", Net: "udp", Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) { w.WriteMsg(answer(records, q)) })}
	go func() { log.Fatal("site: ", inClear.ListenAndServe()) }()
	mux := http.NewServeMux()
	mux.Handle("/", http.FileServer(http.Dir(filepath.Join(dir, "www"))))
	mux.HandleFunc("POST /dns-query", func(w http.ResponseWriter, r *http.Request) {
		raw, err := io.ReadAll(r.Body)
		var q dns.Msg
		if err != nil || q.Unpack(raw) != nil {
			http.Error(w, "no question", http.StatusBadRequest)
			return
		}
		if raw, err = answer(records, &q).Pack(); err == nil {
			w.Header().Set("Content-Type", "application/dns-message")
			w.Write(raw)
		}
	})
	s := &http.Server{Addr: ":443", Handler: mux, TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}, ErrorLog: log.New(io.Discard, "", 0)}
	log.Fatal("site: ", s.ListenAndServeTLS("", ""))
}

// answer answers a question out of records.
func answer(records []string, q *dns.Msg) *dns.Msg {
	a := new(dns.Msg).SetRcode(q, dns.RcodeNameError)
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			log.Fatal("site: ", err)
		}
		if len(q.Question) == 1 && rr.Header().Name == q.Question[0].Name {
			a.Rcode = dns.RcodeSuccess
			if rr.Header().Rrtype == q.Question[0].Qtype {
				a.Answer = append(a.Answer, rr)
			}
		}
	}
	return a
}
