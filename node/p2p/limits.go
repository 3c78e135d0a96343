package p2p

import (
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/x/rate"
)

const (
	raftProtocol    protocol.ID = "/coffer/raft/1"
	tssProtocol     protocol.ID = "/coffer/tss/1"
	submitProtocol  protocol.ID = "/coffer/submit/1"
	approveProtocol protocol.ID = "/coffer/approve/1"
)

// Sizes and counts of the protocols (spec: consensus §4).
const (
	MaxFrame   = 1 << 20  // a session frame; the largest envelope, KG R1, has 512 KiB
	MaxRequest = 64 << 10 // the body of a request or a reply: the limit of a command, which travels as it is
	MaxGossip  = 4 << 10  // a gossip body
	MaxPeers   = 64       // members and candidates; bounds what all of them together may book

	maxInFlight   = 256 // requests per peer and direction
	maxRaft       = 8   // raft streams per peer and direction: pool, pipeline, heartbeat, votes, snapshot
	maxClosing    = 4   // more may be open at the receiver, which learns of a close a little later
	maxLongLived  = 4   // one session or gossip stream is live, others are its successors in a reconnect
	maxErrorText  = 1 << 10
	maxRaftQueue  = 16 // accepted raft streams that raft did not take yet
	maxQueueCount = 4096
	maxQueueBytes = 16 << 20 // per peer: many sessions, each of which sends at most 1 MiB (spec: signing §9)
)

// Rates.
const (
	gossipRate       = 20 // frames per second and peer, heartbeats among them
	gossipBurst      = 40
	gossipSendRate   = 15 // ours: with 4 heartbeats it stays below what the receiver takes
	gossipSendBurst  = 15
	acceptRate       = 16 // connections per second and address: 7 local nodes redialling share 127.0.0.1
	acceptBurst      = 64
	maxAddressesSeen = 4096
	connsPerAddress  = 2 * MaxPeers // a whole testnet stands behind one address
)

// Times.
const (
	heartbeatEvery    = 250 * time.Millisecond // spec: signing §10
	defaultAliveAfter = 3 * heartbeatEvery
	silenceReset      = 10 * time.Second // a partition is over sooner by a new dial than by TCP's retransmission
	dialTimeout       = 3 * time.Second
	openTimeout       = 5 * time.Second
	backoffMin        = 50 * time.Millisecond
	backoffMax        = time.Second
	dialTieBreak      = 150 * time.Millisecond // the larger id waits, so that two do not dial each other
	bodyTimeout       = 30 * time.Second       // from a header to the last byte of its body, and for a write
	gossipWriteLimit  = 5 * time.Second
	requestTimeout    = 30 * time.Second
	raftDialWait      = time.Second // Dial waits for a reconnect: raft's own back-off grows to 10 s
	raftWriteTimeout  = 10 * time.Second
	frameLife         = 10 * time.Minute // the longest session is resharing, 10 min (spec: signing §10)
	refusalLogEvery   = time.Second      // a flood of refusals must not become a flood of log lines
)

// Errors of a sender. Each means that nothing was sent.
var (
	ErrClosed       = errors.New("p2p: host is closed")
	ErrNotMember    = errors.New("p2p: not a member")
	ErrNotConnected = errors.New("p2p: peer is not connected")
	ErrQueueFull    = errors.New("p2p: queue to the peer is full")
	ErrBusy         = errors.New("p2p: too many requests in flight")
	ErrTooLarge     = errors.New("p2p: message is too large")
	ErrReservedKind = errors.New("p2p: gossip kind 0 is the heartbeat")
	ErrRaftStreams  = errors.New("p2p: too many raft streams to the peer")
	ErrTooManyPeers = errors.New("p2p: too many peers")
)

// Refusal names why something that a peer did was refused.
type Refusal string

const (
	RefusedNotMember   Refusal = "not-a-member"
	RefusedAddressRate Refusal = "address-rate"
	RefusedStreams     Refusal = "too-many-streams"
	RefusedFrameSize   Refusal = "frame-too-large"
	RefusedMemory      Refusal = "out-of-stream-memory"
	RefusedMalformed   Refusal = "malformed"
	RefusedBusy        Refusal = "too-many-requests"
)

// newResources caps streams and memory of each protocol and of each peer, so
// that a flood on one protocol cannot starve raft (spec: consensus §4). These
// are the walls behind the counters of serve, which refuse by name: twice as
// high, since a stream that one side has closed still counts until both have.
func newResources() (network.ResourceManager, error) {
	// yamux books 256 KiB for every stream, used or not.
	const window = 256 << 10
	perPeer := map[protocol.ID]int{
		raftProtocol:    2 * maxRaft,
		tssProtocol:     2 * maxLongLived,
		submitProtocol:  2 * maxInFlight,
		approveProtocol: 2 * maxLongLived,
	}
	const others = 64 // identify and streams that have no protocol yet
	cfg := rcmgr.PartialLimitConfig{
		Protocol:     map[protocol.ID]rcmgr.ResourceLimits{},
		ProtocolPeer: map[protocol.ID]rcmgr.ResourceLimits{},
	}
	sum := others
	for id, n := range perPeer {
		// Memory here is what handlers reserve for the body they read.
		cfg.ProtocolPeer[id] = streams(n, 8*MaxFrame)
		cfg.Protocol[id] = streams(n*MaxPeers, 8*MaxFrame*MaxPeers)
		sum += n
	}
	peerMemory := int64(2*sum*window) + 32*MaxFrame
	cfg.PeerDefault = streams(sum, peerMemory)
	cfg.PeerDefault.Conns, cfg.PeerDefault.ConnsInbound, cfg.PeerDefault.ConnsOutbound = 8, 8, 8
	cfg.PeerDefault.FD = 8
	cfg.Conn = rcmgr.ResourceLimits{Conns: 1, ConnsInbound: 1, ConnsOutbound: 1, FD: 1, Memory: rcmgr.LimitVal64(peerMemory)}
	cfg.Stream = rcmgr.ResourceLimits{Streams: 1, StreamsInbound: 1, StreamsOutbound: 1, Memory: 20 << 20}
	cfg.System = streams(sum*MaxPeers, peerMemory*MaxPeers)
	cfg.System.Conns, cfg.System.ConnsInbound, cfg.System.ConnsOutbound = 4*MaxPeers, 4*MaxPeers, 4*MaxPeers
	cfg.System.FD = 4 * MaxPeers
	// Handshakes of strangers live here.
	cfg.Transient = streams(8*maxInFlight, 64<<20)
	cfg.Transient.Conns, cfg.Transient.ConnsInbound, cfg.Transient.ConnsOutbound = 2*MaxPeers, MaxPeers, MaxPeers
	cfg.Transient.FD = 2 * MaxPeers

	limiter := rcmgr.NewFixedLimiter(cfg.Build(rcmgr.DefaultLimits.Scale(64<<20, 256)))
	rm, err := rcmgr.NewResourceManager(limiter,
		rcmgr.WithMetricsDisabled(),
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: connsPerAddress}},
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 64, ConnCount: connsPerAddress}}),
		// The gater limits by address, and says so.
		rcmgr.WithConnRateLimiters(&rate.Limiter{}))
	if err != nil {
		return nil, fmt.Errorf("resource limits: %w", err)
	}
	return rm, nil
}

func streams(n int, memory int64) rcmgr.ResourceLimits {
	return rcmgr.ResourceLimits{
		Streams:         rcmgr.LimitVal(2 * n),
		StreamsInbound:  rcmgr.LimitVal(n),
		StreamsOutbound: rcmgr.LimitVal(n),
		Memory:          rcmgr.LimitVal64(memory),
	}
}

// bucket is a token bucket in somebody else's clock. It is not safe for use by
// several goroutines.
type bucket struct {
	rate, burst float64
	tokens      float64
	last        time.Time
}

func newBucket(rate, burst float64, now time.Time) bucket {
	return bucket{rate: rate, burst: burst, tokens: burst, last: now}
}

func (b *bucket) refill(now time.Time) {
	b.tokens = min(b.burst, b.tokens+b.rate*now.Sub(b.last).Seconds())
	b.last = now
}

// ready reports whether there is a token.
func (b *bucket) ready(now time.Time) bool {
	b.refill(now)
	return b.tokens >= 1
}

// take spends a token, if there is one.
func (b *bucket) take(now time.Time) bool {
	if !b.ready(now) {
		return false
	}
	b.tokens--
	return true
}

// wait returns the time until the next token.
func (b *bucket) wait() time.Duration {
	return time.Duration((1 - b.tokens) / b.rate * float64(time.Second))
}
