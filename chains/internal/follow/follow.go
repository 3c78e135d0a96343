// Package follow owns what a block follower remembers: the window of the best
// chain, the inflows and spends found in it, and how far each address was
// looked for. It is the part of Watch that adapters share.
//
// It promises one consistent picture after each step, over forks down to
// Window blocks, and that an address which the ledger names late is looked for
// from Window blocks before it became effective (spec: outflows §8.1).
//
// Reading blocks, and judging what is in them, is the adapter's.
package follow

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/coffer-network/coffer/chains"
	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/fixed"
)

const (
	// Window is how far back a fork is followed, and how far before its height
	// an address is looked for (spec: outflows §8.1).
	Window = 144
	// maxWindow bounds the window where finality stalls (Ethereum: half a day).
	maxWindow = 4096
	// maxEvents bounds the picture. Each event is a transaction somebody paid
	// for, and is dropped once counted and deep: only a ledger that counts
	// nothing for months comes near.
	maxEvents = 1 << 20
	// maxIgnored bounds what strangers can make us keep: ignored arrivals are
	// shown, never acted upon.
	maxIgnored = 256
)

// State is the follower's memory. Encoded it is the cursor.
type State struct {
	Chain   string                       `cbor:"1,keyasint"` // CAIP-2, so that a cursor is not used for another chain
	Next    uint64                       `cbor:"2,keyasint"` // height to be read next
	Blocks  []Block                      `cbor:"3,keyasint"` // the last ones read, contiguous, ending at Next−1
	Inflows map[string]ledger.InflowFact `cbor:"-"`          // by inflow id
	Spends  map[string]Spend             `cbor:"-"`          // by resource: the best chain spends each once
	Ignored []Ignored                    `cbor:"6,keyasint"`

	// The maps as lists, sorted, in the cursor only: the codec bounds maps.
	InflowList []ledger.InflowFact `cbor:"4,keyasint"`
	SpendList  []Spend             `cbor:"5,keyasint"`

	// Addresses get their From from the attested tip when the ledger applies
	// them, so From never falls in log order: all addresses with From < Upto
	// were in the view when Upto was first seen. Count tells when that fails.
	Upto  uint64   `cbor:"7,keyasint"`
	At    []string `cbor:"8,keyasint"` // known ones with From = Upto, sorted
	Count uint64   `cbor:"9,keyasint"` // known ones with From < Upto

	Final uint64 `cbor:"12,keyasint"` // Ethereum: highest finalized height met; no fork goes below it

	// A rescan runs up to the head. A later one waits for it, so that a steady
	// flow of new addresses cannot keep it from ending.
	Rescan  *uint64 `cbor:"10,keyasint"` // next height of the running one
	Waiting *uint64 `cbor:"11,keyasint"` // first height of the next one
}

// Block is one block of the best chain.
type Block struct {
	Height uint64 `cbor:"1,keyasint"`
	Hash   string `cbor:"2,keyasint"`
	Rate   uint64 `cbor:"3,keyasint"` // Bitcoin: average fee rate, sat/kvB; Ethereum: base fee, wei
	Full   bool   `cbor:"4,keyasint"` // Bitcoin: at least half full
}

// Spend is a resource of ours consumed by a transaction.
type Spend struct {
	Resource string         `cbor:"1,keyasint"`
	TxID     string         `cbor:"2,keyasint"`
	Payload  string         `cbor:"3,keyasint"` // what identifies the bytes without their signature
	Height   uint64         `cbor:"4,keyasint"`
	Block    string         `cbor:"5,keyasint"`
	Outcome  ledger.Outcome `cbor:"6,keyasint"` // Ethereum, once its receipt is final; else 0
	Fee      fixed.Int      `cbor:"7,keyasint"` // likewise, wei
}

// Ignored is a chains.Ignored with its height.
type Ignored struct {
	Height  uint64 `cbor:"1,keyasint"`
	TxID    string `cbor:"2,keyasint"`
	Address string `cbor:"3,keyasint"`
	Reason  string `cbor:"4,keyasint"`
}

// Found is what an adapter found in one block.
type Found struct {
	Block
	Parent  string
	Inflows []ledger.InflowFact
	Spends  []Spend
	Ignored []Ignored
}

// Source reads the best chain of the member's node.
type Source interface {
	Best(ctx context.Context) (height uint64, err error)
	HashAt(ctx context.Context, height uint64) (string, error)
	// Read returns the blocks from … to in order. It asks w about what it meets.
	Read(ctx context.Context, from, to uint64, w Want) ([]Found, error)
}

// Want says what to look for.
type Want struct {
	view    chains.View
	anchors map[string]bool
	state   *State
}

func (s *State) want(v chains.View) Want {
	w := Want{view: v, anchors: make(map[string]bool, len(v.Anchors)), state: s}
	for _, a := range v.Anchors {
		w.anchors[a.Name] = true
	}
	return w
}

// Address reports whether an inflow to the address at the height is looked for.
func (w Want) Address(addr string, height uint64) bool {
	from, ok := w.view.Watched[addr]
	return ok && height+Window >= from
}

// Addresses are all that matter in a block up to the height, sorted.
func (w Want) Addresses(height uint64) []string {
	var out []string
	for a, from := range w.view.Watched {
		if height+Window >= from {
			out = append(out, a)
		}
	}
	slices.Sort(out)
	return out
}

// Resource reports whether the ledger or the picture holds this outpoint.
func (w Want) Resource(name string) bool {
	_, ok := w.state.Inflows[name]
	return ok || w.view.Coins[name] || w.anchors[name]
}

// Limits bound one step.
type Limits struct {
	Start uint64 // first height of interest
	Steps uint64 // blocks read per step; a rescan has as many again
	Chunk uint64 // blocks per Read
}

// Load decodes a cursor; an empty one begins at start.
func Load(c chains.Cursor, chain string, start uint64) (*State, error) {
	s := &State{Chain: chain, Next: start}
	if len(c) > 0 {
		*s = State{}
		if err := ledger.Unmarshal(c, s); err != nil {
			return nil, fmt.Errorf("%w: %w", chains.ErrCursor, err)
		}
		if s.Chain != chain {
			return nil, fmt.Errorf("%w: of %s, want %s", chains.ErrCursor, s.Chain, chain)
		}
	}
	s.Inflows = make(map[string]ledger.InflowFact, len(s.InflowList))
	for _, f := range s.InflowList {
		s.Inflows[f.ID] = f
	}
	s.Spends = make(map[string]Spend, len(s.SpendList))
	for _, p := range s.SpendList {
		s.Spends[p.Resource] = p
	}
	s.InflowList, s.SpendList = nil, nil
	return s, nil
}

// Cursor encodes the state.
func (s *State) Cursor() chains.Cursor {
	out := *s
	for _, id := range slices.Sorted(maps.Keys(s.Inflows)) {
		out.InflowList = append(out.InflowList, s.Inflows[id])
	}
	for _, name := range slices.Sorted(maps.Keys(s.Spends)) {
		out.SpendList = append(out.SpendList, s.Spends[name])
	}
	return ledger.Marshal(out)
}

// Head is the best block read; false before the first.
func (s *State) Head() (Block, bool) {
	if len(s.Blocks) == 0 {
		return Block{}, false
	}
	return s.Blocks[len(s.Blocks)-1], true
}

// At returns the block of a height inside the window.
func (s *State) at(height uint64) (Block, bool) {
	if len(s.Blocks) == 0 || height < s.Blocks[0].Height || height >= s.Next {
		return Block{}, false
	}
	return s.Blocks[height-s.Blocks[0].Height], true
}

// Hash is the block hash of a height inside the window, or empty.
func (s *State) Hash(height uint64) string {
	b, _ := s.at(height)
	return b.Hash
}

// Step follows the best chain. It returns how many blocks are still unread.
func (s *State) Step(ctx context.Context, v chains.View, src Source, lim Limits) (behind uint64, err error) {
	best, err := src.Best(ctx)
	if err != nil {
		return 0, fmt.Errorf("best block: %w", err)
	}
	if err := s.unwind(ctx, src, best, lim.Start); err != nil {
		return 0, err
	}
	s.admit(v, lim.Start)
	w := s.want(v)
	if err := s.advance(ctx, w, src, best, lim); err != nil {
		return 0, err
	}
	if err := s.rescan(ctx, w, src, lim); err != nil {
		return 0, fmt.Errorf("rescan: %w", err)
	}
	if n := len(s.Inflows) + len(s.Spends); n > maxEvents {
		return 0, fmt.Errorf("%w: %d, at most %d", chains.ErrPicture, n, maxEvents)
	}
	if best+1 > s.Next {
		behind = best + 1 - s.Next
	}
	return behind, nil
}

// unwind drops what left the best chain.
func (s *State) unwind(ctx context.Context, src Source, best, start uint64) error {
	if len(s.Blocks) == 0 {
		return nil
	}
	keep := len(s.Blocks)
	for ; keep > 0; keep-- {
		b := s.Blocks[keep-1]
		if b.Height > best {
			continue
		}
		hash, err := src.HashAt(ctx, b.Height)
		if err != nil {
			return fmt.Errorf("block %d: %w", b.Height, err)
		}
		if hash == b.Hash {
			break
		}
	}
	first := s.Blocks[0].Height
	if keep == 0 && first != start {
		return fmt.Errorf("%w: none of our blocks %d to %d is in it", chains.ErrDeepFork, first, s.Next-1)
	}
	if keep == len(s.Blocks) {
		return nil
	}
	if fork := first + uint64(keep); fork <= s.Final {
		return fmt.Errorf("%w: at %d, which was final up to %d", chains.ErrDeepFork, fork, s.Final)
	}
	s.Blocks = s.Blocks[:keep]
	s.Next = first + uint64(keep)
	gone := func(height uint64) bool { return height >= s.Next }
	maps.DeleteFunc(s.Inflows, func(_ string, f ledger.InflowFact) bool { return gone(f.Height) })
	maps.DeleteFunc(s.Spends, func(_ string, p Spend) bool { return gone(p.Height) })
	s.Ignored = slices.DeleteFunc(s.Ignored, func(i Ignored) bool { return gone(i.Height) })
	return nil
}

// admit compares the view's addresses with those known and asks for a rescan
// where blocks that may matter were read without them.
func (s *State) admit(v chains.View, start uint64) {
	first, upto := ^uint64(0), s.Upto
	var at []string
	below, known := uint64(0), uint64(0)
	for a, from := range v.Watched {
		isNew := from > s.Upto
		switch {
		case from < s.Upto:
			known++
		case from == s.Upto:
			_, found := slices.BinarySearch(s.At, a)
			isNew = !found
		}
		if isNew {
			first = min(first, max(start, from-min(from, Window)))
		}
		if from > upto {
			below, upto, at = below+uint64(len(at)), from, nil
		}
		switch {
		case from == upto:
			at = append(at, a)
		default:
			below++
		}
	}
	if known > s.Count {
		// Cannot happen while From follows the log. Found all the same: look
		// for everything again rather than miss a deposit.
		first = start
	}
	slices.Sort(at)
	s.Upto, s.At, s.Count = upto, at, below
	if first >= s.Next {
		return
	}
	switch {
	case s.Rescan == nil:
		s.Rescan = &first
	case s.Waiting == nil || *s.Waiting > first:
		s.Waiting = &first
	}
}

func (s *State) advance(ctx context.Context, w Want, src Source, best uint64, lim Limits) error {
	for left := lim.Steps; left > 0 && s.Next <= best; {
		n := min(left, lim.Chunk, best+1-s.Next)
		found, err := s.read(ctx, w, src, s.Next, s.Next+n-1)
		if err != nil {
			return err
		}
		for _, f := range found {
			s.Blocks = append(s.Blocks, f.Block)
			s.Next++
			s.add(f)
		}
		left -= n
	}
	return nil
}

func (s *State) rescan(ctx context.Context, w Want, src Source, lim Limits) error {
	for left := lim.Steps; left > 0 && s.Rescan != nil; {
		if *s.Rescan >= s.Next {
			s.Rescan, s.Waiting = s.Waiting, nil
			continue
		}
		n := min(left, lim.Chunk, s.Next-*s.Rescan)
		found, err := s.read(ctx, w, src, *s.Rescan, *s.Rescan+n-1)
		if err != nil {
			return err
		}
		for _, f := range found {
			s.add(f)
		}
		*s.Rescan += n
		left -= n
	}
	return nil
}

// read fetches blocks and checks that they are of one chain, and of ours.
func (s *State) read(ctx context.Context, w Want, src Source, from, to uint64) ([]Found, error) {
	found, err := src.Read(ctx, from, to, w)
	if err != nil {
		return nil, fmt.Errorf("read blocks %d to %d: %w", from, to, err)
	}
	if uint64(len(found)) != to-from+1 {
		return nil, fmt.Errorf("%w: %d blocks for %d to %d", chains.ErrEndpoint, len(found), from, to)
	}
	parent := ""
	if from > 0 {
		parent = s.Hash(from - 1)
	}
	for i, f := range found {
		height := from + uint64(i)
		if f.Height != height {
			return nil, fmt.Errorf("%w: block %d for %d", chains.ErrEndpoint, f.Height, height)
		}
		// The chain may move while it is read: nothing is kept, the next step
		// finds the fork.
		if parent != "" && f.Parent != parent {
			return nil, fmt.Errorf("block %d: best chain moved while reading", height)
		}
		if ours := s.Hash(height); ours != "" && ours != f.Hash {
			return nil, fmt.Errorf("block %d: best chain moved while reading", height)
		}
		parent = f.Hash
	}
	return found, nil
}

// add enters what a block holds; twice is once.
func (s *State) add(f Found) {
	for _, in := range f.Inflows {
		s.Inflows[in.ID] = in
	}
	for _, p := range f.Spends {
		if old, ok := s.Spends[p.Resource]; !ok || old.Block != p.Block || old.TxID != p.TxID {
			s.Spends[p.Resource] = p
		}
	}
	for _, i := range f.Ignored {
		if !slices.Contains(s.Ignored, i) {
			s.Ignored = append(s.Ignored, i)
		}
	}
	if n := len(s.Ignored); n > maxIgnored {
		s.Ignored = slices.Delete(s.Ignored, 0, n-maxIgnored)
	}
}

// Prune forgets what is deep and of no more interest. Blocks from keep on stay.
func (s *State) Prune(v chains.View, keep uint64, open func(Spend) bool) {
	head, ok := s.Head()
	if !ok {
		return
	}
	old := func(height uint64) bool { return height+Window < head.Height }
	maps.DeleteFunc(s.Inflows, func(id string, f ledger.InflowFact) bool {
		if _, watched := v.Watched[f.Address]; !watched {
			return true
		}
		return old(f.Height) && v.Counted != nil && v.Counted(id)
	})
	maps.DeleteFunc(s.Spends, func(_ string, p Spend) bool { return old(p.Height) && !open(p) })
	s.Ignored = slices.DeleteFunc(s.Ignored, func(i Ignored) bool { return old(i.Height) })
	first := head.Height - min(head.Height, Window)
	first = max(min(first, keep), head.Height-min(head.Height, maxWindow))
	s.Blocks = slices.DeleteFunc(s.Blocks, func(b Block) bool { return b.Height < first })
}

// Observe is the part of the picture that is alike on every chain.
func (s *State) Observe(chain string, behind uint64) chains.Observations {
	o := chains.Observations{Behind: behind, Blocks: make(map[uint64]string, len(s.Blocks))}
	for _, b := range s.Blocks {
		o.Blocks[b.Height] = b.Hash
	}
	head, ok := s.Head()
	if !ok {
		return o
	}
	o.Head = ledger.HeightReport{Chain: chain, Height: head.Height, Hash: head.Hash}
	for _, id := range slices.Sorted(maps.Keys(s.Inflows)) {
		f := s.Inflows[id]
		o.Inflows = append(o.Inflows, chains.Seen{Fact: f, Depth: head.Height - f.Height + 1})
	}
	for _, i := range s.Ignored {
		o.Ignored = append(o.Ignored, chains.Ignored{TxID: i.TxID, Address: i.Address, Reason: i.Reason})
	}
	return o
}

// Match turns the spends into what the view's batches make of them. Payload is
// the identity of an attempt's bytes; conclude fills Final, Outcome and Fee;
// mine says whether a spend without an open batch still concerns the ledger.
func (s *State) Match(v chains.View, payload func(ledger.Attempt) (string, error),
	conclude func(*chains.SeenSpend, Spend, *ledger.Attempt) error, mine func(Spend) bool) ([]chains.SeenSpend, error) {
	head, _ := s.Head()
	anchors := make(map[string]chains.Anchor, len(v.Anchors))
	planned := map[string]bool{}
	for _, a := range v.Anchors {
		anchors[a.Name] = a
		for _, t := range a.Attempts {
			id, err := payload(t)
			if err != nil {
				return nil, fmt.Errorf("batch %d attempt %d: %w", a.Batch, t.K, err)
			}
			planned[id] = true
		}
	}
	var out []chains.SeenSpend
	for _, name := range slices.Sorted(maps.Keys(s.Spends)) {
		p := s.Spends[name]
		seen := chains.SeenSpend{
			Anchor: name, Foreign: true, Height: p.Height, Block: p.Block,
			Depth: head.Height - p.Height + 1, TxID: p.TxID,
		}
		a, open := anchors[name]
		if !open && (planned[p.Payload] || !mine(p)) {
			continue // a further input of ours, or settled long ago
		}
		seen.Batch = a.Batch
		var by *ledger.Attempt
		for i := range a.Attempts {
			t := &a.Attempts[i]
			id, err := payload(*t)
			if err != nil {
				return nil, fmt.Errorf("batch %d attempt %d: %w", a.Batch, t.K, err)
			}
			if id == p.Payload && (by == nil || t.K < by.K) {
				by, seen.Attempt, seen.Foreign = t, t.K, false
			}
		}
		if err := conclude(&seen, p, by); err != nil {
			return nil, fmt.Errorf("spend of %s: %w", name, err)
		}
		out = append(out, seen)
	}
	return out, nil
}
