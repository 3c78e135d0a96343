package ledger

import (
	"errors"
	"fmt"
	"slices"

	"github.com/coffer-network/coffer/ledger/fixed"
)

// VerifySpend refuses an unsigned transaction that pays an outflow without
// consuming its anchor, pays anything the ledger does not owe, pays beyond an
// outflow cap, or spends anything the batch does not hold. spends and pays are read from the bytes by
// other code than the code that made them (chains.Chain's Reads), so a mistake
// in the making is caught here. It is the only door to a signing session
// (spec: outflows §1.1).
func (s *State) VerifySpend(batch, k uint64, spends []string, pays []Payment) error {
	b, ok := s.Batches.get(batch)
	switch {
	case !ok || b.Kind != BatchPay:
		return fmt.Errorf("batch %d: no transaction is planned", batch)
	case b.Done:
		return fmt.Errorf("batch %d is settled", batch)
	case s.Stopped() != "":
		return errors.New(s.Stopped())
	case s.haltOf(b) != "":
		return fmt.Errorf("batch %d: %s", batch, s.haltOf(b))
	case b.Newest().K != k:
		return fmt.Errorf("batch %d: attempt %d is not the newest, %d is", batch, k, b.Newest().K)
	case !slices.Contains(spends, b.Anchor):
		return fmt.Errorf("batch %d: the transaction does not consume its anchor %s", batch, b.Anchor)
	}
	if err := s.CapsKept(batch); err != nil {
		return fmt.Errorf("batch %d: %w", batch, err)
	}
	seen := map[string]bool{}
	for _, r := range spends {
		if seen[r] {
			return fmt.Errorf("batch %d: spends %s twice", batch, r)
		}
		seen[r] = true
		if c, coin := s.Coins.get(r); b.Chain == Bitcoin && (!coin || c.State != CoinFrozen || c.Batch != batch) {
			return fmt.Errorf("batch %d: does not hold %s", batch, r)
		}
		if b.Chain != Bitcoin && r != b.Anchor {
			return fmt.Errorf("batch %d: does not hold %s", batch, r)
		}
	}
	left := slices.Clone(pays)
	for _, id := range b.Outflows {
		o, ok := s.Outflows.get(id)
		if !ok || o.Batch != batch || o.State != Planned && o.State != Cancelling {
			return fmt.Errorf("batch %d: outflow %d is not planned in it", batch, id)
		}
		if o.State == Cancelling {
			continue // what it pays is left over below: nothing, but to ourselves
		}
		if o.Net.IsZero() || o.Gross.Less(o.Net) {
			return fmt.Errorf("batch %d: outflow %d of %s nets %s", batch, id, o.Gross, o.Net)
		}
		i := slices.Index(left, Payment{Asset: o.Asset, To: o.To, Amount: o.Net})
		if i < 0 {
			return fmt.Errorf("batch %d: the transaction does not pay outflow %d", batch, id)
		}
		left = slices.Delete(left, i, i+1)
	}
	if b.Chain == Bitcoin {
		return s.verifyChange(b, spends, pays, left)
	}
	if len(left) > 0 {
		return fmt.Errorf("batch %d: pays %s %s to %s, which nobody is owed", batch, left[0].Amount, left[0].Asset, left[0].To)
	}
	return nil
}

// verifyChange: whatever a Bitcoin transaction pays beyond its outflows goes to
// the vault, and what it leaves to the miners is within bounds.
func (s *State) verifyChange(b Batch, spends []string, pays, left []Payment) error {
	vault, ok := s.vaultOf(b)
	if !ok {
		return fmt.Errorf("batch %d: no vault", b.ID)
	}
	for _, p := range left {
		if p.To != vault.Address {
			return fmt.Errorf("batch %d: pays %s sats to %s, which nobody is owed", b.ID, p.Amount, p.To)
		}
	}
	var c fixed.Calc
	in, out := fixed.Int{}, fixed.Int{}
	for _, r := range spends {
		in = c.Add(in, fixed.New(s.Coins.at(r).Sats))
	}
	for _, p := range pays {
		out = c.Add(out, p.Amount)
	}
	fee := c.Sub(in, out)
	chain, _ := s.Genesis.Chain(Bitcoin)
	vsize := bitcoinVSize(len(spends), 34) + uint64(len(pays))*43
	most := fixed.New(vsize*chain.MaxRate/1000 + maxNoChange)
	if c.Err() != nil || most.Less(fee) {
		return fmt.Errorf("batch %d: fee of %s sats is beyond %s", b.ID, fee, most)
	}
	return nil
}
