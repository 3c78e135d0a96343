package main

import (
	"fmt"
	"io"
	"math/big"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/node/api/client"
)

// printer aligns columns and keeps the first error.
type printer struct{ w *tabwriter.Writer }

func newPrinter(w io.Writer) *printer {
	return &printer{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
}

// row prints cells; a last empty one would leave trailing spaces.
func (p *printer) row(cells ...any) {
	parts := make([]string, len(cells))
	for i, c := range cells {
		parts[i] = fmt.Sprint(c)
	}
	fmt.Fprintln(p.w, strings.Join(parts, "\t")) // flush reports the error
}

func (p *printer) flush() error { return p.w.Flush() }

// human writes base units for people.
func human(units string, decimals uint8, symbol string) string {
	if units == "" {
		return "–"
	}
	return address.Amount{Units: units, Decimals: decimals, Symbol: symbol}.String()
}

// usd writes USD · 10⁸ with cents, rounded down.
func usd(value string) string {
	return "$" + scaled(value, 8, 2)
}

// percent writes a RAY ratio with two decimals, rounded down.
func percent(ray string) string { return scaled(ray, 25, 2) + " %" }

// scaled writes n/10^digits with so many decimals, rounded down.
func scaled(n string, digits, decimals int) string {
	v, ok := new(big.Int).SetString(n, 10)
	if !ok {
		return "–"
	}
	v.Quo(v, new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(digits-decimals)), nil))
	s := v.String()
	if missing := decimals + 1 - len(s); missing > 0 {
		s = strings.Repeat("0", missing) + s
	}
	return s[:len(s)-decimals] + "." + s[len(s)-decimals:]
}

// bps writes a ratio in bps as a percentage.
func bps(n uint64) string { return fmt.Sprintf("%d.%02d %%", n/100, n%100) }

// units reads an amount that a person typed, in whole tokens.
func units(text string, a client.Asset) (string, error) {
	whole, fraction, point := strings.Cut(text, ".")
	d := int(a.Decimals)
	ok := whole != "" && (!point || fraction != "") && len(text) <= 64
	for _, c := range whole + fraction {
		ok = ok && c >= '0' && c <= '9'
	}
	if !ok {
		return "", usagef("amount %q: want digits, such as 0.5", text)
	}
	if len(fraction) > d {
		return "", usagef("amount %s: %s has %d decimals", text, a.Symbol, d)
	}
	n := strings.TrimLeft(whole+fraction+strings.Repeat("0", d-len(fraction)), "0")
	if n == "" {
		n = "0"
	}
	if v, _ := new(big.Int).SetString(n, 10); v.BitLen() > 128 {
		return "", usagef("amount %s: too large", text)
	}
	return n, nil
}

func ago(t *time.Time, now time.Time) string {
	if t == nil {
		return "never"
	}
	return now.Sub(*t).Truncate(time.Second).String() + " ago"
}

func orDash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}
