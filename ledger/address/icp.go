package address

import (
	"bytes"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"strings"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
)

// maxPrincipal is the Internet Computer's limit in bytes.
const maxPrincipal = 29

// maxPrincipalText: 33 bytes are 53 digits of base32 and 10 dashes.
const maxPrincipalText = 63

// Principal is the textual form of a principal: base32 of checksum and bytes,
// lower case, in groups of five.
func Principal(b []byte) string {
	sum := binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(b))
	text := strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(append(sum, b...)))
	var out strings.Builder
	for i := 0; i < len(text); i += 5 {
		if i > 0 {
			out.WriteByte('-')
		}
		out.WriteString(text[i:min(i+5, len(text))])
	}
	return out.String()
}

// ParsePrincipal reads the textual form of a principal.
func ParsePrincipal(s string) ([]byte, error) {
	refused := fmt.Errorf("%w: Internet Computer principal", ErrAddress)
	if len(s) > maxPrincipalText {
		return nil, refused
	}
	b, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(strings.ToUpper(strings.ReplaceAll(s, "-", "")))
	if err != nil || len(b) < 4 || len(b) > 4+maxPrincipal || Principal(b[4:]) != s {
		return nil, refused
	}
	return b[4:], nil
}

// DER headers of the two keys an identity may have; the key follows, and
// nothing after it.
const (
	derEd25519   = "302a300506032b6570032100"
	derSecp256k1 = "3056301006072a8648ce3d020106052b8104000a034200"
)

// selfAuthenticating ends the principal that is the hash of a key.
const selfAuthenticating = 0x02

// icKey is the key of r's DER bytes, if they have this header and size and
// hash to the signer's principal.
func (r request) icKey(header string, size int) ([]byte, bool) {
	der := r.extras.PublicKeyDER
	prefix, err := hex.DecodeString(header)
	if err != nil || r.network != NetworkIC || len(der) != len(prefix)+size || !bytes.HasPrefix(der, prefix) {
		return nil, false
	}
	h := sha256.Sum224(der)
	return der[len(prefix):], Principal(append(h[:], selfAuthenticating)) == r.address
}

// icSignature is 64 bytes in lower or upper case hex, without 0x.
func (r request) icSignature() ([]byte, bool) {
	if len(r.signature) != 128 {
		return nil, false
	}
	sig, err := hex.DecodeString(r.signature)
	return sig, err == nil
}

func verifyICEd25519(r request) bool {
	key, ok := r.icKey(derEd25519, 32)
	if !ok {
		return false
	}
	sig, ok := r.icSignature()
	return ok && verifyEd25519([32]byte(key), r.message, sig)
}

// verifyICSecp256k1: r‖s over SHA-256 of the message, low s, uncompressed key.
func verifyICSecp256k1(r request) bool {
	b, ok := r.icKey(derSecp256k1, 65)
	if !ok || b[0] != secp256k1.PubKeyFormatUncompressed {
		return false
	}
	key, err := secp256k1.ParsePubKey(b)
	if err != nil {
		return false
	}
	sig, ok := r.icSignature()
	if !ok || !lowS(sig) {
		return false
	}
	var rr, s secp256k1.ModNScalar
	rr.SetByteSlice(sig[:32])
	s.SetByteSlice(sig[32:])
	digest := sha256.Sum256(r.message)
	return ecdsa.NewSignature(&rr, &s).Verify(digest[:], key)
}
