// Package keystore owns what a node must not lose or forget: KeyShares,
// pre-parameters, the sessions it joined, its promises, raft's mark and the
// signatures it finished (spec: signing §11).
//
// It promises that every write is on disk before the call returns, that each
// record is encrypted under the operator's passphrase and bound to its place,
// so that none can be moved to another, and that what may only be inserted is
// never overwritten. It knows nothing of protocol rounds, of the ledger or of
// the network, and destroys only what its caller proves may go: the proof is a
// certificate's, and whether it suffices is the ledger's to say.
//
// One process uses a directory at a time. All methods may be called from
// several goroutines.
package keystore
