package ethereum

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/eth/ethconfig"
	"github.com/ethereum/go-ethereum/ethclient/simulated"
	"github.com/ethereum/go-ethereum/node"
	"github.com/ethereum/go-ethereum/rpc"

	"github.com/coffer-network/coffer/chains"
	"github.com/coffer-network/coffer/chains/chaintest"
	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

const (
	gwei  = 1_000_000_000
	ether = gwei * gwei
)

// world is go-ethereum's simulated backend and a faucet, as a chaintest.World.
type world struct {
	sim      *simulated.Backend
	rpc      *rpc.Client
	faucet   *secp256k1.PrivateKey
	sequence uint64 // of the faucet
	cfg      Config
	usdt     string // listed; its transfer returns nothing
	fake     string // the same code, not listed
	refusing string // listed; its transfer returns false and moves nothing
	n        uint64
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{faucet: secp256k1.PrivKeyFromBytes([]byte("the faucet of the adapter tests."))}
	all := new(big.Int).Mul(big.NewInt(1_000_000), big.NewInt(ether))
	host, port := freePort(t)
	w.sim = simulated.NewBackend(
		types.GenesisAlloc{common.HexToAddress(w.address(t, w.faucet)): {Balance: all}},
		func(n *node.Config, e *ethconfig.Config) {
			n.HTTPHost, n.HTTPPort, n.HTTPModules = host, port, []string{"eth", "txpool"}
			// The rules of the main network, not of a fork to come.
			config := *e.Genesis.Config
			config.BogotaTime = nil
			e.Genesis.Config = &config
		})
	t.Cleanup(func() {
		if err := w.sim.Close(); err != nil {
			t.Error(err)
		}
	})
	url := fmt.Sprintf("http://%s:%d", host, port)
	var err error
	if w.rpc, err = rpc.Dial(url); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.rpc.Close)
	w.usdt, w.fake, w.refusing = w.deploy(t, "TestUSDT"), w.deploy(t, "TestUSDT"), w.deploy(t, "RefusingToken")
	w.cfg = Config{
		URL:   url,
		Chain: ledger.ChainParam{Name: "eth", CAIP2: "eip155:1337", MinRate: gwei, MinTip: gwei},
		Assets: []ledger.AssetParam{
			{ID: "btc", Chain: "btc"}, {ID: "eth", Chain: "eth"},
			{ID: "no.eth", Chain: "eth", Token: w.refusing}, {ID: "usdt.eth", Chain: "eth", Token: w.usdt},
		},
	}
	return w
}

func freePort(t *testing.T) (string, int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a := l.Addr().(*net.TCPAddr)
	return a.IP.String(), a.Port
}

func (w *world) address(t *testing.T, key *secp256k1.PrivateKey) string {
	t.Helper()
	a, err := address.EthereumOf(key.PubKey().SerializeCompressed())
	if err != nil {
		t.Fatal(err)
	}
	return address.EthereumAddress(a)
}

func (w *world) party(t *testing.T) (*secp256k1.PrivateKey, string) {
	t.Helper()
	w.n++
	key := secp256k1.PrivKeyFromBytes(binary.BigEndian.AppendUint64(make([]byte, 24), w.n))
	return key, w.address(t, key)
}

// send gives the node a transaction of a key, made without the adapter.
func (w *world) send(t *testing.T, key *secp256k1.PrivateKey, sequence uint64, to *common.Address, value *big.Int, data []byte) {
	t.Helper()
	tx, err := types.SignNewTx(key.ToECDSA(), types.LatestSignerForChainID(big.NewInt(1337)), &types.DynamicFeeTx{
		ChainID: big.NewInt(1337), Nonce: sequence, GasTipCap: big.NewInt(50 * gwei), GasFeeCap: big.NewInt(100 * gwei),
		Gas: 2_000_000, To: to, Value: value, Data: data,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.sim.Client().SendTransaction(t.Context(), tx); err != nil {
		t.Fatal(err)
	}
}

// give sends from the faucet: ether, or a token by its contract.
func (w *world) give(t *testing.T, token, to string, amount uint64) string {
	t.Helper()
	target, value, data := common.HexToAddress(to), new(big.Int).SetUint64(amount), []byte(nil)
	if token != "" {
		target, value, data = common.HexToAddress(token), new(big.Int), call(t, to, amount)
	}
	tx, err := types.SignNewTx(w.faucet.ToECDSA(), types.LatestSignerForChainID(big.NewInt(1337)), &types.DynamicFeeTx{
		ChainID: big.NewInt(1337), Nonce: w.sequence, GasTipCap: big.NewInt(gwei), GasFeeCap: big.NewInt(100 * gwei),
		Gas: 100_000, To: &target, Value: value, Data: data,
	})
	if err != nil {
		t.Fatal(err)
	}
	w.sequence++
	if err := w.sim.Client().SendTransaction(t.Context(), tx); err != nil {
		t.Fatal(err)
	}
	return tx.Hash().Hex()
}

func (w *world) deploy(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "testnet", "token", name+".bin"))
	if err != nil {
		t.Fatal(err)
	}
	code, err := hex.DecodeString(string(bytes.TrimSpace(text)))
	if err != nil {
		t.Fatal(err)
	}
	w.send(t, w.faucet, w.sequence, nil, new(big.Int), code)
	a := crypto.CreateAddress(common.HexToAddress(w.address(t, w.faucet)), w.sequence)
	w.sequence++
	w.commit(t)
	return address.EthereumAddress(a)
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

func (w *world) chain(t *testing.T) *Chain {
	t.Helper()
	c, err := New(w.cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (w *world) Adapter(t *testing.T) chains.Chain { return w.chain(t) }

func (w *world) Mine(t *testing.T, n int) {
	t.Helper()
	for range n {
		w.commit(t)
	}
}

// commit seals a block. The pool promotes what it gets, and learns of blocks,
// in the background: commit waits for the one before and for the other after.
// Of what the backend offers only Fork waits for a block; a fork at the head is
// none.
func (w *world) commit(t *testing.T) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for {
		var status struct {
			Queued hexutil.Uint `json:"queued"`
		}
		if err := w.rpc.CallContext(t.Context(), &status, "txpool_status"); err != nil {
			t.Fatal(err)
		}
		if status.Queued == 0 {
			break
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%d transactions stay queued", status.Queued)
		}
	}
	if err := w.sim.Fork(w.sim.Commit()); err != nil {
		t.Fatalf("not all that waited is in the block: %v", err)
	}
}

func (w *world) number(t *testing.T, tag string) uint64 {
	t.Helper()
	var b *struct {
		Number hexutil.Uint64 `json:"number"`
	}
	if err := w.rpc.CallContext(t.Context(), &b, "eth_getBlockByNumber", tag, false); err != nil || b == nil {
		return 0
	}
	return uint64(b.Number)
}

func (w *world) Finalize(t *testing.T) {
	t.Helper()
	want := w.number(t, "latest")
	for range 100 {
		if w.number(t, "finalized") >= want {
			return
		}
		w.commit(t)
	}
	t.Fatal("nothing gets final")
}

func (w *world) Reorg(t *testing.T, depth int) {
	t.Helper()
	parent, err := w.chain(t).HashAt(t.Context(), w.number(t, "latest")-uint64(depth))
	if err != nil {
		t.Fatal(err)
	}
	w.sim.Rollback()
	if err := w.sim.Fork(common.HexToHash(parent)); err != nil {
		t.Fatal(err)
	}
	for range depth + 1 {
		w.sim.Rollback() // what the fork returned to the pool
		w.commit(t)
	}
}

func (w *world) Give(t *testing.T, to string, units uint64) { w.give(t, "", to, units) }

func (w *world) Deposit(t *testing.T) ledger.InflowFact {
	t.Helper()
	_, addr := w.party(t)
	return ledger.InflowFact{
		Chain: "eth", ID: w.give(t, w.usdt, addr, 7_000_000) + ":0", Address: addr, Asset: "usdt.eth", Amount: fixed.New(7_000_000),
	}
}

func (w *world) Batch(t *testing.T) chaintest.Batch {
	t.Helper()
	// Every 32nd block is final at once: none shall be among those that the
	// contract takes back.
	for w.number(t, "latest")%32 > 24 {
		w.commit(t)
	}
	key, from := w.party(t)
	_, to := w.party(t)
	w.give(t, "", from, ether)
	w.give(t, w.usdt, from, 10_000_000)
	w.Mine(t, 1)
	b := chaintest.Batch{
		Addresses: map[string]uint64{from: 0}, Key: key,
		Anchor: chains.Anchor{Name: from + ":0", Batch: w.n},
		Pays:   []ledger.Payment{{Asset: "usdt.eth", To: to, Amount: fixed.New(6_000_000)}},
	}
	for k := range uint64(2) {
		b.Anchor.Attempts = append(b.Anchor.Attempts, ledger.Attempt{K: k, Ethereum: &ledger.EthereumTx{
			ChainID: 1337, From: from, Pub: key.PubKey().SerializeCompressed(), To: w.usdt,
			Data: call(t, to, 6_000_000), Gas: 100_000, FeeCap: (k + 3) * gwei, Tip: (k + 1) * gwei,
		}})
	}
	return b
}

func (w *world) Foreign(t *testing.T, b chaintest.Batch) {
	t.Helper()
	to := common.HexToAddress(b.Pays[0].To)
	w.send(t, b.Key, 0, &to, big.NewInt(1), nil)
}

func TestSimulated(t *testing.T) {
	w := newWorld(t)
	chaintest.Run(t, w)
	t.Run("Fault34_Outcomes", w.testOutcomes)
	t.Run("Fault31_SecondSignature", w.testSecondSignature)
	t.Run("Arrivals", w.testArrivals)
	t.Run("NativeDeposits", w.testNativeDeposits)
	t.Run("BelowFinality", w.testBelowFinality)
	t.Run("Blocks", w.testBlocks)
}

// finish signs, sends and mines one attempt.
func (w *world) finish(t *testing.T, b chaintest.Batch, tx ledger.EthereumTx) chains.Anchor {
	t.Helper()
	c := w.chain(t)
	anchor := chains.Anchor{Name: resource(tx.From, tx.Sequence), Batch: 5, Attempts: []ledger.Attempt{{Ethereum: &tx}}}
	u, err := c.Build(anchor.Attempts[0])
	if err != nil {
		t.Fatal(err)
	}
	raw, err := c.Finish(u, chaintest.Sign(b.Key, u))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Broadcast(t.Context(), raw.Bytes); err != nil {
		t.Fatal(err)
	}
	w.Mine(t, 1)
	return anchor
}

// Plants a revert, a token that succeeds and moves nothing, a cancel: what a
// finalized spend did is judged by status and log, not by hope (spec: outflows §10,
// 33 and 34).
func (w *world) testOutcomes(t *testing.T) {
	b := w.Batch(t)
	from, to := b.Anchor.Attempts[0].Ethereum.From, b.Pays[0].To
	base := *b.Anchor.Attempts[0].Ethereum
	v := chains.View{Watched: chains.Watch(b.Addresses), Floats: []string{from}}
	var want []ledger.Outcome
	for _, x := range []struct {
		outcome ledger.Outcome
		plan    func(*ledger.EthereumTx)
	}{
		{ledger.OutcomePaid, func(tx *ledger.EthereumTx) {}},
		{ledger.OutcomeReverted, func(tx *ledger.EthereumTx) { tx.Data = call(t, to, 60_000_000) }},
		{ledger.OutcomeUnclear, func(tx *ledger.EthereumTx) { tx.To = w.refusing }},
		{ledger.OutcomeSelf, func(tx *ledger.EthereumTx) { tx.To, tx.Data, tx.Gas = from, nil, 21_000 }},
		{ledger.OutcomePaid, func(tx *ledger.EthereumTx) { tx.To, tx.Data, tx.Gas, tx.Value = to, nil, 21_000, fixed.New(gwei) }},
	} {
		tx := base
		tx.Sequence = uint64(len(want))
		x.plan(&tx)
		v.Anchors = append(v.Anchors, w.finish(t, b, tx))
		want = append(want, x.outcome)
	}
	w.Finalize(t)
	c := w.chain(t)
	var o chains.Observations
	var cur chains.Cursor
	var err error
	for range 20 {
		if o, cur, err = c.Watch(t.Context(), v, cur); err != nil {
			t.Fatal(err)
		}
		if o.Behind == 0 {
			break
		}
	}
	if len(o.Spends) != len(want) {
		t.Fatalf("spends %+v", o.Spends)
	}
	cost := new(big.Int)
	for i, s := range o.Spends {
		if !s.Final || s.Outcome != want[i] {
			t.Errorf("spend %d: %+v, want outcome %d", i, s, want[i])
		}
		cost.Add(cost, new(big.Int).SetBytes(s.Fee.Bytes()))
	}
	// What the fees add up to is what the account lost, its payment apart.
	left := new(big.Int).SetBytes(o.Floats[0].Amount.Bytes())
	if sum := cost.Add(cost, left); sum.Cmp(big.NewInt(ether-gwei)) != 0 {
		t.Errorf("fees and rest are %s", sum)
	}
}

// Plants a second signature of one payload: two ids, and one attempt through either
// (spec: outflows §4.3; §10, 31).
func (w *world) testSecondSignature(t *testing.T) {
	b := w.Batch(t)
	c := w.chain(t)
	u, err := c.Build(b.Anchor.Attempts[0])
	if err != nil {
		t.Fatal(err)
	}
	first, err := c.Finish(u, chaintest.Sign(b.Key, u))
	if err != nil {
		t.Fatal(err)
	}
	second, err := c.Finish(u, []chains.Signature{chaintest.SignWith(b.Key, u.Inputs[0].Digest, 12345)})
	if err != nil {
		t.Fatal(err)
	}
	if first.TxID == second.TxID {
		t.Fatal("the same transaction twice")
	}
	if err := c.Broadcast(t.Context(), second.Bytes); err != nil {
		t.Fatal(err)
	}
	if err := c.Broadcast(t.Context(), first.Bytes); !errors.Is(err, chains.ErrTooCheap) {
		t.Errorf("other signature while one waits: %v", err)
	}
	w.Mine(t, 1)
	c.param.Start = w.number(t, "latest")
	o, _, err := c.Watch(t.Context(), chains.View{Watched: chains.Watch(b.Addresses), Anchors: []chains.Anchor{b.Anchor}}, nil)
	if err != nil || len(o.Spends) != 1 || o.Spends[0].Foreign || o.Spends[0].TxID != second.TxID {
		t.Errorf("saw %+v, %v", o.Spends, err)
	}
}

// A token nobody listed is shown as ignored and is no inflow; nothing at all is
// not even that.
func (w *world) testArrivals(t *testing.T) {
	_, addr := w.party(t)
	c := w.chain(t)
	c.param.Start = w.number(t, "latest") + 1
	first := w.give(t, w.usdt, addr, 5)
	w.give(t, w.fake, addr, 6)
	w.give(t, w.refusing, addr, 7)
	w.give(t, w.usdt, addr, 0)
	w.give(t, "", addr, 8)
	w.Mine(t, 1)
	o, _, err := c.Watch(t.Context(), chains.View{Watched: chains.Watch(map[string]uint64{addr: 0})}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(o.Inflows) != 1 || o.Inflows[0].Fact.ID != first+":0" || o.Inflows[0].Fact.Amount != fixed.New(5) {
		t.Errorf("inflows %+v", o.Inflows)
	}
	if len(o.Ignored) != 1 || o.Ignored[0].Reason != "unlisted token "+w.fake || o.Ignored[0].Address != addr {
		t.Errorf("ignored %+v", o.Ignored)
	}
}

// Plants a transfer out of a contract, which is in no block's body and no log: ether
// that any transaction leaves at an address of ours is seen at the next final height,
// not before, and shown until the ledger has counted it (spec: outflows §8.4). An
// address named late is asked in the next step. Seen failing with balances of the
// newest block ("shown before it is final"), and without the second look at those
// that hold more ("shown once only").
func (w *world) testNativeDeposits(t *testing.T) {
	_, plain := w.party(t)
	_, inside := w.party(t)
	_, late := w.party(t)
	_, empty := w.party(t)
	counted := map[string]fixed.Int{}
	list := chains.Watch(map[string]uint64{plain: 0, inside: 0, empty: 0})
	v := chains.View{Watched: list, Native: func(a string, _ uint64, balance fixed.Int) (fixed.Int, ledger.NativeWord) {
		if counted[a].Less(balance) {
			return balance, ledger.NativeMore
		}
		return balance, ledger.NativeNothing
	}}
	w.Finalize(t)
	c := w.chain(t)
	var cur chains.Cursor
	watch := func() map[string]ledger.InflowFact {
		t.Helper()
		for range 50 {
			o, next, err := c.Watch(t.Context(), v, cur)
			if err != nil {
				t.Fatal(err)
			}
			if cur = next; o.Behind > 0 {
				continue
			}
			got := map[string]ledger.InflowFact{}
			for _, in := range o.Inflows {
				if in.Fact.Asset == "eth" {
					got[in.Fact.Address] = in.Fact
				}
			}
			return got
		}
		t.Fatal("never caught up")
		return nil
	}
	watch()
	for w.number(t, "latest")%32 > 20 { // none of these shall be final at once
		w.commit(t)
	}
	w.give(t, "", plain, 5*gwei)
	to, err := address.ParseEthereum(inside)
	if err != nil {
		t.Fatal(err)
	}
	code := append([]byte{0x60, 0, 0x60, 0, 0x60, 0, 0x60, 0, 0x34, 0x73}, to[:]...)
	w.send(t, w.faucet, w.sequence, nil, big.NewInt(7*gwei), append(code, 0x5a, 0xf1, 0x00)) // CALL with all the value
	w.sequence++
	w.give(t, "", late, 9*gwei)
	w.Mine(t, 1)
	if got := watch(); len(got) != 0 {
		t.Fatalf("shown before it is final: %+v", got)
	}
	w.Finalize(t)
	for range 3 {
		got, height := watch(), w.number(t, "finalized")
		if len(got) != 2 {
			t.Fatalf("saw %+v", got)
		}
		for addr, wei := range map[string]uint64{plain: 5 * gwei, inside: 7 * gwei} {
			f := got[addr]
			if f.Amount != fixed.New(wei) || f.ID != ledger.NativeID(addr, height) || f.Height != height || f.Chain != "eth" {
				t.Errorf("of %s: %+v, finalized %d", addr, f, height)
			}
		}
	}
	list.Add(late, 0)
	if got := watch(); len(got) != 3 || got[late].Amount != fixed.New(9*gwei) {
		t.Errorf("with a late address: %+v", got)
	}
	counted[plain], counted[inside] = fixed.New(5*gwei), fixed.New(7*gwei)
	if got := watch(); len(got) != 1 {
		t.Errorf("after two are counted: %+v", got)
	}
	w.give(t, "", plain, gwei)
	w.Mine(t, 1)
	w.Finalize(t)
	if got := watch(); got[plain].Amount != fixed.New(6*gwei) {
		t.Errorf("the next deposit: %+v", got[plain])
	}
}

// A fork below what was final is not followed.
func (w *world) testBelowFinality(t *testing.T) {
	w.Mine(t, 1)
	w.Finalize(t)
	c := w.chain(t)
	_, cur, err := c.Watch(t.Context(), chains.View{}, nil)
	for range 20 {
		if err != nil {
			t.Fatal(err)
		}
		var o chains.Observations
		if o, cur, err = c.Watch(t.Context(), chains.View{}, cur); o.Behind == 0 {
			break
		}
	}
	depth := int(w.number(t, "latest") - w.number(t, "finalized") + 1)
	w.Reorg(t, depth)
	if _, back, err := c.Watch(t.Context(), chains.View{}, cur); !errors.Is(err, chains.ErrDeepFork) || !bytes.Equal(back, cur) {
		t.Errorf("fork %d deep: %v", depth, err)
	}
}
