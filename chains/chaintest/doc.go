// Package chaintest owns the contract of package chains in executable form:
// Run, which every adapter passes on a chain of its own, and Fake, a chain in
// memory that passes it too and on which the simulator runs.
//
// Fake promises to be deterministic and to keep the two rules that outflows
// rest on: a resource is consumed once, and a branch that loses is gone. It
// follows blocks with the same code as the real adapters. It has no scripts, no
// gas metering and no network.
package chaintest
