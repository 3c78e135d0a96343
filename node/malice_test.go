package node

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coffer-network/coffer/consensus"
	"github.com/coffer-network/coffer/consensus/malice"
	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
	"github.com/prometheus/client_golang/prometheus"
)

// league is four members on the real ledger, raft and approvals, one of them the
// leader and a traitor: it sends what it likes and signs whatever is approved.
// The honest ones judge and join as a node does; keys and chains are left out.
type league struct {
	t       *testing.T
	c       *cluster // where commands are made; its log is what the leader orders
	fed     int
	members []*delegate // the traitor first
}

type delegate struct {
	*Node
	i    int
	skew time.Duration // of its clock
	liar *malice.Liar
	up   bool
	kept memoryStore
	disk fakeDisk
}

// memoryStore is a PromiseStore and MarkStore.
type memoryStore struct {
	mu            sync.Mutex
	promise, mark []byte
}

func (m *memoryStore) LastPromise() ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.promise, nil
}
func (m *memoryStore) SavePromise(b []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.promise = b
	return nil
}
func (m *memoryStore) LastRaftMark() ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mark, nil
}
func (m *memoryStore) SaveRaftMark(b []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mark = b
	return nil
}

// leagueWire is what one member says to the others.
type leagueWire struct {
	l *league
	d *delegate
}

func (w leagueWire) Forward(ctx context.Context, leader ledger.MemberID, request []byte) ([]byte, error) {
	for _, d := range w.l.members {
		if d.self == leader {
			return d.cons.HandleForward(ctx, w.d.self, request), nil
		}
	}
	return nil, errors.New("nobody")
}

func (w leagueWire) Broadcast(kind uint8, body []byte) {
	if kind != consensus.GossipApproval || w.d == w.l.members[0] {
		return
	}
	for _, d := range w.l.members[1:] {
		if d != w.d && d.up {
			_ = d.cons.HandleApproval(w.d.self, body)
		}
	}
	// The traitor says the same, to this one alone.
	var s struct {
		Approval  ledger.Approval  `cbor:"1,keyasint"`
		Signature ledger.MemberSig `cbor:"2,keyasint"`
	}
	if err := ledger.Unmarshal(body, &s); err != nil {
		w.l.t.Error(err)
	}
	boss := w.l.members[0]
	s.Signature = ledger.SignApproval(boss.key, s.Approval)
	_ = w.d.cons.HandleApproval(boss.self, ledger.Marshal(s))
}

// play runs a test in virtual time on a cluster that c made; c's ledger time may
// be ahead, the test begins when the clocks have come there.
func play(t *testing.T, make func(t *testing.T, now func(*ledger.Genesis)) *cluster, test func(l *league)) {
	synctest.Test(t, func(t *testing.T) {
		c := make(t, func(g *ledger.Genesis) { g.Millis = uint64(time.Now().UnixMilli()) })
		time.Sleep(time.Until(time.UnixMilli(int64(c.s.Millis))))
		l := &league{t: t, c: c}
		var genesis []ledger.MemberID
		for _, k := range c.keys {
			genesis = append(genesis, idOf(k))
		}
		var net malice.Network
		for i, key := range c.keys {
			judges := newVerifier(0, prometheus.NewRegistry())
			a, err := newApp(c.s.Genesis, judges)
			if err != nil {
				t.Fatal(err)
			}
			d := &delegate{i: i, liar: net.Seat(idOf(key).String()), Node: &Node{
				self: idOf(key), key: key, log: slog.New(slog.DiscardHandler), app: a, judges: judges,
				chains: testChains(t, c.s.Genesis), verdicts: map[jobKey]bool{},
			}}
			d.disk.mib = 4096
			d.room = d.disk.room(t, DiskLimits{})
			d.liar.Sign = func(term uint64, e *malice.Entry) {
				sig := consensus.SignSlot(key, consensus.SlotOf(c.s.Cluster, d.self, term, e)).Sig
				e.Extensions = sig[:]
			}
			l.members = append(l.members, d)
			w := leagueWire{l, d}
			d.cons, err = consensus.New(consensus.Config{
				Self: d.self, Cluster: c.s.Cluster, Genesis: genesis, Dir: t.TempDir(), App: a, Log: malice.NewLog(),
				Address: ledger.MemberID.String, Transport: d.liar, Forwarder: w, Gossip: w, Promises: &d.kept, Mark: &d.kept, Room: d.room.admits,
				Sign:       func(a ledger.Approval) ledger.MemberSig { return ledger.SignApproval(key, a) },
				SignSlot:   func(s consensus.Slot) ledger.MemberSig { return consensus.SignSlot(key, s) },
				MayApprove: func(a ledger.Approval) ([]byte, error) { return d.mayApproveAt(a, time.Now().Add(d.skew)) },
				Logger:     d.log,
			})
			if err != nil {
				t.Fatal(err)
			}
			d.up = true
			defer d.cons.Close()
		}
		l.until("a leader", func() bool {
			return slices.ContainsFunc(l.members, func(d *delegate) bool { return d.cons.Leading() })
		})
		boss := slices.IndexFunc(l.members, func(d *delegate) bool { return d.cons.Leading() })
		l.members[0], l.members[boss] = l.members[boss], l.members[0]
		l.feed()
		test(l)
	})
}

func (l *league) until(what string, ok func() bool) {
	l.t.Helper()
	for range 60_000 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	l.t.Fatal("not within ten minutes: ", what)
}

func (l *league) order(tx []byte) ledger.Code {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), time.Minute)
	defer cancel()
	r, err := l.members[0].cons.Submit(ctx, tx)
	if err != nil {
		l.t.Fatal(err)
	}
	return r.Code
}

// feed has the leader order what the cluster's log has that it did not.
func (l *league) feed() {
	l.t.Helper()
	for ; l.fed < len(l.c.log); l.fed++ {
		l.order(l.c.log[l.fed])
	}
	h := l.members[0].cons.Height()
	for _, d := range l.members {
		l.until("all applied", func() bool { return d.cons.Height() >= h })
	}
}

// joins are the payments that this member would sign now, as signAttempt decides.
// late: without R5a.
func (d *delegate) joins(late bool) (out []string) {
	v, _ := d.app.now()
	for _, j := range planSigning(v, d.self) {
		if j.kind != ledger.BatchPay {
			continue
		}
		if _, ok := d.cons.Certificate(j.attempt.Height); !ok {
			continue
		}
		if timely, known := d.verdict(j.key()); !late && (!known || !timely) {
			continue
		}
		ins, _, err := d.inputs(v, j)
		if err != nil {
			continue
		}
		out = append(out, fmt.Sprintf("%s %x", j.batch.Chain, ins[0].Digest[:4]))
	}
	return out
}

// signed are the payments for which the traitor finds the honest shares it needs:
// m−f, of as many sessions as he likes.
func (l *league) signed(late bool) map[string]int {
	n := map[string]int{}
	for _, d := range l.members[1:] {
		for _, p := range d.joins(late) {
			n[p]++
		}
	}
	for p, honest := range n {
		if honest+1 < l.c.s.Epoch().M {
			delete(n, p)
		}
	}
	return n
}

// borrower is a running cluster in which a holder of 1 BTC may borrow USDT.
func borrower(t *testing.T, now func(*ledger.Genesis)) *cluster {
	c := running(t, now)
	lender, holder := walletOf(t, lenderSeed), walletOf(t, holderSeed)
	a, b := c.open(lender), c.open(holder)
	c.floats()
	c.all(ledger.KindInflow, c.inflow(a, "usdt.eth", "100000000000", "block-1"))
	c.all(ledger.KindInflow, c.inflow(b, "btc", "100000000", "block-1"))
	c.mined()
	for range 4 { // gas for the sweep, the sweep
		c.tick(1000)
		for _, b := range c.live() {
			if b.Kind == ledger.BatchPay {
				c.paid(b)
			}
		}
	}
	c.prices(50_000)
	return c
}

// floats are the genesis coins of the Ethereum vaults.
func (c *cluster) floats() {
	for _, role := range []string{address.RoleGas, address.RoleHot} {
		w, ok := c.s.Vault(ledger.Ethereum, role)
		if !ok {
			c.t.Fatalf("no vault %s", role)
		}
		c.all(ledger.KindFloat, ledger.FloatFact{Chain: ledger.Ethereum, Address: w.Address, Amount: fixed.MustParse("10000000000000000000")})
	}
}

func (c *cluster) prices(btc uint64) {
	for asset, p := range map[string]uint64{"btc": btc, "eth": 2_500, "usdt.eth": 1} {
		c.all(ledger.KindPrice, []ledger.PriceReport{{Asset: asset, Round: c.s.Time() / 15, Price: fixed.New(p * 100_000_000), Observed: c.s.Millis}})
	}
}

func (c *cluster) height(chain string) uint64 {
	tip, _ := c.s.Tips.Get(chain)
	return tip.Height
}

func (c *cluster) mined() {
	b, e := c.height(ledger.Bitcoin)+12, c.height(ledger.Ethereum)+12
	c.all(ledger.KindHeight, []ledger.HeightReport{{Chain: ledger.Bitcoin, Height: b, Hash: "b"}, {Chain: ledger.Ethereum, Height: e, Hash: "e"}})
}

// paid has a batch's anchor spent and final.
func (c *cluster) paid(b ledger.Batch) {
	a, fee, at := b.Newest(), fixed.New(50_000*gwei), c.height(b.Chain)+1
	if a.Bitcoin != nil {
		fee = fixed.New(a.Bitcoin.Fee)
	}
	c.all(ledger.KindSpent, ledger.SpentFact{Batch: b.ID, Body: a.Body, Height: at, Block: "block-2"})
	c.mined()
	c.some(3, ledger.KindFinal, ledger.FinalFact{Batch: b.ID, Body: a.Body, Outcome: ledger.OutcomePaid, TxID: fmt.Sprintf("%064x", b.ID), Fee: fee, Height: at, Block: "block-2"})
}

func borrow(c *cluster, units string) address.Command {
	g := c.s.Grammar()
	to, err := address.ParseCAIP10(ethCAIP2 + ":" + testPayee)
	if err != nil {
		c.t.Fatal(err)
	}
	return address.Command{Action: address.ActionBorrow, Amount: g.Amount("usdt.eth", units), Pool: "usdt.eth", To: to, MaxFee: g.Amount("usdt.eth", "50000000")}
}

func withdraw(c *cluster, sats string) address.Command {
	g := c.s.Grammar()
	return address.Command{Action: address.ActionWithdraw, Amount: g.Amount("btc", sats), Pool: "btc", To: walletOf(c.t, 99).id, MaxFee: g.Amount("btc", "10000")}
}

// The leader holds an hour of honest attestations back, has a client sign a
// borrow at the price of then, puts it where the price still was, and lets the
// clocks come on: the heads are certified, and no honest member joins (R5a).
// Ablation in the same run: without the verdict the payment is signed.
func TestTraitor_OldPriceReplayed(t *testing.T) {
	play(t, borrower, func(l *league) {
		c := l.c
		// In time it is signed: what follows is not refused for another reason.
		c.ask(walletOf(l.t, holderSeed), borrow(c, "1000000000"))
		c.tick(1000)
		l.feed()
		l.until("a borrow in time is signed", func() bool { return len(l.signed(false)) == 1 })
		first := l.signed(false)

		c.ask(walletOf(l.t, holderSeed), borrow(c, "2000000000"))
		c.tick(1000)
		for i := range 4 {
			c.say(i, ledger.KindClock, ledger.Clock{Millis: c.s.Millis + 3_600_000})
		}
		time.Sleep(time.Hour)
		l.feed()
		h := l.members[1].cons.Height()
		for _, d := range l.members[1:] {
			l.until("the old plan is certified", func() bool { _, ok := d.cons.Certificate(h); return ok })
		}
		time.Sleep(10 * time.Second)
		for p := range l.signed(false) {
			if first[p] == 0 {
				l.t.Errorf("a borrow at the price of an hour ago is signed: %s", p)
			}
		}
		late := 0
		for p := range l.signed(true) {
			if first[p] == 0 {
				late++
			}
		}
		if late != 1 {
			l.t.Errorf("without R5a %d old borrows are signed, want 1: the test sees nothing", late)
		}
	})
}

// One side is shown the borrow, the other the withdrawal of its collateral, both
// signed by the client under one nonce: each is fine on its own.
func TestTraitor_BorrowHereWithdrawThere(t *testing.T) {
	play(t, borrower, func(l *league) {
		c, w := l.c, walletOf(l.t, holderSeed)
		here := ledger.Marshal(c.intent(w, borrow(c, "30000000000")))
		there := ledger.Marshal(c.intent(w, withdraw(c, "90000000")))
		other := map[string]bool{l.members[2].self.String(): true, l.members[3].self.String(): true}
		l.members[0].liar.Lie(malice.Rules{Rewrite: func(to string, e *malice.Entry) {
			var txs [][]byte
			if !other[to] || ledger.Unmarshal(e.Data, &txs) != nil {
				return
			}
			for i := range txs {
				if bytes.Equal(txs[i], here) {
					txs[i] = there
				}
			}
			e.Data = ledger.Marshal(txs)
		}})
		l.order(here)
		c.tick(1000)
		l.feed()
		l.until("one side is signed", func() bool { return len(l.signed(false)) > 0 })
		time.Sleep(10 * time.Second)
		if s := l.signed(false); len(s) != 1 {
			l.t.Errorf("signed: %v", s)
		}
		plans := map[string]bool{}
		for _, d := range l.members[1:] {
			v, _ := d.app.now()
			for _, j := range planSigning(v, d.self) {
				plans[j.batch.Chain] = true
			}
		}
		if len(plans) != 2 {
			l.t.Errorf("plans on %v: the two sides do not differ", plans)
		}
	})
}

// A payment that nobody asked for: another's signature, none, an intent with one
// word changed.
func TestTraitor_ForgedIntent(t *testing.T) {
	play(t, borrower, func(l *league) {
		c := l.c
		good := c.intent(walletOf(l.t, holderSeed), withdraw(c, "50000000"))
		for _, change := range []func(*ledger.Intent){
			func(i *ledger.Intent) { i.Signature = "" },
			func(i *ledger.Intent) {
				i.Signature = c.intent(walletOf(l.t, 7), withdraw(c, "50000000")).Intent.Signature
			},
			func(i *ledger.Intent) {
				i.Text = string(bytes.Replace([]byte(i.Text), []byte("0.5"), []byte("0.9"), 1))
			},
		} {
			bad := *good.Intent
			change(&bad)
			if code := l.order(ledger.Marshal(ledger.Command{Intent: &bad})); code == ledger.OK {
				l.t.Errorf("%s", bad.Text)
			}
		}
		c.tick(1000)
		l.feed()
		time.Sleep(3 * time.Second)
		if s := l.signed(true); len(s) != 0 {
			l.t.Errorf("signed: %v", s)
		}
		if code := l.order(ledger.Marshal(good)); code != ledger.OK {
			l.t.Fatal(code)
		}
		c.tick(1000)
		l.feed()
		l.until("the genuine one is signed", func() bool { return len(l.signed(false)) == 1 })
	})
}

// The traitor's clock is an hour ahead: ledger time is not moved. An honest
// member's is: it approves nothing, the others go on.
func TestTraitor_ClockOffByAnHour(t *testing.T) {
	play(t, borrower, func(l *league) {
		c := l.c
		boss := slices.IndexFunc(c.keys, func(k ed25519.PrivateKey) bool { return idOf(k) == l.members[0].self })
		before := c.s.Millis
		c.say(boss, ledger.KindClock, ledger.Clock{Millis: before + 3_600_000})
		if c.s.Millis != before {
			l.t.Errorf("one clock moved ledger time by %d ms", c.s.Millis-before)
		}
		off := l.members[1]
		off.skew = time.Hour
		l.feed()
		promised, _ := off.kept.LastPromise()
		c.ask(walletOf(l.t, holderSeed), borrow(c, "1000000000"))
		c.tick(1000)
		l.feed()
		l.until("the others sign", func() bool { return len(l.signed(false)) == 1 })
		time.Sleep(5 * time.Second)
		if p, _ := off.kept.LastPromise(); !bytes.Equal(p, promised) {
			l.t.Error("a member whose clock is off by an hour approves")
		}
		if got := off.joins(false); len(got) != 0 {
			l.t.Errorf("and joins %v", got)
		}
	})
}

// One member's ShareReady is held back past the deadline of its try, and ordered
// then: the try stays dropped, nothing opens on it, and what is made active is the
// KeyShare of the try that everybody has.
func TestTraitor_ShareReadyWithheld(t *testing.T) {
	play(t, func(t *testing.T, now func(*ledger.Genesis)) *cluster {
		c := newCluster(t, now)
		c.tick(1000)
		c.tick(1000)
		return c
	}, func(l *league) {
		c := l.c
		var held [][]byte
		first := slices.Clone(c.s.Next.Keys)
		for _, k := range first {
			c.some(3, ledger.KindShareReady, c.ready(k))
			c.seq++
			held = append(held, ledger.Marshal(ledger.Command{Attestation: ledger.NewAttestation(c.keys[3], c.s.Cluster, c.seq, ledger.KindShareReady, c.ready(k))}))
		}
		for c.s.Next.Keys[0].Try == first[0].Try || c.s.Next.Keys[1].Try == first[1].Try {
			c.tick(10_000)
		}
		for _, tx := range held { // an honest replica hears them now
			c.log = append(c.log, tx)
			c.s.Execute(tx)
		}
		if c.s.Opening != nil || len(c.s.Next.Keys[0].Ready) != 0 {
			l.t.Fatalf("a late word counts: %+v", c.s.Next)
		}
		l.feed()
		for _, d := range l.members[1:] {
			v, _ := d.app.now()
			if got := planActivations(v); len(got) != 0 {
				l.t.Errorf("member %d would make %v active", d.i, got)
			}
			for _, task := range planKeygens(v, d.self) {
				if task.key.Try != first[0].Try+1 {
					l.t.Errorf("member %d generates try %d", d.i, task.key.Try)
				}
			}
		}
		for _, k := range c.s.Next.Keys {
			c.all(ledger.KindShareReady, c.ready(k))
		}
		for _, k := range c.s.Next.Keys {
			for _, id := range k.Tests {
				c.all(ledger.KindTestSig, c.test(id))
			}
		}
		l.feed()
		c.say(0, ledger.KindFlip, c.flip())
		l.feed()
		for _, d := range l.members[1:] {
			v, _ := d.app.now()
			got := planActivations(v)
			if len(got) != 2 || v.Epoch().Number != 1 {
				l.t.Fatalf("member %d: epoch %d, %v", d.i, v.Epoch().Number, got)
			}
			for _, id := range got {
				if id.Try != first[0].Try+1 {
					l.t.Errorf("member %d makes try %d of %s active", d.i, id.Try, id.Key)
				}
			}
		}
	})
}
