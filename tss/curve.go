package tss

import (
	"crypto/elliptic"
	"errors"
	"fmt"
	"math/big"

	"filippo.io/edwards25519"
	"github.com/bnb-chain/tss-lib/v2/crypto"
	lib "github.com/bnb-chain/tss-lib/v2/tss"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"
)

// libThreshold is the only place that knows the library counts one less: its
// t shares reveal nothing, t+1 sign.
func libThreshold(m int) int { return m - 1 }

func ellipticCurve(c Curve) elliptic.Curve {
	switch c {
	case Secp256k1:
		return lib.S256()
	case Ed25519:
		return lib.Edwards()
	}
	return nil
}

// curveOrder returns the order of the group, nil for an unknown curve.
func curveOrder(c Curve) *big.Int {
	if ec := ellipticCurve(c); ec != nil {
		return ec.Params().N
	}
	return nil
}

var (
	errChild = errors.New("the tweak gives no usable child key")
	one      = big.NewInt(1)
	two      = big.NewInt(2)
)

// ChildKey returns the compressed public key masterPub + tweak·G, computed
// without the signing library. The zero tweak is the master key itself.
func ChildKey(c Curve, masterPub []byte, tweak [32]byte) ([]byte, error) {
	switch c {
	case Secp256k1:
		pub, err := secp256k1.ParsePubKey(masterPub)
		if err != nil {
			return nil, fmt.Errorf("master key: %w", err)
		}
		if tweak == [32]byte{} {
			return pub.SerializeCompressed(), nil
		}
		var delta secp256k1.ModNScalar
		if overflow := delta.SetBytes(&tweak); overflow != 0 || delta.IsZero() {
			return nil, errChild
		}
		var master, shift, child secp256k1.JacobianPoint
		pub.AsJacobian(&master)
		secp256k1.ScalarBaseMultNonConst(&delta, &shift)
		secp256k1.AddNonConst(&master, &shift, &child)
		if (child.X.IsZero() && child.Y.IsZero()) || child.Z.IsZero() {
			return nil, errChild
		}
		child.ToAffine()
		return secp256k1.NewPublicKey(&child.X, &child.Y).SerializeCompressed(), nil
	case Ed25519:
		pub, err := new(edwards25519.Point).SetBytes(masterPub)
		if err != nil {
			return nil, fmt.Errorf("master key: %w", err)
		}
		if tweak == [32]byte{} {
			return pub.Bytes(), nil
		}
		delta, err := new(edwards25519.Scalar).SetCanonicalBytes(reversed(tweak[:]))
		if err != nil {
			return nil, errChild
		}
		child := new(edwards25519.Point).Add(pub, new(edwards25519.Point).ScalarBaseMult(delta))
		if child.Equal(edwards25519.NewIdentityPoint()) == 1 {
			return nil, errChild
		}
		return child.Bytes(), nil
	}
	return nil, fmt.Errorf("unknown curve %q", c)
}

// compressed encodes a library point as the chains do.
func compressed(c Curve, p *crypto.ECPoint) []byte {
	if c == Ed25519 {
		return edwardsBytes(p.X(), p.Y())
	}
	var x, y secp256k1.FieldVal
	x.SetByteSlice(p.X().Bytes())
	y.SetByteSlice(p.Y().Bytes())
	return secp256k1.NewPublicKey(&x, &y).SerializeCompressed()
}

// edwardsBytes is y in little-endian with the parity of x in the top bit. Both
// must be below the field's prime.
func edwardsBytes(x, y *big.Int) []byte {
	b := reversed(y.FillBytes(make([]byte, 32)))
	b[31] |= byte(x.Bit(0) << 7)
	return b
}

func reversed(b []byte) []byte {
	out := make([]byte, len(b))
	for i := range b {
		out[len(b)-1-i] = b[i]
	}
	return out
}

// invEight is 1/8 mod the order of the prime-order subgroup.
var invEight = func() *edwards25519.Scalar {
	var b [32]byte
	b[0] = 8
	return new(edwards25519.Scalar).Invert(must(new(edwards25519.Scalar).SetCanonicalBytes(b[:])))
}()

// onCurve reports whether (x, y) is a point of the prime-order group other than
// the identity. The coordinates must be below the field's prime already.
func onCurve(c Curve, x, y *big.Int) bool {
	if c == Secp256k1 {
		return lib.S256().IsOnCurve(x, y)
	}
	enc := edwardsBytes(x, y)
	p, err := new(edwards25519.Point).SetBytes(enc)
	if err != nil {
		return false
	}
	// Decoding recovers x from y: it has to be the x that was claimed.
	if recovered := edwardsX(p); recovered.Cmp(x) != 0 {
		return false
	}
	if p.Equal(edwards25519.NewIdentityPoint()) == 1 {
		return false
	}
	// 8·(P/8) drops whatever part of P lies outside the prime-order subgroup.
	q := new(edwards25519.Point).ScalarMult(invEight, p)
	return q.MultByCofactor(q).Equal(p) == 1
}

func edwardsX(p *edwards25519.Point) *big.Int {
	x, _, z, _ := p.ExtendedCoordinates()
	zInv := z.Invert(z)
	return new(big.Int).SetBytes(reversed(x.Multiply(x, zInv).Bytes()))
}
