package chaintest_test

import (
	"context"
	"encoding/binary"
	"errors"
	"reflect"
	"testing"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"

	"github.com/coffer-network/coffer/chains"
	"github.com/coffer-network/coffer/chains/chaintest"
	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// fakeWorld puts a Fake under the contract test.
type fakeWorld struct {
	*chaintest.Fake
	accounts bool
	n        uint64
}

const (
	token = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
	gwei  = 1_000_000_000
)

func coinsWorld() *fakeWorld {
	return &fakeWorld{Fake: chaintest.NewFake(chaintest.FakeConfig{
		Chain:  ledger.ChainParam{Name: "btc", CAIP2: "bip122:fake", Final: 6, MinRate: 1500},
		Assets: []ledger.AssetParam{{ID: "btc", Chain: "btc"}},
	})}
}

func accountsWorld() *fakeWorld {
	return &fakeWorld{accounts: true, Fake: chaintest.NewFake(chaintest.FakeConfig{
		Chain:  ledger.ChainParam{Name: "eth", CAIP2: "eip155:1337", MinRate: gwei, MinTip: gwei},
		Assets: []ledger.AssetParam{{ID: "eth", Chain: "eth"}, {ID: "usdt.eth", Chain: "eth", Token: token}},
		Lag:    32,
	})}
}

func TestFakeCoins(t *testing.T)    { chaintest.Run(t, coinsWorld()) }
func TestFakeAccounts(t *testing.T) { chaintest.Run(t, giver{accountsWorld()}) }

// giver is a world with a coin of its own besides.
type giver struct{ *fakeWorld }

func (w giver) Give(_ *testing.T, to string, units uint64) {
	w.Fake.Deposit(to, "eth", fixed.New(units))
}

func (w *fakeWorld) Adapter(*testing.T) chains.Chain { return w.Fake }

func (w *fakeWorld) Mine(_ *testing.T, n int) { w.Fake.Mine(n) }

func (w *fakeWorld) Finalize(*testing.T) { w.Fake.Mine(32) }

func (w *fakeWorld) Reorg(_ *testing.T, depth int) { w.Fake.Reorg(depth) }

func (w *fakeWorld) Foreign(_ *testing.T, b chaintest.Batch) { w.Fake.Foreign(b.Anchor.Name) }

func (w *fakeWorld) party(t *testing.T) (*secp256k1.PrivateKey, string) {
	t.Helper()
	w.n++
	var seed [32]byte
	binary.BigEndian.PutUint64(seed[20:], w.n)
	key := secp256k1.PrivKeyFromBytes(seed[:])
	if !w.accounts {
		addr, err := address.P2WPKH(address.Regtest, key.PubKey().SerializeCompressed())
		if err != nil {
			t.Fatal(err)
		}
		return key, addr
	}
	addr, err := address.EthereumOf(key.PubKey().SerializeCompressed())
	if err != nil {
		t.Fatal(err)
	}
	return key, address.EthereumAddress(addr)
}

func (w *fakeWorld) Deposit(t *testing.T) ledger.InflowFact {
	_, addr := w.party(t)
	f := ledger.InflowFact{Chain: "btc", Asset: "btc", Address: addr, Amount: fixed.New(100_000)}
	if w.accounts {
		f.Chain, f.Asset = "eth", "usdt.eth"
	}
	f.ID = w.Fake.Deposit(addr, f.Asset, f.Amount)
	return f
}

func (w *fakeWorld) Batch(t *testing.T) chaintest.Batch {
	key, from := w.party(t)
	_, to := w.party(t)
	pub := key.PubKey().SerializeCompressed()
	b := chaintest.Batch{
		Addresses: map[string]uint64{from: 0}, Key: key,
		Anchor: chains.Anchor{Batch: w.n, Attempts: []ledger.Attempt{{K: 0}, {K: 1, Kind: ledger.AttemptBump}}},
	}
	if !w.accounts {
		b.Anchor.Name = w.Fake.Deposit(from, "btc", fixed.New(10_000))
		for k := range b.Anchor.Attempts {
			fee := uint64(200 * (k + 1))
			b.Anchor.Attempts[k].Bitcoin = &ledger.BitcoinTx{
				Inputs: []ledger.BitcoinIn{{Outpoint: b.Anchor.Name, Sats: 10_000, Pub: pub}},
				Outputs: []ledger.BitcoinOut{
					{Address: to, Sats: 6_000, Outflow: 7}, {Address: from, Sats: 4_000 - fee},
				},
				Fee: fee,
			}
		}
		b.Pays = []ledger.Payment{
			{Asset: "btc", To: to, Amount: fixed.New(6_000)}, {Asset: "btc", To: from, Amount: fixed.New(3_800)},
		}
		w.Fake.Mine(1)
		return b
	}
	w.Fake.Deposit(from, "eth", fixed.New(gwei*gwei))
	w.Fake.Deposit(from, "usdt.eth", fixed.New(10_000))
	w.Fake.Mine(1)
	b.Anchor.Name = from + ":0"
	for k := range b.Anchor.Attempts {
		b.Anchor.Attempts[k].Ethereum = &ledger.EthereumTx{
			ChainID: 1337, From: from, Pub: pub, To: token, Data: call(t, to, 6_000), Gas: 100_000,
			FeeCap: uint64(k+2) * gwei, Tip: uint64(k+1) * gwei,
		}
	}
	b.Pays = []ledger.Payment{{Asset: "usdt.eth", To: to, Amount: fixed.New(6_000)}}
	return b
}

// call is the data of transfer(to, amount) as the ledger plans it.
func call(t *testing.T, to string, amount uint64) []byte {
	t.Helper()
	a, err := address.ParseEthereum(to)
	if err != nil {
		t.Fatal(err)
	}
	d := make([]byte, 68)
	copy(d, []byte{0xa9, 0x05, 0x9c, 0xbb})
	copy(d[16:], a[:])
	binary.BigEndian.PutUint64(d[60:], amount)
	return d
}

// The rules the fake exists for: a resource is consumed once, a gap waits, a
// transfer that fails consumes its sequence and moves nothing, and coins do not
// multiply.
func TestFakeKeepsChainRules(t *testing.T) {
	ctx := context.Background()
	w := accountsWorld()
	b := w.Batch(t)
	send := func(k int, sequence uint64) error {
		t.Helper()
		a := b.Anchor.Attempts[k]
		tx := *a.Ethereum
		tx.Sequence = sequence
		a.Ethereum = &tx
		u, err := w.Build(a)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := w.Finish(u, chaintest.Sign(b.Key, u))
		if err != nil {
			t.Fatal(err)
		}
		return w.Broadcast(ctx, raw.Bytes)
	}
	to := b.Pays[0].To
	if err := send(0, 1); err != nil {
		t.Fatal(err)
	}
	w.Fake.Mine(1)
	if got := w.Balance(to, "usdt.eth"); !got.IsZero() {
		t.Fatalf("paid %s over a gap", got)
	}
	w.Revert(to)
	if err := send(0, 0); err != nil {
		t.Fatal(err)
	}
	w.Fake.Mine(1)
	if got := w.Balance(to, "usdt.eth"); !got.IsZero() {
		t.Fatalf("paid %s though it reverts", got)
	}
	if err := send(1, 1); !errors.Is(err, chains.ErrAnchorSpent) {
		t.Fatalf("sequence again: %v", err)
	}
	v := chains.View{Anchors: []chains.Anchor{b.Anchor}, Watched: chains.Watch(b.Addresses)}
	w.Fake.Mine(32)
	o, _, err := w.Watch(ctx, v, nil)
	if err != nil || len(o.Spends) != 1 || o.Spends[0].Outcome != ledger.OutcomeReverted || !o.Spends[0].Final {
		t.Fatalf("reverted spend shown as %+v, %v", o.Spends, err)
	}
	mute := accountsWorld()
	m := mute.Batch(t)
	mute.Mute(m.Pays[0].To, true)
	if u, err := mute.Build(m.Anchor.Attempts[0]); err != nil {
		t.Fatal(err)
	} else if raw, err := mute.Finish(u, chaintest.Sign(m.Key, u)); err != nil || mute.Broadcast(ctx, raw.Bytes) != nil {
		t.Fatal(err)
	}
	mute.Fake.Mine(33)
	o, _, err = mute.Watch(ctx, chains.View{Anchors: []chains.Anchor{m.Anchor}, Watched: chains.Watch(m.Addresses)}, nil)
	if err != nil || len(o.Spends) != 1 || o.Spends[0].Outcome != ledger.OutcomeUnclear || !mute.Balance(m.Pays[0].To, "usdt.eth").IsZero() || len(mute.Fees()) != 1 {
		t.Fatalf("a transfer that shows nothing: %+v, %v", o.Spends, err)
	}

	coins := coinsWorld()
	c := coins.Batch(t)
	u, err := coins.Build(c.Anchor.Attempts[0])
	if err != nil {
		t.Fatal(err)
	}
	u.Inputs[0].Sats += 1_000_000 // the chain holds less than the books say
	raw, err := coins.Finish(u, chaintest.Sign(c.Key, u))
	if err != nil {
		t.Fatal(err)
	}
	if err := coins.Broadcast(ctx, raw.Bytes); !errors.Is(err, chains.ErrRefused) {
		t.Fatalf("more than the coin holds: %v", err)
	}
}

// A spend of a coin, or of a sequence, that no open batch has: alarm.
func TestForeignWithoutBatch(t *testing.T) {
	for _, w := range []*fakeWorld{coinsWorld(), accountsWorld()} {
		b := w.Batch(t)
		w.Fake.Foreign(b.Anchor.Name)
		w.Fake.Mine(1)
		v := chains.View{Watched: chains.Watch(b.Addresses)}
		if o, _, err := w.Watch(context.Background(), v, nil); err != nil || len(o.Spends) != 0 {
			t.Errorf("settled spend shown: %+v, %v", o.Spends, err)
		}
		v.Coin = func(outpoint string) bool { return outpoint == b.Anchor.Name }
		v.Sequence = func(a string) (uint64, bool) { _, ours := b.Addresses[a]; return 0, ours }
		o, _, err := w.Watch(context.Background(), v, nil)
		if err != nil || len(o.Spends) != 1 || !o.Spends[0].Foreign || o.Spends[0].Batch != 0 {
			t.Errorf("accounts %t: %+v, %v", w.accounts, o.Spends, err)
		}
	}
}

// Two runs of the same calls are the same world.
func TestFakeIsDeterministic(t *testing.T) {
	run := func() (chains.Observations, []chaintest.Payment) {
		w := accountsWorld()
		b := w.Batch(t)
		w.Deposit(t)
		w.Fake.Mine(3)
		w.Fake.Reorg(2)
		o, _, err := w.Watch(context.Background(), chains.View{Watched: chains.Watch(b.Addresses)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return o, w.Payments()
	}
	o1, p1 := run()
	o2, p2 := run()
	if !reflect.DeepEqual(o1, o2) || !reflect.DeepEqual(p1, p2) {
		t.Errorf("%+v %+v\nis not\n%+v %+v", o1, p1, o2, p2)
	}
}
