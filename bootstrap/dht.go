package bootstrap

import (
	"context"
	"encoding/base32"
	"fmt"
	"strings"
	"time"

	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p-kad-dht/records"
	"github.com/libp2p/go-libp2p/core/discovery"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	drouting "github.com/libp2p/go-libp2p/p2p/discovery/routing"
	ma "github.com/multiformats/go-multiaddr"
	mh "github.com/multiformats/go-multihash"
)

const (
	dhtFirst   = 5 * time.Second  // between looks while nobody is known who answers
	dhtAgain   = 10 * time.Minute // between looks later on
	dhtTimeout = time.Minute      // of one look
	dhtMost    = 64               // peers of one look
	dhtRelays  = "openline relays"
	dhtEntries = 4096 // relays that this node remembers for others
)

// DHT is the source of relays that stand in a distributed hash table (Kademlia) of this network's own: relays keep it,
// daemons only ask. Everybody can enumerate what is in it, so bridges are not, and only mode open uses it.
type DHT struct {
	host   host.Host
	serve  bool
	public func([]ma.Multiaddr) []ma.Multiaddr
	table  *dht.IpfsDHT
}

// NewDHT joins the table of a network as far as connected peers keep it. With serve this node keeps it, too, and is
// found. public leaves out addresses that are secret.
func NewDHT(h host.Host, network string, serve bool, public func([]ma.Multiaddr) []ma.Multiaddr) (*DHT, error) {
	mode := dht.ModeClient
	if serve {
		mode = dht.ModeServer
	}
	h = discreet{h, public}
	d := &DHT{host: h, serve: serve, public: public}
	table, err := dht.New(h, dht.Mode(mode), dht.ProtocolPrefix(protocol.ID("/openline/1/"+network)),
		dht.DisableValues(), dht.AddressFilter(d.usable), dht.ProviderDatastore(newShelf()),
		dht.ProviderManagerOpts(records.ProvideValidity(24*time.Hour)))
	if err != nil {
		return nil, fmt.Errorf("start the hash table: %w", err)
	}
	d.table = table
	return d, nil
}

// discreet is a host whose peers have no secret addresses: the library answers others out of the peer store, where what
// is being dialled stands with its token.
type discreet struct {
	host.Host
	public func([]ma.Multiaddr) []ma.Multiaddr
}

func (h discreet) Peerstore() peerstore.Peerstore { return shownPeers{h.Host.Peerstore(), h.public} }

type shownPeers struct {
	peerstore.Peerstore
	public func([]ma.Multiaddr) []ma.Multiaddr
}

func (s shownPeers) Addrs(p peer.ID) []ma.Multiaddr { return s.public(s.Peerstore.Addrs(p)) }

func (s shownPeers) PeerInfo(p peer.ID) peer.AddrInfo { return peer.AddrInfo{ID: p, Addrs: s.Addrs(p)} }

// usable leaves out addresses that are secret, and those that are nearer than the farthest connection of this node: who
// is connected to the world hears of the world, and lets nobody point it at the machines of its own network.
func (d *DHT) usable(addrs []ma.Multiaddr) []ma.Multiaddr {
	farthest := 2
	for _, c := range d.host.Network().Conns() {
		farthest = min(farthest, nearness(c.RemoteMultiaddr()))
	}
	return ma.FilterAddrs(Farthest(d.public(addrs)), func(a ma.Multiaddr) bool { return nearness(a) <= farthest })
}

// Close leaves the table.
func (d *DHT) Close() error { return d.table.Close() }

// Name is the source's.
func (d *DHT) Name() string { return "dht" }

// Find looks for relays as soon as somebody is connected who keeps the table, and from time to time.
func (d *DHT) Find(ctx context.Context, found func(peer.AddrInfo)) error {
	relays := drouting.NewRoutingDiscovery(d.table)
	announced := time.Time{}
	for {
		wait := dhtFirst
		if d.table.RoutingTable().Size() > 0 {
			wait = dhtAgain
			if d.serve && time.Since(announced) > time.Hour && d.announce(ctx, relays) == nil {
				announced = time.Now()
			}
			d.look(ctx, relays, found)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

func (d *DHT) announce(ctx context.Context, relays discovery.Advertiser) error {
	ctx, cancel := context.WithTimeout(ctx, dhtTimeout)
	defer cancel()
	_, err := relays.Advertise(ctx, dhtRelays)
	return err
}

// look tells whom the table has. That it has nobody is no failure: there may be no relay yet.
func (d *DHT) look(ctx context.Context, relays discovery.Discoverer, found func(peer.AddrInfo)) {
	ctx, cancel := context.WithTimeout(ctx, dhtTimeout)
	defer cancel()
	peers, err := relays.FindPeers(ctx, dhtRelays, discovery.Limit(dhtMost))
	if err != nil {
		return
	}
	for p := range peers {
		if p.Addrs = d.usable(p.Addrs); p.ID != d.host.ID() && len(p.Addrs) > 0 {
			found(p)
		}
	}
}

// shelf is the datastore of what others put into the table, in memory. Strangers fill it, so it takes relays of this
// network alone, and not too many; what it does not take is lost silently, as in any hash table.
type shelf struct {
	*datastore.MapDatastore
	takes string // how the keys begin
	size  int
}

func newShelf() datastore.Batching {
	return dssync.MutexWrap(&shelf{MapDatastore: datastore.NewMapDatastore(), takes: relaysKey()})
}

// relaysKey is how the library begins the keys of relays' entries.
func relaysKey() string {
	relays, err := mh.Sum([]byte(dhtRelays), mh.SHA2_256, -1)
	if err != nil {
		panic(err) // it knows SHA-256
	}
	return records.ProvidersKeyPrefix + base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(relays)
}

// Put is called under the lock of the wrapper.
func (s *shelf) Put(ctx context.Context, key datastore.Key, value []byte) error {
	known, err := s.Has(ctx, key)
	if err != nil || !known && (s.size >= dhtEntries || !strings.HasPrefix(key.String(), s.takes)) {
		return err
	}
	if !known {
		s.size++
	}
	return s.MapDatastore.Put(ctx, key, value)
}

func (s *shelf) Delete(ctx context.Context, key datastore.Key) error {
	if known, err := s.Has(ctx, key); err != nil || !known {
		return err
	}
	s.size--
	return s.MapDatastore.Delete(ctx, key)
}

func (s *shelf) Batch(context.Context) (datastore.Batch, error) {
	return datastore.NewBasicBatch(s), nil
}
