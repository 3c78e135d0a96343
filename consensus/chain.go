package consensus

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"sync"

	"github.com/coffer-network/coffer/ledger"
)

// chain is the file of all headers since genesis, one record of fixed size per
// height, never shortened below what is applied (spec: consensus R2).
//
// A restart begins below the file's end: records above the restored height are
// not believed but compared, one by one, as the log is replayed over them.
type chain struct {
	genesis ledger.Hash
	path    string

	mu     sync.RWMutex
	f      *os.File
	height uint64 // applied
	head   ledger.Hash
	stored uint64 // records in the file
	roots  []uint64
}

// recordSize: height, and the four hashes of a ledger.Header.
const recordSize = 8 + 4*32

// chainPage is how many records are read at once.
const chainPage = 512

var errBrokenLink = errors.New("headers do not link")

func openChain(path string, genesis ledger.Hash) (*chain, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("open heads: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open heads: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open heads: %w", err)
	}
	return &chain{genesis: genesis, path: path, f: f, head: genesis, stored: uint64(info.Size()) / recordSize}, nil
}

func (c *chain) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.f.Close()
}

func encodeHeader(b []byte, h ledger.Header) []byte {
	b = binary.BigEndian.AppendUint64(b, h.Height)
	b = append(b, h.Prev[:]...)
	b = append(b, h.Command[:]...)
	b = append(b, h.Result[:]...)
	return append(b, h.Root[:]...)
}

func decodeHeader(b []byte) ledger.Header {
	h := ledger.Header{Height: binary.BigEndian.Uint64(b)}
	b = b[8:]
	for _, p := range []*ledger.Hash{&h.Prev, &h.Command, &h.Result, &h.Root} {
		b = b[copy(p[:], b):]
	}
	return h
}

// append adds the headers that follow the applied ones.
func (c *chain) append(hs []ledger.Header) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	height, head := c.height, c.head
	var roots []uint64
	b := make([]byte, 0, len(hs)*recordSize)
	for _, h := range hs {
		if h.Height != height+1 || h.Prev != head {
			return fmt.Errorf("append header %d to height %d: %w", h.Height, height, errBrokenLink)
		}
		height, head = h.Height, h.Head()
		if h.Root != (ledger.Hash{}) {
			roots = append(roots, h.Height)
		}
		b = encodeHeader(b, h)
	}
	if err := c.write(b); err != nil {
		return fmt.Errorf("append header %d: %w", c.height+1, err)
	}
	c.height, c.head, c.roots = height, head, append(c.roots, roots...)
	c.stored = max(c.stored, height)
	return nil
}

// write puts b where the next record goes, comparing what stands there.
func (c *chain) write(b []byte) error {
	off := int64(c.height * recordSize)
	if n := min(int64(len(b)), int64(c.stored-c.height)*recordSize); n > 0 {
		old := make([]byte, n)
		if _, err := c.f.ReadAt(old, off); err != nil {
			return err
		}
		if bytes.Equal(old, b[:n]) {
			b, off = b[n:], off+n
		} else if err := c.setAside(); err != nil {
			return err
		}
	}
	if len(b) == 0 {
		return nil
	}
	_, err := c.f.WriteAt(b, off)
	return err
}

// setAside keeps the records above the applied height in a file of their own and
// takes them out of the chain. After a crash they may be what was never synced;
// after a rewritten log they are the evidence of it (spec: consensus R3).
func (c *chain) setAside() error {
	from := int64(c.height * recordSize)
	other, err := os.Create(fmt.Sprintf("%s.other-%d", c.path, c.height+1))
	if err != nil {
		return err
	}
	defer other.Close()
	if _, err := io.Copy(other, io.NewSectionReader(c.f, from, int64(c.stored-c.height)*recordSize)); err != nil {
		return err
	}
	if err := other.Sync(); err != nil {
		return err
	}
	c.stored = c.height
	return c.f.Truncate(from)
}

func (c *chain) sync() error {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.f.Sync()
}

func (c *chain) header(height uint64) (ledger.Header, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if height == 0 || height > c.height {
		return ledger.Header{}, fmt.Errorf("header %d: applied are 1 to %d", height, c.height)
	}
	var b [recordSize]byte
	if _, err := c.f.ReadAt(b[:], int64((height-1)*recordSize)); err != nil {
		return ledger.Header{}, fmt.Errorf("header %d: %w", height, err)
	}
	return decodeHeader(b[:]), nil
}

func (c *chain) headAt(height uint64) (ledger.Hash, error) {
	if height == 0 {
		return c.genesis, nil
	}
	h, err := c.header(height)
	return h.Head(), err
}

// rootAt returns the last root folded at or below height.
func (c *chain) rootAt(height uint64) (uint64, ledger.Hash, error) {
	c.mu.RLock()
	i := sort.Search(len(c.roots), func(i int) bool { return c.roots[i] > height })
	at := uint64(0)
	if i > 0 {
		at = c.roots[i-1]
	}
	c.mu.RUnlock()
	if at == 0 {
		return 0, ledger.Hash{}, nil
	}
	h, err := c.header(at)
	return at, h.Root, err
}

// descend recomputes every link from the given head at height from up to height
// to, and returns the head there.
func (c *chain) descend(from uint64, head ledger.Hash, to uint64) (ledger.Hash, error) {
	if at, err := c.headAt(from); err != nil {
		return ledger.Hash{}, err
	} else if at != head {
		return ledger.Hash{}, fmt.Errorf("head %d is %s, not %s: %w", from, at, head, errBrokenLink)
	}
	if to < from {
		return ledger.Hash{}, fmt.Errorf("head %d cannot descend from %d: %w", to, from, errBrokenLink)
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	if to > c.height {
		return ledger.Hash{}, fmt.Errorf("head %d: applied are 1 to %d", to, c.height)
	}
	return walk(io.NewSectionReader(c.f, int64(from*recordSize), int64((to-from)*recordSize)), from, head, to, nil)
}

// walk reads the records from+1 … to, checks that each follows the one before,
// and returns the last one's head. each, if given, sees them page by page.
func walk(r io.Reader, from uint64, head ledger.Hash, to uint64, each func([]ledger.Header) error) (ledger.Hash, error) {
	var page [chainPage * recordSize]byte
	for from < to {
		n := min(to-from, chainPage)
		if _, err := io.ReadFull(r, page[:n*recordSize]); err != nil {
			return ledger.Hash{}, fmt.Errorf("read header %d: %w", from+1, err)
		}
		hs := make([]ledger.Header, n)
		for i := range hs {
			hs[i] = decodeHeader(page[i*recordSize:])
			if from++; hs[i].Height != from || hs[i].Prev != head {
				return ledger.Hash{}, fmt.Errorf("header %d: %w", from, errBrokenLink)
			}
			head = hs[i].Head()
		}
		if each != nil {
			if err := each(hs); err != nil {
				return ledger.Hash{}, err
			}
		}
	}
	return head, nil
}
