package carrier

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

const (
	// stagger is between the first attempts of two carriers: whoever fires six odd handshakes in a second stands out.
	stagger = 1500 * time.Millisecond
	// sibling is between two addresses of one carrier, as in RFC 8305.
	sibling = 250 * time.Millisecond

	// A place whose connections are cut after their first bytes is left alone for longer than the 180 s for which the
	// GFW drops everything between the two sides then (Wu et al., USENIX Security 2023).
	shun       = 185 * time.Second
	shunSpread = 60 * time.Second

	maxNetworks = 64   // remembered; the ones used longest ago go
	maxSessions = 1024 // places that have worked since the start; all are forgotten when there are more
)

// Ladder remembers on each network which carrier worked, decides in which order addresses are tried, and keeps off
// places that a censor has just cut. Its methods are safe for concurrent use.
type Ladder struct {
	allowed func(name string) bool
	file    string
	now     func() time.Time
	network func() string // names the network that this machine is in

	mu       sync.Mutex // guards the fields below
	worked   map[string]map[string]time.Time
	shunned  map[string]time.Time // by network and ip:port
	sessions map[string]time.Time // places that worked since the start
	changed  bool                 // worked is not written down yet
}

var _ connmgr.ConnectionGater = (*Ladder)(nil)

func newLadder(cfg Config) *Ladder {
	l := &Ladder{allowed: cfg.Allows, now: time.Now, network: currentNetwork,
		worked: map[string]map[string]time.Time{}, shunned: map[string]time.Time{}, sessions: map[string]time.Time{}}
	if cfg.Dir != "" {
		l.file = filepath.Join(cfg.Dir, "carriers.json")
		if raw, err := os.ReadFile(l.file); err == nil {
			json.Unmarshal(raw, &l.worked) // a damaged memory is an empty one
		}
	}
	return l
}

// currentNetwork names the network by the prefix of the address that this machine would send from. No packet is sent.
func currentNetwork() string {
	conn, err := net.Dial("udp4", "192.0.2.1:9") // TEST-NET-1
	if err != nil {
		if conn, err = net.Dial("udp6", "[2001:db8::1]:9"); err != nil {
			return "none"
		}
	}
	defer conn.Close()
	ip := conn.LocalAddr().(*net.UDPAddr).IP
	if v4 := ip.To4(); v4 != nil {
		return v4.Mask(net.CIDRMask(24, 32)).String()
	}
	return ip.Mask(net.CIDRMask(48, 128)).String()
}

// Rank implements network.DialRanker: what worked here last comes first, then the order of Names.
func (l *Ladder) Rank(addrs []ma.Multiaddr) []network.AddrDelay {
	here := l.network()
	l.mu.Lock()
	worked := l.worked[here]
	order := slices.Clone(addrs)
	slices.SortStableFunc(order, func(a, b ma.Multiaddr) int {
		x, y := Name(a), Name(b)
		return cmp.Or(worked[y].Compare(worked[x]), cmp.Compare(slices.Index(Names(), x), slices.Index(Names(), y)))
	})
	l.mu.Unlock()
	var ranked []network.AddrDelay
	delay := time.Duration(0)
	for i, a := range order {
		if i > 0 {
			delay += l.pause(order[i-1], a)
		}
		ranked = append(ranked, network.AddrDelay{Addr: a, Delay: delay})
	}
	return ranked
}

func (l *Ladder) pause(before, a ma.Multiaddr) time.Duration {
	plain := func(a ma.Multiaddr) bool { return !Secret(a) }
	if Name(before) == Name(a) || plain(before) && plain(a) || manet.IsPrivateAddr(a) && plain(a) {
		return sibling
	}
	return stagger
}

// where is the place that a censor would cut an address at: its ip:port, or name, by the carrier that was cut.
func where(a ma.Multiaddr) string {
	p := read(a)
	return p.carrier + " " + p.address()
}

// Worked notes that a connection to a came about.
func (l *Ladder) Worked(a ma.Multiaddr) {
	name, here := Name(a), l.network()
	if name == "" || name == Relay {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.worked[here] == nil {
		l.worked[here] = map[string]time.Time{}
	}
	l.worked[here][name] = l.now().Truncate(time.Second)
	if len(l.sessions) >= maxSessions {
		clear(l.sessions)
	}
	l.sessions[here+where(a)], l.changed = l.now(), true
	delete(l.shunned, here+where(a))
	l.forget()
}

// forget keeps the memory small.
func (l *Ladder) forget() {
	last := func(m map[string]time.Time) (t time.Time) {
		for _, at := range m {
			if at.After(t) {
				t = at
			}
		}
		return t
	}
	for len(l.worked) > maxNetworks {
		oldest := ""
		for here, m := range l.worked {
			if oldest == "" || last(m).Before(last(l.worked[oldest])) {
				oldest = here
			}
		}
		delete(l.worked, oldest)
	}
	for place, until := range l.shunned {
		if l.now().After(until) {
			delete(l.shunned, place)
		}
	}
}

// Failed takes the error of dialling a peer apart and notes the places that were cut after the first bytes. One that
// worked a while ago gets a second chance at once: lines break for many reasons.
func (l *Ladder) Failed(err error) {
	var dial *swarm.DialError
	if !errors.As(err, &dial) {
		return
	}
	here := l.network()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range dial.DialErrors {
		if !cut(e.Cause) {
			continue
		}
		place := here + where(e.Address)
		if _, ok := l.sessions[place]; ok {
			delete(l.sessions, place)
			continue
		}
		l.shunned[place] = l.now().Add(shun + rand.N(shunSpread))
	}
}

// cut reports whether an attempt ended the way a censor ends it who looks at the first bytes.
func cut(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, syscall.ECONNREFUSED) || somebodyElse(err) {
		return false
	}
	var b *Broken
	if errors.As(err, &b) {
		return true
	}
	// libp2p's word for what happens between a TCP connection and a libp2p connection; it exports no error for it.
	return strings.Contains(err.Error(), "failed to negotiate")
}

// somebodyElse reports whether an attempt ended because another peer is there than was looked for: whoever names a false
// one must not have the place shunned.
func somebodyElse(err error) bool {
	var other sec.ErrPeerIDMismatch
	return errors.As(err, &other)
}

// Shunned reports whether a place is left alone for now.
func (l *Ladder) Shunned(a ma.Multiaddr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	until, ok := l.shunned[l.network()+where(a)]
	return ok && l.now().Before(until)
}

// Best returns the carrier that worked last on this network, and when; "" when none has.
func (l *Ladder) Best() (name string, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for n, t := range l.worked[l.network()] {
		if t.After(at) {
			name, at = n, t
		}
	}
	return name, at
}

// save writes the memory down when there is something new in it.
func (l *Ladder) save() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == "" || !l.changed {
		return nil
	}
	raw, err := json.Marshal(l.worked)
	if err != nil {
		return err
	}
	return writeFile(l.file, raw)
}

// InterceptPeerDial implements connmgr.ConnectionGater.
func (l *Ladder) InterceptPeerDial(peer.ID) bool { return true }

// InterceptAddrDial refuses what the mode forbids, whoever asks for it, and what is shunned.
func (l *Ladder) InterceptAddrDial(_ peer.ID, a ma.Multiaddr) bool {
	return l.allowed(Name(a)) && !l.Shunned(a)
}

// InterceptAccept implements connmgr.ConnectionGater.
func (l *Ladder) InterceptAccept(network.ConnMultiaddrs) bool { return true }

// InterceptSecured implements connmgr.ConnectionGater.
func (l *Ladder) InterceptSecured(network.Direction, peer.ID, network.ConnMultiaddrs) bool {
	return true
}

// InterceptUpgraded implements connmgr.ConnectionGater.
func (l *Ladder) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }
