package consensus

import (
	"net"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/coffer-network/coffer/ledger"
)

// layer refuses the raft streams of shunned members, whose peer the transport
// below has proved. That requests bear that peer's name is for bound to see.
type layer struct {
	raft.StreamLayer
	c *Consensus

	mu   sync.Mutex
	open map[*accepted]bool
}

type accepted struct {
	net.Conn
	l    *layer
	from string
}

func newLayer(s raft.StreamLayer, c *Consensus) *layer {
	return &layer{StreamLayer: s, c: c, open: map[*accepted]bool{}}
}

func (l *layer) Accept() (net.Conn, error) {
	for {
		conn, err := l.StreamLayer.Accept()
		if err != nil {
			return nil, err
		}
		a := &accepted{Conn: conn, l: l, from: conn.RemoteAddr().String()}
		l.mu.Lock()
		l.open[a] = true
		l.mu.Unlock()
		if !l.refuses(a.from) { // asked after it is known to cut
			return a, nil
		}
		a.Close()
	}
}

func (l *layer) refuses(from string) bool {
	for _, m := range l.c.now().Epoch.Members {
		if l.c.cfg.Address(m.ID) == from {
			return l.c.shuns(m.ID)
		}
	}
	return false
}

// cut closes what m has opened here. What this node opened to m stays: m goes on
// as a follower.
func (l *layer) cut(m ledger.MemberID) {
	if l == nil { // a transport without streams
		return
	}
	l.mu.Lock()
	var of []*accepted
	for a := range l.open {
		if a.from == l.c.cfg.Address(m) {
			of = append(of, a)
		}
	}
	l.mu.Unlock()
	for _, a := range of {
		a.Close()
	}
}

func (a *accepted) Close() error {
	a.l.mu.Lock()
	delete(a.l.open, a)
	a.l.mu.Unlock()
	return a.Conn.Close()
}
