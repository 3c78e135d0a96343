package ledger

import (
	"crypto/ed25519"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/coffer-network/coffer/ledger/address"
)

// seats is a cluster whose committee changes: it knows the key of everybody who
// is, was or may become a member.
type seats struct {
	*cluster
	known map[MemberID]ed25519.PrivateKey
}

// seated is a running cluster with short quarantines. Member i of others() has
// the name node-(i+1).
func seated(t testing.TB, change ...func(*Genesis)) *seats {
	t.Helper()
	c := running(t, append([]func(*Genesis){func(g *Genesis) {
		g.Params.AdmitSeconds, g.Params.SeatSeconds, g.Params.RollbackSeconds = 60, 120, 300
	}}, change...)...)
	s := &seats{c, map[MemberID]ed25519.PrivateKey{}}
	for i := range 12 {
		s.known[idOf(memberKey(i))] = memberKey(i)
	}
	s.proveTests()
	return s
}

// newcomer is a member line of nobody's yet.
func newcomer(i int) Member {
	return Member{ID: idOf(memberKey(i)), Name: fmt.Sprint("node-", i+1), Operator: fmt.Sprint("operator-", i+1), Addr: fmt.Sprint("/ip4/127.0.0.1/tcp/", 4100+i)}
}

func (c *seats) by(m MemberID, kind Kind, body any) Code {
	c.t.Helper()
	c.seq++
	return c.run(Command{Attestation: NewAttestation(c.known[m], c.s.Cluster, c.seq, kind, body)})
}

// members of the epoch in force, but those left out.
func (c *seats) members(without ...MemberID) []MemberID {
	return slices.DeleteFunc(memberIDs(c.s.Epoch()), func(m MemberID) bool { return slices.Contains(without, m) })
}

// each has every one of ms say it.
func (c *seats) each(ms []MemberID, kind Kind, body any) {
	c.t.Helper()
	for _, m := range ms {
		if code := c.by(m, kind, body); code != OK {
			c.t.Fatalf("%s, kind %d, %+v: %s", c.name(m), kind, body, code)
		}
	}
}

func (c *seats) name(m MemberID) string {
	for _, o := range c.s.Seating() {
		if o.Member.ID == m {
			return o.Member.Name
		}
	}
	return m.String()[:8]
}

// wait moves time on, everybody's clock with it but of those left out.
func (c *seats) wait(ms uint64, without ...MemberID) {
	c.t.Helper()
	for end := c.s.Millis + ms; c.s.Millis < end; {
		at := Clock{Millis: c.s.Millis + min(5_000, end-c.s.Millis)}
		all := c.members(without...)
		for _, o := range c.s.Seating() {
			if o.State == SeatAdmitted || o.State == SeatResharing {
				all = append(all, o.Member.ID)
			}
		}
		for _, m := range all {
			if !slices.Contains(without, m) && c.s.maySay(m, KindClock) {
				if code := c.by(m, KindClock, at); code != OK {
					c.t.Fatalf("clock of %s: %s", c.name(m), code)
				}
			}
		}
	}
}

func (c *seats) row(n, f, m, q int) Row { return Row{N: n, F: f, M: m, FactQuorum: q} }

func seatProposal(k ProposalKind, s Seats) Proposal {
	return Proposal{Kind: k, Text: "why not", Seats: &s}
}

// vote has as many of the given members vote yes as the row asks for.
func (c *seats) vote(p Proposal, by []MemberID) Code {
	c.t.Helper()
	code := OK
	for i, m := range by[:c.s.Epoch().Q()] {
		v := Vote{Hash: p.Hash(), Yes: true}
		if i == 0 {
			v.Proposal = &p
		}
		if code = c.by(m, KindVote, v); code != OK {
			return code
		}
	}
	return code
}

func (c *seats) decide(p Proposal, by []MemberID) {
	c.t.Helper()
	if code := c.vote(p, by); code != OK {
		c.t.Fatalf("%d %+v: %s: %s", p.Kind, *p.Seats, code, c.s.WhyNot(p))
	}
}

// ready has the members of the next epoch be ready for a key.
func (c *seats) ready(key string, ms []MemberID) {
	c.t.Helper()
	r := c.shareReady(key)
	c.each(ms, KindShareReady, r)
}

// reshare brings the next epoch to its opening.
func (c *seats) reshare() {
	c.t.Helper()
	if c.s.Next == nil {
		c.t.Fatal("nothing is prepared")
	}
	next := memberIDs(c.s.Next.Epoch)
	for _, key := range []string{KeyECDSA1, KeyEd255191} {
		c.ready(key, next)
	}
	for _, key := range []string{KeyECDSA1, KeyEd255191} {
		for _, id := range c.nextKey(key).Tests {
			c.each(next, KindTestSig, TestSig{Batch: id, Signature: c.sign(key, c.s.Batches.at(id).Digest)})
		}
	}
	if c.s.Opening == nil {
		c.t.Fatal("not opened")
	}
}

// inForce puts the opened epoch in force, certified by the given members.
func (c *seats) inForce(by []MemberID) {
	c.t.Helper()
	var keys []ed25519.PrivateKey
	for _, m := range by[:c.s.Epoch().Q()] {
		keys = append(keys, c.known[m])
	}
	want := c.s.Opening.Epoch.Number
	if code := c.by(by[0], KindFlip, c.flipCertificate(keys...)); code != OK || c.s.Epoch().Number != want {
		c.t.Fatalf("flip: %s, epoch %d, want %d", code, c.s.Epoch().Number, want)
	}
}

// proveTests makes the test signatures after a flip.
func (c *seats) proveTests() {
	c.t.Helper()
	for _, id := range slices.Clone(c.s.Infos.at(c.s.Epoch().Number).Tests) {
		b := c.s.Batches.at(id)
		if code := c.by(c.members()[0], KindTestSig, TestSig{Batch: id, Signature: c.sign(b.Key, b.Digest)}); code != OK {
			c.t.Fatalf("test %d: %s", id, code)
		}
	}
}

func (c *seats) states() map[string]SeatState {
	out := map[string]SeatState{}
	for _, o := range c.s.Seating() {
		out[o.Member.Name] = o.State
	}
	return out
}

// join brings newcomer i in by votes of the given members, to the flip.
func (c *seats) join(i int, r Row, by []MemberID) {
	c.t.Helper()
	m := newcomer(i)
	c.decide(seatProposal(ProposeAdmit, Seats{In: &m, Row: r}), by)
	c.wait(c.s.Params.AdmitSeconds*1000 + 6_000)
	c.reshare()
	c.inForce(by)
	c.proveTests()
}

// The whole way of a fifth node: admitted, in the first quarantine, resharing,
// opened, in force, in the second quarantine, full. Keys and addresses stay, and
// payments go on under the old epoch until it is opened. Seen failing with
// planChange asking for no quarantine ("prepared in its first quarantine"), with
// possibleChange not comparing n ("n = 6: OK"), and with the public key not
// compared in shareReady ("another key: OK").
func TestJoin(t *testing.T) {
	c := seated(t)
	before := c.members()
	keys := [2][]byte{c.s.Keys.at(KeyECDSA1).Pub, c.s.Keys.at(KeyEd255191).Pub}
	vault, _ := c.s.Vault(Bitcoin, "minter")
	m := newcomer(7)
	for _, r := range []Row{c.row(6, 1, 3, 3), c.row(5, 2, 2, 3), c.row(5, 1, 5, 3), c.row(5, 1, 3, 5), c.row(5, 5, 4, 4), c.row(4, 1, 3, 3)} {
		p := seatProposal(ProposeAdmit, Seats{In: &m, Row: r})
		if code := c.vote(p, before); code != BadParam || c.s.WhyNot(p) == "" {
			t.Errorf("%+v: %s %q", r, code, c.s.WhyNot(p))
		}
	}
	p := seatProposal(ProposeAdmit, Seats{In: &m, Row: c.row(5, 1, 3, 4)})
	if code := c.by(before[0], KindVote, Vote{Hash: p.Hash(), Yes: true, Proposal: &p}); code != OK || c.states()["node-8"] != SeatCandidate {
		t.Fatalf("first vote: %s, %v", code, c.states())
	}
	if code := c.by(m.ID, KindClock, Clock{Millis: c.s.Millis}); code != NotAllowed {
		t.Errorf("a candidate's clock: %s", code)
	}
	c.decide(p, before)
	if c.states()["node-8"] != SeatAdmitted || len(c.s.Followers()) != 1 {
		t.Fatalf("%v, followers %v", c.states(), c.s.Followers())
	}
	for kind, body := range map[Kind]any{
		KindPrice: []PriceReport{{Asset: "btc", Round: c.s.Time() / 15, Price: n("1"), Observed: c.s.Millis}}, KindPause: Pause{Seconds: 60},
		KindVote: Vote{Hash: p.Hash(), Yes: true, Proposal: &p}, KindGaveUp: GaveUp{}, KindLeave: Leave{},
		KindHeight: []HeightReport{{Chain: Bitcoin, Height: 9}}, KindFlip: Certificate{}, KindWiped: Wiped{},
	} {
		if code := c.by(m.ID, kind, body); code != NotAllowed {
			t.Errorf("an admitted node's word of kind %d: %s", kind, code)
		}
	}
	c.wait(40_000)
	if c.s.Next != nil {
		t.Fatal("prepared in its first quarantine")
	}
	c.wait(25_000, m.ID)
	if c.s.Next != nil || !slices.Equal(c.s.WaitsFor(c.s.Changes[0]), []MemberID{m.ID}) {
		t.Fatalf("prepared without the newcomer's clock; waits for %v", c.s.WaitsFor(c.s.Changes[0]))
	}
	c.wait(10_000)
	if c.s.Next == nil || c.s.Next.Epoch.Number != 2 || c.states()["node-8"] != SeatResharing {
		t.Fatalf("next %+v, %v", c.s.Next, c.states())
	}
	b := c.s.Batches.at(c.nextKey(KeyECDSA1).Batch).Newest()
	if len(b.Roster) != 5 || len(b.Dealers) != 3 || slices.Contains(b.Dealers, m.ID) || b.M != 3 || b.Deadline-b.Millis != 600_000 {
		t.Errorf("resharing %+v", b)
	}
	other := c.shareReady(KeyECDSA1)
	other.Pub = ethWallet(3).key.PubKey().SerializeCompressed()
	if code := c.by(before[0], KindShareReady, other); code != Malformed {
		t.Errorf("another key: %s", code)
	}
	account := c.open(ethWallet(1))
	c.deposit(account, "btc", PurposeSupply, "100000000")
	c.deposit(account, "btc", PurposeSupply, "100000001")
	c.refresh()
	if code := c.ask(ethWallet(1), c.payout(address.ActionWithdraw, "btc", "10000000", payeeBTC(1), "100000")); code != OK {
		t.Fatalf("withdraw: %s", code)
	}
	c.wait(5_000)
	if a := c.payment().Newest(); a.Epoch != 1 || len(a.Roster) != 4 {
		t.Fatalf("planned under epoch %d with %d members while resharing goes on", a.Epoch, len(a.Roster))
	}
	c.reshare()
	o := *c.s.Opening
	if code := c.ask(ethWallet(1), c.payout(address.ActionWithdraw, "btc", "20000000", payeeBTC(2), "100000")); code != OK {
		t.Fatalf("withdraw between opening and flip: %s", code)
	}
	c.wait(700_000)
	if got := c.payments(); len(got) != 1 || got[0].Newest().K != 0 || c.s.Opening == nil || c.s.Opening.Head != o.Head {
		t.Fatalf("%d payments, attempt %d between opening and flip", len(got), got[0].Newest().K)
	}
	c.refresh()
	c.all(KindFee, []FeeReport{{Chain: Bitcoin, Rate: 2_000}})
	c.inForce(before)
	if c.s.Epoch().N() != 5 || c.s.Epoch().Row() != c.row(5, 1, 3, 4) || !c.s.Quarantined(m.ID) || c.s.Quarantined(before[0]) || c.s.Next != nil {
		t.Fatalf("epoch %+v, quarantined %v", c.s.Epoch(), c.s.Quarantined(m.ID))
	}
	if !slices.Equal(keys[0], c.s.Keys.at(KeyECDSA1).Pub) || !slices.Equal(keys[1], c.s.Keys.at(KeyEd255191).Pub) {
		t.Error("a key changed")
	}
	if v, _ := c.s.Vault(Bitcoin, "minter"); v.Address != vault.Address {
		t.Errorf("the vault moved from %s to %s", vault.Address, v.Address)
	}
	body := c.payments()[0].Newest().Bitcoin
	c.wait(5_000)
	for i, b := range c.payments() {
		a := b.Newest()
		if a.Epoch != 2 || len(a.Roster) != 5 || !slices.Equal(a.Fresh, []MemberID{m.ID}) {
			t.Errorf("payment %d: attempt %d under epoch %d, roster %d, in quarantine %v", i, a.K, a.Epoch, len(a.Roster), a.Fresh)
		}
		if i == 0 && (a.Kind != AttemptRetry || string(Marshal(a.Bitcoin)) != string(Marshal(body))) {
			t.Errorf("the open payment became %+v, was %+v", a.Bitcoin, body)
		}
	}
	if len(c.payments()) != 2 {
		t.Fatalf("%d payments after the flip", len(c.payments()))
	}
	if c.s.capDivisor() != 4 {
		t.Error("outflow caps are whole in quarantine")
	}
	c.proveTests()
	if info := c.s.Infos.at(2); info.Proven != c.s.Height || len(info.Tests) != 0 {
		t.Errorf("proven at %d, height %d", info.Proven, c.s.Height)
	}
	c.wait(130_000)
	if c.s.QuarantineUntil() != 0 || c.s.capDivisor() != 1 || len(c.s.Changes) != 0 {
		t.Errorf("quarantine until %d, now %d", c.s.QuarantineUntil(), c.s.Millis)
	}
}

// Plants every way in which a vote about members must not count: the target's
// own against its eviction, those in quarantine for anything but an eviction, and
// a second newcomer. Seen failing with mayDecide counting everybody ("decided by
// 4 of which one is in quarantine") and the target ("decided with the target's
// vote").
func TestWhoDecides(t *testing.T) {
	c := seated(t)
	c.join(7, c.row(5, 1, 3, 4), c.members())
	fresh := newcomer(7).ID
	old := c.members(fresh)
	another := newcomer(8)
	for kind, out := range map[ProposalKind]MemberID{ProposeAdmit: {}, ProposeReplace: old[0]} {
		r := c.row(6, 1, 3, 4)
		if kind == ProposeReplace {
			r.N = 5
		}
		if p := seatProposal(kind, Seats{In: &another, Out: out, Row: r}); c.vote(p, old) != NotAllowed || !strings.Contains(c.s.WhyNot(p), "quarantine") {
			t.Errorf("kind %d in another's quarantine: %s", kind, c.s.WhyNot(p))
		}
	}
	urgent := seatProposal(ProposeReplace, Seats{In: &another, Out: old[0], Row: c.row(5, 1, 3, 4), Urgent: true})
	if why := c.s.WhyNot(urgent); why != "" {
		t.Errorf("an urgent replacement: %s", why)
	}
	refresh := seatProposal(ProposeRefresh, Seats{Row: c.row(5, 1, 3, 4)})
	c.decide3(refresh, old[0], old[1], old[2], fresh)
	if len(c.s.Changes) != 0 {
		t.Fatal("decided by 4 of which one is in quarantine")
	}
	evict := seatProposal(ProposeEvict, Seats{Out: old[3], Row: c.row(4, 1, 3, 3)})
	c.decide3(evict, old[3], old[0], old[1])
	if code := c.by(old[2], KindVote, Vote{Hash: evict.Hash(), Yes: true}); code != OK || len(c.s.Changes) != 0 {
		t.Fatalf("decided with the target's vote: %s", code)
	}
	if code := c.by(fresh, KindVote, Vote{Hash: evict.Hash(), Yes: true}); code != OK || len(c.s.Changes) != 1 {
		t.Fatalf("not decided with one in quarantine: %s", code)
	}
	if c.states()[c.name(old[3])] != SeatLeaving {
		t.Errorf("%v", c.states())
	}
	c.wait(125_000) // the quarantine is over: what it held back counts
	if !slices.ContainsFunc(c.s.Decided, func(d Decided) bool { return d.Proposal.Hash() == refresh.Hash() && d.How == DecidedDone }) {
		t.Error("a refresh with four votes of members is not decided")
	}
}

// decide3 has the given members vote yes, the first bringing the proposal.
func (c *seats) decide3(p Proposal, by ...MemberID) {
	c.t.Helper()
	for i, m := range by {
		v := Vote{Hash: p.Hash(), Yes: true}
		if i == 0 {
			v.Proposal = &p
		}
		if code := c.by(m, KindVote, v); code != OK {
			c.t.Fatalf("vote of %s: %s: %s", c.name(m), code, c.s.WhyNot(p))
		}
	}
}

// A dead member is replaced without it: urgent, so the newcomer does not wait. The
// dead one is no dealer, and its going needs no word of its own. Then one is
// evicted, and one leaves by its own word, down to three.
func TestReplaceEvictLeave(t *testing.T) {
	c := seated(t)
	dead, in := c.members()[1], newcomer(7)
	live := c.members(dead)
	c.wait(20_000, dead)
	p := seatProposal(ProposeReplace, Seats{In: &in, Out: dead, Row: c.s.Epoch().Row(), Urgent: true})
	c.decide(p, live)
	c.wait(6_000, dead)
	if c.s.Next == nil {
		t.Fatalf("not begun; waits for %v", c.s.WaitsFor(c.s.Changes[0]))
	}
	if d := c.s.Batches.at(c.nextKey(KeyECDSA1).Batch).Newest().Dealers; !slices.Equal(d, live) {
		t.Errorf("dealers %v, want those alive %v", d, live)
	}
	c.reshare()
	c.inForce(live)
	c.proveTests()
	if c.s.Epoch().Has(dead) || !c.s.Epoch().Has(in.ID) || c.states()["node-2"] == SeatActive && dead == newcomer(1).ID {
		t.Fatalf("%v", c.states())
	}
	c.wait(125_000)

	target := c.members(in.ID)[0]
	others := c.members(target)
	c.decide(seatProposal(ProposeEvict, Seats{Out: target, Row: c.row(3, 0, 2, 2)}), others)
	c.wait(6_000)
	if d := c.s.Batches.at(c.nextKey(KeyECDSA1).Batch).Newest().Dealers; slices.Contains(d, target) || len(d) != 3 {
		t.Errorf("the evicted deals: %v", d)
	}
	c.reshare()
	c.inForce(others)
	c.proveTests()
	if c.s.Epoch().N() != 3 || !c.s.Infos.at(3).Evicted || slices.ContainsFunc(c.s.Followers(), func(m Member) bool { return m.ID == target }) {
		t.Fatalf("epoch %+v, followers %v", c.s.Epoch(), c.s.Followers())
	}
	if code := c.by(target, KindClock, Clock{Millis: c.s.Millis}); code != NotAllowed {
		t.Errorf("the evicted one's clock: %s", code)
	}
	// With three nobody may leave; with four again one may, with this row only.
	m := c.members()[0]
	if code := c.by(m, KindLeave, Leave{Row: c.s.LeaveRow(m)}); code != BadParam {
		t.Errorf("leave of three: %s", code)
	}
	c.join(9, c.row(4, 0, 2, 3), c.members())
	c.wait(125_000)
	for code, r := range map[Code]Row{BadParam: c.row(3, 0, 3, 2), OK: c.s.LeaveRow(m)} {
		if got := c.by(m, KindLeave, Leave{Row: r}); got != code {
			t.Errorf("leave with %+v: %s, want %s", r, got, code)
		}
	}
	rest := c.members(m)
	c.wait(6_000)
	c.reshare()
	c.inForce(c.members())
	c.proveTests()
	if c.s.Epoch().Has(m) || c.s.Epoch().N() != len(rest) || !slices.ContainsFunc(c.s.Followers(), func(f Member) bool { return f.ID == m }) {
		t.Fatalf("epoch %+v, followers %v", c.s.Epoch(), c.s.Followers())
	}
}

// A resharing that one of the next epoch has lost, be it after all others are done, is
// tried again at once; nobody who has its share ends it alone. Seen failing without
// lost ("the others wait") and with it blind to who is ready ("one that has its share").
func TestReshareLostByOne(t *testing.T) {
	c := seated(t, func(g *Genesis) { g.Params.AdmitSeconds = 5 })
	voters, m := c.members(), newcomer(7)
	c.decide(seatProposal(ProposeAdmit, Seats{In: &m, Row: c.row(5, 1, 3, 4)}), voters)
	c.wait(10_000)
	gives := func(key string, by MemberID) NextKey {
		c.ready(key, voters)
		k := c.nextKey(key)
		c.each([]MemberID{by}, KindGaveUp, GaveUp{Batch: k.Batch, Attempt: k.Try})
		return c.nextKey(key)
	}
	if got := gives(KeyECDSA1, voters[0]); got.Try != 1 || len(got.Ready) != 4 {
		t.Errorf("one that has its share ends a try: %+v", got)
	}
	if got := gives(KeyEd255191, m.ID); got.Try != 2 || len(got.Ready) != 0 {
		t.Errorf("the others wait for one that has lost its share: %+v", got)
	}
}

// A word that a try is lost counts also where it comes while ledger time catches up and
// nothing is planned, as after a loss of power: nobody says it twice. Seen failing with
// the deadline alone asked later ("try 1").
func TestReshareLostWhileCatchingUp(t *testing.T) {
	c := seated(t, func(g *Genesis) { g.Params.AdmitSeconds = 5 })
	voters, m := c.members(), newcomer(7)
	c.decide(seatProposal(ProposeAdmit, Seats{In: &m, Row: c.row(5, 1, 3, 4)}), voters)
	c.wait(10_000)
	c.ready(KeyECDSA1, voters)
	k, began := c.nextKey(KeyECDSA1), c.s.Millis
	clocks := func(after uint64) { c.each(voters, KindClock, Clock{Millis: began + after}) }
	clocks(60_000)
	if !c.s.Catching {
		t.Fatal("ledger time does not catch up")
	}
	c.each([]MemberID{m.ID}, KindGaveUp, GaveUp{Batch: k.Batch, Attempt: k.Try})
	if got := c.nextKey(KeyECDSA1).Try; got != 1 {
		t.Fatalf("try %d is planned at a time that is none", got)
	}
	for after := uint64(60_010); c.s.Catching; after += 10 {
		if after > 70_000 {
			t.Fatal("ledger time never catches up")
		}
		clocks(after)
	}
	clocks(71_000)
	if got := c.nextKey(KeyECDSA1); got.Try != 2 {
		t.Errorf("try %d, with its deadline in %d ms", got.Try, c.s.Batches.at(got.Batch).Newest().Deadline-c.s.Millis)
	}
}

// What is not brought to an end drops its epoch and uses up its number: by
// deadline, by three failed tries, by vote. The newcomer stays admitted and needs
// another vote; the old epoch signs on. Seen failing with the number given again
// ("epoch 2 twice") and with the newcomer planned again by itself.
func TestDroppedEpochs(t *testing.T) {
	c := seated(t, func(g *Genesis) { g.Params.AdmitSeconds = 5 })
	voters, m := c.members(), newcomer(7)
	admit := seatProposal(ProposeAdmit, Seats{In: &m, Row: c.row(5, 1, 3, 4)})
	numbers := map[uint64]bool{}
	begin := func(text string) {
		t.Helper()
		p := admit
		p.Text = text
		c.decide(p, voters)
		c.wait(10_000)
		if c.s.Next == nil || numbers[c.s.Next.Epoch.Number] {
			t.Fatalf("%s: next %+v, epoch twice: %v", text, c.s.Next, c.s.Next != nil)
		}
		numbers[c.s.Next.Epoch.Number] = true
	}
	dropped := func(how string) {
		t.Helper()
		d := c.s.Dropped[len(c.s.Dropped)-1]
		if c.s.Next != nil || d.How != how || c.s.Epoch().Number != 1 || c.states()["node-8"] != SeatAdmitted || c.s.Changes[0].Failed == 0 {
			t.Fatalf("%s: dropped %+v, %v", how, d, c.states())
		}
		c.wait(30_000)
		if c.s.Next != nil {
			t.Fatalf("%s: planned again by itself", how)
		}
	}
	begin("deadline")
	c.ready(KeyECDSA1, c.members())
	c.wait(1_830_000)
	dropped(DroppedByDeadline)
	if d := c.s.Dropped[0]; !slices.Contains(d.Missing, m.ID) || len(d.Missing) != 5 {
		t.Errorf("missing %v", d.Missing)
	}
	begin("tries")
	for try := range uint64(3) {
		k := c.nextKey(KeyEd255191)
		if k.Try != try+1 {
			t.Fatalf("try %d, want %d", k.Try, try+1)
		}
		g := GaveUp{Batch: k.Batch, Attempt: k.Try, Blamed: []MemberID{m.ID}}
		c.each(c.members()[:2], KindGaveUp, g)
	}
	dropped(DroppedByTries)
	if d := c.s.Dropped[1]; !slices.Equal(d.Blamed, []MemberID{m.ID}) {
		t.Errorf("blamed %v", d.Blamed)
	}
	begin("vote")
	if c.vote(seatProposal(ProposeAbort, Seats{Epoch: 9}), voters) != BadParam {
		t.Error("abort of an epoch that is none")
	}
	n := c.s.Next.Epoch.Number
	abort := seatProposal(ProposeAbort, Seats{Epoch: n})
	c.decide(abort, voters)
	dropped(DroppedByVote)
	if code := c.vote(seatProposal(ProposeAbort, Seats{Epoch: n}), voters); code != BadParam {
		t.Errorf("abort twice: %s", code)
	}
	begin("opened")
	c.reshare()
	if code := c.vote(seatProposal(ProposeAbort, Seats{Epoch: c.s.Opening.Epoch.Number}), voters); code != NotAllowed {
		t.Errorf("abort of what is opened: %s", code)
	}
	c.inForce(voters)
	if c.s.Epoch().Number != 5 || c.s.LastEpoch != 5 || len(numbers) != 4 {
		t.Errorf("epoch %d after numbers %v", c.s.Epoch().Number, numbers)
	}
	// Who was admitted can be sent away again; it costs no epoch.
	c.wait(125_000)
	o := newcomer(8)
	c.decide(seatProposal(ProposeAdmit, Seats{In: &o, Row: c.row(6, 1, 3, 4)}), c.members())
	c.decide(seatProposal(ProposeEvict, Seats{Out: o.ID, Row: c.s.Epoch().Row()}), c.members())
	if len(c.s.Changes) != 0 || c.s.LastEpoch != 5 {
		t.Errorf("changes %v, last epoch %d", c.s.Changes, c.s.LastEpoch)
	}
}

// A rollback goes back to the members and KeyShares before, under a number of its
// own; not after its time, twice, or after an eviction; and nothing that it may
// need is wiped before. Seen failing with the generation taken from the new number
// ("signs with epoch 3") and with WhyKeep forgetting the time ("may be wiped").
func TestRollback(t *testing.T) {
	c := seated(t)
	if why := c.s.WhyNot(seatProposal(ProposeRollback, Seats{Epoch: 0, Row: c.s.Epoch().Row()})); why == "" {
		t.Error("rollback to before there were keys")
	}
	before := c.members()
	g1 := c.s.Infos.at(1).Keys
	c.join(7, c.row(5, 1, 3, 4), before)
	for _, g := range g1 {
		if c.s.WhyKeep(g) == "" {
			t.Fatalf("%s may be wiped while there is a way back", g)
		}
	}
	back := seatProposal(ProposeRollback, Seats{Epoch: 1, Row: c.row(4, 1, 3, 3)})
	for name, s := range map[string]Seats{"row": {Epoch: 1, Row: c.row(5, 1, 3, 4)}, "epoch": {Epoch: 2, Row: c.row(4, 1, 3, 3)}} {
		if code := c.vote(seatProposal(ProposeRollback, s), before); code != BadParam {
			t.Errorf("another %s: %s", name, code)
		}
	}
	g2 := c.s.Infos.at(2).Keys
	c.decide(back, before)
	if c.s.Opening == nil || c.s.Opening.Epoch.Number != 3 {
		t.Fatalf("opening %+v", c.s.Opening)
	}
	for _, g := range append(g1, g2...) {
		if c.s.WhyKeep(g) == "" {
			t.Errorf("%s may be wiped while a rollback is opened", g)
		}
	}
	c.inForce(c.members())
	if e := c.s.Epoch(); e.Number != 3 || e.N() != 4 || c.s.Keys.at(KeyECDSA1).Epoch != 1 {
		t.Fatalf("epoch %d of %d signs with epoch %d", e.Number, e.N(), c.s.Keys.at(KeyECDSA1).Epoch)
	}
	if code := c.vote(seatProposal(ProposeRollback, Seats{Epoch: 2, Row: c.row(5, 1, 3, 4)}), before); code != BadParam {
		t.Errorf("a rollback of a rollback: %s", code)
	}
	c.proveTests()
	c.wait(310_000)
	for _, g := range g2 {
		if why := c.s.WhyKeep(g); why != "" {
			t.Errorf("%s is kept: %s", g, why)
		}
	}
	for _, g := range g1 {
		if why := c.s.WhyKeep(g); !strings.Contains(why, "signs with it") {
			t.Errorf("%s: %q", g, why)
		}
	}
	// And from there the next epoch is dealt from the older generation.
	c.join(8, c.row(5, 1, 3, 4), before)
	if c.s.Epoch().Number != 4 || c.s.Keys.at(KeyECDSA1).Epoch != 4 {
		t.Errorf("epoch %d signs with epoch %d", c.s.Epoch().Number, c.s.Keys.at(KeyECDSA1).Epoch)
	}
	c.wait(301_000)
	if code := c.vote(seatProposal(ProposeRollback, Seats{Epoch: 3, Row: c.row(4, 1, 3, 3)}), before); code != NotAllowed {
		t.Errorf("too late: %s", code)
	}
	target := c.members()[0]
	c.decide(seatProposal(ProposeEvict, Seats{Out: target, Row: c.row(4, 1, 3, 3)}), c.members(target))
	c.wait(6_000)
	c.reshare()
	c.inForce(c.members(target))
	if code := c.vote(seatProposal(ProposeRollback, Seats{Epoch: 4, Row: c.row(5, 1, 3, 4)}), c.members()); code != NotAllowed {
		t.Errorf("after an eviction: %s", code)
	}
}

// A rollback that was decided in time is in force whenever its members get to
// certify it: no KeyShare that it needs is let go meanwhile. One that passes while
// another epoch is opened, or gets its last vote too late, is refused: what it would
// go back to may be wiped. Seen failing with WhyKeep blind to the epoch being
// prepared ("may be wiped while the rollback waits"), with carryOutSeats not judging
// again ("a rollback to before the epoch before"), and with mayRollBack blind to the
// window ("came too late").
func TestRollbackOutlivesItsWindow(t *testing.T) {
	c := seated(t)
	before, r4 := c.members(), c.row(4, 1, 3, 3)
	g1 := c.s.Infos.at(1).Keys
	c.join(7, c.row(5, 1, 3, 4), before)
	c.wait(290_000)
	c.decide(seatProposal(ProposeRollback, Seats{Epoch: 1, Row: r4}), before)
	for range 4 {
		c.wait(100_000)
		for _, g := range g1 {
			if c.s.WhyKeep(g) == "" || c.by(before[0], KindWiped, Wiped{g}) != NotAllowed {
				t.Fatalf("%s may be wiped while the rollback waits for its certificate", g)
			}
		}
	}
	c.inForce(c.members())
	c.proveTests()
	if e := c.s.Epoch(); e.Number != 3 || e.Row() != r4 || c.s.Keys.at(KeyECDSA1).Epoch != 1 {
		t.Fatalf("epoch %d, %+v, signs with epoch %d", e.Number, e.Row(), c.s.Keys.at(KeyECDSA1).Epoch)
	}

	refresh := func() {
		t.Helper()
		p := seatProposal(ProposeRefresh, Seats{Row: r4})
		p.Text = fmt.Sprint("after epoch ", c.s.Epoch().Number)
		c.decide(p, c.members())
		c.wait(6_000)
		c.reshare()
	}
	last := func() Decided { return c.s.Decided[len(c.s.Decided)-1] }
	refresh()
	c.inForce(c.members())
	c.proveTests()
	refresh()
	back := seatProposal(ProposeRollback, Seats{Epoch: 3, Row: r4})
	c.decide(back, c.members())
	c.wait(20_000)
	if b, waits := c.s.Ballots.get(back.Hash().String()); !waits || b.Passed == 0 || c.s.Opening.Epoch.Number != 5 {
		t.Fatalf("rollback while epoch 5 is opened: %+v", b)
	}
	c.inForce(c.members())
	c.wait(5_000)
	if d := last(); d.Proposal.Hash() != back.Hash() || d.How != DecidedRefused || d.Code != BadParam || c.s.Epoch().Number != 5 || c.s.Opening != nil {
		t.Fatalf("a rollback to before the epoch before: %s %s, epoch %d, opening %v", d.How, d.Code, c.s.Epoch().Number, c.s.Opening)
	}
	c.proveTests()

	late := seatProposal(ProposeRollback, Seats{Epoch: 4, Row: r4})
	c.decide3(late, c.members()[0], c.members()[1])
	c.wait(300_000)
	if code := c.by(c.members()[2], KindVote, Vote{Hash: late.Hash(), Yes: true}); code != OK || last().How != DecidedRefused || last().Code != NotAllowed {
		t.Fatalf("the last vote came too late: %s, %+v", code, last())
	}
	g4 := c.s.Infos.at(4).Keys[0]
	if why := c.s.WhyKeep(g4); why != "" {
		t.Fatalf("%s is kept: %s", g4, why)
	}
}

// Who leaves gets the log until it has wiped every KeyShare it held, however many
// epochs come into force meanwhile: without the log it never learns that it may.
// Who was evicted gets none, and a later epoch does not forget that. Seen failing
// with only those of the epoch before followed ("cut off with its key shares") and
// with Evicted asking the newest flip alone ("forgotten").
func TestWhoLeftFollowsUntilItHasWiped(t *testing.T) {
	c := seated(t)
	c.join(7, c.row(5, 1, 3, 4), c.members())
	c.wait(125_000)
	gone := c.members()[1]
	follows := func(m MemberID) bool {
		return slices.ContainsFunc(c.s.Followers(), func(f Member) bool { return f.ID == m })
	}
	if code := c.by(gone, KindLeave, Leave{Row: c.s.LeaveRow(gone)}); code != OK {
		t.Fatalf("leave: %s", code)
	}
	flip := func() {
		t.Helper()
		c.wait(6_000)
		c.reshare()
		c.inForce(c.members(gone))
		c.proveTests()
	}
	flip()
	c.decide(seatProposal(ProposeRefresh, Seats{Row: c.s.Epoch().Row()}), c.members())
	flip()
	if !follows(gone) || c.s.Evicted(gone) {
		t.Fatalf("cut off with its key shares: followers %v", c.s.Followers())
	}
	c.wait(301_000)
	held := append(slices.Clone(c.s.Infos.at(1).Keys), c.s.Infos.at(2).Keys...)
	for _, g := range held {
		if !follows(gone) {
			t.Fatalf("cut off before it wiped %s", g)
		}
		if code := c.by(gone, KindWiped, Wiped{g}); code != OK {
			t.Fatalf("wiped %s: %s", g, code)
		}
	}
	if follows(gone) {
		t.Error("followed with nothing left to wipe")
	}

	target := c.members()[0]
	c.decide(seatProposal(ProposeEvict, Seats{Out: target, Row: c.row(3, 0, 2, 2)}), c.members(target))
	c.wait(6_000)
	c.reshare()
	c.inForce(c.members(target))
	c.proveTests()
	for range 2 {
		if follows(target) || !c.s.Evicted(target) || c.s.Evicted(gone) || c.s.Evicted(c.members()[0]) {
			t.Fatalf("epoch %d: an eviction is forgotten: followers %v", c.s.Epoch().Number, c.s.Followers())
		}
		c.decide(seatProposal(ProposeRefresh, Seats{Row: c.s.Epoch().Row()}), c.members())
		flip()
	}
}

// WhyKeep, line by line (spec: signing §11). Each condition is planted alone as
// the last one missing; each was seen failing ("may be wiped") with its line
// taken out of WhyKeep.
func TestWhyKeep(t *testing.T) {
	c := seated(t)
	before, m := c.members(), newcomer(7)
	g := c.s.Infos.at(1).Keys
	c.decide(seatProposal(ProposeAdmit, Seats{In: &m, Row: c.row(5, 1, 3, 4)}), before)
	c.wait(66_000)
	keeps := func(what string, g Generation, want string) {
		t.Helper()
		if why := c.s.WhyKeep(g); why == "" || !strings.Contains(why, want) {
			t.Errorf("%s: %s may be wiped: %q, want %q", what, g, why, want)
		}
	}
	keeps("unknown epoch", Generation{KeyECDSA1, 3, 1}, "not known")
	keeps("being prepared", Generation{KeyECDSA1, 2, 1}, "being prepared")
	keeps("a try to come", Generation{KeyECDSA1, 2, 2}, "not planned yet")
	keeps("in force", g[0], "signs with it")
	k := c.nextKey(KeyECDSA1)
	c.each(before[:2], KindGaveUp, GaveUp{Batch: k.Batch, Attempt: 1})
	if why := c.s.WhyKeep(Generation{KeyECDSA1, 2, 1}); why != "" {
		t.Errorf("a dropped try: %s", why)
	}
	account := c.open(ethWallet(1))
	c.deposit(account, "btc", PurposeSupply, "100000000")
	c.refresh()
	if code := c.ask(ethWallet(1), c.payout(address.ActionWithdraw, "btc", "10000000", payeeBTC(1), "100000")); code != OK {
		t.Fatalf("withdraw: %s", code)
	}
	c.wait(5_000)
	pay := c.payment()
	c.reshare()
	keeps("opened", g[0], "signs with it")
	c.inForce(before)
	keeps("open attempt", g[0], "is open under it")
	c.wait(330_000)
	if a := c.payment().Newest(); a.Epoch != 2 {
		t.Fatalf("attempt of epoch %d", a.Epoch)
	}
	keeps("no tests yet", g[0], "no test signatures")
	if code := c.by(before[0], KindWiped, Wiped{g[0]}); code != NotAllowed {
		t.Errorf("wiped before its time: %s", code)
	}
	c.proveTests()
	for _, g := range g {
		if why := c.s.WhyKeep(g); why != "" {
			t.Errorf("%s is kept: %s", g, why)
		}
	}
	c.pay(pay)
	c.each(before, KindWiped, Wiped{g[0]})
	if !c.s.HasWiped(before[3], g[0]) || c.by(m.ID, KindWiped, Wiped{g[0]}) != NotAllowed || c.by(before[0], KindWiped, Wiped{Generation{KeyECDSA1, 2, 1}}) != NotAllowed {
		t.Error("wiped by who held it, and what was held")
	}
	// Without its test signatures a later epoch frees nothing.
	c.decide(seatProposal(ProposeRefresh, Seats{Row: c.s.Epoch().Row()}), before)
	c.wait(6_000)
	g2 := c.s.Infos.at(2).Keys[0]
	c.reshare()
	c.inForce(c.members())
	c.wait(310_000)
	keeps("tests missing", g2, "no test signatures")
	if b := c.s.Infos.at(3); len(b.Tests) == 0 || b.Proven != 0 {
		t.Errorf("%+v", b)
	}
	c.proveTests()
	if why := c.s.WhyKeep(g2); why != "" {
		t.Errorf("%s is kept: %s", g2, why)
	}
}

// Plants a session in which two newcomers could sit: of all turns of an attempt
// none has both, and the tests still reach everybody. Seen failing with Committee
// taking every combination ("turn 0 has two in quarantine").
func TestNoTwoInQuarantine(t *testing.T) {
	for _, r := range []struct{ n, m, fresh int }{{4, 2, 2}, {5, 3, 2}, {7, 4, 2}, {7, 5, 3}, {10, 7, 3}} {
		_, members := coreMembers(r.n)
		e := Epoch{Members: members, M: r.m}
		a := Attempt{Roster: memberIDs(e), M: r.m, Fresh: memberIDs(e)[:r.fresh]}
		seen := map[string]bool{}
		for turn := range uint64(300) {
			in := 0
			c := a.Committee(turn)
			for _, m := range c {
				if slices.Contains(a.Fresh, m) {
					in++
				}
			}
			if in > 1 || len(c) != r.m {
				t.Fatalf("%+v: turn %d has %d in quarantine of %d", r, turn, in, len(c))
			}
			seen[fmt.Sprint(c)] = true
		}
		old := r.n - r.fresh
		if want := binomial(old, r.m) + uint64(r.fresh)*binomial(old, r.m-1); uint64(len(seen)) != want {
			t.Errorf("%+v: %d committees, want %d", r, len(seen), want)
		}
		reached := map[MemberID]bool{}
		for _, roster := range testRosters(e, func(m MemberID) bool { return slices.Contains(a.Fresh, m) }) {
			in := 0
			for i, m := range roster {
				reached[m] = true
				if i > 0 && slices.Compare(roster[i-1][:], m[:]) >= 0 {
					t.Errorf("%+v: roster not sorted, or doubled", r)
				}
				if slices.Contains(a.Fresh, m) {
					in++
				}
			}
			if len(roster) != r.m || in > 1 {
				t.Errorf("%+v: a test of %d with %d in quarantine", r, len(roster), in)
			}
		}
		if len(reached) != r.n {
			t.Errorf("%+v: tests reach %d members", r, len(reached))
		}
	}
}

// A halt of outflows does not keep a traitor's seat: votes, resharing and tests
// go on, payments do not. What broke of our own stays off.
func TestEvictionDuringHalt(t *testing.T) {
	c := seated(t)
	c.s.OutflowsHalt = "foreign spend"
	target := c.members()[0]
	c.decide(seatProposal(ProposeEvict, Seats{Out: target, Row: c.row(3, 0, 2, 2)}), c.members(target))
	c.wait(6_000)
	if c.s.Next == nil {
		t.Fatal("not begun while outflows are halted")
	}
	k := c.nextKey(KeyECDSA1)
	c.wait(610_000)
	if c.nextKey(KeyECDSA1).Try != k.Try+1 {
		t.Error("no second try while outflows are halted")
	}
	c.reshare()
	c.inForce(c.members(target))
	if c.s.Epoch().Has(target) || c.s.OutflowsHalt == "" {
		t.Errorf("epoch %+v, halt %q", c.s.Epoch(), c.s.OutflowsHalt)
	}
}

// A tally that a smaller committee would complete is raised anew: nobody would
// say twice what the ledger has heard. Seen failing with tallies kept over the
// flip ("heard, and not counted").
func TestFlipDropsTallies(t *testing.T) {
	c := seated(t)
	c.join(7, c.row(5, 1, 3, 4), c.members())
	c.wait(125_000)
	account := c.open(ethWallet(1))
	f := c.inflowTo(account, "btc", PurposeSupply, "100000000")
	target := c.members()[4]
	rest := c.members(target)
	c.each(rest[:3], KindInflow, f)
	c.decide(seatProposal(ProposeEvict, Seats{Out: target, Row: c.row(4, 1, 3, 3)}), rest)
	c.wait(6_000)
	c.reshare()
	c.inForce(rest)
	if c.s.Heard(rest[0], KindInflow, f) {
		t.Fatal("heard, and not counted")
	}
	c.each(rest[:3], KindInflow, f)
	if !c.s.Inflows.has(f.ID) {
		t.Error("not counted by three of four")
	}
}

// The whole committee survives a snapshot at any moment of a change, and a
// replica restored there goes on byte by byte.
func TestCommitteeInSnapshots(t *testing.T) {
	c := seated(t)
	var copies []*State
	from := len(c.log)
	c.join(7, c.row(5, 1, 3, 4), c.members())
	log := c.log[from:]
	base := seated(t)
	if base.s.Head != must(DecodeState(Marshal(base.s))).Head {
		t.Fatal("not the same cluster")
	}
	for i, raw := range log {
		if i%7 == 0 {
			copies = append(copies, must(DecodeState(Marshal(base.s))))
		}
		r := base.s.Execute(raw)
		for _, o := range copies {
			if got := o.Execute(raw); got.Header != r.Header {
				t.Fatalf("command %d: a restored replica differs", i)
			}
		}
	}
	for _, o := range copies {
		if string(Marshal(o)) != string(Marshal(c.s)) {
			t.Error("a restored replica differs at the end")
		}
	}
}
