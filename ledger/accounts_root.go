package ledger

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/coffer-network/coffer/ledger/fixed"
)

// The accounts' part of a state root: a Merkle-sum tree (spec: consensus §12).
// A leaf is an account with what it is owed in each pool; a node hashes both
// children and both their sums. Accounts come together in buckets, and a root
// hashes anew only the buckets that changed since the root before, and what is
// above them. Where accounts lie in pages and what marks they have is not in it.
//
// What is owed stands as shares, and as base units only where it is suspense.
// Why not all in base units: interest would change every leaf at every tick. The
// index that turns shares into base units is under the same root (Liability).

// buckets of accounts by the first two bytes of their id; texts, which no
// request can name, share the last one.
const buckets = 1 << 16

// Owed is what is owed in one pool.
type Owed struct {
	Pool      string    `cbor:"1,keyasint"`
	Shares    fixed.Int `cbor:"2,keyasint"` // SupplyShares
	Suspended fixed.Int `cbor:"3,keyasint"` // base units in suspense
}

// SumNode is a node of the tree: what it hashes, and the sums of all below it,
// ascending by pool. One with nothing below it is zero.
type SumNode struct {
	Hash Hash   `cbor:"1,keyasint"`
	Owed []Owed `cbor:"2,keyasint"`
}

// accountTree is never written to once it is done.
type accountTree struct {
	blocks    [256]*bucketBlock
	top       [512]SumNode // as a heap: the children of i are 2i and 2i+1; blocks from 256 on
	suspended []suspended
}

// bucketBlock is a heap likewise, with buckets from 256 on.
type bucketBlock [512]SumNode

// suspended is an entry of the suspense, by the key of its account, which may
// be dropped already.
type suspended struct {
	key, pool string
	amount    fixed.Int
}

func (a suspended) compare(b suspended) int {
	return cmp.Or(strings.Compare(a.key, b.key), strings.Compare(a.pool, b.pool))
}

func bucketOf(key string) uint16 {
	if key[:1] != keyOfHex {
		return buckets - 1
	}
	return uint16(key[1])<<8 | uint16(key[2])
}

// suspense is all suspense in the order of the tree's leaves.
func (s *State) suspense() []suspended {
	list := make([]suspended, 0, s.Suspense.len())
	for key, e := range s.Suspense.all() {
		i := strings.LastIndexByte(key, '/')
		list = append(list, suspended{accountKey(key[:i]), key[i+1:], e.Amount})
	}
	slices.SortFunc(list, suspended.compare)
	return list
}

// root is the accounts' part of S_i, with the suspense that is owed beside them.
func (t *Accounts) root(susp []suspended) Hash {
	b := t.writable()
	if b.tree == nil || len(b.changed) >= buckets { // then some may not be there
		b.tree = b.wholeTree(susp)
	} else if at := changedSuspense(b.changed, b.tree.suspended, susp); len(at) > 0 {
		b.tree = b.nextTree(b.tree, at, susp)
	}
	b.changed = nil
	return accountsHash(uint64(t.n), b.tree.top[1])
}

func accountsHash(n uint64, top SumNode) Hash {
	b := binary.BigEndian.AppendUint64([]byte("coffer/accounts/2"), n)
	return sha256.Sum256(appendNode(b, top))
}

// changedSuspense adds the buckets where suspense differs.
func changedSuspense(at []uint16, old, now []suspended) []uint16 {
	at = slices.Clone(at)
	for len(old) > 0 || len(now) > 0 {
		switch {
		case len(now) == 0 || len(old) > 0 && old[0].compare(now[0]) < 0:
			at, old = append(at, bucketOf(old[0].key)), old[1:]
		case len(old) == 0 || old[0].compare(now[0]) > 0:
			at, now = append(at, bucketOf(now[0].key)), now[1:]
		default:
			if old[0] != now[0] {
				at = append(at, bucketOf(now[0].key))
			}
			old, now = old[1:], now[1:]
		}
	}
	return at
}

// wholeTree hashes every row.
func (b *book) wholeTree(susp []suspended) *accountTree {
	var at []uint16
	for key := range b.rows.from("") {
		if k := bucketOf(key); len(at) == 0 || at[len(at)-1] != k {
			at = append(at, k)
		}
	}
	return b.nextTree(new(accountTree), changedSuspense(at, nil, susp), susp)
}

// nextTree hashes the buckets that changed, and each node above them once.
func (b *book) nextTree(old *accountTree, changed []uint16, susp []suspended) *accountTree {
	t := *old
	t.suspended = susp
	slices.Sort(changed)
	changed = slices.Compact(changed)
	var tops []int
	for len(changed) > 0 {
		n, in := changed[0]>>8, 0
		block := new(bucketBlock)
		if t.blocks[n] != nil {
			*block = *t.blocks[n]
		}
		var dirty []int
		for in < len(changed) && changed[in]>>8 == n {
			i := 256 + int(changed[in]&255)
			block[i] = treeOf(nodesOf(bucketLeaves(&b.rows, susp, changed[in])))
			dirty = append(dirty, i)
			in++
		}
		raise(block[:], dirty)
		t.blocks[n], t.top[256+int(n)] = block, block[1]
		tops, changed = append(tops, 256+int(n)), changed[in:]
	}
	raise(t.top[:], tops)
	return &t
}

// raise computes what is above the given leaves, which ascend.
func raise(heap []SumNode, dirty []int) {
	for len(dirty) > 0 && dirty[0] > 1 {
		up := dirty[:0]
		for _, i := range dirty {
			if i /= 2; len(up) == 0 || up[len(up)-1] != i {
				heap[i] = must(pair(heap[2*i], heap[2*i+1]))
				up = append(up, i)
			}
		}
		dirty = up
	}
}

// leaf is one account: its packed row, empty where only suspense is left.
type leaf struct {
	key, packed string
	suspended   []suspended
}

// bucketLeaves are the leaves of one bucket, ascending by key.
func bucketLeaves(r *rows, susp []suspended, at uint16) []leaf {
	var leaves []leaf
	start := keyOfHex + string([]byte{byte(at >> 8), byte(at)})
	for key, row := range r.from(start) {
		if bucketOf(key) != at {
			break
		}
		leaves = append(leaves, leaf{key: key, packed: packedOf(row)})
	}
	i, _ := slices.BinarySearchFunc(susp, start, func(e suspended, k string) int { return strings.Compare(e.key, k) })
	for ; i < len(susp) && bucketOf(susp[i].key) == at; i++ {
		j, found := slices.BinarySearchFunc(leaves, susp[i].key, func(l leaf, k string) int { return strings.Compare(l.key, k) })
		if !found {
			leaves = slices.Insert(leaves, j, leaf{key: susp[i].key})
		}
		leaves[j].suspended = append(leaves[j].suspended, susp[i])
	}
	return leaves
}

func nodesOf(leaves []leaf) []SumNode {
	nodes := make([]SumNode, len(leaves))
	for i, l := range leaves {
		var positions []Position
		if l.packed != "" {
			positions = unpackLending(l.packed).Positions
		}
		nodes[i] = must(leafNode(l.key, l.packed, positions, l.suspended))
	}
	return nodes
}

// leafNode is the leaf of an account; positions are those in packed.
func leafNode(key, packed string, positions []Position, susp []suspended) (SumNode, error) {
	var n SumNode
	for _, p := range positions {
		if !p.Supply.IsZero() {
			n.Owed = append(n.Owed, Owed{Pool: p.Pool, Shares: p.Supply})
		}
	}
	var waiting []Owed
	for _, e := range susp {
		waiting = append(waiting, Owed{Pool: e.pool, Suspended: e.amount})
	}
	var err error
	if n.Owed, err = addOwed(n.Owed, waiting); err != nil {
		return n, err
	}
	b := append(make([]byte, 0, 256+len(packed)), 0, byte(len(key)))
	b = append(b, key...)
	b = binary.AppendUvarint(b, uint64(len(packed)))
	b = append(b, packed...)
	n.Hash = sha256.Sum256(appendOwed(b, n.Owed))
	return n, nil
}

// treeOf is the node over a list of nodes: neighbours in pairs, an odd last one
// as it is.
func treeOf(nodes []SumNode) SumNode {
	if len(nodes) == 0 {
		return SumNode{}
	}
	for len(nodes) > 1 {
		up := nodes[:0]
		for i := 0; i < len(nodes); i += 2 {
			if i+1 == len(nodes) {
				up = append(up, nodes[i])
			} else {
				up = append(up, must(pair(nodes[i], nodes[i+1])))
			}
		}
		nodes = up
	}
	return nodes[0]
}

// pair is the node above two.
func pair(l, r SumNode) (n SumNode, err error) {
	if l.Hash == (Hash{}) && r.Hash == (Hash{}) {
		return n, nil
	}
	if n.Owed, err = addOwed(l.Owed, r.Owed); err != nil {
		return n, err
	}
	var at [512]byte
	n.Hash = sha256.Sum256(appendNode(appendNode(append(at[:0], 1), l), r))
	return n, nil
}

func appendNode(b []byte, n SumNode) []byte { return appendOwed(append(b, n.Hash[:]...), n.Owed) }

func appendOwed(b []byte, list []Owed) []byte {
	b = append(b, byte(len(list)))
	for _, o := range list {
		b = append(append(b, byte(len(o.Pool))), o.Pool...)
		for _, v := range []fixed.Int{o.Shares, o.Suspended} {
			at := len(b)
			b = v.Append(append(b, 0))
			b[at] = byte(len(b) - at - 1)
		}
	}
	return b
}

// addOwed adds two lists that ascend by pool. It writes to neither.
func addOwed(a, b []Owed) ([]Owed, error) {
	if len(a) == 0 || len(b) == 0 {
		return append(slices.Clip(a), b...), nil
	}
	sum := make([]Owed, 0, max(len(a), len(b)))
	for len(a) > 0 && len(b) > 0 {
		switch c := strings.Compare(a[0].Pool, b[0].Pool); {
		case c < 0:
			sum, a = append(sum, a[0]), a[1:]
		case c > 0:
			sum, b = append(sum, b[0]), b[1:]
		default:
			shares, err := fixed.Add(a[0].Shares, b[0].Shares)
			if err != nil {
				return nil, fmt.Errorf("shares of %s: %w", a[0].Pool, err)
			}
			susp, err := fixed.Add(a[0].Suspended, b[0].Suspended)
			if err != nil {
				return nil, fmt.Errorf("suspense of %s: %w", a[0].Pool, err)
			}
			sum = append(sum, Owed{Pool: a[0].Pool, Shares: shares, Suspended: susp})
			a, b = a[1:], b[1:]
		}
	}
	return append(append(sum, a...), b...), nil
}
