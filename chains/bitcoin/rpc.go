package bitcoin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/coffer-network/coffer/chains"
)

const (
	// callTimeout is for the largest block from a busy node on the same host.
	callTimeout = 30 * time.Second
	// maxAnswer: a block of 4 MB in hexadecimal, and its envelope.
	maxAnswer = 9 << 20
)

// client speaks JSON-RPC 1.0 over HTTP. Why not btcd's rpcclient: it retries,
// queues and reconnects on its own, and has no limit on what it reads.
type client struct {
	url, user, password string
	http                *http.Client
}

func newClient(url, user, password string) *client {
	return &client{url: url, user: user, password: password, http: &http.Client{Timeout: callTimeout}}
}

// rpcError is the node's own refusal, as against not reaching it.
type rpcError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

func (e *rpcError) Error() string { return fmt.Sprintf("node says %d: %.200s", e.Code, e.Message) }

// call asks the node. Errors are *rpcError, or ErrTransport, or ErrEndpoint.
func (c *client) call(ctx context.Context, out any, method string, params ...any) error {
	if params == nil {
		params = []any{}
	}
	body, err := json.Marshal(map[string]any{"jsonrpc": "1.0", "id": 1, "method": method, "params": params})
	if err != nil {
		return fmt.Errorf("%s: encode: %w", method, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	req.SetBasicAuth(c.user, c.password)
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", chains.ErrTransport, method, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return fmt.Errorf("%w: %s: %w", chains.ErrTransport, method, err)
	}
	if len(b) > maxAnswer {
		return fmt.Errorf("%w: %s: more than %d bytes", chains.ErrEndpoint, method, maxAnswer)
	}
	var answer struct {
		Result json.RawMessage `json:"result"`
		Error  *rpcError       `json:"error"`
	}
	// Core answers an RPC error with status 500 and a body, so the body counts.
	if err := json.Unmarshal(b, &answer); err != nil {
		return fmt.Errorf("%w: %s: status %d", chains.ErrTransport, method, resp.StatusCode)
	}
	if answer.Error != nil {
		return fmt.Errorf("%s: %w", method, answer.Error)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%w: %s: status %d", chains.ErrTransport, method, resp.StatusCode)
	}
	if err := json.Unmarshal(answer.Result, out); err != nil {
		return fmt.Errorf("%w: %s: %w", chains.ErrEndpoint, method, err)
	}
	return nil
}

// asRPC returns the node's refusal inside err.
func asRPC(err error) (*rpcError, bool) {
	var e *rpcError
	ok := errors.As(err, &e)
	return e, ok
}
