package ledger

import (
	"cmp"
	"slices"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// What is planned for a batch after its first attempt. Every transaction of a
// batch consumes its anchor, so at most one of them ever confirms, whatever is
// signed and whoever sends it when; that is why any of these may be planned
// while the ones before it may still be on their way (spec: outflows §1, §3.2).

const (
	// maxBodies bounds the distinct transactions of a batch; then the last is
	// retried for ever (spec: outflows §2.2).
	maxBodies = 64

	// cancelBodies of them are kept for a cancel and its bumps: what was bumped as
	// often as it may be must still be cancelled when its gates fail or a vote says so.
	cancelBodies = 8

	// Bitcoin's cadence, in blocks without a spend of the anchor.
	firstBumpBlocks = 6
	nextBumpBlocks  = 3
	minRelayKvB     = 1_000 // sat/kvB that a replacement pays for its own size

	// Ethereum's: ledger time without a spend, and how far from the first plan.
	bumpMillis     = 180_000
	maxFeeMultiple = 5

	// absurdFactor is how far a member's own estimate must be from a plan before
	// it says so.
	absurdFactor = 3
)

// retryDue plans the next attempt of every batch whose anchor nobody has spent
// and that needs one.
func (x *execution) retryDue() {
	for _, id := range x.s.Live.keys() {
		if b := x.s.Batches.at(id); b.Spent == nil && !b.Done { // one before it may have dropped the next epoch
			x.again(b, x.s.Millis > b.Newest().Deadline || x.s.lost(b))
		}
	}
}

// retryKeys is retryDue for the sessions that make KeyShares and test them: a halt
// of outflows does not stop those.
func (x *execution) retryKeys() {
	for _, id := range x.s.Live.keys() {
		if b := x.s.Batches.at(id); b.Kind != BatchPay && !b.Done {
			x.again(b, x.s.Millis > b.Newest().Deadline || x.s.lost(b))
		}
	}
}

// again plans what a batch needs now. over: its newest attempt has had its time,
// or too many of its signers gave it up.
func (x *execution) again(b Batch, over bool) {
	if b.Kind != BatchPay {
		if over {
			x.retry(b)
		}
		return
	}
	if _, _, paused := x.s.PausedBy(); paused || x.s.haltOf(b) != "" {
		return
	}
	due, reprice := x.s.bumpDue(b) || !x.s.Holds(b), x.s.absurd(b)
	if !over && !due && !reprice && (b.Cancel == "" || b.Newest().Cancels()) {
		return
	}
	if !b.Newest().Cancels() {
		switch x.s.batchGates(b) {
		case gatesFail:
			due = x.replace(b, AttemptCancel)
			if !due && over {
				x.event(b, "cancel-waits")
			}
			return // never again the payment: what cannot be cancelled yet waits
		case gatesWait:
			// A gap in a sequence holds up every later one (spec: outflows §4.2).
			if b.Chain == Ethereum && x.s.Millis > b.Newest().Deadline+x.s.Params.AttemptMillis {
				x.replace(b, AttemptCancel)
			}
			return
		}
	}
	switch {
	case reprice && x.replace(b, AttemptReprice):
	case due && x.replace(b, AttemptBump):
	case over:
		x.retry(x.s.Batches.at(b.ID))
	}
}

type gateState uint8

const (
	gatesOpen gateState = iota
	gatesWait           // cannot be evaluated, or stopped: what is paid waits
	gatesFail           // one of the outflows must not be paid any more
)

// batchGates evaluates, for every outflow of a batch, what every plan that pays
// it evaluates anew (spec: outflows R-12).
func (s *State) batchGates(b Batch) gateState {
	if b.Cancel != "" {
		return gatesFail // by vote
	}
	worst := gatesOpen
	for _, id := range b.Outflows {
		o := s.Outflows.at(id)
		switch {
		case o.State == Hold:
			return gatesWait
		case failsForGood(s.planGates(o)):
			return gatesFail
		case s.planGates(o) != OK:
			worst = gatesWait
		}
	}
	return worst
}

// failsForGood: the account has become too weak. Everything else is a matter of
// waiting.
func failsForGood(c Code) bool { return c == HealthFactor || c == MaxLTV || c == NoCollateral }

// bumpDue: the chain's cadence has passed without a spend of the anchor. A batch
// of 64 transactions only retries.
func (s *State) bumpDue(b Batch) bool {
	if b.full(false) {
		return false
	}
	if b.Chain == Ethereum {
		return s.Millis >= b.Planned+bumpMillis
	}
	wait := uint64(nextBumpBlocks)
	if b.bodies() == 1 {
		wait = firstBumpBlocks
	}
	return s.Tips.at(b.Chain).Height >= b.Tip+wait
}

// Holds reports whether a batch holds everything that its newest transaction
// spends. It does not when a further input was undone with its block, was spent,
// or serves another batch by now: then nobody signs, and another transaction is
// planned at once.
func (s *State) Holds(b Batch) bool {
	tx := b.Newest().Bitcoin
	return tx == nil || !slices.ContainsFunc(tx.Inputs, func(in BitcoinIn) bool {
		k := s.Coins.at(in.Outpoint)
		return k.Batch != b.ID && k.State != CoinReusable
	})
}

// absurd: f+1 members, one of them honest, find the price of the newest
// transaction absurd, and so does the agreed rate by now, which may not move as
// fast as the market (spec: outflows §7).
func (s *State) absurd(b Batch) bool {
	a := b.Newest()
	e, ok := s.epochNumber(a.Epoch)
	if !ok || len(a.Absurd) < e.F+1 || b.full(false) {
		return false
	}
	rate, ok := s.freshRate(b.Chain)
	if !ok {
		return false
	}
	was, is := a.rate(), rate.Rate
	if a.Ethereum != nil {
		is = rate.Tip + 2*rate.Rate
	}
	return 3*is <= 2*was || 2*is >= 3*was
}

// rate is what a transaction pays for its size: sat/kvB, or wei a gas.
func (a Attempt) rate() uint64 {
	if a.Bitcoin == nil {
		return a.Ethereum.FeeCap
	}
	vsize := a.Bitcoin.vsize()
	return max(a.Bitcoin.Rate, (a.Bitcoin.Fee*1000+vsize-1)/vsize)
}

// feeAbsurd: a member's own estimate is more than threefold away from what an
// attempt pays.
func (x *execution) feeAbsurd(m MemberID, f FeeAbsurd) Code {
	s := x.s
	b, ok := s.Batches.get(f.Batch)
	if !ok || b.Kind != BatchPay || b.Done || b.Spent != nil || b.Newest().Body != f.Body {
		return OK // about a transaction that is no more the newest
	}
	a := b.Newest()
	if e, ok := s.epochNumber(a.Epoch); !ok || !e.Has(m) {
		return NotAllowed
	}
	a.Absurd = withMember(a.Absurd, m)
	b.Attempts = slices.Clone(b.Attempts)
	b.Attempts[len(b.Attempts)-1] = a
	s.Batches.put(b.ID, b)
	return OK
}

// FeeIsAbsurd reports whether a member whose own estimate is r should say so of
// an attempt: compared as the ledger compares, clamped alike.
func (s *State) FeeIsAbsurd(chain string, a Attempt, r FeeReport) bool {
	p, _ := s.Genesis.Chain(chain)
	own := min(max(r.Rate, p.MinRate), p.MaxRate)
	if a.Ethereum != nil {
		own = min(max(r.Tip, p.MinTip)+2*own, p.MaxRate)
	}
	return own > absurdFactor*a.rate() || a.rate() > absurdFactor*own
}

// Cancels reports whether the transaction pays nobody and only consumes the
// anchor. What it is follows from its content: a retry of a cancel is one too.
func (a Attempt) Cancels() bool {
	switch {
	case a.Bitcoin != nil:
		return !slices.ContainsFunc(a.Bitcoin.Outputs, func(o BitcoinOut) bool { return o.Outflow != 0 })
	case a.Ethereum != nil:
		return a.Ethereum.To == a.Ethereum.From && a.Ethereum.Value.IsZero() && len(a.Ethereum.Data) == 0
	}
	return false
}

// bodies is how many distinct transactions were planned.
func (b Batch) bodies() uint64 { return b.Newest().Body + 1 }

// full: no further transaction may be planned, a cancel or one that is none.
func (b Batch) full(cancel bool) bool {
	if cancel || b.Newest().Cancels() {
		return b.bodies() >= maxBodies
	}
	return b.bodies() >= maxBodies-cancelBodies
}

// replace plans another transaction for a batch, on its anchor. What a cancel
// replaces is never paid by this batch again. It reports whether it could.
func (x *execution) replace(b Batch, kind AttemptKind) bool {
	if b.full(kind == AttemptCancel) {
		return false
	}
	var short fixed.Int // wei that a sender lacks
	code := x.try(func(x *execution) Code {
		b := x.s.Batches.at(b.ID)
		if b.Newest().Cancels() {
			kind = AttemptCancel // a cancel is replaced by a dearer cancel
		}
		next := Attempt{K: b.Newest().K + 1, Kind: kind, Body: b.bodies()}
		var code Code
		switch b.Chain {
		case Bitcoin:
			next.Bitcoin, code = x.replaceBitcoin(b, kind)
		case Ethereum:
			next.Ethereum, short, code = x.s.replaceEthereum(b, kind)
		default:
			code = Halted
		}
		if code != OK {
			return code
		}
		if kind == AttemptCancel {
			for _, id := range b.Outflows {
				if o := x.s.Outflows.at(id); o.State == Planned {
					x.move(o, Cancelling)
				}
			}
		}
		x.openAttempt(x.s.Batches.at(b.ID), next)
		return OK
	})
	if !short.IsZero() {
		x.moreGas(b, short)
	}
	if code == FeeTooHigh && b.Stuck == 0 {
		b = x.s.Batches.at(b.ID)
		b.Stuck = x.s.Millis
		x.s.Batches.put(b.ID, b)
		x.event(b, "stuck-at-cap")
	}
	return code == OK
}

func (x *execution) event(b Batch, note string) {
	x.emit(Event{Name: "batch", Batch: b.ID, Note: note})
}

// replaceBitcoin makes the next transaction of a batch: the same anchor first,
// every output of the batch as it was, the rest to the vault (spec: outflows
// B1, B3, B7). The fee is what BIP-125 as both backends have it demands against
// every attempt ever planned, whichever of them is in a mempool (§3.2).
func (x *execution) replaceBitcoin(b Batch, kind AttemptKind) (*BitcoinTx, Code) {
	s := x.s
	c, _ := s.Genesis.Chain(Bitcoin)
	today, ok := s.freshRate(Bitcoin)
	vault, has := s.vaultOf(b)
	if !ok || !has {
		return nil, Halted
	}
	var rateMax, feeMax uint64
	for _, a := range b.Attempts {
		if s.dead(*a.Bitcoin) {
			continue // no mempool holds it, and none has to be outbid
		}
		rateMax, feeMax = max(rateMax, a.rate()), max(feeMax, a.Bitcoin.Fee)
	}
	rate := max(today.Rate, min((rateMax*5+3)/4, c.MaxRate), rateMax+minRelayKvB)
	least := feeMax + s.descendantFees(b.ID) // what is built upon an attempt goes with it
	if kind == AttemptReprice && today.Rate < rateMax {
		rate, least = today.Rate, 0 // whichever of the two lands: it is one payment
	}
	if rate > c.MaxRate {
		return nil, FeeTooHigh
	}

	// Whatever the batch still holds of the newest inputs, then further coins.
	tx := BitcoinTx{LockTime: s.Tips.at(Bitcoin).Height, Rate: rate}
	var sum uint64
	add := func(k Coin) {
		w := s.Watched.at(Bitcoin + "/" + k.Address)
		tx.Inputs = append(tx.Inputs, BitcoinIn{Outpoint: k.Outpoint, Sats: k.Sats, Pub: w.Pub, Path: w.Path})
		sum += k.Sats
	}
	for _, in := range b.Newest().Bitcoin.Inputs {
		if k, ok := s.Coins.get(in.Outpoint); ok && k.Batch == b.ID {
			add(k)
		}
	}
	if len(tx.Inputs) == 0 || tx.Inputs[0].Outpoint != b.Anchor {
		return nil, Halted // the anchor is not ours to spend: facts will say why
	}
	spare := s.spareCoins(vault.Address)
	for {
		if code := s.outputs(&tx, b, kind, vault.Address, sum, rate, least); code != NoLiquidity {
			if code != OK {
				return nil, code
			}
			break
		}
		if len(spare) == 0 {
			return nil, NoLiquidity
		}
		if len(tx.Inputs) == maxInputs {
			return nil, OutflowCap
		}
		add(spare[0])
		spare = spare[1:]
	}
	slices.SortFunc(tx.Inputs[1:], func(a, b BitcoinIn) int { return cmp.Compare(a.Outpoint, b.Outpoint) })
	if tx.Fee*1000 > tx.vsize()*c.MaxRate+maxNoChange*1000 {
		return nil, FeeTooHigh
	}
	x.freeze(tx, b.ID)
	return &tx, OK
}

// dead: an input of a transaction is spent at finality by another, so it never
// confirms and no node holds it. A deposit that was undone may come back, and with
// it what spends it.
func (s *State) dead(tx BitcoinTx) bool {
	return slices.ContainsFunc(tx.Inputs, func(in BitcoinIn) bool {
		k, held := s.Coins.get(in.Outpoint)
		return held && k.State == CoinSpent || !held && s.Inflows.at(in.Outpoint).State != InflowUndone
	})
}

// outputs fills in what a replacement pays. NoLiquidity: the inputs do not reach.
func (s *State) outputs(tx *BitcoinTx, b Batch, kind AttemptKind, vault string, sum, rate, least uint64) Code {
	fee := func() uint64 {
		vsize := tx.vsize()
		f := (vsize*rate + 999) / 1000
		if least > 0 {
			f = max(f, least+vsize*minRelayKvB/1000)
		}
		return f
	}
	cost := (changeSpendVB*rate + 999) / 1000
	if kind == AttemptCancel {
		// Each outflow gets an heir of its own: one that is refunded frees its part,
		// one that is paid again descends from it, and none waits for another (§3.4).
		tx.Outputs = nil
		for _, id := range b.Outflows {
			tx.Outputs = append(tx.Outputs, BitcoinOut{Address: vault, Heir: id})
		}
		n := uint64(len(tx.Outputs))
		tx.Fee = fee()
		if sum < tx.Fee || (sum-tx.Fee)/n < dustSats+cost {
			return NoLiquidity
		}
		part := (sum - tx.Fee) / n
		for i := range tx.Outputs {
			tx.Outputs[i].Sats = part
		}
		tx.Outputs[0].Sats += (sum - tx.Fee) % n
		return OK
	}
	var paid uint64
	tx.Outputs = b.Attempts[0].Bitcoin.payments()
	for _, o := range tx.Outputs {
		paid += o.Sats
	}
	tx.Fee = fee()
	if sum < paid+tx.Fee {
		return NoLiquidity
	}
	alone := tx.Outputs
	tx.Outputs = append(slices.Clone(alone), BitcoinOut{Address: vault})
	tx.Fee = fee()
	if sum >= paid+tx.Fee+dustSats+cost {
		tx.Outputs[len(alone)].Sats = sum - paid - tx.Fee
		return OK
	}
	tx.Outputs = alone
	if sum-paid-fee() > maxNoChange {
		return NoLiquidity // too much to leave to the miners: another coin makes it change
	}
	tx.Fee = sum - paid
	return OK
}

// spareCoins are the confirmed coins of a vault that no batch holds, largest
// first.
func (s *State) spareCoins(vault string) []Coin {
	tip := s.Tips.at(Bitcoin).Height
	pool, _ := s.Vault(Bitcoin, address.RolePool)
	holds := func(k Coin) bool { return (vault == pool.Address) == (k.Address == pool.Address) } // all else is the minter's
	var coins []Coin
	for _, k := range s.Coins.all() {
		if (k.State == CoinAvailable || k.State == CoinReusable) && k.Height > 0 && k.Height <= tip && holds(k) {
			coins = append(coins, k)
		}
	}
	slices.SortFunc(coins, func(a, b Coin) int { return cmp.Or(cmp.Compare(b.Sats, a.Sats), cmp.Compare(a.Outpoint, b.Outpoint)) })
	return coins
}

// freeze has a batch hold the coins of one of its transactions.
func (x *execution) freeze(tx BitcoinTx, batch uint64) {
	s := x.s
	for _, in := range tx.Inputs {
		if k := s.Coins.at(in.Outpoint); k.Batch != batch {
			k.State, k.Batch, k.Frozen, k.Heir = CoinFrozen, batch, s.Millis, 0
			s.Coins.put(in.Outpoint, k)
		}
	}
}

// payments are the outputs that pay outflows, in order.
func (tx BitcoinTx) payments() []BitcoinOut {
	return slices.DeleteFunc(slices.Clone(tx.Outputs), func(o BitcoinOut) bool { return o.Outflow == 0 })
}

// vsize is the size of the transaction with every signature at its largest, vB.
func (tx BitcoinTx) vsize() uint64 {
	lens := make([]int, len(tx.Outputs))
	for i, o := range tx.Outputs {
		lens[i] = scriptLen(o.Address)
	}
	return bitcoinVSize(len(tx.Inputs), lens...)
}

// scriptLen is the length of the output script of an address that was valid
// when it was planned.
func scriptLen(to string) int {
	for _, net := range []string{address.Mainnet, address.Testnet, address.Regtest} {
		if script, err := address.ScriptOf(net, to); err == nil {
			return len(script)
		}
	}
	return 34
}

// replaceEthereum makes the next transaction of a batch: the same sequence, both
// fees at least a tenth above every attempt before it, which is what nodes ask
// (spec: outflows §4.1). The pool's float bears it; the value never changes.
func (s *State) replaceEthereum(b Batch, kind AttemptKind) (next *EthereumTx, short fixed.Int, code Code) {
	c, _ := s.Genesis.Chain(Ethereum)
	today, ok := s.freshRate(Ethereum)
	if !ok {
		return nil, short, Halted
	}
	tx := *b.Newest().Ethereum
	var tipMax, capMax uint64
	for _, a := range b.Attempts {
		tipMax, capMax = max(tipMax, a.Ethereum.Tip), max(capMax, a.Ethereum.FeeCap)
	}
	tip := max(today.Tip, (tipMax*110+99)/100, tipMax+1)
	feeCap := max(tip+2*today.Rate, (capMax*110+99)/100, capMax+1)
	most := min(c.MaxRate, maxFeeMultiple*b.Attempts[0].Ethereum.FeeCap)
	if kind == AttemptReprice && today.Tip+2*today.Rate < capMax {
		feeCap = today.Tip + 2*today.Rate
		tip = min(today.Tip, feeCap)
	} else if feeCap > most {
		// The market may be above what this payout may cost; a replacement that still
		// outbids the attempts before it is worth having.
		feeCap = most
		tip = min(tip, feeCap)
		if feeCap*100 < capMax*110 || tip*100 < tipMax*110 || feeCap <= capMax || tip <= tipMax {
			return nil, short, FeeTooHigh
		}
	}
	if kind == AttemptCancel {
		tx.To, tx.Value, tx.Data, tx.Gas = tx.From, fixed.Int{}, nil, transferGas
	}
	tx.FeeCap, tx.Tip = feeCap, tip
	cost := must(fixed.Add(must(fixed.Mul(fixed.New(tx.Gas), fixed.New(feeCap))), tx.Value))
	if have := s.has(b, tx.From); have.Less(cost) {
		return nil, must(fixed.Sub(cost, have)), NoLiquidity
	}
	return &tx, short, OK
}

// has is what a sender may put into a transaction of a batch, wei: its float, and
// where the batch moves the pool's own coin that too.
func (s *State) has(b Batch, from string) fixed.Int {
	o, sender := s.Outflows.at(b.Outflows[0]), s.Senders.at(from)
	a, _ := s.Genesis.Asset(o.Asset)
	switch {
	case o.ownCoin(a):
		return must(fixed.Add(sender.Float, must(fixed.Add(s.nativeFree(a), s.mostTaken(b, a)))))
	case a.isNative() && o.Kind == OutflowSweep:
		return must(fixed.Add(sender.Float, sender.Unswept))
	}
	return sender.Float
}

// moreGas sends a sweep's address what a dearer sweep costs: its gas was exact
// when it was planned. One transfer at a time; the sweep waits for it.
func (x *execution) moreGas(b Batch, wei fixed.Int) {
	o := x.s.Outflows.at(b.Outflows[0])
	if o.Kind != OutflowSweep || o.After != 0 && x.s.Outflows.at(o.After).State != Paid {
		return
	}
	o.After = x.sendGas(o.From, wei)
	x.s.Outflows.put(o.ID, o)
}

// vaultOf is the vault whose coins a batch spends.
func (s *State) vaultOf(b Batch) (Watch, bool) { return s.Vault(Bitcoin, b.Vault) }
