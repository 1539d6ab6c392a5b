package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// ids returns the ids in a daemon's feed.
func (d *daemon) ids() map[string]bool {
	d.t.Helper()
	ids := map[string]bool{}
	for line := range strings.Lines(d.run("feed", "--all", "--json", "-n", "5000")) {
		if _, rest, ok := strings.Cut(line, `"id":"`); ok {
			ids[rest[:64]] = true
		}
	}
	return ids
}

func (d *daemon) lacks(ids []string) (missing int) {
	d.t.Helper()
	here := d.ids()
	for _, id := range ids {
		if !here[id] {
			missing++
		}
	}
	return missing
}

// TestTwoIslandsJoinedByAStick: a and b never connect; a file goes from a to b and another one back.
func TestTwoIslandsJoinedByAStick(t *testing.T) {
	t.Parallel()
	a, b, stick := startDaemon(t), startDaemon(t), t.TempDir()
	var all []string
	for i := range 5 {
		all = append(all, a.run("post", fmt.Sprint("from island a, ", i, " #stick")), b.run("post", fmt.Sprint("from island b, ", i, " #stick")))
	}
	there, back := filepath.Join(stick, "there.openline"), filepath.Join(stick, "back.openline")
	a.run("bundle", "export", there)
	if out := b.run("bundle", "import", there); !strings.Contains(out, "5 new, 0 known") {
		t.Errorf("import says %q", out)
	}
	b.run("bundle", "export", "--topic", "stick", back)
	if out := a.run("bundle", "import", back); !strings.Contains(out, "5 new, 5 known") {
		t.Errorf("import says %q", out)
	}
	for _, d := range []*daemon{a, b} {
		if n := d.lacks(all); n > 0 || d.status().Peers > 0 {
			t.Errorf("%d of 10 notes are missing, %d peers", n, d.status().Peers)
		}
	}
	if out := a.run("bundle", "import", back); !strings.Contains(out, "0 new, 10 known") {
		t.Errorf("the same again: %q", out)
	}
}

// TestCutFileGivesWhatIsWhole: the stick was pulled out too early.
func TestCutFileGivesWhatIsWhole(t *testing.T) {
	t.Parallel()
	a, b, stick := startDaemon(t), startDaemon(t), t.TempDir()
	var all []string
	for i := range 25 {
		all = append(all, a.run("post", fmt.Sprint(strings.Repeat("x", 100), i)))
	}
	whole, cut := filepath.Join(stick, "whole.openline"), filepath.Join(stick, "cut.openline")
	a.run("bundle", "export", whole)
	raw, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cut, raw[:len(raw)-60], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := b.try("bundle", "import", cut); err == nil || !strings.Contains(err.Error(), "damaged or cut off") {
		t.Errorf("importing a cut file says %v", err)
	}
	if n := b.lacks(all); n > 0 { // the index alone was cut off
		t.Errorf("%d of 25 notes are missing", n)
	}
	if err := os.WriteFile(cut, raw[:len(raw)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := b.try("bundle", "verify", cut); err == nil {
		t.Error("half a bundle is verified without complaint")
	}
}

// TestSheetsCarryNotes: printed, photographed, imported.
func TestSheetsCarryNotes(t *testing.T) {
	t.Parallel()
	a, b, dir := startDaemon(t), startDaemon(t), t.TempDir()
	var all []string
	for i := range 25 {
		all = append(all, a.run("post", fmt.Sprint("on paper ", i)))
	}
	files := strings.Fields(a.run("bundle", "export", "--qr", filepath.Join(dir, "sheet.png")))
	if len(files) < 2 {
		t.Fatalf("25 notes became %d sheets", len(files))
	}
	if _, err := b.try("bundle", "import", files[0]); err == nil {
		t.Error("one sheet alone is imported")
	}
	b.run(append([]string{"bundle", "import"}, files...)...)
	if n := b.lacks(all); n > 0 {
		t.Errorf("%d of 25 notes are missing", n)
	}
	if out := a.run("bundle", "export", "--qr", "--max-size", "1kB", "-"); !strings.Contains(out, "█") {
		t.Error("nothing is drawn on the terminal")
	}
}

// TestAwayAndBack: what was posted while a daemon was down comes when it is up again, and the other way round.
func TestAwayAndBack(t *testing.T) {
	t.Parallel()
	b := startDaemon(t)
	a := startDaemon(t, b)
	a.awaitLinks(1)
	var all []string
	all = append(all, a.run("post", "--wait", "1", "together"))
	a.kill()
	for i := range 5 {
		all = append(all, b.run("post", fmt.Sprint("while a was away ", i)))
	}
	a.start()
	await(t, "everything on both sides", func() bool { return a.lacks(all)+b.lacks(all) == 0 })
	s := b.status()
	if len(s.Posts) == 0 || s.Reach.Island < 2 {
		t.Errorf("b knows of %d posts and an island of %d nodes", len(s.Posts), s.Reach.Island)
	}
	await(t, "receipts for what a fetched", func() bool {
		for _, p := range b.status().Posts {
			if p.HeldBy < 1 {
				return false
			}
		}
		return true
	})
	if _, err := a.try("post", "--wait", "2", "--timeout", "1s", "only one other is there"); err == nil || !strings.Contains(err.Error(), "held by 1 other") {
		t.Errorf("waiting for two of one: %v", err)
	}
}

// TestFullDiskIsSaidAndSurvived: a daemon on a tiny file system of its own.
func TestFullDiskIsSaidAndSurvived(t *testing.T) {
	t.Parallel()
	need(t, runtime.GOOS == "linux" && exec.Command("unshare", "-Urm", "true").Run() == nil, "unshare -Urm (user namespaces)")
	path, err := openline()
	if err != nil {
		t.Fatal(err)
	}
	// 48 MB: less than what the store leaves free is left as soon as the ballast is there.
	script := `set -e
mount -t tmpfs -o size=48m tmpfs "$1"
"$2" daemon --data "$1/d" --api 127.0.0.1:0 --lan=false --network e2e --listen /ip4/127.0.0.1/tcp/0 >/dev/null 2>"$1/log" &
pid=$!
for i in $(seq 200); do "$2" post --data "$1/d" before >/dev/null 2>&1 && break; sleep 0.05; done
head -c 30000000 /dev/zero > "$1/ballast"
sleep 1.2
echo "full: $("$2" post --data "$1/d" during 2>&1 || true)"
"$2" status --data "$1/d" | grep '^disk'
"$2" feed --data "$1/d" --all | grep -c before
rm "$1/ballast"
for i in $(seq 100); do "$2" post --data "$1/d" after >/dev/null 2>&1 && break; sleep 0.1; done
"$2" feed --data "$1/d" --all | grep after
kill $pid; wait $pid
echo ended well
mount -o remount,ro "$1"
"$2" daemon --data "$1/d" --api 127.0.0.1:4999 --lan=false --network e2e --listen /ip4/127.0.0.1/tcp/0 >/dev/null 2>&1 &
pid=$!
for i in $(seq 200); do "$2" feed --data "$1/d" --api 127.0.0.1:4999 --all 2>/dev/null | grep -q after && break; sleep 0.05; done
echo "locked: $("$2" post --data "$1/d" --api 127.0.0.1:4999 no 2>&1 || true)"
"$2" feed --data "$1/d" --api 127.0.0.1:4999 --all | grep before
kill $pid; wait $pid || true
`
	cmd := exec.Command("unshare", "-Urnm", "--kill-child", "sh", "-c", "ip link set lo up; "+script, "sh", t.TempDir(), path)
	timer := time.AfterFunc(2*patience, func() { cmd.Process.Kill() })
	defer timer.Stop()
	raw, err := cmd.CombinedOutput()
	out := string(raw)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"full: openline: error: the disk is full", "hint: free some space", "disk ", "after", "ended well",
		"locked: openline: error: the directory of the events cannot be written to", "before"} {
		if !strings.Contains(out, want) {
			t.Errorf("it does not say %q:\n%s", want, out)
		}
	}
}
