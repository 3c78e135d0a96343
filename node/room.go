package node

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/coffer-network/coffer/consensus"
)

// DiskLimits are when this node's disk takes no more commands of clients (spec:
// consensus §9). They can be low and not off: a node whose disk is full ends.
type DiskLimits struct {
	LowMiB  int      `toml:"low_mib"`  // free of the data directory; below, clients of this node are refused; default 2048
	FullMiB int      `toml:"full_mib"` // below, as leader it orders attestations only, whoever sends the rest; default 512
	SyncP99 Duration `toml:"sync_p99"` // of the raft log over ten seconds; above, as with both; default 200 ms, at most 10 s
}

const mib = 1 << 20

func (l DiskLimits) orDefault() DiskLimits {
	if l.LowMiB == 0 {
		l.LowMiB = 2048
	}
	if l.FullMiB == 0 {
		l.FullMiB = min(512, l.LowMiB)
	}
	l.SyncP99 = Duration(l.SyncP99.or(200 * time.Millisecond))
	return l
}

func (l DiskLimits) validate() error {
	l = l.orDefault()
	switch {
	case l.FullMiB < 1 || l.LowMiB < l.FullMiB || l.LowMiB > mib: // a TiB
		return fmt.Errorf("disk: low_mib %d, full_mib %d: want 1 ≤ full ≤ low ≤ %d", l.LowMiB, l.FullMiB, mib)
	case l.SyncP99 < Duration(time.Millisecond) || l.SyncP99 > Duration(10*time.Second):
		return fmt.Errorf("disk: sync_p99 %s: want 1ms to 10s", time.Duration(l.SyncP99))
	}
	return nil
}

// String says them in words, for --check.
func (l DiskLimits) String() string {
	l = l.orDefault()
	return fmt.Sprintf("clients are refused below %d MiB free, below %d MiB it orders attestations only, likewise while 1 %% of writes take more than %s",
		l.LowMiB, l.FullMiB, time.Duration(l.SyncP99))
}

// room knows whether the disk takes more. It looks once a second; what is asked
// of it between costs nothing.
type room struct {
	limits  DiskLimits
	free    func() (uint64, error) // bytes of the data directory that this process may still write
	syncP99 func() time.Duration   // of the raft log
	log     *slog.Logger

	bytes atomic.Uint64
	slow  atomic.Int64 // syncP99
	blind atomic.Bool  // the last look failed: bytes is older
}

// openRoom looks once, so that the limits hold from the first command on.
func openRoom(limits DiskLimits, free func() (uint64, error), syncP99 func() time.Duration, log *slog.Logger) (*room, error) {
	r := &room{limits: limits.orDefault(), free: free, syncP99: syncP99, log: log}
	if err := r.look(); err != nil {
		return nil, fmt.Errorf("free disk: %w", err)
	}
	return r, nil
}

func (r *room) look() error {
	r.slow.Store(int64(r.syncP99()))
	b, err := r.free()
	if err == nil {
		r.bytes.Store(b)
	}
	if r.blind.Swap(err != nil) != (err != nil) && err != nil {
		r.log.Warn("free disk not known, the last figure stands", slog.Any("err", err))
	}
	return err
}

func (r *room) watch(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			_ = r.look() // logged
		}
	}
}

// admits is consensus.Config.Room.
func (r *room) admits(own bool) error {
	least := r.limits.FullMiB
	if own {
		least = r.limits.LowMiB
	}
	switch {
	case r.bytes.Load() < uint64(least)*mib:
		return &consensus.Overload{Limit: consensus.LimitDisk}
	case r.slow.Load() > int64(r.limits.SyncP99):
		return &consensus.Overload{Limit: consensus.LimitSync}
	}
	return nil
}

// notReady says what clients are refused for here.
func (r *room) notReady() (why []string) {
	if free := r.bytes.Load() / mib; free < uint64(r.limits.LowMiB) {
		why = append(why, fmt.Sprintf("%d MiB of disk are free, requests are refused below %d", free, r.limits.LowMiB))
	}
	if slow := time.Duration(r.slow.Load()); slow > time.Duration(r.limits.SyncP99) {
		why = append(why, fmt.Sprintf("writes to disk take %s, requests are refused above %s", slow.Round(time.Millisecond), time.Duration(r.limits.SyncP99)))
	}
	if r.blind.Load() {
		why = append(why, "free disk is not known")
	}
	return why
}

// FreeDisk is how many bytes a process without privileges may still write in dir.
func FreeDisk(dir string) (uint64, error) {
	free, err := freeDisk(dir)
	if err != nil {
		return 0, fmt.Errorf("statfs %s: %w", dir, err)
	}
	return free, nil
}
