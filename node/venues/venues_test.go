package venues

import (
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
)

var now = time.Unix(1_700_000_000, 0)

// stand is what an adapter is tested with: the recorded answer of its venue,
// and where in it a price, a book and a time are.
type stand struct {
	path  string // that it asks for BTC
	last  string // as it stands in the answer
	bid   string
	time  string
	old   string // the same place, 61 s before now
	ahead string // and 61 s after
	none  string // a symbol it does not list
	other string // the same answer about something else
}

var stands = map[string]stand{
	"coinbase": {path: "/products/BTC-USD/ticker", last: `"50000.12"`, bid: `"49999.00"`, time: "2023-11-14T22:13:18.512345Z",
		old: "2023-11-14T22:12:19Z", ahead: "2023-11-14T22:14:21Z", none: "USDC"},
	"kraken":   {path: "/0/public/Ticker?pair=XBTUSD", last: `"50000.12000"`, bid: `"49999.00000"`, none: "DOGE", other: "XETHZUSD"},
	"bitstamp": {path: "/api/v2/ticker/btcusd/", last: `"50000.12"`, bid: `"49999"`, time: "1699999998", old: "1699999939", ahead: "1700000061", none: "ICP"},
	"server":   {path: "/venue/BTC", last: `"50000.12000000"`, time: "2023-11-14T22:13:18.5Z", old: "2023-11-14T22:12:19Z", ahead: "2023-11-14T22:14:21Z", other: "ETH"},
}

func open(t *testing.T, name, base string, c *http.Client) *Venue {
	t.Helper()
	v, err := At(name, base, c)
	if name == "server" {
		v, err = Server(base+"/venue/{asset}", c)
	}
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Every adapter keeps the package's promise: right and fresh, or an error.
func TestVenueContract(t *testing.T) {
	for _, name := range append(Names(), "server") {
		st := stands[name]
		b, err := os.ReadFile("testdata/" + name + ".json")
		if err != nil {
			t.Fatal(err)
		}
		good := string(b)
		type reply func(w http.ResponseWriter, r *http.Request)
		say := func(body string) reply {
			return func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, body) }
		}
		put := func(old, with string) reply {
			if old == "" || !strings.Contains(good, old) {
				t.Fatalf("%s: %q is not in the recorded answer", name, old)
			}
			return say(strings.ReplaceAll(good, old, with))
		}
		bad := map[string]reply{
			"a negative price": put(st.last, `"-50000"`), "no number": put(st.last, `"NaN"`), "infinite": put(st.last, `"Inf"`), "zero": put(st.last, `"0.000"`),
			"too little": put(st.last, `"0.000000001"`), "an exponent": put(st.last, `"5e4"`), "a huge exponent": put(st.last, `1e400`), "a bare number": put(st.last, `50000.12`),
			"many digits": put(st.last, `"`+strings.Repeat("9", 33)+`"`), "an empty price": put(st.last, `""`), "null": put(st.last, `null`),
			"cut short": say(good[:len(good)/2]), "empty": say(""), "twice": say(good + good), "a page": say("<html>maintenance</html>"), "a list": say("[]"), "an empty object": say("{}"),
			"a huge tail":        say(good + strings.Repeat(" ", maxBody)),
			"huge":               say(strings.Replace(good, "{", "{"+strings.Repeat(" ", maxBody), 1)),
			"an error":           func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500); io.WriteString(w, good) },
			"too many questions": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(429); io.WriteString(w, good) },
			"redirected": func(w http.ResponseWriter, r *http.Request) {
				if strings.HasPrefix(r.URL.Path, "/elsewhere") {
					io.WriteString(w, good)
					return
				}
				http.Redirect(w, r, "/elsewhere", http.StatusFound)
			},
		}
		if st.time != "" {
			bad["stale"], bad["of the future"], bad["of no time"] = put(st.time, st.old), put(st.time, st.ahead), put(st.time, "yesterday")
		}
		if st.bid != "" {
			bad["a crossed book"], bad["a wide book"], bad["no bid"] = put(st.bid, `"50001.01"`), put(st.bid, `"47000"`), put(st.bid, `""`)
			bad["a garbled book"] = put(st.bid, `"1e4"`)
		}
		if st.other != "" {
			bad["another asset"] = put(map[bool]string{true: "XXBTZUSD", false: "BTC"}[name == "kraken"], st.other)
		}
		if name == "kraken" {
			bad["an error with status 200"] = say(`{"error":["EQuery:Unknown asset pair"]}`)
			bad["an error beside a result"] = put(`"error":[]`, `"error":["EGeneral:Internal error"]`)
			bad["dated a minute ago"] = func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Date", now.Add(-61*time.Second).UTC().Format(http.TimeFormat))
				io.WriteString(w, good)
			}
		}
		var answer reply
		var asked string
		s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked = r.URL.RequestURI()
			w.Header().Set("Date", now.UTC().Format(http.TimeFormat))
			answer(w, r)
		}))
		defer s.Close()
		v := open(t, name, s.URL, Strict(s.Client()))

		t.Run(name, func(t *testing.T) {
			answer = say(good)
			q, err := v.Quote(context.Background(), "BTC", now)
			if err != nil || q.Price.String() != "5000012000000" || asked != st.path {
				t.Fatalf("%s: %s %v", asked, q.Price, err)
			}
			if age := now.Sub(q.At); st.time == "" && age != 0 || st.time != "" && (age < time.Second || age > 2*time.Second) {
				t.Errorf("%s old", age)
			}
			if st.time == "" { // no Date either: the time of asking
				answer = func(w http.ResponseWriter, _ *http.Request) { w.Header()["Date"] = nil; io.WriteString(w, good) }
				if q, err := v.Quote(context.Background(), "BTC", now); err != nil || !q.At.Equal(now) {
					t.Errorf("without a date: %s %v", q.At, err)
				}
			}
			if st.bid != "" {
				for last, want := range map[string]string{`"49000"`: "4999900000000", `"51000"`: "5000100000000", `"50000.123456789"`: "5000012345678"} {
					answer = put(st.last, last)
					if q, err := v.Quote(context.Background(), "BTC", now); err != nil || q.Price.String() != want {
						t.Errorf("last %s: %s %v, want %s", last, q.Price, err, want)
					}
				}
			}
			for what, r := range bad {
				answer = r
				if q, err := v.Quote(context.Background(), "BTC", now); err == nil {
					t.Errorf("%s: %s", what, q.Price)
				}
			}
			if st.none != "" {
				asked = ""
				if _, err := v.Quote(context.Background(), st.none, now); !errors.Is(err, ErrNotListed) || asked != "" || v.Lists(st.none) {
					t.Errorf("an asset that is not listed: %v, asked %q", err, asked)
				}
			}
		})
	}
}

// A venue whose certificate nobody vouches for is not heard, nor one that never
// answers.
func TestVenueUnheard(t *testing.T) {
	quit := make(chan struct{})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-quit:
		case <-r.Context().Done():
		}
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	defer close(quit)
	for _, name := range append(Names(), "server") {
		if _, err := open(t, name, s.URL, Client()).Quote(context.Background(), "BTC", now); err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("%s: an unknown certificate: %v", name, err)
		}
		c := Strict(s.Client())
		c.Timeout = 50 * time.Millisecond
		if _, err := open(t, name, s.URL, c).Quote(context.Background(), "BTC", now); err == nil {
			t.Errorf("%s: no answer is one", name)
		}
	}
}

func TestOnlySafeAddresses(t *testing.T) {
	for _, u := range []string{"http://example.org/{asset}", "http://localhost/{asset}", "http://10.0.0.1/{asset}", "ftp://example.org", "example.org/{asset}", ""} {
		if _, err := Server(u, nil); err == nil {
			t.Errorf("%q: accepted", u)
		}
		if _, err := At("kraken", u, nil); err == nil {
			t.Errorf("kraken at %q: accepted", u)
		}
	}
	for _, name := range Names() {
		if v, err := Public(name, nil); err != nil || v.Name() != name || !strings.HasPrefix(bases[name], "https://") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Public("mtgox", nil); err == nil {
		t.Error("an unknown venue")
	}
	v, err := Server("https://prices.example.org/{asset}?key=secret", nil)
	if err != nil || strings.Contains(v.Name(), "secret") {
		t.Errorf("a name that holds the key: %v", err)
	}
}

func TestParsePrice(t *testing.T) {
	for in, want := range map[string]string{
		"50000": "5000000000000", "50000.": "5000000000000", "0.99999999": "99999999", "0.00000001": "1", "0001.5": "150000000",
		"50000.12345678": "5000012345678", "1.123456789": "112345678", "0.999999999999": "99999999",
	} {
		if got, err := ParsePrice(in); err != nil || got.String() != want {
			t.Errorf("%q: %s %v, want %s", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", "0", "0.0", "0.000000009", ".5", "-1", "+1", "1e5", "1e400", "1.12345678e9", "1.123456789x", "1.2.3", "1,000", " 1", "1 ", "NaN", "Inf", "0x10", "١", "1.-2", strings.Repeat("9", 40),
	} {
		if got, err := ParsePrice(in); err == nil {
			t.Errorf("%q: %s", in, got)
		}
	}
}
