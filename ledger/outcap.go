package ledger

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// Outflow caps (spec: committee §5 S4, outflows ). Whatever else goes
// wrong, only so much of an asset leaves in an hour and in a day: two buckets for
// each pool, which payouts to clients draw on when they are planned, and which
// refill linearly in ledger time.
//
//	accepted ≤ hourly capacity ──► waits in order ──level ≥ min(gross, capacity)──► planned, drawn
//	                                  └─ 24 h ──► REFUNDED
//
// The level may go negative, so every accepted payout fits some day. What custody
// moves between its own vaults draws on nothing.
//
// Why what was drawn is kept, and not the level: a capacity is a share of custody
// and moves with it; a bucket that nobody drew on is full at any capacity.
//
// Why nothing is given back when a payout is proven unpaid: a bucket bounds what
// signatures can exist for, and the one that was planned had its part of it.

const (
	hourMillis = 3_600_000
	dayMillis  = 86_400_000

	// maxCapBps is the largest share of custody that may be a capacity: a hundred
	// times all there is, which is no cap in practice.
	maxCapBps = 1_000_000

	// An account takes at most this part of a bucket while others wait.
	capShare = 4
)

// DefaultCapHourBps and DefaultCapDayBps are the shares of custody that may leave
// in an hour and a day where operators say nothing else.
const (
	DefaultCapHourBps = 500
	DefaultCapDayBps  = 2_000
)

// Drawn is what was taken out of a bucket and has not refilled, base units, with
// the part of one that has, in units of 1/window.
type Drawn struct {
	Amount fixed.Int `cbor:"1,keyasint"`
	Rest   uint64    `cbor:"2,keyasint"`
}

// Buckets are the two of one asset.
type Buckets struct {
	Hour   Drawn  `cbor:"1,keyasint"`
	Day    Drawn  `cbor:"2,keyasint"`
	Millis uint64 `cbor:"3,keyasint"` // ledger time up to which they have refilled

	HourPeak fixed.Int `cbor:"4,keyasint"` // largest capacities at which they refilled since the last draw
	DayPeak  fixed.Int `cbor:"5,keyasint"`
}

// Draw is one payout that was planned: the last day's are kept, and those of
// batches that are open. Signers judge plans by them, and so does an operator's
// own limit.
type Draw struct {
	Outflow uint64    `cbor:"1,keyasint"`
	Account AccountID `cbor:"2,keyasint"`
	Gross   fixed.Int `cbor:"3,keyasint"`
	Hour    Cap       `cbor:"4,keyasint"` // capacities and what was drawn before it
	Day     Cap       `cbor:"5,keyasint"`
}

// Cap is a bucket at one moment, base units.
type Cap struct {
	Capacity fixed.Int `cbor:"1,keyasint"` // 0: there is none
	Drawn    fixed.Int `cbor:"2,keyasint"`
	Peak     fixed.Int `cbor:"3,keyasint"` // largest capacity since the draw before; at least Capacity
}

// lets reports whether a payout may be planned: level ≥ min(gross, capacity).
func (c Cap) lets(gross fixed.Int) bool {
	if c.Capacity.IsZero() {
		return true
	}
	need, err := fixed.Add(c.Drawn, gross.Min(c.Capacity))
	return err == nil && !c.Capacity.Less(need)
}

func drawKey(asset string, millis, outflow uint64) string {
	return fmt.Sprintf("%s/%016x/%016x", asset, millis, outflow)
}

// custodyOf is what custody holds of an asset for clients, base units: what is
// there to be paid out, to be claimed, and promised already.
func (p Pool) custodyOf() fixed.Int {
	var c fixed.Calc
	v := c.Add(c.Add(p.Cash, p.Reserved), p.Suspended)
	if c.Err() != nil {
		return fixed.Max
	}
	return v
}

// capacity is a share of custody, at most an amount, at least one minimum
// withdrawal. 0: there is no cap.
func (p Pool) capacity(bps uint64, most fixed.Int, divisor uint64) fixed.Int {
	if bps == 0 && most.IsZero() {
		return fixed.Int{}
	}
	v := fixed.Max
	if bps != 0 {
		if part, err := fixed.MulDivFloor(p.custodyOf(), fixed.New(bps), fixed.Bps); err == nil {
			v = part
		}
	}
	if !most.IsZero() {
		v = v.Min(most)
	}
	v = must(fixed.DivFloor(v, fixed.New(divisor)))
	return v.Max(p.Param.MinWithdraw).Max(fixed.New(1))
}

// capDivisor divides every capacity: by 4 while a member of the epoch in force is
// in quarantine (spec: committee §3.4).
func (s *State) capDivisor() uint64 {
	if s.QuarantineUntil() > 0 {
		return 4
	}
	return 1
}

// Capacities are what may leave of an asset in an hour and in a day, base units;
// 0: there is no cap.
func (s *State) Capacities(asset string) (hour, day fixed.Int) {
	p, ok := s.Pools.get(asset)
	if !ok {
		return hour, day
	}
	d := s.capDivisor()
	return p.capacity(p.Param.CapHourBps, p.Param.CapHour, d), p.capacity(p.Param.CapDayBps, p.Param.CapDay, d)
}

// refill gives back what has refilled in dt ms. Exact: what is less than a base
// unit is kept.
func (d Drawn) refill(capacity fixed.Int, dt, window uint64) Drawn {
	if d.Amount.IsZero() || capacity.IsZero() {
		return Drawn{}
	}
	total := must(fixed.Product(capacity, fixed.New(dt)).Add(fixed.New(d.Rest).Wide()))
	whole := must(fixed.WideFloor(total, fixed.New(1).Wide(), fixed.New(window).Wide()))
	if !whole.Less(d.Amount.Wide()) {
		return Drawn{}
	}
	back := must(whole.Int())
	rest := must(must(total.Sub(fixed.Product(back, fixed.New(window)))).Int())
	left, _ := rest.Uint64() // below window
	return Drawn{Amount: must(fixed.Sub(d.Amount, back)), Rest: left}
}

// buckets are those of an asset as of ledger time.
func (s *State) buckets(asset string) Buckets {
	b := s.Buckets.at(asset)
	hour, day := s.Capacities(asset)
	dt := s.Millis - min(b.Millis, s.Millis)
	return Buckets{
		Hour: b.Hour.refill(hour, dt, hourMillis), Day: b.Day.refill(day, dt, dayMillis), Millis: s.Millis,
		HourPeak: b.HourPeak.Max(hour), DayPeak: b.DayPeak.Max(day),
	}
}

// refillCaps moves every bucket on, at the capacities of now: custody moves, and
// what refilled at the old ones stays refilled. It forgets draws that nothing
// asks for any more.
func (x *execution) refillCaps() {
	s := x.s
	for _, asset := range s.Buckets.keys() {
		s.putBuckets(asset, s.buckets(asset))
	}
	for asset := range s.Pools.all() {
		for _, key := range s.oldDraws(asset) {
			d := s.Draws.at(key)
			o := s.Outflows.at(d.Outflow)
			if drawKey(o.Asset, o.Drew, o.ID) != key || o.State == Queued || o.State == Paid || o.State == Refunded {
				s.Draws.delete(key)
			}
		}
	}
}

// oldDraws are those of an asset that are more than a day old.
func (s *State) oldDraws(asset string) (keys []string) {
	for key := range s.Draws.From(drawKey(asset, 0, 0)) {
		if key >= drawKey(asset, s.Millis-min(dayMillis, s.Millis), 0) {
			break
		}
		keys = append(keys, key)
	}
	return keys
}

func (s *State) putBuckets(asset string, b Buckets) {
	if b.Hour.Amount.IsZero() && b.Day.Amount.IsZero() {
		s.Buckets.delete(asset)
		return
	}
	s.Buckets.put(asset, b)
}

// caps are both buckets of an outflow's asset now.
func (s *State) caps(asset string) (hour, day Cap) {
	b := s.buckets(asset)
	hour.Capacity, day.Capacity = s.Capacities(asset)
	hour.Drawn, day.Drawn = b.Hour.Amount, b.Day.Amount
	hour.Peak, day.Peak = b.HourPeak, b.DayPeak
	return hour, day
}

// CapsLet reports whether both buckets let a payout be planned now.
func (s *State) CapsLet(o Outflow) bool {
	hour, day := s.caps(o.Asset)
	return o.Account == "" || hour.lets(o.Gross) && day.lets(o.Gross)
}

// DrawnBetween sums the gross of payouts of an asset planned from ledger time
// from to ledger time to, both included, ms; of one account, or of all with
// account empty. It knows a day.
func (s *State) DrawnBetween(asset string, from, to uint64, account AccountID) (sum fixed.Int) {
	var c fixed.Calc
	for key, d := range s.Draws.From(drawKey(asset, from, 0)) {
		if key >= drawKey(asset, to+1, 0) {
			break
		}
		if account == "" || d.Account == account {
			sum = c.Add(sum, d.Gross)
		}
	}
	if c.Err() != nil {
		return fixed.Max
	}
	return sum
}

// draw books that a payout to a client is planned, and returns it with the time.
func (s *State) draw(o Outflow) Outflow {
	if o.Account == "" {
		return o
	}
	hour, day := s.caps(o.Asset)
	b := s.buckets(o.Asset)
	for _, w := range []struct {
		d *Drawn
		c Cap
	}{{&b.Hour, hour}, {&b.Day, day}} {
		if w.c.Capacity.IsZero() {
			*w.d = Drawn{}
			continue
		}
		sum, err := fixed.Add(w.d.Amount, o.Gross)
		if err != nil {
			sum = fixed.Max
		}
		w.d.Amount = sum
	}
	b.HourPeak, b.DayPeak = fixed.Int{}, fixed.Int{}
	s.putBuckets(o.Asset, b)
	o.Drew = s.Millis
	s.Draws.put(drawKey(o.Asset, o.Drew, o.ID), Draw{Outflow: o.ID, Account: o.Account, Gross: o.Gross, Hour: hour, Day: day})
	return o
}

// capTurn is one look at the queue, oldest first. What waits for a bucket keeps
// its place, so nobody younger passes it; what waits for a reason of its own
// holds up nobody; who has had his quarter comes after the others.
type capTurn struct {
	blocked []string  // assets of which something waits for a bucket
	later   []Outflow // of accounts that have had their quarter, oldest first
	had     map[string]hadOf
}

// hadOf is what one account has had of an asset within the hour and the day.
type hadOf struct{ hour, day fixed.Int }

// count reads what accounts have had of an asset, once a turn.
func (t *capTurn) count(s *State, asset string) {
	if t.had == nil {
		t.had = map[string]hadOf{}
	}
	if _, known := t.had[asset]; known {
		return
	}
	t.had[asset] = hadOf{}
	hour := drawKey(asset, s.Millis+1-min(hourMillis, s.Millis), 0)
	for key, d := range s.Draws.From(drawKey(asset, s.Millis+1-min(dayMillis, s.Millis), 0)) {
		if key >= drawKey(asset, s.Millis+1, 0) {
			break
		}
		t.took(asset, d.Account, d.Gross, key >= hour)
	}
}

func (t *capTurn) took(asset string, account AccountID, gross fixed.Int, lately bool) {
	var c fixed.Calc
	h := t.had[asset+"/"+account]
	if h.day = c.Add(h.day, gross); lately {
		h.hour = c.Add(h.hour, gross)
	}
	if c.Err() != nil {
		h = hadOf{fixed.Max, fixed.Max}
	}
	t.had[asset+"/"+account] = h
}

// share: with this payout its account has had at most a quarter of each bucket
// within its window, or it is its first one there.
func (t *capTurn) share(s *State, o Outflow) bool {
	t.count(s, o.Asset)
	hour, day := s.Capacities(o.Asset)
	had := t.had[o.Asset+"/"+o.Account]
	return shareOf(hour, had.hour, o.Gross) && shareOf(day, had.day, o.Gross)
}

func shareOf(capacity, had, gross fixed.Int) bool {
	if capacity.IsZero() || had.IsZero() {
		return true
	}
	need, err := fixed.Add(had, gross)
	return err == nil && !must(fixed.DivFloor(capacity, fixed.New(capShare))).Less(need)
}

// next says what to do with an outflow that is not refused by its gates: plan it,
// or not now. could reports whether it would be planned if buckets let it.
func (t *capTurn) next(s *State, o Outflow, could func() bool) bool {
	if o.Account == "" {
		return true
	}
	if slices.Contains(t.blocked, o.Asset) {
		return false
	}
	if slices.ContainsFunc(t.later, func(l Outflow) bool { return l.Asset == o.Asset && l.Account == o.Account }) {
		t.later = append(t.later, o) // behind its account's other ones
		return false
	}
	if !s.CapsLet(o) {
		if could() {
			t.blocked = append(t.blocked, o.Asset)
		}
		return false
	}
	if !t.share(s, o) {
		if could() {
			t.later = append(t.later, o)
		}
		return false
	}
	return true
}

// planned notes a payout that the turn let through and that was planned.
func (t *capTurn) planned(o Outflow) {
	if o.Account != "" {
		t.took(o.Asset, o.Account, o.Gross, true)
	}
}

// rest are those who have had their quarter and for whom nobody else waits.
func (t *capTurn) rest() []Outflow {
	return slices.DeleteFunc(slices.Clone(t.later), func(o Outflow) bool {
		return slices.Contains(t.blocked, o.Asset) ||
			slices.ContainsFunc(t.later, func(l Outflow) bool { return l.Asset == o.Asset && l.Account != o.Account })
	})
}

// would reports whether f would plan something, and changes nothing.
func (x *execution) would(f func(*execution) Code) bool { return f(x.trial()) == OK }

// boostedNow are those of a round's payouts that the buckets let through, oldest
// first, none of them before a standard one that waits for a bucket.
func (x *execution) boostedNow(pending []Outflow) []Outflow {
	t := capTurn{}
	first := x.waitsForCap(btcAsset)
	v := x.s.View() // draws are tried on it
	var now []Outflow
	for _, o := range pending {
		if first != 0 && o.ID > first {
			t.blocked = []string{o.Asset}
		}
		payable := func() bool {
			fee, _, code := v.Quote(o.Asset, o.To, o.Gross)
			return code == OK && !o.MaxFee.Less(fee)
		}
		if t.next(v, o, payable) {
			now = append(now, o)
			v.draw(o)
			t.planned(o)
		}
	}
	for _, o := range t.rest() {
		if !v.CapsLet(o) {
			break
		}
		now = append(now, o)
		v.draw(o)
	}
	slices.SortFunc(now, func(a, b Outflow) int { return cmp.Compare(a.ID, b.ID) })
	return now
}

// waitsForCap is the oldest standard outflow of an asset that waits for nothing
// but a bucket; 0: none does.
func (x *execution) waitsForCap(asset string) uint64 {
	for _, id := range x.s.Queue.keys() {
		o := x.s.Outflows.at(id)
		if o.Asset != asset || o.Account == "" || o.Boosted && o.Heir == "" || x.s.planGates(o) != OK || x.s.CapsLet(o) {
			continue
		}
		if x.would(func(x *execution) Code { return x.plan(o) }) {
			return id
		}
	}
	return 0
}

// overHour: an amount that the hourly capacity would never let through at once
// is refused before anything moves (spec: outflows R-11).
func (s *State) overHour(asset string, gross fixed.Int) bool {
	hour, _ := s.Capacities(asset)
	return !hour.IsZero() && hour.Less(gross)
}

// CapWait is why a queued payout waits for a bucket.
type CapWait struct {
	Window   string    // "hour" or "day"
	Capacity fixed.Int // base units
	Drawn    fixed.Int // base units
	Until    uint64    // ledger time, ms, when enough has refilled at the present capacity
	Share    bool      // the account has had its quarter, and others wait
}

// WaitsForCap says which bucket a queued payout waits for, the one that takes
// longest; false: none, as far as buckets go.
func (s *State) WaitsForCap(o Outflow) (w CapWait, waits bool) {
	if o.Account == "" || o.State != Queued {
		return w, false
	}
	hour, day := s.caps(o.Asset)
	b := s.buckets(o.Asset)
	for _, x := range []struct {
		name string
		c    Cap
		rest uint64
		span uint64
	}{{"hour", hour, b.Hour.Rest, hourMillis}, {"day", day, b.Day.Rest, dayMillis}} {
		if x.c.lets(o.Gross) {
			continue
		}
		room := must(fixed.Sub(x.c.Capacity, o.Gross.Min(x.c.Capacity)))
		need := fixed.Product(must(fixed.Sub(x.c.Drawn, room)), fixed.New(x.span))
		need = must(need.Sub(fixed.New(x.rest).Wide()))
		ms := must(fixed.WideCeil(need, fixed.New(1).Wide(), x.c.Capacity.Wide()))
		until := s.Millis + maxClockMillis
		if n, err := ms.Int(); err == nil {
			if v, ok := n.Uint64(); ok && v < maxClockMillis {
				until = s.Millis + v
			}
		}
		if !waits || until > w.Until {
			w, waits = CapWait{Window: x.name, Capacity: x.c.Capacity, Drawn: x.c.Drawn, Until: until}, true
		}
	}
	if t := (capTurn{}); !waits && !t.share(s, o) {
		return CapWait{Window: "hour", Capacity: hour.Capacity, Drawn: t.had[o.Asset+"/"+o.Account].hour, Share: true}, true
	}
	return w, waits
}

// CapsKept is what every signer asks before it signs what a batch pays (spec:
// committee S4): that each of its payouts was drawn, that the buckets let it, and
// that all that was planned of the asset in the hour and the day up to it is no
// more than buckets can ever let through in that time: one that was full and what
// refilled. The sums are made of the payouts themselves, by other code than the
// buckets'.
func (s *State) CapsKept(batch uint64) error {
	b, ok := s.Batches.get(batch)
	if !ok || b.Newest().Cancels() {
		return nil // nobody is paid
	}
	for _, id := range b.Outflows {
		o := s.Outflows.at(id)
		if o.Account == "" {
			continue
		}
		d, ok := s.Draws.get(drawKey(o.Asset, o.Drew, id))
		if !ok || d.Outflow != id || d.Gross != o.Gross {
			return fmt.Errorf("outflow cap: outflow %d of %s %s was planned and not drawn", id, o.Gross, o.Asset)
		}
		for _, w := range []struct {
			name string
			span uint64
			of   func(Draw) Cap
		}{{"hour", hourMillis, func(d Draw) Cap { return d.Hour }}, {"day", dayMillis, func(d Draw) Cap { return d.Day }}} {
			if c := w.of(d); !c.lets(o.Gross) {
				return fmt.Errorf("outflow cap: outflow %d of %s %s: %s of the %s's %s were drawn", id, o.Gross, o.Asset, c.Drawn, w.name, c.Capacity)
			}
			if sum, most, capped := s.window(o.Asset, o.Drew, w.span, w.of); capped && most.Less(sum) {
				return fmt.Errorf("outflow cap: %s %s were planned in the %s up to outflow %d, at most %s can be", sum, o.Asset, w.name, id, most)
			}
		}
	}
	return nil
}

// window sums what was planned of an asset in the span that ends at a ledger
// time, and the most that a bucket lets through in it: twice its largest
// capacity, and what one payout may take beyond a capacity that shrank.
// capped: there was a capacity all the time.
func (s *State) window(asset string, at, span uint64, of func(Draw) Cap) (sum, most fixed.Wide, capped bool) {
	largest, beyond := fixed.Int{}, fixed.Int{}
	capped = true
	for key, d := range s.Draws.From(drawKey(asset, at+1-min(span, at), 0)) {
		if key >= drawKey(asset, at+1, 0) {
			break
		}
		c := of(d)
		capped = capped && !c.Capacity.IsZero()
		largest = largest.Max(c.Peak)
		if c.Capacity.Less(d.Gross) {
			beyond = beyond.Max(must(fixed.Sub(d.Gross, c.Capacity)))
		}
		sum = must(sum.Add(d.Gross.Wide()))
	}
	most = must(must(largest.Wide().Add(largest.Wide())).Add(beyond.Wide()))
	return sum, most, capped
}

// checkCaps: buckets are of pools and hold something, and every planned payout of
// a client has its draw.
func (s *State) checkCaps() error {
	for asset, b := range s.Buckets.all() {
		if !s.Pools.has(asset) || b.Hour.Amount.IsZero() && b.Day.Amount.IsZero() || b.Millis > s.Millis || b.Hour.Rest >= hourMillis || b.Day.Rest >= dayMillis {
			return fmt.Errorf("buckets of %s: %+v", asset, b)
		}
	}
	for key, d := range s.Draws.all() {
		if o, ok := s.Outflows.get(d.Outflow); !ok || o.Account != d.Account || o.Gross != d.Gross || o.Drew == 0 {
			return fmt.Errorf("draw %s is of outflow %d, %+v", key, d.Outflow, o)
		}
	}
	for id := range s.Live.all() {
		b := s.Batches.at(id)
		for _, id := range b.Outflows {
			if o := s.Outflows.at(id); o.Account != "" && !s.Draws.has(drawKey(o.Asset, o.Drew, id)) {
				return fmt.Errorf("outflow %d: %s, planned and not drawn", id, o.State)
			}
		}
	}
	return nil
}

// capNumbers are the hourly capacity that refused a request, and what it asked
// for.
func (s *State) capNumbers(c *address.Command, amount fixed.Int) (limit, found string) {
	asset := c.Pool
	switch {
	case c.Action == address.ActionLiquidate:
		asset, amount = c.CollateralPool, fixed.Int{}
	case c.Amount.Max:
		amount = s.suppliedIn(hex16(c.Account), c.Pool)
	}
	hour, _ := s.Capacities(asset)
	if amount.IsZero() {
		return hour.String(), ""
	}
	return hour.String(), amount.String()
}
