package ledger

import (
	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// An outflow is one thing owed to the outside world:
//
//	         Intent accepted (debt or supply moved, outflow created: one Apply)
//	                  │
//	                  ▼                 never planned: Cancel outflow, gates, 24 h
//	               QUEUED ────────────────────────────────────────────► REFUNDED
//	                  │ ▲                                                  ▲
//	tick: plan        │ │ binding+1 (may be paid again)                    │ refund
//	anchor, attempt 0 │ └──────────────────────────────┐                   │
//	                  ▼                                │                   │
//	┌────────────► PLANNED(k) ──tick: cancel──► CANCELLING(k) ──final,──► UNPAID_PROVEN
//	│ k+1: retry /    │  ▲                        │      not paying o       ▲
//	│ bump, reprice   │  │ Unmined                │ final, paying o         │
//	└─────────────────┤  │ (reorg < F)            ▼                         │
//	                  │  │                      PAID                        │
//	                  ▼  │                        ▲                         │
//	                MINED(j) ──final, paying o────┘                         │
//	                  └────────final, not paying o (revert, own other tx)───┘
//
//	any state but PAID, REFUNDED ──contradiction──► HOLD
//
// Signed and seen in a mempool are no states: what a node holds or sees
// changes nothing. There is no way back from PLANNED to QUEUED without proof,
// since a certificate may exist that the ledger cannot see (spec: outflows §2).
type OutflowState uint8

const (
	Queued       OutflowState = 1 // owed, never planned under this binding
	Planned      OutflowState = 2 // the newest attempt may be signed and broadcast
	Mined        OutflowState = 3 // the anchor is spent in the best chain, not final
	Cancelling   OutflowState = 4 // the newest attempt spends the anchor back to us
	Paid         OutflowState = 5 // the anchor's final spend pays it
	UnpaidProven OutflowState = 6 // the anchor's final spend does not pay it
	Refunded     OutflowState = 7 // the account has it back
	Hold         OutflowState = 8 // contradiction: nothing is signed, only a vote leaves it
)

func (s OutflowState) String() string {
	return [...]string{"", "QUEUED", "PLANNED", "MINED", "CANCELLING", "PAID", "UNPAID_PROVEN", "REFUNDED", "HOLD"}[s]
}

// outflowArrows are the arrows of the picture; every change of state goes
// through one of them.
var outflowArrows = map[OutflowState][]OutflowState{
	Queued:       {Planned, Refunded, Hold},
	Planned:      {Mined, Cancelling, Paid, UnpaidProven, Hold},
	Mined:        {Planned, Cancelling, Paid, UnpaidProven, Hold},
	Cancelling:   {Mined, Paid, UnpaidProven, Hold},
	UnpaidProven: {Queued, Refunded, Hold},
	Hold:         {Planned, Mined, Cancelling, Paid, UnpaidProven}, // by vote
}

// OutflowKind says why an outflow exists.
type OutflowKind uint8

const (
	OutflowBorrow   OutflowKind = 1
	OutflowWithdraw OutflowKind = 2
	OutflowRefund   OutflowKind = 3 // a claim from suspense
	OutflowSweep    OutflowKind = 4 // custody's own: a deposit address into the hot address
	OutflowGas      OutflowKind = 5 // custody's own: gas for a sweep
	OutflowRecoup   OutflowKind = 6 // custody's own: the minter pays the pool back what it fronted
	OutflowMerge    OutflowKind = 7 // custody's own: many small coins of a vault into few
)

func (k OutflowKind) String() string {
	return [...]string{"", "borrow", "withdraw", "refund", "sweep", "gas", "recoup", "merge"}[k]
}

// Outflow is one payment owed.
type Outflow struct {
	ID      uint64       `cbor:"1,keyasint"`
	Kind    OutflowKind  `cbor:"2,keyasint"`
	Account AccountID    `cbor:"3,keyasint"`  // empty for custody's own
	Asset   string       `cbor:"4,keyasint"`  // also the pool's id
	Gross   fixed.Int    `cbor:"5,keyasint"`  // what the account was debited
	MaxFee  fixed.Int    `cbor:"6,keyasint"`  // signed by the client, in the asset
	Fee     fixed.Int    `cbor:"7,keyasint"`  // fixed when planned
	Net     fixed.Int    `cbor:"8,keyasint"`  // Gross − Fee: what the chain sees
	To      string       `cbor:"9,keyasint"`  // canonical address on the asset's chain
	Minted  fixed.Int    `cbor:"10,keyasint"` // DebtShares minted for a borrow
	State   OutflowState `cbor:"11,keyasint"`
	Batch   uint64       `cbor:"12,keyasint"` // that pays it; 0: none yet
	Binding uint64       `cbor:"13,keyasint"` // counter of anchors given to it
	Created uint64       `cbor:"14,keyasint"` // ledger time, ms
	Closed  uint64       `cbor:"15,keyasint"` // ledger time of PAID or REFUNDED, ms
	TxID    string       `cbor:"16,keyasint"` // of the final spend
	From    string       `cbor:"17,keyasint"` // sweep: the swept address; else empty
	After   uint64       `cbor:"18,keyasint"` // outflow that must be MINED before this is planned (gas before sweep)
	Carries []string     `cbor:"19,keyasint"` // sweep: ids of the inflows it brings in
	Mapped  uint64       `cbor:"22,keyasint"` // Bitcoin: number of its address; 0: custody's own
	Boosted bool         `cbor:"21,keyasint"` // Bitcoin: fronted by the pool, in a batch (see BitcoinPool)
	Drew    uint64       `cbor:"23,keyasint"` // ledger time when it was last planned anew and drew on the caps; 0: never
	Heir    string       `cbor:"20,keyasint"` // Bitcoin, QUEUED again: the coin that must be its next anchor (spec: outflows §3.4)
}

// BatchKind says what its sessions make.
type BatchKind uint8

const (
	BatchPay     BatchKind = 1 // one transaction
	BatchKeygen  BatchKind = 2 // a new key
	BatchTest    BatchKind = 3 // a test signature of new KeyShares
	BatchReshare BatchKind = 4 // new KeyShares of a key
)

// Batch is the unit that becomes one transaction. All its attempts consume the
// same anchor, so at most one of them can ever confirm (spec: outflows §1).
type Batch struct {
	ID       uint64    `cbor:"1,keyasint"`
	Kind     BatchKind `cbor:"2,keyasint"`
	Chain    string    `cbor:"3,keyasint"`
	Key      string    `cbor:"4,keyasint"`
	Outflows []uint64  `cbor:"5,keyasint"`
	Anchor   string    `cbor:"6,keyasint"`  // Bitcoin "txid:vout"; Ethereum "address:sequence"; write-once
	Attempts []Attempt `cbor:"7,keyasint"`  // distinct transactions, ascending; of retries only the newest
	Spent    *Spend    `cbor:"8,keyasint"`  // how the anchor was last attested spent
	Done     bool      `cbor:"9,keyasint"`  // final, or given up for good
	Digest   Hash      `cbor:"10,keyasint"` // BatchTest: what is signed
	Tip      uint64    `cbor:"11,keyasint"` // attested height when the newest bytes were planned
	Vault    string    `cbor:"14,keyasint"` // Bitcoin: role of the vault whose coins it spends
	Planned  uint64    `cbor:"12,keyasint"` // ledger time of that, ms
	Held     HoldCause `cbor:"15,keyasint"` // why it is, or was, on HOLD; 0: it never was, or goes on
	HeldAt   uint64    `cbor:"18,keyasint"` // height of the block that Held is about
	Freed    bool      `cbor:"16,keyasint"` // of Held: its anchor was booked as gone
	Cancel   string    `cbor:"17,keyasint"` // a vote cancels it; what becomes of its outflows: VoteRefund or VoteRequeue
	Stuck    uint64    `cbor:"13,keyasint"` // ledger time since when a bump would exceed the cap, ms; 0: it would not
}

// Spend is an attested spend of a batch's anchor.
type Spend struct {
	Body   uint64 `cbor:"1,keyasint"`
	Height uint64 `cbor:"2,keyasint"`
	Block  string `cbor:"3,keyasint"`
}

// AttemptKind says how an attempt came about.
type AttemptKind uint8

const (
	AttemptFirst   AttemptKind = 1
	AttemptRetry   AttemptKind = 2 // same bytes, next committee
	AttemptBump    AttemptKind = 3 // dearer, after the chain's cadence
	AttemptReprice AttemptKind = 4 // at today's fee, which may be lower
	AttemptCancel  AttemptKind = 5 // the anchor back to ourselves
)

func (k AttemptKind) String() string {
	return [...]string{"", "first", "retry", "bump", "reprice", "cancel"}[k]
}

// Attempt is one planned transaction with those who are to sign it.
type Attempt struct {
	K        uint64      `cbor:"1,keyasint"`
	Kind     AttemptKind `cbor:"2,keyasint"`
	Height   uint64      `cbor:"3,keyasint"` // LogIndex that planned it
	At       Hash        `cbor:"4,keyasint"` // H_{Height−1}: its place in the hash chain
	Millis   uint64      `cbor:"5,keyasint"` // ledger time of the plan
	Deadline uint64      `cbor:"6,keyasint"` // ledger time
	Epoch    uint64      `cbor:"7,keyasint"`
	M        int         `cbor:"8,keyasint"`
	Roster   []MemberID  `cbor:"9,keyasint"`            // order in which committees are formed
	Gave     []MemberID  `cbor:"10,keyasint"`           // who attested GaveUp
	Try      uint64      `cbor:"11,keyasint"`           // KeyShare generation: (key, epoch, try)
	Body     uint64      `cbor:"14,keyasint"`           // counts distinct transactions: a retry keeps it
	Absurd   []MemberID  `cbor:"15,keyasint"`           // who finds its fee absurd, sorted
	Refused  []Refuser   `cbor:"16,keyasint"`           // who will not sign it, and why, sorted by member
	Dealers  []MemberID  `cbor:"17,keyasint,omitempty"` // BatchReshare: who deals from the present KeyShares, sorted
	Fresh    []MemberID  `cbor:"18,keyasint,omitempty"` // of the roster, who is in quarantine: no committee has two
	Bitcoin  *BitcoinTx  `cbor:"12,keyasint"`
	Ethereum *EthereumTx `cbor:"13,keyasint"`
}

// BitcoinTx fixes a Bitcoin transaction to the byte (signatures apart).
type BitcoinTx struct {
	Inputs   []BitcoinIn  `cbor:"1,keyasint"` // anchor first
	Outputs  []BitcoinOut `cbor:"2,keyasint"` // in outflow order, change last
	LockTime uint64       `cbor:"3,keyasint"`
	Rate     uint64       `cbor:"4,keyasint"` // sat/kvB
	Fee      uint64       `cbor:"5,keyasint"` // sats
}

// BitcoinIn is a P2WPKH coin of ours.
type BitcoinIn struct {
	Outpoint string       `cbor:"1,keyasint"`
	Sats     uint64       `cbor:"2,keyasint"`
	Pub      []byte       `cbor:"3,keyasint"` // compressed child key
	Path     address.Path `cbor:"4,keyasint"`
}

// BitcoinOut is one output. Outflow is 0 for change.
type BitcoinOut struct {
	Address string `cbor:"1,keyasint"`
	Sats    uint64 `cbor:"2,keyasint"`
	Outflow uint64 `cbor:"3,keyasint"`
	Heir    uint64 `cbor:"4,keyasint"` // of a cancel: the outflow whose next anchor this is
}

// EthereumTx fixes an EIP-1559 transaction.
type EthereumTx struct {
	ChainID  uint64       `cbor:"1,keyasint"`
	From     string       `cbor:"2,keyasint"`
	Pub      []byte       `cbor:"3,keyasint"`
	Path     address.Path `cbor:"4,keyasint"`
	Sequence uint64       `cbor:"5,keyasint"`
	To       string       `cbor:"6,keyasint"`
	Value    fixed.Int    `cbor:"7,keyasint"` // wei
	Data     []byte       `cbor:"8,keyasint"`
	Gas      uint64       `cbor:"9,keyasint"`
	FeeCap   uint64       `cbor:"10,keyasint"` // wei
	Tip      uint64       `cbor:"11,keyasint"` // wei
}

// Payment is what transaction bytes pay, as a chain adapter reads them.
type Payment struct {
	Asset  string
	To     string
	Amount fixed.Int
}
