package api

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node/api/history"
)

// "reset: … the reader too slow (256 frames)" (spec: requests §6.2)
func TestAReaderTooSlowIsReset(t *testing.T) {
	for _, c := range []struct {
		behind int
		live   bool
		reset  bool
	}{{maxBehind, true, false}, {maxBehind + 1, true, true}, {maxBehind + 1, false, false}} {
		store := history.Open(history.Config{})
		for h := range uint64(c.behind) {
			store.Applied(history.Record{Height: h + 1, Entries: []history.Entry{{Event: ledger.Event{Name: "price", Asset: "btc"}}}})
		}
		topics, err := parseTopics([]string{"markets"})
		if err != nil {
			t.Fatal(err)
		}
		rec := httptest.NewRecorder()
		f := &follower{s: &server{history: store}, topics: topics, w: rec, rc: http.NewResponseController(rec), live: c.live}
		if err := f.catchUp(uint64(c.behind)); err != nil {
			t.Fatal(err)
		}
		body := rec.Body.String()
		if got := strings.Contains(body, `"reason":"slow"`); got != c.reset {
			t.Errorf("%d frames behind, live %v: reset %v", c.behind, c.live, got)
		}
		if n := strings.Count(body, "event: ledger"); c.reset == (n == c.behind) {
			t.Errorf("%d frames behind, live %v: %d sent", c.behind, c.live, n)
		}
		if f.after != uint64(c.behind) {
			t.Errorf("goes on after %d", f.after)
		}
	}
}
