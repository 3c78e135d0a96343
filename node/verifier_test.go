package node

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/node/api"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

// testVerifier ends with the test and leaves no goroutine behind.
func testVerifier(t testing.TB, workers int) *verifier {
	t.Helper()
	v := newVerifier(workers, prometheus.NewRegistry())
	t.Cleanup(v.close)
	return v
}

// had counts verdicts by how they were had.
func had(v *verifier, how string) int {
	r := prometheus.NewRegistry()
	r.MustRegister(v.how)
	families, err := r.Gather()
	if err != nil {
		panic(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if m.GetLabel()[0].GetValue() == how {
				return int(m.GetCounter().GetValue())
			}
		}
	}
	return 0
}

// ethCheck is a request-sized EIP-191 signature, spoilt if good is false.
func ethCheck(i int, good bool) ledger.SignatureCheck {
	key := secp256k1.PrivKeyFromBytes(seedOf("verifier", 1))
	a, err := address.EthereumOf(key.PubKey().SerializeCompressed())
	if err != nil {
		panic(err)
	}
	message := fmt.Append(nil, "request ", i)
	c := ledger.SignatureCheck{
		Scheme: address.SchemeEIP191, Network: address.NetworkEthereum, Address: address.EthereumAddress(a),
		Message: message, Signature: address.SignEIP191(key, message),
	}
	if !good {
		c.Message = append(c.Message, '!')
	}
	return c
}

// A verdict is what Verify says, whatever is kept, and each signature is judged
// once.
func TestVerifierJudgesOnce(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	v := testVerifier(t, 2)
	defer v.close()
	for i, good := range []bool{true, false} {
		c := ethCheck(i, good)
		if got := v.Verdict(c); got != good {
			t.Errorf("verdict %v, want %v", got, good)
		}
		if got := v.Verdict(c); got != good {
			t.Errorf("again: verdict %v, want %v", got, good)
		}
		if got, err := v.ask(t.Context(), c); err != nil || got != good {
			t.Errorf("asked: %v, %v", got, err)
		}
	}
	if had(v, "miss") != 2 || had(v, "hit") != 2 {
		t.Errorf("%d misses, %d hits, want 2 of each", had(v, "miss"), had(v, "hit"))
	}
	c := ethCheck(3, true)
	if got, err := v.ask(t.Context(), c); err != nil || !got {
		t.Errorf("asked first: %v, %v", got, err)
	}
	if !v.Verdict(c) || had(v, "hit") != 3 {
		t.Error("what a client asked for was judged again")
	}
}

// Many ask for few signatures at once, from every side: all hear the same.
func TestVerifierConcurrently(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	v := testVerifier(t, 3)
	defer v.close()
	var checks []ledger.SignatureCheck
	for i := range 12 {
		checks = append(checks, ethCheck(i, i%3 != 0))
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(g), 1))
			for range 40 {
				i := random.IntN(len(checks))
				got := i%3 != 0
				var err error
				switch g % 3 {
				case 0:
					got = v.Verdict(checks[i])
				case 1:
					got, err = v.ask(context.Background(), checks[i])
				default:
					v.find(checks[i], true)
				}
				if err != nil || got != (i%3 != 0) {
					t.Errorf("signature %d: %v, %v", i, got, err)
				}
			}
		})
	}
	wg.Wait()
	if n := had(v, "miss"); n > len(checks) {
		t.Errorf("%d signatures judged %d times", len(checks), n)
	}
}

// Without a worker Apply judges itself at once; what waits waits for nobody, a
// client is turned away when the queue is full, and Close ends all.
func TestVerifierFull(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	v := testVerifier(t, 0)
	waits := ethCheck(0, true)
	v.find(waits, true)
	for i := 1; len(v.queue) < maxVerifying; i++ {
		v.find(ledger.SignatureCheck{Scheme: fmt.Sprint(i)}, true)
	}
	more := ethCheck(1, true)
	var o *api.Overloaded
	if _, err := v.ask(t.Context(), more); !errors.As(err, &o) || o.Limit == "" || o.After <= 0 {
		t.Errorf("a full queue takes one more: %v", err)
	}
	if had(v, "dropped") != 1 || v.known[more.Key()] != nil {
		t.Error("what was turned away is kept")
	}
	if !v.Verdict(more) || had(v, "miss") != 1 {
		t.Error("Apply did not judge what was turned away")
	}
	if !v.Verdict(waits) || had(v, "unbegun") != 1 {
		t.Error("Apply did not claim what waited")
	}
	if ok, err := v.ask(t.Context(), waits); !ok || err != nil {
		t.Errorf("what is known needs no room: %v, %v", ok, err)
	}
	v.close()
	v.close()
	if !v.Verdict(ethCheck(2, true)) {
		t.Error("a closed verifier gives another verdict")
	}
}

// The oldest verdicts go, and are found out again.
func TestVerifierForgets(t *testing.T) {
	v := testVerifier(t, 0)
	first := ethCheck(0, true)
	v.Verdict(first)
	for i := range maxJudged {
		v.Verdict(ledger.SignatureCheck{Scheme: fmt.Sprint(i)})
	}
	if len(v.known) != maxJudged || len(v.kept) != maxJudged || v.known[first.Key()] != nil {
		t.Errorf("%d kept, want %d and not the first", len(v.known), maxJudged)
	}
	misses := had(v, "miss")
	if !v.Verdict(first) || had(v, "miss") != misses+1 {
		t.Error("the first was not judged anew")
	}
}

// A judgement that panicked is no verdict: Apply meets the panic itself, where
// it makes the command BROKEN on every replica alike, and no worker dies.
func TestVerifierPanicIsNoVerdict(t *testing.T) {
	v := newVerifier(0, prometheus.NewRegistry())
	v.verify = func(ledger.SignatureCheck) bool { panic("our mistake") }
	v.wg.Go(v.work)
	defer v.close()
	c := ethCheck(0, true)
	if ok, err := v.ask(t.Context(), c); ok || err != nil {
		t.Errorf("asked: %v, %v", ok, err)
	}
	if !v.Verdict(c) || had(v, "hit") != 1 {
		t.Error("a panic became a verdict")
	}
	if !v.Verdict(ethCheck(1, true)) {
		t.Error("a panic in Apply's own claim became a verdict")
	}
}

// A wallet of every scheme opens an account and is heard, one signature of three
// being bad; those without coins of their chain here among them.
func TestEveryScheme(t *testing.T) {
	for _, scheme := range benchSchemes {
		t.Run(scheme, func(t *testing.T) { requests(t, scheme, 3, true) })
	}
}

// What is submitted here is judged while it is on its way to the log.
func TestCheckHasSignaturesJudged(t *testing.T) {
	txs, genesis := requests(t, address.SchemeEIP191, 1, false)
	v := testVerifier(t, 0)
	a, err := newApp(genesis, v)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Check(txs[len(txs)-1]); err != nil || len(v.queue) != 1 {
		t.Errorf("%d signatures wait, want 1: %v", len(v.queue), err)
	}
	if _, err := a.Check(txs[len(txs)-1]); err != nil || len(v.queue) != 1 {
		t.Errorf("the same again: %d signatures wait, want 1: %v", len(v.queue), err)
	}
	if _, err := a.Check([]byte("noise")); err == nil || len(v.queue) != 1 {
		t.Errorf("noise: %d wait, %v", len(v.queue), err)
	}
}

// Replicas whose verifiers know everything, nothing and something that they
// forget come to the same bytes; what arrived early is not judged in Apply.
func TestVerifierLeavesTheStateAlone(t *testing.T) {
	txs, genesis := requests(t, address.SchemeEIP191, 30, true)
	var heads []ledger.Hash
	for name, workers := range map[string]int{"no worker": 0, "workers": 2} {
		for _, early := range []bool{false, true} {
			v := testVerifier(t, workers)
			a, err := newApp(genesis, v)
			if err != nil {
				t.Fatal(err)
			}
			for i, tx := range txs {
				if early {
					a.arrived(txs[i:min(i+3, len(txs))])
				}
				a.Apply([][]byte{tx})
			}
			heads = append(heads, a.state.Head)
			if v.close(); heads[0] != a.state.Head {
				t.Errorf("%s, early %v: another head", name, early)
			}
			if n := had(v, "miss"); early && n != 0 {
				t.Errorf("%s: %d signatures that had arrived were missed", name, n)
			}
		}
	}
}
