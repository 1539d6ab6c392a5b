package node

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"openline/bootstrap"
	"openline/node/api"
	"openline/node/carrier"
	"openline/protocol"
)

// The protocol between a bridge and whom it let in, SPEC.md section 15: a question of 17 bytes, an answer of 1 or 25.
const (
	inviteProtocol = "/openline/invite/1"
	inviteTimeout  = 20 * time.Second

	askRedeem byte = 1 // followed by the token that the guest has made for itself
	askChild  byte = 2 // followed by 16 zero bytes

	answerYes byte = 0 // to askChild followed by a token and its expiry in unix seconds, 8 bytes, big endian
	answerNo  byte = 1
)

// wantedConns is how many connections a daemon makes. With fewer than 16, half of them gone, it can be left without a
// mesh.
const wantedConns = 16

func openBook(dir string, now func() time.Time) (*bootstrap.Book, error) {
	return bootstrap.OpenBook(filepath.Join(dir, "peers.json"), now, func(a ma.Multiaddr, t bootstrap.Token) ma.Multiaddr {
		if !carrier.Secret(a) {
			return a
		}
		return carrier.WithToken(a, t)
	})
}

// serveInvites answers those whom this node's invites let in.
func (n *Node) serveInvites() {
	if n.ledger == nil {
		return
	}
	n.host.SetStreamHandler(inviteProtocol, func(s network.Stream) {
		defer s.Close()
		s.SetDeadline(time.Now().Add(inviteTimeout))
		var ask [17]byte
		if _, err := io.ReadFull(s, ask[:]); err != nil {
			s.Reset()
			return
		}
		s.Write(n.answerInvited(s.Conn(), ask[0], bootstrap.Token(ask[1:])))
	})
}

func (n *Node) answerInvited(c network.Conn, ask byte, own bootstrap.Token) []byte {
	t, ok := n.carriers.TokenOf(c)
	if !ok {
		return []byte{answerNo}
	}
	switch ask {
	case askRedeem:
		if err := n.ledger.Redeem(t, own); err != nil {
			return []byte{answerNo}
		}
		n.carriers.Promote(c, own)
		return []byte{answerYes}
	case askChild:
		child, token, err := n.ledger.Child(t)
		if err != nil {
			return []byte{answerNo}
		}
		return binary.BigEndian.AppendUint64(append([]byte{answerYes}, token[:]...), uint64(child.Expires.Unix()))
	}
	return []byte{answerNo}
}

// ask puts a question to a bridge and reads size bytes of answer behind its yes.
func (n *Node) ask(ctx context.Context, p peer.ID, question byte, own bootstrap.Token, size int) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, inviteTimeout)
	defer cancel()
	s, err := n.host.NewStream(network.WithNoDial(ctx, "invites"), p, inviteProtocol)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	s.SetDeadline(time.Now().Add(inviteTimeout))
	if _, err := s.Write(append([]byte{question}, own[:]...)); err != nil {
		return nil, err
	}
	answer := make([]byte, 1+size)
	if _, err := io.ReadFull(s, answer[:1]); err != nil {
		return nil, err
	}
	if answer[0] != answerYes {
		return nil, errors.New("the bridge says no")
	}
	_, err = io.ReadFull(s, answer[1:])
	return answer[1:], err
}

// runInvited turns this node from the guest of bridges into their member, as soon as each is connected.
func (n *Node) runInvited(ctx context.Context) error {
	if n.book == nil {
		return nil
	}
	sub, err := n.host.EventBus().Subscribe(new(event.EvtPeerConnectednessChanged), eventbus.Name("invites"))
	if err != nil {
		return fmt.Errorf("follow connections: %w", err)
	}
	defer sub.Close()
	again := time.NewTicker(5 * time.Second)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			if err := n.book.Save(); err != nil {
				n.log.Warn("the peer book cannot be written", "error", err)
			}
			return nil
		case <-sub.Out():
		case <-again.C:
		}
		for _, p := range n.host.Network().Peers() {
			own, ok := n.book.Owed(p)
			if !ok {
				continue
			}
			if _, err := n.ask(ctx, p, askRedeem, own, 0); err != nil {
				n.log.Debug("an invite could not be redeemed yet", "error", err)
				continue
			}
			if err := n.book.Joined(p); err != nil {
				n.log.Warn("an invite is redeemed, but that could not be written down", "error", err)
			}
		}
	}
}

// Invite makes a link by which others join: to this node as far as it can be reached, to the bridges that it is a
// member of, to relays that it is connected to.
func (n *Node) Invite(ctx context.Context, d api.InviteDraft) (api.Invite, error) {
	if d.Uses < 0 || d.Lifetime < time.Minute || d.Lifetime > 366*24*time.Hour {
		return api.Invite{}, &api.Hint{Err: errors.New("an invite holds for a minute to a year, for any number of people or some"),
			Hint: "for example: openline invite --uses 5 --expires 72h"}
	}
	key := n.host.Peerstore().PrivKey(n.host.ID())
	priv, err := key.Raw()
	if err != nil {
		return api.Invite{}, fmt.Errorf("sign the invite: %w", err)
	}
	if err := keepPeerKey(n.cfg, key); err != nil {
		return api.Invite{}, err // after a restart the invite would name nobody
	}
	issued, token, err := n.ledger.Issue(d.Uses, d.Lifetime, d.Standing)
	if errors.Is(err, bootstrap.ErrEnough) {
		return api.Invite{}, &api.Hint{Err: err, Hint: "openline invites lists them, openline invites revoke ID ends one"}
	}
	if err != nil {
		return api.Invite{}, err
	}
	i := protocol.Invite{Network: n.cfg.Network, Expires: issued.Expires.Unix()}
	i.Peers = slices.Concat(n.ownPlace(token), n.bridges(ctx), n.relays())
	i.Peers = i.Peers[:min(len(i.Peers), protocol.MaxInvitePeers)]
	if len(i.Peers) == 0 {
		_, err := n.ledger.Revoke(issued.ID)
		return api.Invite{}, errors.Join(&api.Hint{Err: errors.New("nobody could come: this node cannot be reached from outside and knows no relay"),
			Hint: "connect to a relay or a bridge first, or --listen where others can reach you"}, err)
	}
	link, err := i.Sign(ed25519.PrivateKey(priv))
	if err != nil {
		return api.Invite{}, err
	}
	return api.Invite{Issued: asIssued(issued), Link: link, Peers: len(i.Peers)}, nil
}

// ownPlace is this node in an invite; nothing when it cannot be reached.
func (n *Node) ownPlace(token bootstrap.Token) []protocol.InvitePeer {
	addrs := n.carriers.Addresses()
	secret := len(addrs) > 0
	addrs = append(addrs, n.host.Addrs()...)
	reachable := ma.FilterAddrs(addrs, func(a ma.Multiaddr) bool { return !manet.IsIPLoopback(a) || !n.cfg.NAT && n.cfg.Relay })
	p, err := invitePeer(n.host.ID(), outsideFirst(reachable))
	if err != nil {
		return nil
	}
	if secret {
		p.Token = &token
	}
	return []protocol.InvitePeer{p}
}

// bridges asks the bridges that this node is a member of for an invite each.
func (n *Node) bridges(ctx context.Context) (list []protocol.InvitePeer) {
	for _, id := range n.host.Network().Peers() {
		if _, ok := n.book.Member(id); !ok {
			continue
		}
		answer, err := n.ask(ctx, id, askChild, bootstrap.Token{}, len(bootstrap.Token{})+8)
		if err != nil {
			continue // it has given us enough
		}
		p, err := invitePeer(id, n.book.Addrs(id))
		if err != nil {
			continue
		}
		token := bootstrap.Token(answer[:len(bootstrap.Token{})])
		p.Token = &token
		list = append(list, p)
	}
	return list
}

// relays are nodes that this one reached under an address that is no secret: with that one, and what they say themselves.
func (n *Node) relays() (list []protocol.InvitePeer) {
	for _, c := range n.host.Network().Conns() {
		at := c.RemoteMultiaddr()
		if c.Stat().Direction != network.DirOutbound || carrier.Secret(at) || n.finder.Source(c.RemotePeer()) == "lan" {
			continue
		}
		others := ma.FilterAddrs(carrier.Public(n.host.Peerstore().Addrs(c.RemotePeer())), func(a ma.Multiaddr) bool {
			return manet.IsPublicAddr(a) || !manet.IsPublicAddr(at) && !manet.IsIPLoopback(a) // none of its own local network
		})
		if p, err := invitePeer(c.RemotePeer(), bootstrap.Unique(append([]ma.Multiaddr{at}, others...))); err == nil {
			list = append(list, p)
		}
	}
	return list
}

func invitePeer(id peer.ID, addrs []ma.Multiaddr) (p protocol.InvitePeer, err error) {
	key, err := id.ExtractPublicKey()
	if err != nil {
		return p, err
	}
	raw, err := key.Raw()
	if err != nil || key.Type() != crypto.Ed25519 || len(addrs) == 0 {
		return p, errors.Join(err, errors.New("no address, or no Ed25519 key"))
	}
	copy(p.Key[:], raw)
	for _, a := range addrs[:min(len(addrs), protocol.MaxInviteAddrs)] {
		p.Addrs = append(p.Addrs, carrier.WithoutToken(a).Bytes())
	}
	return p, nil
}

// outsideFirst orders addresses: those that the whole world reaches, those of a local network, this machine's.
func outsideFirst(addrs []ma.Multiaddr) []ma.Multiaddr {
	rank := func(a ma.Multiaddr) int {
		switch {
		case manet.IsIPLoopback(a):
			return 2
		case manet.IsPrivateAddr(a):
			return 1
		}
		return 0
	}
	slices.SortStableFunc(addrs, func(a, b ma.Multiaddr) int { return rank(a) - rank(b) })
	return addrs
}

// Join takes up an invite: its peers are dialled at once and never given up.
func (n *Node) Join(_ context.Context, link string) (api.Joined, error) {
	return join(n.book, n.cfg, n.now(), link)
}

// JoinLater writes an invite into the book of a node that does not run, for its next start.
func JoinLater(cfg Config, link string) (api.Joined, error) {
	book, err := openBook(cfg.Dir, time.Now)
	if err != nil {
		return api.Joined{}, err
	}
	return join(book, cfg, time.Now(), link)
}

func join(book *bootstrap.Book, cfg Config, now time.Time, link string) (api.Joined, error) {
	i, err := protocol.ParseInvite(link)
	switch {
	case err != nil:
		return api.Joined{}, &api.Hint{Err: err, Hint: "copy the whole link, from openline:join? to its end"}
	case i.Expired(now):
		return api.Joined{}, &api.Hint{Err: fmt.Errorf("the invite expired at %s", time.Unix(i.Expires, 0).UTC().Format(time.RFC3339)),
			Hint: "ask for a new one; is this machine's clock right?"}
	case i.Network != cfg.Network:
		return api.Joined{}, &api.Hint{Err: fmt.Errorf("the invite is for the network %q, and this node is in %q", i.Network, cfg.Network),
			Hint: fmt.Sprintf("start it with --network %s --data ANOTHER-DIRECTORY", i.Network)}
	}
	joined := api.Joined{Network: i.Network, Carriers: []string{}}
	for _, p := range i.Peers {
		info, err := invitedPeer(p)
		if err != nil {
			continue // made by a later version, for the others
		}
		if err := book.Invite(info, p.Token); err != nil {
			return api.Joined{}, err
		}
		joined.Peers++
		for _, a := range info.Addrs {
			if name := carrier.Name(a); cfg.Carriers.Allows(name) && !slices.Contains(joined.Carriers, name) {
				joined.Carriers = append(joined.Carriers, name)
			}
		}
	}
	if len(joined.Carriers) == 0 {
		return joined, &api.Hint{Err: errors.New("none of the invite's addresses can be used with this node's mode and carriers"),
			Hint: "the invite is kept; start the daemon with another --mode or without --carriers, or ask for an invite to a bridge"}
	}
	return joined, nil
}

func invitedPeer(p protocol.InvitePeer) (info peer.AddrInfo, err error) {
	if info.ID, err = keyID(p.Key); err != nil {
		return info, err
	}
	for _, raw := range p.Addrs {
		if a, err := ma.NewMultiaddrBytes(raw); err == nil && carrier.Name(a) != "" {
			info.Addrs = append(info.Addrs, carrier.WithoutToken(a))
		}
	}
	if len(info.Addrs) == 0 {
		return info, errors.New("no address that a carrier of ours reaches")
	}
	return info, nil
}

func keyID(raw [32]byte) (peer.ID, error) {
	key, err := crypto.UnmarshalEd25519PublicKey(raw[:])
	if err != nil {
		return "", err
	}
	return peer.IDFromPublicKey(key)
}

// listedPeer is a peer of a signed list, with the token by which it lets in everybody who has the list.
func listedPeer(p protocol.InvitePeer) (peer.AddrInfo, error) {
	info, err := invitedPeer(p)
	if err != nil || p.Token == nil {
		return info, err
	}
	for i, a := range info.Addrs {
		if carrier.Secret(a) {
			info.Addrs[i] = carrier.WithToken(a, *p.Token)
		}
	}
	return info, nil
}

// Invites lists the invites that this node has made.
func (n *Node) Invites(context.Context) ([]api.Issued, error) {
	list := []api.Issued{}
	for _, i := range n.ledger.List() {
		list = append(list, asIssued(i))
	}
	return list, nil
}

// Revoke ends an invite and cuts off at once whoever came by it, and nobody else.
func (n *Node) Revoke(_ context.Context, id string) (api.Issued, error) {
	i, err := n.ledger.Revoke(id)
	if errors.Is(err, bootstrap.ErrNoInvite) {
		err = &api.Hint{Err: err, Hint: "openline invites lists them"}
	}
	return asIssued(i), err
}

func asIssued(i bootstrap.Issued) api.Issued { return api.Issued(i) }
