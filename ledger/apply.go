package ledger

import (
	"crypto/sha256"
	"fmt"
)

// Result is what one command came to.
type Result struct {
	Header Header
	Code   Code
	Events []Event
}

// Event is one effect of a command. Effects are under the head (spec: consensus
// R2), so they are the same on every replica.
type Event struct {
	Name    string    `cbor:"1,keyasint"`
	Account AccountID `cbor:"2,keyasint"`
	Asset   string    `cbor:"3,keyasint"`
	Amount  string    `cbor:"4,keyasint"`
	Outflow uint64    `cbor:"5,keyasint"`
	Batch   uint64    `cbor:"6,keyasint"`
	Note    string    `cbor:"7,keyasint"`
}

// NewState is the state before the first command.
func NewState(g Genesis) (*State, error) {
	if err := g.Validate(); err != nil {
		return nil, fmt.Errorf("genesis: %w", err)
	}
	h := g.Hash()
	s := &State{
		Version: 1, Genesis: g, Cluster: h, Head: h,
		Millis: g.Millis, Raw: g.Millis, NextOutflow: 1, NextBatch: 1,
		Epochs: []Epoch{g.Epoch}, Params: g.Params,
	}
	for _, m := range g.Epoch.Members {
		s.Seats.put(m.ID.String(), Seat{})
	}
	for _, p := range g.Pools {
		a, _ := g.Asset(p.Asset)
		s.Pools.put(p.Asset, newPool(p, a, s.Time()))
	}
	s.LastTick = s.Time() / accrualSeconds
	s.LastInsured = s.Time() / insuranceSeconds
	return s, nil
}

// MaxCommand is the largest command, in bytes (spec: consensus §9).
const MaxCommand = 64 << 10

// Execute applies the bytes of one log entry and folds them into the head.
// It never fails: what cannot be decoded is a refusal like any other, because
// the bytes are in the log and every replica must come to the same head.
func (s *State) Execute(raw []byte) Result { return s.ExecuteWith(raw, computed{}) }

// ExecuteWith is Execute with verdicts on signatures from v. Whatever v knows
// beforehand, the result and the state are the same.
func (s *State) ExecuteWith(raw []byte, v Verdicts) Result {
	x := &execution{s: s, verdicts: v}
	before := s.Opening
	code := x.run(raw)
	return s.close(x, raw, code, before == nil && s.Opening != nil)
}

// close ends a command that came to code, and which may have opened an epoch: the
// head covers what it left.
func (s *State) close(x *execution, raw []byte, code Code, opened bool) Result {
	s.Accounts.fold()
	s.Height++
	res := sha256.New()
	res.Write(Marshal([]any{code, x.events}))
	h := Header{Height: s.Height, Prev: s.Head, Command: sha256.Sum256(raw)}
	res.Sum(h.Result[:0])
	if s.Height%RootInterval == 0 || opened {
		if opened {
			s.Opening.Height = s.Height
		}
		h.Root = s.root()
		s.RootHeight, s.Root = s.Height, h.Root
	}
	s.Head = h.Head()
	if opened {
		s.Opening.Head, s.Opening.Root = s.Head, h.Root
	}
	return Result{Header: h, Code: code, Events: x.events}
}

// root is S_i: the hash over all sections of the state, with Head still that
// of the height before, since H_i covers S_i. RootHeight and Root are those of
// the fold before. The accounts come in by a root of their own, which sums up what is
// owed to them, beside what the pools say of it; the addresses of ours by their
// running hash.
func (s *State) root() Hash {
	other := *s
	other.Accounts, other.Watched = Accounts{}, s.Watched.bare()
	accounts := s.Accounts.root(s.suspense())
	totals, rest := s.liabilities(), Hash(sha256.Sum256(Marshal(&other)))
	h := rootHash(accounts, totals, rest)
	b, rows := s.Accounts.book, s.Accounts.book.rows
	b.rows = rows.copy() // proofs keep the original, to which nobody writes any more
	b.rooted = &rooted{root: h, rows: rows, tree: b.tree, n: uint64(s.Accounts.n), totals: totals, rest: rest}
	return h
}

// Apply applies one command without folding it. It never fails: a refusal is a
// Code, and what panics is undone and comes back as BROKEN.
func (s *State) Apply(c Command) Code {
	x := &execution{s: s, verdicts: computed{}}
	code := x.apply(c)
	s.Accounts.fold()
	return code
}

// execution is one command on its way: the state it works on and the effects
// so far.
type execution struct {
	s        *State
	events   []Event
	verdicts Verdicts
}

// moment is what an execution was, to go back to. It is a copy of the state, with
// which it shares every table (State.share): nothing is undone one by one.
type moment struct {
	s        State
	accounts Accounts // as they were before they were shared
	events   []Event
}

// begin starts a part that is kept or taken back as a whole. The caller has the
// moment among its own variables: a copy of 2 kB, for which no room is allocated.
func (x *execution) begin(m *moment) {
	m.accounts, m.events = x.s.Accounts.begin(), x.events
	x.s.share()
	m.s = *x.s
}

// back ends a part that changes nothing.
func (x *execution) back(m *moment) {
	*x.s, x.events = m.s, m.events
	x.s.Accounts = m.accounts
}

// keep ends a part that stays.
func (x *execution) keep(m *moment) { x.s.Accounts.end(&m.accounts) }

// trial is an execution of its own on a copy, to be dropped.
func (x *execution) trial() *execution { return &execution{s: x.s.View(), verdicts: x.verdicts} }

func (x *execution) emit(e Event) { x.events = append(x.events, e) }

func (x *execution) run(raw []byte) Code {
	if len(raw) > MaxCommand {
		return Malformed
	}
	var c Command
	if err := Unmarshal(raw, &c); err != nil {
		return Malformed
	}
	return x.apply(c)
}

func (x *execution) apply(c Command) Code {
	if (c.Intent == nil) == (c.Attestation == nil) {
		return Malformed
	}
	return x.guard("command", func(x *execution) Code {
		if c.Intent != nil {
			return x.intent(c.Intent)
		}
		return x.attestation(c.Attestation)
	})
}

// guard runs f and keeps what it did unless f panics or leaves an invariant
// broken. Then all is as before, all outflows halt and the
// answer is BROKEN, the same on every replica since f is pure: a command that
// stopped one node would stop all, again at each replay (spec: consensus §1).
func (x *execution) guard(what string, f func(*execution) Code) (code Code) {
	var before moment
	x.begin(&before)
	defer func() {
		if r := recover(); r != nil {
			x.back(&before)
			code = x.breaks(what) // not r's text: it is the compiler's, and state must not depend on it
		}
	}()
	code = f(x)
	if err := x.s.checkTouched(&before.s); err != nil {
		panic(err)
	}
	x.keep(&before)
	return code
}

// breaks halts all outflows.
func (x *execution) breaks(what string) Code {
	x.s.OutflowsHalt = string(Broken) + ": " + what
	x.emit(Event{Name: "broken", Note: what})
	return Broken
}

// try runs f and keeps what it did only if f answers OK. What panics is for guard
// to take back.
func (x *execution) try(f func(*execution) Code) Code {
	var before moment
	x.begin(&before)
	code := f(x)
	if code == OK {
		x.keep(&before)
	} else {
		x.back(&before)
	}
	return code
}
