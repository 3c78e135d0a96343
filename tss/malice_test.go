package tss_test

import (
	"bytes"
	"context"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"math/big"
	"sync/atomic"
	"testing"

	"github.com/bnb-chain/tss-lib/v2/crypto/commitments"
	ecdsakeygen "github.com/bnb-chain/tss-lib/v2/ecdsa/keygen"
	ecdsasigning "github.com/bnb-chain/tss-lib/v2/ecdsa/signing"
	eddsakeygen "github.com/bnb-chain/tss-lib/v2/eddsa/keygen"
	eddsasigning "github.com/bnb-chain/tss-lib/v2/eddsa/signing"
	lib "github.com/bnb-chain/tss-lib/v2/tss"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/coffer-network/coffer/tss"
	"github.com/coffer-network/coffer/tss/tsstest"
)

// Here one party speaks the protocol and signs its envelopes, and at one point
// says what no honest party says. The others must refuse it before the library
// sees it, name the party with evidence that convinces who was not there, live on
// and sign with another subset.

type lie struct {
	name    string // of the case
	check   string // that must catch it
	message string // name of the message type that is spoilt
	spoil   func(payload []byte) []byte
	before  func(name string, payload []byte) []byte // prepares the lie, or nil
}

// spoil decodes a payload, changes its content and encodes it again.
func spoil[T proto.Message](change func(T)) func([]byte) []byte {
	return func(payload []byte) []byte {
		var wrapper anypb.Any
		if err := proto.Unmarshal(payload, &wrapper); err != nil {
			panic(err)
		}
		m, err := wrapper.UnmarshalNew()
		if err != nil {
			panic(err)
		}
		change(m.(T))
		out, err := anypb.New(m)
		if err != nil {
			panic(err)
		}
		b, err := proto.Marshal(out)
		if err != nil {
			panic(err)
		}
		return b
	}
}

func order(c elliptic.Curve) []byte { return c.Params().N.Bytes() }

// outOf drops the last n parts.
func outOf(parts [][]byte, n int) [][]byte { return parts[:len(parts)-n] }

func times(b []byte, k int64) []byte {
	return new(big.Int).Mul(new(big.Int).SetBytes(b), big.NewInt(k)).Bytes()
}

func increment(b []byte) []byte {
	return new(big.Int).Add(new(big.Int).SetBytes(b), big.NewInt(1)).Bytes()
}

// blameOf is expectLie of a signature.
func blameOf(t *testing.T, nodes []tsstest.Node, r tss.Request, l lie) *tss.Blame {
	t.Helper()
	return expectLie(t, nodes, l, func(ctx context.Context, n tsstest.Node) error { _, err := n.Signer.Sign(ctx, r); return err })
}

// expectLie runs a session with nodes[1] lying once and checks what nodes[0]
// makes of it.
func expectLie(t *testing.T, nodes []tsstest.Node, l lie, run func(context.Context, tsstest.Node) error) *tss.Blame {
	t.Helper()
	var lied atomic.Bool
	nodes[1].Signer.Tamper(func(name string, _ int, payload []byte) []byte {
		if name != l.message {
			if l.before != nil {
				payload = l.before(name, payload)
			}
			return payload
		}
		lied.Store(true)
		return l.spoil(payload)
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- run(ctx, nodes[1]) }()
	err := run(ctx, nodes[0])
	cancel() // the liar waits for an answer that will not come
	<-done
	if !lied.Load() {
		t.Fatalf("%s: the message was never sent; %v", l.name, err)
	}
	var b *tss.Blame
	if !errors.As(err, &b) {
		t.Fatalf("%s: %v", l.name, err)
	}
	if !b.Proven || len(b.Culprits) != 1 || b.Culprits[0] != nodes[1].ID || b.Check != l.check {
		t.Errorf("%s: %v, want check %s", l.name, err, l.check)
	}
	for _, e := range b.Evidence {
		if by, err := tss.EvidenceOf(cluster, e); err != nil || by != nodes[1].ID {
			t.Errorf("%s: evidence of %v, %v", l.name, by, err)
		}
	}
	if len(b.Evidence) == 0 {
		t.Errorf("%s: no evidence", l.name)
	}
	return b
}

func TestECDSASignLies(t *testing.T) {
	_, nodes := tsstest.Cluster(t, cluster, 3, patient)
	shares, pub := tsstest.Deal(t, cluster, ecdsaKey, 1, 2, 3, 2)
	tsstest.Activate(t, nodes, shares)
	var liar ecdsakeygen.LocalPartySaveData
	if err := json.Unmarshal(shares[nodes[1].ID].Secret, &liar); err != nil {
		t.Fatal(err)
	}
	n := liar.PaillierSK.N
	var victim ecdsakeygen.LocalPartySaveData
	if err := json.Unmarshal(shares[nodes[0].ID].Secret, &victim); err != nil {
		t.Fatal(err)
	}
	huge := bytes.Repeat([]byte{0xff}, 257)
	q := order(lib.S256())

	type (
		r1p = *ecdsasigning.SignRound1Message1
		r1  = *ecdsasigning.SignRound1Message2
		r2  = *ecdsasigning.SignRound2Message
		r3  = *ecdsasigning.SignRound3Message
		r4  = *ecdsasigning.SignRound4Message
		r5  = *ecdsasigning.SignRound5Message
		r6  = *ecdsasigning.SignRound6Message
		r7  = *ecdsasigning.SignRound7Message
		r8  = *ecdsasigning.SignRound8Message
		r9  = *ecdsasigning.SignRound9Message
	)
	lies := []lie{
		{"ciphertext shares a factor with N", "S1", "S1p", spoil(func(m r1p) { m.C = times(n.Bytes(), 5) }), nil},
		{"ciphertext beyond N²", "S1", "S1p", spoil(func(m r1p) { m.C = new(big.Int).Mul(n, n).Bytes() }), nil},
		{"range proof part missing", "A2", "S1p", spoil(func(m r1p) { m.RangeProofAlice = outOf(m.RangeProofAlice, 1) }), nil},
		{"range proof S1 a multiple of q", "S2", "S1p", spoil(func(m r1p) { m.RangeProofAlice[4] = times(q, 2) }), nil},
		{"range proof Z beyond NTilde", "S2", "S1p", spoil(func(m r1p) { m.RangeProofAlice[0] = huge }), nil},
		{"range proof U shares a factor with N", "S2", "S1p", spoil(func(m r1p) { m.RangeProofAlice[1] = liar.PaillierSK.P.Bytes() }), nil},
		{"range proof S1 beyond q³", "S2", "S1p", spoil(func(m r1p) { m.RangeProofAlice[4] = bytes.Repeat([]byte{0xff}, 97) }), nil},
		{"leading zero", "S1", "S1p", spoil(func(m r1p) { m.C = append([]byte{0}, m.C...) }), nil},
		{"unknown field", "A1", "S1p", func(p []byte) []byte { return append(p, 0xfa, 0x01, 0x00) }, nil},
		{"other content", "E5", "S1", func([]byte) []byte {
			a, _ := anypb.New(&eddsasigning.SignRound1Message{Commitment: []byte{1}})
			b, _ := proto.Marshal(a)
			return b
		}, nil},
		{"no protobuf", "A1", "S1", func([]byte) []byte { return []byte{0xff} }, nil},
		{"commitment of 33 bytes", "S5", "S1", spoil(func(m r1) { m.Commitment = append([]byte{1}, make([]byte, 32)...) }), nil},
		{"ProofBobWC S1 a multiple of q", "S4", "S2p", spoil(func(m r2) { m.ProofBobWc[6] = times(q, 2) }), nil},
		{"ProofBobWC U off the curve", "S4", "S2p", spoil(func(m r2) { m.ProofBobWc[11] = increment(m.ProofBobWc[11]) }), nil},
		{"ciphertext shares a factor with our N", "S3", "S2p", spoil(func(m r2) { m.C1 = times(victim.PaillierSK.P.Bytes(), 3) }), nil},
		{"ProofBob T1 beyond q⁷", "S4", "S2p", spoil(func(m r2) { m.ProofBob[8] = huge }), nil},
		{"ProofBob part missing", "A2", "S2p", spoil(func(m r2) { m.ProofBob = outOf(m.ProofBob, 1) }), nil},
		{"equal ciphertexts", "S3", "S2p", spoil(func(m r2) { m.C2 = m.C1 }), nil},
		{"theta is zero mod q", "S6", "S3", spoil(func(m r3) { m.Theta = q }), nil},
		{"Gamma does not open the commitment", "S7", "S4", spoil(func(m r4) { m.DeCommitment[0] = increment(m.DeCommitment[0]) }), nil},
		{"Gamma off the curve", "S7", "S4", spoil(func(m r4) { m.DeCommitment[1] = increment(m.DeCommitment[1]) }), nil},
		{"second commitment of 33 bytes", "S5", "S5", spoil(func(m r5) { m.Commitment = append([]byte{1}, make([]byte, 32)...) }), nil},
		{"third commitment of 33 bytes", "S5", "S7", spoil(func(m r7) { m.Commitment = append([]byte{1}, make([]byte, 32)...) }), nil},
		{"V off the curve", "S8", "S6", spoil(func(m r6) { m.DeCommitment[1] = increment(m.DeCommitment[1]) }), nil},
		{"T in one coordinate", "A2", "S8", spoil(func(m r8) { m.DeCommitment = outOf(m.DeCommitment, 1) }), nil},
		{"Schnorr t is zero mod q", "S7", "S4", spoil(func(m r4) { m.ProofT = q }), nil},
		{"V proof u is zero mod q", "S8", "S6", spoil(func(m r6) { m.VProofU = q }), nil},
		{"U and T do not open the commitment", "S9", "S8", spoil(func(m r8) { m.DeCommitment[0] = increment(m.DeCommitment[0]) }), nil},
		{"s is zero mod q", "S10", "S9", spoil(func(m r9) { m.S = q }), nil},
	}
	done := map[string]bool{}
	for i, l := range lies {
		r := signRequest(ecdsaKey, make([]byte, 32), nodes[0].ID, nodes[1].ID)
		r.Batch = uint64(i)
		r.Session = tss.SessionName(r)
		convicts(t, nodes[2], blameOf(t, nodes, r, l), r)
		// Whoever was lied to signs with another subset; in short mode once.
		if done[l.check] || testing.Short() && i < len(lies)-1 {
			continue
		}
		done[l.check] = true
		another(t, nodes, ecdsaKey, pub, uint64(i))
	}
	// A wrong s in its range: nobody can be told from the other, so all others
	// of the turn are suspected and nobody is accused (S10).
	nodes[1].Signer.Tamper(func(name string, _ int, p []byte) []byte {
		if name != "S9" {
			return p
		}
		return spoil(func(m r9) { m.S = increment(m.S) })(p)
	})
	r := signRequest(ecdsaKey, make([]byte, 32), nodes[0].ID, nodes[1].ID)
	r.Batch = 999
	r.Session = tss.SessionName(r)
	_, err := runOne(t, nodes, r)
	wantBlame(t, err, tss.Failed, nodes[1].ID)
	var b *tss.Blame
	if errors.As(err, &b) && b.Proven {
		t.Error("a wrong s is no proof")
	}
	// After all this, the liar's own node signs too.
	nodes[1].Signer.Tamper(func(_ string, _ int, p []byte) []byte { return p })
	r.Batch = 1000
	r.Session = tss.SessionName(r)
	if _, errs := signAll(nodes[:2], r); errors.Join(errs...) != nil {
		t.Error(errors.Join(errs...))
	}
}

// another signs what could not be signed with the liar, nodes[1], in the next
// turn without it.
func another(t *testing.T, nodes []tsstest.Node, key tss.KeyID, pub []byte, batch uint64) {
	t.Helper()
	r := signRequest(key, make([]byte, 32), nodes[0].ID, nodes[2].ID)
	r.Batch, r.Turn = batch, 1
	r.Session = tss.SessionName(r)
	sigs, errs := signAll([]tsstest.Node{nodes[0], nodes[2]}, r)
	if err := errors.Join(errs...); err != nil {
		t.Fatalf("batch %d without the liar: %v", batch, err)
	}
	if err := tss.Verify(key.Curve, pub, r.Tweak, r.Digest, sigs[0]); err != nil {
		t.Errorf("batch %d: %v", batch, err)
	}
}

func TestEd25519Lies(t *testing.T) {
	_, nodes := tsstest.Cluster(t, cluster, 3, patient)
	shares, pub := tsstest.Deal(t, cluster, eddsaKey, 1, 2, 3, 2)
	tsstest.Activate(t, nodes, shares)
	ids := members(0, 1)
	l := order(lib.Edwards())
	type (
		s2 = *eddsasigning.SignRound2Message
		s3 = *eddsasigning.SignRound3Message
		kp = *eddsakeygen.KGRound2Message1
		k2 = *eddsakeygen.KGRound2Message2
	)
	// (0, -1) has order two: on the curve, outside the prime-order group.
	minusOne := new(big.Int).Sub(lib.Edwards().Params().P, big.NewInt(1)).Bytes()
	torsion := func(m s2) { m.ProofAlphaX, m.ProofAlphaY = []byte{1}, minusOne }
	for i, c := range []lie{
		{"commitment of 33 bytes", "D1", "D1", spoil(func(m *eddsasigning.SignRound1Message) { m.Commitment = append([]byte{1}, make([]byte, 32)...) }), nil},
		{"R off the curve", "D4", "D2", spoil(func(m s2) { m.DeCommitment[2] = increment(m.DeCommitment[2]) }), nil},
		{"R in two parts", "A2", "D2", spoil(func(m s2) { m.DeCommitment = outOf(m.DeCommitment, 1) }), nil},
		{"alpha no point of the group", "D4", "D2", spoil(torsion), nil},
		{"s is the order", "D5", "D3", spoil(func(m s3) { m.S = l }), nil},
	} {
		r := signRequest(eddsaKey, []byte("m"), ids...)
		r.Batch = uint64(i)
		r.Session = tss.SessionName(r)
		convicts(t, nodes[2], blameOf(t, nodes, r, c), r)
		another(t, nodes, eddsaKey, pub, uint64(i))
	}
	empty := commitments.NewHashCommitment(rand.Reader)
	for i, c := range []lie{
		{"share is the order", "D2", "E2p", spoil(func(m kp) { m.Share = l }), nil},
		{"polynomial of degree too low", "D3", "E2", spoil(func(m k2) { m.DeCommitment = outOf(m.DeCommitment, 2) }), nil},
		// It commits to what it will open, so that only the length is wrong.
		{"polynomial without points", "D3", "E2", spoil(func(m k2) { m.DeCommitment = [][]byte{empty.D[0].Bytes()} }),
			func(name string, payload []byte) []byte {
				if name != "E1" {
					return payload
				}
				return spoil(func(m *eddsakeygen.KGRound1Message) { m.Commitment = empty.C.Bytes() })(payload)
			}},
		{"polynomial point off the curve", "D3", "E2", spoil(func(m k2) { m.DeCommitment[3] = increment(m.DeCommitment[3]) }), nil},
		{"Schnorr t is the order", "D3", "E2", spoil(func(m k2) { m.ProofT = l }), nil},
	} {
		r := keygenRequest(eddsaKey, 2, 2)
		r.Batch = uint64(100 + i)
		r.Session = tss.SessionName(r)
		expectLie(t, nodes, c, func(ctx context.Context, n tsstest.Node) error { _, err := n.Signer.Keygen(ctx, r); return err })
	}
	nodes[1].Signer.Tamper(func(_ string, _ int, p []byte) []byte { return p })
	r := keygenRequest(tss.KeyID{ID: "e2", Curve: tss.Ed25519}, 2, 2)
	keygenAll(t, nodes[:2], r)
}

// The first round of an ECDSA keygen, over the wire; the later ones are in
// guard_test.go, where they cost no keygen.
func TestECDSAKeygenLies(t *testing.T) {
	_, nodes := tsstest.Cluster(t, cluster, 2, patient)
	type k1 = *ecdsakeygen.KGRound1Message
	for i, l := range []lie{
		{"even N", "K1", "K1", spoil(func(m k1) { m.PaillierN[len(m.PaillierN)-1] &^= 1 }), nil},
		// The library reads this as a negative length, and slices with it.
		{"negative length inside a DLN proof", "K2", "K1", spoil(func(m k1) { m.Dlnproof_1[129] = []byte{0x80, 0, 0, 0, 0, 0, 0, 1} }), nil},
	} {
		for j, n := range nodes {
			if err := tss.StorePreParams(n.Keystore, tsstest.PreParams(2)[j]); err != nil {
				t.Fatal(err)
			}
		}
		r := keygenRequest(ecdsaKey, 2, 2)
		r.Batch = uint64(i)
		r.Session = tss.SessionName(r)
		expectLie(t, nodes, l, func(ctx context.Context, n tsstest.Node) error { _, err := n.Signer.Keygen(ctx, r); return err })
	}
}

// Whoever speaks last in round 3 can make the sum of all thetas 0: the library
// inverts it to nil and panics in its caller's goroutine. The node lives, the
// other party is suspected, nobody is accused, and the next turn signs.
func TestThetasThatCancelOut(t *testing.T) {
	net, nodes := tsstest.Cluster(t, cluster, 3, patient)
	shares, pub := tsstest.Deal(t, cluster, ecdsaKey, 1, 2, 3, 2)
	tsstest.Activate(t, nodes, shares)
	heard := make(chan []byte, 1)
	net.Filter = func(from, _ tss.PartyID, frame []byte) []byte {
		if from == nodes[0].ID && tss.NameOf(frame) == "S3" {
			tss.Forge(tsstest.Identity(0), cluster, frame, func(f *tss.Forged) {
				spoil(func(m *ecdsasigning.SignRound3Message) { heard <- m.Theta })(f.Payload)
			})
		}
		return frame
	}
	nodes[1].Signer.Tamper(func(name string, _ int, payload []byte) []byte {
		if name != "S3" {
			return payload
		}
		theta := new(big.Int).SetBytes(<-heard)
		theta.Sub(lib.S256().Params().N, theta)
		return spoil(func(m *ecdsasigning.SignRound3Message) { m.Theta = theta.Bytes() })(payload)
	})
	_, err := runOne(t, nodes, signRequest(ecdsaKey, make([]byte, 32), members(0, 1)...))
	wantBlame(t, err, tss.Failed, nodes[1].ID)
	net.Filter = nil
	another(t, nodes, ecdsaKey, pub, 7)
}
