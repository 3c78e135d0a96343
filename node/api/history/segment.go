package history

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync/atomic"

	"github.com/coffer-network/coffer/ledger"
	"github.com/fxamacker/cbor/v2"
)

// A segment is one file of records, and one file that says where in it a key
// occurs:
//
//	NNNNNNNNNNNNNNNNNNNN.log   cluster hash, from, prev; then per record: length, CRC-32C, CBOR
//	NNNNNNNNNNNNNNNNNNNN.idx   sorted rows of 8 bytes of key hash and 4 of offset; rows of
//	                           8 bytes of LogIndex and 4 of offset; counts; CRC-32C
//
// N is from: nothing is missing from that LogIndex to the segment's end. prev is
// the from of the segment that it goes on from; 0 where one begins anew. The index is written when the segment
// is full and made again from the log whenever it is not sound.
const (
	// SegmentBytes is where a segment ends. Opening reads one segment and the
	// indices of the others.
	SegmentBytes = 16 << 20
	// MaxSegments bounds the whole history to 512 MiB; the oldest goes first. At
	// four price rounds a minute and a request a second that is about a month.
	MaxSegments = 32
	// maxRecord is far above what one command can do: 64 KiB come in.
	maxRecord = 1 << 20

	headBytes = 32 + 8 + 8
	frameHead = 8
	rowBytes  = 12
	tailBytes = 4*8 + 4
	// sparse is how many offsets of record starts are skipped between two that
	// are kept: a walk from a height reads at most this many records for nothing.
	sparse = 64
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// row says where in the log a key hash occurs; in starts, a LogIndex.
type row struct {
	hash   uint64
	offset uint32
}

type segment struct {
	path   string
	from   uint64
	prev   uint64
	last   uint64 // LogIndex of its last record
	size   int64
	f      *os.File
	bad    atomic.Bool // a reader met damage in it
	rows   []row       // of a segment that is not full yet; unsorted
	idx    *os.File    // of a full one
	count  int64       // rows in idx
	starts []row
	n      int // records noted since it was opened
}

func hashOf(k Key) uint64 {
	h := fnv.New64a()
	h.Write([]byte(k)) // never fails
	return h.Sum64()
}

func create(dir string, cluster ledger.Hash, from, prev uint64) (*segment, error) {
	path := filepath.Join(dir, fmt.Sprintf("%020d.log", from))
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	s := &segment{path: path, from: from, prev: prev, f: f, size: headBytes}
	head := binary.BigEndian.AppendUint64(slices.Clone(cluster[:]), from)
	if _, err := f.WriteAt(binary.BigEndian.AppendUint64(head, prev), 0); err != nil {
		s.remove()
		return nil, err
	}
	return s, nil
}

var errDamaged = errors.New("damaged")

// open opens a segment. The newest may end in half a record, which is cut off;
// damage inside is an error and costs the whole segment.
func open(path string, cluster ledger.Hash, newest bool) (_ *segment, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	s := &segment{path: path, f: f}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	var head [headBytes]byte
	if _, err := f.ReadAt(head[:], 0); err != nil || ledger.Hash(head[:32]) != cluster {
		return nil, fmt.Errorf("%s: %w: of another cluster", path, errDamaged)
	}
	s.from, s.prev = binary.BigEndian.Uint64(head[32:]), binary.BigEndian.Uint64(head[40:])
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !newest && s.loadIndex(info.Size()) {
		return s, nil
	}
	s.size = headBytes
	for s.size < info.Size() {
		r, n, err := s.at(s.size)
		if err != nil && !newest {
			return nil, fmt.Errorf("%s at %d: %w", path, s.size, err)
		}
		if err != nil {
			if err := f.Truncate(s.size); err != nil {
				return nil, err
			}
			break
		}
		s.note(r, n)
	}
	if s.n == 0 {
		return nil, fmt.Errorf("%s: %w: empty", path, errDamaged)
	}
	if !newest {
		s.seal()
	}
	return s, nil
}

// note keeps where a record is that ends the segment now.
func (s *segment) note(r Record, n int64) {
	if s.n%sparse == 0 {
		s.starts = append(s.starts, row{r.Height, uint32(s.size)})
	}
	for _, k := range r.keys() {
		s.rows = append(s.rows, row{hashOf(k), uint32(s.size)})
	}
	s.n++
	s.last = r.Height
	s.size += n
}

// append writes records as one piece, or leaves the segment as it was.
func (s *segment) append(rs []Record) error {
	var b bytes.Buffer
	sizes := make([]int64, len(rs))
	for i, r := range rs {
		body := r.encode()
		var head [frameHead]byte
		binary.BigEndian.PutUint32(head[:4], uint32(len(body)))
		binary.BigEndian.PutUint32(head[4:], crc32.Checksum(body, castagnoli))
		b.Write(head[:])
		b.Write(body)
		sizes[i] = int64(frameHead + len(body))
	}
	if _, err := s.f.WriteAt(b.Bytes(), s.size); err != nil {
		s.f.Truncate(s.size) // half a record is cut off at the next start all the same
		return err
	}
	for i, r := range rs {
		s.note(r, sizes[i])
	}
	return nil
}

// at reads the record at an offset and its length in the file.
func (s *segment) at(offset int64) (Record, int64, error) {
	var head [frameHead]byte
	if _, err := s.f.ReadAt(head[:], offset); err != nil {
		return Record{}, 0, fmt.Errorf("%w: %w", errDamaged, err)
	}
	n := binary.BigEndian.Uint32(head[:4])
	if n == 0 || n > maxRecord {
		return Record{}, 0, fmt.Errorf("%w: a record of %d bytes", errDamaged, n)
	}
	body := make([]byte, n)
	if _, err := s.f.ReadAt(body, offset+frameHead); err != nil {
		return Record{}, 0, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(head[4:]) {
		return Record{}, 0, fmt.Errorf("%w: checksum", errDamaged)
	}
	var r Record
	if err := cbor.Unmarshal(body, &r); err != nil {
		return Record{}, 0, fmt.Errorf("%w: %w", errDamaged, err)
	}
	return r, int64(frameHead) + int64(n), nil
}

// seal ends a segment: its rows go to a file and out of memory. Where that
// fails they stay.
func (s *segment) seal() {
	s.f.Sync() // a lost tail is a gap, which readers are told of
	slices.SortFunc(s.rows, func(a, b row) int { return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.offset, b.offset)) })
	b := make([]byte, 0, (len(s.rows)+len(s.starts))*rowBytes+tailBytes)
	for _, r := range append(slices.Clone(s.rows), s.starts...) {
		b = binary.BigEndian.AppendUint64(b, r.hash)
		b = binary.BigEndian.AppendUint32(b, r.offset)
	}
	for _, n := range []uint64{uint64(len(s.rows)), uint64(len(s.starts)), s.last, uint64(s.size)} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	name := s.indexPath()
	if err := os.WriteFile(name, b, 0o600); err != nil {
		os.Remove(name)
		return
	}
	f, err := os.Open(name)
	if err != nil {
		return
	}
	s.idx, s.count, s.rows = f, int64(len(s.rows)), nil
}

func (s *segment) indexPath() string { return strings.TrimSuffix(s.path, ".log") + ".idx" }

// loadIndex reports whether the index beside a segment of this size is sound,
// and keeps of it what is not looked up on the disk.
func (s *segment) loadIndex(size int64) bool {
	b, err := os.ReadFile(s.indexPath())
	if err != nil || len(b) < tailBytes {
		return false
	}
	body, tail := b[:len(b)-tailBytes], b[len(b)-tailBytes:]
	if crc32.Checksum(b[:len(b)-4], castagnoli) != binary.BigEndian.Uint32(tail[tailBytes-4:]) {
		return false
	}
	n := func(i int) int64 { return int64(binary.BigEndian.Uint64(tail[8*i:])) }
	if int64(len(body)) != (n(0)+n(1))*rowBytes || n(3) != size {
		return false
	}
	f, err := os.Open(s.indexPath())
	if err != nil {
		return false
	}
	s.idx, s.count, s.last, s.size = f, n(0), uint64(n(2)), size
	for at := body[n(0)*rowBytes:]; len(at) > 0; at = at[rowBytes:] {
		s.starts = append(s.starts, row{binary.BigEndian.Uint64(at), binary.BigEndian.Uint32(at[8:])})
	}
	return true
}

// offsets are those of the records that may have a key, ascending.
func (s *segment) offsets(k Key) ([]uint32, error) {
	h := hashOf(k)
	var out []uint32
	if s.idx == nil {
		for _, r := range s.rows {
			if r.hash == h {
				out = append(out, r.offset)
			}
		}
		slices.Sort(out)
		return out, nil
	}
	var failed error
	read := func(i int64) row {
		var b [rowBytes]byte
		if _, err := s.idx.ReadAt(b[:], i*rowBytes); err != nil {
			failed = err
		}
		return row{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint32(b[8:])}
	}
	i := int64(sort.Search(int(s.count), func(i int) bool { return read(int64(i)).hash >= h }))
	for ; i < s.count && failed == nil; i++ {
		r := read(i)
		if r.hash != h {
			break
		}
		out = append(out, r.offset)
	}
	return out, failed
}

// walkFrom is an offset at or before the first record above a height.
func (s *segment) walkFrom(height uint64) int64 {
	i := sort.Search(len(s.starts), func(i int) bool { return s.starts[i].hash > height })
	if i == 0 {
		return headBytes
	}
	return int64(s.starts[i-1].offset)
}

func (s *segment) close() error {
	var errs []error
	for _, f := range []*os.File{s.f, s.idx} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

func (s *segment) remove() {
	s.close() // it goes away
	os.Remove(s.path)
	os.Remove(s.indexPath())
}
