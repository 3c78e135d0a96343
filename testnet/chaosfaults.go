package testnet

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// Kinds of faults, as they are counted in the report.
const (
	faultKill      = "kill"      // SIGKILL, then started again
	faultStop      = "stop"      // SIGSTOP, then SIGCONT
	faultRestart   = "restart"   // SIGTERM, then started again
	faultHandover  = "handover"  // SIGTERM of the leader, which hands over, then started again
	faultPartition = "partition" // cut off from its peers, not from clients and chains
	faultDiskFull  = "disk-full" // nothing left on its file system
	faultTraitor   = "traitor"   // started again as one that lies, then killed
)

// faultEvery is from the begin of one fault to that of the next: less than the five seconds promised, for one may have
// to wait until the node of the last is back.
const faultEvery = 4 * time.Second

// fault is one that is planned.
type fault struct {
	At     time.Duration // since the begin of the load
	Kind   string
	Leader bool // hits who leads then
	Target int  // else: which of the others, counted from the seed's choice
	For    time.Duration
}

// planFaults is the whole run's faults: the same for the same seed, duration, kinds and number of nodes. Each kind comes
// once before any comes again, and a leader is killed as often as somebody else.
func planFaults(seed uint64, d time.Duration, kinds []string, nodes int) []fault {
	r := rand.New(rand.NewPCG(seed, 0x636f66666572))
	deck := func() []fault {
		fs := []fault{{Kind: faultKill, Leader: true}}
		for _, k := range kinds {
			fs = append(fs, fault{Kind: k, Leader: k == faultHandover || k == faultStop && r.IntN(2) == 0})
		}
		r.Shuffle(len(fs), func(i, j int) { fs[i], fs[j] = fs[j], fs[i] })
		return fs
	}
	var plan, left []fault
	for at := faultEvery / 2; at+faultEvery <= d; at += faultEvery {
		if len(left) == 0 {
			left = deck()
		}
		f := left[0]
		left = left[1:]
		f.At, f.Target = at, r.IntN(nodes)
		f.For = time.Second + time.Duration(r.Int64N(int64(time.Second)))
		if f.Kind == faultTraitor {
			f.For = 2 * time.Second // blocks of both chains come meanwhile, to lie about
		}
		plan = append(plan, f)
	}
	return plan
}

// postpone makes the first fault of plan one that may hit whoever was hit last: one that is meant for the leader, or for
// the one node with a disk of its own, changes places with the next that is not, or is a kill where none follows.
func postpone(plan []fault) {
	meant := func(f fault) bool { return f.Leader || f.Kind == faultDiskFull }
	if !meant(plan[0]) {
		return
	}
	j := slices.IndexFunc(plan, func(f fault) bool { return !meant(f) })
	if j < 0 {
		plan[0].Kind, plan[0].Leader = faultKill, false
		return
	}
	a, b := &plan[0], &plan[j]
	a.Kind, a.Leader, a.For, b.Kind, b.Leader, b.For = b.Kind, b.Leader, b.For, a.Kind, a.Leader, a.For
}

// shortest is how long a run must be for every kind to come once.
func shortest(kinds []string) time.Duration {
	return time.Duration(len(kinds)+2) * faultEvery
}

// splitKinds says which kinds a machine permits, and why not the others.
func splitKinds(missing map[string]string) (kinds []string) {
	for _, k := range []string{faultKill, faultStop, faultRestart, faultHandover, faultPartition, faultDiskFull, faultTraitor} {
		if missing[k] == "" {
			kinds = append(kinds, k)
		}
	}
	return kinds
}

// faultDone is what became of one, for the report.
type faultDone struct {
	Kind      string  `json:"kind"`
	Target    string  `json:"target"`
	WasLeader bool    `json:"was_leader"`
	Start     float64 `json:"start"` // seconds since the begin of the load
	End       float64 `json:"end"`   // the node answers again
	// Gap is from the fault to the first request acknowledged of those posted after it, in ms; -1: none was.
	Gap int64 `json:"first_ok_ms"`

	begun time.Time
}

func (f faultDone) String() string {
	who := f.Target
	if f.WasLeader {
		who += " (leader)"
	}
	return fmt.Sprintf("%6.1fs %-9s %s", f.Start, f.Kind, who)
}

// longestQuiet is the longest time without a new fault, from the first to the last.
func longestQuiet(fs []faultDone) (most float64) {
	for i := 1; i < len(fs); i++ {
		most = max(most, fs[i].Start-fs[i-1].Start)
	}
	return most
}

// percentile of unsorted values by nearest rank; 0 of none.
func percentile(vs []float64, p float64) float64 {
	if len(vs) == 0 {
		return 0
	}
	vs = slices.Sorted(slices.Values(vs))
	i := int(p*float64(len(vs))+0.999999) - 1
	return vs[min(max(i, 0), len(vs)-1)]
}
