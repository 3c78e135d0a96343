package node

import (
	"context"
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/fixed"
	"github.com/coffer-network/coffer/node/api"
	"github.com/coffer-network/coffer/node/p2p"
	"github.com/prometheus/client_golang/prometheus"
)

// collector tells at each scrape what follows from the ledger and from the node as
// they stand: nothing that could be forgotten to be set is kept (spec: committee
// §12). Ages are ledger time's, except where only this node knows.
//
// What the specification lists and nobody could tell is not here: the
// versions of peers, coverage by bonds. A payout in HOLD halts all, which shows in
// coffer_halted. Why not a histogram of outflow ages: the
// alert asks for the oldest, and a histogram that is made anew at each scrape has
// no rate to take.
type collector struct{ n *Node }

var _ prometheus.Collector = collector{}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var (
	descHeight   = desc("coffer_applied_height", "LogIndex that this replica applied.")
	descLag      = desc("coffer_applied_lag_entries", "Commands that are known to be ordered and not applied here.")
	descCertLag  = desc("coffer_certified_lag_entries", "Applied commands above the newest certificate.")
	descLeading  = desc("coffer_leading", "1 if this node leads.")
	descLeader   = desc("coffer_leader_known", "1 if this node knows a leader.")
	descEpoch    = desc("coffer_epoch", "Epoch in force.")
	descOpening  = desc("coffer_epoch_opening", "1 while the next epoch is opened and not in force.")
	descTry      = desc("coffer_reshare_try", "Highest try of a key in the resharing under way; 0: none.")
	descLeft     = desc("coffer_reshare_left_seconds", "Ledger time until the resharing under way is dropped.")
	descNotReady = desc("coffer_reshare_not_ready", "Members of the epoch being prepared that have not done all it needs of them.")
	descDropped  = desc("coffer_epoch_dropped", "Newest epoch number that was dropped by deadline or tries; 0: none is known.")
	descChanges  = desc("coffer_changes_waiting", "Changes of the committee that are decided and not begun.", "kind")
	descChange   = desc("coffer_change_waiting_seconds", "Longest time that a change of the committee waits beyond its quarantine, or for another vote.")
	descBlamed   = desc("coffer_member_proofs_total", "Times that f+1 members verified that a member broke the signing protocol, since it took its seat.", "peer")
	descSpare    = desc("coffer_members_spare", "Members heard from beyond the m that signing needs; negative: signing waits.")
	descHeard    = desc("coffer_member_last_heard_seconds", "Seconds since this node heard from a peer.", "peer")
	descHalted   = desc("coffer_halted", "1 for what stops payouts: broken, halt, hold or vote (all payouts), node (this one signs nothing).", "why")
	descAsset    = desc("coffer_asset_halted", "1 while nothing of an asset is planned or signed: custody does not hold what is owed.", "asset")
	descCustody  = desc("coffer_custody_units", "Base units that a quorum last saw at addresses of ours, and what was leaving.", "asset")
	descOwed     = desc("coffer_liabilities_units", "Base units that the books had at the same block.", "asset")
	descProven   = desc("coffer_solvency_age_seconds", "Ledger time since the newest balance that covered the books was asked for; above 600 nothing of the asset is signed.", "asset")
	descDisputed = desc("coffer_solvency_disputed", "1 while this node's own chain shows less than the balance that counted, and too little.", "asset")
	descPaused   = desc("coffer_paused", "1 while outflows are paused.")
	descReady    = desc("coffer_ready", "1 if /readyz says so.")
	descPre      = desc("coffer_preparams", "Sets of pre-parameters that lie ready.")
	descOpen     = desc("coffer_outflows_open", "Open outflows.", "state", "asset")
	descOldest   = desc("coffer_outflow_oldest_seconds", "Age of the oldest open outflow.", "state", "asset")
	descStuck    = desc("coffer_batches_stuck_at_cap", "Open batches whose next fee is above what it may be.", "chain")
	descTally    = desc("coffer_tally_age_seconds", "Seconds since this node saw the oldest fact that has no quorum yet.", "kind")
	descRunning  = desc("coffer_sessions_running", "Sessions that this node has joined and not finished.")
	descChainAge = desc("coffer_chain_height_age_seconds", "Ledger time since a quorum saw the chain grow.", "chain")
	descRead     = desc("coffer_chain_read_age_seconds", "Seconds since this node read its own endpoint of the chain.", "chain")
	descRateAge  = desc("coffer_fee_rate_age_seconds", "Ledger time since the agreed fee rate was made.", "chain")
	descPriceAge = desc("coffer_price_age_seconds", "Ledger time since the price was agreed.", "asset")
	descCap      = desc("coffer_cap_left_ratio", "Part of an outflow cap that is left, 0 to 1.", "asset", "window")
	descDrill    = desc("coffer_drill_age_seconds", "Ledger time since a drill of the key shares in force was told, or, where none was, since their epoch came into force.")
	descFree     = desc("coffer_disk_free_bytes", "Bytes that may still be written in the data directory.")
	descSync     = desc("coffer_log_sync_seconds", "99th percentile of the raft log's syncs to disk over ten seconds.")
	descEquiv    = desc("coffer_equivocations_total", "Approvals that contradicted an earlier one of their author.")
)

func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descHeight, descLag, descCertLag, descLeading, descLeader, descEpoch, descOpening, descTry, descLeft, descNotReady, descDropped, descChanges, descChange,
		descSpare, descBlamed, descHeard, descHalted, descAsset, descPaused, descReady, descCustody, descOwed, descProven, descDisputed,
		descPre, descOpen, descOldest, descStuck, descTally, descRunning, descChainAge, descRead, descRateAge, descPriceAge, descCap, descDrill, descFree, descSync, descEquiv,
	} {
		ch <- d
	}
}

func (c collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	v, st, raft := c.n.View(), c.n.Status(), c.n.cons.Status()
	gauge(descHeight, float64(v.Height))
	gauge(descLag, float64(st.Commit-min(v.Height, st.Commit)))
	gauge(descCertLag, float64(v.Height-min(raft.Certified.Height, v.Height)))
	gauge(descLeading, one(raft.Leading))
	gauge(descLeader, one(raft.HasLeader || raft.Leading))
	gauge(descReady, one(len(st.NotReady) == 0))
	gauge(descPre, float64(st.PreParams))
	gauge(descFree, float64(c.n.room.bytes.Load()))
	gauge(descSync, time.Duration(c.n.room.slow.Load()).Seconds())
	ch <- prometheus.MustNewConstMetric(descEquiv, prometheus.CounterValue, float64(raft.Equivocated))
	for _, m := range v.Epoch().Members {
		if heard := c.n.peers.LastHeard(p2p.ID(m.ID)); m.ID != c.n.self && !heard.IsZero() {
			gauge(descHeard, time.Since(heard).Seconds(), m.Name)
		}
	}
	for _, x := range st.Chains {
		if !x.Read.IsZero() {
			gauge(descRead, time.Since(x.Read).Seconds(), x.Chain)
		}
	}
	gauge(descHalted, one(st.Halted != ""), "node")
	gauge(descRunning, float64(len(c.n.Sessions())))
	for kind, age := range c.n.figures.ages(time.Now()) {
		gauge(descTally, age.Seconds(), kind)
	}
	c.n.mu.Lock()
	own := maps.Clone(c.n.balances)
	c.n.mu.Unlock()
	for _, a := range v.Genesis.Assets {
		gauge(descDisputed, one(v.Disputed(own[a.ID])), a.ID)
	}
	ofLedger(v, gauge)
}

// units is of display only: what a float cannot hold exactly decides nothing.
func units(n fixed.Int) float64 {
	f, err := strconv.ParseFloat(n.String(), 64)
	if err != nil {
		return 0
	}
	return f
}

func one(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// ofLedger are the gauges that every replica at a height shows alike.
func ofLedger(v *ledger.State, gauge func(d *prometheus.Desc, v float64, labels ...string)) {
	seconds := func(since uint64) float64 { return float64(v.Millis-min(since, v.Millis)) / 1000 }
	gauge(descEpoch, float64(v.Epoch().Number))
	gauge(descOpening, one(v.Opening != nil))
	gauge(descSpare, float64(api.Spare(v)))
	for _, m := range v.Epoch().Members { // an increase from nothing is one only if nothing was there
		b, _ := v.Blamed.Get(m.ID.String())
		gauge(descBlamed, float64(b.Count), m.Name)
	}
	ofCommittee(v, gauge)
	if since, _ := v.Drilled(); since != 0 {
		gauge(descDrill, seconds(since))
	}
	why, _, _ := strings.Cut(v.OutflowsHalt, ":")
	for _, w := range []string{"BROKEN", "HALT", "HOLD", "vote"} {
		gauge(descHalted, one(why == w), strings.ToLower(w))
	}
	_, _, paused := v.PausedBy()
	gauge(descPaused, one(paused))

	type at struct{ state, asset string }
	open, oldest := map[at]int{}, map[at]uint64{}
	count := func(id uint64) {
		o, ok := v.Outflows.Get(id)
		if !ok {
			return
		}
		k := at{o.State.String(), o.Asset}
		if open[k]++; oldest[k] == 0 || o.Created < oldest[k] {
			oldest[k] = o.Created
		}
	}
	for id := range v.Queue.All() {
		count(id)
	}
	stuck := map[string]int{}
	for id := range v.Live.All() {
		b, _ := v.Batches.Get(id)
		for _, o := range b.Outflows {
			count(o)
		}
		if b.Stuck != 0 {
			stuck[b.Chain]++
		}
	}
	for k, n := range open {
		gauge(descOpen, float64(n), k.state, k.asset)
		gauge(descOldest, seconds(oldest[k]), k.state, k.asset)
	}

	for _, c := range v.Genesis.Chains {
		gauge(descStuck, float64(stuck[c.Name]), c.Name)
		if tip, ok := v.Tips.Get(c.Name); ok && tip.Millis != 0 {
			gauge(descChainAge, seconds(tip.Millis), c.Name)
		}
		if r, ok := v.Rates.Get(c.Name); ok && r.Millis != 0 {
			gauge(descRateAge, seconds(r.Millis), c.Name)
		}
	}
	for _, a := range v.Genesis.Assets {
		gauge(descAsset, one(v.HaltOf(a.ID) != ""), a.ID)
		if row, ok := v.Solvency.Get(a.ID); ok && v.Epoch().Number > 0 {
			gauge(descCustody, units(row.Newest.Amount)-units(row.Newest.Beyond)+units(row.Newest.Leaving), a.ID)
			gauge(descOwed, units(row.Newest.Books)+units(row.Newest.Nobodys), a.ID)
			gauge(descProven, seconds(row.Good), a.ID)
		}
		if p, ok := v.Prices.Get(a.ID); ok && p.Millis != 0 {
			gauge(descPriceAge, seconds(p.Millis), a.ID)
		}
		hour, day := v.Capacities(a.ID)
		b, _ := v.Buckets.Get(a.ID)
		left(gauge, a.ID, "hour", hour, b.Hour.Amount)
		left(gauge, a.ID, "day", day, b.Day.Amount)
	}
}

// ofCommittee are the gauges of a committee that changes.
func ofCommittee(v *ledger.State, gauge func(d *prometheus.Desc, v float64, labels ...string)) {
	try, dropped := uint64(0), uint64(0)
	if n := v.Next; n != nil && n.Kind == ledger.NextReshare {
		for _, k := range n.Keys {
			try = max(try, k.Try)
		}
		if v.Opening == nil {
			gauge(descLeft, float64(n.Deadline-min(v.Millis, n.Deadline))/1000)
		}
		gauge(descNotReady, float64(len(api.NotReady(v))))
	}
	gauge(descTry, float64(try))
	for _, d := range v.Dropped {
		if d.How == ledger.DroppedByDeadline || d.How == ledger.DroppedByTries {
			dropped = d.Epoch
		}
	}
	gauge(descDropped, float64(dropped))
	longest, waiting := uint64(0), map[string]int{}
	for _, c := range v.Changes {
		longest = max(longest, v.Millis-min(max(c.From, c.Failed), v.Millis))
		waiting[c.Kind.String()]++
	}
	for k := ledger.ChangeAdmit; k <= ledger.ChangeRefresh; k++ {
		gauge(descChanges, float64(waiting[k.String()]), k.String())
	}
	gauge(descChange, float64(longest)/1000)
}

// left is of display only: a ratio in a float decides nothing.
func left(gauge func(*prometheus.Desc, float64, ...string), asset, window string, capacity, drawn fixed.Int) {
	if capacity.IsZero() {
		return
	}
	bps, err := fixed.MulDivFloor(drawn, fixed.Bps, capacity)
	n, ok := bps.Uint64()
	if err != nil || !ok || n > 10_000 {
		n = 10_000
	}
	gauge(descCap, float64(10_000-n)/10_000, asset, window)
}

// figures are what a scrape cannot tell from the moment.
type figures struct {
	mu     sync.Mutex
	facts  map[string]fact // open ones, by their key in the ledger
	leader ledger.MemberID
}

type fact struct {
	kind  ledger.Kind
	since time.Time
}

// look remembers which facts are open; true: another member leads than before.
func (f *figures) look(v *ledger.State, leader ledger.MemberID, known bool, now time.Time) (changed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	facts := map[string]fact{}
	for key, t := range v.Tally.All() {
		facts[key] = fact{t.Kind, now}
		if was, ok := f.facts[key]; ok {
			facts[key] = was
		}
	}
	f.facts = facts
	if !known || leader == f.leader {
		return false
	}
	changed = f.leader != (ledger.MemberID{})
	f.leader = leader
	return changed
}

// ages are those of the oldest open fact of each kind.
func (f *figures) ages(now time.Time) map[string]time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[string]time.Duration{}
	for _, x := range f.facts {
		kind := factNames[x.kind]
		out[kind] = max(out[kind], now.Sub(x.since))
	}
	return out
}

var factNames = map[ledger.Kind]string{
	ledger.KindInflow: "inflow", ledger.KindSpent: "spent", ledger.KindUnmined: "unmined", ledger.KindFinal: "final", ledger.KindFloat: "float",
	ledger.KindRepaySeen: "repay-seen", ledger.KindReversed: "reversed", ledger.KindDeepFork: "deep-fork", ledger.KindForeign: "foreign",
}

// watchFigures looks once a second.
func (n *Node) watchFigures(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		leader, known := n.cons.Leader()
		if n.figures.look(n.View(), leader, known, time.Now()) {
			n.metrics.leaders.Inc()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
