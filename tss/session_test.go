package tss_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/coffer-network/coffer/tss"
	"github.com/coffer-network/coffer/tss/tsstest"
)

// eddsaCluster has an activated Ed25519 key with threshold n.
func eddsaCluster(t *testing.T, n int, configure func(int, *tss.Config)) (*tss.Loopback, []tsstest.Node, []tss.PartyID) {
	t.Helper()
	net, nodes := tsstest.Cluster(t, cluster, n, configure)
	shares, _ := tsstest.Deal(t, cluster, eddsaKey, 1, 2, n, n)
	tsstest.Activate(t, nodes, shares)
	return net, nodes, tsstest.Parties(n)
}

func wantBlame(t *testing.T, err error, reason tss.Reason, culprits ...tss.PartyID) {
	t.Helper()
	var b *tss.Blame
	if !errors.As(err, &b) {
		t.Errorf("got %v, want blame for %s", err, reason)
		return
	}
	slices.SortFunc(b.Culprits, func(x, y tss.PartyID) int { return slices.Compare(x[:], y[:]) })
	slices.SortFunc(culprits, func(x, y tss.PartyID) int { return slices.Compare(x[:], y[:]) })
	if b.Reason != reason || !slices.Equal(b.Culprits, culprits) {
		t.Errorf("got %v, want %s by %v", b, reason, culprits)
	}
}

func TestSessionNameSeparates(t *testing.T) {
	base := signRequest(eddsaKey, []byte("m"), tsstest.Parties(3)...)
	swapped := base
	swapped.Parties = []tss.PartyID{base.Parties[2], base.Parties[0], base.Parties[1]}
	if tss.SessionName(swapped) != base.Session {
		t.Error("the name depends on the order in which the caller lists the parties")
	}
	names := map[tss.SessionID]string{base.Session: "base"}
	for what, change := range map[string]func(*tss.Request){
		"cluster": func(r *tss.Request) { r.Cluster[0]++ },
		"kind":    func(r *tss.Request) { r.Kind = tss.Keygen },
		"key":     func(r *tss.Request) { r.Key.ID += "x" },
		"epoch":   func(r *tss.Request) { r.Epoch++ },
		"at":      func(r *tss.Request) { r.At[0]++ },
		"batch":   func(r *tss.Request) { r.Batch++ },
		"attempt": func(r *tss.Request) { r.Attempt++ },
		"input":   func(r *tss.Request) { r.Input++ },
		"turn":    func(r *tss.Request) { r.Turn++ },
		"digest":  func(r *tss.Request) { r.Digest = []byte("n") },
		"tweak":   func(r *tss.Request) { r.Tweak[0]++ },
		"parties": func(r *tss.Request) { r.Parties = tsstest.Parties(2) },
	} {
		r := base
		change(&r)
		name := tss.SessionName(r)
		if other, taken := names[name]; taken {
			t.Errorf("another %s gives the same name as %s", what, other)
		}
		names[name] = what
	}
}

func TestRequestsThatNoSessionIsRunFor(t *testing.T) {
	_, nodes, ids := eddsaCluster(t, 3, nil)
	for what, change := range map[string]func(*tss.Request){
		"another cluster":  func(r *tss.Request) { r.Cluster[0]++ },
		"wrong kind":       func(r *tss.Request) { r.Kind = tss.Keygen },
		"not a party":      func(r *tss.Request) { r.Parties = ids[1:] },
		"doubled party":    func(r *tss.Request) { r.Parties = []tss.PartyID{ids[0], ids[1], ids[1]} },
		"too few parties":  func(r *tss.Request) { r.Parties = ids[:2] },
		"stranger":         func(r *tss.Request) { r.Parties = []tss.PartyID{ids[0], ids[1], tsstest.Party(9)} },
		"no message":       func(r *tss.Request) { r.Digest = nil },
		"tweak over order": func(r *tss.Request) { r.Tweak = [32]byte{0xff} },
		"unknown key":      func(r *tss.Request) { r.Key.ID = "other" },
		"other curve":      func(r *tss.Request) { r.Key.Curve, r.Digest = tss.Secp256k1, make([]byte, 32) },
		"no curve":         func(r *tss.Request) { r.Key.Curve = "" },
		"other epoch":      func(r *tss.Request) { r.Epoch = 5 },
	} {
		r := signRequest(eddsaKey, []byte("m"), ids...)
		change(&r)
		r.Session = tss.SessionName(r)
		if _, err := nodes[0].Signer.Sign(context.Background(), r); err == nil {
			t.Errorf("%s: signed", what)
		}
		if was, err := nodes[0].Keystore.Joined(r.Session); was || err != nil {
			t.Errorf("%s: joined", what)
		}
	}
	r := signRequest(eddsaKey, []byte("m"), ids...)
	r.Session[0]++
	if _, err := nodes[0].Signer.Sign(context.Background(), r); err == nil {
		t.Error("signed under a foreign name")
	}
}

func TestMissingPartyIsNamedAndItsTurnTakenLater(t *testing.T) {
	_, nodes, ids := eddsaCluster(t, 3, func(_ int, c *tss.Config) { c.JoinWait = 400 * time.Millisecond })
	r := signRequest(eddsaKey, []byte("m"), ids...)
	_, errs := signAll(nodes[:2], r)
	wantBlame(t, errs[0], tss.NotJoined, ids[2])
	wantBlame(t, errs[1], tss.NotJoined, ids[2])
	r.Turn++
	r.Session = tss.SessionName(r)
	if _, errs := signAll(nodes, r); errors.Join(errs...) != nil {
		t.Error(errors.Join(errs...))
	}
}

// A Join for a session this node is not in tells of it, and counts later.
func TestJoinOfAnotherTurnIsAnnounced(t *testing.T) {
	seen := make(chan tss.JoinSeen, 100)
	_, nodes, ids := eddsaCluster(t, 2, func(i int, c *tss.Config) {
		c.JoinWait = 20 * time.Second
		if i == 1 {
			c.OnJoin = func(j tss.JoinSeen) { seen <- j }
		}
	})
	r := signRequest(eddsaKey, []byte("m"), ids...)
	r.Turn = 4
	r.Session = tss.SessionName(r)
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := nodes[0].Signer.Sign(context.Background(), r); err != nil {
			t.Error(err)
		}
	})
	j := <-seen
	if j.From != ids[0] || j.Session != r.Session || j.Turn != 4 || j.Batch != 7 || j.Attempt != 3 || j.Input != 1 || j.Epoch != 1 {
		t.Errorf("announced %+v", j)
	}
	if _, err := nodes[1].Signer.Sign(context.Background(), r); err != nil {
		t.Error(err)
	}
	wg.Wait()
}

func TestLostConnectionFailsTheSessionAtOnce(t *testing.T) {
	seen := make(chan tss.PartyID, 1000)
	net, nodes, ids := eddsaCluster(t, 3, func(i int, c *tss.Config) {
		c.JoinWait, c.SilenceMin = time.Minute, time.Minute
		if i == 2 {
			c.OnJoin = func(j tss.JoinSeen) { seen <- j.From }
		}
	})
	r := signRequest(eddsaKey, []byte("m"), ids...)
	var errs []error
	var wg sync.WaitGroup
	wg.Go(func() { _, errs = signAll(nodes[:2], r) })
	for heard := map[tss.PartyID]bool{}; len(heard) < 2; {
		heard[<-seen] = true
	}
	net.Cut(ids[2])
	wg.Wait() // a minute, were it not for the lost connection
	wantBlame(t, errs[0], tss.Disconnected, ids[2])
	wantBlame(t, errs[1], tss.Disconnected, ids[2])
}

func TestBusyAndClosed(t *testing.T) {
	_, nodes, ids := eddsaCluster(t, 2, func(_ int, c *tss.Config) { c.MaxSessions, c.JoinWait = 1, time.Minute })
	r := signRequest(eddsaKey, []byte("m"), ids...)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { _, err := nodes[0].Signer.Sign(ctx, r); done <- err }()
	for {
		if was, _ := nodes[0].Keystore.Joined(r.Session); was {
			break
		}
		runtime.Gosched()
	}
	other := r
	other.Turn++
	other.Session = tss.SessionName(other)
	if _, err := nodes[0].Signer.Sign(context.Background(), other); !errors.Is(err, tss.ErrBusy) {
		t.Errorf("second session: %v", err)
	}
	if was, _ := nodes[0].Keystore.Joined(other.Session); was {
		t.Error("a session refused as busy is used up")
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	nodes[0].Signer.Close()
	if _, err := nodes[0].Signer.Sign(context.Background(), other); !errors.Is(err, tss.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// runOne runs r at two members and returns what the first made of it; the
// other is called back then.
func runOne(t *testing.T, nodes []tsstest.Node, r tss.Request) (tss.Signature, error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _, _ = nodes[1].Signer.Sign(ctx, r) }()
	sig, err := nodes[0].Signer.Sign(ctx, r)
	cancel()
	<-done
	return sig, err
}
