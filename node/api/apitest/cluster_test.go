package apitest

import (
	"encoding/hex"
	"testing"

	"github.com/coffer-network/coffer/ledger"
)

func TestClusterHasKeysPricesAndFloats(t *testing.T) {
	v := NewWithKeys(t).View()
	if v.Epoch().Number != 1 || v.Keys.Len() != 2 {
		t.Fatalf("epoch %d with %d keys, want 1 with 2", v.Epoch().Number, v.Keys.Len())
	}
	k, _ := v.Keys.Get(ledger.KeyECDSA1)
	if got := hex.EncodeToString(k.Pub); len(got) != 66 {
		t.Fatalf("master key %q", got)
	}
	for _, a := range []string{"btc", "eth", "usdt.eth"} {
		if p, ok := v.Prices.Get(a); !ok || p.Low.IsZero() {
			t.Errorf("no price of %s", a)
		}
	}
	if err := v.Check(); err != nil {
		t.Fatal(err)
	}
}
