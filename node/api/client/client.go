package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coffer-network/coffer/ledger/address"
)

const (
	// maxAnswer bounds what a node may make a client hold. The largest answer is
	// a page of 200 outflows.
	maxAnswer = 4 << 20
	// readWait is how long a read may wait for this client's own last write.
	readWait = 10 * time.Second
	// askWait is how long one call waits for a request to be applied; a node
	// allows 30 s.
	askWait = 20 * time.Second
)

// transport keeps a connection for each of many concurrent calls to one node:
// the library's keeps two, and the others are dialled anew.
var transport = func() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConns, t.MaxIdleConnsPerHost = 1024, 256
	return t
}()

// Client talks to one node. It is safe for concurrent use.
type Client struct {
	base string
	http *http.Client
	pin  *Pin

	mu      sync.Mutex
	seen    uint64 // LogIndex of the last write: later reads are not older
	grammar *address.Grammar
	assets  map[string]Asset
}

// New returns a client of the node at base, such as http://127.0.0.1:7001. With
// a pin, whatever the node says about itself is compared with it first.
func New(base string, pin *Pin) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("API address %q: want http://host:port", base)
	}
	return &Client{
		base: strings.TrimRight(base, "/"),
		http: &http.Client{Timeout: time.Minute, Transport: transport},
		pin:  pin,
	}, nil
}

// URL is the address of the node.
func (c *Client) URL() string { return c.base }

// Seen is the LogIndex that reads of this client are at least at.
func (c *Client) Seen() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen
}

// SawWrite tells the client of a write made through another node.
func (c *Client) SawWrite(logIndex uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = max(c.seen, logIndex)
}

// Get reads path into out, at least as fresh as the client's own writes.
func (c *Client) Get(ctx context.Context, path string, query url.Values, out any) error {
	if seen := c.Seen(); seen > 0 {
		q := url.Values{"minIndex": {strconv.FormatUint(seen, 10)}, "wait": {readWait.String()}}
		for k, v := range query {
			q[k] = v
		}
		query = q
	}
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	_, err := c.do(ctx, http.MethodGet, path, nil, out)
	return err
}

func (c *Client) post(ctx context.Context, path string, in, out any) (status int, err error) {
	body, err := json.Marshal(in)
	if err != nil {
		return 0, fmt.Errorf("encode body of %s: %w", path, err)
	}
	return c.do(ctx, http.MethodPost, path, body, out)
}

func (c *Client) do(ctx context.Context, method, path string, body []byte, out any) (status int, err error) {
	r, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return 0, fmt.Errorf("ask %s: %w", c.base, err)
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	a, err := c.http.Do(r)
	if err != nil {
		return 0, fmt.Errorf("ask node: %w", err) // names method and address
	}
	defer a.Body.Close()
	b, err := io.ReadAll(io.LimitReader(a.Body, maxAnswer+1))
	if err != nil {
		return a.StatusCode, fmt.Errorf("read answer of %s%s: %w", c.base, path, err)
	}
	if len(b) > maxAnswer {
		return a.StatusCode, fmt.Errorf("answer of %s%s is over %d bytes", c.base, path, maxAnswer)
	}
	if a.StatusCode >= 300 {
		p := &Problem{Status: a.StatusCode}
		if err := json.Unmarshal(b, p); err != nil || p.Code == "" {
			return a.StatusCode, fmt.Errorf("%s%s answers %s without a problem document", c.base, path, a.Status)
		}
		p.Status = a.StatusCode
		return a.StatusCode, p
	}
	if err := json.Unmarshal(b, out); err != nil {
		return a.StatusCode, fmt.Errorf("decode answer of %s%s: %w", c.base, path, err)
	}
	return a.StatusCode, nil
}

// Cluster is what the node says about the cluster, compared with the pin.
func (c *Client) Cluster(ctx context.Context) (*Cluster, error) {
	var cl Cluster
	if err := c.Get(ctx, "/v1/cluster", nil, &cl); err != nil {
		return nil, err
	}
	if c.pin != nil {
		if err := c.pin.Check(c.base, &cl); err != nil {
			return nil, err
		}
	}
	return &cl, nil
}

// Assets are the listed assets by id.
func (c *Client) Assets(ctx context.Context) (map[string]Asset, error) {
	_, assets, err := c.rules(ctx)
	return assets, err
}

// Grammar is how this cluster's requests are spelled.
func (c *Client) Grammar(ctx context.Context) (*address.Grammar, error) {
	g, _, err := c.rules(ctx)
	return g, err
}

// rules reads once what only a vote changes.
func (c *Client) rules(ctx context.Context) (*address.Grammar, map[string]Asset, error) {
	c.mu.Lock()
	g, assets := c.grammar, c.assets
	c.mu.Unlock()
	if g != nil {
		return g, assets, nil
	}
	cl, err := c.Cluster(ctx)
	if err != nil {
		return nil, nil, err
	}
	var list Assets
	if err := c.Get(ctx, "/v1/assets", nil, &list); err != nil {
		return nil, nil, err
	}
	g = &address.Grammar{Brand: cl.Brand, Wallets: cl.Wallets, Pools: map[string]address.Asset{}}
	for _, ch := range cl.Chains {
		g.Chains = append(g.Chains, ch.CAIP2)
	}
	assets = map[string]Asset{}
	for _, a := range list.Assets {
		assets[a.ID] = a
		if a.Pool {
			g.Pools[a.ID] = address.Asset{Symbol: a.Symbol, Decimals: a.Decimals, Chain: a.CAIP2}
		}
	}
	if err := g.Validate(); err != nil {
		return nil, nil, fmt.Errorf("node %s describes requests that cannot be: %w", c.base, err)
	}
	c.mu.Lock()
	c.grammar, c.assets = g, assets
	c.mu.Unlock()
	return g, assets, nil
}

// AssetNamed finds an asset by id, or by symbol where only one has it.
func (c *Client) AssetNamed(ctx context.Context, name string) (Asset, error) {
	assets, err := c.Assets(ctx)
	if err != nil {
		return Asset{}, err
	}
	if a, ok := assets[name]; ok {
		return a, nil
	}
	var found []Asset
	known := make([]string, 0, len(assets))
	for id, a := range assets {
		known = append(known, id)
		if strings.EqualFold(a.Symbol, name) {
			found = append(found, a)
		}
	}
	if len(found) != 1 {
		return Asset{}, fmt.Errorf("asset %q: want one of %s", name, strings.Join(sorted(known), ", "))
	}
	return found[0], nil
}

// Account reads an account.
func (c *Client) Account(ctx context.Context, id string) (*Account, error) {
	return get[Account](ctx, c, "/v1/accounts/"+url.PathEscape(id))
}

// Proof reads an account's place under a certified root. It is not checked here.
func (c *Client) Proof(ctx context.Context, id string) (*Proof, error) {
	return get[Proof](ctx, c, "/v1/accounts/"+url.PathEscape(id)+"/proof")
}

// Inflows reads the newest deposits of an account.
func (c *Client) Inflows(ctx context.Context, account string) (*Inflows, error) {
	return get[Inflows](ctx, c, "/v1/accounts/"+url.PathEscape(account)+"/inflows")
}

// History reads a page of what happened to an account; cursor "" is the newest.
func (c *Client) History(ctx context.Context, account, cursor string, limit int) (*History, error) {
	var h History
	q := url.Values{"limit": {strconv.Itoa(limit)}}
	if cursor != "" {
		q.Set("cursor", cursor)
	}
	err := c.Get(ctx, "/v1/accounts/"+url.PathEscape(account)+"/history", q, &h)
	return &h, err
}

// Search asks what an address, txid, hash, account, number or name stands for.
func (c *Client) Search(ctx context.Context, q string) (*Finds, error) {
	var f Finds
	err := c.Get(ctx, "/v1/search", url.Values{"q": {q}}, &f)
	return &f, err
}

// Activities reads a page of what an account did; cursor "" is the newest.
func (c *Client) Activities(ctx context.Context, account, cursor string, limit int) (*Activities, error) {
	q := url.Values{"limit": {strconv.Itoa(limit)}}
	if cursor != "" {
		q.Set("cursor", cursor)
	}
	out := new(Activities)
	return out, c.Get(ctx, "/v1/accounts/"+url.PathEscape(account)+"/activities", q, out)
}

// Outflows reads the newest payouts of an account.
func (c *Client) Outflows(ctx context.Context, account string) (*Outflows, error) {
	return get[Outflows](ctx, c, "/v1/accounts/"+url.PathEscape(account)+"/outflows")
}

// Outflow reads one payout.
func (c *Client) Outflow(ctx context.Context, id uint64) (*OutflowDetail, error) {
	return get[OutflowDetail](ctx, c, "/v1/outflows/"+strconv.FormatUint(id, 10))
}

// Why asks what a payout waits for.
func (c *Client) Why(ctx context.Context, id uint64) (*Why, error) {
	return get[Why](ctx, c, "/v1/outflows/"+strconv.FormatUint(id, 10)+"/why")
}

// Pools reads all pools.
func (c *Client) Pools(ctx context.Context) (*Pools, error) { return get[Pools](ctx, c, "/v1/pools") }

// Pool reads one.
func (c *Client) Pool(ctx context.Context, id string) (*PoolDetail, error) {
	return get[PoolDetail](ctx, c, "/v1/pools/"+url.PathEscape(id))
}

// Status reads the node's account of itself. It is never waited for.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	var s Status
	_, err := c.do(ctx, http.MethodGet, "/v1/status", nil, &s)
	return &s, err
}

// Sessions reads the signing sessions the node takes part in now.
func (c *Client) Sessions(ctx context.Context) (*Sessions, error) {
	return get[Sessions](ctx, c, "/v1/sessions")
}

// Request reads what became of a request of an account.
func (c *Client) Request(ctx context.Context, id, account string, wait time.Duration) (*Request, error) {
	q := url.Values{}
	if account != "" {
		q.Set("account", account)
	}
	if wait > 0 {
		q.Set("wait", wait.String())
	}
	var r Request
	path := "/v1/requests/" + url.PathEscape(id)
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	_, err := c.do(ctx, http.MethodGet, path, nil, &r)
	return &r, err
}

func get[T any](ctx context.Context, c *Client, path string) (*T, error) {
	out := new(T)
	if err := c.Get(ctx, path, nil, out); err != nil {
		return nil, err
	}
	return out, nil
}

// WaitOutflow asks until done says so, or the context ends.
func (c *Client) WaitOutflow(ctx context.Context, id uint64, every time.Duration, done func(*OutflowDetail) bool) (*OutflowDetail, error) {
	for {
		o, err := c.Outflow(ctx, id)
		switch {
		case err == nil && done(o):
			return o, nil
		case err != nil && !retryable(err):
			return nil, err
		}
		if err := sleep(ctx, every); err != nil {
			return o, fmt.Errorf("wait for outflow %d: %w", id, err)
		}
	}
}

// Settled reports whether nothing more will happen to o by itself.
func Settled(o *OutflowDetail) bool {
	return o.State == "PAID" || o.State == "REFUNDED" || o.State == "HOLD"
}

// retryable: the same call may be made again. What is no problem document is
// the network's.
func retryable(err error) bool {
	var p *Problem
	if errors.As(err, &p) {
		return p.Retryable
	}
	var u *url.Error
	return errors.As(err, &u) && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
