package node

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/tss"
)

// blamed is what this node holds against one member since it started. It is
// this node's word alone; what was proven is shown to the others, who judge for
// themselves (cases.go), and what they and this node say of it is in the ledger
// (spec: signing §10).
type blamed struct {
	proven, suspected uint64
	last              string
	at                time.Time
}

// maxEvidence bounds the envelopes kept: a member that lies on purpose could
// fill the disk otherwise. The first ones tell as much as the later.
const maxEvidence = 256

// noteBlame counts who spoilt a session of r and keeps the envelopes that show
// it. What can convince others goes to them.
func (n *Node) noteBlame(err error, r tss.Request) {
	var b *tss.Blame
	if !errors.As(err, &b) {
		return
	}
	strength := "suspected"
	if b.Proven {
		strength = "proven"
	}
	last := string(b.Reason)
	if b.Check != "" {
		last += " " + b.Check
	}
	n.mu.Lock()
	for _, c := range b.Culprits {
		m := ledger.MemberID(c)
		r := n.blames[m]
		if b.Proven {
			r.proven++
		} else {
			r.suspected++
		}
		r.last, r.at = last, time.Now()
		n.blames[m] = r
	}
	n.mu.Unlock()
	for _, c := range b.Culprits {
		n.metrics.blame(n.name(ledger.MemberID(c)), strength, string(b.Reason))
	}
	for _, e := range b.Evidence {
		if err := n.keepEvidence(e); err != nil {
			n.log.Error("evidence not kept", slog.Any("err", err))
			break
		}
	}
	n.accuse(b, r)
}

// keepEvidence writes a signed envelope under its hash into evidence/.
func (n *Node) keepEvidence(envelope []byte) error {
	dir := filepath.Join(n.cfg.Dir, "evidence")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	have, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	h := sha256.Sum256(envelope)
	path := filepath.Join(dir, hex.EncodeToString(h[:])+".envelope")
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if len(have) >= maxEvidence {
		return fmt.Errorf("%d envelopes lie in %s already: move them away", len(have), dir)
	}
	return os.WriteFile(path, envelope, 0o600)
}

// blameList lists the members that spoilt sessions here, worst first, for
// operators.
func (n *Node) blameList() []map[string]any {
	n.mu.Lock()
	held := maps.Clone(n.blames)
	n.mu.Unlock()
	members := slices.SortedFunc(maps.Keys(held), func(a, b ledger.MemberID) int {
		x, y := held[a], held[b]
		return cmp.Or(cmp.Compare(y.proven, x.proven), cmp.Compare(y.suspected, x.suspected), bytes.Compare(a[:], b[:]))
	})
	out := []map[string]any{}
	for _, m := range members {
		r := held[m]
		out = append(out, map[string]any{"name": n.name(m), "proven": r.proven, "suspected": r.suspected, "last": r.last, "at": r.at.UTC()})
	}
	return out
}
