package node

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// What a member checks beside the ledger's rules before it signs (spec: committee
// §5): the outflow caps from the payouts themselves, its operator's own limits,
// and its operator's screening. It refuses in the open, with the reason in the
// log for everybody. None of it can make a payment; all of it can hold one up.

// Limit is what an operator's node signs at most of an asset, base units; empty:
// no limit of his.
type Limit struct {
	Asset  string `toml:"asset"`
	Single string `toml:"single,omitempty"` // one payout
	Hour   string `toml:"hour,omitempty"`   // all payouts planned within an hour
	Day    string `toml:"day,omitempty"`
}

// validatePolicy checks that limits are of assets and numbers, and that screening
// is asked over loopback or TLS.
func (c Config) validatePolicy(g ledger.Genesis) error {
	for _, l := range c.Limits {
		if _, ok := g.Asset(l.Asset); !ok {
			return fmt.Errorf("limit: asset %q is not in the genesis", l.Asset)
		}
		if l.Single == "" && l.Hour == "" && l.Day == "" {
			return fmt.Errorf("limit of %s: nothing is limited", l.Asset)
		}
		for _, text := range []string{l.Single, l.Hour, l.Day} {
			if _, err := fixed.Parse(text); text != "" && err != nil {
				return fmt.Errorf("limit of %s: %q: %w", l.Asset, text, err)
			}
		}
	}
	if c.Screen == "" {
		return nil
	}
	u, err := url.Parse(c.Screen)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("screen %q: want an http or https URL", c.Screen)
	}
	if ip := net.ParseIP(u.Hostname()); u.Scheme == "http" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("screen %q: want https, or a loopback address", c.Screen)
	}
	return nil
}

const (
	hourMillis = 3_600_000
	dayMillis  = 86_400_000
)

// overLimit says which limit of the operator's a batch's payouts break; empty:
// none. Sums are of all that was planned of the asset in the hour, or the day, up
// to the payout, so the answer stays what it was at the plan.
func overLimit(v *ledger.State, b ledger.Batch, limits []Limit) string {
	for _, id := range b.Outflows {
		o, _ := v.Outflows.Get(id)
		if o.Account == "" {
			continue
		}
		for _, l := range limits {
			if l.Asset != o.Asset {
				continue
			}
			since := func(span uint64) fixed.Int { return v.DrawnBetween(o.Asset, o.Drew+1-min(span, o.Drew), o.Drew, "") }
			for _, x := range []struct {
				name, most string
				sum        fixed.Int
			}{{"one payout", l.Single, o.Gross}, {"an hour", l.Hour, since(hourMillis)}, {"a day", l.Day, since(dayMillis)}} {
				if most, err := fixed.Parse(x.most); x.most != "" && (err != nil || most.Less(x.sum.Max(o.Gross))) {
					return fmt.Sprintf("local limit: %s %s in %s, this node signs %s", x.sum.Max(o.Gross), o.Asset, x.name, x.most)
				}
			}
		}
	}
	return ""
}

// refuses says why this node does not sign an attempt that pays, and has it
// attested; empty: it signs. A cancel pays nobody and is always signed.
func (n *Node) refuses(ctx context.Context, v *ledger.State, j job) string {
	if j.attempt.Cancels() {
		return ""
	}
	check, why := "", ""
	if err := v.CapsKept(j.batch.ID); err != nil {
		check, why = "caps", err.Error()
	} else if why = overLimit(v, j.batch, n.cfg.Limits); why != "" {
		check = "limit"
	} else if why = n.screening.payouts(ctx, v, j.batch); why != "" {
		check = "screening"
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if why == "" {
		delete(n.refusals, j.key())
		return ""
	}
	why = printable(why)
	if n.refusals[j.key()].Reason != why {
		n.log.Error("attempt refused", slog.Uint64("batch", j.batch.ID), slog.Uint64("attempt", j.attempt.K), slog.String("why", why))
		n.metrics.unsignedFor(check)
	}
	n.refusals[j.key()] = ledger.Refusal{Batch: j.batch.ID, Attempt: j.attempt.K, Reason: why}
	return why
}

// printable is a text as the ledger takes it: what is not ASCII becomes "?".
func printable(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, text)
	return text[:min(len(text), 160)]
}

// suspectRefusers has a member not wait for those that said they will not sign.
func (n *Node) suspectRefusers(j job, suspects map[ledger.MemberID]bool) {
	v, _ := n.app.now()
	b, ok := v.Batches.Get(j.batch.ID)
	if !ok || len(b.Attempts) == 0 || b.Newest().K != j.attempt.K {
		return
	}
	for _, r := range b.Newest().Refused {
		if r.Member != n.self {
			suspects[r.Member] = true
		}
	}
}

// Screening: an operator may have a service of his own asked before his node
// attests a deposit and before it signs a payout (spec: outflows §6.5, fault 50).
// It fails closed: without an answer the deposit is not attested and the payout
// not signed by this node, and both are asked again. Off by default.
//
//	POST {"direction":"in"|"out","chain":…,"asset":…,"address":…,"amount":…,"id":…}
//	200  {"allow":true} or {"allow":false,"reason":…}

const (
	screenTimeout = 5 * time.Second
	screenEvery   = 5 * time.Second
	// maxScreened bounds what one round asks, and maxLetIn what is remembered.
	maxScreened = 256
	maxLetIn    = 100_000
)

type screening struct {
	url    string
	client *http.Client

	mu  sync.Mutex
	in  map[string]bool // inflows that were let in
	out map[string]bool // payouts, by outflow and binding
}

func newScreening(url string) *screening {
	if url == "" {
		return nil
	}
	return &screening{url: url, client: &http.Client{Timeout: screenTimeout}, in: map[string]bool{}, out: map[string]bool{}}
}

type screened struct {
	Direction string `json:"direction"`
	Chain     string `json:"chain"`
	Asset     string `json:"asset"`
	Address   string `json:"address"`
	Amount    string `json:"amount"` // base units
	ID        string `json:"id"`
}

// ask returns why something is not let through; empty: it is.
func (s *screening) ask(ctx context.Context, q screened) string {
	body, err := json.Marshal(q)
	if err != nil {
		return err.Error()
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return err.Error()
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := s.client.Do(r)
	if err != nil {
		return "screening does not answer" // the error may hold the URL, and that a password
	}
	defer resp.Body.Close()
	var a struct {
		Allow  bool   `json:"allow"`
		Reason string `json:"reason"`
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Sprintf("screening answers %d", resp.StatusCode)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 4096)).Decode(&a); err != nil {
		return "screening answers what is no verdict"
	}
	if !a.Allow {
		return "screening refuses: " + a.Reason
	}
	return ""
}

// inflows are the deposits that were let in; nil: nothing is screened.
func (s *screening) inflows() map[string]bool {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]bool, len(s.in))
	for id := range s.in {
		out[id] = true
	}
	return out
}

// payouts asks about what a batch pays clients.
func (s *screening) payouts(ctx context.Context, v *ledger.State, b ledger.Batch) string {
	if s == nil {
		return ""
	}
	for _, id := range b.Outflows {
		o, _ := v.Outflows.Get(id)
		key := fmt.Sprintf("%d/%d", id, o.Binding)
		if o.Account == "" || s.letOut(key) {
			continue
		}
		if why := s.ask(ctx, screened{"out", b.Chain, o.Asset, o.To, o.Gross.String(), fmt.Sprint(id)}); why != "" {
			return why
		}
		s.mu.Lock()
		remember(s.out, key)
		s.mu.Unlock()
	}
	return ""
}

func (s *screening) letOut(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out[key]
}

// remember notes a verdict, and forgets all where there are too many: they are
// asked for again.
func remember(m map[string]bool, key string) {
	if len(m) >= maxLetIn {
		clear(m)
	}
	m[key] = true
}

// screenInflows asks about the deposits that this node sees and the ledger has
// not counted, again and again until they are let in.
func (n *Node) screenInflows(ctx context.Context) {
	for n.screening != nil && sleep(ctx, screenEvery) {
		v, _ := n.app.now()
		n.mu.Lock()
		var ask []screened
		for _, o := range n.seen {
			for _, in := range o.Inflows {
				f := in.Fact
				if len(ask) < maxScreened && isDeposit(v, f) && !v.Counted(f.ID) {
					ask = append(ask, screened{"in", f.Chain, f.Asset, f.Address, f.Amount.String(), f.ID})
				}
			}
		}
		n.mu.Unlock()
		n.screening.letIn(ctx, ask)
	}
}

func (s *screening) letIn(ctx context.Context, ask []screened) {
	for _, q := range ask {
		s.mu.Lock()
		known := s.in[q.ID]
		s.mu.Unlock()
		if known || ctx.Err() != nil || s.ask(ctx, q) != "" {
			continue
		}
		s.mu.Lock()
		remember(s.in, q.ID)
		s.mu.Unlock()
	}
}
