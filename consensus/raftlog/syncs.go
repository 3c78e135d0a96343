package raftlog

import (
	"slices"
	"sync"
	"time"
)

const (
	syncWindow = 10 * time.Second // spec: consensus §9
	// maxSyncs are remembered, newest first: who makes more within the window has
	// a disk that needs 2.5 ms for one.
	maxSyncs = 4096
)

// syncs remembers how long the last syncs took.
type syncs struct {
	mu    sync.Mutex
	ring  []synced
	next  int
	since time.Time // when the one under way began; zero: none
}

type synced struct {
	at   time.Time // when it ended
	took time.Duration
}

func (s *syncs) begins(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since = now
}

func (s *syncs) ends(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := synced{now, now.Sub(s.since)}
	s.since = time.Time{}
	if len(s.ring) < maxSyncs {
		s.ring = append(s.ring, x)
		return
	}
	s.ring[s.next] = x
	s.next = (s.next + 1) % maxSyncs
}

// p99 is what all syncs that ended within the window before now took at most but
// for one in a hundred, and for one alone where there are fewer: a quiet cluster
// has a handful, and one hiccup is not a slow disk. The one under way is not
// forgiven, if it takes longer already: a disk that hangs ends none.
func (s *syncs) p99(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	var took []time.Duration
	for _, x := range s.ring {
		if now.Sub(x.at) < syncWindow {
			took = append(took, x.took)
		}
	}
	var p99 time.Duration
	if beyond := max(1, len(took)/100); len(took) > beyond {
		slices.Sort(took)
		p99 = took[len(took)-1-beyond]
	}
	if !s.since.IsZero() {
		p99 = max(p99, now.Sub(s.since))
	}
	return p99
}

// SyncP99 is the 99th percentile of how long syncs of the last ten seconds took;
// 0 while there are none. One slow sync alone does not raise it once it is over.
func (s *Store) SyncP99() time.Duration { return s.syncs.p99(time.Now()) }
