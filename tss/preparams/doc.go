// Package preparams makes the pre-parameters an ECDSA party brings to a
// keygen or resharing: a Paillier modulus and an NTilde, each a product of two
// 1024-bit safe primes (spec: signing §5).
//
// It promises the shape the library's own generator gives, at a fraction of
// its cost: candidates are sieved for q and 2q+1 together, and no prime found
// is thrown away. It stores nothing; a set belongs into tss/keystore, where it
// is used once.
package preparams
