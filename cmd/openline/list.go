package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/dustin/go-humanize/english"
	"github.com/spf13/cobra"

	"openline/bootstrap"
	"openline/node"
	"openline/node/api"
	"openline/protocol"
)

// Limits of how long a list that is signed here holds.
const (
	minListLife = time.Hour
	maxListLife = 366 * 24 * time.Hour
)

func (p *program) listCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Sign a list of relays that you publish, or check one",
		Long: `A list names relays, and is signed with a key that you make for it. You publish it on as many HTTPS sites as you can; people
who trust you give its URL and your key to their daemon, which looks for new versions. A site can withhold a list, but not
change it. None of these verbs needs a daemon. Whatever is in a published list is known to the censor, too.`,
		Example: `  openline list key operator.pem
  openline list sign --key operator.pem - < relays > relays.txt
  openline list verify relays.txt
  openline daemon --list 'https://example.org/relays.txt#KEY'`,
		Args: cobra.NoArgs,
	}
	cmd.AddCommand(p.listKeyCmd(), p.listSignCmd(), p.listVerifyCmd())
	return cmd
}

func (p *program) listKeyCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "key FILE",
		Short: "Print the public key in FILE; if there is no such file, make a new key",
		Long: `Prints the public key by which people know your lists. The secret key is in FILE, readable by you alone; it is made if
there is no such file, and never overwritten. Who has it can lead everybody who trusts your lists to relays of theirs: keep
it off the machines that serve them.`,
		Example: "  openline list key operator.pem",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			key, made, err := openListKey(args[0])
			if err != nil {
				return err
			}
			text := bootstrap.ListKeyText(publicListKey(key))
			if p.json {
				return p.printJSON(map[string]any{"key": text, "new": made})
			}
			fmt.Fprintln(p.out, text)
			if made {
				fmt.Fprintf(p.err, "the secret key is new, in %s: keep it secret, and a copy of it\n", args[0])
			}
			return nil
		},
	}
}

// listSigning is how a list is to be signed.
type listSigning struct {
	key, network string
	version      uint64
	expires      time.Duration
}

func (p *program) listSignCmd() *cobra.Command {
	var s listSigning
	cmd := &cobra.Command{
		Use:   "sign --key FILE [ADDRESS… | -]",
		Short: "Sign a list of relays and print it",
		Long: `Signs a list of the relays at these addresses and prints it as one line, to which you may add lines that begin with #. An
ADDRESS is as "openline status --address" prints it on the relay, or the link that "openline invite --standing" prints on a
bridge; let that invite hold as long as the list. "-" reads them from standard input, one a line. Sign again before the list
expires: nobody follows one that has.`,
		Example: `  openline list sign --key operator.pem /ip4/192.0.2.7/udp/4870/quic-v1/p2p/12D3KooW… > relays.txt
  openline list sign --key operator.pem --expires 168h - < relays > relays.txt`,
		RunE: func(_ *cobra.Command, args []string) error { return p.listSign(s, args) },
	}
	f := cmd.Flags()
	f.StringVar(&s.key, "key", "", "`FILE` with the key that signs")
	f.StringVar(&s.network, "network", node.DefaultConfig().Network, "`NAME` of the network that the relays are in")
	f.Uint64Var(&s.version, "version", 0, "`N`, greater than that of your last list (default: the time in unix seconds)")
	f.DurationVar(&s.expires, "expires", 30*24*time.Hour, "how long the list holds, such as 168h")
	return cmd
}

// signedReport is what "list sign --json" prints.
type signedReport struct {
	List    string `json:"list"`
	Key     string `json:"key"`
	Version uint64 `json:"version"`
	Expires int64  `json:"expires"` // unix seconds
	Peers   int    `json:"peers"`
}

func (p *program) listSign(s listSigning, args []string) error {
	if s.key == "" {
		return usagef("openline list key FILE makes one", "a list is signed: name the key with --key FILE")
	}
	if s.expires < minListLife || s.expires > maxListLife {
		return usagef("for example --expires 168h", "expires: a list holds for an hour to a year, not for %s", s.expires)
	}
	addresses, err := p.listAddresses(args)
	if err != nil {
		return err
	}
	key, err := readListKey(s.key)
	if err != nil {
		return err
	}
	now := time.Now()
	l := protocol.List{Network: s.network, Version: s.version, Expires: now.Add(s.expires).Unix()}
	if l.Version == 0 {
		l.Version = uint64(now.Unix())
	}
	peers, warnings, err := node.ListPeers(l.Network, time.Unix(l.Expires, 0), addresses)
	if err != nil {
		return usagef("", "%w", err)
	}
	l.From, l.Peers = publicListKey(key), peers
	text, err := l.Sign(key)
	if err != nil {
		return err
	}
	for _, w := range warnings {
		fmt.Fprintf(p.err, "warning: %s\n", w)
	}
	if p.json {
		return p.printJSON(signedReport{text, bootstrap.ListKeyText(l.From), l.Version, l.Expires, len(l.Peers)})
	}
	fmt.Fprintln(p.out, text)
	fmt.Fprintf(p.err, "%s\npeople take it with: openline daemon --list 'https://HOST/PATH#%s'\n", listInWords(l), bootstrap.ListKeyText(l.From))
	return nil
}

// listAddresses returns the arguments, with the lines of standard input in the place of "-".
func (p *program) listAddresses(args []string) (addresses []string, err error) {
	for _, arg := range args {
		if arg != "-" {
			addresses = append(addresses, arg)
			continue
		}
		lines := bufio.NewScanner(p.in)
		for lines.Scan() {
			if line := strings.TrimSpace(lines.Text()); line != "" && !strings.HasPrefix(line, "#") {
				addresses = append(addresses, line)
			}
		}
		if err := lines.Err(); err != nil {
			return nil, fmt.Errorf("read the addresses: %w", err)
		}
	}
	if len(addresses) == 0 {
		return nil, usagef(`name them, or "-" to read them from standard input, one a line`, "there are no addresses to sign")
	}
	return addresses, nil
}

func (p *program) listVerifyCmd() *cobra.Command {
	var key string
	cmd := &cobra.Command{
		Use:   "verify FILE | -",
		Short: "Say who signed a list, and what is in it",
		Long: `Checks the signature of a list as a mirror serves it, and says what is in it. The exit code is 1 when the signature is
wrong, the list has expired, or another key than --key signed it. "-" reads from standard input.`,
		Example: `  openline list verify relays.txt
  curl -s https://example.org/relays.txt | openline list verify - --key KEY`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return p.listVerify(args[0], key) },
	}
	cmd.Flags().StringVar(&key, "key", "", "public `KEY` that has to have signed it, as \"list key\" prints it")
	return cmd
}

// listReport is what "list verify --json" prints.
type listReport struct {
	Key         string   `json:"key"`
	Network     string   `json:"network"`
	Version     uint64   `json:"version"`
	Expires     int64    `json:"expires"` // unix seconds
	Expired     bool     `json:"expired"`
	Peers       int      `json:"peers"`
	Unreachable int      `json:"unreachable"` // peers that this version has no carrier for
	Carriers    []string `json:"carriers"`
}

func (p *program) listVerify(file, key string) error {
	var want bootstrap.ListKey
	var err error
	if key != "" {
		if want, err = bootstrap.ParseListKey(key); err != nil {
			return usagef("openline list key FILE prints it", "key: %w", err)
		}
	}
	text, err := p.readList(file)
	if err != nil {
		return err
	}
	l, err := protocol.ParseList(text)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	r := listReport{Key: bootstrap.ListKeyText(l.From), Network: l.Network, Version: l.Version, Expires: l.Expires,
		Expired: l.Expired(time.Now()), Peers: len(l.Peers)}
	r.Carriers, r.Unreachable = node.ListCarriers(l.Peers)
	if p.json {
		err = p.printJSON(r)
	} else {
		_, err = fmt.Fprintf(p.out, "signed by %s\n%s\n", r.Key, listInWords(l))
	}
	switch {
	case err != nil:
		return err
	case key != "" && l.From != want:
		return &api.Hint{Err: fmt.Errorf("%s is signed by another key than %s", file, key), Hint: "do not use it: it is somebody else's list"}
	case r.Expired:
		return fmt.Errorf("%s has expired", file)
	}
	return nil
}

// readList reads no more than a list may have, and a byte by which it is seen to have more.
func (p *program) readList(file string) (string, error) {
	in := p.in
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return "", err
		}
		defer f.Close()
		in = f
	}
	raw, err := io.ReadAll(io.LimitReader(in, protocol.MaxListText+1))
	if err != nil {
		return "", fmt.Errorf("read the list: %w", err)
	}
	return string(raw), nil
}

// listInWords says what a list holds and until when.
func listInWords(l protocol.List) string {
	carriers, unreachable := node.ListCarriers(l.Peers)
	text := fmt.Sprintf("network %s, version %d, until %s: %s", l.Network, l.Version, clock(time.Unix(l.Expires, 0)), english.Plural(len(l.Peers), "node", ""))
	if len(carriers) > 0 {
		text += " by " + strings.Join(carriers, ", ")
	}
	if unreachable > 0 {
		text += fmt.Sprintf("; %d of them this version cannot reach", unreachable)
	}
	return text
}
