package venues

import (
	"encoding/json"
	"fmt"
	"time"
)

// coinbase is Coinbase Exchange: GET /products/BTC-USD/ticker, last trade with
// its time and best bid and ask. USDC has no market there: it is taken for a
// dollar.
func coinbase(base string) Venue {
	pairs := map[string]string{"BTC": "BTC-USD", "ETH": "ETH-USD", "ICP": "ICP-USD", "SOL": "SOL-USD", "USDT": "USDT-USD"}
	return Venue{
		url: func(symbol string) (string, bool) {
			p, ok := pairs[symbol]
			return base + "/products/" + p + "/ticker", ok
		},
		parse: func(_ string, body []byte) (ticker, error) {
			var a struct {
				Price string    `json:"price"`
				Bid   string    `json:"bid"`
				Ask   string    `json:"ask"`
				Time  time.Time `json:"time"`
			}
			if err := json.Unmarshal(body, &a); err != nil {
				return ticker{}, fmt.Errorf("answer: %w", err)
			}
			if a.Bid == "" || a.Ask == "" || a.Time.IsZero() {
				return ticker{}, fmt.Errorf("answer without bid, ask or time")
			}
			return ticker{a.Price, a.Bid, a.Ask, a.Time}, nil
		},
	}
}
