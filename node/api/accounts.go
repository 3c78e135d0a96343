package api

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node/api/client"
	"github.com/danielgtaylor/huma/v2"
)

func (s *server) accounts(api huma.API) {
	route(s, api, "get-account", "/v1/accounts/{id}", "An account: controllers, next nonce, positions, health, addresses", s.account)
	route(s, api, "get-proof", "/v1/accounts/{id}/proof", "An account's leaf and path in the Merkle-sum tree, to a certified head", s.proof)
	route(s, api, "get-inflows", "/v1/accounts/{id}/inflows", "An account's deposits, newest first", s.inflows)
	route(s, api, "get-account-outflows", "/v1/accounts/{id}/outflows", "An account's payouts, newest first", s.accountOutflows)
	route(s, api, "get-activities", "/v1/accounts/{id}/activities", "What an account did and what was done to it: how far each came, newest first", s.activities)
}

type accountInput struct {
	ReadInput
	ID string `path:"id" doc:"32 lower-case hex digits"`
}

type pageInput struct {
	ReadInput
	ID     string `path:"id" doc:"32 lower-case hex digits"`
	Cursor string `query:"cursor" doc:"next of the page before"`
	Limit  int    `query:"limit" minimum:"1" maximum:"200" default:"50"`
}

func (s *server) find(v view, id string) (ledger.Account, error) {
	if _, err := client.ParseAccount(id); err != nil {
		return ledger.Account{}, s.problem(ledger.Malformed, err.Error())
	}
	a, ok := v.account(id)
	if !ok {
		return a, s.problem(ledger.UnknownAccount, id)
	}
	return a, nil
}

func (s *server) account(_ context.Context, v view, in *accountInput) (*client.Account, error) {
	a, err := s.find(v, in.ID)
	if err != nil {
		return nil, err
	}
	out := &client.Account{
		ID: a.ID, Controllers: a.Wallets, NextNonce: a.Nonce, Opened: at(a.Opened), LastActive: at(a.Active),
		Outflows: a.Outflows, Health: v.health(a), Addresses: v.addresses(a.ID), Results: []client.Result{},
		PayoutList: v.payoutList(a.ID), Loan: v.loan(a),
	}
	for _, r := range a.Results {
		out.Results = append(out.Results, client.Result{
			Nonce: r.Nonce, Request: r.Text.String(), Code: string(r.Code), LogIndex: r.Height, Outflow: r.Outflow,
		})
	}
	return out, nil
}

// proof is under the last root that this node has a certificate for: at most
// ledger.RootInterval heights old. An account opened since has none yet.
func (s *server) proof(_ context.Context, v view, in *accountInput) (*client.Proof, error) {
	if _, err := s.find(v, in.ID); err != nil {
		return nil, err
	}
	c, _, ok := s.b.Certificate(v.RootHeight)
	if !ok {
		return nil, s.problem(unknownCertificate, strconv.FormatUint(v.RootHeight, 10))
	}
	p, err := v.Prove(in.ID, c)
	if err != nil {
		return nil, s.problem(unknownProof, fmt.Sprintf("root %d: %s", c.Approval.RootHeight, err))
	}
	return &client.Proof{
		Account: in.ID, RootHeight: c.Approval.RootHeight, Height: c.Approval.Height, Head: c.Approval.Head.String(), Proof: hexOf(ledger.Marshal(p)),
	}, nil
}

// payoutList is where an account's coins may go, nil where it never said.
func (v view) payoutList(id ledger.AccountID) *client.PayoutList {
	p, ok := v.Payouts.Get(id)
	if !ok {
		return nil
	}
	out := &client.PayoutList{Required: p.Requires(v.Millis), Addresses: []client.Payee{}}
	if out.Required && p.Off != 0 {
		ends := at(p.Off)
		out.Ends = &ends
	}
	for _, e := range p.Payees {
		out.Addresses = append(out.Addresses, client.Payee{To: e.To, From: at(e.From), Pending: v.Millis < e.From})
	}
	return out
}

// loan is an account's simple loan, nil for an ordinary account.
func (v view) loan(a ledger.Account) *client.Loan {
	l, ok := v.Loans.Get(a.ID)
	if !ok {
		return nil
	}
	out := &client.Loan{
		Phase: l.Phase.String(), Collateral: l.Collateral.String(), CollateralPool: l.CollateralPool, Amount: l.Amount.String(), Pool: l.Pool,
		To: l.To, MaxFee: l.MaxFee.String(), RefundTo: l.RefundTo, RefundMaxFee: l.RefundFee.String(), SignedLTV: l.LTV, Until: at(l.Until),
		Outflow: l.Outflow, Waits: string(l.Code),
	}
	missing := v.LoanMissing(a.ID)
	switch {
	case l.Phase == ledger.LoanGranted:
		out.Status = active
		if o, ok := v.Outflows.Get(l.Outflow); ok && o.Closed != 0 && !indebted(a) {
			out.Status = completed
		}
	case l.Phase != ledger.LoanWaiting || v.Millis > l.Until:
		out.Status = expired
	case !missing.IsZero():
		out.Status, out.Missing = actionRequired, missing.String()
	case l.Code == ledger.InsufficientBalance:
		out.Status = confirming // it is there, and not final yet
	default:
		out.Status = processing
	}
	return out
}

func indebted(a ledger.Account) bool {
	return slices.ContainsFunc(a.Positions, func(p ledger.Position) bool { return !p.Debt.IsZero() })
}

// inflows walks all counted ones: they are pruned by finalised height, and an
// index of them by account would be in every snapshot for this one question.
func (s *server) inflows(_ context.Context, v view, in *pageInput) (*client.Inflows, error) {
	if _, err := s.find(v, in.ID); err != nil {
		return nil, err
	}
	var list []ledger.Inflow
	for _, f := range v.Inflows.All() {
		if f.Account == in.ID {
			list = append(list, f)
		}
	}
	slices.SortFunc(list, func(a, b ledger.Inflow) int {
		return cmp.Or(cmp.Compare(b.Millis, a.Millis), cmp.Compare(a.ID, b.ID))
	})
	page, next := cut(list, in, func(f ledger.Inflow) string { return f.ID })
	out := &client.Inflows{Inflows: []client.Inflow{}, Next: next}
	for _, f := range page {
		out.Inflows = append(out.Inflows, v.inflow(f))
	}
	if in.Cursor == "" {
		for _, x := range s.b.Sightings(in.ID) {
			out.Local = append(out.Local, sighting(x))
		}
	}
	return out, nil
}

func (s *server) accountOutflows(_ context.Context, v view, in *pageInput) (*client.Outflows, error) {
	if _, err := s.find(v, in.ID); err != nil {
		return nil, err
	}
	var list []ledger.Outflow
	for _, o := range v.Outflows.All() {
		if o.Account == in.ID {
			list = append(list, o)
		}
	}
	slices.Reverse(list)
	page, next := cut(list, in, func(o ledger.Outflow) string { return strconv.FormatUint(o.ID, 10) })
	out := &client.Outflows{Outflows: []client.Outflow{}, Next: next}
	for _, o := range page {
		out.Outflows = append(out.Outflows, v.outflow(o))
	}
	return out, nil
}

// cut takes one page behind the cursor, which is the id of the last one shown.
// One that was pruned meanwhile ends the list.
func cut[T any](list []T, in *pageInput, id func(T) string) (page []T, next string) {
	if in.Cursor != "" {
		i := slices.IndexFunc(list, func(x T) bool { return id(x) == in.Cursor })
		if i < 0 {
			return nil, ""
		}
		list = list[i+1:]
	}
	if n := min(max(in.Limit, 1), maxPage); len(list) > n {
		return list[:n], id(list[n-1])
	}
	return list, ""
}

var inflowStates = map[ledger.InflowState]struct{ name, status string }{
	ledger.InflowWaiting:  {"WAITING", processing},
	ledger.InflowSweeping: {"SWEEPING", processing},
	ledger.InflowCredited: {"CREDITED", active},
	ledger.InflowSuspense: {"SUSPENSE", actionRequired},
	ledger.InflowSmall:    {"SMALL", actionRequired},
	ledger.InflowHeld:     {"HELD", actionRequired},
	ledger.InflowUndone:   {"UNDONE", failed},
}

func (v view) inflow(f ledger.Inflow) client.Inflow {
	st := inflowStates[f.State]
	if f.State == ledger.InflowCredited && f.Outflow != 0 {
		st.status = completed // credited, and swept into the hot address
	}
	if f.State == ledger.InflowSuspense && !v.suspended(f) {
		st.status = completed // claimed since
	}
	total, _ := f.Amount.Uint64()
	return client.Inflow{
		ID: f.ID, Chain: f.Chain, Asset: f.Asset, Purpose: purposeWord(f.Purpose), Address: f.Address,
		Amount: f.Amount.String(), Height: f.Height, State: st.name, Status: st.status,
		Confirmations: v.confirmations(f.Chain, f.Height), Required: v.Genesis.InflowDepth(f.Chain, total),
		Reason: f.Reason, Shortfall: v.shortfall(f), Sweep: f.Outflow, Counted: at(f.Millis),
	}
}

// suspended reports whether what f brought may still be claimed. Claims take all
// of an asset, so nothing there means that it was; something may be a later
// deposit's.
func (v view) suspended(f ledger.Inflow) bool {
	s, ok := v.Suspense.Get(f.Account + "/" + f.Asset)
	return ok && !s.Amount.IsZero()
}

// confirmations of a block at height, the block itself counted.
func (v view) confirmations(chain string, height uint64) uint64 {
	tip, ok := v.Tips.Get(chain)
	if !ok || height == 0 || tip.Height < height {
		return 0
	}
	return tip.Height - height + 1
}

func sighting(x Sighting) client.Sighting {
	status := confirming
	if x.Ignored != "" {
		status = actionRequired
	}
	return client.Sighting{
		Chain: x.Chain, Address: x.Address, Asset: x.Asset, Token: x.Token, TxID: x.TxID, Amount: x.Amount,
		Height: x.Height, Status: status, Confirmations: x.Confirmations, Required: x.Required, Ignored: x.Ignored,
	}
}
