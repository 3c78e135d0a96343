package ledger

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"slices"
)

// The accounts' part of a state root: a tree over buckets of accounts, of which
// a root hashes anew only the buckets that changed since the root before. Where
// accounts lie in pages and what marks they have is not in it.
//
// The Merkle-sum tree of spec consensus §12, from which a client proves what he
// is owed, takes this place: its leaves are the rows of a bucket.

// buckets of accounts by the first two bytes of their id; texts, which no
// request can name, share the last one.
const buckets = 1 << 16

type accountTree struct {
	blocks [256]*bucketBlock // never written to once the tree is done
}

type bucketBlock struct {
	hash Hash
	at   [256]Hash // of a bucket's rows; zero: it has none
}

func bucketOf(key string) uint16 {
	if key[:1] != keyOfHex {
		return buckets - 1
	}
	return uint16(key[1])<<8 | uint16(key[2])
}

// root is the accounts' part of S_i.
func (t *Accounts) root() Hash {
	b := t.writable()
	if b.tree == nil || len(b.changed) >= buckets { // then some may not be there
		b.tree = b.wholeTree()
	} else if len(b.changed) > 0 {
		b.tree = b.nextTree()
	}
	b.changed = nil
	h := sha256.New()
	h.Write([]byte("coffer/accounts/1"))
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(t.n)))
	for _, k := range b.tree.blocks {
		if k == nil {
			k = new(bucketBlock)
		}
		h.Write(k.hash[:])
	}
	return Hash(h.Sum(nil))
}

// wholeTree hashes every row.
func (b *book) wholeTree() *accountTree {
	t := new(accountTree)
	h, at := sha256.New(), -1
	end := func() {
		if at >= 0 {
			if t.blocks[at>>8] == nil {
				t.blocks[at>>8] = new(bucketBlock)
			}
			h.Sum(t.blocks[at>>8].at[at&255][:0])
			h.Reset()
		}
	}
	for key, row := range b.rows.from("") {
		if k := int(bucketOf(key)); k != at {
			end()
			at = k
		}
		hashRow(h, key, row)
	}
	end()
	for _, k := range t.blocks {
		if k != nil {
			k.sum()
		}
	}
	return t
}

// nextTree hashes the buckets that changed.
func (b *book) nextTree() *accountTree {
	t := *b.tree
	changed := slices.Clone(b.changed)
	slices.Sort(changed)
	var block *bucketBlock
	for i, at := range slices.Compact(changed) {
		if k := &t.blocks[at>>8]; i == 0 || block != *k {
			block = new(bucketBlock)
			if *k != nil {
				*block = **k
			}
			*k = block
		}
		block.at[at&255] = b.bucketHash(at)
	}
	for i, k := range t.blocks {
		if k != nil && k != b.tree.blocks[i] {
			k.sum()
		}
	}
	return &t
}

func (b *book) bucketHash(at uint16) (sum Hash) {
	h, rows := sha256.New(), 0
	for key, row := range b.rows.from(keyOfHex + string([]byte{byte(at >> 8), byte(at)})) {
		if bucketOf(key) != at {
			break
		}
		hashRow(h, key, row)
		rows++
	}
	if rows > 0 {
		h.Sum(sum[:0])
	}
	return sum
}

func hashRow(h hash.Hash, key, row string) {
	packed := packedOf(row)
	var head [1 + maxKeyBytes + binary.MaxVarintLen64]byte
	b := append(head[:0], byte(len(key)))
	b = append(b, key...)
	b = binary.AppendUvarint(b, uint64(len(packed)))
	h.Write(b)
	h.Write([]byte(packed))
}

// sum sets the block's hash; a block without accounts has none.
func (k *bucketBlock) sum() {
	h := sha256.New()
	empty := true
	for i := range k.at {
		h.Write(k.at[i][:])
		empty = empty && k.at[i] == Hash{}
	}
	if k.hash = (Hash{}); !empty {
		h.Sum(k.hash[:0])
	}
}
