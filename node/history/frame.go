package history

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"openline/protocol"
	"openline/protocol/reconcile"
)

// The kinds of frames (SPEC.md section 14). Each question has one answer, in the order of the questions; news comes
// from either side at any time and is not answered.
const (
	kindHello     = 1 // either side says what it is
	kindAsk       = 2 // a negentropy message about some hours of a shard
	kindAnswer    = 3
	kindWant      = 4 // ids
	kindEnvelopes = 5
	kindRange     = 6 // everything of a shard between two bounds, the newest first
	kindPart      = 7
	kindDescribe  = 8 // ids
	kindDescribed = 9
	kindNews      = 10
	kindStitch    = 11 // let us flood to each other for a while
	kindStitched  = 12
)

const (
	maxFrame    = 64 << 10 // bytes after the length
	maxIDs      = 1024     // of a frame
	maxNodes    = 64       // of a hello
	batchBytes  = 60_000   // of envelopes in a frame
	maxRangeIDs = 512      // of a part
)

// errFrame is the error of a peer that does not speak the protocol.
var errFrame = errors.New("a frame is out of form")

func writeFrame(w io.Writer, kind byte, body []byte) error {
	if 1+len(body) > maxFrame {
		panic("a frame of ours is too long")
	}
	b := binary.AppendUvarint(make([]byte, 0, len(body)+4), uint64(1+len(body)))
	_, err := w.Write(append(append(b, kind), body...))
	return err
}

// readFrame reads one frame; it allocates only for a length that is allowed.
func readFrame(r *bufio.Reader) (kind byte, body []byte, err error) {
	n, err := binary.ReadUvarint(r)
	if err != nil {
		return 0, nil, err
	}
	if n < 1 || n > maxFrame {
		return 0, nil, fmt.Errorf("%w: it has %d bytes", errFrame, n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return 0, nil, err
	}
	return b[0], b[1:], nil
}

// cursor reads the body of a frame. After the first mistake everything is zero and end says so.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) uint(most uint64) uint64 {
	v, n := binary.Uvarint(c.b)
	if n <= 0 || v > most {
		c.b, c.bad = nil, true
		return 0
	}
	c.b = c.b[n:]
	return v
}

func (c *cursor) bytes(n int) []byte {
	if n > len(c.b) {
		c.b, c.bad = nil, true
		return make([]byte, min(n, 32))
	}
	v := c.b[:n:n]
	c.b = c.b[n:]
	return v
}

// time reads Unix seconds.
func (c *cursor) time() int64 { return int64(c.uint(1<<53 - 1)) }

// end returns an error unless all was read and nothing was wrong.
func (c *cursor) end() error {
	if c.bad || len(c.b) > 0 {
		return errFrame
	}
	return nil
}

// hello says what a node is, as far as its neighbours need to know.
type hello struct {
	network string
	clock   int64  // of the sender, Unix seconds
	horizon int64  // what is older is neither offered nor wanted
	outside uint64 // seconds since anything came from outside the local networks, plus one; 0: it never did
	nodes   []node // of the island, as far as the sender knows
}

func (h hello) encode() []byte {
	b := binary.AppendUvarint(nil, uint64(len(h.network)))
	b = append(b, h.network...)
	for _, v := range []uint64{uint64(h.clock), uint64(h.horizon), h.outside, uint64(len(h.nodes))} {
		b = binary.AppendUvarint(b, v)
	}
	for _, n := range h.nodes {
		b = binary.BigEndian.AppendUint64(b, n.tag)
		b = binary.AppendUvarint(b, n.age)
	}
	return b
}

func parseHello(b []byte) (h hello, err error) {
	c := cursor{b: b}
	h.network = string(c.bytes(int(c.uint(32))))
	h.clock, h.horizon, h.outside = c.time(), c.time(), c.uint(1<<40)
	for range c.uint(maxNodes) {
		h.nodes = append(h.nodes, node{binary.BigEndian.Uint64(c.bytes(8)), c.uint(1 << 40)})
	}
	return h, c.end()
}

// ask is a negentropy message about the hours of a shard that begin from `from` to before `to`.
type ask struct {
	most     int // bytes that the answer may have
	shard    int
	from, to int64
	message  []byte
}

func appendSpan(b []byte, shard int, from, to int64) []byte {
	b = append(b, byte(shard))
	b = binary.AppendUvarint(b, uint64(from))
	return appendTo(b, to)
}

// appendTo writes the end of a span, 0 for none.
func appendTo(b []byte, to int64) []byte {
	if to == reconcile.Infinity {
		return binary.AppendUvarint(b, 0)
	}
	return binary.AppendUvarint(b, uint64(to)+1)
}

func (c *cursor) span() (shard int, from, to int64) {
	return c.shard(), c.time(), c.to()
}

func (c *cursor) shard() int {
	shard := c.bytes(1)[0]
	if shard >= protocol.Shards {
		c.bad, shard = true, 0
	}
	return int(shard)
}

func (c *cursor) to() int64 {
	v := c.uint(1 << 53)
	if v == 0 {
		return reconcile.Infinity
	}
	return int64(v - 1)
}

func (a ask) encode() []byte {
	return append(appendSpan(binary.AppendUvarint(nil, uint64(a.most)), a.shard, a.from, a.to), a.message...)
}

func parseAsk(b []byte) (a ask, err error) {
	c := cursor{b: b}
	a.most = c.most()
	a.shard, a.from, a.to = c.span()
	a.message, c.b = c.b, nil
	return a, c.end()
}

// most reads how long an answer may be.
func (c *cursor) most() int { return int(min(c.uint(1<<40), maxFrame)) }

// want asks for the events with these ids.
type want struct {
	most int // bytes that the answer may have, unless it has only one event
	ids  []protocol.ID
}

func (w want) encode() []byte {
	return append(binary.AppendUvarint(nil, uint64(w.most)), encodeIDs(w.ids)...)
}

func parseWant(b []byte) (w want, err error) {
	c := cursor{b: b}
	w.most = c.most()
	if w.ids, err = parseIDs(c.b); err != nil || c.bad {
		return want{}, errFrame
	}
	return w, nil
}

func encodeIDs(ids []protocol.ID) []byte {
	b := make([]byte, 0, 32*len(ids))
	for _, id := range ids {
		b = append(b, id[:]...)
	}
	return b
}

func parseIDs(b []byte) ([]protocol.ID, error) {
	if len(b)%32 != 0 || len(b) > 32*maxIDs {
		return nil, errFrame
	}
	ids := make([]protocol.ID, len(b)/32)
	for i := range ids {
		ids[i] = protocol.ID(b[32*i:])
	}
	return ids, nil
}

// batch is some of what was wanted, in its order.
type batch struct {
	looked    int // how many of the ids it is about; those without an envelope are not there
	envelopes [][]byte
}

func (t batch) encode() []byte {
	return appendEnvelopes(binary.AppendUvarint(nil, uint64(t.looked)), t.envelopes)
}

func parseBatch(b []byte) (t batch, err error) {
	c := cursor{b: b}
	t.looked = int(c.uint(maxIDs))
	t.envelopes = c.envelopes()
	return t, c.end()
}

func appendEnvelopes(b []byte, envelopes [][]byte) []byte {
	for _, e := range envelopes {
		b = binary.AppendUvarint(b, uint64(len(e)))
		b = append(b, e...)
	}
	return b
}

// envelopes reads all that is left.
func (c *cursor) envelopes() (list [][]byte) {
	for len(c.b) > 0 {
		list = append(list, c.bytes(int(c.uint(protocol.MaxEventSize))))
	}
	return list
}

// rangeOf asks for everything of a shard from low to before high.
type rangeOf struct {
	most      int // bytes that the answer may have, unless it has only one event
	shard     int
	low, high reconcile.Bound
}

func appendBound(b []byte, o reconcile.Bound) []byte {
	b = appendTo(b, o.Time)
	b = append(b, byte(len(o.Prefix)))
	return append(b, o.Prefix...)
}

func (c *cursor) bound() reconcile.Bound {
	return reconcile.Bound{Time: c.to(), Prefix: c.bytes(int(c.uint(32)))}
}

func (r rangeOf) encode() []byte {
	b := append(binary.AppendUvarint(nil, uint64(r.most)), byte(r.shard))
	return appendBound(appendBound(b, r.low), r.high)
}

func parseRange(b []byte) (r rangeOf, err error) {
	c := cursor{b: b}
	r.most, r.shard, r.low, r.high = c.most(), c.shard(), c.bound(), c.bound()
	return r, c.end()
}

// part is the newest of a range. What is left lies before next.
type part struct {
	done      bool
	next      reconcile.Bound
	envelopes [][]byte
}

func (p part) encode() []byte {
	done := byte(0)
	if p.done {
		done = 1
	}
	return appendEnvelopes(appendBound([]byte{done}, p.next), p.envelopes)
}

func parsePart(b []byte) (p part, err error) {
	c := cursor{b: b}
	p.done = c.uint(1) == 1
	p.next = c.bound()
	p.envelopes = c.envelopes()
	return p, c.end()
}

// description is as much of an event as it takes to decide which to fetch first.
type description struct {
	created int64 // Unix seconds; -1: the event is not there
	author  [4]byte
	topics  [][2]byte
}

func encodeDescriptions(list []description) (b []byte) {
	for _, d := range list {
		b = binary.AppendUvarint(b, uint64(d.created+1))
		if d.created < 0 {
			continue
		}
		b = append(append(b, d.author[:]...), byte(len(d.topics)))
		for _, t := range d.topics {
			b = append(b, t[:]...)
		}
	}
	return b
}

func parseDescriptions(b []byte) (list []description, err error) {
	c := cursor{b: b}
	for len(c.b) > 0 && len(list) < maxIDs {
		d := description{created: int64(c.uint(1<<53)) - 1}
		if d.created >= 0 {
			d.author = [4]byte(c.bytes(4))
			for range c.uint(protocol.MaxTopics) {
				d.topics = append(d.topics, [2]byte(c.bytes(2)))
			}
		}
		list = append(list, d)
	}
	return list, c.end()
}

// news says that some hours of a shard changed and what they are now.
type news struct {
	shard       int
	from, to    int64
	fingerprint reconcile.Fingerprint
}

func encodeNews(list []news) (b []byte) {
	for _, n := range list {
		b = append(appendSpan(b, n.shard, n.from, n.to), n.fingerprint[:]...)
	}
	return b
}

func parseNews(b []byte) (list []news, err error) {
	c := cursor{b: b}
	for len(c.b) > 0 && len(list) < 4*protocol.Shards {
		n := news{}
		n.shard, n.from, n.to = c.span()
		n.fingerprint = reconcile.Fingerprint(c.bytes(16))
		list = append(list, n)
	}
	return list, c.end()
}
