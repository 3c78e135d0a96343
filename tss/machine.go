package tss

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"

	"github.com/bnb-chain/tss-lib/v2/common"
	ecdsakeygen "github.com/bnb-chain/tss-lib/v2/ecdsa/keygen"
	eddsakeygen "github.com/bnb-chain/tss-lib/v2/eddsa/keygen"

	"github.com/coffer-network/coffer/tss/keystore"
	"github.com/coffer-network/coffer/tss/preparams"
)

// machine is what a session drives: an engine, in a child process or in this
// one. One goroutine calls it, but for abort.
type machine interface {
	start() ([]outgoing, error)
	// feed gives one message of a peer to the guard and then to the library.
	feed(from int, r *rule, payload []byte) ([]outgoing, error)
	// result returns what the library finished, or nil.
	result() (any, error)
	// abort makes a call under way, if it can, and all later ones fail.
	abort()
	// close ends the machine and its secrets.
	close()
}

// job is all that an engine begins with, and all that a child is told. Its
// request is sorted.
type job struct {
	Request   Request            `cbor:"1,keyasint"`
	Self      int                `cbor:"2,keyasint"`
	Share     *keystore.KeyShare `cbor:"3,keyasint"` // Sign; Reshare: of a dealer
	PreParams []byte             `cbor:"4,keyasint"` // of who gets an ECDSA share; JSON of the library's
	Stored    []byte             `cbor:"5,keyasint"` // the moduli that must not come again (K1), one behind the other

	// Prepare asks for fresh pre-parameters and nothing else.
	Prepare bool `cbor:"6,keyasint"`

	// late adds, once all have joined, what a session that never began must not
	// use up. May be nil.
	late func(*job) error
}

// wipe overwrites the secrets of a job.
func (j *job) wipe() {
	if j.Share != nil {
		j.Share.Wipe()
	}
	clear(j.PreParams)
}

// engine builds the engine of a job. It decodes the KeyShare anew, so each
// session has slices, integers and points of its own: the library writes into
// what it is given.
func (j *job) engine() (*engine, error) {
	r := j.Request
	p, err := protocolOf(r.Kind, r.Key.Curve)
	if err != nil {
		return nil, err
	}
	if r.Key.Curve == Ed25519 {
		return j.eddsa(p)
	}
	return j.ecdsa(p)
}

func (j *job) eddsa(p *protocol) (*engine, error) {
	r := j.Request
	if r.Kind == Keygen {
		return newEdDSAKeygen(p, r, j.Self), nil
	}
	var d *eddsakeygen.LocalPartySaveData
	if j.Share != nil {
		var err error
		if d, err = decodeEdDSA(j.Share, r.Cluster); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrNoKeyShare, j.Share.ID, err)
		}
	}
	if r.Kind == Reshare {
		pub, err := decompress(r.Key.Curve, r.From.Pub)
		if err != nil {
			return nil, fmt.Errorf("public key: %w", err)
		}
		return newEdDSAReshare(p, r, j.Self, pub, d)
	}
	if d == nil {
		return nil, ErrNoKeyShare
	}
	return newEdDSASign(p, r, j.Self, d)
}

func (j *job) ecdsa(p *protocol) (*engine, error) {
	r := j.Request
	var d *ecdsakeygen.LocalPartySaveData
	if j.Share != nil {
		var err error
		if d, err = decodeECDSA(j.Share, r.Cluster); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrNoKeyShare, j.Share.ID, err)
		}
	}
	var pp *ecdsakeygen.LocalPreParams
	if len(j.PreParams) > 0 {
		pp = new(ecdsakeygen.LocalPreParams)
		if json.Unmarshal(j.PreParams, pp) != nil {
			return nil, errors.New("stored pre-parameters do not decode")
		}
		if err := preparams.Validate(pp); err != nil {
			return nil, fmt.Errorf("stored pre-parameters: %w", err)
		}
	}
	switch {
	case r.Kind == Reshare:
		pub, err := decompress(r.Key.Curve, r.From.Pub)
		if err != nil {
			return nil, fmt.Errorf("public key: %w", err)
		}
		return newECDSAReshare(p, r, j.Self, pub, d, pp, splitModuli(j.Stored))
	case r.Kind == Keygen && pp == nil:
		return nil, ErrNoPreParams
	case r.Kind == Keygen:
		return newECDSAKeygen(p, r, j.Self, pp, splitModuli(j.Stored)), nil
	case d == nil:
		return nil, ErrNoKeyShare
	}
	return newECDSASign(p, r, j.Self, d)
}

// joinModuli and splitModuli carry the moduli of stored KeyShares: a frame holds
// those of two hundred epochs of ten members.
func joinModuli(stored map[string]bool) []byte {
	var b []byte
	for _, n := range slices.Sorted(maps.Keys(stored)) {
		b = append(b, new(big.Int).SetBytes([]byte(n)).FillBytes(make([]byte, modulusBits/8))...)
	}
	return b
}

func splitModuli(b []byte) map[string]bool {
	stored := map[string]bool{}
	for n := range slices.Chunk(b, modulusBits/8) {
		stored[string(new(big.Int).SetBytes(n).Bytes())] = true
	}
	return stored
}

// begin gives a job to a machine, once all have joined.
func (s *Signer) begin(ctx context.Context, j *job) (machine, error) {
	if j.late != nil {
		if err := j.late(j); err != nil {
			return nil, err
		}
	}
	if s.children == nil {
		return j.engine()
	}
	return s.newRemote(ctx, j)
}

// encodeResult and decodeResult carry what the library finished over the pipe.
// It is a secret where it is a KeyShare.
func encodeResult(v any) ([]byte, error) {
	switch d := v.(type) {
	case *common.SignatureData:
		return d.Signature, nil
	case *reshared:
		v = d.share // null at a member that only dealt
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil, errors.New("result does not encode")
	}
	return b, nil
}

func decodeResult(p *protocol, b []byte) (any, error) {
	var v any
	switch {
	case p.kind == Sign:
		return &common.SignatureData{Signature: b}, nil
	case p.curve == Ed25519:
		v = new(eddsakeygen.LocalPartySaveData)
	default:
		v = new(ecdsakeygen.LocalPartySaveData)
	}
	defer clear(b)
	if p.kind == Reshare && string(b) == "null" {
		return &reshared{}, nil
	}
	if json.Unmarshal(b, v) != nil {
		return nil, errors.New("result does not decode")
	}
	if p.kind == Reshare {
		return &reshared{share: v}, nil
	}
	return v, nil
}
