package ledger

import "fmt"

// Accounts that nobody has paid for (spec: lending §3). Opening is free, so what
// was opened and never credited with a coin is dropped again: an account after
// two days without activity, a simple loan two days after its window. Two
// indexes have them in the order in which they go, so nobody walks the others.
//
// Their addresses stay watched. What arrives is credited to the id, which is
// never dropped from then on; the wallet takes it up by opening again.

const (
	// pruneMillis: a request may live for 24 h, and its answer is wanted as long.
	pruneMillis = 172_800_000
	// maxIdle is how many accounts never credited there may be, and how many such
	// loans. One account more takes the place of the idlest, if that was idle for
	// ExpirySeconds; otherwise, and for a loan, it is LIMIT.
	maxIdle = 100_000
	// maxPruned bounds what one 15 s beat drops.
	maxPruned = 512
	// MaxOpenLoans is how many simple loans may hold coins and not be settled
	// before a further one is LIMIT: each is looked at again and again.
	MaxOpenLoans = 10_000
)

// idle reports whether the account was opened and never credited.
func (a Account) idle() bool { return len(a.Wallets) > 0 && !a.Credited }

// idleIn is the index of an account that is idle, and its key there: what comes
// first goes first.
func (s *State) idleIn(a Account) (*table[string, AccountID], string) {
	if l, ok := s.Loans.get(a.ID); ok {
		return &s.IdleLoans, idleKey(l.Until, a.ID)
	}
	return &s.Idle, idleKey(a.Active, a.ID)
}

func idleKey(millis uint64, id AccountID) string { return fmt.Sprintf("%016x/%s", millis, id) }

// putActive stores an account whose last activity is now. Whether it is idle may
// have changed.
func (s *State) putActive(a Account) {
	if old := s.Accounts.at(a.ID); old.idle() {
		in, key := s.idleIn(old)
		in.delete(key)
	}
	a.Active = s.Millis
	if a.idle() {
		in, key := s.idleIn(a)
		in.put(key, a.ID)
	}
	s.Accounts.put(a.ID, a)
}

// room reports whether one more account may be opened, or one more loan.
func (s *State) room(loan bool) bool {
	switch {
	case s.Accounts.len() >= maxAccounts:
		return false
	case loan:
		return s.IdleLoans.len() < maxIdle && s.LoansReady.len() < MaxOpenLoans
	case s.Idle.len() < maxIdle:
		return true
	}
	_, id, _ := s.Idle.first()
	return s.Accounts.at(id).Active+s.Params.ExpirySeconds*1000 < s.Millis
}

// makeRoom drops the idlest account where room found no other.
func (x *execution) makeRoom() {
	if _, id, ok := x.s.Idle.first(); ok && x.s.Idle.len() >= maxIdle {
		x.prune(id)
	}
}

// pruneIdle drops what has been idle for long enough.
func (x *execution) pruneIdle() {
	for _, in := range []*table[string, AccountID]{&x.s.Idle, &x.s.IdleLoans} {
		for range maxPruned {
			key, id, ok := in.first()
			if !ok || idleKey(x.s.Millis-min(x.s.Millis, pruneMillis), "") <= key {
				break
			}
			x.prune(id)
		}
	}
}

// prune drops an account that is idle, with its payout list and the terms of its
// loan. One that was given something without a deposit, the insurance's part of
// the income, counts as credited from now on.
func (x *execution) prune(id AccountID) {
	s := x.s
	a := s.Accounts.at(id)
	in, key := s.idleIn(a)
	in.delete(key)
	if s.valued(a) {
		a.Credited = true
		s.Accounts.put(id, a)
		return
	}
	s.Accounts.delete(id)
	s.Payouts.delete(id)
	s.Loans.delete(id)
	x.emit(Event{Name: "account-pruned", Account: id})
}

// valued reports whether an account has anything to lose: a claim or a debt,
// coins in suspense, or an outflow that is not done.
func (s *State) valued(a Account) bool {
	if len(a.Positions) > 0 || a.Outflows > 0 {
		return true
	}
	for pool := range s.Pools.rows() {
		if s.Suspense.has(a.ID + "/" + pool) {
			return true
		}
	}
	return false
}

// reopen is the account that a request opens: a new one, or the one that coins
// came for while it was pruned.
//
// Its Intent nonce begins after that of the request, and for an id that had an
// account before, further on by LogIndex: an account never used more numbers than
// commands were applied, so no text that was signed for the old one fits again,
// though nothing is kept of it.
func (x *execution) reopen(r request) Account {
	s := x.s
	a := s.Accounts.at(r.account)
	a.ID, a.Wallets, a.Nonce, a.Opened = r.account, []string{r.Signer.String()}, r.Nonce+1, s.Millis
	if x.watchAccount(r.account) {
		a.Nonce += s.Height + 1
	}
	return a
}

// checkIdle: the indexes have exactly the accounts never credited.
func (s *State) checkIdle() error {
	idle := 0
	for id, a := range s.Accounts.all() {
		if !a.idle() {
			continue
		}
		idle++
		in, key := s.idleIn(a)
		if in.at(key) != id {
			return fmt.Errorf("account %s: never credited and in no index", id)
		}
	}
	if n := s.Idle.len() + s.IdleLoans.len(); n != idle {
		return fmt.Errorf("%d accounts were never credited, %d in the indexes", idle, n)
	}
	return nil
}
