// Package ledger is the replicated state of a Coffer cluster and the one
// function that changes it.
//
// It owns accounts, pools, interest, health, outflows with their anchors and
// attempts, coins, chain sequences, members, epochs and keys, and what members
// attested. It promises that Apply is pure: the same commands give the same
// state and the same head on every replica, a refusal is a Code that changes
// nothing but what its rule says, and no command can stop a replica. It leaves
// to others how commands are ordered (package consensus), what the world looks
// like (package chains) and every signature of a chain (package tss).
//
// Execute applies the bytes of one log entry and folds the result into the
// hash chain of heads. Read DESIGN.md beside this file before changing it.
package ledger
