package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"openline/node/api"
)

// sheetBytes is how much goes onto QR sheets if no --max-size says otherwise: some fifteen notes.
const sheetBytes = 4 << 10

func (p *program) bundleExportCmd() *cobra.Command {
	var q api.BundleQuery
	var since, until time.Duration
	var size string
	var qr, force bool
	cmd := &cobra.Command{
		Use:   "export FILE | -",
		Short: "Write what the daemon keeps into a file that can be carried by hand",
		Long: `Writes a bundle: everything that travels between nodes, or a part of it. Carry it on a USB stick, send it by mail,
import it anywhere: every note in it is signed by its author and proves itself. "-" writes to standard output. With
--max-size the newest notes that fit are taken; to cut a large bundle into pieces see "openline bundle split".
With --qr a few notes become QR codes: "-" shows them on the terminal, FILE.png is written as FILE-1.png, FILE-2.png, …`,
		Example: `  openline bundle export /media/usb/all.openline
  openline bundle export --topic tehran --since 48h --max-size 5MB tehran.openline
  openline bundle export --follows - | ssh friend openline bundle import -
  openline bundle export --author npub1… --since 1h --qr -`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			now := time.Now()
			if since > 0 {
				q.Since = now.Add(-since)
			}
			if until > 0 {
				q.Until = now.Add(-until)
			}
			if size != "" {
				n, err := parseSize("max-size", size, "5MB", 1, math.MaxInt64)
				if err != nil {
					return err
				}
				q.Max = int64(n)
			}
			if qr {
				if q.Max == 0 {
					q.Max = sheetBytes
				}
				return p.exportSheets(cmd.Context(), q, args[0], force)
			}
			return p.exportFile(cmd.Context(), q, args[0], force)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&q.Topics, "topic", nil, "`TOPIC`, with or without #; repeatable")
	f.StringArrayVar(&q.Authors, "author", nil, "`WHO`: npub1…, a hex key, or the name of someone you follow; repeatable")
	f.BoolVar(&q.Follows, "follows", false, "what you follow")
	f.DurationVar(&since, "since", 0, "only what is younger than this, such as 48h")
	f.DurationVar(&until, "until", 0, "only what is older than this, such as 1h")
	f.StringVar(&size, "max-size", "", "`SIZE` that the file may have, such as 5MB: the newest that fit")
	f.BoolVar(&qr, "qr", false, "QR codes instead of a file, for a few notes (--max-size is 4 kB then if it is not given)")
	f.BoolVar(&force, "force", false, "overwrite FILE")
	return cmd
}

// exportFile writes a bundle whole or not at all; to standard output as it comes.
func (p *program) exportFile(ctx context.Context, q api.BundleQuery, name string, force bool) error {
	if name == "-" {
		return p.client().Export(ctx, q, p.out)
	}
	err := writeFile(name, force, func(w io.Writer) error { return p.client().Export(ctx, q, w) })
	if err != nil {
		return err
	}
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	if p.json {
		return p.printJSON(map[string]any{"file": name, "bytes": info.Size()})
	}
	fmt.Fprintf(p.out, "%s  %s\n", name, humanize.IBytes(uint64(info.Size())))
	return nil
}

func (p *program) bundleImportCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "import FILE… | -",
		Short: "Give bundles, or photographs of QR sheets, to the daemon",
		Long: `Gives bundles to the daemon, which checks every signature and keeps what is new. It can be interrupted and repeated:
what is known is passed over quickly. Of a damaged or cut file everything whole is imported, and the rest is named;
then the exit code is 1. Images of QR sheets go in together, in any order.`,
		Example: `  openline bundle import /media/usb/all.openline
  openline bundle import - < all.openline
  openline bundle import sheet-*.png`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			inputs, err := p.bundleInputs(args)
			if err != nil {
				return err
			}
			var errs []error
			for _, in := range inputs {
				errs = append(errs, p.importOne(cmd.Context(), in))
			}
			return errors.Join(errs...)
		},
	}
}

// exportSheets shows a bundle as QR codes, or writes them as pictures.
func (p *program) exportSheets(ctx context.Context, q api.BundleQuery, name string, force bool) error {
	var raw bytes.Buffer
	if err := p.client().Export(ctx, q, &raw); err != nil {
		return err
	}
	size := paperSheet
	if name == "-" {
		size = terminalSheet
	}
	texts, err := sheets(raw.Bytes(), size)
	if err != nil {
		return &api.Hint{Err: err, Hint: "choose less: --since, --topic, --author or --max-size"}
	}
	for i, text := range texts {
		if name == "-" {
			fmt.Fprintf(p.out, "%d of %d\n", i+1, len(texts))
			if err := printQR(p.out, text); err != nil {
				return err
			}
			continue
		}
		ext := filepath.Ext(name)
		if ext == "" {
			ext = ".png"
		}
		file := fmt.Sprintf("%s-%d%s", strings.TrimSuffix(name, filepath.Ext(name)), i+1, ext)
		if err := writeSheet(file, text, force); err != nil {
			return err
		}
		fmt.Fprintln(p.out, file)
	}
	return nil
}

func writeSheet(file, text string, force bool) error {
	flags := os.O_WRONLY | os.O_CREATE | os.O_EXCL
	if force {
		flags = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	}
	f, err := os.OpenFile(file, flags, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return &api.Hint{Err: fmt.Errorf("%s is there already", file), Hint: "add --force to overwrite it, or name another file"}
	}
	if err != nil {
		return err
	}
	return errors.Join(writeQR(f, text), f.Close())
}

func (p *program) importOne(ctx context.Context, in bundleInput) error {
	r, err := in.open()
	if err != nil {
		return err
	}
	defer r.Close()
	counted := &countingReader{Reader: r}
	stop := p.showProgress(in, counted)
	report, err := p.client().Import(ctx, counted)
	stop()
	if err != nil {
		if ctx.Err() != nil {
			fmt.Fprintf(p.err, "interrupted: what came so far is kept; import %s again to go on\n", in.name)
		}
		return err
	}
	if p.json {
		err = p.printJSON(report)
	} else {
		p.printReport(in.name, report)
	}
	if len(report.Damage) > 0 {
		return errors.Join(err, &api.Hint{Err: fmt.Errorf("%s is damaged", in.name), Hint: "everything whole was imported; get another copy for the rest"})
	}
	return err
}

func (p *program) printReport(name string, r api.ImportReport) {
	fmt.Fprintf(p.out, "%s: %d events: %d new, %d known", name, r.Events, r.New, r.Known)
	for _, code := range slices.Sorted(maps.Keys(r.Refused)) {
		fmt.Fprintf(p.out, ", %d refused (%s)", r.Refused[code], code)
	}
	fmt.Fprintln(p.out)
	for _, d := range r.Damage {
		fmt.Fprintf(p.err, "%s: %s\n", name, d)
	}
}

// showProgress says on stderr, every second and after the first, how far an import is.
func (p *program) showProgress(in bundleInput, r *countingReader) (stop func()) {
	if p.json {
		return func() {}
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			n := r.n.Load()
			if in.size > 0 {
				fmt.Fprintf(p.err, "%s: %d %% of %s\n", in.name, 100*n/in.size, humanize.IBytes(uint64(in.size)))
			} else {
				fmt.Fprintf(p.err, "%s: %s\n", in.name, humanize.IBytes(uint64(n)))
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}
}

type countingReader struct {
	io.Reader
	n atomic.Int64
}

func (r *countingReader) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	r.n.Add(int64(n))
	return n, err
}
