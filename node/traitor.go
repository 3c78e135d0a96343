package node

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/coffer-network/coffer/consensus"
	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/fixed"
	"github.com/coffer-network/coffer/node/p2p"
)

// traitor makes this node one that lies about facts and sends its peers garbage, for `coffer chaos`.
//
// Nobody comes to it by accident: Config.TraitorOf, which no file can set, has to be the genesis hash of this very
// cluster, and the cluster has to be on Bitcoin's regtest and Ethereum's chain 1337. Anything else is refused.
type traitor struct {
	n    *Node
	told map[ledger.Hash]bool // truths that were twisted once and are withheld since
}

// Chains that hold nothing of value.
const (
	regtestCAIP2 = "bip122:0f9188f13cb7b2c71f2a335e3a4fc328"
	devCAIP2     = "eip155:1337"
)

var errNoTraitor = errors.New("a traitor runs in the chaos test alone")

// newTraitor is nil, nil for an honest node.
func newTraitor(n *Node, of string, g ledger.Genesis) (*traitor, error) {
	if of == "" {
		return nil, nil
	}
	if h := g.Hash(); of != h.String() {
		return nil, fmt.Errorf("%w: it names another cluster", errNoTraitor)
	}
	for _, c := range g.Chains {
		if c.CAIP2 != regtestCAIP2 && c.CAIP2 != devCAIP2 {
			return nil, fmt.Errorf("%w: this cluster is on %s", errNoTraitor, c.CAIP2)
		}
	}
	return &traitor{n: n, told: map[ledger.Hash]bool{}}, nil
}

// lies are what the traitor says instead of the truth: each once, and then nothing.
func (t *traitor) lies(honest []statement) []statement {
	var out []statement
	for _, s := range honest {
		if s.kind == ledger.KindClock || s.kind == ledger.KindFlip || s.kind == ledger.KindShareReady || s.kind == ledger.KindTestSig {
			out = append(out, s)
			continue
		}
		key := ledger.Hash(sha256.Sum256(append([]byte{byte(s.kind)}, ledger.Marshal(s.body)...)))
		if !t.told[key] {
			t.told[key] = true
			out = append(out, twist(s))
		}
	}
	return out
}

// twist makes a lie of a statement.
func twist(s statement) statement {
	switch b := s.body.(type) {
	case []ledger.PriceReport:
		b = slices.Clone(b)
		for i := range b {
			b[i].Price = more(b[i].Price, b[i].Price)
		}
		s.body = b
	case []ledger.FeeReport:
		b = slices.Clone(b)
		for i := range b {
			b[i].Rate *= 7
		}
		s.body = b
	case []ledger.HeightReport:
		b = slices.Clone(b)
		for i := range b {
			b[i].Height += 3
			b[i].Hash = "lie"
		}
		s.body = b
	case ledger.InflowFact:
		b.Amount = more(b.Amount, fixed.New(1_000_000_000))
		s.body = b
	case ledger.SpentFact:
		b.Foreign = !b.Foreign
		s.body = b
	case ledger.FinalFact:
		b.TxID, b.Fee = "lie", more(b.Fee, fixed.New(1_000))
		s.body = b
	}
	return s
}

// more is a + b, or a where that is too much.
func more(a, b fixed.Int) fixed.Int {
	if c, err := fixed.Add(a, b); err == nil {
		return c
	}
	return a
}

const babbleEvery = 50 * time.Millisecond

// babble sends every peer what is no message, in all the places where messages go.
func (t *traitor) babble(ctx context.Context) {
	tick := time.NewTicker(babbleEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		v, _ := t.n.app.now()
		for _, m := range v.Epoch().Members {
			if m.ID == t.n.self {
				continue
			}
			call, cancel := context.WithTimeout(ctx, babbleEvery)
			// What the peer makes of it is its affair: it refuses, or the test shows that it does not.
			_ = t.n.peers.Send(call, p2p.ID(m.ID), noise())
			_, _ = t.n.peers.Request(call, p2p.ID(m.ID), requestSubmit, noise())
			_, _ = t.n.peers.Request(call, p2p.ID(m.ID), requestSignature, noise())
			_ = t.n.peers.SendTo(p2p.ID(m.ID), consensus.GossipApproval, noise())
			cancel()
		}
	}
}

// noise is up to 255 random bytes.
func noise() []byte {
	var n [1]byte
	rand.Read(n[:])
	b := make([]byte, n[0])
	rand.Read(b)
	return b
}
