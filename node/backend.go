package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"openline/node/api"
	"openline/node/carrier"
	"openline/node/store"
	"openline/protocol"
)

var _ api.Backend = (*Node)(nil)

// Follow is the store's: whoever received an event, followers get it from there.
func (n *Node) Follow(ctx context.Context, filters []protocol.Filter, most int, emit func(protocol.Event) bool, caughtUp func() bool) error {
	err := n.store.Follow(ctx, filters, most, emit, caughtUp)
	if errors.Is(err, store.ErrLagged) {
		return fmt.Errorf("%w: %w", api.ErrLagged, err)
	}
	return err
}

// Topics returns the most active topics.
func (n *Node) Topics(ctx context.Context, since time.Time, most int) ([]api.Topic, error) {
	counts, err := n.store.Topics(ctx, since, most)
	if err != nil {
		return nil, err
	}
	topics := make([]api.Topic, len(counts))
	for i, c := range counts {
		topics[i] = api.Topic{Topic: c.Topic, Events: c.Events, Authors: c.Authors, Newest: time.Unix(c.Newest, 0).UTC()}
	}
	return topics, nil
}

// Status says what this node is, holds and is connected to.
func (n *Node) Status(ctx context.Context) (api.Status, error) {
	stats := n.store.Stats()
	s := api.Status{
		Version: n.cfg.Version, Network: n.cfg.Network, Role: "daemon",
		PeerID: n.host.ID().String(), Addresses: n.Addresses(),
		PeerList: n.peerList(), Events: stats.Events, Bytes: stats.Bytes, Waiting: stats.Outbox,
		API: n.APIAddress(), Started: n.started,
	}
	switch {
	case n.cfg.Bridge:
		s.Role = "bridge"
	case n.cfg.Relay:
		s.Role = "relay"
	}
	s.Peers = len(s.PeerList)
	if s.API != "" {
		s.Websocket = "ws://" + s.API
	}
	s.Kept = api.Kept{Logical: stats.Logical, Cap: n.cfg.MaxBytes, KeepForHours: int64(n.cfg.KeepFor / time.Hour), Evicted: stats.Evicted, Full: stats.Full, ReadOnly: stats.ReadOnly}
	if stats.Horizon > 0 {
		s.Kept.Horizon = time.Unix(stats.Horizon, 0).UTC()
	}
	return s, n.reach(ctx, &s)
}

// Addresses returns the full addresses of this node, with /p2p/ and its id: each can be another node's --peer.
// Those that other machines can reach come first.
func (n *Node) Addresses() []string {
	addrs := slices.Clone(n.host.Addrs())
	loopbackLast := func(a, b ma.Multiaddr) int { return isLoopback(a) - isLoopback(b) }
	slices.SortStableFunc(addrs, loopbackLast)
	list := make([]string, len(addrs))
	for i, a := range addrs {
		list[i] = fmt.Sprintf("%s/p2p/%s", a, n.host.ID())
	}
	return list
}

// APIAddress returns the host:port of the local door as this machine uses it, "" when there is none.
func (n *Node) APIAddress() string {
	if n.listener == nil {
		return ""
	}
	addr := n.listener.Addr().String()
	if a, err := netip.ParseAddrPort(addr); err == nil && a.Addr().IsUnspecified() { // all interfaces, as a relay's
		return net.JoinHostPort("127.0.0.1", strconv.Itoa(int(a.Port())))
	}
	return addr
}

func (n *Node) peerList() []api.Peer {
	linked := n.mesh.Linked()
	best := map[peer.ID]network.Conn{} // a direct connection where there is one beside a relay's
	for _, c := range n.host.Network().Conns() {
		if old := best[c.RemotePeer()]; old == nil || carrier.Name(old.RemoteMultiaddr()) == carrier.Relay {
			best[c.RemotePeer()] = c
		}
	}
	list := []api.Peer{}
	for id, c := range best {
		p := api.Peer{ID: id.String(), Address: c.RemoteMultiaddr().String(), Direction: "out",
			Source: n.finder.Source(id), Since: c.Stat().Opened.UTC(), Mesh: linked[id],
			Local: n.isLocal(c.RemoteMultiaddr()), Carrier: carrier.Name(c.RemoteMultiaddr())}
		if carrier.Secret(c.RemoteMultiaddr()) {
			p.Address = "" // whoever looks over a shoulder must not learn where a bridge is
		}
		if c.Stat().Direction == network.DirInbound {
			p.Direction = "in"
		}
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b api.Peer) int { return strings.Compare(a.ID, b.ID) })
	return list
}

// Post signs a note of the user's and sends it through the door of local clients.
func (n *Node) Post(ctx context.Context, d api.Draft) (api.Receipt, error) {
	if n.owner == nil {
		return api.Receipt{}, &api.Hint{Err: errors.New("a relay has no identity to post with"), Hint: "post through a daemon"}
	}
	tags, err := n.replyTags(d.Reply)
	if err != nil {
		return api.Receipt{}, err
	}
	for _, t := range topicsOf(d) {
		tags = append(tags, protocol.Tag{"t", t})
	}
	key, err := n.owner.signer()
	if err != nil {
		return api.Receipt{}, err
	}
	e, err := key.Sign(protocol.Draft{CreatedAt: n.now().Unix(), Kind: protocol.KindNote, Tags: tags, Content: d.Text})
	if err != nil {
		return api.Receipt{}, err
	}
	return n.Publish(ctx, e.AppendJSON(nil))
}

// replyTags marks a reply as NIP-10 asks: the thread's root, the event that is answered, and its author.
func (n *Node) replyTags(reply string) ([]protocol.Tag, error) {
	if reply == "" {
		return nil, nil
	}
	id, err := protocol.ParseID(reply)
	if err != nil {
		return nil, &api.Hint{Err: fmt.Errorf("reply: %w", err), Hint: "openline feed --json shows the ids of notes"}
	}
	parent, ok, err := n.store.Get(id)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, &api.Hint{Err: errors.New("reply: this node does not have that note"), Hint: "openline feed --json shows the ids of notes"}
	}
	author := protocol.Tag{"p", parent.PubKey().String()}
	for _, t := range parent.Tags() {
		if len(t) > 3 && t[0] == "e" && t[3] == "root" {
			return []protocol.Tag{{"e", t[1], "", "root"}, {"e", reply, "", "reply"}, author}, nil
		}
	}
	return []protocol.Tag{{"e", reply, "", "root"}, author}, nil
}

// topicsOf returns the topics of a draft: the named ones, then the #words of the text, each once, five at most of
// the latter kind; too many named ones are refused by the rules.
func topicsOf(d api.Draft) []string {
	var topics []string
	for _, t := range d.Topics {
		if t = strings.ToLower(strings.TrimPrefix(t, "#")); !slices.Contains(topics, t) {
			topics = append(topics, t)
		}
	}
	for _, t := range hashtags(d.Text) {
		if len(topics) < protocol.MaxTopics && !slices.Contains(topics, t) && protocol.CheckTopic(t) == nil {
			topics = append(topics, t)
		}
	}
	return topics
}

// hashtags returns the #words of a text in lower case. A word holds letters, marks, digits, "_" and the zero-width
// non-joiner, which Persian words need.
func hashtags(text string) []string {
	var tags []string
	for i := 0; i < len(text); i++ {
		if text[i] != '#' || i > 0 && isWordByte(text[i-1]) {
			continue
		}
		word := text[i+1:]
		if end := strings.IndexFunc(word, func(r rune) bool { return !isWordRune(r) }); end >= 0 {
			word = word[:end]
		}
		if word != "" {
			tags = append(tags, strings.ToLower(word))
		}
		i += len(word)
	}
	return tags
}

func isWordRune(r rune) bool {
	return unicode.IsLetter(r) || unicode.IsMark(r) || unicode.IsDigit(r) || r == '_' || r == '\u200c'
}

// isWordByte reports whether a "#" behind c stands inside a word or an address and starts no topic. Bytes over 0x7f
// are parts of letters, mostly.
func isWordByte(c byte) bool {
	return c == '/' || c == '&' || c == '#' || c >= 0x80 || isWordRune(rune(c))
}

// profileName returns the name in an author's newest profile (kind 0), "" when there is none.
func (n *Node) profileName(ctx context.Context, author protocol.PubKey) string {
	one := 1
	f := protocol.Filter{Authors: []protocol.PubKey{author}, Kinds: []uint16{protocol.KindProfile}, Limit: &one}
	name := ""
	_ = n.store.Follow(ctx, []protocol.Filter{f}, 1, func(e protocol.Event) bool {
		name = e.ProfileName()
		return false
	}, func() bool { return false }) // without a name the key is shown
	return name
}

func isLoopback(a ma.Multiaddr) int {
	if manet.IsIPLoopback(a) {
		return 1
	}
	return 0
}

// Linked returns the number of peers with a mesh link in any shard.
func (n *Node) Linked() int { return len(n.mesh.Linked()) }

// Await returns nil once the event with this id is here, or ctx's error.
func (n *Node) Await(ctx context.Context, id protocol.ID) error {
	found := func(protocol.Event) bool { return false }
	return n.Follow(ctx, []protocol.Filter{{IDs: []protocol.ID{id}}}, 1, found, func() bool { return true })
}
