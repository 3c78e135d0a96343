package client

import "strconv"

// HistoryColumns are those of the CSV form, named as in JSON.
var HistoryColumns = []string{
	"logIndex", "time", "kind", "pool", "symbol", "decimals", "amount", "price", "priceHigh", "fee", "net",
	"state", "outflow", "inflow", "txid", "request", "code", "limit", "found", "note",
}

// Columns are a row's cells, as HistoryColumns names them.
func (x HistoryRow) Columns() []string {
	number := func(n uint64) string {
		if n == 0 {
			return ""
		}
		return strconv.FormatUint(n, 10)
	}
	return []string{
		number(x.LogIndex), x.Time.UTC().Format("2006-01-02T15:04:05.000Z"), x.Kind, x.Pool, x.Symbol, number(uint64(x.Decimals)),
		x.Amount, x.Price, x.PriceHigh, x.Fee, x.Net, x.State, number(x.Outflow), x.Inflow, x.TxID, x.Request, x.Code, x.Limit, x.Found, x.Note,
	}
}
