package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coffer-network/coffer/consensus"
	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node/api"
	"github.com/coffer-network/coffer/node/api/client"
)

// fakeDisk is what a room looks at in tests.
type fakeDisk struct {
	mib     uint64
	sync    time.Duration
	failing error
}

func (f *fakeDisk) room(t testing.TB, limits DiskLimits) *room {
	t.Helper()
	r, err := openRoom(limits, func() (uint64, error) { return f.mib * mib, f.failing }, func() time.Duration { return f.sync }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// "Refuse early … when: … fsync p99 over 10 s > 200 ms; … free disk < 2 GiB (below
// 512 MiB only attestations pass)" (spec: consensus §9), at the floors themselves.
// A look that fails leaves the last figure. Planted: ≤ for < ("at both floors: own
// refused for 6"), one floor for both ("at full: … of others for 6"), a failed look
// that counts as nothing free ("blind: overloaded"), a watch that does not look.
func TestRoomFloors(t *testing.T) {
	f := &fakeDisk{mib: 2048, sync: 200 * time.Millisecond}
	r := f.room(t, DiskLimits{})
	limit := func(err error) consensus.Limit {
		if o, ok := errors.AsType[*consensus.Overload](err); ok {
			return o.Limit
		}
		return 0
	}
	for name, tc := range map[string]struct {
		mib         uint64
		sync        time.Duration
		own, others consensus.Limit
		says        string
	}{
		"at both floors":       {2048, 200 * time.Millisecond, 0, 0, ""},
		"a MiB below low":      {2047, 0, consensus.LimitDisk, 0, "2047 MiB of disk"},
		"at full":              {512, 0, consensus.LimitDisk, 0, "512 MiB of disk"},
		"a MiB below full":     {511, 0, consensus.LimitDisk, consensus.LimitDisk, "511 MiB of disk"},
		"nothing":              {0, 0, consensus.LimitDisk, consensus.LimitDisk, "0 MiB of disk"},
		"a millisecond slower": {4096, 201 * time.Millisecond, consensus.LimitSync, consensus.LimitSync, "201ms"},
	} {
		f.mib, f.sync = tc.mib, tc.sync
		if err := r.look(); err != nil {
			t.Fatal(err)
		}
		if own, others := limit(r.admits(true)), limit(r.admits(false)); own != tc.own || others != tc.others {
			t.Errorf("%s: own refused for %d, of others for %d; want %d, %d", name, own, others, tc.own, tc.others)
		}
		if why := strings.Join(r.notReady(), "; "); !strings.Contains(why, tc.says) || (why == "") != (tc.says == "") {
			t.Errorf("%s: not ready for %q", name, why)
		}
	}
	f.mib, f.sync = 4096, 0
	r.look()
	f.mib, f.failing = 0, errors.New("no such device")
	if r.look() == nil || r.admits(true) != nil || len(r.notReady()) != 1 {
		t.Errorf("blind: %v, %q", r.admits(true), r.notReady())
	}
	if _, err := openRoom(DiskLimits{}, func() (uint64, error) { return 0, f.failing }, func() time.Duration { return 0 }, r.log); !errors.Is(err, f.failing) {
		t.Errorf("opened blind: %v", err)
	}
	synctest.Test(t, func(t *testing.T) {
		var free atomic.Uint64
		free.Store(4096 * mib)
		r, err := openRoom(DiskLimits{}, func() (uint64, error) { return free.Load(), nil }, func() time.Duration { return 0 }, r.log)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go r.watch(ctx)
		synctest.Wait()
		free.Store(mib)
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		if r.admits(true) == nil {
			t.Error("what filled up is not seen within a second")
		}
	})
}

func TestDiskLimits(t *testing.T) {
	for _, l := range []DiskLimits{{}, {LowMiB: 1, FullMiB: 1}, {LowMiB: 100}, {SyncP99: Duration(10 * time.Second)}} {
		if err := l.validate(); err != nil {
			t.Errorf("%+v: %v", l, err)
		}
	}
	for _, l := range []DiskLimits{{LowMiB: -1}, {FullMiB: -1}, {LowMiB: 10, FullMiB: 11}, {FullMiB: 4096}, {LowMiB: mib + 1}, {SyncP99: 1}, {SyncP99: Duration(11 * time.Second)}} {
		g, _ := testGenesis(testStart)
		c := testConfig("")
		if c.Disk = l; c.Validate(g) == nil {
			t.Errorf("%+v: accepted", l)
		}
	}
	dir := t.TempDir()
	c := testConfig(dir)
	c.Disk = DiskLimits{LowMiB: 2, FullMiB: 1, SyncP99: Duration(5 * time.Second)}
	if err := c.Save(); err != nil {
		t.Fatal(err)
	}
	if got, err := LoadConfig(dir); err != nil || got.Disk != c.Disk || !strings.Contains(got.Disk.String(), "2 MiB") {
		t.Errorf("read back %+v, %v", got.Disk, err)
	}
}

// The probe on a real file system: what is written is no longer free, and a
// directory that is not there has nothing. Others write there too, so it may take
// more than one try. Seen failing with blocks for bytes ("fell by 16384").
func TestFreeDisk(t *testing.T) {
	dir := t.TempDir()
	const size = 64 * mib
	var fell uint64
	for range 5 {
		before, err := FreeDisk(dir)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, "filler")
		if err := os.WriteFile(name, make([]byte, size), 0o600); errors.Is(err, syscall.ENOSPC) {
			t.Skip(err)
		} else if err != nil {
			t.Fatal(err)
		}
		after, err := FreeDisk(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
		if fell = before - after; after < before && fell > size*3/4 && fell < size*4 {
			return
		}
		time.Sleep(200 * time.Millisecond)
	}
	t.Errorf("64 MiB were written and free disk fell by %d", fell)
	if _, err := FreeDisk(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}

// A node as it is opened, on a disk that has less than it is told to want: it opens,
// says so in its status, which /readyz is made of, and to Prometheus, and refuses
// a client. Seen failing without Room in Open ("a client: no leader"), and without
// the line in Status ("status: [no leader …").
func TestOpenedOnAShortDisk(t *testing.T) {
	g, keys := testGenesis(testStart)
	dir := disk(t, keys[0], testPassphrase)
	c := testConfig(dir)
	c.Disk = DiskLimits{LowMiB: mib, FullMiB: mib} // a TiB
	if free, err := FreeDisk(dir); err != nil || free >= mib*mib {
		t.Skipf("%d bytes are free, %v", free, err)
	}
	n, err := Open(c, g, []byte(testPassphrase), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	var o *api.Overloaded
	if _, err := n.Submit(t.Context(), ledger.Marshal(ledger.Command{Intent: &ledger.Intent{}})); !errors.As(err, &o) || o.Limit != "free disk" {
		t.Errorf("a client: %v", err)
	}
	if _, err := n.Submit(t.Context(), ledger.Marshal(ledger.Command{Attestation: &ledger.Attestation{}})); errors.As(err, &o) {
		t.Errorf("an attestation: %v", err)
	}
	if why := n.Status().NotReady; !strings.Contains(strings.Join(why, "; "), "MiB of disk are free") {
		t.Errorf("status: %q", why)
	}
	families, err := n.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "coffer_disk_free_bytes" && f.GetMetric()[0].GetGauge().GetValue() > 0 {
			return
		}
	}
	t.Error("free disk is no metric")
}

// judging answers for itself where the league's judges have no workers.
type judging struct{ *Node }

func (judging) Verdict(_ context.Context, c ledger.SignatureCheck) (bool, error) {
	return c.Verify(), nil
}

// post posts a request to a member's public API, from the first byte of HTTP on.
func (d *delegate) post(t *testing.T, in *ledger.Intent) (status int, retry string, p client.Problem) {
	t.Helper()
	body, err := json.Marshal(client.Submission{Text: in.Text, Signed: client.Signed{Scheme: in.Scheme, Signature: in.Signature}})
	if err != nil {
		t.Fatal(err)
	}
	req := httptest.NewRequest(http.MethodPost, "/v1/requests", bytes.NewReader(body))
	req.RemoteAddr = "127.0.0.1:1"
	req.Header.Set("Content-Type", "application/json")
	rec := httptest.NewRecorder()
	api.New(judging{d.Node}, api.Config{Log: d.log}).ServeHTTP(rec, req)
	if rec.Code != http.StatusOK {
		if err := json.Unmarshal(rec.Body.Bytes(), &p); err != nil {
			t.Fatalf("%d: %s", rec.Code, rec.Body)
		}
	}
	return rec.Code, rec.Header().Get("Retry-After"), p
}

// Each limit of admission, met by a request that is posted to a node of four on
// the real ledger: 503, when to come again, which limit and whose; no state
// changes; an attestation passes all the same; and with room again the same
// request does. Planted: a Room that is not asked ("a short disk here: 200"), asked of attestations
// too ("the attestation: overloaded"), an Overload that loses its limit on the way
// from the leader ("a full disk of the leader: limit \"a limit that this node does
// not know …\""), and every one shown as the queue, as before.
func TestRefusalsForWantOfRoom(t *testing.T) {
	play(t, borrower, func(l *league) {
		t := l.t
		boss, other := l.members[0], l.members[1]
		for _, d := range []*delegate{boss, other} {
			d.judges.verify = ledger.SignatureCheck.Verify
		}
		hold := walletOf(t, holderSeed)
		in := l.c.intent(hold, borrow(l.c, "1000000000")).Intent
		quiet := func(what string, d *delegate, limit, retry string) {
			t.Helper()
			height, head := boss.View().Height, boss.View().Head
			status, after, p := d.post(t, in)
			if status != 503 || p.Code != "OVERLOADED" || p.Limit != limit || after != retry || !p.Retryable {
				t.Errorf("%s: %d %s, limit %q, Retry-After %s; want 503, %q, %s", what, status, p.Code, p.Limit, after, limit, retry)
			}
			time.Sleep(time.Second)
			if v := boss.View(); v.Height != height || v.Head != head {
				t.Errorf("%s: the state changed", what)
			}
		}
		fact := func(d *delegate) {
			t.Helper()
			l.c.tick(100)
			for ; l.fed < len(l.c.log); l.fed++ {
				if r, err := d.cons.Submit(t.Context(), l.c.log[l.fed]); err != nil || r.Code != ledger.OK {
					t.Fatalf("the attestation: %v %s", err, r.Code)
				}
			}
		}
		for _, tc := range []struct {
			what         string
			at, asked    *delegate
			mib          uint64
			sync         time.Duration
			limit, retry string
		}{
			{"a short disk here", other, other, 2047, 0, "free disk", "60"},
			{"a full disk here", other, other, 0, 0, "free disk", "60"},
			{"a short disk of the leader, asked there", boss, boss, 2047, 0, "free disk", "60"},
			{"a full disk of the leader", boss, other, 511, 0, "free disk (of the leader)", "60"},
			{"slow writes here", other, other, 4096, 201 * time.Millisecond, "how long the disk takes to write", "10"},
			{"slow writes of the leader", boss, other, 4096, 201 * time.Millisecond, "how long the disk takes to write (of the leader)", "10"},
		} {
			tc.at.disk.mib, tc.at.disk.sync = tc.mib, tc.sync
			tc.at.room.look()
			quiet(tc.what, tc.asked, tc.limit, tc.retry)
			fact(tc.asked)
			tc.at.disk.mib, tc.at.disk.sync = 4096, 0
			tc.at.room.look()
		}

		// The leader judges no more: what it took stands in its queue, or on the way.
		gate := make(chan struct{})
		boss.judges.verify = func(c ledger.SignatureCheck) bool { <-gate; return c.Verify() }
		var wg sync.WaitGroup
		fill := func(d *delegate, n int, tx []byte) {
			for range n {
				wg.Go(func() { _, _ = d.cons.Submit(t.Context(), tx) }) // refused or a repeated text: both is well
			}
			synctest.Wait()
		}
		stuck := ledger.Marshal(l.c.intent(walletOf(t, lenderSeed), withdraw(l.c, "100000"))) // of another account
		fill(boss, 1, stuck)
		fill(other, 192, stuck)
		quietNow := func(what string, d *delegate, limit string) {
			t.Helper()
			status, after, p := d.post(t, in)
			if status != 503 || p.Code != "OVERLOADED" || p.Limit != limit || after != "1" {
				t.Errorf("%s: %d %s, limit %q, Retry-After %s; want 503, %q", what, status, p.Code, p.Limit, after, limit)
			}
		}
		quietNow("the way to the leader", other, "192 commands and reads on their way to the leader")
		for _, size := range []int{60 << 10, 1 << 10, 1} {
			fill(boss, 400, ledger.Marshal(ledger.Command{Intent: &ledger.Intent{Scheme: "none", Text: strings.Repeat("x", size)}}))
		}
		quietNow("bytes", boss, "16 MiB of clients' commands queued")
		close(gate)
		wg.Wait()
		gate = make(chan struct{})
		stuck = ledger.Marshal(l.c.intent(walletOf(t, lenderSeed), withdraw(l.c, "200000")))
		fill(boss, 1, stuck)
		fill(boss, 4096+3*256, stuck)
		quietNow("commands", boss, "4096 commands of clients queued")
		quietNow("commands, through a follower", other, "4096 commands of clients queued (of the leader)")
		close(gate)
		wg.Wait()
		if status, _, p := boss.post(t, in); status != http.StatusOK {
			t.Errorf("with room again: %d %s", status, p.Code)
		}
	})
}
