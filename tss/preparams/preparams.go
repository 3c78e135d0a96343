package preparams

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"runtime"
	"sync"

	"github.com/bnb-chain/tss-lib/v2/crypto/paillier"
	"github.com/bnb-chain/tss-lib/v2/ecdsa/keygen"
)

const (
	// primeBits makes both moduli exactly 2048 bits, since both top bits of
	// every prime are set.
	primeBits = 1024
	// primesWanted: two for the Paillier modulus, two for NTilde.
	primesWanted = 4
	// minPaillierGap is the bit length of |P-Q| the library asks for against
	// square-root attacks, |P-Q| ≥ 2^1020.
	minPaillierGap = primeBits - 3
	// maxPrimes bounds the search for a pair far enough apart: that any one
	// prime more does not help has probability below 1/2.
	maxPrimes = 64
)

var one, two = big.NewInt(1), big.NewInt(2)

// Generate returns one fresh set of pre-parameters, using workers goroutines
// (GOMAXPROCS if workers < 1). progress, if not nil, is told after each prime
// how many of how many are found; it runs on Generate's goroutine.
func Generate(ctx context.Context, workers int, progress func(found, want int)) (*keygen.LocalPreParams, error) {
	if workers < 1 {
		workers = runtime.GOMAXPROCS(0)
	}
	search, stop := context.WithCancel(ctx)
	found := make(chan *big.Int)
	var wg sync.WaitGroup
	var workerErr error
	var once sync.Once
	for range workers {
		wg.Go(func() {
			s := newSieve(primeBits)
			for {
				p, err := s.safePrime(search)
				if err != nil {
					if search.Err() == nil {
						once.Do(func() { workerErr = err; stop() })
					}
					return
				}
				select {
				case found <- p:
				case <-search.Done():
					return
				}
			}
		})
	}
	// Workers end before Generate does: a search that outlives its caller is
	// CPU nobody asked for.
	defer wg.Wait()
	defer stop()

	var primes []*big.Int
	for {
		select {
		case p := <-found:
			if contains(primes, p) {
				continue
			}
			primes = append(primes, p)
		case <-search.Done():
			stop()
			wg.Wait()
			if workerErr != nil {
				return nil, fmt.Errorf("search safe primes: %w", workerErr)
			}
			return nil, fmt.Errorf("search safe primes: %w", ctx.Err())
		}
		if progress != nil {
			progress(min(len(primes), primesWanted), primesWanted)
		}
		if len(primes) < primesWanted {
			continue
		}
		if ordered, ok := choose(primes); ok {
			return assemble(ordered)
		}
		if len(primes) >= maxPrimes {
			return nil, fmt.Errorf("no two of %d primes are 2^%d apart", len(primes), minPaillierGap-1)
		}
	}
}

func contains(ps []*big.Int, p *big.Int) bool {
	for _, x := range ps {
		if x.Cmp(p) == 0 {
			return true
		}
	}
	return false
}

// choose puts a Paillier pair in front and two others behind it. When no pair
// is wide enough the caller draws one prime more and keeps all it has: the
// library throws both away, which doubles its cost.
func choose(ps []*big.Int) ([]*big.Int, bool) {
	for i := range ps {
		for j := i + 1; j < len(ps); j++ {
			if new(big.Int).Sub(ps[i], ps[j]).BitLen() < minPaillierGap {
				continue
			}
			out := []*big.Int{ps[i], ps[j]}
			for k := range ps {
				if k != i && k != j {
					out = append(out, ps[k])
				}
			}
			return out[:primesWanted], true
		}
	}
	return nil, false
}

// assemble fills the library's struct from four safe primes, the first two of
// which become the Paillier modulus.
func assemble(ps []*big.Int) (*keygen.LocalPreParams, error) {
	p, q := ps[0], ps[1]
	p1, q1 := new(big.Int).Sub(p, one), new(big.Int).Sub(q, one)
	phi := new(big.Int).Mul(p1, q1)
	lambda := new(big.Int).Div(phi, new(big.Int).GCD(nil, nil, p1, q1))

	safeP, safeQ := ps[2], ps[3]
	halfP, halfQ := new(big.Int).Rsh(safeP, 1), new(big.Int).Rsh(safeQ, 1)
	nTilde := new(big.Int).Mul(safeP, safeQ)
	order := new(big.Int).Mul(halfP, halfQ) // of the squares mod NTilde

	f, err := randomUnit(nTilde)
	if err != nil {
		return nil, err
	}
	h1 := new(big.Int).Exp(f, two, nTilde)
	var alpha, beta *big.Int
	for beta == nil { // not invertible with probability about 2^-1022
		if alpha, err = randomUnit(nTilde); err != nil {
			return nil, err
		}
		beta = new(big.Int).ModInverse(alpha, order)
	}
	out := &keygen.LocalPreParams{
		PaillierSK: &paillier.PrivateKey{
			PublicKey: paillier.PublicKey{N: new(big.Int).Mul(p, q)},
			LambdaN:   lambda, PhiN: phi, P: p, Q: q,
		},
		NTildei: nTilde,
		H1i:     h1,
		H2i:     new(big.Int).Exp(h1, alpha, nTilde),
		Alpha:   alpha, Beta: beta,
		P: halfP, Q: halfQ,
	}
	if err := Validate(out); err != nil {
		return nil, fmt.Errorf("made unusable pre-parameters: %w", err)
	}
	return out, nil
}

// Validate refuses a set that a keygen would fail with, or leak from. It is
// run on every fresh set and again on what comes out of storage.
func Validate(pp *keygen.LocalPreParams) error {
	if pp == nil || !pp.ValidateWithProof() {
		return errors.New("pre-parameters incomplete")
	}
	sk := pp.PaillierSK
	switch {
	case sk.N == nil || sk.N.BitLen() != 2*primeBits || pp.NTildei.BitLen() != 2*primeBits:
		return fmt.Errorf("moduli are not %d bits", 2*primeBits)
	case new(big.Int).Mul(sk.P, sk.Q).Cmp(sk.N) != 0:
		return errors.New("the Paillier modulus is not P·Q")
	case new(big.Int).Sub(sk.P, sk.Q).BitLen() < minPaillierGap:
		return errors.New("the Paillier primes are too close")
	case new(big.Int).Mul(safe(pp.P), safe(pp.Q)).Cmp(pp.NTildei) != 0:
		return errors.New("NTilde is not (2P+1)(2Q+1)")
	case sk.N.Cmp(pp.NTildei) == 0:
		return errors.New("one modulus serves for both")
	case new(big.Int).Exp(pp.H1i, pp.Alpha, pp.NTildei).Cmp(pp.H2i) != 0:
		return errors.New("h2 is not h1^alpha")
	case new(big.Int).Exp(pp.H2i, pp.Beta, pp.NTildei).Cmp(pp.H1i) != 0:
		return errors.New("h1 is not h2^beta")
	}
	return nil
}

// safe returns 2q+1.
func safe(q *big.Int) *big.Int {
	p := new(big.Int).Lsh(q, 1)
	return p.Add(p, one)
}

// randomUnit draws from the invertible residues mod n.
func randomUnit(n *big.Int) (*big.Int, error) {
	for {
		x, err := rand.Int(rand.Reader, n)
		if err != nil {
			return nil, fmt.Errorf("draw a random unit: %w", err)
		}
		if x.Sign() > 0 && new(big.Int).GCD(nil, nil, x, n).Cmp(one) == 0 {
			return x, nil
		}
	}
}
