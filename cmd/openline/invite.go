package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/dustin/go-humanize/english"
	"github.com/spf13/cobra"

	"openline/node"
	"openline/node/api"
	"openline/protocol"
)

func (p *program) inviteCmd() *cobra.Command {
	var d api.InviteDraft
	var qr bool
	cmd := &cobra.Command{
		Use:   "invite",
		Short: "Make a link by which others join, over carriers that a censor does not recognise where there are any",
		Long: `Makes an invite: a link that leads to this node if it can be reached, to bridges that let you in, and to relays that
you are connected to. Whoever has the link can use it until it is used up, expires, or you revoke it, so send it over a
channel that you trust, one link for each circle of people: if one leaks, you revoke that one alone.`,
		Example: `  openline invite --uses 5 --expires 72h
  openline invite --qr`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			i, err := p.client().Invite(cmd.Context(), d)
			if err != nil {
				return err
			}
			if p.json {
				return p.printJSON(i)
			}
			if qr {
				if err := printQR(p.out, i.Link); err != nil {
					return err
				}
			}
			fmt.Fprintln(p.out, i.Link)
			fmt.Fprintf(p.err, "invite %s for %s, until %s; it leads to %s\n", i.ID, people(i.Uses), clock(i.Expires), english.Plural(i.Peers, "node", ""))
			return nil
		},
	}
	f := cmd.Flags()
	f.IntVar(&d.Uses, "uses", 1, "`N` people may join by it; 0: any number")
	f.DurationVar(&d.Lifetime, "expires", 72*time.Hour, "how long people have to join, such as 72h; who has joined may stay")
	f.BoolVar(&qr, "qr", false, "show the link as a QR code, too")
	f.BoolVar(&d.Standing, "standing", false, "for an address that is published in a list: the link itself lets in, for as long as it holds")
	return cmd
}

func people(uses int) string {
	switch uses {
	case 0:
		return "any number of people"
	case 1:
		return "one person"
	}
	return fmt.Sprintf("%d people", uses)
}

func (p *program) joinCmd() *cobra.Command {
	var network string
	cmd := &cobra.Command{
		Use:   "join LINK | -",
		Short: "Join by an invite",
		Long: `Takes up an invite. A running daemon connects at once; without one the invite is kept for its next start. A link can
also come on standard input, so that it stays out of the shell's history.`,
		Example: `  openline join openline:join?…
  pbpaste | openline join -`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			link := args[0]
			if link == "-" {
				raw, err := io.ReadAll(io.LimitReader(p.in, 4*protocol.MaxInviteLink))
				if err != nil {
					return fmt.Errorf("read the link: %w", err)
				}
				link = string(raw)
			}
			j, err := p.client().Join(cmd.Context(), link)
			later := errors.Is(err, api.ErrNoDaemon)
			if later {
				cfg := node.DefaultConfig()
				cfg.Dir, cfg.Network = p.data, network
				j, err = node.JoinLater(cfg, link)
			}
			if err != nil {
				return err
			}
			if p.json {
				return p.printJSON(j)
			}
			fmt.Fprintf(p.out, "joined: %s by %s\n", english.Plural(j.Peers, "node", ""), strings.Join(j.Carriers, ", "))
			if later {
				fmt.Fprintln(p.out, `no daemon is running here; it connects when you start one with "openline daemon"`)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&network, "network", node.DefaultConfig().Network, "`NAME` of the network that the daemon will be in, when none is running")
	return cmd
}

func (p *program) invitesCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "invites",
		Short:   "List the invites that you have made, or revoke one",
		Example: "  openline invites\n  openline invites revoke 1f3a9c02",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := p.client().Invites(cmd.Context())
			if err != nil {
				return err
			}
			if p.json {
				return p.printJSON(list)
			}
			for _, i := range list {
				fmt.Fprintf(p.out, "%s  %s\n", i.ID, inviteState(i))
			}
			if len(list) == 0 {
				fmt.Fprintln(p.out, `no invites; make one with "openline invite"`)
			}
			return nil
		},
	}
	cmd.AddCommand(&cobra.Command{
		Use:     "revoke ID",
		Short:   "End an invite and cut off whoever came by it, and nobody else",
		Example: "  openline invites revoke 1f3a9c02",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			i, err := p.client().Revoke(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if p.json {
				return p.printJSON(i)
			}
			fmt.Fprintf(p.out, "revoked; %s cut off\n", english.Plural(i.Joined, "member", ""))
			return nil
		},
	})
	return cmd
}

func inviteState(i api.Issued) string {
	state := "until " + clock(i.Expires)
	switch {
	case i.Revoked:
		state = "revoked"
	case i.Over:
		state = "used up or expired"
	}
	uses := "any number"
	if i.Uses > 0 {
		uses = fmt.Sprint(i.Uses)
	}
	if i.Parent != "" {
		state += ", handed on by a member of " + i.Parent
	}
	return fmt.Sprintf("%d of %s joined, %s", i.Joined, uses, state)
}
