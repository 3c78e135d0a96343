package api

import (
	"sync"

	"encoding/hex"
	"github.com/coffer-network/coffer/ledger"
)

// maxHistory is how many requests a node remembers. The ledger keeps the last
// 16 of every account; this only says which account a text hash belongs to, and
// what became of refusals that the ledger does not keep.
const maxHistory = 16_384

// History is one node's own memory of requests, from its start on.
type History struct {
	mu   sync.Mutex
	byID map[ledger.Hash]remembered
	ring []ledger.Hash
	next int
}

type remembered struct {
	account ledger.AccountID
	nonce   uint64
	height  uint64 // 0: posted here, not applied yet
	code    ledger.Code
}

// NewHistory returns an empty one.
func NewHistory() *History {
	return &History{byID: map[ledger.Hash]remembered{}, ring: make([]ledger.Hash, 0, maxHistory)}
}

// Applied remembers what became of an Intent. The node calls it for every one
// it applies, in order.
func (h *History) Applied(g ledger.Genesis, in *ledger.Intent, height uint64, code ledger.Code) {
	c, _ := g.Grammar().Parse(in.Text)
	if c == nil {
		return
	}
	h.add(ledger.RequestID(in.Text), remembered{hex.EncodeToString(c.Account[:]), c.Nonce, height, code})
}

func (h *History) add(id ledger.Hash, r remembered) {
	h.mu.Lock()
	defer h.mu.Unlock()
	old, known := h.byID[id]
	if known && old.height != 0 && r.height == 0 {
		return
	}
	if !known {
		if len(h.ring) < maxHistory {
			h.ring = append(h.ring, id)
		} else {
			delete(h.byID, h.ring[h.next])
			h.ring[h.next] = id
			h.next = (h.next + 1) % maxHistory
		}
	}
	h.byID[id] = r
}

func (h *History) find(id ledger.Hash) (remembered, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r, ok := h.byID[id]
	return r, ok
}
