package protocol

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strings"
)

// listVector is one case of lists.json, as SPEC.md section 17 describes it. Without a network it is to be refused.
type listVector struct {
	Name    string             `json:"name"`
	Text    string             `json:"text"`
	From    string             `json:"from_hex,omitempty"`
	Network string             `json:"network,omitempty"`
	Version uint64             `json:"version,omitempty"`
	Expires int64              `json:"expires,omitempty"`
	Peers   []inviteVectorPeer `json:"peers,omitempty"`
}

// listParts are the fields of a list but the signature, in their order, written by the few lines that write envelopes.
type listParts [][]byte

const (
	partFrom = iota
	partNetwork
	partVersion
	partExpires
	partPeer
)

// plainList is two peers: one that takes a token, one that does not.
func plainList() (listParts, listVector) {
	from := hex.EncodeToString(inviteKey().Public().(ed25519.PublicKey))
	want := listVector{From: from, Network: "main", Version: 1_790_000_000, Expires: 1_800_000_000, Peers: []inviteVectorPeer{
		{Key: strings.Repeat("01", 32), Addrs: []string{"04c00002010601bb", "04c00002020601bb"}, Token: strings.Repeat("aa", 16)},
		{Key: strings.Repeat("02", 32), Addrs: []string{"04c00002030601bb"}},
	}}
	parts := listParts{pbBytes(1, unhexed(from)), pbText(2, want.Network), pbUint(3, want.Version), pbUint(4, uint64(want.Expires))}
	for _, p := range want.Peers {
		parts = append(parts, plainPeer(p))
	}
	return parts, want
}

func plainPeer(p inviteVectorPeer) []byte {
	inner := pbBytes(1, unhexed(p.Key))
	for _, a := range p.Addrs {
		inner = append(inner, pbBytes(2, unhexed(a))...)
	}
	if p.Token != "" {
		inner = append(inner, pbBytes(3, unhexed(p.Token))...)
	}
	return pbBytes(5, inner)
}

// with returns the parts with one of them replaced, or left out.
func (p listParts) with(part int, instead ...[]byte) listParts {
	return slices.Replace(slices.Clone(p), part, part+1, instead...)
}

// signedAs is the message with a signature over it under a domain.
func (p listParts) signedAs(domain string) []byte {
	body := slices.Concat(p...)
	sig := ed25519.Sign(inviteKey(), append([]byte(domain+"\x00"), body...))
	return append(body, pbBytes(6, sig)...)
}

func (p listParts) text() string { return listText(p.signedAs("openline list 1")) }

func listText(raw []byte) string {
	return "openline:list?" + base64.RawURLEncoding.EncodeToString(raw)
}

func listCases() []listVector {
	whole, want := plainList()
	text := whole.text()
	is := func(name, text string, v listVector) listVector {
		v.Name, v.Text = name, text
		return v
	}
	most := want
	most.Peers = slices.Repeat(want.Peers[1:], MaxListPeers)
	cases := []listVector{
		is("two relays, one with a token", text, want),
		is("a heading and lines that are broken", "# Relays of example.org\r\n\n"+text[:50]+"\r\n\t"+text[50:]+"\n # end\n", want),
		is("a comment in the middle", text[:70]+"\n# openline:list?AAAA\n"+text[70:], want),
		is("256 peers", append(whole[:partPeer:partPeer], slices.Repeat(whole[partPeer+1:], MaxListPeers)...).text(), most),
	}
	later := want
	later.Version, later.Expires = 1<<53-1, 1<<53-1
	cases = append(cases, is("the greatest version and expiry",
		whole.with(partVersion, pbUint(3, later.Version)).with(partExpires, pbUint(4, uint64(later.Expires))).text(), later))
	return slices.Concat(cases, listFieldCases(whole), listTextCases(whole))
}

// listFieldCases are all signed; what they say is to be refused.
func listFieldCases(whole listParts) []listVector {
	peer := func(addrs ...string) []byte {
		return plainPeer(inviteVectorPeer{Key: strings.Repeat("01", 32), Addrs: addrs})
	}
	addr := "04c00002010601bb"
	var cases []listVector
	for _, c := range []struct {
		name  string
		parts listParts
	}{
		{"version 0, left out", whole.with(partVersion)},
		{"version 0, written down", whole.with(partVersion, pbUint(3, 0))},
		{"version 2^53", whole.with(partVersion, pbUint(3, 1<<53))},
		{"no expiry", whole.with(partExpires)},
		{"expiry 2^63", whole.with(partExpires, pbUint(4, 1<<63))},
		{"no network", whole.with(partNetwork)},
		{"an empty network", whole.with(partNetwork, pbText(2, ""))},
		{"a network of 65 bytes", whole.with(partNetwork, pbText(2, strings.Repeat("n", 65)))},
		{"a network that is not UTF-8", whole.with(partNetwork, pbText(2, "\xff"))},
		{"no operator", whole.with(partFrom)},
		{"no peers", whole[:partPeer]},
		{"257 peers", append(whole[:partPeer:partPeer], slices.Repeat(whole[partPeer:partPeer+1], MaxListPeers+1)...)},
		{"a peer without an address", whole.with(partPeer, peer())},
		{"a peer with seven addresses", whole.with(partPeer, peer(slices.Repeat([]string{addr}, 7)...))},
		{"an address of 513 bytes", whole.with(partPeer, peer(strings.Repeat("00", 513)))},
		{"an empty address", whole.with(partPeer, peer(""))},
		{"a token of 15 bytes", whole.with(partPeer, pbBytes(5, slices.Concat(pbBytes(1, make([]byte, 32)), pbBytes(2, unhexed(addr)), pbBytes(3, make([]byte, 15)))))},
		{"not one encoding: fields in another order", listParts{whole[1], whole[0], whole[2], whole[3], whole[4]}},
		{"not one encoding: the version twice", slices.Insert(slices.Clone(whole), partExpires, whole[partVersion])},
		{"not one encoding: a varint that is too long", whole.with(partVersion, []byte{3 << 3, 0x85, 0x80, 0x00})},
		{"an unknown field", append(slices.Clone(whole), pbUint(7, 1))},
	} {
		cases = append(cases, listVector{Name: c.name, Text: c.parts.text()})
	}
	return cases
}

// listTextCases are not signed as they should be, or not written down so.
func listTextCases(whole listParts) []listVector {
	raw := whole.signedAs("openline list 1")
	text := listText(raw)
	body := slices.Concat(whole...)
	other := bytes.Clone(raw)
	other[len(other)-1] ^= 1
	version := bytes.Clone(raw)
	version[bytes.Index(raw, whole[partVersion])+1] ^= 1
	return []listVector{
		{Name: "a wrong signature", Text: listText(other)},
		{Name: "another version than was signed", Text: listText(version)},
		{Name: "signed as an invite", Text: listText(whole.signedAs("openline invite 1"))},
		{Name: "no signature", Text: listText(body)},
		{Name: "fields after the signature", Text: listText(append(bytes.Clone(raw), whole[partPeer]...))},
		{Name: "another scheme", Text: "openline:join?" + strings.TrimPrefix(text, "openline:list?")},
		{Name: "cut off", Text: text[:len(text)-4]},
		{Name: "padded", Text: text + "="},
		{Name: "two lists", Text: text + "\n" + text},
		{Name: "a comment that is none", Text: "relays: # " + text},
		{Name: "comments alone", Text: "# " + text},
		{Name: "a web page", Text: "<html><body>404</body></html>"},
		{Name: "nothing in it", Text: "openline:list?"},
		{Name: "empty", Text: ""},
	}
}
