package consensus

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// What a member sends under another's name reaches raft neither as a request nor
// as a heartbeat; under its own it does.
func TestRequestsBearTheNameOfTheirStream(t *testing.T) {
	c := newCluster(t, 4)
	c.start(c.members...)
	defer c.stopAll()
	traitor, honest := c.members[0], c.members[1]
	ours := listen(t, "127.0.0.1:0")
	heard := newBound(newLayer(renamed{&tcp{Listener: ours}, address(traitor.id)}, c.members[2].Consensus),
		raft.NetworkTransportConfig{MaxPool: 1, Timeout: time.Second, Logger: newRaftLogger(c.quiet)})
	defer heard.Close()
	beats := make(chan raft.ServerID, 16)
	heard.SetHeartbeatHandler(func(rpc raft.RPC) {
		beats <- raft.ServerID(rpc.Command.(raft.WithRPCHeader).GetRPCHeader().ID)
		rpc.Respond(&raft.AppendEntriesResponse{}, nil)
	})
	go func() {
		for {
			select {
			case rpc := <-heard.Consumer():
				rpc.Respond(&raft.AppendEntriesResponse{Success: true}, nil)
			case <-heard.done:
				return
			}
		}
	}()
	out := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: &tcp{Listener: listen(t, "127.0.0.1:0")}, MaxPool: 1, Timeout: time.Second, Logger: newRaftLogger(c.quiet)})
	defer out.Close()
	defer out.CloseStreams()
	to := raft.ServerAddress(ours.Addr().String())
	say := func(as *member, address string, heartbeat bool) error {
		req := &raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(serverID(as.id)), Addr: []byte(address)}, Term: 7}
		if !heartbeat {
			req.PrevLogEntry, req.PrevLogTerm = 3, 6
		}
		return out.AppendEntries("x", to, req, &raft.AppendEntriesResponse{})
	}
	for _, heartbeat := range []bool{false, true} {
		if err := say(traitor, address(traitor.id), heartbeat); err != nil {
			t.Errorf("own name, heartbeat %v: %v", heartbeat, err)
		}
		for _, lie := range []struct {
			as      *member
			address string
		}{{honest, address(honest.id)}, {traitor, address(honest.id)}, {honest, address(traitor.id)}, {traitor, ""}} {
			if err := say(lie.as, lie.address, heartbeat); err == nil || !strings.Contains(err.Error(), errNamed.Error()) {
				t.Errorf("member %d at %q, heartbeat %v: %v", lie.as.n, lie.address, heartbeat, err)
			}
		}
	}
	close(beats)
	for id := range beats {
		if id != serverID(traitor.id) {
			t.Errorf("heard the heartbeat of %s", id)
		}
	}
}

// renamed gives every stream the same peer.
type renamed struct {
	*tcp
	from string
}

func (r renamed) Accept() (net.Conn, error) {
	c, err := r.tcp.Accept()
	if err != nil {
		return nil, err
	}
	return named{c.(named).Conn, r.from}, nil
}

// Closed, it leaves nothing behind: TestMain looks for goroutines.
func TestBoundEndsItsStreams(t *testing.T) {
	c := newCluster(t, 4)
	c.start(c.members...)
	defer c.stopAll()
	l := listen(t, "127.0.0.1:0")
	b := newBound(newLayer(&tcp{Listener: l}, c.members[0].Consensus), raft.NetworkTransportConfig{MaxPool: 1, Timeout: time.Second, Logger: newRaftLogger(c.quiet)})
	conn, err := (&tcp{Listener: l}).Dial(raft.ServerAddress(l.Addr().String()), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c.eventually("its peer's transport", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.from) == 1
	})
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("an accepted stream after Close: %v", err)
	}
}
