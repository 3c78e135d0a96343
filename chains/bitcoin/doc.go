// Package bitcoin owns how the cluster meets Bitcoin: P2WPKH transactions made
// from planned attempts, and a block follower that needs nothing of its node
// but raw blocks (no wallet, no index, btcd and Bitcoin Core alike).
//
// It promises that a block is shown only if hash, proof of work, merkle root
// and witness commitment fit; difficulty rules and scripts stay the node's
// business. Transactions have segwit inputs alone, so their ids are known
// before they are signed.
//
// What custody holds at a block comes from an index of coins at our scripts in the
// follower's cursor: 72 bytes each, 6 ms a step and 7.2 MB for a hundred thousand. Each
// is looked up by its name, once for each question.
//
// What is worth paying, which coins, at what fee: package ledger.
package bitcoin
