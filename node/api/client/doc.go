// Package client talks to a node's HTTP API as someone who does not trust it:
// it renders every request itself, signs what it rendered, derives every
// deposit address from master keys it pinned, and refuses a node that names
// other ones.
//
// It promises that a text is posted as often as needed and counts once, that no
// address is returned which it did not derive itself, and that a refusal comes
// back as a *Problem with the ledger's code.
//
// The JSON types of the API are here too, so that server and client cannot
// differ. Wallet is for test networks: its keys lie in a file. Wallets that
// hold coins of value sign elsewhere and hand in the signature (SubmitText).
package client
