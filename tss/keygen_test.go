package tss_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/gagliardetto/solana-go"
	"github.com/gagliardetto/solana-go/programs/system"

	"github.com/coffer-network/coffer/tss"
	"github.com/coffer-network/coffer/tss/keystore"
	"github.com/coffer-network/coffer/tss/tsstest"
)

func keygenRequest(key tss.KeyID, n, m int) tss.Request {
	r := tss.Request{
		Cluster: cluster, Kind: tss.Keygen, Key: key, Epoch: 1, Try: 2, Batch: 1, Attempt: 2,
		Parties: tsstest.Parties(n), M: m, Deadline: 3 * time.Minute, // of a loaded machine under the race detector
	}
	r.Session = tss.SessionName(r)
	return r
}

// keygenAll runs a keygen at all members and checks what they agree on.
func keygenAll(t *testing.T, nodes []tsstest.Node, r tss.Request) tss.KeygenResult {
	t.Helper()
	results, errs := make([]tss.KeygenResult, len(nodes)), make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() { results[i], errs[i] = n.Signer.Keygen(context.Background(), r) })
	}
	wg.Wait()
	for i, n := range nodes {
		if errs[i] != nil {
			t.Fatalf("member %d: %v", i, errs[i])
		}
		if string(results[i].Pub) != string(results[0].Pub) || results[i].TranscriptHash != results[0].TranscriptHash ||
			results[i].TranscriptHash == [32]byte{} {
			t.Fatalf("member %d made %x, transcript %x; member 0 %x, %x", i,
				results[i].Pub, results[i].TranscriptHash, results[0].Pub, results[0].TranscriptHash)
		}
		if _, state, err := n.Keystore.KeyShare(results[i].ID); err != nil || state != keystore.Staged {
			t.Fatalf("member %d: share is %v, %v", i, state, err)
		}
	}
	return results[0]
}

func TestEd25519KeygenAndSign(t *testing.T) {
	_, nodes := tsstest.Cluster(t, cluster, 4, patient)
	made := keygenAll(t, nodes, keygenRequest(eddsaKey, 4, 3))
	committee := nodes[1:]
	ids := []tss.PartyID{nodes[1].ID, nodes[2].ID, nodes[3].ID}

	message := []byte{0, 0, 1, 2} // leading zeros are lost without fullBytesLen
	r := signRequest(eddsaKey, message, ids...)
	if _, errs := signAll(committee[:1], r); !errors.Is(errs[0], tss.ErrNoKeyShare) {
		t.Errorf("signed for value with a staged share: %v", errs[0])
	}
	r.Staged = true // the first test signature
	sigs, errs := signAll(committee, r)
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if err := tss.Verify(tss.Ed25519, made.Pub, [32]byte{}, message, sigs[0]); err != nil {
		t.Error(err)
	}
	for _, n := range nodes {
		if err := n.Keystore.Activate(made.ID); err != nil {
			t.Fatal(err)
		}
	}

	// A Solana transfer from a derived account: solana-go builds the message
	// and verifies the signature, and shares no code with what signed.
	tweak := sha256.Sum256([]byte("sol/hot"))
	tweak[0] = 0 // below the order
	child, err := tss.ChildKey(tss.Ed25519, made.Pub, tweak)
	if err != nil {
		t.Fatal(err)
	}
	from := solana.PublicKeyFromBytes(child)
	tx, err := solana.NewTransaction(
		[]solana.Instruction{system.NewTransferInstruction(1, from, solana.SystemProgramID).Build()},
		solana.Hash{1}, solana.TransactionPayer(from))
	if err != nil {
		t.Fatal(err)
	}
	body, err := tx.Message.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	r = signRequest(eddsaKey, body, ids...)
	r.Tweak, r.Turn = tweak, 1
	r.Session = tss.SessionName(r)
	sigs, errs = signAll(committee, r)
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	tx.Signatures = []solana.Signature{solana.Signature(sigs[0].Bytes())}
	if err := tx.VerifySignatures(); err != nil {
		t.Errorf("solana-go: %v", err)
	}
	if !from.Verify(body, solana.SignatureFromBytes(sigs[0].Bytes())) {
		t.Error("solana-go refuses the signature")
	}
}

// The whole of GG18 keygen with real proofs, then a signature with the shares
// it made.
func TestECDSAKeygenTwoOfThree(t *testing.T) {
	if testing.Short() {
		t.Skip("about 25 CPU seconds")
	}
	_, nodes := tsstest.Cluster(t, cluster, 3, inChildren)
	r := keygenRequest(ecdsaKey, 3, 2)
	if _, err := nodes[0].Signer.Keygen(context.Background(), r); !errors.Is(err, tss.ErrNoPreParams) {
		t.Fatalf("keygen without pre-parameters: %v", err)
	}
	for i, n := range nodes {
		if err := tss.StorePreParams(n.Keystore, tsstest.PreParams(3)[i]); err != nil {
			t.Fatal(err)
		}
	}
	made := keygenAll(t, nodes, r)
	for _, n := range nodes {
		if left, err := n.Keystore.PreParams(); left != 0 || err != nil {
			t.Errorf("%d sets of pre-parameters left, %v", left, err)
		}
		if err := n.Keystore.Activate(made.ID); err != nil {
			t.Fatal(err)
		}
	}
	digest := sha256.Sum256([]byte("x"))
	sigs, errs := signAll(nodes[:2], signRequest(ecdsaKey, digest[:], nodes[0].ID, nodes[1].ID))
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if err := tss.Verify(tss.Secp256k1, made.Pub, [32]byte{}, digest[:], sigs[0]); err != nil {
		t.Error(err)
	}
}

func TestKeygenNamesWhoDidNotCome(t *testing.T) {
	_, nodes := tsstest.Cluster(t, cluster, 3, func(_ int, c *tss.Config) { c.KeygenJoinWait = 300 * time.Millisecond })
	_, err := nodes[0].Signer.Keygen(context.Background(), keygenRequest(eddsaKey, 3, 2))
	var blame *tss.Blame
	if !errors.As(err, &blame) || blame.Reason != tss.NotJoined || blame.Proven || len(blame.Culprits) != 2 {
		t.Errorf("got %v, want both others named", err)
	}
}
