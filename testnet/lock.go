package testnet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// errLocked: another process holds the lock.
var errLocked = errors.New("locked by another process")

// lockPoll: flock cannot be waited for under a context, so it is asked again this often.
const lockPoll = 100 * time.Millisecond

// tryLock takes the lock on a file, creating it, or returns errLocked. The kernel drops the lock when the
// process dies, so nothing stale can stay behind; the file does, for removing it would race with the next taker.
func tryLock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock file: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return func() { f.Close() }, nil
	}
	f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, errLocked
	}
	return nil, fmt.Errorf("lock %s: %w", path, err)
}

// waitLock waits for the lock as long as ctx lets it.
func waitLock(ctx context.Context, path string) (unlock func(), err error) {
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for {
		unlock, err = tryLock(path)
		if !errors.Is(err, errLocked) {
			return unlock, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for lock %s: %w", path, ctx.Err())
		case <-tick.C:
		}
	}
}

// LockDir makes this process the only testnet of the directory, which it creates if needed.
func LockDir(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create testnet directory: %w", err)
	}
	unlock, err = tryLock(filepath.Join(dir, "lock"))
	if errors.Is(err, errLocked) {
		return nil, fmt.Errorf("a testnet already runs in %s: stop it, or give another --dir", dir)
	}
	return unlock, err
}
