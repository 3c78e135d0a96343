package ledger

import (
	"slices"

	"github.com/coffer-network/coffer/ledger/fixed"
)

// Outflows is the table of all outflows. It knows what the open ones reserve of
// each asset, so that I5 is checked after every command without a walk.
type Outflows struct {
	table[uint64, Outflow]
	reserved []reserve // ascending by asset
	own      bool      // nobody else sees its array
}

type reserve struct {
	asset  string
	amount fixed.Wide
}

// reserves reports whether an outflow is a part of its pool's Reserved.
func (o Outflow) reserves() bool {
	switch o.Kind {
	case OutflowBorrow, OutflowWithdraw, OutflowRefund:
		return o.State != Paid && o.State != Refunded
	}
	return false
}

func (t *Outflows) put(id uint64, o Outflow) {
	old, was := t.table.get(id)
	if !t.own {
		t.reserved, t.own = slices.Clone(t.reserved), true
	}
	if o.reserves() {
		r := t.reserve(o.Asset)
		r.amount = must(r.amount.Add(o.Gross.Wide()))
	}
	if was && old.reserves() {
		r := t.reserve(old.Asset)
		r.amount = must(r.amount.Sub(old.Gross.Wide()))
	}
	t.table.put(id, o)
}

func (t *Outflows) delete(id uint64) {
	t.put(id, Outflow{ID: id})
	t.table.delete(id)
}

func (t *Outflows) reserve(asset string) *reserve {
	i, found := slices.BinarySearchFunc(t.reserved, asset, func(r reserve, a string) int { return cmpText(r.asset, a) })
	if !found {
		t.reserved = slices.Insert(t.reserved, i, reserve{asset: asset})
	}
	return &t.reserved[i]
}

// reserves returns what all open outflows reserve of an asset.
func (t *Outflows) reserves(asset string) fixed.Wide {
	for _, r := range t.reserved {
		if r.asset == asset {
			return r.amount
		}
	}
	return fixed.Wide{}
}

// share is table.share.
func (t *Outflows) share() {
	t.table.share()
	t.own = false
}

// UnmarshalCBOR reads the rows and adds up what they reserve.
func (t *Outflows) UnmarshalCBOR(b []byte) error {
	*t = Outflows{own: true}
	if err := t.table.UnmarshalCBOR(b); err != nil {
		return err
	}
	for _, o := range t.all() {
		if o.reserves() {
			r := t.reserve(o.Asset)
			r.amount = must(r.amount.Add(o.Gross.Wide()))
		}
	}
	return nil
}
