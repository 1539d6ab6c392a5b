package bootstrap

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	maxBook      = 256 // peers; those that worked longest ago go first, invited ones last
	bookFailures = 5   // in a row, after which one that nobody invited us to is forgotten
	maxBookAddrs = 12  // of a peer
	anchors      = 2   // kept over restarts, so that whoever surrounds a node has to be there when it was first started
)

// Book is the memory of peers that worked, in a file, and of those that an invite named. It is a Source, the one asked
// first. It is safe for concurrent use.
type Book struct {
	file string
	now  func() time.Time
	with func(ma.Multiaddr, Token) ma.Multiaddr // puts a token into an address

	mu    sync.Mutex // guards the fields below
	peers map[peer.ID]*known
	dirty bool
	added chan struct{} // has an element when Find has new peers to tell
}

// known is one peer as the file has it.
type known struct {
	ID       peer.ID        `json:"id"`
	Addrs    []ma.Multiaddr `json:"addrs"` // without tokens
	Source   string         `json:"source"`
	Worked   time.Time      `json:"worked,omitzero"`
	Failures int            `json:"failures,omitempty"`
	Anchor   bool           `json:"anchor,omitempty"`

	Link    *hexToken `json:"link,omitempty"` // by which an invite lets us in for the first time
	Own     *hexToken `json:"own,omitempty"`  // by which we stay
	Member  bool      `json:"member,omitempty"`
	Invited bool      `json:"invited,omitempty"`
}

// OpenBook reads the file, which may be missing. A damaged one is put aside: what it knew can be found again, but an
// invite in it may not, so it is not thrown away.
func OpenBook(file string, now func() time.Time, with func(ma.Multiaddr, Token) ma.Multiaddr) (*Book, error) {
	b := &Book{file: file, now: now, with: with, peers: map[peer.ID]*known{}, added: make(chan struct{}, 1)}
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the peer book: %w", err)
	}
	var list []*known
	if err := json.Unmarshal(raw, &list); err != nil {
		return b, os.Rename(file, file+".damaged")
	}
	for _, e := range list {
		if e != nil && e.ID.Validate() == nil && len(e.Addrs) > 0 {
			b.peers[e.ID] = e
		}
	}
	return b, nil
}

// Name is the source's.
func (b *Book) Name() string { return "book" }

// Find tells all that the book has, the anchors first, then whoever worked last, and whoever is added, until ctx ends.
func (b *Book) Find(ctx context.Context, found func(peer.AddrInfo)) error {
	for {
		for _, p := range b.all() {
			found(p)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-b.added: // an address or a token may be new
		}
	}
}

func (b *Book) all() []peer.AddrInfo {
	b.mu.Lock()
	defer b.mu.Unlock()
	var infos []peer.AddrInfo
	for _, e := range b.best() {
		infos = append(infos, b.info(e))
	}
	return infos
}

// best returns the entries in the order of trying; b.mu is held.
func (b *Book) best() []*known {
	list := make([]*known, 0, len(b.peers))
	for _, e := range b.peers {
		list = append(list, e)
	}
	rank := func(yes bool) int {
		if yes {
			return 0
		}
		return 1
	}
	slices.SortFunc(list, func(x, y *known) int {
		return cmp.Or(rank(x.Anchor)-rank(y.Anchor), rank(x.Invited)-rank(y.Invited), y.Worked.Compare(x.Worked), cmp.Compare(x.ID, y.ID))
	})
	return list
}

// info is a peer with the tokens that its addresses need; b.mu is held.
func (b *Book) info(e *known) peer.AddrInfo {
	token := e.Link
	if e.Member {
		token = e.Own
	}
	p := peer.AddrInfo{ID: e.ID}
	for _, a := range e.Addrs {
		if token != nil {
			a = b.with(a, *token)
		}
		p.Addrs = append(p.Addrs, a)
	}
	return p
}

// Invite adds a peer that an invite names. link is nil when it lets in everybody. An invite to a peer whose member we
// are already changes only where it is to be found.
func (b *Book) Invite(p peer.AddrInfo, link *Token) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.peers[p.ID]
	if e == nil {
		e = &known{ID: p.ID, Source: "invite"}
		b.peers[p.ID] = e
	}
	e.Addrs, e.Invited, e.Source, e.Failures = capped(append(slices.Clone(p.Addrs), e.Addrs...)), true, "invite", 0
	if link != nil && (e.Link == nil || *e.Link != *link) {
		t, own := hexToken(*link), hexToken(newToken())
		e.Link, e.Own, e.Member = &t, &own, false
	}
	return b.tell()
}

// tell writes the book and has Find tell it again; b.mu is held.
func (b *Book) tell() error {
	b.dirty = true
	select {
	case b.added <- struct{}{}:
	default:
	}
	return b.save()
}

func capped(addrs []ma.Multiaddr) []ma.Multiaddr {
	addrs = Unique(addrs)
	return addrs[:min(len(addrs), maxBookAddrs)]
}

// Owed returns our own token for a peer that does not know it yet: we are its guest still.
func (b *Book) Owed(p peer.ID) (own Token, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.peers[p]
	if e == nil || e.Link == nil || e.Member {
		return own, false
	}
	return *e.Own, true
}

// Joined notes that a peer knows our own token now.
func (b *Book) Joined(p peer.ID) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.peers[p]
	if e == nil || e.Own == nil {
		return nil
	}
	e.Member = true
	return b.tell()
}

// Member returns our own token at a peer that let us in by an invite.
func (b *Book) Member(p peer.ID) (own Token, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.peers[p]
	if e == nil || !e.Member {
		return own, false
	}
	return *e.Own, true
}

// Invited reports whether an invite named a peer.
func (b *Book) Invited(p peer.ID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.peers[p] != nil && b.peers[p].Invited
}

// Worked notes that a peer could be reached under an address, which is then the first that is tried.
func (b *Book) Worked(p peer.ID, source string, bare ma.Multiaddr) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.peers[p]
	if e == nil {
		b.room()
		e = &known{ID: p, Source: source}
		b.peers[p] = e
	}
	e.Addrs = capped(append([]ma.Multiaddr{bare}, e.Addrs...))
	e.Worked, e.Failures, b.dirty = b.now().UTC().Truncate(time.Second), 0, true
}

// room forgets one peer that can be spared when the book is full; b.mu is held.
func (b *Book) room() {
	if len(b.peers) < maxBook {
		return
	}
	list := b.best()
	for _, e := range slices.Backward(list) {
		if !e.Invited && !e.Anchor {
			delete(b.peers, e.ID)
			return
		}
	}
}

// Failed notes that a peer could not be reached.
func (b *Book) Failed(p peer.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.peers[p]
	if e == nil {
		return
	}
	e.Failures, b.dirty = e.Failures+1, true
	if e.Failures >= bookFailures && !e.Invited && !e.Anchor {
		delete(b.peers, p)
	}
}

// Anchor makes these the anchors, and nobody else; none leaves them as they are.
func (b *Book) Anchor(peers []peer.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(peers) == 0 {
		return
	}
	for id, e := range b.peers {
		if is := slices.Contains(peers, id); is != e.Anchor {
			e.Anchor, b.dirty = is, true
		}
	}
}

// Save writes the book when something has changed.
func (b *Book) Save() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.save()
}

func (b *Book) save() error {
	if !b.dirty || b.file == "" {
		return nil
	}
	raw, err := json.MarshalIndent(b.best(), "", " ")
	if err == nil {
		err = WriteFile(b.file, raw)
	}
	b.dirty = err != nil
	return err
}

// Addrs returns where a peer is to be found, without tokens.
func (b *Book) Addrs(p peer.ID) []ma.Multiaddr {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.peers[p]; e != nil {
		return slices.Clone(e.Addrs)
	}
	return nil
}
