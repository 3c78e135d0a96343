package consensus

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/coffer-network/coffer/consensus/malice"
	"github.com/coffer-network/coffer/ledger"
)

// splitPayload: the leader shows part of its followers another payload for the
// same index and term, which raft cannot notice. The two are genuine plans for
// one outflow on different coins, and a borrow on one side while the collateral
// is withdrawn on the other.
func splitPayload(t *testing.T, c *cluster, k *court, boss *member, other []*member) {
	t.Helper()
	k.ask(boss, "a", "b")
	for _, m := range c.members {
		c.certificate(m, 2)
	}
	with := map[string]string{"plan pay-1 coin-1": "plan pay-1 coin-2", "borrow house": "withdraw house", "withdraw house": "borrow house"}
	for a, b := range with {
		k.client(a)
		k.client(b)
	}
	b := side(other...)
	boss.liar.Lie(malice.Rules{Rewrite: func(to string, e *malice.Entry) {
		if b[to] {
			e.Data = swap(e.Data, with)
		}
	}})
	k.ask(boss, "plan pay-1 coin-1", "borrow house", "withdraw house")
	for i := range 20 {
		k.ask(boss, fmt.Sprint("more ", i))
		time.Sleep(100 * time.Millisecond)
	}
	for _, m := range k.honest() {
		c.eventually("all entries applied", func() bool { return m.Height() >= 25 })
	}
}

// With Q as it is, one side at most gets a certificate, and with 2 + 2 of five
// none does; who is on the other side says so in its status.
func TestTraitor_PayloadSplit(t *testing.T) {
	sizes(t, Settings{}, func(t *testing.T, c *cluster) {
		k, boss := c.traitorous()
		h := k.honest()
		other := h[len(h)/2:]
		splitPayload(t, c, k, boss, other)
		k.acquit()
		certified := len(other)+c.epoch.F >= c.epoch.Q()
		if got := k.isSigned("plan pay-1 coin-2"); got != certified {
			t.Errorf("%d members and the traitors on one side: signed there %v", len(other), got)
		}
		for _, m := range h {
			apart := len(other) // who hold the other history than m
			if slices.Contains(other, m) {
				apart = len(h) - len(other)
			}
			if st := m.Status(); (st.Forked != 0) != (apart > c.epoch.F) {
				t.Errorf("member %d, %d hold another history: forked at %d", m.n, apart, st.Forked)
			}
		}
	}, 4, 5, 7)
}

// Ablation: f+1 equal approvals, "t+1 nodes show the same digest".
func TestAblation_SmallQuorum(t *testing.T) {
	sizes(t, Settings{}, func(t *testing.T, c *cluster) {
		c.off.quorum = c.epoch.F + 1
		k, boss := c.traitorous()
		h := k.honest()
		splitPayload(t, c, k, boss, h[len(h)/2:])
		k.convict("conflicting certificates", "two payments for pay-1", "two payments for collateral house")
	}, 4, 7)
}

// rewriteCommitted: an elected traitor sends entries of a later term that take the
// place of what was committed, approved and certified.
func rewriteCommitted(t *testing.T, c *cluster, k *court, boss *member, victim *member) {
	t.Helper()
	k.ask(boss, "a")
	k.client("plan pay-1 coin-1")
	k.client("plan pay-1 coin-2")
	r := c.submit(boss, "plan pay-1 coin-1")
	k.ask(boss, "b", "c")
	c.agree(r.Height+2, c.members...)
	for _, m := range k.honest() {
		c.certificate(m, r.Height)
	}
	boss.liar.Lie(malice.Rules{Withhold: func(to string) bool { return to == address(victim.id) }})
	var prev raft.Log
	var es []*malice.Entry
	term := victim.term() + 1
	last, err := victim.log.LastIndex()
	for i := uint64(1); i <= last; i++ {
		var l raft.Log
		if err = errors.Join(err, victim.log.GetLog(i, &l)); err != nil {
			t.Fatal(err)
		}
		if es == nil && !bytes.Contains(l.Data, []byte("plan pay-1")) {
			prev = l
			continue
		}
		e := l
		e.Term, e.Data = term, swap(l.Data, map[string]string{"plan pay-1 coin-1": "plan pay-1 coin-2"})
		es = append(es, &e)
	}
	for i := range 3 {
		tx := fmt.Appendf(nil, "rewritten %d", i)
		k.client(string(tx))
		es = append(es, &malice.Entry{Index: last + 1 + uint64(i), Term: term, Data: ledger.Marshal([][]byte{tx})})
	}
	if err := boss.liar.Send(serverID(boss.id), address(victim.id), term, prev, es...); err == nil && !c.off.fence {
		t.Error("rewriting entries were accepted")
	}
	time.Sleep(3 * time.Second)
}

// Before and after a restart of the victim, when nothing is applied there and
// only the promise protects its log.
func TestTraitor_RewriteOfCommittedEntries(t *testing.T) {
	sizes(t, Settings{}, func(t *testing.T, c *cluster) {
		k, boss := c.traitorous()
		victim := k.honest()[0]
		rewriteCommitted(t, c, k, boss, victim)
		before, _ := victim.Head(2)
		if err := k.restart(victim, nil); err != nil {
			t.Fatal(err)
		}
		rewriteAgain(t, c, boss, victim)
		// The honest ones elect somebody who does not lie, and all goes on.
		boss.liar.Lie(malice.Rules{})
		c.stop(boss)
		k.ask(c.leader(c.others(boss)...), "later")
		c.agree(k.honest()[0].Height(), k.honest()...)
		if after, err := victim.Head(2); err != nil || after != before {
			t.Errorf("head 2 is %s, was %s (%v)", after, before, err)
		}
		k.acquit()
	}, 4, 7)
}

// rewriteAgain sends a started victim, which has applied nothing, its whole log in
// another version.
func rewriteAgain(t *testing.T, c *cluster, boss, victim *member) {
	t.Helper()
	var es []*malice.Entry
	term := victim.term() + 5
	last, err := victim.log.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	var prev raft.Log
	if err := victim.log.GetLog(1, &prev); err != nil {
		t.Fatal(err)
	}
	for i := uint64(2); i <= last; i++ {
		var l raft.Log
		if err := victim.log.GetLog(i, &l); err != nil {
			t.Fatal(err)
		}
		e := l
		e.Term, e.Data = term, swap(l.Data, map[string]string{"plan pay-1 coin-1": "plan pay-1 coin-2", "a": "not a"})
		es = append(es, &e)
	}
	if err := boss.liar.Send(serverID(boss.id), address(victim.id), term, prev, es...); err == nil && !c.off.fence {
		t.Error("a restarted member lets its log be rewritten")
	}
}

// onTwoBranches: one honest member holds branch A, two hold B and with the
// traitor make a certificate of it. Then one of B is led over to A by its
// whole log in A's version, at whatever it does not remember.
func onTwoBranches(t *testing.T, c *cluster, forget func(*member)) *court {
	t.Helper()
	k, boss := c.traitorous()
	h := k.honest()
	splitPayload(t, c, k, boss, h[1:])
	victim := h[1]
	c.certificate(victim, 20)
	var es []*malice.Entry
	var prev raft.Log
	last, err := h[0].log.LastIndex()
	for i := uint64(1); i <= last; i++ {
		var l raft.Log
		if err = errors.Join(err, h[0].log.GetLog(i, &l)); err != nil {
			t.Fatal(err)
		}
		if i == 1 {
			prev = l
			continue
		}
		e := l
		es = append(es, &e)
	}
	boss.liar.Lie(malice.Rules{Withhold: func(to string) bool { return to == address(victim.id) }})
	c.cut(victim, true)
	if err := k.restart(victim, func() { forget(victim) }); err != nil {
		t.Fatal(err)
	}
	term := victim.term() + 5
	for _, e := range es {
		e.Term = term
	}
	if err := boss.liar.Send(serverID(boss.id), address(victim.id), term, prev, es...); err != nil {
		t.Log("sent: ", err)
	}
	time.Sleep(10 * time.Second)
	return k
}

// Nothing forgotten: the victim stays where it promised.
func TestTraitor_LedOverToAnotherBranch(t *testing.T) {
	virtual(t, 4, Settings{}, func(t *testing.T, c *cluster) {
		onTwoBranches(t, c, func(*member) {}).acquit()
	})
}

// Ablation: the promise is not on disk, and a restart forgets it.
func TestAblation_PromiseForgotten(t *testing.T) {
	virtual(t, 4, Settings{}, func(t *testing.T, c *cluster) {
		k := onTwoBranches(t, c, func(m *member) { m.keys.promise = nil })
		k.convict("conflicting certificates", "two payments for pay-1", "two payments for collateral house")
	})
}

// Ablation: no fence. The promise alone still keeps the branches apart, but the
// traitor halts honest members at will.
func TestAblation_NoFence(t *testing.T) {
	virtual(t, 4, Settings{}, func(t *testing.T, c *cluster) {
		c.off.fence = true
		k := onTwoBranches(t, c, func(*member) {})
		k.convict("honest member")
		for _, w := range k.verdict() {
			if strings.HasPrefix(w, "conflicting") {
				t.Error("the promise alone should prevent: ", w)
			}
		}
	})
}

// Ablation: beyond that, a promise is kept by its height alone, not by ancestry.
func TestAblation_HeightInsteadOfAncestry(t *testing.T) {
	virtual(t, 4, Settings{}, func(t *testing.T, c *cluster) {
		c.off.fence, c.off.ancestry = true, true
		k := onTwoBranches(t, c, func(*member) {})
		k.convict("conflicting certificates", "two payments for pay-1", "two payments for collateral house")
	})
}

// falseBody: the leader keeps two followers of four short of entries, and then
// sends both the same snapshot: true headers, true head, a body that differs.
func falseBody(t *testing.T, c *cluster, change func(*toyState)) (k *court, victims []*member) {
	t.Helper()
	k, boss := c.traitorous()
	h := k.honest()
	victims = h[len(h)-(c.epoch.Q()-c.epoch.F):]
	k.ask(boss, "a", "b")
	for _, m := range c.members {
		c.certificate(m, 2)
	}
	kept := side(victims...)
	boss.liar.Lie(malice.Rules{Withhold: func(to string) bool { return kept[to] }})
	for i := range 60 {
		k.ask(boss, fmt.Sprint("y ", i))
		time.Sleep(200 * time.Millisecond)
	}
	c.snapshotAt(boss, 40)
	meta, b := c.stream(boss)
	s, err := readPrefix(bytes.NewReader(b), c.id)
	if err != nil {
		t.Fatal(err)
	}
	body := b[len(b)-int(s.Length):]
	headers := b[len(b)-int(s.Length)-int(s.Height)*recordSize : len(b)-int(s.Length)]
	var state toyState
	if err := ledger.Unmarshal(body, &state); err != nil {
		t.Fatal(err)
	}
	change(&state)
	body = ledger.Marshal(state)
	s.Length, s.SHA256 = uint64(len(body)), sha256.Sum256(body)
	forged := append(append(frame(streamMagic, ledger.Marshal(s)), headers...), body...)
	meta.Size = int64(len(forged))
	for _, v := range victims {
		err := boss.liar.Install(serverID(boss.id), address(v.id), boss.term(), *meta, bytes.NewReader(forged))
		t.Logf("member %d is sent a false state: %v", v.n, err)
	}
	boss.liar.Lie(malice.Rules{})
	for i := range 2 * toyRoots { // past two roots
		k.ask(boss, fmt.Sprint("z ", i))
		time.Sleep(100 * time.Millisecond)
	}
	return k, victims
}

func theft(s *toyState) {
	s.Plans = append(s.Plans, toyPlan{s.Height, "plan theft coin-9"})
}

// As many honest members as the traitors need for a quorum are given one false
// state, so that their approvals are equal. Seen failing while a member approved
// once it had folded a root itself: "unowed payment signed: "plan theft coin-9"".
func TestTraitor_FalseSnapshotBody(t *testing.T) {
	sizes(t, eagerSnapshots, func(t *testing.T, c *cluster) {
		k, victims := falseBody(t, c, theft)
		k.acquit()
		for _, v := range victims {
			if st := v.Status(); st.Unproven == 0 {
				t.Errorf("member %d believes what it was sent: %+v", v.n, st)
			}
		}
	}, 4, 7)
}

// Ablation: an installed state is believed at once.
func TestAblation_StateBelieved(t *testing.T) {
	virtual(t, 4, eagerSnapshots, func(t *testing.T, c *cluster) {
		c.off.unproven = true
		k, _ := falseBody(t, c, theft)
		k.convict("unowed payment signed")
	})
}

// A false state brings members of the traitor's own, who would vouch for it, with
// a flip certificate that they signed themselves. Seen failing without
// trustEpochs: "member 2 took members that it cannot trust", and the theft signed.
func TestTraitor_ForgedMemberList(t *testing.T) {
	for name, forge := range map[string]func(c *cluster, s *toyState){
		"next epoch, flip signed by its own members": func(c *cluster, s *toyState) {
			s.Epochs, s.Epoch = []ledger.Epoch{s.Epoch}, epochOf(1, 20, 21, 22)
			a := ledger.Approval{Cluster: c.id, Epoch: 0, Height: 1, Members: s.Epoch.MembersHash()}
			cert := ledger.Certificate{Approval: a}
			for _, i := range []int{20, 21, 22} {
				cert.Signatures = append(cert.Signatures, ledger.SignApproval(seedKey(i), a))
			}
			s.Flips = []ledger.Certificate{cert}
		},
		"genesis epoch with other members": func(c *cluster, s *toyState) { s.Epoch = epochOf(0, 20, 21, 22) },
		"fewer approvals needed":           func(_ *cluster, s *toyState) { s.Epoch.F, s.Epoch.FactQuorum = 0, 2 },
		"no flip at all":                   func(c *cluster, s *toyState) { s.Epochs, s.Epoch = []ledger.Epoch{s.Epoch}, epochOf(1, 20, 21, 22) },
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, 4, eagerSnapshots, func(t *testing.T, c *cluster) {
				k, victims := falseBody(t, c, func(s *toyState) { theft(s); forge(c, s) })
				for _, v := range victims {
					if at := v.now(); at.Epoch.MembersHash() != c.epoch.MembersHash() {
						t.Errorf("member %d took members that it cannot trust", v.n)
						for h := v.Height(); h > v.Height()-toyRoots/2; h-- {
							if a, ok, err := v.approval(h, at); ok && err == nil {
								for _, i := range []int{20, 21, 22} {
									_ = v.HandleApproval(ledger.MemberID(seedKey(i).Public().(ed25519.PublicKey)), signed(i, a))
								}
							}
						}
					}
					if cert, ok := v.Certificate(3); ok && cert.Verify(c.id, c.epoch) != nil {
						t.Errorf("member %d has a certificate of other members", v.n)
					}
				}
				k.acquit()
			})
		})
	}
}

// The real raft library changes the configuration on the leader: members of the
// traitor's own come in, honest ones are to go or to vote no more. Seen failing
// without keepsVoters: "member 0 has 3 voters".
func TestTraitor_ForgedConfiguration(t *testing.T) {
	for name, change := range map[string]func(r *raft.Raft, victim raft.ServerID) error{
		"a stranger votes": func(r *raft.Raft, _ raft.ServerID) error {
			stranger := epochOf(0, 20).Members[0].ID
			return r.AddVoter(serverID(stranger), raft.ServerAddress(address(stranger)), 0, time.Second).Error()
		},
		"a stranger reads": func(r *raft.Raft, _ raft.ServerID) error {
			stranger := epochOf(0, 20).Members[0].ID
			return r.AddNonvoter(serverID(stranger), raft.ServerAddress(address(stranger)), 0, time.Second).Error()
		},
		"a candidate votes": func(r *raft.Raft, _ raft.ServerID) error {
			return r.AddVoter(serverID(keyed("5")), raft.ServerAddress(address(keyed("5"))), 0, time.Second).Error()
		},
		"a member goes":         func(r *raft.Raft, v raft.ServerID) error { return r.RemoveServer(v, 0, time.Second).Error() },
		"a member votes not":    func(r *raft.Raft, v raft.ServerID) error { return r.DemoteVoter(v, 0, time.Second).Error() },
		"a member is elsewhere": func(r *raft.Raft, v raft.ServerID) error { return r.AddVoter(v, "elsewhere", 0, time.Second).Error() },
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, 4, Settings{}, func(t *testing.T, c *cluster) {
				k, boss := c.traitorous()
				victim := k.honest()[0]
				k.ask(boss, "a", "plan pay-1 coin-1", "admit 5")
				for _, m := range k.honest() {
					c.certificate(m, 3)
				}
				changed := make(chan error, 1)
				go func() { changed <- change(boss.raft, serverID(victim.id)) }()
				for range 100 { // the traitor's own worker would mend it
					time.Sleep(100 * time.Millisecond)
					for _, m := range k.honest() {
						if n := len(voters(m.raft.GetConfiguration().Configuration())); n != 4 {
							t.Fatalf("member %d has %d voters", m.n, n)
						}
					}
				}
				// Without the traitor the honest ones are a majority as before.
				c.stop(boss)
				<-changed
				k.ask(c.leader(k.honest()...), "later")
				c.agree(c.leader(k.honest()...).Height(), k.honest()...)
				k.acquit()
			})
		})
	}
}

// The leader shows the command that opens an epoch to one honest member alone, or
// to all but one; then the flip that a certificate allows, or none does.
func TestTraitor_FlipShownToOneHalf(t *testing.T) {
	sizes(t, Settings{}, func(t *testing.T, c *cluster) {
		k, boss := c.traitorous()
		h := k.honest()
		k.ask(boss, "a", "plan pay-1 coin-1")
		for _, m := range c.members {
			c.certificate(m, 2)
		}
		half := h[:len(h)/2] // these do not see it
		b := side(half...)
		boss.liar.Lie(malice.Rules{Rewrite: func(to string, e *malice.Entry) {
			if b[to] {
				e.Data = swap(e.Data, map[string]string{"open": "nothing of interest"})
			}
		}})
		x := c.submit(boss, "open").Height
		k.ask(boss, "plan pay-2 coin-2", "more")
		time.Sleep(5 * time.Second)
		seen := h[len(half):]
		flips := 0
		for _, m := range seen {
			if cert, ok := m.FlipCertificate(x); ok {
				flips++
				k.ask(boss, "flip "+hex.EncodeToString(ledger.Marshal(cert)))
			}
		}
		if flips == 0 { // the traitor tries what it has
			a, _, err := seen[0].approval(x, seen[0].now())
			if err != nil {
				t.Fatal(err)
			}
			cert := ledger.Certificate{Approval: a}
			for _, m := range k.traitors {
				cert.Signatures = append(cert.Signatures, ledger.SignApproval(m.key, a))
			}
			k.ask(boss, "flip "+hex.EncodeToString(ledger.Marshal(cert)))
		}
		k.ask(boss, "plan pay-3 coin-3")
		time.Sleep(5 * time.Second)
		certified := len(seen)+c.epoch.F >= c.epoch.Q()
		for _, m := range seen {
			if got := m.now().Epoch.Number == 1; got != certified {
				t.Errorf("member %d, %d have seen the opening: new epoch in force: %v", m.n, len(seen), got)
			}
			for _, a := range m.approved() {
				if a.Epoch == 0 && a.Height > x {
					t.Errorf("member %d approved %d under the old epoch, which ended at %d", m.n, a.Height, x)
				}
			}
		}
		for _, m := range half {
			if m.now().Epoch.Number != 0 {
				t.Errorf("member %d is in an epoch that it never saw opened", m.n)
			}
		}
		k.acquit()
	}, 4, 5)
}
