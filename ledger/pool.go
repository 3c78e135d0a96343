package ledger

import "github.com/coffer-network/coffer/ledger/fixed"

// PoolParam are the parameters of one pool. Its id is the asset's id. Rates and
// ratios in bps (10⁴), amounts in base units; caps of 0 mean none.
type PoolParam struct {
	Asset         string    `cbor:"1,keyasint"`
	Base          uint64    `cbor:"2,keyasint"` // borrow rate at utilisation 0
	Opt           uint64    `cbor:"3,keyasint"` // optimal utilisation
	S1            uint64    `cbor:"4,keyasint"` // slope up to it
	S2            uint64    `cbor:"5,keyasint"` // slope beyond it
	RF            uint64    `cbor:"6,keyasint"` // reserve factor
	LTV           uint64    `cbor:"7,keyasint"`
	LT            uint64    `cbor:"8,keyasint"` // LiquidationThreshold
	Bonus         uint64    `cbor:"9,keyasint"` // 10500 = 5 %
	LiqFee        uint64    `cbor:"10,keyasint"`
	SupplyCap     fixed.Int `cbor:"11,keyasint"`
	BorrowCap     fixed.Int `cbor:"12,keyasint"`
	SameAsset     bool      `cbor:"13,keyasint"` // whether one may borrow what one supplies
	SameAssetDust fixed.Int `cbor:"14,keyasint"`
	MinSupply     fixed.Int `cbor:"15,keyasint"`
	MinBorrow     fixed.Int `cbor:"16,keyasint"`
	MinWithdraw   fixed.Int `cbor:"17,keyasint"`
	MinDebt       fixed.Int `cbor:"18,keyasint"` // reserved, 0
	EmodeID       uint64    `cbor:"19,keyasint"` // reserved, 0
	CapHourBps    uint64    `cbor:"20,keyasint"` // of custody, that may leave in an hour; 0: no share (see outcap.go)
	CapDayBps     uint64    `cbor:"21,keyasint"` // and in a day
	CapHour       fixed.Int `cbor:"22,keyasint"` // base units that may leave in an hour at most; 0: no amount
	CapDay        fixed.Int `cbor:"23,keyasint"`
}

// Pool is the lending book of one asset (spec: lending §3).
type Pool struct {
	Param          PoolParam `cbor:"1,keyasint"`
	Chain          string    `cbor:"2,keyasint"`
	Decimals       uint8     `cbor:"3,keyasint"`
	Cash           fixed.Int `cbor:"4,keyasint"` // liquidity by the books; native balances are never read
	Reserved       fixed.Int `cbor:"5,keyasint"` // pending outflows, refunds included
	Deficit        fixed.Int `cbor:"6,keyasint"` // recognised bad debt not yet covered
	SupplyShares   fixed.Int `cbor:"7,keyasint"` // of users
	TreasuryShares fixed.Int `cbor:"8,keyasint"`
	DebtShares     fixed.Int `cbor:"9,keyasint"`
	SupplyIndex    fixed.Int `cbor:"10,keyasint"` // RAY
	BorrowIndex    fixed.Int `cbor:"11,keyasint"` // RAY
	SupplyRate     fixed.Int `cbor:"12,keyasint"` // RAY per year
	BorrowRate     fixed.Int `cbor:"13,keyasint"` // RAY per year
	LastSync       uint64    `cbor:"14,keyasint"` // ledger time, s
	Active         bool      `cbor:"15,keyasint"`
	Paused         bool      `cbor:"16,keyasint"`
	Frozen         bool      `cbor:"17,keyasint"`
	BorrowEnabled  bool      `cbor:"18,keyasint"`
	LiqGraceUntil  uint64    `cbor:"19,keyasint"` // ledger time, s

	// Where the asset's coins are, since genesis, so that I7 is exact:
	// Credited + FeeGains + Missing = Cash + Reserved + Suspended + PaidOut + FeeLosses.
	Credited  fixed.Int `cbor:"20,keyasint"` // inflows booked, suspense included, less those undone
	PaidOut   fixed.Int `cbor:"21,keyasint"` // gross of paid outflows
	FeeGains  fixed.Int `cbor:"22,keyasint"` // cash won because clients paid more fee than the chain took
	FeeLosses fixed.Int `cbor:"23,keyasint"` // cash lost because the chain took more
	Suspended fixed.Int `cbor:"24,keyasint"` // sum of the asset's suspense

	Impaired  Impairment `cbor:"25,keyasint"` // freeze on deficit
	Missing   fixed.Int  `cbor:"27,keyasint"` // coins that a chain took and cash could not bear yet: taken from it as it comes (reverse.go)
	Unswept   fixed.Int  `cbor:"28,keyasint"` // native coin of Ethereum: of the books, what lies at deposit addresses and cannot be paid out yet (native.go)
	Uninsured fixed.Int  `cbor:"26,keyasint"` // TreasuryShares from the reserve factor since the last insurance sweep
}

// Account is one client (spec: lending §3). Balances are derived, never stored.
type Account struct {
	ID        AccountID  `cbor:"1,keyasint"`
	Wallets   []string   `cbor:"2,keyasint"`  // CAIP-10 controllers
	Nonce     uint64     `cbor:"3,keyasint"`  // Intent nonce expected next
	Results   []Stored   `cbor:"4,keyasint"`  // last 16, ascending by nonce
	Positions []Position `cbor:"5,keyasint"`  // sorted by pool, none empty
	Opened    uint64     `cbor:"6,keyasint"`  // ledger time, ms
	Active    uint64     `cbor:"7,keyasint"`  // ledger time of its last activity, ms
	Outflows  uint64     `cbor:"8,keyasint"`  // open ones
	Credited  bool       `cbor:"9,keyasint"`  // whether a deposit was ever credited
	Refused   []Refused  `cbor:"10,keyasint"` // destinations that reverted a payout
	Unfinal   []Unfinal  `cbor:"11,keyasint"` // supply that is no collateral yet, in order of arrival

	Held       []Held `cbor:"20,keyasint"` // what it held when a pool became impaired, sorted by pool
	Liquidated uint64 `cbor:"21,keyasint"` // ledger time when it last liquidated somebody, ms; 0: never
}

// Stored is the remembered answer to one request.
type Stored struct {
	Nonce   uint64 `cbor:"1,keyasint"`
	Text    Hash   `cbor:"2,keyasint"` // SHA-256: the request id
	Code    Code   `cbor:"3,keyasint"`
	Height  uint64 `cbor:"4,keyasint"` // LogIndex that applied it
	Outflow uint64 `cbor:"5,keyasint"` // that it created; 0: none
}

// Position is an account's claims in one pool.
type Position struct {
	Pool   string    `cbor:"1,keyasint"`
	Supply fixed.Int `cbor:"2,keyasint"` // SupplyShares
	Debt   fixed.Int `cbor:"3,keyasint"` // DebtShares
}

// Refused is a destination that is refused for a while.
type Refused struct {
	To     string `cbor:"1,keyasint"`
	Millis uint64 `cbor:"2,keyasint"` // ledger time when it reverted
}

// Unfinal is supply from an inflow that a reorganisation could still take away:
// it earns and may leave, but is no collateral (spec: lending §8.4).
type Unfinal struct {
	Pool   string    `cbor:"1,keyasint"`
	Shares fixed.Int `cbor:"2,keyasint"` // SupplyShares
	Chain  string    `cbor:"3,keyasint"`
	Height uint64    `cbor:"4,keyasint"` // of the inflow's block
}
