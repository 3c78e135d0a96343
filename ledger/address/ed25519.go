package address

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"slices"
)

// verifyEd25519 is dalek's verify_strict, which is Solana's: S below the order,
// A and R canonical and not of small order, the equation without the cofactor.
// The library does the first and the last; it takes small-order and
// non-canonical keys, for which anybody forges (trap 9).
//
// Why not a batch or ZIP-215 verifier: they say yes to signatures this one
// refuses, so one node batching could split the state.
func verifyEd25519(key [32]byte, message, sig []byte) bool {
	return len(sig) == ed25519.SignatureSize &&
		strictPoint(key) && strictPoint([32]byte(sig[:32])) &&
		ed25519.Verify(key[:], message, sig)
}

// smallOrderY: the y-coordinates of the eight points of small order, in little
// endian; the sign of x does not matter.
var smallOrderY = [...][32]byte{
	yOf("0000000000000000000000000000000000000000000000000000000000000000"),
	yOf("0100000000000000000000000000000000000000000000000000000000000000"),
	yOf("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
	yOf("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
	yOf("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
}

// fieldPrime is 2²⁵⁵-19, little endian.
var fieldPrime = yOf("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f")

func yOf(s string) (y [32]byte) {
	if n, err := hex.Decode(y[:], []byte(s)); err != nil || n != len(y) {
		panic("address: bad Ed25519 table")
	}
	return y
}

// strictPoint: y is below the prime and not of small order. Whether such a
// point exists is the library's to find out, for R by comparing bytes.
func strictPoint(p [32]byte) bool {
	p[31] &= 0x7f
	if slices.Contains(smallOrderY[:], p) {
		return false
	}
	prime := fieldPrime
	slices.Reverse(p[:])
	slices.Reverse(prime[:])
	return bytes.Compare(p[:], prime[:]) < 0
}
