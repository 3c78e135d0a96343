package api

import (
	"net/http"

	"github.com/coffer-network/coffer/ledger"
)

// statuses is the one table from refusal codes to HTTP (spec: requests §6). A
// body over the limit is MALFORMED too, and 413.
var statuses = map[ledger.Code]int{
	ledger.OK: http.StatusOK,

	ledger.Malformed:         http.StatusBadRequest,
	ledger.WrongCluster:      http.StatusBadRequest,
	ledger.SchemeUnsupported: http.StatusBadRequest,

	ledger.BadSignature: http.StatusUnauthorized,

	ledger.SignerNotLinked: http.StatusForbidden,
	ledger.NotAllowed:      http.StatusForbidden,

	ledger.UnknownAccount: http.StatusNotFound,
	ledger.UnknownPool:    http.StatusNotFound,
	ledger.UnknownOutflow: http.StatusNotFound,

	ledger.BadNonce:        http.StatusConflict,
	ledger.AccountExists:   http.StatusConflict,
	ledger.AccountLinked:   http.StatusConflict,
	ledger.SoleAccount:     http.StatusConflict,
	ledger.DuplicateInflow: http.StatusConflict,

	ledger.Paused:       http.StatusServiceUnavailable,
	ledger.Frozen:       http.StatusServiceUnavailable,
	ledger.Halted:       http.StatusServiceUnavailable,
	ledger.CatchingUp:   http.StatusServiceUnavailable,
	ledger.PriceStale:   http.StatusServiceUnavailable,
	ledger.PriceSuspect: http.StatusServiceUnavailable,

	ledger.Broken: http.StatusInternalServerError,

	ledger.Expired:             http.StatusUnprocessableEntity,
	ledger.ExpiryTooFar:        http.StatusUnprocessableEntity,
	ledger.BorrowDisabled:      http.StatusUnprocessableEntity,
	ledger.BelowMin:            http.StatusUnprocessableEntity,
	ledger.SameAsset:           http.StatusUnprocessableEntity,
	ledger.NoLiquidity:         http.StatusUnprocessableEntity,
	ledger.BorrowCap:           http.StatusUnprocessableEntity,
	ledger.SupplyCap:           http.StatusUnprocessableEntity,
	ledger.NoCollateral:        http.StatusUnprocessableEntity,
	ledger.HealthFactor:        http.StatusUnprocessableEntity,
	ledger.MaxLTV:              http.StatusUnprocessableEntity,
	ledger.InsufficientBalance: http.StatusUnprocessableEntity,
	ledger.SelfLiquidation:     http.StatusUnprocessableEntity,
	ledger.Healthy:             http.StatusUnprocessableEntity,
	ledger.NoDebt:              http.StatusUnprocessableEntity,
	ledger.Dust:                http.StatusUnprocessableEntity,
	ledger.NoDeficit:           http.StatusUnprocessableEntity,
	ledger.HasDebt:             http.StatusUnprocessableEntity,
	ledger.Insolvent:           http.StatusUnprocessableEntity,
	ledger.Arith:               http.StatusUnprocessableEntity,
	ledger.Grace:               http.StatusUnprocessableEntity,
	ledger.NotClosing:          http.StatusUnprocessableEntity,
	ledger.DeficitLimit:        http.StatusUnprocessableEntity,
	ledger.FeeTooHigh:          http.StatusUnprocessableEntity,
	ledger.OutflowCap:          http.StatusUnprocessableEntity,
	ledger.Limit:               http.StatusUnprocessableEntity,
	ledger.DestinationRefused:  http.StatusUnprocessableEntity,
	ledger.DestinationNotList:  http.StatusUnprocessableEntity,
	ledger.BadParam:            http.StatusUnprocessableEntity,
	ledger.Timelock:            http.StatusUnprocessableEntity,
	ledger.NotArrived:          http.StatusUnprocessableEntity,
}

// The API's own words. UNKNOWN_REQUEST, UNKNOWN_INFLOW, UNKNOWN_LIQUIDATION,
// UNKNOWN_CERTIFICATE, UNKNOWN_PROOF and UNKNOWN_PATH are further members of UNKNOWN_*; INTERNAL is what nobody foresaw. UNAVAILABLE is
// neither load nor time: this node's own history cannot be read.
const (
	noLeader           ledger.Code = "NO_LEADER"
	timeout            ledger.Code = "TIMEOUT"
	overloaded         ledger.Code = "OVERLOADED"
	unavailable        ledger.Code = "UNAVAILABLE"
	internal           ledger.Code = "INTERNAL"
	unknownRequest     ledger.Code = "UNKNOWN_REQUEST"
	unknownInflow      ledger.Code = "UNKNOWN_INFLOW"
	unknownLiquidation ledger.Code = "UNKNOWN_LIQUIDATION"
	unknownCertificate ledger.Code = "UNKNOWN_CERTIFICATE"
	unknownProof       ledger.Code = "UNKNOWN_PROOF"
	unknownPath        ledger.Code = "UNKNOWN_PATH"
)

// advice says what happened and what to do. No refusal is shown as an
// unexpected error (spec: lending §15).
var advice = map[ledger.Code]string{
	ledger.OK: "done",

	ledger.Malformed:           "the text or body is not what this cluster reads: render it again",
	ledger.WrongCluster:        "the text names another cluster: check which one you pinned",
	ledger.SchemeUnsupported:   "this way of signing does not fit the Signer, or is not enabled",
	ledger.BadSignature:        "the signature is not the Signer's over this text: sign the text exactly as shown",
	ledger.SignerNotLinked:     "the Signer is no controller of this account",
	ledger.NotAllowed:          "this may not be done here",
	ledger.UnknownAccount:      "no such account: open it first",
	ledger.UnknownPool:         "no such pool: see /v1/pools",
	ledger.UnknownOutflow:      "no such outflow of this account",
	ledger.BadNonce:            "another Intent nonce is due: read the account's next nonce and sign again",
	ledger.AccountExists:       "the account is open already: use it",
	ledger.AccountLinked:       "this wallet is linked to an account already",
	ledger.SoleAccount:         "the last wallet of an account cannot be removed",
	ledger.DuplicateInflow:     "this deposit was counted already",
	ledger.Paused:              "the pool is paused: try again when it is not",
	ledger.Frozen:              "the pool is frozen: repaying and withdrawing go on where they are allowed",
	ledger.Halted:              "outflows are halted, all or of this asset, its chain's fee rate is not known, or the cluster has no keys yet: see /v1/status",
	ledger.CatchingUp:          "ledger time is catching up: send the same text again in a moment",
	ledger.PriceStale:          "the price is too old: try again after the next round",
	ledger.PriceSuspect:        "the price moved too far in one round: try again when it is confirmed",
	ledger.Broken:              "the command broke an invariant and was dropped whole; outflows are halted and operators called",
	ledger.Expired:             "the request's time is over: render and sign it again",
	ledger.ExpiryTooFar:        "the request would live too long: render it with an earlier expiry",
	ledger.BorrowDisabled:      "borrowing is switched off here for now",
	ledger.BelowMin:            "the amount is below the minimum, or nothing would be left of it after the fee",
	ledger.SameAsset:           "the account supplies this asset itself: withdraw instead of borrowing",
	ledger.NoLiquidity:         "the pool does not hold this much now: ask for less, or wait for repayments",
	ledger.BorrowCap:           "the pool's borrow cap would be exceeded: ask for less",
	ledger.SupplyCap:           "the pool's supply cap would be exceeded",
	ledger.NoCollateral:        "nothing of the account counts as collateral: supply first",
	ledger.HealthFactor:        "the health factor would be below 1: ask for less, or supply more",
	ledger.MaxLTV:              "the loan would exceed the LTV limit: ask for less, or supply more",
	ledger.InsufficientBalance: "the account does not hold this much",
	ledger.SelfLiquidation:     "an account cannot liquidate itself",
	ledger.Healthy:             "the account is healthy: nothing to liquidate",
	ledger.NoDebt:              "the account owes nothing in this pool",
	ledger.Dust:                "what would remain is too small: take all of it",
	ledger.NoDeficit:           "the pool has no deficit to cover",
	ledger.HasDebt:             "the account still owes: repay first",
	ledger.Insolvent:           "the pool could not pay everyone after this",
	ledger.Arith:               "the numbers do not fit: ask for another amount",
	ledger.Grace:               "liquidations wait for the grace period after a pause",
	ledger.NotClosing:          "the liquidation does not close the position as it must",
	ledger.DeficitLimit:        "the deficit of one liquidation is limited",
	ledger.FeeTooHigh:          "the fee quote is above Max fee: see the pool's suggested one and sign again",
	ledger.OutflowCap:          "too much is on its way out: wait for open outflows, or ask for less",
	ledger.Limit:               "the ledger is at a stated limit: send the same text again later",
	ledger.DestinationRefused:  "coins cannot be sent there: wrong network, not canonical, one of our own, or refused lately",
	ledger.DestinationNotList:  "the account pays listed addresses only",
	ledger.BadParam:            "the parameters contradict each other, are out of bounds, or change nothing",
	ledger.Timelock:            "the change has to wait for its delay",
	ledger.NotArrived:          "members have not seen that much at that vault beyond the books (a pool's is the hot address): send it, wait until its block is final and a balance of the asset is attested (coffer weigh ASSET), and vote then",

	noLeader:           "no node orders commands at the moment: send the same text again, here or elsewhere",
	timeout:            "not reached in time: ask again, here or elsewhere",
	overloaded:         "too much at once: come again later",
	unavailable:        "this node's own history cannot be read now: ask another node; the ledger is not affected",
	internal:           "this node failed; its log has the cause under this request id",
	unknownRequest:     "not known here: name its account, or post it again",
	unknownInflow:      "no deposit by this id is attested or remembered here: name its account to see what this node alone saw",
	unknownLiquidation: "no liquidation at this LogIndex is remembered here: ids are LogIndexes, and another node may remember more",
	unknownCertificate: "no certificate at or above this LogIndex yet",
	unknownProof:       "no proof yet: roots are 4096 LogIndexes apart, and a node just restarted has none before the next; ask again then, or another node",
	unknownPath:        "no such path: see /openapi.json",
}

func statusOf(c ledger.Code) int {
	if s, ok := statuses[c]; ok {
		return s
	}
	switch c {
	case noLeader, timeout, overloaded, unavailable:
		return http.StatusServiceUnavailable
	case unknownRequest, unknownInflow, unknownLiquidation, unknownCertificate, unknownProof, unknownPath:
		return http.StatusNotFound
	}
	return http.StatusInternalServerError
}
