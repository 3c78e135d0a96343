package consensus

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/coffer-network/coffer/ledger"
)

// sink writes one snapshot: this node's own by persist, another's by Write. All
// checks come before Close makes it the newest on disk, as raft restores only
// after that (spec: consensus §5.3, R6).
type sink struct {
	store *snapshots
	id    string
	index uint64
	file  *os.File
	meta  fileMeta

	// Of a snapshot that is installed: Write feeds receive.
	pipe     *io.PipeWriter
	received chan error
	headers  *os.File

	whole  bool // everything checked
	closed bool
}

func (s *snapshots) Create(version raft.SnapshotVersion, index, term uint64, conf raft.Configuration, confIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	id := fmt.Sprintf("%020d-%020d", index, term)
	f, err := os.Create(s.path(id) + ".tmp")
	if err != nil {
		return nil, fmt.Errorf("create snapshot: %w", err)
	}
	if _, err := f.Seek(metaPage, io.SeekStart); err != nil {
		f.Close()
		return nil, fmt.Errorf("create snapshot: %w", err)
	}
	return &sink{store: s, id: id, index: index, file: f, meta: fileMeta{
		Version: uint8(version), Term: term, Conf: raft.EncodeConfiguration(conf), ConfIndex: confIndex,
	}}, nil
}

func (k *sink) ID() string { return k.id }

// persist writes this node's own state.
func (k *sink) persist(height uint64, head ledger.Hash, encode func(io.Writer) error) error {
	hash := sha256.New()
	buf := bufio.NewWriterSize(k.file, 1<<20)
	n := &counter{w: io.MultiWriter(buf, hash)}
	if err := encode(n); err != nil {
		return fmt.Errorf("encode snapshot: %w", err)
	}
	if err := buf.Flush(); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	// The file's headers are the chain's: they must be as durable as it.
	if err := k.store.c.chain.sync(); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	k.meta.Stream = streamHead{Cluster: k.store.c.cfg.Cluster, Height: height, Head: head, Index: k.index,
		Length: n.n, SHA256: ledger.Hash(hash.Sum(nil))}
	k.meta.Unproven = k.store.c.unproven.Load()
	k.whole = true
	return nil
}

type counter struct {
	w io.Writer
	n uint64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += uint64(n)
	return n, err
}

// Write takes the stream of another member's snapshot.
func (k *sink) Write(b []byte) (int, error) {
	if k.pipe == nil {
		r, w := io.Pipe()
		k.pipe, k.received = w, make(chan error, 1)
		go func() {
			err := k.receive(r)
			r.CloseWithError(errors.Join(err, io.ErrClosedPipe)) // what comes later is refused
			k.received <- err
		}()
	}
	return k.pipe.Write(b)
}

func (k *sink) receive(r io.Reader) error {
	c := k.store.c
	s, err := readPrefix(r, c.cfg.Cluster)
	if err != nil {
		return err
	}
	if s.Index != k.index {
		return fmt.Errorf("%w: of raft index %d, announced %d", errSnapshot, s.Index, k.index)
	}
	at, promise := c.now(), c.Promise()
	if s.Height < at.Height {
		return fmt.Errorf("%w: of height %d, applied is %d", errSnapshot, s.Height, at.Height)
	}
	if k.headers, err = os.Create(k.store.headersPath(k.id) + ".tmp"); err != nil {
		return err
	}
	w := bufio.NewWriterSize(k.headers, 1<<20)
	head, err := walk(r, 0, c.cfg.Cluster, s.Height, func(hs []ledger.Header) error {
		if err := c.against(hs); err != nil {
			return fmt.Errorf("%w: %w", errSnapshot, err)
		}
		for _, h := range hs {
			switch {
			case h.Height == at.Height && h.Head() != at.Head:
				return fmt.Errorf("%w: its chain is not the applied one at height %d", errSnapshot, h.Height)
			case h.Height == promise.Height && h.Head() != promise.Head && !c.cfg.off.ancestry:
				return fmt.Errorf("%w: its chain is not the promised one at height %d", errSnapshot, h.Height)
			case h.Height > at.Height:
				if _, err := w.Write(encodeHeader(nil, h)); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if head != s.Head {
		return fmt.Errorf("%w: headers end at another head", errSnapshot)
	}
	buf := bufio.NewWriterSize(k.file, 1<<20)
	body, err := c.readBody(io.TeeReader(r, buf), s)
	if err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if err := c.trustEpochs(body, c.headIn(at.Height, k.headers)); err != nil {
		return fmt.Errorf("%w: %w", errSnapshot, err)
	}
	if err := k.trustServers(body); err != nil {
		return fmt.Errorf("%w: %w", errSnapshot, err)
	}
	if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		return fmt.Errorf("%w: bytes after its end", errSnapshot)
	}
	k.meta.Stream, k.meta.Unproven = s, s.Height
	if s.Height > at.Height {
		k.meta.HeadersFrom = at.Height + 1
	}
	k.whole = true
	return buf.Flush()
}

// trustServers checks the configuration that comes with another member's snapshot
// against the state in it: whoever votes must have been a member of an epoch, since
// one that has just lost its seat may still be there. Others get the log and no
// more, whoever they are.
func (k *sink) trustServers(b Body) error {
	conf, err := decodeConfiguration(k.meta.Conf)
	if err != nil {
		return err
	}
	epochs, _ := b.Epochs()
	for m := range voters(conf) {
		if !slices.ContainsFunc(epochs, func(e ledger.Epoch) bool { return e.Has(m) }) {
			return fmt.Errorf("%w: %s votes and never was a member", errConfiguration, m)
		}
	}
	return nil
}

// Close makes the snapshot the newest, or fails and leaves nothing.
func (k *sink) Close() error {
	if k.closed {
		return nil
	}
	if k.pipe != nil {
		k.pipe.Close()
		if err := <-k.received; err != nil {
			return errors.Join(fmt.Errorf("receive snapshot: %w", err), k.discard())
		}
	}
	if !k.whole {
		return errors.Join(fmt.Errorf("%w: incomplete", errSnapshot), k.discard())
	}
	if err := k.finish(); err != nil {
		return errors.Join(fmt.Errorf("store snapshot: %w", err), k.discard())
	}
	k.closed = true
	k.store.add(snapshotFile{k.id, k.meta})
	return nil
}

func (k *sink) finish() error {
	body := ledger.Marshal(k.meta)
	sum := sha256.Sum256(body)
	page := append(frame(fileMagic, body), sum[:]...)
	if len(page) > metaPage {
		return fmt.Errorf("metadata of %d bytes, at most %d", len(page), metaPage)
	}
	if _, err := k.file.WriteAt(page, 0); err != nil {
		return err
	}
	if k.headers != nil {
		if err := errors.Join(k.headers.Sync(), k.headers.Close()); err != nil {
			return err
		}
		if err := os.Rename(k.headers.Name(), k.store.headersPath(k.id)); err != nil {
			return err
		}
	}
	if err := errors.Join(k.file.Sync(), k.file.Close()); err != nil {
		return err
	}
	if err := os.Rename(k.file.Name(), k.store.path(k.id)); err != nil {
		return err
	}
	return syncDir(k.store.dir)
}

// Cancel drops the snapshot.
func (k *sink) Cancel() error {
	if k.closed {
		return nil
	}
	if k.pipe != nil {
		k.pipe.CloseWithError(errors.New("snapshot cancelled"))
		<-k.received
	}
	return k.discard()
}

func (k *sink) discard() error {
	k.closed = true
	for _, f := range []*os.File{k.file, k.headers} {
		if f != nil {
			f.Close()
			if err := os.Remove(f.Name()); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}
