package keystore

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
)

var (
	// ErrPassphrase: the passphrase does not open this keystore.
	ErrPassphrase = errors.New("keystore: wrong passphrase")
	// ErrJoined: this node joined the session before, perhaps before a crash.
	ErrJoined = errors.New("keystore: session joined before")
	// ErrNotFound: there is no such record, and never was.
	ErrNotFound = errors.New("keystore: no such record")
	// ErrCorrupt: a record exists and cannot be read; see CorruptError.
	ErrCorrupt = errors.New("keystore: record is corrupt")
	// ErrWiped: the key share was here and was wiped under a certificate.
	ErrWiped = errors.New("keystore: key share was wiped")
	// ErrMode: others than the owner could read or write the directory.
	ErrMode = errors.New("keystore: permissions too wide")
	// ErrExists: Init found a keystore.
	ErrExists = errors.New("keystore: exists already")
)

// CorruptError names the record that cannot be read. It is an ErrCorrupt.
type CorruptError struct {
	Record string
	Err    error
}

func (e *CorruptError) Error() string   { return fmt.Sprintf("%v: %s: %v", ErrCorrupt, e.Record, e.Err) }
func (e *CorruptError) Unwrap() []error { return []error{ErrCorrupt, e.Err} }

// Options of a keystore.
type Options struct {
	Node [32]byte     // identity of the node; every record is bound to it
	Log  *slog.Logger // nil: discard
	// TestWorkFactor is log2 of scrypt's N for Init; 0 means 18. Lower it in
	// tests only: it is all that stands between a stolen disk and the shares.
	TestWorkFactor int
}

// Keystore is an open directory.
type Keystore struct {
	db      *badger.DB
	dir     string
	node    [32]byte
	fileKey []byte
	log     *slog.Logger

	shareMu sync.Mutex // one change of KeyShares at a time
	poolMu  sync.Mutex // one taker of the pool at a time
	once    sync.Once
}

const (
	keyFile = "keystore.key"
	keysDir = "datakeys" // one wrapped data key per KeyShare, see datakey.go
	dbDir   = "db"
)

// Init makes a new keystore in dir, which must not exist or be empty, and opens
// it.
func Init(dir string, passphrase []byte, o Options) (*Keystore, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("init keystore: %w", err)
	}
	if err := checkModes(dir); err != nil {
		return nil, fmt.Errorf("init keystore: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("init keystore: %w", err)
	}
	if len(entries) > 0 {
		return nil, fmt.Errorf("init keystore %s: %w", dir, ErrExists)
	}
	if err := writeKeyFile(filepath.Join(dir, keyFile), passphrase, o); err != nil {
		return nil, fmt.Errorf("init keystore: %w", err)
	}
	return Open(dir, passphrase, o)
}

// Open opens the keystore in dir. A wrong passphrase is ErrPassphrase, modes
// wider than 0700 and 0600 are ErrMode.
func Open(dir string, passphrase []byte, o Options) (*Keystore, error) {
	if err := checkModes(dir); err != nil {
		return nil, fmt.Errorf("open keystore: %w", err)
	}
	fileKey, err := readKeyFile(filepath.Join(dir, keyFile), passphrase, o.Node)
	if err != nil {
		return nil, fmt.Errorf("open keystore %s: %w", dir, err)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	db, err := badger.Open(badgerOptions(filepath.Join(dir, dbDir)))
	if err != nil {
		clear(fileKey)
		return nil, fmt.Errorf("open keystore %s: %w", dir, err)
	}
	k := &Keystore{db: db, dir: dir, node: o.Node, fileKey: fileKey, log: o.Log}
	if err := k.finishWipes(); err != nil {
		k.Close()
		return nil, fmt.Errorf("open keystore %s: %w", dir, err)
	}
	return k, nil
}

// badgerOptions: every commit reaches the disk before it returns, and memory
// stays small, for the directory holds a few hundred kilobytes.
func badgerOptions(dir string) badger.Options {
	return badger.DefaultOptions(dir).
		WithSyncWrites(true).
		WithLogger(nil).
		WithMemTableSize(8 << 20).
		WithNumMemtables(2).
		WithValueLogFileSize(16 << 20).
		WithCompression(options.None).
		WithBlockCacheSize(0).
		WithIndexCacheSize(0).
		WithNumVersionsToKeep(1).
		WithNumCompactors(2).
		WithMetricsEnabled(false).
		// Why not OnBlockRead: Badger's iterators end quietly at a block that
		// fails its checksum, so a compaction would drop every record behind
		// it. Each record's own authentication names exactly what is damaged.
		WithChecksumVerificationMode(options.NoVerification)
}

// Close closes the directory and forgets the file key. No other method may run.
func (k *Keystore) Close() error {
	var err error
	k.once.Do(func() {
		err = k.db.Close()
		clear(k.fileKey)
	})
	if err != nil {
		return fmt.Errorf("close keystore: %w", err)
	}
	return nil
}

// checkModes refuses a directory or key file that others could read or write.
func checkModes(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is no directory", dir)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%w: %s has mode %04o, want 0700", ErrMode, dir, info.Mode().Perm())
	}
	path := filepath.Join(dir, keyFile)
	info, err = os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // Init writes it; Open reports it
	}
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o177 != 0 {
		return fmt.Errorf("%w: %s has mode %04o, want 0600", ErrMode, path, info.Mode().Perm())
	}
	return nil
}

// update runs one read-write transaction; it is on disk when update returns.
func (k *Keystore) update(f func(*badger.Txn) error) error { return k.db.Update(f) }

func (k *Keystore) view(f func(*badger.Txn) error) error { return k.db.View(f) }
