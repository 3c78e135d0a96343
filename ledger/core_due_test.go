package ledger

import (
	"testing"

	"github.com/coffer-network/coffer/ledger/fixed"
	"pgregory.net/rapid"
)

// Whatever order the facts about a sender come in, what it holds less what it
// owes is what the chain shows.
func TestSenderBalanceInAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s Sender
		var in, out uint64
		for range rapid.IntRange(1, 20).Draw(t, "facts") {
			wei := rapid.Uint64Range(0, 1<<40).Draw(t, "wei")
			if rapid.Bool().Draw(t, "received") {
				s, in = s.receive(fixed.New(wei)), in+wei
			} else {
				s, out = s.spend(fixed.New(wei)), out+wei
			}
			float, _ := s.Float.Uint64()
			due, _ := s.Due.Uint64()
			if float+out != due+in || float != 0 && due != 0 {
				t.Fatalf("float %d, due %d after %d in and %d out", float, due, in, out)
			}
		}
	})
}

// A key generation that nobody gives up on, though one member lost its part, is
// tried again at its deadline: before there is an epoch with keys too.
func TestKeygenDeadline(t *testing.T) {
	c := newCluster(t)
	c.tick(1000)
	c.tick(1000)
	first := c.nextKey(KeyECDSA1)
	if first.Try != 1 {
		t.Fatalf("planned %+v", first)
	}
	for range 2 * keygenMillis / 5000 {
		c.tick(5000)
	}
	if k := c.nextKey(KeyECDSA1); k.Try < 2 || k.Batch != first.Batch {
		t.Errorf("after the deadline: %+v", k)
	}
}
