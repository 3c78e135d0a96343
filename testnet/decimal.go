package testnet

import (
	"fmt"
	"math/big"
	"strings"
)

// maxDecimalDigits bounds an amount's text on either side of the point: 2^128 has 39 digits.
const maxDecimalDigits = 39

// parseDecimal reads "1.5" as an exact number of units of the given decimals: no sign, no exponent, nothing
// rounded off.
func parseDecimal(text string, decimals int) (*big.Int, error) {
	whole, fraction, dotted := strings.Cut(text, ".")
	switch {
	case !isDigits(whole) || (dotted && !isDigits(fraction)):
		return nil, fmt.Errorf("%.40q is not a decimal number", text)
	case len(whole) > maxDecimalDigits:
		return nil, fmt.Errorf("%.40q… has more than %d digits", text, maxDecimalDigits)
	case len(fraction) > decimals:
		return nil, fmt.Errorf("%.40q has more than %d decimals", text, decimals)
	}
	units, ok := new(big.Int).SetString(whole+fraction+strings.Repeat("0", decimals-len(fraction)), 10)
	if !ok {
		return nil, fmt.Errorf("%.40q is not a decimal number", text)
	}
	return units, nil
}

func isDigits(s string) bool {
	for _, r := range s {
		if r < '0' || r > '9' {
			return false
		}
	}
	return s != ""
}

// formatDecimal writes units with all their decimals.
func formatDecimal(units *big.Int, decimals int) string {
	text := units.String()
	if len(text) <= decimals {
		text = strings.Repeat("0", decimals+1-len(text)) + text
	}
	return text[:len(text)-decimals] + "." + text[len(text)-decimals:]
}
