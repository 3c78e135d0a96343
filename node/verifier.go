package node

import (
	"context"
	"crypto/sha256"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node/api"
	"github.com/prometheus/client_golang/prometheus"
)

// Bounds of the verifier. Both only cost speed when they are met.
const (
	maxVerifying = 4096      // signatures waiting for a worker: as many as the leader queues commands (spec: consensus §9)
	maxJudged    = 16 * 4096 // kept, without what was judged: about 10 MB
	maxExpected  = 4096      // commands on their way, by hash
	// maxChecked is the most bytes of one signature and its message that wait: 64
	// observations of an attestation are 10 kB, a request is at most 8 KiB, and a
	// full queue is then 64 MiB. What is longer is judged by Apply.
	maxChecked = 16 << 10
)

// verifier judges signatures once per node, on a bounded pool, when a command
// arrives and not when it is applied (spec: requests §5). Its verdicts are its
// own: nobody else's is ever put in.
//
// It is only speed. Apply claims a signature that no worker has begun, so it
// waits for nothing but one judgement under way, and judges what it does not
// find. A verifier without workers, or closed, is slower and no different.
type verifier struct {
	queue   chan *judgement
	stop    chan struct{}
	stopped sync.Once
	wg      sync.WaitGroup
	how     *prometheus.CounterVec
	verify  func(ledger.SignatureCheck) bool // the check's own; a test may have it panic

	mu    sync.Mutex
	known map[ledger.Hash]*judgement
	kept  []ledger.Hash // ring of the keys in known, oldest at next
	next  int

	seen     map[ledger.Hash]bool // commands that were expected: a node meets each up to three times
	seenRing []ledger.Hash        // likewise a ring
	seenNext int
}

// judgement is one signature, waiting, under way or judged. Whoever claims it
// judges it.
type judgement struct {
	check   ledger.SignatureCheck
	claimed atomic.Bool
	done    chan struct{}
	good    bool // these two once done is closed
	failed  bool // judging panicked: whoever needs the verdict judges himself
}

// newVerifier starts that many workers.
func newVerifier(workers int, r prometheus.Registerer) *verifier {
	v := &verifier{
		queue: make(chan *judgement, maxVerifying), stop: make(chan struct{}), verify: ledger.SignatureCheck.Verify,
		how: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "coffer_verdicts_total",
			Help: "Signatures by how their verdict was had: hit, unbegun or miss when applied; dropped for want of room in the queue.",
		}, []string{"how"}),
		known: make(map[ledger.Hash]*judgement), kept: make([]ledger.Hash, 0, maxJudged),
		seen: make(map[ledger.Hash]bool), seenRing: make([]ledger.Hash, 0, maxExpected),
	}
	r.MustRegister(v.how, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "coffer_signatures_waiting", Help: "Signatures that wait for a worker.",
	}, func() float64 { return float64(len(v.queue)) }))
	for range workers {
		v.wg.Go(v.work)
	}
	return v
}

// verifierWorkers: one per core that Go may use. More would only take turns.
func verifierWorkers() int { return runtime.GOMAXPROCS(0) }

// close ends the workers. What waits is judged by who asks for it.
func (v *verifier) close() {
	v.stopped.Do(func() { close(v.stop) })
	v.wg.Wait()
}

func (v *verifier) work() {
	for {
		select {
		case j := <-v.queue:
			v.judge(j)
		case <-v.stop:
			return
		}
	}
}

// judge judges j unless somebody else does or did. A panic is our own mistake:
// in Apply it makes the command BROKEN, alike on every replica, so here it must
// neither end the process nor become a verdict.
func (v *verifier) judge(j *judgement) {
	if !j.claimed.CompareAndSwap(false, true) {
		return
	}
	defer close(j.done)
	defer func() {
		if recover() != nil {
			j.failed = true
		}
	}()
	j.good = v.verify(j.check)
	j.check = ledger.SignatureCheck{} // nobody else looks at it
}

// find returns the judgement of c, and whether it is new. A new one is kept, in
// place of the oldest if there are too many; but where it is to wait for a
// worker and there is no room, it is nil.
func (v *verifier) find(c ledger.SignatureCheck, wait bool) (j *judgement, isNew bool) {
	key := c.Key()
	v.mu.Lock()
	defer v.mu.Unlock()
	if j, ok := v.known[key]; ok {
		return j, false
	}
	j = &judgement{check: c, done: make(chan struct{})}
	if wait {
		select {
		case v.queue <- j:
		default:
			v.how.WithLabelValues("dropped").Inc()
			return nil, true
		}
	}
	v.known[key] = j
	if len(v.kept) < maxJudged {
		v.kept = append(v.kept, key)
	} else {
		delete(v.known, v.kept[v.next])
		v.kept[v.next] = key
		v.next = (v.next + 1) % maxJudged
	}
	return j, true
}

// expect has the signatures of a command judged soon, if there is room. It
// never blocks. A command that came by a moment ago is not taken apart again.
func (v *verifier) expect(s *ledger.State, tx []byte) {
	defer func() { _ = recover() }() // as in judge: what breaks here breaks in Apply, where it is answered
	id := ledger.Hash(sha256.Sum256(tx))
	if v.expected(id) {
		return
	}
	for _, c := range s.SignatureChecks(tx) {
		if len(c.Message)+len(c.Signature)+len(c.Extras.ApplicationDomain)+len(c.Extras.PublicKeyDER) > maxChecked {
			continue
		}
		if j, _ := v.find(c, true); j == nil { // no room: it may come by again
			v.mu.Lock()
			delete(v.seen, id)
			v.mu.Unlock()
		}
	}
}

// expected notes a command and reports whether it was noted already. Forgetting
// one early costs a second look at it.
func (v *verifier) expected(tx ledger.Hash) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.seen[tx] {
		return true
	}
	v.seen[tx] = true
	if len(v.seenRing) < maxExpected {
		v.seenRing = append(v.seenRing, tx)
		return false
	}
	delete(v.seen, v.seenRing[v.seenNext])
	v.seenRing[v.seenNext] = tx
	v.seenNext = (v.seenNext + 1) % maxExpected
	return false
}

// Verdict is ledger.Verdicts for Apply.
func (v *verifier) Verdict(c ledger.SignatureCheck) bool {
	j, isNew := v.find(c, false)
	outcome := "hit"
	switch {
	case isNew:
		outcome = "miss"
	case !j.claimed.Load():
		outcome = "unbegun"
	}
	v.judge(j)
	<-j.done
	v.how.WithLabelValues(outcome).Inc()
	if j.failed {
		return c.Verify() // and panics where it did
	}
	return j.good
}

// ask is a client's question: it waits its turn in the queue, and is turned away
// when that is full, so that Apply's share of the processor stays.
func (v *verifier) ask(ctx context.Context, c ledger.SignatureCheck) (bool, error) {
	j, _ := v.find(c, true)
	if j == nil {
		return false, &api.Overloaded{Limit: "signatures to be checked", After: time.Second}
	}
	select {
	case <-j.done:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	if j.failed {
		return false, nil
	}
	return j.good, nil
}
