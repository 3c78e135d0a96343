package node

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/coffer-network/coffer/chains"
	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
)

// observeEvery is how often each chain is asked. Block times are seconds; an
// extra question costs one small request.
const observeEvery = 500 * time.Millisecond

// observe follows one chain and keeps the newest picture.
func (n *Node) observe(ctx context.Context, name string, chain chains.Chain) {
	file := filepath.Join(n.cfg.Dir, "cursor-"+name)
	cursor, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		n.log.Warn("follower begins anew", slog.String("chain", name), slog.Any("err", err))
	}
	var saved time.Time
	tick := time.NewTicker(observeEvery)
	defer tick.Stop()
	for {
		v, _ := n.app.now()
		if v.Epoch().Number > 0 { // before there are keys, no address is ours
			o, next, err := chain.Watch(ctx, chainView(v, name), cursor)
			if errors.Is(err, chains.ErrCursor) {
				cursor = nil
			}
			n.noteChain(name, o, err)
			if err == nil {
				cursor = next
				if time.Since(saved) > 10*time.Second {
					saved = time.Now()
					if err := writeFile(file, cursor); err != nil {
						n.log.Warn("follower's place not saved", slog.String("chain", name), slog.Any("err", err))
					}
				}
			}
			if err == nil && o.Behind > 0 {
				continue
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// chainView is what the ledger wants to be looked at on one chain.
func chainView(v *ledger.State, chain string) chains.View {
	view := chains.View{
		Watched: map[string]uint64{}, Coins: map[string]bool{}, Sequences: map[string]uint64{},
		Counted: func(id string) bool { _, ok := v.Inflows.Get(id); return ok },
	}
	for _, w := range v.Watched.From(chain + "/") {
		if w.Chain != chain {
			break
		}
		view.Watched[w.Address] = w.From
	}
	for id := range v.Live.All() {
		if b, ok := v.Batches.Get(id); ok && b.Kind == ledger.BatchPay && b.Chain == chain {
			view.Anchors = append(view.Anchors, chains.Anchor{Name: b.Anchor, Batch: b.ID, Attempts: b.Attempts})
		}
	}
	switch chain {
	case ledger.Bitcoin:
		for p := range v.Coins.All() {
			view.Coins[p] = true
		}
	case ledger.Ethereum:
		for a, s := range v.Senders.All() {
			view.Sequences[a] = s.Next
		}
		for _, role := range []string{address.RoleHot, address.RoleGas} {
			if w, ok := v.Vault(chain, role); ok {
				if s, ok := v.Senders.Get(w.Address); ok && !s.Booked {
					view.Floats = append(view.Floats, w.Address)
				}
			}
		}
	}
	return view
}

func (n *Node) noteChain(name string, o chains.Observations, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	st := n.chainStatus[name]
	st.Chain = name
	if err != nil {
		if st.Failing == "" && !errors.Is(err, context.Canceled) {
			n.log.Warn("chain not read", slog.String("chain", name), slog.Any("err", err))
		}
		st.Failing = failing(err)
		n.chainStatus[name] = st
		return
	}
	if st.Failing != "" {
		n.log.Info("chain read again", slog.String("chain", name))
	}
	st.Failing, st.Height, st.Final, st.Read = "", o.Head.Height, o.Tip.Height, time.Now()
	n.chainStatus[name] = st
	n.seen[name] = o
	for _, i := range o.Ignored {
		if key := i.TxID + i.Address; !n.ignored[key] && len(n.ignored) < maxIgnored {
			n.ignored[key] = true
			n.log.Info("arrived and not credited", slog.String("chain", name), slog.String("tx", i.TxID), slog.String("reason", i.Reason))
			n.metrics.ignored(name) // not by reason: it names the stranger's token
		}
	}
}

// maxIgnored bounds what strangers can make this node remember.
const maxIgnored = 10_000

// failing is an error in words without the endpoint, which is the operator's.
func failing(err error) string {
	for _, e := range []error{chains.ErrTransport, chains.ErrDeepFork, chains.ErrEndpoint, chains.ErrPicture, chains.ErrCursor} {
		if errors.Is(err, e) {
			return e.Error()
		}
	}
	return "not read"
}

// writeFile replaces a file in one step.
func writeFile(path string, b []byte) error {
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
