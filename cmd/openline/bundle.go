package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/dustin/go-humanize/english"
	"github.com/spf13/cobra"

	"openline/protocol"
)

func (p *program) bundleCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bundle",
		Short: "Carry events in a file: for a stick, a mail, or printed codes",
		Long: `A bundle (.openline) is a file of events for roads that are no network. It may be copied, cut, split, merged and damaged
on its way: what is whole in it stays readable, and every event in it is signed by its author.`,
		Example: `  openline bundle export week.openline --since 168h
  openline bundle import from-the-stick.openline
  openline bundle verify from-the-stick.openline
  openline bundle split week.openline --max-size 10MB
  openline bundle merge all.openline mine.openline from-a-friend.openline`,
	}
	cmd.AddCommand(p.bundleExportCmd(), p.bundleImportCmd(), p.bundleVerifyCmd(), p.bundleSplitCmd(), p.bundleMergeCmd())
	return cmd
}

func (p *program) bundleVerifyCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "verify FILE… | -",
		Short: "Say what is whole in a bundle, and whether its events are genuine",
		Long: `Reads bundles, checks the checksums and every signature, and says what is good, what is refused and what is damaged. It
needs no daemon, no key and no network. Pictures of printed codes (PNG, JPEG) are joined first. The exit code is 1 when
anything is damaged, missing or refused. "-" reads from standard input.`,
		Example: `  openline bundle verify *.openline
  openline bundle verify sheet-*.png
  gunzip < old.openline.gz | openline bundle verify - --json | jq .damage`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			sources, err := p.openBundles(args)
			if err != nil {
				return err
			}
			defer closeAll(sources)
			bad := 0
			for _, s := range sources {
				r, err := s.report(cmd.Context())
				if err != nil {
					return err
				}
				if !r.Whole {
					bad++
				}
				if p.json {
					err = p.printJSON(r)
				} else {
					err = r.print(p.out)
				}
				if err != nil {
					return err
				}
			}
			if bad > 0 {
				return fmt.Errorf("%d of %d bundles are damaged or have events that are refused", bad, len(sources))
			}
			return nil
		},
	}
}

// bundleReport is what "bundle verify --json" prints, one line for each bundle.
type bundleReport struct {
	File    string                `json:"file"`
	Whole   bool                  `json:"whole"`   // no damage, nothing refused, all in order
	Network string                `json:"network"` // empty when the header is damaged
	From    int64                 `json:"from"`
	To      int64                 `json:"to"`
	Frames  int                   `json:"frames"`
	Events  int                   `json:"events"` // good ones
	First   int64                 `json:"first"`  // created_at of the oldest good one
	Last    int64                 `json:"last"`
	Refused map[protocol.Code]int `json:"refused"`
	Astray  int                   `json:"out_of_order"`
	Damage  []damageReport        `json:"damage"`
}

type damageReport struct {
	Offset int64  `json:"offset"`
	Length int64  `json:"length"`
	Frame  int    `json:"frame,omitempty"`
	Frames int    `json:"frames,omitempty"`
	Events int64  `json:"events"` // lost; -1 when unknown
	First  int64  `json:"first,omitempty"`
	Last   int64  `json:"last,omitempty"`
	Text   string `json:"text"`
}

// report reads the whole bundle.
func (s *bundleSource) report(ctx context.Context) (bundleReport, error) {
	h := s.reader.Header()
	r := bundleReport{File: s.name, Network: h.Network, From: h.From, To: h.To, Damage: []damageReport{}}
	var last protocol.Event
	for {
		events, err := s.frame(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return bundleReport{}, err
		}
		for _, e := range events {
			if r.Events > 0 && last.Compare(e) >= 0 {
				r.Astray++
			}
			if r.Events == 0 || e.CreatedAt() < r.First {
				r.First = e.CreatedAt()
			}
			r.Last = max(r.Last, e.CreatedAt())
			r.Events++
			last = e
		}
	}
	r.Frames, r.Refused, r.Astray = s.frames, s.refused, r.Astray+s.mislabelled
	for _, d := range s.reader.Damage() {
		r.Damage = append(r.Damage, damageReport(d))
	}
	r.Whole = len(r.Damage) == 0 && len(r.Refused) == 0 && r.Astray == 0
	return r, nil
}

// print says it in words.
func (r bundleReport) print(w io.Writer) error {
	var b strings.Builder
	network := "network unknown"
	if r.Network != "" {
		network = "network " + r.Network
	}
	fmt.Fprintf(&b, "%s: %s, %s good events in %s", r.File, network, humanize.Comma(int64(r.Events)), english.Plural(r.Frames, "frame", ""))
	if r.Events > 0 {
		fmt.Fprintf(&b, ", %s to %s", bundleTime(r.First), bundleTime(r.Last))
	}
	b.WriteString("\n")
	if text := refusedText(r.Refused); text != "" {
		fmt.Fprintf(&b, "  refused: %s\n", text)
	}
	if r.Astray > 0 {
		fmt.Fprintf(&b, "  out of order: %d\n", r.Astray)
	}
	for _, d := range r.Damage {
		fmt.Fprintf(&b, "  damaged: %s\n", d)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (d damageReport) String() string {
	text := fmt.Sprintf("byte %d", d.Offset)
	if d.Length > 1 {
		text = fmt.Sprintf("bytes %d to %d", d.Offset, d.Offset+d.Length-1)
	}
	text += ": " + d.Text
	switch {
	case d.Events == 0:
	case d.Last == protocol.MaxBundleTime:
		text += ", from " + bundleTime(d.First) + " on"
	default:
		text += ", from " + bundleTime(d.First) + " to " + bundleTime(d.Last)
	}
	return text
}

// refusedText lists the reasons, "" when there are none.
func refusedText(refused map[protocol.Code]int) string {
	var parts []string
	for _, code := range slices.Sorted(maps.Keys(refused)) {
		parts = append(parts, fmt.Sprintf("%d %s", refused[code], code))
	}
	return strings.Join(parts, ", ")
}

func bundleTime(seconds int64) string {
	return time.Unix(seconds, 0).UTC().Format("2006-01-02 15:04:05Z")
}
