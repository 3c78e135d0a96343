package ledger

import (
	"fmt"
	"slices"
)

// The next epoch of a cluster that has keys: every key is reshared to its
// members in sessions that the ledger plans like everything else. The public
// keys stay, so every address stays (spec: signing §7).

// NextKind says how the KeyShares of the next epoch come about.
type NextKind uint8

const (
	NextKeygen   NextKind = 0 // new keys: the first epoch with any
	NextReshare  NextKind = 1 // the present keys, dealt anew
	NextRollback NextKind = 2 // an older generation, as it lies in the keystores
)

// MaxReshareTries of one key for one epoch number (spec: committee §3.2).
const MaxReshareTries = 3

// EpochInfo is what is kept of an epoch in force or past beside its members.
type EpochInfo struct {
	Flipped uint64       `cbor:"1,keyasint"` // ledger time when it came into force, ms
	Height  uint64       `cbor:"2,keyasint"` // of that command
	Kind    NextKind     `cbor:"3,keyasint"`
	Evicted bool         `cbor:"4,keyasint"` // the epoch before lost a member by eviction
	Keys    []Generation `cbor:"5,keyasint"` // KeyShares that it signs with, sorted by key
	Tests   []uint64     `cbor:"6,keyasint"` // batches of its test signatures that are not made yet
	Proven  uint64       `cbor:"7,keyasint"` // height at which every member had taken part in one, of every key; 0: not yet
	Drills  []Drilled    `cbor:"8,keyasint"` // told while it was in force, oldest first
}

// Generation names KeyShares of one key: those that one session made.
type Generation struct {
	Key   string `cbor:"1,keyasint"`
	Epoch uint64 `cbor:"2,keyasint"`
	Try   uint64 `cbor:"3,keyasint"`
}

func (g Generation) String() string { return fmt.Sprintf("%s/%d/%d", g.Key, g.Epoch, g.Try) }

// Dropped is an epoch number that was used up and led to nothing.
type Dropped struct {
	Epoch   uint64     `cbor:"1,keyasint"`
	Kind    ChangeKind `cbor:"2,keyasint"`
	How     string     `cbor:"3,keyasint"`
	Millis  uint64     `cbor:"4,keyasint"` // ledger time
	Missing []MemberID `cbor:"5,keyasint"` // who was not ready for every key, sorted
	Blamed  []MemberID `cbor:"6,keyasint"` // whom members named when they gave up, sorted: a hint, never proof
}

// Why an epoch number led to nothing.
const (
	DroppedByVote     = "vote"
	DroppedByDeadline = "deadline"
	DroppedByTries    = "tries"
	DroppedByRollback = "rollback"
)

// maxDropped are kept, for whoever looks what went wrong.
const maxDropped = 16

// planReshares begins the next epoch.
func (x *execution) planReshares(c SeatChange) {
	s := x.s
	s.LastEpoch++
	next := s.after(c)
	next.Number = s.LastEpoch
	n := &NextEpoch{Epoch: next, Kind: NextReshare, Began: s.Millis, Deadline: s.Millis + s.Params.ReshareSeconds*1000, Change: &c}
	for _, k := range s.Keys.keys() {
		n.Keys = append(n.Keys, NextKey{Key: k})
	}
	s.Next = n
	x.emit(Event{Name: "epoch-planned", Note: fmt.Sprintf("%d %s", next.Number, c.Kind)})
	for i := range n.Keys {
		x.planReshare(i)
	}
}

// planReshare plans a key's next try, or drops the epoch if there is none left.
func (x *execution) planReshare(i int) {
	s := x.s
	n, k := s.Next, s.Next.Keys[i]
	switch {
	case s.Millis >= n.Deadline:
		x.dropNext(DroppedByDeadline)
		return
	case k.Try >= MaxReshareTries:
		x.dropNext(DroppedByTries)
		return
	}
	x.planTry(i, BatchReshare, Attempt{
		Deadline: min(s.Millis+s.Params.TrySeconds*1000, n.Deadline), Dealers: s.dealers(k.Batch, k.Try+1),
	})
}

// dealers are the m members that hold the present KeyShares and deal: not who is
// to go by eviction or is replaced, those heard lately first, another order each
// try.
func (s *State) dealers(batch, try uint64) []MemberID {
	holders := s.holders(*s.Next.Change)
	ids := slices.DeleteFunc(s.roster(s.Epoch(), batch, try), func(m MemberID) bool { return !slices.Contains(holders, m) })
	ids = ids[:min(s.Epoch().M, len(ids))]
	slices.SortFunc(ids, func(a, b MemberID) int { return slices.Compare(a[:], b[:]) })
	return ids
}

// lateReshare drops what is past its deadline.
func (x *execution) lateReshare() {
	if n := x.s.Next; n != nil && n.Kind == NextReshare && x.s.Millis >= n.Deadline {
		x.dropNext(DroppedByDeadline)
	}
}

// dropNext gives up the epoch that is being prepared. Its number is used up; who
// was to come in stays admitted and waits for another vote.
func (x *execution) dropNext(how string) {
	s := x.s
	n := s.Next
	d := Dropped{Epoch: n.Epoch.Number, Kind: n.Change.Kind, How: how, Millis: s.Millis}
	for _, k := range n.Keys {
		s.closeBatch(k.Batch)
		for _, t := range k.Tests {
			s.closeBatch(t)
		}
		for _, m := range n.Epoch.Members {
			if !slices.Contains(k.Ready, m.ID) {
				d.Missing = withMember(d.Missing, m.ID)
			}
		}
		for _, m := range k.Blamed {
			d.Blamed = withMember(d.Blamed, m)
		}
	}
	if c := *n.Change; c.In != nil {
		c.Failed = s.Millis
		s.Changes = append(slices.Clip(s.Changes), c)
	}
	list := append(slices.Clip(s.Dropped), d)
	s.Dropped = list[max(0, len(list)-maxDropped):]
	s.Next = nil
	x.emit(Event{Name: "epoch-dropped", Note: fmt.Sprintf("%d %s", d.Epoch, how)})
}

// mayRollBack: only soon after a flip by resharing, and not after an eviction,
// since then nothing of the epoch before is wiped (spec: committee §4).
//
// Why the ledger does not ask for m failed sessions: turns never touch the log,
// so Q members judge that.
func (s *State) mayRollBack(c Seats) *refusal {
	n := len(s.Epochs)
	if n < 3 {
		return refuse(BadParam, "there is no epoch with keys before epoch %d", s.Epoch().Number)
	}
	e, info := s.Epochs[n-2], s.Infos.at(s.Epoch().Number)
	end := info.Flipped + s.Params.RollbackSeconds*1000
	switch {
	case c.Epoch != e.Number:
		return refuse(BadParam, "epoch %d is not the one before: that is %d", c.Epoch, e.Number)
	case info.Kind != NextReshare:
		return refuse(BadParam, "epoch %d is itself a rollback", s.Epoch().Number)
	case info.Evicted:
		return refuse(NotAllowed, "epoch %d evicted a member: there is no way back", s.Epoch().Number)
	case s.Millis >= end:
		return refuse(NotAllowed, "epoch %d came into force at ledger time %d ms; the way back closed at %d, now %d", s.Epoch().Number, info.Flipped, end, s.Millis)
	case c.Row != e.Row():
		return refuse(BadParam, "the row of epoch %d is %+v, the proposal says %+v", e.Number, e.Row(), c.Row)
	}
	for _, g := range s.Infos.at(e.Number).Keys {
		if wiped := s.Wiped.at(g.String()); len(wiped) > 0 {
			return refuse(NotAllowed, "%d members have wiped their key shares %s", len(wiped), g)
		}
	}
	return nil
}

// rollBack opens the next epoch number with the members and KeyShares of the
// epoch before. It needs the flip certificate of the epoch in force as ever.
//
// Why no test signatures first: that generation signed before, and the new one
// may be unable to sign at all. Nothing is wiped before they are made.
func (x *execution) rollBack(to uint64) {
	s := x.s
	if s.Next != nil {
		x.dropNext(DroppedByRollback)
	}
	s.LastEpoch++
	next, _ := s.epochNumber(to)
	next.Number = s.LastEpoch
	c := SeatChange{Kind: ChangeRollback, Row: next.Row(), Since: s.Millis, From: s.Millis}
	n := &NextEpoch{Epoch: next, Kind: NextRollback, Began: s.Millis, Change: &c}
	for _, g := range s.Infos.at(to).Keys {
		n.Keys = append(n.Keys, NextKey{Key: g.Key, Epoch: g.Epoch, Try: g.Try, Pub: s.Keys.at(g.Key).Pub})
	}
	s.Next = n
	s.Opening = &Opening{Epoch: next}
	x.emit(Event{Name: "epoch-opened", Note: fmt.Sprintf("%d %s", next.Number, c.Kind)})
}

// enter is what changes beside the keys when an epoch comes into force.
func (x *execution) enter(old Epoch, n *NextEpoch) {
	s := x.s
	e := n.Epoch
	if old.Number != 0 {
		before := s.Infos.at(old.Number)
		for _, t := range before.Tests { // of KeyShares that no new attempt uses
			s.closeBatch(t)
		}
		before.Tests = nil
		s.Infos.put(old.Number, before)
	}
	info := EpochInfo{Flipped: s.Millis, Height: s.Height + 1, Kind: n.Kind, Evicted: n.Change != nil && n.Change.Kind == ChangeEvict}
	for _, k := range n.Keys {
		info.Keys = append(info.Keys, Generation{Key: k.Key, Epoch: k.Epoch, Try: k.Try})
	}
	s.Infos.put(e.Number, info)
	for _, id := range s.Quarantine.keys() {
		if !slices.ContainsFunc(e.Members, func(m Member) bool { return m.ID.String() == id }) {
			s.Quarantine.delete(id)
		}
	}
	for _, m := range e.Members {
		if !s.Seats.has(m.ID.String()) {
			s.Seats.put(m.ID.String(), Seat{})
		}
		if n.Kind == NextReshare && !old.Has(m.ID) {
			s.Quarantine.put(m.ID.String(), s.Millis+s.Params.SeatSeconds*1000)
		}
	}
	s.Changes = slices.DeleteFunc(slices.Clone(s.Changes), func(c SeatChange) bool {
		return c.In != nil && e.Has(c.In.ID) || c.In == nil && c.Out != MemberID{} && !e.Has(c.Out)
	})
	s.forgetBlamed()
	s.dropTallies()
}

// dropTallies forgets every open tally when who counts and how many are needed
// changes: members say again what the ledger has not heard from them.
//
// Why not count them again: a tally holds the hash of its fact, so one that a
// lower quorum completes could not be carried out, and nobody would say it twice.
func (s *State) dropTallies() {
	for _, key := range s.Tally.keys() {
		s.dropTally(key)
	}
}

// tested notes that an active test signature is made.
func (x *execution) tested(batch uint64) {
	s := x.s
	e := s.Epoch().Number
	info := s.Infos.at(e)
	i := slices.Index(info.Tests, batch)
	if i < 0 {
		return
	}
	info.Tests = slices.Delete(slices.Clone(info.Tests), i, i+1)
	if len(info.Tests) == 0 {
		info.Proven = s.Height + 1
		x.emit(Event{Name: "epoch-proven", Note: fmt.Sprint(e)})
	}
	s.Infos.put(e, info)
}
