package ledger

import (
	"bytes"
	"crypto/ed25519"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	"slices"
)

// shareReady counts members that hold a new KeyShare. Different transcripts or
// public keys for one try mean that somebody told two stories: the try is
// dropped and a fresh one planned.
func (x *execution) shareReady(m MemberID, r ShareReady) Code {
	s := x.s
	if s.Next == nil || s.Opening != nil || s.Next.Kind == NextRollback || !s.Next.Epoch.Has(m) || r.Epoch != s.Next.Epoch.Number {
		return NotAllowed
	}
	i := slices.IndexFunc(s.Next.Keys, func(k NextKey) bool { return k.Key == r.Key })
	if i < 0 {
		return NotAllowed
	}
	k := s.Next.Keys[i]
	if r.Try != k.Try {
		return NotAllowed
	}
	if err := checkMasterKey(r.Key, r.Pub); err != nil {
		return Malformed
	}
	if s.Next.Kind == NextReshare && !bytes.Equal(s.Keys.at(r.Key).Pub, r.Pub) {
		return Malformed // resharing never changes a key, so no address ever moves
	}
	if len(k.Ready) > 0 && (!bytes.Equal(k.Pub, r.Pub) || k.Transcript != r.Transcript) {
		x.emit(Event{Name: "keygen-disagreement", Batch: k.Batch, Note: r.Key})
		x.nextTry(i)
		return OK
	}
	k.Pub, k.Transcript = r.Pub, r.Transcript
	k.Ready = withMember(k.Ready, m)
	s.setNextKey(i, k)
	if len(k.Ready) == s.Next.Epoch.N() && len(k.Tests) == 0 {
		s.closeBatch(k.Batch)
		x.planTests(i)
	}
	return OK
}

// testSig counts members that verified a test signature; it is verified here
// too, so a member's word alone opens nothing.
func (x *execution) testSig(m MemberID, t TestSig) Code {
	s := x.s
	b, ok := s.Batches.get(t.Batch)
	if !ok || b.Kind != BatchTest || b.Done {
		return OK
	}
	if slices.Contains(s.Infos.at(s.Epoch().Number).Tests, t.Batch) { // after the flip: one verified signature is the proof
		k, ok := s.Keys.get(b.Key)
		if !ok || !VerifyKey(k.Curve, k.Pub, b.Digest, t.Signature) {
			return BadSignature
		}
		s.closeBatch(t.Batch)
		x.tested(t.Batch)
		return OK
	}
	if s.Next == nil {
		return NotAllowed
	}
	i := slices.IndexFunc(s.Next.Keys, func(k NextKey) bool { return slices.Contains(k.Tests, t.Batch) })
	if i < 0 || !s.Next.Epoch.Has(m) {
		return NotAllowed
	}
	k := s.Next.Keys[i]
	if !VerifyKey(curveOf(k.Key), k.Pub, b.Digest, t.Signature) {
		return BadSignature
	}
	k.Tested = slices.Clone(k.Tested)
	j := slices.IndexFunc(k.Tested, func(t2 TestSeen) bool { return t2.Batch == t.Batch })
	if j < 0 {
		return NotAllowed
	}
	k.Tested[j].Members = withMember(k.Tested[j].Members, m)
	if len(k.Tested[j].Members) == s.Next.Epoch.N() {
		s.closeBatch(t.Batch)
	}
	s.setNextKey(i, k)
	if s.nextReady() {
		s.Opening = &Opening{Epoch: s.Next.Epoch} // Height, Head and Root when this command is folded
		x.emit(Event{Name: "epoch-opened"})
	}
	return OK
}

// flip puts an opened epoch in force: Q members of the old one have promised
// the head that opened it (spec: consensus R7).
func (x *execution) flip(_ MemberID, c Certificate) Code {
	s := x.s
	o := s.Opening
	if o == nil {
		return OK // somebody was faster
	}
	want := Approval{
		Cluster: s.Cluster, Epoch: s.Epoch().Number, Height: o.Height, Head: o.Head,
		RootHeight: o.Height, Root: o.Root, Members: o.Epoch.MembersHash(),
	}
	if c.Approval != want {
		return BadSignature
	}
	if err := c.Verify(s.Cluster, s.Epoch()); err != nil {
		return BadSignature
	}
	next, old := s.Next, s.Epoch()
	s.Epochs = append(slices.Clip(s.Epochs), o.Epoch)
	s.Flips = append(slices.Clip(s.Flips), c)
	s.Opening, s.Next = nil, nil
	for _, k := range next.Keys {
		s.Keys.put(k.Key, Key{ID: k.Key, Curve: curveOf(k.Key), Pub: k.Pub, Epoch: k.Epoch, Try: k.Try})
	}
	x.enter(old, next)
	if len(s.Epochs) == 2 {
		x.watchVaults()
	}
	x.planActiveTests()
	x.countBallots()
	x.emit(Event{Name: "epoch", Note: o.Epoch.MembersHash().String()})
	return OK
}

// Curves and the two master keys of a new cluster.
const (
	CurveSecp256k1 = "secp256k1"
	CurveEd25519   = "ed25519"

	KeyECDSA1   = "ecdsa-1"
	KeyEd255191 = "ed25519-1"
)

func curveOf(key string) string {
	if key == KeyEd255191 {
		return CurveEd25519
	}
	return CurveSecp256k1
}

func checkMasterKey(key string, pub []byte) error {
	if curveOf(key) == CurveEd25519 {
		if len(pub) != ed25519.PublicKeySize {
			return ErrNotCanonical
		}
		return nil
	}
	if len(pub) != secp256k1.PubKeyBytesLenCompressed {
		return ErrNotCanonical
	}
	_, err := secp256k1.ParsePubKey(pub)
	return err
}

// VerifyKey reports whether sig (r‖s, low s; or Ed25519's 64 bytes) is pub's
// signature over a digest.
func VerifyKey(curve string, pub []byte, digest Hash, sig []byte) bool {
	if len(sig) != 64 {
		return false
	}
	if curve == CurveEd25519 {
		return len(pub) == ed25519.PublicKeySize && ed25519.Verify(pub, digest[:], sig)
	}
	p, err := secp256k1.ParsePubKey(pub)
	if err != nil {
		return false
	}
	var r, s secp256k1.ModNScalar
	if r.SetByteSlice(sig[:32]) || s.SetByteSlice(sig[32:]) || r.IsZero() || s.IsZero() || s.IsOverHalfOrder() {
		return false
	}
	return ecdsa.NewSignature(&r, &s).Verify(digest[:], p)
}
