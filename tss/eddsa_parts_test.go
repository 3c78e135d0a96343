package tss_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"testing"

	eddsasigning "github.com/bnb-chain/tss-lib/v2/eddsa/signing"

	"github.com/coffer-network/coffer/tss"
	"github.com/coffer-network/coffer/tss/tsstest"
)

// D5: of three signers one sends a part that does not belong to its share. The
// library only finds that the sum does not verify and names nobody; here exactly
// the liar is suspected by both others, nobody is accused, and the others sign
// without it. Seen failing with "suspects [70cc356c 4be8c6ea]: failed: library, round 4:
// signature verification failed" without the check.
func TestBadPartOfASignatureNamesItsSender(t *testing.T) {
	_, nodes := tsstest.Cluster(t, cluster, 4, inChildren)
	shares, pub := tsstest.Deal(t, cluster, eddsaKey, 1, 2, 4, 3)
	tsstest.Activate(t, nodes, shares)
	nodes[1].Signer.Tamper(func(name string, _ int, payload []byte) []byte {
		if name != "D3" {
			return payload
		}
		return spoil(func(m *eddsasigning.SignRound3Message) { m.S = increment(m.S) })(payload)
	})
	r := signRequest(eddsaKey, []byte("m"), members(0, 1, 2)...)
	r.Tweak = sha256.Sum256([]byte("account"))
	r.Tweak[0] = 0
	r.Session = tss.SessionName(r)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _, _ = nodes[1].Signer.Sign(ctx, r) }()
	_, errs := signAll(pick(nodes, 0, 2), r)
	cancel()
	<-done
	for _, err := range errs {
		var b *tss.Blame
		if !errors.As(err, &b) || b.Proven || b.Check != "D5" || len(b.Culprits) != 1 || b.Culprits[0] != nodes[1].ID || len(b.Evidence) != 1 {
			t.Errorf("%v, want member 1 suspected by D5 with its envelope", err)
		}
	}
	r.Turn, r.Parties = 2, members(0, 2, 3)
	r.Session = tss.SessionName(r)
	sigs, errs := signAll(pick(nodes, 0, 2, 3), r)
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if err := tss.Verify(tss.Ed25519, pub, r.Tweak, r.Digest, sigs[0]); err != nil {
		t.Error(err)
	}
}
