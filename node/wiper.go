package node

import (
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/tss/keystore"
)

// wiper destroys KeyShares that nothing needs any more, and notes it for the
// ledger. m of a past epoch's shares still sign for the same addresses, so the
// sooner they are gone the less a later theft is worth; but a share wiped too
// early may be one too few for ever (spec: signing §11).
//
// It works in two steps. What the ledger lets go at some height is remembered;
// it is wiped once a certificate covers that height, on the history that this
// node holds then. Why not at once under the newest certificate: the applied
// state is ahead of it, and may be a traitor leader's private branch.
type wiper struct {
	keys *keystore.Keystore
	log  *slog.Logger

	// certificate is the newest one at or above a height, on this node's own chain.
	certificate func(height uint64) (ledger.Certificate, bool)
	// head is this node's own at a height.
	head func(height uint64) (ledger.Hash, error)

	pending *wipePlan
	looked  time.Time
}

type wipePlan struct {
	height uint64
	head   ledger.Hash
	ids    []keystore.ShareID
}

// wipeEvery: nothing hurries, and each look reads the keystore.
const wipeEvery = 5 * time.Second

// planRetirements says which active KeyShares the epoch in force does not use.
// They go on signing what names them.
func planRetirements(v *ledger.State, states map[keystore.ShareID]keystore.ShareState) []keystore.ShareID {
	inForce := planActivations(v)
	return sharesOf(states, func(id keystore.ShareID, s keystore.ShareState) bool {
		return s == keystore.Active && id.Epoch < v.Epoch().Number && !slices.Contains(inForce, id)
	})
}

// planWipes says which KeyShares nothing needs any more by v. Staged ones are
// among them where their plan or their try was dropped.
func planWipes(v *ledger.State, states map[keystore.ShareID]keystore.ShareState) []keystore.ShareID {
	return sharesOf(states, func(id keystore.ShareID, s keystore.ShareState) bool {
		return (s == keystore.Staged || s == keystore.Retired) && v.WhyKeep(generation(id)) == ""
	})
}

func sharesOf(states map[keystore.ShareID]keystore.ShareState, want func(keystore.ShareID, keystore.ShareState) bool) (ids []keystore.ShareID) {
	for id, s := range states {
		if want(id, s) {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b keystore.ShareID) int {
		return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Try, b.Try))
	})
	return ids
}

func generation(id keystore.ShareID) ledger.Generation {
	return ledger.Generation{Key: id.Key, Epoch: id.Epoch, Try: id.Try}
}

// look retires, wipes what a certificate lets it, and returns all generations that
// were ever wiped here, for the ledger to hear of. It is harmless to do again: a
// crash at any point leaves a share that is whole, or one that the keystore
// finishes wiping when it is opened.
func (w *wiper) look(v *ledger.State) (wiped []ledger.Generation, err error) {
	states, err := w.keys.ShareStates()
	if err != nil {
		return nil, err
	}
	for _, id := range planRetirements(v, states) {
		if err := w.keys.Retire(id); err != nil {
			return nil, err
		}
	}
	if err := w.wipe(); err != nil {
		return nil, err
	}
	if states, err = w.keys.ShareStates(); err != nil {
		return nil, err
	}
	if ids := planWipes(v, states); w.pending == nil && len(ids) > 0 {
		w.pending = &wipePlan{v.Height, v.Head, ids}
	}
	for id := range maps.Keys(states) {
		if states[id] == keystore.Wiped {
			wiped = append(wiped, generation(id))
		}
	}
	slices.SortFunc(wiped, func(a, b ledger.Generation) int { return cmp.Compare(a.String(), b.String()) })
	return wiped, nil
}

// wipe carries out what is pending, if a certificate covers it.
func (w *wiper) wipe() error {
	p := w.pending
	if p == nil {
		return nil
	}
	c, ok := w.certificate(p.height)
	if !ok {
		return nil
	}
	w.pending = nil
	// A state taken over since then may be of another history; then all is
	// looked at again, by that one.
	if own, err := w.head(p.height); err != nil || own != p.head {
		return nil
	}
	proof := keystore.Proof{
		Height: c.Approval.Height, Head: c.Approval.Head,
		Reason: fmt.Sprintf("by the ledger nothing needs it at height %d", p.height),
	}
	if err := w.keys.Wipe(p.ids, proof); err != nil {
		return err
	}
	for _, id := range p.ids {
		w.log.Info("key share wiped", slog.String("share", id.String()), slog.Uint64("certified", c.Approval.Height))
	}
	return nil
}

// wipeOld has the keeper's wiper look now and then.
func (n *Node) wipeOld(w *wiper, v *ledger.State) {
	if time.Since(w.looked) < wipeEvery {
		return
	}
	w.looked = time.Now()
	wiped, err := w.look(v)
	if err != nil {
		n.log.Error("key shares that nothing needs are not wiped", slog.Any("err", err))
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.wiped = wiped
}
