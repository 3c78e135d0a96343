package alert

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/fixed"
	"github.com/coffer-network/coffer/node/api/history"
)

const (
	maxBelow   = 4096             // accounts that one rule about all of them looks at and remembers
	maxQueue   = 64               // alerts of one rule on their way; more are dropped
	maxPerHour = 60               // of one rule: a hook is for people
	lookEvery  = 5 * time.Second  // at figures; effects are seen at once
	sendWithin = 10 * time.Second // one try
	tries      = 5                // over about five minutes with the pauses between
	firstPause = 4 * time.Second  // four times as long each time
)

// Alert is the body that is posted. Its signature is the header
// Coffer-Signature: "sha256=" and the HMAC-SHA256 of the body in hex.
type Alert struct {
	ID       string    `json:"id"` // the same for every try: drop doubles by it
	Kind     string    `json:"kind"`
	Account  string    `json:"account,omitempty"`
	Asset    string    `json:"asset,omitempty"`
	Value    string    `json:"value,omitempty"`     // WAD, USD · 10⁸, RAY, or base units of Asset
	Limit    string    `json:"threshold,omitempty"` // in the same unit
	Outflow  uint64    `json:"outflow,omitempty"`
	TxID     string    `json:"txid,omitempty"`
	LogIndex uint64    `json:"logIndex"`
	Time     time.Time `json:"time"` // ledger time
}

// Source is the node as rules see it.
type Source interface{ View() *ledger.State }

// Config is what New needs.
type Config struct {
	Rules   []Rule
	Genesis ledger.Genesis
	Source  Source
	History *history.Store
	Log     *slog.Logger
	Count   func(kind, outcome string) // "sent", "failed", "dropped"; nil: nobody counts
	Live    func(*ledger.State) bool   // this is the state of now, and not one that a log is replayed through; nil: always

	pause time.Duration // before the second try; tests make it short
	look  time.Duration
	now   func() time.Time
}

// Engine watches and posts. Run does the work.
type Engine struct {
	cfg   Config
	rules []*watch
	http  *http.Client
}

// watch is one rule at work.
type watch struct {
	compiled
	fired bool                      // and not armed again
	below map[ledger.AccountID]bool // of a rule about all accounts: for whom it fired and is not armed again
	times []time.Time               // of the last alerts, for the rate
	queue chan Alert
}

// New compiles the rules.
func New(cfg Config) (*Engine, error) {
	if err := Validate(cfg.Rules, cfg.Genesis); err != nil {
		return nil, err
	}
	if cfg.Count == nil {
		cfg.Count = func(string, string) {}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.pause == 0 {
		cfg.pause, cfg.look, cfg.now = firstPause, lookEvery, time.Now
	}
	e := &Engine{cfg: cfg, http: &http.Client{
		Timeout: sendWithin,
		// Not the default transport: its proxy comes from the environment, and its
		// connections outlive the engine.
		Transport: &http.Transport{MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: sendWithin},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return errors.New("redirects are not followed") // the operator named where figures go
		},
	}}
	for _, r := range cfg.Rules {
		c, err := compile(r, cfg.Genesis)
		if err != nil {
			return nil, err
		}
		e.rules = append(e.rules, &watch{compiled: c, below: map[ledger.AccountID]bool{}, queue: make(chan Alert, maxQueue)})
	}
	return e, nil
}

// Run watches until ctx ends.
func (e *Engine) Run(ctx context.Context) {
	if len(e.rules) == 0 {
		return
	}
	var wg sync.WaitGroup
	defer e.http.CloseIdleConnections()
	defer wg.Wait()
	for _, w := range e.rules {
		wg.Add(1)
		go func() {
			defer wg.Done()
			e.deliver(ctx, w)
		}()
	}
	after, more := e.cfg.History.Now() // what happened before the start is no news
	t := time.NewTicker(e.cfg.look)
	defer t.Stop()
	e.figures()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			e.figures()
		case <-more:
			var last uint64
			if last, more = e.cfg.History.Now(); last > after {
				after = e.effects(after)
			}
		}
	}
}

// figures fires the rules whose value crossed its threshold: today's, not one of those
// that were told before the node started and are passed through again.
func (e *Engine) figures() {
	v := e.cfg.Source.View()
	if e.cfg.Live != nil && !e.cfg.Live(v) {
		return
	}
	for _, w := range e.rules {
		if w.Kind == HealthBelow && w.Account == "*" {
			e.everybody(w, v)
			continue
		}
		value, ok := w.value(v)
		if !ok {
			continue
		}
		switch {
		case w.beyond(value, w.limit) && !w.fired:
			w.fired = true
			e.push(w, Alert{Account: w.Account, Asset: w.Asset, Value: value.String(), Limit: w.limit.String(), LogIndex: v.Height, Time: at(v.Millis)})
		case !w.beyond(value, w.rearm) && value != w.rearm:
			w.fired = false
		}
	}
}

// everybody fires for each account that the ledger's finder has below 1 and that
// is below the threshold. An account is armed again when it is well above it, or
// owes nothing.
func (e *Engine) everybody(w *watch, v *ledger.State) {
	for id := range w.below {
		if h, code := v.Health(id); code == ledger.OK && (h.HF == nil || w.rearm.Less(*h.HF)) {
			delete(w.below, id)
		}
	}
	for _, r := range v.AtRisk("", maxBelow) {
		if r.HF == nil || !r.HF.Less(w.limit) || w.below[r.Account] {
			continue
		}
		if len(w.below) >= maxBelow {
			e.cfg.Count(w.Kind, "dropped")
			return
		}
		w.below[r.Account] = true
		e.push(w, Alert{Account: r.Account, Value: r.HF.String(), Limit: w.limit.String(), LogIndex: v.Height, Time: at(v.Millis)})
	}
}

func (w *watch) beyond(value, limit fixed.Int) bool {
	if w.above {
		return limit.Less(value)
	}
	return value.Less(limit)
}

// value is what a rule watches now; false: there is none.
func (w *watch) value(v *ledger.State) (fixed.Int, bool) {
	switch w.Kind {
	case HealthBelow:
		h, code := v.Health(w.Account)
		if code != ledger.OK || h.HF == nil {
			return fixed.Int{}, false
		}
		return *h.HF, true
	case PriceBelow, PriceAbove:
		p, ok := v.Prices.Get(w.Asset)
		return p.Low, ok && p.Millis != 0
	case RateAbove:
		m, code := v.Market(w.Asset)
		return m.Pool.BorrowRate, code == ledger.OK
	}
	return fixed.Int{}, false
}

// effects fires the rules about things that happened, and returns through where
// it read.
func (e *Engine) effects(after uint64) uint64 {
	for {
		rs, through, err := e.cfg.History.After(after, 512)
		if err != nil { // forgotten: best effort
			last, _ := e.cfg.History.Now()
			return last
		}
		for _, r := range rs {
			for _, x := range r.Entries {
				e.effect(r, x)
			}
		}
		if last, _ := e.cfg.History.Now(); through >= last || through <= after {
			return through
		}
		after = through
	}
}

func (e *Engine) effect(r history.Record, x history.Entry) {
	v := x.Event
	for _, w := range e.rules {
		hit := w.Kind == DepositCredited && v.Name == "credited" ||
			w.Kind == OutflowSent && v.Name == "outflow-state" && v.Note == ledger.Mined.String()
		if !hit || v.Account == "" || w.Account != "*" && w.Account != v.Account {
			continue
		}
		a := Alert{Account: v.Account, Asset: v.Asset, Value: v.Amount, Outflow: v.Outflow, TxID: x.TxID, LogIndex: r.Height, Time: at(r.Millis)}
		if w.Kind == OutflowSent {
			a.Value = x.Net
		} else {
			a.TxID = x.Inflow
		}
		e.push(w, a)
	}
}

// push queues an alert, at most maxPerHour of a rule.
func (e *Engine) push(w *watch, a Alert) {
	a.Kind = w.Kind
	id := sha256.Sum256([]byte(fmt.Sprint(w.Rule.Kind, w.Rule.URL, w.Rule.Threshold, a.LogIndex, a.Account, a.Asset, a.Outflow, a.TxID)))
	a.ID = hex.EncodeToString(id[:16])
	now := e.cfg.now()
	for len(w.times) > 0 && now.Sub(w.times[0]) > time.Hour {
		w.times = w.times[1:]
	}
	if len(w.times) >= maxPerHour {
		e.cfg.Count(w.Kind, "dropped")
		return
	}
	select {
	case w.queue <- a:
		w.times = append(w.times, now)
	default:
		e.cfg.Count(w.Kind, "dropped")
	}
}

// deliver posts one rule's alerts, one after the other.
func (e *Engine) deliver(ctx context.Context, w *watch) {
	for {
		select {
		case <-ctx.Done():
			return
		case a := <-w.queue:
			err := e.send(ctx, w, a)
			switch {
			case ctx.Err() != nil:
				return
			case err != nil:
				e.cfg.Count(w.Kind, "failed")
				e.cfg.Log.Warn("alert not delivered", slog.String("kind", w.Kind), slog.String("id", a.ID), slog.Any("err", err))
			default:
				e.cfg.Count(w.Kind, "sent")
			}
		}
	}
}

func (e *Engine) send(ctx context.Context, w *watch, a Alert) error {
	body, err := json.Marshal(a)
	if err != nil {
		return err
	}
	mac := hmac.New(sha256.New, w.secret)
	mac.Write(body)
	signature := "sha256=" + hex.EncodeToString(mac.Sum(nil))
	pause := e.cfg.pause
	for i := range tries {
		if i > 0 {
			t := time.NewTimer(pause)
			select {
			case <-t.C:
			case <-ctx.Done():
				t.Stop()
				return ctx.Err()
			}
			pause *= 4
		}
		if err = e.post(ctx, w.URL, body, signature); err == nil {
			return nil
		}
	}
	return fmt.Errorf("after %d tries: %w", tries, err)
}

func (e *Engine) post(ctx context.Context, url string, body []byte, signature string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "coffer")
	r.Header.Set("Coffer-Signature", signature)
	a, err := e.http.Do(r)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	io.Copy(io.Discard, io.LimitReader(a.Body, 4096)) // so that the connection can be used again
	if a.StatusCode < 200 || a.StatusCode > 299 {
		return fmt.Errorf("answered %s", a.Status)
	}
	return nil
}

func at(millis uint64) time.Time { return time.UnixMilli(int64(millis)).UTC() }
