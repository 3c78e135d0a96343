// Package api owns the HTTP and JSON that clients and operators see of one
// node: the routes, the problem documents and the one table from refusal codes
// to HTTP statuses.
//
// It promises that every answer names the LogIndex it shows (asOf), that the
// same request text is one request however often and wherever it is posted,
// and that nothing it reads is changed by reading. What it says about money
// comes from a view of the replicated ledger; what only this node saw is under
// "local".
//
// It leaves ordering, signing and chains to whoever implements Backend, and
// every decision to the ledger: checks made here are courtesies that spare the
// log a command it would refuse anyway. The JSON types and a Go client are in
// package client.
package api
