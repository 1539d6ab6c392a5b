//go:build linux

package e2e

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// lanScript brings up a network of its own, invisible outside, and lets two daemons find each other in it.
const lanScript = `
set -eu
ip link set lo up
ip link add lan0 type veth peer name lan1
ip link set lan1 up
ip addr add 10.77.0.1/24 dev lan0
ip link set lan0 multicast on up
ip route add 224.0.0.0/4 dev lan0
for i in 1 2; do
  "$OPENLINE" daemon --data "$DIR/$i" --api 127.0.0.1:0 --listen /ip4/10.77.0.1/tcp/0 --network "net$(( i == 2 && OTHER ? 2 : 1 ))" >/dev/null &
done
for try in $(seq "$TRIES"); do
  sleep 0.1
  "$OPENLINE" peers --data "$DIR/1" 2>/dev/null | grep lan && break
done
"$OPENLINE" peers --data "$DIR/1"
`

// TestNeighboursOnTheLANFindEachOther runs in a network namespace, so that its multicast leaves nothing.
func TestNeighboursOnTheLANFindEachOther(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("unshare", "-Urnpf", "sh", "-c", "ip link add x type veth peer name y").CombinedOutput()
	need(t, err == nil, "network namespaces for an ordinary user: unshare -Urn, ip: "+strings.TrimSpace(string(out)))
	path, err := openline()
	if err != nil {
		t.Fatal(err)
	}
	run := func(other, tries string) string {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, "unshare", "-Urnpf", "--kill-child", "sh", "-c", lanScript) // all end with sh
		cmd.WaitDelay = time.Second
		cmd.Env = append(os.Environ(), "OPENLINE="+path, "DIR="+t.TempDir(), "OTHER="+other, "TRIES="+tries)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	if out := run("0", "150"); !strings.Contains(out, " lan ") || !strings.Contains(out, "/ip4/10.77.0.1/tcp/") {
		t.Errorf("two daemons on one LAN did not find each other:\n%s", out)
	}
	if out := run("1", "30"); !strings.Contains(out, "no peers yet") {
		t.Errorf("daemons of different networks connected:\n%s", out)
	}
}
