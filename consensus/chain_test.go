package consensus

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/coffer-network/coffer/ledger"
)

// headersFrom makes n headers that follow head; salt makes them another history.
func headersFrom(height uint64, head ledger.Hash, n int, salt string) (hs []ledger.Header) {
	for range n {
		height++
		h := ledger.Header{Height: height, Prev: head, Command: hashOf(fmt.Sprint(salt, height))}
		if height%100 == 0 {
			h.Root = hashOf(fmt.Sprint("root", height))
		}
		head = h.Head()
		hs = append(hs, h)
	}
	return hs
}

func openTestChain(t *testing.T, path string) *chain {
	t.Helper()
	c, err := openChain(path, hashOf("genesis"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	return c
}

func TestChain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "heads")
	c := openTestChain(t, path)
	hs := headersFrom(0, c.genesis, 1300, "a")
	if err := c.append(hs); err != nil {
		t.Fatal(err)
	}
	for _, h := range []int{1, 512, 513, 1300} {
		if got, err := c.header(uint64(h)); err != nil || got != hs[h-1] {
			t.Errorf("header %d: %+v, %v", h, got, err)
		}
	}
	for _, h := range []uint64{0, 1301} {
		if _, err := c.header(h); err == nil {
			t.Errorf("header %d exists", h)
		}
	}
	if head, err := c.descend(0, c.genesis, 1300); err != nil || head != hs[1299].Head() {
		t.Errorf("from genesis: %s, %v", head, err)
	}
	if _, err := c.descend(600, hs[599].Head(), 1200); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"other head":      second(c.descend(600, hashOf("x"), 1200)),
		"downwards":       second(c.descend(600, hs[599].Head(), 599)),
		"header left out": c.append(headersFrom(1301, hs[1299].Head(), 1, "a")),
		"other parent":    c.append(headersFrom(1300, hashOf("x"), 1, "a")),
	} {
		if !errors.Is(err, errBrokenLink) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := c.descend(600, hs[599].Head(), 1301); err == nil {
		t.Error("descends to what is not applied")
	}
	for h, want := range map[uint64]uint64{99: 0, 100: 100, 199: 100, 1300: 1300} {
		at, root, err := c.rootAt(h)
		if err != nil || at != want || want != 0 && root != hs[want-1].Root {
			t.Errorf("root at %d: of %d, %v", h, at, err)
		}
	}
	// A record on disk changes: ancestry over it is no longer proved.
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{0xFF}, 700*recordSize+50); err != nil {
		t.Fatal(err)
	}
	if _, err := c.descend(600, hs[599].Head(), 1200); !errors.Is(err, errBrokenLink) {
		t.Errorf("over a damaged record: %v", err)
	}
}

func second(_ ledger.Hash, err error) error { return err }

func TestChainReplay(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "heads")
	c := openTestChain(t, path)
	hs := headersFrom(0, c.genesis, 50, "a")
	if err := c.append(hs); err != nil {
		t.Fatal(err)
	}
	c.close()
	if err := os.Truncate(path, 45*recordSize+7); err != nil { // a torn record
		t.Fatal(err)
	}
	c = openTestChain(t, path)
	if _, err := c.header(1); err == nil {
		t.Error("believes records before the log is replayed over them")
	}
	if err := c.append(hs[:30]); err != nil {
		t.Fatal(err)
	}
	if err := c.append(hs[30:]); err != nil { // over the torn one
		t.Fatal(err)
	}
	if _, err := c.descend(0, c.genesis, 50); err != nil {
		t.Error(err)
	}
	if other, _ := filepath.Glob(path + ".other-*"); len(other) != 0 {
		t.Errorf("replay of the same put aside %q", other)
	}
	c.close()

	// Replay gives another history from 21 on: the old one is kept as evidence.
	c = openTestChain(t, path)
	fork := headersFrom(20, hs[19].Head(), 5, "b")
	if err := errors.Join(c.append(hs[:20]), c.append(fork)); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path + ".other-21")
	if err != nil || len(b) != 30*recordSize || decodeHeader(b) != hs[20] {
		t.Errorf("evidence of %d records, %v", len(b)/recordSize, err)
	}
	if head, err := c.descend(0, c.genesis, 25); err != nil || head != fork[4].Head() {
		t.Error(err)
	}
}
