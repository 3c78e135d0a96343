package main

import (
	"strconv"

	"github.com/coffer-network/coffer/node/api/client"
	"github.com/spf13/cobra"
)

// What operators propose about members (spec: committee §3 and §9).

// seatCmd is a command that proposes a change of the committee. The flags of row
// name another m, f or FactQuorum; what is not given stays as it is.
func seatCmd(cmd *cobra.Command, kind string, row bool, read func(*client.Seats, []string) error) *cobra.Command {
	var s client.Seats
	var m, f, facts int
	c := proposeCmd(cmd, false, func(_ string, a []string) (client.Proposal, error) {
		if err := read(&s, a); err != nil {
			return client.Proposal{}, err
		}
		for _, x := range []struct {
			flag  string
			value *int
			to    func(*client.Row)
		}{
			{"m", &m, func(r *client.Row) { r.M = &m }},
			{"f", &f, func(r *client.Row) { r.F = &f }},
			{"fact-quorum", &facts, func(r *client.Row) { r.FactQuorum = &facts }},
		} {
			if !cmd.Flags().Changed(x.flag) {
				continue
			}
			if *x.value < 0 {
				return client.Proposal{}, usagef("--%s %d: want 0 or more", x.flag, *x.value)
			}
			if s.Row == nil {
				s.Row = &client.Row{}
			}
			x.to(s.Row)
		}
		return client.Proposal{Kind: kind, Seats: &s}, nil
	})
	if row {
		c.Flags().IntVar(&m, "m", 0, "how many members must sign after it; default: as now")
		c.Flags().IntVar(&f, "f", 0, "how many may be traitors after it; default: as now")
		c.Flags().IntVar(&facts, "fact-quorum", 0, "how many must say the same for a fact to count; default: as now, or as many as the smaller committee has")
	}
	return c
}

// newcomer gives cmd the flags that describe a node.
func newcomer(cmd *cobra.Command, in *client.Newcomer) *cobra.Command {
	f := cmd.Flags()
	f.StringVar(&in.Name, "name", "", "the node's name, for people")
	f.StringVar(&in.Operator, "operator", "", "who runs it: one seat each")
	f.StringVar(&in.Addr, "addr", "", "where peers reach it first, a multiaddr")
	return cmd
}

func described(in *client.Newcomer, id string) error {
	switch in.ID = id; {
	case in.Name == "":
		return usagef("--name: say what the node is called")
	case in.Operator == "":
		return usagef("--operator: say who runs it")
	}
	return nil
}

func newVoteAdmitCmd() *cobra.Command {
	var in client.Newcomer
	return newcomer(seatCmd(&cobra.Command{
		Use: "admit ID", Short: "Propose to give a new node a seat",
		Long: `ID is what coffer node init printed on the new machine. Agreed, the node follows the
log and holds nothing until its first quarantine is over and its clock is heard;
then every key is dealt anew and it gets key shares. Addresses stay. One newcomer
at a time. With another m, say so: coffer votes shows how many of how many must
sign after it.`,
		Example: "  coffer vote admit 3b1f… --name node-5 --operator Eve --addr /ip4/10.0.0.5/tcp/7100 --m 4 --text 'Eve joins' --dir ./n1",
		Args:    args(cobra.ExactArgs(1)),
	}, "admit", true, func(s *client.Seats, a []string) error {
		s.In = &in
		return described(&in, a[0])
	}), &in)
}

func newVoteReplaceCmd() *cobra.Command {
	var in client.Newcomer
	var urgent bool
	cmd := newcomer(seatCmd(&cobra.Command{
		Use: "replace MEMBER ID", Short: "Propose to put a new node in a member's place",
		Long: `MEMBER is the name or id of who goes, ID what coffer node init printed on the new
machine. The member that goes is not needed: m others deal. n stays as it is.
--urgent skips the first quarantine, for a seat that is dead now; its second one,
with caps at a quarter, stays.`,
		Example: "  coffer vote replace node-4 3b1f… --name node-4b --operator Dan --urgent --text 'disk lost' --dir ./n1",
		Args:    args(cobra.ExactArgs(2)),
	}, "replace", true, func(s *client.Seats, a []string) error {
		s.In, s.Out, s.Urgent = &in, a[0], urgent
		return described(&in, a[1])
	}), &in)
	cmd.Flags().BoolVar(&urgent, "urgent", false, "without the first quarantine")
	return cmd
}

func newVoteEvictCmd() *cobra.Command {
	return seatCmd(&cobra.Command{
		Use: "evict MEMBER", Short: "Propose that a member loses its seat, or an admitted node its place",
		Long: `MEMBER is a name or an id. Its own vote does not count, and it takes no part in the
dealing. There is no rollback after an eviction, and key shares of the epoch
before are wiped as soon as the new ones have signed.`,
		Example: "  coffer vote evict node-4 --text 'signed two reports of one round' --dir ./n1",
		Args:    args(cobra.ExactArgs(1)),
	}, "evict", true, func(s *client.Seats, a []string) error {
		s.Out = a[0]
		return nil
	})
}

func newVoteRefreshCmd() *cobra.Command {
	return seatCmd(&cobra.Command{
		Use: "refresh", Short: "Propose to deal every key anew to the same members",
		Long: `New key shares for the same members, or for the same with another m, f or
FactQuorum. Due every 30 days, after an eviction, after a restore and on any
suspicion. Addresses stay.`,
		Example: "  coffer vote refresh --text 'monthly' --dir ./n1\n  coffer vote refresh --m 4 --text 'four must sign' --dir ./n1",
		Args:    args(cobra.NoArgs),
	}, "refresh", true, func(*client.Seats, []string) error { return nil })
}

func newVoteAbortCmd() *cobra.Command {
	return seatCmd(&cobra.Command{
		Use: "abort [EPOCH]", Short: "Propose to drop the epoch that is being prepared",
		Long: `The present epoch stays and goes on signing; the number is used up. Who was to come in
stays admitted and needs another vote. Not once the epoch is opened: its flip may
be certified already. EPOCH defaults to the one that your node shows.`,
		Example: "  coffer vote abort --text 'node-5 is gone' --dir ./n1",
		Args:    args(cobra.MaximumNArgs(1)),
	}, "abort", false, epochArg)
}

func newVoteRollbackCmd() *cobra.Command {
	return seatCmd(&cobra.Command{
		Use: "rollback [EPOCH]", Short: "Propose to go back to the members and key shares of the epoch before",
		Long: `For a new epoch that cannot sign: within a day of its coming into force, not after an
eviction. A refresh must follow. EPOCH defaults to the one before.`,
		Example: "  coffer vote rollback --text 'the new key shares do not sign' --dir ./n1",
		Args:    args(cobra.MaximumNArgs(1)),
	}, "rollback", false, epochArg)
}

func epochArg(s *client.Seats, a []string) error {
	if len(a) == 0 {
		return nil
	}
	n, err := strconv.ParseUint(a[0], 10, 64)
	if err != nil || n == 0 {
		return usagef("epoch %q: want a number", a[0])
	}
	s.Epoch = n
	return nil
}
