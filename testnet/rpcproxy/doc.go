// Package rpcproxy owns a JSON-RPC proxy that misbehaves by a script: it stands
// between a chain's node and whoever must survive that node.
//
// It promises that faults are met in the order they were scripted, by the calls
// of the method they were scripted for and by no clock of its own, and that
// everything else passes unchanged. Single calls and batches, Bitcoin's and
// Ethereum's alike.
//
// What the answers mean is left to the tests that script them; only tampering
// with Bitcoin blocks needs to know what a block is.
package rpcproxy
