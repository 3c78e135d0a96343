package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node/api/client"
	"github.com/coffer-network/coffer/node/api/history"
)

// Kinds of activities that are neither a deposit's nor a payout's.
const (
	kindRepaid     = "repay-from-supply"
	kindLiquidated = "liquidated"
	kindLiquidates = "liquidates"
	kindLoan       = "loan"
	kindOther      = "other"
)

// maxScanned bounds the records that one answer reads. What is older and left no
// trace in the ledger is in the account's history.
const maxScanned = 4096

// activities joins what the ledger keeps with what this node remembers: the
// ledger knows how far each came, the memory has what left no trace in it. An
// operation is listed where it began, so that it never moves between pages.
func (s *server) activities(_ context.Context, v view, in *pageInput) (*client.Activities, error) {
	a, err := s.find(v, in.ID)
	if err != nil {
		return nil, err
	}
	list := v.keptActivities(a)
	told, since, err := s.toldActivities(v, a.ID)
	if err != nil && !errors.Is(err, history.ErrUnavailable) {
		return nil, err
	}
	list = append(list, told...)
	slices.SortFunc(list, func(a, b client.Activity) int {
		return cmp.Or(b.Time.Compare(a.Time), cmp.Compare(b.LogIndex, a.LogIndex), cmp.Compare(b.ID, a.ID))
	})
	page, next := cut(list, in, func(x client.Activity) string { return x.ID })
	out := &client.Activities{Since: since, Activities: append([]client.Activity{}, page...), Next: next}
	if in.Cursor == "" {
		for _, x := range s.b.Sightings(a.ID) {
			out.Local = append(out.Local, v.seenActivity(x))
		}
	}
	return out, nil
}

// keptActivities are those that the ledger itself knows of.
func (v view) keptActivities(a ledger.Account) (out []client.Activity) {
	for _, f := range v.Inflows.All() {
		if f.Account == a.ID {
			out = append(out, v.inflowActivity(f))
		}
	}
	for _, o := range v.Outflows.All() {
		if o.Account == a.ID {
			out = append(out, v.outflowActivity(o))
		}
	}
	if l := v.loan(a); l != nil {
		out = append(out, v.loanActivity(a, l))
	}
	return out
}

// named fills in the asset.
func (v view) named(x client.Activity) client.Activity {
	if a, ok := v.Genesis.Asset(x.Pool); ok {
		x.Symbol, x.Decimals = a.Symbol, a.Decimals
	}
	return x
}

func (v view) inflowActivity(f ledger.Inflow) client.Activity {
	in := v.inflow(f)
	txid, _, _ := strings.Cut(in.ID, ":")
	x := client.Activity{
		ID: "inflow:" + in.ID, Kind: in.Purpose, Status: in.Status, State: in.State, Time: in.Counted, Pool: in.Asset, Amount: in.Amount,
		Confirmations: in.Confirmations, Required: in.Required, Shortfall: in.Shortfall, Reason: in.Reason, Inflow: in.ID, Outflow: in.Sweep, TxID: txid,
	}
	switch {
	case in.Shortfall != nil && in.Shortfall.TopUp:
		x.Status = actionRequired // nothing carries it to the account before more arrives
		x.Detail = "send what is missing to the same address, and all of it counts"
	case f.State == ledger.InflowSuspense && x.Status == actionRequired:
		x.Detail = "claim it: " + advice[ledger.Code(in.Reason)]
	case f.State == ledger.InflowSmall:
		x.Detail = "it is worth less than spending it costs: send the minimum at once"
	case f.State == ledger.InflowUndone:
		x.Detail = "its block left the chain, and what it gave was taken back; it counts again if it comes back"
	case f.State == ledger.InflowHeld:
		x.Detail = "operators decide by vote: its sweep was reverted twice"
	}
	return v.named(x)
}

func (v view) outflowActivity(o ledger.Outflow) client.Activity {
	w := v.outflow(o)
	x := client.Activity{
		ID: "outflow:" + strconv.FormatUint(w.ID, 10), Kind: outflowKind(w.Kind), Status: w.Status, State: w.State, Time: w.Created, Pool: w.Asset,
		Amount: w.Gross, Confirmations: w.Confirmations, Required: w.Required, Outflow: w.ID, TxID: w.TxID,
	}
	switch {
	case o.State == ledger.Hold:
		x.Detail = "operators decide by vote: its anchor contradicts itself"
	case w.Status == actionRequired:
		x.Reason, x.Detail = string(ledger.FeeTooHigh), "the fee is above Max fee: wait for it to fall, or cancel and ask again"
	case o.State == ledger.Paid && w.Confirmations < w.Required:
		x.Confirmations = w.Required // it is final: the ledger has let go of where
	}
	return v.named(x)
}

// outflowKind is a payout's kind in the words of activities.
func outflowKind(kind string) string {
	switch kind {
	case ledger.OutflowBorrow.String(), ledger.OutflowWithdraw.String():
		return kind
	case ledger.OutflowRefund.String():
		return "claim"
	}
	return kindOther
}

func (v view) loanActivity(a ledger.Account, l *client.Loan) client.Activity {
	x := client.Activity{
		ID: "loan:" + a.ID, Kind: kindLoan, Status: l.Status, State: l.Phase, Time: at(a.Opened), Pool: l.Pool, Amount: l.Amount,
		Reason: l.Waits, Outflow: l.Outflow,
	}
	if l.Status == actionRequired {
		kept, _ := v.Loans.Get(a.ID)
		found := minus(kept.Collateral, v.LoanMissing(a.ID))
		x.Shortfall = &client.Short{Minimum: l.Collateral, Found: found.String(), Missing: l.Missing, TopUp: true}
		x.Detail = fmt.Sprintf("send the missing collateral in %s before %s", l.CollateralPool, l.Until.Format("2006-01-02T15:04:05Z"))
	}
	return v.named(x)
}

func (v view) seenActivity(x Sighting) client.Activity {
	seen := sighting(x)
	out := client.Activity{
		ID: "seen:" + x.TxID, Kind: kindOther, Status: seen.Status, State: stateSeen, Time: v.now(), Pool: x.Asset, Amount: x.Amount,
		Confirmations: x.Confirmations, Required: x.Required, TxID: x.TxID,
	}
	if w, ok := v.Watched.Get(x.Chain + "/" + x.Address); ok {
		out.Kind = purposeWord(w.Purpose)
	}
	if x.Ignored != "" {
		out.Detail = "it will never count: " + x.Ignored
	}
	return v.named(out)
}

// toldActivities are those that only the records tell, and from which LogIndex
// on none is missing.
func (s *server) toldActivities(v view, id ledger.AccountID) (out []client.Activity, since uint64, err error) {
	rs, err := s.history.Find(history.ByAccount(id), 0, maxScanned)
	if err != nil {
		return nil, 0, err
	}
	if since = s.history.Since(); len(rs) == maxScanned {
		since = max(since, rs[len(rs)-1].Height)
	}
	for _, r := range rs {
		for _, e := range r.Entries {
			if e.Event.Account == id {
				if x, ok := v.toldActivity(r, e); ok {
					out = append(out, x)
				}
			}
		}
	}
	return out, since, nil
}

// toldActivity is what an entry tells of that the ledger keeps nothing of.
func (v view) toldActivity(r history.Record, e history.Entry) (client.Activity, bool) {
	x := client.Activity{Status: completed, Time: at(r.Millis), LogIndex: r.Height, Pool: e.Event.Asset, Amount: e.Event.Amount}
	height := strconv.FormatUint(r.Height, 10)
	switch e.Event.Name {
	case ledger.EventLiquidated:
		x.ID, x.Kind, x.Liquidation = kindLiquidated+":"+height, kindLiquidated, r.Height
	case ledger.EventLiquidates:
		x.ID, x.Kind, x.Liquidation, x.Outflow = kindLiquidates+":"+height, kindLiquidates, r.Height, e.Event.Outflow
	case "repaid-from-supply":
		x.ID, x.Kind = kindRepaid+":"+height, kindRepaid
	case "credited":
		if _, kept := v.Inflows.Get(e.Inflow); kept {
			return x, false
		}
		in, _ := v.rememberedInflow([]history.Record{r}, e.Inflow) // pruned: final long ago
		txid, _, _ := strings.Cut(e.Inflow, ":")
		x.ID, x.Kind, x.State, x.Reason, x.Inflow, x.TxID = "inflow:"+e.Inflow, in.Purpose, in.State, in.Reason, e.Inflow, txid
	default:
		return x, false
	}
	return v.named(x), true
}
