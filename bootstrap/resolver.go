package bootstrap

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	resolverStagger = 1500 * time.Millisecond // before the next resolver is asked, too
	resolverTimeout = 10 * time.Second        // of one question to one resolver
	shortestTTL     = time.Minute             // that an answer is kept, whatever it says itself
	longestTTL      = time.Hour
	maxAnswers      = 256     // kept; all are forgotten when there are more
	maxDNSMessage   = 1 << 16 // bytes, RFC 8484 section 6
)

// Resolver looks up names over HTTPS (RFC 8484), so that who watches the line neither sees the question nor answers it.
// Several resolvers are asked one after the other, the one that answered last first. It is safe for concurrent use.
type Resolver struct {
	client  *http.Client
	servers []string
	clear   Lookups // asked last; nil: never

	mu      sync.Mutex // guards the fields below
	best    int        // index into servers
	answers map[string]answer
}

// Lookups is what one can ask a resolver. The system's, *net.Resolver, asks in clear.
type Lookups interface {
	LookupIPAddr(ctx context.Context, host string) ([]net.IPAddr, error)
	LookupTXT(ctx context.Context, name string) ([]string, error)
}

var _ Lookups = (*Resolver)(nil)

// answer is what a resolver said.
type answer struct {
	ips   []net.IPAddr
	texts []string
	until time.Time
}

// CheckResolver says what is wrong with a resolver's URL.
func CheckResolver(server string) error {
	u, err := url.Parse(server)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("resolver %q is not a URL like https://9.9.9.9/dns-query", server)
	}
	if net.ParseIP(u.Hostname()) == nil {
		return fmt.Errorf("resolver %q: its host has to be an IP address, for somebody would have to look up a name first", server)
	}
	return nil
}

// NewResolver asks servers, https URLs whose hosts are IP addresses, by means of client; then clear, unless that is nil.
func NewResolver(client *http.Client, servers []string, clear Lookups) *Resolver {
	return &Resolver{client: client, servers: servers, clear: clear, answers: map[string]answer{}}
}

// Hidden returns a resolver that asks the same servers, and nobody in clear.
func (r *Resolver) Hidden() *Resolver { return NewResolver(r.client, r.servers, nil) }

// LookupIPAddr returns the addresses of a host, those of IPv4 first. A host that does not exist is a *net.DNSError.
func (r *Resolver) LookupIPAddr(ctx context.Context, host string) ([]net.IPAddr, error) {
	if ip := net.ParseIP(host); ip != nil {
		return []net.IPAddr{{IP: ip}}, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the other question, too
	v6 := make(chan answer, 1)
	go func() {
		a, _ := r.lookup(ctx, host, dnsmessage.TypeAAAA) // few hosts have one; who has none at all fails below
		v6 <- a
	}()
	a, err := r.lookup(ctx, host, dnsmessage.TypeA)
	grace := resolverStagger
	if err != nil {
		grace = resolverTimeout
	}
	ips := slices.Clone(a.ips)
	select {
	case six := <-v6:
		ips = append(ips, six.ips...)
	case <-time.After(grace):
	case <-ctx.Done():
	}
	if len(ips) > 0 {
		return ips, nil
	}
	if r.clear != nil && !isNotFound(err) {
		return r.clear.LookupIPAddr(ctx, host)
	}
	return nil, err
}

// LookupTXT returns the texts under a name.
func (r *Resolver) LookupTXT(ctx context.Context, name string) ([]string, error) {
	a, err := r.lookup(ctx, name, dnsmessage.TypeTXT)
	if err != nil && r.clear != nil && !isNotFound(err) {
		return r.clear.LookupTXT(ctx, name)
	}
	return a.texts, err
}

func notFound(name string) error {
	return &net.DNSError{Err: "no such name, or nothing of the kind under it", Name: name, IsNotFound: true}
}

// lookup returns an answer that is kept, or that of the first resolver that has one.
func (r *Resolver) lookup(ctx context.Context, name string, kind dnsmessage.Type) (answer, error) {
	name = strings.TrimSuffix(name, ".") + "."
	key := kind.String() + " " + name
	r.mu.Lock()
	kept, ok := r.answers[key]
	best := r.best
	r.mu.Unlock()
	if ok && time.Now().Before(kept.until) {
		return kept, nil
	}
	if len(r.servers) == 0 {
		return answer{}, errors.New("no resolver is configured")
	}
	a, from, err := r.race(ctx, best, name, kind)
	if err != nil {
		return answer{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.answers) >= maxAnswers {
		clear(r.answers)
	}
	r.answers[key], r.best = a, from
	return a, nil
}

// race asks the resolvers from the best on, each next one when the last has failed or said nothing for a while. That a
// name does not exist is believed when nobody else says more within a moment: a censor's resolver says it, too.
func (r *Resolver) race(ctx context.Context, best int, name string, kind dnsmessage.Type) (answer, int, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type reply struct {
		answer
		from int
		err  error
	}
	replies := make(chan reply, len(r.servers))
	asked, failed := 0, []error(nil)
	next := time.NewTimer(0)
	defer next.Stop()
	var enough <-chan time.Time // after somebody said that there is nothing
	for len(failed) < len(r.servers) {
		select {
		case <-ctx.Done():
			return answer{}, 0, ctx.Err()
		case <-enough:
			return answer{}, 0, notFound(name)
		case <-next.C:
			if asked == len(r.servers) {
				continue
			}
			from := (best + asked) % len(r.servers)
			asked++
			go func() {
				a, err := r.ask(ctx, r.servers[from], name, kind)
				replies <- reply{a, from, err}
			}()
			next.Reset(resolverStagger)
		case got := <-replies:
			if got.err == nil {
				return got.answer, got.from, nil
			}
			failed = append(failed, got.err)
			if isNotFound(got.err) && enough == nil {
				enough = time.After(2 * resolverStagger)
			}
			next.Reset(0)
		}
	}
	return answer{}, 0, errors.Join(failed...)
}

// Try asks one server about a name and reports whether it answers at all.
func (r *Resolver) Try(ctx context.Context, server, name string) error {
	_, err := r.ask(ctx, server, strings.TrimSuffix(name, ".")+".", dnsmessage.TypeA)
	if isNotFound(err) {
		return nil
	}
	return err
}

func isNotFound(err error) bool {
	var none *net.DNSError
	return errors.As(err, &none) && none.IsNotFound
}

// withoutAddress takes out of an error of a web request whom it was to: errors end in logs.
func withoutAddress(err error) error {
	var request *url.Error
	if errors.As(err, &request) {
		err = request.Err
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	var other x509.HostnameError
	switch {
	case errors.As(err, new(*net.DNSError)):
		return errors.New("the host's name could not be looked up")
	case errors.As(err, &other):
		return errors.New("the certificate is for another name")
	}
	return err
}

// ask puts one question to one server.
func (r *Resolver) ask(ctx context.Context, server, name string, kind dnsmessage.Type) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, resolverTimeout)
	defer cancel()
	n, err := dnsmessage.NewName(name)
	if err != nil {
		return answer{}, fmt.Errorf("look up a name: %w", err)
	}
	q := dnsmessage.Question{Name: n, Type: kind, Class: dnsmessage.ClassINET}
	m := dnsmessage.Message{Header: dnsmessage.Header{RecursionDesired: true}, Questions: []dnsmessage.Question{q}}
	raw, err := m.Pack()
	if err != nil {
		return answer{}, fmt.Errorf("look up a name: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, server, bytes.NewReader(raw))
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Content-Type", "application/dns-message")
	req.Header.Set("Accept", "application/dns-message")
	resp, err := r.client.Do(req)
	if err != nil {
		return answer{}, fmt.Errorf("ask a resolver: %w", withoutAddress(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return answer{}, fmt.Errorf("a resolver answers %s", resp.Status)
	}
	raw, err = io.ReadAll(io.LimitReader(resp.Body, maxDNSMessage+1))
	if err != nil || len(raw) > maxDNSMessage {
		return answer{}, errors.Join(err, errors.New("a resolver's answer is cut off or too long"))
	}
	return readAnswer(raw, q, time.Now())
}

// readAnswer takes the answer to q out of a DNS message (RFC 1035), names that others stand for passed over.
func readAnswer(raw []byte, q dnsmessage.Question, now time.Time) (a answer, err error) {
	var m dnsmessage.Message
	if err := m.Unpack(raw); err != nil {
		return a, fmt.Errorf("a resolver's answer: %w", err)
	}
	if !m.Response || len(m.Questions) != 1 || m.Questions[0].Type != q.Type || !strings.EqualFold(m.Questions[0].Name.String(), q.Name.String()) {
		return a, errors.New("a resolver answers another question")
	}
	if m.RCode != dnsmessage.RCodeSuccess && m.RCode != dnsmessage.RCodeNameError {
		return a, fmt.Errorf("a resolver says %v", m.RCode)
	}
	ttl := longestTTL
	for _, rr := range m.Answers {
		switch body := rr.Body.(type) {
		case *dnsmessage.AResource:
			a.ips = append(a.ips, net.IPAddr{IP: body.A[:]})
		case *dnsmessage.AAAAResource:
			a.ips = append(a.ips, net.IPAddr{IP: body.AAAA[:]})
		case *dnsmessage.TXTResource:
			a.texts = append(a.texts, strings.Join(body.TXT, ""))
		}
		ttl = min(ttl, time.Duration(rr.Header.TTL)*time.Second)
	}
	if len(a.ips) == 0 && len(a.texts) == 0 {
		return a, notFound(q.Name.String())
	}
	a.until = now.Add(max(ttl, shortestTTL))
	return a, nil
}
