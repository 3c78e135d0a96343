package rpcproxy

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
)

// maxBody is above the largest block in hexadecimal and a batch of sixteen
// Ethereum blocks.
const maxBody = 64 << 20

// Proxy forwards JSON-RPC calls to a node. Safe for use by several goroutines;
// what is deterministic is the order of the calls of one method.
type Proxy struct {
	URL string // where it listens, on loopback

	upstream string
	server   *httptest.Server

	mu     sync.Mutex
	next   map[string][]Act // by method, for its next calls, one each
	always map[string]Act   // by method, once next is used up
	calls  map[string]int   // by method, all there were
}

// Start serves until Close. Credentials are the clients' own.
func Start(upstream string) *Proxy {
	p := &Proxy{upstream: upstream}
	p.Clear()
	p.calls = map[string]int{}
	p.server = httptest.NewServer(p)
	p.URL = p.server.URL
	return p
}

// Close lets held calls go and ends them.
func (p *Proxy) Close() {
	p.server.CloseClientConnections()
	p.server.Close()
}

// Next scripts the next calls of a method, one act each.
func (p *Proxy) Next(method string, acts ...Act) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next[method] = append(p.next[method], acts...)
}

// Always scripts every call of a method that Next does not speak of.
func (p *Proxy) Always(method string, act Act) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.always[method] = act
}

// Clear makes it an honest proxy again.
func (p *Proxy) Clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next, p.always = map[string][]Act{}, map[string]Act{}
}

// Calls is how often a method was called, whatever became of it.
func (p *Proxy) Calls(method string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls[method]
}

// act is what the script has for a call of the method.
func (p *Proxy) act(method string) Act {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls[method]++
	if list := p.next[method]; len(list) > 0 {
		p.next[method] = list[1:]
		return list[0]
	}
	return p.always[method]
}

// Call is one JSON-RPC call as it came.
type Call struct {
	Version json.RawMessage `json:"jsonrpc,omitempty"`
	ID      json.RawMessage `json:"id,omitempty"`
	Method  string          `json:"method"`
	Params  json.RawMessage `json:"params,omitempty"`
}

// Answer is what a node said to one call.
type Answer struct {
	Version json.RawMessage `json:"jsonrpc,omitempty"`
	ID      json.RawMessage `json:"id,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   json.RawMessage `json:"error,omitempty"`
}

func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	var calls []Call
	batch := bytes.HasPrefix(bytes.TrimSpace(body), []byte("["))
	if batch {
		err = json.Unmarshal(body, &calls)
	} else {
		calls = make([]Call, 1)
		err = json.Unmarshal(body, &calls[0])
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	status := http.StatusOK
	var answers []Answer
	var write func(http.ResponseWriter, int, []byte)
	for _, c := range calls {
		act := p.act(c.Method)
		if act.write != nil {
			write = act.write // of a batch, the last one speaks for all
		}
		if act.hold != nil {
			select {
			case <-act.hold:
			case <-r.Context().Done():
				return
			}
		}
		var a Answer
		if !act.refuse {
			if act.call != nil {
				act.call(&c)
			}
			if a, status, err = p.forward(r.Context(), r.Header, c); err != nil {
				http.Error(w, err.Error(), http.StatusBadGateway)
				return
			}
		}
		if act.answer != nil {
			a, status = act.answer(c, a, status)
		}
		if a.ID == nil {
			a.ID = c.ID
		}
		answers = append(answers, a)
	}
	var out []byte
	if batch {
		out, err = json.Marshal(answers)
	} else {
		out, err = json.Marshal(answers[0])
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if write == nil {
		write = plain
	}
	write(w, status, out)
}

// plain is how an honest node answers.
func plain(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client's loss
}

func (p *Proxy) forward(ctx context.Context, h http.Header, c Call) (a Answer, status int, err error) {
	b, err := json.Marshal(c)
	if err != nil {
		return a, 0, err
	}
	// What the node was asked it does, though the client gives up meanwhile.
	req, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodPost, p.upstream, bytes.NewReader(b))
	if err != nil {
		return a, 0, err
	}
	for _, name := range []string{"Authorization", "Content-Type"} {
		req.Header.Set(name, h.Get(name))
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return a, 0, err
	}
	defer resp.Body.Close()
	if b, err = io.ReadAll(io.LimitReader(resp.Body, maxBody)); err != nil {
		return a, 0, err
	}
	if err := json.Unmarshal(b, &a); err != nil {
		return a, 0, fmt.Errorf("%s: status %d: %w", c.Method, resp.StatusCode, err)
	}
	return a, resp.StatusCode, nil
}
