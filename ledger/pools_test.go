package ledger

import (
	"fmt"
	"maps"
	"testing"

	"github.com/coffer-network/coffer/ledger/fixed"
	"pgregory.net/rapid"
)

// Pools does what a map does, and its copies stay as they are, though puts are in
// place.
//
// Seen red with a put that looks at mine alone and not at own, with a copy that
// leaves the original its own list, and with a clone of the list that goes on
// calling its rows mine.
func TestPoolsLikeAMap(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		table, model := &Pools{}, map[string]uint64{}
		type copied struct {
			table Pools
			model map[string]uint64
		}
		var copies []copied
		for step := range rapid.IntRange(1, 60).Draw(r, "steps") {
			switch rapid.SampledFrom([]string{"put", "put", "put", "copy", "go on with a copy", "reload"}).Draw(r, "op") {
			case "put":
				id := fmt.Sprint("pool ", rapid.IntRange(0, 9).Draw(r, "id"))
				table.put(id, Pool{Chain: id, LastSync: uint64(step)})
				model[id] = uint64(step)
			case "copy":
				table.share()
				copies = append(copies, copied{*table, maps.Clone(model)})
			case "go on with a copy":
				table.share()
				c := *table
				copies = append(copies, copied{*table, maps.Clone(model)})
				table = &c
			case "reload":
				var back Pools
				if err := Unmarshal(Marshal(*table), &back); err != nil {
					r.Fatal(err)
				}
				table = &back
			}
		}
		for i, c := range append(copies, copied{*table, model}) {
			last, n := "", 0
			for id, p := range c.table.all() {
				if id <= last || p.Chain != id || p.LastSync != c.model[id] || c.table.at(id) != p {
					r.Fatalf("copy %d: %s after %q is %d, want %d", i, id, last, p.LastSync, c.model[id])
				}
				last, n = id, n+1
			}
			if n != len(c.model) || c.table.len() != n || len(c.table.keys()) != n || c.table.has("pool") {
				r.Fatalf("copy %d: %d pools, want %d", i, n, len(c.model))
			}
		}
	})
	var back Pools
	for name, list := range map[string][]row[string, *Pool]{
		"out of order": {{K: "b", V: &Pool{}}, {K: "a", V: &Pool{}}},
		"doubled":      {{K: "a", V: &Pool{}}, {K: "a", V: &Pool{}}},
		"no pool":      {{K: "a"}},
	} {
		if err := back.UnmarshalCBOR(Marshal(list)); err == nil {
			t.Errorf("%s: read as pools", name)
		}
	}
}

// Rates follow each write of a pool, though the next is in place of the last.
// Seen red with a put that leaves a pool rated.
func TestRatesFollowEachWrite(t *testing.T) {
	s, _ := scaleState(t, 20)
	for i := range uint64(4) {
		p := s.Pools.at("btc")
		p.Cash = must(fixed.Add(p.Cash, fixed.New(1_000_000*(i+1))))
		s.Pools.put("btc", p)
		if code := s.refreshRates(); code != OK {
			t.Fatal(code)
		}
		p = s.Pools.at("btc")
		if borrow, supply, err := p.rates(); err != nil || p.BorrowRate != borrow || p.SupplyRate != supply {
			t.Fatalf("write %d: rates %s and %s, should be %s and %s, %v", i, p.BorrowRate, p.SupplyRate, borrow, supply, err)
		}
	}
}
