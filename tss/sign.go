package tss

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bnb-chain/tss-lib/v2/common"

	"github.com/coffer-network/coffer/tss/keystore"
)

const (
	defaultECDSADeadline = 30 * time.Second
	defaultEdDSADeadline = 10 * time.Second
)

// Sign joins the session and returns its signature, verified under the derived
// key and stored in the keystore. Errors: ErrJoined, ErrBusy, ErrNoKeyShare,
// ErrClosed, *Blame, the context's; anything else is a mistake in the request
// or the keystore failing.
func (s *Signer) Sign(ctx context.Context, r Request) (Signature, error) {
	var sig Signature
	if r.Kind != Sign {
		return sig, fmt.Errorf("sign: request is a %s", r.Kind)
	}
	if err := r.check(s.self, s.cfg.Cluster); err != nil {
		return sig, fmt.Errorf("sign: %w", err)
	}
	r = r.sorted()
	if r.Deadline <= 0 {
		r.Deadline = defaultECDSADeadline
		if r.Key.Curve == Ed25519 {
			r.Deadline = defaultEdDSADeadline
		}
	}
	share, err := s.shareFor(r)
	if err != nil {
		return sig, fmt.Errorf("sign batch %d attempt %d input %d: %w", r.Batch, r.Attempt, r.Input, err)
	}
	pub := share.Pub
	protocol, err := protocolOf(Sign, r.Key.Curve)
	if err != nil {
		return sig, fmt.Errorf("sign: %w", err)
	}
	v, x, err := s.session(ctx, protocol, &job{Request: r, Share: share})
	if err != nil {
		return sig, fmt.Errorf("sign batch %d attempt %d input %d turn %d: %w", r.Batch, r.Attempt, r.Input, r.Turn, err)
	}
	sig, err = finish(r, pub, v)
	if err != nil {
		// A bad s_i names nobody: all parties of the turn are suspected.
		return sig, x.suspect(protocol.rounds, Failed, err.Error(), x.others()...)
	}
	if err := s.cfg.Keystore.SaveSignature(r.Batch, r.Attempt, r.Input, encode(sig)); err != nil {
		return sig, fmt.Errorf("sign: %w", err)
	}
	s.log.Info("signed", "session", r.Session, "batch", r.Batch, "attempt", r.Attempt, "input", r.Input, "turn", r.Turn)
	return sig, nil
}

// Finished returns the signature this node stored for an input, if any.
func (s *Signer) Finished(batch, attempt uint64, input uint16) (Signature, bool, error) {
	b, err := s.cfg.Keystore.Signature(batch, attempt, input)
	if err != nil || b == nil {
		return Signature{}, false, err
	}
	var sig Signature
	if err := decode(b, &sig); err != nil {
		return sig, false, fmt.Errorf("stored signature of batch %d: %w", batch, err)
	}
	return sig, true, nil
}

// shareFor loads the KeyShare a request needs, before the session is joined: a
// share that is not there costs no turn.
func (s *Signer) shareFor(r Request) (_ *keystore.KeyShare, err error) {
	id := keystore.ShareID{Key: r.Key.ID, Epoch: r.Epoch, Try: r.Try}
	if old, err := s.cfg.Keystore.CameFromBackup(id); err != nil || old {
		return nil, errors.Join(ErrRestored, err)
	}
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
	case state == keystore.Staged && !r.Staged:
		return nil, fmt.Errorf("%w: %s is only staged", ErrNoKeyShare, id)
	case share.Curve != string(r.Key.Curve):
		return nil, fmt.Errorf("%w: %s is of curve %s", ErrNoKeyShare, id, share.Curve)
	case len(r.Parties) != share.M:
		return nil, fmt.Errorf("%d parties for signing threshold %d", len(r.Parties), share.M)
	}
	for _, p := range r.Parties {
		if !slices.Contains(share.Parties, [32]byte(p)) {
			return nil, fmt.Errorf("party %s holds no share of %s", p, id)
		}
	}
	return &share, nil
}

// finish turns the library's output into a signature that an independent
// implementation accepts under the derived key.
func finish(r Request, masterPub []byte, v any) (Signature, error) {
	out, ok := v.(*common.SignatureData)
	if !ok {
		return Signature{}, fmt.Errorf("library returned a %T", v)
	}
	if len(out.Signature) != 64 {
		return Signature{}, fmt.Errorf("library returned %d bytes of signature", len(out.Signature))
	}
	sig := Signature{R: [32]byte(out.Signature[:32]), S: [32]byte(out.Signature[32:])}
	if r.Key.Curve == Secp256k1 {
		normalise(&sig)
		recID, err := recoveryID(r, masterPub, sig)
		if err != nil {
			return Signature{}, err
		}
		sig.RecID = recID
	}
	return sig, Verify(r.Key.Curve, masterPub, r.Tweak, r.Digest, sig)
}
