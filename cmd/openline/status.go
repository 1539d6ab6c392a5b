package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
)

// printJSON prints v as one line.
func (p *program) printJSON(v any) error { return json.NewEncoder(p.out).Encode(v) }

func (p *program) statusCmd() *cobra.Command {
	var address bool
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Say how the daemon is: peers, events, addresses",
		Example: "  openline status\n  openline status --json | jq .peers\n  openline status --address",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := p.client().Status(cmd.Context())
			switch {
			case err != nil:
				return err
			case address && len(s.Addresses) == 0:
				return errors.New("no other node can reach this one: it listens nowhere")
			case address:
				_, err = fmt.Fprintln(p.out, s.Addresses[0])
				return err
			case p.json:
				return p.printJSON(s)
			}
			return p.printStatus(s)
		},
	}
	cmd.Flags().BoolVar(&address, "address", false, "print one address alone, for another node's --peer")
	return cmd
}

func (p *program) peersCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "peers",
		Short:   "List the connected nodes",
		Example: "  openline peers --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := p.client().Status(cmd.Context())
			if err != nil {
				return err
			}
			if p.json {
				return p.printJSON(s.PeerList)
			}
			if s.Peers == 0 {
				fmt.Fprintln(p.err, "no peers yet; take up an invite with openline join LINK, or name one with openline daemon --peer MULTIADDR")
			}
			w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
			for _, peer := range s.PeerList {
				mesh := ""
				if peer.Mesh {
					mesh = "mesh"
				}
				at := peer.Address + "/p2p/" + peer.ID
				if peer.Address == "" {
					at = "hidden, by " + peer.Carrier
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", peer.Direction, humanize.Time(peer.Since), mesh, peer.Source, at)
			}
			return w.Flush()
		},
	}
}

func (p *program) topicsCmd() *cobra.Command {
	var since time.Duration
	var n int
	cmd := &cobra.Command{
		Use:     "topics",
		Short:   "List the most active topics now",
		Example: "  openline topics --since 1h -n 10",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			topics, err := p.client().Topics(cmd.Context(), time.Now().Add(-since), n)
			if err != nil {
				return err
			}
			if p.json {
				return p.printJSON(topics)
			}
			if len(topics) == 0 {
				fmt.Fprintln(p.err, "no topics yet")
			}
			w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
			for _, t := range topics {
				fmt.Fprintf(w, "#%s\t%d notes\t%d authors\t%s\n", t.Topic, t.Events, t.Authors, humanize.Time(t.Newest))
			}
			return w.Flush()
		},
	}
	cmd.Flags().DurationVar(&since, "since", 24*time.Hour, "how far back")
	cmd.Flags().IntVarP(&n, "limit", "n", 20, "how many topics")
	return cmd
}
