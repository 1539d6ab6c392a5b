package protocol

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// Limits of an invite. A link of MaxInviteLink characters still fits into a QR code.
const (
	MaxInviteLink  = 2900
	MaxInvitePeers = 5
	MaxInviteAddrs = 6   // of a peer
	MaxInviteAddr  = 512 // bytes of an address
)

// InviteScheme begins every invite.
const InviteScheme = "openline:join?"

// inviteDomain keeps an invite's signature from being one of anything else.
const inviteDomain = "openline invite 1\x00"

// InviteToken is the secret by which a bridge lets in who holds an invite.
type InviteToken = [16]byte

// Invite says how to reach peers of a network. Whoever holds it can use it: it is a secret.
type Invite struct {
	From    [ed25519.PublicKeySize]byte // key of the inviting node's peer id, which signs
	Network string
	Expires int64 // unix seconds; from then on nobody is let in who comes for the first time
	Peers   []InvitePeer
}

// InvitePeer is one peer of an invite.
type InvitePeer struct {
	Key   [ed25519.PublicKeySize]byte // of its peer id
	Addrs [][]byte                    // multiaddrs in binary form, without /p2p/ and without the token
	Token *InviteToken                // nil: it is open to everybody
}

var errDamagedInvite = errors.New("the invite is damaged: was it copied whole?")

// The fields of the Invite message (SPEC.md section 15).
const (
	invFrom    protowire.Number = 1
	invNetwork protowire.Number = 2
	invExpires protowire.Number = 3
	invPeer    protowire.Number = 4
	invSig     protowire.Number = 5

	invPeerKey   protowire.Number = 1
	invPeerAddr  protowire.Number = 2
	invPeerToken protowire.Number = 3
)

// Sign returns the invite as a link, signed by the inviting node's key, which becomes From.
func (i Invite) Sign(key ed25519.PrivateKey) (string, error) {
	copy(i.From[:], key.Public().(ed25519.PublicKey))
	if err := i.check(); err != nil {
		return "", err
	}
	body := i.append(nil)
	body = appendBytes(body, invSig, ed25519.Sign(key, append([]byte(inviteDomain), body...)))
	link := InviteScheme + base64.RawURLEncoding.EncodeToString(body)
	if len(link) > MaxInviteLink {
		return "", fmt.Errorf("the invite would have %d characters; %d are the most: name fewer addresses", len(link), MaxInviteLink)
	}
	return link, nil
}

func (i Invite) append(b []byte) []byte {
	b = appendBytes(b, invFrom, i.From[:])
	b = appendBytes(b, invNetwork, []byte(i.Network))
	b = appendUint(b, invExpires, uint64(i.Expires))
	for _, p := range i.Peers {
		inner := appendBytes(nil, invPeerKey, p.Key[:])
		for _, a := range p.Addrs {
			inner = appendBytes(inner, invPeerAddr, a)
		}
		if p.Token != nil {
			inner = appendBytes(inner, invPeerToken, p.Token[:])
		}
		b = appendBytes(b, invPeer, inner)
	}
	return b
}

// check is what both who makes and who reads an invite insist on.
func (i Invite) check() error {
	switch {
	case i.Network == "" || len(i.Network) > 64 || !utf8.ValidString(i.Network):
		return errors.New("the invite names no network")
	case i.Expires <= 0 || i.Expires > maxTime:
		return errors.New("the invite has no expiry")
	case len(i.Peers) == 0 || len(i.Peers) > MaxInvitePeers:
		return fmt.Errorf("the invite names %d peers, not 1 to %d", len(i.Peers), MaxInvitePeers)
	}
	for _, p := range i.Peers {
		if len(p.Addrs) == 0 || len(p.Addrs) > MaxInviteAddrs {
			return fmt.Errorf("a peer of the invite has %d addresses, not 1 to %d", len(p.Addrs), MaxInviteAddrs)
		}
		for _, a := range p.Addrs {
			if len(a) == 0 || len(a) > MaxInviteAddr {
				return fmt.Errorf("an address of the invite has %d bytes, not 1 to %d", len(a), MaxInviteAddr)
			}
		}
	}
	return nil
}

// ParseInvite reads a link, with or without white space around and inside: links are copied from messages that break
// lines. It checks form and signature; whether the invite has expired and fits the network is the caller's to ask.
func ParseInvite(link string) (Invite, error) {
	if len(link) > 2*MaxInviteLink {
		return Invite{}, errors.New("this is too long for an invite")
	}
	text, ok := strings.CutPrefix(strings.Join(strings.Fields(link), ""), InviteScheme)
	if !ok || len(text) > MaxInviteLink {
		return Invite{}, fmt.Errorf("this is no invite: one begins with %q", InviteScheme)
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return Invite{}, errDamagedInvite
	}
	i, sig, err := readInvite(raw)
	if err != nil {
		return Invite{}, err
	}
	body := i.append(nil)
	if !bytes.Equal(appendBytes(bytes.Clone(body), invSig, sig), raw) {
		return Invite{}, errors.New("the invite is not in its one encoding")
	}
	if !ed25519.Verify(i.From[:], append([]byte(inviteDomain), body...), sig) {
		return Invite{}, errors.New("the invite's signature is wrong: somebody changed it, or it was not copied whole")
	}
	return i, nil
}

// readInvite reads the fields in any order; the comparison with the one encoding follows.
func readInvite(raw []byte) (i Invite, sig []byte, err error) {
	err = eachField(raw, func(num protowire.Number, n uint64, v []byte) error {
		switch {
		case num == invFrom && len(v) == len(i.From):
			copy(i.From[:], v)
		case num == invNetwork:
			i.Network = string(v)
		case num == invExpires:
			i.Expires = int64(n)
		case num == invPeer && len(i.Peers) < MaxInvitePeers:
			p, err := readInvitePeer(v)
			if err != nil {
				return err
			}
			i.Peers = append(i.Peers, p)
		case num == invSig && len(v) == ed25519.SignatureSize:
			sig = v
		default:
			return errDamagedInvite
		}
		return nil
	})
	if err == nil && sig == nil {
		err = errDamagedInvite
	}
	if err != nil {
		return Invite{}, nil, err
	}
	return i, sig, i.check()
}

func readInvitePeer(raw []byte) (p InvitePeer, err error) {
	err = eachField(raw, func(num protowire.Number, _ uint64, v []byte) error {
		switch {
		case num == invPeerKey && len(v) == len(p.Key):
			copy(p.Key[:], v)
		case num == invPeerAddr && len(p.Addrs) < MaxInviteAddrs && len(v) <= MaxInviteAddr:
			p.Addrs = append(p.Addrs, bytes.Clone(v))
		case num == invPeerToken && len(v) == len(InviteToken{}):
			t := InviteToken(v)
			p.Token = &t
		default:
			return errDamagedInvite
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

// Expired reports whether the invite is over at a time.
func (i Invite) Expired(now time.Time) bool { return now.Unix() >= i.Expires }
