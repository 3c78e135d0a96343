package api

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/fixed"
	"github.com/coffer-network/coffer/node/api/client"
	"github.com/danielgtaylor/huma/v2"
)

func (s *server) votes(api huma.API) {
	route(s, api, "get-votes", "/v1/votes", "Proposals, who voted, when they take effect, what they change", s.voteList)
}

func (s *server) voteList(_ context.Context, v view, _ *ReadInput) (*client.Votes, error) {
	out := &client.Votes{ParamsVersion: v.ParamsVersion, Proposals: []client.Ballot{}, Decided: []client.Decided{}, Settings: []client.Setting{}}
	for key, b := range v.Ballots.All() {
		out.Proposals = append(out.Proposals, v.ballot(key, b))
	}
	slices.SortStableFunc(out.Proposals, func(a, b client.Ballot) int { return a.Opened.Compare(b.Opened) })
	for _, d := range v.Decided {
		x := client.Decided{
			Hash: d.Proposal.Hash().String(), Proposal: v.proposal(d.Proposal), By: v.name(d.By), Time: at(d.Millis), State: d.How,
		}
		if d.Code != ledger.OK {
			x.Code = string(d.Code)
		}
		out.Decided = append(out.Decided, x)
	}
	for _, p := range v.Settings() {
		out.Settings = append(out.Settings, client.Setting{Pool: p.Pool, Name: p.Name, Value: p.Value})
	}
	out.Paused = v.paused()
	return out, nil
}

// paused is who pauses all outflows now.
func (v view) paused() *client.Paused {
	by, until, paused := v.PausedBy()
	if !paused {
		return nil
	}
	return &client.Paused{By: v.name(by), Until: at(until)}
}

func (v view) ballot(key string, b ledger.Ballot) client.Ballot {
	t := v.Terms(b.Proposal)
	out := client.Ballot{
		Hash: key, Proposal: v.proposal(b.Proposal), By: v.name(b.By), Opened: at(b.Opened), State: "open",
		Yes: v.names(b.Yes), No: v.names(b.No), Needs: t.Quorum, DelaySeconds: t.DelayMillis / 1000,
		Effects: v.effects(b.Proposal), Expires: atOrNil(b.Opened + v.Params.ProposalSeconds*1000),
	}
	switch {
	case b.Stepping:
		out.State = "stepping"
	case b.Passed != 0:
		out.State = "waiting"
	case b.First != 0:
		out.State = "first passed"
		out.SecondFrom = atOrNil(b.First + v.Params.SocialiseSeconds*1000)
	}
	if b.Passed != 0 {
		out.Effective, out.Expires = atOrNil(b.Due), nil
	}
	return out
}

// Words of kinds and flags, in JSON and on the command line.
var (
	proposalWords = map[ledger.ProposalKind]string{
		ledger.ProposeSet: "set", ledger.ProposeStop: "stop", ledger.ProposeLift: "lift",
		ledger.ProposeSocialise: "socialise", ledger.ProposeResume: "resume",
		ledger.ProposeLeaveHold: "leave-hold", ledger.ProposeCancel: "cancel", ledger.ProposeTopUp: "top-up",
		ledger.ProposeGasFloat: "gas-float", ledger.ProposeBTCFloat: "btc-float", ledger.ProposeBook: "book",
		ledger.ProposeAdmit: "admit", ledger.ProposeReplace: "replace", ledger.ProposeEvict: "evict",
		ledger.ProposeRefresh: "refresh", ledger.ProposeAbort: "abort", ledger.ProposeRollback: "rollback",
	}
	flagWords = map[ledger.Flag]string{
		ledger.FlagPaused: "paused", ledger.FlagFrozen: "frozen", ledger.FlagBorrowOff: "borrow-off", ledger.FlagHalt: "halt",
	}
)

func wordOf[K comparable](words map[K]string, word string) (key K, ok bool) {
	for k, w := range words {
		if w == word {
			return k, true
		}
	}
	return key, false
}

func (v view) proposal(p ledger.Proposal) client.Proposal {
	out := client.Proposal{Kind: proposalWords[p.Kind], Text: p.Text, Pool: p.Pool, Flag: flagWords[p.Flag], Halt: p.Halt}
	for _, c := range p.Changes {
		out.Changes = append(out.Changes, client.Setting{Pool: c.Pool, Name: c.Name, Value: c.Value})
	}
	if a := p.Act; a != nil {
		out.Batch, out.Outflow, out.Outcome, out.Body, out.TxID, out.Height = a.Batch, a.Outflow, a.Outcome, a.Body, a.TxID, a.Height
		out.Fee, out.Amount, out.Coin, out.Address = unlessZero(a.Fee), unlessZero(a.Amount), a.Coin, a.Address
		out.Asset = a.Asset
	}
	if p.Seats != nil {
		out.Seats = v.seatsSaid(*p.Seats)
	}
	return out
}

func unlessZero(v fixed.Int) string {
	if v.IsZero() {
		return ""
	}
	return v.String()
}

// act reads what a proposal about outflows says; nil for the other kinds. False:
// an amount that is no number.
func act(kind ledger.ProposalKind, p client.Proposal) (*ledger.OutflowAct, bool) {
	a := &ledger.OutflowAct{
		Batch: p.Batch, Outflow: p.Outflow, Outcome: p.Outcome, Body: p.Body, TxID: p.TxID, Height: p.Height, Coin: p.Coin, Address: p.Address, Asset: p.Asset,
	}
	for _, x := range []struct {
		text string
		to   *fixed.Int
	}{{p.Fee, &a.Fee}, {p.Amount, &a.Amount}} {
		if x.text == "" {
			continue
		}
		n, err := fixed.Parse(x.text)
		if err != nil {
			return nil, false
		}
		*x.to = n
	}
	if kind < ledger.ProposeLeaveHold {
		return nil, *a == ledger.OutflowAct{}
	}
	return a, true
}

// effects says what a proposal changes, old → new as of now.
func (v view) effects(p ledger.Proposal) []string {
	where := "all pools"
	if p.Pool != "" {
		where = "pool " + p.Pool
	}
	switch p.Kind {
	case ledger.ProposeStop:
		return []string{fmt.Sprintf("%s: %s off → on", where, flagWords[p.Flag])}
	case ledger.ProposeLift:
		return []string{fmt.Sprintf("%s: %s on → off", where, flagWords[p.Flag])}
	case ledger.ProposeSocialise:
		pool, _ := v.Pools.Get(p.Pool)
		return []string{fmt.Sprintf("%s: deficit %s → 0, borne by its suppliers", where, pool.Deficit)}
	case ledger.ProposeResume:
		return []string{"outflows: paused → not paused"}
	case ledger.ProposeLeaveHold, ledger.ProposeCancel, ledger.ProposeTopUp, ledger.ProposeGasFloat, ledger.ProposeBTCFloat, ledger.ProposeBook:
		return []string{actEffect(p)}
	}
	if p.Seats != nil {
		return v.seatsEffects(p)
	}
	out := []string{}
	now := v.Settings()
	for _, c := range p.Changes {
		old := ""
		if i := slices.IndexFunc(now, func(s ledger.Setting) bool { return s.Pool == c.Pool && s.Name == c.Name }); i >= 0 {
			old = now[i].Value
		}
		of := "cluster"
		if c.Pool != "" {
			of = "pool " + c.Pool
		}
		out = append(out, fmt.Sprintf("%s: %s %s → %s", of, c.Name, old, c.Value))
	}
	return out
}

// actEffect is what a proposal about outflows or coins does, in a line.
func actEffect(p ledger.Proposal) string {
	a := p.Act
	switch p.Kind {
	case ledger.ProposeLeaveHold:
		of := "all its payouts"
		if a.Outflow != 0 {
			of = fmt.Sprintf("payout %d", a.Outflow)
		}
		return fmt.Sprintf("batch %d: HOLD → %s, %s", a.Batch, a.Outcome, of)
	case ledger.ProposeCancel:
		return fmt.Sprintf("batch %d: its anchor is spent back to the vault; what is then unpaid: %s", a.Batch, a.Outcome)
	case ledger.ProposeTopUp:
		return fmt.Sprintf("btc: %s sats from the minter to the pool vault, in advance of what it fronts", a.Amount)
	case ledger.ProposeGasFloat:
		return fmt.Sprintf("eth: %s wei of operators' are booked as gas at %s", a.Amount, a.Address)
	case ledger.ProposeBTCFloat:
		return fmt.Sprintf("btc: coin %s of %s sats becomes float of the pool vault once a quorum sees it", a.Coin, a.Amount)
	}
	if a.Asset != "" {
		return fmt.Sprintf("%s: %s base units at the vaults that are nobody's become the treasury's", a.Asset, a.Amount)
	}
	return fmt.Sprintf("btc: coin %s of %s sats becomes the treasury's once a quorum sees it", a.Coin, a.Amount)
}

// Control.

// Controller is a node that speaks for its operator.
type Controller interface {
	Backend

	// Say has a word of this node's member ordered, and waits until this replica
	// applied it. Errors as those of Submit.
	Say(ctx context.Context, kind ledger.Kind, body any) (Outcome, error)

	// KeyShares lists the KeyShares this node holds, and checks each with audit.
	KeyShares(ctx context.Context, audit bool) (client.KeyShares, error)
}

// NewControl is what makes a node say something (votes, pauses, what is to be weighed) and tells its
// owner what the keystore holds. Serve it on a unix socket that only he can open. It is apart from
// the operators' listener, which reads only.
func NewControl(b Controller, cfg Config) http.Handler {
	s, mux, api := build(b, cfg, "Coffer node control")
	s.votes(api)
	c := control{s, b, new(sync.Mutex)}
	post := func(id, path, summary string) huma.Operation {
		return huma.Operation{
			OperationID: id, Method: http.MethodPost, Path: path, Summary: summary,
			MaxBodyBytes: maxBody, Errors: []int{400, 403, 404, 409, 413, 422, 500, 503},
		}
	}
	huma.Register(api, post("vote", "/vote", "Propose, or vote yes or no"), c.vote)
	huma.Register(api, post("pause", "/pause", "Pause all outflows for a while"), c.pause)
	huma.Register(api, post("leave", "/leave", "Give up this node's seat"), c.leave)
	huma.Register(api, post("resume", "/resume", "End this member's own pause"), c.resume)
	huma.Register(api, post("drilled", "/drilled", "Tell the ledger of a drill"), c.drilled)
	huma.Register(api, post("weigh", "/weigh", "Have the custody of an asset weighed against the books now"), c.weigh)
	huma.Register(api, huma.Operation{
		OperationID: "keys", Method: http.MethodGet, Path: "/keys", Summary: "The KeyShares of this node", Errors: []int{500},
	}, c.keys)
	return s.outer(s.private("", mux))
}

type control struct {
	*server
	node   Controller
	audits *sync.Mutex
}

type said struct{ Body client.Said }

func (c control) vote(ctx context.Context, in *struct{ Body client.Vote }) (*said, error) {
	v := ledger.Vote{Yes: in.Body.Yes}
	switch p := in.Body.Proposal; {
	case (p != nil) == (in.Body.Hash != ""):
		return nil, c.problem(ledger.Malformed, "want a proposal or a hash")
	case p == nil:
		if err := v.Hash.UnmarshalText([]byte(in.Body.Hash)); err != nil {
			return nil, c.problem(ledger.Malformed, "hash: "+err.Error())
		}
	default:
		l, why := c.proposal(*p)
		if why == "" && !v.Yes {
			why = "a proposal is brought by a yes"
		}
		if why != "" {
			return nil, c.problem(ledger.Malformed, why)
		}
		v.Hash, v.Proposal = l.Hash(), &l
	}
	return c.say(ctx, ledger.KindVote, v, hex.EncodeToString(v.Hash[:]))
}

// proposal reads one, or says why it cannot. The lift of a halt names the cause
// that this node shows, unless the operator named one.
func (c control) proposal(p client.Proposal) (ledger.Proposal, string) {
	kind, ok := wordOf(proposalWords, p.Kind)
	flag, known := wordOf(flagWords, p.Flag)
	out := ledger.Proposal{Kind: kind, Text: p.Text, Pool: p.Pool, Flag: flag, Halt: p.Halt}
	if kind == ledger.ProposeLift && flag == ledger.FlagHalt && p.Halt == "" {
		out.Halt = c.b.View().HaltCause(p.Pool)
	}
	for _, x := range p.Changes {
		out.Changes = append(out.Changes, ledger.Change{Pool: x.Pool, Name: x.Name, Value: x.Value})
	}
	slices.SortFunc(out.Changes, func(a, b ledger.Change) int {
		return slices.Compare([]string{a.Pool, a.Name}, []string{b.Pool, b.Name})
	})
	var read bool
	if out.Act, read = act(kind, p); !ok || !read || !known && p.Flag != "" {
		return out, "proposal: an unknown kind or flag, or an amount that is none"
	}
	var why string
	out.Seats, why = view{c.b.View()}.seats(kind, p)
	return out, why
}

func (c control) pause(ctx context.Context, in *struct{ Body client.Pause }) (*said, error) {
	d, err := time.ParseDuration(in.Body.For)
	if err != nil || d < time.Second || d > ledger.MaxPauseSeconds*time.Second {
		p := c.problem(ledger.BadParam, "for: want 1s to 1h")
		p.Found = in.Body.For
		return nil, p
	}
	return c.say(ctx, ledger.KindPause, ledger.Pause{Seconds: uint64(d / time.Second)}, "")
}

func (c control) resume(ctx context.Context, _ *struct{}) (*said, error) {
	return c.say(ctx, ledger.KindPause, ledger.Pause{}, "")
}

// weigh asks for one balance more than each minute's; the ledger answers one asked for
// within the last ten seconds with that.
func (c control) weigh(ctx context.Context, in *struct{ Body client.Weigh }) (*said, error) {
	return c.say(ctx, ledger.KindBalance, ledger.BalanceFact{Asset: in.Body.Asset}, "")
}

func (c control) keys(ctx context.Context, in *struct {
	Audit bool `query:"audit" doc:"check each KeyShare against its public commitments"`
}) (*reply[client.KeyShares], error) {
	// One audit at a time: each takes a core for seconds.
	c.audits.Lock()
	defer c.audits.Unlock()
	out, err := c.node.KeyShares(ctx, in.Audit)
	if err != nil {
		return nil, c.answer(err)
	}
	return &reply[client.KeyShares]{out}, nil
}

func (c control) drilled(ctx context.Context, in *struct{ Body client.Drilled }) (*said, error) {
	d, v := ledger.Drill{Name: in.Body.Name}, c.b.View()
	info, _ := v.Infos.Get(v.Epoch().Number)
	for _, g := range info.Keys {
		sig, err := hex.DecodeString(in.Body.Signatures[g.Key])
		if err != nil || len(sig) == 0 {
			return nil, c.problem(ledger.Malformed, "no signature of key "+g.Key)
		}
		d.Signatures = append(d.Signatures, sig)
	}
	return c.say(ctx, ledger.KindDrill, d, "")
}

func (c control) say(ctx context.Context, kind ledger.Kind, body any, hash string) (*said, error) {
	ctx, cancel := context.WithTimeout(ctx, postWait)
	defer cancel()
	o, err := c.node.Say(ctx, kind, body)
	if err != nil {
		return nil, c.answer(err)
	}
	if o.Code != ledger.OK {
		about := ""
		switch b := body.(type) {
		case ledger.Vote:
			if b.Proposal != nil {
				about = c.b.View().WhyNot(*b.Proposal)
			}
		case ledger.Drill:
			about = map[ledger.Code]string{
				ledger.BadParam:     "a drill of this name was told before",
				ledger.BadSignature: "not the signatures of a drill of this name by the key shares in force",
			}[o.Code]
		}
		return nil, c.problem(o.Code, about)
	}
	out := &said{client.Said{Hash: hash, LogIndex: o.Height}}
	out.Body.SetAsOf(o.Height)
	return out, nil
}
