package node

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coffer-network/coffer/chains"
	"github.com/coffer-network/coffer/ledger"
)

// An operator's limits are stricter than the ledger's, and a node that meets one
// takes no part and says why. Planted: refuses without overLimit. Seen: "signed
// with {btc 39999999  }".
func TestLocalLimits(t *testing.T) {
	c, _ := paying(t)
	n := nodeOf(t, c, 0)
	j := planSigning(c.s, n.self)[0]
	for _, l := range []Limit{{"btc", "39999999", "", ""}, {"btc", "", "39999999", ""}, {"btc", "", "", "39999999"}} {
		n.cfg.Limits = []Limit{l}
		why := n.refuses(t.Context(), c.s, j)
		if !strings.Contains(why, "local limit: 40000000 btc") {
			t.Errorf("signed with %v: %q", l, why)
		}
	}
	refusals := func() []statement {
		return slices.DeleteFunc(planAttestations(c.s, n.refusing()), func(s statement) bool { return s.kind != ledger.KindRefusal })
	}
	said := refusals()
	if len(said) != 1 {
		t.Fatalf("said %+v", said)
	}
	c.say(0, ledger.KindRefusal, said[0].body)
	if said := refusals(); len(said) != 0 {
		t.Errorf("said again: %+v", said)
	}
	suspects := map[ledger.MemberID]bool{}
	other := nodeOf(t, c, 1)
	other.suspectRefusers(planSigning(c.s, other.self)[0], suspects)
	if !suspects[n.self] || len(suspects) != 1 {
		t.Errorf("others wait for it: %v", suspects)
	}
	n.cfg.Limits = []Limit{{"btc", "40000000", "40000000", "40000000"}, {"usdt.eth", "1", "1", "1"}}
	if why := n.refuses(t.Context(), c.s, j); why != "" || len(n.refusals) != 0 {
		t.Errorf("refused: %q, %v", why, n.refusals)
	}
	for text, cfg := range map[string]Config{
		"not in the genesis": {Limits: []Limit{{Asset: "doge", Hour: "1"}}},
		"nothing is limited": {Limits: []Limit{{Asset: "btc"}}},
		`"one"`:              {Limits: []Limit{{Asset: "btc", Hour: "one"}}},
		"a loopback address": {Screen: "http://screen.example.org"},
		"http or https":      {Screen: "ftp://127.0.0.1"},
	} {
		if err := cfg.validatePolicy(c.s.Genesis); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}

// refusing is a world of nothing but this node's refusals.
func (n *Node) refusing() world {
	w := world{self: n.self}
	for _, r := range n.refusals {
		w.refusals = append(w.refusals, r)
	}
	return w
}

// Row 50 of the fault table: the screening is down. The deposit is not attested,
// the payout not signed and the reason said; nothing is lost, and both go on when
// it answers. Planted: ask answers "" where the service does not. Seen: "attested
// without a verdict" and "signed without one".
func TestFault50_ScreeningDown(t *testing.T) {
	c, b := paying(t)
	n := nodeOf(t, c, 0)
	j := planSigning(c.s, n.self)[0]
	var mu sync.Mutex // over both
	mode := "down"
	var asked []screened
	set := func(m string) {
		mu.Lock()
		defer mu.Unlock()
		mode = m
	}
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q screened
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			t.Error(err)
		}
		mu.Lock()
		asked = append(asked, q)
		now := mode
		mu.Unlock()
		switch now {
		case "down":
			w.WriteHeader(http.StatusServiceUnavailable)
		case "mute":
			<-r.Context().Done() // until who asked gives up
		case "deny":
			_, _ = w.Write([]byte(`{"allow":false,"reason":"listed"}`))
		case "allow":
			_, _ = w.Write([]byte(`{"allow":true}`))
		}
	}))
	defer service.Close()
	n.screening = newScreening(service.URL)
	n.screening.client.Timeout = time.Second
	holder := c.open(walletOf(t, 5))
	f := c.inflow(holder, "btc", "70000000", "block-9")
	attests := func() bool {
		n.screening.letIn(context.Background(), []screened{{"in", f.Chain, f.Asset, f.Address, f.Amount.String(), f.ID}})
		o := chains.Observations{Inflows: []chains.Seen{{Fact: f, Depth: 100}}}
		w := world{self: n.self, seen: map[string]chains.Observations{"btc": o}, screened: n.screening.inflows()}
		for _, s := range planAttestations(c.s, w) {
			if s.kind == ledger.KindInflow {
				return true
			}
		}
		return false
	}
	for _, tc := range []struct{ mode, why string }{{"down", "screening answers 503"}, {"mute", "screening does not answer"}, {"deny", "screening refuses: listed"}} {
		set(tc.mode)
		if attests() {
			t.Errorf("%s: attested without a verdict", tc.mode)
		}
		if why := n.refuses(t.Context(), c.s, j); why != tc.why {
			t.Errorf("%s: signed without one, or %q", tc.mode, why)
		}
		if n.refusals[j.key()].Reason != tc.why {
			t.Errorf("%s: %+v is said", tc.mode, n.refusals)
		}
	}
	set("allow")
	if !attests() || n.refuses(t.Context(), c.s, j) != "" {
		t.Error("it answers, and the deposit or the payout still waits")
	}
	set("down")
	if !attests() || n.refuses(t.Context(), c.s, j) != "" {
		t.Error("a verdict was forgotten")
	}
	mu.Lock()
	q := asked[len(asked)-1]
	mu.Unlock()
	if o, _ := c.s.Outflows.Get(b.Outflows[0]); q.Direction != "out" || q.Address != o.To || q.Amount != "40000000" {
		t.Errorf("asked about %+v", q)
	}
	n.screening = nil
	if !attestsWithout(c, n, f) || n.refuses(t.Context(), c.s, j) != "" {
		t.Error("without screening something is held up")
	}
}

func attestsWithout(c *cluster, n *Node, f ledger.InflowFact) bool {
	o := chains.Observations{Inflows: []chains.Seen{{Fact: f, Depth: 100}}}
	for _, s := range planAttestations(c.s, world{self: n.self, seen: map[string]chains.Observations{"btc": o}, screened: n.screening.inflows()}) {
		if s.kind == ledger.KindInflow {
			return true
		}
	}
	return false
}
