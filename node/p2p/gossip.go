package p2p

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
)

// A gossip stream goes one way: frames of kind (1), length (2), body.
const (
	gossipHeaderSize      = 1 + 2
	kindHeartbeat    byte = 0
)

// Broadcast sends a body to all peers, at once or when they connect. Of one
// kind only the newest body waits for a peer that is slow or away, so what must
// not be lost has to be sent again by the caller.
func (h *Host) Broadcast(kind byte, body []byte) error {
	if err := checkGossip(kind, body); err != nil {
		return fmt.Errorf("broadcast: %w", err)
	}
	body = bytes.Clone(body)
	for _, l := range h.all() {
		l.gossip.put(kind, body)
	}
	return nil
}

// SendTo is Broadcast to one peer.
func (h *Host) SendTo(to ID, kind byte, body []byte) error {
	if err := checkGossip(kind, body); err != nil {
		return fmt.Errorf("gossip: %w", err)
	}
	l, err := h.peer(to)
	if err != nil {
		return fmt.Errorf("gossip: %w", err)
	}
	l.gossip.put(kind, bytes.Clone(body))
	return nil
}

func checkGossip(kind byte, body []byte) error {
	if kind == kindHeartbeat {
		return ErrReservedKind
	}
	if len(body) > MaxGossip {
		return fmt.Errorf("%d bytes: %w", len(body), ErrTooLarge)
	}
	return nil
}

// HandleGossip sets the handler of a kind of gossip, once. Bodies of one peer
// come one after the other; while the handler runs, only the newest of each kind
// waits. Heartbeats go on meanwhile. Gossip without a handler is dropped.
func (h *Host) HandleGossip(kind byte, f func(from ID, body []byte)) {
	if kind == kindHeartbeat {
		panic(ErrReservedKind)
	}
	h.handlers.mu.Lock()
	defer h.handlers.mu.Unlock()
	if h.handlers.gossip[kind] != nil {
		panic(fmt.Sprintf("p2p: gossip kind %d has a handler", kind))
	}
	h.handlers.gossip[kind] = f
}

// mailbox holds the newest body of each kind, in the order in which the kinds
// became due. It is bounded by its 255 kinds of 4 KiB.
type mailbox struct {
	wake chan struct{}

	mu     sync.Mutex
	bodies map[byte][]byte
	due    []byte
}

func newMailbox() mailbox {
	return mailbox{wake: make(chan struct{}, 1), bodies: map[byte][]byte{}}
}

func (m *mailbox) put(kind byte, body []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, waits := m.bodies[kind]; !waits {
		m.due = append(m.due, kind)
	}
	m.bodies[kind] = body
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// putBack returns a body that could not be sent, unless a newer one waits.
func (m *mailbox) putBack(kind byte, body []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, newer := m.bodies[kind]; newer {
		return
	}
	m.bodies[kind] = body
	m.due = append(m.due, kind)
}

func (m *mailbox) take() (kind byte, body []byte, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.due) == 0 {
		return 0, nil, false
	}
	kind = m.due[0]
	m.due = m.due[1:]
	body = m.bodies[kind]
	delete(m.bodies, kind)
	return kind, body, true
}

// sendGossip keeps a gossip stream to the peer and beats on it.
func (h *Host) sendGossip(l *link) {
	wait := time.Duration(0)
	for {
		if l.awaitUp(l.ctx) != nil {
			return
		}
		began := time.Now()
		err := h.gossipStream(l)
		if l.ctx.Err() != nil {
			return
		}
		h.log.Debug("gossip stream ended", "peer", l.pid, "err", err)
		if time.Since(began) > backoffMax {
			wait = 0
		}
		wait = nextBackoff(wait)
		if sleep(l.ctx, wait) != nil {
			return
		}
	}
}

func (h *Host) gossipStream(l *link) error {
	s, err := h.open(l.ctx, l, approveProtocol)
	if err != nil {
		return err
	}
	defer s.Reset()
	stop := context.AfterFunc(l.ctx, func() { _ = s.Reset() })
	defer stop()
	ticker := time.NewTicker(heartbeatEvery)
	defer ticker.Stop()
	tokens := newBucket(gossipSendRate, gossipSendBurst, time.Now())
	if err := writeGossip(s, kindHeartbeat, nil); err != nil {
		return err
	}
	for {
		select {
		case <-l.ctx.Done():
			return l.ctx.Err()
		case <-ticker.C:
			if err := writeGossip(s, kindHeartbeat, nil); err != nil {
				return err
			}
		case <-l.gossip.wake:
		}
		// Without a token the rest waits for the next tick, and only the newest of it.
		for tokens.ready(time.Now()) {
			kind, body, ok := l.gossip.take()
			if !ok {
				break
			}
			tokens.tokens--
			if err := writeGossip(s, kind, body); err != nil {
				l.gossip.putBack(kind, body)
				return err
			}
		}
	}
}

func writeGossip(s network.Stream, kind byte, body []byte) error {
	if err := s.SetWriteDeadline(time.Now().Add(gossipWriteLimit)); err != nil {
		return fmt.Errorf("write gossip: %w", err)
	}
	b := make([]byte, gossipHeaderSize, gossipHeaderSize+len(body))
	b[0] = kind
	binary.BigEndian.PutUint16(b[1:], uint16(len(body)))
	if _, err := s.Write(append(b, body...)); err != nil {
		return fmt.Errorf("write gossip: %w", err)
	}
	return nil
}

func (h *Host) serveGossip(l *link, s network.Stream) {
	defer s.Reset()
	if !l.gossipIn.take(s) {
		return
	}
	defer l.gossipIn.leave(s)
	err := h.readGossip(l, s)
	if l.ctx.Err() == nil && !errors.Is(err, io.EOF) {
		h.log.Debug("gossip stream from peer ended", "peer", l.pid, "err", err)
	}
}

func (h *Host) readGossip(l *link, s network.Stream) error {
	tokens := newBucket(gossipRate, gossipBurst, time.Now())
	for {
		var header [gossipHeaderSize]byte
		if _, err := io.ReadFull(s, header[:]); err != nil {
			return fmt.Errorf("read gossip: %w", err)
		}
		kind, size := header[0], binary.BigEndian.Uint16(header[1:])
		if size > MaxGossip {
			h.refuse(RefusedFrameSize, "peer", l.pid, "protocol", approveProtocol, "bytes", size)
			return fmt.Errorf("gossip of %d bytes: %w", size, ErrTooLarge)
		}
		if kind == kindHeartbeat && size != 0 {
			h.refuse(RefusedMalformed, "peer", l.pid, "protocol", approveProtocol)
			return errors.New("heartbeat with a body")
		}
		if err := s.SetReadDeadline(time.Now().Add(bodyTimeout)); err != nil {
			return err
		}
		body := make([]byte, size)
		if _, err := io.ReadFull(s, body); err != nil {
			return fmt.Errorf("read gossip: %w", err)
		}
		if err := s.SetReadDeadline(time.Time{}); err != nil {
			return err
		}
		l.heard.Store(int64(time.Since(h.start)))
		if kind != kindHeartbeat {
			l.gossiped.put(kind, body)
		}
		// Over the rate we read on later. Nothing of an honest peer is dropped,
		// and a flood stands in its own sender's window.
		for !tokens.take(time.Now()) {
			if err := sleep(l.ctx, tokens.wait()); err != nil {
				return err
			}
		}
	}
}

// deliverGossip calls the handlers, so that a slow one stops no heartbeat.
func (h *Host) deliverGossip(l *link) {
	for {
		select {
		case <-l.gossiped.wake:
		case <-l.ctx.Done():
			return
		}
		for {
			kind, body, ok := l.gossiped.take()
			if !ok {
				break
			}
			h.handlers.mu.RLock()
			handle := h.handlers.gossip[kind]
			h.handlers.mu.RUnlock()
			if handle != nil && l.ctx.Err() == nil {
				handle(l.id, body)
			}
		}
	}
}
