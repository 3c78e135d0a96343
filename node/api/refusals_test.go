package api_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
	"github.com/coffer-network/coffer/node/api"
	"github.com/coffer-network/coffer/node/api/apitest"
	"github.com/coffer-network/coffer/node/api/client"
	"github.com/coffer-network/coffer/node/api/history"
)

// unreachable are the codes that no client's request comes to, and why.
var unreachable = map[ledger.Code]string{
	ledger.OK:              "no refusal",
	ledger.DuplicateInflow: "of members' attestations: a client cannot tell the ledger of a deposit",
	ledger.Insolvent:       "of the vote to socialise a loss",
	ledger.BadParam:        "of votes",
	ledger.Timelock:        "of votes",
	ledger.NotArrived:      "of votes",
	ledger.Broken:          "our own mistake: a request that reaches it is a bug, and the ledger's tests plant one",
}

// bare are the codes that no number decides: a name, a signature, a flag. Every
// other refusal carries the bound and what was found (spec: lending §7).
var bare = map[ledger.Code]bool{
	ledger.Malformed: true, ledger.SchemeUnsupported: true, ledger.BadSignature: true, ledger.SignerNotLinked: true, ledger.NotAllowed: true,
	ledger.UnknownAccount: true, ledger.UnknownPool: true, ledger.UnknownOutflow: true, ledger.AccountExists: true, ledger.AccountLinked: true,
	ledger.SoleAccount: true, ledger.DestinationRefused: true, ledger.DestinationNotList: true, ledger.SelfLiquidation: true,
	ledger.Paused: true, ledger.Frozen: true, ledger.BorrowDisabled: true, ledger.Halted: true, ledger.CatchingUp: true,
	ledger.NoCollateral: true, ledger.NoDebt: true, ledger.NoDeficit: true, // each: there is none
	ledger.Arith: true, // what does not fit cannot be written
}

// scene is a world in which requests are refused.
type scene struct {
	*world
	grammar *address.Grammar
	reached map[ledger.Code]bool
}

func newScene(t *testing.T, reached map[ledger.Code]bool, c *apitest.Cluster) *scene {
	t.Helper()
	s := &scene{world: serve(t, c), reached: reached}
	if s.wallet != nil {
		var err error
		if s.grammar, err = s.client.Grammar(s.ctx); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// account is the account of a signer, opened with a deposit where units is not
// 0.
func (s *scene) account(by client.Signer, asset string, units uint64) string {
	s.t.Helper()
	a, err := s.client.Open(s.ctx, by)
	if err != nil {
		s.t.Fatal(err)
	}
	if units > 0 {
		s.Deposit(a.ID, asset, ledger.PurposeSupply, units)
	}
	return a.ID
}

// refusal is one request and what it must come to.
type refusal struct {
	name    string
	account string
	by, co  client.Signer
	cmd     address.Command // account, Signer, Cluster, Nonce and Expires are filled in where they are zero
	nonce   int             // beyond the account's next
	text    func(string) string
	scheme  string // "": by's own
	code    ledger.Code
	free    bool // refused before the nonce is used up
	limit   string
	found   string // "": any number
	pool    string
}

// refuse posts a request and holds the answer, the ledger and the state against
// what it must come to: the code and its status, its numbers, nothing changed but
// the nonce, by the API and by the ledger past it alike.
func (s *scene) refuse(r refusal) {
	s.t.Helper()
	s.reached[r.code] = true
	s.t.Run(string(r.code)+" "+r.name, func(t *testing.T) {
		w := *s.world
		w.t = t
		v := w.View()
		c := r.cmd
		if c.Account == [16]byte{} {
			raw, err := client.ParseAccount(r.account)
			if err != nil {
				t.Fatal(err)
			}
			c.Account = raw
		}
		account := hex.EncodeToString(c.Account[:])
		before := hashApartFrom(v, account)
		nonce := next(&w, account)
		if c.Action != address.ActionOpenLoan {
			c.Nonce = nonce + uint64(r.nonce)
		}
		c.Signer = r.by.ID()
		if c.Cluster == "" {
			c.Cluster = s.wallet.Pin().Cluster
		}
		if c.Expires == 0 {
			c.Expires = int64(v.Time()) + 300
		}
		text := s.grammar.Render(&c)
		if r.text != nil {
			was := text
			if text = r.text(text); text == was {
				t.Fatal("nothing was spoilt")
			}
		}
		sign := func(by client.Signer) client.Signed {
			sig, err := by.Sign(text)
			if err != nil {
				t.Fatal(err)
			}
			return client.Signed{Scheme: by.Scheme(), Signature: sig}
		}
		body := client.Submission{Text: text, Signed: sign(r.by)}
		if r.scheme != "" {
			body.Scheme = r.scheme
		}
		intent := &ledger.Intent{Scheme: body.Scheme, Text: text, Signature: body.Signature}
		if r.co != nil {
			co := sign(r.co)
			body.CoSignature = &co
			intent.Co = &ledger.CoSignature{Scheme: co.Scheme, Signature: co.Signature}
		}
		status, h, p := w.post("/v1/requests", body)
		w.problem(status, h, p, api.StatusOf(string(r.code)), string(r.code))
		s.numbers(t, r, p)
		want := nonce
		if !r.free {
			want++
		}
		unchanged := func(who string) {
			t.Helper()
			if got := next(&w, account); got != want {
				t.Errorf("%s: nonce %d, want %d", who, got, want)
			}
			if hashApartFrom(w.View(), account) != before {
				t.Errorf("%s: the refusal changed the state", who)
			}
		}
		unchanged("API")
		out, err := w.Submit(w.ctx, ledger.Marshal(ledger.Command{Intent: intent}))
		if err != nil || out.Code != r.code {
			t.Errorf("the ledger itself: %s %v", out.Code, err)
		}
		unchanged("ledger")
		if r.free {
			return
		}
		id := client.TextID(text)
		y, err := w.client.RequestWhy(w.ctx, id, "")
		if err != nil || y.Code != string(r.code) || y.State != "refused" || !y.NonceUsed || y.Accepted == "" || y.Limit != textOf(p["limit"]) || y.Found != textOf(p["found"]) {
			t.Errorf("why %+v %v, want the numbers of %v", y, err, p)
		}
	})
}

func (s *scene) numbers(t *testing.T, r refusal, p map[string]any) {
	t.Helper()
	limit, found := textOf(p["limit"]), textOf(p["found"])
	if bare[r.code] != (limit == "" && found == "") {
		t.Errorf("limit %q, found %q, with no number deciding: %v", limit, found, bare[r.code])
	}
	if !bare[r.code] && (limit == "" || found == "") || r.limit != "" && limit != r.limit || r.found != "" && found != r.found {
		t.Errorf("limit %q, found %q, want %q, %q", limit, found, r.limit, r.found)
	}
	if r.pool != "" && p["pool"] != r.pool {
		t.Errorf("pool %v, want %s", p["pool"], r.pool)
	}
}

func textOf(v any) string {
	s, _ := v.(string)
	return s
}

// most is the largest amount that a text can write.
func most(decimals int) string { return strings.Repeat("9", 30+decimals) }

// payment is a command that pays units of an asset.
func (s *scene) payment(action, pool, units, maxFee string, to address.CAIP10) address.Command {
	return address.Command{Action: action, Pool: pool, Amount: s.grammar.Amount(pool, units), MaxFee: s.grammar.Amount(pool, maxFee), To: to}
}

var toPayee = address.CAIP10{Namespace: "eip155", Reference: "1337", Address: payee}

func (s *scene) borrow(units string) address.Command {
	return s.payment(address.ActionBorrow, "usdt.eth", units, "900000000", toPayee)
}

// TestEveryRefusal reaches every code that a client's request can meet, through
// HTTP over the real ledger.
func TestEveryRefusal(t *testing.T) {
	reached := map[ledger.Code]bool{}
	for _, f := range []func(*testing.T, map[ledger.Code]bool){
		refusedByThePrelude, refusedToPay, refusedByStops, refusedByCaps, refusedToLiquidate, refusedByADeficit, refusedByWallets, refusedWhileFull, refusedByTheNode,
	} {
		f(t, reached)
	}
	for _, c := range api.AllCodes() {
		switch why, never := unreachable[c]; {
		case never && reached[c]:
			t.Errorf("%s is reached and listed as unreachable: %s", c, why)
		case !never && !reached[c]:
			t.Errorf("no row reaches %s: add one, or say why no client can", c)
		}
	}
}

func refusedByThePrelude(t *testing.T, reached map[ledger.Code]bool) {
	s := newScene(t, reached, apitest.NewWithKeys(t))
	btc, eth := s.wallet.SignerBTC(), s.wallet.SignerETH()
	id := s.account(btc, "btc", 100_000_000)
	now := int64(s.View().Time())
	cancel := address.Command{Action: address.ActionCancel}
	at := func(expires int64) address.Command {
		return address.Command{Action: address.ActionCancel, Expires: expires}
	}
	stamp := func(unix int64) string { return time.Unix(unix, 0).UTC().Format("2006-01-02T15:04:05Z") }
	zeros := "coffer-test-1/" + strings.Repeat("0", 32)
	stranger, err := client.NewWallet(s.wallet.Pin())
	if err != nil {
		t.Fatal(err)
	}
	nobody := address.AccountID(s.wallet.Pin().Cluster, eth.ID())
	for _, r := range []refusal{
		{name: "a word that is no action", cmd: cancel, text: swap("Action: Cancel", "Action: cancel"), code: ledger.Malformed},
		{name: "a second signature that nobody asks for", cmd: cancel, co: btc, code: ledger.Malformed},
		{name: "", cmd: address.Command{Action: address.ActionCancel, Cluster: zeros}, code: ledger.WrongCluster, limit: s.wallet.Pin().Cluster, found: zeros},
		{name: "a scheme of other wallets", cmd: cancel, scheme: address.SchemeEIP191, code: ledger.SchemeUnsupported},
		{name: "past", cmd: at(now - 1), code: ledger.Expired, limit: stamp(now), found: stamp(now - 1)},
		{name: "far ahead", cmd: at(now + 601), code: ledger.ExpiryTooFar, limit: stamp(now + 600), found: stamp(now + 601)},
		{name: "another wallet's account", cmd: cancel, by: stranger.SignerBTC(), code: ledger.SignerNotLinked},
		{name: "nobody's account", cmd: address.Command{Action: address.ActionCancel, Account: nobody}, by: eth, code: ledger.UnknownAccount},
		{name: "used", cmd: cancel, nonce: -1, code: ledger.BadNonce, limit: "1", found: "0"},
		{name: "ahead", cmd: cancel, nonce: 1, code: ledger.BadNonce, limit: "1", found: "2"},
		{name: "again", cmd: address.Command{Action: address.ActionOpenAccount, Expires: now + 200}, nonce: -1, code: ledger.AccountExists},
		{name: "another key", cmd: cancel, by: impostor{btc, stranger.SignerBTC()}, code: ledger.BadSignature},
	} {
		if r.account = id; r.by == nil {
			r.by = btc
		}
		r.free = true
		s.refuse(r)
	}
	s.t.Run("eip712 switched off", func(t *testing.T) {
		v := *s
		v.t = t
		v.account(eth, "usdt.eth", 1_000_000_000)
		v.refuse(refusal{account: hex.EncodeToString(nobody[:]), by: eth, cmd: cancel, scheme: address.SchemeEIP712, code: ledger.SchemeUnsupported, free: true})
	})
	s.Say(ledger.KindClock, ledger.Clock{Millis: s.View().Millis + 600_000})
	s.refuse(refusal{name: "an hour behind", account: id, by: btc, cmd: cancel, code: ledger.CatchingUp, free: true})

	early := newScene(t, reached, apitest.New(t))
	early.wallet, early.grammar = s.wallet, s.grammar
	early.refuse(refusal{
		name: "no keys yet", account: id, by: btc, code: ledger.Halted, free: true, // the same genesis, so the same cluster
		cmd: address.Command{Action: address.ActionOpenAccount},
	})
}

// impostor signs as another.
type impostor struct{ as, by client.Signer }

func (x impostor) ID() address.CAIP10               { return x.as.ID() }
func (x impostor) Scheme() string                   { return x.as.Scheme() }
func (x impostor) Sign(text string) (string, error) { return x.by.Sign(text) }

func refusedToPay(t *testing.T, reached map[ledger.Code]bool) {
	s := newScene(t, reached, apitest.NewWithKeys(t))
	btc, eth, p2tr := s.wallet.SignerBTC(), s.wallet.SignerETH(), s.wallet.SignerP2TR()
	id, lender := s.account(btc, "btc", 100_000_000), s.account(eth, "usdt.eth", 100_000_000_000)
	empty := s.account(p2tr, "", 0)
	withdraw := func(units string) address.Command {
		return s.payment(address.ActionWithdraw, "usdt.eth", units, "900000000", toPayee)
	}
	btcOut := s.payment(address.ActionWithdraw, "btc", "100000000", "10000", btc.ID())
	feeOf := s.borrow("1000000000")
	feeOf.MaxFee = s.grammar.Amount("usdt.eth", "1")
	gone := s.borrow("1000000000")
	gone.To.Address = hot(t, s.world)
	one := s.payment(address.ActionBorrow, "usdt.eth", "1000000", "1000000", toPayee)
	for _, r := range []refusal{
		{name: "", cmd: s.borrow("1000000000"), text: swap("Pool: usdt.eth", "Pool: doge"), code: ledger.UnknownPool},
		{name: "borrow", cmd: s.borrow("999999"), code: ledger.BelowMin, limit: "1000000", found: "999999"},
		{name: "withdraw", by: eth, cmd: withdraw("999999"), code: ledger.BelowMin, limit: "1000000", found: "999999"},
		{name: "", cmd: feeOf, code: ledger.FeeTooHigh, limit: "1"},
		{name: "nothing left after the fee", cmd: one, code: ledger.BelowMin, limit: "1000001", found: "1000000"},
		{name: "the hot address", cmd: gone, code: ledger.DestinationRefused},
		{name: "more than the pool has", cmd: s.borrow("100000000001"), code: ledger.NoLiquidity, limit: "100000000000", found: "100000000001", pool: "usdt.eth"},
		{name: "borrow", cmd: s.borrow("45000000000"), code: ledger.HealthFactor, limit: "1000000000000000000", found: "888888888888888888"},
		{name: "borrow", cmd: s.borrow("38000000000"), code: ledger.MaxLTV, limit: "7500", found: "7600"},
		{name: "borrow of one's own", by: eth, cmd: s.borrow("1000000000"), code: ledger.SameAsset, limit: "0", found: "100000000000", pool: "usdt.eth"},
		{name: "borrow on nothing", account: empty, by: p2tr, cmd: s.borrow("1000000000"), code: ledger.NoCollateral},
		{name: "withdraw", by: eth, cmd: withdraw("100000000001"), code: ledger.InsufficientBalance, limit: "100000000000", found: "100000000001"},
		{name: "withdraw of all that can be written", by: eth, cmd: withdraw(most(6)), code: ledger.InsufficientBalance, limit: "100000000000", found: most(6)},
		{name: "claim of nothing", by: btc, cmd: address.Command{Action: address.ActionClaim, Pool: "btc", To: btc.ID(), MaxFee: s.grammar.Amount("btc", "9000")}, code: ledger.InsufficientBalance, limit: "1", found: "0"},
		{name: "cancel of nobody's", cmd: address.Command{Action: address.ActionCancelOutflow, Outflow: 999_999}, code: ledger.UnknownOutflow},
		{name: "repay from supply", cmd: address.Command{Action: address.ActionRepayFromSupply, Pool: "btc", Amount: s.grammar.MaxAmount("btc")}, code: ledger.NoDebt},
	} {
		if r.by == nil {
			r.by = btc
		}
		if r.account == "" {
			if r.account = id; r.by == eth {
				r.account = lender
			}
		}
		s.refuse(r)
	}
	s.refuse(refusal{name: "a simple loan on all that can be written", by: btc, cmd: s.loan(btc, most(8), "1000000000"), code: ledger.Arith, free: true})
	if _, err := s.client.Borrow(s.ctx, btc, id, client.Payout{Pool: "usdt.eth", Amount: "20000000000", To: payee}); err != nil {
		t.Fatal(err)
	}
	s.refuse(refusal{name: "withdraw", account: id, by: btc, cmd: btcOut, code: ledger.HealthFactor, limit: "1000000000000000000", found: "0"})
	half := s.payment(address.ActionWithdraw, "btc", "48000000", "10000", btc.ID())
	s.refuse(refusal{name: "withdraw", account: id, by: btc, cmd: half, code: ledger.MaxLTV, limit: "7500", found: "7693"})
	for range ledger.MaxAccountOpen {
		if _, err := s.client.Withdraw(s.ctx, eth, lender, client.Payout{Pool: "usdt.eth", Amount: "1000000000", To: payee}); err != nil {
			t.Fatal(err)
		}
	}
	s.refuse(refusal{name: "the 17th", account: lender, by: eth, cmd: withdraw("1000000000"), code: ledger.OutflowCap, limit: "16", found: "16"})
	s.Tick(200 * time.Second)
	s.refuse(refusal{name: "borrow", account: id, by: btc, cmd: s.borrow("1000000000"), code: ledger.PriceStale, limit: "120"})
}

func refusedByStops(t *testing.T, reached map[ledger.Code]bool) {
	s := newScene(t, reached, apitest.NewWithKeys(t))
	btc, eth := s.wallet.SignerBTC(), s.wallet.SignerETH()
	id, lender := s.account(btc, "btc", 100_000_000), s.account(eth, "usdt.eth", 100_000_000_000)
	s.Stop("usdt.eth", ledger.FlagBorrowOff)
	s.refuse(refusal{name: "one pool", account: id, by: btc, cmd: s.borrow("1000000000"), code: ledger.BorrowDisabled})
	s.Stop("usdt.eth", ledger.FlagFrozen)
	s.refuse(refusal{name: "borrow", account: id, by: btc, cmd: s.borrow("1000000000"), code: ledger.Frozen})
	s.Stop("", ledger.FlagHalt)
	out := s.payment(address.ActionWithdraw, "usdt.eth", "1000000000", "900000000", toPayee)
	s.refuse(refusal{name: "withdraw while outflows are", account: lender, by: eth, cmd: out, code: ledger.Halted})
	s.Stop("usdt.eth", ledger.FlagPaused)
	s.refuse(refusal{name: "borrow", account: id, by: btc, cmd: s.borrow("1000000000"), code: ledger.Paused})
	s.refuse(refusal{name: "withdraw", account: lender, by: eth, cmd: out, code: ledger.Paused})
	other := newScene(t, reached, apitest.NewWithKeys(t))
	id = other.account(other.wallet.SignerBTC(), "btc", 100_000_000)
	other.Stop("", ledger.FlagBorrowOff)
	other.refuse(refusal{name: "everywhere", account: id, by: other.wallet.SignerBTC(), cmd: other.borrow("1000000000"), code: ledger.BorrowDisabled})
}

// loan is a command that opens a simple loan.
func (s *scene) loan(by client.Signer, collateral, amount string) address.Command {
	c := s.payment(address.ActionOpenLoan, "usdt.eth", amount, "900000000", toPayee)
	c.CollateralPool, c.Collateral, c.RefundTo = "btc", s.grammar.Amount("btc", collateral), s.wallet.SignerBTC().ID()
	c.Account = address.LoanID(s.wallet.Pin().Cluster, by.ID(), 0)
	return c
}

func refusedByCaps(t *testing.T, reached map[ledger.Code]bool) {
	s := newScene(t, reached, apitest.NewWithKeys(t, func(g *ledger.Genesis) {
		g.Pools[0].SupplyCap, g.Pools[1].BorrowCap = fixed.New(150_000_000), fixed.New(30_000_000_000)
	}))
	btc, eth := s.wallet.SignerBTC(), s.wallet.SignerETH()
	id := s.account(btc, "btc", 100_000_000)
	s.account(eth, "usdt.eth", 100_000_000_000)
	s.refuse(refusal{name: "", account: id, by: btc, cmd: s.borrow("30000000001"), code: ledger.BorrowCap, limit: "30000000000", found: "30000000001", pool: "usdt.eth"})
	s.refuse(refusal{name: "a simple loan's collateral", by: btc, cmd: s.loan(btc, "50000001", "1000000000"), code: ledger.SupplyCap, free: true, limit: "150000000", found: "150000001", pool: "btc"})
	s.refuse(refusal{name: "a simple loan's collateral", by: btc, cmd: s.loan(btc, "9999", "1000000000"), code: ledger.BelowMin, free: true, limit: "10000", found: "9999"})
	s.refuse(refusal{name: "a simple loan", by: btc, cmd: s.loan(btc, "50000000", "21000000000"), code: ledger.HealthFactor, free: true, limit: "1000000000000000000"})
}

// falls closes one round at each price.
func (s *scene) falls(btc ...uint64) {
	for _, usd := range btc {
		s.Tick(15 * time.Second)
		s.Prices(map[string]uint64{"btc": usd, "eth": 2_500, "usdt.eth": 1})
	}
}

func refusedToLiquidate(t *testing.T, reached map[ledger.Code]bool) {
	s := newScene(t, reached, apitest.NewWithKeys(t))
	btc, eth := s.wallet.SignerBTC(), s.wallet.SignerETH()
	id, lender := s.account(btc, "btc", 100_000_000), s.account(eth, "usdt.eth", 100_000_000_000)
	if _, err := s.client.Borrow(s.ctx, btc, id, client.Payout{Pool: "usdt.eth", Amount: "35000000000", To: payee}); err != nil {
		t.Fatal(err)
	}
	s.Settle()
	liquidate := func(debt, coll, borrower, units string) address.Command {
		raw, err := client.ParseAccount(borrower)
		if err != nil {
			t.Fatal(err)
		}
		return address.Command{
			Action: address.ActionLiquidate, Pool: debt, CollateralPool: coll, Borrower: raw,
			Amount: s.grammar.Amount(debt, units), MaxFee: s.grammar.Amount(coll, "0"),
		}
	}
	usual := liquidate("usdt.eth", "btc", id, "10000000000")
	no := func(name string, code ledger.Code, cmd address.Command, limit, found string) {
		t.Helper()
		s.refuse(refusal{name: name, account: lender, by: eth, cmd: cmd, code: code, limit: limit, found: found})
	}
	no("", ledger.Healthy, usual, "1000000000000000000", "")
	s.refuse(refusal{name: "", account: id, by: btc, cmd: usual, code: ledger.SelfLiquidation})
	no("of nobody", ledger.UnknownAccount, liquidate("usdt.eth", "btc", strings.Repeat("0", 32), "1"), "", "")
	s.falls(47_600, 45_300, 43_100)
	no("the first dip", ledger.Grace, usual, "60", "0")
	s.falls(41_000, 41_000, 41_000, 41_000, 41_000)
	no("what he does not owe", ledger.NoDebt, liquidate("btc", "btc", id, "1000000"), "", "")
	no("what he does not hold", ledger.NoCollateral, liquidate("usdt.eth", "usdt.eth", id, "10000000000"), "", "")
	no("$500 left", ledger.Dust, liquidate("usdt.eth", "btc", id, "34500000000"), "100000000000", "")
	no("more than he has", ledger.BelowMin, liquidate("usdt.eth", "btc", id, "0"), "", "0")
	s.falls(36_000)
	no("a jump of 12 %", ledger.PriceSuspect, usual, "500", "1219")
	s.Tick(601 * time.Second)
	s.falls(36_000)
	s.Params(func(p *ledger.Params) { p.NotClosing = true })
	no("a part where a part lowers health", ledger.NotClosing, usual, "840000000000000000", "")
	s.Params(func(p *ledger.Params) { p.NotClosing = false })
	poor := s.account(s.wallet.SignerP2TR(), "", 0)
	s.refuse(refusal{name: "by one who supplies nothing", account: poor, by: s.wallet.SignerP2TR(), cmd: usual, code: ledger.InsufficientBalance, limit: "0", found: "10000000000"})
	all := usual
	all.Amount = s.grammar.MaxAmount("usdt.eth")
	s.refuse(refusal{name: "all of it by one who supplies nothing", account: poor, by: s.wallet.SignerP2TR(), cmd: all, code: ledger.InsufficientBalance, limit: "0", found: "35000014781"})
	s.Tick(901 * time.Second)
	no("liquidation", ledger.PriceStale, usual, "900", "")
}

func refusedByADeficit(t *testing.T, reached map[ledger.Code]bool) {
	s := newScene(t, reached, apitest.NewWithKeys(t))
	btc, eth, p2tr := s.wallet.SignerBTC(), s.wallet.SignerETH(), s.wallet.SignerP2TR()
	id, lender := s.account(btc, "btc", 100_000_000), s.account(eth, "usdt.eth", 100_000_000_000)
	insurer := s.account(p2tr, "btc", 1_000_000_000)
	cover := address.Command{Action: address.ActionCoverDeficit, Pool: "usdt.eth", Amount: s.grammar.Amount("usdt.eth", "1000000")}
	s.refuse(refusal{name: "by one who does not insure", account: insurer, by: p2tr, cmd: cover, code: ledger.NotAllowed})
	s.Params(func(p *ledger.Params) { p.Insurance = []ledger.AccountID{insurer} })
	s.refuse(refusal{name: "", account: insurer, by: p2tr, cmd: cover, code: ledger.NoDeficit})
	for _, b := range []struct {
		by      client.Signer
		account string
		units   string
	}{{btc, id, "35000000000"}, {p2tr, insurer, "1000000000"}} {
		if _, err := s.client.Borrow(s.ctx, b.by, b.account, client.Payout{Pool: "usdt.eth", Amount: b.units, To: payee}); err != nil {
			t.Fatal(err)
		}
	}
	s.Settle()
	s.falls(20_000)
	s.Tick(601 * time.Second)
	s.falls(20_000)
	s.Say(ledger.KindFee, []ledger.FeeReport{{Chain: "btc", Rate: 1_000}, {Chain: "eth", Rate: 1_000_000_000, Tip: 1_000_000_000}})
	if _, err := s.liquidate(id, "max"); err != nil {
		t.Fatal(err)
	}
	p, _ := s.View().Pools.Get("usdt.eth")
	if p.Deficit.IsZero() || !p.Frozen {
		t.Fatalf("no loss to share: %+v", p)
	}
	s.refuse(refusal{name: "by one who owes", account: insurer, by: p2tr, cmd: cover, code: ledger.HasDebt, limit: "0"})
	out := s.payment(address.ActionWithdraw, "usdt.eth", "75000000000", "900000000", toPayee)
	s.refuse(refusal{name: "the first to run", account: lender, by: eth, cmd: out, code: ledger.DeficitLimit, found: "75000000000", pool: "usdt.eth"})
}

func refusedByWallets(t *testing.T, reached map[ledger.Code]bool) {
	s := newScene(t, reached, apitest.NewWithKeys(t))
	btc, eth := s.wallet.SignerBTC(), s.wallet.SignerETH()
	id := s.account(btc, "btc", 100_000_000)
	s.account(eth, "usdt.eth", 100_000_000_000)
	spare, err := client.NewWallet(s.wallet.Pin())
	if err != nil {
		t.Fatal(err)
	}
	link := address.Command{Action: address.ActionLinkWallet, NewWallet: spare.SignerETH().ID()}
	s.refuse(refusal{name: "unlink the last", account: id, by: btc, cmd: address.Command{Action: address.ActionUnlinkWallet, Wallet: btc.ID()}, code: ledger.SoleAccount})
	s.refuse(refusal{name: "link without the new one's word", account: id, by: btc, cmd: link, code: ledger.BadSignature, free: true})
	raw, err := client.ParseAccount(id)
	if err != nil {
		t.Fatal(err)
	}
	do := func(by, co client.Signer, cmd address.Command) {
		t.Helper()
		cmd.Account, cmd.Signer = raw, by.ID()
		a, err := s.client.Prepare(s.ctx, cmd)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.client.SubmitCosigned(s.ctx, by, co, a); err != nil {
			t.Fatal(err)
		}
	}
	do(btc, spare.SignerETH(), link)
	s.refuse(refusal{name: "twice", account: id, by: btc, co: spare.SignerETH(), cmd: link, code: ledger.AccountLinked})
	do(btc, nil, address.Command{Action: address.ActionRequirePayoutList, On: true})
	s.refuse(refusal{name: "borrow", account: id, by: btc, cmd: s.borrow("1000000000"), code: ledger.DestinationNotList})
}

// refusedWhileFull fills the ledger with as many open outflows as it takes.
func refusedWhileFull(t *testing.T, reached map[ledger.Code]bool) {
	s := newScene(t, reached, apitest.NewWithKeys(t))
	btc, eth := s.wallet.SignerBTC(), s.wallet.SignerETH()
	id := s.account(btc, "btc", 100_000_000)
	s.account(eth, "usdt.eth", 100_000_000_000)
	s.Fill(ledger.MaxOpenOutflows)
	s.refuse(refusal{name: "borrow", account: id, by: btc, cmd: s.borrow("1000000000"), code: ledger.Limit, free: true, limit: strconv.Itoa(ledger.MaxOpenOutflows), found: strconv.Itoa(ledger.MaxOpenOutflows)})
}

// refusedByTheNode are the API's own words: the ledger never hears of these.
func refusedByTheNode(t *testing.T, reached map[ledger.Code]bool) {
	s := newScene(t, reached, apitest.NewWithKeys(t))
	btc := s.wallet.SignerBTC()
	id := s.account(btc, "btc", 100_000_000)
	raw, err := client.ParseAccount(id)
	if err != nil {
		t.Fatal(err)
	}
	a, err := s.client.Prepare(s.ctx, address.Command{Action: address.ActionCancel, Account: raw, Signer: btc.ID()})
	if err != nil {
		t.Fatal(err)
	}
	sig, err := btc.Sign(a.Text)
	if err != nil {
		t.Fatal(err)
	}
	body := client.Submission{Text: a.Text, Signed: client.Signed{Scheme: btc.Scheme(), Signature: sig}}
	before := hashApartFrom(s.View(), "")
	want := func(code string, status int, h http.Header, p map[string]any) {
		t.Helper()
		reached[ledger.Code(code)] = true
		s.problem(status, h, p, api.StatusOf(code), code)
		if status == 503 && (h.Get("Retry-After") == "" || p["retryable"] != true) {
			t.Errorf("%s without when to come again: %v", code, p)
		}
	}
	for code, held := range map[string]error{
		"NO_LEADER": api.ErrNoLeader, "OVERLOADED": &api.Overloaded{Limit: "test"}, "INTERNAL": errors.New("what nobody foresaw"),
	} {
		s.Hold(held)
		status, h, p := s.post("/v1/requests", body)
		want(code, status, h, p)
	}
	s.Hold(nil)
	get := func(code, path string) {
		t.Helper()
		status, h, p := s.world.get(path)
		want(code, status, h, p)
	}
	get("TIMEOUT", "/v1/pools?minIndex=999999&wait=1ms")
	get("UNKNOWN_PATH", "/v1/nothing")
	get("UNKNOWN_REQUEST", "/v1/requests/"+strings.Repeat("0", 64))
	get("UNKNOWN_INFLOW", "/v1/inflows/none")
	get("UNKNOWN_LIQUIDATION", "/v1/liquidations/1")
	get("UNKNOWN_CERTIFICATE", "/v1/certificates/999999")
	get("UNKNOWN_PROOF", "/v1/accounts/"+id+"/proof") // opened after the last root

	dir := filepath.Join(t.TempDir(), "history")
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // no directory can be made there
		t.Fatal(err)
	}
	broken := history.Open(history.Config{Dir: dir})
	t.Cleanup(func() { broken.Close() })
	srv := httptest.NewServer(api.New(s.Cluster, api.Config{History: broken}))
	t.Cleanup(srv.Close)
	r, err := http.Get(srv.URL + "/v1/accounts/" + id + "/history")
	status, h, p := s.answer(r, err)
	want("UNAVAILABLE", status, h, p)
	if hashApartFrom(s.View(), "") != before {
		t.Error("what the node refused changed the state")
	}
	s.floods(t, id, btc)
}

// floods posts good requests of one account from one address that is not this
// machine's until they are shed, and holds that one's nonce and the state.
func (s *scene) floods(t *testing.T, id string, by client.Signer) {
	handler := api.New(s.Cluster, api.Config{})
	raw, err := client.ParseAccount(id)
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		a, err := s.client.Prepare(s.ctx, address.Command{Action: address.ActionCancel, Account: raw, Signer: by.ID()})
		if err != nil {
			t.Fatal(err)
		}
		sig, err := by.Sign(a.Text)
		if err != nil {
			t.Fatal(err)
		}
		body, err := json.Marshal(client.Submission{Text: a.Text, Signed: client.Signed{Scheme: by.Scheme(), Signature: sig}})
		if err != nil {
			t.Fatal(err)
		}
		before, nonce := hashApartFrom(s.View(), ""), next(s.world, id)
		r := httptest.NewRequest(http.MethodPost, "/v1/requests", bytes.NewReader(body))
		r.RemoteAddr = "192.0.2.7:1"
		r.Header.Set("Content-Type", "application/json")
		rec := httptest.NewRecorder()
		handler.ServeHTTP(rec, r)
		if rec.Code == http.StatusOK {
			continue
		}
		status, h, p := s.answer(rec.Result(), nil)
		s.problem(status, h, p, 503, "OVERLOADED")
		if p["limit"] != "1 requests a second of one account" || h.Get("Retry-After") == "" {
			t.Errorf("shed for %v: %v", p["limit"], h)
		}
		if hashApartFrom(s.View(), "") != before || next(s.world, id) != nonce {
			t.Error("what was shed reached the ledger")
		}
		return
	}
	t.Error("a hundred requests a second of one account pass")
}
