package api_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node/api"
	"github.com/coffer-network/coffer/node/api/apitest"
	"github.com/coffer-network/coffer/node/api/client"
	"github.com/coffer-network/coffer/node/api/history"
)

// frames reads a stream until it has sent LogIndex until.
func frames(t *testing.T, url string, until uint64, header ...string) (raw []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	if a.StatusCode != 200 || a.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%s: %s %s", url, a.Status, a.Header.Get("Content-Type"))
	}
	s := bufio.NewScanner(a.Body)
	s.Buffer(nil, 1<<20)
	s.Split(func(b []byte, end bool) (int, []byte, error) {
		if i := bytes.Index(b, []byte("\n\n")); i >= 0 {
			return i + 2, b[:i], nil
		}
		return 0, nil, nil
	})
	for s.Scan() {
		f := s.Text()
		if strings.HasPrefix(f, "id: ") {
			raw = append(raw, f)
			var id uint64
			fmt.Sscanf(f, "id: %d", &id)
			if id >= until {
				return raw
			}
		}
		if strings.Contains(f, "event: reset") {
			return append(raw, f)
		}
	}
	t.Fatalf("%s ended before LogIndex %d: %v", url, until, s.Err())
	return nil
}

func idOf(frame string) (id uint64) { fmt.Sscanf(frame, "id: %d", &id); return id }

// "Two nodes send the same bytes for one LogIndex", and a stream that goes on at
// another node lacks nothing and doubles nothing (spec: requests §6.2).
func TestAStreamGoesOnAtAnotherNode(t *testing.T) {
	w := serve(t, apitest.NewWithKeys(t))
	other := w.Cluster.Replica()
	second := httptest.NewServer(api.New(other, api.Config{History: other.History()}))
	defer second.Close()
	id := w.borrower()
	r, err := w.client.Borrow(w.ctx, w.wallet.SignerBTC(), id, client.Payout{Pool: "usdt.eth", Amount: "20000000000", To: payee})
	if err != nil {
		t.Fatal(err)
	}
	w.Settle()
	w.Prices(map[string]uint64{"btc": 51_000})

	q := "/v1/events?topics=account:" + id + ",markets,cluster&after="
	last, _ := w.History().Now()
	head := uint64(0)
	for h := last; head == 0; h-- { // the last LogIndex with something in it
		rs, _, err := w.History().After(h-1, 1)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range rs {
			for _, e := range x.Entries {
				if e.Event.Name == "price" {
					head = x.Height
				}
			}
		}
	}
	a := frames(t, w.url+q+"1", head)
	b := frames(t, second.URL+q+"1", head)
	if !slices.Equal(a, b) || len(a) < 6 {
		t.Fatalf("two nodes send %d and %d frames that differ", len(a), len(b))
	}
	half := idOf(a[len(a)/2])
	first := frames(t, w.url+q+"1", half)
	rest := frames(t, second.URL+q+"1", head, "Last-Event-ID", fmt.Sprint(half))
	if !slices.Equal(append(first, rest...), a) {
		t.Fatalf("half from one and half from the other: %d + %d frames, want %d alike", len(first), len(rest), len(a))
	}
	seen := map[uint64]bool{}
	for _, f := range a {
		if seen[idOf(f)] {
			t.Errorf("LogIndex %d in two frames", idOf(f))
		}
		seen[idOf(f)] = true
	}

	// The request's own stream follows the outflow it created, on either node.
	text, paid := r.ID, uint64(0)
	for _, f := range a {
		if strings.Contains(f, `"note":"PAID"`) && strings.Contains(f, id) {
			paid = idOf(f)
		}
	}
	for _, url := range []string{w.url, second.URL} {
		mine := strings.Join(frames(t, url+"/v1/requests/"+text+"/events?after=1", paid), "\n")
		for _, want := range []string{`"code":"OK"`, `"name":"outflow"`, `"note":"PLANNED"`, `"note":"PAID"`} {
			if !strings.Contains(mine, want) {
				t.Errorf("the request's stream lacks %s:\n%s", want, mine)
			}
		}
		if strings.Contains(mine, `"name":"price"`) {
			t.Error("the request's stream tells of prices")
		}
	}
}

// client.Watch goes on where a node dies.
func TestWatchGoesOnWhereANodeDies(t *testing.T) {
	w := serve(t, apitest.NewWithKeys(t))
	other := w.Cluster.Replica()
	first := httptest.NewServer(api.New(w.Cluster, api.Config{History: w.History()}))
	second := httptest.NewServer(api.New(other, api.Config{History: other.History()}))
	defer second.Close()
	id := w.borrower()
	var nodes []*client.Client
	for _, url := range []string{first.URL, second.URL} {
		c, err := client.New(url, nil)
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, c)
	}
	var ids []uint64
	from := map[string]int{}
	stop := errors.New("enough")
	err := client.Watch(w.ctx, nodes, []string{"account:" + id, "markets"}, 1, func(f client.Frame) error {
		if f.Kind != client.FrameLedger {
			return nil
		}
		ids = append(ids, f.ID)
		from[f.Node]++
		switch {
		case len(ids) == 3:
			first.CloseClientConnections()
			go first.Close()
			w.Prices(map[string]uint64{"btc": 52_000})
		case from[second.URL] > 0:
			var x client.LedgerFrame
			if err := json.Unmarshal(f.Data, &x); err != nil {
				return err
			}
			if len(x.Events) > 0 && x.Events[0].Name == "price" && x.Events[0].Amount == "5200000000000" {
				return stop
			}
		}
		return nil
	})
	if !errors.Is(err, stop) {
		t.Fatal(err)
	}
	var want []uint64
	rs, _, _ := other.History().After(1, 1<<20)
	for _, r := range rs {
		keep := r.Touches(id)
		for _, e := range r.Entries {
			keep = keep || e.Event.Name == "price"
		}
		if keep && r.Height <= ids[len(ids)-1] {
			want = append(want, r.Height)
		}
	}
	if !slices.Equal(ids, want) || len(from) != 2 {
		t.Errorf("from %v: %v, want %v", from, ids, want)
	}
}

func TestAStreamSaysWhenItCannotGoOn(t *testing.T) {
	w := serve(t, apitest.NewWithKeys(t))
	w.Tick(10 * time.Second)
	last, _ := w.History().Now()
	store := history.Open(history.Config{})
	store.Applied(history.Record{Height: last + 1, Entries: []history.Entry{{Event: ledger.Event{Name: "epoch"}}}}) // memory begins here
	srv := httptest.NewServer(api.New(w.Cluster, api.Config{History: store}))
	defer srv.Close()
	f := frames(t, srv.URL+"/v1/events?topics=cluster&after=5", 1<<62)
	if len(f) != 1 || !strings.Contains(f[0], `"reason":"forgotten"`) || !strings.Contains(f[0], fmt.Sprintf(`"asOf":%d`, last+1)) {
		t.Errorf("after 5: %v", f)
	}
}

func TestBadTopicsAreRefused(t *testing.T) {
	w := serve(t, apitest.NewWithKeys(t))
	many := strings.TrimSuffix(strings.Repeat("markets,", 65), ",")
	for _, q := range []string{
		"?topics=", "?topics=prices", "?topics=account:5", "?topics=request:00", "?topics=outflow:x", "?topics=outflow:0",
		"?topics=request:" + strings.Repeat("0", 64), "?topics=" + many, "?topics=markets&after=x",
	} {
		status, h, p := w.get("/v1/events" + q)
		w.problem(status, h, p, 400, "MALFORMED")
	}
}

func TestStreamsOfOneAddressAreLimited(t *testing.T) {
	c := apitest.NewWithKeys(t)
	h := api.New(c, api.Config{History: c.History()})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	open := func(addr string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, "/v1/events?topics=markets", nil).WithContext(ctx)
		r.RemoteAddr = addr
		rec := &syncRecorder{ResponseRecorder: httptest.NewRecorder(), wrote: make(chan struct{}, 1000)}
		done := make(chan struct{})
		go func() { defer close(done); h.ServeHTTP(rec, r) }()
		select {
		case <-rec.wrote: // the first beat, or a refusal
			if rec.Code == 200 {
				return nil
			}
			<-done
			return rec.ResponseRecorder
		case <-done:
			return rec.ResponseRecorder
		}
	}
	for i := range 16 {
		if rec := open("192.0.2.1:1"); rec != nil && rec.Code != 200 {
			t.Fatalf("stream %d: %d %s", i, rec.Code, rec.Body)
		}
	}
	rec := open("192.0.2.1:2")
	if rec == nil || rec.Code != 503 || rec.Header().Get("Retry-After") == "" || !strings.Contains(rec.Body.String(), "OVERLOADED") {
		t.Fatalf("the 17th stream of an address: %+v", rec)
	}
	if rec := open("192.0.2.2:1"); rec != nil {
		t.Errorf("another address: %d", rec.Code)
	}
}

type syncRecorder struct {
	*httptest.ResponseRecorder
	wrote chan struct{}
}

func (r *syncRecorder) Write(b []byte) (int, error) {
	n, err := r.ResponseRecorder.Write(b)
	select {
	case r.wrote <- struct{}{}:
	default:
	}
	return n, err
}

// "503 with Retry-After … the client learns which limit" (spec: consensus §9)
func TestCallsOfOneAddressAreLimited(t *testing.T) {
	c := apitest.NewWithKeys(t)
	h := api.New(c, api.Config{History: c.History()})
	ask := func(method, addr string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, "/healthz", nil)
		r.RemoteAddr = addr
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		return rec
	}
	shed := func(method, addr string, most int) int {
		for i := range most {
			if rec := ask(method, addr); rec.Code == 503 {
				if rec.Header().Get("Retry-After") == "" || !strings.Contains(rec.Body.String(), `"code":"OVERLOADED"`) || !strings.Contains(rec.Body.String(), `"limit":"`) {
					t.Errorf("%s", rec.Body)
				}
				return i
			}
		}
		return most
	}
	if n := shed("GET", "192.0.2.1:1", 5000); n < 200 || n == 5000 {
		t.Errorf("%d calls of one address pass", n)
	}
	if n := shed("POST", "[2001:db8::1]:1", 5000); n < 50 || n == 5000 {
		t.Errorf("%d posts of one address pass", n)
	}
	if rec := ask("POST", "[2001:db8::2]:1"); rec.Code != 503 {
		t.Errorf("the neighbour in the same /64: %d", rec.Code)
	}
	if rec := ask("GET", "192.0.2.9:1"); rec.Code != 200 {
		t.Errorf("another address: %d", rec.Code)
	}
	if n := shed("GET", "127.0.0.1:1", 1000); n != 1000 {
		t.Errorf("loopback is shed after %d", n)
	}
}

func TestHistoryOfAnAccount(t *testing.T) {
	w := serve(t, apitest.NewWithKeys(t))
	id := w.borrower()
	btc := w.wallet.SignerBTC()
	if _, err := w.client.Borrow(w.ctx, btc, id, client.Payout{Pool: "usdt.eth", Amount: "20000000000", To: payee}); err != nil {
		t.Fatal(err)
	}
	w.Settle()
	if _, err := w.client.Borrow(w.ctx, btc, id, client.Payout{Pool: "usdt.eth", Amount: "45000000000", To: payee}); !client.IsCode(err, "HEALTH_FACTOR") {
		t.Fatal(err)
	}
	all, err := w.client.History(w.ctx, id, "", 200)
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, x := range all.Rows {
		kinds = append(kinds, strings.TrimSpace(x.Kind+" "+x.State+" "+strings.TrimPrefix(x.Code, "OK")))
	}
	want := []string{"request  HEALTH_FACTOR", "borrow PAID", "borrow MINED", "borrow PLANNED", "borrow QUEUED", "supply", "opened"}
	if !slices.Equal(kinds, want) {
		t.Fatalf("%q, want %q", kinds, want)
	}
	if x := all.Rows[0]; x.Limit != "1000000000000000000" || x.Found == "" || x.LogIndex == 0 {
		t.Errorf("the refusal without its numbers: %+v", x)
	}
	paid, borrowed, supplied := all.Rows[1], all.Rows[4], all.Rows[5]
	if paid.TxID == "" || paid.Fee == "" || paid.Fee == "0" || paid.Amount != "20000000000" || borrowed.Request == "" || borrowed.Price != "100000000" {
		t.Errorf("payout %+v, request %+v", paid, borrowed)
	}
	if supplied.Price != "5000000000000" || supplied.Amount != "100000000" || supplied.TxID == "" || supplied.Symbol != "BTC" {
		t.Errorf("deposit %+v", supplied)
	}
	for _, limit := range []int{1, 2, 3, 6, 7} { // pages put together are the whole
		var got []client.HistoryRow
		for cursor := ""; ; {
			h, err := w.client.History(w.ctx, id, cursor, limit)
			if err != nil {
				t.Fatal(err)
			}
			if len(h.Rows) > limit {
				t.Fatalf("%d rows, asked for %d", len(h.Rows), limit)
			}
			got = append(got, h.Rows...)
			if cursor = h.Next; cursor == "" {
				break
			}
		}
		if !slices.Equal(got, all.Rows) {
			t.Errorf("pages of %d: %d rows, want %d", limit, len(got), len(all.Rows))
		}
	}
	r, err := http.NewRequest(http.MethodGet, w.url+"/v1/accounts/"+id+"/history?limit=200", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "text/csv")
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	lines, err := csv.NewReader(a.Body).ReadAll()
	if err != nil || len(lines) != len(all.Rows)+1 || a.Header.Get("Content-Type") != "text/csv; charset=utf-8" || a.Header.Get("X-As-Of") == "" {
		t.Fatalf("CSV: %d lines, %v %v", len(lines), a.Header, err)
	}
	for i, row := range all.Rows {
		if !slices.Equal(lines[i+1], row.Columns()) {
			t.Errorf("CSV line %d: %v", i+1, lines[i+1])
		}
	}
	status, h, p := w.get("/v1/accounts/" + strings.Repeat("0", 32) + "/history")
	w.problem(status, h, p, 404, "UNKNOWN_ACCOUNT")
	status, h, p = w.get("/v1/accounts/" + id + "/history?cursor=x")
	w.problem(status, h, p, 400, "MALFORMED")
}

func TestHistoryThatCannotBeReadIs503(t *testing.T) {
	w := serve(t, apitest.NewWithKeys(t))
	id := w.borrower()
	store := history.Open(history.Config{Dir: t.TempDir(), Cluster: w.View().Cluster})
	store.Close()
	srv := httptest.NewServer(api.New(w.Cluster, api.Config{History: store}))
	defer srv.Close()
	w.url = srv.URL
	status, h, p := w.get("/v1/accounts/" + id + "/history")
	w.problem(status, h, p, 503, "UNAVAILABLE")
	if status, _, _ = w.get("/v1/accounts/" + id); status != 200 {
		t.Errorf("the account itself answers %d", status)
	}
}
