package venues

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/coffer-network/coffer/ledger/fixed"
)

const (
	// Timeout of one question, from connecting to the last byte.
	Timeout = 2 * time.Second
	// MaxAge of an answer, and how far ahead of the own clock it may be: an older
	// report would not count in the ledger either (spec: lending §12.2).
	MaxAge = 60 * time.Second

	maxBody      = 16 << 10 // a ticker of one pair has less than 1 KiB
	maxSpreadBps = 500      // between bid and ask: wider is no market
)

// ErrNotListed says that a venue has no market of the asset in US dollars.
var ErrNotListed = errors.New("not listed")

// Quote is what one venue says.
type Quote struct {
	Price fixed.Int // USD · 10⁸ per whole token
	At    time.Time // as the package comment says
}

// ticker is what an adapter reads out of an answer. Bid and Ask are empty where
// the venue gives none, At is zero where it gives no time.
type ticker struct {
	Last, Bid, Ask string
	At             time.Time
}

// Venue is one place to ask.
type Venue struct {
	name   string
	client *http.Client
	url    func(symbol string) (string, bool)               // false: not listed
	parse  func(symbol string, body []byte) (ticker, error) // of an answer 200
}

// real are the public venues: where they are, how they are asked and read.
var real = map[string]func(base string) Venue{
	"bitstamp": bitstamp, "coinbase": coinbase, "kraken": kraken,
}

var bases = map[string]string{
	"bitstamp": "https://www.bitstamp.net", "coinbase": "https://api.exchange.coinbase.com", "kraken": "https://api.kraken.com",
}

// Names are those that Public knows, ascending.
func Names() []string { return []string{"bitstamp", "coinbase", "kraken"} }

// Public is a real venue by its name.
func Public(name string, client *http.Client) (*Venue, error) {
	base, ok := bases[name]
	if !ok {
		return nil, fmt.Errorf("venue %q, known are %s", name, strings.Join(Names(), ", "))
	}
	return At(name, base, client)
}

// At is a real venue's adapter for another address, such as a recording proxy.
func At(name, base string, client *http.Client) (*Venue, error) {
	adapter, ok := real[name]
	if !ok {
		return nil, fmt.Errorf("venue %q, known are %s", name, strings.Join(Names(), ", "))
	}
	if err := safe(base); err != nil {
		return nil, err
	}
	v := adapter(strings.TrimSuffix(base, "/"))
	v.name, v.client = name, client
	return &v, nil
}

// Server is a price server of the testnet's kind; {asset} in template stands
// for the symbol.
func Server(template string, client *http.Client) (*Venue, error) {
	if err := safe(template); err != nil {
		return nil, err
	}
	v := server(template)
	u, _ := url.Parse(template)
	v.name, v.client = u.Host+u.Path, client // no query: it may hold a key
	return &v, nil
}

// safe: a price that somebody on the way may change is nobody's. Plain HTTP goes
// to this machine alone, by its address: a name is resolved by others.
func safe(raw string) error {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return fmt.Errorf("%q is no URL", raw)
	}
	if ip := net.ParseIP(u.Hostname()); u.Scheme == "https" || u.Scheme == "http" && ip != nil && ip.IsLoopback() {
		return nil
	}
	return fmt.Errorf("%s://%s: want https, or http to a loopback address", u.Scheme, u.Host)
}

// Client is what venues are asked with: bounded in time and headers, and deaf
// to redirects, which would let one venue answer for another.
func Client() *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxResponseHeaderBytes = maxBody
	return Strict(&http.Client{Transport: t})
}

// Strict gives a client Timeout and has it refuse redirects.
func Strict(c *http.Client) *http.Client {
	c.Timeout = Timeout
	c.CheckRedirect = func(r *http.Request, _ []*http.Request) error { return fmt.Errorf("redirected to %s", r.URL.Host) }
	return c
}

// Name is the venue's name, or the address of a price server.
func (v *Venue) Name() string { return v.name }

// Lists reports whether there is a market of symbol in US dollars here, as far
// as is known without asking.
func (v *Venue) Lists(symbol string) bool {
	_, ok := v.url(symbol)
	return ok
}

// Quote asks for symbol's price in US dollars. ErrNotListed: there is no such
// market here, and nobody was asked.
func (v *Venue) Quote(ctx context.Context, symbol string, now time.Time) (Quote, error) {
	u, ok := v.url(symbol)
	if !ok {
		return Quote{}, ErrNotListed
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return Quote{}, err
	}
	req.Header.Set("User-Agent", "coffer") // Coinbase refuses those without
	req.Header.Set("Accept", "application/json")
	res, err := v.client.Do(req)
	if err != nil {
		return Quote{}, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return Quote{}, fmt.Errorf("answered %s", res.Status)
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, maxBody+1))
	if err != nil {
		return Quote{}, err
	}
	if len(b) > maxBody {
		return Quote{}, fmt.Errorf("answer above %d bytes", maxBody)
	}
	t, err := v.parse(symbol, b)
	if err != nil {
		return Quote{}, err
	}
	if t.At.IsZero() {
		if t.At, err = http.ParseTime(res.Header.Get("Date")); err != nil {
			t.At = now
		}
	}
	if age := now.Sub(t.At); age > MaxAge || age < -MaxAge {
		return Quote{}, fmt.Errorf("price is of %s", t.At.UTC().Format(time.RFC3339))
	}
	p, err := t.price()
	return Quote{Price: p, At: t.At}, err
}

// price is the last trade, or the nearer of bid and ask where the book has left
// the last trade behind. A crossed or a wide book is no market.
func (t ticker) price() (fixed.Int, error) {
	last, err := ParsePrice(t.Last)
	if err != nil || t.Bid == "" && t.Ask == "" {
		return last, err
	}
	bid, err := ParsePrice(t.Bid)
	if err != nil {
		return fixed.Int{}, fmt.Errorf("bid: %w", err)
	}
	ask, err := ParsePrice(t.Ask)
	if err != nil {
		return fixed.Int{}, fmt.Errorf("ask: %w", err)
	}
	var c fixed.Calc
	if ask.Less(bid) || c.Mul(bid, fixed.New(maxSpreadBps)).Less(c.Mul(c.Sub(ask.Max(bid), bid), fixed.Bps)) || c.Err() != nil {
		return fixed.Int{}, fmt.Errorf("bid %s and ask %s make no market", t.Bid, t.Ask)
	}
	three := []fixed.Int{bid, last, ask}
	slices.SortFunc(three, fixed.Int.Cmp)
	return three[1], nil
}

const (
	decimals  = 8  // USD · 10⁸
	maxDigits = 32 // of a price's text
)

// ParsePrice reads USD as a plain decimal, without sign or exponent. Places
// beyond the eighth are cut off: less than 10⁻⁸ USD, always down.
func ParsePrice(s string) (fixed.Int, error) {
	whole, frac, _ := strings.Cut(s, ".")
	if whole == "" || len(s) > maxDigits || strings.Trim(whole+frac, "0123456789") != "" {
		return fixed.Int{}, fmt.Errorf("price %.40q is no plain decimal", s)
	}
	frac = (frac + strings.Repeat("0", decimals))[:decimals]
	digits := strings.TrimLeft(whole+frac, "0")
	if digits == "" {
		return fixed.Int{}, fmt.Errorf("price %q is not positive", s)
	}
	return fixed.Parse(digits)
}
