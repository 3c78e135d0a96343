package ledger

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"slices"

	"github.com/coffer-network/coffer/ledger/fixed"
)

// fields is the packed form of an account but for its id: a line for each
// field, in an order that only grows at its end. The same lines write and read.
//
// A field that is missing here is lost at the next fold; TestPackedAccount
// fails for it.
func (a *Account) fields(p *packing) {
	a.lending(p)
	packList(p, &a.Wallets, func(w *string) { p.text(w) })
	p.number(&a.Nonce)
	packList(p, &a.Results, func(r *Stored) {
		p.number(&r.Nonce)
		p.hash(&r.Text)
		p.text((*string)(&r.Code))
		p.number(&r.Height)
		p.number(&r.Outflow)
	})
	p.number(&a.Opened)
	p.number(&a.Active)
	p.number(&a.Outflows)
	p.flag(&a.Credited)
	packList(p, &a.Refused, func(r *Refused) {
		p.text(&r.To)
		p.number(&r.Millis)
	})
	packList(p, &a.Held, func(h *Held) {
		p.name(&h.Pool)
		p.number(&h.Epoch)
		p.amount(&h.Shares)
		p.amount(&h.Withdrawn)
	})
	p.number(&a.Liquidated)
}

// lending is what decides health. It comes first, so that weighing an account
// reads no further.
func (a *Account) lending(p *packing) {
	packList(p, &a.Positions, func(at *Position) {
		p.name(&at.Pool)
		p.amount(&at.Supply)
		p.amount(&at.Debt)
	})
	packList(p, &a.Unfinal, func(u *Unfinal) {
		p.name(&u.Pool)
		p.amount(&u.Shares)
		p.name(&u.Chain)
		p.number(&u.Height)
	})
}

// names are written as one byte, by their place here. It may only grow: a
// packed account is under the state root.
var names = []string{
	"btc", "eth", "icp", "sol", "usdc.eth", "usdt.eth", "usdc.sol", // pools of spec lending §13; chains are named like their coins
}

var errPacked = errors.New("ledger: not a packed account")

// packing walks the fields of a value in one of two directions; writing, it only
// reads them, since they may be shared. Numbers are varints in their shortest
// form, amounts their bytes after a length, lists their elements after a count:
// a value has one packed form, and reading refuses every other.
//
// Why not a shorter in after each field, but a place in it: every pointer that is
// written costs a barrier while the collector is at work, a third of the reading.
type packing struct {
	writing bool
	out     []byte
	in      string
	at      int  // reading: where in in the next field is
	bad     bool // reading: not what writing gives
}

// packAccount returns the packed form without the id.
func packAccount(b []byte, a Account) []byte {
	p := packing{writing: true, out: b}
	a.fields(&p)
	return p.out
}

// unpackAccount reads what packAccount wrote. Texts are parts of packed.
func unpackAccount(packed string) (a Account, err error) {
	p := packing{in: packed}
	a.fields(&p)
	if p.bad || p.at != len(p.in) {
		return Account{}, errPacked
	}
	return a, nil
}

// unpackLending reads only Positions and Unfinal, into the lists that a has.
func (a *Account) unpackLending(packed string) {
	a.Positions, a.Unfinal = a.Positions[:0], a.Unfinal[:0]
	p := packing{in: packed}
	if a.lending(&p); p.bad {
		panic(errPacked) // every row was packed or read whole before
	}
}

// unpackLending is an account of which only Positions and Unfinal are read.
func unpackLending(packed string) (a Account) {
	a.unpackLending(packed)
	return a
}

func (p *packing) number(v *uint64) {
	if p.writing {
		p.out = binary.AppendUvarint(p.out, *v)
		return
	}
	if p.at < len(p.in) && p.in[p.at] < 0x80 { // mostly
		*v = uint64(p.in[p.at])
		p.at++
		return
	}
	n, size := uvarint(p.in[p.at:])
	if size == 0 || size > 1 && p.in[p.at+size-1] == 0 {
		p.fail()
		return
	}
	*v = n
	p.at += size
}

func (p *packing) flag(v *bool) {
	var n uint64
	if *v {
		n = 1
	}
	if p.number(&n); !p.writing {
		*v = n == 1
		p.bad = p.bad || n > 1
	}
}

// bytes reads the next n bytes.
func (p *packing) bytes(n uint64) string {
	if n > uint64(len(p.in)-p.at) {
		p.fail()
		return ""
	}
	b := p.in[p.at : p.at+int(n)]
	p.at += int(n)
	return b
}

func (p *packing) text(v *string) {
	n := uint64(len(*v))
	p.number(&n)
	if p.writing {
		p.out = append(p.out, *v...)
		return
	}
	*v = p.bytes(n)
}

// name is a text that is mostly one of names.
func (p *packing) name(v *string) {
	n := uint64(slices.Index(names, *v) + 1)
	p.number(&n)
	switch {
	case n == 0:
		p.text(v)
		p.bad = p.bad || !p.writing && slices.Contains(names, *v)
	case p.writing:
	case n > uint64(len(names)):
		p.fail()
	default:
		*v = names[n-1]
	}
}

func (p *packing) hash(v *Hash) {
	if p.writing {
		p.out = append(p.out, v[:]...)
		return
	}
	copy(v[:], p.bytes(uint64(len(v))))
}

func (p *packing) amount(v *fixed.Int) {
	if p.writing {
		at := len(p.out)
		p.out = v.Append(append(p.out, 0))
		p.out[at] = byte(len(p.out) - at - 1)
		return
	}
	var n uint64
	p.number(&n)
	got, err := fixed.FromBytes(p.bytes(n))
	p.bad = p.bad || err != nil
	*v = got
}

func packList[T any](p *packing, list *[]T, element func(*T)) {
	n := uint64(len(*list))
	p.number(&n)
	if n > uint64(len(p.in)-p.at) && !p.writing { // every element has a byte
		p.fail()
		return
	}
	if p.writing {
		for i := range *list {
			element(&(*list)[i])
		}
		return
	}
	if n > uint64(cap(*list)) {
		*list = make([]T, 0, min(n, maxPromised))
	}
	for i := range n {
		var zero T
		*list = append(*list, zero)
		if element(&(*list)[i]); p.bad {
			return
		}
	}
}

// maxPromised is for how many elements room is taken before they are read.
const maxPromised = 64

// fail ends the reading: whatever is asked for now is empty.
func (p *packing) fail() { p.bad, p.at = true, len(p.in) }

// An account's key is its id in 16 bytes behind a zero; another text, which no
// request can name, keeps its letters behind a one. Keys are ordered like ids.
const (
	keyOfHex  = "\x00"
	keyOfText = "\x01"
)

func accountKey(id AccountID) string {
	var b [1 + 16]byte
	if len(id) == 32 {
		for i := range 16 {
			hi, lo := nibbles[id[2*i]], nibbles[id[2*i+1]]
			if hi|lo > 15 {
				return keyOfText + id
			}
			b[1+i] = hi<<4 | lo
		}
		return string(b[:])
	}
	return keyOfText + id
}

// nibbles are the values of lower-case hex digits, and 0xff.
var nibbles = func() (n [256]byte) {
	for i := range n {
		n[i] = 0xff
	}
	for i, c := range []byte("0123456789abcdef") {
		n[c] = byte(i)
	}
	return n
}()

// isAccountKey reports whether key is what accountKey gives for some id.
func isAccountKey(key string) bool {
	switch {
	case len(key) < 2 || len(key) > maxKeyBytes:
		return false
	case key[:1] == keyOfHex:
		return len(key) == 1+16
	}
	return key[:1] == keyOfText && accountKey(key[1:]) == key
}

func keyAccount(key string) AccountID {
	if key[:1] == keyOfHex {
		var b [32]byte
		hex.Encode(b[:], []byte(key[1:]))
		return string(b[:])
	}
	return key[1:]
}
