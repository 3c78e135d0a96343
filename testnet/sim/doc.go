// Package sim runs a whole cluster in one goroutine from one seed: the real
// ledger, the real plans of package node and real approvals, over an ordered
// log, chains, sessions and clients that are simulated, with everything going
// wrong that a seed says.
//
// Clients have BTC, ETH and a token; strangers and operators send to the vaults; members
// vote about payouts, about what they may book and about what a HOLD came to.
//
// It promises that a run is its seed: the same seed gives the same log, so a
// failure is a seed and a step. An auditor that reads the chains, and keeps
// books of its own, judges after every command and every block; a replica that
// leaves the others by one byte ends the run.
//
// Raft, the signing protocol and real chain nodes are left to the other two
// floors (consensus' own tests and testnet/cluster). One total order stands in
// for raft, a dealer who knows the master key for the key shares: he signs what
// m members of one session each came to by themselves, and nothing else.
package sim
