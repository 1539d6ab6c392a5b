package protocol

import (
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// The numbers of SPEC.md section 4.
const (
	MaxEventSize   = 2048     // bytes of canonical JSON of an event that travels
	MaxKeptSize    = 64 << 10 // bytes of JSON of any other event that a client leaves with its node
	MaxNoteLength  = 140      // characters (Unicode code points), a reference counting as ReferenceLength
	MaxNoteBytes   = 560
	MaxTags        = 32
	MaxTagValues   = 8  // with the tag's name
	MaxTopics      = 5  // t tags
	MaxTopicLength = 64 // characters

	ReferenceLength = 10 // of a nostr: reference (NIP-21) within a note

	LivePast  = 30 * time.Minute
	LiveAhead = 10 * time.Minute

	Quota = 30 // events per author and clock hour of created_at

	// ReplaceInterval is the least time between two versions of a replaceable event that a node forwards.
	ReplaceInterval = 10 * time.Minute

	maxTime       = 1<<53 - 1 // Unix seconds: the largest integer that every JSON reader keeps
	maxKeptTags   = 4096      // follow lists are long
	maxKeptValues = 64
)

// checkForm applies the rules that need neither clock nor store.
func checkForm(e *Event, scope Scope) error {
	if !Travels(e.kind) {
		if scope != Client {
			return Reject(BadKind, "events of kind %d do not travel", e.kind)
		}
		return checkKept(e)
	}
	if len(e.tags) > MaxTags {
		return Reject(BadTag, "the event has %d tags; %d are the most", len(e.tags), MaxTags)
	}
	if !cleanText(e.content) {
		return Reject(BadText, "the text has control characters; only line feed and tab are allowed")
	}
	topics := 0
	for _, t := range e.tags {
		if err := checkTag(t); err != nil {
			return err
		}
		if t[0] == "t" {
			topics++
		}
	}
	if topics > MaxTopics {
		return Reject(BadTag, "the event has %d topics; %d are the most", topics, MaxTopics)
	}
	_, expires, ok := expiration(e.tags)
	if !ok {
		return Reject(BadTag, "the expiration tag is not a time in Unix seconds")
	}
	if expires && e.kind == KindDeletion {
		return Reject(BadTag, "a deletion must not expire")
	}
	if e.kind == KindNote {
		return checkNote(e.content)
	}
	return nil
}

// checkNote applies the length rules of a note.
func checkNote(text string) error {
	switch n := NoteLength(text); {
	case n == 0:
		return Reject(BadText, "the note is empty")
	case n > MaxNoteLength:
		return Reject(BadText, "the note has %d characters; %d are the most", n, MaxNoteLength)
	case len(text) > MaxNoteBytes:
		return Reject(BadText, "the note has %d bytes; %d are the most", len(text), MaxNoteBytes)
	}
	return nil
}

func checkTag(t Tag) error {
	if len(t) > MaxTagValues {
		return Reject(BadTag, "a tag has %d values; %d are the most", len(t), MaxTagValues)
	}
	for _, v := range t {
		if !cleanText(v) {
			return Reject(BadTag, "a tag has control characters; only line feed and tab are allowed")
		}
	}
	switch t[0] {
	case "-":
		return Reject(Protected, "the event is protected (NIP-70) and must not be passed on")
	case "t":
		return checkTopicTag(t)
	}
	return nil
}

func checkTopicTag(t Tag) error {
	if len(t) < 2 {
		return Reject(BadTag, "a topic tag has no topic")
	}
	return CheckTopic(t[1])
}

// CheckTopic says whether topic may stand in a t tag: 1 to 64 characters, lower-case, no white space, no "#".
// A *Rejection tells what is wrong.
func CheckTopic(topic string) error {
	if n := utf8.RuneCountInString(topic); n < 1 || n > MaxTopicLength {
		return Reject(BadTag, "a topic has 1 to %d characters, this one %d", MaxTopicLength, n)
	}
	for _, r := range topic {
		switch {
		case r == '#' || unicode.IsSpace(r) || unicode.IsControl(r):
			return Reject(BadTag, "a topic has no white space, no control characters and no #")
		case unicode.ToLower(r) != r:
			return Reject(BadTag, "a topic is written in lower case")
		}
	}
	return nil
}

// checkKept applies the rules for events that stay on the node of the client that posted them. Protected events
// are refused too: NIP-70 asks that of every relay that does not authenticate authors.
func checkKept(e *Event) error {
	if len(e.tags) > maxKeptTags {
		return Reject(BadTag, "the event has %d tags; %d are the most", len(e.tags), maxKeptTags)
	}
	if !serialisable(e.content) {
		return Reject(BadText, "the text has control characters that NIP-01 gives no one form")
	}
	for _, t := range e.tags {
		if len(t) > maxKeptValues {
			return Reject(BadTag, "a tag has %d values; %d are the most", len(t), maxKeptValues)
		}
		if t[0] == "-" {
			return Reject(Protected, "the event is protected (NIP-70) and this node does not authenticate authors")
		}
		for _, v := range t {
			if !serialisable(v) {
				return Reject(BadTag, "a tag has control characters that NIP-01 gives no one form")
			}
		}
	}
	if _, _, ok := expiration(e.tags); !ok {
		return Reject(BadTag, "the expiration tag is not a time in Unix seconds")
	}
	return nil
}

// cleanText reports whether s has no control characters (Unicode category Cc) but line feed and tab.
func cleanText(s string) bool {
	for _, r := range s {
		if r < 0x20 && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 {
			return false
		}
	}
	return true
}

// serialisable reports whether all implementations serialise s alike: of the characters below U+0020, only the
// five that NIP-01 names an escape for.
func serialisable(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < 0x20 && escapes[c] == 0 {
			return false
		}
	}
	return true
}

// expiration returns the time of the first expiration tag (NIP-40); found is false when there is none, ok is false
// when it is not a decimal integer.
func expiration(tags []Tag) (at int64, found, ok bool) {
	for _, t := range tags {
		if t[0] != "expiration" {
			continue
		}
		if len(t) < 2 || t[1] == "" || strings.Trim(t[1], "0123456789") != "" {
			return 0, false, false
		}
		at, err := strconv.ParseInt(t[1], 10, 64)
		if err != nil || at > maxTime {
			return 0, false, false
		}
		return at, true, true
	}
	return 0, false, true
}

// NoteLength counts the characters of a note as SPEC.md section 4 does: code points, each nostr: reference as 10.
func NoteLength(text string) int {
	n := 0
	for {
		i := strings.Index(text, "nostr:")
		if i < 0 {
			return n + utf8.RuneCountInString(text)
		}
		n += utf8.RuneCountInString(text[:i])
		text = text[i:]
		if l := referenceLen(text); l > 0 {
			n += ReferenceLength
			text = text[l:]
		} else {
			n += len("nostr:")
			text = text[len("nostr:"):]
		}
	}
}

// minReference is the least number of characters behind the separator of a NIP-19 code: 32 bytes and a checksum.
const minReference = 58

// referenceLen returns the length of the reference at the start of text, which begins with "nostr:"; 0 for none.
// The checksum is not looked at: MaxNoteBytes bounds what anybody gains from a false one.
func referenceLen(text string) int {
	rest := text[len("nostr:"):]
	for _, prefix := range [...]string{"npub1", "note1", "nprofile1", "nevent1", "naddr1"} {
		code, ok := strings.CutPrefix(rest, prefix)
		if !ok {
			continue
		}
		n := 0
		for n < len(code) && strings.IndexByte(bech32Alphabet, code[n]) >= 0 {
			n++
		}
		if n >= minReference {
			return len(text) - len(code) + n
		}
	}
	return 0
}

const bech32Alphabet = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
