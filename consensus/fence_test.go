package consensus

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/coffer-network/coffer/ledger"
)

// rpc handles what boss sends as the leader. Each call is by another leader as far as
// evidence goes: tests here send what would convict one at once.
func (m *member) rpc(boss *member, cmd any) error {
	if req, ok := cmd.(*raft.AppendEntriesRequest); ok {
		for _, e := range req.Entries {
			if e != nil {
				sig := SignSlot(boss.key, SlotOf(m.cfg.Cluster, boss.id, req.Term, e)).Sig
				e.Extensions = sig[:]
			}
		}
	}
	m.witness.mu.Lock()
	m.witness.books = nil
	m.witness.mu.Unlock()
	answer := make(chan raft.RPCResponse, 1)
	m.fence.handle(raft.RPC{Command: cmd, RespChan: answer})
	return (<-answer).Error
}

func (m *member) term() uint64 { return m.raft.CurrentTerm() }

func configuration(servers ...raft.Server) []byte {
	return raft.EncodeConfiguration(raft.Configuration{Servers: servers})
}

// A leader that was elected and lies: raft itself would do all of this.
func TestFence(t *testing.T) {
	virtual(t, 4, Settings{}, func(t *testing.T, c *cluster) {
		c.start(c.members...)
		for i := range 10 {
			c.submit(c.leader(), fmt.Sprint("x ", i))
		}
		f := c.follower()
		c.agree(10, c.members...)
		c.certificate(f, 10)
		c.cut(f, true)
		height, index := f.Height(), f.now().index
		last, err := f.log.LastIndex()
		if err != nil || index == 0 || last < index {
			t.Fatal(last, index, err)
		}
		var prev raft.Log
		if err := f.log.GetLog(index-1, &prev); err != nil {
			t.Fatal(err)
		}
		term := f.term() + 1
		boss := c.leader(c.others(f)...)
		header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(serverID(boss.id)), Addr: []byte("liar")}
		entries := func(es ...*raft.Log) *raft.AppendEntriesRequest {
			return &raft.AppendEntriesRequest{RPCHeader: header, Term: term, PrevLogEntry: index - 1, PrevLogTerm: prev.Term, Entries: es}
		}
		after := func(e *raft.Log) *raft.AppendEntriesRequest {
			var l raft.Log
			if err := f.log.GetLog(last, &l); err != nil {
				t.Fatal(err)
			}
			e.Index, e.Term = last+1, term
			return &raft.AppendEntriesRequest{RPCHeader: header, Term: term, PrevLogEntry: last, PrevLogTerm: l.Term, Entries: []*raft.Log{e}}
		}
		own := raft.Server{ID: serverID(f.id), Address: raft.ServerAddress(address(f.id))}
		stranger := epochOf(0, 9).Members[0].ID
		conf := func(b []byte) *raft.Log { return &raft.Log{Type: raft.LogConfiguration, Data: b} }
		for name, x := range map[string]struct {
			cmd  any
			want error
		}{
			"rewrites what is applied": {entries(&raft.Log{Index: index, Term: term, Data: []byte("other")}), errTruncates},
			"stranger": {after(conf(configuration(own, raft.Server{ID: serverID(stranger), Address: raft.ServerAddress(address(stranger))}))),
				errConfiguration},
			"member elsewhere":  {after(conf(configuration(raft.Server{ID: own.ID, Address: "elsewhere"}))), errConfiguration},
			"nobody":            {after(conf(configuration())), errConfiguration},
			"no server id":      {after(conf(configuration(raft.Server{ID: "zz-0", Address: "a"}))), errConfiguration},
			"noise for servers": {after(conf([]byte("noise"))), errMalformed},
			"unknown type":      {after(&raft.Log{Type: 77}), errMalformed},
			"deprecated type":   {after(&raft.Log{Type: raft.LogRemovePeerDeprecated}), errMalformed},
			"no entry":          {entries(nil), errMalformed},
			"gap":               {entries(&raft.Log{Index: index + 1, Term: term}), errMalformed},
			"of a later term":   {entries(&raft.Log{Index: index, Term: term + 1}), errMalformed},
			"snapshot of strangers": {&raft.InstallSnapshotRequest{RPCHeader: header, Term: term, LastLogIndex: index + 100,
				Configuration: configuration(raft.Server{ID: serverID(stranger), Address: "x"})}, errConfiguration},
		} {
			if err := f.rpc(boss, x.cmd); !errors.Is(err, x.want) {
				t.Errorf("%s: %v, want %v", name, err, x.want)
			}
		}
		if f.term() == term {
			t.Error("raft saw a refused request")
		}
		// The entries before a refused one pass.
		good := after(&raft.Log{Type: raft.LogCommand, Data: ledger.Marshal([][]byte{[]byte("good")})})
		bad := conf(configuration())
		bad.Index, bad.Term = last+2, term
		good.Entries = append(good.Entries, bad)
		if err := f.rpc(boss, good); !errors.Is(err, errConfiguration) {
			t.Errorf("good and bad: %v", err)
		}
		if got, _ := f.log.LastIndex(); got != last+1 {
			t.Errorf("last entry %d, want %d", got, last+1)
		}
		// That one is not applied: another leader may take it back, at the store too.
		if err := f.guard.DeleteRange(index, last+1); !errors.Is(err, errTruncates) {
			t.Errorf("store removes what is applied: %v", err)
		}
		if err := f.guard.DeleteRange(last+1, last+1); err != nil {
			t.Errorf("an unapplied tail: %v", err)
		}
		if f.Height() != height || f.Err() != nil {
			t.Errorf("height %d, %v", f.Height(), f.Err())
		}
	})
}

// Plants a restart before replay, and a leader who would have the node forget what
// it promised: the promise protects what is not applied yet (spec: outflows §2.4,
// C10).
func TestCrashC10_FenceAtThePromise(t *testing.T) {
	virtual(t, 3, Settings{}, func(t *testing.T, c *cluster) {
		c.start(c.members...)
		for i := range 5 {
			c.submit(c.leader(), fmt.Sprint("x ", i))
		}
		f := c.follower()
		c.certificate(f, 5)
		index := f.Promise().Index
		c.stopAll()
		c.start(f) // alone: nothing is committed, so nothing is applied
		if f.Height() != 0 || index == 0 {
			t.Fatalf("height %d, promise at entry %d", f.Height(), index)
		}
		if err := f.guard.DeleteRange(index, index+10); !errors.Is(err, errTruncates) {
			t.Errorf("removes what is promised: %v", err)
		}
	})
}

// Plants yesterday's raft directory, an empty one, under a keystore that knows
// better: the node does not start (spec: outflows §10, 44).
func TestFault44_RaftDirectoryLost(t *testing.T) {
	virtual(t, 3, Settings{}, func(t *testing.T, c *cluster) {
		c.start(c.members...)
		f := c.follower()
		time.Sleep(2 * markEvery) // nothing promised yet, but a vote may have been cast
		c.stop(f)
		for name, forget := range map[string]func(){
			"mark only":    func() { f.keys.promise = nil },
			"promise only": func() { f.keys.promise = ledger.Marshal(Promise{Height: 1, Index: 3}); f.keys.mark = nil },
		} {
			log, promise, mark := f.log, f.keys.promise, f.keys.mark
			forget()
			f.log = newMemoryLog()
			if err := c.tryStart(f); !errors.Is(err, ErrRaftBehind) {
				t.Errorf("%s: %v", name, err)
			}
			f.log, f.keys.promise, f.keys.mark = log, promise, mark
		}
		c.start(f) // with its directory it is fine
		c.submit(c.leader(), "x")
		c.agree(1, c.members...)
	})
}

func TestRaftMark(t *testing.T) {
	at := raftMark{Term: 5, LastTerm: 4, LastIndex: 100}
	for _, c := range []struct {
		store raftMark
		want  bool
	}{
		{at, true},
		{raftMark{5, 4, 101}, true},
		{raftMark{5, 4, 99}, false},
		{raftMark{5, 3, 200}, false},
		{raftMark{5, 5, 90}, true},   // another leader's tail
		{raftMark{6, 3, 80}, true},   // taken back in a later term
		{raftMark{4, 4, 100}, false}, // a vote may be forgotten
		{raftMark{}, false},
	} {
		if got := c.store.holds(at); got != c.want {
			t.Errorf("%+v holds %+v: %v", c.store, at, got)
		}
	}
}

// A tail that another leader took back must not look like a lost directory,
// wherever the crash comes.
func TestMarkFollowsTruncation(t *testing.T) {
	virtual(t, 3, Settings{}, func(t *testing.T, c *cluster) {
		c.start(c.members...)
		c.submit(c.leader(), "x")
		old := c.leader()
		c.cut(old, true)
		for range 3 { // the leader alone goes on writing for a moment
			old.raft.Apply([]byte("alone"), time.Second)
		}
		time.Sleep(50 * time.Millisecond)
		if err := old.guard.keep(); err != nil {
			t.Fatal(err)
		}
		var marked raftMark
		if err := ledger.Unmarshal(old.keys.mark, &marked); err != nil {
			t.Fatal(err)
		}
		c.submit(c.leader(c.others(old)...), "y")
		c.cut(old, false)
		c.agree(2, c.members...)
		c.stop(old)
		var now raftMark
		if err := ledger.Unmarshal(old.keys.mark, &now); err != nil {
			t.Fatal(err)
		}
		if now == marked {
			t.Error("the mark did not move")
		}
		c.start(old)
		c.agree(2, c.members...)
	})
}
