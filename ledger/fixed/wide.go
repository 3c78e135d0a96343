package fixed

import (
	"fmt"

	"github.com/holiman/uint256"
)

// Wide is an integer below 2²⁵⁶: a sum of products of Ints. It is for
// comparing both sides of an inequality without dividing, and for factors that
// are multiplied down again; nothing stores one.
type Wide struct{ v uint256.Int }

// ParseWide reads a decimal number as Parse does, below 2²⁵⁶.
func ParseWide(s string) (Wide, error) {
	if s == "" || len(s) > 78 || s[0] == '0' && len(s) > 1 {
		return Wide{}, fmt.Errorf("%w: %.80q", ErrSyntax, s)
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return Wide{}, fmt.Errorf("%w: %q", ErrSyntax, s)
		}
	}
	var w Wide
	if err := w.v.SetFromDecimal(s); err != nil {
		return Wide{}, fmt.Errorf("parse %s: %w", s, ErrOverflow)
	}
	return w, nil
}

// String is the decimal text.
func (w Wide) String() string { return w.v.Dec() }

// IsZero reports whether w is 0.
func (w Wide) IsZero() bool { return w.v.IsZero() }

// Cmp is −1, 0 or 1 as w is smaller than, equal to or larger than o.
func (w Wide) Cmp(o Wide) int { return w.v.Cmp(&o.v) }

// Less reports w < o.
func (w Wide) Less(o Wide) bool { return w.v.Lt(&o.v) }

// Int returns w if it fits an Int.
func (w Wide) Int() (Int, error) {
	if w.v[2] != 0 || w.v[3] != 0 {
		return zero, ErrOverflow
	}
	return Int{hi: w.v[1], lo: w.v[0]}, nil
}

// Add returns w + o.
func (w Wide) Add(o Wide) (Wide, error) {
	var r Wide
	if _, over := r.v.AddOverflow(&w.v, &o.v); over {
		return Wide{}, ErrOverflow
	}
	return r, nil
}

// Sub returns w − o.
func (w Wide) Sub(o Wide) (Wide, error) {
	var r Wide
	if _, under := r.v.SubOverflow(&w.v, &o.v); under {
		return Wide{}, ErrUnderflow
	}
	return r, nil
}

// Mul returns w·o.
func (w Wide) Mul(o Wide) (Wide, error) {
	var r Wide
	if _, over := r.v.MulOverflow(&w.v, &o.v); over {
		return Wide{}, ErrOverflow
	}
	return r, nil
}

// AddMul returns w + a·b.
func (w Wide) AddMul(a, b Int) (Wide, error) { return w.Add(Product(a, b)) }

// Product returns a·b, which always fits.
func Product(a, b Int) Wide { return Wide{product(a, b)} }

// WideFloor returns ⌊a·b/d⌋.
func WideFloor(a, b, d Wide) (Wide, error) {
	q, _, err := mulDivWide(a, b, d)
	return q, err
}

// WideCeil returns ⌈a·b/d⌉.
func WideCeil(a, b, d Wide) (Wide, error) {
	q, r, err := mulDivWide(a, b, d)
	if err != nil || r.IsZero() {
		return q, err
	}
	return q.Add(one.Wide())
}

// WideHalfUp returns ⌊(a·b + ⌊d/2⌋)/d⌋.
func WideHalfUp(a, b, d Wide) (Wide, error) {
	q, r, err := mulDivWide(a, b, d)
	if err != nil {
		return q, err
	}
	var up Wide // the smallest remainder that rounds up: d − ⌊d/2⌋
	up.v.Rsh(&d.v, 1)
	up.v.Sub(&d.v, &up.v)
	if r.Less(up) {
		return q, nil
	}
	return q.Add(one.Wide())
}

// mulDivWide returns quotient and remainder of a·b/d. The divisor is tested first:
// uint256 answers a division by zero with 0 and without an error.
func mulDivWide(a, b, d Wide) (q, r Wide, err error) {
	if d.IsZero() {
		return Wide{}, Wide{}, ErrDivZero
	}
	if a.IsZero() || b.IsZero() { // as half of all balances
		return Wide{}, Wide{}, nil
	}
	if (a.v[2] | a.v[3] | b.v[2] | b.v[3]) == 0 { // the product needs no 512 bits, as almost always
		var p uint256.Int
		q.v.DivMod(p.Mul(&a.v, &b.v), &d.v, &r.v)
		return q, r, nil
	}
	if _, over := q.v.MulDivOverflow(&a.v, &b.v, &d.v); over {
		return Wide{}, Wide{}, ErrOverflow
	}
	r.v.MulMod(&a.v, &b.v, &d.v)
	return q, r, nil
}
