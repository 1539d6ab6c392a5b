package protocol

import (
	"crypto/ed25519"
	"errors"
	"time"
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

// InviteToken is the secret by which a bridge lets in who holds an invite.
type InviteToken = [16]byte

// Invite says how to reach peers of a network. Whoever holds it can use it: it is a secret.
type Invite struct {
	From    [ed25519.PublicKeySize]byte // key of the inviting node's peer id, which signs
	Network string
	Expires int64 // unix seconds; from then on nobody is let in who comes for the first time
	Peers   []InvitePeer
}

// InvitePeer is one peer of an invite or of a list.
type InvitePeer struct {
	Key   [ed25519.PublicKeySize]byte // of its peer id
	Addrs [][]byte                    // multiaddrs in binary form, without /p2p/ and without the token
	Token *InviteToken                // nil: it is open to everybody
}

// inviteForm is SPEC.md section 15.
var inviteForm = signedForm{
	what: "invite", scheme: InviteScheme, domain: "openline invite 1\x00", maxText: MaxInviteLink, maxPeers: MaxInvitePeers,
	from: 1, network: 2, expires: 3, peer: 4, sig: 5,
}

func (i Invite) statement() statement {
	return statement{From: i.From, Network: i.Network, Expires: i.Expires, Peers: i.Peers}
}

// Sign returns the invite as a link, signed by the inviting node's key, which becomes From.
func (i Invite) Sign(key ed25519.PrivateKey) (string, error) {
	return inviteForm.seal(i.statement(), key)
}

// ParseInvite reads a link, with or without white space around and inside: links are copied from messages that break
// lines. It checks form and signature; whether the invite has expired and fits the network is the caller's to ask.
func ParseInvite(link string) (Invite, error) {
	if len(link) > 2*MaxInviteLink {
		return Invite{}, errors.New("this is too long for an invite")
	}
	s, err := inviteForm.parse(link)
	return Invite{From: s.From, Network: s.Network, Expires: s.Expires, Peers: s.Peers}, err
}

// Expired reports whether the invite is over at a time.
func (i Invite) Expired(now time.Time) bool { return now.Unix() >= i.Expires }
