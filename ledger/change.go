package ledger

import (
	"fmt"
	"slices"
)

// How the committee changes (spec: committee §3). What is voted becomes a SeatChange
// in a queue; a tick takes the first that can be done and plans the next epoch
// with it. One epoch is prepared at a time:
//
//	vote, leave ──► Changes ──tick──► Next ──all ready──► Opening ──flip──► in force
//	                  ▲                │
//	                  └── who came in ─┴─ abort, deadline, three tries: dropped, number used up
//
// A node that was admitted stands in the queue until its first quarantine is
// over and its clock is heard; it holds nothing and nothing that it says counts.

// ChangeKind says what a change does.
type ChangeKind uint8

const (
	ChangeAdmit    ChangeKind = 1 // In takes a seat of its own
	ChangeReplace  ChangeKind = 2 // In takes the seat of Out
	ChangeEvict    ChangeKind = 3 // Out loses its seat and takes no part
	ChangeLeave    ChangeKind = 4 // Out gives up its seat, by its own word
	ChangeRefresh  ChangeKind = 5 // the same members, or the same with another row
	ChangeRollback ChangeKind = 6 // back to the members and KeyShares of the epoch before
)

func (k ChangeKind) String() string {
	if k < ChangeAdmit || k > ChangeRollback {
		return fmt.Sprintf("change %d", uint8(k))
	}
	return [...]string{"admit", "replace", "evict", "leave", "refresh", "rollback"}[k-1]
}

// Row is what a change says of the epoch after it (spec: consensus §6.4).
type Row struct {
	N          int `cbor:"1,keyasint"` // members
	F          int `cbor:"2,keyasint"` // traitors tolerated
	M          int `cbor:"3,keyasint"` // SigningThreshold
	FactQuorum int `cbor:"4,keyasint"`
}

// Row is an epoch's own.
func (e Epoch) Row() Row { return Row{N: e.N(), F: e.F, M: e.M, FactQuorum: e.FactQuorum} }

// Seats is what a proposal about members says: who comes, who goes, and the row
// after it.
type Seats struct {
	In     *Member  `cbor:"1,keyasint,omitempty"` // admit, replace
	Out    MemberID `cbor:"2,keyasint"`           // evict, replace
	Row    Row      `cbor:"3,keyasint"`           // all but abort
	Urgent bool     `cbor:"4,keyasint"`           // replace: without the first quarantine
	Epoch  uint64   `cbor:"5,keyasint"`           // abort: the number planned; rollback: the epoch to go back to
}

// Leave is a member's own word that it gives up its seat. It may lower n, and the
// FactQuorum where n asks for it, but neither m nor f: those are for Q members.
type Leave struct {
	Row Row `cbor:"1,keyasint"`
}

// SeatChange is a change of the committee that was decided and is not done.
type SeatChange struct {
	Kind   ChangeKind `cbor:"1,keyasint"`
	In     *Member    `cbor:"2,keyasint,omitempty"`
	Out    MemberID   `cbor:"3,keyasint"`
	Row    Row        `cbor:"4,keyasint"`
	Since  uint64     `cbor:"5,keyasint"` // ledger time when it was decided, ms
	From   uint64     `cbor:"6,keyasint"` // ledger time when the first quarantine is over, ms
	Failed uint64     `cbor:"7,keyasint"` // ledger time when its epoch was dropped, ms: it waits for another vote; 0: never
}

// maxQueued changes that are not done. The committee has at most ten seats.
const maxQueued = 16

// refusal is why a change is not possible, with the numbers that decided.
type refusal struct {
	code Code
	why  string
}

func refuse(code Code, format string, args ...any) *refusal {
	return &refusal{code, fmt.Sprintf(format, args...)}
}

// wellFormedSeats: nothing is filled that the kind does not use.
func (p Proposal) wellFormedSeats() bool {
	c := p.Seats
	if c == nil || c.In != nil && !c.In.wellFormed() {
		return false
	}
	in, out := c.In != nil, c.Out != MemberID{}
	switch p.Kind {
	case ProposeAdmit:
		return in && !out && !c.Urgent && c.Epoch == 0
	case ProposeReplace:
		return in && out && c.In.ID != c.Out && c.Epoch == 0
	case ProposeEvict:
		return !in && out && !c.Urgent && c.Epoch == 0
	case ProposeRefresh:
		return !in && !out && !c.Urgent && c.Epoch == 0
	case ProposeRollback:
		return !in && !out && !c.Urgent
	case ProposeAbort:
		return *c == Seats{Epoch: c.Epoch} && c.Epoch != 0
	}
	return false
}

const maxMemberText = 128 // bytes of an operator or an address; a name has a quarter

func (m Member) wellFormed() bool {
	for _, t := range []struct {
		text  string
		least int
		most  int
	}{{m.Name, 1, maxMemberText / 4}, {m.Operator, 1, maxMemberText}, {m.Addr, 0, maxMemberText}} {
		if len(t.text) < t.least || len(t.text) > t.most || slices.ContainsFunc([]rune(t.text), func(r rune) bool { return r <= ' ' && r != ' ' || r == 0x7f }) {
			return false
		}
	}
	return m.ID != MemberID{}
}

// change is what a proposal would put into the queue.
func (p Proposal) change() SeatChange {
	kinds := map[ProposalKind]ChangeKind{
		ProposeAdmit: ChangeAdmit, ProposeReplace: ChangeReplace, ProposeEvict: ChangeEvict, ProposeRefresh: ChangeRefresh, ProposeRollback: ChangeRollback,
	}
	return SeatChange{Kind: kinds[p.Kind], In: p.Seats.In, Out: p.Seats.Out, Row: p.Seats.Row}
}

// WhyNot says why a proposal about members cannot be carried out now, with the
// numbers that decided; empty: it can, or is about something else.
func (s *State) WhyNot(p Proposal) string {
	if p.Seats == nil || !p.wellFormed() {
		return ""
	}
	if r := s.possibleSeats(p); r != nil {
		return r.why
	}
	return ""
}

// possibleSeats says what stands against a proposal about members.
func (s *State) possibleSeats(p Proposal) *refusal {
	switch p.Kind {
	case ProposeAbort:
		switch n := s.Next; {
		case n == nil || n.Kind == NextKeygen || n.Epoch.Number != p.Seats.Epoch:
			return refuse(BadParam, "epoch %d is not being prepared", p.Seats.Epoch)
		case s.Opening != nil:
			return refuse(NotAllowed, "epoch %d was opened at height %d: its flip may be certified already", p.Seats.Epoch, s.Opening.Height)
		}
		return nil
	case ProposeRollback:
		return s.mayRollBack(*p.Seats)
	case ProposeEvict:
		if i := s.admitted(p.Seats.Out); i >= 0 {
			if now := s.Epoch().Row(); p.Seats.Row != now {
				return refuse(BadParam, "an admitted node holds no seat: the row stays %+v, the proposal says %+v", now, p.Seats.Row)
			}
			return nil
		}
	case ProposeAdmit, ProposeReplace:
		if r := s.mayAdmit(*p.Seats); r != nil {
			return r
		}
	}
	if len(s.Changes) >= maxQueued {
		return refuse(Limit, "%d changes wait, at most %d", len(s.Changes), maxQueued)
	}
	return s.possibleChange(p.change())
}

// mayAdmit: one newcomer at a time, from admission to the end of quarantine; a
// dead node may be replaced at any time by as many votes (spec: committee §3.4).
func (s *State) mayAdmit(c Seats) *refusal {
	for _, other := range s.Changes {
		if other.In != nil && other.In.ID == c.In.ID {
			continue
		}
		if other.In != nil && !c.Urgent {
			return refuse(NotAllowed, "%s was admitted at ledger time %d ms and has no seat yet: one at a time", other.In.Name, other.Since)
		}
	}
	if n := s.Next; n != nil && n.Change != nil && n.Change.In != nil && (n.Change.In.ID == c.In.ID || !c.Urgent) {
		return refuse(NotAllowed, "%s is being given its seat in epoch %d: one at a time", n.Change.In.Name, n.Epoch.Number)
	}
	if !c.Urgent {
		for id, until := range s.Quarantine.all() {
			if until > s.Millis {
				return refuse(NotAllowed, "member %s is in quarantine until ledger time %d ms: one admission at a time", id, until)
			}
		}
	}
	return nil
}

// possibleChange judges the epoch that a change would lead to.
func (s *State) possibleChange(c SeatChange) *refusal {
	e := s.Epoch()
	if e.Number == 0 {
		return refuse(NotAllowed, "there are no keys yet")
	}
	if c.In != nil && e.Has(c.In.ID) {
		return refuse(BadParam, "%s holds a seat already", c.In.ID)
	}
	if (c.Out != MemberID{}) && !e.Has(c.Out) {
		return refuse(BadParam, "%s holds no seat", c.Out)
	}
	next := s.after(c)
	if next.N() != c.Row.N {
		return refuse(BadParam, "n = %d members after it, the proposal says %d", next.N(), c.Row.N)
	}
	if err := next.Validate(s.Params.AllowNoFaultTolerance); err != nil {
		return refuse(BadParam, "%v", err)
	}
	if have, need := s.holders(c), e.M; len(have) < need {
		return refuse(BadParam, "%d members would deal, the present key shares need m = %d", len(have), need)
	}
	fresh := 0
	for _, m := range next.Members {
		if s.Quarantined(m.ID) || !e.Has(m.ID) {
			fresh++
		}
	}
	if most := next.N() - fresh + min(fresh, 1); most < next.M {
		return refuse(BadParam, "%d of %d members would be in quarantine, so at most %d may sign together, m = %d", fresh, next.N(), most, next.M)
	}
	return nil
}

// holders are the members that may deal from the present KeyShares: not who is
// evicted or replaced.
func (s *State) holders(c SeatChange) []MemberID {
	return slices.DeleteFunc(memberIDs(s.Epoch()), func(m MemberID) bool { return m == c.Out && c.Kind != ChangeLeave })
}

// after is the epoch that a change leads to, without a number.
func (s *State) after(c SeatChange) Epoch {
	next := Epoch{F: c.Row.F, M: c.Row.M, FactQuorum: c.Row.FactQuorum}
	for _, m := range s.Epoch().Members {
		if m.ID != c.Out {
			next.Members = append(next.Members, m)
		}
	}
	if c.In != nil {
		next.Members = append(next.Members, *c.In)
	}
	slices.SortFunc(next.Members, func(a, b Member) int { return slices.Compare(a.ID[:], b.ID[:]) })
	return next
}

// carryOutSeats does what a vote about members decided.
func (x *execution) carryOutSeats(p Proposal) Code {
	s := x.s
	if s.Opening != nil {
		return Timelock // until the flip: nothing is planned, and who counts is about to change
	}
	if r := s.possibleSeats(p); r != nil {
		return r.code
	}
	switch i := s.admitted(p.Seats.Out); {
	case p.Kind == ProposeAbort:
		x.dropNext(DroppedByVote)
	case p.Kind == ProposeRollback:
		x.rollBack(p.Seats.Epoch)
	case p.Kind == ProposeEvict && i >= 0:
		x.emit(Event{Name: "candidate-dropped", Note: p.Seats.Out.String()})
		s.Changes = slices.Delete(slices.Clone(s.Changes), i, i+1)
	default:
		c := p.change()
		c.Since, c.From = s.Millis, s.Millis
		if c.In != nil && !p.Seats.Urgent {
			c.From += s.Params.AdmitSeconds * 1000
		}
		x.queue(c)
	}
	return OK
}

// queue puts a change behind the others, in the place of one about the same
// node. A node admitted again goes on with the quarantine that it began.
func (x *execution) queue(c SeatChange) {
	s := x.s
	list := slices.DeleteFunc(slices.Clone(s.Changes), func(o SeatChange) bool {
		same := c.In != nil && o.In != nil && o.In.ID == c.In.ID
		if same {
			c.Since, c.From = o.Since, min(o.From, c.From)
		}
		return same || o.In == nil && o.Out == c.Out && o.Kind != ChangeRefresh && c.In == nil || o.Kind == ChangeRefresh && c.Kind == ChangeRefresh
	})
	s.Changes = append(list, c)
	note := c.Out
	if c.In != nil {
		note = c.In.ID
	}
	x.emit(Event{Name: "change-" + c.Kind.String(), Note: note.String()})
}

// admitted is where in the queue a node waits for its seat, or -1.
func (s *State) admitted(id MemberID) int {
	return slices.IndexFunc(s.Changes, func(c SeatChange) bool { return c.In != nil && c.In.ID == id })
}

// leave queues a member's own exit.
//
// Why not with any row: one member would set m and f for all. Where the rest of
// the row cannot stay, the others vote to evict who wants to go.
func (x *execution) leave(m MemberID, l Leave) Code {
	s := x.s
	e := s.Epoch()
	if !e.Has(m) {
		return NotAllowed
	}
	c := SeatChange{Kind: ChangeLeave, Out: m, Row: l.Row, Since: s.Millis, From: s.Millis}
	left := s.after(c)
	if l.Row.F != e.F || l.Row.M != e.M || l.Row.FactQuorum != min(e.FactQuorum, left.N()-left.C()) {
		return BadParam
	}
	switch r := s.possibleChange(c); {
	case r != nil:
		return r.code
	case len(s.Changes) >= maxQueued:
		return Limit
	}
	x.queue(c)
	return OK
}

// LeaveRow is the only row with which m may leave by its own word.
func (s *State) LeaveRow(m MemberID) Row {
	e := s.Epoch()
	left := s.after(SeatChange{Out: m, Row: e.Row()})
	return Row{N: left.N(), F: e.F, M: e.M, FactQuorum: min(e.FactQuorum, left.N()-left.C())}
}

// Quarantined reports whether a member took its seat too lately to be trusted
// with more than one signature's part (spec: committee §3.4).
func (s *State) Quarantined(m MemberID) bool { return s.Quarantine.at(m.String()) > s.Millis }

// QuarantineUntil is when the last quarantine ends, ledger time in ms; 0: nobody
// is in quarantine.
func (s *State) QuarantineUntil() (until uint64) {
	for _, u := range s.Quarantine.all() {
		if u > s.Millis {
			until = max(until, u)
		}
	}
	return until
}

// endQuarantines forgets those that are over. Their members' votes count from
// now on.
func (x *execution) endQuarantines() {
	s, ended := x.s, false
	for _, id := range s.Quarantine.keys() {
		if s.Quarantine.at(id) <= s.Millis {
			s.Quarantine.delete(id)
			x.emit(Event{Name: "quarantine-over", Note: id})
			ended = true
		}
	}
	if ended {
		x.countBallots()
	}
}

// present: the ledger heard the member's clock lately.
func (s *State) present(m MemberID) bool {
	seat := s.Seats.at(m.String())
	return seat.Millis+s.Params.PresenceMillis >= s.Millis && seat.Millis <= s.Raw+maxAheadMillis
}

// WaitsFor are the members without whom a queued change cannot be begun now: its
// resharing needs all of the next epoch.
func (s *State) WaitsFor(c SeatChange) []MemberID {
	var absent []MemberID
	for _, m := range s.after(c).Members {
		if !s.present(m.ID) {
			absent = append(absent, m.ID)
		}
	}
	return absent
}

// due says that a change can be begun now. One that needs a silent member waits
// and lets others pass: a session without it would only use up the tries.
func (s *State) due(c SeatChange) bool { return s.WhyWaits(c) == "" }

// WhyWaits says why a queued change is not begun now, with the numbers that
// decide; empty: the next tick may take it.
func (s *State) WhyWaits(c SeatChange) string {
	present := slices.DeleteFunc(s.holders(c), func(m MemberID) bool { return !s.present(m) })
	switch absent := s.WaitsFor(c); {
	case c.Failed != 0:
		return fmt.Sprintf("its epoch was dropped at ledger time %d ms: another vote is needed", c.Failed)
	case c.From > s.Millis:
		return fmt.Sprintf("first quarantine until ledger time %d ms, now %d", c.From, s.Millis)
	case len(absent) > 0:
		return fmt.Sprintf("%d of the %d members after it are not heard, and all are needed", len(absent), s.after(c).N())
	case len(present) < s.Epoch().M:
		return fmt.Sprintf("%d members that may deal are heard, m = %d are needed", len(present), s.Epoch().M)
	}
	return ""
}

// planChange begins the first change that can be done.
func (x *execution) planChange() {
	s := x.s
	i := slices.IndexFunc(s.Changes, s.due)
	if i < 0 {
		return
	}
	c := s.Changes[i]
	list := slices.Delete(slices.Clone(s.Changes), i, i+1)
	if r := s.possibleChange(c); r != nil { // the committee has changed since the vote
		x.emit(Event{Name: "change-void", Note: c.Kind.String() + ": " + r.why})
		if c.In != nil && !s.Epoch().Has(c.In.ID) {
			c.Failed = s.Millis
			list = append(list, c)
		}
		s.Changes = list
		return
	}
	s.Changes = list
	x.planReshares(c)
}
