package testnet

import (
	"context"
	"crypto/ecdsa"
	_ "embed"
	"errors"
	"fmt"
	"math/big"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/accounts/abi"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/ethclient"
)

// TokenABI is the interface of the test token, whose source is in token/.
//
//go:embed token/TestUSDT.abi.json
var TokenABI string

// tokenCode is the compiled constructor, in hex; token/check.sh proves that it belongs to the source.
//
//go:embed token/TestUSDT.bin
var tokenCode string

const (
	// TokenDecimals are USDT's.
	TokenDecimals = 6

	tokenDeployGas   = 1_200_000 // it takes about 650,000
	tokenTransferGas = 120_000   // a mint takes about 55,000
	etherTransferGas = 100_000   // more than 21,000: the receiver may be a contract

	// faucetTip in wei is above the testnet's floor of 1 gwei, so that funding never queues behind payouts.
	faucetTip = 2_000_000_000

	// inclusionTimeout: a transaction takes a block or two of 250 ms; half a minute means it was lost.
	inclusionTimeout = 30 * time.Second
	inclusionPoll    = 50 * time.Millisecond
)

// EthereumConfig describes the testnet's Ethereum node.
type EthereumConfig struct {
	Dir     string   // the testnet's directory: the chain lies in Dir/ethereum, the log in Dir/logs
	Command []string // program and arguments that reach EthNodeMain; the node's own flags are added
	Env     []string // added to the child's minimal environment
	Port    int
	Every   time.Duration // time between blocks; 0: EthBlockEvery
}

// Ethereum is the running node, its faucet and the test token. Its methods may be called concurrently.
type Ethereum struct {
	*Proc
	url    string
	client *ethclient.Client
	key    *ecdsa.PrivateKey
	faucet common.Address
	token  common.Address
	abi    abi.ABI
	signer types.Signer

	mu   sync.Mutex // guards next, and keeps sending in nonce order
	next uint64     // the faucet's next nonce
}

// StartEthereum starts the dev node on loopback, resuming Dir's chain, and deploys the test token if the chain
// has none.
func StartEthereum(ctx context.Context, cfg EthereumConfig) (*Ethereum, error) {
	e, err := newEthereum(&cfg)
	if err != nil {
		return nil, fmt.Errorf("start ethereum: %w", err)
	}
	node := EthNodeConfig{
		DataDir: filepath.Join(cfg.Dir, "ethereum"), Port: cfg.Port, ChainID: EthChainID,
		BlockEvery: cfg.Every, Fund: []common.Address{e.faucet},
	}
	e.Proc, err = StartProc(ctx, ProcConfig{
		Name: "ethereum", Path: cfg.Command[0], Args: append(cfg.Command[1:len(cfg.Command):len(cfg.Command)], node.args()...),
		Env: cfg.Env, Dir: cfg.Dir, Ready: e.ready,
	})
	if err != nil {
		e.client.Close()
		return nil, err
	}
	if err := e.prepare(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start ethereum: %w", err), e.Stop(context.WithoutCancel(ctx)))
	}
	return e, nil
}

func newEthereum(cfg *EthereumConfig) (*Ethereum, error) {
	dir, err := filepath.Abs(cfg.Dir) // the node's working directory is not ours
	if err != nil {
		return nil, err
	}
	cfg.Dir = dir
	if len(cfg.Command) == 0 {
		return nil, errors.New("no command given for the node")
	}
	if cfg.Every == 0 {
		cfg.Every = EthBlockEvery
	}
	keys, err := loadFaucetKeys(cfg.Dir)
	if err != nil {
		return nil, err
	}
	key, err := crypto.ToECDSA(keys.Ethereum)
	if err != nil {
		return nil, fmt.Errorf("faucet key: %w", err)
	}
	token, err := abi.JSON(strings.NewReader(TokenABI))
	if err != nil {
		return nil, fmt.Errorf("test token's ABI: %w", err)
	}
	e := &Ethereum{
		url: "http://" + Loopback(cfg.Port), key: key, faucet: crypto.PubkeyToAddress(key.PublicKey),
		abi: token, signer: types.LatestSignerForChainID(big.NewInt(EthChainID)),
	}
	// The first transaction of the faucet deploys the token, so its address needs no record.
	e.token = crypto.CreateAddress(e.faucet, 0)
	e.client, err = ethclient.Dial(e.url)
	return e, err
}

func (e *Ethereum) ready(ctx context.Context) error {
	id, err := e.client.ChainID(ctx)
	if err != nil {
		return err
	}
	if id.Uint64() != EthChainID {
		return fmt.Errorf("the node serves chain %s", id)
	}
	return nil
}

func (e *Ethereum) prepare(ctx context.Context) (err error) {
	code, err := e.client.CodeAt(ctx, e.token, nil)
	if err != nil {
		return fmt.Errorf("read the token's code: %w", err)
	}
	if e.next, err = e.client.NonceAt(ctx, e.faucet, nil); err != nil {
		return fmt.Errorf("read the faucet's nonce: %w", err)
	}
	switch {
	case len(code) > 0:
		return nil
	case e.next > 0:
		return fmt.Errorf("no token at %s although the faucet has sent %d transactions: the chain data does not belong to this directory", e.token, e.next)
	}
	if _, err := e.transact(ctx, nil, new(big.Int), tokenDeployGas, common.FromHex(strings.TrimSpace(tokenCode))); err != nil {
		return fmt.Errorf("deploy the test token: %w", err)
	}
	return nil
}

// URL is the node's JSON-RPC address.
func (e *Ethereum) URL() string { return e.url }

// Client speaks to the node.
func (e *Ethereum) Client() *ethclient.Client { return e.client }

// Token is the address of the test USDT.
func (e *Ethereum) Token() common.Address { return e.token }

// Faucet is the address that funds come from.
func (e *Ethereum) Faucet() common.Address { return e.faucet }

// FundETH pays wei from the faucet and waits until a block has it.
func (e *Ethereum) FundETH(ctx context.Context, to common.Address, wei *big.Int) (common.Hash, error) {
	hash, err := e.transact(ctx, &to, wei, etherTransferGas, nil)
	if err != nil {
		return hash, fmt.Errorf("fund %s with %s wei: %w", to, wei, err)
	}
	return hash, nil
}

// FundToken mints units (millionths) of the test USDT and waits until a block has them.
func (e *Ethereum) FundToken(ctx context.Context, to common.Address, units *big.Int) (common.Hash, error) {
	call, err := e.abi.Pack("mint", to, units)
	if err != nil {
		return common.Hash{}, fmt.Errorf("fund %s with %s USDT units: %w", to, units, err)
	}
	hash, err := e.transact(ctx, &e.token, new(big.Int), tokenTransferGas, call)
	if err != nil {
		return hash, fmt.Errorf("fund %s with %s USDT units: %w", to, units, err)
	}
	return hash, nil
}

// TokenBalance reads an address's test USDT, in units, from the chain's head.
func (e *Ethereum) TokenBalance(ctx context.Context, of common.Address) (*big.Int, error) {
	call, err := e.abi.Pack("balanceOf", of)
	if err != nil {
		return nil, fmt.Errorf("read the USDT of %s: %w", of, err)
	}
	answer, err := e.client.CallContract(ctx, ethereum.CallMsg{To: &e.token, Data: call}, nil)
	if err != nil {
		return nil, fmt.Errorf("read the USDT of %s: %w", of, err)
	}
	if len(answer) != 32 {
		return nil, fmt.Errorf("read the USDT of %s: answer of %d bytes", of, len(answer))
	}
	return new(big.Int).SetBytes(answer), nil
}

// transact sends one transaction of the faucet and waits for its receipt. Callers send in turn and wait together.
func (e *Ethereum) transact(ctx context.Context, to *common.Address, wei *big.Int, gas uint64, data []byte) (common.Hash, error) {
	if wei.Sign() < 0 {
		return common.Hash{}, errors.New("negative amount")
	}
	hash, err := e.send(ctx, to, wei, gas, data)
	if err != nil {
		return hash, err
	}
	receipt, err := e.waitReceipt(ctx, hash)
	if err != nil {
		// A transaction that the node lost leaves a gap behind which everything later would wait.
		e.mu.Lock()
		defer e.mu.Unlock()
		e.resync(ctx)
		return hash, err
	}
	if receipt.Status != types.ReceiptStatusSuccessful {
		return hash, fmt.Errorf("transaction %s reverted", hash)
	}
	return hash, nil
}

func (e *Ethereum) send(ctx context.Context, to *common.Address, wei *big.Int, gas uint64, data []byte) (common.Hash, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	head, err := e.client.HeaderByNumber(ctx, nil)
	if err != nil {
		return common.Hash{}, fmt.Errorf("read the base fee: %w", err)
	}
	tip := big.NewInt(faucetTip)
	// Twice the base fee lasts for six full blocks, and nothing fills this chain's blocks.
	maxFee := new(big.Int).Add(tip, new(big.Int).Lsh(head.BaseFee, 1))
	tx, err := types.SignNewTx(e.key, e.signer, &types.DynamicFeeTx{
		ChainID: big.NewInt(EthChainID), Nonce: e.next, GasTipCap: tip, GasFeeCap: maxFee,
		Gas: gas, To: to, Value: wei, Data: data,
	})
	if err != nil {
		return common.Hash{}, fmt.Errorf("sign: %w", err)
	}
	if err := e.client.SendTransaction(ctx, tx); err != nil {
		// After a rewind or a lost answer our count is off, and the next caller's must be right.
		e.resync(ctx)
		return tx.Hash(), fmt.Errorf("send: %w", err)
	}
	e.next++
	return tx.Hash(), nil
}

// resync takes the next nonce from the node, which knows better after a failure. A node that does not answer
// fails the next caller too, so the error is that one's to report.
func (e *Ethereum) resync(ctx context.Context) {
	asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if next, err := e.client.PendingNonceAt(asking, e.faucet); err == nil {
		e.next = next
	}
}

func (e *Ethereum) waitReceipt(ctx context.Context, hash common.Hash) (*types.Receipt, error) {
	waiting, cancel := context.WithTimeout(ctx, inclusionTimeout)
	defer cancel()
	tick := time.NewTicker(inclusionPoll)
	defer tick.Stop()
	for {
		receipt, err := e.client.TransactionReceipt(waiting, hash)
		if err == nil {
			return receipt, nil
		}
		select {
		case <-e.Done():
			return nil, fmt.Errorf("wait for %s: the ethereum node ended", hash)
		case <-waiting.Done():
			return nil, fmt.Errorf("wait for %s: not in a block after %s: %w", hash, inclusionTimeout, err)
		case <-tick.C:
		}
	}
}

// Stop ends the node.
func (e *Ethereum) Stop(ctx context.Context) error {
	err := e.Proc.Stop(ctx)
	e.client.Close()
	return err
}
