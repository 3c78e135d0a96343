package api_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/node/api/apitest"
	"github.com/coffer-network/coffer/node/api/client"
)

func TestSearchFindsWhatPeopleHaveAtHand(t *testing.T) {
	w := serve(t, apitest.NewWithKeys(t))
	id := w.borrower()
	r, err := w.client.Borrow(w.ctx, w.wallet.SignerBTC(), id, client.Payout{Pool: "usdt.eth", Amount: "20000000000", To: payee})
	if err != nil {
		t.Fatal(err)
	}
	w.Settle()
	o, err := w.client.Outflow(w.ctx, r.Outflow)
	if err != nil {
		t.Fatal(err)
	}
	in, err := w.client.Inflows(w.ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	deposit, _ := w.View().AddressOf(id, "btc", ledger.PurposeSupply)
	signer := w.wallet.SignerBTC().ID()
	txid, _, _ := strings.Cut(in.Inflows[0].ID, ":")
	for q, want := range map[string]string{
		id:              "account " + id,
		deposit.Address: "address " + deposit.Address,
		signer.Address:  "wallet " + signer.String(),
		signer.String(): "wallet " + signer.String(),
		o.TxID:          "outflow " + strconv.FormatUint(r.Outflow, 10),
		txid:            "inflow " + in.Inflows[0].ID,
		r.ID:            "request " + r.ID,
		"node-2":        "member node-2",
	} {
		f, err := w.client.Search(w.ctx, q)
		if err != nil {
			t.Errorf("%s: %v", q, err)
			continue
		}
		if len(f.Finds) != 1 || f.Finds[0].Kind+" "+f.Finds[0].ID != want || f.Finds[0].Kind != "member" && f.Finds[0].Account != id {
			t.Errorf("%s: %+v, want %s of %s", q, f.Finds, want, id)
		}
	}
	if f, err := w.client.Search(w.ctx, strconv.FormatUint(r.Outflow, 10)); err != nil || len(f.Finds) != 1 || f.Finds[0].Kind != "outflow" {
		t.Errorf("by number: %+v %v", f, err)
	}
	for _, q := range []string{"nobody", "0x00", strings.Repeat("0", 64), "btc/" + deposit.Address} {
		if f, err := w.client.Search(w.ctx, q); err != nil || len(f.Finds) != 0 {
			t.Errorf("%s: %+v %v", q, f, err)
		}
	}
	status, h, p := w.get("/v1/search?q=" + strings.Repeat("a", 201))
	w.problem(status, h, p, 400, "MALFORMED")
}

// "markets with rates, utilisation, caps and which limit blocks", "Queue and the
// clearing rate when utilisation is 100 %" (spec: lending §15 F6, F19)
func TestMarketsSayWhichLimitBlocks(t *testing.T) {
	w := serve(t, apitest.NewWithKeys(t))
	blocks := func(pool string) string {
		p, err := w.client.Pool(w.ctx, pool)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, b := range p.Blocks {
			out = append(out, b.Operation+" "+b.Code)
		}
		return strings.Join(out, ", ")
	}
	if got := blocks("usdt.eth"); got != "withdraw NO_LIQUIDITY, borrow NO_LIQUIDITY" {
		t.Errorf("an empty pool blocks %q", got)
	}
	id := w.borrower()
	if got := blocks("usdt.eth"); got != "" {
		t.Errorf("a pool with cash blocks %q", got)
	}
	p, err := w.client.Pool(w.ctx, "usdt.eth")
	if err != nil || p.ClearingRate != "640000000000000000000000000" || p.BorrowRoom != nil {
		t.Errorf("clearing rate %s (S1 + S2 are 64 %%), headroom %v, %v", p.ClearingRate, p.BorrowRoom, err)
	}
	if _, err := w.client.Borrow(w.ctx, w.wallet.SignerBTC(), id, client.Payout{Pool: "usdt.eth", Amount: "20000000000", To: payee}); err != nil {
		t.Fatal(err)
	}
	if p, err = w.client.Pool(w.ctx, "usdt.eth"); err != nil || p.Queued != 1 || p.QueuedAmount != "20000000000" {
		t.Errorf("%d queued with %s, %v", p.Queued, p.QueuedAmount, err)
	}
	for range 60 {
		w.Tick(10_000_000_000)
	}
	if got := blocks("usdt.eth"); !strings.Contains(got, "borrow PRICE_STALE") {
		t.Errorf("with an old price: %q", got)
	}
}

// "before/after HF, LTV, liquidation price, APYs, net amount, fee" (spec: lending
// §15 F5, F15)
func TestPreviewShowsTheRatesAfterwards(t *testing.T) {
	w := serve(t, apitest.NewWithKeys(t))
	id := w.borrower()
	g, err := w.client.Grammar(w.ctx)
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := client.ParseAccount(id)
	a, err := w.client.Prepare(w.ctx, address.Command{
		Action: address.ActionBorrow, Amount: g.Amount("usdt.eth", "20000000000"), Pool: "usdt.eth", Account: raw,
		To:     address.CAIP10{Namespace: "eip155", Reference: "1337", Address: payee},
		MaxFee: g.Amount("usdt.eth", "900000000"), Signer: w.wallet.SignerBTC().ID(),
	})
	if err != nil {
		t.Fatal(err)
	}
	p, err := w.client.Preview(w.ctx, a)
	if err != nil {
		t.Fatal(err)
	}
	if p.Code != "OK" || p.PoolBefore == nil || p.PoolAfter == nil || p.PoolBefore.Utilisation != "0" || p.Net == "" || p.Fee == "" {
		t.Fatalf("preview %+v", p)
	}
	before := hashApartFrom(w.View(), id)
	if _, err := w.client.Borrow(w.ctx, w.wallet.SignerBTC(), id, client.Payout{Pool: "usdt.eth", Amount: "20000000000", To: payee, MaxFee: "900000000"}); err != nil {
		t.Fatal(err)
	}
	if hashApartFrom(w.View(), id) == before {
		t.Fatal("the borrow changed nothing")
	}
	got, err := w.client.Pool(w.ctx, "usdt.eth")
	if err != nil || got.BorrowAPY != p.PoolAfter.BorrowAPY || got.Utilisation != p.PoolAfter.Utilisation || got.SupplyAPY != p.PoolAfter.SupplyAPY {
		t.Errorf("the borrow left APY %s at %s, its preview said %s at %s", got.BorrowAPY, got.Utilisation, p.PoolAfter.BorrowAPY, p.PoolAfter.Utilisation)
	}
}
