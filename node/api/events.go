package api

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node/api/client"
	"github.com/coffer-network/coffer/node/api/history"
	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// Bounds of streams. A page needs one stream for all its topics, so a few per
// address are tabs, not one page.
const (
	maxTopics        = 64
	maxStreams       = 512 // half of maxConns: ordinary calls keep the other half
	maxAddressStream = 16
	maxBehind        = 256 // frames that a reader may be late
	beatEvery        = 5 * time.Second
	localEvery       = 500 * time.Millisecond // 2 a second and topic
	frameWait        = 10 * time.Second       // for one frame to leave
	pageOfRecords    = 512
)

func (s *server) events(api huma.API) {
	s.stream(api, "get-events", "/v1/events", "Events of topics as a stream (SSE)", func(in *eventsInput) []string {
		return strings.Split(in.Topics, ",")
	})
	s.stream(api, "get-account-events", "/v1/accounts/{id}/events", "Events of an account as a stream (SSE)", func(in *eventsInput) []string {
		return []string{"account:" + in.ID}
	})
	s.stream(api, "get-request-events", "/v1/requests/{id}/events", "Events of a request and its outflow as a stream (SSE)", func(in *eventsInput) []string {
		return []string{"request:" + in.ID}
	})
}

type eventsInput struct {
	ID          string
	Topics      string
	After       uint64
	LastEventID string
	addr        string
}

type topicsInput struct {
	Topics      string `query:"topics" required:"true" doc:"comma-separated, at most 64: account:<id>, request:<id>, outflow:<n>, markets, cluster, sessions" example:"markets,cluster"`
	After       uint64 `query:"after" doc:"LogIndex after which to begin; on any node. Absent: now"`
	LastEventID string `header:"Last-Event-ID" doc:"as after; the larger counts"`
}

type streamInput struct {
	ID          string `path:"id"`
	After       uint64 `query:"after" doc:"LogIndex after which to begin; on any node. Absent: now"`
	LastEventID string `header:"Last-Event-ID" doc:"as after; the larger counts"`
}

// stream registers one spelling of the one stream.
func (s *server) stream(api huma.API, id, path, summary string, topics func(*eventsInput) []string) {
	schema := func(v any) *huma.Schema { return api.OpenAPI().Components.Schemas.Schema(reflect.TypeOf(v), true, "") }
	op := huma.Operation{
		OperationID: id, Method: http.MethodGet, Path: path, Summary: summary, Errors: []int{400, 503},
		Description: "Frames: `ledger` (id: LogIndex; all events of it for the topics), `local` (what this node alone saw), `beat` (every 5 s), `reset` (events are missing: take snapshots at its asOf). Reconnect to any node with the last id.",
		Responses: map[string]*huma.Response{"200": {Description: "Server-sent events", Content: map[string]*huma.MediaType{
			"text/event-stream": {Schema: &huma.Schema{OneOf: []*huma.Schema{
				schema(client.LedgerFrame{}), schema(client.LocalFrame{}), schema(client.Beat{}), schema(client.Reset{}),
			}}},
		}}},
	}
	if path == "/v1/events" {
		huma.Register(api, op, func(ctx context.Context, in *topicsInput) (*huma.StreamResponse, error) {
			return s.open(topics, &eventsInput{Topics: in.Topics, After: in.After, LastEventID: in.LastEventID})
		})
		return
	}
	huma.Register(api, op, func(ctx context.Context, in *streamInput) (*huma.StreamResponse, error) {
		return s.open(topics, &eventsInput{ID: in.ID, After: in.After, LastEventID: in.LastEventID})
	})
}

func (s *server) open(topics func(*eventsInput) []string, in *eventsInput) (*huma.StreamResponse, error) {
	t, err := parseTopics(topics(in))
	if err != nil {
		return nil, s.problem(ledger.Malformed, err.Error())
	}
	after := in.After
	if in.LastEventID != "" {
		last, err := strconv.ParseUint(in.LastEventID, 10, 64)
		if err != nil {
			return nil, s.problem(ledger.Malformed, "Last-Event-ID: want a LogIndex")
		}
		after = max(after, last)
	}
	begun := in.After != 0 || in.LastEventID != ""
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		r, w := humago.Unwrap(ctx)
		leave, problem := s.enter(addressOf(r))
		if problem != nil {
			s.write(w, problem)
			return
		}
		defer leave()
		last, _ := s.history.Now()
		if !begun {
			after = last
		}
		f := &follower{s: s, topics: t, w: w, rc: http.NewResponseController(w), after: after, shown: map[string][]byte{}}
		f.run(r.Context())
	}}, nil
}

// topics are what a stream is about.
type topicSet struct {
	names    []string
	accounts map[ledger.AccountID]bool
	requests map[ledger.Hash]bool
	outflows map[uint64]bool
	markets  bool
	cluster  bool
	sessions bool
}

func parseTopics(names []string) (*topicSet, error) {
	if len(names) > maxTopics {
		return nil, fmt.Errorf("%d topics, at most %d", len(names), maxTopics)
	}
	t := &topicSet{names: names, accounts: map[ledger.AccountID]bool{}, requests: map[ledger.Hash]bool{}, outflows: map[uint64]bool{}}
	for _, name := range names {
		kind, id, _ := strings.Cut(name, ":")
		switch {
		case name == "markets":
			t.markets = true
		case name == "cluster":
			t.cluster = true
		case name == "sessions":
			t.sessions = true
		case kind == "account":
			if _, err := client.ParseAccount(id); err != nil {
				return nil, err
			}
			t.accounts[id] = true
		case kind == "request":
			b, err := hex.DecodeString(id)
			if err != nil || len(b) != len(ledger.Hash{}) || ledger.Hash(b) == (ledger.Hash{}) {
				return nil, fmt.Errorf("topic %q: want 64 hex digits", name) // zeros stand for no request
			}
			t.requests[ledger.Hash(b)] = true
		case kind == "outflow":
			n, err := strconv.ParseUint(id, 10, 64)
			if err != nil || n == 0 {
				return nil, fmt.Errorf("topic %q: want a number", name)
			}
			t.outflows[n] = true
		default:
			return nil, fmt.Errorf("no topic %q: want account:<id>, request:<id>, outflow:<n>, markets, cluster or sessions", name)
		}
	}
	return t, nil
}

// frame is what a record says to the topics; nil: nothing. It depends on the
// record and the topics alone, so that all nodes send the same bytes.
func (t *topicSet) frame(r history.Record) *client.LedgerFrame {
	own := t.accounts[r.Account] || t.requests[r.Request]
	f := &client.LedgerFrame{LogIndex: r.Height, Time: at(r.Millis), Events: []client.Event{}}
	for _, e := range r.Entries {
		if t.requests[r.Request] && e.Event.Name == "outflow" {
			t.outflows[e.Event.Outflow] = true // a request goes on in the outflow it created
		}
		if t.wants(e) || t.requests[r.Request] {
			f.Events = append(f.Events, eventOf(e))
		}
	}
	if own {
		f.Request, f.Account, f.Action, f.Code = r.Request.String(), r.Account, r.Action, string(r.Code)
	}
	if len(f.Events) == 0 && (!own || r.Request == ledger.Hash{}) {
		return nil
	}
	return f
}

func (t *topicSet) wants(e history.Entry) bool {
	switch v := e.Event; {
	case t.accounts[v.Account], t.outflows[v.Outflow]:
		return true
	case v.Account == "" && v.Outflow == 0 && v.Asset != "":
		return t.markets
	case v.Account == "" && v.Outflow == 0 && v.Batch == 0:
		return t.cluster
	case v.Name == "hold" && t.cluster:
		return true
	}
	return slices.ContainsFunc(e.Outflows, func(o uint64) bool { return t.outflows[o] })
}

func eventOf(e history.Entry) client.Event {
	v := e.Event
	return client.Event{
		Name: v.Name, Account: v.Account, Asset: v.Asset, Amount: v.Amount, Outflow: v.Outflow, Batch: v.Batch, Outflows: e.Outflows,
		Kind: e.Kind, Inflow: e.Inflow, TxID: e.TxID, Gross: e.Gross, Fee: e.Fee, Net: e.Net, Price: e.Low, PriceHigh: e.High, Note: v.Note,
	}
}

// follower is one stream on its way to one reader.
type follower struct {
	s      *server
	topics *topicSet
	w      http.ResponseWriter
	rc     *http.ResponseController
	after  uint64
	live   bool // it was at the head once
	shown  map[string][]byte
}

func (f *follower) run(ctx context.Context) {
	h := f.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // a proxy that collects would hold beats back
	f.w.WriteHeader(http.StatusOK)
	f.rc.SetReadDeadline(time.Time{}) // the server's would end the stream; not every writer has one
	for id := range f.topics.requests {
		if r, ok := f.s.history.Request(id); ok {
			f.topics.frame(r) // whose outflow it follows
		}
	}
	beat, local := time.NewTicker(beatEvery), time.NewTicker(localEvery)
	defer beat.Stop()
	defer local.Stop()
	if f.beat() != nil {
		return
	}
	for {
		last, more := f.s.history.Now()
		if f.after < last {
			if f.catchUp(last) != nil {
				return
			}
			continue
		}
		f.live = true
		var err error
		select {
		case <-ctx.Done():
			return
		case <-f.s.closing:
			return
		case <-more:
		case <-beat.C:
			err = f.beat()
		case <-local.C:
			err = f.local()
		}
		if err != nil {
			return
		}
	}
}

// catchUp sends what is known through last, or a reset where that cannot be.
func (f *follower) catchUp(last uint64) error {
	var late []*client.LedgerFrame
	for f.after < last {
		rs, through, err := f.s.history.After(f.after, pageOfRecords)
		switch {
		case errors.Is(err, history.ErrForgotten), errors.Is(err, history.ErrUnavailable):
			return f.reset("forgotten")
		case err != nil:
			return err
		}
		for _, r := range rs {
			if x := f.topics.frame(r); x != nil {
				late = append(late, x)
			}
		}
		if f.live && len(late) > maxBehind {
			return f.reset("slow")
		}
		if !f.live { // a resume may be long: it is sent as it is read
			if err := f.sendAll(late); err != nil {
				return err
			}
			late = late[:0]
		}
		f.after = through
	}
	return f.sendAll(late)
}

func (f *follower) sendAll(frames []*client.LedgerFrame) error {
	for _, x := range frames {
		if err := f.send(client.FrameLedger, x.LogIndex, x); err != nil {
			return err
		}
	}
	return nil
}

func (f *follower) reset(why string) error {
	last, _ := f.s.history.Now()
	f.after = last
	return f.send(client.FrameReset, 0, client.Reset{AsOf: last, Kept: f.s.history.Since(), Reason: why})
}

func (f *follower) beat() error {
	v, st := f.s.view(), f.s.b.Status()
	b := client.Beat{LogIndex: v.Height, LedgerTime: v.now(), Leader: st.Leader}
	if st.Commit > v.Height {
		b.Lag = st.Commit - v.Height
	}
	return f.send(client.FrameBeat, 0, b)
}

// local sends what this node alone saw, where it changed.
func (f *follower) local() error {
	for _, name := range f.topics.names {
		x := client.LocalFrame{Topic: name}
		kind, id, _ := strings.Cut(name, ":")
		switch kind {
		case "account":
			for _, seen := range f.s.b.Sightings(id) {
				x.Sightings = append(x.Sightings, sighting(seen))
			}
		case "sessions":
			x.Sessions = f.s.running(0)
		case "outflow":
			n, _ := strconv.ParseUint(id, 10, 64) // parsed before
			if o, ok := f.s.view().Outflows.Get(n); ok && o.Batch != 0 {
				x.Sessions = f.s.running(o.Batch)
			}
		case "cluster":
			for _, c := range f.s.b.Status().Chains {
				x.Chains = append(x.Chains, client.LocalChain{Name: c.Chain, Height: c.Height, Final: c.Final, Read: c.Read.UTC(), Failing: c.Failing})
			}
		default:
			continue
		}
		body, err := json.Marshal(x)
		if err != nil {
			return err
		}
		_, before := f.shown[name]
		if string(f.shown[name]) == string(body) || !before && x.Sightings == nil && len(x.Sessions) == 0 && x.Chains == nil {
			continue
		}
		f.shown[name] = body
		if err := f.send(client.FrameLocal, 0, x); err != nil {
			return err
		}
	}
	return nil
}

// send writes one frame. The server's write timeout does not apply to streams:
// each frame has its own.
func (f *follower) send(kind string, id uint64, data any) error {
	body, err := json.Marshal(data)
	if err != nil {
		return err
	}
	f.rc.SetWriteDeadline(time.Now().Add(frameWait)) // a writer without one has no slow line either
	head := ""
	if id != 0 {
		head = fmt.Sprintf("id: %d\n", id)
	}
	if _, err := fmt.Fprintf(f.w, "%sevent: %s\ndata: %s\n\n", head, kind, body); err != nil {
		return err
	}
	return f.rc.Flush()
}
