package ledger

import (
	"fmt"
	"slices"
)

// Wiped says that a member has destroyed its KeyShare of a generation: it proves
// intent, not erasure.
type Wiped struct {
	Generation Generation `cbor:"1,keyasint"`
}

// WhyKeep says why KeyShares of a generation, staged, active or retired, must not
// be wiped under a certificate that covers this state's height; empty: they may
// be. The certificate is the caller's to have: without one this state may be a
// traitor leader's private branch (spec: signing §11).
func (s *State) WhyKeep(g Generation) string {
	if g.Epoch > s.LastEpoch || g.Epoch == 0 || g.Try == 0 {
		return fmt.Sprintf("epoch %d is not known yet, the highest number is %d", g.Epoch, s.LastEpoch)
	}
	if s.Next != nil {
		for _, k := range s.Next.Keys {
			if k.Key == g.Key && k.generation(s.Next) == g {
				return fmt.Sprintf("epoch %d is being prepared with it", s.Next.Epoch.Number)
			}
			if k.Key == g.Key && g.Epoch == s.Next.Epoch.Number && g.Try > k.Try {
				return fmt.Sprintf("try %d is not planned yet, %d is", g.Try, k.Try)
			}
		}
	}
	last := -1 // the newest epoch that signs or signed with it
	for i, e := range s.Epochs {
		if slices.Contains(s.Infos.at(e.Number).Keys, g) {
			last = i
		}
	}
	if last < 0 {
		return "" // staged, and its plan or its try was dropped
	}
	if last == len(s.Epochs)-1 {
		return fmt.Sprintf("epoch %d signs with it", s.Epoch().Number)
	}
	for id := range s.Live.all() {
		if b := s.Batches.at(id); b.Key == g.Key && b.Newest().Epoch == g.Epoch && b.Newest().Try == g.Try && b.Kind != BatchReshare {
			return fmt.Sprintf("attempt %d of batch %d is open under it", b.Newest().K, id)
		}
	}
	proven := false
	for _, e := range s.Epochs[last+1:] {
		proven = proven || s.Infos.at(e.Number).Proven != 0
	}
	if !proven {
		return fmt.Sprintf("no test signatures of every member and key since epoch %d", s.Epochs[last+1].Number)
	}
	flip := s.Infos.at(s.Epochs[last+1].Number)
	if end := flip.Flipped + s.Params.RollbackSeconds*1000; !flip.Evicted && s.Millis < end {
		return fmt.Sprintf("a vote may go back to it until ledger time %d ms, now %d", end, s.Millis)
	}
	return ""
}

// generation is what k makes or takes.
func (k NextKey) generation(n *NextEpoch) Generation {
	g := Generation{Key: k.Key, Epoch: k.Epoch, Try: k.Try}
	if g.Epoch == 0 {
		g.Epoch = n.Epoch.Number
	}
	return g
}

// wiped notes that a member wiped a generation it held.
func (x *execution) wiped(m MemberID, w Wiped) Code {
	s := x.s
	g := w.Generation
	if !s.holder(m, g) || s.WhyKeep(g) != "" {
		return NotAllowed
	}
	s.Wiped.put(g.String(), withMember(s.Wiped.at(g.String()), m))
	x.emit(Event{Name: "wiped", Note: m.String() + " " + g.String()})
	return OK
}

// AwaitsWiped reports whether the ledger takes m's word that it wiped g, and has
// not heard it.
func (s *State) AwaitsWiped(m MemberID, g Generation) bool {
	return s.holder(m, g) && !s.HasWiped(m, g) && s.WhyKeep(g) == ""
}

// holder: m was a member of an epoch that signed with g.
func (s *State) holder(m MemberID, g Generation) bool {
	return slices.ContainsFunc(s.Epochs, func(e Epoch) bool { return e.Has(m) && slices.Contains(s.Infos.at(e.Number).Keys, g) })
}

// HasWiped reports whether the ledger heard so.
func (s *State) HasWiped(m MemberID, g Generation) bool {
	return slices.Contains(s.Wiped.at(g.String()), m)
}
