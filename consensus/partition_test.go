package consensus

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// Fifty times the leader, or it and another, is cut off under load and comes
// back, now and then with a restart or by snapshot: everything acknowledged is
// in every log, in one order; promises stay on one chain; nobody halts.
func TestFiftyPartitions(t *testing.T) {
	virtual(t, 5, eagerSnapshots, func(t *testing.T, c *cluster) {
		c.start(c.members...)
		rng := rand.New(rand.NewPCG(1, 2))
		var acked []string
		elections := map[uint64]bool{}
		for round := range 50 {
			l := c.leader()
			elections[l.term()] = true
			lost := []*member{l}
			if round%3 == 0 {
				lost = append(lost, c.others(l)[rng.IntN(4)])
			}
			for _, m := range lost {
				c.cut(m, true)
			}
			rest := slices.DeleteFunc(slices.Clone(c.members), func(m *member) bool { return slices.Contains(lost, m) })
			for k := range 12 {
				tx := fmt.Sprint("x ", round, " ", k)
				c.submit(c.leader(rest...), tx)
				acked = append(acked, tx)
				if k%4 == 0 { // nor is anything acknowledged by the minority
					ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
					if _, err := l.Submit(ctx, fmt.Append(nil, "minority ", round, " ", k)); err == nil {
						t.Errorf("round %d: a cut-off leader acknowledged", round)
					} else if !errors.Is(err, ErrTimeout) && !errors.Is(err, ErrNoLeader) {
						t.Errorf("round %d: %v", round, err)
					}
					cancel()
				}
			}
			if round%5 == 4 {
				c.stop(l)
				c.start(l)
			}
			for _, m := range lost {
				c.cut(m, false)
			}
			c.submit(c.leader(), fmt.Sprint("healed ", round))
			c.agree(c.leader().Height(), c.members...)
		}
		for _, m := range c.members {
			texts := m.app.texts()
			for _, tx := range acked {
				if !slices.Contains(texts, tx) {
					t.Fatalf("member %d lost %q", m.n, tx)
				}
			}
			c.onOneChain(m)
			if m.Err() != nil {
				t.Error(m.Err())
			}
		}
		if len(elections) < 40 {
			t.Errorf("%d leaders only", len(elections))
		}
	})
}
