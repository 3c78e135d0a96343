package consensus

import (
	"fmt"
	"sync"
	"testing"
)

// Every member hears of every command, before it is applied; one that does not
// listen holds up nobody, itself included.
func TestArrivedBeforeApply(t *testing.T) {
	virtual(t, 3, Settings{}, func(t *testing.T, c *cluster) {
		var mu sync.Mutex
		heard := map[int]map[string]bool{}
		blocked := make(chan struct{})
		for i, m := range c.members {
			heard[i] = map[string]bool{}
			m.arrived = func(txs [][]byte) {
				if i == 2 {
					<-blocked
				}
				mu.Lock()
				defer mu.Unlock()
				for _, tx := range txs {
					heard[i][string(tx)] = true
				}
			}
		}
		c.start(c.members...)
		leader := c.leader()
		release := leader.app.hold() // nothing is applied here
		done := make(chan error, 1)
		go func() {
			_, err := leader.Submit(t.Context(), []byte("early"))
			done <- err
		}()
		c.eventually("the leader and a follower have heard of it", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return heard[0]["early"] && heard[1]["early"]
		})
		if leader.Height() != 0 {
			t.Error("it was applied first")
		}
		leader.app.gate.Store(nil)
		release()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		for i := range 2 * maxArrived { // more than wait for the member that hears nothing
			c.submit(leader, fmt.Sprint("many ", i))
		}
		c.agree(2*maxArrived+1, c.members...)
		close(blocked)
	})
}

// What is replayed after a start is told too, and what is applied already is not.
func TestArrivedAtReplay(t *testing.T) {
	virtual(t, 3, Settings{}, func(t *testing.T, c *cluster) {
		c.start(c.members...)
		for i := range 5 {
			c.submit(c.leader(), fmt.Sprint("old ", i))
		}
		c.agree(5, c.members...)
		var mu sync.Mutex
		heard := map[string]bool{}
		m := c.follower()
		c.stop(m)
		m.arrived = func(txs [][]byte) {
			mu.Lock()
			defer mu.Unlock()
			for _, tx := range txs {
				heard[string(tx)] = true
			}
		}
		c.start(m)
		c.agree(5, c.members...)
		c.eventually("the replayed commands were told", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(heard) == 5
		})
	})
}
