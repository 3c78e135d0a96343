package api

import (
	"sync"

	"github.com/coffer-network/coffer/ledger"
)

// maxPosted is how many texts a node remembers that were posted here and may
// not be applied yet. What was applied is in the node's history.
const maxPosted = 16_384

// posted says whose request a text is that was posted here.
type posted struct {
	mu   sync.Mutex
	byID map[ledger.Hash]waiting
	ring []ledger.Hash
	next int
}

type waiting struct {
	account ledger.AccountID
	nonce   uint64
}

func newPosted() *posted {
	return &posted{byID: map[ledger.Hash]waiting{}, ring: make([]ledger.Hash, 0, maxPosted)}
}

func (p *posted) add(id ledger.Hash, w waiting) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, known := p.byID[id]; !known {
		if len(p.ring) < maxPosted {
			p.ring = append(p.ring, id)
		} else {
			delete(p.byID, p.ring[p.next])
			p.ring[p.next] = id
			p.next = (p.next + 1) % maxPosted
		}
	}
	p.byID[id] = w
}

func (p *posted) find(id ledger.Hash) (waiting, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w, ok := p.byID[id]
	return w, ok
}
