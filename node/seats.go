package node

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/coffer-network/coffer/consensus"
	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node/p2p"
)

// planPeers says who may connect, in which role, by the ledger (spec: consensus §4):
//
//	of the epoch in force                      member
//	listed, and new to this ledger             member
//	member today, by better knowledge          member
//	of the one being prepared or opened        resharing
//	admitted, or gone and not wiped yet        follower
//	raft's voters                              member; who lost its seat: until raft's leader took it out
//	anybody else                               not
//
// Who was evicted is cut off with the flip. listed are the peers of node.toml: their
// addresses come before the ledger's, and one that has had no seat yet, as far as this
// ledger goes, is heard like a member: a node that is far behind has to get the log from
// one of today's members, and on the way the ledger first hears of that one as of an
// applicant. today are members by better knowledge than this ledger's, whatever that says
// of them: they may have gone and come back.
func planPeers(v *ledger.State, listed map[string]string, today []ledger.Member, servers []consensus.Server) []p2p.Peer {
	var out []p2p.Peer
	add := func(m ledger.Member, as p2p.Role) {
		id := p2p.ID(m.ID)
		if slices.ContainsFunc(out, func(p p2p.Peer) bool { return p.ID == id }) {
			return
		}
		if local, ok := listed[m.ID.String()]; ok {
			m.Addr = local
		}
		if p2p.CheckAddr(m.Addr) != nil {
			m.Addr = "" // voted for all the same: it may dial us
		}
		if _, err := p2p.PeerID(id); err == nil {
			out = append(out, p2p.Peer{ID: id, Addr: m.Addr, Role: as})
		}
	}
	for _, m := range v.Epoch().Members {
		add(m, p2p.Member)
	}
	for _, m := range today {
		add(m, p2p.Member)
	}
	seated := map[ledger.MemberID]bool{} // in any epoch so far
	for _, e := range v.Epochs {
		for _, m := range e.Members {
			seated[m.ID] = true
		}
	}
	for text := range listed {
		if id, ok := memberID(text); ok && !seated[id] {
			add(ledger.Member{ID: id}, p2p.Member)
		}
	}
	// After a start the ledger stands at its last snapshot until a leader tells what is
	// committed. That raft's log has one as a voter says that this ledger had a seat for it
	// (consensus/membership.go): without it, after a loss of power at all of them, those who
	// were there from the beginning would wait in vain for a majority.
	for _, s := range servers {
		if s.Votes && !seated[s.Member] {
			add(ledger.Member{ID: s.Member}, p2p.Member)
		}
	}
	if n := v.Next; n != nil {
		for _, m := range n.Epoch.Members {
			add(m, p2p.Resharing)
		}
	}
	voting := func(m ledger.MemberID) bool {
		return slices.ContainsFunc(servers, func(s consensus.Server) bool { return s.Member == m && s.Votes })
	}
	for _, e := range v.Epochs {
		for _, m := range e.Members {
			if voting(m.ID) && !v.Evicted(m.ID) {
				add(m, p2p.Member)
			}
		}
	}
	for _, m := range v.Followers() {
		add(m, p2p.Follower)
	}
	slices.SortFunc(out, func(a, b p2p.Peer) int { return slices.Compare(a.ID[:], b.ID[:]) })
	return out[:min(len(out), p2p.MaxPeers)]
}

// plannedPeers is planPeers with what this node knows besides: its node.toml, and, while
// it is behind, who holds a seat today by its operator's word or by that of f+1 members.
func (n *Node) plannedPeers(v *ledger.State, servers []consensus.Server) []p2p.Peer {
	var today []ledger.Member
	if slices.ContainsFunc(n.cfg.Checkpoints, func(p consensus.Checkpoint) bool { return p.Height > v.Height }) {
		for text := range n.cfg.Peers {
			if id, ok := memberID(text); ok {
				today = append(today, ledger.Member{ID: id})
			}
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if v.Epoch().Number < n.introduced.epoch {
		today = append(today, n.introduced.members...)
	}
	return planPeers(v, n.cfg.Peers, today, servers)
}

func memberID(text string) (id ledger.MemberID, ok bool) {
	return id, id.UnmarshalText([]byte(strings.ToLower(text))) == nil
}

// followSeats keeps the allow-list of peers as the ledger has it.
func (n *Node) followSeats(ctx context.Context) {
	tick := time.NewTicker(500 * time.Millisecond) // raft's configuration changes without the ledger
	defer tick.Stop()
	var last []p2p.Peer
	var seat ledger.SeatState
	for {
		v, changed := n.app.now()
		if peers := n.plannedPeers(v, n.cons.Servers()); !slices.Equal(peers, last) {
			if err := n.peers.SetPeers(peers); err != nil {
				n.log.Error("list of peers does not follow the ledger", slog.Any("err", err))
			} else {
				last = peers
			}
		}
		if is := seatOf(v, n.self); is != seat {
			if seat = is; seat == "" {
				seat = "none"
			}
			if is != ledger.SeatActive {
				n.log.Info("this node's seat", slog.String("state", string(seat)))
			}
			seat = is
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-changed:
			select { // commands come by the hundred
			case <-ctx.Done():
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
}

// seatOf is where a node stands; empty: the ledger does not know it.
func seatOf(v *ledger.State, m ledger.MemberID) ledger.SeatState {
	if v.Epoch().Has(m) && v.Next == nil && len(v.Changes) == 0 {
		return ledger.SeatActive // nearly always, and cheap
	}
	for _, s := range v.Seating() {
		if s.Member.ID == m {
			return s.State
		}
	}
	return ""
}

// waitsForSeat says in words what stands between this node and a seat.
func (n *Node) waitsForSeat(v *ledger.State) string {
	switch seatOf(v, n.self) {
	case ledger.SeatCandidate:
		return "it stands in an open vote"
	case ledger.SeatAdmitted:
		return "it was admitted and follows the log"
	case ledger.SeatResharing:
		return "key shares are being made for it"
	case ledger.SeatRetired:
		if v.Evicted(n.self) {
			return "it was evicted"
		}
		return "it was a member"
	}
	return "no vote has admitted it, as far as its log goes"
}
