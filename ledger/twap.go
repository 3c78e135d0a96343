package ledger

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/coffer-network/coffer/ledger/fixed"
)

// The time-weighted average price of 30 minutes, for an alert and nothing else
// (spec: lending §12.5): a feed that is led away slowly passes every rule that
// looks at one round.

const (
	twapMillis = 1_800_000
	// maxPastRounds is 30 minutes of rounds of 15 s, less the one that has just
	// closed. Shorter rounds are averaged over less: the state stays bounded whatever RoundSeconds becomes.
	maxPastRounds = 120
)

// Rounds is what the ledger keeps of an asset's closed rounds.
type Rounds struct {
	Reports []Reported  `cbor:"1,keyasint"` // those the newest round closed on, in the epoch's order of members
	Past    []PastRound `cbor:"2,keyasint"` // ascending, the newest last
}

// Reported is one member's part in a closed round.
type Reported struct {
	Member   MemberID  `cbor:"1,keyasint"`
	Price    fixed.Int `cbor:"2,keyasint"` // USD · 10⁸
	Observed uint64    `cbor:"3,keyasint"` // ledger time, ms
}

// PastRound is a price that held from Millis until the next round closed.
type PastRound struct {
	Millis uint64    `cbor:"1,keyasint"` // ledger time when it closed
	Low    fixed.Int `cbor:"2,keyasint"` // USD · 10⁸
}

// keepRound adds a closed round and forgets those that no average of the next
// 30 minutes needs.
func keepRound(past []PastRound, n Price) []PastRound {
	past = append(slices.Clone(past), PastRound{n.Millis, n.Low})
	for len(past) > 1 && past[1].Millis+twapMillis <= n.Millis || len(past) > maxPastRounds {
		past = past[1:]
	}
	return past
}

// twap is the average of the rounds over the 30 minutes before now, or since
// the first, each weighted by the milliseconds for which it was the newest;
// rounded down. ok is false where no time has passed under any price.
//
// It cannot overflow: a price below 2¹²⁸ times 1.8 million fits a Wide.
func twap(past []PastRound, now uint64) (_ fixed.Int, ok bool) {
	if len(past) == 0 || now <= past[0].Millis {
		return fixed.Int{}, false
	}
	from := past[0].Millis
	if now > twapMillis {
		from = max(from, now-twapMillis)
	}
	var c fixed.Calc
	var sum fixed.Wide
	for i, p := range past {
		end := now
		if i+1 < len(past) {
			end = past[i+1].Millis
		}
		if begin := max(p.Millis, from); begin < end {
			sum = c.AddMul(sum, p.Low, fixed.New(end-begin))
		}
	}
	avg := c.Narrow(fixed.WideFloor(sum, fixed.New(1).Wide(), fixed.New(now-from).Wide()))
	return avg, c.Err() == nil
}

// alert returns n with the average of the rounds before it, and since when low
// or high is away from that by more than TWAPAlertBps. Nothing else in the
// ledger reads either.
func (s *State) alert(old, n Price, past []PastRound) Price {
	avg, ok := twap(past, n.Millis)
	if !ok {
		return n
	}
	n.TWAP = avg
	bps := s.Params.TWAPAlertBps
	switch far := deviates(avg, n.Low, bps) || deviates(avg, n.High, bps); {
	case bps == 0 || !far:
	case old.Alert != 0:
		n.Alert = old.Alert
	default:
		n.Alert = s.Millis
	}
	return n
}

// FromTWAP is how far low or high, whichever is farther, was from the average
// when the round closed, in bps rounded up; ok is false without an average.
func (p Price) FromTWAP() (bps uint64, ok bool) {
	if p.TWAP.IsZero() {
		return 0, false
	}
	var c fixed.Calc
	far := c.Sub(p.Low.Max(p.TWAP), p.Low.Min(p.TWAP)).Max(c.Sub(p.High.Max(p.TWAP), p.High.Min(p.TWAP)))
	bps, ok = c.MulDivCeil(far, fixed.Bps, p.TWAP).Uint64()
	return bps, ok && c.Err() == nil
}

// checkRounds: what is kept of past rounds is bounded and in order.
func (s *State) checkRounds() error {
	for asset, r := range s.Rounds.all() {
		ordered := slices.IsSortedFunc(r.Past, func(a, b PastRound) int { return cmp.Compare(a.Millis, b.Millis) })
		if len(r.Past) == 0 || len(r.Past) > maxPastRounds || !ordered {
			return fmt.Errorf("rounds of %s: %d kept, in order: %v", asset, len(r.Past), ordered)
		}
	}
	return nil
}
