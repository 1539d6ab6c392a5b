package lab

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"testing"
	"time"
)

// initialKeyID is the connection id of RFC 9001, appendix A.
const initialKeyID = "8394c8f03e515708"

func TestInitialKeysAreThoseOfTheRFC(t *testing.T) {
	id, err := hex.DecodeString(initialKeyID)
	must(err)
	_, iv, hp := initialKeys(id)
	if got := hex.EncodeToString(iv); got != "fa044b2f42a3fd3b46fb255c" {
		t.Errorf("iv = %s", got)
	}
	sample, err := hex.DecodeString("d1b1c98dd7689fb8ec11d242b123dc9b")
	must(err)
	mask := make([]byte, 16)
	hp.Encrypt(mask, sample)
	if got := hex.EncodeToString(mask[:5]); got != "437b9aec36" {
		t.Errorf("mask = %s", got)
	}
}

func tcpPacket(flags byte, payload string) []byte {
	head := make([]byte, 20)
	head[1], head[3], head[12], head[13] = 1, 2, 5<<4, flags
	return ipv4(netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.2.0.1"), protoTCP, append(head, payload...), 16)
}

// FuzzPacket lets a censor with every rule look at two copies of whatever comes.
func FuzzPacket(f *testing.F) {
	f.Add(tcpPacket(flagSYN, ""))
	f.Add(tcpPacket(flagACK, "GET / HTTP/1.1"))
	f.Add(tcpPacket(flagACK, "\x16\x03\x01\x00\x05\x01\x00\x00\x01x"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, ok := parsePacket(raw)
		if !ok {
			return
		}
		c := newCensor(time.Now)
		c.set([]Rule{ResetStrings("x"), BlockLibp2pTLS(), BlockLibp2pQUIC(), BlockSTUN(), BlockSNI("x"), PoisonDNS("10.0.0.1", "x"),
			BlockIP("192.0.2.0/24"), FullyEncrypted(), Probe(), Freeze(1), Throttle(1000), Allowlist(), NoUDP()})
		for range 2 {
			for _, forged := range c.judge(p, true).forged {
				if q, ok := parsePacket(forged); !ok || checksum(q.ip[:20], 0) != 0 {
					t.Errorf("forged %x", forged)
				}
			}
		}
	})
}

// FuzzHello reads TLS streams and QUIC datagrams.
func FuzzHello(f *testing.F) {
	f.Add([]byte("\x16\x03\x01\x00\x05\x01\x00\x00\x01x"))
	f.Add(append([]byte("\xc0\x00\x00\x00\x01\x08\x83\x94\xc8\xf0\x3e\x51\x57\x08\x00\x00\x40\x40"), bytes.Repeat([]byte{7}, 64)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, ok, more := helloInTLS(b); ok && more {
			t.Errorf("%v is whole and is not", h)
		}
		var q quicCrypto
		q.add(b)
		q = quicCrypto{got: map[int][]byte{}} // as after a packet that could be opened
		q.frames(b)
		readHello(b)
	})
}
