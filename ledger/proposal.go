package ledger

import (
	"crypto/sha256"
	"slices"
)

// ProposalKind says what a proposal would do. The list is closed: what is not
// in it cannot be voted on. Members and keys get rows of their own.
type ProposalKind uint8

const (
	ProposeSet       ProposalKind = 1 // Changes of parameters
	ProposeStop      ProposalKind = 2 // sets a flag that stops something
	ProposeLift      ProposalKind = 3 // takes such a flag off again
	ProposeSocialise ProposalKind = 4 // spreads a pool's Deficit over its suppliers
	ProposeResume    ProposalKind = 5 // ends the pauses of single members

	ProposeAdmit    ProposalKind = 10 // a node that is to take a seat
	ProposeReplace  ProposalKind = 11 // a node in the place of a member
	ProposeEvict    ProposalKind = 12 // a member, or an admitted node, goes
	ProposeRefresh  ProposalKind = 13 // new KeyShares for the same members, or another row
	ProposeAbort    ProposalKind = 14 // of the epoch that is being prepared
	ProposeRollback ProposalKind = 15 // to the epoch before, soon after a flip
)

// Flag is something that votes stop. Set always means stopped.
type Flag uint8

const (
	FlagPaused    Flag = 1 // of a pool: nothing but repay and claim
	FlagFrozen    Flag = 2 // of a pool: no new supply, no new debt
	FlagBorrowOff Flag = 3 // of a pool, or of all: no new debt
	FlagHalt      Flag = 4 // all outflows, or those of an asset: nothing is planned or signed
)

// Limits of a proposal.
const (
	maxChanges      = 16  // a pool's whole set
	maxProposalText = 280 // bytes: two lines on a screen
	maxStepBps      = 100 // by which LTV and LiquidationThreshold may fall a day (spec: committee §9)
)

// Proposal is what members vote on. Its hash is what they sign, so the text is
// part of it: the same change for another reason is another proposal.
type Proposal struct {
	Kind    ProposalKind `cbor:"1,keyasint"`
	Text    string       `cbor:"2,keyasint"`            // for the public: why
	Changes []Change     `cbor:"3,keyasint"`            // of Set: sorted by pool and name, each once
	Pool    string       `cbor:"4,keyasint"`            // of Stop, Lift, Socialise; empty: the whole cluster. Of FlagHalt: an asset
	Flag    Flag         `cbor:"5,keyasint"`            // of Stop, Lift
	Halt    string       `cbor:"6,keyasint"`            // of Lift of FlagHalt: the cause that it lifts, and no other
	Seats   *Seats       `cbor:"10,keyasint,omitempty"` // of those about members
	Act     *OutflowAct  `cbor:"20,keyasint,omitempty"` // of those about outflows and coins (outvote.go)
}

// Change gives one parameter another value, in its one spelling: decimal digits
// (bps, base units, seconds: as the parameter is kept), or true and false. Pool
// is empty for those of the whole cluster.
type Change struct {
	Pool  string `cbor:"1,keyasint"`
	Name  string `cbor:"2,keyasint"`
	Value string `cbor:"3,keyasint"`
}

const proposalDomain = "coffer/proposal/1"

// Hash names a proposal.
func (p Proposal) Hash() Hash { return sha256.Sum256(append([]byte(proposalDomain), Marshal(p)...)) }

// wellFormed: nothing is filled that the kind does not use, so that one
// proposal has one hash.
func (p Proposal) wellFormed() bool {
	if p.Text == "" || len(p.Text) > maxProposalText || slices.ContainsFunc([]rune(p.Text), func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return false
	}
	bare := p
	bare.Kind, bare.Text = 0, ""
	switch p.Kind {
	case ProposeSet:
		bare.Changes = nil
		for i, c := range p.Changes {
			if i > 0 && (cmpText(p.Changes[i-1].Pool, c.Pool) > 0 || p.Changes[i-1].Pool == c.Pool && p.Changes[i-1].Name >= c.Name) {
				return false
			}
		}
		if len(p.Changes) == 0 || len(p.Changes) > maxChanges {
			return false
		}
	case ProposeStop, ProposeLift:
		switch {
		case p.Flag < FlagPaused || p.Flag > FlagHalt,
			p.Pool == "" && p.Flag < FlagBorrowOff,
			(p.Halt != "") != (p.Kind == ProposeLift && p.Flag == FlagHalt):
			return false
		}
		bare.Pool, bare.Flag, bare.Halt = "", 0, ""
	case ProposeSocialise:
		bare.Pool = ""
	case ProposeResume:
	case ProposeAdmit, ProposeReplace, ProposeEvict, ProposeRefresh, ProposeAbort, ProposeRollback:
		if !p.wellFormedSeats() {
			return false
		}
		bare.Seats = nil
	default:
		if !p.Kind.actsOn() || p.Act == nil || !p.Act.wellFormed(p.Kind) {
			return false
		}
		bare.Act = nil
	}
	return bare.Act == nil && len(bare.Changes) == 0 && bare.Pool == "" && bare.Flag == 0 && bare.Halt == "" && bare.Seats == nil
}

// possible says whether p could be carried out now, apart from steps and time:
// when it is proposed, so that nobody votes on what cannot be.
func (s *State) possible(p Proposal) Code {
	switch p.Kind {
	case ProposeSet:
		pools, _, code := s.changed(p.Changes)
		if code != OK {
			return code
		}
		for _, n := range pools {
			if n.Validate() != nil {
				return BadParam
			}
		}
		return OK
	case ProposeStop, ProposeLift:
		on, code := s.flag(p.Pool, p.Flag)
		switch {
		case code != OK:
			return code
		case on == (p.Kind == ProposeStop), p.Halt != "" && p.Halt != s.HaltCause(p.Pool):
			return BadParam
		}
		return OK
	case ProposeSocialise:
		return s.View().socialise(p.Pool)
	case ProposeResume:
		if _, _, paused := s.PausedBy(); !paused {
			return BadParam
		}
		return OK
	case ProposeAdmit, ProposeReplace, ProposeEvict, ProposeRefresh, ProposeAbort, ProposeRollback:
		if r := s.possibleSeats(p); r != nil {
			return r.code
		}
		return OK
	}
	if p.Kind.actsOn() {
		return s.outflowPossible(p.Kind, *p.Act)
	}
	return Malformed
}

// changed returns the parameters of the pools named, and those of the cluster,
// with the changes made: UNKNOWN_POOL, or BAD_PARAM for a name that is none, a
// value in another spelling, a change that changes nothing, or bounds broken.
// The bounds of pools are the caller's to check.
func (s *State) changed(changes []Change) (pools []PoolParam, all Params, code Code) {
	all = s.Params
	for _, c := range changes {
		rows := all.settings()
		if c.Pool != "" {
			if !s.Pools.has(c.Pool) {
				return nil, all, UnknownPool
			}
			if len(pools) == 0 || pools[len(pools)-1].Asset != c.Pool {
				pools = append(pools, s.Pools.at(c.Pool).Param)
			}
			rows = pools[len(pools)-1].settings()
		}
		v, ok := settingNamed(rows, c.Name)
		if !ok || v.text() == c.Value || !v.set(c.Value) {
			return nil, all, BadParam
		}
	}
	if all.Validate() != nil {
		return nil, all, BadParam
	}
	return pools, all, OK
}

// setting is what a change is about, as it stands.
func (s *State) setting(c Change) (setting, bool) {
	if c.Pool == "" {
		p := s.Params
		return settingNamed(p.settings(), c.Name)
	}
	p := s.Pools.at(c.Pool).Param
	return settingNamed(p.settings(), c.Name)
}

func (s *State) flag(pool string, f Flag) (on bool, code Code) {
	p, known := s.Pools.get(pool)
	if f == FlagHalt && pool != "" { // of an asset, which need not have a pool
		_, known = s.Genesis.Asset(pool)
	}
	if pool != "" && !known {
		return false, UnknownPool
	}
	switch {
	case f == FlagHalt:
		return s.HaltCause(pool) != "", OK
	case f == FlagPaused:
		return p.Paused, OK
	case f == FlagFrozen:
		return p.Frozen, OK
	case pool != "":
		return !p.BorrowEnabled, OK
	}
	return s.BorrowOff, OK
}

// Terms are what a proposal needs before it takes effect.
type Terms struct {
	Quorum      int
	DelayMillis uint64 // of ledger time between the last vote needed and the effect
	Twice       bool   // the quorum is needed a second time, SocialiseSeconds after the first
}

// Terms is the table of spec committee §9. What can only hold back new business
// (a lower cap, a scheme switched off) waits for nothing, but needs Q: unlike a
// stop, it takes the long delay to undo.
func (s *State) Terms(p Proposal) Terms {
	e, t := s.Epoch(), s.Params
	switch p.Kind {
	case ProposeStop:
		return Terms{Quorum: e.FactQuorum}
	case ProposeLift:
		return Terms{Quorum: e.Q(), DelayMillis: t.LiftSeconds * 1000}
	case ProposeSocialise:
		return Terms{Quorum: e.Q(), DelayMillis: t.SocialiseSeconds * 1000, Twice: true}
	case ProposeResume, ProposeAdmit, ProposeReplace, ProposeEvict, ProposeRefresh, ProposeAbort, ProposeRollback:
		return Terms{Quorum: e.Q()}
	}
	if p.Kind.actsOn() {
		return s.outflowTerms(p.Kind)
	}
	r := Terms{Quorum: e.Q()}
	for _, c := range p.Changes {
		r.DelayMillis = max(r.DelayMillis, s.delayOf(c))
	}
	return r
}

func (s *State) delayOf(c Change) uint64 {
	v, _ := s.setting(c)
	switch {
	case c.stepped() && v.falls(c.Value):
		return s.Params.LowerSeconds * 1000
	case c.Pool != "" && isCap(c.Name) && v.falls(c.Value),
		c.Pool == "" && c.Name == settingEIP712 && c.Value == "false":
		return 0
	}
	return s.Params.SetSeconds * 1000
}

// stepped: what borrowers stand on, which must not fall under them at once.
func (c Change) stepped() bool { return c.Pool != "" && (c.Name == settingLTV || c.Name == settingLT) }

// carryOut does what a proposal says, at the moment it takes effect, and
// validates it again: the ledger has changed since the vote. TIMELOCK with a
// time says that a step must wait until then; left is what later steps do.
func (x *execution) carryOut(b Ballot) (left []Change, next uint64, code Code) {
	s, p := x.s, b.Proposal
	if p.Kind == ProposeSet {
		return x.carryOutChanges(b)
	}
	if p.Seats != nil {
		code := x.carryOutSeats(p)
		return nil, s.Millis, code
	}
	if p.Kind.actsOn() {
		return nil, 0, x.carryOutAct(p.Kind, *p.Act)
	}
	if code := s.possible(p); code != OK {
		return nil, 0, code
	}
	stop := p.Kind == ProposeStop
	switch {
	case p.Kind == ProposeSocialise:
		code = x.socialise(p.Pool)
	case p.Kind == ProposeResume:
		s.resume()
	case p.Flag == FlagHalt && stop:
		s.setHalt(p.Pool, "vote: "+p.Text)
	case p.Flag == FlagHalt:
		s.setHalt(p.Pool, "")
	case p.Pool == "":
		s.BorrowOff = stop
	case p.Flag == FlagPaused:
		code = s.setPool(p.Pool, poolChange{Paused: &stop})
	case p.Flag == FlagFrozen:
		code = s.setPool(p.Pool, poolChange{Frozen: &stop})
	default:
		enabled := !stop
		code = s.setPool(p.Pool, poolChange{BorrowEnabled: &enabled})
	}
	if code != "" && code != OK {
		return nil, 0, code
	}
	return nil, 0, s.refreshRates()
}

// carryOutChanges makes the changes that are left, LTV and LiquidationThreshold
// by one step at most where they fall.
func (x *execution) carryOutChanges(b Ballot) (left []Change, next uint64, code Code) {
	s := x.s
	var now []Change
	for _, c := range b.Left {
		v, ok := s.setting(c)
		if !ok {
			return nil, 0, UnknownPool
		}
		if b.Stepping && !v.falls(c.Value) {
			continue // fell this far by other means
		}
		if s.delayOf(c) > b.Delay {
			return nil, 0, BadParam // it turned into a change that has to wait longer
		}
		if c.stepped() && v.falls(c.Value) {
			if last, ok := s.Lowered.get(c.Pool + "/" + c.Name); ok {
				next = max(next, last+s.Params.StepSeconds*1000)
			}
			step := v.step(c.Value)
			if step != c.Value {
				left = append(left, c)
			}
			c.Value = step
			s.Lowered.put(c.Pool+"/"+c.Name, s.Millis)
		}
		now = append(now, c)
	}
	if next > s.Millis {
		return nil, next, Timelock
	}
	if len(now) == 0 {
		return nil, 0, OK
	}
	pools, all, code := s.changed(now)
	if code != OK {
		return nil, 0, code
	}
	s.sync() // at the old parameters
	s.Params = all
	for _, p := range pools {
		if code := s.setPool(p.Asset, poolChange{Param: &p}); code != OK {
			return nil, 0, code
		}
	}
	return left, s.Millis + s.Params.StepSeconds*1000, s.refreshRates()
}
