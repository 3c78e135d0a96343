package address

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
)

var update = flag.Bool("update", false, "write testdata/eip712.json anew: a change of what wallets sign, and so of the ledger version")

// typedGolden is a row of testdata/eip712.json: what an Ethereum wallet is
// shown for a text of testdata/requests.txt, and the digest it signs. The SDK
// makes the same, and chains/ethereum checks the digests with go-ethereum.
type typedGolden struct {
	Text      string `json:"text"`
	Wallet    string `json:"wallet"`
	TypedData string `json:"typedData"` // byte for byte
	Digest    string `json:"digest"`
}

const typedWallet = "eip155:1:0x71C7656EC7ab88b098defB751B7401B5f6d8976F"

// A difference is not a file to be updated but another ledger version: wallets
// have signed these.
func TestTypedDataGolden(t *testing.T) {
	g := testGrammar()
	by, err := ParseCAIP10(typedWallet)
	if err != nil {
		t.Fatal(err)
	}
	var rows []typedGolden
	for _, text := range texts(t) {
		c, err := g.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		doc, ok := g.TypedData(by, c)
		message, okToo := g.Message(SchemeEIP712, by, c)
		if !ok || !okToo {
			t.Fatalf("%s: no typed data", c.Action)
		}
		digest := keccak256(message)
		rows = append(rows, typedGolden{text, typedWallet, string(doc), "0x" + hex.EncodeToString(digest[:])})
		// The document and the bytes that a node judges by are made apart.
		read, err := typedDataMessage(doc)
		if err != nil || !bytes.Equal(read, message) {
			t.Errorf("%s: the JSON hashes to %x, the command to %x: %v", c.Action, read, message, err)
		}
		// What the wallet shows is what the text says, word for word.
		for _, line := range strings.Split(text, "\n")[2:] {
			_, value, _ := strings.Cut(line, ": ")
			if !bytes.Contains(doc, []byte(`:`+quoted(value))) {
				t.Errorf("%s: %q is not shown", c.Action, line)
			}
		}
	}
	got, err := json.MarshalIndent(rows, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	const file = "testdata/eip712.json"
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("typed data differs from testdata/eip712.json")
	}
}

func TestEIP712SignAndVerify(t *testing.T) {
	g, key := testGrammar(), testKey()
	by := CAIP10{NamespaceEthereum, "1", EthereumAddress(ethereumOf(key.PubKey()))}
	c, err := g.Parse(borrowText)
	if err != nil {
		t.Fatal(err)
	}
	c.Signer = by
	message, ok := g.Message(SchemeEIP712, by, c)
	if !ok {
		t.Fatal("no message")
	}
	digest := keccak256(message)
	compact := ecdsa.SignCompact(key, digest[:], false)
	sig := "0x" + hex.EncodeToString(append(compact[1:], compact[0]))
	if !VerifySigner(SchemeEIP712, by, message, sig, Extras{}) {
		t.Fatal("own signature refused")
	}
	// Whatever the wallet showed differs: another message.
	other := *g
	other.Brand = "coffer.exampl3"
	for name, x := range map[string]struct {
		g      *Grammar
		by     CAIP10
		change func(*Command)
	}{
		"brand":   {&other, by, func(*Command) {}},
		"chain":   {g, CAIP10{by.Namespace, "5", by.Address}, func(*Command) {}},
		"cluster": {g, by, func(c *Command) { c.Cluster = "coffer-main-2/9b1de84c60f2a7735a41c0d7e2f86b19" }},
		"amount":  {g, by, func(c *Command) { c.Amount.Units = "15000000001" }},
		"action":  {g, by, func(c *Command) { c.Action = ActionWithdraw }},
		"nonce":   {g, by, func(c *Command) { c.Nonce++ }},
		"expires": {g, by, func(c *Command) { c.Expires++ }},
	} {
		d := *c
		x.change(&d)
		m, ok := x.g.Message(SchemeEIP712, x.by, &d)
		if !ok || bytes.Equal(m, message) || VerifySigner(SchemeEIP712, x.by, m, sig, Extras{}) {
			t.Errorf("another %s: taken", name)
		}
	}
	// A signature over the text is none over the fields, nor the other way round,
	// and only the two hashes are a message.
	text := []byte(g.Render(c))
	bare := append([]byte{0x19, 0x45}, message[2:]...)
	bareDigest := keccak256(bare)
	compact = ecdsa.SignCompact(key, bareDigest[:], false)
	bareSig := "0x" + hex.EncodeToString(append(compact[1:], compact[0]))
	for name, taken := range map[string]bool{
		"another prefix":          VerifySigner(SchemeEIP712, by, bare, bareSig, Extras{}),
		"personal_sign as eip712": VerifySigner(SchemeEIP712, by, message, SignEIP191(key, text), Extras{}),
		"eip712 as personal_sign": VerifySigner(SchemeEIP191, by, text, sig, Extras{}),
		"the text":                VerifySigner(SchemeEIP712, by, text, SignEIP191(key, text), Extras{}),
		"the digest":              VerifySigner(SchemeEIP712, by, digest[:], sig, Extras{}),
		"a byte more":             VerifySigner(SchemeEIP712, by, append(bytes.Clone(message), 0), sig, Extras{}),
		"a Bitcoin network":       Verify(SchemeEIP712, Mainnet, by.Address, message, sig, Extras{}),
	} {
		if taken {
			t.Errorf("%s: taken", name)
		}
	}
}

// Typed data is for Ethereum wallets, on chains whose id every JSON reader
// keeps exact.
func TestMessageRefuses(t *testing.T) {
	g := testGrammar()
	c, err := g.Parse(borrowText)
	if err != nil {
		t.Fatal(err)
	}
	for reference, want := range map[string]bool{
		"1": true, "1337": true, "999999999999999": true,
		"1000000000000000": false, "0": false, "01": false, "0x1": false, "": false, "1e3": false, "-1": false,
	} {
		by := CAIP10{NamespaceEthereum, reference, "0x71C7656EC7ab88b098defB751B7401B5f6d8976F"}
		_, ok := g.Message(SchemeEIP712, by, c)
		if _, too := g.TypedData(by, c); ok != want || too != want {
			t.Errorf("chain %q: %v and %v, want %v", reference, ok, too, want)
		}
	}
	if _, ok := g.Message(SchemeEIP712, c.Signer, c); ok {
		t.Error("typed data for a Bitcoin wallet")
	}
	if _, ok := g.Message("pgp", c.Signer, c); ok {
		t.Error("a message for an unknown scheme")
	}
	if m, ok := g.Message(SchemeBIP322, c.Signer, c); !ok || string(m) != borrowText {
		t.Error("bip322 signs something else than the text")
	}
	odd := *g
	odd.Brand = `a "quoted\brand"`
	doc, ok := odd.TypedData(CAIP10{NamespaceEthereum, "1", ""}, c)
	if !ok || !json.Valid(doc) {
		t.Errorf("not JSON: %s", doc)
	}
}
