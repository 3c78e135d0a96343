package ledger

import (
	"slices"
	"strings"
	"testing"

	"github.com/coffer-network/coffer/ledger/address"
)

// A member that will not sign says why, in the open: it stays on the attempt, ends
// none and begins none, and puts the member last in the next roster. Planted:
// retry without refusers. Seen: "the refuser is at 0 of …". Planted: a refusal
// that counts as GaveUp. Seen: "refusals brought attempt 1".
func TestRefusal(t *testing.T) {
	c, _, w := lent(t)
	if code := c.ask(w, c.payout(address.ActionWithdraw, "btc", "40000000", payeeBTC(1), "10000")); code != OK {
		t.Fatal(code)
	}
	c.tick(1_000)
	b := c.payment()
	first := b.Newest().Roster[0]
	of := func(m MemberID) int {
		return slices.IndexFunc(c.s.Epoch().Members, func(x Member) bool { return x.ID == m })
	}
	why := "local limit: 40000000 btc in one payout, this node signs 100"
	for _, bad := range []string{"", strings.Repeat("x", maxRefusalText+1), "a\nb", "caffè"} {
		if code := c.say(0, KindRefusal, Refusal{Batch: b.ID, Reason: bad}); code != Malformed {
			t.Errorf("%q: %s", bad, code)
		}
	}
	for _, i := range []int{0, 1, 2, 3} {
		if c.s.Epoch().Members[i].ID == first || i == (of(first)+1)%4 {
			if code := c.say(i, KindRefusal, Refusal{Batch: b.ID, Reason: why}); code != OK {
				t.Fatal(code)
			}
		}
	}
	a := c.s.Batches.at(b.ID).Newest()
	if a.K != 0 || len(a.Gave) != 0 {
		t.Fatalf("refusals brought attempt %d", a.K)
	}
	if a.RefusedBy(first) != why || len(a.Refused) != 2 {
		t.Errorf("refused %+v", a.Refused)
	}
	c.say(of(first), KindRefusal, Refusal{Batch: b.ID, Reason: "another reason"})
	if a := c.s.Batches.at(b.ID).Newest(); a.RefusedBy(first) != "another reason" || len(a.Refused) != 2 {
		t.Errorf("said again: %+v", a.Refused)
	}
	c.tick(c.s.Params.AttemptMillis + 1_000)
	next := c.s.Batches.at(b.ID).Newest()
	if next.K == 0 || len(next.Refused) != 0 {
		t.Fatalf("attempt %d, refused %+v", next.K, next.Refused)
	}
	if i := slices.Index(next.Roster, first); i < len(next.Roster)-2 {
		t.Errorf("the refuser is at %d of %d", i, len(next.Roster))
	}
	if code := c.say(0, KindRefusal, Refusal{Batch: b.ID, Reason: why}); code != OK || len(c.s.Batches.at(b.ID).Newest().Refused) != 0 {
		t.Errorf("about an attempt that is no more: %s", code)
	}
}
