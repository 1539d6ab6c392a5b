package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"openline/protocol"
)

const (
	mirrorsAgain  = 6 * time.Hour
	mirrorStagger = 2 * time.Second // between two mirrors
	mirrorTimeout = 30 * time.Second
)

// Mirrors is the source of signed lists of relays (SPEC.md section 17) from HTTPS mirrors. Any mirror of a list will do,
// and none can change it. Who runs a mirror learns that somebody fetched the list.
type Mirrors struct {
	URLs   []string // as ParseListURL reads them
	Lists  *Lists
	Client *http.Client
	Info   func(protocol.InvitePeer) (peer.AddrInfo, error) // makes addresses of a list's peer, with its token
}

func (m Mirrors) Name() string { return "list" }

// Find tells the lists that are kept, then fetches those of all mirrors, in an order of its own, and again from time to
// time. Its error is that no mirror could be reached, or had a list that is good.
func (m Mirrors) Find(ctx context.Context, found func(peer.AddrInfo)) error {
	for _, u := range m.URLs {
		_, key, err := ParseListURL(u)
		if err != nil {
			return err
		}
		if l, ok := m.Lists.Kept(key); ok {
			m.tell(l, found)
		}
	}
	for {
		if err := m.fetchAll(ctx, found); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(mirrorsAgain/2 + rand.N(mirrorsAgain)):
		}
	}
}

func (m Mirrors) tell(l protocol.List, found func(peer.AddrInfo)) {
	for _, p := range l.Peers {
		if info, err := m.Info(p); err == nil { // else it was made by a later version, for others
			found(info)
		}
	}
}

// fetchAll succeeds when one mirror has a good list.
func (m Mirrors) fetchAll(ctx context.Context, found func(peer.AddrInfo)) error {
	var errs []error
	for i, n := range rand.Perm(len(m.URLs)) {
		if i > 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(mirrorStagger):
			}
		}
		l, err := m.fetch(ctx, m.URLs[n])
		if err != nil {
			errs = append(errs, err)
			continue
		}
		m.tell(l, found)
	}
	if len(errs) == len(m.URLs) {
		return errors.Join(errs...)
	}
	return nil
}

func (m Mirrors) fetch(ctx context.Context, at string) (l protocol.List, err error) {
	ctx, cancel := context.WithTimeout(ctx, mirrorTimeout)
	defer cancel()
	url, key, err := ParseListURL(at)
	if err != nil {
		return l, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return l, err
	}
	resp, err := m.Client.Do(req)
	if err != nil {
		return l, fmt.Errorf("fetch a list: %w", withoutAddress(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return l, fmt.Errorf("fetch a list: a mirror answers %s", resp.Status)
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, protocol.MaxListText+1))
	if err != nil {
		return l, fmt.Errorf("fetch a list: %w", err)
	}
	l, err = m.Lists.Take(key, string(raw))
	if errors.Is(err, ErrNotSaved) {
		return l, nil // the disk may be full or locked
	}
	return l, err
}
