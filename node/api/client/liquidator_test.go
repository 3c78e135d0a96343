package client_test

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/node/api"
	"github.com/coffer-network/coffer/node/api/apitest"
	"github.com/coffer-network/coffer/node/api/client"
)

const dollar = 100_000_000 // USD · 10⁸

// hunt is a cluster with a liquidator in it. Before is called ahead of every
// call of the API.
type hunt struct {
	*apitest.Cluster
	t      *testing.T
	ctx    context.Context
	bot    *client.Liquidator
	wallet *client.Wallet
	hook   atomic.Pointer[func(*http.Request)] // called before each request that the node answers
	took   []client.Liquidated
	skips  []string // code, or borrower's and code
}

// before has f called with every request from now on.
func (h *hunt) before(f func(*http.Request)) { h.hook.Store(&f) }

func newHunt(t *testing.T, c *apitest.Cluster) *hunt {
	t.Helper()
	h := &hunt{Cluster: c, t: t}
	h.before(func(*http.Request) {})
	var cancel func()
	h.ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	handler := api.New(c, api.Config{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		(*h.hook.Load())(r)
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	first, err := client.New(srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	cl, err := first.Cluster(h.ctx)
	if err != nil {
		t.Fatal(err)
	}
	pin, err := client.NewPin(cl)
	if err != nil {
		t.Fatal(err)
	}
	if h.wallet, err = client.NewWallet(pin); err != nil {
		t.Fatal(err)
	}
	own, err := client.New(srv.URL, pin)
	if err != nil {
		t.Fatal(err)
	}
	a, err := own.Open(h.ctx, h.wallet.SignerETH())
	if err != nil {
		t.Fatal(err)
	}
	h.bot = &client.Liquidator{Client: own, Signer: h.wallet.SignerETH(), Account: a.ID}
	return h
}

// person opens an account that supplies units by asset.
func (h *hunt) person(supply map[string]uint64) (client.Signer, string) {
	h.t.Helper()
	w, err := client.NewWallet(h.wallet.Pin())
	if err != nil {
		h.t.Fatal(err)
	}
	a, err := h.bot.Client.Open(h.ctx, w.SignerBTC())
	if err != nil {
		h.t.Fatal(err)
	}
	for asset, units := range supply {
		h.Deposit(a.ID, asset, ledger.PurposeSupply, units)
	}
	return w.SignerBTC(), a.ID
}

// borrower owes so many USDT against what he supplies.
func (h *hunt) borrower(usdt uint64, supply map[string]uint64) string {
	h.t.Helper()
	s, id := h.person(supply)
	if _, err := h.bot.Client.Borrow(h.ctx, s, id, client.Payout{Pool: "usdt.eth", Amount: fmt.Sprint(usdt * 1_000_000), To: payee}); err != nil {
		h.t.Fatal(err)
	}
	h.Settle()
	return id
}

const payee = "0x71C7656EC7ab88b098defB751B7401B5f6d8976F"

// lend has somebody else supply what is borrowed.
func (h *hunt) lend(usdt uint64) { h.person(map[string]uint64{"usdt.eth": usdt * 1_000_000}) }

// feed is the supply of the bot.
func (h *hunt) feed(asset string, units uint64) {
	h.t.Helper()
	h.Deposit(h.bot.Account, asset, ledger.PurposeSupply, units)
}

// fall sets BTC's price; believed waits until it is suspect no more.
func (h *hunt) fall(usd uint64) {
	h.t.Helper()
	h.Tick(15 * time.Second)
	prices := map[string]uint64{"btc": usd, "eth": 2_500, "usdt.eth": 1}
	if _, ok := h.View().Genesis.Asset("usdc.eth"); ok {
		prices["usdc.eth"] = 1
	}
	h.Prices(prices)
}

func (h *hunt) believed() {
	h.Tick(601 * time.Second)
	h.Say(ledger.KindFee, []ledger.FeeReport{{Chain: "btc", Rate: 1_000}, {Chain: "eth", Rate: 1_000_000_000, Tip: 1_000_000_000}})
}

// round returns what this round did and skipped.
func (h *hunt) round() (took []client.Liquidated, skips []string) {
	h.t.Helper()
	if err := h.tryRound(); err != nil {
		h.t.Fatal(err)
	}
	return h.took, h.skips
}

func (h *hunt) tryRound() error {
	h.took, h.skips = nil, nil
	return h.bot.Round(h.ctx,
		func(l client.Liquidated) { h.took = append(h.took, l) },
		func(s client.Skipped) { h.skips = append(h.skips, s.Borrower[:4]+" "+s.Code) })
}

func (h *hunt) supplied(account, pool string) int64 {
	h.t.Helper()
	ps, _ := h.View().PositionOf(account)
	for _, p := range ps {
		if p.Pool == pool {
			n, _ := p.Supplied.Uint64()
			return int64(n)
		}
	}
	return 0
}

func (h *hunt) owed(account string) int64 {
	h.t.Helper()
	ps, _ := h.View().PositionOf(account)
	for _, p := range ps {
		if p.Pool == "usdt.eth" {
			n, _ := p.Owed.Uint64()
			return int64(n)
		}
	}
	return 0
}

func near(got, want, within int64) bool { return got >= want-within && got <= want+within }

func bigInt(t *testing.T, s string) int64 {
	t.Helper()
	n, ok := new(big.Int).SetString(s, 10)
	if !ok || !n.IsInt64() {
		t.Fatalf("number %q", s)
	}
	return n.Int64()
}

// Of two collaterals the one with the larger bonus goes first, although the
// other is larger; then the other; then nothing is left to do.
func TestLiquidatorTakesTheMostProfitableFirst(t *testing.T) {
	h := newHunt(t, apitest.NewWithUSDC(t))
	h.lend(60_000)
	alice := h.borrower(50_000, map[string]uint64{"btc": 100_000_000, "usdc.eth": 20_000_000_000})
	small := h.borrower(3_500, map[string]uint64{"btc": 10_000_000})
	h.feed("usdt.eth", 60_000_000_000)
	h.fall(38_000)
	h.believed()
	took, skips := h.round()
	if len(took) != 3 || len(skips) != 0 {
		t.Fatalf("took %+v, skipped %v", took, skips)
	}
	for i, want := range []struct {
		borrower, coll string
		repaid, profit int64 // USDT, USD
	}{
		{alice, "usdc.eth", 16_949, 3_051}, // 20,000 at a bonus of 18 %
		{alice, "btc", 33_051, 1_653},      // the rest at 5 %
		{small, "btc", 3_500, 175},
	} {
		x := took[i]
		if x.Borrower != want.borrower || x.Debt != "usdt.eth" || x.Collateral != want.coll ||
			!near(bigInt(t, x.Repaid), want.repaid*1_000_000, 20_000_000) || !near(bigInt(t, x.Profit), want.profit*dollar, 5*dollar) {
			t.Errorf("%d: %+v, want %+v", i, x, want)
		}
	}
	if got := h.supplied(h.bot.Account, "usdc.eth"); !near(got, 20_000_000_000, 1) {
		t.Errorf("gained %d USDC, want 20,000", got)
	}
	if h.owed(alice) != 0 || h.owed(small) != 0 {
		t.Errorf("still owed: %d and %d", h.owed(alice), h.owed(small))
	}
	height := h.View().Height
	if took, skips := h.round(); len(took) != 0 || len(skips) != 0 || h.View().Height != height {
		t.Errorf("a second round took %+v, skipped %v, and submitted %d", took, skips, h.View().Height-height)
	}
	if err := h.View().Check(); err != nil {
		t.Error(err)
	}
}

func TestLiquidatorLeavesWhatGainsTooLittle(t *testing.T) {
	h := newHunt(t, apitest.NewWithKeys(t))
	h.lend(60_000)
	alice := h.borrower(35_000, map[string]uint64{"btc": 100_000_000})
	h.feed("usdt.eth", 60_000_000_000)
	h.fall(41_000)
	h.believed()
	h.bot.Least = big.NewInt(1_760 * dollar) // 5 % of 35,000 is 1,750
	height := h.View().Height
	took, skips := h.round()
	if len(took) != 0 || !slices.Equal(skips, []string{alice[:4] + " " + client.SkipUnprofitable}) || h.View().Height != height {
		t.Fatalf("took %+v, skipped %v", took, skips)
	}
	if took, skips := h.round(); len(took) != 0 || len(skips) != 0 {
		t.Fatalf("the same again: %+v, %v", took, skips)
	}
	h.bot.Least = big.NewInt(1_740 * dollar)
	if took, _ := h.round(); len(took) != 1 {
		t.Fatalf("took %+v", took)
	}
}

// "A refusal is reported once, and again when its code changes."
func TestLiquidatorReportsARefusalOnce(t *testing.T) {
	h := newHunt(t, apitest.NewWithKeys(t))
	h.lend(60_000)
	alice := h.borrower(35_000, map[string]uint64{"btc": 100_000_000})
	h.feed("usdt.eth", 60_000_000_000)
	if took, skips := h.round(); len(took) != 0 || len(skips) != 0 {
		t.Fatalf("all are healthy: %+v, %v", took, skips)
	}
	h.fall(41_000)
	height := h.View().Height
	for i, want := range [][]string{{alice[:4] + " PRICE_SUSPECT"}, nil, nil} {
		if took, skips := h.round(); len(took) != 0 || !slices.Equal(skips, want) {
			t.Fatalf("round %d: took %+v, skipped %v, want %v", i, took, skips, want)
		}
	}
	if h.View().Height != height {
		t.Fatal("a refusal that was foreseen went into the log")
	}
	h.Tick(16 * time.Minute) // no price meanwhile
	for i, want := range [][]string{{alice[:4] + " PRICE_STALE"}, nil} {
		if took, skips := h.round(); len(took) != 0 || !slices.Equal(skips, want) {
			t.Fatalf("old price, round %d: took %+v, skipped %v, want %v", i, took, skips, want)
		}
	}
	h.fall(41_000)
	if took, skips := h.round(); len(took) != 1 || len(skips) != 0 || took[0].Borrower != alice {
		t.Fatalf("took %+v, skipped %v", took, skips)
	}
}

func TestLiquidatorNeedsSupplyAndControl(t *testing.T) {
	h := newHunt(t, apitest.NewWithKeys(t))
	h.lend(60_000)
	alice := h.borrower(35_000, map[string]uint64{"btc": 100_000_000})
	h.fall(41_000)
	h.believed()
	if err := h.tryRound(); !errors.Is(err, client.ErrNothingSupplied) {
		t.Fatalf("without supply: %v", err)
	}
	h.feed("btc", 100_000_000)
	if took, skips := h.round(); len(took) != 0 || !slices.Equal(skips, []string{alice[:4] + " " + client.SkipNoSupply}) {
		t.Fatalf("with the wrong supply: took %+v, skipped %v", took, skips)
	}
	h.bot.Signer = h.wallet.SignerBTC()
	if err := h.tryRound(); !errors.Is(err, client.ErrNotController) {
		t.Fatalf("by a stranger: %v", err)
	}
}

// Less supply than debt: all of it is used, or as much as leaves no dust.
func TestLiquidatorUsesWhatItHas(t *testing.T) {
	for _, tc := range []struct {
		has, repaid int64 // USDT
	}{
		{20_000, 20_000},
		{34_500, 33_999}, // 500 would be left: 1,000 must be, and a dollar
	} {
		h := newHunt(t, apitest.NewWithKeys(t))
		h.lend(60_000)
		alice := h.borrower(35_000, map[string]uint64{"btc": 100_000_000})
		h.feed("usdt.eth", uint64(tc.has*1_000_000))
		h.fall(41_000)
		h.believed()
		took, skips := h.round()
		if len(took) != 1 || !near(bigInt(t, took[0].Repaid), tc.repaid*1_000_000, 10_000_000) {
			t.Fatalf("with %d USDT: took %+v, skipped %v", tc.has, took, skips)
		}
		if left := h.supplied(h.bot.Account, "usdt.eth"); !near(left, (tc.has-tc.repaid)*1_000_000, 10_000_000) {
			t.Errorf("with %d USDT: %d units left", tc.has, left)
		}
		if owed := h.owed(alice); !near(owed, (35_000-tc.repaid)*1_000_000, 10_000_000) {
			t.Errorf("with %d USDT: %d units owed", tc.has, owed)
		}
	}
}

func TestLiquidatorWithdrawsWhatItGains(t *testing.T) {
	set := func(t *testing.T) *hunt {
		h := newHunt(t, apitest.NewWithKeys(t))
		h.lend(60_000)
		h.borrower(35_000, map[string]uint64{"btc": 100_000_000})
		h.feed("usdt.eth", 60_000_000_000)
		h.bot.WithdrawTo = map[string]string{"btc": h.wallet.SignerP2TR().ID().String()}
		h.fall(41_000)
		h.believed()
		return h
	}
	t.Run("at once", func(t *testing.T) {
		h := set(t)
		took, _ := h.round()
		if len(took) != 1 || took[0].Outflow == 0 || took[0].Kept != "" || h.supplied(h.bot.Account, "btc") != 0 {
			t.Fatalf("took %+v, %d sats stay", took, h.supplied(h.bot.Account, "btc"))
		}
		o, ok := h.View().Outflows.Get(took[0].Outflow)
		if !ok || o.Asset != "btc" || o.Kind != ledger.OutflowWithdraw || o.Gross.String() != took[0].Gained || o.MaxFee.String() != took[0].MaxFee {
			t.Errorf("outflow %+v of %+v", o, took[0])
		}
		cost := bigInt(t, took[0].MaxFee) * 41_000
		if profit := bigInt(t, took[0].Profit); !near(profit, 1_750*dollar-cost, dollar) {
			t.Errorf("profit %d, want 1,750 USD less %d for the payout", profit, cost)
		}
	})
	t.Run("not when the fee eats the profit", func(t *testing.T) {
		h := set(t)
		h.bot.Least = big.NewInt(1_750*dollar - dollar/2)
		took, _ := h.round()
		if len(took) != 1 || took[0].Outflow != 0 || took[0].Kept != client.SkipUnprofitable || h.supplied(h.bot.Account, "btc") == 0 {
			t.Fatalf("took %+v", took)
		}
	})
	t.Run("not when it would be refused", func(t *testing.T) {
		h := set(t)
		// The account's own rule: coins leave only to addresses listed a day before.
		rule, err := h.bot.Client.Prepare(h.ctx, address.Command{Action: address.ActionRequirePayoutList, On: true, Signer: h.bot.Signer.ID()})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.bot.Client.Submit(h.ctx, h.bot.Signer, rule); err != nil {
			t.Fatal(err)
		}
		took, _ := h.round()
		if len(took) != 1 || took[0].Outflow != 0 || took[0].Kept != "DESTINATION_NOT_LISTED" || h.supplied(h.bot.Account, "btc") == 0 {
			t.Fatalf("took %+v", took)
		}
	})
}

// What the preview promised and the ledger then refused is left alone for a
// minute of ledger time: each refusal is a place in the log.
func TestLiquidatorRestsAfterARefusal(t *testing.T) {
	h := newHunt(t, apitest.NewWithKeys(t))
	h.lend(60_000)
	alice := h.borrower(35_000, map[string]uint64{"btc": 100_000_000})
	h.feed("usdt.eth", 60_000_000_000)
	h.fall(42_000)
	h.believed()
	h.fall(42_000)
	posts := 0
	h.before(func(r *http.Request) {
		if r.Method == http.MethodPost && r.URL.Path == "/v1/requests" {
			if posts++; posts == 1 { // between preview and submission the price recovers
				h.fall(44_000)
			}
		}
	})
	if took, skips := h.round(); len(took) != 0 || !slices.Equal(skips, []string{alice[:4] + " HEALTHY"}) || posts != 1 {
		t.Fatalf("took %+v, skipped %v, posted %d", took, skips, posts)
	}
	h.fall(42_000)
	h.fall(42_000) // a second round ends the grace of a first dip
	if l, err := h.bot.Client.AtRisk(h.ctx, "", 10); err != nil || len(l.Accounts) != 1 || l.Accounts[0].Code != "OK" {
		t.Fatalf("at risk: %+v %v", l, err)
	}
	if took, skips := h.round(); len(took) != 0 || len(skips) != 0 || posts != 1 {
		t.Fatalf("within the minute: took %+v, skipped %v, posted %d", took, skips, posts)
	}
	h.Tick(40 * time.Second)
	if took, skips := h.round(); len(took) != 1 || len(skips) != 0 || posts != 2 {
		t.Fatalf("after it: took %+v, skipped %v, posted %d", took, skips, posts)
	}
}

// A node that fails in the middle of a round costs the round, and no
// liquidation twice.
func TestLiquidatorGoesOnAfterAnError(t *testing.T) {
	h := newHunt(t, apitest.NewWithKeys(t))
	h.lend(60_000)
	h.borrower(35_000, map[string]uint64{"btc": 100_000_000})
	h.feed("usdt.eth", 60_000_000_000)
	h.fall(41_000)
	h.believed()
	for _, path := range []string{"/v1/liquidations", "/v1/requests/preview", "/v1/pools"} {
		h.before(func(r *http.Request) {
			if r.URL.Path == path {
				panic(http.ErrAbortHandler)
			}
		})
		if err := h.tryRound(); err == nil || len(h.took) != 0 {
			t.Fatalf("%s breaks: %v, took %+v", path, err, h.took)
		}
	}
	h.before(func(*http.Request) {})
	if took, _ := h.round(); len(took) != 1 {
		t.Fatalf("took %+v", took)
	}
}
