package ledger

import (
	"crypto/ed25519"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// Command is one entry of the log: exactly one of the two.
type Command struct {
	Intent      *Intent      `cbor:"1,keyasint,omitempty"`
	Attestation *Attestation `cbor:"2,keyasint,omitempty"`
}

// Intent is what a client's wallet signed: the text is the command.
type Intent struct {
	Scheme    string         `cbor:"1,keyasint"`
	Text      string         `cbor:"2,keyasint"`
	Signature string         `cbor:"3,keyasint"` // as on the wire of the scheme
	Extras    address.Extras `cbor:"4,keyasint"`
	Co        *CoSignature   `cbor:"5,keyasint,omitempty"` // of the wallet to be linked, over the same text
}

// CoSignature is a second wallet's signature with the scheme it declares.
type CoSignature struct {
	Scheme    string         `cbor:"1,keyasint"`
	Signature string         `cbor:"2,keyasint"`
	Extras    address.Extras `cbor:"3,keyasint"`
}

// Kind names what an attestation says (spec: consensus §7).
type Kind uint8

const (
	KindClock       Kind = 1  // Clock: a rank of all seats
	KindPrice       Kind = 2  // []PriceReport: median
	KindFee         Kind = 3  // []FeeReport: median
	KindHeight      Kind = 4  // HeightReport: fact, FactQuorum
	KindInflow      Kind = 5  // InflowFact: fact, Q
	KindSpent       Kind = 6  // SpentFact: fact, Q
	KindUnmined     Kind = 7  // UnminedFact: fact, Q
	KindFinal       Kind = 8  // FinalFact: fact, Q
	KindFloat       Kind = 9  // FloatFact: fact, Q
	KindGaveUp      Kind = 10 // GaveUp: f+1
	KindFeeAbsurd   Kind = 11 // FeeAbsurd: f+1
	KindShareReady  Kind = 12 // ShareReady: every member of the new epoch
	KindTestSig     Kind = 13 // TestSig: every member of the new epoch
	KindFlip        Kind = 14 // Certificate: itself
	KindRepaySeen   Kind = 15 // RepaySeenFact: fact, FactQuorum
	KindReversed    Kind = 18 // ReversedFact: fact, Q
	KindDeepFork    Kind = 19 // DeepForkFact: fact, Q
	KindForeign     Kind = 24 // ForeignFact: fact, Q
	KindDescendants Kind = 22 // Descendants: median
	KindRefusal     Kind = 21 // Refusal: one member
	KindBalance     Kind = 20 // BalanceFact: fact, Q
	KindVote        Kind = 16 // Vote: as committee §9 says of its proposal
	KindPause       Kind = 17 // Pause: one member
	KindLeave       Kind = 23 // Leave: the member itself
	KindWiped       Kind = 27 // Wiped: every holder of an old generation
	KindBlame       Kind = 26 // Blame: f+1
	KindDrill       Kind = 25 // Drill: itself
)

// Attestation is a member's signed word.
type Attestation struct {
	Cluster Hash     `cbor:"1,keyasint"`
	Member  MemberID `cbor:"2,keyasint"`
	Seq     uint64   `cbor:"3,keyasint"` // from 1, strictly growing per seat
	Kind    Kind     `cbor:"4,keyasint"`
	Body    []byte   `cbor:"5,keyasint"` // canonical CBOR of the kind's type
	Sig     [64]byte `cbor:"6,keyasint"`
}

const attestationDomain = "coffer/attestation/1"

func (a Attestation) signed() []byte {
	return Marshal([]any{a.Cluster, a.Member, a.Seq, a.Kind, a.Body})
}

// NewAttestation signs body as key's member.
func NewAttestation(key ed25519.PrivateKey, cluster Hash, seq uint64, kind Kind, body any) *Attestation {
	a := &Attestation{
		Cluster: cluster, Member: MemberID(key.Public().(ed25519.PublicKey)),
		Seq: seq, Kind: kind, Body: Marshal(body),
	}
	a.Sig = Sign(key, attestationDomain, a.signed())
	return a
}

// check is the member's signature, to be judged.
func (a Attestation) check() SignatureCheck {
	return SignatureCheck{
		Scheme: schemeMember, Address: string(a.Member[:]), Message: append([]byte(attestationDomain), a.signed()...), Signature: string(a.Sig[:]),
	}
}

// Clock is a member's clock, Unix milliseconds.
type Clock struct {
	Millis uint64 `cbor:"1,keyasint"`
}

// PriceReport is one member's median of its venues for one oracle round.
type PriceReport struct {
	Asset    string    `cbor:"1,keyasint"`
	Round    uint64    `cbor:"2,keyasint"`
	Price    fixed.Int `cbor:"3,keyasint"` // USD · 10⁸
	Observed uint64    `cbor:"4,keyasint"` // ledger time, ms, not later than the member has seen
}

// FeeReport is one member's estimate of a chain's fees.
type FeeReport struct {
	Chain  string `cbor:"1,keyasint"`
	Rate   uint64 `cbor:"2,keyasint"`
	Tip    uint64 `cbor:"3,keyasint"`
	Millis uint64 `cbor:"4,keyasint"` // ledger time when it arrived; 0 in the attestation
}

// HeightReport is a member's best block of a chain (Ethereum: finalized).
type HeightReport struct {
	Chain  string `cbor:"1,keyasint"`
	Height uint64 `cbor:"2,keyasint"`
	Hash   string `cbor:"3,keyasint"`
}

// InflowFact says that a transaction paid an address of ours.
type InflowFact struct {
	Chain   string    `cbor:"1,keyasint"`
	ID      string    `cbor:"2,keyasint"`
	Address string    `cbor:"3,keyasint"`
	Asset   string    `cbor:"4,keyasint"`
	Amount  fixed.Int `cbor:"5,keyasint"`
	Height  uint64    `cbor:"6,keyasint"`
	Block   string    `cbor:"7,keyasint"`
}

// SpentFact says that the anchor of a batch is spent in the best chain by the
// payload of an attempt, or by something the ledger never planned (Foreign). It
// names the transaction, not the attempt: retries of one share their bytes, and
// members whose replicas differ by a retry must still say the same.
type SpentFact struct {
	Batch   uint64 `cbor:"1,keyasint"`
	Body    uint64 `cbor:"2,keyasint"` // which of the batch's transactions
	Foreign bool   `cbor:"3,keyasint"`
	Height  uint64 `cbor:"4,keyasint"`
	Block   string `cbor:"5,keyasint"`
}

// UnminedFact says that a block left the best chain.
type UnminedFact struct {
	Batch uint64 `cbor:"1,keyasint"`
	Block string `cbor:"2,keyasint"`
}

// Outcome of an anchor's final spend.
type Outcome uint8

const (
	OutcomePaid     Outcome = 1 // the outflows of the batch are paid
	OutcomeSelf     Outcome = 2 // our own cancel
	OutcomeReverted Outcome = 3 // executed and failed: sequence and gas are gone
	OutcomeUnclear  Outcome = 4 // success without the expected effect: HOLD
)

// FinalFact says how the anchor of a batch was finally spent.
type FinalFact struct {
	Batch   uint64    `cbor:"1,keyasint"`
	Body    uint64    `cbor:"2,keyasint"` // which of the batch's transactions
	Outcome Outcome   `cbor:"3,keyasint"`
	TxID    string    `cbor:"4,keyasint"`
	Fee     fixed.Int `cbor:"5,keyasint"` // what the chain took, base units of its native asset
	Height  uint64    `cbor:"6,keyasint"`
	Block   string    `cbor:"7,keyasint"`
}

// ReversedFact says that the block from which a deposit was counted left the best
// chain and that the deposit is in no other.
type ReversedFact struct {
	ID    string `cbor:"1,keyasint"`
	Block string `cbor:"2,keyasint"`
}

// DeepForkFact says that a chain's best branch leaves the one that was final.
type DeepForkFact struct {
	Chain string `cbor:"1,keyasint"`
}

// ForeignFact says that a final transaction that was never planned consumed a
// coin, or a sequence, of ours.
type ForeignFact struct {
	Chain    string `cbor:"1,keyasint"`
	Resource string `cbor:"2,keyasint"` // as anchors are named
	TxID     string `cbor:"3,keyasint"`
	Height   uint64 `cbor:"4,keyasint"`
	Block    string `cbor:"5,keyasint"`
}

// FloatFact says that a vault address held this much of the native asset at a
// final height, when its genesis float was looked for.
type FloatFact struct {
	Chain   string    `cbor:"1,keyasint"`
	Address string    `cbor:"2,keyasint"`
	Amount  fixed.Int `cbor:"3,keyasint"`
}

// GaveUp says that a member cannot sign an attempt any more.
type GaveUp struct {
	Batch   uint64     `cbor:"1,keyasint"`
	Attempt uint64     `cbor:"2,keyasint"`
	Blamed  []MemberID `cbor:"3,keyasint"` // sorted; a hint, never proof
}

// FeeAbsurd says that a member's own estimate is more than threefold away from
// what a transaction pays.
type FeeAbsurd struct {
	Batch uint64 `cbor:"1,keyasint"`
	Body  uint64 `cbor:"2,keyasint"` // which of the batch's transactions
}

// ShareReady says that a member has staged its KeyShare, read it back and
// decrypted it.
type ShareReady struct {
	Key        string `cbor:"1,keyasint"`
	Epoch      uint64 `cbor:"2,keyasint"`
	Try        uint64 `cbor:"3,keyasint"`
	Pub        []byte `cbor:"4,keyasint"`
	Transcript Hash   `cbor:"5,keyasint"`
}

// TestSig is a test signature that a member has verified.
type TestSig struct {
	Batch     uint64 `cbor:"1,keyasint"`
	Signature []byte `cbor:"2,keyasint"` // r‖s, or Ed25519's 64 bytes
}
