package tss_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/coffer-network/coffer/tss"
	"github.com/coffer-network/coffer/tss/keystore"
	"github.com/coffer-network/coffer/tss/tsstest"
)

var (
	cluster  = [32]byte{0xc0}
	ecdsaKey = tss.KeyID{ID: "k1", Curve: tss.Secp256k1}
	eddsaKey = tss.KeyID{ID: "e1", Curve: tss.Ed25519}
)

func signRequest(key tss.KeyID, digest []byte, parties ...tss.PartyID) tss.Request {
	r := tss.Request{
		Cluster: cluster, Kind: tss.Sign, Key: key, Epoch: 1, Try: 2, At: [32]byte{9},
		Batch: 7, Attempt: 3, Input: 1, Parties: parties, Digest: digest, Deadline: 3 * time.Minute, // of a loaded machine under the race detector
	}
	r.Session = tss.SessionName(r)
	return r
}

// signAll lets the named members run r at the same time.
func signAll(nodes []tsstest.Node, r tss.Request) ([]tss.Signature, []error) {
	sigs, errs := make([]tss.Signature, len(nodes)), make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() { sigs[i], errs[i] = n.Signer.Sign(context.Background(), r) })
	}
	wg.Wait()
	return sigs, errs
}

func patient(_ int, c *tss.Config) { c.JoinWait, c.SilenceMin = time.Minute, time.Minute }

func TestECDSASignThreeOfFour(t *testing.T) {
	_, nodes := tsstest.Cluster(t, cluster, 4, patient)
	shares, pub := tsstest.Deal(t, cluster, ecdsaKey, 1, 2, 4, 3)
	tsstest.Activate(t, nodes, shares)
	before := digests(t, nodes)
	committee := []tsstest.Node{nodes[3], nodes[0], nodes[2]}
	for i, tweak := range [][32]byte{{}, sha256.Sum256([]byte("account"))} {
		digest := sha256.Sum256([]byte{byte(i)})
		digest[0] = 0 // dropped without fullBytesLen
		r := signRequest(ecdsaKey, digest[:], nodes[3].ID, nodes[0].ID, nodes[2].ID)
		r.Tweak, r.Input = tweak, uint16(i)
		r.Session = tss.SessionName(r)
		sigs, errs := signAll(committee, r)
		for j := range sigs {
			if errs[j] != nil {
				t.Fatalf("tweak %d party %d: %v", i, j, errs[j])
			}
			if sigs[j] != sigs[0] {
				t.Errorf("parties have different signatures")
			}
			stored, ok, err := committee[j].Signer.Finished(7, 3, uint16(i))
			if err != nil || !ok || stored != sigs[j] {
				t.Errorf("stored signature: %v, %t, %v", stored, ok, err)
			}
		}
		if err := tss.Verify(tss.Secp256k1, pub, tweak, digest[:], sigs[0]); err != nil {
			t.Error(err)
		}
		if tweak != [32]byte{} && tss.Verify(tss.Secp256k1, pub, [32]byte{}, digest[:], sigs[0]) == nil {
			t.Error("child's signature verifies under the master key")
		}
		if _, errs := signAll(committee[:1], r); !errors.Is(errs[0], tss.ErrJoined) {
			t.Errorf("second run of one session: %v", errs[0])
		}
	}
	if after := digests(t, nodes); after != before {
		t.Error("derived signatures changed a master key share")
	}
}

// digests identifies all members' shares as their keystores give them now.
func digests(t *testing.T, nodes []tsstest.Node) [4][32]byte {
	t.Helper()
	var out [4][32]byte
	for i, n := range nodes {
		list, err := n.Keystore.Shares()
		if err != nil || len(list) != 1 {
			t.Fatal(list, err)
		}
		s, state, err := n.Keystore.KeyShare(list[0].ID)
		if err != nil || state != keystore.Active {
			t.Fatal(state, err)
		}
		out[i] = s.Digest()
	}
	return out
}
