package node

import (
	"context"
	"testing"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node/p2p"
	"github.com/coffer-network/coffer/tss"
)

// signatures.go, verifySignature: int(s.Input) of 2⁶³ is negative, passes the
// bound and panics. One member's message stops a node.
func TestRegressionInputBeyondInt(t *testing.T) {
	c, b := paying(t)
	n := nodeOf(t, c, 0)
	s := c.made(n, b, 0, 0)
	s.Input = 1 << 63
	if _, err := n.takeSignature(context.Background(), p2p.ID(idOf(c.keys[1])), ledger.Marshal(s)); err == nil {
		t.Error("taken")
	}
}

// signatures.go, verifySignature: the input of a test signature is not looked
// at, so one good signature fills memory and disk under any number of keys.
func TestRegressionTestSignatureUnderAnyInput(t *testing.T) {
	c := newCluster(t)
	c.tick(1000)
	c.tick(1000)
	for _, k := range c.s.Next.Keys {
		c.all(ledger.KindShareReady, c.ready(k))
	}
	n := nodeOf(t, c, 0)
	b := c.batch(c.s.Next.Keys[0].Tests[0])
	raw := c.test(b.ID).Signature
	s := signature{Batch: b.ID, Body: b.Newest().Body, Attempt: b.Newest().K, Parties: b.Newest().Committee(0)}
	s.Sig = tss.Signature{R: [32]byte(raw[:32]), S: [32]byte(raw[32:])}
	for _, input := range []uint64{1, 1 << 16, 1 << 40} {
		s.Input = input
		if _, err := n.takeSignature(context.Background(), p2p.ID(idOf(c.keys[1])), ledger.Marshal(s)); err == nil {
			t.Errorf("input %d: taken", input)
		}
	}
	if len(n.sigs) != 0 {
		t.Errorf("%d signatures kept", len(n.sigs))
	}
}

// signatures.go, takeSignature: with another attempt's number the parties are
// not compared with any committee, and the first stays, so a lying member
// decides whom this node names as signers.
func TestRegressionPartiesOfAnyAttempt(t *testing.T) {
	c, b := paying(t)
	n := nodeOf(t, c, 0)
	s := c.made(n, b, 0, 0)
	s.Attempt, s.Parties = 99, []ledger.MemberID{{1}, {2}}
	if _, err := n.takeSignature(context.Background(), p2p.ID(idOf(c.keys[1])), ledger.Marshal(s)); err == nil {
		got, _ := n.signature(s.key())
		t.Errorf("taken with attempt %d and parties %v", got.Attempt, got.Parties)
	}
}
