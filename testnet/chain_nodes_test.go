package testnet

import (
	"context"
	"errors"
	"flag"
	"log/slog"
	"math/big"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/btcsuite/btcd/wire"
	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/rpc"
)

// childEnv makes TestEthNodeChild run the node instead of passing.
const childEnv = "COFFER_TEST_ETH_NODE"

func TestEthNodeChild(t *testing.T) {
	if os.Getenv(childEnv) == "" {
		t.Skip("run by the other tests as their Ethereum node")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := EthNodeMain(ctx, flag.Args()); err != nil {
		t.Fatal(err)
	}
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func freePort(t *testing.T) int {
	t.Helper()
	port, err := PickPort(PortWish{Purpose: "a test"})
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func gone(t *testing.T, p *Proc) {
	t.Helper()
	// What a child left behind is killed at once but reaped by init, in its own time.
	await(t, testContext(t), p.Name()+" leaves no process behind", func() bool {
		return errors.Is(syscall.Kill(-p.Pid(), 0), syscall.ESRCH)
	})
}

func startBitcoin(t *testing.T, ctx context.Context, dir string) *Bitcoin {
	t.Helper()
	btcd := must[string](t)(BuildBTCD(ctx, NoProgress))
	b := must[*Bitcoin](t)(StartBitcoin(ctx, BitcoinConfig{
		Dir: dir, BTCD: btcd, RPCPort: freePort(t), PeerPort: freePort(t), Log: slog.New(slog.DiscardHandler),
	}))
	t.Cleanup(func() { b.Kill() })
	return b
}

// receiver is an address of nobody's: P2WPKH of twenty bytes 0x01.
const receiver = "bcrt1qqyqszqgpqyqszqgpqyqszqgpqyqszqgpvxat9t"

func TestBitcoinFaucetMinesFundsAndResumes(t *testing.T) {
	ctx, dir := testContext(t), t.TempDir()
	b := startBitcoin(t, ctx, dir)
	if height := must[int64](t)(b.RPC().Height(ctx)); height != bitcoinInitialBlocks {
		t.Fatalf("height after start: %d, want %d", height, bitcoinInitialBlocks)
	}

	// More payments than the faucet has mature coins, at once: the rest must come from change in the mempool.
	const payments = 20
	txids := make([]string, payments)
	var all sync.WaitGroup
	for i := range txids {
		all.Go(func() {
			var err error
			if txids[i], err = b.Fund(ctx, receiver, int64(1_000_000+i)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
	if height := must[int64](t)(b.Mine(ctx, 1)); height != bitcoinInitialBlocks+1 {
		t.Errorf("height after one more block: %d", height)
	}
	block := must[*wire.MsgBlock](t)(b.RPC().Block(ctx, bitcoinInitialBlocks+1))
	if len(block.Transactions) != payments+1 {
		t.Errorf("block has %d transactions, want the coinbase and %d payments", len(block.Transactions), payments)
	}
	for i, txid := range txids {
		var out struct{ Value float64 }
		if err := b.RPC().Call(ctx, &out, "gettxout", txid, 0, true); err != nil || out.Value != float64(1_000_000+i)/1e8 {
			t.Errorf("payment %d on the chain: %v BTC, %v", i, out.Value, err)
		}
	}

	var before string
	if err := b.RPC().Call(ctx, &before, "getbestblockhash"); err != nil {
		t.Fatal(err)
	}
	// What was only in the mempool dies with the node; the faucet must find its coins again.
	must[string](t)(b.Fund(ctx, receiver, 5_000_000))
	if err := b.Stop(ctx); err != nil {
		t.Error(err)
	}
	gone(t, b.Proc)
	b = startBitcoin(t, ctx, dir)
	if height := must[int64](t)(b.RPC().Height(ctx)); height != bitcoinInitialBlocks+2 {
		t.Errorf("height after resuming: %d, want one more block than before", height)
	}
	var same string
	if err := b.RPC().Call(ctx, &same, "getblockhash", bitcoinInitialBlocks+1); err != nil || same != before {
		t.Errorf("the resumed chain has %s, %v where the old one had %s", same, err, before)
	}
	must[string](t)(b.Fund(ctx, receiver, 6_000_000))

	// A reorganization takes the coins away that the faucet counts on.
	var tip string
	if err := b.RPC().Call(ctx, &tip, "getbestblockhash"); err != nil {
		t.Fatal(err)
	}
	if err := b.RPC().Call(ctx, nil, "invalidateblock", tip); err != nil {
		t.Fatal(err)
	}
	must[int64](t)(b.Mine(ctx, 3))
	txid := must[string](t)(b.Fund(ctx, receiver, 7_000_000))
	must[int64](t)(b.Mine(ctx, 1))
	if err := b.RPC().Call(ctx, nil, "getrawtransaction", txid, 1); err != nil {
		t.Error(err)
	}
	kept := must[*blockFile](t)(openBlockFile(dir+"/bitcoin/blocks", b.blocks.genesis))
	defer kept.file.Close()
	if err := b.RPC().Call(ctx, &tip, "getbestblockhash"); err != nil || kept.hash(kept.height()).String() != tip {
		t.Errorf("the block file ends at height %d with %s, the chain with %s, %v", kept.height(), kept.hash(kept.height()), tip, err)
	}

	for _, c := range []struct {
		address string
		sats    int64
		want    string
	}{
		{"bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", 1e6, "not a Bitcoin regtest address"},
		{"nonsense", 1e6, "not a Bitcoin regtest address"},
		{receiver, 293, "at a time"},
		{receiver, 21e14, "too few mature coins"},
	} {
		if _, err := b.Fund(ctx, c.address, c.sats); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("fund %s with %d: %v, want %q", c.address, c.sats, err, c.want)
		}
	}
	if _, err := b.Mine(ctx, MaxMine+1); err == nil {
		t.Error("mined more than MaxMine at once")
	}
	if info := must[os.FileInfo](t)(os.Stat(dir + "/faucet.json")); info.Mode().Perm() != 0o600 {
		t.Errorf("faucet.json has mode %v", info.Mode())
	}
}

func TestBitcoinMinesByTheClockAndReportsItsDeath(t *testing.T) {
	ctx, dir := testContext(t), t.TempDir()
	b := must[*Bitcoin](t)(StartBitcoin(ctx, BitcoinConfig{
		Dir: dir, BTCD: must[string](t)(BuildBTCD(ctx, NoProgress)), RPCPort: freePort(t), PeerPort: freePort(t),
		Every: 20 * time.Millisecond, Log: slog.New(slog.DiscardHandler),
	}))
	t.Cleanup(func() { _ = b.Stop(context.Background()) })
	await(t, ctx, "two blocks by the clock", func() bool {
		return must[int64](t)(b.RPC().Height(ctx)) >= bitcoinInitialBlocks+2
	})
	if err := b.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-b.Done()
	var died *DiedError
	if !errors.As(b.Err(), &died) || died.Name != "bitcoin" || died.Status != "signal: killed" {
		t.Errorf("after a kill -9: %v", b.Err())
	}
}

func await(t *testing.T, ctx context.Context, what string, happened func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !happened() {
		select {
		case <-ctx.Done():
			t.Fatalf("%s: did not happen", what)
		case <-tick.C:
		}
	}
}

func startEthereum(t *testing.T, ctx context.Context, dir string) *Ethereum {
	t.Helper()
	e := must[*Ethereum](t)(StartEthereum(ctx, EthereumConfig{
		Dir: dir, Command: []string{os.Args[0], "-test.run=^TestEthNodeChild$", "--"}, Env: []string{childEnv + "=1"},
		Port: freePort(t), Every: 20 * time.Millisecond,
	}))
	t.Cleanup(func() {
		e.Kill()
		if t.Failed() {
			t.Log("log of the node: ", tail(e.LogPath()))
		}
	})
	return e
}

func finalized(t *testing.T, ctx context.Context, e *Ethereum) uint64 {
	t.Helper()
	header, err := e.Client().HeaderByNumber(ctx, big.NewInt(int64(rpc.FinalizedBlockNumber)))
	if err != nil {
		t.Fatal(err)
	}
	return header.Number.Uint64()
}

func TestEthereumFaucetFundsAndResumes(t *testing.T) {
	ctx, dir := testContext(t), t.TempDir()
	e := startEthereum(t, ctx, dir)
	eth, usdt := common.HexToAddress("0x01e7"), common.HexToAddress("0x05d7")

	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			if _, err := e.FundETH(ctx, eth, big.NewInt(3)); err != nil {
				t.Error(err)
			}
		})
		all.Go(func() {
			if _, err := e.FundToken(ctx, usdt, big.NewInt(5)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got := must[*big.Int](t)(e.Client().BalanceAt(ctx, eth, nil)); got.Int64() != 30 {
		t.Errorf("ten payments of 3 wei came to %s", got)
	}
	if got := must[*big.Int](t)(e.TokenBalance(ctx, usdt)); got.Int64() != 50 {
		t.Errorf("ten mints of 5 units came to %s", got)
	}
	if _, err := e.FundETH(ctx, eth, big.NewInt(-1)); err == nil {
		t.Error("a negative amount was sent")
	}
	if _, err := e.FundETH(ctx, eth, new(big.Int).Lsh(big.NewInt(1), 200)); err == nil {
		t.Error("more than the faucet has was sent")
	}
	// Neither refusal may leave a gap in the nonces.
	if _, err := e.FundETH(ctx, eth, big.NewInt(1)); err != nil {
		t.Error(err)
	}
	checkToken(t, ctx, e)
	logs, err := e.Client().FilterLogs(ctx, ethereum.FilterQuery{
		FromBlock: new(big.Int), Addresses: []common.Address{e.Token()},
		Topics: [][]common.Hash{{e.abi.Events["Transfer"].ID}, nil, {common.BytesToHash(usdt.Bytes())}},
	})
	if err != nil || len(logs) != 10 {
		t.Errorf("ten mints left %d Transfer logs, %v", len(logs), err)
	}

	// spec: chains: finality moves on an idle chain too.
	await(t, ctx, "finality moves", func() bool { return finalized(t, ctx, e) >= 64 })
	before := finalized(t, ctx, e)
	if err := e.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-e.Done()
	var died *DiedError
	if !errors.As(e.Err(), &died) {
		t.Errorf("after a kill -9: %v", e.Err())
	}
	token := e.Token()
	e = startEthereum(t, ctx, dir)
	if head := must[uint64](t)(e.Client().BlockNumber(ctx)); head < before {
		t.Errorf("a killed node resumed at block %d, before block %d that was final", head, before)
	}
	if got := must[*big.Int](t)(e.TokenBalance(ctx, usdt)); got.Int64() != 50 || e.Token() != token {
		t.Errorf("after resuming: %s units of token %s", got, e.Token())
	}
	if _, err := e.FundToken(ctx, usdt, big.NewInt(1)); err != nil {
		t.Error(err)
	}
	if err := e.Stop(ctx); err != nil {
		t.Error(err)
	}
	gone(t, e.Proc)
}

// checkToken: the token behaves as USDT does, under mainnet's rules.
func checkToken(t *testing.T, ctx context.Context, e *Ethereum) {
	t.Helper()
	to := common.HexToAddress("0x1234")
	call := must[[]byte](t)(e.abi.Pack("transfer", to, big.NewInt(7)))
	answer, err := e.Client().CallContract(ctx, ethereum.CallMsg{From: e.Faucet(), To: &e.token, Data: call}, nil)
	if err != nil || len(answer) != 0 {
		t.Errorf("transfer answers %x, %v; USDT's answers nothing", answer, err)
	}
	call = must[[]byte](t)(e.abi.Pack("mint", to, big.NewInt(7)))
	if _, err := e.Client().CallContract(ctx, ethereum.CallMsg{From: to, To: &e.token, Data: call}, nil); err == nil {
		t.Error("a stranger could mint")
	}
	// Under the developer genesis' own rules it would be about twice as much.
	gas, err := e.Client().EstimateGas(ctx, ethereum.CallMsg{From: e.Faucet(), Data: common.FromHex(strings.TrimSpace(tokenCode))})
	if err != nil || gas > 700_000 {
		t.Errorf("deploying the token takes %d gas, %v: a fork is on that mainnet has not reached", gas, err)
	}
}

func TestEthNodeRefusesBadFlags(t *testing.T) {
	for flags, want := range map[string]string{
		"--port 1 --datadir":                    "needs an argument",
		"--port 1":                              "no data directory",
		"--datadir x":                           "out of range",
		"--datadir x --port 1 --fund 0x12":      "not an address",
		"--datadir x --port 1 extra":            "unexpected argument",
		"--datadir x --port 1 --chain-id 0":     "chain id 0",
		"--datadir x --port 1 --block-every 0s": "blocks every",
	} {
		err := EthNodeMain(t.Context(), strings.Fields(flags))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", flags, err, want)
		}
	}
}
