// Package reconcile finds out in which ids two sets differ, in bytes and rounds that grow with the difference and not
// with the sets: range-based set reconciliation (Aljoscha Meyer, arXiv 2212.13567) in the messages of negentropy
// version 1, which NIP-77 uses. It is pure, and keeps nothing between messages: what each side must know is its set.
//
// One side asks: Open makes its first message, Resolve reads an answer, says what differs and makes the next message.
// The other side only calls Answer. Both refuse messages that are not in the form and bound what they make of those
// that are. A censor who reads the messages learns ids of events, which are public.
package reconcile

import "bytes"

const (
	parts   = 16 // into which a range is cut that differs
	maxList = 16 // a range with fewer items is listed: 31 ids would be more bytes than 16 fingerprints and a round more

	// reserve is kept free for what the last range adds: at most a list of 31 ids, or 32 fingerprints with bounds, which
	// are long only between items of one second, and the fingerprint of the rest.
	reserve = 2048

	// DefaultLimit is the most bytes of a message of ours.
	DefaultLimit = 60_000
)

// Limits bound one message.
type Limits struct {
	Bytes int         // 0: DefaultLimit; at least 4,096
	Stop  func() bool // unless nil, asked after each range: true ends the message early; the rest is for the next one
}

// Difference is what one answer has shown. Where messages reach their limits the same may be told once more later.
type Difference struct {
	Have []Item // items that the other side lacks
	Need []ID   // ids that this side lacks

	// Ranges in which one side has nothing, and so all that the other has is lacking: naming the ids would be a waste.
	// Only with Lone; in ascending order.
	HaveAll []Range // in more than a few items
	NeedAll []Range
}

// Range is what lies from Low to before High.
type Range struct{ Low, High Bound }

// Contains reports whether i lies in the range.
func (r Range) Contains(i Item) bool {
	return i.Compare(r.Low.item()) >= 0 && (r.High.Time == Infinity || i.Compare(r.High.item()) < 0)
}

// Open returns the first message about a set: one fingerprint, 20 bytes. If the other side has the same, its answer is empty.
func Open(set Set) ([]byte, error) {
	w := newWriter()
	sum, err := set.Sum(0, set.Len())
	w.fingerprint(Bound{Time: Infinity}, sum.Fingerprint(set.Len()))
	return w.b, err
}

// Answer returns the answer to a message. ErrMalformed: it is no message. To a message in another version the answer is
// the version byte that this side speaks, as negentropy has it.
func Answer(set Set, msg []byte, l Limits) ([]byte, error) {
	s := session{set: set, limits: l, w: newWriter()}
	if len(msg) > 0 && msg[0] != version && msg[0]&0xf0 == version&0xf0 {
		return s.w.b, nil
	}
	err := s.read(msg, s.answerIDs, func(hi int, b Bound) error { return s.split(s.lo, hi, b) })
	return s.w.b, err
}

// Resolve reads an answer: it returns what the answer shows to differ, and the next message, nil when all is known.
// Lone says whether ranges that one side alone has may be told as ranges.
func Resolve(set Set, msg []byte, lone bool, l Limits) (next []byte, d Difference, err error) {
	s := session{set: set, limits: l, w: newWriter(), lone: lone, diff: &d}
	err = s.read(msg, s.compareIDs, s.resolveRange)
	if err != nil {
		return nil, Difference{}, err
	}
	if len(s.w.b) == 1 {
		return nil, d, nil
	}
	return s.w.b, d, nil
}

// session is the work on one message.
type session struct {
	set    Set
	limits Limits
	w      *writer
	lone   bool
	diff   *Difference

	low Bound // where the current range begins
	lo  int   // and its rank
}

// read goes through the ranges of a message. The handlers get the rank of the range's upper bound, and the bound.
func (s *session) read(msg []byte, onIDs func(hi int, b Bound, ids []byte) error, onOther func(hi int, b Bound) error) error {
	if s.limits.Bytes == 0 {
		s.limits.Bytes = DefaultLimit
	}
	if len(msg) == 0 {
		return malformed("it is empty")
	}
	if msg[0] != version {
		return ErrVersion
	}
	r := reader{rest: msg[1:]}
	for len(r.rest) > 0 {
		b, err := r.bound()
		if err != nil {
			return err
		}
		if b.item().Compare(s.low.item()) < 0 {
			return malformed("its ranges do not ascend")
		}
		hi, err := s.set.Rank(b)
		if err != nil {
			return err
		}
		if err := s.one(&r, hi, b, onIDs, onOther); err != nil {
			return err
		}
		s.low, s.lo = b, max(s.lo, hi)
		if s.full() && len(r.rest) > 0 {
			return s.rest()
		}
	}
	return nil
}

// one reads the content of one range.
func (s *session) one(r *reader, hi int, b Bound, onIDs func(int, Bound, []byte) error, onOther func(int, Bound) error) error {
	mode, err := r.varint()
	if err != nil {
		return err
	}
	switch mode {
	case modeSkip:
		s.w.skip(b)
		return nil
	case modeFingerprint:
		theirs, err := r.take(16)
		if err != nil {
			return err
		}
		ours, err := s.set.Sum(s.lo, hi)
		if err != nil {
			return err
		}
		if ours.Fingerprint(hi-s.lo) == Fingerprint(theirs) {
			s.w.skip(b)
			return nil
		}
		return onOther(hi, b)
	case modeIDs:
		ids, err := r.ids()
		if err != nil {
			return err
		}
		return onIDs(hi, b, ids)
	}
	return malformed("mode %d is not known", mode)
}

func (s *session) full() bool {
	return len(s.w.b) > s.limits.Bytes-reserve || s.limits.Stop != nil && s.limits.Stop()
}

// rest puts all that was not looked at into one fingerprint: unless it agrees, the other side goes on there.
func (s *session) rest() error {
	sum, err := s.set.Sum(s.lo, s.set.Len())
	s.w.fingerprint(Bound{Time: Infinity}, sum.Fingerprint(s.set.Len()-s.lo))
	return err
}

// split writes a range that differs: its ids when they are few, else the fingerprints of its parts.
func (s *session) split(lo, hi int, b Bound) error {
	if hi-lo < maxList {
		items, err := s.set.Items(lo, hi)
		s.w.ids(b, items)
		return err
	}
	cuts, err := s.set.Cut(lo, hi, parts)
	if err != nil {
		return err
	}
	for _, c := range append(cuts, Cut{hi, b}) {
		sum, err := s.set.Sum(lo, c.Rank)
		if err != nil {
			return err
		}
		s.w.fingerprint(c.Bound, sum.Fingerprint(c.Rank-lo))
		lo = c.Rank
	}
	return nil
}

// answerIDs answers a list with the ids of this side, as far as they fit.
func (s *session) answerIDs(hi int, b Bound, _ []byte) error {
	fit := max(1, (s.limits.Bytes-reserve-len(s.w.b))/32)
	if hi-s.lo <= fit {
		items, err := s.set.Items(s.lo, hi)
		s.w.ids(b, items)
		return err
	}
	items, err := s.set.Items(s.lo, s.lo+fit+1)
	if err != nil {
		return err
	}
	s.w.ids(between(items[fit-1], items[fit]), items[:fit])
	sum, err := s.set.Sum(s.lo+fit, hi)
	s.w.fingerprint(b, sum.Fingerprint(hi-s.lo-fit))
	return err
}

// resolveRange goes deeper into a range that differs.
func (s *session) resolveRange(hi int, b Bound) error {
	if s.lone && hi == s.lo {
		s.diff.NeedAll = appendRange(s.diff.NeedAll, Range{s.low, b})
		s.w.skip(b)
		return nil
	}
	return s.split(s.lo, hi, b)
}

// compareIDs compares a list with the items of this side. The range is done with.
func (s *session) compareIDs(hi int, b Bound, ids []byte) error {
	s.w.skip(b)
	if s.lone && len(ids) == 0 && hi-s.lo >= maxList {
		s.diff.HaveAll = appendRange(s.diff.HaveAll, Range{s.low, b})
		return nil
	}
	items, err := s.set.Items(s.lo, hi)
	if err != nil {
		return err
	}
	theirs := make(map[ID]struct{}, len(ids)/32)
	for ; len(ids) > 0; ids = ids[32:] {
		theirs[ID(ids)] = struct{}{}
	}
	for _, i := range items {
		if _, both := theirs[i.ID]; both {
			delete(theirs, i.ID)
		} else {
			s.diff.Have = append(s.diff.Have, i)
		}
	}
	for id := range theirs {
		s.diff.Need = append(s.diff.Need, id)
	}
	return nil
}

// appendRange joins r to the last range when it follows upon it.
func appendRange(list []Range, r Range) []Range {
	if n := len(list); n > 0 && list[n-1].High.Time == r.Low.Time && bytes.Equal(list[n-1].High.Prefix, r.Low.Prefix) {
		list[n-1].High = r.High
		return list
	}
	return append(list, r)
}
