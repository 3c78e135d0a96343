package testnet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

const (
	pricesFile = "prices.json"
	// priceDecimals are those of the served text: "50000.00000000".
	priceDecimals = 8
)

// Venues are the names under which the price server answers: a node takes the median of three (spec: lending §12).
func Venues() []string { return []string{"alpha", "beta", "gamma"} }

// maxPrice keeps a slip of the keyboard out of the ledger: a billion dollars per coin.
var maxPrice = new(big.Int).Mul(big.NewInt(1e9), big.NewInt(1e8))

// defaultPrices are those of the worked example (spec: chains, "The testnet's network").
func defaultPrices() map[string]string {
	return map[string]string{"BTC": "50000.00000000", "ETH": "3000.00000000", "USDT": "1.00000000"}
}

// Prices is the testnet's price feed, the same at each venue, served over HTTP on loopback:
//
//	GET /venue/{venue}/{asset}   {"asset":"BTC","price":"50000.00000000","time":"2026-01-02T15:04:05.6Z"}
//	PUT /price/{asset}           {"price":"48000"}
type Prices struct {
	server *loopbackServer
	path   string

	mu     sync.Mutex
	prices map[string]string
}

// Quote is what a venue answers: the price of one coin in dollars, at the time of the answer.
type Quote struct {
	Asset string    `json:"asset"`
	Price string    `json:"price"`
	Time  time.Time `json:"time"`
}

// StartPrices serves the directory's last prices, or the default ones.
func StartPrices(dir string, port int) (*Prices, error) {
	p := &Prices{path: filepath.Join(dir, pricesFile), prices: defaultPrices()}
	text, err := os.ReadFile(p.path)
	switch {
	case err == nil:
		err = json.Unmarshal(text, &p.prices)
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	}
	if err != nil {
		return nil, fmt.Errorf("read prices %s: %w", p.path, err)
	}
	for asset, price := range p.prices {
		if _, err := checkPrice(price); err != nil {
			return nil, fmt.Errorf("read prices %s: %s: %w", p.path, asset, err)
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /venue/{venue}/{asset}", p.serveQuote)
	mux.HandleFunc("PUT /price/{asset}", p.servePut)
	if p.server, err = serveLoopback(port, mux); err != nil {
		return nil, fmt.Errorf("serve prices: %w", err)
	}
	return p, nil
}

// URL is the server's address; a venue's is URL + "/venue/" + name.
func (p *Prices) URL() string { return p.server.url }

// Get is the asset's price as served.
func (p *Prices) Get(asset string) (price string, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	price, ok = p.prices[asset]
	return price, ok
}

// Set changes the asset's price at all venues, and in the directory.
func (p *Prices) Set(asset, price string) error {
	units, err := checkPrice(price)
	if err != nil {
		return fmt.Errorf("price of %s: %w", asset, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.prices[asset]; !ok {
		return fmt.Errorf("no price is served for %.20q: the assets are %v", asset, slices.Sorted(maps.Keys(p.prices)))
	}
	changed := maps.Clone(p.prices)
	changed[asset] = formatDecimal(units, priceDecimals)
	text, err := json.MarshalIndent(changed, "", "  ")
	if err != nil {
		return fmt.Errorf("encode prices: %w", err)
	}
	if err := writeFile(p.path, append(text, '\n')); err != nil {
		return &internalError{err}
	}
	p.prices = changed
	return nil
}

// Stop ends the server.
func (p *Prices) Stop(ctx context.Context) error { return p.server.stop(ctx) }

func checkPrice(price string) (*big.Int, error) {
	units, err := parseDecimal(price, priceDecimals)
	if err != nil {
		return nil, err
	}
	if units.Sign() == 0 || units.Cmp(maxPrice) > 0 {
		return nil, fmt.Errorf("%s is not between 0.00000001 and %s", price, formatDecimal(maxPrice, priceDecimals))
	}
	return units, nil
}

func (p *Prices) serveQuote(w http.ResponseWriter, r *http.Request) {
	venue, asset := r.PathValue("venue"), r.PathValue("asset")
	if !slices.Contains(Venues(), venue) {
		writeProblem(w, http.StatusNotFound, fmt.Errorf("unknown venue %.20q", venue))
		return
	}
	price, ok := p.Get(asset)
	if !ok {
		writeProblem(w, http.StatusNotFound, fmt.Errorf("unknown asset %.20q", asset))
		return
	}
	writeJSON(w, http.StatusOK, Quote{Asset: asset, Price: price, Time: time.Now().UTC()})
}

func (p *Prices) servePut(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Price string `json:"price"`
	}
	if err := readJSON(w, r, &body); err != nil {
		writeProblem(w, http.StatusBadRequest, err)
		return
	}
	if err := p.Set(r.PathValue("asset"), body.Price); err != nil {
		writeProblem(w, statusOf(err), err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
