package tss

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"filippo.io/edwards25519"
	"github.com/bnb-chain/tss-lib/v2/crypto"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"

	"github.com/coffer-network/coffer/tss/keystore"
)

// Deadlines of a resharing, from when all joined (spec: signing §10).
const (
	defaultECDSAReshare = 10 * time.Minute
	defaultEdDSAReshare = time.Minute
)

// Reshare joins the session and takes part as what the request makes of this
// member: a dealer gives the new holders their parts of its KeyShare, a receiver
// gets a fresh KeyShare of the same key, staged in the keystore under (key,
// epoch, try). The public key stays; the KeyShares dealt from stay too, until
// the caller has them wiped.
//
// At a member that only deals the result has an empty ID. Errors are those of
// Keygen.
func (s *Signer) Reshare(ctx context.Context, r Request) (KeygenResult, error) {
	var out KeygenResult
	if r.Kind != Reshare {
		return out, fmt.Errorf("reshare: request is a %s", r.Kind)
	}
	if err := r.check(s.self, s.cfg.Cluster); err != nil {
		return out, fmt.Errorf("reshare: %w", err)
	}
	r = r.sorted()
	if r.Deadline <= 0 {
		r.Deadline = defaultECDSAReshare
		if r.Key.Curve == Ed25519 {
			r.Deadline = defaultEdDSAReshare
		}
	}
	protocol, err := protocolOf(Reshare, r.Key.Curve)
	if err != nil {
		return out, fmt.Errorf("reshare: %w", err)
	}
	if _, err := decompress(r.Key.Curve, r.From.Pub); err != nil {
		return out, fmt.Errorf("reshare: public key: %w", err)
	}
	as := r.rolesOf(s.self)
	if r.Key.Curve == Secp256k1 && receiver.of(as) {
		if err := s.havePreParams(); err != nil {
			return out, fmt.Errorf("reshare: %w", err)
		}
	}
	stored, err := s.storedModuli()
	if err != nil {
		return out, fmt.Errorf("reshare: %w", err)
	}
	old, err := s.oldShare(r, as)
	if err != nil {
		return out, fmt.Errorf("reshare %s from epoch %d: %w", r.Key.ID, r.From.Epoch, err)
	}
	j := &job{Request: r, Share: old, Stored: joinModuli(stored)}
	if r.Key.Curve == Secp256k1 && receiver.of(as) {
		j.late = func(j *job) (err error) {
			j.PreParams, err = takePreParams(s.cfg.Keystore)
			return err
		}
	}
	v, x, err := s.session(ctx, protocol, j)
	if err != nil {
		return out, fmt.Errorf("reshare of %s to epoch %d try %d: %w", r.Key.ID, r.Epoch, r.Try, err)
	}
	made, ok := v.(*reshared)
	switch {
	case !ok:
		return out, fmt.Errorf("reshare: library returned a %T", v)
	case receiver.of(as):
		return s.stage(r, x, made.share, stored)
	}
	return KeygenResult{Pub: r.From.Pub, TranscriptHash: x.transcript()}, nil
}

// oldShare loads, checks and audits the KeyShare a dealer deals from.
func (s *Signer) oldShare(r Request, as role) (_ *keystore.KeyShare, err error) {
	if !dealer.of(as) {
		return nil, nil
	}
	id := keystore.ShareID{Key: r.Key.ID, Epoch: r.From.Epoch, Try: r.From.Try}
	share, state, err := s.cfg.Keystore.KeyShare(id)
	if err != nil {
		return nil, errors.Join(ErrNoKeyShare, err)
	}
	defer func() {
		if err != nil {
			share.Wipe()
		}
	}()
	switch {
	case state == keystore.Staged:
		return nil, fmt.Errorf("%w: %s is only staged", ErrNoKeyShare, id)
	case share.Curve != string(r.Key.Curve):
		return nil, fmt.Errorf("%w: %s is of curve %s", ErrNoKeyShare, id, share.Curve)
	case share.M != r.From.M:
		return nil, fmt.Errorf("signing threshold of %s is %d, not %d", id, share.M, r.From.M)
	case string(share.Pub) != string(r.From.Pub):
		return nil, fmt.Errorf("%w: %s is of another public key", ErrNoKeyShare, id)
	}
	for _, p := range r.From.Holders {
		if !slices.Contains(share.Parties, [32]byte(p)) {
			return nil, fmt.Errorf("dealer %s holds no share of %s", p, id)
		}
	}
	if err := Audit(&share, r.Cluster, s.self); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrNoKeyShare, id, err)
	}
	return &share, nil
}

// Audit checks a KeyShare of holder against the public commitments stored with
// it: all public shares lie on one polynomial whose value at 0 is the public
// key, the secret belongs to holder's, and all moduli pass the stateless parts
// of K1 and K2 (spec: signing §6 and §8.2). It costs up to a second for an ECDSA
// share.
func Audit(k *keystore.KeyShare, cluster [32]byte, holder PartyID) error {
	self := slices.Index(k.Parties, [32]byte(holder))
	if self < 0 {
		return fmt.Errorf("%w: %s is no holder of it", errShare, holder)
	}
	if Curve(k.Curve) == Ed25519 {
		d, err := decodeEdDSA(k, cluster)
		if err != nil {
			return err
		}
		defer wipeInts(d.Xi)
		return acceptEdDSA(d, self, k.M)
	}
	d, err := decodeECDSA(k, cluster)
	if err != nil {
		return err
	}
	defer wipeECDSA(d)
	if err := acceptECDSA(d, self, k.M, nil); err != nil {
		return err
	}
	if d.PaillierSK.N.Cmp(d.PaillierPKs[self].N) != 0 || d.NTildei.Cmp(d.NTildej[self]) != 0 {
		return fmt.Errorf("%w: own moduli differ from those published", errShare)
	}
	for i := range d.Ks {
		if err := auditModulus("N", d.PaillierPKs[i].N); err != nil {
			return fmt.Errorf("party %d: %w", i, err)
		}
		if err := auditModulus("NTilde", d.NTildej[i]); err != nil {
			return fmt.Errorf("party %d: %w", i, err)
		}
		if err := auditBases(d.NTildej[i], d.H1j[i].Bytes(), d.H2j[i].Bytes()); err != nil {
			return fmt.Errorf("party %d: %w", i, err)
		}
	}
	return nil
}

// decompress decodes a public key as on the chains into a point of the library.
func decompress(c Curve, b []byte) (*crypto.ECPoint, error) {
	var x, y *big.Int
	if c == Ed25519 {
		p, err := new(edwards25519.Point).SetBytes(b)
		if err != nil {
			return nil, err
		}
		x = edwardsX(p)
		le := reversed(b)
		le[0] &= 0x7f
		y = new(big.Int).SetBytes(le)
	} else {
		p, err := secp256k1.ParsePubKey(b)
		if err != nil {
			return nil, err
		}
		x, y = p.X(), p.Y()
	}
	if !onCurve(c, x, y) {
		return nil, errors.New("not a point of the group")
	}
	return crypto.NewECPoint(ellipticCurve(c), x, y)
}
