package api

import (
	"testing"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node/api/client"
)

// What an operator leaves out of a row is filled in so that it can be: a lower f
// leaves fewer members who are sure to answer, and the FactQuorum falls with it.
// Seen failing with FactQuorum filled in before f is known: "fact quorum 3, want 1
// to 2".
func TestRowLeftOut(t *testing.T) {
	e := ledger.Epoch{Number: 4, F: 1, M: 3, FactQuorum: 3}
	for i := range byte(4) {
		e.Members = append(e.Members, ledger.Member{ID: ledger.MemberID{i + 1}, Name: string(rune('a' + i)), Operator: string(rune('A' + i))})
	}
	v := view{&ledger.State{Epochs: []ledger.Epoch{{}, e}}}
	num := func(i int) *int { return &i }
	for _, x := range []struct {
		kind ledger.ProposalKind
		word string
		out  string
		row  *client.Row
		want ledger.Row
	}{
		{ledger.ProposeEvict, "evict", "d", &client.Row{M: num(2), F: num(0)}, ledger.Row{N: 3, M: 2, F: 0, FactQuorum: 2}},
		{ledger.ProposeEvict, "evict", "d", nil, ledger.Row{N: 3, M: 3, F: 1, FactQuorum: 3}},
		{ledger.ProposeRefresh, "refresh", "", &client.Row{F: num(0), M: num(2), FactQuorum: num(1)}, ledger.Row{N: 4, M: 2, F: 0, FactQuorum: 1}},
		{ledger.ProposeRefresh, "refresh", "", &client.Row{M: num(2)}, ledger.Row{N: 4, M: 2, F: 1, FactQuorum: 3}},
	} {
		got, why := v.seats(x.kind, client.Proposal{Kind: x.word, Seats: &client.Seats{Out: x.out, Row: x.row}})
		if why != "" || got.Row != x.want {
			t.Fatalf("%s with %+v: %+v, want %+v %s", x.word, x.row, got.Row, x.want, why)
		}
		after := e
		after.Members = e.Members[:got.Row.N]
		after.F, after.M, after.FactQuorum = got.Row.F, got.Row.M, got.Row.FactQuorum
		if err := after.Validate(false); err != nil && x.row != nil {
			t.Errorf("%s with %+v: %v", x.word, x.row, err)
		}
	}
	if got, why := v.seats(ledger.ProposeRefresh, client.Proposal{Kind: "refresh", Seats: &client.Seats{Row: &client.Row{N: num(1 << 60)}}}); why != "" || got.Row.N != 1<<60 {
		t.Errorf("a row that is none is for the ledger to refuse: %+v %s", got, why)
	}
}
