package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/coffer-network/coffer/node/api/client"
	"github.com/spf13/cobra"
)

// controlCmd gives cmd the flags of an operator's command and runs it against
// the control socket of his own node.
func controlCmd(cmd *cobra.Command, do func(ctx context.Context, s *session, c *client.Control, args []string) error) *cobra.Command {
	s := &session{cmd: cmd}
	f := cmd.Flags()
	f.StringVar(&s.dir, "dir", ".", "directory of the running node that speaks")
	f.BoolVar(&s.json, "json", false, "print one JSON document")
	f.DurationVar(&s.timeout, "timeout", time.Minute, "how long to wait in all")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		if s.timeout <= 0 {
			return usagef("--timeout %s: want more than 0", s.timeout)
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), s.timeout)
		defer cancel()
		return later(do(ctx, s, client.NewControl(s.dir), a))
	}
	return cmd
}

func newVoteCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "vote", Short: "Have your node propose, or vote on what is proposed",
		Long: `Your running node signs and submits what you say, over control.sock in its
directory, which only its owner can open. Every proposal has a public text and,
but for what stops something, a delay in which users can leave: coffer votes
shows what is open, who agreed and when it takes effect.`,
		Example: "  coffer vote param ltv=7400 --pool btc --text 'thin order books' --dir ./n1\n  coffer vote yes 3b1f0c52 --dir ./n2",
		Args:    args(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newVoteParamCmd(), newVoteFlagCmd(), newVoteSocialiseCmd(), newVoteSchemeCmd(),
		newVoteHaltCmd(), newVoteUnhaltCmd(), newVoteResumeCmd(),
		newVoteAdmitCmd(), newVoteReplaceCmd(), newVoteEvictCmd(), newVoteRefreshCmd(), newVoteAbortCmd(), newVoteRollbackCmd(),
		newVoteHoldCmd(), newVoteCancelCmd(), newVoteTopUpCmd(), newVoteFloatCmd(), newVoteBookCmd(), newVoteYesCmd(true), newVoteYesCmd(false))
	return cmd
}

// proposeCmd is a command that brings a proposal: read makes it of flags and
// arguments.
func proposeCmd(cmd *cobra.Command, pooled bool, read func(pool string, args []string) (client.Proposal, error)) *cobra.Command {
	var text, pool string
	controlCmd(cmd, func(ctx context.Context, s *session, c *client.Control, a []string) error {
		p, err := read(pool, a)
		if err != nil {
			return err
		}
		if text == "" {
			return usagef("--text: say why, for everyone to read")
		}
		p.Text = text
		said, err := c.Propose(ctx, p)
		if err != nil {
			return err
		}
		return s.showSaid(said)
	})
	cmd.Flags().StringVar(&text, "text", "", "why: public, and part of what is voted")
	if pooled {
		cmd.Flags().StringVar(&pool, "pool", "", "of this pool; default: of the whole cluster")
	}
	return cmd
}

func newVoteParamCmd() *cobra.Command {
	return proposeCmd(&cobra.Command{
		Use: "param NAME=VALUE...", Short: "Propose other parameters, together",
		Long: `Proposes other values for parameters of one pool, or of the whole cluster. Values
are in bps, base units or seconds, as coffer votes --settings shows them. Caps
down wait for nothing; caps, ratios, rates and fees two days; LTV and lt down
seven, and then fall by 100 bps a day.`,
		Example: "  coffer vote param ltv=7400 lt=7900 --pool btc --text 'thin order books' --dir ./n1\n  coffer vote param price_max_age=90 --text 'rounds are reliable' --dir ./n1",
		Args:    args(cobra.MinimumNArgs(1)),
	}, true, func(pool string, a []string) (client.Proposal, error) {
		p := client.Proposal{Kind: "set"}
		for _, x := range a {
			name, value, ok := strings.Cut(x, "=")
			if !ok || name == "" {
				return p, usagef("%q: want NAME=VALUE", x)
			}
			p.Changes = append(p.Changes, client.Setting{Pool: pool, Name: name, Value: value})
		}
		return p, nil
	})
}

func newVoteFlagCmd() *cobra.Command {
	return proposeCmd(&cobra.Command{
		Use: "flag paused|frozen|borrow-off on|off", Short: "Propose to stop something, or to let it go on",
		Long: `Stopping needs FactQuorum and takes effect at once; letting it go on needs Q and
waits an hour. paused and frozen are of a pool; borrow-off of a pool or of all.`,
		Example: "  coffer vote flag frozen on --pool btc --text 'price feeds disagree' --dir ./n1\n  coffer vote flag borrow-off off --text 'over' --dir ./n1",
		Args:    args(cobra.ExactArgs(2)),
	}, true, func(pool string, a []string) (client.Proposal, error) {
		kind, err := onOff(a[1], "stop", "lift")
		return client.Proposal{Kind: kind, Pool: pool, Flag: a[0]}, err
	})
}

func newVoteSocialiseCmd() *cobra.Command {
	return proposeCmd(&cobra.Command{
		Use: "socialise POOL", Short: "Propose that a pool's suppliers bear its deficit",
		Long:    "Members agree twice, a day apart; a day after that the deficit is taken from every supplier alike.",
		Example: "  coffer vote socialise btc --text 'nothing else is left' --dir ./n1",
		Args:    args(cobra.ExactArgs(1)),
	}, false, func(_ string, a []string) (client.Proposal, error) {
		return client.Proposal{Kind: "socialise", Pool: a[0]}, nil
	})
}

func newVoteSchemeCmd() *cobra.Command {
	return proposeCmd(&cobra.Command{
		Use: "scheme eip712 on|off", Short: "Propose to enable or disable an optional way of signing",
		Example: "  coffer vote scheme eip712 on --text 'wallets ask for it' --dir ./n1",
		Args:    args(cobra.ExactArgs(2)),
	}, false, func(_ string, a []string) (client.Proposal, error) {
		value, err := onOff(a[1], "true", "false")
		return client.Proposal{Kind: "set", Changes: []client.Setting{{Name: a[0], Value: value}}}, err
	})
}

func newVoteHaltCmd() *cobra.Command {
	return proposeCmd(&cobra.Command{
		Use: "halt", Short: "Propose to halt all outflows, or those of one asset, until a vote lifts it",
		Example: "  coffer vote halt --text 'a spend nobody planned' --dir ./n1\n  coffer vote halt --pool usdt.eth --text 'its issuer froze the vault' --dir ./n1",
		Args:    args(cobra.NoArgs),
	}, true, func(pool string, _ []string) (client.Proposal, error) {
		return client.Proposal{Kind: "stop", Flag: "halt", Pool: pool}, nil
	})
}

func newVoteUnhaltCmd() *cobra.Command {
	return proposeCmd(&cobra.Command{
		Use: "unhalt", Short: "Propose to lift the halt that your node shows now, and no later one",
		Long: `Lifts the halt of all outflows, or with --pool that of one asset, also one that is
no pool, as eth. Of an asset nothing is signed before the next attested balance
covers its books; one that does not halts it again.`,
		Example: "  coffer vote unhalt --text 'explained: see the incident report' --dir ./n1\n  coffer vote unhalt --pool btc --text 'the coins were brought back' --dir ./n1",
		Args:    args(cobra.NoArgs),
	}, true, func(pool string, _ []string) (client.Proposal, error) {
		return client.Proposal{Kind: "lift", Flag: "halt", Pool: pool}, nil
	})
}

func newVoteResumeCmd() *cobra.Command {
	return proposeCmd(&cobra.Command{
		Use: "resume", Short: "Propose to end other members' pauses",
		Example: "  coffer vote resume --text 'a false alarm' --dir ./n1",
		Args:    args(cobra.NoArgs),
	}, false, func(string, []string) (client.Proposal, error) {
		return client.Proposal{Kind: "resume"}, nil
	})
}

func newVoteYesCmd(yes bool) *cobra.Command {
	word, short := "yes", "Agree to an open proposal"
	if !yes {
		word, short = "no", "Take a vote back, or say no, before it counts"
	}
	return controlCmd(&cobra.Command{
		Use: word + " HASH", Short: short,
		Long:    short + ". HASH is the proposal's, or its first digits.",
		Example: "  coffer vote " + word + " 3b1f0c52 --dir ./n2",
		Args:    args(cobra.ExactArgs(1)),
	}, func(ctx context.Context, s *session, c *client.Control, a []string) error {
		said, err := c.Vote(ctx, a[0], yes)
		if err != nil {
			return err
		}
		return s.showSaid(said)
	})
}

func newPauseCmd() *cobra.Command {
	var span time.Duration
	cmd := controlCmd(&cobra.Command{
		Use: "pause", Short: "Pause all outflows at once, as one operator alone may",
		Long: `Stops new plans and signing sessions, for an hour at most and twice a day. Deposits,
repayments and the tracking of what is under way go on. What must last longer is
coffer vote halt.`,
		Example: "  coffer pause --for 30m --dir ./n1",
		Args:    args(cobra.NoArgs),
	}, func(ctx context.Context, s *session, c *client.Control, _ []string) error {
		said, err := c.Pause(ctx, span)
		if err != nil {
			return err
		}
		return s.showSaid(said)
	})
	cmd.Flags().DurationVar(&span, "for", 30*time.Minute, "how long, 1s to 1h")
	return cmd
}

func newResumeCmd() *cobra.Command {
	return controlCmd(&cobra.Command{
		Use: "resume", Short: "End your own pause before its time",
		Example: "  coffer resume --dir ./n1",
		Args:    args(cobra.NoArgs),
	}, func(ctx context.Context, s *session, c *client.Control, _ []string) error {
		said, err := c.Resume(ctx)
		if err != nil {
			return err
		}
		return s.showSaid(said)
	})
}

func newWeighCmd() *cobra.Command {
	return controlCmd(&cobra.Command{
		Use: "weigh ASSET", Short: "Have an asset's custody weighed against the books now, not at the next minute",
		Example: "  coffer weigh usdt.eth --dir ./n1\n  coffer status",
		Args:    args(cobra.ExactArgs(1)),
	}, func(ctx context.Context, s *session, c *client.Control, a []string) error {
		said, err := c.Weigh(ctx, a[0])
		if err != nil {
			return err
		}
		return s.showSaid(said)
	})
}

func onOff(word, on, off string) (string, error) {
	switch word {
	case "on":
		return on, nil
	case "off":
		return off, nil
	}
	return "", usagef("%q: want on or off", word)
}

func (s *session) showSaid(r *client.Said) error {
	return s.show(r, func(p *printer) {
		if r.Hash != "" {
			p.row("proposal", r.Hash)
		}
		p.row("said", fmt.Sprintf("at LogIndex %d", r.LogIndex))
	})
}

func newVotesCmd() *cobra.Command {
	var settings bool
	cmd := clientCmd(&cobra.Command{
		Use: "votes", Short: "What members propose: what changes, who agreed, when it takes effect",
		Example: "  coffer votes\n  coffer votes --settings --json",
		Args:    args(cobra.NoArgs),
	}, false, func(ctx context.Context, s *session, _ []string) error {
		c, err := s.client(nil)
		if err != nil {
			return err
		}
		v, err := c.Votes(ctx)
		if err != nil {
			return err
		}
		return s.show(v, func(p *printer) {
			if settings {
				settingRows(p, v)
				return
			}
			voteRows(p, v)
		})
	})
	cmd.Flags().BoolVar(&settings, "settings", false, "show the parameters in force, by the names that proposals use")
	return cmd
}

func settingRows(p *printer, v *client.Votes) {
	p.row("POOL", "PARAMETER", "VALUE")
	for _, x := range v.Settings {
		p.row(orDash(x.Pool), x.Name, orDash(x.Value))
	}
}

func voteRows(p *printer, v *client.Votes) {
	if v.Paused != nil {
		p.row("outflows paused", fmt.Sprintf("by %s until %s", v.Paused.By, v.Paused.Until.Format(time.RFC3339)))
	}
	if len(v.Proposals) == 0 {
		p.row("open proposals", "none")
	}
	for _, b := range v.Proposals {
		p.row("proposal", fmt.Sprintf("%s by %s: %s", b.Hash, b.By, b.Proposal.Text))
		for _, e := range b.Effects {
			p.row("  changes", e)
		}
		p.row("  state", b.State)
		p.row("  yes", fmt.Sprintf("%d of %d: %s", len(b.Yes), b.Needs, orDash(strings.Join(b.Yes, ", "))))
		if len(b.No) > 0 {
			p.row("  no", strings.Join(b.No, ", "))
		}
		switch {
		case b.Effective != nil:
			p.row("  takes effect", b.Effective.Format(time.RFC3339))
		case b.SecondFrom != nil:
			p.row("  second vote from", b.SecondFrom.Format(time.RFC3339))
		default:
			p.row("  waits", (time.Duration(b.DelaySeconds)*time.Second).String()+" once agreed")
		}
		if b.Expires != nil {
			p.row("  expires", b.Expires.Format(time.RFC3339))
		}
	}
	for _, d := range v.Decided {
		how := d.State
		if d.Code != "" {
			how += " (" + d.Code + ")"
		}
		p.row("decided", fmt.Sprintf("%.8s %s at %s: %s", d.Hash, how, d.Time.Format(time.RFC3339), d.Proposal.Text))
	}
}
