package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"slices"
	"sync"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"openline/bootstrap"
	"openline/node/api"
	"openline/node/carrier"
	"openline/node/history"
	"openline/protocol"
)

const (
	contactEvery = 10 * time.Second
	contactSaved = time.Minute      // between writes of the file
	aloneAfter   = time.Minute      // without peers, a gap begins
	outsideAfter = 10 * time.Minute // without word from outside, if there ever was any, a gap begins
	maxGaps      = 100
)

// contact remembers over restarts when this node was cut off, and from what, so that a feed can say where something may
// be missing.
type contact struct {
	path string

	mu       sync.Mutex // guards the fields below
	state    contactState
	compared [protocol.Shards]comparedAt
}

// contactState is the form of the file contact.json. It tells when, not with whom.
type contactState struct {
	Peers   time.Time `json:"peers"`   // when a peer was last connected
	Outside time.Time `json:"outside"` // when anything from outside the local networks was last heard
	Gaps    []api.Gap `json:"gaps"`    // not filled yet, in order
}

// comparedAt is the last comparison of a shard.
type comparedAt struct {
	at    time.Time
	from  int64 // covering everything since then
	parts []history.Comparison
}

// sessionTime is how long the windows of one session may take to be one comparison.
const sessionTime = 2 * time.Minute

// add reports whether h completes what reaches from some time until now.
func (s *comparedAt) add(h history.Comparison, at time.Time) bool {
	s.parts = slices.DeleteFunc(s.parts, func(p history.Comparison) bool { return at.Sub(p.At) > sessionTime || p.Peer != h.Peer })
	h.Lacks = nil // which may hold on to much
	s.parts = append(s.parts, h)
	from := int64(math.MaxInt64)
	for more := true; more; {
		more = false
		for _, p := range s.parts {
			if p.To >= from && p.From < from {
				from, more = p.From, true
			}
		}
	}
	if from == math.MaxInt64 {
		return false
	}
	s.at, s.from = at, from
	return true
}

func openContact(path string, now time.Time) (*contact, error) {
	c := &contact{path: path}
	raw, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return c, nil
	case err != nil:
		return nil, fmt.Errorf("read when there was contact: %w", err)
	}
	if err := json.Unmarshal(raw, &c.state); err != nil {
		c.state = contactState{} // it says nothing that is worth a refusal to start
	}
	c.state.Gaps = slices.DeleteFunc(c.state.Gaps, func(g api.Gap) bool { return g.From.After(now) }) // a clock was wrong
	return c, nil
}

// look is called every few seconds with whether there are peers and when outside was last heard.
func (c *contact) look(now time.Time, peers bool, outside time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.state.Peers.IsZero() && now.Sub(c.state.Peers) > aloneAfter {
		c.widen(api.GapAlone, c.state.Peers, now)
	}
	if outside.After(c.state.Outside) {
		c.state.Outside = outside
	}
	if peers && !c.state.Outside.IsZero() && now.Sub(c.state.Outside) > outsideAfter {
		c.widen(api.GapIsland, c.state.Outside, now)
	}
	if peers || c.state.Peers.IsZero() {
		c.state.Peers = now // a node that never had a peer has missed nothing that it could have had
	}
}

// widen lets a gap that began then reach until now. c.mu is held.
func (c *contact) widen(kind string, from, now time.Time) {
	for i := range c.state.Gaps {
		if g := &c.state.Gaps[i]; g.Kind == kind && g.From.Equal(from) {
			g.To = now
			return
		}
	}
	c.state.Gaps = append(c.state.Gaps, api.Gap{Kind: kind, From: from, To: now})
	if len(c.state.Gaps) > maxGaps {
		c.state.Gaps = c.state.Gaps[1:]
	}
}

// compare notes a comparison. When all shards were compared since a gap began and after it ended, what it kept away is
// here or on its way, as far as the peer had it: of what came from outside only a peer with contact to there knows.
func (c *contact) compare(h history.Comparison, outside time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := time.Now()
	if !c.compared[h.Shard].add(h, at) {
		return
	}
	c.state.Gaps = slices.DeleteFunc(c.state.Gaps, func(g api.Gap) bool {
		for _, s := range c.compared {
			if !s.at.After(g.To) || s.from > g.From.Unix() {
				return false
			}
		}
		return g.Kind == api.GapAlone || at.Sub(outside) < time.Minute
	})
}

// lastCompared returns when everything was last compared with a peer; zero: not since the start.
func (c *contact) lastCompared() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	oldest := c.compared[0].at
	for _, s := range c.compared {
		if s.at.Before(oldest) {
			oldest = s.at
		}
	}
	return oldest
}

func (c *contact) read() contactState {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.state
	s.Gaps = slices.Clone(s.Gaps)
	return s
}

func (c *contact) save() error {
	raw, err := json.MarshalIndent(c.read(), "", "  ")
	if err != nil {
		return err
	}
	return bootstrap.WriteFile(c.path, []byte(string(raw)+"\n"))
}

// runContact watches who is there.
func (n *Node) runContact(ctx context.Context) error {
	tick := time.NewTicker(contactEvery)
	defer tick.Stop()
	saved, failed := time.Now(), false
	for {
		n.lookForContact()
		select {
		case <-ctx.Done():
			return n.contactSaved(n.contact.save(), &failed)
		case <-tick.C:
		}
		if time.Since(saved) >= contactSaved {
			saved = time.Now()
			_ = n.contactSaved(n.contact.save(), &failed)
		}
	}
}

// contactSaved warns once: a full disk must not end a node for this file.
func (n *Node) contactSaved(err error, failed *bool) error {
	if err != nil && !*failed {
		n.log.Warn("when there was contact could not be written down", "error", err)
	}
	*failed = err != nil
	return nil
}

func (n *Node) lookForContact() {
	conns := n.host.Network().Conns()
	for _, c := range conns {
		if !n.isLocal(c.RemoteMultiaddr()) {
			n.history.HeardOutside(time.Now())
			break
		}
	}
	n.contact.look(time.Now(), len(conns) > 0, n.history.Outside())
}

// isLocal reports whether an address is of this machine or of a local network. Addresses behind a carrier-grade NAT are
// not: whoever is there reached this node over a provider.
func (n *Node) isLocal(a ma.Multiaddr) bool {
	if name := carrier.Name(a); name == carrier.PT || name == carrier.Tor {
		return false // a program on this machine is in between
	}
	if manet.IsIPLoopback(a) || manet.IsIP6LinkLocal(a) || manet.IsPrivateAddr(a) && !isCarrierNAT(a) {
		return true
	}
	return sameMachine(a, n.host.Addrs())
}

// sameMachine reports whether a has the IP of one of the addresses.
func sameMachine(a ma.Multiaddr, own []ma.Multiaddr) bool {
	ip, err := manet.ToIP(a)
	return err == nil && slices.ContainsFunc(own, func(o ma.Multiaddr) bool {
		other, err := manet.ToIP(o)
		return err == nil && other.Equal(ip)
	})
}

func isCarrierNAT(a ma.Multiaddr) bool {
	ip, err := manet.ToIP(a)
	if err != nil {
		return false
	}
	v4 := ip.To4()
	return v4 != nil && v4[0] == 100 && v4[1]&0xc0 == 64 // 100.64.0.0/10, RFC 6598
}

// reach says in numbers how this node is connected.
func (n *Node) reach(ctx context.Context, s *api.Status) error {
	c := n.contact.read()
	s.Reach = api.Reach{Carriers: map[string]int{}, Compared: n.contact.lastCompared(),
		Outside: c.Outside, Gaps: c.Gaps, Links: n.history.Links()}
	for _, p := range s.PeerList {
		if p.Local {
			s.Reach.Local++
		} else {
			s.Reach.Elsewhere++
		}
		s.Reach.Carriers[p.Carrier]++
	}
	s.Reach.Island = n.history.Island()
	if s.Reach.Gaps == nil {
		s.Reach.Gaps = []api.Gap{}
	}
	offset, peers := n.history.ClockOffset()
	if peers > 0 {
		s.Reach.ClockOffset, s.Reach.ClockPeers = int64(offset/time.Second), peers
	}
	s.Posts = []api.Post{}
	for _, id := range n.receipts.last(statusPosts) {
		e, ok, err := n.store.Get(id)
		if err != nil {
			return err
		}
		if ok {
			held, _, _ := n.receipts.held(id)
			s.Posts = append(s.Posts, api.Post{ID: id.String(), CreatedAt: e.CreatedAt(), HeldBy: held})
		}
	}
	return n.behind(ctx, s)
}

// statusPosts is how many of the user's last posts a status shows.
const statusPosts = 5

// behind says for each follow how new what is here of it is.
func (n *Node) behind(ctx context.Context, s *api.Status) error {
	s.Feeds = []api.FeedState{}
	if n.owner == nil {
		return nil
	}
	follows, err := n.owner.Follows(ctx)
	if err != nil {
		return err
	}
	for _, f := range follows {
		state := api.FeedState{Follow: f, Compared: s.Reach.Compared} // notes of one author or topic are in several shards
		filter := protocol.Filter{Kinds: []uint16{protocol.KindNote}}
		if k, err := protocol.ParsePubKey(f.Author); err == nil {
			filter.Authors = []protocol.PubKey{k}
		} else {
			filter.Tags = []protocol.TagFilter{{Letter: 't', Values: []string{f.Topic}}}
		}
		err := n.store.Follow(ctx, []protocol.Filter{filter}, 1, func(e protocol.Event) bool {
			state.Newest = time.Unix(e.CreatedAt(), 0).UTC()
			return false
		}, func() bool { return false })
		if err != nil {
			return err
		}
		s.Feeds = append(s.Feeds, state)
	}
	return nil
}
