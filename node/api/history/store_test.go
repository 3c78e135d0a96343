package history

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coffer-network/coffer/ledger"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var cluster = ledger.Hash{1}

func account(i uint64) string { return fmt.Sprintf("%032x", i%7) }

// rec is a command whose every third has no effect.
func rec(h uint64) Record {
	r := Record{Height: h, Millis: h * 1000, Code: ledger.OK}
	if h%3 == 0 {
		return r
	}
	r.Entries = []Entry{{Event: ledger.Event{Name: "credited", Account: account(h), Asset: "btc", Amount: fmt.Sprint(h)}, Inflow: fmt.Sprintf("%064x:0", h)}}
	if h%5 == 0 {
		r.Request, r.Account, r.Final = ledger.Hash{byte(h), byte(h >> 8), 9}, account(h), true
	}
	return r
}

func tell(s *Store, from, to uint64) {
	for h := from; h <= to; h++ {
		s.Applied(rec(h))
	}
}

// settle waits until what was told is on the disk.
func settle(t *testing.T, s *Store) {
	t.Helper()
	for range 2000 {
		s.mu.Lock()
		n := len(s.pending)
		s.mu.Unlock()
		if n == 0 {
			return
		}
		select {
		case s.wake <- struct{}{}:
		default:
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("never written")
}

func small(dir string, segments int) Config {
	return Config{Dir: dir, Cluster: cluster, segmentBytes: 4096, segments: segments}
}

func heights(t *testing.T, s *Store, after uint64) []uint64 {
	t.Helper()
	var out []uint64
	for {
		rs, through, err := s.After(after, 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rs {
			out = append(out, r.Height)
		}
		if last, _ := s.Now(); through >= last {
			return out
		}
		if through <= after {
			t.Fatalf("no progress after %d", after)
		}
		after = through
	}
}

func expected(from, to uint64) (out []uint64) {
	for h := from; h <= to; h++ {
		if h%3 != 0 {
			out = append(out, h)
		}
	}
	return out
}

func TestHistoryGoesOnAfterARestartWithoutDoubling(t *testing.T) {
	dir := t.TempDir()
	s := Open(small(dir, 1000))
	tell(s, 1, 900)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for round := range uint64(3) { // raft replays from its snapshot at 100
		s = Open(small(dir, 1000))
		top := 1000 + 300*round
		tell(s, 100, top)
		settle(t, s)
		if got, want := heights(t, s, 0), expected(1, top); !slices.Equal(got, want) {
			t.Fatalf("round %d: %d records, want %d", round, len(got), len(want))
		}
		if s.Since() > 1 {
			t.Errorf("round %d: whole from %d", round, s.Since())
		}
		for _, a := range []uint64{1, 3} {
			rs, err := s.Find(ByAccount(account(a)), 0, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			var want int
			for h := uint64(1); h <= top; h++ {
				if h%3 != 0 && h%7 == a {
					want++
				}
			}
			if len(rs) != want || !slices.IsSortedFunc(rs, func(a, b Record) int { return int(b.Height) - int(a.Height) }) {
				t.Errorf("round %d: account %d has %d records, want %d, newest first", round, a, len(rs), want)
			}
		}
		if r, ok := s.Request(rec(55).Request); !ok || r.Height != 55 {
			t.Errorf("round %d: request of 55: %v %v", round, r.Height, ok)
		}
		if rs, err := s.Find(ByTx(fmt.Sprintf("%064x", 700)), 0, 9); err != nil || len(rs) != 1 || rs[0].Height != 700 {
			t.Errorf("round %d: by transaction: %v %v", round, rs, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A process that was killed leaves neither a mark nor an index that is true.
func TestHistoryAfterAKill(t *testing.T) {
	dir := t.TempDir()
	s := Open(small(dir, 1000))
	tell(s, 1, 500)
	s.Close()
	logs, _ := filepath.Glob(filepath.Join(dir, "*.log"))
	if len(logs) < 3 {
		t.Fatalf("%d segments", len(logs))
	}
	last := logs[len(logs)-1]
	b, err := os.ReadFile(last)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(last, b[:len(b)-7], 0o600); err != nil { // half a record
		t.Fatal(err)
	}
	for _, name := range []string{"mark", filepath.Base(strings.TrimSuffix(logs[0], ".log") + ".idx")} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("garbage"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s = Open(small(dir, 1000))
	defer s.Close()
	tell(s, 400, 600)
	settle(t, s)
	if got := heights(t, s, 0); !slices.Equal(got, expected(1, 600)) {
		t.Fatalf("%d records, want %d", len(got), len(expected(1, 600)))
	}
	if rs, err := s.Find(ByAccount(account(1)), 60, 3); err != nil || len(rs) != 3 || rs[0].Height != 50 {
		t.Errorf("through a rebuilt index: %v %v", rs, err)
	}
}

func TestAGapIsSaidAndWhatIsOlderIsForgotten(t *testing.T) {
	dir := t.TempDir()
	s := Open(small(dir, 1000))
	tell(s, 1, 200)
	settle(t, s)
	tell(s, 400, 500) // a snapshot of another node was taken over
	settle(t, s)
	for _, again := range []bool{false, true} {
		if s.Since() != 400 {
			t.Fatalf("restarted %v: whole from %d, want 400", again, s.Since())
		}
		if _, _, err := s.After(100, 10); !errors.Is(err, ErrForgotten) {
			t.Errorf("restarted %v: after 100: %v", again, err)
		}
		if got := heights(t, s, 399); !slices.Equal(got, expected(400, 500)) {
			t.Errorf("restarted %v: %d records", again, len(got))
		}
		s.Close()
		s = Open(small(dir, 1000))
	}
	s.Close()
}

func TestTheOldestSegmentGoesFirst(t *testing.T) {
	dir := t.TempDir()
	s := Open(small(dir, 4))
	defer s.Close()
	tell(s, 1, 2000)
	settle(t, s)
	tell(s, 2001, 2002)
	settle(t, s)
	logs, _ := filepath.Glob(filepath.Join(dir, "*.log"))
	if len(logs) > 4 {
		t.Fatalf("%d segments, want at most 4", len(logs))
	}
	since := s.Since()
	if since < 2 {
		t.Fatalf("whole from %d after the first segments went", since)
	}
	s.mu.Lock()
	s.recent, s.floor = nil, s.last // as after a restart
	s.mu.Unlock()
	if got := heights(t, s, since-1); !slices.Equal(got, expected(since, 2002)) {
		t.Errorf("%d records from %d on, want %d", len(got), since, len(expected(since, 2002)))
	}
}

// A disk that refuses stops nothing; when it takes records again, nothing is
// missing that memory still held.
func TestAFullDiskCostsHistoryOnly(t *testing.T) {
	dir := t.TempDir()
	var lines bytes.Buffer
	var failed atomic.Int64
	cfg := small(dir, 1000)
	cfg.Log, cfg.Failed = slog.New(slog.NewTextHandler(&lines, nil)), func() { failed.Add(1) }
	s := Open(cfg)
	tell(s, 1, 30)
	settle(t, s)
	s.files.Lock()
	g := s.segs[len(s.segs)-1]
	good := g.f
	deaf, err := os.Open(g.path) // for reading: writes fail
	if err != nil {
		t.Fatal(err)
	}
	g.f = deaf
	s.files.Unlock()
	tell(s, 31, 60)
	for !s.down() {
		time.Sleep(time.Millisecond)
	}
	if _, err := s.Find(ByAccount(account(1)), 0, 10); !errors.Is(err, ErrUnavailable) {
		t.Errorf("history of an account while the disk refuses: %v", err)
	}
	if rs, _, err := s.After(40, 100); err != nil || len(rs) != 13 {
		t.Errorf("streams while the disk refuses: %d records, %v", len(rs), err)
	}
	s.files.Lock()
	deaf.Close()
	g.f = good
	s.files.Unlock()
	s.flush()
	if _, err := s.Find(ByAccount(account(1)), 0, 10); err != nil {
		t.Error(err)
	}
	s.Close()
	if n := strings.Count(lines.String(), "not kept now"); n != 1 || failed.Load() == 0 {
		t.Errorf("%d lines, %d failures counted", n, failed.Load())
	}
	s = Open(small(dir, 1000))
	defer s.Close()
	if got := heights(t, s, 0); !slices.Equal(got, expected(1, 60)) {
		t.Errorf("%d records after the disk came back, want %d", len(got), len(expected(1, 60)))
	}
}

func TestADiskThatNeverComesBackIsAGap(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "history")
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // no directory can be made there
		t.Fatal(err)
	}
	s := Open(small(dir, 10))
	tell(s, 1, 3*maxRecent)
	if len(s.pending) > maxRecent || len(s.recent) > maxRecent {
		t.Errorf("%d pending, %d recent", len(s.pending), len(s.recent))
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	s.flush()
	tell(s, 3*maxRecent+1, 3*maxRecent+5)
	settle(t, s)
	s.Close()
	s = Open(small(dir, 1000))
	defer s.Close()
	if since := s.Since(); since < maxRecent {
		t.Errorf("whole from %d although records were let go", since)
	}
}

func TestADamagedSegmentIsSetAside(t *testing.T) {
	dir := t.TempDir()
	s := Open(small(dir, 1000))
	tell(s, 1, 600)
	s.Close()
	logs, _ := filepath.Glob(filepath.Join(dir, "*.log"))
	b, err := os.ReadFile(logs[1])
	if err != nil {
		t.Fatal(err)
	}
	for i := 100; i < len(b); i += 100 {
		b[i] ^= 1
	}
	if err := os.WriteFile(logs[1], b, 0o600); err != nil {
		t.Fatal(err)
	}
	s = Open(small(dir, 1000))
	defer s.Close()
	tell(s, 601, 700)
	var met bool
	for range 2000 { // a reader meets it, the writer sets it aside
		if _, err := s.Find(ByAccount(account(2)), 0, 1<<20); errors.Is(err, ErrUnavailable) {
			met = true
		} else if met && err == nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if _, err := os.Stat(filepath.Join(dir, "damaged")); err != nil || !met {
		t.Fatalf("met %v: %v", met, err)
	}
	since := s.Since()
	if got := heights(t, s, since-1); !slices.Equal(got, expected(since, 700)) || since < 2 || since > 500 {
		t.Errorf("%d records from %d on", len(got), since)
	}
}

func TestAnotherClustersHistoryIsSetAside(t *testing.T) {
	dir := t.TempDir()
	s := Open(small(dir, 10))
	tell(s, 1, 20)
	s.Close()
	cfg := small(dir, 10)
	cfg.Cluster = ledger.Hash{2}
	s = Open(cfg)
	defer s.Close()
	tell(s, 1, 5)
	settle(t, s)
	if got := heights(t, s, 0); !slices.Equal(got, expected(1, 5)) {
		t.Errorf("%v", got)
	}
}
