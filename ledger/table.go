package ledger

import (
	"cmp"
	"fmt"
	"iter"

	"github.com/fxamacker/cbor/v2"
	"github.com/tidwall/btree"
)

// table is a sorted map with copies in constant time: a copy shares all nodes
// with the original and either side copies what it changes. That gives Apply
// its way back (what was comes in the place of what is), readers their view, the
// snapshot its frozen body and every iteration one order.
//
// A value put into a table is never changed in place again: a slice inside it
// is replaced, not written to. The tree holds pointers, since a write copies
// the nodes on its way and most values are larger than all their keys.
type table[K cmp.Ordered, V any] struct {
	m      *btree.Map[K, *V] // nil: empty
	shared bool              // somebody else may see the nodes: they are copied before a write
}

// Get, All, From and Len are for readers of a view.
func (t *table[K, V]) Get(k K) (V, bool) { return t.get(k) }

func (t *table[K, V]) get(k K) (v V, ok bool) {
	if p := t.row(k); p != nil {
		return *p, true
	}
	return v, false
}

// row is the value of k, only to be read, or nil.
func (t *table[K, V]) row(k K) *V {
	if t.m == nil {
		return nil
	}
	p, _ := t.m.Get(k)
	return p
}

// at returns the value of k, or the zero value.
func (t *table[K, V]) at(k K) V { v, _ := t.get(k); return v }

func (t *table[K, V]) has(k K) bool { return t.row(k) != nil }
func (t *table[K, V]) put(k K, v V) { t.part(); t.m.Set(k, &v) }
func (t *table[K, V]) delete(k K)   { t.part(); t.m.Delete(k) }
func (t *table[K, V]) Len() int     { return t.len() }

func (t *table[K, V]) len() int {
	if t.m == nil {
		return 0
	}
	return t.m.Len()
}

// share marks the table, after which it may be copied by assignment: whichever
// is written to parts from the others.
func (t *table[K, V]) share() { t.shared = true }

// part gives the table a tree of its own, which copies every node of another
// before it writes to it.
func (t *table[K, V]) part() {
	switch {
	case t.m == nil:
		t.m = btree.NewMap[K, *V](nodeDegree)
	case t.shared:
		m := *t.m // others may be doing the same: what is shared is only read
		t.m = m.Copy()
	}
	t.shared = false
}

// nodeDegree keeps nodes small, since a command copies some of each table.
const nodeDegree = 8

// All walks in ascending order of keys. The table must not change meanwhile.
func (t *table[K, V]) All() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		for k, p := range t.rows() {
			if !yield(k, *p) {
				return
			}
		}
	}
}

// last is the largest key.
func (t *table[K, V]) last() (k K, ok bool) {
	if t.m != nil {
		k, _, ok = t.m.Max()
	}
	return k, ok
}

// first is the row of the smallest key.
func (t *table[K, V]) first() (k K, v V, ok bool) {
	if t.m != nil {
		var p *V
		if k, p, ok = t.m.Min(); ok {
			v = *p
		}
	}
	return k, v, ok
}

// rows is all without copying values, which are only to be read.
func (t *table[K, V]) rows() iter.Seq2[K, *V] {
	return func(yield func(K, *V) bool) {
		if t.m != nil {
			t.m.Scan(yield)
		}
	}
}

func (t *table[K, V]) all() iter.Seq2[K, V] { return t.All() }

// From walks in ascending order beginning at the first key ≥ k.
func (t *table[K, V]) From(k K) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		if t.m == nil {
			return
		}
		t.m.Ascend(k, func(k K, p *V) bool { return yield(k, *p) })
	}
}

// keys returns all keys, ascending; for loops that change the table.
func (t *table[K, V]) keys() []K {
	if t.m == nil {
		return nil
	}
	return t.m.Keys()
}

type row[K cmp.Ordered, V any] struct {
	_ struct{} `cbor:",toarray"`
	K K
	V V
}

// MarshalCBOR writes the rows in ascending order, so equal tables are equal bytes.
func (t table[K, V]) MarshalCBOR() ([]byte, error) {
	list := make([]row[K, *V], 0, t.len())
	for k, p := range t.rows() {
		list = append(list, row[K, *V]{K: k, V: p})
	}
	return encMode.Marshal(list)
}

// UnmarshalCBOR reads what MarshalCBOR wrote. Unmarshal of the whole compares
// bytes afterwards, which catches rows in another order or doubled.
//
// Row by row: a list is many times larger than the bytes that a stranger needs
// to promise one.
func (t *table[K, V]) UnmarshalCBOR(b []byte) error {
	n, b, err := arrayOf(b)
	if err != nil {
		return err
	}
	*t = table[K, V]{m: btree.NewMap[K, *V](nodeDegree)}
	for range n {
		var r row[K, *V]
		if b, err = decMode.UnmarshalFirst(b, &r); err != nil {
			return err
		}
		if r.V == nil {
			return ErrNotCanonical
		}
		t.m.Load(r.K, r.V)
	}
	if len(b) > 0 {
		return ErrNotCanonical
	}
	return nil
}

// arrayOf reads the head of a CBOR array, in its shortest form.
func arrayOf(b []byte) (elements uint64, rest []byte, err error) {
	const array = 4 << 5
	if len(b) == 0 || b[0]>>5 != array>>5 {
		return 0, nil, fmt.Errorf("a table: %w", ErrNotCanonical)
	}
	short, size := uint64(b[0]&31), 0
	switch short {
	default:
		if short > 23 {
			return 0, nil, fmt.Errorf("a table: %w", ErrNotCanonical)
		}
		return short, b[1:], nil
	case 24, 25, 26, 27:
		size = 1 << (short - 24)
	}
	if len(b) < 1+size {
		return 0, nil, fmt.Errorf("a table: %w", ErrNotCanonical)
	}
	for _, x := range b[1 : 1+size] {
		elements = elements<<8 | uint64(x)
	}
	return elements, b[1+size:], nil
}

var (
	_ cbor.Marshaler   = table[string, int]{}
	_ cbor.Unmarshaler = (*table[string, int])(nil)
)
