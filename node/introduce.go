package node

import (
	"context"
	"log/slog"
	"time"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node/p2p"
)

// A node that was away while seats changed may find the log led by one that its ledger
// gives no seat to: it hears nobody else's entries either, and would wait until somebody
// it knows leads. Those that it does know tell it who holds a seat today. The word of f+1
// of them is an honest one's, and it opens a connection, no more: what comes over that is
// judged by the chain of flip certificates, as from anybody.

const (
	strandedAfter = 15 * time.Second // without a leader; an election takes a few
	askAroundEach = 5 * time.Second
	askAroundFor  = 3 * time.Second // an answer is ready at once
)

// seatList is what a node says of today's seats.
type seatList struct {
	Epoch   uint64          `cbor:"1,keyasint"` // that is in force by its ledger
	Members []ledger.Member `cbor:"2,keyasint"`
}

// introduced are members of an epoch that this node's ledger has not come to.
type introduced struct {
	epoch   uint64
	members []ledger.Member
}

// tellSeats answers who holds a seat. It is no secret: /v1/cluster tells everybody.
func (n *Node) tellSeats(context.Context, p2p.ID, []byte) ([]byte, error) {
	v, _ := n.app.now()
	return ledger.Marshal(seatList{Epoch: v.Epoch().Number, Members: v.Epoch().Members}), nil
}

// agreed are the members that f+1 of an epoch's name, at one address, as of later ones;
// the first of those epochs is theirs.
func agreed(e ledger.Epoch, said map[ledger.MemberID]seatList) (out introduced) {
	count := map[ledger.Member]int{}
	for by, l := range said {
		if !e.Has(by) || l.Epoch <= e.Number || len(l.Members) > p2p.MaxPeers {
			continue
		}
		if out.epoch == 0 || l.Epoch < out.epoch {
			out.epoch = l.Epoch
		}
		once := map[ledger.Member]bool{}
		for _, m := range l.Members {
			if m = (ledger.Member{ID: m.ID, Addr: m.Addr}); once[m] {
				continue
			}
			once[m] = true
			if count[m]++; count[m] == e.F+1 {
				out.members = append(out.members, m)
			}
		}
	}
	return out
}

// askAround asks every member of the epoch in force here, as far as one answers.
func (n *Node) askAround(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, askAroundFor)
	defer cancel()
	v, _ := n.app.now()
	e := v.Epoch()
	type word struct {
		by ledger.MemberID
		l  seatList
		ok bool
	}
	words := make(chan word, len(e.Members))
	for _, m := range e.Members {
		go func() {
			b, err := n.peers.Request(ctx, p2p.ID(m.ID), requestSeats, nil)
			w := word{by: m.ID}
			w.ok = err == nil && ledger.Unmarshal(b, &w.l) == nil
			words <- w
		}()
	}
	said := map[ledger.MemberID]seatList{}
	for range e.Members {
		if w := <-words; w.ok {
			said[w.by] = w.l
		}
	}
	today := agreed(e, said)
	if len(today.members) == 0 {
		return
	}
	n.mu.Lock()
	fresh := n.introduced.epoch != today.epoch
	n.introduced = today
	n.mu.Unlock()
	if fresh {
		n.log.Warn("nobody that this node knows leads: it hears the members of a later epoch, whom those it knows name",
			slog.Uint64("epoch here", e.Number), slog.Uint64("epoch", today.epoch), slog.Int("members", len(today.members)))
	}
}

// meet asks around while nobody leads, as far as this node can tell.
func (n *Node) meet(ctx context.Context) {
	tick := time.NewTicker(askAroundEach)
	defer tick.Stop()
	led := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if _, ok := n.cons.Leader(); ok {
			led = time.Now()
		} else if time.Since(led) > strandedAfter {
			n.askAround(ctx)
		}
	}
}
