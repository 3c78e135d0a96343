package tss

import (
	"crypto/rand"
	"errors"
	"math/big"
	"testing"

	"github.com/bnb-chain/tss-lib/v2/crypto"
	"github.com/bnb-chain/tss-lib/v2/crypto/commitments"
	"github.com/bnb-chain/tss-lib/v2/crypto/dlnproof"
	"github.com/bnb-chain/tss-lib/v2/crypto/facproof"
	"github.com/bnb-chain/tss-lib/v2/crypto/modproof"
	"github.com/bnb-chain/tss-lib/v2/crypto/vss"
	ecdsakeygen "github.com/bnb-chain/tss-lib/v2/ecdsa/keygen"
	"github.com/bnb-chain/tss-lib/v2/ecdsa/resharing"
	lib "github.com/bnb-chain/tss-lib/v2/tss"
	"google.golang.org/protobuf/proto"
)

// honestReshare are the messages that an honest member 1, dealer and receiver,
// sends member 0 in an ECDSA resharing of two, made with the library's provers.
// pub is the key; member 0 deals the rest of it.
func honestReshare(t *testing.T) (k keygenMessages, pub *crypto.ECPoint, dealt [2]*crypto.ECPoint) {
	t.Helper()
	k = honestKeygen(t)
	ec := lib.S256()
	k.all = map[string]lib.ParsedMessage{}
	me, to := k.pp[1], k.pp[0]
	pub = crypto.ScalarBaseMult(ec, big.NewInt(100))
	dealt = [2]*crypto.ECPoint{crypto.ScalarBaseMult(ec, big.NewInt(23)), crypto.ScalarBaseMult(ec, big.NewInt(77))}
	vs, shares, err := vss.Create(ec, libThreshold(2), big.NewInt(77), k.ids.Keys(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	flat, err := crypto.FlattenECPoints(vs)
	if err != nil {
		t.Fatal(err)
	}
	c := commitments.NewHashCommitment(rand.Reader, flat...)
	k.all["R1"] = resharing.NewDGRound1Message(k.ids[:1], k.ids[1], pub, c.C, []byte{9})
	mod, err := modproof.NewProof([]byte("s"), me.PaillierSK.N, me.PaillierSK.P, me.PaillierSK.Q, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	d1 := dlnproof.NewDLNProof(me.H1i, me.H2i, me.Alpha, me.P, me.Q, me.NTildei, rand.Reader)
	d2 := dlnproof.NewDLNProof(me.H2i, me.H1i, me.Beta, me.P, me.Q, me.NTildei, rand.Reader)
	if k.all["R2"], err = resharing.NewDGRound2Message1(k.ids[:1], k.ids[1], &me.PaillierSK.PublicKey, mod, me.NTildei, me.H1i, me.H2i, d1, d2); err != nil {
		t.Fatal(err)
	}
	k.all["R2a"] = resharing.NewDGRound2Message2(k.ids[:1], k.ids[1])
	k.all["R3p"] = resharing.NewDGRound3Message1(k.ids[0], k.ids[1], shares[0])
	k.all["R3"] = resharing.NewDGRound3Message2(k.ids[:1], k.ids[1], c.D)
	fac, err := facproof.NewProof([]byte("s"), ec, me.PaillierSK.N, to.NTildei, to.H1i, to.H2i, me.PaillierSK.P, me.PaillierSK.Q, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k.all["R4p"] = resharing.NewDGRound4Message1(k.ids[0], k.ids[1], fac)
	k.all["R4"] = resharing.NewDGRound4Message2(k.ids[:1], k.ids[1])
	return k, pub, dealt
}

// Each row of the guard for ECDSA resharing: the honest messages pass, each
// change is caught by the row named. Seen failing with "another ssid: <nil>, want
// K9" without that comparison.
func TestGuardOfECDSAReshare(t *testing.T) {
	k, pub, dealt := honestReshare(t)
	// before is member 0's guard after the honest messages before one.
	before := func(name string, deals bool) *guard {
		g := newGuard(Secp256k1, 2, 0, 2)
		g.paillier[0], g.nTilde[0] = k.pp[0].PaillierSK.N, k.pp[0].NTildei
		g.stored = map[string]bool{string(k.pp[2].NTildei.Bytes()): true, string(k.pp[2].PaillierSK.N.Bytes()): true}
		g.pub, g.dealers = pub, 2
		if deals {
			g.dealt = dealt[:]
			g.ssid, g.ownSSID = []byte{9}, true
		}
		g.constant[0] = dealt[0]
		for _, r := range ecdsaReshareRules() {
			if r.name == name {
				return g
			}
			if err := k.feed(g, r.name, k.all[r.name].Content()); err != nil {
				t.Fatalf("honest %s refused: %v", r.name, err)
			}
		}
		return g
	}
	before("", true)
	before("", false)
	type (
		r1  = resharing.DGRound1Message
		r2  = resharing.DGRound2Message1
		r3p = resharing.DGRound3Message1
		r3  = resharing.DGRound3Message2
		r4p = resharing.DGRound4Message1
	)
	q := curveOrder(Secp256k1).Bytes()
	n := k.pp[1].PaillierSK.N
	g := lib.S256().Params()
	for _, c := range []struct {
		what, check, message string
		change               func(proto.Message)
	}{
		{"another public key", "K9", "R1", func(m proto.Message) { m.(*r1).EcdsaPubX, m.(*r1).EcdsaPubY = g.Gx.Bytes(), g.Gy.Bytes() }},
		{"another ssid", "K9", "R1", func(m proto.Message) { m.(*r1).Ssid = []byte{8} }},
		{"long ssid", "K9", "R1", func(m proto.Message) { m.(*r1).Ssid = make([]byte, 33) }},
		{"N of a stored epoch", "K1", "R2", func(m proto.Message) { m.(*r2).PaillierN = k.pp[2].PaillierSK.N.Bytes() }},
		{"NTilde of a stored epoch", "K1", "R2", func(m proto.Message) { m.(*r2).NTilde = k.pp[2].NTildei.Bytes() }},
		{"stored N as NTilde", "K1", "R2", func(m proto.Message) { m.(*r2).NTilde = k.pp[2].PaillierSK.N.Bytes() }},
		{"our own modulus", "K1", "R2", func(m proto.Message) { m.(*r2).PaillierN = k.pp[0].PaillierSK.N.Bytes() }},
		{"N of 2047 bits", "K1", "R2", func(m proto.Message) { m.(*r2).PaillierN = new(big.Int).Rsh(n, 1).Bytes() }},
		{"h1 = h2", "K2", "R2", func(m proto.Message) { m.(*r2).H2 = m.(*r2).H1 }},
		{"DLN length prefix", "K2", "R2", func(m proto.Message) { m.(*r2).Dlnproof_2[0] = []byte{0x80, 0, 0, 0, 0, 0, 0, 0} }},
		{"no mod proof", "K3", "R2", func(m proto.Message) { m.(*r2).ModProof = nil }},
		{"W shares a factor with N", "K3", "R2", func(m proto.Message) { m.(*r2).ModProof[0] = k.pp[1].PaillierSK.P.Bytes() }},
		{"share = order", "K5", "R3p", func(m proto.Message) { m.(*r3p).Share = q }},
		{"short polynomial", "K6", "R3", func(m proto.Message) { m.(*r3).VDecommitment = m.(*r3).VDecommitment[:3] }},
		{"randomness only", "K6", "R3", func(m proto.Message) { m.(*r3).VDecommitment = m.(*r3).VDecommitment[:1] }},
		{"other randomness", "K6", "R3", func(m proto.Message) { m.(*r3).VDecommitment[0] = []byte{5} }},
		{"no fac proof", "K4", "R4p", func(m proto.Message) { m.(*r4p).FacProof = nil }},
		{"fac proof z out of range", "K4", "R4p", func(m proto.Message) { m.(*r4p).FacProof[6] = make([]byte, 400) }},
	} {
		content := proto.Clone(k.all[c.message].Content())
		c.change(content)
		err := k.feed(before(c.message, true), c.message, content.(lib.MessageContent))
		var v *violation
		if !errors.As(err, &v) || v.check != c.check {
			t.Errorf("%s: %v, want %s", c.what, err, c.check)
		}
	}

	// K7: a polynomial that another party opened before.
	copied := before("R3", true)
	copied.opened[0] = string(joined(k.all["R3"].Content().(*r3).VDecommitment[1:]))
	var v *violation
	if err := k.feed(copied, "R3", k.all["R3"].Content()); !errors.As(err, &v) || v.check != "K7" {
		t.Errorf("copied polynomial: %v", err)
	}
	// K10, where this member knows what the dealer must deal, and where not.
	known := before("R3", true)
	known.dealt = []*crypto.ECPoint{dealt[0], pub}
	if err := k.feed(known, "R3", k.all["R3"].Content()); !errors.As(err, &v) || v.check != "K10" {
		t.Errorf("dealer of another value: %v", err)
	}
	joiner := before("R3", false)
	joiner.constant[0] = dealt[1]
	var u *unclear
	if err := k.feed(joiner, "R3", k.all["R3"].Content()); !errors.As(err, &u) || u.check != "K10" {
		t.Errorf("dealers of another key: %v", err)
	}
	// K9 at a joiner: it cannot say who of two is right.
	joiner = before("R1", false)
	joiner.ssid = []byte{8}
	if err := k.feed(joiner, "R1", k.all["R1"].Content()); !errors.As(err, &u) || u.check != "K9" {
		t.Errorf("dealers of different generations: %v", err)
	}
}

// The wire names of the two tables, and that roles are those of the protocol.
func TestReshareRoles(t *testing.T) {
	for _, p := range protocols {
		for _, r := range p.rules {
			if (p.kind == Reshare) != (r.role != 0 && r.to != 0) {
				t.Errorf("%s: %s has role %d to %d", p.name, r.name, r.role, r.to)
			}
		}
		if p.kind == Reshare && (len(p.inRound(1, receiver, dealer|receiver)) != 0 || len(p.inRound(2, dealer, dealer|receiver)) != 0) {
			t.Errorf("%s: a role speaks out of turn", p.name)
		}
	}
}

func joined(parts [][]byte) []byte {
	var out []byte
	for i, p := range parts {
		if i > 0 {
			out = append(out, 0)
		}
		out = append(out, p...)
	}
	return out
}

// A key share whose moduli are damaged is not dealt from.
func TestAuditFindsDamage(t *testing.T) {
	k := honestKeygen(t)
	r := Request{Key: KeyID{ID: "k", Curve: Secp256k1}, Epoch: 1, Parties: []PartyID{{1}, {2}}, M: 2}
	shares, err := Deal(r, k.pp)
	if err != nil {
		t.Fatal(err)
	}
	good := shares[PartyID{1}]
	if err := Audit(&good, r.Cluster, PartyID{1}); err != nil {
		t.Fatal(err)
	}
	if err := Audit(&good, r.Cluster, PartyID{2}); err == nil {
		t.Error("share of member 1 passes as member 2's")
	}
	if err := Audit(&good, r.Cluster, PartyID{3}); err == nil {
		t.Error("share passes as a stranger's")
	}
	for what, change := range map[string]func(*ecdsakeygen.LocalPartySaveData){
		"another secret": func(d *ecdsakeygen.LocalPartySaveData) { d.Xi.Add(d.Xi, one) },
		"modulus with small factor": func(d *ecdsakeygen.LocalPartySaveData) {
			d.NTildej[1].Sub(d.NTildej[1], new(big.Int).Mod(d.NTildej[1], big.NewInt(65521))).SetBit(d.NTildej[1], 2047, 1)
		},
		"one modulus twice": func(d *ecdsakeygen.LocalPartySaveData) { d.NTildej[1] = d.NTildej[0] },
		"h1 = 1":            func(d *ecdsakeygen.LocalPartySaveData) { d.H1j[0] = big.NewInt(1) },
	} {
		d, err := decodeECDSA(&good, r.Cluster)
		if err != nil {
			t.Fatal(err)
		}
		change(d)
		bad, err := encodeShare(r.sorted(), d.ECDSAPub, [32]byte{}, d)
		if err != nil {
			t.Fatal(err)
		}
		if Audit(&bad, r.Cluster, PartyID{1}) == nil {
			t.Errorf("%s: passes", what)
		}
	}
}
