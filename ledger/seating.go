package ledger

import "slices"

// SeatState is where a node stands in the committee's life cycle (spec:
// committee §3). It follows from the rest of the state.
type SeatState string

const (
	SeatCandidate SeatState = "candidate" // named in an open vote
	SeatAdmitted  SeatState = "admitted"  // follows the log, holds nothing
	SeatResharing SeatState = "resharing" // of the epoch that is being prepared or opened
	SeatActive    SeatState = "active"    // of the epoch in force
	SeatLeaving   SeatState = "leaving"   // of it, and not of the next
	SeatRetired   SeatState = "retired"   // was a member
)

// Seating is a node and where it stands.
type Seating struct {
	Member Member
	State  SeatState
	Until  uint64 // Active: ledger time when its quarantine ends; Admitted: when the first one does; ms, 0: none
	Epoch  uint64 // Active, Leaving: the one in force; Resharing: the next; Retired: its last
}

// Seating lists everybody who is, was or may become a member: those of the epoch
// in force first, in the order of their ids.
func (s *State) Seating() []Seating {
	e := s.Epoch()
	var out []Seating
	for _, m := range e.Members {
		at := Seating{Member: m, State: SeatActive, Epoch: e.Number}
		if s.goes(m.ID) {
			at.State = SeatLeaving
		}
		if s.Quarantined(m.ID) {
			at.Until = s.Quarantine.at(m.ID.String())
		}
		out = append(out, at)
	}
	known := func(id MemberID) bool {
		return slices.ContainsFunc(out, func(o Seating) bool { return o.Member.ID == id })
	}
	add := func(o Seating) {
		if !known(o.Member.ID) {
			out = append(out, o)
		}
	}
	if s.Next != nil {
		for _, m := range s.Next.Epoch.Members {
			add(Seating{Member: m, State: SeatResharing, Epoch: s.Next.Epoch.Number})
		}
	}
	for _, c := range s.Changes {
		if c.In != nil {
			add(Seating{Member: *c.In, State: SeatAdmitted, Until: c.From})
		}
	}
	for _, b := range s.Ballots.all() {
		if c := b.Proposal.Seats; c != nil && c.In != nil && b.Passed == 0 {
			add(Seating{Member: *c.In, State: SeatCandidate, Until: b.Opened + s.Params.ProposalSeconds*1000})
		}
	}
	for i := len(s.Epochs) - 2; i >= 0; i-- {
		for _, m := range s.Epochs[i].Members {
			add(Seating{Member: m, State: SeatRetired, Epoch: s.Epochs[i].Number})
		}
	}
	return out
}

// goes: a change that was decided takes the member's seat.
func (s *State) goes(m MemberID) bool {
	if s.Next != nil && !s.Next.Epoch.Has(m) {
		return true
	}
	return slices.ContainsFunc(s.Changes, func(c SeatChange) bool { return c.Out == m && (c.Kind == ChangeLeave || c.Kind == ChangeEvict) })
}

// Followers are the nodes without a seat that get the log: admitted ones, those of
// the epoch being prepared, and who left by its own word or was replaced, until
// it has said that its KeyShares are wiped: a rollback would call it back, and
// without the log it never learns that it may wipe them. Raft has them as
// non-voters, and nobody else but the members.
func (s *State) Followers() []Member {
	var out []Member
	add := func(m Member) {
		if !s.Epoch().Has(m.ID) && !slices.ContainsFunc(out, func(o Member) bool { return o.ID == m.ID }) {
			out = append(out, m)
		}
	}
	for _, c := range s.Changes {
		if c.In != nil {
			add(*c.In)
		}
	}
	if s.Next != nil {
		for _, m := range s.Next.Epoch.Members {
			add(m)
		}
	}
	for i := len(s.Epochs) - 2; i > 0; i-- { // whatever came into force since: its own flip counts
		lost := s.Infos.at(s.Epochs[i+1].Number)
		if s.Millis >= lost.Flipped+2*s.Params.RollbackSeconds*1000 {
			break // one that is dead, or gone for good, says nothing
		}
		for _, m := range s.Epochs[i].Members {
			if s.lastSeat(m.ID) == i && !lost.Evicted && s.holdsShares(m.ID) {
				add(m)
			}
		}
	}
	return out
}

// Evicted reports whether a node lost its last seat by eviction. It is cut off
// with the flip, and not even followed any more.
func (s *State) Evicted(m MemberID) bool {
	i := s.lastSeat(m)
	return i >= 0 && i < len(s.Epochs)-1 && s.Infos.at(s.Epochs[i+1].Number).Evicted
}

// lastSeat is the newest epoch that came into force with m, or -1.
func (s *State) lastSeat(m MemberID) int {
	i := len(s.Epochs) - 1
	for i >= 0 && !s.Epochs[i].Has(m) {
		i--
	}
	return i
}

// holdsShares: the ledger has not heard of every generation that m held that it
// wiped it.
func (s *State) holdsShares(m MemberID) bool {
	return slices.ContainsFunc(s.Epochs, func(e Epoch) bool {
		return e.Has(m) && slices.ContainsFunc(s.Infos.at(e.Number).Keys, func(g Generation) bool { return !s.HasWiped(m, g) })
	})
}

// MaySay is maySay for whoever decides what to say.
func (s *State) MaySay(m MemberID, k Kind) bool { return s.maySay(m, k) }

// maySay is which kinds are taken from whom. A node without a seat says its clock,
// one of the next epoch what the next epoch needs, and who was a member that its
// KeyShares are gone. Which of it counts is for each kind to say.
func (s *State) maySay(m MemberID, k Kind) bool {
	if s.Epoch().Has(m) {
		return true
	}
	if s.Next != nil && s.Next.Epoch.Has(m) {
		switch k {
		case KindClock, KindShareReady, KindTestSig, KindGaveUp, KindFlip:
			return true
		}
	}
	switch k {
	case KindClock:
		return s.admitted(m) >= 0
	case KindWiped:
		return slices.ContainsFunc(s.Epochs, func(e Epoch) bool { return e.Has(m) })
	}
	return false
}
