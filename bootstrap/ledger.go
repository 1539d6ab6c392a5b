package bootstrap

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"openline/protocol"
)

// Token is the secret of an invite or of a member.
type Token = protocol.InviteToken

// Limits of what one invite may become.
const (
	maxInvites    = 1000
	maxMembers    = 1000 // of one invite without a limit of uses
	maxChildren   = 3    // invites that one member may hand on
	childUses     = 3
	childLifetime = 72 * time.Hour
)

// Refusals of a Ledger.
var (
	ErrNoInvite = errors.New("there is no such invite")
	ErrUsedUp   = errors.New("the invite is used up, expired or revoked")
	ErrEnough   = errors.New("no more invites may be made")
)

// Ledger is the record of the invites that this node has made and of who joined by them, in a file. A link's token
// admits guests: as many as it has uses, until it expires, each just long enough to name a token of its own. That one
// admits a member, until the invite is revoked. It is safe for concurrent use.
type Ledger struct {
	file string
	now  func() time.Time
	cut  func() // called when fewer tokens are good than before

	mu      sync.Mutex // guards the fields below
	invites []*issued
	byToken map[Token]entry
}

// issued is one invite as the file has it.
type issued struct {
	ID       string    `json:"id"`
	Token    hexToken  `json:"token"`
	Created  time.Time `json:"created"`
	Expires  time.Time `json:"expires"`
	Uses     int       `json:"uses"` // 0: any number
	Members  []*member `json:"members"`
	Parent   string    `json:"parent,omitempty"` // the invite whose member asked for this one
	By       hexToken  `json:"by,omitzero"`      // that member's token
	Revoked  bool      `json:"revoked,omitempty"`
	Standing bool      `json:"standing,omitempty"` // its token itself admits, for published addresses
}

type member struct {
	Token  hexToken  `json:"token"`
	Joined time.Time `json:"joined"`
}

type hexToken Token

func (t hexToken) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(t[:])), nil }

func (t *hexToken) UnmarshalText(b []byte) error {
	if len(b) != 2*len(t) {
		return fmt.Errorf("a token has %d hex digits, not %d", 2*len(t), len(b))
	}
	_, err := hex.Decode(t[:], b)
	return err
}

// entry is what a token stands for: an invite's own, or that of one who joined by it.
type entry struct {
	*issued
	member bool
}

func newToken() (t Token) {
	rand.Read(t[:])
	return t
}

// Issued describes an invite without its secret.
type Issued struct {
	ID      string
	Created time.Time
	Expires time.Time
	Uses    int // 0: any number
	Joined  int
	Parent  string // the invite of whoever asked for this one
	Revoked bool
	Over    bool // nobody new is let in: used up, expired or revoked
}

// OpenLedger reads the record, which may be missing. cut may be nil.
func OpenLedger(file string, now func() time.Time, cut func()) (*Ledger, error) {
	if cut == nil {
		cut = func() {}
	}
	l := &Ledger{file: file, now: now, cut: cut}
	raw, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the invites: %w", err)
	}
	if err == nil {
		if err := json.Unmarshal(raw, &l.invites); err != nil {
			return nil, fmt.Errorf("the invites in %s are damaged: %w", file, err)
		}
	}
	l.index()
	return l, nil
}

// index builds byToken; l.mu is held, or l is not yet known to others.
func (l *Ledger) index() {
	l.byToken = map[Token]entry{}
	for _, i := range l.invites {
		l.byToken[i.Token] = entry{i, i.Standing}
		for _, m := range i.Members {
			l.byToken[m.Token] = entry{i, true}
		}
	}
}

// open reports whether new people may come by i.
func (l *Ledger) open(i *issued) bool {
	return !l.revoked(i) && l.now().Before(i.Expires) && (len(i.Members) < i.Uses || i.Uses == 0 && len(i.Members) < maxMembers)
}

// revoked reports whether i, or one that it comes from, was revoked. Who is no longer a member has no children either.
func (l *Ledger) revoked(i *issued) bool {
	for range maxInvites {
		if i.Revoked {
			return true
		}
		if i.Parent == "" {
			return false
		}
		if i = l.find(i.Parent); i == nil {
			return true
		}
	}
	return true
}

func (l *Ledger) find(id string) *issued {
	for _, i := range l.invites {
		if i.ID == id {
			return i
		}
	}
	return nil
}

// Admit reports whether a token lets in, and whether as a guest who has to Redeem it.
func (l *Ledger) Admit(t Token) (ok, guest bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.byToken[t]
	if !ok {
		return false, false
	}
	if e.member {
		return !l.revoked(e.issued) && (!e.Standing || l.open(e.issued)), false
	}
	return l.open(e.issued), true
}

// Tokens returns all that Admit lets in.
func (l *Ledger) Tokens() []Token {
	l.mu.Lock()
	all := make([]Token, 0, len(l.byToken))
	for t := range l.byToken {
		all = append(all, t)
	}
	l.mu.Unlock()
	return slices.DeleteFunc(all, func(t Token) bool { ok, _ := l.Admit(t); return !ok })
}

// Issue makes an invite for a number of people (0: any) that holds for a while. A standing one has a token that admits
// by itself, for an address that is published.
func (l *Ledger) Issue(uses int, lifetime time.Duration, standing bool) (Issued, Token, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.issue(&issued{Uses: uses, Expires: l.now().Add(lifetime).UTC().Truncate(time.Second), Standing: standing})
}

func (l *Ledger) issue(i *issued) (Issued, Token, error) {
	l.invites = slices.DeleteFunc(l.invites, func(i *issued) bool { return len(i.Members) == 0 && !l.open(i) })
	if len(l.invites) >= maxInvites {
		return Issued{}, Token{}, fmt.Errorf("%w: there are %d", ErrEnough, len(l.invites))
	}
	i.Token = newToken()
	var id [4]byte
	rand.Read(id[:])
	i.ID, i.Created = hex.EncodeToString(id[:]), l.now().UTC().Truncate(time.Second)
	l.invites = append(l.invites, i)
	l.index()
	return l.describe(i), i.Token, l.save()
}

// Child makes an invite for whom a member wants to bring in: less than an own one, and not many.
func (l *Ledger) Child(by Token) (Issued, Token, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.byToken[by]
	if !ok || !e.member || e.Standing || l.revoked(e.issued) {
		return Issued{}, Token{}, ErrNoInvite
	}
	made := 0
	for _, i := range l.invites {
		if i.By == by {
			made++
		}
	}
	if made >= maxChildren {
		return Issued{}, Token{}, fmt.Errorf("%w: you have handed on %d", ErrEnough, made)
	}
	return l.issue(&issued{Uses: childUses, Expires: l.now().Add(childLifetime).UTC().Truncate(time.Second), Parent: e.ID, By: by})
}

// Redeem makes a guest a member whose token is own; a second time it does nothing, for answers get lost.
func (l *Ledger) Redeem(t, own Token) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.byToken[t]
	if known, is := l.byToken[own]; is {
		if ok && known.issued == e.issued && known.member && !l.revoked(e.issued) {
			return nil
		}
		return ErrUsedUp
	}
	if !ok || e.member || !l.open(e.issued) {
		return ErrUsedUp
	}
	e.Members = append(e.Members, &member{Token: own, Joined: l.now().UTC().Truncate(time.Second)})
	l.index()
	return l.save()
}

// Revoke ends an invite, those made from it, and everybody's stay who came by them; nobody else's.
func (l *Ledger) Revoke(id string) (Issued, error) {
	l.mu.Lock()
	i := l.find(id)
	if i == nil {
		l.mu.Unlock()
		return Issued{}, fmt.Errorf("%w as %q", ErrNoInvite, id)
	}
	i.Revoked = true
	d, err := l.describe(i), l.save()
	l.mu.Unlock()
	l.cut()
	return d, err
}

// List returns the invites, the newest last.
func (l *Ledger) List() []Issued {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := make([]Issued, 0, len(l.invites))
	for _, i := range l.invites {
		list = append(list, l.describe(i))
	}
	return list
}

// Pending reports whether somebody may still come by an invite, or has come by one.
func (l *Ledger) Pending() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.invites, func(i *issued) bool { return !l.revoked(i) && l.now().Before(i.Expires) })
}

func (l *Ledger) describe(i *issued) Issued {
	return Issued{ID: i.ID, Created: i.Created, Expires: i.Expires, Uses: i.Uses, Joined: len(i.Members), Parent: i.Parent,
		Revoked: l.revoked(i), Over: !l.open(i)}
}

// save writes the record; l.mu is held.
func (l *Ledger) save() error {
	if l.file == "" {
		return nil
	}
	raw, err := json.MarshalIndent(l.invites, "", " ")
	if err != nil {
		return err
	}
	return WriteFile(l.file, raw)
}
