package ledger

import (
	"crypto/sha256"
	"fmt"
	"slices"

	"github.com/coffer-network/coffer/ledger/fixed"
)

// Limits of one attestation (spec: consensus §9).
const (
	maxReports     = 64
	maxOpenRaised  = 4096
	maxTextInFacts = 200 // ids, addresses, hashes: the longest is an outpoint
)

// attestation applies a member's word. A number is used up even if the body is
// then refused: the member simply says it again under the next one.
func (x *execution) attestation(a *Attestation) Code {
	s := x.s
	if a.Cluster != s.Cluster {
		return WrongCluster
	}
	if !s.maySay(a.Member, a.Kind) {
		return NotAllowed
	}
	if !x.verdicts.Verdict(a.check()) {
		return BadSignature
	}
	id := a.Member.String()
	seat := s.Seats.at(id)
	if a.Seq <= seat.Seq {
		return BadNonce
	}
	seat.Seq = a.Seq
	s.Seats.put(id, seat)
	return x.try(func(x *execution) Code { return x.say(a) })
}

func (x *execution) say(a *Attestation) Code {
	switch a.Kind {
	case KindClock:
		return handle(x, a, (*execution).clock)
	case KindPrice:
		return handle(x, a, (*execution).prices)
	case KindFee:
		return handle(x, a, (*execution).fees)
	case KindHeight:
		return handle(x, a, (*execution).heights)
	case KindInflow:
		return handle(x, a, (*execution).inflow)
	case KindSpent:
		return handle(x, a, (*execution).spent)
	case KindUnmined:
		return handle(x, a, (*execution).unmined)
	case KindFinal:
		return handle(x, a, (*execution).final)
	case KindFloat:
		return handle(x, a, (*execution).float)
	case KindGaveUp:
		return handle(x, a, (*execution).gaveUp)
	case KindFeeAbsurd:
		return handle(x, a, (*execution).feeAbsurd)
	case KindReversed:
		return handle(x, a, (*execution).reversed)
	case KindDeepFork:
		return handle(x, a, (*execution).deepFork)
	case KindForeign:
		return handle(x, a, (*execution).foreign)
	case KindBalance:
		return handle(x, a, (*execution).balance)
	case KindDescendants:
		return handle(x, a, (*execution).descendants)
	case KindShareReady:
		return handle(x, a, (*execution).shareReady)
	case KindTestSig:
		return handle(x, a, (*execution).testSig)
	case KindFlip:
		return handle(x, a, (*execution).flip)
	case KindRepaySeen:
		return handle(x, a, (*execution).repaySeen)
	case KindRefusal:
		return handle(x, a, (*execution).refuses)
	case KindVote:
		return handle(x, a, (*execution).vote)
	case KindPause:
		return handle(x, a, (*execution).pause)
	case KindLeave:
		return handle(x, a, (*execution).leave)
	case KindWiped:
		return handle(x, a, (*execution).wiped)
	case KindBlame:
		return handle(x, a, (*execution).blame)
	case KindDrill:
		return handle(x, a, (*execution).drill)
	}
	return Malformed
}

func handle[T any](x *execution, a *Attestation, f func(*execution, MemberID, T) Code) Code {
	var body T
	if err := Unmarshal(a.Body, &body); err != nil {
		return Malformed
	}
	return f(x, a.Member, body)
}

// Clocks: ledger time is a rank of all seats' clocks (spec: consensus §7).

const (
	maxAheadMillis = 60_000 // a clock further ahead counts only as far as Q seats say so
	minStepMillis  = 10_000
	// maxClockMillis keeps every sum of clocks far from overflow: the year 10889.
	maxClockMillis = 1 << 48
)

func (x *execution) clock(m MemberID, c Clock) Code {
	s := x.s
	if c.Millis > maxClockMillis {
		return Malformed
	}
	seat := s.Seats.at(m.String())
	seat.Millis, seat.Heard = c.Millis, s.Millis
	s.Seats.put(m.String(), seat)

	e := s.Epoch()
	if !e.Has(m) {
		return OK
	}
	clocks := make([]uint64, 0, e.N())
	for _, mm := range e.Members {
		clocks = append(clocks, s.Seats.at(mm.ID.String()).Millis)
	}
	raw := ledgerClock(clocks, s.Millis, e.N(), e.F, e.C(), e.Q())
	step := max(minStepMillis, (max(raw, s.Millis)-s.Millis)/16)
	if e.Number == 0 { // nothing accrues before the first keys
		step = maxClockMillis
	}
	s.Raw = raw
	before := s.Millis
	s.Millis = max(s.Millis, min(raw, s.Millis+step))
	s.Catching = raw > s.Millis+minStepMillis
	if s.Millis > before {
		x.tick()
	}
	return OK
}

// ledgerClock is the rank of spec consensus §7. A seat that never spoke is 0.
func ledgerClock(clocks []uint64, now uint64, n, f, c, q int) uint64 {
	sorted := slices.Sorted(slices.Values(clocks))
	far := sorted[n-q] // Q-th largest
	ahead := max(now+maxAheadMillis, far)
	k := min(c+(n-c+1)/2, n-f) // counted from 1, ascending
	return min(sorted[k-1], ahead)
}

// Prices (spec: lending §12).

const (
	reportMaxMillis  = 60_000 // a report older than this never counts
	suspectMinMillis = 60_000
	suspectMaxMillis = 600_000
	suspectCalmBps   = 100
)

// prices takes a member's reports. Those that cannot count are dropped one by
// one, so that an old price of one asset costs nobody the others: of an unknown
// asset, zero, observed more than a minute ago or later than now, of a round
// still to come, and the second of one round. MALFORMED: none was left.
func (x *execution) prices(m MemberID, reports []PriceReport) Code {
	s := x.s
	if len(reports) == 0 || len(reports) > maxReports {
		return Malformed
	}
	code := Malformed
	closed := false
	for _, r := range reports {
		if _, ok := s.Genesis.Asset(r.Asset); !ok || r.Price.IsZero() || r.Observed > s.Millis ||
			s.Millis-r.Observed > reportMaxMillis || r.Round > s.Time()/s.Params.RoundSeconds {
			continue
		}
		code = OK
		seat := s.Seats.at(m.String())
		i, found := slices.BinarySearchFunc(seat.Reports, r.Asset, func(p PriceReport, a string) int { return cmpText(p.Asset, a) })
		switch {
		case !found:
			seat.Reports = slices.Insert(slices.Clone(seat.Reports), i, r)
		case r.Round > seat.Reports[i].Round:
			seat.Reports = slices.Clone(seat.Reports)
			seat.Reports[i] = r
		case r.Round == seat.Reports[i].Round && r != seat.Reports[i]:
			// Evidence E1, one member's two words for one round (spec: committee §7). The first counts.
			x.emit(Event{Name: "evidence-e1", Asset: r.Asset, Amount: r.Price.String(), Note: reportNote(m, r)})
			continue
		default: // said again, or overtaken on its way
			continue
		}
		s.Seats.put(m.String(), seat)
		closed = x.closeRound(r.Asset, r.Round) || closed
	}
	if closed { // spec: lending §6.7, price
		s.sync()
		s.refreshRates()
		x.noteDips()
	}
	return code
}

// closeRound closes round r of an asset as soon as 2f+1 members reported it.
// Later reports of the round change nothing. The reports that made the price
// are effects and stay in the state until the next round, so that whoever holds
// them can recompute what followed from it. It reports whether it closed the
// round.
func (x *execution) closeRound(asset string, round uint64) bool {
	s := x.s
	old, had := s.Prices.get(asset)
	if had && round <= old.Round {
		return false
	}
	e := s.Epoch()
	var used []Reported
	for _, m := range e.Members {
		for _, r := range s.Seats.at(m.ID.String()).Reports {
			if r.Asset == asset && r.Round == round && s.Millis-r.Observed <= reportMaxMillis {
				used = append(used, Reported{Member: m.ID, Price: r.Price, Observed: r.Observed})
			}
		}
	}
	if len(used) < 2*e.F+1 {
		return false
	}
	ps := make([]fixed.Int, len(used))
	for i, r := range used {
		ps[i] = r.Price
	}
	slices.SortFunc(ps, fixed.Int.Cmp)
	n := Price{Low: ps[(len(ps)-1)/2], High: ps[len(ps)/2], Millis: s.Millis, Round: round}
	if s.Params.OnePrice {
		n.High = n.Low
	}
	if had {
		n = s.suspect(old, n)
	}
	past := s.Rounds.at(asset).Past
	n = s.alert(old, n, past)
	s.Prices.put(asset, n)
	s.Rounds.put(asset, Rounds{Reports: used, Past: keepRound(past, n)})
	x.emit(Event{Name: "price", Asset: asset, Amount: n.Low.String(), Note: n.High.String()})
	for _, r := range used {
		x.emit(Event{Name: "price-report", Asset: asset, Amount: r.Price.String(),
			Note: reportNote(r.Member, PriceReport{Round: round, Observed: r.Observed})})
	}
	if n.Alert != 0 && old.Alert == 0 {
		x.emit(Event{Name: "price-alert", Asset: asset, Amount: n.Low.String(), Note: n.TWAP.String()})
	}
	return true
}

// reportNote names a report in an event: round, member, when it was observed.
func reportNote(m MemberID, r PriceReport) string {
	return fmt.Sprintf("%d %s %d", r.Round, m, r.Observed)
}

// suspect is the deviation rule: a jump of more than DeviationBps from one round
// to the next makes a price suspect. It ends when a round at least a minute
// after the newest jump is within 1 % of it, and ten minutes after the first at
// the latest, since a crash must not block liquidations for long.
//
// Why not calm from round to round: a price that is led away in steps below 1 %
// would end the suspicion that its own first step raised.
func (s *State) suspect(old, n Price) Price {
	bps := s.Params.DeviationBps
	jumped := deviates(old.Low, n.Low, bps) || deviates(old.High, n.High, bps)
	switch {
	case old.Suspect == 0 && !jumped:
		return n
	case old.Suspect == 0:
		n.Suspect, n.SusLow, n.SusHigh = s.Millis, old.Low, old.High
	case s.Millis-old.Suspect >= suspectMaxMillis:
		return n
	default:
		n.Suspect, n.SusLow, n.SusHigh = old.Suspect, old.SusLow, old.SusHigh
	}
	if jumped {
		n.JumpMillis, n.JumpLow, n.JumpHigh = s.Millis, n.Low, n.High
		return n
	}
	calm := !deviates(old.JumpLow, n.Low, suspectCalmBps) && !deviates(old.JumpHigh, n.High, suspectCalmBps)
	if calm && s.Millis-old.JumpMillis >= suspectMinMillis {
		return Price{Low: n.Low, High: n.High, Millis: n.Millis, Round: n.Round}
	}
	n.JumpMillis, n.JumpLow, n.JumpHigh = old.JumpMillis, old.JumpLow, old.JumpHigh
	return n
}

// Suspected reports whether p is suspect now: no round need close for the ten
// minutes to pass.
func (s *State) Suspected(p Price) bool {
	return p.Suspect != 0 && s.Millis-p.Suspect < suspectMaxMillis
}

// deviates reports |b − a|·10⁴ > bps·a. Overflow counts as a deviation.
func deviates(a, b fixed.Int, bps uint64) bool {
	far, near := a, b
	if far.Less(near) {
		far, near = near, far
	}
	var c fixed.Calc
	d := c.Mul(c.Sub(far, near), fixed.New(10_000))
	l := c.Mul(a, fixed.New(bps))
	return c.Err() != nil || l.Less(d)
}

// Fee rates (spec: outflows §7).

const feeWindowMillis = 600_000 // at most ×2 or ÷2 per window

func (x *execution) fees(m MemberID, reports []FeeReport) Code {
	s := x.s
	if len(reports) == 0 || len(reports) > maxReports {
		return Malformed
	}
	for _, r := range reports {
		if _, ok := s.Genesis.Chain(r.Chain); !ok || r.Millis != 0 || r.Rate > maxClockMillis || r.Tip > maxClockMillis {
			return Malformed
		}
		r.Millis = s.Millis
		seat := s.Seats.at(m.String())
		seat.Fees = upsert(seat.Fees, r, func(f FeeReport) string { return f.Chain })
		s.Seats.put(m.String(), seat)
		x.closeFee(r.Chain)
	}
	return OK
}

func (x *execution) closeFee(chain string) {
	s := x.s
	p, _ := s.Genesis.Chain(chain)
	e := s.Epoch()
	var rates, tips []uint64
	for _, m := range e.Members {
		for _, r := range s.Seats.at(m.ID.String()).Fees {
			if r.Chain == chain && s.Millis-r.Millis <= s.Params.FeeMaxAgeMillis {
				rates, tips = append(rates, r.Rate), append(tips, r.Tip)
			}
		}
	}
	if len(rates) < 2*e.F+1 {
		return
	}
	slices.Sort(rates)
	slices.Sort(tips)
	rate := min(max(rates[len(rates)/2], p.MinRate), p.MaxRate) // even count: the upper middle
	tip := min(max(tips[len(tips)/2], p.MinTip), p.MaxRate)
	old, had := s.Rates.get(chain)
	n := FeeRate{Rate: rate, Tip: tip, Millis: s.Millis, BaseRate: rate, BaseTip: tip, BaseMillis: s.Millis}
	if had {
		n.BaseRate, n.BaseTip, n.BaseMillis = old.BaseRate, old.BaseTip, old.BaseMillis
		n.Rate = min(max(rate, n.BaseRate/2, p.MinRate), 2*n.BaseRate)
		n.Tip = min(max(tip, n.BaseTip/2, p.MinTip), 2*max(n.BaseTip, 1))
		if s.Millis-n.BaseMillis >= feeWindowMillis {
			n.BaseRate, n.BaseTip, n.BaseMillis = old.Rate, old.Tip, s.Millis // not the new one, or it could double twice at once
		}
	}
	s.Rates.put(chain, n)
}

// Chain heights.

// heights: the attested tip is the FactQuorum-th largest of the members' newest
// heights, so an honest member has seen that far.
//
// Why not equal (height, hash) pairs: members read a fast chain at different
// moments and say only their newest block, so pairs would often not meet. No
// money follows from a tip alone: what does, names its block hash itself.
func (x *execution) heights(m MemberID, reports []HeightReport) Code {
	s := x.s
	if len(reports) == 0 || len(reports) > maxReports {
		return Malformed
	}
	e := s.Epoch()
	for _, r := range reports {
		if _, ok := s.Genesis.Chain(r.Chain); !ok || len(r.Hash) > maxTextInFacts || r.Height > maxClockMillis {
			return Malformed
		}
		seat := s.Seats.at(m.String())
		seat.Heights = upsert(seat.Heights, r, func(h HeightReport) string { return h.Chain })
		s.Seats.put(m.String(), seat)

		var hs []uint64
		for _, mm := range e.Members {
			for _, h := range s.Seats.at(mm.ID.String()).Heights {
				if h.Chain == r.Chain {
					hs = append(hs, h.Height)
				}
			}
		}
		if len(hs) < e.FactQuorum {
			continue
		}
		slices.Sort(hs)
		h := hs[len(hs)-e.FactQuorum]
		if old := s.Tips.at(r.Chain); h > old.Height {
			s.Tips.put(r.Chain, ChainTip{Height: h, Millis: s.Millis})
		}
	}
	return OK
}

// Facts.

// fact counts m's word for a fact and reports whether it has just come to
// quorum. Only current members count, whoever spoke before them.
func (x *execution) fact(m MemberID, kind Kind, body any, quorum int) bool {
	s := x.s
	e := s.Epoch()
	if !e.Has(m) {
		return false
	}
	key := factKey(kind, body)
	t, known := s.Tally.get(key)
	if !known {
		seat := s.Seats.at(m.String())
		if seat.Raised >= maxOpenRaised {
			s.dropOldestTally(m)
			seat = s.Seats.at(m.String())
		}
		seat.Raised++
		s.Seats.put(m.String(), seat)
		t = Tally{Kind: kind, First: m, Height: s.Height}
	}
	t.Members = withMember(t.Members, m)
	n := 0
	for _, mm := range t.Members {
		if e.Has(mm) {
			n++
		}
	}
	if n < quorum {
		s.Tally.put(key, t)
		return false
	}
	s.Tally.put(key, t)
	s.dropTally(key)
	return true
}

func factKey(kind Kind, body any) string {
	h := sha256.Sum256(Marshal([]any{kind, body}))
	return Hash(h).String()
}

func (s *State) dropTally(key string) {
	t, ok := s.Tally.get(key)
	if !ok {
		return
	}
	s.Tally.delete(key)
	seat := s.Seats.at(t.First.String())
	if seat.Raised > 0 {
		seat.Raised--
	}
	s.Seats.put(t.First.String(), seat)
}

// dropOldestTally makes room for a member that raised too many facts nobody
// else saw. What was dropped may be raised again.
func (s *State) dropOldestTally(m MemberID) {
	var oldest string
	var height uint64
	for k, t := range s.Tally.all() {
		if t.First == m && (oldest == "" || t.Height < height) {
			oldest, height = k, t.Height
		}
	}
	s.dropTally(oldest)
}

// Heard reports whether the ledger has m's word for a fact still being tallied.
func (s *State) Heard(m MemberID, kind Kind, body any) bool {
	t, ok := s.Tally.get(factKey(kind, body))
	return ok && slices.Contains(t.Members, m)
}

// Small helpers over sorted slices; all return new slices, because what is in a
// table is never written to.

func withMember(ms []MemberID, m MemberID) []MemberID {
	i, found := slices.BinarySearchFunc(ms, m, func(a, b MemberID) int { return slices.Compare(a[:], b[:]) })
	if found {
		return ms
	}
	return slices.Insert(slices.Clone(ms), i, m)
}

func upsert[T any](list []T, v T, key func(T) string) []T {
	i, found := slices.BinarySearchFunc(list, key(v), func(t T, k string) int { return cmpText(key(t), k) })
	list = slices.Clone(list)
	if found {
		list[i] = v
		return list
	}
	return slices.Insert(list, i, v)
}

func cmpText(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
