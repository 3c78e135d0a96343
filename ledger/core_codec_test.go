package ledger

import (
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/coffer-network/coffer/ledger/address"
)

var update = flag.Bool("update", false, "write the golden files anew: a change of encoding, and so of the ledger version")

// TestGoldenBytes locks the encoding of everything that is hashed, signed or
// stored. A difference is not a test to be updated but another ledger.
func TestGoldenBytes(t *testing.T) {
	c, _, borrower := lent(t)
	att := NewAttestation(c.keys[0], c.s.Cluster, 7, KindClock, Clock{Millis: coreStart + 500})
	intent := borrower.sign(c.text(borrower, c.borrowUSDT("20000000000")))
	taproot := taprootWallet(3)
	for _, g := range []struct {
		name  string
		value any
	}{
		{"attestation", att},
		{"command-attestation", &Command{Attestation: att}},
		{"command-intent", &Command{Intent: intent}},
		{"command-intent-p2tr", &Command{Intent: taproot.sign(c.text(taproot, address.Command{Action: address.ActionOpenAccount}))}},
		{"approval", &Approval{Cluster: c.s.Cluster, Epoch: 1, Height: 5000, Head: Hash{1}, RootHeight: 4096, Root: Hash{2}, Members: c.s.Epoch().MembersHash()}},
		{"certificate", &c.s.Flips[0]},
		{"header", &Header{Height: 4096, Prev: Hash{1}, Command: Hash{2}, Result: Hash{3}, Root: Hash{4}}},
		{"genesis", &c.s.Genesis},
		{"state", c.s},
	} {
		t.Run(g.name, func(t *testing.T) {
			got := Marshal(g.value)
			file := filepath.Join("testdata", "golden", g.name+".hex")
			if *update {
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(fold(hex.EncodeToString(got))), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want, err := hex.DecodeString(strings.ReplaceAll(string(b), "\n", ""))
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != string(want) {
				t.Fatalf("encodes to %d bytes, golden are %d, first difference at %d", len(got), len(want), differs(got, want))
			}
			back := reflect.New(reflect.TypeOf(g.value).Elem()).Interface()
			if err := Unmarshal(want, back); err != nil {
				t.Fatal(err)
			}
			if string(Marshal(back)) != string(want) {
				t.Error("decoding loses something")
			}
		})
	}
	again := NewAttestation(c.keys[0], c.s.Cluster, 7, KindClock, Clock{Millis: coreStart + 500})
	if string(Marshal(again)) != string(Marshal(att)) || !again.check().Verify() {
		t.Error("signing twice gives two attestations, or one that does not verify")
	}
}

func fold(s string) string {
	var b strings.Builder
	for len(s) > 100 {
		b.WriteString(s[:100] + "\n")
		s = s[100:]
	}
	return b.String() + s + "\n"
}

func differs(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// TestUnmarshalRefuses: two encodings of one value would be two hashes of one
// fact, so there is only one.
func TestUnmarshalRefuses(t *testing.T) {
	type pair struct {
		A uint64 `cbor:"1,keyasint"`
		B []byte `cbor:"2,keyasint"`
	}
	type named struct {
		Name string  `cbor:"1,keyasint"`
		Hash [2]byte `cbor:"2,keyasint"`
	}
	good := "a20107" + "0241ff"
	var p pair
	if err := Unmarshal(unhex(t, good), &p); err != nil || p.A != 7 {
		t.Fatalf("the good bytes: %v %+v", err, p)
	}
	for name, b := range map[string]string{
		"an unknown field":           "a30107" + "0241ff" + "0301",
		"a doubled key":              "a30107" + "0107" + "0241ff",
		"keys in another order":      "a20241ff" + "0107",
		"an integer longer than due": "a2011807" + "0241ff",
		"a length longer than due":   "a20107" + "025801ff",
		"a key longer than due":      "a2180107" + "0241ff",
		"a map longer than due":      "b8020107" + "0241ff",
		"a trailing byte":            good + "00",
		"two values":                 good + good,
		"a map of open length":       "bf0107" + "0241ff" + "ff",
		"bytes of open length":       "a20107" + "025f41ffff",
		"a missing field":            "a10107",
		"null for bytes":             "a20107" + "02f6",
		"undefined for bytes":        "a20107" + "02f7",
		"null for a number":          "a201f6" + "0241ff",
		"null for all":               "f6",
		"a float for a number":       "a201f94700" + "0241ff",
		"a negative number":          "a20126" + "0241ff",
		"a big number":               "a201c24107" + "0241ff",
		"a tag":                      "c1" + good,
		"text for bytes":             "a20107" + "026161",
		"a text key":                 "a2613107" + "0241ff",
		"an array":                   "8207" + "41ff",
		"cut short":                  "a20107" + "0242ff",
		"nothing":                    "",
	} {
		if err := Unmarshal(unhex(t, b), new(pair)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for name, b := range map[string]string{
		"text that is no UTF-8": "a20161ff" + "02420102",
		"a hash too short":      "a2016161" + "024101",
		"a hash too long":       "a2016161" + "0243010203",
		"a hash as array":       "a2016161" + "02820102",
		"bytes for text":        "a2014161" + "02420102",
		"text of open length":   "a2017f6161ff" + "02420102",
	} {
		if err := Unmarshal(unhex(t, b), new(named)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := Unmarshal(unhex(t, "a10107"), new(pair)); !errors.Is(err, ErrNotCanonical) {
		t.Errorf("a missing field: %v, want %v", err, ErrNotCanonical)
	}
	// Tables are sorted rows: any other order or a doubled row is another encoding.
	for name, b := range map[string]string{"unsorted": "82" + "820201" + "820101", "doubled": "82" + "820101" + "820102"} {
		if err := Unmarshal(unhex(t, b), new(table[uint64, uint64])); err == nil {
			t.Errorf("rows %s: accepted", name)
		}
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Whatever is in the log was decoded by every replica: bytes that are no
// command are a refusal like any other.
func TestCommandsThatAreNone(t *testing.T) {
	c := newCluster(t)
	att := NewAttestation(c.keys[0], c.s.Cluster, 1, KindClock, Clock{Millis: coreStart})
	// Well-formed to the last byte, so that only its length speaks against it.
	wordy := btcWallet(1).sign(c.text(btcWallet(1), address.Command{Action: address.ActionOpenAccount}))
	if code := c.run(Command{Intent: wordy}); code != Halted {
		t.Fatal(code)
	}
	wordy.Signature += strings.Repeat("x", MaxCommand)
	long := Marshal(Command{Intent: wordy})
	for name, b := range map[string][]byte{
		"nothing": nil, "noise": []byte("coffer"), "neither": Marshal(Command{}),
		"both":     Marshal(Command{Attestation: att, Intent: &Intent{}}),
		"trailing": append(Marshal(Command{Attestation: att}), 0),
		"too long": long,
		"null":     {0xf6},
	} {
		before, height := frame(c.s), c.s.Height
		if code := c.raw(b); code != Malformed {
			t.Errorf("%s: %s", name, code)
		}
		if frame(c.s) != before || c.s.Height != height+1 {
			t.Errorf("%s: changed more than the place in the chain", name)
		}
	}
	if code := c.run(Command{Attestation: att}); code != OK {
		t.Errorf("the attestation itself: %s", code)
	}
}
