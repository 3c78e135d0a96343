package address

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Subaccount names what an address of ours is for (spec: outflows §6.1). Its 32
// bytes go into the derivation path, so one byte more or less would be another
// address: decoding accepts only what encoding gives (S8).
type Subaccount struct {
	Kind   SubaccountKind
	ID     []byte   // inflow kinds and native outflow: 1 to 29 bytes
	Number [16]byte // mapped outflow: u128, big-endian
}

// SubaccountKind is the purpose of a subaccount.
type SubaccountKind uint8

const (
	SubVault   SubaccountKind = iota // the vault's own address: zeros
	SubDeposit                       // S1: coins sent here are supplied
	SubRepay                         // S2: coins sent here repay debt
	SubMapped                        // S4: an outflow address by its number
	SubNative                        // S6: an outflow to a principal
	SubBoost                         // S7: the pool's fronted coins
)

// MaxSubaccountID is what fits after prefix, zero and length (S3).
const MaxSubaccountID = 29

const (
	prefixDeposit = 0x01
	prefixRepay   = 0x02
	prefixMapped  = 0x03
	prefixNative  = 0x05
)

var (
	ErrSubaccountID = errors.New("subaccount id must have 1 to 29 bytes")
	ErrSubaccount   = errors.New("not a subaccount of ours")
)

// DepositSubaccount is where an account's supply arrives (S1, S3).
func DepositSubaccount(account [16]byte) [32]byte { return layout(prefixDeposit, account[:]) }

// RepaySubaccount is where an account's repayments arrive (S2, S3).
func RepaySubaccount(account [16]byte) [32]byte { return layout(prefixRepay, account[:]) }

// layout is [prefix, 0, len, id…, 0…]; the caller checked the length.
func layout(prefix byte, id []byte) (out [32]byte) {
	out[0], out[2] = prefix, byte(len(id))
	copy(out[3:], id)
	return out
}

// Encode gives the 32 bytes of s, or says why there are none. An id is never
// cut to fit.
func (s Subaccount) Encode() ([32]byte, error) {
	prefix := byte(0)
	switch s.Kind {
	case SubVault:
		return [32]byte{}, nil
	case SubBoost:
		return [32]byte{1: 0x01}, nil
	case SubMapped:
		out := [32]byte{0: prefixMapped}
		copy(out[16:], s.Number[:])
		return out, nil
	case SubDeposit:
		prefix = prefixDeposit
	case SubRepay:
		prefix = prefixRepay
	case SubNative:
		prefix = prefixNative
	default:
		return [32]byte{}, fmt.Errorf("%w: kind %d", ErrSubaccount, s.Kind)
	}
	if len(s.ID) < 1 || len(s.ID) > MaxSubaccountID {
		return [32]byte{}, fmt.Errorf("%w, not %d", ErrSubaccountID, len(s.ID))
	}
	return layout(prefix, s.ID), nil
}

// DecodeSubaccount reads what Encode wrote and refuses everything else: an
// unknown prefix, padding that is not zero, a wrong length (S8).
func DecodeSubaccount(b [32]byte) (Subaccount, error) {
	s := Subaccount{}
	switch b[0] {
	case 0:
		if b[1] == 0x01 {
			s.Kind = SubBoost
		}
	case prefixMapped:
		s.Kind = SubMapped
		copy(s.Number[:], b[16:])
	case prefixDeposit:
		s.Kind, s.ID = SubDeposit, idOf(b)
	case prefixRepay:
		s.Kind, s.ID = SubRepay, idOf(b)
	case prefixNative:
		s.Kind, s.ID = SubNative, idOf(b)
	default:
		return Subaccount{}, fmt.Errorf("%w: prefix %#x", ErrSubaccount, b[0])
	}
	if again, err := s.Encode(); err != nil || again != b {
		return Subaccount{}, fmt.Errorf("%w: padding or length", ErrSubaccount)
	}
	return s, nil
}

// idOf is the id of an S1 layout, nil where the length is out of range.
func idOf(b [32]byte) []byte {
	n := int(b[2])
	if n < 1 || n > MaxSubaccountID {
		return nil
	}
	return append([]byte(nil), b[3:3+n]...)
}

// MappedSubaccount is the outflow address number n (S4).
func MappedSubaccount(n uint64) [32]byte {
	out := [32]byte{0: prefixMapped}
	binary.BigEndian.PutUint64(out[24:], n)
	return out
}
