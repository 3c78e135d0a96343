package ledger

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// The two tiers of Bitcoin payouts (spec: outflows §6). Coins that clients
// deposit lie with the minter M. What leaves in small amounts is fronted by the
// pool P, out of the operators' own float, many payouts to a transaction; M owes
// P what P fronted (Boost) and pays it back in one transaction (a recoup).
//
//	client ──deposit──► M ──standard payout, above 50,000 sat──► client
//	                    │
//	                    └──recoup of what was fronted──► P ──boosted payouts, many at once──► clients
//
// A chain without a float in the genesis has one tier: M pays everything.

const (
	// BoostLimit is the largest boosted payout, sats (spec: outflows §6.2: exactly
	// 50,000 is boosted), and what Boost must exceed to be paid back.
	BoostLimit = 50_000

	burnSeconds        = 60 // between two looks at Boost
	consolidateSeconds = 86_400
	reuseSeconds       = 43_200 // after which coins of a batch that does not confirm may serve others

	maxBatchOutflows = 100 // outputs of one boosted batch
	plentyCoins      = 32  // below it P's change is split (spec: outflows U5)
	changePartsMost  = 4
	manyCoins        = 200 // above it the smallest are merged (spec: outflows §6.5)
	rateHours        = 168 // of agreed rates that tell whether today's is a low one
)

// BitcoinPool is the book of P, in sats.
type BitcoinPool struct {
	Float   uint64   `cbor:"1,keyasint"` // the operators' coins that were booked as its capital
	Booked  bool     `cbor:"2,keyasint"` // all that genesis promised has arrived: P may front
	Boost   uint64   `cbor:"3,keyasint"` // debited from clients of boosted payouts, owed to P, not yet on its way
	Over    uint64   `cbor:"4,keyasint"` // refunds of what was on its way already: deducted from what accrues next
	Recoup  uint64   `cbor:"5,keyasint"` // on its way from M to P
	Pending uint64   `cbor:"6,keyasint"` // boosted payouts that are neither paid nor refunded
	Fronted uint64   `cbor:"7,keyasint"` // ever paid by P
	Gained  uint64   `cbor:"8,keyasint"` // fees of its clients
	Lost    uint64   `cbor:"9,keyasint"` // fees that chains took of its coins and of recoups
	Hourly  []uint64 `cbor:"10,keyasint"`
}

// boosts reports whether an outflow is of the tier that P fronts.
func (s *State) boosts(o Outflow) bool {
	c, _ := s.Genesis.Chain(Bitcoin)
	gross, small := o.Gross.Uint64()
	return o.Asset == btcAsset && o.Account != "" && !c.Float.IsZero() && small && gross <= BoostLimit
}

const btcAsset = "btc"

// mapAddress gives a Bitcoin address its number: the same address the same one,
// for ever, and no number to two (spec: outflows S4). to is canonical, so one
// address has one spelling (S5).
func (s *State) mapAddress(to string) uint64 {
	if n, ok := s.Mapped.get(to); ok {
		return n
	}
	n := uint64(s.MappedTo.len()) + 1
	s.Mapped.put(to, n)
	s.MappedTo.put(n, to)
	return n
}

// MappedSubaccount is the place of an outflow in the minter's account book, 0x03
// and the number of its address.
func (o Outflow) MappedSubaccount() (address.Subaccount, bool) {
	s := address.Subaccount{Kind: address.SubMapped}
	binary.BigEndian.PutUint64(s.Number[8:], o.Mapped)
	return s, o.Mapped != 0
}

// accrueBoost notes a boosted payout that was accepted: its client was debited, so M
// owes P what P will front.
func (x *execution) accrueBoost(o Outflow) {
	p, gross := &x.s.Two, sats(o.Gross)
	settled := min(p.Over, gross)
	p.Over -= settled
	p.Boost += gross - settled
	p.Pending += gross
}

// returnBoost undoes accrueBoost for a payout that is refunded.
func (x *execution) returnBoost(o Outflow) {
	p, gross := &x.s.Two, sats(o.Gross)
	taken := min(p.Boost, gross)
	p.Boost -= taken
	p.Over += gross - taken
	p.Pending -= gross
}

func sats(v fixed.Int) uint64 {
	n, ok := v.Uint64()
	if !ok {
		panic("more than 2⁶⁴ sats: " + v.String())
	}
	return n
}

// every reports whether a task that runs at multiples of a number of seconds is
// due, and moves its mark. One that is missed runs once, one that comes twice
// not again.
func (x *execution) every(task string, seconds uint64) bool {
	mark := x.s.Time() / seconds
	if mark <= x.s.Marks.at(task) {
		return false
	}
	x.s.Marks.put(task, mark)
	return true
}

// bitcoinTasks are the timers of spec outflows §6.3 that plan something.
func (x *execution) bitcoinTasks() {
	if _, ok := x.s.Genesis.Chain(Bitcoin); !ok {
		return
	}
	x.task("rates", (*execution).noteRate)
	x.task("burn", func(x *execution) {
		if x.every("burn", burnSeconds) {
			x.burnBoost()
		}
	})
	x.task("boost", func(x *execution) {
		if x.every("boost", x.s.Params.BoostSeconds) {
			x.planBoosted()
		}
	})
	x.task("reuse", func(x *execution) {
		if x.every("reuse", reuseSeconds) {
			x.reuseCoins()
		}
	})
	x.task("consolidate", func(x *execution) {
		if x.every("consolidate", consolidateSeconds) && x.s.cheapToday() {
			for _, role := range []string{address.RoleMinter, address.RolePool} {
				x.consolidate(role, manyCoins)
			}
		}
	})
}

// noteRate keeps the agreed rate of each hour for a week.
func (x *execution) noteRate() {
	r, ok := x.s.freshRate(Bitcoin)
	if !ok || !x.every("rates", 3600) {
		return
	}
	hours := append(slices.Clone(x.s.Two.Hourly), r.Rate)
	x.s.Two.Hourly = hours[max(0, len(hours)-rateHours):]
}

// burnBoost pays P back in one outflow from M as soon as it is worth one (spec:
// outflows W8). The amount leaves Boost in the same step, so the task may run as
// often as it likes.
func (x *execution) burnBoost() {
	s := x.s
	pool, ok := s.Vault(Bitcoin, address.RolePool)
	if !ok || !s.Two.Booked || s.Two.Boost <= BoostLimit {
		return
	}
	o := x.newOutflow(Outflow{Kind: OutflowRecoup, Asset: btcAsset, Gross: fixed.New(s.Two.Boost), To: pool.Address})
	x.s.Two.Recoup += x.s.Two.Boost
	x.s.Two.Boost = 0
	x.emit(Event{Name: "boost-burnt", Asset: btcAsset, Amount: o.Gross.String(), Outflow: o.ID})
}

// planBoosted plans all pending boosted payouts, even a single one, oldest first
// and at most a hundred to a transaction. What does not fit what P has, or costs
// more than its client signed, waits and holds up nobody (spec: outflows W4–W9).
func (x *execution) planBoosted() {
	pool, ok := x.s.Vault(Bitcoin, address.RolePool)
	if !ok || !x.s.Two.Booked || x.s.HaltOf(btcAsset) != "" {
		return
	}
	var pending []Outflow
	for _, id := range x.s.Queue.keys() {
		if o := x.s.Outflows.at(id); o.Boosted && o.Heir == "" && !x.refused(o) {
			pending = append(pending, x.s.Outflows.at(id))
		}
	}
	pending = x.boostedNow(pending)
	for len(pending) > 0 {
		var have, want uint64
		for _, k := range x.s.spareCoins(pool.Address) {
			have += k.Sats
		}
		var batch, rest []Outflow
		for _, o := range pending {
			if gross := sats(o.Gross); len(batch) < maxBatchOutflows && want+gross <= have {
				batch, want = append(batch, o), want+gross
			} else {
				rest = append(rest, o)
			}
		}
		for len(batch) > 0 {
			var wait []uint64
			code := x.try(func(x *execution) (code Code) {
				wait, code = x.planBitcoinBatch(pool, batch)
				return code
			})
			if code == OK {
				break
			}
			if code == OutflowCap {
				x.consolidate(address.RolePool, maxInputs)
			}
			if len(wait) == 0 {
				return // no anchor, no rate, too many coins: all wait
			}
			batch = slices.DeleteFunc(batch, func(o Outflow) bool { return slices.Contains(wait, o.ID) })
		}
		if len(rest) == len(pending) {
			return
		}
		pending = rest
	}
}

// changeParts is into how many outputs change is split: P must not be left with
// one coin that is frozen for a whole block (spec: outflows U5).
func changeParts(vault Watch, change uint64, left int) uint64 {
	if vault.Path.Role != address.RolePool || left >= plentyCoins {
		return 1
	}
	const worthwhile = 2 * BoostLimit // a part that cannot pay a few payouts serves nobody
	return min(max(change/worthwhile, 1), changePartsMost)
}

// poolFloat books the operators' coins at P's main address, up to what genesis
// promised. Later coins there are our own change, or not for us to count.
//
// Why only before P ever paid: its change goes to the same address, and the
// ledger does not know the id of a transaction before it is final.
func (x *execution) poolFloat(m MemberID, w Watch, f InflowFact) Code {
	s := x.s
	c, _ := s.Genesis.Chain(Bitcoin)
	n, ok := f.Amount.Uint64()
	if w.Path.Role != address.RolePool || c.Float.IsZero() || !ok {
		return NotAllowed
	}
	if s.Two.Booked || s.Coins.has(f.ID) {
		return DuplicateInflow
	}
	if n < s.Params.MinCoin {
		return BelowMin
	}
	if !x.fact(m, KindInflow, f, s.Epoch().Q()) {
		return OK
	}
	defer x.moves(Bitcoin, f.Height)()
	s.coinIn(f, n)
	s.VaultCoins.put(f.ID, f.Height)
	s.Two.Float += n
	s.Two.Booked = !fixed.New(s.Two.Float).Less(c.Float)
	x.emit(Event{Name: "float", Asset: btcAsset, Amount: f.Amount.String(), Note: f.Address})
	return OK
}

// FloatWanted reports whether an address of ours waits for the float of P.
func (s *State) FloatWanted(w Watch) bool {
	c, _ := s.Genesis.Chain(Bitcoin)
	return w.Chain == Bitcoin && w.Purpose == PurposeVault && w.Path.Role == address.RolePool && !c.Float.IsZero() && !s.Two.Booked
}

// consolidate merges the smallest coins of a vault that has more than a number of
// them into two.
func (x *execution) consolidate(role string, many int) {
	s := x.s
	vault, ok := s.Vault(Bitcoin, role)
	if !ok || s.HaltOf(btcAsset) != "" {
		return
	}
	coins := s.spareCoins(vault.Address)
	if len(coins) <= many {
		return
	}
	x.try(func(x *execution) Code { return x.planMerge(vault, coins[max(0, len(coins)-maxInputs):]) })
}

// planMerge spends coins of a vault to the vault: one half is an outflow of ours,
// so that it is settled like every other, the other half is change.
func (x *execution) planMerge(vault Watch, coins []Coin) Code {
	s := x.s
	c, _ := s.Genesis.Chain(Bitcoin)
	rate, ok := s.freshRate(Bitcoin)
	if !ok {
		return Halted
	}
	tip := s.Tips.at(Bitcoin).Height
	coins = slices.Clone(coins)
	i := slices.IndexFunc(coins, s.anchors)
	if i < 0 {
		return NoLiquidity // nothing that can anchor
	}
	coins[0], coins[i] = coins[i], coins[0]
	slices.SortFunc(coins[1:], func(a, b Coin) int { return cmpText(a.Outpoint, b.Outpoint) })
	tx := BitcoinTx{LockTime: tip, Rate: rate.Rate}
	var sum uint64
	for _, k := range coins {
		w := s.Watched.at(Bitcoin + "/" + k.Address)
		tx.Inputs = append(tx.Inputs, BitcoinIn{Outpoint: k.Outpoint, Sats: k.Sats, Pub: w.Pub, Path: w.Path})
		sum += k.Sats
	}
	tx.Fee = (bitcoinVSize(len(coins), p2wpkhScriptLen, p2wpkhScriptLen)*rate.Rate + 999) / 1000
	if sum < tx.Fee || (sum-tx.Fee)/2 < dustSats+changeSpendVB*c.MaxRate/1000 {
		return BelowMin
	}
	half := (sum - tx.Fee) / 2
	o := x.newOutflow(Outflow{Kind: OutflowMerge, Asset: btcAsset, Gross: fixed.New(half), To: vault.Address})
	tx.Outputs = []BitcoinOut{{Address: vault.Address, Sats: half, Outflow: o.ID}, {Address: vault.Address, Sats: sum - tx.Fee - half}}
	b := x.newBatch(Bitcoin, tx.Inputs[0].Outpoint, vault, []Outflow{o}, []fixed.Int{{}})
	x.freeze(tx, b.ID)
	x.openAttempt(b, Attempt{Kind: AttemptFirst, Bitcoin: &tx})
	return OK
}

// cheapToday: the agreed rate is among the lowest quarter of a week's.
func (s *State) cheapToday() bool {
	r, ok := s.freshRate(Bitcoin)
	if !ok || len(s.Two.Hourly) == 0 {
		return false
	}
	week := slices.Sorted(slices.Values(s.Two.Hourly))
	return r.Rate <= week[(len(week)-1)/4]
}

// settleTier books what the end of an outflow means for P. cost is what the
// chain took for it.
func (x *execution) settleTier(o Outflow, b Batch, paid bool, cost uint64) {
	p := &x.s.Two
	if b.Vault == address.RolePool {
		p.Lost += cost
	}
	switch {
	case o.Kind == OutflowRecoup && paid:
		p.Recoup -= sats(o.Gross)
		p.Lost += sats(o.Fee) // what a bump took beyond it came out of the minter's change
	case o.Boosted && paid:
		p.Pending -= sats(o.Gross)
		p.Fronted += sats(o.Gross)
		p.Gained += sats(o.Fee)
	}
}

// reuseCoins is the twelve-hour clean-up done soundly (spec: outflows §3.7): what
// a batch has held for so long without being its anchor may serve others, whose
// transactions then conflict with it; the anchor never moves, so nothing is paid
// twice.
func (x *execution) reuseCoins() {
	if x.s.HaltOf(btcAsset) != "" {
		return // it would plan a bump for each
	}
	for _, p := range x.s.Coins.keys() {
		k := x.s.Coins.at(p)
		if k.State != CoinFrozen || x.s.Millis-k.Frozen < reuseSeconds*1000 {
			continue
		}
		b := x.s.Batches.at(k.Batch)
		if b.Done || b.Spent != nil {
			continue // on HOLD, or about to be settled
		}
		if p == b.Anchor {
			k.Frozen = x.s.Millis
		} else {
			k.State, k.Batch, k.Frozen = CoinReusable, 0, 0
		}
		x.s.Coins.put(p, k)
		// A payment is planned only past its gates; what waits or fails there is
		// again's to decide (spec: outflows R-12).
		if p == b.Anchor && (b.Newest().Cancels() || x.s.batchGates(b) == gatesOpen) {
			x.replace(b, AttemptBump)
		}
	}
}

// checkTiers: the book of P, and that custody's coins are what is owed (spec:
// outflows §6.2 I2, I3).
func (s *State) checkTiers() error {
	pool, ok := s.Vault(Bitcoin, address.RolePool)
	if !ok {
		return nil
	}
	var all, ofP, spent uint64
	for _, k := range s.Coins.all() {
		if k.State == CoinSpent {
			spent += k.Sats // in what its transaction left us, and not owed to anybody yet
			continue
		}
		all += k.Sats
		if k.Address == pool.Address {
			ofP += k.Sats
		}
	}
	t := s.Two
	if ofP+t.Boost+t.Recoup+t.Lost != t.Float+t.Pending+t.Over+t.Gained {
		return fmt.Errorf("btc pool: %d sats of coins do not fit its book %+v", ofP, t)
	}
	p, ok := s.Pools.get(btcAsset)
	if !ok {
		return nil
	}
	var c fixed.Calc
	owed := c.Add(c.Add(c.Add(p.Cash, p.Reserved), p.Suspended), fixed.New(t.Float+spent))
	have := c.Add(fixed.New(all), p.Missing)
	if c.Err() != nil || owed != have {
		return fmt.Errorf("custody holds %d sats and owes %s", all, owed)
	}
	return nil
}
