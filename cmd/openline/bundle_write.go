package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"openline/protocol"
)

func (p *program) bundleSplitCmd() *cobra.Command {
	var size, dir, network string
	var force bool
	cmd := &cobra.Command{
		Use:   "split FILE --max-size SIZE",
		Short: "Cut a bundle into smaller ones, each good by itself",
		Long: `Writes FILE-1.openline, FILE-2.openline and so on, none larger than --max-size, and prints their names. Each is a bundle
of its own: one that gets lost costs only what was in it. Events that are refused are left out.`,
		Example: `  openline bundle split week.openline --max-size 10MB
  openline bundle split week.openline --max-size 1.4MB --out /media/floppy`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			limit, err := parseSize("max-size", size, "10MB", 1, 1<<62)
			if err != nil {
				return err
			}
			sources, err := p.openBundles(args)
			if err != nil {
				return err
			}
			defer closeAll(sources)
			return p.split(cmd.Context(), sources[0], splitName(args[0], dir), int64(limit), network, force)
		},
	}
	f := cmd.Flags()
	f.StringVar(&size, "max-size", "", "the most bytes that a file may have, such as 10MB")
	f.StringVar(&dir, "out", "", "`DIR` for the files (default: that of FILE)")
	f.StringVar(&network, "network", "", "the network's `NAME`, should the header be damaged")
	f.BoolVar(&force, "force", false, "overwrite files that are there")
	return cmd
}

// splitName returns what the names of the parts begin with.
func splitName(file, dir string) string {
	if file == "-" {
		file = "bundle"
	}
	if dir == "" {
		dir = filepath.Dir(file)
	}
	return filepath.Join(dir, strings.TrimSuffix(filepath.Base(file), ".openline"))
}

// split writes the events of s to files of at most limit bytes and prints their names.
func (p *program) split(ctx context.Context, s *bundleSource, name string, limit int64, network string, force bool) error {
	s.ahead = true
	header, err := commonHeader([]*bundleSource{s}, network)
	if err != nil {
		return err
	}
	next := func() (protocol.Event, error) { return s.next(ctx) }
	e, err := next()
	for n := 1; err == nil; n++ {
		part := fmt.Sprintf("%s-%d.openline", name, n)
		writeErr := writeFile(part, force, func(w io.Writer) error {
			e, err = splitOff(w, header, e, next, limit)
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			return nil
		})
		if writeErr != nil {
			return writeErr
		}
		fmt.Fprintln(p.out, part)
	}
	s.complain(p.err)
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// splitOff writes one bundle that begins with e. It returns the first event that did not fit, or the error of next.
func splitOff(w io.Writer, h protocol.BundleHeader, e protocol.Event, next func() (protocol.Event, error), limit int64) (protocol.Event, error) {
	b, err := protocol.NewBundleWriter(w, h)
	if err != nil {
		return e, err
	}
	if need := b.SizeWith(e); need > limit {
		return e, fmt.Errorf("max-size: %d bytes are too few: the next event needs %d", limit, need)
	}
	for err == nil && b.SizeWith(e) <= limit {
		if err := b.Add(e); err != nil {
			return e, err
		}
		e, err = next()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return e, err
	}
	if err := b.Close(); err != nil {
		return e, err
	}
	return e, err
}

func (p *program) bundleMergeCmd() *cobra.Command {
	var network string
	var force bool
	cmd := &cobra.Command{
		Use:   "merge OUT FILE…",
		Short: "Make one bundle of many; also repairs a damaged one",
		Long: `Writes the events of all FILEs to OUT, in order and each once. What is damaged or refused is left out and named on stderr,
so merging two damaged copies gives what is whole in either. OUT appears when it is complete; "-" is standard output.`,
		Example: `  openline bundle merge all.openline mine.openline from-a-friend.openline
  openline bundle merge whole.openline copy-1.openline copy-2.openline
  openline bundle merge from-paper.openline sheet-*.png`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if f, ok := p.out.(*os.File); ok && args[0] == "-" && term.IsTerminal(int(f.Fd())) {
				return usagef("name a file, or send it on: openline bundle merge - FILE… > OUT", "a bundle is not for a terminal")
			}
			sources, err := p.openBundles(args[1:])
			if err != nil {
				return err
			}
			defer closeAll(sources)
			write := func(w io.Writer) error { return merge(cmd.Context(), w, sources, network) }
			if args[0] == "-" {
				err = write(p.out)
			} else {
				err = writeFile(args[0], force, write)
			}
			for _, s := range sources {
				s.complain(p.err)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&network, "network", "", "the network's `NAME`, should every header be damaged")
	cmd.Flags().BoolVar(&force, "force", false, "overwrite OUT if it is there")
	return cmd
}

// commonHeader covers the ranges of all. Bundles of different networks do not mix; network is for the case that
// no header could be read.
func commonHeader(sources []*bundleSource, network string) (protocol.BundleHeader, error) {
	all := protocol.BundleHeader{From: protocol.MaxBundleTime}
	for _, s := range sources {
		h := s.reader.Header()
		switch {
		case h.Network == "": // damaged, so its range is not known
			h.To = protocol.MaxBundleTime
		case all.Network == "":
			all.Network = h.Network
		case h.Network != all.Network:
			return all, fmt.Errorf("%s is of the network %s, others are of %s: bundles of different networks do not mix", s.name, h.Network, all.Network)
		}
		all.From, all.To = min(all.From, h.From), max(all.To, h.To)
	}
	if all.Network == "" {
		all.Network = network
	}
	if all.Network == "" {
		return all, usagef("for example --network main", "no header is whole: name the network")
	}
	return all, nil
}

// merge writes the events of the sources in order and each once, with the best stamp that any of them has for it.
func merge(ctx context.Context, w io.Writer, sources []*bundleSource, network string) error {
	header, err := commonHeader(sources, network)
	if err != nil {
		return err
	}
	b, err := protocol.NewBundleWriter(w, header)
	if err != nil {
		return err
	}
	var heads []*mergeHead
	for _, s := range sources {
		s.ahead = true
		h := &mergeHead{source: s}
		if err := h.advance(ctx); err != nil {
			return err
		}
		heads = append(heads, h)
	}
	for {
		e, ok, err := takeLeast(ctx, heads)
		if err != nil {
			return err
		}
		if !ok {
			return b.Close()
		}
		if err := b.Add(e); err != nil {
			return err
		}
	}
}

// mergeHead is the next event of a source.
type mergeHead struct {
	source *bundleSource
	event  protocol.Event
	any    bool // there was an event
	end    bool // there are no more
}

// advance goes on to the next event, which must be a later one: merging looks at one event of each source only.
func (h *mergeHead) advance(ctx context.Context) error {
	for {
		e, err := h.source.next(ctx)
		if errors.Is(err, io.EOF) {
			h.end = true
			return nil
		}
		if err != nil {
			return err
		}
		order := 1
		if h.any {
			order = e.Compare(h.event)
		}
		if order < 0 {
			return fmt.Errorf("%s is not in order: it was not made as a bundle", h.source.name)
		}
		h.event, h.any = e, true
		if order > 0 {
			return nil
		}
	}
}

// takeLeast takes the least event from all heads that have it, ok = false at the end.
func takeLeast(ctx context.Context, heads []*mergeHead) (least protocol.Event, ok bool, err error) {
	for _, h := range heads {
		if !h.end && (!ok || h.event.Compare(least) < 0) {
			least, ok = h.event, true
		}
	}
	for _, h := range heads {
		if h.end || h.event.ID() != least.ID() {
			continue
		}
		if h.event.Work() > least.Work() {
			least = h.event
		}
		if err := h.advance(ctx); err != nil {
			return least, false, err
		}
	}
	return least, ok, nil
}

// writeFile lets write make a file that appears under its name when it is complete and on disk.
func writeFile(name string, force bool, write func(io.Writer) error) (err error) {
	if _, err := os.Lstat(name); err == nil && !force {
		return usagef("--force overwrites it", "%s exists", name)
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".openline-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	defer func() {
		if err != nil {
			f.Close() // it is given up
			os.Remove(f.Name())
		}
	}()
	w := bufio.NewWriterSize(f, 1<<20)
	if err := write(w); err != nil {
		return err
	}
	rename := func() error { return os.Rename(f.Name(), name) }
	for _, step := range []func() error{w.Flush, f.Sync, f.Close, rename} {
		if err := step(); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	return nil
}
