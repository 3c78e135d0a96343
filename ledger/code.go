package ledger

// Code is the verdict of Apply on a command: OK, or the stable name of a
// refusal (spec: lending §7). Codes are part of the API and of the head chain:
// renaming one is a change of the ledger version.
type Code string

const (
	OK Code = "OK"

	UnknownAccount      Code = "UNKNOWN_ACCOUNT"
	UnknownPool         Code = "UNKNOWN_POOL"
	BadSignature        Code = "BAD_SIGNATURE"
	SignerNotLinked     Code = "SIGNER_NOT_LINKED"
	SchemeUnsupported   Code = "SCHEME_UNSUPPORTED"
	WrongCluster        Code = "WRONG_CLUSTER"
	Malformed           Code = "MALFORMED"
	Expired             Code = "EXPIRED"
	ExpiryTooFar        Code = "EXPIRY_TOO_FAR"
	BadNonce            Code = "BAD_NONCE"
	Paused              Code = "PAUSED"
	Frozen              Code = "FROZEN"
	BorrowDisabled      Code = "BORROW_DISABLED"
	BelowMin            Code = "BELOW_MIN"
	PriceStale          Code = "PRICE_STALE"
	PriceSuspect        Code = "PRICE_SUSPECT"
	SameAsset           Code = "SAME_ASSET"
	NoLiquidity         Code = "NO_LIQUIDITY"
	BorrowCap           Code = "BORROW_CAP"
	SupplyCap           Code = "SUPPLY_CAP"
	NoCollateral        Code = "NO_COLLATERAL"
	HealthFactor        Code = "HEALTH_FACTOR"
	MaxLTV              Code = "MAX_LTV"
	InsufficientBalance Code = "INSUFFICIENT_BALANCE"
	DuplicateInflow     Code = "DUPLICATE_INFLOW"
	UnknownOutflow      Code = "UNKNOWN_OUTFLOW"
	SelfLiquidation     Code = "SELF_LIQUIDATION"
	Healthy             Code = "HEALTHY"
	NoDebt              Code = "NO_DEBT"
	Dust                Code = "DUST"
	NoDeficit           Code = "NO_DEFICIT"
	HasDebt             Code = "HAS_DEBT"
	Insolvent           Code = "INSOLVENT"
	Arith               Code = "ARITH"
	CatchingUp          Code = "CATCHING_UP"
	Broken              Code = "BROKEN"
	Grace               Code = "GRACE"
	NotClosing          Code = "NOT_CLOSING"
	DeficitLimit        Code = "DEFICIT_LIMIT"
	FeeTooHigh          Code = "FEE_TOO_HIGH"
	OutflowCap          Code = "OUTFLOW_CAP"
	Limit               Code = "LIMIT"
	Halted              Code = "HALTED"
	DestinationRefused  Code = "DESTINATION_REFUSED"
	DestinationNotList  Code = "DESTINATION_NOT_LISTED"
	NotAllowed          Code = "NOT_ALLOWED"
	BadParam            Code = "BAD_PARAM"
	Timelock            Code = "TIMELOCK"
	AccountExists       Code = "ACCOUNT_EXISTS"
	AccountLinked       Code = "ACCOUNT_LINKED"
	SoleAccount         Code = "SOLE_ACCOUNT"
	NotArrived          Code = "NOT_ARRIVED"
)

// Codes lists every code, for tables that must cover all of them.
var Codes = []Code{
	OK, UnknownAccount, UnknownPool, BadSignature, SignerNotLinked, SchemeUnsupported, WrongCluster, Malformed,
	Expired, ExpiryTooFar, BadNonce, Paused, Frozen, BorrowDisabled, BelowMin, PriceStale, PriceSuspect, SameAsset,
	NoLiquidity, BorrowCap, SupplyCap, NoCollateral, HealthFactor, MaxLTV, InsufficientBalance, DuplicateInflow,
	UnknownOutflow, SelfLiquidation, Healthy, NoDebt, Dust, NoDeficit, HasDebt, Insolvent, Arith, CatchingUp, Broken,
	Grace, NotClosing, DeficitLimit, FeeTooHigh, OutflowCap, Limit, Halted, DestinationRefused, DestinationNotList,
	NotAllowed, BadParam, Timelock, AccountExists, AccountLinked, SoleAccount, NotArrived,
}
