package address

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
)

var vectorFile = flag.String("vectors", "testdata/wallet-signatures.json", "wallet signature vectors to run")

// vector has every field that WALLET-SIGNATURES.md names; an unknown one fails.
type vector struct {
	ID                string          `json:"id"`
	Scheme            string          `json:"scheme"`
	Network           string          `json:"network"`
	Address           string          `json:"address"`
	Message           *string         `json:"message"`
	MessageHex        *string         `json:"messageHex"`
	Signature         string          `json:"signature"`
	SigEncoding       string          `json:"sigEncoding"`
	Valid             *bool           `json:"valid"`
	SpecValid         *bool           `json:"specValid"`
	Why               string          `json:"why"`
	Tags              []string        `json:"tags"`
	MadeBy            string          `json:"madeBy"`
	CheckedBy         []string        `json:"checkedBy"`
	ApplicationDomain string          `json:"applicationDomain"`
	PublicKeyDER      string          `json:"publicKeyDer"`
	Digest            string          `json:"digest"`
	EnvelopeHex       string          `json:"envelopeHex"`
	TimeLock          *uint32         `json:"timeLock"`
	Sequence          *uint32         `json:"sequence"`
	WalletResponse    json.RawMessage `json:"walletResponse"`
}

func (v vector) message() ([]byte, error) {
	switch {
	case v.Message != nil && v.MessageHex == nil:
		return []byte(*v.Message), nil
	case v.MessageHex != nil && v.Message == nil:
		return hex.DecodeString(*v.MessageHex)
	}
	return nil, errors.New("want message or messageHex, one of them")
}

func readVectors(r io.Reader) ([]vector, error) {
	var doc struct {
		Format    string            `json:"format"`
		Set       string            `json:"set"`
		Libraries map[string]string `json:"libraries"`
		Vectors   []vector          `json:"vectors"`
	}
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	if err := d.Decode(&doc); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("something after the document")
	}
	if doc.Format != "coffer-signature-vectors/1" || len(doc.Vectors) == 0 {
		return nil, fmt.Errorf("format %q with %d vectors", doc.Format, len(doc.Vectors))
	}
	return doc.Vectors, nil
}

// judge gives the replica's answer to one vector.
func (v vector) judge() (bool, error) {
	message, err := v.message()
	if err != nil {
		return false, err
	}
	if v.Valid == nil {
		return false, errors.New("no verdict")
	}
	if v.Scheme == SchemeEIP712 { // the message is typed-data JSON
		if message, err = typedDataMessage(message); err != nil {
			return false, err
		}
		if digest := keccak256(message); v.Digest != "" && v.Digest != "0x"+hex.EncodeToString(digest[:]) {
			return false, fmt.Errorf("typed data hashes to %x", digest)
		}
	}
	if !slices.Contains(Schemes(), v.Scheme) {
		return false, fmt.Errorf("unknown scheme %q", v.Scheme)
	}
	der, err := hex.DecodeString(v.PublicKeyDER)
	if err != nil {
		return false, err
	}
	x := Extras{ApplicationDomain: v.ApplicationDomain, PublicKeyDER: der}
	first := Verify(v.Scheme, v.Network, v.Address, message, v.Signature, x)
	if Verify(v.Scheme, v.Network, v.Address, message, v.Signature, x) != first {
		return false, errors.New("two answers")
	}
	return first, nil
}

func TestWalletSignatureVectors(t *testing.T) {
	raw, err := os.ReadFile(*vectorFile)
	if err != nil {
		t.Fatal(err)
	}
	vectors, err := readVectors(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	ids := map[string]bool{}
	for _, v := range vectors {
		if v.ID == "" || ids[v.ID] {
			t.Errorf("id %q: empty or twice", v.ID)
		}
		ids[v.ID], seen[v.Scheme] = true, true
		got, err := v.judge()
		if err != nil {
			t.Errorf("%s %s: %v", v.ID, v.Scheme, err)
		} else if got != *v.Valid {
			t.Errorf("%s %s: got %v, want %v: %s", v.ID, v.Scheme, got, *v.Valid, v.Why)
		}
	}
	for _, s := range Schemes() {
		if !seen[s] {
			t.Errorf("no vector for scheme %s", s)
		}
	}
	t.Logf("ran %d vectors", len(vectors))
}

// The runner must fail on a file it does not understand.
func TestVectorRunnerRefuses(t *testing.T) {
	const head = `{"format":"coffer-signature-vectors/1","vectors":[`
	for name, doc := range map[string]string{
		"empty":         "",
		"no vectors":    head + "]}",
		"other format":  `{"format":"x/2","vectors":[{"id":"a"}]}`,
		"unknown field": head + `{"id":"a","surprise":1}]}`,
		"trailing":      head + `{"id":"a"}]}{}`,
	} {
		if _, err := readVectors(strings.NewReader(doc)); err == nil {
			t.Errorf("%s: read", name)
		}
	}
	vs, err := readVectors(strings.NewReader(head + `{"id":"a","scheme":"pgp","message":"","valid":false}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := vs[0].judge(); err == nil {
		t.Error("unknown scheme: judged")
	}
}
