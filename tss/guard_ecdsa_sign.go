package tss

import (
	"math/big"

	"github.com/bnb-chain/tss-lib/v2/crypto/mta"
	"github.com/bnb-chain/tss-lib/v2/ecdsa/signing"
)

const ecdsaSignURL = "type.googleapis.com/binance.tsslib.ecdsa.signing."

// ecdsaSignRules are the messages of GG18 signing and their checks, S1–S10.
func ecdsaSignRules() []*rule {
	return []*rule{
		{name: "S1p", url: ecdsaSignURL + "SignRound1Message1", round: 1, check: check(checkSignR1P2P)},
		{name: "S1", url: ecdsaSignURL + "SignRound1Message2", round: 1, broadcast: true,
			check: check(func(g *guard, from int, m *signing.SignRound1Message2) error {
				return g.commitment("S5", "S1", from, m.GetCommitment())
			})},
		{name: "S2p", url: ecdsaSignURL + "SignRound2Message", round: 2, check: check(checkSignR2)},
		{name: "S3", url: ecdsaSignURL + "SignRound3Message", round: 3, broadcast: true,
			check: check(func(g *guard, _ int, m *signing.SignRound3Message) error {
				_, err := g.scalar("S6", "theta", m.GetTheta())
				return err
			})},
		{name: "S4", opens: "S1", url: ecdsaSignURL + "SignRound4Message", round: 4, broadcast: true,
			check: check(func(g *guard, from int, m *signing.SignRound4Message) error {
				if err := g.opens("S7", "S1", from, 1, m.GetDeCommitment()); err != nil {
					return err
				}
				return g.schnorr("S7", m.GetProofAlphaX(), m.GetProofAlphaY(), m.GetProofT())
			})},
		{name: "S5", url: ecdsaSignURL + "SignRound5Message", round: 5, broadcast: true,
			check: check(func(g *guard, from int, m *signing.SignRound5Message) error {
				return g.commitment("S5", "S5", from, m.GetCommitment())
			})},
		{name: "S6", opens: "S5", url: ecdsaSignURL + "SignRound6Message", round: 6, broadcast: true,
			check: check(func(g *guard, from int, m *signing.SignRound6Message) error {
				if err := g.opens("S8", "S5", from, 2, m.GetDeCommitment()); err != nil {
					return err
				}
				if err := g.schnorr("S8", m.GetProofAlphaX(), m.GetProofAlphaY(), m.GetProofT()); err != nil {
					return err
				}
				return g.schnorr("S8", m.GetVProofAlphaX(), m.GetVProofAlphaY(), m.GetVProofT(), m.GetVProofU())
			})},
		{name: "S7", url: ecdsaSignURL + "SignRound7Message", round: 7, broadcast: true,
			check: check(func(g *guard, from int, m *signing.SignRound7Message) error {
				return g.commitment("S5", "S7", from, m.GetCommitment())
			})},
		{name: "S8", opens: "S7", url: ecdsaSignURL + "SignRound8Message", round: 8, broadcast: true,
			check: check(func(g *guard, from int, m *signing.SignRound8Message) error {
				return g.opens("S9", "S7", from, 2, m.GetDeCommitment())
			})},
		{name: "S9", url: ecdsaSignURL + "SignRound9Message", round: 9, broadcast: true,
			check: check(func(g *guard, _ int, m *signing.SignRound9Message) error {
				_, err := g.scalar("S10", "s", m.GetS())
				return err
			})},
	}
}

// checkSignR1P2P is S1 and S2: the sender's ciphertext and its range proof
// against our NTilde. A ciphertext sharing a factor with N makes the library
// compute with a nil inverse.
func checkSignR1P2P(g *guard, from int, m *signing.SignRound1Message1) error {
	n, nt := g.paillier[from], g.nTilde[g.self]
	nn := new(big.Int).Mul(n, n)
	c, err := number("S1", "ciphertext", m.GetC(), one, below(nn))
	if err != nil {
		return err
	}
	if err := units("S1", "ciphertext", n, c); err != nil {
		return err
	}
	parts := m.GetRangeProofAlice()
	if len(parts) != mta.RangeProofAliceBytesParts {
		return violate("S2", "range proof of %d parts", len(parts))
	}
	q, q3 := g.order, new(big.Int).Exp(g.order, big.NewInt(3), nil)
	ranges := []struct {
		name   string
		lo, hi *big.Int
	}{
		{"Z", g.least, below(nt)}, {"U", two, below(nn)}, {"W", g.least, below(nt)},
		{"S", two, below(n)}, {"S1", q, q3}, {"S2", q, g.proofBound(nt)},
	}
	x := make([]*big.Int, len(ranges))
	for i, r := range ranges {
		if x[i], err = number("S2", r.name, parts[i], r.lo, r.hi); err != nil {
			return err
		}
	}
	if err := units("S2", "Z, W", nt, x[0], x[2]); err != nil {
		return err
	}
	if err := units("S2", "U, S", n, x[1], x[3]); err != nil {
		return err
	}
	if new(big.Int).Mod(x[4], q).Sign() == 0 || x[4].Cmp(x[5]) == 0 {
		return violate("S2", "S1 is degenerate")
	}
	return nil
}

// proofBound is 2·q³·NTilde, the most an honest prover reaches.
func (g *guard) proofBound(nTilde *big.Int) *big.Int {
	b := new(big.Int).Exp(g.order, big.NewInt(3), nil)
	return b.Mul(b, nTilde).Lsh(b, 1)
}

// checkSignR2 is S3 and S4: two ciphertexts under our key and two proofs
// against our NTilde.
func checkSignR2(g *guard, _ int, m *signing.SignRound2Message) error {
	n := g.paillier[g.self]
	nn := new(big.Int).Mul(n, n)
	cs, err := numbers("S3", "ciphertext", [][]byte{m.GetC1(), m.GetC2()}, one, below(nn))
	if err != nil {
		return err
	}
	if err := units("S3", "ciphertext", n, cs...); err != nil {
		return err
	}
	if cs[0].Cmp(cs[1]) == 0 {
		return violate("S3", "both ciphertexts are equal")
	}
	bob, wc := m.GetProofBob(), m.GetProofBobWc()
	if len(bob) != mta.ProofBobBytesParts || len(wc) != mta.ProofBobWCBytesParts {
		return violate("S4", "proofs of %d and %d parts", len(bob), len(wc))
	}
	if err := g.proofBob(bob, nn); err != nil {
		return err
	}
	if err := g.proofBob(wc[:mta.ProofBobBytesParts], nn); err != nil {
		return err
	}
	return g.point("S4", "U", wc[10], wc[11])
}

func (g *guard) proofBob(parts [][]byte, nn *big.Int) error {
	n, nt := g.paillier[g.self], g.nTilde[g.self]
	q := g.order
	q3 := new(big.Int).Exp(q, big.NewInt(3), nil)
	q7 := new(big.Int).Exp(q, big.NewInt(7), nil)
	s2 := g.proofBound(nt)
	ranges := []struct {
		name   string
		lo, hi *big.Int
	}{
		{"Z", g.least, below(nt)}, {"ZPrm", g.least, below(nt)}, {"T", g.least, below(nt)}, {"V", g.least, below(nn)},
		{"W", g.least, below(nt)}, {"S", g.least, below(n)},
		{"S1", q, q3}, {"S2", q, s2}, {"T1", q, q7}, {"T2", q, s2},
	}
	x := make([]*big.Int, len(ranges))
	for i, r := range ranges {
		var err error
		if x[i], err = number("S4", r.name, parts[i], r.lo, r.hi); err != nil {
			return err
		}
	}
	if err := units("S4", "Z, ZPrm, T, W", nt, x[0], x[1], x[2], x[4]); err != nil {
		return err
	}
	if err := units("S4", "V, S", n, x[3], x[5]); err != nil {
		return err
	}
	// The library multiplies G by S1 mod q and panics at the identity.
	if new(big.Int).Mod(x[6], q).Sign() == 0 {
		return violate("S4", "S1 is a multiple of the order")
	}
	return nil
}
