package consensus

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/coffer-network/coffer/ledger"
)

// A leader can delay and censor; it cannot keep the others from seeing that, nor
// from going on without it (spec: consensus §6.5). Each member complains of what
// it sees itself; who holds the complaints of more members than can be traitors
// refuses the leader's raft streams and votes for a while. Nothing of this enters
// the log or the ledger.

// Reason says what a leader is complained of.
type Reason string

const (
	// ReasonLag: ledger time falls behind the member's clock.
	ReasonLag Reason = "ledger-time-lags"
	// ReasonCensored: what the member forwarded is not ordered.
	ReasonCensored Reason = "command-not-ordered"
	// ReasonStalled: no new certificate although Q members are there.
	ReasonStalled Reason = "certificates-stall"
)

var reasons = []Reason{ReasonLag, ReasonCensored, ReasonStalled}

// Complaint is a member's word that a leader does not do its work.
type Complaint struct {
	Cluster ledger.Hash     `cbor:"1,keyasint"`
	Leader  ledger.MemberID `cbor:"2,keyasint"`
	Term    uint64          `cbor:"3,keyasint"` // raft's
	Reason  Reason          `cbor:"4,keyasint"`
	Millis  uint64          `cbor:"5,keyasint"` // the complaining member's clock, Unix
}

type signedComplaint struct {
	Complaint Complaint        `cbor:"1,keyasint"`
	Signature ledger.MemberSig `cbor:"2,keyasint"`
}

const complaintDomain = "coffer/complaint/1"

// SignComplaint signs x with a node's identity key.
func SignComplaint(key ed25519.PrivateKey, x Complaint) ledger.MemberSig {
	return ledger.MemberSig{Member: ledger.MemberID(key.Public().(ed25519.PublicKey)), Sig: ledger.Sign(key, complaintDomain, ledger.Marshal(x))}
}

func (s signedComplaint) verify() bool {
	return s.Signature.Member.Verify(complaintDomain, ledger.Marshal(s.Complaint), s.Signature.Sig)
}

// GossipComplaint is the kind of a complaint; HandleComplaint takes its bodies.
const GossipComplaint uint8 = 2

// Times and limits of complaints (spec: consensus §6.5). How long something has
// been wrong is counted in looks, one a second: a node that was frozen has seen
// nothing of its leader meanwhile.
const (
	lagLimit      = 10 * time.Second // ledger time behind the own clock …
	lagLooks      = 10               // … for so long, and not less at its end
	censorLooks   = 30               // CensorSeconds
	stallLooks    = 30
	complaintLife = 60 * time.Second
	shunFor       = 10 * time.Minute // doubled for each earlier time within shunMemory
	shunMemory    = 24 * time.Hour
	maxDoublings  = 6 // ten hours and forty minutes

	complainEvery = time.Second
	againEvery    = 10 * time.Second // what a leader did not order is sent to it again
	forgetAfter   = 5 * time.Minute  // what was forwarded and is not heard of
	maxForwarded  = 1024
	maxBehind     = 256               // raft entries; some of raft's own are never applied
	maxComplaint  = 512               // bytes
	complaintGap  = complainEvery / 2 // between two of one member
)

// forwarded is a command that this node gave to a leader and has not seen applied.
type forwarded struct {
	tx     []byte
	leader ledger.MemberID
	looks  int       // at which it still waited, under this leader
	first  time.Time // given to any
	again  time.Time // last sent
}

// shunning is what this node remembers of a member it shuns or shunned.
type shunning struct {
	until  time.Time
	reason Reason
	begun  []time.Time // within shunMemory
}

// grievances is all that complaints need. Its zero value complains of nobody.
type grievances struct {
	mu      sync.Mutex
	waiting map[ledger.Hash]*forwarded
	heard   map[ledger.MemberID]Complaint // the last of each member, by author
	came    map[ledger.MemberID]time.Time // when that was
	first   map[ledger.MemberID]time.Time // of a leader: when its standing complaints began
	shunned map[ledger.MemberID]*shunning

	lag, stall watch
}

// watch measures how long something has been wrong under one leader, and whom it
// was blamed on: what goes on under others is not the leaders' doing.
type watch struct {
	leader ledger.MemberID // zero: not measuring
	looks  int
	value  int64
	blamed []ledger.MemberID
}

func (w *watch) clear() { *w = watch{} }

// rest ends the measurement and remembers who was blamed.
func (w *watch) rest() { w.leader = ledger.MemberID{} }

// look counts one more under the leader; the first of them fixes the value.
func (w *watch) look(leader ledger.MemberID, value int64) (looks int) {
	if w.leader != leader {
		w.leader, w.looks, w.value = leader, 0, value
	}
	w.looks++
	return w.looks
}

// blame reports whether the leader is to be complained of, one of at most many.
func (w *watch) blame(many int) bool {
	if slices.Contains(w.blamed, w.leader) {
		return true
	}
	if len(w.blamed) >= many {
		return false
	}
	w.blamed = append(w.blamed, w.leader)
	return true
}

func newGrievances() *grievances {
	return &grievances{
		waiting: map[ledger.Hash]*forwarded{}, heard: map[ledger.MemberID]Complaint{}, came: map[ledger.MemberID]time.Time{},
		first: map[ledger.MemberID]time.Time{}, shunned: map[ledger.MemberID]*shunning{},
	}
}

// enough complaints are more than the traitors can make. One alone is never
// enough: who follows nobody else's leader has only left the cluster.
func enough(e ledger.Epoch) int { return max(2, e.F+1) }

// maxShunned members at a time (spec: consensus §6.5).
func maxShunned(e ledger.Epoch) int { return max(1, e.F) }

// sent notes a command that is about to be forwarded.
func (g *grievances) sent(tx []byte, leader ledger.MemberID, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	key := ledger.Hash(sha256.Sum256(tx))
	if f := g.waiting[key]; f != nil {
		f.give(leader)
		f.again = now
		return
	}
	if len(g.waiting) < maxForwarded {
		g.waiting[key] = &forwarded{tx: bytes.Clone(tx), leader: leader, first: now, again: now}
	}
}

func (f *forwarded) give(leader ledger.MemberID) {
	if f.leader != leader {
		f.leader, f.looks = leader, 0
	}
}

// done forgets commands: they are applied, or their client was told that they
// were not taken.
func (g *grievances) done(commands ...ledger.Hash) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, h := range commands {
		delete(g.waiting, h)
	}
}

// again returns what is to be sent to the leader once more, and whether
// something has waited under it for too long.
func (g *grievances) again(leader ledger.MemberID, now time.Time) (txs [][]byte, censored bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for key, f := range g.waiting {
		if now.Sub(f.first) > forgetAfter {
			delete(g.waiting, key)
			continue
		}
		f.give(leader)
		f.looks++
		censored = censored || f.looks > censorLooks
		if now.Sub(f.again) >= againEvery {
			f.again = now
			txs = append(txs, f.tx)
		}
	}
	return txs, censored
}

// complain is the loop that watches the leader, says what is wrong, and shuns.
func (c *Consensus) complain() {
	tick := time.NewTicker(complainEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-c.failed:
			return
		case <-c.ctx.Done():
			return
		}
		now := time.Now()
		leader, ok := c.Leader()
		if !ok || leader == c.cfg.Self || c.shuns(leader) {
			c.grieve.rest()
		} else if reason := c.grievance(leader, now); reason != "" {
			c.say(leader, reason, now)
		}
		c.judge(now)
	}
}

// rest: nobody leads who could be complained of.
func (g *grievances) rest() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lag.rest()
	g.stall.rest()
	for _, f := range g.waiting {
		f.leader = ledger.MemberID{}
	}
}

// grievance is what this node has against the leader now, if anything.
func (c *Consensus) grievance(leader ledger.MemberID, now time.Time) Reason {
	at := c.now()
	if !at.Epoch.Has(c.cfg.Self) || c.cfg.SignComplaint == nil {
		return ""
	}
	if c.behind() { // whatever is late here is late by this node's own doing
		c.grieve.rest()
		return ""
	}
	txs, censored := c.grieve.again(leader, now)
	for _, tx := range txs {
		c.spawn(func() {
			ctx, cancel := context.WithTimeout(c.ctx, againEvery)
			defer cancel()
			_, _ = c.ask(ctx, request{Op: opSubmit, Tx: tx}, true) // applied or not is what counts
		})
	}
	if censored {
		return ReasonCensored
	}
	g := c.grieve
	g.mu.Lock()
	defer g.mu.Unlock()
	if !c.quorumAlive(at.Epoch) { // then it is not the leader who holds things up
		g.lag.rest()
		g.stall.rest()
		return ""
	}
	switch many := maxShunned(at.Epoch); {
	case c.lags(at, leader, now) && g.lag.blame(many):
		return ReasonLag
	case c.stalls(at, leader) && g.stall.blame(many):
		return ReasonStalled
	}
	return ""
}

// behind: this replica has yet to apply what is committed.
func (c *Consensus) behind() bool {
	begun := c.applying.Load()
	return begun != 0 && time.Since(time.Unix(0, begun)) > complainEvery || c.raft.CommitIndex() > c.now().index+maxBehind
}

// lags: ledger time lags the own clock, has for a while, and does not catch up.
func (c *Consensus) lags(at applied, leader ledger.MemberID, now time.Time) bool {
	w := &c.grieve.lag
	lag := now.UnixMilli() - int64(at.Millis)
	if at.Millis == 0 || lag <= lagLimit.Milliseconds() {
		w.clear()
		return false
	}
	if w.look(leader, lag) <= lagLooks {
		return false
	}
	if lag < w.value { // it shrinks: look again
		w.rest()
		return false
	}
	return true
}

// stalls: heights above the newest certificate, and none comes. A node that
// approves nothing itself, or is apart from the others, knows another reason.
func (c *Consensus) stalls(at applied, leader ledger.MemberID) bool {
	w := &c.grieve.stall
	best, _, forked := c.pool.status()
	certified := best.Height
	signed := c.Promise().Height
	if certified >= at.Height || signed <= certified || forked > certified || c.unprovenState() != 0 {
		w.clear()
		return false
	}
	looks := w.look(leader, int64(certified))
	if int64(certified) != w.value {
		w.clear()
		return false
	}
	return looks > stallLooks
}

func (c *Consensus) quorumAlive(e ledger.Epoch) bool {
	if c.cfg.Alive == nil {
		return false
	}
	n := 0
	for _, m := range e.Members {
		if m.ID == c.cfg.Self || c.cfg.Alive(m.ID) {
			n++
		}
	}
	return n >= e.Q()
}

func (c *Consensus) say(leader ledger.MemberID, reason Reason, now time.Time) {
	x := Complaint{Cluster: c.cfg.Cluster, Leader: leader, Term: c.raft.CurrentTerm(), Reason: reason, Millis: uint64(now.UnixMilli())}
	s := signedComplaint{x, c.cfg.SignComplaint(x)}
	c.grieve.add(s, now)
	c.cfg.Gossip.Broadcast(GossipComplaint, ledger.Marshal(s))
}

var (
	errComplaint = errors.New("bad complaint")
	errShunned   = errors.New("this member shuns you")
)

// HandleComplaint takes a complaint that a member sent.
func (c *Consensus) HandleComplaint(from ledger.MemberID, body []byte) error {
	at, now := c.now(), time.Now()
	switch {
	case len(body) > maxComplaint:
		return fmt.Errorf("%w: %d bytes, at most %d", errComplaint, len(body), maxComplaint)
	case !at.Epoch.Has(from):
		return errNotMember
	case !c.grieve.due(from, now):
		return fmt.Errorf("%w: another within %s", errComplaint, complaintGap)
	}
	var s signedComplaint
	if err := ledger.Unmarshal(body, &s); err != nil {
		return fmt.Errorf("%w: %w", errComplaint, err)
	}
	x := s.Complaint
	switch {
	case s.Signature.Member != from || !s.verify():
		return errSignature
	case x.Cluster != c.cfg.Cluster:
		return errOtherEpoch
	case !at.Epoch.Has(x.Leader) || x.Leader == from || !slices.Contains(reasons, x.Reason):
		return fmt.Errorf("%w: of %s for %q", errComplaint, x.Leader, x.Reason)
	case age(x, now).Abs() > complaintLife:
		return fmt.Errorf("%w: %s old by this clock", errComplaint, age(x, now))
	}
	c.grieve.add(s, now)
	return nil
}

func age(x Complaint, now time.Time) time.Duration { return now.Sub(time.UnixMilli(int64(x.Millis))) }

func (g *grievances) due(from ledger.MemberID, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return now.Sub(g.came[from]) >= complaintGap
}

// add takes the place of the author's earlier complaint, unless it is older.
func (g *grievances) add(s signedComplaint, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	from := s.Signature.Member
	if s.Complaint.Millis <= g.heard[from].Millis {
		return
	}
	g.heard[from], g.came[from] = s.Complaint, now
}

// judge shuns whom enough members complain of, and at once, beside these, whom a proof
// is about. On the one concerned it hands leadership over: what the others see may be
// its own disk.
func (c *Consensus) judge(now time.Time) {
	e := c.now().Epoch
	convicted := c.witness.convicted(e)
	g := c.grieve
	g.mu.Lock()
	about := map[ledger.MemberID]int{}
	why := map[ledger.MemberID]Reason{}
	for from, x := range g.heard {
		switch {
		case !e.Has(from) || age(x, now) > complaintLife:
			delete(g.heard, from)
		default:
			about[x.Leader]++
			why[x.Leader] = x.Reason
		}
	}
	active := 0
	for m, s := range g.shunned {
		if now.Before(s.until) {
			if s.reason != ReasonEquivocated {
				active++
			}
		} else if now.Sub(s.begun[len(s.begun)-1]) > shunMemory {
			delete(g.shunned, m)
		}
	}
	for m := range g.first {
		if about[m] == 0 {
			delete(g.first, m)
		}
	}
	var accused []ledger.MemberID
	for m, n := range about {
		if g.first[m].IsZero() {
			g.first[m] = now
		}
		if s := g.shunned[m]; n >= enough(e) && e.Has(m) && (s == nil || !now.Before(s.until)) {
			accused = append(accused, m)
		}
	}
	// The earliest complained of come first; the same order on all that heard the same.
	slices.SortFunc(accused, func(a, b ledger.MemberID) int {
		if d := g.first[a].Compare(g.first[b]); d != 0 {
			return d
		}
		return slices.Compare(a[:], b[:])
	})
	news := map[ledger.MemberID]Reason{}
	for _, m := range convicted { // for as long as it holds a seat: again each time that it ends
		if s := g.shunned[m]; m != c.cfg.Self && (s == nil || !now.Before(s.until) || s.reason != ReasonEquivocated) {
			g.shun(m, ReasonEquivocated, now)
			news[m] = ReasonEquivocated
		}
	}
	for _, m := range accused {
		if _, done := news[m]; !done && active < maxShunned(e) && m != c.cfg.Self {
			active++
			g.shun(m, why[m], now)
			news[m] = why[m]
		}
	}
	g.mu.Unlock()
	for m, reason := range news {
		c.log.Error("leader shunned", "leader", m.String(), "reason", string(reason))
		c.layer.cut(m)
	}
	if slices.Contains(convicted, c.cfg.Self) && c.raft.State() == raft.Leader {
		c.log.Error("this node's key signed two entries for one slot: it hands over; does another machine run with its key?")
		c.spawn(func() { _ = c.Transfer(c.ctx) })
	}
	if slices.Contains(accused, c.cfg.Self) {
		c.log.Error("members complain of this leader, which hands over", "reason", string(why[c.cfg.Self]))
		c.spawn(func() { _ = c.Transfer(c.ctx) }) // who does not is shunned
	}
}

func (g *grievances) shun(m ledger.MemberID, why Reason, now time.Time) {
	s := g.shunned[m]
	if s == nil {
		s = &shunning{}
		g.shunned[m] = s
	}
	s.begun = slices.DeleteFunc(s.begun, func(t time.Time) bool { return now.Sub(t) > shunMemory })
	s.reason, s.until = why, now.Add(shunFor<<min(len(s.begun), maxDoublings))
	s.begun = append(s.begun, now)
	for from, x := range g.heard { // they have had their effect
		if x.Leader == m {
			delete(g.heard, from)
		}
	}
}

// shuns reports whether what m sends over raft is refused now.
func (c *Consensus) shuns(m ledger.MemberID) bool {
	c.grieve.mu.Lock()
	defer c.grieve.mu.Unlock()
	s := c.grieve.shunned[m]
	return s != nil && time.Now().Before(s.until)
}

// Shunned is a member whose raft streams and votes this node refuses.
type Shunned struct {
	Member ledger.MemberID
	Reason Reason
	Until  time.Time
	Times  int // within a day, this one included
}

// HeardComplaint is a complaint that stands, and its author.
type HeardComplaint struct {
	From ledger.MemberID
	Complaint
}

// alarms lists both for people, in a stable order.
func (g *grievances) alarms(now time.Time) (xs []HeardComplaint, ss []Shunned) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for m, x := range g.heard {
		if age(x, now) <= complaintLife {
			xs = append(xs, HeardComplaint{m, x})
		}
	}
	for m, s := range g.shunned {
		if now.Before(s.until) {
			ss = append(ss, Shunned{m, s.reason, s.until, len(s.begun)})
		}
	}
	slices.SortFunc(xs, func(a, b HeardComplaint) int { return slices.Compare(a.From[:], b.From[:]) })
	slices.SortFunc(ss, func(a, b Shunned) int { return slices.Compare(a.Member[:], b.Member[:]) })
	return xs, ss
}
