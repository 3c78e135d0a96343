package ethereum

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"testing"

	"github.com/ethereum/go-ethereum/core/types"

	"github.com/coffer-network/coffer/chains"
	"github.com/coffer-network/coffer/chains/chaintest"
	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/testnet/rpcproxy"
)

// edit changes fields of a block in an answer; null stays.
func edit(change func(block map[string]any)) rpcproxy.Act {
	return rpcproxy.Change(func(result json.RawMessage) json.RawMessage {
		var block map[string]any
		if err := json.Unmarshal(result, &block); err != nil || block == nil {
			return result
		}
		change(block)
		out, err := json.Marshal(block)
		if err != nil {
			return result
		}
		return out
	})
}

// "chain endpoint feeds a wrong block", and the wire breaks, at every call of a
// step: nothing is learnt, nothing is lost, nothing goes back unseen (spec:
// outflows §10, 47).
func TestFault47_WrongBlock(t *testing.T) {
	w := newWorld(t)
	b := w.Batch(t)
	in := w.Deposit(t)
	cfg := w.cfg
	p := rpcproxy.Start(cfg.URL)
	t.Cleanup(p.Close)
	cfg.URL = p.URL
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	addresses := map[string]uint64{in.Address: 0}
	for a := range b.Addresses {
		addresses[a] = 0
	}
	v := chains.View{Watched: chains.Watch(addresses), Anchors: []chains.Anchor{b.Anchor}}
	step := func(cur chains.Cursor) (chains.Observations, chains.Cursor) {
		t.Helper()
		for {
			o, next, err := c.Watch(t.Context(), v, cur)
			if err != nil {
				t.Fatal(err)
			}
			if cur = next; o.Behind == 0 {
				return o, cur
			}
		}
	}
	old := rpcproxy.Stale()
	p.Always("eth_blockNumber", old)
	_, cur := step(nil)
	p.Clear()

	u, err := c.Build(b.Anchor.Attempts[0])
	if err != nil {
		t.Fatal(err)
	}
	raw, err := c.Finish(u, chaintest.Sign(b.Key, u))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Broadcast(t.Context(), raw.Bytes); err != nil {
		t.Fatal(err)
	}
	w.Mine(t, 1)

	refused := func(what string, want error) {
		t.Helper()
		o, next, err := c.Watch(t.Context(), v, cur)
		if err == nil || want != nil && !errors.Is(err, want) || !bytes.Equal(next, cur) || len(o.Inflows)+len(o.Spends) != 0 || o.Head != (ledger.HeightReport{}) {
			t.Errorf("%s: %v; saw %+v", what, err, o)
		}
		p.Clear()
	}
	for what, change := range map[string]func(map[string]any){
		"another hash":   func(b map[string]any) { b["hash"] = b["parentHash"] },
		"another root":   func(b map[string]any) { b["stateRoot"] = b["parentHash"] },
		"another height": func(b map[string]any) { b["number"] = "0x1" },
		"no transactions": func(b map[string]any) {
			if list, _ := b["transactions"].([]any); len(list) == 0 {
				t.Error("the block has no transactions to leave out")
			}
			b["transactions"] = []any{}
		},
	} {
		p.Next("eth_getBlockByNumber", rpcproxy.Pass(), edit(change)) // the fork's question, then the block
		refused(what, chains.ErrEndpoint)
	}
	for _, method := range []string{"eth_blockNumber", "eth_getBlockByNumber", "eth_getLogs", "eth_getTransactionReceipt"} {
		for what, act := range map[string]rpcproxy.Act{
			"refused": rpcproxy.Refuse(), "dropped after": rpcproxy.DropAfter(), "503": rpcproxy.Status(503),
			"garbage": rpcproxy.Garbage(), "truncated": rpcproxy.Truncate(),
		} {
			p.Next(method, act)
			refused(method+" "+what, chains.ErrTransport)
		}
	}
	o, next := step(cur)
	deposit := func(s chains.Seen) bool { return s.Fact.ID == in.ID }
	if !slices.ContainsFunc(o.Inflows, deposit) || len(o.Spends) != 1 || o.Spends[0].Foreign {
		t.Errorf("afterwards: %+v and %+v", o.Inflows, o.Spends)
	}
	cur = next
	p.Always("eth_blockNumber", old)
	refused("an earlier tip", chains.ErrBehind)
}

// "ETH node returns a stale sequence after restart: the ledger's wins; no reset."
// Plants an endpoint that says 0 for every account, under an adapter without
// memory: what is built and sent has the plan's sequence, nobody asked for one,
// and a refusal that is classed by the stale answer is an error, not another
// transaction. Seen failing with a sequence in Build that is not the plan's.
func TestFault36_StaleSequence(t *testing.T) {
	w := newWorld(t)
	b := w.Batch(t)
	var anchors []chains.Anchor
	for n := range uint64(3) {
		tx := *b.Anchor.Attempts[0].Ethereum
		tx.Sequence = n
		anchors = append(anchors, w.finish(t, b, tx))
	}
	cfg := w.cfg
	p := rpcproxy.Start(cfg.URL)
	t.Cleanup(p.Close)
	cfg.URL = p.URL
	p.Always("eth_getTransactionCount", rpcproxy.Result("0x0"))
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	next := *b.Anchor.Attempts[0].Ethereum
	next.Sequence = 3
	for n, a := range append(anchors, chains.Anchor{Attempts: []ledger.Attempt{{Ethereum: &next}}}) {
		u, err := c.Build(a.Attempts[0])
		if err != nil {
			t.Fatal(err)
		}
		raw, err := c.Finish(u, []chains.Signature{chaintest.SignWith(b.Key, u.Inputs[0].Digest, 77)})
		if err != nil {
			t.Fatal(err)
		}
		tx := new(types.Transaction)
		if err := tx.UnmarshalBinary(raw.Bytes); err != nil || tx.Nonce() != uint64(n) {
			t.Fatalf("sequence %d, want %d; %v", tx.Nonce(), n, err)
		}
		if got := p.Calls("eth_getTransactionCount"); n == 0 && got != 0 {
			t.Errorf("asked for the sequence %d times", got)
		}
		if err := c.Broadcast(t.Context(), raw.Bytes); n < 3 && !errors.Is(err, chains.ErrRefused) || n == 3 && err != nil {
			t.Errorf("sequence %d: %v", n, err) // below 3: another signature of what is mined
		}
	}
	w.Mine(t, 1)
	v := chains.View{Watched: chains.Watch(b.Addresses), Anchors: anchors}
	var cur chains.Cursor
	for range 20 {
		o, after, err := c.Watch(t.Context(), v, cur)
		if err != nil {
			t.Fatal(err)
		}
		if cur = after; o.Behind == 0 {
			if len(o.Spends) != 3 {
				t.Errorf("spends %+v", o.Spends)
			}
			return
		}
	}
	t.Error("the head is never reached")
}

// Plants the loss of the answer to a broadcast in each way, before and after the
// node took it, and sends what the node has again, waiting and mined: the outcome is
// unknown, the same bytes again are a success, and the sequence is consumed once
// (spec: outflows §4.4; §10, 7 and 8). Seen failing with the hash not looked up.
func TestFault07_AnswerLost(t *testing.T) {
	w := newWorld(t)
	b := w.Batch(t)
	cfg := w.cfg
	p := rpcproxy.Start(cfg.URL)
	t.Cleanup(p.Close)
	cfg.URL = p.URL
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	v := chains.View{Watched: chains.Watch(b.Addresses)}
	for n, act := range []rpcproxy.Act{rpcproxy.Refuse(), rpcproxy.Status(503), rpcproxy.DropAfter(), rpcproxy.StatusAfter(504), rpcproxy.Truncate()} {
		tx := *b.Anchor.Attempts[0].Ethereum
		tx.Sequence = uint64(n)
		a := chains.Anchor{Name: resource(tx.From, tx.Sequence), Batch: 5, Attempts: []ledger.Attempt{{Ethereum: &tx}}}
		v.Anchors = append(v.Anchors, a)
		u, err := c.Build(a.Attempts[0])
		if err != nil {
			t.Fatal(err)
		}
		raw, err := c.Finish(u, chaintest.Sign(b.Key, u))
		if err != nil {
			t.Fatal(err)
		}
		p.Next("eth_sendRawTransaction", act)
		if err := c.Broadcast(t.Context(), raw.Bytes); !errors.Is(err, chains.ErrTransport) {
			t.Errorf("act %d: %v", n, err)
		}
		again := func(when string) {
			t.Helper()
			if err := c.Broadcast(t.Context(), raw.Bytes); err != nil {
				t.Errorf("act %d, %s: %v", n, when, err)
			}
		}
		again("again")
		again("already known")
		w.Mine(t, 1)
		again("mined")
	}
	var cur chains.Cursor
	for range 20 {
		o, next, err := c.Watch(t.Context(), v, cur)
		if err != nil {
			t.Fatal(err)
		}
		if cur = next; o.Behind == 0 {
			if len(o.Spends) != len(v.Anchors) || slices.ContainsFunc(o.Spends, func(s chains.SeenSpend) bool { return s.Foreign }) {
				t.Errorf("spends %+v", o.Spends)
			}
			return
		}
	}
	t.Error("the head is never reached")
}
