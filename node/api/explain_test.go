package api_test

import (
	"encoding/json"
	"errors"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
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

// liquidated is a world in which a loan of 35,000 USDT against 1 BTC was
// liquidated for 10,000 after BTC fell to $41,000, and the id of that.
func liquidated(t *testing.T) (w *world, borrower string, id uint64) {
	t.Helper()
	w = serve(t, apitest.NewWithKeys(t))
	borrower = w.borrower()
	if _, err := w.client.Borrow(w.ctx, w.wallet.SignerBTC(), borrower, client.Payout{Pool: "usdt.eth", Amount: "35000000000", To: payee}); err != nil {
		t.Fatal(err)
	}
	w.Settle()
	w.Tick(15 * time.Second)
	w.Prices(map[string]uint64{"btc": 41_000, "eth": 2_500, "usdt.eth": 1})
	w.Tick(601 * time.Second)
	r, err := w.liquidate(borrower, "10000000000")
	if err != nil {
		t.Fatal(err)
	}
	return w, borrower, r.LogIndex
}

func (w *world) liquidate(borrower, amount string) (*client.Request, error) {
	w.t.Helper()
	lender := w.wallet.SignerETH()
	a, err := w.client.PrepareLiquidation(w.ctx, lender.ID(), "", client.Liquidation{Borrower: borrower, Debt: "usdt.eth", Collateral: "btc", Amount: amount})
	if err != nil {
		w.t.Fatal(err)
	}
	return w.client.Submit(w.ctx, lender, a)
}

// "explain <liquidation-id> replays it from the log" (spec: lending F16).
func TestALiquidationIsExplained(t *testing.T) {
	w, borrower, id := liquidated(t)
	l, err := w.client.Liquidation(w.ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	if l.ID != id || l.Borrower != borrower || l.Repaid != "10000000000" || l.DebtSymbol != "USDT" || l.CollateralSymbol != "BTC" || l.Request == "" || l.HFBeforeShown != "0.93" {
		t.Fatalf("liquidation %+v", l)
	}
	x, err := w.client.Explain(w.ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	if !x.Agrees || x.Differs != "" || x.AsOf < id || len(x.Legs) != 2 {
		t.Fatalf("explanation %+v", x)
	}
	want := map[string]struct{ computed, words string }{
		"health factor before":    {l.HFBefore, "ratio is 0.93, below 1"},
		"most that may be repaid": {"", "not above 0.95, so all of the debt may be repaid"},
		"repaid":                  {"10000000000", "10000.000000 USDT were asked for"},
		"seized":                  {l.Seized, "5.00 % for the liquidator's trouble"},
		"fee":                     {l.Fee, "goes to the treasury"},
		"health factor after":     {*l.HFAfter, "the health factor is " + l.HFAfterShown},
	}
	for _, st := range x.Steps {
		if !st.Agrees || st.Computed != st.Recorded {
			t.Errorf("step %+v", st)
		}
		if e, ok := want[st.What]; ok {
			if e.computed != "" && st.Computed != e.computed || !strings.Contains(st.Words, e.words) {
				t.Errorf("step %+v, want %+v", st, e)
			}
			delete(want, st.What)
		}
	}
	if len(want) != 0 {
		t.Errorf("steps not told: %v", want)
	}
	// 10,000 / 41,000 BTC, rounded down, and 1.05 of that, rounded down.
	if l.Seized != "25609755" {
		t.Errorf("seized %s, want 25609755", l.Seized)
	}
	if r, err := ledger.ParseLiquidation(x.Record); err != nil || r.ID != id {
		t.Errorf("record %v", err)
	}

	p, err := w.client.PastLiquidations(w.ctx, "", 10)
	if err != nil || len(p.Liquidations) != 1 || p.Liquidations[0].ID != id || p.Next != "" {
		t.Errorf("past %+v %v", p, err)
	}
	if p, err := w.client.PastLiquidations(w.ctx, strconv.FormatUint(id, 10), 10); err != nil || len(p.Liquidations) != 0 {
		t.Errorf("behind the cursor %+v %v", p, err)
	}
	for _, path := range []string{"", "/explain"} {
		for _, none := range []uint64{0, 1, id - 1, id + 1, 1 << 63, 1<<64 - 1} {
			status, h, p := w.get("/v1/liquidations/" + strconv.FormatUint(none, 10) + path)
			w.problem(status, h, p, 404, "UNKNOWN_LIQUIDATION")
		}
		status, h, p := w.get("/v1/liquidations/x" + path)
		w.problem(status, h, p, 400, "MALFORMED")
	}
	status, h, q := w.get("/v1/liquidations/past?cursor=x")
	w.problem(status, h, q, 400, "MALFORMED")
}

// A record whose numbers do not follow is shown as such, and where.
func TestAWrongLiquidationIsNotExplainedAway(t *testing.T) {
	w, _, id := liquidated(t)
	rs, err := w.History().Find(history.ByName(ledger.EventLiquidated), 0, 1)
	if err != nil || len(rs) != 1 {
		t.Fatalf("%d records, %v", len(rs), err)
	}
	for what, spoil := range map[string]func(*ledger.LiquidationRecord){
		"seized":               func(r *ledger.LiquidationRecord) { r.Seizure.Seized = fixed.New(25_609_756) },
		"health factor before": func(r *ledger.LiquidationRecord) { r.HFBefore = fixed.New(1) },
		"health factor after":  func(r *ledger.LiquidationRecord) { r.HFAfter = nil },
		"fee":                  func(r *ledger.LiquidationRecord) { r.Rules.Fee++ },
	} {
		rec := rs[0]
		rec.Entries = slices.Clone(rec.Entries)
		for i, e := range rec.Entries {
			if e.Event.Name == ledger.EventLiquidated {
				r, err := ledger.ParseLiquidation(e.Event.Note)
				if err != nil {
					t.Fatal(err)
				}
				r.Legs = slices.Clone(r.Legs)
				spoil(&r)
				rec.Entries[i].Event.Note = r.Note()
			}
		}
		store := history.Open(history.Config{})
		store.Applied(rec)
		srv := httptest.NewServer(api.New(w.Cluster, api.Config{History: store}))
		c, err := client.New(srv.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		x, err := c.Explain(w.ctx, id)
		srv.Close()
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(x.Steps, func(st client.ExplainStep) bool { return st.What == what })
		if x.Agrees || x.Differs == "" || i < 0 || x.Steps[i].Agrees || x.Steps[i].Computed == x.Steps[i].Recorded {
			t.Errorf("%s spoilt: %+v", what, x)
		}
	}
}

// A refused request says its numbers as the log has them, and what would have
// been accepted; an accepted one goes on in its outflow.
func TestWhyARequestWasRefused(t *testing.T) {
	w := serve(t, apitest.NewWithKeys(t))
	id := w.borrower()
	btc := w.wallet.SignerBTC()
	borrow := func(amount, maxFee string) (string, error) {
		t.Helper()
		a, err := w.client.PreparePayout(w.ctx, "Borrow", btc.ID(), id, client.Payout{Pool: "usdt.eth", Amount: amount, To: payee, MaxFee: maxFee})
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.client.Submit(w.ctx, btc, a)
		return a.ID, err
	}
	for _, tc := range []struct {
		amount, maxFee, code, limit, found, words string
	}{
		{"45000000000", "", "HEALTH_FACTOR", "1000000000000000000", "888888888888888888", "at 1 or above; it would have been 0.88"},
		{"38000000000", "", "MAX_LTV", "7500", "7600", "LTV at 75.00 % or below; it would have been 76.00 %"},
		{"999999", "0", "BELOW_MIN", "1000000", "999999", "at least 1.000000 USDT"},
		{"100000000001", "", "NO_LIQUIDITY", "100000000000", "100000000001", "at most 100000.000000 USDT"},
		{"1000000000", "1", "FEE_TOO_HIGH", "1", "", "a Max fee of at least "},
	} {
		request, err := borrow(tc.amount, tc.maxFee)
		if !client.IsCode(err, tc.code) {
			t.Errorf("%s: %v", tc.code, err)
			continue
		}
		y, err := w.client.RequestWhy(w.ctx, request, "")
		if err != nil {
			t.Fatal(err)
		}
		if y.State != "refused" || y.Code != tc.code || y.Limit != tc.limit || tc.found != "" && y.Found != tc.found || !strings.Contains(y.Accepted, tc.words) {
			t.Errorf("why %+v, want %+v", y, tc)
		}
		if y.Account != id || y.Action != "Borrow" || y.Amount != tc.amount || y.MostNow == "" || !y.NonceUsed || y.NextNonce != y.Nonce+1 || y.Time == nil || y.LogIndex == 0 || y.Detail == "" {
			t.Errorf("why %+v", y)
		}
		// What is said to be accepted is: a view that lies is worse than none.
		if tc.code == "FEE_TOO_HIGH" {
			if _, err := borrow(tc.amount, y.Found); err != nil {
				t.Errorf("with the Max fee said: %v", err)
			}
		}
	}
	y, err := w.client.RequestWhy(w.ctx, mustRefuse(t, borrow, "45000000000"), "")
	if err != nil {
		t.Fatal(err)
	}
	request, err := borrow(y.MostNow, "")
	if err != nil {
		t.Errorf("borrow the most said: %v", err)
	}
	if y, err = w.client.RequestWhy(w.ctx, request, ""); err != nil || y.State != "accepted" || y.Code != "OK" || y.Outflow == nil || y.Outflow.State != "QUEUED" || y.Accepted != "" || y.Limit != "" {
		t.Errorf("accepted: %+v %v", y, err)
	}

	// A node without memory has the stored result, and says no numbers.
	forgetful := httptest.NewServer(api.New(w.Cluster, api.Config{}))
	t.Cleanup(forgetful.Close)
	fresh, err := client.New(forgetful.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	if y, err := fresh.RequestWhy(w.ctx, request, id); err != nil || y.Code != "OK" || y.Action != "" || y.NonceUsed != true {
		t.Errorf("from the ledger alone: %+v %v", y, err)
	}
	if _, err := fresh.RequestWhy(w.ctx, request, ""); !client.IsCode(err, "UNKNOWN_REQUEST") {
		t.Errorf("not remembered: %v", err)
	}
	status, h, p := w.get("/v1/requests/zz/why")
	w.problem(status, h, p, 400, "MALFORMED")
}

func mustRefuse(t *testing.T, borrow func(amount, maxFee string) (string, error), amount string) string {
	t.Helper()
	id, err := borrow(amount, "")
	var p *client.Problem
	if !errors.As(err, &p) {
		t.Fatalf("borrow %s: %v", amount, err)
	}
	return id
}

// A deposit from this node's first sight of it to its final block, and those
// that fall short.
func TestWhyADepositWaits(t *testing.T) {
	w := serve(t, apitest.NewWithKeys(t))
	id := w.borrower()
	why := func(inflow, account string) *client.InflowWhy {
		t.Helper()
		y, err := w.client.InflowWhy(w.ctx, inflow, account)
		if err != nil {
			t.Fatal(err)
		}
		d, err := w.client.Inflow(w.ctx, inflow, account)
		if err != nil || d.State != y.State || d.Status != y.Status || d.Account != y.Account {
			t.Fatalf("detail %+v %v of %+v", d, err, y)
		}
		return y
	}
	address := func(chain string) string {
		a, ok := w.View().AddressOf(id, chain, ledger.PurposeSupply)
		if !ok {
			t.Fatal("no address")
		}
		return a.Address
	}
	attest := func(chain, asset, inflow string, units uint64, back uint64) {
		tip, _ := w.View().Tips.Get(chain)
		w.Say(ledger.KindInflow, ledger.InflowFact{
			Chain: chain, ID: inflow, Address: address(chain), Asset: asset, Amount: fixed.New(units), Height: tip.Height - back, Block: "block",
		})
	}
	tx := strings.Repeat("ab", 32)

	see := func(height, have uint64, ignored string) {
		w.Note(nil, nil, map[string][]api.Sighting{id: {{
			Chain: "btc", Address: address("btc"), Asset: "btc", TxID: tx, Amount: "20000", Height: height, Confirmations: have, Required: 2, Ignored: ignored,
		}}})
	}
	see(0, 0, "")
	if y := why(tx+":0", id); y.State != "SEEN" || y.Status != "confirming" || y.Required != 2 || len(y.WaitingFor) != 1 || y.WaitingFor[0].What != "confirmations" {
		t.Errorf("in no block: %+v", y)
	}
	see(100, 1, "")
	if y := why(tx+":0", id); y.Confirmations != 1 || len(y.WaitingFor) != 1 || y.WaitingFor[0].Have != "1" || y.WaitingFor[0].Need != "2" {
		t.Errorf("in a block: %+v", y)
	}
	see(100, 2, "")
	if y := why(tx+":0", id); len(y.WaitingFor) != 1 || y.WaitingFor[0].What != "attestations" || y.WaitingFor[0].Need != "3 of 4 members" {
		t.Errorf("deep enough: %+v", y)
	}
	see(100, 2, "unlisted token")
	if y := why(tx+":0", id); y.Status != "action_required" || !strings.Contains(y.Detail, "unlisted token") {
		t.Errorf("ignored: %+v", y)
	}
	status, h, p := w.get("/v1/inflows/" + url.PathEscape(tx+":0"))
	w.problem(status, h, p, 404, "UNKNOWN_INFLOW")
	status, h, p = w.get("/v1/inflows/x/why?account=y")
	w.problem(status, h, p, 400, "MALFORMED")
	w.Note(nil, nil, nil)

	attest("btc", "btc", tx+":0", 20_000, 1)
	if y := why(tx+":0", ""); y.State != "CREDITED" || y.Status != "active" || y.Confirmations != 2 || len(y.WaitingFor) != 1 || y.WaitingFor[0].Need != "6" || !strings.Contains(y.Detail, "counts as collateral when") {
		t.Errorf("credited, not final: %+v", y)
	}
	w.Mine("btc", 4)
	if y := why(tx+":0", ""); len(y.WaitingFor) != 0 || y.Detail != "it is credited" || y.Shortfall != nil {
		t.Errorf("final: %+v", y)
	}
	if d, err := w.client.Inflow(w.ctx, tx+":0", ""); err != nil || len(d.Credits) != 1 || d.Credits[0].Reason != "" || d.Credits[0].LogIndex == 0 {
		t.Errorf("credits %+v %v", d, err)
	}

	attest("btc", "btc", tx+":1", 9_999, 6)
	y := why(tx+":1", "")
	if y.State != "SUSPENSE" || y.Status != "action_required" || y.Shortfall == nil || *y.Shortfall != (client.Short{Minimum: "10000", Found: "9999", Missing: "1"}) || y.WaitingFor[0].What != "claim" || y.WaitingFor[0].Have != "BELOW_MIN" {
		t.Errorf("below the minimum: %+v %+v", y, y.Shortfall)
	}
	least := w.View().Params.MinCoin
	attest("btc", "btc", tx+":2", least-1, 6)
	if y := why(tx+":2", ""); y.State != "SMALL" || y.Shortfall == nil || y.Shortfall.Missing != "1" || y.Shortfall.TopUp {
		t.Errorf("below the smallest coin: %+v %+v", y, y.Shortfall)
	}

	// A token deposit that is not worth its sweep counts once it is topped up.
	attest("eth", "usdt.eth", tx+":3", 1_000_000, 0)
	y = why(tx+":3", "")
	if y.State != "WAITING" || y.Shortfall == nil || !y.Shortfall.TopUp || y.Shortfall.Found != "1000000" || y.WaitingFor[0].What != "deposit" {
		t.Fatalf("not worth its sweep: %+v %+v", y, y.Shortfall)
	}
	missing, err := strconv.ParseUint(y.Shortfall.Missing, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	attest("eth", "usdt.eth", tx+":4", missing-1, 0)
	w.Tick(10 * time.Second)
	if y := why(tx+":3", ""); y.State != "WAITING" || y.Shortfall == nil || y.Shortfall.Missing != "1" {
		t.Errorf("topped up by one too little: %+v %+v", y, y.Shortfall)
	}
	attest("eth", "usdt.eth", tx+":5", 1, 0)
	if y := why(tx+":3", ""); y.Shortfall != nil {
		t.Errorf("topped up: %+v", y.Shortfall)
	}
	w.Tick(10 * time.Second)
	if y := why(tx+":3", ""); y.State != "SWEEPING" || y.Sweep == nil || len(y.Sweep.WaitingFor) == 0 {
		t.Errorf("on its way: %+v", y)
	}
	w.Settle()
	w.Settle()
	if y := why(tx+":3", ""); y.State != "CREDITED" || y.Status != "completed" {
		t.Errorf("swept: %+v", y)
	}
}

// The document that clients generate types from names every call.
func TestOpenAPINamesTheWhys(t *testing.T) {
	w := serve(t, apitest.NewWithKeys(t))
	_, _, doc := w.get("/openapi.json")
	raw, err := json.Marshal(doc["paths"])
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{
		"/v1/liquidations/past", "/v1/liquidations/{id}", "/v1/liquidations/{id}/explain", "/v1/requests/{id}/why", "/v1/inflows/{id}", "/v1/inflows/{id}/why",
	} {
		if !strings.Contains(string(raw), `"`+path+`"`) {
			t.Errorf("%s is not in it", path)
		}
	}
}
