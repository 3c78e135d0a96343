// Package ethereum owns how the cluster meets Ethereum: EIP-1559 transactions
// that pay ether or call an ERC-20's transfer, and a follower that finds token
// arrivals by log and our own transactions by sender and sequence.
//
// It promises that nothing but those two kinds of transaction passes Reads and
// Finish, that outcomes are told at finality alone, and that it never reads a
// sequence from a node nor the chain's clock: both are the ledger's.
//
// Receipts, logs and balances are believed as the member's own node gives
// them; a wrong node is outvoted. Ether that arrives at a deposit address is
// not an inflow: it may leave no trace to read.
package ethereum
