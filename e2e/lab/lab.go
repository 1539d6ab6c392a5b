// Package lab builds networks of Linux network namespaces with a censor between countries, for tests of real programs.
// It needs no privilege: user namespaces and util-linux's nsenter. A world is data:
//
//	net := lab.Start(t, lab.World{
//		Links: []lab.Link{
//			{Name: "home", Country: "x", Latency: 10 * time.Millisecond},
//			{Name: "abroad", Latency: 20 * time.Millisecond, Loss: 0.02},
//		},
//		Hosts:  []lab.Host{{Name: "user", Link: "home"}, {Name: "server", Link: "abroad"}},
//		Censor: []lab.Rule{lab.BlockSNI("example.org"), lab.NoUDP()},
//	})
//	out, err := net.Host("user").Command(ctx, "curl", "https://"+net.Host("server").Addr()).Output()
//
// Call Main first in TestMain: the test's binary runs again inside the namespaces. One process in the middle is every
// switch and router: it reads whatever hosts send as raw frames, applies the rules, delays, loses, and passes on. Hosts
// have IPv4 alone. Everything ends with the test; the packets that crossed a border are kept when it failed.
package lab

import (
	"fmt"
	"slices"
	"time"
)

// World is what there is.
type World struct {
	Links  []Link
	Hosts  []Host
	Censor []Rule
}

// Link is one local network. Its hosts reach each other directly, by broadcast and multicast too.
type Link struct {
	Name       string
	Country    string        // the censor stands between links of different countries; "" is abroad
	Latency    time.Duration // one way, of what leaves or enters
	Jitter     time.Duration // at most, added to that
	Loss       float64       // 0 to 1, each way
	Rate       int           // bytes a second each way; 0: any
	Firewalled bool          // as behind a carrier's NAT: nothing comes in that does not answer
}

// Host is one machine.
type Host struct {
	Name string
	Link string
	Addr string // IPv4, in a network of 256; "" takes 10.LINK.0.N with numbers from 1 on
	DNS  string // address of the resolver that its programs ask; "": what stands in this machine's /etc/resolv.conf
}

// addressed gives every host that has none its address.
func (w World) addressed() World {
	number, used := map[string]int{}, map[string]int{}
	for i, l := range w.Links {
		number[l.Name] = i + 1
	}
	w.Hosts = slices.Clone(w.Hosts)
	for i, h := range w.Hosts {
		if h.Addr == "" {
			used[h.Link]++
			w.Hosts[i].Addr = fmt.Sprintf("10.%d.0.%d", number[h.Link], used[h.Link])
		}
	}
	return w
}

// Rule is something that a censor does to what crosses a border. Make one by its function.
type Rule struct {
	Kind   string
	Values []string
	Bytes  int
}

// Kinds of rules, as they stand in verdicts.
const (
	dropStrings    = "strings dropped"
	resetStrings   = "strings reset"
	libp2pTLS      = "libp2p in TLS"
	libp2pQUIC     = "libp2p in QUIC"
	stun           = "STUN"
	sni            = "SNI"
	poisonDNS      = "DNS poisoned"
	blockIP        = "address"
	fullyEncrypted = "fully encrypted"
	allowlist      = "allowlist"
	noUDP          = "UDP off"
	probe          = "probed"
	freeze         = "frozen"
	throttle       = "throttled"
	cutBorder      = "border cut"
	cutAll         = "all cut"
)

// DropStrings drops TCP flows from the segment on that completes one of the patterns in the first 4 kB of a direction.
func DropStrings(patterns ...string) Rule { return Rule{Kind: dropStrings, Values: patterns} }

// ResetStrings does so with a RST to both ends, as the GFW does to plain HTTP.
func ResetStrings(patterns ...string) Rule { return Rule{Kind: resetStrings, Values: patterns} }

// BlockLibp2pTLS drops TLS whose ClientHello offers libp2p by ALPN.
func BlockLibp2pTLS() Rule { return Rule{Kind: libp2pTLS} }

// BlockLibp2pQUIC decrypts QUIC Initials and drops flows that offer libp2p by ALPN, or HTTP/3 without a name.
func BlockLibp2pQUIC() Rule { return Rule{Kind: libp2pQUIC} }

// BlockSTUN drops UDP flows with STUN messages whose user name begins as WebRTC's do in libp2p.
func BlockSTUN() Rule { return Rule{Kind: stun, Values: []string{"libp2p+webrtc"}} }

// BlockSNI drops TLS and QUIC to these names and those under them.
func BlockSNI(names ...string) Rule { return Rule{Kind: sni, Values: names} }

// PoisonDNS answers queries for these names, and those under them, with a false address before the true answer comes,
// which is dropped.
func PoisonDNS(answer string, names ...string) Rule {
	return Rule{Kind: poisonDNS, Values: append([]string{answer}, names...)}
}

// BlockIP drops packets to and from addresses, prefixes (CIDR), or TCP and UDP places (IP:PORT).
func BlockIP(places ...string) Rule { return Rule{Kind: blockIP, Values: places} }

// FullyEncrypted is the GFW's rule of 2021 to 2023 (Wu et al., USENIX Security 2023): it looks at the first payload of
// a TCP client, and drops everything between client, server and port for 180 s.
func FullyEncrypted() Rule { return Rule{Kind: fullyEncrypted} }

// Allowlist lets through ports 53, 80 and 443 only, and only DNS, HTTP and TLS on them (Iran, 2020; the lab drops the
// other ports too).
func Allowlist() Rule { return Rule{Kind: allowlist} }

// NoUDP drops UDP but for port 53.
func NoUDP() Rule { return Rule{Kind: noUDP} }

// Probe has every TCP server that somebody inside has reached visited by the censor: silently, with a TLS hello that
// offers libp2p, and with a web socket. One that answers as libp2p is blocked from then on, flows that exist included.
func Probe() Rule { return Rule{Kind: probe} }

// Freeze lets a TCP server send n bytes on a connection and drops all further packets of it (Russia, 2025).
func Freeze(n int) Rule { return Rule{Kind: freeze, Bytes: n} }

// Throttle lets bytesPerSecond cross each way, in all.
func Throttle(bytesPerSecond int) Rule { return Rule{Kind: throttle, Bytes: bytesPerSecond} }

// CutBorder lets nothing cross between countries.
func CutBorder() Rule { return Rule{Kind: cutBorder} }

// CutAll lets nothing cross between links.
func CutAll() Rule { return Rule{Kind: cutAll} }

// Flow is one line of the log of what crossed a border, or was said to all of a link.
type Flow struct {
	Start    time.Time `json:"start"`
	Proto    string    `json:"proto"` // "tcp", "udp", "icmp"
	Client   string    `json:"client"`
	Server   string    `json:"server"`
	Up, Down int       // bytes of payload each way
	Packets  int       `json:"packets"`
	Verdict  string    `json:"verdict"` // "" when nothing was done to it
}
