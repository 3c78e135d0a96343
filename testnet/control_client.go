package testnet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
)

// ControlClient reaches a running testnet from another process.
type ControlClient struct {
	dir     string
	address controlAddress
}

// DialControl finds the testnet that runs in the directory. Whether it still does shows at the first call.
func DialControl(dir string) (*ControlClient, error) {
	text, err := os.ReadFile(filepath.Join(dir, controlFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, noTestnet(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("find the testnet: %w", err)
	}
	c := &ControlClient{dir: dir}
	if err := json.Unmarshal(text, &c.address); err != nil {
		return nil, fmt.Errorf("find the testnet: %s: %w", controlFile, err)
	}
	return c, nil
}

func noTestnet(dir string) error {
	return fmt.Errorf("no testnet runs in %s: start one with `coffer testnet --dir %s`, or give the --dir it prints", dir, dir)
}

// Faucet sends coins and returns the transaction's id.
func (c *ControlClient) Faucet(ctx context.Context, req FaucetRequest) (txid string, err error) {
	var answer faucetAnswer
	err = c.post(ctx, "/faucet", req, &answer)
	return answer.TxID, err
}

// SetPrice changes an asset's price at all venues, in dollars.
func (c *ControlClient) SetPrice(ctx context.Context, asset, price string) error {
	return c.post(ctx, "/price", priceRequest{Asset: asset, Price: price}, nil)
}

// Mine makes Bitcoin blocks and returns the new height.
func (c *ControlClient) Mine(ctx context.Context, blocks int) (height int64, err error) {
	var answer mineAnswer
	err = c.post(ctx, "/mine", mineRequest{Blocks: blocks}, &answer)
	return answer.Height, err
}

// StopNode ends a node, at its own pace or with SIGKILL.
func (c *ControlClient) StopNode(ctx context.Context, name string, kill bool) error {
	return c.post(ctx, "/stop", nodeRequest{Node: name, Kill: kill}, nil)
}

// StartNode starts a node that ended, and returns when it answers.
func (c *ControlClient) StartNode(ctx context.Context, name string) error {
	return c.post(ctx, "/start", nodeRequest{Node: name}, nil)
}

func (c *ControlClient) post(ctx context.Context, path string, request, result any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("ask the testnet: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.address.URL+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("ask the testnet: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+c.address.Token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("ask the testnet: %w", ctx.Err())
		}
		return noTestnet(c.dir) // its record outlived it
	}
	defer resp.Body.Close()
	answer := io.LimitReader(resp.Body, maxRequestBytes)
	if resp.StatusCode != http.StatusOK {
		var refusal problem
		if err := json.NewDecoder(answer).Decode(&refusal); err != nil || refusal.Error == "" {
			return fmt.Errorf("ask the testnet: %s", resp.Status)
		}
		return errors.New(refusal.Error)
	}
	if result == nil {
		return nil
	}
	if err := json.NewDecoder(answer).Decode(result); err != nil {
		return fmt.Errorf("read the testnet's answer: %w", err)
	}
	return nil
}
