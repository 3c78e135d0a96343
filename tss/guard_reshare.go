package tss

import (
	"bytes"
	"math/big"

	"github.com/bnb-chain/tss-lib/v2/crypto"
	ecdsareshare "github.com/bnb-chain/tss-lib/v2/ecdsa/resharing"
	eddsareshare "github.com/bnb-chain/tss-lib/v2/eddsa/resharing"
	"google.golang.org/protobuf/proto"
)

const (
	ecdsaReshareURL = "type.googleapis.com/binance.tsslib.ecdsa.resharing."
	eddsaReshareURL = "type.googleapis.com/binance.tsslib.eddsa.resharing."
	// maxSSID is the length of the library's session value, a SHA-512/256.
	maxSSID = 32
)

// ecdsaReshareRules are the messages of ECDSA resharing and their checks: DG's
// share of K1–K7, and K9–K11.
func ecdsaReshareRules() []*rule {
	return []*rule{
		{name: "R1", url: ecdsaReshareURL + "DGRound1Message", round: 1, broadcast: true, role: dealer, to: receiver,
			check: check(func(g *guard, from int, m *ecdsareshare.DGRound1Message) error {
				if err := g.publicKey("K9", m.GetEcdsaPubX(), m.GetEcdsaPubY()); err != nil {
					return err
				}
				if err := g.sameSSID(m.GetSsid()); err != nil {
					return err
				}
				return g.commitment("A2", "R1", from, m.GetVCommitment())
			})},
		{name: "R2", url: ecdsaReshareURL + "DGRound2Message1", round: 2, broadcast: true, role: receiver, to: receiver, limit: limitLarge,
			check: check(func(g *guard, from int, m *ecdsareshare.DGRound2Message1) error {
				if err := g.moduli(from, m); err != nil {
					return err
				}
				return g.modProof(from, m.GetModProof())
			})},
		{name: "R2a", url: ecdsaReshareURL + "DGRound2Message2", round: 2, broadcast: true, role: receiver, to: dealer, ack: true,
			check: check(func(*guard, int, *ecdsareshare.DGRound2Message2) error { return nil })},
		{name: "R3p", url: ecdsaReshareURL + "DGRound3Message1", round: 3, role: dealer, to: receiver,
			check: check(func(g *guard, _ int, m *ecdsareshare.DGRound3Message1) error {
				_, err := g.scalar("K5", "share", m.GetShare())
				return err
			})},
		{name: "R3", url: ecdsaReshareURL + "DGRound3Message2", round: 3, broadcast: true, role: dealer, to: receiver,
			check: check(func(g *guard, from int, m *ecdsareshare.DGRound3Message2) error {
				return g.dealing("K6", "R1", from, m.GetVDecommitment())
			})},
		{name: "R4p", url: ecdsaReshareURL + "DGRound4Message1", round: 4, role: receiver, to: receiver,
			check: check(func(g *guard, from int, m *ecdsareshare.DGRound4Message1) error {
				return g.facProof(from, m.GetFacProof())
			})},
		{name: "R4", url: ecdsaReshareURL + "DGRound4Message2", round: 4, broadcast: true, role: receiver, to: dealer | receiver, ack: true,
			check: check(func(*guard, int, *ecdsareshare.DGRound4Message2) error { return nil })},
	}
}

// eddsaReshareRules are the messages of Ed25519 resharing and their checks: D1
// to D3 and D6, K10 and K11.
func eddsaReshareRules() []*rule {
	return []*rule{
		{name: "T1", url: eddsaReshareURL + "DGRound1Message", round: 1, broadcast: true, role: dealer, to: receiver,
			check: check(func(g *guard, from int, m *eddsareshare.DGRound1Message) error {
				if err := g.publicKey("D6", m.GetEddsaPubX(), m.GetEddsaPubY()); err != nil {
					return err
				}
				return g.commitment("D1", "T1", from, m.GetVCommitment())
			})},
		{name: "T2", url: eddsaReshareURL + "DGRound2Message", round: 2, broadcast: true, role: receiver, to: dealer, ack: true,
			check: check(func(*guard, int, *eddsareshare.DGRound2Message) error { return nil })},
		{name: "T3p", url: eddsaReshareURL + "DGRound3Message1", round: 3, role: dealer, to: receiver,
			check: check(func(g *guard, _ int, m *eddsareshare.DGRound3Message1) error {
				_, err := g.scalar("D2", "share", m.GetShare())
				return err
			})},
		{name: "T3", url: eddsaReshareURL + "DGRound3Message2", round: 3, broadcast: true, role: dealer, to: receiver,
			check: check(func(g *guard, from int, m *eddsareshare.DGRound3Message2) error {
				return g.dealing("D3", "T1", from, m.GetVDecommitment())
			})},
		{name: "T4", url: eddsaReshareURL + "DGRound4Message", round: 4, broadcast: true, role: receiver, to: dealer | receiver, ack: true,
			check: check(func(*guard, int, *eddsareshare.DGRound4Message) error { return nil })},
	}
}

// publicKey is K9's first half and D6: a dealer names the key by the ledger.
func (g *guard) publicKey(check string, xb, yb []byte) error {
	if err := g.point(check, "public key", xb, yb); err != nil {
		return err
	}
	x, y := new(big.Int).SetBytes(xb), new(big.Int).SetBytes(yb)
	if x.Cmp(g.pub.X()) != 0 || y.Cmp(g.pub.Y()) != 0 {
		return violate(check, "another public key than the ledger's")
	}
	return nil
}

// sameSSID is K9's second half. It is a hash over the public part of the
// generation dealt from. The library compares it itself, and skips the dealer
// whose index is the receiver's own.
//
// Why no blame of one: of two dealers that differ a receiver cannot say which
// is right, unless it deals too and knows.
func (g *guard) sameSSID(ssid []byte) error {
	if len(ssid) == 0 || len(ssid) > maxSSID {
		return violate("K9", "ssid of %d bytes", len(ssid))
	}
	if g.ssid == nil {
		g.ssid = bytes.Clone(ssid)
		return nil
	}
	if !bytes.Equal(ssid, g.ssid) {
		if g.ownSSID {
			return violate("K9", "ssid of another generation")
		}
		return &unclear{check: "K9", detail: "dealers hold different generations", from: dealer}
	}
	return nil
}

// own remembers what this member itself deals from.
func (g *guard) own(m proto.Message) {
	if r1, ok := m.(*ecdsareshare.DGRound1Message); ok {
		g.ssid, g.ownSSID = bytes.Clone(r1.GetSsid()), true
	}
}

// dealing is K6, K7 and K10: a dealer's polynomial has the new degree, opens
// its commitment and begins with its Lagrange-weighted share of the key.
func (g *guard) dealing(check, rule string, from int, parts [][]byte) error {
	if err := g.polynomial(check, rule, from, parts); err != nil {
		return err
	}
	p, err := crypto.NewECPoint(ellipticCurve(g.curve), new(big.Int).SetBytes(parts[1]), new(big.Int).SetBytes(parts[2]))
	if err != nil {
		return violate(check, "decommitted point 0 is not a point")
	}
	if want := g.dealt[from]; want != nil && !p.Equals(want) {
		return violate("K10", "deals another value than its share of the key")
	}
	g.constant[from] = p
	return g.wholeKey()
}

// wholeKey compares, once all dealers have opened, the sum of their constant
// terms with the key. The library would blame the receiver itself.
func (g *guard) wholeKey() error {
	var terms []*crypto.ECPoint
	for _, p := range g.constant {
		if p != nil {
			terms = append(terms, p)
		}
	}
	if len(terms) < g.dealers {
		return nil
	}
	sum := terms[0]
	for _, p := range terms[1:] {
		var err error
		if sum, err = sum.Add(p); err != nil {
			return &unclear{check: "K10", detail: "the dealers' parts cancel out", from: dealer}
		}
	}
	if !sum.Equals(g.pub) {
		return &unclear{check: "K10", detail: "the dealers' parts do not give the public key", from: dealer}
	}
	return nil
}

// unclear is a failed check of which this member cannot say who of some is to
// blame: they are suspected and nobody is accused.
type unclear struct {
	check, detail string
	from          role
}

func (u *unclear) Error() string { return u.check + ": " + u.detail }
