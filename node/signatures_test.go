package node

import (
	"slices"
	"testing"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/tss"
)

// Plants a restart after a signature is stored and before it is told (spec: outflows
// §2.4, C5).
// What a node records of a signature, its parties above all, outlives the
// node's memory and the signing room's own record of the same attempt.
func TestCrashC05_SignatureRecordIsKept(t *testing.T) {
	c := newCluster(t)
	n := nodeOf(t, c, 0)
	s := signature{Batch: 7, Body: 0, Attempt: 0, Turn: 2, Parties: []ledger.MemberID{n.self, {9}}, Sig: tss.Signature{R: [32]byte{1}, S: [32]byte{2}}}
	if err := n.keys.SaveSignature(s.Batch, s.Attempt, uint16(s.Input), []byte("the signing room's")); err != nil {
		t.Fatal(err)
	}
	if err := n.addSignature(s); err != nil {
		t.Fatal(err)
	}
	clear(n.sigs) // the batch is settled, or the node restarted
	got, ok := n.signature(s.key())
	if !ok || !slices.Equal(got.Parties, s.Parties) || got.Sig != s.Sig || got.Turn != s.Turn {
		t.Errorf("kept %+v, %v; want %+v", got, ok, s)
	}
	other := s
	other.Turn, other.Sig.R = 3, [32]byte{3}
	if err := n.addSignature(other); err != nil {
		t.Fatal(err)
	}
	if got, _ := n.signature(s.key()); got.Turn != s.Turn {
		t.Error("a later signature of the same bytes took the first one's place")
	}
	if _, ok := n.signature(inputKey{batch: 7, body: 1}); ok {
		t.Error("another transaction of the batch has a signature nobody made")
	}
}
