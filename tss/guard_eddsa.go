package tss

import (
	"math/big"

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
// and the range of D5.
func eddsaSignRules() []*rule {
	return []*rule{
		{name: "D1", url: eddsaSignURL + "SignRound1Message", round: 1, broadcast: true,
			check: check(func(g *guard, from int, m *signing.SignRound1Message) error {
				return g.commitment("D1", "D1", from, m.GetCommitment())
			})},
		{name: "D2", url: eddsaSignURL + "SignRound2Message", round: 2, broadcast: true,
			check: check(func(g *guard, from int, m *signing.SignRound2Message) error {
				if err := g.opens("D4", "D1", from, 1, m.GetDeCommitment()); err != nil {
					return err
				}
				return g.schnorr("D4", m.GetProofAlphaX(), m.GetProofAlphaY(), m.GetProofT())
			})},
		{name: "D3", url: eddsaSignURL + "SignRound3Message", round: 3, broadcast: true,
			check: check(func(g *guard, _ int, m *signing.SignRound3Message) error {
				// Zero has no bytes and the library refuses it, so 1 is the least.
				_, err := number("D5", "s", m.GetS(), big.NewInt(1), below(g.order))
				return err
			})},
	}
}
