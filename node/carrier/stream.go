package carrier

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// stream makes a stream of the messages of a web socket (RFC 6455). One may read and one may write at a time; deadlines
// and Close may come from anywhere.
type stream struct {
	ws      *websocket.Conn
	message io.Reader // that is being read; nil between two

	mu sync.Mutex // one message is written at a time
}

// maxMessage is more than libp2p ever writes at once.
const maxMessage = 1 << 20

func newStream(ws *websocket.Conn) *stream {
	ws.SetReadLimit(maxMessage)
	return &stream{ws: ws}
}

func (s *stream) Read(b []byte) (int, error) {
	for {
		if s.message == nil {
			_, message, err := s.ws.NextReader()
			if websocket.IsCloseError(err, websocket.CloseNormalClosure, websocket.CloseNoStatusReceived) {
				err = io.EOF
			}
			if err != nil {
				return 0, err
			}
			s.message = message
		}
		n, err := s.message.Read(b)
		if errors.Is(err, io.EOF) {
			s.message, err = nil, nil
		}
		if n > 0 || err != nil || len(b) == 0 {
			return n, err
		}
	}
}

func (s *stream) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.ws.WriteMessage(websocket.BinaryMessage, b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Close says goodbye if that can be done at once.
func (s *stream) Close() error {
	goodbye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	s.ws.WriteControl(websocket.CloseMessage, goodbye, time.Now().Add(100*time.Millisecond))
	return s.ws.Close()
}

func (s *stream) LocalAddr() net.Addr                { return s.ws.LocalAddr() }
func (s *stream) RemoteAddr() net.Addr               { return s.ws.RemoteAddr() }
func (s *stream) SetReadDeadline(t time.Time) error  { return s.ws.SetReadDeadline(t) }
func (s *stream) SetWriteDeadline(t time.Time) error { return s.ws.SetWriteDeadline(t) }

func (s *stream) SetDeadline(t time.Time) error {
	return errors.Join(s.ws.SetReadDeadline(t), s.ws.SetWriteDeadline(t))
}
