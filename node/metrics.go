package node

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are this node's own; the registerer is the caller's.
type metrics struct {
	refusals   *prometheus.CounterVec
	sessions   *prometheus.CounterVec
	seconds    *prometheus.HistogramVec
	notCounted *prometheus.CounterVec
	broadcasts *prometheus.CounterVec
	history    prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "coffer_attestation_refusals_total", Help: "Own attestations that the ledger refused, by code.",
		}, []string{"code"}),
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
	}
	r.MustRegister(m.refusals, m.sessions, m.seconds, m.notCounted, m.broadcasts, m.history)
	return m
}

func (m *metrics) refused(code string)            { m.refusals.WithLabelValues(code).Inc() }
func (m *metrics) historyFailed()                 { m.history.Inc() }
func (m *metrics) ignored(reason string)          { m.notCounted.WithLabelValues(reason).Inc() }
func (m *metrics) broadcast(chain, answer string) { m.broadcasts.WithLabelValues(chain, answer).Inc() }

func (m *metrics) session(curve string, err error, took time.Duration) {
	outcome := "signed"
	if err != nil {
		outcome = "failed"
	} else {
		m.seconds.WithLabelValues(curve).Observe(took.Seconds())
	}
	m.sessions.WithLabelValues(curve, outcome).Inc()
}
