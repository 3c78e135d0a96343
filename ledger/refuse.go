package ledger

import "slices"

// maxRefusalText is the longest reason of a signer, bytes.
const maxRefusalText = 160

// Refusal says that a member will not sign what an attempt pays, and why: its own
// check of the outflow caps, a stricter limit of its operator, its screening
// (spec: committee §5). It is no vote and changes no plan; the member comes last
// in the rosters that follow, and everybody can read the reason.
//
// Why it does not bring the next attempt at once, as GaveUp does: a reason stays
// what it is, and attempts would follow each other as fast as refusals.
type Refusal struct {
	Batch   uint64 `cbor:"1,keyasint"`
	Attempt uint64 `cbor:"2,keyasint"`
	Reason  string `cbor:"3,keyasint"` // printable ASCII
}

// Refuser is a member that refuses an attempt.
type Refuser struct {
	Member MemberID `cbor:"1,keyasint"`
	Reason string   `cbor:"2,keyasint"`
}

func (x *execution) refuses(m MemberID, f Refusal) Code {
	s := x.s
	b, ok := s.Batches.get(f.Batch)
	if !ok || b.Kind != BatchPay || b.Done || b.Spent != nil || b.Newest().K != f.Attempt {
		return OK // about an attempt that is no more
	}
	if f.Reason == "" || len(f.Reason) > maxRefusalText || slices.ContainsFunc([]byte(f.Reason), func(c byte) bool { return c < ' ' || c > '~' }) {
		return Malformed
	}
	a := b.Newest()
	if e, ok := s.epochNumber(a.Epoch); !ok || !e.Has(m) {
		return NotAllowed
	}
	a.Refused = slices.DeleteFunc(slices.Clone(a.Refused), func(r Refuser) bool { return r.Member == m })
	a.Refused = append(a.Refused, Refuser{m, f.Reason})
	slices.SortFunc(a.Refused, func(a, b Refuser) int { return slices.Compare(a.Member[:], b.Member[:]) })
	b.Attempts = slices.Clone(b.Attempts)
	b.Attempts[len(b.Attempts)-1] = a
	s.Batches.put(b.ID, b)
	x.emit(Event{Name: "signer-refuses", Batch: b.ID, Note: m.String() + " " + f.Reason})
	return OK
}

// RefusedBy returns why a member refuses an attempt; empty: it does not.
func (a Attempt) RefusedBy(m MemberID) string {
	for _, r := range a.Refused {
		if r.Member == m {
			return r.Reason
		}
	}
	return ""
}

// refusers are the members that refuse an attempt, in the order of their ids.
func (a Attempt) refusers() []MemberID {
	var ms []MemberID
	for _, r := range a.Refused {
		ms = append(ms, r.Member)
	}
	return ms
}
