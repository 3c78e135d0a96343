package consensus

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/coffer-network/coffer/ledger"
)

// guardedLog is the fence's second half, at the store: it refuses the one
// deletion that would break a promise, turns the store's failures into the end
// of the node, and keeps the mark.
type guardedLog struct {
	Store
	c *Consensus

	mu   sync.Mutex // mark and tail truncation exclude each other
	mark raftMark

	// reasons is the raft index up to which this node had applied the log when it
	// stored the newest configuration entry: what such an entry follows from is
	// committed, and raft itself remembers no commit over a restart.
	reasons atomic.Uint64
}

// raftMark is how far raft's store came. A store that holds less has forgotten
// entries this node acknowledged, or votes it gave: it must not vote again under
// this ServerID (spec: consensus §3).
type raftMark struct {
	Term      uint64 `cbor:"1,keyasint"` // current term
	LastTerm  uint64 `cbor:"2,keyasint"` // of the last entry
	LastIndex uint64 `cbor:"3,keyasint"`
}

// holds reports whether a store at s has everything a store at m had. In a later
// term entries may have been replaced by fewer, so then only the term counts.
func (s raftMark) holds(m raftMark) bool {
	switch {
	case s.Term != m.Term:
		return s.Term > m.Term
	case s.LastTerm != m.LastTerm:
		return s.LastTerm > m.LastTerm
	default:
		return s.LastIndex >= m.LastIndex
	}
}

var (
	keyCurrentTerm = []byte("CurrentTerm") // raft's own name for it
	keyReasons     = []byte("ConfigurationReasons")
)

// number is what the store keeps under name, 0 if it keeps nothing.
func (g *guardedLog) number(name []byte) (uint64, error) {
	n, err := g.Store.GetUint64(name)
	if err != nil && err.Error() == "not found" {
		return 0, nil
	}
	return n, err
}

// position reads the mark of the store as it is.
func (g *guardedLog) position() (m raftMark, err error) {
	if m.Term, err = g.number(keyCurrentTerm); err != nil {
		return m, fmt.Errorf("read term: %w", err)
	}
	last, err := g.Store.LastIndex()
	if err != nil {
		return m, fmt.Errorf("read last index: %w", err)
	}
	m.LastIndex, m.LastTerm = g.c.snaps.newest()
	if last > m.LastIndex {
		var l raft.Log
		if err := g.Store.GetLog(last, &l); err != nil {
			return m, fmt.Errorf("read entry %d: %w", last, err)
		}
		m.LastIndex, m.LastTerm = last, l.Term
	}
	return m, nil
}

// check is asked once, at the start.
func (g *guardedLog) check(p Promise) error {
	b, err := g.c.cfg.Mark.LastRaftMark()
	if err != nil {
		return fmt.Errorf("read raft mark: %w", err)
	}
	if len(b) > 0 {
		if err := ledger.Unmarshal(b, &g.mark); err != nil {
			return fmt.Errorf("decode raft mark: %w", err)
		}
	}
	at, err := g.position()
	if err != nil {
		return err
	}
	if !at.holds(g.mark) || at.Term < p.Term || at.LastIndex < p.Index {
		return fmt.Errorf("%w: it ends at term %d, entry %d; the keystore saw term %d, entry %d; "+
			"a seat that voted and forgot can lose committed commands, so it has to come back as a new incarnation",
			ErrRaftBehind, at.Term, at.LastIndex, max(g.mark.Term, p.Term), max(g.mark.LastIndex, p.Index))
	}
	reasons, err := g.number(keyReasons)
	if err != nil {
		return fmt.Errorf("read what configurations follow from: %w", err)
	}
	g.reasons.Store(reasons)
	return g.joinSnapshot()
}

// joinSnapshot makes log and newest snapshot one history: it finishes the
// deletion that follows an installed snapshot if a crash cut it short, and
// refuses a gap between the two.
func (g *guardedLog) joinSnapshot() error {
	snapshot, _ := g.c.snaps.newest()
	first, err := g.Store.FirstIndex()
	if err != nil {
		return fmt.Errorf("read first index: %w", err)
	}
	last, err := g.Store.LastIndex()
	if err != nil {
		return fmt.Errorf("read last index: %w", err)
	}
	switch {
	case last == 0:
		return nil
	case last < snapshot:
		if err := g.Store.DeleteRange(first, last); err != nil {
			return fmt.Errorf("delete entries below the snapshot: %w", err)
		}
		return nil
	case first > snapshot+1:
		return fmt.Errorf("raft log begins at entry %d, the newest valid snapshot ends at %d: entries between are missing", first, snapshot)
	}
	return nil
}

// IsMonotonic tells raft to empty the log after an installed snapshot rather
// than leave a gap, which raftlog refuses.
func (g *guardedLog) IsMonotonic() bool { return true }

func (g *guardedLog) GetLog(i uint64, l *raft.Log) error {
	err := g.Store.GetLog(i, l)
	if err == nil && i > g.c.now().index { // replay, after a start
		g.c.arrived.tell(l)
	}
	if err != nil && !errors.Is(err, raft.ErrLogNotFound) {
		g.c.fail(fmt.Errorf("read raft log: %w", err))
	}
	return err
}

func (g *guardedLog) StoreLog(l *raft.Log) error { return g.StoreLogs([]*raft.Log{l}) }

func (g *guardedLog) StoreLogs(ls []*raft.Log) error {
	for _, l := range ls {
		g.c.arrived.tell(l)
	}
	if slices.ContainsFunc(ls, func(l *raft.Log) bool { return l.Type == raft.LogConfiguration }) {
		if at := g.c.now().index; at > g.reasons.Load() {
			if err := g.SetUint64(keyReasons, at); err != nil {
				return err
			}
			g.reasons.Store(at)
		}
	}
	return g.must("write raft log", g.Store.StoreLogs(ls))
}

func (g *guardedLog) Set(k, v []byte) error {
	return g.must("write raft state", g.Store.Set(k, v))
}

func (g *guardedLog) SetUint64(k []byte, v uint64) error {
	return g.must("write raft state", g.Store.SetUint64(k, v))
}

// must ends the node on an error: no retry after a failed fsync.
func (g *guardedLog) must(what string, err error) error {
	if err != nil {
		err = fmt.Errorf("%s: %w", what, err)
		g.c.fail(err)
	}
	return err
}

// DeleteRange tells apart compaction, which stays below a snapshot, and the
// truncation of a tail that another leader replaces.
func (g *guardedLog) DeleteRange(from, to uint64) error {
	snapshot, snapshotTerm := g.c.snaps.newest()
	if to <= snapshot {
		return g.must("compact raft log", g.Store.DeleteRange(from, to))
	}
	last, err := g.Store.LastIndex()
	if err != nil {
		return g.must("read raft log", err)
	}
	// An installed snapshot that covers what is protected replaces the log.
	if protected := g.c.protected(); (to < last || from <= protected && snapshot < protected) && !g.c.cfg.off.fence {
		return fmt.Errorf("delete entries %d to %d: %w", from, to, errTruncates)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	// The lower mark first: a crash between the two must not make the log
	// look as if it had lost what a new leader took back.
	lower := raftMark{Term: g.mark.Term, LastIndex: snapshot, LastTerm: snapshotTerm}
	if from-1 > snapshot {
		lower.LastIndex = from - 1
		var l raft.Log
		if err := g.Store.GetLog(from-1, &l); err != nil {
			return g.must("read raft log", err)
		}
		lower.LastTerm = l.Term
	}
	if err := g.saveMark(lower); err != nil {
		return g.must("delete entries", err)
	}
	return g.must("truncate raft log", g.Store.DeleteRange(from, to))
}

func (g *guardedLog) saveMark(m raftMark) error {
	if m == g.mark {
		return nil
	}
	if err := g.c.cfg.Mark.SaveRaftMark(ledger.Marshal(m)); err != nil {
		return fmt.Errorf("save raft mark: %w", err)
	}
	g.mark = m
	return nil
}

// keepMark saves the mark each second while it moves.
func (c *Consensus) keepMark() {
	tick := time.NewTicker(markEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-c.failed:
			return
		case <-c.ctx.Done():
			return
		}
		if err := c.guard.keep(); err != nil {
			c.fail(err)
			return
		}
	}
}

func (g *guardedLog) keep() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	m, err := g.position()
	if err != nil {
		return err
	}
	return g.saveMark(m)
}
