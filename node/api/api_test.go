package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/node/api"
	"github.com/coffer-network/coffer/node/api/apitest"
	"github.com/coffer-network/coffer/node/api/client"
)

const payee = "0x71C7656EC7ab88b098defB751B7401B5f6d8976F"

// world is a served cluster and a client with a wallet of it.
type world struct {
	*apitest.Cluster
	t      *testing.T
	url    string
	client *client.Client
	wallet *client.Wallet
	ctx    context.Context
}

func serve(t *testing.T, c *apitest.Cluster) *world {
	t.Helper()
	srv := httptest.NewServer(api.New(c, api.Config{History: c.History()}))
	t.Cleanup(srv.Close)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	w := &world{Cluster: c, t: t, url: srv.URL, ctx: ctx}
	first, err := client.New(srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.View().Epochs) == 1 {
		w.client = first
		return w
	}
	cl, err := first.Cluster(ctx)
	if err != nil {
		t.Fatal(err)
	}
	pin, err := client.NewPin(cl)
	if err != nil {
		t.Fatal(err)
	}
	if w.wallet, err = client.NewWallet(pin); err != nil {
		t.Fatal(err)
	}
	if w.client, err = client.New(srv.URL, pin); err != nil {
		t.Fatal(err)
	}
	return w
}

// borrower opens an account and deposits 1 BTC; a lender supplies USDT.
func (w *world) borrower() string {
	w.t.Helper()
	a, err := w.client.Open(w.ctx, w.wallet.SignerBTC())
	if err != nil {
		w.t.Fatal(err)
	}
	w.Deposit(a.ID, "btc", ledger.PurposeSupply, 100_000_000)
	lender, err := w.client.Open(w.ctx, w.wallet.SignerETH())
	if err != nil {
		w.t.Fatal(err)
	}
	w.Deposit(lender.ID, "usdt.eth", ledger.PurposeSupply, 100_000_000_000)
	if m, _ := w.View().Market("usdt.eth"); m.Pool.Cash.IsZero() {
		w.t.Fatal("the lender's USDT was not credited")
	}
	return a.ID
}

func (w *world) text(c address.Command) string {
	w.t.Helper()
	a, err := w.client.Prepare(w.ctx, c)
	if err != nil {
		w.t.Fatal(err)
	}
	return a.Text
}

// post sends a raw body and returns status, headers and answer.
func (w *world) post(path string, body any) (int, http.Header, map[string]any) {
	w.t.Helper()
	raw, ok := body.([]byte)
	if !ok {
		var err error
		if raw, err = json.Marshal(body); err != nil {
			w.t.Fatal(err)
		}
	}
	r, err := http.Post(w.url+path, "application/json", bytes.NewReader(raw))
	return w.answer(r, err)
}

func (w *world) get(path string) (int, http.Header, map[string]any) {
	w.t.Helper()
	r, err := http.Get(w.url + path)
	return w.answer(r, err)
}

func (w *world) answer(r *http.Response, err error) (int, http.Header, map[string]any) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	out := map[string]any{}
	if err := json.Unmarshal(b, &out); err != nil {
		w.t.Fatalf("%s answers no JSON: %s", r.Request.URL, b)
	}
	return r.StatusCode, r.Header, out
}

// problem checks the shape of every refusal (spec: requests §6).
func (w *world) problem(status int, h http.Header, p map[string]any, wantStatus int, wantCode string) {
	w.t.Helper()
	if status != wantStatus || p["code"] != wantCode {
		w.t.Fatalf("answer %d %v, want %d %s", status, p, wantStatus, wantCode)
	}
	if ct := h.Get("Content-Type"); ct != "application/problem+json" {
		w.t.Errorf("%s as %q, want application/problem+json", wantCode, ct)
	}
	for _, key := range []string{"title", "status", "detail", "retryable", "requestId", "asOf"} {
		if _, ok := p[key]; !ok {
			w.t.Errorf("%s without %q: %v", wantCode, key, p)
		}
	}
}

func TestALoanThroughTheAPI(t *testing.T) {
	w := serve(t, apitest.NewWithKeys(t))
	id := w.borrower()
	btc := w.wallet.SignerBTC()

	a, err := w.client.Account(w.ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	if a.NextNonce != 1 || len(a.Addresses) != 4 || a.Health.HealthFactor != nil {
		t.Fatalf("account %+v", a)
	}
	r, err := w.client.Borrow(w.ctx, btc, id, client.Payout{Pool: "usdt.eth", Amount: "20000000000", To: payee})
	if err != nil {
		t.Fatal(err)
	}
	if r.Outflow == 0 || r.Code != "OK" || r.Status != "processing" {
		t.Fatalf("request %+v", r)
	}
	if a, err = w.client.Account(w.ctx, id); err != nil {
		t.Fatal(err)
	}
	if got := *a.Health.HealthFactorShown; got != "2.00" {
		t.Errorf("health factor %s, want 2.00", got)
	}

	// 25,000 more: it would be 0.88.
	_, err = w.client.Borrow(w.ctx, btc, id, client.Payout{Pool: "usdt.eth", Amount: "25000000000", To: payee})
	var p *client.Problem
	if !errors.As(err, &p) || p.Code != "HEALTH_FACTOR" || p.Status != 422 || p.Retryable || p.LogIndex == 0 {
		t.Fatalf("25,000 more: %+v", err)
	}
	if p.Limit != "1000000000000000000" || !strings.HasPrefix(p.Found, "88888") || len(p.Found) != 18 {
		t.Errorf("numbers %s against %s, want about 0.888 against 1", p.Found, p.Limit)
	}
	after, err := w.client.Account(w.ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	if after.NextNonce != a.NextNonce+1 || after.Outflows != 1 {
		t.Errorf("the refusal left nonce %d and %d outflows", after.NextNonce, after.Outflows)
	}

	if _, err := w.client.Borrow(w.ctx, btc, id, client.Payout{Pool: "usdt.eth", Amount: "15000000000", To: payee}); err != nil {
		t.Fatal(err)
	}
	if a, err = w.client.Account(w.ctx, id); err != nil || *a.Health.HealthFactorShown != "1.14" {
		t.Fatalf("health factor after both loans: %v %v", a.Health.HealthFactorShown, err)
	}
	w.Settle()
	o, err := w.client.Outflow(w.ctx, r.Outflow)
	if err != nil || o.State != "PAID" || o.Status != "active" || o.TxID == "" || len(o.Attempts) != 1 || o.Fee == "0" {
		t.Fatalf("payout %+v %v", o, err)
	}
	list, err := w.client.Outflows(w.ctx, id)
	if err != nil || len(list.Outflows) != 2 || list.Outflows[0].ID < list.Outflows[1].ID {
		t.Fatalf("outflows %+v %v", list, err)
	}
	in, err := w.client.Inflows(w.ctx, id)
	if err != nil || len(in.Inflows) != 1 || in.Inflows[0].Status != "active" || in.Inflows[0].Amount != "100000000" {
		t.Fatalf("inflows %+v %v", in, err)
	}
}

func TestRefusalsHaveNames(t *testing.T) {
	w := serve(t, apitest.NewWithKeys(t))
	id := w.borrower()
	btc := w.wallet.SignerBTC()
	raw, err := client.ParseAccount(id)
	if err != nil {
		t.Fatal(err)
	}
	g, err := w.client.Grammar(w.ctx)
	if err != nil {
		t.Fatal(err)
	}
	to := address.CAIP10{Namespace: "eip155", Reference: "1337", Address: payee}
	now := int64(w.View().Time())
	good := address.Command{
		Action: address.ActionBorrow, Amount: g.Amount("usdt.eth", "1000000000"), Pool: "usdt.eth", To: to,
		MaxFee: g.Amount("usdt.eth", "900000000"), Account: raw, Signer: btc.ID(),
		Cluster: w.wallet.Pin().Cluster, Expires: now + 300,
	}
	for name, tc := range map[string]struct {
		change func(*address.Command)
		text   func(string) string
		by     client.Signer
		scheme string
		status int
		code   string
		logged bool
	}{
		"another cluster":          {change: func(c *address.Command) { c.Cluster = "other-1/" + strings.Repeat("ab", 16) }, status: 400, code: "WRONG_CLUSTER"},
		"expired":                  {change: func(c *address.Command) { c.Expires = now - 1 }, status: 422, code: "EXPIRED"},
		"too far ahead":            {change: func(c *address.Command) { c.Expires = now + 601 }, status: 422, code: "EXPIRY_TOO_FAR", logged: true},
		"a used nonce":             {change: func(c *address.Command) { c.Nonce = 0 }, status: 409, code: "BAD_NONCE"},
		"a nonce ahead":            {change: func(c *address.Command) { c.Nonce += 5 }, status: 409, code: "BAD_NONCE", logged: true},
		"another key":              {by: otherKey(t, w), status: 401, code: "BAD_SIGNATURE"},
		"a scheme that fits not":   {scheme: "eip191", status: 400, code: "SCHEME_UNSUPPORTED"},
		"an unknown account":       {change: func(c *address.Command) { c.Account[0]++ }, status: 404, code: "UNKNOWN_ACCOUNT"},
		"a wallet not linked":      {change: func(c *address.Command) { c.Signer = w.wallet.SignerP2TR().ID() }, by: w.wallet.SignerP2TR(), status: 403, code: "SIGNER_NOT_LINKED"},
		"an unknown pool":          {text: swap("Pool: usdt.eth", "Pool: doge"), status: 404, code: "UNKNOWN_POOL", logged: true},
		"amount 0":                 {change: func(c *address.Command) { c.Amount = g.Amount("usdt.eth", "0") }, status: 422, code: "BELOW_MIN", logged: true},
		"a decimal too many":       {text: swap("1000.000000 USDT", "1000.0000000 USDT"), status: 400, code: "MALFORMED"},
		"above 2^128":              {text: swap("1000.000000", "340282366920938463463374607431769.000000"), status: 400, code: "MALFORMED"},
		"a trailing newline":       {text: func(s string) string { return s + "\n" }, status: 400, code: "MALFORMED"},
		"a wrong network":          {change: func(c *address.Command) { c.To = btc.ID() }, status: 422, code: "DESTINATION_REFUSED", logged: true},
		"our own hot address":      {change: func(c *address.Command) { c.To.Address = hot(t, w) }, status: 422, code: "DESTINATION_REFUSED", logged: true},
		"a fee above what is paid": {change: func(c *address.Command) { c.MaxFee = g.Amount("usdt.eth", "1") }, status: 422, code: "FEE_TOO_HIGH", logged: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := *w
			w.t = t
			c := good
			c.Nonce = next(&w, id)
			if tc.change != nil {
				tc.change(&c)
			}
			text := g.Render(&c)
			if tc.text != nil {
				text = tc.text(text)
			}
			by := tc.by
			if by == nil {
				by = btc
			}
			sig, err := by.Sign(text)
			if err != nil {
				t.Fatal(err)
			}
			scheme := by.Scheme()
			if tc.scheme != "" {
				scheme = tc.scheme
			}
			before, nonce := w.View().Height, next(&w, id)
			status, h, p := w.post("/v1/requests", client.Submission{Text: text, Signed: client.Signed{Scheme: scheme, Signature: sig}})
			w.problem(status, h, p, tc.status, tc.code)
			if p["requestId"] != client.TextID(text) {
				t.Errorf("request id %v, want the text's hash", p["requestId"])
			}
			if logged := w.View().Height > before; logged != tc.logged {
				t.Errorf("in the log: %v, want %v", logged, tc.logged)
			}
			if tc.status < 403 && next(&w, id) != nonce {
				t.Error("a refusal of the prelude used the nonce up")
			}
		})
	}
}

func swap(old, new string) func(string) string {
	return func(s string) string { return strings.Replace(s, old, new, 1) }
}

func next(w *world, id string) uint64 {
	a, _ := w.View().Accounts.Get(id)
	return a.Nonce
}

func hot(t *testing.T, w *world) string {
	v, ok := w.View().Vault("eth", address.RoleHot)
	if !ok {
		t.Fatal("no hot address")
	}
	return v.Address
}

// otherKey signs as somebody else, for the same Signer line.
func otherKey(t *testing.T, w *world) client.Signer {
	other, err := client.NewWallet(w.wallet.Pin())
	if err != nil {
		t.Fatal(err)
	}
	return other.SignerBTC()
}

func TestTheSameTextIsOneRequest(t *testing.T) {
	w := serve(t, apitest.NewWithKeys(t))
	id := w.borrower()
	a, err := w.client.PreparePayout(w.ctx, address.ActionBorrow, w.wallet.SignerBTC().ID(), id,
		client.Payout{Pool: "usdt.eth", Amount: "1000000000", To: payee})
	if err != nil {
		t.Fatal(err)
	}
	r, err := w.client.Submit(w.ctx, w.wallet.SignerBTC(), a)
	if err != nil {
		t.Fatal(err)
	}
	height := w.View().Height
	again, err := w.client.Submit(w.ctx, w.wallet.SignerBTC(), a)
	if err != nil || again.Outflow != r.Outflow || again.LogIndex != r.LogIndex {
		t.Fatalf("second answer %+v %v, first %+v", again, err, r)
	}
	// Another signature over it, even a bad one, is the same request.
	status, _, body := w.post("/v1/requests", client.Submission{Text: a.Text, Signed: client.Signed{Scheme: "bip322", Signature: "x"}})
	if status != 200 || body["id"] != a.ID {
		t.Fatalf("with another signature: %d %v", status, body)
	}
	if w.View().Height != height {
		t.Error("a repeated text was logged again")
	}
	got, err := w.client.Request(w.ctx, a.ID, "", 0)
	if err != nil || got.Phase != "applied" || got.Outflow != r.Outflow {
		t.Fatalf("request by id: %+v %v", got, err)
	}
	if status, h, p := w.get("/v1/requests/" + strings.Repeat("00", 32)); true {
		w.problem(status, h, p, 404, "UNKNOWN_REQUEST")
	}
}

func TestPostAnswersBeforeTheOutcomeIsKnown(t *testing.T) {
	w := serve(t, apitest.NewWithKeys(t))
	text := w.text(address.Command{Action: address.ActionOpenAccount, Signer: w.wallet.SignerBTC().ID()})
	sig, err := w.wallet.SignerBTC().Sign(text)
	if err != nil {
		t.Fatal(err)
	}
	body := client.Submission{Text: text, Signed: client.Signed{Scheme: "bip322", Signature: sig}}
	release := w.Stall()
	defer release()
	height := w.View().Height
	for range 2 { // the second waits for the same flight
		status, h, r := w.post("/v1/requests?wait=1ms", body)
		if status != 202 || r["phase"] != "pending" || !strings.HasPrefix(h.Get("Location"), "/v1/requests/"+client.TextID(text)) {
			t.Fatalf("unknown outcome: %d %v", status, r)
		}
	}
	release()
	got, err := w.client.Request(w.ctx, client.TextID(text), "", 20*time.Second)
	if err != nil || got.Code != "OK" {
		t.Fatalf("after it was applied: %+v %v", got, err)
	}
	if w.View().Height != height+1 {
		t.Errorf("posted twice, logged %d times", w.View().Height-height)
	}
}

func TestBodiesOver8KiBAreMalformed(t *testing.T) {
	w := serve(t, apitest.NewWithKeys(t))
	big, err := json.Marshal(client.Submission{Text: strings.Repeat("a", 8<<10), Signed: client.Signed{Scheme: "bip322"}})
	if err != nil {
		t.Fatal(err)
	}
	status, h, p := w.post("/v1/requests", big)
	w.problem(status, h, p, 413, "MALFORMED")
	if p["limit"] != "8192" {
		t.Errorf("limit %v", p["limit"])
	}
	// Without a declared length, so that reading has to stop.
	r, err := http.Post(w.url+"/v1/requests", "application/json", io.MultiReader(bytes.NewReader(big)))
	status, h, p = w.answer(r, err)
	w.problem(status, h, p, 413, "MALFORMED")
}

func TestBadInputIsAProblemDocument(t *testing.T) {
	w := serve(t, apitest.NewWithKeys(t))
	for body, what := range map[string]string{
		`{`: "no JSON", `[]`: "an array", `{"scheme":"bip322"}`: "a missing field",
		`{"scheme":1,"text":"","signature":""}`:               "a number for a text",
		`{"scheme":"","text":"","signature":"","more":"one"}`: "an unknown field",
	} {
		status, h, p := w.post("/v1/requests", []byte(body))
		t.Log(what)
		w.problem(status, h, p, 400, "MALFORMED")
	}
	for path, want := range map[string]struct {
		status int
		code   string
	}{
		"/v1/nothing":                             {404, "UNKNOWN_PATH"},
		"/v1/accounts/xyz":                        {400, "MALFORMED"},
		"/v1/outflows/xyz":                        {400, "MALFORMED"},
		"/v1/outflows/99":                         {404, "UNKNOWN_OUTFLOW"},
		"/v1/outflows/99/why":                     {404, "UNKNOWN_OUTFLOW"},
		"/v1/pools/doge":                          {404, "UNKNOWN_POOL"},
		"/v1/certificates/999999":                 {404, "UNKNOWN_CERTIFICATE"},
		"/v1/pools?wait=31s":                      {400, "MALFORMED"},
		"/v1/pools?wait=-1s":                      {400, "MALFORMED"},
		"/v1/pools?consistency=a":                 {400, "MALFORMED"},
		"/v1/requests/abc":                        {400, "MALFORMED"},
		"/v1/accounts/" + strings.Repeat("0", 32): {404, "UNKNOWN_ACCOUNT"},
		"/v1/accounts/" + strings.Repeat("0", 32) + "/inflows":           {404, "UNKNOWN_ACCOUNT"},
		"/v1/accounts/" + strings.Repeat("0", 32) + "/outflows":          {404, "UNKNOWN_ACCOUNT"},
		"/v1/accounts/" + strings.Repeat("0", 32) + "/inflows?limit=201": {400, "MALFORMED"},
	} {
		status, h, p := w.get(path)
		t.Log(path)
		w.problem(status, h, p, want.status, want.code)
	}
}

func TestTheWorldsFailuresHaveNames(t *testing.T) {
	w := serve(t, apitest.NewWithKeys(t))
	text := w.text(address.Command{Action: address.ActionOpenAccount, Signer: w.wallet.SignerBTC().ID()})
	sig, err := w.wallet.SignerBTC().Sign(text)
	if err != nil {
		t.Fatal(err)
	}
	body := client.Submission{Text: text, Signed: client.Signed{Scheme: "bip322", Signature: sig}}
	for _, tc := range []struct {
		err    error
		status int
		code   string
		retry  bool
	}{
		{api.ErrNoLeader, 503, "NO_LEADER", true},
		{&api.Overloaded{Limit: "queue 4096", After: 3 * time.Second}, 503, "OVERLOADED", true},
		{fmt.Errorf("forward command: %w: /secret stream reset", api.ErrUnknown), 503, "TIMEOUT", true},
		{errors.New("disk /secret/path is full"), 500, "INTERNAL", false},
	} {
		w.Hold(tc.err)
		status, h, p := w.post("/v1/requests", body)
		w.problem(status, h, p, tc.status, tc.code)
		if p["retryable"] != tc.retry || tc.retry != (h.Get("Retry-After") != "") {
			t.Errorf("%s: retryable %v, Retry-After %q", tc.code, p["retryable"], h.Get("Retry-After"))
		}
		if strings.Contains(p["detail"].(string), "secret") {
			t.Errorf("%s tells the world %q", tc.code, p["detail"])
		}
	}
	w.Hold(api.ErrNoLeader)
	status, h, p := w.get("/v1/pools?consistency=linearizable")
	w.problem(status, h, p, 503, "NO_LEADER")
	w.Hold(nil)
	if status, _, _ := w.get("/v1/pools?consistency=linearizable"); status != 200 {
		t.Errorf("linearizable read with a leader: %d", status)
	}
}

func TestReadsWaitForMinIndex(t *testing.T) {
	w := serve(t, apitest.NewWithKeys(t))
	now := w.View().Height
	status, h, p := w.get("/v1/pools?wait=1ms&minIndex=" + number(now+1))
	w.problem(status, h, p, 503, "TIMEOUT")
	if h.Get("Retry-After") == "" {
		t.Error("TIMEOUT without Retry-After")
	}
	done := make(chan uint64)
	go func() {
		_, _, body := w.get("/v1/pools?wait=30s&minIndex=" + number(now+1))
		done <- uint64(body["asOf"].(float64))
	}()
	w.Tick(time.Second)
	if got := <-done; got < now+1 {
		t.Errorf("asOf %d, asked for %d", got, now+1)
	}
}

// "Every read takes minIndex": one that ignored it would show a client a ledger
// from before his own write, and the nonce that he has used up.
func TestEveryReadTakesMinIndex(t *testing.T) {
	w := serve(t, apitest.NewWithKeys(t))
	id := w.borrower()
	own := streams // whose frames say where they are
	_, _, doc := w.get("/openapi.json")
	reads := 0
	for path, item := range doc["paths"].(map[string]any) {
		get, ok := item.(map[string]any)["get"].(map[string]any)
		if !ok || own[path] {
			continue
		}
		reads++
		takes := map[string]bool{}
		params, _ := get["parameters"].([]any)
		for _, p := range params {
			takes[p.(map[string]any)["name"].(string)] = true
		}
		if !takes["minIndex"] || !takes["wait"] || !takes["consistency"] {
			t.Errorf("GET %s takes %v", path, takes)
		}
	}
	if reads < 15 {
		t.Fatalf("%d reads described", reads)
	}
	ahead := "?wait=1ms&minIndex=" + number(w.View().Height+1)
	for _, path := range []string{"/v1/accounts/" + id, "/v1/accounts/" + id + "/history", "/v1/liquidations", "/v1/outflows/1", "/v1/pools/btc"} {
		status, h, p := w.get(path + ahead)
		w.problem(status, h, p, 503, "TIMEOUT")
	}
}

func number(n uint64) string { b, _ := json.Marshal(n); return string(b) }

// A full signature pool is named with its limit, and costs no nonce.
func TestFullSignaturePoolShedsLoad(t *testing.T) {
	w := serve(t, apitest.NewWithKeys(t))
	id := w.borrower()
	before := next(w, id)
	text := w.text(address.Command{Action: address.ActionCancel, Signer: w.wallet.SignerBTC().ID()})
	sig, err := w.wallet.SignerBTC().Sign(text)
	if err != nil {
		t.Fatal(err)
	}
	w.Hold(&api.Overloaded{Limit: "signatures to be checked", After: 2 * time.Second})
	status, h, p := w.post("/v1/requests", client.Submission{Text: text, Signed: client.Signed{Scheme: "bip322", Signature: sig}})
	w.problem(status, h, p, 503, "OVERLOADED")
	if h.Get("Retry-After") != "2" || p["limit"] != "signatures to be checked" {
		t.Errorf("Retry-After %q, limit %v", h.Get("Retry-After"), p["limit"])
	}
	w.Hold(nil)
	if next(w, id) != before {
		t.Error("the nonce is used up")
	}
}
