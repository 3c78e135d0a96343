package node

import (
	"testing"

	"github.com/coffer-network/coffer/chains"
	"github.com/coffer-network/coffer/ledger"
)

// What the view says of addresses is what the ledger has, by number and by
// name, and of one chain only; numbers stay when more are registered.
func TestWatchedView(t *testing.T) {
	c := running(t)
	names := func(chain string) (list []string) {
		w := chainView(c.s, chain).Watched
		for n := range w.Registered() {
			if a, ok := w.Number(n); ok {
				list = append(list, a)
				want, _ := c.s.Watched.Get(chain + "/" + a)
				if from, ok := w.From(a); !ok || from != want.From {
					t.Errorf("%s from %d, %t, want %d", a, from, ok, want.From)
				}
			}
		}
		return list
	}
	before := names(ledger.Bitcoin)
	account := c.open(walletOf(t, 7))
	after := names(ledger.Bitcoin)
	deposit, _ := c.s.AddressOf(account, ledger.Bitcoin, ledger.PurposeSupply)
	repay, _ := c.s.AddressOf(account, ledger.Bitcoin, ledger.PurposeRepay)
	want := append(before, deposit.Address, repay.Address)
	if len(after) != len(want) {
		t.Fatalf("%v, want %v", after, want)
	}
	for i := range want {
		if after[i] != want[i] {
			t.Errorf("number %d is %s, want %s", i, after[i], want[i])
		}
	}
	if _, ok := chainView(c.s, ledger.Ethereum).Watched.From(deposit.Address); ok {
		t.Error("a Bitcoin address among Ethereum's")
	}
	total := 0
	for range c.s.Watched.All() {
		total++
	}
	if eth := names(ledger.Ethereum); len(after)+len(eth) != total {
		t.Errorf("%d and %d addresses by number, %d by name", len(after), len(eth), total)
	}
}

// Two operators' wishes are one walk, to the lower height, given out once.
func TestRescanIsTakenOnce(t *testing.T) {
	n := &Node{chains: map[string]chains.Chain{"btc": nil}, rescans: map[string]uint64{}}
	if err := n.Rescan("doge", 5); err == nil {
		t.Error("a chain that this node has not")
	}
	for _, h := range []uint64{70, 50, 60} {
		if err := n.Rescan("btc", h); err != nil {
			t.Fatal(err)
		}
	}
	if h, ok := n.takeRescan("btc"); !ok || h != 50 {
		t.Errorf("%d, %t", h, ok)
	}
	if h, ok := n.takeRescan("btc"); ok {
		t.Errorf("%d a second time", h)
	}
}
