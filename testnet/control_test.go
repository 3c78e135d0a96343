package testnet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/common"
)

func get(t *testing.T, method, url, body string, edit func(*http.Request)) (int, string) {
	t.Helper()
	req := must[*http.Request](t)(http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body)))
	if edit != nil {
		edit(req)
	}
	resp := must[*http.Response](t)(http.DefaultClient.Do(req))
	defer resp.Body.Close()
	var text bytes.Buffer
	_, _ = text.ReadFrom(resp.Body)
	return resp.StatusCode, text.String()
}

func TestPricesAreServedChangedAndKept(t *testing.T) {
	dir := t.TempDir()
	p := must[*Prices](t)(StartPrices(dir, 0))
	for _, venue := range Venues() {
		_, text := get(t, "GET", p.URL()+"/venue/"+venue+"/BTC", "", nil)
		var quote Quote
		if err := json.Unmarshal([]byte(text), &quote); err != nil || quote.Asset != "BTC" || quote.Price != "50000.00000000" || quote.Time.IsZero() {
			t.Errorf("%s: %s %v", venue, text, err)
		}
	}
	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{"PUT", "/price/BTC", `{"price":"48000.5"}`, 204},
		{"PUT", "/price/BTC", `{"price":"0"}`, 400},
		{"PUT", "/price/BTC", `{"price":"-1"}`, 400},
		{"PUT", "/price/BTC", `{"price":"1e9"}`, 400},
		{"PUT", "/price/BTC", `{"price":"0.000000001"}`, 400},
		{"PUT", "/price/BTC", `{"price":"1000000000.1"}`, 400},
		{"PUT", "/price/BTC", `{"price":48000}`, 400},
		{"PUT", "/price/BTC", `{"price":"1","x":1}`, 400},
		{"PUT", "/price/BTC", `{"price":"` + strings.Repeat("1", maxRequestBytes) + `"}`, 400},
		{"PUT", "/price/DOGE", `{"price":"1"}`, 400},
		{"GET", "/venue/delta/BTC", "", 404},
		{"GET", "/venue/alpha/DOGE", "", 404},
	} {
		if status, text := get(t, c.method, p.URL()+c.path, c.body, nil); status != c.status {
			t.Errorf("%s %s %.60s: %d %s, want %d", c.method, c.path, c.body, status, text, c.status)
		}
	}
	if status, _ := get(t, "GET", p.URL()+"/venue/alpha/BTC", "", func(r *http.Request) { r.Host = "evil.example:80" }); status != 403 {
		t.Errorf("a foreign host name was served: %d", status)
	}
	if err := p.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	p = must[*Prices](t)(StartPrices(dir, 0))
	defer p.Stop(context.Background())
	if price, _ := p.Get("BTC"); price != "48000.50000000" {
		t.Errorf("after resuming, BTC is %s", price)
	}
}

func TestDamagedPricesAreRefused(t *testing.T) {
	for _, text := range []string{"{", `{"BTC":"0"}`, `{"BTC":1}`} {
		dir := t.TempDir()
		if err := os.WriteFile(dir+"/prices.json", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if p, err := StartPrices(dir, 0); err == nil {
			p.Stop(t.Context())
			t.Errorf("%s was served", text)
		}
	}
}

// ledgerOf records what the faucet was asked for.
type asked struct{ calls []string }

func (a *asked) Fund(_ context.Context, address string, sats int64) (string, error) {
	a.calls = append(a.calls, "BTC "+address+" "+big.NewInt(sats).String())
	return "b1", nil
}
func (a *asked) Mine(_ context.Context, n int) (int64, error) {
	if n > MaxMine {
		return 0, errors.New("too many")
	}
	return int64(100 + n), nil
}
func (a *asked) FundETH(_ context.Context, to common.Address, wei *big.Int) (common.Hash, error) {
	a.calls = append(a.calls, "ETH "+to.Hex()+" "+wei.String())
	return common.Hash{1}, nil
}
func (a *asked) FundToken(_ context.Context, to common.Address, units *big.Int) (common.Hash, error) {
	a.calls = append(a.calls, "USDT "+to.Hex()+" "+units.String())
	return common.Hash{2}, nil
}
func (a *asked) End(_ context.Context, name string, kill bool) error {
	a.calls = append(a.calls, fmt.Sprint("end ", name, " ", kill))
	return nil
}
func (a *asked) Begin(_ context.Context, name string) error { return fmt.Errorf("%s runs", name) }
func (a *asked) Set(asset, price string) error {
	a.calls = append(a.calls, "price "+asset+" "+price)
	return nil
}

func TestControlFromAnotherTerminal(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	if _, err := DialControl(dir); err == nil || !strings.Contains(err.Error(), "no testnet runs in "+dir) {
		t.Error(err)
	}
	var world asked
	control := must[*Control](t)(StartControl(ControlConfig{Dir: dir, Bitcoin: &world, Ethereum: &world, Prices: &world, Nodes: &world}))
	client := must[*ControlClient](t)(DialControl(dir))

	const to = "0x00000000000000000000000000000000000000AA"
	for _, req := range []FaucetRequest{{"BTC", "bcrt1x", "1.5"}, {"ETH", to, "0.000000000000000001"}, {"USDT", to, "20000"}} {
		if txid := must[string](t)(client.Faucet(ctx, req)); txid == "" {
			t.Errorf("%v: no transaction id", req)
		}
	}
	if err := client.SetPrice(ctx, "BTC", "48000"); err != nil {
		t.Error(err)
	}
	if height := must[int64](t)(client.Mine(ctx, 3)); height != 103 {
		t.Errorf("height %d", height)
	}
	if err := client.StopNode(ctx, "node-2", true); err != nil {
		t.Error(err)
	}
	if err := client.StartNode(ctx, "node-2"); err == nil || err.Error() != "node-2 runs" {
		t.Errorf("the refusal did not come through: %v", err)
	}
	want := "BTC bcrt1x 150000000,ETH " + to + " 1,USDT " + to + " 20000000000,price BTC 48000,end node-2 true"
	if got := strings.Join(world.calls, ","); got != want {
		t.Errorf("asked for\n%s\nwant\n%s", got, want)
	}

	asks := len(world.calls)
	for _, req := range []FaucetRequest{
		{"BTC", "bcrt1x", "0"}, {"BTC", "bcrt1x", "-1"}, {"BTC", "bcrt1x", "1.123456789"}, {"BTC", "bcrt1x", ""},
		{"BTC", "bcrt1x", "99999999999999999999"}, {"USDT", to, "1.1234567"}, {"USDT", "0xAA", "1"}, {"ETH", "bcrt1x", "1"},
		{"DOGE", to, "1"}, {"USDT", to, strings.Repeat("9", 40)},
	} {
		if _, err := client.Faucet(ctx, req); err == nil {
			t.Errorf("%v was granted", req)
		}
	}
	if _, err := client.Mine(ctx, MaxMine+1); err == nil || err.Error() != "too many" {
		t.Errorf("the refusal did not come through: %v", err)
	}
	thief := *client
	thief.address.Token = "guess"
	if err := thief.SetPrice(ctx, "BTC", "1"); err == nil || !strings.Contains(err.Error(), "wrong token") {
		t.Error(err)
	}
	if len(world.calls) != asks {
		t.Errorf("a refused request was carried out: %v", world.calls[asks:])
	}

	if info := must[os.FileInfo](t)(os.Stat(dir + "/testnet.json")); info.Mode().Perm() != 0o600 {
		t.Errorf("testnet.json has mode %v", info.Mode())
	}
	if err := control.Stop(ctx); err != nil {
		t.Error(err)
	}
	if _, err := client.Mine(ctx, 1); err == nil || !strings.Contains(err.Error(), "no testnet runs") {
		t.Error(err)
	}
}
