package alert

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"strings"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// MaxRules bounds what one operator watches: each has a goroutine and a queue.
const MaxRules = 64

// Kinds of rules.
const (
	HealthBelow     = "health-below"     // account; threshold: health factor, "1.20". With "*", each account: at most "1"
	PriceBelow      = "price-below"      // asset; threshold: USD, "50000"
	PriceAbove      = "price-above"      // asset
	RateAbove       = "rate-above"       // pool; threshold: borrow rate a year in percent, "12.5"
	DepositCredited = "deposit-credited" // account or "*"
	OutflowSent     = "outflow-sent"     // account or "*"
)

// Rule is one line of an operator's node.toml:
//
//	[[alerts]]
//	account = "5f0c9a1e7b3d2c445f0c9a1e7b3d2c44"
//	kind = "health-below"
//	threshold = "1.20"
//	url = "https://example.org/hook"
//	secret_file = "/etc/coffer/hook.secret"
type Rule struct {
	Account   string `toml:"account,omitempty"`   // id, or "*" for all
	Asset     string `toml:"asset,omitempty"`     // id of an asset or pool
	Kind      string `toml:"kind"`                //
	Threshold string `toml:"threshold,omitempty"` // decimal
	URL       string `toml:"url"`                 // https, or http on loopback
	Secret    string `toml:"secret_file"`         // readable by its owner alone; at least 16 bytes
}

// hysteresis: a rule that fired fires again only after the value was 2 % on the
// good side of its threshold.
const hysteresisPercent = 2

// Validate checks rules against genesis.
func Validate(rules []Rule, g ledger.Genesis) error {
	if len(rules) > MaxRules {
		return fmt.Errorf("%d alert rules, at most %d", len(rules), MaxRules)
	}
	for i, r := range rules {
		if _, err := compile(r, g); err != nil {
			return fmt.Errorf("alert rule %d (%s): %w", i+1, r.Kind, err)
		}
	}
	return nil
}

// compiled is a rule with its threshold in the ledger's units.
type compiled struct {
	Rule
	limit  fixed.Int // WAD, USD · 10⁸, or RAY
	rearm  fixed.Int
	above  bool
	secret []byte
}

func compile(r Rule, g ledger.Genesis) (compiled, error) {
	c := compiled{Rule: r}
	digits := 0
	switch r.Kind {
	case HealthBelow:
		if r.Account != "*" && len(r.Account) != 32 {
			return c, errors.New(`want an account, or "*"`)
		}
		digits = 18
	case PriceBelow, PriceAbove:
		if _, ok := g.Asset(r.Asset); !ok {
			return c, fmt.Errorf("no asset %q", r.Asset)
		}
		digits, c.above = 8, r.Kind == PriceAbove
	case RateAbove:
		if _, ok := g.Asset(r.Asset); !ok {
			return c, fmt.Errorf("no pool %q", r.Asset)
		}
		digits, c.above = 25, true // percent of RAY
	case DepositCredited, OutflowSent:
		if r.Account != "*" && len(r.Account) != 32 {
			return c, errors.New(`want an account, or "*"`)
		}
		if r.Threshold != "" {
			return c, errors.New("takes no threshold")
		}
	default:
		return c, fmt.Errorf("no such kind: want %s", strings.Join([]string{HealthBelow, PriceBelow, PriceAbove, RateAbove, DepositCredited, OutflowSent}, ", "))
	}
	if digits > 0 {
		var err error
		if c.limit, err = scaled(r.Threshold, digits); err != nil || c.limit.IsZero() {
			return c, fmt.Errorf("threshold %q: want a number above 0 such as 1.2", r.Threshold)
		}
		if r.Kind == HealthBelow && r.Account == "*" && fixed.Wad.Less(c.limit) {
			// All accounts are a million: the ledger finds those below 1, and nobody weighs the rest.
			return c, fmt.Errorf("threshold %s: of all accounts, those below 1 at most are known", r.Threshold)
		}
		toward := uint64(100 + hysteresisPercent)
		if c.above {
			toward = 100 - hysteresisPercent
		}
		if c.rearm, err = fixed.MulDivFloor(c.limit, fixed.New(toward), fixed.New(100)); err != nil {
			return c, fmt.Errorf("threshold %q: too large", r.Threshold)
		}
	}
	if err := checkURL(r.URL); err != nil {
		return c, err
	}
	var err error
	c.secret, err = readSecret(r.Secret)
	return c, err
}

// scaled reads a decimal with so many digits behind the point.
func scaled(text string, digits int) (fixed.Int, error) {
	whole, fraction, _ := strings.Cut(text, ".")
	if whole == "" || len(fraction) > digits || len(whole) > 20 {
		return fixed.Int{}, errors.New("not a decimal")
	}
	n := strings.TrimLeft(whole+fraction+strings.Repeat("0", digits-len(fraction)), "0")
	if n == "" {
		n = "0"
	}
	return fixed.Parse(n)
}

// checkURL: figures travel encrypted, or not beyond this machine.
func checkURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil {
		return fmt.Errorf("url %q: want https://host/path", text)
	}
	ip := net.ParseIP(u.Hostname())
	switch {
	case u.Scheme == "https":
	case u.Scheme == "http" && ip != nil && ip.IsLoopback():
	default:
		return fmt.Errorf("url %q: want https, or http on a loopback address", text)
	}
	return nil
}

func readSecret(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("secret_file: %w", err)
	}
	if info.Mode().Perm()&^fs.FileMode(0o600) != 0 {
		return nil, fmt.Errorf("secret_file %s: others may read it: chmod 600", name)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("secret_file: %w", err)
	}
	b = []byte(strings.TrimSpace(string(b)))
	if len(b) < 16 || len(b) > 1024 {
		return nil, fmt.Errorf("secret_file %s: want 16 to 1024 bytes", name)
	}
	return b, nil
}
