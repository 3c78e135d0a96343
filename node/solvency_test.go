package node

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coffer-network/coffer/chains"
	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// ask is the balance of an asset that is asked for, after a member had one asked for.
func (c *cluster) askNow(asset string) ledger.Check {
	c.t.Helper()
	c.tick(11_000)
	c.say(0, ledger.KindBalance, ledger.BalanceFact{Asset: asset})
	row, _ := c.s.Solvency.Get(asset)
	if row.Open == nil {
		c.t.Fatalf("no balance of %s is asked for", asset)
	}
	return *row.Open
}

// weighed has a quorum say what custody holds of an asset.
func (c *cluster) weighed(asset string, amount fixed.Int) ledger.BalanceFact {
	c.t.Helper()
	k := c.askNow(asset)
	f := ledger.BalanceFact{Asset: asset, Asked: k.Asked, Height: k.Height, Block: "b", Amount: amount}
	c.some(3, ledger.KindBalance, f)
	return f
}

func (c *cluster) balances(w world) (out []ledger.BalanceFact) {
	w.self = idOf(c.keys[0])
	for _, s := range planAttestations(c.s, w) {
		if s.kind == ledger.KindBalance {
			out = append(out, s.body.(ledger.BalanceFact))
		}
	}
	return out
}

// A member says once what it found at the block that is asked about, and about no
// other; it has a balance asked for that a payment waits for, and none besides.
// Seen failing with what was found said for any check ("for another check").
func TestPlanBalances(t *testing.T) {
	c, _ := paying(t)
	c.tick(11_000)
	if row, _ := c.s.Solvency.Get("btc"); row.Open == nil {
		if got := c.balances(world{}); len(got) != 1 || got[0] != (ledger.BalanceFact{Asset: "btc"}) {
			t.Errorf("a payment waits: says %+v", got)
		}
	}
	k := c.askNow("btc")
	if got := c.balances(world{}); len(got) != 0 {
		t.Errorf("asked, and nothing found: says %+v", got)
	}
	f := ledger.BalanceFact{Asset: "btc", Asked: k.Asked, Height: k.Height, Block: "b", Amount: fixed.New(7)}
	w := world{balances: map[string]ledger.BalanceFact{"btc": f}}
	if got := c.balances(w); !slices.Equal(got, []ledger.BalanceFact{f}) {
		t.Errorf("found: says %+v", got)
	}
	c.say(0, ledger.KindBalance, f)
	if got := c.balances(w); len(got) != 0 {
		t.Errorf("heard: says %+v", got)
	}
	c.askNow("btc")
	if got := c.balances(w); len(got) != 0 {
		t.Errorf("for another check: says %+v", got)
	}
	idle := running(t)
	idle.tick(11_000)
	if got := idle.balances(world{}); len(got) != 0 {
		t.Errorf("nothing waits: says %+v", got)
	}
}

// A member signs no payment without a good balance of the last ten minutes, of a
// halted asset, or against its own chain (spec: committee S5, consensus R3); the
// reason has the numbers. Seen failing with each case of unproven taken away, and
// with planSigning that goes on ("a session of a halted asset goes on").
func TestNothingIsSignedUnproven(t *testing.T) {
	c, b := paying(t)
	n := nodeOf(t, c, 0)
	n.balances = map[string]ledger.BalanceFact{}
	refuses := func(what string, words ...string) {
		t.Helper()
		why := n.unproven(c.s, c.batch(b.ID))
		for _, w := range words {
			if !strings.Contains(why, w) {
				t.Errorf("%s: %q does not say %q", what, why, w)
			}
		}
		if len(words) == 0 && why != "" {
			t.Errorf("%s: refused: %s", what, why)
		}
	}
	refuses("nothing was ever attested", "btc", "no attested balance")
	good := c.weighed("btc", c.s.Books("btc"))
	refuses("good")
	n.balances["btc"] = good
	refuses("the same")
	low := good
	low.Amount = fixed.New(5)
	n.balances["btc"] = low
	refuses("its own chain shows less", "btc", fmt.Sprint("block ", good.Height), "shows 5", good.Amount.String())
	n.app.publish()
	now := time.UnixMilli(int64(c.s.Millis))
	n.verdicts = map[jobKey]bool{}
	if _, err := n.mayApproveAt(ledger.Approval{Height: c.s.Height}, now); err == nil || !strings.Contains(err.Error(), "disputed") {
		t.Errorf("approved against its own chain: %v", err)
	}
	n.balances["btc"] = good
	if _, err := n.mayApproveAt(ledger.Approval{Height: c.s.Height}, now); err != nil {
		t.Errorf("not approved: %v", err)
	}
	c.tick(ledger.SolvencySeconds*1000 + 20_000)
	refuses("eleven minutes later", "btc", "s old, at most 600")
	if len(planSigning(c.s, n.self)) != 1 {
		t.Error("a payment that waits for a balance is not planned to be signed")
	}
	c.weighed("btc", fixed.New(1))
	refuses("insolvent", "HALTED", "btc", "missing")
	if len(planSigning(c.s, n.self)) != 0 {
		t.Error("a session of a halted asset goes on")
	}
}

// teller is a chain that tells custody and nothing else.
type teller struct {
	chains.Chain
	asked []chains.Ask
	err   error

	strangers fixed.Int
}

func (c *teller) Custody(_ context.Context, _ chains.View, _ chains.Cursor, ask chains.Ask) (chains.Held, error) {
	c.asked = append(c.asked, ask)
	return chains.Held{Block: "x", Amount: fixed.New(9), Strangers: c.strangers}, c.err
}

// A member whose branch lacks a deposit that the ledger has counted tells no balance
// until it is taken back: that of a branch which has grown beyond finality's depth would
// be a breach. Mined again, it is told from that block on. Seen failing without forked in
// weigh ("asked"), and in seed 400 of testnet/sim ("event insolvent: btc").
func TestWeighAfterAFork(t *testing.T) {
	c, _ := paying(t)
	k := c.askNow("btc")
	r := c.s.RecentInflows(ledger.Bitcoin)[0]
	if r.Height > k.Height {
		t.Fatalf("deposit at %d, asked at %d", r.Height, k.Height)
	}
	again := func(height uint64) []chains.Seen {
		return []chains.Seen{{Fact: ledger.InflowFact{ID: r.ID, Height: height}}}
	}
	for name, x := range map[string]struct {
		block string
		shown []chains.Seen
		asked int
	}{
		"its own block":               {r.Block, nil, 1},
		"another block":               {"fork", nil, 0},
		"mined again":                 {"fork", again(k.Height), 1},
		"mined again above the ask's": {"fork", again(k.Height + 1), 0},
	} {
		n := nodeOf(t, c, 0)
		n.balances = map[string]ledger.BalanceFact{}
		chain := &teller{}
		n.weigh(t.Context(), c.s, ledger.Bitcoin, chain, chains.View{}, chains.Observations{Blocks: map[uint64]string{r.Height: x.block}, Inflows: x.shown}, nil)
		if len(chain.asked) != x.asked {
			t.Errorf("%s: asked %d times", name, len(chain.asked))
		}
	}
}

// Each open check is put to the chain until there is an answer, and then not again. On
// Bitcoin the question admits the ledger's coins and no others, and what strangers sent
// is told beside them. Seen failing with a question that admits none ("refuses").
func TestWeigh(t *testing.T) {
	c, _ := paying(t)
	k := c.askNow("btc")
	n := nodeOf(t, c, 0)
	n.balances = map[string]ledger.BalanceFact{}
	chain := &teller{err: chains.ErrNoBalance, strangers: fixed.New(4)}
	for i := range 4 {
		if i == 2 {
			chain.err = nil
		}
		n.weigh(t.Context(), c.s, ledger.Bitcoin, chain, chains.View{}, chains.Observations{}, nil)
	}
	if len(chain.asked) != 3 || chain.asked[0].Asset != "btc" || chain.asked[0].Height != k.Height {
		t.Errorf("asked %+v", chain.asked)
	}
	if f := n.balances["btc"]; f != (ledger.BalanceFact{Asset: "btc", Asked: k.Asked, Height: k.Height, Block: "x", Amount: fixed.New(9), Strangers: fixed.New(4)}) {
		t.Errorf("found %+v", f)
	}
	ours := chain.asked[0].Ours
	for name := range c.s.Coins.All() {
		if !ours(name) || ours(name+"9") {
			t.Errorf("refuses %s, or admits another", name)
		}
	}
	if c.s.Coins.Len() == 0 {
		t.Error("no coins")
	}
	if ask := askOf(c.s, ledger.Ethereum, "eth", ledger.Check{Height: 7}); ask.Ours != nil {
		t.Error("coins are asked for on Ethereum")
	}
}
