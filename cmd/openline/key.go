package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"openline/node/api"
)

func (p *program) keyCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Show, make, import, export or protect the key that signs your notes",
		Long: `Your key is your name: whoever has it can post as you for ever, and who loses it cannot get it back. It is made with
your first post and lies in the data directory, readable by you alone.`,
		Example: "  openline key show\n  openline key protect\n  openline key export > key.backup",
		Args:    cobra.NoArgs,
		RunE:    p.keyShow,
	}
	cmd.AddCommand(
		&cobra.Command{Use: "show", Short: "Print your public key", Args: cobra.NoArgs, Example: "  openline key show --json", RunE: p.keyShow},
		p.keyReplace("new", "Make a new key", "  openline key new --replace", false),
		p.keyReplace("import", "Use the key (nsec1…, hex or ncryptsec1…) that is typed or comes on standard input", "  openline key import < key.backup", true),
		&cobra.Command{Use: "export", Short: "Print the secret key: nsec1…, or ncryptsec1… if it is protected", Args: cobra.NoArgs,
			Example: "  openline key export > key.backup", RunE: p.keyExport},
		p.keyPass("protect", "Encrypt the key file with a passphrase (NIP-49); it is asked for after every start of the daemon"),
		p.keyPass("unlock", "Open a protected key until the daemon stops"),
		p.keyPass("unprotect", "Keep the key without a passphrase again"),
	)
	return cmd
}

func (p *program) keyShow(cmd *cobra.Command, _ []string) error {
	k, err := p.client().Key(cmd.Context())
	if err != nil {
		return err
	}
	return p.printKey(k)
}

func (p *program) printKey(k api.Key) error {
	if p.json {
		return p.printJSON(k)
	}
	if !k.Exists {
		fmt.Fprintln(p.err, "no key yet: it is made with your first post")
		return nil
	}
	fmt.Fprintln(p.out, k.Npub)
	switch {
	case k.Locked:
		fmt.Fprintln(p.err, "protected by a passphrase and locked; open it with: openline key unlock")
	case k.Protected:
		fmt.Fprintln(p.err, "protected by a passphrase, open until the daemon stops")
	}
	return nil
}

func (p *program) keyReplace(action, short, example string, reads bool) *cobra.Command {
	c := api.KeyChange{Action: action}
	cmd := &cobra.Command{
		Use: action, Short: short, Example: example, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if reads {
				if c.Secret, err = p.secret("secret key: "); err != nil {
					return err
				}
				if strings.HasPrefix(c.Secret, "ncryptsec1") {
					if c.Passphrase, err = p.secret("its passphrase: "); err != nil {
						return err
					}
				}
			}
			k, err := p.client().SetKey(cmd.Context(), c)
			if err != nil {
				return err
			}
			return p.printKey(k)
		},
	}
	cmd.Flags().BoolVar(&c.Replace, "replace", false, "even if there is a key; the old one is kept in the data directory")
	return cmd
}

func (p *program) keyPass(action, short string) *cobra.Command {
	return &cobra.Command{
		Use: action, Short: short, Example: "  openline key " + action, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			pass, err := p.secret("passphrase: ")
			if err != nil {
				return err
			}
			if action == "protect" && p.terminal() {
				again, err := p.secret("once more: ")
				if err != nil {
					return err
				}
				if again != pass {
					return errors.New("the two passphrases differ; nothing was changed")
				}
			}
			k, err := p.client().SetKey(cmd.Context(), api.KeyChange{Action: action, Passphrase: pass})
			if err != nil {
				return err
			}
			return p.printKey(k)
		},
	}
}

func (p *program) keyExport(cmd *cobra.Command, _ []string) error {
	code, err := p.client().ExportKey(cmd.Context())
	if err != nil {
		return err
	}
	fmt.Fprintln(p.out, code)
	fmt.Fprintln(p.err, "keep it secret: whoever has it can post as you for ever")
	return nil
}

// terminal reports whether a person types on standard input.
func (p *program) terminal() bool {
	f, ok := p.in.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// secret reads one line that is not shown: from the terminal, else from standard input. Secrets are never arguments,
// because those stand in the shell's history and in the list of processes.
func (p *program) secret(prompt string) (string, error) {
	if p.terminal() {
		fmt.Fprint(p.err, prompt)
		raw, err := term.ReadPassword(int(p.in.(*os.File).Fd()))
		fmt.Fprintln(p.err)
		return string(raw), err
	}
	lines, ok := p.in.(*bufio.Reader)
	if !ok {
		lines = bufio.NewReader(p.in)
		p.in = lines // what is buffered belongs to the next secret
	}
	line, err := lines.ReadString('\n')
	if line = strings.TrimRight(line, "\r\n"); line == "" {
		return "", &api.Hint{Err: errors.New("nothing came on standard input"), Hint: "type it when asked, or pipe it in as one line"}
	}
	if err != nil && line != "" {
		err = nil // a last line without an end
	}
	return line, err
}
