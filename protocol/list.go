package protocol

import (
	"crypto/ed25519"
	"errors"
	"strings"
	"time"
)

// Limits of a list; those of a peer are an invite's.
const (
	MaxListText  = 128 << 10 // bytes of the text, comments and white space included
	MaxListPeers = 256
)

// ListScheme begins every list.
const ListScheme = "openline:list?"

// List names relays of a network. Its operator publishes it, and everybody may know it.
type List struct {
	From    [ed25519.PublicKeySize]byte // key of the operator, which signs
	Network string
	Version uint64       // 1 to 2^53-1; a reader never goes back to a smaller one of the same operator
	Expires int64        // unix seconds; from then on it says nothing
	Peers   []InvitePeer // a token is that of a standing invite: it lets in everybody who has the list
}

// listForm is SPEC.md section 17.
var listForm = signedForm{
	what: "list", scheme: ListScheme, domain: "openline list 1\x00", maxText: MaxListText, maxPeers: MaxListPeers,
	from: 1, network: 2, version: 3, expires: 4, peer: 5, sig: 6,
}

// Sign returns the list as a text of one line, signed by the operator's key, which becomes From.
func (l List) Sign(key ed25519.PrivateKey) (string, error) { return listForm.seal(statement(l), key) }

// ParseList reads what a mirror serves: lines that begin with # are comments, which nobody has signed, and white space
// does not count. It checks form and signature; whether From is an operator whom the user trusts, and whether the list
// has expired and fits the network, is the caller's to ask.
func ParseList(text string) (List, error) {
	if len(text) > MaxListText {
		return List{}, errors.New("this is too long for a list")
	}
	s, err := listForm.parse(uncommented(text))
	return List(s), err
}

// uncommented returns the lines of a text that are no comments.
func uncommented(text string) string {
	var kept strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(strings.TrimSpace(line), "#") {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

// Expired reports whether the list is over at a time.
func (l List) Expired(now time.Time) bool { return now.Unix() >= l.Expires }
