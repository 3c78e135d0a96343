package api_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node/api/apitest"
	"github.com/coffer-network/coffer/node/api/client"
)

// Who was proven to break the signing protocol is shown with the check, the
// evidence and until when it signs last; a payout that is planned then says so,
// and no member is missing. Seen failing without PassedOver in whyPlanned ("passed
// over []").
func TestBlamedMemberIsShown(t *testing.T) {
	w := serve(t, apitest.NewWithKeys(t))
	blamed := func() (found []client.Member) {
		t.Helper()
		st, err := w.client.Status(w.ctx)
		if err != nil || len(st.Members) != 4 {
			t.Fatal(st, err)
		}
		return slices.DeleteFunc(st.Members, func(m client.Member) bool { return m.Blamed == nil })
	}
	account := w.borrower()
	culprit := w.View().Epoch().Members[1]
	f := ledger.Blame{Member: culprit.ID, Evidence: ledger.Hash{7}, Session: ledger.Hash{8}, Round: 2, Check: "S4"}
	for id, b := range w.View().Batches.All() { // the newest
		f.Batch, f.Attempt = id, b.Newest().K
	}
	for i := range 2 {
		if len(blamed()) != 0 {
			t.Errorf("blamed by %d words", i)
		}
		if o, err := w.Member(i).Say(context.Background(), ledger.KindBlame, f); err != nil || o.Code != ledger.OK {
			t.Fatal(o.Code, err)
		}
	}
	ms := blamed()
	if len(ms) != 1 || ms[0].Name != culprit.Name {
		t.Fatalf("blamed are %+v", ms)
	}
	b := ms[0].Blamed
	if b.Proofs != 1 || b.Check != "S4" || b.Round != 2 || b.Batch != f.Batch || b.Evidence != f.Evidence.String() || b.LastUntil == nil ||
		b.LastUntil.Sub(b.At) != 24*time.Hour {
		t.Errorf("shown as %+v", b)
	}
	if _, err := w.client.Borrow(w.ctx, w.wallet.SignerBTC(), account, client.Payout{Pool: "usdt.eth", Amount: "35000000000", To: payee}); err != nil {
		t.Fatal(err)
	}
	w.Tick(10 * time.Second)
	shown := 0
	for id, o := range w.View().Outflows.All() {
		if o.Account != account || o.State != ledger.Planned {
			continue
		}
		shown++
		if why, err := w.client.Why(w.ctx, id); err != nil || !slices.Equal(why.PassedOver, []string{culprit.Name}) {
			t.Errorf("passed over %v, %v", why.PassedOver, err)
		}
	}
	if shown != 1 {
		t.Errorf("%d payouts are planned", shown)
	}
}
