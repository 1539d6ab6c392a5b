package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	dnsaddrAgain = 30 * time.Minute
	dnsaddrDepth = 3   // of names that lead to names
	dnsaddrMost  = 256 // addresses under one name, those that it leads to included
	dnsaddrAsked = 32  // names that are looked up for one
)

// DNSAddr is the source of peers whose addresses stand in TXT records under _dnsaddr.NAME, as dnsaddr=MULTIADDR
// (multiformats' dnsaddr specification). Who runs the resolvers learns that somebody asked for the name.
type DNSAddr struct {
	Domains []string
	Names   Lookups
}

func (d DNSAddr) Name() string { return "dnsaddr" }

// Find looks up all names, and again from time to time. Its error is that of the last name when none brought anything.
func (d DNSAddr) Find(ctx context.Context, found func(peer.AddrInfo)) error {
	for {
		any, failed := false, error(nil)
		for _, name := range d.Domains {
			peers, err := d.under(ctx, name)
			for _, p := range peers {
				any = true
				found(p)
			}
			if err != nil {
				failed = err
			}
		}
		if !any && failed != nil {
			return failed
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(dnsaddrAgain):
		}
	}
}

// under returns the peers under one name. What is no address of a peer is passed over: it is for others.
func (d DNSAddr) under(ctx context.Context, domain string) ([]peer.AddrInfo, error) {
	var addrs []ma.Multiaddr
	seen := map[string]bool{domain: true}
	level := []string{domain}
	asked, failed := 0, error(nil)
	for range dnsaddrDepth {
		var next []string
		for _, name := range level {
			if asked++; asked > dnsaddrAsked {
				break
			}
			texts, err := d.Names.LookupTXT(ctx, "_dnsaddr."+name)
			if err != nil {
				failed = fmt.Errorf("look up the peers under a name: %w", withoutAddress(err))
				continue
			}
			here, further := readDNSAddr(texts)
			addrs = append(addrs, here...)
			for _, n := range further {
				if !seen[n] {
					seen[n] = true
					next = append(next, n)
				}
			}
		}
		level = next
	}
	addrs = Unique(addrs)
	peers, err := peer.AddrInfosFromP2pAddrs(addrs[:min(len(addrs), dnsaddrMost)]...)
	if err == nil && len(peers) == 0 && failed == nil {
		failed = errors.New("no peers stand under the name")
	}
	return peers, errors.Join(err, failed)
}

// readDNSAddr takes peers' addresses and further names out of TXT records.
func readDNSAddr(texts []string) (addrs []ma.Multiaddr, names []string) {
	for _, t := range texts {
		value, ok := strings.CutPrefix(t, "dnsaddr=")
		if !ok {
			continue
		}
		a, err := ma.NewMultiaddr(value)
		if err != nil {
			continue
		}
		if first, _ := ma.SplitFirst(a); first.Code() == ma.P_DNSADDR {
			names = append(names, first.Value())
			continue
		}
		if p, err := peer.AddrInfoFromP2pAddr(a); err == nil && len(p.Addrs) > 0 {
			addrs = append(addrs, a)
		}
	}
	return addrs, names
}
