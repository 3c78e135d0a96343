package consensus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/coffer-network/coffer/ledger"
)

// Raft's configuration follows the ledger, never the reverse (spec: consensus §8):
//
//	admitted ──► non-voter ──epoch in force, caught up──► voter ──epoch without it──► non-voter or gone
//
// The leader proposes one change at a time; every other node's fence asks whether
// it follows from its own ledger. Both read the same View.

// suffrage is what the ledger lets a node be.
type suffrage uint8

const (
	stranger suffrage = iota
	follows           // gets the log: admitted, of the opened epoch, or gone and not wiped yet
	votes             // of the epoch in force
)

func (v View) suffrage(m ledger.MemberID) suffrage {
	switch {
	case v.Epoch.Has(m):
		return votes
	case v.Opened != nil && v.Opened.Epoch.Has(m), slices.Contains(v.Followers, m):
		return follows
	}
	return stranger
}

// gone is a node that the ledger let be more than it does now.
type gone struct {
	member ledger.MemberID
	was    suffrage
	height uint64 // when that ended
}

// Why what ended lately still counts: the leader proposes by the state it has
// applied, and commands may come before the entry in the log that say otherwise. A
// node that has applied those must take the entry all the same, since it may be
// committed. So many heights pass at most while raft takes a change in.
const (
	goneHeights = 1 << 14
	maxGone     = 64
)

// ended notes what next takes from nodes.
func (at applied) ended(next View) []gone {
	was, is := at.View, next
	if was.Epoch.Number == is.Epoch.Number && (was.Opened == nil) == (is.Opened == nil) && slices.Equal(was.Followers, is.Followers) {
		return at.gone
	}
	list := slices.DeleteFunc(slices.Clone(at.gone), func(g gone) bool { return g.height+goneHeights < next.Height })
	for _, m := range was.named() {
		if before := was.suffrage(m); before > is.suffrage(m) {
			list = append(list, gone{m, before, next.Height})
		}
	}
	return list[max(0, len(list)-maxGone):]
}

// named are all that the ledger lets be something.
func (v View) named() []ledger.MemberID {
	ms := slices.Clone(v.Followers)
	for _, m := range v.Epoch.Members {
		ms = append(ms, m.ID)
	}
	if v.Opened != nil {
		for _, m := range v.Opened.Epoch.Members {
			ms = append(ms, m.ID)
		}
	}
	return ms
}

// may is what a node may be now, or might be lately.
func (at applied) may(m ledger.MemberID) suffrage {
	s := at.suffrage(m)
	for _, g := range at.gone {
		if g.member == m && g.height+goneHeights >= at.Height {
			s = max(s, g.was)
		}
	}
	return s
}

// allows checks next, which is to take the place of the configuration base.
//
// Nobody is added that the ledger does not name, and nobody is made a voter before
// its epoch is in force. Who was there already may stay until the leader takes it
// out: between a flip and that everybody's configuration names retired members. No
// member of the epoch in force may lose its vote, else a traitor would be left with
// a cluster of its own, and the others, who believe it, without a majority for ever.
func (at applied) allows(base, next raft.Configuration, address func(ledger.MemberID) string) error {
	if err := wellFormed(next, address); err != nil {
		return err
	}
	was := map[raft.ServerID]raft.ServerSuffrage{}
	for _, s := range base.Servers {
		was[s.ID] = s.Suffrage
	}
	voting := voters(next)
	for _, s := range next.Servers {
		m, err := memberOf(s.ID)
		if err != nil {
			return err
		}
		before, known := was[s.ID]
		switch may := at.may(m); {
		case s.Suffrage == raft.Voter && may != votes && !(known && before == raft.Voter):
			return fmt.Errorf("%w: %s may not vote", errConfiguration, s.ID)
		case may == stranger && !known:
			return fmt.Errorf("%w: %s at %s", errConfiguration, s.ID, s.Address)
		}
	}
	for m := range voters(base) {
		if at.Epoch.Has(m) && !voting[m] {
			return fmt.Errorf("%w: member %s would vote no more", errVoters, m)
		}
	}
	return nil
}

// wellFormed: servers with members' names, each once, at their own addresses.
func wellFormed(conf raft.Configuration, address func(ledger.MemberID) string) error {
	if len(conf.Servers) == 0 {
		return errConfiguration
	}
	seen := map[raft.ServerID]bool{}
	for _, s := range conf.Servers {
		m, err := memberOf(s.ID)
		if err != nil || seen[s.ID] || s.Address != raft.ServerAddress(address(m)) || s.Suffrage > raft.Staging {
			return fmt.Errorf("%w: %s at %s", errConfiguration, s.ID, s.Address)
		}
		seen[s.ID] = true
	}
	return nil
}

// decodeConfiguration reads raft's encoding, whose decoder panics.
func decodeConfiguration(b []byte) (conf raft.Configuration, err error) {
	defer func() {
		if recover() != nil {
			err = errMalformed
		}
	}()
	return raft.DecodeConfiguration(b), nil
}

// seatChange is the next thing to do to raft's configuration.
type seatChange struct {
	command raft.ConfigurationChangeCommand
	server  raft.Server
}

func (c seatChange) String() string { return fmt.Sprintf("%s %s", c.command, c.server.ID) }

// planSeats compares a configuration with the ledger and says what comes next, if
// anything: first everybody gets the log, then those who hold a seat and have
// caught up vote, then who holds none any more votes no longer, and last who is
// not to follow goes. A vote is added before another is taken, so that a member
// replaced never leaves fewer voters than the ledger has.
func planSeats(conf raft.Configuration, v View, address func(ledger.MemberID) string, caughtUp func(ledger.MemberID) bool) (seatChange, bool) {
	is := map[ledger.MemberID]raft.Server{}
	for _, s := range conf.Servers {
		if m, err := memberOf(s.ID); err == nil {
			is[m] = s
		}
	}
	var wanted []ledger.MemberID
	for _, m := range v.Epoch.Members {
		wanted = append(wanted, m.ID)
	}
	wanted = append(wanted, v.Followers...)
	for _, m := range wanted {
		if _, ok := is[m]; !ok {
			return seatChange{raft.AddNonvoter, raft.Server{ID: serverID(m), Address: raft.ServerAddress(address(m))}}, true
		}
	}
	for _, m := range wanted {
		if s := is[m]; s.Suffrage != raft.Voter && v.Epoch.Has(m) && caughtUp(m) {
			return seatChange{raft.AddVoter, s}, true
		}
	}
	if v.Opened != nil {
		return seatChange{}, false // a rollback may give a seat back: no vote is taken before the flip
	}
	for _, s := range conf.Servers {
		if m, err := memberOf(s.ID); err == nil && s.Suffrage == raft.Voter && v.suffrage(m) == follows {
			return seatChange{raft.DemoteVoter, s}, true
		}
	}
	for _, s := range conf.Servers {
		if m, err := memberOf(s.ID); err != nil || v.suffrage(m) == stranger {
			return seatChange{raft.RemoveServer, s}, true
		}
	}
	return seatChange{}, false
}

// When a node has caught up (spec: consensus §8): it votes at once, and one that
// is far behind would only hold a majority up.
const (
	followEvery   = 500 * time.Millisecond
	followTimeout = 5 * time.Second // of a change to be enqueued; it is committed, or leadership is lost
	maxVoterLag   = 100             // raft entries
	voterLagFor   = 10 * time.Second
	askTimeout    = time.Second
)

// follow is the membership worker: on the leader it brings raft's configuration to
// what the ledger says, one committed change after the other. Whoever leads next
// compares and goes on.
func (c *Consensus) follow() {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	near := map[ledger.MemberID]time.Time{} // since when a non-voter is close behind
	for {
		select {
		case <-tick.C:
		case <-c.failed:
			return
		case <-c.ctx.Done():
			return
		}
		if !c.Leading() {
			clear(near)
			continue
		}
		at, conf := c.now(), c.raft.GetConfiguration().Configuration()
		c.measure(conf, near)
		if !at.Epoch.Has(c.cfg.Self) {
			c.stepAside(at, conf)
			continue
		}
		caughtUp := func(m ledger.MemberID) bool {
			since, ok := near[m]
			return ok && time.Since(since) >= c.cfg.Settings.VoterLagFor
		}
		ch, ok := planSeats(conf, at.View, c.cfg.Address, caughtUp)
		if !ok {
			continue
		}
		if err := c.changeSeat(ch); err != nil {
			c.log.Warn("raft's configuration does not follow the ledger yet", "change", ch.String(), "reason", err)
			continue
		}
		c.log.Info("raft's configuration follows the ledger", "change", ch.String())
	}
}

func (c *Consensus) changeSeat(ch seatChange) error {
	s := ch.server
	switch ch.command {
	case raft.AddNonvoter:
		return c.raft.AddNonvoter(s.ID, s.Address, 0, followTimeout).Error()
	case raft.AddVoter:
		return c.raft.AddVoter(s.ID, s.Address, 0, followTimeout).Error()
	case raft.DemoteVoter:
		return c.raft.DemoteVoter(s.ID, 0, followTimeout).Error()
	default:
		return c.raft.RemoveServer(s.ID, 0, followTimeout).Error()
	}
}

// measure asks every non-voter how far it is.
func (c *Consensus) measure(conf raft.Configuration, near map[ledger.MemberID]time.Time) {
	for _, s := range conf.Servers {
		m, err := memberOf(s.ID)
		if err != nil || s.Suffrage == raft.Voter {
			delete(near, m)
			continue
		}
		known := c.raft.CommitIndex()
		index, err := c.position(m)
		switch {
		case err != nil || known > index+maxVoterLag:
			delete(near, m)
		case near[m].IsZero():
			near[m] = time.Now()
		}
	}
}

func (c *Consensus) position(m ledger.MemberID) (index uint64, err error) {
	ctx, cancel := context.WithTimeout(c.ctx, askTimeout)
	defer cancel()
	b, err := c.cfg.Forwarder.Forward(ctx, m, ledger.Marshal(request{Op: opPosition}))
	if err != nil {
		return 0, err
	}
	var r reply
	if err := ledger.Unmarshal(b, &r); err != nil {
		return 0, err
	}
	if r.Failure != 0 {
		return 0, errors.New(r.Text)
	}
	return r.Height, nil
}

// stepAside hands leadership to a member: this node holds no seat any more, and
// its peers close their gates to it (spec: consensus §8).
func (c *Consensus) stepAside(at applied, conf raft.Configuration) {
	for _, s := range conf.Servers {
		m, err := memberOf(s.ID)
		if err != nil || s.Suffrage != raft.Voter || !at.Epoch.Has(m) || c.cfg.Alive != nil && !c.cfg.Alive(m) {
			continue
		}
		if err := c.raft.LeadershipTransferToServer(s.ID, s.Address).Error(); err != nil {
			c.log.Warn("leadership not handed over by a node without a seat", "to", s.ID, "reason", err)
			continue
		}
		return
	}
}

// Server is one entry of raft's configuration as this node knows it.
type Server struct {
	Member ledger.MemberID
	Votes  bool
}

// Servers are raft's configuration, in its order.
func (c *Consensus) Servers() []Server {
	var out []Server
	for _, s := range c.raft.GetConfiguration().Configuration().Servers {
		if m, err := memberOf(s.ID); err == nil {
			out = append(out, Server{Member: m, Votes: s.Suffrage == raft.Voter})
		}
	}
	return out
}

// follower: the node gets the log and holds no seat. It may say for itself what the
// ledger takes from it, and nothing else.
func (c *Consensus) follower(id ledger.MemberID) bool { return c.now().suffrage(id) == follows }
