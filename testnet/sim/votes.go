package sim

import (
	"fmt"
	"slices"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node"
)

// decide is what operators do now and then: propose, agree, take back, pause.
// Proposals move what must not matter to the auditor: rates, ratios, borrowing.
func (m *member) decide() []node.Statement {
	if m.state.Epoch().Number == 0 || !m.s.trouble(3) {
		return nil
	}
	if m.s.chance(10) {
		return []node.Statement{{Kind: ledger.KindPause, Body: ledger.Pause{Seconds: uint64(m.s.between(0, 30))}}}
	}
	var said []node.Statement
	for _, b := range m.state.Ballots.All() {
		if !slices.Contains(b.Yes, m.id) || m.s.chance(10) {
			said = append(said, node.Statement{Kind: ledger.KindVote, Body: ledger.Vote{Hash: b.Proposal.Hash(), Yes: !m.s.chance(15)}})
		}
	}
	if len(said) == 0 {
		p := m.s.proposal()
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
