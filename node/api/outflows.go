package api

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node/api/client"
	"github.com/danielgtaylor/huma/v2"
)

// Status words of operations (spec: requests §6). "expired" belongs to deposit
// windows of simple loans.
const (
	actionRequired = "action_required"
	processing     = "processing"
	confirming     = "confirming"
	active         = "active"
	completed      = "completed"
	failed         = "failed"
	expired        = "expired"
)

func (s *server) outflows(api huma.API) {
	route(s, api, "get-outflow", "/v1/outflows/{id}", "A payout: state, fee, attempts, sessions, transaction", s.outflowDetail)
	route(s, api, "get-outflow-why", "/v1/outflows/{id}/why", "What a payout waits for", s.why)
}

type outflowInput struct {
	ReadInput
	ID uint64 `path:"id"`
}

func (v view) outflowStatus(o ledger.Outflow) string {
	switch o.State {
	case ledger.Queued:
		if fee, _, code := v.quote(o.Asset, o.To, o.Gross); o.Account != "" && code == ledger.OK && o.MaxFee.Less(fee) {
			return actionRequired
		}
		return processing
	case ledger.Planned, ledger.Cancelling:
		return processing
	case ledger.Mined:
		return confirming
	case ledger.Paid:
		if o.Kind == ledger.OutflowBorrow && v.owes(o.Account, o.Asset) {
			return active
		}
		return completed
	case ledger.UnpaidProven, ledger.Refunded:
		return failed
	}
	return actionRequired // HOLD
}

func (v view) owes(account ledger.AccountID, pool string) bool {
	a, _ := v.account(account)
	return slices.ContainsFunc(a.Positions, func(p ledger.Position) bool { return p.Pool == pool && !p.Debt.IsZero() })
}

func (v view) outflow(o ledger.Outflow) client.Outflow {
	asset, _ := v.Genesis.Asset(o.Asset)
	chain, _ := v.Genesis.Chain(asset.Chain)
	out := client.Outflow{
		ID: o.ID, Kind: o.Kind.String(), Account: o.Account, Asset: o.Asset, Symbol: asset.Symbol, Decimals: asset.Decimals,
		State: o.State.String(), Status: v.outflowStatus(o), Gross: o.Gross.String(), MaxFee: o.MaxFee.String(),
		To: o.To, Chain: asset.Chain, Batch: o.Batch, Binding: o.Binding, TxID: o.TxID,
		Required: max(chain.Final, 1), Created: at(o.Created), Closed: atOrNil(o.Closed),
	}
	out.Boosted = o.Boosted
	if sub, ok := o.MappedSubaccount(); ok {
		if b, err := sub.Encode(); err == nil {
			out.Subaccount = hexOf(b[:])
		}
	}
	if o.Batch != 0 { // fee and net are fixed when it is planned
		out.Fee, out.Net = o.Fee.String(), o.Net.String()
	}
	if b, ok := v.Batches.Get(o.Batch); ok {
		out.Anchor = b.Anchor
		if b.Spent != nil {
			out.Confirmations = v.confirmations(b.Chain, b.Spent.Height)
		}
	}
	return out
}

func (s *server) findOutflow(v view, id uint64) (ledger.Outflow, error) {
	o, ok := v.Outflows.Get(id)
	if !ok {
		return o, s.problem(ledger.UnknownOutflow, strconv.FormatUint(id, 10))
	}
	return o, nil
}

var attemptKinds = map[ledger.AttemptKind]string{
	ledger.AttemptFirst: "first", ledger.AttemptRetry: "retry", ledger.AttemptBump: "bump",
	ledger.AttemptReprice: "reprice", ledger.AttemptCancel: "cancel",
}

func (s *server) outflowDetail(_ context.Context, v view, in *outflowInput) (*client.OutflowDetail, error) {
	o, err := s.findOutflow(v, in.ID)
	if err != nil {
		return nil, err
	}
	out := &client.OutflowDetail{Outflow: v.outflow(o), Attempts: []client.Attempt{}}
	out.Local = client.OutflowSessions{Signed: []client.SignedSession{}, Running: []client.Session{}}
	b, ok := v.Batches.Get(o.Batch)
	if !ok {
		return out, nil
	}
	for _, a := range b.Attempts {
		out.Attempts = append(out.Attempts, client.Attempt{
			Attempt: a.K, Kind: attemptKinds[a.Kind], LogIndex: a.Height, At: a.At.String(),
			Planned: at(a.Millis), Deadline: at(a.Deadline), Epoch: a.Epoch, M: a.M,
			Roster: v.names(a.Roster), GaveUp: v.names(a.Gave),
		})
	}
	for _, x := range s.b.Signed(b.ID) {
		out.Local.Signed = append(out.Local.Signed, client.SignedSession{
			Session: x.Session, Attempt: x.Attempt, Input: x.Input, Turn: x.Turn, Parties: list(x.Parties),
			Signature: x.Signature, TxID: x.TxID, Finished: x.Finished.UTC(),
		})
	}
	out.Local.Running = s.running(b.ID)
	return out, nil
}

// running are this node's sessions of a batch; 0: all.
func (s *server) running(batch uint64) []client.Session {
	out := []client.Session{}
	for _, x := range s.b.Sessions() {
		if batch != 0 && x.Batch != batch {
			continue
		}
		out = append(out, client.Session{
			Session: x.Session, Batch: x.Batch, Attempt: x.Attempt, Input: x.Input, Turn: x.Turn,
			Parties: list(x.Parties), Round: x.Round, Waiting: list(x.Waiting), Since: x.Since.UTC(),
		})
	}
	return out
}

// list is never null in JSON.
func list(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

func hexOf(b []byte) string { return hex.EncodeToString(b) }

// why names what an outflow waits for (spec: committee §10), most of it from
// the ledger; peers and rounds are this node's own.
func (s *server) why(_ context.Context, v view, in *outflowInput) (*client.Why, error) {
	o, err := s.findOutflow(v, in.ID)
	if err != nil {
		return nil, err
	}
	out := &client.Why{Outflow: o.ID, State: o.State.String(), WaitingFor: []client.Waiting{}}
	wait := func(w client.Waiting) { out.WaitingFor = append(out.WaitingFor, w) }
	switch o.State {
	case ledger.Paid, ledger.Refunded:
		return out, nil
	case ledger.Hold:
		wait(client.Waiting{What: "halt", Have: "a contradiction about its anchor", Need: "a vote that names the outcome"})
		return out, nil
	}
	if halt := v.halted(o.Asset); halt != "" {
		wait(client.Waiting{What: "halt", Have: halt})
	} else if b, ok := v.Batches.Get(o.Batch); ok && o.State == ledger.Planned && v.Unproven(b) != "" {
		wait(client.Waiting{What: "balance", Have: v.Unproven(b), Need: "an attested balance that covers the books"})
	}
	if p := v.paused(); p != nil {
		wait(client.Waiting{What: "pause", Peer: p.By, Have: "until " + p.Until.Format(time.RFC3339)})
	}
	if v.Catching {
		wait(client.Waiting{What: "catching up"})
	}
	if v.Opening != nil {
		wait(client.Waiting{What: "flip certificate"})
	}
	if st := s.b.Status(); st.Leader == "" {
		wait(client.Waiting{What: "no leader"})
	}
	b, bound := v.Batches.Get(o.Batch)
	switch {
	case o.State == ledger.Queued || !bound || len(b.Attempts) == 0:
		s.whyQueued(v, o, wait)
		if o.Account != "" {
			out.Next = &client.Next{What: "refund, if it was never planned", At: at(o.Created + v.Params.QueueSeconds*1000)}
		}
	case o.State == ledger.Mined && b.Spent != nil:
		c, _ := v.Genesis.Chain(b.Chain)
		have := v.confirmations(b.Chain, b.Spent.Height)
		wait(client.Waiting{What: "confirmations", Have: strconv.FormatUint(have, 10), Need: strconv.FormatUint(max(c.Final, 1), 10)})
	default:
		s.whyPlanned(v, b, out, wait)
	}
	return out, nil
}

func (s *server) whyQueued(v view, o ledger.Outflow, wait func(client.Waiting)) {
	if before, ok := v.Outflows.Get(o.After); ok && before.State != ledger.Paid {
		wait(client.Waiting{What: "prior outflow", Have: fmt.Sprintf("outflow %d is %s", before.ID, before.State)})
		return
	}
	if o.Boosted && !v.Two.Booked {
		wait(client.Waiting{What: "pool float", Have: strconv.FormatUint(v.Two.Float, 10)})
		return
	}
	if o.Boosted {
		every := v.Params.BoostSeconds
		wait(client.Waiting{What: "round of boosted payouts", Need: at((v.Time()/every + 1) * every * 1000).Format(time.RFC3339)})
	}
	w, capped := v.WaitsForCap(o)
	if capped {
		wait(capWaiting(w))
	}
	fee, _, code := v.quote(o.Asset, o.To, o.Gross)
	switch {
	case code == ledger.PriceStale:
		wait(client.Waiting{What: "price", Have: string(code)})
	case code != ledger.OK:
		wait(client.Waiting{What: "fee rate", Have: "no fresh one"})
	case o.Account != "" && o.MaxFee.Less(fee):
		wait(client.Waiting{What: "fee rate", Have: fee.String(), Need: "at most " + o.MaxFee.String()})
	case !capped:
		wait(client.Waiting{What: "prior outflow", Have: "chain sequence or inputs are held by an earlier one, or the next tick plans it"})
	}
}

func (s *server) whyPlanned(v view, b ledger.Batch, out *client.Why, wait func(client.Waiting)) {
	a := b.Attempts[len(b.Attempts)-1]
	out.Attempt, out.PassedOver = &a.K, v.names(v.State.PassedOver(a))
	out.Next = &client.Next{What: fmt.Sprintf("attempt %d with another committee", a.K+1), At: at(a.Deadline)}
	for _, r := range a.Refused {
		wait(client.Waiting{What: "refusal", Peer: v.name(r.Member), Have: r.Reason})
	}
	for _, x := range s.running(b.ID) {
		if x.Attempt != a.K {
			continue
		}
		turn, since := x.Turn, x.Since
		out.Session, out.Turn = x.Session, &turn
		for _, peer := range x.Waiting {
			what := "session message" // the round is not known
			if x.Round > 0 {
				what = fmt.Sprintf("round %d message", x.Round)
			}
			wait(client.Waiting{Peer: peer, What: what, Since: &since})
		}
		if len(x.Waiting) == 0 {
			wait(client.Waiting{What: "session", Have: "under way among " + strings.Join(x.Parties, ", "), Since: &since})
		}
		return
	}
	for _, x := range s.b.Signed(b.ID) {
		if x.Signature != "" {
			c, _ := v.Genesis.Chain(b.Chain)
			out.Next = nil
			wait(client.Waiting{What: "confirmations", Have: "0", Need: strconv.FormatUint(max(c.Final, 1), 10)})
			return
		}
	}
	e := v.Epoch()
	if _, _, certified := s.b.Certificate(a.Height); !certified {
		wait(client.Waiting{What: "certificate", Have: fmt.Sprintf("none over LogIndex %d", a.Height), Need: fmt.Sprintf("the approvals of %d of %d members", e.Q(), e.N())})
	}
	for _, m := range a.Roster {
		if seat, _ := v.Seats.Get(m.String()); !v.present(seat) {
			wait(client.Waiting{Peer: v.name(m), What: "clock of a signer", Since: atOrNil(seat.Heard)})
		}
	}
	wait(client.Waiting{What: "signature", Have: "this node is in no session for it", Need: fmt.Sprintf("%d of %d members", a.M, len(a.Roster))})
}

// capWaiting says which outflow cap a queued payout waits for, and until when, as
// far as nobody else draws on it before.
func capWaiting(w ledger.CapWait) client.Waiting {
	if w.Share {
		return client.Waiting{What: "outflow cap", Have: fmt.Sprintf("the account has had %s of the %s's %s", w.Drawn, w.Window, w.Capacity), Need: "at most a quarter while others wait"}
	}
	return client.Waiting{
		What: "outflow cap", Have: fmt.Sprintf("%s of the %s's %s are drawn", w.Drawn, w.Window, w.Capacity), Need: "enough refills by " + at(w.Until).Format(time.RFC3339),
	}
}
