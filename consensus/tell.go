package consensus

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// teller says to followers at once what is committed.
//
// The raft library tells them with the next entries, or with the next of the empty
// requests that it sends every CommitTimeout: a client of a follower waits for that, and
// a cluster at rest pays for it. So the leader sends an empty request of its own when a
// commit leaves nothing in flight that would carry it, as etcd's raft does when its
// commit index moves. To the follower it is one of raft's.
//
// Sound, because all it says was true when this node led: the entry at index was
// appended by this leader in this term and is committed, and the follower moves its
// commit there only if it has that entry. The term is the entry's and never the
// current one, in which somebody else may lead.
type teller struct {
	mu     sync.Mutex
	newest raft.Log // committed; Index and Term
	busy   map[raft.ServerID]bool
}

// tellAgain bounds how often one follower that did not have the entry yet is told again:
// the request overtakes entries on another stream. Who lags more learns it from raft.
const (
	tellAgain = 4
	tellPause = time.Millisecond // before the first, twice as long before each next
)

// tell has followers know that the entry at index, which this leader made, is committed.
func (c *Consensus) tell(index uint64) {
	var e raft.Log
	if err := c.fence.logs.GetLog(index, &e); err != nil {
		return // behind a snapshot already
	}
	conf := c.raft.GetConfiguration()
	if conf.Error() != nil {
		return
	}
	t := &c.teller
	t.mu.Lock()
	defer t.mu.Unlock()
	if index <= t.newest.Index {
		return
	}
	t.newest = raft.Log{Index: e.Index, Term: e.Term}
	self := serverID(c.cfg.Self)
	for _, s := range conf.Configuration().Servers {
		if s.ID != self && !t.busy[s.ID] {
			t.busy[s.ID] = c.spawn(func() { c.tellOne(s) })
		}
	}
}

// tellOne tells one follower the newest, and what became the newest meanwhile.
func (c *Consensus) tellOne(s raft.Server) {
	self := serverID(c.cfg.Self)
	addr := c.fence.EncodePeer(self, raft.ServerAddress(c.cfg.Address(c.cfg.Self)))
	var told uint64
	for again := 0; ; {
		t := &c.teller
		t.mu.Lock()
		e := t.newest
		if e.Index == told || c.ctx.Err() != nil {
			t.busy[s.ID] = false
			t.mu.Unlock()
			return
		}
		t.mu.Unlock()
		var resp raft.AppendEntriesResponse
		err := c.fence.AppendEntries(s.ID, s.Address, &raft.AppendEntriesRequest{
			RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(self), Addr: addr},
			Term:      e.Term, Leader: addr, PrevLogEntry: e.Index, PrevLogTerm: e.Term, LeaderCommitIndex: e.Index,
		}, &resp)
		if err == nil && !resp.Success && resp.Term == e.Term && resp.LastLog < e.Index && again < tellAgain {
			time.Sleep(tellPause << again)
			again++
			continue
		}
		told, again = e.Index, 0
	}
}
