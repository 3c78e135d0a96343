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
	v := chains.View{Watched: map[string]uint64{}}
	for i := 0; i < len(addresses); i += 2 {
		v.Watched[addresses[i].(string)] = uint64(addresses[i+1].(int))
	}
	return v
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
		v.Watched[addr] = uint64(len(src.hashes))
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

// From never falls in log order; an address that breaks this is found by the
// count, and everything is read again.
func TestAddressOutOfOrder(t *testing.T) {
	src := newSource(500)
	src.pays[3] = "odd"
	s, _ := Load(nil, "c", 0)
	s = follow(t, s, watch("first", 0, "second", 400), src)
	if s = follow(t, s, watch("first", 0, "second", 400, "odd", 2), src); len(ids(s)) != 1 {
		t.Error("missed")
	}
	// One that goes is no reason to read anything.
	src.reads = 0
	if follow(t, s, watch("second", 400, "odd", 2), src); src.reads != 0 {
		t.Errorf("%d blocks read", src.reads)
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
