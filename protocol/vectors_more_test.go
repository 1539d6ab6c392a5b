package protocol

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/nbd-wtf/go-nostr"
)

func workCases(t *testing.T) []workVector {
	id := a64 // no zero bit of its own
	add := func(cases []workVector, name, id string, nonce uint64, work int) []workVector {
		t.Helper()
		if got := plainWork(id, nonce); got != work {
			t.Fatalf("%s: %d bits of work, stated are %d", name, got, work)
		}
		return append(cases, workVector{Name: name, ID: id, Nonce: strconv.FormatUint(nonce, 10), Work: work})
	}
	cases := add(nil, "id without a zero bit", strings.Repeat("f", 64), 0, 0)
	cases = add(cases, "id with one zero bit", "7"+strings.Repeat("f", 63), 0, 1)
	cases = add(cases, "NIP-13's example id of 36 bits", "000000000e9d97a1ab09fc381030b346cdd7a142ad57e6df0b46dc9bef6c7e2d", 0, 36)
	cases = add(cases, "id with 64 zero bits", strings.Repeat("0", 16)+"8"+strings.Repeat("0", 47), 0, 64)
	cases = add(cases, "id with 65 zero bits", strings.Repeat("0", 16)+"4"+strings.Repeat("0", 47), 0, 65)
	cases = add(cases, "id of zeros", strings.Repeat("0", 64), 0, 256)
	cases = add(cases, "the id counts when the stamp is worse", strings.Repeat("0", 16)+"4"+strings.Repeat("0", 47), 1, 65)
	for _, bits := range []int{1, 4, 8, 12, 16} {
		nonce := uint64(1)
		for plainWork(id, nonce) != bits {
			nonce++
		}
		cases = add(cases, fmt.Sprintf("stamp of %d bits", bits), id, nonce, bits)
	}
	return cases
}

func shardVectors() []shardVector {
	alice, _ := nostr.GetPublicKey(keyOf("alice"))
	bob, _ := nostr.GetPublicKey(keyOf("bob"))
	var cases []shardVector
	add := func(name, author string, tags ...[]string) {
		e := nostr.Event{PubKey: author}
		for _, tag := range tags {
			e.Tags = append(e.Tags, tag)
		}
		if tags == nil {
			tags = [][]string{}
		}
		cases = append(cases, shardVector{Name: name, Author: author, Tags: tags, Shard: plainShard(e)})
	}
	add("author alice", alice)
	add("author bob", bob)
	add("author of zeros", strings.Repeat("0", 64))
	for _, topic := range []string{"iran", "ایران", "openline", "مهسا_امینی", "آزادی" + zwnj + "بیان", "e\u0301cole", "\u00e9cole", "🕊️", "1", "a", "b", "c", "d", a64} {
		add("topic "+topic, alice, []string{"t", topic})
	}
	add("another author, the same topic", bob, []string{"t", "iran"})
	add("the first of two topics", alice, []string{"t", "iran"}, []string{"t", "a"})
	add("the same in the other order", alice, []string{"t", "a"}, []string{"t", "iran"})
	add("other tags before", alice, []string{"p", bob}, []string{"T", "a"}, []string{"t", "iran"})
	add("a T tag is no topic", alice, []string{"T", "iran"})
	return cases
}

func filterCases(t *testing.T) []filterVector {
	bob, _ := nostr.GetPublicKey(keyOf("bob"))
	e := signed(note("hello", nostr.Tag{"t", "iran"}, nostr.Tag{"p", bob, "wss://relay.example"}, nostr.Tag{"x"}, nostr.Tag{"tt", "tehran"}, nostr.Tag{"E", "x"}, nostr.Tag{"t", "shiraz", "qom"}))
	return append(filterMatchCases(t, e, bob), filterFormCases(e)...)
}

// filterMatchCases are confirmed by go-nostr.
func filterMatchCases(t *testing.T, e nostr.Event, bob string) []filterVector {
	zero := strings.Repeat("0", 64)
	var cases []filterVector
	for _, c := range []struct {
		name, filter string
		match        bool
	}{
		{"no condition", `{}`, true},
		{"id", `{"ids":["` + e.ID + `"]}`, true},
		{"another id", `{"ids":["` + zero + `"]}`, false},
		{"one of two ids", `{"ids":["` + zero + `","` + e.ID + `"]}`, true},
		{"no ids", `{"ids":[]}`, false},
		{"author", `{"authors":["` + e.PubKey + `"]}`, true},
		{"another author", `{"authors":["` + bob + `"]}`, false},
		{"no authors", `{"authors":[]}`, false},
		{"kind", `{"kinds":[0,1]}`, true},
		{"another kind", `{"kinds":[0,6]}`, false},
		{"no kinds", `{"kinds":[]}`, false},
		{"topic", `{"#t":["iran"]}`, true},
		{"topic of a later tag", `{"#t":["shiraz"]}`, true},
		{"third value of a tag", `{"#t":["qom"]}`, false},
		{"topic in upper case", `{"#t":["Iran"]}`, false},
		{"beginning of a topic", `{"#t":["ira"]}`, false},
		{"empty value", `{"#t":[""]}`, false},
		{"no topics", `{"#t":[]}`, false},
		{"one of two topics", `{"#t":["x","iran"]}`, true},
		{"tag names are whole", `{"#t":["tehran"]}`, false},
		{"upper-case letter", `{"#E":["x"]}`, true},
		{"lower-case letter is another", `{"#e":["x"]}`, false},
		{"mentioned", `{"#p":["` + bob + `"]}`, true},
		{"two tags, both hold", `{"#p":["` + bob + `"],"#t":["iran"]}`, true},
		{"two tags, one holds", `{"#p":["` + zero + `"],"#t":["iran"]}`, false},
		{"since, the same second", `{"since":1790000000}`, true},
		{"since, a second later", `{"since":1790000001}`, false},
		{"until, the same second", `{"until":1790000000}`, true},
		{"until, a second earlier", `{"until":1789999999}`, false},
		{"since and until", `{"since":1790000000,"until":1790000000}`, true},
		{"until 0", `{"until":0}`, false},
		{"limit 0 does not matter", `{"limit":0}`, true},
		{"search does not matter", `{"search":"nothing of it"}`, true},
		{"everything", `{"ids":["` + e.ID + `"],"authors":["` + e.PubKey + `"],"kinds":[1],"#t":["iran"],"since":1,"until":1790000000,"limit":5}`, true},
		{"everything but the kind", `{"ids":["` + e.ID + `"],"authors":["` + e.PubKey + `"],"kinds":[7],"#t":["iran"]}`, false},
		{"white space and escapes", " { \"#\\u0074\" : [ \"ir\\u0061n\" ] } ", true},
	} {
		var f nostr.Filter
		if err := json.Unmarshal([]byte(c.filter), &f); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if f.Matches(&e) != c.match {
			t.Fatalf("%s: go-nostr does not agree", c.name)
		}
		verdict := "no match"
		if c.match {
			verdict = "match"
		}
		cases = append(cases, filterVector{Name: c.name, Filter: c.filter, Event: plainJSON(e), Verdict: verdict})
	}
	return cases
}

func filterFormCases(e nostr.Event) []filterVector {
	list := func(n int) string { return "[" + strings.TrimSuffix(strings.Repeat("1,", n), ",") + "]" }
	var cases []filterVector
	for _, c := range []struct{ name, filter, verdict string }{
		{"form: 4096 values", `{"kinds":` + list(4096) + `}`, "ok"},
		{"form: 4097 values", `{"kinds":` + list(4097) + `}`, "malformed"},
		{"form: 4097 values in two lists", `{"kinds":` + list(4096) + `,"#t":["a"]}`, "malformed"},
		{"form: kind 65535", `{"kinds":[65535]}`, "ok"},
		{"form: kind 65536", `{"kinds":[65536]}`, "malformed"},
		{"form: since 2^53-1", `{"since":9007199254740991}`, "ok"},
		{"form: since 2^53", `{"since":9007199254740992}`, "malformed"},
		{"form: since negative", `{"since":-1}`, "malformed"},
		{"form: until with a fraction", `{"until":1.5}`, "malformed"},
		{"form: limit 2^31-1", `{"limit":2147483647}`, "ok"},
		{"form: limit 2^31", `{"limit":2147483648}`, "malformed"},
		{"form: limit negative", `{"limit":-1}`, "malformed"},
		{"form: limit null", `{"limit":null}`, "malformed"},
		{"form: id in upper case", `{"ids":["` + strings.ToUpper(e.ID) + `"]}`, "malformed"},
		{"form: beginning of an id", `{"ids":["` + e.ID[:8] + `"]}`, "malformed"},
		{"form: beginning of an author", `{"authors":["` + e.PubKey[:8] + `"]}`, "malformed"},
		{"form: ids a string", `{"ids":"` + e.ID + `"}`, "malformed"},
		{"form: kinds with a string", `{"kinds":["1"]}`, "malformed"},
		{"form: tag with a number", `{"#t":[1]}`, "malformed"},
		{"form: tag of two letters", `{"#tt":["a"]}`, "malformed"},
		{"form: tag of a digit", `{"#1":["a"]}`, "malformed"},
		{"form: tag without a letter", `{"#":["a"]}`, "malformed"},
		{"form: tag of a Persian letter", `{"#آ":["a"]}`, "malformed"},
		{"form: & tags of other drafts", `{"&t":["a"]}`, "malformed"},
		{"form: unknown member", `{"kind":[1]}`, "malformed"},
		{"form: since twice", `{"since":1,"since":1}`, "malformed"},
		{"form: #t twice", `{"#t":["a"],"#t":["b"]}`, "malformed"},
		{"form: an array", `[{}]`, "malformed"},
		{"form: empty", ``, "malformed"},
		{"form: something after the end", `{}{}`, "malformed"},
		{"form: lone surrogate", `{"search":"\ud800"}`, "malformed"},
		{"form: a comma after the last member", `{"limit":1,}`, "malformed"},
	} {
		cases = append(cases, filterVector{Name: c.name, Filter: c.filter, Verdict: c.verdict})
	}
	return cases
}
