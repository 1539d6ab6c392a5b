package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"openline": main})
}

// TestScripts runs testdata/script/*.txtar against the real program. A script gets a home of its own; daemons in it
// stay on loopback.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", filepath.Join(env.WorkDir, "home"))
			env.Setenv("XDG_DATA_HOME", "")
			env.Setenv("XDG_CONFIG_HOME", "")
			env.Setenv("OPENLINE_LAN", "false")
			env.Setenv("OPENLINE_NETWORK", "script")
			env.Setenv("OPENLINE_LISTEN", "/ip4/127.0.0.1/tcp/0")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"await": await, "bundle": bundleCommand(t), "damage": damageCommand,
		},
	})
}

// await runs a verb until it succeeds and prints TEXT. usage: await TEXT VERB ARG…
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: await TEXT VERB ARG…")
	}
	end := time.Now().Add(20 * time.Second)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		cmd := exec.CommandContext(ctx, "openline", args[1:]...)
		cmd.Env = append(os.Environ(), "HOME="+ts.Getenv("HOME"), "PATH="+ts.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		cancel()
		if err == nil && strings.Contains(string(out), args[0]) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("openline %v never printed %q; last: %s%v", args[1:], args[0], out, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
