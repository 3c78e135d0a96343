package address

import (
	"bytes"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"filippo.io/edwards25519"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"
)

// What a child key signs with. Each has a delta of its own, so that one path
// never gives one effective key to two algorithms (spec: signing §4).
const (
	KeyECDSA   = "ecdsa"
	KeyBIP340  = "bip340"
	KeyEd25519 = "ed25519"
)

// The chains and roles a path may name (spec: signing §4).
const (
	ChainBTC = "btc"
	ChainETH = "eth"
	ChainSOL = "sol"
	ChainICP = "icp"

	RoleMinter  = "minter"
	RolePool    = "pool"
	RoleHot     = "hot"
	RoleGas     = "gas"
	RoleDeposit = "deposit"
)

// Path says which child of a master key is meant. A child is never the parent
// of another.
type Path struct {
	Chain      string   `cbor:"1,keyasint"`
	Role       string   `cbor:"2,keyasint"`
	Subaccount [32]byte `cbor:"3,keyasint"` // zeros: the vault's own address
	Counter    uint64   `cbor:"4,keyasint"` // 0, but for the hashes that give no usable key
}

// Bytes is the deterministic CBOR of [chain, role, subaccount, counter].
func (p Path) Bytes() []byte {
	b := cborHead(nil, cborArray, 4)
	b = cborText(b, p.Chain)
	b = cborText(b, p.Role)
	b = cborBytes(b, p.Subaccount[:])
	return cborHead(b, cborUint, p.Counter)
}

// Delta is the tweak that makes a child of a master key (spec: signing §4):
//
//	H     = SHA-512("coffer/derive/1" ‖ CBOR([scheme, keyID, masterPub, path]))
//	delta = H as a big-endian integer, mod the order of the scheme's group
//
// with scheme and keyID as text strings, masterPub as a byte string and path as
// the array of Path.Bytes. The array is what makes the concatenation of the
// spec unambiguous. The result is big-endian for both curves; Ed25519 libraries
// want it reversed.
func Delta(scheme, keyID string, masterPub []byte, p Path) ([32]byte, error) {
	var order *big.Int
	switch scheme {
	case KeyECDSA, KeyBIP340:
		order = secp256k1.Params().N
	case KeyEd25519:
		order = ed25519Order()
	default:
		return [32]byte{}, fmt.Errorf("derive: unknown key scheme %q", scheme)
	}
	b := cborHead([]byte("coffer/derive/1"), cborArray, 4)
	b = cborText(b, scheme)
	b = cborText(b, keyID)
	b = cborBytes(b, masterPub)
	b = append(b, p.Bytes()...)
	h := sha512.Sum512(b)
	d := new(big.Int).SetBytes(h[:])
	var delta [32]byte
	d.Mod(d, order).FillBytes(delta[:])
	return delta, nil
}

// Child is a derived public key and how it came about.
type Child struct {
	Path  Path     // with the counter that was used
	Delta [32]byte // big-endian, below the group's order, not zero
	Pub   []byte   // 33 bytes compressed for secp256k1, 32 bytes for Ed25519
}

// deriveTries bounds the counting up. One hash fails with probability 2⁻²⁵⁰, so
// the second try is already never seen.
const deriveTries = 16

// Derive gives the child of masterPub at p: child = masterPub + delta·G. Where
// delta is zero or the child is the point at infinity, which the signing
// library does not survive, the counter is counted up (spec: signing §4).
func Derive(scheme, keyID string, masterPub []byte, p Path) (Child, error) {
	child := ChildSecp256k1
	if scheme == KeyEd25519 {
		child = ChildEd25519
	}
	return derive(scheme, keyID, masterPub, p, child)
}

func derive(scheme, keyID string, masterPub []byte, p Path, child func([]byte, [32]byte) ([]byte, error)) (Child, error) {
	for range deriveTries {
		delta, err := Delta(scheme, keyID, masterPub, p)
		if err != nil {
			return Child{}, err
		}
		pub, err := child(masterPub, delta)
		if err == nil {
			return Child{Path: p, Delta: delta, Pub: pub}, nil
		}
		if !errors.Is(err, errNoChild) {
			return Child{}, fmt.Errorf("derive %s/%s from key %q: %w", p.Chain, p.Role, keyID, err)
		}
		p.Counter++
	}
	return Child{}, fmt.Errorf("derive %s/%s from key %q: no usable child", p.Chain, p.Role, keyID)
}

var (
	errNoChild   = errors.New("tweak gives no usable key")
	errMasterKey = errors.New("not a canonical master public key")
)

// ChildSecp256k1 adds delta·G to a compressed public key.
func ChildSecp256k1(masterPub []byte, delta [32]byte) ([]byte, error) {
	if len(masterPub) != secp256k1.PubKeyBytesLenCompressed {
		return nil, errMasterKey
	}
	master, err := secp256k1.ParsePubKey(masterPub)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errMasterKey, err)
	}
	var d secp256k1.ModNScalar
	if d.SetBytes(&delta) != 0 || d.IsZero() {
		return nil, errNoChild
	}
	var m, t, sum secp256k1.JacobianPoint
	master.AsJacobian(&m)
	secp256k1.ScalarBaseMultNonConst(&d, &t)
	secp256k1.AddNonConst(&m, &t, &sum)
	if (sum.X.IsZero() && sum.Y.IsZero()) || sum.Z.IsZero() {
		return nil, errNoChild
	}
	sum.ToAffine()
	return secp256k1.NewPublicKey(&sum.X, &sum.Y).SerializeCompressed(), nil
}

// ChildEd25519 adds delta·B to an Ed25519 public key, without clamping. A
// master key outside the prime-order group is refused: its children would keep
// the small-order part.
func ChildEd25519(masterPub []byte, delta [32]byte) ([]byte, error) {
	m, err := new(edwards25519.Point).SetBytes(masterPub)
	if err != nil || !bytes.Equal(m.Bytes(), masterPub) || !primeOrder(m) {
		return nil, errMasterKey
	}
	slices.Reverse(delta[:])
	d, err := edwards25519.NewScalar().SetCanonicalBytes(delta[:])
	if err != nil || d.Equal(edwards25519.NewScalar()) == 1 {
		return nil, errNoChild
	}
	sum := new(edwards25519.Point).Add(m, new(edwards25519.Point).ScalarBaseMult(d))
	if sum.Equal(edwards25519.NewIdentityPoint()) == 1 {
		return nil, errNoChild
	}
	return sum.Bytes(), nil
}

// primeOrder reports whether L·p is the identity and p is not: with
// p = q + t, t of small order, (L-1)·p + p = L·t.
func primeOrder(p *edwards25519.Point) bool {
	identity := edwards25519.NewIdentityPoint()
	one := make([]byte, 32)
	one[0] = 1
	s, err := edwards25519.NewScalar().SetCanonicalBytes(one)
	if err != nil {
		return false
	}
	lp := new(edwards25519.Point).ScalarMult(s.Negate(s), p)
	return p.Equal(identity) == 0 && lp.Add(lp, p).Equal(identity) == 1
}

// ed25519Order is L = 2²⁵² + 27742317777372353535851937790883648493.
func ed25519Order() *big.Int {
	tail, _ := new(big.Int).SetString("27742317777372353535851937790883648493", 10)
	return tail.Add(tail, new(big.Int).Lsh(big.NewInt(1), 252))
}

// The four CBOR types a path is made of. Why not the codec of package ledger:
// it imports this package, and the SDK has to write the same dozen bytes by
// hand anyway. A test compares with the library.
const (
	cborUint  = 0 << 5
	cborBstr  = 2 << 5
	cborTstr  = 3 << 5
	cborArray = 4 << 5
)

func cborHead(b []byte, major byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(b, major|byte(n))
	case n < 1<<8:
		return append(b, major|24, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, major|25), uint16(n))
	case n < 1<<32:
		return binary.BigEndian.AppendUint32(append(b, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, major|27), n)
}

func cborText(b []byte, s string) []byte {
	return append(cborHead(b, cborTstr, uint64(len(s))), s...)
}

func cborBytes(b, s []byte) []byte {
	return append(cborHead(b, cborBstr, uint64(len(s))), s...)
}
