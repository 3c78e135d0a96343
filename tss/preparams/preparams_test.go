package preparams

import (
	"context"
	"errors"
	"math/big"
	"testing"

	"github.com/bnb-chain/tss-lib/v2/crypto/dlnproof"
	"github.com/bnb-chain/tss-lib/v2/crypto/modproof"
	"github.com/bnb-chain/tss-lib/v2/ecdsa/keygen"

	"crypto/rand"
)

// A set from the sieve must pass the very proofs the library makes and checks.
func TestGenerateIsWhatTheLibraryExpects(t *testing.T) {
	var calls []int
	pp, err := Generate(context.Background(), 2, func(found, want int) {
		if want != 4 {
			t.Errorf("progress wants %d primes", want)
		}
		calls = append(calls, found)
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(calls) < 4 || calls[3] != 4 {
		t.Errorf("progress reported %v", calls)
	}
	for name, q := range map[string]*big.Int{
		"NTilde P": pp.P, "NTilde Q": pp.Q,
		"Paillier P": new(big.Int).Rsh(pp.PaillierSK.P, 1), "Paillier Q": new(big.Int).Rsh(pp.PaillierSK.Q, 1),
	} {
		if p := safe(q); !q.ProbablyPrime(20) || !p.ProbablyPrime(20) || p.BitLen() != 1024 || p.Bit(1022) != 1 {
			t.Errorf("%s: not half of a 1024-bit safe prime with both top bits set", name)
		}
	}
	proof := dlnproof.NewDLNProof(pp.H1i, pp.H2i, pp.Alpha, pp.P, pp.Q, pp.NTildei, rand.Reader)
	if !proof.Verify(pp.H1i, pp.H2i, pp.NTildei) {
		t.Error("the library refuses a DLN proof made with the set")
	}
	sk := pp.PaillierSK
	mod, err := modproof.NewProof([]byte("s"), sk.N, sk.P, sk.Q, rand.Reader)
	if err != nil || !mod.Verify([]byte("s"), sk.N) {
		t.Error("the library refuses a mod proof made with the set")
	}

	for name, spoil := range map[string]func(*keygen.LocalPreParams){
		"alpha":  func(p *keygen.LocalPreParams) { p.Alpha = new(big.Int).Add(p.Alpha, one) },
		"beta":   func(p *keygen.LocalPreParams) { p.Beta = new(big.Int).Add(p.Beta, one) },
		"ntilde": func(p *keygen.LocalPreParams) { p.NTildei = p.PaillierSK.N },
		"short":  func(p *keygen.LocalPreParams) { p.NTildei = new(big.Int).Rsh(p.NTildei, 1) },
		"none":   func(p *keygen.LocalPreParams) { p.Q = nil },
	} {
		bad := *pp
		spoil(&bad)
		if Validate(&bad) == nil {
			t.Errorf("%s: a spoilt set is valid", name)
		}
	}
}

func TestGenerateEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Generate(ctx, 2, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
}

// The sieve must strike exactly the candidates that have a small factor.
func TestStrike(t *testing.T) {
	s := newSieve(64)
	q0, err := s.start()
	if err != nil {
		t.Fatal(err)
	}
	s.strike(q0)
	var rem big.Int
	for k := range 300 {
		q := new(big.Int).Add(q0, big.NewInt(int64(2*k)))
		want := false
		for _, r := range s.primes {
			m := big.NewInt(int64(r))
			if rem.Mod(q, m).Sign() == 0 || rem.Mod(safe(q), m).Sign() == 0 {
				want = true
				break
			}
		}
		if s.struck[k] != want {
			t.Fatalf("candidate %d struck: %t, want %t", k, s.struck[k], want)
		}
	}
}

// Two primes too close for a Paillier modulus are not thrown away; one more is
// drawn and any pair counts.
func TestChooseKeepsWhatItHas(t *testing.T) {
	base := new(big.Int).Lsh(big.NewInt(3), 1022)
	near := func(d int64) *big.Int { return new(big.Int).Add(base, big.NewInt(d)) }
	ps := []*big.Int{near(1), near(2), near(3), near(4)}
	if _, ok := choose(ps); ok {
		t.Fatal("chose a Paillier pair from four neighbours")
	}
	far := new(big.Int).Add(base, new(big.Int).Lsh(one, 1021))
	got, ok := choose(append(ps, far))
	if !ok || len(got) != 4 || got[0].Cmp(ps[0]) != 0 || got[1].Cmp(far) != 0 {
		t.Fatalf("one wide prime more does not help: %v", ok)
	}
}

// BenchmarkCompare runs both generators in turn in one process. The limit of
// spec signing §5: mean of 8 sets at most a quarter of the library's.
func BenchmarkCompare(b *testing.B) {
	for b.Loop() {
		c, err := Compare(context.Background(), 8, 2)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(mean(c.Ours), "cpu-s/ours")
		b.ReportMetric(mean(c.Library), "cpu-s/library")
		b.ReportMetric(c.Ratio, "ratio")
		if c.Ratio > 0.25 {
			b.Errorf("ours ÷ library = %.2f, limit 0.25", c.Ratio)
		}
	}
}
