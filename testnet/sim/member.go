package sim

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"slices"
	"time"

	"github.com/coffer-network/coffer/chains"
	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/fixed"
	"github.com/coffer-network/coffer/node"
	"github.com/coffer-network/coffer/tss"
)

// member is one node. What is on its disk survives a kill, the rest does not.
type member struct {
	s    *sim
	i    int
	id   ledger.MemberID
	key  ed25519.PrivateKey
	skew int64 // of its clock, ms
	liar bool
	disk *disk

	up     bool
	life   int // counts its starts
	downAt int
	memory
}

type disk struct {
	seq      uint64                        // last attestation number
	said     map[string]ledger.PriceReport // newest signed report, by asset
	promised uint64
	head     ledger.Hash // of the promise
	verdicts map[node.AttemptKey]bool
	joined   map[tss.SessionID]bool
	sigs     map[inputKey]signature
	signed   []inputKey // of sigs, in order
	ready    []ledger.ShareReady
	tried    map[uint64]uint64 // keygen batch → last try it took part in
	cursors  map[string]chains.Cursor
	snapshot *ledger.State // frozen
	shares   map[ledger.Generation]bool
	wiped    []ledger.Generation
}

func newDisk() *disk {
	return &disk{
		said:     map[string]ledger.PriceReport{},
		verdicts: map[node.AttemptKey]bool{}, joined: map[tss.SessionID]bool{},
		sigs: map[inputKey]signature{}, tried: map[uint64]uint64{}, cursors: map[string]chains.Cursor{},
		shares: map[ledger.Generation]bool{},
	}
}

// memory is lost when the process ends.
type memory struct {
	state   *ledger.State
	unsure  bool // restored, and not compared yet
	stalled int  // steps for which it applies nothing
	signed  uint64
	cert    *ledger.Certificate // the highest one known
	pool    []heldApproval
	last    *heldApproval // own, to be sent again

	seen    map[string]chains.Observations
	cursors map[string]chains.Cursor
	dark    map[string]int // chain → step until which its endpoint does not answer
	prices  map[string]ledger.PriceReport
	weighed map[string]ledger.BalanceFact // by asset: what custody held at the block last asked for
	pending uint64                        // attestation number under way
	until   int                           // step until which it is waited for

	fences   map[string]*node.Fence // by chain
	work     map[workKey]*work
	pausedAt map[node.AttemptKey]int // step until which an attempt that failed here rests
	gaveUp   []ledger.GaveUp
	proven   []ledger.Blame // what it verified against traitors
	unshared []*share
	raws     map[inputKey]chains.Raw
	free     map[ledger.Generation]uint64 // height since which the ledger lets it be wiped
}

// Snapshots are taken at such heights, and replay from genesis happens only
// while the log is short.
const (
	snapshotEvery = 96
	replayWithin  = 700
)

func (m *member) boot(s *ledger.State) {
	m.life++
	m.up = true
	m.memory = memory{
		state: s, seen: map[string]chains.Observations{}, cursors: map[string]chains.Cursor{}, dark: map[string]int{},
		prices: map[string]ledger.PriceReport{}, weighed: map[string]ledger.BalanceFact{}, work: map[workKey]*work{}, pausedAt: map[node.AttemptKey]int{},
		raws: map[inputKey]chains.Raw{}, free: map[ledger.Generation]uint64{}, fences: map[string]*node.Fence{},
	}
	for c, cur := range m.disk.cursors {
		m.cursors[c] = cur
	}
	for _, k := range m.disk.signed { // told or not, nobody knows any more (spec: outflows §2.4, C5)
		m.tell(m.disk.sigs[k])
	}
}

// kill ends the process wherever it stands.
func (m *member) kill() {
	m.s.rep.Kills++
	m.up, m.downAt = false, m.s.step
	m.memory = memory{}
}

// restart is start: the newest snapshot or genesis, then the log.
func (m *member) restart() {
	m.s.rep.Restarts++
	if m.disk.snapshot == nil || m.s.log.size() < replayWithin && m.s.chance(20) {
		m.s.rep.Replayed++
		m.boot(must(ledger.NewState(m.s.genesis)))
	} else {
		var file bytes.Buffer
		st, err := (*ledger.State)(nil), m.disk.snapshot.Encode(&file)
		if err == nil {
			st, err = ledger.ReadState(&file)
		}
		if err != nil {
			m.s.fail("member %d: %w", m.i, err)
			return
		}
		m.boot(st)
	}
	m.unsure = true
}

func (l *order) size() int { return len(l.entries) }

// clock is the member's own. A traitor's says what it likes.
func (m *member) clock() uint64 {
	skew := m.skew
	if m.liar && m.s.chance(30) {
		skew = int64(m.s.between(-86_400_000, 86_400_000))
	}
	return uint64(int64(m.s.now) + skew)
}

func (m *member) turn() {
	m.apply()
	if m.s.err != nil {
		return
	}
	m.observe()
	m.approve()
	m.attest()
	for _, work := range []func(){m.sign, m.share, m.broadcast, m.wipe} {
		if m.up {
			work()
		}
	}
}

func (m *member) apply() {
	if m.stalled > 0 {
		m.stalled--
		return
	}
	if m.s.trouble(0.5) {
		m.stalled = m.s.between(2, 40)
	}
	left := m.s.log.size() - int(m.state.Height)
	if m.s.trouble(20) {
		left = m.s.rng.IntN(left + 1)
	}
	for range left {
		m.execute()
		if m.s.err != nil {
			return
		}
		h := m.state.Height
		if h == m.disk.promised && m.state.Head != m.disk.head {
			m.s.fail("member %d: promise of height %d is not on its chain", m.i, h)
		}
		if h%snapshotEvery == 0 && (m.disk.snapshot == nil || m.disk.snapshot.Height < h) {
			m.disk.snapshot = m.state.Frozen()
			for c, cur := range m.cursors {
				m.disk.cursors[c] = cur
			}
		}
	}
	if m.unsure && m.state.Height == m.s.reference.Height {
		m.unsure = false
		m.s.compare(m)
	}
}

// observe asks both chains now and then, so members see blocks at different
// moments, and some endpoints not at all for a while.
func (m *member) observe() {
	if m.state.Epoch().Number == 0 || !m.seated() {
		return
	}
	for _, c := range m.s.genesis.Chains {
		if m.s.step < m.dark[c.Name] || !m.s.chance(22) {
			continue
		}
		if m.s.trouble(2) {
			m.dark[c.Name] = m.s.step + m.s.between(4, 60)
			continue
		}
		view := node.ChainView(m.state, c.Name)
		o, next, err := m.s.chain(c.Name).Watch(ctx, view, m.cursors[c.Name])
		if err != nil {
			m.s.fail("member %d watches %s: %w", m.i, c.Name, err)
			return
		}
		m.seen[c.Name], m.cursors[c.Name] = o, next
		m.weigh(c.Name, view)
	}
}

// weigh answers the ledger's questions about one chain's assets, as package node
// does with every step of its follower.
func (m *member) weigh(chain string, view chains.View) {
	asks := m.state.Asks(m.id, chain)
	for _, a := range m.s.genesis.Assets {
		k, asked := asks[a.ID]
		if !asked || m.s.cfg.untold || m.weighed[a.ID].Asked == k.Asked || node.Forked(m.state, chain, m.seen[chain], k.Height) {
			continue
		}
		h, err := m.s.chain(chain).Custody(ctx, view, m.cursors[chain], node.AskOf(m.state, chain, a.ID, k))
		switch {
		case errors.Is(err, chains.ErrNoBalance): // its picture is behind, or a fork took the block
		case err != nil:
			m.s.fail("member %d weighs %s: %w", m.i, a.ID, err)
		default:
			m.weighed[a.ID] = node.BalanceOf(a.ID, k, h)
		}
	}
}

// attest says what the plan says, and waits for it to be ordered, for a while.
func (m *member) attest() {
	seat, _ := m.state.Seats.Get(m.id.String())
	if !m.s.chance(40) || seat.Seq < m.pending && m.s.step < m.until {
		return
	}
	for _, a := range m.s.genesis.Assets {
		if !m.s.trouble(20) {
			m.prices[a.ID] = ledger.PriceReport{Asset: a.ID, Price: m.s.world.quote(m.s, a.ID), Observed: m.state.Millis}
		}
	}
	w := node.World{
		Self: m.id, Clock: m.clock(), Prices: m.prices, Seen: m.seen, Ready: m.disk.ready, Tests: m.tests(), GaveUp: m.gaveUp,
		FeeEveryMillis: 20_000, Said: m.disk.said, Wiped: m.disk.wiped, CaughtUp: m.s.log.size()-int(m.state.Height) < 8, Vouched: true,
		Balances: m.weighed, Blames: m.proven,
	}
	if o := m.state.Opening; o != nil {
		w.Flip = m.certificateOf(o.Height)
	}
	said := node.PlanAttestations(m.state, w)
	for _, st := range said {
		if rs, ok := st.Body.([]ledger.PriceReport); ok {
			for _, r := range rs {
				m.disk.said[r.Asset] = r
			}
		}
	}
	if claim := m.s.cfg.mistakes.claim; claim != nil && m.seated() {
		for _, f := range claim(m) {
			said = append(said, node.Statement{Kind: kindOf(f), Body: f})
		}
	}
	if m.liar && m.seated() && m.state.Epoch().Number > 0 {
		said = m.lie(said)
	}
	said = append(said, m.decide()...)
	for _, st := range said {
		m.disk.seq = max(m.disk.seq, seat.Seq) + 1
		a := ledger.NewAttestation(m.key, m.state.Cluster, m.disk.seq, st.Kind, st.Body)
		m.s.submit(ledger.Marshal(ledger.Command{Attestation: a}))
		m.pending, m.until = m.disk.seq, m.s.step+10
	}
}

// lie changes what a traitor says: other numbers, facts that are none, and what
// it would stop.
func (m *member) lie(said []node.Statement) []node.Statement {
	for i, st := range said {
		if !m.s.chance(25) {
			continue
		}
		m.s.rep.Lies++
		switch b := st.Body.(type) {
		case []ledger.PriceReport:
			b = slices.Clone(b)
			for j := range b {
				b[j].Price = fixed.New(uint64(m.s.between(1, 1<<50)))
			}
			said[i].Body = b
		case []ledger.FeeReport:
			said[i].Body = []ledger.FeeReport{{Chain: b[0].Chain, Rate: uint64(m.s.between(0, 1<<46)), Tip: uint64(m.s.between(0, 1<<46))}}
		case []ledger.HeightReport:
			said[i].Body = []ledger.HeightReport{{Chain: b[0].Chain, Height: b[0].Height + uint64(m.s.between(1, 5000)), Hash: "none"}}
		case ledger.InflowFact:
			b.Amount = add(b.Amount, fixed.New(1_000_000_000))
			said[i].Body = b
		case ledger.FinalFact:
			b.Outcome = ledger.OutcomeReverted
			said[i].Body = b
		case ledger.SpentFact:
			b.Foreign = true
			said[i].Body = b
		case ledger.BalanceFact:
			b.Amount = fixed.New(uint64(m.s.between(0, 1<<50)))
			said[i].Body = b
		}
	}
	for id := range m.state.Live.All() {
		if !m.s.chance(3) {
			continue
		}
		m.s.rep.Lies++
		b, _ := m.state.Batches.Get(id)
		if b.Kind != ledger.BatchPay {
			continue
		}
		lies := []node.Statement{
			{Kind: ledger.KindGaveUp, Body: ledger.GaveUp{Batch: id, Attempt: b.Newest().K}},
			{Kind: ledger.KindFeeAbsurd, Body: ledger.FeeAbsurd{Batch: id, Body: b.Newest().Body}},
			{Kind: ledger.KindFinal, Body: ledger.FinalFact{Batch: id, Body: b.Newest().Body, Outcome: ledger.OutcomeSelf, TxID: "none", Height: 1, Block: "none"}},
			{Kind: ledger.KindSpent, Body: ledger.SpentFact{Batch: id, Foreign: true, Height: 1, Block: "none"}},
			{Kind: ledger.KindFinal, Body: ledger.FinalFact{Batch: id, Outcome: ledger.OutcomeReverted, TxID: "none", Height: 1, Block: "none"}},
			{Kind: ledger.KindFinal, Body: ledger.FinalFact{Batch: id, Outcome: ledger.OutcomePaid, TxID: "none", Height: 1, Block: "none"}},
			{Kind: ledger.KindInflow, Body: m.s.falseInflow(m.state, id)},
			{Kind: ledger.KindBlame, Body: m.falseBlame(b)},
		}
		said = append(said, lies[m.s.rng.IntN(len(lies))])
	}
	return said
}

// falseBlame accuses somebody of the roster; it is said again and again about the
// same few sessions, so that two traitors would meet.
func (m *member) falseBlame(b ledger.Batch) ledger.Blame {
	a := b.Newest()
	return ledger.Blame{
		Member: a.Roster[m.s.rng.IntN(len(a.Roster))], Session: ledger.Hash{0xfa, byte(m.s.between(1, 3))}, Round: 1, Check: "S1", Batch: b.ID, Attempt: a.K,
	}
}

func kindOf(body any) ledger.Kind {
	switch body.(type) {
	case ledger.InflowFact:
		return ledger.KindInflow
	case ledger.FinalFact:
		return ledger.KindFinal
	case ledger.SpentFact:
		return ledger.KindSpent
	case ledger.BalanceFact:
		return ledger.KindBalance
	}
	panic("not a fact that is planted")
}

// Approvals (spec: consensus R3, R4). Package consensus runs the same rules
// over raft; here they run over the one order.

type heldApproval struct {
	approval ledger.Approval
	sigs     []ledger.MemberSig // sorted by member
}

const (
	// As in package node: two seconds, and the five for which an idle
	// cluster's time rests; ten while time catches up.
	clockTolerance = 7 * time.Second
	clockCatchUp   = 10 * time.Second
	maxPool        = 48
)

func (m *member) approve() {
	if m.last != nil && m.s.step%4 == m.i%4 {
		m.send(m.last.approval, m.last.sigs[0])
	}
	height, ok := m.toApprove()
	if !ok || !m.seated() || !m.mayApprove() {
		return
	}
	a := m.approval(height)
	m.disk.verdicts = node.JudgePlans(m.state, height, time.UnixMilli(int64(m.clockNow())), m.disk.verdicts)
	m.disk.promised, m.disk.head = height, a.Head
	m.signed = height
	sig := ledger.SignApproval(m.key, a)
	m.last = &heldApproval{a, []ledger.MemberSig{sig}}
	m.takeApproval(a, sig)
	m.send(a, sig)
}

func (m *member) clockNow() uint64 { return uint64(int64(m.s.now) + m.skew) }

// toApprove is the choice of package consensus: what opened an epoch, what
// planned, else the roundest height at times.
func (m *member) toApprove() (uint64, bool) {
	st := m.state
	low, high := max(m.disk.promised, m.signed+1, m.s.log.since[st.Epoch().Number], 1), st.Height
	if st.Opening != nil {
		high = min(high, st.Opening.Height)
	}
	switch {
	case st.Height < m.disk.promised || low > high:
		return 0, false
	case st.Opening != nil:
		return st.Opening.Height, true
	case st.PlannedAt >= low && st.PlannedAt <= high:
		return st.PlannedAt, true
	case m.s.step%6 != m.i%3:
		return 0, false
	}
	for high&(high-1) >= low {
		high &= high - 1
	}
	return high, true
}

func (m *member) mayApprove() bool {
	if m.state.Epoch().Number == 0 || m.liar {
		return true
	}
	if node.Disputed(m.state, m.weighed) != "" {
		return false
	}
	tolerance := clockTolerance
	if m.state.Catching {
		tolerance = clockCatchUp
	}
	d := time.UnixMilli(int64(m.clockNow())).Sub(time.UnixMilli(int64(m.state.Millis)))
	return d >= -tolerance && (d <= tolerance || m.state.Catching)
}

func (m *member) approval(height uint64) ledger.Approval {
	e := m.state.Epoch()
	a := ledger.Approval{Cluster: m.state.Cluster, Epoch: e.Number, Height: height, Head: m.s.head(height), Members: e.MembersHash()}
	if o := m.state.Opening; o != nil && o.Height == height {
		a.Members = o.Epoch.MembersHash()
	}
	a.RootHeight, a.Root = m.s.rootAt(height)
	return a
}

// send gossips an approval. A traitor tells some another head.
func (m *member) send(a ledger.Approval, sig ledger.MemberSig) {
	for _, to := range m.s.members {
		if to == m || m.s.trouble(8) {
			continue
		}
		a, sig := a, sig
		if m.liar && m.s.trouble(20) {
			m.s.rep.Lies++
			a.Head[0] ^= 1
			sig = ledger.SignApproval(m.key, a)
		}
		m.s.after(m.s.between(1, 2), func() {
			if to.up {
				to.takeApproval(a, sig)
			}
		})
	}
}

func (m *member) takeApproval(a ledger.Approval, sig ledger.MemberSig) {
	e := m.state.Epoch()
	if a.Cluster != m.state.Cluster || a.Epoch != e.Number || !e.Has(sig.Member) {
		return
	}
	i := slices.IndexFunc(m.pool, func(h heldApproval) bool { return h.approval == a })
	if i < 0 {
		if len(m.pool) == maxPool {
			m.pool = slices.Delete(m.pool, 0, 1)
		}
		i, m.pool = len(m.pool), append(m.pool, heldApproval{approval: a})
	}
	at, found := slices.BinarySearchFunc(m.pool[i].sigs, sig.Member, func(s ledger.MemberSig, id ledger.MemberID) int {
		return slices.Compare(s.Member[:], id[:])
	})
	if found || !ledger.VerifyApproval(a, sig) {
		return
	}
	m.pool[i].sigs = slices.Insert(m.pool[i].sigs, at, sig)
	if len(m.pool[i].sigs) == e.Q() && (m.cert == nil || m.cert.Approval.Height < a.Height) {
		m.cert = m.certify(m.pool[i])
	}
}

func (m *member) certify(h heldApproval) *ledger.Certificate {
	c := ledger.Certificate{Approval: h.approval, Signatures: slices.Clone(h.sigs)}
	if err := c.Verify(m.state.Cluster, m.state.Epoch()); err != nil {
		m.s.fail("member %d: certificate of height %d: %w", m.i, h.approval.Height, err)
	}
	if h.approval.Head != m.s.head(h.approval.Height) {
		m.s.fail("a certificate over height %d names another head", h.approval.Height)
	}
	return &c
}

// certificateOf is a certificate of exactly this height.
func (m *member) certificateOf(height uint64) *ledger.Certificate {
	for _, h := range m.pool {
		if h.approval.Height == height && len(h.sigs) >= m.state.Epoch().Q() {
			return m.certify(h)
		}
	}
	return nil
}

// certified: a certificate at or above the height lies on this member's chain.
func (m *member) certified(height uint64) bool {
	return m.cert != nil && m.cert.Approval.Epoch == m.state.Epoch().Number && m.cert.Approval.Height >= height &&
		m.cert.Approval.Height <= m.state.Height
}

func (m *member) awaitsKeygen(k ledger.NextKey) bool {
	return slices.ContainsFunc(node.PlanKeygens(m.state, m.id), func(t node.KeygenTask) bool {
		return t.Key.Key == k.Key && t.Key.Try == k.Try && m.certified(t.Attempt.Height) && m.disk.tried[k.Batch] < k.Try
	})
}
