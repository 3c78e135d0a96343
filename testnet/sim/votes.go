package sim

import (
	"fmt"
	"slices"
	"strings"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
	"github.com/coffer-network/coffer/node"
)

// decide is what operators do now and then: propose, agree, take back, pause.
// Proposals move what must not matter to the auditor, rates, ratios and borrowing,
// and what he looks at: payouts and vaults.
func (m *member) decide() []node.Statement {
	if said := m.endHold(); len(said) > 0 {
		return said
	}
	if said := m.bookGifts(); len(said) > 0 {
		return said
	}
	if m.state.Epoch().Number == 0 || !m.seated() || !m.s.trouble(max(3, m.s.cfg.votes)) && !(m.s.cfg.Churn && m.s.trouble(30)) {
		return nil
	}
	if m.s.cfg.votes == 0 && m.s.chance(2) && m.state.Epoch().N() > 4 {
		return []node.Statement{{Kind: ledger.KindLeave, Body: ledger.Leave{Row: m.state.LeaveRow(m.id)}}}
	}
	if m.s.cfg.votes == 0 && m.s.chance(10) && !m.s.cfg.Churn {
		return []node.Statement{{Kind: ledger.KindPause, Body: ledger.Pause{Seconds: uint64(m.s.between(0, 30))}}}
	}
	var said []node.Statement
	for _, b := range m.state.Ballots.All() {
		if aboutHold(b.Proposal) {
			continue // looked at, and not agreed to by chance
		}
		if !slices.Contains(b.Yes, m.id) || m.s.chance(10) {
			said = append(said, node.Statement{Kind: ledger.KindVote, Body: ledger.Vote{Hash: b.Proposal.Hash(), Yes: !m.s.chance(15)}})
		}
	}
	if len(said) == 0 {
		p := m.s.proposal()
		switch {
		case m.s.cfg.votes == 0 && (m.s.cfg.Churn || m.s.chance(50)):
			p = m.seatProposal()
		case m.s.chance(70):
			if about, ok := m.outflowProposal(); ok {
				p = about
			}
		}
		said = append(said, node.Statement{Kind: ledger.KindVote, Body: ledger.Vote{Hash: p.Hash(), Yes: true, Proposal: &p}})
	}
	return said
}

func (s *sim) proposal() ledger.Proposal {
	p := ledger.Proposal{Kind: ledger.ProposeSet, Text: fmt.Sprint("step ", s.step), Changes: []ledger.Change{{Pool: "btc"}}}
	if s.chance(50) {
		p.Changes[0].Pool = "usdt.eth"
	}
	c := &p.Changes[0]
	switch s.between(0, 5) {
	case 0:
		c.Name, c.Value = "s1", fmt.Sprint(s.between(0, 1_000))
	case 1:
		c.Name, c.Value = "rf", fmt.Sprint(s.between(0, 6_000)) // some beyond its bound
	case 2:
		c.Name, c.Value = "ltv", fmt.Sprint(s.between(6_000, 7_600))
	case 3:
		c.Name, c.Value = "borrow_cap", fmt.Sprint(s.between(0, 1<<40))
	case 4:
		p.Kind, p.Changes, p.Flag = ledger.ProposeStop, nil, ledger.FlagBorrowOff
	case 5:
		p.Kind, p.Changes, p.Flag = ledger.ProposeLift, nil, ledger.FlagBorrowOff
	}
	return p
}

// seated: the member holds a seat as far as it knows.
func (m *member) seated() bool { return m.state.Epoch().Has(m.id) }

// line is what an operator gives to the others.
func (m *member) line() ledger.Member {
	name := fmt.Sprintf("n%d", m.i)
	return ledger.Member{ID: m.id, Name: name, Operator: "operator " + name}
}

// seatProposal is a change of the committee, some of them impossible. No epoch is
// proposed that has more traitors than it is made for.
func (m *member) seatProposal() ledger.Proposal {
	s, e := m.s, m.state.Epoch()
	var in *ledger.Member
	if o := s.members[s.rng.IntN(len(s.members))]; !e.Has(o.id) {
		line := o.line()
		in = &line
	}
	out := e.Members[s.rng.IntN(e.N())].ID
	c := ledger.Seats{}
	p := ledger.Proposal{Text: fmt.Sprint("step ", s.step), Seats: &c}
	switch n := s.between(0, 9); {
	case n < 4 && in != nil:
		p.Kind, c.In, c.Row = ledger.ProposeAdmit, in, s.row(e, in, ledger.MemberID{})
	case n < 6 && in != nil:
		p.Kind, c.In, c.Out, c.Urgent, c.Row = ledger.ProposeReplace, in, out, s.chance(50), s.row(e, in, out)
	case n < 8:
		p.Kind, c.Out, c.Row = ledger.ProposeEvict, out, s.row(e, nil, out)
	case n == 8 && len(m.state.Epochs) > 2:
		old := m.state.Epochs[len(m.state.Epochs)-2]
		p.Kind, c.Epoch, c.Row = ledger.ProposeRollback, old.Number, old.Row()
	case n == 8 && m.state.Next != nil:
		p.Kind, c.Epoch = ledger.ProposeAbort, m.state.Next.Epoch.Number
	default:
		p.Kind, c.Row = ledger.ProposeRefresh, e.Row()
	}
	return p
}

// row is the strongest one for the members after a change, whose f covers their
// traitors.
func (s *sim) row(e ledger.Epoch, in *ledger.Member, out ledger.MemberID) ledger.Row {
	var next ledger.Epoch
	for _, m := range e.Members {
		if m.ID != out {
			next.Members = append(next.Members, m)
		}
	}
	if in != nil {
		next.Members = append(next.Members, *in)
	}
	for _, m := range next.Members {
		if s.member(m.ID).liar {
			next.F++
		}
	}
	next.M = 2
	if next.N() > 3 {
		next.F, next.M = max(next.F, 1), 3
	}
	next.FactQuorum = next.Q()
	return next.Row()
}

// wipe destroys the KeyShares that the ledger lets go, once a certificate covers
// the height at which it first did.
func (m *member) wipe() {
	if !m.s.chance(10) {
		return
	}
	for _, g := range m.held() {
		switch at, free := m.free[g]; {
		case m.state.WhyKeep(g) != "":
			delete(m.free, g)
		case !free:
			m.free[g] = m.state.Height
		case m.certified(at):
			m.s.rep.Wiped++
			delete(m.disk.shares, g)
			delete(m.free, g)
			m.disk.wiped = append(m.disk.wiped, g)
		}
	}
}

// held are the generations that this member has a KeyShare of, in one order.
func (m *member) held() (gs []ledger.Generation) {
	for g := range m.disk.shares {
		gs = append(gs, g)
	}
	slices.SortFunc(gs, func(a, b ledger.Generation) int { return strings.Compare(a.String(), b.String()) })
	return gs
}

// outflowProposal is about payouts under way and the pool vault, which is what the
// auditor looks at: a cancel that races its payment, coins from one vault to the
// other.
func (m *member) outflowProposal() (ledger.Proposal, bool) {
	p := ledger.Proposal{Kind: ledger.ProposeTopUp, Text: fmt.Sprint("step ", m.s.step), Act: &ledger.OutflowAct{Amount: fixed.New(uint64(m.s.between(50_001, 400_000)))}}
	if m.s.chance(25) {
		return p, true
	}
	if m.s.chance(40) {
		return m.coinProposal(), true
	}
	var open []ledger.Batch
	for id := range m.state.Live.All() {
		if b, _ := m.state.Batches.Get(id); b.Kind == ledger.BatchPay && b.Spent == nil {
			open = append(open, b)
		}
	}
	if len(open) == 0 {
		return p, false
	}
	b := open[m.s.rng.IntN(len(open))]
	p.Kind, p.Act = ledger.ProposeCancel, &ledger.OutflowAct{Batch: b.ID, Outcome: ledger.VoteRequeue}
	if o, _ := m.state.Outflows.Get(b.Outflows[0]); o.Account != "" && m.s.chance(50) {
		p.Act.Outcome = ledger.VoteRefund
	}
	return p, true
}

// coinProposal is about what strangers or operators sent to a vault, sometimes more of
// it than there is, or a coin that a fork has taken away.
func (m *member) coinProposal() ledger.Proposal {
	s := m.s
	p := ledger.Proposal{Kind: ledger.ProposeBook, Text: fmt.Sprint("step ", s.step), Act: &ledger.OutflowAct{}}
	if n := len(s.world.coins); n > 0 && s.chance(40) {
		*p.Act = s.world.coins[s.rng.IntN(n)]
		if s.chance(50) {
			p.Kind = ledger.ProposeBTCFloat
		}
		if s.chance(10) {
			p.Act.Amount = add(p.Act.Amount, fixed.New(1))
		}
		return p
	}
	p.Act.Asset = []string{"eth", "usdt.eth"}[s.rng.IntN(2)]
	row, _ := m.state.Solvency.Get(p.Act.Asset)
	p.Act.Amount = must(fixed.MulDivFloor(row.Unattributed, fixed.New(uint64(s.between(1, 110))), fixed.New(100)))
	if p.Act.Amount.IsZero() || s.chance(25) { // before it has arrived, if ever
		p.Act.Amount = fixed.New(uint64(s.between(1, ether)))
		if p.Act.Asset != "eth" {
			p.Act.Amount = fixed.New(uint64(s.between(1, 100*minUSDT)))
		}
	}
	if p.Act.Asset == "eth" && s.chance(60) { // now and then at the vault where it does not lie
		vault, _ := m.state.Vault(ledger.Ethereum, []string{address.RoleHot, address.RoleGas}[s.rng.IntN(2)])
		p.Kind, p.Act.Asset, p.Act.Address = ledger.ProposeGasFloat, "", vault.Address
	}
	return p
}

// bookGifts is what operators do about coins at the vaults that are nobody's: some
// propose to book them, and the others mostly agree.
func (m *member) bookGifts() (said []node.Statement) {
	if m.s.rest || !m.seated() || m.s.reference.Epoch().Number == 0 {
		return nil
	}
	for _, b := range m.state.Ballots.All() {
		if k := b.Proposal.Kind; k >= ledger.ProposeGasFloat && k <= ledger.ProposeBook && !slices.Contains(b.Yes, m.id) && m.s.chance(35) {
			said = append(said, node.Statement{Kind: ledger.KindVote, Body: ledger.Vote{Hash: b.Proposal.Hash(), Yes: true}})
		}
	}
	if len(said) == 0 && m.state.Ballots.Len() < 8 && (m.s.chance(1) || m.s.rep.Booked == 0 && m.s.chance(5)) {
		p := m.coinProposal()
		said = append(said, node.Statement{Kind: ledger.KindVote, Body: ledger.Vote{Hash: p.Hash(), Yes: true, Proposal: &p}})
	}
	return said
}

// endHold is what operators do about a batch on HOLD, whatever else they are up to: a
// transfer that succeeded and shows nothing was not made, as the chain says. Honest
// ones agree to what is so and to the lift of the halt that it caused; a traitor says
// that it was paid.
func (m *member) endHold() (said []node.Statement) {
	st := m.state
	if st.OutflowsHalt == "" || !m.seated() || !m.s.chance(30) {
		return nil
	}
	for _, b := range st.Ballots.All() {
		if p := b.Proposal; aboutHold(p) && !slices.Contains(b.Yes, m.id) && (m.liar || p.Act == nil || p.Act.Outcome != ledger.VotePaid) {
			said = append(said, node.Statement{Kind: ledger.KindVote, Body: ledger.Vote{Hash: p.Hash(), Yes: true}})
		}
	}
	if len(said) > 0 || st.Ballots.Len() > 8 {
		return said
	}
	p := ledger.Proposal{Kind: ledger.ProposeLift, Text: fmt.Sprint("step ", m.s.step), Flag: ledger.FlagHalt, Halt: st.OutflowsHalt}
	for id := range st.OnHold.All() {
		b, _ := st.Batches.Get(id)
		tx, fee, found := m.s.auditor.silent(b)
		if !found {
			continue
		}
		p = ledger.Proposal{Kind: ledger.ProposeLeaveHold, Text: p.Text, Act: &ledger.OutflowAct{Batch: id, TxID: tx, Fee: fee}}
		p.Act.Outcome = []string{ledger.VoteRefund, ledger.VoteRequeue}[m.s.rng.IntN(2)]
		if m.liar {
			p.Act.Outcome = ledger.VotePaid
		}
		break
	}
	return []node.Statement{{Kind: ledger.KindVote, Body: ledger.Vote{Hash: p.Hash(), Yes: true, Proposal: &p}}}
}

// aboutHold: a proposal that only what is so decides.
func aboutHold(p ledger.Proposal) bool {
	return p.Kind == ledger.ProposeLeaveHold || p.Kind == ledger.ProposeLift && p.Flag == ledger.FlagHalt && p.Pool == ""
}
