package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"openline/node/api"
)

func (p *program) postCmd() *cobra.Command {
	var d api.Draft
	var wait int
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "post TEXT… | -",
		Short: "Post a note of up to 140 characters; #words in it become its topics",
		Long: `Signs a note with your key, which is made now if you have none, and hands it to the daemon. It prints the note's id
once the note is safe on this machine's disk, and says on stderr where it goes from here. "-" reads the text from
standard input. With --wait it stays until so many other nodes have shown that they hold the note, and fails when they
have not in time; the note travels all the same.`,
		Example: `  openline post "the bridge is open #tehran"
  openline post --wait 3 "we are at the hospital #tehran"
  echo "all well here" | openline post -
  openline post --reply 5c83da77af1dec6d7289834998ad7aafbd9e2191396d75ec3cc27f5a77226f36 thanks`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d.Text = strings.Join(args, " ")
			if len(args) == 1 && args[0] == "-" {
				raw, err := io.ReadAll(io.LimitReader(p.in, 64<<10))
				if err != nil {
					return fmt.Errorf("read standard input: %w", err)
				}
				d.Text = strings.TrimRight(string(raw), "\r\n")
			}
			r, err := p.client().Post(cmd.Context(), d)
			if err != nil {
				return err
			}
			if !p.json {
				fmt.Fprintln(p.out, r.ID)
				fmt.Fprintln(p.err, r.Message)
			}
			held := 0
			if wait > 0 {
				held, err = p.awaitHolders(cmd.Context(), r.ID, wait, timeout)
			}
			if p.json {
				return errors.Join(p.printJSON(postAnswer{r, held}), err)
			}
			return err
		},
	}
	cmd.Flags().StringArrayVar(&d.Topics, "topic", nil, "a topic besides the #words in the text; repeatable")
	cmd.Flags().StringVar(&d.Reply, "reply", "", "`ID` of the note that this one answers")
	cmd.Flags().IntVar(&wait, "wait", 0, "stay until `N` other nodes hold the note")
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long --wait may take")
	return cmd
}

// postAnswer is what --json prints.
type postAnswer struct {
	api.Receipt
	HeldBy int `json:"held_by"`
}

// awaitHolders waits until so many nodes hold a note.
func (p *program) awaitHolders(ctx context.Context, id string, want int, timeout time.Duration) (int, error) {
	for end := time.Now().Add(timeout); ; {
		h, err := p.client().Holders(ctx, id, want, time.Until(end))
		switch {
		case err != nil:
			return 0, err
		case h.HeldBy >= want:
			fmt.Fprintln(p.err, heldInWords(h.HeldBy))
			return h.HeldBy, nil
		case !time.Now().Before(end):
			return h.HeldBy, &api.Hint{Err: fmt.Errorf("after %v the note is known to be held by %d other nodes, not %d", timeout, h.HeldBy, want),
				Hint: "it is safe here and travels on; openline status shows how many hold it"}
		}
	}
}
