package tss

import (
	"errors"
	"fmt"
	"math/big"
	"slices"

	"github.com/bnb-chain/tss-lib/v2/common"
	"github.com/bnb-chain/tss-lib/v2/crypto"
	ecdsakeygen "github.com/bnb-chain/tss-lib/v2/ecdsa/keygen"
	ecdsasigning "github.com/bnb-chain/tss-lib/v2/ecdsa/signing"
	eddsakeygen "github.com/bnb-chain/tss-lib/v2/eddsa/keygen"
	eddsasigning "github.com/bnb-chain/tss-lib/v2/eddsa/signing"
	lib "github.com/bnb-chain/tss-lib/v2/tss"
)

// engine drives one library party: guard, feed, collect. It knows neither
// envelopes nor peers' keys nor time. One goroutine calls it.
//
// In a node it runs in a child process (spec: signing §8.1): what crosses the
// pipe are the request, one decrypted KeyShare, payloads in, payloads out and
// one result.
type engine struct {
	protocol *protocol
	guard    *guard
	self     int
	ids      lib.SortedPartyIDs // of the members in role 0 or receiver
	dealers  lib.SortedPartyIDs // of the members in role dealer
	member   map[string]int     // party key to member of the session
	sides    []side

	// collect returns what the library finished, or nil.
	collect func() any
	// wipe overwrites the secrets the engine was given.
	wipe func()
}

// side is one library party. A member that is in both committees of a resharing
// has two; what one says to the other does not leave the engine.
type side struct {
	role  role
	party lib.Party
	out   chan lib.Message
}

// outgoing is a message of ours; to is -1 for a broadcast.
type outgoing struct {
	rule    *rule
	to      int
	payload []byte
}

// libraryError is the library giving up. Whom it names is a hint and no proof:
// several of its blames are wrong (spec: signing §10).
type libraryError struct {
	culprits []int
	text     string
}

func (e *libraryError) Error() string { return e.text }

// partyIDs builds the library's ids. parties are in order of their party keys,
// so indexes here and there agree.
func partyIDs(r Request, parties []PartyID) lib.SortedPartyIDs {
	ids := make(lib.UnSortedPartyIDs, len(parties))
	for i, p := range parties {
		key := partyKey(r.Cluster, r.Key.ID, r.Epoch, p, curveOrder(r.Key.Curve))
		ids[i] = lib.NewPartyID(p.String(), p.String(), key)
	}
	return lib.SortPartyIDs(ids)
}

// newEngine prepares what all protocols share. The out channel holds all a
// party can ever send: unbuffered, an abandoned session would leak a goroutine
// that holds the party's lock.
func newEngine(p *protocol, r Request, self int) (*engine, *lib.Parameters) {
	ids := partyIDs(r, r.Parties)
	n := len(ids)
	m := n
	if r.Kind == Keygen {
		m = r.M
	}
	params := lib.NewParameters(ellipticCurve(p.curve), lib.NewPeerContext(ids), ids[self], n, libThreshold(m))
	e := &engine{
		protocol: p, ids: ids, self: self, member: map[string]int{},
		guard: newGuard(p.curve, n, self, m),
		wipe:  func() {},
	}
	for i, id := range ids {
		e.member[string(id.Key)] = i
	}
	return e, params
}

// newOut makes the channel of one library party.
func (e *engine) newOut() chan lib.Message {
	return make(chan lib.Message, 4*(len(e.ids)+len(e.dealers))*(e.protocol.rounds+1))
}

func (e *engine) add(as role, out chan lib.Message, party lib.Party) {
	e.sides = append(e.sides, side{role: as, party: party, out: out})
}

func newECDSASign(p *protocol, r Request, self int, share *ecdsakeygen.LocalPartySaveData) (*engine, error) {
	e, params := newEngine(p, r, self)
	subset := ecdsakeygen.BuildLocalSaveDataSubset(*share, e.ids)
	for i := range e.ids {
		e.guard.paillier[i], e.guard.nTilde[i] = subset.PaillierPKs[i].N, subset.NTildej[i]
	}
	order := curveOrder(Secp256k1)
	// A digest not below the order is the same message to ECDSA; the library
	// refuses it.
	digest := new(big.Int).SetBytes(r.Digest)
	digest.Mod(digest, order)
	var delta *big.Int
	if r.Tweak != [32]byte{} {
		delta = new(big.Int).SetBytes(r.Tweak[:])
		if err := shiftPoints(Secp256k1, delta, share.BigXj, &share.ECDSAPub); err != nil {
			return nil, err
		}
	}
	end := make(chan *common.SignatureData, 1)
	out := e.newOut()
	e.add(0, out, ecdsasigning.NewLocalPartyWithKDD(digest, params, *share, delta, out, end, 32))
	e.collect = func() any { return received1(end) }
	e.wipe = func() { wipeInts(share.Xi) }
	return e, nil
}

func newEdDSASign(p *protocol, r Request, self int, share *eddsakeygen.LocalPartySaveData) (*engine, error) {
	e, params := newEngine(p, r, self)
	if r.Tweak != [32]byte{} {
		// The library has no derivation: adding a constant to every share adds
		// it to the secret.
		delta := new(big.Int).SetBytes(r.Tweak[:])
		if err := shiftPoints(Ed25519, delta, share.BigXj, &share.EDDSAPub); err != nil {
			return nil, err
		}
		share.Xi.Add(share.Xi, delta).Mod(share.Xi, curveOrder(Ed25519))
	}
	subset := eddsakeygen.BuildLocalSaveDataSubset(*share, e.ids)
	var err error
	if e.guard.parts, err = newEdDSAParts(r, self, subset.Ks, subset.BigXj, share.EDDSAPub); err != nil {
		return nil, err
	}
	end := make(chan *common.SignatureData, 1)
	out := e.newOut()
	e.add(0, out, eddsasigning.NewLocalParty(new(big.Int).SetBytes(r.Digest), params, *share, out, end, len(r.Digest)))
	e.collect = func() any { return received1(end) }
	e.wipe = func() { wipeInts(share.Xi) }
	return e, nil
}

func newECDSAKeygen(p *protocol, r Request, self int, pp *ecdsakeygen.LocalPreParams, stored map[string]bool) *engine {
	e, params := newEngine(p, r, self)
	e.guard.stored = stored
	e.guard.paillier[self], e.guard.nTilde[self] = pp.PaillierSK.N, pp.NTildei
	end := make(chan *ecdsakeygen.LocalPartySaveData, 1)
	out := e.newOut()
	e.add(0, out, ecdsakeygen.NewLocalParty(params, out, end, *pp))
	e.collect = func() any { return received1(end) }
	return e
}

func newEdDSAKeygen(p *protocol, r Request, self int) *engine {
	e, params := newEngine(p, r, self)
	end := make(chan *eddsakeygen.LocalPartySaveData, 1)
	out := e.newOut()
	e.add(0, out, eddsakeygen.NewLocalParty(params, out, end))
	e.collect = func() any { return received1(end) }
	return e
}

// received1 takes from the channel if something is there. A nil interface, not
// a typed nil, says that nothing is.
func received1[T any](ch chan *T) any {
	select {
	case v := <-ch:
		return v
	default:
		return nil
	}
}

// shiftPoints adds delta·G to the public points of a share. Without it the
// library verifies the child's parts against the master's and blames an honest
// peer. share is this session's own copy: done on the keystore's, one derived
// signature would spoil the master.
func shiftPoints(c Curve, delta *big.Int, bigXj []*crypto.ECPoint, pub **crypto.ECPoint) error {
	shift := crypto.ScalarBaseMult(ellipticCurve(c), delta)
	for i := range bigXj {
		p, err := bigXj[i].Add(shift)
		if err != nil {
			return errChild
		}
		bigXj[i] = p
	}
	child, err := (*pub).Add(shift)
	if err != nil || !onCurve(c, child.X(), child.Y()) {
		return errChild
	}
	*pub = child
	return nil
}

func (e *engine) result() (any, error) { return e.collect(), nil }
func (e *engine) abort()               {}
func (e *engine) close()               { e.wipe() }

func (e *engine) start() ([]outgoing, error) {
	for _, s := range e.sides {
		if err := e.protect(s.party.Start); err != nil {
			return nil, err
		}
	}
	return e.drain()
}

// id is how the library knows the sender of a message.
func (e *engine) id(from int, r *rule) *lib.PartyID {
	ids := e.ids
	if r.role == dealer {
		ids = e.dealers
	}
	for _, id := range ids {
		if e.member[string(id.Key)] == from {
			return id
		}
	}
	return nil
}

// feed gives one message of a peer to the guard and then to the library.
func (e *engine) feed(from int, r *rule, payload []byte) ([]outgoing, error) {
	id := e.id(from, r)
	if id == nil {
		return nil, violate("E4", "%s from a member without its role", r.name)
	}
	if !slices.ContainsFunc(e.sides, func(s side) bool { return r.to.of(s.role) }) {
		return nil, nil // for the other committee: this member only compares it
	}
	msg, err := parse(r, payload, id)
	if err != nil {
		return nil, err
	}
	if err := r.check(e.guard, from, msg.Content()); err != nil {
		return nil, err
	}
	for _, s := range e.sides {
		if !r.to.of(s.role) {
			continue
		}
		if err := e.update(s, msg); err != nil {
			return nil, err
		}
	}
	return e.drain()
}

func (e *engine) update(s side, msg lib.ParsedMessage) error {
	return e.protect(func() *lib.Error {
		_, err := s.party.Update(msg)
		return err
	})
}

// protect calls into the library. The library returns *Error: assigned to an
// error, its nil would not be one, so the pointer is compared here and nowhere
// else. Some of its panics happen in the caller's goroutine and end here.
func (e *engine) protect(f func() *lib.Error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &libraryError{text: fmt.Sprintf("library panicked: %.120v", p)}
		}
	}()
	libErr := f()
	if libErr == nil {
		return nil
	}
	cause := "no cause given" // a failed fac proof of a resharing
	if libErr.Cause() != nil {
		cause = libErr.Cause().Error()
	}
	out := &libraryError{text: fmt.Sprintf("library, round %d: %.200s", libErr.Round(), cause)}
	for _, c := range libErr.Culprits() {
		if c == nil {
			continue
		}
		// By key, not by index: a resharing has two parties of each index.
		if i, ok := e.member[string(c.Key)]; ok && i != e.self {
			out.culprits = append(out.culprits, i)
		}
	}
	return out
}

// drain takes what the library sent while it was called. It sends only then.
func (e *engine) drain() ([]outgoing, error) {
	var outs []outgoing
	for again := true; again; {
		again = false
		for _, s := range e.sides {
			for len(s.out) > 0 {
				again = true
				o, err := e.take(s, <-s.out)
				if err != nil {
					return nil, err
				}
				if o.to == e.self {
					continue // for our other side alone
				}
				outs = append(outs, o)
			}
		}
	}
	return outs, nil
}

// take makes a message of one side fit to be sent, and gives it to the other
// side of this member if that is meant too.
func (e *engine) take(s side, m lib.Message) (outgoing, error) {
	payload, routing, err := m.WireBytes()
	if err != nil {
		return outgoing{}, fmt.Errorf("encode own message: %w", err)
	}
	r := e.protocol.byURL[m.WireMsg().GetMessage().GetTypeUrl()]
	if r == nil || r.broadcast != routing.IsBroadcast || r.role != s.role {
		return outgoing{}, fmt.Errorf("library sent an unknown message %s", m.Type())
	}
	o := outgoing{rule: r, to: -1, payload: payload}
	if p, ok := m.(lib.ParsedMessage); ok {
		if r2, ok := p.Content().(*eddsasigning.SignRound2Message); ok {
			if err := e.guard.parts.nonce(e.self, r2); err != nil {
				return outgoing{}, fmt.Errorf("own message: %w", err)
			}
		}
	}
	if !r.broadcast {
		if len(routing.To) != 1 {
			return outgoing{}, errors.New("library sent a message to no single party")
		}
		to, ok := e.member[string(routing.To[0].Key)]
		if !ok {
			return outgoing{}, errors.New("library sent a message to nobody here")
		}
		o.to = to
	}
	for _, other := range e.sides {
		if other.role == s.role || !r.to.of(other.role) || o.to >= 0 && o.to != e.self {
			continue
		}
		msg, err := parse(r, payload, routing.From)
		if err != nil {
			return outgoing{}, fmt.Errorf("own message: %w", err)
		}
		e.guard.own(msg.Content())
		if err := e.update(other, msg); err != nil {
			return outgoing{}, err
		}
	}
	return o, nil
}

// wipeInts overwrites integers in memory, as well as a garbage-collected
// language can.
func wipeInts(xs ...*big.Int) {
	for _, x := range xs {
		if x != nil {
			clear(x.Bits())
			x.SetInt64(0)
		}
	}
}
