package tss

import (
	"fmt"
	"math/big"

	"github.com/bnb-chain/tss-lib/v2/crypto"
	ecdsakeygen "github.com/bnb-chain/tss-lib/v2/ecdsa/keygen"
	ecdsareshare "github.com/bnb-chain/tss-lib/v2/ecdsa/resharing"
	eddsakeygen "github.com/bnb-chain/tss-lib/v2/eddsa/keygen"
	eddsareshare "github.com/bnb-chain/tss-lib/v2/eddsa/resharing"
	lib "github.com/bnb-chain/tss-lib/v2/tss"
)

// reshared is what an engine of a resharing makes: share is nil at a member
// that only dealt.
type reshared struct{ share any }

// newReshare prepares what resharing of both curves shares. r is sorted and
// self a member of it.
func newReshare(p *protocol, r Request, self int, pub *crypto.ECPoint) (*engine, func(as role) *lib.ReSharingParameters) {
	members := r.members()
	old := r
	old.Epoch = r.From.Epoch
	e := &engine{
		protocol: p, self: self, member: map[string]int{},
		ids: partyIDs(r, r.Parties), dealers: partyIDs(old, r.From.Holders),
		guard: newGuard(p.curve, len(members), self, r.M),
		wipe:  func() {},
	}
	for i, m := range members {
		for _, epoch := range []uint64{r.Epoch, r.From.Epoch} {
			e.member[string(partyKey(r.Cluster, r.Key.ID, epoch, m, curveOrder(p.curve)).Bytes())] = i
		}
	}
	e.guard.pub, e.guard.dealers = pub, len(e.dealers)
	return e, func(as role) *lib.ReSharingParameters {
		me := e.id(self, &rule{role: as})
		return lib.NewReSharingParameters(ellipticCurve(p.curve), lib.NewPeerContext(e.dealers), lib.NewPeerContext(e.ids),
			me, len(e.dealers), libThreshold(r.From.M), len(e.ids), libThreshold(r.M))
	}
}

// expectDealt tells the guard of a dealer what every dealer must deal: its
// public share, weighted for this set of dealers.
func (e *engine) expectDealt(ks []*big.Int, bigXj []*crypto.ECPoint) error {
	points := map[string]*crypto.ECPoint{}
	for i, k := range ks {
		points[string(k.Bytes())] = bigXj[i]
	}
	keys := e.dealers.Keys()
	for i, id := range e.dealers {
		p := points[string(id.Key)]
		if p == nil {
			return fmt.Errorf("%w: a dealer is no holder of it", errShare)
		}
		w, err := lagrange(keys, i, e.guard.order)
		if err != nil {
			return err
		}
		e.guard.dealt[e.member[string(id.Key)]] = p.ScalarMult(w)
	}
	e.guard.constant[e.self] = e.guard.dealt[e.self]
	return nil
}

// newECDSAReshare takes the old KeyShare of a dealer, which the library sets to
// zero in the end, and fresh pre-parameters of a receiver; either is nil in the
// other role.
func newECDSAReshare(p *protocol, r Request, self int, pub *crypto.ECPoint, old *ecdsakeygen.LocalPartySaveData, pp *ecdsakeygen.LocalPreParams, stored map[string]bool) (*engine, error) {
	e, params := newReshare(p, r, self, pub)
	e.guard.stored = stored
	var dealt, made chan *ecdsakeygen.LocalPartySaveData
	if old != nil {
		if err := e.expectDealt(old.Ks, old.BigXj); err != nil {
			return nil, err
		}
		dealt = make(chan *ecdsakeygen.LocalPartySaveData, 1)
		out := e.newOut()
		e.add(dealer, out, ecdsareshare.NewLocalParty(params(dealer), *old, out, dealt))
		e.wipe = func() { wipeECDSA(old) }
	}
	if pp != nil {
		e.guard.paillier[self], e.guard.nTilde[self] = pp.PaillierSK.N, pp.NTildei
		made = make(chan *ecdsakeygen.LocalPartySaveData, 1)
		out := e.newOut()
		empty := ecdsakeygen.NewLocalPartySaveData(len(e.ids))
		empty.LocalPreParams = *pp
		e.add(receiver, out, ecdsareshare.NewLocalParty(params(receiver), empty, out, made))
	}
	e.collect = collectReshare(dealt, made, func(d *ecdsakeygen.LocalPartySaveData) {
		d.Xi.Mod(d.Xi, e.guard.order) // the library adds and does not reduce
	})
	return e, nil
}

func newEdDSAReshare(p *protocol, r Request, self int, pub *crypto.ECPoint, old *eddsakeygen.LocalPartySaveData) (*engine, error) {
	e, params := newReshare(p, r, self, pub)
	var dealt, made chan *eddsakeygen.LocalPartySaveData
	if old != nil {
		if err := e.expectDealt(old.Ks, old.BigXj); err != nil {
			return nil, err
		}
		dealt = make(chan *eddsakeygen.LocalPartySaveData, 1)
		out := e.newOut()
		e.add(dealer, out, eddsareshare.NewLocalParty(params(dealer), *old, out, dealt))
		e.wipe = func() { wipeInts(old.Xi) }
	}
	if e.id(self, &rule{role: receiver}) != nil {
		made = make(chan *eddsakeygen.LocalPartySaveData, 1)
		out := e.newOut()
		e.add(receiver, out, eddsareshare.NewLocalParty(params(receiver), eddsakeygen.NewLocalPartySaveData(len(e.ids)), out, made))
	}
	e.collect = collectReshare(dealt, made, func(d *eddsakeygen.LocalPartySaveData) {
		d.Xi.Mod(d.Xi, e.guard.order)
	})
	return e, nil
}

// collectReshare waits for both sides of a member; a nil channel is a side it
// does not have.
func collectReshare[T any](dealt, made chan *T, reduce func(*T)) func() any {
	var share *T
	return func() any {
		if dealt != nil {
			if received1(dealt) == nil {
				return nil
			}
			dealt = nil
		}
		if made != nil {
			v := received1(made)
			if v == nil {
				return nil
			}
			share, made = v.(*T), nil
			reduce(share)
		}
		if share == nil {
			return &reshared{}
		}
		return &reshared{share: share}
	}
}
