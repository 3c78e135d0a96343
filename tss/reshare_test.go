package tss_test

import (
	"bytes"
	"context"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/bnb-chain/tss-lib/v2/crypto"
	"github.com/bnb-chain/tss-lib/v2/crypto/commitments"
	"github.com/bnb-chain/tss-lib/v2/crypto/vss"
	ecdsakeygen "github.com/bnb-chain/tss-lib/v2/ecdsa/keygen"
	ecdsareshare "github.com/bnb-chain/tss-lib/v2/ecdsa/resharing"
	eddsareshare "github.com/bnb-chain/tss-lib/v2/eddsa/resharing"
	lib "github.com/bnb-chain/tss-lib/v2/tss"

	"github.com/coffer-network/coffer/tss"
	"github.com/coffer-network/coffer/tss/keystore"
	"github.com/coffer-network/coffer/tss/tsstest"
)

// members returns the ids of test members.
func members(is ...int) []tss.PartyID {
	var ps []tss.PartyID
	for _, i := range is {
		ps = append(ps, tsstest.Party(i))
	}
	return ps
}

func reshareRequest(key tss.KeyID, from tss.Generation, epoch uint64, m int, parties ...tss.PartyID) tss.Request {
	r := tss.Request{
		Cluster: cluster, Kind: tss.Reshare, Key: key, Epoch: epoch, Try: 1, At: [32]byte{8},
		Batch: 40 + epoch, Attempt: 1, Parties: parties, M: m, From: from,
	}
	r.Session = tss.SessionName(r)
	return r
}

// reshareAll runs a resharing at the named members and checks what they agree
// on.
func reshareAll(t *testing.T, nodes []tsstest.Node, r tss.Request) tss.KeygenResult {
	t.Helper()
	results, errs := reshareSome(nodes, r)
	var made tss.KeygenResult
	for i, n := range nodes {
		if errs[i] != nil {
			t.Fatalf("member %d: %v", i, errs[i])
		}
		if results[i].TranscriptHash != results[0].TranscriptHash || results[i].TranscriptHash == [32]byte{} {
			t.Fatalf("member %d has transcript %x, member 0 %x", i, results[i].TranscriptHash, results[0].TranscriptHash)
		}
		if !bytes.Equal(results[i].Pub, r.From.Pub) {
			t.Fatalf("member %d has key %x, want %x", i, results[i].Pub, r.From.Pub)
		}
		if results[i].ID.Key == "" {
			continue // dealt only
		}
		made = results[i]
		s, state, err := n.Keystore.KeyShare(made.ID)
		if err != nil || state != keystore.Staged {
			t.Fatalf("member %d: share is %v, %v", i, state, err)
		}
		if err := tss.Audit(&s, cluster, n.ID); err != nil {
			t.Fatalf("member %d: %v", i, err)
		}
	}
	return made
}

func reshareSome(nodes []tsstest.Node, r tss.Request) ([]tss.KeygenResult, []error) {
	results, errs := make([]tss.KeygenResult, len(nodes)), make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() { results[i], errs[i] = n.Signer.Reshare(context.Background(), r) })
	}
	wg.Wait()
	return results, errs
}

// pick returns some nodes.
func pick(nodes []tsstest.Node, is ...int) []tsstest.Node {
	var out []tsstest.Node
	for _, i := range is {
		out = append(out, nodes[i])
	}
	return out
}

func idsOf(nodes []tsstest.Node) []tss.PartyID {
	var ids []tss.PartyID
	for _, n := range nodes {
		ids = append(ids, n.ID)
	}
	return ids
}

// childSigns has some members sign under a derived child with the KeyShares of
// an epoch, and verifies with an implementation that knows nothing of epochs.
func childSigns(t *testing.T, nodes []tsstest.Node, key tss.KeyID, pub []byte, epoch, try uint64) []byte {
	t.Helper()
	tweak := sha256.Sum256([]byte("account"))
	tweak[0] = 0
	child, err := tss.ChildKey(key.Curve, pub, tweak)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(append([]byte("pay"), byte(epoch)))
	r := signRequest(key, digest[:], idsOf(nodes)...)
	r.Epoch, r.Try, r.Tweak, r.Batch = epoch, try, tweak, 1000+epoch
	r.Session = tss.SessionName(r)
	sigs, errs := signAll(nodes, r)
	if err := errors.Join(errs...); err != nil {
		t.Fatalf("epoch %d: %v", epoch, err)
	}
	if err := tss.Verify(key.Curve, pub, tweak, digest[:], sigs[0]); err != nil {
		t.Fatalf("epoch %d: %v", epoch, err)
	}
	return child
}

func activate(t *testing.T, nodes []tsstest.Node, id keystore.ShareID) {
	t.Helper()
	for _, n := range nodes {
		if err := n.Keystore.Activate(id); err != nil {
			t.Fatal(err)
		}
	}
}

// One key lives through growing, shrinking and a wholly new committee; dealers
// are at the least m, in one step more. Addresses stay, and each epoch's
// KeyShares sign until they are wiped. Seen failing with "own secret share out
// of range" without the reduction of Xi, and with "deadline" when a receiver
// refused round 2 of its peers because it sends nothing in round 1.
func TestEd25519ReshareKeepsTheKey(t *testing.T) {
	_, nodes := tsstest.Cluster(t, cluster, 7, inChildren)
	shares, pub := tsstest.Deal(t, cluster, eddsaKey, 1, 2, 4, 3)
	tsstest.Activate(t, nodes, shares)
	first := childSigns(t, pick(nodes, 0, 1, 2), eddsaKey, pub, 1, 2)

	gen := tss.Generation{Epoch: 1, Try: 2, M: 3, Pub: pub}
	for _, step := range []struct {
		name    string
		dealers []int
		parties []int
		m       int
	}{
		{"refresh", []int{0, 1, 2, 3}, []int{0, 1, 2, 3}, 3},
		{"one leaves, three join, m grows", []int{0, 1, 2}, []int{1, 2, 3, 4, 5, 6, 0}, 4},
		{"m and n shrink", []int{6, 5, 4, 3}, []int{4, 5, 6}, 2},
		{"a wholly new committee", []int{5, 4}, []int{0, 1, 2, 3}, 3},
	} {
		epoch := gen.Epoch + 3 // numbers may be used up in between
		gen.Holders = members(step.dealers...)
		r := reshareRequest(eddsaKey, gen, epoch, step.m, members(step.parties...)...)
		in := map[int]bool{}
		for _, i := range append(step.dealers, step.parties...) {
			in[i] = true
		}
		var all []int
		for i := range nodes {
			if in[i] {
				all = append(all, i)
			}
		}
		made := reshareAll(t, pick(nodes, all...), r)
		activate(t, pick(nodes, step.parties...), made.ID)
		if child := childSigns(t, pick(nodes, step.parties[:step.m]...), eddsaKey, pub, epoch, 1); !bytes.Equal(child, first) {
			t.Errorf("%s: another address", step.name)
		}
		gen = tss.Generation{Epoch: epoch, Try: 1, M: step.m, Pub: pub}
	}
	// The library zeroes the share it deals from; it was given a copy.
	digest := sha256.Sum256([]byte("old"))
	r := signRequest(eddsaKey, digest[:], members(0, 1, 3)...)
	if _, errs := signAll(pick(nodes, 0, 1, 3), r); errors.Join(errs...) != nil {
		t.Errorf("the first epoch's shares no longer sign: %v", errors.Join(errs...))
	}
}

// The whole of ECDSA resharing with real proofs: 2-of-3 of members 0 to 2
// becomes 2-of-3 of 1, 2 and 3. Member 0 only deals, 1 does both, 2 holds an old
// share and does not deal, 3 is new. Then old and new shares are mixed, in two
// ways, and give no signature.
func TestECDSAReshareAndMixedShares(t *testing.T) {
	if testing.Short() {
		t.Skip("about 40 CPU seconds")
	}
	_, nodes := tsstest.Cluster(t, cluster, 4, inChildren)
	shares, pub := tsstest.Deal(t, cluster, ecdsaKey, 1, 2, 3, 2)
	tsstest.Activate(t, nodes, shares)
	before := childSigns(t, pick(nodes, 0, 2), ecdsaKey, pub, 1, 2)
	gen := tss.Generation{Epoch: 1, Try: 2, M: 2, Pub: pub, Holders: members(0, 1)}
	r := reshareRequest(ecdsaKey, gen, 2, 2, members(1, 2, 3)...)
	if _, err := nodes[3].Signer.Reshare(context.Background(), r); !errors.Is(err, tss.ErrNoPreParams) {
		t.Fatalf("resharing without pre-parameters: %v", err)
	}
	for i := 1; i <= 3; i++ {
		if err := tss.StorePreParams(nodes[i].Keystore, tsstest.PreParams(8)[4+i]); err != nil {
			t.Fatal(err)
		}
	}
	made := reshareAll(t, nodes, r)
	activate(t, nodes[1:], made.ID)
	for i := 1; i <= 3; i++ {
		if left, err := nodes[i].Keystore.PreParams(); left != 0 || err != nil {
			t.Errorf("member %d has %d sets of pre-parameters left, %v", i, left, err)
		}
	}
	if after := childSigns(t, pick(nodes, 1, 3), ecdsaKey, pub, 2, 1); !bytes.Equal(before, after) {
		t.Error("another address")
	}
	if again := signsAgain(t, pick(nodes, 0, 1), ecdsaKey, pub); again != nil {
		t.Errorf("the old epoch no longer signs: %v", again)
	}
	mixedShares(t, ecdsaKey, pub, nodes[1], nodes[2], shares[nodes[1].ID], made.ID)
}

// signsAgain signs with epoch 1 once more.
func signsAgain(t *testing.T, nodes []tsstest.Node, key tss.KeyID, pub []byte) error {
	t.Helper()
	digest := sha256.Sum256([]byte("again"))
	r := signRequest(key, digest[:], idsOf(nodes)...)
	r.Batch = 5000
	r.Session = tss.SessionName(r)
	sigs, errs := signAll(nodes, r)
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return tss.Verify(key.Curve, pub, [32]byte{}, digest[:], sigs[0])
}

// mixedShares lets liar sign with the secret of its old share inside the public
// half of the new one: all that m-1 new holders and one old one could try.
func mixedShares(t *testing.T, key tss.KeyID, pub []byte, honest, liar tsstest.Node, old keystore.KeyShare, id keystore.ShareID) {
	t.Helper()
	made, _, err := liar.Keystore.KeyShare(id)
	if err != nil {
		t.Fatal(err)
	}
	var a, b map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal(made.Secret, &a), json.Unmarshal(old.Secret, &b)); err != nil {
		t.Fatal(err)
	}
	a["Xi"] = b["Xi"]
	if made.Secret, err = json.Marshal(a); err != nil {
		t.Fatal(err)
	}
	made.ID.Try = 77
	if err := liar.Keystore.StageKeyShare(made); err != nil {
		t.Fatal(err)
	}
	activated, _, err := honest.Keystore.KeyShare(id)
	if err != nil {
		t.Fatal(err)
	}
	activated.ID.Try = 77
	if err := honest.Keystore.StageKeyShare(activated); err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("mixed"))
	r := signRequest(key, digest[:], honest.ID, liar.ID)
	r.Epoch, r.Try, r.Staged, r.Batch = id.Epoch, 77, true, 6000
	r.Session = tss.SessionName(r)
	sigs, errs := signAll([]tsstest.Node{honest, liar}, r)
	for i := range sigs {
		if errs[i] == nil {
			t.Errorf("party %d signed with an old share among new ones: %v", i,
				tss.Verify(key.Curve, pub, [32]byte{}, digest[:], sigs[i]))
		}
		if _, ok, _ := []tsstest.Node{honest, liar}[i].Signer.Finished(6000, r.Attempt, r.Input); ok {
			t.Errorf("party %d stored a signature", i)
		}
	}
}

// Shares of two epochs never meet in one session, whatever the members call
// them, and an old secret under a new name gives no signature.
func TestEd25519MixedShares(t *testing.T) {
	_, nodes := tsstest.Cluster(t, cluster, 2, func(_ int, c *tss.Config) { c.JoinWait = 300 * time.Millisecond })
	shares, pub := tsstest.Deal(t, cluster, eddsaKey, 1, 2, 2, 2)
	tsstest.Activate(t, nodes, shares)
	gen := tss.Generation{Epoch: 1, Try: 2, M: 2, Pub: pub, Holders: members(0, 1)}
	made := reshareAll(t, nodes, reshareRequest(eddsaKey, gen, 2, 2, members(0, 1)...))
	activate(t, nodes, made.ID)

	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() {
			r := signRequest(eddsaKey, []byte("m"), members(0, 1)...)
			r.Epoch, r.Try = uint64(1+i), uint64(2-i)
			r.Session = tss.SessionName(r)
			_, err := n.Signer.Sign(context.Background(), r)
			wantBlame(t, err, tss.NotJoined, tsstest.Party(1-i))
		})
	}
	wg.Wait()
	// The old share under the new epoch's name: its party keys are others.
	old := shares[nodes[0].ID]
	old.ID.Epoch, old.ID.Try = 2, 9
	if err := nodes[0].Keystore.StageKeyShare(old); err != nil {
		t.Fatal(err)
	}
	r := signRequest(eddsaKey, []byte("m"), members(0, 1)...)
	r.Epoch, r.Try, r.Staged = 2, 9, true
	r.Session = tss.SessionName(r)
	if _, err := nodes[0].Signer.Sign(context.Background(), r); !errors.Is(err, tss.ErrNoKeyShare) {
		t.Errorf("signed with a renamed old share: %v", err)
	}
	mixedShares(t, eddsaKey, pub, nodes[0], nodes[1], shares[nodes[1].ID], made.ID)
}

func TestRequestsThatNoResharingIsRunFor(t *testing.T) {
	_, nodes := tsstest.Cluster(t, cluster, 4, nil)
	shares, pub := tsstest.Deal(t, cluster, eddsaKey, 1, 2, 3, 2)
	tsstest.Activate(t, nodes[:3], shares)
	for what, change := range map[string]func(*tss.Request){
		"same epoch":             func(r *tss.Request) { r.Epoch = 1 },
		"fewer than m dealers":   func(r *tss.Request) { r.From.Holders = members(0) },
		"dealer twice":           func(r *tss.Request) { r.From.Holders = members(0, 0) },
		"party twice":            func(r *tss.Request) { r.Parties = members(0, 1, 1) },
		"dealer without a share": func(r *tss.Request) { r.From.Holders = members(0, 3) },
		"other old threshold":    func(r *tss.Request) { r.From.M = 3; r.From.Holders = members(0, 1, 2) },
		"m of 1":                 func(r *tss.Request) { r.M = 1 },
		"m above n":              func(r *tss.Request) { r.M = 5 },
		"another key":            func(r *tss.Request) { r.From.Pub = bytes.Clone(pub); r.From.Pub[0] ^= 1 },
		"no key":                 func(r *tss.Request) { r.From.Pub = nil },
		"unknown old try":        func(r *tss.Request) { r.From.Try = 3 },
		"a digest":               func(r *tss.Request) { r.Digest = []byte("x") },
		"other kind":             func(r *tss.Request) { r.Kind = tss.Keygen },
	} {
		r := reshareRequest(eddsaKey, tss.Generation{Epoch: 1, Try: 2, M: 2, Pub: pub, Holders: members(0, 1)}, 2, 2, members(0, 1, 3)...)
		change(&r)
		r.Session = tss.SessionName(r)
		if _, err := nodes[0].Signer.Reshare(context.Background(), r); err == nil {
			t.Errorf("%s: reshared", what)
		}
		if was, err := nodes[0].Keystore.Joined(r.Session); was || err != nil {
			t.Errorf("%s: joined", what)
		}
	}
	// What a resharing is named after.
	base := reshareRequest(eddsaKey, tss.Generation{Epoch: 1, Try: 2, M: 2, Pub: pub, Holders: members(0, 1)}, 2, 2, members(0, 1, 3)...)
	names := map[tss.SessionID]string{base.Session: "base"}
	for what, change := range map[string]func(*tss.Request){
		"old epoch": func(r *tss.Request) { r.From.Epoch = 0 },
		"old try":   func(r *tss.Request) { r.From.Try++ },
		"old m":     func(r *tss.Request) { r.From.M++ },
		"dealers":   func(r *tss.Request) { r.From.Holders = members(0, 2) },
		"key":       func(r *tss.Request) { r.From.Pub = []byte{1} },
		"try":       func(r *tss.Request) { r.Try++ },
		"m":         func(r *tss.Request) { r.M++ },
		"parties":   func(r *tss.Request) { r.Parties = members(0, 1, 2) },
		"kind":      func(r *tss.Request) { r.Kind = tss.Keygen },
	} {
		r := base
		change(&r)
		if other, taken := names[tss.SessionName(r)]; taken {
			t.Errorf("another %s gives the same name as %s", what, other)
		}
		names[tss.SessionName(r)] = what
	}
}

// polynomial is a dealing of another value than its dealer's share.
type polynomial struct {
	commitment []byte
	opening    [][]byte
	shares     [][]byte
}

func dealAnother(t *testing.T, ec elliptic.Curve, r tss.Request) polynomial {
	t.Helper()
	vs, shares, err := vss.Create(ec, r.M-1, big.NewInt(4711), tss.PartyKeys(r), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	flat, err := crypto.FlattenECPoints(vs)
	if err != nil {
		t.Fatal(err)
	}
	c := commitments.NewHashCommitment(rand.Reader, flat...)
	p := polynomial{commitment: c.C.Bytes()}
	for _, d := range c.D {
		p.opening = append(p.opening, d.Bytes())
	}
	for _, s := range shares {
		p.shares = append(p.shares, s.Share.Bytes())
	}
	return p
}

// A dealer that deals another value than its share, with all proofs in order,
// would give everybody KeyShares of another key. Another dealer names it; a
// joiner, who does not know the old public shares, suspects the dealers and
// accuses nobody. Without K10 the library stops at the joiner with "V_0 != y"
// and names the joiner itself: seen failing with that, and, without the other
// dealers' part of the check, with "suspects … failed K10".
func TestDealerOfAnotherValue(t *testing.T) {
	_, nodes := tsstest.Cluster(t, cluster, 3, patient)
	shares, pub := tsstest.Deal(t, cluster, eddsaKey, 1, 2, 2, 2)
	tsstest.Activate(t, nodes[:2], shares)
	r := reshareRequest(eddsaKey, tss.Generation{Epoch: 1, Try: 2, M: 2, Pub: pub, Holders: members(0, 1)}, 2, 2, members(0, 2)...)
	lie := dealAnother(t, lib.Edwards(), r)
	nodes[1].Signer.Tamper(func(name string, to int, payload []byte) []byte {
		switch name {
		case "T1":
			return spoil(func(m *eddsareshare.DGRound1Message) { m.VCommitment = lie.commitment })(payload)
		case "T3p":
			return spoil(func(m *eddsareshare.DGRound3Message1) { m.Share = lie.shares[to] })(payload)
		case "T3":
			return spoil(func(m *eddsareshare.DGRound3Message2) { m.VDecommitment = lie.opening })(payload)
		}
		return payload
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _, _ = nodes[1].Signer.Reshare(ctx, r) }()
	_, errs := reshareSome(pick(nodes, 0, 2), r)
	cancel() // the liar waits for answers that will not come
	<-done
	var b *tss.Blame
	if !errors.As(errs[0], &b) || !b.Proven || b.Check != "K10" || len(b.Culprits) != 1 || b.Culprits[0] != nodes[1].ID {
		t.Errorf("the other dealer: %v", errs[0])
	}
	if !errors.As(errs[1], &b) || b.Proven || b.Check != "K10" || len(b.Culprits) != 2 {
		t.Errorf("the joiner: %v", errs[1])
	}
	for i, want := range []int{1, 1, 0} {
		if infos, err := nodes[i].Keystore.Shares(); err != nil || len(infos) != want {
			t.Errorf("member %d has %d key shares, %v", i, len(infos), err)
		}
	}
}

// A dealer tells two receivers different commitments: the receivers' echoes of
// round 1 differ, and it is convicted, though a receiver that does not deal
// sends nothing in round 1 and a dealer nothing in round 2.
func TestEquivocatingDealerIsProven(t *testing.T) {
	net, nodes := tsstest.Cluster(t, cluster, 4, patient)
	shares, pub := tsstest.Deal(t, cluster, eddsaKey, 1, 2, 2, 2)
	tsstest.Activate(t, nodes[:2], shares)
	r := reshareRequest(eddsaKey, tss.Generation{Epoch: 1, Try: 2, M: 2, Pub: pub, Holders: members(0, 1)}, 2, 2, members(2, 3)...)
	r.Deadline = 20 * time.Second
	other := spoil(func(m *eddsareshare.DGRound1Message) { m.VCommitment = bytes.Repeat([]byte{7}, 32) })
	net.Filter = func(from, to tss.PartyID, frame []byte) []byte {
		if from == nodes[1].ID && to == nodes[3].ID && tss.NameOf(frame) == "T1" {
			return forge(1, frame, func(e *tss.Forged) { e.Payload = other(e.Payload) })
		}
		return frame
	}
	_, errs := reshareSome(nodes, r)
	for _, i := range []int{2, 3} {
		wantBlame(t, errs[i], tss.Equivocation, nodes[1].ID)
	}
}

// Each row of the guard that Ed25519 resharing has, over the wire.
func TestEd25519ReshareLies(t *testing.T) {
	_, nodes := tsstest.Cluster(t, cluster, 2, patient)
	shares, pub := tsstest.Deal(t, cluster, eddsaKey, 1, 2, 2, 2)
	tsstest.Activate(t, nodes, shares)
	gen := tss.Generation{Epoch: 1, Try: 2, M: 2, Pub: pub, Holders: members(0, 1)}
	l := order(lib.Edwards())
	type (
		t1  = *eddsareshare.DGRound1Message
		t3p = *eddsareshare.DGRound3Message1
		t3  = *eddsareshare.DGRound3Message2
	)
	base := lib.Edwards().Params()
	shortC := commitments.NewHashCommitment(rand.Reader, base.Gx, base.Gy)
	short := polynomial{commitment: shortC.C.Bytes()}
	for _, d := range shortC.D {
		short.opening = append(short.opening, d.Bytes())
	}
	for i, c := range []lie{
		{"public key of another cluster", "D6", "T1", spoil(func(m t1) { m.EddsaPubX, m.EddsaPubY = base.Gx.Bytes(), base.Gy.Bytes() }), nil},
		{"public key off the curve", "D6", "T1", spoil(func(m t1) { m.EddsaPubX = increment(m.EddsaPubX) }), nil},
		{"commitment of 33 bytes", "D1", "T1", spoil(func(m t1) { m.VCommitment = append([]byte{1}, make([]byte, 32)...) }), nil},
		{"acknowledgement with content", "K11", "T2", func(p []byte) []byte { return append(p, 0x12, 0x02, 0x50, 0x01) }, nil},
		{"share is the order", "D2", "T3p", spoil(func(m t3p) { m.Share = l }), nil},
		{"polynomial too short", "D3", "T3", spoil(func(m t3) { m.VDecommitment = outOf(m.VDecommitment, 2) }), nil},
		{"polynomial of one point, committed to", "D3", "T3", spoil(func(m t3) { m.VDecommitment = short.opening }),
			func(name string, payload []byte) []byte {
				if name != "T1" {
					return payload
				}
				return spoil(func(m t1) { m.VCommitment = short.commitment })(payload)
			}},
		{"polynomial off the curve", "D3", "T3", spoil(func(m t3) { m.VDecommitment[3] = increment(m.VDecommitment[3]) }), nil},
		{"opens another commitment", "D3", "T3", spoil(func(m t3) { m.VDecommitment[0] = increment(m.VDecommitment[0]) }), nil},
		{"second acknowledgement with content", "K11", "T4", func(p []byte) []byte { return append(p, 0x12, 0x02, 0x50, 0x01) }, nil},
	} {
		r := reshareRequest(eddsaKey, gen, 2, 2, members(0, 1)...)
		r.Batch, r.Try = uint64(i), uint64(i)
		r.Session = tss.SessionName(r)
		expectLie(t, nodes, c, func(ctx context.Context, n tsstest.Node) error { _, err := n.Signer.Reshare(ctx, r); return err })
	}
	// After all this the same two reshare.
	nodes[1].Signer.Tamper(func(_ string, _ int, p []byte) []byte { return p })
	reshareAll(t, nodes, withTry(reshareRequest(eddsaKey, gen, 2, 2, members(0, 1)...), 90))
}

func withTry(r tss.Request, try uint64) tss.Request {
	r.Try = try
	r.Session = tss.SessionName(r)
	return r
}

// The rows of ECDSA resharing that come before its dear proofs, over the wire;
// the later ones are in guard_test.go.
func TestECDSAReshareLies(t *testing.T) {
	_, nodes := tsstest.Cluster(t, cluster, 2, patient)
	shares, pub := tsstest.Deal(t, cluster, ecdsaKey, 1, 2, 2, 2)
	tsstest.Activate(t, nodes, shares)
	var held ecdsakeygen.LocalPartySaveData
	if err := json.Unmarshal(shares[nodes[0].ID].Secret, &held); err != nil {
		t.Fatal(err)
	}
	gen := tss.Generation{Epoch: 1, Try: 2, M: 2, Pub: pub, Holders: members(0, 1)}
	type (
		r1 = *ecdsareshare.DGRound1Message
		r2 = *ecdsareshare.DGRound2Message1
	)
	g := lib.S256().Params()
	for i, l := range []lie{
		{"another public key", "K9", "R1", spoil(func(m r1) { m.EcdsaPubX, m.EcdsaPubY = g.Gx.Bytes(), g.Gy.Bytes() }), nil},
		{"ssid of another generation", "K9", "R1", spoil(func(m r1) { m.Ssid = bytes.Repeat([]byte{1}, 32) }), nil},
		{"no ssid", "K9", "R1", spoil(func(m r1) { m.Ssid = nil }), nil},
		{"commitment of 33 bytes", "A2", "R1", spoil(func(m r1) { m.VCommitment = append([]byte{1}, make([]byte, 32)...) }), nil},
		{"modulus of the old epoch", "K1", "R2", spoil(func(m r2) { m.NTilde = held.NTildej[0].Bytes() }), nil},
	} {
		for j, n := range nodes {
			if err := tss.StorePreParams(n.Keystore, tsstest.PreParams(4)[2+j]); err != nil {
				t.Fatal(err)
			}
		}
		r := reshareRequest(ecdsaKey, gen, 2, 2, members(0, 1)...)
		r.Batch = uint64(i)
		r.Session = tss.SessionName(r)
		expectLie(t, nodes, l, func(ctx context.Context, n tsstest.Node) error { _, err := n.Signer.Reshare(ctx, r); return err })
	}
}
