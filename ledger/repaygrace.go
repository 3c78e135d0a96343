package ledger

import "github.com/coffer-network/coffer/ledger/fixed"

// SeenRepay is a repayment that a quorum saw with at least one confirmation and
// that is not credited yet. It is evidence, not money: it never changes debt or
// HF. While its window is open its amount of the debt is not liquidated (spec:
// lending §8.4, repay grace; off unless Params.RepayGraceSec).
type SeenRepay struct {
	Asset  string    `cbor:"1,keyasint"`
	Amount fixed.Int `cbor:"2,keyasint"` // base units
	Until  uint64    `cbor:"3,keyasint"` // ledger time when the window closes, ms
}

// RepaySeenFact says that a transaction with at least one confirmation pays a
// repay address of ours. No block is named: a coin that moves to another block
// is the same repayment, and opens no second window.
type RepaySeenFact struct {
	Chain   string    `cbor:"1,keyasint"`
	ID      string    `cbor:"2,keyasint"` // as InflowFact's
	Address string    `cbor:"3,keyasint"`
	Asset   string    `cbor:"4,keyasint"`
	Amount  fixed.Int `cbor:"5,keyasint"` // base units
}

// Limits of open windows: repayments sent in many small parts must not make a
// list that every liquidation walks.
const (
	maxSeen          = 10_000
	maxSeenOfAccount = 8
	seenKeptMillis   = 86_400_000 // an id is remembered for a day after its window, so that it opens one only
)

func seenKey(id AccountID, inflow string) string { return id + "/" + inflow }

// repaySeen opens one window for one inflow. FactQuorum is enough: nothing is
// credited by it, and the debtor gains an hour at most.
func (x *execution) repaySeen(m MemberID, f RepaySeenFact) Code {
	s := x.s
	if len(f.ID) > maxTextInFacts || len(f.Address) > maxTextInFacts || f.Amount.IsZero() {
		return Malformed
	}
	a, ok := s.Genesis.Asset(f.Asset)
	if !ok || a.Chain != f.Chain || !s.Pools.has(f.Asset) {
		return UnknownPool
	}
	w, ok := s.Watched.get(f.Chain + "/" + f.Address)
	if !ok || w.Account == "" || w.Purpose != PurposeRepay || s.Params.RepayGraceSec == 0 {
		return NotAllowed
	}
	key := seenKey(w.Account, f.ID)
	if in, ok := s.Inflows.get(f.ID); ok && in.State != InflowWaiting && in.State != InflowSweeping || s.Seen.has(key) {
		return DuplicateInflow
	}
	if !x.fact(m, KindRepaySeen, f, s.Epoch().FactQuorum) || s.Seen.len() >= maxSeen || len(s.seen(w.Account)) >= maxSeenOfAccount {
		return OK
	}
	s.Seen.put(key, SeenRepay{Asset: f.Asset, Amount: f.Amount, Until: s.Millis + s.Params.RepayGraceSec*1000})
	x.emit(Event{Name: "repay-seen", Account: w.Account, Asset: f.Asset, Amount: f.Amount.String(), Note: f.ID})
	return OK
}

// seen returns an account's windows, open or remembered.
func (s *State) seen(id AccountID) (windows []SeenRepay) {
	prefix := seenKey(id, "")
	for key, w := range s.Seen.From(prefix) {
		if len(key) < len(prefix) || key[:len(prefix)] != prefix {
			break
		}
		windows = append(windows, w)
	}
	return windows
}

// onTheWay is what open windows protect of an account's debt in a pool.
func (s *State) onTheWay(id AccountID, pool string) fixed.Int {
	var sum fixed.Int
	if s.Params.RepayGraceSec == 0 {
		return sum
	}
	for _, w := range s.seen(id) {
		if w.Asset != pool || w.Until <= s.Millis {
			continue
		}
		var err error
		if sum, err = fixed.Add(sum, w.Amount); err != nil {
			return fixed.Max
		}
	}
	return sum
}

// forgetSeen drops the windows that closed a day ago.
func (s *State) forgetSeen() {
	for _, key := range s.Seen.keys() {
		if s.Seen.at(key).Until+seenKeptMillis < s.Millis {
			s.Seen.delete(key)
		}
	}
}
