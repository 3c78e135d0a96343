package ledger

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Culprits (spec: signing §10). What a member of a session signed and no honest
// party signs convinces whoever reads it, so every member that has verified the
// evidence says Blame, and at f+1 words, one of them honest, the member is
// blamed: for Params.BlameSeconds it stands last in every new roster. It loses
// nothing else. Eviction is a vote.
//
//	      f+1 words                         BlameSeconds without another proof
//	——————————————► blamed, last in rosters ————————————————————————————————► as before, its row stays
//	                  ▲        │ another session, f+1 words
//	                  └────────┘

const (
	// maxBlameAttempts is how far behind the newest attempt of its batch a blamed
	// session may be: one retry may come between a proof and the order of the
	// words about it.
	maxBlameAttempts = 1
	// maxBlameMillis is how long after its attempt was planned a session may be
	// blamed: an attempt lasts an hour at most, and whoever was away for another
	// still says what it verified.
	maxBlameMillis = 2 * maxAttemptMillis
	// blameEveryMillis: one proof a minute counts. A traitor signs as many bad
	// envelopes as it likes, and n words about each would fill the log; what a
	// second one in the same minute would change is nothing.
	blameEveryMillis = 60_000
	maxCheckName     = 3
)

// Blame says that its sender verified evidence against a member.
type Blame struct {
	Member   MemberID `cbor:"1,keyasint"` // the culprit
	Evidence Hash     `cbor:"2,keyasint"` // SHA-256 over what its sender verified: that of others may be of other envelopes
	Session  Hash     `cbor:"3,keyasint"`
	Round    uint8    `cbor:"4,keyasint"`
	Check    string   `cbor:"5,keyasint"` // that failed, as spec signing §8.2 numbers it; E6: two messages in one slot
	Batch    uint64   `cbor:"6,keyasint"` // of the session
	Attempt  uint64   `cbor:"7,keyasint"`
}

// Culprit is what was proven against a member since it took its seat.
type Culprit struct {
	Count  uint64 `cbor:"1,keyasint"` // proofs that counted, at most one a minute
	Newest Blame  `cbor:"2,keyasint"`
	Millis uint64 `cbor:"3,keyasint"` // ledger time of the newest
	Height uint64 `cbor:"4,keyasint"` // LogIndex of the newest
}

// thing is what the words of members have in common: that a session failed by this
// member. Which of its envelopes showed it first differs, where it sent every party
// another bad one.
func (f Blame) thing() Blame {
	f.Evidence, f.Round, f.Check = Hash{}, 0, ""
	return f
}

// blame counts a member's word against another.
func (x *execution) blame(m MemberID, f Blame) Code {
	s := x.s
	if code := s.blameCode(f); code != OK {
		return code
	}
	id := f.Member.String()
	row := s.Blamed.at(id)
	if s.alreadyBlamed(row, f) {
		return OK
	}
	if !x.fact(m, KindBlame, f.thing(), s.Epoch().F+1) {
		return OK
	}
	s.Blamed.put(id, Culprit{Count: row.Count + 1, Newest: f, Millis: s.Millis, Height: s.Height + 1})
	x.emit(Event{Name: "blame", Batch: f.Batch, Note: fmt.Sprintf("%s %s %d %s", f.Member, f.Check, f.Round, f.Session)})
	return OK
}

// blameCode is why a word does not count: MALFORMED, what names no session that
// can have been; NOT_ALLOWED, the culprit holds no seat; EXPIRED, the session is
// one of long ago, whose words were said then.
func (s *State) blameCode(f Blame) Code {
	b, ok := s.Batches.get(f.Batch)
	if !ok || f.Attempt > b.Newest().K || !checkName(f.Check) || f.Session == (Hash{}) {
		return Malformed
	}
	if !s.Epoch().Has(f.Member) {
		return NotAllowed
	}
	if a := b.Newest(); f.Attempt+maxBlameAttempts < a.K || a.Millis+maxBlameMillis < s.Millis {
		return Expired
	}
	return OK
}

// checkName: a letter and a number.
func checkName(c string) bool {
	return len(c) >= 2 && len(c) <= maxCheckName && c[0] >= 'A' && c[0] <= 'Z' && strings.Trim(c[1:], "0123456789") == ""
}

func (s *State) alreadyBlamed(row Culprit, f Blame) bool {
	return row.Count > 0 && (row.Newest.Session == f.Session || row.Millis+blameEveryMillis > s.Millis)
}

// AwaitsBlame reports whether m's word would count now, and has not been heard.
func (s *State) AwaitsBlame(m MemberID, f Blame) bool {
	return s.Epoch().Has(m) && s.blameCode(f) == OK && !s.alreadyBlamed(s.Blamed.at(f.Member.String()), f) && !s.Heard(m, KindBlame, f.thing())
}

// LastUntil is the ledger time, ms, until which a member stands last in new
// rosters for what was proven against it; 0: it does not.
func (s *State) LastUntil(m MemberID) uint64 {
	row, ok := s.Blamed.get(m.String())
	if until := row.Millis + s.Params.BlameSeconds*1000; ok && until > s.Millis {
		return until
	}
	return 0
}

// PassedOver lists who stood last in the rosters of the time when a was planned
// for what had been proven against it.
func (s *State) PassedOver(a Attempt) []MemberID {
	var out []MemberID
	for _, m := range a.Roster {
		if row, ok := s.Blamed.get(m.String()); ok && row.Height < a.Height && row.Millis+s.Params.BlameSeconds*1000 > a.Millis {
			out = append(out, m)
		}
	}
	return out
}

// forgetBlamed drops the rows of who holds no seat any more. Who stays keeps
// its row, with new KeyShares too: they are not what failed.
func (s *State) forgetBlamed() {
	for _, id := range s.Blamed.keys() {
		if !slices.ContainsFunc(s.Epoch().Members, func(m Member) bool { return m.ID.String() == id }) {
			s.Blamed.delete(id)
		}
	}
}

// checkBlamed: a row is of a member, and by words that could count.
func (s *State) checkBlamed() error {
	for id, r := range s.Blamed.all() {
		if r.Newest.Member.String() != id || !s.Epoch().Has(r.Newest.Member) {
			return fmt.Errorf("%s is blamed and no member", id)
		}
		if r.Count == 0 || !checkName(r.Newest.Check) || !s.Batches.has(r.Newest.Batch) || r.Millis > s.Millis || r.Height > s.Height {
			return fmt.Errorf("%s is blamed by %+v", id, r)
		}
	}
	if s.Blamed.len() > MaxMembers {
		return errors.New("more are blamed than there are seats")
	}
	return nil
}
