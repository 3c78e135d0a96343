//go:build unix

package testnet

import (
	"encoding/json"
	"maps"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/btcsuite/btcd/chaincfg/chainhash"
	"github.com/btcsuite/btcd/wire"
)

func TestFaultsFollowFromTheSeed(t *testing.T) {
	kinds := splitKinds(nil)
	d := shortest(kinds)
	a, b := planFaults(7, d, kinds, chaosNodes), planFaults(7, d, kinds, chaosNodes)
	if !reflect.DeepEqual(a, b) {
		t.Error("the same seed plans other faults")
	}
	if reflect.DeepEqual(a, planFaults(8, d, kinds, chaosNodes)) {
		t.Error("another seed plans the same")
	}
	for seed := range uint64(50) {
		seen := map[string]bool{}
		leader := false
		var last time.Duration
		for _, f := range planFaults(seed, d, kinds, chaosNodes) {
			seen[f.Kind] = true
			leader = leader || f.Kind == faultKill && f.Leader
			if f.At-last > 5*time.Second {
				t.Errorf("seed %d: nothing between %s and %s", seed, last, f.At)
			}
			if f.Target < 0 || f.Target >= chaosNodes || f.For <= 0 {
				t.Errorf("seed %d: %+v", seed, f)
			}
			last = f.At
		}
		if len(seen) != len(kinds) || !leader {
			t.Errorf("seed %d in %s: %v, leader killed %v", seed, d, slices.Sorted(maps.Keys(seen)), leader)
		}
	}
	some := splitKinds(map[string]string{faultPartition: "no root", faultDiskFull: "no root"})
	for _, f := range planFaults(1, time.Minute, some, chaosNodes) {
		if f.Kind == faultPartition || f.Kind == faultDiskFull {
			t.Errorf("%s although it is missing", f.Kind)
		}
	}
}

// The report's names and types are what others read (spec: consensus §13).
func TestChaosReportSchema(t *testing.T) {
	b, err := json.Marshal(ChaosReport{Faults: map[string]int{"kill": 1}})
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"ok": false, "faults": map[string]any{"kill": 1.0}, "acknowledged": 0.0, "acknowledged_lost": 0.0, "double_payments": 0.0,
		"head_divergence": 0.0, "solvent": false, "leader_kill_ms": map[string]any{"p50": 0.0, "max": 0.0}, "sign_completed_percent": 0.0,
		"linearizable": false, "leaks": 0.0, "sign_p99_seconds": 0.0,
	}
	delete(got, "detail")
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v\nwant %v", got, want)
	}
}

func TestVerdictNeedsEveryGoal(t *testing.T) {
	good := ChaosReport{Acknowledged: 1, Solvent: true, Linearizable: true, SignCompletedPercent: 100,
		LeaderKillMS: Spread{P50: 900, Max: 1900}, Detail: ChaosDetail{Judged: true, HandoverMS: Spread{P50: 240, Max: 900}}}
	if good.verdict(); !good.OK {
		t.Fatal("a good run is not ok")
	}
	for name, spoil := range map[string]func(*ChaosReport){
		"nothing acknowledged": func(r *ChaosReport) { r.Acknowledged = 0 },
		"lost":                 func(r *ChaosReport) { r.AcknowledgedLost = 1 },
		"paid twice":           func(r *ChaosReport) { r.DoublePayments = 1 },
		"heads":                func(r *ChaosReport) { r.HeadDivergence = 1 },
		"insolvent":            func(r *ChaosReport) { r.Solvent = false },
		"history":              func(r *ChaosReport) { r.Linearizable = false },
		"leak":                 func(r *ChaosReport) { r.Leaks = 1 },
		"unsigned":             func(r *ChaosReport) { r.SignCompletedPercent = 99 },
		"median":               func(r *ChaosReport) { r.LeaderKillMS.P50 = 1001 },
		"slowest":              func(r *ChaosReport) { r.LeaderKillMS.Max = 2001 },
		"handover":             func(r *ChaosReport) { r.Detail.HandoverMS.P50 = 251 },
		"breach":               func(r *ChaosReport) { r.Detail.Breaches = []string{"node-2 died"} },
	} {
		r := good
		spoil(&r)
		if r.verdict(); r.OK {
			t.Errorf("%s: ok", name)
		}
	}
	slow := good
	slow.LeaderKillMS.Max, slow.Detail.Judged = 5000, false
	if slow.verdict(); !slow.OK {
		t.Error("times are judged although they are not to be")
	}
}

func TestOracleSeesWrongPayments(t *testing.T) {
	now := time.Now()
	asked := []posted{
		{To: "a", Gross: big.NewInt(100), Ret: now, Code: "OK"},
		{To: "b", Gross: big.NewInt(100), Ret: now, Code: "HEALTH_FACTOR"},
		{To: "c", Gross: big.NewInt(100)}, // never answered: it may have counted
		{Kind: "Require payout list"},
	}
	pay := func(tx, to string, n int64) moved { return moved{"eth", tx, to, big.NewInt(n)} }
	if wrong := judgePayments([]moved{pay("1", "a", 98), pay("2", "c", 97)}, asked); len(wrong) != 0 {
		t.Errorf("what was owed is held to be wrong: %v", wrong)
	}
	for want, paid := range map[string][]moved{
		"again in 2":       {pay("1", "a", 50), pay("2", "a", 50)},
		"no request names": {pay("1", "z", 1)},
		"asked for were":   {pay("1", "a", 101)},
		"was refused":      {pay("1", "b", 98)},
	} {
		if wrong := judgePayments(paid, asked); len(wrong) != 1 || !strings.Contains(wrong[0], want) {
			t.Errorf("%v: %v, want %q", paid, wrong, want)
		}
	}
}

func TestOracleSeesLostRequests(t *testing.T) {
	p := posted{Nonce: 20, Code: "OK", LogIndex: 700, Kind: "Borrow"}
	for _, c := range []struct {
		at   lookedUp
		want string
	}{
		{lookedUp{Known: true, Code: "OK", LogIndex: 700, Next: 21, Recent: true}, ""},
		{lookedUp{Next: 40}, ""}, // older than what replicas keep, and counted
		{lookedUp{Next: 20}, "next nonce is 20"},
		{lookedUp{Known: true, Code: "OK", LogIndex: 701, Next: 21}, "at LogIndex 701"},
		{lookedUp{Known: true, Code: "LIMIT", LogIndex: 700, Next: 21}, "LIMIT"},
		{lookedUp{Next: 21, Recent: true}, "not among"},
	} {
		if got := lost(p, c.at); c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%+v: %q, want %q", c.at, got, c.want)
		}
	}
}

func TestOracleSeesDivergingHeads(t *testing.T) {
	h := newHeads()
	h.saw("node-1", 5, "x")
	h.saw("node-2", 5, "x")
	h.saw("node-2", 6, "y")
	if len(h.breaches) != 0 || h.compared != 1 {
		t.Fatalf("%v, %d compared", h.breaches, h.compared)
	}
	h.saw("node-3", 6, "z")
	if len(h.breaches) != 1 || !strings.Contains(h.breaches[0], "node-2") || !strings.Contains(h.breaches[0], "node-3") {
		t.Errorf("%v", h.breaches)
	}
}

func TestOracleSeesWhatIsNotLinearizable(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(1000+s), 0) }
	write := func(nonce uint64, call, ret int) posted {
		return posted{Account: "a", Kind: "Borrow", Nonce: nonce, Call: at(call), Ret: at(ret), Code: "OK"}
	}
	unanswered := func(nonce uint64, call int) posted {
		return posted{Account: "a", Kind: "Borrow", Nonce: nonce, Call: at(call)}
	}
	read := func(seen uint64, call, ret int) readDone { return readDone{"a", seen, at(call), at(ret)} }
	for name, c := range map[string]struct {
		reqs  []posted
		reads []readDone
		want  porcupine.CheckResult
	}{
		"in order":                   {[]posted{write(1, 0, 1), write(2, 2, 3)}, []readDone{read(2, 1, 2), read(3, 4, 5)}, porcupine.Ok},
		"read meanwhile":             {[]posted{write(1, 0, 10)}, []readDone{read(1, 1, 2), read(2, 3, 4)}, porcupine.Ok},
		"stale read":                 {[]posted{write(1, 0, 1)}, []readDone{read(1, 2, 3)}, porcupine.Illegal},
		"back and forth":             {[]posted{write(1, 0, 10)}, []readDone{read(2, 1, 2), read(1, 3, 4)}, porcupine.Illegal},
		"acknowledged and gone":      {[]posted{write(1, 0, 1), write(1, 2, 3)}, nil, porcupine.Illegal},
		"unanswered, counted":        {[]posted{unanswered(1, 0), write(2, 2, 3)}, []readDone{read(2, 1, 2)}, porcupine.Ok},
		"unanswered, not counted":    {[]posted{unanswered(1, 0)}, []readDone{read(1, 5, 6)}, porcupine.Ok},
		"unanswered, then forgotten": {[]posted{unanswered(1, 0)}, []readDone{read(2, 1, 2), read(1, 3, 4)}, porcupine.Illegal},
	} {
		if got := linearizable(c.reqs, c.reads); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestBitcoinIsReadFromTransactions(t *testing.T) {
	ours, names := map[string]bool{"vault": true}, map[string]string{"payee": "bcrt1payee"}
	coins := map[wire.OutPoint]int64{}
	deposit := wire.NewMsgTx(2)
	deposit.AddTxIn(wire.NewTxIn(&wire.OutPoint{Hash: chainhash.Hash{1}}, nil, nil))
	deposit.AddTxOut(wire.NewTxOut(1000, []byte("vault")))
	deposit.AddTxOut(wire.NewTxOut(5, []byte("somebody")))
	if out := bitcoinMoved(deposit, coins, ours, names); len(out) != 0 || len(coins) != 1 {
		t.Fatalf("a deposit: %v, %d coins", out, len(coins))
	}
	pay := wire.NewMsgTx(2)
	pay.AddTxIn(wire.NewTxIn(&wire.OutPoint{Hash: deposit.TxHash()}, nil, nil))
	pay.AddTxOut(wire.NewTxOut(600, []byte("payee")))
	pay.AddTxOut(wire.NewTxOut(390, []byte("vault")))
	pay.AddTxOut(wire.NewTxOut(1, []byte("thief")))
	out := bitcoinMoved(pay, coins, ours, names)
	if len(out) != 2 || out[0].To != "bcrt1payee" || out[0].Amount.Int64() != 600 || !strings.HasPrefix(out[1].To, "script ") {
		t.Errorf("a payout: %v", out)
	}
	if v := coins[wire.OutPoint{Hash: pay.TxHash(), Index: 1}]; v != 390 || len(coins) != 1 {
		t.Errorf("%d sats in %d coins", v, len(coins))
	}
}

func TestFirstAnswerAfterAFault(t *testing.T) {
	fault := time.Now()
	after := func(ms int) time.Time { return fault.Add(time.Duration(ms) * time.Millisecond) }
	reqs := []posted{
		{Attempt: after(-50), Ret: after(10)}, // was under way: it says nothing about the new leader
		{Attempt: after(300), Ret: after(900)},
		{Attempt: after(400), Ret: after(700)},
		{Attempt: after(100)},
	}
	if ms, ok := firstAfter(reqs, fault); !ok || ms != 700 {
		t.Errorf("%d ms, %v, want 700", ms, ok)
	}
	if _, ok := firstAfter(reqs[:1], fault); ok {
		t.Error("nothing was answered after the fault")
	}
}

func TestPercentile(t *testing.T) {
	vs := []float64{4, 1, 3, 2}
	for p, want := range map[float64]float64{0.5: 2, 0.99: 4, 1: 4, 0.25: 1} {
		if got := percentile(vs, p); got != want {
			t.Errorf("p%v of %v: %v, want %v", p, vs, got, want)
		}
	}
	if percentile(nil, 0.5) != 0 {
		t.Error("of nothing")
	}
}

func TestPostpone(t *testing.T) {
	kill, full, stop := fault{Kind: faultKill, Leader: true}, fault{Kind: faultDiskFull}, fault{Kind: faultStop}
	for _, c := range []struct{ plan, want []fault }{
		{[]fault{stop, kill}, []fault{stop, kill}},
		{[]fault{kill, full, stop}, []fault{stop, full, kill}},
		{[]fault{full, kill}, []fault{{Kind: faultKill}, kill}},
		{[]fault{kill}, []fault{{Kind: faultKill}}},
	} {
		got := slices.Clone(c.plan)
		if postpone(got); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%v: %v, not %v", c.plan, got, c.want)
		}
	}
}
