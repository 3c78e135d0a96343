// Package malice is a leader that lies: a transport that rewrites the requests
// of an honest raft instance on their way out, so that everything else about it,
// elections, terms, retries, is the real library's. Tests alone use it; it says
// in bytes and addresses what to change, so that they need not know raft.
package malice

import (
	"io"
	"slices"
	"sync"

	"github.com/hashicorp/raft"
)

// Entry is one entry of raft's log on its way to a follower.
type Entry = raft.Log

// Liar is a raft transport over another. Without rules it is honest.
type Liar struct {
	raft.Transport

	// Sign puts the leader's signature into an entry that it did not write as it is
	// sent. Without it what a rule rewrote bears a false one.
	Sign func(term uint64, e *Entry)

	mu    sync.Mutex
	rules Rules
}

// Rules say what becomes of what the raft instance above sends. A nil rule
// changes nothing.
type Rules struct {
	// Rewrite returns what follower to is to see in place of e, which it may
	// change: it is a copy. It must always answer the same for the same.
	Rewrite func(to string, e *Entry)

	// Withhold keeps entries from a follower: it hears heartbeats, so that it
	// elects nobody, and the raft instance above believes that it has them.
	Withhold func(to string) bool

	// Uncommitted tells a follower of no commit.
	Uncommitted func(to string) bool
}

// Lie replaces the rules.
func (l *Liar) Lie(r Rules) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rules = r
}

func (l *Liar) now() Rules {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rules
}

// AppendEntriesPipeline makes raft send one request at a time, through
// AppendEntries.
func (l *Liar) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// AppendEntries sends what the rules make of the request.
func (l *Liar) AppendEntries(id raft.ServerID, to raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	rules := l.now()
	if rules.Withhold != nil && rules.Withhold(string(to)) {
		beat := *args
		beat.PrevLogEntry, beat.PrevLogTerm, beat.LeaderCommitIndex, beat.Entries = 0, 0, 0, nil
		if err := l.Transport.AppendEntries(id, to, &beat, resp); err != nil {
			return err
		}
		resp.LastLog, resp.Success = args.PrevLogEntry+uint64(len(args.Entries)), true
		return nil
	}
	if rules.Uncommitted != nil && rules.Uncommitted(string(to)) {
		told := *args
		told.LeaderCommitIndex = 0
		args = &told
	}
	if rules.Rewrite != nil {
		told := *args
		told.Entries = slices.Clone(args.Entries)
		for i, e := range args.Entries {
			c := *e
			c.Data = slices.Clone(e.Data)
			rules.Rewrite(string(to), &c)
			l.sign(args.Term, &c)
			told.Entries[i] = &c
		}
		args = &told
	}
	return l.Transport.AppendEntries(id, to, args, resp)
}

// Send sends entries that no raft instance wrote, as the leader from of a term,
// after the follower's entry prev, and says that they are committed.
func (l *Liar) Send(from raft.ServerID, to string, term uint64, prev Entry, es ...*Entry) error {
	es = slices.Clone(es)
	for i, e := range es {
		c := *e
		l.sign(term, &c)
		es[i] = &c
	}
	req := &raft.AppendEntriesRequest{
		RPCHeader: header(from, l.LocalAddr()), Term: term, PrevLogEntry: prev.Index, PrevLogTerm: prev.Term, Entries: es,
		LeaderCommitIndex: prev.Index + uint64(len(es)),
	}
	return l.Transport.AppendEntries("", raft.ServerAddress(to), req, &raft.AppendEntriesResponse{})
}

// Install sends a snapshot that no raft instance took.
func (l *Liar) Install(from raft.ServerID, to string, term uint64, meta raft.SnapshotMeta, stream io.Reader) error {
	req := &raft.InstallSnapshotRequest{
		RPCHeader: header(from, l.LocalAddr()), SnapshotVersion: meta.Version, Term: term, LastLogIndex: meta.Index, LastLogTerm: meta.Term,
		Configuration: raft.EncodeConfiguration(meta.Configuration), ConfigurationIndex: meta.ConfigurationIndex, Size: meta.Size,
	}
	return l.Transport.InstallSnapshot("", raft.ServerAddress(to), req, &raft.InstallSnapshotResponse{}, stream)
}

func (l *Liar) sign(term uint64, e *Entry) {
	if l.Sign != nil {
		l.Sign(term, e)
	}
}

func header(id raft.ServerID, addr raft.ServerAddress) raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(id), Addr: []byte(addr)}
}

// RequestPreVote is passed on.
func (l *Liar) RequestPreVote(id raft.ServerID, to raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return l.Transport.(raft.WithPreVote).RequestPreVote(id, to, args, resp)
}

// Close closes the transport below.
func (l *Liar) Close() error { return l.Transport.(raft.WithClose).Close() }

// Network links the raft instances of one test in memory.
type Network struct {
	mu    sync.Mutex
	seats map[raft.ServerAddress]*raft.InmemTransport
}

// Seat returns the transport of the instance at addr, linked to all others. A
// second call replaces the first: the instance has restarted.
func (n *Network) Seat(addr string) *Liar {
	n.mu.Lock()
	defer n.mu.Unlock()
	a, t := raft.NewInmemTransport(raft.ServerAddress(addr))
	if n.seats == nil {
		n.seats = map[raft.ServerAddress]*raft.InmemTransport{}
	}
	for b, other := range n.seats {
		if b != a {
			other.Disconnect(a)
			other.Connect(a, t)
			t.Connect(b, other)
		}
	}
	n.seats[a] = t
	return &Liar{Transport: t}
}

// Leave takes the instance at addr off.
func (n *Network) Leave(addr string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	a := raft.ServerAddress(addr)
	if t := n.seats[a]; t != nil {
		t.DisconnectAll()
		delete(n.seats, a)
	}
	for _, other := range n.seats {
		other.Disconnect(a)
	}
}

// NewLog is a raft log and stable store in memory.
func NewLog() *raft.InmemStore { return raft.NewInmemStore() }
