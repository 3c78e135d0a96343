package api

import (
	"context"
	"errors"
	"time"

	"github.com/coffer-network/coffer/ledger"
)

// Backend is what the API asks of its node.
type Backend interface {
	// View is the applied ledger as of now, frozen (ledger.State.Frozen): any
	// number of calls read it at once, and previews copy it.
	View() *ledger.State

	// Submit has the command (its canonical CBOR) ordered, wherever the leader
	// is, and waits until this replica applied it. A refusal is an Outcome; an
	// error says that the outcome is not known: ErrNoLeader, ErrUnknown, *Overloaded, or the
	// context's.
	Submit(ctx context.Context, command []byte) (Outcome, error)

	// Verdict judges a signature on the node's own bounded pool; *Overloaded
	// where that is full.
	Verdict(ctx context.Context, c ledger.SignatureCheck) (bool, error)

	// WaitHeight returns once this replica applied height, or the context's error.
	WaitHeight(ctx context.Context, height uint64) error

	// ReadIndex is a height that covers everything acknowledged anywhere before
	// the call; ErrNoLeader where none can be had.
	ReadIndex(ctx context.Context) (uint64, error)

	// Status is this node's own account of itself.
	Status() NodeStatus

	// Sessions are the signing sessions this node takes part in now.
	Sessions() []Session

	// Signed are the finished signing sessions of a batch that this node took
	// part in, ascending by attempt, input and turn.
	Signed(batch uint64) []SignedSession

	// Certificate is the newest certificate at or above a height, with the
	// headers from that height to the certified one; false where there is none.
	Certificate(min uint64) (ledger.Certificate, []ledger.Header, bool)

	// Sightings are what only this node saw at an account's addresses: deposits
	// not yet counted, and what it ignores.
	Sightings(account ledger.AccountID) []Sighting
}

// Outcome is what became of a submitted command.
type Outcome struct {
	Height uint64 // LogIndex that applied it; of a repeated text, the first
	Code   ledger.Code
}

// ErrNoLeader: nobody orders commands at the moment.
var ErrNoLeader = errors.New("no leader")

// ErrUnknown: nobody knows yet whether the command was ordered; the same bytes
// may be sent again, here or elsewhere.
var ErrUnknown = errors.New("outcome unknown")

// Overloaded is a refusal to take more work now (spec: consensus §9).
type Overloaded struct {
	Limit string        // which limit was hit
	After time.Duration // when to come again
}

func (o *Overloaded) Error() string { return "overloaded: " + o.Limit }

// NodeStatus is one node as it sees itself (spec: committee §10). Everything
// but Operator is public.
type NodeStatus struct {
	Name    string
	Member  ledger.MemberID
	Version string
	Role    string // "leader", "follower", "candidate", "non-voter"
	Leader  string // name of the member that leads; "" where none is known
	Commit  uint64 // highest LogIndex known to be ordered; lag = Commit − applied
	Started time.Time
	// NotReady says in words why this node should get no traffic; empty: ready.
	NotReady []string
	// Checkpoint is the newest certified head as HEIGHT:HEAD; empty: none yet.
	Checkpoint string
	// PreParams is how many sets lie ready for the next key generation.
	PreParams int
	// Keys are the key ids for which this node holds an active KeyShare.
	Keys []string
	// Halted says why this node itself signs nothing; empty: it does.
	Halted string
	Chains []ChainStatus
	// Operator is shown on the operators' listener only: peers, disk, clock,
	// configuration without secrets, chain endpoints.
	Operator map[string]any
}

// ChainStatus is one chain as this node follows it.
type ChainStatus struct {
	Chain   string
	Height  uint64 // best block read
	Final   uint64 // highest block that counts as final
	Read    time.Time
	Failing string // the error of the last read, without the endpoint; empty: none
}

// Session is a signing session under way.
type Session struct {
	Session string // hex
	Batch   uint64
	Attempt uint64
	Input   uint64
	Turn    uint64
	Parties []string // member names
	Round   int
	Waiting []string // parties a message is awaited from
	Since   time.Time
}

// SignedSession is a finished one.
type SignedSession struct {
	Session   string // hex
	Attempt   uint64
	Input     uint64
	Turn      uint64
	Parties   []string // member names
	Signature string   // r‖s in hex
	TxID      string
	Finished  time.Time
}

// Sighting is something at one of our addresses that the ledger has not
// counted.
type Sighting struct {
	Chain         string
	Address       string
	Asset         string // id; "" for an unlisted token
	Token         string // contract of an unlisted token
	TxID          string
	Amount        string // base units
	Height        uint64 // 0: unconfirmed
	Confirmations uint64
	Required      uint64
	Ignored       string // why it will never count; empty: it is on its way
}
