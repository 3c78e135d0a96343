package address

import (
	"bytes"
	"encoding/binary"

	"github.com/btcsuite/btcd/btcutil"
	"github.com/btcsuite/btcd/chaincfg/chainhash"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
)

// BIP137Digest is what "Bitcoin Signed Message" wallets sign.
func BIP137Digest(message []byte) [32]byte {
	b := []byte("\x18Bitcoin Signed Message:\n")
	switch n := uint64(len(message)); {
	case n < 0xfd:
		b = append(b, byte(n))
	case n < 1<<16:
		b = binary.LittleEndian.AppendUint16(append(b, 0xfd), uint16(n))
	case n < 1<<32:
		b = binary.LittleEndian.AppendUint32(append(b, 0xfe), uint32(n))
	default:
		b = binary.LittleEndian.AppendUint64(append(b, 0xff), n)
	}
	return chainhash.DoubleHashH(append(b, message...))
}

func verifyBIP137(r request) bool {
	n, err := bitcoinParams(r.network)
	if err != nil {
		return false
	}
	p, ok := n.decodeSigner(r.address)
	if !ok {
		return false
	}
	sig, ok := strictBase64(r.signature)
	if !ok || len(sig) != 65 {
		return false
	}
	// The header says address type and recovery id. Electrum and others write
	// 31–34 for segwit addresses as well.
	header := sig[0]
	fits := false
	switch p.kind {
	case kindP2PKH:
		fits = header >= 27 && header <= 34
	case kindP2SH:
		fits = header >= 31 && header <= 38
	case kindP2WPKH:
		fits = header >= 31 && header <= 34 || header >= 39 && header <= 42
	}
	if !fits {
		return false
	}
	key, ok := recoverKey(sig[1:], (header-27)%4, BIP137Digest(r.message))
	if !ok {
		return false
	}
	pub := key.SerializeCompressed()
	if header <= 30 {
		pub = key.SerializeUncompressed()
	}
	hash := btcutil.Hash160(pub)
	if p.kind == kindP2SH {
		hash = btcutil.Hash160(program{kindP2WPKH, hash}.script())
	}
	return bytes.Equal(hash, p.hash)
}

// recoverKey is the public key that made r‖s over digest. It refuses zero,
// values above the order and high s (trap 7).
func recoverKey(rs []byte, recovery byte, digest [32]byte) (*secp256k1.PublicKey, bool) {
	if len(rs) != 64 || recovery > 3 || !lowS(rs) {
		return nil, false
	}
	compact := append([]byte{27 + recovery}, rs...)
	key, _, err := ecdsa.RecoverCompact(compact, digest[:])
	return key, err == nil
}

// lowS: r and s of r‖s are in [1, n) and s is at most half the order.
func lowS(rs []byte) bool {
	var r, s secp256k1.ModNScalar
	return !r.SetByteSlice(rs[:32]) && !s.SetByteSlice(rs[32:]) &&
		!r.IsZero() && !s.IsZero() && !s.IsOverHalfOrder()
}
