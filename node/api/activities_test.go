package api_test

import (
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/fixed"
	"github.com/coffer-network/coffer/node/api"
	"github.com/coffer-network/coffer/node/api/apitest"
	"github.com/coffer-network/coffer/node/api/client"
	"github.com/coffer-network/coffer/node/api/history"
)

// "Activities with the state words of requests.md §6, confirmations n/m, top-up
// shortfall" (spec: lending F9).
func TestActivitiesOfALoan(t *testing.T) {
	w := serve(t, apitest.NewWithKeys(t))
	id := w.borrower()
	list := func(account string) []client.Activity {
		t.Helper()
		l, err := w.client.Activities(w.ctx, account, "", 200)
		if err != nil || l.Next != "" || l.Since > 1 {
			t.Fatalf("%+v %v", l, err)
		}
		if !slices.IsSortedFunc(l.Activities, func(a, b client.Activity) int { return b.Time.Compare(a.Time) }) {
			t.Errorf("not newest first: %+v", l.Activities)
		}
		return l.Activities
	}
	only := func(account, kind string) client.Activity {
		t.Helper()
		var found []client.Activity
		for _, x := range list(account) {
			if x.Kind == kind {
				found = append(found, x)
			}
		}
		if len(found) != 1 {
			t.Fatalf("%d activities %s: %+v", len(found), kind, list(account))
		}
		return found[0]
	}
	if x := only(id, "supply"); x.Status != "active" || x.State != "CREDITED" || x.Amount != "100000000" || x.Symbol != "BTC" || x.Confirmations != 13 || x.Required != 2 || x.TxID == "" || x.Inflow == "" {
		t.Errorf("supply %+v", x)
	}
	r, err := w.client.Borrow(w.ctx, w.wallet.SignerBTC(), id, client.Payout{Pool: "usdt.eth", Amount: "20000000000", To: payee})
	if err != nil {
		t.Fatal(err)
	}
	if x := only(id, "borrow"); x.Status != "processing" || x.State != "QUEUED" || x.Outflow != r.Outflow || x.Amount != "20000000000" || x.Detail != "" {
		t.Errorf("queued %+v", x)
	}
	w.Tick(10 * time.Second)
	o, _ := w.View().Outflows.Get(r.Outflow)
	b, _ := w.View().Batches.Get(o.Batch)
	tip, _ := w.View().Tips.Get("eth")
	w.Say(ledger.KindSpent, ledger.SpentFact{Batch: b.ID, Body: b.Newest().Body, Height: tip.Height, Block: "block"})
	if x := only(id, "borrow"); x.Status != "confirming" || x.State != "MINED" || x.Confirmations != 1 || x.Required != 1 {
		t.Errorf("mined %+v", x)
	}
	w.Say(ledger.KindFinal, ledger.FinalFact{
		Batch: b.ID, Body: b.Newest().Body, Outcome: ledger.OutcomePaid, TxID: strings.Repeat("cd", 32), Fee: fixed.New(1_000), Height: tip.Height, Block: "block",
	})
	if x := only(id, "borrow"); x.Status != "active" || x.State != "PAID" || x.TxID != strings.Repeat("cd", 32) {
		t.Errorf("paid, and owed %+v", x)
	}

	// Too little, then enough: each with the word for it.
	w.Deposit(id, "btc", ledger.PurposeSupply, 9_999)
	l, err := w.client.Activities(w.ctx, id, "", 1)
	if err != nil || len(l.Activities) != 1 || l.Next == "" {
		t.Fatalf("%+v %v", l, err)
	}
	if x := l.Activities[0]; x.Status != "action_required" || x.State != "SUSPENSE" || x.Reason != "BELOW_MIN" || *x.Shortfall != (client.Short{Minimum: "10000", Found: "9999", Missing: "1"}) || !strings.Contains(x.Detail, "claim") {
		t.Errorf("suspended %+v", x)
	}
	eth, ok := w.View().AddressOf(id, "eth", ledger.PurposeRepay)
	if !ok {
		t.Fatal("no address")
	}
	repay := func(n string, units uint64) {
		tip, _ := w.View().Tips.Get("eth")
		w.Say(ledger.KindInflow, ledger.InflowFact{Chain: "eth", ID: strings.Repeat("e", 64) + ":" + n, Address: eth.Address, Asset: "usdt.eth", Amount: fixed.New(units), Height: tip.Height, Block: "block"})
	}
	repay("0", 1_000_000)
	if x := only(id, "repay"); x.Status != "action_required" || x.State != "WAITING" || x.Shortfall == nil || !x.Shortfall.TopUp || x.Shortfall.Found != "1000000" {
		t.Errorf("not worth its sweep %+v", x)
	}
	repay("1", 30_000_000_000) // all of the debt, and more
	for _, x := range list(id) {
		if x.Kind == "repay" && (x.Status != "processing" || x.Shortfall != nil) {
			t.Errorf("topped up %+v", x)
		}
	}
	w.Settle()
	w.Settle()
	for _, x := range list(id) {
		if x.Kind == "repay" && x.Status != "completed" || x.Kind == "borrow" && x.Status != "completed" {
			t.Errorf("repaid %+v", x)
		}
	}

	// Pages neither double nor lose.
	var paged []client.Activity
	for cursor := ""; ; {
		l, err := w.client.Activities(w.ctx, id, cursor, 2)
		if err != nil {
			t.Fatal(err)
		}
		paged = append(paged, l.Activities...)
		if cursor = l.Next; cursor == "" {
			break
		}
	}
	whole := list(id)
	if !slices.EqualFunc(paged, whole, func(a, b client.Activity) bool { return a.ID == b.ID }) || len(whole) != 5 {
		t.Errorf("pages %+v, want %+v", paged, whole)
	}
	status, h, p := w.get("/v1/accounts/" + strings.Repeat("0", 32) + "/activities")
	w.problem(status, h, p, 404, "UNKNOWN_ACCOUNT")
}

// What leaves no trace in the ledger is told from the records, and a node that
// has none says so.
func TestActivitiesThatOnlyTheRecordsTell(t *testing.T) {
	w, borrower, id := liquidated(t)
	lender, err := w.client.Open(w.ctx, w.wallet.SignerETH())
	if err != nil {
		t.Fatal(err)
	}
	find := func(c *client.Client, account, kind string) (client.Activity, bool) {
		t.Helper()
		l, err := c.Activities(w.ctx, account, "", 200)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range l.Activities {
			if x.Kind == kind {
				return x, true
			}
		}
		return client.Activity{}, false
	}
	if x, ok := find(w.client, borrower, "liquidated"); !ok || x.Liquidation != id || x.Amount != "10000000000" || x.Status != "completed" || x.Pool != "usdt.eth" {
		t.Errorf("the borrower's %+v", x)
	}
	if x, ok := find(w.client, lender.ID, "liquidates"); !ok || x.Liquidation != id || x.Pool != "btc" || x.Symbol != "BTC" {
		t.Errorf("the liquidator's %+v", x)
	}
	store := history.Open(history.Config{})
	store.Applied(history.Record{Height: 7, Millis: 1_600_000_000_000, Code: ledger.OK, Entries: []history.Entry{{
		Event: ledger.Event{Name: "credited", Account: borrower, Asset: "btc", Amount: "5", Note: "dead:0 BELOW_MIN"}, Inflow: "dead:0", Kind: "supply",
	}}})
	srv := httptest.NewServer(api.New(w.Cluster, api.Config{History: store}))
	t.Cleanup(srv.Close)
	other, err := client.New(srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := find(other, borrower, "liquidated"); ok {
		t.Error("a node that remembers nothing tells a liquidation")
	}
	l, err := other.Activities(w.ctx, borrower, "", 200)
	if err != nil || l.Since != 7 {
		t.Fatalf("since %+v %v", l, err)
	}
	last := l.Activities[len(l.Activities)-1] // one that the ledger has let go of
	if last.ID != "inflow:dead:0" || last.Kind != "supply" || last.State != "SUSPENSE" || last.Reason != "BELOW_MIN" || last.Status != "completed" {
		t.Errorf("let go of %+v", last)
	}
	if d, err := other.Inflow(w.ctx, "dead:0", ""); err != nil || d.Account != borrower || d.Amount != "5" || d.State != "SUSPENSE" || len(d.Credits) != 1 {
		t.Errorf("deposit let go of: %+v %v", d, err)
	}

	w.Note(nil, nil, map[string][]api.Sighting{borrower: {{Chain: "btc", Address: addressOf(t, w, borrower), Asset: "btc", TxID: "aa", Amount: "7", Height: 3, Confirmations: 1, Required: 2}}})
	if l, err = w.client.Activities(w.ctx, borrower, "", 1); err != nil || len(l.Local) != 1 {
		t.Fatalf("local %+v %v", l, err)
	}
	if x := l.Local[0]; x.Kind != "supply" || x.Status != "confirming" || x.Confirmations != 1 || x.Required != 2 || x.Decimals != 8 {
		t.Errorf("seen %+v", x)
	}
}

func addressOf(t *testing.T, w *world, account string) string {
	t.Helper()
	a, ok := w.View().AddressOf(account, "btc", ledger.PurposeSupply)
	if !ok {
		t.Fatal("no address")
	}
	return a.Address
}

// A simple loan is an activity that says what collateral is missing, and that
// its window is over.
func TestActivitiesOfASimpleLoan(t *testing.T) {
	w := serve(t, apitest.NewWithKeys(t))
	w.borrower()
	signer := w.wallet.SignerBTC()
	a, err := w.client.PrepareLoan(w.ctx, signer.ID(), client.LoanTerms{
		Collateral: "100000000", CollateralPool: "btc", Amount: "1000000000", Pool: "usdt.eth", To: w.wallet.SignerETH().ID().String(), RefundTo: signer.ID().String(),
	})
	if err != nil {
		t.Fatal(err)
	}
	r, err := w.client.Submit(w.ctx, signer, a)
	if err != nil {
		t.Fatal(err)
	}
	loan := func() client.Activity {
		t.Helper()
		l, err := w.client.Activities(w.ctx, r.Account, "", 10)
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(l.Activities, func(x client.Activity) bool { return x.Kind == "loan" })
		if i < 0 {
			t.Fatalf("no loan in %+v", l)
		}
		return l.Activities[i]
	}
	if x := loan(); x.Status != "action_required" || x.State != "WAITING" || *x.Shortfall != (client.Short{Minimum: "100000000", Found: "0", Missing: "100000000", TopUp: true}) || !strings.Contains(x.Detail, "in btc before") {
		t.Errorf("opened %+v", x)
	}
	w.Deposit(r.Account, "btc", ledger.PurposeSupply, 40_000_000)
	if x := loan(); x.Shortfall == nil || x.Shortfall.Found == "0" || x.Shortfall.Missing == "100000000" {
		t.Errorf("a part %+v", x)
	}
	w.Tick(25 * time.Hour)
	if x := loan(); x.Status != "expired" || x.Shortfall != nil {
		t.Errorf("window over %+v", x)
	}
}
