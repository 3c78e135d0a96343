package alert

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node/api"
	"github.com/coffer-network/coffer/node/api/apitest"
	"github.com/coffer-network/coffer/node/api/client"
	"github.com/coffer-network/coffer/node/api/history"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "a secret of the operator"

func secretFile(t *testing.T, mode os.FileMode) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(name, []byte(secret+"\n"), mode); err != nil {
		t.Fatal(err)
	}
	return name
}

// hook is an endpoint that checks signatures and keeps what came.
type hook struct {
	*httptest.Server
	t    *testing.T
	got  chan Alert
	next func(n int, w http.ResponseWriter) bool // false: not taken
	mu   sync.Mutex
	n    int
}

func newHook(t *testing.T, next func(int, http.ResponseWriter) bool) *hook {
	h := &hook{t: t, got: make(chan Alert, 1000), next: next}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write(body)
		if r.Header.Get("Coffer-Signature") != "sha256="+hex.EncodeToString(mac.Sum(nil)) {
			t.Errorf("signature %q", r.Header.Get("Coffer-Signature"))
		}
		h.mu.Lock()
		h.n++
		n := h.n
		h.mu.Unlock()
		if h.next != nil && !h.next(n, w) {
			return
		}
		var a Alert
		if err := json.Unmarshal(body, &a); err != nil {
			t.Error(err)
		}
		h.got <- a
	}))
	t.Cleanup(h.Close)
	return h
}

func (h *hook) wait() Alert {
	h.t.Helper()
	select {
	case a := <-h.got:
		return a
	case <-time.After(20 * time.Second):
		h.t.Fatal("no alert")
		return Alert{}
	}
}

type counts struct {
	mu sync.Mutex
	n  map[string]int
}

func (c *counts) add(kind, outcome string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n[outcome]++
}

func (c *counts) of(outcome string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n[outcome]
}

func engine(t *testing.T, c *apitest.Cluster, rules ...Rule) (*Engine, *counts) {
	t.Helper()
	n := &counts{n: map[string]int{}}
	for i := range rules {
		if rules[i].Secret == "" {
			rules[i].Secret = secretFile(t, 0o600)
		}
	}
	e, err := New(Config{
		Rules: rules, Genesis: c.View().Genesis, Source: c, History: c.History(), Count: n.add,
		pause: time.Millisecond, look: time.Hour, now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	return e, n
}

func run(t *testing.T, e *Engine) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); e.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
}

func TestARuleFiresOnceUntilItIsArmedAgain(t *testing.T) {
	c := apitest.NewWithKeys(t)
	h := newHook(t, nil)
	e, _ := engine(t, c, Rule{Kind: PriceBelow, Asset: "btc", Threshold: "48000", URL: h.URL})
	w := e.rules[0]
	fired := 0
	for _, p := range []struct {
		usd   uint64
		fires bool
	}{{50_000, false}, {47_999, true}, {47_000, false}, {48_100, false}, {47_900, false}, {48_961, false}, {47_900, true}} {
		c.Tick(30 * time.Second)
		c.Prices(map[string]uint64{"btc": p.usd})
		e.figures()
		if got := len(w.queue) > fired; got != p.fires {
			t.Errorf("at %d: fired %v, want %v", p.usd, got, p.fires)
		}
		fired = len(w.queue)
	}
	a := <-w.queue
	if a.Kind != PriceBelow || a.Asset != "btc" || a.Value != "4799900000000" || a.Limit != "4800000000000" || a.ID == "" {
		t.Errorf("%+v", a)
	}
}

// A log that is replayed after a start passes through the prices of hours ago, of which
// nobody is told again. Seen failing with Live not asked.
func TestNothingFiresInAReplay(t *testing.T) {
	c := apitest.NewWithKeys(t)
	h := newHook(t, nil)
	e, _ := engine(t, c, Rule{Kind: PriceBelow, Asset: "btc", Threshold: "48000", URL: h.URL})
	live := false
	e.cfg.Live = func(v *ledger.State) bool {
		if v != c.View() {
			t.Error("asked of another state than what is looked at")
		}
		return live
	}
	for _, want := range []int{0, 1} {
		c.Tick(30 * time.Second)
		c.Prices(map[string]uint64{"btc": 40_000})
		if e.figures(); len(e.rules[0].queue) != want {
			t.Errorf("live %t: %d alerts", live, len(e.rules[0].queue))
		}
		live = true
	}
}

func TestARuleIsLimitedPerHour(t *testing.T) {
	c := apitest.NewWithKeys(t)
	h := newHook(t, nil)
	e, n := engine(t, c, Rule{Kind: DepositCredited, Account: "*", URL: h.URL})
	now := time.Unix(0, 0)
	e.cfg.now = func() time.Time { return now }
	deposit := func(i int) {
		e.effect(history.Record{Height: uint64(i)}, history.Entry{Event: ledger.Event{Name: "credited", Account: "a", Asset: "btc", Amount: "1"}})
		for len(e.rules[0].queue) > 0 {
			<-e.rules[0].queue
		}
	}
	for i := range 2 * maxPerHour {
		deposit(i)
	}
	if n.of("dropped") != maxPerHour {
		t.Errorf("%d dropped of %d", n.of("dropped"), 2*maxPerHour)
	}
	now = now.Add(time.Hour + time.Second)
	deposit(9999)
	if n.of("dropped") != maxPerHour {
		t.Error("still dropped an hour later")
	}
}

func TestDepositsAreTold(t *testing.T) {
	c := apitest.NewWithKeys(t)
	h := newHook(t, nil)
	e, _ := engine(t, c, Rule{Kind: DepositCredited, Account: "*", URL: h.URL}, Rule{Kind: OutflowSent, Account: strings.Repeat("b", 32), URL: h.URL})
	run(t, e)
	account := strings.Repeat("a", 32)
	last, _ := c.History().Now()
	height := last + 1
	// Told until the engine listens: it begins with what happens after its start.
	for len(h.got) == 0 && height < last+20_000 {
		c.History().Applied(history.Record{Height: height, Millis: 5, Entries: []history.Entry{
			{Event: ledger.Event{Name: "credited", Account: account, Asset: "btc", Amount: "7"}, Inflow: "ab:0"},
			{Event: ledger.Event{Name: "outflow-state", Note: "MINED", Account: account, Outflow: 3}},
		}})
		height++
		time.Sleep(time.Millisecond)
	}
	a := h.wait()
	if a.Kind != DepositCredited || a.Account != account || a.Value != "7" || a.TxID != "ab:0" || a.LogIndex == 0 {
		t.Errorf("%+v", a)
	}
}

// An endpoint that fails is tried again with the same id; one that is slow or
// gone holds up nobody else.
func TestFailingAndSlowEndpoints(t *testing.T) {
	c := apitest.NewWithKeys(t)
	flaky := newHook(t, func(n int, w http.ResponseWriter) bool {
		if n < 3 {
			w.WriteHeader(http.StatusInternalServerError)
		}
		return n >= 3
	})
	stuck := make(chan struct{})
	slow := newHook(t, func(int, http.ResponseWriter) bool { <-stuck; return false })
	defer close(stuck)
	broken := newHook(t, func(_ int, w http.ResponseWriter) bool { w.WriteHeader(http.StatusBadGateway); return false })
	below := func(url string) Rule { return Rule{Kind: PriceBelow, Asset: "btc", Threshold: "60000", URL: url} }
	e, n := engine(t, c, below(slow.URL), below(broken.URL), below(flaky.URL))
	run(t, e)
	if a := flaky.wait(); a.Value != "5000000000000" {
		t.Errorf("%+v", a)
	}
	for range 5000 {
		if n.of("failed") == 1 && n.of("sent") == 1 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if n.of("failed") != 1 || n.of("sent") != 1 {
		t.Errorf("%d failed, %d sent", n.of("failed"), n.of("sent"))
	}
	broken.mu.Lock()
	defer broken.mu.Unlock()
	if broken.n != tries {
		t.Errorf("%d tries at the broken endpoint, want %d", broken.n, tries)
	}
}

func TestRedirectsAreRefused(t *testing.T) {
	c := apitest.NewWithKeys(t)
	elsewhere := newHook(t, nil)
	h := newHook(t, func(_ int, w http.ResponseWriter) bool {
		w.Header().Set("Location", elsewhere.URL)
		w.WriteHeader(http.StatusTemporaryRedirect)
		return false
	})
	e, _ := engine(t, c, Rule{Kind: PriceBelow, Asset: "btc", Threshold: "60000", URL: h.URL})
	defer e.http.CloseIdleConnections()
	if err := e.send(t.Context(), e.rules[0], Alert{ID: "1"}); err == nil || !strings.Contains(err.Error(), "redirects") {
		t.Error(err)
	}
	if len(elsewhere.got) != 0 {
		t.Error("figures went elsewhere")
	}
}

func TestRulesThatAreRefused(t *testing.T) {
	g := apitest.NewWithKeys(t).View().Genesis
	good := secretFile(t, 0o600)
	account := strings.Repeat("a", 32)
	ok := Rule{Kind: PriceBelow, Asset: "btc", Threshold: "1", URL: "https://example.org/x", Secret: good}
	if err := Validate([]Rule{ok, {Kind: HealthBelow, Account: account, Threshold: "1.2", URL: "http://127.0.0.1:1/", Secret: good}}, g); err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(*Rule){
		"kind":            func(r *Rule) { r.Kind = "mood-below" },
		"asset":           func(r *Rule) { r.Asset = "doge" },
		"threshold":       func(r *Rule) { r.Threshold = "-1" },
		"zero":            func(r *Rule) { r.Threshold = "0" },
		"digits":          func(r *Rule) { r.Threshold = "1.123456789" },
		"http elsewhere":  func(r *Rule) { r.URL = "http://example.org/" },
		"http by name":    func(r *Rule) { r.URL = "http://localhost/" },
		"file":            func(r *Rule) { r.URL = "file:///etc/passwd" },
		"user":            func(r *Rule) { r.URL = "https://a:b@example.org/" },
		"no secret":       func(r *Rule) { r.Secret = "" },
		"readable secret": func(r *Rule) { r.Secret = secretFile(t, 0o644) },
		"health of all":   func(r *Rule) { r.Kind, r.Account, r.Threshold = HealthBelow, "*", "1.01" },
		"health of none":  func(r *Rule) { r.Kind = HealthBelow },
		"deposit of none": func(r *Rule) { r.Kind, r.Threshold = DepositCredited, "" },
	} {
		r := ok
		change(&r)
		if err := Validate([]Rule{r}, g); err == nil {
			t.Errorf("%s: taken", what)
		}
	}
	if err := Validate(make([]Rule, MaxRules+1), g); err == nil {
		t.Error("too many rules taken")
	}
}

// A rule about all accounts tells of each that fell below 1, once until it is
// well again. Seen failing without w.below: "step 2, at 40000: 2 alerts, want 1".
func TestARuleAboutEverybodysHealth(t *testing.T) {
	c := apitest.NewWithKeys(t)
	srv := httptest.NewServer(api.New(c, api.Config{History: c.History()}))
	defer srv.Close()
	anyone, err := client.New(srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	served, err := anyone.Cluster(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	pin, err := client.NewPin(served)
	if err != nil {
		t.Fatal(err)
	}
	w, err := client.NewWallet(pin)
	if err != nil {
		t.Fatal(err)
	}
	cl, err := client.New(srv.URL, pin)
	if err != nil {
		t.Fatal(err)
	}
	for by, d := range map[client.Signer]struct {
		asset string
		units uint64
	}{w.SignerBTC(): {"btc", 100_000_000}, w.SignerETH(): {"usdt.eth", 100_000_000_000}} {
		a, err := cl.Open(t.Context(), by)
		if err != nil {
			t.Fatal(err)
		}
		c.Deposit(a.ID, d.asset, ledger.PurposeSupply, d.units)
	}
	id := pin.AccountOf(w.SignerBTC().ID())
	payout := client.Payout{Pool: "usdt.eth", Amount: "35000000000", To: "eip155:1337:0x71C7656EC7ab88b098defB751B7401B5f6d8976F"}
	if _, err := cl.Borrow(t.Context(), w.SignerBTC(), id, payout); err != nil {
		t.Fatal(err)
	}
	c.Settle()
	h := newHook(t, nil)
	e, _ := engine(t, c, Rule{Kind: HealthBelow, Account: "*", Threshold: "1", URL: h.URL})
	for i, step := range []struct {
		usd    uint64
		alerts int
	}{{50_000, 0}, {41_000, 1}, {40_000, 1}, {44_000, 1}, {41_000, 1}, {50_000, 1}, {41_000, 2}} {
		c.Tick(15 * time.Second)
		c.Prices(map[string]uint64{"btc": step.usd, "eth": 2_500, "usdt.eth": 1})
		e.figures()
		if got := len(e.rules[0].queue); got != step.alerts {
			t.Errorf("step %d, at %d: %d alerts, want %d", i, step.usd, got, step.alerts)
		}
	}
	if a := <-e.rules[0].queue; a.Account != id || a.Kind != HealthBelow || len(a.Value) != 18 {
		t.Errorf("%+v", a)
	}
}
