package ledger

import (
	"fmt"
	"slices"

	"github.com/coffer-network/coffer/ledger/fixed"
)

// newOutflow queues an outflow. The caller has moved what pays it.
func (x *execution) newOutflow(o Outflow) Outflow {
	s := x.s
	o.ID, o.State, o.Created = s.NextOutflow, Queued, s.Millis
	if o.Net.IsZero() {
		o.Net = o.Gross
	}
	s.NextOutflow++
	if o.Asset == btcAsset && o.Account != "" {
		o.Mapped = s.mapAddress(o.To)
	}
	if o.Boosted = s.boosts(o); o.Boosted {
		x.accrueBoost(o)
	}
	s.Outflows.put(o.ID, o)
	s.Queue.put(o.ID, o.Created)
	if o.Account != "" {
		acc := s.Accounts.at(o.Account)
		acc.Outflows++
		s.Accounts.put(acc.ID, acc)
	}
	x.emit(Event{Name: "outflow", Account: o.Account, Asset: o.Asset, Amount: o.Gross.String(), Outflow: o.ID, Note: o.Kind.String()})
	return o
}

// move takes an outflow along one arrow of the picture.
func (x *execution) move(o Outflow, to OutflowState) Outflow {
	if !slices.Contains(outflowArrows[o.State], to) {
		panic(fmt.Sprintf("outflow %d: no arrow from %s to %s", o.ID, o.State, to))
	}
	s := x.s
	o.State = to
	s.Queue.delete(o.ID)
	switch to {
	case Queued:
		o.Binding, o.Batch = o.Binding+1, 0
		s.Queue.put(o.ID, o.Created)
	case Paid, Refunded:
		o.Closed = s.Millis
		if o.Account != "" {
			acc := s.Accounts.at(o.Account)
			acc.Outflows--
			s.Accounts.put(acc.ID, acc)
		}
	}
	s.Outflows.put(o.ID, o)
	x.emit(Event{Name: "outflow-state", Account: o.Account, Asset: o.Asset, Outflow: o.ID, Batch: o.Batch, Note: to.String()})
	return o
}

// refund gives an account back what an outflow did not pay. own: it failed for
// a reason of the account's (its gates, its destination), so no interest is
// waived and what the chain took is the account's (spec: lending §11.4).
func (x *execution) refund(o Outflow, spent fixed.Int, own bool) {
	s := x.s
	s.sync()
	var code Code
	if own {
		code = s.outflowRevert(o, spent)
	} else {
		code = s.outflowFail(o)
	}
	if code != OK {
		panic(fmt.Sprintf("refund outflow %d: %s", o.ID, code))
	}
	s.refreshRates()
	x.move(s.Outflows.at(o.ID), Refunded)
	if o.Boosted {
		x.returnBoost(o)
	}
	x.freeHeir(o.ID)
}

// batchOf returns an open batch that facts may speak about.
func (s *State) batchOf(id, body uint64) (Batch, Attempt, bool) {
	b, ok := s.Batches.get(id)
	if !ok || b.Kind != BatchPay || b.Done {
		return Batch{}, Attempt{}, false
	}
	a, ok := b.Body(body)
	return b, a, ok
}

// spent: the anchor of a batch is spent in the best chain.
func (x *execution) spent(m MemberID, f SpentFact) Code {
	s := x.s
	if len(f.Block) > maxTextInFacts {
		return Malformed
	}
	b, a, ok := s.batchOf(f.Batch, f.Body)
	if !ok && !(f.Foreign && s.Live.has(f.Batch)) || b.Spent != nil && !f.Foreign {
		return OK // already settled, or known: after a fork, unmined comes first
	}
	if !x.fact(m, KindSpent, f, s.Epoch().Q()) {
		return OK
	}
	if f.Foreign {
		b = s.Batches.at(f.Batch)
		x.hold(b, HeldForeign, f.Height, "foreign spend of "+b.Anchor)
		return OK
	}
	b.Spent = &Spend{Body: a.Body, Height: f.Height, Block: f.Block}
	s.Batches.put(b.ID, b)
	for _, id := range b.Outflows {
		if o := s.Outflows.at(id); o.State == Planned || o.State == Cancelling {
			x.move(o, Mined)
			x.gasArrived(o, true)
		}
	}
	return OK
}

// gasArrived books gas for a sweep on its sender as soon as it is mined, and
// takes it back when that block leaves the chain: a sweep that then lacks gas
// waits in the mempool, which costs time and no money.
func (x *execution) gasArrived(o Outflow, arrived bool) {
	if o.Kind != OutflowGas {
		return
	}
	to := x.s.Senders.at(o.To)
	if arrived {
		to = to.receive(o.Net)
	} else {
		to = to.spend(o.Net)
	}
	x.s.Senders.put(o.To, to)
}

// spend and receive keep Float − Due exact, in whatever order the facts about a
// sender come in: a sweep may be final here before the gas it burnt is attested
// mined again.
func (s Sender) spend(wei fixed.Int) Sender {
	paid := lesser(wei, s.Float)
	s.Float = must(fixed.Sub(s.Float, paid))
	s.Due = must(fixed.Add(s.Due, must(fixed.Sub(wei, paid))))
	return s
}

func (s Sender) receive(wei fixed.Int) Sender {
	owed := lesser(wei, s.Due)
	s.Due = must(fixed.Sub(s.Due, owed))
	s.Float = must(fixed.Add(s.Float, must(fixed.Sub(wei, owed))))
	return s
}

// unmined: the block of an attested spend left the best chain before finality.
func (x *execution) unmined(m MemberID, f UnminedFact) Code {
	s := x.s
	b, ok := s.Batches.get(f.Batch)
	if !ok || b.Done || b.Spent == nil || b.Spent.Block != f.Block {
		return OK
	}
	if !x.fact(m, KindUnmined, f, s.Epoch().Q()) {
		return OK
	}
	b.Spent = nil
	s.Batches.put(b.ID, b)
	again := Planned
	if b.Newest().Cancels() {
		again = Cancelling
	}
	for _, id := range b.Outflows {
		if o := s.Outflows.at(id); o.State == Mined {
			x.move(o, again)
			x.gasArrived(o, false)
		}
	}
	return OK
}

// hold stops everything about a batch: only a vote leaves it.
func (x *execution) hold(b Batch, cause HoldCause, height uint64, why string) {
	b.Held, b.HeldAt = cause, height
	x.s.Batches.put(b.ID, b)
	for _, id := range b.Outflows {
		if o := x.s.Outflows.at(id); o.State != Paid && o.State != Refunded && o.State != Hold {
			x.move(o, Hold)
		}
	}
	x.s.closeBatch(b.ID)
	if x.s.held(b) {
		x.s.OnHold.put(b.ID, x.s.Millis)
	}
	x.s.OutflowsHalt = "HOLD: " + why
	x.emit(Event{Name: "hold", Batch: b.ID, Note: why})
}

// final: the anchor is spent beyond the finality depth. Only now does anything
// become paid, unpaid, spendable or owed again.
func (x *execution) final(m MemberID, f FinalFact) Code {
	s := x.s
	if len(f.TxID) > maxTextInFacts || len(f.Block) > maxTextInFacts {
		return Malformed
	}
	b, a, ok := s.batchOf(f.Batch, f.Body)
	if !ok {
		return OK
	}
	switch f.Outcome {
	case OutcomePaid, OutcomeUnclear:
		if a.Cancels() {
			return Malformed // it pays nobody
		}
	case OutcomeSelf:
		if !a.Cancels() {
			return Malformed
		}
	case OutcomeReverted:
		if a.Bitcoin != nil {
			return Malformed // no transaction there fails in a block
		}
	default:
		return Malformed
	}
	if !x.fact(m, KindFinal, f, s.Epoch().Q()) {
		return OK
	}
	if f.Outcome == OutcomeUnclear {
		x.hold(b, HeldUnclear, f.Height, "success without the expected payment in "+f.TxID)
		return OK
	}
	defer x.moves(b.Chain, f.Height)()
	s.closeBatch(b.ID)
	x.settleBatch(b, a, f)
	return OK
}

// settleBatch closes the outflows of a batch by the transaction that is final.
func (x *execution) settleBatch(b Batch, a Attempt, f FinalFact) {
	switch {
	case a.Bitcoin != nil:
		x.finalBitcoin(b, a, f)
	case a.Ethereum != nil:
		x.finalEthereum(b, a, f)
	}
	parts := split(f.Fee, len(b.Outflows))
	for i, id := range b.Outflows {
		x.settle(b, x.s.Outflows.at(id), a, f, parts[i])
	}
}

// split divides what a transaction cost evenly over what it paid, the remainder
// to the first (spec: outflows W7).
func split(v fixed.Int, n int) []fixed.Int {
	var c fixed.Calc
	part := c.MulDivFloor(v, fixed.New(1), fixed.New(uint64(n)))
	parts := slices.Repeat([]fixed.Int{part}, n)
	parts[0] = c.Add(part, c.Sub(v, c.Mul(part, fixed.New(uint64(n)))))
	if c.Err() != nil {
		panic(fmt.Sprintf("split %s by %d: %v", v, n, c.Err()))
	}
	return parts
}

// settle closes one outflow of a batch whose anchor's final spend is known. cost
// is its part of what the chain took, native.
func (x *execution) settle(b Batch, o Outflow, a Attempt, f FinalFact, cost fixed.Int) {
	s := x.s
	o.TxID = f.TxID
	s.Outflows.put(o.ID, o)
	paid, mined := f.Outcome == OutcomePaid, o.State == Mined
	if paid {
		o = x.move(o, Paid)
	} else {
		o = x.move(o, UnpaidProven)
	}
	taken := fixed.Int{} // what the chain took in the outflow's own asset
	if a.Bitcoin != nil {
		taken = cost
		x.settleTier(o, b, paid, sats(cost))
	}
	if asset, _ := s.Genesis.Asset(o.Asset); o.ownCoin(asset) {
		taken = cost
	}
	switch {
	case o.Kind == OutflowGas:
		if paid {
			x.gasFinal(o, s.heightOf(f))
		}
		if paid != mined { // final before it was attested mined, or mined and failed
			x.gasArrived(o, paid)
		}
		if !paid {
			x.move(o, Queued)
		}
	case o.Kind == OutflowMerge && !paid:
		x.move(o, Refunded) // it moved nothing; the next one takes other coins
		x.freeHeir(o.ID)
		x.bookFee(o.Asset, fixed.Int{}, taken)
		s.refreshRates()
	case o.Kind == OutflowSweep:
		from := s.Senders.at(o.From)
		from.Open--
		s.Senders.put(o.From, from)
		if !paid {
			x.move(o, Refunded)
		}
		x.swept(o, paid)
	case paid && o.Account == "": // from one vault of ours to another, at our own cost
		x.bookFee(o.Asset, fixed.Int{}, taken)
		s.refreshRates()
	case paid:
		s.sync()
		if code := s.outflowDone(o.Asset, o.Gross); code != OK {
			panic(fmt.Sprintf("outflow %d done: %s", o.ID, code))
		}
		x.bookFee(o.Asset, o.Fee, taken)
		s.refreshRates()
	case f.Outcome == OutcomeReverted:
		acc := s.Accounts.at(o.Account)
		recent := slices.DeleteFunc(slices.Clone(acc.Refused), func(r Refused) bool { return s.Millis-r.Millis >= refusedDestinationMillis })
		acc.Refused = append(recent, Refused{To: o.To, Millis: s.Millis})
		s.Accounts.put(acc.ID, acc)
		x.giveBack(o, cost, taken)
	case b.Cancel == VoteRefund:
		x.refund(o, fixed.Int{}, false)
		x.bookFee(o.Asset, fixed.Int{}, taken)
		s.refreshRates()
	case b.Cancel == "" && failsForGood(s.planGates(o)):
		x.giveBack(o, cost, taken)
	default:
		// Proven unpaid and still owed: another anchor, of which Bitcoin's is the heir
		// of this one. What the cancel cost is the pool's.
		o = x.move(o, Queued)
		x.bookFee(o.Asset, fixed.Int{}, taken)
		s.refreshRates()
	}
}

// giveBack refunds what failed for a reason of the account's, which bears what
// the chain took up to its Max fee; the rest is the pool's (spec: outflows §4.5,
// lending §11.4). taken is what left custody in the outflow's own asset.
func (x *execution) giveBack(o Outflow, cost, taken fixed.Int) {
	spent, code := x.s.costIn(o, cost)
	if code != OK {
		spent = o.MaxFee
	}
	x.refund(o, lesser(spent, o.MaxFee), true)
	x.bookFee(o.Asset, fixed.Int{}, taken)
	x.s.refreshRates()
}

// bookFee gives the pool the client's fee less what the chain took in the
// pool's asset: a gain mints TreasuryShares, a loss burns them, and beyond them
// it is Deficit (spec: outflows §7).
func (x *execution) bookFee(pool string, fee, taken fixed.Int) {
	s := x.s
	p := s.Pools.at(pool)
	var c fixed.Calc
	if taken.Less(fee) {
		gain := c.Sub(fee, taken)
		p.Cash, p.FeeGains = c.Add(p.Cash, gain), c.Add(p.FeeGains, gain)
		p.TreasuryShares = c.Add(p.TreasuryShares, c.MulDivFloor(gain, fixed.Ray, p.SupplyIndex))
	} else if fee.Less(taken) {
		loss := c.Sub(taken, fee)
		// Cash may have been reserved for others since the plan. What it cannot bear is
		// Missing until some comes; refusing the fact would halt everything.
		p.Missing, p.FeeLosses = c.Add(p.Missing, loss), c.Add(p.FeeLosses, loss)
		p = p.settleMissing()
		burn := lesser(p.TreasuryShares, c.MulDivCeil(loss, fixed.Ray, p.SupplyIndex))
		covered := lesser(loss, c.MulDivFloor(burn, p.SupplyIndex, fixed.Ray))
		p.TreasuryShares = c.Sub(p.TreasuryShares, burn)
		p.Deficit = c.Add(p.Deficit, c.Sub(loss, covered))
	}
	if err := c.Err(); err != nil {
		panic(fmt.Sprintf("book fee of pool %s: %v", pool, err))
	}
	s.Pools.put(pool, p)
}

func greater(a, b fixed.Int) fixed.Int {
	if a.Less(b) {
		return b
	}
	return a
}

func lesser(a, b fixed.Int) fixed.Int {
	if b.Less(a) {
		return b
	}
	return a
}

// finalBitcoin burns the inputs of the transaction that confirmed, credits its
// change and frees what only the other transactions of the batch would have
// spent: they are dead, since they all consume the anchor.
func (x *execution) finalBitcoin(b Batch, a Attempt, f FinalFact) {
	s := x.s
	for _, other := range b.Attempts {
		if other.Bitcoin == nil {
			continue
		}
		for _, in := range other.Bitcoin.Inputs {
			if c, ok := s.Coins.get(in.Outpoint); ok && c.State == CoinFrozen && c.Batch == b.ID {
				c.State, c.Batch, c.Frozen = CoinAvailable, 0, 0
				s.Coins.put(in.Outpoint, c)
			}
		}
	}
	for _, in := range a.Bitcoin.Inputs {
		if k, ok := s.Coins.get(in.Outpoint); ok {
			s.coinGone(k, f.Height)
			continue
		}
		// A deposit that was undone and is back, beside the old transaction that spends
		// it: it counts again later, and its coin never will.
		s.Coins.put(in.Outpoint, Coin{Outpoint: in.Outpoint, Sats: in.Sats, State: CoinSpent})
	}
	for i, out := range a.Bitcoin.Outputs {
		if out.Outflow != 0 && s.Outflows.at(out.Outflow).Account != "" {
			continue
		}
		k := Coin{Outpoint: outpoint(f.TxID, i), Sats: out.Sats, Address: out.Address, Height: f.Height, State: CoinAvailable}
		if out.Heir != 0 {
			k.State, k.Heir = CoinHeir, out.Heir
			o := s.Outflows.at(out.Heir)
			o.Heir = k.Outpoint
			s.Outflows.put(o.ID, o)
		}
		s.Coins.put(k.Outpoint, k)
		s.VaultCoins.put(k.Outpoint, k.Height)
	}
}

// freeHeir makes the coin that was kept for an outflow spendable: the outflow
// will not be paid.
func (x *execution) freeHeir(id uint64) {
	s := x.s
	o := s.Outflows.at(id)
	if o.Heir == "" {
		return
	}
	k := s.Coins.at(o.Heir)
	k.State, k.Heir = CoinAvailable, 0
	s.Coins.put(k.Outpoint, k)
	o.Heir = ""
	s.Outflows.put(o.ID, o)
}

// finalEthereum books what the final transaction took at its sender: gas from its
// float, and of the native coin what it moved.
func (x *execution) finalEthereum(b Batch, a Attempt, f FinalFact) {
	s := x.s
	value := fixed.Int{}
	if len(a.Ethereum.Data) == 0 && f.Outcome == OutcomePaid {
		value = a.Ethereum.Value
	}
	from := x.nativeSpent(s.Outflows.at(b.Outflows[0]), s.Senders.at(a.Ethereum.From), value, f.Fee, s.heightOf(f))
	if from.Open > 0 && s.fromVault(from.Address) {
		from.Open--
	}
	s.Senders.put(from.Address, from)
}

// heightOf is a final fact's height. What a vote says has none: it is of the past.
func (s *State) heightOf(f FinalFact) uint64 {
	if f.Height == 0 {
		return s.Tips.at(Ethereum).Height
	}
	return f.Height
}

func outpoint(txid string, index int) string { return fmt.Sprintf("%s:%d", txid, index) }
