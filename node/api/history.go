package api

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node/api/client"
	"github.com/coffer-network/coffer/node/api/history"
	"github.com/danielgtaylor/huma/v2"
)

func (s *server) histories(api huma.API) {
	op := huma.Operation{
		OperationID: "get-account-history", Method: http.MethodGet, Path: "/v1/accounts/{id}/history",
		Summary:     "All that happened to an account, newest first, with price and fee",
		Description: "From this node's own memory of the log: since says from which LogIndex on nothing is missing. JSON, or CSV with Accept: text/csv.",
		Errors:      []int{400, 404, 503},
		Responses: map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{
			"application/json": {Schema: api.OpenAPI().Components.Schemas.Schema(reflect.TypeOf(client.History{}), true, "")},
			"text/csv":         {Schema: &huma.Schema{Type: "string"}},
		}}},
	}
	huma.Register(api, op, func(ctx context.Context, in *historyInput) (*historyReply, error) {
		v, err := s.fresh(ctx, in.read())
		if err != nil {
			return nil, s.answer(err)
		}
		h, err := s.accountHistory(v, in)
		if err != nil {
			return nil, s.answer(err)
		}
		return replyAs(h, in.Accept)
	})
}

type historyInput struct {
	ReadInput
	ID     string `path:"id" doc:"32 lower-case hex digits"`
	Cursor string `query:"cursor" doc:"next of the page before"`
	Limit  int    `query:"limit" minimum:"1" maximum:"200" default:"50"`
	Accept string `header:"Accept"`
}

type historyReply struct {
	ContentType string `header:"Content-Type"`
	Vary        string `header:"Vary"`
	AsOf        uint64 `header:"X-As-Of" doc:"asOf, for the CSV form"`
	Next        string `header:"X-Next-Cursor" doc:"next, for the CSV form"`
	Body        []byte
}

func replyAs(h *client.History, accept string) (*historyReply, error) {
	out := &historyReply{ContentType: "application/json", Vary: "Accept", AsOf: h.AsOf, Next: h.Next}
	if strings.HasPrefix(strings.TrimSpace(accept), "text/csv") {
		out.ContentType = "text/csv; charset=utf-8"
		out.Body = historyCSV(h.Rows)
		return out, nil
	}
	var err error
	out.Body, err = json.Marshal(h)
	return out, err
}

// accountHistory is one page. The cursor is the LogIndex of the last record
// shown and how many of its rows were.
func (s *server) accountHistory(v view, in *historyInput) (*client.History, error) {
	if _, err := client.ParseAccount(in.ID); err != nil {
		return nil, s.problem(ledger.Malformed, err.Error())
	}
	below, skip := uint64(0), 0
	if in.Cursor != "" {
		height, shown, ok := strings.Cut(in.Cursor, "-")
		h, err := strconv.ParseUint(height, 10, 63)
		n, err2 := strconv.Atoi(shown)
		if !ok || err != nil || err2 != nil || n < 0 {
			return nil, s.problem(ledger.Malformed, "cursor")
		}
		below, skip = h+1, n
	}
	limit := min(max(in.Limit, 1), maxPage)
	rs, err := s.history.Find(history.ByAccount(in.ID), below, limit+2)
	if err != nil {
		return nil, s.noHistory(err)
	}
	if _, open := v.account(in.ID); !open && len(rs) == 0 {
		return nil, s.problem(ledger.UnknownAccount, in.ID)
	}
	out := &client.History{Since: s.history.Since(), Rows: []client.HistoryRow{}}
	out.AsOf = v.Height
	for _, r := range rs {
		rows := v.rows(r, in.ID)
		if r.Height+1 == below {
			rows = rows[min(skip, len(rows)):]
		} else {
			skip = 0
		}
		for i, row := range rows {
			if len(out.Rows) == limit {
				return out, nil
			}
			out.Rows = append(out.Rows, row)
			out.Next = fmt.Sprintf("%d-%d", r.Height, skip+i+1)
		}
	}
	out.Next = "" // all there is
	return out, nil
}

func (s *server) noHistory(err error) error {
	if errors.Is(err, history.ErrUnavailable) {
		return s.problem(unavailable, "")
	}
	return err
}

// rows are what a record says of an account, newest first.
func (v view) rows(r history.Record, account ledger.AccountID) []client.HistoryRow {
	base := client.HistoryRow{LogIndex: r.Height, Time: at(r.Millis)}
	if r.Account == account {
		base.Request, base.Code = r.Request.String(), string(r.Code)
	}
	var rows []client.HistoryRow
	var refusal ledger.RefusalRecord
	for i := len(r.Entries) - 1; i >= 0; i-- {
		e := r.Entries[i]
		if e.Event.Account != account {
			continue
		}
		if e.Event.Name == ledger.EventRefused { // told by the request's own row, with its numbers
			if json.Unmarshal([]byte(e.Event.Note), &refusal) != nil {
				refusal = ledger.RefusalRecord{} // of another version: no numbers
			}
			continue
		}
		x := base
		x.Kind, x.Pool, x.Amount = kindOf(e), e.Event.Asset, e.Event.Amount
		x.Outflow, x.Inflow, x.TxID, x.Note = e.Event.Outflow, e.Inflow, e.TxID, e.Event.Note
		x.Price, x.PriceHigh, x.Fee, x.Net = e.Low, e.High, e.Fee, e.Net
		switch e.Event.Name {
		case "outflow-state":
			x.State, x.Note, x.Amount = e.Event.Note, "", e.Gross
		case "outflow":
			x.State, x.Note = ledger.Queued.String(), ""
		case "credited":
			_, x.Note, _ = strings.Cut(e.Event.Note, " ")
			x.TxID, _, _ = strings.Cut(e.Inflow, ":")
		}
		rows = append(rows, x)
	}
	if r.Account == account && (len(rows) == 0 || r.Code != ledger.OK) {
		x := base
		x.Kind, x.Pool, x.Amount = "request", r.Pool, r.Amount
		if x.Amount == "0" && r.Pool == "" {
			x.Amount = ""
		}
		x.Note, x.Limit, x.Found = r.Action, refusal.Limit, refusal.Found
		rows = append(rows, x)
	}
	for i := range rows {
		if a, ok := v.Genesis.Asset(rows[i].Pool); ok {
			rows[i].Symbol, rows[i].Decimals = a.Symbol, a.Decimals
		}
	}
	return rows
}

// kindOf is what happened, in the words of clients.
func kindOf(e history.Entry) string {
	switch e.Event.Name {
	case "credited":
		if _, reason, _ := strings.Cut(e.Event.Note, " "); reason != "" {
			return "suspense"
		}
		return e.Kind
	case "outflow", "outflow-state":
		if e.Kind == "refund" {
			return "claim"
		}
		return e.Kind
	case "inflow-waiting":
		return "deposit-seen"
	case "account":
		return "opened"
	}
	return e.Event.Name
}

func historyCSV(rows []client.HistoryRow) []byte {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	w.Write(client.HistoryColumns) // a buffer takes everything
	for _, x := range rows {
		w.Write(x.Columns())
	}
	w.Flush()
	return b.Bytes()
}
