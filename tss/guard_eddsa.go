package tss

import (
	"crypto/sha512"
	"math/big"

	"filippo.io/edwards25519"
	"github.com/bnb-chain/tss-lib/v2/crypto"
	"github.com/bnb-chain/tss-lib/v2/eddsa/keygen"
	"github.com/bnb-chain/tss-lib/v2/eddsa/signing"
)

const (
	eddsaKeygenURL = "type.googleapis.com/binance.tsslib.eddsa.keygen."
	eddsaSignURL   = "type.googleapis.com/binance.tsslib.eddsa.signing."
)

// eddsaKeygenRules are the messages of Ed25519 keygen and their checks, D1–D3.
func eddsaKeygenRules() []*rule {
	return []*rule{
		{name: "E1", url: eddsaKeygenURL + "KGRound1Message", round: 1, broadcast: true,
			check: check(func(g *guard, from int, m *keygen.KGRound1Message) error {
				return g.commitment("D1", "E1", from, m.GetCommitment())
			})},
		{name: "E2p", url: eddsaKeygenURL + "KGRound2Message1", round: 2,
			check: check(func(g *guard, _ int, m *keygen.KGRound2Message1) error {
				_, err := g.scalar("D2", "share", m.GetShare())
				return err
			})},
		{name: "E2", url: eddsaKeygenURL + "KGRound2Message2", round: 2, broadcast: true,
			check: check(func(g *guard, from int, m *keygen.KGRound2Message2) error {
				if err := g.polynomial("D3", "E1", from, m.GetDeCommitment()); err != nil {
					return err
				}
				return g.schnorr("D3", m.GetProofAlphaX(), m.GetProofAlphaY(), m.GetProofT())
			})},
	}
}

// eddsaSignRules are the messages of Ed25519 signing and their checks, D1, D4
// and D5.
func eddsaSignRules() []*rule {
	return []*rule{
		{name: "D1", url: eddsaSignURL + "SignRound1Message", round: 1, broadcast: true,
			check: check(func(g *guard, from int, m *signing.SignRound1Message) error {
				return g.commitment("D1", "D1", from, m.GetCommitment())
			})},
		{name: "D2", opens: "D1", url: eddsaSignURL + "SignRound2Message", round: 2, broadcast: true,
			check: check(func(g *guard, from int, m *signing.SignRound2Message) error {
				if err := g.opens("D4", "D1", from, 1, m.GetDeCommitment()); err != nil {
					return err
				}
				if err := g.schnorr("D4", m.GetProofAlphaX(), m.GetProofAlphaY(), m.GetProofT()); err != nil {
					return err
				}
				return g.parts.nonce(from, m)
			})},
		{name: "D3", url: eddsaSignURL + "SignRound3Message", round: 3, broadcast: true,
			check: check(func(g *guard, from int, m *signing.SignRound3Message) error {
				// Zero has no bytes and the library refuses it, so 1 is the least.
				s, err := number("D5", "s", m.GetS(), one, below(g.order))
				if err != nil {
					return err
				}
				return g.parts.verify(from, s)
			})},
	}
}

// eddsaParts is what each party's part of a signature must fit (D5). The library
// adds the parts up, finds that the sum does not verify, and names nobody.
type eddsaParts struct {
	self    int
	pub     []byte                // A, the key that signs
	message []byte                // M
	shares  []*edwards25519.Point // lambda_i·X_i
	nonces  []*edwards25519.Point // R_i
}

func newEdDSAParts(r Request, self int, keys []*big.Int, bigXj []*crypto.ECPoint, pub *crypto.ECPoint) (*eddsaParts, error) {
	p := &eddsaParts{self: self, pub: compressed(Ed25519, pub), message: r.Digest, nonces: make([]*edwards25519.Point, len(keys))}
	for i, x := range bigXj {
		w, err := lagrange(keys, i, curveOrder(Ed25519))
		if err != nil {
			return nil, err
		}
		point, err := new(edwards25519.Point).SetBytes(edwardsBytes(x.X(), x.Y()))
		if err != nil {
			return nil, errShare
		}
		p.shares = append(p.shares, point.ScalarMult(scalarOf(w), point))
	}
	return p, nil
}

// scalarOf takes an integer below the order.
func scalarOf(x *big.Int) *edwards25519.Scalar {
	return must(new(edwards25519.Scalar).SetCanonicalBytes(reversed(x.FillBytes(make([]byte, 32)))))
}

// nonce remembers a party's R_i; the guard has checked that it is a point.
func (p *eddsaParts) nonce(from int, m *signing.SignRound2Message) error {
	if p == nil {
		return nil // a judge has no session to remember it for
	}
	parts := m.GetDeCommitment()
	if len(parts) != 3 {
		return violate("D4", "decommitment of %d parts", len(parts))
	}
	x, y := new(big.Int).SetBytes(parts[1]), new(big.Int).SetBytes(parts[2])
	r, err := new(edwards25519.Point).SetBytes(edwardsBytes(x, y))
	if err != nil {
		return violate("D4", "R is not a point of the group")
	}
	p.nonces[from] = r
	return nil
}

// verify checks s_i·B == R_i + c·lambda_i·X_i with c = SHA-512(R ‖ A ‖ M). A
// part that fails is known to be wrong to the parties of the session alone, who
// have R: they suspect its sender and accuse nobody.
func (p *eddsaParts) verify(from int, s *big.Int) error {
	if p == nil {
		return nil
	}
	sum := edwards25519.NewIdentityPoint()
	for _, r := range p.nonces {
		if r == nil {
			return violate("D5", "s before all R")
		}
		sum.Add(sum, r)
	}
	h := sha512.New()
	h.Write(sum.Bytes())
	h.Write(p.pub)
	h.Write(p.message)
	c := must(new(edwards25519.Scalar).SetUniformBytes(h.Sum(nil)))
	want := new(edwards25519.Point).ScalarMult(c, p.shares[from])
	want.Add(want, p.nonces[from])
	if new(edwards25519.Point).ScalarBaseMult(scalarOf(s)).Equal(want) != 1 {
		return &violation{check: "D5", detail: "part of the signature is not the share's", local: true}
	}
	return nil
}
