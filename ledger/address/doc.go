// Package address owns everything about names that the outside world gives to
// keys and commands: how an address of ours is derived from a master key, how
// the addresses of each chain are spelled, how a client's request is written,
// and whether a wallet's signature over it is good.
//
// Every function is pure and total: bytes in, a value or a refusal out, the
// same on every node and platform. Each thing has exactly one spelling, and
// whatever decodes encodes to the same bytes again.
//
// It leaves to package ledger what depends on state: accounts, nonces, clocks,
// which pools exist, which addresses are our own. It holds no secrets; the
// signing helpers are for wallets and never see a KeyShare.
package address
