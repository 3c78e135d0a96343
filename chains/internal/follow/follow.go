// Package follow owns what a block follower remembers: the window of the best
// chain, the inflows and spends found in it, and how far each address was
// looked for. It is the part of Watch that adapters share.
//
// It promises one consistent picture after each step, over forks down to
// Window blocks, never a step back because a node forgot some, and that an
// address which the ledger names late is looked for from Window blocks before
// it became effective (spec: outflows §8.1).
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
	Coins   Coins                        `cbor:"-"` // Bitcoin: at scripts of ours

	// The maps as lists, sorted, in the cursor only: the codec bounds maps.
	InflowList []ledger.InflowFact `cbor:"4,keyasint"`
	SpendList  []Spend             `cbor:"5,keyasint"`
	CoinBytes  []byte              `cbor:"13,keyasint"`

	Known uint64 `cbor:"7,keyasint"` // addresses looked for: the view's numbers below it

	Final uint64 `cbor:"12,keyasint"` // Ethereum: highest finalized height met; no fork goes below it

	Native Natives `cbor:"14,keyasint"` // Ethereum: where the look for native deposits stands

	// A later rescan waits for the running one, so that a steady flow of new
	// addresses cannot keep it from ending.
	Rescan  *Rescan `cbor:"10,keyasint"`
	Waiting *Rescan `cbor:"11,keyasint"` // of its fields, First and Early count
}

// Rescan is a walk down the best chain through blocks that were read before
// somebody asked for what may be in them. Downwards, because then each block
// is the one that the block above names, and none can be slipped in below the
// window.
type Rescan struct {
	First uint64 `cbor:"1,keyasint"` // last height to be read
	Upto  uint64 `cbor:"2,keyasint"` // heights below are still to be read
	Hash  string `cbor:"3,keyasint"` // of the block at Upto−1
	Early bool   `cbor:"4,keyasint"` // an operator's: also what is more than Window older than its address
}

// Natives is a round through the watched addresses, each asked for its balance.
type Natives struct {
	Height uint64   `cbor:"1,keyasint"` // finalized one at which the round began
	Next   uint64   `cbor:"2,keyasint"` // number of the address that is next
	Rich   []string `cbor:"3,keyasint"` // those that hold what is not counted, sorted
}

// Block is one block of the best chain.
type Block struct {
	Height uint64 `cbor:"1,keyasint"`
	Hash   string `cbor:"2,keyasint"`
	Rate   uint64 `cbor:"3,keyasint"` // Bitcoin: average fee rate, sat/kvB; Ethereum: base fee, wei
	Full   bool   `cbor:"4,keyasint"` // Bitcoin: at least half full
	Bits   uint32 `cbor:"5,keyasint"` // Bitcoin: the target
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
	Coins   []Coin // outputs at scripts of ours, and
	Gone    []Gone // outputs that keys of ours spent
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
	early   bool
}

// Want is what a view wants of a block.
func (s *State) Want(v chains.View) Want {
	w := Want{view: v, anchors: make(map[string]bool, len(v.Anchors)), state: s}
	for _, a := range v.Anchors {
		w.anchors[a.Name] = true
	}
	return w
}

// Address reports whether an inflow to the address at the height is looked for.
func (w Want) Address(addr string, height uint64) bool {
	if w.view.Watched == nil {
		return false
	}
	from, ok := w.view.Watched.From(addr)
	return ok && (w.early || height+Window >= from)
}

// Addresses are all that matter in a block up to the height, sorted.
func (w Want) Addresses(height uint64) []string {
	if w.view.Watched == nil {
		return nil
	}
	var out []string
	for n := range w.view.Watched.Registered() {
		if a, ok := w.view.Watched.Number(n); ok && w.Address(a, height) {
			out = append(out, a)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Anchors are those of open batches.
func (w Want) Anchors() []string { return slices.Sorted(maps.Keys(w.anchors)) }

// Resource reports whether the ledger or the picture holds this outpoint.
func (w Want) Resource(name string) bool {
	_, ok := w.state.Inflows[name]
	return ok || w.anchors[name] || w.view.Coin != nil && w.view.Coin(name)
}

// Limits bound one step.
type Limits struct {
	Start uint64 // first height of interest
	Steps uint64 // blocks read per step; a rescan has as many again
	Chunk uint64 // blocks per Read

	// Longest: a branch is better only if it has more blocks. Work of a few
	// blocks is counted so on Bitcoin; elsewhere votes count.
	Longest bool
	// Fits says why a block cannot follow its parent, as far as headers tell;
	// nil: not asked.
	Fits func(parent, child Block) error
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
	if len(s.CoinBytes)%coinSize != 0 {
		return nil, fmt.Errorf("%w: coins of %d bytes", chains.ErrCursor, len(s.CoinBytes))
	}
	s.Coins = Coins{packed: s.CoinBytes}
	s.InflowList, s.SpendList, s.CoinBytes = nil, nil, nil
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
	out.CoinBytes = s.Coins.packed
	return ledger.Marshal(out)
}

// Again is chains.Chain's Rescan, for every adapter.
func Again(c chains.Cursor, chain string, start, height uint64) (chains.Cursor, error) {
	s, err := Load(c, chain, start)
	if err != nil {
		return c, err
	}
	s.Look(max(start, height), true)
	return s.Cursor(), nil
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
	if err := s.unwind(ctx, src, best, lim); err != nil {
		return 0, err
	}
	s.admit(v, lim.Start)
	w := s.Want(v)
	if err := s.advance(ctx, w, src, best, lim); err != nil {
		return 0, err
	}
	if err := s.rescan(ctx, w, src, lim); err != nil {
		return 0, fmt.Errorf("rescan: %w", err)
	}
	if n := max(len(s.Inflows)+len(s.Spends), s.Coins.Len()); n > maxEvents {
		return 0, fmt.Errorf("%w: %d, at most %d", chains.ErrPicture, n, maxEvents)
	}
	if best+1 > s.Next {
		behind = best + 1 - s.Next
	}
	return behind, nil
}

// unwind drops what left the best chain. A node that only forgot blocks has no
// better chain to show.
func (s *State) unwind(ctx context.Context, src Source, best uint64, lim Limits) error {
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
	if keep == len(s.Blocks) {
		return nil
	}
	first := s.Blocks[0].Height
	fork := first + uint64(keep)
	if best < fork || lim.Longest && best < s.Next {
		return fmt.Errorf("%w: its best is %d, ours %d", chains.ErrBehind, best, s.Next-1)
	}
	if keep == 0 && first != lim.Start {
		return fmt.Errorf("%w: none of our blocks %d to %d is in it", chains.ErrDeepFork, first, s.Next-1)
	}
	if fork <= s.Final {
		return fmt.Errorf("%w: at %d, which was final up to %d", chains.ErrDeepFork, fork, s.Final)
	}
	s.Blocks = s.Blocks[:keep]
	s.Next = fork
	gone := func(height uint64) bool { return height >= s.Next }
	maps.DeleteFunc(s.Inflows, func(_ string, f ledger.InflowFact) bool { return gone(f.Height) })
	maps.DeleteFunc(s.Spends, func(_ string, p Spend) bool { return gone(p.Height) })
	s.Coins.unwind(s.Next)
	s.Ignored = slices.DeleteFunc(s.Ignored, func(i Ignored) bool { return gone(i.Height) })
	return nil
}

// admit asks for a rescan where blocks that may matter were read without an
// address. A ledger behind the one of the last step is believed: what it has
// not heard of is not looked for, and is new again later.
func (s *State) admit(v chains.View, start uint64) {
	if v.Watched == nil {
		s.Known = 0
		return
	}
	first := ^uint64(0)
	for n := s.Known; n < v.Watched.Registered(); n++ {
		addr, ok := v.Watched.Number(n)
		if from, watched := v.Watched.From(addr); ok && watched {
			first = min(first, max(start, from-min(from, Window)))
		}
	}
	s.Known = v.Watched.Registered()
	s.Look(first, false)
}

// Look asks for a rescan of what was read from the height first on; early: for
// coins at any distance before their address was registered.
func (s *State) Look(first uint64, early bool) {
	switch {
	case first >= s.Next:
	case s.Rescan == nil:
		s.Rescan = &Rescan{First: first, Upto: s.Next, Early: early}
		if head, ok := s.Head(); ok {
			s.Rescan.Hash = head.Hash
		}
	case s.Waiting == nil:
		s.Waiting = &Rescan{First: first, Early: early}
	default:
		s.Waiting = &Rescan{First: min(first, s.Waiting.First), Early: early || s.Waiting.Early}
	}
}

func (s *State) advance(ctx context.Context, w Want, src Source, best uint64, lim Limits) error {
	for left := lim.Steps; left > 0 && s.Next <= best; {
		n := min(left, lim.Chunk, best+1-s.Next)
		found, err := read(ctx, w, src, s.Next, s.Next+n-1)
		if err != nil {
			return err
		}
		for _, f := range found {
			parent, ok := s.Head()
			switch {
			case ok && f.Parent != parent.Hash:
				// The chain may move while it is read: nothing is kept, the
				// next step finds the fork.
				return fmt.Errorf("block %d: best chain moved while reading", f.Height)
			case ok && lim.Fits != nil:
				if err := lim.Fits(parent, f.Block); err != nil {
					return fmt.Errorf("%w: block %d: %w", chains.ErrEndpoint, f.Height, err)
				}
			}
			s.Blocks = append(s.Blocks, f.Block)
			s.Next++
			s.add(f)
		}
		left -= n
	}
	return nil
}

func (s *State) rescan(ctx context.Context, w Want, src Source, lim Limits) error {
	for left := lim.Steps; left > 0 && s.Rescan != nil && len(s.Blocks) > 0; {
		r := *s.Rescan
		r.Upto = min(r.Upto, s.Next) // what a fork took was read anew, with all addresses
		if r.Upto <= r.First {
			next := s.Waiting
			s.Rescan, s.Waiting = nil, nil
			if next != nil {
				s.Look(next.First, next.Early)
			}
			continue
		}
		w.early = r.Early
		n := min(left, lim.Chunk, r.Upto-r.First)
		found, err := read(ctx, w, src, r.Upto-n, r.Upto-1)
		if err != nil {
			return err
		}
		if ours := s.Hash(r.Upto - 1); ours != "" {
			r.Hash = ours
		}
		for i := len(found) - 1; i >= 0; i-- {
			if found[i].Hash != r.Hash {
				if found[i].Height >= s.Blocks[0].Height {
					return fmt.Errorf("block %d: best chain moved while reading", found[i].Height)
				}
				return fmt.Errorf("%w: block %d is %s, and %s is in our chain", chains.ErrEndpoint, found[i].Height, found[i].Hash, r.Hash)
			}
			r.Hash = found[i].Parent
		}
		for _, f := range found {
			s.add(f)
		}
		r.Upto -= n
		s.Rescan = &r
		left -= n
	}
	return nil
}

// again is how many blocks are still to be read again.
func (s *State) again() (n uint64) {
	if r := s.Rescan; r != nil && r.Upto > r.First {
		n = r.Upto - r.First
	}
	if r := s.Waiting; r != nil && s.Next > r.First {
		n += s.Next - r.First
	}
	return n
}

// low is the lowest height that is still to be read again.
func (s *State) low() uint64 {
	low := uint64(none)
	for _, r := range []*Rescan{s.Rescan, s.Waiting} {
		if r != nil {
			low = min(low, r.First)
		}
	}
	return low
}

// read fetches blocks and checks that they are as many as were asked for.
func read(ctx context.Context, w Want, src Source, from, to uint64) ([]Found, error) {
	found, err := src.Read(ctx, from, to, w)
	if err != nil {
		return nil, fmt.Errorf("read blocks %d to %d: %w", from, to, err)
	}
	if uint64(len(found)) != to-from+1 {
		return nil, fmt.Errorf("%w: %d blocks for %d to %d", chains.ErrEndpoint, len(found), from, to)
	}
	for i, f := range found {
		if f.Height != from+uint64(i) {
			return nil, fmt.Errorf("%w: block %d for %d", chains.ErrEndpoint, f.Height, from+uint64(i))
		}
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
	for _, k := range f.Coins {
		s.Coins.arrive(k)
	}
	for _, g := range f.Gone {
		s.Coins.spend(g, f.Height, s.low() != none)
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
		if v.Watched == nil {
			return true
		}
		if _, watched := v.Watched.From(f.Address); !watched {
			return true
		}
		return old(f.Height) && v.Counted != nil && v.Counted(id)
	})
	maps.DeleteFunc(s.Spends, func(_ string, p Spend) bool { return old(p.Height) && !open(p) })
	s.Coins.prune(head.Height, s.low())
	s.Ignored = slices.DeleteFunc(s.Ignored, func(i Ignored) bool { return old(i.Height) })
	first := head.Height - min(head.Height, Window)
	first = max(min(first, keep), head.Height-min(head.Height, maxWindow))
	s.Blocks = slices.DeleteFunc(s.Blocks, func(b Block) bool { return b.Height < first })
}

// Observe is the part of the picture that is alike on every chain.
func (s *State) Observe(chain string, behind uint64) chains.Observations {
	o := chains.Observations{Behind: behind, Again: s.again(), Blocks: make(map[uint64]string, len(s.Blocks))}
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
