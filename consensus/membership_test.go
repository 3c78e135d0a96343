package consensus

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/coffer-network/coffer/consensus/malice"
	"github.com/coffer-network/coffer/ledger"
)

// servers is m's configuration in words: "0 1 2 (4)", in parentheses who does not
// vote.
func (c *cluster) servers(m *member) (text string) {
	for _, k := range c.members {
		for _, s := range m.Servers() {
			if s.Member == k.id && s.Votes {
				text += fmt.Sprint(k.n, " ")
			} else if s.Member == k.id {
				text += fmt.Sprintf("(%d) ", k.n)
			}
		}
	}
	return text
}

func (c *cluster) configured(want string, ms ...*member) {
	c.t.Helper()
	for _, m := range ms {
		c.eventually(fmt.Sprintf("member %d: %s", m.n, want), func() bool { return m.up() && c.servers(m) == want })
	}
}

// A node is admitted and gets the log; with the flip it votes, and who lost its
// seat goes, be it the leader. Each time the rest is a majority as before.
func TestMembership_Replace(t *testing.T) {
	for name, leaves := range map[string]bool{"a follower goes": false, "the leader goes": true} {
		t.Run(name, func(t *testing.T) {
			virtual(t, 4, Settings{}, func(t *testing.T, c *cluster) {
				c.start(c.members...)
				for i := range 3 * toyRoots {
					c.submit(c.leader(), fmt.Sprint("x ", i))
				}
				old, stay := c.members[3], slices.Clone(c.members[:3])
				fresh := c.newMember(4)
				c.start(fresh) // before anybody voted for it
				time.Sleep(10 * time.Second)
				if fresh.Height() != 0 {
					t.Fatalf("a stranger is at height %d", fresh.Height())
				}
				c.submit(c.leader(), "admit 4")
				c.configured("0 1 2 3 (4) ", c.members...)
				c.agree(c.leader().Height(), c.members...)

				// Nothing but attestations comes through it.
				c.eventually("it knows the leader", func() bool { _, ok := fresh.Leader(); return ok })
				if _, err := fresh.Submit(t.Context(), []byte("y")); !errors.Is(err, ErrRefused) {
					t.Errorf("a client's command through a follower: %v", err)
				}
				if _, err := fresh.ReadIndex(t.Context()); !errors.Is(err, ErrRefused) {
					t.Errorf("a read index for a follower: %v", err)
				}
				c.submit(fresh, "fact of its own")

				c.submit(c.leader(), "open")
				time.Sleep(2 * voterLagFor)
				c.configured("0 1 2 3 (4) ", c.members...) // opened is not in force
				if leads := c.leader(); (leads == old) != leaves {
					to := old
					if !leaves {
						to = stay[0]
					}
					if err := leads.raft.LeadershipTransferToServer(serverID(to.id), raft.ServerAddress(address(to.id))).Error(); err != nil {
						t.Fatal(err)
					}
				}
				c.submit(c.leader(), "flip")
				in := append(stay, fresh)
				flipped := time.Now()
				c.leader(in...)
				if d := time.Since(flipped); d > 2*followEvery+200*time.Millisecond {
					t.Errorf("a member leads %s after the flip", d)
				}
				c.configured("0 1 2 4 ", in...)
				if c.leader(in...) == old {
					t.Error("who holds no seat leads")
				}
				c.submit(c.leader(in...), "later")
				c.stop(old, in[0])
				c.submit(c.leader(in[1:]...), "with one of four down")
				c.agree(c.leader(in[1:]...).Height(), in[1:]...)
				c.start(in[0]) // replays all of it
				c.agree(c.leader(in...).Height(), in...)
				c.configured("0 1 2 4 ", in...)
			})
		})
	}
}

// A newcomer that cannot be reached gets no vote: it would only cost a majority.
func TestMembership_WaitsForNewcomer(t *testing.T) {
	virtual(t, 4, Settings{}, func(t *testing.T, c *cluster) {
		c.start(c.members...)
		fresh := c.newMember(4)
		for _, tx := range []string{"admit 4", "open", "flip"} {
			c.submit(c.leader(), tx)
		}
		time.Sleep(time.Minute)
		in := c.members[:3]
		// The seat that was taken stays empty, and who lost its own is out.
		c.configured("0 1 2 (4) ", in...)
		c.start(fresh)
		c.agree(c.leader(in...).Height(), fresh)
		c.configured("0 1 2 4 ", append(slices.Clone(in), fresh)...)
	})
}

// Whoever leads next goes on where the last one stopped.
func TestMembership_LeaderDies(t *testing.T) {
	virtual(t, 4, Settings{}, func(t *testing.T, c *cluster) {
		c.start(c.members...)
		fresh := c.newMember(4)
		c.submit(c.leader(), "admit 4")
		c.start(fresh)
		c.configured("0 1 2 3 (4) ", c.members...)
		c.submit(c.leader(c.members[:4]...), "open")
		c.submit(c.leader(c.members[:4]...), "flip")
		boss := c.leader(c.members[:4]...)
		c.stop(boss)
		var rest []*member
		for _, m := range c.others(boss) {
			if m != c.members[3] {
				rest = append(rest, m)
			}
		}
		c.configured("0 1 2 4 ", rest...)
	})
}

// A candidate that is dropped leaves; one that comes back is added again, and a
// node that replays the log takes each entry although its ledger has moved on.
func TestMembership_DroppedCandidate(t *testing.T) {
	virtual(t, 4, Settings{}, func(t *testing.T, c *cluster) {
		c.start(c.members...)
		fresh := c.newMember(4)
		c.start(fresh)
		late := c.follower()
		c.stop(late)
		rest := c.others(late)
		rest = rest[:3]
		for range 3 {
			c.submit(c.leader(rest...), "admit 4")
			c.configured("0 1 2 3 (4) ", rest...)
			c.submit(c.leader(rest...), "drop 4")
			c.configured("0 1 2 3 ", rest...)
		}
		c.start(late)
		c.agree(c.leader(rest...).Height(), late)
		c.configured("0 1 2 3 ", late)
	})
}

// All nodes lose power while a configuration is in the logs of half of them, and the
// other half never heard that its reason is committed. Nobody without it can be elected,
// and whoever leads has to bring it to those who must refuse it: they hear of the commit.
//
// Seen failing ("not within 5m0s: a leader") with reasons not stored, and not told.
func TestMembership_PowerLossInAChange(t *testing.T) {
	virtual(t, 4, Settings{}, func(t *testing.T, c *cluster) {
		c.start(c.members...)
		fresh := c.newMember(4)
		boss := c.leader()
		near, far := c.others(boss)[0], c.others(boss)[1:3]
		boss.liar.Lie(malice.Rules{Uncommitted: func(to string) bool { return to == address(far[0].id) || to == address(far[1].id) }})
		at := boss.Height()
		c.submit(boss, "admit 4")
		holds := func(m *member) bool {
			last, err := m.log.LastIndex()
			var l raft.Log
			return err == nil && m.log.GetLog(last, &l) == nil && l.Type == raft.LogConfiguration && l.Index > 1
		}
		c.eventually("the configuration in two logs", func() bool { return holds(boss) && holds(near) })
		for _, m := range far {
			if m.Height() != at || holds(m) {
				t.Fatalf("member %d is at height %d, want %d: it heard of the commit", m.n, m.Height(), at)
			}
		}
		c.stop(c.members[:4]...)
		c.start(c.members[:4]...)
		c.start(fresh)
		c.agree(c.leader(c.members[:4]...).Height(), c.members...)
		c.configured("0 1 2 3 (4) ", c.members...)
	})
}

// told keeps what is sent.
type told struct {
	raft.Transport
	args raft.AppendEntriesRequest
}

func (t *told) AppendEntries(_ raft.ServerID, _ raft.ServerAddress, args *raft.AppendEntriesRequest, _ *raft.AppendEntriesResponse) error {
	t.args = *args
	return nil
}

// A heartbeat is told by what it does not hold: raft answers it past its own queue.
//
// Seen failing without the condition on PrevLogEntry ("0 → 7").
func TestFence_TellsReasons(t *testing.T) {
	c, sent := &Consensus{guard: &guardedLog{}}, &told{}
	c.guard.reasons.Store(7)
	f := newFence(sent, c, nil)
	for _, x := range []struct{ prev, commit, want uint64 }{{0, 0, 0}, {9, 0, 7}, {9, 8, 8}} {
		args := raft.AppendEntriesRequest{PrevLogEntry: x.prev, LeaderCommitIndex: x.commit}
		if err := f.AppendEntries("", "", &args, nil); err != nil || sent.args.LeaderCommitIndex != x.want || args.LeaderCommitIndex != x.commit {
			t.Errorf("after entry %d: commit %d → %d, want %d; %v", x.prev, x.commit, sent.args.LeaderCommitIndex, x.want, err)
		}
	}
}

// The leader proposed by its state, and the command that says otherwise stands
// before the entry in the log: a follower that has applied it takes the entry.
func TestMembership_EntryBehindItsReason(t *testing.T) {
	at := applied{View: View{Height: 10, Epoch: epochOf(0, 0, 1, 2, 3), Followers: []ledger.MemberID{keyed("4")}}}
	base := conf("0", "1", "2", "3")
	next := conf("0", "1", "2", "3")
	next.Servers = append(next.Servers, raft.Server{ID: serverID(keyed("4")), Address: raft.ServerAddress(address(keyed("4"))), Suffrage: raft.Nonvoter})
	if err := at.allows(base, next, address); err != nil {
		t.Fatal(err)
	}
	dropped := View{Height: 11, Epoch: at.Epoch}
	at = applied{View: dropped, gone: at.ended(dropped)}
	if err := at.allows(base, next, address); err != nil {
		t.Errorf("dropped a height ago: %v", err)
	}
	at.Height += goneHeights + 1
	if err := at.allows(base, next, address); !errors.Is(err, errConfiguration) {
		t.Errorf("dropped long ago: %v", err)
	}
}

func conf(voters ...string) (c raft.Configuration) {
	for _, v := range voters {
		c.Servers = append(c.Servers, raft.Server{ID: serverID(keyed(v)), Address: raft.ServerAddress(address(keyed(v)))})
	}
	return c
}

// What follows from the ledger, case by case.
func TestAllowedConfigurations(t *testing.T) {
	epoch := epochOf(1, 0, 1, 2, 4) // 3 lost its seat to 4; 5 is admitted
	at := applied{View: View{Height: 1 << 20, Epoch: epoch, Followers: []ledger.MemberID{keyed("5")}}}
	before, after := conf("0", "1", "2", "3"), conf("0", "1", "2", "3", "4")
	non := func(c raft.Configuration, who string) raft.Configuration {
		c = c.Clone()
		return raft.Configuration{Servers: append(c.Servers, raft.Server{ID: serverID(keyed(who)), Address: raft.ServerAddress(address(keyed(who))), Suffrage: raft.Nonvoter})}
	}
	elsewhere := before.Clone()
	elsewhere.Servers[0].Address = "elsewhere"
	twice := before.Clone()
	twice.Servers = append(twice.Servers, twice.Servers[0])
	for name, x := range map[string]struct {
		base, next raft.Configuration
		want       error
	}{
		"as it was":                       {before, before, nil},
		"the new member votes":            {before, after, nil},
		"then the old one goes":           {after, conf("0", "1", "2", "4"), nil},
		"or follows":                      {after, non(conf("0", "1", "2", "4"), "3"), nil},
		"both at once":                    {before, conf("0", "1", "2", "4"), nil},
		"the old one comes back":          {conf("0", "1", "2", "4"), after, errConfiguration},
		"the candidate follows":           {before, non(before, "5"), nil},
		"the candidate votes":             {before, conf("0", "1", "2", "3", "5"), errConfiguration},
		"a follower becomes a voter":      {non(before, "5"), conf("0", "1", "2", "3", "5"), errConfiguration},
		"a stranger follows":              {before, non(before, "9"), errConfiguration},
		"a stranger votes":                {before, conf("0", "1", "2", "3", "9"), errConfiguration},
		"a member goes":                   {after, conf("0", "1", "3", "4"), errVoters},
		"a member votes not":              {before, non(conf("1", "2", "3"), "0"), errVoters},
		"the new member goes again":       {after, before, errVoters},
		"the new member waits for a vote": {before, non(before, "4"), nil},
		"a member is elsewhere":           {before, elsewhere, errConfiguration},
		"a member is there twice":         {before, twice, errConfiguration},
		"nobody":                          {before, raft.Configuration{}, errConfiguration},
	} {
		if err := at.allows(x.base, x.next, address); !errors.Is(err, x.want) {
			t.Errorf("%s: %v, want %v", name, err, x.want)
		}
	}
}

// A leader that was elected takes back a configuration that was never committed.
// What it puts there is compared with what was before, not with what it takes back.
func TestFence_ReplacedConfiguration(t *testing.T) {
	virtual(t, 4, Settings{}, func(t *testing.T, c *cluster) {
		c.start(c.members...)
		for _, tx := range []string{"admit 4", "open", "flip"} {
			c.submit(c.leader(), tx)
		}
		time.Sleep(time.Minute)
		in := c.members[:3] // 4 holds a seat and never comes up
		f := in[0]
		if c.leader(in...) == f {
			f = in[1]
		}
		c.cut(f, true)
		last, err := f.log.LastIndex()
		if err != nil {
			t.Fatal(err)
		}
		var prev raft.Log
		if err := f.log.GetLog(last, &prev); err != nil {
			t.Fatal(err)
		}
		boss := c.leader(c.others(f)...)
		header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(serverID(boss.id)), Addr: []byte("liar")}
		send := func(term uint64, servers raft.Configuration) error {
			return f.rpc(boss, &raft.AppendEntriesRequest{RPCHeader: header, Term: term, PrevLogEntry: last, PrevLogTerm: prev.Term,
				Entries: []*raft.Log{{Index: last + 1, Term: term, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(servers)}}})
		}
		term, was := f.term()+1, f.raft.GetConfiguration().Configuration()
		if err := send(term, conf("0", "1", "2", "4")); err != nil {
			t.Fatalf("the new member votes: %v", err)
		}
		if err := send(term+1, conf("0", "1", "4")); !errors.Is(err, errVoters) {
			t.Errorf("a member goes in the place of another entry: %v", err)
		}
		if err := send(term+2, was); err != nil {
			t.Errorf("it does not vote after all: %v", err)
		}
	})
}

// The leader proposes so soon after a command that what tells a follower that the
// command is committed is the entry itself, which it refuses until it has applied
// the command. It hears the one and refuses the other. What lies in its log behind
// the command, another leader's perhaps, is not committed by that.
//
// Seen failing with nothing passed where no entry comes before ("it stays refused")
// and with the leader's commit passed as it came, beside a refused entry and alone
// ("another leader's entry is applied").
func TestFence_CommitBesideARefusedEntry(t *testing.T) {
	virtual(t, 4, Settings{}, func(t *testing.T, c *cluster) {
		c.start(c.members...)
		c.submit(c.leader(), "x")
		c.agree(c.leader().Height(), c.members...)
		f := c.follower()
		c.cut(f, true)
		last, err := f.log.LastIndex()
		if err != nil {
			t.Fatal(err)
		}
		boss := c.leader(c.others(f)...)
		header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(serverID(boss.id)), Addr: []byte("leader")}
		send := func(term, after, commit uint64, entries ...*raft.Log) error {
			t.Helper()
			var prev raft.Log
			if err := f.log.GetLog(after, &prev); err != nil {
				t.Fatal(err)
			}
			for i, e := range entries {
				e.Index, e.Term = after+1+uint64(i), term
			}
			return f.rpc(boss, &raft.AppendEntriesRequest{
				RPCHeader: header, Term: term, PrevLogEntry: after, PrevLogTerm: prev.Term, LeaderCommitIndex: commit, Entries: entries,
			})
		}
		command := func(tx string) *raft.Log {
			return &raft.Log{Type: raft.LogCommand, Data: ledger.Marshal([][]byte{[]byte(tx)})}
		}
		term, height := f.term()+1, f.Height()
		if err := send(term, last, 0, command("admit 4"), command("another leader's")); err != nil {
			t.Fatal(err)
		}
		next := f.raft.GetConfiguration().Configuration()
		next.Servers = append(next.Servers, raft.Server{ID: serverID(keyed("4")), Address: raft.ServerAddress(address(keyed("4"))), Suffrage: raft.Nonvoter})
		add := func() error {
			return send(term+1, last+1, last+2, &raft.Log{Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(next)})
		}
		if err := add(); !errors.Is(err, errConfiguration) {
			t.Fatalf("before the admission is applied: %v", err)
		}
		if err := send(term+1, last+1, last+2); err != nil { // and what it tells without entries
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if got := f.Height(); got > height+1 {
			t.Fatalf("another leader's entry is applied: height %d, want %d", got, height+1)
		}
		if err := add(); err != nil {
			t.Errorf("it stays refused: %v", err)
		}
	})
}

// What came right behind a snapshot comes again after a refusal, with entries that
// are new: the one before them all is compacted.
//
// Seen failing without skipHeld ("the log ends at").
func TestFence_SentAgainBehindASnapshot(t *testing.T) {
	virtual(t, 4, Settings{}, func(t *testing.T, c *cluster) {
		c.start(c.members...)
		for i := range 6 {
			c.submit(c.leader(), fmt.Sprint("x ", i))
		}
		c.agree(c.leader().Height(), c.members...)
		f := c.follower()
		c.cut(f, true)
		last, err := f.log.LastIndex()
		if err != nil {
			t.Fatal(err)
		}
		var held []*raft.Log
		for i := last - 2; i <= last; i++ {
			var l raft.Log
			if err := f.log.GetLog(i, &l); err != nil {
				t.Fatal(err)
			}
			held = append(held, &l)
		}
		first, _ := f.log.FirstIndex()
		if err := f.log.DeleteRange(first, last-3); err != nil { // as after a snapshot up to there
			t.Fatal(err)
		}
		_ = f.fence.logs.DeleteRange(first, last-3) // the guard refuses it; the cache before it is empty now
		term, height := f.term()+1, f.Height()
		boss := c.leader(c.others(f)...)
		cmd := &raft.AppendEntriesRequest{
			RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(serverID(boss.id)), Addr: []byte("leader")},
			Term:      term, PrevLogEntry: last - 3, PrevLogTerm: held[0].Term, LeaderCommitIndex: last + 1,
			Entries: append(held, &raft.Log{Index: last + 1, Term: term, Type: raft.LogCommand, Data: ledger.Marshal([][]byte{[]byte("new")})}),
		}
		if err := f.rpc(boss, cmd); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if got, _ := f.log.LastIndex(); got != last+1 || f.Height() != height+1 || f.Err() != nil {
			t.Errorf("the log ends at %d, want %d; height %d, want %d; %v", got, last+1, f.Height(), height+1, f.Err())
		}
	})
}

// A node that has a snapshot of the leader's, died before it could say so and came back,
// is sent it again, and goes on. One of the past changes nothing.
//
// Seen failing with both refused, as they were ("member … at height 40", of 40 then).
func TestFence_SnapshotHeldAlready(t *testing.T) {
	virtual(t, 4, eagerSnapshots, func(t *testing.T, c *cluster) {
		c.start(c.members...)
		f := c.follower()
		l := c.leader()
		c.submit(l, "x")
		c.agree(1, c.members...)
		c.cut(f, true)
		for l.Height() < 50 { // the last snapshot is ten entries behind at most
			c.submit(l, "y")
			time.Sleep(200 * time.Millisecond)
		}
		c.snapshotAt(l, 35)
		time.Sleep(10 * time.Second) // until it takes no other
		meta, stream := c.stream(l)
		if err := take(f, meta, stream); err != nil {
			t.Fatal(err)
		}
		c.stop(f)
		c.start(f)
		c.agree(50, f)

		at := f.Height()
		rest := bytes.NewReader(stream)
		respond := make(chan raft.RPCResponse, 1)
		f.fence.handle(raft.RPC{RespChan: respond, Reader: rest, Command: &raft.InstallSnapshotRequest{
			RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(serverID(l.id)), Addr: []byte("leader")},
			Term:      f.term(), LastLogIndex: meta.Index, LastLogTerm: meta.Term, Configuration: raft.EncodeConfiguration(meta.Configuration),
		}})
		r := <-respond
		if ok, err := r.Response.(*raft.InstallSnapshotResponse).Success, r.Error; !ok || err != nil || rest.Len() != 0 {
			t.Errorf("a snapshot of the past: %v, %v, %d bytes unread", ok, err, rest.Len())
		}
		if f.Height() != at {
			t.Errorf("a snapshot of the past was taken: height %d, was %d", f.Height(), at)
		}
	})
}

// A newcomer knows the genesis alone, and gets a snapshot whose configuration names
// it and, after a flip, members it never heard of. The state that comes with it says
// who they are; who was none there does not vote.
func TestMembership_Snapshot(t *testing.T) {
	virtual(t, 4, eagerSnapshots, func(t *testing.T, c *cluster) {
		c.start(c.members...)
		fresh := c.newMember(4)
		c.submit(c.leader(), "admit 4")
		c.configured("0 1 2 3 (4) ", c.members[:4]...)
		for i := range 80 {
			c.submit(c.leader(), fmt.Sprint("y ", i))
			time.Sleep(200 * time.Millisecond)
		}
		for _, m := range c.members[:4] {
			c.snapshotAt(m, 50)
		}
		meta, stream := c.stream(c.leader())
		c.start(fresh)
		for name, x := range map[string]struct {
			add  raft.Server
			want error
		}{
			"a stranger votes":  {raft.Server{ID: serverID(keyed("9")), Address: raft.ServerAddress(address(keyed("9")))}, errConfiguration},
			"a candidate votes": {raft.Server{ID: serverID(keyed("4")), Address: raft.ServerAddress(address(keyed("4")))}, errConfiguration},
		} {
			m := *meta
			m.Configuration = raft.Configuration{Servers: slices.DeleteFunc(slices.Clone(m.Configuration.Servers), func(s raft.Server) bool { return s.ID == x.add.ID })}
			m.Configuration.Servers = append(m.Configuration.Servers, x.add)
			if fresh.Height() > 0 {
				t.Fatal("too late for this test")
			}
			if err := take(fresh, &m, stream); !errors.Is(err, x.want) {
				t.Errorf("%s: %v, want %v", name, err, x.want)
			}
		}
		c.agree(81, fresh)
		if at, _ := fresh.snaps.newest(); at < 50 {
			t.Errorf("caught up without a snapshot, newest is at %d", at)
		}
	})
}
