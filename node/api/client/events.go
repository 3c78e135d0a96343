package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Names of the frames of a stream (spec: requests §6.2).
const (
	FrameLedger = "ledger" // all events of one LogIndex for the topics
	FrameLocal  = "local"  // what the node asked alone saw
	FrameBeat   = "beat"   // every 5 s
	FrameReset  = "reset"  // events are missing before this: take snapshots again
)

// LedgerFrame is one LogIndex as the topics see it. Every node sends the same
// bytes for it.
type LedgerFrame struct {
	LogIndex uint64    `json:"logIndex"`
	Time     time.Time `json:"time" doc:"ledger time"`
	Request  string    `json:"request,omitempty" doc:"SHA-256 of the text that was applied"`
	Account  string    `json:"account,omitempty" doc:"whose request it is"`
	Action   string    `json:"action,omitempty"`
	Code     string    `json:"code,omitempty" doc:"what the request came to"`
	Events   []Event   `json:"events"`
}

// Event is one effect of a command. Amounts are base units, prices USD · 10⁸.
type Event struct {
	Name      string   `json:"name"`
	Account   string   `json:"account,omitempty"`
	Asset     string   `json:"asset,omitempty"`
	Amount    string   `json:"amount,omitempty"`
	Outflow   uint64   `json:"outflow,omitempty"`
	Batch     uint64   `json:"batch,omitempty"`
	Outflows  []uint64 `json:"outflows,omitempty" doc:"of the batch"`
	Kind      string   `json:"kind,omitempty" doc:"of the outflow, or purpose of the inflow"`
	Inflow    string   `json:"inflow,omitempty"`
	TxID      string   `json:"txid,omitempty"`
	Gross     string   `json:"gross,omitempty"`
	Fee       string   `json:"fee,omitempty"`
	Net       string   `json:"net,omitempty"`
	Price     string   `json:"price,omitempty" doc:"lower price at this LogIndex"`
	PriceHigh string   `json:"priceHigh,omitempty"`
	Note      string   `json:"note,omitempty"`
}

// LocalFrame is what the node asked alone saw, newest only.
type LocalFrame struct {
	Topic     string       `json:"topic"`
	Sightings []Sighting   `json:"sightings,omitempty"`
	Sessions  []Session    `json:"sessions,omitempty"`
	Chains    []LocalChain `json:"chains,omitempty"`
}

// Beat says that the stream is alive.
type Beat struct {
	LogIndex   uint64    `json:"logIndex"`
	LedgerTime time.Time `json:"ledgerTime"`
	Leader     string    `json:"leader"`
	Lag        uint64    `json:"lag"`
}

// Reset says that events between the asked LogIndex and AsOf were not sent.
type Reset struct {
	AsOf   uint64 `json:"asOf" doc:"the stream goes on after this LogIndex: take snapshots at least this new"`
	Kept   uint64 `json:"kept" doc:"events are kept from this LogIndex on"`
	Reason string `json:"reason" enum:"forgotten,slow"`
}

// Frame is one frame of a stream.
type Frame struct {
	Kind string          // one of the Frame constants
	ID   uint64          // LogIndex; 0: none
	Data json.RawMessage // of the Frame's type
	Node string          // that sent it
}

const (
	// silence after which a node counts as gone: two beats and some.
	silence = 12 * time.Second
	// maxFrame bounds one frame: a raft entry's command is 64 KiB.
	maxFrame = 4 << 20
)

// Watch streams events of the topics after a LogIndex to f, until the context
// ends or f returns an error. It goes on at the next of nodes where one is gone
// or silent for 12 s; no LogIndex is left out or given twice. A reset is given
// to f like any frame: after it, snapshots are to be taken again. The context's
// end is ErrNoAnswer besides, where the node asked last had not answered.
func Watch(ctx context.Context, nodes []*Client, topics []string, after uint64, f func(Frame) error) error {
	if len(nodes) == 0 {
		return errors.New("watch: no node")
	}
	pause := 100 * time.Millisecond
	for i := 0; ; i++ {
		n := nodes[i%len(nodes)]
		reached, progressed, err := n.stream(ctx, topics, &after, f)
		var stop *stopped
		var p *Problem
		switch {
		case errors.As(err, &stop):
			return stop.err
		case ctx.Err() != nil && !reached:
			return fmt.Errorf("%w: %w", ErrNoAnswer, err)
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &p) && !p.Retryable:
			return p
		}
		if progressed {
			pause = 100 * time.Millisecond
		}
		if sleep(ctx, pause) != nil {
			if !reached {
				return fmt.Errorf("%w: %w", ErrNoAnswer, errors.Join(ctx.Err(), err))
			}
			return ctx.Err()
		}
		pause = min(2*pause, 5*time.Second)
	}
}

// ErrNoAnswer: no node answered until the end.
var ErrNoAnswer = errors.New("no node answered")

// stopped is what f wanted.
type stopped struct{ err error }

func (s *stopped) Error() string { return s.err.Error() }

// stream reads one node's stream until it ends, and moves after on.
func (c *Client) stream(ctx context.Context, topics []string, after *uint64, f func(Frame) error) (reached, progressed bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watchdog := time.AfterFunc(silence, cancel)
	defer watchdog.Stop()
	q := url.Values{"topics": {strings.Join(topics, ",")}, "after": {strconv.FormatUint(*after, 10)}}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"/v1/events?"+q.Encode(), nil)
	if err != nil {
		return false, false, err
	}
	r.Header.Set("Accept", "text/event-stream")
	streaming := *c.http
	streaming.Timeout = 0
	a, err := streaming.Do(r)
	if err != nil {
		return false, false, fmt.Errorf("watch %s: %w", c.base, err)
	}
	defer a.Body.Close()
	if a.StatusCode != http.StatusOK {
		p := &Problem{}
		if err := json.NewDecoder(http.MaxBytesReader(nil, a.Body, maxAnswer)).Decode(p); err != nil || p.Code == "" {
			return true, false, fmt.Errorf("watch %s: %s", c.base, a.Status)
		}
		p.Status = a.StatusCode
		return true, false, p
	}
	s := bufio.NewScanner(a.Body)
	s.Buffer(make([]byte, 0, 64<<10), maxFrame)
	x := Frame{Node: c.base}
	for s.Scan() {
		watchdog.Reset(silence)
		field, value, _ := bytes.Cut(s.Bytes(), []byte(": "))
		switch string(field) {
		case "id":
			if x.ID, err = strconv.ParseUint(string(value), 10, 64); err != nil {
				return true, progressed, fmt.Errorf("watch %s: id %q", c.base, value)
			}
		case "event":
			x.Kind = string(value)
		case "data":
			x.Data = append(json.RawMessage(nil), value...)
		case "":
			if x.Kind == "" || x.ID != 0 && x.ID <= *after { // a node that repeats is not believed
				x = Frame{Node: c.base}
				continue
			}
			if err := f(x); err != nil {
				return true, true, &stopped{err}
			}
			progressed = true
			*after = max(*after, x.ID)
			if x.Kind == FrameReset {
				var reset Reset
				if json.Unmarshal(x.Data, &reset) == nil {
					*after = max(*after, reset.AsOf)
				}
			}
			x = Frame{Node: c.base}
		}
	}
	return true, progressed, s.Err()
}
