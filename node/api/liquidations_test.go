package api_test

import (
	"errors"
	"testing"
	"time"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node/api/apitest"
	"github.com/coffer-network/coffer/node/api/client"
)

// An unhealthy loan is listed with why nobody may liquidate it yet; then a
// lender liquidates it and withdraws his gain in one request.
func TestALiquidationThroughTheAPI(t *testing.T) {
	w := serve(t, apitest.NewWithKeys(t))
	id := w.borrower()
	if _, err := w.client.Borrow(w.ctx, w.wallet.SignerBTC(), id, client.Payout{Pool: "usdt.eth", Amount: "35000000000", To: payee}); err != nil {
		t.Fatal(err)
	}
	w.Settle()
	if l, err := w.client.AtRisk(w.ctx, "", 10); err != nil || len(l.Accounts) != 0 || l.Next != "" {
		t.Fatalf("before the fall: %+v %v", l, err)
	}
	w.Tick(15 * time.Second)
	w.Prices(map[string]uint64{"btc": 41_000, "eth": 2_500, "usdt.eth": 1})
	l, err := w.client.AtRisk(w.ctx, "", 10)
	if err != nil || len(l.Accounts) != 1 || l.Accounts[0].ID != id || l.Accounts[0].Code != "PRICE_SUSPECT" || *l.Accounts[0].HealthFactorShown != "0.93" {
		t.Fatalf("at risk: %+v %v", l, err)
	}
	if l, err := w.client.AtRisk(w.ctx, id, 10); err != nil || len(l.Accounts) != 0 {
		t.Errorf("behind the cursor: %+v %v", l, err)
	}
	status, h, p := w.get("/v1/liquidations?cursor=x")
	w.problem(status, h, p, 400, "MALFORMED")

	lender := w.wallet.SignerETH()
	ask := client.Liquidation{Borrower: id, Debt: "usdt.eth", Collateral: "btc", Amount: "10000000000", AutoWithdrawTo: w.wallet.SignerP2TR().ID().String()}
	send := func() (*client.Request, error) {
		a, err := w.client.PrepareLiquidation(w.ctx, lender.ID(), "", ask)
		if err != nil {
			t.Fatal(err)
		}
		return w.client.Submit(w.ctx, lender, a)
	}
	var refused *client.Problem
	if _, err := send(); !errors.As(err, &refused) || refused.Code != "PRICE_SUSPECT" {
		t.Fatalf("while the price is suspect: %v", err)
	}
	w.Tick(601 * time.Second)
	w.Say(ledger.KindFee, []ledger.FeeReport{{Chain: "btc", Rate: 1_000}, {Chain: "eth", Rate: 1_000_000_000, Tip: 1_000_000_000}})
	if l, err = w.client.AtRisk(w.ctx, "", 10); err != nil || len(l.Accounts) != 1 || l.Accounts[0].Code != "OK" {
		t.Fatalf("after ten minutes: %+v %v", l, err)
	}
	r, err := send()
	if err != nil || r.Outflow == 0 {
		t.Fatalf("liquidate: %+v %v", r, err)
	}
	if o, ok := w.View().Outflows.Get(r.Outflow); !ok || o.Asset != "btc" || o.Kind != ledger.OutflowWithdraw {
		t.Errorf("outflow %+v", o)
	}

	cover, err := w.client.PrepareCover(w.ctx, lender.ID(), "", "usdt.eth", "1000000")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.client.Submit(w.ctx, lender, cover); !errors.As(err, &refused) || refused.Code != "NOT_ALLOWED" {
		t.Errorf("cover by one who is no insurance: %v", err)
	}

	// The node renders the same text that the client does.
	a, err := w.client.PrepareLiquidation(w.ctx, lender.ID(), "", ask)
	if err != nil {
		t.Fatal(err)
	}
	status, _, text := w.post("/v1/requests/render", client.RenderRequest{
		Action: "Liquidate", Amount: ask.Amount, Pool: ask.Debt, CollateralPool: ask.Collateral, Borrower: id, AutoWithdrawTo: ask.AutoWithdrawTo,
		MaxFee: a.Command.MaxFee.Units, Signer: lender.ID().String(), Expires: time.Unix(a.Command.Expires, 0).UTC(),
	})
	if status != 200 || text["text"] != a.Text {
		t.Errorf("rendered %d %v, want %s", status, text, a.Text)
	}
}
