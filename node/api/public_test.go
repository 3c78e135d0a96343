package api_test

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/node/api"
	"github.com/coffer-network/coffer/node/api/apitest"
	"github.com/coffer-network/coffer/node/api/client"
)

const secretEndpoint = "http://user:hunter2@10.1.2.3:8332"

// "Peer addresses, chain endpoints and configuration appear only here; a test
// greps the public answers for them." (spec: requests §6)
func TestPublicAnswersTellNothingOfOperators(t *testing.T) {
	w := serve(t, apitest.NewWithKeys(t))
	id := w.borrower()
	w.Change(func(s *api.NodeStatus) {
		s.Operator = map[string]any{"bitcoin": secretEndpoint, "peer": "/ip4/127.0.0.1/tcp/4101"}
		s.Chains = []api.ChainStatus{{Chain: "btc", Height: 7}}
	})
	for _, path := range []string{
		"/v1/cluster", "/v1/members", "/v1/chains", "/v1/status", "/v1/sessions", "/v1/pools", "/v1/pools/btc", "/v1/assets",
		"/v1/accounts/" + id, "/v1/accounts/" + id + "/inflows", "/v1/accounts/" + id + "/outflows", "/v1/accounts/" + id + "/history", "/v1/search?q=node-1",
		"/v1/outflows/1", "/v1/outflows/1/why", "/v1/certificates/1", "/healthz", "/readyz",
	} {
		status, h, body := w.get(path)
		if status != 200 {
			t.Errorf("%s answers %d: %v", path, status, body)
		}
		if _, ok := body["asOf"]; !ok {
			t.Errorf("%s without asOf", path)
		}
		if h.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s without CORS", path)
		}
		raw, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{"hunter2", "10.1.2.3", "/ip4/", "tcp/41", "$schema"} {
			if strings.Contains(string(raw), secret) {
				t.Errorf("%s tells %q", path, secret)
			}
		}
	}
	for _, path := range []string{"/v1/node", "/metrics", "/docs"} {
		if status, _, _ := w.get(path); status != 404 {
			t.Errorf("%s on the public listener answers %d", path, status)
		}
	}
}

func TestOperatorsListenerAsksForTokenAndHost(t *testing.T) {
	c := apitest.NewWithKeys(t)
	c.Change(func(s *api.NodeStatus) { s.Operator = map[string]any{"bitcoin": secretEndpoint} })
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "coffer_up 1\n") })
	srv := httptest.NewServer(api.NewOperator(c, api.Config{}, api.Operator{Token: "token-1", Metrics: metrics}))
	defer srv.Close()
	ask := func(path, host, token string) (int, string, http.Header) {
		r, err := http.NewRequest(http.MethodGet, srv.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if host != "" {
			r.Host = host
		}
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		a, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Body.Close()
		b, err := io.ReadAll(a.Body)
		if err != nil {
			t.Fatal(err)
		}
		return a.StatusCode, string(b), a.Header
	}
	for _, path := range []string{"/v1/node", "/metrics"} {
		if status, _, _ := ask(path, "", ""); status != 403 {
			t.Errorf("%s without token: %d", path, status)
		}
		if status, _, _ := ask(path, "", "token-2"); status != 403 {
			t.Errorf("%s with another token: %d", path, status)
		}
		if status, _, _ := ask(path, "evil.example", "token-1"); status != 403 {
			t.Errorf("%s under another host name: %d", path, status)
		}
	}
	status, body, h := ask("/v1/node", "localhost", "token-1")
	if status != 200 || !strings.Contains(body, "hunter2") || h.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("/v1/node: %d %s", status, body)
	}
	if status, body, _ := ask("/metrics", "", "token-1"); status != 200 || body != "coffer_up 1\n" {
		t.Errorf("/metrics: %d %s", status, body)
	}
}

func TestOpenAPINamesEveryRoute(t *testing.T) {
	w := serve(t, apitest.New(t))
	status, _, doc := w.get("/openapi.json")
	if status != 200 || doc["openapi"] != "3.1.0" {
		t.Fatalf("openapi.json: %d %v", status, doc["openapi"])
	}
	paths := doc["paths"].(map[string]any)
	for _, want := range []string{
		"/v1/search", "/v1/events", "/v1/accounts/{id}/events", "/v1/requests/{id}/events", "/v1/accounts/{id}/history",
		"/v1/requests", "/v1/requests/render", "/v1/requests/preview", "/v1/requests/{id}", "/v1/accounts/{id}",
		"/v1/accounts/{id}/inflows", "/v1/accounts/{id}/outflows", "/v1/accounts/{id}/proof", "/v1/outflows/{id}", "/v1/outflows/{id}/why",
		"/v1/pools", "/v1/pools/{id}", "/v1/assets", "/v1/cluster", "/v1/members", "/v1/chains", "/v1/sessions",
		"/v1/certificates/{index}", "/v1/status", "/v1/liquidations", "/healthz", "/readyz",
	} {
		if paths[want] == nil {
			t.Errorf("openapi.json without %s", want)
		}
	}
	raw, err := json.Marshal(doc["components"])
	if err != nil || !strings.Contains(string(raw), `"retryable"`) {
		t.Error("openapi.json without the problem document")
	}
	if r, err := http.NewRequest(http.MethodOptions, w.url+"/v1/requests", nil); err == nil {
		a, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		a.Body.Close()
		if a.StatusCode != 204 || !strings.Contains(a.Header.Get("Access-Control-Allow-Methods"), "POST") {
			t.Errorf("preflight: %d %v", a.StatusCode, a.Header)
		}
	}
}

// "absent until the first epoch with keys is in force"
func TestBeforeThereAreKeys(t *testing.T) {
	w := serve(t, apitest.New(t))
	cl, err := w.client.Cluster(w.ctx)
	if err != nil || len(cl.Keys) != 0 || cl.N != 4 || cl.M != 3 || cl.F != 1 || cl.Q != 3 || cl.Epoch != 0 {
		t.Fatalf("cluster %+v %v", cl, err)
	}
	if _, err := client.NewPin(cl); err == nil {
		t.Error("a cluster without keys was pinned")
	}
	pools, err := w.client.Pools(w.ctx)
	if err != nil || len(pools.Pools) != 2 || pools.Pools[0].PayoutFee.Unknown == "" || pools.Pools[0].Price != nil {
		t.Fatalf("pools %+v %v", pools, err)
	}
	w.Change(func(s *api.NodeStatus) { s.NotReady, s.Leader = []string{"keys are being generated"}, "" })
	status, h, p := w.get("/readyz")
	w.problem(status, h, p, 503, "OVERLOADED")
	if status, _, _ := w.get("/healthz"); status != 200 {
		t.Errorf("healthz: %d", status)
	}
	st, err := w.client.Status(w.ctx)
	if err != nil || st.Ready || len(st.NotReady) != 1 || st.MaySpare != -3 {
		t.Fatalf("status %+v %v", st, err)
	}
}

func TestRenderedAndPreviewedTexts(t *testing.T) {
	w := serve(t, apitest.NewWithKeys(t))
	id := w.borrower()
	signer := w.wallet.SignerBTC().ID()
	a, err := w.client.PreparePayout(w.ctx, address.ActionBorrow, signer, id,
		client.Payout{Pool: "usdt.eth", Amount: "20000000000", To: payee, MaxFee: "900000000"})
	if err != nil {
		t.Fatal(err)
	}
	status, _, body := w.post("/v1/requests/render", client.RenderRequest{
		Action: "Borrow", Amount: "20000000000", Pool: "usdt.eth", To: apitest.EthereumCAIP2 + ":" + payee, MaxFee: "900000000", Signer: signer.String(),
	})
	if status != 200 || body["text"] != a.Text || body["id"] != a.ID {
		t.Errorf("the node renders\n%v\nthe client\n%s", body["text"], a.Text)
	}
	height := w.View().Height
	p, err := w.client.Preview(w.ctx, a)
	if err != nil || p.Code != "OK" || p.Gross != "20000000000" || p.Fee == "" || p.Net == "" {
		t.Fatalf("preview %+v %v", p, err)
	}
	if p.Before.HealthFactorShown != nil || *p.After.HealthFactorShown != "2.00" {
		t.Errorf("health %v to %v", p.Before.HealthFactorShown, p.After.HealthFactorShown)
	}
	if a, err = w.client.PreparePayout(w.ctx, address.ActionBorrow, signer, id,
		client.Payout{Pool: "usdt.eth", Amount: "45000000000", To: payee}); err != nil {
		t.Fatal(err)
	}
	if p, err = w.client.Preview(w.ctx, a); err != nil || p.Code != "HEALTH_FACTOR" || p.After != nil || p.Found == "" {
		t.Fatalf("preview of too much %+v %v", p, err)
	}
	if w.View().Height != height || next(w, id) != 1 {
		t.Error("a preview changed the ledger")
	}
	status, h, prob := w.post("/v1/requests/render", client.RenderRequest{Action: "Steal", Signer: signer.String()})
	w.problem(status, h, prob, 400, "MALFORMED")
	status, h, prob = w.post("/v1/requests/preview", client.PreviewRequest{Text: "hello"})
	w.problem(status, h, prob, 400, "MALFORMED")
}

func TestWhyAndLocalSessions(t *testing.T) {
	w := serve(t, apitest.NewWithKeys(t))
	id := w.borrower()
	r, err := w.client.Borrow(w.ctx, w.wallet.SignerBTC(), id, client.Payout{Pool: "usdt.eth", Amount: "20000000000", To: payee})
	if err != nil {
		t.Fatal(err)
	}
	why, err := w.client.Why(w.ctx, r.Outflow)
	if err != nil || why.State != "QUEUED" || len(why.WaitingFor) != 1 || why.Next == nil {
		t.Fatalf("queued: %+v %v", why, err)
	}
	w.Tick(time.Second)
	o, err := w.client.Outflow(w.ctx, r.Outflow)
	if err != nil || o.State != "PLANNED" || o.Anchor == "" || len(o.Attempts) != 1 || len(o.Attempts[0].Roster) != 4 {
		t.Fatalf("planned: %+v %v", o, err)
	}
	why, err = w.client.Why(w.ctx, r.Outflow)
	if err != nil || len(why.WaitingFor) != 2 || why.WaitingFor[0].What != "balance" || !strings.Contains(why.WaitingFor[0].Have, "no attested balance") {
		t.Fatalf("planned, and custody was never weighed: %+v %v", why, err)
	}
	w.Weigh("eth", 0)
	w.Weigh("usdt.eth", 0)
	why, err = w.client.Why(w.ctx, r.Outflow)
	if err != nil || len(why.WaitingFor) != 1 || why.WaitingFor[0].What != "signature" || why.WaitingFor[0].Need != "3 of 4 members" || why.Next == nil {
		t.Fatalf("planned, and no session here: %+v %v", why, err)
	}
	st, err := w.client.Status(w.ctx)
	if err != nil || st.Open["PLANNED"] != 1 || !st.OpenSince["PLANNED"].Equal(o.Created) || st.MaySpare != 1 {
		t.Fatalf("status: %+v %v", st, err)
	}
	since := time.Date(2026, 11, 21, 2, 0, 0, 0, time.UTC)
	w.Note(
		[]api.Session{{Session: "9f2c", Batch: o.Batch, Parties: []string{"node-1", "node-2", "node-4"}, Round: 3, Turn: 1, Waiting: []string{"node-4"}, Since: since}},
		map[uint64][]api.SignedSession{o.Batch: {{Session: "9f2b", Parties: []string{"node-1", "node-2", "node-3"}, TxID: "0xab"}}},
		map[ledger.AccountID][]api.Sighting{id: {{Chain: "eth", Token: payee, Ignored: "token is not listed"}, {Chain: "btc", Asset: "btc", Amount: "5", Required: 2}}},
	)
	why, err = w.client.Why(w.ctx, r.Outflow)
	if err != nil || why.Session != "9f2c" || *why.Attempt != 0 || *why.Turn != 1 || len(why.WaitingFor) != 1 ||
		why.WaitingFor[0].Peer != "node-4" || why.WaitingFor[0].What != "round 3 message" || !why.WaitingFor[0].Since.Equal(since) {
		t.Fatalf("signing: %+v %v", why, err)
	}
	if o, err = w.client.Outflow(w.ctx, r.Outflow); err != nil || len(o.Local.Signed) != 1 || len(o.Local.Signed[0].Parties) != 3 || len(o.Local.Running) != 1 {
		t.Fatalf("sessions: %+v %v", o.Local, err)
	}
	in, err := w.client.Inflows(w.ctx, id)
	if err != nil || len(in.Local) != 2 || in.Local[0].Status != "action_required" || in.Local[1].Status != "confirming" {
		t.Fatalf("sightings: %+v %v", in.Local, err)
	}
	w.Settle()
	if why, err = w.client.Why(w.ctx, r.Outflow); err != nil || why.State != "PAID" || len(why.WaitingFor) != 0 {
		t.Fatalf("paid: %+v %v", why, err)
	}
}

// Coins are missing: the status says which, how many and what follows, the market
// says what blocks, the payout what it waits for, and a refusal is named.
func TestInsolvencyIsTold(t *testing.T) {
	w := serve(t, apitest.NewWithKeys(t))
	id := w.borrower()
	r, err := w.client.Borrow(w.ctx, w.wallet.SignerBTC(), id, client.Payout{Pool: "usdt.eth", Amount: "1000000000", To: payee})
	if err != nil {
		t.Fatal(err)
	}
	custody := func() client.Custody {
		t.Helper()
		st, err := w.client.Status(w.ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range st.Custody {
			if x.Asset == "usdt.eth" {
				return x
			}
		}
		t.Fatalf("no custody of USDT: %+v", st.Custody)
		return client.Custody{}
	}
	if got := custody(); got.Height != 0 || got.Good != nil || got.Halted != "" {
		t.Errorf("never weighed: %+v", got)
	}
	w.Weigh("usdt.eth", 0)
	if got := custody(); got.Good == nil || got.Missing != "0" || got.Halted != "" || got.Amount != got.Books {
		t.Errorf("covered: %+v", got)
	}
	const stolen = 5_000_000_000 // more than the payout that is under way
	w.Weigh("usdt.eth", stolen)
	if got := custody(); got.Good != nil || got.Missing != "5000000000" || !strings.Contains(got.Halted, "5000000000 missing") {
		t.Errorf("stolen: %+v", got)
	}
	why, err := w.client.Why(w.ctx, r.Outflow)
	if err != nil || len(why.WaitingFor) == 0 || why.WaitingFor[0].What != "halt" || !strings.Contains(why.WaitingFor[0].Have, "usdt.eth: insolvent") {
		t.Errorf("why: %+v %v", why, err)
	}
	_, err = w.client.Borrow(w.ctx, w.wallet.SignerBTC(), id, client.Payout{Pool: "usdt.eth", Amount: "1000000000", To: payee})
	var p *client.Problem
	if !errors.As(err, &p) || p.Code != "HALTED" {
		t.Errorf("borrow: %v", err)
	}
	m, err := w.client.Pools(w.ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, pool := range m.Pools {
		blocked := slices.ContainsFunc(pool.Blocks, func(b client.Block) bool { return b.Code == "HALTED" })
		if blocked != (pool.ID == "usdt.eth") {
			t.Errorf("pool %s blocked: %+v", pool.ID, pool.Blocks)
		}
	}
}

func TestCertificatesVerify(t *testing.T) {
	w := serve(t, apitest.NewWithKeys(t))
	var c client.Certificate
	if err := w.client.Get(w.ctx, "/v1/certificates/5", nil, &c); err != nil {
		t.Fatal(err)
	}
	raw, err := hex.DecodeString(c.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	var cert ledger.Certificate
	if err := ledger.Unmarshal(raw, &cert); err != nil {
		t.Fatal(err)
	}
	v := w.View()
	if err := cert.Verify(v.Cluster, v.Epoch()); err != nil || len(c.Signers) != v.Epoch().Q() || c.Height < 5 {
		t.Fatalf("certificate %+v: %v", c, err)
	}
}

func TestProofVerifies(t *testing.T) {
	w := serve(t, apitest.NewWithKeys(t))
	id := w.borrower()
	w.FoldRoot()
	p, err := w.client.Proof(w.ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := hex.DecodeString(p.Proof)
	if err != nil {
		t.Fatal(err)
	}
	var proof ledger.AccountProof
	if err := ledger.Unmarshal(raw, &proof); err != nil {
		t.Fatal(err)
	}
	got, err := proof.Verify(w.View().Genesis.Hash())
	if err != nil || got.Account != id || got.RootHeight != p.RootHeight || got.Head.String() != p.Head {
		t.Fatalf("proof %+v: %v", got, err)
	}
	if b := got.Pools[0]; b.Pool != "btc" || b.Supplied.IsZero() || b.Total.Less(b.Supplied) {
		t.Errorf("proven %+v", b)
	}
}

// Deposits below the minimum are not lost: suspense, claimable.
func TestSuspenseIsShownAndClaimed(t *testing.T) {
	w := serve(t, apitest.NewWithKeys(t))
	id := w.borrower()
	w.Deposit(id, "btc", ledger.PurposeSupply, 9_000) // min_supply is 10 000
	a, err := w.client.Account(w.ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	s := a.Health.Positions[0].Suspense
	if s == nil || s.Amount != "9000" || s.Reason != "BELOW_MIN" {
		t.Fatalf("suspense %+v", s)
	}
	in, err := w.client.Inflows(w.ctx, id)
	if err != nil || in.Inflows[0].Status != "action_required" || in.Inflows[0].Reason != "BELOW_MIN" {
		t.Fatalf("inflow %+v %v", in.Inflows[0], err)
	}
	to := w.wallet.SignerP2TR().ID().String()
	r, err := w.client.Claim(w.ctx, w.wallet.SignerBTC(), id, client.Payout{Pool: "btc", To: to, MaxFee: "1000"})
	if err != nil || r.Outflow == 0 {
		t.Fatalf("claim %+v %v", r, err)
	}
}

// Many readers share one frozen view; previews copy it. Run with -race.
func TestManyReadersAtOnce(t *testing.T) {
	w := serve(t, apitest.NewWithKeys(t))
	id := w.borrower()
	a, err := w.client.PreparePayout(w.ctx, address.ActionBorrow, w.wallet.SignerBTC().ID(), id,
		client.Payout{Pool: "usdt.eth", Amount: "1000000000", To: payee})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 5 {
				if p, err := w.client.Preview(w.ctx, a); err != nil || p.Code != "OK" {
					t.Errorf("preview %+v %v", p, err)
				}
				if _, err := w.client.Account(w.ctx, id); err != nil {
					t.Error(err)
				}
			}
		})
	}
	w.Tick(30 * time.Second)
	wg.Wait()
}

func TestPanicsAreProblemsWithAnID(t *testing.T) {
	c := apitest.New(t)
	srv := httptest.NewServer(api.New(panics{c}, api.Config{}))
	defer srv.Close()
	w := &world{Cluster: c, t: t, url: srv.URL}
	status, h, p := w.get("/v1/sessions")
	w.problem(status, h, p, 500, "INTERNAL")
	if p["requestId"] == "" || strings.Contains(p["detail"].(string), "boom") {
		t.Errorf("panic told as %v", p)
	}
}

type panics struct{ *apitest.Cluster }

func (panics) Sessions() []api.Session { panic("boom") }

func TestBoundRefusesNothingAndHoldsBack(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := api.Bound(l)
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got, err := b.Accept()
	if err != nil {
		t.Fatal(err)
	}
	got.Close()
	got.Close() // leaves its place once
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Accept(); err == nil {
		t.Error("a closed listener accepts")
	}
}

// With eip712 the node renders the fields beside the text; where the ledger does
// not take the scheme it says so.
func TestRenderTypedData(t *testing.T) {
	for _, on := range []bool{false, true} {
		c := apitest.NewWithKeys(t)
		c.EIP712(on)
		w := serve(t, c)
		signer := w.wallet.SignerETH().ID()
		ask := client.RenderRequest{Action: address.ActionOpenAccount, Signer: signer.String(), Scheme: address.SchemeEIP712}
		status, h, body := w.post("/v1/requests/render", ask)
		if !on {
			w.problem(status, h, body, 400, "SCHEME_UNSUPPORTED")
			continue
		}
		g := w.View().Grammar()
		cmd, err := g.Parse(body["text"].(string))
		if err != nil {
			t.Fatal(err)
		}
		want, ok := g.TypedData(signer, cmd)
		if status != 200 || !ok || body["typedData"] != string(want) {
			t.Errorf("%d: %v, want %s", status, body, want)
		}
		ask.Scheme = address.SchemeEIP191
		if status, _, body := w.post("/v1/requests/render", ask); status != 200 || body["typedData"] != nil {
			t.Errorf("eip191: %d %v", status, body)
		}
		ask.Scheme, ask.Signer = address.SchemeEIP712, w.wallet.SignerBTC().ID().String()
		status, h, body = w.post("/v1/requests/render", ask)
		w.problem(status, h, body, 400, "SCHEME_UNSUPPORTED")
	}
}
