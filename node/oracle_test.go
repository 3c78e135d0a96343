package node

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coffer-network/coffer/ledger/fixed"
)

// venue answers one price, or misbehaves.
func venues(t *testing.T, now time.Time) *httptest.Server {
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
			answer(w, asset, "50000", now.Add(-venueMaxAge))
		case "stale":
			answer(w, asset, "50000", now.Add(-venueMaxAge-time.Second))
		case "future":
			answer(w, asset, "50000", now.Add(venueMaxAge+time.Second))
		case "other":
			answer(w, "DOGE", "50000", now)
		case "garbage":
			fmt.Fprint(w, "<html>maintenance</html>")
		case "empty":
		case "number":
			fmt.Fprintf(w, `{"asset":%q,"price":50000,"time":%q}`, asset, now.Format(time.RFC3339))
		case "huge":
			fmt.Fprintf(w, `{"asset":%q,"pad":%q,"price":"50000","time":%q}`, asset, strings.Repeat("x", 2*venueMaxBody), now.Format(time.RFC3339))
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
	s := venues(t, now)
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
		got, err := median(context.Background(), s.Client(), urls, "BTC", now)
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
	s := venues(t, now)
	client := s.Client()
	client.Timeout = 200 * time.Millisecond
	urls := []string{s.URL + "/slow/{asset}", s.URL + "/49990/{asset}", s.URL + "/50000/{asset}", s.URL + "/50010/{asset}"}
	if got, err := median(context.Background(), client, urls, "BTC", now); err != nil || got != fixed.MustParse("5000000000000") {
		t.Errorf("%s %v", got, err)
	}
	if _, err := median(context.Background(), client, urls[:3], "BTC", now); err == nil {
		t.Error("two venues and a slow one made a price")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := median(ctx, s.Client(), urls, "BTC", now); err == nil {
		t.Error("a cancelled question has an answer")
	}
}

func TestParsePrice(t *testing.T) {
	for in, want := range map[string]string{
		"50000": "5000000000000", "50000.": "5000000000000", "0.99999999": "99999999", "0.00000001": "1", "0001.5": "150000000",
		"50000.12345678": "5000012345678",
	} {
		if got, err := parsePrice(in); err != nil || got.String() != want {
			t.Errorf("%q: %s %v, want %s", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", "0", "0.0", ".5", "-1", "+1", "1e5", "1.123456789", "1.2.3", "1,000", " 1", "1 ", "NaN", "Inf", "0x10", "١", "1.-2", strings.Repeat("9", 40),
	} {
		if got, err := parsePrice(in); err == nil {
			t.Errorf("%q: %s", in, got)
		}
	}
}
