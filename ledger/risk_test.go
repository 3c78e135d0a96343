package ledger

import (
	"fmt"
	"slices"
	"testing"

	"github.com/coffer-network/coffer/ledger/fixed"
	"pgregory.net/rapid"
)

// walked is what unhealthy must return: everybody, weighed.
func walked(s *State) (ids []AccountID) {
	for id, a := range s.Accounts.all() {
		if h, code := s.weighAccount(a, asClosed); a.indebted() && code == OK && !h.Healthy() {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// checkMarks: the entries of risk are those of the rows, none more, and who
// waits is known.
func checkMarks(s *State) error {
	b := s.Accounts.folded().book
	if b == nil || b.unset {
		return nil
	}
	n := 0
	for key, row := range b.rows.from("") {
		for _, m := range marksOf(row) {
			if _, ok := b.risk.get(riskKey(m, key)); !ok {
				return fmt.Errorf("account %s: its mark %v is in no list", keyAccount(key), m)
			}
			n++
		}
		if waits(row) && !slices.Contains(b.fresh, key) {
			return fmt.Errorf("account %s waits for nothing", keyAccount(key))
		}
	}
	if n != b.risk.n {
		return fmt.Errorf("%d marks listed, %d set", b.risk.n, n)
	}
	return nil
}

// Whoever is below HF 1 is found, whatever happened since he was weighed: the
// finder against a walk over everybody.
func TestFinderIsComplete(t *testing.T) {
	pools := []string{"btc", "eth", "usdc", "usdt.eth"}
	var found, weighedCount, steps int
	run := func(r *rapid.T) {
		s := lendingState(t)
		s.Genesis.Assets = append(s.Genesis.Assets, AssetParam{ID: "usdc", Decimals: 6, Chain: "eth", Stable: true})
		usdc := s.Pools.at("usdt.eth")
		usdc.Param.Asset = "usdc"
		s.Pools.put("usdc", usdc)
		price(s, "usdc", "100000000")
		unit := map[string]uint64{"btc": 2_000, "eth": 333_000_000_000_000, "usdc": 1_000_000, "usdt.eth": 1_000_000} // about a USD
		s.Params.UnfinalCounts = rapid.Bool().Draw(r, "unfinal counts")
		for _, p := range pools {
			q := s.Pools.at(p)
			q.Param.SameAsset, q.Param.MinBorrow, q.Param.MinSupply, q.Param.MinWithdraw = true, fixed.New(1), fixed.New(1), fixed.New(1)
			q.SupplyIndex = n(rapid.SampledFrom([]string{"1000000000000000000000000000", "1000000000000000000000000001", "1267650600228229401496703205376"}).Draw(r, "index"))
			s.Pools.put(p, q)
			if _, code := s.supply("whale", p, fixed.New(unit[p]*1_000_000)); code != OK {
				r.Fatal(code)
			}
		}
		users := []AccountID{scaleID(0), scaleID(1), scaleID(2), "a", "b", "c", "d"}
		for range rapid.IntRange(20, 80).Draw(r, "steps") {
			w := s.View()
			who, pool := rapid.SampledFrom(users).Draw(r, "who"), rapid.SampledFrom(pools).Draw(r, "pool")
			amount := fixed.New(rapid.OneOf(rapid.SampledFrom([]uint64{1, 2, 3, 7}), rapid.Uint64Range(1, unit[pool]*2_000)).Draw(r, "amount"))
			dt := rapid.SampledFrom([]uint64{0, 0, 15, 3600, 86_400, 30 * 86_400}).Draw(r, "dt")
			w.Millis += dt * 1000
			for _, p := range pools {
				at := w.Prices.at(p)
				at.Millis = w.Millis
				w.Prices.put(p, at)
			}
			w.sync()
			code := OK
			switch rapid.SampledFrom([]string{"supply", "supply", "most", "most", "borrow", "repay", "withdraw", "withdraw most", "price", "price", "price", "socialise", "lt", "unfinal", "tip", "pruned", "restore", "liquidate", "params"}).Draw(r, "op") {
			case "supply":
				_, code = w.supply(who, pool, amount)
			case "unfinal":
				_, code = w.supply(who, "btc", amount)
				a := w.addUnfinal(w.Accounts.at(who), Inflow{Asset: "btc", Chain: "btc", Height: w.Tips.at("btc").Height + 1}, amount)
				a.ID = who
				w.Accounts.put(who, a)
			case "tip":
				w.Tips.put("btc", ChainTip{Height: w.Tips.at("btc").Height + 3})
			case "borrow":
				code = borrows(who, pool, amount.String())(w)
			case "most":
				if most := w.MaxBorrow(who, pool); !most.IsZero() {
					code = borrows(who, pool, most.String())(w)
				}
			case "repay":
				_, code = w.repay(who, pool, amount)
			case "withdraw most":
				if most := w.MaxWithdraw(who, pool); !most.IsZero() {
					code = withdraws(who, pool, most.String())(w)
				}
			case "withdraw":
				code = withdraws(who, pool, amount.String())(w)
			case "price":
				p := w.Prices.at(pool)
				pct := fixed.New(rapid.SampledFrom([]uint64{1, 200, 5_000, 9_000, 9_900, 9_990, 9_999, 10_001, 10_100, 11_000, 20_000, 900_000}).Draw(r, "pct"))
				p.Low = must(fixed.MulDivCeil(p.Low, pct, fixed.Bps)).Min(n("100000000000000000"))
				p.High = p.Low
				if rapid.Bool().Draw(r, "spread") {
					p.High = must(fixed.MulDivCeil(p.Low, fixed.New(10_050), fixed.Bps))
				}
				w.Prices.put(pool, p)
			case "socialise":
				p := w.Pools.at(pool)
				p.Deficit = must(fixed.MulDivFloor(p.SupplyShares, fixed.New(rapid.SampledFrom([]uint64{100, 7_000}).Draw(r, "loss")), fixed.Bps))
				w.Pools.put(pool, p)
				code = w.socialise(pool)
			case "lt":
				p := w.Pools.at(pool).Param
				p.LT = rapid.SampledFrom([]uint64{0, 5_000, 8_000, 8_500}).Draw(r, "lt")
				p.LTV = p.LT
				code = w.setPool(pool, poolChange{Param: &p})
			case "params":
				w.Params.UnfinalCounts = !w.Params.UnfinalCounts
			case "liquidate":
				if ids := walked(w); len(ids) > 0 {
					for _, coll := range w.Accounts.at(ids[0]).Positions {
						_, code = w.View().liquidate("whale", ids[0], w.Accounts.at(ids[0]).owes(), coll.Pool, fixed.Max)
						if code == OK {
							_, code = w.liquidate("whale", ids[0], w.Accounts.at(ids[0]).owes(), coll.Pool, fixed.Max)
							break
						}
					}
				}
			case "pruned":
				if !w.Accounts.at(who).indebted() && len(w.Accounts.at(who).Positions) == 0 {
					w.Accounts.delete(who)
				}
			case "restore":
				var back State
				if err := Unmarshal(Marshal(w), &back); err != nil {
					r.Fatal(err)
				}
				w = &back
			}
			if code != OK {
				continue
			}
			w.refreshRates()
			s = w
			if rapid.IntRange(0, 2).Draw(r, "search") == 0 {
				continue // so that much happens between two searches
			}
			want := walked(s)
			if got := s.unhealthy(); !slices.Equal(got, want) {
				r.Fatalf("found %v, below HF 1 are %v", got, want)
			}
			if again := s.unhealthy(); !slices.Equal(again, want) {
				r.Fatalf("found %v at once again, below HF 1 are %v", again, want)
			}
			if err := checkMarks(s); err != nil {
				r.Fatal(err)
			}
			found += len(want)
			steps++
			f := newFinder(s)
			weighedCount += len(f.candidates())
		}
	}
	rapid.Check(t, run)
	if found == 0 || steps == 0 {
		t.Fatal("nobody was ever below HF 1: the test proves nothing")
	}
	t.Logf("%d searches, %d found, %d candidates", steps, found, weighedCount)
}

// What is searched grows with who can be affected: one asset of many moves.
func TestFinderLooksAtFew(t *testing.T) {
	s, _ := scaleState(t, 3_000)
	if got := s.unhealthy(); len(got) != 0 {
		t.Fatalf("%d below HF 1 at the beginning", len(got))
	}
	if n := len(newFinder(s).candidates()); n > 30 { // those within a tenth of a per cent
		t.Errorf("%d candidates while nothing has moved", n)
	}
	for _, move := range []struct {
		bps  uint64
		most int
	}{{9_999, 40}, {9_990, 50}, {9_800, 150}, {10_100, 10_000}} {
		p := s.Prices.at("btc")
		p.Low = must(fixed.MulDivCeil(p.Low, fixed.New(move.bps), fixed.Bps))
		p.High = p.Low
		s.Prices.put("btc", p)
		n := len(newFinder(s).candidates())
		got := s.unhealthy()
		if want := walked(s); !slices.Equal(got, want) {
			t.Fatalf("found %d of %d", len(got), len(want))
		}
		if n > move.most || n < len(got) {
			t.Errorf("BTC at %d bps: %d candidates, %d found, want at most %d candidates", move.bps, n, len(got), move.most)
		}
	}
}

// A command that reads an account, searches, and writes it puts it beside the
// marks that the search gave it. Seen red with a fold that keeps what was only
// read, whose marks are of before.
func TestMarksOfAnAccountReadBefore(t *testing.T) {
	s, _ := scaleState(t, 300)
	s.markAll()
	x := &execution{s: s}
	var before moment
	x.begin(&before)
	marks := func(key string) string {
		row, _ := x.s.Accounts.book.rows.get(key)
		return marksHead(row)
	}
	moved := 0
	for range 40 {
		p := x.s.Prices.at("btc")
		p.Low = must(fixed.MulDivFloor(p.Low, fixed.New(9_950), fixed.Bps))
		p.High = p.Low
		x.s.Prices.put("btc", p)
		for _, key := range newFinder(x.s).candidates() {
			before, a := marks(key), x.s.Accounts.at(keyAccount(key))
			x.s.unhealthy()
			if marks(key) != before {
				moved++
			}
			a.Nonce++
			x.s.Accounts.put(a.ID, a)
			if err := checkMarks(x.s); err != nil {
				t.Fatal(err)
			}
		}
	}
	if moved == 0 {
		t.Fatal("no mark of an account that was read moved: the test proves nothing")
	}
	x.keep(&before)
	s.Accounts.fold()
	if err := checkMarks(s); err != nil {
		t.Fatal(err)
	}
}
