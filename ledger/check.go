package ledger

import (
	"fmt"
	"slices"
)

// Check verifies every invariant that the state can show by itself: the book of
// each pool, the outflows' and batches' states, and who holds which coin. It
// walks everything; production runs checkTouched after each command.
func (s *State) Check() error {
	if err := s.checkLending(); err != nil {
		return err
	}
	open := map[AccountID]uint64{}
	for id, o := range s.Outflows.all() {
		if o.ID != id || o.State < Queued || o.State > Hold {
			return fmt.Errorf("outflow %d: state %d", id, o.State)
		}
		if (o.State == Queued) != s.Queue.has(id) {
			return fmt.Errorf("outflow %d: %s, queued: %v", id, o.State, s.Queue.has(id))
		}
		if o.State != Paid && o.State != Refunded && o.Account != "" {
			open[o.Account]++
		}
		if o.State != Queued && o.State != Refunded {
			b, ok := s.Batches.get(o.Batch)
			if !ok || !slices.Contains(b.Outflows, id) {
				return fmt.Errorf("outflow %d: %s in batch %d, which does not pay it", id, o.State, o.Batch)
			}
		}
	}
	for id, a := range s.Accounts.all() {
		if a.Outflows != open[id] {
			return fmt.Errorf("account %s: %d open outflows, counted %d", id, a.Outflows, open[id])
		}
	}
	if err := s.checkIndexes(); err != nil {
		return err
	}
	if err := s.checkRounds(); err != nil {
		return err
	}
	if err := s.checkWallets(); err != nil {
		return err
	}
	if err := s.checkLoans(); err != nil {
		return err
	}
	if err := s.checkIdle(); err != nil {
		return err
	}
	if !s.checkVotes() {
		return fmt.Errorf("coins wanted by vote: %d, or one that is there", s.Wanted.len())
	}
	if err := s.checkCaps(); err != nil {
		return err
	}
	if err := s.checkSolvency(); err != nil {
		return err
	}
	if err := s.checkNative(); err != nil {
		return err
	}
	if err := s.checkDescendants(); err != nil {
		return err
	}
	if err := s.checkTiers(); err != nil {
		return err
	}
	if err := s.checkBlamed(); err != nil {
		return err
	}
	if err := s.checkCommittee(); err != nil {
		return fmt.Errorf("committee: %w", err)
	}
	anchors := map[string]uint64{}
	for id, b := range s.Batches.all() {
		if b.Done == s.Live.has(id) {
			return fmt.Errorf("batch %d: done %v, live %v", id, b.Done, s.Live.has(id))
		}
		if b.Kind != BatchPay {
			continue
		}
		if other, ok := anchors[b.Anchor]; ok {
			return fmt.Errorf("batches %d and %d share the anchor %s", other, id, b.Anchor)
		}
		anchors[b.Anchor] = id
		if err := s.checkAttempts(b); err != nil {
			return fmt.Errorf("batch %d: %w", id, err)
		}
	}
	for id, o := range s.Outflows.all() {
		if k := s.Coins.at(o.Heir); o.Heir != "" && (o.State != Queued || k.State != CoinHeir || k.Heir != id) {
			return fmt.Errorf("outflow %d: %s, its heir %s is of %d in state %d", id, o.State, o.Heir, k.Heir, k.State)
		}
	}
	for to, n := range s.Mapped.all() {
		if s.MappedTo.at(n) != to || s.Mapped.len() != s.MappedTo.len() || n == 0 || n > uint64(s.MappedTo.len()) {
			return fmt.Errorf("address %s has number %d, which is of %q", to, n, s.MappedTo.at(n))
		}
	}
	for p, c := range s.Coins.all() {
		if (c.State == CoinHeir) != (c.Heir != 0) || c.Heir != 0 && s.Outflows.at(c.Heir).Heir != p {
			return fmt.Errorf("coin %s: state %d, heir of outflow %d", p, c.State, c.Heir)
		}
		if c.Number > s.CoinsIn {
			return fmt.Errorf("coin %s: number %d of %d that came in", p, c.Number, s.CoinsIn)
		}
		if (c.State == CoinFrozen) != (c.Batch != 0) {
			return fmt.Errorf("coin %s: state %d, batch %d", p, c.State, c.Batch)
		}
		if b, ok := s.Batches.get(c.Batch); c.Batch != 0 && (!ok || b.Done && !s.held(b)) {
			return fmt.Errorf("coin %s: frozen by batch %d, which is done", p, c.Batch)
		}
	}
	return nil
}

// held: an outflow of the batch is on HOLD, so its coins stay where they are
// until it leaves, whether or not the halt that came with it is lifted.
func (s *State) held(b Batch) bool {
	return slices.ContainsFunc(b.Outflows, func(id uint64) bool { return s.Outflows.at(id).State == Hold })
}

// checkAttempts: every transaction of a batch consumes its anchor, and inputs
// cover outputs and fee exactly.
func (s *State) checkAttempts(b Batch) error {
	for i, a := range b.Attempts {
		if i > 0 && (a.Body != b.Attempts[i-1].Body+1 || a.K <= b.Attempts[i-1].K || b.Attempts[i-1].Cancels() && !a.Cancels()) {
			return fmt.Errorf("attempt %d with transaction %d follows %d with %d", a.K, a.Body, b.Attempts[i-1].K, b.Attempts[i-1].Body)
		}
		switch {
		case a.Bitcoin != nil:
			if i > 0 && !a.Cancels() && !slices.Equal(a.Bitcoin.payments(), b.Attempts[0].Bitcoin.payments()) {
				return fmt.Errorf("attempt %d does not pay what the first did", a.K)
			}
			var in, out uint64
			anchored := false
			for _, i := range a.Bitcoin.Inputs {
				in += i.Sats
				anchored = anchored || i.Outpoint == b.Anchor
			}
			for _, o := range a.Bitcoin.Outputs {
				out += o.Sats
			}
			if !anchored || in != out+a.Bitcoin.Fee {
				return fmt.Errorf("attempt %d: anchored %v, in %d, out %d, fee %d", a.K, anchored, in, out, a.Bitcoin.Fee)
			}
		case a.Ethereum != nil:
			if first := b.Attempts[0].Ethereum; !a.Cancels() && (a.Ethereum.To != first.To || a.Ethereum.Value != first.Value || string(a.Ethereum.Data) != string(first.Data)) {
				return fmt.Errorf("attempt %d does not pay what the first did", a.K)
			}
			if EthereumAnchor(a.Ethereum.From, a.Ethereum.Sequence) != b.Anchor {
				return fmt.Errorf("attempt %d does not consume %s", a.K, b.Anchor)
			}
		default:
			return fmt.Errorf("attempt %d has no transaction", a.K)
		}
	}
	return nil
}

// checkWallets: every controller beside the first one is in the index, of one
// account only, and every payout list is as it is stored once.
func (s *State) checkWallets() error {
	linked := 0
	for id, a := range s.Accounts.all() {
		if len(a.Wallets) > maxWallets {
			return fmt.Errorf("account %s: %d wallets", id, len(a.Wallets))
		}
		for _, w := range a.Wallets {
			listed := s.Linked.at(w) == id
			if listed == s.firstOf(id, w) {
				return fmt.Errorf("account %s: wallet %s in the index: %v", id, w, listed)
			}
			if listed {
				linked++
			}
		}
	}
	if linked != s.Linked.len() {
		return fmt.Errorf("%d wallets are linked, %d in the index", linked, s.Linked.len())
	}
	for id, p := range s.Payouts.all() {
		if !s.Accounts.has(id) || len(p.Payees) > maxPayees || !p.Required && (p.Off != 0 || len(p.Payees) == 0) {
			return fmt.Errorf("account %s: payout list %+v", id, p)
		}
		for i := 1; i < len(p.Payees); i++ {
			if p.Payees[i-1].To >= p.Payees[i].To {
				return fmt.Errorf("account %s: payout list not sorted, or doubled", id)
			}
		}
	}
	return nil
}

// checkLoans: every loan has its account, and those that hold coins and are not
// settled are looked at.
func (s *State) checkLoans() error {
	for id, l := range s.Loans.all() {
		a, ok := s.Accounts.get(id)
		if !ok || l.Phase < LoanWaiting || l.Phase > LoanReturned {
			return fmt.Errorf("loan %s: account %v, phase %d", id, ok, l.Phase)
		}
		until, ready := s.LoansReady.get(id)
		if open := l.Phase == LoanWaiting || l.Phase == LoanOver; ready != (open && a.Credited) || ready && until != l.Until {
			return fmt.Errorf("loan %s: %s, credited %v, looked at %v until %d", id, l.Phase, a.Credited, ready, until)
		}
		if (l.Phase == LoanGranted) != (l.Outflow != 0) {
			return fmt.Errorf("loan %s: %s with outflow %d", id, l.Phase, l.Outflow)
		}
	}
	for id := range s.LoansReady.all() {
		if !s.Loans.has(id) {
			return fmt.Errorf("account %s is looked at for a loan that it has not", id)
		}
	}
	return nil
}

// checkIndexes: what the tick walks names nothing that is not there.
func (s *State) checkIndexes() error {
	for id := range s.Queue.all() {
		if s.Outflows.at(id).State != Queued {
			return fmt.Errorf("queue: outflow %d is %s", id, s.Outflows.at(id).State)
		}
	}
	if err := s.Watched.check(); err != nil {
		return err
	}
	for id := range s.Live.all() {
		if b, ok := s.Batches.get(id); !ok || b.Done {
			return fmt.Errorf("live: batch %d is not open", id)
		}
	}
	for key, ids := range s.Waiting.all() {
		for _, id := range ids {
			in, ok := s.Inflows.get(id)
			a, _ := s.Genesis.Asset(in.Asset)
			credited := in.State == InflowCredited || in.State == InflowSuspense
			if !ok || in.Address+"/"+in.Asset != key || in.State != InflowWaiting && !(a.isNative() && credited) {
				return fmt.Errorf("waiting at %s: inflow %s is in state %d", key, id, in.State)
			}
		}
		if len(ids) == 0 {
			return fmt.Errorf("waiting at %s: nothing", key)
		}
	}
	return nil
}
