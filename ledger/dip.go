package ledger

import (
	"slices"

	"github.com/coffer-network/coffer/ledger/fixed"
)

// Dip is an account that was below HF 1 at the last evaluation: when ledger time
// passed a 15 s mark, or a price round closed.
type Dip struct {
	Since uint64 `cbor:"1,keyasint"` // ledger time of the evaluation that found it first, ms
	Round uint64 `cbor:"2,keyasint"` // newest price round of its assets then
}

// noteDips evaluates who is below HF 1 (spec: lending §8.4, first-dip grace).
// Afterwards an account is in Dips if and only if its HF is below 1 at indices
// as synced and closed prices, however old; an account that cannot be weighed
// is not. Since and Round of one that was in Dips before stay.
func (x *execution) noteDips() {
	s := x.s
	below := s.unhealthy()
	for _, id := range below {
		if !s.Dips.has(id) {
			s.Dips.put(id, Dip{Since: s.Millis, Round: s.newestRound(s.Accounts.at(id))})
		}
	}
	for _, id := range s.Dips.keys() {
		if _, found := slices.BinarySearch(below, id); !found {
			s.Dips.delete(id)
		}
	}
}

// newestRound is the newest closed round of the assets in an account's
// positions.
func (s *State) newestRound(a Account) (round uint64) {
	for _, at := range a.Positions {
		round = max(round, s.Prices.at(at.Pool).Round)
	}
	return round
}

// graced reports whether a liquidation must wait because the borrower has only
// just fallen below HF 1: one bad round must not cost him his collateral. The
// grace ends when every asset of his has closed a later round and 15 s passed,
// or after FirstDipSeconds; at HF 0.95 and below there is none. One whom no
// evaluation has found yet has his whole grace before him: the next is at most
// 15 s away.
func (s *State) graced(a Account, h Health) bool {
	limit := s.Params.FirstDipSeconds * 1000
	if limit == 0 || h.Healthy() || h.HF == nil || !closeFactorHF.Less(*h.HF) {
		return false
	}
	d, ok := s.Dips.get(a.ID)
	if !ok {
		return true
	}
	age := s.Millis - d.Since
	if age < minFirstDipSeconds*1000 || age >= limit {
		return age < limit
	}
	for _, at := range a.Positions {
		if s.Prices.at(at.Pool).Round <= d.Round {
			return true
		}
	}
	return false
}

// AtRisk is an account that was below HF 1 at the last evaluation, as it stands
// at ledger time.
type AtRisk struct {
	Account   AccountID
	HF        *fixed.Int // WAD; nil: debt-free since, or not to be weighed
	DebtValue fixed.Int  // USD · 10⁸
	CollValue fixed.Int  // USD · 10⁸
	Since     uint64     // ledger time of the evaluation that found it, ms
	Code      Code       // why a liquidation would be refused now whatever its amount; OK: it would not
}

// AtRisk returns the accounts in Dips after the given one, ascending, at most
// limit of them, each weighed at ledger time by the functions of liquidate.
func (s *State) AtRisk(after AccountID, limit int) []AtRisk {
	v := s.synced("")
	var out []AtRisk
	for id, d := range s.Dips.From(after) {
		if id == after {
			continue
		}
		if len(out) >= limit {
			break
		}
		a := s.Accounts.at(id)
		h, code := v.weighAccount(a, asClosed)
		r := AtRisk{Account: id, HF: h.HF, DebtValue: h.DebtValue, CollValue: h.CollValue, Since: d.Since, Code: code}
		if code == OK {
			if r.Code = v.spared(a); r.Code == OK && h.Healthy() {
				r.Code = Healthy
			}
		}
		out = append(out, r)
	}
	return out
}
