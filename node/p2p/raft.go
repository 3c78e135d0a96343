package p2p

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// raftLayer is raft's StreamLayer over libp2p streams (spec: consensus §4).
type raftLayer struct {
	h      *Host
	in     chan net.Conn
	ctx    context.Context
	cancel context.CancelFunc
}

var _ raft.StreamLayer = (*raftLayer)(nil)

func newRaftLayer(h *Host) *raftLayer {
	ctx, cancel := context.WithCancel(h.ctx)
	return &raftLayer{h: h, in: make(chan net.Conn, maxRaftQueue), ctx: ctx, cancel: cancel}
}

// serve hands the stream to raft and stays until raft closes it, so that it
// counts among the peer's streams for as long as it lives.
func (r *raftLayer) serve(l *link, s network.Stream) {
	c := &raftConn{Stream: s, accepted: true, closed: make(chan struct{})}
	select {
	case r.in <- c:
	case <-l.ctx.Done():
		_ = s.Reset()
		return
	case <-r.ctx.Done():
		_ = s.Reset()
		return
	}
	select {
	case <-c.closed:
	case <-l.ctx.Done():
		_ = s.Reset()
	case <-r.ctx.Done():
		_ = s.Reset()
	}
}

func (r *raftLayer) Accept() (net.Conn, error) {
	select {
	case c := <-r.in:
		return c, nil
	case <-r.ctx.Done():
		return nil, net.ErrClosed
	}
}

func (r *raftLayer) Close() error {
	r.cancel()
	return nil
}

func (r *raftLayer) Addr() net.Addr { return peerAddr(r.h.pid) }

// Dial opens a stream to a member or a candidate. Without a connection it waits
// a little for the link to bring one up.
func (r *raftLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	id, err := FromRaftAddress(address)
	if err != nil {
		return nil, err
	}
	l, err := r.h.peer(id)
	if err != nil {
		return nil, fmt.Errorf("dial raft: %w", err)
	}
	ctx, cancel := context.WithTimeout(r.ctx, timeout)
	defer cancel()
	if l.awaitUpFor(ctx, raftDialWait) != nil {
		return nil, fmt.Errorf("dial raft: %s: %w", l.pid, ErrNotConnected)
	}
	if l.raftDials.Add(1) > maxRaft {
		l.raftDials.Add(-1)
		return nil, fmt.Errorf("dial raft: %s: %w", l.pid, ErrRaftStreams)
	}
	s, err := r.h.open(ctx, l, raftProtocol)
	if err != nil {
		l.raftDials.Add(-1)
		return nil, fmt.Errorf("dial raft: %w", err)
	}
	c := &raftConn{Stream: s, closed: make(chan struct{})}
	c.onClose = func() { l.raftDials.Add(-1) }
	return c, nil
}

type peerAddr peer.ID

func (p peerAddr) Network() string { return "libp2p" }
func (p peerAddr) String() string  { return peer.ID(p).String() }

// raftConn is a stream as raft wants it.
type raftConn struct {
	network.Stream
	accepted bool
	broken   atomic.Bool
	once     sync.Once
	closed   chan struct{}
	onClose  func()
}

func (c *raftConn) LocalAddr() net.Addr  { return peerAddr(c.Conn().LocalPeer()) }
func (c *raftConn) RemoteAddr() net.Addr { return peerAddr(c.Conn().RemotePeer()) }

func (c *raftConn) Read(b []byte) (int, error) {
	n, err := c.Stream.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		c.broken.Store(true)
	}
	return n, err
}

func (c *raftConn) Write(b []byte) (int, error) {
	// Raft sets deadlines on what it dialled, not on its answers.
	if c.accepted {
		if err := c.SetWriteDeadline(time.Now().Add(raftWriteTimeout)); err != nil {
			c.broken.Store(true)
			return 0, err
		}
	}
	n, err := c.Stream.Write(b)
	if err != nil {
		c.broken.Store(true)
	}
	return n, err
}

// Close resets a stream that failed: closing it would wait for the other side.
func (c *raftConn) Close() error {
	var err error
	c.once.Do(func() {
		if c.broken.Load() {
			err = c.Stream.Reset()
		} else {
			err = c.Stream.Close()
		}
		close(c.closed)
		if c.onClose != nil {
			c.onClose()
		}
	})
	return err
}
