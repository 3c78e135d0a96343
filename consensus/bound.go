package consensus

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// bound is raft's transport over streams whose peers are proved. Raft believes
// the sender that a request names; here a request that names anybody but its
// stream's peer is refused. Else a traitor could lead, vote or withhold under an
// honest member's name, and have that one shunned.
//
// NetworkTransport does not tell which stream a request came over. So each peer
// has one of its own, that reads and never dials; the embedded one only dials.
// There are as many as peers were ever let in: the members and candidates.
type bound struct {
	*raft.NetworkTransport
	layer *layer
	conf  raft.NetworkTransportConfig

	out  chan raft.RPC
	done chan struct{}
	once sync.Once
	wg   sync.WaitGroup

	mu        sync.Mutex
	from      map[string]*inbound
	heartbeat func(raft.RPC)
}

var (
	errNamed                        = errors.New("request under a name that its stream's peer does not have")
	errLayerClosed                  = errors.New("raft's streams are closed")
	_              raft.Transport   = (*bound)(nil)
	_              raft.WithPreVote = (*bound)(nil)
)

// inbound reads what one peer sends.
type inbound struct {
	*raft.NetworkTransport
	streams *feed

	address string                 // of the peer, proved
	named   atomic.Pointer[string] // the ServerID that was found to be the peer's
}

// newBound takes conf.Stream over as the layer that dials and accepts.
func newBound(l *layer, conf raft.NetworkTransportConfig) *bound {
	b := &bound{layer: l, conf: conf, out: make(chan raft.RPC), done: make(chan struct{}), from: map[string]*inbound{}}
	conf.Stream = &dialer{l, make(chan struct{})}
	b.NetworkTransport = raft.NewNetworkTransportWithConfig(&conf)
	b.wg.Go(b.accept)
	return b
}

func (b *bound) Consumer() <-chan raft.RPC { return b.out }

func (b *bound) SetHeartbeatHandler(handle func(raft.RPC)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.heartbeat = handle
}

func (b *bound) accept() {
	for {
		conn, err := b.layer.Accept()
		select {
		case <-b.done:
			if err == nil {
				conn.Close()
			}
			return
		default:
		}
		if err != nil {
			b.conf.Logger.Error("raft's streams end", "error", err)
			return
		}
		in := b.inbound(conn.RemoteAddr().String())
		select {
		case in.streams.in <- conn:
		case <-b.done:
			conn.Close()
			return
		}
	}
}

// inbound is the transport of a peer's streams.
func (b *bound) inbound(from string) *inbound {
	b.mu.Lock()
	defer b.mu.Unlock()
	if in := b.from[from]; in != nil {
		return in
	}
	conf := b.conf
	in := &inbound{streams: &feed{Listener: b.layer, in: make(chan net.Conn), done: make(chan struct{})}, address: from}
	conf.Stream = in.streams
	in.NetworkTransport = raft.NewNetworkTransportWithConfig(&conf)
	in.SetHeartbeatHandler(func(rpc raft.RPC) {
		b.mu.Lock()
		handle := b.heartbeat
		b.mu.Unlock()
		switch {
		case !b.named(rpc, in):
		case handle != nil:
			handle(rpc)
		default:
			b.pass(rpc)
		}
	})
	b.from[from] = in
	b.wg.Go(func() {
		for {
			select {
			case rpc := <-in.Consumer():
				if b.named(rpc, in) && !b.pass(rpc) {
					return
				}
			case <-b.done:
				return
			}
		}
	})
	return in
}

// named reports whether rpc names the peer that sent it, and answers it if not.
func (b *bound) named(rpc raft.RPC, in *inbound) bool {
	if cmd, ok := rpc.Command.(raft.WithRPCHeader); ok && string(cmd.GetRPCHeader().Addr) == in.address {
		id := string(cmd.GetRPCHeader().ID)
		if known := in.named.Load(); known != nil && *known == id {
			return true
		}
		// Kept, since making an address of an id costs more than the rest of a request here.
		if m, err := memberOf(raft.ServerID(id)); err == nil && b.layer.c.cfg.Address(m) == in.address {
			in.named.Store(&id)
			return true
		}
	}
	b.conf.Logger.Warn("refused a request of raft's", "from", in.address, "error", errNamed)
	rpc.Respond(&raft.AppendEntriesResponse{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}}, errNamed)
	return false
}

func (b *bound) pass(rpc raft.RPC) bool {
	select {
	case b.out <- rpc:
		return true
	case <-b.done:
		return false
	}
}

// Close ends all streams, dialled and accepted.
func (b *bound) Close() (err error) {
	b.once.Do(func() {
		close(b.done)
		b.CloseStreams() // its Close keeps the dialled ones open
		err = errors.Join(b.NetworkTransport.Close(), b.layer.Close())
		b.wg.Wait()
		for _, in := range b.from {
			err = errors.Join(err, in.NetworkTransport.Close())
		}
	})
	return err
}

// dialer is a layer that accepts nothing.
type dialer struct {
	*layer
	done chan struct{}
}

func (d *dialer) Accept() (net.Conn, error) {
	<-d.done
	return nil, errLayerClosed
}

func (d *dialer) Close() error {
	close(d.done)
	return nil
}

// feed is a layer of the streams that it is handed.
type feed struct {
	net.Listener
	in   chan net.Conn
	done chan struct{}
}

func (f *feed) Accept() (net.Conn, error) {
	select {
	case conn := <-f.in:
		return conn, nil
	case <-f.done:
		return nil, errLayerClosed
	}
}

func (f *feed) Close() error {
	close(f.done)
	return nil
}

func (f *feed) Dial(raft.ServerAddress, time.Duration) (net.Conn, error) { return nil, errLayerClosed }
