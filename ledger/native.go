package ledger

import (
	"fmt"
	"slices"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// The native coin of Ethereum as a pool's asset (spec: outflows §8.4). A deposit
// address is credited with what it ever received, told from its balance at a final
// height:
//
//	received = balance + what its own transactions took − gas that we sent it
//
// and the increase over what was counted before is the deposit. So a transfer out of
// a contract, which leaves no log and is in no block's body, counts as any other, and
// the same word twice counts once. It is final when it counts, so nothing undoes it.
//
// Why not traces of transactions: what a node says in a trace follows from no block
// hash, few nodes offer them, and a balance cannot miss a way in which coins come.
//
// What is credited still lies at its own address (Unswept) and cannot be paid out
// before a sweep has brought it to the hot address. The sweep's gas comes out of the
// coin that it moves, and the hot address's float makes it good to the pool, as it
// bears the gas of every other sweep (spec: outflows §7).

// NativeID names the deposit that an address's balance at a final height shows.
func NativeID(addr string, height uint64) string { return fmt.Sprintf("%s@%d", addr, height) }

// isNative reports whether an asset is the coin that its chain's gas is paid in.
func (a AssetParam) isNative() bool { return a.Chain == Ethereum && a.Token == "" }

// NativeWord says what a member makes of a balance that it has read.
type NativeWord uint8

const (
	NativeNothing NativeWord = iota // nothing is there that is worth a word
	NativeLater                     // transactions of ours are under way: the balance tells nothing yet
	NativeMore                      // more was received than is counted, and it is worth a sweep
)

// NativeReceived is what a deposit address had received in all at a final height,
// when its balance there was this. Every member that has applied what is final there
// says the same.
func (s *State) NativeReceived(addr string, height uint64, balance fixed.Int) (fixed.Int, NativeWord) {
	w := s.Watched.at(Ethereum + "/" + addr)
	native, listed := s.Genesis.Native(Ethereum)
	if !listed || !s.Pools.has(native.ID) || w.Account == "" {
		return fixed.Int{}, NativeNothing
	}
	from := s.Senders.at(addr)
	if !from.settled(height) {
		return fixed.Int{}, NativeLater
	}
	var c fixed.Calc
	all := c.Add(balance, from.Spent)
	if c.Err() != nil || all.Less(from.Gas) {
		return fixed.Int{}, NativeNothing
	}
	total := c.Sub(all, from.Gas)
	if !from.Received.Less(total) || !s.worthSweep(must(fixed.Sub(total, from.Received)), from) {
		return total, NativeNothing
	}
	return total, NativeMore
}

// settled: nothing that we do with a deposit address is under way, and all that was
// done had happened by the height.
func (f Sender) settled(height uint64) bool {
	return f.Open == 0 && f.GasOpen == 0 && height >= f.Settled
}

// worthSweep: what would lie at an address is worth as many sweeps as the parameters
// say. Less waits there until more comes: nothing forgets it.
func (s *State) worthSweep(more fixed.Int, from Sender) bool {
	cost, code := s.gasCost(Ethereum, transferGas)
	if code != OK {
		return false
	}
	var c fixed.Calc
	least, have := c.Mul(cost, fixed.New(s.Params.SweepMultiple)), c.Add(from.Unswept, more)
	return c.Err() == nil && !have.Less(least)
}

// nativeInflow counts what a deposit address received since it was last counted.
// f.Amount is all that it ever did. DUPLICATE_INFLOW: no more than was counted.
// BELOW_MIN: not worth a sweep yet. HALTED: transactions of ours are under way.
func (x *execution) nativeInflow(m MemberID, w Watch, f InflowFact) Code {
	s := x.s
	from := s.Senders.at(f.Address)
	switch {
	case f.ID != NativeID(f.Address, f.Height):
		return Malformed
	case s.Counted(f.ID) || !from.Received.Less(f.Amount):
		return DuplicateInflow
	case !from.settled(f.Height):
		return Halted
	}
	more := must(fixed.Sub(f.Amount, from.Received))
	if !s.worthSweep(more, from) {
		return BelowMin
	}
	if !x.fact(m, KindInflow, f, s.Epoch().Q()) {
		return OK
	}
	defer x.moves(f.Chain, f.Height)()
	from.Received, from.Unswept = f.Amount, must(fixed.Add(from.Unswept, more))
	s.Senders.put(from.Address, from)
	p := s.Pools.at(f.Asset)
	p.Unswept = must(fixed.Add(p.Unswept, more))
	s.Pools.put(f.Asset, p)
	key := f.Address + "/" + f.Asset
	s.Waiting.put(key, append(slices.Clone(s.Waiting.at(key)), f.ID))
	x.credit(Inflow{
		ID: f.ID, Chain: f.Chain, Asset: f.Asset, Address: f.Address, Account: w.Account,
		Purpose: w.Purpose, Amount: more, Height: f.Height, Millis: s.Millis,
	})
	return OK
}

// planNativeSweep plans the way into the hot address for coin that is credited.
func (x *execution) planNativeSweep(key string, ids []string) Code {
	s := x.s
	first := s.Inflows.at(ids[0])
	from := s.Senders.at(first.Address)
	hot, ok := s.Vault(Ethereum, address.RoleHot)
	switch {
	case s.HaltOf(first.Asset) != "" || !ok:
		return Halted
	case from.Open > 0 || from.GasOpen > 0:
		return OutflowCap // one sweep of an address at a time
	case !s.worthSweep(fixed.Int{}, from):
		return BelowMin // gas became dearer
	}
	x.newOutflow(Outflow{
		Kind: OutflowSweep, Asset: first.Asset, Gross: from.Unswept, To: hot.Address, From: first.Address, Carries: ids,
	})
	s.Waiting.delete(key)
	from.Open++
	s.Senders.put(from.Address, from)
	return OK
}

// nativeSpent books what a final transaction took of the native coin at its sender:
// fee, and value if it paid.
func (x *execution) nativeSpent(o Outflow, from Sender, value, fee fixed.Int, height uint64) Sender {
	s := x.s
	used := must(fixed.Add(value, fee))
	a, _ := s.Genesis.Asset(o.Asset)
	if s.fromVault(from.Address) {
		if o.ownCoin(a) {
			return from // out of the pool's coin: its book bears the gas (see settle)
		}
		return from.spend(used)
	}
	from.Spent, from.Settled = must(fixed.Add(from.Spent, used)), max(from.Settled, height)
	if !a.isNative() {
		return from.spend(used)
	}
	// Of what the pool loses here the value arrives at the hot address, and the rest
	// the float there makes good. Beyond the pool's coin it is gas that was sent.
	took := lesser(used, from.Unswept)
	from.Unswept = must(fixed.Sub(from.Unswept, took))
	from = from.spend(must(fixed.Sub(used, took)))
	p := s.Pools.at(o.Asset)
	p.Unswept = must(fixed.Sub(p.Unswept, took))
	s.Pools.put(o.Asset, p)
	hot, _ := s.Vault(Ethereum, address.RoleHot)
	float := s.Senders.at(hot.Address)
	s.Senders.put(hot.Address, float.spend(must(fixed.Sub(took, value))))
	return from
}

// ownCoin: an outflow of the pool's own native coin to a client, which pays its gas
// out of the same coin.
func (o Outflow) ownCoin(a AssetParam) bool { return a.isNative() && o.Account != "" }

// sendGas has the gas address send a deposit address what a sweep costs.
func (x *execution) sendGas(to string, wei fixed.Int) uint64 {
	s := x.s
	native, _ := s.Genesis.Native(Ethereum)
	o := x.newOutflow(Outflow{Kind: OutflowGas, Asset: native.ID, Gross: wei, To: to})
	from := s.Senders.at(to)
	from.GasOpen++
	s.Senders.put(to, from)
	return o.ID
}

// gasFinal notes that gas has arrived for good.
func (x *execution) gasFinal(o Outflow, height uint64) {
	to := x.s.Senders.at(o.To)
	to.GasOpen--
	to.Gas, to.Settled = must(fixed.Add(to.Gas, o.Net)), max(to.Settled, height)
	x.s.Senders.put(o.To, to)
}

// nativeFree is the pool's native coin at the hot address that no transaction under
// way may take: what the books have, less what is not swept yet.
func (s *State) nativeFree(a AssetParam) fixed.Int {
	var c fixed.Calc
	p, ok := s.Pools.get(a.ID)
	hot, has := s.Vault(Ethereum, address.RoleHot)
	if !ok || !has {
		return fixed.Int{}
	}
	have := c.Add(c.Add(p.Cash, p.Reserved), p.Suspended)
	gone := c.Add(c.Add(p.Missing, p.Unswept), s.Senders.at(hot.Address).Due)
	for id := range s.Live.all() {
		b := s.Batches.at(id)
		if b.Kind == BatchPay && b.Chain == a.Chain && s.Outflows.at(b.Outflows[0]).ownCoin(a) {
			gone = c.Add(gone, s.mostTaken(b, a))
		}
	}
	if c.Err() != nil {
		panic("native coin at the hot address: " + c.Err().Error())
	}
	return must(fixed.Sub(have, lesser(have, gone)))
}

// mostTaken is the most that any transaction of a batch takes of an asset.
func (s *State) mostTaken(b Batch, a AssetParam) (most fixed.Int) {
	for _, at := range b.Attempts {
		if t := s.taken(at, a); most.Less(t) {
			most = t
		}
	}
	return most
}

// checkNative: the wei of every deposit address is accounted for, and a pool's
// unswept coin is what lies at them.
func (s *State) checkNative() error {
	unswept := map[string]fixed.Int{}
	native, _ := s.Genesis.Native(Ethereum)
	for addr, f := range s.Senders.all() {
		if f.Received.Less(f.Unswept) {
			return fmt.Errorf("sender %s: %s not swept of %s received", addr, f.Unswept, f.Received)
		}
		unswept[native.ID] = must(fixed.Add(unswept[native.ID], f.Unswept))
		if s.fromVault(addr) || f.Open > 0 || f.GasOpen > 0 {
			continue
		}
		var c fixed.Calc
		in, out := c.Add(c.Add(f.Gas, f.Received), f.Due), c.Add(c.Add(f.Spent, f.Float), f.Unswept)
		if c.Err() != nil || in != out {
			return fmt.Errorf("sender %s: %s came in, %s went out or is there", addr, in, out)
		}
	}
	for id, p := range s.Pools.all() {
		if p.Unswept != unswept[id] {
			return fmt.Errorf("pool %s: %s not swept, at its addresses %s", id, p.Unswept, unswept[id])
		}
	}
	return nil
}
