package main

import (
	"bufio"
	"bytes"
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
	file   io.Closer
	reader *protocol.BundleReader
	check  protocol.Check
	ahead  bool // events ahead of the clock are good too: the clock of this machine may be wrong

	frames      int
	refused     map[protocol.Code]int
	mislabelled int // frames whose header does not say the truth about the times in it
	waiting     []protocol.Event
}

// bundleInput is a bundle to be read.
type bundleInput struct {
	name string
	size int64 // 0: not known
	open func() (io.ReadCloser, error)
}

// bundleInputs looks at the files, "-" for standard input. Pictures of codes are joined into the bundles that they are
// pieces of; a missing piece is an error.
func (p *program) bundleInputs(names []string) (inputs []bundleInput, err error) {
	var pictures sheetPile
	for _, name := range names {
		in, text, err := p.bundleInput(name)
		if err == nil && text != "" {
			if err = pictures.add(text); err != nil {
				err = fmt.Errorf("%s: %w", name, err)
			}
		}
		if err != nil {
			return nil, err
		}
		if text == "" {
			inputs = append(inputs, in)
		}
	}
	for _, set := range pictures.sets {
		raw, err := set.join()
		if err != nil {
			return nil, err
		}
		inputs = append(inputs, bundleInput{set.name(), int64(len(raw)), func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(raw)), nil
		}})
	}
	return inputs, nil
}

// bundleInput looks at one file. If it is a picture it returns the text of the code in it.
func (p *program) bundleInput(name string) (in bundleInput, text string, err error) {
	r := p.in
	in = bundleInput{name: name, open: func() (io.ReadCloser, error) { return os.Open(name) }}
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return in, "", err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return in, "", err
		}
		r, in.size = f, info.Size()
	}
	b := bufio.NewReader(r)
	if name == "-" {
		in.open = func() (io.ReadCloser, error) { return io.NopCloser(b), nil }
	}
	if head, _ := b.Peek(4); isPicture(head) { // a file that cannot be read says so when it is opened
		if text, err = readQR(b); err != nil {
			err = fmt.Errorf("%s: %w", name, err)
		}
	}
	return in, text, err
}

// openBundles opens all of them.
func (p *program) openBundles(names []string) (sources []*bundleSource, err error) {
	inputs, err := p.bundleInputs(names)
	for _, in := range inputs {
		s, err := in.source()
		if err != nil {
			closeAll(sources)
			return nil, err
		}
		sources = append(sources, s)
	}
	return sources, err
}

func (in bundleInput) source() (*bundleSource, error) {
	r, err := in.open()
	if err != nil {
		return nil, err
	}
	return newBundleSource(in.name, r)
}

// newBundleSource closes r when it fails.
func newBundleSource(name string, r io.ReadCloser) (*bundleSource, error) {
	reader, err := protocol.NewBundleReader(r)
	s := &bundleSource{name: name, file: r, reader: reader, refused: map[protocol.Code]int{},
		check: protocol.Check{Scope: protocol.Late, Now: time.Now()}}
	if err != nil {
		s.close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

func (s *bundleSource) close() { s.file.Close() } // it was only read

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
