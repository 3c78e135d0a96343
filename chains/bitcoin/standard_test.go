package bitcoin

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/btcutil"
	"github.com/btcsuite/btcd/mempool"
	"github.com/btcsuite/btcd/wire"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"pgregory.net/rapid"

	"github.com/coffer-network/coffer/chains/chaintest"
	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
)

// "batch oversize or non-standard: never built". Plants plans up to the ledger's
// bounds, of every script that it pays to and down to its dust: what is built and
// signed is what a node relays, and no heavier than the pool allows; one input or
// output more is not built. Seen failing with version 3.
func TestFault51_WhatIsBuiltIsStandard(t *testing.T) {
	c, err := New(Config{Chain: ledger.ChainParam{Name: "btc", CAIP2: "bip122:0f9188f13cb7b2c71f2a335e3a4fc328"}})
	if err != nil {
		t.Fatal(err)
	}
	key := secp256k1.PrivKeyFromBytes(binary.BigEndian.AppendUint64(make([]byte, 24), 7))
	pub := key.PubKey().SerializeCompressed()
	p2wpkh, err := address.P2WPKH(address.Regtest, pub)
	if err != nil {
		t.Fatal(err)
	}
	p2tr, err := address.P2TR(address.Regtest, pub)
	if err != nil {
		t.Fatal(err)
	}
	wsh, err := address.AddressOf(address.Regtest, append([]byte{0, 32}, pub[1:]...))
	if err != nil {
		t.Fatal(err)
	}
	plan := func(inputs, outputs int, pick func(n int, what string) int) ledger.Attempt {
		p := &ledger.BitcoinTx{LockTime: uint64(pick(700_000, "lock time"))}
		var in, out uint64
		for i := range inputs {
			sats := uint64(546 + pick(1_000_000, "coin"))
			p.Inputs = append(p.Inputs, ledger.BitcoinIn{Outpoint: fmt.Sprintf("%064x:%d", i+1, pick(100, "vout")), Sats: sats, Pub: pub})
			in += sats
		}
		for i := range outputs {
			sats := uint64(546 + pick(10_000, "amount"))
			p.Outputs = append(p.Outputs, ledger.BitcoinOut{Address: []string{p2wpkh, p2tr, wsh}[pick(3, "script")], Sats: sats, Outflow: uint64(i + 1)})
			out += sats
		}
		p.Inputs[0].Sats += out // enough in any case
		p.Fee = in
		return ledger.Attempt{Bitcoin: p}
	}
	rapid.Check(t, func(t *rapid.T) {
		pick := func(n int, what string) int { return rapid.IntRange(0, n-1).Draw(t, what) }
		inputs, outputs := 1+pick(100, "inputs"), 1+pick(104, "outputs")
		if pick(4, "largest") == 0 {
			inputs, outputs = 100, 104
		}
		u, err := c.Build(plan(inputs, outputs, pick))
		if err != nil {
			t.Fatal(err)
		}
		raw, err := c.Finish(u, chaintest.Sign(key, u))
		if err != nil {
			t.Fatal(err)
		}
		msg := new(wire.MsgTx)
		if err := msg.Deserialize(bytes.NewReader(raw.Bytes)); err != nil {
			t.Fatal(err)
		}
		tx := btcutil.NewTx(msg)
		if err := mempool.CheckTransactionStandard(tx, 700_000, time.Unix(1_700_000_000, 0), mempool.DefaultMinRelayTxFee, 2); err != nil {
			t.Fatal(err)
		}
		if w := blockchain.GetTransactionWeight(tx); w > 400_000 {
			t.Fatalf("weight %d", w)
		}
	})
	least := func(int, string) int { return 0 }
	for _, size := range [][2]int{{101, 1}, {1, 105}, {0, 1}, {1, 0}} {
		a := plan(max(size[0], 1), size[1], least)
		if size[0] == 0 {
			a.Bitcoin.Inputs = nil
		}
		if _, err := c.Build(a); err == nil {
			t.Errorf("%d inputs, %d outputs: built", size[0], size[1])
		}
	}
}
