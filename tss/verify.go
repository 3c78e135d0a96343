package tss

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
)

var errVerify = errors.New("signature does not verify under the derived key")

// Verify checks a signature with implementations that share no code with the
// signing library: decred's secp256k1 and crypto/ed25519. ECDSA must be low-S
// and its RecID recover the key. It is also how a member checks a signature
// that another one finished.
func Verify(c Curve, masterPub []byte, tweak [32]byte, digest []byte, sig Signature) error {
	child, err := ChildKey(c, masterPub, tweak)
	if err != nil {
		return err
	}
	switch c {
	case Ed25519:
		if sig.RecID != 0 || !ed25519.Verify(child, digest, sig.Bytes()) {
			return errVerify
		}
		return nil
	case Secp256k1:
		if len(digest) != 32 {
			return fmt.Errorf("digest of %d bytes", len(digest))
		}
		pub, err := secp256k1.ParsePubKey(child)
		if err != nil {
			return err
		}
		var r, s secp256k1.ModNScalar
		if r.SetBytes(&sig.R) != 0 || s.SetBytes(&sig.S) != 0 || r.IsZero() || s.IsZero() || s.IsOverHalfOrder() {
			return fmt.Errorf("%w: not canonical", errVerify)
		}
		if !ecdsa.NewSignature(&r, &s).Verify(digest, pub) {
			return errVerify
		}
		if got, err := recoverKey(digest, sig); err != nil || !bytes.Equal(got, child) {
			return fmt.Errorf("%w: wrong recovery id", errVerify)
		}
		return nil
	}
	return fmt.Errorf("unknown curve %q", c)
}

// normalise makes s the lower of the two that verify.
func normalise(sig *Signature) {
	var s secp256k1.ModNScalar
	s.SetBytes(&sig.S)
	if s.IsOverHalfOrder() {
		sig.S = s.Negate().Bytes()
	}
}

// recoveryID finds the recovery id by trying.
func recoveryID(r Request, masterPub []byte, sig Signature) (byte, error) {
	child, err := ChildKey(Secp256k1, masterPub, r.Tweak)
	if err != nil {
		return 0, err
	}
	for id := range byte(4) {
		sig.RecID = id
		if got, err := recoverKey(r.Digest, sig); err == nil && bytes.Equal(got, child) {
			return id, nil
		}
	}
	return 0, errVerify
}

func recoverKey(digest []byte, sig Signature) ([]byte, error) {
	const uncompressedBase = 27
	if sig.RecID > 3 {
		return nil, errVerify
	}
	compact := append([]byte{uncompressedBase + sig.RecID}, sig.Bytes()...)
	pub, _, err := ecdsa.RecoverCompact(compact, digest)
	if err != nil {
		return nil, err
	}
	return pub.SerializeCompressed(), nil
}
