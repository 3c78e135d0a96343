package consensus

import (
	"fmt"
	"time"
)

// Limit is what a command met that was not accepted for want of room (spec:
// consensus §9). The numbers travel between nodes.
type Limit uint8

const (
	LimitCommands   Limit = iota + 1 // maxQueued
	LimitBytes                       // maxQueuedBytes
	LimitMember                      // memberQueued, memberBytes
	LimitUnapplied                   // maxUnapplied
	LimitForwarding                  // maxForwarding
	LimitDisk                        // Config.Room: free disk
	LimitSync                        // Config.Room: how long syncs of the log take
	LimitRaft                        // enqueueTimeout
)

// limits are named for the client, who is to come again after so long: a queue
// empties within a second, a sync counts for ten, and disk is freed by people.
var limits = [...]struct {
	name  string
	after time.Duration
}{
	{"a limit that this node does not know", time.Second}, // of a newer leader
	LimitCommands:   {fmt.Sprintf("%d commands of clients queued", maxQueued), time.Second},
	LimitBytes:      {fmt.Sprintf("%d MiB of clients' commands queued", maxQueuedBytes>>20), time.Second},
	LimitMember:     {fmt.Sprintf("%d attestations or %d MiB through one member queued", memberQueued, memberBytes>>20), time.Second},
	LimitUnapplied:  {fmt.Sprintf("%d entries ordered and not applied", maxUnapplied), time.Second},
	LimitForwarding: {fmt.Sprintf("%d commands and reads on their way to the leader", maxForwarding), time.Second},
	LimitDisk:       {"free disk", time.Minute},
	LimitSync:       {"how long the disk takes to write", 10 * time.Second},
	LimitRaft:       {"raft's own queue", time.Second},
}

// Overload is ErrOverloaded by the limit that was met.
type Overload struct {
	Limit  Limit
	Leader bool // the leader's, to whom this node forwarded the command
}

func (o *Overload) Error() string { return "overloaded: " + o.Met() }

// Is says that an Overload is ErrOverloaded.
func (o *Overload) Is(err error) bool { return err == ErrOverloaded }

// Met names the limit and whose it is, for the client.
func (o *Overload) Met() string {
	if o.Leader {
		return limits[o.known()].name + " (of the leader)"
	}
	return limits[o.known()].name
}

// After is when to come again.
func (o *Overload) After() time.Duration { return limits[o.known()].after }

func (o *Overload) known() Limit {
	if int(o.Limit) >= len(limits) {
		return 0
	}
	return o.Limit
}
