package address

import (
	"encoding/hex"
	"strconv"
)

// EIP191Digest is what personal_sign signs. The length counts bytes.
func EIP191Digest(message []byte) [32]byte {
	return keccak256([]byte("\x19Ethereum Signed Message:\n"+strconv.Itoa(len(message))), message)
}

func verifyEIP191(r request) bool {
	return r.network == NetworkEthereum && verifyEthereumDigest(r.address, EIP191Digest(r.message), r.signature)
}

// verifyEthereumDigest checks 0x and 130 hex digits, r‖s‖v with v in {27, 28,
// 0, 1}. EIP-2098's 64 bytes and contract wallets are refused (spec: requests
// §3).
func verifyEthereumDigest(address string, digest [32]byte, signature string) bool {
	want, ok := parseEthereumLoose(address)
	if !ok || len(signature) != 132 || signature[:2] != "0x" {
		return false
	}
	sig, err := hex.DecodeString(signature[2:])
	if err != nil {
		return false
	}
	v := sig[64]
	if v == 27 || v == 28 {
		v -= 27
	}
	if v > 1 {
		return false
	}
	key, ok := recoverKey(sig[:64], v, digest)
	return ok && ethereumOf(key) == want
}
