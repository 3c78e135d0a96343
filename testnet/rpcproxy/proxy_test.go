package rpcproxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

// upstream is a node that counts its calls and answers with them.
type upstream struct {
	mu    sync.Mutex
	heard []string
}

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var c Call
	if err := json.NewDecoder(r.Body).Decode(&c); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	u.mu.Lock()
	u.heard = append(u.heard, c.Method+string(c.Params))
	n := len(u.heard)
	u.mu.Unlock()
	user, password, _ := r.BasicAuth()
	fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"result":"%s %d %s:%s"}`, c.ID, c.Method, n, user, password)
}

func (u *upstream) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.heard)
}

func start(t *testing.T) (*Proxy, *upstream) {
	t.Helper()
	u := &upstream{}
	node := httptest.NewServer(u)
	p := Start(node.URL)
	t.Cleanup(func() { p.Close(); node.Close() })
	return p, u
}

func post(t *testing.T, ctx context.Context, url, body string) (string, int, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("u", "p")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), resp.StatusCode, err
}

func ask(t *testing.T, p *Proxy, method string) (string, int, error) {
	t.Helper()
	return post(t, t.Context(), p.URL, `{"jsonrpc":"2.0","id":7,"method":"`+method+`","params":["x"]}`)
}

// Unscripted it passes calls and credentials unchanged.
func TestPass(t *testing.T) {
	p, u := start(t)
	got, status, err := ask(t, p, "m")
	if err != nil || status != 200 || got != `{"jsonrpc":"2.0","id":7,"result":"m 1 u:p"}` {
		t.Errorf("%s, %d, %v", got, status, err)
	}
	if want := []string{`m["x"]`}; !slices.Equal(u.heard, want) || p.Calls("m") != 1 {
		t.Errorf("%v", u.heard)
	}
}

// What each act lets the node hear, and the client see.
func TestActs(t *testing.T) {
	for _, tc := range []struct {
		name   string
		act    Act
		heard  int
		status int    // 0: no answer arrives whole
		want   string // in the answer
	}{
		{"pass", Pass(), 1, 200, `"m 1 u:p"`},
		{"delay", Delay(0), 1, 200, `"m 1 u:p"`},
		{"refuse", Refuse(), 0, 0, ""},
		{"drop after", DropAfter(), 1, 0, ""},
		{"503", Status(503), 0, 503, "Unavailable"},
		{"504 after", StatusAfter(504), 1, 504, "Timeout"},
		{"error", Error(-26, "txn-mempool-conflict"), 0, 500, `"result":null,"error":{"code":-26,"message":"txn-mempool-conflict"}`},
		{"error after", ErrorAfter(-27, "in chain"), 1, 500, `{"code":-27`},
		{"garbage", Garbage(), 0, 200, "<html>"},
		{"truncate", Truncate(), 1, 0, ""},
		{"huge", Huge(1 << 17), 0, 200, strings.Repeat("0", 1<<17)},
		{"drip", Drip(0), 1, 200, `"m 1 u:p"`},
		{"result", Result(map[string]int{"a": 1}), 0, 200, `"result":{"a":1}`},
		{"change", Change(func(json.RawMessage) json.RawMessage { return json.RawMessage(`"else"`) }), 1, 200, `"result":"else"`},
		{"instead", Instead("y", 2), 1, 200, `"m 1 u:p"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, u := start(t)
			p.Next("m", tc.act)
			got, status, err := ask(t, p, "m")
			if (err != nil) != (tc.status == 0) || err == nil && (status != tc.status || !strings.Contains(got, tc.want)) {
				t.Errorf("%.300s, %d, %v", got, status, err)
			}
			if u.count() != tc.heard {
				t.Errorf("the node heard %v", u.heard)
			}
			if tc.name == "instead" && u.heard[0] != `m["y",2]` {
				t.Errorf("the node heard %v", u.heard)
			}
			// The script is over: the next call passes.
			if got, status, err := ask(t, p, "m"); err != nil || status != 200 || !strings.Contains(got, "u:p") {
				t.Errorf("afterwards: %s, %d, %v", got, status, err)
			}
		})
	}
}

// Acts are met in their order, by calls of their method only; Always speaks
// when Next is silent.
func TestScript(t *testing.T) {
	p, _ := start(t)
	p.Always("m", Result("always"))
	p.Next("m", Result("one"), Pass(), Result("three"))
	var got []string
	for range 5 {
		ask(t, p, "other")
		a, _, err := ask(t, p, "m")
		if err != nil {
			t.Fatal(err)
		}
		var v struct{ Result string }
		if err := json.Unmarshal([]byte(a), &v); err != nil {
			t.Fatal(err)
		}
		got = append(got, v.Result)
	}
	if want := []string{"one", "m 3 u:p", "three", "always", "always"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	p.Clear()
	if a, _, _ := ask(t, p, "m"); !strings.Contains(a, "u:p") {
		t.Errorf("cleared: %s", a)
	}
}

// Stale answers are the first ones, per question, also when it is put back.
func TestStale(t *testing.T) {
	p, _ := start(t)
	old := Stale()
	p.Always("m", old)
	first, _, _ := ask(t, p, "m")
	if again, _, _ := ask(t, p, "m"); again != first {
		t.Errorf("%s, then %s", first, again)
	}
	p.Clear()
	if fresh, _, _ := ask(t, p, "m"); fresh == first {
		t.Errorf("%s", fresh)
	}
	p.Always("m", old)
	if again, _, _ := ask(t, p, "m"); again != first {
		t.Errorf("put back: %s, want %s", again, first)
	}
	other, _, _ := post(t, t.Context(), p.URL, `{"id":7,"method":"m","params":["y"]}`)
	if other == first {
		t.Error("another question has the same answer")
	}
}

// A held call waits for the test, not for a clock; who gives up is let go.
func TestHold(t *testing.T) {
	p, u := start(t)
	until := make(chan struct{})
	p.Always("m", Hold(until))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, _, err := post(t, ctx, p.URL, `{"id":1,"method":"m"}`)
		ended <- err
	}()
	for p.Calls("m") == 0 {
		runtime.Gosched()
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) || u.count() != 0 {
		t.Errorf("%v, the node heard %d", err, u.count())
	}
	close(until)
	if got, _, err := ask(t, p, "m"); err != nil || !strings.Contains(got, "u:p") {
		t.Errorf("%s, %v", got, err)
	}
}

// In a batch each call has its own act; what concerns the connection concerns
// all of it.
func TestBatch(t *testing.T) {
	p, u := start(t)
	const batch = `[{"jsonrpc":"2.0","id":1,"method":"eth_a","params":[]},{"jsonrpc":"2.0","id":2,"method":"eth_b","params":[]}]`
	p.Next("eth_b", Error(-32000, "no"))
	got, _, err := post(t, t.Context(), p.URL, batch)
	var answers []Answer
	if err := json.Unmarshal([]byte(got), &answers); err != nil {
		t.Fatal(err)
	}
	if err != nil || len(answers) != 2 || string(answers[0].Result) != `"eth_a 1 u:p"` || string(answers[1].ID) != "2" || answers[1].Error == nil {
		t.Errorf("%s, %v", got, err)
	}
	p.Next("eth_b", DropAfter())
	if got, _, err := post(t, t.Context(), p.URL, batch); err == nil || u.count() != 3 {
		t.Errorf("%s, the node heard %v", got, u.heard)
	}
}
