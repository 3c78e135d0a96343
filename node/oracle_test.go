package node

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coffer-network/coffer/ledger/fixed"
	"github.com/coffer-network/coffer/node/venues"
	"github.com/prometheus/client_golang/prometheus"
)

// testFeed asks a price server at each of the addresses.
func testFeed(t *testing.T, client *http.Client, urls ...string) feed {
	t.Helper()
	f := feed{log: slog.New(slog.DiscardHandler), metrics: newMetrics(prometheus.NewRegistry()), last: map[[2]string]fixed.Int{}}
	for _, u := range urls {
		v, err := venues.Server(u, client)
		if err != nil {
			t.Fatal(err)
		}
		f.venues = append(f.venues, v)
	}
	return f
}

// market answers one price, or misbehaves.
func market(t *testing.T, now time.Time) *httptest.Server {
	t.Helper()
	quit := make(chan struct{})
	answer := func(w http.ResponseWriter, asset, price string, at time.Time) {
		fmt.Fprintf(w, `{"asset":%q,"price":%q,"time":%q}`, asset, price, at.Format(time.RFC3339Nano))
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		kind, asset, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		switch kind {
		case "49990", "50000", "50010", "50020":
			answer(w, asset, kind, now)
		case "lying":
			answer(w, asset, "5000000", now)
		case "zero":
			answer(w, asset, "0.00", now)
		case "negative":
			answer(w, asset, "-50000", now)
		case "almost-stale":
			answer(w, asset, "50000", now.Add(-venues.MaxAge))
		case "stale":
			answer(w, asset, "50000", now.Add(-venues.MaxAge-time.Second))
		case "future":
			answer(w, asset, "50000", now.Add(venues.MaxAge+time.Second))
		case "other":
			answer(w, "DOGE", "50000", now)
		case "garbage":
			fmt.Fprint(w, "<html>maintenance</html>")
		case "empty":
		case "number":
			fmt.Fprintf(w, `{"asset":%q,"price":50000,"time":%q}`, asset, now.Format(time.RFC3339))
		case "huge":
			fmt.Fprintf(w, `{"asset":%q,"pad":%q,"price":"50000","time":%q}`, asset, strings.Repeat("x", 40_000), now.Format(time.RFC3339))
		case "broken":
			w.WriteHeader(http.StatusInternalServerError)
			answer(w, asset, "50000", now)
		case "slow":
			select {
			case <-quit:
			case <-r.Context().Done():
			}
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(func() { close(quit); s.Close() })
	return s
}

// At least three venues that answer well, and the median of those: neither the
// slow, the garbled, the stale nor one liar moves it (spec: lending §12.1).
func TestMedianOfVenues(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	s := market(t, now)
	for _, tc := range []struct {
		venues string
		want   string // "" : no price
	}{
		{"49990 50000 50010", "50000"},
		{"50010 50000 49990", "50000"},
		{"50000 50000 50000 lying", "50000"},
		{"49990 50000 lying", "50000"},
		{"49990 50000 50010 50020", "50000"}, // the lower of two middles
		{"lying lying 50000", "5000000"},     // two of three: nothing helps
		{"49990 50000 50010 garbage empty stale", "50000"},
		{"50000 50000 almost-stale", "50000"},
		{"49990 50000 50010 broken other number huge future zero negative nowhere", "50000"},
		{"50000 50000", ""},
		{"50000 50000 garbage", ""},
		{"50000 50000 empty", ""},
		{"50000 50000 stale", ""},
		{"50000 50000 future", ""},
		{"50000 50000 other", ""},
		{"50000 50000 number", ""},
		{"50000 50000 huge", ""},
		{"50000 50000 broken", ""},
		{"50000 50000 zero", ""},
		{"50000 50000 negative", ""},
		{"50000 50000 nowhere", ""},
		{"", ""},
	} {
		var urls []string
		for _, v := range strings.Fields(tc.venues) {
			urls = append(urls, s.URL+"/"+v+"/{asset}")
		}
		q, err := testFeed(t, venues.Strict(s.Client()), urls...).median(context.Background(), "BTC", now)
		got := q.Price
		if tc.want == "" {
			if err == nil {
				t.Errorf("%q: price %s", tc.venues, got)
			}
			continue
		}
		if want := fixed.MustParse(tc.want + "00000000"); err != nil || got != want {
			t.Errorf("%q: %s %v, want %s", tc.venues, got, err, want)
		}
	}
}

// A venue that never answers holds up nobody: the others make the price, and
// whoever asks can stop.
func TestSlowVenue(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	s := market(t, now)
	client := s.Client()
	client.Timeout = 200 * time.Millisecond
	urls := []string{s.URL + "/slow/{asset}", s.URL + "/49990/{asset}", s.URL + "/50000/{asset}", s.URL + "/50010/{asset}"}
	if got, err := testFeed(t, client, urls...).median(context.Background(), "BTC", now); err != nil || got.Price != fixed.MustParse("5000000000000") {
		t.Errorf("%s %v", got.Price, err)
	}
	if _, err := testFeed(t, client, urls[:3]...).median(context.Background(), "BTC", now); err == nil {
		t.Error("two venues and a slow one made a price")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := testFeed(t, s.Client(), urls...).median(ctx, "BTC", now); err == nil {
		t.Error("a cancelled question has an answer")
	}
}
