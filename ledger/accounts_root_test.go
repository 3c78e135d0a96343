package ledger

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"maps"
	"math/big"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/coffer-network/coffer/ledger/fixed"
	"pgregory.net/rapid"
)

// accountsRoot is the accounts' part of S_i, written down once more and without
// any memory of the root before.
func accountsRoot(s *State) Hash {
	type node struct {
		hash []byte
		owed map[string][2]*big.Int
	}
	text := func(b []byte) []byte { return append([]byte{byte(len(b))}, b...) }
	sums := func(n node) []byte {
		b := []byte{byte(len(n.owed))}
		for _, pool := range slices.Sorted(maps.Keys(n.owed)) {
			b = slices.Concat(b, text([]byte(pool)), text(n.owed[pool][0].Bytes()), text(n.owed[pool][1].Bytes()))
		}
		return b
	}
	add := func(n node, pool string, shares, susp *big.Int) {
		old, ok := n.owed[pool]
		if !ok {
			old = [2]*big.Int{new(big.Int), new(big.Int)}
		}
		n.owed[pool] = [2]*big.Int{new(big.Int).Add(old[0], shares), new(big.Int).Add(old[1], susp)}
	}
	units := func(v fixed.Int) *big.Int { return new(big.Int).SetBytes(v.Bytes()) }
	empty := make([]byte, 32)
	above := func(l, r node) node {
		if bytes.Equal(l.hash, empty) && bytes.Equal(r.hash, empty) {
			return l
		}
		n := node{owed: map[string][2]*big.Int{}}
		for _, c := range []node{l, r} {
			for pool, v := range c.owed {
				add(n, pool, v[0], v[1])
			}
		}
		h := sha256.Sum256(slices.Concat([]byte{1}, l.hash, sums(l), r.hash, sums(r)))
		n.hash = h[:]
		return n
	}
	var over func(list []node) node
	over = func(list []node) node {
		switch len(list) {
		case 0:
			return node{hash: empty}
		case 1:
			return list[0]
		}
		half := 1
		for 2*half < len(list) {
			half *= 2
		}
		return above(over(list[:half]), over(list[half:]))
	}
	rows := map[string][]byte{}
	for id, a := range s.Accounts.all() {
		rows[accountKey(id)] = packAccount(nil, a)
	}
	for key := range s.Suspense.all() {
		if k := accountKey(strings.Split(key, "/")[0]); rows[k] == nil {
			rows[k] = []byte{}
		}
	}
	leaves := make([][]node, 1<<16)
	for _, key := range slices.Sorted(maps.Keys(rows)) {
		n := node{owed: map[string][2]*big.Int{}}
		for _, p := range s.Accounts.at(keyAccount(key)).Positions {
			if !p.Supply.IsZero() {
				add(n, p.Pool, units(p.Supply), new(big.Int))
			}
		}
		for k, e := range s.Suspense.all() {
			if id, pool, _ := strings.Cut(k, "/"); accountKey(id) == key {
				add(n, pool, new(big.Int), units(e.Amount))
			}
		}
		at := 0xffff
		if key[0] == 0 {
			at = int(key[1])*256 + int(key[2])
		}
		h := sha256.Sum256(slices.Concat([]byte{0}, text([]byte(key)), binary.AppendUvarint(nil, uint64(len(rows[key]))), rows[key], sums(n)))
		n.hash = h[:]
		leaves[at] = append(leaves[at], n)
	}
	all := make([]node, 1<<16)
	for i, list := range leaves {
		all[i] = over(list)
	}
	top := over(all)
	return sha256.Sum256(slices.Concat([]byte("coffer/accounts/2"), binary.BigEndian.AppendUint64(nil, uint64(s.Accounts.len())), top.hash, sums(top)))
}

func rootOf(t testing.TB, s *State) Hash {
	t.Helper()
	accounts := accountsRoot(s)
	other := s.View()
	other.Accounts, other.Watched = Accounts{}, s.Watched.bare()
	rest, owed := sha256.Sum256(Marshal(other)), sha256.Sum256(Marshal(s.liabilities()))
	return sha256.Sum256(slices.Concat([]byte("coffer/root/2"), accounts[:], owed[:], rest[:]))
}

// A root that remembers the one before is the root that a restored replica
// computes, whatever changed meanwhile and in whichever order.
func TestAccountsRoot(t *testing.T) {
	var ids []AccountID
	for i := range 40 {
		ids = append(ids, scaleID(i))
	}
	ids = append(ids, ids[0][:4]+strings.Repeat("0", 28), ids[0][:4]+strings.Repeat("f", 28), strings.Repeat("0", 32), strings.Repeat("f", 32), "text", "other")
	rapid.Check(t, func(r *rapid.T) {
		s := lendingState(t)
		for range rapid.IntRange(1, 8).Draw(r, "roots") {
			for range rapid.IntRange(0, 30).Draw(r, "changes") {
				id := rapid.SampledFrom(ids).Draw(r, "id")
				switch rapid.SampledFrom([]string{"put", "put", "delete", "view", "find", "same", "suspend", "claim"}).Draw(r, "op") {
				case "put":
					s.Accounts.put(id, Account{ID: id, Nonce: rapid.Uint64Range(0, 3).Draw(r, "nonce"), Positions: []Position{
						{Pool: "btc", Supply: fixed.New(rapid.Uint64Range(0, 3).Draw(r, "supply")), Debt: fixed.New(1)},
						{Pool: "eth", Supply: fixed.New(7)},
					}})
				case "same":
					if a, ok := s.Accounts.get(id); ok {
						s.Accounts.put(id, a)
					}
				case "delete":
					s.Accounts.delete(id)
				case "view": // goes its own way: nothing of it may be seen
					v := s.View()
					v.Accounts.put(id, Account{ID: id, Nonce: 99})
					v.root()
				case "suspend":
					s.Suspense.put(id+"/btc", Suspended{Amount: fixed.New(rapid.Uint64Range(1, 3).Draw(r, "amount"))})
				case "claim":
					s.Suspense.delete(id + "/btc")
				case "find": // marks are under no root
					s.unhealthy()
				}
			}
			got := s.root()
			if want := rootOf(t, s); got != want {
				r.Fatalf("root %s, from scratch %s", got, want)
			}
			var back State
			if err := Unmarshal(Marshal(s), &back); err != nil {
				r.Fatal(err)
			}
			if again := back.root(); again != got {
				r.Fatalf("root %s, restored %s", got, again)
			}
		}
	})
	a, b := lendingState(t), lendingState(t)
	a.Accounts.put(ids[0], Account{ID: ids[0], Nonce: 1})
	b.Accounts.put(ids[0], Account{ID: ids[0], Nonce: 2})
	if a.root() == b.root() {
		t.Error("two accounts, one root")
	}
}

// A state that travels as a stream is the state, and nothing else is read as one.
func TestSnapshotStream(t *testing.T) {
	c, _, borrower := lent(t)
	c.ask(borrower, c.borrowUSDT("20000000000"))
	s := c.s.View()
	for i := range 2*chunkRows + 5 {
		s.Accounts.put(scaleID(i), Account{ID: scaleID(i), Nonce: 1})
	}
	s.Accounts.fold()
	var b bytes.Buffer
	if err := s.Encode(&b); err != nil {
		t.Fatal(err)
	}
	whole := b.Bytes()
	rest := bytes.NewReader(append(slices.Clone(whole), "more"...))
	back, err := ReadState(iotest.OneByteReader(rest))
	if err != nil {
		t.Fatal(err)
	}
	if left, _ := io.ReadAll(rest); string(left) != "more" {
		t.Errorf("%d bytes left behind the state, want 4", len(left))
	}
	if string(Marshal(back)) != string(Marshal(s)) || back.root() != s.root() {
		t.Error("another state was read")
	}
	var again bytes.Buffer
	if back.Encode(&again); !bytes.Equal(again.Bytes(), whole) {
		t.Error("the state read is another stream")
	}
	for _, n := range []int{0, 3, 4, 100, len(whole) / 2, len(whole) - 4, len(whole) - 1} {
		if _, err := ReadState(bytes.NewReader(whole[:n])); err == nil {
			t.Errorf("the first %d of %d bytes are read as a state", n, len(whole))
		}
	}
	var frames [][]byte
	for r := bytes.NewReader(whole); r.Len() > 0; {
		f, err := readFrame(r, maxFrame)
		if err != nil {
			t.Fatal(err)
		}
		frames = append(frames, f)
	}
	var one, two []packedRow
	if Unmarshal(frames[1], &one) != nil || Unmarshal(frames[2], &two) != nil {
		t.Fatal("frames of accounts do not decode")
	}
	frame := func(rows ...packedRow) []byte { return Marshal(rows) }
	for name, list := range map[string][][]byte{
		"accounts swapped":    {frames[0], frames[2], frames[1], frames[3], nil},
		"an account twice":    {frames[0], frames[1], frames[1], frames[2], frames[3], nil},
		"an account missing":  {frames[0], frames[1], frames[2], frame(two[0]), nil},
		"a short frame first": {frames[0], frame(one[:5]...), frame(one[5:]...), frames[2], frames[3], nil},
		"an empty frame":      {frames[0], frames[1], frames[2], frames[3], frame(), nil},
		"a long frame":        {frames[0], frame(append(slices.Clone(one), two...)...), frames[3], nil},
		"other bytes":         {append([]byte{0xd9, 0xd9, 0xf7}, frames[0]...), frames[1], frames[2], frames[3], nil},
		"no state":            {nil, frames[1]},
	} {
		var b bytes.Buffer
		for _, f := range list {
			writeFrame(&b, f)
		}
		if _, err := ReadState(&b); err == nil {
			t.Errorf("%s: read as a state", name)
		}
	}
	poor := newCluster(t).s.View() // whose accounts no sum would miss
	poor.Accounts.put(scaleID(0), Account{ID: scaleID(0), Nonce: 1})
	b.Reset()
	writeFrame(&b, Marshal(poor))
	writeFrame(&b, nil)
	if _, err := ReadState(&b); err == nil {
		t.Error("accounts in the first frame are passed over")
	}
	spoilt := s.View()
	p := spoilt.Pools.at("btc")
	p.SupplyShares = must(fixed.Add(p.SupplyShares, fixed.New(1)))
	spoilt.Pools.put("btc", p)
	b.Reset()
	if err := spoilt.Encode(&b); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadState(&b); err == nil {
		t.Error("broken books are read as a state")
	}
	if err := s.Encode(failing{}); err == nil {
		t.Error("a full disk is not noticed")
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, io.ErrShortWrite }
