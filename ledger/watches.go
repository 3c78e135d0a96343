package ledger

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/coffer-network/coffer/ledger/address"
)

// Watches are the addresses of ours, numbered as they were registered. None is
// ever changed or taken off, so one running hash stands for all of them under
// the root. Each account has two on every chain: rows are packed (rows.go), and
// addresses are their 20 bytes.
type Watches struct {
	rows   rows // by watchKey: packed watch
	log    rows // by number, 4 bytes: watchKey
	n      uint64
	head   Hash // of all rows, in order of their numbers
	shared bool // somebody else may see the pages: see table
}

// share is table.share.
func (t *Watches) share() { t.shared = true }

// put registers an address that is not registered yet.
func (t *Watches) put(w Watch) { t.add(watchKey(w.Chain+"/"+w.Address), string(packWatch(w))) }

func (t *Watches) add(key, packed string) {
	switch {
	case t.rows.n == 0:
		t.rows, t.log = newRows(), newRows()
	case t.shared:
		t.rows, t.log = t.rows.copy(), t.log.copy()
	}
	t.shared = false
	t.rows.set(key, []byte(packed))
	t.log.set(string(binary.BigEndian.AppendUint32(nil, uint32(t.n))), []byte(key))
	t.n++
	h := sha256.New()
	h.Write(t.head[:])
	h.Write([]byte{byte(len(key))})
	h.Write([]byte(key))
	h.Write([]byte(packed))
	h.Sum(t.head[:0])
}

// Get returns the watch of a "chain/address".
func (t *Watches) Get(key string) (Watch, bool) { return t.get(key) }

func (t *Watches) get(key string) (Watch, bool) {
	if t.rows.n == 0 {
		return Watch{}, false
	}
	packed, ok := t.rows.get(watchKey(key))
	if !ok {
		return Watch{}, false
	}
	return must(unpackWatch(key, packed)), true
}

// at returns the watch, or one without any field.
func (t *Watches) at(key string) Watch { w, _ := t.get(key); return w }

func (t *Watches) has(key string) bool {
	if t.rows.n == 0 {
		return false
	}
	_, ok := t.rows.get(watchKey(key))
	return ok
}

// Len is how many were registered: the next number.
func (t *Watches) Len() int { return int(t.n) }

// Number returns the "chain/address" with a number.
func (t *Watches) Number(n uint64) (string, bool) {
	if n >= t.n || t.log.n == 0 {
		return "", false
	}
	key, ok := t.log.get(string(binary.BigEndian.AppendUint32(nil, uint32(n))))
	return watchName(key), ok
}

// All walks in the order of numbers.
func (t *Watches) All() iter.Seq2[string, Watch] {
	return func(yield func(string, Watch) bool) {
		for r := range t.packedRows() {
			name := watchName(string(r.Key))
			if !yield(name, must(unpackWatch(name, string(r.Packed)))) {
				return
			}
		}
	}
}

func (t *Watches) packedRows() iter.Seq[packedRow] {
	return func(yield func(packedRow) bool) {
		if t.log.n == 0 {
			return
		}
		for _, key := range t.log.from("") {
			packed, _ := t.rows.get(key)
			if !yield(packedRow{Key: []byte(key), Packed: []byte(packed)}) {
				return
			}
		}
	}
}

// bare is t without its rows: what stands for them under a root, and before them
// in a snapshot.
func (t *Watches) bare() Watches { return Watches{n: t.n, head: t.head} }

// load adds rows in the order of their numbers, each in its one form.
func (t *Watches) load(list []packedRow) error {
	for _, r := range list {
		key, packed := string(r.Key), string(r.Packed)
		if len(key) < 2 || len(key) > maxKeyBytes || len(packed) > maxWatch {
			return fmt.Errorf("address %x: %w", key, errWatch)
		}
		name := watchName(key)
		w, err := unpackWatch(name, packed)
		if err != nil || watchKey(name) != key || string(packWatch(w)) != packed || t.has(name) {
			return fmt.Errorf("address %q: %w", name, errWatch)
		}
		t.add(key, packed)
	}
	return nil
}

// check: all rows are there.
func (t *Watches) check() error {
	if uint64(t.rows.n) != t.n || uint64(t.log.n) != t.n {
		return fmt.Errorf("%d addresses, %d numbers, %d were registered", t.rows.n, t.log.n, t.n)
	}
	return nil
}

var errWatch = errors.New("ledger: not a packed address, or one twice")

// maxWatch bounds a packed watch, in bytes: a path and a key among them.
const maxWatch = 1024

// Keys of Watches: the 20 bytes of the usual addresses, or the name itself.
const (
	watchText     = '\x00'
	watchEthereum = '\x01'
	watchBitcoin  = '\x02' // P2WPKH of mainnet, then of the other two
)

var watchNetworks = []string{address.Mainnet, address.Testnet, address.Regtest}

// watchKey is the key of a "chain/address".
func watchKey(name string) string {
	if hexes, ok := strings.CutPrefix(name, Ethereum+"/0x"); ok && len(hexes) == 40 {
		if b, err := hex.DecodeString(hexes); err == nil {
			if key := string(append([]byte{watchEthereum}, b...)); watchName(key) == name {
				return key
			}
		}
	}
	if addr, ok := strings.CutPrefix(name, Bitcoin+"/"); ok {
		for i, network := range watchNetworks {
			if script, err := address.ScriptOf(network, addr); err == nil && len(script) == 22 {
				return string(append([]byte{watchBitcoin + byte(i)}, script[2:]...))
			}
		}
	}
	return string(watchText) + name
}

// watchName is the "chain/address" of a key.
func watchName(key string) string {
	switch i := int(key[0]) - watchBitcoin; {
	case key[0] == watchText || len(key) != 21:
		return key[1:]
	case key[0] == watchEthereum:
		return Ethereum + "/" + address.EthereumAddress([20]byte([]byte(key[1:])))
	case i >= 0 && i < len(watchNetworks):
		return Bitcoin + "/" + must(address.AddressOf(watchNetworks[i], append([]byte{0, 20}, key[1:]...)))
	}
	return key[1:]
}

// A packed watch is usualWatch and what its account and purpose do not say, or
// otherWatch and its CBOR.
const (
	usualWatch = 1
	otherWatch = 2
	pubBytes   = 33
)

// accountPath is where an account's address on a chain is derived.
func accountPath(id [16]byte, chain string, purpose Purpose) address.Path {
	p := address.Path{Chain: chain, Role: address.RoleMinter, Subaccount: address.DepositSubaccount(id)}
	if chain == Ethereum {
		p.Role = address.RoleDeposit
	}
	if purpose == PurposeRepay {
		p.Subaccount = address.RepaySubaccount(id)
	}
	return p
}

func packWatch(w Watch) []byte {
	id, err := hexBytes16(w.Account)
	path := accountPath(id, w.Chain, w.Purpose)
	path.Counter = w.Path.Counter
	if err != nil || hex16(id) != w.Account || w.Path != path || w.Key != KeyECDSA1 || len(w.Pub) != pubBytes {
		return append([]byte{otherWatch}, Marshal(w)...)
	}
	b := append(make([]byte, 0, 1+16+1+1+5+pubBytes), usualWatch)
	b = append(b, id[:]...)
	b = append(b, byte(w.Purpose))
	b = append(b, w.Pub...)
	b = binary.AppendUvarint(b, path.Counter)
	return binary.AppendUvarint(b, w.From)
}

// unpackWatch reads what packWatch wrote, and a few forms more, which whoever
// loads it finds by packing it again.
func unpackWatch(name, packed string) (w Watch, err error) {
	chain, addr, ok := strings.Cut(name, "/")
	if !ok || packed == "" {
		return w, errWatch
	}
	if packed[0] == otherWatch {
		if err := Unmarshal([]byte(packed[1:]), &w); err != nil || w.Chain != chain || w.Address != addr {
			return Watch{}, errWatch
		}
		return w, nil
	}
	const head = 1 + 16 + 1 + pubBytes
	if packed[0] != usualWatch || len(packed) < head {
		return w, errWatch
	}
	id, purpose := [16]byte([]byte(packed[1:17])), Purpose(packed[17])
	w = Watch{Chain: chain, Address: addr, Path: accountPath(id, chain, purpose), Key: KeyECDSA1, Pub: []byte(packed[18:head]), Account: hex16(id), Purpose: purpose}
	rest := packed[head:]
	for _, to := range []*uint64{&w.Path.Counter, &w.From} {
		n, size := uvarint(rest)
		if size == 0 {
			return Watch{}, errWatch
		}
		*to, rest = n, rest[size:]
	}
	if rest != "" {
		return Watch{}, errWatch
	}
	return w, nil
}

// watchesCBOR is the whole, or without rows what bare is.
type watchesCBOR struct {
	_    struct{} `cbor:",toarray"`
	N    uint64
	Head Hash
	Rows []packedRow
}

// MarshalCBOR writes number, hash and rows.
func (t Watches) MarshalCBOR() ([]byte, error) {
	c := watchesCBOR{N: t.n, Head: t.head}
	for r := range t.packedRows() {
		c.Rows = append(c.Rows, r)
	}
	return encMode.Marshal(c)
}

// UnmarshalCBOR reads what MarshalCBOR wrote.
func (t *Watches) UnmarshalCBOR(b []byte) error {
	var c watchesCBOR
	if err := decMode.Unmarshal(b, &c); err != nil {
		return err
	}
	*t = Watches{n: c.N, head: c.Head}
	if len(c.Rows) == 0 {
		return nil
	}
	return t.fill(func(w *Watches) error { return w.load(c.Rows) })
}

// fill gives a bare table its rows.
func (t *Watches) fill(load func(*Watches) error) error {
	var w Watches
	if err := load(&w); err != nil {
		return err
	}
	if w.n != t.n || w.head != t.head {
		return fmt.Errorf("%d addresses do not hash to what stands for %d", w.n, t.n)
	}
	*t = w
	return nil
}
