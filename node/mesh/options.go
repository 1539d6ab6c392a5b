package mesh

import (
	"log/slog"
	"net"
	"runtime"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Why these numbers: shared/notes/gossip.md sections 1 and 3. All nodes must agree on maxRPC and maxControl,
// or they reset each other's streams.
const (
	maxRPC     = 256 << 10 // bytes of one RPC: bounds many messages, not one
	maxControl = 128 << 10
	seenTTL    = 10 * time.Minute // loops were seen at 2 minutes
	queueOut   = 1024             // RPCs per peer; when full the library drops: Count.Dropped
	queueIn    = 4096             // messages before validation; when full the library drops: Count.Dropped
)

func (m *Mesh) options() []pubsub.Option {
	names := make([]string, 0, len(m.shards))
	for name := range m.shards {
		names = append(names, name)
	}
	filter := pubsub.WrapLimitSubscriptionFilter(pubsub.NewAllowlistSubscriptionFilter(names...), 4*len(names))
	return []pubsub.Option{
		pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign),
		pubsub.WithNoAuthor(), // else every message names its first peer
		pubsub.WithMessageIdFn(MessageID),
		pubsub.WithGossipSubParams(params(m.cfg.Relay)),
		pubsub.WithPeerScore(peerScore(), thresholds()),
		pubsub.WithPeerGater(pubsub.NewPeerGaterParams(0.33,
			pubsub.ScoreParameterDecay(2*time.Minute), pubsub.ScoreParameterDecay(time.Hour))),
		pubsub.WithFloodPublish(false), // it would show the author to every peer
		pubsub.WithSubscriptionFilter(filter),
		pubsub.WithMaxMessageSize(maxRPC),
		pubsub.WithMaxControlMessageSize(maxControl),
		pubsub.WithPeerOutboundQueueSize(queueOut),
		pubsub.WithValidateQueueSize(queueIn),
		pubsub.WithValidateWorkers(4 * runtime.GOMAXPROCS(0)), // some wait for the store while others verify
		pubsub.WithSeenMessagesTTL(seenTTL),
		pubsub.WithRawTracer(m.links),
		pubsub.WithAppSpecificRpcInspector(m.links.inspect),
		pubsub.WithLogger(slog.New(slog.DiscardHandler)), // its lines name peers; Count has what matters
	}
}

// params keeps the mesh small: events have 250 bytes, and each link more costs that much more uplink. Dhi alone is
// higher than shared/notes/gossip.md has it: peers who know nobody else must not be turned away, and where all know
// many the number of links hardly grows (measured: 5.6 bytes on the wire per byte with Dhi 6, 7.0 with 12 and more).
func params(relay bool) pubsub.GossipSubParams {
	p := pubsub.DefaultGossipSubParams()
	p.D, p.Dlo, p.Dhi, p.Dout, p.Dscore = 4, 3, 16, 1, 3
	p.Dlazy, p.GossipFactor = 3, 0.1
	if relay {
		p.D, p.Dlo, p.Dhi, p.Dout, p.Dscore = 6, 4, 128, 2, 4
		p.Dlazy, p.GossipFactor = 4, 0.15
	}
	p.HistoryLength, p.HistoryGossip = 6, 3
	p.HeartbeatInterval = time.Second
	return p
}

// topicScore judges invalid messages and rewards first deliveries. Missing deliveries are not scored: that prunes
// honest peers when others are silent. Eight topics share a weight of two.
func topicScore() *pubsub.TopicScoreParams {
	return &pubsub.TopicScoreParams{
		TopicWeight:                    0.25,
		TimeInMeshWeight:               0.01,
		TimeInMeshQuantum:              time.Second,
		TimeInMeshCap:                  300,
		FirstMessageDeliveriesWeight:   1,
		FirstMessageDeliveriesDecay:    pubsub.ScoreParameterDecay(2 * time.Minute),
		FirstMessageDeliveriesCap:      30,
		InvalidMessageDeliveriesWeight: -100,
		InvalidMessageDeliveriesDecay:  pubsub.ScoreParameterDecay(time.Hour),
	}
}

func peerScore() *pubsub.PeerScoreParams {
	return &pubsub.PeerScoreParams{
		Topics:                      map[string]*pubsub.TopicScoreParams{},
		TopicScoreCap:               50,
		AppSpecificScore:            func(peer.ID) float64 { return 0 },
		IPColocationFactorWeight:    -1,
		IPColocationFactorThreshold: 16,
		IPColocationFactorWhitelist: sharedRanges(),
		BehaviourPenaltyWeight:      -10,
		BehaviourPenaltyThreshold:   6,
		BehaviourPenaltyDecay:       pubsub.ScoreParameterDecay(10 * time.Minute),
		DecayInterval:               pubsub.DefaultDecayInterval,
		DecayToZero:                 pubsub.DefaultDecayToZero,
		RetainScore:                 time.Hour,
		SeenMsgTTL:                  seenTTL,
	}
}

func thresholds() *pubsub.PeerScoreThresholds {
	return &pubsub.PeerScoreThresholds{
		GossipThreshold:             -50,
		PublishThreshold:            -200,
		GraylistThreshold:           -400,
		AcceptPXThreshold:           50,
		OpportunisticGraftThreshold: 1,
	}
}

// sharedRanges are addresses behind which many honest nodes stand: loopback, private, carrier-grade NAT, link-local.
func sharedRanges() []*net.IPNet {
	var nets []*net.IPNet
	for _, s := range []string{"127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10",
		"169.254.0.0/16", "::1/128", "fc00::/7", "fe80::/10"} {
		_, n, err := net.ParseCIDR(s)
		if err != nil {
			panic(err) // a constant above is mistyped
		}
		nets = append(nets, n)
	}
	return nets
}
