package testnet

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"os"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core"
	"github.com/ethereum/go-ethereum/core/rawdb"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/eth"
	"github.com/ethereum/go-ethereum/eth/catalyst"
	"github.com/ethereum/go-ethereum/eth/ethconfig"
	"github.com/ethereum/go-ethereum/eth/filters"
	gethlog "github.com/ethereum/go-ethereum/log"
	"github.com/ethereum/go-ethereum/node"
	"github.com/ethereum/go-ethereum/p2p"
	"github.com/ethereum/go-ethereum/rpc"
)

const (
	// EthChainID is the dev chain's, eip155:1337 (spec: chains).
	EthChainID = 1337
	// EthBlockEvery: finality moves each 32 blocks, so every 8 s (spec: chains).
	EthBlockEvery = 250 * time.Millisecond

	ethGasLimit = 30_000_000
	// ethCacheMiB each for clean tries and the database: the chain's state is a few hundred accounts.
	ethCacheMiB = 16
	// ethFilterLogs blocks whose logs are kept parsed for eth_getLogs.
	ethFilterLogs = 32
	// ethGenesisEther is what each funded address owns at genesis.
	ethGenesisEther = 1_000_000
)

// EthNodeConfig describes the Ethereum dev node. Fund and ChainID shape the genesis block: a directory keeps
// refusing others than those it was made with.
type EthNodeConfig struct {
	DataDir    string
	Port       int // on loopback
	ChainID    uint64
	BlockEvery time.Duration
	Fund       []common.Address
}

// EthNodeMain is the hidden subcommand that a testnet runs as its Ethereum node, until ctx ends.
func EthNodeMain(ctx context.Context, args []string) error {
	cfg, err := parseEthNodeArgs(args)
	if err != nil {
		return err
	}
	return RunEthNode(ctx, cfg, func(url string) { fmt.Println("ready", url) })
}

func (c EthNodeConfig) args() []string {
	fund := make([]string, len(c.Fund))
	for i, a := range c.Fund {
		fund[i] = a.Hex()
	}
	return []string{
		"--datadir", c.DataDir,
		"--port", fmt.Sprint(c.Port),
		"--chain-id", fmt.Sprint(c.ChainID),
		"--block-every", c.BlockEvery.String(),
		"--fund", strings.Join(fund, ","),
	}
}

func parseEthNodeArgs(args []string) (EthNodeConfig, error) {
	var cfg EthNodeConfig
	var fund string
	flags := flag.NewFlagSet("eth-node", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // the error says it
	flags.StringVar(&cfg.DataDir, "datadir", "", "folder of the chain")
	flags.IntVar(&cfg.Port, "port", 0, "JSON-RPC port on loopback")
	flags.Uint64Var(&cfg.ChainID, "chain-id", EthChainID, "EIP-155 chain id")
	flags.DurationVar(&cfg.BlockEvery, "block-every", EthBlockEvery, "time between blocks")
	flags.StringVar(&fund, "fund", "", "comma-separated addresses that own 1,000,000 ETH at genesis")
	if err := flags.Parse(args); err != nil {
		return cfg, err
	}
	for _, a := range strings.FieldsFunc(fund, func(r rune) bool { return r == ',' }) {
		if !common.IsHexAddress(a) {
			return cfg, fmt.Errorf("--fund: %q is not an address", a)
		}
		cfg.Fund = append(cfg.Fund, common.HexToAddress(a))
	}
	if flags.NArg() > 0 {
		return cfg, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	return cfg, nil
}

func (c EthNodeConfig) check() error {
	switch {
	case c.DataDir == "":
		return errors.New("no data directory given")
	case c.Port <= 0 || c.Port > 65535:
		return fmt.Errorf("port %d is out of range", c.Port)
	case c.ChainID == 0:
		return errors.New("chain id 0")
	case c.BlockEvery <= 0:
		return fmt.Errorf("blocks every %s", c.BlockEvery)
	}
	return nil
}

// RunEthNode runs a go-ethereum node with a simulated beacon on loopback until ctx ends, and resumes the chain
// it finds in the directory. A block is sealed every BlockEvery even when there is nothing to include, for
// finality must move on an idle chain too. The chain's clock gains a second per block: nothing may read it.
func RunEthNode(ctx context.Context, cfg EthNodeConfig, ready func(url string)) error {
	if err := cfg.check(); err != nil {
		return fmt.Errorf("ethereum node: %w", err)
	}
	gethlog.SetDefault(gethlog.NewLogger(gethlog.NewTerminalHandlerWithLevel(os.Stderr, slog.LevelWarn, false)))
	stack, backend, err := newEthStack(cfg)
	if err != nil {
		return fmt.Errorf("ethereum node: %w", err)
	}
	// Period 0: the beacon's own loop knows whole seconds only.
	//
	// Why not RegisterSimulatedBeaconAPIs: at period 0 it commits at each transaction from a loop of its own, and two
	// that seal at a time lose each other's wake-up in TxPool.Sync, after which no block is made any more.
	beacon, err := catalyst.NewSimulatedBeacon(0, common.Address{}, backend)
	if err != nil {
		return errors.Join(fmt.Errorf("ethereum node: start the beacon: %w", err), stack.Close())
	}
	stack.RegisterLifecycle(beacon)
	if err := stack.Start(); err != nil {
		return errors.Join(fmt.Errorf("ethereum node: %w", err), stack.Close())
	}
	ready(stack.HTTPEndpoint())
	tick := time.NewTicker(cfg.BlockEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			if err := stack.Close(); err != nil {
				return fmt.Errorf("ethereum node: close: %w", err)
			}
			return nil
		case <-tick.C:
			beacon.Commit()
			// The database keeps the last 32 KiB of its log in memory otherwise, and a node that is killed would come
			// back behind a block it had called final.
			if err := backend.ChainDb().SyncKeyValue(); err != nil {
				return errors.Join(fmt.Errorf("ethereum node: write blocks to disk: %w", err), stack.Close())
			}
		}
	}
}

func newEthStack(cfg EthNodeConfig) (*node.Node, *eth.Ethereum, error) {
	nc := node.DefaultConfig
	nc.Name = "ethereum"
	nc.DataDir = cfg.DataDir
	nc.UseLightweightKDF = true
	nc.P2P = p2p.Config{NoDiscovery: true, NoDial: true, ListenAddr: "", MaxPeers: 0}
	nc.IPCPath = ""
	nc.HTTPHost, nc.HTTPPort = loopback, cfg.Port
	nc.HTTPModules = []string{"eth", "net", "web3", "txpool", "debug"}
	// Without listed names a page in the user's browser cannot reach the node under a name of its own.
	nc.HTTPVirtualHosts = []string{"localhost"}
	stack, err := node.New(&nc)
	if err != nil {
		return nil, nil, err
	}
	backend, err := eth.New(stack, ethConfig(cfg))
	if err != nil {
		return nil, nil, errors.Join(err, stack.Close())
	}
	logs := filters.NewFilterSystem(backend.APIBackend, filters.Config{LogCacheSize: ethFilterLogs})
	stack.RegisterAPIs([]rpc.API{{Namespace: "eth", Service: filters.NewFilterAPI(logs)}})
	return stack, backend, nil
}

func ethConfig(cfg EthNodeConfig) *ethconfig.Config {
	genesis := core.DeveloperGenesisBlock(ethGasLimit, nil)
	genesis.Config.ChainID = new(big.Int).SetUint64(cfg.ChainID)
	// The developer genesis turns on a fork that mainnet has not reached, under which a deployment costs twice as
	// much (spec: chains, "Ethereum").
	genesis.Config.BogotaTime = nil
	for _, a := range cfg.Fund {
		wei := new(big.Int).Mul(big.NewInt(ethGenesisEther), big.NewInt(1e18))
		genesis.Alloc[a] = types.Account{Balance: wei}
	}
	ec := ethconfig.Defaults
	ec.Genesis = genesis
	ec.NetworkId = cfg.ChainID
	ec.SyncMode = ethconfig.FullSync
	// Every state on disk: with the default scheme a node that is killed forgets the blocks since its last flush,
	// and the chain would be rewound behind what was final.
	ec.StateScheme = rawdb.HashScheme
	ec.NoPruning = true
	ec.DatabaseCache = ethCacheMiB
	ec.TrieCleanCache = ethCacheMiB
	ec.TrieDirtyCache = 0
	ec.SnapshotCache = 0
	// Without the log index eth_getLogs looks into each block of its range, which is cheap on a short chain, while
	// the index renders its maps anew four times a second and holds up the node's end.
	ec.LogNoHistory = true
	ec.TxPool.Journal = ""
	return &ec
}
