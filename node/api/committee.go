package api

import (
	"fmt"
	"slices"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node/api/client"
)

// How the committee is changing, for the status (spec: committee §10).

func (v view) seating() []client.Seat {
	out := []client.Seat{}
	for _, o := range v.Seating() {
		out = append(out, client.Seat{
			Member: o.Member.ID.String(), Name: o.Member.Name, State: string(o.State), Until: atOrNil(o.Until), Epoch: o.Epoch,
		})
	}
	return out
}

func (v view) pendingChanges() []client.PendingChange {
	out := []client.PendingChange{}
	for _, c := range v.Changes {
		x := client.PendingChange{
			Kind: c.Kind.String(), After: rowWords(c.Row), Since: at(c.Since), Why: v.WhyWaits(c), For: v.names(v.WaitsFor(c)),
		}
		if c.In != nil {
			x.In = c.In.Name
		}
		if c.Out != (ledger.MemberID{}) {
			x.Out = v.name(c.Out)
		}
		switch {
		case x.Why == "" && v.Next != nil:
			x.Why = fmt.Sprintf("epoch %d is being prepared: one at a time", v.Next.Epoch.Number)
		case x.Why == "" && v.Catching:
			x.Why = "ledger time is catching up"
		}
		out = append(out, x)
	}
	return out
}

func (v view) nextEpoch() *client.NextEpoch {
	n := v.Next
	if n == nil {
		return nil
	}
	out := &client.NextEpoch{
		Number: n.Epoch.Number, Kind: "keygen", After: rowWords(n.Epoch.Row()), Began: atOrNil(n.Began), Deadline: atOrNil(n.Deadline), Opened: v.Opening != nil,
		Keys: []client.NextKey{},
	}
	if n.Change != nil {
		out.Kind = n.Change.Kind.String()
	}
	for _, k := range n.Keys {
		out.Keys = append(out.Keys, v.nextKey(n, k))
	}
	missing := NotReady(v.State)
	switch {
	case v.Opening != nil:
		e := v.Epoch()
		out.Deadline = nil // an opened epoch is not dropped
		out.Why = fmt.Sprintf("%d of the %d members of epoch %d must certify height %d", e.Q(), e.N(), e.Number, v.Opening.Height)
	case len(missing) > 0:
		out.Why = fmt.Sprintf("%d of %d members have not said that they are ready", len(missing), n.Epoch.N())
	default:
		out.Why = "nobody: it is about to be opened"
	}
	return out
}

// NotReady names the members of the epoch that is being prepared that have not said
// all that it needs of them, in the order of their seats.
func NotReady(s *ledger.State) []string {
	v, out := view{s}, []string{}
	if v.Next == nil {
		return out
	}
	for _, m := range v.Next.Epoch.Members {
		late := func(k ledger.NextKey) bool { return slices.Contains(v.nextKey(v.Next, k).Missing, m.Name) }
		if slices.ContainsFunc(v.Next.Keys, late) {
			out = append(out, m.Name)
		}
	}
	return out
}

func (v view) nextKey(n *ledger.NextEpoch, k ledger.NextKey) client.NextKey {
	x := client.NextKey{Key: k.Key, Stage: "key shares", Try: k.Try, Ready: v.names(k.Ready), Missing: []string{}, Blamed: v.names(k.Blamed)}
	if n.Kind == ledger.NextRollback {
		x.Stage = "done" // that generation signed before
		return x
	}
	if n.Kind == ledger.NextReshare {
		x.Tries = ledger.MaxReshareTries
	}
	if b, ok := v.Batches.Get(k.Batch); ok && !b.Done {
		x.Deadline = atOrNil(b.Newest().Deadline)
	}
	done := 0
	late := func(m ledger.MemberID) bool { return !slices.Contains(k.Ready, m) }
	if len(k.Tests) > 0 {
		x.Stage = "test signatures"
		late = func(m ledger.MemberID) bool {
			return slices.ContainsFunc(k.Tested, func(t ledger.TestSeen) bool { return !slices.Contains(t.Members, m) })
		}
		for _, t := range k.Tested {
			if len(t.Members) == n.Epoch.N() {
				done++
			}
		}
		x.Tests = fmt.Sprintf("%d of %d", done, len(k.Tests))
	}
	for _, m := range n.Epoch.Members {
		if late(m.ID) {
			x.Missing = append(x.Missing, m.Name)
		}
	}
	if len(k.Tests) > 0 && len(x.Missing) == 0 {
		x.Stage = "done"
	}
	return x
}

func (v view) droppedEpoch() *client.DroppedEpoch {
	if len(v.Dropped) == 0 {
		return nil
	}
	d := v.Dropped[len(v.Dropped)-1]
	if d.Epoch < v.Epoch().Number {
		return nil // a later one came into force
	}
	return &client.DroppedEpoch{Number: d.Epoch, Kind: d.Kind.String(), How: d.How, Time: at(d.Millis), Missing: v.names(d.Missing), Blamed: v.names(d.Blamed)}
}
