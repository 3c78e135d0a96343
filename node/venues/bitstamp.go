package venues

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// bitstamp is GET /api/v2/ticker/btcusd/: last trade, best bid and ask, and the
// second in which it answered.
func bitstamp(base string) Venue {
	pairs := map[string]string{"BTC": "btcusd", "ETH": "ethusd", "SOL": "solusd", "USDC": "usdcusd", "USDT": "usdtusd"}
	return Venue{
		url: func(symbol string) (string, bool) {
			p, ok := pairs[symbol]
			return base + "/api/v2/ticker/" + p + "/", ok
		},
		parse: func(_ string, body []byte) (ticker, error) {
			var a struct {
				Last      string `json:"last"`
				Bid       string `json:"bid"`
				Ask       string `json:"ask"`
				Timestamp string `json:"timestamp"`
			}
			if err := json.Unmarshal(body, &a); err != nil {
				return ticker{}, fmt.Errorf("answer: %w", err)
			}
			sec, err := strconv.ParseInt(a.Timestamp, 10, 40)
			if err != nil || sec <= 0 || a.Bid == "" || a.Ask == "" {
				return ticker{}, fmt.Errorf("answer without bid, ask or time")
			}
			return ticker{a.Last, a.Bid, a.Ask, time.Unix(sec, 0)}, nil
		},
	}
}
