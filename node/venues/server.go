package venues

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// server is a plain price server: {"asset":"BTC","price":"50000","time":"…"}.
// Which assets it lists is known only by asking.
func server(template string) Venue {
	return Venue{
		url: func(symbol string) (string, bool) {
			return strings.ReplaceAll(template, "{asset}", url.PathEscape(symbol)), true
		},
		parse: func(symbol string, body []byte) (ticker, error) {
			var a struct {
				Asset string    `json:"asset"`
				Price string    `json:"price"` // USD
				Time  time.Time `json:"time"`
			}
			if err := json.Unmarshal(body, &a); err != nil {
				return ticker{}, fmt.Errorf("answer: %w", err)
			}
			if a.Asset != symbol {
				return ticker{}, fmt.Errorf("answered for %.20q", a.Asset)
			}
			if a.Time.IsZero() {
				return ticker{}, errors.New("answer without time")
			}
			return ticker{Last: a.Price, At: a.Time}, nil
		},
	}
}
