package tss

import (
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"

	"github.com/bnb-chain/tss-lib/v2/crypto"
	"github.com/bnb-chain/tss-lib/v2/crypto/paillier"
	"github.com/bnb-chain/tss-lib/v2/crypto/vss"
	ecdsakeygen "github.com/bnb-chain/tss-lib/v2/ecdsa/keygen"
	eddsakeygen "github.com/bnb-chain/tss-lib/v2/eddsa/keygen"

	"github.com/coffer-network/coffer/tss/keystore"
)

// Deal makes KeyShares of a fresh key in one place, for benchmarks and tests:
// whoever calls it could know the private key, so nothing of value may ever be
// sent to it. r says cluster, key, epoch, try, parties and M; an ECDSA key
// needs one set of pre-parameters per party.
func Deal(r Request, pp []*ecdsakeygen.LocalPreParams) (map[PartyID]keystore.KeyShare, error) {
	n := len(r.Parties)
	if n < 2 || n > maxParties || r.M < 2 || r.M > n || curveOrder(r.Key.Curve) == nil {
		return nil, fmt.Errorf("deal %d of %d shares for curve %q", r.M, n, r.Key.Curve)
	}
	if r.Key.Curve == Secp256k1 && len(pp) < n {
		return nil, errors.New("deal: too few pre-parameters")
	}
	r.Parties = sortParties(r)
	ec, order := ellipticCurve(r.Key.Curve), curveOrder(r.Key.Curve)
	secret, err := rand.Int(rand.Reader, below(order))
	if err != nil {
		return nil, fmt.Errorf("deal: %w", err)
	}
	secret.Add(secret, one)
	ks := partyIDs(r, r.Parties).Keys()
	_, shares, err := vss.Create(ec, libThreshold(r.M), secret, ks, rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("deal: %w", err)
	}
	pub := crypto.ScalarBaseMult(ec, secret)
	bigXj := make([]*crypto.ECPoint, n)
	for i := range shares {
		bigXj[i] = crypto.ScalarBaseMult(ec, shares[i].Share)
	}
	out := map[PartyID]keystore.KeyShare{}
	for i, p := range r.Parties {
		var data any
		if r.Key.Curve == Ed25519 {
			d := eddsakeygen.NewLocalPartySaveData(n)
			d.Xi, d.ShareID, d.Ks, d.BigXj, d.EDDSAPub = shares[i].Share, ks[i], ks, bigXj, pub
			data = &d
		} else {
			data = dealECDSA(pp[:n], i, shares[i].Share, ks, bigXj, pub)
		}
		k, err := acceptKey(r, i, [32]byte{}, data, nil)
		if err != nil {
			return nil, fmt.Errorf("deal: %w", err)
		}
		out[p] = k
	}
	return out, nil
}

func dealECDSA(pp []*ecdsakeygen.LocalPreParams, i int, xi *big.Int, ks []*big.Int, bigXj []*crypto.ECPoint, pub *crypto.ECPoint) *ecdsakeygen.LocalPartySaveData {
	d := ecdsakeygen.NewLocalPartySaveData(len(pp))
	d.LocalPreParams = *pp[i]
	d.Xi, d.ShareID, d.Ks, d.BigXj, d.ECDSAPub = xi, ks[i], ks, bigXj, pub
	for j, p := range pp {
		d.NTildej[j], d.H1j[j], d.H2j[j] = p.NTildei, p.H1i, p.H2i
		d.PaillierPKs[j] = &paillier.PublicKey{N: p.PaillierSK.N}
	}
	return &d
}
