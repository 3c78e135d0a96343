package ledger

import "github.com/coffer-network/coffer/ledger/fixed"

// One USD in units of prices and values.
var oneUSD = fixed.New(100_000_000)

// leg is one account's place in one pool, as balances in base units.
type leg struct {
	Pool       string
	Decimals   uint8
	Low, High  fixed.Int // USD · 10⁸ per whole token: for collateral, for debt
	Supply     fixed.Int // all of it, rounded down
	Collateral fixed.Int // the part that counts, rounded down
	Debt       fixed.Int // rounded up
	LT, LTV    uint64    // bps
}

// collValue is ⌊collateral·low/10^dec⌋.
func (l *leg) collValue(amount fixed.Int) (fixed.Int, error) {
	var c fixed.Calc
	v := c.MulDivFloor(amount, l.Low, c.Pow10(l.Decimals))
	return v, c.Err()
}

// debtValue is ⌈debt·high/10^dec⌉.
func (l *leg) debtValue(amount fixed.Int) (fixed.Int, error) {
	var c fixed.Calc
	v := c.MulDivCeil(amount, l.High, c.Pow10(l.Decimals))
	return v, c.Err()
}

// Health is what an account's collateral and debt weigh (spec: lending §2).
type Health struct {
	CollValue fixed.Int  // USD · 10⁸
	DebtValue fixed.Int  // USD · 10⁸
	SumLT     fixed.Wide // Σ v·LT
	SumLTV    fixed.Wide // Σ v·LTV
	HF        *fixed.Int // WAD, rounded down, for showing; nil: no debt
}

// weigh adds up the legs.
func weigh(legs []leg) (Health, error) {
	h, err := sumUp(legs)
	if err != nil || h.DebtValue.IsZero() {
		return h, err
	}
	hf, err := fixed.WideFloor(h.SumLT, fixed.Wad.Wide(), h.debt())
	if err != nil {
		return Health{}, err
	}
	shown, err := hf.Int()
	if err != nil {
		shown = fixed.Max // beyond any use; a number for showing refuses nothing
	}
	h.HF = &shown
	return h, nil
}

// sumUp is weigh without HF, which decides nothing.
func sumUp(legs []leg) (Health, error) {
	var (
		c fixed.Calc
		h Health
	)
	for i := range legs {
		l := &legs[i]
		v := c.Int(l.collValue(l.Collateral))
		h.CollValue = c.Add(h.CollValue, v)
		h.DebtValue = c.Add(h.DebtValue, c.Int(l.debtValue(l.Debt)))
		h.SumLT = c.AddMul(h.SumLT, v, fixed.New(l.LT))
		h.SumLTV = c.AddMul(h.SumLTV, v, fixed.New(l.LTV))
	}
	if c.Err() != nil {
		return Health{}, c.Err()
	}
	return h, nil
}

// debt is D·10⁴: what Σ v·LT and Σ v·LTV are compared with.
func (h Health) debt() fixed.Wide { return fixed.Product(h.DebtValue, fixed.Bps) }

// Healthy reports Σ v·LT ≥ D·10⁴, exactly: HF ≥ 1.
func (h Health) Healthy() bool { return !h.SumLT.Less(h.debt()) }

// WithinLTV reports Σ v·LTV ≥ D·10⁴, exactly.
func (h Health) WithinLTV() bool { return !h.SumLTV.Less(h.debt()) }

// gate is the code of the first gate that h fails. Without debt there is none.
func (h Health) gate() Code {
	switch {
	case h.DebtValue.IsZero():
		return OK
	case !h.Healthy():
		return HealthFactor
	case !h.WithinLTV():
		return MaxLTV
	}
	return OK
}

// pricing says which prices legs are weighed at.
type pricing uint8

const (
	asClosed pricing = iota // of the newest closed round
	cautious                // while suspect, the worse of old and new (spec: lending §8.4)
)

// legs returns the account's positions as balances at the pools' indices.
// PRICE_STALE: an asset has no price at all; ages are fresh's to check.
func (s *State) legs(a Account, how pricing) ([]leg, Code) {
	legs := make([]leg, 0, len(a.Positions))
	for _, at := range a.Positions {
		price, ok := s.Prices.get(at.Pool)
		if !ok {
			return nil, PriceStale
		}
		l, err := s.leg(a, at, price, how)
		if err != nil {
			return nil, Arith
		}
		legs = append(legs, l)
	}
	return legs, OK
}

func (s *State) leg(a Account, at Position, price Price, how pricing) (leg, error) {
	p := s.Pools.row(at.Pool)
	if p == nil {
		p = &Pool{Param: PoolParam{Asset: at.Pool}}
	}
	q := s.quote(p, price, how)
	return q.leg(s, &a, at)
}

// quote is what legs in one pool have in common.
type quote struct {
	empty                    leg // without a position
	supplyIndex, borrowIndex fixed.Int
	priced                   bool
}

func (s *State) quote(p *Pool, price Price, how pricing) quote {
	q := quote{
		empty: leg{
			Pool: p.Param.Asset, Decimals: p.Decimals, Low: price.Low, High: price.High,
			LT: p.Param.LT, LTV: p.Param.LTV,
		},
		supplyIndex: p.SupplyIndex, borrowIndex: p.BorrowIndex,
	}
	if how == cautious && s.Suspected(price) {
		q.empty.Low, q.empty.High = price.Low.Min(price.SusLow), price.High.Max(price.SusHigh)
	}
	if asset, ok := s.Genesis.Asset(p.Param.Asset); ok && asset.Stable {
		q.empty.Low = q.empty.Low.Min(oneUSD)
	}
	return q
}

// leg is a position at the quote.
func (q *quote) leg(s *State, a *Account, at Position) (leg, error) {
	l := q.empty
	var c fixed.Calc
	l.Supply = c.MulDivFloor(at.Supply, q.supplyIndex, fixed.Ray)
	l.Collateral = l.Supply
	if len(a.Unfinal) > 0 {
		l.Collateral = c.MulDivFloor(s.collateral(*a, at), q.supplyIndex, fixed.Ray)
	}
	l.Debt = c.MulDivCeil(at.Debt, q.borrowIndex, fixed.Ray)
	return l, c.Err()
}

// collX and debtX are what a claim or a debt is worth in proportion to.
func (q *quote) collX() fixed.Wide { return fixed.Product(q.empty.Low, q.supplyIndex) }
func (q *quote) debtX() fixed.Wide { return fixed.Product(q.empty.High, q.borrowIndex) }

// weighAccount is legs and weigh in one.
func (s *State) weighAccount(a Account, how pricing) (Health, Code) {
	legs, code := s.legs(a, how)
	if code != OK {
		return Health{}, code
	}
	h, err := weigh(legs)
	if err != nil {
		return Health{}, Arith
	}
	return h, OK
}

// fresh answers PRICE_STALE unless the price of every asset that the account
// supplies or owes, and of more, is at most maxAge seconds old.
func (s *State) fresh(a Account, maxAge uint64, more ...string) Code {
	ok := func(asset string) bool {
		p, has := s.Prices.get(asset)
		return has && (s.Millis <= p.Millis || s.Millis-p.Millis <= maxAge*1000)
	}
	for _, at := range a.Positions {
		if !ok(at.Pool) {
			return PriceStale
		}
	}
	for _, asset := range more {
		if !ok(asset) {
			return PriceStale
		}
	}
	return OK
}

// gates evaluates both gates of an account at this moment, at indices as last
// synced: OK, HEALTH_FACTOR, MAX_LTV, or PRICE_STALE when they cannot be
// evaluated. An account without debt passes without a price.
func (s *State) gates(id AccountID) Code {
	a := s.Accounts.at(id)
	if !a.indebted() {
		return OK
	}
	if code := s.fresh(a, s.Params.PriceMaxAge); code != OK {
		return code
	}
	h, code := s.weighAccount(a, cautious)
	if code != OK {
		return code
	}
	return h.gate()
}

// indebted reports whether the account owes anything.
func (a Account) indebted() bool {
	for _, p := range a.Positions {
		if !p.Debt.IsZero() {
			return true
		}
	}
	return false
}

// position returns the account's place in a pool.
func (a Account) position(pool string) Position {
	for _, p := range a.Positions {
		if p.Pool == pool {
			return p
		}
	}
	return Position{Pool: pool}
}

// withPosition returns the account with one position replaced. The list is a
// new one, sorted and without empty entries, so that snapshots are canonical.
func (a Account) withPosition(n Position) Account {
	room := len(a.Positions)
	if was := a.position(n.Pool); was.Supply.IsZero() && was.Debt.IsZero() {
		room++
	}
	list := make([]Position, 0, room)
	placed := n.Supply.IsZero() && n.Debt.IsZero() // an empty one has no place
	for _, p := range a.Positions {
		if !placed && p.Pool > n.Pool {
			list, placed = append(list, n), true
		}
		if p.Pool != n.Pool {
			list = append(list, p)
		}
	}
	if !placed {
		list = append(list, n)
	}
	if a.Positions = list; len(list) == 0 {
		a.Positions = nil
	}
	return a
}
