package client_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/node/api"
	"github.com/coffer-network/coffer/node/api/apitest"
	"github.com/coffer-network/coffer/node/api/client"
)

// node serves a cluster; alter, when set, changes what its answers say.
type node struct {
	*httptest.Server
	alter atomic.Pointer[func(path string, body []byte) []byte]
}

func serve(t *testing.T, b api.Backend) *node {
	n := &node{}
	h := api.New(b, api.Config{})
	n.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		body := rec.Body.Bytes()
		if f := n.alter.Load(); f != nil {
			body = (*f)(r.URL.Path, body)
		}
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(rec.Code)
		w.Write(body)
	}))
	t.Cleanup(n.Close)
	return n
}

func (n *node) lie(f func(path string, body []byte) []byte) { n.alter.Store(&f) }

func setUp(t *testing.T) (context.Context, *node, *client.Client, *client.Wallet) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	n := serve(t, apitest.NewWithKeys(t))
	first, err := client.New(n.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	cl, err := first.Cluster(ctx)
	if err != nil {
		t.Fatal(err)
	}
	pin, err := client.NewPin(cl)
	if err != nil {
		t.Fatal(err)
	}
	w, err := client.NewWallet(pin)
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(n.URL, pin)
	if err != nil {
		t.Fatal(err)
	}
	return ctx, n, c, w
}

// "a test's proxy that alters one character is refused" (spec: requests §6.1)
func TestAnAlteredDepositAddressIsRefusedAndNotShown(t *testing.T) {
	ctx, n, c, w := setUp(t)
	a, err := c.Open(ctx, w.SignerBTC())
	if err != nil {
		t.Fatal(err)
	}
	other, err := client.New(serveAgain(t, n).URL, w.Pin())
	if err != nil {
		t.Fatal(err)
	}
	for _, asset := range []string{"btc", "usdt.eth"} {
		for _, purpose := range []string{client.Supply, client.Repay} {
			n.lie(func(_ string, b []byte) []byte { return b })
			x, err := c.AssetNamed(ctx, asset)
			if err != nil {
				t.Fatal(err)
			}
			good, err := c.DepositAddress(ctx, a.ID, x, purpose, other)
			if err != nil {
				t.Fatal(err)
			}
			for _, field := range []string{good.Address, good.Path} {
				altered := flip(field)
				n.lie(func(path string, b []byte) []byte {
					if !strings.HasPrefix(path, "/v1/accounts/") {
						return b
					}
					return bytes.ReplaceAll(b, []byte(field), []byte(altered))
				})
				_, err = c.DepositAddress(ctx, a.ID, x, purpose)
				var m *client.MismatchError
				if !errors.As(err, &m) || m.Node != n.URL {
					t.Fatalf("%s %s with %s for %s: %v", asset, purpose, altered, field, err)
				}
				if strings.Contains(err.Error(), altered) || strings.Contains(err.Error(), good.Address) {
					t.Errorf("the refusal shows an address: %v", err)
				}
				if err := c.CheckAddresses(ctx, lied(t, ctx, c, a.ID)); !errors.As(err, &m) {
					t.Errorf("account with an altered address: %v", err)
				}
				if _, err := other.DepositAddress(ctx, a.ID, x, purpose, c); !errors.As(err, &m) {
					t.Errorf("the second node asked lies: %v", err)
				}
			}
		}
	}
}

// serveAgain serves the same cluster without lies.
func serveAgain(t *testing.T, n *node) *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f := n.alter.Swap(nil)
		n.Config.Handler.ServeHTTP(w, r)
		n.alter.Store(f)
	}))
	t.Cleanup(s.Close)
	return s
}

func lied(t *testing.T, ctx context.Context, c *client.Client, id string) *client.Account {
	t.Helper()
	a, err := c.Account(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// flip changes the last character.
func flip(s string) string {
	last := byte('q')
	if s[len(s)-1] == last {
		last = 'p'
	}
	return s[:len(s)-1] + string(last)
}

func TestANodeOfAnotherClusterIsRefused(t *testing.T) {
	ctx, n, c, w := setUp(t)
	pin := w.Pin()
	for what, field := range map[string]string{
		"cluster": pin.Cluster, "genesis": pin.Genesis, "ecdsa key": pin.Keys[0].MasterPub, "ed25519 key": pin.Keys[1].MasterPub, "chain": pin.Chains["btc"],
	} {
		n.lie(func(path string, b []byte) []byte {
			if path != "/v1/cluster" {
				return b
			}
			return bytes.ReplaceAll(b, []byte(field), []byte(flip(field)))
		})
		var e *client.PinError
		if _, err := c.Cluster(ctx); !errors.As(err, &e) {
			t.Errorf("another %s: %v", what, err)
		}
		if _, err := c.Open(ctx, w.SignerBTC()); !errors.As(err, &e) {
			t.Errorf("account opened at a node with another %s: %v", what, err)
		}
	}
	n.lie(func(path string, b []byte) []byte {
		return bytes.ReplaceAll(b, []byte(pin.Genesis), []byte(flip(pin.Genesis[:40])+pin.Genesis[40:]))
	})
	free, err := client.New(n.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	cl, err := free.Cluster(ctx)
	if err != nil {
		t.Fatal(err)
	}
	cl.Genesis = strings.Repeat("0", 64)
	if _, err := client.NewPin(cl); err == nil {
		t.Error("pinned a genesis hash that the Cluster string contradicts")
	}
}

// The text is rendered here: a node cannot have another payee signed.
func TestTheClientSignsItsOwnTextOnly(t *testing.T) {
	ctx, n, c, w := setUp(t)
	a, err := c.Open(ctx, w.SignerBTC())
	if err != nil {
		t.Fatal(err)
	}
	const payee, thief = "0x71C7656EC7ab88b098defB751B7401B5f6d8976F", "0x5FbDB2315678afecb367f032d93F642f64180aa3"
	n.lie(func(_ string, b []byte) []byte { return bytes.ReplaceAll(b, []byte(payee), []byte(thief)) })
	action, err := c.PreparePayout(ctx, address.ActionBorrow, w.SignerBTC().ID(), a.ID,
		client.Payout{Pool: "usdt.eth", Amount: "5", To: payee, MaxFee: "1"})
	if err != nil || !strings.Contains(action.Text, "To: "+apitest.EthereumCAIP2+":"+payee) {
		t.Fatalf("%v\n%s", err, action.Text)
	}
	if _, err := c.Submit(ctx, mute{w.SignerBTC()}, action); err == nil || !strings.Contains(err.Error(), "does not verify") {
		t.Errorf("a signature that does not verify was posted: %v", err)
	}
	// What the ledger will refuse is complete all the same.
	action, err = c.PreparePayout(ctx, address.ActionBorrow, w.SignerBTC().ID(), a.ID,
		client.Payout{Pool: "usdt.eth", Amount: "5", To: strings.ToLower(payee), MaxFee: "1"})
	if !errors.Is(err, address.ErrDestination) || action.Text == "" {
		t.Errorf("an address that is not canonical: %v", err)
	}
}

type mute struct{ client.Signer }

func (mute) Sign(string) (string, error) { return "", nil }

func TestEverySignerOpensAnAccount(t *testing.T) {
	ctx, _, c, w := setUp(t)
	seen := map[string]bool{}
	for _, name := range []string{"btc", "p2tr", "eth"} {
		s, err := w.Signer(name)
		if err != nil {
			t.Fatal(err)
		}
		a, err := c.Open(ctx, s)
		if err != nil || a.ID != w.Pin().AccountOf(s.ID()) || seen[a.ID] || a.NextNonce != 1 {
			t.Fatalf("%s opens %+v: %v", name, a, err)
		}
		seen[a.ID] = true
		if again, err := c.Open(ctx, s); err != nil || again.ID != a.ID || again.NextNonce != 1 {
			t.Errorf("%s again: %+v %v", name, again, err)
		}
	}
	if _, err := w.Signer("doge"); err == nil {
		t.Error("a signer that is none")
	}
}

// A lost answer is repeated with the same text, never with a new nonce.
func TestSubmitRepeatsUntilItIsKnown(t *testing.T) {
	ctx, n, c, w := setUp(t)
	action, err := c.Prepare(ctx, address.Command{Action: address.ActionOpenAccount, Signer: w.SignerBTC().ID()})
	if err != nil {
		t.Fatal(err)
	}
	var calls atomic.Int32
	texts := map[string]bool{}
	h := n.Config.Handler
	n.Config.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/requests" {
			b, _ := io.ReadAll(r.Body)
			var s client.Submission
			if json.Unmarshal(b, &s) == nil {
				texts[s.Text] = true
			}
			r.Body = io.NopCloser(bytes.NewReader(b))
			if calls.Add(1) == 1 {
				h.ServeHTTP(httptest.NewRecorder(), r) // applied, and the answer is lost
				rw.Header().Set("Content-Type", "application/problem+json")
				rw.WriteHeader(503)
				fmt.Fprint(rw, `{"code":"NO_LEADER","retryable":true}`)
				return
			}
		}
		h.ServeHTTP(rw, r)
	})
	r, err := c.Submit(ctx, w.SignerBTC(), action)
	if err != nil || r.Code != "OK" || calls.Load() != 2 || len(texts) != 1 {
		t.Fatalf("%+v %v after %d calls with %d texts", r, err, calls.Load(), len(texts))
	}
}

// A node that is overloaded is not asked again before the time it gave. Seen failing
// without the wait ("asked again after 0.05 s").
func TestSubmitLeavesABusyNodeAlone(t *testing.T) {
	ctx, n, c, w := setUp(t)
	action, err := c.Prepare(ctx, address.Command{Action: address.ActionOpenAccount, Signer: w.SignerBTC().ID()})
	if err != nil {
		t.Fatal(err)
	}
	var calls []time.Time
	h := n.Config.Handler
	n.Config.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/requests" {
			if calls = append(calls, time.Now()); len(calls) == 1 {
				rw.Header().Set("Content-Type", "application/problem+json")
				rw.WriteHeader(503)
				fmt.Fprint(rw, `{"code":"OVERLOADED","retryable":true,"retryAfter":1}`)
				return
			}
		}
		h.ServeHTTP(rw, r)
	})
	if r, err := c.Submit(ctx, w.SignerBTC(), action); err != nil || r.Code != "OK" || len(calls) != 2 {
		t.Fatalf("%+v %v after %d calls", r, err, len(calls))
	}
	if d := calls[1].Sub(calls[0]); d < time.Second {
		t.Errorf("asked again after %s", d)
	}
}

func TestWalletFiles(t *testing.T) {
	_, _, _, w := setUp(t)
	name := filepath.Join(t.TempDir(), "sub", "wallet.json")
	if err := w.Save(name); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(name)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v %v", info.Mode(), err)
	}
	if err := w.Save(name); err == nil {
		t.Error("a wallet was overwritten")
	}
	got, err := client.LoadWallet(name)
	if err != nil || got.SignerBTC().ID() != w.SignerBTC().ID() || got.SignerETH().ID() != w.SignerETH().ID() {
		t.Fatalf("loaded %v: %v", got, err)
	}
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var f map[string]any
	if err := json.Unmarshal(raw, &f); err != nil {
		t.Fatal(err)
	}
	key := f["bitcoinKey"].(string)
	for _, form := range []string{"%v", "%+v", "%#v", "%s"} {
		for _, x := range []any{w, w.SignerBTC(), w.SignerETH()} {
			if s := fmt.Sprintf(form, x); strings.Contains(s, key) || strings.Contains(s, "PrivateKey") {
				t.Errorf("%s shows a key: %s", form, s)
			}
		}
	}
	if err := os.Chmod(name, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := client.LoadWallet(name); err == nil {
		t.Error("a wallet that others may read was loaded")
	}
	for what, change := range map[string]func(map[string]any){
		"no key":   func(f map[string]any) { f["bitcoinKey"] = "" },
		"key zero": func(f map[string]any) { f["ethereumKey"] = strings.Repeat("0", 64) },
		"key of the order": func(f map[string]any) {
			f["bitcoinKey"] = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"
		},
		"version 2":          func(f map[string]any) { f["version"] = 2 },
		"no pin":             func(f map[string]any) { delete(f, "pin") },
		"Bitcoin's main net": func(f map[string]any) { chains(f)["btc"] = "bip122:000000000019d6689c085ae165831e93" },
		"Ethereum's main":    func(f map[string]any) { chains(f)["eth"] = "eip155:1" },
		"a bent chain id":    func(f map[string]any) { chains(f)["eth"] = "eip155:" },
	} {
		var f map[string]any
		if err := json.Unmarshal(raw, &f); err != nil {
			t.Fatal(err)
		}
		change(f)
		b, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		bad := filepath.Join(t.TempDir(), "wallet.json")
		if err := os.WriteFile(bad, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := client.LoadWallet(bad); err == nil {
			t.Errorf("%s: loaded", what)
		} else if strings.Contains(err.Error(), key) {
			t.Errorf("%s: the error shows a key", what)
		}
	}
}

func chains(f map[string]any) map[string]any {
	return f["pin"].(map[string]any)["chains"].(map[string]any)
}

func TestAnswersAreBounded(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.Copy(w, io.LimitReader(zeros{}, 8<<20))
	}))
	defer s.Close()
	c, err := client.New(s.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Pools(context.Background()); err == nil || !strings.Contains(err.Error(), "over") {
		t.Errorf("8 MiB answer: %v", err)
	}
	for _, bad := range []string{"", "127.0.0.1:1", "ftp://x", "http://"} {
		if _, err := client.New(bad, nil); err == nil {
			t.Errorf("API address %q taken", bad)
		}
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}
