package protocol

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"
	"github.com/nbd-wtf/go-nostr/nip19"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// source makes random input and can be started again with the seed that it printed.
type source struct{ *rand.Rand }

func newSource(t *testing.T) source {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return source{rand.New(rand.NewPCG(seed, 0))}
}

// pieces are what texts are made of: all that some implementation reads differently.
var pieces = []string{
	"a", "B", " ", "\n", "\t", "\r", "\b", "\f", `"`, `\`, "/", "&", "<", ">", "\u2028", "\u2029", "\x7f", "\u0085", "é", "e\u0301",
	"سلام", zwnj, family, "😀", "\ufffd", "\uffff", "\U0010ffff", "#", "nostr:", "nostr:npub1", "nostr:nevent1", a64,
	strings.ToUpper(a64), strings.Repeat("q", 57), strings.Repeat("q", 58), "b", "1", "", `\u0041`, `\n`,
}

func (r source) text(most int) string {
	var b strings.Builder
	for range r.IntN(most + 1) {
		b.WriteString(pieces[r.IntN(len(pieces))])
	}
	return b.String()
}

func (r source) pick(of ...string) string { return of[r.IntN(len(of))] }

func (r source) draft() Draft {
	kinds := []uint16{0, 1, 1, 1, 5, 6, 7, 3, 30023}
	d := Draft{CreatedAt: r.Int64N(1 << r.IntN(53)), Kind: kinds[r.IntN(len(kinds))], Content: r.text(12), Tags: []Tag{}}
	for range r.IntN(6) {
		tag := Tag{r.pick("e", "p", "t", "t", "d", "E", "tt", r.text(2))}
		for range r.IntN(4) {
			tag = append(tag, r.pick("iran", "x", "", a64, r.text(3)))
		}
		d.Tags = append(d.Tags, tag)
	}
	return d
}

func (r source) keys(t *testing.T, n int) []SecretKey {
	t.Helper()
	var keys []SecretKey
	for range n {
		var b [32]byte
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		key, err := NewSecretKey(bytes.NewReader(b[:]))
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
	}
	return keys
}

func (r source) event(t *testing.T, keys []SecretKey) Event {
	t.Helper()
	e, err := keys[r.IntN(len(keys))].Sign(r.draft())
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// oracleEvent is e as go-nostr has it, without going through any of our forms.
func oracleEvent(e Event) nostr.Event {
	o := nostr.Event{ID: e.ID().String(), PubKey: e.PubKey().String(), CreatedAt: nostr.Timestamp(e.CreatedAt()),
		Kind: int(e.Kind()), Tags: nostr.Tags{}, Content: e.Content()}
	sig := e.Sig()
	o.Sig = hex.EncodeToString(sig[:])
	for _, t := range e.Tags() {
		o.Tags = append(o.Tags, nostr.Tag(t))
	}
	return o
}

func TestIDAndSignatureAgreeWithGoNostr(t *testing.T) {
	r := newSource(t)
	keys := r.keys(t, 4)
	for range 500 {
		e := r.event(t, keys)
		if r.IntN(2) == 0 { // damage it
			i := r.IntN(64)
			switch r.IntN(4) {
			case 0:
				e.sig[i] ^= 1 << r.IntN(8)
			case 1:
				e.pubkey[i%32] ^= 1 << r.IntN(8)
			case 2:
				e.content += "x"
			case 3:
				e.sig = Sig{}
			}
			e.id, _ = e.hash(nil)
		}
		o := oracleEvent(e)
		if o.GetID() != e.ID().String() {
			t.Fatalf("id %s, go-nostr says %s: %s", e.ID(), o.GetID(), e.AppendJSON(nil))
		}
		if want, _ := o.CheckSignature(); verifySignature(&e) != want {
			t.Fatalf("go-nostr says %v of the signature of %s", want, e.AppendJSON(nil))
		}
	}
}

func TestCanonicalJSONMeansTheSameToOthers(t *testing.T) {
	r := newSource(t)
	keys := r.keys(t, 4)
	for range 1500 {
		e := r.event(t, keys)
		raw := e.AppendJSON(nil)
		if plain := plainJSON(oracleEvent(e)); string(raw) != plain {
			t.Fatalf("canonical JSON\n got %s\nwant %s", raw, plain)
		}
		var theirs nostr.Event
		if err := json.Unmarshal(raw, &theirs); err != nil {
			t.Fatalf("go-nostr does not read %s: %v", raw, err)
		}
		if plain := plainJSON(theirs); string(raw) != plain {
			t.Fatalf("go-nostr reads %s as %s", raw, plain)
		}
		theirRaw, err := json.Marshal(theirs)
		if err != nil {
			t.Fatal(err)
		}
		f, err := decodeJSON(theirRaw)
		if err != nil || !f.idGiven || string(f.AppendJSON(nil)) != string(raw) {
			t.Fatalf("we read go-nostr's %s as %s (%v)", theirRaw, f.AppendJSON(nil), err)
		}
	}
}

// envelopeType is SPEC.md's .proto text for a standard protobuf library.
func envelopeType(t *testing.T) protoreflect.MessageDescriptor {
	t.Helper()
	type kind = descriptorpb.FieldDescriptorProto_Type
	const text, raw, u32, u64, message = descriptorpb.FieldDescriptorProto_TYPE_STRING, descriptorpb.FieldDescriptorProto_TYPE_BYTES,
		descriptorpb.FieldDescriptorProto_TYPE_UINT32, descriptorpb.FieldDescriptorProto_TYPE_UINT64, descriptorpb.FieldDescriptorProto_TYPE_MESSAGE
	field := func(name string, number int32, k kind, repeated bool) *descriptorpb.FieldDescriptorProto {
		f := &descriptorpb.FieldDescriptorProto{Name: &name, Number: &number, Type: &k, Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()}
		if repeated {
			f.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
		}
		if k == message {
			f.TypeName = proto.String(".openline.Tag")
		}
		return f
	}
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("openline.proto"), Package: proto.String("openline"), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{
			{Name: proto.String("Envelope"), Field: []*descriptorpb.FieldDescriptorProto{
				field("pubkey", 1, raw, false), field("sig", 2, raw, false), field("created_at", 3, u64, false),
				field("kind", 4, u32, false), field("tag", 5, message, true), field("content", 6, text, false), field("nonce", 7, u64, false)}},
			{Name: proto.String("Tag"), Field: []*descriptorpb.FieldDescriptorProto{field("text", 1, text, true), field("hex", 2, raw, true)}},
		}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return file.Messages().ByName("Envelope")
}

func TestEnvelopeSurvivesItsForm(t *testing.T) {
	r := newSource(t)
	keys := r.keys(t, 4)
	typ := envelopeType(t)
	packed := regexp.MustCompile(`^[0-9a-f]{64}$`)
	for range 1500 {
		e := r.event(t, keys).WithNonce(r.Uint64() >> r.IntN(65))
		raw := e.AppendEnvelope(nil)
		if want := wire(oracleEvent(e), e.Nonce()); !bytes.Equal(raw, want) {
			t.Fatalf("envelope\n got %x\nwant %x", raw, want)
		}
		back, err := Load(raw)
		if err != nil || string(back.AppendJSON(nil)) != string(e.AppendJSON(nil)) || back.Nonce() != e.Nonce() {
			t.Fatalf("Load(%x) = %s (%v), want %s", raw, back.AppendJSON(nil), err, e.AppendJSON(nil))
		}
		if len(raw) > len(e.AppendJSON(nil)) {
			t.Fatalf("the envelope of %s is longer than its JSON", e.AppendJSON(nil))
		}
		// A standard library writes the texts of a tag before its hex values, so it can write only such tags.
		m := dynamicpb.NewMessage(typ)
		if err := proto.Unmarshal(raw, m); err != nil {
			t.Fatalf("protobuf does not read %x: %v", raw, err)
		}
		sorted := !slices.ContainsFunc(e.Tags(), func(tag Tag) bool {
			first := slices.IndexFunc(tag, packed.MatchString)
			return first >= 0 && slices.ContainsFunc(tag[first:], func(v string) bool { return !packed.MatchString(v) })
		})
		if again, err := (proto.MarshalOptions{Deterministic: true}).Marshal(m); sorted && (err != nil || !bytes.Equal(again, raw)) {
			t.Fatalf("protobuf writes %x as %x (%v)", raw, again, err)
		}
	}
}

func TestNoteLengthAgreesWithItsGrammar(t *testing.T) {
	r := newSource(t)
	reference := regexp.MustCompile(`nostr:(npub|note|nprofile|nevent|naddr)1[qpzry9x8gf2tvdw0s3jn54khce6mua7l]{58,}`)
	references := 0
	for range 20000 {
		text := r.text(10)
		found := len(reference.FindAllString(text, -1))
		want := len([]rune(reference.ReplaceAllString(text, ""))) + 10*found
		references += found
		if got := NoteLength(text); got != want {
			t.Fatalf("NoteLength(%q) = %d, want %d", text, got, want)
		}
	}
	if references < 100 {
		t.Errorf("only %d references: the oracle saw too few", references)
	}
}

func TestKeysReadLikeGoNostrs(t *testing.T) {
	r := newSource(t)
	for _, key := range r.keys(t, 50) {
		_, secret, err := nip19.Decode(key.Nsec())
		if err != nil {
			t.Fatal(err)
		}
		pub, err := nostr.GetPublicKey(secret.(string))
		if err != nil || pub != key.PubKey().String() {
			t.Fatalf("go-nostr reads our nsec as the key of %s, want %s", pub, key.PubKey())
		}
		nsec, _ := nip19.EncodePrivateKey(secret.(string))
		npub, _ := nip19.EncodePublicKey(pub)
		if nsec != key.Nsec() || npub != key.PubKey().Npub() {
			t.Fatalf("%s is %s to go-nostr", key.PubKey().Npub(), npub)
		}
		for _, text := range []string{nsec, strings.ToUpper(nsec), " " + nsec + "\n", secret.(string)} {
			if k, err := ParseSecretKey(text); err != nil || k.PubKey() != key.PubKey() {
				t.Fatalf("ParseSecretKey misreads a key: %v", err)
			}
		}
		for _, text := range []string{npub, strings.ToUpper(npub), pub} {
			if k, err := ParsePubKey(text); err != nil || k != key.PubKey() {
				t.Fatalf("ParsePubKey(%s) = %s, %v", text, k, err)
			}
		}
		wrong := []byte(npub)
		wrong[10+r.IntN(50)] ^= 1
		for _, text := range []string{string(wrong), nsec, npub[:len(npub)-1], pub[1:], ""} {
			if k, err := ParsePubKey(text); err == nil {
				t.Fatalf("ParsePubKey(%.8s…) = %s, want an error", text, k)
			}
		}
		if _, err := ParseSecretKey(npub); err == nil || strings.Contains(err.Error(), npub) {
			t.Fatalf("ParseSecretKey of an npub gives %v, want an error that does not quote it", err)
		}
	}
	for _, bad := range []string{strings.Repeat("0", 64), strings.Repeat("f", 64), order.Text(16)} {
		if _, err := ParseSecretKey(bad); err == nil {
			t.Errorf("ParseSecretKey(%s) gives no error", bad)
		}
	}
}
