// Command openline runs a node of a censorship-resilient message relay, and posts and follows through it.
//
// It refuses to guess: what it cannot do it says on stderr with a hint, and exits 1 (failed), 2 (used wrongly) or
// 3 (no daemon). Only "daemon", "relay" and "demo" open sockets to the world; every other verb talks to the local
// daemon and shows a censor nothing.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"openline/node/api"
	"openline/protocol"
)

// Exit codes.
const (
	exitOK       = 0
	exitFailed   = 1
	exitUsage    = 2
	exitNoDaemon = 3
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.LookupEnv)
	stop()
	os.Exit(code)
}

// program is what the verbs share: where they read and write, and the settings that hold for all of them.
type program struct {
	in       io.Reader
	out, err io.Writer
	env      func(string) (string, bool)
	data     string
	api      string
	config   string
	json     bool
	started  bool // the command line was understood; what fails from here on is no mistake in its use
	sources  map[string]string
}

func run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer, env func(string) (string, bool)) int {
	p := &program{in: in, out: out, err: errOut, env: env, sources: map[string]string{}}
	root := p.root()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return exitOK // interrupted, as the user wished
	}
	return p.exit(err)
}

func (p *program) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "openline",
		Short: "A message relay that no single service, block or cut can silence",
		Long: `Openline floods short signed messages (Nostr events) over a peer-to-peer mesh, so that feeds stay reachable when
a central service is down, blocked, or a country is cut off. Run a daemon, then post and follow through it.`,
		Example: `  openline demo                                     see it work on this machine alone
  openline daemon
  openline join openline:join?…                     an invite from somebody you trust
  openline post "the bridge is open #tehran"
  openline follow '#tehran'
  openline feed --watch`,
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if err := p.settle(cmd); err != nil {
				return err
			}
			p.started = true
			return nil
		},
	}
	f := root.PersistentFlags()
	f.StringVar(&p.data, "data", "", "`DIR` that holds keys and events (default: the system's place for user data)")
	f.StringVar(&p.api, "api", "", "`HOST:PORT` of the local daemon (default: what the daemon with the same --data uses, else 127.0.0.1:4869)")
	f.StringVar(&p.config, "config", "", "settings `FILE` (default: openline/config.toml in the system's place for settings)")
	f.BoolVar(&p.json, "json", false, "print JSON")
	root.AddCommand(p.daemonCmd(), p.relayCmd(), p.demoCmd(), p.postCmd(), p.feedCmd(), p.followCmd(), p.unfollowCmd(),
		p.followingCmd(), p.topicsCmd(), p.statusCmd(), p.peersCmd(), p.inviteCmd(), p.joinCmd(), p.invitesCmd(), p.doctorCmd(),
		p.keyCmd(), p.bundleCmd(), p.listCmd(), p.configCmd(), p.versionCmd())
	return root
}

// exit prints err as people need it and chooses the exit code.
func (p *program) exit(err error) int {
	if err == nil {
		return exitOK
	}
	code, hint := exitFailed, ""
	if !p.started {
		code, hint = exitUsage, "openline --help, or openline VERB --help"
	}
	if errors.Is(err, api.ErrNoDaemon) {
		code, hint = exitNoDaemon, `start one with "openline daemon", or name the right one with --data or --api`
	}
	if u, ok := errors.AsType[*usageError](err); ok {
		code, hint = exitUsage, u.hint
	}
	if h, ok := errors.AsType[*api.Hint](err); ok {
		hint = h.Hint
	}
	if r, ok := errors.AsType[*protocol.Rejection](err); ok && hint == "" {
		hint = rejectionHint(r)
	}
	fmt.Fprintf(p.err, "openline: error: %v\n", err)
	if hint != "" {
		fmt.Fprintf(p.err, "openline: hint: %s\n", hint)
	}
	return code
}

func rejectionHint(r *protocol.Rejection) string {
	if r.Code == protocol.BadText {
		return "a note has 1 to 140 characters; a longer text goes in parts"
	}
	return ""
}

// usageError is a mistake in how the program was called.
type usageError struct {
	err  error
	hint string
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(hint, format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...), hint}
}
