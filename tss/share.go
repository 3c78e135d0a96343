package tss

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"

	"github.com/bnb-chain/tss-lib/v2/crypto"
	"github.com/bnb-chain/tss-lib/v2/crypto/paillier"
	ecdsakeygen "github.com/bnb-chain/tss-lib/v2/ecdsa/keygen"
	eddsakeygen "github.com/bnb-chain/tss-lib/v2/eddsa/keygen"

	"github.com/coffer-network/coffer/tss/keystore"
	"github.com/coffer-network/coffer/tss/preparams"
)

// errShare carries no detail of the decoder's: that would quote the secret.
var errShare = errors.New("key share does not decode")

// KeyShares are the library's JSON at rest, never gob: its gob decoder puts
// Ed25519 points on the default curve.
func decodeECDSA(k *keystore.KeyShare, cluster [32]byte) (*ecdsakeygen.LocalPartySaveData, error) {
	d := new(ecdsakeygen.LocalPartySaveData)
	if json.Unmarshal(k.Secret, d) != nil {
		return nil, errShare
	}
	n := len(k.Parties)
	if len(d.NTildej) != n || len(d.H1j) != n || len(d.H2j) != n || len(d.PaillierPKs) != n ||
		d.PaillierSK == nil || hasNil(d.NTildej) || hasNil(d.H1j) || hasNil(d.H2j) {
		return nil, errShare
	}
	for _, pk := range d.PaillierPKs {
		if pk == nil || pk.N == nil {
			return nil, errShare
		}
	}
	return d, checkShare(k, cluster, d.Ks, d.BigXj, d.ECDSAPub, d.Xi, d.ShareID)
}

func decodeEdDSA(k *keystore.KeyShare, cluster [32]byte) (*eddsakeygen.LocalPartySaveData, error) {
	d := new(eddsakeygen.LocalPartySaveData)
	if json.Unmarshal(k.Secret, d) != nil {
		return nil, errShare
	}
	return d, checkShare(k, cluster, d.Ks, d.BigXj, d.EDDSAPub, d.Xi, d.ShareID)
}

// wipeECDSA overwrites the secrets of a decoded share in memory.
func wipeECDSA(d *ecdsakeygen.LocalPartySaveData) {
	wipeInts(d.Xi, d.P, d.Q, d.Alpha, d.Beta)
	if sk := d.PaillierSK; sk != nil {
		wipeInts(sk.LambdaN, sk.PhiN, sk.P, sk.Q)
	}
}

// decodeShare returns the library's struct of the share's curve.
func decodeShare(k *keystore.KeyShare, cluster [32]byte) (any, error) {
	if Curve(k.Curve) == Ed25519 {
		return decodeEdDSA(k, cluster)
	}
	return decodeECDSA(k, cluster)
}

func hasNil(xs []*big.Int) bool {
	for _, x := range xs {
		if x == nil {
			return true
		}
	}
	return false
}

// checkShare compares what every session relies on: holders, party keys and
// public key.
func checkShare(k *keystore.KeyShare, cluster [32]byte, ks []*big.Int, bigXj []*crypto.ECPoint, pub *crypto.ECPoint, xi, id *big.Int) error {
	curve := Curve(k.Curve)
	order := curveOrder(curve)
	if order == nil || xi == nil || id == nil || pub == nil || len(ks) != len(k.Parties) || len(bigXj) != len(k.Parties) || hasNil(ks) {
		return errShare
	}
	for i, p := range k.Parties {
		if bigXj[i] == nil || ks[i].Cmp(partyKey(cluster, k.ID.Key, k.ID.Epoch, p, order)) != 0 {
			return fmt.Errorf("%w: holders and party keys differ", errShare)
		}
	}
	if !bytes.Equal(compressed(curve, pub), k.Pub) {
		return fmt.Errorf("%w: public keys differ", errShare)
	}
	return nil
}

// encodeShare packs what a keygen made.
func encodeShare(r Request, pub *crypto.ECPoint, transcript [32]byte, data any) (keystore.KeyShare, error) {
	secret, err := json.Marshal(data)
	if err != nil {
		return keystore.KeyShare{}, errors.New("key share does not encode")
	}
	k := keystore.KeyShare{
		ID:    keystore.ShareID{Key: r.Key.ID, Epoch: r.Epoch, Try: r.Try},
		Curve: string(r.Key.Curve), M: r.M,
		Pub: compressed(r.Key.Curve, pub), Transcript: transcript, Secret: secret,
	}
	for _, p := range r.Parties {
		k.Parties = append(k.Parties, p)
	}
	return k, nil
}

// StorePreParams puts a fresh set into the keystore's pool.
func StorePreParams(k *keystore.Keystore, pp *ecdsakeygen.LocalPreParams) error {
	if err := preparams.Validate(pp); err != nil {
		return fmt.Errorf("store pre-parameters: %w", err)
	}
	b, err := json.Marshal(pp)
	if err != nil {
		return errors.New("store pre-parameters: they do not encode")
	}
	defer clear(b)
	return k.AddPreParams(b)
}

// takePreParams uses up one set of the pool.
func takePreParams(k *keystore.Keystore) ([]byte, error) {
	b, err := k.TakePreParams()
	if errors.Is(err, keystore.ErrNotFound) {
		return nil, ErrNoPreParams
	}
	return b, err
}

// acceptECDSA and acceptEdDSA are the local half of a new key's acceptance
// (spec: signing §6, check 1).
func acceptECDSA(d *ecdsakeygen.LocalPartySaveData, self, m int, stored map[string]bool) error {
	var moduli []*big.Int
	for i := range d.Ks {
		for _, n := range []*big.Int{paillierN(d.PaillierPKs[i]), d.NTildej[i]} {
			if n == nil || n.BitLen() != modulusBits || n.Bit(0) == 0 {
				return fmt.Errorf("modulus of party %d is not odd and of %d bits", i, modulusBits)
			}
			if stored[string(n.Bytes())] {
				return fmt.Errorf("modulus of party %d served an older key share", i)
			}
			for _, other := range moduli {
				if other.Cmp(n) == 0 {
					return fmt.Errorf("modulus of party %d is used twice", i)
				}
			}
			moduli = append(moduli, n)
		}
	}
	return acceptPoints(Secp256k1, d.Ks, d.BigXj, d.ECDSAPub, d.Xi, self, m)
}

func paillierN(pk *paillier.PublicKey) *big.Int {
	if pk == nil {
		return nil
	}
	return pk.N
}

func acceptEdDSA(d *eddsakeygen.LocalPartySaveData, self, m int) error {
	return acceptPoints(Ed25519, d.Ks, d.BigXj, d.EDDSAPub, d.Xi, self, m)
}

// acceptPoints checks that all public shares lie on one polynomial of degree
// m-1 whose value at 0 is the public key, and that our secret is our point's.
// Each window of m neighbours must interpolate to the key: two such windows
// share m-1 points and the one at 0, so they lie on the same polynomial.
func acceptPoints(c Curve, ks []*big.Int, bigXj []*crypto.ECPoint, pub *crypto.ECPoint, xi *big.Int, self, m int) error {
	for i, p := range bigXj {
		if p == nil || !onCurve(c, p.X(), p.Y()) {
			return fmt.Errorf("public share %d is not a point of the group", i)
		}
	}
	if pub == nil || !onCurve(c, pub.X(), pub.Y()) {
		return errors.New("public key is not a point of the group")
	}
	order := curveOrder(c)
	for first := 0; first+m <= len(ks); first++ {
		sum, err := interpolate(ks[first:first+m], bigXj[first:first+m], order)
		if err != nil || !sum.Equals(pub) {
			return fmt.Errorf("public shares %d to %d do not give the public key", first, first+m-1)
		}
	}
	if xi == nil || xi.Sign() <= 0 || xi.Cmp(order) >= 0 {
		return errors.New("own secret share out of range")
	}
	if !crypto.ScalarBaseMult(ellipticCurve(c), xi).Equals(bigXj[self]) {
		return errors.New("own secret and public share do not match")
	}
	return nil
}

// interpolate evaluates at 0 the polynomial through the points, in the
// exponent.
func interpolate(ks []*big.Int, points []*crypto.ECPoint, order *big.Int) (*crypto.ECPoint, error) {
	var sum *crypto.ECPoint
	for i := range ks {
		w, err := lagrange(ks, i, order)
		if err != nil {
			return nil, err
		}
		term := points[i].ScalarMult(w)
		if sum == nil {
			sum = term
			continue
		}
		if sum, err = sum.Add(term); err != nil {
			return nil, err
		}
	}
	return sum, nil
}

// lagrange is the weight at 0 of the i-th of the points at ks.
func lagrange(ks []*big.Int, i int, order *big.Int) (*big.Int, error) {
	num, den := big.NewInt(1), big.NewInt(1)
	for j := range ks {
		if j == i {
			continue
		}
		num.Mul(num, ks[j]).Mod(num, order)
		diff := new(big.Int).Sub(ks[j], ks[i])
		den.Mul(den, diff).Mod(den, order)
	}
	inv := new(big.Int).ModInverse(den, order)
	if inv == nil {
		return nil, errors.New("two equal party keys")
	}
	return num.Mul(num, inv).Mod(num, order), nil
}
