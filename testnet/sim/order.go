package sim

import (
	"strings"

	"github.com/coffer-network/coffer/ledger"
)

// order is what raft gives: one total order that a majority has. What raft may
// do to a submission happens here: it is lost with a leader, comes late, comes
// twice.
type order struct {
	entries [][]byte
	headers []ledger.Header // as the reference folded them
	leader  int
	paused  int // step until which the leader orders nothing
	held    [][]byte
	without int               // steps without a leader
	roots   []uint64          // heights that folded one, ascending
	since   map[uint64]uint64 // epoch → first height under it
}

const electionSteps = 3

// submit sends a command to the leader.
func (s *sim) submit(raw []byte) {
	switch {
	case s.trouble(3):
		s.rep.Lost++
		return
	case s.trouble(1):
		s.rep.Late++
		s.after(s.between(20, 300), func() { s.arrive(raw) })
	case s.trouble(2):
		s.rep.Doubled++
		s.after(s.between(1, 40), func() { s.arrive(raw) })
		s.after(1, func() { s.arrive(raw) })
	case s.trouble(10):
		s.after(s.between(2, 6), func() { s.arrive(raw) })
	default:
		s.after(1, func() { s.arrive(raw) })
	}
}

func (s *sim) majority() bool {
	return len(s.voters()) > s.reference.Epoch().N()/2
}

// voters are the members of the epoch in force that are up: raft follows the
// ledger.
func (s *sim) voters() (up []int) {
	for i, m := range s.members {
		if m.up && s.reference.Epoch().Has(m.id) {
			up = append(up, i)
		}
	}
	return up
}

func (s *sim) arrive(raw []byte) {
	switch {
	case !s.members[s.log.leader].up || !s.majority():
		s.rep.Lost++
	case s.step < s.log.paused:
		s.log.held = append(s.log.held, raw)
	default:
		s.commit(raw)
	}
}

// turn elects a leader for one that is down, and ends a pause: what a paused
// leader held is ordered late, in another order, or dies with its leadership.
func (l *order) turn(s *sim) {
	if m := s.members[l.leader]; !m.up || !s.reference.Epoch().Has(m.id) {
		if l.without++; l.without >= electionSteps && s.majority() {
			l.elect(s)
		}
		return
	}
	l.without = 0
	if s.step < l.paused {
		if s.chance(2) {
			l.elect(s)
		}
		return
	}
	if held := l.held; len(held) > 0 {
		l.held = nil
		if s.trouble(30) {
			s.rng.Shuffle(len(held), func(i, j int) { held[i], held[j] = held[j], held[i] })
		}
		for _, raw := range held {
			s.commit(raw)
		}
	}
	if s.trouble(0.4) {
		s.rep.Pauses++
		l.paused = s.step + s.between(4, 200) // up to 100 s: past what members take for timely
	}
}

func (l *order) elect(s *sim) {
	up := s.voters()
	s.rep.Elected++
	l.leader, l.paused, l.without = up[s.rng.IntN(len(up))], 0, 0
	s.rep.Lost += len(l.held)
	l.held = nil
}

func (l *order) calm(s *sim) { l.paused = 0 }

// commit puts a command at the end of the log. The reference applies it at
// once, and is judged at once.
func (s *sim) commit(raw []byte) {
	if s.err != nil {
		return
	}
	s.log.entries = append(s.log.entries, raw)
	r := s.reference.Execute(raw)
	s.log.headers = append(s.log.headers, r.Header)
	if r.Header.Root != (ledger.Hash{}) {
		s.log.roots = append(s.log.roots, r.Header.Height)
	}
	if e := s.reference.Epoch().Number; s.log.since[e] == 0 {
		s.log.since[e] = r.Header.Height
	}
	s.rep.Commands++
	s.rep.Codes[r.Code]++
	if r.Code == ledger.Broken {
		s.fail("BROKEN at height %d: %s", r.Header.Height, s.reference.OutflowsHalt)
	}
	if why := s.reference.OutflowsHalt; why != "" && !s.cfg.robbed && !strings.HasPrefix(why, "HOLD: success without") {
		s.fail("outflows halted at height %d: %s", r.Header.Height, s.reference.OutflowsHalt)
	}
	if err := s.reference.Check(); err != nil {
		s.fail("check at height %d: %w", r.Header.Height, err)
	}
	if err := s.auditor.command(raw, r); err != nil {
		s.fail("auditor at height %d: %w", r.Header.Height, err)
	}
	for _, a := range s.genesis.Assets {
		if row, _ := s.reference.Solvency.Get(a.ID); row.Newest.Asked > s.weighed[a.ID] {
			s.weighed[a.ID] = row.Newest.Asked
			s.rep.Balances++
			if row.Good == row.Newest.Asked {
				s.rep.Good++
			}
		}
	}
	for _, e := range r.Events {
		if e.Name == "attempt" {
			s.reached(pointPlanned, s.members[s.log.leader], e.Batch)
		}
	}
}

// execute applies the next command on a replica and compares heads: the head
// covers code and events, a state that differs silently is for compare.
func (m *member) execute() {
	h := m.state.Height
	raw := m.s.log.entries[h]
	if skip := m.s.cfg.mistakes.skip; skip != nil && skip(m, h+1) {
		raw = nil
	}
	r := m.state.Execute(raw)
	if r.Header != m.s.log.headers[h] {
		m.s.fail("replica %d diverges at height %d (%s)", m.i, h+1, r.Code)
	}
}

// head is H_height on the one chain of this run.
func (s *sim) head(height uint64) ledger.Hash {
	if height == 0 {
		return s.reference.Cluster
	}
	return s.log.headers[height-1].Head()
}

// rootAt is the last root folded at or below a height.
func (s *sim) rootAt(height uint64) (uint64, ledger.Hash) {
	for i := len(s.log.roots) - 1; i >= 0; i-- {
		if h := s.log.roots[i]; h <= height {
			return h, s.log.headers[h-1].Root
		}
	}
	return 0, ledger.Hash{}
}
