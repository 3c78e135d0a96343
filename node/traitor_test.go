package node

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// An honest node cannot become a traitor by a file, a copied flag, or on a network where coins have a value.
func TestNobodyIsATraitorByAccident(t *testing.T) {
	test := ledger.Genesis{Name: "t", Chains: []ledger.ChainParam{{Name: "btc", CAIP2: regtestCAIP2}, {Name: "eth", CAIP2: devCAIP2}}}
	earnest := test
	earnest.Chains = []ledger.ChainParam{{Name: "btc", CAIP2: "bip122:000000000019d6689c085ae165831e93"}, {Name: "eth", CAIP2: devCAIP2}}
	own, other := test.Hash(), earnest.Hash()
	if tr, err := newTraitor(nil, "", test); tr != nil || err != nil {
		t.Errorf("unasked: %v, %v", tr, err)
	}
	if tr, err := newTraitor(nil, own.String(), test); tr == nil || err != nil {
		t.Errorf("of the test network: %v, %v", tr, err)
	}
	for name, c := range map[string]struct {
		of string
		g  ledger.Genesis
	}{
		"another cluster":  {other.String(), test},
		"a word":           {"yes", test},
		"the main network": {other.String(), earnest},
	} {
		if tr, err := newTraitor(nil, c.of, c.g); tr != nil || !errors.Is(err, errNoTraitor) {
			t.Errorf("%s: %v, %v", name, tr, err)
		}
	}
	dir := t.TempDir()
	for _, key := range []string{"traitor_of", "TraitorOf", "traitorof"} {
		if err := os.WriteFile(filepath.Join(dir, "node.toml"), []byte(key+" = \""+own.String()+"\"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if c, err := LoadConfig(dir); err == nil || !strings.Contains(err.Error(), "unknown key") || c.TraitorOf != "" {
			t.Errorf("%s in node.toml: %v", key, err)
		}
	}
}

func TestTraitorLiesAboutEveryFactOnce(t *testing.T) {
	honest := []statement{
		{ledger.KindClock, ledger.Clock{Millis: 5}},
		{ledger.KindPrice, []ledger.PriceReport{{Asset: "btc", Price: fixed.New(7)}}},
		{ledger.KindHeight, []ledger.HeightReport{{Chain: "btc", Height: 9, Hash: "h"}}},
		{ledger.KindFee, []ledger.FeeReport{{Chain: "btc", Rate: 3}}},
		{ledger.KindInflow, ledger.InflowFact{ID: "x", Amount: fixed.New(1)}},
		{ledger.KindSpent, ledger.SpentFact{Batch: 1}},
		{ledger.KindFinal, ledger.FinalFact{Batch: 1, TxID: "t"}},
	}
	tr := &traitor{told: map[ledger.Hash]bool{}}
	before := ledger.Marshal(honest[1].body)
	lies := tr.lies(honest)
	if len(lies) != len(honest) {
		t.Fatalf("%d statements of %d", len(lies), len(honest))
	}
	for i, s := range lies {
		same := reflect.DeepEqual(s.body, honest[i].body)
		if clock := s.kind == ledger.KindClock; same != clock { // its clock keeps it in the cluster
			t.Errorf("%v: %+v, the truth is %+v", s.kind, s.body, honest[i].body)
		}
	}
	if string(ledger.Marshal(honest[1].body)) != string(before) {
		t.Error("the truth itself was changed")
	}
	if again := tr.lies(honest); len(again) != 1 || again[0].kind != ledger.KindClock {
		t.Errorf("said again: %v", again)
	}
}
