package p2p

import (
	"context"
	"crypto/rand"
	"math/big"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
)

// link is everything the host holds for one peer of the list. It lives as long
// as the peer is listed, through any number of connections.
type link struct {
	id     ID
	pid    peer.ID
	rank   atomic.Int32    // its Role
	ctx    context.Context // ends when the peer is removed or the host closes
	cancel context.CancelFunc

	heard atomic.Int64 // time of the last gossip frame since the host's start; 0: never

	mu      sync.Mutex
	addr    ma.Multiaddr
	up      bool
	upSince time.Time
	changed chan struct{} // closed and replaced when up or addr changes
	open    map[protocol.ID]int

	out       outbox
	in        inbound
	received  received
	inFlight  chan struct{} // our requests to the peer
	serving   atomic.Int32  // its requests to us
	raftDials atomic.Int32

	gossip   mailbox // to the peer
	gossiped mailbox // from the peer, for the handlers
	gossipIn inbound
}

func newLink(ctx context.Context, pid peer.ID, p parsedPeer) *link {
	ctx, cancel := context.WithCancel(ctx)
	l := &link{
		id: p.id, pid: pid, addr: p.addr,
		ctx: ctx, cancel: cancel,
		changed:  make(chan struct{}),
		open:     map[protocol.ID]int{},
		inFlight: make(chan struct{}, maxInFlight),
		out:      outbox{wake: make(chan struct{}, 1)},
		gossip:   newMailbox(),
		gossiped: newMailbox(),
	}
	l.rank.Store(int32(p.role))
	// Names this queue to the receiver, which forgets the numbers of an older one.
	_, _ = rand.Read(l.out.name[:])
	return l
}

func (l *link) role() Role { return Role(l.rank.Load()) }

func (l *link) isUp() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.up
}

// upFor returns since when the connection stands.
func (l *link) upFor() (since time.Time, up bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.upSince, l.up
}

func (l *link) setAddr(a ma.Multiaddr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if (a == nil) == (l.addr == nil) && (a == nil || a.Equal(l.addr)) {
		return
	}
	l.addr = a
	l.wakeLocked()
}

func (l *link) address() ma.Multiaddr {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.addr
}

func (l *link) wakeLocked() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// await returns when ok, which is asked under the lock, holds.
func (l *link) await(ctx context.Context, ok func() bool) error {
	for {
		l.mu.Lock()
		done, changed := ok(), l.changed
		l.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-l.ctx.Done():
			return l.ctx.Err()
		}
	}
}

func (l *link) awaitUp(ctx context.Context) error {
	return l.await(ctx, func() bool { return l.up })
}

// awaitUpFor waits at most d for a connection.
func (l *link) awaitUpFor(ctx context.Context, d time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return l.awaitUp(ctx)
}

// admit counts a stream of the peer, unless it has perPeer of them.
func (l *link) admit(id protocol.ID, perPeer int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[id] >= perPeer {
		return false
	}
	l.open[id]++
	return true
}

func (l *link) release(id protocol.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[id]--
}

// refresh compares what the link believes with what the swarm has.
func (h *Host) refresh(pid peer.ID) {
	l := h.link(pid)
	if l == nil {
		return
	}
	l.mu.Lock()
	was := l.up
	l.up = h.swarm.Connectedness(pid) == network.Connected
	now := l.up
	if was != now {
		l.upSince = time.Now()
		l.wakeLocked()
	}
	l.mu.Unlock()
	switch {
	case !was && now:
		h.log.Debug("peer connected", "peer", pid)
	case was && !now:
		h.log.Debug("peer disconnected", "peer", pid)
		h.disconnected(l.id)
	}
}

func (h *Host) disconnected(id ID) {
	h.handlers.mu.RLock()
	calls := h.handlers.disconnect
	h.handlers.mu.RUnlock()
	// Not on this goroutine: it delivers the events of all connections.
	for _, call := range calls {
		h.run(func() { call(id) })
	}
}

// keepConnected dials the peer whenever there is no connection to it.
func (h *Host) keepConnected(l *link) {
	wait := time.Duration(0)
	for {
		if l.await(l.ctx, func() bool { return !l.up && l.addr != nil }) != nil {
			return
		}
		pause := wait
		if pause == 0 && h.id != l.id && string(h.id[:]) > string(l.id[:]) {
			pause = dialTieBreak
		}
		if pause > 0 && l.awaitUpFor(l.ctx, pause) == nil {
			wait = 0
			continue
		}
		if l.ctx.Err() != nil {
			return
		}
		began := time.Now()
		err := h.dial(l)
		if err != nil {
			h.log.Debug("dial", "peer", l.pid, "err", err)
		} else if l.await(l.ctx, func() bool { return !l.up }) != nil {
			return
		}
		// A connection that the other side drops at once counts as a failure.
		if err == nil && time.Since(began) > backoffMax {
			wait = 0
		} else {
			wait = nextBackoff(wait)
		}
	}
}

func (h *Host) dial(l *link) error {
	ctx, cancel := context.WithTimeout(l.ctx, dialTimeout)
	defer cancel()
	// What identify learned is a stranger's word; only the listed address is dialled.
	h.host.Peerstore().ClearAddrs(l.pid)
	h.host.Peerstore().AddAddr(l.pid, l.address(), peerstore.PermanentAddrTTL)
	h.swarm.Backoff().Clear(l.pid) // the link has a back-off of its own
	err := h.host.Connect(ctx, peer.AddrInfo{ID: l.pid})
	h.refresh(l.pid)
	return err
}

// nextBackoff doubles and adds up to a quarter, so that nodes do not redial in step.
func nextBackoff(d time.Duration) time.Duration {
	d = min(max(2*d, backoffMin), backoffMax)
	jitter, err := rand.Int(rand.Reader, big.NewInt(int64(d/4)))
	if err != nil {
		return d
	}
	return d + time.Duration(jitter.Int64())
}

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// watchSilence drops connections over which nothing is heard, though they stand:
// behind a partition or a dead machine TCP would hold on for minutes, and then
// retransmit at long intervals.
func (h *Host) watchSilence() {
	ticker := time.NewTicker(h.silence / 4)
	defer ticker.Stop()
	for {
		select {
		case <-h.ctx.Done():
			return
		case <-ticker.C:
		}
		for _, l := range h.all() {
			since, up := l.upFor()
			heard := h.start.Add(time.Duration(l.heard.Load()))
			if heard.After(since) {
				since = heard
			}
			if !up || time.Since(since) < h.silence {
				continue
			}
			h.log.Warn("peer is silent, connection dropped", "peer", l.pid, "silent", time.Since(since))
			if err := h.host.Network().ClosePeer(l.pid); err != nil {
				h.log.Debug("drop silent connection", "peer", l.pid, "err", err)
			}
		}
	}
}

// inbound lets one stream of a kind and peer be read at a time, the newest: the
// peer opens another only when it has given up the last.
type inbound struct {
	mu      sync.Mutex
	current network.Stream
	reading sync.Mutex // held by the reader of current, so that order holds across streams
}

// take makes s the current stream, waits for the reader of the one before and
// reports whether s still is current. If so, leave must be called.
func (in *inbound) take(s network.Stream) bool {
	in.mu.Lock()
	if in.current != nil {
		_ = in.current.Reset()
	}
	in.current = s
	in.mu.Unlock()
	in.reading.Lock()
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.current != s {
		in.reading.Unlock()
		return false
	}
	return true
}

func (in *inbound) leave(s network.Stream) {
	in.mu.Lock()
	if in.current == s {
		in.current = nil
	}
	in.mu.Unlock()
	in.reading.Unlock()
}
