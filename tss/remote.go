package tss

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/coffer-network/coffer/tss/child"
)

// What crosses the pipe to a child (spec: signing §8.1), each in one frame: the
// job; then, as often as there are messages, a feedOrder. To the job and to each
// order the child answers with any number of outs and one end; before it looks
// at a message it says that it does.
type feedOrder struct {
	From    int    `cbor:"1,keyasint"`
	Code    byte   `cbor:"2,keyasint"`
	Payload []byte `cbor:"3,keyasint"`
}

type said uint8

const (
	saidFeeding said = 1 // From, Code: of the message that comes next
	saidOut     said = 2 // Code, To, Payload: to be sent
	saidEnd     said = 3 // how the order ended
)

type reply struct {
	What    said    `cbor:"1,keyasint"`
	From    int     `cbor:"2,keyasint"`
	Code    byte    `cbor:"3,keyasint"`
	To      int     `cbor:"4,keyasint"`
	Payload []byte  `cbor:"5,keyasint"`
	Failure failure `cbor:"6,keyasint"`
	Result  []byte  `cbor:"7,keyasint"`
}

// failure is an error of the engine: a violation, the library giving up, or
// anything else.
type failure struct {
	Kind     failureKind `cbor:"1,keyasint"`
	Check    string      `cbor:"2,keyasint"`
	Text     string      `cbor:"3,keyasint"`
	Culprits []int       `cbor:"4,keyasint"`
	Role     role        `cbor:"5,keyasint"`
	Local    bool        `cbor:"6,keyasint"`
}

type failureKind uint8

const (
	failedNot       failureKind = 0
	failedCheck     failureKind = 1
	failedLibrary   failureKind = 2
	failedUnclear   failureKind = 3
	failedShare     failureKind = 4
	failedOtherwise failureKind = 5
)

func failureOf(err error) failure {
	var bad *violation
	var who *unclear
	var gaveUp *libraryError
	switch {
	case err == nil:
		return failure{}
	case errors.As(err, &who):
		return failure{Kind: failedUnclear, Check: who.check, Text: who.detail, Role: who.from}
	case errors.As(err, &bad):
		return failure{Kind: failedCheck, Check: bad.check, Text: bad.detail, Local: bad.local}
	case errors.As(err, &gaveUp):
		return failure{Kind: failedLibrary, Text: gaveUp.text, Culprits: gaveUp.culprits}
	case errors.Is(err, ErrNoKeyShare):
		return failure{Kind: failedShare, Text: err.Error()}
	}
	return failure{Kind: failedOtherwise, Text: err.Error()}
}

func (f failure) err(parties int) error {
	switch f.Kind {
	case failedNot:
		return nil
	case failedCheck:
		return &violation{check: f.Check, detail: f.Text, local: f.Local}
	case failedUnclear:
		return &unclear{check: f.Check, detail: f.Text, from: f.Role}
	case failedLibrary:
		for _, c := range f.Culprits {
			if c < 0 || c >= parties {
				return fmt.Errorf("child names party %d", c)
			}
		}
		return &libraryError{culprits: f.Culprits, text: f.Text}
	case failedShare:
		return fmt.Errorf("%w: child: %s", ErrNoKeyShare, f.Text)
	}
	return fmt.Errorf("child: %s", f.Text)
}

// crash is a child that ended by itself. from and code are of the last message
// it said it would look at; code is 0 if there was none.
type crash struct {
	death child.Death
	from  int
	code  byte
}

func (e *crash) Error() string { return "child died: " + e.death.String() }

// errAborted: the child was killed by this side.
var errAborted = errors.New("child was killed with its session")

// remote is an engine in a child.
type remote struct {
	c        *child.Process
	protocol *protocol
	parties  int
	self     int
	job      *job
	release  func() // of the place among the living children
	aborted  atomic.Bool
	from     int
	code     byte
	done     []byte
}

// newRemote takes a child, when there is a place for one more: older batches
// first, so that under load every node serves the same sessions.
func (s *Signer) newRemote(ctx context.Context, j *job) (*remote, error) {
	p, err := protocolOf(j.Request.Kind, j.Request.Key.Curve)
	if err != nil {
		return nil, err
	}
	m := &remote{protocol: p, parties: len(j.Request.members()), self: j.Self, job: j}
	if m.c, m.release, err = s.takeChild(ctx, j.Request); err != nil {
		return nil, err
	}
	return m, nil
}

func (s *Signer) takeChild(ctx context.Context, r Request) (*child.Process, func(), error) {
	release, err := s.places.acquire(ctx, nil, priorityOf(r))
	if err != nil {
		return nil, nil, err
	}
	c, err := s.children.Take(ctx)
	if err != nil {
		release()
		return nil, nil, err
	}
	if r.Kind != Sign {
		if err := c.Nice(); err != nil {
			s.log.Debug("priority of a child not lowered", "err", err)
		}
	}
	return c, release, nil
}

func (m *remote) start() ([]outgoing, error) {
	b := encode(m.job)
	defer clear(b)
	return m.call(b)
}

func (m *remote) feed(from int, r *rule, payload []byte) ([]outgoing, error) {
	return m.call(encode(feedOrder{From: from, Code: r.code, Payload: payload}))
}

func (m *remote) result() (any, error) {
	if m.done == nil {
		return nil, nil
	}
	return decodeResult(m.protocol, m.done)
}

func (m *remote) abort() {
	m.aborted.Store(true)
	m.c.Kill()
}

func (m *remote) close() {
	m.c.Kill()
	m.release()
}

// call sends one order and collects the answer.
func (m *remote) call(order []byte) ([]outgoing, error) {
	if err := m.c.Send(order); errors.Is(err, child.ErrTooLong) {
		return nil, err
	}
	// A child that could not be written to is gone; what it said before counts.
	var outs []outgoing
	for {
		b, err := m.c.Recv()
		if err != nil {
			return nil, m.gone(err)
		}
		var a reply
		if err := decode(b, &a); err != nil {
			return nil, fmt.Errorf("child's answer: %w", err)
		}
		switch a.What {
		case saidFeeding:
			m.from, m.code = a.From, a.Code
		case saidOut:
			o, err := m.outgoing(a)
			if err != nil {
				return nil, err
			}
			if outs = append(outs, o); len(outs) > maxOuts {
				return nil, errors.New("child sends without end")
			}
		case saidEnd:
			if len(a.Result) > 0 {
				m.done = a.Result
			}
			return outs, a.Failure.err(m.parties)
		default:
			return nil, fmt.Errorf("child says %d", a.What)
		}
	}
}

// maxOuts is above what any round sends.
const maxOuts = 4 * maxMembers

func (m *remote) gone(err error) error {
	if m.aborted.Load() {
		return errAborted
	}
	if errors.Is(err, child.ErrTooLong) {
		return fmt.Errorf("child's answer: %w", err)
	}
	return &crash{death: m.c.Death(), from: m.from, code: m.code}
}

// outgoing checks what the child wants sent: this side signs it.
func (m *remote) outgoing(a reply) (outgoing, error) {
	r := rulesByCode[a.Code]
	switch {
	case r == nil || !m.protocol.has(r):
		return outgoing{}, fmt.Errorf("child sends a message of code %d", a.Code)
	case len(a.Payload) > r.limit:
		return outgoing{}, fmt.Errorf("child sends %d bytes of %s", len(a.Payload), r.name)
	case r.broadcast && a.To != -1, !r.broadcast && (a.To < 0 || a.To >= m.parties || a.To == m.self):
		return outgoing{}, fmt.Errorf("child sends %s to party %d", r.name, a.To)
	}
	return outgoing{rule: r, to: a.To, payload: a.Payload}, nil
}
