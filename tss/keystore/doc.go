// Package keystore owns what a node must not lose or forget: KeyShares,
// pre-parameters, the sessions it joined, its promises, raft's mark and the
// signatures it finished (spec: signing §11).
//
// It promises that every write is on disk before the call returns, that each
// record is encrypted under the operator's passphrase and bound to its place,
// so that none can be moved to another, and that what may only be inserted is
// never overwritten. It knows nothing of protocol rounds, of the ledger or of
// the network, and destroys nothing: wiping needs a certificate.
//
// One process uses a directory at a time. All methods may be called from
// several goroutines.
package keystore
