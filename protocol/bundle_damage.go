package protocol

import "fmt"

// BundleDamage is a part of a bundle that could not be read, or that is missing.
type BundleDamage struct {
	Offset      int64 // where in the file
	Length      int64 // bytes; 0 when nothing is there or it is not known
	Frame       int   // the first of the frames lost, 0 for none
	Frames      int   // how many frames are lost; 0 with a Frame when it is not known
	Events      int64 // how many events are lost, -1 when it is not known
	First, Last int64 // created_at of the lost events lies within, when there are any; exact when the index could be read
	Text        string
}

// maxDamage is how many damages are listed; the last one stands for all that follow.
const maxDamage = 1000

const noGap = -1

// damages keeps the account of what was read, so as to say what was not.
type damages struct {
	list     []BundleDamage
	gap      int64  // where what cannot be read begins, or noGap
	number   uint32 // of the last whole frame
	total    uint64 // events in it and in those before it
	last     int64  // created_at of its last event
	to       int64  // the end of the header's range
	complete bool   // an index says that no frame is missing at the end
	index    int64  // where the whole index begins, 0 while there is none
	ended    bool   // the trailer was there
}

func (a *damages) note(d BundleDamage) {
	if len(a.list) < maxDamage {
		a.list = append(a.list, d)
		return
	}
	l := &a.list[maxDamage-1]
	l.Length = max(l.Length, d.Offset+d.Length-l.Offset)
	l.Text = "the file is damaged in many places from here on"
	l.Frames = 0
	l.Events = -1
	l.First, l.Last = min(l.First, d.First), max(l.Last, d.Last)
}

// open begins a gap, unless one is open.
func (a *damages) open(at int64) {
	if a.gap == noGap {
		a.gap = at
	}
}

// close ends the gap before at, if one is open, and returns its place.
func (a *damages) close(at int64) BundleDamage {
	d := BundleDamage{Offset: at}
	if a.gap != noGap {
		d = BundleDamage{Offset: a.gap, Length: at - a.gap}
	}
	a.gap = noGap
	return d
}

// follow takes account of a frame at a place whose checksum holds.
func (a *damages) follow(at int64, h frameHead) {
	gap := a.gap != noGap
	d := a.close(at)
	skipped := int64(h.number) - int64(a.number) - 1
	events := int64(h.before) - int64(a.total)
	fits := skipped >= 0 && events >= skipped && (skipped == 0) == (events == 0) && int64(h.first) >= a.last
	switch {
	case !fits:
		d.Text = fmt.Sprintf("frame %d stands in the wrong place", h.number)
		a.note(d)
	case skipped > 0:
		d.Frame, d.Frames, d.Events, d.First, d.Last = int(a.number)+1, int(skipped), events, a.last, int64(h.first)
		d.Text = lostText(d)
		a.note(d)
	case gap:
		d.Text = "these bytes belong to no frame; no events are lost"
		a.note(d)
	}
	a.number, a.total, a.last = h.number, h.before+uint64(h.events), int64(h.last)
}

func lostText(d BundleDamage) string {
	if d.Frames == 1 {
		return fmt.Sprintf("frame %d is damaged: %d events are lost", d.Frame, d.Events)
	}
	return fmt.Sprintf("frames %d to %d are damaged: %d events are lost", d.Frame, d.Frame+d.Frames-1, d.Events)
}

// lost collects what an index says of the frames that could not be read, until its checksum holds.
type lost struct {
	list []BundleDamage // copies of those with a known number of frames, ascending
	at   []int          // their places in the account, -1 for the frames missing at the end
	next int            // the first whose frames the index has not passed
}

// lostTo prepares for an index at a place, which says that there are so many frames and events.
func (a *damages) lostTo(at int64, frames uint32, events uint64) *lost {
	l := &lost{}
	top := 0
	for i, d := range a.list {
		if d.Frames > 0 && d.Frame > top {
			l.list, l.at = append(l.list, d), append(l.at, i)
			top = d.Frame + d.Frames - 1
		}
	}
	if frames > a.number && events > a.total {
		offset := at
		if a.gap != noGap {
			offset = a.gap
		}
		d := BundleDamage{Offset: offset, Length: at - offset, Frame: int(a.number) + 1, Frames: int(frames - a.number),
			Events: int64(events - a.total)}
		d.Text = lostText(d)
		l.list, l.at = append(l.list, d), append(l.at, -1)
	}
	return l
}

// learn takes what the index says of a frame; the numbers come ascending.
func (l *lost) learn(number uint32, first, last int64) {
	n := int(number)
	for l.next < len(l.list) && n >= l.list[l.next].Frame+l.list[l.next].Frames {
		l.next++
	}
	if l.next == len(l.list) || n < l.list[l.next].Frame {
		return
	}
	d := &l.list[l.next]
	if n == d.Frame {
		d.First = first
	}
	d.Last = last
}

// indexed takes account of an index whose checksum holds.
func (a *damages) indexed(at int64, frames uint32, events uint64, l *lost) {
	gap := a.gap != noGap
	d := a.close(at)
	missing := false
	for i, known := range l.list {
		if l.at[i] >= 0 {
			a.list[l.at[i]].First, a.list[l.at[i]].Last = known.First, known.Last
			continue
		}
		a.note(known)
		missing = true
	}
	switch {
	case !missing && (frames != a.number || events != a.total):
		d.Text = "the index does not fit the frames"
		a.note(d)
	case !missing && gap:
		d.Text = "these bytes belong to no frame; no events are lost"
		a.note(d)
	}
	a.index, a.complete = at, true
}

// spoiltIndex takes account of an index that is damaged or cut off. That it agrees in its first numbers with the
// frames is no accident: nothing is missing before it.
func (a *damages) spoiltIndex(at int64, frames uint32, events uint64) {
	if frames == a.number && events == a.total {
		a.complete = true
	}
	a.open(at)
}

// trailer takes account of the trailer at a place, which says where the index is.
func (a *damages) trailer(at, index int64) {
	a.ended = true
	if a.index != 0 {
		if a.gap != noGap || index != a.index {
			d := a.close(at)
			d.Text = "the trailer is damaged; no events are lost"
			a.note(d)
		}
		return
	}
	d := a.close(at)
	if a.complete || d.Offset == index {
		d.Text = "the index is damaged; no events are lost"
		a.note(d)
		return
	}
	d.Frame, d.Events, d.First, d.Last = int(a.number)+1, -1, a.last, max(a.last, a.to)
	d.Text = fmt.Sprintf("what follows frame %d is damaged, the index too: it is not known how many events are lost", a.number)
	a.note(d)
}

// finish takes account of the end of the file.
func (a *damages) finish(at int64) {
	gap := a.gap != noGap
	d := a.close(at)
	switch {
	case a.ended && gap:
		d.Text = "there are bytes after the end"
	case a.ended:
		return
	case a.complete:
		d.Text = fmt.Sprintf("damaged or cut off at byte %d, after the last frame; no events are lost", at)
	default:
		d.Frame, d.Events, d.First, d.Last = int(a.number)+1, -1, a.last, max(a.last, a.to)
		d.Text = fmt.Sprintf("cut off at byte %d: at least what followed frame %d is lost", at, a.number)
	}
	a.note(d)
}
