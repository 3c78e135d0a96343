package p2p

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"
)

// Peer is one entry of the allow-list.
type Peer struct {
	ID   ID
	Addr string // a multiaddr such as /ip4/10.0.0.2/tcp/7001; empty: it must dial us
	Role Role
}

// Role is what a peer has part in. The order counts: who rises keeps its
// connection, who falls is disconnected.
type Role int32

const (
	// Follower gets the log and holds no seat: we open raft streams to it, it opens
	// none to us. It hears and sends gossip, and what it asks is for the handlers to
	// judge.
	Follower Role = iota
	// Resharing is a follower that takes part in making new key shares: session
	// frames besides.
	Resharing
	// Member has part in everything.
	Member
)

// may says whether a peer of this role may open streams of a protocol to us.
func (r Role) may(id protocol.ID) bool {
	switch id {
	case raftProtocol:
		return r == Member
	case tssProtocol:
		return r >= Resharing
	}
	return true
}

// Config is what a host needs to know at its start.
type Config struct {
	Key    ed25519.PrivateKey
	Listen string // a TCP multiaddr; default /ip4/127.0.0.1/tcp/0
	Peers  []Peer // own entry, if any, is passed over

	// AliveAfter is how long a connected peer may be unheard and still be Alive;
	// default three heartbeats. A machine with fewer cores than nodes wants more.
	AliveAfter time.Duration

	Log *slog.Logger
}

// Host is the one libp2p host of a node. All its methods may be called at any
// time from any goroutine.
type Host struct {
	id         ID
	pid        peer.ID
	log        *slog.Logger
	host       host.Host
	swarm      *swarm.Swarm
	raft       *raftLayer
	start      time.Time
	aliveAfter time.Duration
	silence    time.Duration // silenceReset, but for tests

	ctx    context.Context // ends with the host
	cancel context.CancelFunc
	wg     sync.WaitGroup

	refused refusals

	mu     sync.RWMutex
	closed bool
	links  map[peer.ID]*link

	handlers handlers
}

// handlers are what the users of the host registered.
type handlers struct {
	mu         sync.RWMutex
	session    func(from ID, frame []byte)
	hasSession chan struct{} // closed once session is set
	disconnect []func(ID)
	request    map[byte]RequestHandler
	gossip     map[byte]func(from ID, body []byte)
}

// New starts a host: it listens, and connects to its peers in the background.
func New(cfg Config) (*Host, error) {
	return newHost(cfg, silenceReset)
}

func newHost(cfg Config, silence time.Duration) (*Host, error) {
	if len(cfg.Key) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("p2p: key has %d bytes, want %d", len(cfg.Key), ed25519.PrivateKeySize)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Listen == "" {
		cfg.Listen = "/ip4/127.0.0.1/tcp/0"
	}
	if cfg.AliveAfter <= 0 {
		cfg.AliveAfter = defaultAliveAfter
	}
	listen, err := tcpAddr(cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("p2p: listen address: %w", err)
	}
	key, err := crypto.UnmarshalEd25519PrivateKey(cfg.Key)
	if err != nil {
		return nil, fmt.Errorf("p2p: identity: %w", err)
	}
	id := ID(cfg.Key.Public().(ed25519.PublicKey))
	pid, err := PeerID(id)
	if err != nil {
		return nil, fmt.Errorf("p2p: identity: %w", err)
	}

	ctx, cancel := context.WithCancel(context.Background())
	h := &Host{
		id: id, pid: pid, log: cfg.Log,
		start: time.Now(), aliveAfter: cfg.AliveAfter, silence: silence,
		ctx: ctx, cancel: cancel,
		refused: refusals{counts: map[Refusal]uint64{}, logged: map[Refusal]time.Time{}},
		links:   map[peer.ID]*link{},
		handlers: handlers{
			hasSession: make(chan struct{}),
			request:    map[byte]RequestHandler{},
			gossip:     map[byte]func(ID, []byte){},
		},
	}
	resources, err := newResources()
	if err != nil {
		cancel()
		return nil, fmt.Errorf("p2p: %w", err)
	}
	h.host, err = libp2p.New(
		libp2p.Identity(key),
		libp2p.NoListenAddrs, // until all is in place; and a port in use is then our error alone
		libp2p.Transport(tcp.NewTCPTransport, tcp.DisableReuseport()),
		libp2p.Security(noise.ID, noise.New),
		libp2p.Security(libp2ptls.ID, libp2ptls.New),
		libp2p.ConnectionGater(newGater(h.allowed, h.refuse)),
		libp2p.ResourceManager(resources),
		libp2p.ConnectionManager(connmgr.NullConnMgr{}), // trims nothing: the gater and SetPeers decide
		libp2p.UserAgent("coffer"),
		libp2p.Ping(false),
		libp2p.DisableRelay(),
		libp2p.DisableIdentifyAddressDiscovery(),
		libp2p.ForceReachabilityPrivate(), // no probing of our reachability
		// Without a registerer of its own the event bus takes the global one,
		// metrics disabled or not.
		libp2p.PrometheusRegisterer(prometheus.NewRegistry()),
		libp2p.DisableMetrics(),
	)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("p2p: start: %w", err)
	}
	h.swarm = h.host.Network().(*swarm.Swarm)
	h.raft = newRaftLayer(h)
	h.host.Network().Notify(&network.NotifyBundle{
		ConnectedF: func(_ network.Network, c network.Conn) {
			if !h.allowed(c.RemotePeer()) {
				_ = c.Close() // it was removed while the connection came up
				return
			}
			h.refresh(c.RemotePeer())
		},
		DisconnectedF: func(_ network.Network, c network.Conn) { h.refresh(c.RemotePeer()) },
	})
	h.serve(raftProtocol, maxRaft+maxClosing, h.raft.serve)
	h.serve(tssProtocol, maxLongLived, h.serveSession)
	h.serve(submitProtocol, 2*maxInFlight, h.serveRequest)
	h.serve(approveProtocol, maxLongLived, h.serveGossip)
	if err := h.host.Network().Listen(listen); err != nil {
		_ = h.Close()
		return nil, fmt.Errorf("p2p: listen on %s: %w", cfg.Listen, err)
	}
	if err := h.SetPeers(cfg.Peers); err != nil {
		_ = h.Close()
		return nil, err
	}
	h.run(h.watchSilence)
	return h, nil
}

// ID returns the host's own name.
func (h *Host) ID() ID { return h.id }

// Addr returns the multiaddr on which the host listens.
func (h *Host) Addr() string {
	for _, a := range h.host.Network().ListenAddresses() {
		return a.String()
	}
	return ""
}

// Refused returns how often something was refused under that name.
func (h *Host) Refused(r Refusal) uint64 { return h.refused.count(r) }

// Close ends all connections and returns when no goroutine of the host and no
// handler runs any more. A handler must not call it.
func (h *Host) Close() error {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil
	}
	h.closed = true
	h.mu.Unlock()
	h.cancel() // ends every link, since their contexts are children
	_ = h.raft.Close()
	err := h.host.Close()
	h.wg.Wait()
	if err != nil {
		return fmt.Errorf("p2p: close: %w", err)
	}
	return nil
}

// SetPeers replaces the allow-list. Peers that are gone from it, and those whose
// role is lower than it was, are disconnected and what was queued for them is
// dropped; the others keep their connections.
func (h *Host) SetPeers(peers []Peer) error {
	next, err := h.parsePeers(peers)
	if err != nil {
		return fmt.Errorf("p2p: set peers: %w", err)
	}
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return ErrClosed
	}
	var gone []*link
	for pid, l := range h.links {
		p, stays := next[pid]
		if stays && p.role >= l.role() {
			l.rank.Store(int32(p.role))
			l.setAddr(p.addr)
			continue
		}
		l.cancel()
		delete(h.links, pid)
		gone = append(gone, l)
	}
	var fresh []*link
	for pid, p := range next {
		if h.links[pid] == nil {
			l := newLink(h.ctx, pid, p)
			h.links[pid] = l
			fresh = append(fresh, l)
		}
	}
	h.mu.Unlock()

	for _, l := range gone {
		if err := h.host.Network().ClosePeer(l.pid); err != nil {
			h.log.Debug("disconnect removed peer", "peer", l.pid, "err", err)
		}
		h.host.Peerstore().ClearAddrs(l.pid)
		if l.isUp() { // nobody refreshes a link that is not listed
			h.disconnected(l.id)
		}
	}
	for _, l := range fresh {
		h.refresh(l.pid) // a connection may have come up since the list changed
		h.run(func() { h.keepConnected(l) })
		h.run(func() { h.sendSession(l) })
		h.run(func() { h.sendGossip(l) })
		h.run(func() { h.deliverGossip(l) })
	}
	return nil
}

type parsedPeer struct {
	id   ID
	addr ma.Multiaddr
	role Role
}

func (h *Host) parsePeers(peers []Peer) (map[peer.ID]parsedPeer, error) {
	out := make(map[peer.ID]parsedPeer, len(peers))
	for _, p := range peers {
		if p.ID == h.id {
			continue
		}
		pid, err := PeerID(p.ID)
		if err != nil {
			return nil, err
		}
		if _, double := out[pid]; double {
			return nil, fmt.Errorf("peer %s is listed twice", pid)
		}
		var addr ma.Multiaddr
		if p.Addr != "" {
			if addr, err = tcpAddr(p.Addr); err != nil {
				return nil, fmt.Errorf("peer %s: %w", pid, err)
			}
		}
		out[pid] = parsedPeer{id: p.ID, addr: addr, role: p.Role}
	}
	if len(out) > MaxPeers {
		return nil, fmt.Errorf("%d: %w", len(out), ErrTooManyPeers)
	}
	return out, nil
}

var errNotTCP = errors.New("want an address such as /ip4/127.0.0.1/tcp/7001")

// CheckAddr says what is wrong with a peer's address; empty is fine.
func CheckAddr(text string) error {
	if text == "" {
		return nil
	}
	_, err := tcpAddr(text)
	return err
}

// tcpAddr parses a multiaddr of exactly a host and a TCP port.
func tcpAddr(text string) (ma.Multiaddr, error) {
	a, err := ma.NewMultiaddr(text)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", text, err)
	}
	hosts := []int{ma.P_IP4, ma.P_IP6, ma.P_DNS, ma.P_DNS4, ma.P_DNS6}
	protos := a.Protocols()
	if len(protos) != 2 || !slices.Contains(hosts, protos[0].Code) || protos[1].Code != ma.P_TCP {
		return nil, fmt.Errorf("%q: %w", text, errNotTCP)
	}
	return a, nil
}

// Connected reports whether a connection to the peer stands.
func (h *Host) Connected(id ID) bool {
	l, err := h.peer(id)
	return err == nil && l.isUp()
}

// Alive reports whether the peer is connected and was heard within AliveAfter.
func (h *Host) Alive(id ID) bool {
	if id == h.id {
		return true
	}
	l, err := h.peer(id)
	if err != nil || !l.isUp() {
		return false
	}
	heard := l.heard.Load()
	return heard != 0 && time.Since(h.start)-time.Duration(heard) <= h.aliveAfter
}

// LastHeard returns when the peer's last heartbeat or gossip came; the zero time
// if none did since it was listed.
func (h *Host) LastHeard(id ID) time.Time {
	l, err := h.peer(id)
	if err != nil {
		return time.Time{}
	}
	heard := l.heard.Load()
	if heard == 0 {
		return time.Time{}
	}
	return h.start.Add(time.Duration(heard))
}

// OnDisconnect adds a function that is called as soon as the last connection to
// a peer is lost, so also when the peer was removed, but not when the host
// itself closes. It runs on a goroutine of its own.
func (h *Host) OnDisconnect(f func(ID)) {
	h.handlers.mu.Lock()
	defer h.handlers.mu.Unlock()
	h.handlers.disconnect = append(h.handlers.disconnect, f)
}

// Raft returns the stream layer for raft's NetworkTransport. Addresses in it are
// those of RaftAddress. There is one, and closing it closes it for good. Close it
// before raft is shut down: raft waits for the dials that it has under way.
func (h *Host) Raft() raft.StreamLayer { return h.raft }

func (h *Host) allowed(pid peer.ID) bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return !h.closed && h.links[pid] != nil
}

func (h *Host) link(pid peer.ID) *link {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.links[pid]
}

func (h *Host) peer(id ID) (*link, error) {
	pid, err := PeerID(id)
	if err != nil {
		return nil, err
	}
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.closed {
		return nil, ErrClosed
	}
	l := h.links[pid]
	if l == nil {
		return nil, fmt.Errorf("%s: %w", pid, ErrNotMember)
	}
	return l, nil
}

// sessionPeer is peer for session frames, in which a follower has no part.
func (h *Host) sessionPeer(id ID) (*link, error) {
	l, err := h.peer(id)
	if err != nil {
		return nil, err
	}
	if !l.role().may(tssProtocol) {
		return nil, fmt.Errorf("%s only follows: %w", l.pid, ErrNotMember)
	}
	return l, nil
}

// all returns the links of all peers, in the order of their ids.
func (h *Host) all() []*link {
	h.mu.RLock()
	defer h.mu.RUnlock()
	out := slices.Collect(maps.Values(h.links))
	slices.SortFunc(out, func(a, b *link) int { return bytes.Compare(a.id[:], b.id[:]) })
	return out
}

// run starts a goroutine that Close waits for, unless the host is closed.
func (h *Host) run(f func()) {
	if !h.enter() {
		return
	}
	go func() {
		defer h.wg.Done()
		f()
	}()
}

func (h *Host) enter() bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.closed {
		return false
	}
	h.wg.Add(1)
	return true
}

func (h *Host) refuse(r Refusal, attrs ...any) {
	total, log := h.refused.add(r, time.Now())
	if log {
		h.log.Warn("refused", append([]any{"refusal", string(r), "total", total}, attrs...)...)
	}
}

// serve registers the handler of a protocol. Membership is checked here again,
// for this protocol: the gater only knows who may connect.
func (h *Host) serve(id protocol.ID, perPeer int, handle func(*link, network.Stream)) {
	h.host.SetStreamHandler(id, func(s network.Stream) {
		if !h.enter() {
			_ = s.Reset()
			return
		}
		defer h.wg.Done()
		l := h.link(s.Conn().RemotePeer())
		if l == nil || !l.role().may(id) {
			h.refuse(RefusedNotMember, "peer", s.Conn().RemotePeer(), "protocol", id)
			_ = s.Reset()
			return
		}
		if !l.admit(id, perPeer) {
			h.refuse(RefusedStreams, "peer", l.pid, "protocol", id)
			_ = s.Reset()
			return
		}
		defer l.release(id)
		// A removed member's streams end at once.
		stop := context.AfterFunc(l.ctx, func() { _ = s.Reset() })
		defer stop()
		handle(l, s)
	})
}

// open opens a stream to a connected peer.
func (h *Host) open(ctx context.Context, l *link, id protocol.ID) (network.Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	s, err := h.host.NewStream(network.WithNoDial(ctx, "the link dials"), l.pid, id)
	if err != nil {
		return nil, fmt.Errorf("open %s to %s: %w", id, l.pid, err)
	}
	return s, nil
}
