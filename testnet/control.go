package testnet

import (
	"context"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"path/filepath"

	"github.com/ethereum/go-ethereum/common"
)

// controlFile lies in the testnet's directory while the testnet runs, and tells the other terminal where it is.
const controlFile = "testnet.json"

const (
	bitcoinDecimals = 8
	etherDecimals   = 18
)

// ControlConfig is what the control server acts upon.
type ControlConfig struct {
	Dir     string
	Bitcoin interface {
		Fund(ctx context.Context, address string, sats int64) (txid string, err error)
		Mine(ctx context.Context, n int) (height int64, err error)
	}
	Ethereum interface {
		FundETH(ctx context.Context, to common.Address, wei *big.Int) (common.Hash, error)
		FundToken(ctx context.Context, to common.Address, units *big.Int) (common.Hash, error)
	}
	Prices interface {
		Set(asset, price string) error
	}
	Nodes interface {
		End(ctx context.Context, name string, kill bool) error
		Begin(ctx context.Context, name string) error
	}
}

// Control lets `coffer testnet faucet|price|mine|stop|start` in another terminal reach the running testnet. Who can read the
// directory's testnet.json may use it, and no web page can.
type Control struct {
	cfg    ControlConfig
	server *loopbackServer
	path   string
	token  string
}

type controlAddress struct {
	URL   string `json:"url"`
	Token string `json:"token"`
}

// FaucetRequest asks for coins: Asset is BTC, ETH or USDT, Amount a decimal number of whole coins.
type FaucetRequest struct {
	Asset   string `json:"asset"`
	Address string `json:"address"`
	Amount  string `json:"amount"`
}

type faucetAnswer struct {
	TxID string `json:"txid"`
}

type priceRequest struct {
	Asset string `json:"asset"`
	Price string `json:"price"`
}

type mineRequest struct {
	Blocks int `json:"blocks"`
}

type nodeRequest struct {
	Node string `json:"node"`
	Kill bool   `json:"kill"`
}

type mineAnswer struct {
	Height int64 `json:"height"`
}

// StartControl serves on a random port of loopback and records it in the directory.
func StartControl(cfg ControlConfig) (*Control, error) {
	c := &Control{cfg: cfg, path: filepath.Join(cfg.Dir, controlFile), token: hex.EncodeToString(randomSecret())}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /faucet", action(c.faucet))
	mux.HandleFunc("POST /price", action(c.price))
	mux.HandleFunc("POST /mine", action(c.mine))
	mux.HandleFunc("POST /stop", action(c.stop))
	mux.HandleFunc("POST /start", action(c.start))
	var err error
	if c.server, err = serveLoopback(0, c.authorized(mux)); err != nil {
		return nil, fmt.Errorf("serve testnet commands: %w", err)
	}
	text, err := json.Marshal(controlAddress{URL: c.server.url, Token: c.token})
	if err == nil {
		err = writeFile(c.path, append(text, '\n'))
	}
	if err != nil {
		return nil, errors.Join(err, c.server.stop(context.Background()))
	}
	return c, nil
}

// Stop ends the server and removes its record.
func (c *Control) Stop(ctx context.Context) error {
	return errors.Join(os.Remove(c.path), c.server.stop(ctx))
}

func (c *Control) authorized(next http.Handler) http.Handler {
	want := []byte("Bearer " + c.token)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), want) != 1 {
			writeProblem(w, http.StatusUnauthorized, errors.New("wrong token: this is another testnet's directory"))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// action turns a function into a handler: JSON in, JSON or a problem out.
func action[In, Out any](do func(context.Context, In) (Out, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in In
		if err := readJSON(w, r, &in); err != nil {
			writeProblem(w, http.StatusBadRequest, err)
			return
		}
		out, err := do(r.Context(), in)
		if err != nil {
			writeProblem(w, statusOf(err), err)
			return
		}
		writeJSON(w, http.StatusOK, out)
	}
}

func (c *Control) faucet(ctx context.Context, req FaucetRequest) (answer faucetAnswer, err error) {
	switch req.Asset {
	case "BTC":
		sats, err := parseAmount(req.Amount, bitcoinDecimals)
		if err != nil {
			return answer, err
		}
		if !sats.IsInt64() {
			return answer, fmt.Errorf("%s BTC do not exist", req.Amount)
		}
		answer.TxID, err = c.cfg.Bitcoin.Fund(ctx, req.Address, sats.Int64())
		return answer, err
	case "ETH":
		return c.faucetEthereum(ctx, req, etherDecimals, c.cfg.Ethereum.FundETH)
	case "USDT":
		return c.faucetEthereum(ctx, req, TokenDecimals, c.cfg.Ethereum.FundToken)
	}
	return answer, fmt.Errorf("the faucet has no %.20q: it gives BTC, ETH and USDT", req.Asset)
}

func (c *Control) faucetEthereum(ctx context.Context, req FaucetRequest, decimals int,
	fund func(context.Context, common.Address, *big.Int) (common.Hash, error)) (answer faucetAnswer, err error) {
	if !common.IsHexAddress(req.Address) {
		return answer, fmt.Errorf("%.80q is not an Ethereum address", req.Address)
	}
	units, err := parseAmount(req.Amount, decimals)
	if err != nil {
		return answer, err
	}
	hash, err := fund(ctx, common.HexToAddress(req.Address), units)
	answer.TxID = hash.Hex()
	return answer, err
}

func parseAmount(text string, decimals int) (*big.Int, error) {
	units, err := parseDecimal(text, decimals)
	if err != nil {
		return nil, fmt.Errorf("amount: %w", err)
	}
	if units.Sign() == 0 {
		return nil, errors.New("amount: 0")
	}
	return units, nil
}

func (c *Control) price(_ context.Context, req priceRequest) (struct{}, error) {
	return struct{}{}, c.cfg.Prices.Set(req.Asset, req.Price)
}

func (c *Control) mine(ctx context.Context, req mineRequest) (answer mineAnswer, err error) {
	answer.Height, err = c.cfg.Bitcoin.Mine(ctx, req.Blocks)
	return answer, err
}

func (c *Control) stop(ctx context.Context, req nodeRequest) (struct{}, error) {
	return struct{}{}, c.cfg.Nodes.End(ctx, req.Node, req.Kill)
}

func (c *Control) start(ctx context.Context, req nodeRequest) (struct{}, error) {
	return struct{}{}, c.cfg.Nodes.Begin(ctx, req.Node)
}
