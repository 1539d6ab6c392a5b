package bootstrap

import (
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Trial is how a source did when it was tried.
type Trial struct {
	Source string
	Peers  []peer.AddrInfo // each once, with all addresses
	Err    error           // nil also when nobody was found
}

// Try asks every source side by side for as long as ctx lasts, at most so long, and takes up whom they find.
func (f *Finder) Try(ctx context.Context, most time.Duration) []Trial {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	trials := make([]Trial, len(f.sources))
	var running sync.WaitGroup
	for i, s := range f.sources {
		running.Go(func() {
			_, keep := s.(Configured)
			var peers []peer.AddrInfo
			err := s.Find(ctx, func(p peer.AddrInfo) {
				peers = append(peers, p)
				select {
				case f.found <- candidate{AddrInfo: p, source: s.Name(), keep: keep}:
				case <-ctx.Done():
				}
			})
			trials[i] = Trial{s.Name(), Merge(peers), err}
		})
	}
	running.Wait()
	return trials
}

// Merge makes one of all that was found of each peer, in the order of finding.
func Merge(peers []peer.AddrInfo) []peer.AddrInfo {
	var merged []peer.AddrInfo
	at := map[peer.ID]int{}
	for _, p := range peers {
		i, known := at[p.ID]
		if !known {
			i = len(merged)
			at[p.ID] = i
			merged = append(merged, peer.AddrInfo{ID: p.ID})
		}
		merged[i].Addrs = Unique(append(merged[i].Addrs, p.Addrs...))
	}
	return merged
}
