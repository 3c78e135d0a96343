package ledger

import (
	"slices"
	"strings"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// accrualSeconds: the operation tick runs when ledger time passes a multiple of
// this (spec: lending §4).
const accrualSeconds = 15

// Limits of what is open at once (spec: consensus §9, outflows §4.7).
const (
	MaxOpenOutflows   = 10_000
	MaxAccountOpen    = 16
	maxSenderInFlight = 16
)

// tick runs when ledger time advanced. Each task has a guard of its own: one
// that breaks changes nothing and halts outflows, and time goes on. A task that
// comes late or twice finds the same to do or nothing.
func (x *execution) tick() {
	s := x.s
	mark := s.Time() / accrualSeconds
	beat := mark > s.LastTick
	if beat {
		x.task("accrue", func(x *execution) {
			x.s.LastTick = mark
			x.s.sync()
			x.s.refreshRates()
			x.noteDips()
			x.s.forgetSeen()
			x.s.forgetRecent()
			x.refillCaps()
			x.forgetWanted()
		})
	}
	if mark := x.s.Time() / insuranceSeconds; mark > x.s.LastInsured {
		x.task("insure", func(x *execution) {
			x.s.LastInsured = mark
			x.sweepInsurance()
		})
	}
	x.dueBallots() // whatever else stands still: a vote lifts it
	x.task("solvency", (*execution).askBalances)
	if s = x.s; s.Opening != nil {
		return // an epoch is flipping: nothing is planned
	}
	if !s.broken() { // a halt of outflows is no reason to keep a traitor's seat
		x.task("epoch", (*execution).planEpoch)
	}
	if s = x.s; s.OutflowsHalt != "" {
		if !s.broken() && !s.Catching {
			x.task("retry", (*execution).retryKeys)
		}
		return
	}
	if x.s.Catching {
		return
	}
	x.task("retry", (*execution).retryDue) // key generations too, before there is an epoch with keys
	if x.s.Epoch().Number == 0 {
		return
	}
	x.task("expire", (*execution).expireQueue)
	if beat {
		x.task("loans", (*execution).lookAtLoans)
		x.task("prune", (*execution).pruneIdle)
	}
	if _, _, paused := x.s.PausedBy(); paused {
		return
	}
	x.task("sweep", (*execution).planSweeps)
	x.task("plan", (*execution).planQueue)
	x.bitcoinTasks()
}

func (x *execution) task(name string, f func(*execution)) {
	x.guard(name, func(x *execution) Code { f(x); return OK })
}

// planQueue plans what is owed, oldest first, and passes over what cannot be
// planned for a reason of its own (spec: outflows R-11).
func (x *execution) planQueue() {
	t := capTurn{}
	for _, id := range x.s.Queue.keys() {
		o := x.s.Outflows.at(id)
		if first := x.s.Outflows.at(o.After); o.After != 0 && first.State != Mined && first.State != Paid {
			continue
		}
		if o.Boosted && o.Heir == "" {
			continue // in rounds, many at once
		}
		if o.Account != "" && x.refused(o) {
			continue
		}
		plan := func(x *execution) Code { return x.plan(o) }
		if !t.next(x.s, o, func() bool { return x.would(plan) }) {
			continue
		}
		code := x.try(plan)
		if code == OK {
			t.planned(o)
		}
		if a, _ := x.s.Genesis.Asset(o.Asset); code == OutflowCap && a.Chain == Bitcoin {
			x.consolidate(address.RoleMinter, maxInputs) // it waits for fewer, larger coins (spec: outflows U6)
		}
	}
	for _, o := range t.rest() {
		if x.s.CapsLet(o) {
			x.try(func(x *execution) Code { return x.plan(o) })
		}
	}
}

// refused evaluates the gates of an account that owes anew, at the moment of
// the plan: whoever orders the log could otherwise hold a borrow back and enter
// it later, with hindsight, at the old price (spec: outflows R-12). What cannot
// be evaluated waits; what fails before any plan is refunded.
func (x *execution) refused(o Outflow) bool {
	code := x.s.planGates(o)
	if failsForGood(code) {
		x.refund(o, fixed.Int{}, true) // QUEUED: never planned, or proven unpaid
	}
	return code != OK
}

// planGates is what every plan of an outflow of an account evaluates anew (spec:
// outflows R-12): PAUSED; of an account that owes, both gates; of one that
// liquidated lately, that the prices of what it holds and is paid are fresh.
// Custody's own outflows and claims from suspense depend on no price.
func (s *State) planGates(o Outflow) Code {
	if o.Account == "" {
		return OK
	}
	if s.Pools.at(o.Asset).Paused {
		return Paused
	}
	if o.Kind == OutflowRefund {
		return OK
	}
	if a := s.Accounts.at(o.Account); a.Liquidated != 0 && s.Millis-a.Liquidated < s.Params.LiquidatorSec*1000 {
		if code := s.fresh(a, s.Params.PriceMaxAge, o.Asset); code != OK {
			return code
		}
	}
	return s.gates(o.Account)
}

// expireQueue gives back what was never planned within its time.
func (x *execution) expireQueue() {
	limit := x.s.Params.QueueSeconds * 1000
	for _, id := range x.s.Queue.keys() {
		o := x.s.Outflows.at(id)
		if o.Account != "" && o.Binding == 0 && x.s.Millis-o.Created > limit {
			x.refund(o, fixed.Int{}, false)
		}
	}
}

func (x *execution) plan(o Outflow) Code {
	if x.s.HaltOf(o.Asset) != "" {
		return Halted
	}
	a, _ := x.s.Genesis.Asset(o.Asset)
	switch a.Chain {
	case Bitcoin:
		return x.planBitcoin(o)
	case Ethereum:
		return x.planEthereum(o)
	}
	return Halted
}

// openAttempt fills what every attempt has in common and puts it on the batch.
func (x *execution) openAttempt(b Batch, a Attempt) {
	s := x.s
	e, try := s.signers(b.Key)
	if len(a.Roster) == 0 {
		if a.Roster = s.roster(e, b.ID, a.K); len(b.Attempts) > 0 {
			a.Roster = last(a.Roster, b.Newest().refusers())
		}
	}
	if a.M == 0 {
		a.M, a.Epoch, a.Try = e.M, e.Number, try
	}
	if b.Kind == BatchPay {
		a.Fresh = nil
		for _, m := range a.Roster {
			if s.Quarantined(m) {
				a.Fresh = withMember(a.Fresh, m)
			}
		}
	}
	a.Height, a.At, a.Millis = s.Height+1, s.Head, s.Millis
	if a.Deadline == 0 {
		a.Deadline = s.Millis + s.Params.AttemptMillis
	}
	if a.Kind != AttemptRetry {
		b.Tip, b.Planned, b.Stuck = s.Tips.at(b.Chain).Height, s.Millis, 0
	}
	b.Attempts = append(slices.Clone(b.Attempts), a)
	s.Batches.put(b.ID, b)
	s.Live.put(b.ID, a.Height)
	s.PlannedAt = a.Height
	x.emit(Event{Name: "attempt", Batch: b.ID})
}

// roster orders the members of an epoch for one attempt. Those whose clock the
// ledger has not heard lately come behind the others, and behind them those
// against whom something was proven (spec: signing §3, §10). Nobody is left out:
// where m members are left with the last one, it signs.
//
// Why the blamed behind the absent: members skip a turn with somebody they know
// dead at no cost, and who came back meanwhile signs; a turn with the blamed one
// is joined, and spoilt.
func (s *State) roster(e Epoch, batch, attempt uint64) []MemberID {
	var present, absent, blamed []MemberID
	for _, m := range sortedByRank(e.Members, s.Head, batch, attempt) {
		switch seat := s.Seats.at(m.String()); {
		case s.LastUntil(m) != 0:
			blamed = append(blamed, m)
		case seat.Millis+s.Params.PresenceMillis >= s.Millis && seat.Millis <= s.Raw+maxAheadMillis:
			present = append(present, m)
		default:
			absent = append(absent, m)
		}
	}
	return slices.Concat(present, absent, blamed)
}

// signers are the members and the try whose KeyShares of a key sign now.
func (s *State) signers(key string) (e Epoch, try uint64) {
	k, ok := s.Keys.get(key)
	if !ok {
		return s.Epoch(), 0
	}
	e, _ = s.epochNumber(k.Epoch)
	return e, k.Try
}

// broken: the halt is a mistake of ours. What broke stays off until a vote.
func (s *State) broken() bool { return strings.HasPrefix(s.OutflowsHalt, string(Broken)) }

const maxAttemptMillis = 3_600_000

// retry plans the same bytes again: the next committee, a longer deadline.
func (x *execution) retry(b Batch) {
	a := b.Newest()
	switch b.Kind {
	case BatchKeygen, BatchReshare:
		if x.s.Next != nil {
			if i := slices.IndexFunc(x.s.Next.Keys, func(k NextKey) bool { return k.Batch == b.ID }); i >= 0 {
				x.nextTry(i)
			}
		}
		return
	}
	span := min(2*(a.Deadline-a.Millis), maxAttemptMillis)
	gave := append(slices.Clone(a.Gave), a.refusers()...)
	a.K, a.Kind, a.Gave, a.Refused = a.K+1, AttemptRetry, nil, nil
	a.Deadline = x.s.Millis + span
	if b.Kind == BatchPay {
		e, try := x.s.signers(b.Key) // of an older epoch the attempt was, and its bytes stay
		a.M, a.Epoch, a.Try = e.M, e.Number, try
		a.Roster = last(x.s.roster(e, b.ID, a.K), gave)
	}
	b.Attempts = slices.Clone(b.Attempts[:len(b.Attempts)-1]) // retries keep their bytes: only the newest is stored
	x.openAttempt(b, a)
}

// last moves those who gave up behind the others: they could not sign.
func last(roster, gave []MemberID) []MemberID {
	var first, end []MemberID
	for _, m := range roster {
		if slices.Contains(gave, m) {
			end = append(end, m)
		} else {
			first = append(first, m)
		}
	}
	return append(first, end...)
}

// gaveUp: at f+1 words, one of them honest, the next attempt is planned; that of a
// resharing already by the word of one who needs a share of it and has none.
//
// Why one word there: all of the next epoch must have a share, so no word of others can
// save the try. A member that comes back from a crash in it may be alone in knowing
// that, the others long done; they would wait for the try's deadline. A traitor wins
// nothing: it stops the change by its silence too, has three tries either way, and is
// named as the one that is missing. Why not in a key generation, whose tries have no
// end: each costs every member pre-parameters.
func (x *execution) gaveUp(m MemberID, g GaveUp) Code {
	s := x.s
	b, ok := s.Batches.get(g.Batch)
	if !ok || b.Done || b.Spent != nil || b.Newest().K != g.Attempt {
		return OK // about an attempt that is no more
	}
	if len(g.Blamed) > maxReports {
		return Malformed
	}
	a := b.Newest()
	e, ok := s.epochNumber(a.Epoch)
	if !ok { // key generation and first test signatures of the epoch being prepared
		if s.Next == nil {
			return OK
		}
		e = s.Next.Epoch
	}
	if !e.Has(m) && !slices.Contains(a.Dealers, m) {
		return NotAllowed
	}
	x.noteBlamed(b, g.Blamed)
	a.Gave = withMember(a.Gave, m)
	b.Attempts = slices.Clone(b.Attempts)
	b.Attempts[len(b.Attempts)-1] = a
	s.Batches.put(b.ID, b)
	halted := s.OutflowsHalt != "" && (b.Kind == BatchPay || s.broken())
	if (len(a.Gave) >= e.F+1 || s.lost(b)) && !halted && s.Opening == nil && !s.Catching {
		x.again(b, true)
	}
	return OK
}

// lost reports that one who is to hold a share of the resharing b has given up its newest
// attempt and has said of none. Each tick asks too: the word may have come while ledger
// time caught up and nothing was planned, and nobody says it twice.
func (s *State) lost(b Batch) bool {
	if b.Kind != BatchReshare || s.Next == nil {
		return false
	}
	i := slices.IndexFunc(s.Next.Keys, func(k NextKey) bool { return k.Batch == b.ID })
	return i >= 0 && slices.ContainsFunc(b.Newest().Gave, func(m MemberID) bool {
		return s.Next.Epoch.Has(m) && !slices.Contains(s.Next.Keys[i].Ready, m)
	})
}

// noteBlamed keeps whom members name when a session of the next epoch fails.
func (x *execution) noteBlamed(b Batch, blamed []MemberID) {
	s := x.s
	if s.Next == nil || b.Kind != BatchReshare {
		return
	}
	for i, k := range s.Next.Keys {
		if k.Batch != b.ID {
			continue
		}
		for _, m := range blamed {
			if s.Next.Epoch.Has(m) || s.Epoch().Has(m) {
				k.Blamed = withMember(k.Blamed, m)
			}
		}
		s.setNextKey(i, k)
	}
}

// Newest is the attempt that may be signed.
func (b Batch) Newest() Attempt { return b.Attempts[len(b.Attempts)-1] }

// Body returns the newest attempt with the given transaction.
func (b Batch) Body(body uint64) (Attempt, bool) {
	for i := len(b.Attempts) - 1; i >= 0; i-- {
		if b.Attempts[i].Body == body {
			return b.Attempts[i], true
		}
	}
	return Attempt{}, false
}

func (s *State) closeBatch(id uint64) {
	b := s.Batches.at(id)
	b.Done = true
	s.Batches.put(id, b)
	s.Live.delete(id)
	s.Children.delete(id)
}
