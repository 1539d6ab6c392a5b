package protocol

import (
	"bytes"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// The fields of the Envelope message (SPEC.md section 5).
const (
	envPubKey    protowire.Number = 1
	envSig       protowire.Number = 2
	envCreatedAt protowire.Number = 3
	envKind      protowire.Number = 4
	envTag       protowire.Number = 5
	envContent   protowire.Number = 6
	envNonce     protowire.Number = 7

	tagText protowire.Number = 1
	tagHex  protowire.Number = 2 // 32 bytes that stand for 64 lower-case hex digits
)

// AppendEnvelope appends e's one encoding on the wire.
func (e Event) AppendEnvelope(b []byte) []byte {
	b = appendBytes(b, envPubKey, e.pubkey[:])
	b = appendBytes(b, envSig, e.sig[:])
	b = appendUint(b, envCreatedAt, uint64(e.createdAt))
	b = appendUint(b, envKind, uint64(e.kind))
	for _, t := range e.tags {
		b = protowire.AppendTag(b, envTag, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(tagSize(t)))
		b = appendTag(b, t)
	}
	if e.content != "" {
		b = protowire.AppendTag(b, envContent, protowire.BytesType)
		b = protowire.AppendString(b, e.content)
	}
	return appendUint(b, envNonce, e.nonce)
}

func appendBytes(b []byte, num protowire.Number, v []byte) []byte {
	b = protowire.AppendTag(b, num, protowire.BytesType)
	return protowire.AppendBytes(b, v)
}

// appendUint appends nothing for 0, as proto3 does.
func appendUint(b []byte, num protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	b = protowire.AppendTag(b, num, protowire.VarintType)
	return protowire.AppendVarint(b, v)
}

func appendTag(b []byte, t Tag) []byte {
	for _, v := range t {
		var raw [32]byte
		if unhex(raw[:], v) {
			b = appendBytes(b, tagHex, raw[:])
		} else {
			b = protowire.AppendTag(b, tagText, protowire.BytesType)
			b = protowire.AppendString(b, v)
		}
	}
	return b
}

func tagSize(t Tag) int {
	n := 0
	for _, v := range t {
		size := len(v)
		var raw [32]byte
		if unhex(raw[:], v) {
			size = len(raw)
		}
		n += 1 + protowire.SizeBytes(size)
	}
	return n
}

// decodeEnvelope reads an envelope and refuses whatever AppendEnvelope would not have written: readEnvelope is lenient
// about order and form, and the comparison at the end is not.
func decodeEnvelope(raw []byte) (fields, error) {
	f, err := readEnvelope(raw)
	if err != nil {
		return fields{}, err
	}
	if !validText(&f.Event) {
		return fields{}, Reject(Malformed, "a text is not valid UTF-8")
	}
	var buf [MaxEventSize]byte
	if !bytes.Equal(f.AppendEnvelope(buf[:0]), raw) {
		return fields{}, Reject(Malformed, "the envelope is not in the one encoding of its event")
	}
	return f, nil
}

// readEnvelope reads the fields of an envelope in any order and form.
func readEnvelope(raw []byte) (f fields, err error) {
	for rest := raw; len(rest) > 0; {
		num, typ, n := protowire.ConsumeTag(rest)
		if n < 0 {
			return fields{}, Reject(Malformed, "the envelope is cut off or is no protobuf message")
		}
		n2 := f.envelopeField(num, typ, rest[n:])
		if n2 < 0 {
			return fields{}, Reject(Malformed, "the envelope has an unknown, cut off or ill-formed field (number %d)", num)
		}
		rest = rest[n+n2:]
	}
	if f.createdAt < 0 || f.createdAt > maxTime {
		return fields{}, Reject(Malformed, "created_at is not an integer from 0 to %d", int64(maxTime))
	}
	return f, nil
}

// envelopeField reads one field's value and returns its length, negative when the field is not to be had.
func (f *fields) envelopeField(num protowire.Number, typ protowire.Type, b []byte) int {
	switch typ {
	case protowire.VarintType:
		v, n := protowire.ConsumeVarint(b)
		switch {
		case num == envCreatedAt:
			f.createdAt = int64(v)
		case num == envKind && v <= 65535:
			f.kind = uint16(v)
		case num == envNonce:
			f.nonce = v
		default:
			return -1
		}
		return n
	case protowire.BytesType:
		v, n := protowire.ConsumeBytes(b)
		switch {
		case num == envPubKey && len(v) == len(f.pubkey):
			copy(f.pubkey[:], v)
		case num == envSig && len(v) == len(f.sig):
			copy(f.sig[:], v)
		case num == envTag:
			t := decodeTag(v)
			if len(t) == 0 {
				return -1
			}
			f.tags = append(f.tags, t)
		case num == envContent:
			f.content = string(v)
		default:
			return -1
		}
		return n
	}
	return -1
}

// decodeTag returns nil for anything but a sequence of values.
func decodeTag(b []byte) Tag {
	var t Tag
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 || typ != protowire.BytesType {
			return nil
		}
		v, n2 := protowire.ConsumeBytes(b[n:])
		switch {
		case n2 < 0:
			return nil
		case num == tagText:
			t = append(t, string(v))
		case num == tagHex && len(v) == 32:
			t = append(t, ID(v).String())
		default:
			return nil
		}
		b = b[n+n2:]
	}
	return t
}

// validText reports whether every text of e is valid UTF-8, as proto3 demands of strings.
func validText(e *Event) bool {
	for _, t := range e.tags {
		for _, v := range t {
			if !utf8.ValidString(v) {
				return false
			}
		}
	}
	return utf8.ValidString(e.content)
}
