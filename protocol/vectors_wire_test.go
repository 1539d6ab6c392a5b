package protocol

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/nbd-wtf/go-nostr"
)

// pbUint and pbBytes are protobuf fields (wire types 0 and 2), written without any library for it.
func pbUint(num int, v uint64) []byte {
	return binary.AppendUvarint([]byte{byte(num << 3)}, v)
}

func pbBytes(num int, v []byte) []byte {
	return append(binary.AppendUvarint([]byte{byte(num<<3 | 2)}, uint64(len(v))), v...)
}

func pbText(num int, s string) []byte { return pbBytes(num, []byte(s)) }

var packable = regexp.MustCompile(`^[0-9a-f]{64}$`)

func wireTag(tag nostr.Tag) []byte {
	var b []byte
	for _, v := range tag {
		if packable.MatchString(v) {
			b = append(b, pbBytes(2, unhexed(v))...)
		} else {
			b = append(b, pbText(1, v)...)
		}
	}
	return b
}

func unhexed(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// wireParts are the fields of e's envelope in their order.
func wireParts(e nostr.Event, nonce uint64) [][]byte {
	parts := [][]byte{pbBytes(1, unhexed(e.PubKey)), pbBytes(2, unhexed(e.Sig))}
	if e.CreatedAt != 0 {
		parts = append(parts, pbUint(3, uint64(e.CreatedAt)))
	}
	if e.Kind != 0 {
		parts = append(parts, pbUint(4, uint64(e.Kind)))
	}
	for _, tag := range e.Tags {
		parts = append(parts, pbBytes(5, wireTag(tag)))
	}
	if e.Content != "" {
		parts = append(parts, pbText(6, e.Content))
	}
	if nonce != 0 {
		parts = append(parts, pbUint(7, nonce))
	}
	return parts
}

func wire(e nostr.Event, nonce uint64) []byte { return slices.Concat(wireParts(e, nonce)...) }

// specExample is the event of SPEC.md section 11.
func specExample() nostr.Event {
	return signed(note("سلام & \"hello\"\n", nostr.Tag{"t", "iran"}, nostr.Tag{"e", a64, "", "reply"}))
}

func envelopeCases(g *generator) {
	bob, _ := nostr.GetPublicKey(keyOf("bob"))
	for _, c := range []struct {
		name  string
		event nostr.Event
		nonce uint64
	}{
		{"a note", note("hello"), 0},
		{"a note in Persian with a topic", note("سلام دنیا", nostr.Tag{"t", "ایران"}), 0},
		{"a reply", note("yes", nostr.Tag{"e", a64, "", "reply"}, nostr.Tag{"p", bob}), 0},
		{"a profile: kind 0 is left out", kindOf(0, "{}"), 0},
		{"a deletion without content", kindOf(5, "", nostr.Tag{"e", a64}), 0},
		{"a tag's name of 64 hex digits", note("a", nostr.Tag{a64, "x"}), 0},
		{"hex before text and after it", note("a", nostr.Tag{"x", a64, "y", a64, ""}), 0},
		{"hex in upper case stays text", note("a", nostr.Tag{"x", strings.ToUpper(a64)}), 0},
		{"hex of 63 and 65 digits stays text", note("a", nostr.Tag{"x", a64[1:], a64 + "a"}), 0},
		{"content of 64 hex digits stays text", note(a64), 0},
		{"a value of 127 bytes", note("a", nostr.Tag{"x", strings.Repeat("a", 127)}), 0},
		{"a value of 128 bytes", note("a", nostr.Tag{"x", strings.Repeat("a", 128)}), 0},
		{"nonce 1", note("hello"), 1},
		{"nonce 127", note("hello"), 127},
		{"nonce 128", note("hello"), 128},
		{"the greatest nonce", note("hello"), 1<<64 - 1},
	} {
		e := signed(c.event)
		g.envelope("envelope: "+c.name, "ok", wire(e, c.nonce), e, stamped(c.nonce))
	}
	e := specExample()
	nonce := uint64(1)
	for plainWork(e.ID, nonce) < 12 {
		nonce++
	}
	g.envelope("envelope: the example of SPEC.md", "ok", wire(e, nonce), e, stamped(nonce))
	e = signed(at(1, note("a")))
	g.envelope("envelope: created_at 1, late", "ok", wire(e, 0), e, scope("late"))
	e = signed(kindOf(3, "a"))
	g.envelope("envelope: a kept kind between a client and its node", "ok", wire(e, 0), e, scope("client"))
}

// envelopeFieldCases changes the fields of one good envelope.
func envelopeFieldCases(g *generator) {
	e := signed(note("hello", nostr.Tag{"p", a64}, nostr.Tag{"x", "y"}))
	const pubkey, sig, createdAt, kind, tag1, tag2, content, nonce = 0, 1, 2, 3, 4, 5, 6, 7
	bad := func(name string, change func(p [][]byte) [][]byte) {
		g.t.Helper()
		g.envelope("envelope: "+name, "malformed", slices.Concat(change(wireParts(e, 5))...), e)
	}
	set := func(i int, b []byte) func([][]byte) [][]byte {
		return func(p [][]byte) [][]byte { p[i] = b; return p }
	}
	good := wire(e, 5)
	g.envelope("envelope: unchanged", "ok", good, e, stamped(5))
	for i, name := range []string{"pubkey", "sig", "created_at", "kind", "first tag", "second tag", "content", "nonce"} {
		if i == pubkey || i == sig {
			bad("without "+name, func(p [][]byte) [][]byte { return slices.Delete(p, i, i+1) })
		}
		if i != tag1 && i != tag2 { // a tag may stand twice
			bad("twice: "+name, func(p [][]byte) [][]byte { return slices.Insert(p, i, p[i]) })
		}
		if i != nonce && i != tag1 {
			bad("out of order: "+name, func(p [][]byte) [][]byte { p[i], p[i+1] = p[i+1], p[i]; return p })
		}
	}
	bad("tags apart from each other", func(p [][]byte) [][]byte { p[tag2], p[content] = p[content], p[tag2]; return p })
	bad("pubkey of 31 bytes", set(pubkey, pbBytes(1, make([]byte, 31))))
	bad("pubkey of 33 bytes", set(pubkey, pbBytes(1, append(unhexed(e.PubKey), 0))))
	bad("pubkey as hex text", set(pubkey, pbText(1, e.PubKey)))
	bad("sig of 63 bytes", set(sig, pbBytes(2, unhexed(e.Sig)[:63])))
	bad("sig of 65 bytes", set(sig, pbBytes(2, append(unhexed(e.Sig), 0))))
	bad("created_at 2^53", set(createdAt, pbUint(3, 1<<53)))
	bad("created_at 2^64-1, which is -1", set(createdAt, pbUint(3, 1<<64-1)))
	bad("created_at as bytes", set(createdAt, pbBytes(3, []byte{1})))
	bad("kind 65536", set(kind, pbUint(4, 65536)))
	bad("kind 65537 is not 1", set(kind, pbUint(4, 65537)))
	bad("kind 2^32 + 1 is not 1", set(kind, pbUint(4, 1<<32+1)))
	bad("content as a varint", set(content, pbUint(6, 1)))
	bad("explicit created_at 0", set(createdAt, pbUint(3, 0)))
	bad("explicit kind 0", set(kind, pbUint(4, 0)))
	bad("explicit empty content", set(content, pbText(6, "")))
	bad("explicit nonce 0", set(nonce, pbUint(7, 0)))
	bad("kind as a fixed32", set(kind, []byte{4<<3 | 5, 1, 0, 0, 0}))
	bad("created_at as a fixed64", set(createdAt, []byte{3<<3 | 1, 1, 0, 0, 0, 0, 0, 0, 0}))
	bad("a group", set(nonce, []byte{7<<3 | 3, 7<<3 | 4}))
	bad("wire type 6", set(nonce, []byte{7<<3 | 6, 1}))
	bad("wire type 7", set(nonce, []byte{7<<3 | 7, 1}))
	bad("field number 0", set(nonce, pbUint(0, 1)))
	for _, unknown := range []int{8, 15} {
		bad(fmt.Sprintf("unknown field %d, a varint", unknown), func(p [][]byte) [][]byte { return append(p, pbUint(unknown, 1)) })
		bad(fmt.Sprintf("unknown field %d, bytes", unknown), func(p [][]byte) [][]byte { return append(p, pbText(unknown, "x")) })
	}
	g.envelope("envelope: empty", "malformed", nil, e)
	for _, cut := range []int{1, 2, 33, 34, 35, 99, 101, 102, len(good) - 3, len(good) - 1} {
		g.envelope(fmt.Sprintf("envelope: cut off after %d bytes", cut), "malformed", good[:cut], e)
	}
	g.envelope("envelope: a zero byte after the end", "malformed", append(slices.Clone(good), 0), e)
	g.envelope("envelope: twice over", "malformed", slices.Concat(good, good), e)
	g.envelope("envelope: an event in JSON", "malformed", []byte(plainJSON(e)), e)
}

func envelopeVarintCases(g *generator) {
	e := signed(note("hello", nostr.Tag{"p", a64}))
	bad := func(name string, i int, b []byte) {
		g.t.Helper()
		p := wireParts(e, 5)
		p[i] = b
		g.envelope("varint: "+name, "malformed", slices.Concat(p...), e)
	}
	key := unhexed(e.PubKey)
	bad("field number in two bytes", 0, slices.Concat([]byte{1<<3 | 2 | 0x80, 0, 32}, key))
	bad("length in two bytes", 0, slices.Concat([]byte{1<<3 | 2, 32 | 0x80, 0}, key))
	bad("kind in two bytes", 3, []byte{4 << 3, 0x81, 0})
	bad("kind in ten bytes", 3, []byte{4 << 3, 0x81, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0})
	bad("nonce in two bytes", 6, []byte{7 << 3, 0x85, 0})
	bad("nonce over 64 bits", 6, []byte{7 << 3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2})
	bad("nonce in eleven bytes", 6, []byte{7 << 3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x81, 0})
	bad("nonce without an end", 6, []byte{7 << 3, 0xff, 0xff})
	bad("content's length in two bytes", 5, append([]byte{6<<3 | 2, 5 | 0x80, 0}, "hello"...))
	bad("content longer than what is left", 5, append([]byte{6<<3 | 2, 100}, "hello"...))
	bad("a length of 2^63", 5, append([]byte{6<<3 | 2, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1}, "hello"...))
	tag := wireTag(e.Tags[0])
	bad("tag's length in two bytes", 4, slices.Concat([]byte{5<<3 | 2, byte(len(tag)) | 0x80, 0}, tag))
	bad("value's length in two bytes", 4, pbBytes(5, slices.Concat([]byte{1<<3 | 2, 0x81, 0}, []byte("p"), tag[3:])))
}

func envelopeTagCases(g *generator) {
	e := signed(note("hello", nostr.Tag{"p", a64}))
	bad := func(name string, tag []byte) {
		g.t.Helper()
		p := wireParts(e, 0)
		p[4] = pbBytes(5, tag)
		g.envelope("tag: "+name, "malformed", slices.Concat(p...), e)
	}
	name, packed := pbText(1, "p"), pbBytes(2, unhexed(a64))
	bad("empty", nil)
	bad("lower-case hex that is not packed", slices.Concat(name, pbText(1, a64)))
	bad("packed value of 31 bytes", slices.Concat(name, pbBytes(2, make([]byte, 31))))
	bad("packed value of 33 bytes", slices.Concat(name, pbBytes(2, make([]byte, 33))))
	bad("packed value of no bytes", slices.Concat(name, pbBytes(2, nil)))
	bad("unknown field 3", slices.Concat(name, packed, pbText(3, "x")))
	bad("unknown field 3, a varint", slices.Concat(name, packed, pbUint(3, 1)))
	bad("value as a varint", slices.Concat(name, pbUint(1, 1)))
	bad("value cut off", slices.Concat(name, packed[:20]))
	bad("field number alone", slices.Concat(name, packed[:1]))

	// Other tags in another order are another event, which nobody signed.
	other := func(title string, tags ...[]byte) {
		g.t.Helper()
		p := wireParts(e, 0)
		p[4] = slices.Concat(tags...)
		changed := signed(note("hello", nostr.Tag{"p", a64}))
		changed.Content = "not what was signed"
		g.envelope("tag: "+title, "bad-signature", slices.Concat(p...), changed)
	}
	other("values in another order", pbBytes(5, slices.Concat(packed, name)))
	other("the same tag twice", pbBytes(5, slices.Concat(name, packed)), pbBytes(5, slices.Concat(name, packed)))
	other("upper-case hex that was packed", pbBytes(5, slices.Concat(name, pbText(1, strings.ToUpper(a64)))))
	other("left out")
}

func envelopeTextCases(g *generator) {
	e := signed(note("hello", nostr.Tag{"x", "y"}))
	for _, c := range []struct{ name, text string }{
		{"byte FF", "a\xff"}, {"a raw surrogate", "\xed\xa0\x80"}, {"an overlong slash", "\xc0\xaf"},
		{"a cut off sequence", "\xe2\x80"}, {"a sequence over U+10FFFF", "\xf4\x90\x80\x80"},
	} {
		p := wireParts(e, 0)
		p[5] = pbText(6, c.text)
		g.envelope("text: "+c.name+" in the content", "malformed", slices.Concat(p...), e)
		p = wireParts(e, 0)
		p[4] = pbBytes(5, pbText(1, c.text))
		g.envelope("text: "+c.name+" in a tag", "malformed", slices.Concat(p...), e)
	}
}

// envelopeRuleCases shows that the rules of events.json hold for envelopes too.
func envelopeRuleCases(g *generator) {
	add := func(name, verdict string, e nostr.Event, options ...option) {
		g.t.Helper()
		if e.Sig == "" {
			e = signed(e)
		}
		g.envelope("rule: "+name, verdict, wire(e, 0), e, options...)
	}
	add("140 characters", "ok", note(strings.Repeat("س", 140)))
	add("141 characters", "text", note(strings.Repeat("س", 141)))
	add("empty note", "text", note(""))
	add("carriage return", "text", note("\r"))
	add("33 tags", "tag", note("a", tags(33, "x")...))
	add("topic in upper case", "tag", note("a", nostr.Tag{"t", "Iran"}))
	add("protected", "protected", note("a", nostr.Tag{"-"}))
	add("kind that stays", "kind", kindOf(3, ""))
	add("2048 bytes of canonical JSON", "ok", sized(2048, "a"))
	add("2049 bytes of canonical JSON", "too-large", sized(2049, "a"))
	add("an envelope of over 2048 bytes", "too-large", sized(2400, "a"))
	add("stale", "stale", at(vectorNow-1801, note("a")))
	add("stale, late", "ok", at(vectorNow-1801, note("a")), scope("late"))
	add("ahead", "ahead", at(vectorNow+601, note("a")))
	add("expired", "expired", note("a", nostr.Tag{"expiration", "1790000000"}))
	e := signed(note("a", nostr.Tag{"t", "iran"}))
	add("under the wrong shard", "wrong-shard", e, under(plainShard(e)^1))
	e.Sig = signed(note("another")).Sig
	add("signature of another event", "bad-signature", e)
	add("pubkey is no point", "bad-signature", withPubKey(e, strings.Repeat("0", 64)))
	long := slices.Concat(wire(signed(note("a")), 0), make([]byte, 2048))
	g.envelope("rule: over 2048 bytes that are no envelope", "too-large", long, signed(note("a")))
}
