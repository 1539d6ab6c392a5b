package node

import (
	"context"
	"errors"
	"net"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"openline/bootstrap"
	"openline/node/api"
	"openline/node/carrier"
)

const (
	doctorTime = 3 * time.Minute // in all; through Tor it takes that long
	sourceTime = 8 * time.Second // for sources to find somebody
	lookupTime = 5 * time.Second // for a look-up
)

var _ api.Doctor = (*Node)(nil)

// Diagnose tries everything that the mode allows, one call at a time.
func (n *Node) Diagnose(ctx context.Context) (api.Diagnosis, error) {
	if !n.doctor.TryLock() {
		return api.Diagnosis{}, &api.Hint{Err: errors.New("the doctor is at work already"), Hint: "wait for the other call to end"}
	}
	defer n.doctor.Unlock()
	ctx, cancel := context.WithTimeout(ctx, doctorTime)
	defer cancel()
	v, err := n.newVisitor()
	if err != nil {
		return api.Diagnosis{}, err
	}
	defer v.close()
	var e evidence
	var trials []bootstrap.Trial
	var running sync.WaitGroup
	running.Go(func() { trials = n.finder.Try(ctx, sourceTime) })
	running.Go(func() { e.resolvers = n.checkResolvers(ctx) })
	running.Go(func() { e.names = n.checkNames(ctx) })
	running.Wait()
	var peers []peer.AddrInfo
	d := api.Diagnosis{Mode: string(n.cfg.Carriers.Mode), Sources: []api.SourceCheck{}, Resolvers: e.resolvers, Names: e.names}
	for _, t := range trials {
		peers = append(peers, t.Peers...)
		d.Sources = append(d.Sources, asSourceCheck(t))
	}
	peers = bootstrap.Merge(peers)
	e.known, e.mode = len(peers), n.cfg.Carriers.Mode
	e.peers = v.visitAll(ctx, peers)
	d.Known, d.Reached = e.known, e.reached()
	d.Carriers = e.carriers(n.cfg.Carriers.Allows)
	d.Causes, d.Next = e.verdict()
	return d, ctx.Err()
}

// asSourceCheck leaves out what an error may say about addresses.
func asSourceCheck(t bootstrap.Trial) api.SourceCheck {
	c := api.SourceCheck{Source: t.Source, Found: len(t.Peers)}
	if t.Err != nil && len(t.Peers) == 0 {
		c.Error = "nothing could be learned from it"
	}
	return c
}

// checkResolvers asks each resolver over HTTPS.
func (n *Node) checkResolvers(ctx context.Context) []api.ResolverCheck {
	ctx, cancel := context.WithTimeout(ctx, sourceTime)
	defer cancel()
	checks := make([]api.ResolverCheck, len(n.cfg.Resolvers))
	var running sync.WaitGroup
	for i, server := range n.cfg.Resolvers {
		running.Go(func() {
			checks[i] = api.ResolverCheck{Resolver: server, Works: n.names.Try(ctx, server, "example.com") == nil}
		})
	}
	running.Wait()
	return checks
}

// checkNames compares, for every name that the user's settings bring into play, what is said in clear with what is said
// over HTTPS. Nothing is asked in clear but in mode open.
func (n *Node) checkNames(ctx context.Context) []api.NameCheck {
	ctx, cancel := context.WithTimeout(ctx, sourceTime)
	defer cancel()
	hidden := n.names.Hidden()
	checks := []api.NameCheck{}
	for _, domain := range n.cfg.DNSAddrs {
		checks = append(checks, n.checkName(domain, func(r bootstrap.Lookups) (answers []string, err error) {
			ctx, cancel := context.WithTimeout(ctx, lookupTime)
			defer cancel()
			return r.LookupTXT(ctx, "_dnsaddr."+domain)
		}, hidden))
	}
	for _, host := range n.mirrorHosts() {
		checks = append(checks, n.checkName(host, func(r bootstrap.Lookups) (answers []string, err error) {
			ctx, cancel := context.WithTimeout(ctx, lookupTime)
			defer cancel()
			ips, err := r.LookupIPAddr(ctx, host)
			for _, ip := range ips {
				answers = append(answers, bootstrap.Network(ip.IP))
			}
			return answers, err
		}, hidden))
	}
	return checks
}

// checkName asks for one name in both ways. Answers are the same when they have anything in common: large sites give
// everybody other addresses.
func (n *Node) checkName(name string, ask func(bootstrap.Lookups) ([]string, error), hidden bootstrap.Lookups) api.NameCheck {
	if n.cfg.Carriers.Mode != carrier.Open {
		return api.NameCheck{Name: name, Clear: api.NameUnasked}
	}
	truth, err := ask(hidden)
	if err != nil {
		return api.NameCheck{Name: name, Clear: api.NameUnproven}
	}
	said, err := ask(net.DefaultResolver)
	var dns *net.DNSError
	switch {
	case slices.ContainsFunc(said, func(s string) bool { return slices.Contains(truth, s) }):
		return api.NameCheck{Name: name, Clear: api.NameTrue}
	case errors.As(err, &dns) && dns.IsTimeout, errors.Is(err, context.DeadlineExceeded):
		return api.NameCheck{Name: name, Clear: api.NameSilent}
	case err != nil && !(errors.As(err, &dns) && dns.IsNotFound):
		return api.NameCheck{Name: name, Clear: api.NameUnproven} // a resolver that cannot, or none
	}
	return api.NameCheck{Name: name, Clear: api.NameFalse}
}

// mirrorHosts are the names of hosts with lists.
func (n *Node) mirrorHosts() (hosts []string) {
	for _, at := range n.cfg.Lists {
		u, err := url.Parse(at)
		if err == nil && net.ParseIP(u.Hostname()) == nil && !slices.Contains(hosts, u.Hostname()) {
			hosts = append(hosts, u.Hostname())
		}
	}
	return hosts
}
