package consensus

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coffer-network/coffer/ledger"
)

// court watches a cluster with traitors in it and judges at the end. It knows
// everything that honest members ever signed, and what the traitors could make of
// it: they sign whatever helps, and tell each honest member only what it wants
// to hear.
type court struct {
	c        *cluster
	traitors []*member

	testify atomic.Bool // honest members compare what leaders signed

	mu     sync.Mutex
	censor func(tx string) bool        // what a leading traitor orders not
	parent map[ledger.Hash]ledger.Hash // of every head an honest member approved or applied
	said   map[ledger.Approval]map[int]bool
	joined map[string]map[int]bool // by text of a plan: honest members that would sign it
	asked  map[string]bool         // texts of clients
}

// accuse makes traitors of members that run. The first of them should lead.
func (c *cluster) accuse(traitors ...*member) *court {
	k := &court{c: c, traitors: traitors, parent: map[ledger.Hash]ledger.Hash{},
		said: map[ledger.Approval]map[int]bool{}, joined: map[string]map[int]bool{}, asked: map[string]bool{}}
	c.court = k
	for _, m := range k.honest() {
		k.signs(m)
	}
	return k
}

// traitorous is a started cluster of n with f traitors, who lead.
func (c *cluster) traitorous() (*court, *member) {
	c.t.Helper()
	c.start(c.members...)
	boss := c.leader()
	f := []*member{boss}
	for _, m := range c.others(boss)[:c.epoch.F-1] {
		f = append(f, m)
	}
	return c.accuse(f...), boss
}

func (k *court) traitor(m *member) bool { return slices.Contains(k.traitors, m) }

func (k *court) honest() (ms []*member) {
	for _, m := range k.c.members {
		if !k.traitor(m) {
			ms = append(ms, m)
		}
	}
	return ms
}

// heard is told of each approval that leaves a member, and says whether it is to
// be sent: a traitor's own is not, it says something better.
func (k *court) heard(m *member, a ledger.Approval) bool {
	if k.traitor(m) {
		return false
	}
	k.learn(m, a.Height)
	k.mu.Lock()
	if k.said[a] == nil {
		k.said[a] = map[int]bool{}
	}
	k.said[a][m.n] = true
	k.mu.Unlock()
	for _, t := range k.traitors {
		if live := m.live.Load(); live != nil && t.up() {
			_ = live.HandleApproval(t.id, ledger.Marshal(signedApproval{a, ledger.SignApproval(t.key, a)}))
		}
	}
	return true
}

// suppress says what a traitor who leads does not order.
func (k *court) suppress(censor func(tx string) bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.censor = censor
}

func (k *court) censored(to *member, b []byte) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	var r request
	return k.traitor(to) && k.censor != nil && ledger.Unmarshal(b, &r) == nil && k.censor(string(r.Tx))
}

// learn notes m's heads down from height, as far as they are news.
func (k *court) learn(m *member, height uint64) {
	live := m.live.Load()
	if live == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for ; height > 0; height-- {
		h, err := live.Header(height)
		if err != nil {
			return // stopped meanwhile
		}
		if _, known := k.parent[h.Head()]; known {
			return
		}
		k.parent[h.Head()] = h.Prev
	}
}

// signs has m sign every plan that a certificate of its own covers, as a node's
// signer does (spec: consensus R5), while it runs.
func (k *court) signs(m *member) {
	live := m.live.Load()
	live.spawn(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-live.ctx.Done():
				return
			}
			cert, ok := live.Certificate(0)
			if !ok || live.Err() != nil {
				continue
			}
			for _, p := range m.app.plans() {
				if p.Height > cert.Approval.Height {
					continue
				}
				k.mu.Lock()
				if k.joined[p.Text] == nil {
					k.joined[p.Text] = map[int]bool{}
				}
				k.joined[p.Text][m.n] = true
				k.mu.Unlock()
			}
		}
	})
}

// restart stops honest m and starts it again, forgetting what forget says.
func (k *court) restart(m *member, forget func()) error {
	k.c.stop(m)
	if forget != nil {
		forget()
	}
	err := k.c.tryStart(m)
	if err == nil {
		k.signs(m)
	}
	return err
}

// ask has the leader order a client's commands. Traitor or not, it wants this
// one ordered.
func (k *court) ask(m *member, txs ...string) {
	k.c.t.Helper()
	for _, tx := range txs {
		k.client(tx)
		k.c.submit(m, tx)
	}
}

// client notes that a client signed tx.
func (k *court) client(tx string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked[tx] = true
}

// certified lists everything of which a certificate exists somewhere, if only in
// a traitor's hands.
func (k *court) certified() (as []ledger.Approval) {
	for a, by := range k.said {
		if len(by)+len(k.traitors) >= k.c.quorum() {
			as = append(as, a)
		}
	}
	slices.SortFunc(as, func(a, b ledger.Approval) int { return int(a.Height) - int(b.Height) })
	return as
}

func (c *cluster) quorum() int {
	if c.off.quorum > 0 {
		return c.off.quorum
	}
	return c.epoch.Q()
}

// descends reports whether the head of b is that of a or comes after it.
func (k *court) descends(a, b ledger.Approval) bool {
	head := b.Head
	for h := b.Height; h > a.Height; h-- {
		prev, ok := k.parent[head]
		if !ok {
			return false
		}
		head = prev
	}
	return head == a.Head && (a.Height != b.Height || a == b)
}

// signed are the plans with a complete signature: one honest share at least, as
// all traitors give theirs.
func (k *court) signed() (texts []string) {
	for text, by := range k.joined {
		if len(by)+len(k.traitors) >= k.c.epoch.M {
			texts = append(texts, text)
		}
	}
	slices.Sort(texts)
	return texts
}

// verdict lists what went wrong. It waits a little first: late approvals count.
func (k *court) verdict() (wrong []string) {
	time.Sleep(5 * time.Second)
	for _, m := range k.honest() {
		if m.up() {
			k.learn(m, m.Height())
			if err := m.Err(); err != nil {
				wrong = append(wrong, fmt.Sprintf("honest member %d halted: %v", m.n, err))
			}
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	as := k.certified()
	for i, b := range as {
		for _, a := range as[:i] {
			if !k.descends(a, b) {
				wrong = append(wrong, fmt.Sprintf("conflicting certificates: %d %.8s and %d %.8s", a.Height, a.Head, b.Height, b.Head))
			}
		}
	}
	paid := map[string]string{} // by what may be paid once
	for _, text := range k.signed() {
		if !k.asked[text] {
			wrong = append(wrong, fmt.Sprintf("unowed payment signed: %q", text))
		}
		var word, id string
		fmt.Sscan(text, &word, &id)
		if word != "plan" {
			id = "collateral " + id
		}
		if other := paid[id]; other != "" {
			wrong = append(wrong, fmt.Sprintf("two payments for %s signed: %q and %q", id, other, text))
		}
		paid[id] = text
	}
	return wrong
}

// acquit fails the test unless nothing went wrong, and says what was certified,
// so that a test can see that something was.
func (k *court) acquit() {
	k.c.t.Helper()
	for _, w := range k.verdict() {
		k.c.t.Error(w)
	}
}

// convict fails the test unless something like each of these went wrong.
func (k *court) convict(like ...string) {
	k.c.t.Helper()
	wrong := k.verdict()
	for _, l := range like {
		if !slices.ContainsFunc(wrong, func(w string) bool { return len(w) >= len(l) && w[:len(l)] == l }) {
			k.c.t.Errorf("a rule is off, and the harness sees no %q, only %q", l, wrong)
		}
	}
}

func (k *court) isSigned(text string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Contains(k.signed(), text)
}

func (a *toy) plans() []toyPlan {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.s.Plans)
}

// swap rewrites commands inside a raft entry.
func swap(data []byte, with map[string]string) []byte {
	var txs [][]byte
	if ledger.Unmarshal(data, &txs) != nil {
		return data
	}
	for i, tx := range txs {
		if other, ok := with[string(tx)]; ok {
			txs[i] = []byte(other)
		}
	}
	return ledger.Marshal(txs)
}

// side is a set of addresses.
func side(ms ...*member) map[string]bool {
	s := map[string]bool{}
	for _, m := range ms {
		s[address(m.id)] = true
	}
	return s
}

// sizes runs a test for several n, with the f of epochOf.
func sizes(t *testing.T, settings Settings, test func(t *testing.T, c *cluster), ns ...int) {
	for _, n := range ns {
		t.Run(fmt.Sprint(n, " members"), func(t *testing.T) { virtual(t, n, settings, test) })
	}
}
