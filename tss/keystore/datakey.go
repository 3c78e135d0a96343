package keystore

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Each KeyShare has a random data key, wrapped by the file key, in a file of its
// own.
//
// Why not a record of Badger: it never writes in place. An overwritten value
// stays in its older tables and logs until they happen to be compacted, and
// nothing says when. A small file is overwritten where it lies. On flash media
// and on file systems that copy on write not even that is sure, which is why the
// manual asks for full-disk encryption.

func (k *Keystore) dataKeyPath(id ShareID) string {
	return filepath.Join(k.dir, keysDir, hex.EncodeToString(idKey(prefixDataKey, id))+".key")
}

func (k *Keystore) dataKeyAD(id ShareID) []byte { return k.recordAD(prefixDataKey, id, 0, nil) }

func (k *Keystore) dataKey(id ShareID, create bool) ([]byte, error) {
	wrapped, err := os.ReadFile(k.dataKeyPath(id))
	switch {
	case errors.Is(err, fs.ErrNotExist) && !create:
		return nil, ErrNotFound
	case errors.Is(err, fs.ErrNotExist):
		return k.makeDataKey(id)
	case err != nil:
		return nil, &CorruptError{Record: "data key of " + id.String(), Err: err}
	}
	dk, err := open(k.fileKey, k.dataKeyAD(id), wrapped)
	if err != nil {
		return nil, &CorruptError{Record: "data key of " + id.String(), Err: err}
	}
	return dk, nil
}

// makeDataKey writes the file and syncs it and its directory before the first
// record is written under it.
func (k *Keystore) makeDataKey(id ShareID) ([]byte, error) {
	if err := os.MkdirAll(filepath.Join(k.dir, keysDir), 0o700); err != nil {
		return nil, err
	}
	dk, err := randomBytes(keyBytes)
	if err != nil {
		return nil, err
	}
	wrapped, err := seal(k.fileKey, k.dataKeyAD(id), dk)
	if err != nil {
		return nil, err
	}
	// Under another name first: a file cut short by a crash would pass for a
	// share that rotted.
	path := k.dataKeyPath(id)
	if err := os.Remove(path + ".new"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := writeFileSync(path+".new", wrapped); err != nil {
		return nil, fmt.Errorf("write data key: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return nil, fmt.Errorf("write data key: %w", err)
	}
	return dk, errors.Join(syncDir(filepath.Join(k.dir, keysDir)), syncDir(k.dir))
}

// destroyDataKey overwrites the wrapped key in place, syncs, and removes it.
// Doing it again is harmless.
func (k *Keystore) destroyDataKey(id ShareID) error {
	path := k.dataKeyPath(id)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		_, err = f.Write(make([]byte, info.Size()))
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("overwrite data key: %w", err)
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
