package bitcoin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/btcutil"
	"github.com/btcsuite/btcd/wire"

	"github.com/coffer-network/coffer/chains"
	"github.com/coffer-network/coffer/chains/chaintest"
	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
	"github.com/coffer-network/coffer/node/api"
	"github.com/coffer-network/coffer/node/api/apitest"
	wallets "github.com/coffer-network/coffer/node/api/client"
)

// What the ledger plans, on a real node: its fees, its replacements, its cancel,
// its batches. Nothing here computes a fee or an output; the ledger does.

const (
	plannedRate = 10_000 // sat/kvB
	// ahead is how far the real chain is before the one that the ledger is told of:
	// blocks pass for the ledger, twelve with each deposit, and the memory pool keeps
	// what waits in it.
	ahead = 120
)

// planned is a ledger whose coins lie on a real chain.
type planned struct {
	*apitest.Cluster
	w     *regtest
	t     *testing.T
	chain *Chain
	usd   uint64 // what a bitcoin costs
}

func (w *regtest) planned(t *testing.T, float uint64) *planned {
	t.Helper()
	p := &planned{w: w, t: t, chain: w.chain(t), usd: 50_000}
	p.Cluster = apitest.NewWithKeys(t, func(g *ledger.Genesis) {
		if float > 0 {
			g.Chains[0].Float = fixed.New(float)
		}
	})
	return p
}

// fund gives one of the cluster's addresses a coin, buried deep, and tells the
// ledger.
func (p *planned) fund(addr string, sats uint64) {
	p.t.Helper()
	spendable := p.w.rest
	coin, err := p.chain.txOut(p.t.Context(), spendable.Hash.String(), spendable.Index)
	if err != nil || coin == nil {
		p.t.Fatalf("faucet's rest: %v %v", coin, err)
	}
	tx := wire.NewMsgTx(2)
	tx.AddTxIn(wire.NewTxIn(&spendable, nil, nil))
	tx.AddTxOut(wire.NewTxOut(int64(sats), p.w.script(p.t, addr)))
	tx.AddTxOut(wire.NewTxOut(int64(coin.value)-int64(sats)-faucetFee, p.w.script(p.t, p.w.address(p.t, p.w.key))))
	p.w.send(p.t, tx, p.w.key, int64(coin.value))
	p.w.rest = wire.OutPoint{Hash: tx.TxHash(), Index: 1}
	p.w.Mine(p.t, 1)
	best := p.w.best(p.t)
	p.w.Mine(p.t, 6+ahead)
	p.height(uint64(best.Height()) + 6)
	p.Say(ledger.KindInflow, ledger.InflowFact{
		Chain: "btc", ID: tx.TxHash().String() + ":0", Address: addr, Asset: "btc", Amount: fixed.New(sats),
		Height: uint64(best.Height()), Block: best.Hash().String(),
	})
	p.rate()
}

func (p *planned) height(h uint64) {
	p.t.Helper()
	p.Say(ledger.KindHeight, []ledger.HeightReport{{Chain: "btc", Height: h, Hash: fmt.Sprint("b", h)}})
}

func (p *planned) prices() { p.Prices(map[string]uint64{"btc": p.usd, "eth": 2_500, "usdt.eth": 1}) }

// rate has the members attest the rate until the ledger follows.
func (p *planned) rate() {
	p.t.Helper()
	for range 40 {
		p.prices()
		p.Say(ledger.KindFee, []ledger.FeeReport{{Chain: "btc", Rate: plannedRate}, {Chain: "eth", Rate: 1_000_000_000, Tip: 1_000_000_000}})
		if r, _ := p.View().Rates.Get("btc"); r.Rate == plannedRate {
			return
		}
		p.Tick(60 * time.Second)
	}
	p.t.Fatal("the ledger does not follow the rate")
}

// signed is an attempt as a quorum would have it.
func (p *planned) signed(a ledger.Attempt) (chains.Raw, *wire.MsgTx) {
	p.t.Helper()
	u, err := p.chain.Build(a)
	if err != nil {
		p.t.Fatal(err)
	}
	var sigs []chains.Signature
	for _, in := range u.Inputs {
		one := u
		one.Inputs = []chains.ToSign{in}
		sigs = append(sigs, chaintest.Sign(p.PrivateKey(in.Path), one)...)
	}
	raw, err := p.chain.Finish(u, sigs)
	if err != nil {
		p.t.Fatal(err)
	}
	tx := new(wire.MsgTx)
	if err := tx.Deserialize(bytes.NewReader(raw.Bytes)); err != nil {
		p.t.Fatal(err)
	}
	return raw, tx
}

// accepted sends an attempt and returns what the node itself says of it: its
// virtual size and its fee. It must be alone in the pool, all before it evicted.
func (p *planned) accepted(what string, a ledger.Attempt) (raw chains.Raw, vsize uint64) {
	p.t.Helper()
	raw, _ = p.signed(a)
	if err := p.chain.Broadcast(p.t.Context(), raw.Bytes); err != nil {
		p.t.Fatalf("%s of fee %d: %v", what, a.Bitcoin.Fee, err)
	}
	var pool map[string]struct {
		VSize uint64      `json:"vsize"`
		Fee   json.Number `json:"fee"`
		Fees  struct {
			Base json.Number `json:"base"`
		} `json:"fees"`
	}
	if err := p.w.rpc.call(p.t.Context(), &pool, "getrawmempool", true); err != nil {
		p.t.Fatal(err)
	}
	e, ok := pool[raw.TxID]
	if !ok || len(pool) != 1 {
		p.t.Fatalf("%s: the pool holds %v, want %s alone", what, slices.Collect(maps.Keys(pool)), raw.TxID)
	}
	if e.Fee == "" {
		e.Fee = e.Fees.Base
	}
	fee, err := amount(e.Fee)
	if err != nil || fee != btcutil.Amount(a.Bitcoin.Fee) {
		p.t.Errorf("%s: fee %s (%v), planned %d sat", what, e.Fee, err, a.Bitcoin.Fee)
	}
	return raw, e.VSize
}

// batch is the one payout batch of a vault that is under way.
func (p *planned) batch(role string) ledger.Batch {
	p.t.Helper()
	v := p.View()
	for id := range v.Live.All() {
		if b, _ := v.Batches.Get(id); b.Kind == ledger.BatchPay && b.Vault == role {
			return b
		}
	}
	p.t.Fatalf("no batch of %s; queued %d, live %d, pool %+v", role, v.Queue.Len(), v.Live.Len(), v.Two)
	return ledger.Batch{}
}

// next lets blocks pass without a spend and returns the attempt that the ledger
// plans then.
func (p *planned) next(role string, blocks uint64, kind ledger.AttemptKind) ledger.Attempt {
	p.t.Helper()
	before := p.batch(role).Newest()
	tip, _ := p.View().Tips.Get("btc")
	p.height(tip.Height + blocks)
	p.rate()
	p.Tick(time.Second)
	a := p.batch(role).Newest()
	if a.K != before.K+1 || a.Kind != kind {
		p.t.Fatalf("after %d blocks: attempt %d of kind %v follows %d", blocks, a.K, a.Kind, before.K)
	}
	return a
}

// Batches of the boosted tier, as planned for 1, 20 and 100 payouts out of one
// coin, and their bumps: the node takes each, evicts the one before, and its own
// size is within a byte an input of what the ledger reckoned with. Figures:
// testnet/DESIGN.md. Seen failing with the adapter's bound of 101 outputs where
// the pool splits its change in four: "104 outputs, want 1 to 101"; and with a
// bump that does not pay for its own relay: "insufficient absolute fee: needs
// 1551, has 1425" of btcd, "not enough additional fees to relay; 0.00000015 <
// 0.00000141" of bitcoind.
func (w *regtest) testBoostedBatches(t *testing.T) {
	for _, x := range []struct {
		payouts int
		coin    uint64
		vsize   uint64 // reckoned by the ledger, spec outflows §9
	}{{1, 140_000, 141}, {20, 550_000, 730}, {100, 2_150_000, 3_210}, {100, 4_000_000, 0}} {
		p := w.planned(t, x.coin)
		pool, _ := p.View().Vault("btc", address.RolePool)
		p.fund(pool.Address, x.coin)
		v := p.View()
		p.Fill(v.Queue.Len() + v.Live.Len() + x.payouts)
		p.Tick(time.Duration(ledger.DefaultParams().BoostSeconds) * time.Second)
		p.rate()
		p.Tick(time.Duration(ledger.DefaultParams().BoostSeconds) * time.Second)
		a := p.batch(address.RolePool).Newest()
		first, vsize := p.accepted("the first", a)
		reckoned := a.Bitcoin.Fee * 1000 / plannedRate
		payouts := 0
		for _, o := range a.Bitcoin.Outputs {
			if o.Outflow != 0 {
				payouts++
			}
		}
		if payouts != x.payouts || x.vsize != 0 && reckoned != x.vsize || vsize > reckoned || reckoned-vsize > uint64(len(a.Bitcoin.Inputs)) {
			t.Errorf("%d payouts of %d, %d vB by the node, %d reckoned, want %d", payouts, x.payouts, vsize, reckoned, x.vsize)
		}
		t.Logf("%s: %3d payouts, %d in, %d out: reckoned %d vB, on the wire %d vB; fee %d sat, %.1f a payout",
			w.name, payouts, len(a.Bitcoin.Inputs), len(a.Bitcoin.Outputs), reckoned, vsize, a.Bitcoin.Fee, float64(a.Bitcoin.Fee)/float64(payouts))
		raws := []chains.Raw{first}
		for i, blocks := range []uint64{6, 3, 3} {
			b := p.next(address.RolePool, blocks, ledger.AttemptBump)
			raw, _ := p.accepted(fmt.Sprintf("bump %d of %d payouts", i+1, payouts), b)
			for _, old := range raws {
				if err := p.chain.Broadcast(t.Context(), old.Bytes); !errors.Is(err, chains.ErrTooCheap) {
					t.Errorf("an older attempt after bump %d: %v", i+1, err)
				}
			}
			raws = append(raws, raw)
		}
		w.Mine(t, 1)
		if got := w.countInBest(t, raws[len(raws)-1].TxID); got != 1 {
			t.Errorf("the last bump is in the block %d times", got)
		}
	}
}

// A borrow of the standard tier, bumped, and cancelled when its account became
// too weak: each is taken by the node and evicts the one before; after the cancel
// none of the payments comes in any more, and its heir is the minter's.
func (w *regtest) testCancel(t *testing.T) {
	p := w.planned(t, 0)
	srv := httptest.NewServer(api.New(p.Cluster, api.Config{History: p.History()}))
	defer srv.Close()
	anyone, err := wallets.New(srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	served, err := anyone.Cluster(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	pin, err := wallets.NewPin(served)
	if err != nil {
		t.Fatal(err)
	}
	wallet, err := wallets.NewWallet(pin)
	if err != nil {
		t.Fatal(err)
	}
	c, err := wallets.New(srv.URL, pin)
	if err != nil {
		t.Fatal(err)
	}
	lender, err := c.Open(t.Context(), wallet.SignerBTC())
	if err != nil {
		t.Fatal(err)
	}
	own, _ := p.View().AddressOf(lender.ID, "btc", ledger.PurposeSupply)
	p.fund(own.Address, 30_000_000)
	debtor, err := c.Open(t.Context(), wallet.SignerETH())
	if err != nil {
		t.Fatal(err)
	}
	p.Deposit(debtor.ID, "usdt.eth", ledger.PurposeSupply, 10_000_000_000)
	p.rate()
	payee, err := address.P2WPKH(address.Regtest, w.key.PubKey().SerializeCompressed())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Borrow(t.Context(), wallet.SignerETH(), debtor.ID, wallets.Payout{Pool: "btc", Amount: "10000000", To: apitest.BitcoinCAIP2 + ":" + payee}); err != nil {
		t.Fatal(err)
	}
	p.Tick(time.Second)
	first, vsize := p.accepted("the first", p.batch(address.RoleMinter).Newest())
	if vsize < 139 || vsize > 141 {
		t.Errorf("one input, payee and change have %d vB", vsize)
	}
	bump, _ := p.accepted("the bump", p.next(address.RoleMinter, 6, ledger.AttemptBump))

	p.Params(func(x *ledger.Params) { x.DeviationBps = 9_000 })
	p.usd = 90_000
	for range 3 {
		p.Tick(15 * time.Second)
		p.prices()
	}
	a := p.next(address.RoleMinter, 3, ledger.AttemptCancel)
	cancel, _ := p.accepted("the cancel", a)
	for _, old := range []chains.Raw{first, bump} {
		if err := p.chain.Broadcast(t.Context(), old.Bytes); !errors.Is(err, chains.ErrTooCheap) {
			t.Errorf("the payment beside its cancel: %v", err)
		}
	}
	w.Mine(t, 1)
	for _, old := range []chains.Raw{first, bump} {
		if err := p.chain.Broadcast(t.Context(), old.Bytes); !errors.Is(err, chains.ErrAnchorSpent) {
			t.Errorf("the payment after its cancel: %v", err)
		}
	}
	minter, _ := p.View().Vault("btc", address.RoleMinter)
	_, tx := p.signed(a)
	if len(tx.TxOut) != 1 || !bytes.Equal(tx.TxOut[0].PkScript, w.script(t, minter.Address)) || w.countInBest(t, cancel.TxID) != 1 {
		t.Errorf("the cancel pays %+v", tx.TxOut)
	}
	if anchor := p.batch(address.RoleMinter).Anchor; !strings.HasPrefix(anchor, tx.TxIn[0].PreviousOutPoint.Hash.String()) {
		t.Errorf("the cancel spends %s, the anchor is %s", tx.TxIn[0].PreviousOutPoint, anchor)
	}
}
