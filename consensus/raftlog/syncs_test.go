package raftlog

import (
	"testing"
	"time"
)

// What one slow sync alone, many, an old one and one under way come to. Planted:
// the plain percentile of what has ended, without the one that is forgiven ("one
// hiccup of a quiet cluster: 5s"), the one under way ("a disk that hangs: 0s")
// or the window ("slow, eleven seconds ago: 300ms").
func TestSyncP99(t *testing.T) {
	const ms = time.Millisecond
	start := time.Now()
	many := func(n int, took time.Duration) (all []time.Duration) {
		for range n {
			all = append(all, took)
		}
		return all
	}
	for name, tc := range map[string]struct {
		took  []time.Duration // all ended at the start
		under time.Duration   // of the one under way; 0: none
		after time.Duration
		want  time.Duration
	}{
		"none":                               {},
		"one hiccup of a quiet cluster":      {took: []time.Duration{5 * time.Second}, after: ms},
		"two are no hiccup":                  {took: []time.Duration{ms, 300 * ms, 300 * ms}, after: ms, want: 300 * ms},
		"one of 199":                         {took: append(many(198, 2*ms), time.Second), after: ms, want: 2 * ms},
		"two of 200":                         {took: append(many(198, 2*ms), time.Second, time.Second), after: ms, want: 2 * ms},
		"three of 200":                       {took: append(many(197, 2*ms), time.Second, time.Second, time.Second), after: ms, want: time.Second},
		"slow, nine seconds ago":             {took: many(3, 300*ms), after: 9 * time.Second, want: 300 * ms},
		"slow, eleven seconds ago":           {took: many(3, 300*ms), after: 11 * time.Second},
		"a disk that hangs":                  {took: many(3, ms), under: time.Minute, after: 11 * time.Second, want: time.Minute},
		"one under way that is fast so far":  {took: many(3, 9*ms), under: 2 * ms, after: 2 * ms, want: 9 * ms},
		"more than are remembered, then few": {took: append(many(maxSyncs, time.Second), many(maxSyncs, ms)...), after: ms, want: ms},
	} {
		var s syncs
		for _, took := range tc.took {
			s.begins(start.Add(-took))
			s.ends(start)
		}
		if tc.under > 0 {
			s.begins(start.Add(tc.after - tc.under))
		}
		if got := s.p99(start.Add(tc.after)); got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
		if len(s.ring) > maxSyncs {
			t.Errorf("%s: %d are kept", name, len(s.ring))
		}
	}
}

// The store measures its own syncs. Seen failing with a sync that is not measured
// ("0s for syncs of 20 ms").
func TestStoreMeasuresItsSyncs(t *testing.T) {
	s := openTest(t, t.TempDir())
	s.sync = func() error { time.Sleep(20 * time.Millisecond); return s.db.Sync() }
	for i := uint64(1); i <= 3; i++ {
		if err := s.StoreLog(entry(i)); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.SyncP99(); got < 20*time.Millisecond {
		t.Errorf("%s for syncs of 20 ms", got)
	}
}
