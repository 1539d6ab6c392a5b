package lab

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// residual is how long the GFW drops everything between two sides after it has found fully encrypted traffic.
const residual = 180 * time.Second

const ethIPv4 = 0x0800

// looked is how much of each direction of a stream the censor looks at.
const looked = 4096

// censor looks at what crosses a border. Its one user is the forwarding loop.
type censor struct {
	rules  []Rule
	now    func() time.Time
	flows  map[flowKey]*flow
	log    []*flow
	shut   map[flowKey]time.Time // client without port, server and port: until when
	banned map[netip.AddrPort]string
	tokens float64 // of Throttle
	filled time.Time

	visit func(server netip.AddrPort) // asks the prober to look at a server; may be nil
	seen  map[netip.AddrPort]bool     // visited
}

type flowKey struct {
	proto          byte
	client, server netip.AddrPort
}

// flow is what is known of a TCP connection, or of UDP between two places.
type flow struct {
	Flow
	key      flowKey
	inside   bool   // the client is in the censor's country
	up, down stream // what was sent
	quic     quicCrypto
	judged   bool // the first payload was looked at
	dead     bool
}

// stream is the begin of one direction, put in order.
type stream struct {
	begun bool
	next  uint32
	head  []byte
	later map[uint32][]byte
	total int
}

// add takes a segment and reports whether head grew.
func (s *stream) add(seq uint32, payload []byte) bool {
	if !s.begun || len(payload) == 0 {
		return false
	}
	grew := false
	if seq != s.next {
		if int32(seq-s.next) > 0 && len(s.later) < 64 {
			if s.later == nil {
				s.later = map[uint32][]byte{}
			}
			s.later[seq] = slices.Clone(payload)
		}
		return false
	}
	for payload != nil {
		s.next += uint32(len(payload))
		s.total += len(payload)
		if room := looked - len(s.head); room > 0 {
			s.head = append(s.head, payload[:min(room, len(payload))]...)
			grew = true
		}
		payload = s.later[s.next]
		delete(s.later, s.next)
	}
	return grew
}

func newCensor(now func() time.Time) *censor {
	return &censor{now: now, flows: map[flowKey]*flow{}, shut: map[flowKey]time.Time{}, banned: map[netip.AddrPort]string{}, seen: map[netip.AddrPort]bool{}}
}

// set replaces the rules. What a rule that stays has found out stays with it.
func (c *censor) set(rules []Rule) {
	has := func(kind string) bool {
		return slices.ContainsFunc(rules, func(r Rule) bool { return r.Kind == kind })
	}
	if !has(fullyEncrypted) {
		clear(c.shut)
	}
	if !has(probe) {
		clear(c.banned)
		clear(c.seen)
	}
	for _, f := range c.flows {
		if f.dead && !slices.ContainsFunc(rules, func(r Rule) bool { return strings.HasPrefix(f.Verdict, r.Kind) }) {
			f.dead = false
		}
	}
	c.rules = rules
}

// verdict says what happens to a packet: it passes, or not and forged are sent in its stead or beside it.
type verdict struct {
	drop   bool
	forged [][]byte
	delay  time.Duration
}

// judge looks at a packet that crosses a border; inside says that its sender is in the censor's country.
func (c *censor) judge(p packet, inside bool) verdict {
	f, up := c.flow(p, inside)
	f.Packets++
	size := len(p.payload)
	if up {
		f.Up += size
	} else {
		f.Down += size
	}
	if p.proto == protoTCP {
		c.order(f, p, up)
	}
	if f.dead {
		return verdict{drop: true}
	}
	for _, r := range c.rules {
		hit, v := c.apply(r, f, p, up)
		if hit {
			if f.Verdict == "" || v.drop {
				f.Verdict = r.Kind
			}
			return v
		}
	}
	return verdict{}
}

// flow finds or begins the flow of a packet; up says that it goes from client to server.
func (c *censor) flow(p packet, inside bool) (f *flow, up bool) {
	k := flowKey{p.proto, p.src, p.dst}
	back := flowKey{p.proto, p.dst, p.src}
	opens := p.flags()&(flagSYN|flagACK) == flagSYN
	if f = c.flows[k]; f != nil && !opens {
		return f, true
	}
	if f = c.flows[back]; f != nil && !opens {
		return f, false
	}
	if old := c.flows[k]; old != nil && opens && !old.up.begun {
		return old, true // the SYN again
	}
	f = &flow{key: k, inside: inside}
	f.Start, f.Client, f.Server = c.now(), p.src.String(), p.dst.String()
	f.Proto = map[byte]string{protoTCP: "tcp", protoUDP: "udp", 1: "icmp"}[p.proto]
	c.flows[k] = f
	c.log = append(c.log, f)
	return f, true
}

// overhear notes in the log of flows what is said to all of a link, or to a group.
func (c *censor) overhear(frame []byte) {
	if p, ok := parsePacket(frame[14:]); ok && binary.BigEndian.Uint16(frame[12:]) == ethIPv4 {
		f, _ := c.flow(p, false)
		f.Packets++
		f.Up += len(p.payload)
	}
}

// order keeps the begin of both directions of a TCP flow.
func (c *censor) order(f *flow, p packet, up bool) {
	s := &f.down
	if up {
		s = &f.up
	}
	if p.flags()&flagSYN != 0 {
		s.begun, s.next = true, p.seq()+1
		if !up && c.visit != nil && f.inside && !c.seen[f.key.server] &&
			slices.ContainsFunc(c.rules, func(r Rule) bool { return r.Kind == probe }) {
			c.seen[f.key.server] = true
			c.visit(f.key.server)
		}
		return
	}
	s.add(p.seq(), p.payload)
}

// apply asks one rule about a packet. hit false: go on with the next.
func (c *censor) apply(r Rule, f *flow, p packet, up bool) (hit bool, v verdict) {
	kill := func(yes bool) (bool, verdict) {
		f.dead = f.dead || yes
		return yes, verdict{drop: yes}
	}
	tcp, udp := p.proto == protoTCP, p.proto == protoUDP
	dnsPort := f.key.server.Port() == 53
	switch r.Kind {
	case cutBorder:
		return true, verdict{drop: true}
	case noUDP:
		return udp && !dnsPort, verdict{drop: true}
	case blockIP:
		return blocks(r.Values, p), verdict{drop: true}
	case probe:
		_, known := c.banned[f.key.server]
		return tcp && known, verdict{drop: true}
	case throttle:
		return c.throttled(r, p)
	case poisonDNS:
		return poison(r, p, up && udp && dnsPort)
	case stun:
		return kill(udp && isSTUN(p.payload, r.Values[0]))
	case libp2pQUIC, sni:
		if udp && up {
			if h, ok := f.quic.add(p.payload); ok {
				return kill(r.Kind == sni && under(h.name, r.Values) || r.Kind == libp2pQUIC && (h.libp2p() || slices.Contains(h.alpn, "h3") && h.name == ""))
			}
		}
		if tcp && r.Kind == sni {
			h, ok, _ := helloInTLS(f.up.head)
			return kill(ok && under(h.name, r.Values))
		}
	case libp2pTLS:
		h, ok, _ := helloInTLS(f.up.head)
		return kill(tcp && ok && h.libp2p())
	case dropStrings, resetStrings:
		if !tcp || !contains(f.up.head, r.Values) && !contains(f.down.head, r.Values) {
			return false, v
		}
		_, v = kill(true)
		if r.Kind == resetStrings {
			v.forged = [][]byte{p.reset(true), p.reset(false)}
		}
		return true, v
	case fullyEncrypted:
		return c.encrypted(f, p)
	case allowlist:
		return c.unlisted(f, p)
	case freeze:
		return kill(tcp && f.down.total > r.Bytes)
	}
	return false, v
}

func contains(head []byte, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(s string) bool { return bytes.Contains(head, []byte(s)) })
}

func blocks(places []string, p packet) bool {
	for _, s := range places {
		if place, err := netip.ParseAddrPort(s); err == nil {
			if p.src == place || p.dst == place {
				return true
			}
			continue
		}
		prefix, err := netip.ParsePrefix(s)
		if err != nil {
			addr, err := netip.ParseAddr(s)
			if err != nil {
				continue
			}
			prefix = netip.PrefixFrom(addr, addr.BitLen())
		}
		if prefix.Contains(p.src.Addr()) || prefix.Contains(p.dst.Addr()) {
			return true
		}
	}
	return false
}

// throttled is a bucket of a quarter of a second: what does not fit waits, and beyond a second is dropped.
func (c *censor) throttled(r Rule, p packet) (bool, verdict) {
	now, rate := c.now(), float64(r.Bytes)
	c.tokens = min(rate/4, c.tokens+now.Sub(c.filled).Seconds()*rate) - float64(len(p.ip))
	c.filled = now
	if c.tokens >= 0 {
		return false, verdict{}
	}
	wait := time.Duration(-c.tokens / rate * float64(time.Second))
	if wait > time.Second {
		c.tokens += float64(len(p.ip))
		return true, verdict{drop: true}
	}
	return true, verdict{delay: wait}
}

// poison forges the answer to a query for a name that is listed, and lets the query itself go nowhere.
func poison(r Rule, p packet, query bool) (bool, verdict) {
	var q dns.Msg
	if !query || q.Unpack(p.payload) != nil || len(q.Question) != 1 {
		return false, verdict{}
	}
	name := strings.ToLower(strings.TrimSuffix(q.Question[0].Name, "."))
	if !under(name, r.Values[1:]) {
		return false, verdict{}
	}
	var a dns.Msg
	a.SetReply(&q)
	a.RecursionAvailable = true // as a resolver's answer is
	if q.Question[0].Qtype == dns.TypeA {
		if rr, err := dns.NewRR(q.Question[0].Name + " 60 IN A " + r.Values[0]); err == nil {
			a.Answer = append(a.Answer, rr)
		}
	}
	raw, err := a.Pack()
	if err != nil {
		return false, verdict{}
	}
	return true, verdict{drop: true, forged: [][]byte{p.answerUDP(raw)}}
}

func isSTUN(b []byte, user string) bool {
	return len(b) >= 20 && b[0]&0xc0 == 0 && bytes.Equal(b[4:8], []byte{0x21, 0x12, 0xa4, 0x42}) && bytes.Contains(b[20:], []byte(user))
}

// encrypted is the GFW's rule about the first payload of a client, and what follows from it.
func (c *censor) encrypted(f *flow, p packet) (bool, verdict) {
	if p.proto != protoTCP || !f.inside {
		return false, verdict{}
	}
	pair := flowKey{protoTCP, netip.AddrPortFrom(f.key.client.Addr(), 0), f.key.server}
	if until, ok := c.shut[pair]; ok && c.now().Before(until) {
		return true, verdict{drop: true}
	}
	if f.judged || len(f.up.head) == 0 {
		return false, verdict{}
	}
	f.judged = true
	if !looksEncrypted(f.up.head) {
		return false, verdict{}
	}
	c.shut[pair] = c.now().Add(residual)
	f.dead = true
	return true, verdict{drop: true}
}

// looksEncrypted is the rule of Wu et al., USENIX Security 2023, section 4.
func looksEncrypted(b []byte) bool {
	ones, printable, run, longest := 0, 0, 0, 0
	for _, x := range b {
		ones += bits.OnesCount8(x)
		if x >= 0x20 && x <= 0x7e {
			printable++
			run++
			longest = max(longest, run)
		} else {
			run = 0
		}
	}
	density := float64(ones) / float64(len(b))
	isPrintable := func(x byte) bool { return x >= 0x20 && x <= 0x7e }
	switch {
	case density <= 3.4 || density >= 4.6:
	case len(b) >= 6 && !slices.ContainsFunc(b[:6], func(x byte) bool { return !isPrintable(x) }):
	case 2*printable > len(b), longest > 20:
	case len(b) >= 3 && (b[0] == 0x16 || b[0] == 0x17) && b[1] == 3 && b[2] <= 9:
	case isHTTP(b):
	default:
		return true
	}
	return false
}

func isHTTP(b []byte) bool {
	return slices.ContainsFunc([]string{"GET ", "PUT ", "POST ", "HEAD "}, func(m string) bool { return bytes.HasPrefix(b, []byte(m)) })
}

// unlisted enforces ports and protocols.
func (c *censor) unlisted(f *flow, p packet) (bool, verdict) {
	port := f.key.server.Port()
	if p.proto == protoUDP && port == 53 {
		var m dns.Msg
		return m.Unpack(p.payload) != nil, verdict{drop: true}
	}
	if p.proto != protoTCP || port != 53 && port != 80 && port != 443 {
		return true, verdict{drop: true}
	}
	if f.judged || len(f.up.head) < 3 && len(f.down.head) == 0 {
		return false, verdict{}
	}
	f.judged = true
	b := f.up.head
	fits := port == 80 && isHTTP(b) || port == 443 && len(b) >= 3 && b[0] == 22 && b[1] == 3 || port == 53 && len(b) > 14
	f.dead = !fits
	return !fits, verdict{drop: true}
}
