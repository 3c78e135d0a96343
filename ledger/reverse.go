package ledger

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// What chains take back. Below finality a reorganisation is a matter of course;
// what it undoes after the ledger counted it is taken back in the open (spec:
// outflows §8.3). At or beyond finality nothing is taken back automatically:
// signing stops until members have looked (§3.8).

// reversalWindow is for how many blocks a credited deposit is compared with its
// block: far beyond any depth at which one counts, and well inside what a
// follower remembers.
const reversalWindow = 72

func recentKey(chain string, height uint64, id string) string {
	return fmt.Sprintf("%s/%016d/%s", chain, height, id)
}

// RecentInflow is a deposit that was counted from a block that may still leave
// its chain.
type RecentInflow struct {
	ID     string
	Height uint64
	Block  string
}

// RecentInflows are those of a chain, by height.
func (s *State) RecentInflows(chain string) []RecentInflow {
	var out []RecentInflow
	for key, block := range s.Recent.all() {
		name, height, id := splitRecent(key)
		if name == chain {
			out = append(out, RecentInflow{ID: id, Height: height, Block: block})
		}
	}
	return out
}

func splitRecent(key string) (chain string, height uint64, id string) {
	chain, rest, _ := strings.Cut(key, "/")
	digits, id, _ := strings.Cut(rest, "/")
	height, _ = strconv.ParseUint(digits, 10, 64)
	return chain, height, id
}

// forgetRecent drops what no reorganisation below the window reaches any more.
func (s *State) forgetRecent() {
	for _, key := range s.Recent.keys() {
		chain, height, _ := splitRecent(key)
		if height+reversalWindow < s.Tips.at(chain).Height {
			s.Recent.delete(key)
		}
	}
}

// reversed: the block of a counted deposit left the best chain, and the deposit
// with it. What it gave is taken back: from suspense, then from the account's
// supply; what is missing becomes debt of the account, which its gates weigh like
// any other. A chain that shows it again has it credited again, once.
//
// Why debt, where the specification says "mark the account negative": debt is
// what a negative balance is here. It is priced, it counts against the health of
// the account, holds up its payouts, can be liquidated, and a loss comes out of
// it by the waterfall that every loss takes.
func (x *execution) reversed(m MemberID, f ReversedFact) Code {
	s := x.s
	in, ok := s.Inflows.get(f.ID)
	if len(f.ID) > maxTextInFacts || len(f.Block) > maxTextInFacts {
		return Malformed
	}
	if key := recentKey(in.Chain, in.Height, f.ID); !ok || in.State == InflowUndone || s.Recent.at(key) != f.Block || f.Block == "" {
		return OK // not counted, or counted from another block by now
	}
	if !x.fact(m, KindReversed, f, s.Epoch().Q()) {
		return OK
	}
	s.Recent.delete(recentKey(in.Chain, in.Height, f.ID))
	k, held := s.Coins.get(f.ID)
	if !held { // its spend is final, which rests on it
		x.halt("deposit " + f.ID + " is undone, and what spent it is final")
		return OK
	}
	if b, ok := s.Batches.get(k.Batch); ok && b.Anchor == f.ID {
		x.hold(b, HeldUndone, in.Height, "the anchor "+f.ID+" is undone")
		return OK
	}
	defer x.moves(in.Chain, in.Height)()
	s.coinGone(k, in.Height)
	if code := s.clawBack(in); code != OK {
		panic("claw back " + f.ID + ": " + string(code))
	}
	in.State, in.Reason = InflowUndone, ""
	s.Inflows.put(f.ID, in)
	s.refreshRates()
	x.emit(Event{Name: "reversed", Account: in.Account, Asset: in.Asset, Amount: in.Amount.String(), Note: f.ID})
	return OK
}

// clawBack takes an amount from an account that it was credited with and never
// received.
func (s *State) clawBack(in Inflow) Code {
	s.sync()
	a, p, code := s.book(in.Account, in.Asset)
	if code != OK {
		return code
	}
	key := in.Account + "/" + in.Asset
	left := in.Amount
	var c fixed.Calc
	if in.State == InflowSuspense {
		e := s.Suspense.at(key)
		part := lesser(left, e.Amount)
		left, p.Suspended, p.Credited = c.Sub(left, part), c.Sub(p.Suspended, part), c.Sub(p.Credited, part)
		if e.Amount = c.Sub(e.Amount, part); e.Amount.IsZero() {
			s.Suspense.delete(key)
		} else {
			s.Suspense.put(key, e)
		}
	}
	at := a.position(in.Asset)
	part := lesser(left, c.MulDivFloor(at.Supply, p.SupplyIndex, fixed.Ray))
	burn := lesser(at.Supply, c.MulDivCeil(part, fixed.Ray, p.SupplyIndex))
	at.Supply, p.SupplyShares = c.Sub(at.Supply, burn), c.Sub(p.SupplyShares, burn)
	owes := c.MulDivCeil(c.Sub(left, part), fixed.Ray, p.BorrowIndex)
	at.Debt, p.DebtShares = c.Add(at.Debt, owes), c.Add(p.DebtShares, owes)
	p.Missing, p.Credited = c.Add(p.Missing, left), c.Sub(p.Credited, left)
	return s.store(&c, a, at, p)
}

// settleMissing takes out of cash what a chain took, back or as a fee. What cash
// cannot bear was promised to payouts meanwhile: who bears it is booked already,
// as somebody's debt, treasury or deficit, and it is taken from the next cash that
// comes, a refund of those payouts above all.
func (p Pool) settleMissing() Pool {
	part := lesser(p.Missing, p.Cash)
	if part.IsZero() {
		return p
	}
	var c fixed.Calc
	p.Cash, p.Missing = c.Sub(p.Cash, part), c.Sub(p.Missing, part)
	if c.Err() != nil {
		panic("missing coins of pool " + p.Param.Asset + ": " + c.Err().Error())
	}
	return p
}

// halt stops every signature until a vote lifts it.
func (x *execution) halt(why string) {
	x.s.OutflowsHalt = "HALT: " + why
	x.emit(Event{Name: "halt", Note: why})
}

// deepFork: a quorum's followers met a branch that leaves the best chain beyond
// finality. Whatever was final there may not be (spec: outflows §3.8).
func (x *execution) deepFork(m MemberID, f DeepForkFact) Code {
	s := x.s
	if _, ok := s.Genesis.Chain(f.Chain); !ok {
		return Malformed
	}
	if s.OutflowsHalt != "" || !x.fact(m, KindDeepFork, f, s.Epoch().Q()) {
		return OK
	}
	for _, id := range s.Live.keys() {
		if b := s.Batches.at(id); b.Kind == BatchPay && b.Chain == f.Chain && b.Spent != nil {
			x.hold(b, HeldFork, b.Spent.Height, f.Chain+" forked beyond finality")
		}
	}
	x.halt(f.Chain + " forked beyond finality")
	return OK
}

// foreign: a final transaction that the ledger never planned consumed something
// of ours. The key is in other hands or the ledger is wrong: nothing is signed
// until members have looked, and what is gone is booked as the loss it is.
func (x *execution) foreign(m MemberID, f ForeignFact) Code {
	s := x.s
	if len(f.Resource) > maxTextInFacts || len(f.TxID) > maxTextInFacts || len(f.Block) > maxTextInFacts {
		return Malformed
	}
	k, held := s.Coins.get(f.Resource)
	held = held && k.State != CoinSpent // whose spend is known
	if f.Chain == Bitcoin && !held || f.Chain != Bitcoin && s.OutflowsHalt != "" {
		return OK
	}
	if !x.fact(m, KindForeign, f, s.Epoch().Q()) {
		return OK
	}
	x.halt("transaction " + f.TxID + ", which was never planned, consumed " + f.Resource)
	if held {
		if b, ok := s.Batches.get(k.Batch); ok && b.Anchor == f.Resource && !b.Done {
			x.hold(b, HeldForeign, f.Height, "its anchor was consumed by "+f.TxID)
		}
		defer x.moves(f.Chain, f.Height)()
		x.lose(k, f.Height)
	}
	return OK
}

// Counted reports whether the ledger has counted a deposit, and not taken it back.
func (s *State) Counted(inflow string) bool {
	in, ok := s.Inflows.get(inflow)
	return ok && in.State != InflowUndone
}

// Custody reports whether the ledger holds a Bitcoin output as unspent.
func (s *State) Custody(outpoint string) bool {
	k, ok := s.Coins.get(outpoint)
	return ok && k.State != CoinSpent
}

// lose books a coin that is gone since the block of a height.
func (x *execution) lose(k Coin, height uint64) {
	s := x.s
	if k.Heir != 0 {
		o := s.Outflows.at(k.Heir)
		o.Heir = ""
		s.Outflows.put(o.ID, o)
	}
	s.coinGone(k, height)
	if pool, ok := s.Vault(Bitcoin, address.RolePool); ok && k.Address == pool.Address {
		s.Two.Lost += k.Sats
	}
	s.sync()
	x.bookFee(btcAsset, fixed.Int{}, fixed.New(k.Sats))
	s.refreshRates()
}
