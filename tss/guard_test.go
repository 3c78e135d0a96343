package tss

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/bnb-chain/tss-lib/v2/crypto"
	"github.com/bnb-chain/tss-lib/v2/crypto/commitments"
	"github.com/bnb-chain/tss-lib/v2/crypto/dlnproof"
	"github.com/bnb-chain/tss-lib/v2/crypto/facproof"
	"github.com/bnb-chain/tss-lib/v2/crypto/modproof"
	"github.com/bnb-chain/tss-lib/v2/crypto/vss"
	ecdsakeygen "github.com/bnb-chain/tss-lib/v2/ecdsa/keygen"
	lib "github.com/bnb-chain/tss-lib/v2/tss"
	"google.golang.org/protobuf/proto"
)

// keygenMessages are the four messages that an honest party 1 sends party 0 in
// an ECDSA keygen of two, made with the library's own provers.
type keygenMessages struct {
	ids lib.SortedPartyIDs
	pp  []*ecdsakeygen.LocalPreParams
	all map[string]lib.ParsedMessage // by rule name
}

func honestKeygen(t *testing.T) keygenMessages {
	t.Helper()
	b, err := os.ReadFile("tsstest/testdata/preparams-TEST-ONLY.json")
	if err != nil {
		t.Fatal(err)
	}
	var f struct {
		Sets []*ecdsakeygen.LocalPreParams `json:"sets"`
	}
	if err := json.Unmarshal(b, &f); err != nil {
		t.Fatal(err)
	}
	r := Request{Key: KeyID{ID: "k", Curve: Secp256k1}, Parties: []PartyID{{1}, {2}}}
	k := keygenMessages{ids: partyIDs(r, sortParties(r)), pp: f.Sets, all: map[string]lib.ParsedMessage{}}
	me, ec := f.Sets[1], lib.S256()
	vs, shares, err := vss.Create(ec, libThreshold(2), big.NewInt(77), k.ids.Keys(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	flat, err := crypto.FlattenECPoints(vs)
	if err != nil {
		t.Fatal(err)
	}
	c := commitments.NewHashCommitment(rand.Reader, flat...)
	d1 := dlnproof.NewDLNProof(me.H1i, me.H2i, me.Alpha, me.P, me.Q, me.NTildei, rand.Reader)
	d2 := dlnproof.NewDLNProof(me.H2i, me.H1i, me.Beta, me.P, me.Q, me.NTildei, rand.Reader)
	sk := me.PaillierSK
	if k.all["K1"], err = ecdsakeygen.NewKGRound1Message(k.ids[1], c.C, &sk.PublicKey, me.NTildei, me.H1i, me.H2i, d1, d2); err != nil {
		t.Fatal(err)
	}
	to := f.Sets[0]
	fac, err := facproof.NewProof([]byte("s"), ec, sk.N, to.NTildei, to.H1i, to.H2i, sk.P, sk.Q, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k.all["K2p"] = ecdsakeygen.NewKGRound2Message1(k.ids[0], k.ids[1], shares[0], fac)
	mod, err := modproof.NewProof([]byte("s"), sk.N, sk.P, sk.Q, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k.all["K2"] = ecdsakeygen.NewKGRound2Message2(k.ids[1], c.D, mod)
	k.all["K3"] = ecdsakeygen.NewKGRound3Message(k.ids[1], sk.Proof(k.ids[1].KeyInt(), vs[0]))
	return k
}

// guardAt returns party 0's guard after the honest messages before the named
// one.
func (k keygenMessages) guardAt(t *testing.T, name string) *guard {
	t.Helper()
	g := newGuard(Secp256k1, 2, 0, 2)
	g.paillier[0], g.nTilde[0] = k.pp[0].PaillierSK.N, k.pp[0].NTildei
	for _, r := range ecdsaKeygenRules() {
		if r.name == name {
			return g
		}
		if err := k.feed(g, r.name, k.all[r.name].Content()); err != nil {
			t.Fatalf("honest %s refused: %v", r.name, err)
		}
	}
	return g
}

// feed passes a content through parse and the guard, as a session does.
func (k keygenMessages) feed(g *guard, name string, content lib.MessageContent) error {
	r := rulesByName[name]
	meta := lib.MessageRouting{From: k.ids[1], IsBroadcast: r.broadcast}
	wire := lib.NewMessage(meta, content, lib.NewMessageWrapper(meta, content))
	payload, _, err := wire.WireBytes()
	if err != nil {
		return err
	}
	msg, err := parse(r, payload, k.ids[1])
	if err != nil {
		return err
	}
	return r.check(g, 1, msg.Content())
}

func TestGuardOfECDSAKeygen(t *testing.T) {
	k := honestKeygen(t)
	k.guardAt(t, "") // all honest messages pass
	type (
		k1 = ecdsakeygen.KGRound1Message
		kp = ecdsakeygen.KGRound2Message1
		k2 = ecdsakeygen.KGRound2Message2
		k3 = ecdsakeygen.KGRound3Message
	)
	n, nt := k.pp[1].PaillierSK.N, k.pp[1].NTildei
	q := curveOrder(Secp256k1).Bytes()
	square := new(big.Int).Mul(k.pp[1].PaillierSK.P, k.pp[1].PaillierSK.P).Bytes()
	small := new(big.Int).Sub(n, new(big.Int).Mod(n, big.NewInt(65521))) // divisible
	if small.Bit(0) == 0 {
		small.Add(small, big.NewInt(65521))
	}
	for _, c := range []struct {
		what, check, message string
		change               func(proto.Message)
	}{
		{"N of 2047 bits", "K1", "K1", func(m proto.Message) { m.(*k1).PaillierN = new(big.Int).Rsh(n, 1).Bytes() }},
		{"even NTilde", "K1", "K1", func(m proto.Message) { m.(*k1).NTilde = new(big.Int).Xor(nt, one).Bytes() }},
		{"small factor", "K1", "K1", func(m proto.Message) { m.(*k1).PaillierN = small.Bytes() }},
		{"square", "K1", "K1", func(m proto.Message) { m.(*k1).NTilde = square }},
		{"N = NTilde", "K1", "K1", func(m proto.Message) { m.(*k1).NTilde = n.Bytes() }},
		{"modulus of another party", "K1", "K1", func(m proto.Message) { m.(*k1).NTilde = k.pp[0].PaillierSK.N.Bytes() }},
		{"h1 = 1", "K2", "K1", func(m proto.Message) { m.(*k1).H1 = []byte{1} }},
		{"h1 = NTilde-1", "K2", "K1", func(m proto.Message) { m.(*k1).H1 = below(nt).Bytes() }},
		{"h1 = h2", "K2", "K1", func(m proto.Message) { m.(*k1).H2 = m.(*k1).H1 }},
		{"h2 shares a factor", "K2", "K1", func(m proto.Message) { m.(*k1).H2 = safePrime(k.pp[1].P) }},
		{"DLN alpha beyond NTilde", "K2", "K1", func(m proto.Message) { m.(*k1).Dlnproof_1[5] = bytes.Repeat([]byte{0xff}, 256) }},
		{"DLN alpha shares a factor", "K2", "K1", func(m proto.Message) { m.(*k1).Dlnproof_2[5] = safePrime(k.pp[1].P) }},
		{"DLN length prefix", "K2", "K1", func(m proto.Message) { m.(*k1).Dlnproof_2[0] = []byte{0x80, 0, 0, 0, 0, 0, 0, 0} }},
		{"DLN parts", "A2", "K1", func(m proto.Message) { m.(*k1).Dlnproof_2 = m.(*k1).Dlnproof_2[1:] }},
		{"huge commitment", "A2", "K1", func(m proto.Message) { m.(*k1).Commitment = bytes.Repeat([]byte{1}, 33) }},

		{"share = order", "K5", "K2p", func(m proto.Message) { m.(*kp).Share = q }},
		{"share with leading zero", "K5", "K2p", func(m proto.Message) { m.(*kp).Share = append([]byte{0}, m.(*kp).Share...) }},
		{"no fac proof", "K4", "K2p", func(m proto.Message) { m.(*kp).FacProof = nil }},
		{"fac proof Q = 0 mod NTilde", "K4", "K2p", func(m proto.Message) { m.(*kp).FacProof[1] = k.pp[0].NTildei.Bytes() }},
		{"fac proof z out of range", "K4", "K2p", func(m proto.Message) { m.(*kp).FacProof[6] = bytes.Repeat([]byte{1}, 400) }},

		{"short polynomial", "K6", "K2", func(m proto.Message) { m.(*k2).DeCommitment = m.(*k2).DeCommitment[:3] }},
		{"long polynomial", "K6", "K2", func(m proto.Message) { m.(*k2).DeCommitment = append(m.(*k2).DeCommitment, q, q) }},
		{"randomness only", "K6", "K2", func(m proto.Message) { m.(*k2).DeCommitment = m.(*k2).DeCommitment[:1] }},
		{"polynomial off the curve", "K6", "K2", func(m proto.Message) { m.(*k2).DeCommitment[1] = []byte{5} }},
		{"coordinate beyond the field", "K6", "K2", func(m proto.Message) { m.(*k2).DeCommitment[1] = bytes.Repeat([]byte{0xff}, 32) }},
		{"other randomness", "K6", "K2", func(m proto.Message) { m.(*k2).DeCommitment[0] = []byte{5} }},
		{"no mod proof", "K3", "K2", func(m proto.Message) { m.(*k2).ModProof = nil }},
		{"W a residue", "K3", "K2", func(m proto.Message) { m.(*k2).ModProof[0] = []byte{4} }},
		{"W shares a factor with N", "K3", "K2", func(m proto.Message) { m.(*k2).ModProof[0] = k.pp[1].PaillierSK.P.Bytes() }},
		{"X shares a factor with N", "K3", "K2", func(m proto.Message) { m.(*k2).ModProof[3] = k.pp[1].PaillierSK.P.Bytes() }},
		{"Z beyond N", "K3", "K2", func(m proto.Message) { m.(*k2).ModProof[100] = n.Bytes() }},
		{"A too short", "K3", "K2", func(m proto.Message) { m.(*k2).ModProof[81] = []byte{1} }},

		{"Paillier proof parts", "A2", "K3", func(m proto.Message) { m.(*k3).PaillierProof = m.(*k3).PaillierProof[1:] }},
		{"Paillier proof beyond N", "K8", "K3", func(m proto.Message) { m.(*k3).PaillierProof[0] = n.Bytes() }},
	} {
		content := proto.Clone(k.all[c.message].Content())
		c.change(content)
		err := k.feed(k.guardAt(t, c.message), c.message, content.(lib.MessageContent))
		var v *violation
		if !errors.As(err, &v) || v.check != c.check {
			t.Errorf("%s: %v, want %s", c.what, err, c.check)
		}
	}

	// K6 from a party that commits to the wrong number of points: the library
	// would index beyond them.
	ec := lib.S256().Params()
	for _, points := range []int{0, 1, 3} {
		var flat []*big.Int
		for range points {
			flat = append(flat, ec.Gx, ec.Gy)
		}
		c := commitments.NewHashCommitment(rand.Reader, flat...)
		g := k.guardAt(t, "K2")
		g.commits["K1"][1] = c.C
		m := proto.Clone(k.all["K2"].Content()).(*k2)
		m.DeCommitment = nil
		for _, d := range c.D {
			m.DeCommitment = append(m.DeCommitment, d.Bytes())
		}
		var v *violation
		if err := k.feed(g, "K2", m); !errors.As(err, &v) || v.check != "K6" {
			t.Errorf("%d points, committed to: %v", points, err)
		}
	}

	// K7: a polynomial that another party committed to before.
	g := k.guardAt(t, "K2")
	m := k.all["K2"].Content().(*k2)
	g.opened[0] = string(bytes.Join(m.DeCommitment[1:], []byte{0}))
	var v *violation
	if err := k.feed(g, "K2", m); !errors.As(err, &v) || v.check != "K7" {
		t.Errorf("copied polynomial: %v", err)
	}
}

func safePrime(q *big.Int) []byte {
	p := new(big.Int).Lsh(q, 1)
	return p.Add(p, one).Bytes()
}

func TestPointsOutsideTheGroup(t *testing.T) {
	ed := lib.Edwards().Params()
	g := crypto.ScalarBaseMult(lib.Edwards(), big.NewInt(9))
	torsion := [2]*big.Int{big.NewInt(0), below(ed.P)} // order 2
	mixedX, mixedY := lib.Edwards().Add(g.X(), g.Y(), torsion[0], torsion[1])
	for what, c := range map[string]struct {
		curve Curve
		x, y  *big.Int
		want  bool
	}{
		"ed25519 point":        {Ed25519, g.X(), g.Y(), true},
		"ed25519 -x":           {Ed25519, new(big.Int).Sub(ed.P, g.X()), g.Y(), true},
		"ed25519 identity":     {Ed25519, big.NewInt(0), big.NewInt(1), false},
		"ed25519 order two":    {Ed25519, torsion[0], torsion[1], false},
		"ed25519 mixed order":  {Ed25519, mixedX, mixedY, false},
		"ed25519 wrong x":      {Ed25519, new(big.Int).Add(g.X(), two), g.Y(), false},
		"ed25519 off curve":    {Ed25519, g.X(), new(big.Int).Add(g.Y(), one), false},
		"secp256k1 generator":  {Secp256k1, lib.S256().Params().Gx, lib.S256().Params().Gy, true},
		"secp256k1 off curve":  {Secp256k1, lib.S256().Params().Gx, lib.S256().Params().Gx, false},
		"secp256k1 infinity":   {Secp256k1, big.NewInt(0), big.NewInt(0), false},
		"secp256k1 small torc": {Secp256k1, big.NewInt(1), big.NewInt(1), false},
	} {
		if onCurve(c.curve, c.x, c.y) != c.want {
			t.Errorf("%s: want %t", what, c.want)
		}
	}
}

// One honest commitment in 256 has a leading zero byte and is sent without it.
func TestShortCommitmentIsHonest(t *testing.T) {
	g := newGuard(Ed25519, 2, 0, 2)
	if err := g.commitment("D1", "D1", 1, bytes.Repeat([]byte{9}, 31)); err != nil {
		t.Error(err)
	}
	for _, b := range [][]byte{nil, {0, 1}, bytes.Repeat([]byte{9}, 33)} {
		if g.commitment("D1", "D1", 1, b) == nil {
			t.Errorf("took a commitment of %d bytes", len(b))
		}
	}
}

// The library's switches that mean "accept a missing proof", and its deprecated
// global curve, are never touched (spec: signing §6).
func TestProofsAreNeverSwitchedOff(t *testing.T) {
	err := filepath.WalkDir(".", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || path == "guard_test.go" {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, banned := range []string{"SetNoProof", "tss.SetCurve", "lib.SetCurve", "GobEncode", "encoding/gob"} {
			if bytes.Contains(b, []byte(banned)) {
				t.Errorf("%s mentions %s", path, banned)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A new key whose public shares do not lie on one polynomial, or whose secret
// is not the share's, is not accepted.
func TestAcceptanceOfAKey(t *testing.T) {
	ec, order := lib.S256(), curveOrder(Secp256k1)
	ks := []*big.Int{big.NewInt(3), big.NewInt(5), big.NewInt(8), big.NewInt(13)}
	_, shares, err := vss.Create(ec, libThreshold(3), big.NewInt(42), ks, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pub := crypto.ScalarBaseMult(ec, big.NewInt(42))
	points := make([]*crypto.ECPoint, len(ks))
	for i, s := range shares {
		points[i] = crypto.ScalarBaseMult(ec, s.Share)
	}
	accept := func(pts []*crypto.ECPoint, pub *crypto.ECPoint, xi *big.Int) error {
		return acceptPoints(Secp256k1, ks, pts, pub, xi, 1, 3)
	}
	if err := accept(points, pub, shares[1].Share); err != nil {
		t.Fatal(err)
	}
	for i := range points {
		bad := slices.Clone(points)
		bad[i] = points[(i+1)%len(points)]
		if accept(bad, pub, shares[1].Share) == nil {
			t.Errorf("public share %d of another party accepted", i)
		}
	}
	if accept(points, points[0], shares[1].Share) == nil {
		t.Error("another public key accepted")
	}
	if accept(points, pub, shares[2].Share) == nil {
		t.Error("another party's secret accepted")
	}
	if accept(points, pub, new(big.Int).Add(shares[1].Share, order)) == nil {
		t.Error("unreduced secret accepted")
	}
}

// Under load older batches get processors first, whoever came first.
func TestOlderBatchesComputeFirst(t *testing.T) {
	q := &cpuQueue{free: 1}
	never := make(chan struct{})
	release, err := q.acquire(t.Context(), never, priority{})
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan uint64)
	waiting := func() int { q.mu.Lock(); defer q.mu.Unlock(); return len(q.waiting) }
	for i, batch := range []uint64{9, 4, 7} {
		go func() {
			release, err := q.acquire(t.Context(), never, priorityOf(Request{Kind: Sign, Batch: batch}))
			if err != nil {
				t.Error(err)
				return
			}
			got <- batch
			release()
		}()
		for waiting() <= i {
			runtime.Gosched()
		}
	}
	over := make(chan struct{})
	close(over) // a session that ends while it waits gives up its place
	if _, err := q.acquire(t.Context(), over, priority{}); !errors.Is(err, errSessionOver) {
		t.Errorf("ended session: %v", err)
	}
	release()
	for _, want := range []uint64{4, 7, 9} {
		if b := <-got; b != want {
			t.Errorf("batch %d computes, want %d", b, want)
		}
	}
}
