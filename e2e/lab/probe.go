package lab

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"time"
)

// greeting is how everything that speaks libp2p over a stream begins.
var greeting = []byte("/multistream/1.0.0")

const probeTime = 3 * time.Second

// speaksLibp2p visits a server as a censor's prober does: it says nothing, it offers libp2p in a TLS hello, and it
// opens a web socket.
func speaksLibp2p(server string) bool {
	return greets(server, nil) || offers(server) || greets(server, []byte(fmt.Sprintf("GET / HTTP/1.1\r\nHost: %s\r\n"+
		"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", server)))
}

// greets sends something and reports whether libp2p's greeting comes.
func greets(server string, say []byte) bool {
	conn, err := net.DialTimeout("tcp", server, probeTime)
	if err != nil {
		return false
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(probeTime))
	conn.Write(say)
	heard, _ := io.ReadAll(io.LimitReader(conn, 1024))
	return bytes.Contains(heard, greeting)
}

// offers reports whether a server takes libp2p from a TLS hello.
func offers(server string) bool {
	conn, err := net.DialTimeout("tcp", server, probeTime)
	if err != nil {
		return false
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(probeTime))
	t := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"/yamux/1.0.0", "libp2p"}})
	t.Handshake() // which a libp2p server ends for want of a certificate, after it has chosen
	p := t.ConnectionState().NegotiatedProtocol
	return p == "libp2p" || p == "/yamux/1.0.0"
}
