package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/coffer-network/coffer/chains"
	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/tss"
)

// job is one signature that the newest attempt of an open batch needs and of
// which this member is a possible party.
type job struct {
	batch   ledger.Batch
	attempt ledger.Attempt
	kind    ledger.BatchKind
}

func (j job) key() jobKey { return jobKey{j.batch.ID, j.attempt.K} }

type jobKey struct{ batch, attempt uint64 }

// inputKey names one signature: retries of the same bytes share it.
type inputKey struct {
	batch, body uint64
	input       int
}

// planSigning says for which attempts self should hold or make signatures now:
// batches that are open, whose anchor is not seen spent, and on whose roster
// self stands. Oldest first. A pause and a halt stop payments, an asset's its own;
// test signatures of an eviction that a halt is the reason for go on.
func planSigning(v *ledger.State, self ledger.MemberID) []job {
	var jobs []job
	_, _, paused := v.PausedBy()
	stopped := paused || v.OutflowsHalt != ""
	for id := range v.Live.All() {
		b, ok := v.Batches.Get(id)
		if !ok || b.Spent != nil || b.Kind == ledger.BatchKeygen || b.Kind == ledger.BatchReshare || stopped && b.Kind == ledger.BatchPay {
			continue
		}
		if b.Kind == ledger.BatchPay && v.Halts(b) != "" {
			continue // whoever signs it now stops
		}
		a := b.Newest()
		if !slices.Contains(a.Roster, self) {
			continue
		}
		jobs = append(jobs, job{b, a, b.Kind})
	}
	return jobs
}

// sign keeps one goroutine per job and ends those that the ledger no longer
// asks for.
func (n *Node) sign(ctx context.Context, advanced func()) {
	running := map[jobKey]context.CancelFunc{}
	defer func() {
		for _, stop := range running {
			stop()
		}
	}()
	done := make(chan jobKey, 64)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		advanced()
		v, changed := n.app.now()
		wanted := map[jobKey]bool{}
		for _, j := range planSigning(v, n.self) {
			k := j.key()
			wanted[k] = true
			if _, ok := running[k]; ok || n.hasAll(v, j) || n.tooOften(k) {
				continue
			}
			jctx, stop := context.WithCancel(ctx)
			running[k] = stop
			n.wg.Add(1)
			go func() {
				defer n.wg.Done()
				n.runJob(jctx, j)
				select {
				case done <- k:
				case <-ctx.Done():
				}
			}()
		}
		for k, stop := range running {
			if !wanted[k] {
				stop()
			}
		}
		n.forget(v)
		select {
		case <-ctx.Done():
			return
		case k := <-done:
			running[k]()
			delete(running, k)
		case <-changed:
		case <-tick.C:
		}
	}
}

// forget drops what was kept in memory for batches that are settled. Signatures
// stay in the keystore.
func (n *Node) forget(v *ledger.State) {
	done := func(id uint64) bool { b, ok := v.Batches.Get(id); return ok && b.Done }
	n.mu.Lock()
	defer n.mu.Unlock()
	for k := range n.failedAt {
		if done(k.batch) {
			delete(n.failedAt, k)
		}
	}
	for k := range n.tooCheap {
		if done(k.batch) {
			delete(n.tooCheap, k)
		}
	}
	for k := range n.sigs {
		if done(k.batch) && n.unshared[k] == nil {
			delete(n.sigs, k)
		}
	}
}

// tooOften paces an attempt that failed here: the next try comes with the next
// attempt, or after a pause.
func (n *Node) tooOften(k jobKey) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return time.Since(n.failedAt[k]) < 5*time.Second
}

func (n *Node) hasAll(v *ledger.State, j job) bool {
	inputs := 1
	if j.attempt.Bitcoin != nil {
		inputs = len(j.attempt.Bitcoin.Inputs)
	}
	for i := range inputs {
		if !n.signed(j, i) {
			return false
		}
	}
	return true
}

// runJob brings one attempt to its signatures, or gives it up. The order of the
// checks is that of spec signing §2.1; nothing goes to tss around them.
func (n *Node) runJob(ctx context.Context, j job) {
	log := n.log.With(slog.Uint64("batch", j.batch.ID), slog.Uint64("attempt", j.attempt.K))
	err := n.signAttempt(ctx, j, log)
	if err == nil || ctx.Err() != nil {
		return
	}
	log.Warn("attempt not signed here", slog.Any("err", err))
	var refused *refusal
	if errors.As(err, &refused) {
		n.metrics.unsignedFor(refused.check)
	}
	n.mu.Lock()
	n.failedAt[j.key()] = time.Now()
	n.mu.Unlock()
	if errors.Is(err, errGiveUp) {
		n.giveUp(j)
	}
}

var errGiveUp = errors.New("attempt given up")

// refusal is a check of this member that an attempt did not pass (spec: committee
// §5). signerChecks are their names.
type refusal struct {
	check string
	err   error
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

const (
	checkTransaction = "transaction" // S2, S4, S7: built, read back, verified against the ledger
	checkTimely      = "timely"      // S3
	checkChain       = "chain"       // the chain is not followed well enough (outflows R-3)
	checkFence       = "fence"       // the chain is ahead of the ledger (outflows C10)
	checkSolvency    = "solvency"    // S5: custody is not known to hold what is owed
)

var signerChecks = []string{checkTransaction, checkTimely, checkChain, checkFence, checkSolvency, "caps", "limit", "screening"}

func (n *Node) giveUp(j job) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.gaveUp[j.key()] = ledger.GaveUp{Batch: j.batch.ID, Attempt: j.attempt.K}
}

func (n *Node) signAttempt(ctx context.Context, j job, log *slog.Logger) error {
	if _, err := n.cons.WaitCertificate(ctx, j.attempt.Height); err != nil {
		return fmt.Errorf("wait for a certificate over height %d: %w", j.attempt.Height, err)
	}
	v, _, vouched := n.believed()
	b, ok := v.Batches.Get(j.batch.ID)
	if !vouched || !ok || b.Done || b.Newest().K != j.attempt.K || b.Newest().At != j.attempt.At {
		return nil // another attempt by now, or another history
	}
	j.batch, j.attempt = b, b.Newest() // of the ledger that the certificate covers, not of the one that began the job
	if j.kind == ledger.BatchPay {
		if why := n.unproven(v, j.batch); why != "" {
			return &refusal{checkSolvency, fmt.Errorf("refused: solvency: %s", why)}
		}
		if why := n.refuses(ctx, v, j); why != "" {
			return fmt.Errorf("refused: %s", why)
		}
	}
	inputs, spends, err := n.inputs(v, j)
	if err != nil {
		return &refusal{checkTransaction, err}
	}
	if j.kind == ledger.BatchPay {
		if why := n.blind(j.batch.Chain); why != "" {
			return &refusal{checkChain, fmt.Errorf("%s is not followed well enough to sign on: %s", j.batch.Chain, why)}
		}
		// Others' approvals can make the certificate before this member approves.
		timely, known := n.verdict(j.key())
		for ; !known; timely, known = n.verdict(j.key()) {
			if !sleep(ctx, 20*time.Millisecond) {
				return ctx.Err()
			}
		}
		if !timely {
			return &refusal{checkTimely, fmt.Errorf("%w: planned at another time than it reached this member", errGiveUp)}
		}
		if err := n.checkFence(ctx, v, j.batch.Chain, spends); err != nil {
			return &refusal{checkFence, err}
		}
	}
	// One session after the other per attempt: inputs of one transaction contend
	// for the same cores, and a failed turn of one says who is missing to all.
	for i, in := range inputs {
		if n.signed(j, i) {
			continue
		}
		if err := n.runTurns(ctx, j, i, in, log.With(slog.Int("input", i))); err != nil {
			return err
		}
	}
	return nil
}

// inputs builds the transaction from this node's own ledger, reads the bytes
// back and asks VerifySpend: the only door to a session. spends are the resources
// it consumes.
func (n *Node) inputs(v *ledger.State, j job) (inputs []chains.ToSign, spends []string, err error) {
	if j.kind == ledger.BatchTest {
		return []chains.ToSign{{Digest: j.batch.Digest}}, nil, nil
	}
	chain, ok := n.chains[j.batch.Chain]
	if !ok {
		return nil, nil, fmt.Errorf("chain %q is not followed", j.batch.Chain)
	}
	u, err := chain.Build(j.attempt)
	if err != nil {
		return nil, nil, fmt.Errorf("build: %w", err)
	}
	spends, pays, err := chain.Reads(u)
	if err != nil {
		return nil, nil, fmt.Errorf("read back: %w", err)
	}
	if err := v.VerifySpend(j.batch.ID, j.attempt.K, spends, pays); err != nil {
		return nil, nil, fmt.Errorf("verify spend: %w", err)
	}
	return u.Inputs, spends, nil
}

// checkFence asks one chain at a time, for whichever job comes.
func (n *Node) checkFence(ctx context.Context, v *ledger.State, chain string, spends []string) error {
	n.mu.Lock()
	picture := n.seen[chain]
	n.mu.Unlock()
	n.fenceMu.Lock()
	defer n.fenceMu.Unlock()
	f := n.fences[chain]
	if f == nil {
		f = new(Fence)
		n.fences[chain] = f
	}
	return f.Check(ctx, v, chain, n.chains[chain], spends, picture)
}

func (n *Node) signed(j job, input int) bool {
	_, ok := n.signature(inputKey{j.batch.ID, j.attempt.Body, input})
	return ok
}

// runTurns takes the lowest turn whose committee holds nobody suspected, joins
// it if it holds this member, and goes on to the next when it fails. A Join
// from a higher turn moves this member up to it (spec: signing §3).
func (n *Node) runTurns(ctx context.Context, j job, input int, in chains.ToSign, log *slog.Logger) error {
	suspects := map[ledger.MemberID]bool{}
	joins := n.listenTurns(j, input)
	defer n.unlistenTurns(j, input)
	turn := uint64(0)
	for joined := 0; joined < ledger.TurnLimit; {
		if n.signed(j, input) {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		n.suspectRefusers(j, suspects)
		turn = n.pickTurn(j.attempt, turn, suspects)
		committee := j.attempt.Committee(turn)
		if !hasMember(committee, n.self) {
			if up, ok := n.awaitTurn(ctx, j, input, committee, suspects, joins); ok && up > turn {
				turn = up
			}
			continue
		}
		joined++
		req, err := n.request(j, input, turn, in, committee)
		if err != nil {
			return err
		}
		sig, err := n.runSession(ctx, j, input, turn, committee, req, joins)
		var blame *tss.Blame
		switch {
		case err == nil:
			n.keepSignature(j, input, turn, committee, req.Session, sig)
			return nil
		case errors.Is(err, tss.ErrJoined):
			log.Info("session was joined before a restart, next turn", slog.Uint64("turn", turn))
			turn++
		case errors.As(err, &blame):
			n.noteBlame(blame, req)
			for _, c := range blame.Culprits {
				if m := ledger.MemberID(c); m != n.self {
					suspects[m] = true
				}
			}
			log.Info("turn failed, next", slog.Uint64("turn", turn), slog.Any("err", err))
			turn++
		case errors.Is(err, errMoveUp):
			turn++
		case errors.Is(err, tss.ErrBusy):
			joined--
			if !sleep(ctx, 200*time.Millisecond) {
				return ctx.Err()
			}
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, tss.ErrNoKeyShare):
			return fmt.Errorf("%w: %w", errGiveUp, err)
		default:
			log.Info("turn failed, next", slog.Uint64("turn", turn), slog.Any("err", err))
			turn++
		}
	}
	return fmt.Errorf("%w: %d turns failed", errGiveUp, ledger.TurnLimit)
}

var errMoveUp = errors.New("a later turn has begun")

// pickTurn is the lowest turn from at on whose committee holds nobody this
// member suspects; where there is none it is at itself.
func (n *Node) pickTurn(a ledger.Attempt, at uint64, suspects map[ledger.MemberID]bool) uint64 {
	turn, _ := a.NextTurn(at, func(committee []ledger.MemberID) bool {
		for _, m := range committee {
			if m != n.self && (suspects[m] || !n.peers.Alive(m)) {
				return false
			}
		}
		return true
	})
	return turn
}

// awaitTurn waits while others sign: until the signature is here, somebody of
// the committee falls silent, or a later turn calls for this member.
func (n *Node) awaitTurn(ctx context.Context, j job, input int, committee []ledger.MemberID, suspects map[ledger.MemberID]bool, joins <-chan uint64) (uint64, bool) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return 0, false
		case t := <-joins:
			return t, true
		case <-tick.C:
			if n.signed(j, input) {
				return 0, false
			}
			n.suspectRefusers(j, suspects)
			for _, m := range committee {
				if !n.peers.Alive(m) || suspects[m] {
					return 0, false
				}
			}
		}
	}
}

func (n *Node) request(j job, input int, turn uint64, in chains.ToSign, committee []ledger.MemberID) (tss.Request, error) {
	v, _ := n.app.now()
	r := tss.Request{
		Cluster: v.Cluster, Kind: tss.Sign, Key: tssKey(j.batch.Key), Epoch: j.attempt.Epoch, Try: j.attempt.Try,
		Staged: j.kind == ledger.BatchTest, At: j.attempt.At, Batch: j.batch.ID, Attempt: j.attempt.K,
		Input: uint16(input), Turn: uint16(turn), Digest: in.Digest[:],
	}
	for _, m := range committee {
		r.Parties = append(r.Parties, tss.PartyID(m))
	}
	if j.kind == ledger.BatchPay {
		k, ok := v.Keys.Get(j.batch.Key)
		if !ok {
			return r, fmt.Errorf("key %s is not in force", j.batch.Key)
		}
		child, err := derivedPub(k, in)
		if err != nil {
			return r, err
		}
		r.Tweak = child.Delta
	}
	r.Session = tss.SessionName(r)
	return r, nil
}

func tssKey(id string) tss.KeyID {
	if id == ledger.KeyEd255191 {
		return tss.KeyID{ID: id, Curve: tss.Ed25519}
	}
	return tss.KeyID{ID: id, Curve: tss.Secp256k1}
}

// runSession is one joined turn. It ends early when a later turn calls for this
// member, or when the signature arrives from elsewhere.
func (n *Node) runSession(ctx context.Context, j job, input int, turn uint64, committee []ledger.MemberID, r tss.Request, joins <-chan uint64) (tss.Signature, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	n.noteSession(r, committee)
	defer n.dropSession(r.Session)
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case t := <-joins:
				if t > turn {
					cancel(errMoveUp)
				}
			case <-tick.C:
				if n.signed(j, input) {
					cancel(errMoveUp)
				}
			}
		}
	}()
	start := time.Now()
	sig, err := n.tss.Sign(ctx, r)
	if err != nil && context.Cause(ctx) == errMoveUp {
		return sig, errMoveUp
	}
	n.metrics.session(string(r.Key.Curve), err, time.Since(start))
	return sig, err
}

// listenTurns and takeJoin carry Joins of higher turns to the job they concern.
func (n *Node) listenTurns(j job, input int) <-chan uint64 {
	c := make(chan uint64, 4)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.turns[turnKey{j.batch.ID, j.attempt.K, input}] = c
	return c
}

func (n *Node) unlistenTurns(j job, input int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.turns, turnKey{j.batch.ID, j.attempt.K, input})
}

type turnKey struct {
	batch, attempt uint64
	input          int
}

// takeJoin is told that a member began a session this node did not. Only a turn
// that calls for this node, from a member of that committee, and not absurdly
// far ahead, moves it.
func (n *Node) takeJoin(from ledger.MemberID, batch, attempt uint64, input int, turn uint64) {
	v, _ := n.app.now()
	b, ok := v.Batches.Get(batch)
	if !ok || b.Done || len(b.Attempts) == 0 || b.Newest().K != attempt || b.Kind == ledger.BatchKeygen || b.Kind == ledger.BatchReshare || turn > b.Newest().LastTurn() {
		return
	}
	c := b.Newest().Committee(turn)
	if !hasMember(c, from) || !hasMember(c, n.self) {
		return
	}
	n.mu.Lock()
	ch := n.turns[turnKey{batch, attempt, input}]
	n.mu.Unlock()
	select {
	case ch <- turn: // a nil channel blocks, and default takes it
	default:
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
