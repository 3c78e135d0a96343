package ledger

import (
	"slices"

	"github.com/coffer-network/coffer/ledger/fixed"
)

// InflowDepth is the confirmations that a block's inflows of total base units
// need before they count (spec: outflows §8.2). Deposits that are swept first
// count at the sweep depth: their credit waits for the sweep's finality.
func (g Genesis) InflowDepth(chain string, total uint64) uint64 {
	c, _ := g.Chain(chain)
	if chain != Bitcoin {
		return max(c.Sweep, 1)
	}
	const smallSats = 100_000
	if total < smallSats {
		return 1
	}
	per := c.BlockSubsidy / 4
	return min(max((total+per-1)/per, 2), 12)
}

// inflow counts a deposit. Nothing an inflow carries can be refused: what
// cannot be credited goes to a claimable suspense balance.
func (x *execution) inflow(m MemberID, f InflowFact) Code {
	s := x.s
	if len(f.ID) > maxTextInFacts || len(f.Address) > maxTextInFacts || len(f.Block) > maxTextInFacts || f.Amount.IsZero() {
		return Malformed
	}
	a, ok := s.Genesis.Asset(f.Asset)
	if !ok || a.Chain != f.Chain || !s.Pools.has(f.Asset) {
		return UnknownPool
	}
	w, ok := s.Watched.get(f.Chain + "/" + f.Address)
	if ok && f.Chain == Bitcoin && w.Purpose == PurposeVault && s.Wants(f.ID) {
		return x.wantedCoin(m, w, f)
	}
	if ok && f.Chain == Bitcoin && w.Purpose == PurposeVault {
		return x.poolFloat(m, w, f)
	}
	if !ok || w.Account == "" {
		return NotAllowed // third-party and unknown scripts are never credited
	}
	if a.isNative() {
		return x.nativeInflow(m, w, f)
	}
	if s.Counted(f.ID) {
		return DuplicateInflow
	}
	if !x.fact(m, KindInflow, f, s.Epoch().Q()) {
		return OK
	}
	defer x.moves(f.Chain, f.Height)()
	in := Inflow{
		ID: f.ID, Chain: f.Chain, Asset: f.Asset, Address: f.Address, Account: w.Account,
		Purpose: w.Purpose, Amount: f.Amount, Height: f.Height, Millis: s.Millis, State: s.Inflows.at(f.ID).State,
	}
	switch f.Chain {
	case Bitcoin:
		sats, _ := f.Amount.Uint64()
		if sats < s.Params.MinCoin {
			in.State = InflowSmall // worth less than its own spending: counted nowhere
			s.Inflows.put(in.ID, in)
			return OK
		}
		if s.Coins.at(f.ID).State == CoinSpent {
			s.Coins.delete(f.ID) // it is back, and what spends it is final
		} else {
			s.coinIn(f, sats)
		}
		s.Recent.put(recentKey(f.Chain, f.Height, f.ID), f.Block)
		x.credit(in)
	default:
		in.State = InflowWaiting
		s.Inflows.put(in.ID, in)
		if acc, ok := s.Accounts.get(in.Account); ok {
			s.putActive(acc) // is not dropped while its coins are on their way
		}
		key := f.Address + "/" + f.Asset
		s.Waiting.put(key, append(slices.Clone(s.Waiting.at(key)), in.ID))
		x.emit(Event{Name: "inflow-waiting", Account: in.Account, Asset: in.Asset, Amount: in.Amount.String(), Note: in.ID})
	}
	return OK
}

// credit books an inflow that is ours beyond doubt, once.
func (x *execution) credit(in Inflow) {
	s := x.s
	// One that was undone and is back pays what its undoing left owed, first of all.
	repays := in.Purpose == PurposeRepay || in.State == InflowUndone
	in.State = InflowCredited
	s.Seen.delete(seenKey(in.Account, in.ID))
	before := s.supplyShares(in.Account, in.Asset)
	var reason string
	if repays {
		reason = x.lend(func(s *State) (string, Code) { return s.repay(in.Account, in.Asset, in.Amount) })
	} else {
		reason = x.lend(func(s *State) (string, Code) { return s.supply(in.Account, in.Asset, in.Amount) })
	}
	s = x.s
	if reason != "" {
		in.State, in.Reason = InflowSuspense, reason
	}
	acc := s.Accounts.at(in.Account)
	acc.Credited = true
	if got := s.supplyShares(in.Account, in.Asset); before.Less(got) {
		acc = s.addUnfinal(acc, in, must(fixed.Sub(got, before)))
	}
	s.putActive(acc)
	s.Inflows.put(in.ID, in)
	x.emit(Event{Name: "credited", Account: in.Account, Asset: in.Asset, Amount: in.Amount.String(), Note: in.ID + " " + reason})
	x.loanCoins(in.Account)
}

// lend runs a booking that must not fail: an inflow cannot be sent back. A code
// here is a mistake of ours, so it breaks the command.
func (x *execution) lend(f func(*State) (string, Code)) string {
	reason, code := f(x.s)
	if code != OK {
		panic("booking an inflow: " + string(code))
	}
	x.s.refreshRates()
	return reason
}

// float books the coins that genesis promised to a vault, when Q members saw
// them arrive at a final height.
func (x *execution) float(m MemberID, f FloatFact) Code {
	s := x.s
	w, ok := s.Watched.get(f.Chain + "/" + f.Address)
	c, known := s.Genesis.Chain(f.Chain)
	if !ok || !known || w.Purpose != PurposeVault || f.Chain != Ethereum {
		return NotAllowed
	}
	sender := s.Senders.at(f.Address)
	if sender.Booked || f.Amount.Less(c.Float) {
		return OK
	}
	if !x.fact(m, KindFloat, f, s.Epoch().Q()) {
		return OK
	}
	defer x.moves(f.Chain, s.seenBy(f.Chain))()
	sender = sender.receive(c.Float)
	sender.Booked = true
	s.Senders.put(f.Address, sender)
	x.emit(Event{Name: "float", Amount: c.Float.String(), Note: f.Address})
	return OK
}

// seenBy is a height at or above which a fact lies that a quorum says and that
// carries no height: the highest that f+1 members have reported. Whoever says a
// fact has reported the height that he saw it at, so the lowest of the honest ones
// of a quorum is no higher; and no f traitors can raise it.
//
// Why not the agreed tip: it may be behind what members saw, and custody at the tip
// would be held to a float that came later.
func (s *State) seenBy(chain string) uint64 {
	var hs []uint64
	for _, m := range s.Epoch().Members {
		for _, h := range s.Seats.at(m.ID.String()).Heights {
			if h.Chain == chain {
				hs = append(hs, h.Height)
			}
		}
	}
	if len(hs) <= s.Epoch().F {
		return 0 // nobody can have seen anything
	}
	slices.Sort(hs)
	return hs[len(hs)-1-s.Epoch().F]
}

// planSweeps plans the way into the hot address for deposits that wait at their
// own: one gas transfer where gas is missing, one token transfer.
func (x *execution) planSweeps() {
	for _, key := range x.s.Waiting.keys() {
		x.try(func(x *execution) Code { return x.planSweep(key) })
	}
}

func (x *execution) planSweep(key string) Code {
	s := x.s
	ids, rest := s.nextSweep(s.Waiting.at(key))
	first := s.Inflows.at(ids[0])
	a, _ := s.Genesis.Asset(first.Asset)
	sender := s.Senders.at(first.Address)
	if a.isNative() {
		return x.planNativeSweep(key, ids)
	}
	if s.HaltOf(a.ID) != "" {
		return Halted
	}
	if sender.Open > 0 {
		return OutflowCap // one sweep of an address at a time
	}
	cost, code := s.gasCost(Ethereum, a.Gas)
	if code != OK {
		return code
	}
	total := fixed.Int{}
	for _, id := range ids {
		total = must(fixed.Add(total, s.Inflows.at(id).Amount))
	}
	inAsset, code := s.feeIn(a, cost)
	if code != OK {
		return code
	}
	if least, err := fixed.Mul(inAsset, fixed.New(s.Params.SweepMultiple)); err != nil || total.Less(least) {
		return BelowMin // waits at its address until more arrives
	}
	hot, ok := s.Vault(Ethereum, "hot")
	if !ok {
		return Halted
	}
	var after uint64
	if sender.Float.Less(cost) {
		after = x.sendGas(first.Address, must(fixed.Sub(cost, sender.Float)))
		sender = s.Senders.at(first.Address)
	}
	o := x.newOutflow(Outflow{
		Kind: OutflowSweep, Asset: a.ID, Gross: total, To: hot.Address, From: first.Address, After: after, Carries: ids,
	})
	s = x.s
	for _, id := range ids {
		in := s.Inflows.at(id)
		in.State, in.Outflow = InflowSweeping, o.ID
		s.Inflows.put(id, in)
	}
	s.Waiting.delete(key)
	if len(rest) > 0 {
		s.Waiting.put(key, rest)
	}
	sender.Open++
	s.Senders.put(sender.Address, sender)
	return OK
}

// nextSweep says which of the waiting deposits the next sweep carries: all, but
// one that was in a reverted sweep goes alone, so that a deposit that is not
// there (its block was reorganised away) holds up no other and burns gas twice
// at most.
func (s *State) nextSweep(ids []string) (now, later []string) {
	if s.Inflows.at(ids[0]).Reverts > 0 {
		return ids[:1:1], slices.Clone(ids[1:])
	}
	for _, id := range ids {
		if s.Inflows.at(id).Reverts > 0 {
			later = append(later, id)
		} else {
			now = append(now, id)
		}
	}
	return now, later
}

// swept credits what a final sweep brought in, or puts it back to wait.
func (x *execution) swept(o Outflow, paid bool) {
	if a, _ := x.s.Genesis.Asset(o.Asset); a.isNative() {
		if key := o.From + "/" + o.Asset; !paid {
			x.s.Waiting.put(key, append(slices.Clone(o.Carries), x.s.Waiting.at(key)...))
		}
		return // it was credited when it counted
	}
	for _, id := range o.Carries {
		in := x.s.Inflows.at(id)
		if paid {
			x.credit(in)
			continue
		}
		in.State, in.Outflow = InflowWaiting, 0
		in.Reverts++
		if in.Reverts > 1 && len(o.Carries) == 1 {
			in.State = InflowHeld
			x.s.Inflows.put(id, in)
			x.emit(Event{Name: "inflow-held", Account: in.Account, Asset: in.Asset, Amount: in.Amount.String(), Note: id})
			continue
		}
		x.s.Inflows.put(id, in)
		key := in.Address + "/" + in.Asset
		x.s.Waiting.put(key, append(slices.Clone(x.s.Waiting.at(key)), id))
	}
}
