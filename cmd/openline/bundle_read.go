package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"openline/protocol"
)

// bundleSource reads one bundle and checks every event in it.
type bundleSource struct {
	name   string
	file   io.Closer // nil when there is nothing to close
	reader *protocol.BundleReader
	check  protocol.Check
	ahead  bool // events ahead of the clock are good too: the clock of this machine may be wrong

	frames      int
	refused     map[protocol.Code]int
	mislabelled int // frames whose header does not say the truth about the times in it
	waiting     []protocol.Event
}

// openBundles opens the files, "-" for standard input. Pictures of codes are joined into the bundles that they are
// pieces of; a missing piece is an error.
func (p *program) openBundles(names []string) (sources []*bundleSource, err error) {
	defer func() {
		if err != nil {
			closeAll(sources)
		}
	}()
	var pictures sheetPile
	for _, name := range names {
		in, file := p.in, io.Closer(nil)
		if name != "-" {
			f, err := os.Open(name)
			if err != nil {
				return sources, err
			}
			in, file = f, f
		}
		b := bufio.NewReader(in)
		if head, _ := b.Peek(4); isPicture(head) {
			text, err := readQR(b)
			if err == nil {
				err = pictures.add(text)
			}
			if file != nil {
				err = errors.Join(err, file.Close())
			}
			if err != nil {
				return sources, fmt.Errorf("%s: %w", name, err)
			}
			continue
		}
		s, err := newBundleSource(name, b, file)
		if err != nil {
			return sources, err
		}
		sources = append(sources, s)
	}
	for _, set := range pictures.sets {
		raw, err := set.join()
		if err != nil {
			return sources, err
		}
		s, err := newBundleSource(set.name(), bytes.NewReader(raw), nil)
		if err != nil {
			return sources, err
		}
		sources = append(sources, s)
	}
	return sources, nil
}

// newBundleSource closes file when it fails.
func newBundleSource(name string, r io.Reader, file io.Closer) (*bundleSource, error) {
	reader, err := protocol.NewBundleReader(r)
	s := &bundleSource{name: name, file: file, reader: reader, refused: map[protocol.Code]int{},
		check: protocol.Check{Scope: protocol.Late, Now: time.Now()}}
	if err != nil {
		s.close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

func (s *bundleSource) close() {
	if s.file != nil {
		s.file.Close() // it was only read
	}
}

func closeAll(sources []*bundleSource) {
	for _, s := range sources {
		s.close()
	}
}

// frame returns the good events of the next whole frame, io.EOF at the end.
func (s *bundleSource) frame(ctx context.Context) ([]protocol.Event, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	f, err := s.reader.Next()
	if errors.Is(err, io.EOF) {
		return nil, io.EOF
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	s.frames++
	events, errs := parseAll(f.Envelopes, s.parse)
	good := events[:0]
	for i, e := range events {
		if errs[i] == nil {
			good = append(good, e)
		} else if r, ok := errors.AsType[*protocol.Rejection](errs[i]); ok {
			s.refused[r.Code]++
		} else {
			return nil, errs[i]
		}
	}
	if n := len(good); n == len(f.Envelopes) && (good[0].CreatedAt() != f.First || good[n-1].CreatedAt() != f.Last) {
		s.mislabelled++
	}
	return good, nil
}

func (s *bundleSource) parse(envelope []byte) (protocol.Event, error) {
	e, err := protocol.ParseEnvelope(envelope, s.check)
	if r, ok := errors.AsType[*protocol.Rejection](err); ok && r.Code == protocol.Ahead && s.ahead {
		late := s.check
		late.Now = time.Unix(protocol.MaxBundleTime, 0)
		return protocol.ParseEnvelope(envelope, late)
	}
	return e, err
}

// next returns the next good event, io.EOF at the end.
func (s *bundleSource) next(ctx context.Context) (protocol.Event, error) {
	for len(s.waiting) == 0 {
		events, err := s.frame(ctx)
		if err != nil {
			return protocol.Event{}, err
		}
		s.waiting = events
	}
	e := s.waiting[0]
	s.waiting = s.waiting[1:]
	return e, nil
}

// complain says on w what was refused or damaged.
func (s *bundleSource) complain(w io.Writer) {
	if text := refusedText(s.refused); text != "" {
		fmt.Fprintf(w, "%s: events refused: %s\n", s.name, text)
	}
	for _, d := range s.reader.Damage() {
		fmt.Fprintf(w, "%s: damaged: %s\n", s.name, damageReport(d))
	}
}

// parseAll parses the envelopes on all cores; a signature takes long.
func parseAll(envelopes [][]byte, parse func([]byte) (protocol.Event, error)) ([]protocol.Event, []error) {
	events, errs := make([]protocol.Event, len(envelopes)), make([]error, len(envelopes))
	var taken atomic.Int64
	var workers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(envelopes)) {
		workers.Go(func() {
			for i := taken.Add(1) - 1; int(i) < len(envelopes); i = taken.Add(1) - 1 {
				events[i], errs[i] = parse(envelopes[i])
			}
		})
	}
	workers.Wait()
	return events, errs
}

// compareEvents orders as a bundle does: by created_at, then by id.
func compareEvents(a, b protocol.Event) int {
	x, y := a.ID(), b.ID()
	return cmp.Or(cmp.Compare(a.CreatedAt(), b.CreatedAt()), bytes.Compare(x[:], y[:]))
}
