package api

import (
	"bufio"
	"net"
	"sync"
)

// listener accepts connections whose writes can be held back, so that many small websocket frames leave in one system
// call. Whom refuse names is cut off without a byte.
type listener struct {
	net.Listener
	refuse func(net.Conn) bool
}

func (l listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if !l.refuse(c) {
			if t, ok := c.(*net.TCPConn); ok {
				_ = t.SetReadBuffer(readBuffer) // a wish: else megabytes of a bundle are sent before any is imported
			}
			return &corkConn{Conn: c}, nil
		}
		c.Close()
	}
}

// corkConn writes at once unless it is corked. Only the one goroutine that writes may cork it; the one that reads
// writes too, when the websocket answers pings and closes.
type corkConn struct {
	net.Conn
	mu     sync.Mutex    // guards the fields below
	buf    *bufio.Writer // made with the first cork
	corked bool
}

const readBuffer = 256 << 10 // bytes that a client may be ahead

const corkBuffer = 16 << 10 // bytes; a full buffer leaves by itself

func (c *corkConn) cork() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.buf == nil {
		c.buf = bufio.NewWriterSize(c.Conn, corkBuffer)
	}
	c.corked = true
}

// uncork writes what was held back.
func (c *corkConn) uncork() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked = false
	return c.buf.Flush()
}

func (c *corkConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.corked {
		return c.buf.Write(b)
	}
	return c.Conn.Write(b)
}
