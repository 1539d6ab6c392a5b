package protocol

import (
	"encoding/hex"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// fields are an event's parts before any check beyond their form.
type fields struct {
	Event
	idGiven bool
}

// decodeJSON reads one NIP-01 event object. Members may come in any order; unknown members are skipped, because
// clients add some; a known member twice is refused, because parsers disagree about which one counts.
func decodeJSON(raw []byte) (fields, error) {
	var f fields
	s := scanner{in: raw}
	var have [7]bool
	names := [...]string{"id", "pubkey", "created_at", "kind", "tags", "content", "sig"}
	s.object(func(key string) {
		for i, name := range names {
			if key != name {
				continue
			}
			if have[i] {
				s.fail("member %q stands twice", name)
			}
			have[i] = true
			f.member(&s, i)
			return
		}
		s.skip(0)
	})
	s.end()
	if s.err != nil {
		return fields{}, s.err
	}
	for i, ok := range have {
		if !ok && i != 0 {
			return fields{}, Reject(Malformed, "an event needs the member %q", names[i])
		}
	}
	f.idGiven = have[0]
	return f, nil
}

func (f *fields) member(s *scanner, i int) {
	switch i {
	case 0:
		s.hex(f.id[:], "id")
	case 1:
		s.hex(f.pubkey[:], "pubkey")
	case 2:
		f.createdAt = s.integer(maxTime, "created_at")
	case 3:
		f.kind = uint16(s.integer(65535, "kind"))
	case 4:
		s.array(func() { f.tags = append(f.tags, s.strings()) })
	case 5:
		f.content = s.string()
	case 6:
		s.hex(f.sig[:], "sig")
	}
}

// strings reads a tag: an array of strings, not empty.
func (s *scanner) strings() Tag {
	var t Tag
	s.array(func() { t = append(t, s.string()) })
	if len(t) == 0 {
		s.fail("a tag is empty")
	}
	return t
}

// scanner reads JSON (RFC 8259) strictly: valid UTF-8, no lone surrogates, nothing after the value.
// The first mistake stays in err and ends all loops. Nothing allocates more than the input is long.
type scanner struct {
	in  []byte
	pos int
	err error
}

const maxDepth = 16 // of values that are skipped

func (s *scanner) fail(format string, args ...any) {
	if s.err == nil {
		s.err = Reject(Malformed, format, args...)
		s.pos = len(s.in)
	}
}

// peek returns the next byte that is not white space, 0 at the end.
func (s *scanner) peek() byte {
	for s.pos < len(s.in) {
		switch c := s.in[s.pos]; c {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return c
		}
	}
	return 0
}

func (s *scanner) expect(c byte) {
	if got := s.peek(); got != c {
		if s.pos >= len(s.in) {
			s.fail("JSON ends where %q was expected", c)
		} else {
			s.fail("%q was expected at byte %d of the JSON", c, s.pos)
		}
		return
	}
	s.pos++
}

func (s *scanner) end() {
	if s.peek(); s.err == nil && s.pos < len(s.in) {
		s.fail("there is something after the end of the JSON value")
	}
}

// object calls member with each key; member reads the value.
func (s *scanner) object(member func(key string)) {
	s.list('{', '}', func() {
		key := s.string()
		s.expect(':')
		if s.err == nil {
			member(key)
		}
	})
}

// array calls element before each element; element reads it.
func (s *scanner) array(element func()) { s.list('[', ']', element) }

func (s *scanner) list(open, shut byte, item func()) {
	s.expect(open)
	if s.err == nil && s.peek() == shut {
		s.pos++
		return
	}
	for s.err == nil {
		item()
		if s.peek() == shut {
			s.pos++
			return
		}
		s.expect(',')
	}
}

func (s *scanner) hex(dst []byte, name string) {
	if v := s.string(); s.err == nil && !unhex(dst, v) {
		s.fail("%s is not %d lower-case hex digits", name, 2*len(dst))
	}
}

// integer reads a JSON number that is written as an integer from 0 to most.
func (s *scanner) integer(most int64, name string) int64 {
	c, start := s.peek(), s.pos
	for s.pos < len(s.in) && s.in[s.pos] >= '0' && s.in[s.pos] <= '9' {
		s.pos++
	}
	digits := s.in[start:s.pos]
	v, err := strconv.ParseInt(string(digits), 10, 64)
	if err != nil || v > most || c == '0' && len(digits) > 1 {
		s.fail("%s is not an integer from 0 to %d", name, most)
		return 0
	}
	return v
}

// string reads a JSON string.
func (s *scanner) string() string {
	s.expect('"')
	start := s.pos
	for s.pos < len(s.in) { // most strings have no escapes: one copy
		switch c := s.in[s.pos]; {
		case c == '"':
			v := s.in[start:s.pos]
			s.pos++
			return s.valid(v)
		case c == '\\':
			return s.escaped(start)
		case c < 0x20:
			s.fail("a control character stands unescaped in a JSON string")
			return ""
		}
		s.pos++
	}
	s.fail("a JSON string does not end")
	return ""
}

func (s *scanner) valid(v []byte) string {
	if !utf8.Valid(v) {
		s.fail("a text is not valid UTF-8")
		return ""
	}
	return string(v)
}

// escaped reads on at the first backslash of a string that began at start.
func (s *scanner) escaped(start int) string {
	buf := append(make([]byte, 0, s.pos-start+64), s.in[start:s.pos]...)
	for s.pos < len(s.in) {
		c := s.in[s.pos]
		s.pos++
		switch {
		case c == '"':
			return s.valid(buf)
		case c < 0x20:
			s.fail("a control character stands unescaped in a JSON string")
			return ""
		case c == '\\':
			buf = s.escape(buf)
		default:
			buf = append(buf, c)
		}
	}
	s.fail("a JSON string does not end")
	return ""
}

// escape reads what follows a backslash and appends what it stands for.
func (s *scanner) escape(buf []byte) []byte {
	if s.pos >= len(s.in) {
		return buf
	}
	c := s.in[s.pos]
	s.pos++
	switch c {
	case '"', '\\', '/':
		return append(buf, c)
	case 'b':
		return append(buf, '\b')
	case 'f':
		return append(buf, '\f')
	case 'n':
		return append(buf, '\n')
	case 'r':
		return append(buf, '\r')
	case 't':
		return append(buf, '\t')
	case 'u':
		r := s.hex4()
		if utf16.IsSurrogate(r) {
			if s.pos+1 < len(s.in) && s.in[s.pos] == '\\' && s.in[s.pos+1] == 'u' {
				s.pos += 2
				r = utf16.DecodeRune(r, s.hex4())
			} else {
				r = utf8.RuneError
			}
			if r == utf8.RuneError && s.err == nil {
				s.fail("a text has half of a surrogate pair")
			}
		}
		return utf8.AppendRune(buf, r)
	}
	s.fail("a JSON string has an unknown escape")
	return buf
}

func (s *scanner) hex4() rune {
	if s.pos+4 > len(s.in) {
		s.fail("a \\u escape is cut off")
		return 0
	}
	v, err := strconv.ParseUint(string(s.in[s.pos:s.pos+4]), 16, 16)
	if err != nil {
		s.fail("a \\u escape is not four hex digits")
		return 0
	}
	s.pos += 4
	return rune(v)
}

// skip reads over any value.
func (s *scanner) skip(depth int) {
	if depth > maxDepth {
		s.fail("the JSON is nested too deeply")
		return
	}
	switch c := s.peek(); {
	case c == '"':
		_ = s.string()
	case c == '{':
		s.object(func(string) { s.skip(depth + 1) })
	case c == '[':
		s.array(func() { s.skip(depth + 1) })
	default:
		s.literal()
	}
}

// literal reads over a number, true, false or null.
func (s *scanner) literal() {
	start := s.pos
	for s.pos < len(s.in) {
		switch c := s.in[s.pos]; {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c == '-', c == '+', c == '.', c == 'E':
			s.pos++
			continue
		}
		break
	}
	switch v := string(s.in[start:s.pos]); v {
	case "true", "false", "null":
	default:
		if !isNumber(v) {
			s.fail("a JSON value was expected at byte %d", start)
		}
	}
}

// isNumber reports whether v is a number by the grammar of RFC 8259 section 6.
func isNumber(v string) bool {
	digits := func() bool {
		n := 0
		for n < len(v) && v[n] >= '0' && v[n] <= '9' {
			n++
		}
		v = v[n:]
		return n > 0
	}
	if v != "" && v[0] == '-' {
		v = v[1:]
	}
	if v != "" && v[0] == '0' {
		v = v[1:]
	} else if !digits() {
		return false
	}
	if v != "" && v[0] == '.' {
		if v = v[1:]; !digits() {
			return false
		}
	}
	if v != "" && (v[0] == 'e' || v[0] == 'E') {
		v = v[1:]
		if v != "" && (v[0] == '+' || v[0] == '-') {
			v = v[1:]
		}
		if !digits() {
			return false
		}
	}
	return v == ""
}

// appendSerial appends the NIP-01 serialisation whose SHA-256 is the event's id.
func (e *Event) appendSerial(b []byte) []byte {
	b = append(b, `[0,"`...)
	b = hex.AppendEncode(b, e.pubkey[:])
	b = append(b, `",`...)
	b = strconv.AppendInt(b, e.createdAt, 10)
	b = append(b, ',')
	b = strconv.AppendUint(b, uint64(e.kind), 10)
	b = append(b, ',')
	b = appendTags(b, e.tags)
	b = append(b, ',')
	b = AppendString(b, e.content)
	return append(b, ']')
}

// jsonOverhead is by how much the canonical JSON of an event is longer than its serialisation: the names of the
// members, the id and the signature.
const jsonOverhead = len(`{"id":"","pubkey":"","created_at":,"kind":,"tags":,"content":,"sig":""}`) + 64 + 128 - len(`[0,"",,,,]`)

// AppendJSON appends e's canonical JSON: NIP-01's members in NIP-01's order, no white space, NIP-01's escapes only.
func (e Event) AppendJSON(b []byte) []byte {
	b = append(b, `{"id":"`...)
	b = hex.AppendEncode(b, e.id[:])
	b = append(b, `","pubkey":"`...)
	b = hex.AppendEncode(b, e.pubkey[:])
	b = append(b, `","created_at":`...)
	b = strconv.AppendInt(b, e.createdAt, 10)
	b = append(b, `,"kind":`...)
	b = strconv.AppendUint(b, uint64(e.kind), 10)
	b = append(b, `,"tags":`...)
	b = appendTags(b, e.tags)
	b = append(b, `,"content":`...)
	b = AppendString(b, e.content)
	b = append(b, `,"sig":"`...)
	b = hex.AppendEncode(b, e.sig[:])
	return append(b, `"}`...)
}

// MarshalJSON returns the canonical JSON. json.Marshal escapes & < > U+2028 U+2029 in it afterwards: the event stays
// the same, the bytes do not; AppendJSON keeps both.
func (e Event) MarshalJSON() ([]byte, error) { return e.AppendJSON(nil), nil }

func appendTags(b []byte, tags []Tag) []byte {
	b = append(b, '[')
	for i, t := range tags {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '[')
		for j, v := range t {
			if j > 0 {
				b = append(b, ',')
			}
			b = AppendString(b, v)
		}
		b = append(b, ']')
	}
	return append(b, ']')
}

// AppendString appends s as a JSON string with the seven escapes of NIP-01 and everything else verbatim.
// encoding/json will not do: it escapes & < > U+2028 U+2029 too, which changes an event's id.
func AppendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); i++ {
		esc := escapes[s[i]]
		if esc == 0 {
			continue
		}
		b = append(b, s[start:i]...)
		b = append(b, '\\', esc)
		start = i + 1
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}

var escapes = [256]byte{'\n': 'n', '"': '"', '\\': '\\', '\r': 'r', '\t': 't', '\b': 'b', '\f': 'f'}
