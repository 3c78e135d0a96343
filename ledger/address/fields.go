package address

import (
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
)

// field is one line of a request: its key, how its value is written and read,
// and what the grammar's pools and chains say about it.
type field struct {
	key    string
	render func(*Command) string
	parse  func(*Command, string) bool
	check  func(*Grammar, *Command) error // nil: nothing
}

// Amount is a number of base units as written in a request. Symbol and Decimals
// are the text's; for a pool that the grammar knows they are the pool's, and
// for another the ledger answers with the pool's absence.
type Amount struct {
	Units    string // decimal, 0 to 2¹²⁸-1; "" with Max
	Max      bool
	Symbol   string
	Decimals uint8 // 0 with Max
}

// Amount is units of a pool's asset, for composing a Command.
func (g *Grammar) Amount(pool, units string) Amount {
	a := g.Pools[pool]
	return Amount{Units: units, Symbol: a.Symbol, Decimals: a.Decimals}
}

// MaxAmount is "all there is" of a pool's asset, for composing a Command.
func (g *Grammar) MaxAmount(pool string) Amount {
	return Amount{Max: true, Symbol: g.Pools[pool].Symbol}
}

func (a Amount) String() string {
	if a.Max {
		return "max " + a.Symbol
	}
	d := int(a.Decimals)
	units := a.Units
	if missing := d + 1 - len(units); missing > 0 {
		units = strings.Repeat("0", missing) + units
	}
	return units[:len(units)-d] + "." + units[len(units)-d:] + " " + a.Symbol
}

// maxWholeDigits is what spec requests §1.1 allows before the point.
const maxWholeDigits = 30

func parseAmount(s string, orMax bool) (Amount, bool) {
	number, symbol, ok := strings.Cut(s, " ")
	if !ok || !isSymbol(symbol) {
		return Amount{}, false
	}
	if orMax && number == "max" {
		return Amount{Max: true, Symbol: symbol}, true
	}
	whole, fraction, ok := strings.Cut(number, ".")
	if !ok || !digits(whole, 1, maxWholeDigits) || !digits(fraction, 0, MaxDecimals) {
		return Amount{}, false
	}
	if whole[0] == '0' && whole != "0" {
		return Amount{}, false
	}
	units, ok := new(big.Int).SetString(whole+fraction, 10)
	if !ok || units.BitLen() > 128 {
		return Amount{}, false
	}
	return Amount{Units: units.String(), Symbol: symbol, Decimals: uint8(len(fraction))}, true
}

// poolOf and collateralPoolOf say which pool an amount or address belongs to.
func poolOf(c *Command) string           { return c.Pool }
func collateralPoolOf(c *Command) string { return c.CollateralPool }

func amountField(key string, pool func(*Command) string, orMax bool, at func(*Command) *Amount) field {
	return field{
		key:    key,
		render: func(c *Command) string { return at(c).String() },
		parse: func(c *Command, s string) (ok bool) {
			*at(c), ok = parseAmount(s, orMax)
			return ok
		},
		check: func(g *Grammar, c *Command) error {
			asset, known := g.Pools[pool(c)]
			a := at(c)
			switch {
			case !known:
				return nil // UNKNOWN_POOL is the ledger's to say
			case a.Symbol != asset.Symbol:
				return malformed("%s in %s, pool %s is in %s", key, a.Symbol, pool(c), asset.Symbol)
			case !a.Max && a.Decimals != asset.Decimals:
				return malformed("%s with %d decimals, %s has %d", key, a.Decimals, asset.Symbol, asset.Decimals)
			}
			return nil
		},
	}
}

func poolField(key string, at func(*Command) *string) field {
	return field{
		key:    key,
		render: func(c *Command) string { return *at(c) },
		parse: func(c *Command, s string) bool {
			*at(c) = s
			return isPool(s)
		},
	}
}

// destinationField is an address that coins go to. What is not canonical, on
// another network or on a chain that does not fit the pool is refused as a
// destination, not as text: the signer meant something, and is told what.
func destinationField(key string, pool func(*Command) string, at func(*Command) *CAIP10) field {
	return field{
		key:    key,
		render: func(c *Command) string { return at(c).String() },
		parse: func(c *Command, s string) bool {
			a, err := SplitCAIP10(s)
			*at(c) = a
			return err == nil
		},
		check: func(g *Grammar, c *Command) error {
			to := *at(c)
			if !slices.Contains(g.Chains, to.Chain()) {
				return fmt.Errorf("%w: %s: chain %s is not listed", ErrDestination, key, to.Chain())
			}
			if err := to.CheckPayout(); err != nil {
				return fmt.Errorf("%w: %s: %w", ErrDestination, key, err)
			}
			if pool == nil {
				return nil
			}
			if asset, known := g.Pools[pool(c)]; known && asset.Chain != to.Chain() {
				return fmt.Errorf("%w: %s on %s, pool %s pays on %s", ErrDestination, key, to.Chain(), pool(c), asset.Chain)
			}
			return nil
		},
	}
}

// orNone lets a destination be absent, written as "none".
func orNone(f field, at func(*Command) *CAIP10) field {
	render, parse, check := f.render, f.parse, f.check
	f.render = func(c *Command) string {
		if *at(c) == (CAIP10{}) {
			return "none"
		}
		return render(c)
	}
	f.parse = func(c *Command, s string) bool { return s == "none" || parse(c, s) }
	f.check = func(g *Grammar, c *Command) error {
		if *at(c) == (CAIP10{}) {
			return nil
		}
		return check(g, c)
	}
	return f
}

// walletField is an address that signs: strict in every way.
func walletField(key string, at func(*Command) *CAIP10) field {
	return field{
		key:    key,
		render: func(c *Command) string { return at(c).String() },
		parse: func(c *Command, s string) bool {
			a, err := ParseCAIP10(s)
			*at(c) = a
			return err == nil
		},
		check: func(g *Grammar, c *Command) error {
			if chain := at(c).Chain(); !slices.Contains(g.Chains, chain) && !slices.Contains(g.Wallets, chain) {
				return malformed("%s: chain %s is not listed", key, at(c).Chain())
			}
			return nil
		},
	}
}

func accountField(key string, at func(*Command) *[16]byte) field {
	return field{
		key:    key,
		render: func(c *Command) string { return hex.EncodeToString(at(c)[:]) },
		parse: func(c *Command, s string) bool {
			if !lowerHex(s, 32) {
				return false
			}
			_, err := hex.Decode(at(c)[:], []byte(s))
			return err == nil
		},
	}
}

// maxNumberDigits: 19 digits stay below 2⁶⁴.
const maxNumberDigits = 19

func numberField(key string, at func(*Command) *uint64) field {
	return field{
		key:    key,
		render: func(c *Command) string { return strconv.FormatUint(*at(c), 10) },
		parse: func(c *Command, s string) bool {
			if !digits(s, 1, maxNumberDigits) || s[0] == '0' && s != "0" {
				return false
			}
			n, err := strconv.ParseUint(s, 10, 64)
			*at(c) = n
			return err == nil
		},
	}
}

func onField() field {
	return field{
		key: "On",
		render: func(c *Command) string {
			if c.On {
				return "yes"
			}
			return "no"
		},
		parse: func(c *Command, s string) bool {
			c.On = s == "yes"
			return c.On || s == "no"
		},
	}
}

func clusterField() field {
	return field{
		key:    "Cluster",
		render: func(c *Command) string { return c.Cluster },
		parse: func(c *Command, s string) bool {
			c.Cluster = s
			return IsCluster(s)
		},
	}
}

func expiresField() field {
	return field{
		key: "Expires",
		render: func(c *Command) string {
			if c.Expires < 0 || c.Expires > maxUnix {
				return "never"
			}
			return formatTime(c.Expires)
		},
		parse: func(c *Command, s string) (ok bool) {
			c.Expires, ok = parseTime(s)
			return ok
		},
	}
}

// IsCluster reports whether s is spelled as a cluster's name and the first 16
// bytes of its genesis hash.
func IsCluster(s string) bool {
	name, hash, ok := strings.Cut(s, "/")
	return ok && len(name) >= 1 && len(name) <= 24 && only(name, "-") && lowerHex(hash, 32)
}

func isPool(s string) bool {
	return len(s) >= 1 && len(s) <= 32 && only(s, ".-") && s[0] != '.' && s[0] != '-'
}

func isSymbol(s string) bool {
	if len(s) < 2 || len(s) > 10 || s[0] < 'A' || s[0] > 'Z' {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

// only reports whether s is lower-case letters, digits and others.
func only(s, others string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && strings.IndexByte(others, c) < 0 {
			return false
		}
	}
	return true
}

func digits(s string, least, most int) bool {
	if len(s) < least || len(s) > most {
		return false
	}
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

func lowerHex(s string, n int) bool {
	if len(s) != n {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func printable(s string) bool {
	for _, c := range []byte(s) {
		if c < 0x20 || c > 0x7e {
			return false
		}
	}
	return true
}
