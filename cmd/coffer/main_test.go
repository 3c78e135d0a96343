package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node"
	"github.com/coffer-network/coffer/node/api"
	"github.com/coffer-network/coffer/node/api/apitest"
	"github.com/coffer-network/coffer/node/api/client"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"coffer": main})
}

// Scripts see a served cluster in memory at $COFFER_API, and the commands:
//
//	deposit ASSET UNITS   1 confirmed deposit for the account in account.json; $ACCOUNT and $LASTTX name it
//	cut-id FILE KEY VAR   the value of KEY in a JSON document, as $VAR
//	held-drill NAME FILE  m operators sign with their backups, and print what coffer node drill does
//	settle                pay what is queued
//	insure                $ACCOUNT may cover deficits, as a vote would say
//	price BTC-USD SECONDS BTC falls or rises, ETH and USDT stay; then time passes, and fee rates are fresh
//	tick SECONDS          time passes
//	eip712 on|off         requests may be signed so, as a vote would say
//	voteall FILE          n2 and n3 agree to the proposal that FILE names
//	lie on|off            alter one character of every Bitcoin address served
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			c := apitest.NewWithKeys(t)
			lying := new(atomic.Bool)
			srv := httptest.NewServer(liar(lying, api.New(c, api.Config{History: c.History()})))
			e.Defer(srv.Close)
			e.Setenv("COFFER_API", srv.URL)
			for i := range 4 { // each member's directory, with the socket of its node
				if err := serveControl(e, c, i); err != nil {
					return err
				}
			}
			e.Setenv("HOME", e.WorkDir)
			e.Values["cluster"], e.Values["lying"] = c, lying
			return lender(c, srv.URL)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"deposit": func(ts *testscript.TestScript, _ bool, a []string) {
				account := regexp.MustCompile(`"id":"([0-9a-f]{32})"`).FindStringSubmatch(ts.ReadFile("account.json"))
				units, err := strconv.ParseUint(a[1], 10, 64)
				ts.Check(err)
				c := ts.Value("cluster").(*apitest.Cluster)
				c.Deposit(account[1], a[0], ledger.PurposeSupply, units)
				last := ""
				for id := range c.View().Inflows.All() {
					last = max(last, id)
				}
				txid, _, _ := strings.Cut(last, ":")
				ts.Setenv("ACCOUNT", account[1])
				ts.Setenv("LASTTX", txid)
			},
			"held-drill": func(ts *testscript.TestScript, _ bool, a []string) {
				held := ts.Value("cluster").(*apitest.Cluster).Drill(a[0])
				res := node.DrillResult{Name: held.Name}
				for id, sig := range held.Signatures {
					res.Keys = append(res.Keys, node.DrilledAt{Key: id, Signature: sig})
				}
				b, err := json.Marshal(drillOutput{OK: true, Drill: res})
				ts.Check(err)
				ts.Check(os.WriteFile(ts.MkAbs(a[1]), b, 0o600))
			},
			"fold-root": func(ts *testscript.TestScript, _ bool, _ []string) {
				c := ts.Value("cluster").(*apitest.Cluster)
				c.FoldRoot()
				ts.Setenv("GENESIS", c.View().Genesis.Hash().String())
			},
			"cut-id": func(ts *testscript.TestScript, _ bool, a []string) {
				m := regexp.MustCompile(`"` + a[1] + `":"?([0-9A-Za-z:]+)`).FindStringSubmatch(ts.ReadFile(a[0]))
				if m == nil {
					ts.Fatalf("no %s in %s", a[1], ts.ReadFile(a[0]))
				}
				ts.Setenv(a[2], m[1])
			},
			"insure": func(ts *testscript.TestScript, _ bool, _ []string) {
				ts.Value("cluster").(*apitest.Cluster).Insure(ts.Getenv("ACCOUNT"))
			},
			"settle": func(ts *testscript.TestScript, _ bool, _ []string) { ts.Value("cluster").(*apitest.Cluster).Settle() },
			"price": func(ts *testscript.TestScript, _ bool, a []string) {
				usd, err := strconv.ParseUint(a[0], 10, 64)
				ts.Check(err)
				seconds, err := strconv.ParseUint(a[1], 10, 64)
				ts.Check(err)
				c := ts.Value("cluster").(*apitest.Cluster)
				c.Tick(15 * time.Second)
				c.Prices(map[string]uint64{"btc": usd, "eth": 2_500, "usdt.eth": 1})
				c.Tick(time.Duration(seconds) * time.Second)
				c.Say(ledger.KindFee, []ledger.FeeReport{{Chain: "btc", Rate: 1_000}, {Chain: "eth", Rate: 1_000_000_000, Tip: 1_000_000_000}})
			},
			"tick": func(ts *testscript.TestScript, _ bool, a []string) {
				seconds, err := strconv.ParseUint(a[0], 10, 64)
				ts.Check(err)
				ts.Value("cluster").(*apitest.Cluster).Tick(time.Duration(seconds) * time.Second)
			},
			"eip712": func(ts *testscript.TestScript, _ bool, a []string) {
				ts.Value("cluster").(*apitest.Cluster).EIP712(a[0] == "on")
			},
			"voteall": func(ts *testscript.TestScript, _ bool, a []string) {
				hash := regexp.MustCompile(`"hash":"([0-9a-f]{64})"`).FindStringSubmatch(ts.ReadFile(a[0]))
				for _, dir := range []string{"n2", "n3"} {
					ts.Check(ts.Exec("coffer", "vote", "yes", hash[1][:8], "--dir", dir))
				}
			},
			"lie": func(ts *testscript.TestScript, _ bool, a []string) {
				ts.Value("lying").(*atomic.Bool).Store(a[0] == "on")
			},
		},
	})
}

// serveControl serves member i's control socket in $WORK/n1 to n4.
func serveControl(e *testscript.Env, c *apitest.Cluster, i int) error {
	dir := filepath.Join(e.WorkDir, fmt.Sprint("n", i+1))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	l, err := net.Listen("unix", filepath.Join(dir, client.ControlSocket))
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: api.NewControl(c.Member(i), api.Config{})}
	go srv.Serve(l)
	e.Defer(func() { srv.Close() })
	return nil
}

// liar changes the last character of every regtest address it lets through.
func liar(lying *atomic.Bool, h http.Handler) http.Handler {
	at := regexp.MustCompile(`"bcrt1q[0-9a-z]+"`)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/events" { // a stream, and without addresses
			h.ServeHTTP(w, r)
			return
		}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		body := rec.Body.Bytes()
		if lying.Load() {
			body = at.ReplaceAllFunc(body, func(b []byte) []byte {
				b = bytes.Clone(b)
				if b[len(b)-2] == 'q' {
					b[len(b)-2] = 'p'
				} else {
					b[len(b)-2] = 'q'
				}
				return b
			})
		}
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(rec.Code)
		w.Write(body)
	})
}

// lender supplies 100,000 USDT, so that there is something to borrow.
func lender(c *apitest.Cluster, url string) error {
	ctx := context.Background()
	first, err := client.New(url, nil)
	if err != nil {
		return err
	}
	cl, err := first.Cluster(ctx)
	if err != nil {
		return err
	}
	pin, err := client.NewPin(cl)
	if err != nil {
		return err
	}
	w, err := client.NewWallet(pin)
	if err != nil {
		return err
	}
	a, err := first.Open(ctx, w.SignerETH())
	if err != nil {
		return err
	}
	c.Deposit(a.ID, "usdt.eth", ledger.PurposeSupply, 100_000_000_000)
	return nil
}

// "every command has --json and an example in its help"
func TestEveryCommandHasAnExampleAndJSON(t *testing.T) {
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Hidden {
			return
		}
		group := c.HasSubCommands() && !c.Flags().HasFlags()
		if name := c.CommandPath(); c.Name() != "help" && c.Name() != "completion" {
			if !strings.Contains(c.Example, "coffer") {
				t.Errorf("%s has no example", name)
			}
			if c != c.Root() && !group && c.Flags().Lookup("json") == nil {
				t.Errorf("%s has no --json", name)
			}
			if c.Short == "" || strings.HasSuffix(c.Short, ".") {
				t.Errorf("%s: short help %q", name, c.Short)
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRootCmd())
}

func TestUnits(t *testing.T) {
	usdt := client.Asset{Symbol: "USDT", Decimals: 6}
	for in, want := range map[string]string{
		"15000": "15000000000", "0.5": "500000", "000.100": "100000", "0": "0", "1.000001": "1000001",
		"340282366920938463463374607431768.211455": "340282366920938463463374607431768211455",
	} {
		if got, err := units(in, usdt); err != nil || got != want {
			t.Errorf("units(%s) = %s, %v; want %s", in, got, err, want)
		}
	}
	for _, in := range []string{"", ".", "1.", ".5", "-1", "+1", "1e6", "1,5", "1 000", "0x1", "1.0000001", "340282366920938463463374607431768.211456", "１"} {
		if got, err := units(in, usdt); err == nil {
			t.Errorf("units(%q) = %s, want a refusal", in, got)
		}
	}
}

func TestScaled(t *testing.T) {
	for _, tc := range []struct {
		n        string
		digits   int
		decimals int
		want     string
	}{
		{"888888888888888888", 18, 2, "0.88"},
		{"5000000000000", 8, 2, "50000.00"},
		{"0", 8, 2, "0.00"},
		{"x", 8, 2, "–"},
	} {
		if got := scaled(tc.n, tc.digits, tc.decimals); got != tc.want {
			t.Errorf("scaled(%s) = %s, want %s", tc.n, got, tc.want)
		}
	}
}

// Stdout of a failed --json command is one JSON document.
func TestJSONErrorsCarryTheCode(t *testing.T) {
	var out bytes.Buffer
	cmd := newStatusCmd()
	cmd.SetOut(&out)
	cmd.SetErr(io.Discard)
	printJSONError(cmd, &client.Problem{Code: "HEALTH_FACTOR", Status: 422})
	if s := out.String(); !strings.Contains(s, `"ok":false`) || !strings.Contains(s, `"code":"HEALTH_FACTOR"`) {
		t.Errorf("printed %s", s)
	}
}

func TestExitCodes(t *testing.T) {
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	ctx := context.Background()
	for _, tc := range []struct {
		ctx  context.Context
		err  error
		want int
	}{
		{ctx, usagef("no"), exitUsage},
		{ctx, args(cobra.NoArgs)(newStatusCmd(), []string{"x"}), exitUsage},
		{ctx, &client.Problem{Code: "HEALTH_FACTOR"}, exitFailed},
		{ctx, &client.MismatchError{}, exitFailed},
		{ctx, later(fmt.Errorf("post: %w", context.DeadlineExceeded)), exitUnknown},
		{gone, errors.New("interrupted"), exitSignal},
	} {
		if got := exitCode(tc.ctx, tc.err); got != tc.want {
			t.Errorf("%v exits %d, want %d", tc.err, got, tc.want)
		}
	}
}
