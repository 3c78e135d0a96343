package ledger

import (
	"slices"
	"strings"
	"testing"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
	"pgregory.net/rapid"
)

// reads is what a chain's Reads gives for a plan that was built as it stands.
func reads(c *cluster, b Batch) (spends []string, pays []Payment) {
	a := b.Newest()
	if tx := a.Bitcoin; tx != nil {
		for _, in := range tx.Inputs {
			spends = append(spends, in.Outpoint)
		}
		for _, out := range tx.Outputs {
			pays = append(pays, Payment{Asset: "btc", To: out.Address, Amount: fixed.New(out.Sats)})
		}
		return spends, pays
	}
	o := c.s.Outflows.at(b.Outflows[0])
	return []string{b.Anchor}, []Payment{{Asset: o.Asset, To: o.To, Amount: o.Net}}
}

// spending is a cluster with one batch of each chain, the Bitcoin one of
// several inputs with a further coin left over.
func spending(t testing.TB) (c *cluster, btc, eth Batch) {
	t.Helper()
	c, _, w := lent(t)
	id := accountOf(c, w)
	for range 3 {
		c.deposit(id, "btc", PurposeSupply, "30000000")
	}
	c.deposit(id, "btc", PurposeSupply, "1000000")
	c.refresh()
	if code := c.ask(w, c.payout(address.ActionWithdraw, "btc", "150000000", payeeBTC(1), "10000")); code != OK {
		t.Fatal(code)
	}
	if code := c.ask(w, c.borrowUSDT("1000000000")); code != OK {
		t.Fatal(code)
	}
	c.tick(1000)
	for _, b := range c.payments() {
		if b.Chain == Bitcoin {
			btc = b
		} else {
			eth = b
		}
	}
	if btc.ID == 0 || eth.ID == 0 || len(btc.Newest().Bitcoin.Inputs) != 3 {
		t.Fatalf("batches %+v and %+v", btc, eth)
	}
	return c, btc, eth
}

// VerifySpend is the only door to a session: what is built as planned passes,
// and whatever is changed about it does not (spec: outflows §1.1).
func TestVerifySpend(t *testing.T) {
	c, btc, eth := spending(t)
	vault, _ := c.s.Vault(Bitcoin, address.RoleMinter)
	spare := ""
	for p, k := range c.s.Coins.all() {
		if k.State == CoinAvailable {
			spare = p
		}
	}
	if spare == "" {
		t.Fatal("no coin is left over")
	}
	type tx struct {
		batch, k uint64
		spends   []string
		pays     []Payment
	}
	last := func(x *tx) *Payment { return &x.pays[len(x.pays)-1] }
	less := func(p *Payment, by uint64) { p.Amount = must(fixed.Sub(p.Amount, fixed.New(by))) }
	mistakes := map[string]func(x *tx, b Batch) bool{ // false: does not apply
		"missing anchor": func(x *tx, b Batch) bool {
			x.spends = slices.DeleteFunc(x.spends, func(s string) bool { return s == b.Anchor })
			return true
		},
		"nothing spent": func(x *tx, _ Batch) bool { x.spends = nil; return true },
		"foreign input": func(x *tx, _ Batch) bool { x.spends = append(x.spends, strings.Repeat("ab", 32)+":0"); return true },
		"our free coin": func(x *tx, b Batch) bool { x.spends = append(x.spends, spare); return true },
		"other sequence": func(x *tx, b Batch) bool {
			x.spends = append(x.spends, EthereumAnchor(c.hot().Address, 7))
			return true
		},
		"doubled input": func(x *tx, _ Batch) bool { x.spends = append(x.spends, x.spends[0]); return true },
		"nothing paid":  func(x *tx, _ Batch) bool { x.pays = nil; return true },
		"payee dropped": func(x *tx, _ Batch) bool { x.pays = x.pays[1:]; return true },
		"payee twice":   func(x *tx, _ Batch) bool { x.pays = append(x.pays, x.pays[0]); return true },
		"extra output": func(x *tx, _ Batch) bool {
			p := Payment{Asset: x.pays[0].Asset, To: payeeBTC(9), Amount: fixed.New(1)}
			x.pays = append(x.pays, p)
			return true
		},
		"another payee": func(x *tx, _ Batch) bool { x.pays[0].To = payeeBTC(9); return true },
		"another asset": func(x *tx, _ Batch) bool { x.pays[0].Asset = "eth"; return true },
		"a unit less":   func(x *tx, _ Batch) bool { less(&x.pays[0], 1); return true },
		"a unit more": func(x *tx, _ Batch) bool {
			x.pays[0].Amount = must(fixed.Add(x.pays[0].Amount, fixed.New(1)))
			return true
		},
		"change elsewhere": func(x *tx, b Batch) bool { last(x).To = payeeBTC(8); return b.Chain == Bitcoin },
		"change dropped":   func(x *tx, b Batch) bool { x.pays = x.pays[:len(x.pays)-1]; return b.Chain == Bitcoin },
		"fee beyond cap": func(x *tx, b Batch) bool {
			less(last(x), 50_000)
			return b.Chain == Bitcoin && last(x).To == vault.Address
		},
		"out above in":     func(x *tx, b Batch) bool { last(x).Amount = n("1000000000000"); return b.Chain == Bitcoin },
		"next attempt":     func(x *tx, _ Batch) bool { x.k++; return true },
		"another batch":    func(x *tx, b Batch) bool { x.batch = btc.ID + eth.ID - b.ID; return true },
		"no batch":         func(x *tx, _ Batch) bool { x.batch = 999; return true },
		"a keygen's batch": func(x *tx, _ Batch) bool { x.batch = 1; return true },
	}
	build := func(b Batch) tx {
		x := tx{batch: b.ID, k: b.Newest().K}
		x.spends, x.pays = reads(c, b)
		return x
	}
	try := func(x tx) error { return c.s.VerifySpend(x.batch, x.k, x.spends, x.pays) }
	for _, b := range []Batch{btc, eth} {
		if err := try(build(b)); err != nil {
			t.Fatalf("%s as planned: %v", b.Chain, err)
		}
		for name, plant := range mistakes {
			x := build(b)
			if plant(&x, b) && try(x) == nil {
				t.Errorf("%s: %s: accepted", b.Chain, name)
			}
		}
	}
	// A mistake in any order of inputs and outputs, and the order itself no mistake.
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SampledFrom([]Batch{btc, eth}).Draw(t, "batch")
		x := build(b)
		name := rapid.SampledFrom(append(sortedNames(mistakes), "none")).Draw(t, "mistake")
		applies := name != "none" && mistakes[name](&x, b)
		if !applies {
			x = build(b)
		}
		x.spends = rapid.Permutation(x.spends).Draw(t, "spends")
		x.pays = rapid.Permutation(x.pays).Draw(t, "pays")
		if err := try(x); applies == (err == nil) {
			t.Fatalf("%s: %v", name, err)
		}
	})
}

func sortedNames[V any](m map[string]V) []string {
	var names []string
	for k := range m {
		names = append(names, k)
	}
	slices.Sort(names)
	return names
}

// The door is shut when the ledger's state says so, whatever the bytes.
func TestVerifySpendByState(t *testing.T) {
	c, btc, eth := spending(t)
	for _, b := range []Batch{btc, eth} {
		spends, pays := reads(c, b)
		for name, spoil := range map[string]func(*State){
			"halted": func(s *State) { s.OutflowsHalt = "test" },
			"mined": func(s *State) {
				v := &cluster{t: t, s: s, keys: c.keys, seq: 1 << 40}
				v.some(3, KindSpent, v.spentFact(b))
			},
			"paid": func(s *State) {
				v := &cluster{t: t, s: s, keys: c.keys, seq: 1 << 40}
				v.some(3, KindFinal, v.finalFact(b, OutcomePaid))
			},
			"retried": func(s *State) {
				v := &cluster{t: t, s: s, keys: c.keys, seq: 1 << 40}
				v.some(2, KindGaveUp, GaveUp{Batch: b.ID})
				if s.Batches.at(b.ID).Newest().K != 1 {
					t.Fatal("no retry")
				}
			},
			"held": func(s *State) {
				x := &execution{s: s}
				x.hold(s.Batches.at(b.ID), HeldForeign, 1, "test")
				s.OutflowsHalt = ""
			},
			"paid to nothing": func(s *State) {
				o := s.Outflows.at(b.Outflows[0])
				o.Net = fixed.Int{}
				s.Outflows.put(o.ID, o)
			},
			"more than owed": func(s *State) {
				o := s.Outflows.at(b.Outflows[0])
				o.Gross = must(fixed.Sub(o.Net, fixed.New(1)))
				s.Outflows.put(o.ID, o)
			},
			"of another batch": func(s *State) {
				o := s.Outflows.at(b.Outflows[0])
				o.Batch++
				s.Outflows.put(o.ID, o)
			},
		} {
			v := c.s.View()
			if err := v.VerifySpend(b.ID, 0, spends, pays); err != nil {
				t.Fatal(err)
			}
			if spoil(v); v.VerifySpend(b.ID, 0, spends, pays) == nil {
				t.Errorf("%s, %s: accepted", b.Chain, name)
			}
		}
	}
	// A coin is the batch's only while it is frozen by this batch.
	spends, pays := reads(c, btc)
	for name, spoil := range map[string]func(*Coin){
		"let go":           func(k *Coin) { k.State, k.Batch = CoinAvailable, 0 },
		"of another batch": func(k *Coin) { k.Batch++ },
		"suspended":        func(k *Coin) { k.State = CoinSuspended },
		"spent":            func(k *Coin) { k.State = CoinSpent },
	} {
		v := c.s.View()
		k := v.Coins.at(btc.Newest().Bitcoin.Inputs[1].Outpoint)
		spoil(&k)
		v.Coins.put(k.Outpoint, k)
		if v.VerifySpend(btc.ID, 0, spends, pays) == nil {
			t.Errorf("a coin %s: accepted", name)
		}
	}
	// The retry itself passes, with the same bytes.
	c.some(2, KindGaveUp, GaveUp{Batch: btc.ID})
	if err := c.s.VerifySpend(btc.ID, 1, spends, pays); err != nil {
		t.Errorf("the same bytes as attempt 1: %v", err)
	}
}
