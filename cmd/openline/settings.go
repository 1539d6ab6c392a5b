package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"openline/node"
	"openline/node/api"
)

// settle gives every flag that was not set on the command line its value from OPENLINE_NAME, else from the settings
// file, and notes where each came from.
func (p *program) settle(cmd *cobra.Command) error {
	if err := p.fromEnv(cmd.Flags().Lookup("config")); err != nil {
		return err
	}
	file, err := p.readConfig(cmd.Annotations[writesConfig] != "")
	if err != nil {
		return err
	}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if err == nil && f.Name != "help" {
			err = errors.Join(p.fromEnv(f), p.fromFile(f, file))
		}
	})
	if err != nil {
		return err
	}
	if p.data == "" {
		p.data = node.DefaultConfig().Dir
	}
	if _, _, err := net.SplitHostPort(p.api); p.api != "" && err != nil {
		return usagef("for example --api "+node.DefaultAPI, "api: %q is not HOST:PORT", p.api)
	}
	return nil
}

func takesList(f *pflag.Flag) bool {
	switch f.Value.Type() {
	case "stringArray", "stringSlice", "stringToString":
		return true
	}
	return false
}

func envName(flag string) string {
	return "OPENLINE_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

func (p *program) fromEnv(f *pflag.Flag) error {
	value, ok := p.env(envName(f.Name))
	if f.Changed {
		if p.sources[f.Name] == "" {
			p.sources[f.Name] = "flag"
		}
		return nil
	}
	if !ok || value == "" {
		return nil
	}
	values := []string{value}
	if takesList(f) {
		values = strings.Split(value, ",")
	}
	return p.assign(f, values, envName(f.Name))
}

func (p *program) fromFile(f *pflag.Flag, file map[string]any) error {
	value, ok := file[f.Name]
	if !ok || f.Changed {
		return nil
	}
	var values []string
	list, isList := value.([]any)
	if !isList {
		list = []any{value}
	}
	for _, v := range list {
		values = append(values, fmt.Sprint(v))
	}
	if isList && !takesList(f) {
		return usagef("openline config init writes an example", "%s: %q takes one value, not a list", p.config, f.Name)
	}
	return p.assign(f, values, p.config)
}

// assign sets a flag as the command line would, once for each value of a list.
func (p *program) assign(f *pflag.Flag, values []string, source string) error {
	for _, v := range values {
		if err := f.Value.Set(v); err != nil {
			return usagef("", "%s: %q is no value for %s: %w", source, v, f.Name, err)
		}
	}
	f.Changed = true
	p.sources[f.Name] = source
	return nil
}

// readConfig reads the settings file. A missing one is empty unless --config named it and it is to be read.
func (p *program) readConfig(written bool) (map[string]any, error) {
	named := p.config != ""
	if !named {
		p.config = defaultConfigPath()
	}
	raw, err := os.ReadFile(p.config)
	if errors.Is(err, fs.ErrNotExist) && (written || !named) {
		return nil, nil
	}
	if err != nil {
		return nil, usagef("openline config init writes an example", "settings: %w", err)
	}
	file := map[string]any{}
	if err := toml.Unmarshal(raw, &file); err != nil {
		return nil, usagef("openline config init writes an example", "settings in %s: %w", p.config, err)
	}
	names := settingNames()
	for name := range file {
		if !slices.Contains(names, name) {
			return nil, usagef("known are "+strings.Join(names, ", "), "settings in %s: %q is not a setting", p.config, name)
		}
	}
	return file, nil
}

func defaultConfigPath() string {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "openline.toml"
	}
	return filepath.Join(dir, "openline", "config.toml")
}

// settingNames returns the names that a settings file may hold: the flags of the daemon but those of one call.
func settingNames() []string {
	var p program
	root := p.root()
	daemon, _, err := root.Find([]string{"daemon"})
	if err != nil {
		panic(err) // root has no daemon command
	}
	var names []string
	collect := func(f *pflag.Flag) {
		if f.Name != "config" && f.Name != "help" {
			names = append(names, f.Name)
		}
	}
	daemon.Flags().VisitAll(collect)
	root.PersistentFlags().VisitAll(collect)
	slices.Sort(names)
	return names
}

// parseSize reads a number of bytes as people write it, such as 5MB, for a flag.
func parseSize(flag, text, example string, least, most uint64) (uint64, error) {
	n, err := humanize.ParseBytes(text)
	if err != nil || n < least || n > most {
		return 0, usagef(fmt.Sprintf("for example --%s %s", flag, example), "%s: %q is no size", flag, text)
	}
	return n, nil
}

// client returns the daemon's API: at --api if that is set, else where the daemon with the same data directory says
// that it listens.
func (p *program) client() *api.Client {
	base := p.api
	if base == "" || strings.HasSuffix(base, ":0") { // 0 is the daemon's wish for any port

		base = node.DefaultAPI
		if raw, err := os.ReadFile(filepath.Join(p.data, "api")); err == nil {
			base = strings.TrimSpace(string(raw))
		}
	}
	token, err := os.ReadFile(filepath.Join(p.data, "token"))
	if err != nil {
		token = nil // the daemon answers with a hint
	}
	return api.NewClient(loopbackHost(base), strings.TrimSpace(string(token)))
}

// loopbackHost completes ":4869" to this machine.
func loopbackHost(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || host != "" {
		return addr
	}
	return net.JoinHostPort("127.0.0.1", port)
}
