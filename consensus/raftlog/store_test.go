package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/hashicorp/raft"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// Started by a package of Badger's, once per process.
		goleak.IgnoreTopFunction("github.com/golang/glog.(*fileSink).flushDaemon"),
		goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start"))
}

const testMemTable = 1 << 20

func openTest(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := open(dir, testMemTable)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func entry(i uint64) *raft.Log {
	return &raft.Log{Index: i, Term: i/10 + 1, Type: raft.LogCommand, Data: fmt.Appendf(nil, "data %d", i),
		Extensions: fmt.Appendf(nil, "ext %d", i), AppendedAt: time.Unix(0, int64(i))}
}

func entries(from, to uint64) (ls []*raft.Log) {
	for i := from; i <= to; i++ {
		ls = append(ls, entry(i))
	}
	return ls
}

func wantBounds(t *testing.T, s *Store, first, last uint64) {
	t.Helper()
	f, err1 := s.FirstIndex()
	l, err2 := s.LastIndex()
	if err := errors.Join(err1, err2); err != nil || f != first || l != last {
		t.Fatalf("bounds %d to %d, %v; want %d to %d", f, l, err, first, last)
	}
}

func wantEntry(t *testing.T, s *Store, want *raft.Log) {
	t.Helper()
	var got raft.Log
	if err := s.GetLog(want.Index, &got); err != nil {
		t.Fatalf("entry %d: %v", want.Index, err)
	}
	if got.Index != want.Index || got.Term != want.Term || got.Type != want.Type || !bytes.Equal(got.Data, want.Data) ||
		!bytes.Equal(got.Extensions, want.Extensions) || !got.AppendedAt.Equal(want.AppendedAt) {
		t.Fatalf("entry %d: got %+v, want %+v", want.Index, got, want)
	}
}

// What raft asks of its stores.
func TestWhatRaftCompares(t *testing.T) {
	s := openTest(t, t.TempDir())
	wantBounds(t, s, 0, 0)
	if err := s.GetLog(1, new(raft.Log)); !errors.Is(err, raft.ErrLogNotFound) {
		t.Errorf("absent entry: %v", err)
	}
	if _, err := s.Get([]byte("x")); err == nil || err.Error() != "not found" {
		t.Errorf("absent key: %v, want exactly \"not found\"", err)
	}
	if _, err := s.GetUint64([]byte("x")); err == nil || err.Error() != "not found" {
		t.Errorf("absent number: %v, want exactly \"not found\"", err)
	}
	if err := s.SetUint64([]byte("x"), 7); err != nil {
		t.Fatal(err)
	}
	if v, err := s.GetUint64([]byte("x")); v != 7 || err != nil {
		t.Errorf("number: %d, %v", v, err)
	}
	if err := s.Set([]byte("y"), []byte("abc")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.GetUint64([]byte("y")); err == nil {
		t.Error("three bytes read as a number")
	}
	if err := s.StoreLogs(nil); err != nil {
		t.Errorf("nothing: %v", err)
	}
}

func TestEntriesSurviveReopen(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir)
	if err := s.StoreLogs(entries(5, 40)); err != nil {
		t.Fatal(err)
	}
	if err := s.SetUint64([]byte("term"), 3); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = openTest(t, dir)
	wantBounds(t, s, 5, 40)
	for _, e := range entries(5, 40) {
		wantEntry(t, s, e)
	}
	if v, _ := s.GetUint64([]byte("term")); v != 3 {
		t.Errorf("term %d after reopen", v)
	}
}

func TestRefusesGaps(t *testing.T) {
	s := openTest(t, t.TempDir())
	if err := s.StoreLogs(entries(5, 8)); err != nil {
		t.Fatal(err)
	}
	for name, ls := range map[string][]*raft.Log{
		"gap":        entries(10, 11),
		"repeated":   entries(8, 9),
		"descending": {entry(9), entry(8)},
		"hole":       {entry(9), entry(11)},
	} {
		if err := s.StoreLogs(ls); !errors.Is(err, ErrGap) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := s.DeleteRange(6, 7); !errors.Is(err, ErrGap) {
		t.Errorf("delete in the middle: %v", err)
	}
	if err := s.StoreLogs(entries(9, 9)); err != nil {
		t.Errorf("a refusal broke the store: %v", err)
	}
	wantBounds(t, s, 5, 9)
}

func TestRefusesLogWithHole(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir)
	if err := s.StoreLogs(entries(1, 9)); err != nil {
		t.Fatal(err)
	}
	if err := s.db.Update(func(t *badger.Txn) error { return t.Delete(logKey(4)) }); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := open(dir, testMemTable); !errors.Is(err, ErrGap) {
		t.Fatalf("open: %v", err)
	}
}

func TestCorruptEntry(t *testing.T) {
	s := openTest(t, t.TempDir())
	if err := s.StoreLogs(entries(1, 2)); err != nil {
		t.Fatal(err)
	}
	long := encode(entry(2))
	long[headerSize-4] = 0xFF // a length beyond the end
	for name, b := range map[string][]byte{"short": []byte("short"), "long": long} {
		if err := s.db.Update(func(t *badger.Txn) error { return t.Set(logKey(2), b) }); err != nil {
			t.Fatal(err)
		}
		if err := s.GetLog(2, new(raft.Log)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSplitsLargeBatches(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir)
	var ls []*raft.Log
	for i := uint64(1); i <= 40; i++ { // 2.5 MiB; a transaction holds 0.15
		ls = append(ls, &raft.Log{Index: i, Term: 1, Data: bytes.Repeat([]byte{byte(i)}, 64<<10)})
	}
	txn := s.db.NewTransaction(true)
	var tooBig error
	for _, l := range ls {
		tooBig = errors.Join(tooBig, txn.Set(logKey(l.Index), l.Data))
	}
	txn.Discard()
	if !errors.Is(tooBig, badger.ErrTxnTooBig) {
		t.Fatalf("the batch fits one transaction: %v", tooBig)
	}
	if err := s.StoreLogs(ls); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = openTest(t, dir)
	wantBounds(t, s, 1, 40)
	for _, l := range ls {
		l.AppendedAt = time.Unix(0, time.Time{}.UnixNano())
		wantEntry(t, s, l)
	}
}

func TestRefusesLargeEntry(t *testing.T) {
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	fits := &raft.Log{Index: 1, Data: make([]byte, MaxEntry-headerSize)}
	if err := s.StoreLog(fits); err != nil {
		t.Fatalf("largest entry: %v", err)
	}
	if err := s.StoreLog(&raft.Log{Index: 2, Data: make([]byte, MaxEntry-headerSize+1)}); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("larger: %v", err)
	}
	wantBounds(t, s, 1, 1)
	if lsm, vlog := s.db.Size(); vlog > 1<<20 {
		t.Errorf("value log of %d bytes beside %d: entries must not lie there", vlog, lsm)
	}
}

// Raft deletes 0 to its last entry when a second snapshot is installed before
// anything followed the first.
func TestDeleteRange_OfAnEmptyLog(t *testing.T) {
	s := openTest(t, t.TempDir())
	if err := s.DeleteRange(0, 2000); err != nil {
		t.Fatal(err)
	}
	wantBounds(t, s, 0, 0)
	if err := s.StoreLogs(entries(2001, 2003)); err != nil {
		t.Fatal(err)
	}
	wantBounds(t, s, 2001, 2003)
}

func TestDeleteRange(t *testing.T) {
	for _, c := range []struct {
		name        string
		from, to    uint64
		first, last uint64
	}{
		{"head", 1, 2100, 2101, 3000},
		{"tail", 900, 3000, 1, 899},
		{"all", 1, 3000, 0, 0},
		{"beyond", 0, 9000, 0, 0},
		{"nothing", 4000, 5000, 1, 3000},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			s := openTest(t, dir)
			if err := s.StoreLogs(entries(1, 3000)); err != nil {
				t.Fatal(err)
			}
			if err := s.DeleteRange(c.from, c.to); err != nil {
				t.Fatal(err)
			}
			wantBounds(t, s, c.first, c.last)
			s.Close()
			s = openTest(t, dir) // refuses a hole
			wantBounds(t, s, c.first, c.last)
			next := c.last + 1
			if c.last == 0 {
				next = 7000 // an empty log may begin anywhere: after a snapshot
			}
			if err := s.StoreLogs(entries(next, next+3)); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// Wherever a crash stops a long write or deletion, what it leaves is one run.
func TestCrashBetweenTransactions(t *testing.T) {
	crash := errors.New("power lost")
	for _, c := range []struct {
		name        string
		do          func(s *Store) error
		first, last uint64
	}{
		{"head", func(s *Store) error { return s.DeleteRange(1, 2500) }, 1001, 3000},
		{"tail", func(s *Store) error { return s.DeleteRange(500, 3000) }, 1, 2000},
		{"all", func(s *Store) error { return s.DeleteRange(1, 3000) }, 1001, 3000},
		{"append", func(s *Store) error {
			var ls []*raft.Log
			for i := uint64(3001); i <= 3010; i++ {
				ls = append(ls, &raft.Log{Index: i, Data: make([]byte, 70<<10)})
			}
			return s.StoreLogs(ls)
		}, 1, 3002},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			s := openTest(t, dir)
			if err := s.StoreLogs(entries(1, 3000)); err != nil {
				t.Fatal(err)
			}
			s.crash = func() error { return crash }
			if err := c.do(s); !errors.Is(err, crash) {
				t.Fatalf("one transaction was enough: %v", err)
			}
			s.Close()
			wantBounds(t, openTest(t, dir), c.first, c.last)
		})
	}
}

// Plants one failed write: every later one fails too, so nothing is ordered on a
// disk that may have a hole (spec: outflows §2.4, C12).
func TestCrashC12_NoWriteAfterFailure(t *testing.T) {
	s := openTest(t, t.TempDir())
	disk := errors.New("input/output error")
	if err := s.write(1, func(*badger.Txn, int) error { return disk }); !errors.Is(err, disk) {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"StoreLogs":   s.StoreLogs(entries(1, 1)),
		"Set":         s.Set([]byte("k"), nil),
		"SetUint64":   s.SetUint64([]byte("k"), 1),
		"DeleteRange": s.write(1, func(*badger.Txn, int) error { return nil }),
	} {
		if !errors.Is(err, ErrBroken) || !errors.Is(err, disk) {
			t.Errorf("%s after a failed write: %v", name, err)
		}
	}
}

func BenchmarkStoreLogs(b *testing.B) {
	for _, n := range []uint64{1, 64, 256} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s, err := Open(b.TempDir())
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			data := make([]byte, 256)
			next := uint64(1)
			for b.Loop() {
				ls := make([]*raft.Log, n)
				for i := range ls {
					ls[i] = &raft.Log{Index: next, Term: 1, Data: data}
					next++
				}
				if err := s.StoreLogs(ls); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(next)/b.Elapsed().Seconds(), "entries/s")
		})
	}
}
