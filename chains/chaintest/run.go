package chaintest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"

	"github.com/coffer-network/coffer/chains"
	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// World is a chain under a test's control.
type World interface {
	// Adapter returns an adapter on this chain without memory of its own, as
	// after a restart.
	Adapter(t *testing.T) chains.Chain
	// Batch funds an anchor of ours and plans a payment with it.
	Batch(t *testing.T) Batch
	// Deposit sends something from outside to a new address of ours and
	// returns the fact it will be, without block.
	Deposit(t *testing.T) ledger.InflowFact
	// Foreign has the batch's anchor consumed by a transaction that is none of
	// its attempts.
	Foreign(t *testing.T, b Batch)
	// Mine adds n blocks with all that waits.
	Mine(t *testing.T, n int)
	// Finalize mines until what is mined now is final.
	Finalize(t *testing.T)
	// Reorg replaces the last depth blocks by a longer, empty branch.
	Reorg(t *testing.T, depth int)
}

// Giver is a World whose chain's own coin is told by balances at final heights.
type Giver interface {
	// Give sends base units of it to an address from outside.
	Give(t *testing.T, to string, units uint64)
}

// Batch is a planned payment.
type Batch struct {
	Addresses map[string]uint64 // ours, which it involves
	Anchor    chains.Anchor     // attempt 0 pays, attempt 1 is its bump
	Pays      []ledger.Payment  // by attempt 0
	Key       *secp256k1.PrivateKey
}

// maxSteps bounds a follower's way to the head and through a rescan.
const maxSteps = 64

// eye is a follower with its memory.
type eye struct {
	chain  chains.Chain
	cursor chains.Cursor
	view   chains.View
	list   *chains.WatchList
}

// look steps until ok says so; it fails the test when it never does.
func (e *eye) look(t *testing.T, what string, ok func(chains.Observations) bool) chains.Observations {
	t.Helper()
	var o chains.Observations
	for range maxSteps {
		o = e.step(t)
		if o.Behind == 0 && ok(o) {
			return o
		}
	}
	t.Fatalf("never saw %s; behind %d, head %+v, inflows %+v, spends %+v", what, o.Behind, o.Head, o.Inflows, o.Spends)
	return o
}

func (e *eye) step(t *testing.T) chains.Observations {
	t.Helper()
	o, next, err := e.chain.Watch(context.Background(), e.view, e.cursor)
	if err != nil {
		t.Fatalf("watch: %v", err)
	}
	e.cursor = next
	return o
}

func (o *eye) watch(more map[string]uint64) {
	if o.list == nil {
		o.list = chains.Watch(nil)
		o.view.Watched = o.list
	}
	for _, a := range slices.Sorted(maps.Keys(more)) {
		o.list.Add(a, more[a])
	}
}

func always(chains.Observations) bool { return true }

func inflow(o chains.Observations, id string) (chains.Seen, bool) {
	i := slices.IndexFunc(o.Inflows, func(s chains.Seen) bool { return s.Fact.ID == id })
	if i < 0 {
		return chains.Seen{}, false
	}
	return o.Inflows[i], true
}

func spend(o chains.Observations, anchor string) (chains.SeenSpend, bool) {
	i := slices.IndexFunc(o.Spends, func(s chains.SeenSpend) bool { return s.Anchor == anchor })
	if i < 0 {
		return chains.SeenSpend{}, false
	}
	return o.Spends[i], true
}

func sees(id string) func(chains.Observations) bool {
	return func(o chains.Observations) bool { _, ok := inflow(o, id); return ok }
}

func seesSpend(anchor string) func(chains.Observations) bool {
	return func(o chains.Observations) bool { _, ok := spend(o, anchor); return ok }
}

// Sign makes the signatures of u with one key, as the sessions would.
func Sign(key *secp256k1.PrivateKey, u chains.Unsigned) []chains.Signature {
	var out []chains.Signature
	for _, in := range u.Inputs {
		compact := ecdsa.SignCompact(key, in.Digest[:], true)
		out = append(out, chains.Signature{
			R: [32]byte(compact[1:33]), S: [32]byte(compact[33:]), RecID: (compact[0] - 27) & 3,
		})
	}
	return out
}

// SignWith makes the signature that the nonce k gives: another than Sign's, of the
// same digest, as a second session would.
func SignWith(key *secp256k1.PrivateKey, digest [32]byte, k uint32) chains.Signature {
	var nonce, z, r, s secp256k1.ModNScalar
	nonce.SetInt(k)
	var p secp256k1.JacobianPoint
	secp256k1.ScalarBaseMultNonConst(&nonce, &p)
	p.ToAffine()
	x := p.X.Bytes()
	r.SetBytes(x)
	z.SetBytes(&digest)
	s.Mul2(&r, &key.Key).Add(&z).Mul(nonce.InverseNonConst())
	parity := byte(p.Y.IsOddBit())
	if s.IsOverHalfOrder() {
		s.Negate()
		parity ^= 1
	}
	return chains.Signature{R: r.Bytes(), S: s.Bytes(), RecID: parity}
}

// Run is what every chain must do.
func Run(t *testing.T, w World) {
	t.Run("Pure", func(t *testing.T) { pure(t, w) })
	t.Run("SignaturesRefused", func(t *testing.T) { signatures(t, w) })
	t.Run("Broadcast", func(t *testing.T) { broadcast(t, w) })
	t.Run("Consumed", func(t *testing.T) { consumed(t, w) })
	t.Run("Custody", func(t *testing.T) { custody(t, w) })
	t.Run("Inflow", func(t *testing.T) { inflows(t, w) })
	t.Run("Fault60_LateAddress", func(t *testing.T) { late(t, w) })
	t.Run("Rescan", func(t *testing.T) { rescan(t, w) })
	t.Run("Spend", func(t *testing.T) { spends(t, w) })
	t.Run("Fault10_Reorg", func(t *testing.T) { reorg(t, w) })
	t.Run("Foreign", func(t *testing.T) { foreign(t, w) })
	t.Run("Cursor", func(t *testing.T) { cursor(t, w) })
	if g, ok := w.(Giver); ok {
		t.Run("Native", func(t *testing.T) { natives(t, w, g) })
	}
}

// natives: what an address holds of the chain's own coin is shown at a final height
// and not before, all of it, again and again until the ledger has counted it, and then
// with what came later. An address of nobody's is never shown.
func natives(t *testing.T, w World, g Giver) {
	ours, theirs := w.Deposit(t), w.Deposit(t)
	const units = 5_000_000_000
	counted := fixed.Int{}
	e := &eye{chain: w.Adapter(t)}
	e.watch(map[string]uint64{ours.Address: 0})
	e.view.Native = func(_ string, _ uint64, balance fixed.Int) (fixed.Int, ledger.NativeWord) {
		if counted.Less(balance) {
			return balance, ledger.NativeMore
		}
		return balance, ledger.NativeNothing
	}
	found := func(what string) (got []ledger.InflowFact) {
		t.Helper()
		for _, s := range e.look(t, what, always).Inflows {
			if s.Fact.ID == ledger.NativeID(s.Fact.Address, s.Fact.Height) {
				got = append(got, s.Fact)
			}
		}
		return got
	}
	w.Finalize(t)
	found("the head")
	g.Give(t, ours.Address, units)
	g.Give(t, theirs.Address, units)
	w.Mine(t, 1)
	if got := found("the gift"); len(got) != 0 {
		t.Errorf("shown before it is final: %+v", got)
	}
	w.Finalize(t)
	for range 2 {
		got := found("the gift, final")
		if len(got) != 1 || got[0].Address != ours.Address || got[0].Amount != fixed.New(units) || got[0].Chain != ours.Chain {
			t.Fatalf("shown %+v", got)
		}
	}
	counted = fixed.New(units)
	if got := found("nothing new"); len(got) != 0 {
		t.Errorf("counted and shown: %+v", got)
	}
	g.Give(t, ours.Address, 1)
	w.Mine(t, 1)
	w.Finalize(t)
	if got := found("the second gift"); len(got) != 1 || got[0].Amount != fixed.New(units+1) {
		t.Errorf("with the second gift: %+v", got)
	}
}

func must[T any](t *testing.T, what string) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		return v
	}
}

func build(t *testing.T, c chains.Chain, b Batch, k int) chains.Unsigned {
	t.Helper()
	return must[chains.Unsigned](t, "build")(c.Build(b.Anchor.Attempts[k]))
}

func finish(t *testing.T, c chains.Chain, b Batch, k int) chains.Raw {
	t.Helper()
	u := build(t, c, b, k)
	return must[chains.Raw](t, "finish")(c.Finish(u, Sign(b.Key, u)))
}

// pure: the same attempt gives the same bytes on every node, and what they do
// is read back as it was planned; changed bytes or digests are refused.
func pure(t *testing.T, w World) {
	b := w.Batch(t)
	one, two := w.Adapter(t), w.Adapter(t)
	u := build(t, one, b, 0)
	if again := build(t, two, b, 0); !reflect.DeepEqual(u, again) {
		t.Fatalf("two adapters built %+v and %+v", u, again)
	}
	if bump := build(t, one, b, 1); bytes.Equal(bump.Bytes, u.Bytes) {
		t.Error("a bump has the same bytes")
	}
	got, pays, err := one.Reads(u)
	if err != nil || !slices.Contains(got, b.Anchor.Name) || !reflect.DeepEqual(pays, b.Pays) {
		t.Fatalf("reads %v, %+v, %v; want %s and %+v", got, pays, err, b.Anchor.Name, b.Pays)
	}
	if _, err := one.Build(ledger.Attempt{}); !errors.Is(err, chains.ErrAttempt) {
		t.Errorf("attempt without a transaction: %v", err)
	}
	refused := func(what string, u chains.Unsigned) {
		t.Helper()
		if _, _, err := one.Reads(u); !errors.Is(err, chains.ErrUnsigned) {
			t.Errorf("%s: Reads says %v", what, err)
		}
		if _, err := one.Finish(u, Sign(b.Key, u)); !errors.Is(err, chains.ErrUnsigned) {
			t.Errorf("%s: Finish says %v", what, err)
		}
	}
	for i := range u.Bytes {
		v := u
		v.Bytes = slices.Clone(u.Bytes)
		v.Bytes[i] ^= 1
		refused("a changed byte", v)
	}
	v := u
	v.Bytes = append(slices.Clone(u.Bytes), 0)
	refused("a byte behind", v)
	v = u
	v.Inputs = slices.Clone(u.Inputs)
	v.Inputs[0].Digest[5] ^= 1
	refused("another digest", v)
	v.Inputs = nil
	refused("no digest", v)
	v.Inputs = append(slices.Clone(u.Inputs), u.Inputs[0])
	refused("a digest too many", v)
	v = u
	v.Chain += "x"
	refused("another chain", v)
}

// signatures: nothing leaves that is not signed by the right key.
func signatures(t *testing.T, w World) {
	b := w.Batch(t)
	c := w.Adapter(t)
	u := build(t, c, b, 0)
	good := Sign(b.Key, u)
	for what, spoil := range map[string]func([]chains.Signature) []chains.Signature{
		"none":      func([]chains.Signature) []chains.Signature { return nil },
		"one more":  func(s []chains.Signature) []chains.Signature { return append(s, s[0]) },
		"zero R":    func(s []chains.Signature) []chains.Signature { s[0].R = [32]byte{}; return s },
		"changed S": func(s []chains.Signature) []chains.Signature { s[0].S[31] ^= 1; return s },
		"out of range": func(s []chains.Signature) []chains.Signature {
			for i := range s[0].S {
				s[0].S[i] = 0xff
			}
			return s
		},
		"high S": func(s []chains.Signature) []chains.Signature {
			var n secp256k1.ModNScalar
			n.SetBytes(&s[0].S)
			s[0].S = n.Negate().Bytes()
			s[0].RecID ^= 1
			return s
		},
		"another key": func([]chains.Signature) []chains.Signature {
			return Sign(secp256k1.PrivKeyFromBytes([]byte("somebody else's, and not ours  .")), u)
		},
		"other bytes": func([]chains.Signature) []chains.Signature { return Sign(b.Key, build(t, c, b, 1)) },
	} {
		if _, err := c.Finish(u, spoil(slices.Clone(good))); !errors.Is(err, chains.ErrSignature) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// broadcast: any number of times; later it says what became of the anchor.
func broadcast(t *testing.T, w World) {
	ctx := context.Background()
	b := w.Batch(t)
	c := w.Adapter(t)
	raw, bump := finish(t, c, b, 0), finish(t, c, b, 1)
	for range 2 {
		if err := c.Broadcast(ctx, raw.Bytes); err != nil {
			t.Fatalf("broadcast: %v", err)
		}
	}
	if err := c.Broadcast(ctx, bump.Bytes); err != nil {
		t.Fatalf("bump: %v", err)
	}
	if err := c.Broadcast(ctx, raw.Bytes); !errors.Is(err, chains.ErrTooCheap) {
		t.Errorf("replaced attempt again: %v", err)
	}
	w.Mine(t, 1)
	if err := c.Broadcast(ctx, bump.Bytes); err != nil {
		t.Errorf("confirmed transaction again: %v", err)
	}
	if err := c.Broadcast(ctx, raw.Bytes); !errors.Is(err, chains.ErrAnchorSpent) {
		t.Errorf("attempt that lost: %v", err)
	}
	if err := c.Broadcast(ctx, []byte("no transaction")); !errors.Is(err, chains.ErrRefused) {
		t.Errorf("garbage: %v", err)
	}
}

// consumed: what the chain has no more, and has again after a reorganisation;
// what waits to be mined consumes nothing. Seen failing with the memory pool
// counted.
func consumed(t *testing.T, w World) {
	b := w.Batch(t)
	c := w.Adapter(t)
	raw := finish(t, c, b, 0)
	names := must[[]string](t, "reads")(func() ([]string, error) { names, _, err := c.Reads(build(t, c, b, 0)); return names, err }())
	gone := func(when string, want []string) {
		t.Helper()
		got, err := c.Consumed(context.Background(), names)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: consumed %v, %v; want %v", when, got, err, want)
		}
	}
	gone("planned", nil)
	if err := c.Broadcast(context.Background(), raw.Bytes); err != nil {
		t.Fatal(err)
	}
	gone("sent", nil)
	w.Mine(t, 1)
	gone("mined", names)
	w.Reorg(t, 1)
	gone("undone", nil)
}

// custody: what addresses of ours held at a block, the same for every member that
// names it, however long ago it began to follow: before and after a payment, a
// fork, a restart and a theft. No guess where there is no answer. On Bitcoin what the
// question does not admit is in no balance, and what of it lies at a vault is apart.
// Planted, in each adapter: every coin counted, as it once was. Seen: "with a stranger's".
func custody(t *testing.T, w World) {
	ctx := context.Background()
	in, early := w.Deposit(t), w.Deposit(t) // the second at an address that is not ours yet
	b := w.Batch(t)
	pays := b.Pays[0]
	e := &eye{chain: w.Adapter(t)}
	e.watch(b.Addresses)
	e.watch(map[string]uint64{in.Address: 0})
	e.view.Vaults = slices.Sorted(maps.Keys(b.Addresses))
	ours := map[string]bool{in.ID: true}
	for _, a := range b.Anchor.Attempts {
		if a.Bitcoin == nil {
			continue
		}
		for _, k := range a.Bitcoin.Inputs {
			ours[k.Outpoint] = true
		}
		for i, o := range a.Bitcoin.Outputs {
			if _, back := b.Addresses[o.Address]; back {
				ours[fmt.Sprintf("%s:%d", a.Bitcoin.TxID(), i)] = true
			}
		}
	}
	admits := func(name string) bool { return ours[name] }
	e.view.Anchors = []chains.Anchor{b.Anchor}
	var ask chains.Ask
	holds := func(what string, height uint64, more ...fixed.Int) chains.Held {
		t.Helper()
		ask = chains.Ask{Asset: pays.Asset, Height: height, At: []string{in.Address}, Ours: admits}
		got := must[chains.Held](t, what)(e.chain.Custody(ctx, e.view, e.cursor, ask))
		late := &eye{chain: w.Adapter(t), view: e.view}
		late.look(t, "the head", always)
		if again := must[chains.Held](t, what)(late.chain.Custody(ctx, late.view, late.cursor, ask)); again != got {
			t.Errorf("%s: %+v, from the first block on %+v", what, got, again)
		}
		return got
	}
	w.Mine(t, 1)
	o := e.look(t, "the deposit", sees(in.ID))
	before := o.Head
	full := holds("before", before.Height)
	if full.Block != before.Hash {
		t.Errorf("block %s, want %s", full.Block, before.Hash)
	}
	ask.At = nil
	alone := must[chains.Held](t, "vaults")(e.chain.Custody(ctx, e.view, e.cursor, ask))
	if rest, err := fixed.Sub(full.Amount, in.Amount); err != nil || rest.Less(pays.Amount) || in.Chain == ledger.Ethereum && rest != alone.Amount {
		t.Errorf("holds %s with a deposit of %s, %s without, before it pays %s", full.Amount, in.Amount, alone.Amount, pays.Amount)
	}
	want := fixed.Int{}
	if in.Chain == ledger.Ethereum {
		want = in.Amount
	}
	ask.Apart = e.view.Vaults[0]
	apart := must[chains.Held](t, "apart")(e.chain.Custody(ctx, e.view, e.cursor, ask))
	if ask.Apart = ""; in.Chain == ledger.Ethereum && (apart.Apart.IsZero() || apart.Amount.Less(apart.Apart)) || in.Chain == ledger.Bitcoin && !apart.Apart.IsZero() || apart.Amount != alone.Amount || !alone.Apart.IsZero() {
		t.Errorf("at one vault %+v, at all %+v", apart, alone)
	}
	if full.Waiting != want || !alone.Waiting.IsZero() {
		t.Errorf("%s and %s of it at deposit addresses, want %s and none", full.Waiting, alone.Waiting, want)
	}
	raw := finish(t, e.chain, b, 0)
	if err := e.chain.Broadcast(ctx, raw.Bytes); err != nil {
		t.Fatal(err)
	}
	w.Mine(t, 1)
	o = e.look(t, "the spend", seesSpend(b.Anchor.Name))
	took := pays.Amount
	if tx := b.Anchor.Attempts[0].Bitcoin; tx != nil {
		took = must[fixed.Int](t, "fee")(fixed.Add(took, fixed.New(tx.Fee)))
	}
	rest := must[fixed.Int](t, "rest")(fixed.Sub(full.Amount, took))
	if got := holds("paid", o.Head.Height); got.Amount != rest || got.Block != o.Head.Hash {
		t.Errorf("after a payment of %s: %+v of %s", took, got, full.Amount)
	}
	if got := holds("the block before", before.Height); got != full {
		t.Errorf("the block before, asked later: %+v, was %+v", got, full)
	}
	w.Reorg(t, 1)
	o = e.look(t, "the new branch", func(o chains.Observations) bool { return !seesSpend(b.Anchor.Name)(o) })
	e.chain = w.Adapter(t)
	if got := holds("undone", o.Head.Height); got.Amount != full.Amount || got.Block != o.Head.Hash {
		t.Errorf("payment undone: %+v, want %s", got, full.Amount)
	}
	if tx := b.Anchor.Attempts[0].Bitcoin; tx != nil { // where there are no coins a sequence is used up, and nothing moves
		w.Foreign(t, b)
		w.Mine(t, 1)
		o = e.look(t, "the theft", func(now chains.Observations) bool { return now.Head.Height > o.Head.Height })
		i := slices.IndexFunc(tx.Inputs, func(in ledger.BitcoinIn) bool { return in.Outpoint == b.Anchor.Name })
		left := must[fixed.Int](t, "left")(fixed.Sub(full.Amount, fixed.New(tx.Inputs[i].Sats)))
		if got := holds("robbed", o.Head.Height); got.Amount != left {
			t.Errorf("after a theft of %d: %+v of %s", tx.Inputs[i].Sats, got, full.Amount)
		}
	}
	if in.Chain == ledger.Bitcoin { // elsewhere the question names deposit addresses, and an amount has no name
		stranger := w.Deposit(t)
		e.watch(map[string]uint64{stranger.Address: 0})
		was := holds("before a stranger's", o.Head.Height)
		if !was.Strangers.IsZero() {
			t.Errorf("strangers' %s before there are any", was.Strangers)
		}
		w.Mine(t, 1)
		o = e.look(t, "a stranger's coin", sees(stranger.ID))
		if got := holds("with a stranger's, at no vault", o.Head.Height); got.Amount != was.Amount || !got.Strangers.IsZero() {
			t.Errorf("with a stranger's %s at no vault: %+v, before %+v", stranger.Amount, got, was)
		}
		e.view.Vaults = append(e.view.Vaults, stranger.Address)
		if got := holds("with a stranger's", o.Head.Height); got.Amount != was.Amount || got.Strangers != stranger.Amount {
			t.Errorf("with a stranger's %s: %+v, before %+v", stranger.Amount, got, was)
		}
		was = holds("early", o.Head.Height)
		e.watch(map[string]uint64{early.Address: o.Head.Height + 1})
		e.look(t, "the early deposit", sees(early.ID))
		if got := holds("early and not listed", o.Head.Height); got != was {
			t.Errorf("%+v with what arrived before its address, %+v without", got, was)
		}
		ours[early.ID] = true
		sum := must[fixed.Int](t, "sum")(fixed.Add(was.Amount, early.Amount))
		if got := holds("early and listed", o.Head.Height); got.Amount != sum {
			t.Errorf("%+v, with %s that the ledger lists %s", got, early.Amount, sum)
		}
	}
	for what, a := range map[string]chains.Ask{
		"a block to come":  {Asset: pays.Asset, Height: o.Head.Height + 1},
		"an unknown asset": {Asset: "doge", Height: o.Head.Height},
	} {
		if got, err := e.chain.Custody(ctx, e.view, e.cursor, a); !errors.Is(err, chains.ErrNoBalance) {
			t.Errorf("%s: %+v, %v", what, got, err)
		}
	}
	if _, err := e.chain.Custody(ctx, e.view, []byte("garbage"), chains.Ask{Asset: pays.Asset}); !errors.Is(err, chains.ErrCursor) {
		t.Errorf("garbage: %v", err)
	}
	w.Mine(t, 150)
	e.look(t, "the head", always)
	if _, err := e.chain.Custody(ctx, e.view, e.cursor, chains.Ask{Asset: pays.Asset, Height: before.Height}); !errors.Is(err, chains.ErrNoBalance) {
		t.Errorf("more than 144 blocks ago: %v", err)
	}
}

// inflows: shown from the first block on, deeper with each, over a restart,
// until they are counted and deep.
func inflows(t *testing.T, w World) {
	want := w.Deposit(t)
	other := w.Deposit(t)
	e := &eye{chain: w.Adapter(t)}
	e.watch(map[string]uint64{want.Address: 0})
	if o := e.look(t, "the head", always); sees(want.ID)(o) {
		t.Fatal("inflow before it is mined")
	}
	w.Mine(t, 1)
	o := e.look(t, "the inflow", sees(want.ID))
	got, _ := inflow(o, want.ID)
	want.Height, want.Block = o.Head.Height, o.Head.Hash
	if got.Fact != want || got.Depth != 1 {
		t.Fatalf("saw %+v, want %+v at depth 1", got, want)
	}
	if sees(other.ID)(o) {
		t.Error("inflow to an address that is not watched")
	}
	w.Mine(t, 3)
	e.chain = w.Adapter(t) // restart
	if got, _ = inflow(e.look(t, "the head", always), want.ID); got.Fact != want || got.Depth != 4 {
		t.Errorf("saw %+v after a restart, want %+v at depth 4", got, want)
	}
	e.view.Counted = func(id string) bool { return id == want.ID }
	w.Mine(t, 150)
	e.look(t, "the counted inflow forgotten", func(o chains.Observations) bool { return !sees(want.ID)(o) })
}

// late: an address named after its coins arrived is looked for. Plants a member that
// applied the account late (spec: outflows §10, 60).
func late(t *testing.T, w World) {
	first, second := w.Deposit(t), w.Deposit(t)
	w.Mine(t, 2)
	e := &eye{chain: w.Adapter(t)}
	e.watch(map[string]uint64{first.Address: 0})
	o := e.look(t, "the first inflow", sees(first.ID))
	e.watch(map[string]uint64{second.Address: o.Head.Height})
	e.chain = w.Adapter(t)
	e.look(t, "the late inflow", sees(second.ID))

	third := w.Deposit(t)
	w.Mine(t, 1)
	e.look(t, "the head", always)
	// Out of the order the ledger promises: found all the same.
	e.watch(map[string]uint64{third.Address: 0})
	e.look(t, "the unordered inflow", sees(third.ID))
}

// rescan: what arrived more than a window before its address was registered is
// found when an operator asks for it, not before, and an address that is not
// watched is not found at all.
func rescan(t *testing.T, w World) {
	early, other := w.Deposit(t), w.Deposit(t)
	w.Mine(t, 150)
	e := &eye{chain: w.Adapter(t)}
	e.watch(nil)
	o := e.look(t, "the head", always)
	e.watch(map[string]uint64{early.Address: o.Head.Height})
	done := func(o chains.Observations) bool { return o.Again == 0 }
	if o = e.look(t, "the end of the rescan", done); sees(early.ID)(o) {
		t.Fatal("what arrived long before its address is found unasked")
	}
	next, err := e.chain.Rescan(e.cursor, 0)
	if err != nil {
		t.Fatal(err)
	}
	e.cursor, e.chain = next, w.Adapter(t)
	o = e.look(t, "the early inflow", func(o chains.Observations) bool { return done(o) && sees(early.ID)(o) })
	if got, _ := inflow(o, early.ID); got.Depth < 150 || got.Fact.Amount != early.Amount {
		t.Errorf("saw %+v", got)
	}
	if sees(other.ID)(o) {
		t.Error("inflow to an address that is not watched")
	}
	if back, err := e.chain.Rescan([]byte("garbage"), 0); !errors.Is(err, chains.ErrCursor) || string(back) != "garbage" {
		t.Errorf("garbage: %v", err)
	}
}

// spends: our transaction is recognised by its bytes, and its end told at
// finality, not before.
func spends(t *testing.T, w World) {
	b := w.Batch(t)
	c := w.Adapter(t)
	e := &eye{chain: c, view: chains.View{Anchors: []chains.Anchor{b.Anchor}}}
	e.watch(b.Addresses)
	if o := e.look(t, "the head", always); seesSpend(b.Anchor.Name)(o) {
		t.Fatal("spend before it is mined")
	}
	raw := finish(t, c, b, 1)
	if err := c.Broadcast(context.Background(), raw.Bytes); err != nil {
		t.Fatal(err)
	}
	w.Mine(t, 1)
	o := e.look(t, "the spend", seesSpend(b.Anchor.Name))
	got, _ := spend(o, b.Anchor.Name)
	want := chains.SeenSpend{
		Anchor: b.Anchor.Name, Batch: b.Anchor.Batch, Attempt: b.Anchor.Attempts[1].K,
		Height: o.Head.Height, Block: o.Head.Hash, Depth: 1, TxID: raw.TxID,
	}
	if got != want {
		t.Fatalf("saw %+v, want %+v", got, want)
	}
	w.Finalize(t)
	e.chain = w.Adapter(t)
	final := e.look(t, "the spend final", func(o chains.Observations) bool { s, _ := spend(o, b.Anchor.Name); return s.Final })
	got, _ = spend(final, b.Anchor.Name)
	if got.Outcome != ledger.OutcomePaid || got.Fee.IsZero() || got.Foreign || got.Block != want.Block {
		t.Errorf("final spend %+v", got)
	}
	if final.Tip.Height < want.Height || final.Tip.Height > final.Head.Height {
		t.Errorf("tip %+v, head %+v", final.Tip, final.Head)
	}
	if final.Fee == nil || final.Fee.Rate == 0 {
		t.Errorf("fee report %+v", final.Fee)
	}
}

// reorg: what left the best chain is gone from the picture, and known to be.
func reorg(t *testing.T, w World) {
	b := w.Batch(t)
	in := w.Deposit(t)
	c := w.Adapter(t)
	w.Mine(t, 2)
	e := &eye{chain: c, view: chains.View{Anchors: []chains.Anchor{b.Anchor}}}
	e.watch(b.Addresses)
	e.watch(map[string]uint64{in.Address: 0})
	raw := finish(t, c, b, 0)
	if err := c.Broadcast(context.Background(), raw.Bytes); err != nil {
		t.Fatal(err)
	}
	w.Mine(t, 1)
	o := e.look(t, "the spend", seesSpend(b.Anchor.Name))
	gone, _ := spend(o, b.Anchor.Name)
	if o.Left(gone.Height, gone.Block) {
		t.Fatal("a block of the best chain left it")
	}
	w.Reorg(t, 1)
	o = e.look(t, "the new branch", func(o chains.Observations) bool { return o.Left(gone.Height, gone.Block) })
	if seesSpend(b.Anchor.Name)(o) {
		t.Error("spend in a block that left the best chain")
	}
	if !sees(in.ID)(o) {
		t.Error("inflow below the fork is gone")
	}
	if err := c.Broadcast(context.Background(), raw.Bytes); err != nil {
		t.Fatalf("broadcast after a fork: %v", err)
	}
	w.Mine(t, 1)
	o = e.look(t, "the spend again", seesSpend(b.Anchor.Name))
	if again, _ := spend(o, b.Anchor.Name); again.Block == gone.Block || again.TxID != gone.TxID || again.Foreign {
		t.Errorf("mined again as %+v", again)
	}
}

// foreign: an anchor consumed by what the ledger never planned.
func foreign(t *testing.T, w World) {
	b := w.Batch(t)
	w.Foreign(t, b)
	w.Mine(t, 1)
	e := &eye{chain: w.Adapter(t), view: chains.View{Anchors: []chains.Anchor{b.Anchor}}}
	e.watch(b.Addresses)
	got, _ := spend(e.look(t, "the spend", seesSpend(b.Anchor.Name)), b.Anchor.Name)
	if !got.Foreign || got.Batch != b.Anchor.Batch || got.Outcome != 0 {
		t.Errorf("saw %+v", got)
	}
}

// cursor: what is no cursor of this chain is refused, not started anew.
func cursor(t *testing.T, w World) {
	c := w.Adapter(t)
	for _, bad := range []chains.Cursor{{0}, []byte("garbage"), ledger.Marshal(map[int]any{1: "another", 2: 7})} {
		if _, back, err := c.Watch(context.Background(), chains.View{}, bad); !errors.Is(err, chains.ErrCursor) || !bytes.Equal(back, bad) {
			t.Errorf("cursor %x: %v", bad, err)
		}
	}
}
