// Package raftbench measures raft alone: three members over TCP on loopback in
// this process, the store and the settings of package consensus, commands that
// do nothing. What a node adds to that is the price of being one.
package raftbench

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coffer-network/coffer/consensus/raftlog"
	"github.com/hashicorp/raft"
)

const (
	members   = 3
	maxAppend = 256 // as in consensus
	electing  = 20 * time.Second
)

// Run has that many clients apply commands of size bytes for d, each waiting for
// its answer before its next, and returns how many were answered within d. The
// members' directories are made below dir.
func Run(dir string, clients, size int, d time.Duration) (done int64, err error) {
	c, err := open(dir)
	defer c.close()
	if err != nil {
		return 0, err
	}
	leader, err := c.leader()
	if err != nil {
		return 0, err
	}
	payload := make([]byte, size)
	var n atomic.Int64
	var once sync.Once
	var wg sync.WaitGroup
	end := time.Now().Add(d)
	for range clients {
		wg.Go(func() {
			for time.Now().Before(end) {
				if e := leader.Apply(payload, 5*time.Second).Error(); e != nil {
					once.Do(func() { err = fmt.Errorf("apply: %w", e) })
					return
				}
				if time.Now().Before(end) {
					n.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return n.Load(), err
}

type cluster struct {
	rafts  []*raft.Raft
	stores []*raftlog.Store
	trans  []*raft.NetworkTransport
}

func open(dir string) (*cluster, error) {
	c := &cluster{}
	var servers []raft.Server
	for i := range members {
		t, err := raft.NewTCPTransport("127.0.0.1:0", nil, 3, 5*time.Second, io.Discard)
		if err != nil {
			return c, fmt.Errorf("listen: %w", err)
		}
		c.trans = append(c.trans, t)
		servers = append(servers, raft.Server{ID: raft.ServerID(strconv.Itoa(i)), Address: t.LocalAddr()})
	}
	for i := range members {
		at := filepath.Join(dir, strconv.Itoa(i))
		if err := os.MkdirAll(at, 0o700); err != nil {
			return c, err
		}
		s, err := raftlog.Open(filepath.Join(at, "log"))
		if err != nil {
			return c, err
		}
		c.stores = append(c.stores, s)
		logs, err := raft.NewLogCache(2*maxAppend, s)
		if err != nil {
			return c, err
		}
		conf := raft.DefaultConfig()
		conf.LocalID, conf.MaxAppendEntries = servers[i].ID, maxAppend
		conf.LogOutput, conf.NoLegacyTelemetry = io.Discard, true
		snaps := raft.NewDiscardSnapshotStore()
		if err := raft.BootstrapCluster(conf, logs, s, snaps, c.trans[i], raft.Configuration{Servers: servers}); err != nil {
			return c, fmt.Errorf("begin an empty log: %w", err)
		}
		r, err := raft.NewRaft(conf, nothing{}, logs, s, snaps, c.trans[i])
		if err != nil {
			return c, err
		}
		c.rafts = append(c.rafts, r)
	}
	return c, nil
}

// leader waits for one that has applied its Barrier.
func (c *cluster) leader() (*raft.Raft, error) {
	for end := time.Now().Add(electing); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		for _, r := range c.rafts {
			if r.State() == raft.Leader && r.Barrier(time.Second).Error() == nil {
				return r, nil
			}
		}
	}
	return nil, errors.New("no leader")
}

func (c *cluster) close() {
	for _, r := range c.rafts {
		r.Shutdown().Error()
	}
	for _, t := range c.trans {
		t.Close()
	}
	for _, s := range c.stores {
		s.Close()
	}
}

// nothing is a state machine without a state.
type nothing struct{}

func (nothing) Apply(*raft.Log) any                 { return nil }
func (nothing) Snapshot() (raft.FSMSnapshot, error) { return nil, errors.New("nothing to keep") }
func (nothing) Restore(r io.ReadCloser) error       { return r.Close() }
