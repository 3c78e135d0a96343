package node

import (
	"time"

	"github.com/coffer-network/coffer/chains"
	"github.com/coffer-network/coffer/ledger"
)

// The planners, for who runs them in a world of his own: testnet/sim puts
// another loop around the same plans. Nothing here decides anything.

// Statement is something a member wants to attest.
type Statement struct {
	Kind ledger.Kind
	Body any
}

// World is what a member knows besides the ledger when it decides what to say.
type World struct {
	Self           ledger.MemberID
	Clock          uint64 // own clock, Unix ms; 0: not to be attested yet
	Prices         map[string]ledger.PriceReport
	Said           map[string]ledger.PriceReport  // own newest signed report, by asset
	Seen           map[string]chains.Observations // by chain
	Ready          []ledger.ShareReady
	Tests          []ledger.TestSig
	GaveUp         []ledger.GaveUp
	Flip           *ledger.Certificate
	Wiped          []ledger.Generation // KeyShares that this member destroyed
	Blames         []ledger.Blame      // what this member found proven against others
	FeeEveryMillis uint64
	CaughtUp       bool
	Vouched        bool                          // others say that the state held is the right one
	Balances       map[string]ledger.BalanceFact // by asset: what was found at the block last asked for
}

// PlanAttestations says what the ledger has not heard from this member.
func PlanAttestations(v *ledger.State, w World) []Statement {
	var out []Statement
	for _, s := range planAttestations(v, world{
		self: w.Self, clock: w.Clock, prices: w.Prices, seen: w.Seen, ready: w.Ready, tests: w.Tests,
		gaveUp: w.GaveUp, flip: w.Flip, wiped: w.Wiped, blames: w.Blames, feeEvery: w.FeeEveryMillis, caughtUp: w.CaughtUp, vouched: w.Vouched, said: w.Said, balances: w.Balances,
	}) {
		out = append(out, Statement{s.kind, s.body})
	}
	return out
}

// Job is one attempt that a member of its roster should hold signatures for.
type Job struct {
	Batch   ledger.Batch
	Attempt ledger.Attempt
}

// PlanSigning says for which attempts self should hold or make signatures now.
func PlanSigning(v *ledger.State, self ledger.MemberID) []Job {
	var out []Job
	for _, j := range planSigning(v, self) {
		out = append(out, Job{j.batch, j.attempt})
	}
	return out
}

// Forked reports whether a member's branch lacks a deposit, up to a height, that the
// ledger has counted: it tells no balance then.
func Forked(v *ledger.State, chain string, o chains.Observations, height uint64) bool {
	return forked(v, chain, o, height)
}

// AskOf is the question about an asset that a check puts to its chain.
func AskOf(v *ledger.State, chain, asset string, k ledger.Check) chains.Ask {
	return askOf(v, chain, asset, k)
}

// BalanceOf is what a member says of what its chain shows.
func BalanceOf(asset string, k ledger.Check, h chains.Held) ledger.BalanceFact {
	return balanceOf(asset, k, h)
}

// Unproven says why a member that found these balances signs no payment of a batch
// for want of solvency (spec: committee S5); empty: it may.
func Unproven(v *ledger.State, b ledger.Batch, own map[string]ledger.BalanceFact) string {
	return unproven(v, b, own)
}

// Disputed says why it approves nothing (spec: consensus R3).
func Disputed(v *ledger.State, own map[string]ledger.BalanceFact) string { return disputed(v, own) }

// PlanBroadcasts says which batches wait for their anchor to be spent.
func PlanBroadcasts(v *ledger.State) []ledger.Batch { return planBroadcasts(v) }

// AttemptKey names an attempt.
type AttemptKey struct{ Batch, Attempt uint64 }

// JudgePlans adds to what was known whether each open attempt, that a head at
// height covers, was planned at about the time now (spec: consensus R5a).
func JudgePlans(v *ledger.State, height uint64, now time.Time, known map[AttemptKey]bool) map[AttemptKey]bool {
	before := make(map[jobKey]bool, len(known))
	for k, timely := range known {
		before[jobKey{k.Batch, k.Attempt}] = timely
	}
	after := map[AttemptKey]bool{}
	for _, x := range judgePlans(v, height, now, before) {
		after[AttemptKey{x.Batch, x.Attempt}] = x.Timely
	}
	return after
}

// ChainView is what the ledger wants to be looked at on one chain.
func ChainView(v *ledger.State, chain string) chains.View { return chainView(v, chain) }

// KeygenTask is a try of a key's generation that awaits this member.
type KeygenTask struct {
	Key     ledger.NextKey
	Attempt ledger.Attempt
}

// PlanKeygens says which key generations are planned with self among them and
// not answered by it.
func PlanKeygens(v *ledger.State, self ledger.MemberID) []KeygenTask {
	var out []KeygenTask
	for _, t := range planKeygens(v, self) {
		out = append(out, KeygenTask{t.key, t.attempt})
	}
	return out
}
