package ledger

import (
	"bytes"
	"fmt"
	"io"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
	"pgregory.net/rapid"
)

// booking is what a guarded command does to the accounts, and how it ends.
type booking struct {
	Ops   []bookingOp
	Inner []bookingOp // a part of its own
	Keep  bool        // whether that part is kept
	End   string      // "", "refuse" or "panic"
}

type bookingOp struct {
	Op, Who string
	Units   uint64
}

func (b booking) run(s *State) Code {
	x := &execution{s: s}
	code := x.guard("booking", func(x *execution) Code {
		return x.try(func(x *execution) Code {
			bookAll(x, b.Ops)
			x.try(func(x *execution) Code {
				if bookAll(x, b.Inner); b.Keep {
					return OK
				}
				return BadParam
			})
			if b.End == "panic" {
				panic("planted")
			}
			if b.End == "refuse" {
				return BadParam
			}
			return x.s.refreshRates()
		})
	})
	s.Accounts.fold()
	s.OutflowsHalt = "" // or nothing would happen any more
	return code
}

func bookAll(x *execution, ops []bookingOp) {
	s := x.s
	for _, o := range ops {
		switch o.Op {
		case "supply":
			if _, code := s.supply(o.Who, "btc", fixed.New(o.Units+5_100)); code == OK { // with the coin that it is
				giveCoin(s, o.Units+5_100)
			}
		case "borrow":
			if code := s.borrowable(s.Pools.at("usdt.eth"), fixed.New(o.Units+1_000_000)); code == OK {
				v := s.View()
				if minted, code := v.borrow(o.Who, "usdt.eth", fixed.New(o.Units+1_000_000)); code == OK {
					s.borrow(o.Who, "usdt.eth", fixed.New(o.Units+1_000_000))
					x.newOutflow(Outflow{Kind: OutflowBorrow, Account: o.Who, Asset: "usdt.eth", Gross: fixed.New(o.Units + 1_000_000), Minted: minted, To: payeeETH})
				}
			}
		case "repay":
			s.repay(o.Who, "usdt.eth", fixed.New(o.Units))
		case "touch":
			if a, ok := s.Accounts.get(o.Who); ok {
				a.Active += o.Units
				s.Accounts.put(o.Who, a)
			}
		case "add":
			if !s.Accounts.has(o.Who) {
				s.Accounts.put(o.Who, Account{ID: o.Who, Nonce: o.Units})
			}
		case "drop":
			if a, ok := s.Accounts.get(o.Who); ok && len(a.Positions) == 0 && a.Outflows == 0 {
				s.Accounts.delete(o.Who)
			}
		}
	}
}

// Replicas that applied the same come to the same roots, heads and snapshot,
// wherever one was restored from a stream, whenever one folded, looked or was
// looked at, and whatever was refused, dropped or broke meanwhile (I29).
func TestReplicasAgree(t *testing.T) {
	c, _, _ := lent(t)
	s := c.s.View()
	var ids []AccountID
	for i := range 200 { // some pages, and pairs that share a bucket
		id := scaleID(i / 2)
		if i%2 == 1 {
			id = id[:4] + fmt.Sprintf("%028x", i)
		}
		ids = append(ids, id)
		if i%3 > 0 {
			s.Accounts.put(id, Account{ID: id, Nonce: 1, Credited: true})
		}
	}
	s.Accounts.fold()
	base := s.Frozen()
	did := map[string]int{}
	rapid.Check(t, func(r *rapid.T) {
		a := base.View()
		replicas := map[string]*State{"the first": a, "one that folds at other moments": base.View()}
		other := replicas["one that folds at other moments"]
		seq := uint64(1 << 20)
		ops := func(label string, most int) []bookingOp {
			var list []bookingOp
			for range rapid.IntRange(0, most).Draw(r, label) {
				list = append(list, bookingOp{
					Op:    rapid.SampledFrom([]string{"supply", "supply", "borrow", "repay", "touch", "add", "drop"}).Draw(r, "op"),
					Who:   rapid.SampledFrom(ids).Draw(r, "who"),
					Units: rapid.Uint64Range(0, 5_000_000).Draw(r, "units"),
				})
			}
			return list
		}
		each := func(f func(*State) any) {
			want := f(a)
			for name, s := range replicas {
				if s != a {
					if got := f(s); got != want {
						r.Fatalf("%s came to %v, not %v", name, got, want)
					}
				}
			}
		}
		for range rapid.IntRange(1, 25).Draw(r, "steps") {
			kind := rapid.SampledFrom([]string{"book", "book", "book", "command", "price", "tick", "other", "other", "restore", "root", "fold"}).Draw(r, "kind")
			switch kind {
			case "book":
				b := booking{
					Ops: ops("ops", rapid.SampledFrom([]int{3, 3, 100}).Draw(r, "most")), Inner: ops("inner", 3), Keep: rapid.Bool().Draw(r, "keep"),
					End: rapid.SampledFrom([]string{"", "", "", "refuse", "panic"}).Draw(r, "end"),
				}
				each(func(s *State) any { return b.run(s) })
				kind += b.End
			case "command": // one in two at a height that folds a root
				var raw []byte
				switch rapid.SampledFrom([]string{"clock", "open", "garbage"}).Draw(r, "command") {
				case "clock":
					seq++
					raw = Marshal(Command{Attestation: NewAttestation(c.keys[rapid.IntRange(0, 3).Draw(r, "member")], a.Cluster, seq, KindClock, Clock{Millis: a.Millis + 9000})})
				case "open":
					v := *c
					v.s = a
					raw = Marshal(Command{Intent: &Intent{Scheme: address.SchemeEIP191, Text: v.text(ethWallet(rapid.IntRange(50, 54).Draw(r, "wallet")), address.Command{Action: address.ActionOpenAccount}), Signature: "x"}})
				default:
					raw = rapid.SliceOf(rapid.Byte()).Draw(r, "bytes")
				}
				root := rapid.Bool().Draw(r, "root")
				each(func(s *State) any {
					if root {
						s.Height += RootInterval - 1 - s.Height%RootInterval
					}
					res := s.ExecuteWith(raw, always(true))
					return fmt.Sprint(res.Code, res.Header, s.Root)
				})
			case "price":
				p := a.Prices.at("btc")
				p.Low = n(rapid.SampledFrom([]string{"4900000000000", "2000000000000", "1000000000", "5000000000000"}).Draw(r, "price"))
				p.High = p.Low
				each(func(s *State) any { s.Prices.put("btc", p); return nil })
			case "tick":
				each(func(s *State) any {
					s.Millis += 15_000
					x := &execution{s: s}
					x.tick()
					s.Accounts.fold()
					return fmt.Sprint(x.events)
				})
			case "other": // what nobody else may notice
				switch did[kind]++; rapid.IntRange(0, 5).Draw(r, "what") {
				case 0:
					other.Accounts.fold()
				case 1:
					other.root()
				case 2:
					v := other.View()
					booking{Ops: ops("aside", 10)}.run(v)
					v.root()
				case 3:
					if err := other.Check(); err != nil {
						r.Fatal(err)
					}
				case 4:
					other.Frozen().Encode(io.Discard)
				case 5:
					other.Accounts.unmark()
				}
			case "restore":
				var stream bytes.Buffer
				if err := a.Frozen().Encode(&stream); err != nil {
					r.Fatal(err)
				}
				back, err := ReadState(&stream)
				if err != nil {
					r.Fatal(err)
				}
				replicas["one restored"] = back
			case "fold":
				each(func(s *State) any { return s.root() })
			}
			did[kind]++
			if kind == "root" {
				want := rootOf(t, a)
				each(func(s *State) any {
					if got := s.root(); got != want {
						r.Fatalf("root %s, from scratch %s", got, want)
					}
					return nil
				})
			}
			each(func(s *State) any {
				var stream strings.Builder
				if err := s.Encode(&stream); err != nil {
					r.Fatal(err)
				}
				return stream.String()
			})
		}
		each(func(s *State) any { return s.root() })
		if err := a.Check(); err != nil {
			r.Fatal(err)
		}
	})
	for _, kind := range []string{"book", "bookrefuse", "bookpanic", "command", "price", "tick", "other", "restore", "root", "fold"} {
		if did[kind] == 0 {
			t.Errorf("no %s: the test proves nothing about it", kind)
		}
	}
	t.Log(did)
}

// A snapshot may come from a traitor: what is no state is refused, whatever it
// says of itself, and takes no more room than its bytes deserve.
func TestHostileSnapshots(t *testing.T) {
	c, _, _ := lent(t)
	rest := *c.s.View()
	rest.Accounts, rest.Watched = Accounts{}, c.s.Watched.bare()
	first := Marshal(&rest)
	packed := packAccount(nil, Account{Wallets: []string{"w"}})
	id := accountKey(scaleID(0))
	stream := func(frames ...[]byte) []byte {
		var b bytes.Buffer
		for _, f := range frames {
			writeFrame(&b, f)
		}
		return b.Bytes()
	}
	row := func(key string, packed []byte) []byte {
		return Marshal([]packedRow{{Key: []byte(key), Packed: packed}})
	}
	many := func(head byte, size int, element ...byte) []byte { // an array of as many elements as size bytes hold
		n := size / len(element)
		return append([]byte{head | 26, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, bytes.Repeat(element, n)...)
	}
	table := bytes.Index(first, append([]byte{0x12}, Marshal(c.s.Inflows)...)) // field 18
	if table < 0 {
		t.Fatal("the table of inflows is not where it was")
	}
	swollen := func(element ...byte) []byte {
		return slices.Concat(first[:table+1], many(0x80, 8<<20, element...), first[table+1+len(Marshal(c.s.Inflows)):])
	}
	for name, raw := range map[string][]byte{
		"an id of 20 bytes":             stream(first, row(keyOfHex+strings.Repeat("x", 20), packed), nil),
		"an id of 254 bytes":            stream(first, row(keyOfHex+strings.Repeat("x", 254), packed), nil),
		"an id of 15 bytes":             stream(first, row(keyOfHex+strings.Repeat("x", 15), packed), nil),
		"an id of no byte":              stream(first, row("", packed), nil),
		"an id of one byte":             stream(first, row(keyOfHex, packed), nil),
		"an id of another kind":         stream(first, row("\x02abc", packed), nil),
		"an id as a text":               stream(first, row(keyOfText+scaleID(0), packed), nil),
		"an id of 300 bytes":            stream(first, row(keyOfText+strings.Repeat("x", 300), packed), nil),
		"an account of no byte":         stream(first, row(id, nil), nil),
		"an account and a byte":         stream(first, row(id, append(slices.Clone(packed), 0)), nil),
		"an account less a byte":        stream(first, row(id, packed[:len(packed)-1]), nil),
		"a count in two bytes":          stream(first, row(id, append([]byte{0x80, 0x00}, packed[1:]...)), nil),
		"2 million answers of no byte":  stream(first, row(id, append([]byte{0, 0, 0, 0, 0x80, 0x80, 0x80, 0x01}, make([]byte, 4<<20-64)...)), nil),
		"4 million accounts of no byte": stream(first, many(0x80, 4<<20-64, 0x80), nil),
		"4 million null accounts":       stream(first, many(0x80, 4<<20-64, 0xf6), nil),
		"8 million empty rows":          stream(swollen(0x80), nil),
		"8 million null rows":           stream(swollen(0xf6), nil),
		"4 million rows of null":        stream(swollen(0x82, 0x00, 0xf6), nil),
		"a table of 2⁶⁴−1 rows":         stream(slices.Concat(first[:table+1], []byte{0x9b, 255, 255, 255, 255, 255, 255, 255, 255}, first[table+2:]), nil),
		"a first frame of 1 GiB":        {0x40, 0, 0, 0, 1, 2, 3},
		"a first frame of 4 GiB":        {255, 255, 255, 255, 1, 2, 3},
		"a frame of 8 MB":               append(stream(first), 0, 0x80, 0, 0, 1, 2, 3),
		"a frame of 4 GiB":              append(stream(first), 255, 255, 255, 255, 1, 2, 3),
		"no end":                        stream(first),
		"no epoch":                      stream(Marshal(&State{Genesis: c.s.Genesis, Cluster: c.s.Cluster}), nil),
		"nothing in it":                 stream(Marshal(&State{}), nil),
	} {
		before := allocated()
		if _, err := ReadState(bytes.NewReader(raw)); err == nil {
			t.Errorf("%s: read as a state", name)
		}
		if took := allocated() - before; took > 64<<20+16*uint64(len(raw)) {
			t.Errorf("%s: %d bytes took %d", name, len(raw), took)
		}
	}
}

// allocated is what was ever taken from the heap.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// A view shares no table that either side takes for its own. Seen red with
// Tips, Senders and Pools left out of share.
func TestViewMarksEveryTable(t *testing.T) {
	s := new(State)
	s.Pools.own, s.Outflows.own, s.Accounts.own, s.Accounts.mine = true, true, true, true
	v := s.View()
	if s.Pools.own || s.Outflows.own || s.Accounts.own || s.Accounts.mine {
		t.Error("Pools, Outflows or Accounts go on writing in place")
	}
	marked := 0
	var look func(name string, original, view reflect.Value)
	look = func(name string, original, view reflect.Value) {
		if view.Kind() != reflect.Struct {
			return
		}
		if f := view.FieldByName("shared"); f.IsValid() {
			if marked++; !f.Bool() || !original.FieldByName("shared").Bool() {
				t.Errorf("%s is nobody's: share must say that it is shared", name)
			}
			return
		}
		for i := range view.NumField() {
			look(name+"."+view.Type().Field(i).Name, original.Field(i), view.Field(i))
		}
	}
	look("State", reflect.ValueOf(s).Elem(), reflect.ValueOf(v).Elem())
	if marked < 40 {
		t.Fatalf("%d tables marked: the test looks at too little", marked)
	}
}
