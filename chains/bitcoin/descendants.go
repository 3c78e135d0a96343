package bitcoin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/coffer-network/coffer/chains"
	"github.com/coffer-network/coffer/chains/internal/follow"
)

// descendantsEvery is how often the memory pool is asked about open batches.
const descendantsEvery = 10 * time.Second

// codeNotThere: bitcoind has no such transaction in its memory pool.
const codeNotThere = -5

// descendants is what others' transactions pay that build upon an unconfirmed
// attempt, by batch, as the node's memory pool has them (spec: outflows §3.2). Of a
// batch whose anchor is spent in a block there is nothing to say. What the node does
// not tell is left out: no word is better than a guess.
func (c *Chain) descendants(ctx context.Context, v chains.View, spent map[string]follow.Spend) map[uint64]uint64 {
	c.poolMu.Lock()
	defer c.poolMu.Unlock()
	if time.Since(c.poolAsked) < descendantsEvery {
		return c.pool
	}
	c.poolAsked = time.Now()
	out := map[uint64]uint64{}
	var whole map[string]poolEntry
	for _, a := range v.Anchors {
		if _, mined := spent[a.Name]; mined {
			continue
		}
		var most uint64
		for _, t := range a.Attempts {
			id, err := c.payload(t)
			if err != nil {
				continue
			}
			fees, err := c.builtUpon(ctx, id, &whole)
			if err != nil {
				return c.pool
			}
			most = max(most, fees) // they conflict: the pool holds one of them
		}
		out[a.Batch] = most
	}
	c.pool = out
	return out
}

// poolEntry is a transaction of the memory pool as far as both backends agree.
type poolEntry struct {
	Fee     json.Number `json:"fee"`
	Depends []string    `json:"depends"`
	Fees    struct {
		Base       json.Number `json:"base"`
		Descendant json.Number `json:"descendant"` // its own among them
	} `json:"fees"`
}

func (e poolEntry) base() (uint64, error) {
	n := e.Fees.Base
	if n == "" {
		n = e.Fee
	}
	v, err := amount(n)
	if err != nil || v < 0 {
		return 0, fmt.Errorf("%w: fee %.20q", chains.ErrEndpoint, n)
	}
	return uint64(v), nil
}

// builtUpon is the fees of a transaction's descendants. bitcoind is asked for one
// transaction. btcd does not answer that, so its whole pool is asked for, once; where
// that is more than we hold, nothing is known.
func (c *Chain) builtUpon(ctx context.Context, txid string, whole *map[string]poolEntry) (uint64, error) {
	if *whole == nil {
		var e poolEntry
		err := c.rpc.call(ctx, &e, "getmempoolentry", txid)
		refusal, refused := asRPC(err)
		switch {
		case refused && refusal.Code == codeNotThere:
			return 0, nil
		case refused: // btcd knows the question and does not answer it
			if err := c.rpc.call(ctx, whole, "getrawmempool", true); err != nil {
				return 0, err
			}
		case err != nil:
			return 0, err
		default:
			own, err := e.base()
			all, err2 := amount(e.Fees.Descendant)
			if err = errors.Join(err, err2); err != nil || uint64(all) < own {
				return 0, fmt.Errorf("%w: fees of %s: %w", chains.ErrEndpoint, txid, err)
			}
			return uint64(all) - own, nil
		}
	}
	if _, there := (*whole)[txid]; !there {
		return 0, nil
	}
	under := map[string]bool{txid: true}
	var sum uint64
	for grown := true; grown; { // as often as the longest chain upon it: nodes bound that by 25
		grown = false
		for id, e := range *whole {
			if under[id] {
				continue
			}
			for _, parent := range e.Depends {
				if under[parent] {
					fee, err := e.base()
					if err != nil {
						return 0, err
					}
					under[id], grown, sum = true, true, sum+fee
					break
				}
			}
		}
	}
	return sum, nil
}
