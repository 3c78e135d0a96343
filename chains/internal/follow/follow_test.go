package follow

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/coffer-network/coffer/chains"
	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// source is a chain of hashes; pays says who is paid at which height.
type source struct {
	hashes []string
	pays   map[uint64]string
	reads  int
	lie    func([]Found) // what a node does to an answer
}

func newSource(n int) *source {
	s := &source{pays: map[uint64]string{}}
	s.grow(n, "a")
	return s
}

func (s *source) grow(n int, branch string) {
	for range n {
		s.hashes = append(s.hashes, fmt.Sprintf("%s%d", branch, len(s.hashes)))
	}
}

// fork replaces the last depth blocks by one more of another branch.
func (s *source) fork(depth int, branch string) {
	s.hashes = s.hashes[:len(s.hashes)-depth]
	s.grow(depth+1, branch)
}

func (s *source) Best(context.Context) (uint64, error) { return uint64(len(s.hashes) - 1), nil }

func (s *source) HashAt(_ context.Context, h uint64) (string, error) { return s.hashes[h], nil }

func (s *source) Read(_ context.Context, from, to uint64, w Want) ([]Found, error) {
	var out []Found
	for h := from; h <= to; h++ {
		s.reads++
		f := Found{Block: Block{Height: h, Hash: s.hashes[h]}}
		if h > 0 {
			f.Parent = s.hashes[h-1]
		}
		if addr := s.pays[h]; w.Address(addr, h) {
			f.Inflows = append(f.Inflows, ledger.InflowFact{ID: fmt.Sprintf("%s@%d", addr, h), Address: addr, Height: h, Block: f.Hash, Amount: fixed.New(1)})
		}
		out = append(out, f)
	}
	if s.lie != nil {
		s.lie(out)
	}
	return out, nil
}

var limits = Limits{Steps: 50, Chunk: 10}

// follow steps until nothing is left to do, each time through a cursor.
func follow(t *testing.T, s *State, v chains.View, src Source) *State {
	t.Helper()
	for range 50 {
		s = step(t, s, v, src)
		if best, _ := src.Best(t.Context()); s.Next == best+1 && s.Rescan == nil {
			return s
		}
	}
	t.Fatalf("no end: next %d, rescan %v, waiting %v", s.Next, s.Rescan, s.Waiting)
	return nil
}

func step(t *testing.T, s *State, v chains.View, src Source) *State {
	t.Helper()
	if _, err := s.Step(t.Context(), v, src, limits); err != nil {
		t.Fatal(err)
	}
	s.Prune(v, s.Next, func(Spend) bool { return false })
	again, err := Load(s.Cursor(), "c", 0)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(again.Cursor(), s.Cursor()) {
		t.Fatal("a cursor does not survive being read")
	}
	return again
}

func watch(addresses ...any) chains.View {
	list := chains.Watch(nil)
	for i := 0; i < len(addresses); i += 2 {
		list.Add(addresses[i].(string), uint64(addresses[i+1].(int)))
	}
	return chains.View{Watched: list}
}

func ids(s *State) []string {
	var out []string
	for _, seen := range s.Observe("c", 0).Inflows {
		out = append(out, seen.Fact.ID)
	}
	return out
}

// "walk headers back until a hash equals ours (> 144 back: halt, alarm)".
func TestDeepFork(t *testing.T) {
	for depth, want := range map[int]error{1: nil, Window: nil, Window + 1: chains.ErrDeepFork} {
		src := newSource(400)
		src.pays[399] = "a"
		v := watch("a", 0)
		s, _ := Load(nil, "c", 0)
		s = follow(t, s, v, src)
		if len(ids(s)) != 1 {
			t.Fatal("inflow not seen")
		}
		src.fork(depth, "b")
		delete(src.pays, 399)
		_, err := s.Step(t.Context(), v, src, Limits{Steps: 500, Chunk: 10})
		if !errors.Is(err, want) {
			t.Errorf("depth %d: %v", depth, err)
		}
		if err == nil && (len(ids(s)) != 0 || s.Hash(400) != "b400") {
			t.Errorf("depth %d: inflows %v, head %s", depth, ids(s), s.Hash(400))
		}
	}
}

// A fork below what was final is refused though it is within the window; one
// above is followed.
func TestForkBelowFinal(t *testing.T) {
	src := newSource(50)
	s, _ := Load(nil, "c", 0)
	s = follow(t, s, watch(), src)
	s.Final = 40
	src.fork(9, "b") // 41 to 49
	if _, err := s.Step(t.Context(), watch(), src, limits); err != nil {
		t.Fatalf("above: %v", err)
	}
	src.fork(11, "c") // 40 to 50
	if _, err := s.Step(t.Context(), watch(), src, limits); !errors.Is(err, chains.ErrDeepFork) {
		t.Errorf("below: %v", err)
	}
}

// Where nothing below was ever read, there is nothing to fork from.
func TestForkBeforeStart(t *testing.T) {
	src := newSource(20)
	lim := Limits{Start: 15, Steps: 50, Chunk: 10}
	s, _ := Load(nil, "c", lim.Start)
	for _, branch := range []string{"b", "c"} {
		if _, err := s.Step(t.Context(), watch(), src, lim); err != nil {
			t.Fatal(err)
		}
		src.fork(10, branch)
	}
	if _, err := s.Step(t.Context(), watch(), src, lim); err != nil || s.Hash(15) != "c15" {
		t.Errorf("first block %s, %v", s.Hash(15), err)
	}
}

// A chain that moves while it is read leaves no trace; an answer that is not
// what was asked for neither.
func TestAnswersThatDoNotFit(t *testing.T) {
	for what, lie := range map[string]func([]Found){
		"another branch": func(f []Found) { f[len(f)-1].Parent = "x" },
		"another height": func(f []Found) { f[0].Height++ },
	} {
		src := newSource(30)
		s, _ := Load(nil, "c", 0)
		s = follow(t, s, watch(), src)
		before := s.Cursor()
		src.grow(5, "a")
		src.lie = lie
		if _, err := s.Step(t.Context(), watch(), src, limits); err == nil {
			t.Errorf("%s: taken", what)
		}
		src.lie = nil
		again, err := Load(before, "c", 0)
		if err != nil {
			t.Fatal(err)
		}
		if follow(t, again, watch(), src).Hash(34) != "a34" {
			t.Errorf("%s: the old cursor is not good any more", what)
		}
	}
}

// "every node rescans it from 144 blocks before that height", and no further:
// members that knew the address from the start see the same.
func TestRescanWindow(t *testing.T) {
	src := newSource(600)
	for _, h := range []uint64{355, 356, 499, 599} {
		src.pays[h] = "late"
	}
	early, _ := Load(nil, "c", 0)
	early = follow(t, early, watch("first", 0, "late", 500), src)
	s, _ := Load(nil, "c", 0)
	s = follow(t, s, watch("first", 0), src)
	src.reads = 0
	s = follow(t, s, watch("first", 0, "late", 500), src)
	want := []string{"late@356", "late@499", "late@599"}
	if !slices.Equal(ids(s), want) || !slices.Equal(ids(early), want) {
		t.Errorf("late %v, early %v, want %v", ids(s), ids(early), want)
	}
	if src.reads != 600-356 {
		t.Errorf("%d blocks read again", src.reads)
	}
	src.reads = 0
	if follow(t, s, watch("first", 0, "late", 500), src); src.reads != 0 {
		t.Errorf("%d blocks read a third time", src.reads)
	}
}

// New addresses at every step do not keep the rescan of an older one from
// ending, and none is missed.
func TestRescanIsNotStarved(t *testing.T) {
	src := newSource(300)
	s, _ := Load(nil, "c", 0)
	v := watch("first", 0)
	s = follow(t, s, v, src)
	for i := range 40 {
		addr := fmt.Sprintf("n%d", i)
		src.pays[uint64(len(src.hashes)-1)] = addr
		s = step(t, s, v, src) // reads that block
		v.Watched.(*chains.WatchList).Add(addr, uint64(len(src.hashes)))
		s = step(t, s, v, src)
		src.grow(1, "a")
	}
	if len(ids(s)) < 20 {
		t.Errorf("only %d inflows seen on the way", len(ids(s)))
	}
	if s = follow(t, s, v, src); len(ids(s)) != 40 {
		t.Errorf("%d of 40 inflows", len(ids(s)))
	}
}

// An address that is registered late with an old height is looked for from
// there; one that goes is no reason to read anything, and its number stays.
func TestAddressOutOfOrder(t *testing.T) {
	src := newSource(500)
	src.pays[3] = "odd"
	s, _ := Load(nil, "c", 0)
	v := watch("first", 0, "second", 400)
	s = follow(t, s, v, src)
	list := v.Watched.(*chains.WatchList)
	list.Add("odd", 2)
	if s = follow(t, s, v, src); len(ids(s)) != 1 {
		t.Error("missed")
	}
	src.reads = 0
	list.Remove("first")
	if s = follow(t, s, v, src); src.reads != 0 {
		t.Errorf("%d blocks read", src.reads)
	}
	src.pays[450] = "fourth"
	list.Add("fourth", 500)
	if s = follow(t, s, v, src); len(ids(s)) != 2 {
		t.Errorf("%v", ids(s))
	}
}

// A ledger that is behind the last step's, as after a restart, does not make
// the follower take addresses for known that it did not ask the blocks for.
func TestLedgerFallsBack(t *testing.T) {
	src := newSource(300)
	s, _ := Load(nil, "c", 0)
	s = follow(t, s, watch("first", 0, "second", 290), src)
	src.pays[305] = "second"
	src.grow(10, "a")
	s = follow(t, s, watch("first", 0), src)
	if s = follow(t, s, watch("first", 0, "second", 290), src); !slices.Equal(ids(s), []string{"second@305"}) {
		t.Errorf("%v", ids(s))
	}
}

// "still earlier coins are found by rescan(height) by operators": and by
// nothing else, down to the height and no further; over a fork and restarts.
func TestRescanByOperator(t *testing.T) {
	src := newSource(600)
	for _, h := range []uint64{50, 100, 400, 500} {
		src.pays[h] = "a"
	}
	v := watch("a", 500)
	s, _ := Load(nil, "c", 0)
	if s = follow(t, s, v, src); !slices.Equal(ids(s), []string{"a@400", "a@500"}) {
		t.Fatalf("%v", ids(s))
	}
	c, err := Again(s.Cursor(), "c", 0, 60)
	if err != nil {
		t.Fatal(err)
	}
	if s, err = Load(c, "c", 0); err != nil {
		t.Fatal(err)
	}
	if got := s.Observe("c", 0).Again; got != 540 {
		t.Errorf("%d blocks to be read again, want 540", got)
	}
	s = step(t, s, v, src)
	src.fork(110, "b") // below where the rescan stands
	src.pays[500], src.pays[560] = "", "a"
	if s = follow(t, s, v, src); !slices.Equal(ids(s), []string{"a@100", "a@400", "a@560"}) {
		t.Errorf("%v", ids(s))
	}
	if got := s.Observe("c", 0).Again; got != 0 {
		t.Errorf("%d blocks left", got)
	}
	if _, err := Again([]byte{1}, "c", 0, 60); !errors.Is(err, chains.ErrCursor) {
		t.Errorf("garbage: %v", err)
	}
}

// A block far below the window is taken only if our chain goes through it: a
// node cannot slip in another that is as good by itself.
func TestRescanTakesOnlyOurChain(t *testing.T) {
	src := newSource(600)
	src.pays[100] = "a"
	v := watch("a", 500)
	s, _ := Load(nil, "c", 0)
	s = follow(t, s, v, src)
	s.Look(60, true)
	src.lie = func(f []Found) {
		for i := range f {
			if f[i].Height == 100 {
				f[i].Hash = "x100"
			}
		}
	}
	var err error
	for range 20 {
		if _, err = s.Step(t.Context(), v, src, limits); err != nil {
			break
		}
		s.Prune(v, s.Next, func(Spend) bool { return false })
	}
	if !errors.Is(err, chains.ErrEndpoint) || len(ids(s)) != 0 {
		t.Errorf("%v, %v", ids(s), err)
	}
}

// A node that forgot blocks, or is behind another that was asked before, takes
// nothing out of the picture; a better branch does.
func TestNodeFallsBack(t *testing.T) {
	src := newSource(50)
	src.pays[48] = "a"
	v := watch("a", 0)
	s, _ := Load(nil, "c", 0)
	s = follow(t, s, v, src)
	longest := limits
	longest.Longest = true
	hashes := slices.Clone(src.hashes)
	refused := func(what string, lim Limits) {
		t.Helper()
		if _, err := s.Step(t.Context(), v, src, lim); !errors.Is(err, chains.ErrBehind) || len(ids(s)) != 1 || s.Next != 50 {
			t.Errorf("%s: %v, inflows %v, next %d", what, err, ids(s), s.Next)
		}
	}
	src.hashes = slices.Clone(hashes[:45])
	refused("stale", limits)
	src.fork(5, "b") // 40 to 45
	refused("a shorter branch", longest)
	src.hashes = slices.Clone(hashes)
	src.hashes = src.hashes[:49]
	src.grow(1, "b")
	refused("a branch as long", longest)
	src.grow(1, "b")
	src.pays[48] = ""
	if _, err := s.Step(t.Context(), v, src, longest); err != nil || s.Hash(50) != "b50" {
		t.Errorf("a longer branch: %v, %s", err, s.Hash(50))
	}
	// Where votes decide, a branch may be shorter.
	src.fork(9, "c")
	src.hashes = src.hashes[:45]
	if _, err := s.Step(t.Context(), v, src, limits); err != nil || s.Hash(44) != "c44" {
		t.Errorf("a shorter branch by votes: %v, %s", err, s.Hash(44))
	}
}

// A block whose target does not follow from its parent's is no block of ours.
func TestFits(t *testing.T) {
	src := newSource(30)
	lim := limits
	lim.Fits = func(parent, child Block) error {
		if child.Height == parent.Height+1 && child.Height == 20 {
			return errors.New("too easy")
		}
		return nil
	}
	s, _ := Load(nil, "c", 0)
	if _, err := s.Step(t.Context(), watch(), src, lim); !errors.Is(err, chains.ErrEndpoint) {
		t.Errorf("%v", err)
	}
}

// What is counted is shown until it is deep, what is not for ever.
func TestPrune(t *testing.T) {
	src := newSource(10)
	src.pays[5], src.pays[6] = "a", "b"
	v := watch("a", 0, "b", 0)
	v.Counted = func(id string) bool { return id == "a@5" }
	s, _ := Load(nil, "c", 0)
	s = follow(t, s, v, src)
	src.grow(Window-4, "a") // head at 149: a@5 is Window deep
	if s = follow(t, s, v, src); len(ids(s)) != 2 {
		t.Errorf("%v while a fork could still undo them", ids(s))
	}
	src.grow(1, "a")
	if s = follow(t, s, v, src); !slices.Equal(ids(s), []string{"b@6"}) {
		t.Errorf("%v", ids(s))
	}
	if n := len(s.Blocks); n != Window+1 {
		t.Errorf("%d blocks kept", n)
	}
	if s = follow(t, s, watch("a", 0), src); len(ids(s)) != 0 {
		t.Errorf("%v of an address that is not watched any more", ids(s))
	}
}

// No answer for a height outside the picture.
func TestLeft(t *testing.T) {
	src := newSource(3)
	s, _ := Load(nil, "c", 0)
	o := follow(t, s, watch(), src).Observe("c", 0)
	if o.Left(2, "a2") || !o.Left(2, "b2") || o.Left(3, "b3") {
		t.Errorf("blocks %v", o.Blocks)
	}
}

// A batch's retries have the same bytes: the spend is the first one's. Another
// input of a planned transaction is nobody's alarm.
func TestMatch(t *testing.T) {
	s := &State{Next: 3, Blocks: []Block{{Height: 2, Hash: "h"}}, Spends: map[string]Spend{}}
	for name, payload := range map[string]string{"anchor": "p2", "further": "p2", "stolen": "x", "settled": "y"} {
		s.Spends[name] = Spend{Resource: name, Payload: payload, Height: 2}
	}
	v := chains.View{Anchors: []chains.Anchor{{Name: "anchor", Batch: 8, Attempts: []ledger.Attempt{{K: 5, M: 2}, {K: 4, M: 2}, {K: 3, M: 1}}}}}
	payload := func(a ledger.Attempt) (string, error) { return fmt.Sprintf("p%d", a.M), nil }
	conclude := func(seen *chains.SeenSpend, _ Spend, by *ledger.Attempt) error {
		if seen.Foreign != (by == nil) {
			t.Errorf("%+v by %v", seen, by)
		}
		return nil
	}
	mine := func(p Spend) bool { return p.Resource != "settled" }
	got, err := s.Match(v, payload, conclude, mine)
	if err != nil || len(got) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	if got[0].Anchor != "anchor" || got[0].Batch != 8 || got[0].Attempt != 4 || got[0].Foreign || got[0].Depth != 1 {
		t.Errorf("%+v", got[0])
	}
	if got[1].Anchor != "stolen" || got[1].Batch != 0 || !got[1].Foreign {
		t.Errorf("%+v", got[1])
	}
	fails := errors.New("no payload")
	if _, err := s.Match(v, func(ledger.Attempt) (string, error) { return "", fails }, conclude, mine); !errors.Is(err, fails) {
		t.Errorf("%v", err)
	}
}
