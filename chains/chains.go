package chains

import (
	"context"
	"errors"
	"maps"
	"slices"

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

	// Rescan returns a cursor whose follower walks down its chain once more, to
	// the height and not beyond the chain's first, and shows what arrived at any
	// watched address however long before it was registered. Pure.
	Rescan(c Cursor, height uint64) (Cursor, error)

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

	// Consumed returns those of the resources that the best chain has no more,
	// asked of the member's node and not of any picture: an output that is spent or
	// was never there, a sequence that is used up. What waits in a memory pool
	// consumes nothing. Resources are named as in Reads.
	Consumed(ctx context.Context, resources []string) ([]string, error)

	// Custody tells what addresses of ours held of an asset at a block, from the
	// chain alone: what any ledger believes about its coins can only take something
	// out of it. Two members that name the same block and ask alike name the same amount. c is the
	// follower's cursor, which vouches for the block. ErrNoBalance: the block is not
	// read yet, or is more than 144 below the best one, or the node has no state of
	// it any more; asked again later, or about another block, there may be an answer.
	Custody(ctx context.Context, v View, c Cursor, ask Ask) (Held, error)

	// Broadcast sends a finished transaction, any number of times. Nil means
	// that the node has it or the chain does; every other outcome is one of
	// the errors below and changes nothing (spec: outflows §3.5, §4.4).
	Broadcast(ctx context.Context, raw []byte) error
}

// Ask is a question about custody.
type Ask struct {
	Asset  string
	Height uint64
	At     []string // Ethereum: deposit addresses that count besides the vaults, canonical, at most 256
	Apart  string   // Ethereum: the vault whose part is told apart; empty: none's

	// Ours says of a coin, "txid:vout", whether it counts (Bitcoin): what is there and
	// does not is a deposit that nobody has counted, or a stranger's. nil: none does.
	Ours func(outpoint string) bool
}

// Held is the answer, in base units.
type Held struct {
	Block   string // hash of the block at the height
	Amount  fixed.Int
	Waiting fixed.Int // of Amount what lies at the deposit addresses that were asked about (Ethereum)

	Apart     fixed.Int // of Amount what lies at the vault that was named (Ethereum)
	Strangers fixed.Int // beside Amount, what lies at vaults and does not count (Bitcoin)
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

// View is what a ledger wants to be looked at on one chain. What may be large
// is asked for by name, so that a view costs nothing to make. An adapter does
// not keep it beyond the call.
type View struct {
	Watched  Watched                                       // addresses of ours; nil: none
	Anchors  []Anchor                                      // of batches that are not done
	Coin     func(outpoint string) bool                    // Bitcoin: the ledger holds it as unspent; nil: none
	Sequence func(address string) (next uint64, ours bool) // Ethereum: next sequence of a sender of ours; nil: none
	Floats   []string                                      // Ethereum: vault addresses whose native balance is asked
	Vaults   []string                                      // all vault addresses, for Custody
	// Native judges the balance of a deposit address in the chain's own coin at a
	// final height: what the address received in all, if that is more than the
	// ledger has counted (Ethereum); nil: nobody asks.
	Native  func(address string, height uint64, balance fixed.Int) (received fixed.Int, word ledger.NativeWord)
	Counted func(inflow string) bool // the ledger has this inflow: it need not be shown for ever; nil: none
}

// Watched is the addresses of ours on one chain. Each has a number that never
// becomes another's, so whoever remembers how many there were finds the new
// ones without looking at the old.
type Watched interface {
	// Registered is how many numbers were given: 0 … Registered−1.
	Registered() uint64
	// Number returns the address of a number; false: it is another chain's, or
	// not watched any more.
	Number(n uint64) (address string, ok bool)
	// From is the height from which a canonical address is effective.
	From(address string) (height uint64, ok bool)
}

// WatchList is Watched in memory, for whoever has no ledger. Not to be changed
// while it is used.
type WatchList struct {
	list []string
	from map[string]uint64
}

// Watch returns a list of the addresses, in alphabetical order.
func Watch(addresses map[string]uint64) *WatchList {
	l := &WatchList{from: make(map[string]uint64, len(addresses))}
	for _, a := range slices.Sorted(maps.Keys(addresses)) {
		l.Add(a, addresses[a])
	}
	return l
}

// Add registers an address, once.
func (l *WatchList) Add(address string, from uint64) {
	if _, ok := l.from[address]; !ok {
		l.list = append(l.list, address)
	}
	l.from[address] = from
}

// Remove unregisters an address; its number stays taken.
func (l *WatchList) Remove(address string) { delete(l.from, address) }

func (l *WatchList) Registered() uint64 { return uint64(len(l.list)) }

func (l *WatchList) Number(n uint64) (string, bool) {
	_, ok := l.from[l.list[n]]
	return l.list[n], ok
}

func (l *WatchList) From(address string) (uint64, bool) {
	from, ok := l.from[address]
	return from, ok
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
	Again  uint64              // blocks still to be looked at again, for addresses registered late or by Rescan
	Tip    ledger.HeightReport // to be attested: best block read; Ethereum: finalized
	Head   ledger.HeightReport // best block read
	Blocks map[uint64]string   // recent best chain, height → block hash

	Inflows []Seen
	Spends  []SeenSpend
	Fee     *ledger.FeeReport // nil: no opinion, for instance while behind
	Floats  []ledger.FloatFact
	Ignored []Ignored

	// Descendants is what the node's memory pool has built upon unconfirmed attempts,
	// fees in base units by batch (Bitcoin). A batch that is not in it: nothing is known.
	Descendants map[uint64]uint64
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
	// ErrBehind: the node shows less of the chain than it did before. Nothing is
	// forgotten for that; it has to catch up, or to show another branch.
	ErrBehind = errors.New("chain node fell back behind what it showed before")
	// ErrCursor: the stored cursor is not one of this chain.
	ErrCursor = errors.New("cursor is not readable")
	// ErrPicture: more open events than a follower keeps.
	ErrPicture = errors.New("too many open events")
	// ErrEndpoint: the node answered something that cannot be true of this chain.
	ErrEndpoint = errors.New("chain node's answer is not credible")

	// ErrNoBalance: what custody held at a block cannot be told, now or any more.
	ErrNoBalance = errors.New("custody at the block cannot be told")

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
