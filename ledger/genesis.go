package ledger

import (
	"crypto/sha256"

	"github.com/coffer-network/coffer/ledger/fixed"
)

// Genesis is what every member must hold alike: its SHA-256 is H_0 and the
// cluster's identity in everything members sign. What may change later changes
// by vote; the genesis itself stays in the state for ever.
type Genesis struct {
	Version uint64       `cbor:"1,keyasint"` // of this format
	Name    string       `cbor:"2,keyasint"` // [a-z0-9-]{1,24}
	Brand   string       `cbor:"3,keyasint"` // first words of every request text
	Millis  uint64       `cbor:"4,keyasint"` // where ledger time starts
	Epoch   Epoch        `cbor:"5,keyasint"` // epoch 0: members without keys
	Chains  []ChainParam `cbor:"6,keyasint"` // sorted by name
	Assets  []AssetParam `cbor:"7,keyasint"` // sorted by id
	Pools   []PoolParam  `cbor:"8,keyasint"` // sorted by asset
	Params  Params       `cbor:"9,keyasint"`
	// Wallets are CAIP-2 ids of chains without coins here, whose wallets may sign
	// requests all the same; sorted, and none of Chains.
	Wallets []string `cbor:"10,keyasint,omitempty"`
}

// ChainParam describes one chain. Name is the word of derivation paths.
type ChainParam struct {
	Name         string    `cbor:"1,keyasint"`  // "btc", "eth"
	CAIP2        string    `cbor:"2,keyasint"`  // "bip122:0f91…", "eip155:1337"
	Start        uint64    `cbor:"3,keyasint"`  // height from which followers read
	Final        uint64    `cbor:"4,keyasint"`  // F in blocks; 0: the chain says itself what is final
	Sweep        uint64    `cbor:"5,keyasint"`  // depth at which a deposit to be swept counts
	MinRate      uint64    `cbor:"6,keyasint"`  // fee floor: sat/kvB, or base fee in wei
	MaxRate      uint64    `cbor:"7,keyasint"`  // fee cap: sat/kvB, or fee cap in wei
	MinTip       uint64    `cbor:"8,keyasint"`  // wei
	Float        fixed.Int `cbor:"11,keyasint"` // base units that genesis books on each of hot and gas when they arrive
	BlockSubsidy uint64    `cbor:"12,keyasint"` // sats: subsidy and fees in the confirmation rule
}

// AssetParam describes one asset. Native assets have an empty Token.
type AssetParam struct {
	ID       string `cbor:"1,keyasint"` // "btc", "eth", "usdt.eth"
	Symbol   string `cbor:"2,keyasint"`
	Decimals uint8  `cbor:"3,keyasint"`
	Chain    string `cbor:"4,keyasint"`
	Token    string `cbor:"5,keyasint"` // ERC-20 contract, EIP-55
	Gas      uint64 `cbor:"6,keyasint"` // gas limit of a payout or sweep
	Stable   bool   `cbor:"7,keyasint"` // as collateral worth at most 1 USD
}

// Params are the parameters that are not of one pool, chain or asset.
type Params struct {
	PresenceMillis        uint64 `cbor:"1,keyasint"` // a clock older than this ranks its member last
	AttemptMillis         uint64 `cbor:"2,keyasint"` // AttemptDeadline of signing §10
	FeeMaxAgeMillis       uint64 `cbor:"3,keyasint"`
	PriceMaxAge           uint64 `cbor:"4,keyasint"`  // seconds, borrow and withdraw with debt
	LiquidationAge        uint64 `cbor:"5,keyasint"`  // seconds
	RoundSeconds          uint64 `cbor:"6,keyasint"`  // of the oracle
	DeviationBps          uint64 `cbor:"7,keyasint"`  // of one round, beyond which a price is suspect
	ExpirySeconds         uint64 `cbor:"8,keyasint"`  // how far ahead a request may expire
	QueueSeconds          uint64 `cbor:"9,keyasint"`  // limit in QUEUED
	MinCoin               uint64 `cbor:"10,keyasint"` // sats
	SweepMultiple         uint64 `cbor:"11,keyasint"` // sweep when worth this many times its cost
	AllowNoFaultTolerance bool   `cbor:"12,keyasint"`
	TWAPAlertBps          uint64 `cbor:"37,keyasint"` // distance from the 30-minute average that is an alert; 0: none
	PayoutDelaySeconds    uint64 `cbor:"13,keyasint"` // until a listed payout address may be paid, and until the list ends
	LoanWindowSeconds     uint64 `cbor:"14,keyasint"` // for the collateral of a simple loan to come in
	LoanSlippageBps       uint64 `cbor:"15,keyasint"` // by which its LTV may exceed the one at signing

	EIP712 bool `cbor:"30,keyasint"` // whether requests may be signed by that scheme (spec: requests §2)

	// The policy layer (spec: lending §8.4). The zero value of each is off: the
	// operation alone.
	FirstDipSeconds  uint64      `cbor:"20,keyasint"` // most that a first dip below HF 1 is spared; 0 or 15 to 60
	RepayGraceSec    uint64      `cbor:"21,keyasint"` // how long a repayment on its way protects its amount; at most 3600
	NotClosing       bool        `cbor:"22,keyasint"` // a liquidation that would lower HF must clear a leg
	FreezeDeficitBps uint64      `cbor:"23,keyasint"` // Deficit beyond this share of the claims freezes a pool
	TargetHF         fixed.Int   `cbor:"24,keyasint"` // WAD: a liquidation repays no more than leads there; 0 or at least 1
	OnePrice         bool        `cbor:"25,keyasint"` // debt too is weighed at the lower middle (two prices: off)
	UnfinalCounts    bool        `cbor:"26,keyasint"` // supply below finality is collateral (final collateral: off)
	LiquidatorSec    uint64      `cbor:"27,keyasint"` // for so long a liquidator's outflows pass gates at every plan (spec: outflows R-12)
	InsuranceBps     uint64      `cbor:"28,keyasint"` // of reserve-factor income, swept to the insurance account
	Insurance        []AccountID `cbor:"29,keyasint"` // may cover deficits; the first earns the sweep. At most MaxInsurance

	BoostSeconds uint64 `cbor:"40,keyasint"` // between two rounds of boosted Bitcoin payouts (spec: outflows W4)
	BlameSeconds uint64 `cbor:"41,keyasint"` // since something was proven against it a member stands last in rosters (spec: signing §10)

	// How long what was voted waits before it takes effect, so that users can
	// leave (spec: committee §9). Fixed by genesis: a test network may do with
	// seconds.
	LiftSeconds      uint64 `cbor:"31,keyasint"` // unfreezing, borrowing on, lifting a halt
	SetSeconds       uint64 `cbor:"32,keyasint"` // caps up, ratios up, rates, fees
	LowerSeconds     uint64 `cbor:"33,keyasint"` // LTV or LiquidationThreshold down
	StepSeconds      uint64 `cbor:"34,keyasint"` // between two steps down of 100 bps
	SocialiseSeconds uint64 `cbor:"35,keyasint"` // between its two votes, and after the second
	ProposalSeconds  uint64 `cbor:"36,keyasint"` // after which an open proposal expires

	// How the committee changes (spec: committee §3.2, §3.4, §4).
	AdmitSeconds    uint64 `cbor:"50,keyasint"` // first quarantine: from admission to the resharing
	SeatSeconds     uint64 `cbor:"51,keyasint"` // second quarantine: from the flip
	ReshareSeconds  uint64 `cbor:"52,keyasint"` // deadline of a resharing
	TrySeconds      uint64 `cbor:"53,keyasint"` // of one of its tries
	RollbackSeconds uint64 `cbor:"54,keyasint"` // from a flip: how long a vote may go back, and nothing is wiped
}

// MaxInsurance is how many accounts may be named in Params.Insurance: one earns,
// the others are for a change of hands.
const MaxInsurance = 8

// DefaultParams are the values of the specifications.
func DefaultParams() Params {
	return Params{
		PresenceMillis: 15_000, AttemptMillis: 300_000, FeeMaxAgeMillis: 600_000,
		PriceMaxAge: 120, LiquidationAge: 900, RoundSeconds: 15, DeviationBps: 500,
		ExpirySeconds: 600, QueueSeconds: 86_400, MinCoin: 546, SweepMultiple: 10,
		TWAPAlertBps:    250, // below the 2.85 % of 2026-03-10 that no one-round rule saw (spec: lending §12.5)
		FirstDipSeconds: 60, FreezeDeficitBps: 50, LiquidatorSec: 86_400, InsuranceBps: 2_000,
		LiftSeconds: 3_600, SetSeconds: 172_800, LowerSeconds: 604_800, StepSeconds: 86_400, SocialiseSeconds: 86_400, ProposalSeconds: 604_800,
		AdmitSeconds: 604_800, SeatSeconds: 604_800, ReshareSeconds: 1_800, TrySeconds: 600, RollbackSeconds: 86_400,
		BoostSeconds: 300,
		// A day: a traitor that lies at every chance costs one turn a day, and an
		// honest member whose software failed is back without anybody's vote.
		BlameSeconds:       86_400,
		PayoutDelaySeconds: 86_400, LoanWindowSeconds: 86_400, LoanSlippageBps: 500,
	}
}

// Hash is H_0.
func (g Genesis) Hash() Hash { return sha256.Sum256(Marshal(g)) }

// ClusterName is the Cluster string of requests: name and first 16 bytes of
// the genesis hash.
func (g Genesis) ClusterName() string {
	h := g.Hash()
	return g.Name + "/" + h.String()[:32]
}

// Chain returns the parameters of a chain.
func (g Genesis) Chain(name string) (ChainParam, bool) {
	for _, c := range g.Chains {
		if c.Name == name {
			return c, true
		}
	}
	return ChainParam{}, false
}

// Asset returns the parameters of an asset.
func (g Genesis) Asset(id string) (AssetParam, bool) {
	for _, a := range g.Assets {
		if a.ID == id {
			return a, true
		}
	}
	return AssetParam{}, false
}
