package lab

import (
	"encoding/binary"
	"net/netip"
)

// packet is an IPv4 packet that has been looked at; its slices are of the frame.
type packet struct {
	ip       []byte // the whole of it
	src, dst netip.AddrPort
	proto    byte
	header   []byte // of TCP or UDP
	payload  []byte
}

const (
	protoTCP byte = 6
	protoUDP byte = 17

	flagFIN byte = 1
	flagSYN byte = 2
	flagRST byte = 4
	flagACK byte = 16
)

// parsePacket reads an IPv4 packet; ok is false for anything that is none, or is cut off.
func parsePacket(b []byte) (p packet, ok bool) {
	if len(b) < 20 || b[0]>>4 != 4 {
		return p, false
	}
	head, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	if head < 20 || total < head || total > len(b) {
		return p, false
	}
	p.ip, p.proto = b[:total], b[9]
	src, dst := netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	p.src, p.dst = netip.AddrPortFrom(src, 0), netip.AddrPortFrom(dst, 0)
	body := p.ip[head:]
	size := 0
	switch {
	case p.proto == protoTCP && len(body) >= 20:
		size = int(body[12]>>4) * 4
	case p.proto == protoUDP && len(body) >= 8:
		size = 8
	default:
		p.payload = body
		return p, p.proto != protoTCP && p.proto != protoUDP
	}
	if size < 8 || p.proto == protoTCP && size < 20 || size > len(body) {
		return p, false
	}
	p.header, p.payload = body[:size], body[size:]
	p.src = netip.AddrPortFrom(src, binary.BigEndian.Uint16(body))
	p.dst = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(body[2:]))
	return p, true
}

func (p packet) flags() byte {
	if p.proto != protoTCP {
		return 0
	}
	return p.header[13]
}

func (p packet) seq() uint32 { return binary.BigEndian.Uint32(p.header[4:]) }
func (p packet) ack() uint32 { return binary.BigEndian.Uint32(p.header[8:]) }

// reset makes the RST that p's sender would get, or with from the one that its receiver would.
func (p packet) reset(toSender bool) []byte {
	src, dst, seq := p.src, p.dst, p.seq()
	if toSender {
		src, dst, seq = p.dst, p.src, p.ack()
	}
	tcp := make([]byte, 20)
	binary.BigEndian.PutUint16(tcp, src.Port())
	binary.BigEndian.PutUint16(tcp[2:], dst.Port())
	binary.BigEndian.PutUint32(tcp[4:], seq)
	if toSender {
		binary.BigEndian.PutUint32(tcp[8:], p.seq()+uint32(len(p.payload)))
	} else {
		binary.BigEndian.PutUint32(tcp[8:], p.ack())
	}
	tcp[12], tcp[13] = 5<<4, flagRST|flagACK
	return ipv4(src.Addr(), dst.Addr(), protoTCP, tcp, 16)
}

// answerUDP makes the UDP packet that answers p with payload.
func (p packet) answerUDP(payload []byte) []byte {
	udp := make([]byte, 8+len(payload))
	binary.BigEndian.PutUint16(udp, p.dst.Port())
	binary.BigEndian.PutUint16(udp[2:], p.src.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	copy(udp[8:], payload)
	return ipv4(p.dst.Addr(), p.src.Addr(), protoUDP, udp, 6)
}

// ipv4 puts a header before body, whose checksum is at the given place.
func ipv4(src, dst netip.Addr, proto byte, body []byte, sumAt int) []byte {
	b := make([]byte, 20+len(body))
	b[0], b[8], b[9] = 0x45, 64, proto
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	copy(b[12:], src.AsSlice())
	copy(b[16:], dst.AsSlice())
	binary.BigEndian.PutUint16(b[10:], checksum(b[:20], 0))
	copy(b[20:], body)
	pseudo := uint32(proto) + uint32(len(body))
	for i := 12; i < 20; i += 2 {
		pseudo += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	sum := checksum(b[20:], pseudo)
	if proto == protoUDP && sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(b[20+sumAt:], sum)
	return b
}

// checksum is the Internet's (RFC 1071).
func checksum(b []byte, sum uint32) uint16 {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
