package consensus

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/coffer-network/coffer/ledger"
)

// fence stands between raft and its transport and looks at each request before
// raft does: raft deletes first and asks later, believes any configuration, and
// panics on some bytes (spec: consensus §3). What comes from a shunned member is
// refused here too.
type fence struct {
	raft.Transport
	c    *Consensus
	logs raft.LogStore

	out  chan raft.RPC
	done chan struct{}
	once sync.Once
	wg   sync.WaitGroup

	opened chan struct{} // closed when raft is there
	signer signer
}

var (
	errTruncates     = errors.New("would remove entries that are applied or promised")
	errConfiguration = errors.New("configuration names others than the ledger's members")
	errVoters        = errors.New("configuration drops voters the ledger has")
	errMalformed     = errors.New("malformed entries")
	errNoVote        = errors.New("this replica forgot its votes and takes part in no election")
)

func newFence(t raft.Transport, c *Consensus, logs raft.LogStore) *fence {
	return &fence{Transport: t, c: c, logs: logs, out: make(chan raft.RPC), done: make(chan struct{}), opened: make(chan struct{})}
}

// open lets requests through, once raft is there to be asked.
func (f *fence) open() {
	close(f.opened)
	f.wg.Go(f.pump)
}

func (f *fence) Consumer() <-chan raft.RPC { return f.out }

// RequestPreVote: pre-vote keeps a returning node from unseating the leader.
func (f *fence) RequestPreVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	t, ok := f.Transport.(raft.WithPreVote)
	if !ok {
		return errors.New("transport without pre-vote")
	}
	if !f.mayVote() {
		return errNoVote
	}
	return t.RequestPreVote(id, target, args, resp)
}

// RequestVote asks nobody if this replica may not be elected.
func (f *fence) RequestVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	if !f.mayVote() {
		return errNoVote
	}
	return f.Transport.RequestVote(id, target, args, resp)
}

// AppendEntries signs what it sends, and tells a follower that what the leader's configurations follow from is
// committed. Where all nodes lost power while a configuration was in some of the logs,
// raft knows of no commit and learns of one when a majority has the new leader's
// entries; those without the configuration refuse it until they have applied its reason.
//
// Why not raft's RestoreCommittedLogs: in v1.8.0 it applies in NewRaft, before anything
// takes from the queue of 128 batches, and then passes over the configurations among
// what it applied.
func (f *fence) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	// A heartbeat names no entry: with a commit it would lose raft's short cut.
	if reasons := f.c.guard.reasons.Load(); args.PrevLogEntry > 0 && reasons > args.LeaderCommitIndex {
		told := *args
		told.LeaderCommitIndex = reasons
		args = &told
	}
	args, err := f.signed(args)
	if err != nil {
		return err
	}
	return f.Transport.AppendEntries(id, target, args, resp)
}

func (f *fence) mayVote() bool { return f.c.cfg.MayVote == nil || f.c.cfg.MayVote() }

// Close ends the pump, then the transport below.
func (f *fence) Close() (err error) {
	f.once.Do(func() {
		close(f.done)
		f.wg.Wait()
		if t, ok := f.Transport.(raft.WithClose); ok {
			err = t.Close()
		}
	})
	return err
}

func (f *fence) pump() {
	for {
		select {
		case rpc := <-f.Transport.Consumer():
			f.handle(rpc)
		case <-f.done:
			return
		}
	}
}

func (f *fence) handle(rpc raft.RPC) {
	if f.c.cfg.off.fence {
		f.pass(rpc)
		return
	}
	if f.shunned(rpc) {
		return
	}
	switch cmd := rpc.Command.(type) {
	case *raft.RequestVoteRequest:
		if !f.mayVote() {
			rpc.Respond(&raft.RequestVoteResponse{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}}, errNoVote)
			return
		}
	case *raft.RequestPreVoteRequest:
		if !f.mayVote() {
			rpc.Respond(&raft.RequestPreVoteResponse{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}}, errNoVote)
			return
		}
	case *raft.TimeoutNowRequest:
		if !f.mayVote() {
			rpc.Respond(&raft.TimeoutNowResponse{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}}, errNoVote)
			return
		}
	case *raft.AppendEntriesRequest:
		cmd, err := f.vouched(cmd)
		if err != nil {
			f.c.log.Warn("refused entries of the leader", "reason", err)
			rpc.Respond(&raft.AppendEntriesResponse{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}}, err)
			return
		}
		cmd = f.skipHeld(cmd)
		rpc.Command = first(cmd, len(cmd.Entries))
		upTo, err := f.inspect(cmd)
		if err == nil {
			break
		}
		// The entries before the bad one may bring what makes it good, a member's
		// admission for instance. Where there are none, that they are committed may be
		// what this node has not heard: the leader tells it with the next entries, and
		// these are the bad one, as often as it is sent.
		good := first(cmd, upTo)
		judged := errors.Is(err, errConfiguration) || errors.Is(err, errVoters)
		if upTo > 0 || judged && good.LeaderCommitIndex > f.c.raft.CommitIndex() {
			answer := make(chan raft.RPCResponse, 1)
			if f.pass(raft.RPC{Command: good, RespChan: answer}) {
				select {
				case <-answer:
				case <-f.done:
				}
			}
		}
		if last, ok := f.missesPrevious(cmd); ok && judged {
			// The leader begins too late: told so, as raft would, it sends the entries
			// that come before and may say why. An error would have it try the same again.
			rpc.Respond(&raft.AppendEntriesResponse{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax},
				Term: f.c.raft.CurrentTerm(), LastLog: last, NoRetryBackoff: true}, nil)
			return
		}
		f.c.log.Warn("refused entries of the leader", "reason", err)
		rpc.Respond(&raft.AppendEntriesResponse{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}}, err)
		return
	case *raft.InstallSnapshotRequest:
		if cmd.LastLogIndex <= f.c.now().index {
			go f.hold(rpc) // Close, which ends the stream, does not wait for it
			return
		}
		if err := f.inspectSnapshot(cmd); err != nil {
			f.c.log.Warn("refused snapshot of the leader", "reason", err)
			rpc.Respond(&raft.InstallSnapshotResponse{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}}, err)
			return
		}
	}
	f.pass(rpc)
}

// shunned answers what a shunned member sends: entries, votes and all.
func (f *fence) shunned(rpc raft.RPC) bool {
	cmd, ok := rpc.Command.(raft.WithRPCHeader)
	if !ok {
		return false
	}
	m, err := memberOf(raft.ServerID(cmd.GetRPCHeader().ID))
	if err != nil || !f.c.shuns(m) {
		return false
	}
	rpc.Respond(&raft.AppendEntriesResponse{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}}, errShunned)
	return true
}

// SetHeartbeatHandler puts the fence before raft's short cut for heartbeats.
func (f *fence) SetHeartbeatHandler(handle func(raft.RPC)) {
	f.Transport.SetHeartbeatHandler(func(rpc raft.RPC) {
		if !f.shunned(rpc) {
			handle(rpc)
		}
	})
}

func (f *fence) pass(rpc raft.RPC) bool {
	select {
	case f.out <- rpc:
		return true
	case <-f.done:
		return false
	}
}

// inspect returns how many of the entries raft may see, if not all.
func (f *fence) inspect(cmd *raft.AppendEntriesRequest) (upTo int, err error) {
	if len(cmd.Entries) == 0 {
		return 0, nil
	}
	var conf *raft.Configuration // by the last entry that said so
	for i, e := range cmd.Entries {
		if e == nil || e.Index != cmd.PrevLogEntry+1+uint64(i) || e.Term > cmd.Term {
			return i, errMalformed
		}
		switch e.Type {
		case raft.LogCommand, raft.LogNoop, raft.LogBarrier:
		case raft.LogConfiguration:
			if conf, err = f.configured(e, conf); err != nil {
				return i, fmt.Errorf("entry %d: %w", e.Index, err)
			}
		default: // raft panics on types it does not know
			return i, errMalformed
		}
	}
	last, err := f.logs.LastIndex()
	if err != nil {
		return 0, err
	}
	protected := f.c.protected()
	for i, e := range cmd.Entries {
		if e.Index > last || e.Index > protected {
			break
		}
		var own raft.Log
		if err := f.logs.GetLog(e.Index, &own); errors.Is(err, raft.ErrLogNotFound) {
			continue // compacted
		} else if err != nil {
			return i, err
		}
		if own.Term != e.Term {
			return 0, fmt.Errorf("entry %d: %w", e.Index, errTruncates)
		}
	}
	return len(cmd.Entries), nil
}

// first is cmd with its first n entries, and with no later entry committed: the library
// commits as far as its log goes, and what lies behind these entries may be another
// leader's (Raft, figure 2, AppendEntries 5: the index of the last new entry).
func first(cmd *raft.AppendEntriesRequest, n int) *raft.AppendEntriesRequest {
	out := *cmd
	out.Entries = cmd.Entries[:n]
	out.LeaderCommitIndex = min(cmd.LeaderCommitIndex, cmd.PrevLogEntry+uint64(n))
	return &out
}

// skipHeld leaves out the first entries that this node's log holds, where the one
// before them is compacted: raft compares with that one alone. It would refuse for
// ever what a leader sends again after a refusal, had the entries before the refused
// one come right behind a snapshot. That indexes and terms are the same says
// that what lies before is, as everywhere in raft.
func (f *fence) skipHeld(cmd *raft.AppendEntriesRequest) *raft.AppendEntriesRequest {
	last, err := f.logs.LastIndex()
	var own raft.Log
	if err != nil || cmd.PrevLogEntry == 0 || cmd.PrevLogEntry >= last || !errors.Is(f.logs.GetLog(cmd.PrevLogEntry, &own), raft.ErrLogNotFound) {
		return cmd
	}
	out := *cmd
	for len(out.Entries) > 0 {
		e := out.Entries[0]
		if e == nil || e.Index != out.PrevLogEntry+1 || f.logs.GetLog(e.Index, &own) != nil || own.Term != e.Term {
			break
		}
		out.PrevLogEntry, out.PrevLogTerm, out.Entries = e.Index, e.Term, out.Entries[1:]
	}
	return &out
}

// missesPrevious reports whether the entry before those of a request is not in this
// node's log, and where that ends.
func (f *fence) missesPrevious(cmd *raft.AppendEntriesRequest) (last uint64, misses bool) {
	last, err := f.logs.LastIndex()
	if err != nil {
		return 0, false
	}
	snapshot, _ := f.c.snaps.newest()
	return max(last, snapshot), cmd.PrevLogEntry > max(last, snapshot)
}

// hold answers a snapshot up to where this node has applied the log already: it reads
// the stream to its end, as raft does, says that it has it, and takes nothing of it.
//
// Why not a refusal: a leader whose last answer was lost, for the node died in between,
// sends the same snapshot again, and would until it takes another.
func (f *fence) hold(rpc raft.RPC) {
	_, err := io.Copy(io.Discard, rpc.Reader)
	rpc.Respond(&raft.InstallSnapshotResponse{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax},
		Term: f.c.raft.CurrentTerm(), Success: err == nil}, err)
}

func (f *fence) inspectSnapshot(cmd *raft.InstallSnapshotRequest) error {
	// Whom it may name, only the state that it brings can say: the sink asks.
	conf, err := decodeConfiguration(cmd.Configuration)
	if err != nil {
		return err
	}
	return wellFormed(conf, f.c.cfg.Address)
}

// before is the configuration that the entry at index follows. What an entry that
// another leader takes back has said does not count.
func (f *fence) before(index uint64) (raft.Configuration, error) {
	last, err := f.logs.LastIndex()
	if err != nil || index > last {
		return f.c.raft.GetConfiguration().Configuration(), err
	}
	first, err := f.logs.FirstIndex()
	if err != nil {
		return raft.Configuration{}, err
	}
	for i := index - 1; i >= max(first, 1); i-- {
		var l raft.Log
		if err := f.logs.GetLog(i, &l); err != nil {
			return raft.Configuration{}, err
		}
		if l.Type == raft.LogConfiguration {
			return decodeConfiguration(l.Data)
		}
	}
	return f.c.snaps.configuration()
}

// configured checks a configuration entry that comes after base, or after what this
// node's log says if base is nil, and returns what it makes of it.
func (f *fence) configured(e *raft.Log, base *raft.Configuration) (*raft.Configuration, error) {
	next, err := decodeConfiguration(e.Data)
	if err != nil {
		return nil, err
	}
	var own raft.Log
	switch err := f.logs.GetLog(e.Index, &own); {
	case err == nil && own.Term == e.Term:
		return &next, nil // known already; that it is the same is for raft to say
	case err != nil && !errors.Is(err, raft.ErrLogNotFound):
		return nil, err
	}
	if base == nil {
		conf, err := f.before(e.Index)
		if err != nil {
			return nil, err
		}
		base = &conf
	}
	return &next, f.c.now().allows(*base, next, f.c.cfg.Address)
}

func voters(conf raft.Configuration) map[ledger.MemberID]bool {
	ms := map[ledger.MemberID]bool{}
	for _, s := range conf.Servers {
		if m, err := memberOf(s.ID); err == nil && s.Suffrage == raft.Voter {
			ms[m] = true
		}
	}
	return ms
}

// memberOf reads a ServerID: the member in hex, "-", its incarnation.
func memberOf(id raft.ServerID) (m ledger.MemberID, err error) {
	text, _, ok := strings.Cut(string(id), "-")
	b, err := hex.DecodeString(text)
	if !ok || err != nil || len(b) != len(m) {
		return m, fmt.Errorf("no member: server %q", id)
	}
	copy(m[:], b)
	return m, nil
}

// protected is the raft index up to which this node's log may not be rewritten.
func (c *Consensus) protected() uint64 { return max(c.now().index, c.Promise().Index) }
