package venues

import (
	"encoding/json"
	"fmt"
	"time"
)

// kraken is GET /0/public/Ticker?pair=XBTUSD. It answers under the pair's own
// name, which differs from the one asked for where the asset is an old one; an
// error comes with status 200.
func kraken(base string) Venue {
	pairs := map[string]struct{ asked, answered string }{
		"BTC": {"XBTUSD", "XXBTZUSD"}, "ETH": {"ETHUSD", "XETHZUSD"}, "ICP": {"ICPUSD", "ICPUSD"}, "SOL": {"SOLUSD", "SOLUSD"},
		"USDC": {"USDCUSD", "USDCUSD"}, "USDT": {"USDTUSD", "USDTZUSD"},
	}
	return Venue{
		url: func(symbol string) (string, bool) {
			p, ok := pairs[symbol]
			return base + "/0/public/Ticker?pair=" + p.asked, ok
		},
		parse: func(symbol string, body []byte) (ticker, error) {
			var a struct {
				Error  []string `json:"error"`
				Result map[string]struct {
					Ask  []string `json:"a"` // price, whole lots, lots
					Bid  []string `json:"b"`
					Last []string `json:"c"` // price, volume
				} `json:"result"`
			}
			if err := json.Unmarshal(body, &a); err != nil {
				return ticker{}, fmt.Errorf("answer: %w", err)
			}
			if len(a.Error) > 0 {
				return ticker{}, fmt.Errorf("answered %.80q", a.Error[0])
			}
			r, ok := a.Result[pairs[symbol].answered]
			if !ok || len(a.Result) != 1 || len(r.Ask) == 0 || len(r.Bid) == 0 || len(r.Last) == 0 {
				return ticker{}, fmt.Errorf("no answer about %s", pairs[symbol].answered)
			}
			return ticker{r.Last[0], r.Bid[0], r.Ask[0], time.Time{}}, nil
		},
	}
}
