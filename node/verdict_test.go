package node

import (
	"slices"
	"testing"
	"time"

	"openline/node/api"
	"openline/node/carrier"
)

// good is a visit that went well.
func good(name string) visit {
	return visit{carrier: name, worked: true, took: 40 * time.Millisecond, rate: 100_000}
}

func bad(name string, cause carrier.Cause) visit { return visit{carrier: name, cause: cause} }

func near(v visit) visit {
	v.local = true
	return v
}

func TestVerdictNamesTheCause(t *testing.T) {
	works, blocked := api.ResolverCheck{Works: true}, api.ResolverCheck{}
	frozen := good("wss")
	frozen.frozen = true
	crawling := good("wss")
	crawling.rate = 900
	for _, c := range []struct {
		name      string
		peers     [][]visit
		resolvers []api.ResolverCheck
		names     []api.NameCheck
		want      []string
	}{
		{"all is well", [][]visit{{good("quic"), good("wss")}}, []api.ResolverCheck{works}, nil, nil},
		{"nobody is known", nil, []api.ResolverCheck{works}, nil, []string{foundNobody}},
		{"nobody is known, and nothing answers", nil, []api.ResolverCheck{blocked}, nil, []string{foundNobody, foundCutAll}},
		{"no Tor", [][]visit{{bad("tor", carrier.NoTor)}}, []api.ResolverCheck{blocked}, nil, []string{foundNoTor}},
		{"one host is silent", [][]visit{{bad("tcp", carrier.Silent)}, {good("tcp")}}, []api.ResolverCheck{works}, nil, []string{foundAddress}},
		{"every host is silent, and the world answers", [][]visit{{bad("tcp", carrier.Silent)}}, []api.ResolverCheck{blocked, works}, nil, []string{foundResolver, foundAddress}},
		{"only what is far is silent", [][]visit{{bad("tcp", carrier.Silent)}, {good("tcp")}}, []api.ResolverCheck{blocked}, nil, []string{foundCutAbroad}},
		{"only the neighbour answers", [][]visit{{bad("tcp", carrier.Silent), bad("quic", carrier.Silent)}, {near(good("tcp"))}}, []api.ResolverCheck{blocked}, nil, []string{foundCutAll}},
		{"this machine has no way out", [][]visit{{bad("tcp", carrier.NoRoute)}}, []api.ResolverCheck{blocked}, nil, []string{foundCutAll}},
		{"without resolvers nothing is said of abroad", [][]visit{{bad("tcp", carrier.Silent)}, {good("tcp")}}, nil, nil, []string{foundAddress}},
		{"UDP and libp2p", [][]visit{{bad("quic", carrier.UDPSilent), bad("tcp", carrier.Recognised), good("wss")}}, []api.ResolverCheck{works}, nil, []string{foundUDP, foundLibp2p}},
		{"ports", [][]visit{{good("wss"), bad("reality", carrier.PortSilent)}}, []api.ResolverCheck{works}, nil, []string{foundPorts}},
		{"names of sites", [][]visit{{bad("wss", carrier.NameBlocked), bad("pt", carrier.LooksRandom), good("reality")}}, []api.ResolverCheck{works}, nil, []string{foundRandom, foundName}},
		{"freeze", [][]visit{{frozen}}, []api.ResolverCheck{works}, nil, []string{foundFrozen}},
		{"slow", [][]visit{{crawling}}, []api.ResolverCheck{works}, nil, []string{foundSlow}},
		{"poisoned", [][]visit{{good("tcp")}}, []api.ResolverCheck{works}, []api.NameCheck{{Clear: api.NameTrue}, {Clear: api.NameFalse}}, []string{foundDNS}},
		{"in a cut no resolver answers either", [][]visit{{bad("tcp", carrier.Silent)}}, []api.ResolverCheck{blocked}, []api.NameCheck{{Clear: api.NameSilent}}, []string{foundCutAll}},
	} {
		e := evidence{mode: carrier.Open, known: len(c.peers), peers: c.peers, resolvers: c.resolvers, names: c.names}
		causes, next := e.verdict()
		var got []string
		for _, cause := range causes {
			got = append(got, cause.Code)
			if cause.Text == "" {
				t.Errorf("%s: no words for %s", c.name, cause.Code)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		if len(next) == 0 {
			t.Errorf("%s: nothing is said about what to do", c.name)
		}
	}
}

func TestEveryCodeHasWordsAndEveryCauseACode(t *testing.T) {
	for _, code := range widestFirst() {
		if words(code) == "" {
			t.Errorf("no words for %s", code)
		}
	}
	for _, cause := range []carrier.Cause{carrier.NoRoute, carrier.NoName, carrier.Silent, carrier.PortSilent, carrier.Closed, carrier.UDPSilent, carrier.Recognised,
		carrier.LooksRandom, carrier.NameBlocked, carrier.HelloCut, carrier.NotLetIn, carrier.NoProgram, carrier.NoTor, carrier.TorFails} {
		if code := found(visit{cause: cause}); !slices.Contains(widestFirst(), code) {
			t.Errorf("%s leads to %q, which is in no list", cause, code)
		}
	}
}

func TestCarriersOfTheDoctorAreThoseOfTheMode(t *testing.T) {
	e := evidence{peers: [][]visit{{good("wss"), bad("wss", carrier.NameBlocked)}, {bad("reality", carrier.Closed)}}}
	for _, c := range e.carriers(func(name string) bool { return name != "quic" }) {
		switch {
		case c.Carrier == "quic" && c.Allowed, c.Carrier == "relay":
			t.Errorf("%+v", c)
		case c.Carrier == "wss" && (c.Tried != 2 || c.Worked != 1 || c.Cause != foundName || c.Millis != 40 || c.Rate != 100_000):
			t.Errorf("%+v", c)
		case c.Carrier == "reality" && (c.Tried != 1 || c.Worked != 0 || c.Cause != foundClosed):
			t.Errorf("%+v", c)
		}
	}
}
