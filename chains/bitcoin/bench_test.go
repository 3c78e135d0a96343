package bitcoin

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/btcutil"
	"github.com/btcsuite/btcd/txscript"
	"github.com/btcsuite/btcd/wire"
	"github.com/tidwall/btree"

	"github.com/coffer-network/coffer/chains"
	"github.com/coffer-network/coffer/chains/internal/follow"
	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
)

// tree is Watched and coins as the ledger has them: sorted trees.
type tree struct {
	log     btree.Map[uint64, string]
	watched btree.Map[string, uint64]
	coins   btree.Map[string, bool]
}

func (w *tree) Registered() uint64                 { return uint64(w.log.Len()) }
func (w *tree) Number(n uint64) (string, bool)     { return w.log.Get(n) }
func (w *tree) From(address string) (uint64, bool) { return w.watched.Get(address) }

func (w *tree) add(b testing.TB, r *rand.ChaCha8) []byte {
	script := make([]byte, 22)
	script[1] = txscript.OP_DATA_20
	r.Read(script[2:])
	addr, err := address.AddressOf(address.Mainnet, script)
	if err != nil {
		b.Fatal(err)
	}
	w.watched.Set(addr, w.Registered())
	w.log.Set(w.Registered(), addr)
	return script
}

// fullBlock is 4 MWU of what mainnet mostly carries: one or two inputs and two
// outputs, 5 in 9 of them P2WPKH, 2 P2TR, the rest older, and a few to us.
func fullBlock(b testing.TB, ours [][]byte, r *rand.ChaCha8) *btcutil.Block {
	rnd := rand.New(r)
	msg := wire.NewMsgBlock(&wire.BlockHeader{Bits: 0x1d00ffff})
	coinbase := wire.NewMsgTx(1)
	coinbase.AddTxIn(wire.NewTxIn(&wire.OutPoint{Index: wire.MaxPrevOutIndex}, []byte{3, 1, 2, 3}, nil))
	coinbase.AddTxOut(wire.NewTxOut(312_500_000, ours[0]))
	msg.Transactions = append(msg.Transactions, coinbase)
	random := func(n int) []byte { p := make([]byte, n); r.Read(p); return p }
	script := func() []byte {
		switch n := rnd.IntN(9); {
		case n < 5:
			return append([]byte{txscript.OP_0, 20}, random(20)...)
		case n < 7:
			return append([]byte{txscript.OP_1, 32}, random(32)...)
		case n < 8:
			return append(append([]byte{txscript.OP_DUP, txscript.OP_HASH160, 20}, random(20)...), txscript.OP_EQUALVERIFY, txscript.OP_CHECKSIG)
		}
		return append(append([]byte{txscript.OP_HASH160, 20}, random(20)...), txscript.OP_EQUAL)
	}
	weight := int64(0)
	for weight < blockchain.MaxBlockWeight-2000 {
		tx := wire.NewMsgTx(2)
		for range 1 + rnd.IntN(2) {
			in := wire.NewTxIn(&wire.OutPoint{Index: rnd.Uint32N(3)}, nil, nil)
			switch n := rnd.IntN(9); {
			case n < 5:
				in.Witness = [][]byte{random(71), random(33)}
			case n < 7:
				in.Witness = [][]byte{random(64)}
			case n < 8:
				in.SignatureScript = random(106)
			default:
				in.SignatureScript, in.Witness = random(23), [][]byte{random(71), random(33)}
			}
			copy(in.PreviousOutPoint.Hash[:], random(32))
			tx.AddTxIn(in)
		}
		tx.AddTxOut(wire.NewTxOut(rnd.Int64N(1e8)+1, script()))
		tx.AddTxOut(wire.NewTxOut(rnd.Int64N(1e8)+1, script()))
		if len(msg.Transactions)%800 == 0 {
			tx.TxOut[0].PkScript = ours[rnd.IntN(len(ours))]
		}
		weight += blockchain.GetTransactionWeight(btcutil.NewTx(tx))
		msg.Transactions = append(msg.Transactions, tx)
	}
	block := btcutil.NewBlock(msg)
	for _, tx := range block.Transactions() {
		tx.Hash() // known since the block was checked
	}
	return block
}

// Row 52 of spec outflows §10, at a million scripts and a full block:
// "benchmark at 10⁶ scripts: ≤ 5 ms per full block": scan is the watch-set's
// part of a block, poll what the set costs when nothing was registered,
// register what one new address costs.
func BenchmarkFault52_WatchSet(b *testing.B) {
	const scripts = 1_000_000
	r := rand.NewChaCha8([32]byte{1})
	w := &tree{}
	var ours [][]byte
	for range scripts {
		ours = append(ours, w.add(b, r))
	}
	for i := range uint64(scripts) {
		var op wire.OutPoint
		r.Read(op.Hash[:])
		op.Index = uint32(i % 3)
		w.coins.Set(outpointName(op), true)
	}
	c, err := New(Config{Chain: ledger.ChainParam{Name: "btc", CAIP2: "bip122:000000000019d6689c085ae165831e93"}})
	if err != nil {
		b.Fatal(err)
	}
	block := fullBlock(b, ours, r)
	v := chains.View{Watched: w, Coin: func(p string) bool { _, ok := w.coins.Get(p); return ok }}
	inputs, outputs := 0, 0
	for _, tx := range block.MsgBlock().Transactions {
		inputs += len(tx.TxIn)
		outputs += len(tx.TxOut)
	}
	b.Run("load", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			c.ours = programs{}
			c.ours.update(c.network, w)
		}
	})
	b.Run("poll", func(b *testing.B) {
		for b.Loop() {
			c.ours.update(c.network, w)
		}
	})
	s, err := follow.Load(nil, c.param.CAIP2, 0)
	if err != nil {
		b.Fatal(err)
	}
	want := s.Want(v)
	c.ours.update(c.network, w)
	b.Run("scan", func(b *testing.B) {
		found, best := 0, time.Hour // the best is what a busy machine cannot spoil
		for b.Loop() {
			start := time.Now()
			found = len(c.scan(block, scripts, want).Inflows)
			best = min(best, time.Since(start))
		}
		b.ReportMetric(float64(best.Microseconds())/1000, "best-ms")
		b.ReportMetric(float64(inputs), "inputs")
		b.ReportMetric(float64(outputs), "outputs")
		b.ReportMetric(float64(found), "found")
	})
	b.Run("register", func(b *testing.B) {
		for b.Loop() {
			w.add(b, r)
			c.ours.update(c.network, w)
		}
	})
}
