package ledger

import (
	"fmt"
	"slices"
	"testing"

	"github.com/coffer-network/coffer/ledger/address"
	"pgregory.net/rapid"
)

// The table of spec consensus §6.4, to the letter.
var relations = []struct {
	n, f, q, c, mLeast, mMost, k int
	stallable                    bool // "prices fresh with c silent: no"
}{
	{3, 0, 2, 1, 2, 2, 2, false},
	{4, 1, 3, 1, 2, 3, 3, false},
	{5, 1, 4, 1, 2, 4, 3, false},
	{5, 2, 4, 1, 3, 4, 3, true},
	{7, 2, 5, 2, 3, 5, 5, false},
	{7, 3, 6, 1, 4, 6, 4, true},
	{9, 3, 7, 2, 4, 7, 6, false},
	{10, 3, 7, 3, 4, 7, 7, false},
}

func TestRelations(t *testing.T) {
	for _, r := range relations {
		t.Run(fmt.Sprintf("n=%d f=%d", r.n, r.f), func(t *testing.T) {
			_, members := coreMembers(r.n)
			e := Epoch{Members: members, F: r.f, M: r.mLeast}
			e.FactQuorum = e.Q()
			if e.Q() != r.q || e.C() != r.c {
				t.Errorf("Q %d, c %d, want %d and %d", e.Q(), e.C(), r.q, r.c)
			}
			for m := range r.n + 2 {
				e.M = m
				if ok := e.Validate(false) == nil; ok != (m >= r.mLeast && m <= r.mMost) {
					t.Errorf("m = %d: %v", m, ok)
				}
			}
			e.M = r.n
			if err := e.Validate(true); err != nil {
				t.Errorf("m = n, allowed by name: %v", err)
			}
			e.M = r.mLeast
			for fq := range r.n + 2 {
				e.FactQuorum = fq
				if ok := e.Validate(false) == nil; ok != (fq >= r.f+1 && fq <= r.n-r.c) {
					t.Errorf("FactQuorum = %d: %v", fq, ok)
				}
			}
			// "2Q − n ≥ f+1": two certificates share an honest member.
			if 2*r.q-r.n < r.f+1 {
				t.Errorf("two quorums share %d of %d", 2*r.q-r.n, r.n)
			}
		})
	}
	_, members := coreMembers(4)
	for name, spoil := range map[string]func(*Epoch){
		"two seats of one key":     func(e *Epoch) { e.Members[1].ID = e.Members[0].ID },
		"members not sorted":       func(e *Epoch) { slices.Reverse(e.Members) },
		"two of one name":          func(e *Epoch) { e.Members[1].Name = e.Members[0].Name },
		"two of one operator":      func(e *Epoch) { e.Members[1].Operator = e.Members[0].Operator },
		"more traitors than fit":   func(e *Epoch) { e.F = 4 },
		"fewer traitors than none": func(e *Epoch) { e.F = -1 },
		"two members":              func(e *Epoch) { e.Members = e.Members[:2]; e.F = 0 },
	} {
		e := Epoch{Members: slices.Clone(members), F: 1, M: 3, FactQuorum: 3}
		if err := e.Validate(false); err != nil {
			t.Fatal(err)
		}
		if spoil(&e); e.Validate(false) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// Where c = 0 the relations alone would let every member be needed; and who allows
// that allows nothing else. Seen failing ("m = n of three where c = 0: accepted",
// "m = n, allowed by name, with a FactQuorum of 1: accepted") with the two cases
// in one.
func TestEveryMemberNeeded(t *testing.T) {
	_, members := coreMembers(3)
	e := Epoch{Members: members, F: 1, M: 3, FactQuorum: 3}
	if e.C() != 0 {
		t.Fatalf("c = %d", e.C())
	}
	if e.Validate(false) == nil {
		t.Error("m = n of three where c = 0: accepted")
	}
	if err := e.Validate(true); err != nil {
		t.Error(err)
	}
	e.FactQuorum = 1
	if e.Validate(true) == nil {
		t.Error("m = n, allowed by name, with a FactQuorum of 1: accepted")
	}
}

// clockOf is the rank of spec consensus §7 over an epoch of n and f.
func clockOf(clocks []uint64, now uint64, n, f int) uint64 {
	e := Epoch{Members: make([]Member, n), F: f}
	return ledgerClock(clocks, now, n, f, e.C(), e.Q())
}

// "raw = k-th smallest v of the n seats", k as in the table.
func TestClockRank(t *testing.T) {
	for _, r := range relations {
		clocks := make([]uint64, r.n)
		for i := range clocks {
			clocks[i] = uint64(1000 * (r.n - i)) // descending: the order must not matter
		}
		if got := clockOf(clocks, 0, r.n, r.f); got != uint64(1000*r.k) {
			t.Errorf("n=%d f=%d: rank %d, want %d", r.n, r.f, got/1000, r.k)
		}
		// "It starts by itself: time moves as soon as n−k+1 seats have spoken."
		spoken := make([]uint64, r.n)
		for i := range r.n {
			if got, moved := clockOf(spoken, 0, r.n, r.f), i >= r.n-r.k+1; got != 0 != moved {
				t.Errorf("n=%d f=%d: %d have spoken, time %d", r.n, r.f, i, got)
			}
			spoken[i] = 5000
		}
		// "It advances with c silent."
		silent := make([]uint64, r.n)
		for i := r.c; i < r.n; i++ {
			silent[i] = 7000
		}
		if got := clockOf(silent, 6000, r.n, r.f); got != 7000 {
			t.Errorf("n=%d f=%d: with %d silent time is %d", r.n, r.f, r.c, got)
		}
	}
}

// f liars cannot push time ahead of every honest clock, nor, where the table
// says so, stall it on top of c silent members; and none turns it back.
func TestClockLiars(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rapid.SampledFrom(relations).Draw(t, "row")
		now := rapid.Uint64Range(1_000_000, 2_000_000).Draw(t, "now")
		honest := rapid.SliceOfN(rapid.Uint64Range(now, now+maxAheadMillis), r.n-r.f, r.n-r.f).Draw(t, "honest")
		lies := rapid.SliceOfN(rapid.OneOf(rapid.Just(uint64(0)), rapid.Just(uint64(maxClockMillis)), rapid.Uint64Range(0, 4_000_000)), r.f, r.f).Draw(t, "lies")
		all := rapid.Permutation(append(slices.Clone(honest), lies...)).Draw(t, "seats")
		if got := clockOf(all, now, r.n, r.f); got > slices.Max(honest) {
			t.Fatalf("time %d, the latest honest clock is %d", got, slices.Max(honest))
		}
		if r.stallable {
			return
		}
		silent := rapid.IntRange(0, r.c).Draw(t, "silent")
		for i := range silent {
			honest[i] = 0
		}
		low := append(slices.Clone(honest), make([]uint64, r.f)...)
		if got, least := clockOf(low, now, r.n, r.f), slices.Min(honest[silent:]); got < least {
			t.Fatalf("time %d with %d silent and %d lying low, the earliest honest clock is %d", got, silent, r.f, least)
		}
	})
}

// "v = min(clock, max(time + 60 s, far)): more than 60 s ahead counts only as
// far as Q seats say so."
func TestClockFarAhead(t *testing.T) {
	const now = 10_000_000
	for name, tc := range map[string]struct {
		clocks []uint64
		want   uint64
	}{
		"two of four far ahead":      {[]uint64{now, now + 10, now + 900_000, now + 900_000}, now + 60_000},
		"two of four a little ahead": {[]uint64{now, now + 10, now + 59_000, now + 59_000}, now + 59_000},
		"three of four far ahead":    {[]uint64{now, now + 700_000, now + 900_000, now + 900_000}, now + 700_000},
		"all far ahead":              {[]uint64{now + 600_000, now + 700_000, now + 800_000, now + 900_000}, now + 700_000},
	} {
		if got := clockOf(tc.clocks, now, 4, 1); got != tc.want {
			t.Errorf("%s: %d, want %d", name, got-now, tc.want-now)
		}
	}
}

// "time = max(time, min(raw, time + MaxStep)), MaxStep = max(10 s, (raw − time)/16)",
// CATCHING_UP while raw − time > 10 s, and then nothing is planned.
func TestClockCatchesUp(t *testing.T) {
	c, _, borrower := lent(t)
	if code := c.ask(borrower, c.borrowUSDT("1000000000")); code != OK {
		t.Fatal(code)
	}
	const outage = 12 * 3_600_000
	start := c.s.Millis
	target := start + outage
	c.say(0, KindClock, Clock{Millis: target})
	c.say(1, KindClock, Clock{Millis: target})
	// Two of four, one of whom may lie: not beyond a minute.
	if c.s.Millis > start+60_000 {
		t.Fatalf("two clocks moved time by %d ms", c.s.Millis-start)
	}
	words, was := 0, c.s.Millis
	nonce := c.s.Accounts.at(accountOf(c, borrower)).Nonce
	queued := c.s.Queue.len()
	refusals := 0
	for ; c.s.Millis < target && words < 1000; words++ {
		gap := target - c.s.Millis
		code := c.say(2+words%2, KindClock, Clock{Millis: target})
		if code != OK {
			t.Fatal(code)
		}
		step := c.s.Millis - was
		if most := max(10_000, gap/16); step > most || step == 0 && words > 0 {
			t.Fatalf("word %d moved %d ms of %d, at most %d", words, step, gap, most)
		}
		if catching := target-c.s.Millis > 10_000; c.s.Catching != catching {
			t.Fatalf("catching up: %v with %d ms to go", c.s.Catching, target-c.s.Millis)
		} else if catching {
			if len(c.payments()) != 0 || c.s.Queue.len() != queued {
				t.Fatal("something was planned while time catches up")
			}
			before := frame(c.s)
			if code := c.ask(borrower, c.borrowUSDT("1000000000")); code != CatchingUp {
				t.Fatalf("an intent while catching up: %s", code)
			}
			if frame(c.s) != before {
				t.Fatal("CATCHING_UP changed something")
			}
			refusals++
		}
		was = c.s.Millis
	}
	// "12 h take about 110 clock attestations, not 4,320."
	if words < 60 || words > 200 || refusals == 0 {
		t.Errorf("%d clock attestations, %d refusals", words, refusals)
	}
	if got := c.s.Accounts.at(accountOf(c, borrower)).Nonce; got != nonce {
		t.Errorf("the nonce moved from %d to %d", nonce, got)
	}
	c.refresh()
	c.all(KindFee, []FeeReport{{Chain: Bitcoin, Rate: 2_000}, {Chain: Ethereum, Rate: gweiCore, Tip: gweiCore}})
	if code := c.ask(borrower, c.borrowUSDT("1000000000")); code != OK {
		t.Errorf("afterwards: %s", code)
	}
}

// Plants one clock that is ages ahead, then far behind, in a running cluster, and
// then silent: ledger time follows the others (spec: outflows §10, 46).
func TestFault46_OneClockFarAhead(t *testing.T) {
	c := running(t)
	now := c.s.Millis
	c.say(3, KindClock, Clock{Millis: maxClockMillis})
	if c.s.Millis != now {
		t.Errorf("one liar moved time by %d", c.s.Millis-now)
	}
	for i := range 3 {
		c.say(i, KindClock, Clock{Millis: now + 1000 + uint64(i)})
	}
	if c.s.Millis != now+1002 {
		t.Errorf("time is %d after genesis, want the second of the three honest clocks from above", c.s.Millis-now)
	}
	for _, lie := range []uint64{0, 1, now - 1_000_000} {
		was := c.s.Millis
		if c.say(3, KindClock, Clock{Millis: lie}); c.s.Millis < was {
			t.Errorf("time fell by %d", was-c.s.Millis)
		}
	}
	// Silent from now on: the other three carry time.
	for i := range uint64(30) {
		for m := range 3 {
			c.say(m, KindClock, Clock{Millis: now + 2000 + 1000*i})
		}
	}
	if want := now + 31_000; c.s.Millis != want || c.s.Catching {
		t.Errorf("time is %d after genesis, want %d; catching %v", c.s.Millis-now, want-now, c.s.Catching)
	}
}

// "Until the first epoch with keys is in force nothing accrues, so MaxStep does
// not apply." And no request is taken: there is no address to show.
func TestClockBeforeKeys(t *testing.T) {
	c := newCluster(t)
	const later = 400 * 86_400_000
	for i := range c.keys {
		c.say(i, KindClock, Clock{Millis: coreStart + later})
	}
	if c.s.Millis != coreStart+later || c.s.Catching {
		t.Errorf("time %d after genesis, catching %v", c.s.Millis-coreStart, c.s.Catching)
	}
	if code := c.ask(btcWallet(1), address.Command{Action: address.ActionOpenAccount}); code != Halted {
		t.Errorf("open account without keys: %s", code)
	}
	if c.tick(1); c.s.Next == nil || len(c.s.Next.Keys) != 2 {
		t.Error("no keygen is planned though every member has spoken")
	}
}

// Keygen waits for the clock of every genesis member.
func TestKeygenWaitsForAll(t *testing.T) {
	c := newCluster(t)
	for range 3 {
		for i := range 3 {
			c.say(i, KindClock, Clock{Millis: c.s.Millis + 1000})
		}
	}
	if c.s.Next != nil {
		t.Fatal("keygen is planned without the fourth member")
	}
	c.say(3, KindClock, Clock{Millis: c.s.Millis + 1000})
	c.tick(1000)
	if c.s.Next == nil {
		t.Fatal("no keygen is planned")
	}
}
