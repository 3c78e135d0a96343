package api_test

import (
	"slices"
	"testing"
	"time"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/fixed"
	"github.com/coffer-network/coffer/node/api/apitest"
	"github.com/coffer-network/coffer/node/api/client"
)

// ETH against BTC, as a client sees it: what the planned transaction pays is the net to
// the wei, its gas limit and cap are no more than the fee that was taken for them, what
// arrives at the repay address is told with all its wei, ends the debt, and is supply
// beyond it. What the answer calls fullRepay is enough. Seen failing with a repay address
// whose deposits are supply ("owed").
func TestBorrowETH(t *testing.T) {
	w := serve(t, apitest.NewWithKeys(t, func(g *ledger.Genesis) {
		p := g.Pools[0]
		p.Asset, p.MinSupply, p.MinBorrow, p.MinWithdraw = "eth", fixed.New(1_000_000_000), fixed.New(1_000_000_000), fixed.New(1_000_000_000)
		g.Pools = slices.Insert(g.Pools, 1, p)
	}))
	received := map[string]uint64{}
	send := func(account string, why ledger.Purpose, wei uint64) {
		t.Helper()
		at, ok := w.View().AddressOf(account, "eth", why)
		if !ok {
			t.Fatal("no address")
		}
		w.Mine("eth", 32)
		tip, _ := w.View().Tips.Get("eth")
		received[at.Address] += wei
		w.Say(ledger.KindInflow, ledger.InflowFact{
			Chain: "eth", ID: ledger.NativeID(at.Address, tip.Height), Address: at.Address, Asset: "eth",
			Amount: fixed.New(received[at.Address]), Height: tip.Height, Block: "final",
		})
		w.Settle()
	}
	id := w.borrower()
	lender, err := w.client.Open(w.ctx, w.wallet.SignerETH())
	if err != nil {
		t.Fatal(err)
	}
	send(lender.ID, ledger.PurposeSupply, 2_000_000_000_000_000_000)
	position := func() (found client.Position) {
		t.Helper()
		a, err := w.client.Account(w.ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range a.Health.Positions {
			if p.Pool == "eth" {
				found = p
			}
		}
		return found
	}
	r, err := w.client.Borrow(w.ctx, w.wallet.SignerBTC(), id, client.Payout{Pool: "eth", Amount: "500000000000000001", To: payee})
	if err != nil {
		t.Fatal(err)
	}
	w.Tick(10 * time.Second)
	o, err := w.client.Outflow(w.ctx, r.Outflow)
	if err != nil || o.Kind != "borrow" || o.Asset != "eth" || o.State != "PLANNED" {
		t.Fatalf("%+v %v", o, err)
	}
	b, _ := w.View().Batches.Get(o.Batch)
	tx, fee := b.Newest().Ethereum, fixed.MustParse(o.Fee)
	if tx.Value.String() != o.Net || len(tx.Data) != 0 || fee.Less(fixed.New(tx.Gas*tx.FeeCap)) {
		t.Errorf("pays %s with %d gas at %d, told %s and a fee of %s", tx.Value, tx.Gas, tx.FeeCap, o.Net, o.Fee)
	}
	w.Settle()
	if o, err = w.client.Outflow(w.ctx, r.Outflow); err != nil || o.State != "PAID" {
		t.Fatalf("%+v %v", o, err)
	}
	sum, err := fixed.Add(fixed.MustParse(o.Net), fixed.MustParse(o.Fee))
	if err != nil || sum.String() != "500000000000000001" || o.Gross != sum.String() {
		t.Errorf("net %s and fee %s are %s", o.Net, o.Fee, sum)
	}
	p := position()
	owed := fixed.MustParse(p.Owed)
	if owed.Less(sum) || p.FullRepay == "" || fixed.MustParse(p.FullRepay).Less(owed) {
		t.Fatalf("position %+v", p)
	}
	full, _ := fixed.MustParse(p.FullRepay).Uint64()
	const beyond = 70_000_000_000_000_000
	send(id, ledger.PurposeRepay, full+beyond)
	if p = position(); p.Owed != "0" || fixed.MustParse(p.Supplied).Less(fixed.New(beyond-1)) {
		t.Errorf("owed %s, supplied %s", p.Owed, p.Supplied)
	}
	l, err := w.client.Activities(w.ctx, id, "", 1)
	if err != nil || len(l.Activities) != 1 || l.Activities[0].Kind != "repay" || l.Activities[0].Amount != fixed.New(full+beyond).String() || l.Activities[0].State != "CREDITED" {
		t.Errorf("%+v %v", l, err)
	}
	if r, err = w.client.Withdraw(w.ctx, w.wallet.SignerBTC(), id, client.Payout{Pool: "eth", Amount: fixed.New(beyond - 1).String(), To: payee}); err != nil {
		t.Fatalf("the excess: %v", err)
	}
	w.Settle()
	if o, err = w.client.Outflow(w.ctx, r.Outflow); err != nil || o.State != "PAID" {
		t.Errorf("%+v %v", o, err)
	}
}
