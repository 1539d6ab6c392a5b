package api

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

func TestOtherUsersOfTheMachineGetNotAByte(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("SKIPPED, missing here: root, to be somebody else")
	}
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("SKIPPED, missing here: bash")
	}
	daemon := serve(t, newFake(), nil)
	relay := serve(t, newFake(), func(c *Config) { c.Public = true })
	for _, x := range []struct {
		name string
		d    *door
		uid  uint32
		want string
	}{
		{"the administrator", daemon, 0, "ok"},
		{"nobody", daemon, 65534, ""},
		{"nobody at a relay", relay, 65534, "ok"},
	} {
		port := x.d.addr[strings.LastIndexByte(x.d.addr, ':')+1:]
		script := fmt.Sprintf(`exec 3<>/dev/tcp/127.0.0.1/%s; printf 'GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n' >&3; tail -n 1 <&3`, port)
		cmd := exec.Command(bash, "-c", script)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: x.uid, Gid: x.uid}}
		out, _ := cmd.Output() // who is cut off has an error
		if got := strings.TrimSpace(string(out)); got != x.want {
			t.Errorf("%s got %q, want %q", x.name, got, x.want)
		}
	}
}

func TestTableAddresses(t *testing.T) {
	for in, want := range map[string]string{
		"0100007F:1305":                         "127.0.0.1:4869",
		"0000000000000000FFFF00000100007F:1305": "127.0.0.1:4869",
		"00000000000000000000000001000000:0050": "[::1]:80",
		"nonsense":                              "invalid AddrPort",
		"01:1":                                  "invalid AddrPort",
		"0100007F:fffff":                        "invalid AddrPort",
	} {
		if got := tableAddr(in).String(); got != want {
			t.Errorf("tableAddr(%s) = %s, want %s", in, got, want)
		}
	}
}
