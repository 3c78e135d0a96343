package p2p

import (
	"bufio"
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

// A session stream: the sender names its queue (16 bytes), then sends frames of
// number (8), length (4) and body. The receiver answers, in the same stream,
// with the number of the frame that it expects next (8). All big-endian.
const (
	queueNameSize   = 16
	frameHeaderSize = 8 + 4
	ackSize         = 8
	ackEvery        = 32 // frames; sooner when nothing more has arrived
)

// Send queues a frame for a member and returns at once. Frames reach the
// handler of the other side in the order of Send, each once as long as both
// processes live, over any number of reconnects; when the receiver restarts, it
// may get again what its predecessor got and did not acknowledge. A frame that
// found no connection for 10 minutes is dropped.
func (h *Host) Send(ctx context.Context, to ID, frame []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(frame) > MaxFrame {
		return fmt.Errorf("send %d bytes: %w", len(frame), ErrTooLarge)
	}
	l, err := h.sessionPeer(to)
	if err != nil {
		return fmt.Errorf("send: %w", err)
	}
	if err := l.out.push(bytes.Clone(frame), time.Now()); err != nil {
		return fmt.Errorf("send to %s: %w", l.pid, err)
	}
	return nil
}

// Handle sets the receiver of session frames, once. Frames of one peer come one
// after the other, those of several peers at the same time; a handler that takes
// its time slows that peer down. Frames that come before Handle wait.
func (h *Host) Handle(f func(from ID, frame []byte)) {
	h.handlers.mu.Lock()
	defer h.handlers.mu.Unlock()
	if h.handlers.session != nil {
		panic("p2p: Handle is called twice")
	}
	h.handlers.session = f
	close(h.handlers.hasSession)
}

// outbox holds what a peer has not acknowledged.
type outbox struct {
	name [queueNameSize]byte
	wake chan struct{}

	mu     sync.Mutex
	frames []outFrame
	sent   int // how many of them were written into the current stream
	bytes  int
	next   uint64 // number of the next frame
}

type outFrame struct {
	number uint64
	at     time.Time
	body   []byte
}

func (o *outbox) push(body []byte, now time.Time) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.expire(now)
	if len(o.frames) >= maxQueueCount || o.bytes+len(body) > maxQueueBytes {
		return ErrQueueFull
	}
	o.frames = append(o.frames, outFrame{number: o.next, at: now, body: body})
	o.next++
	o.bytes += len(body)
	select {
	case o.wake <- struct{}{}:
	default:
	}
	return nil
}

// expire drops what no session can still want.
func (o *outbox) expire(now time.Time) {
	for len(o.frames) > 0 && now.Sub(o.frames[0].at) > frameLife {
		o.pop()
	}
}

func (o *outbox) pop() {
	o.bytes -= len(o.frames[0].body)
	o.frames[0].body = nil
	o.frames = o.frames[1:]
	o.sent = max(0, o.sent-1)
}

// rewind makes all that is not acknowledged unsent, for a new stream.
func (o *outbox) rewind() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sent = 0
}

// take returns the next unsent frame.
func (o *outbox) take(now time.Time) (outFrame, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.expire(now)
	if o.sent >= len(o.frames) {
		return outFrame{}, false
	}
	f := o.frames[o.sent]
	o.sent++
	return f, true
}

var errBadAck = errors.New("acknowledges a frame that was not sent")

// acknowledge drops the frames below the number that the peer expects next.
func (o *outbox) acknowledge(expects uint64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if expects > o.next {
		return errBadAck
	}
	for o.sent > 0 && o.frames[0].number < expects {
		o.pop()
	}
	return nil
}

func (o *outbox) empty() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.frames) == 0
}

// sendSession writes the outbox of a link into one stream after another.
func (h *Host) sendSession(l *link) {
	wait := time.Duration(0)
	for {
		for l.out.empty() {
			select {
			case <-l.out.wake:
			case <-l.ctx.Done():
				return
			}
		}
		if l.awaitUp(l.ctx) != nil {
			return
		}
		began := time.Now()
		err := h.sessionStream(l)
		if l.ctx.Err() != nil {
			return
		}
		h.log.Debug("session stream ended", "peer", l.pid, "err", err)
		if time.Since(began) > backoffMax {
			wait = 0
		}
		wait = nextBackoff(wait)
		if sleep(l.ctx, wait) != nil {
			return
		}
	}
}

// sessionStream sends until the stream breaks.
func (h *Host) sessionStream(l *link) error {
	s, err := h.open(l.ctx, l, tssProtocol)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(l.ctx, func() { _ = s.Reset() })
	defer stop()
	l.out.rewind()
	broken := make(chan error, 1)
	var acks sync.WaitGroup
	acks.Go(func() { broken <- readAcks(l, s) })
	defer acks.Wait()
	defer s.Reset()

	w := bufio.NewWriterSize(s, 32<<10)
	// The writer keeps its first error, so only the last one is looked at.
	_ = s.SetWriteDeadline(time.Now().Add(bodyTimeout))
	_, _ = w.Write(l.out.name[:])
	for {
		f, ok := l.out.take(time.Now())
		if !ok {
			if err := w.Flush(); err != nil {
				return fmt.Errorf("write frames: %w", err)
			}
			select {
			case <-l.out.wake:
				continue
			case err := <-broken:
				return err
			case <-l.ctx.Done():
				return l.ctx.Err()
			}
		}
		if err := s.SetWriteDeadline(time.Now().Add(bodyTimeout)); err != nil {
			return fmt.Errorf("write frame: %w", err)
		}
		var header [frameHeaderSize]byte
		binary.BigEndian.PutUint64(header[:], f.number)
		binary.BigEndian.PutUint32(header[8:], uint32(len(f.body)))
		_, _ = w.Write(header[:])
		if _, err := w.Write(f.body); err != nil {
			return fmt.Errorf("write frame: %w", err)
		}
	}
}

func readAcks(l *link, s network.Stream) error {
	var b [ackSize]byte
	for {
		if _, err := io.ReadFull(s, b[:]); err != nil {
			return fmt.Errorf("read acknowledgement: %w", err)
		}
		if err := l.out.acknowledge(binary.BigEndian.Uint64(b[:])); err != nil {
			_ = s.Reset()
			return err
		}
	}
}

// received is what a link remembers of the peer's queue across streams. It
// belongs to whoever reads the session stream.
type received struct {
	queue   [queueNameSize]byte
	expects uint64
}

func (h *Host) serveSession(l *link, s network.Stream) {
	defer s.Reset()
	if !l.in.take(s) {
		return
	}
	defer l.in.leave(s)
	select {
	case <-h.handlers.hasSession:
	case <-l.ctx.Done():
		return
	}
	h.handlers.mu.RLock()
	handle := h.handlers.session
	h.handlers.mu.RUnlock()

	err := h.readSession(l, s, handle)
	if l.ctx.Err() == nil && !errors.Is(err, io.EOF) {
		h.log.Debug("session stream from peer ended", "peer", l.pid, "err", err)
	}
}

func (h *Host) readSession(l *link, s network.Stream, handle func(ID, []byte)) error {
	r := bufio.NewReaderSize(s, 32<<10)
	var name [queueNameSize]byte
	if err := s.SetReadDeadline(time.Now().Add(openTimeout)); err != nil {
		return err
	}
	if _, err := io.ReadFull(r, name[:]); err != nil {
		return fmt.Errorf("read queue name: %w", err)
	}
	if name != l.received.queue {
		l.received = received{queue: name}
	}
	var unacked int
	for {
		number, body, err := h.readFrame(l, s, r)
		if err != nil {
			return err
		}
		// A number below was handled in an earlier stream.
		if number >= l.received.expects {
			handle(l.id, body)
			l.received.expects = number + 1
		}
		unacked++
		if unacked < ackEvery && r.Buffered() > 0 {
			continue
		}
		unacked = 0
		var ack [ackSize]byte
		binary.BigEndian.PutUint64(ack[:], l.received.expects)
		if err := s.SetWriteDeadline(time.Now().Add(bodyTimeout)); err != nil {
			return err
		}
		if _, err := s.Write(ack[:]); err != nil {
			return fmt.Errorf("acknowledge: %w", err)
		}
	}
}

// readFrame refuses a frame by its header, before it reads or makes room for
// the body.
func (h *Host) readFrame(l *link, s network.Stream, r *bufio.Reader) (number uint64, body []byte, err error) {
	var header [frameHeaderSize]byte
	if err := s.SetReadDeadline(time.Time{}); err != nil { // a quiet stream is no fault
		return 0, nil, err
	}
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, nil, fmt.Errorf("read header: %w", err)
	}
	number = binary.BigEndian.Uint64(header[:])
	size := binary.BigEndian.Uint32(header[8:])
	if size > MaxFrame {
		h.refuse(RefusedFrameSize, "peer", l.pid, "protocol", tssProtocol, "bytes", size)
		return 0, nil, fmt.Errorf("frame of %d bytes: %w", size, ErrTooLarge)
	}
	if err := s.Scope().ReserveMemory(int(size), network.ReservationPriorityAlways); err != nil {
		h.refuse(RefusedMemory, "peer", l.pid, "protocol", tssProtocol, "bytes", size)
		return 0, nil, fmt.Errorf("reserve memory: %w", err)
	}
	defer s.Scope().ReleaseMemory(int(size))
	if err := s.SetReadDeadline(time.Now().Add(bodyTimeout)); err != nil {
		return 0, nil, err
	}
	body = make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return 0, nil, fmt.Errorf("read frame: %w", err)
	}
	return number, body, nil
}
