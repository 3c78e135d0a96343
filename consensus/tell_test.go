package consensus

import (
	"context"
	"testing"
	"time"

	"github.com/coffer-network/coffer/consensus/malice"
)

// A client of a follower hears of its command as soon as it is committed, however seldom
// raft says so, and though the follower gets entries later than the word that they are
// committed. Planted: nobody is told; nobody is told again.
func TestFollowerHearsOfACommitAtOnce(t *testing.T) {
	virtual(t, 4, Settings{CommitTimeout: time.Minute}, func(t *testing.T, c *cluster) {
		c.start(c.members...)
		f := c.follower()
		c.submit(f, "first") // which may wait for the barrier of a new leader
		for _, delay := range []time.Duration{0, time.Millisecond, 4 * time.Millisecond} {
			c.leader().liar.Lie(malice.Rules{Rewrite: func(to string, _ *malice.Entry) {
				if to == address(f.id) {
					time.Sleep(delay)
				}
			}})
			for _, tx := range []string{"a", "b", "c"} {
				begun := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), within)
				if _, err := f.Submit(ctx, []byte(tx)); err != nil {
					t.Fatal(err)
				}
				cancel()
				if took := time.Since(begun); took > 50*time.Millisecond {
					t.Errorf("%s, entries %s late: applied by a follower after %s", tx, delay, took)
				}
			}
		}
	})
}
