package e2e

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestQuickStartOfTheReadmeWorks runs the commands of the README's quick start as they stand there, in a copy of the
// tree and with a home of its own. The environment keeps the daemons on loopback.
func TestQuickStartOfTheReadmeWorks(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?s)\n## Quick start\n.*?\n```sh\n(.*?)```").FindSubmatch(readme)
	if m == nil {
		t.Fatal("the README has no quick start with a block of commands")
	}
	bash, err := exec.LookPath("bash")
	need(t, err == nil, "bash")
	l, err := net.Listen("tcp", "127.0.0.1:4869")
	need(t, err == nil, "a free port 4869 on loopback")
	l.Close()

	dir := t.TempDir()
	for _, part := range []string{"cmd", "node", "protocol", "bootstrap"} {
		if err := os.CopyFS(filepath.Join(dir, part), os.DirFS(filepath.Join("..", part))); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"go.mod", "go.sum"} {
		raw, err := os.ReadFile(filepath.Join("..", file))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, file), raw, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	script := "set -eu\ntrap 'kill $(jobs -p); wait' EXIT\n" + string(m[1])
	ctx, cancel := context.WithTimeout(context.Background(), 4*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, bash, "-c", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME=", "XDG_CONFIG_HOME=", "OPENLINE_LAN=false",
		"OPENLINE_LISTEN=/ip4/127.0.0.1/tcp/0", "GOFLAGS=-buildvcs=false", "GOCACHE="+goEnv(t, "GOCACHE"), "GOMODCACHE="+goEnv(t, "GOMODCACHE"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("the quick start failed: %v\n%s", err, out)
	}
	if last := string(out); !strings.Contains(last, "    the bridge is open #tehran") || !strings.Contains(last, "posted, on its way to 1 peer") {
		t.Errorf("the note did not arrive:\n%s", last)
	}
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}
