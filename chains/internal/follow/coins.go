package follow

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/coffer-network/coffer/chains"
)

// Coins is every output at scripts of ours that the best chain has unspent, or
// spent within the last Window blocks: what custody holds at any recent height,
// from blocks alone. The ledger's list of coins is in none of it.
//
// Packed, since it is read and written with every step: a hundred thousand coins
// are seven megabytes in one piece. Each record is
//
//	txid 32 │ output 4 │ height 4 │ spent at 4 │ sats 8 │ key hash 20
//
// where "spent at" 0 is unspent, and height unmet is a coin of which a walk down
// the chain has met the spend and not the coin yet.
type Coins struct {
	packed []byte
	at     map[outpoint]int // record by outpoint; made when first needed
}

// Coin is one output at a script of ours.
type Coin struct {
	TxID    [32]byte // as in blocks: not reversed
	Output  uint32
	Height  uint64
	Sats    uint64
	Program [20]byte // key hash of the P2WPKH script
}

// Gone is an output that a block spends.
type Gone struct {
	TxID   [32]byte
	Output uint32
}

type outpoint [36]byte

const (
	coinSize  = 72
	atHeight  = 36
	atSpent   = 40
	atSats    = 44
	atProgram = 52
	unmet     = ^uint32(0)
)

// Len is how many are kept.
func (c *Coins) Len() int { return len(c.packed) / coinSize }

func (c *Coins) record(i int) []byte { return c.packed[i*coinSize : (i+1)*coinSize] }

func (c *Coins) find(txid [32]byte, output uint32) (key outpoint, i int, ok bool) {
	if c.at == nil {
		c.at = make(map[outpoint]int, c.Len())
		for i := range c.Len() {
			c.at[outpoint(c.record(i)[:atHeight])] = i
		}
	}
	copy(key[:], txid[:])
	binary.BigEndian.PutUint32(key[32:], output)
	i, ok = c.at[key]
	return key, i, ok
}

func (c *Coins) append(key outpoint) []byte {
	c.at[key] = c.Len()
	c.packed = append(append(c.packed, key[:]...), make([]byte, coinSize-atHeight)...)
	return c.record(c.Len() - 1)
}

// arrive enters an output; twice is once.
func (c *Coins) arrive(k Coin) {
	key, i, ok := c.find(k.TxID, k.Output)
	r := []byte(nil)
	if ok {
		r = c.record(i)
	} else {
		r = c.append(key)
	}
	binary.BigEndian.PutUint32(r[atHeight:], uint32(k.Height))
	binary.BigEndian.PutUint64(r[atSats:], k.Sats)
	copy(r[atProgram:], k.Program[:])
}

// spend notes at which height an output was spent. down: blocks below are still to
// be read, and the output may be in one of them.
func (c *Coins) spend(g Gone, height uint64, down bool) {
	key, i, ok := c.find(g.TxID, g.Output)
	switch {
	case ok:
		binary.BigEndian.PutUint32(c.record(i)[atSpent:], uint32(height))
	case down:
		r := c.append(key)
		binary.BigEndian.PutUint32(r[atHeight:], unmet)
		binary.BigEndian.PutUint32(r[atSpent:], uint32(height))
	}
}

// filter keeps the records that keep says, after it changed them.
func (c *Coins) filter(keep func(r []byte) bool) {
	kept := 0
	for i := range c.Len() {
		if r := c.record(i); keep(r) {
			if i != kept {
				copy(c.record(kept), r)
			}
			kept++
		}
	}
	if kept < c.Len() {
		c.packed, c.at = c.packed[:kept*coinSize], nil
	}
}

// unwind forgets what blocks from a height on did.
func (c *Coins) unwind(from uint64) {
	c.filter(func(r []byte) bool {
		height, spent := binary.BigEndian.Uint32(r[atHeight:]), binary.BigEndian.Uint32(r[atSpent:])
		if uint64(spent) >= from {
			binary.BigEndian.PutUint32(r[atSpent:], 0)
			return height != unmet && uint64(height) < from
		}
		return height == unmet || uint64(height) < from
	})
}

// prune forgets what was spent more than Window blocks below the head. Blocks from
// low on are still to be read again: a coin in them stays with its spend, or it
// would be met as unspent. When none are, spends of outputs that were not met go
// too: those arrived before anybody looks for them.
func (c *Coins) prune(head, low uint64) {
	c.filter(func(r []byte) bool {
		height, spent := binary.BigEndian.Uint32(r[atHeight:]), uint64(binary.BigEndian.Uint32(r[atSpent:]))
		if height == unmet {
			return low != none
		}
		return spent == 0 || spent+Window >= head || uint64(height) >= low
	})
}

// none is the lowest height to be read again where none is.
const none = ^uint64(0)

// Unspent calls f with each coin that the best chain had unspent at a height
// within Window of the head.
func (c *Coins) Unspent(height uint64, f func(Coin)) {
	for i := range c.Len() {
		r := c.record(i)
		k := Coin{
			TxID: [32]byte(r), Output: binary.BigEndian.Uint32(r[32:]), Height: uint64(binary.BigEndian.Uint32(r[atHeight:])),
			Sats: binary.BigEndian.Uint64(r[atSats:]), Program: [20]byte(r[atProgram:]),
		}
		spent := uint64(binary.BigEndian.Uint32(r[atSpent:]))
		if k.Height <= height && (spent == 0 || spent > height) {
			f(k)
		}
	}
}

// Name is the coin as ledgers name it, "txid:output".
func (k Coin) Name() string {
	var id [32]byte
	for i, b := range k.TxID {
		id[31-i] = b
	}
	return fmt.Sprintf("%s:%d", hex.EncodeToString(id[:]), k.Output)
}

// Asked returns the hash of the block that a question is about, as far as the
// picture answers for it.
func (s *State) Asked(height uint64) (hash string, err error) {
	head, ok := s.Head()
	switch {
	case !ok || height > head.Height:
		return "", fmt.Errorf("%w: block %d is not read yet", chains.ErrNoBalance, height)
	case height+Window < head.Height, s.Hash(height) == "":
		return "", fmt.Errorf("%w: block %d is too far below %d", chains.ErrNoBalance, height, head.Height)
	}
	return s.Hash(height), nil
}
