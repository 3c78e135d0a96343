package tss

import (
	"bytes"
	"math/big"

	"github.com/bnb-chain/tss-lib/v2/crypto/dlnproof"
	"github.com/bnb-chain/tss-lib/v2/crypto/facproof"
	"github.com/bnb-chain/tss-lib/v2/crypto/modproof"
	"github.com/bnb-chain/tss-lib/v2/crypto/paillier"
	"github.com/bnb-chain/tss-lib/v2/ecdsa/keygen"
)

const (
	ecdsaKeygenURL = "type.googleapis.com/binance.tsslib.ecdsa.keygen."
	// modulusBits of every Paillier N and NTilde.
	modulusBits = 2048
	// smallFactorLimit: no modulus has a factor below it.
	smallFactorLimit = 1 << 16
)

// ecdsaKeygenRules are the messages of GG18 keygen and their checks, K1–K8.
func ecdsaKeygenRules() []*rule {
	return []*rule{
		{name: "K1", url: ecdsaKeygenURL + "KGRound1Message", round: 1, broadcast: true, limit: limitLarge,
			check: check(checkKeygenR1)},
		{name: "K2p", url: ecdsaKeygenURL + "KGRound2Message1", round: 2, check: check(checkKeygenR2P2P)},
		{name: "K2", url: ecdsaKeygenURL + "KGRound2Message2", round: 2, broadcast: true, check: check(checkKeygenR2)},
		{name: "K3", url: ecdsaKeygenURL + "KGRound3Message", round: 3, broadcast: true,
			check: check(func(g *guard, from int, m *keygen.KGRound3Message) error {
				proof := m.GetPaillierProof()
				if len(proof) != paillier.ProofIters {
					return violate("K8", "Paillier proof of %d parts", len(proof))
				}
				_, err := numbers("K8", "Paillier proof", proof, one, below(g.paillier[from]))
				return err
			})},
	}
}

// auditModulus is the stateless part of K1.
func auditModulus(name string, n *big.Int) error {
	if n.BitLen() != modulusBits || n.Bit(0) == 0 {
		return violate("K1", "%s is not odd and of %d bits", name, modulusBits)
	}
	if hasSmallFactor(n) {
		return violate("K1", "%s has a small factor", name)
	}
	if root := new(big.Int).Sqrt(n); new(big.Int).Mul(root, root).Cmp(n) == 0 {
		return violate("K1", "%s is a square", name)
	}
	if n.ProbablyPrime(10) {
		return violate("K1", "%s is prime", name)
	}
	return nil
}

// hasSmallFactor divides by every odd number below the limit; composites cost
// little beside one exponentiation.
func hasSmallFactor(n *big.Int) bool {
	var rem, d big.Int
	for f := uint64(3); f < smallFactorLimit; f += 2 {
		if rem.Mod(n, d.SetUint64(f)).Sign() == 0 {
			return true
		}
	}
	return false
}

// checkKeygenR1 is K1 and K2: the moduli a party will be attacked or attack
// with for the life of the key.
func checkKeygenR1(g *guard, from int, m *keygen.KGRound1Message) error {
	if err := g.commitment("A2", "K1", from, m.GetCommitment()); err != nil {
		return err
	}
	return g.moduli(from, m)
}

// moduliMessage is what keygen and resharing publish alike.
type moduliMessage interface {
	GetPaillierN() []byte
	GetNTilde() []byte
	GetH1() []byte
	GetH2() []byte
	GetDlnproof_1() [][]byte
	GetDlnproof_2() [][]byte
}

func (g *guard) moduli(from int, m moduliMessage) error {
	top := below(new(big.Int).Lsh(one, modulusBits))
	n, err := number("K1", "N", m.GetPaillierN(), one, top)
	if err != nil {
		return err
	}
	nt, err := number("K1", "NTilde", m.GetNTilde(), one, top)
	if err != nil {
		return err
	}
	if err := auditModulus("N", n); err != nil {
		return err
	}
	if err := auditModulus("NTilde", nt); err != nil {
		return err
	}
	if n.Cmp(nt) == 0 {
		return violate("K1", "N and NTilde are equal")
	}
	if g.stored[string(n.Bytes())] || g.stored[string(nt.Bytes())] {
		return violate("K1", "modulus of a stored epoch")
	}
	for j := range g.paillier {
		for _, other := range []*big.Int{g.paillier[j], g.nTilde[j]} {
			if j != from && other != nil && (other.Cmp(n) == 0 || other.Cmp(nt) == 0) {
				return violate("K1", "modulus of another party")
			}
		}
	}
	if err := auditBases(nt, m.GetH1(), m.GetH2()); err != nil {
		return err
	}
	for _, proof := range [][][]byte{m.GetDlnproof_1(), m.GetDlnproof_2()} {
		if err := checkDLN(proof, nt, top); err != nil {
			return err
		}
	}
	g.paillier[from], g.nTilde[from] = n, nt
	return nil
}

// auditBases is the stateless part of K2.
func auditBases(nTilde *big.Int, h1, h2 []byte) error {
	hi := new(big.Int).Sub(nTilde, two)
	hs, err := numbers("K2", "h", [][]byte{h1, h2}, two, hi)
	if err != nil {
		return err
	}
	if hs[0].Cmp(hs[1]) == 0 {
		return violate("K2", "h1 and h2 are equal")
	}
	if err := units("K2", "h", nTilde, hs...); err != nil {
		return err
	}
	if big.Jacobi(hs[0], nTilde) != 1 || big.Jacobi(hs[1], nTilde) != 1 {
		return violate("K2", "h is not of Jacobi symbol 1")
	}
	return nil
}

// checkDLN is the second half of K2. The library reads the two length prefixes
// as signed numbers and slices with them in a goroutine of its own.
func checkDLN(parts [][]byte, nTilde, top *big.Int) error {
	const k = dlnproof.Iterations
	if len(parts) != 2+2*k {
		return violate("K2", "DLN proof of %d parts", len(parts))
	}
	prefix := big.NewInt(k).Bytes()
	if !bytes.Equal(parts[0], prefix) || !bytes.Equal(parts[1+k], prefix) {
		return violate("K2", "DLN proof with a wrong length prefix")
	}
	alphas, err := numbers("K2", "DLN alpha", parts[1:1+k], two, below(nTilde))
	if err != nil {
		return err
	}
	if err := units("K2", "DLN alpha", nTilde, alphas...); err != nil {
		return err
	}
	_, err = numbers("K2", "DLN t", parts[2+k:], one, top)
	return err
}

// checkKeygenR2P2P is K5 and K4. A share that is a multiple of the order makes
// the library multiply to the identity and panic.
func checkKeygenR2P2P(g *guard, from int, m *keygen.KGRound2Message1) error {
	if _, err := g.scalar("K5", "share", m.GetShare()); err != nil {
		return err
	}
	return g.facProof(from, m.GetFacProof())
}

// facProof is K4.
func (g *guard) facProof(from int, proof [][]byte) error {
	if len(proof) != facproof.ProofFacBytesParts {
		return violate("K4", "fac proof of %d parts", len(proof))
	}
	nt := g.nTilde[g.self]
	// P, Q, A, B, T are residues mod our NTilde; sigma, z, w and v are bounded
	// by their published ranges, the largest being 2·q³·N·NTilde.
	if xs, err := numbers("K4", "fac proof residue", proof[:5], one, below(nt)); err != nil {
		return err
	} else if err := units("K4", "fac proof residue", nt, xs...); err != nil {
		return err
	}
	q3 := new(big.Int).Exp(g.order, big.NewInt(3), nil)
	n := g.paillier[from]
	root := new(big.Int).Sqrt(n)
	widest := g.proofBound(nt)
	widest.Mul(widest, n)
	zBound := below(new(big.Int).Mul(q3, root))
	wBound := g.proofBound(nt)
	for i, hi := range []*big.Int{widest, zBound, zBound, wBound, wBound, widest} {
		if _, err := number("K4", "fac proof integer", proof[5+i], one, hi); err != nil {
			return err
		}
	}
	return nil
}

// checkKeygenR2 is K6, K7 and K3. A short decommitment is an index out of range
// in a goroutine of the library; a mod proof with gcd(W, N) ≠ 1 is accepted by
// it for a modulus of small factors.
func checkKeygenR2(g *guard, from int, m *keygen.KGRound2Message2) error {
	if err := g.polynomial("K6", "K1", from, m.GetDeCommitment()); err != nil {
		return err
	}
	return g.modProof(from, m.GetModProof())
}

// modProof is K3.
func (g *guard) modProof(from int, proof [][]byte) error {
	const k = modproof.Iterations
	if len(proof) != modproof.ProofModBytesParts {
		return violate("K3", "mod proof of %d parts", len(proof))
	}
	n := g.paillier[from]
	w, err := number("K3", "W", proof[0], one, below(n))
	if err != nil {
		return err
	}
	if big.Jacobi(w, n) != -1 {
		return violate("K3", "W is not of Jacobi symbol -1")
	}
	xs, err := numbers("K3", "X", proof[1:1+k], one, below(n))
	if err != nil {
		return err
	}
	zs, err := numbers("K3", "Z", proof[3+k:], one, below(n))
	if err != nil {
		return err
	}
	if err := units("K3", "X, Z", n, append(xs, zs...)...); err != nil {
		return err
	}
	lo, hi := new(big.Int).Lsh(one, k), below(new(big.Int).Lsh(one, k+1))
	_, err = numbers("K3", "A, B", proof[1+k:3+k], lo, hi)
	return err
}

// polynomial checks a decommitted Feldman commitment: m points that open the
// commitment and are no copy of another party's.
func (g *guard) polynomial(check, rule string, from int, parts [][]byte) error {
	if err := g.opens(check, rule, from, g.m, parts); err != nil {
		return err
	}
	whole := string(bytes.Join(parts[1:], []byte{0}))
	for j, other := range g.opened {
		if j != from && other == whole {
			return violate("K7", "polynomial of another party")
		}
	}
	g.opened[from] = whole
	return nil
}
