package ledger

import (
	"encoding/binary"
	"slices"

	"github.com/coffer-network/coffer/ledger/fixed"
)

// The finder: which accounts may have fallen below HF 1, without asking all.
//
// For a pool let X be the price as weighed times the index: low (stables capped)
// times SupplyIndex for collateral, high times BorrowIndex for debt. While an
// account is not touched, what it holds or owes in a pool is worth in proportion
// to that pool's X. So for each pair of a pool c that it holds as collateral
// and a pool d in which it owes, a mark is kept at T = h·X_d/X_c of the moment
// when it was weighed, and the account need be weighed again only when for one
// of its pairs the ratio X_d/X_c has passed T.
//
// Proof. At the moment of the marks let, for its collateral pools (those with
// LT > 0 and a part in A), v_c be the weighed value, V_c the exact one, and u_c
// the value of one base unit; for its debts w_d, W_d and u_d likewise. By the
// rounding of legs and values
//
//	v_c > V_c − u_c − 1,   w_d < W_d + u_d + 1.
//
// Later, with g_c and G_d the growth of X_c and X_d, V'_c = g_c·V_c and W'_d =
// G_d·W_d. SupplyIndex has not fallen (socialise forgets all marks) and
// BorrowIndex never falls, so one base unit grew no more than X: u'_c ≤ g_c·u_c
// and u'_d ≤ G_d·u_d. Other collateral, and what has become final or was
// supplied or repaid since, only raises HF. With g the least g_c and G the
// largest G_d,
//
//	Σ v'·LT   ≥ g·A − Σ LT,          A = Σ (V_c − u_c)·LT_c
//	Σ w'·10⁴  ≤ G·B·10⁴ + m·10⁴,     B = Σ (W_d + u_d), m debts
//
// so HF' ≥ 1 if g·A ≥ G·B·10⁴ + K with K = Σ LT + m·10⁴. No G_d has fallen
// below 1/domain (else all marks are forgotten), so K ≤ G·domain·K, and HF' ≥ 1
// if g/G ≥ 1/h with h = A / (B·10⁴ + domain·K). Now g/G = g_c/G_d for some pair,
// which is (X_d/X_c) / (X'_d/X'_c): HF' < 1 needs a pair with X'_d/X'_c > T. ∎
//
// A and T are rounded down, B and the present ratio up, and ranks keep order.
//
// Marks are derived: they are in no snapshot and under no root, and whoever is
// found is weighed exactly. A replica with other marks finds the same accounts.
const (
	// domain is how far a debt's X may fall before all marks are set anew. It
	// costs a debt of 1 USD 4·10⁻⁵ of its distance to HF 1.
	domain = 1024
	// maxPairs bounds the marks of an account: beyond it is weighed every time.
	maxPairs = 100
	// alwaysPair is the pair of accounts that are weighed every time: those that
	// cannot be weighed, that owe without collateral, or have too many pairs.
	alwaysPair = 1<<16 - 1
	// maxRiskPools is how many pools pairs can name.
	maxRiskPools = 255
)

// mark is a pair and the rank of its T.
type mark struct {
	pair uint16
	rank uint32
}

// seen is what the marks of a pool rely on.
type seen struct {
	pool string
	lt   uint64
	top  fixed.Wide // the largest X_d at which any mark was set
}

// Rows of accounts carry their marks before the packed account: their count,
// with unmarked added while the account waits to be weighed, and the marks.
const (
	unmarked  = 0x80
	markBytes = 6
)

func appendRow(b []byte, marks []mark, waits bool, packed string) []byte {
	head := byte(len(marks))
	if waits {
		head |= unmarked
	}
	b = append(b, head)
	for _, m := range marks {
		b = m.append(b)
	}
	return append(b, packed...)
}

func (m mark) append(b []byte) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(b, m.pair), m.rank)
}

// marksHead is what comes before the packed account of a row.
func marksHead(row string) string { return row[:len(row)-len(packedOf(row))] }

// unmarkedHead is that of an account without a mark.
const unmarkedHead = "\x00"

// packedOf is the packed account of a row.
func packedOf(row string) string { return row[1+markBytes*int(row[0]&^unmarked):] }

func waits(row string) bool { return row[0]&unmarked != 0 }

func marksOf(row string) []mark {
	list := make([]mark, row[0]&^unmarked)
	for i := range list {
		e := row[1+markBytes*i:]
		list[i] = mark{
			pair: uint16(e[0])<<8 | uint16(e[1]),
			rank: uint32(e[2])<<24 | uint32(e[3])<<16 | uint32(e[4])<<8 | uint32(e[5]),
		}
	}
	return list
}

// riskKey is where a mark of an account lies in book.risk: by pair, then rank.
func riskKey(m mark, key string) string {
	var b [markBytes + 40]byte
	return string(append(m.append(b[:0]), key...))
}

// improved reports whether an account that was touched can only be healthier
// than before at any prices: its marks still hold.
func improved(old, now Account) bool {
	if !slices.Equal(old.Unfinal, now.Unfinal) {
		return false
	}
	for _, was := range old.Positions {
		if now.position(was.Pool).Supply.Less(was.Supply) {
			return false
		}
	}
	for _, is := range now.Positions {
		if old.position(is.Pool).Debt.Less(is.Debt) {
			return false
		}
	}
	return true
}

// unhealthy returns all accounts below HF 1 at the pools' indices and the closed
// prices, ascending: those that weigh less than they owe, whoever was so before.
// Accounts that cannot be weighed are not among them.
func (s *State) unhealthy() []AccountID {
	f := newFinder(s)
	keys := f.candidates()
	ids := make([]AccountID, 0, len(keys))
	for _, key := range keys {
		if f.weigh(key) {
			ids = append(ids, keyAccount(key))
		}
	}
	f.settle()
	f.book.fresh = nil
	slices.Sort(ids) // keys of texts come after all others
	return ids
}

// markAll is the work of the next unhealthy, done ahead of it.
func (s *State) markAll() { newFinder(s) }

// finder is one search.
type finder struct {
	s      *State
	book   *book
	quotes []quote // by the number that pairs give a pool
	legs   []leg   // of the account being weighed
	at     []int   // their pools' numbers
	weighs Account // that account: its lists are used again

	risk []edit // what becomes of book.risk, once all are weighed
	room []byte // for a row
}

// newFinder has marks that hold. Where many wait, one walk sets them cheaper.
func newFinder(s *State) *finder {
	f := &finder{s: s, book: s.Accounts.writable()}
	if !f.prepare() || len(f.book.fresh) > f.book.rows.n/8 {
		f.mark()
	}
	return f
}

// prepare gathers prices and indices and reports whether the marks hold. What
// they rely on is compared rather than announced by whoever changes it.
func (f *finder) prepare() bool {
	b, hold := f.book, true
	if b.unfinalCounts != f.s.Params.UnfinalCounts {
		b.unfinalCounts, hold = f.s.Params.UnfinalCounts, false
	}
	pools := slices.Clone(b.pools)
	for id, p := range f.s.Pools.rows() {
		i := slices.IndexFunc(pools, func(n seen) bool { return n.pool == id })
		if i < 0 {
			i = len(pools)
			pools = append(pools, seen{pool: id, lt: p.Param.LT})
		}
		q := f.quote(p)
		n := &pools[i]
		fallen, err := q.debtX().Mul(fixed.New(domain).Wide())
		if n.lt != p.Param.LT || err == nil && fallen.Less(n.top) {
			hold, n.lt, n.top = false, p.Param.LT, fixed.Wide{}
		}
		if n.top.Less(q.debtX()) {
			n.top = q.debtX()
		}
	}
	b.pools = pools
	f.quotes = make([]quote, len(pools))
	for i, n := range pools {
		if p := f.s.Pools.row(n.pool); p != nil {
			f.quotes[i] = f.quote(p)
		}
	}
	return hold && !b.unset
}

func (f *finder) quote(p *Pool) quote {
	price, ok := f.s.Prices.get(p.Param.Asset)
	q := f.s.quote(p, price, asClosed)
	q.priced = ok
	return q
}

// candidates are the keys of all that may be below HF 1, ascending.
func (f *finder) candidates() []string {
	keys := slices.Clone(f.book.fresh)
	pools := min(len(f.quotes), maxRiskPools)
	for c := range pools {
		for d := range pools {
			last := uint32(1<<32 - 1) // a ratio that cannot be formed may be anything
			if ratio, err := f.quotes[d].debtX().Up().DivUp(f.quotes[c].collX().Down()); err == nil {
				last = ratio.Rank()
			}
			keys = f.scan(keys, pairOf(c, d), last)
		}
	}
	keys = f.scan(keys, alwaysPair, 0)
	slices.SortFunc(keys, compareKeys)
	return slices.Compact(keys)
}

func pairOf(c, d int) uint16 { return uint16(c)<<8 | uint16(d) }

// scan adds the accounts with a mark of the pair at rank last or below.
func (f *finder) scan(keys []string, pair uint16, last uint32) []string {
	for k := range f.book.risk.from(string(binary.BigEndian.AppendUint16(nil, pair))) {
		at := mark{uint16(k[0])<<8 | uint16(k[1]), uint32(k[2])<<24 | uint32(k[3])<<16 | uint32(k[4])<<8 | uint32(k[5])}
		if at.pair != pair || at.rank > last {
			break
		}
		keys = append(keys, k[markBytes:])
	}
	return keys
}

// weigh weighs an account exactly and reports whether it is below HF 1. If not,
// its marks are set to what it is now, so that it is found no sooner than it
// must.
func (f *finder) weigh(key string) bool {
	row, ok := f.book.rows.get(key)
	if !ok {
		return false
	}
	f.weighs.unpackLending(packedOf(row))
	weighed, below := f.weighLegs(&f.weighs)
	if below && !waits(row) {
		return true // its marks found it, and will again
	}
	if marks := f.marks(weighed); waits(row) || farther(marksOf(row), marks) {
		f.remark(key, row, marks)
	}
	return below
}

// outcome of a weighing, by which marks are set.
type outcome uint8

const (
	noDebt    outcome = iota
	everyTime         // it cannot be weighed
	asLegs            // f.legs and f.at are its legs
)

// weighLegs weighs an account.
func (f *finder) weighLegs(a *Account) (o outcome, below bool) {
	if !a.indebted() {
		return noDebt, false
	}
	f.legs, f.at = f.legs[:0], f.at[:0]
	for _, at := range a.Positions {
		i := f.number(at.Pool)
		if i < 0 || !f.quotes[i].priced {
			return everyTime, false
		}
		l, err := f.quotes[i].leg(f.s, a, at)
		if err != nil {
			return everyTime, false
		}
		f.legs, f.at = append(f.legs, l), append(f.at, i)
	}
	h, err := sumUp(f.legs)
	if err != nil {
		return everyTime, false
	}
	return asLegs, !h.Healthy()
}

// marks says where the marks of the account that was just weighed belong.
func (f *finder) marks(o outcome) (marks []mark) {
	if o == noDebt {
		return nil
	}
	if o == asLegs {
		if h, ok := f.least(); ok {
			marks = f.pairs(h)
		}
	}
	if len(marks) == 0 || len(marks) > maxPairs {
		marks = []mark{{pair: alwaysPair}}
	}
	return marks
}

// number is the number that pairs give a pool, or -1.
func (f *finder) number(pool string) int {
	for i := range min(len(f.quotes), maxRiskPools) {
		if f.quotes[i].empty.Pool == pool {
			return i
		}
	}
	return -1
}

// least is the h of the proof, rounded down.
func (f *finder) least() (fixed.Bound, bool) {
	var (
		c    fixed.Calc
		a, b fixed.Wide
		k    uint64
	)
	one := fixed.New(1)
	for i := range f.legs {
		l := &f.legs[i]
		if v := counted(l); !v.IsZero() {
			a = c.AddMul(a, v, fixed.New(l.LT))
			k += l.LT
		}
		if !l.Debt.IsZero() {
			b = c.AddMul(b, c.Int(l.debtValue(c.Add(l.Debt, one))), fixed.Bps)
			k += bpsScale
		}
	}
	b = c.AddMul(b, fixed.New(k), fixed.New(domain))
	if c.Err() != nil {
		return fixed.Bound{}, false
	}
	h, err := a.Down().DivDown(b.Up())
	return h, err == nil && !h.IsZero()
}

// counted is what a leg has in A: its value less that of a base unit, rounded
// down; 0: it is none of the pairs.
func counted(l *leg) fixed.Int {
	one := fixed.New(1)
	if l.LT == 0 || !one.Less(l.Collateral) {
		return fixed.Int{}
	}
	var c fixed.Calc
	v := c.Int(l.collValue(c.Sub(l.Collateral, one)))
	return v // 0 after an error, which sumUp has met before
}

// pairs are the marks of the weighed account at h. None: they cannot be formed.
func (f *finder) pairs(h fixed.Bound) []mark {
	var marks []mark
	for i := range f.legs {
		if counted(&f.legs[i]).IsZero() {
			continue
		}
		for j := range f.legs {
			if f.legs[j].Debt.IsZero() {
				continue
			}
			x := f.quotes[f.at[j]].debtX()
			ratio, err := x.Down().DivDown(f.quotes[f.at[i]].collX().Up())
			if err != nil || x.IsZero() { // worth nothing now: it may grow to anything
				return nil
			}
			marks = append(marks, mark{pair: pairOf(f.at[i], f.at[j]), rank: h.MulDown(ratio).Rank()})
		}
	}
	return marks
}

// farther reports whether new marks are worth a write: others, or a tenth of a
// per cent away. Who stays within it is weighed at the next search again.
func farther(old, marks []mark) bool {
	const step = 1 << 12 // a doubling is 2²² ranks
	if len(old) != len(marks) {
		return true
	}
	for i, m := range marks {
		if m.pair != old[i].pair || m.rank > old[i].rank+step {
			return true
		}
	}
	return false
}

// mark sets the marks of all accounts anew, in one walk.
func (f *finder) mark() {
	b := f.book
	accounts, entries := newLoading(), make([]string, 0, b.risk.n)
	for key, row := range b.rows.from("") {
		f.weighs.unpackLending(packedOf(row))
		weighed, _ := f.weighLegs(&f.weighs)
		marks := f.marks(weighed)
		f.room = appendRow(f.room[:0], marks, false, packedOf(row))
		accounts.add(key, string(f.room))
		for _, m := range marks {
			entries = append(entries, riskKey(m, key))
		}
	}
	slices.Sort(entries)
	risk := newLoading()
	for _, e := range entries {
		risk.add(e, "")
	}
	b.rows, b.risk, b.fresh, b.unset = accounts.done(), risk.done(), nil, false
}

// remark replaces the marks of an account: in its row now, while the page is at
// hand, in book.risk when settle comes.
func (f *finder) remark(key, row string, marks []mark) {
	old := marksOf(row)
	for _, m := range old {
		if !slices.Contains(marks, m) {
			f.risk = append(f.risk, edit{key: riskKey(m, key), gone: true})
		}
	}
	for _, m := range marks {
		if !slices.Contains(old, m) {
			f.risk = append(f.risk, edit{key: riskKey(m, key)})
		}
	}
	f.room = appendRow(f.room[:0], marks, false, packedOf(row))
	f.book.rows.set(key, f.room)
}

// settle writes what remark left: marks that one price has passed lie in few
// pages, and each of them is written once.
func (f *finder) settle() {
	slices.SortFunc(f.risk, func(a, b edit) int { return compareKeys(a.key, b.key) })
	f.book.risk.apply(f.risk)
	f.risk = nil
}
