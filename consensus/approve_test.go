package consensus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coffer-network/coffer/ledger"
)

func TestApprovalPlan(t *testing.T) {
	for _, c := range []struct {
		name string
		p    approvalPlan
		want uint64 // 0: nothing
	}{
		{"nothing applied", approvalPlan{due: true}, 0},
		{"not due", approvalPlan{applied: 9, promised: 5, signed: 5}, 0},
		{"due", approvalPlan{applied: 6, promised: 5, signed: 5, due: true}, 6},
		{"nothing new", approvalPlan{applied: 5, promised: 5, signed: 5, due: true}, 0},
		{"roundest of the window", approvalPlan{applied: 1027, promised: 1000, signed: 1000, due: true}, 1024},
		{"roundest, late member", approvalPlan{applied: 1025, promised: 900, signed: 900, due: true}, 1024},
		{"many heights at once", approvalPlan{applied: 5000, promised: 3000, signed: 3000}, 4096},
		{"plan at once", approvalPlan{applied: 9, promised: 5, signed: 5, plannedAt: 7}, 7},
		{"plan is approved", approvalPlan{applied: 9, promised: 8, signed: 8, plannedAt: 7}, 0},
		{"plan withheld", approvalPlan{applied: 9, promised: 5, signed: 5, plannedAt: 7, withheld: 7, due: true}, 8},
		{"round height withheld", approvalPlan{applied: 9, promised: 5, signed: 5, withheld: 8, due: true}, 9},
		{"promise again after a restart", approvalPlan{applied: 8, promised: 8, due: true}, 8},
		{"replay below the promise", approvalPlan{applied: 7, promised: 8, due: true, plannedAt: 7}, 0},
		{"epoch opened", approvalPlan{applied: 30, promised: 5, signed: 5, opened: 21}, 21},
		{"nothing above the opening", approvalPlan{applied: 30, promised: 21, signed: 21, opened: 21, plannedAt: 25, due: true}, 0},
		{"promise is above the opening", approvalPlan{applied: 30, promised: 25, signed: 25, opened: 21, due: true}, 0},
		{"nothing below the epoch", approvalPlan{applied: 34, promised: 21, signed: 21, since: 33, due: true}, 34},
	} {
		if got, _ := c.p.height(); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func (c *cluster) certificate(m *member, height uint64) ledger.Certificate {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), within)
	defer cancel()
	cert, err := m.WaitCertificate(ctx, height)
	if err != nil {
		c.t.Fatalf("member %d: %v", m.n, err)
	}
	if err := cert.Verify(c.id, m.now().Epoch); err != nil && c.off.quorum == 0 {
		c.t.Fatalf("member %d: %v", m.n, err)
	}
	if head, err := m.Head(cert.Approval.Height); err != nil || head != cert.Approval.Head {
		c.t.Fatalf("member %d: certificate of a head that is not its own: %v", m.n, err)
	}
	return cert
}

func TestCertificates(t *testing.T) {
	virtual(t, 4, Settings{}, func(t *testing.T, c *cluster) {
		c.start(c.members...)
		f := c.follower()
		if _, ok := f.Certificate(0); ok {
			t.Error("certificate of nothing")
		}
		c.submit(f, "a")
		c.certificate(f, 1)
		// A plan is certified at its own height, at once.
		r := c.submit(f, "plan 1")
		began := time.Now()
		if cert := c.certificate(f, r.Height); cert.Approval.Height != r.Height {
			t.Errorf("plan at %d certified at %d", r.Height, cert.Approval.Height)
		}
		if d := time.Since(began); d > approveEvery {
			t.Errorf("plan certified after %s", d)
		}
		// While heights grow all the time.
		for i := range 200 {
			c.submit(c.members[i%4], fmt.Sprint("busy ", i))
			time.Sleep(approveEvery / 20)
		}
		h := f.Height()
		for _, m := range c.members {
			if cert, ok := m.Certificate(h / 2); !ok {
				t.Errorf("member %d: no certificate above %d at height %d", m.n, h/2, h)
			} else if err := cert.Verify(c.id, c.epoch); err != nil {
				t.Error(err)
			}
			c.certificate(m, h)
		}
	})
}

// Plants two of four members that withhold their approvals, as a minority behind a
// partition does however many KeyShares it has: no certificate, so nothing is
// signed (spec: outflows §10, 45); with a third it comes.
func TestFault45_MinorityHasNoCertificate(t *testing.T) {
	virtual(t, 4, Settings{}, func(t *testing.T, c *cluster) {
		c.start(c.members...)
		f := c.follower()
		for _, m := range c.members[2:] { // two of four withhold; Q = 3
			m.judge("", errors.New("own clock is off"))
		}
		r := c.submit(f, "plan 1")
		time.Sleep(time.Minute)
		for _, m := range c.members {
			if cert, ok := m.Certificate(0); ok {
				t.Errorf("member %d: certificate of %d signers", m.n, len(cert.Signatures))
			}
		}
		for _, m := range c.members[2:] {
			if m.keys.promised(t).Height != 0 || len(m.approved()) != 0 {
				t.Errorf("member %d promised what it withheld", m.n)
			}
		}
		c.members[2].judge("", nil) // three say so now
		c.certificate(f, r.Height)
	})
}

// onOneChain checks what a member approved over its whole life.
func (c *cluster) onOneChain(m *member) {
	c.t.Helper()
	var last ledger.Approval
	for _, a := range m.approved() {
		if a.Height < last.Height || a.Height == last.Height && a.Head != last.Head {
			c.t.Errorf("member %d approved %d after %d", m.n, a.Height, last.Height)
		}
		if last.Height != 0 {
			if err := m.Descends(last.Height, last.Head, a.Height); err != nil {
				c.t.Errorf("member %d: %v", m.n, err)
			}
		}
		last = a
	}
}

func TestPromiseSurvivesRestart(t *testing.T) {
	virtual(t, 4, Settings{}, func(t *testing.T, c *cluster) {
		c.start(c.members...)
		for _, m := range c.members {
			m.judge("timely", nil)
		}
		f := c.follower()
		c.submit(f, "plan 1")
		c.certificate(f, 1)
		for round := range 3 {
			c.stop(f)
			before := f.keys.promised(t)
			if string(before.Verdicts) != "timely" || before.Height == 0 {
				t.Fatalf("promise %+v", before)
			}
			c.submit(c.leader(), fmt.Sprint("plan ", round))
			c.start(f)
			if got := f.Promise(); got.Height < before.Height || string(got.Verdicts) != "timely" {
				t.Fatalf("promise after restart %+v, before %+v", got, before)
			}
			c.agree(c.leader().Height(), f)
			c.submit(c.leader(), "plan more")
			c.certificate(f, c.leader().Height())
		}
		for _, m := range c.members {
			c.onOneChain(m)
		}
	})
}

// The whole cluster restarts and nothing new is ordered: certificates form
// again, from the promises.
func TestCertificatesAfterRestartOfAll(t *testing.T) {
	virtual(t, 4, Settings{}, func(t *testing.T, c *cluster) {
		c.start(c.members...)
		c.submit(c.leader(), "plan 1")
		for _, m := range c.members {
			c.certificate(m, 1)
		}
		c.stopAll()
		c.start(c.members...)
		for _, m := range c.members {
			c.certificate(m, 1)
		}
	})
}

func TestBrokenPromiseHalts(t *testing.T) {
	virtual(t, 4, Settings{}, func(t *testing.T, c *cluster) {
		c.start(c.members...)
		f := c.follower()
		for i := range 5 {
			c.submit(c.leader(), fmt.Sprint("x ", i))
		}
		c.certificate(f, 5)
		c.stop(f)
		p := f.keys.promised(t)
		p.Height, p.Head = 3, hashOf("another history") // as if its log were rewritten
		f.keys.promise = ledger.Marshal(p)
		f.judge("", errors.New("not now")) // replay finds it, not the next approval
		for range 2 {                      // for good: a restart does not mend it
			sent := len(f.approved())
			if err := c.tryStart(f); err == nil {
				c.eventually("the node halts", func() bool {
					select {
					case <-f.Done():
						return true
					default:
						return false
					}
				})
				if err := f.Err(); !errors.Is(err, ErrPromiseBroken) {
					t.Fatalf("halted with %v", err)
				}
				if _, err := f.Submit(t.Context(), []byte("y")); !errors.Is(err, ErrPromiseBroken) {
					t.Errorf("submit on a halted node: %v", err)
				}
				if err := f.raft.Snapshot().Error(); err == nil {
					t.Error("a halted node takes a snapshot")
				}
				time.Sleep(10 * time.Second)
				c.stop(f)
			} else if !errors.Is(err, ErrPromiseBroken) {
				t.Fatal(err)
			}
			if got := f.keys.promised(t); got.Height != 3 || len(f.approved()) != sent {
				t.Errorf("approved after a broken promise: %d approvals, promise %d", len(f.approved())-sent, got.Height)
			}
		}
	})
}

// Plants a disk that refuses the promise: the node halts at once, and no approval
// leaves it (spec: outflows §2.4, C12).
func TestCrashC12_FailedPromiseWriteHalts(t *testing.T) {
	virtual(t, 3, Settings{}, func(t *testing.T, c *cluster) {
		c.start(c.members...)
		f := c.follower()
		f.keys.mu.Lock()
		f.keys.fail = errors.New("input/output error")
		f.keys.mu.Unlock()
		c.submit(c.leader(), "plan 1")
		<-f.Done()
		if n := len(f.approved()); n != 0 {
			t.Errorf("%d approvals left without a promise on disk", n)
		}
	})
}

func TestFlip(t *testing.T) {
	virtual(t, 4, Settings{}, func(t *testing.T, c *cluster) {
		c.start(c.members...)
		f := c.follower()
		c.submit(f, "a")
		c.submit(f, "plan 1")
		var x uint64
		// The opening is in the middle of what is ordered: x is never the last height.
		for i := range 20 {
			tx := fmt.Sprint("busy ", i)
			if i == 10 {
				tx = "open"
			}
			if r := c.submit(c.leader(), tx); tx == "open" {
				x = r.Height
			}
		}
		next := c.members[0].app.next
		for _, m := range c.members {
			c.eventually("flip certificate", func() bool { _, ok := m.FlipCertificate(x); return ok })
			cert, _ := m.FlipCertificate(x)
			if err := cert.Verify(c.id, c.epoch); err != nil {
				t.Fatal(err)
			}
			h, err := m.Header(x)
			if a := cert.Approval; err != nil || a.Height != x || a.RootHeight != x || a.Root != h.Root || a.Members != next.MembersHash() {
				t.Errorf("flip certificate %+v of header %+v", a, h)
			}
			if _, ok := m.FlipCertificate(x + 1); ok {
				t.Error("flip certificate of another height")
			}
		}
		// One member restarts between the two commands.
		r := c.follower()
		c.stop(r)
		c.start(r)
		c.submit(c.leader(), "plan 2")
		time.Sleep(time.Minute)
		for _, m := range c.members {
			for _, a := range m.approved() {
				if a.Height > x {
					t.Errorf("member %d approved %d above the opening at %d", m.n, a.Height, x)
				}
			}
			if _, ok := m.Certificate(x + 1); ok {
				t.Errorf("member %d: certificate above the opening", m.n)
			}
		}
		y := c.submit(c.leader(), "flip").Height
		c.submit(c.leader(), "plan 3")
		// Members 0, 1, 2 of 4 stay, member 3 left, 4 never came: Q = 3 of the new.
		for _, m := range c.members[:3] {
			ctx, cancel := context.WithTimeout(t.Context(), within)
			cert, err := m.WaitCertificate(ctx, y+1)
			cancel()
			if err != nil {
				t.Fatal(err)
			}
			if err := cert.Verify(c.id, next); err != nil {
				t.Error(err)
			}
		}
		for _, m := range c.members {
			for _, a := range m.approved() {
				if a.Epoch == 1 && a.Height < y {
					t.Errorf("member %d approved %d under the new epoch, in force from %d", m.n, a.Height, y)
				}
				if a.Epoch == 1 && m.n == 3 {
					t.Error("a member that left approves")
				}
			}
			c.onOneChain(m)
		}
	})
}

func signed(i int, a ledger.Approval) []byte {
	return ledger.Marshal(signedApproval{a, ledger.SignApproval(seedKey(i), a)})
}

func TestHandleApproval(t *testing.T) {
	virtual(t, 4, Settings{}, func(t *testing.T, c *cluster) {
		for _, m := range c.members {
			m.judge("", errors.New("not now"))
		}
		c.start(c.members...)
		m := c.leader()
		c.submit(m, "a")
		good, ok, err := m.approval(1, m.now())
		if !ok || err != nil {
			t.Fatal(err)
		}
		id := func(i int) ledger.MemberID { return c.members[i].id }
		change := func(f func(*ledger.Approval)) ledger.Approval { a := good; f(&a); return a }
		stranger := epochOf(0, 9).Members[0].ID
		for name, x := range map[string]struct {
			from ledger.MemberID
			body []byte
			want error // nil: any
		}{
			"stranger":            {stranger, signed(9, good), errNotMember},
			"another's":           {id(1), signed(2, good), errSignature},
			"false signature":     {id(1), ledger.Marshal(signedApproval{good, ledger.MemberSig{Member: id(1)}}), errSignature},
			"signed other fields": {id(1), ledger.Marshal(signedApproval{change(func(a *ledger.Approval) { a.Head[0]++ }), ledger.SignApproval(seedKey(1), good)}), errSignature},
			"other cluster":       {id(1), signed(1, change(func(a *ledger.Approval) { a.Cluster[0]++ })), errOtherEpoch},
			"other epoch":         {id(1), signed(1, change(func(a *ledger.Approval) { a.Epoch++ })), errOtherEpoch},
			"large":               {id(1), make([]byte, maxApproval+1), errTooBig},
			"noise":               {id(1), []byte("noise"), nil},
			"trailing byte":       {id(1), append(signed(1, good), 0), nil},
		} {
			if err := m.HandleApproval(x.from, x.body); err == nil || x.want != nil && !errors.Is(err, x.want) {
				t.Errorf("%s: %v, want %v", name, err, x.want)
			}
		}

		// Member 1 says two things about height 1; 2 says the truth. With 0's
		// Q = 3 would be reached if the second thing of 1 counted.
		lie := change(func(a *ledger.Approval) { a.Head[0]++ })
		for _, b := range []struct {
			from int
			a    ledger.Approval
			want error
		}{{1, lie, nil}, {1, good, errEquivocated}, {2, good, nil}, {0, good, nil}, {0, good, nil}} {
			if err := m.HandleApproval(id(b.from), signed(b.from, b.a)); !errors.Is(err, b.want) {
				t.Errorf("member %d: %v, want %v", b.from, err, b.want)
			}
		}
		if _, ok := m.Certificate(0); ok {
			t.Fatal("an equivocating member counted")
		}
		if m.Status().Equivocated != 1 {
			t.Error("equivocation is not shown")
		}
		if err := m.HandleApproval(id(3), signed(3, good)); err != nil {
			t.Fatal(err)
		}
		c.certificate(m, 1)
	})
}

// Three lie alike about a height: Q signatures, and still no certificate here,
// as its head is not on this node's chain. Nor does a higher head count for a
// lower one, nor one whose root or member set differs.
func TestCertificateOnlyOfOwnChain(t *testing.T) {
	virtual(t, 4, Settings{}, func(t *testing.T, c *cluster) {
		for _, m := range c.members {
			m.judge("", errors.New("not now"))
		}
		c.start(c.members...)
		m := c.leader()
		for i := range 8 {
			c.submit(m, fmt.Sprint("a ", i))
		}
		for h, f := range map[uint64]func(*ledger.Approval){
			1: func(a *ledger.Approval) { a.Head[0]++ },
			2: func(a *ledger.Approval) { a.RootHeight++ },
			3: func(a *ledger.Approval) { a.Root[0]++ },
			4: func(a *ledger.Approval) { a.Members[0]++ },
		} {
			a, _, _ := m.approval(h, m.now())
			f(&a)
			for i := range 4 {
				if err := m.HandleApproval(c.members[i].id, signed(i, a)); err != nil {
					t.Fatal(err)
				}
			}
		}
		for i := range 4 { // four heights, four members, none equal
			a, _, _ := m.approval(uint64(5+i), m.now())
			if err := m.HandleApproval(c.members[i].id, signed(i, a)); err != nil {
				t.Fatal(err)
			}
		}
		if cert, ok := m.Certificate(0); ok {
			t.Errorf("certificate of %+v", cert.Approval)
		}
	})
}

// Approvals of heights that this node has yet to apply count when it has.
func TestEarlyApprovals(t *testing.T) {
	virtual(t, 4, Settings{}, func(t *testing.T, c *cluster) {
		c.start(c.members...)
		f := c.follower()
		release := f.app.hold()
		l := c.leader()
		r := c.submit(l, "plan 1")
		c.certificate(l, r.Height)
		synctest.Wait()
		if _, ok := f.Certificate(0); ok {
			t.Error("certificate of a height that is not applied")
		}
		release()
		c.certificate(f, r.Height)
	})
}

func TestApprovalRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, id := newPool(), ledger.MemberID{1}
		n := 0
		for range 1000 {
			if p.allow(id, time.Now()) {
				n++
			}
		}
		if n != approvalBurst {
			t.Errorf("%d at once, want %d", n, approvalBurst)
		}
		time.Sleep(time.Second)
		for n = 0; p.allow(id, time.Now()); n++ {
		}
		if n != approvalsPerSec {
			t.Errorf("%d after a second, want %d", n, approvalsPerSec)
		}
		if !p.allow(ledger.MemberID{2}, time.Now()) {
			t.Error("one member's flood cost another's approval")
		}
	})
}

func TestHeldIsBounded(t *testing.T) {
	virtual(t, 3, Settings{}, func(t *testing.T, c *cluster) {
		c.start(c.members...)
		m := c.leader()
		other := c.others(m)[0]
		for h := range uint64(3 * maxHeld) {
			time.Sleep(time.Second / approvalsPerSec)
			a := ledger.Approval{Cluster: c.id, Height: 1000 + h}
			if err := m.HandleApproval(other.id, signed(other.n, a)); err != nil {
				t.Fatal(err)
			}
		}
		m.pool.mu.Lock()
		defer m.pool.mu.Unlock()
		if n := len(m.pool.held[other.id]); n != maxHeld || len(m.pool.sigs) > maxHeld {
			t.Errorf("%d held, %d counted", n, len(m.pool.sigs))
		}
	})
}

func TestDecodePromise(t *testing.T) {
	if p, err := DecodePromise(nil); err != nil || p.Height != 0 {
		t.Errorf("of a new store: %+v, %v", p, err)
	}
	for _, b := range []string{"x", strings.Repeat("\x00", 40)} {
		if _, err := DecodePromise([]byte(b)); err == nil {
			t.Errorf("%q decodes", b)
		}
	}
	want := Promise{Epoch: 1, Height: 2, Head: hashOf("h"), Term: 3, Index: 4, Verdicts: []byte("v")}
	got, err := DecodePromise(ledger.Marshal(want))
	if err != nil || got.Head != want.Head || !slices.Equal(got.Verdicts, want.Verdicts) {
		t.Errorf("%+v, %v", got, err)
	}
}
