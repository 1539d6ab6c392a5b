package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"openline/node/api"
)

const whoHelp = `WHO is #topic (quote it: the shell takes # for a comment), npub1…, a hex key, or the name of someone you follow.
Whom you follow stays on this machine and is never published.`

func (p *program) followCmd() *cobra.Command {
	return p.followVerb("follow", "Follow topics and authors", "  openline follow '#tehran' npub1…", "following ",
		func(ctx context.Context, who string) (api.Follow, error) { return p.client().Follow(ctx, who) })
}

func (p *program) unfollowCmd() *cobra.Command {
	return p.followVerb("unfollow", "Follow topics and authors no longer", "  openline unfollow '#tehran'", "no longer following ",
		func(ctx context.Context, who string) (api.Follow, error) { return p.client().Unfollow(ctx, who) })
}

// followVerb does something with each WHO and says so.
func (p *program) followVerb(verb, short, example, done string, do func(context.Context, string) (api.Follow, error)) *cobra.Command {
	return &cobra.Command{
		Use: verb + " WHO…", Short: short, Long: whoHelp, Example: example, Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, who := range args {
				f, err := do(cmd.Context(), who)
				if err != nil {
					return err
				}
				if err := p.printFollow(done, f); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func (p *program) followingCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "following",
		Short:   "List what you follow",
		Example: "  openline following --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := p.client().Follows(cmd.Context())
			if err != nil {
				return err
			}
			if p.json {
				return p.printJSON(list)
			}
			if len(list) == 0 {
				fmt.Fprintln(p.err, "you follow nothing yet; openline topics shows what is active")
			}
			for _, f := range list {
				if err := p.printFollow("", f); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func (p *program) printFollow(prefix string, f api.Follow) error {
	if p.json {
		return p.printJSON(f)
	}
	name := "#" + f.Topic
	if f.Author != "" {
		name = f.Npub
		if f.Name != "" {
			name += " (" + f.Name + ")"
		}
	}
	_, err := fmt.Fprintln(p.out, prefix+name)
	return err
}
