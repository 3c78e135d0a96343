// Package consensus orders signed commands with raft and says what that order
// is worth.
//
// It owns the raft instance, the chain of heads that the commands make, the
// snapshots, the approvals of heads and the certificates made of them. It
// promises that a command it acknowledged is applied on every replica at the
// same height and survives a crash, that a certificate it hands out names a
// head of this node's own chain, and that this node never approves two heads of
// which neither descends from the other, across restarts too. It leaves to
// others what a command means (App), how bytes travel (Forwarder, Gossip, the
// raft streams) and where promises are kept (PromiseStore).
//
// Heights are ledger heights, the number of commands since genesis. Raft's log
// index never leaves this package.
package consensus
