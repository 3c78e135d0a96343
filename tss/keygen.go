package tss

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/bnb-chain/tss-lib/v2/crypto"
	ecdsakeygen "github.com/bnb-chain/tss-lib/v2/ecdsa/keygen"
	eddsakeygen "github.com/bnb-chain/tss-lib/v2/eddsa/keygen"

	"github.com/coffer-network/coffer/tss/keystore"
	"github.com/coffer-network/coffer/tss/preparams"
)

const (
	minECDSAKeygen     = 5 * time.Minute
	defaultEdDSAKeygen = 30 * time.Second
	// keygenUnits per member and keygenSlack: 20 times the expected CPU of one
	// party, which is 200·n exponentiations (spec: signing §6).
	keygenUnits = 200
	keygenSlack = 20
)

// Keygen joins the session, makes a key with all parties and stages this
// member's KeyShare in the keystore. An ECDSA keygen uses up one set of the
// pool of pre-parameters once all have joined. Errors are those of Sign, and
// ErrNoPreParams.
func (s *Signer) Keygen(ctx context.Context, r Request) (KeygenResult, error) {
	var out KeygenResult
	if r.Kind != Keygen {
		return out, fmt.Errorf("keygen: request is a %s", r.Kind)
	}
	if err := r.check(s.self, s.cfg.Cluster); err != nil {
		return out, fmt.Errorf("keygen: %w", err)
	}
	r = r.sorted()
	if r.Deadline <= 0 {
		r.Deadline = keygenDeadline(r)
	}
	protocol, err := protocolOf(Keygen, r.Key.Curve)
	if err != nil {
		return out, fmt.Errorf("keygen: %w", err)
	}
	if r.Key.Curve == Secp256k1 {
		if err := s.havePreParams(); err != nil {
			return out, fmt.Errorf("keygen: %w", err)
		}
	}
	stored, err := s.storedModuli()
	if err != nil {
		return out, fmt.Errorf("keygen: %w", err)
	}
	j := &job{Request: r, Stored: joinModuli(stored)}
	if r.Key.Curve == Secp256k1 {
		j.late = func(j *job) (err error) {
			j.PreParams, err = takePreParams(s.cfg.Keystore)
			return err
		}
	}
	v, x, err := s.session(ctx, protocol, j)
	if err != nil {
		return out, fmt.Errorf("keygen of %s try %d: %w", r.Key.ID, r.Try, err)
	}
	return s.stage(r, x, v, stored)
}

// stage accepts what the library made, and stores it.
func (s *Signer) stage(r Request, x *session, v any, stored map[string]bool) (KeygenResult, error) {
	share, err := acceptKey(r, slices.Index(r.Parties, s.self), x.transcript(), v, stored)
	if err != nil {
		return KeygenResult{}, x.suspect(x.protocol.rounds, Failed, err.Error(), x.others()...)
	}
	defer share.Wipe()
	if err := s.cfg.Keystore.StageKeyShare(share); err != nil {
		return KeygenResult{}, fmt.Errorf("%s of %s epoch %d try %d: %w", r.Kind, r.Key.ID, r.Epoch, r.Try, err)
	}
	s.log.Info("key share staged", "session", r.Session, "key", r.Key.ID, "epoch", r.Epoch, "try", r.Try)
	return KeygenResult{ID: share.ID, Pub: share.Pub, TranscriptHash: share.Transcript}, nil
}

func (s *Signer) havePreParams() error {
	n, err := s.cfg.Keystore.PreParams()
	if err == nil && n == 0 {
		err = ErrNoPreParams
	}
	return err
}

// storedModuli are the Paillier N and NTilde of every KeyShare in the keystore,
// whatever its key, epoch and state: none may come again (K1). A share that
// does not load is left out; it is the keystore's to report.
func (s *Signer) storedModuli() (map[string]bool, error) {
	infos, err := s.cfg.Keystore.Shares()
	if err != nil {
		return nil, err
	}
	stored := map[string]bool{}
	for _, info := range infos {
		if info.Err != nil || Curve(info.Curve) != Secp256k1 {
			continue
		}
		k, _, err := s.cfg.Keystore.KeyShare(info.ID)
		if err != nil {
			continue
		}
		if d, err := decodeECDSA(&k, s.cfg.Cluster); err == nil {
			for i := range d.NTildej {
				stored[string(d.NTildej[i].Bytes())] = true
				stored[string(d.PaillierPKs[i].N.Bytes())] = true
			}
			wipeECDSA(d)
		}
		k.Wipe()
	}
	return stored, nil
}

// MakePreParams puts a fresh set of pre-parameters into the keystore's pool: a
// few CPU seconds in a child of lowest priority.
func (s *Signer) MakePreParams(ctx context.Context) error {
	pp, err := s.makePreParams(ctx)
	if err != nil {
		return fmt.Errorf("make pre-parameters: %w", err)
	}
	return StorePreParams(s.cfg.Keystore, pp)
}

func (s *Signer) makePreParams(ctx context.Context) (*ecdsakeygen.LocalPreParams, error) {
	if s.children == nil {
		return preparams.Generate(ctx, 1, nil)
	}
	m, err := s.newRemote(ctx, &job{Request: Request{Kind: Keygen, Key: KeyID{Curve: Secp256k1}}, Prepare: true})
	if err != nil {
		return nil, err
	}
	defer m.close()
	stop := context.AfterFunc(ctx, m.abort)
	defer stop()
	if _, err := m.start(); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, err
	}
	defer clear(m.done)
	pp := new(ecdsakeygen.LocalPreParams)
	if json.Unmarshal(m.done, pp) != nil {
		return nil, errors.New("they do not decode")
	}
	return pp, nil
}

// acceptKey checks what the library made and packs it.
func acceptKey(r Request, self int, transcript [32]byte, v any, stored map[string]bool) (keystore.KeyShare, error) {
	var pub *crypto.ECPoint
	switch d := v.(type) {
	case *ecdsakeygen.LocalPartySaveData:
		if err := acceptECDSA(d, self, r.M, stored); err != nil {
			return keystore.KeyShare{}, err
		}
		pub = d.ECDSAPub
	case *eddsakeygen.LocalPartySaveData:
		if err := acceptEdDSA(d, self, r.M); err != nil {
			return keystore.KeyShare{}, err
		}
		pub = d.EDDSAPub
	default:
		return keystore.KeyShare{}, fmt.Errorf("library returned a %T", v)
	}
	if r.Kind == Reshare && !bytes.Equal(compressed(r.Key.Curve, pub), r.From.Pub) {
		return keystore.KeyShare{}, errors.New("resharing gave another public key")
	}
	share, err := encodeShare(r, pub, transcript, v)
	if err != nil {
		return keystore.KeyShare{}, err
	}
	if _, err := decodeShare(&share, r.Cluster); err != nil {
		return keystore.KeyShare{}, errors.Join(errors.New("new share would not load"), err)
	}
	return share, nil
}

// transcript is the hash over every broadcast of the session: equal for all
// parties that saw the same. ShareReady compares it, since nothing follows the
// last round that could echo it.
func (x *session) transcript() [32]byte {
	h := sha256.New()
	h.Write([]byte("coffer/transcript/1"))
	h.Write(x.r.Session[:])
	for round := 1; round <= x.protocol.rounds; round++ {
		for _, b := range x.hashes[round] {
			h.Write(b[:])
		}
	}
	return [32]byte(h.Sum(nil))
}

// keygenDeadline follows the machine: a fixed limit fails on a loaded one.
func keygenDeadline(r Request) time.Duration {
	if r.Key.Curve == Ed25519 {
		return defaultEdDSAKeygen
	}
	return max(minECDSAKeygen, keygenSlack*keygenUnits*time.Duration(len(r.Parties))*unit())
}

// unit times one exponentiation of 2048 bits mod 4096, what nearly all CPU
// of the ECDSA protocols goes into.
func unit() time.Duration {
	mod := new(big.Int).Lsh(one, 4096)
	mod.Sub(mod, big.NewInt(17))
	base := new(big.Int).Sub(mod, new(big.Int).Lsh(one, 2049))
	exp := below(new(big.Int).Lsh(one, 2048))
	begin := time.Now()
	new(big.Int).Exp(base, exp, mod)
	return time.Since(begin)
}
