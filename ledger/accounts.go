package ledger

import (
	"fmt"
	"iter"
	"slices"

	"github.com/coffer-network/coffer/ledger/fixed"
)

// Accounts is the table of all accounts, with the methods of table. What a
// command touches stays unpacked beside the packed rows until a fold, so that a
// command decodes and encodes an account once, however often it writes it, and
// one that is taken back has built no page.
//
// It also knows what all accounts together hold in each pool, so that I2 and I3
// are checked after every command without walking anybody.
type Accounts struct {
	book *book // as of the last fold; nil: empty
	mine bool  // nobody else sees book: it may be written in place

	recent []change  // since the last fold, in order of the first touch
	held   []*shares // of all accounts, ascending by pool; replaced, never written to
	own    bool      // nobody else sees the arrays of recent and held
	busy   bool      // in the middle of a command: nobody else reads it, so that get may write to recent
	n      int
}

// book is what a fold leaves behind: rows, and where the finder looks (risk.go).
type book struct {
	rows  rows     // by accountKey: marks and packed account (appendRow)
	risk  rows     // all marks, by riskKey, with nothing behind them
	fresh []string // keys of accounts that wait to be weighed
	unset bool     // no mark holds

	pools         []seen // what the marks rely on; replaced, never written to
	unfinalCounts bool   // likewise

	tree    *accountTree // of the last root; nil: none yet (accounts_root.go)
	changed []uint16     // buckets that differ from tree
	rooted  *rooted      // what the last root was computed from, for proofs

	room []byte // for packing, of the one who may write to it
}

func (b *book) copy() *book {
	c := *b
	c.room = nil
	c.rows, c.risk = b.rows.copy(), b.risk.copy()
	c.fresh, c.changed = slices.Clip(b.fresh), slices.Clip(b.changed)
	return &c
}

// change is an account that differs from its row, or was read by a command that
// may write it next.
type change struct {
	Account
	gone bool
	same bool // only read

	key       string     // accountKey of its id
	row       string     // what it differs from; empty: there is none
	positions []Position // of row, as is unfinal
	unfinal   []Unfinal
}

// shares is what all accounts hold in a pool.
type shares struct {
	pool         string
	supply, debt fixed.Wide
}

// maxRecent is how many changes are kept unpacked: they are searched one by one.
// Beyond maxRead of them nothing is kept that is only read.
const (
	maxRecent = 64
	maxRead   = 8
)

// share is table.share. Copies share the book until one of them folds.
func (t *Accounts) share() { t.mine, t.own = false, false }

// begin makes t the table of one command, which leaves alone what it was: that
// comes back if the command changes nothing, and end ends it otherwise.
func (t *Accounts) begin() (was Accounts) {
	was = *t
	t.share()
	t.busy = true
	return was
}

// end makes t the owner again of what it still shares with what it was, which
// nobody can see any more.
func (t *Accounts) end(was *Accounts) {
	t.mine = t.mine || was.mine && t.book == was.book
	t.busy = was.busy
}

func (t *Accounts) touched(id AccountID) int {
	for i := range t.recent {
		if t.recent[i].ID == id {
			return i
		}
	}
	return -1
}

// Get is for readers of a view.
func (t *Accounts) Get(id AccountID) (Account, bool) { return t.get(id) }

func (t *Accounts) get(id AccountID) (Account, bool) {
	if i := t.touched(id); i >= 0 {
		if t.recent[i].gone {
			return Account{}, false
		}
		return t.recent[i].Account, true
	}
	if t.book == nil {
		return Account{}, false
	}
	key := accountKey(id)
	row, ok := t.book.rows.get(key)
	if !ok {
		return Account{}, false
	}
	a := must(unpackAccount(packedOf(row)))
	a.ID = id
	if t.busy && len(t.recent) < maxRead {
		t.part()
		t.recent = append(t.recent, change{Account: a, same: true, key: key, row: row, positions: a.Positions, unfinal: a.Unfinal})
	}
	return a, true
}

// part gives the table arrays of its own.
func (t *Accounts) part() {
	if !t.own {
		t.recent, t.held, t.own = slices.Clone(t.recent), slices.Clone(t.held), true
	}
}

// at returns the account, or one without any field.
func (t *Accounts) at(id AccountID) Account { a, _ := t.get(id); return a }

func (t *Accounts) has(id AccountID) bool {
	if i := t.touched(id); i >= 0 || t.book == nil {
		return i >= 0 && !t.recent[i].gone
	}
	_, ok := t.book.rows.get(accountKey(id))
	return ok
}

func (t *Accounts) len() int { return t.n }

// Len is for readers of a view.
func (t *Accounts) Len() int { return t.n }

func (t *Accounts) put(id AccountID, a Account) {
	if a.ID != id {
		panic("accounts: an account under another id")
	}
	t.change(id, change{Account: a})
}

func (t *Accounts) delete(id AccountID) {
	if t.has(id) {
		t.change(id, change{Account: Account{ID: id}, gone: true})
	}
}

func (t *Accounts) change(id AccountID, c change) {
	i := t.touched(id)
	var old []Position
	was := false
	if i >= 0 {
		now := &t.recent[i]
		old, was = now.Positions, !now.gone
		c.key, c.row, c.positions, c.unfinal = now.key, now.row, now.positions, now.unfinal
	} else if c.key = accountKey(id); t.book != nil {
		if c.row, was = t.book.rows.get(c.key); was {
			before := unpackLending(packedOf(c.row))
			c.positions, c.unfinal, old = before.Positions, before.Unfinal, before.Positions
		}
	}
	t.part()
	t.move(old, c.Positions)
	switch {
	case was && c.gone:
		t.n--
	case !was && !c.gone:
		t.n++
	}
	if i >= 0 {
		t.recent[i] = c
		return
	}
	if len(t.recent) == maxRecent {
		t.fold()
	}
	t.recent = append(t.recent, c)
}

// move books the difference of two lists of positions in held.
func (t *Accounts) move(old, now []Position) {
	for _, at := range now {
		was := Account{Positions: old}.position(at.Pool)
		if was == at {
			continue
		}
		h := t.holding(at.Pool)
		h.supply = must(must(h.supply.Add(at.Supply.Wide())).Sub(was.Supply.Wide()))
		h.debt = must(must(h.debt.Add(at.Debt.Wide())).Sub(was.Debt.Wide()))
	}
	for _, was := range old {
		if has := slices.ContainsFunc(now, func(at Position) bool { return at.Pool == was.Pool }); has {
			continue
		}
		h := t.holding(was.Pool)
		h.supply = must(h.supply.Sub(was.Supply.Wide()))
		h.debt = must(h.debt.Sub(was.Debt.Wide()))
	}
}

// holding is a new entry of held, in the place of the one before.
func (t *Accounts) holding(pool string) *shares {
	i, found := slices.BinarySearchFunc(t.held, pool, func(h *shares, p string) int { return cmpText(h.pool, p) })
	h := &shares{pool: pool}
	if found {
		*h, t.held[i] = *t.held[i], h
	} else {
		t.held = slices.Insert(t.held, i, h)
	}
	return h
}

// holds returns what all accounts together hold in a pool.
func (t *Accounts) holds(pool string) (supply, debt fixed.Wide) {
	for _, h := range t.held {
		if h.pool == pool {
			return h.supply, h.debt
		}
	}
	return supply, debt
}

// writable is the book, with everything in it, for its owner to write to.
func (t *Accounts) writable() *book {
	switch {
	case t.book == nil:
		t.book = &book{rows: newRows(), risk: newRows()}
	case !t.mine:
		t.book = t.book.copy()
	}
	t.mine = true
	t.fold()
	return t.book
}

// fold packs what was touched into the book. Nobody writes to the book while
// something is touched (writable), so a row is what it was at the first touch.
func (t *Accounts) fold() {
	if len(t.recent) == 0 {
		return
	}
	recent := t.recent
	t.recent = nil
	if !slices.ContainsFunc(recent, func(c change) bool { return !c.same }) {
		return
	}
	b := t.writable()
	for i := range recent {
		c := &recent[i]
		if c.same {
			continue
		}
		if b.tree != nil && len(b.changed) < buckets {
			b.changed = append(b.changed, bucketOf(c.key))
		}
		if c.gone {
			if c.row != "" {
				for _, m := range marksOf(c.row) {
					b.risk.delete(riskKey(m, c.key))
				}
				b.rows.delete(c.key)
			}
			continue
		}
		head := unmarkedHead
		if c.row != "" {
			head = marksHead(c.row)
		}
		buf := append(b.room[:0], head...)
		if !waits(head) && c.indebted() && !(c.row != "" && improved(Account{Positions: c.positions, Unfinal: c.unfinal}, c.Account)) {
			buf[0] |= unmarked
			b.fresh = append(b.fresh, c.key)
		}
		b.room = packAccount(buf, c.Account)
		b.rows.set(c.key, b.room)
	}
}

// unmark says that no mark holds: a SupplyIndex fell.
func (t *Accounts) unmark() { t.writable().unset = true }

// folded is t, or a copy of it, with nothing outside its book.
func (t *Accounts) folded() *Accounts {
	if len(t.recent) == 0 {
		return t
	}
	c := *t
	c.mine = false
	c.fold()
	return &c
}

// All walks in ascending order of ids. The table must not change meanwhile.
func (t *Accounts) All() iter.Seq2[AccountID, Account] {
	return func(yield func(AccountID, Account) bool) {
		f := t.folded()
		if f.book == nil {
			return
		}
		for key, row := range f.book.rows.from("") {
			a := must(unpackAccount(packedOf(row)))
			a.ID = keyAccount(key)
			if !yield(a.ID, a) {
				return
			}
		}
	}
}

func (t *Accounts) all() iter.Seq2[AccountID, Account] { return t.All() }

// From walks in ascending order beginning at the first id ≥ the given one.
func (t *Accounts) From(id AccountID) iter.Seq2[AccountID, Account] {
	return func(yield func(AccountID, Account) bool) {
		f := t.folded()
		if f.book == nil {
			return
		}
		for key, row := range f.book.rows.from(accountKey(id)) {
			a := must(unpackAccount(packedOf(row)))
			a.ID = keyAccount(key)
			if !yield(a.ID, a) {
				return
			}
		}
	}
}

// keys returns all ids, ascending.
func (t *Accounts) keys() []AccountID {
	ids := make([]AccountID, 0, t.n)
	for id := range t.all() {
		ids = append(ids, id)
	}
	return ids
}

// packedRow is an account as it stands in a snapshot.
type packedRow struct {
	_      struct{} `cbor:",toarray"`
	Key    []byte
	Packed []byte
}

// packedRows walks the accounts as they stand in a snapshot.
func (t *Accounts) packedRows() iter.Seq[packedRow] {
	return func(yield func(packedRow) bool) {
		f := t.folded()
		if f.book == nil {
			return
		}
		for key, row := range f.book.rows.from("") {
			if !yield(packedRow{Key: []byte(key), Packed: []byte(packedOf(row))}) {
				return
			}
		}
	}
}

// MarshalCBOR writes the rows in ascending order, so equal tables are equal bytes.
func (t Accounts) MarshalCBOR() ([]byte, error) {
	list := make([]packedRow, 0, t.n)
	for r := range t.packedRows() {
		list = append(list, r)
	}
	return encMode.Marshal(list)
}

// UnmarshalCBOR reads what MarshalCBOR wrote and refuses accounts that are not
// packed in their one form, out of order or doubled.
func (t *Accounts) UnmarshalCBOR(b []byte) error {
	var list []packedRow
	if err := decMode.Unmarshal(b, &list); err != nil {
		return err
	}
	l := newAccountLoading(t)
	if err := l.add(list); err != nil {
		return err
	}
	l.done()
	return nil
}

// accountLoading fills a table with packed rows in ascending order.
type accountLoading struct {
	t    *Accounts
	rows *loading
	last string
}

func newAccountLoading(t *Accounts) *accountLoading {
	*t = Accounts{own: true}
	return &accountLoading{t: t, rows: newLoading()}
}

func (l *accountLoading) add(list []packedRow) error {
	for _, r := range list {
		key := string(r.Key)
		if !isAccountKey(key) || key <= l.last {
			return fmt.Errorf("account %x after %x: %w", key, l.last, errPacked)
		}
		a, err := unpackAccount(string(r.Packed))
		if err != nil {
			return fmt.Errorf("account %x: %w", key, err)
		}
		if l.t.n == maxAccounts {
			return fmt.Errorf("more than %d accounts", maxAccounts)
		}
		l.t.move(nil, a.Positions)
		l.t.n++
		l.rows.add(key, unmarkedHead+string(r.Packed))
		l.last = key
	}
	return nil
}

func (l *accountLoading) done() {
	l.t.book, l.t.mine = &book{rows: l.rows.done(), risk: newRows(), unset: true}, true
}
