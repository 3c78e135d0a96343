package fixed

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"strconv"

	"github.com/holiman/uint256"
)

// Errors of arithmetic. The ledger answers each with ARITH.
var (
	ErrOverflow  = errors.New("fixed: overflow")
	ErrUnderflow = errors.New("fixed: underflow")
	ErrDivZero   = errors.New("fixed: division by zero")
)

// ErrSyntax says that a text or bytes are not the one form of a number.
var ErrSyntax = errors.New("fixed: not a canonical number")

// Int is an integer from 0 to 2¹²⁸−1: an amount, a share, an index, a rate or
// a price. It compares with == and its zero value is 0.
type Int struct{ hi, lo uint64 }

// maxDigits are the digits of 2¹²⁸−1; maxBytes its bytes.
const (
	maxDigits = 39
	maxBytes  = 16
)

// Scales of the specification (lending §2) and the largest Int.
var (
	Ray  = MustParse("1000000000000000000000000000")
	Wad  = New(1_000_000_000_000_000_000)
	Bps  = New(10_000)
	Max  = Int{hi: 1<<64 - 1, lo: 1<<64 - 1}
	one  = New(1)
	zero Int
)

// New returns v as an Int.
func New(v uint64) Int { return Int{lo: v} }

// Pow10 returns 10ⁿ. 10³⁸ is the largest that fits.
func Pow10(n uint8) (Int, error) {
	if int(n) >= len(powers) {
		return zero, fmt.Errorf("10^%d: %w", n, ErrOverflow)
	}
	return powers[n], nil
}

var powers = func() (p [maxDigits]Int) {
	p[0] = one
	for i := 1; i < len(p); i++ {
		p[i], _ = Mul(p[i-1], New(10)) // 10³⁸ fits
	}
	return p
}()

// Parse reads a decimal number of the form 0 or [1-9][0-9]*, below 2¹²⁸.
//
// Why not uint256.SetFromDecimal: it accepts +5 and 005, and one number must
// have one text.
func Parse(s string) (Int, error) {
	if s == "" || len(s) > maxDigits || s[0] == '0' && len(s) > 1 {
		return zero, fmt.Errorf("%w: %.40q", ErrSyntax, s)
	}
	var v Int
	for i := range len(s) {
		d := s[i] - '0'
		if d > 9 {
			return zero, fmt.Errorf("%w: %q", ErrSyntax, s)
		}
		var err error
		if v, err = Mul(v, New(10)); err == nil {
			v, err = Add(v, New(uint64(d)))
		}
		if err != nil {
			return zero, fmt.Errorf("parse %s: %w", s, err)
		}
	}
	return v, nil
}

// MustParse is Parse for constants of our own.
func MustParse(s string) Int {
	v, err := Parse(s)
	if err != nil {
		panic(err)
	}
	return v
}

// String is the decimal text that Parse reads.
func (a Int) String() string {
	if a.hi == 0 {
		return strconv.FormatUint(a.lo, 10)
	}
	const e19 = 10_000_000_000_000_000_000
	lo, rest := bits.Div64(a.hi%e19, a.lo, e19)
	return fmt.Sprintf("%s%019d", Int{hi: a.hi / e19, lo: lo}, rest)
}

// IsZero reports whether a is 0.
func (a Int) IsZero() bool { return a == zero }

// Cmp is −1, 0 or 1 as a is smaller than, equal to or larger than b.
func (a Int) Cmp(b Int) int {
	switch {
	case a == b:
		return 0
	case a.Less(b):
		return -1
	}
	return 1
}

// Less reports a < b.
func (a Int) Less(b Int) bool { return a.hi < b.hi || a.hi == b.hi && a.lo < b.lo }

// Min returns the smaller of a and b.
func (a Int) Min(b Int) Int {
	if b.Less(a) {
		return b
	}
	return a
}

// Max returns the larger of a and b.
func (a Int) Max(b Int) Int {
	if a.Less(b) {
		return b
	}
	return a
}

// Uint64 returns a and whether it fits.
func (a Int) Uint64() (uint64, bool) { return a.lo, a.hi == 0 }

// Bytes is a in big-endian order without leading zeros; 0 is empty.
func (a Int) Bytes() []byte { return a.Append(make([]byte, 0, maxBytes)) }

// Append appends Bytes to b.
func (a Int) Append(b []byte) []byte {
	var full [maxBytes]byte
	binary.BigEndian.PutUint64(full[:8], a.hi)
	binary.BigEndian.PutUint64(full[8:], a.lo)
	n := 0
	for n < maxBytes && full[n] == 0 {
		n++
	}
	return append(b, full[n:]...)
}

// FromBytes reads what Bytes gives and nothing else.
func FromBytes[B []byte | string](b B) (Int, error) {
	if len(b) > maxBytes || len(b) > 0 && b[0] == 0 {
		return zero, fmt.Errorf("%w: %d bytes", ErrSyntax, len(b))
	}
	var full [maxBytes]byte
	copy(full[maxBytes-len(b):], b)
	return Int{hi: binary.BigEndian.Uint64(full[:8]), lo: binary.BigEndian.Uint64(full[8:])}, nil
}

// cborBytes is the major type of a byte string; a length up to 23 is in the
// same byte, so 16 bytes never need more.
const cborBytes = 0x40

// MarshalCBOR writes a byte string of Bytes.
func (a Int) MarshalCBOR() ([]byte, error) {
	b := a.Bytes()
	return append([]byte{cborBytes | byte(len(b))}, b...), nil
}

// UnmarshalCBOR reads what MarshalCBOR writes and nothing else.
func (a *Int) UnmarshalCBOR(b []byte) error {
	if len(b) == 0 || int(b[0]) != cborBytes|(len(b)-1) || len(b)-1 > maxBytes {
		return fmt.Errorf("%w: CBOR", ErrSyntax)
	}
	v, err := FromBytes(b[1:])
	if err != nil {
		return err
	}
	*a = v
	return nil
}

// MarshalText writes the decimal text: JSON shows amounts as strings, because
// its readers lose digits of larger numbers.
func (a Int) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (a *Int) UnmarshalText(b []byte) error {
	v, err := Parse(string(b))
	if err != nil {
		return err
	}
	*a = v
	return nil
}

func (a Int) wide() uint256.Int { return uint256.Int{a.lo, a.hi, 0, 0} }

// Wide returns a as a Wide.
func (a Int) Wide() Wide { return Wide{a.wide()} }
