package ledger

import (
	"slices"
	"testing"
)

// word is a member's word against another about a session of a batch.
func word(culprit MemberID, b Batch, session byte) Blame {
	return Blame{Member: culprit, Evidence: Hash{1, session}, Session: Hash{2, session}, Round: 1, Check: "S1", Batch: b.ID, Attempt: b.Newest().K}
}

// firstTurns counts how often m stands in turn 0 of the next batches.
func (c *cluster) firstTurns(m MemberID, batches uint64) (n int) {
	for i := range batches {
		a := Attempt{M: c.s.Epoch().M, Roster: c.s.roster(c.s.Epoch(), c.s.NextBatch+i, 0)}
		if len(a.Roster) != c.s.Epoch().N() {
			c.t.Fatalf("a roster of %d", len(a.Roster))
		}
		if slices.Contains(a.Committee(0), m) {
			n++
		}
	}
	return n
}

func short(g *Genesis) { g.Params.BlameSeconds = minBlameSeconds }

// f words do nothing, f+1 put the member last in new rosters, also behind the
// absent, in an attempt that is planned and in a snapshot; after BlameSeconds of
// ledger time it stands where it stood, and another proof puts it last again.
// Seen failing with a quorum of f ("one word lowers"), with roster not asking
// LastUntil ("blamed, and in turn 0 of 22 batches"), with LastUntil without an end
// ("still last after 600 s") and with words about one session that name other checks
// counted apart ("blamed: {Count:0").
func TestBlamedMemberComesLast(t *testing.T) {
	c := running(t, short)
	id := c.open(btcWallet(2))
	c.deposit(id, "btc", PurposeSupply, "100000000")
	c.refresh()
	c.withdrawBTC(btcWallet(2), "20000000")
	c.tick(1000)
	b := c.payment()
	culprit := b.Newest().Roster[0]
	honest := slices.DeleteFunc([]int{0, 1, 2, 3}, func(i int) bool { return idOf(c.keys[i]) == culprit })
	f := word(culprit, b, 1)
	if code := c.say(honest[0], KindBlame, f); code != OK || c.s.Blamed.len() != 0 || c.firstTurns(culprit, 30) == 0 {
		t.Fatalf("%s, one word lowers: %+v", code, c.s.Blamed.at(culprit.String()))
	}
	if code := c.say(honest[0], KindBlame, f); code != OK || c.s.Blamed.len() != 0 {
		t.Fatalf("%s, one member's word counts twice", code)
	}
	if c.s.AwaitsBlame(idOf(c.keys[honest[0]]), f) || !c.s.AwaitsBlame(idOf(c.keys[honest[1]]), f) {
		t.Error("who has said it is to say it again, or who has not is not")
	}
	other := f
	other.Evidence, other.Check, other.Round = Hash{7}, "A2", 2 // it sent each party another bad one
	if code := c.say(honest[1], KindBlame, other); code != OK {
		t.Fatal(code)
	}
	row := c.s.Blamed.at(culprit.String())
	if row.Count != 1 || row.Newest != other || row.Millis != c.s.Millis || row.Height != c.s.Height {
		t.Fatalf("blamed: %+v", row)
	}
	if e := c.last.Events; len(e) != 1 || e[0].Name != "blame" || e[0].Batch != b.ID {
		t.Errorf("events %+v", e)
	}
	if n := c.firstTurns(culprit, 30); n != 0 {
		t.Fatalf("blamed, and in turn 0 of %d batches", n)
	}
	if until := c.s.LastUntil(culprit); until != row.Millis+minBlameSeconds*1000 {
		t.Errorf("last until %d", until)
	}
	c.s = restored(t, c.s)
	if n := c.firstTurns(culprit, 30); n != 0 || c.s.Blamed.at(culprit.String()) != row {
		t.Errorf("a snapshot has forgotten: turn 0 of %d", n)
	}

	// The open attempt keeps its roster; the next one is planned without it first.
	if a := c.s.Batches.at(b.ID).Newest(); a.Roster[0] != culprit || len(c.s.PassedOver(a)) != 0 {
		t.Errorf("the roster of an open attempt changed: %v", a.Roster)
	}
	c.tick(c.s.Params.AttemptMillis + 1_000)
	if a := c.s.Batches.at(b.ID).Newest(); a.K == 0 || a.Roster[3] != culprit || !slices.Equal(c.s.PassedOver(a), []MemberID{culprit}) {
		t.Errorf("attempt %d has the roster %v, passed over %v", a.K, a.Roster, c.s.PassedOver(a))
	}

	// Behind the absent too, and never out: of four with m = 3 and one silent the
	// third is the blamed one.
	quiet := honest[2]
	for range 4 {
		for _, i := range []int{honest[0], honest[1], 0, 1, 2, 3} {
			if i != quiet {
				c.say(i, KindClock, Clock{Millis: c.s.Millis + 5_000})
			}
		}
	}
	if r := c.s.roster(c.s.Epoch(), 99, 0); r[3] != culprit || r[2] != idOf(c.keys[quiet]) {
		t.Errorf("with one absent the roster is %v", r)
	}

	c.tick(c.s.LastUntil(culprit) - c.s.Millis)
	if n := c.firstTurns(culprit, 30); n == 0 || c.s.LastUntil(culprit) != 0 {
		t.Fatalf("still last after %d s", minBlameSeconds)
	}
	if c.s.Blamed.at(culprit.String()) != row {
		t.Error("its row is gone with its term")
	}
	again := word(culprit, c.s.Batches.at(b.ID), 2)
	c.say(honest[0], KindBlame, again)
	c.say(honest[1], KindBlame, again)
	if row := c.s.Blamed.at(culprit.String()); row.Count != 2 || c.firstTurns(culprit, 30) != 0 {
		t.Errorf("proven again: %+v", row)
	}
}

// The words of those who come after f+1, another check of the same session and
// ten more sessions in the same minute change nothing: one bad hour does not
// blame for longer than its last proof. Seen failing without the minute ("11
// proofs of one minute count") and without the session ("said late, it counts
// again").
func TestBlameCountsOnceAMinute(t *testing.T) {
	c, _, _, b := planned(t)
	culprit := idOf(c.keys[3])
	f := word(culprit, b, 1)
	c.some(3, KindBlame, f)
	first := c.s.Blamed.at(culprit.String())
	same := f
	same.Check, same.Round = "A2", 2
	c.some(3, KindBlame, same)
	for i := range byte(10) {
		c.some(3, KindBlame, word(culprit, b, 10+i))
	}
	if row := c.s.Blamed.at(culprit.String()); row != first || c.s.AwaitsBlame(idOf(c.keys[0]), word(culprit, b, 30)) {
		t.Fatalf("%d proofs of one minute count", row.Count)
	}
	c.tick(blameEveryMillis)
	c.some(3, KindBlame, f)
	if row := c.s.Blamed.at(culprit.String()); row != first {
		t.Fatalf("said late, it counts again: %+v", row)
	}
	c.some(3, KindBlame, word(culprit, b, 40))
	if row := c.s.Blamed.at(culprit.String()); row.Count != 2 || row.Millis <= first.Millis {
		t.Errorf("another session a minute later: %+v", row)
	}
	// f of the members can say what they like about as many as they like.
	for i := range byte(100) {
		c.say(3, KindBlame, word(idOf(c.keys[0]), b, i))
	}
	if c.s.Blamed.len() != 1 {
		t.Errorf("one member's word blames another: %d rows", c.s.Blamed.len())
	}
}

// Each refusal has its name and leaves no tally. Seen failing without each line
// of blameCode.
func TestBlameRefusals(t *testing.T) {
	c, _, _, b := planned(t)
	culprit := idOf(c.keys[3])
	tallies := c.s.Tally.len()
	for name, tc := range map[string]struct {
		change func(*Blame)
		code   Code
	}{
		"a batch nobody planned":  {func(f *Blame) { f.Batch = 9_999 }, Malformed},
		"an attempt to come":      {func(f *Blame) { f.Attempt++ }, Malformed},
		"no check":                {func(f *Blame) { f.Check = "" }, Malformed},
		"a check of no number":    {func(f *Blame) { f.Check = "SX" }, Malformed},
		"a check without an end":  {func(f *Blame) { f.Check = "S100" }, Malformed},
		"no session":              {func(f *Blame) { f.Session = Hash{} }, Malformed},
		"a member of nothing":     {func(f *Blame) { f.Member = idOf(memberKey(50)) }, NotAllowed},
		"the body of another":     {nil, Malformed},
		"and without any mistake": {func(*Blame) {}, OK},
	} {
		f := word(culprit, b, 1)
		var body any = Clock{}
		if tc.change != nil {
			tc.change(&f)
			body = f
		}
		if code := c.say(0, KindBlame, body); code != tc.code {
			t.Errorf("%s: %s, want %s", name, code, tc.code)
		}
	}
	if n := c.s.Tally.len(); n != tallies+1 {
		t.Errorf("%d tallies, want %d", n, tallies+1)
	}
	if code := c.run(Command{Attestation: NewAttestation(memberKey(50), c.s.Cluster, 1<<40, KindBlame, word(culprit, b, 1))}); code != NotAllowed {
		t.Errorf("a stranger's word: %s", code)
	}
	// Two retries later it is one of long ago; the one before the newest is not.
	late := word(culprit, b, 1)
	c.tick(c.s.Params.AttemptMillis + 1_000)
	if code := c.say(1, KindBlame, late); code != OK || c.s.Blamed.len() != 1 {
		t.Errorf("one retry later: %s", code)
	}
	c.tick(2*c.s.Params.AttemptMillis + 1_000)
	if code := c.say(2, KindBlame, word(culprit, b, 3)); code != Expired {
		t.Errorf("attempt 0 when it is at %d: %s", c.s.Batches.at(b.ID).Newest().K, code)
	}
	// A batch that is over is blamed for two hours.
	now := c.s.Batches.at(b.ID)
	x := &execution{s: c.s.View()}
	x.s.Millis = now.Newest().Millis + maxBlameMillis
	if code := x.s.blameCode(word(culprit, now, 4)); code != OK {
		t.Errorf("two hours after its plan: %s", code)
	}
	x.s.Millis++
	if code := x.s.blameCode(word(culprit, now, 4)); code != Expired {
		t.Errorf("later: %s", code)
	}
}

// A refresh keeps the row of who stays, an eviction drops the row of who goes,
// and a coming member is blamed for nothing. Seen failing without forgetBlamed
// ("is blamed and no member").
func TestBlameAcrossEpochs(t *testing.T) {
	c := seated(t)
	out, stays := c.members()[0], c.members()[1]
	id := c.open(btcWallet(2))
	c.deposit(id, "btc", PurposeSupply, "100000000")
	c.refresh()
	c.withdrawBTC(btcWallet(2), "20000000")
	c.wait(5_000)
	b := c.payment()
	c.each(c.members(out)[:2], KindBlame, word(out, b, 1))
	c.each(c.members(stays)[:2], KindBlame, word(stays, b, 2))
	if c.s.Blamed.len() != 2 {
		t.Fatalf("%d are blamed", c.s.Blamed.len())
	}
	c.decide(seatProposal(ProposeRefresh, Seats{Row: c.row(4, 1, 3, 3)}), c.members())
	c.wait(6_000)
	c.reshare()
	c.inForce(c.members())
	c.proveTests()
	if c.s.Blamed.len() != 2 || c.s.LastUntil(out) == 0 {
		t.Errorf("a refresh forgets: %d rows", c.s.Blamed.len())
	}
	in := newcomer(7)
	c.decide(seatProposal(ProposeReplace, Seats{In: &in, Out: out, Row: c.row(4, 1, 3, 3), Urgent: true}), c.members(out))
	c.wait(10_000, out)
	if code := c.by(stays, KindBlame, word(in.ID, b, 3)); code != NotAllowed && code != Expired {
		t.Errorf("who is still to come is blamed: %s", code)
	}
	c.reshare()
	c.inForce(c.members(out))
	if _, ok := c.s.Blamed.Get(out.String()); ok || c.s.Blamed.len() != 1 || c.s.LastUntil(stays) == 0 {
		t.Errorf("after the replacement %d rows, of who is gone: %v", c.s.Blamed.len(), ok)
	}
}

// Nothing but bounds that an argument was given for may be voted.
func TestBlameSecondsBounds(t *testing.T) {
	for sec, ok := range map[uint64]bool{0: false, minBlameSeconds - 1: false, minBlameSeconds: true, maxBlameSeconds: true, maxBlameSeconds + 1: false} {
		p := DefaultParams()
		p.BlameSeconds = sec
		if err := p.Validate(); err == nil != ok {
			t.Errorf("%d s: %v", sec, err)
		}
	}
}
