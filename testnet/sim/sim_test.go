package sim

import (
	"flag"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/fixed"
)

var (
	seeds = flag.Int("seeds", 2, "random runs besides the fixed one")
	first = flag.Uint64("seed", 1, "first seed of them")
	steps = flag.Int("steps", 900, "steps of a run, before it comes to rest")
)

// fixedSeed is the run that everybody has in common.
const fixedSeed = 2026

// long is how many steps a run has: with -short half as many, since the race detector
// makes each a dozen times as long.
func long(n int) int {
	if testing.Short() {
		return n / 2
	}
	return n
}

// few is how many random runs there are besides the fixed one: with -short none.
func few(n int) int {
	if testing.Short() {
		return 0
	}
	return n
}

// TestSim is the oracle of spec outflows §10: no outflow paid twice, each paid
// or refunded at rest, every replica the same, and nobody blamed who is honest: seen
// failing with a quorum of f in ledger.blame ("is blamed and honest").
func TestSim(t *testing.T) {
	var all Totals
	defer func() { t.Log(all) }()
	for i := range few(*seeds) + 1 {
		seed := uint64(fixedSeed)
		if i > 0 {
			seed = *first + uint64(i) - 1
		}
		start := time.Now()
		r, err := Run(Config{Seed: seed, Steps: long(*steps)})
		all.Add(r)
		t.Log(r, r.Codes, time.Since(start).Round(time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 && (r.Paid == 0 || r.Kills == 0 || r.Reorgs == 0 || r.Retries == 0 || r.Restarts == 0 || r.Blamed == 0) {
			t.Fatal("the fixed run has nothing of what it is for; choose another seed")
		}
	}
	if all.Runs > 1 && (all.Holds == 0 || all.Booked == 0) {
		t.Errorf("%d times on HOLD, %d gifts booked: rare things did not happen", all.Holds, all.Booked)
	}
}

// The committee changes as often as it can, from three to seven members, while
// members die at any moment, coins move and a traitor lies: nothing is paid twice
// or lost, no key changes, nobody lacks a share it needs, and all come to rest.
func TestChurn(t *testing.T) {
	if testing.Short() {
		t.Skip("a minute and a half of committees")
	}
	var all Totals
	defer func() { t.Log(all) }()
	for i := range max(*seeds/2, 1) {
		start := time.Now()
		r, err := Run(Config{Seed: *first + uint64(i), Steps: 2 * *steps, Churn: true})
		all.Add(r)
		t.Log(r, r.Codes, time.Since(start).Round(time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
	}
	if all.Flips < 2 || all.Wiped == 0 {
		t.Fatalf("%d epochs, %d shares wiped: the runs have nothing of what they are for", all.Flips, all.Wiped)
	}
}

// A failure is only worth its seed if the seed gives it again.
func TestSameSeedSameLog(t *testing.T) {
	a, err := Run(Config{Seed: 7, Steps: long(300)})
	if err != nil {
		t.Fatal(err)
	}
	b, err := Run(Config{Seed: 7, Steps: long(300)})
	if err != nil {
		t.Fatal(err)
	}
	if a.Head != b.Head || a.Commands != b.Commands {
		t.Fatalf("two logs of one seed:\n%s\n%s", a, b)
	}
	if c, _ := Run(Config{Seed: 8, Steps: 20}); c.Head == a.Head {
		t.Fatal("two seeds, one log")
	}
}

// signed: the right transaction exists, and may confirm at any time.
func signed(m *member, b ledger.Batch, a ledger.Attempt) bool {
	_, ok := m.disk.sigs[inputKey{batch: b.ID, body: a.Body}]
	return ok
}

// otherInputs pays a Bitcoin batch from coins that it does not hold: the retry
// that "releases and pays again" (spec: outflows §1.2, trap 1).
func otherInputs(m *member, b ledger.Batch, a ledger.Attempt) (ledger.Attempt, bool) {
	if a.Bitcoin == nil || !signed(m, b, a) {
		return a, false
	}
	pay := a.Bitcoin.Outputs[0]
	vault, _ := m.state.Vault(ledger.Bitcoin, "minter")
	for _, c := range m.state.Coins.All() {
		if c.State == ledger.CoinAvailable && c.Height > 0 && c.Sats > pay.Sats+2_000 {
			w, _ := m.state.Watched.Get(ledger.Bitcoin + "/" + c.Address)
			a.Bitcoin = &ledger.BitcoinTx{
				Inputs: []ledger.BitcoinIn{{Outpoint: c.Outpoint, Sats: c.Sats, Pub: w.Pub, Path: w.Path}}, Fee: 1_000,
				Outputs: []ledger.BitcoinOut{pay, {Address: vault.Address, Sats: c.Sats - pay.Sats - 1_000}},
			}
			return a, true
		}
	}
	return a, false
}

// otherSequence pays an Ethereum outflow under the next sequence of its sender.
func otherSequence(m *member, b ledger.Batch, a ledger.Attempt) (ledger.Attempt, bool) {
	if o, _ := m.state.Outflows.Get(b.Outflows[0]); a.Ethereum == nil || o.Account == "" || !signed(m, b, a) {
		return a, false
	}
	tx := *a.Ethereum
	tx.Sequence++
	a.Ethereum = &tx
	return a, true
}

// otherPayee sends a Bitcoin batch where nobody asked for it.
func otherPayee(m *member, _ ledger.Batch, a ledger.Attempt) (ledger.Attempt, bool) {
	if a.Bitcoin == nil {
		return a, false
	}
	tx := *a.Bitcoin
	tx.Outputs = slices.Clone(tx.Outputs)
	tx.Outputs[0].Address = m.s.clients[0].signer.Address
	a.Bitcoin = &tx
	return a, true
}

// madeUp claims every counted Bitcoin deposit a second time.
func madeUp(m *member) []any {
	for _, in := range m.state.Inflows.All() {
		if in.Chain == ledger.Bitcoin && in.State == ledger.InflowCredited && !strings.HasSuffix(in.ID, "7") {
			return []any{ledger.InflowFact{
				Chain: in.Chain, ID: in.ID + "7", Address: in.Address, Asset: in.Asset, Amount: fixed.New(1_000_000), Height: in.Height, Block: "none",
			}}
		}
	}
	return nil
}

// Each mistake is planted and must be found; without it the same runs pass.
func TestPlantedMistakesAreFound(t *testing.T) {
	for name, c := range map[string]struct {
		mistakes
		want string
	}{
		"pays again from other inputs":      {mistakes{build: otherInputs, blind: true}, "paid twice"},
		"pays again under another sequence": {mistakes{build: otherSequence, blind: true}, "paid twice"},
		"pays somebody else":                {mistakes{build: otherPayee, blind: true}, "nobody asked for"},
		"credits what nobody sent":          {mistakes{claim: madeUp}, "not on the chain"},
		"a replica passes over a command":   {mistakes{skip: func(m *member, h uint64) bool { return m.i == 2 && h == 150 }}, "diverges"},
		"a replica differs where no head looks": {mistakes{skip: func(m *member, h uint64) bool {
			if m.i == 2 && h == 150 {
				m.state.RootHeight++
			}
			return false
		}}, "differs from the reference"},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(6) { // chance must give the mistake an occasion
				_, err := Run(Config{Seed: seed, Steps: 1200, patience: 60, mistakes: c.mistakes})
				if err != nil && strings.Contains(err.Error(), c.want) {
					t.Log(err)
					return
				}
				if err != nil && (strings.Contains(err.Error(), "foreign spend") || strings.Contains(err.Error(), "never planned")) {
					continue // the ledger noticed before the auditor had an occasion
				}
				if err != nil && !strings.Contains(err.Error(), "not at rest") {
					t.Fatalf("found something else: %v", err)
				}
			}
			t.Fatal("not found")
		})
	}
}

// The same wrong transactions offered to members that do ask VerifySpend:
// nothing of them is ever signed. They are not paid otherwise either, so the
// run need not come to rest.
func TestVerifySpendIsWhatStopsThem(t *testing.T) {
	wrong := [...]func(*member, ledger.Batch, ledger.Attempt) (ledger.Attempt, bool){otherInputs, otherSequence, otherPayee}
	refused := 0
	build := func(m *member, b ledger.Batch, a ledger.Attempt) (ledger.Attempt, bool) {
		other, ok := wrong[b.ID%3](m, b, a)
		if ok {
			refused++
		}
		return other, ok
	}
	r, err := Run(Config{Seed: 1, Steps: long(700), patience: 10, mistakes: mistakes{build: build}})
	if err != nil && !strings.Contains(err.Error(), "not at rest") {
		t.Fatal(err)
	}
	if refused == 0 || r.Paid == 0 {
		t.Fatalf("%d wrong transactions offered, %d outflows paid: the run shows nothing", refused, r.Paid)
	}
}

// Members who vote about payouts all the time, cancels that race their payments
// and coins from one vault to the other, under the usual faults: the auditor reads
// the chains, and nothing is paid twice, lost, or missing from a book. Planted: a
// top-up that is not booked as an advance. Seen: "coins do not fit its book".
// Planted: cancels of gas and sweeps too. Seen: "sender … holds … wei, booked 0".
// Strangers and operators send to the vaults meanwhile, and members vote to book it,
// sometimes more of it than there is; tokens succeed without paying, and the batch on
// HOLD ends by a vote that traitors would have call it paid.
func TestVotesAboutPayouts(t *testing.T) {
	var all Totals
	defer func() { t.Log(all) }()
	runs := max(4, *seeds)
	if testing.Short() {
		runs = 1
	}
	for seed := range uint64(runs) {
		r, err := Run(Config{Seed: *first + 100 + seed, Steps: long(*steps), votes: 20})
		all.Add(r)
		t.Log(r)
		if err != nil {
			t.Fatal(err)
		}
	}
	if all.Votes == 0 || runs > 1 && (all.Cancels == 0 || all.Recoups == 0 || all.Holds == 0 || all.Booked == 0) {
		t.Error("no vote did anything")
	}
}
