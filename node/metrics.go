package node

import (
	"time"

	"github.com/coffer-network/coffer/consensus"
	"github.com/coffer-network/coffer/tss"
	"github.com/prometheus/client_golang/prometheus"
)

// metrics are this node's own; the registerer is the caller's.
type metrics struct {
	refusals   *prometheus.CounterVec
	unsigned   *prometheus.CounterVec
	sessions   *prometheus.CounterVec
	seconds    *prometheus.HistogramVec
	notCounted *prometheus.CounterVec
	broadcasts *prometheus.CounterVec
	history    prometheus.Counter
	venueFails *prometheus.CounterVec
	venueTimes *prometheus.GaugeVec
	priceTimes *prometheus.GaugeVec
	alerts     *prometheus.CounterVec
	loops      *prometheus.CounterVec
	leaders    prometheus.Counter
	blames     *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "coffer_attestation_refusals_total", Help: "Own attestations that the ledger refused, by code.",
		}, []string{"code"}),
		unsigned: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "coffer_signer_refusals_total", Help: "Attempts this node would not sign, by check: transaction, timely, chain, fence, solvency, caps, limit, screening.",
		}, []string{"check"}),
		sessions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "coffer_session_total", Help: "Signing sessions joined, by curve and outcome.",
		}, []string{"curve", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "coffer_sign_seconds", Help: "Seconds of a signing session.", Buckets: prometheus.ExponentialBuckets(0.05, 2, 12),
		}, []string{"curve"}),
		notCounted: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "coffer_inflow_ignored_total", Help: "What arrived at our addresses and is no inflow, by chain.",
		}, []string{"chain"}),
		broadcasts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "coffer_broadcast_total", Help: "Broadcasts of signed transactions, by chain and answer.",
		}, []string{"chain", "answer"}),
		history: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "coffer_history_failures_total", Help: "Reads and writes of the node's own history that failed.",
		}),
		venueFails: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "coffer_venue_failures_total", Help: "Questions to a price venue without a usable answer, by venue.",
		}, []string{"venue"}),
		venueTimes: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "coffer_venue_quote_timestamp_seconds", Help: "Time of a venue's newest usable price, Unix; its age is time() minus this.",
		}, []string{"venue", "symbol"}),
		priceTimes: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "coffer_price_timestamp_seconds", Help: "Time of this node's newest median, Unix; its age is time() minus this.",
		}, []string{"asset"}),
		alerts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "coffer_alert_total", Help: "Webhook alerts of this node's rules, by kind and outcome (sent, failed, dropped).",
		}, []string{"kind", "outcome"}),
		blames: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "coffer_session_culprits_total", Help: "Sessions spoilt here, by the member they failed for, strength (proven, suspected) and reason.",
		}, []string{"peer", "strength", "reason"}),
		loops: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "coffer_loop_restarts_total", Help: "Loops that stood still for a minute and were restarted.",
		}, []string{"loop"}),
		leaders: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "coffer_leader_changes_total", Help: "Times that another member led than a second before.",
		}),
	}
	for _, c := range signerChecks {
		m.unsigned.WithLabelValues(c) // an increase from nothing is one only if nothing was there
	}
	r.MustRegister(m.refusals, m.unsigned, m.sessions, m.seconds, m.notCounted, m.broadcasts, m.history,
		m.venueFails, m.venueTimes, m.priceTimes, m.alerts, m.blames, m.loops, m.leaders)
	return m
}

// watchConsensus shows what an operator must be woken for: each of these is 0
// while all is well.
func watchConsensus(r prometheus.Registerer, status func() consensus.Status) {
	gauge := func(name, help string, value func(consensus.Status) float64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return value(status()) }))
	}
	gauge("coffer_complaints", "Members that complain of the leader now.", func(s consensus.Status) float64 { return float64(len(s.Complaints)) })
	gauge("coffer_shunned_members", "Members whose raft streams and votes this node refuses now.", func(s consensus.Status) float64 { return float64(len(s.Shunned)) })
	gauge("coffer_leaders_proved", "Members that signed two entries for one slot of raft's log as its leader: this node holds the proof.",
		func(s consensus.Status) float64 { return float64(len(s.Proofs)) })
	gauge("coffer_forked_height", "Newest height at which more members than can be traitors approve another history or state than this node holds.",
		func(s consensus.Status) float64 { return float64(s.Forked) })
	gauge("coffer_unproven_height", "Height of a state taken over by snapshot that nobody has vouched for yet: this node approves and signs nothing.",
		func(s consensus.Status) float64 { return float64(s.Unproven) })
}

// watchChildren exports the child processes that sessions run in.
func watchChildren(r prometheus.Registerer, stats func() tss.Stats) {
	r.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "coffer_session_children", Help: "Child processes of signing sessions, idle ones included.",
		}, func() float64 { return float64(stats().Children.Alive) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "coffer_session_children_started_total", Help: "Child processes started for signing sessions.",
		}, func() float64 { return float64(stats().Children.Started) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "coffer_session_children_died_total", Help: "Child processes that ended by themselves: a message got past the guard, or memory ran out.",
		}, func() float64 { return float64(stats().Children.Died) }),
	)
}

func (m *metrics) loopRestarted(loop string)      { m.loops.WithLabelValues(loop).Inc() }
func (m *metrics) refused(code string)            { m.refusals.WithLabelValues(code).Inc() }
func (m *metrics) unsignedFor(check string)       { m.unsigned.WithLabelValues(check).Inc() }
func (m *metrics) historyFailed()                 { m.history.Inc() }
func (m *metrics) alert(kind, outcome string)     { m.alerts.WithLabelValues(kind, outcome).Inc() }
func (m *metrics) ignored(reason string)          { m.notCounted.WithLabelValues(reason).Inc() }
func (m *metrics) broadcast(chain, answer string) { m.broadcasts.WithLabelValues(chain, answer).Inc() }

func (m *metrics) venueFailed(venue string) { m.venueFails.WithLabelValues(venue).Inc() }
func (m *metrics) venueAnswered(venue, symbol string, at time.Time) {
	m.venueTimes.WithLabelValues(venue, symbol).Set(float64(at.UnixMilli()) / 1000)
}
func (m *metrics) priced(asset string, at time.Time) {
	m.priceTimes.WithLabelValues(asset).Set(float64(at.UnixMilli()) / 1000)
}

func (m *metrics) blame(member, strength, reason string) {
	m.blames.WithLabelValues(member, strength, reason).Inc()
}

func (m *metrics) session(curve string, err error, took time.Duration) {
	outcome := "signed"
	if err != nil {
		outcome = "failed"
	} else {
		m.seconds.WithLabelValues(curve).Observe(took.Seconds())
	}
	m.sessions.WithLabelValues(curve, outcome).Inc()
}
