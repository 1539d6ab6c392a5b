package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"openline/node/api"
)

func (p *program) feedCmd() *cobra.Command {
	var q api.FeedQuery
	var since time.Duration
	cmd := &cobra.Command{
		Use:   "feed",
		Short: "Show notes: what you follow, or of one topic or author; --watch goes on with new ones",
		Long: `Prints notes, the newest last, and between them where some may be missing because this node was cut off. Without --topic, --author or --all it shows what you follow, or everything while you
follow nothing. With --json every line is one Nostr event.`,
		Example: `  openline feed --watch
  openline feed --topic tehran --since 24h
  openline feed --author npub1… -n 5 --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if since > 0 {
				q.Since = time.Now().Add(-since)
			}
			marks := p.marks(cmd.Context())
			err := p.client().Feed(cmd.Context(), q, func(i api.FeedItem) error {
				if err := marks.upTo(time.Unix(i.Event.CreatedAt(), 0)); err != nil {
					return err
				}
				return p.printNote(i)
			})
			if err != nil {
				return err
			}
			return marks.rest()
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&q.Topics, "topic", nil, "`TOPIC`, with or without #; repeatable")
	f.StringArrayVar(&q.Authors, "author", nil, "`WHO`: npub1…, a hex key, or the name of someone you follow; repeatable")
	f.DurationVar(&since, "since", 0, "only notes younger than this, such as 24h")
	f.IntVarP(&q.Limit, "limit", "n", 50, "how many of the newest notes")
	f.BoolVarP(&q.Watch, "watch", "w", false, "go on with new notes as they come, until interrupted")
	f.BoolVar(&q.All, "all", false, "everybody's notes")
	return cmd
}

// marks returns the gaps of the node. Without them a feed is still a feed.
func (p *program) marks(ctx context.Context) *gapMarks {
	m := &gapMarks{print: func(g api.Gap) error {
		out := p.out
		if p.json {
			out = p.err // every line on stdout is an event
		}
		_, err := fmt.Fprintf(out, "-- %s\n", gapInWords(g))
		return err
	}}
	if s, err := p.client().Status(ctx); err == nil {
		m.gaps = s.Reach.Gaps
	}
	return m
}

// printNote prints one note for a person, or as one line of JSON.
func (p *program) printNote(i api.FeedItem) error {
	if p.json {
		_, err := fmt.Fprintf(p.out, "%s\n", i.Event.AppendJSON(nil))
		return err
	}
	who := shortKey(i.Event.PubKey().Npub())
	if i.Name != "" {
		who = i.Name + " (" + who + ")"
	}
	at := time.Unix(i.Event.CreatedAt(), 0).Local().Format("2006-01-02 15:04")
	text := strings.ReplaceAll(i.Event.Content(), "\n", "\n    ")
	_, err := fmt.Fprintf(p.out, "%s  %s\n    %s\n", at, who, text)
	return err
}

// shortKey keeps both ends of an npub: the beginning alone is easy to imitate.
func shortKey(npub string) string { return npub[:10] + "…" + npub[len(npub)-6:] }
