package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/dustin/go-humanize/english"
	"github.com/spf13/cobra"

	"openline/node/api"
)

func (p *program) doctorCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Find out what works on this network, what is blocked and how, and what to do next",
		Long: `Has the daemon try every way of finding nodes and every carrier to the nodes that it knows, and says in plain words what
works, what is blocked, how that looks, and what to do next. It takes up to a minute, through Tor three. It makes no
connection that the daemon's --mode forbids, and prints no
address of a node. In mode open it asks the system's resolver, too, for names that your settings bring into play.

It sees what happens on this line, not who does it: a cable that is cut and a censor who cuts look the same.`,
		Example: `  openline doctor
  openline doctor --json | jq -r '.causes[].code'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !p.json {
				fmt.Fprintln(p.err, "trying everything that the mode allows; this takes up to a minute …")
			}
			d, err := p.client().Diagnose(cmd.Context())
			if err != nil {
				return err
			}
			if p.json {
				return p.printJSON(d)
			}
			return printDiagnosis(p.out, d)
		},
	}
}

func printDiagnosis(out io.Writer, d api.Diagnosis) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%d of %s reached, in mode %s\n", d.Reached, english.Plural(d.Known, "known node", ""), d.Mode)
	fmt.Fprintln(w, "\ncarriers")
	for _, c := range d.Carriers {
		fmt.Fprintf(w, "  %s\t%s\n", c.Carrier, carrierState(c))
	}
	fmt.Fprintln(w, "\nways of finding nodes")
	for _, s := range d.Sources {
		state := english.Plural(s.Found, "node", "")
		if s.Error != "" {
			state = s.Error
		}
		fmt.Fprintf(w, "  %s\t%s\n", s.Source, state)
	}
	if len(d.Resolvers)+len(d.Names) > 0 {
		fmt.Fprintln(w, "\nlooking up names")
	}
	for _, r := range d.Resolvers {
		state := "blocked"
		if r.Works {
			state = "works"
		}
		fmt.Fprintf(w, "  %s\t%s\n", r.Resolver, state)
	}
	for _, n := range d.Names {
		fmt.Fprintf(w, "  %s\t%s\n", n.Name, nameState(n.Clear))
	}
	if len(d.Causes) > 0 {
		fmt.Fprintln(w, "\nwhat is in the way")
	}
	for _, c := range d.Causes {
		fmt.Fprintf(w, "- %s\n", c.Text)
	}
	fmt.Fprintln(w, "\nwhat to do")
	for _, n := range d.Next {
		fmt.Fprintf(w, "- %s\n", n)
	}
	return w.Flush()
}

// carrierState is one line about a carrier.
func carrierState(c api.CarrierCheck) string {
	switch {
	case !c.Allowed:
		return "not allowed by --mode or --carriers"
	case c.Tried == 0:
		return "no known node has an address for it"
	case c.Worked == 0:
		return "does not work: " + c.Text
	}
	state := fmt.Sprintf("works: %s until connected, %s a second", (time.Duration(c.Millis) * time.Millisecond).String(), humanize.Bytes(uint64(c.Rate)))
	if c.Worked < c.Tried {
		state += fmt.Sprintf(" (%d of %s)", c.Worked, english.Plural(c.Tried, "address", "addresses"))
	}
	if c.Text != "" {
		state += ". " + c.Text
	}
	return state
}

func nameState(clear string) string {
	switch clear {
	case api.NameTrue:
		return "the answer in clear is true"
	case api.NameFalse:
		return "the answer in clear is FALSE: DNS is poisoned"
	case api.NameSilent:
		return "no answer in clear"
	case api.NameUnasked:
		return "not asked in clear: the mode forbids it"
	}
	return "nothing to compare the answer in clear with"
}
