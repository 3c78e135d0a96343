package ledger

import (
	"slices"

	"github.com/coffer-network/coffer/ledger/address"
)

// maxWallets is how many controllers an account has at most (spec: requests
// §4.2).
const maxWallets = 16

// firstOf reports whether wallet is the one that the account's id was made
// from: the hash says so, and for a simple loan its terms.
func (s *State) firstOf(id AccountID, wallet string) bool {
	if l, ok := s.Loans.get(id); ok {
		return l.Signer == wallet
	}
	return s.ownAccount(wallet) == id
}

// ownAccount is the id of the account that a wallet opens.
func (s *State) ownAccount(wallet string) AccountID {
	c, err := address.SplitCAIP10(wallet)
	if err != nil {
		return ""
	}
	return hex16(address.AccountID(s.ClusterName(), c))
}

// linkedTo is the account that a wallet controls, "" for none. The simple loans
// that it opened do not count: it may have any number of them.
//
// Why not a row for every wallet: an account's id is the hash of its first one,
// so a million rows would say nothing new.
func (s *State) linkedTo(wallet string) AccountID {
	if id, ok := s.Linked.get(wallet); ok {
		return id
	}
	id := s.ownAccount(wallet)
	if slices.Contains(s.Accounts.at(id).Wallets, wallet) {
		return id
	}
	return ""
}

// linkWallet makes a second wallet a controller, whose signature the prelude
// has judged (spec: requests §4.2). Codes, in this order: INSUFFICIENT_BALANCE
// for an account that was never credited, ACCOUNT_LINKED, and NOT_ALLOWED
// beyond 16 controllers; LIMIT would say that the same text may be sent again.
func (x *execution) linkWallet(r request) Code {
	s, wallet := x.s, r.NewWallet.String()
	acc := s.Accounts.at(r.account)
	switch {
	case !acc.Credited:
		return InsufficientBalance
	case slices.Contains(acc.Wallets, wallet) || s.linkedTo(wallet) != "":
		return AccountLinked
	case len(acc.Wallets) >= maxWallets:
		return NotAllowed
	}
	acc.Wallets = append(slices.Clone(acc.Wallets), wallet)
	s.Accounts.put(acc.ID, acc)
	if !s.firstOf(r.account, wallet) {
		s.Linked.put(wallet, r.account)
	}
	x.emit(Event{Name: "wallet-linked", Account: r.account, Note: wallet})
	return OK
}

// unlinkWallet removes a controller, the signer's own wallet too, but never the
// last one. Codes: SIGNER_NOT_LINKED for a wallet that is none, SOLE_ACCOUNT.
func (x *execution) unlinkWallet(r request) Code {
	s, wallet := x.s, r.Wallet.String()
	acc := s.Accounts.at(r.account)
	i := slices.Index(acc.Wallets, wallet)
	switch {
	case i < 0:
		return SignerNotLinked
	case len(acc.Wallets) == 1:
		return SoleAccount
	}
	acc.Wallets = slices.Delete(slices.Clone(acc.Wallets), i, i+1)
	s.Accounts.put(acc.ID, acc)
	if s.Linked.at(wallet) == r.account { // not if it was the first one, whoever else it controls
		s.Linked.delete(wallet)
	}
	x.emit(Event{Name: "wallet-unlinked", Account: r.account, Note: wallet})
	return OK
}
