package node

import (
	"fmt"
	"slices"
	"strings"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"openline/bootstrap"
	"openline/node/api"
	"openline/node/carrier"
	"openline/node/mesh"
	"openline/protocol"
)

// listDraft collects the peers of a list, each once.
type listDraft struct {
	peers    []protocol.InvitePeer
	warnings []string
}

// ListPeers turns what an operator names into the peers of a list for a network that holds until a time: addresses that
// end in /p2p/ and a peer's id, with a token or without, and links of standing invites, of which only the node that made
// them is taken. Warnings are about what can be published, but serves nobody.
func ListPeers(network string, until time.Time, names []string) (peers []protocol.InvitePeer, warnings []string, err error) {
	if err := mesh.CheckNetwork(network); err != nil {
		return nil, nil, err
	}
	var d listDraft
	for _, name := range names {
		hint := "an address is as openline status prints it: /ip4/192.0.2.7/tcp/4870/p2p/12D3KooW…"
		if strings.HasPrefix(name, protocol.InviteScheme) {
			err = d.addInvite(network, until, name)
			hint = "openline invite --standing makes a link for a list, on the node itself"
		} else {
			err = d.addAddress(name)
		}
		if err != nil {
			return nil, nil, &api.Hint{Err: err, Hint: hint}
		}
	}
	for _, p := range d.peers {
		if p.Token == nil && slices.ContainsFunc(p.Addrs, secretBytes) {
			d.warn("nobody gets in without a token at the disguised addresses of %s", peerText(p))
		}
	}
	return d.peers, d.warnings, nil
}

func (d *listDraft) warn(format string, args ...any) {
	d.warnings = append(d.warnings, fmt.Sprintf(format, args...))
}

func (d *listDraft) addAddress(s string) error {
	a, err := ma.NewMultiaddr(s)
	if err != nil {
		return fmt.Errorf("address %q: %w", s, err)
	}
	info, err := bootstrap.ParsePeer(carrier.WithoutToken(a).String())
	if err != nil {
		return err
	}
	if carrier.Name(info.Addrs[0]) == "" {
		return fmt.Errorf("address %q: no carrier reaches it", s)
	}
	p, err := invitePeer(info.ID, info.Addrs)
	if err != nil {
		return fmt.Errorf("address %q: the peer's id is not of an Ed25519 key", s)
	}
	if t, ok := carrier.TokenIn(a); ok && !carrier.Secret(a) {
		d.warn("%s takes no token: it is left out", info.Addrs[0])
	} else if ok {
		p.Token = &t
	}
	return d.add(p)
}

func (d *listDraft) addInvite(network string, until time.Time, link string) error {
	i, err := protocol.ParseInvite(link)
	if err != nil {
		return err
	}
	if i.Network != network {
		return fmt.Errorf("an invite is for the network %q, and the list for %q", i.Network, network)
	}
	own := slices.IndexFunc(i.Peers, func(p protocol.InvitePeer) bool { return p.Key == i.From })
	if own < 0 {
		return fmt.Errorf("an invite does not lead to the node %s that made it", peerText(protocol.InvitePeer{Key: i.From}))
	}
	p := i.Peers[own]
	if p.Token != nil && i.Expired(until) {
		d.warn("the invite of %s ends at %s, before the list does", peerText(p), time.Unix(i.Expires, 0).UTC().Format(time.RFC3339))
	}
	// An invite is for neighbours, too, and has the addresses of the local network behind the others.
	if public := slices.DeleteFunc(slices.Clone(p.Addrs), private); len(public) > 0 {
		p.Addrs = public
	}
	return d.add(p)
}

// add adds a peer, or what is new of one that is there.
func (d *listDraft) add(p protocol.InvitePeer) error {
	i := slices.IndexFunc(d.peers, func(q protocol.InvitePeer) bool { return q.Key == p.Key })
	if i < 0 {
		i = len(d.peers)
		d.peers = append(d.peers, protocol.InvitePeer{Key: p.Key})
	}
	q := &d.peers[i]
	if q.Token != nil && p.Token != nil && *q.Token != *p.Token {
		return fmt.Errorf("there are two tokens for %s, and a list has one for each node", peerText(p))
	}
	if q.Token == nil {
		q.Token = p.Token
	}
	for _, raw := range p.Addrs {
		if slices.ContainsFunc(q.Addrs, func(b []byte) bool { return string(b) == string(raw) }) {
			continue
		}
		if private(raw) {
			d.warn("%s is reached from its own network only", addrText(raw))
		}
		q.Addrs = append(q.Addrs, raw)
	}
	if len(q.Addrs) > protocol.MaxInviteAddrs {
		return fmt.Errorf("%s has more than %d addresses", peerText(p), protocol.MaxInviteAddrs)
	}
	return nil
}

// ListCarriers names the carriers that lead to the peers of a list, in the order of trying, and counts the peers that
// this version reaches by none.
func ListCarriers(peers []protocol.InvitePeer) (names []string, unreachable int) {
	found := map[string]bool{}
	for _, p := range peers {
		info, err := invitedPeer(p)
		if err != nil {
			unreachable++
			continue
		}
		for _, a := range info.Addrs {
			found[carrier.Name(a)] = true
		}
	}
	return slices.DeleteFunc(carrier.Names(), func(name string) bool { return !found[name] }), unreachable
}

func secretBytes(raw []byte) bool {
	a, err := ma.NewMultiaddrBytes(raw)
	return err == nil && carrier.Secret(a)
}

// private reports whether an address can only be reached from this machine or its local network.
func private(raw []byte) bool {
	a, err := ma.NewMultiaddrBytes(raw)
	return err == nil && (manet.IsIPLoopback(a) || manet.IsPrivateAddr(a) || manet.IsIPUnspecified(a))
}

// addrText and peerText are for messages.
func addrText(raw []byte) string {
	a, err := ma.NewMultiaddrBytes(raw)
	if err != nil {
		return "an address"
	}
	return a.String()
}

func peerText(p protocol.InvitePeer) string {
	id, err := keyID(p.Key)
	if err != nil {
		return "a peer"
	}
	return id.String()
}
