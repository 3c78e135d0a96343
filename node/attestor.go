package node

import (
	"context"
	"encoding/binary"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/coffer-network/coffer/chains"
	"github.com/coffer-network/coffer/consensus"
	"github.com/coffer-network/coffer/ledger"
)

// statement is something this member wants to attest.
type statement struct {
	kind ledger.Kind
	body any
}

// world is what a member knows besides the ledger when it decides what to say.
type world struct {
	self     ledger.MemberID
	clock    uint64 // own clock, Unix ms; 0: not to be attested yet
	prices   map[string]ledger.PriceReport
	said     map[string]ledger.PriceReport  // own newest signed report, by asset, of this life or another
	seen     map[string]chains.Observations // by chain
	ready    []ledger.ShareReady
	tests    []ledger.TestSig
	gaveUp   []ledger.GaveUp
	refusals []ledger.Refusal
	blames   []ledger.Blame    // what this member found proven against others
	screened map[string]bool   // inflows that the operator's screening lets in; nil: there is none
	tooCheap map[inputKey]bool // newest transactions that the own chain node refused as too cheap
	forked   map[string]bool   // chains whose best branch left the final one
	flip     *ledger.Certificate
	wiped    []ledger.Generation           // KeyShares that this member destroyed
	balances map[string]ledger.BalanceFact // by asset: what this member found at the block last asked for
	feeEvery uint64                        // ms
	caughtUp bool
	vouched  bool // what this node holds is, others say, the state of the chain that its operator means
}

const (
	clockBusyMillis = 500
	clockIdleMillis = 5_000
	clockLagMillis  = 2_000
	// maxPerRound bounds what one round says: the rest is said in the next.
	maxPerRound = 64
)

// planAttestations says what the ledger has not heard from this member. It is
// pure: the same view and world give the same list.
func planAttestations(v *ledger.State, w world) []statement {
	var out []statement
	say := func(kind ledger.Kind, body any) { out = append(out, statement{kind, body}) }
	id := w.self.String()
	seat, _ := v.Seats.Get(id)

	// A newcomer's clock says that it can be given its seat.
	if w.clock != 0 && (v.Epoch().Has(w.self) || w.caughtUp && w.vouched) && v.MaySay(w.self, ledger.KindClock) {
		every := uint64(clockIdleMillis)
		if v.Live.Len()+v.Queue.Len()+v.Waiting.Len() > 0 || v.Next != nil || v.Epoch().Number == 0 || w.clock > v.Millis+clockLagMillis {
			every = clockBusyMillis
		}
		if w.clock >= seat.Millis+every {
			say(ledger.KindClock, ledger.Clock{Millis: w.clock})
		}
	}
	if w.flip != nil && v.Opening != nil && v.MaySay(w.self, ledger.KindFlip) {
		say(ledger.KindFlip, *w.flip)
	}
	for _, r := range w.ready {
		if v.Next != nil && v.Next.Epoch.Has(w.self) && !readyHeard(v, w.self, r) {
			say(ledger.KindShareReady, r)
		}
	}
	for _, t := range w.tests {
		if v.MaySay(w.self, ledger.KindTestSig) && !testHeard(v, w.self, t) {
			say(ledger.KindTestSig, t)
		}
	}
	for _, g := range w.gaveUp {
		if b, ok := v.Batches.Get(g.Batch); ok && !b.Done && b.Spent == nil && b.Newest().K == g.Attempt && !hasMember(b.Newest().Gave, w.self) {
			say(ledger.KindGaveUp, g)
		}
	}
	for _, r := range w.refusals {
		if b, ok := v.Batches.Get(r.Batch); ok && !b.Done && b.Spent == nil && b.Newest().K == r.Attempt && b.Newest().RefusedBy(w.self) != r.Reason {
			say(ledger.KindRefusal, r)
		}
	}
	for _, b := range w.blames {
		if v.AwaitsBlame(w.self, b) {
			say(ledger.KindBlame, b)
		}
	}
	for _, g := range w.wiped {
		if v.AwaitsWiped(w.self, g) {
			say(ledger.KindWiped, ledger.Wiped{Generation: g})
		}
	}
	if v.Epoch().Number == 0 || !v.Epoch().Has(w.self) {
		return out // nothing else counts before there are keys, or from who holds no seat
	}
	if rs := planPrices(v, seat, w); len(rs) > 0 {
		say(ledger.KindPrice, rs)
	}
	for _, f := range planBalances(v, w) {
		say(ledger.KindBalance, f)
	}
	for _, c := range v.Genesis.Chains {
		o, ok := w.seen[c.Name]
		if !ok {
			continue
		}
		if h := heightOf(seat, c.Name); o.Tip.Height > h {
			say(ledger.KindHeight, []ledger.HeightReport{o.Tip})
		}
		if o.Fee != nil && o.Behind == 0 && v.Millis >= feeSaid(seat, c.Name)+w.feeEvery {
			say(ledger.KindFee, []ledger.FeeReport{*o.Fee})
		}
		if o.Fee != nil && o.Behind == 0 {
			for _, f := range planAbsurd(v, c.Name, w, *o.Fee) {
				say(ledger.KindFeeAbsurd, f)
			}
		}
		for _, f := range planFacts(v, c, o, w) {
			if !v.Heard(w.self, f.kind, f.body) {
				out = append(out, f)
			}
		}
	}
	return out[:min(len(out), maxPerRound)]
}

// planAbsurd says which open batches pay a fee that is nowhere near what this
// member's own node finds right (spec: outflows §7), or that it refused as too
// cheap while the market asks for more. A broadcast's answer moves nothing by
// itself: f+1 members must say so, and the ledger's own rate must have moved; then
// the next transaction comes before its cadence (§3.5).
func planAbsurd(v *ledger.State, chain string, w world, own ledger.FeeReport) []ledger.FeeAbsurd {
	var out []ledger.FeeAbsurd
	for id := range v.Live.All() {
		b, _ := v.Batches.Get(id)
		if b.Kind != ledger.BatchPay || b.Chain != chain || b.Spent != nil {
			continue
		}
		a := b.Newest()
		cheap := w.tooCheap[inputKey{batch: id, body: a.Body}] && below(a, own)
		if !hasMember(a.Absurd, w.self) && (cheap || v.FeeIsAbsurd(chain, a, own)) {
			out = append(out, ledger.FeeAbsurd{Batch: id, Body: a.Body})
		}
	}
	return out
}

// below reports whether an attempt pays less than a member's own estimate.
func below(a ledger.Attempt, own ledger.FeeReport) bool {
	if a.Ethereum != nil {
		return a.Ethereum.FeeCap < own.Tip+2*own.Rate
	}
	return a.Bitcoin != nil && a.Bitcoin.Rate < own.Rate
}

// planFacts compares one chain's picture with the ledger.
func planFacts(v *ledger.State, c ledger.ChainParam, o chains.Observations, w world) []statement {
	var out []statement
	say := func(kind ledger.Kind, body any) { out = append(out, statement{kind, body}) }

	totals := map[string]uint64{} // per block: many small deposits ride on one stale block
	for _, in := range o.Inflows {
		if isDeposit(v, in.Fact) {
			n, _ := in.Fact.Amount.Uint64()
			totals[in.Fact.Block] += n
		}
	}
	for _, in := range o.Inflows {
		if isFloat(v, in.Fact) && in.Depth >= max(c.Final, 1) {
			say(ledger.KindInflow, in.Fact)
			continue
		}
		if v.Counted(in.Fact.ID) || !isDeposit(v, in.Fact) {
			continue
		}
		if native, ok := v.Genesis.Native(c.Name); ok && c.Name == ledger.Ethereum && in.Fact.Asset == native.ID && !w.caughtUp {
			continue // it is told with what this replica knows of its own transactions
		}
		if w.screened != nil && !w.screened[in.Fact.ID] {
			continue // withheld until its screening lets it in
		}
		if in.Depth >= v.Genesis.InflowDepth(c.Name, totals[in.Fact.Block]) {
			say(ledger.KindInflow, in.Fact)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(o.Descendants)) {
		if d := (ledger.Descendants{Batch: id, Sats: o.Descendants[id]}); v.WantsDescendants(w.self, d) {
			say(ledger.KindDescendants, d)
		}
	}
	mined := map[uint64]bool{}
	for _, s := range o.Spends {
		b, ok := v.Batches.Get(s.Batch)
		if s.Batch == 0 && s.Foreign && s.Final && w.caughtUp && ours(v, c.Name, s.Anchor) {
			say(ledger.KindForeign, ledger.ForeignFact{Chain: c.Name, Resource: s.Anchor, TxID: s.TxID, Height: s.Height, Block: s.Block})
		}
		if s.Batch == 0 || !ok || b.Done {
			continue
		}
		mined[b.ID] = true
		if s.Foreign {
			// Own bytes of an attempt this replica has not applied look foreign
			// too: only a caught-up member says so, and not before finality.
			if w.caughtUp && s.Depth >= max(c.Final, 1) && s.Final {
				say(ledger.KindSpent, ledger.SpentFact{Batch: b.ID, Foreign: true, Height: s.Height, Block: s.Block})
			}
			continue
		}
		body, ok := bodyOf(b, s.Attempt)
		if !ok {
			continue
		}
		if b.Spent == nil {
			say(ledger.KindSpent, ledger.SpentFact{Batch: b.ID, Body: body, Height: s.Height, Block: s.Block})
		} else if b.Spent.Block != s.Block && o.Left(b.Spent.Height, b.Spent.Block) {
			say(ledger.KindUnmined, ledger.UnminedFact{Batch: b.ID, Block: b.Spent.Block})
		}
		if s.Final {
			say(ledger.KindFinal, ledger.FinalFact{
				Batch: b.ID, Body: body, Outcome: s.Outcome, TxID: s.TxID, Fee: s.Fee, Height: s.Height, Block: s.Block,
			})
		}
	}
	for id := range v.Live.All() {
		b, _ := v.Batches.Get(id)
		if b.Chain == c.Name && b.Spent != nil && !mined[id] && o.Left(b.Spent.Height, b.Spent.Block) {
			say(ledger.KindUnmined, ledger.UnminedFact{Batch: id, Block: b.Spent.Block})
		}
	}
	shown := map[string]bool{}
	for _, in := range o.Inflows {
		shown[in.Fact.ID] = true
	}
	for _, r := range v.RecentInflows(c.Name) {
		if !shown[r.ID] && o.Behind == 0 && o.Left(r.Height, r.Block) {
			say(ledger.KindReversed, ledger.ReversedFact{ID: r.ID, Block: r.Block})
		}
	}
	if w.forked[c.Name] && v.OutflowsHalt == "" {
		say(ledger.KindDeepFork, ledger.DeepForkFact{Chain: c.Name})
	}
	for _, f := range o.Floats {
		if s, ok := v.Senders.Get(f.Address); ok && !s.Booked && !f.Amount.Less(c.Float) {
			say(ledger.KindFloat, ledger.FloatFact{Chain: f.Chain, Address: f.Address, Amount: c.Float})
		}
	}
	return out
}

// isDeposit: an amount of a pool's asset at an address that belongs to a client.
func isDeposit(v *ledger.State, f ledger.InflowFact) bool {
	w, ok := v.Watched.Get(f.Chain + "/" + f.Address)
	_, pool := v.Pools.Get(f.Asset)
	return ok && pool && w.Account != ""
}

// ours: the ledger still holds what somebody else is seen to have consumed. Of a
// sequence it is enough to say so once: everything stands still then.
func ours(v *ledger.State, chain, resource string) bool {
	if chain != ledger.Bitcoin {
		return v.OutflowsHalt == ""
	}
	return v.Custody(resource)
}

// isFloat: a coin of the operators at the pool's own address, while the ledger
// waits for the float that genesis promised.
func isFloat(v *ledger.State, f ledger.InflowFact) bool {
	w, ok := v.Watched.Get(f.Chain + "/" + f.Address)
	_, counted := v.Coins.Get(f.ID)
	return ok && !counted && (v.FloatWanted(w) || w.Purpose == ledger.PurposeVault && v.Wants(f.ID))
}

func bodyOf(b ledger.Batch, k uint64) (uint64, bool) {
	for _, a := range b.Attempts {
		if a.K >= k { // a retry replaced the attempt that the picture still names
			return a.Body, true
		}
	}
	return 0, false
}

// planPrices says one word per asset and round. A word that was signed and not
// heard is said again as it was, and none for an earlier round: a second one
// would be evidence against this member (spec: committee §7, E1).
func planPrices(v *ledger.State, seat ledger.Seat, w world) []ledger.PriceReport {
	round := v.Time() / v.Params.RoundSeconds
	var rs []ledger.PriceReport
	for _, a := range v.Genesis.Assets {
		p, ok := w.prices[a.ID]
		old, signed := w.said[a.ID]
		switch {
		case signed && old.Round > round:
			continue
		case signed && old.Round == round:
			p = old
		case !ok:
			continue
		default:
			p.Round, p.Observed = round, min(p.Observed, v.Millis)
		}
		said := false
		for _, r := range seat.Reports {
			said = said || r.Asset == a.ID && r.Round >= round
		}
		if !said && v.Millis < p.Observed+60_000 {
			rs = append(rs, p)
		}
	}
	return rs
}

func heightOf(seat ledger.Seat, chain string) uint64 {
	for _, h := range seat.Heights {
		if h.Chain == chain {
			return h.Height
		}
	}
	return 0
}

func feeSaid(seat ledger.Seat, chain string) uint64 {
	for _, f := range seat.Fees {
		if f.Chain == chain {
			return f.Millis
		}
	}
	return 0
}

func readyHeard(v *ledger.State, self ledger.MemberID, r ledger.ShareReady) bool {
	for _, k := range v.Next.Keys {
		if k.Key == r.Key {
			return k.Try != r.Try || hasMember(k.Ready, self)
		}
	}
	return true
}

func testHeard(v *ledger.State, self ledger.MemberID, t ledger.TestSig) bool {
	b, ok := v.Batches.Get(t.Batch)
	if !ok || b.Done {
		return true
	}
	if v.Next != nil {
		for _, k := range v.Next.Keys {
			for _, seen := range k.Tested {
				if seen.Batch == t.Batch {
					return hasMember(seen.Members, self) || !v.Next.Epoch.Has(self)
				}
			}
		}
	}
	return false // of the epoch in force: one word is enough
}

func hasMember(ms []ledger.MemberID, m ledger.MemberID) bool {
	for _, x := range ms {
		if x == m {
			return true
		}
	}
	return false
}

// seqBlock is how many attestation numbers are reserved with one fsync: after a
// crash the next ones begin above all that may be under way.
const seqBlock = 1024

// attest is the dull loop: plan, sign, submit, in order, one at a time.
func (n *Node) attest(ctx context.Context, advanced func()) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		advanced()
		v, _ := n.app.now()
		plan := planAttestations(v, n.world(ctx, v))
		if n.liar != nil {
			plan = n.liar.lies(plan)
		}
		for _, s := range plan {
			advanced()
			if _, err := n.say(ctx, s); err != nil {
				if ctx.Err() == nil {
					n.log.Debug("attestation not ordered, will be said again", slog.Int("kind", int(s.kind)), slog.Any("err", err))
				}
				break
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// say has one statement ordered. One at a time: a number that is ordered after a
// higher one is refused.
func (n *Node) say(ctx context.Context, s statement) (consensus.Receipt, error) {
	n.saying.Lock()
	defer n.saying.Unlock()
	v, _ := n.app.now()
	seat, _ := v.Seats.Get(n.self.String())
	n.seq = max(n.seq, seat.Seq) + 1
	if n.seq >= n.seqReserved {
		n.seqReserved = n.seq + seqBlock
		if err := n.keys.Put("attestation-seq", binary.BigEndian.AppendUint64(nil, n.seqReserved)); err != nil {
			return consensus.Receipt{}, err
		}
	}
	if rs, ok := s.body.([]ledger.PriceReport); ok {
		if err := n.keepSaid(rs); err != nil {
			return consensus.Receipt{}, err
		}
	}
	a := ledger.NewAttestation(n.key, v.Cluster, n.seq, s.kind, s.body)
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := n.cons.Submit(ctx, ledger.Marshal(ledger.Command{Attestation: a}))
	if err != nil {
		return r, err
	}
	if r.Code != ledger.OK {
		n.metrics.refused(string(r.Code))
		n.log.Debug("attestation refused", slog.Int("kind", int(s.kind)), slog.String("code", string(r.Code)))
	}
	return r, nil
}

// saidName is where the newest signed price reports are kept.
const saidName = "attested-prices"

// keepSaid has reports on disk before they are signed: one write a round.
func (n *Node) keepSaid(rs []ledger.PriceReport) error {
	for _, r := range rs {
		n.said[r.Asset] = r
	}
	all := make([]ledger.PriceReport, 0, len(n.said))
	for _, asset := range slices.Sorted(maps.Keys(n.said)) {
		all = append(all, n.said[asset])
	}
	return n.keys.Put(saidName, ledger.Marshal(all))
}

// loadSaid reads what an earlier life signed.
func (n *Node) loadSaid() error {
	n.said = map[string]ledger.PriceReport{}
	b, err := n.keys.Get(saidName)
	if err != nil || b == nil {
		return err
	}
	var all []ledger.PriceReport
	if err := ledger.Unmarshal(b, &all); err != nil {
		return err
	}
	for _, r := range all {
		n.said[r.Asset] = r
	}
	return nil
}
