package consensus

import (
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/coffer-network/coffer/consensus/raftlog"
	"github.com/coffer-network/coffer/ledger"
)

// tcp is a StreamLayer on loopback. Closing it ends what it accepted, as the
// node's own does; raft leaves that to its peers. Who dials says who it is: it
// has no keys to prove it.
type tcp struct {
	net.Listener
	mu       sync.Mutex
	accepted []net.Conn
}

func (l *tcp) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.accepted = append(l.accepted, c)
	l.mu.Unlock()
	size := make([]byte, 1)
	if _, err := io.ReadFull(c, size); err != nil {
		return nil, err
	}
	from := make([]byte, size[0])
	if _, err := io.ReadFull(c, from); err != nil {
		return nil, err
	}
	return named{c, string(from)}, nil
}

func (l *tcp) Close() error {
	err := l.Listener.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.accepted {
		c.Close()
	}
	return err
}

func (l *tcp) Dial(a raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	c, err := net.DialTimeout("tcp", string(a), timeout)
	if err != nil {
		return nil, err
	}
	own := l.Addr().String()
	if _, err := c.Write(append([]byte{byte(len(own))}, own...)); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// disks is a cluster on real disks and sockets, in real time.
type disks struct {
	*cluster
	stores []*raftlog.Store
	addr   map[ledger.MemberID]string
}

func (d *disks) start(m *member, l net.Listener) {
	d.t.Helper()
	store, err := raftlog.Open(filepath.Join(m.dir, "log"))
	if err != nil {
		d.t.Fatal(err)
	}
	d.stores[m.n] = store
	m.app = &toy{s: toyState{Head: d.id, Epoch: d.epoch}}
	var genesis []ledger.MemberID
	for _, s := range d.epoch.Members {
		genesis = append(genesis, s.ID)
	}
	w := wire{d.cluster, m}
	c, err := New(Config{
		Self: m.id, Cluster: d.id, Genesis: genesis, Dir: m.dir, App: m.app, Log: store,
		Address: func(id ledger.MemberID) string { return d.addr[id] }, Stream: &tcp{Listener: l},
		Forwarder: w, Gossip: w, Promises: m.keys, Mark: m.keys,
		Sign:       func(a ledger.Approval) ledger.MemberSig { return ledger.SignApproval(m.key, a) },
		SignSlot:   func(s Slot) ledger.MemberSig { return SignSlot(m.key, s) },
		MayApprove: m.mayApprove,
		Settings: Settings{HeartbeatTimeout: 500 * time.Millisecond, SnapshotThreshold: 20, SnapshotInterval: 100 * time.Millisecond,
			TrailingLogs: 10},
		Logger: d.quiet,
	})
	if err != nil {
		d.t.Fatal(err)
	}
	m.Consensus = c
	m.live.Store(c)
}

func (d *disks) stop(m *member) {
	m.live.Store(nil)
	if err := m.Close(); err != nil {
		d.t.Error(err)
	}
	if err := d.stores[m.n].Close(); err != nil {
		d.t.Error(err)
	}
}

func listen(t testing.TB, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// newDisks starts n members.
func newDisks(t testing.TB, n int) *disks {
	d := &disks{cluster: newCluster(t, n), stores: make([]*raftlog.Store, n), addr: map[ledger.MemberID]string{}}
	ls := make([]net.Listener, n)
	for i, m := range d.members {
		ls[i] = listen(t, "127.0.0.1:0")
		d.addr[m.id] = ls[i].Addr().String()
	}
	for i, m := range d.members {
		d.start(m, ls[i])
	}
	return d
}

func (d *disks) stopAll() {
	for _, m := range d.members {
		if m.up() {
			d.stop(m)
		}
	}
}

func TestOnDiskAndSockets(t *testing.T) {
	d := newDisks(t, 3)
	defer d.stopAll()
	f := d.follower()
	for i := range 30 {
		d.submit(f, fmt.Sprint("x ", i))
	}
	d.certificate(f, 30)
	promise := f.Promise()
	d.stop(f)
	for i := range 60 { // beyond the trailing log: f comes back by snapshot
		d.submit(d.leader(d.others(f)...), fmt.Sprint("y ", i))
	}
	for _, m := range d.others(f) {
		d.snapshotAt(m, 40)
	}
	d.start(f, listen(t, d.addr[f.id]))
	d.agree(90, d.members...)
	if err := f.Descends(promise.Height, promise.Head, 90); err != nil {
		t.Error(err)
	}
	for i := range toyRoots { // to the next root: f's state came from another
		d.submit(f, fmt.Sprint("z ", i))
	}
	d.certificate(f, 2*toyRoots)
	l := d.leader()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	if err := l.Transfer(ctx); err != nil {
		t.Error(err)
	}
	if h, err := f.ReadIndex(ctx); err == nil && h < 154 {
		t.Errorf("read index %d", h)
	}
	for _, m := range d.members {
		d.stop(m)
	}
	for _, m := range d.members {
		d.start(m, listen(t, d.addr[m.id]))
	}
	d.submit(d.leader(), "after")
	d.agree(155, d.members...)
	for _, m := range d.members {
		d.onOneChain(m)
	}
}

// BenchmarkSubmit is one command after another by each of so many writers, at
// the leader of three members on one disk.
func BenchmarkSubmit(b *testing.B) {
	for _, writers := range []int{1, 64, 256} {
		b.Run(fmt.Sprint(writers), func(b *testing.B) {
			d := newDisks(b, 3)
			defer d.stopAll()
			l := d.leader()
			tx := make([]byte, 256)
			var left atomic.Int64
			left.Store(int64(b.N))
			b.ResetTimer()
			var wg sync.WaitGroup
			for range writers {
				wg.Go(func() {
					for left.Add(-1) >= 0 {
						if _, err := l.Submit(b.Context(), tx); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commands/s")
		})
	}
}

// BenchmarkHandover is one planned change of the leader: until Transfer is done, until
// another member leads, and until it has ordered a command that came in anew.
func BenchmarkHandover(b *testing.B) {
	d := newDisks(b, 4)
	defer d.stopAll()
	var given, led, ordered time.Duration
	for i := range b.N {
		l := d.leader()
		d.submit(l, fmt.Sprint("before ", i))
		d.agree(l.Height(), d.members...)
		start := time.Now()
		if err := l.Transfer(b.Context()); err != nil {
			b.Fatal(err)
		}
		given += time.Since(start)
		next := d.leader(d.others(l)...)
		led += time.Since(start)
		d.submit(next, fmt.Sprint("after ", i))
		ordered += time.Since(start)
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 / float64(b.N) }
	b.ReportMetric(ms(given), "given-ms")
	b.ReportMetric(ms(led), "led-ms")
	b.ReportMetric(ms(ordered), "ordered-ms")
	b.ReportMetric(0, "ns/op")
}
