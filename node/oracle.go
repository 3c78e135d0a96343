package node

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/fixed"
)

const (
	minVenues    = 3
	venueTimeout = 2 * time.Second
	venueMaxBody = 16 << 10
	venueMaxAge  = 60 * time.Second
	oracleEvery  = 3 * time.Second
	priceScale   = 8 // USD · 10⁸
)

// quote is what a venue answers.
type quote struct {
	Asset string    `json:"asset"`
	Price string    `json:"price"` // USD, decimal
	Time  time.Time `json:"time"`
}

// watchPrices asks every venue for every asset and keeps the median of those
// that answered well: at least three, none older than a minute.
func (n *Node) watchPrices(ctx context.Context) {
	client := &http.Client{Timeout: venueTimeout}
	defer client.CloseIdleConnections()
	tick := time.NewTicker(oracleEvery)
	defer tick.Stop()
	for {
		v, _ := n.app.now()
		for _, a := range v.Genesis.Assets {
			p, err := median(ctx, client, n.cfg.Prices, a.Symbol, time.Now())
			if err != nil {
				n.log.Debug("no price", slog.String("asset", a.ID), slog.Any("err", err))
				continue
			}
			// The age counts in ledger time, as of the newest this node has seen.
			n.mu.Lock()
			n.prices[a.ID] = ledger.PriceReport{Asset: a.ID, Price: p, Observed: v.Millis}
			n.mu.Unlock()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// median asks all venues at once. With an even count it is the lower middle.
func median(ctx context.Context, client *http.Client, venues []string, asset string, now time.Time) (fixed.Int, error) {
	var (
		mu  sync.Mutex
		wg  sync.WaitGroup
		ps  []fixed.Int
		bad error
	)
	for _, venue := range venues {
		wg.Add(1)
		go func() {
			defer wg.Done()
			p, err := ask(ctx, client, strings.ReplaceAll(venue, "{asset}", url.PathEscape(asset)), asset, now)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				bad = err
				return
			}
			ps = append(ps, p)
		}()
	}
	wg.Wait()
	if len(ps) < minVenues {
		return fixed.Int{}, fmt.Errorf("%d venues answered, want %d: %w", len(ps), minVenues, bad)
	}
	slices.SortFunc(ps, fixed.Int.Cmp)
	return ps[(len(ps)-1)/2], nil
}

func ask(ctx context.Context, client *http.Client, u, asset string, now time.Time) (fixed.Int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return fixed.Int{}, err
	}
	res, err := client.Do(req)
	if err != nil {
		return fixed.Int{}, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fixed.Int{}, fmt.Errorf("venue answered %s", res.Status)
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, venueMaxBody))
	if err != nil {
		return fixed.Int{}, err
	}
	var q quote
	if err := json.Unmarshal(b, &q); err != nil {
		return fixed.Int{}, fmt.Errorf("venue's answer: %w", err)
	}
	if q.Asset != asset {
		return fixed.Int{}, fmt.Errorf("venue answered for %q", q.Asset)
	}
	if age := now.Sub(q.Time); age > venueMaxAge || age < -venueMaxAge {
		return fixed.Int{}, fmt.Errorf("venue's price is of %s", q.Time.Format(time.RFC3339))
	}
	return parsePrice(q.Price)
}

// parsePrice reads USD as a decimal with at most 8 places.
func parsePrice(s string) (fixed.Int, error) {
	whole, frac, _ := strings.Cut(s, ".")
	if len(frac) > priceScale || whole == "" {
		return fixed.Int{}, fmt.Errorf("price %q: want at most %d decimals", s, priceScale)
	}
	digits := strings.TrimLeft(whole+frac+strings.Repeat("0", priceScale-len(frac)), "0")
	if digits == "" {
		return fixed.Int{}, fmt.Errorf("price %q is not positive", s)
	}
	return fixed.Parse(digits)
}
