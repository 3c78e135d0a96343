package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
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
	var again bool // blocks are being read again
	save := func() {
		saved = time.Now()
		if err := writeFile(file, cursor); err != nil {
			n.log.Warn("follower's place not saved", slog.String("chain", name), slog.Any("err", err))
		}
	}
	tick := time.NewTicker(observeEvery)
	defer tick.Stop()
	for {
		v, _ := n.app.now()
		if v.Epoch().Number > 0 { // before there are keys, no address is ours
			if height, ok := n.takeRescan(name); ok {
				// On disk at once: who asked is not asked again after a crash.
				if next, err := chain.Rescan(cursor, height); err == nil {
					cursor = next
					save()
				} else {
					n.log.Warn("no rescan", slog.String("chain", name), slog.Any("err", err))
				}
			}
			view := chainView(v, name)
			o, next, err := chain.Watch(ctx, view, cursor)
			if errors.Is(err, chains.ErrCursor) {
				cursor = nil
			}
			n.noteChain(name, v.Height, o, err)
			if err == nil {
				cursor = next
				if again != (o.Again > 0) {
					again = o.Again > 0
					n.log.Info("blocks read again", slog.String("chain", name), slog.Uint64("left", o.Again))
				}
				if time.Since(saved) > 10*time.Second {
					save()
				}
				n.weigh(ctx, v, name, chain, view, o, cursor)
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
		Watched: watched{v, chain + "/"},
		Counted: v.Counted,
	}
	for id := range v.Live.All() {
		if b, ok := v.Batches.Get(id); ok && b.Kind == ledger.BatchPay && b.Chain == chain {
			view.Anchors = append(view.Anchors, chains.Anchor{Name: b.Anchor, Batch: b.ID, Attempts: b.Attempts})
		}
	}
	switch chain {
	case ledger.Bitcoin:
		view.Coin = v.Custody
		for _, role := range []string{address.RoleMinter, address.RolePool} {
			if w, ok := v.Vault(chain, role); ok {
				view.Vaults = append(view.Vaults, w.Address)
			}
		}
	case ledger.Ethereum:
		view.Sequence = func(a string) (uint64, bool) {
			s, _ := v.Senders.Get(a)
			_, ours := v.Watched.Get(chain + "/" + a)
			return s.Next, ours
		}
		view.Native = v.NativeReceived
		for _, role := range []string{address.RoleHot, address.RoleGas} {
			if w, ok := v.Vault(chain, role); ok {
				view.Vaults = append(view.Vaults, w.Address)
				if s, ok := v.Senders.Get(w.Address); ok && !s.Booked {
					view.Floats = append(view.Floats, w.Address)
				}
			}
		}
	}
	return view
}

// watched is a chain's addresses as the ledger has them. Nothing is copied: a
// million of them cost as little as one.
type watched struct {
	v      *ledger.State
	prefix string // chain and slash, as the keys begin
}

func (w watched) Registered() uint64 { return uint64(w.v.Watched.Len()) }

func (w watched) Number(n uint64) (string, bool) {
	key, ok := w.v.Watched.Number(n)
	if !ok {
		return "", false
	}
	return strings.CutPrefix(key, w.prefix)
}

func (w watched) From(address string) (uint64, bool) {
	a, ok := w.v.Watched.Get(w.prefix + address)
	return a.From, ok
}

// Rescan has this member look at a chain's blocks once more, down to a height,
// for coins that arrived more than 144 blocks before their address was
// registered, or that were missed. They count when a quorum of members says the
// same: as many operators must ask for it.
func (n *Node) Rescan(chain string, height uint64) error {
	if _, ok := n.chains[chain]; !ok {
		return fmt.Errorf("rescan: no chain %q here", chain)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if h, ok := n.rescans[chain]; ok {
		height = min(height, h)
	}
	n.rescans[chain] = height
	return nil
}

// takeRescan is what Rescan asked for on a chain, once.
func (n *Node) takeRescan(chain string) (height uint64, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	height, ok = n.rescans[chain]
	delete(n.rescans, chain)
	return height, ok
}

func (n *Node) noteChain(name string, height uint64, o chains.Observations, err error) {
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
	n.seen[name], n.seenAt[name] = o, height
	for _, i := range o.Ignored {
		if key := i.TxID + i.Address; !n.ignored[key] && len(n.ignored) < maxIgnored {
			n.ignored[key] = true
			n.log.Info("arrived and not credited", slog.String("chain", name), slog.String("tx", i.TxID), slog.String("reason", i.Reason))
			n.metrics.ignored(name) // not by reason: it names the stranger's token
		}
	}
}

// blindAfter is how long a member signs on without having read its chain.
const blindAfter = time.Minute

// blind says why this member must not sign on a chain now: what it cannot see
// confirmed it may not sign again (spec: outflows R-3). Empty: nothing is wrong.
func (n *Node) blind(chain string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	st, o := n.chainStatus[chain], n.seen[chain]
	switch {
	case st.Read.IsZero():
		return "not read yet"
	case time.Since(st.Read) > blindAfter && st.Failing != "":
		return st.Failing
	case time.Since(st.Read) > blindAfter:
		return "not read for a minute"
	case st.Failing == chains.ErrDeepFork.Error():
		return st.Failing
	case o.Behind > 0:
		return fmt.Sprintf("%d blocks behind", o.Behind)
	}
	return ""
}

// maxIgnored bounds what strangers can make this node remember.
const maxIgnored = 10_000

// failing is an error in words without the endpoint, which is the operator's.
func failing(err error) string {
	for _, e := range []error{chains.ErrTransport, chains.ErrBehind, chains.ErrDeepFork, chains.ErrEndpoint, chains.ErrPicture, chains.ErrCursor} {
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
