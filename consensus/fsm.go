package consensus

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/hashicorp/raft"

	"github.com/coffer-network/coffer/ledger"
)

// fsm is what raft sees of a Consensus.
type fsm Consensus

// Limits of one raft entry (spec: consensus §9). Its bytes stay below 1 MiB with
// all encoding, as raftlog keeps whole entries in its write-ahead log.
const (
	MaxCommand  = 64 << 10
	maxCommands = 256
	maxEntry    = 1<<20 - 8<<10
)

// commands splits a raft entry. An entry that is no batch is one command, which
// App refuses: a leader that writes nonsense must not stop the replicas, and
// what it wrote must show in the chain (spec: consensus §1).
func commands(entry []byte) [][]byte {
	var txs [][]byte
	if err := ledger.Unmarshal(entry, &txs); err != nil || len(txs) == 0 || len(txs) > maxCommands {
		return [][]byte{entry}
	}
	for _, tx := range txs {
		if len(tx) > MaxCommand {
			return [][]byte{entry}
		}
	}
	return txs
}

// Apply returns []Result, or nil once the node has failed.
func (f *fsm) Apply(l *raft.Log) any {
	c := (*Consensus)(f)
	if c.Err() != nil {
		return nil
	}
	c.applying.Store(time.Now().UnixNano())
	defer c.applying.Store(0)
	results, err := c.apply(l.Index, commands(l.Data))
	if err != nil {
		c.fail(fmt.Errorf("apply raft entry %d: %w", l.Index, err))
		return nil
	}
	return results
}

func (c *Consensus) apply(index uint64, txs [][]byte) ([]Result, error) {
	results := c.cfg.App.Apply(txs)
	if len(results) != len(txs) {
		return nil, fmt.Errorf("app gave %d results for %d commands", len(results), len(txs))
	}
	headers := make([]ledger.Header, len(results))
	for i, r := range results {
		headers[i] = r.Header
		if r.Header.Command != sha256.Sum256(txs[i]) {
			return nil, fmt.Errorf("app's header %d names another command", r.Header.Height)
		}
	}
	if err := c.chain.append(headers); err != nil {
		return nil, err
	}
	if err := errors.Join(c.meetPromise(headers), c.against(headers)); err != nil {
		return nil, err
	}
	c.remember(results)
	c.seenApplied(headers)
	return results, c.advance(index)
}

// seenApplied: what this node had forwarded is ordered.
func (c *Consensus) seenApplied(hs []ledger.Header) {
	done := make([]ledger.Hash, len(hs))
	for i, h := range hs {
		done[i] = h.Command
	}
	c.grieve.done(done...)
}

// advance publishes the state that the App has come to.
func (c *Consensus) advance(index uint64) error {
	v := c.cfg.App.View()
	head, err := c.chain.headAt(v.Height)
	if err != nil {
		return err
	}
	if v.Head != head {
		return fmt.Errorf("app's head at height %d is %s, its headers give %s", v.Height, v.Head, head)
	}
	c.publish(v, index)
	c.pool.reached(c)
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return nil
}

func (c *Consensus) publish(v View, index uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := applied{View: v, index: index, members: c.at.members, since: c.at.since, gone: c.at.ended(v)}
	if c.at.index == 0 && c.at.Height == 0 || v.Epoch.Number != c.at.Epoch.Number {
		next.members, next.since = v.Epoch.MembersHash(), v.Height
	}
	if v.Opened != nil {
		if was := c.at.Opened; was != nil && was.Epoch.Number == v.Opened.Epoch.Number {
			next.openMembers = c.at.openMembers
		} else {
			next.openMembers = v.Opened.Epoch.MembersHash()
		}
	}
	c.at = next
	close(c.changed)
	c.changed = make(chan struct{})
}

// meetPromise compares replayed headers with the promise when they reach it.
func (c *Consensus) meetPromise(hs []ledger.Header) error {
	p := c.Promise()
	if c.cfg.off.ancestry || p.Height == 0 || len(hs) == 0 || p.Height < hs[0].Height || p.Height > hs[len(hs)-1].Height {
		return nil
	}
	if head := hs[p.Height-hs[0].Height].Head(); head != p.Head {
		return fmt.Errorf("%w: promised %s at height %d, replay gives %s", ErrPromiseBroken, p.Head, p.Height, head)
	}
	return nil
}

// recentResult lets the node that forwarded a command answer from its own
// replica (spec: consensus §5.1). Codes are not in the headers.
type recentResult struct {
	height uint64
	code   ledger.Code
}

func (c *Consensus) remember(rs []Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range rs {
		c.recent[r.Header.Height%recentResults] = recentResult{r.Header.Height, r.Code}
	}
}

func (c *Consensus) recall(height uint64) (ledger.Code, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.recent[height%recentResults]
	return r.code, r.height == height
}

// WaitHeight returns when this replica has applied height.
func (c *Consensus) WaitHeight(ctx context.Context, height uint64) error {
	for {
		c.mu.Lock()
		at, changed := c.at.Height, c.changed
		c.mu.Unlock()
		if at >= height {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for height %d: %w", height, ctx.Err())
		case <-c.failed:
			return c.failure
		case <-c.ctx.Done():
			return ErrClosed
		}
	}
}

type fsmSnapshot struct {
	state  Snapshot
	height uint64
	head   ledger.Hash
}

func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	c := (*Consensus)(f)
	if err := c.Err(); err != nil {
		return nil, err
	}
	state, err := c.cfg.App.Snapshot()
	if err != nil {
		return nil, fmt.Errorf("snapshot state: %w", err)
	}
	at := c.now()
	return &fsmSnapshot{state: state, height: at.Height, head: at.Head}, nil
}

func (s *fsmSnapshot) Persist(to raft.SnapshotSink) error {
	own, ok := to.(*sink)
	if !ok {
		return errors.New("snapshot sink is not ours")
	}
	return own.persist(s.height, s.head, s.state.Encode)
}

func (s *fsmSnapshot) Release() {}

// Restore takes over a snapshot that our store has checked, now or before an
// earlier shutdown. The stream is checked again all the same: it is own data,
// and what does not decode must stop the node, not be believed.
func (f *fsm) Restore(r io.ReadCloser) error {
	c := (*Consensus)(f)
	if err := c.restore(r); err != nil {
		// At start New reports it; raft tries the one before, which mends a file and no history.
		if c.raft != nil || errors.Is(err, ErrCheckpoint) {
			c.fail(fmt.Errorf("restore snapshot: %w", err))
		}
		return err
	}
	return nil
}

func (c *Consensus) restore(r io.Reader) error {
	s, err := readPrefix(r, c.cfg.Cluster)
	if err != nil {
		return err
	}
	own := c.Height()
	if s.Height < own {
		return fmt.Errorf("snapshot of height %d, applied is %d", s.Height, own)
	}
	_, err = walk(r, 0, c.cfg.Cluster, s.Height, func(hs []ledger.Header) error {
		if err := c.against(hs); err != nil {
			return err
		}
		last := hs[len(hs)-1]
		if last.Height <= own {
			return nil
		}
		hs = hs[uint64(len(hs))-min(last.Height-own, uint64(len(hs))):]
		if err := c.chain.append(hs); err != nil {
			return err
		}
		return c.meetPromise(hs)
	})
	if err != nil {
		return err
	}
	if head, err := c.chain.headAt(s.Height); err != nil || head != s.Head {
		return fmt.Errorf("snapshot's head is not on the own chain: %w", errors.Join(errBrokenLink, err))
	}
	body, err := c.readBody(r, s)
	if err != nil {
		return err
	}
	if err := c.chain.sync(); err != nil {
		return err
	}
	c.unproven.Store(c.snaps.unproven(s.Index)) // before anybody sees the state
	body.Adopt()
	return c.advance(s.Index)
}
