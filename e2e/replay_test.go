//go:build linux

package e2e

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
)

// segment is TCP's, with payload.
type segment struct {
	src, dst netip.AddrPort
	seq      uint32
	payload  []byte
}

// captured is the IPv4 packets of a capture file.
func captured(t *testing.T, file string) (packets [][]byte) {
	t.Helper()
	for raw := read(t, file)[24:]; len(raw) > 16; {
		n := binary.LittleEndian.Uint32(raw[8:])
		packets = append(packets, raw[16:16+n])
		raw = raw[16+n:]
	}
	return packets
}

// segments are the TCP segments of a capture file.
func segments(t *testing.T, file string) (all []segment) {
	t.Helper()
	for _, ip := range captured(t, file) {
		tcp := ip[int(ip[0]&15)*4:]
		if ip[9] != 6 || len(tcp) < 20 {
			continue
		}
		place := func(addr []byte, port []byte) netip.AddrPort {
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte(addr)), binary.BigEndian.Uint16(port))
		}
		s := segment{src: place(ip[12:16], tcp), dst: place(ip[16:20], tcp[2:]), seq: binary.BigEndian.Uint32(tcp[4:])}
		if s.payload = tcp[int(tcp[12]>>4)*4:]; len(s.payload) > 0 {
			all = append(all, s)
		}
	}
	return all
}

// flights is what the first client of a server said until it was answered, and what until it was answered again.
func flights(t *testing.T, all []segment, server netip.AddrPort) (said [][]byte) {
	t.Helper()
	first := slices.IndexFunc(all, func(s segment) bool { return s.dst == server })
	if first < 0 {
		t.Fatalf("no connection to %s was captured", server)
	}
	client, next, answered := all[first].src, all[first].seq, true
	for _, s := range all[first:] {
		switch {
		case s.src == server && s.dst == client:
			answered = true
		case s.src == client && s.dst == server && s.seq == next: // not sent again
			next += uint32(len(s.payload))
			if answered {
				said = append(said, nil)
			}
			answered = false
			said[len(said)-1] = append(said[len(said)-1], s.payload...)
		}
	}
	if len(said) < 2 {
		t.Fatalf("the connection to %s has %d flights, want at least 2", server, len(said))
	}
	return said[:2]
}

// replays are what a prober tries that has seen a member's connection.
func replays(said [][]byte) []visit {
	first, second := said[0], said[1]
	return []visit{
		{Name: "replay of the first flight", Say: [][]byte{first}},
		{Name: "replay byte by byte", Say: slices.Collect(slices.Chunk(first, 1))},
		{Name: "replay of the first half", Say: [][]byte{first[:len(first)/2]}},
		{Name: "replay without the end", Say: [][]byte{first[:len(first)-1]}},
		{Name: "replay with a bit changed", Say: [][]byte{changed(first)}},
		{Name: "replay of two flights", Say: [][]byte{first, second}},
		{Name: "replay and garbage", Say: [][]byte{first, []byte("\x17\x03\x03\x00\x20garbage garbage garbage garbage!")}},
	}
}

// changed is a flight with one bit changed that is, in a TLS hello, of the session id.
func changed(flight []byte) []byte {
	b := slices.Clone(flight)
	b[50] ^= 1
	return b
}
