package ethereum

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/rlp"
	"github.com/ethereum/go-ethereum/rpc"

	"github.com/coffer-network/coffer/chains"
	"github.com/coffer-network/coffer/chains/internal/follow"
	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

const testToken = "0xdAC17F958D2ee523a2206206994597C13D831ec7"

func config() Config {
	return Config{
		URL:    "http://127.0.0.1:1",
		Chain:  ledger.ChainParam{Name: "eth", CAIP2: "eip155:1337"},
		Assets: []ledger.AssetParam{{ID: "usdt.eth", Chain: "eth", Token: testToken}},
	}
}

func offline(t *testing.T) *Chain {
	t.Helper()
	c, err := New(config())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func plan(t *testing.T) ledger.EthereumTx {
	t.Helper()
	key := secp256k1.PrivKeyFromBytes([]byte("a key for transactions in tests."))
	pub := key.PubKey().SerializeCompressed()
	from, err := address.EthereumOf(pub)
	if err != nil {
		t.Fatal(err)
	}
	return ledger.EthereumTx{
		ChainID: 1337, From: address.EthereumAddress(from), Pub: pub, Sequence: 3, To: testToken,
		Data: call(t, "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", 77), Gas: 100_000, FeeCap: 3 * gwei, Tip: gwei,
	}
}

// A plan that is not exactly a transaction makes none.
func TestBuildRefuses(t *testing.T) {
	c := offline(t)
	for what, spoil := range map[string]func(*ledger.EthereumTx){
		"chain":           func(p *ledger.EthereumTx) { p.ChainID = 1 },
		"another sender":  func(p *ledger.EthereumTx) { p.From = testToken },
		"lower case":      func(p *ledger.EthereumTx) { p.To = "0xdac17f958d2ee523a2206206994597c13d831ec7" },
		"no key":          func(p *ledger.EthereumTx) { p.Pub = nil },
		"little gas":      func(p *ledger.EthereumTx) { p.Gas = 20_999 },
		"much gas":        func(p *ledger.EthereumTx) { p.Gas = maxGas + 1 },
		"tip above cap":   func(p *ledger.EthereumTx) { p.Tip = p.FeeCap + 1 },
		"nothing to give": func(p *ledger.EthereumTx) { p.FeeCap, p.Tip = 0, 0 },
	} {
		p := plan(t)
		spoil(&p)
		if _, err := c.Build(ledger.Attempt{Ethereum: &p}); !errors.Is(err, chains.ErrAttempt) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Build may be wrong: Reads refuses every call but the two kinds we make.
func TestReadsRefuses(t *testing.T) {
	c := offline(t)
	for what, spoil := range map[string]func(*ledger.EthereumTx){
		"not listed":      func(p *ledger.EthereumTx) { p.To = p.From },
		"ether and token": func(p *ledger.EthereumTx) { p.Value = fixed.New(1) },
		"approve":         func(p *ledger.EthereumTx) { copy(p.Data, []byte{0x09, 0x5e, 0xa7, 0xb3}) },
		"dirty address":   func(p *ledger.EthereumTx) { p.Data[15] = 1 },
		"dirty amount":    func(p *ledger.EthereumTx) { p.Data[36] = 1 },
		"bytes behind":    func(p *ledger.EthereumTx) { p.Data = append(p.Data, 0) },
		"no amount":       func(p *ledger.EthereumTx) { p.Data[67] = 0 },
		"nothing":         func(p *ledger.EthereumTx) { p.Data = nil },
	} {
		p := plan(t)
		p.Data = slices.Clone(p.Data)
		spoil(&p)
		u, err := c.Build(ledger.Attempt{Ethereum: &p})
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if _, _, err := c.Reads(u); !errors.Is(err, chains.ErrUnsigned) {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := c.Finish(u, make([]chains.Signature, 1)); !errors.Is(err, chains.ErrUnsigned) {
			t.Errorf("%s: Finish says %v", what, err)
		}
	}
}

// The same for bytes that Build cannot make: digest and bytes fit, the
// transaction is another.
func TestReadsRefusesBytes(t *testing.T) {
	c := offline(t)
	p := plan(t)
	good, err := c.Build(ledger.Attempt{Ethereum: &p})
	if err != nil {
		t.Fatal(err)
	}
	for what, spoil := range map[string]func(*payload){
		"access list": func(p *payload) {
			item, _ := rlp.EncodeToBytes([]any{common.Address{1}, []common.Hash{}})
			p.AccessList = []rlp.RawValue{item}
		},
		"chain":   func(p *payload) { p.ChainID = big.NewInt(1) },
		"fee cap": func(p *payload) { p.FeeCap = new(big.Int).Lsh(big.NewInt(1), 64) },
		"gas":     func(p *payload) { p.Gas = 1 << 30 },
		"value":   func(p *payload) { p.Value, p.Data = new(big.Int).Lsh(big.NewInt(1), 128), nil },
	} {
		var x payload
		if err := rlp.DecodeBytes(good.Bytes[1:], &x); err != nil {
			t.Fatal(err)
		}
		spoil(&x)
		b, err := rlp.EncodeToBytes(x)
		if err != nil {
			t.Fatal(err)
		}
		u := good
		u.Bytes = append([]byte{2}, b...)
		u.Inputs = slices.Clone(good.Inputs)
		u.Inputs[0].Digest = crypto.Keccak256Hash(u.Bytes)
		if _, _, err := c.Reads(u); !errors.Is(err, chains.ErrUnsigned) {
			t.Errorf("%s: %v", what, err)
		}
	}
	u := good
	u.From = testToken
	if _, _, err := c.Reads(u); !errors.Is(err, chains.ErrUnsigned) {
		t.Errorf("a sender that is not the key's: %v", err)
	}
	u = good
	u.Bytes = append([]byte{3}, good.Bytes[1:]...) // a blob transaction's type
	u.Inputs = slices.Clone(good.Inputs)
	u.Inputs[0].Digest = crypto.Keccak256Hash(u.Bytes)
	if _, _, err := c.Reads(u); !errors.Is(err, chains.ErrUnsigned) {
		t.Errorf("type 3: %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	for what, spoil := range map[string]func(*Config){
		"namespace":  func(c *Config) { c.Chain.CAIP2 = "bip122:1337" },
		"reference":  func(c *Config) { c.Chain.CAIP2 = "eip155:01337" },
		"token":      func(c *Config) { c.Assets[0].Token = "0xdac17f958d2ee523a2206206994597c13d831ec7" },
		"same token": func(c *Config) { c.Assets = append(c.Assets, c.Assets[0]) },
		"no http":    func(c *Config) { c.URL = "/tmp/geth.ipc" },
	} {
		cfg := config()
		spoil(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
}

// oddNode answers what a test wants it to.
type oddNode struct {
	chainID uint64
	blocks  uint64 // refuses logs over more blocks
	names   int    // or for more recipients
	calls   int
}

func (n *oddNode) ChainId() hexutil.Uint64 { return hexutil.Uint64(n.chainID) }

func (n *oddNode) GetLogs(_ context.Context, filter map[string]json.RawMessage) ([]types.Log, error) {
	n.calls++
	var from, to hexutil.Uint64
	var topics []json.RawMessage
	var recipients []common.Hash
	for _, err := range []error{
		json.Unmarshal(filter["fromBlock"], &from), json.Unmarshal(filter["toBlock"], &to),
		json.Unmarshal(filter["topics"], &topics), json.Unmarshal(topics[2], &recipients),
	} {
		if err != nil {
			return nil, err
		}
	}
	if uint64(to-from)+1 > n.blocks || len(recipients) > n.names {
		return nil, errors.New("query returned more than 10000 results")
	}
	var out []types.Log
	for h := from; h <= to; h++ {
		for _, r := range recipients {
			out = append(out, types.Log{BlockNumber: uint64(h), Topics: []common.Hash{{}, {}, r}})
		}
	}
	return out, nil
}

func serve(t *testing.T, n *oddNode) *rpc.Client {
	t.Helper()
	srv := rpc.NewServer()
	t.Cleanup(srv.Stop)
	if err := srv.RegisterName("eth", n); err != nil {
		t.Fatal(err)
	}
	return rpc.DialInProc(srv)
}

// A range that is too much for a node is asked for in halves, and nothing is
// lost; where even one block and recipient is too much, that is an error.
func TestLogsAreHalved(t *testing.T) {
	n := &oddNode{blocks: 3, names: 2}
	c := offline(t)
	c.rpc = serve(t, n)
	var words []string
	for i := range 5 {
		words = append(words, fmt.Sprintf("0x%064x", i))
	}
	logs, err := c.logs(t.Context(), []string{testToken}, 10, 25, words)
	seen := map[string]bool{}
	for _, l := range logs {
		seen[fmt.Sprint(l.BlockNumber, l.Topics[2])] = true
	}
	if err != nil || len(logs) != 16*5 || len(seen) != 16*5 {
		t.Errorf("%d logs, %d of them different, %v", len(logs), len(seen), err)
	}
	n.names = 0
	n.calls = 0
	if _, err := c.logs(t.Context(), []string{testToken}, 10, 25, words); err == nil || n.calls > 10 {
		t.Errorf("%v after %d calls", err, n.calls)
	}
	n.calls = 0
	if _, err := c.logs(t.Context(), nil, 10, 25, words); err == nil || n.calls != 1 {
		t.Errorf("unlisted tokens: %v after %d calls", err, n.calls)
	}
}

func TestWrongChainRefused(t *testing.T) {
	c := offline(t)
	c.rpc = serve(t, &oddNode{chainID: 1})
	if _, _, err := c.Watch(t.Context(), chains.View{}, nil); !errors.Is(err, chains.ErrEndpoint) {
		t.Errorf("main network for a devnet: %v", err)
	}
}

// A node cannot make us hold what it likes, and one that is not there is no
// refusal.
func TestTransport(t *testing.T) {
	c := offline(t)
	if _, _, err := c.Watch(t.Context(), chains.View{}, nil); !errors.Is(err, chains.ErrTransport) {
		t.Errorf("no node: %v", err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"jsonrpc":"2.0","id":1,"result":"0x`)
		chunk := make([]byte, 1<<20)
		for i := range chunk {
			chunk[i] = '1'
		}
		for range 40 {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}))
	defer srv.Close()
	cfg := config()
	cfg.URL = srv.URL
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Watch(t.Context(), chains.View{}, nil); !errors.Is(err, chains.ErrTransport) {
		t.Errorf("forty megabytes: %v", err)
	}
}

// A block whose header does not hash to its hash is not shown.
func (w *world) testBlocks(t *testing.T) {
	c := w.chain(t)
	var raw json.RawMessage
	if err := w.rpc.CallContext(t.Context(), &raw, "eth_getBlockByNumber", "0x1", true); err != nil {
		t.Fatal(err)
	}
	if _, err := c.scan(raw, 1, follow.Want{}); err != nil {
		t.Fatal(err)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		t.Fatal(err)
	}
	fields["gasUsed"] = json.RawMessage(`"0x1"`)
	lie, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	for what, b := range map[string]json.RawMessage{"changed": lie, "gone": json.RawMessage("null"), "garbage": json.RawMessage("[]")} {
		if _, err := c.scan(b, 1, follow.Want{}); !errors.Is(err, chains.ErrEndpoint) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := c.scan(raw, 2, follow.Want{}); !errors.Is(err, chains.ErrEndpoint) {
		t.Errorf("another number: %v", err)
	}
}
