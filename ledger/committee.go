package ledger

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
)

// TurnLimit is how many turns of one attempt a member joins: four times every
// committee of a 3-of-4 cluster. Then only the deadline helps.
const TurnLimit = 16

// sortedByRank orders members by SHA256("coffer/roster/1" ‖ At ‖ batch ‖ attempt ‖ member):
// an order nobody chose (spec: signing §3).
func sortedByRank(members []Member, at Hash, batch, attempt uint64) []MemberID {
	type ranked struct {
		id   MemberID
		rank Hash
	}
	rs := make([]ranked, len(members))
	for i, m := range members {
		b := append([]byte("coffer/roster/1"), at[:]...)
		b = binary.BigEndian.AppendUint64(b, batch)
		b = binary.BigEndian.AppendUint64(b, attempt)
		rs[i] = ranked{m.ID, sha256.Sum256(append(b, m.ID[:]...))}
	}
	slices.SortFunc(rs, func(a, b ranked) int { return slices.Compare(a.rank[:], b.rank[:]) })
	ids := make([]MemberID, len(rs))
	for i, r := range rs {
		ids[i] = r.id
	}
	return ids
}

// Committee returns the members of one turn: the turn-th m-combination of the
// roster in lexicographic order of positions, beginning again after the last.
// The result is sorted by id.
//
// Combinations with two members in quarantine are left out; no epoch is planned in
// which no other is left.
func (a Attempt) Committee(turn uint64) []MemberID {
	round := a.round()
	if len(round) == 0 {
		return nil
	}
	return a.combination(round[turn%uint64(len(round))])
}

// NextTurn is the lowest turn from at on whose committee fits; false: none of the
// round does, and at it is. It looks at each committee once: where c of n are
// missing the only one left may be the last (at 7 of 10 the 120th).
func (a Attempt) NextTurn(at uint64, fits func(committee []MemberID) bool) (turn uint64, ok bool) {
	round := a.round()
	size := uint64(len(round))
	for t := at; t < at+size; t++ {
		if fits(a.combination(round[t%size])) {
			return t, true
		}
	}
	return at, false
}

// LastTurn is the highest that a member reaches which joins TurnLimit turns and
// passes over at most a whole round before each: what is above it is no honest
// member's.
func (a Attempt) LastTurn() uint64 { return TurnLimit * uint64(len(a.round())) }

// round lists the combinations that turns go through, again and again.
func (a Attempt) round() []uint64 {
	all := binomial(len(a.Roster), a.M)
	fit := make([]uint64, 0, all)
	for k := range all {
		if len(a.Fresh) < 2 || a.fresh(k) < 2 {
			fit = append(fit, k)
		}
	}
	return fit
}

// fresh counts the members of a combination that are in quarantine.
func (a Attempt) fresh(k uint64) (n int) {
	for _, id := range a.combination(k) {
		if slices.Contains(a.Fresh, id) {
			n++
		}
	}
	return n
}

func (a Attempt) combination(k uint64) []MemberID {
	n, m := len(a.Roster), a.M
	ids := make([]MemberID, 0, m)
	for pos := 0; len(ids) < m; pos++ {
		with := binomial(n-pos-1, m-len(ids)-1) // combinations that take pos
		if k < with {
			ids = append(ids, a.Roster[pos])
		} else {
			k -= with
		}
	}
	slices.SortFunc(ids, func(a, b MemberID) int { return slices.Compare(a[:], b[:]) })
	return ids
}

// binomial is exact for the at most 10 members there are.
func binomial(n, k int) uint64 {
	if k < 0 || k > n {
		return 0
	}
	r := uint64(1)
	for i := range k {
		r = r * uint64(n-i) / uint64(i+1)
	}
	return r
}
