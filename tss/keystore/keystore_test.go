package keystore

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/dgraph-io/badger/v4"
)

var (
	pass = []byte("correct horse")
	opts = Options{Node: [32]byte{7}, TestWorkFactor: 4}
)

func initStore(t *testing.T) (*Keystore, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "keystore")
	k, err := Init(dir, pass, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k, dir
}

func reopen(t *testing.T, k *Keystore, dir string) *Keystore {
	t.Helper()
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Open(dir, pass, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { again.Close() })
	return again
}

func share(try uint64) KeyShare {
	return KeyShare{
		ID: ShareID{Key: "k1", Epoch: 3, Try: try}, Curve: "secp256k1", M: 2,
		Parties: [][32]byte{{1}, {2}, {3}}, Pub: []byte{2, 9},
		Transcript: [32]byte{5}, Secret: bytes.Repeat([]byte("secret of one member;"), 50),
	}
}

func TestWrongPassphrase(t *testing.T) {
	k, dir := initStore(t)
	k.Close()
	if _, err := Open(dir, []byte("wrong"), opts); !errors.Is(err, ErrPassphrase) {
		t.Errorf("got %v, want ErrPassphrase", err)
	}
	other := opts
	other.Node[0]++
	if _, err := Open(dir, pass, other); !errors.Is(err, ErrPassphrase) {
		t.Errorf("opened by another node: %v", err)
	}
	if _, err := Init(dir, pass, opts); !errors.Is(err, ErrExists) {
		t.Errorf("Init over a keystore: %v", err)
	}
}

func TestDamagedKeyFile(t *testing.T) {
	k, dir := initStore(t)
	k.Close()
	path := filepath.Join(dir, keyFile)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range whole {
		b := bytes.Clone(whole)
		b[i] ^= 0x40
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, pass, opts); !errors.Is(err, ErrPassphrase) && !errors.Is(err, ErrCorrupt) {
			t.Fatalf("byte %d flipped: %v", i, err)
		}
	}
	for _, b := range [][]byte{nil, whole[:len(whole)-1], append(bytes.Clone(whole), 0), make([]byte, maxKeyFile+9)} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, pass, opts); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%d bytes of key file: %v", len(b), err)
		}
	}
}

func TestRefusesWideModes(t *testing.T) {
	k, dir := initStore(t)
	k.Close()
	for path, mode := range map[string]os.FileMode{dir: 0o750, filepath.Join(dir, keyFile): 0o640} {
		was, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, pass, opts); !errors.Is(err, ErrMode) {
			t.Errorf("%s with mode %04o: %v", path, mode, err)
		}
		if err := os.Chmod(path, was.Mode().Perm()); err != nil {
			t.Fatal(err)
		}
	}
	if k, err := Open(dir, pass, opts); err != nil {
		t.Errorf("with its own modes: %v", err)
	} else {
		k.Close()
	}
}

func TestShareStates(t *testing.T) {
	k, dir := initStore(t)
	id := share(1).ID
	if _, _, err := k.KeyShare(id); !errors.Is(err, ErrNotFound) {
		t.Errorf("share that never was: %v", err)
	}
	if err := k.Activate(id); !errors.Is(err, ErrNotFound) {
		t.Errorf("activate nothing: %v", err)
	}
	for try := range uint64(2) {
		if err := k.StageKeyShare(share(try + 1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := k.StageKeyShare(share(1)); err != nil {
		t.Errorf("staging the same bytes again: %v", err)
	}
	if err := k.Retire(id); err == nil {
		t.Error("retired a staged share")
	}
	expect := func(want ShareState) {
		t.Helper()
		s, state, err := k.KeyShare(id)
		if err != nil || state != want || s.Digest() != share(1).Digest() {
			t.Errorf("share %v, state %v, %v; want %v", s, state, err, want)
		}
	}
	expect(Staged)
	for range 2 { // activating again changes nothing
		if err := k.Activate(id); err != nil {
			t.Fatal(err)
		}
		expect(Active)
		k = reopen(t, k, dir)
	}
	if err := k.Activate(share(2).ID); err == nil || !strings.Contains(err.Error(), "try 1 of the epoch is active") {
		t.Errorf("two tries of an epoch active: %v", err)
	}
	if err := k.Retire(id); err != nil {
		t.Fatal(err)
	}
	expect(Retired)
	if err := k.Activate(id); err != nil {
		t.Fatal(err)
	}
	expect(Retired)
	list, err := k.Shares()
	if err != nil || len(list) != 2 || list[0].State != Retired || list[1].State != Staged || list[1].ID.Try != 2 {
		t.Errorf("list %+v, %v", list, err)
	}
}

func TestOverwritingASharePanics(t *testing.T) {
	k, _ := initStore(t)
	if err := k.StageKeyShare(share(1)); err != nil {
		t.Fatal(err)
	}
	func() {
		defer func() {
			if r := recover(); r == nil || strings.Contains(fmt.Sprint(r), "secret of") {
				t.Errorf("overwriting: recovered %v", r)
			}
		}()
		other := share(1)
		other.Secret = []byte("other")
		_ = k.StageKeyShare(other)
	}()
	if s, _, err := k.KeyShare(share(1).ID); err != nil || s.Digest() != share(1).Digest() {
		t.Errorf("the first share is gone: %v", err)
	}
}

// One rotten record costs that record. The node reads all others and says which
// share is missing.
func TestBitRot(t *testing.T) {
	k, dir := initStore(t)
	for try := range uint64(3) {
		if err := k.StageKeyShare(share(try)); err != nil {
			t.Fatal(err)
		}
	}
	if err := k.Join([32]byte{1}, share(1).ID); err != nil {
		t.Fatal(err)
	}
	var sealed []byte
	err := k.view(func(txn *badger.Txn) error {
		item, err := txn.Get(shareKey(share(1).ID, Staged))
		if err != nil {
			return err
		}
		sealed, err = item.ValueCopy(nil)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	k.Close()
	files, err := filepath.Glob(filepath.Join(dir, dbDir, "*.sst"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no tables on disk: %v", err)
	}
	flipped := 0
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if at := bytes.Index(b, sealed); at >= 0 {
			b[at+len(sealed)/2] ^= 1
			flipped++
			if err := os.WriteFile(f, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if flipped != 1 {
		t.Fatalf("found the record in %d tables", flipped)
	}
	if k, err = Open(dir, pass, opts); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	_, _, err = k.KeyShare(share(1).ID)
	if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "k1 epoch 3 try 1") {
		t.Errorf("rotten share: %v", err)
	}
	for _, try := range []uint64{0, 2} {
		if _, _, err := k.KeyShare(share(try).ID); err != nil {
			t.Errorf("healthy share %d: %v", try, err)
		}
	}
	if err := k.Join([32]byte{1}, share(1).ID); !errors.Is(err, ErrJoined) {
		t.Errorf("joined set after bit rot elsewhere: %v", err)
	}
	list, err := k.Shares()
	if err != nil || len(list) != 3 || list[1].Err == nil || list[0].Err != nil {
		t.Errorf("list %v, %v", list, err)
	}
}

// Records cannot be moved to another place: a copy of an old share under the
// name of a new one does not open.
func TestRecordsAreBoundToTheirPlace(t *testing.T) {
	k, _ := initStore(t)
	if err := k.StageKeyShare(share(1)); err != nil {
		t.Fatal(err)
	}
	if err := k.Put("a", []byte("x")); err != nil {
		t.Fatal(err)
	}
	move := func(from, to recordKey) {
		err := k.update(func(txn *badger.Txn) error {
			item, err := txn.Get(from)
			if err != nil {
				return err
			}
			v, err := item.ValueCopy(nil)
			if err != nil {
				return err
			}
			return txn.Set(to, v)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	move(append(recordKey{prefixNamed}, 'a'), append(recordKey{prefixNamed}, 'b'))
	if _, err := k.Get("b"); !errors.Is(err, ErrCorrupt) {
		t.Errorf("moved value opens: %v", err)
	}
	move(shareKey(share(1).ID, Staged), shareKey(share(1).ID, Active))
	if _, _, err := k.KeyShare(share(1).ID); !errors.Is(err, ErrCorrupt) {
		t.Errorf("staged share passes for an active one: %v", err)
	}
}

// What a kill -9 leaves behind is the directory as it is, without Close. The
// joined set, the promise and the mark must be in it.
func TestSurvivesWithoutClose(t *testing.T) {
	k, dir := initStore(t)
	session := [32]byte{9}
	if err := errors.Join(k.Join(session, share(1).ID), k.SavePromise([]byte("p1")), k.SavePromise([]byte("p2")),
		k.SaveRaftMark(4, 99), k.StageKeyShare(share(1)), k.Put("seq", []byte{8}),
		k.SaveSignature(1, 2, 3, []byte("sig"))); err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(copied, dbDir, "LOCK")); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{"": 0o700, keyFile: 0o600, dbDir: 0o700, keysDir: 0o700} {
		if err := os.Chmod(filepath.Join(copied, path), mode); err != nil {
			t.Fatal(err)
		}
	}
	again, err := Open(copied, pass, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := again.Join(session, share(1).ID); !errors.Is(err, ErrJoined) {
		t.Errorf("joined a session twice: %v", err)
	}
	if p, err := again.LastPromise(); err != nil || string(p) != "p2" {
		t.Errorf("promise %q, %v", p, err)
	}
	if term, index, err := again.RaftMark(); err != nil || term != 4 || index != 99 {
		t.Errorf("raft mark %d/%d, %v", term, index, err)
	}
	if _, state, err := again.KeyShare(share(1).ID); err != nil || state != Staged {
		t.Errorf("share: %v, %v", state, err)
	}
	if v, err := again.Get("seq"); err != nil || !bytes.Equal(v, []byte{8}) {
		t.Errorf("value %v, %v", v, err)
	}
	if v, err := again.Signature(1, 2, 3); err != nil || string(v) != "sig" {
		t.Errorf("signature %q, %v", v, err)
	}
}

// Plants eight tries to join one session at once: one of them joins, so a node that
// was killed in mid-protocol does not run the session twice (spec: outflows §2.4,
// C3). That the record outlives a kill is TestSurvivesWithoutClose.
func TestCrashC03_JoinOnce(t *testing.T) {
	k, _ := initStore(t)
	session := [32]byte{3}
	if was, err := k.Joined(session); was || err != nil {
		t.Fatalf("joined before: %t, %v", was, err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for range 8 {
		wg.Go(func() {
			err := k.Join(session, share(1).ID)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won++
			} else if !errors.Is(err, ErrJoined) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won != 1 {
		t.Errorf("%d of 8 joined one session", won)
	}
	if was, err := k.Joined(session); !was || err != nil {
		t.Errorf("joined afterwards: %t, %v", was, err)
	}
}

func TestPreParamsAreUsedOnce(t *testing.T) {
	k, dir := initStore(t)
	for _, set := range []string{"a", "b"} {
		if err := k.AddPreParams([]byte(set)); err != nil {
			t.Fatal(err)
		}
	}
	first, err := k.TakePreParams()
	if err != nil {
		t.Fatal(err)
	}
	k = reopen(t, k, dir)
	second, err := k.TakePreParams()
	if err != nil || bytes.Equal(first, second) {
		t.Errorf("took %q, then %q, %v", first, second, err)
	}
	if _, err := k.TakePreParams(); !errors.Is(err, ErrNotFound) {
		t.Errorf("empty pool: %v", err)
	}
}

func TestEmptyAndLimits(t *testing.T) {
	k, _ := initStore(t)
	if p, err := k.LastPromise(); p != nil || err != nil {
		t.Errorf("promise before the first: %v, %v", p, err)
	}
	if term, index, err := k.RaftMark(); term != 0 || index != 0 || err != nil {
		t.Errorf("mark before the first: %d/%d, %v", term, index, err)
	}
	if s, err := k.Signature(1, 1, 1); s != nil || err != nil {
		t.Errorf("signature before the first: %v, %v", s, err)
	}
	if err := k.Put("x", make([]byte, MaxRecord+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("huge value: %v", err)
	}
	if err := k.Put(strings.Repeat("x", MaxName+1), nil); !errors.Is(err, ErrTooLarge) {
		t.Errorf("long name: %v", err)
	}
	if err := k.SaveSignature(1, 1, 1, []byte("first")); err != nil {
		t.Fatal(err)
	}
	if err := k.SaveSignature(1, 1, 1, []byte("second")); err != nil {
		t.Errorf("a second turn's signature: %v", err)
	}
	if s, _ := k.Signature(1, 1, 1); string(s) != "first" {
		t.Errorf("stored %q", s)
	}
}

func TestKeyShareNeverPrints(t *testing.T) {
	s := share(1)
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "share", s, "pointer", &s)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "share", s, "list", []KeyShare{s})
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		fmt.Fprintf(&log, verb+" "+verb, s, &s)
	}
	fmt.Fprint(&log, struct{ K KeyShare }{s}, []KeyShare{s})
	if out := log.String(); strings.Contains(out, "secret") || strings.Contains(out, "k1") || strings.Contains(out, "736563") ||
		!strings.Contains(out, redacted) {
		t.Errorf("printed %s", out)
	}
}
