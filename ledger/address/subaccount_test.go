package address

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

func TestSubaccountGolden(t *testing.T) {
	id := unhex(t, "00112233445566778899")
	z := func(n int) string { return strings.Repeat("00", n) }
	for name, x := range map[string]struct {
		s    Subaccount
		want string
	}{
		"vault":      {Subaccount{Kind: SubVault}, z(32)},
		"S1":         {Subaccount{Kind: SubDeposit, ID: id}, "01000a" + "00112233445566778899" + z(19)},
		"S2":         {Subaccount{Kind: SubRepay, ID: id}, "02000a" + "00112233445566778899" + z(19)},
		"S3 longest": {Subaccount{Kind: SubDeposit, ID: bytes.Repeat([]byte{0xff}, 29)}, "01001d" + strings.Repeat("ff", 29)},
		"S4":         {Subaccount{Kind: SubMapped, Number: [16]byte{0: 0x80, 15: 7}}, "03" + z(15) + "80" + z(14) + "07"},
		"S6":         {Subaccount{Kind: SubNative, ID: id}, "05000a" + "00112233445566778899" + z(19)},
		"S7":         {Subaccount{Kind: SubBoost}, "0001" + z(30)},
	} {
		got, err := x.s.Encode()
		if err != nil || hex.EncodeToString(got[:]) != x.want {
			t.Errorf("%s: %x, want %s (%v)", name, got, x.want, err)
		}
		back, err := DecodeSubaccount(got)
		if err != nil || back.Kind != x.s.Kind || !bytes.Equal(back.ID, x.s.ID) || back.Number != x.s.Number {
			t.Errorf("%s: decoded %+v (%v)", name, back, err)
		}
	}
	account := [16]byte(unhex(t, "5f0c9a1e7b3d2c445f0c9a1e7b3d2c44"))
	if got := DepositSubaccount(account); hex.EncodeToString(got[:]) != "0100105f0c9a1e7b3d2c445f0c9a1e7b3d2c44"+z(13) {
		t.Errorf("deposit of an account: %x", got)
	}
	if DepositSubaccount(account) == RepaySubaccount(account) {
		t.Error("deposit and repay are one")
	}
	if got := MappedSubaccount(0x0102); hex.EncodeToString(got[:]) != "03"+z(29)+"0102" {
		t.Errorf("mapped number: %x", got)
	}
}

func TestSubaccountRefused(t *testing.T) {
	for _, s := range []Subaccount{
		{Kind: SubDeposit}, {Kind: SubRepay, ID: make([]byte, 30)}, {Kind: SubNative, ID: make([]byte, 300)},
	} {
		if _, err := s.Encode(); !errors.Is(err, ErrSubaccountID) {
			t.Errorf("%d bytes: %v", len(s.ID), err)
		}
	}
	for name, b := range map[string][32]byte{
		"unknown prefix":   {0: 4},
		"length 0":         {0: 1},
		"length 30":        {0: 1, 2: 30},
		"second byte":      {0: 1, 1: 1, 2: 1, 3: 5},
		"padding":          {0: 2, 2: 1, 3: 5, 31: 1},
		"mapped padding":   {0: 3, 15: 1},
		"boost with more":  {1: 1, 31: 1},
		"vault with a bit": {31: 1},
	} {
		if s, err := DecodeSubaccount(b); !errors.Is(err, ErrSubaccount) && !errors.Is(err, ErrSubaccountID) {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
}

// S8: decoding is total, and gives only what encodes to the same bytes.
func FuzzSubaccount(f *testing.F) {
	f.Add(make([]byte, 32))
	f.Add([]byte{1, 0, 2, 9, 9})
	f.Add([]byte{3, 15: 0, 31: 9})
	f.Fuzz(func(t *testing.T, raw []byte) {
		var b [32]byte
		copy(b[:], raw)
		s, err := DecodeSubaccount(b)
		if err != nil {
			return
		}
		if again, err := s.Encode(); err != nil || again != b {
			t.Fatalf("%x decoded, encodes as %x (%v)", b, again, err)
		}
	})
}
