package ledger

import (
	"cmp"
	"slices"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// What members vote about outflows and about coins of their own (spec: committee
// §9, outflows §2.2, §6.2, §7). None of it pays anybody: a payment is only ever
// what a client is owed, planned by the tick, bound to an anchor. A vote says how
// a contradiction is read, has an anchor spent back to us, or has a coin counted
// that the chain's facts then must show.

// Kinds of proposals about outflows. Others of the list are in proposal.go.
const (
	ProposeLeaveHold ProposalKind = 20 // what a batch on HOLD came to
	ProposeCancel    ProposalKind = 21 // spends a batch's anchor back to ourselves
	ProposeTopUp     ProposalKind = 22 // the minter advances coins to the pool vault
	ProposeGasFloat  ProposalKind = 23 // books wei that operators brought to a vault
	ProposeBTCFloat  ProposalKind = 24 // books a coin that operators brought to the pool vault
	ProposeBook      ProposalKind = 25 // books what strangers sent to a vault
)

// Outcomes that votes name.
const (
	VotePaid    = "paid"    // it was paid; TxID says by what
	VoteRefund  = "refund"  // it was not and cannot be: the account has it back
	VoteRequeue = "requeue" // it was not and cannot be under this anchor: it is owed
	VoteResume  = "resume"  // nothing is known: it goes on under the same anchor
)

// OutflowAct is what a proposal about outflows or coins says. Fields that its
// kind does not use are zero. Book names a coin on Bitcoin, elsewhere an asset.
type OutflowAct struct {
	Batch   uint64    `cbor:"1,keyasint"`  // LeaveHold, Cancel
	Outflow uint64    `cbor:"2,keyasint"`  // LeaveHold: one of the batch's; 0: all
	Outcome string    `cbor:"3,keyasint"`  // LeaveHold; Cancel: refund or requeue, of what the cancel leaves unpaid
	Body    uint64    `cbor:"4,keyasint"`  // LeaveHold, paid by one of ours: which transaction
	TxID    string    `cbor:"5,keyasint"`  // LeaveHold: what paid it, or what consumed its anchor or killed the anchor's creator
	Fee     fixed.Int `cbor:"6,keyasint"`  // LeaveHold on Ethereum: wei that the chain took of our sender
	Height  uint64    `cbor:"7,keyasint"`  // LeaveHold, paid on Bitcoin by one of ours: its block
	Amount  fixed.Int `cbor:"8,keyasint"`  // TopUp, GasFloat, BTCFloat, Book: base units
	Coin    string    `cbor:"9,keyasint"`  // BTCFloat, Book: "txid:vout"
	Address string    `cbor:"10,keyasint"` // GasFloat: the vault's
	Asset   string    `cbor:"11,keyasint"` // Book: of Ethereum
}

// HoldCause is why a batch went on HOLD: it decides which outcomes are possible.
type HoldCause uint8

const (
	HeldForeign HoldCause = 1 // a final transaction that was never planned consumed its anchor
	HeldUnclear HoldCause = 2 // ours is final and succeeded, and does not show the payment
	HeldUndone  HoldCause = 3 // what made its anchor left the chain
	HeldFork    HoldCause = 4 // its chain forked beyond finality
)

// WantedCoin is a coin that a vote lets in. It is counted when a quorum sees it
// final at a vault's address.
type WantedCoin struct {
	Sats   uint64 `cbor:"1,keyasint"`
	Float  bool   `cbor:"2,keyasint"` // capital of the pool vault; else it is the treasury's
	Millis uint64 `cbor:"3,keyasint"` // ledger time of the vote's effect
}

const (
	// A coin that a vote lets in is at most so many blocks old, and our own outputs
	// at vaults are remembered for twice as long, so that none of them is let in again.
	wantedBlocks = 1_008
	vaultBlocks  = 2_016

	wantedMillis = 604_800_000 // until a coin that never came is forgotten
	maxWanted    = 64
)

// actsOn: the kind is one of this file's.
func (k ProposalKind) actsOn() bool { return k >= ProposeLeaveHold && k <= ProposeBook }

// wellFormed: nothing is filled that the kind does not use.
func (a OutflowAct) wellFormed(k ProposalKind) bool {
	if len(a.TxID) > maxTextInFacts || len(a.Coin) > maxTextInFacts || len(a.Address) > maxTextInFacts || len(a.Asset) > maxTextInFacts {
		return false
	}
	bare := a
	switch k {
	case ProposeLeaveHold:
		if a.Batch == 0 || (a.TxID == "") != (a.Outcome == VoteResume) || !slices.Contains([]string{VotePaid, VoteRefund, VoteRequeue, VoteResume}, a.Outcome) {
			return false
		}
		bare.Batch, bare.Outflow, bare.Outcome, bare.TxID, bare.Fee = 0, 0, "", "", fixed.Int{}
		if a.Outcome == VotePaid {
			bare.Body, bare.Height = 0, 0
		}
	case ProposeCancel:
		if a.Batch == 0 || a.Outcome != VoteRefund && a.Outcome != VoteRequeue {
			return false
		}
		bare.Batch, bare.Outcome = 0, ""
	case ProposeTopUp:
		bare.Amount = fixed.Int{}
	case ProposeGasFloat:
		bare.Amount, bare.Address = fixed.Int{}, ""
	case ProposeBTCFloat:
		bare.Amount, bare.Coin = fixed.Int{}, ""
	case ProposeBook:
		if (a.Coin == "") == (a.Asset == "") {
			return false
		}
		bare.Amount, bare.Coin, bare.Asset = fixed.Int{}, "", ""
	}
	return bare == OutflowAct{} && (k <= ProposeCancel || !a.Amount.IsZero())
}

// outflowTerms are those of spec committee §9.
func (s *State) outflowTerms(k ProposalKind) Terms {
	t := Terms{Quorum: s.Epoch().Q()}
	switch k {
	case ProposeLeaveHold:
		t.DelayMillis = s.Params.LiftSeconds * 1000
	case ProposeBook:
		t.DelayMillis, t.Twice = s.Params.SocialiseSeconds*1000, true
	}
	return t
}

// outflowPossible: the act could be carried out now.
func (s *State) outflowPossible(k ProposalKind, a OutflowAct) Code {
	switch k {
	case ProposeLeaveHold:
		_, _, code := s.mayLeaveHold(a)
		return code
	case ProposeCancel:
		b, ok := s.Batches.get(a.Batch)
		if !ok || b.Kind != BatchPay || b.Done || b.Spent != nil || b.Newest().Cancels() {
			return BadParam
		}
		if b.Chain == Ethereum && s.Outflows.at(b.Outflows[0]).Account == "" {
			return BadParam // gas and sweeps go to our own addresses, which can always be paid, and their gas is exact
		}
		if a.Outcome == VoteRefund && slices.ContainsFunc(b.Outflows, func(id uint64) bool { return s.Outflows.at(id).Account == "" }) {
			return BadParam // custody's own has nobody to be given back to
		}
		return OK
	case ProposeTopUp:
		return s.mayTopUp(a.Amount)
	case ProposeGasFloat:
		w, ok := s.Watched.get(Ethereum + "/" + a.Address)
		if !ok || w.Purpose != PurposeVault || !s.Senders.at(a.Address).Booked {
			return BadParam
		}
		native, _ := s.Genesis.Native(Ethereum)
		return s.arrived(native.ID, a.Address, a.Amount)
	case ProposeBook:
		if a.Asset == "" {
			break
		}
		if p, ok := s.Genesis.Asset(a.Asset); !ok || p.Chain != Ethereum || !s.Pools.has(a.Asset) {
			return UnknownPool
		}
		hot, _ := s.Vault(Ethereum, address.RoleHot) // a pool pays from there alone
		return s.arrived(a.Asset, hot.Address, a.Amount)
	}
	return s.mayWant(k, a)
}

// carryOutAct does what a vote about outflows says.
func (x *execution) carryOutAct(k ProposalKind, a OutflowAct) Code {
	if code := x.s.outflowPossible(k, a); code != OK {
		return code
	}
	switch k {
	case ProposeLeaveHold:
		return x.leaveHold(a)
	case ProposeCancel:
		b := x.s.Batches.at(a.Batch)
		b.Cancel = a.Outcome
		x.s.Batches.put(b.ID, b)
		x.event(b, "cancel-voted")
		x.again(b, true) // now, or as soon as it can be planned
	case ProposeTopUp:
		x.topUp(a.Amount)
	case ProposeGasFloat:
		native, _ := x.s.Genesis.Native(Ethereum)
		x.s.takeUnattributed(native.ID, a.Address, a.Amount)
		v := x.s.Senders.at(a.Address).receive(a.Amount)
		x.s.Senders.put(a.Address, v)
		x.emit(Event{Name: "float", Amount: a.Amount.String(), Note: a.Address})
	case ProposeBTCFloat, ProposeBook:
		if a.Asset != "" {
			hot, _ := x.s.Vault(Ethereum, address.RoleHot)
			x.s.takeUnattributed(a.Asset, hot.Address, a.Amount)
			x.s.sync()
			x.bookFee(a.Asset, a.Amount, fixed.Int{})
			x.s.refreshRates()
			x.emit(Event{Name: "coin-booked", Asset: a.Asset, Amount: a.Amount.String()})
			break
		}
		x.s.Wanted.put(a.Coin, WantedCoin{Sats: sats(a.Amount), Float: k == ProposeBTCFloat, Millis: x.s.Millis})
		x.emit(Event{Name: "coin-wanted", Asset: btcAsset, Amount: a.Amount.String(), Note: a.Coin})
	}
	return OK
}

// HOLD.

// mayLeaveHold: what the cause allows. Refund and requeue need that the anchor is
// gone for good, or the old transaction could still pay; resume that it may not
// be. The anchor stays write-once whatever is voted (spec: outflows §1).
func (s *State) mayLeaveHold(a OutflowAct) (b Batch, ids []uint64, code Code) {
	b, ok := s.Batches.get(a.Batch)
	if !ok || b.Kind != BatchPay || b.Held == 0 {
		return b, nil, BadParam
	}
	for _, id := range b.Outflows {
		if o := s.Outflows.at(id); o.State == Hold && o.Batch == b.ID && (a.Outflow == 0 || a.Outflow == id) {
			ids = append(ids, id)
		}
	}
	ours := a.Outcome == VotePaid && b.Held != HeldForeign // by a transaction that was planned
	whole := len(ids) == len(b.Outflows)
	own := slices.ContainsFunc(ids, func(id uint64) bool { return s.Outflows.at(id).Account == "" })
	switch {
	case len(ids) == 0:
		return b, nil, UnknownOutflow
	case b.Chain != Ethereum && !a.Fee.IsZero(), !ours && (a.Body != 0 || a.Height != 0):
		return b, nil, Malformed
	case a.Outcome == VoteResume:
		if b.Held == HeldForeign || b.Held == HeldUnclear || !whole || b.Freed || !s.holdsAnchor(b) {
			return b, nil, NotAllowed
		}
	case ours:
		t, has := b.Body(a.Body)
		if !has || t.Cancels() || !whole || b.Freed || t.Bitcoin != nil && (!s.holdsAll(b, t) || a.Height == 0 || a.Height > s.Tips.at(Bitcoin).Height) {
			return b, nil, NotAllowed
		}
	case b.Held == HeldFork:
		return b, nil, NotAllowed // the chain has to say which branch is final: resume
	case own && a.Outcome != VoteRequeue:
		return b, nil, NotAllowed // custody's own is owed to itself
	}
	return b, ids, OK
}

func (s *State) holdsAnchor(b Batch) bool {
	return b.Chain != Bitcoin || s.Coins.at(b.Anchor).Batch == b.ID
}

func (s *State) holdsAll(b Batch, a Attempt) bool {
	return !slices.ContainsFunc(a.Bitcoin.Inputs, func(in BitcoinIn) bool { return s.Coins.at(in.Outpoint).Batch != b.ID })
}

// leaveHold takes outflows of a batch out of HOLD.
func (x *execution) leaveHold(a OutflowAct) Code {
	s := x.s
	b, ids, code := s.mayLeaveHold(a)
	if code != OK {
		return code
	}
	x.event(b, "hold-left "+a.Outcome)
	// What it does to the books happened in a block long before: a balance of an
	// earlier one is of the books without it.
	defer x.moves(b.Chain, cmp.Or(a.Height, b.HeldAt))()
	defer func() {
		if !s.held(b) {
			s.OnHold.delete(b.ID)
		}
	}()
	switch {
	case a.Outcome == VoteResume:
		x.resumeBatch(b)
		return OK
	case a.Outcome == VotePaid && b.Held != HeldForeign:
		t, _ := b.Body(a.Body)
		f := FinalFact{Batch: b.ID, Body: a.Body, Outcome: OutcomePaid, TxID: a.TxID, Fee: a.Fee, Height: a.Height}
		if t.Bitcoin != nil {
			f.Fee = fixed.New(t.Bitcoin.Fee)
		}
		b.Held = 0
		s.Batches.put(b.ID, b)
		x.settleBatch(b, t, f)
		return OK
	}
	x.anchorGone(b, a)
	for _, id := range ids {
		x.settleHeld(x.s.Batches.at(b.ID), x.s.Outflows.at(id), a)
	}
	x.s.refreshRates()
	return OK
}

// resumeBatch lets a batch go on as it was, under the anchor that it has.
func (x *execution) resumeBatch(b Batch) {
	s := x.s
	b.Done, b.Held = false, 0
	s.Batches.put(b.ID, b)
	s.Live.put(b.ID, b.Newest().Height)
	to := Planned
	if b.Newest().Cancels() {
		to = Cancelling
	}
	if b.Spent != nil {
		to = Mined
	}
	for _, id := range b.Outflows {
		x.move(s.Outflows.at(id), to)
	}
}

// anchorGone books, once for a batch, that its anchor is consumed for good by
// nothing of ours: every attempt is dead, what else they would have spent is free,
// and the anchor is a loss, or a deposit that never was.
func (x *execution) anchorGone(b Batch, a OutflowAct) {
	s := x.s
	if b.Freed {
		return
	}
	b.Freed = true
	s.Batches.put(b.ID, b)
	if b.Chain == Ethereum {
		x.finalEthereum(b, b.Newest(), FinalFact{Outcome: OutcomeReverted, Fee: a.Fee})
		o := s.Outflows.at(b.Outflows[0])
		if asset, _ := s.Genesis.Asset(o.Asset); o.ownCoin(asset) {
			x.bookFee(o.Asset, fixed.Int{}, a.Fee)
		}
		return
	}
	for _, p := range s.Coins.keys() {
		if k := s.Coins.at(p); k.Batch == b.ID && p != b.Anchor {
			k.State, k.Batch, k.Frozen = CoinAvailable, 0, 0
			s.Coins.put(p, k)
		}
	}
	k, held := s.Coins.get(b.Anchor)
	if !held || k.Batch != b.ID {
		return // booked when the quorum said so
	}
	in, deposit := s.Inflows.get(b.Anchor)
	if b.Held != HeldUndone || !deposit || in.State == InflowUndone {
		x.lose(k, b.HeldAt)
		return
	}
	s.coinGone(k, in.Height)
	if code := s.clawBack(in); code != OK {
		panic("claw back " + b.Anchor + ": " + string(code))
	}
	in.State, in.Reason = InflowUndone, ""
	s.Inflows.put(in.ID, in)
	x.emit(Event{Name: "reversed", Account: in.Account, Asset: in.Asset, Amount: in.Amount.String(), Note: in.ID})
}

// settleHeld closes one outflow whose anchor is gone.
func (x *execution) settleHeld(b Batch, o Outflow, a OutflowAct) {
	s := x.s
	o.TxID = a.TxID
	s.Outflows.put(o.ID, o)
	switch a.Outcome {
	case VotePaid:
		// A transaction that was never planned paid what was owed. On Bitcoin its
		// input was booked as lost, so what is not owed any more is that much won back.
		x.move(o, Paid)
		s.sync()
		if code := s.outflowDone(o.Asset, o.Gross); code != OK {
			panic("outflow paid by another transaction: " + string(code))
		}
		won := o.Fee
		if b.Chain == Bitcoin {
			won = o.Gross
		}
		if o.Boosted {
			s.Two.Pending -= sats(o.Gross)
			s.Two.Fronted += sats(o.Gross)
			s.Two.Gained += sats(o.Gross)
		}
		x.bookFee(o.Asset, won, fixed.Int{})
	case VoteRefund:
		x.refund(x.move(o, UnpaidProven), fixed.Int{}, false)
	default:
		b.Cancel = VoteRequeue
		x.settle(b, o, Attempt{}, FinalFact{Outcome: OutcomeSelf, TxID: a.TxID}, fixed.Int{})
	}
}

// The pool vault and its floats.

// mayTopUp: the minter advances coins to the pool vault out of what is neither
// promised nor claimed, and not before operators' own float is there.
func (s *State) mayTopUp(amount fixed.Int) Code {
	p, ok := s.Pools.get(btcAsset)
	n, small := amount.Uint64()
	if _, has := s.Vault(Bitcoin, address.RolePool); !ok || !has || !s.Two.Booked || !small || n <= BoostLimit {
		return BadParam
	}
	if p.Cash.Less(amount) {
		return NoLiquidity
	}
	return OK
}

// topUp is a recoup in advance: what P fronts next is paid back already (Over),
// so clients' coins move between our own vaults and nobody is owed more.
func (x *execution) topUp(amount fixed.Int) {
	s := x.s
	pool, _ := s.Vault(Bitcoin, address.RolePool)
	o := x.newOutflow(Outflow{Kind: OutflowRecoup, Asset: btcAsset, Gross: amount, To: pool.Address})
	x.s.Two.Recoup += sats(amount)
	x.s.Two.Over += sats(amount)
	x.emit(Event{Name: "top-up", Asset: btcAsset, Amount: amount.String(), Outflow: o.ID})
}

// arrived: members saw that much at the vault, beyond all that is booked. What a vote
// books of an asset that has no coins with names is there, then, whatever the voters
// believe: it would be missing otherwise, and halt the chain, or lie at the one vault
// and be spent by the books of the other.
//
// Why refused and not kept until it arrives: finality is a quarter of an hour, and a
// promise that waits would be booked on whatever a stranger sends meanwhile.
func (s *State) arrived(asset, vault string, amount fixed.Int) Code {
	row := s.Solvency.at(asset)
	there := row.atHot()
	if s.isGas(vault) {
		there = row.AtGas
	}
	if there.Less(amount) {
		return NotArrived
	}
	return OK
}

func (s *State) isGas(vault string) bool {
	gas, ok := s.Vault(Ethereum, address.RoleGas)
	return ok && gas.Address == vault
}

// takeUnattributed: what is booked is nobody's no longer.
func (s *State) takeUnattributed(asset, vault string, amount fixed.Int) {
	row := s.Solvency.at(asset)
	if s.isGas(vault) {
		row.AtGas = must(fixed.Sub(row.AtGas, amount))
	}
	row.Unattributed = must(fixed.Sub(row.Unattributed, amount))
	s.Solvency.put(asset, row)
}

// mayWant: a coin that could be ours already, or was, is never let in.
func (s *State) mayWant(k ProposalKind, a OutflowAct) Code {
	n, ok := a.Amount.Uint64()
	if _, has := s.Pools.get(btcAsset); !ok || !has || n < s.Params.MinCoin || k == ProposeBTCFloat && !s.Two.Booked {
		return BadParam
	}
	switch {
	case s.Wanted.len() >= maxWanted:
		return Limit
	case s.Wanted.has(a.Coin) || s.knownCoin(a.Coin):
		return DuplicateInflow
	}
	return OK
}

// knownCoin: the ledger has, had, or may yet get a coin by its own transactions
// or by a deposit.
func (s *State) knownCoin(coin string) bool {
	if s.Coins.has(coin) || s.VaultCoins.has(coin) || s.Inflows.has(coin) {
		return true
	}
	_, open := s.openOutputs()[coin]
	return open
}

// Wants reports whether a vote lets a coin in that the ledger has not counted.
func (s *State) Wants(outpoint string) bool { return s.Wanted.has(outpoint) }

// wantedCoin counts a coin at a vault's address that a vote let in: as capital of
// the pool vault, or as the treasury's. NOT_ALLOWED: it is another amount, at
// another vault, or too old to be told from our own.
func (x *execution) wantedCoin(m MemberID, w Watch, f InflowFact) Code {
	s := x.s
	want := s.Wanted.at(f.ID)
	n, _ := f.Amount.Uint64()
	pool := w.Path.Role == address.RolePool
	if n != want.Sats || want.Float && !pool || f.Height+wantedBlocks < s.Tips.at(Bitcoin).Height || s.knownCoin(f.ID) {
		return NotAllowed
	}
	if !x.fact(m, KindInflow, f, s.Epoch().Q()) {
		return OK
	}
	defer x.moves(Bitcoin, f.Height)()
	s.Wanted.delete(f.ID)
	s.VaultCoins.put(f.ID, f.Height)
	s.coinIn(f, n)
	name := "float"
	if want.Float {
		s.Two.Float += n
	} else {
		name = "coin-booked"
		if pool {
			s.Two.Gained += n
		}
		s.sync()
		x.bookFee(btcAsset, f.Amount, fixed.Int{})
		s.refreshRates()
	}
	x.emit(Event{Name: name, Asset: btcAsset, Amount: f.Amount.String(), Note: f.ID})
	return OK
}

// forgetWanted drops coins that never came, and our own outputs that are too old
// to be taken for others'.
func (x *execution) forgetWanted() {
	s := x.s
	for _, p := range s.Wanted.keys() {
		if s.Wanted.at(p).Millis+wantedMillis <= s.Millis {
			s.Wanted.delete(p)
		}
	}
	for _, p := range s.VaultCoins.keys() {
		if s.VaultCoins.at(p)+vaultBlocks < s.Tips.at(Bitcoin).Height {
			s.VaultCoins.delete(p)
		}
	}
}

// checkVotes: what votes want is not there yet.
func (s *State) checkVotes() bool {
	for p, w := range s.Wanted.all() {
		if s.Coins.has(p) || w.Sats == 0 || w.Float && !s.Two.Booked {
			return false
		}
	}
	return s.Wanted.len() <= maxWanted
}
