package lab

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"
)

// hello is what a censor reads of a TLS ClientHello (RFC 8446).
type hello struct {
	name string // "" without SNI
	alpn []string
}

// cursor reads a message; everything is zero once it is cut off.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) take(n int) []byte {
	if n < 0 || n > len(c.b) {
		c.b, c.bad = nil, true
		return make([]byte, max(0, min(n, 8)))
	}
	v := c.b[:n]
	c.b = c.b[n:]
	return v
}

func (c *cursor) uint(bytes int) int {
	n := 0
	for _, b := range c.take(bytes) {
		n = n<<8 | int(b)
	}
	return n
}

// part is the next element with a length of so many bytes before it.
func (c *cursor) part(bytes int) cursor {
	n := c.uint(bytes)
	if n > len(c.b) {
		c.b, c.bad = nil, true
		return cursor{bad: true}
	}
	return cursor{b: c.take(n)}
}

// readHello reads a handshake message; ok is false while it is not whole or when it is none.
func readHello(handshake []byte) (h hello, ok bool) {
	c := cursor{b: handshake}
	if c.uint(1) != 1 {
		return h, false
	}
	m := c.part(3)
	m.take(2 + 32)
	m.part(1)
	m.part(2)
	m.part(1)
	extensions := m.part(2)
	if m.bad || c.bad {
		return h, false
	}
	for len(extensions.b) > 0 && !extensions.bad {
		kind, body := extensions.uint(2), extensions.part(2)
		switch kind {
		case 0:
			list := body.part(2)
			if list.uint(1) == 0 {
				name := list.part(2)
				h.name = strings.ToLower(string(name.b))
			}
		case 16:
			for list := body.part(2); len(list.b) > 0 && !list.bad; {
				p := list.part(1)
				h.alpn = append(h.alpn, string(p.b))
			}
		}
	}
	return h, !extensions.bad
}

// helloInTLS reads the ClientHello at the begin of a TCP stream. more says that it may be whole later.
func helloInTLS(stream []byte) (h hello, ok, more bool) {
	var handshake []byte
	for len(stream) >= 5 && stream[0] == 22 && stream[1] == 3 {
		n := int(binary.BigEndian.Uint16(stream[3:]))
		if 5+n > len(stream) {
			return h, false, true
		}
		handshake = append(handshake, stream[5:5+n]...)
		if h, ok := readHello(handshake); ok {
			return h, true, false
		}
		stream = stream[5+n:]
	}
	return h, false, len(stream) < 5
}

func (h hello) libp2p() bool {
	return slices.Contains(h.alpn, "libp2p") || slices.Contains(h.alpn, "/yamux/1.0.0")
}

func under(name string, list []string) bool {
	return slices.ContainsFunc(list, func(n string) bool { return name == n || strings.HasSuffix(name, "."+n) })
}

// quicCrypto collects the CRYPTO frames of a client's Initials, whose keys anybody can derive (RFC 9001, section 5.2).
type quicCrypto struct {
	connID []byte
	got    map[int][]byte
}

var quicV1Salt = []byte{0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc, 0xbb, 0x7f, 0x0a}

// add takes a datagram of the client's and returns its hello once that is whole.
func (q *quicCrypto) add(datagram []byte) (h hello, ok bool) {
	c := cursor{b: datagram}
	first := c.uint(1)
	if first&0xf0 != 0xc0 || c.uint(4) != 1 { // a long header, Initial, version 1
		return h, false
	}
	dest := c.part(1)
	c.part(1)
	token := c.varint()
	c.take(token)
	length := c.varint()
	if c.bad || length > len(c.b) || length < 20 {
		return h, false
	}
	if q.got == nil {
		q.connID, q.got = slices.Clone(dest.b), map[int][]byte{}
	}
	frames, ok := openInitial(q.connID, datagram[:len(datagram)-len(c.b)+length], len(datagram)-len(c.b))
	if !ok {
		return h, false
	}
	q.frames(frames)
	var stream []byte
	for part := q.got[len(stream)]; len(part) > 0; part = q.got[len(stream)] {
		stream = append(stream, part...)
	}
	return readHello(stream)
}

func (c *cursor) varint() int {
	if len(c.b) == 0 {
		c.bad = true
		return 0
	}
	size := 1 << (c.b[0] >> 6)
	return c.uint(size) & (1<<(8*size-2) - 1)
}

const maxCryptoFrames = 64

// frames keeps the CRYPTO frames among PADDING and PING (RFC 9000, section 19); anything else ends it.
func (q *quicCrypto) frames(b []byte) {
	for c := (cursor{b: b}); len(c.b) > 0 && !c.bad; {
		switch c.uint(1) {
		case 0, 1:
		case 6:
			offset, size := c.varint(), c.varint()
			if part := c.take(size); !c.bad && len(q.got) < maxCryptoFrames && len(part) == size {
				q.got[offset] = slices.Clone(part)
			}
		default:
			return
		}
	}
}

// openInitial removes the protection of one Initial packet whose packet number is at the given place.
func openInitial(connID, packet []byte, at int) ([]byte, bool) {
	if len(packet) < at+4+16 {
		return nil, false
	}
	key, iv, hp := initialKeys(connID)
	mask := make([]byte, 16)
	hp.Encrypt(mask, packet[at+4:at+20])
	head := slices.Clone(packet[:at+4])
	head[0] ^= mask[0] & 0x0f
	size := int(head[0]&3) + 1
	number := 0
	for i := range size {
		head[at+i] ^= mask[1+i]
		number = number<<8 | int(head[at+i])
	}
	for i := range 4 {
		iv[len(iv)-1-i] ^= byte(number >> (8 * i))
	}
	plain, err := key.Open(nil, iv, packet[at+size:], head[:at+size])
	return plain, err == nil
}

func initialKeys(connID []byte) (key cipher.AEAD, iv []byte, hp cipher.Block) {
	initial, err := hkdf.Extract(sha256.New, connID, quicV1Salt)
	must(err)
	client := expandLabel(initial, "client in", 32)
	block, err := aes.NewCipher(expandLabel(client, "quic key", 16))
	must(err)
	key, err = cipher.NewGCM(block)
	must(err)
	hp, err = aes.NewCipher(expandLabel(client, "quic hp", 16))
	must(err)
	return key, expandLabel(client, "quic iv", 12), hp
}

func expandLabel(secret []byte, label string, size int) []byte {
	label = "tls13 " + label
	info := append([]byte{byte(size >> 8), byte(size), byte(len(label))}, label...)
	out, err := hkdf.Expand(sha256.New, secret, string(append(info, 0)), size)
	must(err)
	return out
}

// must is for errors that only wrong sizes of ours could bring.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
