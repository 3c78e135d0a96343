package consensus

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/coffer-network/coffer/consensus/malice"
	"github.com/coffer-network/coffer/ledger"
)

// innocent fails the test if any member holds anything against another.
func (c *cluster) innocent(when string) {
	c.t.Helper()
	for _, m := range c.members {
		if m.up() {
			if st := m.Status(); len(st.Proofs) != 0 || len(st.Shunned) != 0 {
				c.t.Fatalf("%s: member %d: proofs %+v, shunned %+v", when, m.n, st.Proofs, st.Shunned)
			}
		}
	}
}

// The leader shows some of its followers another payload, in one entry among many
// honest ones. The honest compare, every one of them comes to hold a proof, shuns the
// leader and follows another; a member that restarts still holds it, and the one that
// was down hears of it. Plants with 4, 5 and 7 members, the traitors keeping quiet.
//
// Seen failing without convict in HandleAccount's comparing ("not within 5m0s: all
// hold a proof"), without convicted in judge ("all shun the leader") and without
// loadProofs ("forgot the proof").
func TestTraitor_TwoFacedLeaderIsProved(t *testing.T) {
	sizes(t, Settings{}, func(t *testing.T, c *cluster) {
		k, boss := c.traitorous()
		k.testify.Store(true)
		h := k.honest()
		k.ask(boss, "a")
		c.agree(boss.Height(), c.members...)
		down := h[len(h)-1]
		c.stop(down)
		b := side(h[0])
		boss.liar.Lie(malice.Rules{Rewrite: func(to string, e *malice.Entry) {
			if b[to] {
				e.Data = swap(e.Data, map[string]string{"plan pay-1 coin-1": "plan pay-1 coin-2"})
			}
		}})
		for i := range 20 {
			k.ask(boss, fmt.Sprint("before ", i))
		}
		k.client("plan pay-1 coin-2")
		k.ask(boss, "plan pay-1 coin-1")
		began := time.Now()
		proved := func(m *member) bool {
			ps := m.Status().Proofs
			return len(ps) == 1 && ps[0].Leader == boss.id && ps[0].Convinces(c.id)
		}
		c.eventually("all hold a proof", func() bool {
			for _, m := range h[:len(h)-1] {
				if !proved(m) {
					return false
				}
			}
			return true
		})
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("that took %s", took)
		}
		c.eventually("all shun the leader", func() bool { n, s := k.shunnedBy(boss); return n == len(h)-1 && s.Reason == ReasonEquivocated })
		c.start(down)
		k.signs(down)
		c.eventually("who was down hears of it", func() bool { return proved(down) && down.shuns(boss.id) })
		c.eventually("another leader", func() bool { l, ok := h[0].Leader(); return ok && l != boss.id })
		// It stays shunned when the time is over, and over a restart that hears nobody.
		_, s := k.shunnedBy(boss)
		time.Sleep(time.Until(s.Until) + 5*time.Second)
		if n, s := k.shunnedBy(boss); n != len(h) || s.Times < 2 {
			t.Errorf("after the first time: shunned by %d of %d, %+v", n, len(h), s)
		}
		k.testify.Store(false)
		if err := k.restart(h[0], nil); err != nil {
			t.Fatal(err)
		}
		if !proved(h[0]) {
			t.Error("forgot the proof")
		}
		k.acquit()
	}, 4, 5, 7)
}

// A leader sends one follower two entries for one slot: the first is not committed,
// and the second comes in its place as raft would never send it.
func TestTraitor_TwoEntriesToOne(t *testing.T) {
	virtual(t, 4, Settings{}, func(t *testing.T, c *cluster) {
		k, boss := c.traitorous()
		k.ask(boss, "a")
		f := k.honest()[0]
		c.agree(1, c.members...)
		boss.liar.Lie(malice.Rules{Withhold: func(string) bool { return true }})
		last, err := f.log.LastIndex()
		var prev raft.Log
		if err = errors.Join(err, f.log.GetLog(last, &prev)); err != nil {
			t.Fatal(err)
		}
		for _, tx := range []string{"one", "other"} {
			e := &malice.Entry{Index: last + 1, Term: boss.term(), Data: ledger.Marshal([][]byte{[]byte(tx)})}
			_ = boss.liar.Send(serverID(boss.id), address(f.id), boss.term(), prev, e)
		}
		if ps := f.Status().Proofs; len(ps) != 1 || ps[0].Index != last+1 || !f.shuns(boss.id) {
			t.Errorf("%+v", ps)
		}
	})
}

// leads has m take the leadership over, if it has not.
func (c *cluster) leads(m *member) {
	c.t.Helper()
	c.eventually("it leads", func() bool {
		l := c.leader()
		if l != m {
			_ = l.raft.LeadershipTransferToServer(serverID(m.id), raft.ServerAddress(address(m.id))).Error()
		}
		return l == m
	})
}

// A leader that was left has goroutines of raft's that still send, and by then its log
// may hold what another leader put there. Nothing of that is signed. Seen failing with
// the question for the leadership taken out ("signs as the leader it was").
func TestDeposedLeaderSignsNothing(t *testing.T) {
	virtual(t, 4, Settings{}, func(t *testing.T, c *cluster) {
		c.start(c.members...)
		c.submit(c.leader(), "x")
		old := c.leader()
		term := old.term()
		last, err := old.log.LastIndex()
		var e raft.Log
		if err = errors.Join(err, old.log.GetLog(last, &e)); err != nil {
			t.Fatal(err)
		}
		sends := func() error {
			_, err := old.fence.signed(&raft.AppendEntriesRequest{Term: term, Entries: []*raft.Log{&e}})
			return err
		}
		if err := sends(); err != nil {
			t.Fatal(err)
		}
		if err := old.Transfer(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.eventually("another leads", func() bool { return c.leader() != old })
		if err := sends(); !errors.Is(err, errDeposed) {
			t.Errorf("signs as the leader it was: %v", err)
		}
		c.leads(old)
		if err := sends(); !errors.Is(err, errDeposed) {
			t.Errorf("signs for a term that it leads no more: %v", err)
		}
		req, err := old.fence.signed(&raft.AppendEntriesRequest{Term: old.term(), Entries: []*raft.Log{&e}})
		if err != nil || !SlotOf(c.id, old.id, old.term(), &e).verify([64]byte(req.Entries[0].Extensions)) {
			t.Errorf("what it sent before it sends with the signature of the earlier term: %v", err)
		}
	})
}

// What an honest cluster goes through yields no proof: load, a follower that comes back
// far behind, leaders that are cut off with entries that are taken back, killed, handed
// over from, all at once stopped and started.
//
// Seen failing with slots that do not name the term ("taken back and led again").
func TestHonestLeadersAreNeverProved(t *testing.T) {
	// Snapshots, but a log that reaches back behind what is taken back.
	virtual(t, 5, Settings{SnapshotThreshold: 60, SnapshotInterval: time.Second, TrailingLogs: 200}, func(t *testing.T, c *cluster) {
		c.start(c.members...)
		n := 0
		load := func(ms ...*member) {
			for range 40 {
				n++
				c.submit(ms[n%len(ms)], fmt.Sprint("x ", n))
			}
		}
		load(c.members...)
		f := c.follower()
		c.stop(f)
		load(c.others(f)...)
		c.start(f)
		load(c.members...)
		c.innocent("a follower came back")
		for round := range 4 {
			old := c.leader()
			c.cut(old, true)
			with := c.others(old)[round]
			c.cut(with, true)
			old.net.Connect(raft.ServerAddress(address(with.id)), with.net)
			with.net.Connect(raft.ServerAddress(address(old.id)), old.net)
			had, _ := with.log.LastIndex()
			for i := range 10 { // reaches one other, and is taken back
				old.raft.Apply(ledger.Marshal([][]byte{fmt.Appendf(nil, "alone %d %d", round, i)}), time.Second)
			}
			c.eventually("the other has it", func() bool { last, _ := with.log.LastIndex(); return last >= had+10 })
			var rest []*member
			for _, m := range c.others(old) {
				if m != with {
					rest = append(rest, m)
				}
			}
			c.leader(rest...)
			c.cut(old, false)
			c.cut(with, false)
			c.leads(old) // and fills the same slots, for the same follower
			load(c.members...)
			c.innocent("taken back and led again")
			_ = c.leader().Transfer(t.Context())
			load(c.members...)
			c.innocent("handed over")
			l := c.leader()
			c.stop(l)
			load(c.others(l)...)
			c.start(l)
			load(c.members...)
			c.innocent("killed")
			c.stopAll()
			c.start(c.members...)
			load(c.members...)
			c.innocent("all stopped")
		}
		time.Sleep(time.Minute)
		c.innocent("a minute later")
		for _, m := range c.others(c.leader()) {
			if x := m.witness.account(nil, time.Now()); len(x.Digests) == 0 || len(x.Digests[0].Tags) == 0 {
				t.Errorf("member %d compares nothing", m.n)
			}
		}
	})
}

// One honest leader's log cut into requests at random borders, sent again and again to
// several followers that compare: never a proof, whatever two of them hold. One entry
// changed for one of them: always a proof, from either side.
func TestBordersProveNothing(t *testing.T) {
	key := seedKey(0)
	leader := keyed("0")
	cluster := ledger.Hash{1}
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		const entries = 400
		log := make([]*raft.Log, entries)
		for i := range log {
			log[i] = &raft.Log{Index: uint64(i + 1), Term: 3 + uint64(i/300), Data: fmt.Appendf(nil, "%d", i)}
		}
		const term = 5
		sig := map[*raft.Log]signedSlot{}
		sign := func(e *raft.Log) signedSlot {
			if s, ok := sig[e]; ok {
				return s
			}
			s := signedSlot{Slot: SlotOf(cluster, leader, term, e)}
			if seed%50 == 0 || e.Index == 200 { // few signatures: they are not what is tried here
				s.sig = SignSlot(key, s.Slot).Sig
			}
			sig[e] = s
			return s
		}
		other := *log[199]
		other.Data = []byte("other")
		var ws []*witness
		for n := range 3 {
			w := newWitness()
			for range 20 {
				from := r.IntN(entries)
				to := min(entries, from+1+r.IntN(64))
				var ss []signedSlot
				for _, e := range log[from:to] {
					if n == 2 && e.Index == 200 {
						e = &other
					}
					ss = append(ss, sign(e))
				}
				if p := w.note(ss, time.Now()); p != nil {
					t.Fatalf("seed %d: sent again, and a proof: %+v", seed, p)
				}
			}
			ws = append(ws, w)
		}
		compare := func(a, b *witness) (p *Proof) { // b answers what a says, until it has nothing to
			for range 40 {
				x := a.account(nil, time.Now())
				b.doubt(x.Digests, cluster)
				if y := b.account(nil, time.Now()); y.Shown != nil {
					if size := len(ledger.Marshal(y)); size > maxAccount {
						t.Fatalf("an account of %d bytes", size)
					}
					if p = a.compare(*y.Shown, cluster); p != nil {
						return p
					}
				}
			}
			return nil
		}
		_, has1 := ws[1].books[0].at(200, cluster)
		_, has2 := ws[2].books[0].at(200, cluster)
		if p := compare(ws[0], ws[1]); p != nil {
			t.Fatalf("seed %d: %+v against an honest leader", seed, p)
		}
		p := compare(ws[1], ws[2])
		if p == nil {
			p = compare(ws[2], ws[1]) // of a group that one holds in part the other judges
		}
		switch {
		case p != nil && (!has1 || !has2 || p.Index != 200 || !p.Convinces(cluster)):
			t.Fatalf("seed %d: %+v", seed, p)
		case p == nil && has1 && has2 && ws[1].books[0].groups[12].held == ws[2].books[0].groups[12].held:
			t.Fatalf("seed %d: two entries for one slot go unseen", seed)
		}
	}
}

// Entries without the leader's own signature for just this slot are refused, by name,
// and raft sees none of them. Seen failing with the check of the signature taken out
// ("unsigned: <nil>").
func TestFence_UnsignedEntries(t *testing.T) {
	virtual(t, 4, Settings{}, func(t *testing.T, c *cluster) {
		c.start(c.members...)
		c.submit(c.leader(), "x")
		c.agree(1, c.members...)
		f := c.follower()
		boss := c.leader()
		another := c.others(f)[0]
		if another == boss {
			another = c.others(f)[1]
		}
		c.cut(f, true)
		last, err := f.log.LastIndex()
		var prev raft.Log
		if err = errors.Join(err, f.log.GetLog(last, &prev)); err != nil {
			t.Fatal(err)
		}
		term := f.term()
		good := func() *raft.AppendEntriesRequest {
			e := &raft.Log{Index: last + 1, Term: term, Type: raft.LogCommand, Data: ledger.Marshal([][]byte{[]byte("y")})}
			c.signsSlot(boss, term, e)
			return &raft.AppendEntriesRequest{
				RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(serverID(boss.id)), Addr: []byte("leader")},
				Term:      term, PrevLogEntry: last, PrevLogTerm: prev.Term, Entries: []*raft.Log{e},
			}
		}
		handle := func(cmd *raft.AppendEntriesRequest) error {
			answer := make(chan raft.RPCResponse, 1)
			f.fence.handle(raft.RPC{Command: cmd, RespChan: answer})
			return (<-answer).Error
		}
		for name, x := range map[string]struct {
			change func(req *raft.AppendEntriesRequest, e *raft.Log)
			want   error
		}{
			"unsigned":                 {func(_ *raft.AppendEntriesRequest, e *raft.Log) { e.Extensions = nil }, errUnsigned},
			"half a signature":         {func(_ *raft.AppendEntriesRequest, e *raft.Log) { e.Extensions = e.Extensions[:32] }, errUnsigned},
			"and more":                 {func(_ *raft.AppendEntriesRequest, e *raft.Log) { e.Extensions = append(e.Extensions, 0) }, errUnsigned},
			"forged":                   {func(_ *raft.AppendEntriesRequest, e *raft.Log) { e.Extensions[5]++ }, errUnsigned},
			"another payload":          {func(_ *raft.AppendEntriesRequest, e *raft.Log) { e.Data = []byte("z") }, errUnsigned},
			"another type":             {func(_ *raft.AppendEntriesRequest, e *raft.Log) { e.Type = raft.LogNoop }, errUnsigned},
			"of another term":          {func(_ *raft.AppendEntriesRequest, e *raft.Log) { e.Term-- }, errUnsigned},
			"by another member":        {func(_ *raft.AppendEntriesRequest, e *raft.Log) { c.signsSlot(another, term, e) }, errUnsigned},
			"for an earlier term":      {func(_ *raft.AppendEntriesRequest, e *raft.Log) { c.signsSlot(boss, term-1, e) }, errUnsigned},
			"replayed in a later term": {func(req *raft.AppendEntriesRequest, e *raft.Log) { req.Term++ }, errUnsigned},
			"of another cluster": {func(_ *raft.AppendEntriesRequest, e *raft.Log) {
				s := SignSlot(boss.key, SlotOf(ledger.Hash{9}, boss.id, term, e)).Sig
				e.Extensions = s[:]
			}, errUnsigned},
			"too many": {func(req *raft.AppendEntriesRequest, e *raft.Log) {
				for i := range uint64(maxAppendEntries) {
					req.Entries = append(req.Entries, &raft.Log{Index: e.Index + 1 + i, Term: term})
				}
			}, errMalformed},
		} {
			req := good()
			x.change(req, req.Entries[0])
			if err := handle(req); !errors.Is(err, x.want) {
				t.Errorf("%s: %v, want %v", name, err, x.want)
			}
		}
		if got, _ := f.log.LastIndex(); got != last || f.term() != term {
			t.Fatalf("raft saw a refused request: it ends at %d, want %d", got, last)
		}
		if err := handle(good()); err != nil {
			t.Fatal(err)
		}
		var e raft.Log
		if err := f.log.GetLog(last+1, &e); err != nil || len(e.Extensions) != 0 {
			t.Errorf("stored with %d bytes beside it, %v", len(e.Extensions), err)
		}
		if ps := f.Status().Proofs; len(ps) != 0 {
			t.Errorf("what others forged proves something of the leader: %+v", ps)
		}
	})
}

// A leader that signs nothing orders nothing, and is left.
func TestTraitor_UnsignedLeaderIsLeft(t *testing.T) {
	virtual(t, 4, Settings{}, func(t *testing.T, c *cluster) {
		k, boss := c.traitorous()
		c.clocks()
		time.Sleep(10 * time.Second)
		boss.liar.Sign = func(_ uint64, e *malice.Entry) { e.Extensions = nil }
		boss.liar.Lie(malice.Rules{Rewrite: func(string, *malice.Entry) {}})
		began := time.Now()
		c.eventually("an honest leader", func() bool { l, ok := k.honest()[0].Leader(); return ok && !k.traitor(c.find(l)) })
		if took := time.Since(began); took > 2*time.Minute {
			t.Errorf("that took %s", took)
		}
		k.ask(k.honest()[0], "goes on")
		k.acquit()
	})
}

func TestHandleAccount(t *testing.T) {
	virtual(t, 4, Settings{}, func(t *testing.T, c *cluster) {
		c.start(c.members...)
		l := c.leader()
		m, from := c.others(l)[0], c.others(l)[1]
		c.cut(from, true) // what it says is said here
		proof := func() Proof {
			a := Slot{Cluster: c.id, Leader: l.id, Term: 7, Index: 9, Entry: ledger.Hash{1}}
			b := a
			b.Entry = ledger.Hash{2}
			return signedSlot{a, SignSlot(l.key, a).Sig}.against(signedSlot{b, SignSlot(l.key, b).Sig})
		}
		withProof := func(f func(*Proof)) []byte {
			p := proof()
			f(&p)
			return ledger.Marshal(account{Proof: &p})
		}
		withDigest := func(f func(*digest)) []byte {
			d := digest{Leader: l.id, Term: 7, Top: 5, Salt: make([]byte, saltSize), Tags: make([]byte, tagSize)}
			f(&d)
			return ledger.Marshal(account{Digests: []digest{d}})
		}
		stranger := seedKey(9)
		for name, x := range map[string]struct {
			from ledger.MemberID
			body []byte
			want error
		}{
			"stranger":        {keyed("9"), withProof(func(*Proof) {}), errNotMember},
			"large":           {from.id, make([]byte, maxAccount+1), errAccount},
			"noise":           {from.id, []byte("noise"), errAccount},
			"one entry twice": {from.id, withProof(func(p *Proof) { p.Entries[1], p.Signatures[1] = p.Entries[0], p.Signatures[0] }), errAccount},
			"false signature": {from.id, withProof(func(p *Proof) { p.Signatures[1][3]++ }), errAccount},
			"another slot":    {from.id, withProof(func(p *Proof) { p.Index++ }), errAccount},
			"another term":    {from.id, withProof(func(p *Proof) { p.Term++ }), errAccount},
			"another member":  {from.id, withProof(func(p *Proof) { p.Leader = c.others(l)[2].id }), errAccount},
			"of a stranger": {from.id, withProof(func(p *Proof) {
				s := Slot{Cluster: c.id, Leader: keyed("9"), Term: 7, Index: 9}
				p.Leader = s.Leader
				for i := range 2 {
					s.Entry = ledger.Hash{byte(i)}
					p.Entries[i], p.Signatures[i] = s.Entry, SignSlot(stranger, s).Sig
				}
			}), errAccount},
			"of another cluster": {from.id, withProof(func(p *Proof) {
				s := Slot{Cluster: ledger.Hash{9}, Leader: l.id, Term: 7, Index: 9}
				p.Cluster = s.Cluster
				for i := range 2 {
					s.Entry = ledger.Hash{byte(i)}
					p.Entries[i], p.Signatures[i] = s.Entry, SignSlot(l.key, s).Sig
				}
			}), errAccount},
			"digests below slot 0": {from.id, withDigest(func(d *digest) { d.Tags = make([]byte, 7*tagSize) }), errAccount},
			"half a tag":           {from.id, withDigest(func(d *digest) { d.Tags = d.Tags[:4] }), errAccount},
			"no salt":              {from.id, withDigest(func(d *digest) { d.Salt = nil }), errAccount},
			"too many groups": {from.id, withDigest(func(d *digest) {
				d.Top, d.Tags = 1000, make([]byte, (maxGroups+1)*tagSize)
			}), errAccount},
			"too many digests": {from.id, ledger.Marshal(account{Digests: make([]digest, maxDigests+1)}), errAccount},
			"too many slots":   {from.id, ledger.Marshal(account{Shown: &shown{Slots: make([]shownSlot, slotsPerGroup+1)}}), errAccount},
		} {
			time.Sleep(time.Second)
			if err := m.HandleAccount(x.from, x.body); !errors.Is(err, x.want) {
				t.Errorf("%s: %v, want %v", name, err, x.want)
			}
		}
		c.innocent("after all of them")
		time.Sleep(10 * time.Second)
		refused := 0
		for range 100 {
			if m.HandleAccount(from.id, withDigest(func(*digest) {})) != nil {
				refused++
			}
		}
		if refused < 100-accountBurst-1 {
			t.Errorf("a flood: %d of 100 refused", refused)
		}
		time.Sleep(10 * time.Second)
		if err := m.HandleAccount(from.id, withProof(func(*Proof) {})); err != nil {
			t.Fatal(err)
		}
		if ps := m.Status().Proofs; len(ps) != 1 || !m.shuns(l.id) {
			t.Errorf("the genuine one: %+v", ps)
		}
		b, err := os.ReadFile(m.ProofFile(l.id))
		var p Proof
		if err = errors.Join(err, ledger.Unmarshal(b, &p)); err != nil || !p.Convinces(c.id) {
			t.Errorf("on disk: %v", err)
		}
	})
}

// What is remembered has a bound, whatever a leader signs, and the fullest account
// fits into what gossip takes.
func TestWitnessIsBounded(t *testing.T) {
	w := newWitness()
	key, leader := seedKey(0), keyed("0")
	slot := func(term, index uint64) signedSlot {
		s := Slot{Cluster: ledger.Hash{1}, Leader: leader, Term: term, Index: index, Entry: ledger.Hash{byte(index), byte(term)}}
		return signedSlot{s, [ed25519.SignatureSize]byte(bytes.Repeat([]byte{0xff}, 64))}
	}
	for term := range uint64(20) {
		for i := uint64(1); i < 10_000; i++ {
			w.note([]signedSlot{slot(1<<40+term, 1<<40+i)}, time.Now())
		}
	}
	w.note([]signedSlot{slot(1<<40+19, 1<<40+9999)}, time.Now())
	if len(w.books) != maxBooks {
		t.Errorf("%d books", len(w.books))
	}
	for _, b := range w.books {
		if len(b.groups) > maxGroups {
			t.Errorf("%d groups", len(b.groups))
		}
	}
	s := slot(1<<40, 1<<40)
	s.sig = SignSlot(key, s.Slot).Sig
	o := s
	o.Entry[5]++
	o.sig = SignSlot(key, o.Slot).Sig
	x := w.account([]Proof{s.against(o)}, time.Now())
	answer := &shown{Leader: leader, Term: 1 << 40}
	for range slotsPerGroup {
		answer.Slots = append(answer.Slots, shownSlot{1 << 40, s.Entry, s.sig})
	}
	y := account{Digests: x.Digests[:1], Shown: answer, Proof: x.Proof}
	if a, b := len(ledger.Marshal(x)), len(ledger.Marshal(y)); a > maxAccount || b > maxAccount || len(x.Digests) != 2 {
		t.Errorf("accounts of %d and %d bytes, at most %d", a, b, maxAccount)
	} else {
		t.Logf("accounts of %d and %d bytes", a, b)
	}
	if w.account(nil, time.Now().Add(bookLife+time.Second)); len(w.books) != 0 {
		t.Error("kept for ever")
	}
}

// What a signature for each entry costs, for entries of 4 KiB.
func BenchmarkSlot(b *testing.B) {
	key, leader := seedKey(0), keyed("0")
	e := &raft.Log{Index: 5, Term: 3, Data: make([]byte, 4<<10)}
	s := signedSlot{Slot: SlotOf(ledger.Hash{1}, leader, 3, e)}
	s.sig = SignSlot(key, s.Slot).Sig
	b.Run("sign", func(b *testing.B) {
		for b.Loop() {
			SignSlot(key, SlotOf(ledger.Hash{1}, leader, 3, e))
		}
	})
	b.Run("verify", func(b *testing.B) {
		for b.Loop() {
			if !SlotOf(ledger.Hash{1}, leader, 3, e).verify(s.sig) {
				b.Fatal("false")
			}
		}
	})
	w := newWitness()
	w.note([]signedSlot{s}, time.Now())
	b.Run("account", func(b *testing.B) {
		for i := uint64(6); i < 5000; i++ {
			n := s
			n.Index = i
			w.note([]signedSlot{n}, time.Now())
		}
		for b.Loop() {
			w.account(nil, time.Now())
		}
	})
}
