package node

import (
	"bytes"
	"crypto/ed25519"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"openline/node/carrier"
	"openline/protocol"
)

// listKey is the key of a peer in these tests; idOf is its id.
func listKey(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, 32))
}

func idOf(t *testing.T, seed byte) peer.ID {
	t.Helper()
	id, err := keyID([32]byte(listKey(seed).Public().(ed25519.PublicKey)))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func addrBytes(addrs ...string) (raw [][]byte) {
	for _, a := range addrs {
		raw = append(raw, ma.StringCast(a).Bytes())
	}
	return raw
}

var listUntil = time.Unix(1_800_000_000, 0)

func TestAddressesBecomeThePeersOfAList(t *testing.T) {
	const quic, plain, wss = "/ip4/192.0.2.1/udp/4870/quic-v1", "/ip4/192.0.2.1/tcp/4870", "/ip4/198.51.100.7/tcp/443/tls/ws"
	one, two := "/p2p/"+idOf(t, 1).String(), "/p2p/"+idOf(t, 2).String()
	token := carrier.Token{9}
	secret := strings.TrimPrefix(carrier.WithToken(ma.StringCast(plain), token).String(), plain)
	peers, warnings, err := ListPeers("main", listUntil, []string{
		quic + one, wss + secret + two, plain + one, quic + one, wss + two + secret, wss + "/p2p/" + idOf(t, 3).String(), plain + secret + two, "/ip4/10.0.0.1/tcp/1" + one,
	})
	if err != nil {
		t.Fatal(err)
	}
	key := func(seed byte) [32]byte { return [32]byte(listKey(seed).Public().(ed25519.PublicKey)) }
	want := []protocol.InvitePeer{
		{Key: key(1), Addrs: addrBytes(quic, plain, "/ip4/10.0.0.1/tcp/1")},
		{Key: key(2), Addrs: addrBytes(wss, plain), Token: &token},
		{Key: key(3), Addrs: addrBytes(wss)},
	}
	if !reflect.DeepEqual(peers, want) {
		t.Errorf("ListPeers() = %+v, want %+v", peers, want)
	}
	for i, part := range []string{plain + " takes no token", "/ip4/10.0.0.1/tcp/1 is reached from its own network only", "nobody gets in without a token at the disguised addresses of " + idOf(t, 3).String()} {
		if i >= len(warnings) || !strings.Contains(warnings[i], part) {
			t.Errorf("warnings %q, want %q as number %d", warnings, part, i+1)
		}
	}
	if names, none := ListCarriers(append(peers, protocol.InvitePeer{Key: key(4), Addrs: [][]byte{{1}}})); none != 1 || !slices.Equal(names, []string{"quic", "tcp", "wss"}) {
		t.Errorf("ListCarriers() = %v, %d", names, none)
	}
}

func TestOfAnInviteTheListTakesTheNodeThatMadeIt(t *testing.T) {
	const wss = "/ip4/198.51.100.7/tcp/443/tls/ws"
	token, child := protocol.InviteToken{1}, protocol.InviteToken{2}
	key := [32]byte(listKey(1).Public().(ed25519.PublicKey))
	i := protocol.Invite{Network: "main", Expires: listUntil.Unix() + 1, Peers: []protocol.InvitePeer{
		{Key: [32]byte{5}, Addrs: addrBytes(wss), Token: &child},
		{Key: key, Addrs: addrBytes(wss, "/ip4/192.168.0.2/tcp/4870"), Token: &token},
	}}
	link := func() string {
		link, err := i.Sign(listKey(1))
		if err != nil {
			t.Fatal(err)
		}
		return link
	}
	want := []protocol.InvitePeer{{Key: key, Addrs: addrBytes(wss), Token: &token}}
	peers, warnings, err := ListPeers("main", listUntil, []string{link()})
	if err != nil || len(warnings) > 0 || !reflect.DeepEqual(peers, want) {
		t.Errorf("ListPeers() = %+v, %q, %v, want %+v", peers, warnings, err, want)
	}
	if _, _, err := ListPeers("test", listUntil, []string{link()}); err == nil {
		t.Error("an invite of another network is in the list")
	}
	if _, _, err := ListPeers("main", listUntil, []string{link() + "AAAA"}); err == nil {
		t.Error("a damaged invite is in the list")
	}
	i.Expires--
	if _, warnings, err := ListPeers("main", listUntil, []string{link()}); err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "ends at 2027-01-15T08:00:00Z") {
		t.Errorf("an invite that ends with the list: %q, %v", warnings, err)
	}
	i.Peers = i.Peers[:1]
	if _, _, err := ListPeers("main", listUntil, []string{link()}); err == nil {
		t.Error("an invite to somebody else is in the list")
	}
}

func TestWhatNoListMayHold(t *testing.T) {
	one := "/p2p/" + idOf(t, 1).String()
	many := []string{}
	for _, host := range []string{"1", "2", "3", "4", "5", "6", "7"} {
		many = append(many, "/ip4/192.0.2."+host+"/tcp/1"+one)
	}
	for what, names := range map[string][]string{
		"no multiaddr":       {"192.0.2.1:4870"},
		"nobody":             {"/ip4/192.0.2.1/tcp/4870"},
		"nowhere":            {one},
		"no carrier":         {"/ip4/192.0.2.1/udp/4870" + one},
		"an RSA id":          {"/ip4/192.0.2.1/tcp/4870/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"},
		"a token of nobody":  {"/token/AQAAAAAAAAAAAAAAAAAAAA"},
		"seven addresses":    many,
		"two tokens for one": {"/ip4/192.0.2.1/tcp/443/tls/ws/token/AQAAAAAAAAAAAAAAAAAAAA" + one, "/ip4/192.0.2.1/tcp/443/tls/ws/token/AgAAAAAAAAAAAAAAAAAAAA" + one},
	} {
		if peers, _, err := ListPeers("main", listUntil, names); err == nil {
			t.Errorf("%s: %+v", what, peers)
		}
	}
}
