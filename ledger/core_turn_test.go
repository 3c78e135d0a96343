package ledger

import (
	"fmt"
	"slices"
	"testing"
)

// At 7 of 10 whichever three are missing, from whichever turn, the next turn
// without them is found within one round, it is the lowest, and sixteen such turns
// one after the other stay within what peers believe. Seen failing with a look of 16
// turns ahead ("without [0 1 2] from turn 0, joined 0: none") and with LastTurn 32
// ("turn 119 is above the last, 32").
func TestNextTurnFindsTheOnlyCommitteeLeft(t *testing.T) {
	a := Attempt{M: 7}
	for i := range 10 {
		a.Roster = append(a.Roster, MemberID{byte(i)})
	}
	for x := range 10 {
		for y := range x {
			for z := range y {
				missing := []MemberID{{byte(z)}, {byte(y)}, {byte(x)}}
				fits := func(committee []MemberID) bool {
					return !slices.ContainsFunc(committee, func(m MemberID) bool { return slices.Contains(missing, m) })
				}
				at := uint64(0)
				for joined := range TurnLimit {
					turn, ok := a.NextTurn(at, fits)
					where := fmt.Sprintf("without %v from turn %d, joined %d", []int{z, y, x}, at, joined)
					switch {
					case !ok:
						t.Fatalf("%s: none", where)
					case !fits(a.Committee(turn)) || len(a.Committee(turn)) != 7:
						t.Fatalf("%s: turn %d is %v", where, turn, a.Committee(turn))
					case turn > a.LastTurn():
						t.Fatalf("%s: turn %d is above the last, %d", where, turn, a.LastTurn())
					}
					for u := at; u < turn; u++ {
						if fits(a.Committee(u)) {
							t.Fatalf("%s: turn %d was passed over for %d", where, u, turn)
						}
					}
					at = turn + 1
				}
			}
		}
	}
	if turn, ok := a.NextTurn(5, func([]MemberID) bool { return false }); ok || turn != 5 {
		t.Errorf("where nobody fits: %d, %v", turn, ok)
	}
	if turn, ok := (Attempt{M: 7}).NextTurn(5, func([]MemberID) bool { return true }); ok || turn != 5 {
		t.Errorf("without a roster: %d, %v", turn, ok)
	}
}
