package chains

import (
	"context"
	"errors"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// Chain is one chain as the cluster uses it. Build, Reads and Finish are pure;
// Watch and Broadcast talk to the member's own node of that chain. All are
// safe for use by several goroutines.
type Chain interface {
	// Watch makes one step: it reads a bounded number of blocks that are new
	// since the cursor, follows the best chain over forks, and shows the whole
	// picture afterwards. On an error nothing was learnt and the old cursor
	// stays good.
	Watch(ctx context.Context, v View, c Cursor) (Observations, Cursor, error)

	// Build makes the one transaction of an attempt, to the byte.
	Build(a ledger.Attempt) (Unsigned, error)

	// Reads says what the bytes consume and pay, and refuses bytes that could
	// do anything else, and digests that are not those of the bytes. Spends
	// are resources as the ledger names anchors: "txid:vout" on Bitcoin,
	// "0xSender:sequence" on Ethereum.
	Reads(u Unsigned) (spends []string, pays []ledger.Payment, err error)

	// Finish verifies every signature, in the order of u.Inputs, and assembles
	// the transaction.
	Finish(u Unsigned, sigs []Signature) (Raw, error)

	// Broadcast sends a finished transaction, any number of times. Nil means
	// that the node has it or the chain does; every other outcome is one of
	// the errors below and changes nothing (spec: outflows §3.5, §4.4).
	Broadcast(ctx context.Context, raw []byte) error
}

// Unsigned is the transaction of an attempt before it is signed.
type Unsigned struct {
	Chain  string
	Bytes  []byte   // the unsigned transaction in the chain's own encoding
	From   string   // Ethereum: the sender, which the bytes do not hold; Reads ties it to the key that signs
	TxID   string   // Bitcoin: already known, as no signature is part of it; else empty
	Inputs []ToSign // what is to be signed, one session each
}

// ToSign is one digest for one session.
type ToSign struct {
	Digest [32]byte
	Pub    []byte // compressed child key the signature must verify under
	Path   address.Path
	Sats   uint64 // Bitcoin: the input's value, which the digest covers and the bytes do not hold
}

// Signature is ECDSA over secp256k1: big-endian, low S.
type Signature struct {
	R, S  [32]byte
	RecID byte // 0 or 1: parity of R's y
}

// Raw is a transaction ready to be sent.
type Raw struct {
	Bytes []byte
	TxID  string
}

// Cursor is where a follower stands, to be stored by its caller and given back
// unchanged. Empty: begin at the chain's first height. Its size is bounded by
// the fork window and what the ledger has not counted.
type Cursor []byte

// View is what a ledger wants to be looked at on one chain. An adapter does
// not change it and does not keep it beyond the call.
type View struct {
	Watched   map[string]uint64        // addresses of ours, canonical → height from which each is effective
	Anchors   []Anchor                 // of batches that are not done
	Coins     map[string]bool          // Bitcoin: outpoints the ledger holds as unspent
	Sequences map[string]uint64        // Ethereum: next sequence of each sender of ours
	Floats    []string                 // Ethereum: vault addresses whose native balance is asked
	Counted   func(inflow string) bool // the ledger has this inflow: it need not be shown for ever; nil: none
}

// Anchor is the anchor of an open batch with every attempt that may spend it.
type Anchor struct {
	Name     string // as in ledger.Batch
	Batch    uint64
	Attempts []ledger.Attempt
}

// Observations is the picture after one step. It repeats itself: whoever
// attests compares it with what the ledger has heard already.
type Observations struct {
	Behind uint64              // blocks that the node has and this picture lacks
	Tip    ledger.HeightReport // to be attested: best block read; Ethereum: finalized
	Head   ledger.HeightReport // best block read
	Blocks map[uint64]string   // recent best chain, height → block hash

	Inflows []Seen
	Spends  []SeenSpend
	Fee     *ledger.FeeReport // nil: no opinion, for instance while behind
	Floats  []ledger.FloatFact
	Ignored []Ignored
}

// Left reports whether the block is known to be off the best chain. False for
// heights the picture does not cover: no word is better than a guess.
func (o Observations) Left(height uint64, block string) bool {
	b, ok := o.Blocks[height]
	return ok && b != block
}

// Seen is an inflow in the best chain. Change of our own transactions is among
// them: the ledger decides what an inflow is.
type Seen struct {
	Fact  ledger.InflowFact
	Depth uint64 // head − height + 1
}

// SeenSpend is a spend of an anchor, or of a coin or sequence of ours without
// an open batch, in the best chain.
//
// Foreign means: by nothing in this View. A ledger that lags behind its own
// cluster sees its newest attempt so, therefore Foreign is worth a word only
// from a member that is caught up and at some depth.
type SeenSpend struct {
	Anchor  string
	Batch   uint64 // 0: no open batch has this anchor
	Attempt uint64 // lowest K with the bytes that spent it
	Foreign bool
	Height  uint64
	Block   string
	Depth   uint64
	TxID    string

	Final   bool           // at finality, with Outcome and Fee known
	Outcome ledger.Outcome // 0 when Foreign or not Final
	Fee     fixed.Int      // native base units the chain took; 0 likewise
}

// Ignored is something that arrived at an address of ours and is no inflow.
type Ignored struct {
	TxID    string
	Address string
	Reason  string
}

// Errors of every adapter. A follower's errors leave its cursor alone, a
// broadcast's errors are never proof that a transaction failed.
var (
	// ErrDeepFork: the best chain left ours further back than the window, or
	// below finality. Nothing may be signed on the chain (spec: outflows §3.8).
	ErrDeepFork = errors.New("best chain forked deeper than the follower's window")
	// ErrCursor: the stored cursor is not one of this chain.
	ErrCursor = errors.New("cursor is not readable")
	// ErrPicture: more open events than a follower keeps.
	ErrPicture = errors.New("too many open events")
	// ErrEndpoint: the node answered something that cannot be true of this chain.
	ErrEndpoint = errors.New("chain node's answer is not credible")

	// ErrAttempt: an attempt that this chain cannot turn into a transaction.
	ErrAttempt = errors.New("attempt does not make a transaction")
	// ErrUnsigned: bytes that are not a transaction we would plan.
	ErrUnsigned = errors.New("unsigned transaction refused")
	// ErrSignature: a signature that is missing or not good.
	ErrSignature = errors.New("signature refused")

	// ErrTransport: nobody knows whether it arrived; send again.
	ErrTransport = errors.New("chain node not reached")
	// ErrAnchorSpent: an input is spent or unknown, a sequence is consumed;
	// look who consumed it.
	ErrAnchorSpent = errors.New("what the transaction consumes is consumed or unknown")
	// ErrTooCheap: the node wants a higher fee; bring the next bump forward.
	ErrTooCheap = errors.New("fee too low for the node")
	// ErrRefused: any other refusal; an alarm.
	ErrRefused = errors.New("transaction refused by the node")
)
