package api_test

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node/api"
)

// streams are the GET routes that answer with a stream: their frames carry the
// LogIndex, and after says where to begin.
var streams = map[string]bool{"/v1/events": true, "/v1/accounts/{id}/events": true, "/v1/requests/{id}/events": true}

// "Every response carries asOf. ?minIndex=N waits until this replica reached N …
// else 503 … Linearizable reads: ?consistency=linearizable" (spec: requests §6).
// The routes are those of the OpenAPI document: one that is added and not put
// here fails.
func TestEveryReadWaitsForWhatItIsAskedFor(t *testing.T) {
	w, borrower, liquidation := liquidated(t)
	number := func(n uint64) string { return strconv.FormatUint(n, 10) }
	last := ""
	for id := range w.View().Inflows.All() {
		last = id
	}
	l, err := w.client.Liquidation(w.ctx, liquidation)
	if err != nil {
		t.Fatal(err)
	}
	account, request, outflow := "/v1/accounts/"+borrower, "/v1/requests/"+l.Request, ""
	for id, o := range w.View().Outflows.All() {
		if o.Account == borrower {
			outflow = "/v1/outflows/" + number(id)
		}
	}
	w.FoldRoot()                // a proof is under one
	paths := map[string]string{ // a route to a path that answers 200
		"/healthz": "/healthz", "/readyz": "/readyz",
		"/v1/accounts/{id}": account, "/v1/accounts/{id}/activities": account + "/activities", "/v1/accounts/{id}/history": account + "/history",
		"/v1/accounts/{id}/inflows": account + "/inflows", "/v1/accounts/{id}/outflows": account + "/outflows",
		"/v1/accounts/{id}/proof": account + "/proof",
		"/v1/assets":              "/v1/assets", "/v1/certificates/{index}": "/v1/certificates/0", "/v1/chains": "/v1/chains", "/v1/cluster": "/v1/cluster", "/v1/genesis": "/v1/genesis",
		"/v1/inflows/{id}": "/v1/inflows/" + last, "/v1/inflows/{id}/why": "/v1/inflows/" + last + "/why",
		"/v1/liquidations": "/v1/liquidations", "/v1/liquidations/past": "/v1/liquidations/past",
		"/v1/liquidations/{id}": "/v1/liquidations/" + number(liquidation), "/v1/liquidations/{id}/explain": "/v1/liquidations/" + number(liquidation) + "/explain",
		"/v1/members": "/v1/members", "/v1/outflows/{id}": outflow, "/v1/outflows/{id}/why": outflow + "/why",
		"/v1/pools": "/v1/pools", "/v1/pools/{id}": "/v1/pools/btc", "/v1/requests/{id}": request, "/v1/requests/{id}/why": request + "/why",
		"/v1/search": "/v1/search?q=" + borrower, "/v1/sessions": "/v1/sessions", "/v1/status": "/v1/status", "/v1/votes": "/v1/votes",
	}
	_, _, doc := w.get("/openapi.json")
	routes, ok := doc["paths"].(map[string]any)
	if !ok || len(routes) < 20 {
		t.Fatalf("%d paths in the document", len(routes))
	}
	for _, route := range slices.Sorted(maps.Keys(routes)) {
		if _, reads := routes[route].(map[string]any)["get"]; !reads || streams[route] {
			continue
		}
		path, ok := paths[route]
		if !ok {
			t.Errorf("GET %s is not held against asOf, minIndex and consistency: add a path of it here", route)
			continue
		}
		delete(paths, route)
		t.Run(route, func(t *testing.T) {
			w := *w
			w.t = t
			with := func(query string) string {
				if strings.Contains(path, "?") {
					return path + "&" + query
				}
				return path + "?" + query
			}
			asOf := func(p map[string]any) uint64 {
				n, ok := p["asOf"].(float64)
				if !ok {
					t.Errorf("no asOf in %v", p)
				}
				return uint64(n)
			}
			height := w.View().Height
			if status, _, p := w.get(path); status != 200 || asOf(p) != height {
				t.Fatalf("%d at %d, want %d: %v", status, asOf(p), height, p)
			}
			// What this replica has not reached is waited for, at most so long.
			status, h, p := w.get(with("minIndex=" + number(height+1) + "&wait=20ms"))
			w.problem(status, h, p, 503, "TIMEOUT")
			if h.Get("Retry-After") == "" || p["retryable"] != true {
				t.Errorf("without when to come again: %v %v", h, p)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				time.Sleep(20 * time.Millisecond)
				w.Say(ledger.KindClock, ledger.Clock{Millis: w.View().Millis})
			}()
			status, _, p = w.get(with("minIndex=" + number(height+1) + "&wait=20s"))
			<-done
			if status != 200 || asOf(p) <= height {
				t.Errorf("waited: %d at %d, want above %d: %v", status, asOf(p), height, p)
			}
			// Linearizable asks whoever orders commands, and says so if nobody does.
			if status, _, p = w.get(with("consistency=linearizable")); status != 200 || asOf(p) < w.View().Height {
				t.Errorf("linearizable: %d %v", status, p)
			}
			w.Hold(api.ErrNoLeader)
			status, h, p = w.get(with("consistency=linearizable"))
			w.problem(status, h, p, 503, "NO_LEADER")
			if status, _, _ := w.get(path); status != 200 {
				t.Errorf("an ordinary read without a leader: %d", status)
			}
			w.Hold(nil)
			status, h, p = w.get(with("consistency=strong"))
			w.problem(status, h, p, 400, "MALFORMED")
			status, h, p = w.get(with("wait=31s"))
			w.problem(status, h, p, 400, "MALFORMED")
		})
	}
	for route := range paths {
		t.Errorf("%s is no route any more", route)
	}
}
