package lab

import (
	"container/heap"
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"
)

// forward sends an IP packet to a host, from the gateway.
func (m *middle) forward(to *port, ip []byte, delay time.Duration) {
	frame := make([]byte, 14+len(ip))
	copy(frame, to.mac[:])
	copy(frame[6:], gatewayMAC[:])
	binary.BigEndian.PutUint16(frame[12:], unix.ETH_P_IP)
	copy(frame[14:], ip)
	m.send(to, frame, delay)
}

func (m *middle) send(to *port, frame []byte, delay time.Duration) {
	if delay <= 0 {
		unix.Write(to.fd, frame)
		return
	}
	m.queue.count++
	heap.Push(&m.queue, &pending{time.Now().Add(delay), m.queue.count, to, frame})
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// deliver sends what waits when its time has come.
func (m *middle) deliver() {
	for {
		m.mu.Lock()
		wait := time.Hour
		for len(m.queue.list) > 0 {
			first := m.queue.list[0]
			if wait = time.Until(first.at); wait > 0 {
				break
			}
			heap.Pop(&m.queue)
			unix.Write(first.to.fd, first.frame)
			wait = time.Hour
		}
		m.mu.Unlock()
		select {
		case <-m.wake:
		case <-time.After(wait):
		}
	}
}

type pending struct {
	at    time.Time
	order int
	to    *port
	frame []byte
}

type queue struct {
	list  []*pending
	count int
}

func (q *queue) Len() int { return len(q.list) }
func (q *queue) Less(i, j int) bool {
	a, b := q.list[i], q.list[j]
	return a.at.Before(b.at) || a.at.Equal(b.at) && a.order < b.order
}
func (q *queue) Swap(i, j int) { q.list[i], q.list[j] = q.list[j], q.list[i] }
func (q *queue) Push(x any)    { q.list = append(q.list, x.(*pending)) }
func (q *queue) Pop() any {
	last := q.list[len(q.list)-1]
	q.list = q.list[:len(q.list)-1]
	return last
}
