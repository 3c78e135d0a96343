package tss

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"

	lib "github.com/bnb-chain/tss-lib/v2/tss"

	"github.com/coffer-network/coffer/tss/keystore"
)

// Only the parties of a session see what a culprit sent, and they may be fewer
// than the members who must say so. What they saw is signed, so it can be shown
// to anyone: a Case. Who is shown one believes nothing but signatures, hashes and
// the checks that it makes itself.
//
// These checks can be made by who was not there:
//
//	E6           any session: two envelopes of one signer in one slot
//	E3           a signing session: numbers that are not of the session it names
//	E5           a signing session: a message of another protocol, or other content
//	A1–A4        a signing session: encoding, parts, points, scalars
//	S1–S10       ECDSA: ciphertext under the sender's modulus, proofs and their
//	             ranges, and that an opening fits the commitment before it
//	D1, D4, D5   Ed25519: the same; of D5 the range of s
//
// All others compare with what only the parties have, and stay their suspicion
// or their own knowledge: E7 and what a keygen or resharing was sent, the sum of
// D5, K9, K10, every crash.

// Case is evidence against a member, with what its session was named after.
type Case struct {
	Named     Named    `cbor:"1,keyasint"`
	Envelopes [][]byte `cbor:"2,keyasint"` // one; or two in one slot; or a commitment and what does not open it
}

// Named is what the name of a session is the hash of: with it anyone can tell
// what an envelope of the session must look like. Nobody finds another Named for
// a name that an honest party took part under.
type Named struct {
	Kind    uint8     `cbor:"1,keyasint"`
	Key     string    `cbor:"2,keyasint"`
	Curve   string    `cbor:"3,keyasint"`
	Epoch   uint64    `cbor:"4,keyasint"`
	At      [32]byte  `cbor:"5,keyasint"`
	Batch   uint64    `cbor:"6,keyasint"`
	Attempt uint64    `cbor:"7,keyasint"`
	Input   uint16    `cbor:"8,keyasint"`
	Turn    uint16    `cbor:"9,keyasint"`
	Digest  [32]byte  `cbor:"10,keyasint"` // its SHA-256; of a resharing, of what stands there instead
	Tweak   [32]byte  `cbor:"11,keyasint"`
	Parties []PartyID `cbor:"12,keyasint"` // in order of their party keys
}

// named is what r is named after.
func named(r Request) Named {
	n := Named{
		Kind: uint8(r.Kind), Key: r.Key.ID, Curve: string(r.Key.Curve), Epoch: r.Epoch, At: r.At, Batch: r.Batch, Attempt: r.Attempt,
		Input: r.Input, Turn: r.Turn, Digest: sha256.Sum256(r.Digest), Tweak: r.Tweak, Parties: sortParties(r),
	}
	if r.Kind == Reshare {
		// Who deals, from what and to which threshold stand where a signature
		// has its digest.
		n.Digest = sha256.Sum256(encode([]any{r.From.Epoch, r.From.Try, r.From.M, sortHolders(r), r.From.Pub, r.Try, r.M}))
	}
	return n
}

func (n Named) session(cluster [32]byte) SessionID {
	body := encode([]any{
		cluster, n.Kind, []any{n.Key, n.Curve}, n.Epoch, n.At,
		n.Batch, n.Attempt, n.Input, n.Turn, n.Digest, n.Tweak, n.Parties,
	})
	return sha256.Sum256(append([]byte("coffer/session/1"), body...))
}

// CaseOf is what this blame of a session of r can be shown as; false: it names
// nobody for good.
func (b *Blame) CaseOf(r Request) (Case, bool) {
	return Case{Named: named(r), Envelopes: b.Evidence}, b.Proven && len(b.Evidence) > 0
}

// Marshal is the one encoding of a case.
func (c Case) Marshal() []byte { return encode(c) }

// ReadCase decodes a case of a peer's.
func ReadCase(b []byte) (Case, error) {
	var c Case
	if err := decode(b, &c); err != nil {
		return c, fmt.Errorf("case: %w", err)
	}
	return c, nil
}

// Verdict is what a case proves.
type Verdict struct {
	Culprit  PartyID
	Session  SessionID
	Round    int
	Check    string   // that failed, as numbered in spec signing §8.2
	Evidence [32]byte // SHA-256 of the last envelope
}

// errUnproven: the case shows nothing that an honest party would not sign.
var errUnproven = errors.New("the case proves nothing")

// Judge makes the checks of a session's parties on a case. try is of the KeyShares
// that sign in the case's epoch, by the caller's own ledger: no name binds it. A nil
// error convicts; whatever may be wrong with a case, it acquits.
//
// It runs here and not in a child: a case goes into checks and never into the
// library.
func (s *Signer) Judge(c Case, try uint64) (v Verdict, err error) {
	defer func() {
		if p := recover(); p != nil {
			v, err = Verdict{}, fmt.Errorf("case: a check panicked: %.120v", p)
		}
	}()
	if len(c.Envelopes) < 1 || len(c.Envelopes) > 2 {
		return v, fmt.Errorf("case of %d envelopes, want 1 or 2", len(c.Envelopes))
	}
	var fs []*frame
	for _, raw := range c.Envelopes {
		f, err := openFrame(s.cfg.Cluster, nil, raw)
		if err != nil {
			return v, fmt.Errorf("case: %w", err)
		}
		if fs = append(fs, f); f.env.From != fs[0].env.From {
			return v, errors.New("case: envelopes of two signers")
		}
	}
	f := fs[len(fs)-1]
	name := c.Named.session(s.cfg.Cluster)
	if slices.ContainsFunc(fs, func(f *frame) bool { return f.env.Session != name }) {
		return v, errors.New("case: an envelope of another session")
	}
	check, err := s.judge(c.Named, fs, try)
	if err != nil {
		return v, fmt.Errorf("case against %s: %w", f.env.From, err)
	}
	return Verdict{Culprit: f.env.From, Session: name, Round: int(f.env.Round), Check: check, Evidence: f.hash}, nil
}

// judge returns the check that the last of the frames fails.
func (s *Signer) judge(n Named, fs []*frame, try uint64) (check string, err error) {
	f := fs[len(fs)-1]
	if len(fs) == 2 && f.rule == fs[0].rule && f.rule.code >= firstCode && bytes.Equal(f.env.To, fs[0].env.To) {
		if f.hash == fs[0].hash {
			return "", errUnproven
		}
		return "E6", nil
	}
	if Kind(n.Kind) != Sign {
		return "", errors.New("of what a keygen or resharing was sent its parties alone can judge")
	}
	from := slices.Index(n.Parties, f.env.From)
	if from < 0 {
		return "", errors.New("no party of the session")
	}
	for _, f := range fs {
		if e := f.env; e.Epoch != n.Epoch || e.Batch != n.Batch || e.Attempt != n.Attempt || e.Input != n.Input || e.Turn != n.Turn {
			if len(fs) == 1 {
				return "E3", nil
			}
			return "", errUnproven
		}
	}
	if f.rule.code < firstCode {
		return "", errUnproven
	}
	p, err := protocolOf(Sign, Curve(n.Curve))
	if err != nil {
		return "", err
	}
	if !p.has(f.rule) {
		if len(fs) == 1 {
			return "E5", nil
		}
		return "", errUnproven
	}
	g, err := s.judgesGuard(n, f, try)
	if err != nil {
		return "", err
	}
	switch made := p.commitment(f.rule); {
	case made == nil && len(fs) == 1:
	case made != nil && len(fs) == 2 && fs[0].rule == made:
		if err := g.look(fs[0], from); err != nil {
			return "", fmt.Errorf("the commitment itself: %w", err)
		}
	default:
		return "", fmt.Errorf("%d envelopes for %s", len(fs), f.rule.name)
	}
	var bad *violation
	switch err := g.look(f, from); {
	case err == nil:
		return "", errUnproven
	case errors.As(err, &bad) && !bad.local:
		return bad.check, nil
	default:
		return "", err
	}
}

// look is what a party does with a message before the library gets it.
func (g *guard) look(f *frame, from int) error {
	msg, err := parse(f.rule, f.env.Payload, lib.NewPartyID("", "", big.NewInt(int64(from)+1)))
	if err != nil {
		return err
	}
	return f.rule.check(g, from, msg.Content())
}

// judgesGuard knows what is public of the session of f.
func (s *Signer) judgesGuard(n Named, f *frame, try uint64) (*guard, error) {
	if len(n.Parties) < 2 || len(n.Parties) > maxParties {
		return nil, fmt.Errorf("%d parties", len(n.Parties))
	}
	g := newGuard(Curve(n.Curve), len(n.Parties), 0, len(n.Parties))
	// A receiver may have chosen its modulus so that an honest prover's value
	// mod it is 1 now and then. No session minds; here it would accuse.
	g.least = one
	if f.rule.broadcast || Curve(n.Curve) != Secp256k1 {
		return g, nil
	}
	if g.self = slices.Index(n.Parties, PartyID(f.env.To)); g.self < 0 {
		return nil, errors.New("sent to no party of the session")
	}
	return g, s.publicModuli(g, keystore.ShareID{Key: n.Key, Epoch: n.Epoch, Try: try}, n.Parties)
}

// publicModuli gives a guard the moduli of the parties, which every holder of a
// generation has in its KeyShare. The secrets beside them are not decoded.
func (s *Signer) publicModuli(g *guard, id keystore.ShareID, parties []PartyID) error {
	share, state, err := s.cfg.Keystore.KeyShare(id)
	if err != nil {
		return errors.Join(ErrNoKeyShare, err)
	}
	defer share.Wipe()
	if state == keystore.Staged {
		return fmt.Errorf("%w: %s is only staged", ErrNoKeyShare, id)
	}
	var d struct {
		NTildej     []*big.Int
		PaillierPKs []*struct{ N *big.Int }
	}
	if json.Unmarshal(share.Secret, &d) != nil || len(d.NTildej) != len(share.Parties) || len(d.PaillierPKs) != len(share.Parties) {
		return errShare
	}
	for i, p := range parties {
		at := slices.Index(share.Parties, [32]byte(p))
		if at < 0 || d.NTildej[at] == nil || d.PaillierPKs[at] == nil || d.PaillierPKs[at].N == nil {
			return fmt.Errorf("party %s holds no share of %s", p, id)
		}
		g.paillier[i], g.nTilde[i] = d.PaillierPKs[at].N, d.NTildej[at]
	}
	return nil
}
