package ledger

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/coffer-network/coffer/ledger/fixed"
	"pgregory.net/rapid"
)

// fill sets every field below v to something that is not zero, different each
// time.
func fill(t *testing.T, v reflect.Value, next *uint64) {
	t.Helper()
	*next++
	switch {
	case v.Type() == reflect.TypeFor[fixed.Int]():
		v.Set(reflect.ValueOf(fixed.New(*next)))
	case v.Kind() == reflect.Uint64:
		v.SetUint(*next)
	case v.Kind() == reflect.Uint8:
		v.SetUint(*next % 256)
	case v.Kind() == reflect.String:
		v.SetString(fmt.Sprint("text ", *next))
	case v.Kind() == reflect.Bool:
		v.SetBool(true)
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(t, v.Index(i), next)
		}
	case v.Kind() == reflect.Array:
		for i := range v.Len() {
			fill(t, v.Index(i), next)
		}
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem(), next)
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i), next)
		}
	default:
		t.Fatalf("a field of kind %s: teach fill and packing what it is", v.Kind())
	}
}

// A field that Account.fields forgets would be lost at the next fold.
func TestPackedAccount(t *testing.T) {
	var a Account
	next := uint64(0)
	fill(t, reflect.ValueOf(&a).Elem(), &next)
	packed := string(packAccount(nil, a))
	back, err := unpackAccount(packed)
	if err != nil {
		t.Fatal(err)
	}
	back.ID = a.ID // is the key
	for i := range reflect.TypeFor[Account]().NumField() {
		if name := reflect.TypeFor[Account]().Field(i).Name; !reflect.DeepEqual(reflect.ValueOf(a).Field(i).Interface(), reflect.ValueOf(back).Field(i).Interface()) {
			t.Errorf("%s: put %+v, got %+v: is there a line for it in Account.fields?", name, reflect.ValueOf(a).Field(i), reflect.ValueOf(back).Field(i))
		}
	}
	if got := string(packAccount(nil, back)); got != packed {
		t.Error("packing again gives other bytes")
	}
	for i := range len(packed) {
		if _, err := unpackAccount(packed[:i]); err == nil {
			t.Fatalf("the first %d of %d bytes are read as an account", i, len(packed))
		}
	}
	if _, err := unpackAccount(packed + "\x00"); err == nil {
		t.Error("a byte too many is read")
	}
	empty := string(packAccount(nil, Account{}))
	if a, err := unpackAccount(empty); err != nil || !reflect.DeepEqual(a, Account{}) {
		t.Errorf("the empty account: %+v, %v", a, err)
	}
	for name, spoilt := range map[string]string{
		"long varint":     "\x80\x00" + empty[1:],
		"a flag of 2":     strings.Replace(string(packAccount(nil, Account{Credited: true})), "\x01", "\x02", 1),
		"a known name":    strings.Replace(string(packAccount(nil, Account{Positions: []Position{{Pool: "btx", Supply: fixed.New(1)}}})), "btx", "btc", 1),
		"leading zero":    strings.Replace(string(packAccount(nil, Account{Positions: []Position{{Pool: "btc", Supply: fixed.New(7)}}})), "\x01\x07", "\x02\x00\x07", 1),
		"a huge list":     "\xff\xff\xff\xff\x0f" + empty[1:],
		"an unknown name": strings.Replace(string(packAccount(nil, Account{Positions: []Position{{Pool: "usdc.sol", Supply: fixed.New(7)}}})), "\x07\x01\x07", "\x7f\x01\x07", 1),
	} {
		if _, err := unpackAccount(spoilt); err == nil {
			t.Errorf("%s: read as an account", name)
		}
	}
}

// Whatever is read packs to the same bytes again, and CBOR agrees about it.
func FuzzPackedAccount(f *testing.F) {
	s, ids := scaleState(f, 4)
	for _, id := range ids {
		f.Add(packAccount(nil, s.Accounts.at(id)))
	}
	f.Add(packAccount(nil, Account{}))
	f.Add(packAccount(nil, Account{Wallets: []string{"a", ""}, Results: []Stored{{Nonce: 1, Code: OK}}, Unfinal: []Unfinal{{Pool: "x", Chain: "btc"}}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := unpackAccount(string(b))
		if err != nil {
			return
		}
		if string(packAccount(nil, a)) != string(b) {
			t.Fatalf("%x read as %+v", b, a)
		}
		var back Account
		if err := decMode.Unmarshal(Marshal(a), &back); err != nil {
			return // a text that is no UTF-8: CBOR refuses it, and so would a snapshot's other tables
		}
		if string(packAccount(nil, back)) != string(b) {
			t.Fatalf("%x: CBOR gives %+v, packed was %+v", b, back, a)
		}
	})
}

// Accounts does what a map does, and its copies stay as they are.
func TestAccountsLikeAMap(t *testing.T) {
	type copied struct {
		table *Accounts
		model map[AccountID]Account
	}
	ids := []AccountID{"a", "b", "bb", "whale"}
	for i := range 300 {
		ids = append(ids, scaleID(i))
	}
	rapid.Check(t, func(r *rapid.T) {
		table, model := &Accounts{}, map[AccountID]Account{}
		var copies []copied
		for range rapid.IntRange(1, 400).Draw(r, "steps") {
			id := rapid.SampledFrom(ids).Draw(r, "id")
			switch rapid.SampledFrom([]string{"put", "put", "put", "delete", "fold", "copy", "command", "reload"}).Draw(r, "op") {
			case "put":
				a := table.at(id)
				a.ID = id
				a.Nonce++
				a.Wallets = append(slices.Clone(a.Wallets), strings.Repeat("w", rapid.IntRange(0, 90).Draw(r, "wallet")))
				a.Positions = []Position{{Pool: "btc", Supply: fixed.New(rapid.Uint64().Draw(r, "supply"))}, {Pool: "new", Debt: fixed.New(a.Nonce)}}
				table.put(id, a)
				model[id] = a
			case "delete":
				table.delete(id)
				delete(model, id)
			case "fold":
				table.fold()
			case "copy":
				table.share()
				c := *table
				copies = append(copies, copied{&c, maps.Clone(model)})
				if rapid.Bool().Draw(r, "go on with the copy") {
					again := c
					table = &again
				}
			case "command":
				was := table.begin()
				for range rapid.IntRange(0, 3).Draw(r, "reads") { // what is kept of them is never another's
					read := rapid.SampledFrom(ids).Draw(r, "read")
					if a, ok := table.get(read); ok != table.has(read) || !reflect.DeepEqual(a, model[read]) {
						r.Fatalf("a command reads %+v, want %+v", a, model[read])
					}
				}
				a := Account{ID: id, Nonce: 77}
				if rapid.Bool().Draw(r, "put") {
					table.put(id, a)
				} else if a = table.at(id); !table.has(id) {
					*table = was
					continue
				}
				if rapid.Bool().Draw(r, "fold") {
					table.fold()
				}
				if rapid.Bool().Draw(r, "keep") {
					table.end(&was)
					model[id] = a
				} else {
					*table = was
				}
			case "reload":
				var back Accounts
				if err := Unmarshal(Marshal(*table), &back); err != nil {
					r.Fatal(err)
				}
				table = &back
			}
		}
		for i, c := range append(copies, copied{table, model}) {
			got := map[AccountID]Account{}
			var order []AccountID
			var supply, debt fixed.Wide
			for id, a := range c.table.all() {
				got[id] = a
				order = append(order, accountKey(id))
				for _, p := range a.Positions {
					supply, debt = must(supply.Add(p.Supply.Wide())), must(debt.Add(p.Debt.Wide()))
				}
			}
			if !reflect.DeepEqual(got, c.model) || c.table.len() != len(c.model) || !slices.IsSorted(order) {
				r.Fatalf("copy %d of %d: %d accounts, %d by len, want %d, sorted %v", i, len(copies), len(got), c.table.len(), len(c.model), slices.IsSorted(order))
			}
			for _, id := range ids {
				a, ok := c.table.get(id)
				if want, has := c.model[id]; ok != has || !reflect.DeepEqual(a, want) {
					r.Fatalf("copy %d: %s is %+v, want %+v", i, id, a, want)
				}
			}
			s1, d1 := c.table.holds("btc")
			s2, d2 := c.table.holds("new")
			if must(s1.Add(s2)) != supply || must(d1.Add(d2)) != debt {
				r.Fatalf("copy %d: holds %s and %s of supply, accounts %s", i, s1, s2, supply)
			}
			if f := c.table.folded(); f.book != nil {
				if err := f.book.rows.check(); err != nil {
					r.Fatal(err)
				}
				if f.book.rows.n != len(c.model) {
					r.Fatalf("%d rows counted of %d", f.book.rows.n, len(c.model))
				}
			}
		}
	})
}

// What is written into a snapshot by a liar does not become an account.
func TestAccountsRefuse(t *testing.T) {
	row := func(key string, a Account) packedRow {
		return packedRow{Key: []byte(key), Packed: packAccount(nil, a)}
	}
	one, two := accountKey(scaleID(0)), accountKey(scaleID(1))
	if two < one {
		one, two = two, one
	}
	for name, list := range map[string][]packedRow{
		"out of order": {row(two, Account{}), row(one, Account{})},
		"doubled":      {row(one, Account{}), row(one, Account{})},
		"no key":       {row("", Account{})},
		"hex as text":  {row(keyOfText+scaleID(0), Account{})},
		"other bytes":  {{Key: []byte(one), Packed: []byte{1}}},
		"another tag":  {row("\x02"+one[1:], Account{})},
		"short key":    {row(one[:16], Account{})},
	} {
		var a Accounts
		if err := Unmarshal(Marshal(list), &a); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	var a Accounts
	if err := Unmarshal(Marshal([]packedRow{row(one, Account{}), row(two, Account{})}), &a); err != nil || a.len() != 2 {
		t.Errorf("two accounts: %d, %v", a.len(), err)
	}
}

// What a command leaves may be read by many at once, as a preview is: its
// accounts keep nothing of what they are asked. Seen red with a command that goes on
// as one when it is kept.
func TestReadersKeepNothing(t *testing.T) {
	s, ids := scaleState(t, 40)
	s.Accounts.fold()
	x := &execution{s: s.View(), verdicts: computed{}}
	if code := x.guard("preview", func(x *execution) Code {
		return x.try(func(x *execution) Code {
			_, code := x.s.supply(ids[0], "btc", fixed.New(1000))
			if kept := len(x.s.Accounts.recent); kept != 1 {
				t.Errorf("a command keeps %d accounts of one", kept)
			}
			return code
		})
	}); code != OK {
		t.Fatal(code)
	}
	for name, v := range map[string]*State{"kept": x.s, "view": s.View(), "frozen": s.Frozen(), "state": s} {
		before := len(v.Accounts.recent)
		for _, id := range ids {
			v.Accounts.get(id)
		}
		if after := len(v.Accounts.recent); after != before {
			t.Errorf("%s: reading left %d accounts behind", name, after-before)
		}
	}
}
