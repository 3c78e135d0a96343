package history

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/coffer-network/coffer/ledger"
)

const (
	// maxRecent records stay in memory: what streams read at once, and what has
	// not reached the disk yet. Sixteen full raft entries fit.
	maxRecent = 4096
	// oneWrite records at most go to the disk in one write: a segment is at most
	// that many longer than SegmentBytes.
	oneWrite = 16
	// retryEvery is how often a disk that refused is asked again.
	retryEvery = 5 * time.Second
)

var (
	// ErrUnavailable: the disk is not read or written now.
	ErrUnavailable = errors.New("history unavailable")
	// ErrForgotten: older than what is kept.
	ErrForgotten = errors.New("older than this node's history")
)

// Config is what Open needs.
type Config struct {
	Dir     string      // "": the recent records only, in memory
	Cluster ledger.Hash // whose log it is: a history of another is set aside
	Log     *slog.Logger
	Failed  func() // called for every failed read or write; nil: nobody counts

	segmentBytes int64 // tests make them small
	segments     int
}

// Store is one node's history. Applied never waits for the disk: one goroutine
// writes behind it.
type Store struct {
	cfg Config

	mu      sync.Mutex
	recent  []Record // ascending, at most maxRecent
	floor   uint64   // above this LogIndex recent lacks nothing
	pending []queued // of recent, not on the disk yet; at most maxRecent
	dropped uint64   // how often pending was too long and let go
	last    uint64   // LogIndex told last, with or without a record
	since   uint64   // from this LogIndex on nothing is missing
	err     error    // why the disk is not used now
	changed chan struct{}

	files   sync.RWMutex // guards segs and written; taken before mu
	segs    []*segment   // ascending; the last one is written to
	written uint64       // LogIndex of the last record that reached the disk

	wake chan struct{}
	stop chan struct{}
	done chan struct{}
	once sync.Once
}

// queued is a record with the LogIndex from which nothing before it is missing.
type queued struct {
	Record
	since uint64
}

// Open continues the history in a directory. It never fails: what cannot be
// used is set aside, with a line in the log, and a directory that cannot be used
// leaves a Store that answers ErrUnavailable until it can.
func Open(cfg Config) *Store {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Failed == nil {
		cfg.Failed = func() {}
	}
	if cfg.segmentBytes == 0 {
		cfg.segmentBytes, cfg.segments = SegmentBytes, MaxSegments
	}
	s := &Store{cfg: cfg, changed: make(chan struct{}), wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	if cfg.Dir == "" {
		close(s.done)
		return s
	}
	s.failed(s.load())
	go s.write()
	return s
}

// load reads what an earlier life left.
func (s *Store) load() error {
	if err := os.MkdirAll(s.cfg.Dir, 0o700); err != nil {
		return err
	}
	names, err := filepath.Glob(filepath.Join(s.cfg.Dir, "*.log"))
	if err != nil {
		return err
	}
	slices.Sort(names)
	for i, name := range names {
		g, err := open(name, s.cfg.Cluster, i == len(names)-1)
		if err != nil {
			if err := s.setAside(name, err); err != nil {
				return err
			}
			continue
		}
		s.segs = append(s.segs, g)
	}
	if len(s.segs) == 0 {
		return nil // whole from the first command that is told
	}
	last, since := s.readMark()
	s.written = s.segs[len(s.segs)-1].last
	s.last = max(s.written, last)
	s.since = max(s.whole(), since)
	s.floor = s.last
	return nil
}

// setAside takes a file out of use. It is not deleted, since somebody may want
// to know what happened; the next damaged one takes its place.
func (s *Store) setAside(name string, why error) error {
	s.cfg.Log.Warn("history: a file is set aside", slog.String("file", filepath.Base(name)), slog.Any("err", why))
	s.cfg.Failed()
	return os.Rename(name, filepath.Join(s.cfg.Dir, "damaged"))
}

// whole is the LogIndex from which the segments lack nothing: they are followed
// back as far as each goes on from the one before it.
func (s *Store) whole() uint64 {
	i := len(s.segs) - 1
	for i > 0 && s.segs[i].prev != 0 && s.segs[i].prev == s.segs[i-1].from {
		i--
	}
	return s.segs[i].from
}

// The mark is the LogIndex told last and since: most commands have no effect
// worth a record, and a restart must not take them for a gap.

func (s *Store) markPath() string { return filepath.Join(s.cfg.Dir, "mark") }

func (s *Store) readMark() (last, since uint64) {
	b, err := os.ReadFile(s.markPath())
	if err != nil || len(b) != 20 || crc32.Checksum(b[:16], castagnoli) != binary.BigEndian.Uint32(b[16:]) {
		return 0, 0 // at worst a gap is seen where none is
	}
	return binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])
}

func (s *Store) writeMark(last, since uint64) error {
	b := binary.BigEndian.AppendUint64(nil, last)
	b = binary.BigEndian.AppendUint64(b, since)
	return os.WriteFile(s.markPath(), binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli)), 0o600)
}

// Applied tells of commands in the order of their LogIndex, those without
// effects too. What was told before (a replay after a restart) is not told
// again. It never waits for the disk.
func (s *Store) Applied(rs ...Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range rs {
		if r.Height <= s.last {
			continue
		}
		if r.Height != s.last+1 { // a snapshot was taken over
			s.since, s.floor, s.recent = r.Height, r.Height-1, nil
		}
		s.last = r.Height
		if r.empty() {
			continue
		}
		if len(s.recent) == maxRecent {
			s.floor = s.recent[0].Height
			s.recent = s.recent[1:]
		}
		s.recent = append(s.recent, r)
		if s.cfg.Dir == "" {
			s.since = max(s.since, s.floor+1)
			continue
		}
		if len(s.pending) == maxRecent {
			s.pending, s.since = nil, r.Height
			s.dropped++
		}
		s.pending = append(s.pending, queued{r, s.since})
	}
	close(s.changed)
	s.changed = make(chan struct{})
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// write is the one goroutine that writes.
func (s *Store) write() {
	defer close(s.done)
	t := time.NewTicker(retryEvery)
	defer t.Stop()
	for {
		select {
		case <-s.stop:
			s.flush()
			return
		case <-s.wake:
			if s.down() {
				continue // until the next retry
			}
		case <-t.C:
			if !s.down() {
				continue
			}
		}
		s.flush()
	}
}

func (s *Store) down() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err != nil
}

// flush puts on the disk what is pending.
func (s *Store) flush() {
	s.files.Lock()
	s.mu.Lock()
	todo, dropped, last, since := s.pending, s.dropped, s.last, s.since
	s.mu.Unlock()
	n, err := 0, os.MkdirAll(s.cfg.Dir, 0o700) // it may have been the reason of the last failure
	if err == nil {
		n, err = s.put(todo)
	}
	if err == nil {
		err = s.writeMark(last, since)
	}
	s.mu.Lock()
	if s.dropped == dropped {
		s.pending = s.pending[n:]
	}
	if len(s.segs) > 0 {
		s.since = max(s.since, s.segs[0].from)
	}
	s.mu.Unlock()
	s.files.Unlock()
	s.failed(err)
}

// put writes what it can, and says how many that were.
func (s *Store) put(todo []queued) (n int, err error) {
	for _, g := range slices.Clone(s.segs) {
		if g.bad.Load() {
			if err := s.drop(g); err != nil {
				return 0, err
			}
		}
	}
	for n < len(todo) {
		to, err := s.segment(todo[n])
		if err != nil {
			return n, err
		}
		end := n + 1 // as many as belong together and fit, in one write
		for end < len(todo) && end-n < oneWrite && todo[end].since == todo[n].since {
			end++
		}
		rs := make([]Record, 0, end-n)
		for _, q := range todo[n:end] {
			rs = append(rs, q.Record)
		}
		if err := to.append(rs); err != nil {
			return n, err
		}
		n, s.written = end, rs[len(rs)-1].Height
	}
	return n, nil
}

// drop sets a damaged segment aside, and with it all that came before: a history
// with a hole is not one.
func (s *Store) drop(bad *segment) error {
	i := slices.Index(s.segs, bad)
	if i < 0 {
		return nil
	}
	for _, g := range s.segs[:i] {
		g.remove()
	}
	bad.close()
	os.Remove(bad.indexPath())
	next := bad.last + 1
	s.segs = s.segs[i+1:]
	s.mu.Lock()
	if len(s.segs) > 0 {
		next = s.segs[0].from
	}
	s.since = max(s.since, next)
	s.mu.Unlock()
	return s.setAside(bad.path, errDamaged)
}

// segment is the one that a record is to be written to.
func (s *Store) segment(q queued) (*segment, error) {
	prev := uint64(0)
	if n := len(s.segs); n > 0 {
		g := s.segs[n-1]
		whole := q.since <= g.from || q.since <= s.whole()
		if whole && g.size < s.cfg.segmentBytes {
			return g, nil
		}
		g.seal()
		if whole {
			prev = g.from
		}
	}
	from := q.since
	if prev != 0 || from <= s.written { // it goes on, or what came before was set aside
		from = s.written + 1
	}
	g, err := create(s.cfg.Dir, s.cfg.Cluster, max(from, 1), prev)
	if err != nil {
		return nil, err
	}
	s.segs = append(s.segs, g)
	for len(s.segs) > s.cfg.segments {
		s.segs[0].remove()
		s.segs = s.segs[1:]
	}
	return g, nil
}

// failed notes whether the disk can be used. One line a change.
func (s *Store) failed(err error) {
	s.mu.Lock()
	before := s.err
	s.err = err
	s.mu.Unlock()
	if err != nil {
		s.cfg.Failed()
	}
	switch {
	case err != nil && before == nil:
		s.cfg.Log.Error("history: not kept now; the ledger goes on without it", slog.Any("err", err))
	case err == nil && before != nil:
		s.cfg.Log.Info("history: kept again")
	}
}

// Close writes what is pending and ends.
func (s *Store) Close() error {
	s.once.Do(func() { close(s.stop) })
	<-s.done
	s.files.Lock()
	defer s.files.Unlock()
	var errs []error
	for _, g := range s.segs {
		errs = append(errs, g.f.Sync(), g.close())
	}
	s.segs = nil
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cfg.Dir != "" && s.err == nil {
		s.err = os.ErrClosed
	}
	return errors.Join(errs...)
}

// Now is the LogIndex told last, and a channel that closes when there is more.
func (s *Store) Now() (last uint64, more <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last, s.changed
}

// Since is the LogIndex from which on nothing is missing.
func (s *Store) Since() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.since
}

// After are records above a LogIndex, ascending, at most limit of them, and the
// LogIndex through which they are all. ErrForgotten: some are gone.
func (s *Store) After(height uint64, limit int) (rs []Record, through uint64, err error) {
	s.files.RLock()
	defer s.files.RUnlock()
	s.mu.Lock()
	since, floor, last, broken := s.since, s.floor, s.last, s.err
	if height >= floor {
		i := sort.Search(len(s.recent), func(i int) bool { return s.recent[i].Height > height })
		rs = slices.Clone(s.recent[i:min(i+limit, len(s.recent))])
		s.mu.Unlock()
		if len(rs) == limit {
			last = rs[limit-1].Height
		}
		return rs, max(last, height), nil
	}
	s.mu.Unlock()
	switch {
	case height+1 < since:
		return nil, 0, ErrForgotten
	case broken != nil:
		return nil, 0, fmt.Errorf("%w: %w", ErrUnavailable, broken)
	}
	for _, g := range s.segs {
		if g.last <= height {
			continue
		}
		for at := g.walkFrom(height); at < g.size; {
			r, n, err := g.at(at)
			if err != nil {
				return nil, 0, s.damaged(g, err)
			}
			at += n
			switch {
			case r.Height <= height:
				continue
			case r.Height > floor:
				return rs, floor, nil // memory has the rest
			}
			if rs = append(rs, r); len(rs) == limit {
				return rs, r.Height, nil
			}
		}
	}
	return rs, floor, nil
}

// Find are the records with a key below a LogIndex (0: all), newest first, at
// most limit of them.
func (s *Store) Find(k Key, below uint64, limit int) ([]Record, error) {
	if below == 0 {
		below = 1<<64 - 1
	}
	s.files.RLock()
	defer s.files.RUnlock()
	var rs []Record
	s.mu.Lock()
	memory := s.recent
	if s.cfg.Dir != "" {
		memory = memory[len(memory)-min(len(s.pending), len(memory)):]
	}
	broken := s.err
	s.mu.Unlock()
	if broken != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, broken)
	}
	for i := len(memory) - 1; i >= 0 && len(rs) < limit; i-- {
		if r := memory[i]; r.Height < below && r.has(k) {
			rs = append(rs, r)
		}
	}
	for i := len(s.segs) - 1; i >= 0 && len(rs) < limit; i-- {
		g := s.segs[i]
		if g.from >= below {
			continue
		}
		offsets, err := g.offsets(k)
		if err != nil {
			return nil, s.damaged(g, err)
		}
		for j := len(offsets) - 1; j >= 0 && len(rs) < limit; j-- {
			r, _, err := g.at(int64(offsets[j]))
			if err != nil {
				return nil, s.damaged(g, err)
			}
			if r.Height < below && r.has(k) { // another key may have the same hash
				rs = append(rs, r)
			}
		}
	}
	return rs, nil
}

// damaged notes a segment that cannot be read: the writer sets it aside.
func (s *Store) damaged(g *segment, err error) error {
	g.bad.Store(true)
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// Request is what became of a text: the answer that used up its nonce, else the
// newest refusal.
func (s *Store) Request(id ledger.Hash) (Record, bool) {
	const tries = 32 // the same text sent again and again: its answer is among the last
	rs, err := s.Find(ByRequest(id), 0, tries)
	if err != nil || len(rs) == 0 {
		return Record{}, false
	}
	if i := slices.IndexFunc(rs, func(r Record) bool { return r.Final }); i >= 0 {
		return rs[i], true
	}
	return rs[0], true
}
