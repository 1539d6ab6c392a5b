package protocol

import (
	"fmt"
	"strings"

	"github.com/nbd-wtf/go-nostr"
)

var scopes = []string{"live", "late", "client"}

func kindCases(g *generator) {
	for _, kind := range []int{0, 1, 5, 6, 7} {
		for _, s := range scopes {
			g.event(fmt.Sprintf("kind: %d travels, %s", kind, s), "ok", kindOf(kind, "a"), scope(s))
		}
	}
	for _, kind := range []int{2, 3, 4, 8, 16, 1059, 10002, 20001, 22242, 30023, 65535} {
		name := fmt.Sprintf("kind: %d stays, ", kind)
		g.event(name+"live", "kind", kindOf(kind, "a"))
		g.event(name+"late", "kind", kindOf(kind, "a"), scope("late"))
		g.event(name+"client", "ok", kindOf(kind, ""), scope("client"))
	}
}

func clockCases(g *generator) {
	for _, c := range []struct {
		name                      string
		offset                    int64
		verdict, late, fromClient string
	}{
		{"10 minutes ahead", 600, "ok", "ok", "ok"},
		{"10 minutes and a second ahead", 601, "ahead", "ahead", "ahead"},
		{"30 minutes old", -1800, "ok", "ok", "ok"},
		{"30 minutes and a second old", -1801, "stale", "ok", "ok"},
	} {
		for i, want := range []string{c.verdict, c.late, c.fromClient} {
			g.event("clock: "+c.name+", "+scopes[i], want, at(vectorNow+c.offset, note("a")), scope(scopes[i]))
		}
	}
	old := at(1, note("a"))
	g.event("clock: the second 1, late", "ok", old, scope("late"))
	g.event("clock: the last second that can be written", "ahead", at(1<<53-1, note("a")), scope("late"))
	g.event("clock: a kept kind ahead", "ahead", at(vectorNow+601, kindOf(3, "")), scope("client"))
}

// sized returns a profile whose canonical JSON has exactly size bytes.
func sized(size int, unit string) nostr.Event {
	e := signed(kindOf(0, ""))
	rest := size - len(plainJSON(e))
	per := len(plainString(unit)) - 2
	return signed(kindOf(0, strings.Repeat(unit, rest/per)+strings.Repeat("a", rest%per)))
}

func sizeCases(g *generator) {
	for _, c := range []struct{ name, unit string }{{"a", "a"}, {"quotes, escaped", `"`}, {"Persian", "س"}, {"& and < verbatim", "&<"}} {
		g.event("size: 2048 bytes of "+c.name, "ok", sized(2048, c.unit))
		g.event("size: 2049 bytes of "+c.name, "too-large", sized(2049, c.unit))
	}
	e := sized(2048, "a")
	g.event("size: the input's own form does not count", "ok", e, input(strings.ReplaceAll(plainJSON(e), "a", `\u0061`)))
	g.event("size: white space does not count", "ok", e, input("  "+strings.ReplaceAll(plainJSON(e), ",", " ,\n")))
	e = sized(2049, "a")
	noID := strings.Replace(plainJSON(e), `"id":"`+e.ID+`",`, "", 1)
	g.event("size: the id counts even when it is left out", "too-large", e, input(noID))
	e = kindOf(0, "", nostr.Tag{"x", strings.Repeat("a", 2000)})
	g.event("size: a long tag", "too-large", e)
	g.event("size: a kept kind may have more", "ok", kindOf(30023, strings.Repeat("a", 2100)), scope("client"))
}

func shardCases(g *generator) {
	e := signed(note("a", nostr.Tag{"t", "iran"}))
	for s := range 8 {
		verdict := "wrong-shard"
		if s == plainShard(e) {
			verdict = "ok"
		}
		g.event(fmt.Sprintf("shard: #iran under %d", s), verdict, e, under(s))
	}
	other := (plainShard(e) + 1) % 8
	g.event("shard: not looked at late", "ok", e, under(other), scope("late"))
	g.event("shard: not looked at from a client", "ok", e, under(other), scope("client"))
	author := plainShard(signed(note("a")))
	g.event("shard: by author without a topic", "ok", note("a"), under(author))
	g.event("shard: by author does not hold with a topic", "wrong-shard", note("a", nostr.Tag{"t", topicOutside(author)}), under(author))
	second := note("a", nostr.Tag{"t", "iran"}, nostr.Tag{"t", topicOutside(plainShard(e))})
	g.event("shard: the first of two topics counts", "ok", second, under(plainShard(e)))
}

// topicOutside returns a topic of another shard.
func topicOutside(shard int) string {
	for i := 0; ; i++ {
		topic := fmt.Sprintf("topic%d", i)
		if plainShard(note("", nostr.Tag{"t", topic})) != shard {
			return topic
		}
	}
}

// Two things wrong at once: the check that comes first speaks.
func orderCases(g *generator) {
	spoilt := func(e nostr.Event) nostr.Event {
		e = signed(e)
		e.Sig = signed(note("another")).Sig
		return e
	}
	g.event("order: text before clock", "text", at(5, note("")))
	g.event("order: kind before clock", "kind", at(5, kindOf(3, "")))
	g.event("order: id before clock", "id", at(5, note("a")), wrongID)
	g.event("order: shard before size", "wrong-shard", sized(2049, "a"), under((plainShard(sized(2049, "a"))+1)%8))
	g.event("order: size before id", "too-large", sized(2049, "a"), wrongID)
	g.event("order: text before shard", "text", note("", nostr.Tag{"t", "iran"}), under(7-plainShard(note("", nostr.Tag{"t", "iran"}))))
	g.event("order: number of tags before text", "tag", note("\r", tags(33, "x")...))
	g.event("order: control characters before tags", "text", note("\r", nostr.Tag{"t", "Iran"}))
	g.event("order: tags before the note's length", "tag", note("", nostr.Tag{"t", "Iran"}))
	g.event("order: a tag before the next tag", "tag", note("a", nostr.Tag{"t", "Iran"}, nostr.Tag{"-"}))
	g.event("order: protected before a later tag", "protected", note("a", nostr.Tag{"-"}, nostr.Tag{"t", "Iran"}))
	g.event("order: number of topics before expiration", "tag", note("a", append(tags(6, "t", "a"), nostr.Tag{"expiration", "1"})...))
	g.event("order: stale before expired", "stale", at(5, note("a", nostr.Tag{"expiration", "1"})))
	g.event("order: clock before signature", "stale", spoilt(at(5, note("a"))))
	g.event("order: text before signature", "text", spoilt(note("")))
	g.event("order: shape before kind", "malformed", kindOf(3, ""), duplicated)
}

func wrongID(v *vector) {
	i := len(`{"id":"`)
	v.Input = v.Input[:i] + strings.Repeat("0", 64) + v.Input[i+64:]
}

func duplicated(v *vector) { v.Input = strings.Replace(v.Input, `"kind":3,`, `"kind":3,"kind":3,`, 1) }
