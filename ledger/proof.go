package ledger

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/coffer-network/coffer/ledger/fixed"
)

// Liability is what the cluster owes in one pool, as a root holds it.
type Liability struct {
	Pool      string    `cbor:"1,keyasint"`
	Decimals  uint8     `cbor:"2,keyasint"`
	Shares    fixed.Int `cbor:"3,keyasint"` // SupplyShares of all accounts
	Treasury  fixed.Int `cbor:"4,keyasint"` // TreasuryShares
	Index     fixed.Int `cbor:"5,keyasint"` // SupplyIndex as of its last accrual, RAY
	Suspended fixed.Int `cbor:"6,keyasint"` // base units
}

// Step is a node beside the path from a leaf to the root.
type Step struct {
	Left bool    `cbor:"1,keyasint"` // it is the left child
	Node SumNode `cbor:"2,keyasint"`
}

// AccountProof shows that an account is among those that a certified root sums
// up (spec: consensus §12). It brings everything but the genesis hash, which the
// reader has to know.
type AccountProof struct {
	Genesis     Genesis       `cbor:"1,keyasint"`
	Epochs      []Epoch       `cbor:"2,keyasint"` // after the genesis', to that of Certificate
	Flips       []Certificate `cbor:"3,keyasint"` // by which each of Epochs came in force
	Certificate Certificate   `cbor:"4,keyasint"` // its approval names the root
	Account     AccountID     `cbor:"5,keyasint"`
	Packed      []byte        `cbor:"6,keyasint"` // the account's row; empty: only suspense is left
	Suspended   []Owed        `cbor:"7,keyasint"` // its suspense, ascending by pool
	Path        []Step        `cbor:"8,keyasint"` // from the leaf up
	Accounts    uint64        `cbor:"9,keyasint"` // how many there are
	Totals      []Liability   `cbor:"10,keyasint"`
	Rest        Hash          `cbor:"11,keyasint"` // of what else the root covers
}

// rooted is what proofs under the last root are made from.
type rooted struct {
	root   Hash
	rows   rows
	tree   *accountTree
	n      uint64
	totals []Liability
	rest   Hash
}

func (s *State) liabilities() []Liability {
	var list []Liability
	for id, p := range s.Pools.all() {
		list = append(list, Liability{
			Pool: id, Decimals: p.Decimals, Shares: p.SupplyShares, Treasury: p.TreasuryShares, Index: p.SupplyIndex, Suspended: p.Suspended,
		})
	}
	return list
}

func rootHash(accounts Hash, totals []Liability, rest Hash) Hash {
	owed := sha256.Sum256(Marshal(totals))
	b := append([]byte("coffer/root/2"), accounts[:]...)
	return sha256.Sum256(append(append(b, owed[:]...), rest[:]...))
}

// ErrNoProof: the state under the certificate's root is not at hand. A state
// that was restored has it from the next root on.
var ErrNoProof = errors.New("ledger: the certified root is not at hand")

// ErrNotThere: the account was not there at the certified root.
var ErrNotThere = errors.New("ledger: the account is not under the certified root")

// Prove makes the proof of an account under a certificate of this ledger's own
// chain. Errors are ErrNoProof and ErrNotThere.
func (s *State) Prove(id AccountID, c Certificate) (p AccountProof, err error) {
	if s.Accounts.book == nil || s.Accounts.book.rooted == nil || s.Accounts.book.rooted.root != c.Approval.Root {
		return p, ErrNoProof
	}
	r := s.Accounts.book.rooted
	key := accountKey(id)
	at := bucketOf(key)
	rows := r.rows.copy()
	leaves := bucketLeaves(&rows, r.tree.suspended, at)
	i, found := slices.BinarySearchFunc(leaves, key, func(l leaf, k string) int { return strings.Compare(l.key, k) })
	if !found {
		return p, ErrNotThere
	}
	p = AccountProof{
		Genesis: s.Genesis, Certificate: c, Account: id, Packed: []byte(leaves[i].packed), Accounts: r.n, Totals: r.totals, Rest: r.rest,
	}
	for _, e := range leaves[i].suspended {
		p.Suspended = append(p.Suspended, Owed{Pool: e.pool, Suspended: e.amount})
	}
	for n, e := range s.Epochs[1:] {
		if e.Number <= c.Approval.Epoch {
			p.Epochs, p.Flips = append(p.Epochs, e), append(p.Flips, s.Flips[n])
		}
	}
	for nodes := nodesOf(leaves); len(nodes) > 1; i /= 2 {
		if j := i ^ 1; j < len(nodes) {
			p.Path = append(p.Path, Step{Left: j < i, Node: nodes[j]})
		}
		up := nodes[:0]
		for k := 0; k < len(nodes); k += 2 {
			up = append(up, treeOf(slices.Clone(nodes[k:min(k+2, len(nodes))])))
		}
		nodes = up
	}
	for _, heap := range []struct {
		nodes []SumNode
		at    uint16
	}{{r.tree.blocks[at>>8][:], at & 255}, {r.tree.top[:], at >> 8}} {
		for k := 256 + int(heap.at); k > 1; k /= 2 {
			p.Path = append(p.Path, Step{Left: k&1 == 1, Node: heap.nodes[k^1]})
		}
	}
	return p, nil
}

// Proven is what a proof shows.
type Proven struct {
	Account    AccountID
	Height     uint64 // of the certified head
	Head       Hash
	RootHeight uint64 // whose state the root is of
	Root       Hash
	Epoch      uint64
	Signers    int
	Accounts   uint64
	Pools      []ProvenPool // ascending
}

// ProvenPool is in base units, rounded down as the ledger pays.
type ProvenPool struct {
	Pool      string
	Decimals  uint8
	Supplied  fixed.Int // the account's
	Suspended fixed.Int // the account's, to be claimed
	Total     fixed.Int // owed to all accounts and the treasury, suspense included
}

// maxPath is above any tree's height: 16 and that of a bucket of maxAccounts.
const maxPath = 16 + 32

// Verify checks everything from the genesis hash that the reader knows down to
// the account. Nothing in the proof is believed. It does not show that no other
// account is hidden, nor what is on a chain.
func (p AccountProof) Verify(genesis Hash) (Proven, error) {
	var out Proven
	if got := p.Genesis.Hash(); got != genesis {
		return out, fmt.Errorf("genesis is %s, want %s", got, genesis)
	}
	e := p.Genesis.Epoch
	if len(p.Epochs) != len(p.Flips) {
		return out, fmt.Errorf("%d epochs under %d certificates", len(p.Epochs), len(p.Flips))
	}
	for i, next := range p.Epochs {
		if err := p.Flips[i].Verify(genesis, e); err != nil {
			return out, fmt.Errorf("members of epoch %d: %w", next.Number, err)
		}
		if next.Number != e.Number+1 || p.Flips[i].Approval.Members != next.MembersHash() {
			return out, fmt.Errorf("members of epoch %d are not those that epoch %d certified", next.Number, e.Number)
		}
		e = next
	}
	if err := p.Certificate.Verify(genesis, e); err != nil {
		return out, err
	}
	node, err := p.leaf()
	if err != nil {
		return out, fmt.Errorf("leaf: %w", err)
	}
	mine := node.Owed
	if len(p.Path) > maxPath {
		return out, fmt.Errorf("path of %d steps, at most %d", len(p.Path), maxPath)
	}
	for i, step := range p.Path {
		if !plain(step.Node.Owed) {
			return out, fmt.Errorf("step %d of the path: sums not ascending by pool", i)
		}
		l, r := node, step.Node
		if step.Left {
			l, r = r, l
		}
		if node, err = pair(l, r); err != nil {
			return out, fmt.Errorf("step %d of the path: %w", i, err)
		}
	}
	a := p.Certificate.Approval
	if got := rootHash(accountsHash(p.Accounts, node), p.Totals, p.Rest); got != a.Root {
		return out, fmt.Errorf("leaf, path and sums come to root %s, certified is %s", got, a.Root)
	}
	out = Proven{
		Account: p.Account, Height: a.Height, Head: a.Head, RootHeight: a.RootHeight, Root: a.Root,
		Epoch: a.Epoch, Signers: len(p.Certificate.Signatures), Accounts: p.Accounts,
	}
	for _, t := range p.Totals {
		sum, own := owedIn(node.Owed, t.Pool), owedIn(mine, t.Pool)
		if sum.Shares != t.Shares || sum.Suspended != t.Suspended {
			return Proven{}, fmt.Errorf("%s: leaves sum to %s shares and %s suspended, the ledger says %s and %s",
				t.Pool, sum.Shares, sum.Suspended, t.Shares, t.Suspended)
		}
		var c fixed.Calc
		out.Pools = append(out.Pools, ProvenPool{
			Pool: t.Pool, Decimals: t.Decimals, Supplied: c.MulDivFloor(own.Shares, t.Index, fixed.Ray), Suspended: own.Suspended,
			Total: c.Add(c.MulDivFloor(c.Add(t.Shares, t.Treasury), t.Index, fixed.Ray), t.Suspended),
		})
		if c.Err() != nil {
			return Proven{}, fmt.Errorf("%s: %w", t.Pool, c.Err())
		}
	}
	return out, nil
}

// leaf is computed from the account itself, so that its sums are the account's.
func (p AccountProof) leaf() (SumNode, error) {
	key := accountKey(p.Account)
	if !isAccountKey(key) {
		return SumNode{}, fmt.Errorf("%q is no account", p.Account)
	}
	var positions []Position
	if len(p.Packed) > 0 {
		a, err := unpackAccount(string(p.Packed))
		if err != nil {
			return SumNode{}, err
		}
		positions = a.Positions
	}
	if !plain(p.Suspended) {
		return SumNode{}, errors.New("suspense not ascending by pool")
	}
	var susp []suspended
	for _, o := range p.Suspended {
		susp = append(susp, suspended{key, o.Pool, o.Suspended})
	}
	return leafNode(key, string(p.Packed), positions, susp)
}

// plain reports whether no other list hashes like this one.
func plain(list []Owed) bool {
	for i, o := range list {
		if len(o.Pool) > maxKeyBytes || i > 0 && list[i-1].Pool >= o.Pool {
			return false
		}
	}
	return len(list) <= 255
}

func owedIn(list []Owed, pool string) Owed {
	for _, o := range list {
		if o.Pool == pool {
			return o
		}
	}
	return Owed{}
}
