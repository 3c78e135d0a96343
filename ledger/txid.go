package ledger

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"

	"github.com/coffer-network/coffer/ledger/address"
)

// TxID is the id that a planned transaction has on its chain, whatever its
// signatures are: version 2, every input replaceable (spec: outflows B6). Empty
// where it is none that can be built.
//
// Why here, when chains/bitcoin builds it: the ledger must know its own outputs
// before a chain shows them, or a vote could book them a second time.
func (tx BitcoinTx) TxID() string {
	le32 := binary.LittleEndian.AppendUint32
	b := le32(nil, 2)
	b = compactSize(b, len(tx.Inputs))
	for _, in := range tx.Inputs {
		txid, vout, _ := strings.Cut(in.Outpoint, ":")
		raw, err := hex.DecodeString(txid)
		n, err2 := strconv.ParseUint(vout, 10, 32)
		if err != nil || err2 != nil || len(raw) != 32 {
			return ""
		}
		slices.Reverse(raw)
		b = append(b, raw...)
		b = le32(b, uint32(n))
		b = append(b, 0)
		b = le32(b, 0xfffffffd)
	}
	b = compactSize(b, len(tx.Outputs))
	for _, o := range tx.Outputs {
		script := scriptOf(o.Address)
		if script == nil {
			return ""
		}
		b = binary.LittleEndian.AppendUint64(b, o.Sats)
		b = compactSize(b, len(script))
		b = append(b, script...)
	}
	b = le32(b, uint32(tx.LockTime))
	once := sha256.Sum256(b)
	id := sha256.Sum256(once[:])
	slices.Reverse(id[:])
	return hex.EncodeToString(id[:])
}

// compactSize appends a count below 2¹⁶, which is more than a transaction holds.
func compactSize(b []byte, n int) []byte {
	if n < 0xfd {
		return append(b, byte(n))
	}
	return binary.LittleEndian.AppendUint16(append(b, 0xfd), uint16(n))
}

// scriptOf is the output script of an address that was valid when it was planned.
func scriptOf(to string) []byte {
	for _, net := range []string{address.Mainnet, address.Testnet, address.Regtest} {
		if script, err := address.ScriptOf(net, to); err == nil {
			return script
		}
	}
	return nil
}
