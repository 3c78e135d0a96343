package testnet

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/btcsuite/btcd/btcutil"
	"github.com/btcsuite/btcd/chaincfg"
	"github.com/btcsuite/btcd/txscript"
)

const (
	// bitcoinInitialBlocks: coinbase matures at 100, so 110 leave the faucet eleven coins of 50 BTC (spec: chains).
	bitcoinInitialBlocks = 110
	// BitcoinBlockEvery is the testnet's block time (spec: chains).
	BitcoinBlockEvery = 2 * time.Second
	// MaxMine bounds one request: a thousand blocks take a few seconds, and regtest halves every 150.
	MaxMine = 1000

	bitcoinRPCUser = "coffer"
	// bitcoinRPCClients: btcd counts requests under way, of all nodes together; its default is 10.
	bitcoinRPCClients = 256
	// bitcoinCacheMiB: the chain's unspent outputs are a few thousand; btcd's default is 250.
	bitcoinCacheMiB = 16
)

// BitcoinConfig describes the testnet's Bitcoin node.
type BitcoinConfig struct {
	Dir      string // the testnet's directory: the chain lies in Dir/bitcoin, the log in Dir/logs
	BTCD     string // the daemon, from BuildBTCD
	RPCPort  int
	PeerPort int
	Every    time.Duration // time between blocks; 0: only Mine makes blocks
	Log      *slog.Logger
	Progress Progress // of giving the node its blocks back
}

// Bitcoin is the running node, its miner and its faucet.
type Bitcoin struct {
	*Proc
	cfg    BitcoinConfig
	rpc    BitcoinRPC
	cancel context.CancelFunc
	miner  sync.WaitGroup

	mining sync.Mutex // btcd refuses to mine twice at a time
	mu     sync.Mutex // guards coins and blocks
	coins  *coins
	blocks *blockFile
}

// StartBitcoin starts a regtest node on loopback, resuming Dir's chain, and mines what the faucet needs.
func StartBitcoin(ctx context.Context, cfg BitcoinConfig) (*Bitcoin, error) {
	dir, err := filepath.Abs(cfg.Dir) // the daemon's working directory is not ours
	if err != nil {
		return nil, fmt.Errorf("start bitcoin: %w", err)
	}
	cfg.Dir = dir
	if cfg.Progress == nil {
		cfg.Progress = NoProgress
	}
	keys, err := loadFaucetKeys(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("start bitcoin: %w", err)
	}
	coins, miningAddress, err := newCoins(keys.Bitcoin, &chaincfg.RegressionNetParams)
	if err != nil {
		return nil, fmt.Errorf("start bitcoin: %w", err)
	}
	b := &Bitcoin{cfg: cfg, coins: coins, rpc: BitcoinRPC{
		URL: "http://" + Loopback(cfg.RPCPort), User: bitcoinRPCUser, Password: hex.EncodeToString(keys.BitcoinRPCPassword),
	}}
	b.blocks, err = openBlockFile(filepath.Join(cfg.Dir, "bitcoin", "blocks"), *chaincfg.RegressionNetParams.GenesisHash)
	if err != nil {
		return nil, fmt.Errorf("start bitcoin: %w", err)
	}
	if err := b.start(ctx, miningAddress); err != nil {
		return nil, errors.Join(err, b.blocks.file.Close())
	}
	running, cancel := context.WithCancel(context.Background())
	b.cancel = cancel
	if cfg.Every > 0 {
		b.miner.Go(func() { b.mineEvery(running) })
	}
	return b, nil
}

func (b *Bitcoin) start(ctx context.Context, miningAddress btcutil.Address) (err error) {
	// A file, because everyone on the machine can read a command line.
	path := filepath.Join(b.cfg.Dir, "bitcoin", "btcd.conf")
	if err := writeFile(path, []byte(b.settings(miningAddress))); err != nil {
		return fmt.Errorf("start bitcoin: %w", err)
	}
	b.Proc, err = StartProc(ctx, ProcConfig{
		Name: "bitcoin", Path: b.cfg.BTCD, Dir: b.cfg.Dir, Args: []string{"--configfile=" + path},
		Ready: func(ctx context.Context) error { _, err := b.rpc.Height(ctx); return err },
	})
	if err != nil {
		return err
	}
	if err := b.prepare(ctx); err != nil {
		return errors.Join(fmt.Errorf("start bitcoin: %w", err), b.Proc.Stop(context.WithoutCancel(ctx)))
	}
	return nil
}

func (b *Bitcoin) settings(miningAddress btcutil.Address) string {
	dir := filepath.Join(b.cfg.Dir, "bitcoin")
	return strings.Join([]string{
		"[Application Options]",
		"regtest=1",
		"notls=1", // loopback only; btcd allows it nowhere else
		"rpcuser=" + b.rpc.User,
		"rpcpass=" + b.rpc.Password,
		"rpclisten=" + Loopback(b.cfg.RPCPort),
		"listen=" + Loopback(b.cfg.PeerPort),
		"datadir=" + filepath.Join(dir, "data"),
		"logdir=" + filepath.Join(dir, "log"),
		"miningaddr=" + miningAddress.EncodeAddress(),
		"txindex=1",
		"rejectnonstd=1", // regtest would relay what mainnet does not
		"nocfilters=1",
		fmt.Sprintf("rpcmaxclients=%d", bitcoinRPCClients),
		fmt.Sprintf("rpcmaxconcurrentreqs=%d", bitcoinRPCClients),
		fmt.Sprintf("utxocachemaxsize=%d", bitcoinCacheMiB),
		"debuglevel=warn", // a line per block would fill the disk at 2 s a block
		"",
	}, "\n")
}

func (b *Bitcoin) prepare(ctx context.Context) error {
	if err := b.blocks.restore(ctx, b.rpc, b.cfg.Progress); err != nil {
		return err
	}
	height, err := b.rpc.Height(ctx)
	if err != nil {
		return err
	}
	// At least one: a resumed chain's clock moves on before anyone looks at it.
	_, err = b.Mine(ctx, int(max(1, bitcoinInitialBlocks-height)))
	return err
}

func (b *Bitcoin) mineEvery(ctx context.Context) {
	tick := time.NewTicker(b.cfg.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.Done():
			return
		case <-tick.C:
		}
		_, err := b.Mine(ctx, 1)
		if err != nil && ctx.Err() == nil {
			b.cfg.Log.Warn("no bitcoin block mined", "err", err)
		}
	}
}

// RPC is the node's JSON-RPC address and credentials.
func (b *Bitcoin) RPC() BitcoinRPC { return b.rpc }

// Mine makes n blocks at once and returns the new height.
func (b *Bitcoin) Mine(ctx context.Context, n int) (height int64, err error) {
	if n < 1 || n > MaxMine {
		return 0, fmt.Errorf("mine %d blocks: between 1 and %d at a time", n, MaxMine)
	}
	b.mining.Lock()
	defer b.mining.Unlock()
	if err := b.rpc.Call(ctx, nil, "generate", n); err != nil {
		return 0, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.blocks.sync(ctx, b.rpc); err != nil {
		return 0, err
	}
	return b.blocks.height(), nil
}

// Fund pays sats from the faucet to a regtest address. The payment is in the mempool when Fund returns; the next
// block has it.
func (b *Bitcoin) Fund(ctx context.Context, address string, sats int64) (txid string, err error) {
	to, err := btcutil.DecodeAddress(address, &chaincfg.RegressionNetParams)
	if err != nil || !to.IsForNet(&chaincfg.RegressionNetParams) {
		return "", fmt.Errorf("%q is not a Bitcoin regtest address", address)
	}
	if sats < p2wpkhDust || sats > btcutil.MaxSatoshi {
		return "", fmt.Errorf("fund %d sats: between %d and %d at a time", sats, int64(p2wpkhDust), int64(btcutil.MaxSatoshi))
	}
	script, err := txscript.PayToAddrScript(to)
	if err != nil {
		return "", fmt.Errorf("fund %s: %w", address, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	txid, err = b.send(ctx, script, sats)
	var refused *BitcoinError
	if errors.As(err, &refused) || errors.Is(err, errFaucetEmpty) {
		if err = b.coins.rescan(ctx, b.blocks, b.rpc); err == nil {
			txid, err = b.send(ctx, script, sats)
		}
	}
	if err != nil {
		return "", fmt.Errorf("fund %s with %d sats: %w", address, sats, err)
	}
	return txid, nil
}

func (b *Bitcoin) send(ctx context.Context, script []byte, sats int64) (string, error) {
	if err := b.blocks.sync(ctx, b.rpc); err != nil {
		return "", err
	}
	if err := b.coins.sync(b.blocks); err != nil {
		return "", err
	}
	tx, err := b.coins.pay(script, sats)
	if err != nil {
		return "", err
	}
	txid, err := b.rpc.Send(ctx, tx)
	if err != nil {
		return "", err
	}
	b.coins.sent(tx)
	return txid.String(), nil
}

// Stop ends the miner, then the node.
func (b *Bitcoin) Stop(ctx context.Context) error {
	b.cancel()
	b.miner.Wait()
	err := b.Proc.Stop(ctx)
	if closeErr := b.blocks.file.Close(); !errors.Is(closeErr, os.ErrClosed) { // stopped twice
		err = errors.Join(err, closeErr)
	}
	return err
}
