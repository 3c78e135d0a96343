package consensus

import (
	"fmt"
	"testing"
	"time"
)

// A replica that forgot its votes takes part in no election: of four members
// with one cut off a majority needs its vote, and there is no leader for an hour.
// When the fourth is back the forgetful one follows and applies like any other.
// Seen failing with "… leads by the vote of a replica that forgot" without the
// fence's part.
func TestForgetfulReplicaDoesNotVote(t *testing.T) {
	virtual(t, 4, Settings{}, func(t *testing.T, c *cluster) {
		c.start(c.members...)
		for i := range 5 {
			c.submit(c.leader(), fmt.Sprint("x ", i))
		}
		c.agree(5, c.members...)
		f, gone := c.follower(), c.leader()
		f.lost.Store(true)
		c.cut(gone, true)
		time.Sleep(time.Hour)
		for _, m := range c.others(gone) {
			if m.Leading() {
				t.Errorf("%s leads by the vote of a replica that forgot", m.id)
			}
		}
		c.cut(gone, false)
		c.submit(c.leader(), "y")
		c.agree(6, c.members...)
		if f.Leading() {
			t.Error("a replica that forgot leads")
		}
	})
}
