package api_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/node/api/apitest"
	"github.com/coffer-network/coffer/node/api/client"
)

// hashApartFrom is the hash of the whole state without its place in the chain
// and without what an account's nonce moves.
func hashApartFrom(v *ledger.State, account string) string {
	w := *v // read only: the tables stay shared
	w.Height, w.Head, w.RootHeight, w.Root = 0, ledger.Hash{}, 0, ledger.Hash{}
	w.Accounts = ledger.State{}.Accounts
	h := sha256.New()
	h.Write(ledger.Marshal(&w))
	for id, a := range v.Accounts.All() {
		if id == account {
			a.Nonce, a.Results, a.Active = 0, nil, 0
		}
		h.Write(ledger.Marshal(a))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// TestBadInput is the list: each by its code and status, through HTTP
// over the real ledger, with nothing changed but the nonce where it was used up.
// What the API refuses as a courtesy the ledger refuses alike.
func TestBadInput(t *testing.T) {
	w := serve(t, apitest.NewWithKeys(t))
	id := w.borrower()
	signer := w.wallet.SignerBTC()
	raw, err := client.ParseAccount(id)
	if err != nil {
		t.Fatal(err)
	}
	g, err := w.client.Grammar(w.ctx)
	if err != nil {
		t.Fatal(err)
	}
	v := w.View()
	now := int64(v.Time())
	ours := func(role, chain string) string {
		a, ok := v.Vault(chain, role)
		if !ok {
			t.Fatalf("no vault %s", role)
		}
		return a.Address
	}
	own := func(chain string, p ledger.Purpose) string {
		a, ok := v.AddressOf(id, chain, p)
		if !ok {
			t.Fatalf("no address on %s", chain)
		}
		return a.Address
	}
	borrow := address.Command{
		Action: address.ActionBorrow, Amount: g.Amount("usdt.eth", "1000000000"), Pool: "usdt.eth",
		To:     address.CAIP10{Namespace: "eip155", Reference: "1337", Address: payee},
		MaxFee: g.Amount("usdt.eth", "900000000"), Account: raw, Signer: signer.ID(), Cluster: w.wallet.Pin().Cluster, Expires: now + 300,
	}
	withdraw := borrow
	withdraw.Action, withdraw.Pool = address.ActionWithdraw, "btc"
	withdraw.Amount, withdraw.MaxFee = g.Amount("btc", "1000000"), g.Amount("btc", "10000")
	withdraw.To = address.CAIP10{Namespace: "bip122", Reference: signer.ID().Reference, Address: own("btc", ledger.PurposeSupply)}
	to := func(addr string) func(*address.Command) { return func(c *address.Command) { c.To.Address = addr } }
	at := func(caip string) func(*address.Command) {
		return func(c *address.Command) {
			a, err := address.SplitCAIP10(caip)
			if err != nil {
				t.Fatal(err)
			}
			c.To = a
		}
	}
	for name, tc := range map[string]struct {
		base   *address.Command // nil: the borrow
		change func(*address.Command)
		text   func(string) string
		by     client.Signer
		status int
		code   string
		used   bool // the nonce
	}{
		"unknown cluster id":               {change: func(c *address.Command) { c.Cluster = "coffer-test-1/" + strings.Repeat("0", 32) }, status: 400, code: "WRONG_CLUSTER"},
		"expired":                          {change: func(c *address.Command) { c.Expires = now - 1 }, status: 422, code: "EXPIRED"},
		"too far in the future":            {change: func(c *address.Command) { c.Expires = now + 601 }, status: 422, code: "EXPIRY_TOO_FAR"},
		"reused nonce":                     {change: func(c *address.Command) { c.Nonce-- }, status: 409, code: "BAD_NONCE"},
		"nonce ahead":                      {change: func(c *address.Command) { c.Nonce++ }, status: 409, code: "BAD_NONCE"},
		"address of another network":       {change: at("eip155:1:" + payee), status: 422, code: "DESTINATION_REFUSED", used: true},
		"Bitcoin address for USDT":         {change: at(signer.ID().String()), status: 422, code: "DESTINATION_REFUSED", used: true},
		"mainnet address on regtest":       {base: &withdraw, change: to("bc1q9vza2e8x573nczrlzms0wvx3gsqjx7vavgkx0l"), status: 422, code: "DESTINATION_REFUSED", used: true},
		"no text at all":                   {text: func(string) string { return "" }, status: 400, code: "MALFORMED"},
		"text that is no request":          {text: func(string) string { return "please" }, status: 400, code: "MALFORMED"},
		"a field in the wrong place":       {text: swap("Pool: usdt.eth\nTo", "To"), status: 400, code: "MALFORMED"},
		"a tab":                            {text: swap("Action: Borrow", "Action:\tBorrow"), status: 400, code: "MALFORMED"},
		"a text beyond its limit":          {text: func(s string) string { return s + strings.Repeat("x", address.MaxText) }, status: 400, code: "MALFORMED"},
		"unknown pool":                     {text: swap("Pool: usdt.eth", "Pool: doge"), status: 404, code: "UNKNOWN_POOL", used: true},
		"amount 0":                         {change: func(c *address.Command) { c.Amount = g.Amount("usdt.eth", "0") }, status: 422, code: "BELOW_MIN", used: true},
		"withdraw 0":                       {base: &withdraw, change: func(c *address.Command) { c.Amount = g.Amount("btc", "0"); c.To.Address = signer.ID().Address }, status: 422, code: "BELOW_MIN", used: true},
		"more decimals than the asset has": {text: swap("1000.000000 USDT", "1000.0000001 USDT"), status: 400, code: "MALFORMED"},
		"above 2¹²⁸":                       {text: swap("1000.000000", "340282366920938463463374607431768.211456"), status: 400, code: "MALFORMED"},
		"negative":                         {text: swap("1000.000000", "-1000.000000"), status: 400, code: "MALFORMED"},
		"signed by another key":            {by: otherKey(t, w), status: 401, code: "BAD_SIGNATURE"},
		"payout to the hot address":        {change: to(ours(address.RoleHot, "eth")), status: 422, code: "DESTINATION_REFUSED", used: true},
		"payout to the gas address":        {change: to(ours(address.RoleGas, "eth")), status: 422, code: "DESTINATION_REFUSED", used: true},
		"payout to an own deposit address": {change: to(own("eth", ledger.PurposeSupply)), status: 422, code: "DESTINATION_REFUSED", used: true},
		"payout to an own repay address":   {change: to(own("eth", ledger.PurposeRepay)), status: 422, code: "DESTINATION_REFUSED", used: true},
		"payout to the token contract":     {change: to(apitest.Token), status: 422, code: "DESTINATION_REFUSED", used: true},
		"payout to the Bitcoin pool":       {base: &withdraw, change: to(ours(address.RoleMinter, "btc")), status: 422, code: "DESTINATION_REFUSED", used: true},
		"withdraw to the deposit address":  {base: &withdraw, status: 422, code: "DESTINATION_REFUSED", used: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := *w
			w.t = t
			c := borrow
			if tc.base != nil {
				c = *tc.base
			}
			nonce := next(&w, id)
			c.Nonce = nonce
			if tc.change != nil {
				tc.change(&c)
			}
			text := g.Render(&c)
			if tc.text != nil {
				was := text
				if text = tc.text(text); text == was {
					t.Fatal("nothing was spoilt")
				}
			}
			by := tc.by
			if by == nil {
				by = signer
			}
			sig, err := by.Sign(text)
			if err != nil {
				t.Fatal(err)
			}
			body := client.Submission{Text: text, Signed: client.Signed{Scheme: by.Scheme(), Signature: sig}}
			before := hashApartFrom(w.View(), id)
			status, h, p := w.post("/v1/requests", body)
			w.problem(status, h, p, tc.status, tc.code)
			want := nonce
			if tc.used {
				want++
			}
			if got := next(&w, id); got != want {
				t.Errorf("nonce %d, want %d", got, want)
			}
			if hashApartFrom(w.View(), id) != before {
				t.Error("the refusal changed the state")
			}
			// The same text past the API: the ledger says the same, and a text
			// whose nonce is used up is answered with what it was told.
			out, err := w.Submit(w.ctx, ledger.Marshal(ledger.Command{Intent: &ledger.Intent{Scheme: body.Scheme, Text: text, Signature: sig}}))
			if err != nil || string(out.Code) != tc.code {
				t.Errorf("the ledger itself: %s %v", out.Code, err)
			}
			if next(&w, id) != want || hashApartFrom(w.View(), id) != before {
				t.Error("the ledger's refusal changed the state")
			}
		})
	}
	if err := w.View().Check(); err != nil {
		t.Error(err)
	}
}

// An oversize body never becomes a request, with or without a declared length.
func TestOversizeBody(t *testing.T) {
	w := serve(t, apitest.NewWithKeys(t))
	body, err := json.Marshal(client.Submission{Text: strings.Repeat("a", 8<<10), Signed: client.Signed{Scheme: "bip322", Signature: "x"}})
	if err != nil {
		t.Fatal(err)
	}
	before, height := hashApartFrom(w.View(), ""), w.View().Height
	for _, path := range []string{"/v1/requests", "/v1/requests/preview", "/v1/requests/render"} {
		status, h, p := w.post(path, body)
		w.problem(status, h, p, http.StatusRequestEntityTooLarge, "MALFORMED")
		req, err := http.NewRequestWithContext(w.ctx, http.MethodPost, w.url+path, struct{ *bytes.Reader }{bytes.NewReader(body)})
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = -1
		req.Header.Set("Content-Type", "application/json")
		r, err := http.DefaultClient.Do(req)
		status, h, p = w.answer(r, err)
		w.problem(status, h, p, http.StatusRequestEntityTooLarge, "MALFORMED")
	}
	if w.View().Height != height || hashApartFrom(w.View(), "") != before {
		t.Error("an oversize body reached the ledger")
	}
}

// A deposit below the minimum is in suspense, shown, claimable and not lost.
func TestSmallDepositIsClaimed(t *testing.T) {
	w := serve(t, apitest.NewWithKeys(t))
	id := w.borrower()
	bitcoin := func() client.Position {
		a, err := w.client.Account(w.ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range a.Health.Positions {
			if p.Pool == "btc" {
				return p
			}
		}
		t.Fatal("no position in btc")
		return client.Position{}
	}
	before := bitcoin()
	w.Deposit(id, "btc", ledger.PurposeSupply, 9_999)
	after := bitcoin()
	if after.Supplied != before.Supplied || after.Suspense == nil || after.Suspense.Amount != "9999" || after.Suspense.Reason != "BELOW_MIN" {
		t.Fatalf("position %+v with suspense %+v", after, after.Suspense)
	}
	raw, err := client.ParseAccount(id)
	if err != nil {
		t.Fatal(err)
	}
	g, err := w.client.Grammar(w.ctx)
	if err != nil {
		t.Fatal(err)
	}
	signer := w.wallet.SignerBTC()
	c := address.Command{
		Action: address.ActionClaim, Pool: "btc", To: signer.ID(), MaxFee: g.Amount("btc", "9000"), Account: raw, Signer: signer.ID(),
		Cluster: w.wallet.Pin().Cluster, Nonce: next(w, id), Expires: int64(w.View().Time()) + 300,
	}
	text := g.Render(&c)
	sig, err := signer.Sign(text)
	if err != nil {
		t.Fatal(err)
	}
	status, _, r := w.post("/v1/requests", client.Submission{Text: text, Signed: client.Signed{Scheme: signer.Scheme(), Signature: sig}})
	if status != http.StatusOK || r["code"] != "OK" {
		t.Fatalf("the claim: %d %v", status, r)
	}
	w.Settle()
	o, err := w.client.Outflow(w.ctx, uint64(r["outflow"].(float64)))
	if err != nil || o.State != "PAID" {
		t.Errorf("claimed: %+v %v", o, err)
	}
	if p := bitcoin(); p.Suspense != nil {
		t.Errorf("claimed and still in suspense: %+v", p.Suspense)
	}
	in, err := w.client.Inflows(w.ctx, id)
	if err != nil || in.Inflows[0].Amount != "9999" || in.Inflows[0].Status != "completed" || in.Inflows[0].Shortfall != nil {
		t.Errorf("claimed and still to be claimed: %+v %v", in, err)
	}
	if y, err := w.client.InflowWhy(w.ctx, in.Inflows[0].ID, ""); err != nil || len(y.WaitingFor) != 0 || y.Shortfall != nil {
		t.Errorf("claimed and still waiting: %+v %v", y, err)
	}
}
