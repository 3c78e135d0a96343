package bitcoin

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/btcsuite/btcd/btcutil"
	"github.com/btcsuite/btcd/wire"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"

	"github.com/coffer-network/coffer/chains"
	"github.com/coffer-network/coffer/ledger/address"
)

// The short way from an address to its key hash is the long way's.
func TestProgramOf(t *testing.T) {
	r := rand.NewChaCha8([32]byte{7})
	for _, network := range []string{address.Mainnet, address.Testnet, address.Regtest} {
		for range 200 {
			var want [20]byte
			r.Read(want[:])
			addr, err := address.AddressOf(network, append([]byte{0, 20}, want[:]...))
			if err != nil {
				t.Fatal(err)
			}
			if got, ok := programOf(network, addr); !ok || got != want {
				t.Fatalf("%s: %x, want %x", addr, got, want)
			}
		}
	}
	for _, addr := range []string{
		"", "1", "bc1", "1BoatSLRHtKNngkdXEeobR76b53LETtpyT", "3P14159f73E4gFr7JterCCQh9QjiTjiZrG", "not one",
		"bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr",         // P2TR
		"bc1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qccfmv3",         // P2WSH
		"bc1qw508d6qejxtdg4y5r3zarvaryvbxxpcs", "bc1qw508d6qejxtdg4y5r3zarvary!", // not long enough, not its alphabet
	} {
		if got, ok := programOf(address.Mainnet, addr); ok {
			t.Errorf("%q is %x", addr, got)
		}
	}
}

// Followers learn what was registered since, forget nothing when a ledger is
// behind, and begin anew for another ledger.
func TestPrograms(t *testing.T) {
	addr := func(i byte) (string, [20]byte) {
		hash := [20]byte{i}
		a, err := address.AddressOf(address.Regtest, append([]byte{0, 20}, hash[:]...))
		if err != nil {
			t.Fatal(err)
		}
		return a, hash
	}
	var p programs
	list, behind, other := chains.Watch(nil), chains.Watch(nil), chains.Watch(nil)
	want := func(step string, w *chains.WatchList, has ...byte) {
		t.Helper()
		p.update(address.Regtest, w)
		for i := range byte(6) {
			_, hash := addr(i)
			if got := p.has(hash); got != bytes.Contains(has, []byte{i}) {
				t.Errorf("%s: address %d: %t", step, i, got)
			}
		}
	}
	a0, _ := addr(0)
	a1, _ := addr(1)
	a2, _ := addr(2)
	list.Add("0xnot-of-this-chain", 0)
	list.Add(a0, 0)
	behind.Add("0xnot-of-this-chain", 0)
	want("first", list, 0)
	list.Add(a1, 5)
	list.Add("0xneither", 0)
	want("more", list, 0, 1)
	want("behind", behind, 0, 1)
	list.Remove(a1) // the view is asked about each hit
	list.Add(a2, 5)
	want("removed", list, 0, 1, 2)
	for i := range byte(6) {
		a, _ := addr(5 - i)
		other.Add(a, 0)
	}
	want("another ledger", other, 0, 1, 2, 3, 4, 5)
}

// A spend of ours is known by the key it shows, in the one form ours have.
func TestProgramsSpends(t *testing.T) {
	key := secp256k1.PrivKeyFromBytes([]byte("the key of a coin that is ours  ."))
	pub := key.PubKey().SerializeCompressed()
	addr, err := address.P2WPKH(address.Regtest, pub)
	if err != nil {
		t.Fatal(err)
	}
	var p programs
	p.update(address.Regtest, chains.Watch(map[string]uint64{addr: 0}))
	if p.has([20]byte(btcutil.Hash160(pub))) != true {
		t.Fatal("not entered")
	}
	sig := make([]byte, 71)
	for _, in := range []struct {
		in   wire.TxIn
		want bool
	}{
		{wire.TxIn{Witness: wire.TxWitness{sig, pub}}, true},
		{wire.TxIn{Witness: wire.TxWitness{sig, append([]byte{3}, make([]byte, 32)...)}}, false},
		{wire.TxIn{Witness: wire.TxWitness{sig, pub}, SignatureScript: []byte{1}}, false},
		{wire.TxIn{Witness: wire.TxWitness{pub}}, false},
		{wire.TxIn{}, false},
	} {
		if got := p.spends(&in.in); got != in.want {
			t.Errorf("%+v: %t", in.in, got)
		}
	}
}
