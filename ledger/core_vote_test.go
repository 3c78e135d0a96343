package ledger

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/coffer-network/coffer/ledger/fixed"
)

// young is a cluster without keys, where time may leap, whose FactQuorum of 2
// is below Q = 3.
func young(t testing.TB) *cluster {
	t.Helper()
	c := newCluster(t)
	g, _ := coreGenesis()
	g.Epoch.FactQuorum = 2
	s, err := NewState(g)
	if err != nil {
		t.Fatal(err)
	}
	c.s = s
	c.tick(1000)
	return c
}

// leap moves the time of a young cluster on at once.
func (c *cluster) leap(seconds uint64) {
	c.t.Helper()
	to := c.s.Millis + seconds*1000
	c.all(KindClock, Clock{Millis: to})
	if c.s.Millis != to {
		c.t.Fatalf("ledger time %d, want %d", c.s.Millis, to)
	}
}

func (c *cluster) propose(i int, p Proposal) Code {
	c.t.Helper()
	return c.say(i, KindVote, Vote{Hash: p.Hash(), Yes: true, Proposal: &p})
}

func (c *cluster) yes(i int, p Proposal) Code {
	c.t.Helper()
	return c.say(i, KindVote, Vote{Hash: p.Hash(), Yes: true})
}

func (c *cluster) no(i int, p Proposal) Code {
	c.t.Helper()
	return c.say(i, KindVote, Vote{Hash: p.Hash()})
}

// carried has members 0 to 2, which are Q, vote for p.
func (c *cluster) carried(p Proposal) {
	c.t.Helper()
	if code := c.propose(0, p); code != OK {
		c.t.Fatalf("propose %+v: %s", p, code)
	}
	for i := 1; i < 3; i++ {
		if !c.s.Ballots.has(p.Hash().String()) {
			return
		}
		if code := c.yes(i, p); code != OK {
			c.t.Fatalf("vote %d on %+v: %s", i, p, code)
		}
	}
}

func setting1(pool, name, value string) Proposal {
	return Proposal{Kind: ProposeSet, Text: "because", Changes: []Change{{pool, name, value}}}
}

func stop(pool string, f Flag) Proposal {
	return Proposal{Kind: ProposeStop, Text: "because", Pool: pool, Flag: f}
}

func lift(pool string, f Flag) Proposal {
	return Proposal{Kind: ProposeLift, Text: "because", Pool: pool, Flag: f}
}

func (c *cluster) lastDecided() Decided {
	c.t.Helper()
	if len(c.s.Decided) == 0 {
		return Decided{}
	}
	return c.s.Decided[len(c.s.Decided)-1]
}

// The table of spec committee §9: who is needed, and how long it waits.
func TestVoteQuorumsAndDelays(t *testing.T) {
	const hour, day = 3_600, 86_400
	param := func(f func(PoolParam) bool) func(*State) bool {
		return func(s *State) bool { return f(s.Pools.at("btc").Param) }
	}
	pool := func(f func(Pool) bool) func(*State) bool { return func(s *State) bool { return f(s.Pools.at("btc")) } }
	change := func(f func(*Pool)) func(*State) {
		return func(s *State) { p := s.Pools.at("btc"); f(&p); s.Pools.put("btc", p) }
	}
	capped := change(func(p *Pool) { p.Param.BorrowCap, p.Param.SupplyCap = fixed.New(500), fixed.New(500) })
	for name, tc := range map[string]struct {
		before func(*State)
		p      Proposal
		quorum int
		delay  uint64
		took   func(*State) bool
	}{
		"freeze":              {nil, stop("btc", FlagFrozen), 2, 0, pool(func(p Pool) bool { return p.Frozen })},
		"pause a pool":        {nil, stop("btc", FlagPaused), 2, 0, pool(func(p Pool) bool { return p.Paused })},
		"borrowing off":       {nil, stop("", FlagBorrowOff), 2, 0, func(s *State) bool { return s.BorrowOff }},
		"borrowing off, pool": {nil, stop("btc", FlagBorrowOff), 2, 0, pool(func(p Pool) bool { return !p.BorrowEnabled })},
		"halt":                {nil, stop("", FlagHalt), 2, 0, func(s *State) bool { return s.OutflowsHalt == "vote: because" }},
		"unfreeze": {change(func(p *Pool) { p.Frozen = true }), lift("btc", FlagFrozen), 3, hour,
			pool(func(p Pool) bool { return !p.Frozen })},
		"unpause": {change(func(p *Pool) { p.Paused = true }), lift("btc", FlagPaused), 3, hour,
			pool(func(p Pool) bool { return !p.Paused })},
		"borrowing on": {func(s *State) { s.BorrowOff = true }, lift("", FlagBorrowOff), 3, hour,
			func(s *State) bool { return !s.BorrowOff }},
		"borrowing on, pool": {change(func(p *Pool) { p.BorrowEnabled = false }), lift("btc", FlagBorrowOff), 3, hour,
			pool(func(p Pool) bool { return p.BorrowEnabled })},
		"unhalt": {func(s *State) { s.OutflowsHalt = "HOLD: x" },
			Proposal{Kind: ProposeLift, Text: "looked at", Flag: FlagHalt, Halt: "HOLD: x"}, 3, hour,
			func(s *State) bool { return s.OutflowsHalt == "" }},
		"a cap up": {capped, setting1("btc", "borrow_cap", "501"), 3, 2 * day, param(func(p PoolParam) bool { return p.BorrowCap == fixed.New(501) })},
		"an outflow cap up": {change(func(p *Pool) { p.Param.CapHour = fixed.New(500) }), setting1("btc", "cap_hour", "501"), 3, 2 * day,
			param(func(p PoolParam) bool { return p.CapHour == fixed.New(501) })},
		"an outflow cap taken away": {change(func(p *Pool) { p.Param.CapHourBps = 500 }), setting1("btc", "cap_hour_bps", "0"), 3, 2 * day,
			param(func(p PoolParam) bool { return p.CapHourBps == 0 })},
		"an outflow cap down": {change(func(p *Pool) { p.Param.CapDayBps = 500 }), setting1("btc", "cap_day_bps", "400"), 3, 0,
			param(func(p PoolParam) bool { return p.CapDayBps == 400 })},
		"a cap taken away": {capped, setting1("btc", "supply_cap", "0"), 3, 2 * day, param(func(p PoolParam) bool { return p.SupplyCap.IsZero() })},
		"a cap down":       {capped, setting1("btc", "borrow_cap", "499"), 3, 0, param(func(p PoolParam) bool { return p.BorrowCap == fixed.New(499) })},
		"a first cap":      {nil, setting1("btc", "supply_cap", "5"), 3, 0, param(func(p PoolParam) bool { return p.SupplyCap == fixed.New(5) })},
		"ltv up":           {nil, setting1("btc", "ltv", "7600"), 3, 2 * day, param(func(p PoolParam) bool { return p.LTV == 7600 })},
		"lt up":            {nil, setting1("btc", "lt", "8100"), 3, 2 * day, param(func(p PoolParam) bool { return p.LT == 8100 })},
		"a rate":           {nil, setting1("btc", "s1", "500"), 3, 2 * day, param(func(p PoolParam) bool { return p.S1 == 500 })},
		"a fee":            {nil, setting1("btc", "liq_fee", "900"), 3, 2 * day, param(func(p PoolParam) bool { return p.LiqFee == 900 })},
		"the same asset":   {nil, setting1("btc", "same_asset", "true"), 3, 2 * day, param(func(p PoolParam) bool { return p.SameAsset })},
		"ltv down":         {nil, setting1("btc", "ltv", "7450"), 3, 7 * day, param(func(p PoolParam) bool { return p.LTV == 7450 })},
		"lt down":          {nil, setting1("btc", "lt", "7950"), 3, 7 * day, param(func(p PoolParam) bool { return p.LT == 7950 })},
		"one of each": {nil, Proposal{Kind: ProposeSet, Text: "x", Changes: []Change{{"", "queue_seconds", "1000"}, {"btc", "lt", "7950"}, {"btc", "supply_cap", "5"}}}, 3, 7 * day,
			func(s *State) bool {
				p := s.Pools.at("btc").Param
				return p.LT == 7950 && p.SupplyCap == fixed.New(5) && s.Params.QueueSeconds == 1000
			}},
		"a parameter of all": {nil, setting1("", "price_max_age", "90"), 3, 2 * day, func(s *State) bool { return s.Params.PriceMaxAge == 90 }},
		"a scheme on":        {nil, setting1("", "eip712", "true"), 3, 2 * day, func(s *State) bool { return s.Params.EIP712 }},
		"a scheme off":       {func(s *State) { s.Params.EIP712 = true }, setting1("", "eip712", "false"), 3, 0, func(s *State) bool { return !s.Params.EIP712 }},
		"resume": {func(s *State) {
			s.Pauses.put(s.Epoch().Members[3].ID.String(), MemberPause{Until: s.Millis + 1_000_000, Began: []uint64{s.Millis}})
		},
			Proposal{Kind: ProposeResume, Text: "seen"}, 3, 0, func(s *State) bool { return s.Stopped() == "" }},
	} {
		t.Run(name, func(t *testing.T) {
			c := young(t)
			if tc.before != nil {
				tc.before(c.s)
			}
			key := tc.p.Hash().String()
			for i := range tc.quorum {
				if tc.took(c.s) || c.s.Ballots.at(key).Passed != 0 {
					t.Fatalf("%d votes were enough, want %d", i, tc.quorum)
				}
				vote := c.yes
				if i == 0 {
					vote = c.propose
				}
				if code := vote(i, tc.p); code != OK {
					t.Fatalf("vote %d: %s", i, code)
				}
			}
			if tc.delay > 0 {
				if b := c.s.Ballots.at(key); b.Passed != c.s.Millis || b.Due != c.s.Millis+tc.delay*1000 {
					t.Fatalf("passed at %d, due at %d; now %d, delay %d s", b.Passed, b.Due, c.s.Millis, tc.delay)
				}
				version := c.s.ParamsVersion
				c.leap(tc.delay - 1)
				if tc.took(c.s) || c.s.ParamsVersion != version {
					t.Fatal("it took effect a second early")
				}
				c.leap(1)
			}
			if !tc.took(c.s) || c.s.Ballots.has(key) || c.lastDecided().How != DecidedDone || c.s.ParamsVersion != 1 {
				t.Fatalf("no effect: %+v, version %d", c.lastDecided(), c.s.ParamsVersion)
			}
		})
	}
}

// A vote of two members who are the FactQuorum stops; it never lifts, and one
// who is no member neither proposes nor votes.
func TestVoteRefusals(t *testing.T) {
	c := young(t)
	p := setting1("btc", "s1", "500")
	other := p
	other.Text = "for another reason"
	long := p
	long.Text = strings.Repeat("x", maxProposalText+1)
	many := p
	many.Changes = nil
	for i := range maxChanges + 1 {
		many.Changes = append(many.Changes, Change{"btc", fmt.Sprintf("%02d", i), "1"})
	}
	body := func(p Proposal) Vote { return Vote{Hash: p.Hash(), Yes: true, Proposal: &p} }
	foreign := memberKey(9)
	for name, tc := range map[string]struct {
		v    Vote
		code Code
	}{
		"about nothing that is open":     {Vote{Hash: p.Hash(), Yes: true}, NotAllowed},
		"a no that proposes":             {Vote{Hash: p.Hash(), Proposal: &p}, Malformed},
		"another proposal's hash":        {Vote{Hash: other.Hash(), Yes: true, Proposal: &p}, Malformed},
		"no text":                        {body(Proposal{Kind: ProposeSet, Changes: p.Changes}), Malformed},
		"a text of two lines":            {body(Proposal{Kind: ProposeSet, Text: "a\nb", Changes: p.Changes}), Malformed},
		"too long a text":                {body(long), Malformed},
		"no change":                      {body(Proposal{Kind: ProposeSet, Text: "x"}), Malformed},
		"too many changes":               {body(many), Malformed},
		"changes not sorted":             {body(Proposal{Kind: ProposeSet, Text: "x", Changes: []Change{{"btc", "s2", "1"}, {"btc", "s1", "1"}}}), Malformed},
		"a change twice":                 {body(Proposal{Kind: ProposeSet, Text: "x", Changes: []Change{{"btc", "s1", "1"}, {"btc", "s1", "2"}}}), Malformed},
		"a kind that is none":            {body(Proposal{Kind: 99, Text: "x"}), Malformed},
		"no kind":                        {body(Proposal{Text: "x"}), Malformed},
		"a set with a flag":              {body(Proposal{Kind: ProposeSet, Text: "x", Changes: p.Changes, Flag: FlagFrozen}), Malformed},
		"a stop with changes":            {body(Proposal{Kind: ProposeStop, Text: "x", Pool: "btc", Flag: FlagFrozen, Changes: p.Changes}), Malformed},
		"a freeze of no pool":            {body(stop("", FlagFrozen)), Malformed},
		"a halt of no asset":             {body(stop("doge", FlagHalt)), UnknownPool},
		"a lift of an asset's, no cause": {body(lift("btc", FlagHalt)), Malformed},
		"a flag that is none":            {body(stop("btc", 9)), Malformed},
		"a lift of a halt, no cause":     {body(lift("", FlagHalt)), Malformed},
		"a stop with a cause":            {body(Proposal{Kind: ProposeStop, Text: "x", Flag: FlagHalt, Halt: "y"}), Malformed},
		"a lift of what is not":          {body(lift("btc", FlagFrozen)), BadParam},
		"a resume of nothing":            {body(Proposal{Kind: ProposeResume, Text: "x"}), BadParam},
		"a freeze of an unknown pool":    {body(stop("doge", FlagFrozen)), UnknownPool},
		"a change of an unknown pool":    {body(setting1("doge", "s1", "1")), UnknownPool},
		"no deficit":                     {body(Proposal{Kind: ProposeSocialise, Text: "x", Pool: "btc"}), NoDeficit},
		"socialise where":                {body(Proposal{Kind: ProposeSocialise, Text: "x", Pool: "doge"}), UnknownPool},
		"what changes nothing":           {body(setting1("btc", "s1", "400")), BadParam},
		"a name that is none":            {body(setting1("btc", "s9", "1")), BadParam},
		"a pool's name for all":          {body(setting1("", "s1", "1")), BadParam},
		"the oracle's round":             {body(setting1("", "round_seconds", "30")), BadParam},
		"the delays":                     {body(setting1("", "set_seconds", "1")), BadParam},
		"another spelling":               {body(setting1("btc", "s1", "0500")), BadParam},
		"a sign":                         {body(setting1("btc", "s1", "+500")), BadParam},
		"a word":                         {body(setting1("btc", "same_asset", "yes")), BadParam},
		"2^64":                           {body(setting1("btc", "s1", "18446744073709551616")), BadParam},
		"2^128":                          {body(setting1("btc", "supply_cap", "340282366920938463463374607431768211456")), BadParam},
	} {
		before := frame(c.s)
		if code := c.say(0, KindVote, tc.v); code != tc.code || frame(c.s) != before {
			t.Errorf("%s: %s, want %s and nothing changed", name, code, tc.code)
		}
	}
	// Nor does one who is to be a member and is not yet.
	next := c.s.Epoch()
	next.Number, next.Members = 1, append(next.Members[:len(next.Members):len(next.Members)], Member{ID: idOf(foreign), Name: "node-9", Operator: "operator-9"})
	c.s.Next, c.broken = &NextEpoch{Epoch: next}, true
	for _, a := range []*Attestation{
		NewAttestation(foreign, c.s.Cluster, 1, KindVote, body(p)),
		NewAttestation(foreign, c.s.Cluster, 2, KindPause, Pause{Seconds: 60}),
	} {
		if code := c.run(Command{Attestation: a}); code != NotAllowed || c.s.Ballots.len() != 0 || c.s.Stopped() != "" {
			t.Errorf("a coming member's word of kind %d: %s", a.Kind, code)
		}
	}
	c.s.Next, c.broken = nil, false
	before := frame(c.s)
	for _, a := range []*Attestation{
		NewAttestation(foreign, c.s.Cluster, 1, KindVote, body(p)),
		NewAttestation(foreign, c.s.Cluster, 1, KindPause, Pause{Seconds: 60}),
	} {
		if code := c.run(Command{Attestation: a}); code != NotAllowed || frame(c.s) != before {
			t.Errorf("a stranger's word of kind %d: %s", a.Kind, code)
		}
	}
}

// Every constraint of lending §3 refuses the proposal, and the present
// parameters stay.
func TestVoteConstraints(t *testing.T) {
	set := func(pool string, pairs ...string) Proposal {
		p := Proposal{Kind: ProposeSet, Text: "x"}
		for i := 0; i < len(pairs); i += 2 {
			p.Changes = append(p.Changes, Change{pool, pairs[i], pairs[i+1]})
		}
		return p
	}
	c := young(t)
	for name, p := range map[string]Proposal{
		"ltv above lt":              set("btc", "ltv", "8001"),
		"lt below ltv":              set("btc", "lt", "7499"),
		"lt·bonus":                  set("btc", "lt", "9100"),
		"bonus times lt":            set("btc", "bonus", "11876"),
		"bonus below one":           set("btc", "bonus", "9999"),
		"opt too low":               set("btc", "opt", "99"),
		"opt too high":              set("btc", "opt", "9901"),
		"s1 above s2":               set("btc", "s1", "30001"),
		"base + s1 + s2":            set("btc", "base", "69601"),
		"a sum that would wrap":     set("btc", "base", "18446744073709551615", "s2", "30001"),
		"rf":                        set("btc", "rf", "5001"),
		"min_supply 0":              set("btc", "min_supply", "0"),
		"min_borrow 0":              set("btc", "min_borrow", "0"),
		"min_withdraw 0":            set("btc", "min_withdraw", "0"),
		"liq_fee":                   set("btc", "liq_fee", "10001"),
		"no presence":               set("", "presence_millis", "0"),
		"an endless attempt":        set("", "attempt_millis", "18446744073709551615"),
		"no fee age":                set("", "fee_max_age_millis", "0"),
		"no price age":              set("", "price_max_age", "0"),
		"no liquidation age":        set("", "liquidation_age", "0"),
		"no deviation":              set("", "deviation_bps", "0"),
		"every deviation":           set("", "deviation_bps", "10001"),
		"an alert out of range":     set("", "twap_alert_bps", "10001"),
		"no expiry":                 set("", "expiry_seconds", "0"),
		"an endless queue":          set("", "queue_seconds", "2592001"),
		"a coin that nobody spends": set("", "min_coin", "100000001"),
		"no sweep multiple":         set("", "sweep_multiple", "0"),
	} {
		before := frame(c.s)
		if code := c.propose(0, p); code != BadParam || frame(c.s) != before {
			t.Errorf("%s: %s, want BAD_PARAM and nothing changed", name, code)
		}
	}
	// Both bounds moved together are no contradiction.
	if code := c.propose(0, set("btc", "lt", "8200", "ltv", "8100")); code != OK {
		t.Errorf("ltv and lt together: %s", code)
	}
}

// "set … validate constraints; sync at the old parameters; store; recompute
// rates": validated again when it takes effect, and BAD_PARAM keeps the old.
func TestVoteIsValidatedAgain(t *testing.T) {
	c := young(t)
	up, other := setting1("btc", "ltv", "8000"), setting1("btc", "lt", "7900")
	c.carried(other) // due in 7 days
	c.leap(6 * 86_400)
	c.carried(up) // 48 h: one day after the other
	c.leap(86_400)
	if p := c.s.Pools.at("btc").Param; p.LT != 7900 {
		t.Fatalf("lt %d", p.LT)
	}
	c.leap(86_400)
	if p := c.s.Pools.at("btc").Param; p.LTV != 7500 || c.lastDecided().How != DecidedRefused || c.lastDecided().Code != BadParam || c.s.ParamsVersion != 1 {
		t.Errorf("ltv %d, %+v: above lt it must be refused and change nothing", p.LTV, c.lastDecided())
	}

	// A raise that has become a fall must wait as a fall does.
	c = young(t)
	c.carried(setting1("btc", "ltv", "7600"))
	p := c.s.Pools.at("btc")
	p.Param.LTV = 7700
	c.s.Pools.put("btc", p)
	c.leap(2 * 86_400)
	if p := c.s.Pools.at("btc").Param; p.LTV != 7700 || c.lastDecided().Code != BadParam {
		t.Errorf("ltv %d, %+v: a fall after 48 h", p.LTV, c.lastDecided())
	}
}

// A change of rates accrues at the old ones first.
func TestVoteSyncsAtTheOldParameters(t *testing.T) {
	c, _, borrower := lent(t)
	if code := c.ask(borrower, c.borrowUSDT("20000000000")); code != OK {
		t.Fatal(code)
	}
	c.tick(60_000)
	before := c.s.Pools.at("usdt.eth")
	c.s.Params.SetSeconds = 1
	c.carried(setting1("usdt.eth", "base", "5000"))
	c.tick(1_000)
	after := c.s.Pools.at("usdt.eth")
	want := before.accrue(c.s.Time())
	if after.BorrowIndex != want.BorrowIndex || after.Param.Base != 5000 || !before.BorrowRate.Less(after.BorrowRate) {
		t.Errorf("index %s, want %s; rate %s after %s", after.BorrowIndex, want.BorrowIndex, after.BorrowRate, before.BorrowRate)
	}
}

// "lowering LTV or LiquidationThreshold: 7 d, in steps of at most 100 bps per
// day", whoever many proposals there are for it.
func TestVoteStepsDown(t *testing.T) {
	const day = 86_400
	c := young(t)
	p := Proposal{Kind: ProposeSet, Text: "x", Changes: []Change{{"btc", "lt", "7750"}, {"btc", "ltv", "7250"}}}
	c.carried(p)
	again := p
	again.Text = "the same at once"
	again.Changes = []Change{{"btc", "ltv", "7200"}}
	c.carried(again)
	at := func(lt, ltv uint64) {
		t.Helper()
		if p := c.s.Pools.at("btc").Param; p.LT != lt || p.LTV != ltv {
			t.Fatalf("lt %d, ltv %d; want %d, %d", p.LT, p.LTV, lt, ltv)
		}
	}
	c.leap(7*day - 1)
	at(8000, 7500)
	c.leap(1)
	at(7900, 7400)
	c.leap(day - 1)
	at(7900, 7400)
	for range 20 { // both go on, and no day takes more than one step
		before := c.s.Pools.at("btc").Param
		c.leap(day)
		after := c.s.Pools.at("btc").Param
		if before.LTV-after.LTV > maxStepBps || before.LT-after.LT > maxStepBps {
			t.Fatalf("ltv %d to %d, lt %d to %d within a day", before.LTV, after.LTV, before.LT, after.LT)
		}
		if c.s.Ballots.len() == 0 {
			break
		}
	}
	at(7750, 7200)
	if c.s.Ballots.len() != 0 || c.lastDecided().How != DecidedDone {
		t.Errorf("%d open, %+v", c.s.Ballots.len(), c.lastDecided())
	}
}

// socialise: "Q, twice, ≥ 24 h apart; 24 h".
func TestVoteSocialiseTwice(t *testing.T) {
	const day = 86_400
	c := young(t)
	pool := c.s.Pools.at("btc")
	pool.TreasuryShares, pool.Cash, pool.Credited, pool.Deficit = fixed.New(1000), fixed.New(900), fixed.New(900), fixed.New(100)
	c.s.Pools.put("btc", pool)
	p := Proposal{Kind: ProposeSocialise, Text: "x", Pool: "btc"}
	key := p.Hash().String()
	c.carried(p)
	if b := c.s.Ballots.at(key); b.First != c.s.Millis || b.Passed != 0 || len(b.Yes) != 0 {
		t.Fatalf("after the first quorum: %+v", b)
	}
	c.leap(day - 1)
	before := frame(c.s)
	if code := c.yes(0, p); code != Timelock || frame(c.s) != before {
		t.Fatalf("a second vote before its day: %s", code)
	}
	c.leap(1)
	for i := range 3 {
		if code := c.yes(i, p); code != OK {
			t.Fatal(code)
		}
	}
	c.leap(day - 1)
	if c.s.Pools.at("btc").Deficit.IsZero() {
		t.Fatal("socialised before its day")
	}
	c.leap(1)
	if got := c.s.Pools.at("btc"); !got.Deficit.IsZero() || !got.SupplyIndex.Less(fixed.Ray) || c.lastDecided().How != DecidedDone {
		t.Errorf("deficit %s, index %s, %+v", got.Deficit, got.SupplyIndex, c.lastDecided())
	}
}

// A vote may be taken back until it counts; who is alone for it withdraws it;
// it expires after seven days.
func TestVoteMindsChangeAndProposalsExpire(t *testing.T) {
	c := young(t)
	p := setting1("btc", "s1", "500")
	c.propose(0, p)
	c.yes(1, p)
	if code := c.no(1, p); code != OK {
		t.Fatal(code)
	}
	if code := c.yes(2, p); code != OK || c.s.Ballots.at(p.Hash().String()).Passed != 0 {
		t.Fatalf("%s: a vote that was taken back counts", code)
	}
	if code := c.yes(1, p); code != OK || c.s.Ballots.at(p.Hash().String()).Passed == 0 {
		t.Fatalf("%s: three are for it", code)
	}
	before := frame(c.s)
	if code := c.no(1, p); code != NotAllowed || frame(c.s) != before {
		t.Errorf("a no after it counted: %s", code)
	}
	if code := c.yes(3, p); code != OK {
		t.Errorf("a late yes: %s", code)
	}

	p = setting1("btc", "s1", "600")
	c.propose(0, p)
	if code := c.no(0, p); code != OK || c.lastDecided().How != DecidedWithdrawn {
		t.Errorf("%s, %+v", code, c.lastDecided())
	}

	c.propose(0, p)
	c.yes(1, p)
	c.leap(7*86_400 - 1)
	if !c.s.Ballots.has(p.Hash().String()) {
		t.Fatal("expired a second early")
	}
	c.leap(1)
	if c.lastDecided().How != DecidedExpired || c.s.Pools.at("btc").Param.S1 != 500 {
		t.Errorf("%+v", c.lastDecided())
	}
	if code := c.yes(2, p); code != NotAllowed {
		t.Errorf("a vote on what expired: %s", code)
	}
}

// A member's share of what may be open is small; so is the list of what is over.
func TestVoteLimits(t *testing.T) {
	c := young(t)
	p := func(i int) Proposal { return setting1("btc", "s1", fmt.Sprint(1000+i)) }
	for i := range maxOpenByMember {
		if code := c.propose(0, p(i)); code != OK {
			t.Fatal(code)
		}
	}
	before := frame(c.s)
	if code := c.propose(0, p(99)); code != Limit || frame(c.s) != before {
		t.Errorf("one more than %d: %s", maxOpenByMember, code)
	}
	if code := c.propose(1, p(99)); code != OK {
		t.Errorf("another member's: %s", code)
	}
	for i := 0; c.s.Ballots.len() < maxBallots; i++ { // as members come and go
		b := c.s.Ballots.at(p(0).Hash().String())
		b.Proposal.Text = fmt.Sprint(i)
		c.s.Ballots.put(b.Proposal.Hash().String(), b)
	}
	if code := c.propose(2, p(100)); code != Limit {
		t.Errorf("one more than %d in all: %s", maxBallots, code)
	}
	c.leap(7 * 86_400)
	if c.s.Ballots.len() != 0 || len(c.s.Decided) != maxDecided {
		t.Errorf("%d open, %d remembered, want 0 and %d", c.s.Ballots.len(), len(c.s.Decided), maxDecided)
	}
}

// "tested at each vote and each flip": with the epoch, who counts and how many
// are needed may change.
func TestVoteIsCountedAtAFlip(t *testing.T) {
	c := newCluster(t)
	c.tick(1000)
	c.tick(1000)
	c.keygen()
	p := stop("btc", FlagFrozen)
	c.propose(0, p)
	c.yes(1, p)
	if c.s.Pools.at("btc").Frozen {
		t.Fatal("two of three froze the pool")
	}
	c.s.Opening.Epoch.FactQuorum = 2
	c.flip()
	if !c.s.Pools.at("btc").Frozen {
		t.Error("two are the quorum of the new epoch")
	}

	// Who is no member any more does not count.
	c = newCluster(t)
	c.tick(1000)
	c.tick(1000)
	c.keygen()
	q := setting1("btc", "s1", "500")
	c.propose(0, q)
	c.yes(1, q)
	b := c.s.Ballots.at(q.Hash().String())
	b.Yes = withMember(b.Yes, idOf(memberKey(9)))
	c.s.Ballots.put(q.Hash().String(), b)
	c.flip()
	if c.s.Ballots.at(q.Hash().String()).Passed != 0 {
		t.Error("a stranger's vote counted")
	}
}

// A halt is lifted for the cause that was looked at, not for a later one; and
// coins of a HOLD stay frozen when the halt is over.
func TestVoteLiftsTheCauseItNames(t *testing.T) {
	c := young(t)
	c.s.OutflowsHalt = "BROKEN: accrue"
	p := Proposal{Kind: ProposeLift, Text: "fixed", Flag: FlagHalt, Halt: "BROKEN: accrue"}
	c.carried(p)
	c.s.OutflowsHalt = "HOLD: something else"
	c.leap(3_600)
	if c.s.OutflowsHalt == "" || c.lastDecided().Code != BadParam {
		t.Errorf("halt %q, %+v", c.s.OutflowsHalt, c.lastDecided())
	}
}

func TestVoteLeavesHeldCoinsFrozen(t *testing.T) {
	c, _, o, b := planned(t)
	c.all(KindSpent, SpentFact{Batch: b.ID, Foreign: true, Height: c.s.Tips.at(Bitcoin).Height, Block: "block-2"})
	c.s.Params.LiftSeconds = 1
	c.carried(Proposal{Kind: ProposeLift, Text: "looked at", Flag: FlagHalt, Halt: c.s.OutflowsHalt})
	c.tick(1000) // Check runs after every command
	if c.s.OutflowsHalt != "" || c.s.Outflows.at(o.ID).State != Hold || c.s.Coins.at(b.Anchor).State != CoinFrozen {
		t.Errorf("halt %q, outflow %s, coin %d", c.s.OutflowsHalt, c.s.Outflows.at(o.ID).State, c.s.Coins.at(b.Anchor).State)
	}
}

// A pause stops new plans and sessions, and nothing else.
func TestPauseStopsOutflowsAlone(t *testing.T) {
	c, _, borrower := lent(t)
	if code := c.ask(borrower, c.borrowUSDT("20000000000")); code != OK {
		t.Fatal(code)
	}
	c.tick(1000)
	open := c.payment()
	o := open.Outflows[0]
	if code := c.ask(borrower, c.borrowUSDT("1000000000")); code != OK {
		t.Fatal(code)
	}
	if code := c.say(1, KindPause, Pause{Seconds: 600}); code != OK {
		t.Fatal(code)
	}
	by, until, paused := c.s.PausedBy()
	if !paused || by != idOf(c.keys[1]) || until != c.s.Millis+600_000 {
		t.Fatalf("paused %v by %s until %d", paused, by, until)
	}
	tx := open.Newest().Ethereum
	err := c.s.VerifySpend(open.ID, open.Newest().K, []string{open.Anchor}, []Payment{{Asset: "usdt.eth", To: payeeETH, Amount: c.s.Outflows.at(o).Net}})
	if tx == nil || err == nil || !strings.Contains(err.Error(), "paused") {
		t.Errorf("a session of a paused cluster: %v", err)
	}
	k := open.Newest().K
	c.tick(400_000) // beyond the attempt's deadline
	c.refresh()     // its gates pass
	c.tick(1000)
	if got := c.s.Batches.at(open.ID).Newest().K; got != k || len(c.payments()) != 1 {
		t.Errorf("attempt %d after %d, %d payments: planned while paused", got, k, len(c.payments()))
	}
	for i := range 3 { // the last words of f+1 plan nothing either
		c.say(i, KindGaveUp, GaveUp{Batch: open.ID, Attempt: k})
	}
	if got := c.s.Batches.at(open.ID).Newest().K; got != k {
		t.Errorf("attempt %d planned while paused", got)
	}
	c.refresh()
	if code := c.ask(borrower, c.borrowUSDT("1000000000")); code != OK {
		t.Errorf("a request while paused: %s, want it to be queued", code)
	}
	// Deposits, repayments, confirmations and prices go on.
	id := accountOf(c, borrower)
	c.all(KindInflow, c.inflowTo(id, "btc", PurposeSupply, "50000000"))
	c.all(KindSpent, c.spentFact(open))
	c.mine(Ethereum, 12)
	c.all(KindFinal, c.finalFact(open, OutcomePaid))
	if c.s.Outflows.at(o).State != Paid {
		t.Errorf("outflow %s: a confirmation waits for the pause", c.s.Outflows.at(o).State)
	}
	if code := c.say(1, KindPause, Pause{}); code != OK || c.s.Stopped() != "" {
		t.Fatalf("resume: %s, %s", code, c.s.Stopped())
	}
	c.refresh()
	c.tick(1000)
	if len(c.payments()) == 0 {
		t.Error("nothing planned after the pause")
	}
}

// "at most 60 min, at most twice in 24 h (its own count). Lifting: by the
// pausing operator, by expiry, or by Q."
func TestPauseIsBounded(t *testing.T) {
	c := young(t)
	before := frame(c.s)
	if code := c.say(0, KindPause, Pause{Seconds: MaxPauseSeconds + 1}); code != BadParam || frame(c.s) != before {
		t.Errorf("longer than an hour: %s", code)
	}
	if code := c.say(0, KindPause, Pause{}); code != OK || frame(c.s) != before {
		t.Errorf("resuming nothing: %s", code)
	}
	first := c.s.Millis
	c.say(0, KindPause, Pause{Seconds: MaxPauseSeconds})
	if code := c.say(1, KindPause, Pause{}); code != OK || c.s.Stopped() == "" {
		t.Errorf("%s: another member ended the pause", code)
	}
	c.leap(MaxPauseSeconds)
	if c.s.Stopped() != "" {
		t.Errorf("after its hour: %s", c.s.Stopped())
	}
	c.say(0, KindPause, Pause{Seconds: 60})
	c.say(0, KindPause, Pause{})
	before = frame(c.s)
	if code := c.say(0, KindPause, Pause{Seconds: 60}); code != Limit || frame(c.s) != before {
		t.Errorf("a third in a day: %s", code)
	}
	if code := c.say(1, KindPause, Pause{Seconds: 60}); code != OK {
		t.Errorf("another member's first: %s", code)
	}
	c.leap((first+86_400_000-c.s.Millis)/1000 - 1)
	if code := c.say(0, KindPause, Pause{Seconds: 60}); code != Limit {
		t.Errorf("a third, a second before the day is over: %s", code)
	}
	c.leap(1)
	if code := c.say(0, KindPause, Pause{Seconds: 60}); code != OK {
		t.Errorf("a day after the first: %s", code)
	}
}

// A proposal that breaks the books when it takes effect is over: it does not
// break them again at every tick.
func TestVoteThatBreaksIsOver(t *testing.T) {
	c := young(t)
	p := c.s.Pools.at("btc")
	p.TreasuryShares, p.Cash, p.Credited, p.SupplyRate, p.LastSync = fixed.New(1_000_000), fixed.New(1_000_000), fixed.New(1_000_000), fixed.Ray, c.s.Time()-86_400
	c.s.Pools.put("btc", p) // the next sync credits interest that nobody pays
	freeze := stop("btc", FlagFrozen)
	c.carried(freeze)
	if c.s.Ballots.len() != 0 || c.lastDecided().Code != Broken || !strings.HasPrefix(c.s.OutflowsHalt, string(Broken)) || c.s.Pools.at("btc").Frozen {
		t.Errorf("%d open, %+v, halt %q", c.s.Ballots.len(), c.lastDecided(), c.s.OutflowsHalt)
	}
}

// Two replicas that applied the same votes are equal byte by byte, and so is one
// restored from a snapshot in between.
func TestVotesAreDeterministic(t *testing.T) {
	c := young(t)
	twin := func() *State {
		s, err := DecodeState(Marshal(c.s))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	a := twin()
	step := func(i int, kind Kind, body any) {
		t.Helper()
		c.seq++
		raw := Marshal(Command{Attestation: NewAttestation(c.keys[i], c.s.Cluster, c.seq, kind, body)})
		x := c.raw(raw)
		if y := a.Execute(raw); y.Code != x || string(Marshal(a)) != string(Marshal(c.s)) {
			t.Fatalf("%s here, %s there", x, y.Code)
		}
		a = twin()
	}
	ps := []Proposal{
		setting1("btc", "ltv", "7250"), stop("btc", FlagFrozen), setting1("usdt.eth", "s1", "800"),
		setting1("", "eip712", "true"), setting1("btc", "supply_cap", "7"), stop("", FlagHalt), setting1("btc", "ltv", "9000"),
	}
	for n, p := range ps {
		for i := range 3 {
			step((i+n)%4, KindVote, Vote{Hash: p.Hash(), Yes: true, Proposal: &p})
		}
	}
	step(3, KindPause, Pause{Seconds: 60})
	for range 12 {
		to := c.s.Millis + 86_400_000
		for i := range 4 {
			step(i, KindClock, Clock{Millis: to})
		}
	}
	if c.s.Pools.at("btc").Param.LTV != 7250 || !c.s.Params.EIP712 || c.s.ParamsVersion != 8 {
		t.Errorf("ltv %d, eip712 %v, version %d", c.s.Pools.at("btc").Param.LTV, c.s.Params.EIP712, c.s.ParamsVersion)
	}
}

// Every parameter is either voted under one name or listed here as fixed.
func TestSettingsNameEveryParameter(t *testing.T) {
	check := func(of any, rows []setting, fixed ...string) {
		t.Helper()
		v := reflect.ValueOf(of).Elem()
		names := map[string]bool{}
		at := map[uintptr]bool{}
		for _, r := range rows {
			if names[r.Name] {
				t.Errorf("%s is named twice", r.Name)
			}
			names[r.Name], at[reflect.ValueOf(r.to).Pointer()] = true, true
		}
		for i := range v.NumField() {
			name := v.Type().Field(i).Name
			listed := false
			for _, f := range fixed {
				listed = listed || f == name
			}
			if at[v.Field(i).Addr().Pointer()] == listed {
				t.Errorf("%T.%s: want it among the settings, or fixed with a reason", of, name)
			}
		}
	}
	var p PoolParam
	check(&p, p.settings(), "Asset", "MinDebt", "EmodeID")
	var all Params
	check(&all, all.settings(), "RoundSeconds", "AllowNoFaultTolerance",
		"LiftSeconds", "SetSeconds", "LowerSeconds", "StepSeconds", "SocialiseSeconds", "ProposalSeconds",
		"PayoutDelaySeconds", "LoanWindowSeconds", "LoanSlippageBps",
		"AdmitSeconds", "SeatSeconds", "RollbackSeconds")
	c := young(t)
	for _, v := range c.s.Settings() {
		if r, ok := c.s.setting(Change{v.Pool, v.Name, ""}); !ok || r.text() != v.Value || !r.set(v.Value) {
			t.Errorf("%+v does not read back", v)
		}
	}
}
