package protocol

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// signedForm is what tells one kind of signed text that names peers from another: an invite from a list.
type signedForm struct {
	what     string // it is called in errors
	scheme   string // begins the text
	domain   string // keeps a signature from being one of anything else
	maxText  int
	maxPeers int

	// The numbers of the fields, growing; version is 0 where there is none. sig signs domain and all other fields.
	from, network, version, expires, peer, sig protowire.Number
}

// statement is what such a text says.
type statement struct {
	From    [ed25519.PublicKeySize]byte
	Network string
	Version uint64
	Expires int64
	Peers   []InvitePeer
}

func (f signedForm) errDamaged() error {
	return fmt.Errorf("the %s is damaged: was it copied whole?", f.what)
}

// seal returns the text of s, signed by key, which becomes From.
func (f signedForm) seal(s statement, key ed25519.PrivateKey) (string, error) {
	copy(s.From[:], key.Public().(ed25519.PublicKey))
	if err := f.check(s); err != nil {
		return "", err
	}
	body := f.append(nil, s)
	body = appendBytes(body, f.sig, ed25519.Sign(key, append([]byte(f.domain), body...)))
	text := f.scheme + base64.RawURLEncoding.EncodeToString(body)
	if len(text) > f.maxText {
		return "", fmt.Errorf("the %s would have %d characters; %d are the most: name fewer addresses", f.what, len(text), f.maxText)
	}
	return text, nil
}

func (f signedForm) append(b []byte, s statement) []byte {
	b = appendBytes(b, f.from, s.From[:])
	b = appendBytes(b, f.network, []byte(s.Network))
	if f.version != 0 {
		b = appendUint(b, f.version, s.Version)
	}
	b = appendUint(b, f.expires, uint64(s.Expires))
	return appendPeers(b, f.peer, s.Peers)
}

// check is what both who makes and who reads one insists on.
func (f signedForm) check(s statement) error {
	switch {
	case s.Network == "" || len(s.Network) > 64 || !utf8.ValidString(s.Network):
		return fmt.Errorf("the %s names no network", f.what)
	case f.version != 0 && (s.Version == 0 || s.Version > maxTime):
		return fmt.Errorf("the %s has the version %d, not 1 to %d", f.what, s.Version, int64(maxTime))
	case s.Expires <= 0 || s.Expires > maxTime:
		return fmt.Errorf("the %s has no expiry", f.what)
	case len(s.Peers) == 0 || len(s.Peers) > f.maxPeers:
		return fmt.Errorf("the %s names %d peers, not 1 to %d", f.what, len(s.Peers), f.maxPeers)
	}
	for _, p := range s.Peers {
		if len(p.Addrs) == 0 || len(p.Addrs) > MaxInviteAddrs {
			return fmt.Errorf("a peer of the %s has %d addresses, not 1 to %d", f.what, len(p.Addrs), MaxInviteAddrs)
		}
		for _, a := range p.Addrs {
			if len(a) == 0 || len(a) > MaxInviteAddr {
				return fmt.Errorf("an address of the %s has %d bytes, not 1 to %d", f.what, len(a), MaxInviteAddr)
			}
		}
	}
	return nil
}

// parse reads a text; white space in it does not count.
func (f signedForm) parse(text string) (statement, error) {
	text = strings.Join(strings.Fields(text), "")
	if len(text) > f.maxText {
		return statement{}, fmt.Errorf("this is too long: the %s has at most %d characters", f.what, f.maxText)
	}
	text, ok := strings.CutPrefix(text, f.scheme)
	if !ok {
		return statement{}, fmt.Errorf("this is no %s: one begins with %q", f.what, f.scheme)
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return statement{}, f.errDamaged()
	}
	s, sig, err := f.read(raw)
	if err != nil {
		return statement{}, err
	}
	body := f.append(nil, s)
	if !bytes.Equal(appendBytes(bytes.Clone(body), f.sig, sig), raw) {
		return statement{}, fmt.Errorf("the %s is not in its one encoding", f.what)
	}
	if !ed25519.Verify(s.From[:], append([]byte(f.domain), body...), sig) {
		return statement{}, fmt.Errorf("the %s's signature is wrong: somebody changed it, or it was not copied whole", f.what)
	}
	return s, nil
}

// read reads the fields in any order; the comparison with the one encoding follows.
func (f signedForm) read(raw []byte) (s statement, sig []byte, err error) {
	err = eachField(raw, func(num protowire.Number, n uint64, v []byte) error {
		switch {
		case num == f.from && len(v) == len(s.From):
			copy(s.From[:], v)
		case num == f.network:
			s.Network = string(v)
		case num == f.version:
			s.Version = n
		case num == f.expires:
			s.Expires = int64(n)
		case num == f.peer && len(s.Peers) < f.maxPeers:
			p, err := readPeer(v)
			if err != nil {
				return fmt.Errorf("%w (%w)", f.errDamaged(), err)
			}
			s.Peers = append(s.Peers, p)
		case num == f.sig && len(v) == ed25519.SignatureSize:
			sig = v
		default:
			return f.errDamaged()
		}
		return nil
	})
	if err == nil && sig == nil {
		err = f.errDamaged()
	}
	if err != nil {
		return statement{}, nil, err
	}
	return s, sig, f.check(s)
}

// The fields of the Peer message (SPEC.md section 15).
const (
	peerKey   protowire.Number = 1
	peerAddr  protowire.Number = 2
	peerToken protowire.Number = 3
)

var errDamagedPeer = errors.New("a peer's fields are not as they should be")

func appendPeers(b []byte, num protowire.Number, peers []InvitePeer) []byte {
	for _, p := range peers {
		inner := appendBytes(nil, peerKey, p.Key[:])
		for _, a := range p.Addrs {
			inner = appendBytes(inner, peerAddr, a)
		}
		if p.Token != nil {
			inner = appendBytes(inner, peerToken, p.Token[:])
		}
		b = appendBytes(b, num, inner)
	}
	return b
}

func readPeer(raw []byte) (p InvitePeer, err error) {
	err = eachField(raw, func(num protowire.Number, _ uint64, v []byte) error {
		switch {
		case num == peerKey && len(v) == len(p.Key):
			copy(p.Key[:], v)
		case num == peerAddr && len(p.Addrs) < MaxInviteAddrs && len(v) <= MaxInviteAddr:
			p.Addrs = append(p.Addrs, bytes.Clone(v))
		case num == peerToken && len(v) == len(InviteToken{}):
			t := InviteToken(v)
			p.Token = &t
		default:
			return errDamagedPeer
		}
		return nil
	})
	return p, err
}

// eachField calls visit with the number and the value of every field, in the order in which they stand.
func eachField(raw []byte, visit func(num protowire.Number, n uint64, v []byte) error) error {
	for rest := raw; len(rest) > 0; {
		num, typ, size := protowire.ConsumeTag(rest)
		if size < 0 {
			return protowire.ParseError(size)
		}
		rest = rest[size:]
		var n uint64
		var v []byte
		switch typ {
		case protowire.VarintType:
			n, size = protowire.ConsumeVarint(rest)
		case protowire.BytesType:
			v, size = protowire.ConsumeBytes(rest)
		default:
			return fmt.Errorf("field %d is of type %d", num, typ)
		}
		if size < 0 {
			return protowire.ParseError(size)
		}
		if err := visit(num, n, v); err != nil {
			return err
		}
		rest = rest[size:]
	}
	return nil
}
