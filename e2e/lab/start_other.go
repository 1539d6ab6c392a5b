//go:build !linux

package lab

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"testing"
)

// Net is a running world; there are none but on Linux.
type Net struct{}

// Node is a running host.
type Node struct{}

var errSystem = errors.New("network namespaces, which only Linux has")

// Main does nothing here.
func Main(map[string]func(args []string)) {}

// Available says why there can be no lab here.
func Available() error { return errSystem }

// Start skips the test.
func Start(t testing.TB, _ World) *Net {
	t.Helper()
	if os.Getenv("OPENLINE_E2E") != "" {
		t.Fatalf("OPENLINE_E2E is set and this is missing: %v", errSystem)
	}
	t.Skipf("SKIPPED, missing here: %v", errSystem)
	return nil
}

// Host is never called.
func (n *Net) Host(string) *Node { panic(errSystem) }

// SetCensor is never called.
func (n *Net) SetCensor(...Rule) { panic(errSystem) }

// Flows is never called.
func (n *Net) Flows() []Flow { panic(errSystem) }

// Capture is never called.
func (n *Net) Capture() string { panic(errSystem) }

// Addr is never called.
func (h *Node) Addr() netip.Addr { panic(errSystem) }

// Command is never called.
func (h *Node) Command(context.Context, string, ...string) *exec.Cmd { panic(errSystem) }

// Func is never called.
func (h *Node) Func(context.Context, string, ...string) *exec.Cmd { panic(errSystem) }
