package api_test

import (
	"slices"
	"testing"
	"time"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node/api/apitest"
)

// What a price was made of, and what is unusual about it, is in the pool's view
// (spec: lending §12, §15 F6).
func TestPriceView(t *testing.T) {
	w := serve(t, apitest.NewWithKeys(t))
	round := func(btc uint64) {
		w.Tick(15 * time.Second)
		w.Prices(map[string]uint64{"btc": btc, "eth": 2500, "usdt.eth": 1})
	}
	round(50_000)
	p, err := w.client.Pool(w.ctx, "btc")
	if err != nil {
		t.Fatal(err)
	}
	v := w.View()
	x := p.Price
	if x.Low != "5000000000000" || x.High != x.Low || x.Round != v.Time()/15 || x.TWAP != x.Low || x.FromTWAP == nil || *x.FromTWAP != 0 {
		t.Errorf("price %+v", x)
	}
	if len(x.Reporters) != 3 || x.Suspect || x.SuspectSince != nil || x.AlertSince != nil {
		t.Errorf("price %+v", x)
	}
	for _, name := range x.Reporters {
		if !slices.ContainsFunc(v.Epoch().Members, func(m ledger.Member) bool { return m.Name == name }) {
			t.Errorf("reporter %q is no member", name)
		}
	}
	round(40_000)
	if p, err = w.client.Pool(w.ctx, "btc"); err != nil {
		t.Fatal(err)
	}
	x = p.Price
	now := time.UnixMilli(int64(w.View().Millis))
	if !x.Suspect || x.SuspectSince == nil || !x.SuspectSince.Equal(now) || x.AlertSince == nil || *x.FromTWAP != 2000 || x.TWAP != "5000000000000" {
		t.Errorf("after a fall of 20 %%: %+v", x)
	}
	w.Tick(10 * time.Minute)
	if p, err = w.client.Pool(w.ctx, "btc"); err != nil || p.Price.Suspect || p.Price.SuspectSince != nil || !p.Price.Stale {
		t.Errorf("ten minutes without a round: %+v %v", p.Price, err)
	}
}
