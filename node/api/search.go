package api

import (
	"context"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/node/api/client"
	"github.com/coffer-network/coffer/node/api/history"
	"github.com/danielgtaylor/huma/v2"
)

// maxFinds bounds an answer, and what is read for it: every lookup below is by
// key, none walks a table.
const maxFinds = 16

func (s *server) searches(api huma.API) {
	route(s, api, "search", "/v1/search", "What an address, txid, text hash, account, outflow number or member name stands for", s.search)
}

type searchInput struct {
	ReadInput
	Q string `query:"q" required:"true" minLength:"1" maxLength:"200" doc:"address, CAIP-10, txid, text hash, account, outflow number or member name"`
}

func (s *server) search(_ context.Context, v view, in *searchInput) (*client.Finds, error) {
	out := &client.Finds{Finds: []client.Find{}}
	q := strings.TrimSpace(in.Q)
	add := func(f client.Find) {
		if len(out.Finds) < maxFinds && !slices.Contains(out.Finds, f) {
			out.Finds = append(out.Finds, f)
		}
	}
	if _, err := client.ParseAccount(q); err == nil {
		if _, ok := v.account(q); ok {
			add(client.Find{Kind: "account", ID: q, Account: q})
		}
	}
	if n, err := strconv.ParseUint(q, 10, 64); err == nil {
		if o, ok := v.Outflows.Get(n); ok {
			add(client.Find{Kind: "outflow", ID: q, Account: o.Account})
		}
	}
	for _, m := range v.Epoch().Members {
		if strings.EqualFold(m.Name, q) || m.ID.String() == q {
			add(client.Find{Kind: "member", ID: m.Name})
		}
	}
	v.findAddress(q, add)
	return out, s.findHash(v, q, add)
}

// findAddress: one of ours, or a wallet that opened an account.
func (v view) findAddress(q string, add func(client.Find)) {
	for _, c := range v.Genesis.Chains {
		if w, ok := v.Watched.Get(c.Name + "/" + q); ok {
			add(client.Find{Kind: "address", ID: q, Account: w.Account, Chain: c.Name, Purpose: purposeWord(w.Purpose)})
		}
	}
	wallets := []string{q}
	for _, c := range v.Genesis.Chains {
		wallets = append(wallets, c.CAIP2+":"+q)
	}
	for _, w := range wallets {
		signer, err := address.ParseCAIP10(w)
		if err != nil {
			continue
		}
		id := address.AccountID(v.ClusterName(), signer)
		if a, ok := v.account(hex.EncodeToString(id[:])); ok && slices.Contains(a.Wallets, w) {
			add(client.Find{Kind: "wallet", ID: w, Account: a.ID})
		}
	}
}

// findHash: a request's text, or a transaction of a deposit or payout.
func (s *server) findHash(v view, q string, add func(client.Find)) error {
	raw, err := hex.DecodeString(strings.TrimPrefix(q, "0x"))
	if err != nil || len(raw) != len(ledger.Hash{}) {
		return nil
	}
	if r, ok := s.history.Request(ledger.Hash(raw)); ok {
		add(client.Find{Kind: "request", ID: hexOf(raw), Account: r.Account})
	} else if w, ok := s.posted.find(ledger.Hash(raw)); ok {
		add(client.Find{Kind: "request", ID: hexOf(raw), Account: w.account})
	}
	n := 0
	for id, in := range v.Inflows.From(q + ":") {
		if n++; !strings.HasPrefix(id, q+":") || n > maxFinds {
			break
		}
		add(client.Find{Kind: "inflow", ID: id, Account: in.Account, Chain: in.Chain})
	}
	rs, err := s.history.Find(history.ByTx(q), 0, maxFinds)
	if err != nil {
		return s.noHistory(err)
	}
	for _, r := range rs {
		for _, e := range r.Entries {
			switch {
			case e.TxID == q:
				add(client.Find{Kind: "outflow", ID: strconv.FormatUint(e.Event.Outflow, 10), Account: e.Event.Account})
			case strings.HasPrefix(e.Inflow, q+":"):
				in, _ := v.Inflows.Get(e.Inflow)
				add(client.Find{Kind: "inflow", ID: e.Inflow, Account: e.Event.Account, Chain: in.Chain})
			}
		}
	}
	return nil
}
