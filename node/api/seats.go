package api

import (
	"fmt"
	"time"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node/api/client"
)

// Proposals about members (spec: committee §9), read and shown. What an operator
// leaves out is filled from what his node shows now, and all of it is in the
// proposal that he signs: coffer votes shows it to who is asked to agree.

// seats reads what a proposal about members says; nil for the other kinds.
// The text says what cannot be read; empty: nothing.
func (v view) seats(kind ledger.ProposalKind, p client.Proposal) (*ledger.Seats, string) {
	about := kind >= ledger.ProposeAdmit && kind <= ledger.ProposeRollback
	switch {
	case !about && p.Seats == nil:
		return nil, ""
	case !about:
		return nil, "seats: a proposal of this kind has none"
	case p.Seats == nil:
		return nil, "seats: say who comes or goes"
	}
	in := p.Seats
	out := &ledger.Seats{Urgent: in.Urgent, Epoch: in.Epoch}
	if in.In != nil {
		m := ledger.Member{Name: in.In.Name, Operator: in.In.Operator, Addr: in.In.Addr}
		if err := m.ID.UnmarshalText([]byte(in.In.ID)); err != nil {
			return nil, fmt.Sprintf("member id %q: %v", in.In.ID, err)
		}
		out.In = &m
	}
	if in.Out != "" {
		id, ok := v.memberNamed(in.Out)
		if !ok {
			return nil, fmt.Sprintf("no member or admitted node is called %q", in.Out)
		}
		out.Out = id
	}
	switch kind {
	case ledger.ProposeAbort:
		if out.Epoch == 0 && v.Next != nil {
			out.Epoch = v.Next.Epoch.Number
		}
		if r := in.Row; r != nil {
			return nil, "an abort names no n, m or f"
		}
		if out.Epoch == 0 {
			return nil, "no epoch is being prepared"
		}
		return out, ""
	case ledger.ProposeRollback:
		if n := len(v.Epochs); out.Epoch == 0 && n > 1 {
			out.Epoch = v.Epochs[n-2].Number
		}
	}
	out.Row = v.rowAfter(kind, *out)
	if r := in.Row; r != nil {
		for _, x := range []struct{ from, to *int }{{r.N, &out.Row.N}, {r.M, &out.Row.M}, {r.F, &out.Row.F}, {r.FactQuorum, &out.Row.FactQuorum}} {
			if x.from != nil {
				*x.to = *x.from
			}
		}
		if n := out.Row.N; r.FactQuorum == nil && n >= 0 && n <= ledger.MaxMembers { // a lower f may leave fewer who are sure to answer
			after := ledger.Epoch{Members: make([]ledger.Member, n), F: out.Row.F}
			out.Row.FactQuorum = min(out.Row.FactQuorum, n-after.C())
		}
	}
	return out, ""
}

// rowAfter is the row of a proposal that names none: m and f as they are, n as it
// comes out, FactQuorum as it is or as high as n still lets it.
func (v view) rowAfter(kind ledger.ProposalKind, c ledger.Seats) ledger.Row {
	e := v.Epoch()
	if kind == ledger.ProposeRollback {
		for _, old := range v.Epochs {
			if old.Number == c.Epoch {
				return old.Row()
			}
		}
	}
	r := e.Row()
	if kind == ledger.ProposeEvict && e.Has(c.Out) {
		return v.LeaveRow(c.Out)
	}
	if kind == ledger.ProposeAdmit {
		r.N++
	}
	return r
}

// memberNamed is who an operator means: by name or by id.
func (v view) memberNamed(text string) (ledger.MemberID, bool) {
	var id ledger.MemberID
	byID := id.UnmarshalText([]byte(text)) == nil
	for _, o := range v.Seating() {
		switch o.State {
		case ledger.SeatActive, ledger.SeatLeaving, ledger.SeatAdmitted:
			if o.Member.Name == text || byID && o.Member.ID == id {
				return o.Member.ID, true
			}
		}
	}
	return id, byID
}

func (v view) seatsSaid(c ledger.Seats) *client.Seats {
	out := &client.Seats{Urgent: c.Urgent, Epoch: c.Epoch}
	if c.In != nil {
		out.In = &client.Newcomer{ID: c.In.ID.String(), Name: c.In.Name, Operator: c.In.Operator, Addr: c.In.Addr}
	}
	if c.Out != (ledger.MemberID{}) {
		out.Out = v.name(c.Out)
	}
	if r := c.Row; r != (ledger.Row{}) {
		out.Row = &client.Row{N: &r.N, M: &r.M, F: &r.F, FactQuorum: &r.FactQuorum}
	}
	return out
}

// seatsEffects says what a proposal about members does, m of n in words.
func (v view) seatsEffects(p ledger.Proposal) []string {
	c := *p.Seats
	var out []string
	if c.In != nil {
		wait := fmt.Sprintf("its key shares after a first quarantine of %s", time.Duration(v.Params.AdmitSeconds)*time.Second)
		if c.Urgent {
			wait = "its key shares at once, without the first quarantine"
		}
		out = append(out, fmt.Sprintf("members: + %s of %s, id %s; %s", c.In.Name, c.In.Operator, c.In.ID, wait))
	}
	if c.Out != (ledger.MemberID{}) {
		out = append(out, fmt.Sprintf("members: − %s, id %s", v.name(c.Out), c.Out))
	}
	switch p.Kind {
	case ledger.ProposeAbort:
		return append(out, fmt.Sprintf("epoch %d, which is being prepared: dropped, its number used up", c.Epoch))
	case ledger.ProposeRefresh:
		out = append(out, "key shares: dealt anew to the same members; addresses stay")
	case ledger.ProposeRollback:
		out = append(out, fmt.Sprintf("key shares: those of epoch %d and its members, under the next number", c.Epoch))
	}
	return append(out, fmt.Sprintf("committee: %s → %s", rowWords(v.Epoch().Row()), rowWords(c.Row)))
}

// rowWords says m of n as what they mean (spec: committee §1).
func rowWords(r ledger.Row) string {
	return fmt.Sprintf("%d of %d must sign, %d may be traitors, facts by %d", r.M, r.N, r.F, r.FactQuorum)
}
