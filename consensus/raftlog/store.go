package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/hashicorp/raft"
)

var (
	// ErrGap: the entries on disk are not one contiguous run, or the given ones
	// would not continue it.
	ErrGap = errors.New("raft log is not contiguous")
	// ErrCorrupt: an entry on disk does not decode.
	ErrCorrupt = errors.New("corrupt raft log entry")
	// ErrTooLarge: an entry above MaxEntry.
	ErrTooLarge = fmt.Errorf("raft log entry above %d bytes", MaxEntry)
	// ErrBroken: an earlier write failed. What a disk did with it is unknown, and
	// a second fsync may succeed without having written it.
	ErrBroken = errors.New("raft store failed before")

	// errAbsent has the text by which raft tells an absent key from a failure.
	errAbsent = errors.New("not found")
)

const (
	// valueThreshold: every value lies in the memtable's write-ahead log, none
	// in a value log. Badger rotates value logs without syncing the old one
	// unless SyncWrites is on, so an entry there could be acknowledged and lost.
	valueThreshold = 1 << 20
	// MaxEntry bounds an encoded entry, so that it stays below the threshold.
	MaxEntry = valueThreshold - 1

	// memTableSize: one transaction may hold 15 % of it.
	memTableSize = 64 << 20

	// deleteBatch keys are deleted in one transaction.
	deleteBatch = 1000

	// headerSize: term, type, time, length of data.
	headerSize = 8 + 1 + 8 + 4
)

// Store is a raft.LogStore and a raft.StableStore.
type Store struct {
	db *badger.DB

	mu          sync.RWMutex
	first, last uint64 // 0, 0: no entries
	broken      error
	crash       func() error // tests: what happens after a transaction is durable

	sync  func() error // db.Sync; a test's is slower
	syncs syncs
}

var (
	_ raft.LogStore          = (*Store)(nil)
	_ raft.StableStore       = (*Store)(nil)
	_ raft.MonotonicLogStore = (*Store)(nil)
)

// Open opens the store in dir, which is made if absent, and refuses a log with
// a gap.
func Open(dir string) (*Store, error) { return open(dir, memTableSize) }

func open(dir string, memTable int64) (*Store, error) {
	threshold := min(valueThreshold, memTable*15/100) // smaller only in tests
	db, err := badger.Open(badger.DefaultOptions(dir).WithLogger(nil).
		WithSyncWrites(false). // one Sync per call instead; the same durability
		WithValueThreshold(threshold).WithMemTableSize(memTable).WithNumMemtables(2).
		WithCompression(0).WithBlockCacheSize(0).
		WithNumVersionsToKeep(1).WithDetectConflicts(false).WithMetricsEnabled(false).
		WithValueLogFileSize(64 << 20).WithNumCompactors(2))
	if err != nil {
		return nil, fmt.Errorf("open raft store: %w", err)
	}
	s := &Store{db: db, sync: db.Sync}
	if err := s.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("open raft store: %w", err), db.Close())
	}
	return s, nil
}

// Close closes the store.
func (s *Store) Close() error {
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("close raft store: %w", err)
	}
	return nil
}

// IsMonotonic tells raft to empty the log rather than leave a gap in it.
func (s *Store) IsMonotonic() bool { return true }

var logPrefix = []byte{'L'}

func logKey(i uint64) []byte       { return binary.BigEndian.AppendUint64([]byte{'L'}, i) }
func stableKey(name []byte) []byte { return append([]byte{'M'}, name...) }

// load reads the bounds and makes sure that every entry between them exists.
func (s *Store) load() error {
	if err := s.bounds(); err != nil {
		return err
	}
	return s.db.View(func(t *badger.Txn) error {
		it := t.NewIterator(badger.IteratorOptions{Prefix: logPrefix})
		defer it.Close()
		next := s.first
		for it.Rewind(); it.Valid(); it.Next() {
			if i := binary.BigEndian.Uint64(it.Item().Key()[1:]); i != next {
				return fmt.Errorf("%w: entry %d where %d is due", ErrGap, i, next)
			}
			next++
		}
		if s.last != 0 && next != s.last+1 {
			return fmt.Errorf("%w: ends before %d", ErrGap, s.last)
		}
		return nil
	})
}

// bounds finds the first and the last entry.
func (s *Store) bounds() error {
	return s.db.View(func(t *badger.Txn) error {
		seek := func(reverse bool, from []byte) uint64 {
			it := t.NewIterator(badger.IteratorOptions{Reverse: reverse})
			defer it.Close()
			if it.Seek(from); it.ValidForPrefix(logPrefix) {
				return binary.BigEndian.Uint64(it.Item().Key()[1:])
			}
			return 0
		}
		s.first, s.last = seek(false, logPrefix), seek(true, logKey(^uint64(0)))
		return nil
	})
}

// FirstIndex returns the first entry's index, 0 if there are none.
func (s *Store) FirstIndex() (uint64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.first, nil
}

// LastIndex returns the last entry's index, 0 if there are none.
func (s *Store) LastIndex() (uint64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.last, nil
}

func encode(l *raft.Log) []byte {
	b := make([]byte, 0, headerSize+len(l.Data)+len(l.Extensions))
	b = binary.BigEndian.AppendUint64(b, l.Term)
	b = append(b, byte(l.Type))
	b = binary.BigEndian.AppendUint64(b, uint64(l.AppendedAt.UnixNano()))
	b = binary.BigEndian.AppendUint32(b, uint32(len(l.Data)))
	b = append(b, l.Data...)
	return append(b, l.Extensions...)
}

func decode(i uint64, b []byte, l *raft.Log) error {
	if len(b) < headerSize {
		return fmt.Errorf("%w: %d: %d bytes", ErrCorrupt, i, len(b))
	}
	n := int64(binary.BigEndian.Uint32(b[headerSize-4:]))
	rest := b[headerSize:]
	if n > int64(len(rest)) {
		return fmt.Errorf("%w: %d: data of %d bytes, %d are there", ErrCorrupt, i, n, len(rest))
	}
	*l = raft.Log{
		Index: i, Term: binary.BigEndian.Uint64(b), Type: raft.LogType(b[8]),
		AppendedAt: time.Unix(0, int64(binary.BigEndian.Uint64(b[9:]))),
		Data:       append([]byte(nil), rest[:n]...),
	}
	if int64(len(rest)) > n {
		l.Extensions = append([]byte(nil), rest[n:]...)
	}
	return nil
}

// GetLog reads one entry.
func (s *Store) GetLog(i uint64, l *raft.Log) error {
	return s.db.View(func(t *badger.Txn) error {
		it, err := t.Get(logKey(i))
		if errors.Is(err, badger.ErrKeyNotFound) {
			return raft.ErrLogNotFound
		}
		if err != nil {
			return fmt.Errorf("read raft log entry %d: %w", i, err)
		}
		return it.Value(func(b []byte) error { return decode(i, b, l) })
	})
}

// StoreLog stores one entry.
func (s *Store) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs appends entries, in order, and returns when they are durable.
func (s *Store) StoreLogs(ls []*raft.Log) error {
	if len(ls) == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.last + 1
	if s.last == 0 {
		next = ls[0].Index
	}
	values := make([][]byte, len(ls))
	for i, l := range ls {
		if l.Index == 0 || l.Index != next+uint64(i) {
			return fmt.Errorf("%w: entry %d where %d is due", ErrGap, l.Index, next+uint64(i))
		}
		if values[i] = encode(l); len(values[i]) > MaxEntry {
			return fmt.Errorf("entry %d of %d bytes: %w", l.Index, len(values[i]), ErrTooLarge)
		}
	}
	err := s.write(len(ls), func(t *badger.Txn, i int) error { return t.Set(logKey(ls[i].Index), values[i]) })
	if err != nil {
		return fmt.Errorf("store raft log entries %d to %d: %w", ls[0].Index, ls[len(ls)-1].Index, err)
	}
	if s.first == 0 {
		s.first = ls[0].Index
	}
	s.last = ls[len(ls)-1].Index
	return nil
}

// write runs n steps in as few transactions as they fit and syncs each.
//
// Why not one Sync at the end: Badger may begin a new memtable between two
// transactions, and Sync reaches the newest one's write-ahead log only.
func (s *Store) write(n int, step func(t *badger.Txn, i int) error) (err error) {
	if s.broken != nil {
		return s.broken
	}
	defer func() {
		if err != nil {
			s.broken = fmt.Errorf("%w: %w", ErrBroken, err)
		}
	}()
	for done := 0; done < n; {
		t := s.db.NewTransaction(true)
		from := done
		for done < n {
			err := step(t, done)
			if errors.Is(err, badger.ErrTxnTooBig) && done > from {
				break
			}
			if err != nil {
				t.Discard()
				return err
			}
			done++
		}
		if err := t.Commit(); err != nil {
			return err
		}
		s.syncs.begins(time.Now())
		err := s.sync()
		s.syncs.ends(time.Now())
		if err != nil {
			return err
		}
		if s.crash != nil {
			if err := s.crash(); err != nil {
				return err
			}
		}
	}
	return nil
}

// DeleteRange deletes the entries from … to, both included. The head of the log
// goes in ascending order, its tail in descending order, so that what a crash
// leaves is one run.
func (s *Store) DeleteRange(from, to uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	from, to = max(from, s.first), min(to, s.last)
	if s.last == 0 || from > to {
		return nil
	}
	if from > s.first && to < s.last {
		return fmt.Errorf("%w: delete %d to %d within %d to %d", ErrGap, from, to, s.first, s.last)
	}
	tail := from > s.first
	n := to - from + 1
	for done := uint64(0); done < n; {
		size := min(n-done, deleteBatch)
		err := s.write(int(size), func(t *badger.Txn, i int) error {
			k := from + done + uint64(i)
			if tail {
				k = to - done - uint64(i)
			}
			return t.Delete(logKey(k))
		})
		if err != nil {
			return fmt.Errorf("delete raft log entries %d to %d: %w", from, to, err)
		}
		done += size
	}
	return s.bounds()
}

// Set stores a value of raft's own: its term, its vote.
func (s *Store) Set(name, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.write(1, func(t *badger.Txn, _ int) error {
		return t.Set(stableKey(name), append([]byte(nil), value...))
	})
	if err != nil {
		return fmt.Errorf("store raft's %s: %w", name, err)
	}
	return nil
}

// Get reads what Set stored.
func (s *Store) Get(name []byte) (value []byte, err error) {
	err = s.db.View(func(t *badger.Txn) error {
		it, err := t.Get(stableKey(name))
		if errors.Is(err, badger.ErrKeyNotFound) {
			return errAbsent
		}
		if err != nil {
			return fmt.Errorf("read raft's %s: %w", name, err)
		}
		value, err = it.ValueCopy(nil)
		return err
	})
	return value, err
}

// SetUint64 is Set of a number.
func (s *Store) SetUint64(name []byte, v uint64) error {
	return s.Set(name, binary.BigEndian.AppendUint64(nil, v))
}

// GetUint64 is Get of a number.
func (s *Store) GetUint64(name []byte) (uint64, error) {
	b, err := s.Get(name)
	if err != nil {
		return 0, err
	}
	if len(b) != 8 {
		return 0, fmt.Errorf("read raft's %s: %d bytes where 8 are due", name, len(b))
	}
	return binary.BigEndian.Uint64(b), nil
}
