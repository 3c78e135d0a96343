package node

import (
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/tss"
	"github.com/coffer-network/coffer/tss/keystore"
)

// keygenTask is a key whose next generation this member is to make.
type keygenTask struct {
	key     ledger.NextKey
	attempt ledger.Attempt
	from    *tss.Generation // of a resharing: what is dealt from
}

// members of its session: the holders to be and, in a resharing, those who deal.
func (t keygenTask) members() []ledger.MemberID {
	all := slices.Clone(t.attempt.Roster)
	for _, m := range t.attempt.Dealers {
		if !hasMember(all, m) {
			all = append(all, m)
		}
	}
	return all
}

// planKeygens says which keygen sessions are planned with self among them and
// not answered by it.
func planKeygens(v *ledger.State, self ledger.MemberID) []keygenTask {
	if v.Next == nil || v.Opening != nil {
		return nil
	}
	var ts []keygenTask
	for _, k := range v.Next.Keys {
		b, ok := v.Batches.Get(k.Batch)
		if ok && !b.Done && !hasMember(k.Ready, self) && (hasMember(b.Newest().Roster, self) || hasMember(b.Newest().Dealers, self)) {
			t := keygenTask{key: k, attempt: b.Newest()}
			if b.Kind == ledger.BatchReshare {
				t.from = generationOf(v, t)
			}
			ts = append(ts, t)
		}
	}
	return ts
}

// generationOf is what a resharing deals from: the KeyShares in force.
func generationOf(v *ledger.State, t keygenTask) *tss.Generation {
	k, _ := v.Keys.Get(t.key.Key)
	g := &tss.Generation{Epoch: k.Epoch, Try: k.Try, M: v.Epoch().M, Pub: k.Pub}
	for _, m := range t.attempt.Dealers {
		g.Holders = append(g.Holders, tss.PartyID(m))
	}
	return g
}

// planActivations says which staged KeyShares the epoch in force makes active, for
// its members.
func planActivations(v *ledger.State) []keystore.ShareID {
	var ids []keystore.ShareID
	for _, k := range v.Keys.All() {
		ids = append(ids, keystore.ShareID{Key: k.ID, Epoch: k.Epoch, Try: k.Try})
	}
	return ids
}

// keep makes the KeyShares the ledger plans and activates those it put in force.
func (n *Node) keep(ctx context.Context) {
	running := map[string]bool{}
	done := make(chan string, 16)
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	active := map[keystore.ShareID]bool{}
	wiper := &wiper{keys: n.keys, log: n.log, certificate: n.proof.Certificate, head: n.proof.Head}
	for {
		v, changed, ok := n.believed()
		if !ok { // by a state that nobody has proved nothing is done that lasts
			select {
			case <-ctx.Done():
				return
			case <-done:
			case <-changed:
			case <-tick.C:
			}
			continue
		}
		for _, t := range planKeygens(v, n.self) {
			name := fmt.Sprintf("%s/%d/%d", t.key.Key, t.attempt.Epoch, t.key.Try)
			if running[name] {
				continue
			}
			running[name] = true
			n.wg.Add(1)
			go func() {
				defer n.wg.Done()
				n.runKeygen(ctx, v, t)
				select {
				case done <- name:
				case <-ctx.Done():
				}
			}()
		}
		if len(v.Changes) > 0 && v.Next == nil { // the sets are made before the session that wants them
			n.readyPreParams(ctx)
		}
		for _, id := range planActivations(v) {
			if active[id] || !v.Epoch().Has(n.self) {
				continue
			}
			switch err := n.keys.Activate(id); {
			case err == nil:
				active[id] = true
				n.setKeyMissing(id.Key, "")
				if old, err := n.keys.CameFromBackup(id); err != nil || old {
					_, why := n.learner()
					n.setKeyMissing(id.Key, "key share came out of a backup and does not sign; "+why)
				}
			default:
				n.setKeyMissing(id.Key, fmt.Sprintf("key share %s of epoch %d: %v", id.Key, id.Epoch, err))
			}
		}
		n.noteInForce(v)
		n.endRestored(v)
		n.wipeOld(wiper, v)
		select {
		case <-ctx.Done():
			return
		case <-done: // a name stays in running: each try is made once
		case <-changed:
		case <-tick.C:
		}
	}
}

// runKeygen takes part in one try. What an earlier life of this process staged
// for it is said again; a session joined before and not staged is lost, and
// only the next try helps.
func (n *Node) runKeygen(ctx context.Context, v *ledger.State, t keygenTask) {
	log := n.log.With(slog.String("key", t.key.Key), slog.Uint64("try", t.key.Try))
	name := fmt.Sprintf("ready/%s/%d/%d", t.key.Key, t.attempt.Epoch, t.key.Try)
	if b, err := n.keys.Get(name); err == nil && len(b) > 0 {
		var r ledger.ShareReady
		if err := ledger.Unmarshal(b, &r); err == nil {
			n.addReady(r)
			return
		}
	}
	if _, err := n.cons.WaitCertificate(ctx, t.attempt.Height); err != nil {
		return
	}
	v, t, ok := n.stillPlanned(ctx, t)
	if !ok {
		return
	}
	req := tss.Request{
		Cluster: v.Cluster, Kind: tss.Keygen, Key: tssKey(t.key.Key), Epoch: t.attempt.Epoch, Try: t.key.Try,
		At: t.attempt.At, Batch: t.key.Batch, Attempt: t.attempt.K, M: t.attempt.M,
	}
	for _, m := range t.attempt.Roster {
		req.Parties = append(req.Parties, tss.PartyID(m))
	}
	receives := hasMember(t.attempt.Roster, n.self)
	if t.from != nil {
		req.Kind, req.From = tss.Reshare, *t.from
	}
	req.Session = tss.SessionName(req)
	n.noteSession(req, t.members())
	defer n.dropSession(req.Session)
	start := time.Now()
	if req.Key.Curve == tss.Secp256k1 && receives {
		if err := n.makePreParams(ctx); err != nil { // an earlier try may have used the set
			log.Error("no pre-parameters", slog.Any("err", err))
			return
		}
	}
	run := n.tss.Keygen
	if t.from != nil {
		run = n.tss.Reshare
	}
	res, err := run(ctx, req)
	if err != nil {
		n.noteBlame(err, req)
		if ctx.Err() == nil {
			log.Warn("session for key shares failed, waiting for the next try", slog.Any("err", err))
			n.mu.Lock()
			n.gaveUp[jobKey{t.key.Batch, t.attempt.K}] = ledger.GaveUp{Batch: t.key.Batch, Attempt: t.attempt.K}
			n.mu.Unlock()
		}
		return
	}
	if !receives { // dealt, and holds none of them
		return
	}
	r := ledger.ShareReady{Key: t.key.Key, Epoch: t.attempt.Epoch, Try: t.key.Try, Pub: res.Pub, Transcript: ledger.Hash(res.TranscriptHash)}
	if err := n.keys.Put(name, ledger.Marshal(r)); err != nil {
		log.Error("own key share's receipt not stored", slog.Any("err", err))
	}
	log.Info("key share staged", slog.String("pub", hex.EncodeToString(res.Pub)), slog.Duration("took", time.Since(start)))
	n.addReady(r)
}

// proof is what consensus says of the history that this node holds.
type proof interface {
	Vouched() bool
	Certificate(minHeight uint64) (ledger.Certificate, bool)
	Head(height uint64) (ledger.Hash, error)
}

// believed is the present view; false: it is of a state taken over that nobody has
// proved. What lasts, a share used up or destroyed or dealt from, is done by a believed
// one alone.
//
// Why not by any view under a certificate: the headers of a lying leader's state may be
// true, and its body not. A true state may follow and be proved; the certificate is then
// one of the history that the lie was told of, too.
func (n *Node) believed() (v *ledger.State, changed <-chan struct{}, ok bool) {
	for {
		v, changed = n.app.now()
		ok = n.proof.Vouched() // consensus doubts a state before it shows it
		if now, _ := n.app.now(); now == v || !ok {
			return v, changed, ok
		}
	}
}

// stillPlanned is the session as the ledger has it that a certificate covers by now, not
// as the view had it that began the task.
func (n *Node) stillPlanned(ctx context.Context, t keygenTask) (*ledger.State, keygenTask, bool) {
	for {
		v, _, ok := n.believed()
		if ok {
			for _, now := range planKeygens(v, n.self) {
				if a, b := now.attempt, t.attempt; now.key.Key == t.key.Key && now.key.Batch == t.key.Batch && a.Epoch == b.Epoch && a.K == b.K && a.At == b.At {
					return v, now, true
				}
			}
			return v, t, false
		}
		if !sleep(ctx, 20*time.Millisecond) {
			return v, t, false
		}
	}
}

func (n *Node) addReady(r ledger.ShareReady) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.readyShares = append(n.readyShares, r)
}

func (n *Node) setKeyMissing(key, why string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.keyMissing[key] != why && why != "" {
		n.log.Error("key missing: this node cannot sign", slog.String("key", key), slog.String("why", why))
	}
	if why == "" {
		delete(n.keyMissing, key)
	} else {
		n.keyMissing[key] = why
	}
}

// prepare makes pre-parameters if the keystore has none. Until then this node
// does not attest its clock, so that no keygen is planned it would be late for.
func (n *Node) prepare(ctx context.Context) {
	// Whoever holds KeyShares has been through its keygen, wherever replay stands.
	if shares, err := n.keys.Shares(); err == nil && len(shares) > 0 {
		n.setPrepared()
		return
	}
	if err := n.makePreParams(ctx); err != nil {
		if ctx.Err() == nil {
			n.log.Error("no pre-parameters, this node cannot take part in a key generation", slog.Any("err", err))
		}
		return
	}
	n.setPrepared()
}

// readyPreParams has a set made in the background, unless one lies ready or is
// being made.
func (n *Node) readyPreParams(ctx context.Context) {
	if have, err := n.keys.PreParams(); err != nil || have > 0 || !n.making.TryLock() {
		return
	}
	n.making.Unlock()
	n.wg.Add(1)
	go func() {
		defer n.wg.Done()
		if err := n.makePreParams(ctx); err != nil && ctx.Err() == nil {
			n.log.Error("no pre-parameters for the next key shares", slog.Any("err", err))
		}
	}()
}

// makePreParams puts a set into the keystore's pool if it is empty. One that was
// brought to a session is never used again.
func (n *Node) makePreParams(ctx context.Context) error {
	n.making.Lock()
	defer n.making.Unlock()
	have, err := n.keys.PreParams()
	if err != nil || have > 0 {
		return err
	}
	start := time.Now()
	n.log.Info("making pre-parameters")
	if err := n.tss.MakePreParams(ctx); err != nil {
		return err
	}
	n.log.Info("pre-parameters ready", slog.Duration("took", time.Since(start)))
	return nil
}

func (n *Node) setPrepared() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.prepared = true
}
