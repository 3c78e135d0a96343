package p2p

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
)

// RequestHandler answers a request. Its context ends when the asker gives up,
// when the connection breaks, and after 30 s. To give the asker a code of its
// own it returns a *RemoteError with a Code of CodeFirstFree or above.
type RequestHandler func(ctx context.Context, from ID, body []byte) ([]byte, error)

// Codes of replies. Handlers may use those from CodeFirstFree on.
const (
	codeOK          byte = 0
	CodeFailed      byte = 1 // the handler returned an error without a code
	CodeUnknownKind byte = 2
	CodeBusy        byte = 3
	CodeTooLarge    byte = 4
	CodeFirstFree   byte = 16
)

// RemoteError is an answer: the peer got the request and refused it.
type RemoteError struct {
	Code byte
	Text string
}

func (e *RemoteError) Error() string {
	return fmt.Sprintf("peer answered with code %d: %s", e.Code, e.Text)
}

// Unwrap lets errors.Is find the refusals that both sides name alike.
func (e *RemoteError) Unwrap() error {
	switch e.Code {
	case CodeBusy:
		return ErrBusy
	case CodeTooLarge:
		return ErrTooLarge
	}
	return nil
}

// A request is kind (1), length (4), body; a reply is code (1), length (4), body.
const messageHeaderSize = 1 + 4

// Request asks a connected member. ErrNotMember, ErrNotConnected, ErrBusy and
// ErrTooLarge mean that the handler did not run; a *RemoteError is the peer's
// answer; after any other error the outcome is unknown. Without a deadline in
// ctx it waits 30 s.
func (h *Host) Request(ctx context.Context, to ID, kind byte, body []byte) ([]byte, error) {
	if len(body) > MaxRequest {
		return nil, fmt.Errorf("request of %d bytes: %w", len(body), ErrTooLarge)
	}
	l, err := h.peer(to)
	if err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	if !l.isUp() {
		return nil, fmt.Errorf("request to %s: %w", l.pid, ErrNotConnected)
	}
	select {
	case l.inFlight <- struct{}{}:
	default:
		return nil, fmt.Errorf("request to %s: %w", l.pid, ErrBusy)
	}
	defer func() { <-l.inFlight }()

	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	reply, err := h.exchange(ctx, l, kind, body)
	if err != nil {
		if ctx.Err() != nil { // the reset that followed says less
			err = ctx.Err()
		}
		return nil, fmt.Errorf("request to %s: %w", l.pid, err)
	}
	return reply, nil
}

func (h *Host) exchange(ctx context.Context, l *link, kind byte, body []byte) ([]byte, error) {
	s, err := h.open(ctx, l, submitProtocol)
	if err != nil {
		return nil, err
	}
	// Reset also on success: nothing more is to come from either side.
	defer s.Reset()
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	if err := writeMessage(s, kind, body); err != nil {
		return nil, fmt.Errorf("write: %w", err)
	}
	code, reply, err := h.readMessage(l, s)
	if err != nil {
		return nil, fmt.Errorf("read reply: %w", err)
	}
	if code != codeOK {
		return nil, &RemoteError{Code: code, Text: string(reply)}
	}
	return reply, nil
}

// HandleRequest sets the handler of a kind of request, once. Requests of one
// peer run at the same time, up to 256.
func (h *Host) HandleRequest(kind byte, f RequestHandler) {
	h.handlers.mu.Lock()
	defer h.handlers.mu.Unlock()
	if h.handlers.request[kind] != nil {
		panic(fmt.Sprintf("p2p: request kind %d has a handler", kind))
	}
	h.handlers.request[kind] = f
}

func (h *Host) serveRequest(l *link, s network.Stream) {
	defer s.Close()
	if err := s.SetReadDeadline(time.Now().Add(openTimeout)); err != nil {
		return
	}
	kind, body, err := h.readMessage(l, s)
	if err != nil {
		h.log.Debug("read request", "peer", l.pid, "err", err)
		_ = s.Reset()
		return
	}
	if err := s.SetReadDeadline(time.Time{}); err != nil {
		return
	}

	ctx, cancel := context.WithTimeout(l.ctx, requestTimeout)
	defer cancel()
	// The asker sends nothing more, so whatever Read returns means that it left.
	var left sync.WaitGroup
	left.Go(func() {
		var b [1]byte
		_, _ = s.Read(b[:])
		cancel()
	})
	reply, err := h.answer(ctx, l, kind, body)
	code := codeOK
	if err != nil {
		code, reply = encodeError(err)
	}
	if err := s.SetWriteDeadline(time.Now().Add(openTimeout)); err == nil {
		err = writeMessage(s, code, reply)
		if err != nil && ctx.Err() == nil {
			h.log.Debug("write reply", "peer", l.pid, "err", err)
		}
	}
	if err := s.CloseRead(); err != nil {
		_ = s.Reset()
	}
	left.Wait()
}

// answer runs the handler, within the peer's share.
func (h *Host) answer(ctx context.Context, l *link, kind byte, body []byte) ([]byte, error) {
	defer l.serving.Add(-1) // before the reply is written: the asker counts it as done then
	if l.serving.Add(1) > maxInFlight {
		h.refuse(RefusedBusy, "peer", l.pid)
		return nil, &RemoteError{Code: CodeBusy, Text: fmt.Sprintf("more than %d requests in flight", maxInFlight)}
	}
	h.handlers.mu.RLock()
	handle := h.handlers.request[kind]
	h.handlers.mu.RUnlock()
	if handle == nil {
		return nil, &RemoteError{Code: CodeUnknownKind, Text: fmt.Sprintf("unknown kind %d", kind)}
	}
	reply, err := handle(ctx, l.id, body)
	if err != nil {
		return nil, err
	}
	if len(reply) > MaxRequest {
		h.log.Error("reply is too large", "kind", kind, "bytes", len(reply))
		return nil, &RemoteError{Code: CodeTooLarge, Text: fmt.Sprintf("reply of %d bytes", len(reply))}
	}
	return reply, nil
}

func encodeError(err error) (byte, []byte) {
	code, text := CodeFailed, err.Error()
	if remote, ok := errors.AsType[*RemoteError](err); ok && remote.Code != codeOK {
		code, text = remote.Code, remote.Text
	}
	return code, []byte(text[:min(len(text), maxErrorText)])
}

func writeMessage(w io.Writer, first byte, body []byte) error {
	b := make([]byte, messageHeaderSize, messageHeaderSize+len(body))
	b[0] = first
	binary.BigEndian.PutUint32(b[1:], uint32(len(body)))
	_, err := w.Write(append(b, body...))
	return err
}

func (h *Host) readMessage(l *link, s network.Stream) (first byte, body []byte, err error) {
	var header [messageHeaderSize]byte
	if _, err := io.ReadFull(s, header[:]); err != nil {
		return 0, nil, err
	}
	size := binary.BigEndian.Uint32(header[1:])
	if size > MaxRequest {
		h.refuse(RefusedFrameSize, "peer", l.pid, "protocol", submitProtocol, "bytes", size)
		return 0, nil, fmt.Errorf("message of %d bytes: %w", size, ErrTooLarge)
	}
	body = make([]byte, size)
	if _, err := io.ReadFull(s, body); err != nil {
		return 0, nil, err
	}
	return header[0], body, nil
}
