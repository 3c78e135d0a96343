package ledger

import (
	"fmt"
	"iter"
	"slices"

	"github.com/fxamacker/cbor/v2"
)

// Pools is the table of all pools, with the methods of table. There are few of
// them and nearly every command writes one, often more than once: they lie in one
// list, and a pool that a command has written already is written in place.
//
// Why not a tree like the others: each write copied its head, a node and 656
// bytes of pool, and an operation writes two or three times.
type Pools struct {
	list []poolRow // ascending by id
	own  bool      // nobody else sees the array of list
	bps  uint64    // at which rows were rated
}

type poolRow struct {
	id    string
	pool  *Pool
	mine  bool // nobody else sees pool; means nothing unless the list is own
	rated bool // refreshRates left it, and nobody has written to it since
}

func (t *Pools) find(id string) (int, bool) {
	for i := range t.list {
		if t.list[i].id >= id {
			return i, t.list[i].id == id
		}
	}
	return len(t.list), false
}

// row is the pool, only to be read until the next put, or nil.
func (t *Pools) row(id string) *Pool {
	if i, found := t.find(id); found {
		return t.list[i].pool
	}
	return nil
}

// Get, All and Len are for readers of a view.
func (t *Pools) Get(id string) (Pool, bool) { return t.get(id) }

func (t *Pools) get(id string) (p Pool, ok bool) {
	if r := t.row(id); r != nil {
		return *r, true
	}
	return p, false
}

// at returns the pool, or one without any field.
func (t *Pools) at(id string) Pool { p, _ := t.get(id); return p }

func (t *Pools) has(id string) bool { return t.row(id) != nil }
func (t *Pools) Len() int           { return len(t.list) }
func (t *Pools) len() int           { return len(t.list) }

func (t *Pools) put(id string, p Pool) {
	t.part()
	i, found := t.find(id)
	if !found {
		t.list = slices.Insert(t.list, i, poolRow{id: id})
	}
	r := &t.list[i]
	if !r.mine {
		r.pool, r.mine = new(Pool), true
	}
	*r.pool, r.rated = p, false
}

// part gives the table a list of its own, with pools that others see.
func (t *Pools) part() {
	if t.own {
		return
	}
	t.list, t.own = slices.Clone(t.list), true
	for i := range t.list {
		t.list[i].mine = false
	}
}

// share is table.share.
func (t *Pools) share() { t.own = false }

// rows walks in ascending order of ids. The pools are only to be read.
func (t *Pools) rows() iter.Seq2[string, *Pool] {
	return func(yield func(string, *Pool) bool) {
		for _, r := range t.list {
			if !yield(r.id, r.pool) {
				return
			}
		}
	}
}

// All walks in ascending order of ids.
func (t *Pools) All() iter.Seq2[string, Pool] {
	return func(yield func(string, Pool) bool) {
		for _, r := range t.list {
			if !yield(r.id, *r.pool) {
				return
			}
		}
	}
}

func (t *Pools) all() iter.Seq2[string, Pool] { return t.All() }

// keys returns all ids, ascending.
func (t *Pools) keys() []string {
	ids := make([]string, len(t.list))
	for i, r := range t.list {
		ids[i] = r.id
	}
	return ids
}

// MarshalCBOR writes what a table does.
func (t Pools) MarshalCBOR() ([]byte, error) {
	list := make([]row[string, *Pool], 0, len(t.list))
	for _, r := range t.list {
		list = append(list, row[string, *Pool]{K: r.id, V: r.pool})
	}
	return encMode.Marshal(list)
}

// UnmarshalCBOR reads what MarshalCBOR wrote, and refuses pools out of order or
// doubled.
func (t *Pools) UnmarshalCBOR(b []byte) error {
	n, b, err := arrayOf(b)
	if err != nil {
		return err
	}
	*t = Pools{own: true}
	for range n {
		var r row[string, *Pool]
		if b, err = decMode.UnmarshalFirst(b, &r); err != nil {
			return err
		}
		if last := len(t.list) - 1; r.V == nil || last >= 0 && t.list[last].id >= r.K {
			return fmt.Errorf("pool %q: %w", r.K, ErrNotCanonical)
		}
		t.list = append(t.list, poolRow{id: r.K, pool: r.V})
	}
	if len(b) > 0 {
		return ErrNotCanonical
	}
	return nil
}

var (
	_ cbor.Marshaler   = Pools{}
	_ cbor.Unmarshaler = (*Pools)(nil)
)
