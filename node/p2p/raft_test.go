package p2p

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// listFSM remembers what was committed.
type listFSM struct {
	mu   sync.Mutex
	list []string
}

func (f *listFSM) Apply(l *raft.Log) any {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = append(f.list, string(l.Data))
	return nil
}

func (f *listFSM) has(n int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.list) == n
}

func (f *listFSM) Snapshot() (raft.FSMSnapshot, error) { return nil, errors.New("no snapshots here") }
func (f *listFSM) Restore(r io.ReadCloser) error       { return r.Close() }

func TestRaftClusterOverStreams(t *testing.T) {
	const entries = 50
	hosts := mesh(t, 3)
	var cluster raft.Configuration
	for _, h := range hosts {
		address, err := RaftAddress(h.ID())
		if err != nil {
			t.Fatal(err)
		}
		cluster.Servers = append(cluster.Servers, raft.Server{ID: raft.ServerID(address), Address: address})
	}
	nodes := make([]*raft.Raft, len(hosts))
	fsms := make([]*listFSM, len(hosts))
	for i, h := range hosts {
		cfg := raft.DefaultConfig()
		cfg.LocalID = cluster.Servers[i].ID
		cfg.Logger = hclog.NewNullLogger()
		cfg.HeartbeatTimeout, cfg.ElectionTimeout, cfg.LeaderLeaseTimeout = 500*time.Millisecond, 500*time.Millisecond, 250*time.Millisecond
		store := raft.NewInmemStore()
		transport := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Stream: h.Raft(), MaxPool: 3, Timeout: 5 * time.Second, Logger: cfg.Logger,
		})
		fsms[i] = &listFSM{}
		snapshots := raft.NewDiscardSnapshotStore()
		if err := raft.BootstrapCluster(cfg, store, store, snapshots, transport, cluster); err != nil {
			t.Fatal(err)
		}
		node, err := raft.NewRaft(cfg, fsms[i], store, store, snapshots, transport)
		if err != nil {
			t.Fatal(err)
		}
		nodes[i] = node
		t.Cleanup(func() {
			if err := transport.Close(); err != nil {
				t.Error(err)
			}
			if err := node.Shutdown().Error(); err != nil {
				t.Error(err)
			}
		})
	}
	leader := func(except int) int {
		found := -1
		await(t, "a leader", func() bool {
			for i, n := range nodes {
				if i != except && n.State() == raft.Leader {
					found = i
				}
			}
			return found >= 0
		})
		return found
	}
	first := leader(-1)
	var last raft.ApplyFuture
	for i := range entries {
		last = nodes[first].Apply([]byte(fmt.Sprint(i)), patience)
	}
	if err := last.Error(); err != nil {
		t.Fatal(err)
	}
	for i := range nodes {
		await(t, "every node applies", func() bool { return fsms[i].has(entries) })
	}
	// The leader's connections end, as if its process were killed.
	if err := hosts[first].Close(); err != nil {
		t.Fatal(err)
	}
	second := leader(first)
	if err := nodes[second].Apply([]byte("after"), patience).Error(); err != nil {
		t.Fatal(err)
	}
	for i := range nodes {
		if i != first {
			await(t, "the rest applies", func() bool { return fsms[i].has(entries + 1) })
		}
	}
}

func TestRaftStreams(t *testing.T) {
	hosts := mesh(t, 2)
	to, err := RaftAddress(hosts[1].ID())
	if err != nil {
		t.Fatal(err)
	}
	var conns []net.Conn
	for range maxRaft {
		c, err := hosts[0].Raft().Dial(to, patience)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		in, err := hosts[1].Raft().Accept()
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 4)
		if err := in.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(in, buf); err != nil || string(buf) != "ping" {
			t.Fatalf("%q, %v", buf, err)
		}
		if in.LocalAddr().String() != string(to) || in.RemoteAddr().String() != hosts[0].pid.String() {
			t.Fatalf("accepted at %s from %s", in.LocalAddr(), in.RemoteAddr())
		}
		conns = append(conns, c)
	}
	if _, err := hosts[0].Raft().Dial(to, patience); !errors.Is(err, ErrRaftStreams) {
		t.Fatalf("one more stream: %v", err)
	}
	if err := conns[0].Close(); err != nil {
		t.Fatal(err)
	}
	again, err := hosts[0].Raft().Dial(to, patience)
	if err != nil {
		t.Fatalf("after one was closed: %v", err)
	}
	// A deadline ends a read, as raft expects of a net.Conn.
	if err := again.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	_, err = again.Read(make([]byte, 1))
	if timeout, ok := errors.AsType[net.Error](err); !ok || !timeout.Timeout() {
		t.Fatalf("read past its deadline: %v", err)
	}
	stranger, err := RaftAddress(idOf(testKey("nobody")))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := hosts[0].Raft().Dial(stranger, patience); !errors.Is(err, ErrNotMember) {
		t.Fatalf("dialling a stranger: %v", err)
	}
	if err := hosts[1].Raft().Close(); err != nil {
		t.Fatal(err)
	}
	for {
		c, err := hosts[1].Raft().Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				t.Fatalf("accept after close: %v", err)
			}
			return
		}
		c.Close()
	}
}
