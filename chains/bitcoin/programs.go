package bitcoin

import (
	"crypto/sha256"
	"encoding/binary"
	"strings"
	"sync"

	"github.com/btcsuite/btcd/txscript"
	"github.com/btcsuite/btcd/wire"
	"golang.org/x/crypto/ripemd160"

	"github.com/coffer-network/coffer/chains"
	"github.com/coffer-network/coffer/ledger/address"
)

// filterBits: 2 MB, which stays in a processor's cache while the set of a
// million does not. It spares 15 of 16 look-ups there, and more with fewer.
const filterBits = 24

// programs are the key hashes of all watched addresses, kept between steps: a
// block has ten thousand outputs and nearly none is ours, so each must be
// dismissed by one look-up of its bytes. It only sorts out. What it lets
// through is asked of the view, which knows what is not watched any more.
type programs struct {
	mu   sync.RWMutex
	set  map[[20]byte]struct{}
	some []uint64 // a bit for the first filterBits of each in set
	upto uint64   // numbers entered
	last uint64   // the highest entered that is an address here,
	addr string   // and its address
}

// update enters what was registered since the last one.
func (p *programs) update(network string, w chains.Watched) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w == nil {
		return
	}
	n := w.Registered()
	if p.set == nil || !p.sameLedger(w, n) {
		p.some = make([]uint64, 1<<filterBits/64)
		p.set, p.upto, p.last, p.addr = make(map[[20]byte]struct{}, n), 0, 0, ""
	}
	for ; p.upto < n; p.upto++ {
		addr, ok := w.Number(p.upto)
		if !ok {
			continue
		}
		if program, ok := programOf(network, addr); ok {
			p.set[program] = struct{}{}
			word, bit := filterBit(program)
			p.some[word] |= bit
			p.last, p.addr = p.upto, addr
		}
	}
}

// sameLedger: numbers never become another address's, so a view that has
// another one at ours is of another ledger.
func (p *programs) sameLedger(w chains.Watched, n uint64) bool {
	if p.addr == "" || p.last >= n {
		return true // nothing entered yet, or a ledger that is behind
	}
	addr, ok := w.Number(p.last)
	return !ok || addr == p.addr
}

func (p *programs) has(program [20]byte) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.some == nil {
		return false
	}
	if word, bit := filterBit(program); p.some[word]&bit == 0 {
		return false
	}
	_, ok := p.set[program]
	return ok
}

// filterBit is where a hash is in the filter. It is random already.
func filterBit(program [20]byte) (word uint32, bit uint64) {
	n := binary.BigEndian.Uint32(program[:4]) >> (32 - filterBits)
	return n / 64, 1 << (n % 64)
}

// spends reports whether an input may be of a P2WPKH coin of ours: such a one
// shows its key, and the block's witness commitment vouches for that. Hashing
// the key is cheaper than asking the ledger for each outpoint of a block.
func (p *programs) spends(in *wire.TxIn) bool {
	if len(in.SignatureScript) != 0 || len(in.Witness) != 2 || len(in.Witness[1]) != 33 {
		return false
	}
	sum := sha256.Sum256(in.Witness[1])
	h := ripemd160.New()
	h.Write(sum[:])
	var hash [20]byte
	h.Sum(hash[:0])
	return p.has(hash)
}

// bech32 is its alphabet's values, as the text is decoded a million times when
// a node starts. No checksum: the ledger made the address.
var bech32 = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	for i, c := range []byte("qpzry9x8gf2tvdw0s3jn54khce6mua7l") {
		t[c] = byte(i)
	}
	return t
}()

// programOf is the key hash of a P2WPKH address in canonical text. False: it is
// none, so nothing that is credited can be paid to it.
func programOf(network, addr string) (hash [20]byte, ok bool) {
	const version, data, sum = 1, 32, 6
	i := strings.LastIndexByte(addr, '1')
	if i < 0 || len(addr) != i+1+version+data+sum || addr[i+1] != 'q' {
		script, err := address.ScriptOf(network, addr)
		if err != nil {
			return hash, false
		}
		hash, native, ok := program(script)
		return hash, ok && native
	}
	var bits, n uint
	out := hash[:0]
	for _, c := range []byte(addr[i+2 : i+2+data]) {
		if bech32[c] == 0xff {
			return hash, false
		}
		bits, n = bits<<5|uint(bech32[c]), n+5
		if n >= 8 {
			n -= 8
			out = append(out, byte(bits>>n))
		}
	}
	return hash, true
}

// program is the key hash that an output pays; native: as P2WPKH, the only form
// that is credited (spec: outflows B4), else as P2PKH.
func program(script []byte) (hash [20]byte, native, ok bool) {
	switch {
	case len(script) == 22 && script[0] == txscript.OP_0 && script[1] == txscript.OP_DATA_20:
		return [20]byte(script[2:]), true, true
	case len(script) == 25 && script[0] == txscript.OP_DUP && script[1] == txscript.OP_HASH160 &&
		script[2] == txscript.OP_DATA_20 && script[23] == txscript.OP_EQUALVERIFY && script[24] == txscript.OP_CHECKSIG:
		return [20]byte(script[3:23]), false, true
	}
	return hash, false, false
}
