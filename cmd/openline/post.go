package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"openline/node/api"
)

func (p *program) postCmd() *cobra.Command {
	var d api.Draft
	cmd := &cobra.Command{
		Use:   "post TEXT… | -",
		Short: "Post a note of up to 140 characters; #words in it become its topics",
		Long: `Signs a note with your key, which is made now if you have none, and hands it to the daemon. It prints the note's id
once the note is safe on this machine's disk, and says on stderr where it goes from here. "-" reads the text from
standard input.`,
		Example: `  openline post "the bridge is open #tehran"
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
			if p.json {
				return p.printJSON(r)
			}
			fmt.Fprintln(p.out, r.ID)
			fmt.Fprintln(p.err, r.Message)
			return nil
		},
	}
	cmd.Flags().StringArrayVar(&d.Topics, "topic", nil, "a topic besides the #words in the text; repeatable")
	cmd.Flags().StringVar(&d.Reply, "reply", "", "`ID` of the note that this one answers")
	return cmd
}
