package sim

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"slices"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node"
	"github.com/coffer-network/coffer/tss"
)

// dealer stands in for the key shares: he holds the master keys whole. He signs
// only what a session of m members agrees on, each signature with a nonce of
// its own, since threshold signatures are randomised.
type dealer struct {
	s     *sim
	drawn uint64
}

func newDealer(s *sim) *dealer { return &dealer{s: s} }

func (d *dealer) secret(key string, try uint64) [32]byte { return d.s.secret("key "+key, try) }

// public is the master public key of one try.
func (d *dealer) public(key string, try uint64) []byte {
	secret := d.secret(key, try)
	if key == ledger.KeyEd255191 {
		return ed25519.NewKeyFromSeed(secret[:]).Public().(ed25519.PublicKey)
	}
	return secp256k1.PrivKeyFromBytes(secret[:]).PubKey().SerializeCompressed()
}

// sign signs what r asks for.
func (d *dealer) sign(r tss.Request) tss.Signature {
	d.drawn++
	secret := d.secret(r.Key.ID, r.Try)
	if r.Key.Curve == tss.Ed25519 {
		sig := ed25519.Sign(ed25519.NewKeyFromSeed(secret[:]), r.Digest)
		return tss.Signature{R: [32]byte(sig[:32]), S: [32]byte(sig[32:])}
	}
	var child, tweak, z secp256k1.ModNScalar
	child.SetBytes(&secret)
	tweak.SetBytes(&r.Tweak)
	child.Add(&tweak)
	z.SetByteSlice(r.Digest)
	for i := 0; ; i++ {
		nonce := sha256.Sum256(fmt.Appendf(nil, "nonce %x %d %d", secret, d.drawn, i))
		if sig, ok := signWith(&child, &z, nonce); ok {
			return sig
		}
	}
}

// signWith is ECDSA with a given nonce, low S. The library's own signing is
// deterministic, and would never show two signatures of one payload.
func signWith(key, z *secp256k1.ModNScalar, nonce [32]byte) (tss.Signature, bool) {
	var k, r, s, inverse secp256k1.ModNScalar
	var p secp256k1.JacobianPoint
	if k.SetBytes(&nonce) != 0 || k.IsZero() {
		return tss.Signature{}, false
	}
	secp256k1.ScalarBaseMultNonConst(&k, &p)
	p.ToAffine()
	if r.SetBytes(p.X.Bytes()) != 0 || r.IsZero() {
		return tss.Signature{}, false
	}
	odd := byte(p.Y.IsOddBit())
	inverse.InverseValNonConst(&k)
	s.Mul2(&r, key).Add(z).Mul(&inverse)
	if s.IsZero() {
		return tss.Signature{}, false
	}
	if s.IsOverHalfOrder() {
		s.Negate()
		odd ^= 1
	}
	return tss.Signature{R: r.Bytes(), S: s.Bytes(), RecID: odd}, true
}

// runKeygens makes a try's key as soon as every member waits for it: a keygen
// needs them all, and leaves all of them with a share or none.
func (s *sim) runKeygens() {
	if s.reference.Next == nil || s.reference.Opening != nil || !s.chance(25) {
		return
	}
	for _, k := range s.reference.Next.Keys {
		ready := 0
		for _, m := range s.members {
			if m.up && m.awaitsKeygen(k) {
				ready++
			}
		}
		if ready < len(s.members) {
			continue
		}
		s.rep.Sessions++
		aborted := s.trouble(20)
		if aborted {
			s.rep.Aborted++
		}
		pub := s.dealer.public(k.Key, k.Try)
		for _, m := range s.members {
			m.disk.tried[k.Batch] = k.Try
			if !aborted {
				m.disk.ready = append(m.disk.ready, ledger.ShareReady{
					Key: k.Key, Epoch: s.reference.Next.Epoch.Number, Try: k.Try, Pub: pub, Transcript: hashOf(pub),
				})
			}
		}
	}
}

// lostKeygens gives up the tries that this member took part in and has nothing
// of, whether it saw them fail or was killed meanwhile.
func (m *member) lostKeygens() {
	for _, t := range node.PlanKeygens(m.state, m.id) {
		g := ledger.GaveUp{Batch: t.Key.Batch, Attempt: t.Attempt.K}
		has := slices.ContainsFunc(m.disk.ready, func(r ledger.ShareReady) bool { return r.Key == t.Key.Key && r.Try == t.Key.Try })
		if m.disk.tried[g.Batch] >= t.Key.Try && !has && !slices.ContainsFunc(m.gaveUp, func(o ledger.GaveUp) bool {
			return o.Batch == g.Batch && o.Attempt == g.Attempt
		}) {
			m.gaveUp = append(m.gaveUp, g)
		}
	}
}

func hashOf(b []byte) ledger.Hash { return sha256.Sum256(b) }
