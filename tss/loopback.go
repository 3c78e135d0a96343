package tss

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
)

// Loopback connects Signers of one process, for benchmarks and tests.
type Loopback struct {
	mu    sync.Mutex
	nodes map[PartyID]*Signer
	bytes atomic.Uint64
	// Filter, if set before use, may replace a frame on its way; nil loses it.
	Filter func(from, to PartyID, frame []byte) []byte
}

// NewLoopback returns a network without nodes.
func NewLoopback() *Loopback { return &Loopback{nodes: map[PartyID]*Signer{}} }

// Node returns the Transport of one member.
func (l *Loopback) Node(self PartyID) Transport { return loopbackNode{l, self} }

// Attach connects a member's Signer.
func (l *Loopback) Attach(self PartyID, s *Signer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.nodes[self] = s
}

// Cut disconnects a member from all others, which are told so.
func (l *Loopback) Cut(peer PartyID) {
	l.mu.Lock()
	delete(l.nodes, peer)
	rest := make([]*Signer, 0, len(l.nodes))
	for _, s := range l.nodes {
		rest = append(rest, s)
	}
	l.mu.Unlock()
	for _, s := range rest {
		s.Disconnected(peer)
	}
}

// Bytes counts what was sent so far.
func (l *Loopback) Bytes() uint64 { return l.bytes.Load() }

var errNotAttached = errors.New("loopback: not connected")

type loopbackNode struct {
	l    *Loopback
	self PartyID
}

func (n loopbackNode) Send(_ context.Context, to PartyID, frame []byte) error {
	n.l.mu.Lock()
	s, self := n.l.nodes[to], n.l.nodes[n.self]
	n.l.mu.Unlock()
	if s == nil || self == nil {
		return errNotAttached
	}
	n.l.bytes.Add(uint64(len(frame)))
	if n.l.Filter != nil {
		if frame = n.l.Filter(n.self, to, frame); frame == nil {
			return nil
		}
	}
	// A refusal is the receiver's to count.
	_ = s.Receive(n.self, frame)
	return nil
}
