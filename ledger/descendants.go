package ledger

import (
	"fmt"
	"slices"
)

// What others build upon an unconfirmed transaction of ours must be outbid with it:
// a node takes a replacement only if it pays more than all that it evicts, so a payee
// could pin a batch with a fat child of his output. Each member says what it sees in
// its own node's memory pool, and a bump counts the median (spec: outflows §3.2,
// consensus §7).

// maxDescendantSats is more than there will ever be.
const maxDescendantSats = 21_000_000 * 100_000_000

// Descendants says what the descendants of a batch's unconfirmed transactions pay in
// fees, sats, as one member's node has them. The newest word of a member counts.
type Descendants struct {
	Batch uint64 `cbor:"1,keyasint"`
	Sats  uint64 `cbor:"2,keyasint"`
}

// DescendantWord is what the ledger keeps of it.
type DescendantWord struct {
	Member MemberID `cbor:"1,keyasint"`
	Sats   uint64   `cbor:"2,keyasint"`
	Millis uint64   `cbor:"3,keyasint"` // ledger time when it arrived
}

// descendants takes a member's word about an open Bitcoin batch; about any other it
// changes nothing.
func (x *execution) descendants(m MemberID, f Descendants) Code {
	s := x.s
	if f.Sats > maxDescendantSats {
		return Malformed
	}
	if b, ok := s.Batches.get(f.Batch); !ok || b.Kind != BatchPay || b.Chain != Bitcoin || b.Done || !s.Epoch().Has(m) {
		return OK
	}
	words := slices.DeleteFunc(slices.Clone(s.Children.at(f.Batch)), func(w DescendantWord) bool {
		return w.Member == m || !s.Epoch().Has(w.Member)
	})
	i, _ := slices.BinarySearchFunc(words, m, func(w DescendantWord, m MemberID) int { return slices.Compare(w.Member[:], m[:]) })
	s.Children.put(f.Batch, slices.Insert(words, i, DescendantWord{m, f.Sats, s.Millis}))
	return OK
}

// descendantFees is the median of fresh words of present members, the upper middle of
// an even count; 0 with fewer than 2f+1 of them, so that f liars move nothing.
func (s *State) descendantFees(batch uint64) uint64 {
	var sats []uint64
	for _, w := range s.Children.at(batch) {
		if s.Epoch().Has(w.Member) && s.Millis-w.Millis <= s.Params.FeeMaxAgeMillis {
			sats = append(sats, w.Sats)
		}
	}
	if len(sats) < 2*s.Epoch().F+1 {
		return 0
	}
	slices.Sort(sats)
	return sats[len(sats)/2]
}

// descendantsEvery is the least time between two words of a member about a batch.
const descendantsEvery = 10_000 // ms

// WantsDescendants reports whether a member that sees this much should say so: it
// said something else, or too long ago. Nothing is said of nothing before somebody
// saw something, which is the usual case.
func (s *State) WantsDescendants(m MemberID, d Descendants) bool {
	b, ok := s.Batches.get(d.Batch)
	if !ok || b.Kind != BatchPay || b.Chain != Bitcoin || b.Done || b.Spent != nil {
		return false
	}
	words := s.Children.at(d.Batch)
	i := slices.IndexFunc(words, func(w DescendantWord) bool { return w.Member == m })
	if i < 0 {
		return d.Sats > 0 || len(words) > 0
	}
	age := s.Millis - words[i].Millis
	return age >= descendantsEvery && words[i].Sats != d.Sats || age >= s.Params.FeeMaxAgeMillis/2
}

// checkDescendants: words are about open batches, of each member one, in order.
func (s *State) checkDescendants() error {
	for id, words := range s.Children.all() {
		if b, ok := s.Batches.get(id); !ok || b.Done || b.Chain != Bitcoin || len(words) == 0 {
			return fmt.Errorf("batch %d: %d words about what is built upon it", id, len(words))
		}
		for i := 1; i < len(words); i++ {
			if slices.Compare(words[i-1].Member[:], words[i].Member[:]) >= 0 {
				return fmt.Errorf("batch %d: words about what is built upon it are not sorted, or doubled", id)
			}
		}
	}
	return nil
}
