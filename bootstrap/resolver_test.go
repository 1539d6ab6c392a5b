package bootstrap

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/net/dns/dnsmessage"
)

// zone is what a resolver knows: texts and addresses by name with a dot at the end.
type zone struct {
	texts map[string][]string
	hosts map[string][4]byte
}

func (z zone) answer(q dnsmessage.Message) dnsmessage.Message {
	q.Response, q.RCode = true, dnsmessage.RCodeNameError
	add := func(body dnsmessage.ResourceBody) {
		head := dnsmessage.ResourceHeader{Name: q.Questions[0].Name, Class: dnsmessage.ClassINET, TTL: 300}
		q.RCode, q.Answers = dnsmessage.RCodeSuccess, append(q.Answers, dnsmessage.Resource{Header: head, Body: body})
	}
	name := q.Questions[0].Name.String()
	switch q.Questions[0].Type {
	case dnsmessage.TypeTXT:
		for _, t := range z.texts[name] {
			add(&dnsmessage.TXTResource{TXT: []string{t[:len(t)/2], t[len(t)/2:]}}) // long ones come in parts
		}
	case dnsmessage.TypeA:
		if ip, ok := z.hosts[name]; ok {
			add(&dnsmessage.AResource{A: ip})
		}
	}
	return q
}

// serve runs a resolver over HTTPS; asked counts its questions.
func (z zone) serve(t *testing.T) (s *httptest.Server, asked *atomic.Int32) {
	asked = new(atomic.Int32)
	s = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		raw, err := io.ReadAll(r.Body)
		var q dnsmessage.Message
		if err != nil || q.Unpack(raw) != nil || r.Header.Get("Content-Type") != "application/dns-message" {
			http.Error(w, "no question", http.StatusBadRequest)
			return
		}
		a := z.answer(q)
		raw, err = a.Pack()
		if err != nil {
			t.Error(err)
		}
		w.Write(raw)
	}))
	t.Cleanup(s.Close)
	return s, asked
}

func TestResolverGoesOnToTheNextAndStaysThere(t *testing.T) {
	blocked, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	blocked.Close() // nobody answers there
	z := zone{hosts: map[string][4]byte{"relay.example.": {192, 0, 2, 7}}, texts: map[string][]string{"_dnsaddr.example.": {"hello"}}}
	s, asked := z.serve(t)
	r := NewResolver(s.Client(), []string{"https://" + blocked.Addr().String() + "/", s.URL}, nil)
	ips, err := r.LookupIPAddr(t.Context(), "relay.example")
	if err != nil || len(ips) != 1 || !ips[0].IP.Equal(net.IPv4(192, 0, 2, 7)) {
		t.Fatalf("LookupIPAddr() = %v, %v", ips, err)
	}
	before := asked.Load()
	if _, err := r.LookupIPAddr(t.Context(), "relay.example"); err != nil {
		t.Fatal(err)
	}
	if n := asked.Load() - before; n > 1 { // there is no AAAA, which is not remembered
		t.Errorf("a name that is known was asked for again: %d questions", n)
	}
	if texts, err := r.LookupTXT(t.Context(), "_dnsaddr.example"); err != nil || !slices.Equal(texts, []string{"hello"}) {
		t.Errorf("LookupTXT() = %q, %v", texts, err)
	}
	if r.best != 1 {
		t.Errorf("the resolver that answered is not the first any more: %d", r.best)
	}
	var none *net.DNSError
	if _, err := r.LookupTXT(t.Context(), "nothing.example"); !errors.As(err, &none) || !none.IsNotFound {
		t.Errorf("a name that does not exist: %v", err)
	}
}

// inClear is a system's resolver that lies.
type inClear struct{ asked bool }

func (c *inClear) LookupIPAddr(context.Context, string) ([]net.IPAddr, error) {
	c.asked = true
	return []net.IPAddr{{IP: net.IPv4(10, 0, 0, 1)}}, nil
}

func (c *inClear) LookupTXT(context.Context, string) ([]string, error) {
	c.asked = true
	return nil, errors.New("poisoned")
}

func TestResolverAsksInClearLast(t *testing.T) {
	s, _ := zone{hosts: map[string][4]byte{"relay.example.": {192, 0, 2, 7}}}.serve(t)
	c := &inClear{}
	r := NewResolver(s.Client(), []string{s.URL}, c)
	if _, err := r.LookupIPAddr(t.Context(), "relay.example"); err != nil || c.asked {
		t.Errorf("asked in clear: %v, error %v", c.asked, err)
	}
	s.Close()
	if ips, err := r.LookupIPAddr(t.Context(), "other.example"); err != nil || len(ips) != 1 || !c.asked {
		t.Errorf("with no resolver left: %v, %v", ips, err)
	}
}

func TestResolversThatNeedALookUpAreRefused(t *testing.T) {
	for server, ok := range map[string]bool{"https://1.1.1.1/dns-query": true, "https://[2620:fe::fe]/dns-query": true,
		"https://dns.example/dns-query": false, "http://1.1.1.1/": false, "1.1.1.1": false, "": false} {
		if err := CheckResolver(server); (err == nil) != ok {
			t.Errorf("CheckResolver(%q) = %v", server, err)
		}
	}
}

const anID = "12D3KooWLbUqQnBR2DiFMd1kWFkTsJSrbbJyBhPZzHSWSFgBkJ6y"

func TestDNSAddrFollowsNamesAndPassesOverWhatIsNone(t *testing.T) {
	texts := map[string][]string{
		"_dnsaddr.example.": {"dnsaddr=/dnsaddr/eu.example/p2p/" + anID, "dnsaddr=/dnsaddr/example", "v=spf1 -all", "dnsaddr=nonsense",
			"dnsaddr=/ip4/192.0.2.1/tcp/4870"}, // of nobody
		"_dnsaddr.eu.example.": {"dnsaddr=/ip4/192.0.2.7/tcp/4870/p2p/" + anID, "dnsaddr=/ip4/192.0.2.7/udp/4870/quic-v1/p2p/" + anID},
	}
	s, _ := zone{texts: texts}.serve(t)
	d := DNSAddr{Domains: []string{"example"}, Names: NewResolver(s.Client(), []string{s.URL}, nil)}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var got []peer.AddrInfo
	if err := d.Find(ctx, func(p peer.AddrInfo) { got = append(got, p); cancel() }); err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0].ID.String() != anID || len(got[0].Addrs) != 2 {
		t.Errorf("found %v, want one peer with two addresses", got)
	}
	s.Close()
	d.Names = NewResolver(s.Client(), []string{s.URL}, nil)
	if err := d.Find(t.Context(), func(peer.AddrInfo) {}); err == nil {
		t.Error("no resolver answers, and Find has no error")
	}
}

func FuzzReadAnswer(f *testing.F) {
	q := dnsmessage.Question{Name: dnsmessage.MustNewName("_dnsaddr.example."), Type: dnsmessage.TypeTXT, Class: dnsmessage.ClassINET}
	z := zone{texts: map[string][]string{"_dnsaddr.example.": {"dnsaddr=/dnsaddr/eu.example", "dnsaddr=/ip4/192.0.2.7/tcp/1/p2p/" + anID}}}
	for _, text := range []bool{true, false} {
		q := q
		if !text {
			q.Name = dnsmessage.MustNewName("missing.example.")
		}
		m := z.answer(dnsmessage.Message{Questions: []dnsmessage.Question{q}})
		raw, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, err := readAnswer(raw, q, time.Unix(0, 0))
		if err != nil {
			return
		}
		if until := a.until.Sub(time.Unix(0, 0)); until < shortestTTL || until > longestTTL {
			t.Errorf("kept for %v", until)
		}
		addrs, names := readDNSAddr(a.texts)
		for _, n := range names {
			if n == "" || strings.Contains(n, "/") {
				t.Errorf("a name %q", n)
			}
		}
		for _, at := range addrs {
			if _, err := peer.AddrInfoFromP2pAddr(at); err != nil {
				t.Error(err)
			}
		}
	})
}
