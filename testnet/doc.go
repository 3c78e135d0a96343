// Package testnet owns the local network: the real Bitcoin and Ethereum nodes it starts, their faucet,
// the price feed, the Coffer nodes and the demo that carries a loan across them, each as its own OS process
// on loopback.
//
// It promises that whatever it started is gone when it stops, that a directory it wrote can be resumed, and
// that what cannot be had (a port, a toolchain, a child that died) is one line saying what and what to do.
//
// Folder rpcproxy is the node that misbehaves by a script, for the tests of whatever speaks to one.
//
// It leaves everything that decides about money to the nodes: its keys are the faucet's own and lie outside
// every node. Nothing here is fit for coins of value.
package testnet
