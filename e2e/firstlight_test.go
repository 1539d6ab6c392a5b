package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"
)

// persian has 140 characters, zero-width non-joiners among them.
var persian = strings.Repeat("می\u200cخواهیم ", 14)

// TestThirdNodeSeesWhatTheFirstPosts is the main job: a - b - c, where a and c never connect.
func TestThirdNodeSeesWhatTheFirstPosts(t *testing.T) {
	t.Parallel()
	b := startDaemon(t)
	a, c := startDaemon(t, b), startDaemon(t, b)
	b.awaitLinks(2)

	lines := c.watch("feed", "--watch", "--json", "--all")
	client := dialNostr(t, c)
	sub, err := client.Subscribe(t.Context(), nostr.Filters{{Kinds: []int{1}}})
	if err != nil {
		t.Fatal(err)
	}
	a.awaitLinks(1)
	if n := a.status().Peers; n != 1 {
		t.Fatalf("a has %d peers, want b alone", n)
	}

	posted := time.Now()
	id := a.run("post", persian, "--topic", "تهران")
	var seen nostr.Event
	if err := json.Unmarshal([]byte(receive(t, lines, "the note in the third node's feed")), &seen); err != nil {
		t.Fatal(err)
	}
	t.Logf("%v from calling post to the line in the feed of the third node", time.Since(posted).Round(time.Millisecond))
	if ok, err := seen.CheckSignature(); seen.ID != id || seen.Content != persian || !ok || err != nil {
		t.Errorf("the feed has another note: %v, signature %v %v", seen, ok, err)
	}
	independent := receive(t, sub.Events, "the note at an independent client")
	if independent.ID != id || independent.Content != persian {
		t.Errorf("the client has another note: %v", independent)
	}

	answer := nostr.Event{Kind: 1, CreatedAt: nostr.Now(), Content: "سلام", Tags: nostr.Tags{{"e", id, "", "root"}, {"p", seen.PubKey}}}
	if err := answer.Sign(nostr.GeneratePrivateKey()); err != nil {
		t.Fatal(err)
	}
	if err := client.Publish(t.Context(), answer); err != nil {
		t.Fatal(err)
	}
	await(t, "answer at the author's node", func() bool {
		return strings.Contains(a.run("feed", "--all", "--json"), answer.ID)
	})
}

// receive returns the next value of a channel.
func receive[T any](t *testing.T, from <-chan T, what string) T {
	t.Helper()
	select {
	case v, ok := <-from:
		if !ok {
			t.Fatalf("the stream ended before %s", what)
		}
		return v
	case <-time.After(patience):
		t.Fatalf("no %s within %v", what, patience)
	}
	panic("unreachable")
}

func TestLongNotesAreRefusedWithAHint(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	_, err := d.try("post", persian+"!")
	if err == nil || !strings.Contains(err.Error(), "141 characters") || !strings.Contains(err.Error(), "hint:") {
		t.Errorf("post of 141 characters: %v", err)
	}
	if got := d.run("feed", "--all", "--json"); got != "" {
		t.Errorf("something was kept: %s", got)
	}
}

func TestPostWithoutPeersTravelsLaterEvenAfterACrash(t *testing.T) {
	t.Parallel()
	b := startDaemon(t)
	a := startDaemon(t)
	id := a.run("post", "alone in the dark")
	if s := a.status(); s.Waiting != 1 {
		t.Errorf("%d events wait, want 1", s.Waiting)
	}
	a.kill()
	a.args = append(a.args, "--peer", b.addr)
	a.start()
	await(t, "the note at b", func() bool { return strings.Contains(b.run("feed", "--all", "--json"), id) })
	await(t, "an empty outbox", func() bool { return a.status().Waiting == 0 })
}

func TestNostrToolsOnBothEnds(t *testing.T) {
	t.Parallel()
	_, err := exec.LookPath("node")
	need(t, err == nil, "Node.js (node)")
	_, err = os.Stat("testdata/nostr-tools/node_modules/nostr-tools")
	need(t, err == nil, "nostr-tools: run npm ci in e2e/testdata/nostr-tools")
	b := startDaemon(t)
	a, c := startDaemon(t, b), startDaemon(t, b)
	b.awaitLinks(2)
	a.awaitLinks(1)
	c.awaitLinks(1)
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", "scenario.mjs", "ws://"+a.api, "ws://"+c.api)
	cmd.Dir = "testdata/nostr-tools"
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil || !strings.HasSuffix(strings.TrimSpace(string(out)), "done") {
		t.Errorf("the scenario failed: %v", err)
	}
}

// dialNostr connects an independent Nostr client.
func dialNostr(t *testing.T, d *daemon) *nostr.Relay {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := nostr.RelayConnect(ctx, "ws://"+d.api)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// watch starts a verb that goes on and returns its lines as they come.
func (d *daemon) watch(args ...string) <-chan string {
	d.t.Helper()
	path, err := openline()
	if err != nil {
		d.t.Fatal(err)
	}
	cmd := exec.Command(path, append(args, "--data", d.dir)...)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	lines := make(chan string, 1024)
	go func() {
		for s := bufio.NewScanner(stdout); s.Scan(); {
			lines <- s.Text()
		}
		close(lines)
	}()
	d.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return lines
}
