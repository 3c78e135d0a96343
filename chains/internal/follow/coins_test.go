package follow

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/coffer-network/coffer/chains"
)

// purse is a source whose blocks pay and spend coins of addresses "0", "1", ….
type purse struct {
	blocks []purseBlock
	made   uint64
	rng    *rand.Rand
	ours   func(addr string) bool // the key is known to be ours, as a program set knows it
}

type purseBlock struct {
	hash  string
	coins []purseCoin
	gone  []purseCoin
}

type purseCoin struct {
	Coin
	addr string
}

func (p *purse) mine(branch string, addresses int) {
	h := len(p.blocks)
	b := purseBlock{hash: fmt.Sprintf("%s%d", branch, h)}
	live := p.unspent(uint64(h))
	for range p.rng.IntN(3) {
		p.made++
		k := purseCoin{addr: fmt.Sprint(p.rng.IntN(addresses))}
		binary.BigEndian.PutUint64(k.TxID[:], p.made)
		k.Height, k.Sats, k.Program[0] = uint64(h), p.made, k.addr[0]
		b.coins = append(b.coins, k)
		if p.rng.IntN(8) == 0 {
			b.gone = append(b.gone, k) // spent in its own block
		}
	}
	for _, k := range live {
		if p.rng.IntN(12) == 0 {
			b.gone = append(b.gone, k)
		}
	}
	p.blocks = append(p.blocks, b)
}

// unspent is the truth: what is there after the blocks up to, and with, a height.
func (p *purse) unspent(height uint64) map[string]purseCoin {
	out := map[string]purseCoin{}
	for h := uint64(0); h <= height && h < uint64(len(p.blocks)); h++ {
		for _, k := range p.blocks[h].coins {
			out[k.Name()] = k
		}
		for _, k := range p.blocks[h].gone {
			delete(out, k.Name())
		}
	}
	return out
}

func (p *purse) Best(context.Context) (uint64, error) { return uint64(len(p.blocks) - 1), nil }

func (p *purse) HashAt(_ context.Context, h uint64) (string, error) { return p.blocks[h].hash, nil }

func (p *purse) Read(_ context.Context, from, to uint64, w Want) ([]Found, error) {
	var out []Found
	for h := from; h <= to; h++ {
		f := Found{Block: Block{Height: h, Hash: p.blocks[h].hash}}
		if h > 0 {
			f.Parent = p.blocks[h-1].hash
		}
		for _, k := range p.blocks[h].coins {
			if w.Address(k.addr, h) {
				f.Coins = append(f.Coins, k.Coin)
			}
		}
		for _, k := range p.blocks[h].gone {
			if p.ours(k.addr) {
				f.Gone = append(f.Gone, Gone{TxID: k.TxID, Output: k.Output})
			}
		}
		out = append(out, f)
	}
	return out, nil
}

// At every recent height the index holds what the chain does, of every address
// since it was effective, whenever it was named; over forks, walks down the chain
// and cursors. Seen failing without `unwind` of coins, without `unwind` of spends,
// without coins that are met after their spend (`spend`'s down), with spends forgotten
// as soon as they are made, and with old ones forgotten while their coins are still
// to be read again (`prune`).
func TestCoins(t *testing.T) {
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 1))
		list := chains.Watch(nil)
		p := &purse{rng: rng}
		p.ours = func(addr string) bool { _, ok := list.From(addr); return ok }
		const addresses = 10
		s, _ := Load(nil, "c", 0)
		v := chains.View{Watched: list}
		check := func() {
			t.Helper()
			head, _ := s.Head()
			for h := head.Height - min(head.Height, Window); h <= head.Height; h += 1 + uint64(rng.IntN(20)) {
				want := p.unspent(h)
				maps.DeleteFunc(want, func(_ string, k purseCoin) bool {
					from, ok := list.From(k.addr)
					return !ok || k.Height < from
				})
				s.Coins.Unspent(h, func(k Coin) {
					if from, _ := list.From(string(k.Program[:1])); k.Height < from {
						return
					}
					if w, ok := want[k.Name()]; !ok || w.Coin != k {
						t.Fatalf("seed %d, head %d: at %d it holds %+v, which is spent or never was", seed, head.Height, h, k)
					}
					delete(want, k.Name())
				})
				if len(want) > 0 {
					t.Fatalf("seed %d, head %d: at %d it lacks %v", seed, head.Height, h, want)
				}
			}
		}
		for round := range 30 {
			if round%5 == 1 {
				if addr := fmt.Sprint(rng.IntN(addresses)); !p.ours(addr) {
					list.Add(addr, uint64(max(len(p.blocks)-rng.IntN(300), 0)))
				}
			}
			for range rng.IntN(40) {
				p.mine(fmt.Sprintf("r%d-", round), addresses)
			}
			if depth := rng.IntN(30); rng.IntN(3) == 0 && len(p.blocks) > depth+1 {
				p.blocks = p.blocks[:len(p.blocks)-depth]
				for range depth + 1 {
					p.mine(fmt.Sprintf("f%d-", round), addresses)
				}
			}
			if len(p.blocks) == 0 {
				continue
			}
			for range rng.IntN(3) { // sometimes a fork comes in the middle of a walk down
				s = step(t, s, v, p)
			}
			if round%3 == 2 {
				s = follow(t, s, v, p)
				check()
			}
		}
		s = follow(t, s, v, p)
		check()
		for range 2 * Window {
			p.blocks = append(p.blocks, purseBlock{hash: fmt.Sprintf("e%d", len(p.blocks))})
		}
		s = follow(t, s, v, p)
		check()
		left := 0
		s.Coins.Unspent(s.Next-1, func(Coin) { left++ })
		if left != s.Coins.Len() {
			t.Fatalf("seed %d: %d coins are kept, %d are unspent", seed, s.Coins.Len(), left)
		}
	}
}

// What no cursor holds is refused.
func TestCoinsOfACursor(t *testing.T) {
	s, _ := Load(nil, "c", 0)
	s.Coins.packed = make([]byte, coinSize+1)
	if _, err := Load(s.Cursor(), "c", 0); err == nil {
		t.Error("half a coin is read")
	}
}

// A step with an index of a hundred thousand coins: what a cursor of that size
// costs to read and write, and the question for a balance.
func BenchmarkCoins(b *testing.B) {
	for _, n := range []int{1_000, 100_000, 1_000_000} {
		s, _ := Load(nil, "c", 0)
		for i := range n {
			k := Coin{Height: uint64(i), Sats: 1}
			binary.BigEndian.PutUint64(k.TxID[:], uint64(i))
			s.Coins.arrive(k)
		}
		c := s.Cursor()
		b.Run(fmt.Sprintf("step/%d", n), func(b *testing.B) {
			for b.Loop() {
				s, err := Load(c, "c", 0)
				if err != nil {
					b.Fatal(err)
				}
				s.Coins.prune(1<<30, none)
				c = s.Cursor()
			}
			b.ReportMetric(float64(len(c)), "cursor-bytes")
		})
		b.Run(fmt.Sprintf("spend/%d", n), func(b *testing.B) { // with the map that a block with one of ours makes
			for b.Loop() {
				s.Coins.at = nil
				s.Coins.spend(Gone{}, 7, false)
			}
		})
	}
}
