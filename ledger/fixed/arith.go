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
func Mul(a, b Int) (Int, error) { return Product(a, b).Int() }

// DivFloor returns ⌊a/d⌋.
func DivFloor(a, d Int) (Int, error) { return MulDivFloor(a, one, d) }

// MulDivFloor returns ⌊a·b/d⌋.
func MulDivFloor(a, b, d Int) (Int, error) { return narrow(WideFloor(a.Wide(), b.Wide(), d.Wide())) }

// MulDivCeil returns ⌈a·b/d⌉.
func MulDivCeil(a, b, d Int) (Int, error) { return narrow(WideCeil(a.Wide(), b.Wide(), d.Wide())) }

// MulDivHalfUp returns ⌊(a·b + ⌊d/2⌋)/d⌋.
func MulDivHalfUp(a, b, d Int) (Int, error) { return narrow(WideHalfUp(a.Wide(), b.Wide(), d.Wide())) }

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
