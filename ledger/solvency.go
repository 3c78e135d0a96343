package ledger

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// Solvency (spec: committee §5, lending §14 I6). Each minute the ledger names a
// block of every chain, and members attest what addresses of ours hold there, of
// every asset. What they count is their chains' word alone: no list of the ledger's
// adds to it. On Bitcoin its list of coins says which of those that are there count,
// and what strangers sent is a number of its own. The ledger compares it with its books:
//
//	balance at the block + what is leaving ≥ what the books hold at the block + what is nobody's
//
//	each minute ──► Open ──Q same words──► enough ──► Good moves on
//	                                 ├────► short by no more than what is under way may
//	                                 │      explain ──for 5 minutes──┐
//	                                 └────► short by more ───────────┴──► Halt
//
// The books are of now and the balance is of that block. Every change of the books
// that follows from a chain is therefore kept with its height for a while (Moves),
// so that the books of the block can be told from those of now.

const (
	// SolvencySeconds: without a good balance that was asked for within this time
	// nobody signs (spec: committee S5).
	SolvencySeconds = 600

	solvencySeconds = 60      // between two balances of an asset
	askMillis       = 10_000  // below it an asked-for balance is the one being attested
	shortMillis     = 300_000 // a shortage that what is under way may explain must be gone by then
	maxSolvencyAt   = 256     // deposit addresses of one balance
)

// Solvency is what is known of one asset's custody.
type Solvency struct {
	Open   *Check  `cbor:"1,keyasint"` // being attested; nil: nothing
	Newest Balance `cbor:"2,keyasint"` // last that counted; the zero value: none did
	Good   uint64  `cbor:"3,keyasint"` // when the newest good one was asked for, ledger time, ms; 0: none, or halted since
	Short  uint64  `cbor:"4,keyasint"` // since when it is short by what may be under way, ledger time, ms; 0: it is not
	Halt   string  `cbor:"5,keyasint"` // why nothing of the asset is planned or signed; empty: nothing halts it
	Last   string  `cbor:"6,keyasint"` // the last "address/asset" of Waiting that was looked at: the next ones follow

	// Unattributed is what balances found at the vaults beyond the books, base units:
	// strangers' coins, and what operators brought and no vote has booked. It is
	// reserve of nobody. On Ethereum, where amounts alone tell it, what was there once
	// must stay there (spec: lending I6); on Bitcoin coins have names, it is what the
	// newest balance found, and nothing rests on it.
	Unattributed fixed.Int `cbor:"7,keyasint"`
	AtGas        fixed.Int `cbor:"8,keyasint"` // of Unattributed what lies at the gas address (Ethereum), the rest at the hot one
}

// Check is a balance that members are asked for.
type Check struct {
	Asked  uint64        `cbor:"1,keyasint"` // ledger time, ms: its name
	Height uint64        `cbor:"2,keyasint"` // of the chain
	At     []string      `cbor:"3,keyasint"` // deposit addresses to be looked at besides the vaults, sorted (Ethereum)
	Owed   fixed.Int     `cbor:"4,keyasint"` // attested to wait at them at Height
	Late   fixed.Int     `cbor:"5,keyasint"` // arrived at or below Height and was counted since: on Ethereum a member may have looked before it knew, on Bitcoin none counts it
	Words  []BalanceWord `cbor:"6,keyasint"` // sorted by member
	Coins  uint64        `cbor:"7,keyasint"` // number of the last coin that had come from outside by then (Bitcoin)
}

// BalanceWord is what one member says. Its first word about a check stays.
type BalanceWord struct {
	Member  MemberID  `cbor:"1,keyasint"`
	Block   string    `cbor:"2,keyasint"`
	Amount  fixed.Int `cbor:"3,keyasint"`
	Waiting fixed.Int `cbor:"4,keyasint"`

	Strangers fixed.Int `cbor:"5,keyasint"`
	AtGas     fixed.Int `cbor:"6,keyasint"`
}

// as reports whether a fact says the same.
func (w BalanceWord) as(f BalanceFact) bool {
	return w == f.by(w.Member)
}

// Balance is one that counted, with what it was compared with.
type Balance struct {
	Asked   uint64    `cbor:"1,keyasint"` // ledger time, ms
	Height  uint64    `cbor:"2,keyasint"`
	Block   string    `cbor:"3,keyasint"`
	Amount  fixed.Int `cbor:"4,keyasint"` // base units at addresses of ours
	Leaving fixed.Int `cbor:"5,keyasint"` // what transactions of ours took out of custody by then that the books still have
	Books   fixed.Int `cbor:"6,keyasint"` // what the books had at Height
	Unsure  fixed.Int `cbor:"7,keyasint"` // what may be missing or not, as facts about it are still under way
	Beyond  fixed.Int `cbor:"8,keyasint"` // of Amount what lies at deposit addresses and is not counted: it makes up for nothing
	Nobodys fixed.Int `cbor:"9,keyasint"` // what balances before it had found beyond the books
}

// Missing is how much is not there.
func (b Balance) Missing() fixed.Int {
	have := must(fixed.Add(must(fixed.Sub(b.Amount, lesser(b.Beyond, b.Amount))), b.Leaving))
	want := must(fixed.Add(b.Books, b.Nobodys))
	return must(fixed.Sub(want, lesser(have, want)))
}

// Move is what facts about blocks of one height did to the books of an asset.
type Move struct {
	In  fixed.Int `cbor:"1,keyasint"`
	Out fixed.Int `cbor:"2,keyasint"`

	Gone fixed.Int `cbor:"3,keyasint"` // coins that it took, whole (Bitcoin)
}

// BalanceFact says what addresses of ours held of an asset at a block. Asked and
// Height name the check; both 0 ask for one now.
type BalanceFact struct {
	Asset  string    `cbor:"1,keyasint"`
	Asked  uint64    `cbor:"2,keyasint"`
	Height uint64    `cbor:"3,keyasint"`
	Block  string    `cbor:"4,keyasint"`
	Amount fixed.Int `cbor:"5,keyasint"`

	// Waiting is what of Amount lay at the deposit addresses that were asked about.
	Waiting fixed.Int `cbor:"6,keyasint"`

	// Strangers is what lay at vaults beside Amount (Bitcoin): coins that the ledger
	// does not have and that no transaction of ours made.
	Strangers fixed.Int `cbor:"7,keyasint"`

	AtGas fixed.Int `cbor:"8,keyasint"` // of Amount what lay at the gas address (Ethereum)
}

func (f BalanceFact) by(m MemberID) BalanceWord {
	return BalanceWord{m, f.Block, f.Amount, f.Waiting, f.Strangers, f.AtGas}
}

// parts: what a fact says of parts of its amount fits it and its chain.
func (f BalanceFact) parts(chain string) bool {
	var c fixed.Calc
	apart := c.Add(f.Waiting, f.AtGas)
	if chain == Bitcoin {
		return c.Err() == nil && apart.IsZero()
	}
	return c.Err() == nil && !f.Amount.Less(apart) && f.Strangers.IsZero()
}

// balance takes a member's word. It has no tally: words live with their check, which
// the next one replaces, so that what never comes to a quorum leaves nothing behind.
func (x *execution) balance(m MemberID, f BalanceFact) Code {
	s := x.s
	a, known := s.Genesis.Asset(f.Asset)
	switch {
	case !known:
		return UnknownPool
	case !s.Epoch().Has(m):
		return NotAllowed
	case len(f.Block) > maxTextInFacts, (f.Asked == 0) != (f.Block == ""), !f.parts(a.Chain):
		return Malformed
	}
	row := s.Solvency.at(a.ID)
	c := row.Open
	if f.Asked == 0 {
		if s.Epoch().Number > 0 && (c == nil || s.Millis >= c.Asked+askMillis) {
			x.askBalance(a)
		}
		return OK
	}
	if c == nil || c.Asked != f.Asked || c.Height != f.Height {
		return OK // it came too late
	}
	i, said := slices.BinarySearchFunc(c.Words, m, func(w BalanceWord, m MemberID) int { return slices.Compare(w.Member[:], m[:]) })
	if said {
		return OK
	}
	n := *c
	n.Words = slices.Insert(slices.Clone(c.Words), i, f.by(m))
	row.Open = &n
	s.Solvency.put(a.ID, row)
	same := 0
	for _, w := range n.Words {
		if w.as(f) && s.Epoch().Has(w.Member) {
			same++
		}
	}
	if same >= s.Epoch().Q() {
		x.compare(a, n, f)
	}
	return OK
}

// compare is I6 at the block that a quorum looked at.
func (x *execution) compare(a AssetParam, c Check, f BalanceFact) {
	s := x.s
	b := Balance{Asked: c.Asked, Height: c.Height, Block: f.Block, Amount: f.Amount}
	var gone, unsure fixed.Int
	b.Books, b.Unsure, gone = s.booksAt(a, c)
	b.Leaving, unsure = s.leaving(a, c.Height)
	b.Unsure = must(fixed.Add(b.Unsure, unsure))
	b.Beyond = must(fixed.Sub(f.Waiting, lesser(c.Owed, f.Waiting)))

	row := s.Solvency.at(a.ID)
	if a.Chain != Bitcoin {
		b.Nobodys = row.Unattributed
	}
	row.Open, row.Newest = nil, b
	if a.Chain == Bitcoin {
		theirs := must(fixed.Sub(f.Strangers, lesser(gone, f.Strangers))) // to whoever looked late, what was ours until then is a stranger's
		if row.Unattributed.Less(theirs) {
			x.emit(Event{Name: "unattributed", Asset: a.ID, Amount: theirs.String()})
		}
		row.Unattributed = theirs
	}
	missing := b.Missing()
	switch {
	case missing.IsZero():
		row.Short = 0
		if row.Halt == "" {
			row.Good = b.Asked
		}
		hot, gas := s.beyondBooks(a, c, f)
		gas = greater(gas, row.AtGas)
		if more := must(fixed.Add(gas, greater(hot, row.atHot()))); row.Unattributed.Less(more) {
			x.emit(Event{Name: "unattributed", Asset: a.ID, Amount: more.String()})
			row.Unattributed, row.AtGas = more, gas
		}
	case b.Unsure.Less(missing) || row.Short != 0 && s.Millis >= row.Short+shortMillis:
		row.Short = 0
		if row.Halt == "" {
			x.emit(Event{Name: "insolvent", Asset: a.ID, Amount: missing.String(), Note: b.shortage()})
			row.Halt = "insolvent: " + b.shortage()
		}
		row.Good = 0
	case row.Short == 0:
		row.Short = s.Millis
		x.emit(Event{Name: "short", Asset: a.ID, Amount: missing.String(), Note: b.shortage()})
	}
	s.Solvency.put(a.ID, row)
}

// shortage says in numbers what is wrong.
func (b Balance) shortage() string {
	more := ""
	if !b.Beyond.IsZero() {
		more = fmt.Sprintf(", %s of it not counted yet", b.Beyond)
	}
	theirs := ""
	if !b.Nobodys.IsZero() {
		theirs = fmt.Sprintf(" and %s beside them was nobody's", b.Nobodys)
	}
	return fmt.Sprintf("at block %d custody holds %s%s and %s was leaving, the books have %s%s: %s missing, of which %s may be under way",
		b.Height, b.Amount, more, b.Leaving, b.Books, theirs, b.Missing(), lesser(b.Missing(), b.Unsure))
}

// beyondBooks is what each vault held at a balance's block and the books do not have,
// at the least: of native coin the float at the gas address, all else at the hot one. Coins of ours that are on their way into a vault, or are and are not
// counted, are no stranger's. On Bitcoin members tell strangers' coins by their names.
//
// Why it may be held to ever after: nothing of ours takes from a vault what the books
// do not have, and whatever they come to have of it (a float, a vote) is taken out.
func (s *State) beyondBooks(a AssetParam, c Check, f BalanceFact) (hot, gas fixed.Int) {
	if a.Chain != Ethereum {
		return hot, gas
	}
	var float, due fixed.Int // at the gas address
	if a.isNative() {
		for _, role := range gasRoles {
			v, ok := s.Vault(Ethereum, role)
			from := s.Senders.at(v.Address)
			if !ok || !from.Booked {
				return hot, gas // the genesis float arrives, or is there and not booked
			}
			if role == address.RoleGas {
				float, due = from.Float, from.Due
			}
		}
	}
	var calc fixed.Calc
	owed, less := s.books(a)
	owed, less = calc.Sub(owed, float), calc.Sub(less, due)
	haveHot, haveGas := calc.Add(calc.Sub(calc.Sub(f.Amount, f.Waiting), f.AtGas), less), calc.Add(f.AtGas, due)
	for key, m := range s.Moves.From(moveKey(a.ID, c.Height+1)) {
		if asset, _ := splitMove(key); asset != a.ID {
			break
		}
		owed, float = calc.Add(owed, m.Out), calc.Add(float, m.Out) // of either; what came in above the block may have been below it
	}
	for _, open := range []*table[uint64, uint64]{&s.Live, &s.OnHold} {
		for id := range open.all() {
			b := s.Batches.at(id)
			if b.Kind != BatchPay {
				continue
			}
			if o := s.Outflows.at(b.Outflows[0]); o.Kind == OutflowSweep && o.Asset == a.ID {
				owed = calc.Add(owed, o.Gross) // it may have arrived
			}
		}
	}
	if calc.Err() != nil {
		panic("beyond the books of " + a.ID + ": " + calc.Err().Error())
	}
	return must(fixed.Sub(haveHot, lesser(owed, haveHot))), must(fixed.Sub(haveGas, lesser(float, haveGas)))
}

// atHot is what of Unattributed lies at the hot address.
func (row Solvency) atHot() fixed.Int { return must(fixed.Sub(row.Unattributed, row.AtGas)) }

// books is what the books of an asset have now and custody must hold: owed, which
// is what its pool has in cash, reserved and suspended, and the operators' floats,
// less what chains took and cash could not bear yet. They are apart because amounts
// have no sign.
func (s *State) books(a AssetParam) (owed, less fixed.Int) {
	var c fixed.Calc
	if p, ok := s.Pools.get(a.ID); ok {
		owed, less = c.Add(c.Add(p.Cash, p.Reserved), p.Suspended), c.Add(p.Missing, p.Unswept)
	}
	if a.ID == btcAsset {
		owed = c.Add(owed, fixed.New(s.Two.Float))
	}
	if a.Chain == Ethereum && a.Token == "" {
		for _, role := range gasRoles {
			if w, ok := s.Vault(Ethereum, role); ok {
				from := s.Senders.at(w.Address)
				owed, less = c.Add(owed, from.Float), c.Add(less, from.Due)
			}
		}
	}
	if c.Err() != nil {
		panic("books of " + a.ID + ": " + c.Err().Error())
	}
	return owed, less
}

// gasRoles are the vaults that hold the float of a chain with gas.
var gasRoles = []string{address.RoleHot, address.RoleGas}

// Books is what the books of an asset have now, and custody must hold, base units.
func (s *State) Books(asset string) fixed.Int {
	a, ok := s.Genesis.Asset(asset)
	if !ok {
		return fixed.Int{}
	}
	owed, less := s.books(a)
	return must(fixed.Sub(owed, lesser(owed, less)))
}

// booksAt is what the books held at a check's block: what they hold now, less what
// came in above it, and what left above it besides. unsure is what came in so near
// to the tip that another branch may lack it, or what came in or left while members
// were looking. On Bitcoin nobody counts what came in meanwhile: it is left out. gone,
// a part of unsure, are coins that left above it, which some or all do not count.
func (s *State) booksAt(a AssetParam, c Check) (books, unsure, gone fixed.Int) {
	owed, less := s.books(a)
	owed = must(fixed.Add(owed, c.Owed))
	chain, _ := s.Genesis.Chain(a.Chain)
	for key, m := range s.Moves.From(moveKey(a.ID, 0)) {
		asset, height := splitMove(key)
		if asset != a.ID {
			break
		}
		if height > c.Height {
			owed, less = must(fixed.Add(owed, m.Out)), must(fixed.Add(less, m.In))
			gone = must(fixed.Add(gone, m.Gone))
		} else if height+chain.Final > c.Height+1 {
			unsure = must(fixed.Add(unsure, m.In))
		}
	}
	if a.Chain == Bitcoin {
		less, unsure = must(fixed.Add(less, c.Late)), must(fixed.Add(unsure, gone))
	} else {
		unsure = must(fixed.Add(unsure, c.Late))
	}
	return must(fixed.Sub(owed, lesser(owed, less))), unsure, gone
}

// leaving is what transactions of ours took out of custody at or below a height and
// the books still have, since they are not final. unsure is what those may have
// taken that are not attested to be in a block, or whose end is not known yet.
//
// What is on HOLD counts as left. Its contradiction has halted every payment
// already, and people decide what it came to: a second halt for the same coins
// would say nothing, and would have to be lifted by a second vote.
func (s *State) leaving(a AssetParam, height uint64) (sure, unsure fixed.Int) {
	for id := range s.Live.all() {
		b := s.Batches.at(id)
		if b.Kind != BatchPay || b.Chain != a.Chain {
			continue
		}
		if body, ok := b.bodySpent(); ok && b.Chain == Bitcoin && b.Spent.Height <= height {
			sure = must(fixed.Add(sure, s.taken(body, a)))
			continue
		}
		unsure = must(fixed.Add(unsure, s.mostTaken(b, a)))
	}
	for id := range s.OnHold.all() {
		if b := s.Batches.at(id); b.Chain == a.Chain {
			sure = must(fixed.Add(sure, s.mostTaken(b, a)))
		}
	}
	return sure, unsure
}

// bodySpent is the transaction that is attested to have spent the anchor.
func (b Batch) bodySpent() (Attempt, bool) {
	if b.Spent == nil {
		return Attempt{}, false
	}
	return b.Body(b.Spent.Body)
}

// taken is what a transaction takes out of custody of an asset at most, its fee
// included: exact on Bitcoin. What goes to a vault of ours stays.
func (s *State) taken(at Attempt, a AssetParam) fixed.Int {
	switch {
	case at.Bitcoin != nil:
		out := at.Bitcoin.Fee
		for _, o := range at.Bitcoin.Outputs {
			if o.Outflow != 0 && s.Outflows.at(o.Outflow).Account != "" {
				out += o.Sats
			}
		}
		return fixed.New(out)
	case at.Ethereum != nil && !s.fromVault(at.Ethereum.From):
		if !a.isNative() {
			return fixed.Int{}
		}
		// A sweep of native coins takes its gas out of them; others burn what we sent for it.
		return must(fixed.Mul(fixed.New(at.Ethereum.Gas), fixed.New(at.Ethereum.FeeCap)))
	case at.Ethereum != nil && a.Token == "":
		return must(fixed.Add(at.Ethereum.Value, must(fixed.Mul(fixed.New(at.Ethereum.Gas), fixed.New(at.Ethereum.FeeCap)))))
	case at.Ethereum != nil && at.Ethereum.To == a.Token:
		return transferred(at.Ethereum.Data)
	}
	return fixed.Int{}
}

func (s *State) fromVault(addr string) bool {
	return s.Watched.at(Ethereum+"/"+addr).Purpose == PurposeVault
}

// transferred is the amount of a transfer(address,uint256) as transferData makes it.
func transferred(data []byte) fixed.Int {
	const size = 4 + 64
	if len(data) != size {
		return fixed.Int{}
	}
	return must(fixed.FromBytes(bytes.TrimLeft(data[4+32:], "\x00")))
}

// moves notes what a fact about a block of a chain does to the books: it is called
// when the fact has come to its quorum, and what it returns when that is done.
func (x *execution) moves(chain string, height uint64) func() {
	type book struct{ owed, less fixed.Int }
	before := map[string]book{}
	for _, a := range x.s.Genesis.Assets {
		if a.Chain == chain {
			owed, less := x.s.books(a)
			before[a.ID] = book{owed, less}
		}
	}
	return func() {
		for _, a := range x.s.Genesis.Assets {
			was, ok := before[a.ID]
			if !ok {
				continue
			}
			owed, less := x.s.books(a)
			up, down := must(fixed.Add(owed, was.less)), must(fixed.Add(was.owed, less))
			in, out := must(fixed.Sub(up, lesser(up, down))), must(fixed.Sub(down, lesser(up, down)))
			if !in.IsZero() || !out.IsZero() {
				x.s.noteMove(a.ID, height, in, out)
			}
		}
	}
}

func (s *State) noteMove(asset string, height uint64, in, out fixed.Int) {
	key := moveKey(asset, height)
	m := s.Moves.at(key)
	m.In, m.Out = must(fixed.Add(m.In, in)), must(fixed.Add(m.Out, out))
	s.Moves.put(key, m)
	row := s.Solvency.at(asset)
	if row.Open != nil && height <= row.Open.Height && !in.IsZero() {
		n := *row.Open
		n.Late = must(fixed.Add(n.Late, in))
		row.Open = &n
		s.Solvency.put(asset, row)
	}
}

func moveKey(asset string, height uint64) string { return fmt.Sprintf("%s/%016d", asset, height) }

func splitMove(key string) (asset string, height uint64) {
	asset, digits, _ := strings.Cut(key, "/")
	for _, d := range []byte(digits) {
		height = height*10 + uint64(d-'0')
	}
	return asset, height
}

// askBalances asks for every asset's balance, each minute, whatever else is halted.
func (x *execution) askBalances() {
	if x.s.Epoch().Number == 0 || x.s.Catching || !x.every("solvency", solvencySeconds) {
		return
	}
	for _, a := range x.s.Genesis.Assets {
		x.askBalance(a)
	}
}

// askBalance replaces an asset's open check by one at the newest attested height.
func (x *execution) askBalance(a AssetParam) {
	s := x.s
	tip := s.Tips.at(a.Chain).Height
	if tip == 0 || s.Millis == 0 {
		return
	}
	chain, _ := s.Genesis.Chain(a.Chain)
	var old []string
	for key := range s.Moves.From(moveKey(a.ID, 0)) {
		asset, height := splitMove(key)
		if asset != a.ID || height+chain.Final > tip+1 || height > tip {
			break
		}
		old = append(old, key)
	}
	for _, key := range old { // nothing asks about what is below any more
		s.Moves.delete(key)
	}
	row := s.Solvency.at(a.ID)
	c := Check{Asked: s.Millis, Height: tip}
	if a.Chain == Bitcoin {
		c.Coins = s.CoinsIn
	}
	if a.Chain == Ethereum {
		row.Last = s.waitingAt(a, &c, row.Last)
	}
	row.Open = &c
	s.Solvency.put(a.ID, row)
}

// waitingAt takes the next deposit addresses, behind the last one, at which deposits
// of an asset wait to be swept, credited ones of the native coin too. All are looked at in turn, a bounded number each
// minute.
func (s *State) waitingAt(a AssetParam, c *Check, last string) string {
	left := 4 * maxSolvencyAt // rows looked at, other assets' among them
	all := true
	for key, ids := range s.Waiting.From(last) {
		if key == last {
			continue
		}
		if left--; left < 0 || len(c.At) == maxSolvencyAt {
			all = false
			break
		}
		last = key
		addr, asset, _ := strings.Cut(key, "/")
		if asset != a.ID {
			continue
		}
		var there fixed.Int
		if a.isNative() {
			there = s.Senders.at(addr).Unswept
		}
		for _, id := range ids {
			in := s.Inflows.at(id)
			switch {
			case a.isNative() && in.Height > c.Height:
				there = must(fixed.Sub(there, lesser(there, in.Amount)))
			case !a.isNative() && in.Height <= c.Height && in.Reverts == 0:
				there = must(fixed.Add(there, in.Amount))
			}
		}
		if !there.IsZero() {
			c.At, c.Owed = append(c.At, addr), must(fixed.Add(c.Owed, there))
		}
	}
	if all {
		return "" // from the first again
	}
	return last
}

// HaltOf says why nothing of an asset may be planned or signed; empty: nothing
// halts it. A transaction pays its fee in its chain's native asset, so a halt of
// that is one of every asset of the chain.
func (s *State) HaltOf(asset string) string {
	a, _ := s.Genesis.Asset(asset)
	for _, id := range s.spentWith(a) {
		if why := s.Solvency.at(id).Halt; why != "" {
			return id + ": " + why
		}
	}
	return ""
}

// spentWith is an asset and what pays for its transactions.
func (s *State) spentWith(a AssetParam) []string {
	if n, ok := s.Genesis.Native(a.Chain); ok && n.ID != a.ID {
		return []string{a.ID, n.ID}
	}
	return []string{a.ID}
}

// Halts is HaltOf for a batch: of any asset that it pays or pays with.
func (s *State) Halts(b Batch) string { return s.haltOf(b) }

func (s *State) haltOf(b Batch) string {
	for _, id := range b.Outflows {
		if why := s.HaltOf(s.Outflows.at(id).Asset); why != "" {
			return why
		}
	}
	return ""
}

// Unproven says why no member may sign a batch of payments for want of solvency
// (spec: committee S5): an asset is halted, or it has no good balance that was asked
// for in the last ten minutes of ledger time. Empty: all are covered.
func (s *State) Unproven(b Batch) string {
	if why := s.haltOf(b); why != "" {
		return "HALTED, " + why
	}
	for _, id := range b.Outflows {
		a, _ := s.Genesis.Asset(s.Outflows.at(id).Asset)
		for _, asset := range s.spentWith(a) {
			if why := s.unproven(asset); why != "" {
				return asset + ": " + why
			}
		}
	}
	return ""
}

func (s *State) unproven(asset string) string {
	row := s.Solvency.at(asset)
	switch {
	case row.Good == 0:
		return "no attested balance has covered its books yet"
	case s.Millis > row.Good+SolvencySeconds*1000:
		return fmt.Sprintf("the last attested balance that covered its books is %d s old, at most %d", (s.Millis-row.Good)/1000, SolvencySeconds)
	}
	return ""
}

// BalanceWanted reports whether a payment waits for a balance of an asset and no
// member is asked for one that could still count: a member may have one asked for
// now (BalanceFact with Asked 0) instead of waiting for the minute. At most one in
// ten seconds.
func (s *State) BalanceWanted(asset string) bool {
	a, ok := s.Genesis.Asset(asset)
	row := s.Solvency.at(asset)
	switch {
	case !ok || s.Catching || s.Tips.at(a.Chain).Height == 0 || row.Halt != "" || s.unproven(asset) == "":
		return false
	case s.Millis < row.Newest.Asked+askMillis:
		return false
	case row.Open != nil && (s.Millis < row.Open.Asked+askMillis || len(row.Open.Words) < s.Epoch().Q()):
		return false
	}
	for id := range s.Live.all() {
		b := s.Batches.at(id)
		if b.Kind != BatchPay || b.Spent != nil || b.Chain != a.Chain {
			continue
		}
		for _, o := range b.Outflows {
			if of, _ := s.Genesis.Asset(s.Outflows.at(o).Asset); slices.Contains(s.spentWith(of), asset) {
				return true
			}
		}
	}
	return false
}

// Disputed reports whether a member's own balance says that the one which counted, at
// the same block, was too high and the books are not covered (spec: consensus R3).
func (s *State) Disputed(own BalanceFact) bool {
	b := s.Solvency.at(own.Asset).Newest
	if b.Asked == 0 || b.Asked != own.Asked || b.Block != own.Block || !own.Amount.Less(b.Amount) {
		return false
	}
	b.Amount = own.Amount
	return b.Unsure.Less(b.Missing())
}

// Asks are the balances that a member is still to be heard about, of one chain.
func (s *State) Asks(m MemberID, chain string) map[string]Check {
	out := map[string]Check{}
	for id, row := range s.Solvency.all() {
		a, _ := s.Genesis.Asset(id)
		if row.Open == nil || a.Chain != chain || slices.ContainsFunc(row.Open.Words, func(w BalanceWord) bool { return w.Member == m }) {
			continue
		}
		out[id] = *row.Open
	}
	return out
}

// HaltCause is why outflows, or those of one asset, are halted; empty: they are not.
func (s *State) HaltCause(asset string) string {
	if asset == "" {
		return s.OutflowsHalt
	}
	return s.Solvency.at(asset).Halt
}

// setHalt is what votes do. A lifted asset is signed for again once a balance that is
// asked for afterwards covers its books.
func (s *State) setHalt(asset, why string) {
	if asset == "" {
		s.OutflowsHalt = why
		return
	}
	row := s.Solvency.at(asset)
	if why == "" {
		row.Unattributed, row.AtGas = fixed.Int{}, fixed.Int{} // people looked, and what is gone of it was nobody's
	}
	row.Halt, row.Good, row.Short = why, 0, 0
	row.Open = nil
	s.Solvency.put(asset, row)
}

// checkSolvency: rows are of assets, words of members and in order, and what is
// halted has no good balance.
func (s *State) checkSolvency() error {
	for id, row := range s.Solvency.all() {
		if _, ok := s.Genesis.Asset(id); !ok {
			return fmt.Errorf("solvency of %q, which is no asset", id)
		}
		if row.Unattributed.Less(row.AtGas) {
			return fmt.Errorf("solvency of %s: %s is nobody's, %s of it at the gas address", id, row.Unattributed, row.AtGas)
		}
		if row.Halt != "" && row.Good != 0 || row.Good > row.Newest.Asked || row.Short > s.Millis {
			return fmt.Errorf("solvency of %s: halted by %q, good at %d, newest at %d, short since %d", id, row.Halt, row.Good, row.Newest.Asked, row.Short)
		}
		if c := row.Open; c != nil {
			if c.Asked == 0 || c.Asked > s.Millis || len(c.At) > maxSolvencyAt || !slices.IsSorted(c.At) {
				return fmt.Errorf("solvency of %s: asked at %d for %d addresses", id, c.Asked, len(c.At))
			}
			for i := 1; i < len(c.Words); i++ {
				if slices.Compare(c.Words[i-1].Member[:], c.Words[i].Member[:]) >= 0 {
					return fmt.Errorf("solvency of %s: words not sorted, or a member's twice", id)
				}
			}
		}
	}
	for id := range s.OnHold.all() {
		if b, ok := s.Batches.get(id); !ok || !s.held(b) {
			return fmt.Errorf("batch %d is listed as on HOLD", id)
		}
	}
	for id, o := range s.Outflows.all() {
		if o.State == Hold && !s.OnHold.has(o.Batch) {
			return fmt.Errorf("outflow %d is on HOLD, batch %d is not listed", id, o.Batch)
		}
	}
	for key, m := range s.Moves.all() {
		asset, height := splitMove(key)
		if _, ok := s.Genesis.Asset(asset); !ok || moveKey(asset, height) != key || m == (Move{}) {
			return fmt.Errorf("move %q of %s in, %s out", key, m.In, m.Out)
		}
	}
	return nil
}
