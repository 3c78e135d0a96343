package tss

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// session is one run on this node:
//
//	joining ── all m joined ──► round 1 ─…─► round R ──► result
//	   └───────────────┴────────────┴───────────┴──────► Blame
//
// Transport goroutines only put frames into slots; one goroutine, run, does
// everything else, so messages of a party are never fed concurrently.
type session struct {
	s        *Signer
	r        Request   // sorted
	parties  []PartyID // all members of the session
	roles    []role    // of each
	protocol *protocol
	self     int
	index    map[PartyID]int
	out      []*outbox // per party, nil for self

	mu      sync.Mutex
	joined  []bool
	reply   []bool            // the party has not heard our Join: it wants it again
	slots   []map[byte]*frame // per party, by type: first message wins (E6)
	echoes  []*frame          // per party
	proofs  []*frame
	spent   []int // bytes taken per party
	started bool  // all joined
	emitted int   // round of our last message
	err     error // why it failed
	wake    chan struct{}
	failed  chan struct{}

	// Owned by run.
	round    int
	fed      []map[byte]bool
	hashes   map[int][][32]byte // broadcasts by round, slot and party
	own      map[byte][]byte    // our broadcasts by type
	pending  []outgoing         // of the next round
	feeding  int                // whose message was fed last, -1 before
	disputes map[int]bool       // parties whose echo differs from ours
	dispute  <-chan time.Time
	outcome  any
}

const (
	// maxSpent bounds what a session takes from one party: a keygen of ten
	// sends each peer about 200 KiB (spec: signing §9).
	maxSpent = 1 << 20
	// joinResend is how often a Join is repeated to who has not answered.
	joinResend = 100 * time.Millisecond
	// disputeWait is what two parties get to show each other the broadcasts
	// they saw differently.
	disputeWait = time.Second
	// outboxLength: Joins, one frame per type and two of a dispute per party.
	outboxLength = 64
)

func newSession(s *Signer, r Request, p *protocol, self int) *session {
	parties := r.members()
	n := len(parties)
	x := &session{
		s: s, r: r, parties: parties, roles: make([]role, n), protocol: p, self: self, index: map[PartyID]int{},
		joined: make([]bool, n), reply: make([]bool, n),
		slots: make([]map[byte]*frame, n), echoes: make([]*frame, n), spent: make([]int, n),
		wake: make(chan struct{}, 1), failed: make(chan struct{}),
		round: 1, feeding: -1, fed: make([]map[byte]bool, n), hashes: map[int][][32]byte{}, own: map[byte][]byte{},
		disputes: map[int]bool{}, out: make([]*outbox, n),
	}
	x.joined[self] = true
	for i, p := range parties {
		x.index[p] = i
		x.roles[i] = r.rolesOf(p)
		x.slots[i], x.fed[i] = map[byte]*frame{}, map[byte]bool{}
		if i != self {
			x.out[i] = s.newOutbox(p)
		}
	}
	return x
}

// accept takes a frame from the transport. It refuses what does not belong
// here, and ends the session on proof that a party deviates.
func (x *session) accept(f *frame) error {
	e := f.env
	from, party := x.index[e.From]
	if !party || from == x.self {
		return refused("E4", "%s is no other party of session %s", e.From, e.Session)
	}
	if len(e.To) != 0 && !bytes.Equal(e.To, x.parties[x.self][:]) {
		return refused("E4", "for another party")
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.err != nil {
		return refused("E8", "session %s is over", e.Session)
	}
	if e.Epoch != x.r.Epoch || e.Batch != x.r.Batch || e.Attempt != x.r.Attempt || e.Input != x.r.Input || e.Turn != x.r.Turn {
		x.failLocked(x.proven(from, int(e.Round), "E3", "numbers differ from those the session is named after", f.raw))
		return nil
	}
	if x.spent[from] += len(f.raw); x.spent[from] > maxSpent {
		x.failLocked(x.suspect(int(e.Round), Flood, fmt.Sprintf("more than %d bytes", maxSpent), from))
		return nil
	}
	switch f.rule {
	case ruleJoin:
		x.joined[from] = true
		if !bytes.Equal(e.Payload, []byte{joinHeard}) {
			x.reply[from] = true
		}
	case ruleEcho:
		if x.echoes[from] == nil {
			x.echoes[from] = f
		}
	case ruleProof:
		if len(x.proofs) < maxParties*maxParties {
			x.proofs = append(x.proofs, f)
		}
	default:
		if !x.protocol.has(f.rule) {
			x.failLocked(x.proven(from, int(e.Round), "E5", f.rule.name+" in a session of "+x.protocol.name, f.raw))
			return nil
		}
		if !f.rule.role.of(x.roles[from]) || !f.rule.broadcast && !f.rule.to.of(x.roles[x.self]) {
			x.failLocked(x.proven(from, int(e.Round), "E4", f.rule.name+" between members without its roles", f.raw))
			return nil
		}
		if f.rule.round > x.aheadLocked() {
			return refused("E5", "%s two rounds ahead", f.rule.name)
		}
		switch first := x.slots[from][f.rule.code]; {
		case first == nil:
			x.slots[from][f.rule.code] = f
		case first.hash != f.hash:
			x.failLocked(x.equivocation(from, int(e.Round), first.raw, f.raw))
			return nil
		}
	}
	x.signal()
	return nil
}

// aheadLocked is the last round in which an honest party can be: everybody needs
// our message of round r before it sends r+1.
func (x *session) aheadLocked() int {
	for round := x.emitted + 1; round < x.protocol.rounds; round++ {
		if len(x.protocol.inRound(round, x.roles[x.self], dealer|receiver)) > 0 {
			return round
		}
	}
	return x.protocol.rounds
}

// inRound lists the types that party i sends us in a round.
func (x *session) inRound(round, i int) []*rule {
	return x.protocol.inRound(round, x.roles[i], x.roles[x.self])
}

func (x *session) signal() {
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// lost is told that the transport lost a party. A keygen or resharing that is
// still being joined goes on waiting: all members must come anyway, and the
// window is long.
func (x *session) lost(p PartyID) {
	i, party := x.index[p]
	if !party || i == x.self {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.started && x.r.Kind != Sign {
		x.joined[i] = false
		return
	}
	if len(x.slots[i]) == x.protocol.expects(x.roles[i], x.roles[x.self]) {
		return // it has nothing more to say
	}
	x.failLocked(x.suspect(x.emitted, Disconnected, "", i))
}

func (x *session) fail(err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.failLocked(err)
}

func (x *session) failLocked(err error) {
	if x.err == nil {
		x.err = err
		close(x.failed)
	}
}

func (x *session) failure() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.err
}

func (x *session) proven(from, round int, check, detail string, evidence ...[]byte) *Blame {
	return &Blame{
		Session: x.r.Session, Culprits: []PartyID{x.parties[from]}, Proven: true, Round: round,
		Reason: Malformed, Check: check, Detail: detail, Evidence: evidence,
	}
}

func (x *session) equivocation(from, round int, first, second []byte) *Blame {
	b := x.proven(from, round, "E6", "", first, second)
	b.Reason = Equivocation
	return b
}

func (x *session) suspect(round int, why Reason, detail string, parties ...int) *Blame {
	b := &Blame{Session: x.r.Session, Round: round, Reason: why, Detail: detail}
	for _, i := range parties {
		b.Culprits = append(b.Culprits, x.parties[i])
	}
	return b
}

// others lists all parties but this one.
func (x *session) others() []int {
	var out []int
	for i := range x.parties {
		if i != x.self {
			out = append(out, i)
		}
	}
	return out
}

// othersIn lists the other parties that have a role.
func (x *session) othersIn(as role) []int {
	return slices.DeleteFunc(x.others(), func(i int) bool { return !as.of(x.roles[i]) })
}

// run carries the session from the join exchange to the library's result.
func (x *session) run(ctx context.Context, j *job) (any, error) {
	if err := x.join(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, x.r.Deadline, errDeadline)
	defer cancel()
	e, err := x.s.begin(ctx, j)
	if err != nil {
		return nil, x.explain(ctx, err)
	}
	defer e.close()
	stop := context.AfterFunc(ctx, e.abort)
	defer stop()
	if err := x.compute(ctx, func() error { return x.emit(e.start()) }); err != nil {
		return nil, x.explain(ctx, err)
	}
	quiet := time.NewTimer(x.s.silence(x.r))
	defer quiet.Stop()
	for {
		begin := time.Now()
		progress, err := x.step(ctx, e)
		if err != nil {
			return nil, x.explain(ctx, err)
		}
		if x.outcome != nil {
			return x.outcome, nil
		}
		if progress {
			x.s.stepTook(time.Since(begin))
			quiet.Reset(x.s.silence(x.r))
			continue
		}
		select {
		case <-x.wake:
		case <-x.failed:
			return nil, x.failure()
		case <-ctx.Done():
			return nil, x.explain(ctx, ctx.Err())
		case <-x.dispute:
			return nil, x.suspect(x.round, Divergence, "echo differs and nobody shows why", x.disputed()...)
		case <-quiet.C:
			return nil, x.suspect(x.round, Silent, "", x.missing()...)
		}
	}
}

var errDeadline = errors.New("session deadline")

// explain turns the session's own deadline into blame on whom it waited for.
func (x *session) explain(ctx context.Context, err error) error {
	if failed := x.failure(); failed != nil {
		return failed
	}
	if errors.Is(context.Cause(ctx), errDeadline) {
		late := x.missing()
		if len(late) == 0 && x.feeding >= 0 {
			late = []int{x.feeding} // all is here, and this is what it is spent on
		}
		return x.suspect(x.round, Deadline, "", late...)
	}
	if ctx.Err() != nil {
		return ctx.Err() // a child that was killed for it says less
	}
	return err
}

// missing lists the parties whose messages of the current round are not there.
func (x *session) missing() []int {
	x.mu.Lock()
	defer x.mu.Unlock()
	var out []int
	for _, i := range x.others() {
		for _, r := range x.inRound(x.round, i) {
			if x.slots[i][r.code] == nil {
				out = append(out, i)
				break
			}
		}
	}
	return out
}

const (
	joinUnheard byte = 0 // please send yours
	joinHeard   byte = 1
)

// join exchanges Joins until all parties have one of each other.
func (x *session) join(ctx context.Context) error {
	resend := time.NewTicker(joinResend)
	defer resend.Stop()
	window := time.NewTimer(x.s.joinWait(x.r.Kind))
	defer window.Stop()
	due := true
	for {
		x.mu.Lock()
		missing := x.sendJoinsLocked(due)
		x.started = len(missing) == 0
		started := x.started
		x.mu.Unlock()
		if started {
			return nil
		}
		due = false
		select {
		case <-x.wake:
		case <-resend.C:
			due = true
		case <-x.failed:
			return x.failure()
		case <-ctx.Done():
			return ctx.Err()
		case <-window.C:
			return x.suspect(0, NotJoined, "", missing...)
		}
	}
}

// sendJoinsLocked answers who asked and, when due, asks who is missing. A Join
// that was heard is not answered again, so two parties do not play ping-pong.
func (x *session) sendJoinsLocked(due bool) (missing []int) {
	for _, i := range x.others() {
		if !x.joined[i] {
			missing = append(missing, i)
		}
		state := joinUnheard
		switch {
		case x.reply[i]:
			state = joinHeard
		case x.joined[i] || !due:
			continue
		}
		x.reply[i] = false
		x.send(i, x.seal(ruleJoin, i, 0, nil, []byte{state}))
	}
	return missing
}

// step feeds every message of the current round that has come, and moves to
// the next round when all are in.
func (x *session) step(ctx context.Context, e machine) (progress bool, err error) {
	x.mu.Lock()
	x.sendJoinsLocked(false)
	if x.err != nil {
		x.mu.Unlock()
		return false, x.failure()
	}
	var ready []*frame
	for _, i := range x.others() {
		for _, r := range x.inRound(x.round, i) {
			if f := x.slots[i][r.code]; f != nil && !x.fed[i][r.code] {
				ready = append(ready, f)
			}
		}
	}
	x.mu.Unlock()
	if err := x.settleDisputes(); err != nil {
		return false, err
	}
	ready = slices.DeleteFunc(ready, func(f *frame) bool { return !x.agrees(f) })
	if len(ready) == 0 {
		return false, nil
	}
	err = x.compute(ctx, func() error {
		for _, f := range ready {
			from := x.index[f.env.From]
			if f.rule.broadcast { // before feeding: what we answer echoes it
				x.recordBroadcast(f.rule, from, f.hash)
			}
			x.feeding = from
			outs, err := e.feed(from, f.rule, f.env.Payload)
			if err != nil {
				return x.blameFor(from, f, err)
			}
			x.pending = append(x.pending, outs...)
			x.fed[from][f.rule.code] = true
		}
		if !x.roundComplete() {
			return nil
		}
		// Only now are all broadcasts known that the next round echoes: a dealer
		// answers before it has those that receivers send one another.
		outs := x.pending
		x.pending = nil
		return x.emit(outs, nil)
	})
	if err != nil {
		return false, err
	}
	if x.roundComplete() {
		x.round++
		if x.outcome, err = e.result(); err != nil {
			return false, err
		}
		if x.outcome == nil && x.round > x.protocol.rounds {
			return false, x.suspect(x.round, Failed, "the library has no result after its last round", x.others()...)
		}
	}
	return true, nil
}

// blameFor says what an error of the engine means for who sent the frame.
func (x *session) blameFor(from int, f *frame, err error) error {
	var bad *violation
	var who *unclear
	var gaveUp *libraryError
	var died *crash
	switch {
	case errors.As(err, &died):
		return x.crashed(died)
	case errors.As(err, &bad) && bad.local:
		b := x.suspect(f.rule.round, Malformed, bad.detail, from)
		b.Check, b.Evidence = bad.check, [][]byte{f.raw}
		return b
	case errors.As(err, &bad):
		return x.proven(from, f.rule.round, bad.check, bad.detail, x.evidence(from, f)...)
	case errors.As(err, &who):
		b := x.suspect(f.rule.round, Failed, who.detail, x.othersIn(who.from)...)
		b.Check = who.check
		return b
	case errors.As(err, &gaveUp):
		suspects := gaveUp.culprits
		if len(suspects) == 0 {
			suspects = x.others()
		}
		return x.suspect(f.rule.round, Failed, gaveUp.text, suspects...)
	}
	return err
}

// evidence is a frame, and before it the commitment that it opens: who was not
// here needs both.
func (x *session) evidence(from int, f *frame) [][]byte {
	x.mu.Lock()
	defer x.mu.Unlock()
	if made := x.protocol.commitment(f.rule); made != nil && x.slots[from][made.code] != nil {
		return [][]byte{x.slots[from][made.code].raw, f.raw}
	}
	return [][]byte{f.raw}
}

// crashed names whom the death of the child points at. The library computes
// when the last message of a round arrives, with all of them, so the last one
// fed says nothing about whose it was. The trace may say: the library's
// goroutines have the party's index as their first argument. Otherwise all are
// suspected whose messages went in. Nobody else can verify any of this, so it
// proves nothing; the envelopes are kept for whoever mends the guard.
func (x *session) crashed(d *crash) error {
	r := rulesByCode[d.code]
	if r == nil || d.from < 0 || d.from >= len(x.parties) {
		return d // before any message of a peer
	}
	suspects := []int{d.from}
	if x.lastOfRound(d.from, r) {
		suspects = x.others()
		if i, ok := x.indexed(d.death.Index, r); ok {
			suspects = []int{i}
		}
	}
	b := x.suspect(r.round, Crashed, r.name+": "+d.Error(), suspects...)
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, i := range suspects {
		for _, r := range x.inRound(r.round, i) {
			if f := x.slots[i][r.code]; f != nil {
				b.Evidence = append(b.Evidence, f.raw)
			}
		}
	}
	return b
}

// indexed finds the party that the library numbers so among those who send r.
func (x *session) indexed(i int, r *rule) (int, bool) {
	numbered := x.r.Parties
	if r.role == dealer {
		numbered = x.r.From.Holders
	}
	if i < 0 || i >= len(numbered) {
		return 0, false
	}
	party := x.index[numbered[i]]
	return party, party != x.self
}

// lastOfRound reports whether, but for this message, all of its round were fed.
func (x *session) lastOfRound(from int, r *rule) bool {
	for _, i := range x.others() {
		for _, other := range x.inRound(r.round, i) {
			if !x.fed[i][other.code] && (i != from || other != r) {
				return false
			}
		}
	}
	return true
}

func (x *session) recordBroadcast(r *rule, party int, hash [32]byte) {
	if x.hashes[r.round] == nil {
		x.hashes[r.round] = make([][32]byte, len(x.parties)*len(x.protocol.broadcasts(r.round)))
	}
	x.hashes[r.round][r.slot*len(x.parties)+party] = hash
}

func (x *session) roundComplete() bool {
	for _, i := range x.others() {
		for _, r := range x.inRound(x.round, i) {
			if !x.fed[i][r.code] {
				return false
			}
		}
	}
	return true
}

// compute runs f when a processor is free, older batches first.
func (x *session) compute(ctx context.Context, f func() error) error {
	release, err := x.s.cpu(x.r).acquire(ctx, x.failed, priorityOf(x.r))
	if err != nil {
		if failed := x.failure(); failed != nil {
			return failed
		}
		return err
	}
	defer release()
	return f()
}

// emit seals and sends what the engine made.
func (x *session) emit(outs []outgoing, err error) error {
	if err != nil {
		return err
	}
	for _, o := range outs {
		var seen []byte
		if o.rule.round > 1 {
			h := seenHash(x.hashes[o.rule.round-1])
			seen = h[:]
		}
		o.payload = x.s.tampered(o)
		x.mu.Lock()
		x.emitted = max(x.emitted, o.rule.round)
		x.mu.Unlock()
		if o.to >= 0 {
			x.send(o.to, x.seal(o.rule, o.to, o.rule.round, seen, o.payload))
			continue
		}
		raw := x.seal(o.rule, -1, o.rule.round, seen, o.payload)
		f, err := openFrame(x.r.Cluster, &x.parties[x.self], raw)
		if err != nil {
			return fmt.Errorf("own broadcast: %w", err)
		}
		x.recordBroadcast(o.rule, x.self, f.hash)
		x.own[o.rule.code] = raw
		for _, i := range x.others() {
			x.send(i, raw)
		}
	}
	return nil
}

func (x *session) seal(r *rule, to, round int, seen, payload []byte) []byte {
	env := envelope{
		Session: x.r.Session, Epoch: x.r.Epoch, Batch: x.r.Batch, Attempt: x.r.Attempt,
		Input: x.r.Input, Turn: x.r.Turn, Round: uint8(round), Role: uint8(r.role),
		From: x.parties[x.self], Seen: seen, Payload: payload,
	}
	if to >= 0 {
		env.To = x.parties[to][:]
	}
	return sealFrame(x.s.cfg.Identity, x.r.Cluster, r, env)
}

func (x *session) send(to int, raw []byte) {
	if !x.out[to].put(raw) {
		x.s.log.Warn("session queue to a party is full", "session", x.r.Session, "party", x.parties[to])
	}
}

// close lets what is queued leave, for a while, and ends the senders.
func (x *session) close() {
	for _, o := range x.out {
		if o != nil {
			o.close()
		}
	}
}
