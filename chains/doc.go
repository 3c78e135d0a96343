// Package chains owns the one interface through which the cluster meets a
// chain, and the words both sides use: unsigned transactions, signatures,
// observations.
//
// An adapter promises that the same attempt gives the same bytes on every
// node, that bytes are re-read by other code than wrote them, that no
// transaction leaves with a signature it did not verify, and that what it
// shows of the world is one picture: every inflow, spend and height of an
// Observations belongs to the same best chain.
//
// It leaves to package ledger what to pay and what an observation is worth,
// and to the caller when to attest, sign, send again, or raise an alarm. It
// holds no keys. Package chaintest is the contract in executable form.
package chains
