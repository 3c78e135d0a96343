//go:build unix

package testnet

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/btcsuite/btcd/wire"
	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/node"
	"github.com/coffer-network/coffer/node/api/client"
	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
)

// Chaos says how a cluster is to be tried.
type Chaos struct {
	Seed       uint64
	Duration   time.Duration // of load and faults
	RaftMillis int           // heartbeat and election timeout of the nodes
	Untimed    bool          // times are reported and not judged: the machine has other work
	Self       string        // the coffer binary
	Say        io.Writer     // what happens, a line each
	Progress   Progress
	Log        *slog.Logger
}

const (
	chaosNodes, chaosM, chaosF = 4, 3, 1

	restLimit   = 90 * time.Second        // for all nodes to stand at one height again
	payoutLimit = 180 * time.Second       // for the last payout to be final
	backSoon    = time.Second             // for the last node to follow again, before the next fault is its own
	startSoon   = 4500 * time.Millisecond // since the last fault; a node that is not up by then is killed while it starts
	startTries  = 2                       // how often that may happen in a row
	headEvery   = 250 * time.Millisecond
	headsAtRest = 6 * time.Second
	fdSlack     = 64 // open files of a node may grow by so many
)

// chaosRun is one run.
type chaosRun struct {
	Chaos
	net   *Network
	place *chaosPlace
	load  *chaosLoad
	begun time.Time

	mu       sync.Mutex
	heads    *heads
	breaches []string

	faults   []faultDone
	sick     int            // node of the last fault; -1: none yet
	expected map[*Proc]bool // processes that a full disk may end
}

// Run tries a cluster of four nodes, of whom one may fail or lie at a time, on real chains. An error is the run's; what
// the cluster did wrong is in the report.
func (c Chaos) Run(ctx context.Context) (r ChaosReport, err error) {
	if c.Duration < shortest(splitKinds(nil)) {
		return r, fmt.Errorf("%s is too short for every kind of fault: give --duration at least %s", c.Duration, shortest(splitKinds(nil)))
	}
	dir, err := os.MkdirTemp("", "coffer-chaos-")
	if err != nil {
		return r, err
	}
	skipped := map[string]string{}
	run := &chaosRun{Chaos: c, heads: newHeads(), sick: -1, expected: map[*Proc]bool{}}
	run.place = newChaosPlace(dir, chaosNodes, skipped)
	var remove sync.Once
	clean := func() (left []string) {
		remove.Do(func() {
			if run.net != nil {
				run.net.Stop()
			}
			left = append(processesNaming(dir), run.place.remove()...)
		})
		return left
	}
	defer clean()
	run.net, err = Start(ctx, Options{
		Dir: dir, N: chaosNodes, M: chaosM, F: chaosF, Self: c.Self, RaftMillis: c.RaftMillis, Progress: c.Progress, Log: c.Log, place: run.place.placement,
	})
	if err != nil {
		return r, fmt.Errorf("start the network (logs in %s): %w", dir, err)
	}
	r = ChaosReport{Faults: map[string]int{}, Detail: ChaosDetail{
		Seed: c.Seed, Version: node.Version, N: chaosNodes, F: chaosF, M: chaosM, Q: run.net.Genesis.Epoch.Q(), RaftMillis: c.RaftMillis, Judged: !c.Untimed,
		Skipped: skipped, Refused: map[string]int{}, ByAction: map[string]int{}, Outflows: map[string]int{}, Custody: map[string]string{}, Liabilities: map[string]string{},
		Processes: map[string]processSize{}, Breaches: []string{},
	}}
	for kind, why := range skipped {
		run.say("skipped: %s (%s)", kind, why)
	}
	if err := run.try(ctx, &r, splitKinds(skipped)); err != nil {
		return r, fmt.Errorf("chaos (logs in %s): %w", dir, err)
	}
	left := clean()
	r.Leaks += len(left)
	for _, l := range left {
		run.breach("left behind: %s", l)
	}
	r.Detail.Breaches = append(r.Detail.Breaches, run.breaches...)
	r.verdict()
	if r.OK {
		err = os.RemoveAll(dir)
	} else {
		run.say("logs: %s", filepath.Join(dir, "logs"))
	}
	return r, err
}

func (r *chaosRun) say(format string, a ...any) { fmt.Fprintf(r.Say, format+"\n", a...) }

func (r *chaosRun) breach(format string, a ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	text := fmt.Sprintf(format, a...)
	r.breaches = append(r.breaches, text)
	fmt.Fprintln(r.Say, "BREACH:", text)
}

func (r *chaosRun) try(ctx context.Context, rep *ChaosReport, kinds []string) (err error) {
	if r.load, err = newChaosLoad(ctx, r.net); err != nil {
		return err
	}
	ps, funded, err := r.people(ctx)
	if err != nil {
		return err
	}
	sizes := r.sizes()

	r.begun = time.Now()
	loading, endLoad := context.WithTimeout(ctx, r.Duration)
	defer endLoad()
	answering, endAnswers := context.WithCancel(ctx) // what was posted is pursued beyond the load's end
	defer endAnswers()
	watching, endWatch := context.WithCancel(ctx)
	defer endWatch()
	var work, watch sync.WaitGroup
	lender, borrower, saver := ps[togglers], ps[togglers+1], ps[togglers+2]
	for i, p := range ps[:togglers] {
		// One after the other, so that a request comes all the time: from a fault to the next
		// request acknowledged would else be the pause between two bursts.
		turn := time.Now().Add(time.Duration(i) * toggleEvery / togglers)
		work.Go(func() {
			if sleepUntil(loading, turn) {
				r.load.toggle(loading, answering, p)
			}
		})
	}
	work.Go(func() {
		r.load.pay(loading, answering, lender, address.ActionWithdraw, usdtPool, borrowUnits, payoutEvery)
	})
	work.Go(func() {
		r.load.pay(loading, answering, borrower, address.ActionBorrow, usdtPool, borrowUnits, payoutEvery)
	})
	work.Go(func() {
		r.load.pay(loading, answering, saver, address.ActionWithdraw, btcPool, bitcoinUnits, bitcoinEach)
	})
	work.Go(func() { r.load.read(loading, ps, r.Seed) })
	watch.Go(func() { r.load.watch(watching) })
	watch.Go(func() { r.watchHeads(watching) })
	work.Go(func() { every(loading, 10*time.Second, r.progress) })

	err = r.inject(ctx, planFaults(r.Seed, r.Duration, kinds, chaosNodes))
	if err != nil {
		return err
	}
	<-loading.Done()
	stuck := time.AfterFunc(restLimit, endAnswers)
	work.Wait()
	stuck.Stop()
	if err := ctx.Err(); err != nil {
		return err
	}
	took := time.Since(r.begun)
	r.say("%6.1fs the load ends; waiting for rest", took.Seconds())
	r.rest(ctx)
	endWatch()
	watch.Wait()
	r.judgeRequests(ctx, rep, took)
	r.judgeFaults(rep, kinds)
	if err := r.judgeChains(ctx, rep, funded); err != nil {
		return err
	}
	for name, was := range sizes {
		now := r.sizes()[name]
		rep.Detail.Processes[name] = processSize{FDs: [2]int{was.FDs[0], now.FDs[0]}, RSSMiB: [2]float64{was.RSSMiB[0], now.RSSMiB[0]}}
		if now.FDs[0] > was.FDs[0]+fdSlack {
			rep.Leaks++
			r.breach("%s has %d open files, %d at the begin", name, now.FDs[0], was.FDs[0])
		}
	}
	return nil
}

// people opens and funds the accounts: first those that toggle, then lender, borrower and saver.
func (r *chaosRun) people(ctx context.Context) (ps []*payer, funded []string, err error) {
	task := r.Progress.Begin("accounts and deposits", Size{Expected: 30 * time.Second})
	defer func() { task.End(err) }()
	eth, btc := (*client.Wallet).SignerETH, (*client.Wallet).SignerBTC
	for i := range togglers {
		p, err := r.load.newPayer(ctx, fmt.Sprintf("toggler %d", i), i%chaosNodes, eth)
		if err != nil {
			return nil, nil, err
		}
		ps = append(ps, p)
	}
	for i, w := range []struct {
		name   string
		signer func(*client.Wallet) client.Signer
	}{{"lender", eth}, {"borrower", btc}, {"saver", btc}} {
		p, err := r.load.newPayer(ctx, w.name, i%chaosNodes, w.signer)
		if err != nil {
			return nil, nil, err
		}
		ps = append(ps, p)
	}
	funded, err = r.load.fund(ctx, ps[togglers], ps[togglers+1], ps[togglers+2])
	return ps, funded, err
}

func (r *chaosRun) progress() {
	reqs := r.load.requests()
	acked := 0
	for _, p := range reqs {
		if p.acked() {
			acked++
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.say("%6.1fs %d requests posted, %d acknowledged, %d faults", time.Since(r.begun).Seconds(), len(reqs), acked, len(r.faults))
}

// inject carries out the plan. At most F nodes are faulty at once: while the last one is not back, it is the one hit, and
// what only another node can have changes places with a later fault then.
func (r *chaosRun) inject(ctx context.Context, plan []fault) error {
	done := map[string]bool{}
	for k := range plan {
		if done[plan[k].Kind] && time.Since(r.begun) > r.Duration {
			continue // late: the load is over, and this kind had its turn under it
		}
		if !sleepUntil(ctx, r.begun.Add(plan[k].At)) {
			return ctx.Err()
		}
		i := r.target(ctx, plan[k])
		if r.sick >= 0 && r.sick != i {
			last := r.faults[len(r.faults)-1].begun
			soon, cancel := context.WithDeadline(within(ctx, backSoon), last.Add(startSoon))
			// An error is that it is not back in time, which the next lines ask again.
			_ = poll(soon, func() (bool, error) { return r.back(soon, r.sick), nil })
			cancel()
			if i = r.target(ctx, plan[k]); r.sick != i && !r.back(ctx, r.sick) {
				i = r.sick
				postpone(plan[k:])
			}
		}
		r.sick, done[plan[k].Kind] = i, true
		if err := r.hit(ctx, plan[k], i); err != nil {
			return err
		}
	}
	return nil
}

func within(ctx context.Context, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(ctx, d)
	context.AfterFunc(ctx, cancel)
	return ctx
}

func sleepUntil(ctx context.Context, t time.Time) bool {
	timer := time.NewTimer(time.Until(t))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

func (r *chaosRun) target(ctx context.Context, f fault) int {
	if f.Kind == faultDiskFull {
		return chaosNodes - 1
	}
	leader := r.leader(ctx)
	if f.Leader && leader >= 0 {
		return leader
	}
	if f.Target == leader {
		return (leader + 1) % chaosNodes
	}
	return f.Target
}

// leader is the node that most nodes name, or -1. Once all but one name it, the last,
// which may be the one hit before, is not waited for: the next fault is due.
func (r *chaosRun) leader(ctx context.Context) int {
	ctx, cancel := context.WithTimeout(ctx, attemptTime)
	defer cancel()
	named := make(chan int, chaosNodes)
	for _, np := range r.net.Nodes {
		go func() {
			st, err := np.Client.Status(ctx)
			named <- slices.IndexFunc(r.net.Nodes, func(other *NodeProc) bool { return err == nil && other.Name == st.Leader })
		}()
	}
	votes, best := make([]int, chaosNodes), -1
	for range chaosNodes {
		i := <-named
		if i < 0 {
			continue
		}
		if votes[i]++; best < 0 || votes[i] > votes[best] {
			best = i
		}
		if votes[i] == chaosNodes-1 {
			break
		}
	}
	return best
}

// back reports whether node i follows the others again.
func (r *chaosRun) back(ctx context.Context, i int) bool {
	ctx, cancel := context.WithTimeout(ctx, attemptTime)
	defer cancel()
	own, err := r.net.Nodes[i].Client.Status(ctx)
	if err != nil || own.Leader == "" {
		return false
	}
	for j, np := range r.net.Nodes {
		if j == i {
			continue
		}
		other, err := np.Client.Cluster(ctx)
		if err != nil {
			return false
		}
		mine, err := r.net.Nodes[i].Client.Cluster(ctx)
		return err == nil && mine.LogIndex+16 >= other.LogIndex
	}
	return false
}

func (r *chaosRun) hit(ctx context.Context, f fault, i int) error {
	np := r.net.Nodes[i]
	d := faultDone{Kind: f.Kind, Target: np.Name, WasLeader: r.leader(ctx) == i, begun: time.Now(), Gap: -1}
	d.Start = d.begun.Sub(r.begun).Seconds()
	r.say("%s", d)
	p := np.Proc()
	var err error
	start := func(flags ...string) error {
		for tries := 0; ; tries++ {
			soon, cancel := ctx, context.CancelFunc(func() {})
			if tries < startTries {
				soon, cancel = context.WithDeadline(ctx, d.begun.Add(startSoon))
			}
			e := r.net.StartNode(soon, i, flags...)
			late := soon.Err() != nil && ctx.Err() == nil
			cancel()
			switch {
			case e == nil:
				return nil
			case !late:
				return fmt.Errorf("%s does not start again: %w", np.Name, e)
			}
			r.faulted(d) // the end of soon killed it
			d = faultDone{Kind: faultKill, Target: np.Name, begun: time.Now(), Gap: -1}
			d.Start = d.begun.Sub(r.begun).Seconds()
			r.say("%s, while it starts", d)
		}
	}
	wait := func() { sleepUntil(ctx, time.Now().Add(f.For)) }
	switch f.Kind {
	case faultKill:
		p.Kill()
		wait()
		err = start()
	case faultStop:
		if err = p.Signal(syscall.SIGSTOP); err == nil {
			wait()
			err = p.Signal(syscall.SIGCONT)
		}
	case faultRestart, faultHandover:
		if e := p.Stop(ctx); e != nil {
			r.breach("graceful stop: %v", e)
		}
		err = start()
	case faultPartition:
		if err = r.place.cut(i, true); err == nil {
			wait()
			err = r.place.cut(i, false)
		}
	case faultDiskFull:
		r.expected[p] = true
		err = r.place.fill()
		wait()
		err = errors.Join(err, r.place.unfill())
		select {
		case <-p.Done():
			err = errors.Join(err, start())
		case <-time.After(500 * time.Millisecond):
		}
	case faultTraitor:
		if e := p.Stop(ctx); e != nil {
			r.breach("graceful stop: %v", e)
		}
		h := r.net.Genesis.Hash()
		if err = start("--traitor-of", h.String()); err == nil {
			// Where its start took long it lies for a second only: its end is the next fault.
			until, next := time.Now().Add(f.For), d.begun.Add(startSoon)
			if soon := time.Now().Add(time.Second); next.Before(soon) {
				next = soon
			}
			if next.Before(until) {
				until = next
			}
			sleepUntil(ctx, until)
			r.faulted(d)
			d = faultDone{Kind: faultKill, Target: np.Name, WasLeader: r.leader(ctx) == i, begun: time.Now(), Gap: -1}
			d.Start = d.begun.Sub(r.begun).Seconds()
			r.say("%s, the traitor", d)
			np.Proc().Kill()
			err = start()
		}
	}
	r.faulted(d)
	if err != nil && ctx.Err() == nil {
		r.breach("%v", err)
		return err
	}
	r.deaths()
	return ctx.Err()
}

func (r *chaosRun) faulted(d faultDone) {
	d.End = time.Since(r.begun).Seconds()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, d)
}

// deaths notices nodes that ended without being asked to.
func (r *chaosRun) deaths() {
	for _, np := range r.net.Nodes {
		p := np.Proc()
		if err := p.Err(); err != nil && !r.expected[p] {
			r.expected[p] = true // said once
			r.breach("%v", err)
		}
	}
}

func (r *chaosRun) watchHeads(ctx context.Context) {
	every(ctx, headEvery, func() { r.sampleHeads(ctx) })
}

func (r *chaosRun) sampleHeads(ctx context.Context) {
	var wg sync.WaitGroup
	for _, np := range r.net.Nodes {
		wg.Go(func() {
			asked, cancel := context.WithTimeout(ctx, attemptTime)
			defer cancel()
			c, err := np.Client.Cluster(asked)
			if err != nil {
				return
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			r.heads.saw(np.Name, c.LogIndex, c.Head)
		})
	}
	wg.Wait()
}

// rest waits until nothing moves any more but clocks: all payouts are final and all nodes follow.
func (r *chaosRun) rest(ctx context.Context) {
	if err := poll(within(ctx, restLimit), func() (bool, error) {
		for i := range r.net.Nodes {
			if !r.back(ctx, i) {
				return false, nil
			}
		}
		return true, nil
	}); err != nil {
		r.breach("the nodes do not come together within %s of the last fault", restLimit)
	}
	open := 0
	_ = poll(within(ctx, payoutLimit), func() (bool, error) { // what is still open shows in sign_completed_percent
		open = 0
		for id := range r.states(ctx) {
			if id != "PAID" && id != "REFUNDED" {
				open++
			}
		}
		return open == 0, nil
	})
	end := time.Now().Add(headsAtRest)
	for time.Now().Before(end) && ctx.Err() == nil {
		r.sampleHeads(ctx)
		time.Sleep(headEvery / 2)
	}
	r.deaths()
}

// states counts the acknowledged payouts by the state that the first node which answers gives them.
func (r *chaosRun) states(ctx context.Context) map[string]int {
	m := map[string]int{}
	for _, p := range r.load.requests() {
		if p.Outflow == 0 {
			continue
		}
		state := "unknown"
		for _, np := range r.net.Nodes {
			asked, cancel := context.WithTimeout(ctx, 2*attemptTime)
			o, err := np.Client.Outflow(asked, p.Outflow)
			cancel()
			if err == nil {
				state = o.State
				break
			}
		}
		m[state]++
	}
	return m
}

func (r *chaosRun) judgeRequests(ctx context.Context, rep *ChaosReport, took time.Duration) {
	d := &rep.Detail
	reqs := r.load.requests()
	d.Seconds, d.Sent, d.Reads = took.Seconds(), len(reqs), len(r.load.reads)
	for _, p := range reqs {
		if !p.Call.Before(r.begun) { // the accounts were opened before
			d.PerSecond += 1 / took.Seconds()
		}
		d.Retried += p.Retries
		d.ByAction[p.Kind]++
		switch {
		case !p.acked():
			d.Ambiguous++
			continue
		case p.Code != "OK":
			d.Refused[p.Code]++
		}
		rep.Acknowledged++
	}
	for _, np := range r.net.Nodes {
		next := map[string]uint64{}
		for _, p := range reqs {
			if !p.acked() {
				continue
			}
			if _, asked := next[p.Account]; !asked {
				a, err := np.Client.Account(ctx, p.Account)
				if err != nil {
					r.breach("%s does not show account %s: %v", np.Name, p.Account, err)
					continue
				}
				next[p.Account] = a.NextNonce
			}
			at := lookedUp{Next: next[p.Account], Recent: p.Nonce+16 >= next[p.Account]}
			if q, err := np.Client.Request(ctx, p.ID, p.Account, 0); err == nil && q.Phase == "applied" {
				at.Known, at.Code, at.LogIndex = true, q.Code, q.LogIndex
			} else {
				d.Unremembered++
			}
			if why := lost(p, at); why != "" {
				rep.AcknowledgedLost++
				r.breach("request %s of account %s is lost on %s: %s", p.ID, p.Account, np.Name, why)
			}
		}
	}
	result := linearizable(reqs, r.load.reads)
	d.History, rep.Linearizable = string(result), result == porcupine.Ok
	if !rep.Linearizable {
		r.breach("history of %d requests and %d reads: linearizable %s", len(reqs), len(r.load.reads), result)
	}
	r.mu.Lock()
	rep.HeadDivergence, d.Compared = len(r.heads.breaches), r.heads.compared
	split := r.heads.breaches
	r.mu.Unlock()
	for _, b := range split {
		r.breach("heads differ: %s", b)
	}
	d.Outflows = r.states(ctx)
	var seconds []float64
	asked := 0
	for _, p := range reqs {
		if p.Outflow == 0 {
			continue
		}
		asked++
		if at := r.load.signedAt(p.Outflow); !at.IsZero() {
			seconds = append(seconds, at.Sub(p.Ret).Seconds())
		}
	}
	rep.SignP99Seconds = percentile(seconds, 0.99)
	if asked > 0 {
		rep.SignCompletedPercent = 100 * float64(d.Outflows["PAID"]) / float64(asked)
	}
}

func (r *chaosRun) judgeFaults(rep *ChaosReport, kinds []string) {
	reqs := r.load.requests()
	var kills, handovers []float64
	for i := range r.faults {
		f := &r.faults[i]
		rep.Faults[f.Kind]++
		ms, ok := firstAfter(reqs, f.begun)
		if ok {
			f.Gap = ms
		}
		if f.Kind == faultKill && f.WasLeader && ok {
			kills = append(kills, float64(ms))
		}
		if (f.Kind == faultHandover || f.Kind == faultRestart) && f.WasLeader && ok {
			handovers = append(handovers, float64(ms))
		}
	}
	for _, k := range kinds {
		if rep.Faults[k] == 0 {
			r.breach("no fault of the kind %s, although this machine permits it", k)
		}
	}
	rep.LeaderKillMS = Spread{percentile(kills, 0.5), percentile(kills, 1)}
	rep.Detail.HandoverMS = Spread{percentile(handovers, 0.5), percentile(handovers, 1)}
	rep.Detail.Faults, rep.Detail.LongestQuiet = r.faults, longestQuiet(r.faults)
}

// judgeChains reads both chains from their nodes: what left the vaults, and what is in them.
func (r *chaosRun) judgeChains(ctx context.Context, rep *ChaosReport, funded []string) error {
	cl, err := r.net.Nodes[0].Client.Cluster(ctx)
	if err != nil {
		return err
	}
	pools, err := r.net.Nodes[0].Client.Pools(ctx)
	if err != nil {
		return err
	}
	usd, usdPaid, err := r.readToken(ctx, cl, funded)
	if err != nil {
		return fmt.Errorf("read Ethereum: %w", err)
	}
	btc, btcPaid, err := r.readBitcoin(ctx, cl, funded)
	if err != nil {
		return fmt.Errorf("read Bitcoin: %w", err)
	}
	reqs := r.load.requests()
	for i := range reqs {
		if reqs[i].Asset == usdtPool {
			reqs[i].To = strings.ToLower(reqs[i].To)
		}
	}
	wrong := judgePayments(append(usdPaid, btcPaid...), reqs)
	rep.DoublePayments = len(wrong)
	for _, w := range wrong {
		r.breach("payment: %s", w)
	}
	rep.Solvent = true
	for pool, have := range map[string]*big.Int{usdtPool: usd, btcPool: btc} {
		rep.Detail.Custody[pool] = have.String()
		for _, p := range pools.Pools {
			if p.ID != pool {
				continue
			}
			rep.Detail.Liabilities[pool] = p.Cash
			if cash, ok := new(big.Int).SetString(p.Cash, 10); !ok || have.Cmp(cash) < 0 {
				rep.Solvent = false
				r.breach("pool %s should hold %s, the chain shows %s", pool, p.Cash, have)
			}
		}
	}
	r.say("chains: %d payouts of USDT, %d of BTC; custody %s USDT units, %s sats", len(usdPaid), len(btcPaid), usd, btc)
	return nil
}

// readToken sums what vaults and deposit addresses hold, and lists every transfer out of a vault.
func (r *chaosRun) readToken(ctx context.Context, cl *client.Cluster, funded []string) (*big.Int, []moved, error) {
	e := r.net.Ethereum
	have := new(big.Int)
	var from []common.Hash
	ours := map[common.Address]bool{}
	for _, c := range cl.Chains {
		for _, v := range c.Vaults {
			if c.Name == ledger.Ethereum {
				a := common.HexToAddress(v.Address)
				ours[a] = true
				from = append(from, common.BytesToHash(a.Bytes()))
			}
		}
	}
	for _, f := range funded {
		if common.IsHexAddress(f) {
			ours[common.HexToAddress(f)] = true
		}
	}
	for a := range ours {
		b, err := e.TokenBalance(ctx, a)
		if err != nil {
			return nil, nil, err
		}
		have.Add(have, b)
	}
	transfer := crypto.Keccak256Hash([]byte("Transfer(address,address,uint256)"))
	logs, err := e.Client().FilterLogs(ctx, ethereum.FilterQuery{
		FromBlock: new(big.Int), Addresses: []common.Address{e.Token()}, Topics: [][]common.Hash{{transfer}, from},
	})
	if err != nil {
		return nil, nil, err
	}
	var out []moved
	for _, l := range logs {
		if m, ok := tokenMoved(l); ok && !ours[common.HexToAddress(m.To)] {
			out = append(out, m)
		}
	}
	return have, out, nil
}

func tokenMoved(l types.Log) (moved, bool) {
	if len(l.Topics) != 3 || l.Removed {
		return moved{}, false
	}
	return moved{
		Chain: ledger.Ethereum, TxID: l.TxHash.Hex(), To: strings.ToLower(common.BytesToAddress(l.Topics[2].Bytes()).Hex()),
		Amount: new(big.Int).SetBytes(l.Data),
	}, true
}

// readBitcoin walks all blocks: coins at our scripts, and what transactions that spend them pay to others.
func (r *chaosRun) readBitcoin(ctx context.Context, cl *client.Cluster, funded []string) (*big.Int, []moved, error) {
	var chain client.Chain
	for _, c := range cl.Chains {
		if c.Name == ledger.Bitcoin {
			chain = c
		}
	}
	script := func(addr string) ([]byte, error) {
		id, err := address.SplitCAIP10(chain.CAIP2 + ":" + addr)
		if err != nil {
			return nil, err
		}
		return address.ScriptOf(id.Network(), id.Address)
	}
	ours, names := map[string]bool{}, map[string]string{}
	for _, v := range chain.Vaults {
		funded = append(funded, v.Address)
	}
	for _, a := range funded {
		if common.IsHexAddress(a) {
			continue
		}
		s, err := script(a)
		if err != nil {
			return nil, nil, err
		}
		ours[string(s)] = true
	}
	for _, p := range r.load.requests() {
		if p.Asset == btcPool && p.To != "" {
			s, err := script(p.To)
			if err != nil {
				return nil, nil, err
			}
			names[string(s)] = p.To
		}
	}
	rpc := r.net.Bitcoin.RPC()
	tip, err := rpc.Height(ctx)
	if err != nil {
		return nil, nil, err
	}
	coins := map[wire.OutPoint]int64{}
	var out []moved
	for h := int64(1); h <= tip; h++ {
		b, err := rpc.Block(ctx, h)
		if err != nil {
			return nil, nil, err
		}
		for _, tx := range b.Transactions {
			out = append(out, bitcoinMoved(tx, coins, ours, names)...)
		}
	}
	have := new(big.Int)
	for _, v := range coins {
		have.Add(have, big.NewInt(v))
	}
	return have, out, nil
}

// bitcoinMoved applies one transaction to our coins and lists what it pays to others from them.
func bitcoinMoved(tx *wire.MsgTx, coins map[wire.OutPoint]int64, ours map[string]bool, names map[string]string) (out []moved) {
	spends := false
	for _, in := range tx.TxIn {
		if _, ok := coins[in.PreviousOutPoint]; ok {
			delete(coins, in.PreviousOutPoint)
			spends = true
		}
	}
	id := tx.TxHash()
	for i, o := range tx.TxOut {
		switch {
		case ours[string(o.PkScript)]:
			coins[wire.OutPoint{Hash: id, Index: uint32(i)}] = o.Value
		case spends:
			to := names[string(o.PkScript)]
			if to == "" {
				to = "script " + hex.EncodeToString(o.PkScript)
			}
			out = append(out, moved{ledger.Bitcoin, id.String(), to, big.NewInt(o.Value)})
		}
	}
	return out
}

// sizes are of the nodes' processes now; where the system does not tell, nothing.
func (r *chaosRun) sizes() map[string]processSize {
	m := map[string]processSize{}
	for _, np := range r.net.Nodes {
		var s processSize
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", np.Proc().Pid()))
		if err != nil {
			continue
		}
		s.FDs[0] = len(fds)
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", np.Proc().Pid())); err == nil {
			var size, resident float64
			if n, err := fmt.Sscan(string(b), &size, &resident); err == nil && n == 2 {
				s.RSSMiB[0] = resident * float64(os.Getpagesize()) / (1 << 20)
			}
		}
		m[np.Name] = s
	}
	return m
}

// processesNaming lists processes whose command line names dir.
func processesNaming(dir string) (left []string) {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil
	}
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && bytes.Contains(b, []byte(dir)) {
			left = append(left, "process "+strings.ReplaceAll(strings.TrimRight(string(b), "\x00"), "\x00", " "))
		}
	}
	return left
}
