package preparams

import (
	"context"
	"crypto/rand"
	"fmt"
	"math/big"
)

const (
	// window is how many candidates q0 + 2k are sieved at once. Two safe
	// primes of one window would be close to each other, so a window gives one.
	window = 1 << 14
	// sieveLimit: striking multiples of all primes below it leaves about one
	// candidate in 130; a larger table costs more per window than it saves.
	sieveLimit = 1 << 16
	// millerRabinRounds of ProbablyPrime on the survivor of both Fermat tests.
	millerRabinRounds = 30
)

// sieve searches safe primes p = 2q+1 of an exact bit length. It belongs to
// one goroutine.
type sieve struct {
	bits   int
	primes []uint32 // odd primes below sieveLimit
	struck []bool   // struck[k]: q0+2k or 2(q0+2k)+1 has a small factor
}

func newSieve(bits int) *sieve {
	return &sieve{bits: bits, primes: oddPrimes(sieveLimit), struck: make([]bool, window)}
}

func oddPrimes(limit int) []uint32 {
	composite := make([]bool, limit)
	var ps []uint32
	for i := 3; i < limit; i += 2 {
		if composite[i] {
			continue
		}
		ps = append(ps, uint32(i))
		for j := i * i; j < limit; j += 2 * i {
			composite[j] = true
		}
	}
	return ps
}

// safePrime returns p = 2q+1 with p and q prime and the two top bits of p set.
// It ends with ctx's error if ctx ends first.
func (s *sieve) safePrime(ctx context.Context) (*big.Int, error) {
	for {
		q0, err := s.start()
		if err != nil {
			return nil, err
		}
		s.strike(q0)
		p, err := s.test(ctx, q0)
		if p != nil || err != nil {
			return p, err
		}
	}
}

// start draws an odd q0 of bits-1 bits with its two top bits set.
func (s *sieve) start() (*big.Int, error) {
	b := make([]byte, (s.bits+7)/8)
	if _, err := rand.Read(b); err != nil {
		return nil, fmt.Errorf("draw a sieve window: %w", err)
	}
	q0 := new(big.Int).SetBytes(b)
	q0.Rsh(q0, uint(len(b)*8-(s.bits-1)))
	q0.SetBit(q0, s.bits-2, 1)
	q0.SetBit(q0, s.bits-3, 1)
	return q0.SetBit(q0, 0, 1), nil
}

// strike marks each k for which a small prime r divides q0+2k or 2(q0+2k)+1:
// two arithmetic progressions of step r.
func (s *sieve) strike(q0 *big.Int) {
	clear(s.struck)
	var rem, mod big.Int
	for _, r32 := range s.primes {
		r := uint64(r32)
		m := rem.Mod(q0, mod.SetUint64(r)).Uint64()
		half := (r + 1) / 2                       // inverse of 2 mod r
		divQ := (r - m) % r * half % r            // q0+2k ≡ 0
		divP := (r - half + r - m) % r * half % r // q0+2k ≡ -1/2
		for k := divQ; k < window; k += r {
			s.struck[k] = true
		}
		for k := divP; k < window; k += r {
			s.struck[k] = true
		}
	}
}

// test returns the window's first safe prime, or nil if it holds none. A
// base-2 Fermat test throws out nearly every composite at the price of one
// exponentiation; only what passes both gets the full test.
func (s *sieve) test(ctx context.Context, q0 *big.Int) (*big.Int, error) {
	var exp, e big.Int
	for k, struck := range s.struck {
		if struck {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		q := e.SetUint64(uint64(2 * k))
		q = new(big.Int).Add(q0, q)
		if exp.Exp(two, e.Sub(q, one), q).Cmp(one) != 0 {
			continue
		}
		p := safe(q)
		if exp.Exp(two, e.Sub(p, one), p).Cmp(one) != 0 {
			continue
		}
		if p.BitLen() == s.bits && q.ProbablyPrime(millerRabinRounds) && p.ProbablyPrime(millerRabinRounds) {
			return p, nil
		}
	}
	return nil, nil
}
