package node

import (
	"context"
	"fmt"
	"log/slog"
	"math/big"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/fixed"
	"github.com/coffer-network/coffer/node/p2p"
	"github.com/coffer-network/coffer/tss"
	"github.com/coffer-network/coffer/tss/keystore"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/prometheus/client_golang/prometheus"
)

// nodeOf is member i of a cluster with nothing running: a view, a keystore, the
// pure half of the chains.
func nodeOf(t *testing.T, c *cluster, i int) *Node {
	t.Helper()
	ks, err := keystore.Init(filepath.Join(t.TempDir(), "keystore"), []byte("p"), keystore.Options{Node: idOf(c.keys[i]), TestWorkFactor: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ks.Close(); err != nil {
			t.Error(err)
		}
	})
	a := &app{state: c.s, changed: make(chan struct{})}
	a.publish()
	return &Node{
		self: idOf(c.keys[i]), key: c.keys[i], log: slog.New(slog.DiscardHandler), metrics: newMetrics(prometheus.NewRegistry()),
		app: a, keys: ks, chains: testChains(t, c.s.Genesis),
		sigs: map[inputKey]signature{}, unshared: map[inputKey]map[ledger.MemberID]bool{}, verdicts: map[jobKey]bool{},
		turns: map[turnKey]chan uint64{}, failedAt: map[jobKey]time.Time{}, gaveUp: map[jobKey]ledger.GaveUp{}, fences: map[string]*Fence{}, refusals: map[jobKey]ledger.Refusal{},
	}
}

// Signatures are wanted of open batches whose anchor is not seen spent, by who
// stands on the roster, and of nothing while outflows are halted.
func TestPlanSigning(t *testing.T) {
	c := newCluster(t)
	c.tick(1000)
	c.tick(1000)
	if got := planSigning(c.s, idOf(c.keys[0])); len(got) != 0 {
		t.Errorf("a keygen is no signature: %+v", got)
	}
	for _, k := range c.s.Next.Keys {
		c.all(ledger.KindShareReady, c.ready(k))
	}
	jobs := map[ledger.MemberID]int{}
	for _, b := range c.live() {
		if len(b.Newest().Roster) != 3 {
			t.Fatalf("test %+v", b)
		}
	}
	for _, k := range c.keys {
		for _, j := range planSigning(c.s, idOf(k)) {
			if j.kind != ledger.BatchTest || !hasMember(j.attempt.Roster, idOf(k)) {
				t.Errorf("job %+v", j)
			}
			jobs[idOf(k)]++
		}
	}
	total := 0
	for m, n := range jobs {
		if n < 2 {
			t.Errorf("%s signs %d tests, want one of each key at least", m, n)
		}
		total += n
	}
	if len(jobs) != 4 || total != 4*3 {
		t.Errorf("%d members with %d jobs", len(jobs), total)
	}

	c, b := paying(t)
	for i, k := range c.keys {
		js := planSigning(c.s, idOf(k))
		if len(js) != 1 || js[0].key() != (jobKey{b.ID, 0}) {
			t.Errorf("member %d: %+v", i, js)
		}
	}
	if got := planSigning(c.s, ledger.MemberID{1}); len(got) != 0 {
		t.Error("a stranger has work")
	}
	if got := planBroadcasts(c.s); len(got) != 1 || got[0].ID != b.ID {
		t.Errorf("broadcasts %+v", got)
	}
	c.some(2, ledger.KindGaveUp, ledger.GaveUp{Batch: b.ID})
	if js := planSigning(c.s, idOf(c.keys[0])); len(js) != 1 || js[0].key() != (jobKey{b.ID, 1}) {
		t.Errorf("after a retry %+v", js)
	}
	halted := c.s.View()
	halted.OutflowsHalt = "test"
	if len(planSigning(halted, idOf(c.keys[0]))) != 0 {
		t.Error("work while outflows are halted")
	}
	c.say(2, ledger.KindPause, ledger.Pause{Seconds: 60})
	if len(planSigning(c.s, idOf(c.keys[0]))) != 0 || len(planBroadcasts(c.s)) != 1 {
		t.Error("a session while paused, or no more broadcasts of what is signed")
	}
	c.say(2, ledger.KindPause, ledger.Pause{})
	f := ledger.SpentFact{Batch: b.ID, Height: 213, Block: "block-a"}
	c.some(3, ledger.KindSpent, f)
	if len(planSigning(c.s, idOf(c.keys[0]))) != 0 || len(planBroadcasts(c.s)) != 0 {
		t.Error("work for an anchor that is seen spent")
	}
	c.some(3, ledger.KindUnmined, ledger.UnminedFact{Batch: b.ID, Block: f.Block})
	if len(planSigning(c.s, idOf(c.keys[0]))) != 1 || len(planBroadcasts(c.s)) != 1 {
		t.Error("no work after a reorganisation")
	}
	c.some(3, ledger.KindSpent, ledger.SpentFact{Batch: b.ID, Foreign: true, Height: 213, Block: "block-b"})
	if len(planSigning(c.s, idOf(c.keys[0]))) != 0 {
		t.Error("work for a batch on hold")
	}
}

func TestPlanKeygens(t *testing.T) {
	c := newCluster(t)
	if got := planKeygens(c.s, idOf(c.keys[0])); len(got) != 0 {
		t.Errorf("before any plan %+v", got)
	}
	c.tick(1000)
	c.tick(1000)
	if got := planKeygens(c.s, idOf(c.keys[0])); len(got) != 2 {
		t.Fatalf("%d keygens", len(got))
	}
	if got := planKeygens(c.s, ledger.MemberID{1}); len(got) != 0 {
		t.Errorf("a stranger makes keys: %+v", got)
	}
	c.say(0, ledger.KindShareReady, c.ready(c.s.Next.Keys[0]))
	if got := planKeygens(c.s, idOf(c.keys[0])); len(got) != 1 || got[0].key.Key != c.s.Next.Keys[1].Key {
		t.Errorf("after one share %+v", got)
	}
	if got := planActivations(c.s); len(got) != 0 {
		t.Errorf("a share is activated before the flip: %+v", got)
	}
	c = running(t)
	want := []keystore.ShareID{{Key: ledger.KeyECDSA1, Epoch: 1, Try: 1}, {Key: ledger.KeyEd255191, Epoch: 1, Try: 1}}
	if got := planActivations(c.s); !slices.Equal(got, want) {
		t.Errorf("activations %+v", got)
	}
	if got := planKeygens(c.s, idOf(c.keys[0])); len(got) != 0 {
		t.Errorf("keygens after the flip %+v", got)
	}
}

// "A member joins attempt k only if |own clock − ledger time at which k was
// planned| ≤ 60 s at the moment it first approves a head over that plan; the
// verdict is stored" (spec: consensus R5a).
func TestJudgePlans(t *testing.T) {
	c, b := paying(t)
	a := b.Newest()
	at := time.UnixMilli(int64(a.Millis))
	k := jobKey{b.ID, 0}
	for name, tc := range map[string]struct {
		height uint64
		now    time.Time
		known  map[jobKey]bool
		want   []verdict
	}{
		"at once":                        {a.Height, at, nil, []verdict{{b.ID, 0, true}}},
		"a minute late":                  {a.Height, at.Add(time.Minute), nil, []verdict{{b.ID, 0, true}}},
		"later":                          {a.Height, at.Add(time.Minute + time.Millisecond), nil, []verdict{{b.ID, 0, false}}},
		"a minute early":                 {a.Height, at.Add(-time.Minute), nil, []verdict{{b.ID, 0, true}}},
		"earlier":                        {a.Height, at.Add(-time.Minute - time.Millisecond), nil, []verdict{{b.ID, 0, false}}},
		"a head below the plan":          {a.Height - 1, at, nil, nil},
		"judged before, too late":        {a.Height, at, map[jobKey]bool{k: false}, []verdict{{b.ID, 0, false}}},
		"judged before, in time":         {a.Height, at.Add(time.Hour), map[jobKey]bool{k: true}, []verdict{{b.ID, 0, true}}},
		"another attempt was judged":     {a.Height, at, map[jobKey]bool{{b.ID, 1}: false}, []verdict{{b.ID, 0, true}}},
		"judged, though the head is low": {0, at, map[jobKey]bool{k: true}, []verdict{{b.ID, 0, true}}},
	} {
		if got := judgePlans(c.s, tc.height, tc.now, tc.known); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %+v, want %+v", name, got, tc.want)
		}
	}
	// The next attempt is judged anew, whatever was said of the last.
	c.some(2, ledger.KindGaveUp, ledger.GaveUp{Batch: b.ID})
	next := c.payment().Newest()
	now := time.UnixMilli(int64(next.Millis))
	if got := judgePlans(c.s, next.Height, now, map[jobKey]bool{k: false}); !slices.Equal(got, []verdict{{b.ID, 1, true}}) {
		t.Errorf("attempt 1: %+v", got)
	}
	// Settled batches and keys are not judged: nothing of them waits.
	c.some(3, ledger.KindFinal, ledger.FinalFact{Batch: b.ID, Outcome: ledger.OutcomePaid, TxID: "t", Fee: fixed.New(next.Bitcoin.Fee), Height: 213, Block: "x"})
	if got := judgePlans(c.s, 1<<40, now, nil); len(got) != 0 {
		t.Errorf("settled: %+v", got)
	}
	if got := judgePlans(opened(t).s, 1<<40, now, nil); len(got) != 0 {
		t.Errorf("tests: %+v", got)
	}
}

// A member far from ledger time withholds its approval, and judges nothing then.
func TestApprovalNeedsTheTime(t *testing.T) {
	c, b := paying(t) // whose ledger time is years ago
	n := nodeOf(t, c, 0)
	if _, err := n.mayApprove(ledger.Approval{Height: c.s.Height}); err == nil {
		t.Error("approved with a clock years away")
	}
	if _, known := n.verdict(jobKey{b.ID, 0}); known {
		t.Error("judged without approving")
	}
	// Before keys there is nothing to pay, and time starts where genesis says.
	n = nodeOf(t, newCluster(t), 0)
	if _, err := n.mayApprove(ledger.Approval{}); err != nil {
		t.Errorf("before keys: %v", err)
	}
	// A ledger whose time runs ahead of this member's clock.
	g, keys := testGenesis(uint64(time.Now().Add(24 * time.Hour).UnixMilli()))
	s, err := ledger.NewState(g)
	if err != nil {
		t.Fatal(err)
	}
	ahead := newCluster(t)
	ahead.s, ahead.keys = s, keys
	ahead.tick(1000)
	ahead.tick(1000)
	for _, k := range s.Next.Keys {
		ahead.all(ledger.KindShareReady, ahead.ready(k))
	}
	for _, k := range s.Next.Keys {
		for _, id := range k.Tests {
			ahead.all(ledger.KindTestSig, ahead.test(id))
		}
	}
	ahead.say(0, ledger.KindFlip, ahead.flip())
	if _, err := nodeOf(t, ahead, 0).mayApprove(ledger.Approval{Height: s.Height}); err == nil {
		t.Error("approved with ledger time a day ahead")
	}
}

// made is a finished signature of a payment's input, as a party would send it.
func (c *cluster) made(n *Node, b ledger.Batch, input int, turn uint64) signature {
	c.t.Helper()
	a := b.Newest()
	u, err := n.chains[b.Chain].Build(a)
	if err != nil {
		c.t.Fatal(err)
	}
	raw, rec := c.child(u.Inputs[input])
	s := signature{Batch: b.ID, Body: a.Body, Input: uint64(input), Attempt: a.K, Turn: turn, Session: ledger.Hash{9}, Parties: a.Committee(turn), Millis: 1}
	s.Sig = tss.Signature{R: [32]byte(raw[:32]), S: [32]byte(raw[32:]), RecID: rec}
	return s
}

// A signature of another member is verified against what this node's own ledger
// plans; whatever is wrong with it is refused and nothing is kept.
func TestTakeSignature(t *testing.T) {
	c, b := paying(t)
	n := nodeOf(t, c, 0)
	from := p2p.ID(idOf(c.keys[1]))
	good := c.made(n, b, 0, 0)
	take := func(s signature) error {
		_, err := n.takeSignature(context.Background(), from, ledger.Marshal(s))
		return err
	}
	order, _ := new(big.Int).SetString("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141", 16)
	for name, change := range map[string]func(s *signature){
		"an unknown batch":         func(s *signature) { s.Batch = 999 },
		"an unknown transaction":   func(s *signature) { s.Body = 3 },
		"an unknown input":         func(s *signature) { s.Input = 1 },
		"parties of another turn":  func(s *signature) { s.Parties = b.Newest().Committee(1) },
		"no parties":               func(s *signature) { s.Parties = nil },
		"one party too many":       func(s *signature) { s.Parties = b.Newest().Roster },
		"parties in another order": func(s *signature) { s.Parties = slices.Clone(s.Parties); slices.Reverse(s.Parties) },
		"a flipped bit":            func(s *signature) { s.Sig.R[5] ^= 1 },
		"zero r":                   func(s *signature) { s.Sig.R = [32]byte{} },
		"zero s":                   func(s *signature) { s.Sig.S = [32]byte{} },
		"r beyond the order":       func(s *signature) { order.FillBytes(s.Sig.R[:]) },
		"high s":                   func(s *signature) { v := new(big.Int).SetBytes(s.Sig.S[:]); v.Sub(order, v).FillBytes(s.Sig.S[:]) },
		"of the master key itself": func(s *signature) { s.Sig = masterSig(c, n, b) },
		"of another's transaction": func(s *signature) { s.Sig.R, s.Sig.S = s.Sig.S, s.Sig.R },
	} {
		s := good
		change(&s)
		if take(s) == nil {
			t.Errorf("%s: taken", name)
		}
		if _, ok := n.signature(good.key()); ok {
			t.Fatalf("%s: kept", name)
		}
	}
	early := newCluster(t)
	early.tick(1000)
	early.tick(1000)
	if _, err := nodeOf(t, early, 0).takeSignature(context.Background(), from, ledger.Marshal(signature{Batch: early.live()[0].ID})); err == nil {
		t.Error("a signature for a keygen: taken")
	}
	for name, raw := range map[string][]byte{"nothing": nil, "noise": []byte("coffer"), "trailing": append(ledger.Marshal(good), 0)} {
		if _, err := n.takeSignature(context.Background(), from, raw); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if err := take(good); err != nil {
		t.Fatal(err)
	}
	if s, ok := n.signature(good.key()); !ok || s.Session != good.Session {
		t.Fatalf("stored %+v", s)
	}
	// The first stays, and a restart finds it on disk.
	second := good
	second.Session = ledger.Hash{8}
	if err := take(second); err != nil {
		t.Error(err)
	}
	n.sigs = map[inputKey]signature{}
	if s, ok := n.signature(good.key()); !ok || !reflect.DeepEqual(s, good) {
		t.Errorf("after a restart %+v", s)
	}
	if !n.hasAll(c.s, job{b, b.Newest(), b.Kind}) {
		t.Error("the transaction is not complete")
	}
	// Of a settled batch nothing is kept, and nobody is to blame.
	c.some(3, ledger.KindFinal, ledger.FinalFact{Batch: b.ID, Outcome: ledger.OutcomePaid, TxID: "t", Fee: fixed.New(b.Newest().Bitcoin.Fee), Height: 213, Block: "x"})
	n = nodeOf(t, c, 0)
	if err := take(good); err != nil {
		t.Errorf("settled: %v", err)
	}
	if _, ok := n.signature(good.key()); ok {
		t.Error("kept for a settled batch")
	}
}

func masterSig(c *cluster, n *Node, b ledger.Batch) tss.Signature {
	u, _ := n.chains[b.Chain].Build(b.Newest())
	other := *c
	other.ecdsa = secp256k1.PrivKeyFromBytes(seedOf("other", 0))
	raw, rec := other.child(u.Inputs[0])
	return tss.Signature{R: [32]byte(raw[:32]), S: [32]byte(raw[32:]), RecID: rec}
}

// The input that is signed is built here, read back here and passes VerifySpend.
func TestInputsPassTheDoor(t *testing.T) {
	c, b := paying(t)
	n := nodeOf(t, c, 0)
	j := planSigning(c.s, n.self)[0]
	ins, _, err := n.inputs(c.s, j)
	if err != nil || len(ins) != 1 {
		t.Fatalf("%d inputs, %v", len(ins), err)
	}
	k, _ := c.s.Keys.Get(ledger.KeyECDSA1)
	if _, err := derivedPub(k, ins[0]); err != nil {
		t.Error(err)
	}
	ins[0].Path.Subaccount[7]++
	if _, err := derivedPub(k, ins[0]); err == nil {
		t.Error("a path that is not the plan's key: accepted")
	}
	for name, change := range map[string]func(j *job){
		"another payee": func(j *job) {
			tx := *j.attempt.Bitcoin
			tx.Outputs = slices.Clone(tx.Outputs)
			tx.Outputs[0].Address = walletOf(t, 77).id.Address
			j.attempt.Bitcoin = &tx
		},
		"more than is owed": func(j *job) {
			tx := *j.attempt.Bitcoin
			tx.Outputs = slices.Clone(tx.Outputs)
			tx.Outputs[0].Sats++
			j.attempt.Bitcoin = &tx
		},
		"another attempt": func(j *job) { j.attempt.K = 1 },
		"a foreign coin": func(j *job) {
			tx := *j.attempt.Bitcoin
			tx.Inputs = slices.Clone(tx.Inputs)
			tx.Inputs[0].Outpoint = fmt.Sprintf("%064x:0", 4)
			j.attempt.Bitcoin = &tx
		},
		"an unknown chain": func(j *job) { j.batch.Chain = "doge" },
	} {
		w := j
		change(&w)
		if _, _, err := n.inputs(c.s, w); err == nil {
			t.Errorf("%s: built for a session", name)
		}
	}
	c.some(3, ledger.KindSpent, ledger.SpentFact{Batch: b.ID, Foreign: true, Height: 213, Block: "x"})
	if _, _, err := n.inputs(c.s, j); err == nil {
		t.Error("halted: built for a session")
	}
}

// A Join moves this member up only to a turn that calls for it, told by one of
// that turn's committee, and not absurdly far ahead.
func TestTakeJoin(t *testing.T) {
	c, b := paying(t)
	a := b.Newest()
	n := nodeOf(t, c, 0)
	j := planSigning(c.s, n.self)[0]
	mine := func(turn uint64) bool { return hasMember(a.Committee(turn), n.self) }
	with, without := uint64(0), uint64(0)
	for turn := range uint64(4) {
		if mine(turn) {
			with = turn
		} else {
			without = turn
		}
	}
	mate := func(turn uint64) ledger.MemberID {
		for _, m := range a.Committee(turn) {
			if m != n.self {
				return m
			}
		}
		return ledger.MemberID{}
	}
	outside := func(turn uint64) ledger.MemberID {
		for _, m := range a.Roster {
			if !hasMember(a.Committee(turn), m) {
				return m
			}
		}
		return ledger.MemberID{}
	}
	n.takeJoin(mate(with), b.ID, 0, 0, with) // nobody listens: nothing blocks
	ch := n.listenTurns(j, 0)
	for name, tell := range map[string]func(){
		"who is not of that turn":  func() { n.takeJoin(outside(with), b.ID, 0, 0, with) },
		"a turn without this node": func() { n.takeJoin(mate(without), b.ID, 0, 0, without) },
		"a stranger":               func() { n.takeJoin(ledger.MemberID{1}, b.ID, 0, 0, with) },
		"another attempt":          func() { n.takeJoin(mate(with), b.ID, 1, 0, with) },
		"another batch":            func() { n.takeJoin(mate(with), b.ID+1, 0, 0, with) },
		"another input":            func() { n.takeJoin(mate(with), b.ID, 0, 1, with) },
		"absurdly far ahead":       func() { far := with + 4*2*ledger.TurnLimit; n.takeJoin(mate(far), b.ID, 0, 0, far) },
	} {
		tell()
		select {
		case turn := <-ch:
			t.Errorf("%s moved this node to turn %d", name, turn)
		default:
		}
	}
	n.takeJoin(mate(with), b.ID, 0, 0, with)
	select {
	case turn := <-ch:
		if turn != with {
			t.Errorf("moved to turn %d, want %d", turn, with)
		}
	default:
		t.Error("not moved")
	}
	for range 20 { // a flood of honest Joins blocks nobody
		n.takeJoin(mate(with), b.ID, 0, 0, with)
	}
	for len(ch) > 0 {
		<-ch
	}
	// The attempt is over, though its job still listens.
	c.some(2, ledger.KindGaveUp, ledger.GaveUp{Batch: b.ID})
	n.app.publish()
	for turn := range uint64(4) {
		next := c.batch(b.ID).Newest().Committee(turn)
		if hasMember(next, n.self) {
			for _, m := range next {
				n.takeJoin(m, b.ID, 0, 0, turn)
			}
		}
	}
	if len(ch) != 0 {
		t.Error("a Join for an attempt that is over moved this node")
	}
}

// A member takes the lowest turn from its own on whose committee holds nobody
// suspected or dead; where none is left it stays.
func TestPickTurn(t *testing.T) {
	c, b := paying(t)
	a := b.Newest()
	alive := []int{0, 1, 2} // member 3 is never started
	var hosts []*p2p.Host
	var peers []p2p.Peer
	for _, i := range alive {
		h, err := p2p.New(p2p.Config{Key: c.keys[i], AliveAfter: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { h.Close() })
		hosts = append(hosts, h)
		peers = append(peers, p2p.Peer{ID: h.ID(), Addr: h.Addr(), Role: p2p.Member})
	}
	for _, h := range hosts {
		if err := h.SetPeers(append(slices.Clone(peers), p2p.Peer{ID: p2p.ID(idOf(c.keys[3])), Addr: "/ip4/127.0.0.1/tcp/1"})); err != nil {
			t.Fatal(err)
		}
	}
	deadline := time.Now().Add(20 * time.Second)
	for !hosts[0].Alive(hosts[1].ID()) || !hosts[0].Alive(hosts[2].ID()) {
		if time.Now().After(deadline) {
			t.Fatal("the members never met")
		}
		time.Sleep(5 * time.Millisecond)
	}
	n := nodeOf(t, c, 0)
	n.peers = hosts[0]
	dead := idOf(c.keys[3])
	clean := func(turn uint64, suspects ...ledger.MemberID) bool {
		for _, m := range a.Committee(turn) {
			if m == dead || slices.Contains(suspects, m) {
				return false
			}
		}
		return true
	}
	got := n.pickTurn(a, 0, nil)
	for turn := range got {
		if clean(turn) {
			t.Errorf("turn %d was passed over for %d", turn, got)
		}
	}
	if !clean(got) {
		t.Errorf("turn %d holds a dead member: %v", got, a.Committee(got))
	}
	if next := n.pickTurn(a, got+1, nil); next <= got || !clean(next) {
		t.Errorf("after turn %d comes %d", got, next)
	}
	// One of the three is suspected: with 3-of-4 no clean committee is left.
	suspects := map[ledger.MemberID]bool{idOf(c.keys[1]): true}
	if turn := n.pickTurn(a, 5, suspects); turn != 5 {
		t.Errorf("with nobody left it goes to turn %d", turn)
	}
	// A member never suspects itself.
	if turn := n.pickTurn(a, 0, map[ledger.MemberID]bool{n.self: true}); turn != got {
		t.Errorf("suspecting itself it takes turn %d, want %d", turn, got)
	}
}
