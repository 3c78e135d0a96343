package testnet

import (
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// The chaos run's verdicts: functions of what the chains, the nodes and the clients were seen to say. None asks a node
// what it believes about itself.

// posted is one signed request as its client saw it.
type posted struct {
	ID, Account string
	Nonce       uint64
	Kind        string // action
	To          string // destination of a payout: each has its own
	Asset       string
	Gross       *big.Int
	Call, Ret   time.Time // Ret zero: never answered
	Attempt     time.Time // when the answered attempt was begun
	Code        string
	LogIndex    uint64
	Outflow     uint64
	Retries     int
}

func (p posted) acked() bool { return !p.Ret.IsZero() }

// lookedUp is what one node says at rest of one request.
type lookedUp struct {
	Known    bool
	Code     string
	LogIndex uint64
	Next     uint64 // the account's next nonce there
	Recent   bool   // among the last sixteen of its account, which every replica keeps
}

// lost says why an acknowledged request is lost on a node, or "". A node forgets the text of what is older than sixteen
// requests of an account when its own history missed it; that the request counted shows in the nonce then.
func lost(p posted, at lookedUp) string {
	switch {
	case at.Next <= p.Nonce && p.Kind != actionOpen:
		return fmt.Sprintf("the account's next nonce is %d, the request used %d", at.Next, p.Nonce)
	case at.Known && (at.Code != p.Code || at.LogIndex != p.LogIndex):
		return fmt.Sprintf("it is %s at LogIndex %d there, acknowledged was %s at %d", at.Code, at.LogIndex, p.Code, p.LogIndex)
	case !at.Known && at.Recent:
		return "it is not among the account's last requests"
	}
	return ""
}

// moved is coins that left a vault, read from a chain.
type moved struct {
	Chain, TxID, To string
	Amount          *big.Int
}

// judgePayments compares what left the vaults with what was asked for. A request's destination is its own, so a second
// payment to one is a double payment, whatever the ledger calls it; a payment to nobody's destination, or of more than
// was asked for, is an unowed one and counts alike.
func judgePayments(paid []moved, asked []posted) (breaches []string) {
	owed := map[string]posted{}
	for _, p := range asked {
		if p.To != "" {
			owed[p.To] = p
		}
	}
	first := map[string]string{}
	for _, m := range paid {
		p, known := owed[m.To]
		switch was, again := first[m.To]; {
		case !known:
			breaches = append(breaches, fmt.Sprintf("%s pays %s to %s, which no request names", m.TxID, m.Amount, m.To))
		case again:
			breaches = append(breaches, fmt.Sprintf("%s is paid in %s and again in %s", m.To, was, m.TxID))
		case m.Amount.Cmp(p.Gross) > 0:
			breaches = append(breaches, fmt.Sprintf("%s pays %s to %s, asked for were %s", m.TxID, m.Amount, m.To, p.Gross))
		case p.acked() && p.Code != "OK":
			breaches = append(breaches, fmt.Sprintf("%s pays %s to %s, the request was refused with %s", m.TxID, m.Amount, m.To, p.Code))
		}
		first[m.To] = m.TxID
	}
	return breaches
}

// heads are the hash chain's heads by height, as nodes showed them.
type heads struct {
	at       map[uint64]string
	by       map[uint64]string
	compared int // heights that more than one node showed
	breaches []string
}

func newHeads() *heads { return &heads{at: map[uint64]string{}, by: map[uint64]string{}} }

// saw notes a head; two nodes, or one node at two times, must agree about a height.
func (h *heads) saw(node string, height uint64, head string) {
	was, known := h.at[height]
	switch {
	case !known:
		h.at[height], h.by[height] = head, node
	case was != head:
		h.breaches = append(h.breaches, fmt.Sprintf("height %d: %s at %s, %s at %s", height, h.by[height], was, node, head))
	case h.by[height] != node:
		h.compared++
	}
}

// nonceOp is one operation on the register that an account's next nonce is: a request takes it from n to n+1, a
// linearizable read sees it.
type nonceOp struct {
	Account string
	Read    bool
	Nonce   uint64 // taken, or seen
	Unknown bool   // never answered: it may have counted, or not
}

var nonceModel = porcupine.Model{
	Partition: func(ops []porcupine.Operation) [][]porcupine.Operation {
		by := map[string][]porcupine.Operation{}
		var names []string
		for _, o := range ops {
			a := o.Input.(nonceOp).Account
			if by[a] == nil {
				names = append(names, a)
			}
			by[a] = append(by[a], o)
		}
		slices.Sort(names)
		var out [][]porcupine.Operation
		for _, n := range names {
			out = append(out, by[n])
		}
		return out
	},
	Init: func() any { return uint64(1) }, // opening the account used 0
	Step: func(state, input, _ any) (bool, any) {
		n, op := state.(uint64), input.(nonceOp)
		switch {
		case op.Read:
			return op.Nonce == n, n
		case op.Nonce == n:
			return true, n + 1
		}
		return op.Unknown, n // unanswered, and it came to nothing
	},
	Equal: func(a, b any) bool { return a == b },
}

// readDone is one linearizable read.
type readDone struct {
	Account   string
	Nonce     uint64
	Call, Ret time.Time
}

const checkFor = time.Minute

// linearizable asks porcupine. An unanswered request ends after everything else.
func linearizable(reqs []posted, reads []readDone) porcupine.CheckResult {
	var ops []porcupine.Operation
	var end int64
	for _, r := range reads {
		end = max(end, r.Ret.UnixNano())
	}
	for _, p := range reqs {
		end = max(end, p.Ret.UnixNano(), p.Call.UnixNano())
	}
	client := map[string]int{}
	id := func(name string) int {
		if _, ok := client[name]; !ok {
			client[name] = len(client)
		}
		return client[name]
	}
	for _, p := range reqs {
		if p.Kind == actionOpen {
			continue
		}
		o := porcupine.Operation{ClientId: id("w" + p.Account), Input: nonceOp{Account: p.Account, Nonce: p.Nonce}, Call: p.Call.UnixNano(), Return: p.Ret.UnixNano()}
		if !p.acked() {
			o.Input, o.Return = nonceOp{Account: p.Account, Nonce: p.Nonce, Unknown: true}, end+1
		}
		ops = append(ops, o)
	}
	for _, r := range reads {
		ops = append(ops, porcupine.Operation{ClientId: id("r" + r.Account), Input: nonceOp{Account: r.Account, Read: true, Nonce: r.Nonce}, Call: r.Call.UnixNano(), Return: r.Ret.UnixNano()})
	}
	return porcupine.CheckOperationsTimeout(nonceModel, ops, checkFor)
}

// ChaosReport is the verdict (spec: consensus §13).
type ChaosReport struct {
	OK                   bool           `json:"ok"`
	Faults               map[string]int `json:"faults"`
	Acknowledged         int            `json:"acknowledged"`
	AcknowledgedLost     int            `json:"acknowledged_lost"`
	DoublePayments       int            `json:"double_payments"` // unowed ones too
	HeadDivergence       int            `json:"head_divergence"`
	Solvent              bool           `json:"solvent"`
	LeaderKillMS         Spread         `json:"leader_kill_ms"` // to the next acknowledged request; 0: no leader was killed
	SignCompletedPercent float64        `json:"sign_completed_percent"`
	Linearizable         bool           `json:"linearizable"`
	Leaks                int            `json:"leaks"`
	SignP99Seconds       float64        `json:"sign_p99_seconds"`
	Detail               ChaosDetail    `json:"detail"`
}

// Spread is of milliseconds.
type Spread struct {
	P50 float64 `json:"p50"`
	Max float64 `json:"max"`
}

// ChaosDetail is what the verdict rests on.
type ChaosDetail struct {
	Seed         uint64                 `json:"seed"`
	Version      string                 `json:"version"`
	N            int                    `json:"n"`
	F            int                    `json:"f"`
	M            int                    `json:"m"`
	Q            int                    `json:"q"`
	Seconds      float64                `json:"seconds"`
	RaftMillis   int                    `json:"raft_millis"`
	Judged       bool                   `json:"times_judged"`
	Faults       []faultDone            `json:"faults"`
	HandoverMS   Spread                 `json:"handover_ms"` // from a leader's SIGTERM to the next acknowledged request; 0: there was none
	LongestQuiet float64                `json:"longest_without_fault_seconds"`
	Skipped      map[string]string      `json:"skipped"`
	Sent         int                    `json:"sent"`
	PerSecond    float64                `json:"sent_per_second"`
	ByAction     map[string]int         `json:"by_action"`
	Refused      map[string]int         `json:"refused"`
	Ambiguous    int                    `json:"ambiguous"`
	Retried      int                    `json:"retried"`
	Reads        int                    `json:"linearizable_reads"`
	History      string                 `json:"history"`      // Ok, Illegal, Unknown
	Unremembered int                    `json:"unremembered"` // texts older than sixteen that a node's own history lacks
	Outflows     map[string]int         `json:"outflows"`     // by state
	Compared     int                    `json:"heads_compared"`
	Custody      map[string]string      `json:"custody"`     // by pool, read from the chains
	Liabilities  map[string]string      `json:"liabilities"` // likewise, of the ledger
	Processes    map[string]processSize `json:"processes"`
	Breaches     []string               `json:"breaches"`
}

// processSize of a node at the begin and at the end.
type processSize struct {
	FDs    [2]int     `json:"fds"`
	RSSMiB [2]float64 `json:"rss_mib"`
}

// Goals of spec consensus §13.
const (
	goalLeaderP50 = 1000.0 // ms
	goalLeaderMax = 2000.0
	goalSign      = 100.0 // %
	goalHandover  = 250.0 // ms, p50
)

// verdict fills OK: the conjunction of the goals; times only where they are judged.
func (r *ChaosReport) verdict() {
	quick := r.LeaderKillMS.P50 <= goalLeaderP50 && r.LeaderKillMS.Max <= goalLeaderMax && r.Detail.HandoverMS.P50 <= goalHandover
	r.OK = r.AcknowledgedLost == 0 && r.DoublePayments == 0 && r.HeadDivergence == 0 && r.Solvent && r.Linearizable && r.Leaks == 0 &&
		r.SignCompletedPercent >= goalSign && len(r.Detail.Breaches) == 0 && r.Acknowledged > 0 && (quick || !r.Detail.Judged)
}
