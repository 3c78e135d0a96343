package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/fixed"
	"github.com/coffer-network/coffer/node/venues"
)

const (
	minVenues = 3
	// oracleEvery leaves a round of 15 s several chances, and asks no venue for
	// one asset more often than public limits allow by far.
	oracleEvery = 3 * time.Second
	// venueJumpBps from its own last answer is worth a line in the log.
	venueJumpBps = 500
)

// venue is one place that says what an asset costs in US dollars.
type venue interface {
	Name() string
	Lists(symbol string) bool
	Quote(ctx context.Context, symbol string, now time.Time) (venues.Quote, error)
}

// openVenues are the configured ones: public ones first.
func openVenues(c Config, client *http.Client) ([]venue, error) {
	var vs []venue
	named := map[string]bool{}
	add := func(as string, v *venues.Venue, err error) error {
		if err == nil && named[as] {
			err = fmt.Errorf("venue %s is named twice: its word would count twice", v.Name())
		}
		if err == nil {
			named[as] = true
			vs = append(vs, v)
		}
		return err
	}
	for _, name := range c.Venues {
		v, err := venues.Public(name, client)
		if err := add(name, v, err); err != nil {
			return nil, err
		}
	}
	for _, u := range c.Prices {
		v, err := venues.Server(u, client)
		if err := add(u, v, err); err != nil {
			return nil, fmt.Errorf("prices: %w", err)
		}
	}
	return vs, nil
}

// feed is this node's own view of prices.
type feed struct {
	venues  []venue
	log     *slog.Logger
	metrics *metrics
	last    map[[2]string]fixed.Int // venue, symbol: its last good answer
}

// watchPrices asks every venue for every asset and keeps the median of those
// that answered well: at least three, none older than a minute.
func (n *Node) watchPrices(ctx context.Context) {
	client := venues.Client()
	defer client.CloseIdleConnections()
	vs, err := openVenues(n.cfg, client)
	if err != nil { // Validate refused it before
		n.log.Error("no venue to ask for prices", slog.Any("err", err))
		return
	}
	f := feed{vs, n.log, n.metrics, map[[2]string]fixed.Int{}}
	tick := time.NewTicker(oracleEvery)
	defer tick.Stop()
	for {
		v, _ := n.app.now()
		asked := map[string]venues.Quote{} // one question for the same coin on several chains
		for _, a := range v.Genesis.Assets {
			q, ok := asked[a.Symbol]
			if !ok {
				var err error
				if q, err = f.median(ctx, a.Symbol, time.Now()); err != nil {
					n.log.Debug("no price", slog.String("asset", a.ID), slog.Any("err", err))
				}
				asked[a.Symbol] = q // zero: tried
			}
			if q.Price.IsZero() {
				continue
			}
			// The age counts in ledger time, back from the newest this node has seen.
			age := uint64(max(time.Since(q.At).Milliseconds(), 0))
			n.mu.Lock()
			n.prices[a.ID] = ledger.PriceReport{Asset: a.ID, Price: q.Price, Observed: v.Millis - min(age, v.Millis)}
			n.mu.Unlock()
			n.metrics.priced(a.ID, q.At)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// median asks all venues that list the symbol at once and returns the middle
// quote, with an even count the lower one: one venue's own price at its own
// time.
func (f feed) median(ctx context.Context, symbol string, now time.Time) (venues.Quote, error) {
	type answer struct {
		venue string
		venues.Quote
		err error
	}
	var (
		wg      sync.WaitGroup
		answers = make([]answer, len(f.venues))
	)
	for i, v := range f.venues {
		wg.Add(1)
		go func() {
			defer wg.Done()
			q, err := v.Quote(ctx, symbol, now)
			answers[i] = answer{v.Name(), q, err}
		}()
	}
	wg.Wait()
	var qs []venues.Quote
	var bad error
	for _, a := range answers {
		switch {
		case errors.Is(a.err, venues.ErrNotListed):
		case a.err != nil:
			bad = errors.Join(bad, fmt.Errorf("%s: %w", a.venue, a.err))
			if ctx.Err() == nil {
				f.metrics.venueFailed(a.venue)
			}
		default:
			qs = append(qs, a.Quote)
			f.note(a.venue, symbol, a.Quote)
		}
	}
	if len(qs) < minVenues {
		return venues.Quote{}, errors.Join(fmt.Errorf("%d venues answered, want %d", len(qs), minVenues), bad)
	}
	slices.SortFunc(qs, func(a, b venues.Quote) int { return a.Price.Cmp(b.Price) })
	return qs[(len(qs)-1)/2], nil
}

// note remembers a venue's answer. A jump from its last one is said and changes
// nothing: whether a price may jump is the ledger's to judge, over all members.
func (f feed) note(venue, symbol string, q venues.Quote) {
	f.metrics.venueAnswered(venue, symbol, q.At)
	key := [2]string{venue, symbol}
	last, had := f.last[key]
	f.last[key] = q.Price
	var c fixed.Calc
	d := c.Sub(q.Price.Max(last), q.Price.Min(last))
	if had && c.Mul(last, fixed.New(venueJumpBps)).Less(c.Mul(d, fixed.Bps)) {
		f.log.Warn("a venue's price jumped", slog.String("venue", venue), slog.String("symbol", symbol),
			slog.String("from", last.String()), slog.String("to", q.Price.String()))
	}
}
