package ledger

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"testing"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"
)

// preparing is a cluster whose first keys are planned and not made.
func preparing(t *testing.T) *cluster {
	t.Helper()
	c := newCluster(t)
	c.tick(1000)
	c.tick(1000)
	if c.s.Next == nil {
		t.Fatal("no keys are planned")
	}
	return c
}

// The epoch opens only when every member holds every key and has attested every
// test signature (spec: consensus §7, signing §6); n−1 of either never suffice.
func TestEpochOpensWithAll(t *testing.T) {
	c := preparing(t)
	for _, key := range []string{KeyECDSA1, KeyEd255191} {
		c.some(3, KindShareReady, c.shareReady(key))
		if len(c.nextKey(key).Tests) != 0 {
			t.Fatalf("%s is tested before every member has a KeyShare", key)
		}
	}
	for _, key := range []string{KeyECDSA1, KeyEd255191} {
		if code := c.say(3, KindShareReady, c.shareReady(key)); code != OK || len(c.nextKey(key).Tests) == 0 {
			t.Fatalf("%s: %s, %d tests", key, code, len(c.nextKey(key).Tests))
		}
	}
	var missing []TestSig
	signed := map[MemberID]bool{}
	for _, key := range []string{KeyECDSA1, KeyEd255191} {
		for _, id := range c.nextKey(key).Tests {
			b := c.s.Batches.at(id)
			if len(b.Newest().Roster) != 3 || b.Kind != BatchTest || b.Newest().M != 3 {
				t.Fatalf("test %d: %+v", id, b)
			}
			for _, m := range b.Newest().Roster {
				signed[m] = true
			}
			sig := TestSig{Batch: id, Signature: c.sign(key, b.Digest)}
			c.some(3, KindTestSig, sig)
			missing = append(missing, sig)
		}
	}
	if len(signed) != 4 {
		t.Errorf("%d members take part in a test, want all", len(signed))
	}
	for i, sig := range missing {
		if c.s.Opening != nil {
			t.Fatalf("opened with %d words missing", len(missing)-i)
		}
		if code := c.say(3, KindTestSig, sig); code != OK {
			t.Fatal(code)
		}
	}
	o := c.s.Opening
	if o == nil || o.Epoch.Number != 1 || o.Height != c.s.Height || o.Head != c.s.Head || o.Root == (Hash{}) {
		t.Fatalf("opening %+v at height %d", o, c.s.Height)
	}
	if c.s.Epoch().Number != 0 || c.s.Keys.len() != 0 || c.s.Watched.Len() != 0 {
		t.Error("the epoch is in force before its flip")
	}
	// Between opening and flip commands apply, and nothing is planned.
	if c.tick(60_000); len(c.payments()) != 0 {
		t.Error("something was planned")
	}
	for _, kind := range []Kind{KindShareReady, KindTestSig} {
		body := any(c.shareReady(KeyECDSA1))
		if kind == KindTestSig {
			body = missing[0]
		}
		if code := c.say(0, kind, body); code != NotAllowed && code != OK {
			t.Errorf("kind %d after the opening: %s", kind, code)
		}
	}
	if c.s.Opening.Height != o.Height || c.s.Opening.Head != o.Head {
		t.Error("the opening moved")
	}
}

// Every test of a key names another digest, and none could be a transaction.
func TestTestDigests(t *testing.T) {
	c := preparing(t)
	for _, key := range []string{KeyECDSA1, KeyEd255191} {
		c.all(KindShareReady, c.shareReady(key))
	}
	seen := map[Hash]bool{}
	for _, b := range c.s.Batches.all() {
		if b.Kind == BatchTest {
			if b.Digest == (Hash{}) || seen[b.Digest] {
				t.Errorf("digest %s again", b.Digest)
			}
			seen[b.Digest] = true
		}
	}
	if len(seen) != 4 {
		t.Errorf("%d digests", len(seen))
	}
}

// Words about keys that are refused, by name.
func TestShareReadyRefusals(t *testing.T) {
	c := preparing(t)
	good := c.shareReady(KeyECDSA1)
	for name, tc := range map[string]struct {
		change func(*ShareReady)
		code   Code
	}{
		"another epoch":            {func(r *ShareReady) { r.Epoch++ }, NotAllowed},
		"an earlier try":           {func(r *ShareReady) { r.Try-- }, NotAllowed},
		"a later try":              {func(r *ShareReady) { r.Try++ }, NotAllowed},
		"an unknown key":           {func(r *ShareReady) { r.Key = "ecdsa-9" }, NotAllowed},
		"no public key":            {func(r *ShareReady) { r.Pub = nil }, Malformed},
		"a point not on the curve": {func(r *ShareReady) { r.Pub = append([]byte{2}, bytes.Repeat([]byte{0xff}, 32)...) }, Malformed},
		"an uncompressed key":      {func(r *ShareReady) { r.Pub = c.ecdsa.PubKey().SerializeUncompressed() }, Malformed},
		"an Ed25519 key for ECDSA": {func(r *ShareReady) { r.Pub = c.ed25519.Public().(ed25519.PublicKey) }, Malformed},
		"an ECDSA key for Ed25519": {func(r *ShareReady) { r.Key = KeyEd255191 }, Malformed},
	} {
		r := good
		tc.change(&r)
		before := frame(c.s)
		if code := c.say(0, KindShareReady, r); code != tc.code {
			t.Errorf("%s: %s, want %s", name, code, tc.code)
		}
		if frame(c.s) != before {
			t.Errorf("%s: changed the state", name)
		}
	}
	if code := c.say(0, KindShareReady, good); code != OK {
		t.Fatal(code)
	}
}

// Two stories about one try are never reconciled: a fresh try is planned, and
// what was said of the old one counts no more (spec: signing §6).
func TestKeygenDisagreement(t *testing.T) {
	for name, change := range map[string]func(*ShareReady){
		"another transcript": func(r *ShareReady) { r.Transcript[0]++ },
		"another public key": func(r *ShareReady) {
			r.Pub = secp256k1.PrivKeyFromBytes(seedOf("other", 0)).PubKey().SerializeCompressed()
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := preparing(t)
			c.some(3, KindShareReady, c.shareReady(KeyECDSA1))
			was := c.nextKey(KeyECDSA1)
			old := c.shareReady(KeyECDSA1)
			liar := old
			change(&liar)
			if code := c.say(3, KindShareReady, liar); code != OK {
				t.Fatal(code)
			}
			k := c.nextKey(KeyECDSA1)
			if k.Try != was.Try+1 || k.Batch != was.Batch || len(k.Ready) != 0 || len(k.Tests) != 0 {
				t.Fatalf("after the disagreement %+v", k)
			}
			b := c.s.Batches.at(k.Batch)
			if b.Done || len(b.Attempts) != 1 || b.Newest().Try != k.Try || len(b.Newest().Roster) != 4 {
				t.Errorf("batch %+v", b)
			}
			if code := c.say(0, KindShareReady, old); code != NotAllowed {
				t.Errorf("a word for the old try: %s", code)
			}
			c.keygen()
			if c.s.Opening == nil {
				t.Error("the next try does not open the epoch")
			}
		})
	}
	// Also when the liar speaks after the tests were planned.
	c := preparing(t)
	c.all(KindShareReady, c.shareReady(KeyECDSA1))
	tests := c.nextKey(KeyECDSA1).Tests
	liar := c.shareReady(KeyECDSA1)
	liar.Transcript[0]++
	c.say(2, KindShareReady, liar)
	if k := c.nextKey(KeyECDSA1); k.Try != 2 || len(k.Tests) != 0 {
		t.Fatalf("after the disagreement %+v", k)
	}
	for _, id := range tests {
		if !c.s.Batches.at(id).Done {
			t.Error("a test of the dropped try is still to be signed")
		}
		if code := c.say(0, KindTestSig, TestSig{Batch: id, Signature: c.sign(KeyECDSA1, c.s.Batches.at(id).Digest)}); code != OK || len(c.nextKey(KeyECDSA1).Tested) != 0 {
			t.Errorf("a test signature of the dropped try: %s", code)
		}
	}
}

// A keygen that passed its deadline, or that f+1 gave up, is another try.
func TestKeygenRetry(t *testing.T) {
	c := preparing(t)
	c.some(2, KindShareReady, c.shareReady(KeyEd255191))
	k := c.nextKey(KeyEd255191)
	word := GaveUp{Batch: k.Batch, Attempt: k.Try}
	c.say(0, KindGaveUp, word)
	c.say(0, KindGaveUp, word)
	if got := c.nextKey(KeyEd255191); got.Try != k.Try || len(got.Ready) != 2 {
		t.Fatalf("one member's word dropped a try: %+v", got)
	}
	c.say(1, KindGaveUp, word)
	if got := c.nextKey(KeyEd255191); got.Try != k.Try+1 || len(got.Ready) != 0 {
		t.Fatalf("after f+1 words %+v", got)
	}
	if got := c.nextKey(KeyECDSA1).Try; got != 1 {
		t.Errorf("the other key is at try %d", got)
	}
	// A test signature of the epoch to come is given up by f+1 too.
	c.all(KindShareReady, c.shareReady(KeyECDSA1))
	id := c.nextKey(KeyECDSA1).Tests[0]
	word = GaveUp{Batch: id}
	c.say(2, KindGaveUp, word)
	if got := c.s.Batches.at(id).Newest().K; got != 0 {
		t.Fatalf("one member's word planned attempt %d of a test", got)
	}
	c.say(3, KindGaveUp, word)
	if got := c.s.Batches.at(id).Newest(); got.K != 1 || len(got.Gave) != 0 || len(got.Roster) != 3 {
		t.Errorf("after f+1 words %+v", got)
	}
}

// A test signature is verified by the ledger itself: no word stands for it.
func TestTestSignatureIsVerified(t *testing.T) {
	c := preparing(t)
	for _, key := range []string{KeyECDSA1, KeyEd255191} {
		c.all(KindShareReady, c.shareReady(key))
	}
	id := c.nextKey(KeyECDSA1).Tests[0]
	good := c.sign(KeyECDSA1, c.s.Batches.at(id).Digest)
	high := slices.Clone(good)
	var s secp256k1.ModNScalar
	s.SetByteSlice(good[32:])
	raw := s.Negate().Bytes()
	copy(high[32:], raw[:])
	other := c.nextKey(KeyEd255191).Tests[0]
	for name, sig := range map[string]TestSig{
		"nothing":               {Batch: id},
		"too short":             {Batch: id, Signature: good[:63]},
		"too long":              {Batch: id, Signature: append(slices.Clone(good), 0)},
		"zeros":                 {Batch: id, Signature: make([]byte, 64)},
		"of another digest":     {Batch: id, Signature: c.sign(KeyECDSA1, Hash{1})},
		"of the other key":      {Batch: id, Signature: c.sign(KeyEd255191, c.s.Batches.at(id).Digest)},
		"high s":                {Batch: id, Signature: high},
		"ECDSA for Ed25519":     {Batch: other, Signature: c.sign(KeyECDSA1, c.s.Batches.at(other).Digest)},
		"Ed25519, wrong digest": {Batch: other, Signature: c.sign(KeyEd255191, Hash{1})},
	} {
		before := frame(c.s)
		if code := c.say(0, KindTestSig, sig); code != BadSignature || frame(c.s) != before {
			t.Errorf("%s: %s, changed: %v", name, code, frame(c.s) != before)
		}
	}
	if code := c.say(0, KindTestSig, TestSig{Batch: id, Signature: good}); code != OK {
		t.Errorf("the signature itself: %s", code)
	}
}

// "Apply compares it with its own H_x, S_x, M_x, verifies the Q signatures with
// the members of e, and puts the new epoch in force."
func TestFlipOnlyWithItsCertificate(t *testing.T) {
	c := preparing(t)
	if code := c.say(0, KindFlip, Certificate{}); code != OK || c.s.Epoch().Number != 0 {
		t.Fatalf("a flip with nothing opened: %s, epoch %d", code, c.s.Epoch().Number)
	}
	c.keygen()
	resign := func(cert Certificate, keys ...ed25519.PrivateKey) Certificate {
		cert.Signatures = nil
		for _, k := range keys {
			cert.Signatures = append(cert.Signatures, SignApproval(k, cert.Approval))
		}
		return cert
	}
	three := c.keys[:3]
	change := func(f func(*Approval)) Certificate {
		cert := c.flipCertificate()
		f(&cert.Approval)
		return resign(cert, three...)
	}
	doubled := c.flipCertificate(c.keys[0], c.keys[0], c.keys[1])
	swapped := c.flipCertificate(c.keys[1], c.keys[0], c.keys[2])
	stranger := c.flipCertificate(c.keys[0], c.keys[1], memberKey(99))
	slices.SortFunc(stranger.Signatures, func(a, b MemberSig) int { return slices.Compare(a.Member[:], b.Member[:]) })
	forged := c.flipCertificate(three...)
	forged.Signatures[2].Sig[0]++
	later := c.s.View()
	later.Height++
	for name, cert := range map[string]Certificate{
		"too few":               c.flipCertificate(c.keys[:2]...),
		"nobody":                c.flipCertificate(),
		"one of them twice":     doubled,
		"not sorted":            swapped,
		"a stranger":            stranger,
		"a forged signature":    forged,
		"another head":          change(func(a *Approval) { a.Head[0]++ }),
		"another height":        change(func(a *Approval) { a.Height++ }),
		"another root":          change(func(a *Approval) { a.Root[0]++ }),
		"another root's height": change(func(a *Approval) { a.RootHeight-- }),
		"another member set":    change(func(a *Approval) { a.Members = c.s.Epoch().MembersHash() }),
		"under the new epoch":   change(func(a *Approval) { a.Epoch = 1 }),
		"another cluster":       change(func(a *Approval) { a.Cluster[0]++ }),
		"signed for something else": func() Certificate {
			cert := change(func(a *Approval) { a.Head[0]++ })
			cert.Approval = c.flipCertificate().Approval
			return cert
		}(),
	} {
		before := frame(c.s)
		if code := c.say(1, KindFlip, cert); code != BadSignature || frame(c.s) != before {
			t.Errorf("%s: %s, epoch %d", name, code, c.s.Epoch().Number)
		}
	}
	c.tick(1000) // others may come between
	cert := c.flipCertificate(c.keys[1:]...)
	if code := c.say(2, KindFlip, cert); code != OK || c.s.Epoch().Number != 1 || c.s.Opening != nil || c.s.Next != nil {
		t.Fatalf("the certificate: %s, epoch %d", code, c.s.Epoch().Number)
	}
	if len(c.s.Flips) != 1 || c.s.Flips[0].Approval != cert.Approval {
		t.Error("the flip certificate is not kept")
	}
	for _, key := range []string{KeyECDSA1, KeyEd255191} {
		if k := c.s.Keys.at(key); k.Epoch != 1 || k.Try != 1 || len(k.Pub) == 0 {
			t.Errorf("key %+v", k)
		}
	}
	if code := c.say(3, KindFlip, cert); code != OK || len(c.s.Flips) != 1 {
		t.Errorf("the same again: %s, %d flips", code, len(c.s.Flips))
	}
}

// With keys in force the vaults are watched, and every member tests once more.
func TestAfterTheFlip(t *testing.T) {
	c := preparing(t)
	c.keygen()
	c.flip()
	for _, v := range []struct{ chain, role string }{{Bitcoin, address.RoleMinter}, {Ethereum, address.RoleHot}, {Ethereum, address.RoleGas}} {
		w, ok := c.s.Vault(v.chain, v.role)
		child := must(address.Derive(address.KeyECDSA, KeyECDSA1, c.ecdsa.PubKey().SerializeCompressed(), address.Path{Chain: v.chain, Role: v.role}))
		if !ok || w.Account != "" || w.Purpose != PurposeVault || !bytes.Equal(w.Pub, child.Pub) {
			t.Errorf("vault %s/%s: %+v", v.chain, v.role, w)
		}
	}
	tests := 0
	for _, id := range c.s.Live.keys() {
		b := c.s.Batches.at(id)
		if b.Kind != BatchTest || b.Newest().Epoch != 1 {
			t.Fatalf("batch %+v", b)
		}
		tests++
		if code := c.say(1, KindTestSig, TestSig{Batch: id, Signature: c.sign(b.Key, Hash{7})}); code != BadSignature {
			t.Errorf("a wrong test signature after the flip: %s", code)
		}
		if code := c.say(1, KindTestSig, TestSig{Batch: id, Signature: c.sign(b.Key, b.Digest)}); code != OK || c.s.Live.has(id) {
			t.Errorf("a test signature after the flip: %s", code)
		}
	}
	if tests != 4 {
		t.Errorf("%d tests after the flip, want 2 of each key", tests)
	}
}

// Committees (spec: signing §3): the m-combinations of the roster in
// lexicographic order of positions, each turn another, beginning again after
// the last.
func TestCommittees(t *testing.T) {
	for _, r := range relations {
		_, members := coreMembers(r.n)
		a := Attempt{M: r.mLeast}
		for _, m := range members {
			a.Roster = append(a.Roster, m.ID)
		}
		slices.Reverse(a.Roster) // a roster is in order of rank, not of ids
		var all [][]int
		var grow func(from int, picked []int)
		grow = func(from int, picked []int) {
			if len(picked) == a.M {
				all = append(all, slices.Clone(picked))
				return
			}
			for p := from; p < r.n; p++ {
				grow(p+1, append(picked, p))
			}
		}
		grow(0, nil)
		if got := binomial(r.n, a.M); got != uint64(len(all)) {
			t.Fatalf("n=%d m=%d: %d combinations, counted %d", r.n, a.M, got, len(all))
		}
		for turn := range 2 * len(all) {
			var want []MemberID
			for _, p := range all[turn%len(all)] {
				want = append(want, a.Roster[p])
			}
			slices.SortFunc(want, func(a, b MemberID) int { return slices.Compare(a[:], b[:]) })
			if got := a.Committee(uint64(turn)); !slices.Equal(got, want) {
				t.Fatalf("n=%d m=%d turn %d: %v, want %v", r.n, a.M, turn, got, want)
			}
		}
	}
}

// The rank is the specification's, and the absent come last.
func TestRoster(t *testing.T) {
	c := running(t)
	c.tick(1000)
	e := c.s.Epoch()
	const batch, attempt = 77, 5
	rank := func(m MemberID) string {
		b := append([]byte("coffer/roster/1"), c.s.Head[:]...)
		b = binary.BigEndian.AppendUint64(b, batch)
		b = binary.BigEndian.AppendUint64(b, attempt)
		h := sha256.Sum256(append(b, m[:]...))
		return hex.EncodeToString(h[:])
	}
	want := memberIDs(e)
	slices.SortFunc(want, func(a, b MemberID) int { return cmpText(rank(a), rank(b)) })
	if got := c.s.roster(e, batch, attempt); !slices.Equal(got, want) {
		t.Fatalf("roster %v, want %v", got, want)
	}
	// The first by rank falls silent for longer than PresenceMillis.
	silent := want[0]
	for range 20 {
		for i, k := range c.keys {
			if idOf(k) != silent {
				c.say(i, KindClock, Clock{Millis: c.s.Millis + 1000})
			}
		}
	}
	got := c.s.roster(e, batch, attempt)
	if got[3] != silent {
		t.Errorf("the silent member stands at %d", slices.Index(got, silent))
	}
	// Another place, batch or attempt is another order sooner or later.
	orders := map[string]bool{}
	for i := range uint64(32) {
		var s string
		for _, m := range sortedByRank(e.Members, c.s.Head, batch, i) {
			s += m.String()[:8]
		}
		orders[s] = true
	}
	if len(orders) < 10 {
		t.Errorf("%d orders in 32 attempts", len(orders))
	}
}
