package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func (p *program) configCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show the settings, where each comes from, and how to change them",
		Long: `Every flag of the daemon can stand in the settings file (TOML, under the flag's name) or in the environment
(OPENLINE_ and the flag's name in capitals, lists with commas). A flag goes before the environment, the environment
before the file.`,
		Example: "  openline config\n  openline config init\n  OPENLINE_NETWORK=test openline config",
		Args:    cobra.NoArgs,
		RunE:    p.configShow,
	}
	// The daemon's flags, hidden, so that their values in the environment and the file are read as the daemon does.
	p.daemonCmd().Flags().VisitAll(func(f *pflag.Flag) {
		f.Hidden = true
		cmd.Flags().AddFlag(f)
	})
	cmd.AddCommand(
		&cobra.Command{Use: "path", Short: "Print where the settings file is looked for", Args: cobra.NoArgs, Example: "  openline config path",
			RunE: func(*cobra.Command, []string) error {
				_, err := fmt.Fprintln(p.out, p.config)
				return err
			}},
		&cobra.Command{Use: "init", Short: "Write a settings file in which every line is a comment to start from", Args: cobra.NoArgs,
			Example: "  openline config init --config my.toml", Annotations: map[string]string{writesConfig: "true"}, RunE: p.configInit},
	)
	return cmd
}

// writesConfig marks the command that makes the settings file, which therefore need not be there.
const writesConfig = "writes-config"

func (p *program) configShow(cmd *cobra.Command, _ []string) error {
	values := map[string]any{}
	for _, name := range settingNames() {
		f := cmd.Flags().Lookup(name)
		source := p.sources[name]
		if source == "" {
			source = "default"
		}
		value := f.Value.String()
		if name == "data" {
			value = p.data
		}
		if p.json {
			values[name] = map[string]string{"value": value, "source": source}
			continue
		}
		fmt.Fprintf(p.out, "%-13s %s  # %s\n", name, value, source)
	}
	if p.json {
		return p.printJSON(values)
	}
	return nil
}

func (p *program) configInit(*cobra.Command, []string) error {
	var b strings.Builder
	b.WriteString("# Settings of openline. Flags and OPENLINE_* variables go before them.\n")
	p.daemonCmd().Flags().VisitAll(func(f *pflag.Flag) { describeSetting(&b, f) })
	new(program).root().PersistentFlags().VisitAll(func(f *pflag.Flag) { // not p: to define a flag is to set it
		if f.Name != "config" {
			describeSetting(&b, f)
		}
	})
	if err := os.MkdirAll(filepath.Dir(p.config), 0o700); err != nil {
		return fmt.Errorf("write the settings: %w", err)
	}
	f, err := os.OpenFile(p.config, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return usagef("edit it, or name another with --config", "write the settings: %w", err)
	}
	if _, err = f.WriteString(b.String()); err == nil {
		err = f.Close()
	}
	if err != nil {
		return fmt.Errorf("write the settings: %w", err)
	}
	fmt.Fprintln(p.out, p.config)
	return nil
}

func describeSetting(b *strings.Builder, f *pflag.Flag) {
	_, usage := pflag.UnquoteUsage(f)
	value := f.DefValue
	switch f.Value.Type() {
	case "string", "duration":
		value = fmt.Sprintf("%q", value)
	case "stringArray":
		value = "[" + quoteList(f) + "]"
	}
	fmt.Fprintf(b, "\n# %s\n#%s = %s\n", usage, f.Name, value)
}

func quoteList(f *pflag.Flag) string {
	values := f.Value.(pflag.SliceValue).GetSlice()
	for i, v := range values {
		values[i] = fmt.Sprintf("%q", v)
	}
	return strings.Join(values, ", ")
}
