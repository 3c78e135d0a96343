package node

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/coffer-network/coffer/chains"
	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/node/p2p"
	"github.com/coffer-network/coffer/tss"
)

// signature is a finished one, as stored and as sent to other members.
type signature struct {
	Batch   uint64            `cbor:"1,keyasint"`
	Body    uint64            `cbor:"2,keyasint"`
	Input   uint64            `cbor:"3,keyasint"`
	Attempt uint64            `cbor:"4,keyasint"`
	Turn    uint64            `cbor:"5,keyasint"`
	Session ledger.Hash       `cbor:"6,keyasint"`
	Parties []ledger.MemberID `cbor:"7,keyasint"` // as the parties recorded them
	Sig     tss.Signature     `cbor:"8,keyasint"`
	Millis  uint64            `cbor:"9,keyasint"` // clock of the party that sent it
}

// maxSignedInputs bounds what a peer may name before anything is looked up: the
// ledger plans at most 100 inputs.
const maxSignedInputs = 1000

func (s signature) key() inputKey { return inputKey{s.Batch, s.Body, int(s.Input)} }

// name is where the keystore keeps a node's record. The records of package tss,
// one per attempt and without turn and parties, have a place of their own.
func (k inputKey) name() string { return fmt.Sprintf("signed/%d/%d/%d", k.batch, k.body, k.input) }

// signature returns a verified signature of this node's store.
func (n *Node) signature(k inputKey) (signature, bool) {
	n.mu.Lock()
	s, ok := n.sigs[k]
	n.mu.Unlock()
	if ok {
		return s, true
	}
	b, err := n.keys.Get(k.name())
	if err != nil || len(b) == 0 || ledger.Unmarshal(b, &s) != nil {
		return signature{}, false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sigs[k] = s
	return s, true
}

// addSignature stores a verified signature. The first stays: any one of them
// settles the input, since they sign the same bytes.
func (n *Node) addSignature(s signature) error {
	if _, ok := n.signature(s.key()); ok {
		return nil
	}
	if err := n.keys.Put(s.key().name(), ledger.Marshal(s)); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sigs[s.key()] = s
	return nil
}

func (n *Node) keepSignature(j job, input int, turn uint64, committee []ledger.MemberID, session tss.SessionID, sig tss.Signature) {
	s := signature{
		Batch: j.batch.ID, Body: j.attempt.Body, Input: uint64(input), Attempt: j.attempt.K, Turn: turn,
		Session: ledger.Hash(session), Parties: committee, Sig: sig, Millis: uint64(time.Now().UnixMilli()),
	}
	if err := n.addSignature(s); err != nil {
		n.log.Error("signature not stored", slog.Any("err", err))
	}
	v, _ := n.app.now()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.unshared[s.key()] = n.receivers(v, j.attempt)
}

// receivers are the members that a signature of an attempt goes to.
func (n *Node) receivers(v *ledger.State, a ledger.Attempt) map[ledger.MemberID]bool {
	todo := map[ledger.MemberID]bool{}
	for _, m := range a.Roster {
		todo[m] = m != n.self
	}
	for _, m := range v.Epoch().Members {
		todo[m.ID] = m.ID != n.self
	}
	if v.Next != nil && a.Epoch == v.Next.Epoch.Number { // all of them say that they saw its test signatures
		for _, m := range v.Next.Epoch.Members {
			todo[m.ID] = m.ID != n.self
		}
	}
	return todo
}

// resume takes up the sharing that an earlier life of this process may not have
// ended: what it signed of batches that are open goes to everybody once more.
// Without it a test signature that only a killed member held could keep an
// epoch from opening for ever.
func (n *Node) resume(v *ledger.State) {
	for id := range v.Live.All() {
		b, ok := v.Batches.Get(id)
		if !ok || b.Kind == ledger.BatchKeygen || b.Kind == ledger.BatchReshare {
			continue
		}
		a := b.Newest()
		inputs := 1
		if a.Bitcoin != nil {
			inputs = len(a.Bitcoin.Inputs)
		}
		for i := range inputs {
			k := inputKey{id, a.Body, i}
			s, ok := n.signature(k)
			if !ok || !hasMember(s.Parties, n.self) {
				continue
			}
			n.mu.Lock()
			if n.unshared[k] == nil {
				n.unshared[k] = n.receivers(v, a)
			}
			n.mu.Unlock()
		}
	}
}

// share sends finished signatures to every member until each has taken them, or
// the batch is settled.
func (n *Node) share(ctx context.Context, advanced func()) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	last := map[inputKey]time.Time{}
	for {
		advanced()
		v, _ := n.app.now()
		n.resume(v)
		n.mu.Lock()
		type send struct {
			s  signature
			to ledger.MemberID
		}
		var sends []send
		for k, todo := range n.unshared {
			b, ok := v.Batches.Get(k.batch)
			if ok && b.Done {
				delete(n.unshared, k)
				delete(last, k)
				continue
			}
			if time.Since(last[k]) < time.Second {
				continue
			}
			last[k] = time.Now()
			for m, missing := range todo {
				if missing {
					sends = append(sends, send{n.sigs[k], m})
				}
			}
		}
		n.mu.Unlock()
		for _, x := range sends {
			n.wg.Add(1)
			go func() {
				defer n.wg.Done()
				ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
				defer cancel()
				if _, err := n.peers.Request(ctx, p2p.ID(x.to), requestSignature, ledger.Marshal(x.s)); err != nil {
					return // again in a second
				}
				n.mu.Lock()
				defer n.mu.Unlock()
				if todo := n.unshared[x.s.key()]; todo != nil {
					todo[x.to] = false
				}
			}()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// takeSignature verifies a signature that another member sent against what this
// node's own ledger plans. A bad one costs its sender an error and nothing else.
func (n *Node) takeSignature(_ context.Context, from p2p.ID, body []byte) ([]byte, error) {
	var s signature
	if err := ledger.Unmarshal(body, &s); err != nil {
		return nil, err
	}
	v, _ := n.app.now()
	if m := ledger.MemberID(from); !v.Epoch().Has(m) && !(v.Next != nil && v.Next.Epoch.Has(m)) {
		return nil, fmt.Errorf("%s holds no seat", m)
	}
	b, ok := v.Batches.Get(s.Batch)
	if !ok {
		return nil, fmt.Errorf("batch %d is not known here yet", s.Batch)
	}
	if b.Done {
		return nil, nil
	}
	if s.Input >= maxSignedInputs {
		return nil, fmt.Errorf("input %d, a transaction has at most %d", s.Input, maxSignedInputs)
	}
	a, ok := b.Body(s.Body)
	if !ok {
		return nil, fmt.Errorf("batch %d has no transaction %d here", s.Batch, s.Body)
	}
	// Which turn and parties it came of is the sender's word, kept for people;
	// the ledger plans a committee for that turn, and no other is believed.
	// Of an attempt that a retry replaced the committee is not known any more.
	if s.Attempt > a.K {
		return nil, fmt.Errorf("attempt %d is not planned here, %d is", s.Attempt, a.K)
	}
	if s.Attempt < a.K {
		s.Parties = nil
	} else if !slices.Equal(a.Committee(s.Turn), s.Parties) {
		return nil, fmt.Errorf("parties are not those of turn %d", s.Turn)
	}
	if err := n.verifySignature(v, b, a, s); err != nil {
		n.log.Warn("signature refused", slog.String("peer", n.name(ledger.MemberID(from))), slog.Any("err", err))
		return nil, err
	}
	return nil, n.addSignature(s)
}

func (n *Node) verifySignature(v *ledger.State, b ledger.Batch, a ledger.Attempt, s signature) error {
	curve, digest, pub := ledger.CurveSecp256k1, b.Digest, []byte(nil)
	switch b.Kind {
	case ledger.BatchTest:
		var ok bool
		if s.Input != 0 {
			return fmt.Errorf("batch %d: a test signature has no input %d", b.ID, s.Input)
		}
		if curve, pub, ok = testKey(v, b); !ok {
			return fmt.Errorf("batch %d: its key is not known here", b.ID)
		}
	case ledger.BatchPay:
		u, err := n.chains[b.Chain].Build(a)
		if err != nil {
			return err
		}
		if s.Input >= uint64(len(u.Inputs)) {
			return fmt.Errorf("batch %d has no input %d", b.ID, s.Input)
		}
		digest, pub = u.Inputs[s.Input].Digest, u.Inputs[s.Input].Pub
	default:
		return fmt.Errorf("batch %d makes no signature", b.ID)
	}
	if !ledger.VerifyKey(curve, pub, digest, s.Sig.Bytes()) {
		return fmt.Errorf("batch %d input %d: signature does not verify", b.ID, s.Input)
	}
	return nil
}

func testKey(v *ledger.State, b ledger.Batch) (curve string, pub []byte, ok bool) {
	curve = ledger.CurveSecp256k1
	if b.Key == ledger.KeyEd255191 {
		curve = ledger.CurveEd25519
	}
	if v.Next != nil {
		for _, k := range v.Next.Keys {
			if slices.Contains(k.Tests, b.ID) {
				return curve, k.Pub, len(k.Pub) > 0
			}
		}
	}
	k, ok := v.Keys.Get(b.Key)
	return curve, k.Pub, ok
}

// plannedTests are the test signatures that this node holds of open batches.
func (n *Node) plannedTests(v *ledger.State) []ledger.TestSig {
	var ts []ledger.TestSig
	for id := range v.Live.All() {
		b, ok := v.Batches.Get(id)
		if !ok || b.Kind != ledger.BatchTest {
			continue
		}
		if s, ok := n.signature(inputKey{batch: id, body: b.Newest().Body}); ok {
			ts = append(ts, ledger.TestSig{Batch: id, Signature: s.Sig.Bytes()})
		}
	}
	return ts
}

// derivedPub checks that an input's key is the one its path derives.
func derivedPub(k ledger.Key, in chains.ToSign) (address.Child, error) {
	child, err := address.Derive(address.KeyECDSA, k.ID, k.Pub, in.Path)
	if err != nil {
		return child, err
	}
	if !bytes.Equal(child.Pub, in.Pub) {
		return child, fmt.Errorf("derived key of %s/%s is not the plan's", in.Path.Chain, in.Path.Role)
	}
	return child, nil
}
