package api

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
	"github.com/coffer-network/coffer/node/api/client"
	"github.com/coffer-network/coffer/node/api/history"
	"github.com/danielgtaylor/huma/v2"
)

// whys are the machine-readable answers to "why is it stuck" that are not an
// outflow's (spec: committee §10).
func (s *server) whys(api huma.API) {
	route(s, api, "get-request-why", "/v1/requests/{id}/why", "Why a request came to what it came to, and what would have been accepted", s.requestWhy)
	route(s, api, "get-inflow", "/v1/inflows/{id}", "A deposit: seen, confirmations, credited or suspended", s.inflowDetail)
	route(s, api, "get-inflow-why", "/v1/inflows/{id}/why", "What a deposit waits for, and what it is short of", s.inflowWhy)
}

type requestWhyInput struct {
	ReadInput
	ID      string `path:"id" doc:"SHA-256 of the text in hex"`
	Account string `query:"account" doc:"whose request it is: needed where this node does not remember it"`
}

func (s *server) requestWhy(ctx context.Context, v view, in *requestWhyInput) (*client.RequestWhy, error) {
	raw, err := hex.DecodeString(in.ID)
	if err != nil || len(raw) != len(ledger.Hash{}) {
		return nil, s.problem(ledger.Malformed, "id: want 64 hex digits")
	}
	id := ledger.Hash(raw)
	r, known := s.lookUp(v, id, in.Account)
	if !known {
		return nil, s.withID(s.problem(unknownRequest, ""), id)
	}
	out := &client.RequestWhy{Request: r.ID, Account: r.Account, Nonce: r.Nonce, State: phasePending, Code: r.Code, LogIndex: r.LogIndex}
	acc, _ := v.account(r.Account)
	out.NextNonce = acc.Nonce
	if r.Phase != phaseApplied {
		out.Detail = "this node has it under way and has not applied it: ask again, or send the same text again"
		return out, nil
	}
	code := ledger.Code(r.Code)
	if out.State = "refused"; code == ledger.OK {
		out.State = "accepted"
	}
	out.Detail = advice[code]
	_, out.NonceUsed = v.result(r.Account, id)
	old, remembered := s.history.Request(id)
	if remembered && old.Height == r.LogIndex {
		s.tell(v, old, out)
	}
	if o, ok := v.Outflows.Get(r.Outflow); ok && r.Outflow != 0 {
		if out.Outflow, err = s.why(ctx, v, &outflowInput{ID: o.ID}); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// tell adds what the log says of a request.
func (s *server) tell(v view, old history.Record, out *client.RequestWhy) {
	when := at(old.Millis)
	out.Time, out.Action, out.Pool, out.Amount = &when, old.Action, old.Pool, old.Amount
	out.NonceUsed = out.NonceUsed || old.Final
	if a, ok := v.Genesis.Asset(old.Pool); ok {
		out.Symbol, out.Decimals = a.Symbol, a.Decimals
	}
	if old.Code == ledger.OK {
		return
	}
	for _, e := range old.Entries {
		var x ledger.RefusalRecord
		if e.Event.Name == ledger.EventRefused && json.Unmarshal([]byte(e.Event.Note), &x) == nil && x.ID == old.Request {
			out.Limit, out.Found = x.Limit, x.Found
		}
	}
	out.Accepted = accepted(old.Code, out)
	switch old.Action {
	case address.ActionBorrow:
		out.MostNow = v.MaxBorrow(old.Account, old.Pool).String()
	case address.ActionWithdraw:
		out.MostNow = v.MaxWithdraw(old.Account, old.Pool).String()
	}
}

// accepted says what would have been accepted when a request was refused, in
// the log's numbers. Where those do not say it, advice does.
func accepted(code ledger.Code, w *client.RequestWhy) string {
	amount := func(units string) string {
		return address.Amount{Units: units, Decimals: w.Decimals, Symbol: w.Symbol}.String()
	}
	switch code {
	case ledger.BelowMin:
		return "at least " + amount(w.Limit)
	case ledger.NoLiquidity, ledger.DeficitLimit:
		return "at most " + amount(w.Limit)
	case ledger.InsufficientBalance:
		switch w.Action {
		case address.ActionClaim:
			return "nothing: nothing is in suspense"
		case address.ActionLinkWallet:
			return "the same once a deposit was credited"
		}
		return "at most " + amount(w.Limit) + ", or max"
	case ledger.BorrowCap:
		return "at most " + amount(room(w.Limit, w.Found, w.Amount))
	case ledger.HealthFactor:
		return "an amount that leaves the health factor at 1 or above; it would have been " + shown(w.Found)
	case ledger.MaxLTV:
		return fmt.Sprintf("an amount that leaves the LTV at %s or below; it would have been %s", ofBps(w.Limit), ofBps(w.Found))
	case ledger.FeeTooHigh:
		if w.Action == address.ActionLiquidate { // in the collateral, which the log's row does not name
			return fmt.Sprintf("a Max fee of at least %s base units", w.Found)
		}
		return "a Max fee of at least " + amount(w.Found)
	case ledger.OutflowCap:
		if w.Limit != strconv.Itoa(ledger.MaxAccountOpen) {
			return "at most " + amount(w.Limit) + ", which is what may leave in an hour"
		}
		return fmt.Sprintf("the same while fewer than %s outflows of the account were open, and with room in the hour's cap; %s were open", w.Limit, w.Found)
	case ledger.PriceStale:
		return fmt.Sprintf("the same while prices were at most %s s old; the oldest was %s s", w.Limit, w.Found)
	case ledger.Grace:
		if w.Found != "" {
			return fmt.Sprintf("the same %s s after health first fell below 1; %s s had passed", w.Limit, w.Found)
		}
	case ledger.Dust:
		return fmt.Sprintf("an amount that clears the debt or the collateral, as max does, or leaves %s of both; it would have left %s", usdOf(w.Limit), usdOf(w.Found))
	case ledger.NotClosing:
		return fmt.Sprintf("an amount that clears the debt or the collateral: below a health factor of %s a part lowers it, and it was %s", shown(w.Limit), shown(w.Found))
	case ledger.SameAsset:
		return fmt.Sprintf("the same with less than %s supplied there; it was %s", amount(w.Limit), amount(w.Found))
	case ledger.HasDebt:
		return fmt.Sprintf("the same without debt; it was %s", usdOf(w.Found))
	case ledger.PriceSuspect:
		return fmt.Sprintf("the same once the price is confirmed: it jumped by %s, more than %s", ofBps(w.Found), ofBps(w.Limit))
	case ledger.Healthy:
		return "nothing: a health factor of 1 or above is not liquidated; it was " + shown(w.Found)
	case ledger.BadNonce:
		return fmt.Sprintf("Intent nonce %d, as far as this node knows now", w.NextNonce)
	}
	return advice[code]
}

// room is what a cap of limit left for amount, where both made found.
func room(limit, found, amount string) string {
	var c fixed.Calc
	l, f, a := c.Int(fixed.Parse(limit)), c.Int(fixed.Parse(found)), c.Int(fixed.Parse(amount))
	has := c.Sub(f, a)
	if c.Err() != nil || l.Less(has) {
		return "0"
	}
	return c.Sub(l, has).String()
}

func shown(wad string) string {
	hf, err := fixed.Parse(wad)
	if err != nil {
		return "unknown"
	}
	return ledger.DisplayHF(&hf)
}

func usdOf(text string) string {
	n, err := fixed.Parse(text)
	if err != nil {
		return "unknown"
	}
	return dollars(n)
}

func ofBps(text string) string {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return text
	}
	return percent(n)
}

type inflowInput struct {
	ReadInput
	ID      string `path:"id" maxLength:"200" doc:"outpoint on Bitcoin; transaction and log position elsewhere"`
	Account string `query:"account" doc:"whose it is: needed for what only this node saw"`
}

// found is a deposit with where it is known from.
type foundInflow struct {
	client.InflowDetail
	f        ledger.Inflow
	attested bool // in the ledger
}

// findInflow looks in the ledger, in this node's memory, and at what it alone
// saw at an account's addresses.
func (s *server) findInflow(v view, in *inflowInput) (out foundInflow, err error) {
	if in.Account != "" {
		if _, err := client.ParseAccount(in.Account); err != nil {
			return out, s.problem(ledger.Malformed, err.Error())
		}
	}
	rs, err := s.history.Find(history.ByInflow(in.ID), 0, maxFinds)
	if out.f, out.attested = v.Inflows.Get(in.ID); out.attested {
		out.Inflow, out.Account = v.inflow(out.f), out.f.Account
		out.Credits = credits(rs, in.ID) // unreadable: the ledger's own part is whole all the same
		return out, nil
	}
	if err != nil {
		return out, s.noHistory(err)
	}
	if out.Credits = credits(rs, in.ID); len(rs) > 0 {
		out.Inflow, out.Account = v.rememberedInflow(rs, in.ID)
		return out, nil
	}
	txid, _, _ := strings.Cut(in.ID, ":")
	for _, x := range s.b.Sightings(in.Account) {
		if in.Account == "" || x.TxID != txid {
			continue
		}
		seen := sighting(x)
		out.Local, out.Account = &seen, in.Account
		out.Inflow = client.Inflow{
			ID: in.ID, Chain: x.Chain, Asset: x.Asset, Address: x.Address, Amount: x.Amount, Height: x.Height, State: stateSeen,
			Status: seen.Status, Confirmations: x.Confirmations, Required: x.Required, Reason: x.Ignored,
		}
		if w, ok := v.Watched.Get(x.Chain + "/" + x.Address); ok {
			out.Purpose = purposeWord(w.Purpose)
		}
		return out, nil
	}
	return out, s.problem(unknownInflow, in.ID)
}

const stateSeen = "SEEN" // by this node, not attested by a quorum

// credits are the bookings of a deposit, oldest first.
func credits(rs []history.Record, id string) []client.Credit {
	out := []client.Credit{}
	for _, r := range slices.Backward(rs) {
		for _, e := range r.Entries {
			if e.Event.Name == "credited" && e.Inflow == id {
				_, reason, _ := strings.Cut(e.Event.Note, " ")
				out = append(out, client.Credit{LogIndex: r.Height, Time: at(r.Millis), Reason: reason})
			}
		}
	}
	return out
}

// rememberedInflow is one that the ledger has pruned: final long ago.
func (v view) rememberedInflow(rs []history.Record, id string) (client.Inflow, ledger.AccountID) {
	for _, r := range rs { // newest first: its last state
		for _, e := range r.Entries {
			if e.Inflow != id {
				continue
			}
			a, _ := v.Genesis.Asset(e.Event.Asset)
			out := client.Inflow{
				ID: id, Chain: a.Chain, Asset: e.Event.Asset, Purpose: e.Kind, Amount: e.Event.Amount, State: "CREDITED", Status: completed, Counted: at(r.Millis),
			}
			if _, reason, _ := strings.Cut(e.Event.Note, " "); reason != "" {
				out.State, out.Reason = "SUSPENSE", reason
			}
			return out, e.Event.Account
		}
	}
	return client.Inflow{ID: id}, ""
}

func (s *server) inflowDetail(_ context.Context, v view, in *inflowInput) (*client.InflowDetail, error) {
	f, err := s.findInflow(v, in)
	if err != nil {
		return nil, err
	}
	return &f.InflowDetail, nil
}

// shortfall is what a deposit lacks of the least that counts, nil where that is
// not what holds it up.
func (v view) shortfall(f ledger.Inflow) *client.Short {
	least, found, topUp := fixed.Int{}, f.Amount, false
	switch {
	case f.State == ledger.InflowSmall:
		least = fixed.New(v.Params.MinCoin)
	case f.State == ledger.InflowSuspense && ledger.Code(f.Reason) == ledger.BelowMin && v.suspended(f):
		p, _ := v.Pools.Get(f.Asset)
		least = p.Param.MinSupply
	case f.State == ledger.InflowWaiting: // swept when all of it is worth some times its sweep
		fee, _, code := v.quote(f.Asset, f.Address, f.Amount)
		n, err := fixed.Mul(fee, fixed.New(v.Params.SweepMultiple))
		if code != ledger.OK || err != nil {
			return nil
		}
		least, found, topUp = n, fixed.Int{}, true
		ids, _ := v.Waiting.Get(f.Address + "/" + f.Asset)
		for _, id := range ids {
			x, _ := v.Inflows.Get(id)
			found = plus(found, x.Amount)
		}
	}
	if !found.Less(least) {
		return nil
	}
	return &client.Short{Minimum: least.String(), Found: found.String(), Missing: minus(least, found).String(), TopUp: topUp}
}

func (s *server) inflowWhy(ctx context.Context, v view, in *inflowInput) (*client.InflowWhy, error) {
	f, err := s.findInflow(v, in)
	if err != nil {
		return nil, err
	}
	out := &client.InflowWhy{
		Inflow: f.ID, Account: f.Account, State: f.State, Status: f.Status, Confirmations: f.Confirmations, Required: f.Required,
		Shortfall: f.Shortfall, WaitingFor: []client.Waiting{},
	}
	wait := func(what, have, need string) {
		out.WaitingFor = append(out.WaitingFor, client.Waiting{What: what, Have: have, Need: need})
	}
	if f.Local != nil {
		s.whySeen(v, f.Local, out, wait)
		return out, nil
	}
	if !f.attested {
		out.Detail = "it was booked and is final; the ledger has forgotten it since"
		return out, nil
	}
	switch f.f.State {
	case ledger.InflowWaiting:
		s.whyWaiting(v, f, out, wait)
	case ledger.InflowSweeping:
		out.Detail = "it is carried to the hot address and credited when that is final"
		if out.Sweep, err = s.why(ctx, v, &outflowInput{ID: f.f.Outflow}); err != nil {
			return nil, err
		}
	case ledger.InflowCredited:
		out.Detail = "it is credited"
		if c, _ := v.Genesis.Chain(f.Chain); f.Confirmations < c.Final {
			out.Detail = "it is credited and earns; it counts as collateral when its block is final"
			wait("confirmations", strconv.FormatUint(f.Confirmations, 10), strconv.FormatUint(c.Final, 10))
		}
	case ledger.InflowSuspense:
		if out.Detail = "it was in suspense, and is claimed"; !v.suspended(f.f) {
			break
		}
		out.Detail = "it is in suspense and can be claimed; it could not be credited: " + advice[ledger.Code(f.Reason)]
		wait("claim", f.Reason, "a Claim of "+f.Asset)
	case ledger.InflowSmall:
		out.Detail = "it is worth less than spending it costs and is counted nowhere"
	case ledger.InflowUndone:
		out.Detail = "its block left the chain, and what it gave was taken back; it counts again if it comes back"
	case ledger.InflowHeld:
		out.Detail = "its own sweep was reverted twice: what was attested is not there"
		wait("halt", "a sweep that reverted twice", "a vote that names the outcome")
	}
	return out, nil
}

// whySeen is why what this node saw is not in the ledger.
func (s *server) whySeen(v view, x *client.Sighting, out *client.InflowWhy, wait func(what, have, need string)) {
	switch {
	case x.Ignored != "":
		out.Detail = "it will never count: " + x.Ignored
	case x.Height == 0:
		out.Detail = "this node sees it, and it is in no block yet"
		wait("confirmations", "0", strconv.FormatUint(x.Required, 10))
	case x.Confirmations < x.Required:
		out.Detail = "this node sees it in a block that is not deep enough"
		wait("confirmations", strconv.FormatUint(x.Confirmations, 10), strconv.FormatUint(x.Required, 10))
	default:
		out.Detail = "it is deep enough for this node; enough members have to say the same"
		wait("attestations", "fewer", fmt.Sprintf("%d of %d members", v.Epoch().Q(), len(v.Epoch().Members)))
	}
}

// whyWaiting is why what lies at an account's own address is not on its way.
func (s *server) whyWaiting(v view, f foundInflow, out *client.InflowWhy, wait func(what, have, need string)) {
	out.Detail = "it lies at the account's own address and is carried to the hot address with the next tick"
	if halt := v.halted(f.Asset); halt != "" {
		wait("halt", halt, "")
	}
	if p := v.paused(); p != nil {
		wait("pause", p.By+" until "+p.Until.Format(time.RFC3339), "")
	}
	if v.Catching {
		wait("catching up", "", "")
	}
	if _, _, code := v.quote(f.Asset, f.Address, f.f.Amount); code != ledger.OK {
		wait("fee rate", string(code), "a fresh fee rate and fresh prices")
	}
	if x := f.Shortfall; x != nil {
		out.Detail = "it lies at the account's own address and is worth too little to be carried: send what is missing to the same address, and all of it counts"
		wait("deposit", x.Found, x.Minimum)
	}
	if sender, ok := v.Senders.Get(f.Address); ok && sender.Open > 0 {
		wait("prior outflow", "another sweep of this address", "")
	}
}
