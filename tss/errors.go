package tss

import (
	"errors"
	"fmt"

	"github.com/coffer-network/coffer/tss/keystore"
)

var (
	// ErrJoined: this node joined the session before; take the next turn.
	ErrJoined = keystore.ErrJoined
	// ErrBusy: too many sessions are running.
	ErrBusy = errors.New("tss: too many sessions")
	// ErrNoKeyShare: the keystore holds no usable KeyShare for the request.
	ErrNoKeyShare = errors.New("tss: no usable key share")
	// ErrRestored: the KeyShare came out of a backup. It deals in the next
	// resharing and never signs. It is an ErrNoKeyShare too.
	ErrRestored = fmt.Errorf("%w: it came out of a backup, whose node signs again after the next resharing", ErrNoKeyShare)
	// ErrNoPreParams: the pool holds no pre-parameters for an ECDSA keygen.
	ErrNoPreParams = errors.New("tss: no pre-parameters")
	// ErrClosed: the signer was closed.
	ErrClosed = errors.New("tss: signer is closed")
)

// Reason says in what way a session was spoilt.
type Reason string

const (
	NotJoined    Reason = "not-joined"   // no Join within JoinWait
	Disconnected Reason = "disconnected" // the transport lost the party
	Silent       Reason = "silent"       // connected, and mute for too long
	Deadline     Reason = "deadline"     // the session's time is over
	Malformed    Reason = "malformed"    // a check of the guard or of the envelope failed
	Equivocation Reason = "equivocation" // two messages in one slot
	Divergence   Reason = "divergence"   // parties saw different broadcasts
	Failed       Reason = "failed"       // the library gave up, or the result does not verify
	Flood        Reason = "flood"        // more than a session can need
	Crashed      Reason = "crashed"      // its message took the child process down
)

// Blame ends a session and names who spoilt it. If Proven, the evidence shows
// anyone that each culprit signed what no honest party signs; otherwise the
// culprits are suspected by this node alone, for this request.
type Blame struct {
	Session  SessionID
	Culprits []PartyID
	Proven   bool
	Round    int    // 0: before the first round
	Reason   Reason // and, for Malformed, the check that failed:
	Check    string // as numbered in spec signing §8.2
	Detail   string
	Evidence [][]byte // signed envelopes, as received
}

func (b *Blame) Error() string {
	how := "suspects"
	if b.Proven {
		how = "blames"
	}
	s := fmt.Sprintf("tss: session %s round %d %s %v: %s", b.Session, b.Round, how, b.Culprits, b.Reason)
	if b.Check != "" {
		s += " " + b.Check
	}
	if b.Detail != "" {
		s += ": " + b.Detail
	}
	return s
}

// RefusedError says why a frame was not taken. The caller may count it; the
// sender is told nothing.
type RefusedError struct {
	Check  string // as numbered in spec signing §8.2
	Detail string
}

func (e *RefusedError) Error() string { return "tss: frame refused: " + e.Check + ": " + e.Detail }

func refused(check, format string, args ...any) error {
	return &RefusedError{Check: check, Detail: fmt.Sprintf(format, args...)}
}
