package sim

import (
	"bytes"
	"cmp"
	"fmt"
	"math/rand/v2"

	"github.com/coffer-network/coffer/chains/chaintest"
	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// stepMillis is true time per step: half a second is the shortest period that
// anything in a node works by, and a chain's block takes several.
const stepMillis = 500

// restSteps bounds how long a cluster without faults may take to come to rest:
// twice the limit in QUEUED, which is the longest wait there is.
const restSteps = 2 * queueSeconds * 1000 / stepMillis

// Config says what a run is.
type Config struct {
	Seed  uint64
	Steps int // with faults and clients; afterwards the cluster comes to rest

	Churn bool // members change the committee as fast as they can

	votes    float64  // how often members vote, percent of steps; 0: now and then
	patience int      // calm steps to come to rest in; 0: restSteps
	untold   bool     // no member's chain tells what custody holds
	robbed   bool     // a test takes coins away: an asset may be halted for it
	mistakes mistakes // planted ones, for proving that they are found

	at func(p point, m *member, batch uint64) // a test that kills at a point of a payment; nil: none does
}

// point is where a payment stands when a test may kill (spec: outflows §2.4).
type point uint8

const (
	pointPlanned   point = iota // an attempt is in the log, nobody has applied it; the member leads
	pointCertified              // the member has a certificate over the plan, and joins
	pointJoined                 // all parties of a session have joined it, this one among them
	pointSigned                 // the last round is done here alone, and not on disk
	pointStored                 // on disk here alone, and nobody told
	pointSent                   // the member's endpoint took the transaction
)

// reached tells a test of a point; true: the member is dead since.
func (s *sim) reached(p point, m *member, batch uint64) bool {
	if b, _ := s.reference.Batches.Get(batch); s.cfg.at != nil && b.Kind == ledger.BatchPay && m.up {
		s.cfg.at(p, m, batch)
	}
	return !m.up
}

// mistakes are what members and replicas of ours could do wrong. Tests plant
// them; a run without tests has none.
type mistakes struct {
	build     func(*member, ledger.Batch, ledger.Attempt) (ledger.Attempt, bool) // another transaction to be signed instead
	blind     bool                                                               // members sign without VerifySpend
	unweighed bool                                                               // members sign without a good balance
	fenceless bool                                                               // members sign without asking the chain
	skip      func(m *member, height uint64) bool                                // a replica passes over a command
	claim     func(*member) []any                                                // facts that the member says besides
}

// Report counts what a run was made of.
type Report struct {
	Seed                                       uint64
	Members, Steps, RestSteps                  int
	Commands, Intents, Refused                 int
	Outflows, Paid, Refunded                   int
	Deposits, Credited, Suspended              int
	Kills, Restarts, Replayed, Pauses, Elected int
	Lost, Late, Doubled                        int
	Reorgs, Blocks, Congestions                int
	Boosted, Recoups, Reversed                 int
	Bumps, Repriced, Cancels, Requeued         int
	Sessions, Aborted, Signatures, Variants    int
	Fenced                                     int
	Balances, Good, Short, Unproven            int
	Broadcasts, Retries, Compared              int
	Lies, Spoilt, Blamed, PassedOver           int
	Flips, Dropped, Rollbacks, Wiped           int
	Votes, Holds, Booked, Gifts                int // votes that took effect
	NativeDeposits, NativePaid                 int
	Twice, Vanished                            int // payouts that the chains show more often than the ledger calls PAID, or less often
	Codes                                      map[ledger.Code]int
	Head                                       ledger.Hash
}

// Totals are what runs come to together.
type Totals struct {
	Runs int
	Report
}

// Add takes in one run more.
func (t *Totals) Add(r Report) {
	t.Runs++
	for _, x := range []struct {
		to   *int
		more int
	}{
		{&t.Commands, r.Commands}, {&t.Outflows, r.Outflows}, {&t.Paid, r.Paid}, {&t.Refunded, r.Refunded}, {&t.NativePaid, r.NativePaid},
		{&t.Requeued, r.Requeued}, {&t.Deposits, r.Deposits}, {&t.NativeDeposits, r.NativeDeposits}, {&t.Reversed, r.Reversed},
		{&t.Kills, r.Kills}, {&t.Reorgs, r.Reorgs}, {&t.Blocks, r.Blocks}, {&t.Bumps, r.Bumps}, {&t.Repriced, r.Repriced},
		{&t.Cancels, r.Cancels}, {&t.Recoups, r.Recoups}, {&t.Votes, r.Votes}, {&t.Holds, r.Holds}, {&t.Gifts, r.Gifts}, {&t.Booked, r.Booked},
		{&t.Variants, r.Variants}, {&t.Flips, r.Flips}, {&t.Wiped, r.Wiped}, {&t.Lies, r.Lies}, {&t.Twice, r.Twice}, {&t.Vanished, r.Vanished},
	} {
		*x.to += x.more
	}
}

func (t Totals) String() string {
	return fmt.Sprintf("totals of %d runs: %d commands, %d outflows, %d payouts made (%d in ETH), %d refunded, %d paid under another anchor, "+
		"%d deposits (%d of ETH, %d taken back), %d kills, %d reorgs in %d blocks, %d bumps, %d repriced, %d cancels, %d recoups, "+
		"%d votes took effect, %d times on HOLD, %d gifts (%d booked), %d payloads signed twice, %d epochs, %d lies; %d paid twice, %d lost",
		t.Runs, t.Commands, t.Outflows, t.Paid, t.NativePaid, t.Refunded, t.Requeued, t.Deposits, t.NativeDeposits, t.Reversed,
		t.Kills, t.Reorgs, t.Blocks, t.Bumps, t.Repriced, t.Cancels, t.Recoups, t.Votes, t.Holds, t.Gifts, t.Booked, t.Variants, t.Flips, t.Lies, t.Twice, t.Vanished)
}

func (r Report) String() string {
	return fmt.Sprintf("seed %d: %d members, %d+%d steps, %d commands (%d intents, %d refused), %d outflows (%d paid, %d refunded), "+
		"%d deposits (%d credited, %d in suspense), %d kills, %d restarts (%d replayed from genesis, %d compared byte by byte), "+
		"%d leader pauses, %d elections, %d submissions lost, %d late, %d doubled, %d lies, %d sessions spoilt (%d blamed, %d plans without the blamed first), %d reorgs in %d blocks, "+
		"%d votes took effect, %d times on HOLD, %d gifts (%d booked), %d native deposits, %d native payouts, "+
		"%d boosted, %d recoups, %d deposits taken back, %d congestions, %d bumps, %d repriced, %d cancels, %d paid again, "+
		"%d sessions (%d aborted), %d times fenced off, %d balances counted (%d good, %d short), %d times without one, %d signatures (%d variants), %d retries, %d broadcasts, %d epochs (%d rollbacks, %d dropped), %d shares wiped, head %.8s",
		r.Seed, r.Members, r.Steps, r.RestSteps, r.Commands, r.Intents, r.Refused, r.Outflows, r.Paid, r.Refunded,
		r.Deposits, r.Credited, r.Suspended, r.Kills, r.Restarts, r.Replayed, r.Compared,
		r.Pauses, r.Elected, r.Lost, r.Late, r.Doubled, r.Lies, r.Spoilt, r.Blamed, r.PassedOver, r.Reorgs, r.Blocks,
		r.Votes, r.Holds, r.Gifts, r.Booked, r.NativeDeposits, r.NativePaid,
		r.Boosted, r.Recoups, r.Reversed, r.Congestions, r.Bumps, r.Repriced, r.Cancels, r.Requeued,
		r.Sessions, r.Aborted, r.Fenced, r.Balances, r.Good, r.Short, r.Unproven, r.Signatures, r.Variants, r.Retries, r.Broadcasts, r.Flips, r.Rollbacks, r.Dropped, r.Wiped, r.Head)
}

// sim is one run.
type sim struct {
	cfg  Config
	rng  *rand.Rand
	step int
	now  uint64 // true time, Unix ms
	rest bool   // no more faults, no more clients
	err  error  // the first thing that went wrong
	rep  Report

	genesis   ledger.Genesis
	reference *ledger.State // never killed, never behind
	log       order
	mail      map[int][]func() // by step
	members   []*member
	dealer    *dealer
	sessions  map[sessionName]*session
	open      []*session // in the order they began
	btc, eth  *chaintest.Fake
	world     world
	clients   []*client
	auditor   *auditor
	weighed   map[string]uint64 // by asset: when the newest balance that counted was asked for
}

// Run is one run. The error says what went wrong, with seed and step.
func Run(cfg Config) (Report, error) {
	s := newRun(cfg)
	err := s.run()
	return s.rep, err
}

func newRun(cfg Config) *sim {
	s := &sim{
		cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 0xc0ffe4)), now: startMillis,
		mail: map[int][]func(){}, sessions: map[sessionName]*session{}, weighed: map[string]uint64{},
		rep: Report{Seed: cfg.Seed, Steps: cfg.Steps, Codes: map[ledger.Code]int{}},
	}
	s.found()
	return s
}

func (s *sim) run() error {
	for s.step = 0; s.step < s.cfg.Steps && s.err == nil; s.step++ {
		s.turn()
	}
	s.calm()
	patience := cmp.Or(s.cfg.patience, restSteps)
	for ; s.step < s.cfg.Steps+patience && s.err == nil; s.step++ {
		s.turn()
		if s.step%10 == 0 && s.auditor.atRest() == nil && s.caughtUp() {
			break
		}
	}
	s.rep.RestSteps = max(s.step-s.cfg.Steps, 0)
	if s.err == nil {
		if err := s.auditor.atRest(); err != nil {
			s.fail("not at rest after %d calm steps: %w", patience, err)
		}
	}
	for _, m := range s.members {
		s.compare(m)
	}
	s.rep.Head = s.reference.Head
	s.auditor.tally()
	if s.err != nil {
		return fmt.Errorf("seed %d step %d: %w", s.cfg.Seed, s.step, s.err)
	}
	return nil
}

// turn is one step: the world first, then the log, then every member in a
// random order.
func (s *sim) turn() {
	s.now += stepMillis
	s.world.turn(s)
	for _, f := range s.mail[s.step] {
		f()
	}
	delete(s.mail, s.step)
	s.log.turn(s)
	if !s.rest {
		s.faults()
	}
	for _, i := range s.rng.Perm(len(s.members)) {
		if m := s.members[i]; m.up && s.err == nil {
			m.turn()
		}
	}
	s.runKeygens()
	s.runSessions()
	if !s.rest {
		s.runClients()
	}
}

// after runs f n steps from now, n ≥ 1.
func (s *sim) after(n int, f func()) { s.mail[s.step+n] = append(s.mail[s.step+n], f) }

// chance is true in percent of the cases.
func (s *sim) chance(percent float64) bool { return s.rng.Float64()*100 < percent }

// trouble is chance while faults are on.
func (s *sim) trouble(percent float64) bool { return !s.rest && s.chance(percent) }

// between is a number from low to high, both included.
func (s *sim) between(low, high int) int { return low + s.rng.IntN(high-low+1) }

func (s *sim) fail(format string, args ...any) {
	if s.err == nil {
		s.err = fmt.Errorf(format, args...)
	}
}

// faults kills and restarts members. Not more are down at once than may be
// silent, most of the time: the rest of the time nothing may move, and nothing
// may go wrong either.
func (s *sim) faults() {
	down := 0
	for _, m := range s.members {
		if !m.up {
			if s.reference.Epoch().Has(m.id) {
				down++
			}
			if s.chance(4) {
				m.restart()
				down = max(down-1, 0)
			}
		}
	}
	limit := max(s.reference.Epoch().C(), 1)
	if s.step/100%7 == 6 {
		limit = len(s.members) // a bad hour
	}
	often := 3.0
	if s.reference.Epoch().Number == 0 {
		often = 0.7 // the first keys need every member, again and again
	}
	if m := s.members[s.rng.IntN(len(s.members))]; m.up && down < limit && s.chance(often) {
		m.kill()
	}
}

// calm ends all faults: everybody comes back, and the world is kind.
func (s *sim) calm() {
	s.rest = true
	s.log.calm(s)
	s.world.calm(s)
	for _, m := range s.members {
		m.stalled = 0
		if !m.up {
			m.restart()
		}
	}
}

func (s *sim) caughtUp() bool {
	for _, m := range s.members {
		if m.up && m.state.Height != s.reference.Height {
			return false
		}
	}
	return true
}

// compare is byte by byte: a replica that was killed and restored against the
// one that never was.
func (s *sim) compare(m *member) {
	if s.err != nil || m.state == nil || m.state.Height != s.reference.Height {
		return
	}
	s.rep.Compared++
	if !bytes.Equal(ledger.Marshal(m.state), ledger.Marshal(s.reference)) {
		s.fail("replica %d differs from the reference at height %d", m.i, m.state.Height)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func add(a, b fixed.Int) fixed.Int { return must(fixed.Add(a, b)) }
