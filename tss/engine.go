package tss

import (
	"errors"
	"fmt"
	"math/big"

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
// This is the seam of the supervised child of spec signing §8.1: what crosses
// it are the request, one decrypted KeyShare, payloads in, payloads out and one
// result.
type engine struct {
	protocol *protocol
	guard    *guard
	ids      lib.SortedPartyIDs
	self     int
	party    lib.Party
	out      chan lib.Message

	// collect returns what the library finished, or nil.
	collect func() any
	// wipe overwrites the secrets the engine was given.
	wipe func()
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
	return &engine{
		protocol: p, ids: ids, self: self,
		guard: newGuard(p.curve, n, self, m),
		out:   make(chan lib.Message, 4*n*(p.rounds+1)),
		wipe:  func() {},
	}, params
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
	e.party = ecdsasigning.NewLocalPartyWithKDD(digest, params, *share, delta, e.out, end, 32)
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
	end := make(chan *common.SignatureData, 1)
	e.party = eddsasigning.NewLocalParty(new(big.Int).SetBytes(r.Digest), params, *share, e.out, end, len(r.Digest))
	e.collect = func() any { return received1(end) }
	e.wipe = func() { wipeInts(share.Xi) }
	return e, nil
}

func newECDSAKeygen(p *protocol, r Request, self int, pp *ecdsakeygen.LocalPreParams) *engine {
	e, params := newEngine(p, r, self)
	e.guard.paillier[self], e.guard.nTilde[self] = pp.PaillierSK.N, pp.NTildei
	end := make(chan *ecdsakeygen.LocalPartySaveData, 1)
	e.party = ecdsakeygen.NewLocalParty(params, e.out, end, *pp)
	e.collect = func() any { return received1(end) }
	return e
}

func newEdDSAKeygen(p *protocol, r Request, self int) *engine {
	e, params := newEngine(p, r, self)
	end := make(chan *eddsakeygen.LocalPartySaveData, 1)
	e.party = eddsakeygen.NewLocalParty(params, e.out, end)
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

func (e *engine) start() ([]outgoing, error) {
	if err := e.protect(e.party.Start); err != nil {
		return nil, err
	}
	return e.drain()
}

// feed gives one message of a peer to the guard and then to the library.
func (e *engine) feed(from int, r *rule, payload []byte) ([]outgoing, error) {
	msg, err := parse(r, payload, e.ids[from])
	if err != nil {
		return nil, err
	}
	if err := r.check(e.guard, from, msg.Content()); err != nil {
		return nil, err
	}
	err = e.protect(func() *lib.Error {
		_, err := e.party.Update(msg)
		return err
	})
	if err != nil {
		return nil, err
	}
	return e.drain()
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
	out := &libraryError{text: fmt.Sprintf("library, round %d: %.200v", libErr.Round(), libErr.Cause())}
	for _, c := range libErr.Culprits() {
		if c != nil && c.Index != e.self && c.Index >= 0 && c.Index < len(e.ids) {
			out.culprits = append(out.culprits, c.Index)
		}
	}
	return out
}

// drain takes what the library sent while it was called. It sends only then.
func (e *engine) drain() ([]outgoing, error) {
	var outs []outgoing
	for {
		select {
		case m := <-e.out:
			payload, routing, err := m.WireBytes()
			if err != nil {
				return nil, fmt.Errorf("encode own message: %w", err)
			}
			r := e.protocol.byURL[m.WireMsg().GetMessage().GetTypeUrl()]
			if r == nil || r.broadcast != routing.IsBroadcast {
				return nil, fmt.Errorf("library sent an unknown message %s", m.Type())
			}
			to := -1
			if !r.broadcast {
				if len(routing.To) != 1 {
					return nil, errors.New("library sent a message to no single party")
				}
				to = routing.To[0].Index
			}
			outs = append(outs, outgoing{rule: r, to: to, payload: payload})
		default:
			return outs, nil
		}
	}
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
