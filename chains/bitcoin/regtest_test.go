package bitcoin

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"testing"
	"time"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/btcutil"
	"github.com/btcsuite/btcd/chaincfg"
	"github.com/btcsuite/btcd/chaincfg/chainhash"
	"github.com/btcsuite/btcd/txscript"
	"github.com/btcsuite/btcd/wire"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"

	"github.com/coffer-network/coffer/chains"
	"github.com/coffer-network/coffer/chains/chaintest"
	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

const (
	faucetCoin  = 1_000_000 // sat
	faucetFee   = 1_000
	faucetCoins = 120
)

// regtest is a real node and a faucet, as a chaintest.World.
type regtest struct {
	backend
	param  ledger.ChainParam
	url    string
	rpc    *client
	key    *secp256k1.PrivateKey // the faucet's and the miner's
	coins  []wire.OutPoint       // of faucetCoin each
	rest   wire.OutPoint         // of the faucet
	nextID uint64
}

func startRegtest(t *testing.T, b backend) *regtest {
	t.Helper()
	reference := "0f9188f13cb7b2c71f2a335e3a4fc328"
	w := &regtest{
		backend: b,
		param:   ledger.ChainParam{Name: "btc", CAIP2: "bip122:" + reference, Final: 6, MinRate: 1500},
		key:     secp256k1.PrivKeyFromBytes([]byte("the faucet of the adapter tests.")),
	}
	w.url = b.start(t, w.address(t, w.key))
	w.rpc = newClient(w.url, "u", "p")
	w.fillFaucet(t)
	return w
}

func (w *regtest) address(t *testing.T, key *secp256k1.PrivateKey) string {
	t.Helper()
	a, err := address.P2WPKH(address.Regtest, key.PubKey().SerializeCompressed())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (w *regtest) script(t *testing.T, addr string) []byte {
	t.Helper()
	s, err := address.ScriptOf(address.Regtest, addr)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// fillFaucet mines past maturity and splits one coinbase.
func (w *regtest) fillFaucet(t *testing.T) {
	t.Helper()
	w.Mine(t, 101)
	first := w.block(t, 1).Transactions()[0]
	tx := wire.NewMsgTx(2)
	tx.AddTxIn(wire.NewTxIn(wire.NewOutPoint(first.Hash(), 0), nil, nil))
	value := first.MsgTx().TxOut[0].Value
	rest := value - faucetFee*10
	for range faucetCoins {
		tx.AddTxOut(wire.NewTxOut(faucetCoin, w.script(t, w.address(t, w.key))))
		rest -= faucetCoin
	}
	tx.AddTxOut(wire.NewTxOut(rest, w.script(t, w.address(t, w.key))))
	w.send(t, tx, w.key, value)
	for i := range uint32(faucetCoins) {
		w.coins = append(w.coins, wire.OutPoint{Hash: tx.TxHash(), Index: i})
	}
	w.rest = wire.OutPoint{Hash: tx.TxHash(), Index: faucetCoins}
	w.Mine(t, 1)
}

// send signs the one input of tx and gives it to the node.
func (w *regtest) send(t *testing.T, tx *wire.MsgTx, key *secp256k1.PrivateKey, value int64) {
	t.Helper()
	script := w.script(t, w.address(t, key))
	hashes := txscript.NewTxSigHashes(tx, txscript.NewCannedPrevOutputFetcher(script, value))
	witness, err := txscript.WitnessSignature(tx, hashes, 0, value, script, txscript.SigHashAll, key, true)
	if err != nil {
		t.Fatal(err)
	}
	tx.TxIn[0].Witness = witness
	var b bytes.Buffer
	if err := tx.Serialize(&b); err != nil {
		t.Fatal(err)
	}
	var id string
	if err := w.rpc.call(t.Context(), &id, "sendrawtransaction", hex.EncodeToString(b.Bytes())); err != nil {
		t.Fatal(err)
	}
}

func (w *regtest) block(t *testing.T, height uint64) *btcutil.Block {
	t.Helper()
	c := w.chain(t)
	hash, err := c.HashAt(t.Context(), height)
	if err != nil {
		t.Fatal(err)
	}
	b, err := c.block(t.Context(), hash)
	if err != nil {
		t.Fatal(err)
	}
	b.SetHeight(int32(height))
	return b
}

func (w *regtest) chain(t *testing.T) *Chain {
	t.Helper()
	c, err := New(Config{Chain: w.param, URL: w.url, User: "u", Password: "p"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (w *regtest) Adapter(t *testing.T) chains.Chain { return w.chain(t) }

func (w *regtest) Mine(t *testing.T, n int) {
	t.Helper()
	var hashes []string
	method, params := w.mine(n, w.address(t, w.key))
	if err := w.rpc.call(t.Context(), &hashes, method, params...); err != nil {
		t.Fatal(err)
	}
}

func (w *regtest) Finalize(t *testing.T) { w.Mine(t, 6) }

// Reorg mines empty blocks by hand: the node's own miner would take back what
// the fork returned to its memory pool.
func (w *regtest) Reorg(t *testing.T, depth int) {
	t.Helper()
	best, err := w.chain(t).Best(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	parent := w.block(t, best-uint64(depth))
	for range depth + 1 {
		parent = w.emptyBlock(t, parent)
		var b bytes.Buffer
		if err := parent.MsgBlock().Serialize(&b); err != nil {
			t.Fatal(err)
		}
		var refused *string
		err := w.rpc.call(t.Context(), &refused, "submitblock", hex.EncodeToString(b.Bytes()))
		// bitcoind's word for a good block that is not of the best chain, yet.
		if err != nil || refused != nil && *refused != "inconclusive" {
			t.Fatalf("submit block: %v, %v", err, refused)
		}
	}
}

func (w *regtest) emptyBlock(t *testing.T, parent *btcutil.Block) *btcutil.Block {
	t.Helper()
	height := parent.Height() + 1
	script, err := txscript.NewScriptBuilder().AddInt64(int64(height)).AddData([]byte("another branch")).Script()
	if err != nil {
		t.Fatal(err)
	}
	coinbase := wire.NewMsgTx(1)
	coinbase.AddTxIn(wire.NewTxIn(wire.NewOutPoint(&chainhash.Hash{}, wire.MaxPrevOutIndex), script, nil))
	value := blockchain.CalcBlockSubsidy(height, &chaincfg.RegressionNetParams)
	coinbase.AddTxOut(wire.NewTxOut(value, w.script(t, w.address(t, w.key))))
	header := parent.MsgBlock().Header
	msg := wire.NewMsgBlock(wire.NewBlockHeader(header.Version, parent.Hash(), &chainhash.Hash{}, header.Bits, 0))
	msg.Header.Timestamp = header.Timestamp.Add(time.Second)
	if err := msg.AddTransaction(coinbase); err != nil {
		t.Fatal(err)
	}
	msg.Header.MerkleRoot = coinbase.TxHash()
	b := btcutil.NewBlock(msg)
	for blockchain.CheckProofOfWork(b, chaincfg.RegressionNetParams.PowLimit) != nil {
		msg.Header.Nonce++ // every second one fits
		b = btcutil.NewBlock(msg)
	}
	b.SetHeight(height)
	return b
}

func (w *regtest) party(t *testing.T) (*secp256k1.PrivateKey, string) {
	t.Helper()
	w.nextID++
	seed := binary.BigEndian.AppendUint64(make([]byte, 24), w.nextID)
	key := secp256k1.PrivKeyFromBytes(seed)
	return key, w.address(t, key)
}

func (w *regtest) deposit(t *testing.T, addr string) ledger.InflowFact {
	t.Helper()
	coin := w.coins[0]
	w.coins = w.coins[1:]
	tx := wire.NewMsgTx(2)
	tx.AddTxIn(wire.NewTxIn(&coin, nil, nil))
	tx.AddTxOut(wire.NewTxOut(faucetCoin-faucetFee, w.script(t, addr)))
	w.send(t, tx, w.key, faucetCoin)
	return ledger.InflowFact{
		Chain: "btc", ID: tx.TxHash().String() + ":0", Address: addr, Asset: "btc", Amount: fixed.New(faucetCoin - faucetFee),
	}
}

func (w *regtest) Deposit(t *testing.T) ledger.InflowFact {
	t.Helper()
	_, addr := w.party(t)
	return w.deposit(t, addr)
}

func (w *regtest) Batch(t *testing.T) chaintest.Batch {
	t.Helper()
	key, from := w.party(t)
	_, to := w.party(t)
	second := w.deposit(t, from).ID
	b := chaintest.Batch{
		Addresses: map[string]uint64{from: 0}, Key: key,
		Anchor: chains.Anchor{Name: w.deposit(t, from).ID, Batch: w.nextID},
	}
	w.Mine(t, 1)
	const sats = faucetCoin - faucetFee
	for k := range uint64(2) {
		fee := 500 * (k + 1)
		p := &ledger.BitcoinTx{LockTime: 100, Fee: fee, Rate: fee}
		for _, name := range []string{b.Anchor.Name, second} {
			p.Inputs = append(p.Inputs, ledger.BitcoinIn{Outpoint: name, Sats: sats, Pub: key.PubKey().SerializeCompressed()})
		}
		p.Outputs = []ledger.BitcoinOut{
			{Address: to, Sats: 600_000, Outflow: 9}, {Address: from, Sats: 2*sats - 600_000 - fee},
		}
		b.Anchor.Attempts = append(b.Anchor.Attempts, ledger.Attempt{K: k, Bitcoin: p})
	}
	for _, o := range b.Anchor.Attempts[0].Bitcoin.Outputs {
		b.Pays = append(b.Pays, ledger.Payment{Asset: "btc", To: o.Address, Amount: fixed.New(o.Sats)})
	}
	return b
}

func (w *regtest) Foreign(t *testing.T, b chaintest.Batch) {
	t.Helper()
	op, err := parseOutpoint(b.Anchor.Name)
	if err != nil {
		t.Fatal(err)
	}
	tx := wire.NewMsgTx(2)
	tx.AddTxIn(wire.NewTxIn(&op, nil, nil))
	tx.AddTxOut(wire.NewTxOut(5_000, w.script(t, w.address(t, w.key))))
	w.send(t, tx, b.Key, faucetCoin-faucetFee)
}

// The contract, on real nodes, and what only a real node can show.
func TestRegtest(t *testing.T) { eachBackend(t, testRegtest) }

func testRegtest(t *testing.T, w *regtest) {
	chaintest.Run(t, w)
	t.Run("Fee", w.testFee)
	t.Run("Fault30_OtherFormsOfOurKey", w.testOutputs)
	t.Run("Broadcast", w.testBroadcast)
	t.Run("Fault02_ReplacementWithoutTheAnchor", w.testFault02)
	t.Run("Fault03_SignedTwice", w.testFault03)
	t.Run("Fault07_AnswerLost", w.testFault07)
	t.Run("Fault08_AlreadyKnown", w.testFault08)
	t.Run("Fault09_NodeLags", w.testFault09)
	t.Run("Fault10_AnotherAttemptInTheNewBranch", w.testFault10)
	t.Run("Fault47_WrongBlock", w.testFault47)
	t.Run("Fault57_DescendantsAreOutbid", w.testFault57)
	t.Run("FollowerKeepsItsPlace", w.testFollowerKeepsItsPlace)
	t.Run("Stale", w.testStale)
	t.Run("PlannedBoostedBatches", w.testBoostedBatches)
	t.Run("PlannedCancel", w.testCancel)
	t.Run("WrongNetwork", func(t *testing.T) {
		main := w.param
		main.CAIP2 = "bip122:000000000019d6689c085ae165831e93"
		c, err := New(Config{Chain: main, URL: w.url, User: "u", Password: "p"})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.checkNetwork(t.Context()); !isErr(err, chains.ErrEndpoint) {
			t.Errorf("regtest node for mainnet: %v", err)
		}
	})
}

// What the plan calls fee is what the chain took.
func (w *regtest) testFee(t *testing.T) {
	b := w.Batch(t)
	c := w.chain(t)
	u, err := c.Build(b.Anchor.Attempts[0])
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
	best, err := c.Best(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	block := w.block(t, best)
	rate, full := c.rate(block, best)
	tx := block.Transactions()[1]
	size := uint64(blockchain.GetTransactionWeight(tx) / 4)
	if want := 500 * 1000 / size; tx.Hash().String() != u.TxID || rate != want || full {
		t.Errorf("rate %d, full %t, tx %s; want %d, false, %s", rate, full, tx.Hash(), want, u.TxID)
	}
}

// "deposit to the P2PKH or P2TR form of a deposit key: not credited, logged":
// only P2WPKH outputs are inflows, and coinbases are not (spec: outflows B4).
// P2PKH is recognised, as it carries the same hash; P2TR and nested forms carry
// nothing that the follower knows.
func (w *regtest) testOutputs(t *testing.T) {
	key, addr := w.party(t)
	pub := key.PubKey().SerializeCompressed()
	nested, err := txscript.NewScriptBuilder().AddOp(txscript.OP_HASH160).
		AddData(btcutil.Hash160(w.script(t, addr))).AddOp(txscript.OP_EQUAL).Script()
	if err != nil {
		t.Fatal(err)
	}
	legacy, err := txscript.NewScriptBuilder().AddOp(txscript.OP_DUP).AddOp(txscript.OP_HASH160).
		AddData(btcutil.Hash160(pub)).AddOp(txscript.OP_EQUALVERIFY).AddOp(txscript.OP_CHECKSIG).Script()
	if err != nil {
		t.Fatal(err)
	}
	taproot, err := txscript.NewScriptBuilder().AddOp(txscript.OP_1).AddData(pub[1:]).Script()
	if err != nil {
		t.Fatal(err)
	}
	coin := w.coins[0]
	w.coins = w.coins[1:]
	tx := wire.NewMsgTx(2)
	tx.AddTxIn(wire.NewTxIn(&coin, nil, nil))
	for _, script := range [][]byte{nested, legacy, taproot, w.script(t, addr)} {
		tx.AddTxOut(wire.NewTxOut(10_000, script))
	}
	w.send(t, tx, w.key, faucetCoin)
	w.Mine(t, 1)
	v := chains.View{Watched: chains.Watch(map[string]uint64{addr: 0, w.address(t, w.key): 0})}
	c := w.chain(t)
	best, err := c.Best(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c.param.Start = best
	o, _, err := c.Watch(t.Context(), v, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(o.Inflows) != 1 || o.Inflows[0].Fact.ID != fmt.Sprintf("%s:3", tx.TxHash()) {
		t.Errorf("inflows %+v, want the last output of %s", o.Inflows, tx.TxHash())
	}
	if len(o.Ignored) != 2 || o.Ignored[0].Reason != "coinbase output" || o.Ignored[1].Reason != "legacy form of our address" {
		t.Errorf("ignored %+v, want the coinbase and the P2PKH output", o.Ignored)
	}
}

// A script that fails is an alarm and no wrong class; an unknown input is a
// consumed anchor.
func (w *regtest) testBroadcast(t *testing.T) {
	b := w.Batch(t)
	c := w.chain(t)
	u, err := c.Build(b.Anchor.Attempts[0])
	if err != nil {
		t.Fatal(err)
	}
	raw, err := c.Finish(u, chaintest.Sign(b.Key, u))
	if err != nil {
		t.Fatal(err)
	}
	tx := wire.NewMsgTx(2)
	if err := tx.Deserialize(bytes.NewReader(raw.Bytes)); err != nil {
		t.Fatal(err)
	}
	send := func() error {
		var out bytes.Buffer
		if err := tx.Serialize(&out); err != nil {
			t.Fatal(err)
		}
		return c.Broadcast(t.Context(), out.Bytes())
	}
	tx.TxIn[0].Witness[0][10] ^= 1
	if err := send(); !isErr(err, chains.ErrRefused) {
		t.Errorf("bad witness: %v", err)
	}
	tx.TxIn[0].PreviousOutPoint.Hash[0] ^= 1
	if err := send(); !isErr(err, chains.ErrAnchorSpent) {
		t.Errorf("unknown input: %v", err)
	}
	c.rpc.url = "http://" + freePort(t)
	if err := send(); !isErr(err, chains.ErrTransport) {
		t.Errorf("no node: %v", err)
	}
}
