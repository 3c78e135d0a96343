package address

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/btcsuite/btcd/btcec/v2/schnorr"
	"github.com/btcsuite/btcd/txscript"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
)

// Signing for wallets of the testnet and of tests. Deterministic: RFC 6979 and
// BIP-340 with zero auxiliary data, so a text has one signature per key.

// ErrNotTheKey: the private key is not the one behind the address.
var ErrNotTheKey = errors.New("private key does not belong to this address")

// BIP322Digest is what a wallet signs for a simple BIP-322 proof: the segwit
// signature hash of to_sign with ALL for P2WPKH, with DEFAULT for P2TR.
func BIP322Digest(scriptPubKey, message []byte) ([32]byte, error) {
	p, ok := programOf(scriptPubKey)
	if !ok || p.kind != kindP2WPKH && p.kind != kindP2TR {
		return [32]byte{}, fmt.Errorf("%w: BIP-322 digest is for P2WPKH and P2TR", ErrAddress)
	}
	tx := BIP322ToSign(scriptPubKey, message)
	fetcher := txscript.NewCannedPrevOutputFetcher(scriptPubKey, 0)
	hashes := txscript.NewTxSigHashes(tx, fetcher)
	var h []byte
	var err error
	if p.kind == kindP2TR {
		h, err = txscript.CalcTaprootSignatureHash(hashes, txscript.SigHashDefault, tx, 0, fetcher)
	} else {
		h, err = txscript.CalcWitnessSigHash(scriptPubKey, hashes, txscript.SigHashAll, tx, 0, 0)
	}
	if err != nil {
		return [32]byte{}, fmt.Errorf("BIP-322 signature hash: %w", err)
	}
	return [32]byte(h), nil
}

// P2TR is the address of a key's BIP-86 output: tweaked, without scripts.
func P2TR(network string, pub []byte) (string, error) {
	key, err := secp256k1.ParsePubKey(pub)
	if err != nil {
		return "", fmt.Errorf("P2TR: %w", err)
	}
	out := schnorr.SerializePubKey(txscript.ComputeTaprootKeyNoScript(key))
	return AddressOf(network, program{kindP2TR, out}.script())
}

// SignBIP322Simple signs message for a P2WPKH address or the BIP-86 P2TR
// address of key. The prefix is the one BIP-322 1.0 demands of signers.
func SignBIP322Simple(key *secp256k1.PrivateKey, network, address string, message []byte) (string, error) {
	script, err := ScriptOf(network, address)
	if err != nil {
		return "", err
	}
	digest, err := BIP322Digest(script, message)
	if err != nil {
		return "", err
	}
	pub := key.PubKey().SerializeCompressed()
	var witness []byte
	switch own, _ := P2WPKH(network, pub); {
	case own == address:
		der := append(ecdsa.Sign(key, digest[:]).Serialize(), byte(txscript.SigHashAll))
		witness = append([]byte{2, byte(len(der))}, der...)
		witness = append(append(witness, byte(len(pub))), pub...)
	default:
		if own, err = P2TR(network, pub); err != nil || own != address {
			return "", ErrNotTheKey
		}
		tweaked := txscript.TweakTaprootPrivKey(*key, nil)
		sig, err := schnorr.Sign(tweaked, digest[:], schnorr.CustomNonce([32]byte{}))
		if err != nil {
			return "", fmt.Errorf("sign for %s: %w", address, err)
		}
		witness = append([]byte{1, schnorr.SignatureSize}, sig.Serialize()...)
	}
	return prefixSimple + base64.StdEncoding.EncodeToString(witness), nil
}

// SignEIP191 signs message as personal_sign does.
func SignEIP191(key *secp256k1.PrivateKey, message []byte) string {
	return signEthereumDigest(key, EIP191Digest(message))
}

// SignEIP712 signs what Grammar.Message gives for eip712, as eth_signTypedData_v4 does.
func SignEIP712(key *secp256k1.PrivateKey, message []byte) string {
	return signEthereumDigest(key, keccak256(message))
}

func signEthereumDigest(key *secp256k1.PrivateKey, digest [32]byte) string {
	compact := ecdsa.SignCompact(key, digest[:], false) // 27 + recovery id, r, s
	return "0x" + hex.EncodeToString(append(compact[1:], compact[0]))
}
