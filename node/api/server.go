package api

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node/api/client"
	"github.com/coffer-network/coffer/node/api/history"
	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// Limits of the listeners. A request text is at most 1 024 bytes and a
// signature is shorter, so 8 KiB hold every body (spec: requests §6).
const (
	maxBody    = 8 << 10
	maxHeader  = 8 << 10
	maxConns   = 1024
	maxWait    = 30 * time.Second
	postWait   = 5 * time.Second
	maxFlights = 256 // posted requests not answered yet: a flood is shed, not queued
	maxPage    = 200
)

// Config is what New needs beside the node.
type Config struct {
	Log     *slog.Logger
	History *history.Store // what the node applied; nil: nothing is remembered
	// Version is shown in the OpenAPI document.
	Version string
	// Closing ends the streams when it is closed: a server that shuts down waits
	// for open calls, and a stream has no end of its own. nil: never.
	Closing <-chan struct{}
}

type server struct {
	b       Backend
	log     *slog.Logger
	history *history.Store
	posted  *posted

	calls, posts, byAccount *buckets
	closing                 <-chan struct{} // ends streams; nil: never

	mu        sync.Mutex
	flights   map[ledger.Hash]*flight
	streaming int
	streams   map[string]int // by address
}

// New is the public API of a node: anyone may call it, from any page.
func New(b Backend, cfg Config) http.Handler {
	s, mux, api := build(b, cfg, "Coffer")
	s.requests(api)
	s.accounts(api)
	s.whys(api)
	s.outflows(api)
	s.markets(api)
	s.liquidations(api)
	s.cluster(api)
	s.votes(api)
	s.probes(api)
	s.events(api)
	s.histories(api)
	s.searches(api)
	return s.outer(cors(s.limited(mux)))
}

// Operator configures the operators' listener.
type Operator struct {
	Token   string       // asked for as "Authorization: Bearer"; "": the listener itself is private
	Metrics http.Handler // served at /metrics; nil: not served
}

// NewOperator is what an operator sees of his own node. It reads only: no call
// makes a node sign. Serve it on loopback or a unix socket.
func NewOperator(b Backend, cfg Config, op Operator) http.Handler {
	s, mux, api := build(b, cfg, "Coffer node")
	route(s, api, "node", "/v1/node", "This node, for its operator", s.nodeDetail)
	s.probes(api)
	if op.Metrics != nil {
		mux.Handle("GET /metrics", op.Metrics)
	}
	return s.outer(s.private(op.Token, mux))
}

func build(b Backend, cfg Config, title string) (*server, *http.ServeMux, huma.API) {
	s := &server{
		b: b, log: cfg.Log, history: cfg.History, posted: newPosted(), closing: cfg.Closing,
		calls: newBuckets(callsPerSecond, callsBurst), posts: newBuckets(postsPerSecond, postsBurst),
		byAccount: newBuckets(accountPerSecond, accountBurst),
		flights:   map[ledger.Hash]*flight{}, streams: map[string]int{},
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.history == nil {
		s.history = history.Open(history.Config{})
	}
	version := cfg.Version
	if version == "" {
		version = "0"
	}
	hc := huma.DefaultConfig(title, version)
	hc.DocsPath, hc.SchemasPath = "", "" // no page from elsewhere, no $schema in answers
	hc.CreateHooks = nil
	hc.Transformers = []huma.Transformer{s.stamp}
	mux := http.NewServeMux()
	api := humago.New(mux, hc)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.write(w, s.problem(unknownPath, r.URL.Path))
	})
	return s, mux, api
}

// HTTPServer serves a handler of this package with bounds on time and size.
// Writes may take as long as the longest wait and a slow line.
func HTTPServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      maxWait + 15*time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// Bound limits the open connections of a listener: one more waits in the
// kernel's queue instead of taking memory here.
func Bound(l net.Listener) net.Listener {
	return &bounded{Listener: l, room: make(chan struct{}, maxConns), closed: make(chan struct{})}
}

type bounded struct {
	net.Listener
	room   chan struct{}
	once   sync.Once
	closed chan struct{}
}

func (b *bounded) Accept() (net.Conn, error) {
	select {
	case b.room <- struct{}{}:
	case <-b.closed:
		return nil, net.ErrClosed
	}
	c, err := b.Listener.Accept()
	if err != nil {
		<-b.room
		return nil, err
	}
	return &boundedConn{Conn: c, leave: sync.OnceFunc(func() { <-b.room })}, nil
}

func (b *bounded) Close() error {
	b.once.Do(func() { close(b.closed) })
	return b.Listener.Close()
}

type boundedConn struct {
	net.Conn
	leave func()
}

func (c *boundedConn) Close() error {
	c.leave()
	return c.Conn.Close()
}

// cors lets every page read: there are no credentials to abuse.
func cors(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", "*")
		h.Set("Access-Control-Expose-Headers", "Location, Retry-After")
		if r.Method == http.MethodOptions {
			h.Set("Access-Control-Allow-Methods", "GET, POST")
			h.Set("Access-Control-Allow-Headers", "Content-Type, Last-Event-ID")
			h.Set("Access-Control-Max-Age", "600")
			w.WriteHeader(http.StatusNoContent)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// private answers loopback names only, so that no page can reach it by a name
// of its own that resolves here (DNS rebinding).
func (s *server) private(token string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		switch host {
		case "localhost", "127.0.0.1", "::1", "[::1]", "unix":
		default:
			s.write(w, s.problem(ledger.NotAllowed, "Host "+host))
			return
		}
		given, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if token != "" && subtle.ConstantTimeCompare([]byte(given), []byte(token)) != 1 {
			s.write(w, s.problem(ledger.NotAllowed, "token"))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// outer turns a panic into a problem document.
func (s *server) outer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			if v == http.ErrAbortHandler {
				panic(v)
			}
			p := s.problem(internal, "")
			s.log.Error("api: panic", "request", p.RequestID, "path", r.URL.Path, "panic", v, "stack", string(debug.Stack()))
			s.write(w, p)
		}()
		w.Header().Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}

// Reads.

// ReadInput is in every read. Its name begins with a capital because the library
// passes over what an unexported type that is embedded asks for, in silence.
type ReadInput struct {
	MinIndex    uint64 `query:"minIndex" doc:"wait until this replica reached this LogIndex"`
	Wait        string `query:"wait" doc:"how long at most, up to 30s" example:"5s"`
	Consistency string `query:"consistency" doc:"linearizable: not older than anything acknowledged before" example:"linearizable"`
}

func (r *ReadInput) read() *ReadInput { return r }

type reader interface{ read() *ReadInput }

// pointerTo is *T with what every answer can.
type pointerTo[T any] interface {
	*T
	SetAsOf(uint64)
}

type reply[T any] struct{ Body T }

// route registers a read: it waits for the view that was asked for, calls f and
// stamps the answer with that view's LogIndex.
func route[I, O any, PI interface {
	*I
	reader
}, PO pointerTo[O]](s *server, api huma.API, id, path, summary string, f func(context.Context, view, PI) (*O, error)) {
	op := huma.Operation{OperationID: id, Method: http.MethodGet, Path: path, Summary: summary, Errors: []int{404, 503}}
	huma.Register(api, op, func(ctx context.Context, in *I) (*reply[O], error) {
		v, err := s.fresh(ctx, PI(in).read())
		if err != nil {
			return nil, s.answer(err)
		}
		out, err := f(ctx, v, PI(in))
		if err != nil {
			return nil, s.answer(err)
		}
		PO(out).SetAsOf(v.Height)
		return &reply[O]{*out}, nil
	})
}

// fresh is a view at least as new as the caller asks for.
func (s *server) fresh(ctx context.Context, in *ReadInput) (view, error) {
	wait, err := s.wait(in.Wait, postWait)
	if err != nil {
		return view{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	need := in.MinIndex
	switch in.Consistency {
	case "":
	case "linearizable":
		index, err := s.b.ReadIndex(ctx)
		if err != nil {
			return view{}, fmt.Errorf("read index: %w", err)
		}
		need = max(need, index)
	default:
		return view{}, s.problem(ledger.Malformed, "consistency: want linearizable or nothing")
	}
	if v := s.view(); v.Height >= need {
		return v, nil
	}
	if err := s.b.WaitHeight(ctx, need); err != nil {
		return view{}, fmt.Errorf("wait for LogIndex %d: %w", need, err)
	}
	return s.view(), nil
}

func (s *server) view() view { return view{s.b.View()} }

// wait reads a duration of a query.
func (s *server) wait(text string, otherwise time.Duration) (time.Duration, error) {
	if text == "" {
		return otherwise, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > maxWait {
		p := s.problem(ledger.Malformed, "wait: want a duration such as 5s")
		p.Limit, p.Found = maxWait.String(), text
		return 0, p
	}
	return d, nil
}

// Problems.

// problem is a refusal with this code; about says what it is about.
func (s *server) problem(code ledger.Code, about string) *client.Problem {
	return newProblem(statusOf(code), code, about)
}

func newProblem(status int, code ledger.Code, about string) *client.Problem {
	p := &client.Problem{
		Status: status, Title: http.StatusText(status), Code: string(code),
		Detail: advice[code], RequestID: callID(),
	}
	if about != "" {
		p.Detail += " (" + about + ")"
	}
	switch code {
	case noLeader, timeout, overloaded, unavailable, ledger.CatchingUp, ledger.Limit:
		p.Retryable, p.After = true, 1
	}
	return p
}

func callID() string {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// answer turns the world's errors into problems. What nobody foresaw is logged
// under its id and told to nobody else.
func (s *server) answer(err error) error {
	var p *client.Problem
	var o *Overloaded
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &o):
		p = s.problem(overloaded, "")
		p.Limit = o.Limit
		p.After = max(1, int(o.After/time.Second))
		return p
	case errors.Is(err, ErrNoLeader):
		return s.problem(noLeader, "")
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.Is(err, ErrUnknown):
		return s.problem(timeout, "")
	}
	p = s.problem(internal, "")
	s.log.Error("api: call failed", "request", p.RequestID, "err", err)
	return p
}

// stamp gives problems their asOf, those of the library included.
func (s *server) stamp(_ huma.Context, _ string, v any) (any, error) {
	if p, ok := v.(*client.Problem); ok && p.AsOf == 0 {
		p.AsOf = s.b.View().Height
	}
	return v, nil
}

// write answers outside the library.
func (s *server) write(w http.ResponseWriter, p *client.Problem) {
	p.AsOf = s.b.View().Height
	writeProblem(w, p)
}

// The library's own errors (a body that is no JSON, a number that is none) are
// made by a function that the library keeps in a variable; it offers no other
// way to give them our form. Nobody else in this program uses the library.
func init() {
	huma.NewError = func(status int, msg string, errs ...error) huma.StatusError {
		if status == http.StatusRequestEntityTooLarge {
			p := newProblem(status, ledger.Malformed, "body")
			p.Limit = fmt.Sprint(maxBody)
			return p
		}
		if status >= http.StatusInternalServerError {
			return newProblem(status, internal, "")
		}
		for _, err := range errs {
			if err != nil {
				msg += ": " + err.Error()
				break
			}
		}
		return newProblem(http.StatusBadRequest, ledger.Malformed, msg)
	}
}
