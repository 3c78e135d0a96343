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
	s      *sim
	drawn  uint64
	origin map[ledger.Generation]ledger.Generation // by generation of KeyShares: the keygen whose key they are of
}

func newDealer(s *sim) *dealer {
	return &dealer{s: s, origin: map[ledger.Generation]ledger.Generation{}}
}

func (d *dealer) secret(g ledger.Generation) [32]byte {
	o := d.origin[g]
	return d.s.secret("key "+o.Key, o.Try)
}

// public is the master public key of a generation.
func (d *dealer) public(g ledger.Generation) []byte {
	secret := d.secret(g)
	if g.Key == ledger.KeyEd255191 {
		return ed25519.NewKeyFromSeed(secret[:]).Public().(ed25519.PublicKey)
	}
	return secp256k1.PrivKeyFromBytes(secret[:]).PubKey().SerializeCompressed()
}

// sign signs what r asks for.
func (d *dealer) sign(r tss.Request) tss.Signature {
	d.drawn++
	secret := d.secret(ledger.Generation{Key: r.Key.ID, Epoch: r.Epoch, Try: r.Try})
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

// runKeygens makes a try's KeyShares as soon as everybody whom it needs waits for
// it: it needs them all, and leaves all of them with a share or none.
func (s *sim) runKeygens() {
	if s.reference.Next == nil || s.reference.Opening != nil || !s.chance(25) {
		return
	}
	for _, k := range s.reference.Next.Keys {
		b, _ := s.reference.Batches.Get(k.Batch)
		if b.Done {
			continue
		}
		a := b.Newest()
		var in []*member
		for _, m := range s.members {
			if slices.Contains(a.Roster, m.id) || slices.Contains(a.Dealers, m.id) {
				in = append(in, m)
			}
		}
		if slices.ContainsFunc(in, func(m *member) bool { return !m.up || !m.awaitsKeygen(k) }) {
			continue
		}
		s.session(k, a, in)
	}
}

// session is one keygen or resharing.
func (s *sim) session(k ledger.NextKey, a ledger.Attempt, in []*member) {
	s.rep.Sessions++
	aborted := s.trouble(20)
	if aborted {
		s.rep.Aborted++
	}
	made := ledger.Generation{Key: k.Key, Epoch: a.Epoch, Try: a.Try}
	s.dealer.origin[made] = made
	if len(a.Dealers) > 0 {
		now, _ := s.reference.Keys.Get(k.Key)
		from := ledger.Generation{Key: k.Key, Epoch: now.Epoch, Try: now.Try}
		s.dealer.origin[made] = s.dealer.origin[from]
		for _, m := range in {
			if slices.Contains(a.Dealers, m.id) && !m.disk.shares[from] {
				s.fail("member %d deals %s and does not hold it", m.i, from)
			}
		}
	}
	pub := s.dealer.public(made)
	for _, m := range in {
		m.disk.tried[k.Batch] = k.Try
		if aborted || !slices.Contains(a.Roster, m.id) {
			continue
		}
		m.disk.shares[made] = true
		m.disk.ready = append(m.disk.ready, ledger.ShareReady{Key: k.Key, Epoch: a.Epoch, Try: k.Try, Pub: pub, Transcript: hashOf(fmt.Append(pub, made))})
	}
}

// lostKeygens gives up the tries that this member took part in and has nothing
// of, whether it saw them fail or was killed meanwhile.
func (m *member) lostKeygens() {
	for _, t := range node.PlanKeygens(m.state, m.id) {
		g := ledger.GaveUp{Batch: t.Key.Batch, Attempt: t.Attempt.K}
		if !slices.Contains(t.Attempt.Roster, m.id) {
			continue // it deals, and has nothing to show
		}
		has := slices.ContainsFunc(m.disk.ready, func(r ledger.ShareReady) bool {
			return r.Key == t.Key.Key && r.Epoch == t.Attempt.Epoch && r.Try == t.Key.Try
		})
		if m.disk.tried[g.Batch] >= t.Key.Try && !has && !slices.ContainsFunc(m.gaveUp, func(o ledger.GaveUp) bool {
			return o.Batch == g.Batch && o.Attempt == g.Attempt
		}) {
			m.gaveUp = append(m.gaveUp, g)
		}
	}
}

func hashOf(b []byte) ledger.Hash { return sha256.Sum256(b) }
