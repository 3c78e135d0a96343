// Package node is one member of a Coffer cluster: it puts the rooms together
// and runs the workers that compare the ledger with the world and do what is
// missing.
//
// Every worker is a pure plan and a dull loop. The plan is told the facts (a
// view of the ledger, what was seen of a chain, the clock) and says what to do
// now; the loop does it. Doing it twice is harmless, so a restart is the same as
// a start and there is no recovery code.
//
//	attestor     says what the ledger has not heard from this member
//	observers    follow the chains, one each
//	oracle       asks the price venues
//	signer       joins the sessions of certified attempts
//	keeper       generates, activates and tests KeyShares
//	broadcaster  sends what is signed until its anchor is seen spent
//
// It promises that a session is joined only for a transaction that this node
// built from its own ledger, under a certificate over its own head, and that
// passed ledger.State.VerifySpend. What is owed the ledger decides; how a
// session runs, package tss; what is agreed, package consensus.
package node
