package history

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"openline/protocol"
	"openline/protocol/reconcile"
)

// drain sends what is to be fetched and handles answers until nothing is left.
func (s *session) drain(ctx context.Context) error {
	for {
		for s.fetching < atOnce && len(s.fetches) > 0 {
			if err := s.settle(ctx); err != nil {
				return err
			}
			f := s.fetches[len(s.fetches)-1]
			s.fetches = s.fetches[:len(s.fetches)-1]
			if err := s.request(ctx, f); err != nil {
				return err
			}
		}
		if len(s.pending) == 0 {
			switch more, err := s.describe(ctx); {
			case err != nil:
				return err
			case !more && len(s.fetches) == 0:
				return nil
			}
			continue
		}
		q, err := s.next(ctx)
		if q.fetch {
			s.fetching--
		}
		if err != nil {
			return err
		}
	}
}

// settle waits, once and only for a few events that a check finds: most of those are on their way with the flood.
func (s *session) settle(ctx context.Context) error {
	if s.settled || s.fresh || s.queued >= fewNeeded || !s.checks() {
		return nil
	}
	s.settled = true
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(settle):
		return nil
	}
}

// request asks for what nobody else is fetching.
func (s *session) request(ctx context.Context, f *fetch) error {
	if s.fetchBegun.IsZero() {
		s.fetchBegun = time.Now()
	}
	if f.all != nil {
		if !s.bulk[f.shard] && !s.y.claimBulk(f.shard) {
			s.again(f.shard, f.span)
			return nil
		}
		s.bulk[f.shard] = true
		if stale, err := s.stale(f); err != nil || stale {
			return err
		}
		return s.sendRange(ctx, f)
	}
	mine, others, err := s.y.claim(f.ids)
	if err != nil {
		return err
	}
	for _, id := range mine {
		s.held[id] = struct{}{}
	}
	if len(others) > 0 && f.span != (span{}) {
		s.again(f.shard, f.span)
	} else if len(others) > 0 { // on a thin line they are of all shards
		for shard, d := range s.due {
			s.again(shard, d)
		}
	}
	return s.sendWant(ctx, f, mine)
}

// stale reports whether somebody else has brought some of a range meanwhile; then the hours are compared once more.
func (s *session) stale(f *fetch) (stale bool, err error) {
	if f.begun {
		return false, nil
	}
	f.begun = true
	err = s.y.src.View(f.shard, f.span.from, f.span.to, func(set reconcile.Set) error {
		lo, err := set.Rank(f.all.Low)
		if err != nil {
			return err
		}
		hi, err := set.Rank(f.all.High)
		stale = hi > lo
		return err
	})
	if stale {
		s.again(f.shard, f.span)
	}
	return stale, err
}

func (s *session) sendWant(ctx context.Context, f *fetch, ids []protocol.ID) error {
	if len(ids) == 0 {
		return nil
	}
	s.fetching++
	return s.asker.send(ctx, kindWant, want{s.chunk, ids}.encode(), question{answer: kindEnvelopes, fetch: true, handle: func(body []byte) error {
		t, err := parseBatch(body)
		if err != nil {
			return err
		}
		if t.looked < 1 || t.looked > len(ids) || len(t.envelopes) > t.looked {
			return fmt.Errorf("%w: it answers for %d of %d ids with %d events", errLie, t.looked, len(ids), len(t.envelopes))
		}
		s.received += len(body)
		return s.got(ctx, f, ids, t)
	}})
}

// got takes some of what was wanted, and asks for the rest.
func (s *session) got(ctx context.Context, f *fetch, ids []protocol.ID, t batch) error {
	asked := ids[:t.looked]
	v, err := s.accept(ctx, t.envelopes)
	if err != nil {
		return err
	}
	for _, e := range v.events {
		if !slices.Contains(asked, e.ID()) {
			return fmt.Errorf("%w: it sends what was not asked for", errLie)
		}
	}
	s.wanted += t.looked
	if s.missing += t.looked - len(t.envelopes); s.missing > maxMissing && s.missing > s.wanted/2 {
		return fmt.Errorf("%w: it does not have %d of %d events that it offers", errLie, s.missing, s.wanted)
	}
	if v.busy == 0 {
		s.forgo(asked, v.events)
	}
	for _, id := range asked {
		delete(s.held, id)
	}
	s.y.release(asked)
	return s.sendWant(ctx, f, ids[t.looked:])
}

// forgo remembers which of the ids were refused or not there.
func (s *session) forgo(asked []protocol.ID, events []protocol.Event) {
	if len(events) == len(asked) {
		return
	}
	came := map[protocol.ID]bool{}
	for _, e := range events {
		came[e.ID()] = true
	}
	s.y.refuse(slices.DeleteFunc(slices.Clone(asked), func(id protocol.ID) bool { return came[id] }))
}

func (s *session) sendRange(ctx context.Context, f *fetch) error {
	s.fetching++
	r := rangeOf{s.chunk, f.shard, f.all.Low, f.all.High}
	return s.asker.send(ctx, kindRange, r.encode(), question{answer: kindPart, fetch: true, handle: func(body []byte) error {
		p, err := parsePart(body)
		if err != nil {
			return err
		}
		s.received += len(body)
		return s.gotPart(ctx, f, p)
	}})
}

// gotPart takes the newest part of a range, and asks for the next.
func (s *session) gotPart(ctx context.Context, f *fetch, p part) error {
	v, err := s.accept(ctx, p.envelopes)
	if err != nil {
		return err
	}
	if v.refused > 0 {
		s.y.nameIDs(f.shard)
	}
	for _, e := range v.events {
		if e.Shard() != f.shard || !f.all.Contains(reconcile.Item{Time: e.CreatedAt(), ID: reconcile.ID(e.ID())}) {
			return fmt.Errorf("%w: it sends what lies outside of the range", errLie)
		}
	}
	s.wanted++
	if len(p.envelopes) == 0 {
		if s.missing++; s.missing > maxMissing && s.missing > s.wanted/2 {
			return fmt.Errorf("%w: %d of its ranges are empty", errLie, s.missing)
		}
	}
	if p.done {
		return nil
	}
	before := reconcile.Range{Low: f.all.Low, High: p.next}
	if p.next.Compare(f.all.High) >= 0 || p.next.Compare(f.all.Low) < 0 {
		return fmt.Errorf("%w: a range does not end", errLie)
	}
	if time.Since(s.begun) > maxSession {
		s.again(f.shard, f.span)
		return nil
	}
	s.push(&fetch{window: f.window, shard: f.shard, span: f.span, all: &before, begun: true})
	return nil
}

// verdicts are what the door said to some envelopes.
type verdicts struct {
	events  []protocol.Event // that were new
	busy    int              // the node had no time for them
	refused int
}

// accept takes envelopes through the door, several at once.
func (s *session) accept(ctx context.Context, envelopes [][]byte) (v verdicts, err error) {
	said, all := make([]error, len(envelopes)), make([]protocol.Event, len(envelopes))
	var g errgroup.Group
	g.SetLimit(4 * runtime.GOMAXPROCS(0)) // some verify while others wait for the writer
	for i, raw := range envelopes {
		g.Go(func() error {
			all[i], said[i] = s.y.src.Accept(ctx, raw)
			return nil
		})
	}
	_ = g.Wait() // nobody returns an error
	for i, err := range said {
		r, refused := errors.AsType[*protocol.Rejection](err)
		switch {
		case err == nil:
			v.events = append(v.events, all[i])
			s.y.gain(all[i])
			s.gained++
		case !refused:
			return v, err
		case r.Code.Static():
			return v, fmt.Errorf("%w: it sends what no node accepts (%s)", errLie, r.Code)
		case r.Code == protocol.Busy:
			v.busy++
		case r.Code != protocol.Duplicate:
			v.refused++
			s.y.Count.Refused.Add(1)
		}
	}
	return v, nil
}

// describe asks what the ids are that a thin line has to fetch, and puts them into order once all are known.
func (s *session) describe(ctx context.Context) (more bool, err error) {
	if len(s.unknown) == 0 {
		if len(s.known) == 0 {
			return false, nil
		}
		follows := &Follows{}
		if s.y.cfg.Follows != nil {
			follows = s.y.cfg.Follows()
		}
		ids := order(s.known, follows)
		s.known = nil
		for len(ids) > 0 {
			n := min(len(ids), thinIDs)
			s.fetches = append(s.fetches, &fetch{ids: ids[:n]})
			ids = ids[n:]
		}
		slices.Reverse(s.fetches) // the last one is sent first
		return len(s.fetches) > 0, nil
	}
	ids := s.unknown[:min(len(s.unknown), maxIDs/2)]
	s.unknown = s.unknown[len(ids):]
	return true, s.asker.send(ctx, kindDescribe, encodeIDs(ids), question{answer: kindDescribed, handle: func(body []byte) error {
		list, err := parseDescriptions(body)
		if err != nil || len(list) != len(ids) {
			return fmt.Errorf("%w: %d descriptions of %d events", errFrame, len(list), len(ids))
		}
		for i, d := range list {
			s.known = append(s.known, described{ids[i], d})
		}
		return nil
	}})
}
