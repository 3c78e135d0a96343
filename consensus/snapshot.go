package consensus

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/coffer-network/coffer/ledger"
)

// A snapshot travels and is restored as one stream:
//
//	prefix   magic, format version, length, CBOR of streamHead
//	headers  1 … Height, so that the receiver recomputes the whole chain
//	body     what Snapshot.Encode wrote
//
// and lies on disk as a file of one metaPage, which holds raft's metadata and
// the streamHead, and the body. Its headers are in the chain's own file; those
// that came with an installed snapshot lie beside it until the chain has them.
const (
	streamMagic   = "coffersn"
	fileMagic     = "coffersf"
	formatVersion = 1
	metaPage      = 16 << 10 // room for the configuration of some 80 servers
	keptSnapshots = 2
	// maxBody is far above the stated 10⁷ accounts; it keeps a lying leader from
	// filling the disk.
	maxBody = 16 << 30
)

var (
	// ErrSnapshotFormat: a snapshot of a format this version does not know.
	ErrSnapshotFormat = errors.New("unknown snapshot format")

	errSnapshot = errors.New("bad snapshot")
)

type streamHead struct {
	Cluster ledger.Hash `cbor:"1,keyasint"`
	Height  uint64      `cbor:"2,keyasint"`
	Head    ledger.Hash `cbor:"3,keyasint"`
	Index   uint64      `cbor:"4,keyasint"` // raft's
	Length  uint64      `cbor:"5,keyasint"` // of the body
	SHA256  ledger.Hash `cbor:"6,keyasint"` // of the body
}

type fileMeta struct {
	Version   uint8      `cbor:"1,keyasint"` // raft's
	Term      uint64     `cbor:"2,keyasint"`
	Conf      []byte     `cbor:"3,keyasint"` // raft's encoding
	ConfIndex uint64     `cbor:"4,keyasint"`
	Stream    streamHead `cbor:"5,keyasint"`
	// HeadersFrom is the first height whose header lies beside the file, or 0.
	HeadersFrom uint64 `cbor:"6,keyasint"`
	Unproven    uint64 `cbor:"7,keyasint"` // Consensus.unproven with this state
}

// frame is magic, format version, length and body.
func frame(magic string, body []byte) []byte {
	b := append([]byte(magic), 0, 0, 0, formatVersion)
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	return append(b, body...)
}

func readFrame(r io.Reader, magic string) ([]byte, error) {
	var b [16]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return nil, fmt.Errorf("%w: %w", errSnapshot, err)
	}
	if string(b[:8]) != magic {
		return nil, fmt.Errorf("%w: no snapshot", errSnapshot)
	}
	if v := binary.BigEndian.Uint32(b[8:]); v != formatVersion {
		return nil, fmt.Errorf("%w: %d, known is %d", ErrSnapshotFormat, v, formatVersion)
	}
	n := binary.BigEndian.Uint32(b[12:])
	if n > metaPage {
		return nil, fmt.Errorf("%w: header of %d bytes", errSnapshot, n)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, fmt.Errorf("%w: %w", errSnapshot, err)
	}
	return body, nil
}

func readPrefix(r io.Reader, cluster ledger.Hash) (s streamHead, err error) {
	b, err := readFrame(r, streamMagic)
	if err != nil {
		return s, err
	}
	if err := ledger.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("%w: %w", errSnapshot, err)
	}
	if s.Cluster != cluster {
		return s, fmt.Errorf("%w: of cluster %s", errSnapshot, s.Cluster)
	}
	if s.Length > maxBody {
		return s, fmt.Errorf("%w: body of %d bytes", errSnapshot, s.Length)
	}
	return s, nil
}

// readBody decodes the body aside and checks length, hash, height and head.
func (c *Consensus) readBody(r io.Reader, s streamHead) (Body, error) {
	hash := sha256.New()
	limited := &io.LimitedReader{R: r, N: int64(s.Length)}
	tee := io.TeeReader(limited, hash)
	body, err := c.cfg.App.Decode(tee)
	if err != nil {
		return nil, fmt.Errorf("%w: decode body: %w", errSnapshot, err)
	}
	if _, err := io.Copy(io.Discard, tee); err != nil {
		return nil, err
	}
	if limited.N != 0 || ledger.Hash(hash.Sum(nil)) != s.SHA256 {
		return nil, fmt.Errorf("%w: body's length or hash differs", errSnapshot)
	}
	if body.Height() != s.Height || body.Head() != s.Head {
		return nil, fmt.Errorf("%w: body of height %d, head %s, announced %d, %s", errSnapshot, body.Height(), body.Head(), s.Height, s.Head)
	}
	return body, nil
}

// snapshots is raft's SnapshotStore.
type snapshots struct {
	dir string
	c   *Consensus
	log *slog.Logger

	mu   sync.Mutex
	list []snapshotFile // newest first
}

type snapshotFile struct {
	id   string
	meta fileMeta
}

// openSnapshots finds the snapshots on disk. What a crash left half-written is
// removed; what is complete but damaged is put aside, and an unknown format
// refuses the start: a newer version of this program wrote it.
func openSnapshots(dir string, c *Consensus) (*snapshots, error) {
	s := &snapshots{dir: dir, c: c, log: c.log}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open snapshots: %w", err)
	}
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open snapshots: %w", err)
	}
	for _, n := range names {
		id, ok := strings.CutSuffix(n.Name(), ".snap")
		if strings.HasSuffix(n.Name(), ".tmp") {
			if err := os.Remove(filepath.Join(dir, n.Name())); err != nil {
				return nil, fmt.Errorf("open snapshots: %w", err)
			}
		}
		if !ok {
			continue
		}
		meta, err := s.verify(id)
		if errors.Is(err, ErrSnapshotFormat) {
			return nil, fmt.Errorf("open snapshot %s: %w", id, err)
		}
		if err != nil {
			s.log.Error("damaged snapshot put aside", "snapshot", id, "reason", err)
			if err := os.Rename(s.path(id), s.path(id)+".bad"); err != nil {
				return nil, fmt.Errorf("open snapshots: %w", err)
			}
			continue
		}
		s.list = append(s.list, snapshotFile{id, meta})
	}
	slices.SortFunc(s.list, func(a, b snapshotFile) int { return strings.Compare(b.id, a.id) })
	return s, nil
}

func (s *snapshots) path(id string) string        { return filepath.Join(s.dir, id+".snap") }
func (s *snapshots) headersPath(id string) string { return filepath.Join(s.dir, id+".heads") }

func (s *snapshots) verify(id string) (fileMeta, error) {
	f, err := os.Open(s.path(id))
	if err != nil {
		return fileMeta{}, err
	}
	defer f.Close()
	meta, err := readMeta(f)
	if err != nil {
		return meta, err
	}
	if _, err := f.Seek(metaPage, io.SeekStart); err != nil {
		return meta, err
	}
	hash := sha256.New()
	n, err := io.Copy(hash, f)
	if err != nil {
		return meta, err
	}
	if meta.Stream.Cluster != s.c.cfg.Cluster {
		return meta, fmt.Errorf("%w: of cluster %s", errSnapshot, meta.Stream.Cluster)
	}
	if uint64(n) != meta.Stream.Length || ledger.Hash(hash.Sum(nil)) != meta.Stream.SHA256 {
		return meta, fmt.Errorf("%w: body's length or hash differs", errSnapshot)
	}
	return meta, nil
}

func readMeta(f io.Reader) (m fileMeta, err error) {
	b, err := readFrame(f, fileMagic)
	if err != nil {
		return m, err
	}
	var sum ledger.Hash
	if _, err := io.ReadFull(f, sum[:]); err != nil {
		return m, fmt.Errorf("%w: %w", errSnapshot, err)
	}
	if sha256.Sum256(b) != sum {
		return m, fmt.Errorf("%w: metadata hash differs", errSnapshot)
	}
	if err := ledger.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("%w: metadata: %w", errSnapshot, err)
	}
	return m, nil
}

// newest returns raft's index and term of the newest snapshot.
func (s *snapshots) newest() (index, term uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.list) == 0 {
		return 0, 0
	}
	return s.list[0].meta.Stream.Index, s.list[0].meta.Term
}

// configuration is that of the newest snapshot.
func (s *snapshots) configuration() (raft.Configuration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.list) == 0 {
		return raft.Configuration{}, nil
	}
	return decodeConfiguration(s.list[0].meta.Conf)
}

func (s *snapshots) unproven(index uint64) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.list {
		if f.meta.Stream.Index == index {
			return f.meta.Unproven
		}
	}
	return 0
}

func (s *snapshots) List() ([]*raft.SnapshotMeta, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*raft.SnapshotMeta
	for _, f := range s.list {
		out = append(out, f.raftMeta())
	}
	return out, nil
}

func (f snapshotFile) raftMeta() *raft.SnapshotMeta {
	m := f.meta
	return &raft.SnapshotMeta{
		Version: raft.SnapshotVersion(m.Version), ID: f.id, Index: m.Stream.Index, Term: m.Term,
		Configuration: raft.DecodeConfiguration(m.Conf), ConfigurationIndex: m.ConfIndex,
		Size: int64(len(frame(streamMagic, ledger.Marshal(m.Stream)))) + int64(m.Stream.Height)*recordSize + int64(m.Stream.Length),
	}
}

// Open returns the stream of a snapshot, for a restore and for another member.
func (s *snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	s.mu.Lock()
	i := slices.IndexFunc(s.list, func(f snapshotFile) bool { return f.id == id })
	if i < 0 {
		s.mu.Unlock()
		return nil, nil, fmt.Errorf("open snapshot %s: %w", id, os.ErrNotExist)
	}
	file := s.list[i]
	s.mu.Unlock()

	m := file.meta
	inChain := m.Stream.Height
	if m.HeadersFrom != 0 {
		inChain = m.HeadersFrom - 1
	}
	var files closers
	open := func(path string, off, n int64) io.Reader {
		f, err := os.Open(path)
		if err != nil {
			return failing{err}
		}
		files = append(files, f)
		return io.NewSectionReader(f, off, n)
	}
	parts := []io.Reader{
		bytes.NewReader(frame(streamMagic, ledger.Marshal(m.Stream))),
		open(s.c.chain.path, 0, int64(inChain)*recordSize),
	}
	if m.HeadersFrom != 0 {
		parts = append(parts, open(s.headersPath(id), 0, int64(m.Stream.Height-inChain)*recordSize))
	}
	parts = append(parts, open(s.path(id), metaPage, int64(m.Stream.Length)))
	return file.raftMeta(), struct {
		io.Reader
		io.Closer
	}{io.MultiReader(parts...), &files}, nil
}

type closers []io.Closer

func (c *closers) Close() (err error) {
	for _, f := range *c {
		err = errors.Join(err, f.Close())
	}
	return err
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// add makes f the newest and forgets all but keptSnapshots.
func (s *snapshots) add(f snapshotFile) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = slices.DeleteFunc(s.list, func(o snapshotFile) bool { return o.id == f.id })
	s.list = append(s.list, f)
	slices.SortFunc(s.list, func(a, b snapshotFile) int { return strings.Compare(b.id, a.id) })
	for len(s.list) > keptSnapshots {
		old := s.list[len(s.list)-1]
		s.list = s.list[:len(s.list)-1]
		for _, path := range []string{s.path(old.id), s.headersPath(old.id)} {
			if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
				s.log.Warn("old snapshot not removed", "path", path, "reason", err)
			}
		}
	}
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
