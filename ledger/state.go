package ledger

import (
	"errors"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// State is the whole replicated ledger. Apply alone changes it; whoever else
// holds one holds a view that nobody changes (see View).
//
// Every field is in the snapshot and under the state root, so two replicas
// that applied the same commands are equal byte by byte.
type State struct {
	Version uint64  `cbor:"1,keyasint"` // of the ledger's rules; changed by vote
	Genesis Genesis `cbor:"2,keyasint"`
	Cluster Hash    `cbor:"3,keyasint"` // SHA-256 of the genesis: H_0

	Height     uint64 `cbor:"4,keyasint"` // commands applied since genesis
	Head       Hash   `cbor:"5,keyasint"` // H_Height
	RootHeight uint64 `cbor:"6,keyasint"` // last height that folded a root
	Root       Hash   `cbor:"7,keyasint"`

	Millis uint64                  `cbor:"8,keyasint"` // ledger time, Unix milliseconds
	Raw    uint64                  `cbor:"9,keyasint"` // where ledger time is heading (spec: consensus §7)
	Seats  table[string, Seat]     `cbor:"10,keyasint"`
	Prices table[string, Price]    `cbor:"11,keyasint"` // by asset
	Rates  table[string, FeeRate]  `cbor:"12,keyasint"` // by chain
	Tips   table[string, ChainTip] `cbor:"13,keyasint"` // by chain
	Tally  table[string, Tally]    `cbor:"14,keyasint"` // open facts, by hash of the fact

	Pools    Pools                    `cbor:"15,keyasint"` // by pool id, which is the asset id
	Accounts Accounts                 `cbor:"16,keyasint"`
	Suspense table[string, Suspended] `cbor:"17,keyasint"` // "account/asset"
	Inflows  table[string, Inflow]    `cbor:"18,keyasint"` // counted ones, by id
	Watched  Watches                  `cbor:"19,keyasint"` // "chain/address" of ours

	Outflows     Outflows             `cbor:"20,keyasint"`
	Batches      table[uint64, Batch] `cbor:"21,keyasint"`
	NextOutflow  uint64               `cbor:"22,keyasint"`
	NextBatch    uint64               `cbor:"23,keyasint"`
	Coins        table[string, Coin]  `cbor:"24,keyasint"` // Bitcoin outputs of ours, by outpoint
	Senders      Senders              `cbor:"25,keyasint"` // Ethereum accounts of ours that sent or hold something, and the vaults, by address
	OutflowsHalt string               `cbor:"26,keyasint"` // why nothing may be signed; empty: nothing halts it

	Keys    table[string, Key] `cbor:"27,keyasint"` // by key id
	Epochs  []Epoch            `cbor:"28,keyasint"` // in force or past, ascending; the last is in force
	Opening *Opening           `cbor:"29,keyasint"` // the next epoch between opening and flip
	Next    *NextEpoch         `cbor:"30,keyasint"` // being prepared: keygen or resharing, test signatures
	Flips   []Certificate      `cbor:"31,keyasint"` // one per epoch put in force, for ever

	Changes    []SeatChange              `cbor:"72,keyasint"` // of the committee: decided and not begun, oldest first
	Quarantine table[string, uint64]     `cbor:"73,keyasint"` // members that took their seat lately, with the ledger time when their quarantine ends, ms
	Infos      table[uint64, EpochInfo]  `cbor:"74,keyasint"` // by epoch number, from the first with keys
	LastEpoch  uint64                    `cbor:"75,keyasint"` // highest epoch number ever planned: none is used twice
	Wiped      table[string, []MemberID] `cbor:"76,keyasint"` // by generation of KeyShares: who said that it destroyed its own, sorted
	Dropped    []Dropped                 `cbor:"77,keyasint"` // the last 16 epoch numbers that led to nothing, oldest first
	Blamed     table[string, Culprit]    `cbor:"78,keyasint"` // members against whom something was proven (blame.go)

	LastTick  uint64 `cbor:"32,keyasint"` // the 15 s multiple of the last accrual
	Catching  bool   `cbor:"33,keyasint"` // ledger time lags: no Intents, no plans
	BorrowOff bool   `cbor:"34,keyasint"` // global BorrowDisabled flag

	Queue   table[uint64, uint64]   `cbor:"35,keyasint"` // QUEUED outflows, with their ledger time: what the tick plans
	Live    table[uint64, uint64]   `cbor:"36,keyasint"` // batches not done, with the LogIndex of their newest attempt
	Waiting table[string, []string] `cbor:"37,keyasint"` // "address/asset": inflows to be swept, ascending ids

	PlannedAt uint64 `cbor:"38,keyasint"` // last height that planned an attempt: to be approved at once

	Params Params `cbor:"39,keyasint"` // in force: the genesis' until a vote changes them

	Rounds      table[string, Rounds]    `cbor:"80,keyasint"` // what is kept of closed oracle rounds, by asset
	LastInsured uint64                   `cbor:"50,keyasint"` // the insurance mark of the last sweep (see sweepInsurance)
	Dips        table[AccountID, Dip]    `cbor:"51,keyasint"` // accounts below HF 1 at the last evaluation
	Seen        table[string, SeenRepay] `cbor:"52,keyasint"` // repayments on their way, by inflow id

	Linked     table[string, AccountID]  `cbor:"40,keyasint"` // wallets beside an account's first one, CAIP-10
	Payouts    table[AccountID, Payouts] `cbor:"41,keyasint"` // of accounts that said where coins may go
	Loans      table[AccountID, Loan]    `cbor:"42,keyasint"` // simple loans
	LoansReady table[AccountID, uint64]  `cbor:"43,keyasint"` // those that hold coins and are not settled, with the end of their window

	Idle      table[string, AccountID] `cbor:"44,keyasint"` // accounts never credited, by their last activity (prune.go)
	IdleLoans table[string, AccountID] `cbor:"45,keyasint"` // simple loans never credited, by the end of their window
	Two       BitcoinPool              `cbor:"91,keyasint"` // the book of the second tier of Bitcoin payouts
	Marks     table[string, uint64]    `cbor:"92,keyasint"` // by task: the multiple of its interval at which it last ran
	Mapped    table[string, uint64]    `cbor:"94,keyasint"` // Bitcoin addresses ever paid, by their number from 1 (spec: outflows S4)
	MappedTo  table[uint64, string]    `cbor:"66,keyasint"` // the same the other way round
	Recent    table[string, string]    `cbor:"93,keyasint"` // "chain/height/id" of counted deposits whose block may still be undone, with its hash

	Ballots       table[string, Ballot]      `cbor:"60,keyasint"` // open proposals, by their hash
	ParamsVersion uint64                     `cbor:"61,keyasint"` // grows with every vote that took effect
	Pauses        table[string, MemberPause] `cbor:"62,keyasint"` // by member
	Lowered       table[string, uint64]      `cbor:"63,keyasint"` // "pool/name": ledger time when it last fell by vote, ms
	Decided       []Decided                  `cbor:"64,keyasint"` // the last 32 proposals that are over, oldest first

	Buckets  table[string, Buckets]  `cbor:"68,keyasint"` // by asset: what was drawn of its outflow caps
	Draws    table[string, Draw]     `cbor:"69,keyasint"` // by asset, ledger time and id: payouts planned lately
	Solvency table[string, Solvency] `cbor:"46,keyasint"` // by asset (solvency.go)
	Moves    table[string, Move]     `cbor:"67,keyasint"` // "asset/height": what recent facts about that height did to the books
	OnHold   table[uint64, uint64]   `cbor:"97,keyasint"` // batches with an outflow on HOLD, with the ledger time since when

	Wanted     table[string, WantedCoin]       `cbor:"70,keyasint"` // coins that votes let in, by outpoint
	Children   table[uint64, []DescendantWord] `cbor:"95,keyasint"` // by open Bitcoin batch: what members see built upon it (descendants.go)
	VaultCoins table[string, uint64]           `cbor:"71,keyasint"` // our own outputs at vaults, with their height, for two weeks of blocks
	CoinsIn    uint64                          `cbor:"79,keyasint"` // coins that ever came from outside: the last one's Number

	frozen bool // readers share it; nobody writes to it

	vaultKeys map[string]string // "chain/role" → key in Watched; never written to, only replaced
}

// AccountID is 32 lower-case hex digits (spec: requests §1.2).
type AccountID = string

// Seat is what the ledger heard from one member.
type Seat struct {
	Seq     uint64         `cbor:"1,keyasint"` // highest attestation number
	Millis  uint64         `cbor:"2,keyasint"` // last attested clock; 0: never
	Heard   uint64         `cbor:"3,keyasint"` // ledger time of that
	Raised  uint64         `cbor:"4,keyasint"` // open tallies first raised by it
	Reports []PriceReport  `cbor:"5,keyasint"` // newest per asset, sorted by asset
	Fees    []FeeReport    `cbor:"6,keyasint"` // newest per chain, sorted by chain
	Heights []HeightReport `cbor:"7,keyasint"` // newest per chain, sorted by chain
}

// Price is a closed oracle round of one asset, USD · 10⁸ per whole token.
type Price struct {
	Low     fixed.Int `cbor:"1,keyasint"` // lower middle: what collateral is worth
	High    fixed.Int `cbor:"2,keyasint"` // upper middle: what debt weighs
	Millis  uint64    `cbor:"3,keyasint"` // ledger time when it closed
	Round   uint64    `cbor:"4,keyasint"`
	Suspect uint64    `cbor:"5,keyasint"` // ledger time since when; 0: not suspect (spec: lending §12.4)
	SusLow  fixed.Int `cbor:"6,keyasint"` // the price before it became suspect
	SusHigh fixed.Int `cbor:"7,keyasint"`

	JumpMillis uint64    `cbor:"10,keyasint"` // ledger time of the newest jump while suspect
	JumpLow    fixed.Int `cbor:"11,keyasint"` // what it jumped to: what a later round must confirm
	JumpHigh   fixed.Int `cbor:"12,keyasint"`
	TWAP       fixed.Int `cbor:"13,keyasint"` // of the 30 minutes before it closed; 0: none yet (spec: lending §12.5)
	Alert      uint64    `cbor:"14,keyasint"` // ledger time since when it is far from TWAP; 0: it is not
}

// FeeRate is the agreed price of a chain's block space. Bitcoin: Rate in
// sat/kvB. Ethereum: Rate is the base fee and Tip the priority fee, in wei.
type FeeRate struct {
	Rate       uint64 `cbor:"1,keyasint"`
	Tip        uint64 `cbor:"2,keyasint"`
	Millis     uint64 `cbor:"3,keyasint"`
	BaseRate   uint64 `cbor:"4,keyasint"` // Rate when the window began; it may double or halve per window
	BaseTip    uint64 `cbor:"5,keyasint"`
	BaseMillis uint64 `cbor:"6,keyasint"`
}

// ChainTip is the largest height that a FactQuorum attested.
type ChainTip struct {
	Height uint64 `cbor:"1,keyasint"`
	Millis uint64 `cbor:"2,keyasint"` // ledger time when it was reached
}

// Tally is a fact on its way to a quorum.
type Tally struct {
	Kind    Kind       `cbor:"1,keyasint"`
	First   MemberID   `cbor:"2,keyasint"`
	Members []MemberID `cbor:"3,keyasint"` // sorted
	Height  uint64     `cbor:"4,keyasint"` // LogIndex when raised
}

// Purpose says what coins that arrive at an address of ours are for.
type Purpose uint8

const (
	PurposeSupply Purpose = 1
	PurposeRepay  Purpose = 2
	PurposeVault  Purpose = 3 // a vault's own address: change, sweeps, floats
)

// Watch is an address of ours that chain followers look for.
type Watch struct {
	Chain   string       `cbor:"1,keyasint"`
	Address string       `cbor:"2,keyasint"` // canonical text of the chain
	Path    address.Path `cbor:"3,keyasint"`
	Key     string       `cbor:"4,keyasint"`
	Pub     []byte       `cbor:"5,keyasint"` // compressed child public key
	Account AccountID    `cbor:"6,keyasint"` // empty for vaults
	Purpose Purpose      `cbor:"7,keyasint"`
	From    uint64       `cbor:"8,keyasint"` // chain height from which it is effective
}

// Inflow is a deposit that a quorum attested.
type Inflow struct {
	ID      string      `cbor:"1,keyasint"` // Bitcoin "txid:vout"; Ethereum "txhash:logindex", of its native coin "address@height"
	Chain   string      `cbor:"2,keyasint"`
	Asset   string      `cbor:"3,keyasint"`
	Address string      `cbor:"4,keyasint"`
	Account AccountID   `cbor:"5,keyasint"`
	Purpose Purpose     `cbor:"6,keyasint"`
	Amount  fixed.Int   `cbor:"7,keyasint"`
	Height  uint64      `cbor:"8,keyasint"` // of its block
	State   InflowState `cbor:"9,keyasint"`
	Outflow uint64      `cbor:"10,keyasint"` // the sweep that carries it; 0: none
	Reason  string      `cbor:"11,keyasint"` // why it is in suspense
	Millis  uint64      `cbor:"12,keyasint"` // ledger time when it counted
	Reverts uint64      `cbor:"13,keyasint"` // sweeps that carried it and moved nothing
}

// InflowState is where a counted inflow stands.
type InflowState uint8

const (
	InflowWaiting  InflowState = 1 // attested; to be swept before it is credited
	InflowSweeping InflowState = 2 // a sweep is planned for it
	InflowCredited InflowState = 3
	InflowSuspense InflowState = 4 // claimable
	InflowSmall    InflowState = 5 // below min_coin: worth less than its spending
	InflowUndone   InflowState = 7 // its block was undone, and what it gave taken back: it counts again if it comes back
	InflowHeld     InflowState = 6 // its own sweep reverted twice: what was attested is not there; a vote decides
)

// Suspended is what an account may claim of one asset.
type Suspended struct {
	Amount fixed.Int `cbor:"1,keyasint"`
	Reason string    `cbor:"2,keyasint"`
}

// Coin is a Bitcoin output under the pool key.
type Coin struct {
	Outpoint string    `cbor:"1,keyasint"` // "txid:vout"
	Sats     uint64    `cbor:"2,keyasint"`
	Address  string    `cbor:"3,keyasint"`
	Height   uint64    `cbor:"4,keyasint"` // of its block; 0: unconfirmed change
	State    CoinState `cbor:"5,keyasint"`
	Batch    uint64    `cbor:"6,keyasint"` // that froze it
	Frozen   uint64    `cbor:"7,keyasint"` // ledger time when it was frozen
	Heir     uint64    `cbor:"8,keyasint"` // CoinHeir: the outflow that is paid from it or not at all
	Number   uint64    `cbor:"9,keyasint"` // the how-manieth that came from outside, from 1; 0: an output of a transaction of ours
}

// CoinState of spec outflows §6.2 I4.
type CoinState uint8

const (
	CoinAvailable CoinState = 1
	CoinFrozen    CoinState = 2
	CoinSuspended CoinState = 3
	CoinSpent     CoinState = 4 // by a final transaction of ours, before its deposit counts again; not in custody
	CoinReusable  CoinState = 6 // of transactions that may still confirm, and never an anchor (spec: outflows §3.7)
	CoinHeir      CoinState = 5 // kept as the next anchor of an outflow that was proven unpaid
)

// Sender is an Ethereum account of ours. The ledger owns its sequence: it is
// assigned at plan, strictly contiguous, never re-read from a node.
type Sender struct {
	Address string    `cbor:"1,keyasint"`
	Next    uint64    `cbor:"2,keyasint"` // sequence of the next transaction
	Open    uint64    `cbor:"3,keyasint"` // batches in flight
	Float   fixed.Int `cbor:"4,keyasint"` // wei for gas: of a vault the operators', of a deposit address what was sent for its sweeps
	Booked  bool      `cbor:"5,keyasint"` // the genesis float has arrived
	Due     fixed.Int `cbor:"6,keyasint"` // wei spent beyond Float, until the facts that bring it are counted

	// Deposit addresses only, in wei, since genesis (native.go).
	Received fixed.Int `cbor:"7,keyasint"`  // native deposits that counted
	Unswept  fixed.Int `cbor:"8,keyasint"`  // of Received what is still there, the pool's
	Gas      fixed.Int `cbor:"9,keyasint"`  // brought by final gas transfers of ours
	Spent    fixed.Int `cbor:"10,keyasint"` // taken by its own final transactions, value and fee
	Settled  uint64    `cbor:"11,keyasint"` // height of the newest of all these
	GasOpen  uint64    `cbor:"12,keyasint"` // gas transfers to it that are not final
}

// Senders has no row for an account's address before it first does something:
// there are two for every account.
type Senders struct{ table[string, Sender] }

func (t *Senders) at(address string) Sender {
	s, _ := t.get(address)
	s.Address = address
	return s
}

// Key is one master key of the cluster.
type Key struct {
	ID    string `cbor:"1,keyasint"`
	Curve string `cbor:"2,keyasint"` // "secp256k1" or "ed25519"
	Pub   []byte `cbor:"3,keyasint"` // compressed; empty until generated
	Epoch uint64 `cbor:"4,keyasint"` // whose KeyShares sign
	Try   uint64 `cbor:"5,keyasint"` // attempt of the keygen or resharing that made them
}

// Opening is an epoch whose conditions are met and whose flip certificate is
// not in the log yet. Nothing is planned meanwhile (spec: consensus R7).
type Opening struct {
	Height uint64 `cbor:"1,keyasint"`
	Head   Hash   `cbor:"2,keyasint"` // filled when the head of Height is known
	Root   Hash   `cbor:"3,keyasint"`
	Epoch  Epoch  `cbor:"4,keyasint"`
}

// NextEpoch is the plan for new KeyShares.
type NextEpoch struct {
	Epoch    Epoch       `cbor:"1,keyasint"`
	Keys     []NextKey   `cbor:"2,keyasint"` // sorted by key id
	Kind     NextKind    `cbor:"3,keyasint"`
	Began    uint64      `cbor:"4,keyasint"`           // ledger time, ms
	Deadline uint64      `cbor:"5,keyasint"`           // resharing: ledger time when it is dropped, ms
	Change   *SeatChange `cbor:"6,keyasint,omitempty"` // what it is for; of a keygen nothing
}

// NextKey is what is known of one key's new generation.
type NextKey struct {
	Key        string     `cbor:"1,keyasint"`
	Batch      uint64     `cbor:"2,keyasint"` // of its sessions; attempt = try
	Try        uint64     `cbor:"3,keyasint"`
	Pub        []byte     `cbor:"4,keyasint"`
	Transcript Hash       `cbor:"5,keyasint"`
	Ready      []MemberID `cbor:"6,keyasint"` // ShareReady heard from, sorted
	Tests      []uint64   `cbor:"7,keyasint"` // batches of its test signatures
	Tested     []TestSeen `cbor:"8,keyasint"`
	Epoch      uint64     `cbor:"9,keyasint"`  // of the generation: this epoch's number, but of a rollback an older one
	Blamed     []MemberID `cbor:"10,keyasint"` // named by members that gave up a try, sorted
}

// TestSeen records who attested one test signature.
type TestSeen struct {
	Batch   uint64     `cbor:"1,keyasint"`
	Members []MemberID `cbor:"2,keyasint"`
}

// Time is ledger time in whole seconds, rounded down: the clock of lending.
func (s *State) Time() uint64 { return s.Millis / 1000 }

// Epoch is the epoch in force.
func (s *State) Epoch() Epoch { return s.Epochs[len(s.Epochs)-1] }

// epochNumber returns the epoch e, in force or past.
func (s *State) epochNumber(e uint64) (Epoch, bool) {
	for i := len(s.Epochs) - 1; i >= 0; i-- {
		if s.Epochs[i].Number == e {
			return s.Epochs[i], true
		}
	}
	return Epoch{}, false
}

// clusterName is Genesis.ClusterName without hashing the genesis again.
// ClusterName is what requests name this cluster by, as Genesis.ClusterName
// works it out from the genesis each time.
func (s *State) ClusterName() string { return s.Genesis.Name + "/" + s.Cluster.String()[:32] }

// View returns a copy that stays as it is while s goes on. Constant time.
func (s *State) View() *State {
	if !s.frozen { // or it was shared when it was made, and others may be reading the marks
		s.share()
	}
	v := *s
	v.frozen, v.Accounts.busy = false, false
	if s.Opening != nil {
		o := *s.Opening
		v.Opening = &o // close writes to it
	}
	return &v
}

// share marks every table, after which s may be copied by assignment: whichever is
// written to parts from the others, table by table. Next and the lists are
// replaced, never written to.
func (s *State) share() {
	s.Pools.share()
	s.Accounts.share()
	s.Watched.share()
	s.Outflows.share()
	s.Senders.share()
	s.Seats.share()
	s.Prices.share()
	s.Rates.share()
	s.Tips.share()
	s.Tally.share()
	s.Suspense.share()
	s.Inflows.share()
	s.Batches.share()
	s.Coins.share()
	s.Keys.share()
	s.Ballots.share()
	s.Pauses.share()
	s.Lowered.share()
	s.Quarantine.share()
	s.Infos.share()
	s.Wiped.share()
	s.Blamed.share()
	s.Queue.share()
	s.Live.share()
	s.Waiting.share()
	s.Rounds.share()
	s.Marks.share()
	s.Recent.share()
	s.Mapped.share()
	s.MappedTo.share()
	s.Dips.share()
	s.Seen.share()
	s.Linked.share()
	s.Payouts.share()
	s.Loans.share()
	s.LoansReady.share()
	s.Idle.share()
	s.IdleLoans.share()
	s.Wanted.share()
	s.VaultCoins.share()
	s.Buckets.share()
	s.Draws.share()
	s.Solvency.share()
	s.Moves.share()
	s.OnHold.share()
	s.Children.share()
}

// Frozen returns a View for any number of concurrent readers, who may take
// Views of it. Whoever writes to it writes to what others read.
func (s *State) Frozen() *State {
	v := s.View()
	v.frozen = true
	return v
}

// admit checks a state from elsewhere and makes ready what is not in it.
func (s *State) admit() error {
	if s.Genesis.Hash() != s.Cluster || len(s.Epochs) == 0 {
		return errors.New("not of its own genesis")
	}
	s.findVaults()
	if err := s.Check(); err != nil {
		return err
	}
	s.markAll()
	return nil
}
