package fixed

import (
	"math/bits"

	"github.com/holiman/uint256"
)

// Bound is a number of 64 significant bits, kept on the side of the exact one
// that the names of the functions say: for finding quickly what an exact
// comparison must look at, never for deciding. The zero value is 0.
type Bound struct {
	m uint64 // the top bit is set, unless all is 0
	e int    // m·2ᵉ
}

// Down is the largest Bound ≤ w.
func (w Wide) Down() Bound {
	b, _ := w.bound()
	return b
}

// Up is the smallest Bound ≥ w.
func (w Wide) Up() Bound {
	b, exact := w.bound()
	return b.up(exact)
}

func (w Wide) bound() (b Bound, exact bool) {
	n := w.v.BitLen()
	switch {
	case n == 0:
		return Bound{}, true
	case n <= 64:
		return Bound{w.v[0] << (64 - n), n - 64}, true
	}
	var top, back uint256.Int
	top.Rsh(&w.v, uint(n-64))
	back.Lsh(&top, uint(n-64))
	return Bound{top[0], n - 64}, back.Eq(&w.v)
}

// up is b, or the next larger Bound.
func (b Bound) up(exact bool) Bound {
	if exact {
		return b
	}
	if b.m++; b.m == 0 {
		b.m, b.e = 1<<63, b.e+1
	}
	return b
}

// IsZero reports whether b is 0.
func (b Bound) IsZero() bool { return b.m == 0 }

// MulDown is at most a·b.
func (a Bound) MulDown(b Bound) Bound {
	p, _ := a.mul(b)
	return p
}

// MulUp is at least a·b.
func (a Bound) MulUp(b Bound) Bound {
	p, exact := a.mul(b)
	return p.up(exact)
}

func (a Bound) mul(b Bound) (p Bound, exact bool) {
	if a.IsZero() || b.IsZero() {
		return Bound{}, true
	}
	hi, lo := bits.Mul64(a.m, b.m)
	e := a.e + b.e + 64
	if hi>>63 == 0 {
		hi, lo, e = hi<<1|lo>>63, lo<<1, e-1
	}
	return Bound{hi, e}, lo == 0
}

// DivDown is at most a/b. ErrDivZero: b is 0.
func (a Bound) DivDown(b Bound) (Bound, error) {
	q, _, err := a.div(b)
	return q, err
}

// DivUp is at least a/b. ErrDivZero: b is 0.
func (a Bound) DivUp(b Bound) (Bound, error) {
	q, exact, err := a.div(b)
	return q.up(exact || err != nil), err
}

func (a Bound) div(b Bound) (q Bound, exact bool, err error) {
	if b.IsZero() {
		return Bound{}, false, ErrDivZero
	}
	if a.IsZero() {
		return Bound{}, true, nil
	}
	hi, lo, e := a.m, uint64(0), a.e-b.e-64
	if hi >= b.m {
		hi, lo, e = hi>>1, hi<<63, e+1
	}
	m, rest := bits.Div64(hi, lo, b.m)
	return Bound{m, e}, rest == 0, nil
}

// Less reports a < b.
func (a Bound) Less(b Bound) bool {
	if a.IsZero() || b.IsZero() {
		return a.IsZero() && !b.IsZero()
	}
	return a.e < b.e || a.e == b.e && a.m < b.m
}

const (
	rankBias     = 512
	rankFraction = 22 // bits: ranks are 2.4·10⁻⁷ apart
)

// Rank orders Bounds coarsely in 32 bits: a ≤ b gives a.Rank() ≤ b.Rank().
// Everything below 2⁻⁵¹² is 0, everything from 2⁵¹² on the largest rank.
func (b Bound) Rank() uint32 {
	top := b.e + 63 // b is in [2^top, 2^(top+1))
	switch {
	case b.IsZero() || top < -rankBias:
		return 0
	case top >= rankBias:
		return 1<<32 - 1
	}
	return uint32(top+rankBias)<<rankFraction | uint32(b.m<<1>>(64-rankFraction))
}
