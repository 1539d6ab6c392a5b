package main

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"

	"openline/node/api"
)

// printStatus says in words how the node is and how far its line reaches.
func (p *program) printStatus(s api.Status) error {
	w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	line := func(label, format string, args ...any) { fmt.Fprintf(w, label+"\t"+format+"\n", args...) }
	line("running", "%s, network %s, for %s", s.Role, s.Network, time.Since(s.Started).Round(time.Second))
	line("peers", "%s", peersInWords(s))
	line("island", "%s", islandInWords(s.Reach))
	if s.Reach.Compared.IsZero() {
		line("history", "not compared with anybody since the start")
	} else {
		line("history", "compared with a peer %s: up to then this node has what that peer had", humanize.Time(s.Reach.Compared))
	}
	for _, g := range s.Reach.Gaps {
		line("gap", "%s", gapInWords(g))
	}
	if o := s.Reach.ClockOffset; o < -clockTolerance || o > clockTolerance {
		line("clock", "the clocks of %d peers differ from this one by %v: if yours is wrong, set it, or others will not take your notes",
			s.Reach.ClockPeers, time.Duration(o)*time.Second)
	}
	line("events", "%s, %s on disk%s", humanize.Comma(int64(s.Events)), humanize.IBytes(uint64(s.Bytes)), keptInWords(s.Kept))
	if s.Kept.Full {
		line("disk", "full: nothing new is taken until there is space; free some, and it goes on by itself")
	}
	if s.Kept.ReadOnly {
		line("disk", "the data directory cannot be written to: what is here can be read, nothing new is taken")
	}
	line("waiting", "%d of your events went to no peer yet", s.Waiting)
	for i, post := range s.Posts {
		line(first(i, "your posts"), "%s… %s: %s", post.ID[:12], humanize.Time(time.Unix(post.CreatedAt, 0)), heldInWords(post.HeldBy))
	}
	for i, f := range s.Feeds {
		line(first(i, "you follow"), "%s: %s", feedName(f.Follow), newestInWords(f))
	}
	line("local door", "%s", s.Websocket)
	for i, a := range s.Addresses {
		line(first(i, "addresses"), "%s", a)
	}
	return w.Flush()
}

// clockTolerance is in seconds: half of the ten minutes that an event may be ahead.
const clockTolerance = 300

// first labels the first line of several.
func first(i int, label string) string {
	if i == 0 {
		return label
	}
	return ""
}

func peersInWords(s api.Status) string {
	if s.Peers == 0 {
		return "none: what you post is kept here and travels as soon as there is one"
	}
	linked := 0
	for _, peer := range s.PeerList {
		if peer.Mesh {
			linked++
		}
	}
	var carriers []string
	for name, n := range s.Reach.Carriers {
		carriers = append(carriers, fmt.Sprintf("%d by %s", n, name))
	}
	slices.Sort(carriers)
	return fmt.Sprintf("%d (%d on local networks, %d elsewhere; %s), %d linked in the mesh", s.Peers, s.Reach.Local, s.Reach.Elsewhere,
		strings.Join(carriers, ", "), linked)
}

func islandInWords(r api.Reach) string {
	outside := "nothing was ever heard from outside the local networks"
	switch {
	case r.Elsewhere > 0:
		outside = "connected beyond the local networks"
	case !r.Outside.IsZero():
		outside = "last heard from outside the local networks " + humanize.Time(r.Outside)
	}
	switch {
	case r.Island <= 1:
		return "this node alone; " + outside
	case r.Links == 0:
		return fmt.Sprintf("this node is alone now; it was on an island of about %d nodes; %s", r.Island, outside)
	}
	return fmt.Sprintf("about %d nodes reach each other, this one included; %s", r.Island, outside)
}

func gapInWords(g api.Gap) string {
	what := "no peer was there"
	if g.Kind == api.GapIsland {
		what = "only the local networks were there"
	}
	return fmt.Sprintf("%s to %s: %s; notes of that time may be missing", clock(g.From), clock(g.To), what)
}

func clock(t time.Time) string { return t.Local().Format("2006-01-02 15:04") }

func keptInWords(k api.Kept) string {
	var parts []string
	if k.Cap > 0 {
		parts = append(parts, fmt.Sprintf("%s of %s used", humanize.IBytes(k.Logical), humanize.IBytes(k.Cap)))
	}
	if k.KeepForHours > 0 {
		parts = append(parts, fmt.Sprintf("strangers' notes stay %d days, yours and what you follow for ever", k.KeepForHours/24))
	}
	if k.Evicted > 0 {
		parts = append(parts, fmt.Sprintf("%s of strangers went, all before %s", humanize.Comma(int64(k.Evicted)), clock(k.Horizon)))
	}
	if parts == nil {
		return ""
	}
	return "; " + strings.Join(parts, "; ")
}

func heldInWords(n int) string {
	switch n {
	case 0:
		return "no other node is known to hold it yet"
	case 1:
		return "held by at least 1 other node"
	}
	return fmt.Sprintf("held by at least %d other nodes", n)
}

func feedName(f api.Follow) string {
	switch {
	case f.Topic != "":
		return "#" + f.Topic
	case f.Name != "":
		return f.Name
	}
	return shortKey(f.Npub)
}

func newestInWords(f api.FeedState) string {
	newest := "no note is here"
	if !f.Newest.IsZero() {
		newest = "newest note " + humanize.Time(f.Newest)
	}
	if f.Compared.IsZero() {
		return newest + "; how far it is behind is not known: no peer was compared with since the start"
	}
	return newest + "; complete as far as peers knew at " + clock(f.Compared)
}

// gapMarks prints where a feed may have holes, between the notes around them.
type gapMarks struct {
	gaps  []api.Gap
	begun bool
	print func(api.Gap) error
}

// upTo prints the gaps that begin before a note that is about to be shown. Those over before the first note are left out.
func (m *gapMarks) upTo(note time.Time) error {
	for len(m.gaps) > 0 && m.gaps[0].From.Before(note) {
		g := m.gaps[0]
		m.gaps = m.gaps[1:]
		if !m.begun && g.To.Before(note) {
			continue
		}
		if err := m.print(g); err != nil {
			return err
		}
	}
	m.begun = true
	return nil
}

// rest prints the gaps after the last note.
func (m *gapMarks) rest() error {
	m.begun = true
	return m.upTo(time.Now().Add(time.Hour))
}
