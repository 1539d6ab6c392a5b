//go:build linux

package e2e

import (
	"bytes"
	"encoding/base64"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"openline/e2e/lab"
	"openline/protocol"
)

// TestABridgeIsInNothingThatAStrangerSees has a bridge, its member and a stranger in one mesh, with a relay between them
// that the bridge has dialled, and looks through every packet, file, log line and answer of the stranger's for the bridge.
func TestABridgeIsInNothingThatAStrangerSees(t *testing.T) {
	t.Parallel()
	n := lab.Start(t, nation())
	serveCover(t, n)
	names, resolvers := worldNames(t, n)
	relay := settleRelay(t, n, "relay 1")
	bridge := settle(t, n, "bridge", append(bridgeArgs(n), "--peer", relay.addr)...)
	bridge.awaitPeers(1)
	member := settleTrusting(t, n, "user", names, append([]string{"daemon", "--lan=false"}, resolvers...)...)
	member.run("join", bridge.invite().Link)
	stranger := settleTrusting(t, n, "compatriot", names, append([]string{"daemon", "--lan=false", "--peer", relay.addr}, resolvers...)...)
	stranger.awaitLinks(1)
	member.awaitLinks(1)
	stranger.follows(t, "one", member, patience)
	member.follows(t, "two", stranger, patience)

	id, err := peer.Decode(bridge.status().PeerID)
	if err != nil {
		t.Fatal(err)
	}
	ip := n.Host("bridge").Addr().As4()
	marks := map[string][]byte{"address": []byte("8.7.0.1"), "address in bytes": ip[:], "name": []byte("news.example"), "cover": []byte("cover.example"),
		"peer id": []byte(id.String()), "peer id in bytes": []byte(id)[len(id)-32:]}
	seen := map[string][]byte{"log": nil, "packets": packetsOf(t, n, "compatriot")}
	// The doctor asks every peer whom it knows, and the table for relays.
	for _, verb := range []string{"doctor", "status", "peers", "feed", "invites", "topics"} {
		out, err := stranger.tryFor(3*time.Minute, verb, "--json")
		if err != nil {
			t.Fatal(err)
		}
		seen[verb] = []byte(out)
	}
	link, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(stranger.invite().Link, protocol.InviteScheme))
	if err != nil {
		t.Fatal(err)
	}
	seen["its own invite"] = link
	stranger.stop()
	seen["log"] = stranger.stderr.Bytes()
	readAll(t, stranger.dir, seen)
	for what, content := range seen {
		for mark, pattern := range marks {
			if bytes.Contains(content, pattern) {
				t.Errorf("%s of the stranger's has the bridge's %s", what, mark)
			}
		}
	}
	if got := packetsOf(t, n, "user"); !bytes.Contains(got, ip[:]) {
		t.Error("the member's packets do not have the bridge's address: this test finds nothing")
	}
	for _, f := range n.Flows() {
		if strings.Contains(f.Client+f.Server, "192.168.9.1") && strings.Contains(f.Client+f.Server, "8.7.0.1") {
			t.Errorf("%s and %s exchanged packets", f.Client, f.Server)
		}
	}
}

// packetsOf returns the packets from and to a host that crossed the border, one after the other.
func packetsOf(t *testing.T, n *lab.Net, host string) (all []byte) {
	t.Helper()
	addr := n.Host(host).Addr().AsSlice()
	for _, ip := range captured(t, n.Capture()) {
		if bytes.Equal(ip[12:16], addr) || bytes.Equal(ip[16:20], addr) {
			all = append(all, ip...)
		}
	}
	return all
}

func readAll(t *testing.T, dir string, into map[string][]byte) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		into["file "+d.Name()] = raw
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
