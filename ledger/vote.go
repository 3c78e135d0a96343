package ledger

import (
	"cmp"
	"slices"
)

// Vote is a member's word about a proposal. The first one brings the proposal
// itself; it is a yes.
type Vote struct {
	Hash     Hash      `cbor:"1,keyasint"`
	Yes      bool      `cbor:"2,keyasint"`
	Proposal *Proposal `cbor:"3,keyasint,omitempty"`
}

// Ballot is a proposal on its way.
//
//	open ──quorum──► waiting ──Due──► over (done, or refused at that moment)
//	  │ └─quorum, twice needed─► open again, votes empty, First set
//	  └─ProposalSeconds, or nobody for it──► over (expired, withdrawn)
//
// What falls in steps waits again after each, until nothing is Left.
type Ballot struct {
	Proposal Proposal   `cbor:"1,keyasint"`
	By       MemberID   `cbor:"2,keyasint"` // who brought it
	Opened   uint64     `cbor:"3,keyasint"` // ledger time, ms
	Yes      []MemberID `cbor:"4,keyasint"` // sorted
	No       []MemberID `cbor:"5,keyasint"` // sorted
	First    uint64     `cbor:"6,keyasint"` // when the first of two quorums was reached; 0: not yet, or one suffices
	Passed   uint64     `cbor:"7,keyasint"` // when it counted; 0: open
	Delay    uint64     `cbor:"8,keyasint"` // ms it had to wait from then on
	Due      uint64     `cbor:"9,keyasint"` // ledger time when it takes effect, or its next step does
	Left     []Change   `cbor:"10,keyasint"`
	Stepping bool       `cbor:"11,keyasint"` // at least one step was made
}

// Decided is a proposal that is over.
type Decided struct {
	Proposal Proposal `cbor:"1,keyasint"`
	By       MemberID `cbor:"2,keyasint"`
	Millis   uint64   `cbor:"3,keyasint"` // ledger time
	How      string   `cbor:"4,keyasint"` // "done", "refused", "expired", "withdrawn"
	Code     Code     `cbor:"5,keyasint"` // of refused: why
}

// How a proposal ended.
const (
	DecidedDone      = "done"
	DecidedRefused   = "refused" // it had become impossible when its time came
	DecidedExpired   = "expired"
	DecidedWithdrawn = "withdrawn" // nobody was for it any more
)

// Limits of votes. A member's share is small, so that none can use up what all
// have; ten members make forty, the rest is for what waits or falls in steps.
const (
	maxOpenByMember = 4
	maxBallots      = 64
	maxDecided      = 32
)

// vote counts a member's word: NOT_ALLOWED from who is no member, about what is
// not open, or against what already counted; TIMELOCK for a second quorum
// before its time; LIMIT; or why the proposal is not possible.
func (x *execution) vote(m MemberID, v Vote) Code {
	s := x.s
	if !s.Epoch().Has(m) {
		return NotAllowed
	}
	key := v.Hash.String()
	b, open := s.Ballots.get(key)
	if v.Proposal != nil && (v.Proposal.Hash() != v.Hash || !v.Proposal.wellFormed() || !open && !v.Yes) {
		return Malformed
	}
	if !open {
		if v.Proposal == nil {
			return NotAllowed
		}
		if code := s.mayPropose(m); code != OK {
			return code
		}
		if code := s.possible(*v.Proposal); code != OK {
			return code
		}
		b = Ballot{Proposal: *v.Proposal, By: m, Opened: s.Millis, Left: v.Proposal.Changes}
		x.emit(Event{Name: "proposal", Note: key})
	}
	switch {
	case b.Passed != 0 && !v.Yes:
		return NotAllowed // it counted: whoever regrets it proposes the contrary
	case v.Yes && b.First != 0 && s.Millis < b.First+s.Params.SocialiseSeconds*1000:
		return Timelock
	case v.Yes:
		b.Yes, b.No = withMember(b.Yes, m), without(b.No, m)
	default:
		b.Yes, b.No = without(b.Yes, m), withMember(b.No, m)
	}
	s.Ballots.put(key, b)
	if len(b.Yes) == 0 && b.First == 0 {
		x.decide(key, DecidedWithdrawn, OK)
		return OK
	}
	x.count(key)
	return OK
}

// mayPropose bounds what is open at once.
func (s *State) mayPropose(m MemberID) Code {
	own := 0
	for _, b := range s.Ballots.all() {
		if b.By == m && b.Passed == 0 {
			own++
		}
	}
	if own >= maxOpenByMember || s.Ballots.len() >= maxBallots {
		return Limit
	}
	return OK
}

// count tests a ballot against its quorum: at each vote and at each flip. Only
// members of the epoch in force count, whoever voted before them.
func (x *execution) count(key string) {
	s := x.s
	b, t := s.Ballots.at(key), s.Terms(s.Ballots.at(key).Proposal)
	yes := 0
	for _, m := range b.Yes {
		if s.mayDecide(m, b.Proposal) {
			yes++
		}
	}
	if b.Passed != 0 || yes < t.Quorum {
		return
	}
	if t.Twice && b.First == 0 {
		b.First, b.Yes, b.No = s.Millis, nil, nil
		s.Ballots.put(key, b)
		x.emit(Event{Name: "proposal-first", Note: key})
		return
	}
	b.Passed, b.Delay, b.Due = s.Millis, t.DelayMillis, s.Millis+t.DelayMillis
	s.Ballots.put(key, b)
	x.emit(Event{Name: "proposal-passed", Note: key})
	if t.DelayMillis == 0 {
		x.effect(key)
	}
}

// mayDecide says whose yes counts: a member's of the epoch in force that is not
// in quarantine; about an eviction a member's in quarantine too, and never the
// target's (spec: committee §3.4, §9).
func (s *State) mayDecide(m MemberID, p Proposal) bool {
	if !s.Epoch().Has(m) {
		return false
	}
	if p.Kind == ProposeEvict {
		return m != p.Seats.Out
	}
	return !s.Quarantined(m)
}

// countBallots tests all that are open anew: an epoch has flipped, and with it
// who counts and how many are needed.
func (x *execution) countBallots() {
	for _, key := range x.s.Ballots.keys() {
		x.count(key)
	}
}

// dueBallots ends what has expired and carries out what is due, oldest first.
func (x *execution) dueBallots() {
	s := x.s
	type due struct {
		at  uint64
		key string
	}
	var list []due
	for _, key := range s.Ballots.keys() {
		switch b := s.Ballots.at(key); {
		case b.Passed != 0 && b.Due <= s.Millis:
			list = append(list, due{b.Due, key})
		case b.Passed == 0 && b.Opened+s.Params.ProposalSeconds*1000 <= s.Millis:
			x.decide(key, DecidedExpired, OK)
		}
	}
	slices.SortFunc(list, func(a, b due) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.key, b.key)) })
	for _, d := range list {
		x.effect(d.key)
	}
}

// effect carries a ballot out. It has a guard of its own: a proposal that
// breaks is over, like one that is refused, or it would break again at every
// tick.
func (x *execution) effect(key string) {
	b := x.s.Ballots.at(key)
	var left []Change
	var next uint64
	code := x.guard("vote", func(x *execution) Code {
		return x.try(func(x *execution) (code Code) {
			left, next, code = x.carryOut(b)
			return code
		})
	})
	s := x.s
	switch {
	case code == Timelock:
		b.Due = next
		s.Ballots.put(key, b)
		return
	case code != OK:
		x.decide(key, DecidedRefused, code)
		return
	}
	s.ParamsVersion++
	if len(left) == 0 {
		x.decide(key, DecidedDone, OK)
		return
	}
	b.Left, b.Due, b.Stepping = left, next, true
	s.Ballots.put(key, b)
	x.emit(Event{Name: "proposal-step", Note: key})
}

func (x *execution) decide(key, how string, code Code) {
	s := x.s
	b := s.Ballots.at(key)
	s.Ballots.delete(key)
	list := append(slices.Clip(s.Decided), Decided{Proposal: b.Proposal, By: b.By, Millis: s.Millis, How: how, Code: code})
	s.Decided = list[max(0, len(list)-maxDecided):]
	x.emit(Event{Name: "proposal-" + how, Note: key})
}

func without(ms []MemberID, m MemberID) []MemberID {
	return slices.DeleteFunc(slices.Clone(ms), func(x MemberID) bool { return x == m })
}
