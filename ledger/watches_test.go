package ledger

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/coffer-network/coffer/ledger/address"
	"pgregory.net/rapid"
)

// someWatch is an address of an account, or of anything else.
func someWatch(r *rapid.T) Watch {
	id := [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(r, "id"))
	twenty := rapid.SliceOfN(rapid.Byte(), 20, 20).Draw(r, "address")
	w := Watch{
		Key: KeyECDSA1, Pub: rapid.SliceOfN(rapid.Byte(), 33, 33).Draw(r, "pub"), Account: hex16(id),
		Purpose: rapid.SampledFrom([]Purpose{PurposeSupply, PurposeRepay, PurposeVault}).Draw(r, "purpose"),
		From:    rapid.SampledFrom([]uint64{0, 1, 127, 128, 1 << 40}).Draw(r, "from"),
	}
	switch rapid.SampledFrom([]string{"eth", "btc", "btc", "text"}).Draw(r, "kind") {
	case "eth":
		w.Chain, w.Address = Ethereum, address.EthereumAddress([20]byte(twenty))
	case "btc":
		network := rapid.SampledFrom([]string{address.Mainnet, address.Testnet, address.Regtest}).Draw(r, "network")
		w.Chain, w.Address = Bitcoin, must(address.AddressOf(network, append([]byte{0, 20}, twenty...)))
	default:
		w.Chain, w.Address = rapid.SampledFrom([]string{"eth", "btc", "sol"}).Draw(r, "chain"), rapid.StringMatching("[0-9a-zA-Z/]{1,60}").Draw(r, "text")
	}
	w.Path = accountPath(id, w.Chain, w.Purpose)
	w.Path.Counter = rapid.SampledFrom([]uint64{0, 0, 1, 300}).Draw(r, "counter")
	switch rapid.IntRange(0, 9).Draw(r, "unusual") {
	case 0:
		w.Path.Role = address.RoleHot
	case 1:
		w.Account = ""
	case 2:
		w.Key = "ecdsa-2"
	case 3:
		w.Pub = w.Pub[:32]
	case 4:
		w.Account = strings.ToUpper(w.Account)
	}
	return w
}

// What was registered is there under its name and its number, in every copy that
// was taken later and in no other, and a table read back is the same.
func TestWatches(t *testing.T) {
	usual, other := 0, 0
	rapid.Check(t, func(r *rapid.T) {
		var table Watches
		var list []Watch
		was := map[int]Watches{}
		for range rapid.IntRange(0, 60).Draw(r, "addresses") {
			if w := someWatch(r); !table.has(w.Chain + "/" + w.Address) {
				table.put(w)
				list = append(list, w)
				if packWatch(w)[0] == usualWatch {
					usual++
				} else {
					other++
				}
			}
			switch rapid.IntRange(0, 5).Draw(r, "copy") {
			case 0:
				table.share()
				was[len(list)] = table
			case 1: // a copy that goes its own way
				table.share()
				c := table
				c.put(Watch{Chain: "sol", Address: "nobody's"})
			case 2: // and one in whose place the table comes
				table.share()
				c := table
				table = c
			}
		}
		was[len(list)] = table
		for n, c := range was {
			if c.Len() != n || c.check() != nil {
				r.Fatalf("%d addresses, want %d: %v", c.Len(), n, c.check())
			}
			i := 0
			for name, w := range c.All() {
				if i >= n || fmt.Sprint(w) != fmt.Sprint(list[i]) || name != w.Chain+"/"+w.Address {
					r.Fatalf("number %d: %s %+v", i, name, w)
				}
				i++
			}
			for i, w := range list {
				name, ok := c.Number(uint64(i))
				got, found := c.Get(w.Chain + "/" + w.Address)
				if ok != (i < n) || found != ok || ok && (name != w.Chain+"/"+w.Address || fmt.Sprint(got) != fmt.Sprint(w)) {
					r.Fatalf("number %d of %d: %q %v, %+v %v", i, n, name, ok, got, found)
				}
			}
			if c.has("sol/nobody's") || c.has("") {
				r.Fatal("an address of nobody")
			}
			var back Watches
			if err := Unmarshal(Marshal(c), &back); err != nil || back.head != c.head || back.check() != nil || !bytes.Equal(Marshal(back), Marshal(c)) {
				r.Fatalf("read back: %v", err)
			}
		}
	})
	if least := enough(300); usual < least || other < least {
		t.Errorf("%d usual, %d others: the test proves nothing", usual, other)
	}
}

// Rows that are not in their one form, doubled, missing, or in another order than
// they were registered in, are no table.
func TestHostileWatches(t *testing.T) {
	c, _, _ := lent(t)
	var rows []packedRow
	for r := range c.s.Watched.packedRows() {
		rows = append(rows, r)
	}
	bare := c.s.Watched.bare()
	if err := bare.fill(func(w *Watches) error { return w.load(rows) }); err != nil {
		t.Fatal(err)
	}
	last := rows[len(rows)-1]
	with := func(r ...packedRow) []packedRow { return append(slices.Clone(rows[:len(rows)-1]), r...) }
	plain := append([]byte{otherWatch}, Marshal(must(unpackWatch(watchName(string(last.Key)), string(last.Packed))))...)
	for name, list := range map[string][]packedRow{
		"none":                 nil,
		"one missing":          rows[:len(rows)-1],
		"one twice":            append(slices.Clone(rows), last),
		"two swapped":          append([]packedRow{rows[1], rows[0]}, rows[2:]...),
		"a name in full":       with(packedRow{Key: []byte("\x00" + watchName(string(last.Key))), Packed: last.Packed}),
		"a row in full":        with(packedRow{Key: last.Key, Packed: plain}),
		"a byte more":          with(packedRow{Key: last.Key, Packed: append(slices.Clone(last.Packed), 0)}),
		"a byte less":          with(packedRow{Key: last.Key, Packed: last.Packed[:len(last.Packed)-1]}),
		"no byte":              with(packedRow{Key: last.Key}),
		"no key":               with(packedRow{Packed: last.Packed}),
		"a key of one byte":    with(packedRow{Key: last.Key[:1], Packed: last.Packed}),
		"a key of 20 bytes":    with(packedRow{Key: last.Key[:20], Packed: last.Packed}),
		"a kind of none":       with(packedRow{Key: append([]byte{9}, last.Key[1:]...), Packed: last.Packed}),
		"no chain":             with(packedRow{Key: []byte("\x00abc"), Packed: last.Packed}),
		"another's public key": with(packedRow{Key: last.Key, Packed: append(slices.Clone(last.Packed[:20]), append([]byte{last.Packed[20] ^ 1}, last.Packed[21:]...)...)}),
		"another address":      with(packedRow{Key: append(slices.Clone(last.Key[:20]), last.Key[20]^1), Packed: last.Packed}),
	} {
		w := bare.bare()
		if err := w.fill(func(w *Watches) error { return w.load(list) }); err == nil {
			t.Errorf("%s: read", name)
		}
	}
	s := *c.s.View()
	s.Accounts, s.Watched = Accounts{}, bare.bare()
	if _, err := DecodeState(Marshal(&s)); err == nil {
		t.Error("a state without its addresses is read")
	}
}
