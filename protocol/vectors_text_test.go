package protocol

import (
	"strings"

	"github.com/nbd-wtf/go-nostr"
	"github.com/nbd-wtf/go-nostr/nip19"
)

const (
	zwnj   = "\u200c"
	family = "👨\u200d👩\u200d👧\u200d👦" // 7 code points, 25 bytes
)

func noteCases(g *generator) {
	persian := []rune(strings.Repeat("می"+zwnj+"خواهم آزاد باشم ", 9))
	a := strings.Repeat
	g.event("note: 1 character", "ok", note("a"), characters(1))
	g.event("note: empty", "text", note(""))
	g.event("note: one space is not empty", "ok", note(" "), characters(1))
	g.event("note: 140 characters", "ok", note(a("a", 140)), characters(140))
	g.event("note: 141 characters", "text", note(a("a", 141)), characters(141))
	g.event("note: 140 Persian characters, zero-width non-joiners among them", "ok", note(string(persian[:140])), characters(140))
	g.event("note: 141 Persian characters", "text", note(string(persian[:141])), characters(141))
	g.event("note: composed é counts 1", "ok", note(a("\u00e9", 140)), characters(140))
	g.event("note: decomposed é counts 2", "ok", note(a("e\u0301", 70)), characters(140))
	g.event("note: decomposed é is not normalised before counting", "text", note(a("e\u0301", 71)), characters(142))
	g.event("note: a family emoji counts 7", "ok", note(a(family, 20)), characters(140))
	g.event("note: 21 family emoji are 147", "text", note(a(family, 21)), characters(147))
	g.event("note: a flag counts 2", "ok", note(a("🇮🇷", 70)), characters(140))
	g.event("note: a flag too many", "text", note(a("🇮🇷", 71)), characters(142))
	g.event("note: 560 bytes in 140 characters", "ok", note(a("🌊", 140)), characters(140))
	long := "nostr:nevent1" + a("q", 147) // 160 bytes, 10 characters
	g.event("note: 560 bytes with a reference", "ok", note(a("🌊", 100)+long), characters(110))
	g.event("note: 561 bytes with a reference", "text", note(a("🌊", 100)+long+"q"), characters(110))
	g.event("note: no limit of 140 for a profile", "ok", kindOf(0, `{"about":"`+a("a", 300)+`"}`))
	g.event("note: an empty reaction is no empty note", "ok", kindOf(7, "", nostr.Tag{"e", a("0f", 32)}))
}

func referenceCases(g *generator) {
	pub, _ := nostr.GetPublicKey(keyOf("bob"))
	npub, _ := nip19.EncodePublicKey(pub)
	note1, _ := nip19.EncodeNote(a64)
	profile, _ := nip19.EncodeProfile(pub, []string{"wss://relay.example"})
	event, _ := nip19.EncodeEvent(a64, []string{"wss://relay.example"}, pub)
	entity, _ := nip19.EncodeEntity(pub, 30023, "d", nil)
	nsec, _ := nip19.EncodePrivateKey(keyOf("nobody"))
	fill := func(n int) string { return strings.Repeat("a", n-1) + " " }
	for _, code := range []string{npub, note1, profile, event, entity} {
		name, _, _ := strings.Cut(code, "1")
		g.event("reference: "+name+" counts 10", "ok", note(fill(130)+"nostr:"+code), characters(140))
		g.event("reference: "+name+" and a character too many", "text", note(fill(131)+"nostr:"+code), characters(141))
	}
	g.event("reference: two in one note", "ok", note(fill(119)+"nostr:"+npub+" nostr:"+note1), characters(140))
	g.event("reference: two and a character too many", "text", note(fill(120)+"nostr:"+npub+" nostr:"+note1), characters(141))
	g.event("reference: text may follow at once", "ok", note("nostr:"+npub+"، سلام"), characters(16))
	g.event("reference: two with nothing between, the first takes the n of the second", "ok",
		note("nostr:"+npub+"nostr:"+npub), characters(10+68))
	data := strings.Repeat("q", 57)
	g.event("reference: 57 data characters are none", "ok", note(fill(72)+"nostr:npub1"+data), characters(140))
	g.event("reference: 57 data characters and a character too many", "text", note(fill(73)+"nostr:npub1"+data), characters(141))
	g.event("reference: 58 data characters, any checksum", "ok", note(fill(130)+"nostr:npub1"+data+"q"), characters(140))
	g.event("reference: the run of data characters ends at a b", "ok", note("nostr:npub1"+data+"bq"), characters(70))
	g.event("reference: a longer run counts 10 too", "ok", note("nostr:note1"+strings.Repeat("q", 300)), characters(10))
	g.event("reference: without nostr: it is text", "ok", note(npub), characters(63))
	g.event("reference: NOSTR: is text", "ok", note("NOSTR:"+npub), characters(69))
	g.event("reference: an upper-case code is text", "ok", note("nostr:"+strings.ToUpper(npub)), characters(69))
	g.event("reference: a code of another prefix is text", "ok", note("nostr:"+nsec), characters(69))
	g.event("reference: nostr: twice", "ok", note("nostr:nostr:"+npub), characters(16))
	g.event("reference: nostr: alone", "ok", note("nostr:"), characters(6))
}

const a64 = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

func textCases(g *generator) {
	for _, c := range []struct{ name, text, verdict string }{
		{"line feed", "a\nb", "ok"},
		{"tab", "a\tb", "ok"},
		{"carriage return", "a\r\nb", "text"},
		{"U+0000", "a\x00", "text"},
		{"U+0001", "a\x01", "text"},
		{"backspace", "a\b", "text"},
		{"form feed", "a\f", "text"},
		{"U+001F", "a\x1f", "text"},
		{"U+007E", "a~", "ok"},
		{"U+007F", "a\x7f", "text"},
		{"U+0080", "a\u0080", "text"},
		{"U+0085", "a\u0085", "text"},
		{"U+009F", "a\u009f", "text"},
		{"U+00A0", "a\u00a0", "ok"},
		{"U+2028 and U+2029 verbatim", "a\u2028b\u2029", "ok"},
		{"byte order mark inside", "a\ufeff", "ok"},
		{"bidirectional controls", "\u202eabc\u202c\u2066x\u2069", "ok"},
		{"replacement character", "a\ufffd", "ok"},
		{"noncharacters", "\uffff\U0010ffff", "ok"},
		{"& < > / ' verbatim", "a & <b> / ' c", "ok"},
		{"quote and backslash", `say "\n" \`, "ok"},
		{"lone combining mark", "\u0301", "ok"},
	} {
		g.event("text: "+c.name, c.verdict, note(c.text))
	}
	g.event("text: control character in a profile", "text", kindOf(0, "{\r}"))
	g.event("text: control character in a tag", "tag", note("a", nostr.Tag{"x", "a\r"}))
	g.event("text: U+007F in a tag", "tag", note("a", nostr.Tag{"x", "a\x7f"}))
	g.event("text: control character in a tag's name", "tag", note("a", nostr.Tag{"x\x00"}))
	g.event("text: line feed and tab in a tag", "ok", note("a", nostr.Tag{"x", "a\n\tb"}))
	g.event("text: kept kind with all seven escapes", "ok", kindOf(30023, "\b\f\r\n\t\"\\", nostr.Tag{"d", "\b\f\r\n\t\"\\"}), scope("client"))
	g.event("text: kept kind with U+007F and U+0085", "ok", kindOf(30023, "\x7f\u0085"), scope("client"))
	g.event("text: kept kind with U+0001", "text", kindOf(30023, "\x01"), scope("client"))
	g.event("text: kept kind with U+001F in a tag", "tag", kindOf(30023, "", nostr.Tag{"d", "\x1f"}), scope("client"))
}

func tags(n int, tag ...string) []nostr.Tag {
	var ts []nostr.Tag
	for range n {
		ts = append(ts, tag)
	}
	return ts
}

func tagCases(g *generator) {
	p, _ := nostr.GetPublicKey(keyOf("bob"))
	g.event("tags: 32", "ok", note("a", tags(32, "x", "y")...))
	g.event("tags: 33", "tag", note("a", tags(33, "x", "y")...))
	g.event("tags: 8 values", "ok", note("a", nostr.Tag{"x", "1", "2", "3", "4", "5", "6", "7"}))
	g.event("tags: 9 values", "tag", note("a", nostr.Tag{"x", "1", "2", "3", "4", "5", "6", "7", "8"}))
	g.event("tags: a name alone", "ok", note("a", nostr.Tag{"x"}))
	g.event("tags: empty strings", "ok", note("a", nostr.Tag{"", ""}))
	g.event("tags: hex is packed, upper-case and odd hex is not", "ok",
		note("a", nostr.Tag{"p", p, "", p}, nostr.Tag{"x", strings.ToUpper(p), p[:62], p + "00"}, nostr.Tag{p}))
	g.event("tags: protected", "protected", note("a", nostr.Tag{"-"}))
	g.event("tags: protected with a value", "protected", note("a", nostr.Tag{"x"}, nostr.Tag{"-", "y"}))
	g.event("tags: two dashes are another tag", "ok", note("a", nostr.Tag{"--"}))
	g.event("tags: protected kept kind", "protected", kindOf(30023, "a", nostr.Tag{"-"}), scope("client"))
	g.event("tags: kept kind with 33 tags of 9 values", "ok", kindOf(3, "", tags(33, "p", "1", "2", "3", "4", "5", "6", "7", "8")...), scope("client"))
	g.event("tags: kept kind with 64 values", "ok", kindOf(3, "", make(nostr.Tag, 64)), scope("client"))
	g.event("tags: kept kind with 65 values", "tag", kindOf(3, "", make(nostr.Tag, 65)), scope("client"))
}

func topicCases(g *generator) {
	t := func(topics ...string) nostr.Event {
		e := note("a")
		for _, topic := range topics {
			e.Tags = append(e.Tags, nostr.Tag{"t", topic})
		}
		return e
	}
	g.event("topics: 5", "ok", t("a", "b", "c", "d", "e"))
	g.event("topics: 6", "tag", t("a", "b", "c", "d", "e", "f"))
	g.event("topics: the same one 6 times", "tag", t("a", "a", "a", "a", "a", "a"))
	g.event("topics: 64 characters", "ok", t(strings.Repeat("a", 64)))
	g.event("topics: 65 characters", "tag", t(strings.Repeat("a", 65)))
	g.event("topics: 64 Persian characters, 128 bytes", "ok", t(strings.Repeat("آ", 64)))
	g.event("topics: 65 Persian characters", "tag", t(strings.Repeat("آ", 65)))
	g.event("topics: empty", "tag", t(""))
	g.event("topics: none in the tag", "tag", note("a", nostr.Tag{"t"}))
	g.event("topics: more values are no topics", "ok", note("a", nostr.Tag{"t", "iran", "NOT A TOPIC"}))
	g.event("topics: a T tag has none", "ok", note("a", nostr.Tag{"T", "Iran"}))
	g.event("topics: the second is checked too", "tag", t("iran", "Iran"))
	for _, c := range []struct{ name, topic, verdict string }{
		{"ASCII upper case", "Iran", "tag"},
		{"É", "École", "tag"},
		{"e and combining mark", "e\u0301cole", "ok"},
		{"İ (U+0130)", "İstanbul", "tag"},
		{"ı (U+0131)", "ırmak", "ok"},
		{"ß", "straße", "ok"},
		{"ẞ (U+1E9E)", "straẞe", "tag"},
		{"title case ǅ (U+01C5)", "ǅ", "tag"},
		{"modifier letter ᴬ has no lower case", "ᴬ", "ok"},
		{"Roman numeral Ⅷ (U+2167)", "Ⅷ", "tag"},
		{"Cherokee Ꭰ (U+13A0)", "\u13a0", "tag"},
		{"Cherokee ꭰ (U+AB70)", "\uab70", "ok"},
		{"Georgian Mtavruli (U+1C90)", "\u1c90", "tag"},
		{"Deseret 𐐀 (U+10400)", "\U00010400", "tag"},
		{"mathematical bold A (U+1D400) has no lower case", "\U0001d400", "ok"},
		{"U+1C89, upper case since Unicode 16.0 only", "\u1c89", "ok"},
		{"Persian", "ایران", "ok"},
		{"Persian with zero-width non-joiner", "آزادی" + zwnj + "بیان", "ok"},
		{"emoji", "🕊️", "ok"},
		{"digits and punctuation", "18-tir_1378.", "ok"},
		{"number sign", "#iran", "tag"},
		{"number sign inside", "a#b", "tag"},
		{"fullwidth number sign (U+FF03)", "＃iran", "ok"},
		{"space", "a b", "tag"},
		{"line feed", "a\nb", "tag"},
		{"U+0085", "a\u0085b", "tag"},
		{"U+00A0", "a\u00a0b", "tag"},
		{"U+1680", "a\u1680b", "tag"},
		{"U+180E is no white space", "a\u180eb", "ok"},
		{"U+200A", "a\u200ab", "tag"},
		{"U+200B is no white space", "a\u200bb", "ok"},
		{"U+2028", "a\u2028b", "tag"},
		{"U+202F", "a\u202fb", "tag"},
		{"U+205F", "a\u205fb", "tag"},
		{"U+3000", "a\u3000b", "tag"},
		{"64 hex digits are packed", a64, "ok"},
	} {
		g.event("topic: "+c.name, c.verdict, t(c.topic))
	}
	g.event("topic: upper case in a kept kind", "ok", kindOf(30023, "", nostr.Tag{"t", "Iran"}), scope("client"))
}

func expirationCases(g *generator) {
	x := func(values ...string) nostr.Event {
		return note("a", append(nostr.Tag{"expiration"}, values...))
	}
	for _, c := range []struct {
		name, verdict string
		event         nostr.Event
	}{
		{"in a second", "ok", x("1790000001")},
		{"now", "expired", x("1790000000")},
		{"a second ago", "expired", x("1789999999")},
		{"0", "expired", x("0")},
		{"the greatest", "ok", x("9007199254740991")},
		{"2^53", "tag", x("9007199254740992")},
		{"2^64", "tag", x("18446744073709551616")},
		{"leading zeros", "ok", x("000000000000000000001790000001")},
		{"empty", "tag", x("")},
		{"missing", "tag", x()},
		{"a word", "tag", x("tomorrow")},
		{"a letter among digits", "tag", x("17900a0001")},
		{"negative", "tag", x("-1")},
		{"a plus sign", "tag", x("+1790000001")},
		{"a fraction", "tag", x("1790000001.5")},
		{"a space", "tag", x(" 1790000001")},
		{"Persian digits", "tag", x("۱۷۹۰۰۰۰۰۰۱")},
		{"the first tag counts", "ok", note("a", nostr.Tag{"expiration", "1790000001"}, nostr.Tag{"expiration", "1"})},
		{"the second tag is not looked at", "ok", note("a", nostr.Tag{"expiration", "1790000001"}, nostr.Tag{"expiration", "x"})},
		{"another name in upper case", "ok", note("a", nostr.Tag{"Expiration", "1"})},
	} {
		g.event("expiration: "+c.name, c.verdict, c.event)
	}
	late, kept := x("1789999999"), kindOf(30023, "", nostr.Tag{"expiration", "x"})
	g.event("expiration: late", "expired", late, scope("late"))
	g.event("expiration: from a client", "expired", late, scope("client"))
	g.event("expiration: of a deletion", "tag", kindOf(5, "", nostr.Tag{"expiration", "1790000001"}))
	g.event("expiration: malformed in a kept kind", "tag", kept, scope("client"))
	g.event("expiration: a kept kind expires too", "expired", kindOf(30023, "", nostr.Tag{"expiration", "5"}), scope("client"))
}
