package node

import (
	"fmt"
	"slices"

	"github.com/dustin/go-humanize"

	"openline/node/api"
	"openline/node/carrier"
)

// Codes of what the doctor finds to be in the way, the widest first. They are stable: scripts read them.
const (
	foundNobody    = "nobody-known"
	foundNoTor     = "no-tor"
	foundTorFails  = "tor-fails"
	foundCutAll    = "cut-all"
	foundCutAbroad = "cut-abroad"
	foundDNS       = "dns-poisoned"
	foundDNSSilent = "dns-silent"
	foundResolver  = "resolver-blocked"
	foundPorts     = "ports"
	foundUDP       = "udp-off"
	foundAddress   = "address-blocked"
	foundLibp2p    = "libp2p-recognised"
	foundRandom    = "random-recognised"
	foundName      = "name-blocked"
	foundHello     = "hello-cut"
	foundFrozen    = "frozen"
	foundSlow      = "slow"
	foundClosed    = "closed"
	foundNotLetIn  = "not-let-in"
	foundNoProgram = "no-program"
	foundNoName    = "no-name"
)

// slow is a rate, in bytes a second, at which a page of notes takes longer than people wait.
const slow = 4000

// evidence is what the doctor has seen.
type evidence struct {
	mode      carrier.Mode
	known     int
	peers     [][]visit
	resolvers []api.ResolverCheck
	names     []api.NameCheck
}

func (e evidence) visits() []visit { return slices.Concat(e.peers...) }

// reached counts peers that could be reached somehow.
func (e evidence) reached() (n int) {
	for _, p := range e.peers {
		if slices.ContainsFunc(p, func(v visit) bool { return v.worked }) {
			n++
		}
	}
	return n
}

// carriers says how each carrier did.
func (e evidence) carriers(allowed func(string) bool) []api.CarrierCheck {
	var checks []api.CarrierCheck
	for _, name := range carrier.Names() {
		if name == carrier.Relay {
			continue
		}
		c := api.CarrierCheck{Carrier: name, Allowed: allowed(name)}
		for _, v := range e.visits() {
			if v.carrier != name {
				continue
			}
			c.Tried++
			if v.worked {
				c.Worked++
				c.Rate = max(c.Rate, v.rate)
				if ms := max(1, v.took.Milliseconds()); c.Millis == 0 || ms < c.Millis {
					c.Millis = ms
				}
			}
			if code := found(v); code != "" && c.Cause == "" {
				c.Cause, c.Text = code, words(code)
			}
		}
		checks = append(checks, c)
	}
	return checks
}

// found is what one visit says, "" when nothing is wrong. That a whole host is silent can mean more than one thing.
func found(v visit) string {
	if v.worked {
		switch {
		case v.frozen:
			return foundFrozen
		case v.rate < slow:
			return foundSlow
		}
		return ""
	}
	switch v.cause {
	case carrier.Silent, carrier.NoRoute:
		return foundAddress
	case carrier.PortSilent:
		return foundPorts
	case carrier.UDPSilent:
		return foundUDP
	case carrier.Recognised:
		return foundLibp2p
	case carrier.LooksRandom:
		return foundRandom
	case carrier.NameBlocked:
		return foundName
	case carrier.HelloCut:
		return foundHello
	case carrier.Closed:
		return foundClosed
	case carrier.NotLetIn:
		return foundNotLetIn
	case carrier.NoProgram:
		return foundNoProgram
	case carrier.NoName:
		return foundNoName
	case carrier.NoTor:
		return foundNoTor
	case carrier.TorFails:
		return foundTorFails
	}
	return ""
}

// verdict puts together what single visits cannot tell, and says what to do.
func (e evidence) verdict() ([]api.Cause, []string) {
	codes := map[string]bool{}
	for _, v := range e.visits() {
		codes[found(v)] = true
	}
	if codes[foundAddress] {
		delete(codes, foundAddress)
		codes[e.silence()] = true
	}
	if e.known == 0 {
		codes[foundNobody] = true
		codes[foundCutAll] = len(e.resolvers) > 0 && e.silence() == foundCutAll
	}
	for _, n := range e.names {
		codes[foundDNS] = codes[foundDNS] || n.Clear == api.NameFalse
		codes[foundDNSSilent] = codes[foundDNSSilent] || n.Clear == api.NameSilent
	}
	cut := codes[foundCutAll] || codes[foundCutAbroad] || codes[foundNoTor]
	codes[foundResolver] = !cut && slices.ContainsFunc(e.resolvers, func(r api.ResolverCheck) bool { return !r.Works })
	codes[foundDNSSilent] = codes[foundDNSSilent] && !cut
	causes := []api.Cause{}
	for _, code := range widestFirst() {
		if codes[code] {
			causes = append(causes, api.Cause{Code: code, Text: words(code)})
		}
	}
	return causes, e.next(causes)
}

// silence says what it means that hosts say nothing: whether others do, near and far, tells. Resolvers stand for the
// world outside, for there are few that can afford to block them all.
func (e evidence) silence() string {
	answered := slices.ContainsFunc(e.visits(), func(v visit) bool {
		switch v.cause {
		case "":
			return v.worked && !v.local
		case carrier.Silent, carrier.NoRoute, carrier.NoName, carrier.NoProgram, carrier.NoTor:
			return false
		}
		return !v.local
	})
	far := slices.ContainsFunc(e.resolvers, func(r api.ResolverCheck) bool { return r.Works })
	switch {
	case !answered && !far:
		return foundCutAll
	case answered && !far && len(e.resolvers) > 0:
		return foundCutAbroad
	}
	return foundAddress
}

func widestFirst() []string {
	return []string{foundNobody, foundNoTor, foundTorFails, foundCutAll, foundCutAbroad, foundDNS, foundDNSSilent, foundResolver, foundPorts,
		foundUDP, foundAddress, foundLibp2p, foundRandom, foundName, foundHello, foundFrozen, foundSlow, foundNotLetIn, foundClosed, foundNoProgram, foundNoName}
}

// words says in plain words what a code means.
func words(code string) string {
	switch code {
	case foundNobody:
		return "No other node is known yet."
	case foundNoTor:
		return "Tor does not run on this machine, or not where it is looked for."
	case foundTorFails:
		return "Tor runs, but does not get through to the nodes that are known."
	case foundCutAll:
		return "Nothing outside of this local network answers: the line is cut, or this machine is not online."
	case foundCutAbroad:
		return "Some nodes answer, and others do not, nor does any resolver abroad: connections abroad are cut, or much of what is there is blocked."
	case foundDNS:
		return "Names are answered falsely: somebody on the line sends wrong addresses (DNS poisoning). Openline asks over HTTPS instead."
	case foundDNSSilent:
		return "Questions for names get no answer (DNS is blocked). Openline asks over HTTPS instead."
	case foundResolver:
		return "A resolver over HTTPS is blocked."
	case foundPorts:
		return "Only some ports pass, such as 443 of the web; other ports of the same hosts are silent."
	case foundUDP:
		return "UDP does not pass, so QUIC cannot work. TCP does."
	case foundAddress:
		return "Addresses of known nodes are blocked, or those nodes are switched off: nothing of them answers, while others do."
	case foundLibp2p:
		return "Connections are cut after their first bytes, which show what this program is (libp2p). Disguised carriers are for that."
	case foundRandom:
		return "Connections that look like random bytes are cut (as China's censor does to obfs4 and others)."
	case foundName:
		return "Connections that name a certain web site are cut (SNI filtering); to the same place under no name they pass."
	case foundHello:
		return "Connections that begin as the web's do (TLS) are cut at their first bytes, whatever the name."
	case foundFrozen:
		return "Connections freeze after some kilobytes (as Russia's censor does). Openline connects again and goes on where it was."
	case foundSlow:
		return fmt.Sprintf("The line is very slow: under %s a second.", humanize.Bytes(slow))
	case foundNotLetIn:
		return "A bridge answers, and does not let this node in: the invite is used up, has expired or was revoked."
	case foundClosed:
		return "A known node's machine answers that nobody listens there any more."
	case foundNoProgram:
		return "A pluggable transport's program is missing on this machine."
	case foundNoName:
		return "The name of a known node's host could not be looked up."
	}
	return ""
}

// next says what to do.
func (e evidence) next(causes []api.Cause) []string {
	has := func(code string) bool {
		return slices.ContainsFunc(causes, func(c api.Cause) bool { return c.Code == code })
	}
	next := []string{}
	say := func(when bool, what string) {
		if when {
			next = append(next, what)
		}
	}
	reached := e.reached() > 0
	say(len(causes) == 0, "Nothing: everything that was tried works.")
	say(len(causes) > 0 && reached, "Nothing at once: what is blocked is passed over, and this node is connected by what works.")
	say(has(foundNobody), "Ask somebody you trust for an invite, then: openline join LINK")
	say(has(foundNoTor), "Start Tor, or say where it listens with --tor HOST:PORT.")
	say(has(foundTorFails), "Wait a few minutes; if Tor itself is blocked here, give it bridges of its own.")
	say(has(foundCutAll), "Leave the daemon running: it connects by itself when the line is back. Meanwhile nodes on this local network find each other, and openline bundle export writes notes to carry by hand.")
	say(has(foundCutAbroad), "Stay connected to the nodes near by: notes travel between them, and go abroad as soon as one way opens. Invites to nodes in this country help the most.")
	say(!reached && (has(foundLibp2p) || has(foundUDP) || has(foundPorts)), "Ask for an invite to a bridge: bridges look like ordinary web sites on port 443.")
	say(!reached && has(foundAddress), "Ask for an invite to another bridge or relay: these addresses are blocked.")
	say(has(foundName) || has(foundHello) && !reached, "Ask the bridge's keeper for one under another name (--listen …/sni/NAME/…).")
	say(has(foundNotLetIn), "Ask for a new invite.")
	say(has(foundNoProgram), "Install it (Debian: obfs4proxy), or name it with --pt NAME=PROGRAM.")
	say(has(foundClosed) && !reached, "Ask its keeper where it is now, or somebody else for an invite.")
	say(has(foundResolver) && !reached && len(e.names) > 0, "Name another resolver with --resolver URL.")
	say(has(foundLibp2p) && e.mode == carrier.Open, "If being recognised is dangerous where you are, run openline daemon --mode careful: then only disguised carriers are used.")
	return next
}
