package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"openline/node/api"
)

func TestGapsStandBetweenTheNotesAroundThem(t *testing.T) {
	day := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	at := func(h int) time.Time { return day.Add(time.Duration(h) * time.Hour) }
	for name, x := range map[string]struct {
		notes []int
		want  []string
	}{
		"around":            {[]int{1, 20}, []string{"note 1", "gap 5", "gap 12", "note 20", "gap 22"}},
		"within":            {[]int{1, 6, 13}, []string{"note 1", "gap 5", "note 6", "gap 12", "note 13", "gap 22"}},
		"before the first":  {[]int{11}, []string{"note 11", "gap 12", "gap 22"}},
		"no notes":          {nil, []string{"gap 5", "gap 12", "gap 22"}},
		"the first is open": {[]int{7}, []string{"gap 5", "note 7", "gap 12", "gap 22"}},
	} {
		var got []string
		m := &gapMarks{gaps: []api.Gap{{From: at(5), To: at(8)}, {From: at(12), To: at(14)}, {From: at(22), To: at(23)}},
			print: func(g api.Gap) error { got = append(got, "gap "+g.From.Format("15")); return nil }}
		for _, h := range x.notes {
			if err := m.upTo(at(h)); err != nil {
				t.Fatal(err)
			}
			got = append(got, "note "+at(h).Format("15"))
		}
		if err := m.rest(); err != nil {
			t.Fatal(err)
		}
		want := slices.Clone(x.want)
		for i := range want {
			kind, h, _ := strings.Cut(want[i], " ")
			if len(h) == 1 {
				want[i] = kind + " 0" + h
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

func TestStatusTellsTheTruthInWords(t *testing.T) {
	var out strings.Builder
	p := &program{out: &out}
	now := time.Now()
	err := p.printStatus(api.Status{Role: "daemon", Network: "main", Peers: 3, PeerList: []api.Peer{{Mesh: true}, {}, {}}, Events: 5,
		Reach: api.Reach{Local: 3, Carriers: map[string]int{"quic": 2, "tcp": 1}, Links: 3, Island: 14, Outside: now.Add(-130 * time.Minute),
			Compared: now, ClockOffset: 7200, ClockPeers: 3, Gaps: []api.Gap{{Kind: api.GapIsland, From: now.Add(-2 * time.Hour), To: now}}},
		Kept:  api.Kept{Logical: 100, Cap: 4 << 30, KeepForHours: 2160, Evicted: 7, Horizon: now.Add(-time.Hour), Full: true},
		Posts: []api.Post{{ID: strings.Repeat("a", 64), CreatedAt: now.Unix(), HeldBy: 6}},
		Feeds: []api.FeedState{{Follow: api.Follow{Topic: "tehran"}, Newest: now, Compared: now}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"3 (3 on local networks, 0 elsewhere; 1 by tcp, 2 by quic)", "about 14 nodes reach each other", "2 hours ago",
		"only the local networks were there", "differ from this one by 2h0m0s", "7 of strangers went", "disk", "held by at least 6 other nodes", "#tehran: newest note now; complete as far as peers knew at"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, out.String())
		}
	}
}

// TestEverySettingOfTheExampleIsRead: what "config init" writes, with the comments taken away, is a settings file.
func TestEverySettingOfTheExampleIsRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.toml")
	env := func(string) (string, bool) { return "", false }
	var out, errOut strings.Builder
	if code := run(t.Context(), []string{"config", "init", "--config", file}, strings.NewReader(""), &out, &errOut, env); code != exitOK {
		t.Fatal(errOut.String())
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	set := regexp.MustCompile(`(?m)^#([a-z-]+ = )`).ReplaceAllString(string(raw), "$1")
	if err := os.WriteFile(file, []byte(set), 0o600); err != nil {
		t.Fatal(err)
	}
	if code := run(t.Context(), []string{"config", "--config", file}, strings.NewReader(""), &out, &errOut, env); code != exitOK {
		t.Errorf("%s\n%s", errOut.String(), set)
	}
}
