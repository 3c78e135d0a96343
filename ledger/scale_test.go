package ledger

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// The benchmarks of a full ledger (spec: consensus §12): accounts of three
// positions each, spread over every pool, each with one real wallet.
//
//	go test ./ledger -run '^$' -bench Scale          10³, 10⁵ and 10⁶ accounts
//	go test ./ledger -run '^$' -bench Scale -short   10³ and 10⁵

func scaleSizes(b *testing.B) []int {
	if testing.Short() {
		return []int{1_000, 100_000}
	}
	return []int{1_000, 100_000, 1_000_000}
}

// atScale runs f on a filled state of each size.
func atScale(b *testing.B, f func(b *testing.B, s *State, ids []AccountID)) {
	for _, n := range scaleSizes(b) {
		s, ids := scaleOf(b, n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			f(b, s.View(), ids)
		})
	}
}

var filled = map[int]*State{}

// scaleOf is scaleState, filled once for all benchmarks.
func scaleOf(tb testing.TB, count int) (*State, []AccountID) {
	if filled[count] == nil {
		filled[count], _ = scaleState(tb, count)
	}
	ids := make([]AccountID, count)
	for i := range ids {
		ids[i] = scaleID(i)
	}
	return filled[count], ids
}

// scalePools are the pools of spec lending §13 with the prices that the state
// begins at.
var scalePools = []struct {
	id       string
	decimals uint8
	price    string
	lt, ltv  uint64
	bonus    uint64
	stable   bool
}{
	{"btc", 8, "6000000000000", 7400, 6500, 10500, false},
	{"eth", 18, "300000000000", 7400, 6500, 10500, false},
	{"icp", 8, "500000000", 7000, 5000, 10750, false},
	{"sol", 9, "15000000000", 7000, 6000, 10700, false},
	{"usdc.eth", 6, "100000000", 7400, 6500, 10500, true},
	{"usdc.sol", 6, "100000000", 7400, 6500, 10500, true},
	{"usdt.eth", 6, "100000000", 7400, 6500, 10500, true},
}

// dice are numbers that are the same in every run.
type dice struct {
	seed [32]byte
	used int
}

func newDice(what string, i int) dice { return dice{seed: sha256.Sum256(fmt.Append(nil, what, i))} }

func (d *dice) roll(n uint64) uint64 {
	if d.used+8 > len(d.seed) {
		d.seed, d.used = sha256.Sum256(d.seed[:]), 0
	}
	v := binary.BigEndian.Uint64(d.seed[d.used:])
	d.used += 8
	return v % n
}

// scaleState holds count accounts: two collaterals and a debt, or one and two,
// at health factors spread evenly from 1.004 to 3. A whale's supply is what
// they borrow.
func scaleState(tb testing.TB, count int) (*State, []AccountID) {
	tb.Helper()
	s := &State{Millis: 1_700_000_000_000, Params: DefaultParams(), Version: 1, NextOutflow: 1, NextBatch: 1}
	s.Genesis.Chains = []ChainParam{{Name: "btc", Final: 6}, {Name: "eth"}, {Name: "icp"}, {Name: "sol"}}
	for _, p := range scalePools {
		chain := p.id
		if p.stable {
			chain = p.id[len(p.id)-3:]
		}
		a := AssetParam{ID: p.id, Decimals: p.decimals, Chain: chain, Stable: p.stable}
		param := PoolParam{
			Asset: p.id, Base: 100, Opt: 8000, S1: 400, S2: 10000, RF: 1000, LTV: p.ltv, LT: p.lt, Bonus: p.bonus, LiqFee: 1000,
			MinSupply: fixed.New(1), MinBorrow: fixed.New(1), MinWithdraw: fixed.New(1), SameAsset: true,
		}
		if err := param.Validate(); err != nil {
			tb.Fatal(err)
		}
		s.Genesis.Assets, s.Genesis.Pools = append(s.Genesis.Assets, a), append(s.Genesis.Pools, param)
		s.Pools.put(p.id, newPool(param, a, s.Time()))
		price(s, p.id, p.price)
	}
	s.Cluster = s.Genesis.Hash()
	s.Epochs = []Epoch{{}}
	ids := make([]AccountID, count)
	for i := range count {
		s.addScaleAccount(i)
		ids[i] = scaleID(i)
	}
	whale := Account{ID: scaleID(-1), Wallets: []string{scaleWallet(-1)}, Nonce: 1}
	for _, p := range s.Pools.all() { // as much again as is owed, and then some
		if p.DebtShares.IsZero() {
			continue
		}
		whale.Positions = append(whale.Positions, Position{Pool: p.Param.Asset, Supply: must(fixed.MulDivCeil(p.DebtShares, fixed.New(3), fixed.New(1)))})
	}
	for _, at := range whale.Positions {
		s.addShares(at)
	}
	s.Accounts.put(whale.ID, whale)
	for id, p := range s.Pools.all() {
		p.Cash = must(fixed.Add(p.SupplyShares, fixed.New(1_000_000)))
		p.Cash = must(fixed.Sub(p.Cash, p.DebtShares))
		p.Credited = must(fixed.Add(p.Cash, p.Reserved))
		s.Pools.put(id, p)
	}
	if code := s.refreshRates(); code != OK {
		tb.Fatal(code)
	}
	if err := s.checkLending(); err != nil {
		tb.Fatal(err)
	}
	return s, ids
}

func scaleID(i int) AccountID {
	h := sha256.Sum256(fmt.Append(nil, "account", i))
	return hex.EncodeToString(h[:16])
}

func scaleWallet(i int) string {
	h := sha256.Sum256(fmt.Append(nil, "wallet", i))
	if i%2 == 0 {
		return "eip155:1:0x" + hex.EncodeToString(h[:20])
	}
	return "bip122:000000000019d6689c085ae165831e93:bc1q" + hex.EncodeToString(h[:19])
}

func (s *State) addShares(at Position) {
	p := s.Pools.at(at.Pool)
	p.SupplyShares = must(fixed.Add(p.SupplyShares, at.Supply))
	p.DebtShares = must(fixed.Add(p.DebtShares, at.Debt))
	s.Pools.put(at.Pool, p)
}

func (s *State) addScaleAccount(i int) {
	d := newDice("positions", i)
	a := Account{ID: scaleID(i), Wallets: []string{scaleWallet(i)}, Nonce: 1 + d.roll(50), Opened: s.Millis - d.roll(1e10), Active: s.Millis, Credited: true}
	first := d.roll(7)
	second := (first + 1 + d.roll(3)) % 7
	third := (second + 1 + d.roll(2)) % 7
	units := func(pool, value uint64) fixed.Int { // of value, USD · 10⁸
		p := scalePools[pool]
		return must(fixed.MulDivFloor(fixed.New(value), must(fixed.Pow10(p.decimals)), n(p.price)))
	}
	const usd = 100_000_000
	one, two := (100+d.roll(50_000))*usd, (100+d.roll(50_000))*usd
	hf := 1_004 + d.roll(1_996) // thousandths
	at := map[uint64]Position{}
	if i%2 == 0 {
		debt := (one*scalePools[first].lt + two*scalePools[second].lt) / hf / 10
		at[first], at[second] = Position{Supply: units(first, one)}, Position{Supply: units(second, two)}
		at[third] = Position{Debt: units(third, debt)}
	} else {
		debt := one * scalePools[first].lt / hf / 10
		at[first] = Position{Supply: units(first, one)}
		at[second], at[third] = Position{Debt: units(second, debt/3)}, Position{Debt: units(third, debt-debt/3)}
	}
	for pool := range uint64(7) {
		if p, ok := at[pool]; ok {
			p.Pool = scalePools[pool].id
			a.Positions = append(a.Positions, p)
			s.addShares(p)
		}
	}
	s.Accounts.put(a.ID, a)
}

// cpu is what this process has used, in ns: on a machine that others use too,
// the clock says nothing.
func cpu() int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// measured reports the processor time of each of b.N, collector included.
func measured(b *testing.B, f func(i int)) {
	b.ReportAllocs()
	b.ResetTimer()
	before := cpu()
	for i := range b.N {
		f(i)
	}
	b.StopTimer()
	b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/op")
}

// heap is what is in use after a collection.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func BenchmarkScaleHeap(b *testing.B) {
	for _, n := range scaleSizes(b) {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for range b.N {
				before := heap()
				s, ids := scaleState(b, n)
				ids = nil
				after := heap()
				b.ReportMetric(float64(after-before)/1e6, "MB")
				b.ReportMetric(float64(after-before)/float64(n), "B/account")
				runtime.KeepAlive(s)
				runtime.KeepAlive(ids)
			}
		})
	}
}

// Operations as a command runs them: a guard, the operation, the rates, the
// books; without decoding and signature.
func BenchmarkScaleOperation(b *testing.B) {
	whale := scaleID(-1)
	pool := func(i int) string { return scalePools[i%len(scalePools)].id }
	for _, op := range []struct {
		name string
		run  func(s *State, who AccountID, i int) Code
	}{
		{"supply", func(s *State, who AccountID, i int) Code {
			_, code := s.supply(who, pool(i), fixed.New(1000))
			return code
		}},
		{"repay", func(s *State, who AccountID, i int) Code {
			_, code := s.repay(who, s.Accounts.at(who).owes(), fixed.New(1))
			return code
		}},
		{"withdraw", func(s *State, who AccountID, i int) Code {
			gross, code := s.withdraw(whale, pool(i), fixed.New(1), false)
			open(s, Outflow{Kind: OutflowWithdraw, Account: whale, Asset: pool(i), Gross: gross})
			return code
		}},
		{"borrow", func(s *State, who AccountID, i int) Code {
			in := s.Accounts.at(who).owes()
			minted, code := s.borrow(who, in, fixed.New(1))
			open(s, Outflow{Kind: OutflowBorrow, Account: who, Asset: in, Gross: fixed.New(1), Minted: minted})
			return code
		}},
	} {
		b.Run(op.name, func(b *testing.B) {
			atScale(b, func(b *testing.B, s *State, ids []AccountID) {
				refused := 0
				measured(b, func(i int) {
					x := &execution{s: s}
					code := x.guard("operation", func(x *execution) Code {
						if code := op.run(x.s, ids[(i*7919)%len(ids)], i); code != OK {
							return code
						}
						return x.s.refreshRates()
					})
					if code != OK {
						refused++
					}
					s.Accounts.fold()
				})
				b.ReportMetric(float64(refused)/float64(b.N), "refused")
			})
		})
	}
}

// owes is a pool in which the account owes.
func (a Account) owes() string {
	for _, p := range a.Positions {
		if !p.Debt.IsZero() {
			return p.Pool
		}
	}
	return ""
}

// Accrual and rates of all pools, as every 15 s.
func BenchmarkScaleTick(b *testing.B) {
	atScale(b, func(b *testing.B, s *State, _ []AccountID) {
		measured(b, func(int) {
			s.Millis += 15_000
			x := &execution{s: s}
			x.tick()
			s.Accounts.fold()
		})
	})
}

// A price round and who fell below HF 1 in it: one account in a hundred, with
// positions in every pool.
func BenchmarkScaleRound(b *testing.B) {
	atScale(b, func(b *testing.B, s *State, ids []AccountID) {
		s.markAll()
		found := 0
		var x *execution
		measured(b, func(int) {
			x = &execution{s: s.View()}
			x.guard("round", func(x *execution) Code {
				for _, p := range scalePools {
					at := x.s.Prices.at(p.id)
					if !p.stable {
						at.Low = must(fixed.MulDivFloor(at.Low, fixed.New(9_330), fixed.Bps))
						at.High = at.Low
					}
					x.s.Prices.put(p.id, at)
				}
				x.s.sync()
				x.s.refreshRates()
				found = len(x.s.unhealthy())
				return OK
			})
		})
		looked := len(newFinder(x.s.View()).candidates())
		b.ReportMetric(float64(found)/float64(len(ids))*100, "%-found")
		b.ReportMetric(float64(looked)/float64(len(ids))*100, "%-weighed-next")
	})
}

// Setting all marks, as after a restore.
func BenchmarkScaleMarks(b *testing.B) {
	atScale(b, func(b *testing.B, s *State, _ []AccountID) {
		measured(b, func(int) {
			s.Accounts.unmark()
			s.markAll()
		})
	})
}

// addAddresses registers the four addresses of an account, as if derived.
func (s *State) addAddresses(i int) {
	id := scaleID(i)
	raw := must(hexBytes16(id))
	for _, chain := range []string{Bitcoin, Ethereum} {
		for _, purpose := range []Purpose{PurposeSupply, PurposeRepay} {
			h := sha256.Sum256(fmt.Append(nil, chain, purpose, i))
			w := Watch{
				Chain: chain, Path: accountPath(raw, chain, purpose), Key: KeyECDSA1, Pub: append([]byte{2}, h[:]...),
				Account: id, Purpose: purpose, From: 800_000 + uint64(i),
			}
			if w.Address = address.EthereumAddress([20]byte(h[:20])); chain == Bitcoin {
				w.Address = must(address.AddressOf(address.Mainnet, append([]byte{0, 20}, h[:20]...)))
			}
			s.Watched.put(w)
		}
	}
}

// What the addresses of all accounts take, beside the accounts themselves.
func BenchmarkScaleAddresses(b *testing.B) {
	for _, n := range scaleSizes(b) {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for range b.N {
				s := new(State)
				before, began := heap(), cpu()
				for i := range n {
					s.addAddresses(i)
				}
				took := cpu() - began
				after := heap()
				b.ReportMetric(float64(after-before)/1e6, "MB")
				b.ReportMetric(float64(after-before)/float64(n), "B/account")
				b.ReportMetric(float64(took)/float64(4*n), "cpu-ns/address")
				runtime.KeepAlive(s)
			}
		})
	}
}

// A root after 4096 commands that each touched another account.
func BenchmarkScaleRoot(b *testing.B) {
	atScale(b, func(b *testing.B, s *State, ids []AccountID) {
		s.root()
		next := 0
		measured(b, func(int) {
			b.StopTimer()
			for range RootInterval {
				a := s.Accounts.at(ids[next*7919%len(ids)])
				a.Nonce++
				s.Accounts.put(a.ID, a)
				next++
			}
			s.Accounts.fold()
			b.StartTimer()
			s.root()
		})
	})
}

// A snapshot: how long the ledger stands still for it, and the writing beside it.
func BenchmarkScaleSnapshot(b *testing.B) {
	atScale(b, func(b *testing.B, s *State, ids []AccountID) {
		var pause time.Duration
		measured(b, func(int) {
			began := time.Now()
			f := s.Frozen()
			a := s.Accounts.at(ids[0]) // the first write parts from it
			a.Nonce++
			s.Accounts.put(a.ID, a)
			s.Accounts.fold()
			pause = max(pause, time.Since(began))
			if err := f.Encode(io.Discard); err != nil {
				b.Fatal(err)
			}
		})
		b.ReportMetric(float64(pause.Microseconds()), "µs-pause")
	})
}
