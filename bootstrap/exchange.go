package bootstrap

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/record"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// The exchange of peers, SPEC.md section 18: whom the asker's record may be told to, that record or nothing, and as the
// answer records of others.
const (
	exchangeProtocol = protocol.ID("/openline/peers/1")
	exchangeTimeout  = 20 * time.Second
	exchangeAgain    = 10 * time.Minute

	tellIfReached byte = 0 // only if you have dialled me, which shows that I can be reached
	tellEverybody byte = 1

	maxRecord      = 2048 // bytes of a signed record
	maxRecords     = 16   // in an answer
	maxRecordAddrs = 16   // of a peer
	askers         = 3
	maxDue         = 64   // peers that are to be asked
	maxTold        = 1024 // records of peers that want to be told of
	toldFor        = 2 * time.Hour
)

// Exchange is the source of peers that connected peers know: records that their owners signed, of those alone that let
// them be told. Bridges, and nodes in another mode than open, are asked nothing, answer nothing and stand in no answer.
type Exchange struct {
	host   host.Host
	tell   bool
	public func([]ma.Multiaddr) []ma.Multiaddr

	mu   sync.Mutex // guards told
	told map[peer.ID]telling
}

// telling is what a peer lets this node tell of it.
type telling struct {
	record    []byte
	everybody bool // else only while this node has a connection to it that it has made
	at        time.Time
}

// NewExchange answers whoever asks from now on. With tell this node asks others to tell everybody of it. public leaves
// out addresses that are secret.
func NewExchange(h host.Host, tell bool, public func([]ma.Multiaddr) []ma.Multiaddr) *Exchange {
	x := &Exchange{host: h, tell: tell, public: public, told: map[peer.ID]telling{}}
	h.SetStreamHandler(exchangeProtocol, x.answer)
	return x
}

// Close answers nobody any more.
func (x *Exchange) Close() error {
	x.host.RemoveStreamHandler(exchangeProtocol)
	return nil
}

// Name is the source's.
func (x *Exchange) Name() string { return "exchange" }

// Find asks every peer that answers once it is connected, and now and then one of them again.
func (x *Exchange) Find(ctx context.Context, found func(peer.AddrInfo)) error {
	sub, err := x.host.EventBus().Subscribe(new(event.EvtPeerIdentificationCompleted), eventbus.Name("exchange"))
	if err != nil {
		return fmt.Errorf("follow new peers: %w", err)
	}
	defer sub.Close()
	again := time.NewTicker(exchangeAgain)
	defer again.Stop()
	// Whoever is slow to answer must not keep libp2p waiting for a reader of its events.
	due := make(chan peer.ID, maxDue)
	var asking sync.WaitGroup
	defer asking.Wait()
	for range askers {
		asking.Go(func() { x.askAll(ctx, due, found) })
	}
	defer close(due)
	soon := func(p peer.ID) {
		select {
		case due <- p:
		default: // too many came at once: others know as much
		}
	}
	for _, p := range x.host.Network().Peers() {
		soon(p)
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-sub.Out():
			soon(e.(event.EvtPeerIdentificationCompleted).Peer)
		case <-again.C:
			if peers := x.host.Network().Peers(); len(peers) > 0 {
				soon(peers[rand.N(len(peers))])
			}
		}
	}
}

func (x *Exchange) askAll(ctx context.Context, due <-chan peer.ID, found func(peer.AddrInfo)) {
	for p := range due {
		if ctx.Err() == nil {
			x.ask(ctx, p, found)
		}
	}
}

// ask asks one peer, if it is one that answers. That one does not is nobody's trouble: others do.
func (x *Exchange) ask(ctx context.Context, p peer.ID, found func(peer.AddrInfo)) {
	if !x.speaks(p) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, exchangeTimeout)
	defer cancel()
	s, err := x.host.NewStream(network.WithNoDial(ctx, "exchange"), p, exchangeProtocol)
	if err != nil {
		return
	}
	defer s.Close()
	defer context.AfterFunc(ctx, func() { s.Reset() })()
	s.SetDeadline(time.Now().Add(exchangeTimeout))
	whom := tellIfReached
	if x.tell {
		whom = tellEverybody
	}
	own, err := x.own()
	if err != nil {
		own = nil // without addresses there is nothing to tell
	}
	if writeRecord(s, []byte{whom}, own) != nil || s.CloseWrite() != nil {
		s.Reset()
		return
	}
	in := bufio.NewReader(s)
	for range maxRecords {
		raw, err := readRecord(in)
		if err != nil {
			return
		}
		if info, err := x.open(raw, s.Conn().RemoteMultiaddr()); err == nil && info.ID != x.host.ID() {
			found(info)
		}
	}
}

func (x *Exchange) speaks(p peer.ID) bool {
	known, err := x.host.Peerstore().SupportsProtocols(p, exchangeProtocol)
	return err == nil && len(known) > 0
}

// own is this node's record.
func (x *Exchange) own() ([]byte, error) {
	addrs := ma.FilterAddrs(x.public(x.host.Addrs()), func(a ma.Multiaddr) bool { return !manet.IsIPLoopback(a) })
	if len(addrs) == 0 {
		return nil, errors.New("no address to tell")
	}
	info := peer.AddrInfo{ID: x.host.ID(), Addrs: addrs[:min(len(addrs), maxRecordAddrs)]}
	sealed, err := record.Seal(peer.PeerRecordFromAddrInfo(info), x.host.Peerstore().PrivKey(x.host.ID()))
	if err != nil {
		return nil, err
	}
	return sealed.Marshal()
}

// open reads a record that came over a connection to via. Addresses nearer than via itself are of networks that this
// node is not in.
func (x *Exchange) open(raw []byte, via ma.Multiaddr) (info peer.AddrInfo, err error) {
	if len(raw) > maxRecord {
		return info, errors.New("a peer's record is too long")
	}
	var r peer.PeerRecord
	sealed, err := record.ConsumeTypedEnvelope(raw, &r)
	if err != nil {
		return info, fmt.Errorf("a peer's record: %w", err)
	}
	if !r.PeerID.MatchesPublicKey(sealed.PublicKey) {
		return info, errors.New("a peer's record is signed by somebody else")
	}
	addrs := x.public(r.Addrs[:min(len(r.Addrs), maxRecordAddrs)])
	addrs = ma.FilterAddrs(addrs, func(a ma.Multiaddr) bool { return nearness(a) <= nearness(via) })
	if len(addrs) == 0 {
		return info, errors.New("a peer's record has no address for us")
	}
	return peer.AddrInfo{ID: r.PeerID, Addrs: addrs}, nil
}

// nearness is 0 for addresses that the world reaches, 1 for those of a local network, 2 for this machine's.
func nearness(a ma.Multiaddr) int {
	switch {
	case manet.IsIPLoopback(a):
		return 2
	case manet.IsPrivateAddr(a), manet.IsIP6LinkLocal(a):
		return 1
	}
	return 0
}

// Farthest leaves out a peer's addresses in local networks when it has some that the world reaches, and those of its own
// machine when it has any other: to whomever hears of them from afar, they are somebody else's.
func Farthest(addrs []ma.Multiaddr) []ma.Multiaddr {
	least := 2
	for _, a := range addrs {
		least = min(least, nearness(a))
	}
	return ma.FilterAddrs(addrs, func(a ma.Multiaddr) bool { return nearness(a) == least })
}

// answer takes the asker's record and tells it of others.
func (x *Exchange) answer(s network.Stream) {
	defer s.Close()
	s.SetDeadline(time.Now().Add(exchangeTimeout))
	in := bufio.NewReader(s)
	whom, err := in.ReadByte()
	if err != nil {
		s.Reset()
		return
	}
	raw, err := readRecord(in)
	if err != nil {
		s.Reset()
		return
	}
	asker := s.Conn().RemotePeer()
	if info, err := x.open(raw, ma.StringCast("/ip4/127.0.0.1")); err == nil && info.ID == asker {
		x.note(asker, telling{raw, whom == tellEverybody, time.Now()})
	}
	for _, r := range x.pick(asker) {
		if writeRecord(s, nil, r) != nil {
			s.Reset()
			return
		}
	}
}

func (x *Exchange) note(p peer.ID, t telling) {
	x.mu.Lock()
	defer x.mu.Unlock()
	maps.DeleteFunc(x.told, func(p peer.ID, t telling) bool {
		return time.Since(t.at) > toldFor && x.host.Network().Connectedness(p) != network.Connected
	})
	if _, known := x.told[p]; !known && len(x.told) >= maxTold {
		for any := range x.told { // in no order, so that nobody holds all places for long
			delete(x.told, any)
			break
		}
	}
	x.told[p] = t
}

// pick chooses records for an asker.
func (x *Exchange) pick(asker peer.ID) [][]byte {
	reached, connected := map[peer.ID]bool{}, map[peer.ID]bool{}
	for _, c := range x.host.Network().Conns() {
		connected[c.RemotePeer()] = true
		reached[c.RemotePeer()] = reached[c.RemotePeer()] || c.Stat().Direction == network.DirOutbound
	}
	var chosen [][]byte
	x.mu.Lock()
	for p, t := range x.told {
		if p != asker && (t.everybody && (connected[p] || time.Since(t.at) <= toldFor) || reached[p]) {
			chosen = append(chosen, t.record)
		}
	}
	x.mu.Unlock()
	rand.Shuffle(len(chosen), func(i, j int) { chosen[i], chosen[j] = chosen[j], chosen[i] })
	return chosen[:min(len(chosen), maxRecords)]
}

// writeRecord writes a record after its length, and both after head.
func writeRecord(w io.Writer, head, raw []byte) error {
	_, err := w.Write(append(binary.AppendUvarint(head, uint64(len(raw))), raw...))
	return err
}

func readRecord(r *bufio.Reader) ([]byte, error) {
	n, err := binary.ReadUvarint(r)
	if err != nil {
		return nil, err
	}
	if n > maxRecord {
		return nil, fmt.Errorf("a record of %d bytes; %d are the most", n, maxRecord)
	}
	raw := make([]byte, n)
	_, err = io.ReadFull(r, raw)
	return raw, err
}
