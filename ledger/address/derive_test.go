package address

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"strconv"
	"testing"

	"filippo.io/edwards25519"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/fxamacker/cbor/v2"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// derivation is a golden vector, computed outside Go from the formula in
// Delta's comment. The SDK derives the same ones.
type derivation struct {
	Scheme, Key, MasterPub, Chain, Role, Subaccount, Counter, Path, Delta, Child string
	Addresses                                                                    map[string]string
}

func derivations(t testing.TB) []derivation {
	t.Helper()
	raw, err := os.ReadFile("testdata/derive.json")
	if err != nil {
		t.Fatal(err)
	}
	var ds []derivation
	if err := json.Unmarshal(raw, &ds); err != nil || len(ds) == 0 {
		t.Fatalf("%d derivations: %v", len(ds), err)
	}
	return ds
}

func TestDeriveGolden(t *testing.T) {
	children := map[string]bool{}
	for i, d := range derivations(t) {
		counter, err := strconv.ParseUint(d.Counter, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		p := Path{d.Chain, d.Role, [32]byte(unhex(t, d.Subaccount)), counter}
		if got := hex.EncodeToString(p.Bytes()); got != d.Path {
			t.Errorf("%d: path %s, want %s", i, got, d.Path)
		}
		c, err := Derive(d.Scheme, d.Key, unhex(t, d.MasterPub), p)
		if err != nil {
			t.Fatal(err)
		}
		if c.Path != p || hex.EncodeToString(c.Delta[:]) != d.Delta || hex.EncodeToString(c.Pub) != d.Child {
			t.Errorf("%d: child %x delta %x, want %s, %s", i, c.Pub, c.Delta, d.Child, d.Delta)
		}
		if children[d.Child] {
			t.Errorf("%d: child twice", i)
		}
		children[d.Child] = true
		for network, want := range d.Addresses {
			if network == NetworkEthereum {
				a, err := EthereumOf(c.Pub)
				if got := EthereumAddress(a); err != nil || got != want {
					t.Errorf("%d: %s, want %s (%v)", i, got, want, err)
				}
			} else if got, err := P2WPKH(network, c.Pub); err != nil || got != want {
				t.Errorf("%d: %s, want %s (%v)", i, got, want, err)
			}
		}
	}
}

// Each part of what is hashed changes the delta, also where a plain
// concatenation would be the same.
func TestDeltaBindsEveryPart(t *testing.T) {
	d := derivations(t)[0]
	pub := unhex(t, d.MasterPub)
	seen := map[[32]byte]bool{}
	for _, x := range []struct {
		scheme, key string
		p           Path
	}{
		{KeyECDSA, "k1", Path{Chain: "btc", Role: "pool"}},
		{KeyBIP340, "k1", Path{Chain: "btc", Role: "pool"}},
		{KeyECDSA, "k2", Path{Chain: "btc", Role: "pool"}},
		{KeyECDSA, "k1", Path{Chain: "eth", Role: "pool"}},
		{KeyECDSA, "k1", Path{Chain: "btcp", Role: "ool"}},
		{KeyECDSA, "k1", Path{Chain: "btc", Role: "pool", Counter: 1}},
		{KeyECDSA, "k1", Path{Chain: "btc", Role: "pool", Subaccount: [32]byte{31: 1}}},
	} {
		delta, err := Delta(x.scheme, x.key, pub, x.p)
		if err != nil || seen[delta] {
			t.Errorf("%+v: delta %x again (%v)", x, delta, err)
		}
		seen[delta] = true
	}
	if _, err := Delta("rsa", "k1", pub, Path{}); err == nil {
		t.Error("unknown key scheme derived")
	}
}

// signing §4: "delta == 0 or child == infinity … count the counter up".
func TestDeriveCountsUp(t *testing.T) {
	d := derivations(t)[0]
	pub := unhex(t, d.MasterPub)
	tries := 0
	c, err := derive(d.Scheme, d.Key, pub, Path{Chain: "btc", Role: "pool", Counter: 5}, func(m []byte, delta [32]byte) ([]byte, error) {
		if tries++; tries <= 2 {
			return nil, errNoChild
		}
		return ChildSecp256k1(m, delta)
	})
	if err != nil || c.Path.Counter != 7 {
		t.Fatalf("counter %d, want 7 (%v)", c.Path.Counter, err)
	}
	_, err = derive(d.Scheme, d.Key, pub, Path{}, func([]byte, [32]byte) ([]byte, error) { return nil, errNoChild })
	if err == nil {
		t.Error("derived without a child")
	}
}

func TestNoChild(t *testing.T) {
	key := secp256k1.PrivKeyFromBytes([]byte{7})
	var minus secp256k1.ModNScalar
	minus.NegateVal(&key.Key)
	for name, delta := range map[string][32]byte{"zero": {}, "infinity": minus.Bytes()} {
		if _, err := ChildSecp256k1(key.PubKey().SerializeCompressed(), delta); !errors.Is(err, errNoChild) {
			t.Errorf("secp256k1 %s: %v", name, err)
		}
	}
	base := edwards25519.NewGeneratorPoint().Bytes()
	minusOne := ed25519Order().FillBytes(make([]byte, 32))
	minusOne[31]-- // L-1: base + (L-1)·base is the identity
	for name, delta := range map[string][32]byte{"zero": {}, "infinity": [32]byte(minusOne)} {
		if _, err := ChildEd25519(base, delta); !errors.Is(err, errNoChild) {
			t.Errorf("ed25519 %s: %v", name, err)
		}
	}
}

func TestMasterKeyRefused(t *testing.T) {
	one := [32]byte{31: 1}
	uncompressed := secp256k1.PrivKeyFromBytes([]byte{7}).PubKey().SerializeUncompressed()
	for name, pub := range map[string][]byte{"empty": {}, "uncompressed": uncompressed, "off curve": append([]byte{2}, make([]byte, 32)...)} {
		if _, err := ChildSecp256k1(pub, one); !errors.Is(err, errMasterKey) {
			t.Errorf("secp256k1 %s: %v", name, err)
		}
	}
	small, err := new(edwards25519.Point).SetBytes(smallOrderY[3][:])
	if err != nil {
		t.Fatal(err)
	}
	mixed := new(edwards25519.Point).Add(edwards25519.NewGeneratorPoint(), small).Bytes()
	notCanonical := fieldPrime // y = p, which is 0
	for name, pub := range map[string][]byte{
		"empty": {}, "identity": edwards25519.NewIdentityPoint().Bytes(),
		"small order": small.Bytes(), "mixed order": mixed, "not canonical": notCanonical[:],
	} {
		if _, err := ChildEd25519(pub, one); !errors.Is(err, errMasterKey) {
			t.Errorf("ed25519 %s: %v", name, err)
		}
	}
}

// The hand-written CBOR is the library's deterministic encoding.
func TestPathIsDeterministicCBOR(t *testing.T) {
	mode, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		t.Fatal(err)
	}
	for _, counter := range []uint64{0, 23, 24, 255, 256, 1<<16 - 1, 1 << 16, 1<<32 - 1, 1 << 32, 1<<64 - 1} {
		p := Path{"btc", "a role of more than twenty-three letters", [32]byte{1: 9}, counter}
		want, err := mode.Marshal([]any{p.Chain, p.Role, p.Subaccount[:], p.Counter})
		if err != nil || !bytes.Equal(p.Bytes(), want) {
			t.Errorf("counter %d: %x, want %x (%v)", counter, p.Bytes(), want, err)
		}
	}
}
