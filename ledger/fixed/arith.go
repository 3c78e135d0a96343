package fixed

import "math/bits"

// Add returns a + b.
func Add(a, b Int) (Int, error) {
	lo, carry := bits.Add64(a.lo, b.lo, 0)
	hi, carry := bits.Add64(a.hi, b.hi, carry)
	if carry != 0 {
		return zero, ErrOverflow
	}
	return Int{hi, lo}, nil
}

// Sub returns a − b.
func Sub(a, b Int) (Int, error) {
	lo, borrow := bits.Sub64(a.lo, b.lo, 0)
	hi, borrow := bits.Sub64(a.hi, b.hi, borrow)
	if borrow != 0 {
		return zero, ErrUnderflow
	}
	return Int{hi, lo}, nil
}

// Mul returns a·b.
func Mul(a, b Int) (Int, error) {
	p := product(a, b)
	if p[2]|p[3] != 0 {
		return zero, ErrOverflow
	}
	return Int{hi: p[1], lo: p[0]}, nil
}

// DivFloor returns ⌊a/d⌋.
func DivFloor(a, d Int) (Int, error) { return MulDivFloor(a, one, d) }

// MulDivFloor returns ⌊a·b/d⌋.
func MulDivFloor(a, b, d Int) (Int, error) {
	q, _, err := mulDiv(a, b, d)
	return q, err
}

// MulDivCeil returns ⌈a·b/d⌉.
func MulDivCeil(a, b, d Int) (Int, error) {
	q, r, err := mulDiv(a, b, d)
	if err != nil || r.IsZero() {
		return q, err
	}
	return Add(q, one)
}

// MulDivHalfUp returns ⌊(a·b + ⌊d/2⌋)/d⌋.
func MulDivHalfUp(a, b, d Int) (Int, error) {
	q, r, err := mulDiv(a, b, d)
	if err != nil {
		return q, err
	}
	half := Int{hi: d.hi >> 1, lo: d.lo>>1 | d.hi<<63}
	if up, _ := Sub(d, half); r.Less(up) { // the smallest remainder that rounds up
		return q, nil
	}
	return Add(q, one)
}

// mulDiv returns quotient and remainder of a·b/d.
//
// Why not WideFloor for all: four words and a divisor of any length take three
// times as long, and an operation of lending divides some twenty times.
func mulDiv(a, b, d Int) (q, r Int, err error) {
	if d.IsZero() {
		return zero, zero, ErrDivZero
	}
	p := product(a, b)
	if !(Int{hi: p[3], lo: p[2]}).Less(d) {
		return zero, zero, ErrOverflow
	}
	if d.hi == 0 { // and so is p[3]
		q.hi, r.lo = bits.Div64(p[2], p[1], d.lo)
		q.lo, r.lo = bits.Div64(r.lo, p[0], d.lo)
		return q, r, nil
	}
	// Both grow until the divisor's top bit is set. The product's upper half stays
	// below the divisor, so nothing is lost; a shift by 64 gives 0.
	up := bits.LeadingZeros64(d.hi)
	down := 64 - up
	d = Int{hi: d.hi<<up | d.lo>>down, lo: d.lo << up}
	r = Int{hi: p[3]<<up | p[2]>>down, lo: p[2]<<up | p[1]>>down}
	q.hi, r = divStep(r, p[1]<<up|p[0]>>down, d)
	q.lo, r = divStep(r, p[0]<<up, d)
	return q, Int{hi: r.hi >> up, lo: r.lo>>up | r.hi<<down}, nil
}

// divStep divides three words, n and then low, by d, whose top bit is set; n is
// below d. It is step D3 of Knuth's Algorithm D: a guess by the upper words, which
// is at most two too large.
func divStep(n Int, low uint64, d Int) (q uint64, r Int) {
	var rest, carry uint64
	if n.hi < d.hi {
		q, rest = bits.Div64(n.hi, n.lo, d.hi)
	} else {
		q = 1<<64 - 1
		rest, carry = bits.Add64(n.lo, d.hi, 0)
	}
	over, under := bits.Mul64(q, d.lo)
	for carry == 0 && (Int{hi: rest, lo: low}).Less(Int{hi: over, lo: under}) {
		var borrow uint64
		q--
		under, borrow = bits.Sub64(under, d.lo, 0)
		over -= borrow
		rest, carry = bits.Add64(rest, d.hi, 0)
	}
	var borrow uint64
	r.lo, borrow = bits.Sub64(low, under, 0)
	r.hi = rest - over - borrow
	return q, r
}

// product is a·b in four words, the lowest first.
func product(a, b Int) (p [4]uint64) {
	p[1], p[0] = bits.Mul64(a.lo, b.lo)
	if a.hi|b.hi == 0 {
		return p
	}
	var carry uint64
	over, under := bits.Mul64(a.hi, b.lo)
	p[1], carry = bits.Add64(p[1], under, 0)
	p[2] = over + carry // at most 2⁶⁴ − 1: over is at most 2⁶⁴ − 2
	over, under = bits.Mul64(a.lo, b.hi)
	p[1], carry = bits.Add64(p[1], under, 0)
	p[2], carry = bits.Add64(p[2], over, carry)
	p[3] = carry
	over, under = bits.Mul64(a.hi, b.hi)
	p[2], carry = bits.Add64(p[2], under, 0)
	p[3] += over + carry
	return p
}

// RayMul returns a·b/RAY, half up.
func RayMul(a, b Int) (Int, error) { return MulDivHalfUp(a, b, Ray) }

// RayDiv returns a·RAY/b, half up.
func RayDiv(a, b Int) (Int, error) { return MulDivHalfUp(a, Ray, b) }

// WadDiv returns a·WAD/b, half up.
func WadDiv(a, b Int) (Int, error) { return MulDivHalfUp(a, Wad, b) }

// PctMul returns a·p/10⁴, half up; p in bps.
func PctMul(a, p Int) (Int, error) { return MulDivHalfUp(a, p, Bps) }

// PctDiv returns a·10⁴/p, half up; p in bps.
func PctDiv(a, p Int) (Int, error) { return MulDivHalfUp(a, Bps, p) }

func narrow(w Wide, err error) (Int, error) {
	if err != nil {
		return zero, err
	}
	return w.Int()
}

// Calc computes a formula and keeps its first error. After an error every
// result is 0 and means nothing; read Err before using any of them.
type Calc struct{ err error }

// Err returns the first error.
func (c *Calc) Err() error { return c.err }

func (c *Calc) keep(v Int, err error) Int {
	if c.err == nil {
		c.err = err
	}
	if c.err != nil {
		return zero
	}
	return v
}

func (c *Calc) keepWide(w Wide, err error) Wide {
	if c.err == nil {
		c.err = err
	}
	if c.err != nil {
		return Wide{}
	}
	return w
}

// The methods are the functions of the same names.

func (c *Calc) Add(a, b Int) Int             { return c.keep(Add(a, b)) }
func (c *Calc) Sub(a, b Int) Int             { return c.keep(Sub(a, b)) }
func (c *Calc) Mul(a, b Int) Int             { return c.keep(Mul(a, b)) }
func (c *Calc) DivFloor(a, d Int) Int        { return c.keep(DivFloor(a, d)) }
func (c *Calc) MulDivFloor(a, b, d Int) Int  { return c.keep(MulDivFloor(a, b, d)) }
func (c *Calc) MulDivCeil(a, b, d Int) Int   { return c.keep(MulDivCeil(a, b, d)) }
func (c *Calc) MulDivHalfUp(a, b, d Int) Int { return c.keep(MulDivHalfUp(a, b, d)) }
func (c *Calc) RayMul(a, b Int) Int          { return c.keep(RayMul(a, b)) }
func (c *Calc) RayDiv(a, b Int) Int          { return c.keep(RayDiv(a, b)) }
func (c *Calc) WadDiv(a, b Int) Int          { return c.keep(WadDiv(a, b)) }
func (c *Calc) PctMul(a, p Int) Int          { return c.keep(PctMul(a, p)) }
func (c *Calc) PctDiv(a, p Int) Int          { return c.keep(PctDiv(a, p)) }
func (c *Calc) Pow10(n uint8) Int            { return c.keep(Pow10(n)) }

// AddMul returns w + a·b.
func (c *Calc) AddMul(w Wide, a, b Int) Wide { return c.keepWide(w.AddMul(a, b)) }

// Narrow returns w as an Int; use it as c.Narrow(WideFloor(…)).
func (c *Calc) Narrow(w Wide, err error) Int { return c.keep(narrow(w, err)) }

// Int returns v; use it as c.Int(f(…)) for a formula of its own.
func (c *Calc) Int(v Int, err error) Int { return c.keep(v, err) }

// Wide returns w; use it as c.Wide(w.Mul(o)).
func (c *Calc) Wide(w Wide, err error) Wide { return c.keepWide(w, err) }
