package protocol

import (
	"strings"

	"github.com/nbd-wtf/go-nostr"
)

// replaced makes the input from e's JSON by one replacement.
func (g *generator) replaced(name, verdict string, e nostr.Event, old, new string, options ...option) {
	g.t.Helper()
	text := plainJSON(e)
	if strings.Count(text, old) != 1 {
		g.t.Fatalf("%s: %q stands %d times in %s", name, old, strings.Count(text, old), text)
	}
	g.event(name, verdict, e, append(options, input(strings.Replace(text, old, new, 1)))...)
}

func jsonFormCases(g *generator) {
	e := signed(note("hello", nostr.Tag{"p", a64}))
	text := plainJSON(e)
	member := func(name string) string { // "name":value, as it stands in the text
		i := strings.Index(text, `"`+name+`":`)
		j := i + strings.Index(text[i:], `,"`) + 1
		if name == "tags" {
			j = strings.Index(text, `"content"`)
		}
		return text[i:j]
	}
	id, pubkey, sig := `"`+e.ID+`"`, `"`+e.PubKey+`"`, `"`+e.Sig+`"`
	re := func(name, verdict, old, new string) { g.t.Helper(); g.replaced("json: "+name, verdict, e, old, new) }
	in := func(name, verdict, text string) { g.t.Helper(); g.event("json: "+name, verdict, e, input(text)) }

	in("canonical", "ok", text)
	in("white space everywhere", "ok", " \t\r\n"+strings.NewReplacer(",", " , ", ":", "\n:\t", "[", "[ ", "]", " ]").Replace(text)+"\r\n")
	in("members in another order", "ok", `{"sig":`+sig+`,"content":"hello",`+member("kind")+member("created_at")+
		`"tags":[["p","`+a64+`"]],"pubkey":`+pubkey+`,"id":`+id+`}`)
	re("member name with an escape", "ok", `"content"`, `"c\u006fntent"`)
	re("member name in upper case is unknown", "malformed", `"content"`, `"Content"`)
	re("without id: it is computed", "ok", member("id"), "")
	for _, name := range []string{"pubkey", "created_at", "kind", "tags", "content"} {
		re("without "+name, "malformed", member(name), "")
	}
	re("without sig", "malformed", `,"sig":`+sig, "")
	re("id is not the hash", "id", e.ID, a64)
	re("id in upper case", "malformed", id, strings.ToUpper(id))
	re("id of 63 digits", "malformed", id, `"`+e.ID[1:]+`"`)
	re("id of 65 digits", "malformed", id, `"0`+e.ID+`"`)
	re("id with a letter that is no digit", "malformed", id, `"g`+e.ID[1:]+`"`)
	re("id null", "malformed", id, `null`)
	re("pubkey in upper case", "malformed", pubkey, strings.ToUpper(pubkey))
	re("sig in upper case", "malformed", sig, strings.ToUpper(sig))
	re("sig of 127 digits", "malformed", sig, `"`+e.Sig[1:]+`"`)
	re("hex digits may be escaped", "ok", pubkey, `"\u00`+hex2(e.PubKey[0])+e.PubKey[1:]+`"`)
	for _, name := range []string{"id", "pubkey", "created_at", "kind", "tags", "content"} {
		re("twice: "+name, "malformed", member(name), member(name)+member(name))
	}
	re("twice: sig", "malformed", `,"sig":`, `,"sig":`+sig+`,"sig":`)
	re("twice, one name with an escape", "malformed", member("kind"), member("kind")+`"\u006bind":1,`)
	re("unknown members of every type", "ok", `"kind"`, `"a":1,"b":-0.5e+7,"c":"é\n","d":[true,false,null,{}],"e":{"kind":2},"kind"`)
	re("unknown member twice", "ok", `"kind"`, `"a":1,"a":2,"kind"`)
	re("known member twice inside an unknown one", "ok", `"kind"`, `"a":{"id":1,"id":2},"kind"`)
	re("unknown member with a bad number", "malformed", `"kind"`, `"a":01,"kind"`)
	re("unknown member with a bad literal", "malformed", `"kind"`, `"a":nul,"kind"`)
	re("unknown member with half a surrogate pair", "malformed", `"kind"`, `"a":"\ud800","kind"`)
	re("unknown member with invalid UTF-8", "malformed", `"kind"`, "\"a\":\"\xff\",\"kind\"")
	re("unknown name with invalid UTF-8", "malformed", `"kind"`, "\"\xff\":1,\"kind\"")
	re("unknown member nested 17 deep", "ok", `"kind"`, `"a":`+strings.Repeat("[", 17)+strings.Repeat("]", 17)+`,"kind"`)
	re("unknown member nested 18 deep", "malformed", `"kind"`, `"a":`+strings.Repeat("[", 18)+strings.Repeat("]", 18)+`,"kind"`)
	in("empty", "malformed", "")
	in("an array", "malformed", "["+text+"]")
	in("a null", "malformed", "null")
	in("cut off", "malformed", text[:len(text)-1])
	in("cut off in a string", "malformed", text[:len(text)-2])
	in("something after the end", "malformed", text+"x")
	in("a second event after the end", "malformed", text+text)
	in("a NUL after the end", "malformed", text+"\x00")
	in("a byte order mark before", "malformed", "\ufeff"+text)
	in("a comma after the last member", "malformed", text[:len(text)-1]+",}")
	in("a comma too many", "malformed", strings.Replace(text, ",", ",,", 1))
	in("a form feed as white space", "malformed", "\f"+text)
	in("a no-break space as white space", "malformed", "\u00a0"+text)
	in("single quotes", "malformed", strings.ReplaceAll(text, `"`, `'`))
	in("a comment", "malformed", "/**/"+text)
	re("tags null", "malformed", `[["p","`+a64+`"]]`, `null`)
	re("tags an object", "malformed", `[["p","`+a64+`"]]`, `{}`)
	re("a tag that is a string", "malformed", `["p","`+a64+`"]`, `"p"`)
	re("a tag with a number", "malformed", `["p","`+a64+`"]`, `["p",1]`)
	re("an empty tag", "malformed", `["p","`+a64+`"]`, `["p","`+a64+`"],[]`)
	re("a comma after the last tag", "malformed", `"]]`, `"],]`)
	re("content null", "malformed", `"hello"`, `null`)
	re("content changed", "id", `"hello"`, `"hullo"`)
}

// hex2 is a byte as two hex digits.
func hex2(c byte) string { return string([]byte{"0123456789abcdef"[c>>4], "0123456789abcdef"[c&15]}) }

func jsonNumberCases(g *generator) {
	e := signed(note("hello"))
	for _, c := range []struct{ name, old, new, verdict string }{
		{"kind with a fraction", `"kind":1`, `"kind":1.0`, "malformed"},
		{"kind with an exponent", `"kind":1`, `"kind":1e0`, "malformed"},
		{"kind with a sign", `"kind":1`, `"kind":+1`, "malformed"},
		{"kind with a leading zero", `"kind":1`, `"kind":01`, "malformed"},
		{"kind as a string", `"kind":1`, `"kind":"1"`, "malformed"},
		{"kind -1", `"kind":1`, `"kind":-1`, "malformed"},
		{"kind -0", `"kind":1`, `"kind":-0`, "malformed"},
		{"kind 65536", `"kind":1`, `"kind":65536`, "malformed"},
		{"kind 65537 is not 1", `"kind":1`, `"kind":65537`, "malformed"},
		{"kind empty", `"kind":1`, `"kind":`, "malformed"},
		{"created_at 2^53", `1790000000`, `9007199254740992`, "malformed"},
		{"created_at 2^64", `1790000000`, `18446744073709551616`, "malformed"},
		{"created_at negative", `1790000000`, `-1790000000`, "malformed"},
		{"created_at with a fraction", `1790000000`, `1790000000.5`, "malformed"},
		{"created_at with an exponent", `1790000000`, `179e7`, "malformed"},
		{"created_at in hex", `1790000000`, `0x6ab13b80`, "malformed"},
		{"created_at null", `1790000000`, `null`, "malformed"},
	} {
		g.replaced("number: "+c.name, c.verdict, e, c.old, c.new)
	}
	zero := kindOf(0, "{}")
	zero.CreatedAt = 1
	g.event("number: kind 0", "ok", zero, scope("late"))
}

func jsonStringCases(g *generator) {
	for _, c := range []struct{ name, content, raw, verdict string }{
		{"short escapes", "\"\\/\n\t", `\"\\\/\n\t`, "ok"},
		{"u escapes of the same", "\"\\/\n\t", `\u0022\u005c\u002f\u000a\u0009`, "ok"},
		{"u escape of a letter", "A", `\u0041`, "ok"},
		{"upper and lower case in a u escape", "«»", `\u00AB\u00bB`, "ok"},
		{"escaped U+2028 and U+2029", "a\u2028\u2029", `a\u2028\u2029`, "ok"},
		{"escaped & < >", "&<>", `\u0026\u003c\u003e`, "ok"},
		{"surrogate pair", "😀", `\ud83d\ude00`, "ok"},
		{"surrogate pair in upper case", "😀", `\uD83D\uDE00`, "ok"},
		{"the last code point", "\U0010ffff", `\udbff\udfff`, "ok"},
		{"lone high surrogate", "a", `a\ud83d`, "malformed"},
		{"lone low surrogate", "a", `a\ude00`, "malformed"},
		{"high surrogate and a letter", "a", `\ud83da`, "malformed"},
		{"high surrogate and an escaped letter", "a", `\ud83d\u0061`, "malformed"},
		{"high surrogate and a short escape", "a", `\ud83d\n`, "malformed"},
		{"two high surrogates", "a", `\ud83d\ud83d\ude00`, "malformed"},
		{"pair in the wrong order", "a", `\ude00\ud83d`, "malformed"},
		{"a raw surrogate in CESU-8", "a", "\xed\xa0\xbd\xed\xb8\x80", "malformed"},
		{"byte FF", "a", "a\xff", "malformed"},
		{"a lone continuation byte", "a", "\x80", "malformed"},
		{"an overlong slash", "a", "\xc0\xaf", "malformed"},
		{"an overlong NUL", "a", "\xc0\x80", "malformed"},
		{"a cut off sequence", "a", "\xd8", "malformed"},
		{"a sequence over U+10FFFF", "a", "\xf4\x90\x80\x80", "malformed"},
		{"a sequence cut by an escape", "a", "\xe2\x80\\u00a8", "malformed"},
		{"escaped U+FFFD is text", "\ufffd", `\ufffd`, "ok"},
		{"unescaped line feed", "a\nb", "a\nb", "malformed"},
		{"unescaped tab", "a\tb", "a\tb", "malformed"},
		{"unescaped NUL", "a", "a\x00", "malformed"},
		{"unescaped U+007F is JSON but no text", "a\x7f", "a\x7f", "text"},
		{"escaped NUL is JSON but no text", "a\x00", `a\u0000`, "text"},
		{"unknown escape", "a", `\x41`, "malformed"},
		{"escape in upper case", "a", `\N`, "malformed"},
		{"u escape of three digits", "a", `\u041`, "malformed"},
		{"u escape with a sign", "a", `\u+041`, "malformed"},
		{"u escape with an underscore", "a", `\u0_41`, "malformed"},
		{"u escape with braces", "a", `\u{41}`, "malformed"},
	} {
		e := signed(note(c.content))
		text := plainJSON(e)
		i := strings.Index(text, `"content":`) + len(`"content":"`)
		j := strings.Index(text, `","sig"`)
		g.event("string: "+c.name, c.verdict, e, input(text[:i]+c.raw+text[j:]))
	}
	kept := signed(kindOf(30023, "\b\f\r"))
	g.replaced("string: u escapes of b f r in a kept kind", "ok", kept, `\b\f\r`, `\u0008\u000C\u000d`, scope("client"))
	tag := signed(note("a", nostr.Tag{"x", "😀/"}))
	g.replaced("string: escapes in a tag", "ok", tag, `["x","😀/"]`, `["\u0078","\ud83d\ude00\/"]`)
	g.replaced("string: lone surrogate in a tag", "malformed", tag, `😀/`, `\ud83d`)
	g.replaced("string: invalid UTF-8 in a tag", "malformed", tag, `😀/`, "\xc3")
}
